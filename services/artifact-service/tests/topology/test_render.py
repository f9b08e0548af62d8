"""Ports and values in their places, every other byte as the author wrote it."""

import math
import time

import pytest
import yaml

from lablet_artifacts.topology import RenderError, TopologyError, find_ports, read_topology, render

VALUES = {"SEAT": "7", "NAME": 'O\'Brien "x" # y: z', "HOST": "w1", "EMPTY": "", "SPACED": " a ", "YES": "yes"}


def tags_of(data, node=0):
    return yaml.load(data, yaml.CSafeLoader)["nodes"][node]["tags"]


def test_without_places_the_file_comes_back_as_it_was(lab):
    for data in (lab(), lab().replace(b"\n", b"\r\n"), lab().rstrip(), b"\xef\xbb\xbf" + lab()):
        assert render(data, {}, VALUES) == data


def test_several_tokens_in_one_string_are_all_replaced(lab):
    out = render(lab(tags="['${PORT_A}/${PORT_B} seat ${SEAT} ${PORT_A}']"), {"a": 2000, "b": 2001}, VALUES)
    assert tags_of(out) == ["2000/2001 seat 7 2000"]


def test_tokens_elsewhere_are_left_alone(lab):
    data = lab(tags="['${SEAT}']", node="    configuration: |-\n      set ${SEAT} ${PORT_A} ${\n    # ${SEAT}")
    assert render(data, {}, VALUES) == data.replace(b"['${SEAT}']", b"['7']")


def test_number_tags_get_the_allocated_port_and_annotations_follow(lab):
    more = "smart_annotations:\n  - {tag: 'serial:5001', label: \"serial:5001\"}\n  - {tag: 'ssh:22', label: x}"
    data = lab(tags="[serial:5001, 'ssh:22']", tags2="['ssh:22']", more=more)
    out = render(data, {"r1_serial": 2000, "r1_ssh": 2001, "r2_ssh": 2002})
    expected = data.replace(b"serial:5001", b"serial:2000").replace(b"['ssh:22']", b"['ssh:2002']")
    expected = expected.replace(b"[serial:2000, 'ssh:22']", b"[serial:2000, 'ssh:2001']")
    assert out == expected


@pytest.mark.parametrize(
    ("written", "rendered"),
    [
        ("- a ${SEAT}   # why", "- a 7   # why"),
        ("- ${SEAT}", "- '7'"),
        ("- 'a ${SEAT}'", "- 'a 7'"),
        ('- "a ${SEAT}"', '- "a 7"'),
        ("- !!str ${SEAT}", "- !!str 7"),
        ("- &x ${SEAT}b", "- &x 7b"),
        ("- &x !!str  # c\n        ${SEAT}b", "- &x !!str  # c\n        7b"),
        ("- ${YES}", "- 'yes'"),
        ("- ${NAME}", "- 'O''Brien \"x\" # y: z'"),
        ("- 'a ${NAME}'", "- 'a O''Brien \"x\" # y: z'"),
        ('- "a ${NAME}"', '- "a O\'Brien \\"x\\" # y: z"'),
        ("- x${SPACED}", "- 'x a '"),
        ("- ${EMPTY}", "- ''"),
        ('- "\\u0061 ${SEAT}"', '- "\\u0061 7"'),
        ('- "\\x24{SEAT}"', '- "7"'),
        ("- 'it''s ${SEAT}'", "- 'it''s 7'"),
        ("- |-\n        a ${SEAT}\n        # ${SEAT}", "- |-\n        a 7\n        # 7"),
        ("- | # ${SEAT}\n        a ${SEAT}\n\n      # ${SEAT}", "- | # ${SEAT}\n        a 7\n\n      # ${SEAT}"),
        ("- >\n        folded\n        ${SEAT}\n", "- >\n        folded\n        7\n"),
        ("- |-  # c\n        a${SPACED}\n      # d", "- 'xa '  # c\n      # d".replace("xa", "a a")),
        ("- folded\n        ${SEAT}", "- folded\n        7"),
        ("- 'folded\n        ${SEAT}'", "- 'folded\n        7'"),
        ('- "folded \\\n        ${SEAT}"', '- "folded \\\n        7"'),
        ("- folded\n        ${EMPTY}", "- 'folded '"),
        ("- -${SEAT}", "- '-7'"),
        ("- serial:${SEAT}", "- serial:7"),
        ("- ssh:22", "- ssh:2000"),
        ("- 'ssh:22'", "- 'ssh:2000'"),
        ('- "ssh:\\x322"', '- "ssh:2000"'),
    ],
)
def test_each_style_of_writing_survives(lab, written, rendered):
    marker = "- MARK"
    data = lab(tags=f"\n      {marker}\n      - after").replace(b"tags: \n", b"tags:\n")
    before, after = data.replace(marker.encode(), written.encode()), data.replace(marker.encode(), rendered.encode())
    for old, new in ((before, after), (before.replace(b"\n", b"\r\n"), after.replace(b"\n", b"\r\n"))):
        ports = {p.name: 2000 for p in find_ports(read_topology(old))}
        out = render(old, ports, VALUES)
        assert out == new
        wanted = tags_of(old)[0]
        for name, value in VALUES.items():
            wanted = wanted.replace(f"${{{name}}}", value)
        assert tags_of(out)[0] == wanted.replace("ssh:22", "ssh:2000")
        assert tags_of(out)[1] == "after"


def refused(data, ports=None, values=None):
    with pytest.raises(RenderError) as caught:
        render(data, ports or {}, values)
    return [p.message for p in caught.value.problems]


def test_an_unknown_token_is_named(lab):
    (message,) = refused(lab(tags="['${SEAT} ${WHAT}']"), values={"SEAT": "1"})
    assert "${WHAT} is unknown" in message


def test_a_token_without_a_port_is_named_with_its_place(lab):
    data = lab(tags="['${PORT_A}', 'ssh:22']")
    first, second = refused(data)
    assert "'a'" in first
    assert "${PORT_A}" in first
    assert "'r1_ssh'" in second
    assert "'ssh:22'" in second
    with pytest.raises(RenderError, match=r"line 10, column 12, node 'R1', nodes\[0\].tags\[0\]"):
        render(data, {})


def test_a_port_without_a_place_is_named(lab):
    assert refused(lab(), {"r1_web": 2000}) == ["the port 'r1_web' has no place in the file"]


@pytest.mark.parametrize("left", ["${SEAT", "${}", "${a b}", "${PORT_}", "${PORT_Ä}", "${${SEAT}}"])
def test_a_left_over_token_is_named(lab, left):
    assert any(left[:6] in message for message in refused(lab(tags=f"['{left}']"), values=VALUES))


def test_text_that_a_value_brings_in_is_not_searched_for_tokens(lab):
    out = render(lab(tags="['${NAME}']"), {}, {"NAME": "${SEAT}", "SEAT": "7"})
    assert tags_of(out) == ["${SEAT}"]


@pytest.mark.parametrize("port", [0, 65536, -1, True])
def test_what_is_no_port_number_is_refused(lab, port):
    assert "'a'" in refused(lab(tags="['${PORT_A}']"), {"a": port})[0]


@pytest.mark.parametrize("value", ["a\nb", "a\tb", "\x00", "\u2028", "\ud800", "\ufeff"])
def test_values_that_are_not_one_printable_line_are_refused(lab, value):
    assert "${NAME}" in refused(lab(tags="['${NAME}']"), values={"NAME": value})[0]
    render(lab(), {}, {"NAME": value})  # unused, so harmless


def test_a_tag_that_grows_too_long_for_cml_is_refused(lab):
    data = lab(tags="['${NAME}']")
    render(data, {}, {"NAME": "x" * 64})
    assert refused(data, values={"NAME": "x" * 65}) == ["the text grows to 65 characters"]


def test_a_file_that_is_no_topology_is_refused_as_such():
    with pytest.raises(TopologyError):
        render(b"nodes: []", {})


def test_three_hundred_nodes_render_in_under_two_seconds():
    config = "".join(f"      interface GigabitEthernet0/{n}\n       description to somewhere\n" for n in range(60))
    interfaces = "".join(f"      - id: i{n}\n        slot: {n}\n        type: physical\n" for n in range(8))
    nodes = "".join(
        f"  - id: n{k}\n    label: R{k}\n    node_definition: iosv\n    x: {k}\n    y: 0\n    ram: null\n"
        f"    configuration: |-\n{config}    tags:\n      - serial:{5000 + k}\n      - seat-${{SEAT}}\n"
        f"    interfaces:\n{interfaces}"
        for k in range(300)
    )
    data = f"lab:\n  version: 0.2.2\nlinks: []\nnodes:\n{nodes}".encode()
    assert len(data) > 1_000_000
    spent = math.inf
    for _ in range(3):  # a crowded machine takes its share of processor time, too
        began = time.process_time()
        out = render(data, {f"r{k}_serial": 2000 + k for k in range(300)}, VALUES)
        spent = min(spent, time.process_time() - began)
        if spent < 2:
            break
    assert tags_of(out, 299) == ["serial:2299", "seat-7"]
    assert spent < 2
