"""JSON merge patches (RFC 7396). Pure."""

from typing import Any, cast

from lablet_common.resources.worker import WorkerPool, WorkerTemplate


def merged(present: WorkerPool | WorkerTemplate, patch: dict[str, Any]) -> dict[str, Any]:
    """The body of an apply with a JSON merge patch (RFC 7396) laid over what stands."""
    current = {"spec": present.spec.to_dict(), "labels": dict(present.metadata.labels)}
    return cast("dict[str, Any]", merge(current, patch))


def merge(target: Any, patch: Any) -> Any:
    """The target with the patch laid over it (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result
