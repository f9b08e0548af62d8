"""Changes that the gateway makes itself (keys, quotas): kept as requests that were decided on the spot.

So every change of the system, whoever owns what was changed, leaves the same trace: who asked for what, what came of it,
and when. The request is written in the transaction of the change; its event is the audit's entry.
"""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from lablet_common.requests import digest_of, new_ids
from lablet_common.resources.kinds import REQUEST, Service
from lablet_common.resources.model import Fact, Metadata, Model
from lablet_common.resources.request import Changed, Request, RequestPhase, RequestSpec, RequestStatus
from lablet_common.store import Store, Transaction
from lablet_common.store.changes import create_in
from lablet_gateway.caller import Caller

SOURCE = f"/lablet/{Service.GATEWAY}"


def deed_in(
    txn: Transaction,
    caller: Caller,
    action: str,
    subject: str,
    data: dict[str, Any],
    *,
    at: datetime,
    key: UUID | None = None,
    before: Model | None = None,
    after: Model | None = None,
) -> Request:
    """Adds the trace of a change to its transaction. `action` is `<kind>.<verb>`, `data` what was asked (without anything
    secret), `key` the root of an idempotency key's ids. `before` and `after` are given where no resource's events tell
    them. The key of the request must be free."""
    root = key or uuid4()
    request_id, _ = new_ids(REQUEST, root)
    accepted = Request(
        metadata=Metadata(
            id=request_id,
            uid=str(uuid4()),
            tenant=caller.tenant,
            owner=caller.name,
            created_at=at,
            correlation_id=request_id,
        ),
        spec=RequestSpec(
            type=f"io.lablet.{action}.requested.v1",
            subject=subject,
            data=data,
            event_id=str(root),
            service=Service.GATEWAY,
            shard="-",
            digest=digest_of(data),
            principal=caller.name,
            role=str(caller.principal.role),
            received_at=at,
        ),
        status=RequestStatus(phase=RequestPhase.ACCEPTED, last_fact=Fact(name="accepted", serial=1)),
    )
    told = None
    if before is not None or after is not None:
        told = Changed(before=before.to_dict() if before else None, after=after.to_dict() if after else None)
    decided = accepted.moved(
        RequestPhase.DECIDED, at=at, by=SOURCE, reason="Done", decided_at=at, resource=subject, changed=told
    )
    create_in(txn, decided)
    return decided


async def deed(
    store: Store, caller: Caller, action: str, subject: str, data: dict[str, Any], *, at: datetime
) -> Request:
    """The trace of something that was done outside the store, written once it is done. Raises `StoreUnavailable`: then it
    is done and leaves no trace, and doing it again is the caller's to choose."""
    txn = Transaction()
    told = deed_in(txn, caller, action, subject, data, at=at)
    await txn.commit(store)
    return told
