"""The CML adapter: Cisco Modeling Labs' REST API (2.x) as the `Runtime` port, asynchronous and thrifty.

Source of the rules: the product's published API. Error bodies are `{"code", "description"}`; a 502 while it boots means
"not ready yet"; a token that has run out is renewed once. Cisco's own client is synchronous and polls with many calls;
here one call (`lab_element_state`) tells a whole lab's progress.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Container, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import httpx

from lablet_common.loads import Load, Used
from lablet_common.resources.definition import CollectKind
from lablet_common.telemetry.spans import calling
from lablet_workers.calls import called
from lablet_workers.harvest import harvest
from lablet_workers.runtimes.parts import parts_in, parts_of
from lablet_workers.runtimes.port import (
    LabMissing,
    LabNode,
    LabProgress,
    LicenseInfo,
    LoginRefused,
    RuntimeFault,
    RuntimeInfo,
    RuntimeUnavailable,
    titled,
)

log = logging.getLogger("lablet.workers.runtimes")

_NOT_READY = (502, 503, 504)
_RUNNING = ("QUEUED", "STARTED", "BOOTED", "DISCONNECTED")
_UP = "BOOTED"
_ALREADY = "already"
_REFUSED = (400, 404, 409)
P = ParamSpec("P")
T = TypeVar("T")


def _understood(
    call: "Callable[Concatenate[CmlRuntime, P], Coroutine[Any, Any, T]]",
) -> "Callable[Concatenate[CmlRuntime, P], Coroutine[Any, Any, T]]":
    """An answer that is none of a controller's (the page of something before it, say) is no answer: raised for what cannot
    be read is `RuntimeUnavailable`, so that whoever answers so for long is lost like one that is silent."""

    @wraps(call)
    async def asked(runtime: "CmlRuntime", /, *words: P.args, **more: P.kwargs) -> T:
        try:
            return await call(runtime, *words, **more)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            said = f"{call.__name__} at {runtime.url}: what answers there is not understood: {error!r}"
            raise RuntimeUnavailable(said) from error

    return asked


class CmlRuntimes:
    """Opens CML controllers with one user name and one set of certificates."""

    def __init__(self, username: str, ca_cert: Path | None = None, tls_name: str = "") -> None:
        self._username = username
        self._tls_name = tls_name
        self._verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(ca_cert)) if ca_cert else True

    def open(self, url: str, password: str) -> "CmlRuntime":
        return CmlRuntime(url, self._username, password, self._verify, self._tls_name)


class CmlRuntime:
    """One controller."""

    file_suffix = ".cfg"

    def __init__(
        self, url: str, username: str, password: str, verify: ssl.SSLContext | bool = True, tls_name: str = ""
    ) -> None:
        self.url = url
        self._http = httpx.AsyncClient(
            base_url=f"{url}/api/v0",
            timeout=httpx.Timeout(20, connect=3),
            limits=httpx.Limits(max_connections=8),
            # an SSL context costs 20 ms to make; plain addresses need none
            verify=verify if url.startswith("https") else False,
            trust_env=False,
        )
        self._extensions = {"sni_hostname": tls_name} if tls_name and url.startswith("https") else {}
        self._username = username
        self._password = password
        self._login = asyncio.Lock()
        self.taking = asyncio.Lock()
        self._token: str | None = None
        self._labels: dict[str, dict[str, str]] = {}

    # -- the controller --------------------------------------------------------------------------------------------

    @_understood
    async def info(self) -> RuntimeInfo:
        answer = (await self._send("GET", "/system_information", login=False)).json()
        return RuntimeInfo(str(answer["version"]).partition("+")[0], bool(answer["ready"]))

    @_understood
    async def load(self) -> Load | None:
        stats = (await self._send("GET", "/system_stats")).json()
        try:
            return _load(stats)
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # a figure by which nothing is decided
            log.debug("a controller's statistics cannot be read", extra={"cause": repr(error)})
            return None

    @_understood
    async def secure(self, default_password: str, password: str) -> None:
        self._password, self._token = password, None
        try:
            await self._authenticate()
        except LoginRefused:
            self._password = default_password
            await self._authenticate()
            user = (await self._send("GET", f"/users/{self._username}/id")).json()
            change = {"password": {"old_password": default_password, "new_password": password}}
            with _unsaid(default_password, password):
                await self._send("PATCH", f"/users/{user}", json=change)
            self._password, self._token = password, None
            await self._authenticate()

    @_understood
    async def license(self) -> LicenseInfo:
        answer = (await self._send("GET", "/licensing")).json()
        quota = None
        registration = str(answer.get("registration", {}).get("status", ""))
        authorization = str(answer.get("authorization", {}).get("status", ""))
        if authorization == "IN_COMPLIANCE":
            limits = (await self._send("GET", "/diagnostics/licensing")).json()
            quota = limits.get("quota")
        return LicenseInfo(registration, authorization, quota)

    @_understood
    async def register(self, product: str, token: str) -> None:
        known = (await self._send("GET", "/licensing")).json()
        if known.get("registration", {}).get("status") == "COMPLETED":
            return  # asked for twice: while it is registered, its transport cannot be changed
        await self._send("PUT", "/licensing/product_license", json=product)
        current = known.get("transport", {})
        transport = {"ssms": current.get("ssms") or current.get("default_ssms"), "proxy": current.get("proxy") or {}}
        proxy = transport["proxy"]
        transport["proxy"] = {"server": proxy.get("server"), "port": proxy.get("port")}
        await self._send("PUT", "/licensing/transport", json=transport)
        with _unsaid(token):
            response = await self._send(
                "POST", "/licensing/registration", json={"token": token, "reregister": False}, accept=(409,)
            )
        if response.status_code == 409 and not (await self.license()).registered:
            raise RuntimeUnavailable(f"the licence cannot be registered now: {_description(response)}")

    @_understood
    async def deregister(self) -> None:
        response = await self._send("DELETE", "/licensing/deregistration", accept=(400, 409))
        if response.status_code == 400 and _ALREADY not in _description(response).lower():
            raise RuntimeFault(f"the licence cannot be given back: {_description(response)}")
        if response.status_code == 409:
            raise RuntimeUnavailable(f"the licence cannot be given back now: {_description(response)}")

    # -- labs ------------------------------------------------------------------------------------------------------

    @_understood
    async def labs(self, besides: Container[str] = ()) -> Mapping[str, str]:
        ids = (await self._send("GET", "/labs", params={"show_all": "true"})).json()
        found = {}
        for lab in ids:
            if lab in besides:
                continue  # a call for each lab is what this costs
            response = await self._send("GET", f"/labs/{lab}", accept=(404,))
            if response.status_code != 404:
                found[str(lab)] = str(response.json()["lab_title"])
        return found

    @_understood
    async def import_lab(self, title: str, topology: bytes) -> str:
        known = titled(await self.labs(), title)
        if known:
            return known[0]
        response = await self._send(
            "POST",
            "/import",
            params={"title": title},
            content=topology,
            headers={"content-type": "application/yaml"},
        )
        return str(response.json()["id"])

    @_understood
    async def adopt(self, lab: str, title: str, topology: bytes) -> bool:
        wanted = await asyncio.to_thread(parts_of, topology)  # a large file takes seconds, and others wait
        path = f"/labs/{lab}"
        present = (await self._send("GET", f"{path}/topology", params={"exclude_configurations": "true"})).json()
        for node in present["nodes"]:
            tags = wanted.tags.get(str(node["label"]))
            if tags is not None and tags != list(node.get("tags") or ()):
                await self._send("PATCH", f"{path}/nodes/{node['id']}", json={"tags": tags})
        notes = (await self._send("GET", f"{path}/smart_annotations")).json() if wanted.annotations else []
        by_tag = {note["tag"]: note for note in notes}
        for annotation in wanted.annotations:
            note = by_tag.get(annotation.get("tag"))
            if note is not None and any(note.get(name) != value for name, value in annotation.items()):
                await self._send("PATCH", f"{path}/smart_annotations/{note['id']}", json=annotation)
        found = (await self._send("GET", f"{path}/topology", params={"exclude_configurations": "true"})).json()
        if not wanted.shown_in(parts_in(found)):
            return False
        await self._send("PATCH", path, json={"title": title})
        return True

    @_understood
    async def start(self, lab: str) -> None:
        await self._send("PUT", f"/labs/{lab}/start")

    @_understood
    async def progress(self, lab: str) -> LabProgress:
        states = (await self._send("GET", f"/labs/{lab}/lab_element_state")).json()["nodes"]
        labels = self._labels.get(lab)
        if labels is None or set(labels) != set(states):
            nodes = (await self._send("GET", f"/labs/{lab}/nodes", params=_LIGHT)).json()
            labels = self._labels[lab] = {str(node["id"]): str(node["label"]) for node in nodes}
        return LabProgress(
            converged=all(state == _UP for state in states.values()),
            stopped=not any(state in _RUNNING for state in states.values()),
            nodes={labels.get(node, node): str(state) for node, state in states.items()},
        )

    async def configurations(self, lab: str) -> Mapping[str, bytes]:
        given = await harvest(self, lab, (CollectKind.CONFIGURATIONS,))
        return {node.node: data for node in given.nodes for data in node.files.values()}

    @_understood
    async def nodes(self, lab: str) -> list[LabNode]:
        nodes = (await self._send("GET", f"/labs/{lab}/nodes", params=_LIGHT)).json()
        return [LabNode(str(node["id"]), str(node["label"]), str(node.get("state") or "")) for node in nodes]

    @_understood
    async def configuration(self, lab: str, node: LabNode) -> bytes | None:
        path = f"/labs/{lab}/nodes/{node.id}"
        extracted = await self._send("PUT", f"{path}/extract_configuration", accept=_REFUSED)
        if extracted.status_code >= 400:
            if node.state == _UP:
                return None  # a node type that has no configuration to extract
            raise RuntimeFault(f"the node is {node.state}: {_description(extracted)}")
        text = _configuration((await self._send("GET", path)).json().get("configuration"))
        return text.encode() if text else None

    @_understood
    async def console_log(self, lab: str, node: LabNode) -> bytes | None:
        answer = await self._send("GET", f"/labs/{lab}/nodes/{node.id}/consoles/0/log", accept=_REFUSED)
        if answer.status_code >= 400:
            return None  # no console, or none that has ever been opened
        try:
            text = str(answer.json())
        except ValueError:
            text = answer.text
        return text.encode() or None

    @_understood
    async def export(self, lab: str) -> bytes:
        response = await self._send("GET", f"/labs/{lab}/download")
        if response.headers.get("content-type", "").startswith("application/json"):
            return str(response.json()).encode()
        return response.content

    @_understood
    async def stop(self, lab: str) -> None:
        await self._send("PUT", f"/labs/{lab}/stop")

    @_understood
    async def remove(self, lab: str) -> None:
        self._labels.pop(lab, None)
        try:
            await self._send("PUT", f"/labs/{lab}/wipe")
            await self._send("DELETE", f"/labs/{lab}")
        except LabMissing:
            return

    async def close(self) -> None:
        await self._http.aclose()

    # -- calling ---------------------------------------------------------------------------------------------------

    async def _authenticate(self) -> None:
        async with self._login:
            if self._token is not None:
                return
            body = {"username": self._username, "password": self._password}
            response = await self._raw("POST", "/authenticate", json=body)
            if response.status_code == 403:
                raise LoginRefused(f"the login of {self._username} was refused")
            _check(response, "POST", "/authenticate")
            self._token = str(response.json())

    async def _send(
        self, method: str, path: str, *, login: bool = True, accept: tuple[int, ...] = (), **more: Any
    ) -> httpx.Response:
        for again in (True, False):
            headers = dict(more.pop("headers", {}))
            if login:
                await self._authenticate()
                headers["authorization"] = f"Bearer {self._token}"
            response = await self._raw(method, path, headers=headers, **more)
            if response.status_code == 401 and login and again:
                self._token = None
                more["headers"] = headers
                continue
            break
        if response.status_code not in accept:
            _check(response, method, path)
        return response

    async def _raw(self, method: str, path: str, **more: Any) -> httpx.Response:
        if self._http.is_closed:
            raise RuntimeUnavailable(f"{method} {path} at {self._http.base_url}: the connection has been let go")
        try:
            if method == "GET":
                return await called(self._http, method, path, extensions=self._extensions, **more)
            with calling(f"{method} CML", {"http.request.method": method, "url.path": path}):
                return await called(self._http, method, path, extensions=self._extensions, **more)
        except httpx.HTTPError as error:
            raise RuntimeUnavailable(f"{method} {path} at {self._http.base_url}: {error!r}") from error


def _load(stats: dict[str, Any]) -> Load | None:
    """Of `/system_stats`. Raises what reading a document of another shape raises."""
    hosts = [host["stats"] for host in (stats.get("computes") or {}).values()]
    total = stats.get("all")
    if total is None or not hosts:
        return None
    cpu, memory, disk = total["cpu"], total["memory"], total["disk"]
    cores = float(cpu.get("count") or 0)
    return Load(
        cpu_cores=Used(used=round(cores * float(cpu.get("percent") or 0) / 100, 2), total=cores),
        memory_gb=Used(used=_gib(memory["used"]), total=_gib(memory["total"])),
        storage_gb=Used(used=_gib(disk["used"]), total=_gib(disk["total"])),
        nodes=sum(int((host.get("dominfo") or {}).get("running_nodes") or 0) for host in hosts),
    )


def _gib(count: float) -> float:
    """Controllers give memory and disk in bytes."""
    return round(float(count) / 1024**3, 2)


_LIGHT = {"data": "true", "exclude_configurations": "true"}


@contextmanager
def _unsaid(*secrets: str) -> Iterator[None]:
    """Controllers repeat what they refuse: a secret that was sent does not stand in what is raised, and so in no log."""
    try:
        yield
    except RuntimeFault as fault:
        words = str(fault)
        for secret in secrets:
            words = words.replace(secret, "…")
        raise type(fault)(words) from None


def _check(response: httpx.Response, method: str, path: str) -> None:
    if response.is_success:
        return
    words = f"{method} {path}: {response.status_code} {_description(response)}"
    if response.status_code in _NOT_READY or response.status_code == 500:
        raise RuntimeUnavailable(words)
    if response.status_code == 404 and "/labs/" in path:
        raise LabMissing(words)
    raise RuntimeFault(words)


def _description(response: httpx.Response) -> str:
    try:
        return str(response.json()["description"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]


def _configuration(value: Any) -> str:
    """A node's configuration as one text: a string, one named file, or a list of them."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return str(value.get("content") or "")
    if isinstance(value, list):
        return "\n".join(str(part.get("content") or "") for part in value if isinstance(part, dict))
    return ""
