"""What docs/guides/webhooks.md shows sinks to do does it with what the gateway really sends."""

import re
from pathlib import Path
from typing import Any

from lablet_gateway.webhooks.signing import headers, new_secret

PAGE = (Path(__file__).resolve().parents[4] / "docs/guides/webhooks.md").read_text(encoding="utf-8")
BODY = b'{"specversion":"1.0"}'


def is_ours() -> Any:
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    return names["is_ours"]


def test_the_check_on_the_page_takes_what_is_signed_and_nothing_else() -> None:
    check, secret, other = is_ours(), new_secret(), new_secret()
    sent = headers("reservation/u/7", 1_800_000_000, BODY, [secret])
    assert check(secret, sent, BODY)
    assert not check(other, sent, BODY)
    assert not check(secret, sent, BODY + b" ")
    assert not check(secret, sent | {"webhook-id": "reservation/u/8"}, BODY)
    assert not check(secret, sent | {"webhook-timestamp": "1800000001"}, BODY)


def test_while_a_secret_is_replaced_either_is_good() -> None:
    check, old, new = is_ours(), new_secret(), new_secret()
    both = headers("reservation/u/7", 1_800_000_000, BODY, [new, old])
    assert check(old, both, BODY)
    assert check(new, both, BODY)
