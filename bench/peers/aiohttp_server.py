"""An aiohttp server with WebSocket and SSE; messages and POST requests at /publish go to all subscribers.

Usage: aiohttp_server.py PORT TLS_PORT CERTIFICATE KEY
"""

from __future__ import annotations

import asyncio
import ssl
import sys

from aiohttp import WSMsgType, web

sockets: set[web.WebSocketResponse] = set()
streams: set[web.StreamResponse] = set()


async def publish(data: str) -> None:
    """Send an event to all subscribers."""
    for socket in list(sockets):
        await socket.send_str(data)
    block = f"data: {data}\n\n".encode()
    for stream in list(streams):
        await stream.write(block)


async def websocket(request: web.Request) -> web.WebSocketResponse:
    """Serve a WebSocket of a subscriber or a publisher."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    is_publisher = request.path == "/publish"
    if not is_publisher:
        sockets.add(socket)
    try:
        async for message in socket:
            if is_publisher and message.type == WSMsgType.TEXT:
                await publish(message.data)
    finally:
        sockets.discard(socket)
    return socket


async def event_stream(request: web.Request) -> web.StreamResponse:
    """Serve a subscriber by SSE."""
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await stream.prepare(request)
    streams.add(stream)
    try:
        await asyncio.Event().wait()
    finally:
        streams.discard(stream)
    return stream


async def post(request: web.Request) -> web.Response:
    """Publish the body."""
    await publish(await request.text())
    return web.json_response({}, status=201)


async def main(port: int, tls_port: int, certificate: str, key: str) -> None:
    """Serve until the process ends."""
    application = web.Application()
    application.router.add_get("/ws", websocket)
    application.router.add_get("/publish", websocket)
    application.router.add_get("/sse", event_stream)
    application.router.add_post("/publish", post)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await web.TCPSite(runner, "127.0.0.1", tls_port, backlog=4096, ssl_context=context).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]))
