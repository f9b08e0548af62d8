"""The one error of the simulated API: a status and a sentence, sent as ``{"code", "description"}``.

Everything below the HTTP border raises it too, because the rules of a controller (quota, state, ownership) are refusals
of a request and nothing else.
"""

from __future__ import annotations


class ApiError(Exception):
    """A refused request. `status` is the HTTP status, `description` the sentence that the client shows."""

    def __init__(self, status: int, description: str) -> None:
        super().__init__(description)
        self.status = status
        self.description = description


def invalid(description: str) -> ApiError:
    """400: the request cannot be done as it stands."""
    return ApiError(400, description)


def denied(description: str = "Access denied.") -> ApiError:
    """403: wrong credentials, or a right is missing."""
    return ApiError(403, description)


def missing(kind: str, key: str) -> ApiError:
    """404, worded as the official client expects it: ``Lab not found: <id>``."""
    return ApiError(404, f"{kind} not found: {key}")


def conflict(description: str) -> ApiError:
    """409: not in this state, or not now."""
    return ApiError(409, description)
