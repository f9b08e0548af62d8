"""Rotating a mesh's tokens: the files say the same, and only the asked role's token changes."""

import hashlib
import json
from pathlib import Path

import pytest

from lablet_local.connection import write_connection
from lablet_local.folder import DataFolder, read_json
from lablet_local.keyring import ROLES, KeyRing
from lablet_local.tokens import run_rotate


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    found = DataFolder(tmp_path)
    found.create()
    keys = KeyRing(found)
    tokens = keys.api_tokens()
    keys.write_token_hashes(tokens)
    write_connection(found, "http://127.0.0.1:1", tokens)
    return found


def _hashes(folder: DataFolder) -> dict[str, str]:
    rows = json.loads((folder.secrets / "api-tokens.json").read_text())
    return {row["role"]: row["sha256"] for row in rows}


@pytest.mark.parametrize("role", ["learner", "admin", "all"])
def test_the_tokens_of_the_role_are_new_in_both_files_and_the_others_stay(folder: DataFolder, role: str) -> None:
    before = read_json(folder.connection)
    assert run_rotate(folder.root, role) == 0
    after = read_json(folder.connection)
    changed = {one for one in ROLES if before["tokens"][one] != after["tokens"][one]}
    assert changed == (set(ROLES) if role == "all" else {role})
    assert after["token"] == after["tokens"]["admin"]
    assert _hashes(folder) == {
        one: hashlib.sha256(token.encode()).hexdigest() for one, token in after["tokens"].items()
    }
    for path in (folder.connection, folder.secrets / "api-tokens.json"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_agents_tokens_outlive_a_rotation(folder: DataFolder) -> None:
    keys = KeyRing(folder)
    keys.write_token_hashes(keys.api_tokens(), hosts={"agents-001": "of-the-agent"})
    assert run_rotate(folder.root, "all") == 0
    rows = json.loads((folder.secrets / "api-tokens.json").read_text())
    assert [row["sha256"] for row in rows if row["role"] == "host"] == [hashlib.sha256(b"of-the-agent").hexdigest()]
    keys.write_token_hashes(keys.api_tokens(), hosts={})
    assert {row["role"] for row in json.loads((folder.secrets / "api-tokens.json").read_text())} == set(ROLES)


def test_an_unknown_role_and_a_folder_without_a_mesh_change_nothing(
    folder: DataFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_json(folder.connection)
    assert run_rotate(folder.root, "boss") == 2
    assert "there are admin, operator" in capsys.readouterr().err
    assert read_json(folder.connection) == before
    assert run_rotate(tmp_path / "elsewhere", "admin") == 2
    assert "lablet up" in capsys.readouterr().err
