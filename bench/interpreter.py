"""How the Python that runs this was built: without profile-guided optimisation it is slower (docs/performance.md).

.venv/bin/python bench/interpreter.py     # says so where it was, and which else there is; silent where not
"""

import sys
import sysconfig
from pathlib import Path

OPTIMISED, SYSTEMS, PLAIN = "optimised", "the system's", "built without optimisation"
_SYSTEM = "/usr"
_OTHER = Path("/usr/bin/python3")


def how_built(arguments: str, prefix: str) -> str:
    """From the arguments of its `configure` and where it is at home. Distributions optimise theirs, and their packages do
    not say so there; what else does not say it (pyenv's, unless it is told) is not."""
    if "--enable-optimizations" in arguments:
        return OPTIMISED
    return SYSTEMS if prefix == _SYSTEM else PLAIN


def this_build() -> str:
    return how_built(str(sysconfig.get_config_var("CONFIG_ARGS") or ""), sys.base_prefix)


def hint(built: str, other: Path = _OTHER) -> str:
    """What to tell whoever sets it up; nothing where nothing is to be gained."""
    if built != PLAIN:
        return ""
    instead = f": make PYTHON={other} (after make clean)" if other.exists() else ""
    return f"this Python was {PLAIN}: Lablet is slower on it than on another of its version{instead}"


if __name__ == "__main__":
    if said := hint(this_build()):
        print(said)
