"""`lablet admin etcd …` against a real etcd, through a client that is not the services' own."""

import json
import sys

import pytest

from lablet_common.testing.etcd import EtcdServer, find_etcd

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if find_etcd() is None:
        pytest.skip("no etcd on this machine")
    with EtcdServer.start(tmp_path_factory.mktemp("etcd")) as running:
        yield running


@pytest.fixture
def etcd(lablet, server):
    address = server.endpoint.partition("://")[2] or server.endpoint

    def run(command: str, *arguments: str, **options) -> str:
        return lablet("admin", "etcd", command, *arguments, "--endpoint", address, **options)

    run.command = lablet
    return run


@pytest.fixture
def put(server):
    import etcd3

    host, _, port = (server.endpoint.partition("://")[2] or server.endpoint).rpartition(":")
    client = etcd3.Client(host, int(port))
    return lambda key, value: int(client.put(key, value).header.revision)


def test_status_members_and_alarms_tell_a_healthy_store(etcd):
    (row,) = json.loads(etcd("status", "-o", "json"))
    assert row["isLeader"]
    assert row["bytes"] > 0
    assert "this one" in etcd("status")
    (member,) = json.loads(etcd("members", "-o", "json"))
    assert member["clients"]
    assert "no alarms" in etcd("alarms")


def test_compaction_stops_at_the_lowest_bridge_cursor(etcd, put):
    etcd("compact", code=2)
    assert "no bridge cursors" in etcd.command.stderr
    lowest = put("/lablet/x", "1")
    put("/lablet/bridge/worker/cursor", json.dumps({"revision": lowest}))
    put("/lablet/bridge/request/cursor", json.dumps({"revision": lowest + 1}))
    assert f"compacted at revision {lowest}" in etcd("compact")
    beyond = put("/lablet/x", "2")
    etcd("compact", str(beyond), code=1, stdin="n\n")
    assert "the bridge of worker" in etcd.command.stderr
    assert f"compacted at revision {beyond}" in etcd("compact", str(beyond), "--yes")
    etcd("compact", "1", code=1)
    assert "etcd says" in etcd.command.stderr


def test_a_snapshot_is_a_whole_database_and_never_overwrites(etcd, tmp_path):
    file = tmp_path / "store.db"
    etcd("snapshot", str(file))
    content = file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600, "names, rosters and sealed secrets are in it"
    assert len(content) > 16_384
    assert content[16:20] == bytes.fromhex("edda0ced")  # the mark of a bbolt database
    etcd("snapshot", str(file), code=2)
    assert file.read_bytes() == content


def test_defragmentation_tells_what_it_gave_back(etcd):
    assert "MB →" in etcd("defragment")


def test_an_etcd_that_was_full_accepts_writes_again(etcd, put, server):
    import etcd3
    from etcd3.models import AlarmRequestAlarmAction, etcdserverpbAlarmType

    host, _, port = (server.endpoint.partition("://")[2] or server.endpoint).rpartition(":")
    client = etcd3.Client(host, int(port))
    member = client.status().header.member_id
    client.alarm(member, AlarmRequestAlarmAction.ACTIVATE, etcdserverpbAlarmType.NOSPACE)
    with pytest.raises(etcd3.errors.Etcd3Exception, match="space exceeded"):
        put("/lablet/full", "1")
    (raised,) = json.loads(etcd("alarms", "-o", "json", code=1))
    assert json.loads(etcd("disarm", "-o", "json")) == [raised]
    assert raised["alarm"] == "NOSPACE"
    put("/lablet/full", "2")
    assert "no alarm taken back" in etcd("disarm")


def test_a_member_with_another_alarm_is_not_called_mended(etcd, server):
    import etcd3
    from etcd3.models import AlarmRequestAlarmAction, etcdserverpbAlarmType

    host, _, port = (server.endpoint.partition("://")[2] or server.endpoint).rpartition(":")
    client = etcd3.Client(host, int(port))
    corrupt = client.status().header.member_id, etcdserverpbAlarmType.CORRUPT
    client.alarm(corrupt[0], AlarmRequestAlarmAction.ACTIVATE, corrupt[1])
    try:
        etcd("disarm", code=1)
        assert "CORRUPT" in etcd.command.stderr
        assert "CORRUPT" in etcd("alarms", code=1)
    finally:
        client.alarm(corrupt[0], AlarmRequestAlarmAction.DEACTIVATE, corrupt[1])


def test_nobody_at_the_address_ends_with_3(lablet):
    lablet("admin", "etcd", "status", "--endpoint", "127.0.0.1:1", code=3)
    assert "no answer from etcd at 127.0.0.1:1: Connection refused\n" in lablet.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ETCD_CA_CERT", "/nowhere/ca.pem", "ETCD_CA_CERT names no file: /nowhere/ca.pem"),
        ("ETCD_TIMEOUT", "soon", "ETCD_TIMEOUT is 'soon'"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(lablet, monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    lablet("admin", "etcd", "status", "--endpoint", "127.0.0.1:1", code=2)
    assert said in lablet.stderr


def test_without_the_package_it_says_how_to_get_it(lablet, monkeypatch):
    monkeypatch.setitem(sys.modules, "etcd3", None)
    lablet("admin", "etcd", "status", "--endpoint", "127.0.0.1:1", code=2)
    assert "lablet-client[admin]" in lablet.stderr
