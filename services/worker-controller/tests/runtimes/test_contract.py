"""What the worker-controller relies on, of every runtime alike: in memory, a CML controller, an agent's processes."""

from typing import Any

import pytest

from lablet_workers.runtimes.port import LabMissing, RuntimeFault, RuntimeUnavailable

pytestmark = pytest.mark.integration


async def test_what_is_ready_says_so_with_its_version(given: Any) -> None:
    info = await given.runtime.info()
    assert info.ready
    assert info.version


async def test_securing_and_registering_twice_does_nothing_the_second_time(given: Any) -> None:
    await given.begin()
    assert await given.complies()


async def test_a_lab_is_found_again_by_its_title_and_imported_once(given: Any) -> None:
    lab = await given.runtime.import_lab("ins-a-1", given.topology())
    assert await given.runtime.import_lab("ins-a-1", given.topology()) == lab
    other = await given.runtime.import_lab("ins-b-1", given.topology())
    assert await given.runtime.labs() == {lab: "ins-a-1", other: "ins-b-1"}
    assert await given.runtime.labs(besides={lab}) == {other: "ins-b-1"}


async def test_a_lab_that_was_imported_has_not_begun(given: Any) -> None:
    lab = await given.runtime.import_lab("ins-a-1", given.topology())
    progress = await given.runtime.progress(lab)
    assert (progress.stopped, progress.converged, progress.completed, progress.failed) == (True, False, False, "")


async def test_a_lab_converges_and_started_again_stays_as_it_is(given: Any) -> None:
    lab = await given.started("ins-a-1")
    await given.runtime.start(lab)
    progress = await given.runtime.progress(lab)
    assert (progress.converged, progress.stopped, progress.failed) == (True, False, "")
    assert set(progress.nodes) == given.labels


async def test_what_its_machine_uses_is_within_what_it_has_and_counts_the_nodes_that_run(given: Any) -> None:
    idle = await given.runtime.load()
    lab = await given.started("ins-a-1")
    busy = await given.runtime.load()
    assert (idle.nodes, busy.nodes) == (0, len(given.labels))
    for load in (idle, busy):
        for used in (load.cpu_cores, load.memory_gb, load.storage_gb):
            assert used.total > 0
            assert 0 <= used.ratio <= 1
    assert 1 < busy.memory_gb.total < 10_000, "gigabytes, whatever it is told in"
    await given.stopped(lab)
    assert (await given.runtime.load()).nodes == 0


async def test_what_its_nodes_have_is_given_while_they_run(given: Any) -> None:
    lab = await given.started("ins-a-1")
    assert set(await given.runtime.configurations(lab)) == given.files
    assert await given.runtime.export(lab)


async def test_one_lab_is_stopped_and_the_other_runs_on(given: Any) -> None:
    first, second = await given.started("ins-a-1"), await given.started("ins-b-1")
    await given.stopped(first)
    await given.stopped(first)
    assert (await given.runtime.progress(second)).converged
    await given.stopped(second)


async def test_a_lab_that_runs_is_not_removed(given: Any) -> None:
    lab = await given.started("ins-a-1")
    with pytest.raises(RuntimeFault) as refused:
        await given.runtime.remove(lab)
    assert not isinstance(refused.value, RuntimeUnavailable | LabMissing)
    assert (await given.runtime.progress(lab)).converged


async def test_a_stopped_lab_is_removed_with_all_it_had_and_once_more_is_no_error(given: Any) -> None:
    lab = await given.started("ins-a-1")
    await given.stopped(lab)
    await given.runtime.remove(lab)
    await given.runtime.remove(lab)
    assert await given.runtime.labs() == {}


@pytest.mark.parametrize("call", ["start", "progress", "configurations", "export"])
async def test_of_a_lab_that_is_not_there_every_call_says_that_it_is_missing(given: Any, call: str) -> None:
    lab = await given.runtime.import_lab("ins-a-1", given.topology())
    await given.runtime.remove(lab)
    with pytest.raises(LabMissing):
        await getattr(given.runtime, call)(lab)


async def test_a_licence_is_not_given_back_under_running_nodes_and_then_once(given: Any) -> None:
    lab = await given.started("ins-a-1")
    if given.licensed:
        with pytest.raises(RuntimeFault):
            await given.runtime.deregister()
    await given.stopped(lab)
    await given.runtime.deregister()
    await given.runtime.deregister()
    assert (await given.runtime.license()).registered is not given.licensed


async def test_what_does_not_answer_is_unavailable_and_says_nothing_of_its_labs(given: Any) -> None:
    lab = await given.started("ins-a-1")
    given.away()
    for asked in (given.runtime.info(), given.runtime.labs(), given.runtime.progress(lab)):
        with pytest.raises(RuntimeUnavailable):
            await asked
