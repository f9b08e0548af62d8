"""What a look at one part of a mesh has found, how bad it is, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    part: str
    verdict: Verdict
    found: str
    remedy: str = ""
