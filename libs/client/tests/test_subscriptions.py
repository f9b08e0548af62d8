"""Subscriptions and dead letters, typed against the real gateway."""

import json
import re
from datetime import UTC, datetime

import pytest

from lablet_client import sync
from lablet_client.errors import Conflict, Invalid, NotFound
from lablet_common.bus.messages import DeadLetter
from lablet_common.resources.subscription import SubscriptionChange

pytestmark = pytest.mark.integration
SINK = "http://127.0.0.1:9/lms"


def letter(consumer: str, sequence: int) -> DeadLetter:
    return DeadLetter(
        "lablet.event.default.reservation.-.rsv-a", {"ce-id": str(sequence), "ce-tenant": "default"}, b"{}", "EVENTS",
        sequence, consumer, "422 Unprocessable", 300, datetime(2027, 3, 1, tzinfo=UTC),
    )  # fmt: skip


def test_a_subscription_is_made_looked_at_paused_and_ended(typed, tmp_path):
    told = typed("subscription", "create", "lms", SINK, "--type", "io.lablet.reservation.", "-l", "course=x")
    assert "lms sends to http://127.0.0.1:9/lms" in told
    assert "shown this once: whsec_" in told
    assert "lms" in typed("subscription", "list")
    assert SINK in typed("get", "subscriptions", "-o", "json")
    shown = typed("subscription", "get", "lms")
    assert "io.lablet.reservation." in shown
    assert "whsec_" not in shown + typed("subscription", "get", "lms", "-o", "json")
    assert "Paused" in typed("subscription", "pause", "lms")
    assert "Active" in typed("subscription", "resume", "lms")
    file = tmp_path / "secret"
    file.write_text("whsec_longer-than-any-that-is-made-and-readable-by-others-besides-" * 3)
    file.chmod(0o644)
    assert "whsec_" not in typed("subscription", "rotate-secret", "lms", "--secret-file", str(file))
    assert re.fullmatch(r"whsec_[\w+/=]{32,60}\n", file.read_text())
    assert file.stat().st_mode & 0o777 == 0o600
    typed("subscription", "create", "lms", SINK, code=1)
    assert "already" in typed.stderr
    assert "deleted" in typed("subscription", "delete", "lms")
    typed("subscription", "get", "lms", code=1)


def test_a_misspelt_sink_is_refused_with_the_reason(typed):
    typed("subscription", "create", "bad", "lms.example.org", code=1)
    assert "write https://host/path" in typed.stderr


def test_dead_letters_are_sent_again_and_deleted(typed, mesh):
    typed("subscription", "create", "grader", SINK)
    mesh.letters.letters = {n: letter("webhook-grader" if n < 3 else "scheduler", n) for n in range(1, 7)}
    only = ("--consumer", "webhook-grader")
    assert [row["sequence"] for row in json.loads(typed("dlq", "list", *only, "-o", "json"))] == [1, 2]
    raw = json.loads(typed("dlq", "show", "4", "-o", "json"))
    shown = typed("dlq", "show", "4")
    moment = datetime.fromisoformat(raw["at"]).astimezone()
    assert f"{moment:%H:%M}" in shown, "times are the reader's own"
    assert raw["at"] not in shown
    assert raw["reason"] in shown
    assert "2 dead letters of grader" in typed("subscription", "redeliver", "grader")
    assert "no dead letters" in typed("subscription", "redeliver", "grader")
    assert "4 was sent again" in typed("dlq", "replay", "4")
    assert "1 dead letter deleted" in typed("dlq", "purge", "3")
    typed("dlq", "purge", code=2)
    typed("dlq", "purge", "5", "--all", code=2)
    assert "2 dead letters deleted" in typed("dlq", "purge", "--all")
    assert mesh.letters.letters == {}
    typed("subscription", "delete", "grader")


def test_the_sdk_has_the_same_in_both_faces(mesh):
    with sync.Client(mesh.url, mesh.token("admin")) as lablet:
        made = lablet.subscriptions.create("sdk", SINK, subjects=["reservation/"], mode="binary")
        assert made.secret.startswith("whsec_")
        assert lablet.subscriptions.get("sdk").spec.subjects == ("reservation/",)
        changed = lablet.subscriptions.change("sdk", SubscriptionChange(types=("io.lablet.instance.",)))
        assert changed.spec.types == ("io.lablet.instance.",)
        assert [found.id for found in lablet.subscriptions.list()] == ["sdk"]
        assert lablet.subscriptions.rotate_secret("sdk").secret != made.secret
        with pytest.raises(Conflict):
            lablet.subscriptions.create("sdk", SINK)
        with pytest.raises(Invalid):
            lablet.subscriptions.create("x", "http://169.254.169.254/latest")
        lablet.subscriptions.delete("sdk")
        with pytest.raises(NotFound):
            lablet.subscriptions.get("sdk")
