"""Tokens at the door: both verifiers side by side, and how each refusal is told."""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from lablet_gateway.app import create_app
from lablet_gateway.identity.chain import Chain


@pytest.fixture
def ask(world: Any, oidc: Any) -> Any:
    """`await ask(token)`: whoami of a gateway that takes the token file's tokens and the provider's."""
    both = Chain(world.parts.verifier, oidc(tenant_claim="org"))
    app = create_app(replace(world.parts, verifier=both))

    async def get(token: str, path: str = "/api/v1/whoami") -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.get(path, headers={"Authorization": f"Bearer {token}"})

    return get


async def test_local_tokens_and_the_providers_work_side_by_side(ask: Any, provider: Any) -> None:
    assert (await ask("secret-of-ann")).json()["name"] == "ann"
    answer = await ask(provider.token(org="acme", roles=["instructor"]))
    assert answer.json() == {"name": "u-17", "role": "instructor", "tenant": "acme"}
    assert (await ask("secret-of-nobody")).status_code == 401


async def test_a_bad_token_is_401_with_the_reason_and_never_the_token(ask: Any, provider: Any) -> None:
    token = provider.token(org="acme", exp=1, iat=0)
    answer = await ask(token)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="lablet", error="invalid_token"'
    assert "expired" in answer.json()["detail"]
    assert token not in answer.text


async def test_somebody_without_a_role_is_known_and_has_no_right(ask: Any, provider: Any) -> None:
    answer = await ask(provider.token(org="acme", roles=[]))
    assert answer.status_code == 403
    assert "claim roles" in answer.json()["detail"]


async def test_a_provider_that_is_away_is_named_and_shuts_out_only_its_own(ask: Any, provider: Any) -> None:
    provider.away = True
    answer = await ask(provider.token(org="acme"))
    assert (answer.status_code, answer.json()["dependency"]) == (503, "oidc")
    assert (await ask("secret-of-ann")).status_code == 200
