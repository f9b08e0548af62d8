"""The streams: their names, subjects and limits, made by whichever service comes first and made again when they vanish.

EVENTS and INTENTS can be published again from etcd, so where a server of its own can (2.12 on), they are flushed in the
background: killed, it loses the end of what it acknowledged. The bridges look for that end in each new connection, and
publish again what is missing (`lablet_common.cursor`); owners look for requests whose intent never came in etcd. INGRESS
and DLQ, which hold something that stands nowhere else, are flushed before the acknowledgement (server setting
`sync_interval: always`), and so is everything in a cluster, where another server may be killed than the one that one is
connected to. Not guaranteed: that INGRESS keeps what it acknowledged where the server was not set up so.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, PersistMode, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, BadRequestError, NotFoundError

from lablet_common.resources.kinds import Service

EVENTS_STREAM = "EVENTS"
INGRESS_STREAM = "INGRESS"
DLQ_STREAM = "DLQ"

_DAY = 24 * 3600.0
_MIB = 1024 * 1024
_PERSIST_MODE_SINCE = (2, 12)
_COMPARED = ("subjects", "retention", "max_age", "max_bytes", "discard", "duplicate_window", "num_replicas")

_log = logging.getLogger(__name__)


def intents_stream(service: str) -> str:
    """`INTENTS_<SERVICE>`, one per owner."""
    return f"INTENTS_{service.replace('-', '_').upper()}"


@dataclass(frozen=True, slots=True)
class Stream:
    """What a stream is for and how much it keeps."""

    name: str
    subjects: tuple[str, ...]
    max_age_days: float
    max_bytes: int
    work_queue: bool = False
    refuse_when_full: bool = False
    """Refuse new messages rather than forget old ones."""
    only_copy: bool = False
    """Must be on disk before it is acknowledged."""

    def config(self, *, replicas: int = 1, server: tuple[int, int] = (2, 9), clustered: bool = False) -> StreamConfig:
        """As the server wants it."""
        alone = replicas == 1 and not clustered
        relaxed = not self.only_copy and alone and server >= _PERSIST_MODE_SINCE
        return StreamConfig(
            name=self.name,
            subjects=list(self.subjects),
            retention=RetentionPolicy.WORK_QUEUE if self.work_queue else RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW if self.refuse_when_full else DiscardPolicy.OLD,
            max_age=self.max_age_days * _DAY,
            max_bytes=self.max_bytes,
            duplicate_window=120.0,
            num_replicas=replicas,
            allow_direct=True,
            persist_mode=PersistMode.ASYNC if relaxed else None,
        )


EVENTS = Stream(EVENTS_STREAM, ("lablet.event.>",), 365, 1024 * _MIB)
INGRESS = Stream(
    INGRESS_STREAM, ("lablet.ingress.>",), 7, 256 * _MIB, work_queue=True, refuse_when_full=True, only_copy=True
)
DLQ = Stream(DLQ_STREAM, ("lablet.dlq.>",), 30, 128 * _MIB, only_copy=True)
INTENTS = {
    service: Stream(intents_stream(service), (f"lablet.intent.{service}.>",), 7, 256 * _MIB) for service in Service
}


def stream_of(subject: str) -> str:
    """The stream that takes a subject. Raises `ValueError` for one that belongs to none."""
    match subject.split(".", 3):
        case ["lablet", "event", *_]:
            return EVENTS_STREAM
        case ["lablet", "intent", service, *_]:
            return intents_stream(service)
        case ["lablet", "ingress", *_]:
            return INGRESS_STREAM
        case ["lablet", "dlq", *_]:
            return DLQ_STREAM
    raise ValueError(f"{subject} belongs to no stream")


def used_by(service: str) -> tuple[Stream, ...]:
    """The streams that a service publishes to or consumes from, its own first. The gateway uses all of them."""
    if service == Service.GATEWAY:
        return (INGRESS, DLQ, EVENTS, *INTENTS.values())
    own = tuple(stream for name, stream in INTENTS.items() if name == service)
    return (*own, EVENTS, DLQ)


async def ensure(
    js: JetStreamContext,
    streams: Iterable[Stream],
    *,
    server: tuple[int, int],
    replicas: int = 1,
    clustered: bool = False,
) -> list[str]:
    """Makes the streams that are missing, whose names it returns, and brings the limits of the others up to date. Somebody
    else's change in the same moment is no error. Raises what the server says otherwise (`nats.errors.Error`,
    `nats.js.errors.APIError`)."""
    made = []
    for stream in streams:
        wanted = stream.config(replicas=replicas, server=server, clustered=clustered)
        try:
            present = (await js.stream_info(stream.name)).config
        except NotFoundError:
            try:
                await js.add_stream(wanted)
                made.append(stream.name)
                _log.info("made the stream", extra={"stream": stream.name})
            except BadRequestError as error:
                _log.warning("somebody else made the stream", extra={"stream": stream.name, "cause": str(error)})
            continue
        drifted = [name for name in _COMPARED if getattr(present, name) != getattr(wanted, name)]
        if not drifted:
            continue
        try:
            # What we have no opinion about stays as an operator set it.
            await js.update_stream(present.evolve(**{name: getattr(wanted, name) for name in drifted}))
            _log.info("brought the stream up to date", extra={"stream": stream.name, "fields": drifted})
        except (APIError, TimeoutError) as error:
            # No right to (the gateway or the owner does it), or not possible: it still works as it is.
            _log.warning(
                "the stream is not as it should be",
                extra={"stream": stream.name, "fields": drifted, "cause": str(error)},
            )
    return made
