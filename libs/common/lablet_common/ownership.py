"""Who acts alone: leased membership, and ownership of shards spread over the live replicas.

Every replica of a service holds a member key. Rendezvous hashing over the members tells each shard's rightful owner, so
that a replica that comes or goes moves only its own share. An owner that is no longer rightful ends its work and gives
the shard up; the rightful one takes it when the key is gone, which after a crash is when the lease has run out. Work is
cancelled by the local clock before the lease ends.

Neither lease nor cancellation proves that nobody else acts: a process may be stopped between a look and a write. What
proves it is the `Fence` in every transaction.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lablet_common.resources.kinds import IMPORTING_KEY, member_key, ownership_key
from lablet_common.store.api import KeyValue, Store, StoreError, StoreUnavailable
from lablet_common.store.lease import LeaseKeeper
from lablet_common.store.mirror import Mirror
from lablet_common.store.transaction import Conflict, Transaction
from lablet_common.telemetry.metrics import IS_OWNER

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5
_RESYNC_SECONDS = 60.0
_IMPORT_SECONDS = 5.0
"""Between looks whether an import has been finished."""
_SLOW_STOP_SECONDS = 2.0
"""A serving task that takes longer than this to end after its cancellation is named in the log."""


class NotOwner(StoreError):
    """The fence no longer stands: somebody else owns the shard, or will."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Proof of ownership for transactions: the ownership key exists and is the very one that its owner created."""

    key: str
    create_revision: int

    def guard(self, txn: Transaction) -> None:
        """Adds the comparison, so that a transaction of a former owner is refused."""
        txn.require_create_revision(self.key, self.create_revision)

    async def stands(self, store: Store) -> bool:
        """Whether it holds now; for telling, after a `Conflict`, a lost shard from another's change."""
        found = await store.get(self.key)
        return found is not None and found.create_revision == self.create_revision


def rightful_owner(shard: str, members: Iterable[str]) -> str | None:
    """Rendezvous hashing: the member with the highest hash of member and shard; None without members."""
    return max(members, key=lambda member: hashlib.blake2b(f"{member}\n{shard}".encode()).digest(), default=None)


Serve = Callable[[str, Fence], Awaitable[None]]


class Ownership:
    """This replica's share of `service`'s shards. `shards` names all that exist, whoever owns them; `ttl_seconds` is
    real time and bounds a take-over after a crash."""

    def __init__(
        self,
        store: Store,
        service: str,
        replica: str,
        *,
        ttl_seconds: float = 15.0,
        shards: Callable[[], Collection[str]],
    ) -> None:
        self._store = store
        self._service = service
        self._replica = replica
        self._ttl_seconds = ttl_seconds
        self._shards = shards
        self._changed = asyncio.Event()
        self._owned: dict[str, Fence] = {}
        self._shown: set[str] = set()
        """Shards that have a series among the metrics."""

    @property
    def owned(self) -> Mapping[str, Fence]:
        """The shards that are being served now, with their fences."""
        return MappingProxyType(self._owned)

    def refresh(self) -> None:
        """Looks again, because what `shards` names has changed."""
        self._changed.set()

    async def run(self, serve: Serve) -> None:
        """Owns and serves until cancelled. `serve` is a task per owned shard that runs until it is cancelled; when it
        returns or raises a `StoreError` the shard is given up and taken anew, and any other error ends `run`."""
        left_over: list[int] = []
        while True:
            lease = LeaseKeeper(self._store, self._ttl_seconds)
            try:
                if await self._store.get(IMPORTING_KEY) is not None:
                    _log.error("an import has not been finished: run it again with --skip-existing")
                    await asyncio.sleep(_IMPORT_SECONDS)
                    continue
                async with lease:
                    await self._revoke(left_over)
                    await _Term(self, lease, serve).run()
            except StoreUnavailable as error:
                _log.warning("no lease to own anything under", extra={"service": self._service, "cause": str(error)})
            if lease.lease and not lease.revoked:
                left_over.append(lease.lease)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _revoke(self, leases: list[int]) -> None:
        """Those that were lost while etcd did not answer. It counts their whole TTL anew when it has a leader again, and so
        long nobody could take what hangs on them."""
        while leases:
            try:
                await self._store.lease_revoke(leases[-1])
            except StoreError as error:
                _log.warning("a former lease was not revoked", extra={"service": self._service, "cause": str(error)})
                return
            leases.pop()


class _Keys:
    """The keys below a prefix by what follows it, as a mirror's sink."""

    def __init__(self, prefix: str, changed: asyncio.Event) -> None:
        self.prefix = prefix
        self.held: dict[str, KeyValue] = {}
        self._changed = changed

    def put(self, kv: KeyValue) -> None:
        self.held[kv.key.removeprefix(self.prefix)] = kv
        self._changed.set()

    def drop(self, key: str, revision: int) -> None:  # noqa: ARG002 - a sink is told the revision
        self.held.pop(key.removeprefix(self.prefix), None)
        self._changed.set()

    def knows(self, kv: KeyValue) -> bool:
        held = self.held.get(kv.key.removeprefix(self.prefix))
        return held is not None and held.mod_revision == kv.mod_revision

    def keys(self) -> Iterable[str]:
        return [kv.key for kv in self.held.values()]


@dataclass(frozen=True, slots=True)
class _Holding:
    """A shard that is being served. Setting `leave` ends it in order."""

    shard: str
    fence: Fence
    leave: asyncio.Event


class _Term:
    """Everything under one lease; when that is lost, all serving ends and the next term begins from nothing."""

    def __init__(self, ownership: Ownership, lease: LeaseKeeper, serve: Serve) -> None:
        self._store = ownership._store
        self._service = ownership._service
        self._replica = ownership._replica
        self._shards = ownership._shards
        self._owned = ownership._owned
        self._shown = ownership._shown
        self._changed = ownership._changed
        self._lease = lease
        self._serve = serve
        self._holdings: dict[str, _Holding] = {}
        self._paused: set[str] = set()
        self._members = _Keys(member_key(self._service, ""), self._changed)
        self._taken = _Keys(ownership_key(self._service, ""), self._changed)
        self._member_mirror, self._taken_mirror = (
            Mirror(self._store, {keys.prefix: keys}, watched=keys.prefix, resync_seconds=_RESYNC_SECONDS)
            for keys in (self._members, self._taken)
        )

    async def run(self) -> None:
        """Returns when the lease is lost; raises what a serving task raised."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                helping = [
                    tasks.create_task(work)
                    for work in (self._member_mirror.run(), self._taken_mirror.run(), self._balance_for_ever())
                ]
                await self._lease.lost.wait()
                for task in helping:
                    task.cancel()
                for holding in self._holdings.values():
                    holding.leave.set()
        except ExceptionGroup as crash:
            raise crash.exceptions[0] from crash

    async def _balance_for_ever(self) -> None:
        await self._enrol()
        await self._taken_mirror.wait_synced()
        while True:
            self._changed.clear()
            settled = await self._balance()
            try:
                async with asyncio.timeout(None if settled else _RETRY_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _enrol(self) -> None:
        """Writes the member key, trying until etcd takes it or the lease is lost, and waits until it is seen here."""
        key = member_key(self._service, self._replica)
        while True:
            try:
                revision = await self._store.put(key, self._replica.encode(), lease=self._lease.lease)
                await self._member_mirror.reached(revision)
            except (StoreError, TimeoutError) as error:
                _log.warning("could not enrol as a member", extra={"service": self._service, "cause": str(error)})
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    async def _balance(self) -> bool:
        """Gives up what is another's and takes what is free and its own; False when some of it is to be tried again."""
        if self._replica not in self._members.held:
            await self._enrol()
        members, shards = self._members.held.keys(), set(self._shards())
        mine = {shard for shard in shards if rightful_owner(shard, members) == self._replica}
        for shard, holding in self._holdings.items():
            if shard not in mine or self._was_taken_away(holding):
                holding.leave.set()
        # A key of this lease that nobody serves: a take or a giving up that got no answer. It is deleted and begun anew.
        stray = [
            Fence(kv.key, kv.create_revision)
            for shard, kv in self._taken.held.items()
            if kv.lease == self._lease.lease and shard not in self._holdings
        ]
        self._show(shards)
        self._forget(self._shown - shards - self._holdings.keys())
        free = mine - self._holdings.keys() - self._taken.held.keys() - self._paused
        taken = await asyncio.gather(*(self._take(shard) for shard in sorted(free)))
        given = await asyncio.gather(*(self._give_up(fence) for fence in stray))
        return all(taken) and all(given)

    def _show(self, shards: Set[str]) -> None:
        """Puts every shard that there is into the metrics, also where another owns it: so it is seen when nobody does."""
        for shard in shards - self._shown:
            IS_OWNER.labels(self._service, shard).set(0)
        self._shown.update(shards)

    def _forget(self, gone: Collection[str]) -> None:
        """Takes shards that there are no more out of the metrics: subscriptions come and go."""
        for shard in gone:
            IS_OWNER.remove(self._service, shard)
        self._shown.difference_update(gone)

    def _was_taken_away(self, holding: _Holding) -> bool:
        if self._taken_mirror.revision < holding.fence.create_revision:
            return False  # its key has not been seen here yet
        held = self._taken.held.get(holding.shard)
        return held is None or held.create_revision != holding.fence.create_revision

    async def _take(self, shard: str) -> bool:
        key = ownership_key(self._service, shard)
        txn = Transaction().require_absent(key).put(key, self._replica.encode(), lease=self._lease.lease)
        try:
            done = await txn.commit(self._store)
        except Conflict:
            return False
        except StoreError as error:
            _log.warning("a shard could not be taken", extra={"shard": shard, "cause": str(error)})
            return False
        if self._lease.alive:
            holding = self._holdings[shard] = _Holding(shard, Fence(key, done.revision), asyncio.Event())
            self._tasks.create_task(self._hold(holding), name=f"{self._service}/{shard}")
        return True

    async def _hold(self, holding: _Holding) -> None:
        """Serves until it is to be left, and gives the shard up when the work has really ended."""
        shard, fence = holding.shard, holding.fence
        self._owned[shard] = fence
        self._shown.add(shard)
        IS_OWNER.labels(self._service, shard).set(1)
        _log.info("shard taken", extra={"service": self._service, "shard": shard, "fence": fence.create_revision})
        work: asyncio.Future[Any] = asyncio.ensure_future(self._serve(shard, fence))
        leaving: asyncio.Future[Any] = asyncio.ensure_future(holding.leave.wait())
        try:
            await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:  # also when the whole term is cancelled
            leaving.cancel()
            asked = not work.done()
            await _end(shard, work)
            self._owned.pop(shard, None)
            IS_OWNER.labels(self._service, shard).set(0)
            if self._lease.alive:
                await self._give_up(fence)
            self._holdings.pop(shard, None)
            self._changed.set()
        if asked and (work.cancelled() or work.exception() is None):
            return
        self._judge(shard, work)
        self._paused.add(shard)
        asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._resume, shard)

    def _resume(self, shard: str) -> None:
        self._paused.discard(shard)
        self._changed.set()

    @staticmethod
    def _judge(shard: str, work: asyncio.Future[Any]) -> None:
        """Raises the error of a serving task that ended by itself, unless the store alone was the reason."""
        if work.cancelled():
            raise RuntimeError(f"serving {shard} was cancelled by itself")
        error = work.exception()
        if error is None:
            _log.warning("serving ended by itself", extra={"shard": shard})
        elif _only_the_store(error):
            _log.warning("serving failed; the shard will be taken anew", extra={"shard": shard}, exc_info=error)
        else:
            raise error

    async def _give_up(self, fence: Fence) -> bool:
        """Deletes the ownership key; False when that is not certain."""
        txn = Transaction().delete(fence.key)
        fence.guard(txn)
        try:
            await txn.commit(self._store)
        except Conflict:
            _log.debug("a shard was gone before it was given up", extra={"key": fence.key})
        except StoreError as error:
            _log.warning("a shard could not be given up", extra={"key": fence.key, "cause": str(error)})
            return False
        else:
            _log.info("shard given up", extra={"key": fence.key})
        return True


async def _end(shard: str, work: "asyncio.Future[Any]") -> None:
    """Cancels and waits; whatever the fence refuses meanwhile, two owners must not be at work together."""
    began = asyncio.get_running_loop().time()
    work.cancel()
    await asyncio.wait({work})
    took = asyncio.get_running_loop().time() - began
    if took > _SLOW_STOP_SECONDS:
        _log.warning("serving ended late", extra={"shard": shard, "seconds": round(took, 1)})


def _only_the_store(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_only_the_store(part) for part in error.exceptions)
    return isinstance(error, StoreError)
