"""When to try a call again, and after how long: a pure rule that the transport follows.

Every change carries an idempotency key, so sending it again is safe even when the first answer was lost. Waits are real
seconds, not lab time.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRIED_STATUS = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Retry:
    """Growing waits with jitter, for at most `patience` seconds in all; the first try is always made."""

    initial: float = 0.1
    maximum: float = 3.0
    patience: float = 15.0

    def pause(self, attempt: int, spent: float, asked: float | None = None) -> float | None:
        """Seconds to wait after try number `attempt` (from 1) failed, `spent` seconds after the first one began; None:
        give up. `asked` is what the server asked for (Retry-After) and is kept to."""
        ceiling = min(self.maximum, self.initial * 2 ** min(attempt - 1, 20))
        wait = asked if asked is not None else ceiling * (0.5 + random.random() / 2)
        return wait if spent + wait <= self.patience else None


NEVER = Retry(patience=0.0)
"""One try only."""


def retry_after(value: str | None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Seconds that a Retry-After header asks for (a number or an HTTP date); None if it says nothing usable."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - now()).total_seconds())
    except (ValueError, TypeError):
        return None
