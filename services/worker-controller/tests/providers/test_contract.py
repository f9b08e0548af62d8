"""What the worker-controller relies on, of every provider alike."""

from typing import Any

import pytest

from lablet_workers.providers.port import MachineState, NotFound

RUNNING, STOPPED = MachineState.RUNNING, MachineState.STOPPED
GOING = (MachineState.TERMINATING, MachineState.TERMINATED)


async def test_a_launched_machine_comes_to_run_and_has_an_address(given: Any) -> None:
    launched = await given.provider.launch(given.order())
    info = await given.until(launched.id, RUNNING)
    assert info.id == launched.id
    assert info.name == "default-001"
    assert info.host
    assert info.url
    assert info.reason == ""


async def test_a_launch_with_the_same_token_gives_the_same_machine(given: Any) -> None:
    first = await given.provider.launch(given.order())
    again = await given.provider.launch(given.order())
    assert again.id == first.id
    assert [one.id for one in await given.provider.find({"lablet-pool-uid": "p-1"})] == [first.id]


async def test_a_machine_is_found_by_its_tags_and_by_all_of_them(given: Any) -> None:
    first = await given.provider.launch(given.order())
    second = await given.provider.launch(given.order("default-002", "t-2"))
    assert {one.id for one in await given.provider.find({"lablet-pool-uid": "p-1"})} == {first.id, second.id}
    (found,) = await given.provider.find({"lablet-worker": "default-002", "lablet-pool-uid": "p-1"})
    assert found.id == second.id
    assert (found.tags or {})["lablet-uid"] == "uid-default-002"
    assert await given.provider.find({"lablet-worker": "default-001", "lablet-uid": "another"}) == []


async def test_a_machine_stops_and_starts_again_with_its_id(given: Any) -> None:
    machine = (await given.provider.launch(given.order())).id
    await given.until(machine, RUNNING)
    await given.provider.stop(machine)
    stopped = await given.until(machine, STOPPED)
    assert stopped.state.runs_nothing
    assert stopped.reason == "", "it was asked for: nothing went wrong"
    await given.provider.stop(machine)
    await given.provider.start(machine)
    await given.until(machine, RUNNING)
    await given.provider.start(machine)
    assert (await given.provider.describe(machine)).state is RUNNING


async def test_a_stopped_machine_is_still_found(given: Any) -> None:
    machine = (await given.provider.launch(given.order())).id
    await given.until(machine, RUNNING)
    await given.provider.stop(machine)
    await given.until(machine, STOPPED)
    assert [one.id for one in await given.provider.find({"lablet-worker": "default-001"})] == [machine]


async def test_a_terminated_machine_is_found_no_more_and_its_end_may_be_asked_for_twice(given: Any) -> None:
    machine = (await given.provider.launch(given.order())).id
    await given.until(machine, RUNNING)
    await given.provider.terminate(machine)
    await given.until(machine, MachineState.TERMINATED)
    await given.provider.terminate(machine)
    assert await given.provider.find({"lablet-worker": "default-001"}) == []


async def test_after_a_termination_a_new_token_gives_a_machine_that_runs(given: Any) -> None:
    first = (await given.provider.launch(given.order())).id
    await given.until(first, RUNNING)
    await given.provider.terminate(first)
    await given.until(first, MachineState.TERMINATED)
    second = (await given.provider.launch(given.order(token="t-2"))).id
    await given.until(second, RUNNING)
    assert (second == first) is given.same_host
    assert [one.id for one in await given.provider.find({"lablet-worker": "default-001"})] == [second]


@pytest.mark.parametrize("call", ["describe", "start", "stop"])
async def test_a_machine_that_does_not_exist_is_said_not_to(given: Any, call: str) -> None:
    with pytest.raises(NotFound):
        await getattr(given.provider, call)("i-0123456789abcdef0")


async def test_the_end_of_a_machine_that_does_not_exist_is_no_error(given: Any) -> None:
    await given.provider.terminate("i-0123456789abcdef0")


async def test_only_hosts_that_are_there_for_ever_outlive_their_end(given: Any) -> None:
    assert given.provider.permanent is (given.kind == "static")
