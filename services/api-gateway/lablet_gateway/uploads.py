"""The doors for lab files: what is published lies in staging, and is asked for by its digest (claim check)."""

import re
from typing import Any

from lablet_common.intents import DefinitionPublish
from lablet_common.objects import digest_of as content_digest
from lablet_common.requests import digest_of, new_ids
from lablet_common.resources.artifact import staging_key
from lablet_common.resources.kinds import DEFINITION
from lablet_common.resources.request import Request
from lablet_gateway import problems
from lablet_gateway.asking import NO_SHARD, Asking, intent_of
from lablet_gateway.rights import approves

_OBJECT_KEY = re.compile(r"(?=.{1,512}$)[A-Za-z0-9._=@+~-]+(?:/[A-Za-z0-9._=@+~-]+)*")


class Uploads(Asking):
    """For one caller."""

    async def publish(self, name: str, version: str | None, topology: bytes, overrides: dict[str, Any]) -> Request:
        """A lab file: put into staging under the request's id, then asked for by its digest (claim check)."""
        intent = intent_of(DEFINITION, "publish.requested")
        content = content_digest(topology)
        digest = digest_of({"name": name, "version": version, "content": content, "overrides": overrides})
        if repeated := await self.repeated(intent.kind, digest):
            return repeated
        request_id, _ = new_ids(DEFINITION, self.key)
        staged = staging_key("uploads", self._caller.tenant, request_id)
        body = DefinitionPublish(
            name=name,
            version=version,
            staging=staged,
            digest=content,
            bytes=len(topology),
            overrides=overrides,
            approved=approves(self._caller.principal),
        )
        await self._parts.objects.put(staged, topology, "application/yaml")
        return await self.accept(intent, f"{name}@{version}" if version else name, body, NO_SHARD, digest)

    async def publish_staged(self, body: DefinitionPublish) -> Request:
        """A lab file that its sender has put into the tenant's own staging already. Raises 422 for another place."""
        intent = intent_of(DEFINITION, "publish.requested")
        digest = digest_of(body.to_dict())
        if repeated := await self.repeated(intent.kind, digest):
            return repeated
        own = staging_key("uploads", self._caller.tenant, "")
        if not body.staging.startswith(own) or ".." in body.staging or not _OBJECT_KEY.fullmatch(body.staging):
            # an object store refuses to look for some keys at all, and whoever has to would wait until it does
            remedy = "letters, digits and ._=@+~- between single slashes, at most 512; or upload with POST /definitions"
            raise problems.invalid("data.staging", f"not a key below {own}", remedy)
        body = body.model_copy(update={"approved": approves(self._caller.principal)})
        subject = f"{body.name}@{body.version}" if body.version else body.name
        return await self.accept(intent, subject, body, NO_SHARD, digest)
