"""The doors for the fleet's shape: pools and templates as they shall be, and hosts that join."""

from collections.abc import Iterable
from typing import Any, cast

from pydantic.alias_generators import to_camel

from lablet_common.intents import PoolApply, TemplateApply, WorkerRegister
from lablet_common.requests import digest_of
from lablet_common.resources.kinds import BRIDGE_SHARD, POOL, TEMPLATE, WORKER, Kind
from lablet_common.resources.request import Request
from lablet_common.resources.worker import MOST_LEAD_MINUTES, PoolSpec, TemplateSpec, WorkerPool, WorkerTemplate
from lablet_gateway import problems, reads
from lablet_gateway.answers import check_match
from lablet_gateway.asking import NO_SHARD, Asking, digest_about, intent_of
from lablet_gateway.identity.keys import OWNER_PREFIX
from lablet_gateway.merging import merged
from lablet_gateway.problems import field_error
from lablet_gateway.rights import Scope

_POOL_LEADS = ("scale_down_grace_minutes", "preparation_minutes", "boot_reserve_minutes", "turnaround_minutes")
_TEMPLATE_LEADS = ("boot_minutes",)


class FleetIntake(Asking):
    """For one caller."""

    async def register(self, name: str, body: WorkerRegister) -> Request:
        """A host that joins as the worker of that name. Raises 403 for another's name, 422 for an unknown pool."""
        if self._caller.scope is not Scope.ALL and self._caller.name.removeprefix(OWNER_PREFIX) != name:
            raise problems.FORBIDDEN(f"this token is for the worker {self._caller.name}, not {name}")
        digest = digest_about(name, body)
        if repeated := await self.repeated(WORKER, digest):
            return repeated
        if await reads.get(self._parts, POOL, body.pool) is None:
            remedy = problems.nearest(body.pool, await reads.names(self._parts, POOL))
            raise problems.invalid("pool", f"there is no pool {body.pool}", remedy)
        return await self.accept(intent_of(WORKER, "register.requested"), name, body, body.pool, digest)

    async def apply(self, kind: Kind, name: str, body: PoolApply | TemplateApply) -> Request:
        """A pool or template as it shall be; made if it is not there. Raises 412, 428 and 422."""
        digest = digest_about(name, body)
        if repeated := await self.repeated(kind, digest):
            return repeated
        repeated = await self.unless_repeated(kind, digest, self._check_apply(kind, name, body))
        return repeated or await self.accept(intent_of(kind, "apply.requested"), name, body, NO_SHARD, digest)

    async def patch(self, kind: Kind, name: str, patch: dict[str, Any]) -> Request:
        """A pool or template with a JSON merge patch (RFC 7396) laid over what it shall be; a repeated key is known by the
        patch. Raises 404, 412, 428 and 422."""
        digest = digest_of({"subject": name, "patch": patch})
        if repeated := await self.repeated(kind, digest):
            return repeated
        body = await self.unless_repeated(kind, digest, self._patched(kind, name, patch))
        if isinstance(body, Request):
            return body
        return await self.accept(intent_of(kind, "apply.requested"), name, body, NO_SHARD, digest)

    async def _patched(self, kind: Kind, name: str, patch: dict[str, Any]) -> PoolApply | TemplateApply:
        present = await reads.get(self._parts, kind, name)
        if present is None:
            raise problems.unknown(kind.name, name)
        check_match(self._ask.if_match, present, required=True)
        self._meant_for = present.revision
        model = PoolApply if kind is POOL else TemplateApply
        body = model.model_validate(merged(cast("WorkerPool | WorkerTemplate", present), patch))
        await self._check_spec(body)
        return body

    async def _check_apply(self, kind: Kind, name: str, body: PoolApply | TemplateApply) -> None:
        present = await reads.get(self._parts, kind, name)
        self._meant_for = check_match(self._ask.if_match, present, required=True)
        if kind is POOL and present is None and name.startswith(BRIDGE_SHARD):
            why = f"{name} begins with {BRIDGE_SHARD}, as only the services' own shards do"
            raise problems.invalid("name", why, "name it otherwise")
        await self._check_spec(body)

    async def _check_spec(self, body: PoolApply | TemplateApply) -> None:
        """Raises 422 for what its model does not refuse by itself."""
        errors = (
            await self._pool_errors(body) if isinstance(body, PoolApply) else _lead_errors(body.spec, _TEMPLATE_LEADS)
        )
        if errors:
            raise problems.several(errors)

    async def _pool_errors(self, body: PoolApply) -> list[dict[str, str]]:
        errors = _lead_errors(body.spec, _POOL_LEADS)
        if body.spec.min > body.spec.max:
            errors.append(field_error("spec.min", f"{body.spec.min} is above max, which is {body.spec.max}"))
        known = await reads.names(self._parts, TEMPLATE)
        if body.spec.template not in known:
            template = body.spec.template
            errors.append(
                field_error("spec.template", f"there is no template {template}", problems.nearest(template, known))
            )
        return errors


def _lead_errors(spec: PoolSpec | TemplateSpec, fields: Iterable[str]) -> list[dict[str, str]]:
    """What takes longer than the calendar looks around a day."""
    return [
        field_error(
            f"spec.{to_camel(name)}",
            f"{minutes:,} minutes are more than a day",
            f"at most {MOST_LEAD_MINUTES:,}",
        )
        for name in fields
        if (minutes := getattr(spec, name) or 0) > MOST_LEAD_MINUTES
    ]
