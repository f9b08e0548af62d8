"""The four providers, each with what a test of the port needs to know about it."""

import asyncio
import io
import os
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest

from lablet_local.cloud.addresses import loopback
from lablet_local.cloud.app import build_app
from lablet_local.cloud.region import Pace, Region
from lablet_local.cloud.scenario import parse_scenario
from lablet_local.cloud.simulator import SimulatorOptions
from lablet_local.cloud.sizes import Size
from lablet_workers.providers.ec2 import Ec2Provider
from lablet_workers.providers.memory import MemoryProvider
from lablet_workers.providers.port import LaunchOrder, MachineInfo, MachineState, Provider
from lablet_workers.providers.simulated import SimulatedProvider
from lablet_workers.providers.static import StaticProvider
from lablet_workers.settings import Ec2Settings

REGION = "eu-west-1"
KINDS = ("memory", "simulated", "ec2", "static")


@dataclass
class Given:
    """One provider and the words of a test."""

    kind: str
    provider: Provider
    same_host: bool = False
    """A worker has one host for ever."""

    def order(self, name: str = "default-001", token: str = "t-1", **more: Any) -> LaunchOrder:
        tags = {"lablet-worker": name, "lablet-uid": f"uid-{name}", "lablet-pool-uid": "p-1"}
        given = {"instance_type": "m5.large", "image": "cml-2.9-*", "tags": tags} | more
        return LaunchOrder(client_token=token, name=name, **given)

    async def until(self, machine: str, *states: MachineState) -> MachineInfo:
        """Waits until the machine is in one of the states, ten seconds at most."""
        end = time.monotonic() + 10
        while True:
            info = await self.provider.describe(machine)
            if info.state in states:
                return info
            assert time.monotonic() < end, f"{machine} is {info.state}, not one of {states}"
            await asyncio.sleep(0.02)


@asynccontextmanager
async def simulated_cloud(tmp_path: Path) -> AsyncIterator[SimulatedProvider]:
    """The simulated cloud's own application, its machines being processes that only wait."""
    program = tmp_path / "machine.py"
    program.write_text(
        textwrap.dedent("""
        import json, signal, sys
        options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
        with open(options["--state"], "a") as log:
            log.write(json.dumps({"fact": "controller.started", "arguments": sys.argv[1:]}) + "\\n")
        signal.pause()
        """)
    )
    pace = Pace(speed=600, boot_minutes=1, stop_minutes=0.5)
    options = SimulatorOptions(speed=600, command=(sys.executable, "-I", "-S", str(program)))
    region = Region(
        tmp_path / "cloud", loopback(202), pace, options, sizes={"m5.large": Size(8, 32, 100)}, reboot=False
    )
    region.scenario = parse_scenario({})
    provider = SimulatedProvider("http://cloud", "secret")
    await provider._http.aclose()
    transport = httpx.ASGITransport(app=build_app(region, "secret"))
    headers = {"authorization": "Bearer secret"}
    provider._http = httpx.AsyncClient(transport=transport, base_url="http://cloud", headers=headers)
    yield provider
    await provider.close()
    await region.close()


class Front:
    """A WSGI application before moto's EC2: what moto leaves out. Tokens of launches are honoured, errors are answered on
    demand, and every action is noted."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self.reset()

    def reset(self) -> None:
        self.actions: list[str] = []
        self.faults: list[tuple[str, int, str]] = []
        """(action, HTTP status, EC2's code): the next such call is answered with it, and does not reach moto."""
        self.lost: list[str] = []
        """Actions whose next answer is lost after they have had their effect."""
        self.hidden: set[str] = set()
        """Machines that EC2 does not show yet."""
        self._tokens: dict[str, tuple[dict[str, str], bytes]] = {}

    def __call__(self, environ: Any, start_response: Any) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        form = dict(parse_qsl(body.decode()))
        action, token = form.get("Action", ""), form.get("ClientToken", "")
        self.actions.append(action)
        for at, (wanted, status, code) in enumerate(self.faults):
            if wanted == action:
                del self.faults[at]
                return _answer(start_response, status, _error(code))
        if self.hidden.intersection(form.values()):
            return _answer(start_response, 400, _error("InvalidInstanceID.NotFound"))
        if token in self._tokens:
            before, answer = self._tokens[token]
            same = before == form
            return _answer(
                start_response, 200 if same else 400, answer if same else _error("IdempotentParameterMismatch")
            )
        silent = action in self.lost
        answer = b"".join(self._application(environ, _unheard if silent else start_response))
        if token:
            self._tokens[token] = (form, answer)
        if silent:
            self.lost.remove(action)
            return _answer(start_response, 502, b"<!doctype html><title>Bad Gateway</title>")
        return [answer]


def _unheard(*_: Any) -> None:
    return None


def _error(code: str) -> bytes:
    told = f"<Error><Code>{code}</Code><Message>said the test</Message></Error>"
    return f"<Response><Errors>{told}</Errors><RequestID>r</RequestID></Response>".encode()


def _answer(start_response: Any, status: int, body: bytes) -> list[bytes]:
    start_response(f"{status} X", [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture(scope="session")
def moto() -> Iterator[tuple[str, Front]]:
    """An EC2 server on 127.0.0.1 for the session: its address and what stands before it."""
    before = dict(os.environ)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
    }
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: Any) -> None:
            return None

    front = Front(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, front, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", front
    finally:
        server.shutdown()
        thread.join(timeout=5)
        server.server_close()
        os.environ.clear()
        os.environ.update(before)


@dataclass
class Cloud:
    """moto's EC2 with two images of one name pattern and one of another."""

    url: str
    front: Front
    backend: Any
    newest: str
    subnet: str
    group: str

    def settings(self, **more: Any) -> Ec2Settings:
        given = {"region": REGION, "subnet_id": self.subnet, "security_group_ids": self.group}
        return Ec2Settings(**(given | more))

    def provider(self, **more: Any) -> Ec2Provider:
        given = {"endpoint": self.url, "attempts": 1, "settles_seconds": 0.0, "fresh_seconds": 0.0} | more
        return Ec2Provider(given.pop("settings", None) or self.settings(), REGION, **given)


def ec2_at(moto: tuple[str, Front]) -> Cloud:
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.ec2.models import ec2_backends

    url, front = moto
    backend = ec2_backends[DEFAULT_ACCOUNT_ID][REGION]
    backend.reset()
    front.reset()
    images = []
    for day, name in enumerate(("cml-2.9-second", "cml-2.8-old", "cml-2.9-first")):
        image = backend.register_image(name=name, description=name)
        image.creation_date = datetime(2027, 1, 9 - day, tzinfo=UTC)
        images.append(image.id)
    network = backend.create_vpc("10.1.0.0/16").id
    subnet = backend.create_subnet(network, "10.1.1.0/24", availability_zone=f"{REGION}a").id
    group = backend.create_security_group("labs", "labs", vpc_id=network).id
    return Cloud(url, front, backend, images[0], subnet, group)


@pytest.fixture
def cloud(moto: tuple[str, Front]) -> Cloud:
    return ec2_at(moto)


@pytest.fixture
def hosts_file(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yaml"
    path.write_text(
        "hosts:\n"
        "  - {worker: default-001, url: 'https://10.0.0.11'}\n"
        "  - {worker: default-002, url: 'https://10.0.0.12', host: labs-12.test}\n"
    )
    return path


@pytest.fixture(params=KINDS)
async def given(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Given]:
    """Each provider in turn."""
    async with AsyncExitStack() as stack:
        match request.param:
            case "memory":
                provider: Any = MemoryProvider()
            case "simulated":
                provider = await stack.enter_async_context(simulated_cloud(tmp_path))
            case "ec2":
                provider = request.getfixturevalue("cloud").provider()
            case _:
                provider = StaticProvider(request.getfixturevalue("hosts_file"))
        stack.push_async_callback(provider.close)
        yield Given(request.param, provider, same_host=request.param == "static")
