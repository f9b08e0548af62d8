"""A lab topology as values: what Lablet reads from a CML file, with everything else kept in `extra`.

The values describe; they do not write files. A changed file is made by `render`, from the author's own bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lablet_artifacts.topology.tree import Scalar

Role = Literal["node tag", "annotation tag", "annotation label"]


@dataclass(frozen=True, slots=True)
class Interface:
    id: str
    label: str | None
    type: str | None
    slot: int | None


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One file of a node's start configuration; `name` is None in files older than schema 0.2.2."""

    name: str | None
    content: str


@dataclass(frozen=True, slots=True)
class Node:
    id: str
    label: str
    node_definition: str
    x: float
    y: float
    image_definition: str | None = None
    cpus: int | None = None
    """Cores; None: what the node definition says."""
    ram_mb: int | None = None
    """MiB; None: what the node definition says."""
    cpu_limit: int | None = None
    """Percent of its cores that the node may use."""
    boot_disk_gb: int | None = None
    data_volume_gb: int | None = None
    tags: tuple[str, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    configuration: tuple[ConfigFile, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict)
    """Fields that Lablet does not know, as plain values."""


@dataclass(frozen=True, slots=True)
class Link:
    """A cable: interface `i1` of node `n1` to interface `i2` of node `n2` (ids)."""

    id: str
    n1: str
    i1: str
    n2: str
    i2: str
    label: str | None = None


@dataclass(frozen=True, slots=True)
class SmartAnnotation:
    tag: str | None
    label: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """A string into which ports and values may be put."""

    scalar: Scalar = field(repr=False)
    role: Role
    field: str
    """Path, such as `nodes[2].tags[0]`."""
    node: str | None
    """Label of the node; None for smart annotations."""
    longest: int
    """Most characters that CML takes in this field."""

    @property
    def text(self) -> str:
        return self.scalar.value


@dataclass(frozen=True, slots=True)
class Topology:
    schema: str
    """Schema version, one of `SCHEMA_VERSIONS`."""
    title: str
    description: str
    notes: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    smart_annotations: tuple[SmartAnnotation, ...] = ()
    places: tuple[Place, ...] = field(default=(), repr=False)
    """In the order of the file."""
    extra: Mapping[str, object] = field(default_factory=dict)
    """Top-level fields that Lablet does not know, as plain values."""
