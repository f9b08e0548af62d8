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

    def compare(self, compare: Compare) -> pb.Compare:
        message = pb.Compare(key=self.key(compare.key), result=_RESULTS[compare.operator])
        operand = compare.operand
        if isinstance(operand, bytes):
            message.target, message.value = pb.Compare.VALUE, operand
        elif compare.target is Target.MOD:
            message.target, message.mod_revision = pb.Compare.MOD, operand
        elif compare.target is Target.CREATE:
            message.target, message.create_revision = pb.Compare.CREATE, operand
        else:
            message.target, message.version = pb.Compare.VERSION, operand
        return message

    def operation(self, operation: Operation) -> pb.RequestOp:
        if isinstance(operation, Put):
            key = self._prefix + operation.key.encode()
            if not operation.lease:
                return pb.RequestOp(request_put=pb.PutRequest(key=key, value=operation.value))
            return pb.RequestOp(request_put=pb.PutRequest(key=key, value=operation.value, lease=operation.lease))
        first, end = self.below(operation.key) if operation.prefix else (self.key(operation.key), b"")
        if isinstance(operation, Delete):
            return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=first, range_end=end))
        return pb.RequestOp(request_range=pb.RangeRequest(key=first, range_end=end))


def _successor(prefix: bytes) -> bytes:
    """The first key after all that begin with `prefix`; a zero byte stands for: to the end."""
    for place in range(len(prefix) - 1, -1, -1):
        if prefix[place] < 0xFF:
            return prefix[:place] + bytes([prefix[place] + 1])
    return b"\0"
