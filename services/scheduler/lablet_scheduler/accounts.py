"""The tenants' ledgers as one owner keeps them: what is open, what this pass adds, and whether a limit forbids it.

Limits and ledgers are read at the beginning of each pass; every transaction that changes what is open compares what was
read and writes the ledger anew, and one that refuses for a limit compares it too: nobody is refused for what has been
given back by then. A ledger that is not there yet is summed from all reservations: once limits are set,
nothing can be opened or closed without writing a ledger, so the sum still holds when it is committed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from lablet_common.quotas import LEDGERS, QUOTAS, Ledger, Limits, Quota, Usage, owner_of, usage_of
from lablet_common.resources.kinds import RESERVATION, ledger_key, quota_key
from lablet_common.resources.request import Problem
from lablet_common.resources.reservation import Reservation
from lablet_common.store import KeyValue, Store, Transaction
from lablet_common.store.changes import decode
from lablet_scheduler.decide import problem

MOST_OWNERS = 5000
"""Owners of one tenant with something open: more would not fit into its ledger, which is one value, and nothing of the tenant
could be decided any more."""


@dataclass(frozen=True, slots=True)
class Account:
    """One tenant's limits and ledger as they were read."""

    quota: Quota
    quota_revision: int
    ledger: Ledger
    ledger_revision: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What an uncommitted decision changes."""

    tenant: str
    owner: str
    change: Usage


class Accounts:
    """Of all tenants that have limits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._accounts: dict[str, Account] = {}
        self._entries: dict[str, Entry] = {}
        self._sums: dict[str, tuple[int, Ledger]] = {}
        """Of tenants without a ledger: since which revision they have limits, and what was open then, and still is."""
        self._read_at = 0

    async def take(self, quotas: Iterable[KeyValue], ledgers: Iterable[KeyValue], revision: int = 0) -> None:
        """The limits and ledgers as they were at a revision; decisions that were not committed are forgotten."""
        self._read_at = revision
        self._entries.clear()
        before, self._accounts = self._accounts, {}
        kept = {kv.key.removeprefix(LEDGERS): kv for kv in ledgers}
        for kv in quotas:
            tenant = kv.key.removeprefix(QUOTAS)
            written = kept.get(tenant)
            now = kv.mod_revision, 0 if written is None else written.mod_revision
            account = before.get(tenant)
            if account is None or (account.quota_revision, account.ledger_revision) != now:
                ledger = await self._sum(tenant, kv) if written is None else Ledger.model_validate_json(written.value)
                account = Account(Quota.model_validate_json(kv.value), now[0], ledger, now[1])
            self._accounts[tenant] = account
            if written is not None:
                self._sums.pop(tenant, None)

    async def _sum(self, tenant: str, quota: KeyValue) -> Ledger:
        """What is open while there is no ledger: it has not changed since the limits were made, or there would be one."""
        since, ledger = self._sums.get(tenant, (0, Ledger()))
        if since == quota.create_revision:
            return ledger
        ledger = Ledger()
        for kv in (await self._store.range(RESERVATION.prefix)).items:
            reservation = cast("Reservation", decode(RESERVATION, kv))
            if reservation.tenant == tenant:
                ledger = ledger.entered(owner_of(reservation), usage_of(reservation))
        self._sums[tenant] = quota.create_revision, ledger
        return ledger

    # -- deciding ----------------------------------------------------------------------------------------------------

    def enter(self, old: Reservation | None, new: Reservation) -> None:
        """A decision is about to make `new` of `old`."""
        self._entries[new.id] = Entry(new.tenant, owner_of(new), usage_of(new).minus(usage_of(old)))

    def drop(self, reservation_id: str) -> None:
        """The decision has been committed, or will not be."""
        self._entries.pop(reservation_id, None)

    def exceeded(self, old: Reservation | None, new: Reservation, now: datetime) -> Problem | None:
        """The first limit that making `new` of `old` would break, in numbers; giving back is never refused."""
        account = self._accounts.get(new.tenant)
        if account is None or new.is_final:
            return None
        ledger = account.ledger
        for name, entry in self._entries.items():
            if entry.tenant == new.tenant and name != new.id:
                ledger = ledger.entered(entry.owner, entry.change)
        owner = owner_of(new)
        change = usage_of(new).minus(usage_of(old))
        owners = len(ledger.owners)
        if owner not in ledger.owners and owners >= MOST_OWNERS and change.seats > 0:
            scope = f"tenant {new.tenant}"
            words = f"{scope}: {owners:,} owners have something open, the most that limits can be kept for"
            return problem(
                "quota-exceeded", "Quota exceeded", words, scope=scope, quota="owners", limit=MOST_OWNERS, used=owners,
                asked=1,
            )  # fmt: skip
        for scope, limits, used in (
            (f"tenant {new.tenant}", account.quota.tenant, ledger.total),
            (f"owner {owner}", account.quota.owner, ledger.of(owner)),
        ):
            found = _beyond(limits, used, change, old, new, now)
            if found is not None:
                name, limit, has, asked = found
                words = f"{scope}: {name} is limited to {limit:g}, {has:g} in use, {asked:g} more asked"
                return problem(
                    "quota-exceeded", "Quota exceeded", words, scope=scope, quota=name, limit=limit, used=has,
                    asked=asked,
                )  # fmt: skip
        return None

    def kept(self) -> list[tuple[str, Ledger, int]]:
        """The ledgers that stand in the store, as they were last read or written: tenant, ledger, and a revision at which it
        was so."""
        return [
            (tenant, known.ledger, max(known.ledger_revision, self._read_at))
            for tenant, known in self._accounts.items()
            if known.ledger_revision
        ]

    # -- committing --------------------------------------------------------------------------------------------------

    def write_in(
        self, txn: Transaction, reservations: Iterable[Reservation], limited: Iterable[str] = ()
    ) -> dict[str, Ledger]:
        """Compares and writes what a transaction with these reservations changes, and returns the ledgers it leaves.
        `limited`: tenants whose limits have refused something in it."""
        entries = [self._entries[r.id] for r in reservations if r.id in self._entries]
        ledgers: dict[str, Ledger] = {}
        for entry in entries:
            if entry.change == Usage():
                continue
            account = self._accounts.get(entry.tenant)
            txn.require(quota_key(entry.tenant), mod_revision=0 if account is None else account.quota_revision)
            if account is not None:
                ledgers[entry.tenant] = ledgers.get(entry.tenant, account.ledger).entered(entry.owner, entry.change)
        for tenant in sorted({*limited, *ledgers}):
            account = self._accounts[tenant]
            txn.require(quota_key(tenant), mod_revision=account.quota_revision)
            txn.require(ledger_key(tenant), mod_revision=account.ledger_revision)
        for tenant, ledger in ledgers.items():
            txn.put(ledger_key(tenant), ledger.to_json())
        return ledgers

    def written(self, ledgers: dict[str, Ledger], revision: int) -> None:
        """The transaction was committed at `revision`."""
        for tenant, ledger in ledgers.items():
            account = self._accounts[tenant]
            self._accounts[tenant] = Account(account.quota, account.quota_revision, ledger, revision)


def _beyond(
    limits: Limits, used: Usage, change: Usage, old: Reservation | None, new: Reservation, now: datetime
) -> tuple[str, float, float, float] | None:
    """Name, limit, used and asked of the first limit that is broken."""
    if limits.open_seats is not None and change.seats > 0 and used.seats + change.seats > limits.open_seats:
        return "openSeats", limits.open_seats, used.seats, change.seats
    hours = limits.open_seat_hours
    if hours is not None and change.seat_minutes > 0 and used.seat_minutes + change.seat_minutes > hours * 60:
        return "openSeatHours", hours, round(used.seat_minutes / 60, 2), round(change.seat_minutes / 60, 2)
    slot, before = new.slot, None if old is None else old.slot
    length = timedelta(minutes=new.spec.duration_minutes) if slot is None else slot.duration
    longest = limits.longest_slot_minutes
    if longest is not None and length > (before.duration if before else timedelta(0)):
        minutes = length / timedelta(minutes=1)
        if minutes > longest:
            return "longestSlotMinutes", longest, 0, minutes
    days = limits.furthest_ahead_days
    if days is not None and slot is not None and (before is None or slot.start > before.start):
        ahead = (slot.start - now) / timedelta(days=1)
        if ahead > days:
            return "furthestAheadDays", days, 0, round(ahead, 2)
    total = limits.total_extension_minutes
    if total is not None and old is not None and new.status.extended_minutes > total:
        was = old.status.extended_minutes
        if new.status.extended_minutes > was:
            return "totalExtensionMinutes", total, was, new.status.extended_minutes - was
    return None
