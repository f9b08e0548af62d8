"""The search for planted secrets finds what is there."""

import base64
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from lablet_common.testing.planted import files_below, found_in, spans_in

SECRET = "whsec_0123456789abcdefghijklmnop"


@pytest.mark.parametrize("before", [b"", b"x", b"xy", b"xyz"])
@pytest.mark.parametrize("after", [b"", b"x", b"xy"])
def test_a_secret_is_found_in_clear_and_in_base64_wherever_it_stands(before: bytes, after: bytes) -> None:
    content = before + SECRET.encode() + after
    for place in (content, base64.b64encode(content), b"\0\xff" + base64.b64encode(content) + b"\n"):
        assert found_in({"hook": SECRET}, {"log": place}) == [("hook", "log")]
    assert found_in({"hook": SECRET}, {"log": before + SECRET[:-1].encode()}) == []


def test_a_secret_that_is_too_short_is_not_looked_for() -> None:
    with pytest.raises(ValueError, match="hook is too short"):
        found_in({"hook": "secret"}, {})


def test_every_file_is_read_but_those_left_out(tmp_path: Path) -> None:
    for name in ("a.log", "secrets/key", "deep/er/data.blk", "nats/nats.conf", "nats/store/1.blk"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    found = dict(files_below(tmp_path, ["secrets", "nats/*.conf"]))
    assert sorted(found) == ["a.log", "deep/er/data.blk", "nats/store/1.blk"]
    assert found["a.log"] == b"a.log"


@pytest.mark.parametrize("where", ["resources", "names", "statuses", "attributes", "events", "links"])
def test_a_secret_is_found_wherever_a_span_may_have_it(where: str) -> None:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    span = group.scope_spans.add().spans.add(name=SECRET if where == "names" else "GET")
    span.status.message = f"refused: {SECRET}" if where == "statuses" else "refused"
    kept = {"resources": group.resource, "attributes": span, "events": span.events.add(), "links": span.links.add()}
    for name, keeper in kept.items():
        value = keeper.attributes.add(key="said").value.array_value.values.add()
        value.string_value = f"by {SECRET}" if name == where else "nothing"
    found = found_in(
        {"hook": SECRET}, spans_in([ExportTraceServiceRequest().SerializeToString(), request.SerializeToString()])
    )
    assert set(found) == {("hook", f"{where} of spans"), ("hook", "spans")}
