"""Meshes of containers side by side: each command is about its own."""

import os
from pathlib import Path

import pytest
from testcontainers.compose import DockerCompose

from lablet_common.testing.containers import ContainerMesh

ECHO = """#!/bin/sh
echo "$COMPOSE_PROJECT_NAME $LABLET_PORT $LABLET_SPEED"
"""


def test_each_mesh_names_its_own_project_to_every_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the end of the last one takes none away, and the first stays for ever."""
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "a-user-s-own")
    program = tmp_path / "docker"
    program.write_text(ECHO, encoding="utf-8")
    program.chmod(0o755)
    compose = DockerCompose(str(tmp_path), ["docker-compose.yml"], docker_command_path=str(program), wait=False)
    first, second = ContainerMesh(compose, "one", 81, 120), ContainerMesh(compose, "two", 82, 60)
    assert [mesh.compose("down").split() for mesh in (first, second, first)] == [
        ["one", "81", "120"],
        ["two", "82", "60"],
        ["one", "81", "120"],
    ]
    assert os.environ["COMPOSE_PROJECT_NAME"] == "a-user-s-own"
