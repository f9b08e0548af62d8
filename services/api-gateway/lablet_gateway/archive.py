"""Reservations and instances that have left etcd, found again: by id behind every read, and by day on request.

etcd is asked first, so what stands in both is answered as it is now. A list of the archive is by the day of the last move
and by id within it; its pages are not pinned to a revision, as the archive only grows.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Any, cast

from fastapi import Depends, Query

from lablet_common import archive, strangers
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import INSTANCE, RESERVATION, Kind
from lablet_common.resources.model import Date, Resource
from lablet_common.resources.reservation import Reservation
from lablet_common.store.repository import ResourcePage
from lablet_common.store.selectors import FieldSelector, SelectorError
from lablet_gateway import pending, problems, reads
from lablet_gateway.caller import Caller
from lablet_gateway.parts import Parts
from lablet_gateway.reads import Consistency, ListQuery, Visible

ARCHIVED = {"Lablet-Archived": "true"}
"""Header of an answer that comes from the archive."""
_MOST_DAYS = 92


@dataclass(frozen=True, slots=True)
class Span:
    """Days of the archive, both included; None: as far as may be."""

    first: date | None
    last: date | None


async def _span(  # async: FastAPI would run it in another thread
    archived: Annotated[bool, Query(description="Lists what has left the store, by the day of its last move")] = False,
    first: Annotated[Date | None, Query(alias="from", description="First day of the archive; a week back")] = None,
    last: Annotated[Date | None, Query(alias="to", description="Last day of the archive; today")] = None,
) -> Span | None:
    return Span(first, last) if archived else None


WithSpan = Annotated[Span | None, Depends(_span)]


async def reservation(
    parts: Parts, caller: Caller, reservation_id: str, consistency: Consistency = "linearizable"
) -> tuple[Reservation, bool]:
    """The reservation as the caller may see it, and whether it is archived. Raises 404."""
    found = await pending.reservation(parts, caller.tenant, reservation_id, consistency)
    archived = found is None
    if found is None:
        found = cast(
            "Reservation | None", await archive.find(parts.objects, RESERVATION, reservation_id, caller.tenant)
        )
    if found is None or not caller.sees_reservation(found):
        raise problems.unknown(RESERVATION.name, reservation_id)
    return caller.shown(found), archived


async def instance(
    parts: Parts, caller: Caller, instance_id: str, consistency: Consistency = "linearizable"
) -> tuple[Instance, bool]:
    """The instance as the caller may see it, and whether it is archived. Raises 404."""
    if await reads.get(parts, INSTANCE, instance_id, consistency=consistency) is not None:
        return await pending.instance(parts, caller, instance_id, consistency), False
    found = await archived_instance(parts, caller, instance_id)
    if found is None:
        raise problems.unknown(INSTANCE.name, instance_id)
    return found, True


async def archived_instance(parts: Parts, caller: Caller, instance_id: str) -> Instance | None:
    """The instance, if it is in the archive and the caller's to see."""
    found = cast("Instance | None", await archive.find(parts.objects, INSTANCE, instance_id, caller.tenant))
    if found is None or not caller.sees_instance(found, await _reservation_of(parts, found)):
        return None
    return found


async def _reservation_of(parts: Parts, seat: Instance) -> Reservation | None:
    name = seat.spec.reservation
    here = await reads.get(parts, RESERVATION, name)
    return cast("Reservation | None", here or await archive.find(parts.objects, RESERVATION, name, seat.tenant))


async def page(
    parts: Parts, kind: Kind, caller: Caller, span: Span, query: ListQuery, visible: Visible
) -> ResourcePage[Resource[Any, Any]]:
    """One page of the caller's tenant's archive. Raises 422 for a span that is empty or too long."""
    last = span.last or parts.clock.now().date()
    first = span.first or last - timedelta(days=7)
    if first > last or last - first >= timedelta(days=_MOST_DAYS):
        raise problems.invalid("from", f"the span must have 1 to {_MOST_DAYS} days: {first} to {last} has not")
    try:
        fields = FieldSelector.parse(query.fields, kind.model)
    except SelectorError as error:
        raise problems.invalid("fieldSelector", str(error)) from error
    begin, after = read_cursor(query.cursor) if query.cursor else (first, "")
    items: list[Resource[Any, Any]] = []
    mark = ""

    def wanted(one: Resource[Any, Any]) -> Resource[Any, Any] | None:
        matches = visible(one) and query.labels.matches(one) and fields.matches(caller.shown(one))
        return one if matches else None

    async for day, found in archive.days(parts.objects, kind, caller.tenant, max(first, begin), last, wanted):
        for one in found:
            if one is None or (day == begin and one.id <= after):
                continue
            if len(items) == query.limit:
                return ResourcePage(tuple(items), 0, mark)
            items.append(caller.shown(one))
            mark = _write_cursor(day, one.id)
    return ResourcePage(tuple(items), 0)


def _write_cursor(day: date, name: str) -> str:
    return strangers.write_cursor(day.isoformat(), name)


def read_cursor(cursor: str) -> tuple[date, str]:
    """Day and id after which a list of the archive goes on. Raises 422."""
    try:
        day, name = strangers.read_cursor(cursor)
        return date.fromisoformat(day), str(name)
    except (ValueError, TypeError):
        raise problems.invalid("cursor", "take it from nextCursor as it stands") from None
