"""What agents and the mesh say to each other over NATS: subjects and messages.

An agent publishes below `lablet.agent.<its worker>.` and hears `lablet.agent-work.<its worker>.>`; its NATS user allows no
more, so the subject is the proof of who speaks. It sends heartbeats and gets grants; the mesh asks and it answers, on a
subject that names the worker again. Nothing here is kept in a stream: what is lost is said again.

The lease rests on clocks that only measure spans. A grant counts from the moment at which the agent *sent* the heartbeat it
answers; the mesh counts from the later moment at which it renewed the lease in etcd. So the agent's labs are over before
the mesh may take them for lost, however long a message was under way.
"""

import base64
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from lablet_common.events.subjects import ANY, escape, unescape
from lablet_common.resources.model import Model

OWN_PREFIX, WORK_PREFIX = "lablet.agent", "lablet.agent-work"
HEARTBEATS = f"{OWN_PREFIX}.{ANY}.heartbeat"
NEWS = f"{OWN_PREFIX}.{ANY}.lab"
MOST_ANSWER_BYTES = 512 * 1024
"""Of output in one answer: a NATS message holds 1 MB."""


def heartbeat_subject(worker: str) -> str:
    return f"{OWN_PREFIX}.{escape(worker)}.heartbeat"


def news_subject(worker: str) -> str:
    """Where an agent says that a lab of its has changed."""
    return f"{OWN_PREFIX}.{escape(worker)}.lab"


def work_subject(worker: str, verb: str) -> str:
    """What the mesh says to one agent: `grant`, or what it asks for."""
    return f"{WORK_PREFIX}.{escape(worker)}.{escape(verb)}"


def reply_subject(worker: str, service: str, replica: str, number: int) -> str:
    """Where an agent answers one question of one service's replica."""
    return f"{OWN_PREFIX}.{escape(worker)}.reply.{escape(service)}.{escape(replica)}.{number}"


def reply_filter(service: str, replica: str = ANY) -> str:
    """All answers to one replica, or to a service."""
    return f"{OWN_PREFIX}.{ANY}.reply.{escape(service)}.{replica if replica == ANY else escape(replica)}.{ANY}"


def worker_of(subject: str) -> str:
    """Who speaks, or is spoken to. Raises `IndexError` for another subject."""
    return unescape(subject.split(".")[2])


def last_of(subject: str) -> str:
    """The verb of a question, the number of an answer."""
    return unescape(subject.rpartition(".")[2])


class Usage(Model):
    """What a host uses now, all its processes."""

    cpu_cores: float = 0
    """Busy on average since the last heartbeat."""
    memory_gb: float = 0
    storage_gb: float = 0
    labs: int = 0
    """That run."""


class Heartbeat(Model):
    """An agent lives. `epoch` names its session: labs of one session are never taken for another's."""

    epoch: Annotated[str, Field(min_length=8, max_length=64)]
    number: int
    """Grows by one; the grant that answers it carries it."""
    first: bool = False
    """The session is new: nothing runs yet that belongs to it."""
    leaving: bool = False
    """The session ends now: nothing of it runs any more."""
    replaces: Annotated[str, Field(max_length=64)] = ""
    """With `first`: the earlier session of which nothing runs any more."""
    host: Annotated[str, Field(max_length=253)] = ""
    usage: Usage = Usage()


class Grant(Model):
    """For `seconds` after the heartbeat of that number was sent, the session may run labs; or why not."""

    epoch: str
    number: int
    seconds: float = 0
    refused: str = ""
    """`not-registered`, `session-over` or `other-session`; empty: granted."""


class Question(Model):
    """What the mesh asks of an agent; the verb stands in the subject."""

    reply: str
    """Subject for the answer."""
    lab: str = ""
    title: str = ""
    manifest: str = ""
    """The seat's rendered lab, as JSON."""
    node: str = ""
    position: int = 0
    limit: Annotated[int, Field(ge=0, le=MOST_ANSWER_BYTES)] = MOST_ANSWER_BYTES
    wait: Annotated[float, Field(ge=0, le=30)] = 0
    """Seconds to wait for output that is not there yet."""


class Answer(Model):
    """`fault` is empty, `missing` (no such lab or node), `refused` or `failed`."""

    fault: str = ""
    message: str = ""
    data: dict[str, Any] = {}


def _is_base64(text: str) -> str:
    base64.b64decode(text, validate=True)
    return text


class Piece(Model):
    """What an agent answers to `output`."""

    start: Annotated[int, Field(ge=0)]
    """Position of its first byte."""
    data: Annotated[str, Field(max_length=2 * MOST_ANSWER_BYTES), AfterValidator(_is_base64)]
    """Bytes, in base64; none: that is all there is now."""
    over: bool
    """The lab has ended."""

    @property
    def content(self) -> bytes:
        return base64.b64decode(self.data)


class NodeRecord(Model):
    name: str
    phase: str
    exit_code: int | None = None
    restarts: int = 0
    message: str = ""


class LabRecord(Model):
    """What an agent answers to `progress`."""

    phase: str
    nodes: tuple[NodeRecord, ...]
    stopped: bool
    ends: bool
    """It is to end by itself."""
    exit_code: int | None = None
