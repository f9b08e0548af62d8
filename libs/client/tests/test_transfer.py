"""`lablet admin export` and `import` against a real etcd."""

import asyncio
import json

import pytest

from lablet_common.bus import Bus
from lablet_common.bus.permissions import NatsUser, Permissions, ServerTls, inbox_prefix, service_user
from lablet_common.events import CloudEvent, Outgoing, subjects
from lablet_common.objects import S3ObjectStore
from lablet_common.resources import Service
from lablet_common.settings import NatsSettings
from lablet_common.store import Compacted, Conflict
from lablet_common.store.changes import Unreadable
from lablet_common.testing.authority import Authority
from lablet_common.testing.etcd import EtcdServer, find_etcd
from lablet_common.testing.nats import NatsServer
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


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Compacted(7), "etcd was compacted meanwhile"),
        (Conflict(["/pools/default"], 9), "/pools/default has changed"),
        (Unreadable("/pools/odd", "no JSON"), "the value of /pools/odd cannot be read: no JSON"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_the_store_says_is_told_and_no_half_file_is_left(lablet, tmp_path, monkeypatch, fault, said):
    async def fails(_):
        yield b"{}"
        raise fault

    # the one that imports from the other first: else it would keep what the other was given
    monkeypatch.setattr("lablet_common.backup.export_lines", fails)
    monkeypatch.setattr("lablet_common.transfer.export_lines", fails)
    lablet("admin", "export", str(tmp_path / "out.jsonl"), "--endpoint", "127.0.0.1:9", code=1)
    assert said in lablet.stderr
    lablet("admin", "backup", str(tmp_path / "backup"), "--without-streams", "--endpoint", "127.0.0.1:9", code=1)
    assert said in lablet.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_half_file_of_an_export_that_is_under_way_is_left_alone(lablet, tmp_path):
    """Two that write one file: the later one is refused, and the earlier one has its own."""
    part = tmp_path / "out.jsonl.part"
    part.write_text("the other's")
    lablet("admin", "export", str(tmp_path / "out.jsonl"), "--endpoint", "127.0.0.1:9", code=2)
    assert f"{part}: File exists" in lablet.stderr
    assert part.read_text() == "the other's"


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
        monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:9")
        lablet("admin", "backup", str(folder), "--endpoint", address, code=3)
        assert "NATS cannot be reached" in lablet.stderr
        assert "Another address: set NATS_URL." in lablet.stderr
        assert "--without-streams" in lablet.stderr
        assert not folder.exists(), "what is not whole is not begun"
        assert "1 resources" in lablet("admin", "backup", str(folder), "--without-streams", "--endpoint", address)
        assert json.loads((folder / "streams.json").read_text()) == {}
        assert SECRET_KEY not in "".join(file.read_text(errors="replace") for file in folder.iterdir())
        asyncio.run(change(url, None))
        lablet("admin", "restore", str(folder), "--endpoint", empty, code=1)
        assert "objects/content (7 bytes) is missing" in lablet.stderr
        asyncio.run(change(url, b"content"))
        assert "1 resources and settings restored" in lablet("admin", "restore", str(folder), "--endpoint", empty)
        lablet("admin", "restore", str(folder), "--endpoint", empty, code=1)
        assert "exists already" in lablet.stderr
        assert "restored, 1 were there already" in lablet(
            "admin", "restore", str(folder), "--skip-existing", "--endpoint", empty
        )
        lablet("admin", "backup", str(folder), "--without-streams", "--endpoint", empty, code=2)
        assert "not empty" in lablet.stderr


@pytest.fixture
def away(address, tmp_path, monkeypatch):
    """etcd and a bucket, with a mesh nowhere near: everything is where the environment says."""
    bucket = tmp_path / "s3"
    bucket.mkdir()
    with s3_server(bucket) as url:
        for name, value in (("ENDPOINT", url), ("ACCESS_KEY", ACCESS_KEY), ("SECRET_KEY", SECRET_KEY)):
            monkeypatch.setenv(f"ARTIFACT_STORAGE_{name}", value)
        asyncio.run(change(url, b"content"))
        yield address


async def tell(settings, service, count):
    """Makes the streams that the service uses, and says so many things about reservations."""
    bus = Bus(settings, service)
    await bus.connect()
    for number in range(count):
        event = CloudEvent({"id": f"e-{number}", "source": "/s", "type": "t", "subject": f"reservation/r-{number}"})
        await bus.publish(
            Outgoing(subjects.event_subject("default", "reservation", "-", f"r-{number}"), event, f"e-{number}")
        )
    await bus.close()


def environment(monkeypatch, settings):
    for name in ("URL", "USER", "PASSWORD", "CA_CERT"):
        monkeypatch.delenv(f"NATS_{name}", raising=False)
    given = settings.model_dump(exclude_none=True) | {"password": settings.password.get_secret_value()}
    for name in ("url", "user", "password", "ca_cert"):
        if name in given:
            monkeypatch.setenv(f"NATS_{name.upper()}", str(given[name]))


def test_a_backup_says_how_far_the_streams_of_a_guarded_server_had_come(lablet, away, tmp_path, monkeypatch):
    authority = Authority(tmp_path, "authority")
    users = [service_user(service, f"pw-{service}") for service in Service]
    with NatsServer.start(tmp_path / "nats", users=users, tls=ServerTls(*authority.issue("nats", "127.0.0.1"))) as nats:

        def login(user, **more):
            given = {"url": nats.url, "user": user, "password": f"pw-{user}", "ca_cert": authority.cert} | more
            return NatsSettings(**given)

        asyncio.run(tell(login("api-gateway"), Service.GATEWAY, 0))
        asyncio.run(tell(login("scheduler"), Service.SCHEDULER, 2))
        faults = [
            (login("scheduler"), 2, "does not let the user scheduler ask how far the stream INGRESS has come"),
            (login("api-gateway", password="other"), 2, "refuses the user api-gateway"),
            (login("api-gateway", ca_cert=None), 3, "NATS_CA_CERT names the authority to trust"),
        ]
        for number, (settings, code, words) in enumerate(faults):
            environment(monkeypatch, settings)
            folder = tmp_path / f"not-{number}"
            lablet("admin", "backup", str(folder), "--endpoint", away, code=code)
            assert words in lablet.stderr
            assert "--without-streams" in lablet.stderr
            assert not folder.exists()
        environment(monkeypatch, login("api-gateway"))
        lablet("admin", "backup", str(tmp_path / "whole"), "--endpoint", away)
        streams = json.loads((tmp_path / "whole" / "streams.json").read_text())
        assert streams["EVENTS"] == {"first": 1, "last": 2}
        assert {"DLQ", "INGRESS", "INTENTS_SCHEDULER"} <= streams.keys()


def test_on_a_mesh_s_machine_the_observer_asks(lablet, away, tmp_path, monkeypatch):
    watcher = Permissions(("$JS.API.STREAM.INFO.*",), (f"{inbox_prefix('observer')}.>",))
    users = [service_user(Service.SCHEDULER, "pw"), NatsUser("observer", "seen", watcher)]
    monkeypatch.delenv("NATS_URL", raising=False)
    with NatsServer.start(tmp_path / "nats", users=users) as nats:
        asyncio.run(tell(NatsSettings(url=nats.url, user="scheduler", password="pw"), Service.SCHEDULER, 1))
        data = tmp_path / "mesh"
        (data / "secrets").mkdir(parents=True)
        (data / "secrets" / "nats-observer.password").write_text("seen\n")
        addresses = {"nats": nats.url, "etcd": f"http://{away}", "scheduler-1": "http://127.0.0.1:9"}
        (data / "mesh.json").write_text(json.dumps({"addresses": addresses}))
        connection = tmp_path / "connection.json"
        connection.write_text(json.dumps({"url": "http://127.0.0.1:9", "data": str(data), "tokens": {"admin": "t"}}))
        monkeypatch.setenv("LABLET_CONNECTION", str(connection))
        lablet("admin", "backup", str(tmp_path / "whole"))
        assert json.loads((tmp_path / "whole" / "streams.json").read_text())["EVENTS"] == {"first": 1, "last": 1}
        lablet("admin", "backup", str(tmp_path / "other"), "--endpoint", away, code=2)
        assert "nobody says which NATS belongs to that etcd: set NATS_URL" in lablet.stderr
        monkeypatch.setenv("ETCD_ENDPOINTS", away)
        lablet("admin", "backup", str(tmp_path / "other"), code=2)
        assert "set NATS_URL" in lablet.stderr
        monkeypatch.delenv("ETCD_ENDPOINTS")
        (data / "secrets" / "nats-observer.password").unlink()
        lablet("admin", "backup", str(tmp_path / "other"), code=2)
        assert "the password of NATS's observer cannot be read" in lablet.stderr
