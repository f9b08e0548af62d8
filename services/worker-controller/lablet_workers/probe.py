"""Do all named ports of a lab accept a connection? Only then it is Running."""

import asyncio
from collections.abc import Mapping


async def closed_ports(host: str, ports: Mapping[str, int], timeout: float) -> dict[str, str]:
    """Name → what was wrong, of the ports on which no connection was accepted within `timeout` seconds; empty: all
    answer. Connections are closed at once."""
    results = await asyncio.gather(*(_connect(host, number, timeout) for number in ports.values()))
    return {name: fault for name, fault in zip(ports, results, strict=True) if fault is not None}


async def _connect(host: str, port: int, timeout: float) -> str | None:
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return f"{host}:{port} does not answer"
    except OSError as error:
        return f"{host}:{port}: {error.strerror or error}"
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        return None  # the other side was faster to close: it had answered
    return None
