"""Ports of a running lab from outside: does it answer, and typing into a console as a person would."""

import asyncio

from lablet_local.demo.evidence import Visit

_SECONDS = 5.0
_PROMPT_SECONDS = 1.0


async def knock(instance: str, port_name: str, host: str, port: int) -> Visit:
    """Connects once. An address that does not answer is a finding, not an error."""
    address = f"{host}:{port}"
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        return Visit(instance, port_name, address, False, str(error) or type(error).__name__)
    writer.close()
    return Visit(instance, port_name, address, True)


async def type_into(host: str, port: int, *lines: str) -> str:
    """Types lines into a console, waiting for it to say something after each, and returns all that it said. Raises
    `OSError` when it does not answer."""
    reader, writer = await asyncio.open_connection(host, port)
    said = b""
    try:
        for line in ("", *lines):
            writer.write(line.encode() + b"\r\n")
            await writer.drain()
            said += await _answer(reader)
    finally:
        writer.close()
    return said.decode(errors="replace")


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """What comes until a prompt stands at the end, or nothing more for a while."""
    said = b""
    try:
        async with asyncio.timeout(_PROMPT_SECONDS):
            while not said.rstrip(b" ").endswith((b"#", b">")):
                piece = await reader.read(4096)
                if not piece:
                    break
                said += piece
    except TimeoutError:
        return said
    return said
