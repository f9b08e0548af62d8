"""The four services as processes: their replicas and the environment of each, with only the secrets that it needs."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lablet_common.resources.kinds import Service
from lablet_local.agents import LEASE_SECONDS
from lablet_local.pace import Pace
from lablet_local.ports import MOST_REPLICAS
from lablet_local.probe import http_look, service_ready
from lablet_local.servers import BUCKET, Site
from lablet_local.supervisor import Process

MODULES: Mapping[Service, str] = {
    Service.GATEWAY: "lablet_gateway",
    Service.SCHEDULER: "lablet_scheduler",
    Service.WORKERS: "lablet_workers",
    Service.ARTIFACTS: "lablet_artifacts",
}
_ALIASES = {"gateway": Service.GATEWAY, "workers": Service.WORKERS, "artifacts": Service.ARTIFACTS}
_USES_S3 = frozenset({Service.GATEWAY, Service.WORKERS, Service.ARTIFACTS})
_OURS = ("AGENT_", "ETCD_", "NATS_", "ARTIFACT_STORAGE_", "AWS_", "CLOUD_", "CML_", "LABLET_")
"""Settings of the caller's environment that must not reach a service: the mesh itself decides them."""
RESYNC_SECONDS = 5.0


class UnknownService(ValueError):
    """No service of that name; lists those there are."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """Files and choices that only some services get."""

    api_tokens: Path
    templates: Path


def service_named(name: str) -> Service:
    """`gateway`, `workers`, `artifacts` stand for the long names. Raises `UnknownService`."""
    try:
        return _ALIASES.get(name) or Service(name)
    except ValueError:
        known = ", ".join([*Service, *_ALIASES])
        raise UnknownService(f"there is no service {name!r}; there are {known}") from None


def process_named(name: str) -> str:
    """`gateway-1` → `api-gateway-1`; other names stay as they are."""
    service, separator, number = name.rpartition("-")
    return f"{_ALIASES[service]}-{number}" if separator and service in _ALIASES else name


def replica_counts(wanted: Mapping[str, int]) -> dict[str, int]:
    """One of each service, or as many as wanted (1 to 9). Raises `UnknownService`, `ValueError`."""
    counts = {str(service): 1 for service in Service}
    for name, count in wanted.items():
        if not 1 <= count <= MOST_REPLICAS:
            raise ValueError(f"replicas of {name} must be between 1 and {MOST_REPLICAS}, not {count}")
        counts[service_named(name)] = count
    return counts


def service_processes(
    site: Site, pace: Pace, counts: Mapping[str, int], secrets: Secrets, more: Callable[[str, str], Mapping[str, str]]
) -> list[Process]:
    """Every replica of every service. What `more` gives for a service and its process wins over what the mesh sets."""
    return [
        _process(site, pace, service, number, secrets, more(service, f"{service}-{number}"))
        for service in Service
        for number in range(1, counts[service] + 1)
    ]


def _process(
    site: Site, pace: Pace, service: Service, number: int, secrets: Secrets, more: Mapping[str, str]
) -> Process:
    name = f"{service}-{number}"
    port = site.ports.health(service, number)
    env = {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
    env |= _common(site, pace, name, port)
    env |= {"NATS_USER": str(service), "NATS_PASSWORD_FILE": str(site.keys.nats_password(service))}
    if service in _USES_S3:
        env |= {
            "ARTIFACT_STORAGE_ENDPOINT": f"http://127.0.0.1:{site.ports.s3}",
            "ARTIFACT_STORAGE_ACCESS_KEY_FILE": str(site.keys.s3_access_key),
            "ARTIFACT_STORAGE_SECRET_KEY_FILE": str(site.keys.s3_secret_key),
            "ARTIFACT_STORAGE_BUCKET": BUCKET,
        }
    if service is Service.GATEWAY:
        env |= {
            "GATEWAY_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(site.ports.gateway(number)),
            "API_TOKENS_FILE": str(secrets.api_tokens),
            "GATEWAY_RATE_LIMIT": os.environ.get("GATEWAY_RATE_LIMIT", "0"),
            "SECRETS_KEY_FILE": str(site.keys.webhooks),
            "WEBHOOK_ALLOW_PRIVATE": "true",
        }
    if service is Service.WORKERS:
        env |= {
            "CLOUD_URL": f"http://127.0.0.1:{site.ports.cloud}",
            "CLOUD_TOKEN_FILE": str(site.keys.cloud_token),
            "CML_PASSWORD_FILE": str(site.keys.cml_password),
            "CML_LICENSE_TOKEN_FILE": str(site.keys.cml_licence_token),
            "SECRETS_KEY_FILE": str(site.keys.at_rest),
            "AGENT_LEASE_SECONDS": str(LEASE_SECONDS),
            "WORKER_TEMPLATES_CONFIG_PATH": str(secrets.templates),
        }
    return Process(
        name=name,
        argv=(sys.executable, "-m", MODULES[service]),
        env=env | dict(more),
        cwd=site.folder.root,
        log=site.folder.log(name),
        ready=http_look(site.client, f"http://127.0.0.1:{port}/readyz", service_ready),
        after=(
            *site.members.names("etcd"),
            *site.members.names("nats"),
            "s3",
            *(("cloud",) if service is Service.WORKERS else ()),
        ),
    )


def _common(site: Site, pace: Pace, replica: str, health_port: int) -> dict[str, str]:
    ttl = f"{pace.lease_ttl:g}"
    return {
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "REPLICA_ID": replica,
        "HEALTH_HOST": "127.0.0.1",
        "HEALTH_PORT": str(health_port),
        **site.members.settings,
        "LOG_FORMAT": "json",
        "CLOUDEVENTS_SCHEMA_BASE": f"http://127.0.0.1:{site.ports.gateway(1)}/api/v1/schemas/",
        "OWNERSHIP_LEASE_TTL_SECONDS": ttl,
        "SCHEDULER_LEADER_LEASE_TTL_SECONDS": ttl,
        "SCHEDULER_LEAD_TIME_MINUTES": f"{pace.lead_minutes:g}",
        "RESYNC_SECONDS": f"{RESYNC_SECONDS:g}",
        "SCHEDULER_RECONCILE_INTERVAL_SECONDS": f"{RESYNC_SECONDS:g}",
        "CONTROLLER_RECONCILE_INTERVAL_SECONDS": f"{RESYNC_SECONDS:g}",
    }
