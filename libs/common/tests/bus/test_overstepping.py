"""Every user tries everything on a real server: what is not its own is refused, and nothing that is its own.

Who may do what is written down here once more, by what each service is for, and not read from `permissions`: a right that
one of them gets there without need makes a difference here.
"""

from collections.abc import Iterator

import pytest

from lablet_common.bus.permissions import agent_user, external_user, inbox_prefix, service_user
from lablet_common.resources import Service
from lablet_common.resources.kinds import KINDS
from lablet_common.testing.nats import NatsServer
from lablet_common.testing.tries import Tries

pytestmark = pytest.mark.integration

SCHEDULER, WORKERS, ARTIFACTS, GATEWAY = "scheduler", "worker-controller", "artifact-service", "api-gateway"
SERVICES = (SCHEDULER, WORKERS, ARTIFACTS, GATEWAY)
LMS, OTHER_LMS, AGENT, OTHER_AGENT = "lms", "erp", "agent-east-001", "agent-east-002"
USERS = [
    *(service_user(service, "pw") for service in Service),
    external_user(LMS, "acme", "pw"),
    external_user(OTHER_LMS, "other", "pw"),
    agent_user("east-001", "pw"),
    agent_user("east-002", "pw"),
]
NAMES = [user.name for user in USERS]
OWN_STREAM = {service: f"INTENTS_{service.replace('-', '_').upper()}" for service in SERVICES}
OWNER_OF = {stream: service for service, stream in OWN_STREAM.items()}
STREAMS = (*OWNER_OF, "EVENTS", "INGRESS", "DLQ")

Who = frozenset[str]
NOBODY: Who = frozenset()


def only(*names: str) -> Who:
    return frozenset(names)


def readers(stream: str, consumer: str) -> Who:
    """Who may read a stream under a consumer's name: each owner its intents, each service the events under its own name,
    the gateway what comes from outside, the events and the dead letters."""
    if stream == "EVENTS":
        return only(GATEWAY, *(service for service in SERVICES if service == consumer))
    return only(GATEWAY) if stream in ("INGRESS", "DLQ") else only(OWNER_OF[stream])


def users_of(stream: str) -> Who:
    """Who may look at a stream, and make it where it is missing."""
    if stream in ("EVENTS", "DLQ"):
        return only(*SERVICES)
    return only(GATEWAY, *([OWNER_OF[stream]] if stream in OWNER_OF else []))


def publishing() -> Iterator[tuple[str, Who]]:
    """Subject → who may publish there."""
    for kind in KINDS.values():
        yield f"lablet.event.acme.{kind.name}.east.x", only(kind.owner)
    yield "lablet.event.acme.scaling.east.x", only(WORKERS)
    yield "lablet.event.acme.anything.east.x", NOBODY
    for service in SERVICES:
        yield f"lablet.intent.{service}.east.worker.w", only(GATEWAY)
        yield f"lablet.dlq.{service}.c", only(service)
        yield f"{inbox_prefix(service)}.x", NOBODY
    yield "lablet.ingress.acme.reservation", only(GATEWAY, LMS)
    yield "lablet.ingress.other.reservation", only(GATEWAY, OTHER_LMS)
    yield "lablet.ingress-result.acme", only(GATEWAY)
    yield "lablet.agent-work.east-001.start", only(WORKERS)
    yield "lablet.agent-work.east-001.output", only(WORKERS, GATEWAY)
    yield "lablet.agent.east-001.report", only(AGENT)
    yield "lablet.agent.east-001.reply.worker-controller.1.1", only(AGENT)
    yield "lablet.agent.east-002.report", only(OTHER_AGENT)
    yield "lablet.anything", NOBODY
    for general in (
        "INFO",
        "STREAM.NAMES",
        "STREAM.LIST",
        "STREAM.CREATE.MINE",
        "ACCOUNT.PURGE.A",
        "META.LEADER.STEPDOWN",
    ):
        yield f"$JS.API.{general}", NOBODY
    yield "$SYS.REQ.SERVER.PING", NOBODY
    for stream in STREAMS:
        yield from managing(stream)


def managing(stream: str) -> Iterator[tuple[str, Who]]:
    """The questions and orders that a server takes about one stream."""
    dead_letters = only(GATEWAY) if stream == "DLQ" else NOBODY
    ranges = only(GATEWAY) if stream in ("EVENTS", "DLQ") else NOBODY
    rights = {
        "STREAM.INFO": users_of(stream),
        "STREAM.CREATE": users_of(stream),
        "STREAM.UPDATE": only(GATEWAY, *([OWNER_OF[stream]] if stream in OWNER_OF else [])),
        "STREAM.DELETE": NOBODY,
        "STREAM.PURGE": dead_letters,
        "STREAM.MSG.GET": dead_letters,
        "STREAM.MSG.DELETE": dead_letters,
        "STREAM.SNAPSHOT": NOBODY,
        "STREAM.RESTORE": NOBODY,
        "STREAM.PEER.REMOVE": NOBODY,
        "STREAM.LEADER.STEPDOWN": NOBODY,
        "CONSUMER.NAMES": NOBODY,
        "CONSUMER.LIST": NOBODY,
        "CONSUMER.CREATE": ranges,
        "DIRECT.GET": ranges,
    }
    for order, who in rights.items():
        yield f"$JS.API.{order}.{stream}", who
    for consumer in (*SERVICES, "east"):
        may = readers(stream, consumer)
        for order in ("CREATE", "DURABLE.CREATE", "INFO", "DELETE", "MSG.NEXT"):
            yield f"$JS.API.CONSUMER.{order}.{stream}.{consumer}", may
        for order in ("PAUSE", "LEADER.STEPDOWN", "UNPIN"):
            yield f"$JS.API.CONSUMER.{order}.{stream}.{consumer}", NOBODY
        yield f"$JS.ACK.{stream}.{consumer}.1.1.1.1.0", may
        yield f"$JS.ACK._._.{stream}.{consumer}.1.1.1.1.0.r", may


def subscribing() -> Iterator[tuple[str, Who]]:
    """Subject or pattern → who may hear it."""
    yield "lablet.event.>", only(*SERVICES)
    yield "lablet.event.acme.reservation.east.r", only(*SERVICES, LMS)
    yield "lablet.event.acme.>", only(*SERVICES, LMS)
    yield "lablet.event.other.>", only(*SERVICES, OTHER_LMS)
    for service in SERVICES:
        yield f"lablet.intent.{service}.>", NOBODY
        yield f"lablet.dlq.{service}.>", only(GATEWAY)
        yield f"lablet.agent.*.reply.{service}.>", only(WORKERS, *([GATEWAY] if service == GATEWAY else []))
    yield "lablet.intent.>", NOBODY
    yield "lablet.dlq.>", only(GATEWAY)
    yield "lablet.ingress.>", NOBODY
    yield "lablet.ingress.acme.>", NOBODY
    yield "lablet.ingress-result.>", NOBODY
    yield "lablet.ingress-result.acme", only(LMS)
    yield "lablet.ingress-result.other", only(OTHER_LMS)
    yield "lablet.agent.>", only(WORKERS)
    yield "lablet.agent.east-001.report", only(WORKERS)
    yield "lablet.agent-work.>", NOBODY
    yield "lablet.agent-work.east-001.>", only(AGENT)
    yield "lablet.agent-work.east-002.start", only(OTHER_AGENT)
    for user in NAMES:
        yield f"{inbox_prefix(user)}.>", only(user)
        yield f"{inbox_prefix(user)}.answer.1", only(user)
    for wide in (
        ">",
        "*",
        "lablet.>",
        "lablet.*.>",
        "_INBOX.>",
        "*.>",
        "$JS.>",
        "$JS.API.>",
        "$JS.ACK.>",
        "$JS.EVENT.>",
        "$SYS.>",
    ):
        yield wide, NOBODY


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer.start(tmp_path_factory.mktemp("nats"), users=USERS, sync_always=False) as server:
        yield server


@pytest.mark.parametrize("user", NAMES)
async def test_a_user_publishes_where_it_must_and_nowhere_else(guarded: NatsServer, user: str) -> None:
    rights = dict(publishing())
    async with Tries(guarded.url, user, "pw") as tries:
        refused = await tries.publish(*rights)
    beyond = {subject for subject, who in rights.items() if user not in who}
    assert len(beyond) > 300
    assert sorted(beyond - refused) == [], f"{user} may publish to what is not its own"
    assert sorted(refused - beyond) == [], f"{user} may not publish to what it must"


@pytest.mark.parametrize("queue", ["", "helpers"], ids=["alone", "in a queue"])
@pytest.mark.parametrize("user", NAMES)
async def test_a_user_hears_what_it_must_and_nothing_else(guarded: NatsServer, user: str, queue: str) -> None:
    rights = dict(subscribing())
    async with Tries(guarded.url, user, "pw") as tries:
        refused = await tries.subscribe(*rights, queue=queue)
    beyond = {pattern for pattern, who in rights.items() if user not in who}
    assert len(beyond) > 30
    assert sorted(beyond - refused) == [], f"{user} hears what is not its own"
    assert sorted(refused - beyond) == [], f"{user} does not hear what it must"


def test_the_tries_reach_every_kind_and_every_stream() -> None:
    """What is added to the tables of kinds and streams is tried too."""
    from lablet_common.bus.streams import DLQ, EVENTS, INGRESS, INTENTS

    assert set(STREAMS) == {stream.name for stream in (EVENTS, INGRESS, DLQ, *INTENTS.values())}
    assert set(SERVICES) == set(Service)
