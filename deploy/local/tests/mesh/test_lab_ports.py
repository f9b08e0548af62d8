"""Ports that labs may not be able to use on this machine are found before a lab hangs on one."""

import socket

import pytest

from lablet_local.lab_ports import is_free, taken_ports


@pytest.fixture
def everywhere():
    """A port that somebody listens on, on every address."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_listened_on_everywhere_is_not_free(everywhere):
    assert not is_free(everywhere)


def test_taken_ports_are_named_by_template(tmp_path, everywhere):
    path = tmp_path / "templates.yaml"
    path.write_text(
        "templates:\n"
        f"  - {{name: sim, provider: simulated, port_range: {{start: {everywhere}, end: {everywhere}}}}}\n"
        "  - {name: metal, provider: ec2}\n"
    )
    assert list(taken_ports(path)) == [("sim", [everywhere])]
