"""A pool's calendar through its life: whatever happens in whatever order, nothing is ever over-committed, and the same
happenings lead to the same calendar.

Labs begin and end as the clock goes on, some stay too long, workers fail, are maintained and cordoned, coming seats are
moved to save power, and now and then the calendar is built anew from what is booked. The judge counts from a plain dict
of what ought to be booked. What facts alone force on a worker (a seat in a maintenance span that has no other place, or
that stays into one) is known by name; everything else has to fit at every instant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from lablet_scheduler.engine import (
    Booking,
    Calendar,
    Demand,
    Placement,
    PlacementRequest,
    PoolPolicy,
    Span,
    Waiting,
    WorkerView,
    earliest,
    extend,
    from_minute,
    optimise,
    overrun,
    place,
    power_minutes,
    retry,
)

from . import pools

PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
"""A failing history is told as it was found: shortening one takes minutes."""

START = 1440 * 5 - 120
"""Just before midnight, so that slots cross a page."""

fleets = pools.fleets("abc", cores=[4.0, 7.5], nodes=[None, 5, 12], licences=["ENTERPRISE", "ENTERPRISE", "PERSONAL"])
policies = pools.policies([0, 5, 15])
demands = pools.demands([0.0, 0.5, 1.1, 2.0], 4)
delays = st.sampled_from([0, 7, 15, 30, 45, 60, 90, 120, 180])
lengths = st.sampled_from([1, 15, 30, 60, 150])
wishes = st.tuples(delays, lengths, demands, st.sampled_from([1, 1, 1, 2, 4]), st.integers(0, 2))
picks = st.integers(0, 50)


class Pool:
    """A calendar, beside a plain dict of what ought to be booked. Each action tells what came of it."""

    def __init__(self, fleet: Iterable[WorkerView], policy: PoolPolicy) -> None:
        self.policy = policy
        self.fleet = {view.name: view for view in fleet}
        self.calendar = Calendar([policy], self.fleet.values())
        self.expected: dict[tuple[str, int], Booking] = {}
        self.exposed: set[tuple[str, int]] = set()
        """Seats that facts have put into a maintenance span."""
        self.count = 0
        self.now = START
        self.look: Callable[[], None] = lambda: None
        """Called while time passes, where something has happened that is over when it has passed."""

    # -- what people ask ---------------------------------------------------------------------------------------------

    def ask(self, wish: tuple[int, int, Demand, int, int]) -> Any:
        request = self._request(wish)
        decision = place(self.calendar, request)
        if isinstance(decision, Placement):
            assert [seat.seat for seat in decision.seats] == list(range(1, request.seats + 1)), "all seats or none"
            self._book(decision)
        return decision

    def wait(self, wanted: list[tuple[int, int, Demand, int, int]]) -> Any:
        line = [Waiting(self._request(wish), requested_at=from_minute(at)) for at, wish in enumerate(wanted)]
        results = retry(self.calendar, line, self.now)
        for one in results:
            if isinstance(one.decision, Placement):
                self._book(one.decision)
        return [one.decision for one in results]

    def cancel(self, pick: int, seat: int | None) -> Any:
        name = self._pick(pick)
        gone = () if name is None else self.calendar.release(name, seat)
        for booking in gone:
            del self.expected[booking.key]
        return gone

    def lengthen(self, pick: int, minutes: int) -> Any:
        name = self._pick(pick)
        if name is None:
            return None
        answer = extend(self.calendar, name, max(one.end for one in self.calendar.of(name)) + minutes)
        if answer.granted:
            self.calendar.release(name)
            self.calendar.book_all(answer.bookings)
            self.expected |= {booking.key: booking for booking in answer.bookings}
        else:
            assert answer.miss is not None
            assert not extend(self.calendar, name, answer.longest + 1).granted
        return answer

    def shorten(self, pick: int, share: int) -> Any:
        name = self._pick(pick)
        if name is None:
            return None
        seats = self.calendar.of(name)
        begin = max(self.now, *(one.start for one in seats))
        end = min(one.end for one in seats)
        cut = begin + (end - begin) * share // 10
        if begin < cut < end and not any(one.occupied_end for one in seats):
            shorter = [replace(one, end=cut) for one in self.calendar.release(name)]
            self.calendar.book_all(shorter, check=False)  # giving back is never refused
            self.expected |= {booking.key: booking for booking in shorter}
        return cut

    def move(self, pick: int, delay: int, minutes: int) -> Any:
        name = self._pick(pick)
        seats = () if name is None else self.calendar.of(name)
        if not seats or any(one.started for one in seats):
            return None
        old = self.calendar.release(seats[0].reservation)
        request = PlacementRequest(
            seats[0].reservation,
            "p",
            seats[0].demand,
            self.now + delay,
            self.now + delay + minutes,
            seats=len(seats),
            now=self.now,
            seat_numbers=tuple(one.seat for one in seats),
        )
        decision = place(self.calendar, request)
        if isinstance(decision, Placement):
            self._book(decision)
        else:
            self.calendar.book_all(old, check=False)
        return decision

    # -- what happens ------------------------------------------------------------------------------------------------

    def pass_time(self, minutes: int, pick: int, late: int) -> Any:
        """Labs begin and end; those of one reservation may stay too long, and displace who has not begun."""
        until = self.now + minutes
        names = sorted({one.reservation for one in self.expected.values() if one.until <= until})
        guest = names[pick % len(names)] if names else None
        while ending := [one for one in self.expected.values() if one.until <= until]:
            at = min(one.until for one in ending)
            self._begin(at - 1)
            self.now = at
            for one in sorted((one for one in ending if one.until == at), key=lambda one: one.key):
                if one.reservation == guest and late:
                    self._stay(one, late)
                else:
                    self._gone(one)
            if late and any(one.reservation == guest and one.until == at for one in ending):
                guest = None
            self._begin(at)
        self.now = until
        self._begin(until)
        return self.now

    def _begin(self, at: int) -> None:
        for one in [one for one in self.expected.values() if one.start <= at and not one.started]:
            started = replace(one, started=True)
            self.calendar.replace(started, check=False)
            self.expected[one.key] = started

    def _gone(self, one: Booking) -> None:
        self.calendar.release(*one.key)
        del self.expected[one.key]

    def _stay(self, one: Booking, late: int) -> None:
        result = overrun(self.calendar, one.reservation, one.seat, one.until + late)
        assert not any(lost.started for lost in result.displaced)
        for lost in result.displaced:
            self._gone(lost)
        self.calendar.replace(result.booking, check=False)
        self.expected[one.key] = result.booking
        if self.fleet[one.worker].maintenance:
            self.exposed.add(one.key)
        self.look()
        for lost in result.displaced:
            self._elsewhere(lost, frozenset({one.worker}))

    def lose(self, pick: int) -> Any:
        """Seats on a worker that has failed go elsewhere; a lab that ran there and has no other place is lost."""
        name = self._worker(pick)
        self._put(name, failed=True)
        for one in self._on(name):
            if one.end <= self.now:
                self._gone(one)
                continue
            self.calendar.release(*one.key)
            del self.expected[one.key]
            if not self._elsewhere(one, frozenset({name})) and not one.started:
                self.calendar.book(one, check=False)
                self.expected[one.key] = one
        return name

    def back(self, pick: int) -> Any:
        name = self._worker(pick)
        self._put(name, failed=False, maintenance=(), unschedulable=False)
        self.exposed -= {one.key for one in self._on(name)}
        return name

    def cordon(self, pick: int, minutes: int) -> Any:
        name = self._worker(pick)
        self._put(name, unschedulable=True, unschedulable_until=self.now + minutes)
        return name

    def maintain(self, pick: int, delay: int, minutes: int) -> Any:
        name = self._worker(pick)
        span = Span(self.now + delay, self.now + delay + minutes)
        self._put(name, maintenance=(*self.fleet[name].maintenance, span))
        for one in self._on(name):
            if span.start < self.calendar.hold_end(one) and one.start < span.end:
                self.exposed.add(one.key)
                if not one.started:
                    self.calendar.release(*one.key)
                    del self.expected[one.key]
                    if self._elsewhere(one, frozenset({name})):
                        self.exposed.discard(one.key)
                    else:
                        self.calendar.book(one, check=False)
                        self.expected[one.key] = one
        return span

    def save(self, seed: int, most: int | None) -> Any:
        plan = optimise(self.calendar, "p", self.now, seed=seed, max_moves=most, budget=2_000)
        assert most is None or len(plan.moves) <= most
        before = power_minutes(self.calendar)
        plan.apply(self.calendar)
        assert before - power_minutes(self.calendar) == plan.saved_minutes >= 0
        assert not any(step.before.started for step in plan.moves)
        self.expected |= {step.after.key: step.after for step in plan.moves}
        return plan.moves

    def restart(self) -> Any:
        """From what is booked alone, in any order, the same calendar comes."""
        anew = Calendar([self.policy], reversed(self.fleet.values()))
        anew.book_all(sorted(self.expected.values(), key=lambda one: (one.worker, one.start)), check=False)
        probe = PlacementRequest(
            "probe", "p", Demand(cpu_cores=1, ports=("x",)), self.now, self.now + 100, seats=2, now=self.now
        )
        one, other = place(self.calendar, probe), place(anew, probe)
        assert one.explanation == other.explanation
        assert earliest(self.calendar, probe, horizon=1000) == earliest(anew, probe, horizon=1000)
        self.calendar = anew.copy()
        anew.forget(2**30)
        return one.explanation

    def decree(self, policy: PoolPolicy) -> Any:
        """Another policy, while nothing is booked that it could make a fact of."""
        if not self.expected:
            self.policy = policy
            self.calendar.put_policy(policy)
        return None

    # -- helping -----------------------------------------------------------------------------------------------------

    def _request(self, wish: tuple[int, int, Demand, int, int]) -> PlacementRequest:
        delay, minutes, demand, seats, priority = wish
        self.count += 1
        start = self.now + delay
        return PlacementRequest(
            f"r{self.count}", "p", demand, start, start + minutes, seats=seats, now=self.now, priority=priority
        )

    def _book(self, decision: Placement) -> None:
        self.calendar.book_all(decision.bookings())
        self.expected |= {booking.key: booking for booking in decision.bookings()}
        self.exposed -= {booking.key for booking in decision.bookings()}

    def _elsewhere(self, one: Booking, avoid: frozenset[str]) -> bool:
        request = PlacementRequest(
            one.reservation,
            "p",
            one.demand,
            max(one.start, self.now),
            one.end,
            now=self.now,
            exclude=avoid,
            seat_numbers=(one.seat,),
        )
        decision = place(self.calendar, request)
        if isinstance(decision, Placement):
            self._book(decision)
        return isinstance(decision, Placement)

    def _pick(self, pick: int) -> str | None:
        names = sorted({name for name, _ in self.expected})
        return names[pick % len(names)] if names else None

    def _worker(self, pick: int) -> str:
        return sorted(self.fleet)[pick % len(self.fleet)]

    def _on(self, name: str) -> list[Booking]:
        mine = [one for one in self.expected.values() if one.worker == name]
        return sorted(mine, key=lambda one: (one.start, one.key))

    def _put(self, name: str, **changes: Any) -> None:
        self.fleet[name] = replace(self.fleet[name], **changes)
        self.calendar.put_worker(self.fleet[name])


class Life(RuleBasedStateMachine):
    """Lets things happen to a pool, and then once more."""

    judge: Any

    @initialize(fleet=fleets, policy=policies, wanted=st.lists(wishes, min_size=3, max_size=12))
    def begin(self, fleet, policy, wanted):
        self.first = fleet, policy
        self.pool = Pool(fleet, policy)
        self.pool.look = self.nothing_is_over_committed
        self.log: list[tuple[str, tuple[Any, ...], Any]] = []
        for wish in wanted:
            self.do("ask", wish)

    def do(self, what: str, *values: Any) -> None:
        self.log.append((what, values, getattr(self.pool, what)(*values)))

    @rule(wish=wishes)
    def ask(self, wish):
        self.do("ask", wish)

    @rule(wanted=st.lists(wishes, max_size=3))
    def wait(self, wanted):
        self.do("wait", wanted)

    @rule(pick=picks, seat=st.sampled_from([None, 1, 2]))
    def cancel(self, pick, seat):
        self.do("cancel", pick, seat)

    @rule(pick=picks, minutes=st.integers(1, 200))
    def lengthen(self, pick, minutes):
        self.do("lengthen", pick, minutes)

    @rule(pick=picks, share=st.integers(1, 9))
    def shorten(self, pick, share):
        self.do("shorten", pick, share)

    @rule(pick=picks, delay=delays, minutes=lengths)
    def move(self, pick, delay, minutes):
        self.do("move", pick, delay, minutes)

    @rule(minutes=st.sampled_from([1, 7, 15, 30, 90]), pick=picks)
    def pass_time(self, minutes, pick):
        self.do("pass_time", minutes, pick, 0)

    @rule(minutes=st.sampled_from([15, 30, 90]), pick=picks, late=st.sampled_from([1, 10, 45]))
    def stay_too_long(self, minutes, pick, late):
        self.do("pass_time", minutes, pick, late)

    @rule(pick=picks)
    def lose(self, pick):
        self.do("lose", pick)

    @rule(pick=picks)
    def back(self, pick):
        self.do("back", pick)

    @rule(pick=picks, minutes=lengths)
    def cordon(self, pick, minutes):
        self.do("cordon", pick, minutes)

    @rule(pick=picks, delay=delays, minutes=lengths)
    def maintain(self, pick, delay, minutes):
        self.do("maintain", pick, delay, minutes)

    @rule(seed=picks, most=st.sampled_from([None, 1, 3]))
    def save(self, seed, most):
        self.do("save", seed, most)

    @rule()
    def restart(self):
        self.do("restart")

    @rule(policy=policies)
    def decree(self, policy):
        self.do("decree", policy)

    @invariant()
    def booked_is_what_was_decided(self):
        assert {booking.key: booking for booking in self.pool.calendar.bookings()} == self.pool.expected

    @invariant()
    def nothing_is_over_committed(self):
        pool, bookings = self.pool, self.pool.expected.values()
        assert self.judge.faults([pool.policy], pool.fleet.values(), bookings, exposed=pool.exposed) == []
        on = sum(len(self.judge.on_minutes(pool.policy, view, bookings)) for view in pool.fleet.values())
        assert power_minutes(pool.calendar) == on

    def teardown(self):
        """The same happenings once more."""
        if not hasattr(self, "log"):
            return
        twin = Pool(*self.first)
        for what, values, told in self.log:
            assert getattr(twin, what)(*values) == told
        assert twin.expected == self.pool.expected


def test_no_sequence_of_happenings_over_commits_anything_and_replay_gives_the_same(judge):
    Life.judge = judge
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=250,
            stateful_step_count=25,
            deadline=None,
            phases=PHASES,
            suppress_health_check=list(HealthCheck),
        ),
    )
