"""Subscriptions: a web address that events are sent to, what it wants to hear, and how sending goes.

Owned by the gateway. No state events tell of subscriptions, so that delivering an event never makes another one. The
signing secret is stored encrypted and leaves the gateway once, when it is made.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints

from lablet_common.resources.machine import table
from lablet_common.resources.model import Instant, Model, Name, Resource, Status

EVERY_TENANT = "*"
Prefix = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Prefixes = Annotated[tuple[Prefix, ...], Field(max_length=50)]
Mode = Literal["structured", "binary"]


class SubscriptionSpec(Model):
    """What is sent where. An empty filter does not narrow."""

    sink: Annotated[str, Field(max_length=2048)]
    """http or https; answers of the 2xx kind mean: taken."""
    mode: Mode = "structured"
    """How CloudEvents lie in the HTTP request."""
    types: Prefixes = ()
    """Beginnings of event types; one of them must fit."""
    subjects: Prefixes = ()
    """Beginnings of subjects, `<kind>/<id>`; one of them must fit."""
    label_selector: Annotated[str, Field(max_length=1024)] = ""
    """On the labels of the resource that the event carries."""
    tenant: str = "default"
    """Whose events; `*` (all) only where the operator has set the subscription up."""
    paused: bool = False
    """Nothing is sent; what happens meanwhile is sent afterwards."""


class SubscriptionPhase(StrEnum):
    ACTIVE = "Active"
    FAILING = "Failing"
    PAUSED = "Paused"
    DELETING = "Deleting"


class DeliveryError(Model):
    """The latest attempt that did not succeed."""

    at: Instant
    event: str
    """Id of the event."""
    subject: str
    message: str
    attempts: int
    status: int | None = None
    """Of the sink's answer; none where it gave none."""


class Beginning(Model):
    """The place in the event stream after which the subscription begins."""

    epoch: str
    number: int


class SubscriptionStatus(Status):
    phase: SubscriptionPhase = SubscriptionPhase.ACTIVE
    beginning: Beginning
    signed: bool = True
    role: str | None = None
    """Of whoever chose the sink: it hears what that role may. None: everything of the tenant."""
    delivered: int = 0
    dead_lettered: int = 0
    last_delivered_at: Instant | None = None
    failing_since: Instant | None = None
    last_error: DeliveryError | None = None
    secret: str | None = None
    """Encrypted; never shown."""
    previous_secret: str | None = None
    """Encrypted; signs beside the new one until `previous_until`."""
    previous_until: Instant | None = None
    """Real time."""


class Subscription(Resource[SubscriptionSpec, SubscriptionStatus]):
    machine = table(
        "Subscription",
        SubscriptionPhase.ACTIVE,
        {
            SubscriptionPhase.ACTIVE: {
                SubscriptionPhase.FAILING,
                SubscriptionPhase.PAUSED,
                SubscriptionPhase.DELETING,
            },
            SubscriptionPhase.FAILING: {
                SubscriptionPhase.ACTIVE,
                SubscriptionPhase.PAUSED,
                SubscriptionPhase.DELETING,
            },
            SubscriptionPhase.PAUSED: {SubscriptionPhase.ACTIVE, SubscriptionPhase.DELETING},
            SubscriptionPhase.DELETING: set(),
        },
    )
    kind: Literal["Subscription"] = "Subscription"

    def public(self) -> Self:
        """What may leave the gateway: without the secrets, although they are encrypted."""
        hidden = {"secret": None, "previous_secret": None}
        return self.model_copy(update={"status": self.status.model_copy(update=hidden)})


class SubscriptionCreate(Model):
    """The body of POST /subscriptions."""

    name: Name
    sink: Annotated[str, Field(max_length=2048, examples=["https://lms.example.org/lablet-events"])]
    mode: Mode = "structured"
    types: Prefixes = ()
    subjects: Prefixes = ()
    label_selector: Annotated[str, Field(max_length=1024)] = ""
    tenant: str | None = None
    """The caller's own, which is also what is meant where it is left out."""
    labels: dict[str, str] = {}


class SubscriptionChange(Model):
    """The body of PATCH /subscriptions/{name}; what is left out stays."""

    sink: Annotated[str | None, Field(max_length=2048)] = None
    mode: Mode | None = None
    types: Prefixes | None = None
    subjects: Prefixes | None = None
    label_selector: Annotated[str | None, Field(max_length=1024)] = None
    paused: bool | None = None
    """False also goes on after the sink's 410 had paused it."""


class SubscriptionSecret(Model):
    """The signing secret, shown this once; and the subscription."""

    secret: str
    """`whsec_` and base64, as the Standard Webhooks libraries take it."""
    subscription: Subscription


class Redelivered(Model):
    """How many dead letters were put back in the way to the sink."""

    redelivered: int
