"""EC2's own manners: images, launches, pages, and errors that say what they are and never that a machine is gone."""

import asyncio
import base64
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import lablet_workers.providers.ec2 as module
from lablet_workers.providers.ec2 import ACTIONS
from lablet_workers.providers.ec2_orders import MOST_USER_DATA, newest_image
from lablet_workers.providers.port import (
    InsufficientCapacity,
    LaunchOrder,
    MachineState,
    NotFound,
    NotReady,
    ProviderError,
    ProviderUnavailable,
    Throttled,
    Unauthorized,
)

TAGS = {"lablet-worker": "default-001", "lablet-uid": "u-1", "lablet-pool-uid": "p-1"}


def order(token: str = "t-1", **more: Any) -> LaunchOrder:
    given = {"name": "default-001", "instance_type": "m5.large", "image": "cml-2.9-*", "tags": TAGS} | more
    return LaunchOrder(client_token=token, **given)


@pytest.fixture
async def ec2(cloud: Any) -> Any:
    provider = cloud.provider()
    yield provider
    await provider.close()


async def test_a_launch_takes_the_newest_image_of_the_pattern_and_all_that_is_configured(cloud: Any, ec2: Any) -> None:
    info = await ec2.launch(order(user_data="#cloud-config\n", storage_gb=300))
    made = cloud.backend.get_instance(info.id)
    assert made.image_id == cloud.newest
    assert made.instance_type == "m5.large"
    assert made.subnet_id == cloud.subnet
    assert [group.id for group in made.security_groups] == [cloud.group]
    assert base64.b64decode(str(made.user_data)) == b"#cloud-config\n"
    assert info.tags == {**TAGS, "Name": "default-001"}
    (disk,) = made.block_device_mapping.values()
    volume = cloud.backend.get_volume(disk.volume_id)
    assert (volume.size, volume.encrypted) == (300, True)
    assert made.metadata_options.http_tokens == "required"


async def test_only_images_of_the_owners_named_count(cloud: Any) -> None:
    strange = cloud.backend.register_image(name="cml-2.9-zzz", description="of somebody else")
    strange.owner_id, strange.creation_date = "999999999999", datetime(2028, 1, 1, tzinfo=UTC)
    provider = cloud.provider()
    info = await provider.launch(order())
    assert cloud.backend.get_instance(info.id).image_id == cloud.newest
    await provider.close()


def test_of_images_made_at_the_same_time_the_choice_is_the_same_everywhere() -> None:
    same = "2027-01-01T00:00:00.000Z"
    images = [{"ImageId": name, "CreationDate": same} for name in ("ami-2", "ami-3", "ami-1")]
    assert newest_image(images)["ImageId"] == newest_image(reversed(images))["ImageId"] == "ami-3"


async def test_a_pattern_that_no_image_has_is_named_with_the_region_and_the_remedy(ec2: Any) -> None:
    with pytest.raises(ProviderError, match=re.escape("no available image cml-9.* of self in eu-west-1")):
        await ec2.launch(order(image="cml-9.*"))
    with pytest.raises(ProviderError, match="names no image"):
        await ec2.launch(order(image=""))


async def test_user_data_that_ec2_would_not_take_is_refused_before_the_call(cloud: Any, ec2: Any) -> None:
    await ec2.launch(order(user_data="x" * MOST_USER_DATA))
    with pytest.raises(ProviderError, match=f"{MOST_USER_DATA + 1} bytes"):
        await ec2.launch(order("t-2", user_data="x" * (MOST_USER_DATA + 1)))
    assert cloud.front.actions.count("RunInstances") == 1


async def test_all_pages_are_read(cloud: Any) -> None:
    provider = cloud.provider(settings=cloud.settings(page_size=5))
    made = {(await provider.launch(order(f"t-{n}"))).id for n in range(12)}
    cloud.front.actions.clear()
    assert {one.id for one in await provider.find({"lablet-pool-uid": "p-1"})} == made
    assert cloud.front.actions.count("DescribeInstances") == 3
    await provider.close()


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("RequestLimitExceeded", 503, Throttled),
        ("Throttling", 400, Throttled),
        ("InsufficientInstanceCapacity", 500, InsufficientCapacity),
        ("VcpuLimitExceeded", 400, InsufficientCapacity),
        ("UnauthorizedOperation", 403, Unauthorized),
        ("ExpiredToken", 400, Unauthorized),
        ("InternalError", 500, ProviderUnavailable),
        ("Unavailable", 503, ProviderUnavailable),
        ("InvalidSubnetID.NotFound", 400, ProviderError),
        ("SomethingNew", 400, ProviderError),
    ],
)
async def test_each_error_has_its_type_and_the_words_of_ec2(
    cloud: Any, ec2: Any, code: str, status: int, kind: type[Exception]
) -> None:
    cloud.front.faults.append(("RunInstances", status, code))
    with pytest.raises(
        ProviderError, match=re.escape(f"launch default-001: EC2 answered {code}: said the test")
    ) as told:
        await ec2.launch(order())
    assert type(told.value) is kind


@pytest.mark.parametrize("code", ["RequestLimitExceeded", "UnauthorizedOperation", "InternalError", "SomethingNew"])
async def test_an_error_is_never_read_as_absence(cloud: Any, ec2: Any, code: str) -> None:
    machine = (await ec2.launch(order())).id
    for action, call in (
        ("DescribeInstances", ec2.describe),
        ("StartInstances", ec2.start),
        ("StopInstances", ec2.stop),
        ("TerminateInstances", ec2.terminate),
    ):
        cloud.front.faults.append((action, 500 if code == "InternalError" else 400, code))
        with pytest.raises(ProviderError) as told:
            await call(machine)
        assert not isinstance(told.value, NotFound), action
    cloud.front.faults.append(("DescribeInstances", 503, "Unavailable"))
    with pytest.raises(ProviderUnavailable):
        await ec2.find(TAGS)
    assert (await ec2.describe(machine)).state is MachineState.RUNNING


def test_the_same_refusal_is_the_same_words_each_time() -> None:
    """They stand in the worker's record, which would be written at each try: EC2 adds a code of its own to each answer."""
    said = "You are not authorized to perform this operation. Encoded authorization failure message: "
    told = {
        str(module._typed("launch w-1", {"Error": {"Code": "UnauthorizedOperation", "Message": said + code}}))
        for code in ("4wFw7Xo", "b1Qz0Lk")
    }
    assert told == {"launch w-1: EC2 answered UnauthorizedOperation: You are not authorized to perform this operation."}


async def test_of_launches_only_those_are_remembered_that_ec2_may_not_show_yet(cloud: Any) -> None:
    provider = cloud.provider(settles_seconds=0)
    for number in range(3):
        await provider.launch(order(f"t-{number}"))
    assert len(provider._launched) == 1
    await provider.close()


async def test_a_server_that_does_not_answer_is_unavailable_and_not_empty(cloud: Any) -> None:
    provider = cloud.provider(endpoint="http://127.0.0.1:1")
    with pytest.raises(ProviderUnavailable, match="does not answer"):
        await provider.find(TAGS)
    with pytest.raises(ProviderUnavailable, match="does not answer"):
        await provider.describe("i-1")
    await provider.close()


async def test_throttled_calls_are_tried_again_with_pauses_and_then_told(
    cloud: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.retries import standard

    pauses: list[int] = []

    def pause(_: Any, context: Any) -> float:
        pauses.append(context.attempt_number)
        return 0.0

    monkeypatch.setattr(standard.ExponentialBackoff, "delay_amount", pause)
    provider = cloud.provider(attempts=4)
    cloud.front.faults += [("DescribeInstances", 503, "RequestLimitExceeded")] * 2
    assert await provider.find(TAGS) == []
    assert pauses == [1, 2]
    cloud.front.faults += [("DescribeInstances", 503, "RequestLimitExceeded")] * 4
    with pytest.raises(Throttled):
        await provider.find(TAGS)
    await provider.close()


async def test_a_launch_whose_answer_was_lost_gives_one_machine(cloud: Any, ec2: Any) -> None:
    cloud.front.lost.append("RunInstances")
    with pytest.raises(ProviderUnavailable):
        await ec2.launch(order())
    again = await ec2.launch(order())
    assert [one.id for one in await ec2.find(TAGS)] == [again.id]


async def test_a_newer_image_between_two_tries_of_a_launch_gives_the_machine_of_the_first(cloud: Any, ec2: Any) -> None:
    first = await ec2.launch(order())
    newer = cloud.backend.register_image(name="cml-2.9-third", description="newer")
    newer.creation_date = datetime(2027, 6, 1, tzinfo=UTC)
    assert (await ec2.launch(order())).id == first.id
    cloud.backend.get_instance(first.id)._state.name = "terminated"
    with pytest.raises(ProviderUnavailable, match="not visible yet"):
        await ec2.launch(order())


async def test_a_machine_launched_a_moment_ago_is_not_gone_because_ec2_does_not_show_it(cloud: Any) -> None:
    patient = cloud.provider(settles_seconds=60.0)
    machine = (await patient.launch(order())).id
    cloud.front.hidden.add(machine)
    for call in (patient.describe, patient.start, patient.stop, patient.terminate):
        with pytest.raises(ProviderUnavailable, match="does not show it yet"):
            await call(machine)
    fresh = cloud.provider(settles_seconds=60.0)
    with pytest.raises(ProviderUnavailable):
        await fresh.describe(machine)
    settled = cloud.provider(settles_seconds=0.0)
    with pytest.raises(NotFound):
        await settled.describe(machine)
    for provider in (patient, fresh, settled):
        await provider.close()


async def test_machines_that_run_are_asked_for_together(cloud: Any) -> None:
    provider = cloud.provider(fresh_seconds=60)
    ids = [(await provider.launch(order(f"t-{number}", name=f"default-{number:03d}"))).id for number in range(6)]
    for machine in ids:
        assert (await provider.describe(machine)).state is MachineState.RUNNING
    cloud.front.actions.clear()

    async def asked() -> int:
        told = await asyncio.gather(*(provider.describe(machine) for machine in ids for _ in range(5)))
        assert [info.id for info in told] == [machine for machine in ids for _ in range(5)]
        assert set(cloud.front.actions) <= {"DescribeInstances"}
        return len(cloud.front.actions)

    assert await asked() == 0
    provider._running = {machine: (at - 60, info) for machine, (at, info) in provider._running.items()}
    assert await asked() == 1
    await provider.close()


async def test_only_that_a_machine_runs_is_believed_for_a_while(cloud: Any) -> None:
    provider = cloud.provider(fresh_seconds=60)
    machine, other = [(await provider.launch(order(f"t-{number}"))).id for number in range(2)]
    for known in (machine, other):
        assert (await provider.describe(known)).state is MachineState.RUNNING
    assert (await provider.stop(machine)).state is not MachineState.RUNNING, "what was asked for here is seen at once"
    assert (await provider.describe(machine)).state is MachineState.STOPPED
    assert (await provider.start(machine)).state is MachineState.RUNNING
    cloud.backend.get_instance(other).stop()
    assert (await provider.describe(other)).state is MachineState.RUNNING, "what was not, within the while"
    provider._fresh = 0
    assert (await provider.describe(other)).state is MachineState.STOPPED
    await provider.terminate(machine)
    provider._fresh = 60
    assert (await provider.describe(machine)).state is not MachineState.RUNNING
    await provider.close()


async def test_one_machine_that_is_gone_hides_no_other(cloud: Any, ec2: Any) -> None:
    machine, other = [(await ec2.launch(order(f"t-{number}"))).id for number in range(2)]
    for known in (machine, other):
        await ec2.describe(known)
    cloud.front.hidden.add(machine)
    with pytest.raises(NotFound):
        await ec2.describe(machine)
    assert (await ec2.describe(other)).state is MachineState.RUNNING


async def test_a_wrong_state_is_not_ready(cloud: Any, ec2: Any) -> None:
    machine = (await ec2.launch(order())).id
    cloud.front.faults.append(("StartInstances", 400, "IncorrectInstanceState"))
    with pytest.raises(NotReady):
        await ec2.start(machine)


async def test_a_machine_that_stopped_by_itself_tells_why(cloud: Any, ec2: Any) -> None:
    machine = (await ec2.launch(order())).id
    made = cloud.backend.get_instance(machine)
    made._state.name = "stopped"
    made.state_reason.code, made.state_reason.message = "Server.SpotInstanceTermination", "the price rose"
    assert (await ec2.describe(machine)).reason == "the price rose"


@pytest.mark.parametrize("address", ["private", "public"])
async def test_the_address_is_the_one_that_is_configured(cloud: Any, address: str) -> None:
    cloud.backend.modify_subnet_attribute(cloud.subnet, "map_public_ip_on_launch", True)
    provider = cloud.provider(settings=cloud.settings(address=address))
    info = await provider.launch(order())
    made = cloud.backend.get_instance(info.id)
    expected = made.private_ip if address == "private" else made.public_ip
    shown = await provider.describe(info.id)
    assert (shown.host, shown.url) == (expected, f"https://{expected}")
    await provider.close()


def test_subnets_and_groups_belong_to_their_region(cloud: Any) -> None:
    settings = cloud.settings(subnet_id="subnet-1,us-east-1=subnet-2", security_group_ids="sg-1, sg-2,us-east-1=sg-3")
    assert (settings.subnets("eu-west-1"), settings.subnets("us-east-1")) == (["subnet-1"], ["subnet-2"])
    assert (settings.security_groups("eu-west-1"), settings.security_groups("us-east-1")) == (
        ["sg-1", "sg-2"],
        ["sg-3"],
    )
    assert settings.subnets("ap-south-1") == []


async def test_no_other_action_is_called_than_those_that_are_listed(cloud: Any, ec2: Any) -> None:
    machine = (await ec2.launch(order())).id
    await ec2.find(TAGS)
    await ec2.stop(machine)
    await ec2.start(machine)
    await ec2.terminate(machine)
    called = {f"ec2:{action}" for action in cloud.front.actions}
    assert called | {"ec2:CreateTags"} == set(ACTIONS), "RunInstances makes its tags by CreateTags"
    text = Path(module.__file__).read_text(encoding="utf-8").split('"""')[1]
    assert set(re.findall(r"ec2:\w+", text)) == set(ACTIONS)
