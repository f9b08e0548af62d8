"""Tokens of an identity provider: whom they prove, and every way in which they do not."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from lablet_gateway.identity import NoRole, Principal, ProviderUnavailable, Role, TokenRefused
from lablet_gateway.identity.oidc import Oidc
from lablet_gateway.settings import OidcSettings

Make = Callable[..., Oidc]


def _b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _forged(header: dict[str, Any], token: str, sign: Callable[[bytes], bytes]) -> str:
    """The claims of a good token under another header and signature."""
    signed = f"{_b64(json.dumps(header).encode())}.{token.split('.')[1]}"
    return f"{signed}.{_b64(sign(signed.encode()))}"


async def test_a_token_proves_its_subject_role_and_tenant(provider: Any, oidc: Make) -> None:
    assert await oidc().verify(provider.token()) == Principal("u-17", Role.LEARNER, "default")
    named = oidc(name_claim="email", roles_claim="realm_access.roles", tenant_claim="org")
    token = provider.token(email="ann@x.org", org="acme", realm_access={"roles": ["offline", "instructor"]}, roles=None)
    assert await named.verify(token) == Principal("ann@x.org", Role.INSTRUCTOR, "acme")
    dotted = oidc(roles_claim="https://x.org/roles")
    assert (await dotted.verify(provider.token(**{"https://x.org/roles": "machine other"}))).role is Role.MACHINE


async def test_the_highest_role_counts_and_the_providers_words_are_translated(provider: Any, oidc: Make) -> None:
    assert (await oidc().verify(provider.token(roles=["learner", "admin", "operator"]))).role is Role.ADMIN
    mapped = oidc(roles="teachers=instructor, staff=operator")
    assert (await mapped.verify(provider.token(roles=["teachers"]))).role is Role.INSTRUCTOR
    with pytest.raises(NoRole, match="none of staff, teachers"):
        await mapped.verify(provider.token(roles=["admin"]))


@pytest.mark.parametrize(
    ("settings", "claims", "words"),
    [
        ({}, {"roles": None}, "claim roles holds none of admin"),
        ({}, {"roles": ["pope"]}, "claim roles holds none of admin"),
        ({"tenant_claim": "org"}, {}, "claim org names no tenant"),
        ({"tenant_claim": "org"}, {"org": "../default"}, "claim org names no tenant"),
        ({"name_claim": "email"}, {"email": "a\nb"}, "claim email is no name"),
        ({"name_claim": "nick"}, {"nick": "key:lms-sync"}, "claim nick begins with key:"),
        ({"name_claim": "nick"}, {"nick": "ingress"}, "claim nick is ingress"),
    ],
)
async def test_somebody_without_role_tenant_or_name_is_told_which_claim_lacks(
    provider: Any, oidc: Make, settings: Any, claims: Any, words: str
) -> None:
    with pytest.raises(NoRole, match=words):
        await oidc(**settings).verify(provider.token(**claims))


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"iss": "https://evil.example"}, "comes from 'https://evil.example'"),
        ({"iss": None}, "comes from nobody"),
        ({"aud": "other"}, "not meant for this system"),
        ({"aud": None}, "no claim aud"),
        ({"exp": time.time() - 120}, "has expired"),
        ({"exp": None}, "no claim exp"),
        ({"nbf": time.time() + 3600}, "not valid yet"),
        ({"iat": time.time() + 3600}, "not valid yet"),
        ({"sub": None}, "no claim sub"),
    ],
)
async def test_a_token_for_another_place_or_time_is_refused_with_the_reason(
    provider: Any, oidc: Make, claims: Any, words: str
) -> None:
    with pytest.raises(TokenRefused, match=words):
        await oidc().verify(provider.token(**claims))


async def test_clocks_may_differ_by_the_skew_and_no_more(provider: Any, oidc: Make) -> None:
    late, early = provider.token(exp=time.time() - 30), provider.token(nbf=time.time() + 30, iat=time.time() + 30)
    assert await oidc().verify(late)
    assert await oidc().verify(early)
    strict = oidc(clock_skew_seconds=5)
    for token in (late, early):
        with pytest.raises(TokenRefused):
            await strict.verify(token)


async def test_several_audiences_are_fine_when_one_is_ours(provider: Any, oidc: Make) -> None:
    assert await oidc(audience="portal, lablet").verify(provider.token(aud=["lablet", "mail"]))


async def test_none_and_a_secret_made_of_the_public_key_are_refused(provider: Any, oidc: Make) -> None:
    good = provider.token()
    public = provider.keys["first"][0].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    none = _forged({"alg": "none", "kid": "first"}, good, lambda _: b"")
    confused = _forged(
        {"alg": "HS256", "kid": "first"}, good, lambda signed: hmac.digest(public, signed, hashlib.sha256)
    )
    for token in (none, confused):
        with pytest.raises(TokenRefused, match="is signed with"):
            await oidc().verify(token)


async def test_a_shared_secret_in_the_key_set_is_no_key(provider: Any, oidc: Make) -> None:
    provider.extra = [{"kty": "oct", "kid": "shared", "k": _b64(b"secret"), "alg": "HS256"}]
    token = _forged(
        {"alg": "HS256", "kid": "shared"}, provider.token(), lambda signed: hmac.digest(b"secret", signed, "sha256")
    )
    with pytest.raises(TokenRefused, match="'HS256'"):
        await oidc().verify(token)


async def test_a_changed_token_and_a_strangers_signature_are_refused(provider: Any, oidc: Make) -> None:
    header, _, signature = provider.token().split(".")
    changed = f"{header}.{provider.token(roles=['admin']).split('.')[1]}.{signature}"
    stranger = rsa.generate_private_key(65537, 2048)
    provider.keys["mine"] = (stranger, "RS256")
    foreign = provider.token("mine", headers={"kid": "first"})
    del provider.keys["mine"]
    for token in (changed, foreign):
        with pytest.raises(TokenRefused, match="InvalidSignatureError"):
            await oidc().verify(token)


async def test_an_extension_that_must_be_understood_is_not(provider: Any, oidc: Make) -> None:
    assert await oidc().verify(provider.token(headers={"kid": "first", "crit": ["x"], "x": 1})) is None


@pytest.mark.parametrize("algorithm", ["PS256", "ES256", "ES384", "EdDSA"])
async def test_each_public_key_algorithm_works_with_its_own_key_only(
    provider: Any, oidc: Make, algorithm: str, ed25519_key: Any
) -> None:
    made = {
        "PS256": provider.keys["first"][0], "ES256": ec.generate_private_key(ec.SECP256R1()),
        "ES384": ec.generate_private_key(ec.SECP384R1()), "EdDSA": ed25519_key,
    }  # fmt: skip
    provider.rotate("own", made[algorithm], algorithm)
    token = provider.token()
    assert await oidc().verify(token)
    with pytest.raises(TokenRefused, match="taken are RS256"):
        await oidc(algorithms="RS256").verify(token)
    provider.rotate("own", ec.generate_private_key(ec.SECP521R1()), "ES512")
    with pytest.raises(TokenRefused, match="which its key is not for"):
        await oidc().verify(token)


async def test_an_encryption_key_signs_nothing(provider: Any, oidc: Make) -> None:
    token = provider.token()
    provider.extra = [provider.jwks()["keys"][0] | {"use": "enc"}]
    provider.keys = {}
    with pytest.raises(TokenRefused, match="does not have"):
        await oidc().verify(token)


async def test_what_is_no_jwt_is_somebody_elses(oidc: Make, provider: Any) -> None:
    for token in ("lablet_abc", "a.b.c", "..", "x" * 5000):
        assert await oidc().verify(token) is None
    assert provider.fetched == []


async def refusal(verifier: Oidc, token: str) -> str | None:
    """Why the token is refused; None: it is not."""
    try:
        await verifier.verify(token)
    except TokenRefused as refused:
        return str(refused)
    return None


@pytest.mark.parametrize("deep", ["[" * 1500, '{"a":' * 1500, '{"a":' * 101 + "1" + "}" * 101, "9" * 5000])
@pytest.mark.parametrize("place", ["header", "payload"])
async def test_a_token_nested_too_deep_is_no_jwt(provider: Any, oidc: Make, deep: str, place: str) -> None:
    good = provider.token().split(".")
    part = base64.urlsafe_b64encode(f'{{"alg": "RS256", "iss": {deep}}}'.encode()).decode().rstrip("=")
    token = ".".join([part, *good[1:]] if place == "header" else [good[0], part, good[2]])
    assert await oidc().verify(token) is None


async def test_a_rotated_key_is_found_and_a_withdrawn_one_counts_no_more(provider: Any, oidc: Make, wall: Any) -> None:
    verifier = oidc()
    old = provider.token()
    assert await verifier.verify(old)
    provider.rotate("second", keep=True)
    wall.now += 11
    assert await verifier.verify(provider.token("second"))
    assert await verifier.verify(old), "both keys are published"
    provider.rotate("third")
    wall.now += 601
    assert await verifier.verify(old), "the present keys count while new ones are fetched"
    async with asyncio.timeout(5):
        while (said := await refusal(verifier, old)) is None:
            await asyncio.sleep(0.01)
    assert "does not have (any more)" in said
    assert await verifier.verify(provider.token("third"))


async def test_who_calls_several_times_at_once_with_a_withdrawn_key_is_told_so_each_time(
    provider: Any, oidc: Make, wall: Any
) -> None:
    verifier = oidc()
    old = provider.token()
    assert await verifier.verify(old)
    provider.rotate("second")
    wall.now += 11
    assert await verifier.verify(provider.token("second")), "with this the present keys are known"
    wall.now += 11
    results = await asyncio.gather(*(verifier.verify(old) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [TokenRefused] * 3


async def test_invented_key_names_cause_one_fetch_in_ten_seconds(provider: Any, oidc: Make, wall: Any) -> None:
    verifier = oidc()
    tokens = [provider.token(headers={"kid": f"invented-{number}"}) for number in range(20)]
    results = await asyncio.gather(*(verifier.verify(token) for token in tokens), return_exceptions=True)
    assert all(isinstance(result, TokenRefused) for result in results)
    assert provider.fetched.count("keys") == 1
    wall.now += 11
    with pytest.raises(TokenRefused):
        await verifier.verify(tokens[0])
    assert provider.fetched.count("keys") == 2


async def test_a_strangers_token_fetches_nothing(provider: Any, oidc: Make) -> None:
    with pytest.raises(TokenRefused):
        await oidc().verify(provider.token(iss="https://evil.example"))
    assert provider.fetched == []


async def test_a_token_without_a_key_name_needs_that_there_is_one_key(provider: Any, oidc: Make) -> None:
    assert await oidc().verify(provider.token(headers={}))
    provider.rotate("second", keep=True)
    with pytest.raises(TokenRefused, match="does not have"):
        await oidc().verify(provider.token("second", headers={}))


async def test_while_the_provider_is_away_its_last_keys_are_used_for_a_day(
    provider: Any, oidc: Make, wall: Any
) -> None:
    verifier = oidc()
    assert await verifier.verify(provider.token())
    provider.away = True
    wall.now += 23 * 3600
    assert await verifier.verify(provider.token())
    wall.now += 2 * 3600
    with pytest.raises(ProviderUnavailable, match="answers 503"):
        await verifier.verify(provider.token())
    provider.away = False
    wall.now += 11
    assert await verifier.verify(provider.token())


async def test_a_provider_that_calls_itself_otherwise_is_not_the_one(provider: Any, oidc: Make) -> None:
    provider.named = "https://other.example"
    with pytest.raises(ProviderUnavailable, match="OIDC_ISSUER has to be written in just that way"):
        await oidc().verify(provider.token())


async def test_a_signature_is_checked_once_and_expiry_every_time(
    provider: Any, oidc: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jwt

    verifier, token = oidc(), provider.token()
    checked: list[str] = []
    decode = jwt.decode
    monkeypatch.setattr(jwt, "decode", lambda *args, **more: (checked.append("once"), decode(*args, **more))[1])
    for _ in range(3):
        assert await verifier.verify(token)
    assert len(checked) == 2, "one look at the claims, one proof"
    monkeypatch.setattr(time, "time", lambda: 4_000_000_000.0)
    with pytest.raises(TokenRefused, match="has expired"):
        await verifier.verify(provider.token(iat=1, exp=2))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"issuer": "http://idp.example", "audience": "x"}, "OIDC_ISSUER"),
        ({"issuer": "https://idp.example"}, "OIDC_AUDIENCE"),
        ({"issuer": "https://idp.example", "audience": "x", "algorithms": "RS256,none"}, "OIDC_ALGORITHMS"),
        ({"issuer": "https://idp.example", "audience": "x", "algorithms": "HS256"}, "OIDC_ALGORITHMS"),
        ({"issuer": "https://idp.example", "audience": "x", "roles": "boss"}, "OIDC_ROLES"),
        ({"issuer": "https://idp.example", "audience": "x", "roles": "boss=pope"}, "OIDC_ROLES"),
    ],
)
def test_settings_that_would_trust_too_much_end_the_start(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        OidcSettings(**settings)
