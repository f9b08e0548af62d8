"""Task groups only where they live as long as their process: one that is left by an error or a cancellation holds itself, and
the frames of all who waited for it, in a circle, and services look for such seldom. What ends and begins anew with a lease, a
connection or a client runs by `tasks.together`."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
WHOLE_LIVES = {
    "libs/common/lablet_common/service.py": "the process itself",
    "libs/common/lablet_common/ownership.py": "all that is owned with one lease; it ends in order when that is lost",
    "libs/common/lablet_common/store/cache.py": "the process' caches",
}


def test_what_comes_and_goes_runs_without_a_task_group() -> None:
    sources = [
        path
        for folder in ("libs/common/lablet_common", "services/*/lablet_*")
        for path in ROOT.glob(f"{folder}/**/*.py")
        if "testing" not in path.parts
    ]
    found = {
        str(path.relative_to(ROOT)) for path in sources if "asyncio.TaskGroup()" in path.read_text(encoding="utf-8")
    }
    assert len(sources) > 200
    assert found == set(WHOLE_LIVES)
