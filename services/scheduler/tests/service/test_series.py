"""Series: a term of classes, placed as a whole or as far as it fits, changed and cancelled by its dates."""

from datetime import timedelta
from typing import Any

import pytest

from lablet_common.resources import Reservation, Series
from lablet_common.resources.kinds import POOL, REQUEST, RESERVATION, SERIES
from lablet_common.store.changes import decode
from lablet_common.terms import SeriesCancel, SeriesChange

WEEK = 7 * 24 * 60
DATES = ("2027-03-01", "2027-03-08", "2027-03-15", "2027-03-22")
"""Mondays at nine in Berlin, which is minute 60 of the tests' day."""


async def reservations_of(world: Any, series: str) -> dict[str, Reservation]:
    """By date."""
    found = [one for one in await world.all(RESERVATION) if one.spec.series == series]
    return {one.spec.occurrence: one for one in found}


async def phases(world: Any, series: str) -> dict[str, str]:
    return {date: str(one.phase) for date, one in sorted((await reservations_of(world, series)).items())}


def states(series: Series) -> list[str]:
    return [str(one.state) for one in series.status.occurrences]


async def test_a_term_is_held_date_by_date_and_confirmed_as_a_whole(pool: Any) -> None:
    name = await pool.ask_series(seats=2, labels={"course": "ccna"})
    await pool.settle()
    series = await pool.series(name)
    assert (series.phase, series.status.work) == ("Placed", None)
    assert [one.date for one in series.status.occurrences] == list(DATES)
    assert await phases(pool, name) == dict.fromkeys(DATES, "Scheduled")
    for date, one in (await reservations_of(pool, name)).items():
        assert await pool.facts(one.id) == ["held", "scheduled"]
        assert one.metadata.labels == {"course": "ccna"}
        assert series.occurrence(date).reservation == one.id
    request = await pool.of(name)
    assert (request.phase, request.status.resource) == ("Decided", f"series/{name}")
    assert request.status.answer == {"placed": 4, "unfit": {}}
    assert not await pool.faults()


async def test_each_date_has_a_reservation_of_its_own_where_a_clock_change_skips_the_end_of_a_day(pool: Any) -> None:
    # from 25 March on, 23:30 in Nuuk, where the 27th ends at 23:00
    name = await pool.ask_series("FREQ=DAILY;COUNT=5", 24 * 24 * 60 + 18 * 60 + 30, timezone="America/Nuuk")
    await pool.settle()
    series = await pool.series(name)
    assert [one.date for one in series.status.occurrences] == [f"2027-03-{day}" for day in range(25, 30)]
    assert await phases(pool, name) == dict.fromkeys((one.date for one in series.status.occurrences), "Scheduled")
    assert not await pool.faults()


async def test_a_class_at_nine_is_booked_at_nine_after_the_clocks_have_changed(pool: Any) -> None:
    name = await pool.ask_series("FREQ=WEEKLY;COUNT=6")
    await pool.settle()
    starts = [f"{one.start:%m-%d %H:%M}" for one in (await pool.series(name)).status.occurrences]
    assert starts[3:] == ["03-22 08:00", "03-29 07:00", "04-05 07:00"]


async def test_all_or_none_a_date_that_does_not_fit_gives_the_others_back(pool: Any) -> None:
    await pool.ask(60 + WEEK, 120 + WEEK, seats=4)
    await pool.settle()
    name = await pool.ask_series(seats=2)
    await pool.settle()
    series = await pool.series(name)
    assert series.phase == "Refused"
    assert states(series) == ["cancelled", "unfit", "cancelled", "cancelled"]
    assert await phases(pool, name) == {date: "Cancelled" for date in DATES if date != DATES[1]}
    request = await pool.of(name)
    assert request.phase == "Refused"
    assert request.status.problem.type.endswith("series-does-not-fit")
    assert [one["date"] for one in request.status.problem.extensions["dates"]] == [DATES[1]]
    owner, _ = pool.owners["default"]
    assert len(list(owner.state.calendar.bookings())) == 4, "the other reservation's alone"


async def test_where_fitting_dates_are_enough_the_rest_is_reported(pool: Any) -> None:
    await pool.ask(60 + WEEK, 120 + WEEK, seats=4)
    await pool.settle()
    name = await pool.ask_series(seats=2, mode="fits")
    await pool.settle()
    series = await pool.series(name)
    assert (series.phase, states(series)) == ("Placed", ["placed", "unfit", "placed", "placed"])
    assert "fit" in (series.occurrence(DATES[1]).reason or "") or series.occurrence(DATES[1]).reason
    assert list((await pool.of(name)).status.answer["unfit"]) == [DATES[1]]


@pytest.mark.parametrize(
    ("options", "field"),
    [({"rule": "FREQ=HOURLY"}, "rule"), ({"timezone": "Europe/Nowhere"}, "timezone"),
     ({"except_dates": ("2027-03-02",)}, "exceptDates"), ({"definition": "none@1.0.0"}, "definition")],
)  # fmt: skip
async def test_what_gives_no_dates_is_refused_naming_the_field(pool: Any, options: dict[str, Any], field: str) -> None:
    name = await pool.ask_series(**options)
    await pool.settle()
    request = await pool.of(name)
    assert request.phase == "Refused"
    assert [error["path"] for error in request.status.problem.errors] == [field]
    assert not await pool.all(SERIES)


async def test_a_limit_forbids_the_dates_beyond_it(pool: Any) -> None:
    from lablet_common.quotas import Limits, Quota
    from lablet_common.resources.kinds import quota_key

    await pool.store.put(quota_key("default"), Quota(owner=Limits(open_seats=5)).to_json())
    name = await pool.ask_series(seats=2, mode="fits")
    await pool.settle()
    series = await pool.series(name)
    assert states(series) == ["placed", "placed", "unfit", "unfit"]
    assert "openSeats" in series.occurrence(DATES[2]).reason


async def test_dates_go_to_the_next_pool_and_the_request_travels_with_them(world: Any) -> None:
    await world.pool("default", workers=1)
    await world.pool("spare", workers=1)
    await world.definition()
    for name in ("default", "spare"):
        await world.own(name)
    await world.settle()
    await world.ask(60 + WEEK, 120 + WEEK, seats=2)
    await world.settle()
    name = await world.ask_series(seats=2, pools=("default", "spare"))
    await world.settle()
    series = await world.series(name)
    assert series.phase == "Placed"
    assert [one.pool for one in series.status.occurrences] == ["default", "spare", "default", "default"]
    assert await phases(world, name) == dict.fromkeys(DATES, "Scheduled")
    await one_owner_at_every_revision(world, name)
    said = await world.tell_series("cancel", name, SeriesCancel())
    await world.settle()
    assert (await world.request(said)).phase == "Decided"
    assert (await world.series(name)).phase == "Cancelled"
    assert set((await phases(world, name)).values()) == {"Cancelled"}


async def test_a_series_that_fits_in_no_two_pools_leaves_nothing_held_in_either(world: Any) -> None:
    await world.pool("default", workers=1)
    await world.pool("spare", workers=1)
    await world.definition()
    for name in ("default", "spare"):
        await world.own(name)
    await world.settle()
    await world.ask(60 + WEEK, 120 + WEEK, seats=2)
    await world.ask(60 + WEEK, 120 + WEEK, seats=2, pools=("spare",))
    await world.ask(60, 120, seats=2)
    await world.settle()
    name = await world.ask_series(seats=2, pools=("default", "spare"))
    await world.settle()
    assert (await world.series(name)).phase == "Refused"
    assert set((await phases(world, name)).values()) == {"Cancelled"}
    assert not [one for one in await world.all(RESERVATION) if one.phase == "Held"]
    await one_owner_at_every_revision(world, name)


async def one_owner_at_every_revision(world: Any, name: str) -> None:
    """While a series is worked on, its request's pointer lies in one inbox: that of the pool whose turn it is."""
    request = (await world.of(name)).id
    accepted = await world.store.get(f"/requests/default/{request}")
    for revision in range(accepted.create_revision, world.store.revision + 1):
        pointers = [kv.key.split("/") for kv in (await world.store.range("/inbox/", revision=revision)).items]
        inboxes = [shard for _, _, _, shard, pointed in pointers if pointed == request]
        stored = await world.store.get(SERIES.key(name), revision=revision)
        work = None if stored is None else decode(SERIES, stored).status.work
        if stored is None:
            assert inboxes == ["default"]
        else:
            assert inboxes == ([] if work is None or work.request != request else [work.pool]), revision


# -- changing ------------------------------------------------------------------------------------------------------


async def placed(world: Any, **options: Any) -> str:
    name = await world.ask_series(**options)
    await world.settle()
    assert (await world.series(name)).phase == "Placed"
    return name


async def starts(world: Any, name: str) -> list[str]:
    """Of the reservations and of the series, which must agree."""
    series, found = await world.series(name), await reservations_of(world, name)
    shown = [f"{found[one.date].slot.start:%m-%d %H:%M}" for one in series.status.occurrences]
    assert shown == [f"{one.start:%m-%d %H:%M}" for one in series.status.occurrences]
    return shown


async def test_this_date_alone_is_moved(pool: Any) -> None:
    name = await placed(pool)
    said = await pool.tell_series(
        "change", name, SeriesChange(scope="this", date=DATES[1], start=pool.when(180 + WEEK))
    )
    await pool.settle()
    assert (await pool.request(said)).status.answer == {"changed": 1, "kept": {}}
    assert await starts(pool, name) == ["03-01 08:00", "03-08 10:00", "03-15 08:00", "03-22 08:00"]


async def test_this_and_the_following_dates_move_by_as_much_on_the_wall_clock(pool: Any) -> None:
    name = await placed(pool, rule="FREQ=WEEKLY;COUNT=5")
    day = 24 * 60
    body = SeriesChange(scope="following", date=DATES[2], start=pool.when(60 + 2 * WEEK + day + 30))
    await pool.tell_series("change", name, body)
    await pool.settle()
    assert await starts(pool, name) == ["03-01 08:00", "03-08 08:00", "03-16 08:30", "03-23 08:30", "03-30 07:30"]


async def test_dates_may_take_the_places_of_their_neighbours(pool: Any) -> None:
    """A full pool, and every date goes where the next one is: the last goes first."""
    name = await placed(pool, seats=4)
    await pool.tell_series("change", name, SeriesChange(start=pool.when(60 + WEEK)))
    await pool.settle()
    assert await starts(pool, name) == ["03-08 08:00", "03-15 08:00", "03-22 08:00", "03-29 07:00"]
    await pool.tell_series("change", name, SeriesChange(date=DATES[0], start=pool.when(60)))
    await pool.settle()
    assert await starts(pool, name) == ["03-01 08:00", "03-08 08:00", "03-15 08:00", "03-22 08:00"]
    assert not await pool.faults()


async def test_seats_length_and_roster_of_all_dates_are_changed_and_the_series_says_so(pool: Any) -> None:
    name = await placed(pool)
    await pool.definition("bgp@1.0.0", cpu=2)
    await pool.tell_series("change", name, SeriesChange(seats=3, duration_minutes=90, definition="bgp@1.0.0"))
    await pool.settle()
    for one in (await reservations_of(pool, name)).values():
        assert (one.spec.seats, one.spec.definition, len(one.status.placement)) == (3, "bgp@1.0.0", 3)
        assert one.slot.duration.total_seconds() == 90 * 60
    template = (await pool.series(name)).spec.template
    assert (template.seats, template.definition, template.duration_minutes) == (3, "bgp@1.0.0", 90)
    assert not await pool.faults()


async def test_in_a_series_of_all_or_none_no_date_is_changed_where_one_does_not_fit(pool: Any) -> None:
    name = await placed(pool, seats=2)
    await pool.ask(180 + WEEK, 240 + WEEK, seats=3)
    await pool.settle()
    before = await starts(pool, name)
    said = await pool.tell_series("change", name, SeriesChange(start=pool.when(180)))
    await pool.settle()
    request = await pool.request(said)
    assert request.phase == "Refused"
    assert [one["date"] for one in request.status.problem.extensions["dates"]] == [DATES[1]]
    assert await starts(pool, name) == before
    owner, _ = pool.owners["default"]
    assert set(owner.state.calendar.bookings()) == pool.rebuilt(owner)


async def test_where_fitting_dates_are_enough_the_others_keep_their_slot_and_are_named(pool: Any) -> None:
    name = await placed(pool, seats=2, mode="fits")
    await pool.ask(180 + WEEK, 240 + WEEK, seats=3)
    await pool.settle()
    said = await pool.tell_series("change", name, SeriesChange(start=pool.when(180)))
    await pool.settle()
    answer = (await pool.request(said)).status.answer
    assert (answer["changed"], list(answer["kept"])) == (3, [DATES[1]])
    assert await starts(pool, name) == ["03-01 10:00", "03-08 08:00", "03-15 10:00", "03-22 10:00"]


async def test_dates_that_have_begun_stay_as_they_are(pool: Any) -> None:
    name = await placed(pool)
    first = (await reservations_of(pool, name))[DATES[0]]
    await pool.start_lab(first.id)
    said = await pool.tell_series("change", name, SeriesChange(date=DATES[1], start=pool.when(180 + WEEK)))
    await pool.settle()
    assert (await pool.request(said)).status.answer == {"changed": 3, "kept": {DATES[0]: "it has begun"}}
    assert (await starts(pool, name))[:2] == ["03-01 08:00", "03-08 10:00"]


@pytest.mark.parametrize(
    ("body", "slug"),
    [(SeriesChange(scope="this", date="2027-03-02", seats=2), "unknown-date"),
     (SeriesCancel(scope="this", date="2027-03-02"), "unknown-date")],
)  # fmt: skip
async def test_a_date_that_is_none_is_refused(pool: Any, body: Any, slug: str) -> None:
    name = await placed(pool)
    said = await pool.tell_series("change" if isinstance(body, SeriesChange) else "cancel", name, body)
    await pool.settle()
    assert (await pool.request(said)).status.problem.type.endswith(slug)


# -- cancelling ----------------------------------------------------------------------------------------------------


async def test_one_date_then_the_following_then_all_are_cancelled(pool: Any) -> None:
    name = await placed(pool)
    await pool.tell_series("cancel", name, SeriesCancel(scope="this", date=DATES[1]))
    await pool.settle()
    assert states(await pool.series(name)) == ["placed", "cancelled", "placed", "placed"]
    await pool.tell_series("cancel", name, SeriesCancel(scope="following", date=DATES[2]))
    await pool.settle()
    assert states(await pool.series(name)) == ["placed", "cancelled", "cancelled", "cancelled"]
    assert (await pool.series(name)).phase == "Placed"
    await pool.tell_series("cancel", name, SeriesCancel())
    await pool.settle()
    assert (await pool.series(name)).phase == "Cancelled"
    assert set((await phases(pool, name)).values()) == {"Cancelled"}
    again = await pool.tell_series("cancel", name, SeriesCancel())
    await pool.settle()
    assert (await pool.request(again)).status.reason == "AlreadyCancelled"


async def test_a_cancel_that_comes_while_the_series_is_placed_is_decided_after_it(pool: Any) -> None:
    name = await pool.ask_series()
    said = await pool.tell_series("cancel", name, SeriesCancel())
    await pool.settle()
    assert (await pool.of(name)).phase == "Decided"
    assert (await pool.request(said)).phase == "Decided"
    assert (await pool.series(name)).phase == "Cancelled"
    assert not [one for one in await pool.all(RESERVATION) if one.phase != "Cancelled"]


async def test_a_running_lab_is_cancelled_only_by_name(pool: Any) -> None:
    name = await placed(pool)
    first = (await reservations_of(pool, name))[DATES[0]]
    await pool.start_lab(first.id, ran=True)
    await pool.pass_time(70)
    said = await pool.tell_series("cancel", name, SeriesCancel())
    await pool.settle()
    assert (await pool.request(said)).status.answer == {"cancelled": 3, "kept": {DATES[0]: "it has begun"}}
    await pool.tell_series("cancel", name, SeriesCancel(scope="this", date=DATES[0]))
    await pool.settle()
    assert await pool.phase(first.id) == "Cancelled"
    assert (await pool.series(name)).phase == "Cancelled"


async def test_a_series_whose_later_dates_are_cancelled_is_completed_when_the_last_that_is_left_is_over(
    pool: Any,
) -> None:
    name = await placed(pool)
    await pool.tell_series("cancel", name, SeriesCancel(scope="following", date=DATES[1]))
    await pool.settle()
    await pool.pass_time(119)
    assert (await pool.series(name)).phase == "Placed"
    await pool.pass_time(120)
    assert (await pool.series(name)).phase == "Completed"


async def test_a_series_is_completed_when_its_last_date_is_over(pool: Any) -> None:
    name = await placed(pool)
    await pool.pass_time(119 + 3 * WEEK)
    assert (await pool.series(name)).phase == "Placed"
    await pool.pass_time(120 + 3 * WEEK)
    assert (await pool.series(name)).phase == "Completed"


async def test_a_series_that_could_not_be_stored_is_refused_and_holds_nobody_up(pool: Any) -> None:
    users = [{"seat": 1, "user": f"{number:0>2500}"} for number in range(100)]
    large = await pool.ask_series("FREQ=DAILY;COUNT=400", roster=users)
    name = await pool.ask_series("FREQ=DAILY;COUNT=400")
    await pool.settle()
    assert (await pool.of(large)).status.problem.status == 413
    assert (await pool.series(name)).phase == "Placed"
    change = await pool.tell_series("change", name, SeriesChange.model_validate({"roster": users}))
    await pool.settle()
    assert (await pool.request(change)).status.problem.errors[0]["path"] == "roster"
    assert (await pool.series(name)).status.work is None


async def test_of_two_changes_of_one_state_of_a_series_the_second_does_not_undo_the_first(pool: Any) -> None:
    name = await placed(pool)
    seen = (await pool.series(name)).revision
    said = [await pool.tell_series("change", name, SeriesChange(seats=seats), meant_for=seen) for seats in (3, 2)]
    await pool.settle()
    first, second = [(await pool.request(one)).status.problem for one in said]
    assert first is None
    assert second.status == 412
    assert (await pool.series(name)).spec.template.seats == 3
    assert not await pool.faults()


async def test_a_series_whose_first_pool_is_gone_is_ended_by_the_next_of_its_list(world: Any) -> None:
    await world.pool("default", workers=1)
    await world.pool("spare", workers=1)
    await world.definition()
    await world.own("default")
    await world.own("spare")
    await world.ask_series(seats=2)
    await world.settle()
    name = await world.ask_series(seats=2, pools=("default", "spare"))
    await world.settle()
    assert {one.pool for one in (await world.series(name)).status.occurrences} == {"spare"}
    _, task = world.owners.pop("default")
    task.cancel()
    await world.store.delete(POOL.key("default"))
    await world.pass_time(4 * WEEK)
    world.owners["spare"][0]._agenda.look_at_everything()
    world.owners["spare"][0].wake()
    await world.settle()
    assert (await world.series(name)).phase == "Completed"


async def test_a_key_that_made_another_series_longer_ago_than_keys_are_kept_is_told_so(pool: Any) -> None:
    name = await pool.ask_series(key="term")
    await pool.settle()
    for rule, refused in (("FREQ=WEEKLY;COUNT=4", False), ("FREQ=WEEKLY;COUNT=2", True)):
        request = f"req-{name.removeprefix('ser-')}"
        await pool.store.delete(REQUEST.key(request))  # as the gateway does with a decided request after a day
        await pool.clock.advance(timedelta(seconds=1))
        assert await pool.ask_series(rule, key="term") == name
        await pool.settle()
        problem = (await pool.request(request)).status.problem
        assert (problem is not None and problem.type.endswith("/idempotency-key-reused")) is refused
    assert (await pool.series(name)).spec.rule == "FREQ=WEEKLY;COUNT=4"
