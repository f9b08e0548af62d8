"""CML lab files: read and checked, sized, their ports named, and rendered for one seat. Pure: bytes in, values out."""

from lablet_artifacts.topology.model import ConfigFile, Interface, Link, Node, Place, SmartAnnotation, Topology
from lablet_artifacts.topology.node_types import NODE_TYPES, NodeType, read_node_types
from lablet_artifacts.topology.ports import PROTOCOLS, NamedPort, derived_name, find_ports, find_tokens
from lablet_artifacts.topology.problems import LabFileError, Problem, RenderError, TopologyError
from lablet_artifacts.topology.reading import read_topology
from lablet_artifacts.topology.rendering import render
from lablet_artifacts.topology.requirements import (
    UNCOUNTED,
    Requirements,
    image_definitions,
    infer_requirements,
    node_definitions,
)
from lablet_artifacts.topology.schemas import SCHEMA_VERSIONS, min_cml_version

__all__ = [
    "NODE_TYPES",
    "PROTOCOLS",
    "SCHEMA_VERSIONS",
    "UNCOUNTED",
    "ConfigFile",
    "Interface",
    "LabFileError",
    "Link",
    "NamedPort",
    "Node",
    "NodeType",
    "Place",
    "Problem",
    "RenderError",
    "Requirements",
    "SmartAnnotation",
    "Topology",
    "TopologyError",
    "derived_name",
    "find_ports",
    "find_tokens",
    "image_definitions",
    "infer_requirements",
    "min_cml_version",
    "node_definitions",
    "read_node_types",
    "read_topology",
    "render",
]
