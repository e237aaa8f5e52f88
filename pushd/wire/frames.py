"""Encode events in each wire format. The bytes are the same for every subscriber and are encoded once."""

from __future__ import annotations

import re
import struct
from base64 import b64encode
from collections.abc import Mapping
from functools import cache

from pushd.bus import CloseReason, Encoder, Entry, HistoryPage, StartPosition
from pushd.wire.json import json_bytes, json_line

__all__ = [
    "BINARY",
    "TEXT",
    "chunk",
    "chunked",
    "event_json",
    "page_json",
    "sse_block",
    "sse_event",
    "sse_json_event",
    "sse_line",
    "stream_end",
    "stream_line",
    "stream_start",
    "websocket_data",
    "websocket_event",
    "websocket_frame",
    "websocket_message",
]

TEXT = 1
"""The opcode of a WebSocket text frame (RFC 6455, section 5.2)."""

BINARY = 2
"""The opcode of a WebSocket binary frame."""

_LINE_BREAK = re.compile(r"\r\n|\r|\n")


def chunk(data: bytes) -> bytes:
    """Return one HTTP/1.1 chunk (RFC 9112, section 7.1), or no bytes for no data: an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


@cache
def chunked(encode: Encoder) -> Encoder:
    """Return an encoder that wraps the output of `encode` in a chunk."""
    return lambda entry: chunk(encode(entry))


def _members(entry: Entry) -> dict[str, object]:
    """Return the members of the JSON object of an event.

    ``{"id","position"?,"channel","offset","data" or "data_base64","event"?,"time"}``: an id that pushd assigned is
    the position, too.
    """
    event = entry.event
    members: dict[str, object] = {"id": event.id}
    if event.position != event.id:
        members["position"] = event.position
    members["channel"], members["offset"] = entry.channel, entry.offset
    if event.is_text:
        members["data"] = event.data.decode()
    else:
        members["data_base64"] = b64encode(event.data).decode("ascii")
    if event.type is not None:
        members["event"] = event.type
    members["time"] = round(event.time, 6)
    return members


def event_json(entry: Entry) -> bytes:
    """Encode an event as JSON for responses of the HTTP API."""
    return json_bytes(_members(entry), entry.event.data)


def page_json(page: HistoryPage) -> bytes:
    """Encode a page of the log: ``{"events":[...],"position":..,"recovered":..}``."""
    events = b",".join(entry.frame(event_json) for entry in page.entries)
    rest = json_bytes({"position": page.position, "recovered": page.recovered})
    return b'{"events":[' + events + b"]," + rest[1:] + b"\n"


def _message(entry: Entry) -> bytes:
    """Encode an event as a JSON message with ``"type":"event"``."""
    return b'{"type":"event",' + entry.frame(event_json)[1:]


def stream_line(entry: Entry) -> bytes:
    """Encode an event as a line of NDJSON."""
    return _message(entry) + b"\n"


def stream_start(start: StartPosition, since: str) -> bytes:
    """Return the first lines of an NDJSON stream: ``open`` with the position, and ``gap`` if events are lost."""
    opening = json_line({"type": "open", "position": start.position, "recovered": start.recovered})
    return opening if start.recovered else opening + json_line({"type": "gap", "since": since})


def stream_end(reason: CloseReason) -> bytes:
    """Return the last line of an NDJSON stream: ``closed`` with the reason."""
    line: dict[str, object] = {"type": "closed", "detail": reason.text}
    if reason.retry_s is not None:
        line["retry_after"] = round(reason.retry_s, 3)
    return json_line(line)


def websocket_frame(payload: bytes, opcode: int) -> bytes:
    """Return one unmasked WebSocket frame (RFC 6455, section 5.2), the same for every client."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", 0x80 | opcode, size) + payload
    if size < 0x10000:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


def websocket_message(message: Mapping[str, object]) -> bytes:
    """Return the text frame of a JSON message."""
    return websocket_frame(json_bytes(message), TEXT)


def websocket_event(entry: Entry) -> bytes:
    """Return the text frame of an event as JSON."""
    return websocket_frame(_message(entry), TEXT)


def websocket_data(entry: Entry) -> bytes:
    """Return the frame of the data of an event, without JSON: text, or binary if the data is not text."""
    return websocket_frame(entry.event.data, TEXT if entry.event.is_text else BINARY)


def sse_block(data: str, *, type: str | None = None, id: str | None = None) -> bytes:
    """Return one event of an event stream (WHATWG HTML, section 9.2.6).

    `id` and `type` must not have line breaks. A line break in `data` (CRLF, CR or LF) starts a new ``data`` line,
    and the client joins the lines with LF.
    """
    lines = [] if id is None else [f"id: {id}"]
    if type is not None:
        lines.append(f"event: {type}")
    lines.extend(f"data: {line}" for line in _LINE_BREAK.split(data))
    return ("\n".join(lines) + "\n\n").encode()


def sse_line(data: bytes, type: str, id: str) -> bytes:
    """Return one event whose data has no line breaks: the fast path of `sse_block`, without splitting lines."""
    return f"id: {id}\nevent: {type}\ndata: ".encode() + data + b"\n\n"


def sse_event(entry: Entry) -> bytes:
    """Return an event in event-stream format, with its position as the id, from which a client resumes.

    An event stream carries text only: binary data is sent as the JSON object ``{"data_base64": ...}``.
    """
    event = entry.event
    if event.is_text:
        data = event.data.decode()
    else:
        encoded = b64encode(event.data).decode("ascii")
        data = json_bytes({"data_base64": encoded}, encoded).decode()
    return sse_block(data, type=event.type, id=event.position)


def sse_json_event(entry: Entry) -> bytes:
    """Return an event in event-stream format whose data is the event as JSON, with its channel.

    It has no ``event`` line, so that one handler gets the events of all types.
    """
    return f"id: {entry.event.position}\ndata: ".encode() + entry.frame(event_json) + b"\n\n"
