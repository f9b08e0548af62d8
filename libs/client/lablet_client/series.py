"""Series: a term of classes. See every date's fit, book, change and cancel by date."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from lablet_client.collection import Collection
from lablet_client.requests import WAIT, settle
from lablet_common.resources.request import Request
from lablet_common.resources.reservation import Reservation, RosterEntry
from lablet_common.resources.series import Series
from lablet_common.terms import Scope, SeriesChange, SeriesCreate, SeriesRehearsal


class SeriesRoom(Collection[Series]):
    """`/series`."""

    path = "/series"
    model = Series

    async def rehearse(self, body: SeriesCreate, *, wait: float = WAIT) -> SeriesRehearsal:
        """How each date would fit, decided in order; nothing is booked. Raises `Invalid` naming the fields."""
        params = {"dryRun": "true"}
        answer = await self._transport.call("POST", self.path, body=body.to_dict(), params=params, wait=wait)
        return SeriesRehearsal.model_validate(answer.json(), extra="ignore")

    async def create(self, body: SeriesCreate, *, wait: float = WAIT, key: str | None = None) -> Series:
        """Books all dates of a rule (or those that fit) and waits up to `wait` seconds: the series comes back `Placed`, or
        `Pending` when it took longer. Raises `Conflict` naming the dates when it was refused, `Invalid` naming the
        fields. The same `key` gives the same answer."""
        answer = await self._transport.call("POST", self.path, body=body.to_dict(), wait=wait, key=key)
        document = answer.json()
        if document.get("kind") == "Series":
            return self.parse(document)
        await settle(self._transport, answer, wait)
        return await self.get(Request.model_validate(document, extra="ignore").spec.subject.partition("/")[2])

    async def change(
        self,
        series: Series | str,
        *,
        scope: Scope = "all",
        date: str | None = None,
        start: datetime | None = None,
        duration_minutes: int | None = None,
        seats: int | None = None,
        definition: str | None = None,
        roster: Sequence[RosterEntry] | None = None,
        wait: float = WAIT,
    ) -> tuple[Series, dict[str, Any]]:
        """Changes `this` date, this and the `following`, or `all`; `date` says which, `start` is the new start of that date,
        and the others move by as much on the wall clock. Returns the series and what was done: how many dates were
        `changed`, and which were `kept`, with the reason. Raises `Conflict` when none was, `Stale`."""
        current = await self.get(series) if isinstance(series, str) else series
        body = SeriesChange(
            scope=scope,
            date=date,
            start=start,
            duration_minutes=duration_minutes,
            seats=seats,
            definition=definition,
            roster=None if roster is None else tuple(roster),
        )
        headers = {"If-Match": f'"{current.metadata.resource_version}"'}
        return await self._done("PATCH", current.id, wait, body=body.to_dict(), headers=headers)

    async def cancel(
        self, series_id: str, *, scope: Scope = "all", date: str | None = None, reason: str = "", wait: float = WAIT
    ) -> tuple[Series, dict[str, Any]]:
        """Gives dates back; see `change`. A date that has begun goes on, unless `this` names it."""
        params = {"scope": scope, "date": date, "reason": reason or None}
        return await self._done("DELETE", series_id, wait, params=params)

    async def dates(self, series_id: str) -> list[Reservation]:
        """Its reservations as they stand, by date; what has been archived is not among them."""
        found: list[Reservation] = []
        params: dict[str, Any] = {"fieldSelector": f"spec.series={series_id}", "limit": 500}
        while True:
            page = (await self._transport.call("GET", "/reservations", params=params)).json()
            found += [Reservation.model_validate(item, extra="ignore") for item in page["items"]]
            if not page.get("nextCursor"):
                return sorted(found, key=lambda one: one.spec.occurrence or "")
            params["cursor"] = page["nextCursor"]

    async def _done(self, method: str, target: str, wait: float, **call: Any) -> tuple[Series, dict[str, Any]]:
        """Without `Prefer: wait`, so that the outcome says what was done to which date."""
        answer = await self._transport.call(method, self.one(target), **call)
        request = await settle(self._transport, answer, wait)
        done: dict[str, Any] = {} if request is None else dict(request.status.answer or {})
        return await self.get(target), done
