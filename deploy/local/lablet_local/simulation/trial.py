"""One seed: its world lives until everything is over, then its history is judged.

    trial(17)             # a small world, drawn from the seed
    trial(17, shape)      # this world, with the seed's order and luck
    trial(17, generation=1)    # what the seed drew before there were counted licences

The trace is a digest of every committed change, every fact of the machines and every step of the loop: two runs of a seed
have the same one, or something in them does not come from the seed.
"""

import asyncio
import hashlib
import json
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from unittest.mock import patch

from pydantic_core import from_json

from lablet_artifacts.topology.rendering import prepare
from lablet_common.store.api import EventType, WatchBatch
from lablet_common.testing.simulation import simulated
from lablet_local.chaos import licences
from lablet_local.chaos.checks import answered, at_rest, kept, one_outcome
from lablet_local.chaos.machines import one_machine_a_worker
from lablet_local.chaos.outcomes import every_kind_decided
from lablet_local.chaos.owners import no_stale_owner
from lablet_local.chaos.seats import none_given_up
from lablet_local.chaos.starts import never_started_again
from lablet_local.demo.checks import ground, stream
from lablet_local.demo.checks.check import Check
from lablet_local.demo.checks.store import never_double_booked
from lablet_local.demo.evidence import Change, Evidence
from lablet_local.simulation.processes import BRIDGED
from lablet_local.simulation.story import GENERATION, Shape, Story, counted, drawn
from lablet_local.simulation.world import MORNING, Fate, World, all_ports_answer

_SPEED = 480.0
_REST_HOURS = 6.0
"""Lab time after the last slot in which everything must come to rest."""
_LOOK = timedelta(minutes=10)
_TELLING_SECONDS = 60
"""Real time in which the bridges must have told of everything."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one seed."""

    seed: int
    checks: tuple[Check, ...]
    trace: str
    steps: int
    commits: int
    faults: int
    lab_hours: float
    crashes: tuple[str, ...] = ()
    generation: int = GENERATION

    @property
    def name(self) -> str:
        """By which it can be lived again: the seed, behind its generation where that is an earlier one."""
        return str(self.seed) if self.generation == GENERATION else f"{self.generation}:{self.seed}"

    @property
    def broken(self) -> list[str]:
        """What did not hold. A small world may have nothing to compare for a check."""
        return [*self.crashes, *(f"{check.claim}: {check.detail}" for check in self.checks if check.broken)]

    @property
    def ok(self) -> bool:
        return not self.broken


@dataclass(slots=True)
class _Record:
    batches: list[WatchBatch] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def take(self, batch: WatchBatch) -> None:
        self.batches.append(batch)
        for kind, kv, _ in batch.events:
            value = None if kind is EventType.DELETE else _value(kv.value)
            self.changes.append(Change(kv.mod_revision, kv.key, value))


@lru_cache(maxsize=4096)
def _value(raw: bytes) -> dict[str, object] | str:
    """Read by every look at the world, and changed by none."""
    if not raw.startswith(b"{"):
        return raw.decode("utf-8", "replace")
    found: dict[str, object] = from_json(raw)
    return found


_prepared = lru_cache(maxsize=8)(prepare)
"""The lab file of all worlds is read once."""


def trial(seed: int, shape: Shape | None = None, *, generation: int = GENERATION, speed: float = _SPEED) -> Verdict:
    """Lives through the seed's world and judges it. `generation`: how it is drawn, where no shape is given."""
    rng = random.Random(f"story {seed}")
    wanted = shape or drawn(rng)
    if shape is None and generation > 1:
        wanted = counted(random.Random(f"licences {seed}"), wanted)
    quiet = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            simulated(seed) as loop,
            patch("lablet_workers.labs.closed_ports", all_ports_answer),
            patch("lablet_artifacts.rendering.prepare", _prepared),
        ):
            fate = Fate(random.Random(f"fate {seed}"), speed, wanted.late_boots, wanted.failed_boots)
            record = _Record()
            story, evidence, hours = loop.run_until_complete(_live(wanted, fate, rng, record))
            steps = loop.steps
            _abandon(loop)
    finally:
        logging.disable(quiet)
        _value.cache_clear()  # of no use to the next world, and looked through for garbage after each
    return Verdict(
        seed=seed,
        checks=tuple(judge(evidence, story)),
        trace=_trace(record.batches, evidence, steps),
        steps=steps,
        commits=len(record.batches),
        faults=story.faults,
        lab_hours=hours,
        crashes=tuple(story.crashes),
        generation=generation,
    )


async def _live(shape: Shape, fate: Fate, rng: random.Random, record: _Record) -> tuple[Story, Evidence, float]:
    world = World(fate)
    async with world.store.watch("/") as batches:

        async def note() -> None:
            async for batch in batches:
                record.take(batch)

        noting = asyncio.ensure_future(note())
        story = Story(world, shape, rng)
        await story.run()
        last = max(story.last_end, world.clock.now() - MORNING)
        end = last + timedelta(hours=_REST_HOURS)
        while True:
            await world.clock.sleep(_LOOK)
            now = world.clock.now() - MORNING
            if now >= end or (now > last and _over(await _present(world)) and _nothing_up(world)):
                break
        for _ in range(_TELLING_SECONDS if shape.bridges else 1):
            await asyncio.sleep(1)
            if not shape.bridges or not any(
                check.broken for check in _told(await _evidence(world, record, story), story)
            ):
                break
        await story.end()
        noting.cancel()
    evidence = await _evidence(world, record, story)
    return story, evidence, (world.clock.now() - MORNING) / timedelta(hours=1)


async def _evidence(world: World, record: _Record, story: Story) -> Evidence:
    present = (await _present(world)).present
    history, events = tuple(record.changes), tuple(story.told)
    return Evidence(present=present, history=history, events=events, machines=world.cloud.witness())


async def _present(world: World) -> Evidence:
    found = await world.store.range("/")
    return Evidence(present={kv.key: _value(kv.value) for kv in found.items})


def _over(evidence: Evidence) -> bool:
    """Nothing is under way, and nobody waits for an answer."""
    return not at_rest(evidence).broken and not any(key.startswith("/inbox/") for key in evidence.present)


def _nothing_up(world: World) -> bool:
    return all(info.state in ("stopped", "terminated") for info in world.cloud.machines.values())


def judge(evidence: Evidence, story: Story) -> Iterable[Check]:
    """The fault runs' checks, on what this world left behind. But for those of series and jobs, of which there are none
    here, and of whether services keep accounts: etcd's twin keeps them, and misses nothing."""
    seen = ground.read(evidence)
    yield answered(story.seen)
    yield one_outcome(evidence)
    yield every_kind_decided(evidence, story.seen)
    yield kept(evidence, story.seen)
    yield at_rest(evidence)
    yield none_given_up(evidence)
    yield never_double_booked(evidence)
    yield from ground.never_doubled(evidence, seen)
    yield never_started_again(evidence, seen)
    yield one_machine_a_worker(evidence)
    yield no_stale_owner(evidence, story.commits)
    yield from licences.checks(evidence)
    yield from _told(evidence, story)


def _told(evidence: Evidence, story: Story) -> Iterable[Check]:
    """What the bridges have made of it, where there are any."""
    if not story.shape.bridges:
        return
    yield from stream.checks(evidence, every=not story.shape.compactions, kinds=[kind.name for kind in BRIDGED])


def _trace(batches: Iterable[WatchBatch], evidence: Evidence, steps: int) -> str:
    digest = hashlib.sha256(str(steps).encode())
    for batch in batches:
        for event in batch.events:
            digest.update(f"{event.kv.mod_revision} {event.kv.key} ".encode() + event.kv.value)
    machines = [{part: told for part, told in one.items() if part != "labs"} for one in evidence.machines]
    digest.update(json.dumps(machines, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _abandon(loop: asyncio.AbstractEventLoop) -> None:
    """What is still under way ends here, without a word."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=5))
