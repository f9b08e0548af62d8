"""`python -m lablet_gateway.reference FOLDER`: writes the reference documents."""

import sys
from pathlib import Path

from lablet_gateway.reference.files import write


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m lablet_gateway.reference FOLDER", file=sys.stderr)
        return 2
    for path in write(Path(arguments[0])):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
