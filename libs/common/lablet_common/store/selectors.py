"""Label and field selectors, as lists and subscriptions take them.

Labels: `a=b`, `a==b`, `a!=b`, `a in (x,y)`, `a notin (x,y)`, `a` (has it), `!a` (has it not), joined by commas, all of
which must hold; `!=` and `notin` hold where the label is missing. Fields: `status.phase=Scheduled` and `!=`, by the
names that stand in the JSON; a list holds when one of its elements does.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Self, get_args

from pydantic import BaseModel
from pydantic.alias_generators import to_snake

from lablet_common.resources.model import Resource, format_time

_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"
_HAS = re.compile(rf"(?P<not>!\s*)?(?P<name>{_NAME})$")
_EQUALS = re.compile(rf"(?P<name>{_NAME})\s*(?P<op>==|=|!=)\s*(?P<value>[^\s=!(),]*)$")
_SET = re.compile(rf"(?P<name>{_NAME})\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)$")
_FIELD = re.compile(r"(?P<path>[A-Za-z][A-Za-z0-9]*(\.[A-Za-z0-9_/-]+)*)\s*(?P<op>==|=|!=)\s*(?P<value>.*)$", re.DOTALL)

MOST_CHARACTERS = 4_096
"""Of a selector."""


class SelectorError(ValueError):
    """A selector that cannot be understood; the message names the part and the remedy."""


class _Test(StrEnum):
    IN = "in"
    NOT_IN = "notin"
    HAS = "has"
    HAS_NOT = "hasnot"


@dataclass(frozen=True, slots=True)
class _Requirement:
    name: str
    test: _Test
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        match self.test:
            case _Test.HAS:
                return self.name in labels
            case _Test.HAS_NOT:
                return self.name not in labels
            case _Test.IN:
                return labels.get(self.name) in self.values
            case _Test.NOT_IN:
                return labels.get(self.name) not in self.values


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Requirements on labels, all of which must hold; none: everything matches."""

    requirements: tuple[_Requirement, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `SelectorError`."""
        return cls(tuple(_label_requirement(part) for part in _parts(text)))

    def matches(self, resource: Resource[Any, Any]) -> bool:
        return self.matches_labels(resource.metadata.labels)

    def matches_labels(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.holds(labels) for requirement in self.requirements)


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Comparisons of fields, all of which must hold; none: everything matches."""

    comparisons: tuple[tuple[tuple[str, ...], bool, str], ...] = ()
    """Path, whether it must be equal, and the value."""

    @classmethod
    def parse(cls, text: str, model: type[BaseModel] | None = None) -> Self:
        """Raises `SelectorError`, also for a field that `model` (a kind's resource) does not have."""
        comparisons = []
        for part in _parts(text):
            found = _FIELD.match(part)
            if found is None:
                raise SelectorError(f"{part!r} is no field selector: write path=value or path!=value")
            path = tuple(found["path"].split("."))
            if model is not None:
                _check_path(model, path)
            comparisons.append((path, found["op"] != "!=", found["value"].strip()))
        return cls(tuple(comparisons))

    def matches(self, resource: Resource[Any, Any]) -> bool:
        return self.holds(resource)

    def holds(self, resource: Resource[Any, Any]) -> bool:
        """Whether the comparisons hold for just this value."""
        return all((value in _texts(resource, path)) is equal for path, equal, value in self.comparisons)


def _parts(text: str) -> list[str]:
    """The requirements of a selector: split at commas outside brackets. Strangers send selectors, so a long one is refused
    before anything looks at it, and one look is enough."""
    if not text.strip():
        return []
    if len(text) > MOST_CHARACTERS:
        raise SelectorError(
            f"the selector has {len(text):,} characters, more than {MOST_CHARACTERS:,}: ask in several lists"
        )
    parts, begin, inside = [], 0, False
    for at, character in enumerate(text):
        if character == "," and not inside:
            parts.append(text[begin:at].strip())
            begin = at + 1
        elif character in "()":
            inside = character == "("
    parts.append(text[begin:].strip())
    if "" in parts:
        raise SelectorError(f"{text!r} has an empty part: remove the superfluous comma")
    return parts


def _label_requirement(part: str) -> _Requirement:
    if found := _SET.match(part):
        values = frozenset(value.strip() for value in found["values"].split(","))
        return _Requirement(found["name"], _Test(found["op"]), values)
    if found := _EQUALS.match(part):
        test = _Test.NOT_IN if found["op"] == "!=" else _Test.IN
        return _Requirement(found["name"], test, frozenset({found["value"]}))
    if found := _HAS.match(part):
        return _Requirement(found["name"], _Test.HAS_NOT if found["not"] else _Test.HAS)
    raise SelectorError(f"{part!r} is no label selector: write a=b, a!=b, a in (x,y), a notin (x,y), a or !a")


def _texts(value: Any, path: tuple[str, ...]) -> Iterable[str]:
    """The values at the path as they stand in the JSON, as text; several where lists lie on the way."""
    if value is None:
        return ()
    if isinstance(value, list | tuple | set | frozenset):
        return [text for element in value for text in _texts(element, path)]
    if not path:
        return (_text(value),)
    head, rest = path[0], path[1:]
    if isinstance(value, BaseModel):
        return _texts(getattr(value, _attribute(type(value), head) or "", None), rest)
    if isinstance(value, Mapping):
        whole = ".".join(path)  # keys may have dots themselves
        return (_text(value[whole]),) if whole in value else _texts(value.get(head), rest)
    return ()


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return format_time(value)
    return str(value)


@lru_cache(maxsize=1024)
def _attribute(model: type[BaseModel], name: str) -> str | None:
    """The attribute behind a name in the JSON. Asked for every resource of a list."""
    snake = to_snake(name)
    if snake in model.model_fields:
        return snake
    return next((field for field, info in model.model_fields.items() if info.alias == name), None)


def _check_path(model: type[BaseModel], path: tuple[str, ...]) -> None:
    kind: Any = model
    for step, name in enumerate(path):
        models = [part for part in _flatten(kind) if isinstance(part, type) and issubclass(part, BaseModel)]
        if not models:
            if step and any(part is dict for part in _flatten(kind)):
                return  # labels, ports and other free keys
            raise SelectorError(f"{'.'.join(path)} goes on below {'.'.join(path[:step])}, which has no fields")
        attribute = _attribute(models[0], name)
        if attribute is None:
            known = ", ".join(sorted(info.alias or field for field, info in models[0].model_fields.items()))
            raise SelectorError(f"there is no field {'.'.join(path[: step + 1])}; known here are {known}")
        kind = models[0].model_fields[attribute].annotation


def _flatten(annotation: Any) -> Iterable[Any]:
    """The classes inside unions, tuples and annotated types."""
    if origin := getattr(annotation, "__origin__", None):
        yield origin
    arguments = get_args(annotation)
    if not arguments:
        yield annotation
    for argument in arguments:
        yield from _flatten(argument)
