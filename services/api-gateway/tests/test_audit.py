"""The audit: every change with who, what, before, after and request; found by each of them; one tenant's only."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lablet_common.bridge import Bridge
from lablet_common.bus.memory import PlainLog
from lablet_common.events import derive, kind_and_id
from lablet_common.events.binding import encode_structured, from_document
from lablet_common.ownership import Fence
from lablet_common.requests import Inbox, decide_in
from lablet_common.resources.kinds import KINDS, RESERVATION
from lablet_common.resources.request import Problem
from lablet_common.resources.reservation import Slot
from lablet_common.store import Transaction
from lablet_common.store.changes import update_in
from lablet_common.store.repository import Repository
from lablet_gateway import audit
from lablet_gateway.audit import Wanted
from lablet_gateway.eventlog import Logged

URL = "/api/v1/audit"


@pytest.fixture
async def published(world: Any) -> AsyncIterator[Any]:
    """`await published()`: everything that was committed has been published, as the bridges do it."""
    key = "/ownership/test/bridges"
    fence = Fence(key, (await Transaction().put(key, b"test").commit(world.store)).revision)

    async def publish(outgoing: Any) -> None:
        if outgoing.subject.startswith("lablet.event."):
            world.log.append(outgoing.event)

    bridges = [
        Bridge(world.store, kind, fence, PlainLog(publish), source=f"/lablet/{kind.owner}") for kind in KINDS.values()
    ]
    running = [asyncio.create_task(bridge.run()) for bridge in bridges]

    async def wait() -> None:
        revision = (await world.store.status()).revision
        newest = max(
            [kv.mod_revision for kind in KINDS.values() for kv in (await world.store.range(kind.prefix)).items],
            default=0,
        )
        assert newest <= revision
        async with asyncio.timeout(5):
            while max((int(e.event.get_extension("sequence")) for e in world.log.events), default=0) < newest:
                await asyncio.sleep(0.005)

    yield wait
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def _lengthen(world: Any, reservation_id: str, minutes: int) -> None:
    """Decides the oldest request of the scheduler's inbox: the slot becomes longer."""
    (undecided, *_) = await Inbox(world.store, "scheduler", "default").pending()
    found = await Repository(world.store, RESERVATION).require(reservation_id)
    slot = Slot(start=found.status.slot.start, end=found.status.slot.end + timedelta(minutes=minutes))
    longer = found.observed("moved", slot=slot)
    txn = Transaction()
    update_in(txn, longer)
    decide_in(txn, undecided, at=world.clock.now(), by="/lablet/scheduler", reason="Extended", resource=longer)
    await txn.commit(world.store)


async def test_a_change_is_told_with_who_asked_what_and_the_fields_it_made_others(
    world: Any, booking: Any, published: Any
) -> None:
    ina, admin = world.client("ina"), world.client()
    made = await ina.post("/api/v1/reservations", json=booking())
    await world.decide(make=lambda request: world.reservation(request.spec.data["id"]))
    name = made.json()["spec"]["subject"].partition("/")[2]
    change = await ina.patch(
        f"/api/v1/reservations/{name}", json={"end": "2027-03-01T11:30:00Z"}, headers={"If-Match": "*"}
    )
    assert change.status_code == 202
    await _lengthen(world, name, 30)
    await published()
    first, second = (await admin.get(URL)).json()["items"]
    assert (first["action"], first["outcome"], first["subject"]) == (
        "reservation.create",
        "done",
        f"reservation/{name}",
    )
    assert (second["action"], second["principal"], second["role"]) == ("reservation.change", "ina", "instructor")
    assert second["data"] == {"end": "2027-03-01T11:30:00Z"}
    assert second["request"] == change.json()["metadata"]["id"]
    record = (await admin.get(f"{URL}/{second['request']}")).json()
    assert record["changes"] == [
        {"path": "status.slot.end", "before": "2027-03-01T11:00:00Z", "after": "2027-03-01T11:30:00Z"}
    ]
    assert record["before"]["status"]["slot"]["end"] == "2027-03-01T11:00:00Z"
    created = (await admin.get(f"{URL}/{first['request']}")).json()
    assert "before" not in created
    assert created["after"]["metadata"]["id"] == name


async def test_what_was_refused_is_told_with_the_reason(world: Any, booking: Any, published: Any) -> None:
    await world.client("ina").post("/api/v1/reservations", json=booking())
    await world.decide(problem=Problem(type="x", title="No", status=409, detail="no worker fits"))
    await published()
    (entry,) = (await world.client().get(URL, params={"outcome": "refused"})).json()["items"]
    assert (entry["outcome"], entry["message"]) == ("refused", "no worker fits")
    assert (await world.client().get(URL, params={"outcome": "done"})).json()["items"] == []


async def test_what_an_owner_of_a_later_release_has_decided_stands_in_the_audit_too(
    world: Any, booking: Any, published: Any
) -> None:
    await world.client("ina").post("/api/v1/reservations", json=booking())
    await world.decide(problem=Problem(type="x", title="No", status=409, detail="no worker fits"))
    await published()

    def later(logged: Logged) -> Logged:
        document = json.loads(encode_structured(logged.event)[1])
        return replace(logged, event=from_document(document | {"data": document["data"] | {"addedLater": 1}}))

    world.log.events = [later(logged) for logged in world.log.events]
    (entry,) = (await world.client().get(URL)).json()["items"]
    assert entry["message"] == "no worker fits"


async def test_changes_that_the_gateway_makes_itself_are_told_too(world: Any, published: Any) -> None:
    admin = world.client()
    made = (await admin.post("/api/v1/keys", json={"name": "lms"})).json()["key"]["metadata"]["id"]
    await admin.delete(f"/api/v1/keys/{made}", params={"reason": "lost"})
    etag = (await admin.put("/api/v1/quotas/acme", json={"tenant": {"openSeats": 5}})).headers["etag"]
    await admin.put("/api/v1/quotas/acme", json={"tenant": {"openSeats": 7}}, headers={"If-Match": etag})
    await published()
    entries = (await admin.get(URL)).json()["items"]
    assert [entry["action"] for entry in entries] == ["key.create", "key.revoke", "quota.set", "quota.set"]
    records = [(await admin.get(f"{URL}/{entry['request']}")).json() for entry in entries]
    assert records[0]["after"]["spec"]["name"] == "lms"
    assert "sha256" not in str(records)
    assert {"path": "status.phase", "before": "Active", "after": "Revoked"} in records[1]["changes"]
    assert records[3]["changes"] == [{"path": "tenant.openSeats", "before": 5, "after": 7}]


@pytest.mark.parametrize(
    ("query", "actions"),
    [
        ({"action": "key"}, ["key.create", "key.revoke"]),
        ({"action": "key.revoke"}, ["key.revoke"]),
        ({"subject": "quota/acme"}, ["quota.set"]),
        ({"subject": "quota"}, ["quota.set"]),
        ({"principal": "nobody"}, []),
        ({"from": "2027-03-01T08:00:01Z"}, []),
        ({"to": "2027-03-01T08:00:00Z"}, []),
        ({"from": "2027-03-01T08:00:00Z", "to": "2027-03-01T08:00:01Z"}, ["key.create", "key.revoke", "quota.set"]),
    ],
)
async def test_entries_are_found_by_each_of_their_sides(
    world: Any, published: Any, query: dict[str, str], actions: list[str]
) -> None:
    admin = world.client()
    made = (await admin.post("/api/v1/keys", json={"name": "lms"})).json()["key"]["metadata"]["id"]
    await admin.delete(f"/api/v1/keys/{made}")
    await admin.put("/api/v1/quotas/acme", json={})
    await published()
    found = (await admin.get(URL, params=query)).json()["items"]
    assert [entry["action"] for entry in found] == actions


async def test_pages_follow_each_other_and_a_cursor_of_another_stream_is_gone(world: Any, published: Any) -> None:
    admin = world.client()
    for number in range(5):
        await admin.post("/api/v1/keys", json={"name": f"k{number}"})
    await published()
    told, cursor = [], None
    for _ in range(9):
        page = (await admin.get(URL, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        told += [entry["data"]["name"] for entry in page["items"]]
        cursor = page.get("nextCursor")
        if cursor is None:
            break
    assert told == [f"k{number}" for number in range(5)]
    assert (await admin.get(URL, params={"cursor": "nonsense"})).status_code == 422
    assert (await admin.get(URL, params={"cursor": "other-1"})).status_code == 410


async def test_another_tenants_changes_are_not_told(world: Any, published: Any) -> None:
    await world.client("admin@acme").post("/api/v1/keys", json={"name": "theirs"})
    await published()
    assert (await world.client().get(URL)).json()["items"] == []
    (entry,) = (await world.client("admin@acme").get(URL)).json()["items"]
    assert (await world.client().get(f"{URL}/{entry['request']}")).status_code == 404


async def test_without_nats_the_audit_says_so(world: Any) -> None:
    world.log.unavailable = True
    answer = await world.client().get(URL)
    assert (answer.status_code, answer.json()["dependency"]) == (503, "nats")


async def test_the_moment_is_searched_for_and_not_everything_is_read(world: Any, published: Any) -> None:
    admin = world.client()
    await admin.post("/api/v1/keys", json={"name": "template"})
    await published()
    (outcome,) = [logged.event for logged in world.log.events if kind_and_id(logged.event)[0] == "request"]
    from lablet_common.resources.request import Request
    from lablet_gateway.audit import _request_in

    request = _request_in(outcome)
    assert isinstance(request, Request)
    world.log.events.clear()
    from lablet_common.events import derive
    from lablet_common.resources.kinds import REQUEST

    for number in range(5000):
        at = world.now + timedelta(minutes=number)
        metadata = request.metadata.model_copy(update={"id": f"req-{number}", "created_at": at})
        status = request.status.model_copy(update={"decided_at": at, "history": ()})
        one = request.model_copy(update={"metadata": metadata, "status": status})
        world.log.append(*(out.event for out in derive(REQUEST, None, one, number + 1, source="/x")))
    read: list[int] = []
    of_kind = world.log.of_kind

    async def counted(tenant: str, kind: str, after: int, limit: int) -> Any:
        found = await of_kind(tenant, kind, after, limit)
        read.append(len(found))
        return found

    world.log.of_kind = counted
    begin = world.now + timedelta(minutes=4000)
    found = await audit.page(world.log, "default", Wanted(begin=begin), None, 10)
    assert [entry.request for entry in found.items] == [f"req-{number}" for number in range(4000, 4010)]
    assert sum(read) < 1600


async def test_a_short_page_reads_few_events_and_more_where_few_are_found(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (told,) = derive(RESERVATION, None, world.reservation("rsv-a"), 1, source="/lablet/scheduler")
    event = told.event
    asked: list[int] = []

    async def of_no_interest(tenant: str, kind: str, after: int, limit: int) -> list[Logged]:
        asked.append(limit)
        return [Logged(after + number + 1, event) for number in range(limit)]

    monkeypatch.setattr(world.log, "of_kind", of_no_interest)
    monkeypatch.setattr(audit, "entry_of", lambda _: None)
    found = await audit.page(world.log, "default", Wanted(), None, 20)
    assert asked[:5] == [80, 160, 320, 500, 500]
    assert 20_000 <= sum(asked) < 20_500
    assert found.after == sum(asked)
