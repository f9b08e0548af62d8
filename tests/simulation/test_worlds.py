"""The defects that `bench/worlds.py` plants can still be planted, and are found."""

import re
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"


def test_every_defect_can_still_be_planted() -> None:
    """What one takes the place of must be there."""
    code = "import planted\nfor one in planted.DEFECTS.values(): one()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=BENCH, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_planted_defect_is_found_and_counted_by_the_size_of_its_worlds() -> None:
    command = [sys.executable, "worlds.py", "--defects", "pointer_after", "--sizes", "M,D", "--seconds", "0.01"]
    done = subprocess.run(command, cwd=BENCH, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^bench worlds: defects=1 .*\bm_finds=1 .*\bd_finds=1 ", done.stdout, re.MULTILINE), done.stdout
