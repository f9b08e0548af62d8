"""Examples from JSON Schemas: whole ones from the story where it has one, else what the schema says, in the story's words.

The same schema always gives the same example. Fields that may be missing and of which the story says nothing are left
out, so that an example shows what there usually is.
"""

import json
from collections.abc import Mapping
from typing import Any

from lablet_gateway.reference.story import DIGEST, SHOWN, WORDS

Schema = Mapping[str, Any]
_DEPTH = 12
_REFERENCE = "#/components/schemas/"

_NEVER = frozenset({"deletionTimestamp", "traceParent", "annotations", "finalizers"})


def sample(schema: Schema, known: Mapping[str, Schema], name: str = "", depth: int = 0) -> Any:
    """An example for the schema; `known` are the schemas that it may refer to."""
    named = schema.get("$ref", "").removeprefix(_REFERENCE)
    if named in SHOWN:
        return SHOWN[named]
    schema = resolved(schema, known)
    if schema.get("examples"):
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return WORDS[name] if WORDS.get(name) in schema["enum"] else schema["enum"][0]
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            options = [option for option in schema[choice] if option.get("type") != "null"]
            return sample(options[0], known, name, depth)
    kind = schema.get("type")
    word = WORDS.get(name)
    if word is not None and _fits(word, kind):
        return word
    match kind:
        case "object":
            return _object(schema, known, depth)
        case "array":
            return _array(schema, known, name, depth)
        case "string":
            return _text(schema, name)
        case "integer" | "number":
            least = schema.get(
                "minimum", schema.get("exclusiveMinimum", 0) + (1 if "exclusiveMinimum" in schema else 0)
            )
            return schema.get("default") or max(least, 1 if least == 0 else least)
        case "boolean":
            return bool(schema.get("default", False))
        case _:
            return schema.get("default", {})


def resolved(schema: Schema, known: Mapping[str, Schema]) -> Schema:
    while "$ref" in schema:
        schema = known[schema["$ref"].removeprefix(_REFERENCE)]
    return schema


def _object(schema: Schema, known: Mapping[str, Schema], depth: int) -> Any:
    required = set(schema.get("required", ()))
    found = {}
    for name, part in schema.get("properties", {}).items():
        wanted = (
            name in required
            or (name in WORDS and not _may_be_null(part))
            or "const" in part
            or _tells(part, known, depth)
        )
        if wanted and (name not in _NEVER or name in required) and depth < _DEPTH:
            found[name] = sample(part, known, name, depth + 1)
    return found


def _may_be_null(part: Schema) -> bool:
    return any(option.get("type") == "null" for option in part.get("anyOf", ()))


def _tells(part: Schema, known: Mapping[str, Schema], depth: int) -> bool:
    """An object of its own near the top, even where it may be missing."""
    return depth < 2 and resolved(part, known).get("type") == "object" and "properties" in resolved(part, known)


def _array(schema: Schema, known: Mapping[str, Schema], name: str, depth: int) -> list[Any]:
    if "prefixItems" in schema:
        return [sample(item, known, name, depth + 1) for item in schema["prefixItems"]]
    if depth > 3 and not schema.get("minItems"):
        return []
    return [sample(schema.get("items", {}), known, _singular(name), depth + 1)]


def _singular(name: str) -> str:
    return {"history": "", "workers": "worker", "seats": "seat", "artifacts": "artifact"}.get(name, "")


def _text(schema: Schema, name: str) -> str:
    match schema.get("format"):
        case "date-time":
            return "2027-03-01T09:00:00Z"
        case "date":
            return "2027-03-01"
        case "binary":
            return "…"
    if schema.get("default"):
        return str(schema["default"])
    pattern = schema.get("pattern", "")
    if "sha256" in name.lower() or "{64}" in pattern:
        return DIGEST
    if pattern.startswith("^key-"):
        return "key-h3kq5v7c2m4n6p8r2t4w6y3z5a"
    return name.lower() if pattern and name else name or "text"


def _fits(word: Any, kind: Any) -> bool:
    kinds: Mapping[str, tuple[type, ...]] = {
        "string": (str,), "integer": (int,), "number": (int, float), "object": (dict,), "array": (list,),
    }  # fmt: skip
    return isinstance(kind, str) and isinstance(word, kinds.get(kind, ())) and not isinstance(word, bool)


def steady(document: Any) -> str:
    """The document as it is stored: the same for the same content."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
