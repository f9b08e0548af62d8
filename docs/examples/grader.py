"""A grader outside Lablet: hears over NATS that a lab waits for its grade, reads what was collected, answers over NATS.

Needs nats-py and nothing of Lablet. Environment: NATS_URL, NATS_USER, NATS_PASSWORD (the system's own user), LABLET_URL,
LABLET_TOKEN (role `machine`), LABLET_TENANT (`default`), EXPECTED (a line that R1 must have in its configuration).
It passes a lab when the line is there. It may be started again at any time: the same answer twice is one.
Not here: labs that began to wait while it was not running (read `GET /api/v1/instances` at the start for those).
"""

import asyncio
import json
import os
import urllib.request
from typing import Any

import nats
from nats.aio.msg import Msg

TENANT = os.environ.get("LABLET_TENANT", "default")
EXPECTED = os.environ.get("EXPECTED", "hostname")
GRADING = "io.lablet.instance.grading.v1"


def fetch(path: str) -> bytes:
    request = urllib.request.Request(  # noqa: S310 - the address is the operator's own
        f"{os.environ['LABLET_URL']}/api/v1{path}", headers={"Authorization": f"Bearer {os.environ['LABLET_TOKEN']}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - see above
        body: bytes = answer.read()
        return body


def grade(instance: str) -> dict[str, Any]:
    """The verdict on one lab, from its collected configurations; the pod says which devices there should be."""
    pod = json.loads(fetch(f"/instances/{instance}/pod"))
    files = json.loads(fetch(f"/instances/{instance}/artifacts"))["items"]
    collected = {file["name"].lower(): file["digest"] for file in files if file["role"] == "collected"}
    devices = [device["label"] for device in pod["devices"] if device["ports"]]
    found = [d for d in devices if EXPECTED in fetch_text(collected.get(f"{d.lower()}.cfg"))]
    points = float(len(found))
    return {"instance": instance, "score": {"passed": bool(found), "points": points, "maximum": float(len(devices))}}


def fetch_text(digest: str | None) -> str:
    return fetch(f"/artifacts/{digest}").decode(errors="replace") if digest else ""


async def main() -> None:
    user = os.environ["NATS_USER"]
    client = await nats.connect(
        os.environ["NATS_URL"],
        user=user,
        password=os.environ["NATS_PASSWORD"],
        inbox_prefix=f"_INBOX_{user}".encode(),
        max_reconnect_attempts=-1,
    )

    async def heard(message: Msg) -> None:
        event = message.headers or {}
        if event.get("ce-type") != GRADING:
            return
        instance = event["ce-subject"].partition("/")[2]
        verdict = await asyncio.to_thread(grade, instance)
        headers = {
            "ce-specversion": "1.0",
            "ce-id": f"graded-{event['ce-id']}",  # the same answer however often it is given
            "ce-source": "/sample-grader",
            "ce-type": "io.lablet.assessment.grading.completed.v1",
            "ce-subject": f"instance/{instance}",
            "ce-correlationid": event.get("ce-correlationid", instance),
            "content-type": "application/json",
        }
        # A request, because INGRESS acknowledges: without an answer the event was not stored.
        await client.request(f"lablet.ingress.{TENANT}.instance", json.dumps(verdict).encode(), 10, headers=headers)
        print(f"graded {instance}: {verdict['score']}", flush=True)

    async def refused(message: Msg) -> None:
        print(f"refused: {message.data.decode(errors='replace')}", flush=True)

    await client.subscribe(f"lablet.ingress-result.{TENANT}", cb=refused)
    await client.subscribe(f"lablet.event.{TENANT}.instance.>", cb=heard)
    await client.flush()
    print("listening", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
