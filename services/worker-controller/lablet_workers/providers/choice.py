"""Which provider lends the machines of a pool: its template names the cloud, the pool names the region.

One adapter is kept for each cloud and region. What a pool asks for and nobody here can give is an error that names the
setting, at the pool's own steps and not at the start of the service: other pools go on.
"""

import asyncio
from collections.abc import Callable, Mapping

from lablet_common.resources.worker import PoolSpec, TemplateSpec
from lablet_workers.agents.leases import Leases
from lablet_workers.providers.agent import AgentProvider
from lablet_workers.providers.ec2 import Ec2Provider
from lablet_workers.providers.port import LaunchOrder, Provider, ProviderError
from lablet_workers.providers.simulated import SimulatedProvider
from lablet_workers.providers.static import StaticProvider
from lablet_workers.settings import WorkerControllerSettings

ChooseProvider = Callable[[PoolSpec, TemplateSpec], Provider]
"""A pool's provider. Raises `ProviderError` where a setting is missing."""


class Providers:
    """Makes each adapter once; calling it is a `ChooseProvider`."""

    def __init__(self, settings: WorkerControllerSettings, leases: Leases | None = None) -> None:
        self._settings = settings
        self._leases = leases
        self._made: dict[tuple[str, str], Provider] = {}

    def __call__(self, pool: PoolSpec, template: TemplateSpec) -> Provider:
        region = region_of(pool, template, self._settings.ec2.region) if template.provider == "ec2" else ""
        known = self._made.get((template.provider, region))
        if known is None:
            known = self._made[template.provider, region] = self._make(template.provider, region)
        return known

    def _make(self, provider: str, region: str) -> Provider:
        match provider:
            case "ec2":
                return Ec2Provider(self._settings.ec2, region)
            case "agent":
                if self._leases is None:
                    raise ProviderError("agents are not served here")
                return AgentProvider(self._leases)
            case "static":
                return StaticProvider(self._settings.static_hosts_file)
            case _:
                token = self._settings.cloud.token
                return SimulatedProvider(self._settings.cloud.url, token.get_secret_value() if token else "")

    async def close(self) -> None:
        """Ends every adapter's connections."""
        await asyncio.gather(*(provider.close() for provider in self._made.values()))
        self._made.clear()


def region_of(pool: PoolSpec, template: TemplateSpec, default: str) -> str:
    """The pool's own, else `AWS_REGION` where the template allows it, else the template's first. Raises `ProviderError`."""
    allowed = template.regions
    region = pool.region or (default if default in allowed or not allowed else allowed[0])
    if not region:
        raise ProviderError("no region: set the pool's region, the template's regions, or AWS_REGION")
    if allowed and region not in allowed:
        raise ProviderError(f"region {region} is none of the template's: {', '.join(allowed)}")
    return region


def launch_order(
    token: str, name: str, template: TemplateSpec, tags: Mapping[str, str], settings: WorkerControllerSettings
) -> LaunchOrder:
    """A machine of the template's shape. The template's own tags never hide the ones that machines are found by.
    Raises `ProviderError` when the user data cannot be read."""
    try:
        user_data = settings.ec2.user_data() if template.provider == "ec2" else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ProviderError(f"EC2_USER_DATA_FILE {settings.ec2.user_data_file} cannot be read: {error}") from error
    return LaunchOrder(
        client_token=token,
        name=name,
        instance_type=template.instance_type,
        image=template.image_pattern,
        user_data=user_data,
        storage_gb=round(template.capacity.storage_gb),
        tags={**template.tags, **tags},
    )
