"""Whose certificate the gateway trusts when it asks the identity provider for its keys."""

import json
from pathlib import Path

import pytest
from aiohttp import web

from lablet_common.bus.permissions import ServerTls
from lablet_common.telemetry.health import Health
from lablet_common.testing.authority import Authority
from lablet_common.testing.sinks import serving
from lablet_gateway.identity.sources import Identities
from lablet_gateway.settings import GatewaySettings, OidcSettings


async def finding(issuer: str, ca_cert: Path | None) -> str:
    """Of the readiness check."""
    identities = Identities(GatewaySettings(oidc=OidcSettings(issuer=issuer, audience="lablet", ca_cert=ca_cert)))
    health = Health()
    identities.watch_over(health)
    try:
        return (await health.readiness()).checks["oidc"]
    finally:
        await identities.close()


@pytest.mark.integration
async def test_a_provider_of_the_configured_authority_is_trusted_and_no_other(tmp_path: Path) -> None:
    authority, stranger = (Authority(tmp_path, name) for name in ("authority", "stranger"))

    async def answer(request: web.Request) -> web.Response:
        issuer = f"https://{request.host}"
        found = {"issuer": issuer, "jwks_uri": f"{issuer}/keys", "keys": []}
        return web.Response(text=json.dumps(found), content_type="application/json")

    async with serving(answer, ServerTls(*authority.issue("provider"))) as issuer:
        assert await finding(issuer, authority.cert) == "ok"
        for trusted in (stranger.cert, None):
            told = await finding(issuer, trusted)
            assert "certificate verify failed" in told
            assert "OIDC_CA_CERT names the authority to trust" in told
