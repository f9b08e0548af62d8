"""Every reader of strangers' bytes, with good examples and with the refusals that it promises.

A reader may return or refuse; anything else is a defect, and so is a refusal without words. What lies behind a reader and
takes what it returns stands in the same target: a lab file that was read is sized and rendered.
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from lablet_artifacts.manifests import read_manifest
from lablet_artifacts.topology import LabFileError, find_ports, infer_requirements, read_topology, render
from lablet_client.cli.times import WrongTime, parse_span, parse_time
from lablet_common.agents import Answer, Heartbeat, LabRecord, Piece, worker_of
from lablet_common.events import CloudEvent
from lablet_common.events.binding import InvalidEvent, decode, encode, encode_structured
from lablet_common.events.reading import data_of
from lablet_common.intents import INTENTS, ReservationCreate, SimulationCreate
from lablet_common.loads import Load
from lablet_common.process_lab import ProcessLab
from lablet_common.recurrence import InvalidRecurrence, occurrences
from lablet_common.resources.kinds import RESERVATION
from lablet_common.store.repository import InvalidCursor, read_cursor
from lablet_common.store.selectors import FieldSelector, LabelSelector, SelectorError
from lablet_common.telemetry.traces import context_of
from lablet_common.terms import SeriesCreate
from lablet_gateway import answers, archive, envelopes, seats, topologies
from lablet_gateway.api.audit import read_cursor as read_audit_cursor
from lablet_gateway.api.definitions import read_overrides
from lablet_gateway.eventlog import Bounds
from lablet_gateway.identity.oidc import peek
from lablet_gateway.problems import Refused
from lablet_gateway.streams import read_id
from lablet_gateway.webhooks.addresses import SinkRefused, check_url
from lablet_gateway.webhooks.sender import answer_of
from lablet_local.fuzz import bodies


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    examples: Sequence[bytes]
    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    """Errors that are an answer."""
    body: Any = None
    """What a route of the API says that it takes, where the target reads that."""
    routes: Sequence[str] = ()
    """Routes of the API that read their body themselves, and this way: `POST /events`."""
    share: int = 1
    """How many cases it gets, in proportion to the others: the slow readers get fewer."""


_NOW = datetime(2027, 3, 1, 9, tzinfo=UTC)
_EVENT = {
    "specversion": "1.0", "id": "a-1", "source": "/lms/course", "type": "io.lablet.reservation.requested.v1",
    "subject": "reservation/rsv-1", "time": "2027-03-01T07:00:00Z", "datacontenttype": "application/json",
    "correlationid": "c-1", "data": {"definition": "ospf-basics", "seats": 2, "start": "2027-03-02T09:00:00Z",
                                     "durationMinutes": 60},
}  # fmt: skip
_HEADERS = "\n".join(f"ce-{name}: {value}" for name, value in _EVENT.items() if name != "data").encode()
_DATA = json.dumps(_EVENT["data"]).encode()
_STRUCTURED = json.dumps(_EVENT).encode()
_BASE64 = json.dumps({**{k: v for k, v in _EVENT.items() if k != "data"}, "data_base64": "aGVsbG8="}).encode()
_LAB = b"""lab:
  title: Two routers
  version: "0.3.0"
  description: ${PORT_R1}
nodes:
  - id: n0
    label: r1
    node_definition: iol-xe
    x: 0
    y: 0
    tags: ["serial:2000", "pat:${PORT_WEB}"]
    configuration: |-
      hostname r1
    interfaces:
      - {id: i0, label: Ethernet0/0, slot: 0, type: physical}
  - id: n1
    label: r2
    node_definition: iol-xe
    x: 1
    y: 1
    interfaces:
      - {id: i0, label: Ethernet0/0, slot: 0, type: physical}
links:
  - {id: l0, n1: n0, i1: i0, n2: n1, i2: i0}
smart_annotations:
  - {tag: "web ${PORT_WEB}", label: "at ${PORT_WEB}"}
"""
_MANIFEST = b"""kind: ProcessLab
title: A web server
nodes:
  - name: web
    command: [python3, -m, http.server, "${PORT_HTTP}"]
    env: {GREETING: hello}
    ports: [{name: http, protocol: http}]
    resources: {cpu: 0.5, memory: 64Mi}
    health: {http: {port: http, path: /}, interval: 2s}
    restart: on-failure
  - name: after
    command: echo done
    dependsOn: [web]
until: completed
"""


def _headers(case: bytes, *encoding: str) -> tuple[dict[str, str], bytes]:
    """Lines of headers, an empty line, the body."""
    head, _, body = case.partition(b"\n\n")
    pairs = (line.partition(":") for line in head.decode(*encoding).split("\n"))
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}, body


def _nats(case: bytes) -> object:
    headers, body = _headers(case, "utf-8", "replace")
    event = decode(headers, body)
    _looked_into(event)
    return encode(event)


def _looked_into(event: CloudEvent) -> None:
    """As consumers do; and written for listeners, unless the writer says why not."""
    for look in (data_of, encode_structured):
        with suppress(InvalidEvent):
            look(event)


def _http(case: bytes) -> object:
    headers, body = _headers(case, "latin-1")
    inbound, is_batch = envelopes.read(headers, body)
    for one in inbound:
        if one.event is not None:
            _looked_into(one.event)
    return is_batch


def _lab(case: bytes) -> object:
    topology = read_topology(case)
    topologies.graph_of(topologies.parsed(case))
    ports = {port.name: 2000 + number for number, port in enumerate(find_ports(topology))}
    return infer_requirements(topology), render(case, ports)


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda case: read(case.decode("utf-8", "replace"))


def _latin(read: Callable[[str], object]) -> Callable[[bytes], object]:
    """As headers are read."""
    return lambda case: read(case.decode("latin-1"))


def _rule(text: str) -> object:
    rule, _, rest = text.partition("\n")
    zone, _, dates = rest.partition("\n")
    return occurrences(rule, zone or "Europe/Stockholm", _NOW, [date for date in dates.split(",") if date])


def _selector(text: str) -> object:
    return LabelSelector.parse(text).matches_labels({"course": "ccna-1", "group": "a"})


def _fields(text: str) -> object:
    return FieldSelector.parse(text, RESERVATION.model)


def _intent(case: bytes) -> object:
    kind, _, body = case.partition(b"\n")
    return _INTENTS[sum(kind) % len(_INTENTS)](body)


def _heartbeat(case: bytes) -> object:
    subject, _, beat = case.partition(b"\n")
    return worker_of(f"lablet.agent.{subject.decode('latin-1')}.heartbeat"), Heartbeat.model_validate_json(beat)


def _answer(case: bytes) -> object:
    """The message, and what is made of it by whoever has asked."""
    data = Answer.model_validate_json(case).data
    for model in (Load, Piece, LabRecord):
        with suppress(ValidationError):
            model.model_validate(data, extra="ignore")
    return data


def _sink_says(case: bytes) -> object:
    status, _, rest = case.decode("utf-8", "replace").partition("\n")
    after, _, text = rest.partition("\n")
    return answer_of(sum(status.encode()) % 600, {"Retry-After": after, "Location": after}, text)


def _lists(values: Iterable[object]) -> tuple[bytes, ...]:
    return tuple(json.dumps(value).encode() for value in values)


def _of_body(body: Any) -> Target:
    share = 4 if body in _OFTEN else 2
    return Target(
        bodies.name_of(body), _lists(bodies.BODIES[body]), bodies.reader(body), bodies.REFUSALS, body, share=share
    )


_RULES = (
    b"FREQ=WEEKLY;BYDAY=MO,WE;COUNT=10", b"FREQ=DAILY;UNTIL=20270401T000000Z\nEurope/Stockholm\n2027-03-02",
    b"RRULE:FREQ=MONTHLY;BYDAY=-1FR;COUNT=6\nAsia/Tokyo", b"FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;COUNT=3",
)  # fmt: skip
_BODIES, _TERMS = _lists(bodies.RESERVATIONS), _lists(bodies.TERMS)
_OFTEN = (ReservationCreate, SeriesCreate, SimulationCreate)
_OVERRIDES = _lists([{"name": "a", "version": "1.0.0", "description": "Two routers", "requirements": {"cpuCores": 2}}])
_BEAT = json.dumps(
    {"epoch": "e" * 8, "number": 3, "first": True, "host": "10.0.0.5", "usage": {"cpuCores": 0.5}}
).encode()
_USED = {"used": 1, "total": 2}
_ANSWERS = _lists([
    {"data": {"cpuCores": _USED, "memoryGb": _USED, "storageGb": _USED, "nodes": 3}},
    {"fault": "missing", "message": "no lab"},
    {"data": {"start": 4, "data": "aGVsbG8=", "over": False}},
    {"data": {"phase": "running", "stopped": False, "ends": True, "exit_code": None,
              "nodes": [{"name": "web", "phase": "RUNNING", "exit_code": None, "restarts": 0, "message": ""}]}},
])  # fmt: skip
_TOKEN = b".".join(
    urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
    for part in (
        {"alg": "RS256", "kid": "k-1"},
        {"iss": "https://id.example.org", "sub": "ann", "exp": 1_800_000_000},
        {},
    )
)
_INTENTS = [bodies.reader(INTENTS[name].body) for name in sorted(INTENTS)]
_LOG = Bounds("m1", 1, 500)

TARGETS: tuple[Target, ...] = (
    Target("nats-event", (_HEADERS + b"\n\n" + _DATA, b"Content-Type: application/cloudevents+json\n\n" + _STRUCTURED,
                          b"content-type: application/cloudevents+json; charset=utf-8\n\n" + _BASE64),
           _nats, (InvalidEvent,), share=8),
    Target("http-events", (_HEADERS + b"\nContent-Type: application/json\n\n" + _DATA,
                           b"Content-Type: application/cloudevents+json\n\n" + _STRUCTURED,
                           b"Content-Type: application/cloudevents-batch+json\n\n[" + _STRUCTURED + b"," + _BASE64 + b"]"),
           _http, (Refused,), routes=("POST /events",), share=8),
    Target("lab-file", (_LAB,), _lab, (LabFileError,), routes=("POST /definitions",), share=2),
    Target("overrides", _OVERRIDES, read_overrides, (Refused,), routes=("POST /definitions",), share=4),
    Target("manifest", (_MANIFEST,), read_manifest, (LabFileError,), share=2),
    Target("seat-manifest", (json.dumps({"kind": "ProcessLab", "nodes": [{"name": "a", "command": ["true"]}]}).encode(),),
           ProcessLab.model_validate_json, (ValidationError,), share=4),
    Target("label-selector", (b"a=b", b"course in (ccna-1, b),!x,group!=c", b"a==b,c notin (d)", b"a"),
           _text(_selector), (SelectorError,), share=8),
    Target("field-selector", (b"status.phase=Scheduled", b"metadata.labels.course!=x,spec.seats=2",
                              b"status.placement.worker=a"),
           _text(_fields), (SelectorError,), share=8),
    Target("rule", _RULES, _text(_rule), (InvalidRecurrence,), share=6),
    Target("cursor", (b"WzEyMywgIi9yZXNlcnZhdGlvbnMvcnN2LTEiXQ", b"WzEsICIvcmVzZXJ2YXRpb25zLyJd"),
           _text(lambda text: read_cursor(text, "/reservations/")), (InvalidCursor,), share=6),
    Target("archive-cursor", (b"WyIyMDI3LTAzLTAxIiwgInJzdi0xIl0",), _text(archive.read_cursor), (Refused,), share=4),
    Target("audit-cursor", (b"m1-17", b"m1-500"), _text(lambda text: read_audit_cursor(text, _LOG)), (Refused,), share=4),
    Target("last-event-id", (b"m1-17", b"1772348400000000-17"), _latin(read_id), (), share=2),
    Target("prefer", (b"wait=10", b'respond-async, wait="2.5"'), _latin(lambda text: answers.wait_of(text, 30.0)), (),
           share=2),
    Target("claim-code", (b"ab12-" + b"a" * 32,), _text(seats.reservation_of), (), share=2),
    Target("token", (_TOKEN,), _latin(peek), (), share=4),
    Target("traceparent", (b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01",), _latin(context_of), (), share=2),
    Target("sink", (b"https://lms.example.org:8443/events", b"http://[2001:db8::1]/x?y=z"), _text(check_url),
           (SinkRefused,), share=4),
    Target("sink-answer", (b"a\n120\nbusy", b"b\nhttps://elsewhere.example.org\n"), _sink_says, (), share=2),
    Target("agent-heartbeat", (b"host-1\n" + _BEAT, b"host%2D1\n" + _BEAT), _heartbeat, (ValueError,), share=4),
    Target("agent-answer", _ANSWERS, _answer, (ValidationError,), share=4),
    *map(_of_body, bodies.BODIES),
    Target("intent-body", tuple(bytes([65 + n]) + b"\n" + body for n, body in enumerate((*_BODIES, *_TERMS, b"{}"))),
           _intent, bodies.REFUSALS, share=8),
    Target("time", (b"tomorrow 09:00", b"in 2h", b"2027-03-02T09:00", b"+90m", b"Tue 9:00"),
           _text(lambda text: parse_time(text, _NOW, UTC)), (WrongTime,), share=6),
    Target("span", (b"2h", b"90m", b"1h30m", b"2 hours"), _text(parse_span), (WrongTime,), share=6),
)  # fmt: skip
"""One for each way in: a test walks the routes of the API and asks for those of their bodies."""
