"""What etcd refuses, said before it is asked: shapes and sizes of requests, with messages that name the key.

The real client and its twin check the same things here, so that a test on the twin finds what the server would refuse. The
server has the last word: what slips through here still comes back as `InvalidRequest`.
"""

from collections.abc import Collection, Sequence

from lablet_common.store.api import (
    MAX_OPERATIONS,
    MAX_VALUE_BYTES,
    Compare,
    Delete,
    InvalidRequest,
    Operation,
    Put,
    Target,
)

MAX_REQUEST_BYTES = 1536 * 1024
"""What etcd takes in one request (`--max-request-bytes`)."""
_OPERATORS = ("=", "!=", "<", ">")


def check_key(key: str) -> None:
    """Keys and prefixes begin with a slash."""
    if not key.startswith("/"):
        raise InvalidRequest(f"keys and prefixes begin with a slash, unlike {key!r}")


def check_range(prefix: str, *, limit: int, start_after: str, order_by_create: bool) -> None:
    check_key(prefix)
    if limit < 0:
        raise InvalidRequest(f"a limit of {limit} keys")
    if start_after and not start_after.startswith(prefix):
        raise InvalidRequest(f"the list of {prefix} cannot go on after {start_after}, which is not in it")
    if start_after and order_by_create:
        raise InvalidRequest(f"the list of {prefix} goes on in key order only, not in the order of creation")


def check_put(key: str, value: bytes) -> None:
    check_key(key)
    if len(value) > MAX_VALUE_BYTES:
        raise InvalidRequest(f"the value of {key} has {len(value)} bytes; the most is {MAX_VALUE_BYTES}")


def check_transaction(compares: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation]) -> None:
    """Raises `InvalidRequest` for what etcd would refuse, whichever branch would run."""
    for what, parts in (("comparisons", compares), ("operations", success), ("operations", failure)):
        if len(parts) > MAX_OPERATIONS:
            raise InvalidRequest(f"a transaction of {len(parts)} {what}; the most is {MAX_OPERATIONS}: divide it")
    for compare in compares:
        _check_compare(compare)
    size = 0
    for branch in (success, failure):
        puts: set[str] = set()
        for operation in branch:
            if not isinstance(operation, Put):
                check_key(operation.key)
                continue
            key = operation.key
            check_put(key, operation.value)
            if key in puts:
                raise InvalidRequest(f"one transaction cannot put {key} twice")
            puts.add(key)
            size += len(operation.value) + len(key)
        if len(puts) < len(branch):
            _check_deletes(branch, puts)
    if size > MAX_REQUEST_BYTES:
        raise InvalidRequest(f"a transaction of {size} bytes; the most is {MAX_REQUEST_BYTES}: divide it")


def _check_compare(compare: Compare) -> None:
    check_key(compare.key)
    if compare.operator not in _OPERATORS:
        raise InvalidRequest(f"{compare.key} cannot be compared by {compare.operator!r}; use {', '.join(_OPERATORS)}")
    if isinstance(compare.operand, bytes) is not (compare.target is Target.VALUE):
        raise InvalidRequest(f"the {compare.target} of {compare.key} cannot be compared with {compare.operand!r}")


def _check_deletes(branch: Sequence[Operation], puts: Collection[str]) -> None:
    """A key that is put is not deleted as well."""
    for operation in branch:
        if isinstance(operation, Delete):
            both = (
                key for key in puts if (key.startswith(operation.key) if operation.prefix else key == operation.key)
            )
            if (key := next(both, None)) is not None:
                raise InvalidRequest(f"one transaction cannot both put and delete {key}")
