"""The CML adapter against the real simulator process: licence, password, labs, and what a sick controller answers."""

from typing import Any

import pytest

from lablet_common.resources.definition import CollectKind
from lablet_workers.harvest import harvest
from lablet_workers.probe import closed_ports
from lablet_workers.runtimes.cml import CmlRuntime, CmlRuntimes
from lablet_workers.runtimes.port import LabMissing, LoginRefused, RuntimeFault, RuntimeUnavailable

from .conftest import HOST, Machine, lab, until

pytestmark = pytest.mark.integration


async def licensed(runtime: CmlRuntime) -> None:
    await runtime.secure("image-default", "ours")
    await runtime.register("CML_Enterprise", "token")
    await until(lambda: _complies(runtime))


async def _complies(runtime: CmlRuntime) -> bool:
    return (await runtime.license()).in_compliance


async def test_a_lab_goes_the_whole_way_on_a_real_controller(
    machine: Machine, runtime: CmlRuntime, unused_tcp_port: int
) -> None:
    assert (await runtime.info()).ready
    await licensed(runtime)
    assert (await runtime.license()).node_quota == 20
    first = await runtime.import_lab("ins-a-1", lab(unused_tcp_port))
    assert await runtime.import_lab("ins-a-1", lab(unused_tcp_port)) == first, "found again by its title"
    assert await runtime.labs() == {first: "ins-a-1"}
    before = await runtime.progress(first)
    assert before.stopped
    assert not before.converged
    await runtime.start(first)
    await runtime.start(first)
    await until(lambda: _converged(runtime, first))
    assert (await runtime.progress(first)).nodes == {"r1": "BOOTED", "r2": "BOOTED"}
    assert await closed_ports(HOST, {"r1": unused_tcp_port}, 2) == {}
    found = await runtime.configurations(first)
    assert set(found) == {"r1", "r2"}
    assert b"hostname r1" in found["r1"]
    machine.faults(disconnected=["r2"])
    await until(lambda: _is(runtime, first, "r2", "DISCONNECTED"))
    given = await harvest(runtime, first, (CollectKind.CONFIGURATIONS, CollectKind.CONSOLES))
    assert given.incomplete == ("r2",), "a node whose host is lost costs its own files alone"
    assert b"hostname r1" in given.files()["r1.cfg"]
    assert given.files()["r1.console.txt"], "the log of the console is kept beside the configuration"
    machine.faults(disconnected=[])
    await until(lambda: _converged(runtime, first))
    with pytest.raises(RuntimeFault):
        await runtime.deregister()
    await runtime.stop(first)
    await until(lambda: _stopped(runtime, first))
    assert b"hostname r1" in await runtime.export(first)
    assert await closed_ports(HOST, {"r1": unused_tcp_port}, 2) != {}
    await runtime.remove(first)
    await runtime.remove(first)
    with pytest.raises(LabMissing):
        await runtime.progress(first)
    await runtime.deregister()
    await runtime.deregister()
    assert not (await runtime.license()).registered


async def _converged(runtime: CmlRuntime, key: str) -> bool:
    return (await runtime.progress(key)).converged


async def _is(runtime: CmlRuntime, key: str, node: str, state: str) -> bool:
    return (await runtime.progress(key)).nodes[node] == state


async def _stopped(runtime: CmlRuntime, key: str) -> bool:
    return (await runtime.progress(key)).stopped


async def test_the_images_password_is_changed_once_and_never_works_again(machine: Machine, runtime: CmlRuntime) -> None:
    await runtime.secure("image-default", "ours")
    await runtime.secure("image-default", "ours")
    stranger = CmlRuntimes("admin").open(machine.url, "image-default")
    with pytest.raises(LoginRefused):
        await stranger.license()
    with pytest.raises(LoginRefused):
        await stranger.secure("image-default", "third")
    await stranger.close()


async def test_a_token_that_has_run_out_is_renewed_once(machine: Machine, runtime: CmlRuntime) -> None:
    await runtime.secure("image-default", "ours")
    runtime._token = "stale"
    assert (await runtime.license()).registration == "NOT_REGISTERED"
    assert runtime._token != "stale"
    runtime._token = "stale"
    machine.faults(failRequests=10, failStatus=401, failPath="licensing")
    with pytest.raises(RuntimeFault):
        await runtime.license()
    machine.faults(failRequests=0)
    assert (await runtime.license()).registration == "NOT_REGISTERED"


async def test_an_import_keeps_its_body_when_the_token_had_to_be_renewed(
    machine: Machine, runtime: CmlRuntime, unused_tcp_port: int
) -> None:
    await runtime.secure("image-default", "ours")
    machine.faults(failRequests=1, failStatus=401, failPath="import")
    key = await runtime.import_lab("ins-b-1", lab(unused_tcp_port))
    assert await runtime.labs() == {key: "ins-b-1"}


async def test_two_imports_that_cross_make_two_labs_and_both_are_told(
    machine: Machine, runtime: CmlRuntime, unused_tcp_port: int
) -> None:
    """The controller refuses no title for being there; which one is found again is the same for everybody."""
    await runtime.secure("image-default", "ours")
    made = [
        (await runtime._send("POST", "/import", params={"title": "ins-c-1"}, content=lab(unused_tcp_port))).json()["id"]
        for _ in range(2)
    ]
    assert await runtime.labs() == dict.fromkeys(made, "ins-c-1")
    assert await runtime.import_lab("ins-c-1", lab(unused_tcp_port)) == min(made)


async def test_a_registration_in_conflict_is_for_later_and_one_on_its_way_is_no_error(
    machine: Machine, runtime: CmlRuntime
) -> None:
    await runtime.secure("image-default", "ours")
    machine.faults(registration="conflict")
    with pytest.raises(RuntimeUnavailable):
        await runtime.register("CML_Enterprise", "token")
    machine.faults(registration="slow")
    await runtime.register("CML_Enterprise", "token")
    await runtime.register("CML_Enterprise", "token")
    assert (await runtime.license()).registered
    machine.faults(registration="failed")


async def test_a_failed_registration_is_told_as_such(machine: Machine, runtime: CmlRuntime) -> None:
    await runtime.secure("image-default", "ours")
    machine.faults(registration="failed")
    await runtime.register("CML_Enterprise", "token")

    async def failed() -> bool:
        return (await runtime.license()).registration == "FAILED"

    await until(failed)
    assert not (await runtime.license()).in_compliance


@pytest.mark.parametrize(("answer", "raised"), [("unreachable", None), ("conflict", RuntimeUnavailable)])
async def test_what_deregistration_answers(
    machine: Machine, runtime: CmlRuntime, answer: str, raised: type[Exception] | None
) -> None:
    await licensed(runtime)
    machine.faults(deregistration=answer)
    if raised is None:
        await runtime.deregister()
        assert not (await runtime.license()).registered
    else:
        with pytest.raises(raised):
            await runtime.deregister()


async def test_a_controller_that_boots_or_resets_is_unavailable_and_not_wrong(machine: Machine, tmp_path: Any) -> None:
    slow = Machine(tmp_path, "--boot-seconds", "60")
    runtime = CmlRuntimes("admin").open(slow.url, "ours")
    try:
        with pytest.raises(RuntimeUnavailable):
            await runtime.info()

        async def up() -> bool:
            try:
                return (await runtime.info()).ready
            except RuntimeUnavailable:
                return False

        await until(up)
        await runtime.secure("image-default", "ours")
        slow.faults(resetConnections=1)
        with pytest.raises(RuntimeUnavailable):
            await runtime.license()
        slow.faults(notReady=True)
        assert not (await runtime.info()).ready
    finally:
        await runtime.close()
        slow.end()
    with pytest.raises(RuntimeUnavailable):
        await CmlRuntimes("admin").open(slow.url, "ours").info()


async def test_a_connection_that_was_ended_says_that_its_controller_cannot_be_reached(machine: Machine) -> None:
    """Whoever still holds it looks again; anything else that it raised would end the whole controller."""
    runtime = CmlRuntimes("admin").open(machine.url, "ours")
    assert (await runtime.info()).version
    await runtime.close()
    with pytest.raises(RuntimeUnavailable, match=r"GET /system_information .* has been let go"):
        await runtime.info()
