"""`lablet status` of a mesh elsewhere: how it ends when that cannot be asked."""

import json

import pytest

from lablet_client.errors import Forbidden, Unreachable
from lablet_local import remote_status


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unreachable("http://lablet.test", "refused"), 3),
        (Forbidden(403, {"title": "no", "detail": "has no right to this"}), 1),
    ],
)
def test_who_does_not_answer_is_told_from_who_refuses(monkeypatch, capsys, error, code):
    async def ask():
        raise error

    monkeypatch.setattr(remote_status, "_ask", ask)
    assert remote_status.run_remote_status() == code
    told = capsys.readouterr()
    assert told.out == ""
    assert str(error) in told.err
    assert remote_status.run_remote_status(as_json=True) == code
    assert json.loads(capsys.readouterr().out) == {"running": False, "cause": str(error)}
