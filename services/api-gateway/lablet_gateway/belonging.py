"""What is a caller's own: the seats of their reservations or with their name on, and what those seats have left.

What thousands of labs leave alike has as many uses. So it is not the uses that are gone through, but the caller's seats, each
of which knows what it has left; of seats in the archive, of which nobody has a list, only those are looked for that used the
content last. Whoever asks for older work names the seat.
"""

from lablet_common.references import CARRIED, all_references, uses_of
from lablet_common.resources.artifact import Artifact
from lablet_common.resources.instance import Instance
from lablet_common.resources.kinds import ARTIFACT, INSTANCE, RESERVATION
from lablet_common.resources.reservation import Reservation
from lablet_gateway import archive, reads, uses
from lablet_gateway.caller import Caller
from lablet_gateway.parts import Parts
from lablet_gateway.problems import Refused


async def own_seats(parts: Parts, caller: Caller) -> reads.Visible:
    """Which instances are the caller's own: those of their reservations, and the seats whose roster names them."""
    # also those that are not theirs: what a seat itself says of its user was true when it was made
    present: list[Reservation] = await reads.everything(parts, RESERVATION, lambda one: one.tenant == caller.tenant)
    by_id = {reservation.id: reservation for reservation in present}

    def sees(instance: Instance) -> bool:
        return caller.sees_instance(instance, by_id.get(instance.spec.reservation))

    return sees


async def left_by(parts: Parts, caller: Caller, artifact: Artifact, instance: str) -> bool:
    """Whether that instance, which the caller may see, in etcd or in the archive, has left the content."""
    try:
        seat, _ = await archive.instance(parts, caller, instance)
    except Refused:
        return False
    used = await uses.of_subject(parts, f"{INSTANCE.name}/{seat.id}", artifact.tenant)
    return any(use.artifact.id == artifact.id for use in used)


async def is_own(parts: Parts, caller: Caller, artifact: Artifact) -> bool:
    """Whether a seat of the caller's has left it. A seat's work stays its user's after the seat has left etcd."""
    seats: list[Instance] = await reads.everything(parts, INSTANCE, await own_seats(parts, caller))
    subjects = {f"{INSTANCE.name}/{seat.id}" for seat in seats}
    if await reads.caught_up(parts, ARTIFACT):
        if any(use.artifact.id == artifact.id for subject in subjects for use in uses_of(parts.caches, subject)):
            return True
    elif subjects:
        async for reference in all_references(parts.store, artifact):
            if reference.subject in subjects:
                return True
    for reference in reversed(artifact.status.references[-CARRIED:]):
        kind, _, name = reference.subject.partition("/")
        if kind == INSTANCE.name and await archive.archived_instance(parts, caller, name) is not None:
            return True
    return False
