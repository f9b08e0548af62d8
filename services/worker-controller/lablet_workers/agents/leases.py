"""Who of the agents lives: one leased key per worker in etcd, renewed by heartbeats, and a grant for each renewal.

The key `/worker-leases/<worker>` holds the agent's session (`epoch`). While it is there, labs of that session may run;
when etcd has let it go they are over for certain, because the agent's permission ended before (see `lablet_common.agents`).
So whatever decides that labs are lost asks etcd for this key and nothing else. Any replica may renew: a renewal changes no
decision, and one that comes too late finds no key to renew and says so.

A session ends with its key. An agent that comes back must begin a new one, which it may only do when nothing of the earlier
runs any more; with the earlier session's name in hand it need not wait for etcd to forget it.
"""

import asyncio
import json
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lablet_common.agents import HEARTBEATS, Grant, Heartbeat, work_subject, worker_of
from lablet_common.bus.connection import BusUnavailable, Connection
from lablet_common.resources.kinds import Service, worker_lease_key
from lablet_common.store import KeyValue, Store, StoreError
from lablet_common.store.api import Compare, LeaseLost, Put, Target
from lablet_common.store.mirror import Mirror

log = logging.getLogger("lablet.workers.agents")

PREFIX = worker_lease_key("")
_SLACK_SECONDS = 2
"""etcd's lease is longer than what is granted by so much: clocks that drift, and its own rounding."""


@dataclass(frozen=True, slots=True)
class Session:
    """An agent's present session, as etcd holds it."""

    epoch: str
    host: str
    revoked: bool = False
    """It is not renewed any more, and is over when its lease has run out."""

    def to_json(self) -> bytes:
        return json.dumps({"epoch": self.epoch, "host": self.host, "revoked": self.revoked}).encode()


def session_of(kv: KeyValue) -> Session:
    found = json.loads(kv.value)
    return Session(str(found["epoch"]), str(found["host"]), bool(found["revoked"]))


class Leases:
    """Renews leases and grants. `seconds` (real) is how long a heartbeat's grant lasts."""

    def __init__(self, store: Store, seconds: float, is_registered: Callable[[str], bool]) -> None:
        self._store = store
        self._seconds = seconds
        self._is_registered = is_registered
        self._ttl = math.ceil(seconds) + _SLACK_SECONDS

    async def beat(self, worker: str, beat: Heartbeat) -> Grant:
        """The answer to one heartbeat. Raises `StoreError`: then nothing is granted."""
        refused = await self._renewed(worker, beat)
        return Grant(epoch=beat.epoch, number=beat.number, seconds=0 if refused else self._seconds, refused=refused)

    async def _renewed(self, worker: str, beat: Heartbeat) -> str:
        if not self._is_registered(worker):
            return "not-registered"
        found = await self._store.get(worker_lease_key(worker))
        if found is None:
            return await self._begin(worker, beat, None) if beat.first else "session-over"
        session = session_of(found)
        if session.epoch != beat.epoch:
            ours = beat.first and beat.replaces == session.epoch
            return await self._begin(worker, beat, found) if ours else "other-session"
        if beat.leaving:
            await self._store.lease_revoke(found.lease)
            log.info("an agent leaves", extra={"worker": worker, "epoch": beat.epoch})
            return "session-over"
        if session.revoked:
            return "session-over"
        try:
            await self._store.lease_keep_alive(found.lease)
        except LeaseLost:
            return "session-over"
        return ""

    async def _begin(self, worker: str, beat: Heartbeat, earlier: KeyValue | None) -> str:
        lease = await self._store.lease_grant(self._ttl)
        key = worker_lease_key(worker)
        unchanged = Compare(key, Target.MOD, "=", earlier.mod_revision if earlier is not None else 0)
        begun = await self._store.txn([unchanged], [Put(key, Session(beat.epoch, beat.host).to_json(), lease)])
        if not begun.succeeded:
            await self._store.lease_revoke(lease)
            present = await self.present(worker)  # another replica may have begun it, by the heartbeat before
            return "" if present is not None and present.epoch == beat.epoch else "other-session"
        if earlier is not None:
            await self._store.lease_revoke(earlier.lease)  # its key has the new lease: nothing goes with the old one
        log.info("an agent's session begins", extra={"worker": worker, "epoch": beat.epoch, "host": beat.host})
        return ""

    async def present(self, worker: str) -> Session | None:
        """The session whose labs may run; read linearizably. None: nothing of that worker's agent runs."""
        found = await self._store.get(worker_lease_key(worker))
        return None if found is None else session_of(found)

    async def revoke(self, worker: str, epoch: str) -> None:
        """The session is renewed no more: its agent stops everything, and its key goes when the lease has run out."""
        key = worker_lease_key(worker)
        found = await self._store.get(key)
        if found is None or session_of(found).epoch != epoch:
            return
        over = Session(epoch, session_of(found).host, revoked=True).to_json()
        await self._store.txn([Compare(key, Target.MOD, "=", found.mod_revision)], [Put(key, over, found.lease)])


class Door:
    """Hears heartbeats for all workers, shared among the replicas, and answers them: each worker's by itself, and of those
    that came while one was being answered the last. So whoever waits for etcd keeps no other worker waiting."""

    def __init__(self, connection: Connection, leases: Leases) -> None:
        self._connection = connection
        self._leases = leases
        self._latest: dict[str, Heartbeat] = {}
        self._answering: dict[str, asyncio.Task[None]] = {}

    async def open(self) -> None:
        await self._connection.listen(HEARTBEATS, self._hear, queue=Service.WORKERS)

    async def _hear(self, subject: str, payload: bytes) -> None:
        try:
            worker, beat = worker_of(subject), Heartbeat.model_validate_json(payload)
        except ValueError as error:
            log.warning("not a heartbeat", extra={"subject": subject, "cause": str(error)[:200]})
            return
        self._latest[worker] = beat
        if worker not in self._answering:
            self._answering[worker] = asyncio.create_task(self._answer(worker))

    async def _answer(self, worker: str) -> None:
        try:
            while (beat := self._latest.pop(worker, None)) is not None:
                try:
                    grant = await self._leases.beat(worker, beat)
                    await self._connection.say(work_subject(worker, "grant"), grant.to_json())
                except (StoreError, BusUnavailable) as error:
                    log.warning("a heartbeat is not answered", extra={"worker": worker, "cause": str(error)})
        finally:
            del self._answering[worker]


class Presence:
    """Which workers have a session, followed by a watch; for what may be a moment late."""

    def __init__(self, store: Store) -> None:
        self._sessions: dict[str, tuple[str, int]] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._mirror = Mirror(store, {PREFIX: self}, watched=PREFIX)

    async def run(self) -> None:
        await self._mirror.run()

    def has(self, worker: str) -> bool:
        return worker in self._sessions

    def subscribe(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Calls it with the worker whose session began or ended; returns what takes it off again."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # -- the sink of the mirror ------------------------------------------------------------------------------------

    def put(self, kv: KeyValue) -> None:
        worker, session = kv.key.removeprefix(PREFIX), session_of(kv)
        if session.revoked:
            self._forget(worker)
            return
        known = self._sessions.get(worker)
        self._sessions[worker] = (session.epoch, kv.mod_revision)
        if known is None or known[0] != session.epoch:
            self._tell(worker)

    def drop(self, key: str, revision: int) -> None:  # noqa: ARG002 - the sink's signature
        self._forget(key.removeprefix(PREFIX))

    def knows(self, kv: KeyValue) -> bool:
        return self._sessions.get(kv.key.removeprefix(PREFIX), ("", 0))[1] == kv.mod_revision

    def keys(self) -> Iterable[str]:
        return [f"{PREFIX}{worker}" for worker in self._sessions]

    def _forget(self, worker: str) -> None:
        if self._sessions.pop(worker, None) is not None:
            self._tell(worker)

    def _tell(self, worker: str) -> None:
        for listener in tuple(self._listeners):
            listener(worker)
