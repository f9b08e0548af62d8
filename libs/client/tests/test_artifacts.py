"""What labs have left behind, through client and command: listed, fetched with its digest checked, linked, deleted."""

import hashlib
import json

import httpx
import pytest

from lablet_client.artifacts import Damaged
from lablet_client.errors import Conflict

WORK = b"hostname r1\n"
DIGEST = hashlib.sha256(WORK).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


def artifact(digest: str = DIGEST, *names: str) -> dict:
    references = [
        {"subject": f"instance/{name}", "role": "collected", "name": "r1.cfg", "attempt": 1}
        for name in names or ["ins-a-1"]
    ]
    return {
        "kind": "Artifact",
        "metadata": {"id": digest, "uid": digest, "createdAt": "2027-03-01T07:00:00Z"},
        "spec": {"digest": digest, "bytes": len(WORK), "mediaType": "text/plain"},
        "status": {"phase": "Stored", "references": references},
    }


def file(role: str, name: str) -> dict:
    return {"name": name, "role": role, "digest": DIGEST, "bytes": len(WORK), "mediaType": "text/plain", "attempt": 1}


def page(*items: dict, cursor: str | None = None) -> dict:
    return {"items": list(items), "nextCursor": cursor, "resourceVersion": "7"}


async def test_a_download_that_is_not_what_its_digest_says_is_refused(client, scripted):
    scripted.on("GET", f"/artifacts/{DIGEST}", httpx.Response(200, content=WORK))
    assert await client.artifacts.download(DIGEST) == WORK
    scripted.on("GET", f"/artifacts/{OTHER}", httpx.Response(200, content=WORK))
    with pytest.raises(Damaged, match="download it again"):
        await client.artifacts.download(OTHER)


async def test_the_seat_that_left_it_is_named_where_somebody_asks_for_that(client, scripted):
    scripted.on("GET", f"/artifacts/{DIGEST}", httpx.Response(200, content=WORK))
    scripted.on(
        "GET",
        f"/artifacts/{DIGEST}/link",
        {
            "url": "https://s3",
            "expiresAt": "2027-03-01T08:00:00Z",
            "digest": DIGEST,
            "bytes": 1,
            "mediaType": "text/plain",
        },
    )
    await client.artifacts.download(DIGEST, instance="ins-a-1")
    await client.artifacts.link(DIGEST, instance="ins-a-1")
    await client.artifacts.download(DIGEST)
    asked = [scripted.sent("GET", f"/artifacts/{DIGEST}{path}") for path in ("", "/link")]
    assert [one.url.params.get("instance") for one in (*asked[0], *asked[1])] == ["ins-a-1", None, "ins-a-1"]


async def test_the_list_goes_on_over_its_pages(client, scripted):
    scripted.on("GET", "/artifacts", page(artifact(), cursor="more"), page(artifact(OTHER)))
    assert [one.id async for one in client.artifacts.list()] == [DIGEST, OTHER]


async def test_a_deletion_names_its_role_and_tells_who_needs_it(client, scripted, problem):
    scripted.on("DELETE", f"/artifacts/{DIGEST}", problem(409, "ins-a-1 is Running", slug="artifact-in-use"))
    with pytest.raises(Conflict, match="ins-a-1 is Running"):
        await client.artifacts.delete(DIGEST)
    scripted.on("DELETE", "/instances/ins-a-1/artifacts", {"kind": "Request"})
    await client.artifacts.delete_of("ins-a-1", role="collected")
    (sent,) = scripted.sent("DELETE", "/instances/ins-a-1/artifacts")
    assert dict(sent.url.params) == {"role": "collected"}


def test_the_whole_tenants_files_are_listed_or_one_instances(lablet, scripted):
    scripted.on("GET", "/artifacts", page(artifact(DIGEST, "ins-a-1", "ins-b-1")))
    rows = [line.split() for line in lablet("artifact", "list").splitlines()[1:]]
    assert [row[0] for row in rows] == ["instance/ins-a-1", "instance/ins-b-1"]
    assert rows[0][1:] == ["collected", "r1.cfg", "1", str(len(WORK)), DIGEST[:12]]
    scripted.on(
        "GET", "/instances/ins-a-1/artifacts", {"items": [file("collected", "r1.cfg"), file("exported", "lab.yaml")]}
    )
    found = json.loads(lablet("artifact", "list", "ins-a-1", "--role", "exported", "-o", "json"))
    assert [one["name"] for one in found] == ["lab.yaml"]


def test_an_instances_files_land_in_a_folder_by_attempt_and_role(lablet, scripted, tmp_path):
    evil = file("collected", "../../r1.cfg")
    scripted.on("GET", "/instances/ins-a-1/artifacts", {"items": [evil, file("exported", "lab.yaml")]})
    scripted.on("GET", f"/artifacts/{DIGEST}", httpx.Response(200, content=WORK))
    lablet("artifact", "get", "ins-a-1", "--to", str(tmp_path / "work"))
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert written == ["work/1/collected/r1.cfg", "work/1/exported/lab.yaml"]
    asked = scripted.sent("GET", f"/artifacts/{DIGEST}")
    assert {request.url.params["instance"] for request in asked} == {"ins-a-1"}


def test_the_list_of_everything_says_how_many_older_uses_it_leaves_out(lablet, scripted):
    shared = artifact()
    shared["status"]["olderReferences"] = 40
    scripted.on("GET", "/artifacts", page(shared, artifact(OTHER)))
    assert "ins-a-1" in lablet("artifact", "list")
    assert "40 older uses are not listed" in lablet.stderr


def test_one_object_goes_to_standard_output_by_the_beginning_of_its_digest(lablet, scripted):
    scripted.on("GET", "/artifacts", page(artifact(), artifact(OTHER)))
    scripted.on("GET", f"/artifacts/{DIGEST}", httpx.Response(200, content=WORK))
    assert lablet("artifact", "get", DIGEST[:8]) == WORK.decode()
    lablet("artifact", "get", "zz", code=2)
    assert "none begins so" in lablet.stderr
    scripted.on("GET", f"/artifacts/{DIGEST}/link", {
        "url": "http://s3/x", "expiresAt": "2027-03-01T08:15:00Z", "digest": DIGEST, "bytes": 1, "mediaType": "text/plain",
    })  # fmt: skip
    assert lablet("artifact", "get", DIGEST, "--link").strip() == "http://s3/x"


def test_a_deletion_is_asked_about_first(lablet, scripted):
    scripted.on("DELETE", "/instances/ins-a-1/artifacts", {"kind": "Request"})
    lablet("artifact", "delete", "ins-a-1", code=1, stdin="n\n")
    assert scripted.sent("DELETE", "/instances/ins-a-1/artifacts") == []
    assert "is deleted" in lablet("artifact", "delete", "ins-a-1", "--yes")
    lablet("artifact", "delete", "ins-a-1", "--role", "nonsense", "--yes", code=2)
    assert "topology, rendered" in lablet.stderr


def test_a_version_is_archived_by_its_full_name(lablet, scripted):
    definition = {
        "kind": "Definition",
        "metadata": {"id": "ospf@1.0.0", "uid": "u", "createdAt": "2027-03-01T07:00:00Z"},
        "spec": {
            "name": "ospf", "version": "1.0.0", "topology": {"digest": DIGEST, "bytes": 1},
            "requirements": {"cpuCores": 1, "memoryGb": 1, "nodeCount": 1},
        },
        "status": {"phase": "Archived"},
    }  # fmt: skip
    scripted.on("POST", "/definitions/ospf/versions/1.0.0/archive", definition)
    scripted.on("GET", "/definitions/ospf/versions/1.0.0", definition)
    assert "Archived" in lablet("definition", "archive", "ospf@1.0.0")
    lablet("definition", "archive", "ospf", code=2)
