"""`lablet token rotate`: new tokens for a mesh, whether it runs or not.

The hashes are replaced first and then the connection file, each as a whole. The gateway reads the hashes again within a
second, and `lablet up` makes them anew from the connection file, so that a stop in between heals by itself.
"""

from pathlib import Path

from rich.console import Console

from lablet_local.connection import write_connection
from lablet_local.folder import DataFolder, read_json
from lablet_local.keyring import ROLES, KeyRing, UnknownRole


def run_rotate(root: Path, role: str) -> int:
    """Replaces the token of a role, or of `all`. Returns the exit code: 0, or 2 where there is no mesh or no such role."""
    folder, aside = DataFolder(root), Console(stderr=True, highlight=False)
    known = read_json(folder.connection)
    if not known.get("url"):
        aside.print(f"there is no mesh in {root}: `lablet up` makes one", soft_wrap=True)
        return 2
    keys = KeyRing(folder)
    try:
        fresh = {one: keys.rotate(one)[one] for one in (ROLES if role == "all" else (role,))}
    except UnknownRole as error:
        aside.print(str(error), soft_wrap=True)
        return 2
    tokens = keys.api_tokens() | fresh
    keys.write_token_hashes(tokens)
    write_connection(folder, str(known["url"]), tokens)
    names = ", ".join(fresh)
    aside.print(f"[green]✓[/] new token for {names}, in {folder.connection}; the old one ends within a second",
                soft_wrap=True)  # fmt: skip
    return 0
