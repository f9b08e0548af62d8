"""Every way in which the API says no: problem details (RFC 9457) with stable types.

A `Refused` carries a finished problem; whatever raises it need know nothing of HTTP beyond the status. The list of
types is closed and documented; an answer without one of them is a defect.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from lablet_common.resources.request import Problem

BASE = "https://lablet.io/problems/"
_COMPARED = 200
"""Names that are compared with a misspelt one, each at the price of 0.1 ms."""


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One stable type: `BASE` + `slug`."""

    slug: str
    title: str
    status: int

    @property
    def uri(self) -> str:
        return BASE + self.slug

    def __call__(
        self, detail: str, *, errors: Iterable[Mapping[str, str]] = (), headers: Mapping[str, str] = {}, **more: Any
    ) -> "Refused":
        problem = Problem(
            type=self.uri,
            title=self.title,
            status=self.status,
            detail=_writable(detail),
            errors=tuple({name: _writable(text) for name, text in error.items()} for error in errors),
            extensions={name: _writable(value) if isinstance(value, str) else value for name, value in more.items()},
        )
        return Refused(problem, headers)


class Refused(Exception):
    """An answer that is a problem."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] = {}) -> None:
        super().__init__(problem.detail or problem.title)
        self.problem = problem
        self.headers = dict(headers)


def _writable(text: str) -> str:
    """What an answer repeats of a caller's JSON may hold halves of surrogate pairs."""
    return text if text.isascii() else text.encode(errors="replace").decode()


UNAUTHENTICATED = ProblemType("unauthenticated", "Unauthenticated", 401)
FORBIDDEN = ProblemType("forbidden", "Forbidden", 403)
NOT_FOUND = ProblemType("not-found", "Not found", 404)
METHOD_NOT_ALLOWED = ProblemType("method-not-allowed", "Method not allowed", 405)
BODY_LATE = ProblemType("request-timeout", "Request timeout", 408)
CONFLICT = ProblemType("conflict", "Conflict", 409)
ILLEGAL_TRANSITION = ProblemType("illegal-transition", "Illegal transition", 409)
GONE = ProblemType("gone", "No longer available", 410)
STALE = ProblemType("precondition-failed", "Precondition failed", 412)
TOO_LARGE = ProblemType("too-large", "Too large", 413)
UNSUPPORTED_MEDIA = ProblemType("unsupported-media-type", "Unsupported media type", 415)
INVALID = ProblemType("invalid", "Invalid request", 422)
KEY_REUSED = ProblemType("idempotency-key-reused", "Idempotency key reused", 422)
PRECONDITION_REQUIRED = ProblemType("precondition-required", "Precondition required", 428)
TOO_MANY = ProblemType("too-many-requests", "Too many requests", 429)
INTERNAL = ProblemType("internal", "Internal error", 500)
NO_TRACES = ProblemType("no-traces", "No traces are kept", 404)
CORRUPT = ProblemType("corrupt-object", "Corrupt object", 502)
OVERLOADED = ProblemType("overloaded", "Too much waits to be decided", 503)
UNAVAILABLE = ProblemType("unavailable", "A dependency is unavailable", 503)


def field_error(path: str, message: str, remedy: str = "") -> dict[str, str]:
    """One entry of `errors[]`; the path is written as the caller sent it."""
    return {"path": path, "message": message} | ({"remedy": remedy} if remedy else {})


def invalid(path: str, message: str, remedy: str = "") -> Refused:
    """422 with one field at fault."""
    return INVALID(f"{path}: {message}", errors=[field_error(path, message, remedy)])


def several(errors: list[dict[str, str]]) -> Refused:
    """422 with all the fields at fault."""
    return INVALID("; ".join(f"{error['path']}: {error['message']}" for error in errors), errors=errors)


def unknown(kind: str, resource_id: str) -> Refused:
    """404, for what is not there and for what belongs to somebody else."""
    return NOT_FOUND(f"there is no {kind} {resource_id}", kind=kind, id=resource_id)


def unavailable(dependency: str, detail: str) -> Refused:
    """503 naming who is away."""
    return UNAVAILABLE(detail, headers={"Retry-After": "2"}, dependency=dependency)


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy for a misspelt name: the nearest ones, or what there is. Of many, those are looked at that begin like it."""
    names = sorted(set(known))
    first = max(0, bisect_left(names, name) - _COMPARED // 2) if len(names) > _COMPARED else 0
    close = get_close_matches(name, names[first : first + _COMPARED], n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known are {', '.join(names[:10])}" if names else "there is none yet"
