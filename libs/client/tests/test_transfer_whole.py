"""What `lablet admin export` writes is all that is to be kept: one of everything goes through two etcds, and comes out of the
second byte by byte as out of the first.

What must differ is named here: the revision of the file and of each resource, which are those of the store that it came
from. So is what is not carried, and why; a key that is neither carried nor named fails.
"""

import asyncio
import gzip
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lablet_common.quotas import Ledger, Limits, Quota, Usage
from lablet_common.references import reference_key
from lablet_common.resources import schema
from lablet_common.resources.artifact import Artifact, ArtifactPhase, ArtifactSpec, ArtifactStatus, Reference
from lablet_common.resources.kinds import (
    ARTIFACT,
    CLOCK_KEY,
    KINDS,
    POOL,
    SUBSCRIPTION,
    cursor_key,
    gate_key,
    key_use_key,
    ledger_key,
    quota_key,
)
from lablet_common.resources.model import Metadata
from lablet_common.resources.subscription import Beginning, Subscription, SubscriptionSpec, SubscriptionStatus
from lablet_common.service import open_store
from lablet_common.settings import EtcdSettings
from lablet_common.store.changes import encode
from lablet_common.testing.etcd import EtcdServer, find_etcd

pytestmark = pytest.mark.integration
RELEASE = Path(__file__).parents[3] / "tests" / "twins" / "releases" / "0.1.0.jsonl"
"""A morning as that release stored it, with one of each kind."""
NOW = datetime(2027, 3, 1, 10, tzinfo=UTC)
DIGEST = "c" * 64
NOT_CARRIED = {
    cursor_key("pool"): "bridges begin anew: everything is told as new",
    gate_key("default"): "only compared; the controller puts it with its first change",
    key_use_key("default", "key-a"): "said again with the key's next use",
}


def use(number: int) -> Reference:
    return Reference(subject=f"instance/ins-done-{number}", role="collected", name="r1.cfg", attempt=1, at=NOW)


def everything() -> dict[str, bytes]:
    """By key, what the first store holds; the pool has fields that only a later release knows."""
    found: dict[str, bytes] = {}
    for line in map(json.loads, RELEASE.read_text(encoding="utf-8").splitlines()[1:]):
        if "key" in line:
            value = line["value"]
            found[line["key"]] = (json.dumps(value) if isinstance(value, dict) else value).encode()
    pool = json.loads(found[POOL.key("default")])
    found[POOL.key("default")] = json.dumps(
        pool | {"colour": "blue", "spec": pool["spec"] | {"shade": "dark"}}
    ).encode()
    content = Artifact(
        metadata=Metadata(id=DIGEST, uid="c", created_at=NOW, labels={"course": "netzwerke-ü"}),
        spec=ArtifactSpec(digest=DIGEST, bytes=7),
        status=ArtifactStatus(phase=ArtifactPhase.STORED, references=(use(3), use(2)), older_references=2),
    )
    webhook = Subscription(
        metadata=Metadata(id="grades", uid="g", created_at=NOW),
        spec=SubscriptionSpec(sink="https://grades.example.org", types=("io.lablet.",), paused=True, tenant="*"),
        status=SubscriptionStatus(
            beginning=Beginning(epoch="e", number=41), delivered=40, secret="k1:sealed", previous_secret="k0:sealed"
        ),
    )
    limits = Quota(tenant=Limits(open_seats=4, longest_slot_minutes=90), owner=Limits(open_seats=1), retention_days=7.5)
    return found | {
        ARTIFACT.key_of(content): encode(content),
        SUBSCRIPTION.key_of(webhook): encode(webhook),
        **{reference_key("default", DIGEST, use(number)): use(number).to_json() for number in (0, 1)},
        quota_key("acme"): limits.to_json(),
        ledger_key("default"): Ledger(owners={"teacher": Usage(seats=19, seat_minutes=1140)}).to_json(),
        CLOCK_KEY: b'{"origin": "2027-03-01T09:00:00Z", "speed": 60}',
        **dict.fromkeys(NOT_CARRIED, b'{"revision": 3}'),
    }


async def fill(address: str, values: dict[str, bytes]) -> None:
    store = open_store(EtcdSettings(endpoints=address))
    for key, value in values.items():
        await store.put(key, value)
    await store.close()


async def held(address: str) -> dict[str, bytes]:
    store = open_store(EtcdSettings(endpoints=address))
    found = {kv.key: kv.value for kv in (await store.range("/")).items}
    await store.close()
    return found


@pytest.fixture
def addresses(tmp_path: Path):
    if find_etcd() is None:
        pytest.skip("no etcd on this machine")
    with EtcdServer.start(tmp_path / "one") as one, EtcdServer.start(tmp_path / "two") as two:
        yield [server.endpoint.partition("://")[2] or server.endpoint for server in (one, two)]


def but_for_revisions(exported: bytes) -> bytes:
    lines = exported.replace(b'{"format": "lablet-export/1", "revision": ', b"\0", 1).splitlines()
    assert re.fullmatch(rb"\0\d+}", lines[0]), "the head says the format and the revision, and nothing else"
    return b"\n".join([re.sub(rb'"resourceVersion":"\d+"', b'"resourceVersion":""', line) for line in lines[1:]])


def stored(key: str, value: bytes) -> object:
    """What the second store is to hold: resources byte by byte, in the newest schema; settings by what they say."""
    kind = next((kind for kind in (*KINDS.values(), SUBSCRIPTION) if key.startswith(kind.prefix)), None)
    return encode(schema.read(kind.model, value)) if kind else json.loads(value)


def test_one_of_everything_comes_out_of_another_store_byte_by_byte(lablet, addresses, tmp_path):
    one, two = addresses
    given = everything()
    asyncio.run(fill(one, given))
    exported: list[bytes] = []
    for address in (one, two):
        if exported:
            lablet("admin", "import", str(tmp_path / "0.jsonl.gz"), "--endpoint", address)
        file = tmp_path / f"{len(exported)}.jsonl.gz"
        lablet("admin", "export", str(file), "--endpoint", address)
        exported.append(gzip.decompress(file.read_bytes()))
    assert but_for_revisions(exported[1]) == but_for_revisions(exported[0])

    kept = asyncio.run(held(two))
    assert given.keys() - kept.keys() == set(NOT_CARRIED)
    assert kept.keys() - given.keys() == set(), "nothing is made up"
    pointers = {key for key in given if key.startswith("/inbox/")}
    assert pointers, "a request waits for its owner"
    for key in pointers:
        assert json.loads(given[key]).items() <= json.loads(kept[key]).items(), "and does so again, at a place in line"
    for key in given.keys() - NOT_CARRIED.keys() - pointers:
        expected = stored(key, given[key])
        assert (kept[key] if isinstance(expected, bytes) else json.loads(kept[key])) == expected, key
    assert json.loads(kept[POOL.key("default")])["colour"] == "blue", "what a later release has added"
    assert json.loads(kept[POOL.key("default")])["spec"]["shade"] == "dark", "wherever it stands"


def test_it_is_one_of_each_kind_and_of_each_setting():
    given = everything()
    for kind in (*KINDS.values(), SUBSCRIPTION):
        assert any(key.startswith(kind.prefix) for key in given), kind.name
    for prefix in ("/quotas/", "/ledgers/", "/references/", CLOCK_KEY):
        assert any(key.startswith(prefix) for key in given), prefix
