"""The events, from their AsyncAPI document: one line for each type."""

import json
from typing import Any

from pages.table import code, table

HEAD = """# Events

CloudEvents 1.0. Whole: [asyncapi.json](asyncapi.json) (AsyncAPI 3: channels, headers, data), and a JSON Schema for
the data of each type, linked below and served at `/api/v1/schemas/<type>.json`.

- **State events** tell a committed change. `data` is the whole resource; `id` is `<kind>/<uid>/<revision>`; compare
  `sequence` for each `subject` and drop what is not above the last you saw: delivery is at least once.
- **Intents** ask for something. They come in by `POST /api/v1/events` or by NATS; each becomes a request whose
  outcome can be asked for ([how](../integrate.md)).

Extensions: `correlationid` (the first request), `causationid` (what caused this), `sequence`, `partitionkey` (the
pool), `tenant`, `traceparent`, `dataref` (where a large resource can be read, as it stands then), `replayed`.
"""


def page(document: str) -> str:
    told: dict[str, Any] = json.loads(document)
    parts = [HEAD]
    for title, prefix, text in (
        ("What is told", "event.", "On the stream `EVENTS`, over SSE and by webhooks."),
        (
            "What can be asked",
            "ingress.",
            "Subject of the intent: the resource that it is about; none where it makes one.",
        ),
        ("What is answered to a sender", "ingress-result", "To whoever listens then."),
    ):
        parts += [f"## {title}\n", text + "\n"]
        for name, channel in sorted(told["channels"].items()):
            if name.startswith(prefix) and (prefix.endswith(".") or name == prefix):
                parts += _channel(told, name, channel)
    return "\n".join(parts)


def _channel(told: dict[str, Any], name: str, channel: dict[str, Any]) -> list[str]:
    messages = told["components"]["messages"]
    rows = [(f"[`{one}`](schemas/{one}.json)", _meaning(messages[one])) for one in sorted(channel["messages"])]
    kind = name.partition(".")[2]
    parts = [f"### {kind}\n"] if kind and name.startswith("event.") else [f"### Asked of {kind}\n"] if kind else []
    return [*parts, f"NATS subject {code(channel['address'])}\n", table(("type", "meaning"), rows)]


def _meaning(message: dict[str, Any]) -> str:
    """Its own words; the phrase that all state events share says nothing in a table of them."""
    return str(message.get("summary", "")).removesuffix(": told with the state").replace("<", "&lt;")
