"""The net that the cloud takes from a container's network, so that other containers reach its machines."""

import os
import shutil
import subprocess
import sys
import textwrap
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from lablet_local.cloud.reach import NoNet, own_interface, upper_half


def test_it_is_the_half_of_the_network_that_is_given_out_last() -> None:
    assert upper_half(IPv4Interface("172.18.0.5/16")) == IPv4Network("172.18.128.0/17")


@pytest.mark.parametrize(
    ("own", "why"), [("192.168.7.2/24", "too small"), ("172.18.200.5/16", "lies in the upper half of 172.18.0.0/16")]
)
def test_without_room_it_says_why(own: str, why: str) -> None:
    with pytest.raises(NoNet, match=why):
        upper_half(IPv4Interface(own))


def test_the_network_is_the_one_of_the_default_route(tmp_path: Path) -> None:
    routes = tmp_path / "route"
    routes.write_text("Iface Destination Gateway\nlo 0000007F 00000000\nlo 00000000 0100007F\n")
    assert own_interface(routes) == ("lo", IPv4Interface("127.0.0.1/8"))
    routes.write_text("Iface Destination Gateway\n")
    with pytest.raises(NoNet, match="no default route"):
        own_interface(routes)


def may_make_namespaces() -> bool:
    unshare = shutil.which("unshare")
    return os.getuid() == 0 and unshare is not None and subprocess.run([unshare, "-n", "true"]).returncode == 0


@pytest.mark.skipif(not may_make_namespaces(), reason="a network namespace of its own needs root (unshare -n)")
def test_every_address_of_it_answers_and_root_is_given_up() -> None:
    program = textwrap.dedent("""
        import os
        from ipaddress import IPv4Network
        from lablet_local.cloud.reach import become, take
        net = IPv4Network("10.99.128.0/17")
        def here():
            with open("/proc/self/net/fib_trie") as routes:
                return "10.99.128.0" in routes.read()
        print("before", here())
        take(net)
        take(net)
        become(10001)
        print("after", here())
        try:
            take(IPv4Network("10.98.0.0/17"))
        except PermissionError:
            print("no longer root", os.getuid(), os.getgroups())
    """)
    told = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert told.stdout.splitlines() == ["before False", "after True", "no longer root 10001 []"], told.stderr
