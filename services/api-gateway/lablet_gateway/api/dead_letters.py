"""Dead letters: what a consumer gave up on, why, sending it once more, and clearing up."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from lablet_common.resources.model import Instant, Model
from lablet_gateway import problems
from lablet_gateway.answers import model_response, refusals
from lablet_gateway.caller import WithCaller
from lablet_gateway.deadletters import Buried, may_hear, redelivery_subject, subscription_of
from lablet_gateway.deeds import deed
from lablet_gateway.parts import Parts, WithParts
from lablet_gateway.rights import PREFIX
from lablet_gateway.webhooks.registry import Registry

router = APIRouter(prefix=f"{PREFIX}/dead-letters", tags=["dead letters"])
_LAST = 2**63 - 1
Sequence = Annotated[int, Path(ge=1, le=_LAST, description="Its number in the queue")]
Consumer = Annotated[
    str | None,
    Query(min_length=1, max_length=128, description="Of this consumer only", examples=["webhook-lms"]),
]


class DeadLetterView(Model):
    sequence: int
    subject: str
    """Where it had been published."""
    stream: str
    consumer: str
    reason: str
    attempts: int
    at: Instant
    headers: dict[str, str]
    payload: str
    """As text; what is no UTF-8 is replaced."""
    without: str = ""
    """What of the original it was kept without, because that left no room; such a letter cannot be replayed."""


class DeadLetterList(Model):
    items: tuple[DeadLetterView, ...]
    next_cursor: str | None = None


class Purged(Model):
    """How many there were."""

    purged: int


@router.get("", response_model=DeadLetterList, responses=refusals())
async def list_dead_letters(
    parts: WithParts,
    _: WithCaller,
    limit: Annotated[int, Query(ge=1, le=1000, description="Items of a page")] = 100,
    cursor: Annotated[int, Query(ge=0, le=_LAST, description="`nextCursor` of the page before")] = 0,
    consumer: Consumer = None,
) -> Response:
    """Oldest first."""
    found = await parts.dead_letters.list(cursor, limit, consumer)
    following = str(found[-1].number) if len(found) == limit else None
    return model_response(DeadLetterList(items=tuple(_view(buried) for buried in found), next_cursor=following))


@router.get("/{sequence}", response_model=DeadLetterView, responses=refusals(404))
async def get_dead_letter(sequence: Sequence, parts: WithParts, _: WithCaller) -> Response:
    """One of them, with its payload."""
    return model_response(_view(await _require(parts, sequence)))


@router.post("/{sequence}/replay", response_model=DeadLetterView, responses=refusals(404, 409))
async def replay(sequence: Sequence, parts: WithParts, caller: WithCaller) -> Response:
    """Publishes the original to where it had been published (what a webhook's sink did not take: to that sink) and takes
    it out of the queue. When it fails again, there is a new dead letter. One that is not whole is refused, and one whose
    subscription is gone."""
    buried = await _require(parts, sequence)
    if buried.letter.without:
        raise problems.CONFLICT(
            f"dead letter {sequence} was kept without its {buried.letter.without}: what is left is not the original. "
            "Have its sender send it anew, and purge the letter"
        )
    await parts.dead_letters.replay(buried, await _destination(parts, buried))
    about = {"consumer": buried.letter.consumer, "subject": buried.letter.subject}
    await deed(parts.store, caller, "dead-letter.replay", f"dead-letter/{sequence}", about, at=parts.clock.now())
    return model_response(_view(buried))


@router.delete("/{sequence}", status_code=204, response_class=Response, responses=refusals(404))
async def forget_dead_letter(sequence: Sequence, parts: WithParts, caller: WithCaller) -> Response:
    """Forgets one of them for good."""
    buried = await _require(parts, sequence)
    await parts.dead_letters.remove(sequence)
    about = {"consumer": buried.letter.consumer, "subject": buried.letter.subject}
    await deed(parts.store, caller, "dead-letter.forget", f"dead-letter/{sequence}", about, at=parts.clock.now())
    return Response(status_code=204)


@router.delete("", response_model=Purged, responses=refusals())
async def purge_dead_letters(parts: WithParts, caller: WithCaller, consumer: Consumer = None) -> Response:
    """Forgets all of them, or those of one consumer, for good."""
    purged = await parts.dead_letters.purge(consumer)
    about = {"consumer": consumer, "purged": purged}
    await deed(
        parts.store, caller, "dead-letter.purge", f"dead-letter/{consumer or 'all'}", about, at=parts.clock.now()
    )
    return model_response(Purged(purged=purged))


async def _require(parts: Parts, sequence: int) -> Buried:
    buried = await parts.dead_letters.get(sequence)
    if buried is None:
        raise problems.unknown("dead letter", str(sequence))
    return buried


async def _destination(parts: Parts, buried: Buried) -> str:
    """Where a replay publishes. Raises 409 where nobody would take it."""
    name = subscription_of(buried.letter)
    if name is None:
        return buried.letter.subject
    subscription = await Registry(parts).get(name)
    if subscription is None or not may_hear(subscription, buried.letter):
        raise problems.CONFLICT(
            f"the subscription {name} that dead letter {buried.number} is of is gone: nobody would take it. Purge the letter"
        )
    return redelivery_subject(subscription)


def _view(buried: Buried) -> DeadLetterView:
    letter = buried.letter
    return DeadLetterView(
        sequence=buried.number,
        subject=letter.subject,
        stream=letter.stream,
        consumer=letter.consumer,
        reason=letter.reason,
        attempts=letter.attempts,
        at=letter.at,
        headers=dict(letter.headers),
        payload=letter.payload.decode(errors="replace"),
        without=letter.without,
    )
