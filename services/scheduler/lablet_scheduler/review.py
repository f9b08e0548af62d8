"""The calendar, compared with what is stored and with itself, a little at a time.

The calendar is kept in step by news and by the owner's own commits. That it is in step is looked at in rounds, in rests
between decisions, a few milliseconds each: every resource as it is known here against the caches, every reservation's
bookings against what follows from it, the arrays of every worker against its bookings, the counted licences, the limits, and
the tenants' ledgers against the sum of what is open. What it finds is named; the owner builds the calendar anew where that
helps (`Difference.heals`).

Not looked at: what is on its way. News that waits to be taken in, or an own write that the caches do not have yet, is no
difference; it is looked at again in the next round.
"""

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from lablet_common.clock import Clock
from lablet_common.quotas import Usage, owner_of, usage_of
from lablet_common.resources.kinds import INSTANCE, RESERVATION, WORKER
from lablet_common.store.cache import Caches
from lablet_common.telemetry.metrics import CALENDAR_DIFFERENCES
from lablet_scheduler import engine
from lablet_scheduler.accounts import Accounts
from lablet_scheduler.agenda import Agenda

log = logging.getLogger("lablet.scheduler")

WHAT = ("missed", "bookings", "worker", "licences", "over", "ledger")
_MOST_NAMES = 20
"""That one line of the log has."""
SLICE_SECONDS = 0.005
"""Of real time, that a look takes before it rests."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it ought to be."""

    what: str
    """One of `WHAT`: a resource is known otherwise than stored; a reservation's bookings are not what follows from it; a
    worker's sums are not what follows from its bookings, nor the count of `licences`; more is booked than there is, and
    nobody has been told; a tenant's ledger is not the sum of what is open."""
    name: str
    detail: str = ""

    @property
    def heals(self) -> bool:
        """A calendar that is built anew is right; else it is the facts that are wrong."""
        return self.what not in ("over", "ledger")


class Review:
    """Of one pool, for one term of ownership."""

    def __init__(self, caches: Caches, agenda: Agenda, accounts: Accounts, clock: Clock) -> None:
        self._caches = caches
        self._agenda = agenda
        self._accounts = accounts
        self._clock = clock
        self._round: Iterator[Difference | None] | None = None

    @property
    def open(self) -> bool:
        """A round has been begun and not ended."""
        return self._round is not None

    def begin(self) -> None:
        """A new round, from the beginning."""
        self._round = self._look()

    def go_on(self, seconds: float = SLICE_SECONDS) -> list[Difference]:
        """Looks on for so long, while nothing is decided that is not committed, and nothing has been heard that is not
        known."""
        found: list[Difference] = []
        until = time.monotonic() + seconds
        while self._round is not None:
            try:
                one = next(self._round)
            except StopIteration:
                self._round = None
                break
            if one is not None:
                found.append(one)
            if time.monotonic() >= until:
                break
        return found

    def _look(self) -> Iterator[Difference | None]:
        yield from self._resources()
        for name in [*self._agenda.state.reservations, *self._agenda.state.calendar.reservations()]:
            yield self._bookings_of(name)
        for name in list(self._agenda.state.workers):
            yield from self._worker(name)
        yield from self._licences()
        yield from self._ledgers()

    def _resources(self) -> Iterator[Difference | None]:
        """Each is looked up again when its turn comes: it may have changed since the list was made."""
        pool, agenda, caches = self._agenda.pool, self._agenda, self._caches
        for one in caches[RESERVATION].items():
            stored = caches[RESERVATION].get(one.id)
            if stored is not None and stored.status.pool == pool:
                gone = stored.id not in agenda.state.reservations and not stored.is_final
                missed = gone or agenda.state.revision_of(stored.id) < stored.revision
                yield Difference("missed", stored.id) if missed else None
        for kind, known in ((INSTANCE, lambda: agenda.state.instances), (WORKER, lambda: agenda.state.workers)):
            for one in caches[kind].items():
                stored = caches[kind].get(one.id)
                if stored is not None and stored.spec.pool == pool:
                    seen = known().get(stored.id)
                    yield Difference("missed", stored.id) if seen is None or seen.revision < stored.revision else None

    def _bookings_of(self, name: str) -> Difference | None:
        state = self._agenda.state
        reservation = state.reservations.get(name)
        wanted = [] if reservation is None else state.occupied_by(reservation, self._clock.now())
        if {_lasting(one) for one in wanted} == {_lasting(one) for one in state.calendar.of(name)}:
            return None
        return Difference("bookings", name)

    def _worker(self, name: str) -> Iterator[Difference | None]:
        state = self._agenda.state
        if name not in state.workers:
            return
        yield Difference("worker", name) if engine.audit.differs(state.calendar, name) else None
        short = engine.audit.over(state.calendar, name) if name in state.workers else []
        booked = {one.reservation for one in state.calendar.on_worker(name, *_EVER)} if short else set()
        yield Difference("over", name, ", ".join(short)) if short and not self._told(booked) else None

    def _licences(self) -> Iterator[Difference | None]:
        wrong, beyond = engine.audit.licences(self._agenda.state.calendar)
        yield from (Difference("licences", kind) for kind in wrong)
        if beyond and not self._told(set(self._agenda.state.reservations)):
            yield from (Difference("over", kind, "licences") for kind in beyond)

    def _told(self, names: set[str]) -> bool:
        """Some of these stay too long or have to move, and their owners know."""
        state, now = self._agenda.state, self._clock.now()
        known = [state.reservations[name] for name in names if name in state.reservations]
        return bool(names & state.at_risk) or any(state.overruns(one, now) for one in known)

    def _ledgers(self) -> Iterator[Difference | None]:
        """Compared where nothing has been written about a tenant's reservations since its ledger was read: then both are of
        one moment."""
        kept = {tenant: (ledger, revision) for tenant, ledger, revision in self._accounts.kept()}
        if not kept:
            return
        open_: dict[str, dict[str, Usage]] = {tenant: {} for tenant in kept}
        newest = self._newest(kept.keys())
        for one in self._caches[RESERVATION].items():
            if one.tenant in kept and (usage := usage_of(one)) != Usage():
                owners = open_[one.tenant]
                owners[owner_of(one)] = owners.get(owner_of(one), Usage()).plus(usage)
            yield None
        settled = newest == self._newest(kept.keys())
        for tenant, (ledger, revision) in kept.items():
            of_one_moment = settled and newest[tenant][1] <= revision <= self._caches.revision
            if of_one_moment and ledger.owners != open_[tenant]:
                yield Difference("ledger", tenant)

    def _newest(self, tenants: Collection[str]) -> dict[str, tuple[int, int]]:
        """How many reservations each has, and the revision of the newest."""
        found = dict.fromkeys(tenants, (0, 0))
        for one in self._caches[RESERVATION].items():
            if one.tenant in found:
                count, newest = found[one.tenant]
                found[one.tenant] = count + 1, max(newest, one.revision)
        return found


def tell(pool: str, found: Sequence[Difference]) -> None:
    """Names and counts differences; what was not found is counted as none, so that the first is an increase."""
    for what in WHAT:
        names = [f"{one.name} ({one.detail})" if one.detail else one.name for one in found if one.what == what]
        CALENDAR_DIFFERENCES.labels(pool, what).inc(len(names))
        if names:
            known = {"pool": pool, "what": what, "names": names[:_MOST_NAMES], "count": len(names)}
            log.error("the calendar is not as it ought to be", extra=known)


def _lasting(one: engine.Booking) -> engine.Booking:
    """Until when an overrun is booked follows from the minute of the last look."""
    return replace(one, occupied_end=None)


_EVER = (-(2**40), 2**40)
