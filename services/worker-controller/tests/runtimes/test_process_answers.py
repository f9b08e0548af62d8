"""What a hostile host may answer in its agent's name: it is as if the agent had said nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from lablet_common.agents import Answer
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
    def told(verb: str) -> Any:
        return RECORD if verb == "progress" else {"start": 0, "data": "aGVsbG8=", "over": False}

    runtime, asked = runtime_of(told)
    with pytest.raises(RuntimeUnavailable, match="does not come to the end of the output of web"):
        await runtime.configurations("lab")
    assert len(asked) < 100


async def test_what_an_agent_of_a_later_release_adds_is_passed_over() -> None:
    runtime, _ = runtime_of(lambda _: RECORD | {"mood": "good", "nodes": [NODE | {"mood": "good"}]})
    assert (await runtime.progress("lab")).converged
