"""The token file: hashes only, read again when it changes, the last good state while it is damaged."""

import hashlib
import json
from pathlib import Path

import pytest

from lablet_gateway.identity import Principal, Role
from lablet_gateway.identity import token_file as module
from lablet_gateway.identity.token_file import TokenFile


@pytest.fixture(autouse=True)
def looks_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.0)


def _write(path: Path, *tokens: str) -> None:
    entries = [
        {"name": token, "role": "learner", "tenant": "default", "sha256": hashlib.sha256(token.encode()).hexdigest()}
        for token in tokens
    ]
    path.write_text(json.dumps(entries))


async def test_a_token_proves_the_principal_of_its_entry(tmp_path: Path) -> None:
    _write(tmp_path / "t", "one", "two")
    assert await TokenFile(tmp_path / "t").verify("two") == Principal("two", Role.LEARNER, "default")
    assert await TokenFile(tmp_path / "t").verify("three") is None


async def test_a_rotated_token_counts_at_once_and_the_old_one_no_more(tmp_path: Path) -> None:
    path = tmp_path / "t"
    _write(path, "old")
    verifier = TokenFile(path)
    assert await verifier.verify("old")
    _write(path, "another")
    assert await verifier.verify("another")
    assert await verifier.verify("old") is None


async def test_a_damaged_file_leaves_the_last_good_state_in_force(tmp_path: Path) -> None:
    path = tmp_path / "t"
    _write(path, "one")
    verifier = TokenFile(path)
    assert await verifier.verify("one")
    path.write_text('[{"name": "x"')
    assert await verifier.verify("one")
    path.unlink()
    assert await verifier.verify("one")


async def test_without_a_file_everybody_is_refused(tmp_path: Path) -> None:
    assert await TokenFile(None).verify("") is None
    assert await TokenFile(tmp_path / "missing").verify("one") is None
