"""Lablet: typed Python SDK and the lablet command.

Names are loaded when they are first used, so that the command line starts at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lablet_client.client import Client as Client
    from lablet_client.client import LabTime as LabTime
    from lablet_client.connection import Connection as Connection
    from lablet_client.connection import find_connection as find_connection
    from lablet_client.errors import Conflict as Conflict
    from lablet_client.errors import Forbidden as Forbidden
    from lablet_client.errors import Gone as Gone
    from lablet_client.errors import Invalid as Invalid
    from lablet_client.errors import LabletError as LabletError
    from lablet_client.errors import NotConfigured as NotConfigured
    from lablet_client.errors import NotFound as NotFound
    from lablet_client.errors import Refused as Refused
    from lablet_client.errors import Stale as Stale
    from lablet_client.errors import TimedOut as TimedOut
    from lablet_client.errors import TooManyRequests as TooManyRequests
    from lablet_client.errors import Unauthorized as Unauthorized
    from lablet_client.errors import Unavailable as Unavailable
    from lablet_client.errors import Unreachable as Unreachable
    from lablet_client.events import Event as Event
    from lablet_client.events import Filter as Filter
    from lablet_client.events import new_event as new_event
    from lablet_client.retry import Retry as Retry
    from lablet_client.waiting import OutOfReach as OutOfReach
    from lablet_common.intents import ReservationCreate as ReservationCreate

_HOMES = {
    "lablet_client.client": ("Client", "LabTime"),
    "lablet_client.connection": ("Connection", "find_connection"),
    "lablet_client.errors": (
        *("Conflict", "Forbidden", "Gone", "Invalid", "LabletError", "NotConfigured", "NotFound", "Refused", "Stale"),
        *("TimedOut", "TooManyRequests", "Unauthorized", "Unavailable", "Unreachable"),
    ),
    "lablet_client.events": ("Event", "Filter", "new_event"),
    "lablet_client.retry": ("Retry",),
    "lablet_client.waiting": ("OutOfReach",),
    "lablet_common.intents": ("ReservationCreate",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
