"""What the CML adapter says on the wire: the licence's calls in their order, and certificates that are checked."""

import asyncio
import datetime as dt
import ipaddress
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lablet_workers.runtimes.cml import CmlRuntime, CmlRuntimes
from lablet_workers.runtimes.port import LabNode, RuntimeFault, RuntimeUnavailable

LICENSING = "/api/v0/licensing"


@dataclass
class Controller:
    """A controller that notes what it is asked and answers as it is told."""

    calls: list[tuple[str, str, str]] = field(default_factory=list)
    answers: dict[tuple[str, str], httpx.Response] = field(default_factory=dict)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/authenticate"):
            return httpx.Response(200, json="jwt")
        self.calls.append((request.method, path.removeprefix("/api/v0"), request.content.decode()))
        known = self.answers.get((request.method, path))
        if known is not None:
            return known
        if request.method == "GET":
            status = {"registration": {"status": "NOT_REGISTERED"}, "authorization": {"status": "EVAL"}}
            return httpx.Response(200, json=status | {"transport": {"default_ssms": "https://default", "proxy": {}}})
        return httpx.Response(204)


@pytest.fixture
async def wire() -> AsyncIterator[tuple[Controller, CmlRuntime]]:
    controller, runtime = Controller(), CmlRuntime("http://cml", "admin", "secret")
    await runtime._http.aclose()
    runtime._http = httpx.AsyncClient(transport=httpx.MockTransport(controller), base_url="http://cml/api/v0")
    yield controller, runtime
    await runtime.close()


async def test_a_licence_is_registered_by_product_then_transport_then_token(wire: Any) -> None:
    controller, runtime = wire
    await runtime.register("CML_Enterprise", "token-1")
    changes = [call for call in controller.calls if call[0] != "GET"]
    assert [(method, path) for method, path, _ in changes] == [
        ("PUT", "/licensing/product_license"),
        ("PUT", "/licensing/transport"),
        ("POST", "/licensing/registration"),
    ]
    assert changes[0][2] == '"CML_Enterprise"'
    assert '"reregister":false' in changes[2][2].replace(" ", "")


async def test_the_operators_own_transport_is_kept(wire: Any) -> None:
    controller, runtime = wire
    own = {"ssms": "https://satellite", "default_ssms": "https://default", "proxy": {"server": "p", "port": 3128}}
    controller.answers["GET", LICENSING] = httpx.Response(200, json={"transport": own})
    await runtime.register("CML_Personal", "t")
    sent = next(body for method, path, body in controller.calls if (method, path) == ("PUT", "/licensing/transport"))
    assert "https://satellite" in sent
    assert "3128" in sent


def statistics(**more: Any) -> dict[str, Any]:
    """As a controller of two hosts tells it: bytes, and a percentage of all processors."""
    gib = 1024**3
    host = {"hostname": "a", "is_controller": True, "stats": {"dominfo": {"running_nodes": 3, "total_nodes": 9}}}
    silent = {"hostname": "b", "is_controller": False, "stats": {"dominfo": {"running_nodes": None}}}
    total = {
        "cpu": {"count": 48, "percent": 25.0},
        "memory": {"used": 50 * gib, "free": 150 * gib, "total": 200 * gib},
        "disk": {"used": 225 * gib, "free": 25 * gib, "total": 250 * gib},
    }
    return {"computes": {"x": host, "y": silent}, "all": total} | more


async def test_what_a_controller_uses_is_read_in_its_units(wire: Any) -> None:
    controller, runtime = wire
    controller.answers[("GET", "/api/v0/system_stats")] = httpx.Response(200, json=statistics())
    load = await runtime.load()
    assert (load.cpu_cores.used, load.cpu_cores.total, load.nodes) == (12, 48, 3)
    assert (load.memory_gb.used, load.memory_gb.total, load.storage_gb.ratio) == (50, 200, 0.9)


@pytest.mark.parametrize("answer", [{}, statistics(all=None), statistics(computes={})])
async def test_a_controller_that_has_no_figures_yet_tells_none(wire: Any, answer: dict[str, Any]) -> None:
    controller, runtime = wire
    controller.answers[("GET", "/api/v0/system_stats")] = httpx.Response(200, json=answer)
    assert await runtime.load() is None


@pytest.mark.parametrize("status", [400, 500])
async def test_a_refused_product_stops_the_registration_and_no_error_carries_the_token(wire: Any, status: int) -> None:
    controller, runtime = wire
    refusal = httpx.Response(status, json={"code": status, "description": "no such product"})
    controller.answers["PUT", f"{LICENSING}/product_license"] = refusal
    with pytest.raises(RuntimeFault) as told:
        await runtime.register("CML_Nothing", "very-secret-token")
    assert "very-secret-token" not in str(told.value)
    assert not [call for call in controller.calls if call[1] == "/licensing/registration"]


@pytest.mark.parametrize(
    ("registration", "authorization"), [("PENDING", "EVAL_MODE"), ("SOMETHING_NEW", "SOMETHING"), ("COMPLETED", "INIT")]
)
async def test_words_that_are_not_known_mean_not_licensed_yet(wire: Any, registration: str, authorization: str) -> None:
    controller, runtime = wire
    body = {"registration": {"status": registration}, "authorization": {"status": authorization}}
    controller.answers["GET", LICENSING] = httpx.Response(200, json=body)
    state = await runtime.license()
    assert state.registered
    assert not state.in_compliance


@pytest.mark.parametrize("status", [204, 202])
async def test_done_and_done_only_here_are_both_done(wire: Any, status: int) -> None:
    controller, runtime = wire
    controller.answers["DELETE", f"{LICENSING}/deregistration"] = httpx.Response(status)
    await runtime.deregister()


async def test_running_nodes_are_told_and_already_is_done(wire: Any) -> None:
    controller, runtime = wire
    path = ("DELETE", f"{LICENSING}/deregistration")
    running = {"code": 400, "description": "Cannot de-register when nodes are running."}
    controller.answers[path] = httpx.Response(400, json=running)
    with pytest.raises(RuntimeFault, match=r"nodes are running"):
        await runtime.deregister()
    controller.answers[path] = httpx.Response(400, json={"code": 400, "description": "Already deregistered"})
    await runtime.deregister()


# -- certificates --------------------------------------------------------------------------------------------------


@dataclass
class Authority:
    """A certificate authority of the test's own, and servers with its certificates."""

    folder: Path
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def file(self) -> Path:
        return self.folder / "ca.pem"

    def __post_init__(self) -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.file.write_bytes(self._signed(self.name, self.key.public_key(), None).public_bytes(_PEM))

    def _signed(self, name: x509.Name, key: Any, names: x509.SubjectAlternativeName | None) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
        )
        return (made.add_extension(names, critical=False) if names is not None else made).sign(
            self.key, hashes.SHA256()
        )

    @asynccontextmanager
    async def serve(self, *names: x509.GeneralName) -> AsyncIterator[str]:
        """A controller on 127.0.0.1 that only says that it is ready; its address."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cml")])
        certificate = self._signed(subject, key.public_key(), x509.SubjectAlternativeName(names))
        chain = self.folder / "server.pem"
        plain = serialization.NoEncryption()
        chain.write_bytes(
            key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(_PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        server = await asyncio.start_server(_ready, "127.0.0.1", 0, ssl=context)
        try:
            yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            await server.wait_closed()


_PEM = serialization.Encoding.PEM


async def _ready(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"version": "2.9.0+build.1", "ready": true}'
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
    except (asyncio.IncompleteReadError, OSError):
        return  # a client that does not trust us has gone
    finally:
        writer.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


Opened = Callable[[CmlRuntimes, str], Any]


async def _version(runtimes: CmlRuntimes, url: str) -> str:
    runtime = runtimes.open(url, "secret")
    try:
        return (await runtime.info()).version
    finally:
        await runtime.close()


async def test_a_certificate_of_the_configured_authority_is_trusted_and_no_other(authority: Authority) -> None:
    async with authority.serve(x509.IPAddress(ipaddress.ip_address("127.0.0.1"))) as url:
        assert await _version(CmlRuntimes("admin", authority.file), url) == "2.9.0"
        with pytest.raises(RuntimeUnavailable, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
            await _version(CmlRuntimes("admin"), url)


async def test_a_certificate_for_another_name_is_refused_unless_that_name_is_configured(authority: Authority) -> None:
    async with authority.serve(x509.DNSName("cml.example.net")) as url:
        with pytest.raises(RuntimeUnavailable, match=r"(?i)certificate"):
            await _version(CmlRuntimes("admin", authority.file), url)
        assert await _version(CmlRuntimes("admin", authority.file, "cml.example.net"), url) == "2.9.0"
        with pytest.raises(RuntimeUnavailable, match=r"(?i)certificate"):
            await _version(CmlRuntimes("admin", authority.file, "other.example.net"), url)


PAGE = httpx.Response(200, html="<h1>Maintenance</h1>")
OTHER = httpx.Response(200, json={"detail": "moved"})


@pytest.mark.parametrize("answer", [PAGE, OTHER], ids=["a page", "another document"])
async def test_what_is_none_of_a_controllers_answers_is_no_answer(wire: Any, answer: httpx.Response) -> None:
    controller, runtime = wire
    node = LabNode("n1", "r1", "BOOTED")
    controller.answers = {
        ("GET", f"/api/v0{path}"): answer
        for path in (
            "/system_information",
            "/labs",
            "/labs/l1",
            "/labs/l1/lab_element_state",
            "/labs/l1/nodes",
            "/labs/l1/topology",
            "/labs/l1/nodes/n1",
        )
    }
    calls = [
        lambda: runtime.info(),
        lambda: runtime.progress("l1"),
        lambda: runtime.nodes("l1"),
        lambda: runtime.adopt("l1", "ins-a-1", b"nodes: []"),
    ]
    if answer is PAGE:
        calls += [lambda: runtime.labs(), lambda: runtime.configuration("l1", node)]
    for call in calls:
        with pytest.raises(RuntimeUnavailable, match="http://cml: what answers there is not understood"):
            await call()


async def test_a_large_lab_file_is_read_while_others_go_on(wire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, runtime = wire
    go_on = threading.Event()

    def slow(_: bytes) -> Any:
        assert go_on.wait(5), "nobody else had a turn"
        raise RuntimeFault("read")

    monkeypatch.setattr("lablet_workers.runtimes.cml.parts_of", slow)
    asyncio.get_running_loop().call_soon(go_on.set)
    with pytest.raises(RuntimeFault, match="read"):
        await runtime.adopt("l1", "ins-a-1", b"")
