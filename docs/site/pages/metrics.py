"""The metrics, from the registry: what all services share, and what each adds of its own."""

from collections.abc import Iterator
from importlib import import_module

from prometheus_client.metrics import MetricWrapperBase

from lablet_common.telemetry.metrics import REGISTRY
from pages.table import code, table

HEAD = """# Metrics

At `/metrics` on each service's internal port (`HEALTH_PORT`), in Prometheus' format. Every service exports the
shared names; a series with labels appears with the first thing it counts. Histograms have `_bucket`, `_sum` and
`_count`. Dashboards and alerts that use them: [seeing what happens](../operations/observing.md),
[runbooks](../runbooks/README.md).
"""
_SERVICES = ("lablet_gateway", "lablet_scheduler", "lablet_workers", "lablet_artifacts")


def registered() -> Iterator[MetricWrapperBase]:
    """Lablet's own, by name; what the Python client adds about the process is not ours. Importing a service registers
    what it adds to the shared ones."""
    for service in _SERVICES:
        import_module(f"{service}.app")
    found = {one for one in REGISTRY._collector_to_names if isinstance(one, MetricWrapperBase)}
    yield from sorted(found, key=lambda one: str(one._name))


def page() -> str:
    rows = []
    for metric in registered():
        name = f"{metric._name}_total" if metric._type == "counter" else metric._name
        rows.append((code(name), metric._type, ", ".join(map(code, metric._labelnames)) or "–", metric._documentation))
    return f"{HEAD}\n{table(('name', 'type', 'labels', 'meaning'), rows)}"
