"""What a resource weighs that is kept in memory: services hold thousands of them, decoded.

Half of a decoded resource is not its values but how pydantic keeps them: a dictionary of its own for each part, notes about
which fields were given, and one more copy of what other parts say as well (slots, sentences, labels, ports). `lighten` takes
that away in place, so that everybody who holds the resource holds the light one:

- the fields of a class have their names once for all instances (key-sharing dictionaries, PEP 412), as ordinary Python
  objects do; `name_fields` has to be called before the first instance is made;
- which fields were given is told by one set for each class: `model_fields_set` names every field from then on, and nothing
  in Lablet asks for it;
- moments, long texts, and flat dictionaries that are equal are one object.

Not guaranteed: that the values of two resources are different objects. Resources are never changed, so nothing can tell;
dictionaries that are shared refuse to be changed.
"""

from datetime import datetime
from functools import cache
from typing import Any, NoReturn

from pydantic import BaseModel

_REMEMBERED = 4096
"""Values that the next resource may share; then they are forgotten, all at once."""
_LONG = 64
"""Characters from which on a text is worth looking for: shorter ones are shared where JSON is parsed."""
_SMALL = frozenset({type(None), bool, int, float})
_FLAT = frozenset({str, int})

_same: dict[Any, Any] = {}


class Sealed(dict[str, Any]):
    """A dictionary that several resources share."""

    __slots__ = ()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("this dictionary belongs to more than one resource, and resources do not change: make another")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def __copy__(self) -> "Sealed":
        return self

    def __deepcopy__(self, _: Any) -> "Sealed":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


_EMPTY = Sealed()


def name_fields(model: type[BaseModel]) -> None:
    """Writes the names of the fields where all instances of the class find them."""
    first = object.__new__(model)
    for name in model.model_fields:
        object.__setattr__(first, name, None)


def lighten(value: BaseModel) -> None:
    """Makes a resource that is kept less than half as large. Does nothing to one that is light already."""
    kind = type(value)
    every = _every_field(kind)
    if value.__pydantic_fields_set__ is every:
        return  # another copy of the store has done it
    keep = object.__setattr__
    keep(value, "__pydantic_fields_set__", every)
    light = object.__new__(kind)
    for name, part in value.__dict__.items():
        keep(light, name, part if type(part) in _SMALL else _light(part))
    keep(value, "__dict__", light.__dict__)


def _light(part: Any) -> Any:
    """The part, or another that is equal."""
    kind = type(part)
    if kind is str:
        return part if len(part) < _LONG else _shared(part, part)
    if kind is datetime:
        return _shared(part, part)
    if kind is dict:
        return _light_dictionary(part)
    if kind is tuple:
        for one in part:
            if isinstance(one, BaseModel):
                lighten(one)
    elif isinstance(part, BaseModel):
        lighten(part)
    return part


def _light_dictionary(part: dict[str, Any]) -> dict[str, Any]:
    if not part:
        return _EMPTY
    kinds = set(map(type, part.values()))
    if len(kinds) > 1 or not kinds <= _FLAT:
        return part
    shared: dict[str, Any] = _shared((*kinds, *part.items()), part)
    return shared


def _shared(key: Any, value: Any) -> Any:
    known = _same.get(key)
    if known is not None:
        return known
    if len(_same) >= _REMEMBERED:
        _same.clear()
    known = _same[key] = Sealed(value) if type(value) is dict else value
    return known


@cache
def _every_field(model: type[BaseModel]) -> set[str]:
    return set(model.model_fields)
