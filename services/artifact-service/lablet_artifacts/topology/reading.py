"""From the bytes of a lab file to a `Topology`, or to the list of what is wrong with it.

The checks are those whose failure would only show when CML imports the file, an hour later and on a worker: structure,
types, ranges, identities, cables. The ranges are those of the CML 2.9 API. Fields that nobody here knows are kept and
let through; whether a node definition or an image exists is for the workers to say.
"""

from __future__ import annotations

from contextlib import suppress

from lablet_artifacts.topology.cables import read_links
from lablet_artifacts.topology.fields import Fields, flat, is_null, is_text, kind, plain_value
from lablet_artifacts.topology.model import (
    ConfigFile,
    Interface,
    Node,
    Place,
    Role,
    SmartAnnotation,
    Topology,
)
from lablet_artifacts.topology.ports import survey
from lablet_artifacts.topology.problems import Problem, Report, TooManyProblems, TopologyError
from lablet_artifacts.topology.schemas import SCHEMA_VERSIONS
from lablet_artifacts.topology.tree import Mapping, Scalar, Sequence, Value, decode, read_tree

LONGEST_TAG = 64
LONGEST_ANNOTATION_LABEL = 256


def read_topology(data: bytes) -> Topology:
    """The topology of a CML lab file (schema 0.0.1 to 0.3.0).

    Raises TopologyError with every problem found: no YAML, no UTF-8, over 10 MB or over the limits on values, depth
    and aliases; a missing or unknown schema version; wrong types and ranges; labels and ids used twice; links to nodes
    or interfaces that are not there; tokens that cannot be understood.
    """
    topology = read_structure(decode(data))
    problems = survey(topology.places).problems
    if problems:
        raise TopologyError(problems)
    return topology


def read_structure(text: str) -> Topology:
    """As `read_topology`, but for the tokens, which stay unchecked."""
    root = read_tree(text)
    if not isinstance(root, Mapping):
        raise TopologyError(
            [Problem(f"the file is {kind(root)}, not a lab topology", "give lab, nodes and links", line=1, column=1)]
        )
    report = Report()
    topology: Topology | None = None
    with suppress(TooManyProblems):  # the report says it all then
        topology = _Reader(report).topology(root)
    if report.problems or topology is None:
        raise TopologyError(report.sorted())
    return topology


class _Reader:
    def __init__(self, report: Report) -> None:
        self._report = report
        self._places: list[Place] = []

    def topology(self, root: Mapping) -> Topology:
        top = Fields(root, "", self._report)
        schema, title, description, notes = self._head(top)
        labels = _labels(root)
        nodes = self._nodes(top)
        interfaces = {node.id: {each.id for each in node.interfaces} for node in nodes}
        self._loose_interfaces(top, interfaces)
        links = read_links(top, interfaces, labels)
        for _path, _annotation in top.mappings("annotations"):
            pass  # drawings: only their shape is checked
        annotations = self._smart_annotations(top)
        return Topology(
            schema=schema,
            title=title,
            description=description,
            notes=notes,
            nodes=tuple(nodes),
            links=tuple(links),
            smart_annotations=tuple(annotations),
            places=tuple(sorted(self._places, key=lambda place: place.scalar.start)),
            extra=top.extra(),
        )

    def _head(self, top: Fields) -> tuple[str, str, str, str]:
        """Schema, title, description and notes, from `lab` or (before schema 0.0.2) from the top level."""
        lab = top.get("lab")
        if lab is None and "lab_title" in top.mapping.entries:
            head, prefix = top, "lab_"
        elif isinstance(lab, Mapping):
            head, prefix = Fields(lab, "lab", self._report), ""
        else:
            found = "is missing" if lab is None else f"must be a mapping, not {kind(lab)}"
            top.problem("lab", f"the section 'lab' {found}", "add lab: with version and title")
            return "", "", "", ""
        return (
            self._version(head, old="0.0.1" if prefix else None),
            head.text(f"{prefix}title", least=0, most=64) or "",
            head.text(f"{prefix}description", most=4096) or "",
            head.text(f"{prefix}notes", most=32768) or "",
        )

    def _version(self, head: Fields, old: str | None) -> str:
        known = f"use one of {', '.join(SCHEMA_VERSIONS)}"
        value = head.get("version")
        if value is None:
            if old is None:
                head.problem("version", "the schema version is missing", known)
            return old or ""
        if not isinstance(value, Scalar) or value.value not in SCHEMA_VERSIONS:
            shown = value.value if isinstance(value, Scalar) else kind(value)
            head.problem("version", f"the schema version {shown!r} is unknown", known)
            return ""
        return value.value

    def _nodes(self, top: Fields) -> list[Node]:
        nodes: list[Node] = []
        ids: dict[str, int] = {}
        labels: dict[str, int] = {}
        for path, mapping in top.mappings("nodes", required=True):
            node = self._node(path, flat(mapping))
            if node is None:
                continue
            for name, seen, value in (("id", ids, node.id), ("label", labels, node.label)):
                if value in seen:
                    fields = Fields(mapping, path, self._report, node.label)
                    fields.problem(
                        name,
                        f"the {name} {value!r} is used twice, first in line {seen[value]}",
                        f"give each node a {name} of its own",
                    )
                seen.setdefault(value, mapping.line)
            nodes.append(node)
        return nodes

    def _node(self, path: str, mapping: Mapping) -> Node | None:
        fields = Fields(mapping, path, self._report, _label_of(mapping))
        node_id = fields.text("id", least=1, most=64, required=True)
        label = fields.text("label", least=1, most=128, required=True)
        definition = fields.text("node_definition", least=1, most=250, required=True)
        x, y = fields.coordinate("x"), fields.coordinate("y")
        rest = {
            "image_definition": fields.text("image_definition", most=250) or None,
            "cpus": fields.whole("cpus", 1, 128, zero_is_absent=True),
            "ram_mb": fields.whole("ram", 1, 1048576, zero_is_absent=True),
            "cpu_limit": fields.whole("cpu_limit", 20, 100, zero_is_absent=True),
            "boot_disk_gb": fields.whole("boot_disk_size", 1, 4096, zero_is_absent=True),
            "data_volume_gb": fields.whole("data_volume", 1, 4096, zero_is_absent=True),
        }
        tags = self._tags(fields, label)
        interfaces = self._interfaces(fields)
        configuration = self._configuration(fields)
        if node_id is None or label is None or definition is None or x is None or y is None:
            return None
        return Node(
            id=node_id,
            label=label,
            node_definition=definition,
            x=x,
            y=y,
            tags=tags,
            interfaces=interfaces,
            configuration=configuration,
            extra=fields.extra(),
            **rest,  # type: ignore[arg-type]  # each key is the field whose type it was read with
        )

    def _tags(self, fields: Fields, label: str | None) -> tuple[str, ...]:
        tags = []
        for path, value in fields.items("tags"):
            if not isinstance(value, Scalar) or not is_text(value):
                self._wrong(fields, path, value, "put the tag in quotes")
            elif len(value.value) > LONGEST_TAG and "${" not in value.value:
                self._long(fields, path, value, LONGEST_TAG)
            else:
                tags.append(value.value)
                self._place(value, "node tag", path, label, LONGEST_TAG)
        return tuple(tags)

    def _interfaces(self, fields: Fields) -> tuple[Interface, ...]:
        interfaces: dict[str, Interface] = {}
        for path, mapping in fields.mappings("interfaces"):
            inner = Fields(mapping, path, self._report, fields.node)
            found = self._interface(inner)
            if found is None:
                continue
            if found.id in interfaces:
                inner.problem("id", f"the interface id {found.id!r} is used twice", "give each interface its own id")
            interfaces[found.id] = found
        return tuple(interfaces.values())

    def _interface(self, fields: Fields) -> Interface | None:
        interface_id = fields.text("id", least=1, most=64, required=True)
        label = fields.text("label", least=1, most=128)
        slot = fields.whole("slot", 0, 128)
        of_type = fields.text("type", most=32)
        if of_type not in (None, "physical", "loopback"):
            fields.problem("type", f"the interface type {of_type!r} is unknown", "use physical or loopback")
        return None if interface_id is None else Interface(interface_id, label, of_type, slot)

    def _loose_interfaces(self, top: Fields, interfaces: dict[str, set[str]]) -> None:
        """Old files list interfaces at the top level, each with the id of its node."""
        for path, mapping in top.mappings("interfaces"):
            fields = Fields(flat(mapping), path, self._report)
            node = fields.text("node", least=1, most=64, required=True)
            found = self._interface(fields)
            if node is not None and node not in interfaces:
                fields.problem("node", f"there is no node with the id {node!r}", "name the id of a node")
            elif node is not None and found is not None:
                interfaces[node].add(found.id)

    def _configuration(self, fields: Fields) -> tuple[ConfigFile, ...]:
        value = fields.get("configuration")
        if value is None or is_null(value):
            return ()
        if isinstance(value, Scalar):
            if is_text(value):
                return (ConfigFile(None, value.value),)
            self._wrong(fields, fields.path_of("configuration"), value, "put the configuration in quotes")
            return ()
        parts = value.items if isinstance(value, Sequence) else [value]
        files = []
        for index, part in enumerate(parts):
            path = fields.path_of("configuration") + (f"[{index}]" if isinstance(value, Sequence) else "")
            if not isinstance(part, Mapping):
                self._wrong(fields, path, part, "give name and content", expected="a file (name and content)")
                continue
            inner = Fields(part, path, self._report, fields.node)
            name = inner.text("name", least=1, most=64, required=True)
            content = inner.text("content", most=20_000_000)
            if name is not None:
                files.append(ConfigFile(name, content or ""))
        return tuple(files)

    def _smart_annotations(self, top: Fields) -> list[SmartAnnotation]:
        annotations = []
        for path, mapping in top.mappings("smart_annotations"):
            fields = Fields(mapping, path, self._report)
            tag = self._annotated(fields, "tag", "annotation tag", LONGEST_TAG)
            label = self._annotated(fields, "label", "annotation label", LONGEST_ANNOTATION_LABEL)
            annotations.append(SmartAnnotation(tag, label))
        return annotations

    def _annotated(self, fields: Fields, name: str, role: Role, longest: int) -> str | None:
        text = fields.text(name, most=4096)
        value = fields.get(name)
        if text is None or not isinstance(value, Scalar):
            return None
        if len(text) > longest and "${" not in text:
            self._long(fields, fields.path_of(name), value, longest)
        self._place(value, role, fields.path_of(name), None, longest)
        return text

    def _place(self, scalar: Scalar, role: Role, path: str, node: str | None, longest: int) -> None:
        self._places.append(Place(scalar, role, path, node, longest))

    def _long(self, fields: Fields, path: str, value: Scalar, longest: int) -> None:
        message = f"the text has {len(value.value)} characters"
        self._report.add(Problem(message, f"use at most {longest}", path, fields.node, value.line, value.column))

    def _wrong(self, fields: Fields, path: str, value: Value, remedy: str, expected: str = "a string") -> None:
        message = f"{expected} is expected here, not {kind(value)}"
        if isinstance(value, Scalar):
            message += f" ({plain_value(value)})"
        self._report.add(Problem(message, remedy, path, fields.node, value.line, value.column))


def _labels(root: Mapping) -> dict[str, str]:
    """Node id → label, of all nodes that have both, sound or not: a link to a faulty node is not a second fault."""
    nodes = root.entries.get("nodes")
    found: dict[str, str] = {}
    for mapping in nodes.items if isinstance(nodes, Sequence) else ():
        if isinstance(mapping, Mapping):
            node_id = flat(mapping).entries.get("id")
            if isinstance(node_id, Scalar):
                found[node_id.value] = _label_of(flat(mapping)) or node_id.value
    return found


def _label_of(mapping: Mapping) -> str | None:
    for name in ("label", "id"):
        value = mapping.entries.get(name)
        if isinstance(value, Scalar) and value.value:
            return value.value
    return None
