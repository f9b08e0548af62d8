"""Between the port's values and etcd's messages: keys with their prefix, comparisons, operations."""

from collections.abc import Iterable

from lablet_common.store.api import Compare, Delete, KeyValue, Operation, Put, Target
from lablet_common.store.proto import etcd_pb2 as pb

_RESULTS = {
    "=": pb.Compare.EQUAL,
    "!=": pb.Compare.NOT_EQUAL,
    "<": pb.Compare.LESS,
    ">": pb.Compare.GREATER,
}


class Names:
    """Keys as the port and as etcd know them: the store's prefix is put before every key and taken off again."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.rstrip("/").encode()

    def key(self, key: str) -> bytes:
        return self._prefix + key.encode()

    def below(self, prefix: str) -> tuple[bytes, bytes]:
        """First key and end (exclusive) of everything that begins with `prefix`."""
        first = self.key(prefix)
        return first or b"\0", _successor(first)

    def key_value(self, kv: pb.KeyValue) -> KeyValue:
        return KeyValue(
            kv.key[len(self._prefix) :].decode(), kv.value, kv.mod_revision, kv.create_revision, kv.version, kv.lease
        )

    def key_values(self, kvs: Iterable[pb.KeyValue]) -> tuple[KeyValue, ...]:
        """The same for many, in one loop without calls: long lists are made of nothing else."""
        start, make, fields = len(self._prefix), tuple.__new__, KeyValue
        return tuple(
            [
                make(
                    fields,
                    (kv.key[start:].decode(), kv.value, kv.mod_revision, kv.create_revision, kv.version, kv.lease),
                )
                for kv in kvs
            ]
        )

    def transaction(
        self, compares: Iterable[Compare], success: Iterable[Operation], failure: Iterable[Operation]
    ) -> pb.TxnRequest:
        """Filled in place: a message that is made first and then given to another is copied, with its value."""
        request = pb.TxnRequest()
        for compare in compares:
            self._compare(compare, request.compare.add())
        for branch, operations in ((request.success, success), (request.failure, failure)):
            add = branch.add
            for operation in operations:
                self._operate(operation, add())
        return request

    def _compare(self, compare: Compare, message: pb.Compare) -> None:
        message.key, message.result = self.key(compare.key), _RESULTS[compare.operator]
        operand = compare.operand
        if isinstance(operand, bytes):
            message.target, message.value = pb.Compare.VALUE, operand
        elif compare.target is Target.MOD:
            message.target, message.mod_revision = pb.Compare.MOD, operand
        elif compare.target is Target.CREATE:
            message.target, message.create_revision = pb.Compare.CREATE, operand
        else:
            message.target, message.version = pb.Compare.VERSION, operand

    def _operate(self, operation: Operation, message: pb.RequestOp) -> None:
        if isinstance(operation, Put):
            put = message.request_put
            put.key, put.value = self._prefix + operation.key.encode(), operation.value
            if operation.lease:
                put.lease = operation.lease
            return
        target = message.request_delete_range if isinstance(operation, Delete) else message.request_range
        target.key = self.key(operation.key)
        if operation.prefix:
            target.key, target.range_end = self.below(operation.key)


def _successor(prefix: bytes) -> bytes:
    """The first key after all that begin with `prefix`; a zero byte stands for: to the end."""
    for place in range(len(prefix) - 1, -1, -1):
        if prefix[place] < 0xFF:
            return prefix[:place] + bytes([prefix[place] + 1])
    return b"\0"
