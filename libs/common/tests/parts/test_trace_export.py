"""With an endpoint set, spans go to a collector over OTLP/HTTP, with who sent them; tried in a process of its own, as the
provider of a process is set once."""

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PROGRAM = """
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from lablet_common.settings import TelemetrySettings
from lablet_common.telemetry.spans import calling, continuing
from lablet_common.telemetry.traces import configure_tracing

trace_exporter.encode_spans = None  # the encoder of the SDK's exporter, more than twice as slow as ours
provider = configure_tracing(TelemetrySettings(), "scheduler", "scheduler-7")
with continuing("decide", None, {"lablet.subject": "reservation/rsv-1"}), calling("Txn etcd", {}):
    pass
if provider is not None:
    provider.shutdown()
print(provider is not None)
"""


class Collector(HTTPServer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, ExportTraceServiceRequest]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        message = ExportTraceServiceRequest()
        message.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.server, Collector)
        self.server.sent.append((self.path, message))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the server's own name
        """Says nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def traced(**settings: str) -> str:
    known = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=known | settings, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_spans_go_to_the_collector_that_is_named(collector: Collector) -> None:
    assert traced(OTEL_EXPORTER_OTLP_ENDPOINT=f"{collector.url}/") == "True"
    ((path, message),) = collector.sent
    assert path == "/v1/traces"
    (group,) = message.resource_spans
    told = {one.key: one.value.string_value for one in group.resource.attributes}
    assert (told["service.name"], told["service.instance.id"]) == ("scheduler", "scheduler-7")
    names = {span.name for scope in group.scope_spans for span in scope.spans}
    assert names == {"decide", "Txn etcd"}


def test_what_is_not_sampled_is_not_sent_and_without_an_endpoint_there_is_nothing(collector: Collector) -> None:
    assert traced(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_TRACES_SAMPLER="always_off") == "True"
    assert traced() == "False"
    assert not collector.sent
