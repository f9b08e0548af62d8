"""The consoles: a listener per `protocol:number` tag of a running node, on the controller's own address.

A port is bound when the node starts (so that two nodes cannot have it) and listens from BOOTED on. A port that may not
be opened is an answer (a sentence), never an exception: the node then stays QUEUED with that sentence in its lab event.
`ssh` and `https` speak plain text here; the port answers, the encryption is not simulated.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from .ios import Device, Session
from .model import Node

PORT_TAG = re.compile(r"(serial|telnet|ssh|vnc|tcp|udp|http|https):(\d{1,5})")
_INTERPRET, _WILL, _ECHO, _SUPPRESS = 255, 251, 1, 3
_GREETING = bytes((_INTERPRET, _WILL, _ECHO, _INTERPRET, _WILL, _SUPPRESS))
KEPT_LOG = 64 * 1024


def wanted_ports(node: Node) -> list[tuple[str, int]]:
    """(protocol, port) of each tag that asks for a console, in order, each port once."""
    found: dict[int, str] = {}
    for tag in node.tags:
        if match := PORT_TAG.fullmatch(tag.strip()):
            found.setdefault(int(match[2]), match[1])
    return [(protocol, port) for port, protocol in found.items()]


@dataclass(slots=True)
class _Listener:
    protocol: str
    port: int
    socket: socket.socket
    server: asyncio.Server | asyncio.DatagramTransport | None = None
    opening: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Opened:
    listeners: list[_Listener] = field(default_factory=list)
    connections: set[asyncio.Transport] = field(default_factory=set)
    log: str = ""


class Consoles:
    """All listeners of one controller. `address` is its own host address, `low`..`high` the ports it may open."""

    def __init__(self, address: str, *, low: int = 1024, high: int = 65535, reserved: tuple[int, ...] = ()) -> None:
        self._address = address
        self._low, self._high, self._reserved = low, high, reserved
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._nodes: dict[str, _Opened] = {}
        self._owners: dict[int, Node] = {}

    def reserve(self, node: Node) -> str | None:
        """Binds all ports of the node, or none. Returns None, or why it cannot be."""
        opened = _Opened()
        for protocol, port in wanted_ports(node):
            try:
                opened.listeners.append(_Listener(protocol, port, self._bind(protocol, port)))
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                for listener in opened.listeners:
                    listener.socket.close()
                return f"Port {port} ({protocol}) of node {node.label} cannot be opened: {reason}."
        self._nodes[node.id] = opened
        for listener in opened.listeners:
            self._owners[listener.port] = node
        return None

    def _bind(self, protocol: str, port: int) -> socket.socket:
        if not self._low <= port <= self._high:
            raise ValueError(f"only ports {self._low} to {self._high} may be opened")
        if port in self._reserved:
            raise ValueError("the controller itself uses it")
        if port in self._owners:
            raise ValueError(f"node {self._owners[port].label} uses it")
        made = socket.socket(self._family, socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            if protocol != "udp":
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((self._address, port))
        except OSError:
            made.close()
            raise
        return made

    def open(self, node: Node, device: Device, *, deaf: bool = False) -> str | None:
        """Listens on the reserved ports. Returns None, or why not (then all ports of the node are free again)."""
        opened = self._nodes.get(node.id)
        if opened is None or deaf:
            return None
        for listener in opened.listeners:
            try:
                self._listen(node, listener, device, opened)
            except OSError as error:
                self.close(node)
                return f"Port {listener.port} of node {node.label} cannot be opened: {error.strerror}."
        return None

    def _listen(self, node: Node, listener: _Listener, device: Device, opened: _Opened) -> None:
        loop = asyncio.get_running_loop()
        if listener.protocol != "udp":
            listener.socket.listen(64)

        async def serve() -> None:
            if listener.protocol == "udp":
                transport, _ = await loop.create_datagram_endpoint(_Echo, sock=listener.socket)
                listener.server = transport
            else:
                make = partial(_PROTOCOLS[listener.protocol], node, device, opened)
                listener.server = await loop.create_server(make, sock=listener.socket)

        listener.opening = loop.create_task(serve(), name=f"console {listener.port}")

    def close(self, node: Node) -> list[int]:
        """Closes listeners and connections of the node. Returns the ports that are free now."""
        opened = self._nodes.pop(node.id, None)
        if opened is None:
            return []
        for listener in opened.listeners:
            self._owners.pop(listener.port, None)
            if listener.opening is not None:
                listener.opening.cancel()
            if listener.server is not None:
                listener.server.close()
            listener.socket.close()
        for transport in list(opened.connections):
            transport.abort()
        return [listener.port for listener in opened.listeners]

    def log(self, node: Node) -> str:
        """What was written on the node's consoles in this run, its last `KEPT_LOG` characters."""
        opened = self._nodes.get(node.id)
        return opened.log if opened else ""

    def ports(self) -> dict[int, str]:
        """Port → label of the node that has it."""
        return {port: node.label for port, node in self._owners.items()}


class _Connection(asyncio.Protocol):
    """One connection; knows its node, writes what it sends into the console log."""

    def __init__(self, node: Node, device: Device, opened: _Opened) -> None:
        self._node, self._device, self._opened = node, device, opened
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # a stream server makes write transports
        self._opened.connections.add(self._transport)  # type: ignore[arg-type]  # just set
        self.greet()

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._transport is not None:
            self._opened.connections.discard(self._transport)
        self._transport = None

    def greet(self) -> None:
        """Called when the peer is there."""

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Shell(_Connection):
    """The command line on a TCP connection; ends lines with CR LF, skips telnet's own commands."""

    echoes = False

    def greet(self) -> None:
        self._session = Session(self._device)
        self._line = bytearray()
        self._skip = 0
        self._after_return = False
        self._say(f"\n{self._device.config.hostname} con0 is now available\n\n{self._session.prompt}")

    def _say(self, text: str) -> None:
        self._opened.log = (self._opened.log + text)[-KEPT_LOG:]
        self.send(text.replace("\n", "\r\n").encode())

    def data_received(self, data: bytes) -> None:
        for byte in data:
            if self._skip or byte == _INTERPRET:
                self._skip = self._after_command(byte)
            elif byte in (10, 13):
                if not (byte == 10 and self._after_return):
                    self._enter()
                self._after_return = byte == 13
            else:
                self._after_return = False
                self._key(byte)
            if self._session.closed:
                return

    def _after_command(self, byte: int) -> int:
        if not self._skip:
            return 2
        if self._skip == 2 and byte not in (251, 252, 253, 254):
            return 0
        return self._skip - 1

    def _key(self, byte: int) -> None:
        if byte == 26:  # Ctrl-Z ends configuration
            self._line[:] = b"end"
            self._enter()
        elif byte in (3, 21):
            self._line.clear()
        elif byte in (8, 127):
            del self._line[-1:]
            if self.echoes:
                self.send(b"\b \b")
        elif byte >= 32 and len(self._line) < 4096:
            self._line.append(byte)
            if self.echoes:
                self.send(bytes((byte,)))

    def _enter(self) -> None:
        line = self._line.decode(errors="replace")
        self._line.clear()
        self._opened.log = (self._opened.log + line + "\n")[-KEPT_LOG:]
        if self.echoes:
            self.send(b"\r\n")
        output = self._session.answer(line)
        if self._session.closed:
            self.hang_up()
        else:
            self._say(output + self._session.prompt)


class _Telnet(_Shell):
    """The command line for a telnet client: the server echoes, character by character."""

    echoes = True

    def greet(self) -> None:
        self.send(_GREETING)
        super().greet()


class _Page(_Connection):
    """Answers each HTTP request with one small page about the node."""

    def data_received(self, _data: bytes) -> None:
        body = f"<!doctype html><title>{self._node.label}</title><h1>{self._node.label}</h1>\n".encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self.send(head.encode() + body)
        self.hang_up()


class _Screen(_Connection):
    """Greets as a VNC server (RFB 3.8) and offers no more than that."""

    def greet(self) -> None:
        self.send(b"RFB 003.008\n")


class _Echo(asyncio.DatagramProtocol):
    """Sends each datagram back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data, addr)  # type: ignore[attr-defined]  # a datagram endpoint's transport


_PROTOCOLS: dict[str, Callable[[Node, Device, _Opened], asyncio.Protocol]] = {
    "serial": _Shell,
    "ssh": _Shell,
    "tcp": _Shell,
    "telnet": _Telnet,
    "http": _Page,
    "https": _Page,
    "vnc": _Screen,
}
