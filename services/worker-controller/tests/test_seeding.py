"""The template file: what it makes, and how a fault in it is named."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from lablet_common.resources.kinds import TEMPLATE
from lablet_common.resources.worker import WorkerTemplate
from lablet_common.store import MemoryStore
from lablet_common.store.repository import Repository
from lablet_workers.app import make_once
from lablet_workers.seeding import SeedError, read_seeds

NOW = datetime(2027, 3, 1, tzinfo=UTC)
SHIPPED = Path(__file__).resolve().parents[3] / "config" / "worker-templates.yaml"

GOOD = """
templates:
  - name: small
    instance_type: c5.large
    capacity: {cpu_cores: 8, memory_gb: 16, storage_gb: 200}
    license_type: PERSONAL
    max_nodes: 20
    drain_timeout_hours: 1.5
pools:
  - {name: default, template: small, max: 3}
"""


def read(tmp_path: Path, text: str) -> tuple[list[object], list[object]]:
    file = tmp_path / "seeds.yaml"
    file.write_text(text, encoding="utf-8")
    templates, pools = read_seeds(file, NOW)
    return list(templates), list(pools)


def test_the_shipped_file_is_good_and_has_the_templates_of_the_contract() -> None:
    templates, pools = read_seeds(SHIPPED, NOW)
    assert {"simulated", "personal-standard", "enterprise-large"} <= {template.id for template in templates}
    (default,) = (pool for pool in pools if pool.id == "default")
    assert default.spec.template == "simulated"


def test_hours_become_minutes_and_names_ids(tmp_path: Path) -> None:
    (template,), (pool,) = read(tmp_path, GOOD)
    assert (template.id, template.spec.drain_timeout_minutes) == ("small", 90)  # type: ignore[attr-defined]
    assert pool.spec.max == 3  # type: ignore[attr-defined]


def test_an_empty_file_makes_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "") == ([], [])


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("max_nodes: 20", "max_nodes: many", "templates.0.max_nodes"),
        ("license_type: PERSONAL", "license_type: FREE", "templates.0.license_type"),
        ("cpu_cores: 8", "cpu_cores: 0", "cpu"),
        ("    max_nodes: 20", "    max_knots: 20", "templates.0.max_knots"),
        ("name: default", "name: Default Pool", "pools.0.name"),
        ("max: 3", "max: -1", "max"),
        ("templates:", "templates: {", "YAML"),
    ],
)
def test_a_fault_is_named_with_file_and_place(tmp_path: Path, old: str, new: str, place: str) -> None:
    with pytest.raises(SeedError, match=r"seeds\.yaml") as caught:
        read(tmp_path, GOOD.replace(old, new))
    assert place in str(caught.value)


def test_a_missing_file_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(SeedError, match="WORKER_TEMPLATES_CONFIG_PATH"):
        read_seeds(tmp_path / "none.yaml", NOW)


async def test_a_seed_never_overwrites_an_edit(tmp_path: Path) -> None:
    file = tmp_path / "seeds.yaml"
    file.write_text(GOOD, encoding="utf-8")
    kept: Repository[WorkerTemplate] = Repository(MemoryStore(), TEMPLATE)
    (first,), _ = read_seeds(file, NOW)
    await make_once(kept, first)
    made = await kept.require("small")
    assert made.spec.max_nodes == 20
    await kept.update(made.respecified(max_nodes=5))
    (again,), _ = read_seeds(file, NOW)
    await make_once(kept, again)
    assert (await kept.require("small")).spec.max_nodes == 5
