"""CLOUDEVENTS_SINK_URL as a subscription: made, changed and taken away as the setting says, on the replica that owns it."""

import asyncio
import logging

from lablet_common.store import Conflict, StoreUnavailable
from lablet_gateway.eventlog import EventLogUnavailable
from lablet_gateway.parts import Parts
from lablet_gateway.settings import GatewaySettings
from lablet_gateway.webhooks import signing
from lablet_gateway.webhooks.addresses import SinkRefused, check_url
from lablet_gateway.webhooks.registry import Registry

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0
LOOK_SECONDS = 60.0


def check_secret(settings: GatewaySettings) -> None:
    """Raises `ValueError`, which does not tell the secret, for one that cannot sign."""
    if settings.cloudevents_sink_secret is None:
        return
    try:
        signing.key_of(settings.cloudevents_sink_secret.get_secret_value())
    except ValueError as error:
        raise ValueError(f"CLOUDEVENTS_SINK_SECRET cannot sign: {error}") from None


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
