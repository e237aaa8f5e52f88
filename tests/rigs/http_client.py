"""Clients that speak HTTP/1.1 to a daemon in memory, and their parser of responses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IAddress

from tests.rigs.connection import LOCALHOST, Connection

if TYPE_CHECKING:
    from tests.rigs.daemon import DaemonRig

__all__ = ["Client", "HttpClient", "Response", "batch_replies", "json_lines", "parse_responses", "stream_lines"]


@dataclass
class Response:
    """A response, or as much of it as there is."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    is_complete: bool = False
    interim: list[int] = field(default_factory=list)
    """The status codes of the 1xx responses before it."""
    chunks: int = 0
    """How many chunks the body came in, if in chunks."""

    def all(self, name: str) -> list[str]:
        """Return the values of a header."""
        return [value for key, value in self.headers if key == name.lower()]

    def header(self, name: str) -> str | None:
        """Return the value of a header that may be there once."""
        values = self.all(name)
        assert len(values) < 2, (name, values)
        return values[0] if values else None

    @property
    def json(self) -> Any:
        """The body, which must be JSON."""
        kind = (self.header("content-type") or "").partition(";")[0]
        assert kind in ("application/json", "application/problem+json"), self
        return json.loads(self.body)


class Client(Protocol):
    """A client that makes requests over one connection, in one version of HTTP."""

    alarms: int
    """How many of the daemon's alarms the connection has while nothing goes on over it."""

    close_timeout_s: int
    """How long a client that takes nothing any more is waited for."""

    connection: Connection

    def __init__(self, rig: DaemonRig) -> None:
        """Connect."""

    def send(
        self,
        method: str,
        target: str,
        *,
        headers: Sequence[tuple[str, str]] | Mapping[str, str] = (),
        body: bytes = b"",
        host: str = "localhost",
    ) -> None:
        """Send a request; a ``Content-Length`` is added if there is a body and no header about its length."""

    @property
    def responses(self) -> list[Response]:
        """What has come, in the order of the requests."""

    @property
    def response(self) -> Response:
        """The only response."""

    @property
    def written(self) -> list[Response]:
        """What the daemon has written, whether it has come or not."""


_STATUS_LINE = re.compile(r"HTTP/1\.[01] ([1-5][0-9]{2}) ([\x20-\x7e]*)")


_HEADER_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*?)[ \t]*")


_CHUNK_LINE = re.compile(rb"([0-9a-fA-F]+)\r\n")


def parse_responses(data: bytes, methods: Sequence[str], *, is_closed: bool) -> list[Response]:
    """Parse responses to requests with `methods` (RFC 9112); the last one may be incomplete.

    Fails for what is not HTTP, and for anything behind the last response.
    """
    responses: list[Response] = []
    interim: list[int] = []
    position = 0
    while (end := data.find(b"\r\n\r\n", position)) >= 0:
        status_line, *lines = data[position:end].decode("latin-1").split("\r\n")
        position = end + 4
        match = _STATUS_LINE.fullmatch(status_line)
        assert match, status_line
        headers = []
        for line in lines:
            header = _HEADER_LINE.fullmatch(line)
            assert header, line
            headers.append((header[1].lower(), header[2]))
        if match[1].startswith("1") and match[1] != "101":
            interim.append(int(match[1]))
            continue
        assert len(responses) < len(methods), data[:1000]
        response = Response(int(match[1]), match[2], headers, interim=interim)
        interim = []
        responses.append(response)
        position = _parse_body(response, data, position, methods[len(responses) - 1], is_closed)
        if not response.is_complete or response.status == 101:
            break
    else:
        assert not data[position:] or not is_closed, data[position:]
    return responses


def _parse_body(response: Response, data: bytes, position: int, method: str, is_closed: bool) -> int:
    """Parse the body (RFC 9112, section 6.3); return where it ends."""
    lengths, codings = response.all("content-length"), response.all("transfer-encoding")
    assert len(lengths) + len(codings) < 2, response
    if method == "HEAD" or response.status in (101, 204, 304):
        assert not codings or response.status != 204, response
        response.is_complete = True
    elif codings:
        assert codings == ["chunked"], codings
        while (match := _CHUNK_LINE.match(data, position)) is not None:
            size, start = int(match[1], 16), match.end()
            if len(data) < start + size + 2:
                break
            assert data[start + size : start + size + 2] == b"\r\n"
            response.body += data[start : start + size]
            position = start + size + 2
            if not size:
                response.is_complete = True
                break
            response.chunks += 1
    elif lengths:
        length = int(lengths[0])
        response.body = data[position : position + length]
        response.is_complete = len(response.body) == length
        position += len(response.body)
    else:
        response.body = data[position:]
        response.is_complete = is_closed
        position = len(data)
    return position


class HttpClient:
    """A client that speaks HTTP/1.1."""

    alarms = 1
    close_timeout_s = 10

    def __init__(self, rig: DaemonRig, host: IAddress = LOCALHOST, peer: IAddress | None = None) -> None:
        self.connection = rig.connect(host, peer)
        self.methods: list[str] = []

    def send(
        self,
        method: str,
        target: str,
        *,
        headers: Sequence[tuple[str, str]] | Mapping[str, str] = (),
        body: bytes = b"",
        host: str | None = "localhost",
        version: str = "1.1",
    ) -> None:
        """Send a request; a ``Content-Length`` is added if there is a body and no header about its length."""
        fields = list(headers.items() if isinstance(headers, Mapping) else headers)
        if host is not None:
            fields.insert(0, ("Host", host))
        names = {name.lower() for name, _ in fields}
        if body and not names & {"content-length", "transfer-encoding"}:
            fields.append(("Content-Length", str(len(body))))
        head = f"{method} {target} HTTP/{version}\r\n" + "".join(f"{name}: {it}\r\n" for name, it in fields)
        self.send_raw(method, head.encode() + b"\r\n" + body)

    def send_raw(self, method: str, data: bytes) -> None:
        """Send `data`, which is a request with `method`."""
        self.methods.append(method)
        self.connection.send(data)

    @property
    def responses(self) -> list[Response]:
        """What has come."""
        is_closed = not self.connection.is_open and self.connection.cut_after is None
        return parse_responses(self.connection.received, self.methods, is_closed=is_closed)

    @property
    def response(self) -> Response:
        """The only response."""
        (response,) = self.responses
        return response

    @property
    def written(self) -> list[Response]:
        """What the daemon has written, whether it has come or not."""
        return parse_responses(
            b"".join(self.connection.writes), self.methods, is_closed=not self.connection.is_open
        )


def json_lines(body: bytes) -> list[dict[str, Any]]:
    """Read the complete lines of NDJSON, but the empty ones."""
    return [json.loads(line) for line in body.split(b"\n")[:-1] if line]


def batch_replies(response: Response) -> list[dict[str, Any]]:
    """Return the replies to the lines of a batch, in whatever form; hold the status against them."""
    if response.header("content-type") == "application/problem+json":
        problem = response.json
        assert problem["status"] == response.status, response
        return [{"error": {key: value for key, value in problem.items() if key != "request_id"}}]
    replies = json_lines(response.body)
    summary = replies.pop()["summary"] if "summary" in replies[-1] else None
    refused = [reply["error"]["status"] for reply in replies if "error" in reply]
    duplicate = sum("duplicate" in reply for reply in replies)
    published = len(replies) - len(refused) - duplicate
    if summary is not None:
        assert summary == {"published": published, "duplicate": duplicate, "refused": len(refused)}, summary
        assert response.status == 207, response
        return replies
    shared = refused[0] if len(set(refused)) == 1 else 422
    assert response.status == (200 if not refused else 207 if published or duplicate else shared), response
    assert response.header("publish-refused") == (str(len(refused)) if refused else None), response
    return replies


def stream_lines(body: bytes) -> list[dict[str, Any]]:
    """Read the lines of NDJSON that follow the opening of a stream."""
    opening, *lines = json_lines(body)
    assert opening.keys() == {"type", "position", "recovered"} and opening["type"] == "open"
    return lines
