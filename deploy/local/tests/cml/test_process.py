"""The simulator as a process: quick start, consoles on real sockets, many labs at once, and no trace after SIGKILL."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.integration


class Api:
    """A thin client that is logged in and licensed."""

    def __init__(self, process: Any, verify: Any = True) -> None:
        self.process = process
        self.http = httpx.Client(base_url=f"{process.url}/api/v0/", verify=verify, timeout=20)
        token = self.ok("POST", "authenticate", json={"username": "admin", "password": process.password})
        self.http.headers["Authorization"] = f"Bearer {token}"

    def ok(self, method: str, path: str, **more: Any) -> Any:
        answer = self.http.request(method, path, **more)
        assert answer.is_success, answer.text
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text

    def until(self, condition: Callable[[], Any], seconds: float = 20) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, "the condition did not come true in time"
            time.sleep(0.02)
        return value

    def license(self) -> None:
        self.ok("POST", "licensing/registration", json={"token": "abc"})
        self.until(lambda: self.ok("GET", "licensing")["authorization"]["status"] == "IN_COMPLIANCE")

    def started(self, text: str) -> str:
        lab: str = self.ok("POST", "import", content=text)["id"]
        self.ok("PUT", f"labs/{lab}/start")
        self.until(lambda: self.ok("GET", f"labs/{lab}/check_if_converged"))
        return lab


def lab_of(tags: dict[str, list[str]], title: str = "Consoles") -> str:
    nodes = [
        {"id": f"n{n}", "label": label, "node_definition": "iosv", "x": 0, "y": 0, "tags": wanted}
        for n, (label, wanted) in enumerate(tags.items())
    ]
    return json.dumps({"lab": {"title": title, "version": "0.3.0"}, "nodes": nodes, "links": []})


def read_until(wire: socket.socket, mark: bytes) -> bytes:
    wire.settimeout(10)
    seen = b""
    while mark not in seen:
        part = wire.recv(4096)
        assert part, f"closed before {mark!r}: {seen!r}"
        seen += part
    return seen


@pytest.fixture
def ports(free_port: Callable[[str], int]) -> Callable[[int], list[int]]:
    def find(count: int) -> list[int]:
        found: set[int] = set()
        while len(found) < count:
            found.add(free_port("127.3.7.1"))
        return sorted(found)

    return find


def test_it_is_small_and_ends_at_once(simulator: Callable[..., Any]) -> None:
    for _ in range(3):
        process = simulator()
        assert httpx.get(f"{process.url}/api/v0/system_information").json()["ready"] is True
        assert process.memory() < 80 * 1024 * 1024
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(timeout=5) == 0


def test_one_is_run_alone_by_its_command(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("mine\n", encoding="utf-8")
    command = [
        str(Path(sys.executable).with_name("lablet")),
        "local",
        "cml",
        "--port",
        "0",
        "--password-file",
        str(secret),
    ]
    with subprocess.Popen([*command, "--die-with-parent"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        login = {"username": ready["username"], "password": "mine"}
        answer = httpx.post(f"{ready['url']}/api/v0/authenticate", json=login, trust_env=False)
        process.terminate()
    assert (answer.status_code, ready["passwordFile"]) == (200, str(secret))
    assert process.returncode == 0


def test_a_command_typed_into_a_console_is_found_in_the_export(
    simulator: Callable[..., Any], ports: Callable[[int], list[int]]
) -> None:
    serial, telnet = ports(2)
    process = simulator("--speed", "600")
    api = Api(process)
    api.license()
    lab = api.started(lab_of({"r1": [f"serial:{serial}", f"telnet:{telnet}"]}))
    with socket.create_connection((process.host, serial), 5) as wire:
        read_until(wire, b"r1>")
        wire.sendall(b"enable\r\nconfigure terminal\r\ninterface GigabitEthernet0/3\r\n description seat 7\r\n")
        wire.sendall(b"hostname EDGE\r\nend\r\nwrite memory\r\n")
        assert b"[OK]" in read_until(wire, b"[OK]\r\nEDGE#")
    with socket.create_connection((process.host, telnet), 5) as wire:
        assert b"\xff\xfb\x01" in read_until(wire, b"EDGE>")
        wire.sendall(b"\xff\xfd\x01ena\x08\x08\x08sho ver\r\0")
        assert b"simulated" in read_until(wire, b"uptime")
        node = api.ok("GET", f"labs/{lab}/nodes")[0]
        api.ok("PUT", f"labs/{lab}/nodes/{node}/extract_configuration")
        exported = api.ok("GET", f"labs/{lab}/download")
        assert "interface GigabitEthernet0/3\n" in exported
        assert "description seat 7" in exported
        assert "hostname EDGE" in exported
        assert "write memory" in api.ok("GET", f"labs/{lab}/nodes/{node}/consoles/0/log")
        api.ok("PUT", f"labs/{lab}/stop")
        while wire.recv(4096):
            pass
    api.until(lambda: not process.side("GET", "state")["openPorts"])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((process.host, serial), 5)


def test_every_protocol_answers_in_its_own_way(
    simulator: Callable[..., Any], ports: Callable[[int], list[int]]
) -> None:
    ssh, tcp, http, vnc, udp = ports(5)
    process = simulator("--speed", "600")
    api = Api(process)
    api.license()
    api.started(
        lab_of({"r1": [f"ssh:{ssh}", f"tcp:{tcp}"], "r2": [f"http:{http}", f"vnc:{vnc}", f"udp:{udp}", "core"]})
    )
    for port in (ssh, tcp):
        with socket.create_connection((process.host, port), 5) as wire:
            read_until(wire, b"r1>")
    assert "r2" in httpx.get(f"http://{process.host}:{http}/").text
    with socket.create_connection((process.host, vnc), 5) as wire:
        assert read_until(wire, b"\n") == b"RFB 003.008\n"
    with socket.socket(type=socket.SOCK_DGRAM) as wire:
        wire.settimeout(5)
        wire.sendto(b"ping", (process.host, udp))
        assert wire.recv(100) == b"ping"
    state = process.side("GET", "state")
    assert sorted(map(int, state["openPorts"])) == sorted((ssh, tcp, http, vnc, udp))


def test_a_port_that_somebody_has_keeps_the_node_queued(
    simulator: Callable[..., Any], ports: Callable[[int], list[int]]
) -> None:
    (port,) = ports(1)
    process = simulator("--speed", "600")
    api = Api(process)
    api.license()
    with socket.socket() as occupant:
        occupant.bind((process.host, port))
        occupant.listen()
        tags = {"r1": [f"serial:{port}"], "r2": ["serial:80"], "r3": [f"tcp:{process.url.rpartition(':')[2]}"]}
        lab = api.ok("POST", "import", content=lab_of(tags))["id"]
        api.ok("PUT", f"labs/{lab}/start")
        errors = api.until(
            lambda: (found := [e for e in api.ok("GET", f"labs/{lab}/events") if "error" in e["data"]])[2:] and found
        )
        assert {event["data"]["state"] for event in errors} == {"QUEUED"}
    states = api.until(
        lambda: "BOOTED" in (s := api.ok("GET", f"labs/{lab}/lab_element_state")["nodes"].values()) and list(s)
    )
    assert states == ["BOOTED", "QUEUED", "QUEUED"]


def test_sigkill_leaves_no_listener_and_keeps_the_witness(
    simulator: Callable[..., Any], ports: Callable[[int], list[int]], tmp_path: Path
) -> None:
    (port,) = ports(1)
    log = tmp_path / "witness.jsonl"
    process = simulator("--speed", "600", "--state", str(log))
    api = Api(process)
    api.license()
    api.started(lab_of({"r1": [f"serial:{port}"]}, "Killed"))
    process.popen.kill()
    process.popen.wait()
    for each in (port, int(process.url.rpartition(":")[2])):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((process.host, each), 5)
    facts = [json.loads(line)["fact"] for line in log.read_text().splitlines()]
    assert "lab.started" in facts
    assert "lab.stopped" not in facts
    again = simulator("--state", str(log))
    assert again.side("GET", "state")["starts"] == {"Killed": 1}
    assert again.side("GET", "state")["running"] == []


def test_it_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import subprocess,sys,time\n"
        "p=subprocess.Popen([sys.executable,'-m','lablet_local.cml','--host','127.3.7.9','--port','0',"
        "'--die-with-parent'],stdout=subprocess.PIPE)\n"
        "print(p.stdout.readline().decode(),flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = json.loads(parent.stdout.readline())["pid"]
        parent.kill()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the simulator outlived its parent"
        time.sleep(0.02)


def test_a_connection_can_be_reset(simulator: Callable[..., Any], tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text('{"resetConnections": 1, "failPath": "system_information"}')
    process = simulator("--faults", str(faults))
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{process.url}/api/v0/system_information")
    assert httpx.get(f"{process.url}/api/v0/system_information").status_code == 200


def test_twenty_labs_of_four_nodes_start_at_once(
    simulator: Callable[..., Any], ports: Callable[[int], list[int]]
) -> None:
    process = simulator("--speed", "600", "--licence-nodes", "80")
    api = Api(process)
    api.license()
    wanted = iter(ports(80))
    texts = [lab_of({f"r{n}": [f"serial:{next(wanted)}"] for n in range(4)}, f"Lab {each}") for each in range(20)]

    async def one(client: httpx.AsyncClient, text: str) -> float:
        begin = time.monotonic()
        lab = (await client.post("import", content=text)).json()["id"]
        assert (await client.put(f"labs/{lab}/start")).status_code == 204
        while not (await client.get(f"labs/{lab}/check_if_converged")).json():
            await asyncio.sleep(0.05)
        return time.monotonic() - begin

    async def all_of_them() -> list[float]:
        async with httpx.AsyncClient(base_url=api.http.base_url, headers=api.http.headers, timeout=20) as client:
            return list(await asyncio.gather(*(one(client, text) for text in texts)))

    times = asyncio.run(all_of_them())
    state = process.side("GET", "state")
    assert len(state["openPorts"]) == 80
    assert state["runningNodes"] == state["mostNodes"] == 80
    assert set(state["starts"].values()) == {1}
    assert max(times) < 15
    assert process.memory() < 80 * 1024 * 1024


def test_it_serves_tls(simulator: Callable[..., Any], tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-keyout", key, "-out", certificate, "-subj", "/CN=cml", "-addext", "subjectAltName=IP:127.3.7.1"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no openssl command to make a certificate with")
    process = simulator("--tls-cert", str(certificate), "--tls-key", str(key))
    import ssl

    api = Api(process, verify=ssl.create_default_context(cafile=str(certificate)))
    assert api.ok("GET", "labs") == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--faults", "/nowhere.json"], "nowhere"),
        (["--host", "127.3.7.1", "--port", "1"], "127.3.7.1:1"),
        (["--password-file", os.devnull], "empty"),
    ],
)
def test_what_cannot_be_used_is_named(arguments: list[str], word: str) -> None:
    if "--port" in arguments and os.geteuid() == 0:
        arguments = ["--host", "192.0.2.1", "--port", "8080"]
        word = "192.0.2.1:8080"
    ended = subprocess.run(
        [sys.executable, "-m", "lablet_local.cml", *arguments], capture_output=True, text=True, timeout=20, check=False
    )
    assert ended.returncode == 1
    assert word in ended.stderr
    assert "Traceback" not in ended.stderr
