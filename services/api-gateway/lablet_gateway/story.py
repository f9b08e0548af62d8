"""The story of one resource: what was published about it, completed by the resource itself as it stands or was archived.

The log of events is kept for a time and up to a size; the resource keeps its latest moves, in etcd and then in the archive.
So whatever the log has forgotten, the state that the resource came to is told: as the event that its bridge would publish
again, with the same id, marked `replayed`, and with its moves in the data. Order is that of `sequence`.

Not guaranteed: commits without a move, and moves beyond the latest fifty, once the log has forgotten them.
"""

from typing import Any, cast

from lablet_common import archive
from lablet_common.events.derive import derive
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import INSTANCE, KINDS, RESERVATION, SERIES, Kind
from lablet_common.resources.model import Resource
from lablet_common.resources.reservation import Reservation
from lablet_gateway import reads
from lablet_gateway.eventlog import Logged
from lablet_gateway.parts import Parts
from lablet_gateway.streams import Entry, entry_of

_ARCHIVED = (RESERVATION, INSTANCE, SERIES)


async def seats_reservation(parts: Parts, seat: Instance) -> Reservation | None:
    """The reservation of a seat, wherever it is by now."""
    name = seat.spec.reservation
    here = parts.caches[RESERVATION].get(name) or await reads.get(parts, RESERVATION, name)
    return cast("Reservation | None", here or await archive.find(parts.objects, RESERVATION, name, seat.tenant))


async def present(parts: Parts, tenant: str, kind_name: str, name: str) -> tuple[Entry, Resource[Any, Any]] | None:
    """The latest state of a tenant's resource as an event, and the resource; None when it is nowhere."""
    kind: Kind | None = KINDS.get(kind_name)
    if kind is None:
        return None
    found = await reads.get(parts, kind, name, tenant)
    if found is None and kind in _ARCHIVED:
        found = await archive.find(parts.objects, kind, name, tenant)
    if found is None or found.tenant != tenant:
        return None
    source = f"{parts.settings.cloudevents_source}/{kind.owner}"
    first, *_ = derive(kind, None, found, found.revision, source=source, replayed=True)
    entry = entry_of(Logged(0, first.event), parts.hub.epoch)
    return None if entry is None else (entry, found)
