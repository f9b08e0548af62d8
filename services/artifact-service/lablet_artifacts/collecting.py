"""Taking over what a lab has left in staging: verified against its manifest, stored by content, referred to by name."""

import json
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from lablet_artifacts.references import References, keep
from lablet_common.objects import ObjectMissing, ObjectStore, digest_of
from lablet_common.references import Use
from lablet_common.resources.artifact import Reference
from lablet_common.resources.instance import Instance, Staged
from lablet_common.resources.model import Model

log = logging.getLogger("lablet.artifacts.collecting")


class StagedFile(Model):
    """One line of a manifest."""

    name: str
    key: str
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: int
    media_type: str


_MANIFEST = TypeAdapter(tuple[StagedFile, ...])


async def take_over(
    objects: ObjectStore,
    references: References,
    instance: Instance,
    staged: Staged,
    known: Sequence[Use],
    now: datetime,
) -> bool:
    """Stores every file of the manifest and then clears the staging; False when there is no manifest any more (it has been
    taken over before). A file that is not what its manifest says is left out and named in the log. A file of the same name
    that the attempt had left earlier is no longer referred to."""
    try:
        manifest = _MANIFEST.validate_python(json.loads(await objects.get(staged.manifest)))
    except ObjectMissing:
        return False
    except (ValueError, ValidationError) as error:
        log.error("a manifest cannot be read", extra={"instance": instance.id, "cause": str(error)})  # noqa: TRY400
        return False
    for file in manifest:
        try:
            data = await objects.get(file.key)
        except ObjectMissing:
            # a crash between the clearing of the files and that of their manifest
            log.info("a staged file is not there (any more)", extra={"instance": instance.id, "file": file.name})
            continue
        if digest_of(data) != file.digest:
            log.error("a staged file is not what its manifest says", extra={"instance": instance.id, "file": file.name})
            continue
        reference = Reference(
            subject=f"instance/{instance.id}", role=staged.role, name=file.name, attempt=staged.attempt
        )
        await keep(objects, references, instance.tenant, data, file.media_type, reference, now)
        for use in known:
            if use.artifact.id != file.digest and use.reference == reference:
                await references.drop(instance.tenant, use.artifact.id, [reference])
    for file in manifest:
        await objects.delete(file.key)
    await objects.delete(staged.manifest)
    return True
