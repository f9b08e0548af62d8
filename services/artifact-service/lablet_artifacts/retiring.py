"""The end of a definition's version: archived for good, once no reservation needs it any more.

A deprecated version can still be booked by its full name and come back; an archived one cannot, and its lab file may be
deleted. Not guaranteed: that a reservation which is decided at the same moment is seen. It keeps its lab all the same, for
nothing is taken away but the right to book.
"""

from datetime import datetime

from lablet_common.intake import Decision, refused, target_of
from lablet_common.requests import Undecided
from lablet_common.resources.definition import Definition, DefinitionPhase
from lablet_common.resources.kinds import DEFINITION, RESERVATION
from lablet_common.resources.reservation import Reservation
from lablet_common.store import Store
from lablet_common.store.repository import Repository

_PUBLIC = "public"
_PAGE = 500


class Retirement:
    """Decides `definition.archive.requested`."""

    def __init__(self, store: Store) -> None:
        self._definitions: Repository[Definition] = Repository(store, DEFINITION)
        self._reservations: Repository[Reservation] = Repository(store, RESERVATION)

    async def decide(self, undecided: Undecided, now: datetime, by: str) -> Decision:
        """Archived, or refused with the reservations that need it."""
        name, tenant = target_of(undecided), undecided.request.tenant
        known = await self._definitions.get(name, tenant)
        if known is None:
            return refused("unknown-definition", "Unknown definition", f"there is no definition {name}", 404)
        if known.phase is DefinitionPhase.ARCHIVED:
            return Decision("AlreadyArchived")
        needed_by = await self._open_reservations(known)
        if needed_by:
            said = f"{len(needed_by)} reservations need {name}, {needed_by[0]} among them: wait for their end or cancel them"
            return refused("definition-in-use", "Definition in use", said, 409)
        reason = str(undecided.request.spec.data.get("reason") or "") or None
        return Decision(
            "Archived", known.moved(DefinitionPhase.ARCHIVED, at=now, by=by, reason="ArchiveRequested", message=reason)
        )

    async def _open_reservations(self, definition: Definition) -> list[str]:
        """Ids of those that have not ended and are of this version."""
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = await self._reservations.list(limit=_PAGE, cursor=cursor)
            found += [
                one.id
                for one in page.items
                if one.spec.definition == definition.id
                and not one.is_final
                and definition.tenant in (one.tenant, _PUBLIC)
            ]
            if page.next_cursor is None:
                return found
            cursor = page.next_cursor
