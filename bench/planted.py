"""Defects of real kinds that `worlds` plants into the services of its own process, one at a time.

Each is what a hurried change could leave behind: a look that is left out, a transaction in two, a word taken for more than it
says. They stay until the process ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch
from uuid import uuid4

from lablet_common import requests
from lablet_common.bridge import Bridge
from lablet_common.cursor import Cursor, Mark
from lablet_common.intake import Intake
from lablet_common.ownership import Fence
from lablet_common.requests import Undecided
from lablet_common.resources.kinds import cursor_key
from lablet_common.resources.worker import Worker
from lablet_common.store import Store, StoreUnavailable, Transaction
from lablet_common.store.api import Compacted
from lablet_common.store.mirror import Mirror
from lablet_scheduler import writer
from lablet_scheduler.commits import Refused, Step, write
from lablet_scheduler.engine import Booking, Calendar, change
from lablet_scheduler.engine.lane import Lane
from lablet_workers.instances import ending, failing, steps
from lablet_workers.instances.context import Situation
from lablet_workers.machines import powering_up
from lablet_workers.machines.context import Surroundings, pool_tags, tags_of
from lablet_workers.providers.port import MachineInfo

_RETRY_SECONDS = 0.5


def _plant(where: object, name: str, what: object) -> None:
    patch.object(where, name, what).start()


def port_at_start() -> None:
    """A free port is looked for at the beginning of the slot only."""
    real = Lane.ports_in_use
    _plant(Lane, "ports_in_use", lambda lane, start, _: real(lane, start, start + 1))


def pointer_after() -> None:
    """What has been decided is taken out of the inbox in a transaction of its own."""
    take, settle = requests._take_in, Intake._decide_on

    async def taken(store: Store, fence: Fence, decided: Sequence[Undecided]) -> int:
        txn = Transaction()
        fence.guard(txn)
        for one in decided:
            take(txn, one)
        return (await txn.commit(store)).revision

    async def settled(intake: Intake, undecided: Undecided) -> None:
        await settle(intake, undecided)
        await taken(intake._store, intake._fence, [undecided])

    async def written(
        store: Store, fence: Fence, key: str, gate: int, group: Sequence[Step], accounts: Any
    ) -> int | Refused:
        done = await write(store, fence, key, gate, group, accounts)
        decided = [step.undecided for step in group if step.undecided is not None]
        return await taken(store, fence, decided) if decided and not isinstance(done, Refused) else done

    _plant(requests, "_take_in", lambda _txn, _undecided: None)
    _plant(Intake, "_decide_on", settled)
    _plant(writer, "write", written)


def lab_forgotten() -> None:
    """A lab that has been exported is taken for gone."""
    real = ending.exported

    async def exported(s: Situation) -> Any:
        s.instance = s.instance.observed(lab=None)
        return await real(s)

    async def none_left(_: Situation) -> bool:
        return True

    _plant(steps, "exported", exported)
    _plant(ending, "none_left", none_left)


def failed_unseen() -> None:
    """A failed lab is taken for gone."""

    async def cleaned(_: Situation) -> bool:
        return True

    _plant(failing, "_cleaned", cleaned)


def launched_anew() -> None:
    """Each try of a launch is another one: whoever comes after a crash does not look for what was launched."""

    async def launch(worker: Worker, around: Surroundings) -> MachineInfo:
        tags = tags_of(worker) | pool_tags(around.pool) | {"lablet-pool": worker.spec.pool}
        return await around.provider.launch(around.order(str(uuid4()), tags))

    _plant(powering_up, "_launch", launch)


def watch_from_now() -> None:
    """A watch that broke goes on with what happens from then on: what happened meanwhile waits for the next whole list."""

    async def follow(mirror: Mirror) -> None:
        broke = False
        while True:
            try:
                if broke:
                    mirror._advance((await mirror._store.range("/none/", limit=1)).revision)
                else:
                    await mirror._list()
                broke = False
                async with (
                    asyncio.timeout(mirror._resync_seconds),
                    mirror._store.watch(mirror._watched, start_revision=mirror.revision + 1) as batches,
                ):
                    async for batch in batches:
                        mirror._take(batch)
            except (TimeoutError, Compacted):
                continue
            except StoreUnavailable:
                broke = mirror.synced
            await asyncio.sleep(_RETRY_SECONDS)

    _plant(Mirror, "_follow", follow)


def bridge_from_now() -> None:
    """A bridge begins where the store is, not where the one before it has stopped."""

    async def read_cursor(bridge: Bridge) -> Cursor:
        page = await bridge._store.range(cursor_key(bridge._kind.name), limit=1)
        return Cursor((Mark(page.revision if page.items else 0),))

    _plant(Bridge, "_read_cursor", read_cursor)


def extension_unlooked() -> None:
    """An extension is granted whoever is booked behind it."""
    real = Calendar.replace

    def replace(calendar: Calendar, booking: Booking, **_: bool) -> None:
        real(calendar, booking, check=False)

    _plant(change, "_miss_until", lambda *_: None)
    _plant(Calendar, "replace", replace)


DEFECTS: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        port_at_start, pointer_after, lab_forgotten, watch_from_now, failed_unseen, launched_anew, bridge_from_now,
        extension_unlooked,
    )
}  # fmt: skip
