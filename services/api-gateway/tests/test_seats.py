"""A learner's way: a link gives a seat, a seat may ask for more time, and nobody gets what is not theirs."""

import asyncio
import hashlib
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lablet_common.requests import Inbox, decide_in
from lablet_common.resources.kinds import RESERVATION
from lablet_common.resources.reservation import Claim, RosterEntry
from lablet_common.store import Transaction
from lablet_common.store.changes import update_in
from lablet_common.store.repository import Repository

URL = "/api/v1/reservations/rsv-a"


async def scheduler(world: Any, count: int) -> None:
    """Decides the next `count` requests about claims as the scheduler would."""
    for _ in range(count):
        async with asyncio.timeout(5):
            while not (pending := await Inbox(world.store, "scheduler", "default").pending()):
                await asyncio.sleep(0.01)
        undecided, data = pending[0], pending[0].request.spec.data
        found = await Repository(world.store, RESERVATION).require("rsv-a")
        if "claims" in data or data.get("withdraw"):
            claims = tuple(Claim.model_validate(claim) for claim in data.get("claims", ()))
            changed = found.respecified(claims=claims)
        else:
            (taken,) = [claim for claim in found.spec.claims if claim.sha256 == data["sha256"]]
            roster = (*found.spec.roster, RosterEntry(seat=taken.seat, user=data["user"]))
            rest = tuple(claim for claim in found.spec.claims if claim is not taken)
            changed = found.respecified(roster=roster, claims=rest)
        txn = Transaction()
        update_in(txn, changed)
        decide_in(txn, undecided, at=world.clock.now(), by="/lablet/scheduler", reason="Done", resource=changed)
        await txn.commit(world.store)


@pytest.fixture
async def links(world: Any) -> dict[int, str]:
    """Codes by seat of the class that ina booked."""
    await world.add(world.reservation("rsv-a", owner="ina"))
    deciding = asyncio.create_task(scheduler(world, 1))
    answer = await world.client("ina").post(f"{URL}/claims")
    await deciding
    assert answer.status_code == 201, answer.text
    assert answer.json()["decided"] is True
    return {link["seat"]: link["code"] for link in answer.json()["links"]}


async def test_a_code_that_could_not_be_claimed_now_and_stays_open_is_in_no_log_and_no_answer(
    world: Any, links: dict[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    world.store.unavailable = True
    answer = await world.client("ann").post(f"/api/v1/claims/{links[1]}")
    assert (answer.status_code, answer.json()["instance"]) == (503, "/api/v1/claims/{code}")
    unproven = await world.client(None).post(f"/api/v1/claims/{links[1]}")
    assert unproven.status_code == 401
    told = [str(record.__dict__) for record in caplog.records if record.name == "lablet_gateway.faults"]
    assert any("/api/v1/claims/{code}" in line for line in told), "nothing was logged"
    for text in (*told, answer.text, unproven.text):
        assert links[1] not in text


async def test_no_span_tells_a_code(world: Any, links: dict[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    deciding = asyncio.create_task(scheduler(world, 1))
    for name, status in ((None, 401), ("ann", 200), ("bob", 404)):
        assert (await world.client(name).post(f"/api/v1/claims/{links[2]}")).status_code == status
    await deciding
    told = [span.to_json() for span in exporter.get_finished_spans()]
    assert sum('"url.path": "/api/v1/claims/{code}"' in span for span in told) == 3
    assert not any(links[2] in span for span in told)


async def test_codes_are_shown_once_and_only_their_hashes_are_kept(world: Any, links: dict[int, str]) -> None:
    assert set(links) == {1, 2}
    stored = b"".join(kv.value for kv in (await world.store.range("/")).items)
    for code in links.values():
        assert code.encode() not in stored
        assert hashlib.sha256(code.encode()).hexdigest().encode() in stored
    shown = (await world.client("ina").get(URL)).text
    assert '"claims":[{"seat":1},{"seat":2}]' in shown
    assert "sha256" not in shown


async def test_a_link_gives_the_seat_and_with_it_the_lab(world: Any, links: dict[int, str]) -> None:
    ann = world.client("ann")
    assert (await ann.get(URL)).status_code == 404
    deciding = asyncio.create_task(scheduler(world, 1))
    answer = await ann.post(f"/api/v1/claims/{links[2]}")
    await deciding
    assert (answer.status_code, answer.json()["metadata"]["id"]) == (200, "rsv-a")
    assert answer.json()["spec"]["roster"] == [{"seat": 2, "user": "ann"}]
    assert (await ann.get(URL)).status_code == 200
    again = await ann.post(f"/api/v1/claims/{links[2]}")
    assert again.status_code == 200, "who sits already is told so"
    assert (await world.client("bob").post(f"/api/v1/claims/{links[2]}")).status_code == 404


async def test_links_of_another_tenant_and_invented_ones_are_unknown(world: Any, links: dict[int, str]) -> None:
    code = links[1]
    other = f"{code[:-1]}{'a' if code[-1] != 'a' else 'b'}"
    for name, wrong in (("learner@acme", code), ("ann", other), ("ann", "nonsense"), ("ann", f"zzz-{'a' * 32}")):
        answer = await world.client(name).post(f"/api/v1/claims/{wrong}")
        assert (answer.status_code, answer.json()["type"]) == (404, "https://lablet.io/problems/not-found")
    assert await world.inbox() == []


async def test_only_whoever_booked_it_hands_out_and_withdraws_links(world: Any, links: dict[int, str]) -> None:
    for name, status in (("ann", 404), ("learner@acme", 404), ("operator@acme", 404)):
        client = world.client(name)
        assert (await client.post(f"{URL}/claims")).status_code == status
        assert (await client.delete(f"{URL}/claims")).status_code == status
    deciding = asyncio.create_task(scheduler(world, 1))
    answer = await world.client("ina").delete(f"{URL}/claims", headers={"Prefer": "wait=5"})
    await deciding
    assert answer.status_code == 200
    assert (await world.client("ann").post(f"/api/v1/claims/{links[1]}")).status_code == 404


async def test_a_repeated_key_makes_no_second_links(world: Any) -> None:
    await world.add(world.reservation("rsv-a", owner="ina"))
    client, headers = world.client("ina"), {"Idempotency-Key": "once"}
    deciding = asyncio.create_task(scheduler(world, 1))
    first = await client.post(f"{URL}/claims", json={"seats": [2]}, headers=headers)
    await deciding
    second = await client.post(f"{URL}/claims", json={"seats": [2]}, headers=headers)
    assert second.json()["request"] == first.json()["request"]
    assert (len(first.json()["links"]), second.json()["links"]) == (1, [])
    assert (await client.post(f"{URL}/claims", json={"seats": [1]}, headers=headers)).status_code == 422


async def test_without_a_free_seat_there_are_no_links(world: Any) -> None:
    await world.add(world.reservation("rsv-a", owner="ina", roster={1: "ann", 2: "bob"}))
    answer = await world.client("ina").post(f"{URL}/claims")
    assert (answer.status_code, "every seat" in answer.json()["detail"]) == (409, True)


async def _class(world: Any, minutes: int, used: int = 0) -> None:
    found = world.reservation("rsv-a", owner="ina", roster={1: "ann"})
    found = found.respecified(extendable_minutes=minutes).observed(extended_minutes=used)
    await world.add(found)


async def test_a_seat_asks_for_more_time_within_what_is_left(world: Any) -> None:
    await _class(world, 30, used=10)
    ann, headers = world.client("ann"), {"If-Match": "*"}
    fine = await ann.patch(URL, json={"end": "2027-03-01T11:20:00Z"}, headers=headers)
    assert fine.status_code == 202
    beyond = await ann.patch(URL, json={"end": "2027-03-01T11:21:00Z"}, headers=headers)
    assert beyond.status_code == 403
    assert "20 are left, to 2027-03-01T11:20:00Z" in beyond.json()["detail"]


@pytest.mark.parametrize(
    ("minutes", "body", "words"),
    [
        (0, {"end": "2027-03-01T11:05:00Z"}, "may not ask for more time themselves: ina can"),
        (30, {"end": "2027-03-01T10:00:00Z"}, "only ina can make it shorter"),
        (30, {"roster": []}, "all else is ina's"),
        (30, {"end": "2027-03-01T11:05:00Z", "start": "2027-03-01T09:30:00Z"}, "all else is ina's"),
        (30, {"extendableMinutes": 600}, "all else is ina's"),
    ],
)
async def test_a_seat_changes_nothing_else(world: Any, minutes: int, body: dict[str, Any], words: str) -> None:
    await _class(world, minutes)
    answer = await world.client("ann").patch(URL, json=body, headers={"If-Match": "*"})
    assert answer.status_code == 403
    assert words in answer.json()["detail"]
    assert await world.inbox() == []


async def test_strangers_ask_for_nothing_and_the_owner_needs_no_leave(world: Any) -> None:
    await _class(world, 30)
    body, headers = {"end": "2027-03-01T12:30:00Z"}, {"If-Match": "*"}
    assert (await world.client("bob").patch(URL, json=body, headers=headers)).status_code == 404
    assert (await world.client("ina").patch(URL, json=body, headers=headers)).status_code == 202
