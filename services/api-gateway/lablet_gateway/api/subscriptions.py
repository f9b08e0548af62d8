"""Subscriptions: webhooks of the tenant's events, their secrets, and what is sent once more."""

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from lablet_common.resources.kinds import SUBSCRIPTION
from lablet_common.resources.model import NAME_PATTERN
from lablet_common.resources.subscription import (
    Redelivered,
    Subscription,
    SubscriptionChange,
    SubscriptionCreate,
    SubscriptionPhase,
    SubscriptionSecret,
)
from lablet_common.store import Conflict
from lablet_common.store.repository import ResourcePage
from lablet_gateway import problems, reads
from lablet_gateway.answers import (
    IdempotencyKey,
    IfMatch,
    check_match,
    etag_of,
    model_response,
    refusals,
    resource_response,
)
from lablet_gateway.caller import Caller, WithCaller
from lablet_gateway.deadletters import everything_of, may_hear, redelivery_subject, webhook_consumer
from lablet_gateway.deeds import deed
from lablet_gateway.parts import Parts, WithParts
from lablet_gateway.reads import ListOf, WithListQuery
from lablet_gateway.rights import PREFIX
from lablet_gateway.webhooks.registry import PRESET, Registry

router = APIRouter(prefix=f"{PREFIX}/subscriptions", tags=["subscriptions"])
SubscriptionName = Annotated[str, Path(pattern=NAME_PATTERN)]


@router.post("", status_code=201, response_model=SubscriptionSecret, responses=refusals(409, 413))
async def create_subscription(
    body: SubscriptionCreate, parts: WithParts, caller: WithCaller, key: IdempotencyKey = None
) -> Response:
    """Sends the tenant's events to a sink, from now on. The signing secret is in this answer and in no other."""
    made, secret = await Registry(parts).create(caller, body, key)
    return _with_secret(made, secret, 201)


@router.get("", response_model=ListOf[Subscription], responses=refusals(410))
async def list_subscriptions(parts: WithParts, caller: WithCaller, query: WithListQuery) -> Response:
    """Those that the caller may see, by name."""

    def visible(subscription: Subscription) -> bool:
        return caller.sees(subscription) and subscription.phase != SubscriptionPhase.DELETING

    found: ResourcePage[Subscription] = await reads.page(parts, SUBSCRIPTION, query, visible)
    return reads.list_response(found)


@router.get("/{name}", response_model=Subscription, responses=refusals(404))
async def get_subscription(name: SubscriptionName, parts: WithParts, caller: WithCaller) -> Response:
    """One of them: what it hears, its state, its last error."""
    return resource_response(await _require(parts, caller, name))


@router.patch("/{name}", response_model=Subscription, responses=refusals(404, 409, 412, 413, 428))
async def change_subscription(
    name: SubscriptionName, body: SubscriptionChange, parts: WithParts, caller: WithCaller, if_match: IfMatch = None
) -> Response:
    """Changes sink, filters or mode, pauses it, or goes on (If-Match)."""
    present = await _require(parts, caller, name, change=True)
    check_match(if_match, present, required=True)
    try:
        return resource_response(await Registry(parts).change(present, body, caller))
    except Conflict as conflict:
        raise problems.STALE("the subscription was changed meanwhile: read it again") from conflict


@router.delete("/{name}", status_code=204, response_class=Response, responses=refusals(404, 409, 412))
async def delete_subscription(
    name: SubscriptionName, parts: WithParts, caller: WithCaller, if_match: IfMatch = None
) -> Response:
    """Ends it; what has not been sent is not sent any more. Its dead letters stay until their age takes them."""
    present = await _require(parts, caller, name, change=True)
    check_match(if_match, present, required=False)
    while True:
        try:
            await Registry(parts).delete(present, caller)
        except Conflict as conflict:
            if if_match is not None:
                raise problems.STALE("the subscription was changed meanwhile: read it again") from conflict
            present = await _require(parts, caller, name, change=True)  # only its book has gone on
        else:
            return Response(status_code=204)


@router.post("/{name}/rotate-secret", response_model=SubscriptionSecret, responses=refusals(404, 409))
async def rotate_secret(name: SubscriptionName, parts: WithParts, caller: WithCaller) -> Response:
    """Makes a new signing secret; for a day, events carry a signature by the old one too."""
    present = await _require(parts, caller, name, change=True)
    while True:
        try:
            changed, secret = await Registry(parts).rotate(present, caller)
        except Conflict:
            present = await _require(parts, caller, name, change=True)
        else:
            return _with_secret(changed, secret, 200)


@router.post("/{name}/redeliver", response_model=Redelivered, responses=refusals(404))
async def redeliver(name: SubscriptionName, parts: WithParts, caller: WithCaller) -> Response:
    """Sends once more what had been given up on: the subscription's dead letters leave the queue and are tried anew. Those
    that are not whole stay, and those of another tenant, which had a subscription of this name before."""
    subscription = await _require(parts, caller, name)
    sent = 0
    async for buried in everything_of(parts.dead_letters, webhook_consumer(name)):
        if not buried.letter.without and may_hear(subscription, buried.letter):
            await parts.dead_letters.replay(buried, redelivery_subject(subscription))
            sent += 1
    about = {"redelivered": sent}
    await deed(parts.store, caller, "subscription.redeliver", f"subscription/{name}", about, at=parts.clock.now())
    return model_response(Redelivered(redelivered=sent))


async def _require(parts: Parts, caller: Caller, name: str, *, change: bool = False) -> Subscription:
    found = await Registry(parts).get(name)
    if found is None or not caller.sees(found):
        raise problems.unknown(SUBSCRIPTION.name, name)
    if change and name == PRESET:
        raise problems.CONFLICT(f"{PRESET} is kept by the operator's CLOUDEVENTS_SINK_URL and changed there")
    return found


def _with_secret(subscription: Subscription, secret: str, status: int) -> Response:
    response = model_response(SubscriptionSecret(secret=secret, subscription=subscription.public()), status)
    if etag := etag_of(subscription):
        response.headers["ETag"] = etag
    response.headers["Location"] = f"{PREFIX}/subscriptions/{subscription.id}"
    return response
