"""Looking for planted secrets wherever something is kept or told, in whatever bytes it is kept: for tests."""

import base64
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_SHORTEST = 16
"""Characters; what is shorter may be there by chance."""


def ways_to_write(secret: str) -> tuple[bytes, ...]:
    """The secret as it is, and as base64 would hide it whatever stands before it."""
    plain = secret.encode()
    hidden = []
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + plain)
        hidden.append(encoded[4 if before else 0 :].rstrip(b"=")[:-2])
    return (plain, *hidden)


def found_in(secrets: Mapping[str, str], places: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """What was found where, by name. Raises `ValueError` for a secret that is too short to look for."""
    for what, secret in secrets.items():
        if len(secret) < _SHORTEST:
            raise ValueError(f"{what} is too short to look for")
    wanted = {what: ways_to_write(secret) for what, secret in secrets.items()}
    return [
        (what, place)
        for place, content in places.items()
        for what, ways in wanted.items()
        if any(way in content for way in ways)
    ]


def files_below(folder: Path, leaving_out: Sequence[str] = ()) -> Iterator[tuple[str, bytes]]:
    """Every file as it lies on the disk, by its path below the folder; without those that match one of the patterns, and
    without the zeros at the end of those that were made longer than they are."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(name.match(pattern) or _below(name, pattern) for pattern in leaving_out):
            yield str(name), path.read_bytes().rstrip(b"\0")


def spans_in(exported: Iterable[bytes]) -> dict[str, bytes]:
    """What was sent to a collector (OTLP, protobuf), by what of a span it is, and as a whole as it came over the wire."""
    found: dict[str, list[bytes]] = defaultdict(list)
    for body in exported:
        found["spans"].append(body)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            found["resources of spans"].append(group.resource.SerializeToString())
            for span in (span for scope in group.scope_spans for span in scope.spans):
                found["names of spans"].append(span.name.encode())
                found["statuses of spans"].append(span.status.message.encode())
                found["attributes of spans"] += [one.SerializeToString() for one in span.attributes]
                found["events of spans"] += [one.SerializeToString() for one in span.events]
                found["links of spans"] += [one.SerializeToString() for one in span.links]
    return {what: b"\n".join(dict.fromkeys(parts)) for what, parts in found.items()}


def _below(name: Path, pattern: str) -> bool:
    return any(parent.match(pattern) for parent in name.parents if parent != Path())
