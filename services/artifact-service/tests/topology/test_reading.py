"""What a lab file may hold, and what an author is told about one that is wrong."""

import json
import time

import pytest

from lablet_artifacts.topology import SCHEMA_VERSIONS, TopologyError, find_ports, read_topology
from lablet_artifacts.topology import tree as limits
from lablet_artifacts.topology.problems import MOST_PROBLEMS


def problems(data):
    with pytest.raises(TopologyError) as caught:
        read_topology(data)
    return caught.value.problems


def only(data):
    (problem,) = problems(data)
    return problem


def replaced(data, old, new):
    assert old.encode() in data
    return data.replace(old.encode(), new.encode())


@pytest.mark.parametrize("version", SCHEMA_VERSIONS)
def test_every_schema_version_reads(lab, version):
    topology = read_topology(lab(version=version))
    assert topology.schema == version
    assert [node.label for node in topology.nodes] == ["R1", "R2"]
    assert (topology.links[0].n1, topology.links[0].i2) == ("n0", "i0")


def test_fields_that_nobody_knows_are_kept(lab):
    topology = read_topology(lab(node="    colour: {depth: 3}", more="future: [1, yes, null, 2.5]"))
    assert topology.nodes[0].extra == {"colour": {"depth": 3}}
    assert topology.extra == {"future": [1, "yes", None, 2.5]}


def test_zero_and_null_mean_what_the_node_definition_says(lab):
    node = read_topology(lab(node="    ram: 0\n    cpus: null\n    boot_disk_size: 0\n    cpu_limit: 0")).nodes[0]
    assert (node.ram_mb, node.cpus, node.boot_disk_gb, node.cpu_limit) == (None, None, None, None)


def test_configurations_read_in_all_three_forms(lab):
    one = read_topology(lab(node="    configuration: hostname R1")).nodes[0]
    file = read_topology(lab(node="    configuration: {name: a.cfg, content: hello}")).nodes[0]
    files = read_topology(lab(node="    configuration:\n      - {name: a.cfg, content: hello}")).nodes[0]
    assert (one.configuration[0].name, one.configuration[0].content) == (None, "hostname R1")
    assert file.configuration == files.configuration
    assert (file.configuration[0].name, file.configuration[0].content) == ("a.cfg", "hello")


def test_the_oldest_layout_reads():
    data = b"""\
lab_title: Old
lab_description: from the first release
nodes:
  - id: n0
    data: {label: A, node_definition: iosv, x: 0, y: 0}
  - id: n1
    data: {label: B, node_definition: iosv, x: 1, y: 1}
interfaces:
  - {id: i0, node: n0, data: {slot: 0, label: g0, type: physical}}
  - {id: i1, node: n1, data: {slot: 0, label: g0, type: physical}}
links:
  - {id: l0, node_a: n0, interface_a: i0, node_b: n1, interface_b: i1}
"""
    topology = read_topology(data)
    assert (topology.schema, topology.title) == ("0.0.1", "Old")
    assert topology.links[0].i2 == "i1"
    assert "no interface" in only(data.replace(b"interface_b: i1", b"interface_b: i9")).message


def test_malformed_yaml_names_line_column_and_a_remedy(lab):
    problem = only(lab(tags="[serial:${PORT_R1}]"))
    assert (problem.line, problem.column) == (10, 20)
    assert "quotes" in problem.remedy
    assert "quotes" in only(replaced(lab(), "title: Small", "title: a: b")).remedy
    assert "spaces" in only(replaced(lab(), "  title: Small", "\ttitle: Small")).remedy


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"# nothing\n", "empty"),
        (b"just words", "a string"),
        (b"- a\n- b\n", "a list"),
        (b"lab: {version: 0.2.2}\nnodes: []\nlinks: []\n---\nlab: {}\n", "second document"),
        (b"lab: &a [*a]\n", "inside its own anchor"),
        (b"lab: *nowhere\n", "no anchor before it"),
        (b"lab: !!python/object:os.system {}\n", "has no place"),
        (b"? [a]\n: b\n", "a key must be a string"),
        (b"a: 1\na: 2\n", "appears twice"),
        (b'a: "\\ud800"\n', "half of a surrogate pair"),
        (b'"\\udfff": 1\n', "half of a surrogate pair"),
        (b"a: b\x00c\n", "may not stand"),
        (b'a: "\\UFFFFFFFF"\n', "not valid YAML"),
        (b"<<: 5\n", "mappings only"),
    ],
)
def test_what_is_no_lab_file_is_refused_with_its_reason(data, said):
    assert said in only(data).message


def test_bytes_that_are_not_utf8_are_placed():
    problem = only("lab:\n  title: zoë ".encode() + b"\xff\n")
    assert (problem.line, problem.column) == (2, 14)
    assert "UTF-8" in problem.message


def test_a_file_over_ten_megabytes_is_refused_unread():
    assert "10,485,761 bytes" in only(b"#" * (limits.MOST_BYTES + 1)).message


def test_nesting_aliases_and_values_are_limited():
    assert "deeper" in only(b"[" * 100_000).message
    assert "aliases" in only(b"a: &x 1\nb: [" + b"*x," * (limits.MOST_ALIASES + 1) + b"]\n").message
    laughs = "a0: &a0 lol\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20))
    assert "expand" in only(laughs.encode()).message
    assert "word" in only(b"- !" + b"!" * 300_000).message


def test_too_many_values_are_refused(monkeypatch):
    monkeypatch.setattr(limits, "MOST_VALUES", 100)
    assert "more than 100 values" in only(b"- a\n" * 101).message


@pytest.mark.parametrize("alias", ["", "&again "])
@pytest.mark.parametrize("token", ["${PORT_WEB", "${PORT_WEB}", "udp:${PORT_WEB}", "${", "${ }", "${HOST}"])
def test_a_text_of_tokens_alone_takes_no_time_that_grows_with_its_square(lab, token, alias):
    tags = f"    tags: [{alias}'{token * (180_000 // len(token))}'{', *again' if alias else ''}]\n    interfaces:"
    data = lab().replace(b"    interfaces:", tags.encode(), 1)
    began = time.process_time()
    found = []
    try:
        find_ports(read_topology(data))
    except TopologyError as error:
        found += error.problems
    assert len(found) <= MOST_PROBLEMS
    assert all(len(problem.message) <= 400 for problem in found)
    assert time.process_time() - began < 1.0


def test_a_short_file_full_of_commas_is_refused_before_it_has_been_a_long_ones_work():
    assert "too many for its 180,002 characters" in only(b"[" + b"a," * 90_000 + b"]").message
    assert "too many for its 180,002 characters" in only(b"[" + b"a:," * 60_000 + b"]").message


def test_a_lab_of_a_thousand_nodes_written_without_a_blank_has_fewer_values_than_are_allowed(lab):
    node = {"id": "n0", "label": "r0", "node_definition": "iol-xe", "x": 0, "y": 0, "interfaces": [
        {"id": f"i{slot}", "label": f"e0/{slot}", "slot": slot, "type": "physical"} for slot in range(8)]}  # fmt: skip
    nodes = [node | {"id": f"n{number}", "label": f"r{number}"} for number in range(1000)]
    link = {"id": "l0", "n1": "n0", "i1": "i0", "n2": "n1", "i2": "i0"}
    links = [link | {"id": f"l{n}", "n1": f"n{2 * n}", "n2": f"n{2 * n + 1}"} for n in range(500)]
    written = json.dumps({"lab": {"version": "0.3.0"}, "nodes": nodes, "links": links}, separators=(",", ":"))
    assert len(read_topology(written.encode()).nodes) == 1000


def test_a_missing_or_unknown_version_lists_the_known_ones(lab):
    missing = only(replaced(lab(), "  version: 0.2.2\n", ""))
    assert (missing.field, missing.line) == ("lab.version", 2)
    unknown = only(lab(version="9.9.9"))
    assert "9.9.9" in unknown.message
    assert "0.3.0" in unknown.remedy
    assert "missing" in only(b"nodes: []\nlinks: []\n").message


def test_labels_and_ids_used_twice_name_both_places(lab):
    problem = only(replaced(lab(), "label: R2", "label: R1"))
    assert "'R1' is used twice, first in line 5" in problem.message
    assert (problem.field, problem.line) == ("nodes[1].label", 14)
    assert any("id 'n0' is used twice" in p.message for p in problems(replaced(lab(), "id: n1", "id: n0")))
    twice = "    interfaces:\n      - {id: i0, type: physical}\n      - {id: i0, type: physical}"
    data = replaced(
        lab(), "    interfaces:\n      - {id: i0, type: physical, slot: 0, label: GigabitEthernet0/0}", twice
    )
    assert any("interface id 'i0'" in p.message for p in problems(data))


def test_links_to_what_is_not_there_name_what_is(lab):
    no_node = only(replaced(lab(), "n2: n1", "n2: n7"))
    assert (no_node.field, "'n7'" in no_node.message) == ("links[0].n2", True)
    no_interface = only(replaced(lab(), "i2: i0", "i2: i9"))
    assert "'R2' has no interface with the id 'i9'" in no_interface.message
    assert "i0" in no_interface.remedy
    again = problems(replaced(lab(), "i2: i0}", "i2: i0}\n  - {id: l1, n1: n0, i1: i0, n2: n1, i2: i0}"))
    assert "already has link 'l0'" in again[0].message


@pytest.mark.parametrize(
    ("old", "new", "field", "said"),
    [
        ("label: R1", "label: 15", "nodes[0].label", "must be a string, not a number (15)"),
        ("label: R1", "label: [R1]", "nodes[0].label", "not a list"),
        ("x: 0", "x: east", "nodes[0].x", "must be a number"),
        ("x: 0", "x: 20000", "nodes[0].x", "must be a number"),
        ("    x: 0\n", "", "nodes[0].x", "missing"),
        ("node_definition: iosv", "node_definition: null", "nodes[0].node_definition", "must be a string"),
        ("slot: 0", "slot: 129", "nodes[0].interfaces[0].slot", "129"),
        ("type: physical", "type: wireless", "nodes[0].interfaces[0].type", "wireless"),
        ("tags: []", "tags: {a: b}", "nodes[0].tags", "must be a list"),
        ("tags: []", "tags: [5]", "nodes[0].tags[0]", "a string is expected here, not a number (5)"),
        ("tags: []", "tags:\n      - serial: 5001", "nodes[0].tags[0]", "not a mapping"),
        ("tags: []", "tags: [" + "x" * 65 + "]", "nodes[0].tags[0]", "65 characters"),
        ("tags: []", "tags: ['ssh:70000']", "nodes[0].tags[0]", "70000 is no port number"),
        ("tags: []", "tags: ['a ${PORT_']", "nodes[0].tags[0]", "does not end"),
        ("tags: []", "tags: ['${PORT_}']", "nodes[0].tags[0]", "${PORT_} is not understood"),
        ("tags: []", "ram: many", "nodes[0].ram", "must be a whole number"),
        ("tags: []", "cpus: -1", "nodes[0].cpus", "cpus is -1"),
        ("tags: []", "configuration: [plain]", "nodes[0].configuration[0]", "a file (name and content)"),
    ],
)
def test_a_wrong_field_is_named_with_its_node_and_place(lab, old, new, field, said):
    data = lab().replace(old.encode(), new.encode(), 1)
    found = [p for p in problems(data) if p.field == field]
    assert said in found[0].message
    assert found[0].node in ("R1", "n0", "15")
    assert found[0].line is not None
    assert found[0].remedy


def test_all_faults_are_told_at_once_and_in_order(lab):
    data = lab(version="7").replace(b"x: 0", b"x: west").replace(b"i2: i0", b"i2: i9")
    assert [p.field for p in problems(data)] == ["lab.version", "nodes[0].x", "links[0].i2"]
    with pytest.raises(TopologyError, match="and 2 more"):
        read_topology(data)


def test_a_file_that_is_wrong_throughout_ends_at_fifty_problems():
    assert len(problems(b"lab: {version: 0.2.2}\nlinks: []\nnodes:\n" + b"  - 5\n" * 1000)) == 50


def test_words_that_yaml_versions_read_differently_are_strings_where_strings_are_meant(lab):
    topology = read_topology(lab(tags="[on, 08, 12:30, '5', !!str 7]"))
    assert topology.nodes[0].tags == ("on", "08", "12:30", "5", "7")


def test_merge_keys_and_aliases_read_as_what_they_stand_for(lab):
    topology = read_topology(lab(node="    <<: &small {ram: 700, cpus: 2}", tags="&t [a, b]", tags2="*t"))
    assert (topology.nodes[0].ram_mb, topology.nodes[0].cpus) == (700, 2)
    assert topology.nodes[1].tags == ("a", "b")
