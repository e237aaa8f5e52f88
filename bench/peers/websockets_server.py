"""A server on the library websockets; messages at /publish are broadcast to all subscribers.

Usage: websockets_server.py PORT TLS_PORT CERTIFICATE KEY
"""

from __future__ import annotations

import asyncio
import ssl
import sys

from websockets.asyncio.server import ServerConnection, broadcast, serve

subscribers: set[ServerConnection] = set()


async def attend(connection: ServerConnection) -> None:
    """Serve one connection."""
    assert connection.request is not None
    if connection.request.path == "/publish":
        async for message in connection:
            broadcast(subscribers, message)
        return
    subscribers.add(connection)
    try:
        await connection.wait_closed()
    finally:
        subscribers.discard(connection)


async def main(port: int, tls_port: int, certificate: str, key: str) -> None:
    """Serve until the process ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with (
        serve(attend, "127.0.0.1", port, backlog=4096),
        serve(attend, "127.0.0.1", tls_port, backlog=4096, ssl=context),
    ):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]))
