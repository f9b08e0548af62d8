"""Where NATS is for the commands of operators, and how far its streams have come, told in words that help when it is not."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lablet_client.cli.admin import mesh_here
from lablet_client.cli.failures import WrongUsage
from lablet_client.errors import Unreachable

if TYPE_CHECKING:
    from lablet_common.settings import NatsSettings

_OBSERVER = "observer"
"""The user of a local mesh that may ask and cannot change anything."""
_WITHOUT = "or leave the positions out with --without-streams"


async def positions() -> Mapping[str, Any]:
    """Stream → its first and last number. Raises `Unreachable`, and `WrongUsage` where the settings must change."""
    from lablet_common.bus import BusRefused, BusUnavailable
    from lablet_common.bus.positions import NotAllowed, stream_positions

    settings = _settings()
    try:
        return await stream_positions(settings)
    except BusRefused as error:
        raise WrongUsage(f"{error}: set NATS_USER and NATS_PASSWORD (or NATS_CREDS), {_WITHOUT}") from error
    except NotAllowed as error:
        raise WrongUsage(f"{error}: set NATS_USER to a user that may, such as api-gateway, {_WITHOUT}") from error
    except BusUnavailable as error:
        certificate = "; NATS_CA_CERT names the authority to trust" if "certificate" in str(error) else ""
        raise Unreachable(settings.url, f"{error}{certificate}; mend that, {_WITHOUT}") from error


def _settings() -> "NatsSettings":
    """As the environment says; where it says nothing, those of the mesh on this machine."""
    from pydantic import SecretStr

    from lablet_common.settings import NatsSettings

    here = None if "NATS_URL" in os.environ else mesh_here()
    servers = [at for process, at in here[1].items() if process.partition("-")[0] == "nats"] if here else []
    if here is None or not servers:
        return NatsSettings()
    password = (here[0] / "secrets" / f"nats-{_OBSERVER}.password").read_text().strip()
    return NatsSettings(url=",".join(servers), user=_OBSERVER, password=SecretStr(password))
