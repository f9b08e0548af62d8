"""What a subject refers to, linearizably: from memory once that has caught up with the store, else from the store at one
revision.
"""

from lablet_common.references import Use, older_references, uses_of
from lablet_common.resources.artifact import Artifact
from lablet_common.resources.kinds import ARTIFACT
from lablet_common.store.repository import Repository
from lablet_gateway import reads
from lablet_gateway.parts import Parts


async def of_subject(parts: Parts, subject: str, tenant: str) -> list[Use]:
    """All uses of the tenant's content by `instance/…` or `definition/…`."""
    if await reads.caught_up(parts, ARTIFACT):
        return [use for use in uses_of(parts.caches, subject) if use.artifact.tenant == tenant]
    repository: Repository[Artifact] = Repository(parts.store, ARTIFACT, reads.known_to(parts, ARTIFACT))
    artifacts = await repository.list(tenant)
    found = []
    for artifact in artifacts.items:
        found += [Use(artifact, one) for one in artifact.status.references if one.subject == subject]
        async for page in older_references(parts.store, artifact, revision=artifacts.revision):
            found += [Use(artifact, one) for one in page if one.subject == subject]
    return found
