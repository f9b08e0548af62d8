"""NATS subjects of intents, state events, ingress and dead letters.

Every token is escaped, so that no id can widen a subject: `.`, `*`, `>`, space, `%` and whatever is not printable ASCII
become `%XX` of their UTF-8 bytes. `-` stands where there is no pool.
"""

import re
from urllib.parse import unquote

NO_POOL = "-"
"""The pool token of what belongs to no pool."""

ANY = "*"
"""One token, whatever it is; only for filters."""

_UNSAFE = re.compile(r"[^!-~]|[.*>%]")


def escape(token: str) -> str:
    """The token as it may stand between two dots. Raises `ValueError` for an empty one."""
    if not token:
        raise ValueError("a subject token is empty")
    if _UNSAFE.search(token) is None:
        return token
    return _UNSAFE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match.group().encode()), token)


def unescape(token: str) -> str:
    """The reverse of `escape`."""
    return unquote(token, errors="strict")


def _wild(token: str) -> str:
    return token if token == ANY else escape(token)


def intent_subject(service: str, shard: str, kind: str, resource_id: str) -> str:
    """`lablet.intent.<service>.<pool or ->.<kind>.<id>`."""
    return f"lablet.intent.{escape(service)}.{escape(shard)}.{escape(kind)}.{escape(resource_id)}"


def intent_filter(service: str, shard: str = ANY) -> str:
    """All intents of a service, or those of one of its shards."""
    return f"lablet.intent.{escape(service)}.{_wild(shard)}.>"


def event_subject(tenant: str, kind: str, pool: str, resource_id: str) -> str:
    """`lablet.event.<tenant>.<kind>.<pool or ->.<id>`."""
    return f"lablet.event.{escape(tenant)}.{escape(kind)}.{escape(pool)}.{escape(resource_id)}"


def event_filter(kind: str = ANY, *, tenant: str = ANY, pool: str = ANY, resource_id: str = ANY) -> str:
    """State events, narrowed by whatever is given."""
    return f"lablet.event.{_wild(tenant)}.{_wild(kind)}.{_wild(pool)}.{_wild(resource_id)}"


def ingress_subject(tenant: str, kind: str) -> str:
    """Where an outside system publishes; its NATS user proves the tenant."""
    return f"lablet.ingress.{escape(tenant)}.{escape(kind)}"


def ingress_result_subject(tenant: str) -> str:
    """Where an outside system hears that an event of its was refused."""
    return f"lablet.ingress-result.{escape(tenant)}"


def dlq_subject(service: str, consumer: str) -> str:
    return f"lablet.dlq.{escape(service)}.{escape(consumer)}"


def template_of(subject: str) -> str:
    """The subject with names in the place of what differs from resource to resource: what spans are called by, as there are
    only some dozens of them."""
    match subject.split("."):
        case ["lablet", "intent", service, _, kind, _]:
            return f"lablet.intent.{service}.{{pool}}.{kind}.{{id}}"
        case ["lablet", "event", _, kind, _, _]:
            return f"lablet.event.{{tenant}}.{kind}.{{pool}}.{{id}}"
        case ["lablet", "ingress", _, kind]:
            return f"lablet.ingress.{{tenant}}.{kind}"
    return subject


def matches(pattern: str, subject: str) -> bool:
    """Whether a filter takes a subject, as the server does it: `*` is one token, `>` at the end one or more."""
    wanted, given = pattern.split("."), subject.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(given) > index
        if index >= len(given) or part not in (ANY, given[index]):
            return False
    return len(given) == len(wanted)
