"""Resources as JSON, written once for all who ask for the same ones: lists that are asked for again and again, the same
reservation read by its people.

Known by identity, because a caller may see less of a resource than another does at the same revision; what a cache holds is
the same object for everybody. Bounded: the oldest is forgotten first.
"""

from collections import OrderedDict
from typing import Any

from lablet_common.resources.model import Resource

_KEPT = 1000
"""As many as the longest page has, so that one that is asked for again and again is written once."""
_kept: OrderedDict[int, tuple[Resource[Any, Any], bytes]] = OrderedDict()
"""By the object's address; holding the object keeps another from taking it."""


def json_once(resource: Resource[Any, Any]) -> bytes:
    """As `json_of`, of what is made anew for each who asks, and so not worth keeping."""
    return resource.public().to_json()


def json_of(resource: Resource[Any, Any]) -> bytes:
    """What may leave the system of it."""
    place = id(resource)
    known = _kept.get(place)
    if known is not None:
        return known[1]
    text = json_once(resource)
    if len(_kept) >= _KEPT:
        _kept.popitem(last=False)
    _kept[place] = resource, text
    return text
