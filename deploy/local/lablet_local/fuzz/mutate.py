"""Cases from a seed: a good example, spoilt.

Coverage is not measured; what makes the cases reach deep is that they begin as good examples and are spoilt at a few
places, with pieces that parsers are known to stumble over and with pieces of other examples. The same generator state gives
the same case, so a case is named by its seed.
"""

import random
from collections.abc import Callable, Sequence

MOST_BYTES = 200_000
"""Of a case: a repeated repetition stops here."""

_PIECES = (
    b"", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\\u0000", b"\\ud800", b"%", b"%00", b"%C3%28", b"\r\n",
    b"-1", b"0", b"1e999", b"NaN", b"Infinity", b"99999999999999999999999", b"-9223372036854775809", b"0x7fffffff",
    b"null", b"true", b"[]", b"{}", b"[[[[[[[[", b'{"a":', b'"', b"'", b"`", b"&a ", b"*a", b"<<: *a",
    b"!!python/object:os.system", b"!!binary ", b"? ", b"- ", b"|\n", b">-\n", b"\t",
    b"${PORT_", b"${PORT_A}${PORT_B}", b"}", b",", b",,", b"=",
    b"!=", b"!", b" in (", b" notin ()", b"(", b")", b";", b"INTERVAL=0", b"COUNT=0", b"UNTIL=99991231T235959Z",
    b"BYSETPOS=-366", b"2027-02-30", b"9999-12-31T23:59:59Z", b"0001-01-01T00:00:00Z", b"../../etc/passwd", b"__proto__",
    b"A" * 300, b"\xe2\x80\xae",
)  # fmt: skip


def spoilt(rng: random.Random, examples: Sequence[bytes]) -> bytes:
    """One of the examples, spoilt at one to five places; at times as it is."""
    case = rng.choice(examples)
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5))):
        case = rng.choice(_WAYS)(rng, case, examples)[:MOST_BYTES]
    return case


def _cut(rng: random.Random, case: bytes, _: Sequence[bytes]) -> bytes:
    first, last = _span(rng, case)
    return case[:first] + case[last:]


def _flip(rng: random.Random, case: bytes, _: Sequence[bytes]) -> bytes:
    if not case:
        return bytes([rng.randrange(256)])
    at = rng.randrange(len(case))
    return case[:at] + bytes([case[at] ^ (1 << rng.randrange(8))]) + case[at + 1 :]


def _put(rng: random.Random, case: bytes, _: Sequence[bytes]) -> bytes:
    at = rng.randint(0, len(case))
    return case[:at] + rng.choice(_PIECES) + case[at:]


def _replace(rng: random.Random, case: bytes, _: Sequence[bytes]) -> bytes:
    first, last = _span(rng, case)
    return case[:first] + rng.choice(_PIECES) + case[last:]


def _splice(rng: random.Random, case: bytes, examples: Sequence[bytes]) -> bytes:
    other = rng.choice(examples)
    first, last = _span(rng, other)
    at = rng.randint(0, len(case))
    return case[:at] + other[first:last] + case[at:]


def _repeat(rng: random.Random, case: bytes, _: Sequence[bytes]) -> bytes:
    """A short piece many times: depth, length, and what grows with its square."""
    first, last = _span(rng, case, longest=12)
    times = rng.choice((2, 10, 100, 1_000, 10_000))
    return case[:last] + case[first:last] * times + case[last:]


def _deepen(rng: random.Random, case: bytes, _: Sequence[bytes]) -> bytes:
    opening = rng.choice((b"[", b"{", b'{"a":', b"(", b"- ", b'["', b"a: {"))
    at = rng.randint(0, len(case))
    return case[:at] + opening * rng.choice((5, 50, 500, 5_000, 50_000)) + case[at:]


_WAYS: tuple[Callable[[random.Random, bytes, Sequence[bytes]], bytes], ...] = (
    _cut, _flip, _flip, _put, _put, _replace, _replace, _splice, _repeat, _deepen,
)  # fmt: skip


def _span(rng: random.Random, case: bytes, longest: int = 40) -> tuple[int, int]:
    first = rng.randint(0, len(case))
    return first, min(len(case), first + rng.randint(0, longest))
