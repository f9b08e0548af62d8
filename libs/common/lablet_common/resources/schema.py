"""The shape in which resources are stored, and how the values of other releases are read.

Every stored value says the version of its kind's shape, `schemaVersion`; one that says none has version 1. An older one is
brought to the present version on read, by pure functions over its JSON, and stored as that with its next change. A newer
one is refused: what it means cannot be known here, and deciding as if it were absent could give a place twice.

Within one version a newer release may add fields. Whoever does not know them keeps them: they stay beside the model, come
back with the next write, and decide nothing. So replicas of two releases can take turns as owners of the same resources.

Not guaranteed: that an older release reads a newer version, nor that a field added in a part which an older release builds
anew from scratch survives that. ADR 0027 says when a version has to grow.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lablet_common.resources.model import Resource

Document = dict[str, Any]
Migration = Callable[[Document], Document]
"""From one version to the next; the document is the function's own to change."""


def _artifact_carries_all(document: Document) -> Document:
    """Version 1 of an artifact: all its references stand in it, and none beside it. Nothing has to change."""
    return document


MIGRATIONS: Mapping[str, tuple[Migration, ...]] = {"Artifact": (_artifact_carries_all,)}
"""By the kind's word in documents (`Reservation`): the first one leads from version 1 to 2. A kind whose shape has changed
narrows `schema_version` to its newest version."""

R = TypeVar("R", bound=Resource[Any, Any])

_log = logging.getLogger(__name__)
_told: set[str] = set()


class NewerSchema(ValueError):
    """Written by a later release than this one."""

    def __init__(self, kind: str, version: int, known: int) -> None:
        super().__init__(
            f"it is a {kind} of schema version {version}, and this release reads up to {known}: "
            "a later release wrote it; bring this service to that release"
        )
        self.version = version


def newest(model: type[Resource[Any, Any]]) -> int:
    """The version that this release writes."""
    return 1 + len(MIGRATIONS.get(_word(model), ()))


def read(model: type[R], data: bytes) -> R:
    """The resource of a stored value of this release, an older one, or a newer one of the same version. Raises
    `ValueError`, `NewerSchema` among them."""
    try:
        found = model.model_validate_json(data)
    except ValidationError:
        return _of_another_release(model, data)
    return found if _is_present(found) else _of_another_release(model, data)


def of_document(model: type[R], document: Document) -> R:
    """As `read`, of a value that has been parsed: an event's data, which another release may have published."""
    try:
        found = model.model_validate(document)
    except ValidationError:
        return _of_another_release(model, json.dumps(document).encode())
    return found if _is_present(found) else _of_another_release(model, json.dumps(document).encode())


def _is_present(found: Resource[Any, Any]) -> bool:
    version = newest(type(found))
    return found.schema_version == version and (version == 1 or "schema_version" in found.model_fields_set)


def migrated(model: type[Resource[Any, Any]], document: Document) -> Document:
    """The document in the newest version. Raises `NewerSchema`, and `ValueError` where its version is none."""
    version, known = document.get("schemaVersion", 1), newest(model)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"schemaVersion is {version!r}: a whole number from 1 is wanted")
    if version > known:
        raise NewerSchema(_word(model), version, known)
    for migration in MIGRATIONS.get(_word(model), ())[version - 1 :]:
        document = migration(document)
    return document | {"schemaVersion": known}


def with_unknown(resource: Resource[Any, Any]) -> Document:
    """Its JSON together with the fields that this release does not know, where `read` found them."""
    document = resource.to_dict()
    for place, unknown in _unknown(resource, document):
        place.update({name: value for name, value in unknown.items() if name not in place})
    return document


def to_json(resource: Resource[Any, Any]) -> bytes:
    """The resource as a document that leaves the store, with what `with_unknown` has."""
    if resource.model_extra is None:
        return resource.to_json()
    return json.dumps(with_unknown(resource), ensure_ascii=False, separators=(",", ":")).encode()


def _word(model: type[Resource[Any, Any]]) -> str:
    return str(model.model_fields["kind"].default)


def _of_another_release(model: type[R], data: bytes) -> R:
    document = json.loads(data)
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - a value that cannot be read, whatever is wrong with it
    text = json.dumps(migrated(model, document))
    try:
        return model.model_validate_json(text)
    except ValidationError:
        found = model.model_validate_json(text, extra="allow")
    for _, unknown in _unknown(found, found.to_dict()):
        _tell(_word(model), unknown)
    return found


def _unknown(value: Any, document: Any) -> Iterator[tuple[Document, Document]]:
    """Each object of the document whose model holds fields that it does not know, and those."""
    if isinstance(value, BaseModel):
        if value.model_extra:
            yield document, value.model_extra
        for name, field in type(value).model_fields.items():
            word = field.alias or name
            if word in document:
                yield from _unknown(getattr(value, name), document[word])
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if key in document:
                yield from _unknown(part, document[key])
    elif isinstance(value, tuple):
        for part, shown in zip(value, document, strict=True):
            yield from _unknown(part, shown)


def _tell(kind: str, unknown: Mapping[str, Any]) -> None:
    """Once for each field."""
    for name in unknown:
        if f"{kind} {name}" not in _told:
            _told.add(f"{kind} {name}")
            _log.warning("a later release has added a field: it is kept", extra={"kind": kind, "field": name})
