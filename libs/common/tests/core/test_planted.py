"""The search for planted secrets finds what is there."""

import base64
from pathlib import Path

import pytest

from lablet_common.testing.planted import files_below, found_in

SECRET = "whsec_0123456789abcdefghijklmnop"


@pytest.mark.parametrize("before", [b"", b"x", b"xy", b"xyz"])
@pytest.mark.parametrize("after", [b"", b"x", b"xy"])
def test_a_secret_is_found_in_clear_and_in_base64_wherever_it_stands(before: bytes, after: bytes) -> None:
    content = before + SECRET.encode() + after
    for place in (content, base64.b64encode(content), b"\0\xff" + base64.b64encode(content) + b"\n"):
        assert found_in({"hook": SECRET}, {"log": place}) == [("hook", "log")]
    assert found_in({"hook": SECRET}, {"log": before + SECRET[:-1].encode()}) == []


def test_a_secret_that_is_too_short_is_not_looked_for() -> None:
    with pytest.raises(ValueError, match="hook is too short"):
        found_in({"hook": "secret"}, {})


def test_every_file_is_read_but_those_left_out(tmp_path: Path) -> None:
    for name in ("a.log", "secrets/key", "deep/er/data.blk", "nats/nats.conf", "nats/store/1.blk"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    found = dict(files_below(tmp_path, ["secrets", "nats/*.conf"]))
    assert sorted(found) == ["a.log", "deep/er/data.blk", "nats/store/1.blk"]
    assert found["a.log"] == b"a.log"
