"""A soak from a fresh mesh to the last sample."""

import asyncio
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import nats

from lablet_common.bus.permissions import inbox_prefix
from lablet_common.version import __version__
from lablet_local.mesh import LocalMesh
from lablet_local.messaging import MAINTENANCE
from lablet_local.soak.ending import find_out, until_at_rest
from lablet_local.soak.load import SteadyLoad
from lablet_local.soak.record import Writer
from lablet_local.soak.sampling import Sampler
from lablet_local.soak.sink import open_sink

SPEED = 150.0
RATE = 60.0
SAMPLE_SECONDS = 15.0
_KEPT_PART = 0.05
_KEPT_MOST = 600.0
_STREAM_LEAST = 120.0
"""A stream must remember what it has seen for so long, to know repeats."""


@dataclass(frozen=True, slots=True)
class Plan:
    seconds: float
    """Real seconds of load."""
    speed: float = SPEED
    rate: float = RATE
    """Deeds a minute."""
    every: float = SAMPLE_SECONDS
    """Real seconds between samples."""
    seed: int = 1

    @property
    def kept_seconds(self) -> float:
        """Real seconds that what has ended is kept, so that all comes to a steady state well within the warm-up."""
        return min(self.seconds * _KEPT_PART, _KEPT_MOST)

    @property
    def stream_seconds(self) -> float:
        """After which streams forget, where years would be usual: an operator's change, by the user that an operator has."""
        return max(self.kept_seconds, _STREAM_LEAST)

    @property
    def settings(self) -> dict[str, str]:
        """What is usually kept for a day (decided requests, reservations until they are archived), for a quarter of an
        hour (etcd's history), or for 90 days (collected work) is kept for `kept_seconds` or less."""
        lab_hours = self.kept_seconds * self.speed / 3600
        return {
            "ARCHIVE_AFTER_HOURS": f"{lab_hours:.4g}",
            "ARCHIVE_LOOK_SECONDS": f"{min(self.kept_seconds / 4, 30):.4g}",
            "ARTIFACT_RETENTION_DAYS": f"{lab_hours / 24:.4g}",
            "ARTIFACT_SWEEP_GRACE_MINUTES": f"{self.kept_seconds / 60:.4g}",
            "GATEWAY_REQUEST_RETENTION_HOURS": f"{self.kept_seconds / 3600:.4g}",
            "GATEWAY_HISTORY_MINUTES": f"{self.kept_seconds / 2 / 60:.4g}",
        }


async def run_soak(plan: Plan, folder: Path, lab_file: bytes, record: Path, say: Callable[[str], None]) -> None:
    """Writes the record. Raises what `LocalMesh` raises when the mesh cannot be started."""
    writer = Writer(record)
    writer.begin(
        {
            **asdict(plan), "version": __version__, "startedAt": time.time(), "python": platform.python_version(),
            "settings": plan.settings, "streamSeconds": plan.stream_seconds,
        }
    )  # fmt: skip
    async with (
        LocalMesh(folder, speed=plan.speed, environment=plan.settings, ready_seconds=120) as mesh,
        open_sink() as sink,
    ):
        await _shorten_streams(mesh, plan.stream_seconds)
        load = SteadyLoad([mesh.url], mesh.token("admin"), plan.seed, plan.speed, lab_file, plan.rate, sink.url)
        sampler = Sampler(mesh)
        try:
            await load.publish_first()
            await _under_load(plan, load, sampler, writer, say)
            rest = await until_at_rest(mesh)
            writer.sample(plan.seconds + rest, await sampler.sample() | _counted(load))
            found = await find_out(mesh, load)
            writer.end(found | {"webhooks": sink.taken, "restSeconds": round(rest, 1)})
        finally:
            await load.close()
            await sampler.close()


async def _under_load(
    plan: Plan, load: SteadyLoad, sampler: Sampler, writer: Writer, say: Callable[[str], None]
) -> None:
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(load.run())
        while (elapsed := time.monotonic() - began) < plan.seconds and not asking.done():
            try:
                values = await sampler.sample()
            except httpx.HTTPError as error:
                load.faults[f"sample {type(error).__name__}"] += 1
            else:
                writer.sample(elapsed, values | _counted(load))
            say(f"{elapsed:6.0f} s  {load.deeds.total()} deeds, {len(load.seen.accepted)} accepted")
            wait = min(plan.every * (int(elapsed / plan.every) + 1), plan.seconds) - (time.monotonic() - began)
            await asyncio.sleep(max(wait, 0.0))
        load.stop()
    await load.wind_up()


def _counted(load: SteadyLoad) -> dict[str, float]:
    found = {
        "load/deeds": load.deeds.total(), "load/asked": len(load.seen.asked), "load/accepted": len(load.seen.accepted),
        "load/faults": load.faults.total(),
        "load/unanswered": sum(not one.status for one in load.seen.asked),
    }  # fmt: skip
    return {name: float(value) for name, value in found.items()}


async def _shorten_streams(mesh: LocalMesh, seconds: float) -> None:
    user, password = mesh.nats_login(MAINTENANCE)
    connection = await nats.connect(
        list(mesh.members.nats_urls), user=user, password=password, inbox_prefix=inbox_prefix(MAINTENANCE).encode()
    )
    try:
        stream = connection.jetstream()
        for info in await stream.streams_info():
            await stream.update_stream(info.config.evolve(max_age=seconds))
    finally:
        await connection.close()
