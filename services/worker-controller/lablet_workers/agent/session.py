"""An agent's session: heartbeats out, grants in, and the permission that they add up to.

A session has a name (`epoch`) and ends for good: when the mesh says so, or when the permission has run out by this host's
own clock. Before the next one begins nothing of the earlier runs any more; then it is named as the one that is replaced. An
agent that is started anew goes on with its session as long as the permission on disk lasts, and so finds its labs.

The permission counts from the moment at which a heartbeat was *sent*.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

from lablet_common.agents import Grant, Heartbeat, Usage
from lablet_workers.agent.permission import Permission, now, read_permission, write_permission

log = logging.getLogger("lablet.agent")

_FIRST_PAUSE = 0.5
"""Seconds between heartbeats until one has been granted."""
_BEATS_PER_GRANT = 5


class Session:
    """`send` publishes a heartbeat, and may fail silently: the next one follows. `stop_labs` returns when nothing runs.
    `register` is called when the mesh does not know this worker."""

    def __init__(
        self,
        path: Path,
        host: str,
        *,
        send: Callable[[Heartbeat], Awaitable[None]],
        stop_labs: Callable[[], Awaitable[None]],
        usage: Callable[[], Usage],
        register: Callable[[], None],
    ) -> None:
        self._path = path
        self._host = host
        self._send = send
        self._stop_labs = stop_labs
        self._usage = usage
        self._register = register
        self._epoch = ""
        self._earlier = ""
        self._granted = False
        self._number = 0
        self._sent: dict[int, float] = {}
        self._pause = _FIRST_PAUSE
        self._wake = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def epoch(self) -> str:
        return self._epoch

    @property
    def permission(self) -> Permission | None:
        """What labs may run by now; None: none."""
        found = read_permission(self._path)
        return found if found is not None and found.epoch == self._epoch and found.left > 0 else None

    async def run(self) -> None:
        """Until cancelled."""
        known = read_permission(self._path)
        if known is not None and known.left > 0:
            self._epoch, self._granted = known.epoch, True
            log.info("the session goes on", extra={"epoch": known.epoch, "seconds": round(known.left, 1)})
        else:
            await self._begin(known.epoch if known is not None else "")
        while True:
            if self._over.is_set() or (self._granted and self.permission is None):
                await self._begin(self._epoch)
            await self._beat()
            self._wake.clear()
            try:
                async with asyncio.timeout(self._until_next()):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _until_next(self) -> float:
        permission = self.permission
        return self._pause if permission is None else min(self._pause, max(permission.left, 0.01))

    async def _begin(self, earlier: str) -> None:
        """A new session, once nothing of the earlier runs."""
        await self._stop_labs()
        self._path.unlink(missing_ok=True)
        self._epoch, self._earlier, self._granted = uuid4().hex, earlier, False
        self._pause = _FIRST_PAUSE
        self._sent.clear()
        self._over.clear()
        log.info("a session begins", extra={"epoch": self._epoch, "replaces": earlier})

    async def _beat(self, *, leaving: bool = False) -> None:
        self._number += 1
        first = not self._granted
        beat = Heartbeat(
            epoch=self._epoch,
            number=self._number,
            first=first,
            leaving=leaving,
            replaces=self._earlier if first else "",
            host=self._host,
            usage=self._usage(),
        )
        self._sent[self._number] = now()
        for old in [number for number in self._sent if number < self._number - 20]:
            del self._sent[old]
        await self._send(beat)

    async def leave(self) -> None:
        """Ends the session now: stops the labs, and tells the mesh."""
        await self._stop_labs()
        self._path.unlink(missing_ok=True)
        await self._beat(leaving=True)

    def hear(self, grant: Grant) -> None:
        """A grant, or why there is none."""
        sent = self._sent.get(grant.number)
        if grant.epoch != self._epoch or sent is None:
            return  # of an earlier session, or much too late
        if grant.refused:
            self._refused(grant.refused)
            return
        until = sent + grant.seconds
        known = read_permission(self._path)
        if known is None or known.epoch != self._epoch or until > known.until:
            write_permission(self._path, Permission(self._epoch, until))
        if not self._granted:
            log.info("labs may run", extra={"epoch": self._epoch, "seconds": grant.seconds})
        self._granted, self._earlier = True, ""
        self._pause = grant.seconds / _BEATS_PER_GRANT

    def _refused(self, why: str) -> None:
        log.warning("no permission", extra={"epoch": self._epoch, "reason": why})
        if why == "not-registered":
            self._register()
        elif self._granted:
            # the session is over, or somebody else has begun one in this worker's name
            self._over.set()
            self._wake.set()
