"""Which provider and region a pool's machines come from, and what its launch asks for."""

from pathlib import Path
from typing import Any

import pytest

from lablet_common.resources.worker import PoolSpec, TemplateSpec
from lablet_workers.providers.choice import Providers, launch_order, region_of
from lablet_workers.providers.ec2 import Ec2Provider
from lablet_workers.providers.port import ProviderError
from lablet_workers.providers.simulated import SimulatedProvider
from lablet_workers.providers.static import StaticProvider
from lablet_workers.settings import Ec2Settings, WorkerControllerSettings


def template(**more: Any) -> TemplateSpec:
    given = {
        "provider": "ec2",
        "instance_type": "m5zn.metal",
        "capacity": {"cpu_cores": 48, "memory_gb": 192, "storage_gb": 1000},
        "license": "ENTERPRISE",
        "max_nodes": 500,
        "image_pattern": "cml-2.9-*",
    }
    return TemplateSpec.model_validate(given | more)


def pool(region: str = "") -> PoolSpec:
    return PoolSpec(template="t", max=1, region=region)


async def test_each_cloud_and_region_has_one_adapter() -> None:
    providers = Providers(WorkerControllerSettings(ec2=Ec2Settings(region="eu-west-1")))
    ireland, virginia = providers(pool(), template()), providers(pool("us-east-1"), template())
    assert isinstance(ireland, Ec2Provider)
    assert ireland is not virginia
    assert providers(pool("eu-west-1"), template()) is ireland
    assert isinstance(providers(pool(), template(provider="static")), StaticProvider)
    assert isinstance(providers(pool(), template(provider="simulated")), SimulatedProvider)
    await providers.close()


def test_the_pool_names_its_region_among_those_of_its_template() -> None:
    two = template(regions=["us-east-1", "eu-west-1"])
    assert region_of(pool("eu-west-1"), two, "us-east-1") == "eu-west-1"
    assert region_of(pool(), two, "eu-west-1") == "eu-west-1"
    assert region_of(pool(), two, "ap-south-1") == "us-east-1"
    assert region_of(pool(), template(), "ap-south-1") == "ap-south-1"
    with pytest.raises(ProviderError, match="region ap-south-1 is none of the template's: us-east-1, eu-west-1"):
        region_of(pool("ap-south-1"), two, "")
    with pytest.raises(ProviderError, match="no region: set the pool's region"):
        region_of(pool(), template(), "")


def test_a_launch_asks_for_the_templates_shape(tmp_path: Path) -> None:
    script = tmp_path / "user-data"
    script.write_text("#cloud-config\n")
    settings = WorkerControllerSettings(ec2=Ec2Settings(region="eu-west-1", user_data_file=script))
    shape = template(tags={"tier": "large", "lablet-worker": "forged"})
    order = launch_order("token", "default-001", shape, {"lablet-worker": "default-001"}, settings)
    assert (order.instance_type, order.image, order.storage_gb) == ("m5zn.metal", "cml-2.9-*", 1000)
    assert order.user_data == "#cloud-config\n"
    assert order.tags == {"tier": "large", "lablet-worker": "default-001"}
    script.unlink()
    with pytest.raises(ProviderError, match="EC2_USER_DATA_FILE"):
        launch_order("token", "default-001", shape, {}, settings)
