"""The supervisor keeps processes running and leaves none behind."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from lablet_local.logfiles import last_words, rotate
from lablet_local.supervisor import NotReady, Phase, Process, Supervisor, UnknownProcess

Make = Callable[..., Process]
Eventually = Callable[..., Awaitable[None]]
Alive = Callable[[int], bool]


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
async def supervisor(told: list[str]) -> AsyncIterator[Supervisor]:
    running = Supervisor(told.append)
    yield running
    await running.stop_all()


def ready_when(path: Path) -> Callable[[], Awaitable[str | None]]:
    async def look() -> str | None:
        return None if path.exists() else f"no {path.name}"

    return look


async def test_a_process_that_dies_is_started_again_and_said_so(
    supervisor: Supervisor, told: list[str], stand_in: Make
) -> None:
    supervisor.start([stand_in("victim")])
    await supervisor.wait_ready()
    first = supervisor.kill("victim", signal.SIGKILL)
    await supervisor.wait_ended("victim", first)
    await supervisor.wait_ready("victim")
    state = supervisor.state("victim")
    assert state.pid not in (None, first)
    assert state.restarts == 1
    assert state.last_end == "was ended by SIGKILL"
    assert told == ["victim was ended by SIGKILL; starting it again in 0.2 s"]


async def test_a_process_that_keeps_dying_is_given_up_on_with_the_end_of_its_log(
    supervisor: Supervisor, stand_in: Make, tmp_path: Path
) -> None:
    broken = stand_in("broken", "raise SystemExit('the moon is wrong')", ready=ready_when(tmp_path / "never"))
    supervisor.start([broken])
    with pytest.raises(NotReady, match="the moon is wrong"):
        await supervisor.wait_ready(timeout=20)


async def test_pauses_between_starts_grow(
    supervisor: Supervisor, told: list[str], stand_in: Make, tmp_path: Path
) -> None:
    supervisor.start([stand_in("broken", "raise SystemExit(3)", ready=ready_when(tmp_path / "never"))])
    with pytest.raises(NotReady):
        await supervisor.wait_ready(timeout=20)
    assert [line.rpartition(" in ")[2] for line in told[:3]] == ["0.2 s", "0.4 s", "0.8 s"]
    assert told[0].startswith("broken ended with 3")


async def test_what_is_not_ready_in_time_is_named_with_what_it_lacks(
    supervisor: Supervisor, stand_in: Make, tmp_path: Path
) -> None:
    supervisor.start([stand_in("slow", ready=ready_when(tmp_path / "flag"))])
    with pytest.raises(NotReady, match="slow: no flag"):
        await supervisor.wait_ready(timeout=0.5)
    (tmp_path / "flag").touch()
    await supervisor.wait_ready("slow", timeout=5)


async def test_a_process_starts_after_what_it_stands_on_and_ends_before_it(
    supervisor: Supervisor, stand_in: Make, tmp_path: Path
) -> None:
    source = """
        import os, pathlib, signal, sys
        def note(what):
            with open(os.path.join(os.environ["HERE"], "order"), "a") as order:
                order.write(f"{what} {pathlib.Path(sys.argv[0]).stem}\\n")
        def end(*_):
            note("end")
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        note("start")
        pathlib.Path(os.environ["HERE"], pathlib.Path(sys.argv[0]).stem + ".ready").touch()
        while True:
            signal.pause()
    """
    below = stand_in("below", source, ready=ready_when(tmp_path / "below.ready"))
    above = stand_in("above", source, ready=ready_when(tmp_path / "above.ready"), after=("below",))
    supervisor.start([above, below])
    await supervisor.wait_ready()
    await supervisor.stop_all()
    assert (tmp_path / "order").read_text().split("\n") == ["start below", "start above", "end above", "end below", ""]


async def test_a_paused_process_can_still_be_stopped(supervisor: Supervisor, stand_in: Make, alive: Alive) -> None:
    supervisor.start([stand_in("frozen")])
    await supervisor.wait_ready()
    pid = supervisor.kill("frozen", signal.SIGSTOP)
    await supervisor.stop("frozen")
    assert not alive(pid)
    assert supervisor.state("frozen").phase is Phase.STOPPED


DEAF = """
    import os, pathlib, signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pathlib.Path(os.environ["HERE"], "deaf").touch()
    while True:
        signal.pause()
"""


async def test_a_process_that_ignores_the_signal_is_killed_after_its_time(
    supervisor: Supervisor, stand_in: Make, tmp_path: Path
) -> None:
    supervisor.start([stand_in("deaf", DEAF, ready=ready_when(tmp_path / "deaf"), stop_seconds=0.3)])
    await supervisor.wait_ready()
    await supervisor.stop("deaf")
    assert supervisor.state("deaf").last_end == "was ended by SIGKILL"


async def test_who_is_in_a_hurry_kills_what_has_not_ended_before_its_own_time(
    supervisor: Supervisor, stand_in: Make, tmp_path: Path
) -> None:
    supervisor.start([stand_in("deaf", DEAF, ready=ready_when(tmp_path / "deaf"), stop_seconds=60)])
    await supervisor.wait_ready()
    async with asyncio.timeout(10):
        await supervisor.stop_all(within=0.2)
    assert supervisor.state("deaf").last_end == "was ended by SIGKILL"


async def test_a_stopped_process_stays_down_until_it_is_resumed(supervisor: Supervisor, stand_in: Make) -> None:
    supervisor.start([stand_in("one")])
    await supervisor.wait_ready()
    await supervisor.stop("one")
    with pytest.raises(NotReady, match="does not run"):
        supervisor.kill("one")
    await supervisor.resume("one")
    assert supervisor.state("one").phase is Phase.READY


async def test_what_a_process_leaves_behind_in_its_group_is_swept(
    supervisor: Supervisor, stand_in: Make, tmp_path: Path, eventually: Eventually, alive: Alive
) -> None:
    source = """
        import os, pathlib, signal, subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        fresh = pathlib.Path(os.environ["HERE"], "child.new")
        fresh.write_text(str(child.pid))
        fresh.rename(fresh.with_name("child"))
        signal.pause()
    """
    supervisor.start([stand_in("parent", source, ready=ready_when(tmp_path / "child"))])
    await supervisor.wait_ready()
    child = int((tmp_path / "child").read_text())
    assert alive(child)
    await supervisor.stop("parent")
    await eventually(lambda: not alive(child), "the grandchild ends with its parent")


async def test_an_unknown_process_is_answered_with_those_there_are(supervisor: Supervisor, stand_in: Make) -> None:
    supervisor.start([stand_in("one")])
    with pytest.raises(UnknownProcess, match="there are one"):
        supervisor.kill("two")


async def test_nothing_is_left_when_the_supervisor_itself_is_killed(
    tmp_path: Path, eventually: Eventually, alive: Alive
) -> None:
    """The kernel ends the children, and what they started with the same wish."""
    inner = (
        "from lablet_local.launch import bound_to_parent as b; import subprocess, signal, sys, os, pathlib; "
        "p = subprocess.Popen(b([sys.executable, '-c', 'import signal; signal.pause()'])); "
        "pathlib.Path(sys.argv[1]).write_text(str(p.pid)); signal.pause()"
    )
    program = tmp_path / "owner.py"
    program.write_text(
        textwrap.dedent(f"""
        import asyncio, os, pathlib, sys
        from lablet_local.supervisor import Process, Supervisor
        async def main():
            here = pathlib.Path({str(tmp_path)!r})
            supervisor = Supervisor()
            command = (sys.executable, "-c", {inner!r}, str(here / "grandchild"))
            supervisor.start([Process("child", command, here / "child.log", env=dict(os.environ))])
            await supervisor.wait_ready()
            (here / "child").write_text(str(supervisor.state("child").pid))
            await asyncio.Event().wait()
        asyncio.run(main())
        """)
    )
    owner = subprocess.Popen([sys.executable, str(program)])
    try:
        files = [tmp_path / "child", tmp_path / "grandchild"]
        await eventually(lambda: all(file.exists() and file.read_text() for file in files), "both run")
        pids = [int(file.read_text()) for file in files]
        assert all(map(alive, pids))
        os.kill(owner.pid, signal.SIGKILL)
        await eventually(lambda: not any(map(alive, pids)), "child and grandchild end")
    finally:
        owner.kill()
        owner.wait()


async def test_a_log_grown_too_large_is_cut_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    writer = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for round_number in range(3):
            os.write(writer, b"x" * 100 + str(round_number).encode())
            assert rotate(log, limit=50)
        os.write(writer, b"fresh")
    finally:
        os.close(writer)
    assert log.read_text() == "fresh"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "a.log.1", "a.log.2"]
    assert (tmp_path / "a.log.1").read_text().endswith("2")
    assert not rotate(log, limit=50)


async def test_last_words_are_for_people(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    error = "Traceback\\n  File x\\nValueError: no moon"
    log.write_text(f'plain\n{{"level": "error", "message": "it crashed", "error": "{error}"}}\n{{"cut')
    assert last_words(log) == '    plain\n    error: it crashed (ValueError: no moon)\n    {"cut'
    assert last_words(tmp_path / "none") == ""


async def test_cancelling_while_it_waits_for_readiness_leaves_nothing(
    supervisor: Supervisor, stand_in: Make, tmp_path: Path, alive: Alive
) -> None:
    supervisor.start([stand_in("slow", ready=ready_when(tmp_path / "never"))])
    waiting = asyncio.create_task(supervisor.wait_ready(timeout=30))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    await supervisor.stop_all()
    assert supervisor.state("slow").pid is None
