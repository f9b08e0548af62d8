"""What a hostile host may answer in its agent's name: it is as if the agent had said nothing."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lablet_common.agents import MOST_ANSWER_BYTES, Answer
from lablet_workers.agent.output import OutputFile, read_output
from lablet_workers.runtimes.port import RuntimeUnavailable
from lablet_workers.runtimes.process import ProcessRuntime

NODE = {"name": "web", "phase": "RUNNING", "exit_code": None, "restarts": 0, "message": ""}
RECORD = {"phase": "running", "stopped": False, "ends": False, "exit_code": None, "nodes": [NODE]}
CALLS: dict[str, Callable[[ProcessRuntime], Any]] = {
    "info": lambda runtime: runtime.info(),
    "labs": lambda runtime: runtime.labs(),
    "import": lambda runtime: runtime.import_lab("ins-a-1", b"{}"),
    "progress": lambda runtime: runtime.progress("lab"),
    "configurations": lambda runtime: runtime.configurations("lab"),
    "export": lambda runtime: runtime.export("lab"),
}


def runtime_of(answers: Callable[[str], Any]) -> tuple[ProcessRuntime, list[str]]:
    asked: list[str] = []

    class Told:
        async def ask(self, _: str, verb: str, **__: Any) -> Answer:
            asked.append(verb)
            return Answer(data=answers(verb))

    line: Any = Told()
    return ProcessRuntime("w-1", line), asked


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "told",
    [
        {},
        {"labs": [], "lab": {}, "manifest": 3, "version": [], "nodes": "web"},
        RECORD | {"nodes": [{}], "phase": None},
    ],
)
async def test_an_answer_of_another_shape_is_no_answer(call: str, told: Any) -> None:
    runtime, _ = runtime_of(lambda _: told)
    with pytest.raises(RuntimeUnavailable, match=r"w-1 answers .* with what cannot be read"):
        await CALLS[call](runtime)


async def test_output_that_never_ends_is_given_up() -> None:
    piece = base64.b64encode(b"y" * (MOST_ANSWER_BYTES // 2)).decode()

    def told(verb: str) -> Any:
        return RECORD if verb == "progress" else {"start": 0, "data": piece, "over": False}

    runtime, asked = runtime_of(told)
    with pytest.raises(RuntimeUnavailable, match="does not come to the end of the output of web"):
        await runtime.configurations("lab")
    assert len(asked) < 100


async def test_a_node_that_writes_all_the_time_is_collected_as_far_as_it_has_come(tmp_path: Path) -> None:
    """Each look finds a few lines more; its output lies in two parts."""
    kept = OutputFile(tmp_path / "web.log", 1024 * 1024)
    before = b"".join(b"%07d\n" % number for number in range(200_000))
    kept.write(before)
    assert (tmp_path / "web.log.1").exists()

    class Writes:
        async def ask(self, _: str, verb: str, **words: Any) -> Answer:
            if verb == "progress":
                return Answer(data=RECORD)
            piece = read_output(tmp_path / "web.log", kept.dropped, kept.written, words["position"], words["limit"])
            kept.write(b"another\n" * 10)
            data = base64.b64encode(piece.data).decode()
            return Answer(data={"start": piece.start, "data": data, "over": False})

    line: Any = Writes()
    files = await ProcessRuntime("w-1", line).configurations("lab")
    assert files["web.log"].startswith(before)
    assert files["web.log"].removeprefix(before).startswith(b"another\n")
    assert json.loads(files["result.json"])["nodes"]["web"]["outputFrom"] == 0


async def test_what_an_agent_of_a_later_release_adds_is_passed_over() -> None:
    runtime, _ = runtime_of(lambda _: RECORD | {"mood": "good", "nodes": [NODE | {"mood": "good"}]})
    assert (await runtime.progress("lab")).converged
