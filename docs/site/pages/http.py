"""The HTTP API, from its OpenAPI document: one line for each route."""

import json
from collections import defaultdict
from typing import Any

from pages.table import code, table

HEAD = """# HTTP API

Everything below `/api/v1`, with a bearer token. Whole: [openapi.json](openapi.json), OpenAPI 3.1 with schemas and
examples; a running gateway shows it at `/api/docs`.

What holds for every route:

- A POST that changes something is answered 202 with `Location`: the request's outcome. With `Prefer: wait=N` it waits
  up to N seconds for the decision and answers with the resource, or with the refusal.
- `Idempotency-Key`: the same key and body get the same answer, another body under it is 422.
- Changes need `If-Match` with the `ETag` that was read: 428 without, 412 when it is stale. Whoever decides compares it once
  more, so a 202 may be followed by a refusal with 412.
- Lists take `limit`, `cursor`, `labelSelector` and `fieldSelector`; a cursor holds one revision.
- Reads show what is committed. `?consistency=cache` allows a slightly older answer and says which revision it is of.
- Errors are `application/problem+json` with a stable `type`; 401 without a token, 403 without the right, 404 for what
  is another tenant's, 409 for what is not possible now, 429 with `Retry-After`, 503 with the name of what is down.
"""


def page(document: str) -> str:
    groups: dict[str, list[tuple[str, str, str, str]]] = defaultdict(list)
    for path, methods in json.loads(document)["paths"].items():
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["other"])[0]
            groups[tag].append(
                (code(method.upper()), code(path.removeprefix("/api/v1")), _does(operation), _answers(operation))
            )
    parts = [HEAD]
    for tag, rows in sorted(groups.items()):
        parts += [f"## {tag}\n", table(("verb", "path", "what it does", "answers"), rows)]
    return "\n".join(parts)


def _does(operation: dict[str, Any]) -> str:
    first = " ".join((operation.get("description") or operation.get("summary") or "").split("\n\n")[0].split())
    return as_cell(first)


def as_cell(text: str) -> str:
    """Prose as a cell: what looks like a tag is none."""
    return text.replace("<", "&lt;")


def _answers(operation: dict[str, Any]) -> str:
    return ", ".join(sorted(operation["responses"]))
