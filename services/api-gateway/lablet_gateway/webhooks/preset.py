"""CLOUDEVENTS_SINK_URL as a subscription: made, changed and taken away as the setting says, on the replica that owns it."""

import asyncio
import logging

from lablet_common.store import Conflict, StoreUnavailable
from lablet_gateway.eventlog import EventLogUnavailable
from lablet_gateway.parts import Parts
from lablet_gateway.webhooks.addresses import SinkRefused, check_url
from lablet_gateway.webhooks.registry import Registry

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0
LOOK_SECONDS = 60.0


class Preset:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def keep(self) -> None:
        """Keeps it, until cancelled."""
        while True:
            try:
                await self.look()
            except (Conflict, EventLogUnavailable, StoreUnavailable) as error:
                _log.info("the preset subscription waits", extra={"cause": str(error)})
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """One look. A setting that is no URL is logged and counts as none."""
        sink = self._parts.settings.cloudevents_sink_url
        try:
            if sink is not None:
                check_url(sink)
        except SinkRefused as error:
            _log.error("CLOUDEVENTS_SINK_URL is not used", extra={"cause": str(error)})
            return
        await Registry(self._parts).keep_preset(sink)
