"""What calendars are computed from, read in one go: reservations of a pool, their instances and definitions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from lablet_common.resources.definition import Definition, Requirements
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import DEFINITION, INSTANCE, RESERVATION
from lablet_common.resources.model import Instant
from lablet_common.resources.reservation import Reservation
from lablet_gateway import problems, reads
from lablet_gateway.calendar import Window
from lablet_gateway.parts import Parts
from lablet_gateway.rights import PUBLIC_TENANT

_DAY = timedelta(days=1)
LONGEST = timedelta(days=371)


@dataclass(frozen=True, slots=True)
class Bookings:
    reservations: list[Reservation]
    instances: Mapping[str, Instance]
    definitions: Mapping[tuple[str, str], Definition]

    def needs(self, reservation: Reservation) -> Requirements | None:
        """What one seat takes; the tenant's own definition before a public one."""
        name = reservation.spec.definition
        found = self.definitions.get((reservation.tenant, name)) or self.definitions.get((PUBLIC_TENANT, name))
        return found.spec.requirements if found is not None else None


async def read(parts: Parts, pool: str) -> Bookings:
    """All bookings of a pool, whoever's they are: the calendar leaves other tenants' names out."""

    def in_pool(reservation: Reservation) -> bool:
        return reservation.status.pool == pool

    def runs_in_pool(instance: Instance) -> bool:
        return instance.spec.pool == pool

    def any_definition(_: Definition) -> bool:
        return True

    reservations: list[Reservation] = await reads.everything(parts, RESERVATION, in_pool)
    instances: list[Instance] = await reads.everything(parts, INSTANCE, runs_in_pool)
    definitions: list[Definition] = await reads.everything(parts, DEFINITION, any_definition)
    return Bookings(
        reservations,
        {instance.id: instance for instance in instances},
        {(definition.tenant, definition.id): definition for definition in definitions},
    )


def window(parts: Parts, begin: Instant | None, to: Instant | None) -> Window:
    """The span asked for; by default a day from now. Raises 422."""
    now = parts.clock.now()
    start = begin or now
    end = to or start + _DAY
    if end <= start:
        raise problems.invalid("to", "must be after from")
    if end - start > LONGEST:
        raise problems.invalid("to", f"the span is longer than {LONGEST.days} days")
    return Window(start, end, now)
