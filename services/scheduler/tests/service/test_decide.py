"""What becomes of requests for seats."""

from datetime import timedelta
from typing import Any

import pytest

from lablet_common.intents import ReservationChange
from lablet_common.resources.instance import SLOT_ENDED, InstancePhase
from lablet_common.resources.kinds import REQUEST
from lablet_common.resources.model import Move
from lablet_common.resources.request import RequestPhase
from lablet_common.resources.reservation import Hold, RosterEntry
from lablet_common.resources.worker import License


async def test_seats_that_fit_are_placed_with_ports_in_the_transaction_of_the_decision(pool: Any) -> None:
    name = await pool.ask(seats=3)
    await pool.settle()
    reservation = await pool.reservation(name)
    assert reservation.phase == "Scheduled"
    assert reservation.status.pool == "default"
    assert reservation.slot.start == pool.when(60)
    assert [seat.seat for seat in reservation.status.placement] == [1, 2, 3]
    assert all(len(seat.ports) == 2 for seat in reservation.status.placement)
    assert not await pool.faults()
    request = await pool.of(name)
    assert request.phase == RequestPhase.DECIDED
    assert request.status.resource == f"reservation/{name}"
    assert request.revision == reservation.revision
    assert reservation.status.explanation.chosen


async def test_all_seats_are_placed_or_none(pool: Any) -> None:
    """Two workers of eight cores take four seats of four cores."""
    first = await pool.ask(seats=1)
    second = await pool.ask(seats=4)
    third = await pool.ask(seats=3, priority=1)  # else it would stand behind the second
    await pool.settle()
    assert await pool.phase(first) == "Scheduled"
    waiting = await pool.reservation(second)
    assert waiting.phase == "Waitlisted"
    assert waiting.status.placement == ()
    assert await pool.phase(third) == "Scheduled"


@pytest.mark.parametrize(("quota", "seats"), [(None, 2), (0, 2), (40, 2), (8, 2), (7, 1)])
async def test_the_licence_of_a_running_machine_may_allow_fewer_nodes_than_the_shape(
    world: Any, quota: int | None, seats: int
) -> None:
    """A worker of twenty nodes and seats of four: what the licence tells counts where it is less, and 0 tells nothing."""
    (worker,) = await world.pool(workers=1, nodes=20)
    licence = License(status="IN_COMPLIANCE", node_quota=quota)
    await world.put(worker.observed(license=licence), gate="default")
    await world.definition(cpu=1, nodes=4)
    await world.own()
    names = []
    for _ in range(2):
        names.append(await world.ask())
        await world.settle()
    phases = [await world.phase(name) for name in names]
    assert phases == ["Scheduled"] * seats + ["Waitlisted"] * (2 - seats)


async def test_what_no_worker_could_ever_take_is_rejected_with_the_binding_dimension(pool: Any) -> None:
    await pool.definition("giant@1.0.0", cpu=9)
    name = await pool.ask(definition="giant@1.0.0")
    await pool.settle()
    reservation = await pool.reservation(name)
    assert (reservation.phase, reservation.status.reason) == ("Rejected", "Impossible")
    assert reservation.status.explanation.considered == 2
    request = await pool.of(name)
    assert request.phase == RequestPhase.REFUSED
    assert request.status.problem.type.endswith("/impossible")


async def test_nothing_is_called_impossible_before_all_workers_of_the_pool_exist(world: Any) -> None:
    workers = await world.pool(workers=2)
    await world.store.delete(f"/workers/{workers[1].id}")
    await world.definition()
    await world.own()
    name = await world.ask(seats=4)
    await world.settle()
    assert await world.phase(name) == "Waitlisted"
    await world.worker("default-002")
    await world.settle()
    assert await world.phase(name) == "Scheduled"


async def test_an_unknown_definition_is_rejected_by_name(pool: Any) -> None:
    name = await pool.ask(definition="nothing@1.0.0")
    await pool.settle()
    assert (await pool.reservation(name)).status.reason == "UnknownDefinition"
    assert (await pool.of(name)).status.problem.errors[0]["path"] == "definition"


async def test_the_definition_of_another_tenant_is_unknown_and_a_public_one_is_not(pool: Any) -> None:
    await pool.definition("secret@1.0.0", tenant="acme")
    await pool.definition("common@1.0.0", tenant="public")
    mine = await pool.ask(definition="secret@1.0.0", tenant="acme")
    stolen = await pool.ask(definition="secret@1.0.0", tenant="default")
    common = await pool.ask(definition="common@1.0.0", tenant="default")
    await pool.settle()
    assert [await pool.phase(name) for name in (mine, stolen, common)] == ["Scheduled", "Rejected", "Scheduled"]


async def test_the_reservation_of_another_tenant_does_not_exist(pool: Any) -> None:
    await pool.definition("common@1.0.0", tenant="public")
    name = await pool.ask(tenant="acme", definition="common@1.0.0")
    await pool.settle()
    for verb, body in (("cancel", None), ("confirm", None), ("change", ReservationChange(end=pool.when(90)))):
        said = await pool.request(await pool.tell(verb, name, body))
        await pool.settle()
        said = await pool.request(said.id)
        assert said.phase == RequestPhase.REFUSED
        assert said.status.problem.status == 404
    assert await pool.phase(name) == "Scheduled"


async def test_a_slot_that_is_over_when_it_is_decided_is_rejected(pool: Any) -> None:
    await pool.pass_time(200)
    name = await pool.ask(60, 120)
    await pool.settle()
    assert (await pool.reservation(name)).status.reason == "InvalidSlot"


async def test_a_full_pool_waitlists_and_names_the_first_slot_that_fits(pool: Any) -> None:
    await pool.ask(60, 120, seats=4)
    name = await pool.ask(90, 150, seats=2)
    await pool.settle()
    reservation = await pool.reservation(name)
    assert reservation.phase == "Waitlisted"
    assert reservation.status.explanation.earliest.start == pool.when(120)
    assert reservation.status.explanation.binding == "cpuCores"
    assert (await pool.of(name)).phase == RequestPhase.DECIDED


async def test_a_suggestion_is_looked_for_within_the_horizon_only(world: Any) -> None:
    world.settings = world.settings.model_copy(update={"scheduler_suggestion_days": 1})
    await world.pool(workers=1)
    await world.definition(minutes=10_000)
    await world.own()
    await world.ask(60, 4000, seats=2)
    name = await world.ask(90, 150, seats=2)
    await world.settle()
    assert (await world.reservation(name)).status.explanation.earliest is None


async def test_as_soon_as_possible_takes_the_first_minute_that_fits(pool: Any) -> None:
    await pool.ask(0, 45, seats=4)
    name = await pool.ask(None, 30, seats=2)
    await pool.settle()
    reservation = await pool.reservation(name)
    assert reservation.phase == "Scheduled"
    assert (reservation.slot.start, reservation.slot.end) == (pool.when(45), pool.when(75))


async def test_as_soon_as_possible_waits_where_nothing_fits_within_the_horizon(world: Any) -> None:
    world.settings = world.settings.model_copy(update={"scheduler_suggestion_days": 1})
    await world.pool(workers=1)
    await world.definition(minutes=10_000)
    await world.own()
    long = await world.ask(0, 4000, seats=2)
    name = await world.ask(None, 30)
    await world.settle()
    assert await world.phase(name) == "Waitlisted"
    await world.tell("cancel", long)
    await world.settle()
    assert await world.phase(name) == "Scheduled"


async def test_a_hold_is_confirmed_into_a_reservation(pool: Any) -> None:
    name = await pool.ask(hold=Hold(expires_at=pool.when(30)))
    await pool.settle()
    assert await pool.phase(name) == "Held"
    said = [await pool.tell("confirm", name), await pool.tell("confirm", name)]
    await pool.settle()
    assert await pool.phase(name) == "Scheduled"
    assert [(await pool.request(one)).phase for one in said] == [RequestPhase.DECIDED] * 2
    await pool.pass_time(31)
    assert await pool.phase(name) == "Scheduled"


async def test_a_hold_that_is_not_confirmed_expires_and_gives_its_room_to_who_waits(pool: Any) -> None:
    held = await pool.ask(seats=4, hold=Hold(expires_at=pool.when(30)))
    waiting = await pool.ask(seats=4)
    await pool.settle()
    await pool.pass_time(29)
    assert [await pool.phase(held), await pool.phase(waiting)] == ["Held", "Waitlisted"]
    await pool.pass_time(30)
    assert [await pool.phase(held), await pool.phase(waiting)] == ["Expired", "Scheduled"]
    said = await pool.tell("confirm", held)
    await pool.settle()
    assert (await pool.request(said)).phase == RequestPhase.REFUSED


async def test_a_hold_that_is_over_when_it_is_decided_never_becomes_firm(pool: Any) -> None:
    await pool.clock.advance(timedelta(minutes=20))
    name = await pool.ask(hold=Hold(expires_at=pool.when(10)))
    await pool.settle()
    assert await pool.phase(name) == "Expired"


async def test_cancelling_frees_the_room_and_twice_is_no_error(pool: Any) -> None:
    name = await pool.ask(seats=4)
    waiting = await pool.ask(seats=4)
    await pool.settle()
    said = [await pool.tell("cancel", name), await pool.tell("cancel", name)]
    await pool.settle()
    assert [await pool.phase(name), await pool.phase(waiting)] == ["Cancelled", "Scheduled"]
    for one in said:
        request = await pool.request(one)
        assert (request.phase, request.status.resource) == (RequestPhase.DECIDED, f"reservation/{name}")
    assert (await pool.facts(name)).count("cancelled") == 1


async def test_a_cancel_behind_its_undecided_request_decides_both(pool: Any) -> None:
    name = await pool.ask(seats=4)
    said = await pool.tell("cancel", name)
    await pool.settle()
    assert await pool.phase(name) == "Cancelled"
    assert (await pool.of(name)).phase == RequestPhase.DECIDED
    assert (await pool.request(said)).phase == RequestPhase.DECIDED


async def test_what_has_ended_otherwise_cannot_be_cancelled(pool: Any) -> None:
    name = await pool.ask(hold=Hold(expires_at=pool.when(30)))
    await pool.settle()
    await pool.pass_time(40)
    said = await pool.tell("cancel", name)
    await pool.settle()
    assert (await pool.request(said)).status.problem.type.endswith("/illegal-transition")
    assert await pool.phase(name) == "Expired"


async def test_an_extension_that_fits_compares_the_instances_and_keeps_the_seats(pool: Any) -> None:
    name = await pool.ask(60, 120)
    await pool.settle()
    before = await pool.reservation(name)
    await pool.start_lab(name)
    said = await pool.change(name, end=150)
    await pool.settle()
    after = await pool.reservation(name)
    assert (await pool.request(said)).phase == RequestPhase.DECIDED
    assert after.slot.end == pool.when(150)
    assert after.spec.duration_minutes == 90
    assert after.status.placement == before.status.placement


async def test_an_extension_that_does_not_fit_names_the_longest_end_that_does(pool: Any) -> None:
    name = await pool.ask(60, 120, seats=4)
    await pool.ask(140, 200, seats=4)
    await pool.settle()
    said = await pool.change(name, end=180)
    await pool.settle()
    problem = (await pool.request(said)).status.problem
    assert problem.type.endswith("/does-not-fit")
    assert problem.extensions["longestEnd"] == "2027-03-01T09:20:00Z"
    assert (await pool.reservation(name)).slot.end == pool.when(120)


async def test_an_extension_comes_too_late_once_a_lab_is_torn_down_for_its_slots_end(pool: Any) -> None:
    """The worker-controller's clock may be a moment ahead: what it has begun to end is not granted more time."""
    name = await pool.ask()
    await pool.settle()
    await pool.start_lab(name, ran=True)
    await pool.pass_time(119)
    move = {"from": "Running", "to": "Stopping", "at": pool.when(120), "by": "/lablet/worker-controller"}
    ending = Move.model_validate(move | {"reason": SLOT_ENDED})
    await pool.set_lab(name, phase=InstancePhase.STOPPING, ran=True, history=(ending,))
    said = await pool.change(name, end=180)
    await pool.settle()
    request = await pool.request(said)
    assert request.phase == "Refused"
    assert "seat 1 is being torn down" in request.status.problem.detail
    assert (await pool.reservation(name)).slot.end == pool.when(120)


async def test_shortening_gives_the_rest_of_the_slot_back(pool: Any) -> None:
    name = await pool.ask(60, 120, seats=4)
    waiting = await pool.ask(90, 150, seats=4)
    await pool.settle()
    await pool.change(name, end=90)
    await pool.settle()
    assert (await pool.reservation(name)).slot.end == pool.when(90)
    assert await pool.phase(waiting) == "Scheduled"
    assert not await pool.faults()


async def test_a_move_may_overlap_its_own_old_slot(pool: Any) -> None:
    name = await pool.ask(60, 120, seats=4)
    await pool.settle()
    await pool.change(name, start=90)
    await pool.settle()
    reservation = await pool.reservation(name)
    assert (reservation.slot.start, reservation.slot.end) == (pool.when(90), pool.when(150))
    assert reservation.status.last_fact.name == "moved"


async def test_a_move_that_does_not_fit_leaves_everything_as_it_was(pool: Any) -> None:
    name = await pool.ask(60, 120, seats=4)
    await pool.ask(200, 300, seats=4)
    await pool.settle()
    said = await pool.change(name, start=220)
    other = await pool.ask(60, 120)
    await pool.settle()
    assert (await pool.request(said)).phase == RequestPhase.REFUSED
    assert (await pool.reservation(name)).slot.start == pool.when(60)
    assert await pool.phase(other) == "Waitlisted"


async def test_a_move_is_refused_once_an_instance_exists(pool: Any) -> None:
    name = await pool.ask(60, 120)
    await pool.settle()
    await pool.start_lab(name)
    await pool.settle()
    said = await pool.change(name, start=200)
    await pool.settle()
    assert (await pool.request(said)).status.problem.title == "Already begun"


@pytest.mark.parametrize(
    ("start", "end", "slug"),
    [(None, 800, "too-long"), (300, 1000, "too-long"), (None, 30, "invalid-slot"), (-20, None, "invalid-slot")],
)
async def test_a_slot_that_no_calendar_could_allow_is_refused(
    pool: Any, start: float | None, end: float | None, slug: str
) -> None:
    name = await pool.ask(60, 120)
    await pool.settle()
    said = await pool.change(name, start=start, end=end)
    await pool.settle()
    assert (await pool.request(said)).status.problem.type.endswith(slug)


async def test_a_roster_changes_without_touching_the_slot(pool: Any) -> None:
    name = await pool.ask(seats=2)
    await pool.settle()
    await pool.tell("change", name, ReservationChange(roster=(RosterEntry(seat=2, user="ben"),)))
    bad = await pool.tell("change", name, ReservationChange(roster=(RosterEntry(seat=3, user="eve"),)))
    await pool.settle()
    reservation = await pool.reservation(name)
    assert [entry.user for entry in reservation.spec.roster] == ["ben"]
    assert reservation.metadata.generation == 2
    assert (await pool.request(bad)).status.problem.errors[0]["path"] == "roster"


async def test_a_body_that_is_none_is_refused_and_holds_nobody_up(pool: Any) -> None:
    name = await pool.ask()
    await pool.settle()
    said = await pool.tell("change", name)  # neither start nor end nor roster
    after = await pool.ask()
    await pool.settle()
    assert (await pool.request(said)).status.problem.type.endswith("/invalid-request")
    assert await pool.phase(after) == "Scheduled"


async def test_a_request_for_a_reservation_that_exists_already_is_closed_with_it(pool: Any) -> None:
    """The request's record was cleared away after its day, and the sender tries again with the same key."""
    name = await pool.ask(key="mine")
    await pool.settle()
    request = await pool.of(name)
    await pool.store.delete(f"/requests/default/{request.id}")
    assert await pool.ask(key="mine") == name
    await pool.settle()
    assert (await pool.of(name)).status.resource == f"reservation/{name}"
    assert await pool.facts(name) == ["scheduled"]


async def test_what_could_not_be_stored_once_it_is_placed_is_refused_and_holds_nobody_up(world: Any) -> None:
    await world.pool(workers=1, cpu=1000, nodes=2000, ports=60_000)
    await world.definition(cpu=1, nodes=1, ports=590)
    await world.definition("small@1.0.0")
    await world.own()
    fits = await world.ask(seats=40)
    blocked = await world.ask(seats=90, start=None, end=60)
    term = await world.ask_series(seats=100)
    await world.settle()
    assert await world.phase(fits) == "Scheduled"
    refusal = (await world.of(blocked)).status.problem
    assert (refusal.status, refusal.errors[0]["path"]) == (413, "seats")
    assert "divide the seats" in refusal.detail
    assert "bytes" in (await world.of(term)).status.problem.detail
    change = await world.tell("change", fits, ReservationChange(seats=90))
    roster = tuple({"seat": 1, "user": f"{number:0>6000}"} for number in range(50))
    people = await world.tell("change", fits, ReservationChange.model_validate({"roster": roster}))
    await world.settle()
    assert (await world.request(change)).status.problem.errors[0]["path"] == "seats"
    assert (await world.request(people)).status.problem.errors[0]["path"] == "roster"
    assert len((await world.reservation(fits)).status.placement) == 40


async def test_a_class_of_the_year_6500_waits_like_any_other_and_holds_nobody_up(pool: Any) -> None:
    far = 4473 * 365 * 24 * 60
    first, second = await pool.ask(far, far + 60, seats=4), await pool.ask(far, far + 60)
    third = await pool.ask()
    await pool.settle()
    assert [await pool.phase(name) for name in (first, second, third)] == ["Scheduled", "Waitlisted", "Scheduled"]
    suggested = (await pool.reservation(second)).status.explanation.earliest
    assert suggested.start == pool.when(far + 60)
    assert not await pool.faults()


async def test_a_key_that_made_another_booking_longer_ago_than_keys_are_kept_is_told_so(pool: Any) -> None:
    """Its reservation stands under the id that the key would give again, and is no answer to what is asked now."""
    name = await pool.ask(60, 120, key="monday")
    await pool.settle()
    await forgotten(pool, name)
    assert await pool.ask(60, 120, key="monday") == name, "the same again is that one"
    await pool.settle()
    assert (await asked_for(pool, name)).status.problem is None
    await forgotten(pool, name)
    await pool.ask(200, 260, key="monday", seats=2)
    await pool.settle()
    problem = (await asked_for(pool, name)).status.problem
    assert (problem.status, problem.type.rpartition("/")[2]) == (422, "idempotency-key-reused")
    assert f"made {name}" in problem.detail
    assert (await pool.reservation(name)).slot.start == pool.when(60)
    await pool.tell("cancel", name)
    await pool.settle()
    await forgotten(pool, name)
    await pool.ask(60, 120, key="monday")
    await pool.settle()
    assert (await asked_for(pool, name)).status.problem.status == 422, "what has ended is not booked"


async def asked_for(pool: Any, name: str) -> Any:
    return await pool.request(f"req-{name.removeprefix('rsv-')}")


async def forgotten(pool: Any, name: str) -> None:
    """As the gateway does with a decided request after a day."""
    await pool.store.delete(REQUEST.key(f"req-{name.removeprefix('rsv-')}"))
    await pool.clock.advance(timedelta(seconds=1))
