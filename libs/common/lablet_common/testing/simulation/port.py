"""Any port of the services (an object store, a cloud, a worker's runtime) as one process reaches it over its line."""

import inspect
from collections.abc import Callable
from typing import Any

from lablet_common.testing.simulation.line import Line

_ENDS = frozenset({"close"})


class Port:
    """Passes everything on to `target`; its asynchronous calls take time and may fail with what `unavailable` makes."""

    def __init__(self, target: Any, line: Line, unavailable: Callable[[str], Exception]) -> None:
        self._target = target
        self._line = line
        self._unavailable = unavailable

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name in _ENDS or not inspect.iscoroutinefunction(found):
            return found

        async def call(*args: Any, **options: Any) -> Any:
            line, weather = self._line, self._line.weather
            await line.enter()
            entered = line.calls
            if line.chance(weather.refused):
                raise self._unavailable(f"{name} did not arrive")
            answer = await found(*args, **options)
            if line.chance(weather.answer_lost):
                raise self._unavailable(f"{name} was not answered")
            await line.leave(entered)
            return answer

        self.__dict__[name] = call
        return call
