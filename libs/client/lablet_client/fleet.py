"""The fleet: workers, pools and templates, and their calendars."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar

from lablet_client.collection import Collection
from lablet_client.errors import NotFound
from lablet_client.requests import WAIT, settle
from lablet_common.drains import DrainPlan
from lablet_common.intents import Optimisation, PoolOptimise, PoolReplace, WorkerCordon, WorkerDrain, WorkerReplace
from lablet_common.loads import LoadOf, WorkerLoad
from lablet_common.resources.model import Model, Resource, format_time
from lablet_common.resources.worker import PoolSpec, TemplateSpec, Worker, WorkerPool, WorkerTemplate


class Workers(Collection[Worker]):
    """`/workers`."""

    path = "/workers"
    model = Worker

    async def drain(
        self,
        name: str,
        *,
        at: datetime | None = None,
        until: datetime | None = None,
        deadline_minutes: int | None = None,
        message: str = "",
        force: bool = False,
        wait: float = WAIT,
    ) -> Worker:
        """Empties a worker: nothing new is placed on it, booked seats move away, running labs go on to their end or the
        deadline. Times are lab time."""
        body = WorkerDrain(at=at, until=until, deadline_minutes=deadline_minutes, message=message, force=force)
        return await self._act(name, "drain", body, wait)

    async def cancel_drain(self, name: str, *, wait: float = WAIT) -> Worker:
        """Takes a drain back."""
        return await self._act(name, "cancel-drain", None, wait)

    async def cordon(self, name: str, *, reason: str, until: datetime | None = None, wait: float = WAIT) -> Worker:
        """Nothing new is placed on it; what is there stays."""
        return await self._act(name, "cordon", WorkerCordon(reason=reason, until=until), wait)

    async def uncordon(self, name: str, *, wait: float = WAIT) -> Worker:
        return await self._act(name, "uncordon", None, wait)

    async def drain_plan(
        self,
        name: str,
        *,
        at: datetime | None = None,
        until: datetime | None = None,
        deadline_minutes: int | None = None,
        force: bool = False,
    ) -> DrainPlan:
        """What a drain would do: which seats would move, which labs would stay and until when, which would be ended."""
        body = WorkerDrain(at=at, until=until, deadline_minutes=deadline_minutes, force=force)
        path = f"{self.one(name)}/drain"
        answer = await self._transport.call("POST", path, params={"dryRun": "true"}, body=body.to_dict())
        return DrainPlan.model_validate(answer.json(), extra="ignore")

    async def replace(
        self,
        name: str,
        *,
        deadline_minutes: int | None = None,
        message: str = "",
        force: bool = False,
        wait: float = WAIT,
    ) -> Worker:
        """Drains the logical worker and gives it a new machine."""
        body = WorkerReplace(deadline_minutes=deadline_minutes, message=message, force=force)
        return await self._act(name, "replace", body, wait)

    async def calendar(self, name: str, *, start: datetime | None = None, end: datetime | None = None) -> Any:
        """What is booked on it between two instants of lab time."""
        return await _calendar(self, name, start, end)

    async def load(self, name: str) -> WorkerLoad | None:
        """What its machine uses now, as it told last; None while it is off or does not answer."""
        answer = await self._transport.call("GET", f"{self.one(name)}/load")
        return LoadOf.model_validate(answer.json(), extra="ignore").load

    async def _act(self, name: str, verb: str, body: Model | None, wait: float) -> Worker:
        document = body.to_dict() if body is not None else None
        answer = await self._transport.call("POST", f"{self.one(name)}/{verb}", body=document, wait=wait)
        await settle(self._transport, answer, wait)
        return await self.get(name)


R = TypeVar("R", bound=Resource[Any, Any])


class _Specified(Collection[R], Generic[R]):
    """Kinds that people write themselves: put a whole spec, or delete."""

    async def _apply(self, name: str, spec: Model, labels: Mapping[str, str], revision: str | None, wait: float) -> R:
        if revision is None:
            try:
                revision = (await self.get(name)).metadata.resource_version
            except NotFound:
                revision = None
        condition = {"If-Match": f'"{revision}"'} if revision is not None else {"If-None-Match": "*"}
        body = {"spec": spec.to_dict(), "labels": dict(labels)}
        answer = await self._transport.call("PUT", self.one(name), body=body, headers=condition, wait=wait)
        await settle(self._transport, answer, wait)
        return await self.get(name)

    async def delete(self, name: str, *, wait: float = WAIT) -> None:
        """Deletes it. Raises `Conflict` while it is in use."""
        current = await self.get(name)
        headers = {"If-Match": f'"{current.metadata.resource_version}"'}
        answer = await self._transport.call("DELETE", self.one(name), headers=headers, wait=wait)
        await settle(self._transport, answer, wait)


class Pools(_Specified[WorkerPool]):
    """`/pools`."""

    path = "/pools"
    model = WorkerPool

    async def apply(
        self,
        name: str,
        spec: PoolSpec,
        *,
        labels: Mapping[str, str] | None = None,
        revision: str | None = None,
        wait: float = WAIT,
    ) -> WorkerPool:
        """Makes the pool so, new or changed. `revision` is the one it must still have (`Stale` otherwise); without it,
        the present one."""
        return await self._apply(name, spec, labels or {}, revision, wait)

    async def replace(
        self,
        name: str,
        *,
        max_unavailable: int = 1,
        deadline_minutes: int | None = None,
        message: str = "",
        wait: float = WAIT,
    ) -> WorkerPool:
        """Gives all its workers new machines, so many at a time."""
        body = PoolReplace(max_unavailable=max_unavailable, deadline_minutes=deadline_minutes, message=message)
        return await self._act(name, "replace", body, wait)

    async def cancel_replace(self, name: str, *, wait: float = WAIT) -> WorkerPool:
        """Asks no further worker to be replaced."""
        return await self._act(name, "cancel-replace", None, wait)

    async def _act(self, name: str, verb: str, body: Model | None, wait: float) -> WorkerPool:
        document = body.to_dict() if body is not None else None
        answer = await self._transport.call("POST", f"{self.one(name)}/{verb}", body=document, wait=wait)
        await settle(self._transport, answer, wait)
        return await self.get(name)

    async def calendar(self, name: str, *, start: datetime | None = None, end: datetime | None = None) -> Any:
        """Free capacity between two instants of lab time."""
        return await _calendar(self, name, start, end)

    async def optimise(
        self,
        name: str,
        *,
        dry_run: bool = False,
        max_moves: int | None = None,
        budget_seconds: float = 5.0,
        wait: float = WAIT,
    ) -> Optimisation:
        """Moves seats that have not started so that workers can be off longer; `dry_run` only tells what that would save. A
        plan is looked for during `budget_seconds`, and waited for `wait` seconds more. Raises `Unavailable` when other
        bookings were always faster, `TimedOut`."""
        body = PoolOptimise(dry_run=dry_run, max_moves=max_moves, budget_seconds=budget_seconds)
        patience = budget_seconds + wait
        answer = await self._transport.call("POST", f"{self.one(name)}:optimise", body=body.to_dict(), wait=patience)
        request = await settle(self._transport, answer, patience)
        found = answer.json() if request is None else request.status.answer
        return Optimisation.model_validate(found, extra="ignore")


class Templates(_Specified[WorkerTemplate]):
    """`/templates`."""

    path = "/templates"
    model = WorkerTemplate

    async def apply(
        self,
        name: str,
        spec: TemplateSpec,
        *,
        labels: Mapping[str, str] | None = None,
        revision: str | None = None,
        wait: float = WAIT,
    ) -> WorkerTemplate:
        """Makes the template so, new or changed; `revision` as for pools."""
        return await self._apply(name, spec, labels or {}, revision, wait)


async def _calendar(collection: Collection[R], name: str, start: datetime | None, end: datetime | None) -> Any:
    params = {"from": format_time(start) if start else None, "to": format_time(end) if end else None}
    return (await collection._transport.call("GET", f"{collection.one(name)}/calendar", params=params)).json()
