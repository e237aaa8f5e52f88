"""Transports: each sends the events of the bus to one kind of client."""

from pushd.transports.http_stream import ResponseStream
from pushd.transports.longpoll import LongPoll
from pushd.transports.ndjson import JsonStream
from pushd.transports.server_push.endpoint import EventPush
from pushd.transports.sse import FORMAT, ServerSentEvents
from pushd.transports.stream_endpoint import StreamEndpoint
from pushd.transports.websocket.endpoint import WebSocket

__all__ = [
    "FORMAT",
    "EventPush",
    "JsonStream",
    "LongPoll",
    "ResponseStream",
    "ServerSentEvents",
    "StreamEndpoint",
    "WebSocket",
]
