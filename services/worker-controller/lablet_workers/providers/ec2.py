"""Amazon EC2 as a `Provider`: machines of one region, launched once per token, found by tags, paged, with backoff.

EC2 is eventually consistent: a machine that has just been launched may be denied for a while. So "no such instance" is
believed only of a machine that this process has not launched lately, and only once the process is old enough that nobody
before it can have. Everything else that EC2 answers is an error with a type, and an error never says that a machine is gone.
Calls that are throttled are tried again by botocore with growing pauses; what is still throttled then is `Throttled`.
Each worker that is up is asked for every few seconds, and EC2 takes some twenty such calls a second of a whole account: so
one call asks for all machines that run, and that one runs is believed for `fresh_seconds`; nothing else is.

EC2 actions used, each needed in the policy of the role: ec2:CreateTags, ec2:DescribeImages, ec2:DescribeInstances,
ec2:RunInstances, ec2:StartInstances, ec2:StopInstances, ec2:TerminateInstances (and iam:PassRole where
EC2_INSTANCE_PROFILE is set). Not guaranteed: that a subnet or security group exists; EC2's own words say so at the launch.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from typing import Any

from lablet_common.telemetry.spans import calling
from lablet_workers.providers.ec2_orders import ImageMissing, newest_image, run_instances_arguments
from lablet_workers.providers.port import (
    InsufficientCapacity,
    LaunchOrder,
    MachineInfo,
    MachineState,
    NotFound,
    NotReady,
    ProviderError,
    ProviderUnavailable,
    Throttled,
    Unauthorized,
)
from lablet_workers.settings import Ec2Settings

log = logging.getLogger("lablet.workers.ec2")

ACTIONS = (
    "ec2:CreateTags",
    "ec2:DescribeImages",
    "ec2:DescribeInstances",
    "ec2:RunInstances",
    "ec2:StartInstances",
    "ec2:StopInstances",
    "ec2:TerminateInstances",
)
"""What the role of the worker-controller must be allowed to do."""

_NOT_TERMINATED = ["pending", "running", "shutting-down", "stopping", "stopped"]
_OTHER_ORDER = "IdempotentParameterMismatch"
_ERRORS: Mapping[str, type[ProviderError]] = {
    "InvalidInstanceID.NotFound": NotFound,
    "InsufficientInstanceCapacity": InsufficientCapacity,
    "InsufficientHostCapacity": InsufficientCapacity,
    "InsufficientReservedInstanceCapacity": InsufficientCapacity,
    "InstanceLimitExceeded": InsufficientCapacity,
    "VcpuLimitExceeded": InsufficientCapacity,
    "MaxSpotInstanceCountExceeded": InsufficientCapacity,
    "RequestLimitExceeded": Throttled,
    "RequestThrottled": Throttled,
    "RequestThrottledException": Throttled,
    "EC2ThrottledException": Throttled,
    "Throttling": Throttled,
    "ThrottlingException": Throttled,
    "ThrottledException": Throttled,
    "IncorrectInstanceState": NotReady,
    "IncorrectState": NotReady,
    _OTHER_ORDER: NotReady,
    "UnauthorizedOperation": Unauthorized,
    "AuthFailure": Unauthorized,
    "Blocked": Unauthorized,
    "ExpiredToken": Unauthorized,
    "InvalidClientTokenId": Unauthorized,
    "MissingAuthenticationToken": Unauthorized,
    "OptInRequired": Unauthorized,
    "PendingVerification": Unauthorized,
    "RequestExpired": Unauthorized,
    "SignatureDoesNotMatch": Unauthorized,
    "UnrecognizedClientException": Unauthorized,
}
_ASKED_FOR = ("Client.UserInitiatedShutdown", "Client.UserInitiatedHibernate")
_LONGEST_MESSAGE = 300
_MOST_VALUES = 200
"""Of one filter (source: EC2's documented limit)."""
_ENCODED = "Encoded authorization failure message"


class Ec2Provider:
    """A `Provider` for one region. `endpoint` (tests, private endpoints) replaces the region's public address; `attempts`:
    how often a throttled or unanswered call is made at most; `settles_seconds`: for how long EC2 may deny a machine that it
    has just launched, real time. Credentials come from AWS' usual chain."""

    def __init__(
        self,
        settings: Ec2Settings,
        region: str,
        *,
        endpoint: str | None = None,
        attempts: int = 5,
        settles_seconds: float = 120.0,
        fresh_seconds: float = 5.0,
    ) -> None:
        self._settings = settings
        self._region = region
        self._endpoint = endpoint or settings.endpoint_url
        self._attempts = attempts
        self._settles = settles_seconds
        self._began = time.monotonic()
        self._launched: dict[str, float] = {}
        """Machine → when this process launched it (monotonic), of those that EC2 may not show yet."""
        self._fresh = fresh_seconds
        self._running: dict[str, tuple[float, MachineInfo]] = {}
        """Machine → when it was seen to run (monotonic), and what was seen."""
        self._looking = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._connecting = asyncio.Lock()
        self._connected: Any = None

    permanent = False

    async def launch(self, order: LaunchOrder) -> MachineInfo:
        image = await self.image(order.image)
        arguments = run_instances_arguments(order, image, self._settings, self._region)
        try:
            async with self._calling(f"launch {order.name}") as client:
                answer = await client.run_instances(**arguments)
        except NotReady as mismatch:
            # the token has made a machine already, from an image that is no longer the newest
            for known in await self.find(order.tags or {}):
                return known
            raise ProviderUnavailable(f"{mismatch}; the machine of that launch is not visible yet") from mismatch
        info = self._machine(answer["Instances"][0])
        now = time.monotonic()
        self._launched = {known: at for known, at in self._launched.items() if now - at < self._settles}
        self._launched[info.id] = now
        return info

    async def image(self, pattern: str) -> Mapping[str, Any]:
        """The newest image of a name pattern, or the one with that id. Raises `ProviderError` naming what was looked for."""
        if not pattern:
            raise ProviderError("the worker template names no image: set its image pattern (ami_pattern)")
        search: dict[str, Any] = {"Filters": [{"Name": "state", "Values": ["available"]}]}
        if pattern.startswith("ami-"):
            search["ImageIds"] = [pattern]
        else:
            # without owners anybody's public image of that name would be taken
            search["Owners"] = self._settings.owners
            search["Filters"].append({"Name": "name", "Values": [pattern]})
        async with self._calling(f"look for image {pattern}") as client:
            found = [
                image
                async for page in client.get_paginator("describe_images").paginate(**search)
                for image in page["Images"]
            ]
        try:
            return newest_image(found)
        except ImageMissing as missing:
            owners = ", ".join(self._settings.owners)
            raise ProviderError(
                f"no available image {pattern} of {owners} in {self._region}: copy it there, or set EC2_IMAGE_OWNERS"
            ) from missing

    async def describe(self, machine_id: str) -> MachineInfo:
        seen = self._seen_running(machine_id)
        if seen is not None:
            return seen
        async with self._looking:
            return self._seen_running(machine_id) or await self._look_at(machine_id)

    def _seen_running(self, machine_id: str) -> MachineInfo | None:
        at, info = self._running.get(machine_id, (-math.inf, None))
        return info if time.monotonic() - at < self._fresh else None

    async def _look_at(self, machine_id: str) -> MachineInfo:
        """Asks for it, and in the same call for the others that ran when they were looked at last."""
        others = [known for known in self._running if known != machine_id]
        wanted = [machine_id, *others[: _MOST_VALUES - 1]]
        found: list[MachineInfo] = []
        for how in ({"Filters": [{"Name": "instance-id", "Values": wanted}]}, {"InstanceIds": [machine_id]}):
            try:
                async with self._calling(f"describe {machine_id}") as client:
                    answer = await client.describe_instances(**how)
            except NotFound as missing:  # said of the one that is asked for by its name
                self._running.pop(machine_id, None)
                raise self._believed(machine_id, missing) from missing
            found += [self._machine(one) for group in answer["Reservations"] for one in group["Instances"]]
            if any(one.id == machine_id for one in found):
                break
        now = time.monotonic()
        for known in wanted:
            self._running.pop(known, None)
        self._running |= {one.id: (now, one) for one in found if one.state is MachineState.RUNNING and one.url}
        asked = [one for one in found if one.id == machine_id]
        if len(asked) != 1:
            raise ProviderUnavailable(f"describe {machine_id}: EC2 answered with {len(asked)} machines")
        return asked[0]

    def _believed(self, machine_id: str, missing: NotFound) -> ProviderError:
        """`NotFound`, unless it may only be that EC2 does not show the machine yet."""
        since = self._launched.get(machine_id, self._began)
        if time.monotonic() - since < self._settles:
            return ProviderUnavailable(f"{missing}: it may have been launched so lately that EC2 does not show it yet")
        self._launched.pop(machine_id, None)
        return missing

    async def find(self, tags: Mapping[str, str]) -> list[MachineInfo]:
        filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in sorted(tags.items())]
        filters.append({"Name": "instance-state-name", "Values": _NOT_TERMINATED})
        async with self._calling(f"find {dict(tags)}") as client:
            pages = client.get_paginator("describe_instances").paginate(
                Filters=filters, PaginationConfig={"PageSize": self._settings.page_size}
            )
            return [
                self._machine(instance)
                async for page in pages
                for group in page["Reservations"]
                for instance in group["Instances"]
            ]

    async def start(self, machine_id: str) -> MachineInfo:
        try:
            async with self._calling(f"start {machine_id}") as client:
                await client.start_instances(InstanceIds=[machine_id])
            self._running.pop(machine_id, None)
        except NotFound as missing:
            raise self._believed(machine_id, missing) from missing
        return await self.describe(machine_id)

    async def stop(self, machine_id: str) -> MachineInfo:
        try:
            async with self._calling(f"stop {machine_id}") as client:
                await client.stop_instances(InstanceIds=[machine_id])
            self._running.pop(machine_id, None)
        except NotFound as missing:
            raise self._believed(machine_id, missing) from missing
        return await self.describe(machine_id)

    async def terminate(self, machine_id: str) -> None:
        self._running.pop(machine_id, None)
        try:
            async with self._calling(f"terminate {machine_id}") as client:
                await client.terminate_instances(InstanceIds=[machine_id])
        except NotFound as missing:
            believed = self._believed(machine_id, missing)
            if not isinstance(believed, NotFound):
                raise believed from missing

    async def close(self) -> None:
        await self._stack.aclose()
        self._connected = None

    # -- calling ---------------------------------------------------------------------------------------------------

    async def client(self) -> Any:
        """The botocore client, made at the first call: its model of EC2 takes half a second to load."""
        async with self._connecting:
            if self._connected is None:
                from aiobotocore.config import AioConfig

                config = AioConfig(
                    connect_timeout=5,
                    read_timeout=30,
                    max_pool_connections=16,
                    retries={"mode": "standard", "total_max_attempts": self._attempts},
                )
                self._connected = await self._stack.enter_async_context(
                    _session().create_client(
                        "ec2", region_name=self._region, endpoint_url=self._endpoint, config=config
                    )
                )
        return self._connected

    @asynccontextmanager
    async def _calling(self, what: str) -> AsyncIterator[Any]:
        """The client, with its errors turned into the port's."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
        from botocore.parsers import ResponseParserError

        try:
            with calling(f"{what} EC2", {"rpc.service": "EC2"}):
                yield await self.client()
        except ClientError as error:
            raise _typed(what, error.response) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise Unauthorized(f"{what}: {error}: give the process an AWS role or AWS_ACCESS_KEY_ID") from error
        except (BotoCoreError, ResponseParserError, OSError) as error:
            raise ProviderUnavailable(
                f"{what}: EC2 in {self._region} does not answer: {type(error).__name__}"
            ) from error

    def _machine(self, instance: Mapping[str, Any]) -> MachineInfo:
        state = str(instance["State"]["Name"])
        tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", ())}
        public = self._settings.address == "public"
        host = (instance.get("PublicIpAddress") if public else instance.get("PrivateIpAddress")) or None
        why = instance.get("StateReason") or {}
        told = str(why.get("Code", "")) not in ("", *_ASKED_FOR) and state in ("stopping", "stopped", "terminated")
        return MachineInfo(
            id=str(instance["InstanceId"]),
            name=tags.get("Name", ""),
            state=MachineState.TERMINATING if state == "shutting-down" else MachineState(state),
            url=f"https://{host}" if host else None,
            host=host,
            reason=str(why.get("Message") or why.get("Code")) if told else "",
            tags=tags,
        )


@cache
def _session() -> Any:
    """One for all regions: it keeps EC2's model, which is large."""
    from aiobotocore.session import get_session

    return get_session()


def _typed(what: str, response: Mapping[str, Any]) -> ProviderError:
    """EC2's error code as one of the port's errors; what is not known stays a refusal, and 5xx means: nothing is known."""
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    error = response.get("Error", {})
    # what follows is another one in each answer to the same call, and tells nobody anything
    words = str(error.get("Message", "")).partition(_ENCODED)[0].strip()
    code, message = str(error.get("Code", "")), words[:_LONGEST_MESSAGE]
    kind = _ERRORS.get(code) or (ProviderUnavailable if status >= 500 else ProviderError)
    return kind(f"{what}: EC2 answered {code}: {message}")
