"""Claim links: one seat each, once, until the slot ends."""

import hashlib
from typing import Any

from lablet_common.intents import ReservationChange, ReservationClaim, ReservationClaims
from lablet_common.resources.request import RequestPhase
from lablet_common.resources.reservation import Claim, RosterEntry


def sha(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def links(**codes: str) -> ReservationClaims:
    return ReservationClaims(claims=tuple(Claim(seat=int(seat[1:]), sha256=sha(code)) for seat, code in codes.items()))


async def seated(pool: Any, name: str) -> list[tuple[int, str]]:
    return [(entry.seat, entry.user) for entry in (await pool.reservation(name)).spec.roster]


async def told(pool: Any, name: str, verb: str, body: Any) -> Any:
    said = await pool.tell(verb, name, body)
    await pool.settle()
    return await pool.request(said)


async def test_a_link_gives_its_seat_once(pool: Any) -> None:
    name = await pool.ask(seats=2)
    await pool.settle()
    await told(pool, name, "open-claims", links(s1="one", s2="two"))
    first = await pool.tell("claim", name, ReservationClaim(sha256=sha("two"), user="ann"))
    second = await pool.tell("claim", name, ReservationClaim(sha256=sha("two"), user="bob"))
    await pool.settle()
    assert (await pool.request(first)).phase == RequestPhase.DECIDED
    late = await pool.request(second)
    assert (late.phase, late.status.problem.status) == (RequestPhase.REFUSED, 404)
    assert await seated(pool, name) == [(2, "ann")]
    assert [claim.seat for claim in (await pool.reservation(name)).spec.claims] == [1]


async def test_who_sits_already_spends_nothing(pool: Any) -> None:
    name = await pool.ask(seats=2, roster=(RosterEntry(seat=2, user="ann"),))
    await pool.settle()
    await told(pool, name, "open-claims", links(s1="one"))
    assert (await told(pool, name, "claim", ReservationClaim(sha256=sha("one"), user="ann"))).phase == "Decided"
    assert await seated(pool, name) == [(2, "ann")]
    assert len((await pool.reservation(name)).spec.claims) == 1


async def test_a_new_link_ends_the_old_one_of_its_seat_and_withdrawing_ends_all(pool: Any) -> None:
    name = await pool.ask(seats=2)
    await pool.settle()
    await told(pool, name, "open-claims", links(s1="old", s2="two"))
    await told(pool, name, "open-claims", links(s1="new"))
    assert (await told(pool, name, "claim", ReservationClaim(sha256=sha("old"), user="ann"))).phase == "Refused"
    assert (await told(pool, name, "claim", ReservationClaim(sha256=sha("new"), user="ann"))).phase == "Decided"
    await told(pool, name, "open-claims", ReservationClaims(withdraw=True))
    assert (await told(pool, name, "claim", ReservationClaim(sha256=sha("two"), user="bob"))).phase == "Refused"
    assert await seated(pool, name) == [(1, "ann")]


async def test_links_are_for_seats_that_exist_and_are_free(pool: Any) -> None:
    name = await pool.ask(seats=2, roster=(RosterEntry(seat=2, user="ann"),))
    await pool.settle()
    for body, words in ((links(s3="x"), "has 2 seats"), (links(s2="x"), "seat 2 is ann's")):
        assert words in (await told(pool, name, "open-claims", body)).status.problem.detail


async def test_a_roster_that_takes_the_seat_ends_its_link(pool: Any) -> None:
    name = await pool.ask(seats=2)
    await pool.settle()
    await told(pool, name, "open-claims", links(s1="one", s2="two"))
    await told(pool, name, "change", ReservationChange(roster=(RosterEntry(seat=1, user="ben"),)))
    assert [claim.seat for claim in (await pool.reservation(name)).spec.claims] == [2]
    assert (await told(pool, name, "claim", ReservationClaim(sha256=sha("one"), user="ann"))).phase == "Refused"


async def test_after_the_slot_nobody_takes_a_seat(pool: Any) -> None:
    name = await pool.ask(60, 120, seats=1)
    await pool.settle()
    await told(pool, name, "open-claims", links(s1="one"))
    await pool.pass_time(121)
    said = await told(pool, name, "claim", ReservationClaim(sha256=sha("one"), user="ann"))
    assert "nobody can take a seat any more" in said.status.problem.detail


async def test_how_much_more_time_seats_may_ask_for_is_the_owners_to_set(pool: Any) -> None:
    name = await pool.ask(seats=1, extendable_minutes=15)
    await pool.settle()
    assert (await pool.reservation(name)).spec.extendable_minutes == 15
    await told(pool, name, "change", ReservationChange(extendable_minutes=30))
    assert (await pool.reservation(name)).spec.extendable_minutes == 30
