"""Logs: one JSON object a line (or a readable line on a terminal), each with the trace it belongs to.

Values given as `extra={"reservation": …}` become fields of their own. `extra={"trace_parent": …}` says whose story a line
belongs to where no span is under way; it becomes `traceId`. Secrets are never logged: settings hold them as
`SecretStr`, which prints as stars.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace

from lablet_common.settings import TelemetrySettings
from lablet_common.telemetry.traces import context_of

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {
    "message", "asctime", "taskName", "trace_parent",
}  # fmt: skip
_QUIET = ("httpx", "httpcore", "botocore", "aiobotocore", "uvicorn.access", "faststream", "nats", "asyncio")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


class JsonFormatter(logging.Formatter):
    def __init__(self, service: str, replica: str) -> None:
        super().__init__()
        self._constant = {"service": service, "replica": replica}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._constant,
            **_fields(record),
        }
        context = trace.get_current_span().get_span_context()
        origin = None if context.is_valid else context_of(getattr(record, "trace_parent", None))
        if context.is_valid:
            line["traceId"] = f"{context.trace_id:032x}"
            line["spanId"] = f"{context.span_id:016x}"
        elif origin is not None:
            line["traceId"] = f"{origin.trace_id:032x}"
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class ConsoleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        extras = " ".join(f"{name}={value}" for name, value in _fields(record).items())
        line = f"{clock} {record.levelname.lower():<7} {record.name}: {record.getMessage()} {extras}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure_logging(settings: TelemetrySettings, service: str, replica: str) -> None:
    """Sends every log of the process to standard error in the wanted form; third parties speak from warnings on."""
    form = settings.log_format or ("console" if sys.stderr.isatty() else "json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ConsoleFormatter() if form == "console" else JsonFormatter(service, replica))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
