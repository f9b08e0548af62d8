"""A small store of recent spans, so that a trace can be shown without any further server: `python -m lablet_local.spans`.

Services send OTLP over HTTP (`POST /v1/traces`, protobuf). `GET /traces/<trace id>` gives that trace and every trace with a
span that links into it: the story of what began there. Kept in memory, the latest `SPANS_KEPT` of them; a restart begins
anew.
"""

import os
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from typing import Any

import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

KEPT = 20_000
Json = dict[str, Any]
_KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
_ERROR = 2
_MOST = 2_000
"""Spans that one answer has at most."""


class SpanStore:
    """The latest spans, found by trace and by link."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._spans: OrderedDict[tuple[str, str], Json] = OrderedDict()
        self._of_trace: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._linking: dict[str, dict[str, None]] = defaultdict(dict)
        """Trace → the traces with a link into it, in the order in which they were told."""

    def __len__(self) -> int:
        return len(self._spans)

    def take(self, request: ExportTraceServiceRequest) -> None:
        for span in spans_of(request):
            key = (span["traceId"], span["spanId"])
            if key in self._spans:
                continue
            self._spans[key] = span
            self._of_trace[span["traceId"]].append(key)
            for link in span["links"]:
                self._linking[link["traceId"]][span["traceId"]] = None
        while len(self._spans) > self._kept:
            self._forget()

    def story(self, trace: str) -> list[Json]:
        """The trace and those that link into it, by their begin."""
        traces = [trace, *(other for other in self._linking.get(trace, ()) if other != trace)]
        found = [self._spans[key] for one in traces for key in self._of_trace.get(one, ())]
        return sorted(found, key=lambda span: int(span["start"]))[:_MOST]

    def _forget(self) -> None:
        (trace, _), span = self._spans.popitem(last=False)
        keys = self._of_trace[trace]
        keys.pop(0)
        if not keys:
            del self._of_trace[trace]
            for link in span["links"]:
                self._linking.get(link["traceId"], {}).pop(trace, None)
            self._linking.pop(trace, None)


def spans_of(request: ExportTraceServiceRequest) -> Iterable[Json]:
    """Plain values; times are unix nanoseconds."""
    for group in request.resource_spans:
        resource = {one.key: _value(one.value) for one in group.resource.attributes}
        for scope in group.scope_spans:
            for span in scope.spans:
                yield {
                    "traceId": span.trace_id.hex(),
                    "spanId": span.span_id.hex(),
                    "parentId": span.parent_span_id.hex() or None,
                    "name": span.name,
                    "kind": _KINDS.get(span.kind, "internal"),
                    "service": str(resource.get("service.name", "")),
                    "replica": str(resource.get("service.instance.id", "")),
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "error": span.status.code == _ERROR,
                    "attributes": {one.key: _value(one.value) for one in span.attributes},
                    "links": [{"traceId": one.trace_id.hex(), "spanId": one.span_id.hex()} for one in span.links],
                }


def _value(value: Any) -> Any:
    chosen = value.WhichOneof("value")
    if chosen in ("string_value", "bool_value", "int_value", "double_value"):
        return getattr(value, chosen)
    return str(value) if chosen else None


def create_app(store: SpanStore) -> Starlette:
    async def take(request: Request) -> Response:
        message = ExportTraceServiceRequest()
        message.ParseFromString(await request.body())
        store.take(message)
        return Response(ExportTraceServiceResponse().SerializeToString(), media_type="application/x-protobuf")

    async def story(request: Request) -> Response:
        return JSONResponse({"spans": store.story(request.path_params["trace"])})

    async def healthy(_: Request) -> Response:
        return JSONResponse({"spans": len(store)})

    return Starlette(
        routes=[
            Route("/v1/traces", take, methods=["POST"]),
            Route("/traces/{trace}", story),
            Route("/healthz", healthy),
        ]
    )


def main() -> None:
    port = int(os.environ["SPANS_PORT"])
    store = SpanStore(int(os.environ.get("SPANS_KEPT", KEPT)))
    uvicorn.run(create_app(store), host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
