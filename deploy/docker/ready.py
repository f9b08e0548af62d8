"""The health check of a container: exit 0 when `GET` on the address given answers 2xx, else 1 with the reason.

Standard library alone, so that it costs little every few seconds.
"""

import sys
import urllib.error
import urllib.request

_SECONDS = 4.0


def main() -> int:
    """Takes the address as the only argument."""
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=_SECONDS) as answer:  # noqa: S310 - our own address
            return 0 if 200 <= answer.status < 300 else 1
    except urllib.error.HTTPError as error:
        print(error.read().decode("utf-8", "replace"), file=sys.stderr)
    except OSError as error:
        print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
