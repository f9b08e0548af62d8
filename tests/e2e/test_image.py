"""What runs in the compose file's containers: as whom, with which limits, and what it could not do if it wanted to."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from lablet_common.testing.containers import ContainerMesh

pytestmark = [pytest.mark.docker, pytest.mark.long, pytest.mark.timeout(240)]
LARGEST = 250_000_000


def test_secrets_stand_in_no_environment_and_no_command_line(containers: ContainerMesh) -> None:
    token = containers.token("admin")
    for service in ("api-gateway", "scheduler", "worker-controller", "artifact-service", "cloud", "nats", "s3"):
        for container in containers.containers(service):
            shown = json.dumps(containers.inspect(container))
            assert token not in shown
            assert not list(secrets_in(shown)), service


def secrets_in(text: str) -> Iterator[str]:
    """Values of variables that are named like secrets."""
    for name in ("PASSWORD=", "TOKEN=", "SECRET_KEY=", "ACCESS_KEY="):
        if f'"{name}' in text or f"_{name}" in text:
            yield name


def test_nothing_but_the_api_is_published_nothing_is_written_and_limits_are_in_force(containers: ContainerMesh) -> None:
    for service in ("api-gateway", "scheduler", "worker-controller", "artifact-service", "cloud", "etcd", "nats", "s3"):
        for container in containers.containers(service):
            host = containers.inspect(container)["HostConfig"]
            assert not host["PortBindings"], service
            assert host["ReadonlyRootfs"], service
            assert host["Memory"] > 0, service
            assert host["NanoCpus"] > 0, service
            assert host["PidsLimit"] > 0, service
            assert host["RestartPolicy"]["Name"] == "unless-stopped", service
    (proxy,) = containers.containers("proxy")
    bindings = containers.inspect(proxy)["HostConfig"]["PortBindings"]
    assert [one["HostIp"] for many in bindings.values() for one in many] == ["127.0.0.1"]


def test_what_runs_is_no_root_and_cannot_write_its_own_files(containers: ContainerMesh) -> None:
    look = (
        "import os,pathlib\n"
        "lines=pathlib.Path('/proc/1/status').read_text().splitlines()\n"
        "print([l.split()[1:] for l in lines if l.startswith('CapEff')][0][0])\n"
        "try:\n pathlib.Path('/app/x').write_text('')\n print('written')\nexcept OSError as e:\n print(e.strerror)"
    )
    for service in ("api-gateway", "scheduler", "worker-controller", "artifact-service"):
        (container, *_) = containers.containers(service)
        effective, written = containers.in_container(container, look).splitlines()
        assert int(effective, 16) == 0, service
        assert written == "Read-only file system", service


def test_the_cloud_gives_up_root_once_it_has_its_addresses(containers: ContainerMesh) -> None:
    look = (
        "import pathlib\n"
        "for p in pathlib.Path('/proc').glob('[0-9]*'):\n"
        " if b'lablet_local.cloud' in (p/'cmdline').read_bytes() and b'init' not in (p/'cmdline').read_bytes():\n"
        "  s=dict(l.split(':',1) for l in (p/'status').read_text().splitlines()); print(s['Uid'].split()[0], s['CapEff'])"
    )
    (cloud,) = containers.containers("cloud")
    for line in containers.in_container(cloud, look).splitlines():
        user, effective = line.split()
        assert user == "10001"
        assert int(effective, 16) == 0


def test_the_image_is_small_has_no_shell_and_says_what_it_holds(containers: ContainerMesh) -> None:
    (gateway, *_) = containers.containers("api-gateway")
    image = containers.inspect(gateway)["Image"]
    told = subprocess.run(["docker", "inspect", image], capture_output=True, text=True, check=True)
    (found,) = json.loads(told.stdout)
    assert found["Size"] < LARGEST
    assert found["Config"]["User"] == "10001:10001"
    assert found["Config"]["Healthcheck"]["Test"]
    labels = found["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] not in ("", "unknown")
    look = (
        "import json,pathlib,shutil,importlib.metadata as m\n"
        f"held=json.loads(pathlib.Path({labels['io.lablet.sbom']!r}).read_text())\n"
        "said={c['name']:c['version'] for c in held['components'] if c['purl'].startswith('pkg:pypi/')}\n"
        "import re\n"
        "there={re.sub('[-_.]+','-',d.metadata['Name']).lower():d.version for d in m.distributions()}\n"
        "print(json.dumps({'same':said==there,'shell':[x for x in ('/bin/sh','/bin/bash','/usr/bin/apt','/usr/bin/dpkg') "
        "if pathlib.Path(x).exists()],'deb':sum(c['purl'].startswith('pkg:deb/') for c in held['components'])}))"
    )
    told = json.loads(containers.in_container(gateway, look))
    assert told["same"], "the SBOM and what is installed differ"
    assert told["shell"] == []
    assert told["deb"] > 5
