"""What the mesh asks of an agent, answered from its driver. Questions may come twice; every answer is the present state."""

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from lablet_common.agents import Answer, Question
from lablet_common.loads import Load
from lablet_common.process_lab import SeatLab
from lablet_common.version import __version__
from lablet_workers.agent.driver import LabDriver, NoSuchLab, StillRunning
from lablet_workers.agent.plan import Phase

log = logging.getLogger("lablet.agent")

_LOOK_SECONDS = 0.05
_Handler = Callable[[Question], Awaitable[Mapping[str, Any]]]


class Work:
    """`permitted` tells whether labs may run now; `measure` what the host uses while so many nodes run."""

    def __init__(self, driver: LabDriver, permitted: Callable[[], bool], measure: Callable[[int], Load]) -> None:
        self._driver = driver
        self._permitted = permitted
        self._measure = measure
        self._locks: dict[str, asyncio.Lock] = {}
        self._verbs: Mapping[str, _Handler] = {
            "info": self._info,
            "load": self._load,
            "labs": self._labs,
            "import": self._import,
            "start": self._start,
            "progress": self._progress,
            "output": self._output,
            "export": self._export,
            "stop": self._stop,
            "remove": self._remove,
        }

    async def answer(self, verb: str, question: Question) -> Answer:
        """Never raises: what goes wrong is the answer."""
        handler = self._verbs.get(verb)
        if handler is None:
            return Answer(fault="refused", message=f"this agent does not know {verb}: it is older than the mesh")
        try:
            return Answer(data=dict(await handler(question)))
        except NoSuchLab as error:
            return Answer(fault="missing", message=str(error))
        except (StillRunning, ValidationError) as error:
            return Answer(fault="refused", message=str(error)[:1000])
        except Exception as error:
            log.exception("a question failed", extra={"verb": verb, "lab": question.lab or question.title})
            return Answer(fault="failed", message=f"{verb}: {error}"[:1000])

    def _lock(self, lab: str) -> asyncio.Lock:
        """A lab is started, stopped and removed by one question at a time."""
        return self._locks.setdefault(lab, asyncio.Lock())

    async def _info(self, _: Question) -> Mapping[str, Any]:
        return {"version": __version__, "ready": self._permitted()}

    async def _load(self, _: Question) -> Mapping[str, Any]:
        labs = [self._driver.record(lab) for lab in self._driver.labs().values()]
        running = sum(node.phase == Phase.RUNNING for lab in labs for node in lab.nodes)
        return self._measure(running).model_dump()

    async def _labs(self, _: Question) -> Mapping[str, Any]:
        return {"labs": dict(self._driver.labs())}

    async def _import(self, question: Question) -> Mapping[str, Any]:
        lab = SeatLab.model_validate_json(question.manifest)
        async with self._lock(question.title):
            return {"lab": await self._driver.import_lab(question.title, lab)}

    async def _start(self, question: Question) -> Mapping[str, Any]:
        async with self._lock(question.lab):
            if not self._permitted():
                raise OSError("labs may not run now: the agent has no permission")
            await self._driver.start(question.lab)
        return {}

    async def _progress(self, question: Question) -> Mapping[str, Any]:
        record = self._driver.record(question.lab)
        return asdict(record) | {"stopped": not record.runs, "ends": self._driver.ends(question.lab)}

    async def _output(self, question: Question) -> Mapping[str, Any]:
        deadline = asyncio.get_running_loop().time() + question.wait
        while True:
            record = self._driver.record(question.lab)
            piece = self._driver.output(question.lab, question.node, question.position, question.limit)
            if piece.data or record.over or asyncio.get_running_loop().time() >= deadline:
                data = base64.b64encode(piece.data).decode()
                return {"start": piece.start, "data": data, "over": record.over}
            await asyncio.sleep(_LOOK_SECONDS)

    async def _export(self, question: Question) -> Mapping[str, Any]:
        return {"manifest": self._driver.manifest(question.lab)}

    async def _stop(self, question: Question) -> Mapping[str, Any]:
        async with self._lock(question.lab):
            await self._driver.stop(question.lab)
        return {}

    async def _remove(self, question: Question) -> Mapping[str, Any]:
        async with self._lock(question.lab):
            await self._driver.remove(question.lab)
        self._locks.pop(question.lab, None)
        return {}
