"""What can go wrong, as types: one exception for each thing that a caller may want to do something else about.

The gateway answers errors as problem details (RFC 9457); `refusal` turns such an answer into the matching exception.
Not every refusal carries an explanation: only decisions of the scheduler do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field at fault. `path` is written as it was sent, in camelCase."""

    path: str
    message: str
    remedy: str = ""


class LabletError(Exception):
    """Everything that the client raises on purpose."""


class NotConfigured(LabletError):
    """Nobody said where the system is: no URL, no connection file."""


class Unreachable(LabletError):
    """No answer from the address, after all retries. Whether a change was accepted is unknown; sending it again with the
    same key is safe. `setting` is the variable that says another address."""

    def __init__(self, url: str, reason: str, setting: str = "LABLET_URL") -> None:
        super().__init__(f"no answer from {url}: {reason}")
        self.url = url
        self.reason = reason
        self.setting = setting


class TimedOut(LabletError):
    """What was waited for did not come about in time. `last` is what was seen last."""

    def __init__(self, message: str, last: Any = None) -> None:
        super().__init__(message)
        self.last = last


class Refused(LabletError):
    """The system said no. `problem` is its answer, `errors` the fields at fault, `explanation` the scheduler's reasons."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        self.type = str(problem.get("type", "about:blank"))
        self.title = str(problem.get("title") or f"HTTP {status}")
        self.detail = str(problem.get("detail") or "")
        self.errors = tuple(_field_error(error) for error in problem.get("errors") or () if isinstance(error, Mapping))
        super().__init__(self.sentence)

    @property
    def sentence(self) -> str:
        """The refusal in one line, without the fields."""
        return self.detail or self.title

    @property
    def explanation(self) -> Mapping[str, Any] | None:
        """Why the scheduler decided so, if it was the scheduler."""
        found = self.extension("explanation")
        return found if isinstance(found, Mapping) else None

    def extension(self, name: str) -> Any:
        """A member of the problem beyond the standard ones, or None."""
        extensions = self.problem.get("extensions")
        if name in self.problem:
            return self.problem[name]
        return extensions.get(name) if isinstance(extensions, Mapping) else None


class Unauthorized(Refused):
    """No token, or one that the system does not know (401)."""


class Forbidden(Refused):
    """The token is good, but its role may not do this (403)."""


class NotFound(Refused):
    """There is no such thing for this tenant (404)."""


class Conflict(Refused):
    """The present state does not allow it (409)."""


class Stale(Conflict):
    """It was changed by somebody else since it was read (412), or nothing was said about which version is meant (428)."""


class Gone(Refused):
    """The list or stream cannot be resumed from there any more (410): begin anew."""


class Invalid(Refused):
    """The request itself is wrong (400, 413, 415, 422); `errors` name the fields."""


class TooManyRequests(Refused):
    """The rate limit was still in force after all retries (429)."""


class Unavailable(Refused):
    """A part that is needed is down (`dependency` names it), or the system has more to do than it takes (503), after all
    retries."""

    @property
    def dependency(self) -> str | None:
        name = self.extension("dependency")
        return str(name) if name is not None else None


class ServerFault(Refused):
    """The system itself failed (500, 502, 504). This should be reported."""


_BY_STATUS: Mapping[int, type[Refused]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    412: Stale,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    428: Stale,
    429: TooManyRequests,
    503: Unavailable,
}


def refusal(status: int, problem: Mapping[str, Any]) -> Refused:
    """The exception for a problem answered with `status`."""
    return _BY_STATUS.get(status, ServerFault if status >= 500 else Refused)(status, problem)


def _field_error(error: Mapping[str, Any]) -> FieldError:
    message = str(error.get("message") or error.get("detail") or "")
    return FieldError(str(error.get("path") or error.get("field") or ""), message, str(error.get("remedy") or ""))
