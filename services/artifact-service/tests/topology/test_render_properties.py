"""Properties of rendering over generated files, with an independent reader (PyYAML) as the judge."""

import re

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lablet_artifacts.topology import find_ports, find_tokens, read_topology, render

VALUE = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cn", "Co"), exclude_characters="\ufeff"),
    max_size=10,
)
WORD = st.sampled_from(
    [
        "a",
        "seat",
        "r-1",
        "x:y",
        "it's",
        '"q"',
        "a#b",
        "#",
        "-",
        "?",
        "1",
        "on",
        "null",
        "é",
        "日本",
        "a\\b",
        "%",
        "=",
        "<<",
    ]
)
TOKEN = st.sampled_from(["${SEAT}", "${NAME}", "${PORT_A}", "${PORT_R2_SERIAL}", "ssh:${PORT_C}"])
TEXT = st.lists(st.one_of(WORD, TOKEN), min_size=1, max_size=4).flatmap(
    lambda parts: st.sampled_from([" ", "", "/"]).map(lambda glue: glue.join(parts))
)
TAG = st.one_of(TEXT, st.sampled_from(["serial:5001", "vnc:5900", "VLAN10", "tcp:0"]))
STYLE = st.sampled_from(["plain", "single", "double", "escaped", "literal", "folded", "lines"])
COMMENT = st.sampled_from(["", "", "  # ${SEAT} 'x", " # é"])


def written(text, style, pad):
    """A string as YAML in one of its styles; single quotes where the style cannot hold it."""
    single = "'" + text.replace("'", "''") + "'"
    if style == "double":
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if style == "escaped":
        return '"' + "".join(f"\\u{ord(c):04x}" if n % 3 == 0 else _escaped(c) for n, c in enumerate(text)) + '"'
    if style == "literal":
        return f"|-\n{pad}{text}"
    if style == "folded" and " " in text and "  " not in text:
        return f">-\n{pad}" + text.replace(" ", f"\n{pad}")
    if style == "lines" and " " in text.strip() and "  " not in text and not text.startswith(" "):
        return single.replace(" ", f"\n{pad}")
    if style == "plain" and _reads_bare(text):
        return text
    return single


def _escaped(character):
    return "\\" + character if character in '"\\' else character


def _reads_bare(text):
    try:
        return yaml.safe_load(f"- {text}") == [text] and not text.startswith(("&", "*", "!"))
    except yaml.YAMLError:
        return False


@st.composite
def files(draw):
    """A file as pieces: text that must stay, and scalars (as text) that may be rewritten."""
    pieces, texts = ["# ${SEAT} head\nlab: {version: 0.3.0, title: '${SEAT}'}\nlinks: []\n"], []

    def scalar(pad, comment=True):
        text = draw(TAG)
        lexeme = written(text, draw(STYLE), pad)
        texts.append(text)
        note = draw(COMMENT) if comment and "\n" not in lexeme else ""
        pieces.extend([lexeme, note + "\n"])

    pieces[-1] += "smart_annotations:\n"
    for _ in range(draw(st.integers(1, 2))):
        pieces[-1] += "  - label: "
        scalar("      ")
        pieces[-1] += "    tag: "
        scalar("      ")
        pieces[-1] += "    padding: 35 # ${NAME}\n"
    pieces[-1] += "nodes:\n"
    for number in range(draw(st.integers(1, 3))):
        pieces[-1] += (
            f"  - id: n{number}\n    label: R{number}\n    node_definition: iosv\n    x: 0\n    y: 0\n"
            "    configuration: |\n      hostname ${SEAT} ${PORT_X}\n\n    tags:\n"
        )
        for _ in range(draw(st.integers(1, 3))):
            pieces[-1] += "      - "
            scalar("        ")
    end = draw(st.sampled_from(["\n", "\r\n"]))
    if draw(st.booleans()):
        pieces[-1] = pieces[-1][:-1]
    return [piece.replace("\n", end) for piece in pieces], texts


def named(document):
    """The strings that may change, in a fixed order; they are taken out of the document."""
    strings = []
    for annotation in document["smart_annotations"]:
        strings += [annotation.pop("label"), annotation.pop("tag")]
    for node in document["nodes"]:
        strings += node.pop("tags")
    return strings


@settings(max_examples=250, deadline=None)
@given(files(), VALUE, VALUE, st.integers(1024, 60000))
def test_a_rendered_file_differs_in_the_named_strings_alone(file, seat, name, first):
    pieces, texts = file
    data = "".join(pieces).encode()
    topology = read_topology(data)
    ports = {port.name: first + index for index, port in enumerate(find_ports(topology))}
    values = {"SEAT": seat, "NAME": name}
    assert set(find_tokens(topology)) <= set(values)

    out = render(data, ports, values)

    before, after = yaml.safe_load(data), yaml.safe_load(out)
    old, new = named(before), named(after)
    assert before == after
    assert old == texts
    for text, now in zip(old, new, strict=True):
        if "${" in text:
            for port, number in ports.items():
                text = text.replace(f"${{PORT_{port.upper()}}}", str(number))
            meant = "\x00".join(text.split("${NAME}")).replace("${SEAT}", seat).replace("\x00", name)
            assert now == meant
        elif ":" in text and text.rpartition(":")[2].isdigit():
            assert now.rpartition(":")[0] == text.rpartition(":")[0]
        else:
            assert now == text

    changeable = [False] + [flag for text in texts for flag in ("${" in text or ":" in text, False)]
    pattern = "".join("(?:.*?)" if free else re.escape(piece) for piece, free in zip(pieces, changeable, strict=True))
    assert re.fullmatch(pattern, out.decode(), re.DOTALL), "a byte outside the named strings differs"
