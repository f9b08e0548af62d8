"""Every reader of strangers' bytes, with good examples and with the refusals that it promises.

A reader may return or refuse; anything else is a defect, and so is a refusal without words. What lies behind a reader and
takes what it returns stands in the same target: a lab file that was read is sized and rendered.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from lablet_artifacts.manifests import read_manifest
from lablet_artifacts.topology import LabFileError, find_ports, infer_requirements, read_topology, render
from lablet_client.cli.times import WrongTime, parse_span, parse_time
from lablet_common.events.binding import InvalidEvent, decode, encode
from lablet_common.intents import INTENTS, ReservationCreate
from lablet_common.process_lab import ProcessLab
from lablet_common.recurrence import InvalidRecurrence, occurrences
from lablet_common.resources.kinds import RESERVATION
from lablet_common.store.repository import InvalidCursor, read_cursor
from lablet_common.store.selectors import FieldSelector, LabelSelector, SelectorError
from lablet_common.terms import SeriesCreate
from lablet_gateway import envelopes
from lablet_gateway.problems import Refused


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    examples: Sequence[bytes]
    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    """Errors that are an answer."""
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


def _headers(case: bytes) -> tuple[dict[str, str], bytes]:
    """Lines of headers, an empty line, the body."""
    head, _, body = case.partition(b"\n\n")
    pairs = (line.partition(":") for line in head.decode("utf-8", "surrogateescape").split("\n"))
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}, body


def _nats(case: bytes) -> object:
    headers, body = _headers(case)
    return _again(decode(headers, body))


def _again(event: object) -> object:
    """What was read can be written, unless the writer says why not."""
    return encode(event)  # type: ignore[arg-type]  # the SDK's class is not exported


def _http(case: bytes) -> object:
    headers, body = _headers(case)
    return envelopes.read(headers, body)


def _lab(case: bytes) -> object:
    topology = read_topology(case)
    ports = {port.name: 2000 + number for number, port in enumerate(find_ports(topology))}
    return infer_requirements(topology), render(case, ports)


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda case: read(case.decode("utf-8", "replace"))


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
    types = sorted(INTENTS)
    return INTENTS[types[sum(kind) % len(types)]].body.model_validate_json(body)


def _lists(values: Iterable[object]) -> tuple[bytes, ...]:
    return tuple(json.dumps(value).encode() for value in values)


_RULES = (
    b"FREQ=WEEKLY;BYDAY=MO,WE;COUNT=10", b"FREQ=DAILY;UNTIL=20270401T000000Z\nEurope/Stockholm\n2027-03-02",
    b"RRULE:FREQ=MONTHLY;BYDAY=-1FR;COUNT=6\nAsia/Tokyo", b"FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;COUNT=3",
)  # fmt: skip
_BODIES = _lists([
    {"definition": "ospf-basics", "seats": 2, "start": "2027-03-02T09:00:00Z", "durationMinutes": 60, "labels": {"a": "b"}},
    {"definition": "a@1.0.0", "asap": True, "durationMinutes": 30, "pools": ["x", "y"], "workerSelector": {"zone": "1"}},
    {"definition": "a", "start": "2027-03-02T09:00:00Z", "end": "2027-03-02T11:00:00+01:00", "priority": 3,
     "roster": [{"seat": 1, "user": "learner-1"}], "hold": {"expiresAt": "2027-03-02T08:00:00Z"}},
])  # fmt: skip
_TERMS = _lists([
    {"definition": "ospf-basics", "seats": 2, "start": "2027-03-02T09:00:00Z", "durationMinutes": 60,
     "timezone": "Europe/Paris", "rule": "FREQ=WEEKLY;COUNT=4", "exceptDates": ["2027-03-09"], "mode": "fits"},
])  # fmt: skip

TARGETS: tuple[Target, ...] = (
    Target("nats-event", (_HEADERS + b"\n\n" + _DATA, b"Content-Type: application/cloudevents+json\n\n" + _STRUCTURED,
                          b"content-type: application/cloudevents+json; charset=utf-8\n\n" + _BASE64),
           _nats, (InvalidEvent,), 8),
    Target("http-events", (_HEADERS + b"\nContent-Type: application/json\n\n" + _DATA,
                           b"Content-Type: application/cloudevents+json\n\n" + _STRUCTURED,
                           b"Content-Type: application/cloudevents-batch+json\n\n[" + _STRUCTURED + b"," + _BASE64 + b"]"),
           _http, (Refused,), 8),
    Target("lab-file", (_LAB,), _lab, (LabFileError,), 2),
    Target("manifest", (_MANIFEST,), read_manifest, (LabFileError,), 2),
    Target("seat-manifest", (json.dumps({"kind": "ProcessLab", "nodes": [{"name": "a", "command": ["true"]}]}).encode(),),
           ProcessLab.model_validate_json, (ValidationError,), 4),
    Target("label-selector", (b"a=b", b"course in (ccna-1, b),!x,group!=c", b"a==b,c notin (d)", b"a"),
           _text(_selector), (SelectorError,), 8),
    Target("field-selector", (b"status.phase=Scheduled", b"metadata.labels.course!=x,spec.seats=2",
                              b"status.placement.worker=a"),
           _text(_fields), (SelectorError,), 8),
    Target("rule", _RULES, _text(_rule), (InvalidRecurrence,), 6),
    Target("cursor", (b"WzEyMywgIi9yZXNlcnZhdGlvbnMvcnN2LTEiXQ", b"WzEsICIvcmVzZXJ2YXRpb25zLyJd"),
           _text(lambda text: read_cursor(text, "/reservations/")), (InvalidCursor,), 6),
    Target("reservation-body", _BODIES, ReservationCreate.model_validate_json, (ValidationError,), 8),
    Target("series-body", _TERMS, SeriesCreate.model_validate_json, (ValidationError,), 6),
    Target("intent-body", tuple(bytes([65 + n]) + b"\n" + body for n, body in enumerate((*_BODIES, *_TERMS, b"{}"))),
           _intent, (ValidationError,), 8),
    Target("time", (b"tomorrow 09:00", b"in 2h", b"2027-03-02T09:00", b"+90m", b"Tue 9:00"),
           _text(lambda text: parse_time(text, _NOW, UTC)), (WrongTime,), 6),
    Target("span", (b"2h", b"90m", b"1h30m", b"2 hours"), _text(parse_span), (WrongTime,), 6),
)  # fmt: skip
"""One for each way in."""
