"""`lablet doctor --aws`: whether the account that the environment names will do what the mesh is going to ask of it.

Nothing is launched, changed or deleted: rights on EC2 are asked for with `DryRun`, which answers whether a call would have
been allowed; the bucket is only looked at. What may not even be looked at is a warning, with the action that is missing.
A right on a machine can only be tried on one: without any, starting, stopping and terminating stay untold.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from lablet_common.resources.worker import WorkerTemplate
from lablet_common.settings import StorageSettings
from lablet_local.findings import Finding, Verdict
from lablet_workers.providers.ec2 import Ec2Provider
from lablet_workers.providers.ec2_orders import MOST_USER_DATA, run_instances_arguments
from lablet_workers.providers.port import LaunchOrder, ProviderError
from lablet_workers.seeding import SeedError, read_seeds
from lablet_workers.settings import Ec2Settings

POLICY = "deploy/aws/workers-policy.json"
_ALLOWED = "DryRunOperation"
_REFUSED = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "AuthFailure"})
_NOBODY = "i-00000000000000000"
_WORKER_TAG = "lablet-worker"
Answer = Mapping[str, Any]


async def examine_aws(
    ec2: Ec2Settings, storage: StorageSettings, templates: Path, *, endpoint: str | None = None
) -> AsyncIterator[Finding]:
    """Every part, the identity first: without one nothing else is looked at. `endpoint`: instead of AWS' own, for tests."""
    from aiobotocore.session import get_session

    session = get_session()
    async with AsyncExitStack() as stack:
        region = ec2.region or storage.region

        async def client(service: str, address: str | None = None, **keys: str) -> Any:
            return await stack.enter_async_context(
                session.create_client(service, region_name=region, endpoint_url=endpoint or address, **keys)
            )

        identity = await _identity(await client("sts"))
        yield identity
        if identity.verdict is Verdict.FAULT:
            return
        try:
            wanted = [one for one in read_seeds(templates, datetime.now(UTC))[0] if one.spec.provider == "ec2"]
        except SeedError as error:
            yield Finding("worker templates", Verdict.FAULT, str(error), "correct the file")
            wanted = []
        yield _user_data(ec2)
        if wanted:
            provider = Ec2Provider(ec2, region, endpoint=endpoint or ec2.endpoint_url)
            stack.push_async_callback(provider.close)
            async for finding in _machines(provider, wanted, ec2, region):
                yield finding
        else:
            yield Finding("ec2", Verdict.WARNING, "no worker template is of the provider ec2", "nothing to look at")
        keys = {"verify": str(storage.ca_cert)} if storage.ca_cert is not None else {}
        if storage.access_key is not None and storage.secret_key is not None:
            keys |= {
                "aws_access_key_id": storage.access_key.get_secret_value(),
                "aws_secret_access_key": storage.secret_key.get_secret_value(),
            }
        async for finding in _bucket(await client("s3", storage.url, **keys), storage.bucket):
            yield finding


async def _identity(sts: Any) -> Finding:
    try:
        told = await sts.get_caller_identity()
    except (ClientError, BotoCoreError, OSError) as error:
        return Finding(
            "aws identity",
            Verdict.FAULT,
            str(error),
            "give the process an AWS role, or AWS_ACCESS_KEY_ID and its secret",
        )
    return Finding("aws identity", Verdict.OK, str(told["Arn"]))


def _user_data(ec2: Ec2Settings) -> Finding:
    if ec2.user_data_file is None:
        return Finding("user data", Verdict.OK, "none", "")
    try:
        size = len(ec2.user_data_file.read_bytes())
    except OSError as error:
        return Finding("user data", Verdict.FAULT, f"{ec2.user_data_file}: {error.strerror}", "set EC2_USER_DATA_FILE")
    if size > MOST_USER_DATA:
        return Finding(
            "user data", Verdict.FAULT, f"{size} bytes, EC2 takes {MOST_USER_DATA}", "let it fetch the rest at boot"
        )
    return Finding("user data", Verdict.OK, f"{size} bytes of {MOST_USER_DATA}")


async def _machines(
    provider: Ec2Provider, templates: list[WorkerTemplate], settings: Ec2Settings, region: str
) -> AsyncIterator[Finding]:
    ec2 = await provider.client()
    missing: list[str] = []
    known = await _dry("ec2:DescribeInstances", partial(ec2.describe_instances, DryRun=True), missing)
    await _dry("ec2:DescribeImages", partial(ec2.describe_images, DryRun=True), missing)
    for template in templates:
        if template.spec.regions and region not in template.spec.regions:
            continue
        part = f"template {template.id}"
        try:
            image = await provider.image(template.spec.image_pattern)
        except ProviderError as error:
            yield Finding(part, Verdict.FAULT, str(error), "copy the image, or correct ami_pattern or EC2_IMAGE_OWNERS")
            continue
        tags = {_WORKER_TAG: "doctor", "lablet-pool-uid": "doctor"}
        order = LaunchOrder("doctor", "doctor", template.spec.instance_type, image=str(image["ImageId"]), tags=tags)
        asked = run_instances_arguments(order, image, settings, region)
        told = await _dry("ec2:RunInstances", partial(ec2.run_instances, **asked, DryRun=True), missing)
        if told == _ALLOWED:
            yield Finding(part, Verdict.OK, f"{image['ImageId']} on {template.spec.instance_type} may be launched")
        elif told not in _REFUSED:
            yield Finding(part, Verdict.FAULT, f"a launch would be refused: {told}", "subnet, security group or type?")
    machine = await _some_machine(ec2) if known == _ALLOWED else _NOBODY
    untold = []
    for action, call in (
        ("ec2:StartInstances", ec2.start_instances),
        ("ec2:StopInstances", ec2.stop_instances),
        ("ec2:TerminateInstances", ec2.terminate_instances),
    ):
        told = await _dry(action, partial(call, InstanceIds=[machine], DryRun=True), missing)
        if told not in _REFUSED and told != _ALLOWED:
            untold.append(action)
    if missing:
        denied = ", ".join(sorted(set(missing)))
        yield Finding("ec2 rights", Verdict.FAULT, f"refused: {denied}", f"give the role {POLICY}")
    elif untold:
        yield Finding(
            "ec2 rights", Verdict.WARNING, f"not told without a machine: {', '.join(untold)}", f"see {POLICY}"
        )
    else:
        yield Finding("ec2 rights", Verdict.OK, "everything that the worker-controller asks for")


async def _some_machine(ec2: Any) -> str:
    """One of ours, to ask about; else an id that nobody has."""
    found = await ec2.describe_instances(Filters=[{"Name": "tag-key", "Values": [_WORKER_TAG]}], MaxResults=5)
    return next((str(one["InstanceId"]) for group in found["Reservations"] for one in group["Instances"]), _NOBODY)


async def _dry(action: str, call: Callable[[], Awaitable[Answer]], missing: list[str]) -> str:
    """EC2's code for a call that was not meant; a refused one is noted."""
    try:
        await call()
    except ClientError as error:
        code = str(error.response["Error"]["Code"])
        if code in _REFUSED:
            missing.append(action)
        return code
    except (BotoCoreError, OSError) as error:
        return type(error).__name__
    return _ALLOWED  # a server that does not know DryRun has answered


async def _bucket(s3: Any, bucket: str) -> AsyncIterator[Finding]:
    try:
        await s3.head_bucket(Bucket=bucket)
    except (ClientError, BotoCoreError, OSError) as error:
        yield Finding(
            "bucket", Verdict.FAULT, f"{bucket}: {error}", "make it, or set ARTIFACT_STORAGE_BUCKET and its keys"
        )
        return
    yield Finding("bucket", Verdict.OK, bucket)

    async def versioned() -> bool:
        return bool((await s3.get_bucket_versioning(Bucket=bucket)).get("Status") == "Enabled")

    async def encrypted() -> bool:
        told = await s3.get_bucket_encryption(Bucket=bucket)
        return bool(told["ServerSideEncryptionConfiguration"]["Rules"])

    async def closed() -> bool:
        told = await s3.get_public_access_block(Bucket=bucket)
        return all(told["PublicAccessBlockConfiguration"].values())

    for part, look, fault, remedy in (
        ("bucket versioning", versioned, "off: what is overwritten or deleted is gone", "put-bucket-versioning"),
        ("bucket encryption", encrypted, "no default encryption", "put-bucket-encryption"),
        ("bucket access", closed, "public access is not blocked", "put-public-access-block"),
    ):
        try:
            good = await look()
        except ClientError as error:
            code = str(error.response["Error"]["Code"])
            if code in _REFUSED:
                yield Finding(
                    part, Verdict.WARNING, f"may not be looked at: {code}", "see deploy/aws/doctor-policy.json"
                )
                continue
            good = False  # no such configuration
        verdict = Verdict.OK if good else Verdict.FAULT
        yield Finding(
            part, verdict, "on" if good else fault, "" if good else f"`aws s3api {remedy}`: docs/operations/aws.md"
        )
