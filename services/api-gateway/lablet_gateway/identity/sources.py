"""The verifiers that the settings ask for, put together."""

import ssl

import httpx

from lablet_common.telemetry.health import Health
from lablet_gateway.identity import TokenVerifier
from lablet_gateway.identity.chain import Chain
from lablet_gateway.identity.oidc import Oidc
from lablet_gateway.identity.provider import ProviderKeys
from lablet_gateway.identity.token_file import TokenFile
from lablet_gateway.settings import GatewaySettings, OidcSettings

_CALL_SECONDS = 5.0


class Identities:
    """The token file, and the identity provider where there is one."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._keys = _provider(settings.oidc) if settings.oidc.issuer else None
        verifiers: list[TokenVerifier] = [TokenFile(settings.api_tokens_file)]
        if self._keys is not None:
            verifiers.append(Oidc(settings.oidc, self._keys))
        self.verifier: TokenVerifier = Chain(*verifiers)

    def watch_over(self, health: Health) -> None:
        """Adds the provider to the readiness checks: without it only its own people are shut out."""
        if self._keys is not None:
            health.add("oidc", self._keys.look, required=False)

    async def close(self) -> None:
        if self._keys is not None:
            await self._keys.close()


def _provider(settings: OidcSettings) -> ProviderKeys:
    trust = ssl.create_default_context(cafile=str(settings.ca_cert) if settings.ca_cert else None)
    http = httpx.AsyncClient(timeout=_CALL_SECONDS, follow_redirects=False, verify=trust)
    return ProviderKeys(settings.issuer, http, keep_seconds=settings.keys_seconds)
