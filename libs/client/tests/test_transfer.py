"""`lablet admin export` and `import` against a real etcd."""

import json

import pytest

from lablet_common.testing.etcd import EtcdServer, find_etcd

pytestmark = pytest.mark.integration
POOL = {
    "kind": "WorkerPool",
    "metadata": {"id": "default", "uid": "u", "createdAt": "2027-03-01T09:00:00Z"},
    "spec": {"template": "simulated", "max": 2},
    "status": {"phase": "Active"},
}


@pytest.fixture
def address(tmp_path):
    if find_etcd() is None:
        pytest.skip("no etcd on this machine")
    with EtcdServer.start(tmp_path / "etcd") as running:
        yield running.endpoint.partition("://")[2] or running.endpoint


def test_a_file_from_elsewhere_goes_in_and_comes_out(lablet, address, tmp_path, monkeypatch):
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl.gz"
    given.write_text(json.dumps({"format": "lablet-export/1"}) + "\n" + json.dumps(POOL) + "\n")
    assert "is sound: 1" in lablet("admin", "import", str(given), "--check", "--endpoint", address)
    assert "1 resources and settings imported" in lablet("admin", "import", str(given), "--endpoint", address)
    lablet("admin", "import", str(given), "--endpoint", address, code=1)
    assert "/pools/default exists already" in lablet.stderr
    assert "1 were there already" in lablet("admin", "import", str(given), "--skip-existing", "--endpoint", address)
    assert "1 resources and settings in" in lablet("admin", "export", str(out), "--endpoint", address)
    assert out.stat().st_mode & 0o077 == 0, "nobody else reads it"
    assert "is sound: 1" in lablet("admin", "import", str(out), "--check", "--endpoint", address)
    lablet("admin", "export", str(out), "--endpoint", address, code=2)
    assert "exists already" in lablet.stderr


def test_a_bad_file_is_refused_line_by_line(lablet, tmp_path):
    given = tmp_path / "in.jsonl"
    given.write_text('{"format": "lablet-export/1"}\n{"kind": "Dragon"}\n')
    lablet("admin", "import", str(given), code=1)
    assert "line 2: there is no kind 'Dragon'" in lablet.stderr
