"""How many dead letters lie in the queue, as a metric to alert on. Counted on one replica."""

import asyncio
import logging

from prometheus_client import Gauge

from lablet_common.telemetry.metrics import REGISTRY
from lablet_gateway.deadletters import DeadLetters
from lablet_gateway.eventlog import EventLogUnavailable

DEAD_LETTERS = Gauge("lablet_dead_letters", "Dead letters in the queue", registry=REGISTRY)
LOOK_SECONDS = 10.0

_log = logging.getLogger(__name__)


class Graveyard:
    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    async def count_for_ever(self) -> None:
        """Until cancelled; whoever counts next tells then, and a count that nobody keeps up would be an alert for ever."""
        try:
            while True:
                await self.count()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            DEAD_LETTERS.set(0)

    async def count(self) -> None:
        try:
            DEAD_LETTERS.set(await self._letters.count())
        except EventLogUnavailable as error:
            _log.info("dead letters cannot be counted just now", extra={"cause": str(error)})
