"""Process labs: a lab whose nodes are plain processes, as the manifest that an author writes and as one seat's rendered form.

Source of the format: `docs/guides/agents.md`. Sizes are bytes or text such as `64Mi`; spans are seconds or text such as
`1m30s`. `${PORT_<NAME>}` in a command, an environment value or a health check stands for the seat's port of that name, and
each node also finds it in its environment as `PORT_<NAME>`. Nothing else is put into commands: what a person chose (a
name, a seat) reaches a node by its environment only, so that it can never become part of a shell's command line.

Not checked here: that the command exists on the host, and that the host has the room (the calendar books that).
"""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from lablet_common.resources.definition import NamedPort, Requirements
from lablet_common.resources.model import Model, Name

KIND: Literal["ProcessLab"] = "ProcessLab"
RUNTIME = "process"
MOST_NODES = 64
MOST_BYTES = 256 * 1024
"""Size of a manifest, and of its rendered form: it travels in one message."""

_TOKEN = re.compile(r"\$\{PORT_([A-Za-z0-9_]*)\}")
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*(B|Ki|Mi|Gi)?")
"""No more digits than any size has: a number of three hundred is none for a float."""
_SIZES = {None: 1, "B": 1, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}
_SPAN = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9}(?:\.\d{1,9})?)s)?")
_GIB = 1024**3
_CPU_STEP = 1000


def fault(path: tuple[str | int, ...], message: str) -> PydanticCustomError:
    """An error about several fields, laid at the door of one: its path is in the context, under `path`."""
    return PydanticCustomError("fault", "{message}", {"path": path, "message": message})


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if found is None:
        raise PydanticCustomError("size", "{value} is no size: write bytes, or 64Ki, 512Mi, 1.5Gi", {"value": value})
    return int(float(found[1]) * _SIZES[found[2]])


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = _SPAN.fullmatch(value.strip())
    if found is None or not any(found.groups()):
        raise PydanticCustomError("span", "{value} is no span: write seconds, or 90s, 10m, 1h30m", {"value": value})
    hours, minutes, seconds = found.groups(default="0")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


Bytes = Annotated[int, BeforeValidator(_bytes)]
Seconds = Annotated[float, BeforeValidator(_seconds)]
Text = Annotated[str, Field(max_length=32_768, pattern=r"^[^\x00]*$")]


class NodeResources(Model):
    """What a node may take. `cpu`, `memory` and `disk` are also what it books on its host."""

    cpu: Annotated[float, Field(gt=0, le=256)] = 0.1
    """Cores that it books."""
    memory: Annotated[Bytes, Field(ge=8 * 1024**2, le=1024 * _GIB)] = 256 * 1024**2
    """Bytes of address space of each of its processes."""
    disk: Annotated[Bytes, Field(ge=0, le=1024 * _GIB)] = 64 * 1024**2
    """Bytes of the largest file that it may write."""
    files: Annotated[int, Field(ge=8, le=65_536)] = 256
    """Open files of each of its processes."""
    processes: Annotated[int, Field(ge=1, le=65_536)] = 512
    """Processes and threads of its user on the host: a bound against runaways, not a share."""
    time: Annotated[Seconds, Field(gt=0, le=31 * 86_400)] | None = None
    """Seconds from its first start until it is ended, with exit code 124."""
    cpu_time: Annotated[Seconds, Field(ge=1, le=31 * 86_400)] | None = None
    """Seconds of processor time of each of its processes."""


class HttpCheck(Model):
    """GET on 127.0.0.1; any answer from 200 to 399 is good."""

    port: str
    path: Annotated[str, Field(pattern=r"^/[\x21-\x7e]*$", max_length=1024)] = "/"


class HealthCheck(Model):
    """When a node is healthy: one of `tcp` (a port's name), `http`, `command` (exit code 0)."""

    tcp: str | None = None
    http: HttpCheck | None = None
    command: Annotated[tuple[Text, ...], Field(min_length=1, max_length=256)] | None = None
    interval: Annotated[Seconds, Field(ge=0.1, le=3600)] = 2.0
    timeout: Annotated[Seconds, Field(ge=0.1, le=60)] = 2.0
    retries: Annotated[int, Field(ge=1, le=100)] = 3
    """Failures in a row after which it is unhealthy, and is restarted where its policy allows."""
    start_period: Annotated[Seconds, Field(ge=0, le=3600)] = 60.0
    """Seconds after its start in which failures do not count."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(check is not None for check in (self.tcp, self.http, self.command)) != 1:
            raise fault((), "give one of tcp, http and command")
        return self

    @property
    def port(self) -> str | None:
        return self.tcp or (self.http.port if self.http is not None else None)


class RestartPolicy(StrEnum):
    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class Restart(Model):
    policy: RestartPolicy = RestartPolicy.NEVER
    max: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Restarts before it is given up; None: no bound."""
    backoff: Annotated[Seconds, Field(ge=0, le=300)] = 0.5
    """Before the first restart; doubled each time, up to half a minute."""

    def wants(self, exit_code: int, restarts: int) -> bool:
        """Whether a node that ended so is started again."""
        if self.max is not None and restarts >= self.max:
            return False
        if self.policy is RestartPolicy.ALWAYS:
            return True
        return self.policy is RestartPolicy.ON_FAILURE and exit_code != 0


class Readiness(StrEnum):
    STARTED = "started"
    HEALTHY = "healthy"
    COMPLETED = "completed"
    """Ended with exit code 0."""


class Dependency(Model):
    node: Name
    condition: Readiness = Readiness.STARTED


def _restart(value: Any) -> Any:
    return {"policy": value} if isinstance(value, str) else value


def _dependency(value: Any) -> Any:
    return {"node": value} if isinstance(value, str) else value


class NodePort(Model):
    """A port that each seat gets on its host, by name."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
    protocol: Annotated[str, Field(pattern=r"^[a-z0-9]{1,16}$")] = "tcp"


def _port(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class ProcessNode(Model):
    """One process and what belongs to it."""

    name: Name
    command: Text | Annotated[tuple[Text, ...], Field(min_length=1, max_length=1024)]
    """A list is run as it is; one text is run by `/bin/sh -c`."""
    env: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")], Text] = {}
    ports: Annotated[tuple[Annotated[NodePort, BeforeValidator(_port)], ...], Field(max_length=64)] = ()
    resources: NodeResources = NodeResources()
    health: HealthCheck | None = None
    restart: Annotated[Restart, BeforeValidator(_restart)] = Restart()
    depends_on: Annotated[tuple[Annotated[Dependency, BeforeValidator(_dependency)], ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _runnable(self) -> Self:
        first = self.command if isinstance(self.command, str) else self.command[0]
        if not first.strip():
            raise fault(("command",), "the command is empty: give a program and its arguments")
        return self

    @property
    def argv(self) -> tuple[str, ...]:
        return ("/bin/sh", "-c", self.command) if isinstance(self.command, str) else self.command

    @property
    def ends(self) -> bool:
        """It may end by itself for good: one that is always restarted never does."""
        return self.restart.policy is not RestartPolicy.ALWAYS


class Until(StrEnum):
    SLOT_END = "slot-end"
    COMPLETED = "completed"
    """The lab ends when every node that may end has ended; its exit code is the first that is not 0."""


class ProcessLab(Model):
    """A manifest."""

    kind: Literal["ProcessLab"]
    title: Annotated[str, Field(max_length=128)] = ""
    description: Annotated[str, Field(max_length=4096)] = ""
    until: Until = Until.SLOT_END
    nodes: Annotated[tuple[ProcessNode, ...], Field(min_length=1, max_length=MOST_NODES)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_names()
        for at, node in enumerate(self.nodes):
            self._check_dependencies(at, node)
            _check_ports(at, node, {port.name for one in self.nodes for port in one.ports})
        _check_order(self.nodes)
        if self.until is Until.COMPLETED and not any(node.ends for node in self.nodes):
            raise fault(("until",), "no node ever ends: give one of them another restart policy than always")
        return self

    def _check_names(self) -> None:
        names: set[str] = set()
        ports: set[str] = set()
        for at, node in enumerate(self.nodes):
            if node.name in names:
                raise fault(("nodes", at, "name"), f"there are two nodes {node.name}: names are unique")
            names.add(node.name)
            for index, port in enumerate(node.ports):
                if port.name in ports:
                    where = ("nodes", at, "ports", index)
                    raise fault(where, f"there are two ports {port.name}: names are unique in a lab")
                ports.add(port.name)

    def _check_dependencies(self, at: int, node: ProcessNode) -> None:
        known = {one.name: one for one in self.nodes}
        for index, dependency in enumerate(node.depends_on):
            where = ("nodes", at, "dependsOn", index)
            other = known.get(dependency.node)
            if other is None:
                names = ", ".join(sorted(known))
                raise fault(where, f"there is no node {dependency.node}; there are {names}")
            if dependency.condition is Readiness.HEALTHY and other.health is None:
                raise fault(where, f"node {other.name} has no health check: add one, or wait for started")
            if dependency.condition is Readiness.COMPLETED and not other.ends:
                raise fault(where, f"node {other.name} is always restarted and never completes")

    @property
    def ports(self) -> tuple[NamedPort, ...]:
        """Every node's, in their order."""
        return tuple(NamedPort(name=p.name, protocol=p.protocol) for node in self.nodes for p in node.ports)

    @property
    def requirements(self) -> Requirements:
        """What one seat books: the sum of what its nodes may take."""
        needs = [node.resources for node in self.nodes]
        return Requirements(
            cpu_cores=round(sum(one.cpu for one in needs) * _CPU_STEP) / _CPU_STEP,
            memory_gb=round(sum(one.memory for one in needs) / _GIB, 4),
            storage_gb=round(sum(one.disk for one in needs) / _GIB, 4),
            node_count=len(needs),
        )


class SeatLab(Model):
    """One seat's lab as an agent runs it: the manifest with its ports put in, and whose it is."""

    lab: ProcessLab
    ports: dict[str, int] = {}
    seat: int = 1
    user: str = ""
    worker: str = ""

    def environment(self, node: ProcessNode) -> dict[str, str]:
        """What the node finds beside the clean environment of its host. The author's own values win over the ports'."""
        found = {f"PORT_{name.upper()}": str(number) for name, number in self.ports.items()}
        found |= {"LABLET_SEAT": str(self.seat), "LABLET_USER": self.user, "LABLET_WORKER": self.worker}
        return found | dict(node.env)


def render(lab: ProcessLab, ports: Mapping[str, int], *, seat: int, user: str, worker: str) -> SeatLab:
    """The lab of one seat. Raises `ValueError` when the ports are not the lab's."""
    wanted = {port.name for port in lab.ports}
    if wanted != set(ports):
        different = ", ".join(sorted(wanted ^ set(ports)))
        raise ValueError(f"the seat's ports are not those of the manifest: {different}")
    numbers = {name.upper(): str(number) for name, number in ports.items()}

    def put(text: str) -> str:
        return _TOKEN.sub(lambda found: numbers[found[1].upper()], text)

    nodes = [
        node.model_copy(
            update={
                "command": put(node.command) if isinstance(node.command, str) else tuple(map(put, node.command)),
                "env": {name: put(value) for name, value in node.env.items()},
                "health": _check_with(node.health, put) if node.health is not None else None,
            }
        )
        for node in lab.nodes
    ]
    rendered = lab.model_copy(update={"nodes": tuple(nodes)})
    return SeatLab(lab=rendered, ports=dict(ports), seat=seat, user=user, worker=worker)


def _check_with(check: HealthCheck, put: Any) -> HealthCheck:
    changes: dict[str, Any] = {}
    if check.command is not None:
        changes["command"] = tuple(map(put, check.command))
    if check.http is not None:
        changes["http"] = check.http.model_copy(update={"path": put(check.http.path)})
    return check.model_copy(update=changes)


def _check_ports(at: int, node: ProcessNode, known: set[str]) -> None:
    names = ", ".join(sorted(known)) or "none"
    for where, text in _texts(node):
        for found in _TOKEN.finditer(text):
            if found[1].lower() not in known:
                path = ("nodes", at, *where)
                raise fault(path, f"there is no port for {found[0]}; the lab's ports are {names}")
    wanted = node.health.port if node.health is not None else None
    if wanted is not None and wanted not in known:
        raise fault(("nodes", at, "health"), f"there is no port {wanted}; the lab's ports are {names}")


def _texts(node: ProcessNode) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(node.command, str):
        yield ("command",), node.command
    else:
        yield from ((("command", index), part) for index, part in enumerate(node.command))
    yield from ((("env", name), value) for name, value in node.env.items())
    if node.health is not None:
        yield from ((("health", "command", index), part) for index, part in enumerate(node.health.command or ()))
        if node.health.http is not None:
            yield ("health", "http", "path"), node.health.http.path


def _check_order(nodes: tuple[ProcessNode, ...]) -> None:
    """Raises for nodes that wait for each other."""
    waiting = {node.name: {one.node for one in node.depends_on} for node in nodes}
    while ready := [name for name, others in waiting.items() if not others & waiting.keys()]:
        for name in ready:
            del waiting[name]
    if waiting:
        at = next(index for index, node in enumerate(nodes) if node.name in waiting)
        circle = ", ".join(sorted(waiting))
        raise fault(("nodes", at, "dependsOn"), f"these nodes wait for each other: {circle}")
