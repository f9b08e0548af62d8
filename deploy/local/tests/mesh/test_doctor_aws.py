"""`lablet doctor --aws` against moto's EC2, S3 and STS, and the policies that it sends people to."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import get_session

from lablet_common.settings import StorageSettings
from lablet_local.doctor_aws import examine_aws
from lablet_local.findings import Finding, Verdict
from lablet_workers.providers import ec2 as provider
from lablet_workers.providers.ec2_orders import MOST_USER_DATA
from lablet_workers.settings import Ec2Settings

ROOT = Path(__file__).resolve().parents[4]
AWS = ROOT / "deploy/aws"
REGION = "us-east-1"
BUCKET = "lablet-artifacts"
TEMPLATES = """
templates:
  - name: metal
    provider: ec2
    instance_type: m5.large
    capacity: {cpu_cores: 8, memory_gb: 16, storage_gb: 200}
    license_type: PERSONAL
    max_nodes: 20
    ami_pattern: "cml-2.9-*"
    regions: [us-east-1]
pools: []
"""


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """The address of a server that speaks all of AWS."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


SESSION = get_session()


class Account:
    """What a test prepares and asks."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        self.endpoint = endpoint
        self.templates = folder / "worker-templates.yaml"
        self.templates.write_text(TEMPLATES)

    async def call(self, service: str, operation: str, **arguments: Any) -> Any:
        async with SESSION.create_client(service, region_name=REGION, endpoint_url=self.endpoint) as client:
            return await getattr(client, operation)(**arguments)

    async def doctor(self, **ec2: Any) -> dict[str, Finding]:
        settings = Ec2Settings(**({"region": REGION} | ec2))
        storage = StorageSettings(endpoint=self.endpoint, bucket=BUCKET)
        found = examine_aws(settings, storage, self.templates, endpoint=self.endpoint)
        return {finding.part: finding async for finding in found}


@pytest.fixture
def account(moto: str, tmp_path: Path) -> Account:
    from moto.backends import get_backend
    from moto.core import DEFAULT_ACCOUNT_ID

    for service in ("ec2", "s3"):
        get_backend(service)[DEFAULT_ACCOUNT_ID]["aws" if service == "s3" else REGION].reset()
    return Account(moto, tmp_path)


async def prepare(account: Account) -> None:
    """The account as docs/operations/aws.md makes it."""
    made = await account.call("ec2", "run_instances", ImageId="ami-00000000", MinCount=1, MaxCount=1)
    source = made["Instances"][0]["InstanceId"]
    await account.call("ec2", "create_image", InstanceId=source, Name="cml-2.9-one")
    await account.call("s3", "create_bucket", Bucket=BUCKET)
    await account.call("s3", "put_bucket_versioning", Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    rule = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    await account.call("s3", "put_bucket_encryption", Bucket=BUCKET, ServerSideEncryptionConfiguration=rule)
    block = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    await account.call("s3", "put_public_access_block", Bucket=BUCKET, PublicAccessBlockConfiguration=block)


async def test_an_account_as_the_page_makes_it_has_no_fault(account: Account) -> None:
    await prepare(account)
    found = await account.doctor()
    assert {part for part, finding in found.items() if finding.verdict is Verdict.FAULT} == set(), found
    assert {"aws identity", "template metal", "user data", "bucket", "bucket versioning", "bucket encryption"} <= set(
        found
    )
    assert "may be launched" in found["template metal"].found


async def test_a_missing_image_is_named_with_its_pattern(account: Account) -> None:
    await account.call("s3", "create_bucket", Bucket=BUCKET)
    found = await account.doctor()
    assert found["template metal"].verdict is Verdict.FAULT
    assert "cml-2.9-*" in found["template metal"].found


async def test_an_open_bucket_without_versions_is_a_fault_with_its_remedy(account: Account) -> None:
    await account.call("s3", "create_bucket", Bucket=BUCKET)
    found = await account.doctor()
    for part, remedy in (("bucket versioning", "put-bucket-versioning"), ("bucket access", "put-public-access-block")):
        assert found[part].verdict is Verdict.FAULT, part
        assert remedy in found[part].remedy
        assert remedy in (ROOT / "docs/operations/aws.md").read_text()


async def test_a_bucket_that_is_not_there_is_named(account: Account) -> None:
    found = await account.doctor()
    assert found["bucket"].verdict is Verdict.FAULT
    assert BUCKET in found["bucket"].found
    assert "bucket versioning" not in found


async def test_user_data_that_is_too_large_is_a_fault(account: Account, tmp_path: Path) -> None:
    path = tmp_path / "user-data"
    path.write_bytes(b"x" * (MOST_USER_DATA + 1))
    found = await account.doctor(user_data_file=path)
    assert found["user data"].verdict is Verdict.FAULT


async def test_a_right_that_is_refused_is_named(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    from lablet_local import doctor_aws

    await prepare(account)
    dry = doctor_aws._dry

    async def refusing(action: str, call: Any, missing: list[str]) -> str:
        async def refused() -> Any:
            raise ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": "no"}}, action)

        return await dry(action, refused if action == "ec2:StopInstances" else call, missing)

    monkeypatch.setattr(doctor_aws, "_dry", refusing)
    found = await account.doctor()
    assert found["ec2 rights"].verdict is Verdict.FAULT
    assert "ec2:StopInstances" in found["ec2 rights"].found
    assert "ec2:TerminateInstances" not in found["ec2 rights"].found
    assert "workers-policy.json" in found["ec2 rights"].remedy


def statements(name: str) -> list[dict[str, Any]]:
    document = json.loads((AWS / name).read_text(encoding="utf-8"))
    assert document["Version"] == "2012-10-17"
    found: list[dict[str, Any]] = document["Statement"]
    assert len({one["Sid"] for one in found}) == len(found)
    assert all(re.fullmatch(r"[A-Za-z0-9]+", one["Sid"]) for one in found), "IAM takes letters and digits"
    return found


def actions(name: str) -> set[str]:
    listed = (one["Action"] for one in statements(name))
    return {action for one in listed for action in ([one] if isinstance(one, str) else one)}


def test_the_workers_role_may_do_what_the_provider_does_and_nothing_else() -> None:
    assert actions("workers-policy.json") == {*provider.ACTIONS, "iam:PassRole"}


def test_what_changes_something_is_bound_to_our_tag() -> None:
    for one in statements("workers-policy.json"):
        verbs = [one["Action"]] if isinstance(one["Action"], str) else one["Action"]
        if one["Resource"] == "*":
            assert all(verb.startswith("ec2:Describe") for verb in verbs), one["Sid"]
        if {"ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances"} & set(verbs):
            assert one["Condition"] == {"Null": {"aws:ResourceTag/lablet-worker": "false"}}
        if verbs == ["ec2:CreateTags"]:
            assert one["Condition"] == {"StringEquals": {"ec2:CreateAction": "RunInstances"}}


def test_storage_is_one_bucket_and_never_its_settings() -> None:
    assert actions("storage-policy.json") == {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"}
    for one in statements("storage-policy.json"):
        assert one["Resource"] in (f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*")
    assert all(one["Effect"] == "Deny" for one in statements("bucket-policy.json"))


def test_the_example_of_user_data_fits_and_is_a_valid_script_without_a_secret() -> None:
    path = AWS / "user-data.sh"
    assert path.stat().st_size <= MOST_USER_DATA
    told = subprocess.run(["bash", "-n", path], capture_output=True, text=True, timeout=20, check=False)
    assert told.returncode == 0, told.stderr
    assert not re.search(r"password=[\"']?\w", path.read_text(encoding="utf-8"))
