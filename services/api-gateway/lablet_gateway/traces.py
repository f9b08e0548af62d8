"""The story of a reservation as spans: the trace of its request, and every trace that links into it, from the span store.

The store is one of the local mesh (`TRACE_STORE_URL`), or anything that answers `GET /traces/<id>` in the same way.
"""

from typing import Any

import httpx
from pydantic import ValidationError

from lablet_common.resources.model import Model
from lablet_common.resources.reservation import Reservation
from lablet_common.telemetry.traces import context_of
from lablet_gateway import problems
from lablet_gateway.parts import Parts

_SECONDS = 3.0


class SpanLink(Model):
    trace_id: str
    span_id: str


class TraceSpan(Model):
    """One span; `start` and `end` are real time, in unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str | None = None
    name: str
    kind: str
    service: str
    replica: str = ""
    start: int
    end: int
    error: bool = False
    attributes: dict[str, Any] = {}
    links: tuple[SpanLink, ...] = ()


class ReservationTrace(Model):
    """Spans by their begin. None where the request was not sampled or lies too far back."""

    reservation: str
    trace_id: str | None = None
    spans: tuple[TraceSpan, ...] = ()


async def of_reservation(parts: Parts, reservation: Reservation) -> ReservationTrace:
    """Raises 404 where no span store is configured, 503 where it does not answer."""
    url = parts.settings.trace_store_url
    if url is None:
        raise problems.NO_TRACES("no span store is configured: set TRACE_STORE_URL, or look in your collector")
    origin = context_of(reservation.metadata.trace_parent)
    if origin is None:
        return ReservationTrace(reservation=reservation.id)
    trace = f"{origin.trace_id:032x}"
    try:
        async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False) as http:
            answer = await http.get(f"{url.rstrip('/')}/traces/{trace}")
            answer.raise_for_status()
            told = answer.json()
        return ReservationTrace(reservation=reservation.id, trace_id=trace, spans=told["spans"])
    except (httpx.HTTPError, ValidationError, ValueError, KeyError) as error:
        raise problems.UNAVAILABLE(f"the span store does not answer: {error}") from error
