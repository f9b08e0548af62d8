"""What is told of the Python that Lablet is set up with."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def interpreter() -> ModuleType:
    spec = importlib.util.spec_from_file_location("interpreter", ROOT / "bench" / "interpreter.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("arguments", "prefix", "built"),
    [
        ("'--enable-shared' '--enable-optimizations' '--with-lto'", "/usr/local", "optimised"),
        ("'--enable-shared' '--prefix=/usr'", "/usr", "the system's"),
        (
            "'--prefix=/home/me/.pyenv/versions/3.11.7' '--enable-shared'",
            "/home/me/.pyenv",
            "built without optimisation",
        ),
        ("", "/opt/python", "built without optimisation"),
    ],
)
def test_how_it_was_built(interpreter: ModuleType, arguments: str, prefix: str, built: str) -> None:
    assert interpreter.how_built(arguments, prefix) == built


def test_whoever_sets_it_up_with_a_slow_one_is_told_of_another(interpreter: ModuleType, tmp_path: Path) -> None:
    other = tmp_path / "python3"
    slow = interpreter.PLAIN
    assert "slower" in interpreter.hint(slow, other)
    assert "PYTHON=" not in interpreter.hint(slow, other)
    other.touch()
    assert f"make PYTHON={other}" in interpreter.hint(slow, other)
    assert [interpreter.hint(built, other) for built in (interpreter.OPTIMISED, interpreter.SYSTEMS)] == ["", ""]


def test_setting_up_ends_with_it() -> None:
    command = ["make", "--no-print-directory", "-n", "-B", ".venv/.ready"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-2].strip() == ".venv/bin/python bench/interpreter.py"
