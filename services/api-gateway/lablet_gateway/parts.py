"""What the gateway is made of, in one value that every route gets: the composition root fills it, tests fill it anew."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request as HttpRequest

from lablet_common.bus.line import Line
from lablet_common.clock import Clock, real_clock
from lablet_common.objects import ObjectStore
from lablet_common.requests import Accepted
from lablet_common.resources.kinds import REQUEST
from lablet_common.resources.request import Request
from lablet_common.secrets import SecretBox
from lablet_common.store import Store
from lablet_common.store.cache import Caches
from lablet_common.telemetry.health import Health
from lablet_gateway.deadletters import DeadLetters
from lablet_gateway.decisions import Decisions
from lablet_gateway.eventlog import EventLog
from lablet_gateway.gathering import Found, Gathering, Lookup, acceptance, heads, lookups
from lablet_gateway.identity import TokenVerifier
from lablet_gateway.identity.chain import Chain
from lablet_gateway.identity.keys import KeyUses, KeyVerifier
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
    """Of people's tokens."""
    events: EventLog
    hub: Hub
    dead_letters: DeadLetters
    health: Health
    line: Line | None = None
    """To agents; None: there is no bus."""
    secrets: SecretBox | None = None
    """What signing secrets are sealed with; None: no key file is set."""
    real_time: Clock = field(default_factory=real_clock)
    acceptance: Gathering[Request, Accepted] = field(init=False)
    lookups: Gathering[Lookup, Found] = field(init=False)
    heads: Gathering[None, int] = field(init=False)
    decisions: Decisions = field(init=False)
    key_uses: KeyUses = field(init=False)
    proof: TokenVerifier = field(init=False)
    """The verifier, and API keys beside it."""

    def __post_init__(self) -> None:
        """What all callers share of the store."""
        most = self.settings.gateway_max_waiting
        object.__setattr__(self, "acceptance", acceptance(self.store, most, self.settings.gateway_max_undecided))
        object.__setattr__(self, "lookups", lookups(self.store, most))
        object.__setattr__(self, "heads", heads(self.store, most))
        object.__setattr__(self, "decisions", Decisions(self.store))
        self.caches.overhear(REQUEST.prefix, self.decisions.hear)
        object.__setattr__(self, "key_uses", KeyUses(self.store))
        keys = KeyVerifier(self.caches, self.lookups, self.key_uses)
        object.__setattr__(self, "proof", Chain(keys, self.verifier))


async def _parts(request: HttpRequest) -> Parts:
    # async: FastAPI would run it in another thread
    parts: Parts = request.app.state.parts
    return parts


WithParts = Annotated[Parts, Depends(_parts)]
