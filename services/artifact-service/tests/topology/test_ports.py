"""Which ports a lab file names, and what they are called."""

import pytest

from lablet_artifacts.topology import TopologyError, derived_name, find_ports, find_tokens, read_topology

ANNOTATIONS = "smart_annotations:\n"


def found(data):
    return [(p.name, p.protocol, p.node) for p in find_ports(read_topology(data))]


def test_tokens_name_ports_in_the_order_of_the_file(lab):
    data = lab(
        tags="['serial:${PORT_R1_SERIAL}', '${PORT_B} and ssh:${PORT_A}']",
        more=ANNOTATIONS + "  - {tag: 'x${PORT_Z}', label: 'HTTPS:${PORT_W}'}",
    )
    assert found(data) == [
        ("r1_serial", "serial", "R1"),
        ("b", "tcp", "R1"),
        ("a", "ssh", "R1"),
        ("z", "tcp", None),
        ("w", "https", None),
    ]
    assert find_ports(read_topology(data))[3].where == "smart_annotations[0].tag"


def test_number_tags_name_ports_after_their_node(lab):
    data = lab(tags="['serial:5001', 'SSH:22', vlan:10, 'tcp: 5', 'http:80/x']", tags2="['serial:5001']")
    assert found(data) == [("r1_serial", "serial", "R1"), ("r1_ssh", "ssh", "R1"), ("r2_serial", "serial", "R2")]


def test_colliding_names_are_numbered_in_the_order_of_the_file(lab):
    data = lab(tags="['ssh:22', 'ssh:2222', 'ssh:22']", tags2="['ssh:1']").replace(b"label: R2", b"label: r1")
    assert found(data) == [("r1_ssh", "ssh", "R1"), ("r1_ssh_2", "ssh", "R1"), ("r1_ssh_3", "ssh", "r1")]


def test_a_token_with_a_derived_name_is_the_same_port(lab):
    data = lab(tags="['serial:5001']", more=ANNOTATIONS + "  - {label: 'console ${PORT_R1_SERIAL}'}")
    assert found(data) == [("r1_serial", "serial", "R1")]


def test_a_port_that_a_node_names_later_belongs_to_that_node():
    data = (
        b"smart_annotations:\n  - {label: 'at ${PORT_C}'}\nlab: {version: 0.3.0}\nlinks: []\nnodes:\n"
        b"  - {id: n0, label: R9, node_definition: iosv, x: 0, y: 0, tags: ['telnet:${PORT_C}']}\n"
    )
    assert found(data) == [("c", "telnet", "R9")]
    assert find_ports(read_topology(data))[0].where == "smart_annotations[0].label"


def test_two_protocols_for_one_port_are_a_fault(lab):
    with pytest.raises(TopologyError, match="port a is http here and ssh elsewhere"):
        read_topology(lab(tags="['ssh:${PORT_A}']", tags2="['http:${PORT_A}']"))


def test_an_aliased_place_cannot_hold_a_port(lab):
    for tags in ("&t ['serial:5001']", "&t ['${PORT_A}']", "&t ['${SEAT}']"):
        with pytest.raises(TopologyError, match="more than once through an alias"):
            read_topology(lab(tags=tags, tags2="*t"))


def test_other_tokens_are_told_apart_from_ports(lab):
    topology = read_topology(lab(tags="['${SEAT}-${NAME}', '${PORT_A}']", node="    configuration: '${ELSEWHERE}'"))
    assert find_tokens(topology) == ("NAME", "SEAT")


@pytest.mark.parametrize(
    ("label", "protocol", "name"),
    [
        ("R1", "serial", "r1_serial"),
        ("core switch/1", "ssh", "core_switch_1_ssh"),
        ("inside-host01.lab", "vnc", "inside-host01.lab_vnc"),
        ("-edge", "tcp", "_-edge_tcp"),
        ("маршрутизатор", "tcp", "______________tcp"[-17:]),
    ],
)
def test_a_label_becomes_a_safe_name(label, protocol, name):
    assert derived_name(label, protocol) == name


def test_long_labels_stay_different_within_64_characters():
    names = {derived_name("x" * 100 + end, "serial") for end in "ab"}
    assert len(names) == 2
    assert {len(name) for name in names} == {64}
