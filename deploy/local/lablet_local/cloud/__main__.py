"""`python -m lablet_local.cloud`: one region of the simulated cloud, until SIGTERM."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from ipaddress import IPv4Network
from pathlib import Path

import uvicorn

from lablet_local.cloud.addresses import loopback
from lablet_local.cloud.app import build_app
from lablet_local.cloud.reach import NoNet, become, own_interface, take, upper_half
from lablet_local.cloud.region import Pace, Region
from lablet_local.cloud.scenario import Scenario, ScenarioError, parse_scenario
from lablet_local.cloud.simulator import SimulatorOptions
from lablet_local.cloud.sizes import read_sizes


def _options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lablet_local.cloud", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True, help="machines and their witness logs")
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--net", type=int, default=64, help="machines get addresses 127.<net>.y.z")
    parser.add_argument(
        "--reach-as",
        type=int,
        metavar="USER",
        help="in a container: take machines' addresses from its network, so that others reach them; then become USER",
    )
    parser.add_argument(
        "--front",
        type=int,
        metavar="PORT",
        help="tell of machines' APIs at this port of their addresses, where something stands before them",
    )
    parser.add_argument("--speed", type=float, default=1.0, help="lab seconds in one real second")
    parser.add_argument("--boot-minutes", type=float, default=1.0, help="lab minutes from pending to running")
    parser.add_argument("--controller-seconds", type=float, default=60.0, help="lab seconds of the controller's start")
    parser.add_argument("--cml-password-file", type=Path, help="first password of the controllers' admin")
    parser.add_argument("--templates", type=Path, help="worker template file: the sizes of the instance types")
    parser.add_argument("--cml-faults", type=Path, help="faults file for every simulator")
    parser.add_argument("--reboot", action="store_true", help="machines that were on come back with the cloud, empty")
    parser.add_argument("--scenario", type=Path, help="faults of the cloud itself (JSON)")
    return parser.parse_args(arguments)


def _scenario(path: Path | None) -> Scenario:
    if path is None:
        return Scenario()
    try:
        return parse_scenario(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ScenarioError) as error:
        sys.exit(f"the scenario {path} cannot be used: {error}")


def _net(options: argparse.Namespace) -> IPv4Network:
    if options.reach_as is None:
        return loopback(options.net)
    try:
        _, own = own_interface()
        net = upper_half(own)
        take(net)
    except (NoNet, OSError) as error:
        sys.exit(f"machines cannot be given addresses that others reach: {error}")
    become(options.reach_as)
    logging.getLogger("lablet.cloud").info("machines answer on %s", net)
    return net


def main() -> None:
    options = _options()
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")
    net = _net(options)
    region = Region(
        options.data,
        net,
        Pace(speed=options.speed, boot_minutes=options.boot_minutes),
        SimulatorOptions(
            speed=options.speed,
            boot_seconds=options.controller_seconds,
            password_file=options.cml_password_file,
            faults=options.cml_faults,
        ),
        sizes=read_sizes(options.templates) if options.templates else {},
        scenario=_scenario(options.scenario),
        reboot=options.reboot,
    )
    app = build_app(region, options.token_file.read_text(encoding="utf-8").strip(), options.front)
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
