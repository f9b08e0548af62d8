"""A small lab file that each test bends to its purpose."""

from collections.abc import Callable
from pathlib import Path

import pytest

LAB = """\
lab:
  title: Small
  version: {version}
nodes:
  - id: n0
    label: R1
    node_definition: iosv
    x: 0
    y: 10
    tags: {tags}
    interfaces:
      - {{id: i0, type: physical, slot: 0, label: GigabitEthernet0/0}}
{node}
  - id: n1
    label: R2
    node_definition: iosv
    x: 100
    y: 10
    tags: {tags2}
    interfaces:
      - {{id: i0, type: physical, slot: 0, label: GigabitEthernet0/0}}
links:
  - {{id: l0, n1: n0, i1: i0, n2: n1, i2: i0}}
{more}
"""


@pytest.fixture
def lab() -> Callable[..., bytes]:
    """Makes the file: `tags` and `tags2` in flow or block form, `node` further lines of R1, `more` at the top level."""

    def make(tags: str = "[]", tags2: str = "[]", node: str = "", more: str = "", version: str = "0.2.2") -> bytes:
        text = LAB.format(tags=tags, tags2=tags2, node=node, more=more, version=version)
        return text.replace("\n\n", "\n").encode()

    return make


@pytest.fixture
def root() -> Path:
    """The root of the checkout."""
    return Path(__file__).parents[4]
