"""The Kubernetes manifests: they render, the API's own schemas accept them, and they agree with the services' settings."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from lablet_common.bus.streams import intents_stream
from lablet_common.resources.kinds import Service
from lablet_common.secrets import SecretBox
from lablet_gateway.identity import Role
from lablet_gateway.identity.token_file import TokenFile

OVERLAYS = ("small", "production")
VERSION = "1.31"
CUSTOM = {"ServiceMonitor", "ScaledObject"}
MODULES = {
    "api-gateway": "lablet_gateway",
    "scheduler": "lablet_scheduler",
    "worker-controller": "lablet_workers",
    "artifact-service": "lablet_artifacts",
}
pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on this machine")
Documents = list[dict[str, Any]]


def rendered(root: Path, overlay: str) -> Documents:
    told = subprocess.run(
        ["kubectl", "kustomize", str(root / "deploy/kubernetes/overlays" / overlay)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    return [document for document in yaml.safe_load_all(told.stdout) if document]


@pytest.fixture(scope="module")
def overlays(root: Path) -> dict[str, Documents]:
    return {name: rendered(root, name) for name in OVERLAYS}


def of_kind(documents: Documents, kind: str) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def pod(deployment: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_schemas_of_kubernetes_accept_every_document(overlays: dict[str, Documents], overlay: str) -> None:
    for document in overlays[overlay]:
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, VERSION, strict=True)


def test_the_validator_would_have_noticed(overlays: dict[str, Documents]) -> None:
    document = of_kind(overlays["small"], "Deployment")["scheduler"] | {"specification": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_service_is_there_and_starts_its_module(overlays: dict[str, Documents], overlay: str) -> None:
    deployments = of_kind(overlays[overlay], "Deployment")
    assert {name: pod(one)["containers"][0]["command"][-1] for name, one in deployments.items()} == MODULES


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_root_and_everything_is_bounded(overlays: dict[str, Documents], overlay: str) -> None:
    for name, deployment in of_kind(overlays[overlay], "Deployment").items():
        spec = pod(deployment)
        (container,) = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["automountServiceAccountToken"] is False, name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
        assert "memory" in container["resources"]["limits"], name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_the_internal_port_and_a_gateway_may_drain(overlays: dict[str, Documents], overlay: str) -> None:
    settings = of_kind(overlays[overlay], "ConfigMap")["lablet-settings"]["data"]
    for name, deployment in of_kind(overlays[overlay], "Deployment").items():
        (container,) = pod(deployment)["containers"]
        ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
        assert ports["internal"] == settings["HEALTH_PORT"], name
        paths = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
        assert {kind: path["path"] for kind, path in paths.items()} == {
            "startup": "/livez",
            "liveness": "/livez",  # a dependency that is down is no reason to begin anew
            "readiness": "/readyz",
        }, name
        assert {path["port"] for path in paths.values()} == {"internal"}, name
        environment = {one["name"]: one.get("value") for one in container["env"]}
        drain = float(environment.get("GATEWAY_DRAIN_SECONDS") or 0)
        assert pod(deployment)["terminationGracePeriodSeconds"] > drain + 15, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_a_documented_setting_and_none_holds_a_secret(
    overlays: dict[str, Documents], overlay: str, root: Path
) -> None:
    known = set(re.findall(r"^#([A-Z0-9_]+)=", (root / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    settings = of_kind(overlays[overlay], "ConfigMap")["lablet-settings"]["data"]
    for name, deployment in of_kind(overlays[overlay], "Deployment").items():
        (container,) = pod(deployment)["containers"]
        told = set(settings) | {one["name"] for one in container["env"]}
        assert sorted(told - known) == [], name
        assert [one for one in told if re.search(r"(PASSWORD|TOKEN|SECRET_KEY|ACCESS_KEY)$", one)] == [], name
    assert of_kind(overlays[overlay], "Secret") == {}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_part_mounts_its_own_keys_alone(overlays: dict[str, Documents], overlay: str) -> None:
    for name, deployment in of_kind(overlays[overlay], "Deployment").items():
        secrets = {volume["secret"]["secretName"] for volume in pod(deployment)["volumes"] if "secret" in volume}
        assert secrets <= {f"lablet-{name}", "lablet-etcd-tls"}
        assert f"lablet-{name}" in secrets


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_disruption_budgets_and_policies_select_what_exists(overlays: dict[str, Documents], overlay: str) -> None:
    documents = overlays[overlay]
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in of_kind(documents, "Deployment").values()]

    def selects(selector: dict[str, str]) -> bool:
        return any(selector.items() <= one.items() for one in labels)

    assert set(of_kind(documents, "PodDisruptionBudget")) == set(MODULES)
    for budget in of_kind(documents, "PodDisruptionBudget").values():
        assert selects(budget["spec"]["selector"]["matchLabels"])
    policies = of_kind(documents, "NetworkPolicy")
    assert policies["deny-all"]["spec"]["podSelector"] == {}
    for name, policy in policies.items():
        assert selects(policy["spec"]["podSelector"].get("matchLabels", {})), name
    for name, service in of_kind(documents, "Service").items():
        assert selects(service["spec"]["selector"]), name


def test_production_scales_on_the_lag_of_consumers_that_exist(overlays: dict[str, Documents]) -> None:
    documents = overlays["production"]
    deployments = of_kind(documents, "Deployment")
    streams = {intents_stream(service): service for service in Service}
    for name, scaled in of_kind(documents, "ScaledObject").items():
        assert scaled["spec"]["scaleTargetRef"]["name"] in deployments
        assert scaled["spec"]["minReplicaCount"] >= 2
        for trigger in scaled["spec"]["triggers"]:
            assert trigger["type"] == "nats-jetstream"
            told = trigger["metadata"]
            assert streams[told["stream"]] == name
            assert re.fullmatch(rf"{name}(-[a-z0-9-]+)?", told["consumer"])
            assert int(told["lagThreshold"]) > 0


def test_production_is_scraped_under_the_names_that_dashboards_expect(
    overlays: dict[str, Documents], root: Path
) -> None:
    documents = overlays["production"]
    services = of_kind(documents, "Service")
    config = yaml.safe_load((root / "deploy/observability/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"] for job in config["scrape_configs"]}
    for name, monitor in of_kind(documents, "ServiceMonitor").items():
        spec = monitor["spec"]
        wanted = spec["selector"]["matchLabels"]
        (target,) = [one for one in services.values() if wanted.items() <= one["metadata"]["labels"].items()]
        assert target["metadata"]["labels"][spec["jobLabel"]] in jobs, name
        (endpoint,) = spec["endpoints"]
        assert endpoint["port"] in [port["name"] for port in target["spec"]["ports"]]
        assert endpoint["honorLabels"] is True


def test_production_survives_a_lost_node(overlays: dict[str, Documents]) -> None:
    scaled = of_kind(overlays["production"], "ScaledObject") | of_kind(
        overlays["production"], "HorizontalPodAutoscaler"
    )
    for name, deployment in of_kind(overlays["production"], "Deployment").items():
        assert "replicas" not in deployment["spec"], f"{name}: each apply would undo what its autoscaler has decided"
        spec = scaled[name]["spec"]
        assert spec.get("minReplicaCount", spec.get("minReplicas")) >= 2, name
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, name
        rules = {one["topologyKey"]: one["whenUnsatisfiable"] for one in pod(deployment)["topologySpreadConstraints"]}
        assert rules == {"topology.kubernetes.io/zone": "ScheduleAnyway", "kubernetes.io/hostname": "DoNotSchedule"}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on this machine")
async def test_the_first_token_and_the_keys_are_made_as_the_page_says(root: Path, tmp_path: Path) -> None:
    page = (root / "docs/operations/kubernetes.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^ *```bash\n(.*?)^ *```", page, flags=re.MULTILINE | re.DOTALL)
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True, timeout=60)
    token = (tmp_path / "admin.token").read_text(encoding="utf-8")
    principal = await TokenFile(tmp_path / "api-tokens.json").verify(token)
    assert principal is not None
    assert (principal.role, principal.tenant) == (Role.ADMIN, "default")
    for name in ("webhooks.keys", "at-rest.keys"):
        assert SecretBox.from_file(tmp_path / name)
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}
