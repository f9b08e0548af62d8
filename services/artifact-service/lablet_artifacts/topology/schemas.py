"""The versions of the topology schema, and which CML takes them.

The list is the enumeration of the CML 2.9 API. The oldest CML per schema is deliberately a careful choice, not a
published fact: a definition may name its own range, and a CML that is newer than the table always qualifies, because
CML imports every older schema.
"""

from __future__ import annotations

_MIN_CML = {
    "0.0.1": "2.0",
    "0.0.2": "2.0",
    "0.0.3": "2.0",
    "0.0.4": "2.1",
    "0.0.5": "2.2",
    "0.1.0": "2.3",
    "0.2.0": "2.6",
    "0.2.1": "2.6",
    "0.2.2": "2.7",
    "0.3.0": "2.9",
}

SCHEMA_VERSIONS: tuple[str, ...] = tuple(_MIN_CML)
"""Every schema version that Lablet reads, oldest first."""


def min_cml_version(schema: str) -> str:
    """The oldest CML version that a file of this schema is placed on. Raises KeyError for an unknown schema."""
    return _MIN_CML[schema]
