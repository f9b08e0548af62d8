"""The parts of a CML lab file that rendering touches: tags of nodes, and smart annotations.

A controller keeps a smart annotation for each tag by itself: it makes one with looks of its own for a new tag, and drops that
of a tag which no node has any more. So a lab whose tags were changed may have more of them than its file.
"""

from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML


@dataclass(frozen=True, slots=True)
class SeatParts:
    """What makes one seat's lab differ from another's."""

    tags: dict[str, list[str]]
    """Node label → its tags, in order."""
    annotations: tuple[dict[str, Any], ...]
    """Smart annotations without their ids, in order."""

    def shown_in(self, lab: "SeatParts") -> bool:
        """The lab has just these tags, and for each annotation one with its tag and label."""
        return self.tags == lab.tags and _marks(self) <= _marks(lab)


def _marks(parts: SeatParts) -> set[tuple[str, str]]:
    return {(str(one.get("tag") or ""), str(one.get("label") or "")) for one in parts.annotations}


def parts_of(topology: bytes) -> SeatParts:
    """Of a lab file. Raises ruamel's `YAMLError` for what is none."""
    return parts_in(YAML(typ="safe", pure=True).load(topology))


def parts_in(document: Any) -> SeatParts:
    """Of a lab as a controller tells it."""
    return SeatParts(
        tags={str(node["label"]): [str(tag) for tag in node.get("tags") or ()] for node in document.get("nodes") or ()},
        annotations=tuple(
            {name: value for name, value in one.items() if name != "id"}
            for one in document.get("smart_annotations") or ()
        ),
    )
