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
_ETCD = ("ETCD_ENDPOINTS", "ETCD_HOST", "ETCD_PORT")
_WITHOUT = "or leave the positions out with --without-streams"


async def positions(endpoint: str | None) -> Mapping[str, Any]:
    """Stream → its first and last number. `endpoint` is etcd's as it was given. Raises `Unreachable`, and `WrongUsage` where
    the settings must change."""
    from lablet_common.bus import BusRefused, BusUnavailable
    from lablet_common.bus.positions import NotAllowed, stream_positions

    settings = _settings(endpoint)
    try:
        return await stream_positions(settings)
    except BusRefused as error:
        raise WrongUsage(f"{error}: set NATS_USER and NATS_PASSWORD (or NATS_CREDS), {_WITHOUT}") from error
    except NotAllowed as error:
        raise WrongUsage(f"{error}: set NATS_USER to a user that may, such as api-gateway, {_WITHOUT}") from error
    except BusUnavailable as error:
        certificate = "; NATS_CA_CERT names the authority to trust" if "certificate" in str(error) else ""
        raise Unreachable(settings.shown, f"{error}{certificate}; mend that, {_WITHOUT}", "NATS_URL") from error


def _settings(endpoint: str | None) -> "NatsSettings":
    """As the environment says; where it says nothing, those of the mesh on this machine, if etcd is that mesh's too. Raises
    `WrongUsage` where nobody says which NATS belongs to that etcd."""
    from pydantic import SecretStr

    from lablet_common.settings import NatsSettings

    if os.environ.get("NATS_URL"):
        return NatsSettings()
    if endpoint is not None or any(os.environ.get(name) for name in _ETCD):
        raise WrongUsage(f"nobody says which NATS belongs to that etcd: set NATS_URL, {_WITHOUT}")
    here = mesh_here()
    servers = [at for process, at in here[1].items() if process.partition("-")[0] == "nats"] if here else []
    if here is None or not servers:
        return NatsSettings()
    file = here[0] / "secrets" / f"nats-{_OBSERVER}.password"
    try:
        password = file.read_text().strip()
    except OSError as error:
        raise WrongUsage(
            f"the password of NATS's {_OBSERVER} cannot be read ({error}): set NATS_URL, {_WITHOUT}"
        ) from error
    return NatsSettings(url=",".join(servers), user=_OBSERVER, password=SecretStr(password))
