"""Labs as processes: order, health, restarts, limits, output, and that nothing is left behind."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from lablet_common.agents import Question
from lablet_common.process_lab import Restart
from lablet_workers.agent import procfs
from lablet_workers.agent.capacity import Meter
from lablet_workers.agent.driver import Account, NoSuchLab, StillRunning
from lablet_workers.agent.plan import NodePlan
from lablet_workers.agent.procfs import start_time
from lablet_workers.agent.work import Work

from .conftest import PYTHON, Host, sh


def node(record: Any, name: str = "a") -> Any:
    return next(one for one in record.nodes if one.name == name)


async def test_a_job_runs_to_its_end_and_brings_its_exit_code_and_output(host: Host) -> None:
    lab = await host.run("job", sh("echo to out; echo to err >&2; exit 3"), until="completed")
    record = await host.over(lab)
    assert (record.phase, record.exit_code, node(record).exit_code) == ("completed", 3, 3)
    assert sorted(host.said(lab, "a").splitlines()) == ["to err", "to out"]
    await host.gone(lab)


async def test_nodes_start_in_the_order_of_their_dependencies(host: Host) -> None:
    lab = await host.run(
        "order",
        sh("echo c >> $HOME/../../order", "c", dependsOn=[{"node": "b", "condition": "completed"}]),
        sh("sleep 0.2; echo b >> $HOME/../../order", "b", dependsOn=[{"node": "web", "condition": "healthy"}]),
        {
            "name": "web",
            "command": [PYTHON, "-m", "http.server", "${PORT_WEB}", "--bind", "127.0.0.1"],
            "ports": ["web"],
            "health": {"http": {"port": "web"}},
            "restart": "always",
        },
        until="completed",
    )
    record = await host.over(lab)
    assert record.phase == "completed", record
    assert (host.root / "labs" / lab / "order").read_text().split() == ["b", "c"]
    assert node(record, "web").phase == "STOPPED"
    assert "GET /" in host.said(lab, "web")


async def test_what_waits_for_something_that_fails_is_skipped_and_the_failure_counts(host: Host) -> None:
    lab = await host.run(
        "chain",
        sh("exit 7", "first"),
        sh("echo never", "second", dependsOn=[{"node": "first", "condition": "completed"}]),
        sh("true", "third"),
        until="completed",
    )
    record = await host.over(lab)
    assert [node(record, name).phase for name in ("first", "second", "third")] == ["EXITED", "SKIPPED", "EXITED"]
    assert record.exit_code == 7
    assert "first never was completed" in node(record, "second").message


async def test_a_failing_node_is_restarted_as_often_as_it_may_be(host: Host) -> None:
    command = "echo run; test $(wc -l < $HOME/n 2>/dev/null || echo 0) -ge 2 || { echo x >> $HOME/n; exit 1; }"
    lab = await host.run(
        "again",
        sh(command, restart={"policy": "on-failure", "backoff": 0.01}),
        sh("exit 4", "b", restart={"policy": "on-failure", "max": 2, "backoff": 0.01}),
        until="completed",
    )
    record = await host.over(lab)
    assert (node(record).restarts, node(record).exit_code) == (2, 0)
    assert host.said(lab, "a").count("run") == 3
    assert (node(record, "b").restarts, node(record, "b").exit_code, record.exit_code) == (2, 4, 4)


async def test_an_unhealthy_node_is_started_again(host: Host) -> None:
    lab = await host.run(
        "sick",
        sh(
            "echo up; touch $HOME/ok; sleep 60",
            health={"command": ["/usr/bin/test", "-e", "ok"], "interval": 0.1, "retries": 2, "startPeriod": 0},
            restart={"policy": "always", "backoff": 0.01},
        ),
    )
    await host.until(lab, lambda record: node(record).phase == "RUNNING")
    (host.root / "labs" / lab / "work" / "a" / "ok").unlink()
    record = await host.until(lab, lambda record: node(record).restarts == 1 and node(record).phase == "RUNNING")
    assert record.phase == "running"
    assert host.said(lab, "a").count("up") == 2


async def test_a_node_whose_time_runs_out_ends_with_124(host: Host) -> None:
    lab = await host.run(
        "late",
        sh("trap '' TERM; while true; do sleep 0.05; done", resources={"time": 0.3}, restart="on-failure"),
        until="completed",
    )
    record = await host.over(lab)
    assert (record.exit_code, node(record).message) == (124, "its time ran out")
    await host.gone(lab)


@pytest.mark.parametrize(
    ("program", "resources", "said"),
    [
        ("x = bytearray(300 * 2**20)", {"memory": "200Mi"}, "MemoryError"),
        ("open('big', 'wb').write(b'x' * 2_000_000)", {"disk": "1Mi"}, "File too large"),
        ("[open('/dev/null') for _ in range(100)]", {"files": 20}, "Too many open files"),
    ],
)
async def test_limits_hold(host: Host, program: str, resources: dict[str, Any], said: str) -> None:
    command = [PYTHON, "-c", program]
    lab = await host.run("limit", {"name": "a", "command": command, "resources": resources}, until="completed")
    record = await host.over(lab)
    assert record.exit_code == 1
    assert said in host.said(lab, "a")


@pytest.mark.long
async def test_processor_time_is_bounded(host: Host) -> None:
    spin = {"name": "a", "command": [PYTHON, "-c", "while True: pass"], "resources": {"cpuTime": 1}}
    record = await host.over(await host.run("spin", spin, until="completed"))
    assert record.exit_code in (128 + signal.SIGXCPU, 128 + signal.SIGKILL)


async def test_the_environment_is_clean(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_PASSWORD", "secret")
    lab = await host.run("env", sh("env; ls /proc/self/fd | wc -l", env={"MINE": "yes"}), until="completed")
    await host.over(lab)
    said = host.said(lab, "a")
    assert "MINE=yes" in said
    assert "LABLET_USER=ada" in said
    assert "secret" not in said
    names = {line.partition("=")[0] for line in said.splitlines() if "=" in line}
    wanted = {"PATH", "HOME", "TMPDIR", "LANG", "SHELL", "MINE", "PWD", "LABLET_LAB"}
    assert names - {"_", "SHLVL", "OLDPWD"} == wanted | {"LABLET_SEAT", "LABLET_USER", "LABLET_WORKER"}


@pytest.mark.usefixtures("as_root")
async def test_root_runs_labs_as_somebody_else_without_a_way_back(tmp_path: Path) -> None:
    host = Host(tmp_path, Account(65534, 65534))
    lab = await host.run("nobody", sh("id -u; id -G; grep NoNewPrivs /proc/self/status; touch mine"), until="completed")
    await host.over(lab)
    assert host.said(lab, "a").split() == ["65534", "65534", "NoNewPrivs:", "1"]
    assert (tmp_path / "labs" / lab / "work" / "a" / "mine").stat().st_uid == 65534


async def test_output_is_bounded_and_read_by_position(host: Host) -> None:
    program = "import sys\nfor n in range(400_000): sys.stdout.write(f'{n:09d}\\n')"
    lab = await host.run("loud", {"name": "a", "command": [PYTHON, "-c", program]}, until="completed")
    record = await host.over(lab)
    kept = sum(path.stat().st_size for path in (host.root / "labs" / lab / "output").iterdir())
    assert node(record).written == 4_000_000
    assert 1_000_000 <= kept <= 2 * 1024 * 1024
    piece = host.driver.output(lab, "a", 0, 1_000)
    assert piece.start == node(record).dropped == 4_000_000 - kept
    rest = host.driver.output(lab, "a", 3_999_990, 1_000)
    assert (rest.start, rest.data, rest.end) == (3_999_990, b"000399999\n", 4_000_000)
    assert host.driver.output(lab, "a", 4_000_000, 10).data == b""
    with pytest.raises(NoSuchLab, match="no node b"):
        host.driver.output(lab, "b", 0, 1)


async def test_output_that_comes_fast_is_told_at_its_own_positions(host: Host) -> None:
    """Whoever reads while the older part is dropped: each line is the number of its place."""
    program = "import sys\nfor n in range(5_000_000): sys.stdout.write('%07d\\n' % n)"
    lab = await host.run("fast", {"name": "a", "command": [PYTHON, "-c", program]}, until="completed")
    position, read = 0, 0
    while not host.driver.record(lab).over:
        piece = host.driver.output(lab, "a", position, 8 * 64)
        if piece.data:
            whole = -piece.start % 8
            line = piece.data[whole : whole + 7].decode()
            if len(line) == 7:
                assert int(line) == (piece.start + whole) // 8
                read += 1
        position = piece.end + (8 * 20_000 if piece.data else 0)
        await asyncio.sleep(0)
    assert read > 50


async def test_what_a_node_leaves_running_ends_with_it(host: Host) -> None:
    lab = await host.run("stray", sh("(setsid sleep 300 &) ; (sleep 300 &) ; exit 0"), until="completed")
    record = await host.over(lab)
    assert record.exit_code == 0
    await host.gone(lab)


async def test_a_stopped_lab_is_over_with_everything_and_can_be_removed(host: Host) -> None:
    lab = await host.run("stop", sh("trap 'echo bye; exit 0' TERM; while true; do sleep 0.02; done"))
    await host.until(lab, lambda record: record.phase == "running")
    with pytest.raises(StillRunning):
        await host.driver.remove(lab)
    await host.driver.stop(lab)
    record = host.driver.record(lab)
    assert (record.phase, record.reason, node(record).phase) == ("stopped", "Stopped", "STOPPED")
    assert host.said(lab, "a").endswith("bye\n")
    assert not host.left(lab)
    await host.driver.remove(lab)
    await host.driver.remove(lab)
    assert host.driver.labs() == {}
    with pytest.raises(NoSuchLab):
        host.driver.record(lab)


async def test_a_program_that_is_not_there_says_so(host: Host) -> None:
    lab = await host.run("none", {"name": "a", "command": ["/no/such"]}, until="completed")
    record = await host.over(lab)
    assert record.exit_code == 127
    assert "/no/such cannot be run" in node(record).message


async def test_an_agent_started_anew_finds_its_labs_running(host: Host) -> None:
    lab = await host.run("adopt", sh("echo once; sleep 60"))
    before = await host.until(lab, lambda record: node(record).written)
    host.driver = host.new_driver()
    assert host.driver.labs() == {"adopt": lab}
    after = host.driver.record(lab)
    assert node(after).pid == node(before).pid
    await host.driver.start(lab)
    assert host.said(lab, "a") == "once\n"
    await host.driver.stop(lab)
    assert host.driver.record(lab).phase == "stopped"


async def test_a_lab_that_is_over_is_not_run_again(host: Host) -> None:
    lab = await host.run("once", sh("echo ran"), until="completed")
    await host.over(lab)
    await host.driver.start(lab)
    assert host.driver.record(lab).phase == "completed"
    assert host.said(lab, "a") == "ran\n"


async def test_when_the_permission_runs_out_the_lab_is_over_before_that(host: Host) -> None:
    lab = await host.run("lease", sh("trap '' TERM; while true; do sleep 0.05; done"))
    await host.until(lab, lambda record: record.phase == "running")
    host.permit(2.6)  # a grace of 1 s and a margin of 1 s lie before its end
    until = time.monotonic() + 2.6
    record = await host.over(lab)
    assert time.monotonic() < until
    assert (record.phase, record.reason) == ("stopped", "PermissionOver")
    await host.gone(lab)


async def test_without_a_permission_nothing_runs(host: Host) -> None:
    host.permission.unlink()
    record = await host.over(await host.run("none", sh("sleep 60")))
    assert record.reason == "PermissionOver"


async def test_a_permission_of_another_boot_is_none(host: Host) -> None:
    text = host.permission.read_text()
    host.permission.write_text(text.replace('"boot": "', '"boot": "x'))
    assert (await host.over(await host.run("boot", sh("sleep 60")))).reason == "PermissionOver"


async def test_a_supervisor_that_is_killed_takes_its_nodes_along(host: Host) -> None:
    lab = await host.run("killed", sh("(setsid sleep 300 &); exec sleep 300"))
    record = await host.until(lab, lambda record: node(record).phase == "RUNNING")
    pid = node(record).pid
    supervisor = int(Path(f"/proc/{pid}/stat").read_text().split()[3])
    os.kill(supervisor, signal.SIGKILL)
    await host.until(lab, lambda record: record.reason == "SupervisorLost")
    deadline = time.monotonic() + 5
    while start_time(pid) is not None:
        assert time.monotonic() < deadline
    await host.driver.stop(lab)  # and what had made itself a session of its own is found by its mark
    assert not host.left(lab)


async def test_what_outlived_a_killed_supervisor_goes_with_its_lab_and_holds_nobody_up(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what takes its time to die."""
    lab = await host.run("outlived", sh("(setsid sleep 300 &); exec sleep 300"))
    record = await host.until(lab, lambda record: node(record).phase == "RUNNING")
    os.kill(int(Path(f"/proc/{node(record).pid}/stat").read_text().split()[3]), signal.SIGKILL)
    await host.until(lab, lambda record: record.reason == "SupervisorLost")
    assert host.left(lab)
    deaf, turns = 5, list[int]()

    def kill(pids: list[int]) -> None:
        turns.append(others)
        if len(turns) > deaf:
            procfs_kill(pids)

    procfs_kill = procfs.kill
    monkeypatch.setattr(procfs, "kill", kill)
    others, removing = 0, asyncio.create_task(host.driver.remove(lab))
    while not removing.done():
        others += 1
        await asyncio.sleep(0)
    await removing
    assert len(turns) > deaf
    assert turns == sorted(set(turns)), "between two tries everybody else had a turn"
    assert not host.left(lab)


@pytest.mark.parametrize("left", ["", "{", "[]", '{"id": "x"}'])
async def test_an_agent_lives_with_what_a_loss_of_power_left_of_a_record(host: Host, left: str) -> None:
    lab = await host.run("power", sh("true"), until="completed")
    await host.over(lab)
    for path in (host.driver.folder(lab).state, host.driver.folder(lab).supervisor):
        path.write_text(left)
    driver = host.new_driver()
    assert driver.labs() == {"power": lab}
    await driver.stop_everything()
    record = driver.record(lab)
    assert (record.phase, record.reason, node(record).name) == ("stopped", "RecordLost", "a")
    assert not driver.output(lab, "a", 0, 100).data
    await driver.remove(lab)


async def test_what_is_no_lab_is_said_once(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    (host.root / "labs" / "half").mkdir()
    for _ in range(3):
        assert not host.driver.labs()
    assert len(caplog.records) == 1


async def test_a_seat_that_comes_back_with_other_ports_is_run_with_those(host: Host) -> None:
    """What an earlier session left of it bears the same name."""
    lab = await host.run("back", sh("echo $PORT_WEB; sleep 60", ports=["web"]))
    await host.until(lab, lambda record: record.phase == "running")
    with pytest.raises(StillRunning, match="another manifest"):
        await host.bring("back", sh("echo other"))
    before = host.driver.manifest(lab)
    await host.driver.stop(lab)
    assert await host.run("back", sh("echo $PORT_WEB; sleep 60", ports=["web"])) == lab
    assert host.driver.manifest(lab) != before
    port = str(json.loads(host.driver.manifest(lab))["ports"]["web"])
    await host.until(lab, lambda _: host.said(lab, "a") == f"{port}\n")


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), ValueError("x"), OSError("x")])
async def test_whatever_goes_wrong_is_answered(host: Host, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Whoever asks would wait, and ask again, and never hear why."""

    def broken() -> Any:
        raise error

    monkeypatch.setattr(host.driver, "labs", broken)
    work = Work(host.driver, lambda: True, Meter(host.root).load)
    answer = await work.answer("labs", Question(reply="r"))
    assert (answer.fault, answer.message.partition(":")[0]) == ("failed", "labs")


async def test_names_cannot_leave_the_labs_folder(host: Host) -> None:
    for name in ("../x", "..", "", "a/b", ".hidden"):
        with pytest.raises(NoSuchLab):
            host.driver.folder(name)
        with pytest.raises(NoSuchLab):
            await host.bring(name, sh("true"))


@pytest.mark.parametrize("policy", ["never", "on-failure", "always"])
@pytest.mark.parametrize("code", [0, 1])
def test_a_supervisor_restarts_as_the_manifest_says(policy: str, code: int) -> None:
    wanted = Restart.model_validate({"policy": policy, "max": 2})
    plan = NodePlan("a", ("x",), {}, restart=policy, restarts=2)
    assert [plan.wants_restart(code, n) for n in range(4)] == [wanted.wants(code, n) for n in range(4)]


@pytest.mark.parametrize("backoff", [0, 0.5, 300])
def test_a_node_that_has_failed_for_days_is_still_started_again(backoff: float) -> None:
    plan = NodePlan("a", ("x",), {}, restart="always", backoff=backoff)
    assert plan.pause_after(1) == min(backoff, 30)
    assert plan.pause_after(2) == min(2 * backoff, 30)
    assert plan.pause_after(100_000) == (30 if backoff else 0)


async def test_a_supervisor_that_cannot_run_a_node_ends_the_lab_and_says_so(host: Host) -> None:
    """And does not wait for it for ever."""
    lab = await host.bring("broken", sh("sleep 60"), sh("true", "b"), until="completed")
    plan = host.driver.folder(lab).plan
    plan.write_text(plan.read_text().replace('"after": []', '"after": [["nobody", "started"]]', 1))
    await host.driver.start(lab)
    record = await host.over(lab)
    assert record.phase == "stopped"
    assert "nobody" in record.reason
