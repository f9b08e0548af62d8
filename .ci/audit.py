"""Tells a lock without known holes from one that nobody could be asked about.

Runs the given pip-audit twice, its last argument being the file: first on a release whose hole is well known, then on the
file itself. An index that does not tell of the first one (none at all, one that serves packages only, or one that answers
with an empty list) knows nothing of the others either: its silence is no good news. Exit 0: asked about every line, no hole
is known; 1: holes were found, as listed; 3: left out, since nobody could be asked, with what to do.

    python .ci/audit.py pip-audit --strict --require-hashes --disable-pip --requirement requirements.lock
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

FOUND, NOT_ASKED = 1, 3
KNOWN_HOLE = f"pyyaml==5.3 --hash=sha256:{'0' * 64}\n"
"""CVE-2020-1747, PYSEC-2020-96."""
_HOLES = re.compile(r"^Found \d+ known vulnerabilit", re.MULTILINE)
_NONE = re.compile(r"^No known vulnerabilities found$", re.MULTILINE)
REMEDY = (
    "run it where https://pypi.org/pypi/NAME/VERSION/json answers for itself (a package mirror does not), for instance where "
    "releases are made; until then nothing is known about holes in {file}"
)


def asked(command: Sequence[str], file: Path) -> tuple[int | None, str]:
    """How it ended (0: no hole, 1: holes, None: neither was said), and all that it said."""
    ran = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)  # noqa: S603 - the Makefile's
    said = ran.stdout + ran.stderr
    if ran.returncode == 0 and _NONE.search(said):
        return 0, said
    return (FOUND if ran.returncode != 0 and _HOLES.search(said) else None), said


def left_out(file: str, why: str) -> int:
    last = next((line for line in reversed(why.splitlines()) if line.strip()), "pip-audit said nothing")
    print(f"audit: left out: {last}\naudit: {REMEDY.format(file=file)}", file=sys.stderr)
    return NOT_ASKED


def main(arguments: Sequence[str]) -> int:
    *command, file = arguments
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder) / "known-hole.txt"
        known.write_text(KNOWN_HOLE, encoding="utf-8")
        outcome, said = asked(command, known)
    if outcome == 0:
        said = f"whoever is asked does not know the hole of {KNOWN_HOLE.partition(' ')[0]}, and so tells of none"
    if outcome != FOUND:
        return left_out(file, said)
    outcome, said = asked(command, Path(file))
    if outcome is None:
        return left_out(file, said)
    print(said, end="")
    return outcome


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
