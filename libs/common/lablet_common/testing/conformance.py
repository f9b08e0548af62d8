"""An HTTP API against its own OpenAPI document, by schemathesis: what the document says is what comes back.

Two ways: each operation with the document's example, on resources that there are (so that most of them answer 2xx), and
with what schemathesis makes up, valid and not. No answer may be a server error, undocumented, or of another shape than
documented. Every fault is gathered, so that one run tells all of them; what is made up is the same in every run.

Calls block: inside of a test with a running event loop use `asyncio.to_thread`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

VALID, INVALID = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
_CHECKS: Any = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
_CALL_SECONDS = 40.0
_ORDER = ("GET", "POST", "PUT", "PATCH", "DELETE")

Places = Callable[[str, str], Mapping[str, Any]]
"""Method and path to the values of the path's parameters: what there is."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One example and its answer."""

    operation: str
    """`METHOD path`."""
    status: int
    text: str


@dataclass
class Conformance:
    """The API at `url` as its document describes it, called with one token at a time."""

    url: str
    document: Mapping[str, Any]
    places: Places
    endless: Sequence[str] = ()
    """Paths whose answer never ends: they are left out."""
    may_be_away: Sequence[str] = ()
    """`METHOD path` of what says 503 on purpose."""
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Query parameters that an example needs, by `METHOD path`."""
    bodies: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    """Media type and body of what the document cannot show, by `METHOD path`."""

    def __post_init__(self) -> None:
        self._schema: Any = schemathesis.openapi.from_dict(dict(self.document))

    def operations(self) -> list[Any]:
        """Reads first, then what makes, what changes, what takes away; of these, what takes away more comes later."""
        found = [result.ok() for result in self._schema.get_all_operations()]
        kept = [operation for operation in found if operation.path not in self.endless]
        return sorted(kept, key=lambda operation: (_ORDER.index(operation.method.upper()), -len(operation.path)))

    def example(self, operation: Any) -> Case[Any]:
        """The operation as its document shows it."""
        method, path = operation.method.upper(), operation.path
        raw = self.document["paths"][path][method.lower()]
        name = f"{method} {path}"
        wants = {parameter["name"] for parameter in raw.get("parameters", [])}
        known: dict[str, Any] = {
            "path_parameters": dict(self.places(method, path)),
            "headers": {"If-Match": "*"} if "If-Match" in wants else {},
            "query": dict(self.query.get(name, {})),
        }
        if name in self.bodies:
            media_type, body = self.bodies[name]
            return operation.Case(**known, body=body, media_type=media_type)  # type: ignore[no-any-return]
        for media_type, media in raw.get("requestBody", {}).get("content", {}).items():
            if "json" in media_type and "example" in media:
                return operation.Case(**known, body=media["example"], media_type=media_type)  # type: ignore[no-any-return]
        return operation.Case(**known)  # type: ignore[no-any-return]

    def send(self, case: Case[Any], token: str) -> tuple[int, str]:
        """Status and text of the answer. Raises what is not as documented."""
        headers = {"Authorization": f"Bearer {token}"}
        response = case.call(base_url=self.url, headers=headers, timeout=_CALL_SECONDS)
        away = f"{case.method.upper()} {case.path}" in self.may_be_away
        case.validate_response(response, checks=_CHECKS[1:] if away else _CHECKS)
        return int(response.status_code), response.text

    def examples(self, token: str) -> list[Sent]:
        """Sends every example once. Raises `AssertionError` with all that was not as documented."""
        answers, faults = [], _Faults()
        for operation in self.operations():
            with faults.of(operation):
                status, text = self.send(self.example(operation), token)
                answers.append(Sent(f"{operation.method.upper()} {operation.path}", status, text))
        faults.tell()
        return answers

    def made_up(self, token: str, mode: GenerationMode, count: int) -> int:
        """Sends up to `count` made-up calls of every operation, and returns how many there were. Raises
        `AssertionError` with all that was not as documented."""
        sent, faults = 0, _Faults()
        for operation in self.operations():
            places = dict(self.places(operation.method.upper(), operation.path)) if mode is VALID else None

            @settings(
                max_examples=count, derandomize=True, deadline=None, database=None, phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy(mode, path_parameters=places))
            def call(case: Case[Any]) -> None:
                nonlocal sent
                sent += 1
                self.send(case, token)

            with faults.of(operation):
                try:
                    call()
                except Unsatisfiable:
                    if mode is not INVALID:  # where any text will do, nothing can be wrong
                        raise
        faults.tell()
        return sent


class _Faults:
    """What was not as documented, of all operations, so that one run tells everything."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    @contextmanager
    def of(self, operation: Any) -> Iterator[None]:
        try:
            yield
        except (FailureGroup, Failure, ExceptionGroup) as error:
            parts = error.exceptions if isinstance(error, ExceptionGroup) else [error]
            name = f"{operation.method.upper()} {operation.path}"
            self._found[name] = "; ".join(str(part)[:900] for part in parts)

    def tell(self) -> None:
        assert not self._found, "\n\n".join(f"{name}: {fault}" for name, fault in self._found.items())
