"""Lives the morning: starts the mesh, books, kills the scheduler, types into a console, and gathers the evidence.

It talks to the mesh as everybody else does (the SDK, consoles, a signal to a process); what it learns on the way is only
used to show it and to know when to go on. The verdict rests on `evidence`.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from lablet_client import Client
from lablet_client.connection import Connection
from lablet_client.errors import Conflict, LabletError, Unavailable, Unreachable
from lablet_common.clock import ScaledClock, load_clock, set_clock
from lablet_common.intents import ReservationCreate
from lablet_common.resources.kinds import RESERVATION, Service, inbox_prefix, ownership_key
from lablet_common.store import EtcdStore
from lablet_local.demo.books import is_agent
from lablet_local.demo.console import knock, type_into
from lablet_local.demo.evidence import Evidence, Ran, TakeOver, Typed, Visit, read_events, read_history, read_present
from lablet_local.demo.fleet import write_templates
from lablet_local.demo.hosts import running
from lablet_local.demo.record import Commit, Json, Recorder
from lablet_local.demo.scenario import LABS, NOTEBOOK, OPENING, POOL, Booking, Morning
from lablet_local.mesh import LocalMesh

SPEED = 175.0
LEAD_MINUTES = 40.0
LEASE_TTL = 3.0
"""As long as the speed allows: on a busy machine an event loop may stand still for a second."""
HOSTS = 2
"""Agents on this machine."""
WARM_UP = timedelta(hours=4)
"""Lab time before the opening in which the mesh may start; what it does not need is skipped."""
LINE = "ip domain name typed-in-the-demo.example"
_FINAL = {"Completed", "Rejected", "Cancelled", "Expired", "Failed"}
_TAKE_OVER_SECONDS = 20.0
_GIVE_UP_SECONDS = 45.0
"""Real seconds after the last slot's end in which everything must have come to its end."""


@dataclass(slots=True)
class Stage:
    """What the running morning is about, for whoever shows it."""

    morning: Morning
    mesh: LocalMesh
    clock: ScaledClock
    recorder: Recorder
    submitted: dict[str, str] = field(default_factory=dict)
    """Booking → reservation id."""
    visits: list[Visit] = field(default_factory=list)
    ran: list[Ran] = field(default_factory=list)
    take_over: TakeOver = field(default_factory=TakeOver)
    typed: Typed = field(default_factory=Typed)
    say: Callable[[str], None] = lambda _: None

    def lab_of(self, real: float) -> datetime:
        """Lab time at a real instant (unix seconds)."""
        origin = self.clock.origin
        return origin.lab + timedelta(seconds=(real - origin.real.timestamp()) * origin.speed)

    async def until(self, minute: float) -> None:
        await self.clock.sleep_until(OPENING + timedelta(minutes=minute))


def new_mesh(data: Path, speed: float, announce: Callable[[str], None]) -> LocalMesh:
    """Two schedulers, one of everything else, at high speed. Raises what `LocalMesh` and `write_templates` raise."""
    return LocalMesh(
        data,
        speed=speed,
        replicas={"scheduler": 2},
        agents=HOSTS,
        lead_minutes=LEAD_MINUTES,
        lease_ttl=LEASE_TTL,
        start=OPENING - WARM_UP,
        environment={"WORKER_TEMPLATES_CONFIG_PATH": str(write_templates(data / "demo-workers.yaml"))},
        announce=announce,
    )


async def live(stage: Stage, labs: Path) -> Evidence:
    """The whole morning, to the evidence. The mesh is up and stays up. Raises `TimeoutError` naming nothing: what did
    not come to its end is then found by the checks, so the evidence is gathered all the same."""
    connection = Connection(stage.mesh.url, stage.mesh.token("admin"))
    async with Client(connection=connection) as lablet, asyncio.TaskGroup() as tasks:
        visitor = _Visitor(stage, tasks)
        stage.recorder.listen(visitor.see)
        await _publish(stage, lablet, labs)
        await _book(stage, lablet, [one for one in stage.morning.bookings if not one.during_failover])
        await stage.until(stage.morning.kill_at)
        await _kill_the_scheduler(stage, lablet, tasks)
        await stage.until(stage.morning.cancel_at)
        await _cancel(stage, lablet)
        await stage.until(stage.morning.ends)
        await _everything_ends(stage)
        await visitor.find_what_was_typed(lablet)
    return await gather(stage)


async def gather(stage: Stage) -> Evidence:
    """Reads all sources anew."""
    endpoint = stage.mesh.etcd_endpoint
    present, history = await asyncio.gather(read_present(endpoint), read_history(endpoint))
    watched = ("/reservations/", "/instances/")
    newest = max((change.revision for change in history if change.key.startswith(watched)), default=0)
    events, machines = await asyncio.gather(read_events(stage.mesh, newest), stage.mesh.witness())
    return Evidence(
        present=present,
        history=history,
        events=events,
        machines=tuple(machines),
        visits=tuple(stage.visits),
        ran=tuple(stage.ran),
        left=tuple(running(stage.mesh.agent_folders())),
        take_over=stage.take_over,
        typed=stage.typed,
        submitted=dict(stage.submitted),
    )


async def _publish(stage: Stage, lablet: Client, labs: Path) -> None:
    for name in LABS:
        definition = await lablet.definitions.publish((labs / f"{name}.yaml").read_bytes(), name=name)
        stage.say(f"published {definition.id}")
    manifest = (labs.parent / "processes" / f"{NOTEBOOK}.yaml").read_bytes()
    definition = await lablet.definitions.publish(manifest, name=NOTEBOOK)
    stage.say(f"published {definition.id}")


async def _book(stage: Stage, lablet: Client, bookings: list[Booking]) -> None:
    for booking in bookings:
        await stage.until(booking.asked)
        await _ask(stage, lablet, booking)


async def _ask(stage: Stage, lablet: Client, booking: Booking, *, wait: float = 10.0) -> None:
    body = ReservationCreate(
        definition=booking.definition,
        seats=booking.seats,
        pool=booking.pool,
        start=booking.begins,
        end=booking.ends,
        priority=booking.priority,
        labels={"booking": booking.name, "title": booking.title},
    )
    try:
        made = await lablet.reservations.create(body, wait=wait, key=f"demo-{booking.name}")
    except Conflict as refusal:
        stage.submitted[booking.name] = str(refusal.extension("reservation") or refusal.extension("id") or "")
        stage.say(f"{booking.title}: refused – {refusal.sentence}")
        return
    stage.submitted[booking.name] = made.id
    stage.say(f"{booking.title}: {made.status.phase}")


async def _kill_the_scheduler(stage: Stage, lablet: Client, tasks: asyncio.TaskGroup) -> None:
    """SIGKILL to the pool's owner; requests come in before anybody takes over; then the dead one may come back."""
    store = EtcdStore([stage.mesh.etcd_endpoint])
    try:
        key = ownership_key(Service.SCHEDULER, POOL)
        owner = await store.get(key)
        if owner is None:
            raise LookupError(f"nobody owns {key}")
        victim = owner.value.decode()
        killed_at = time.time()
        pid = stage.mesh.kill(victim)
        await stage.mesh.wait_ended(victim, pid)
        await stage.mesh.stop_process(victim)  # so that the other one must take over
        stage.take_over = TakeOver(killed=victim, killed_at=killed_at, revision_at_kill=stage.recorder.revision)
        stage.say(f"killed {victim}, the active scheduler (SIGKILL)")
        asked = [
            tasks.create_task(_ask(stage, lablet, booking, wait=20.0))
            for booking in stage.morning.bookings
            if booking.during_failover
        ]
        pending = await _pending(stage, len(asked))
        taken = await _taken_over(stage, key, owner.mod_revision)
        stage.take_over = replace(
            stage.take_over,
            pending=pending,
            successor=str(taken.value),
            owned_at=taken.seen_at,
            owned_revision=taken.revision,
        )
        stage.say(f"{taken.value} took over, {len(pending)} requests were waiting")
        await asyncio.gather(*asked)
        try:
            first = await _first_decision(stage.recorder, taken.revision)
        except TimeoutError:  # then it is missed by the check
            stage.say(f"no decision of {taken.value} was heard of within {_TAKE_OVER_SECONDS:g} s")
        else:
            stage.take_over = replace(stage.take_over, decided_at=first.seen_at, decided_revision=first.revision)
            stage.say(f"first decision {stage.take_over.seconds:.1f} s after the kill")
        tasks.create_task(_bring_back(stage, victim))
    finally:
        await store.close()


async def _pending(stage: Stage, wanted: int) -> tuple[str, ...]:
    """The pointers in the dead scheduler's inbox, once all that is asked for has arrived (or a second has passed)."""
    prefix = inbox_prefix(Service.SCHEDULER, POOL)

    def found() -> tuple[str, ...]:
        return tuple(key.removeprefix(prefix) for key in stage.recorder.present if key.startswith(prefix))

    try:
        async with asyncio.timeout(1.0):
            while len(found()) < wanted:
                await stage.recorder.news()
    except TimeoutError:
        stage.say("not every request has arrived yet")
    return found()


async def _taken_over(stage: Stage, key: str, before: int) -> Commit:
    """The commit with which somebody took the pool after revision `before`. Raises `TimeoutError`."""
    async with asyncio.timeout(_TAKE_OVER_SECONDS):
        while True:
            for commit in reversed(stage.recorder.commits):
                if commit.revision <= before:
                    break
                if commit.key == key and commit.value is not None:
                    return commit
            await stage.recorder.news()


async def _first_decision(recorder: Recorder, since: int) -> Commit:
    """The first reservation that was written after the take-over; the gateway may have answered before it is heard of here.
    Raises `TimeoutError`."""
    async with asyncio.timeout(_TAKE_OVER_SECONDS):
        while True:
            for one in recorder.commits:
                if one.revision > since and one.key.startswith(RESERVATION.prefix):
                    return one
            await recorder.news()


async def _bring_back(stage: Stage, name: str) -> None:
    await stage.mesh.resume_process(name)
    stage.say(f"{name} is back")


async def _cancel(stage: Stage, lablet: Client) -> None:
    name = stage.morning.cancelled
    await lablet.reservations.cancel(stage.submitted[name], reason="the trainer is ill")
    stage.say(f"{name} cancelled: the trainer is ill")


async def _everything_ends(stage: Stage) -> None:
    """Waits until every reservation, instance and worker has come to rest; what has not in time is the checks' matter."""
    try:
        async with asyncio.timeout(_GIVE_UP_SECONDS):
            while not _at_rest(stage.recorder):
                await stage.recorder.news()
    except TimeoutError:
        stage.say("not everything came to its end")


def _at_rest(recorder: Recorder) -> bool:
    def phases(prefix: str) -> set[str]:
        return {str(one["status"]["phase"]) for one in recorder.of(prefix)}

    return (
        phases("/reservations/") <= _FINAL
        and phases("/instances/") <= {"Terminated"}
        and {str(one["status"]["phase"]) for one in recorder.of("/workers/") if not is_agent(one)} <= {"Offline"}
        and not any(key.startswith("/inbox/") for key in recorder.present)
    )


class _Visitor:
    """Knocks at every port of each lab as soon as it is said to run, and types a line into one console."""

    def __init__(self, stage: Stage, tasks: asyncio.TaskGroup) -> None:
        self._stage = stage
        self._tasks = tasks
        self._seen: set[tuple[str, int]] = set()

    def see(self, commit: Commit) -> None:
        value = commit.value
        if not commit.key.startswith("/instances/") or not isinstance(value, dict):
            return
        if value["status"]["phase"] != "Running":
            return
        visit = (str(value["metadata"]["id"]), int(value["status"].get("attempt", 1)))
        if visit not in self._seen:
            self._seen.add(visit)
            self._tasks.create_task(self._visit(value))

    async def _visit(self, instance: Json) -> None:
        name, host = str(instance["metadata"]["id"]), str(instance["status"]["host"])
        ports: dict[str, int] = instance["spec"]["ports"]
        if is_agent(self._stage.recorder.present.get(f"/workers/{instance['spec']['worker']}")):
            found = await asyncio.to_thread(running, self._stage.mesh.agent_folders())
            self._stage.ran += [one for one in found if one.instance == name]
        self._stage.visits += await asyncio.gather(*(knock(name, label, host, port) for label, port in ports.items()))
        if not self._stage.typed.instance and self._is_the_one(instance):
            self._stage.typed = Typed(name, LINE)
            consoles = [label for label in ports if label.endswith("_serial")]
            await type_into(host, ports[consoles[0]], "enable", "configure terminal", LINE, "end")
            self._stage.say(f"typed into {name}, {consoles[0]}: {LINE}")

    def _is_the_one(self, instance: Json) -> bool:
        wanted = self._stage.submitted.get(self._stage.morning.typed_in)
        return bool(instance["spec"]["reservation"] == wanted and instance["spec"]["seat"] == 1)

    async def find_what_was_typed(self, lablet: Client) -> None:
        typed = self._stage.typed
        if not typed.instance:
            return
        try:
            for artifact in await lablet.instances.artifacts(typed.instance):
                if artifact.role == "collected" and LINE in (await lablet.artifacts.download(artifact.digest)).decode():
                    self._stage.typed = Typed(typed.instance, LINE, artifact.name)
                    return
        except (LabletError, Unavailable, Unreachable) as error:
            self._stage.say(f"what was typed could not be looked for: {error}")


async def prepare(mesh: LocalMesh, morning: Morning, say: Callable[[str], None]) -> tuple[Stage, EtcdStore]:
    """The stage on a mesh that has just become ready, and the store that its recorder follows (the caller closes it)."""
    store = EtcdStore([mesh.etcd_endpoint])
    clock = await load_clock(store)
    if clock.now() < OPENING:
        clock = await set_clock(store, speed=clock.speed, start=OPENING)
    return Stage(morning, mesh, clock, Recorder(), say=say), store
