"""What a machine of an instance type offers: taken from the worker templates, so that both sides agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True, slots=True)
class Size:
    cpus: int
    memory_gb: int
    disk_gb: int


class SizesError(ValueError):
    """A worker template file that cannot be read."""


def read_sizes(path: Path) -> dict[str, Size]:
    """Instance type → size. Of templates that share a type the largest in each dimension counts.

    Raises `SizesError` naming the file.
    """
    sizes: dict[str, Size] = {}
    try:
        for template in yaml.safe_load(path.read_text(encoding="utf-8"))["templates"]:
            kind, capacity = str(template["instance_type"]), template["capacity"]
            known = sizes.get(kind, Size(0, 0, 0))
            sizes[kind] = Size(
                max(known.cpus, int(capacity["cpu_cores"])),
                max(known.memory_gb, int(capacity["memory_gb"])),
                max(known.disk_gb, int(capacity["storage_gb"])),
            )
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise SizesError(f"the worker templates in {path} cannot be read: {type(error).__name__}: {error}") from error
    return sizes
