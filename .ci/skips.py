"""Counts the tests that were skipped, by reason, and refuses a reason that nobody has allowed.

A skipped test is a promise that was not kept on this machine. Each reason that may be is one line of the allowed list, as
it stands before a `#`: the beginning of the reason. Exit 1 names every other one with its test.

    python .ci/skips.py .ci/allowed-skips out/ci/test.xml …
"""

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET


def allowed(path: Path) -> list[str]:
    """Beginnings of the reasons that may be."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def skipped(report: Path) -> list[tuple[str, str]]:
    """(test, reason) of a JUnit report; expected failures are not skips."""
    return [
        (f"{case.get('classname')}.{case.get('name')}", skip.get("message", ""))
        for case in ET.parse(report).iter("testcase")  # noqa: S314 - pytest has just written it
        for skip in case.iter("skipped")
        if skip.get("type") != "pytest.xfail"
    ]


def main(arguments: list[str]) -> int:
    known = allowed(Path(arguments[0]))
    every = [one for report in arguments[1:] for one in skipped(Path(report))]
    for reason, count in sorted(Counter(reason for _, reason in every).items()):
        print(f"ci: skipped {count:3d}  {reason}")
    bad = [(test, reason) for test, reason in every if not reason.startswith(tuple(known))]
    for test, reason in bad:
        print(f"ci: {test} was skipped, and nothing in .ci/allowed-skips allows it: {reason}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
