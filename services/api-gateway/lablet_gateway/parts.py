"""What the gateway is made of, in one value that every route gets: the composition root fills it, tests fill it anew."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from lablet_common.clock import Clock
from lablet_common.objects import ObjectStore
from lablet_common.store import Store
from lablet_common.store.cache import Caches
from lablet_common.telemetry.health import Health
from lablet_gateway.deadletters import DeadLetters
from lablet_gateway.eventlog import EventLog
from lablet_gateway.identity import TokenVerifier
from lablet_gateway.settings import GatewaySettings
from lablet_gateway.streams import Hub


@dataclass(frozen=True, slots=True)
class Parts:
    settings: GatewaySettings
    store: Store
    objects: ObjectStore
    clock: Clock
    caches: Caches
    verifier: TokenVerifier
    events: EventLog
    hub: Hub
    dead_letters: DeadLetters
    health: Health


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


WithParts = Annotated[Parts, Depends(_parts)]
