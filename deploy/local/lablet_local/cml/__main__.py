"""``python -m lablet_local.cml``: starts one simulated CML controller and prints one JSON line when it answers."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lablet local cml", description="Starts one simulated CML 2.9 controller.")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address of the API and of all consoles")
    add("--port", type=int, default=8080, help="port of the API; 0 takes a free one")
    add("--tls-cert", type=Path, help="PEM certificate: serve HTTPS")
    add("--tls-key", type=Path, help="PEM key of the certificate")
    add("--username", default="admin")
    add("--password-file", type=Path, help="first line is the password; without it one is generated and printed")
    add("--speed", type=float, default=1.0, help="lab seconds per real second")
    add("--boot-seconds", type=float, default=0.0, help="lab seconds until the controller is ready (502 first)")
    add("--node-boot-seconds", type=float, help="lab seconds that every node boots, instead of its definition's")
    add("--session-seconds", type=float, default=86_400, help="lab seconds until a token expires")
    add("--faults", type=Path, help="JSON file of fault switches, as /sim/faults takes them")
    add("--state", type=Path, help="witness log (JSON lines), continued when it exists")
    add("--hostname", default="cml-controller")
    add("--cpus", type=int, default=48, help="CPUs of the compute host")
    add("--memory-gb", type=float, default=188.5, help="memory of the compute host, GiB")
    add("--disk-gb", type=float, default=248.0, help="disk of the compute host, GiB")
    add("--cpu-overcommit", type=float, default=4.0, help="virtual CPUs per CPU that may be promised")
    add("--licence-nodes", type=int, help="nodes that the base licence allows, instead of the product's number")
    add("--evaluation-nodes", type=int, default=0, help="nodes allowed without registration")
    add("--uncounted", default="external_connector,unmanaged_switch", help="definitions that need no node licence")
    add("--console-ports", default="1024-65535", metavar="LOW-HIGH", help="ports that consoles may open")
    add("--die-with-parent", action="store_true", help="end when the starting process ends (Linux)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until a signal. Exit codes: 0 ended by a signal, 2 wrong usage, 1 address or file not usable."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.speed <= 0 or (options.tls_cert is None) != (options.tls_key is None):
        parser.error("--speed must be above 0, and --tls-cert and --tls-key belong together")
    try:
        low, high = (int(part) for part in options.console_ports.split("-"))
    except ValueError:
        parser.error("--console-ports takes LOW-HIGH, such as 2000-9999")
    from .server import Place, die_with_parent, listen, run

    if options.die_with_parent:
        die_with_parent(os.getppid())
    from .app import App
    from .capacity import GIB, Host
    from .clock import ScaledClock
    from .console import Consoles
    from .controller import VERSION, Controller, Options
    from .errors import ApiError
    from .faults import Faults

    faults = Faults()
    place = Place(options.host, options.port, options.tls_cert, options.tls_key)
    try:
        password = _password(options.password_file)
        if options.faults is not None:
            faults.change(json.loads(options.faults.read_text(encoding="utf-8")))
        listener = listen(place)
    except (OSError, ValueError, ApiError) as error:
        print(f"lablet local cml: {error}", file=sys.stderr)
        return 1
    port = listener.getsockname()[1]
    host = Host(
        hostname=options.hostname,
        address=options.host,
        cpus=options.cpus,
        memory=int(options.memory_gb * GIB),
        disk=int(options.disk_gb * GIB),
        overcommit=options.cpu_overcommit,
        free_of_charge=frozenset(name for name in options.uncounted.split(",") if name),
    )
    wanted = Options(
        username=options.username,
        password=password,
        boot_seconds=options.boot_seconds,
        node_boot_seconds=options.node_boot_seconds,
        session_seconds=options.session_seconds,
        evaluation_nodes=options.evaluation_nodes,
        base_nodes=options.licence_nodes,
        state_file=options.state,
        host=host,
    )

    def start() -> App:
        consoles = Consoles(options.host, low=low, high=high, reserved=(port,))
        return App(Controller(ScaledClock(options.speed), consoles, wanted, faults))

    shown_host = f"[{options.host}]" if ":" in options.host else options.host
    ready: dict[str, object] = {
        "event": "ready",
        "url": f"{place.scheme}://{shown_host}:{port}",
        "username": options.username,
        "pid": os.getpid(),
        "version": VERSION,
    }
    ready |= {"passwordFile": str(options.password_file)} if options.password_file else {"password": password}
    run(place, listener, ready, start)
    return 0


def _password(file: Path | None) -> str:
    """The password of the file, or a fresh one. Raises `ValueError` for an empty file."""
    if file is None:
        return secrets.token_urlsafe(12)
    lines = file.read_text(encoding="utf-8").splitlines()
    if not lines or not lines[0].strip():
        raise ValueError(f"{file}: the password file is empty")
    return lines[0].strip()


if __name__ == "__main__":
    sys.exit(main())
