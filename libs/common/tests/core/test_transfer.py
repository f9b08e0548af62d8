"""Everything out of one store and into another: whole, in order, checked before it is written, never over what is there."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lablet_common import transfer
from lablet_common.intents import INTENTS, Nothing
from lablet_common.quotas import Limits, Quota
from lablet_common.requests import Inbox, accept, build_request, decide_in, request_key, stale
from lablet_common.resources.kinds import IMPORTING_KEY, POOL, REQUEST, RESERVATION, quota_key
from lablet_common.resources.model import Metadata
from lablet_common.resources.reservation import (
    Reservation,
    ReservationPhase,
    ReservationSpec,
    ReservationStatus,
    RosterEntry,
    SeatPlacement,
)
from lablet_common.resources.worker import PoolSpec, PoolStatus, WorkerPool
from lablet_common.store import MemoryStore, StoreUnavailable, Transaction
from lablet_common.store.api import MAX_VALUE_BYTES, StoreStatus
from lablet_common.store.changes import Unreadable
from lablet_common.store.limits import MAX_REQUEST_BYTES
from lablet_common.store.repository import Repository
from lablet_common.transfer import TransferError, export_lines, import_entries, read_lines

NOW = datetime(2027, 3, 1, 9, tzinfo=UTC)
HEAD = b'{"format": "lablet-export/1"}'


def pool(name: str) -> WorkerPool:
    metadata = Metadata(id=name, uid=f"u-{name}", created_at=NOW)
    return WorkerPool(metadata=metadata, spec=PoolSpec(template="simulated", max=2), status=PoolStatus())


def reservation(name: str) -> Reservation:
    return Reservation(
        metadata=Metadata(id=name, uid=f"u-{name}", created_at=NOW, finalizers=("archive",)),
        spec=ReservationSpec(definition="lab@1.0.0", duration_minutes=60),
        status=ReservationStatus(phase=ReservationPhase.SCHEDULED, pool="default"),
    ).observed("scheduled")


async def asked(store: MemoryStore, key: str, at: datetime, meant_for: int | None = None) -> Any:
    intent = INTENTS["io.lablet.reservation.cancel.requested.v1"]
    request = build_request(
        intent, "rsv-a", Nothing(), key=request_key("default", "ada", "r", key), tenant="default", principal="ada",
        shard="default", digest="d", at=at, meant_for=meant_for,
    )  # fmt: skip
    return (await accept(store, request)).request


@pytest.fixture
async def full() -> MemoryStore:
    store = MemoryStore()
    await Repository(store, POOL).create(pool("default"))
    await Repository(store, RESERVATION).create(reservation("rsv-a"))
    await store.put(quota_key("acme"), Quota(tenant=Limits(open_seats=4), retention_days=7).to_json())
    await store.put("/clock", b'{"origin": "2027-03-01T09:00:00Z", "speed": 60}')
    await store.put("/bridge/pool/cursor", b'{"revision": 3}')
    await asked(store, "late", NOW + timedelta(minutes=2))
    await asked(store, "early", NOW)
    done = await asked(store, "done", NOW - timedelta(minutes=1))
    undecided = next(one for one in await Inbox(store, "scheduler", "default").pending() if one.id == done.id)
    txn = Transaction()
    decide_in(txn, undecided, at=NOW, by="test", reason="Done")
    await txn.commit(store)
    return store


async def lines(store: MemoryStore) -> list[bytes]:
    return [line async for line in export_lines(store)]


async def test_what_comes_out_goes_in_again_and_comes_out_the_same(full: MemoryStore) -> None:
    first = await lines(full)
    into = MemoryStore()
    assert await import_entries(into, read_lines(first)) == len(first) - 1
    assert without_revisions(await lines(into)) == without_revisions(first)
    assert await into.get("/bridge/pool/cursor") is None, "bridges of the new store begin anew"


def without_revisions(found: list[bytes]) -> list[Any]:
    documents = [json.loads(line) for line in found]
    for document in documents:
        document.pop("revision", None)
        document.get("metadata", {}).pop("resourceVersion", None)
    return documents


async def test_undecided_requests_wait_for_their_owner_again_in_their_order(full: MemoryStore) -> None:
    into = MemoryStore()
    await import_entries(into, read_lines(await lines(full)))
    waiting = await Inbox(into, "scheduler", "default").pending()
    assert [one.request.spec.received_at for one in waiting] == [NOW, NOW + timedelta(minutes=2)]
    phases = sorted(str(one.phase) for one in (await Repository(into, REQUEST).list()).items)
    assert phases == ["Accepted", "Accepted", "Decided"]


async def test_a_request_that_waits_is_meant_for_its_resource_as_it_came_along(full: MemoryStore) -> None:
    """Which has another revision in the new store: its owner would refuse what was accepted."""
    seen = await Repository(full, RESERVATION).require("rsv-a")
    await asked(full, "latest", NOW + timedelta(minutes=3), seen.revision)
    into = MemoryStore()
    await import_entries(into, read_lines(await lines(full)))
    *_, waiting = await Inbox(into, "scheduler", "default").pending()
    assert stale(waiting.request, await Repository(into, RESERVATION).require("rsv-a")) is None


async def test_all_is_of_one_revision_although_somebody_writes_meanwhile(full: MemoryStore) -> None:
    found = []
    async for line in export_lines(full):
        found.append(line)
        if len(found) == 2:
            await Repository(full, RESERVATION).create(reservation("rsv-later"))
            await full.delete(quota_key("acme"))
    assert not any(b"rsv-later" in line for line in found)
    assert any(b"/quotas/acme" in line for line in found)


async def test_what_a_member_of_etcd_says_that_was_cut_off_is_not_taken_for_the_present() -> None:
    class CutOff(MemoryStore):
        async def status(self) -> StoreStatus:
            return replace(await super().status(), revision=1)

    store = CutOff()
    await Repository(store, POOL).create(pool("default"))
    head, *lines = [line async for line in export_lines(store)]
    assert json.loads(head)["revision"] == store.revision
    assert [json.loads(line)["metadata"]["id"] for line in lines] == ["default"]


async def test_a_value_that_cannot_be_read_is_named(full: MemoryStore) -> None:
    await full.put("/pools/odd", b'{"kind": "WorkerPool"}')
    with pytest.raises(Unreadable, match="the value of /pools/odd cannot be read"):
        await lines(full)


async def test_every_line_at_fault_is_told_and_nothing_is_written(full: MemoryStore) -> None:
    good = await lines(full)
    bad = [
        *good, b"{not json", b'{"kind": "Dragon"}', b'{"kind": "WorkerPool", "metadata": {"id": "x"}}', good[1],
        b'{"kind": "Setting", "key": "/ownership/x", "value": 1}',
        b'{"kind": "Setting", "key": "/quotas/x", "value": {"tenant": {"openSeats": -1}}}', b"[]",
    ]  # fmt: skip
    with pytest.raises(TransferError) as caught:
        read_lines(bad)
    told = caught.value.faults
    assert len(told) == 7
    assert all(f"line {len(good) + at}" in fault for at, fault in enumerate(told, 1))
    assert "'Dragon'" in told[1]
    assert "stands in line 2 already" in told[3]
    with pytest.raises(TransferError, match="lablet-export"):
        read_lines(good[1:])


async def test_nothing_is_written_over_and_a_second_run_goes_on(full: MemoryStore) -> None:
    entries = read_lines(await lines(full))
    into = MemoryStore()
    await Repository(into, POOL).create(pool("default"))
    before = (await into.status()).revision
    with pytest.raises(TransferError, match="/pools/default exists already"):
        await import_entries(into, entries)
    assert (await into.status()).revision == before
    assert await import_entries(into, entries, skip_existing=True) == len(entries) - 1
    assert await import_entries(into, entries, skip_existing=True) == 0


async def test_while_services_run_nothing_is_imported(full: MemoryStore) -> None:
    into = MemoryStore()
    await into.put("/ownership/scheduler/default", b"replica-1")
    with pytest.raises(TransferError, match="services are running"):
        await import_entries(into, read_lines(await lines(full)))


async def test_resources_from_elsewhere_need_no_revisions(full: MemoryStore) -> None:
    document = pool("from-elsewhere").to_json()
    into = MemoryStore()
    assert await import_entries(into, read_lines([HEAD, b"", document])) == 1
    assert (await Repository(into, POOL).require("from-elsewhere")).revision > 0


async def test_a_field_that_nobody_knows_is_kept_where_a_release_has_written_it_and_a_fault_elsewhere() -> None:
    written = json.loads(pool("p").to_json()) | {"colour": "blue"}
    into = MemoryStore()
    await import_entries(into, read_lines([HEAD, json.dumps(written).encode()]))
    assert json.loads((await lines(into))[1])["colour"] == "blue"
    del written["schemaVersion"]
    with pytest.raises(TransferError, match="line 2: colour: Extra inputs"):
        read_lines([HEAD, json.dumps(written).encode()])


async def test_many_are_written_in_several_transactions() -> None:
    store, into = MemoryStore(), MemoryStore()
    for number in range(130):
        await Repository(store, RESERVATION).create(reservation(f"rsv-{number:03}"))
    for number in range(90):
        await asked(store, str(number), NOW + timedelta(seconds=number))
    entries = read_lines(await lines(store))
    assert await import_entries(into, entries) == 220
    waiting = await Inbox(into, "scheduler", "default").pending(200)
    assert [one.request.spec.received_at for one in waiting] == [NOW + timedelta(seconds=n) for n in range(90)]


def class_of(name: str, seats: int = 100) -> Reservation:
    """A full class, as the scheduler has placed it."""
    placement = tuple(
        SeatPlacement(
            seat=number, worker=f"default-{number:03}", instance=f"ins-{name}-{number}",
            ports={f"router{port}_serial": 2000 + port for port in range(12)},
        )
        for number in range(1, seats + 1)
    )  # fmt: skip
    roster = tuple(RosterEntry(seat=number, user=f"somebody-{number}@example.org") for number in range(1, seats + 1))
    made = reservation(name).observed(placement=placement)
    return made.model_copy(update={"spec": made.spec.model_copy(update={"roster": roster})})


async def test_more_than_one_request_to_etcd_takes_goes_in_as_several() -> None:
    """Forty of the largest classes are more than that: the restore of such a mesh broke off in the middle, for good."""
    store, into = MemoryStore(), MemoryStore()
    for number in range(60):
        await Repository(store, RESERVATION).create(class_of(f"rsv-{number:02}"))
    found = await lines(store)
    assert sum(map(len, found)) > 60 / 40 * MAX_REQUEST_BYTES
    assert await import_entries(into, read_lines(found)) == 60
    assert without_revisions(await lines(into)) == without_revisions(found)


async def test_an_import_that_broke_off_says_so_to_services_until_it_is_finished(
    full: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = read_lines(await lines(full))
    into = MemoryStore()
    taken, commits = into.txn, 0

    async def breaks_off(compares: Any, success: Any, failure: Any = ()) -> Any:
        nonlocal commits
        commits += bool(success and compares)
        if commits == 3:
            raise StoreUnavailable("etcd is away")
        return await taken(compares, success, failure)

    monkeypatch.setattr(transfer, "_BATCH", 1)
    monkeypatch.setattr(into, "txn", breaks_off)
    with pytest.raises(StoreUnavailable):
        await import_entries(into, entries)
    assert await into.get(IMPORTING_KEY) is not None
    monkeypatch.setattr(into, "txn", taken)
    with pytest.raises(TransferError, match="exists already"):
        await import_entries(into, entries)
    assert await into.get(IMPORTING_KEY) is not None
    await import_entries(into, entries, skip_existing=True)
    assert await into.get(IMPORTING_KEY) is None
    assert without_revisions(await lines(into)) == without_revisions(await lines(full))


async def test_what_is_too_large_to_be_stored_is_told_before_anything_is_written() -> None:
    large = {"kind": "Setting", "key": "/clock", "value": "x" * MAX_VALUE_BYTES}
    into = MemoryStore()
    with pytest.raises(TransferError, match="the value of /clock has"):
        await import_entries(into, read_lines([HEAD, pool("a").to_json(), json.dumps(large).encode()]))
    assert (await into.range("/")).items == ()


@pytest.mark.parametrize("metadata", ['"x"', "7", "null", "[]"])
def test_metadata_that_are_none_are_a_fault_of_their_line(metadata: str) -> None:
    with pytest.raises(TransferError, match="line 2"):
        read_lines([HEAD, b'{"kind": "WorkerPool", "metadata": %b}' % metadata.encode()])
