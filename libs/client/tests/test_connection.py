"""Where the address and the token come from, and where a token must not go."""

import json

import pytest

from lablet_client.connection import find_connection
from lablet_client.errors import NotConfigured


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / ".config" / "lablet"
    folder.mkdir(parents=True)
    body = {"url": "http://127.0.0.1:7000", "token": "t-admin", "tokens": {"admin": "t-admin", "learner": "t-learner"}}
    (folder / "connection.json").write_text(json.dumps(body))
    return {"HOME": str(tmp_path)}


def test_the_mesh_of_this_machine_is_found_by_its_file(home):
    found = find_connection(environ=home)
    assert (found.url, found.token) == ("http://127.0.0.1:7000", "t-admin")


def test_another_role_of_the_file_can_be_chosen(home):
    assert find_connection(role="learner", environ=home).token == "t-learner"
    with pytest.raises(NotConfigured, match="admin, learner"):
        find_connection(role="emperor", environ=home)


def test_a_role_that_was_asked_for_wins_over_the_environments_token(home):
    environ = home | {"LABLET_URL": "http://127.0.0.1:7000", "LABLET_TOKEN": "somebody-else"}
    assert find_connection(role="learner", environ=environ).token == "t-learner"
    assert find_connection(environ=environ).token == "somebody-else"
    with pytest.raises(NotConfigured, match="is not that of"):
        find_connection(role="learner", environ=environ | {"LABLET_URL": "https://lab.example"})


def test_the_environment_wins_over_the_file(home, tmp_path):
    secret = tmp_path / "token"
    secret.write_text("from-file\n")
    environ = home | {"LABLET_URL": "https://lab.example/", "LABLET_TOKEN_FILE": str(secret)}
    found = find_connection(environ=environ)
    assert (found.url, found.token) == ("https://lab.example", "from-file")


def test_the_file_s_token_is_not_sent_to_another_address(home):
    assert find_connection(environ=home | {"LABLET_URL": "https://evil.example"}).token is None
    assert find_connection("http://127.0.0.1:7000/", environ=home).token == "t-admin"


def test_a_link_or_pointer_to_the_file_is_followed(home, tmp_path):
    pointer = tmp_path / "pointer.json"
    pointer.write_text(json.dumps({"connection": f"{home['HOME']}/.config/lablet/connection.json"}))
    assert find_connection(environ=home | {"LABLET_CONNECTION": str(pointer)}).token == "t-admin"


def test_no_mesh_says_what_to_do(tmp_path):
    with pytest.raises(NotConfigured, match="lablet up"):
        find_connection(environ={"HOME": str(tmp_path)})


def test_a_broken_file_is_named(home, tmp_path):
    (tmp_path / ".config" / "lablet" / "connection.json").write_text("{")
    with pytest.raises(NotConfigured, match=r"connection\.json cannot be read"):
        find_connection(environ=home)


def test_an_address_without_a_scheme_is_refused(tmp_path):
    with pytest.raises(NotConfigured, match="LABLET_URL"):
        find_connection(environ={"HOME": str(tmp_path), "LABLET_URL": "localhost:8000"})
