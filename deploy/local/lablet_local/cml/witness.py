"""The witness: an append-only log of what ran when, kept apart from the API so that checkers need not believe it.

Each fact is one JSON line, written with one `write` before the API answers, so it survives a SIGKILL of this process
(not a power cut: nothing is flushed to the platter). A log that exists is continued, also across several lives of the
simulator; facts of an earlier life end with the next `controller.started`: what ran then, ran no longer than that.

Facts: controller.started, controller.stopped, lab.imported, lab.started, lab.converged, lab.stopped, lab.wiped,
lab.deleted, node.started, node.booted, node.stopped, node.refused, port.opened, port.closed, licence.registered,
licence.deregistered.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .clock import Clock
from .model import new_id

Json = dict[str, Any]


class Witness:
    """The log, in memory and (if `path` is given) in a file of JSON lines."""

    def __init__(self, clock: Clock, path: Path | None = None) -> None:
        self._clock = clock
        self._life = new_id()
        self.history: list[Json] = []
        self.starts: dict[str, int] = {}
        """Lab title → how often a lab of this title was started, over all lives in the file."""
        self._file: int | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            torn = False
            if path.exists():
                torn = self._load(path)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            if torn:
                os.write(self._file, b"\n")

    def _load(self, path: Path) -> bool:
        text = path.read_text(encoding="utf-8")
        for line in text.splitlines():
            try:
                self._keep(json.loads(line))
            except ValueError:  # the line that a SIGKILL cut short
                continue
        return bool(text) and not text.endswith("\n")

    def _keep(self, fact: Json) -> None:
        self.history.append(fact)
        if fact.get("fact") == "lab.started":
            self.starts[fact["title"]] = self.starts.get(fact["title"], 0) + 1

    def saw(self, fact: str, **details: Any) -> None:
        """Adds one fact, stamped with the real time (`at`, unix seconds), the lab time and this life's id."""
        entry = {
            "fact": fact,
            "at": round(self._clock.wall().timestamp(), 6),
            "labSeconds": round(self._clock.now(), 3),
            "life": self._life,
            **details,
        }
        self._keep(entry)
        if self._file is not None:
            os.write(self._file, json.dumps(entry, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        """Closes the file; later facts stay in memory only."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
