"""`lablet admin export` and `import` against a real etcd."""

import asyncio
import json

import pytest

from lablet_common.objects import S3ObjectStore
from lablet_common.testing.etcd import EtcdServer, find_etcd
from lablet_common.testing.s3 import ACCESS_KEY, SECRET_KEY, s3_server, settings_for

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


def test_a_file_from_elsewhere_goes_in_and_comes_out(lablet, address, tmp_path):
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


async def change(url, content):
    """Puts the one object, or takes it away."""
    objects = S3ObjectStore(settings_for(url))
    await objects.ensure_bucket()
    if content is None:
        await objects.delete("objects/content")
    else:
        await objects.put("objects/content", content)
    await objects.close()


def test_a_backup_is_restored_into_an_empty_store_beside_its_bucket(lablet, address, tmp_path, monkeypatch):
    bucket, folder, given = tmp_path / "s3", tmp_path / "backup", tmp_path / "in.jsonl"
    bucket.mkdir()
    given.write_text(json.dumps({"format": "lablet-export/1"}) + "\n" + json.dumps(POOL) + "\n")
    lablet("admin", "import", str(given), "--endpoint", address)
    with s3_server(bucket) as url, EtcdServer.start(tmp_path / "other") as other:
        empty = other.endpoint.partition("://")[2] or other.endpoint
        for name, value in (("ENDPOINT", url), ("ACCESS_KEY", ACCESS_KEY), ("SECRET_KEY", SECRET_KEY)):
            monkeypatch.setenv(f"ARTIFACT_STORAGE_{name}", value)
        asyncio.run(change(url, b"content"))
        assert "1 resources" in lablet("admin", "backup", str(folder), "--endpoint", address)
        assert SECRET_KEY not in "".join(file.read_text(errors="replace") for file in folder.iterdir())
        asyncio.run(change(url, None))
        lablet("admin", "restore", str(folder), "--endpoint", empty, code=1)
        assert "objects/content (7 bytes) is missing" in lablet.stderr
        asyncio.run(change(url, b"content"))
        assert "1 resources and settings restored" in lablet("admin", "restore", str(folder), "--endpoint", empty)
        lablet("admin", "restore", str(folder), "--endpoint", empty, code=1)
        assert "exists already" in lablet.stderr
        lablet("admin", "backup", str(folder), "--endpoint", empty, code=2)
        assert "not empty" in lablet.stderr
