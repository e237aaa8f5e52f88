"""The whole daemon in memory, and clients for it that are not made of its code.

A `Rig` is the daemon on a clock in hand; a `Connection` to it behaves as a TCP connection of Twisted does, to the
byte: what is written is sent in the next turn of the reactor, a producer is paused once 64 KiB wait, and what waits
when a connection is aborted is lost.
"""

from __future__ import annotations

import json
import re
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast
from urllib.parse import quote, urlencode

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, execute
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IAddress, IConsumer, IProducer, IPushProducer, ITCPTransport
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response as HandshakeResponse
from websockets.protocol import Protocol as WebSocketProtocol
from websockets.protocol import State
from websockets.uri import parse_uri
from zope.interface import implementer

from pushd.bus.counters import Counters
from pushd.config.loader import parse
from pushd.config.settings import Config
from pushd.daemon.assembly import Components, StoreParts, assemble
from pushd.daemon.integrations import ALONE, Integrations
from pushd.daemon.service import Daemon
from pushd.server.http2.connection import HTTP2
from pushd.store.sqlite.store import Store
from pushd.store.sqlite.worker import Worker

__all__ = [
    "STARTED",
    "Client",
    "Connection",
    "DaemonTests",
    "EventStream",
    "HttpClient",
    "InTurn",
    "Response",
    "Rig",
    "SseEvent",
    "StoredRig",
    "Traces",
    "WebSocketClient",
    "WebSocketTalk",
    "json_lines",
    "query",
    "stream_lines",
]

STARTED = 1_700_000_000.0
"""The time of day, in seconds since 1970, when the daemon of a rig starts."""

HIGH_WATER_BYTES = 2**16
"""How much waits in a connection before it pauses its producer: `twisted.internet.abstract.FileDescriptor`."""

LOCALHOST = IPv4Address("TCP", "127.0.0.1", 8080)
"""What clients connect to, unless they say something else."""

_LISTEN = "[listen:http]\nendpoint = tcp:8080:interface=127.0.0.1\n"


def query(**parameters: str | Sequence[str] | int | None) -> str:
    """Write a query; a parameter that is a list is there for each of its items, one that is None is not."""
    return urlencode({name: value for name, value in parameters.items() if value is not None}, doseq=True)


# ---- the daemon


@dataclass(frozen=True)
class Traces:
    """What subscribers leave in a daemon."""

    subscribers: int
    sessions: int
    alarms: int
    channels: int


class Rig:
    """A daemon without ports."""

    def __init__(
        self,
        config: str = "",
        http: Callable[[Rig], Client] = lambda rig: HttpClient(rig),
        outside: Integrations = ALONE,
    ) -> None:
        """Start a daemon with the text of an ini file, whose clients speak `http`.

        It has to do with `outside`. It takes WebSockets over HTTP/2 unless the file has a section about that.
        """
        self._http = http
        self._outside = outside
        self.comes_from: str | None = "127.0.0.1"
        """From which address clients come now; None: by a Unix socket."""
        self.failures: list[object] = []
        self.chance: Callable[[], float] = lambda: 0.5
        """Draws a number from 0 to 1 where something is left to chance."""
        self._started = STARTED
        self._launch(config)

    def _launch(self, config: str) -> None:
        """Start a daemon."""
        self._config = config
        self.reactor = MemoryReactorClock()
        settings = self._read_config(config)
        self.parts = self._assemble(settings)
        self._daemon = Daemon(
            settings,
            self.parts,
            self.reactor,
            state_directory="/nowhere",
            fail=self.failures.append,
            random=lambda: self.chance(),
            reread=lambda: self._read_config(self._config),
            reach=lambda config: (self._outside, lambda: None),
        )
        self._daemon.privilegedStartService()
        self._daemon.startService()
        self.reactor.advance(0)

    @staticmethod
    def _read_config(config: str) -> Config:
        http2 = "" if "[http2]" in config else "\n[http2]\nwebsocket = yes\n"
        return parse(_LISTEN + config + http2, "the test")

    def reload(self, config: str, outside: Integrations | None = None) -> None:
        """Have another configuration read, as SIGHUP does, and `outside` be what is reached, if it is another."""
        self._config = config
        self._outside = self._outside if outside is None else outside
        self._daemon.reload()

    def _assemble(self, settings: Config) -> Components:
        return assemble(settings, self.reactor, seconds=self.reactor.seconds, now=self.now, outside=self._outside)

    def now(self) -> float:
        """The time of day, in seconds since 1970."""
        return self._started + self.reactor.seconds()

    def turn(self) -> None:
        """Let the reactor run until there is nothing left to do at this moment."""
        self.reactor.advance(0)

    def wait(self, seconds: int) -> None:
        """Let time pass, second by second."""
        for _ in range(seconds):
            self.reactor.advance(1)
            self.turn()

    def stop(self) -> Deferred[None]:
        """Stop the daemon, which takes a while; answer when it has."""
        return self._daemon.stopService()

    def restart(
        self,
        *,
        config: str | None = None,
        after_s: float = 0,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        """Stop the daemon as SIGTERM does and start it `after_s` later, with another `config` if there is one.

        `meanwhile` is called when it has stopped.
        """
        stopped = self.stop()
        while not stopped.called:
            self.wait(1)
        meanwhile()
        self.start_again(config, after_s)

    def crash(self, *, config: str | None = None, after_s: float = 0) -> None:
        """End the daemon as kill -9 does: clients have what was sent to them, and nothing is said or written."""
        self.start_again(config, after_s)

    def start_again(self, config: str | None = None, after_s: float = 0) -> None:
        """Start a daemon that has ended, `after_s` later."""
        self._started = self.now() + after_s
        self._launch(self._config if config is None else config)

    @property
    def traces(self) -> Traces:
        """What is there now."""
        parts = self.parts
        return Traces(parts.bus.subscribers, len(parts.sessions), len(parts.sessions.wheel), len(parts.bus.log))

    @property
    def delayed(self) -> list[float]:
        """When the calls are due that the reactor is to make later, but those of each second."""
        return [
            call.getTime()
            for call in self.reactor.getDelayedCalls()
            if type(call.func).__name__ != "LoopingCall"  # type: ignore[attr-defined]
        ]

    def _work(self) -> None:
        """Do what is left to do before a request is answered: in memory, nothing."""

    # Requests on connections of their own

    def connect(self, host: IAddress = LOCALHOST, peer: IAddress | None = None) -> Connection:
        """Open a connection to the address `host`, from `peer`, or from this machine."""
        return Connection(self, host, peer=peer)

    def client(self) -> Client:
        """Connect a client."""
        return self._http(self)

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Sequence[tuple[str, str]] | Mapping[str, str] = (),
        body: bytes = b"",
        host: str = "localhost",
    ) -> Response:
        """Make one request without letting time pass; return what has been written of the response."""
        return self._answer(self.client(), method, target, headers=headers, body=body, host=host)

    def _answer(self, client: Client, *arguments: str, **more: Any) -> Response:
        client.send(*arguments, **more)
        self._work()
        (response,) = client.written
        client.connection.disconnect()
        return response

    def get(self, target: str, **headers: str) -> Response:
        """Make a ``GET`` request."""
        return self.request("GET", target, headers={name.replace("_", "-"): it for name, it in headers.items()})

    def publish(self, channel: str, data: bytes = b"x", *, id: str | None = None, event: str | None = None) -> str:
        """Publish over HTTP/1.1, which must succeed, without letting time pass; answer the id."""
        target = f"/channels/{quote(channel, safe='')}?{query(id=id, event=event)}"
        response = self._answer(HttpClient(self), "POST", target, body=data)
        assert response.status == (200 if response.json.get("duplicate") else 201), response
        event_id: str = response.json["id"]
        return event_id

    def publish_each(self, channel: str, *each: bytes) -> list[str]:
        """Publish several events; answer their ids."""
        return [self.publish(channel, data) for data in each]

    def publish_many(self, *drafts: Mapping[str, object]) -> list[dict[str, Any]]:
        """Publish a batch, letting turns pass if it is long; return what was said of each."""
        body = b"".join(json.dumps(draft).encode() + b"\n" for draft in drafts)
        client = HttpClient(self)
        client.send("POST", "/publish", body=body)
        self._work()
        while not client.written[0].is_complete:  # a long batch takes several turns
            self.turn()
        (response,) = client.written
        client.connection.disconnect()
        assert response.status == 200, response
        return json_lines(response.body)


class InTurn:
    """A `Worker` without a thread: what it is to do is done at once, or when the test says."""

    def __init__(self) -> None:
        self.is_held = False
        """Whether it waits for `release`."""
        self._waiting: list[Callable[[], object]] = []

    def start(self) -> None:
        """See `Worker`."""

    def stop(self) -> None:
        """See `Worker`."""
        self.release()

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """See `Worker`."""
        called: Deferred[Any] = Deferred()
        self._waiting.append(lambda: execute(function, *arguments).chainDeferred(called))
        if not self.is_held:
            self.release()
        return called

    def release(self) -> None:
        """Do what waits."""
        self.is_held = False
        while self._waiting:
            self._waiting.pop(0)()


class StoredRig(Rig):
    """A daemon without ports whose store is a file, so that it can go on where it was."""

    worker: InTurn

    def __init__(
        self,
        directory: Path,
        config: str = "",
        http: Callable[[Rig], Client] = lambda rig: HttpClient(rig),
        outside: Integrations = ALONE,
    ) -> None:
        """Start a daemon as a `Rig` does, whose store is in `directory`."""
        self.directory = directory
        super().__init__(config, http, outside)

    def _assemble(self, settings: Config) -> Components:
        self.worker, figures = InTurn(), Counters()
        self._store = Store(
            self.directory,
            is_safe=settings.durability == "power",
            recent_bytes=settings.store_memory_bytes,
            size_bytes=settings.store_size_bytes,
            now=self.now,
            seconds=self.reactor.seconds,
            figures=figures,
        )
        return assemble(
            settings,
            self.reactor,
            seconds=self.reactor.seconds,
            now=self.now,
            store=(self._store, cast(Worker, self.worker)),
            outside=self._outside,
            figures=figures,
        )

    @property
    def storage(self) -> StoreParts:
        """The store and what works for it."""
        storage = self.parts.storage
        assert storage is not None
        return storage

    def _work(self) -> None:
        """Override: a request that writes is answered at the end of a turn."""
        self.turn()

    def crash(self, *, config: str | None = None, after_s: float = 0) -> None:
        """Override: the files are as they were at this moment."""
        self.abandon()
        self.start_again(config, after_s)

    def abandon(self) -> None:
        """End the daemon as kill -9 does, and do not start it again.

        What closing the connections would write to the files is taken back.
        """
        store = self._store
        paths = [store.path, store.path.with_name(f"{store.path.name}-wal")]
        before = {path: path.read_bytes() for path in paths if path.exists()}
        for connection in (store._reader, store._mover, store._writer):
            connection.close()
        for path, data in before.items():
            with open(path, "r+b" if path.exists() else "wb") as file:  # a copy would be another file
                file.truncate(0)
                file.write(data)
        store._lock.close()


# ---- connections


@implementer(ITCPTransport, IConsumer, IPushProducer)
class _Socket:
    """The daemon's end of a connection: a transport that behaves as `twisted.internet.tcp.Connection`."""

    def __init__(self, connection: Connection, host: IAddress, peer: IAddress) -> None:
        self._connection = connection
        self._host, self._peer = host, peer
        self._reactor = connection.rig.reactor
        self._unsent = bytearray()
        self._unread: list[bytes] = []
        self._is_scheduled = False
        self._producer: IProducer | None = None
        self._is_streaming = False
        self._is_producer_paused = False
        self.is_reading = True
        self.disconnecting = False
        self.is_lost = False
        self.was_aborted = False
        self.is_at_end = False

    # ITCPTransport

    def write(self, data: bytes) -> None:
        """See `ITransport`."""
        assert isinstance(data, bytes), data
        if self.is_lost or not data:
            return
        self._connection.writes.append(data)
        self._unsent += data
        if len(self._unsent) > HIGH_WATER_BYTES:
            self.pause_producer()
        self._schedule()

    def writeSequence(self, data: Any) -> None:
        """See `ITransport`."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """See `ITransport`."""
        if not self.is_lost and not self.disconnecting:
            self.disconnecting = True
            self._schedule()

    def abortConnection(self) -> None:
        """See `ITCPTransport`."""
        if not self.is_lost and not self.was_aborted:
            self.was_aborted = True
            self.disconnecting = True
            self._reactor.callLater(0, self.lose, ConnectionAborted())

    def loseWriteConnection(self) -> None:
        """See `ITCPTransport`."""
        raise NotImplementedError

    def getHost(self) -> Any:
        """See `ITransport`."""
        return self._host

    def getPeer(self) -> Any:
        """See `ITransport`."""
        return self._peer

    def getTcpNoDelay(self) -> bool:
        """See `ITCPTransport`."""
        return True

    def setTcpNoDelay(self, enabled: object) -> None:
        """See `ITCPTransport`."""

    def getTcpKeepAlive(self) -> bool:
        """See `ITCPTransport`."""
        return False

    def setTcpKeepAlive(self, enabled: object) -> None:
        """See `ITCPTransport`."""

    # IConsumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See `IConsumer`."""
        if self._producer is not None:
            raise RuntimeError(f"cannot register {producer!r}: {self._producer!r} is registered")
        if self.is_lost:
            producer.stopProducing()
            return
        self._producer, self._is_streaming = producer, streaming
        if not streaming:
            producer.resumeProducing()  # type: ignore[attr-defined]

    def unregisterProducer(self) -> None:
        """See `IConsumer`."""
        self._producer = None
        if self.disconnecting:
            self._schedule()

    # IPushProducer: what the protocol uses to read more slowly

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""
        self.is_reading = False

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""
        if not self.is_lost and not self.disconnecting:
            self.is_reading = True
            self._reactor.callLater(0, self._deliver)

    def stopProducing(self) -> None:
        """See `IPushProducer`."""
        self.loseConnection()

    # The network

    def pause_producer(self) -> None:
        """Tell the producer that the client takes no more."""
        if self._producer is not None and self._is_streaming and not self._is_producer_paused:
            self._is_producer_paused = True
            self._producer.pauseProducing()  # type: ignore[attr-defined]

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._reactor.callLater(0, self.drain)

    def drain(self) -> None:
        """Send what waits, if the client takes it."""
        self._is_scheduled = False
        if self.is_lost or self.was_aborted or not self._connection.is_reading:
            return
        data, self._unsent = bytes(self._unsent), bytearray()
        if data:
            self._connection.take(data)
        if self._unsent or self.is_lost:
            return
        if self._producer is not None and (not self._is_streaming or self._is_producer_paused):
            self._is_producer_paused = False
            self._producer.resumeProducing()  # type: ignore[attr-defined]
        elif self.disconnecting and not self.was_aborted:
            self.lose(ConnectionDone())

    def receive(self, data: bytes) -> None:
        """Take what the client sends."""
        self._unread.append(data)
        self._deliver()

    def _deliver(self) -> None:
        while self._unread and self.is_reading and not self.disconnecting and not self.is_lost:
            self._connection.protocol.dataReceived(self._unread.pop(0))
        if self.is_at_end and self.is_reading and not self.disconnecting and not self.is_lost:
            self.is_reading = False
            self._connection.protocol.readConnectionLost()

    def connectionLost(self, reason: Failure) -> None:
        """See `twisted.internet.tcp.Connection`."""
        assert isinstance(reason.value, Exception)
        self.lose(reason.value)

    def lose(self, error: Exception) -> None:
        """End the connection."""
        if self.is_lost:
            return
        self.is_lost = True
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self._connection.protocol.connectionLost(Failure(error))
        self._connection.ended()


def _address(host: str | None, port: int) -> IAddress:
    if host is None:
        return UNIXAddress(None)
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


class Connection:
    """A client's end of a connection to the daemon."""

    _ports = count(50_000)

    def __init__(
        self, rig: Rig, host: IAddress = LOCALHOST, *, is_http2: bool = False, peer: IAddress | None = None
    ) -> None:
        self.rig = rig
        self.received = b""
        """Everything that has come."""
        self.writes: list[bytes] = []
        """Everything that the daemon has written, by its writes."""
        self.is_reading = True
        self.cut_after: int | None = None
        """After how many bytes it breaks; None if it does not."""
        self.on_data: Callable[[], None] = lambda: None
        """Called when something has come, and at the end."""
        peer = peer or _address(rig.comes_from, next(self._ports))
        self._socket = _Socket(self, host, peer)
        site = rig.parts.site
        self.protocol: Any = HTTP2(site._http2) if is_http2 else site.buildProtocol(peer)
        self.protocol.makeConnection(self._socket)

    @property
    def is_open(self) -> bool:
        """False once the connection has ended."""
        return not self._socket.is_lost

    @property
    def was_aborted(self) -> bool:
        """True if the daemon threw away what waited to be sent."""
        return self._socket.was_aborted

    @property
    def is_read(self) -> bool:
        """Whether the daemon takes what is sent."""
        return self._socket.is_reading and not self._socket.disconnecting and self.is_open

    def send(self, data: bytes) -> None:
        """Send `data` as one segment."""
        self._socket.receive(data)

    def end_input(self) -> None:
        """Send nothing more, but go on reading."""
        self._socket.is_at_end = True
        self._socket._deliver()

    def disconnect(self) -> None:
        """Close the connection from this side."""
        self._socket.lose(ConnectionDone())

    def stop_reading(self) -> None:
        """Take nothing more, so that everything between here and the daemon is full."""
        self.is_reading = False
        self._socket.pause_producer()

    def start_reading(self) -> None:
        """Take everything again."""
        self.is_reading = True
        self.rig.reactor.callLater(0, self._socket.drain)
        self.rig.turn()

    def take(self, data: bytes) -> None:
        """Receive `data` from the daemon."""
        if self.cut_after is None:
            self.received += data
            self.on_data()
            return
        self.received = (self.received + data)[: self.cut_after]
        if len(self.received) == self.cut_after:
            self.disconnect()
        else:
            self.on_data()

    def ended(self) -> None:
        """Learn that the connection has ended."""
        self.on_data()


# ---- HTTP


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

    def __init__(self, rig: Rig) -> None:
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

    def __init__(self, rig: Rig, host: IAddress = LOCALHOST, peer: IAddress | None = None) -> None:
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


def stream_lines(body: bytes) -> list[dict[str, Any]]:
    """Read the lines of NDJSON that follow the opening of a stream."""
    opening, *lines = json_lines(body)
    assert opening.keys() == {"type", "position", "recovered"} and opening["type"] == "open"
    return lines


@dataclass(frozen=True)
class SseEvent:
    """An event that an `EventSource` dispatches."""

    type: str
    data: str
    last_event_id: str


class EventStream:
    """What an `EventSource` makes of the body of a response: WHATWG HTML, section 9.2.6."""

    def __init__(self, body: bytes) -> None:
        self.events: list[SseEvent] = []
        """Those that follow ``pushd.open``."""
        self.opened: dict[str, Any] | None = None
        """The data of ``pushd.open``, with which it begins."""
        self.comments: list[str] = []
        self.retry_ms: int | None = None
        self.last_event_id = ""
        self._id, self._type = "", ""
        self._data: list[str] = []
        text = getincrementaldecoder("utf-8")("replace").decode(body)
        for line in re.split(r"\r\n|\n|\r", text.removeprefix("\ufeff"))[:-1]:
            if not line:
                self._dispatch()
            elif line.startswith(":"):
                self.comments.append(line[1:])
            else:
                name, _, value = line.partition(":")
                self._field(name, value.removeprefix(" "))

    def _field(self, name: str, value: str) -> None:
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        if self._data and self._type == "pushd.open":
            assert not self.events and self.opened is None
            self.opened = json.loads("\n".join(self._data))
            assert self.opened is not None and self.opened["position"] == self._id
        elif self._data:
            self.events.append(SseEvent(self._type or "message", "\n".join(self._data), self._id))
        self._type, self._data = "", []


# ---- WebSocket


class WebSocketTalk:
    """The client's end of a WebSocket: the sans-I/O protocol of the websockets library, on some connection."""

    connection: Any
    """What it is on: a `Connection`, or what behaves as one."""

    def __init__(self, protocol: WebSocketProtocol) -> None:
        self.protocol = protocol
        self.messages: list[str | bytes] = []
        """What has come."""
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.answers_pings = True
        self._consumed = 0
        self._is_ended = False

    def _process(self) -> None:
        data = self.connection.received[self._consumed :]
        self._consumed += len(data)
        if data:
            self.protocol.receive_data(data)
        if not self.connection.is_open and not self._is_ended:
            self._is_ended = True
            self.protocol.receive_eof()
        for event in self.protocol.events_received():
            if isinstance(event, HandshakeResponse):
                self.shook_hands(event)
            elif isinstance(event, Frame):
                self._take(event)
        out = b"".join(self.protocol.data_to_send())
        if out and self.answers_pings and self.connection.is_open:
            self.connection.send(out)

    def _take(self, frame: Frame) -> None:
        data = bytes(frame.data)
        if frame.opcode is Opcode.TEXT:
            assert frame.fin
            self.messages.append(data.decode())
        elif frame.opcode is Opcode.BINARY:
            assert frame.fin
            self.messages.append(data)
        elif frame.opcode is Opcode.PING:
            self.pings.append(data)
        elif frame.opcode is Opcode.PONG:
            self.pongs.append(data)

    @property
    def is_open(self) -> bool:
        """True after the handshake and before a close frame."""
        return self.protocol.state is State.OPEN and self.connection.is_open

    @property
    def close(self) -> tuple[int, str] | None:
        """The code and the reason in the daemon's close frame, if one has come."""
        received = self.protocol.close_rcvd
        return None if received is None else (int(received.code), received.reason)

    @property
    def json(self) -> list[dict[str, Any]]:
        """The messages, which must be JSON objects in text."""
        found = []
        for message in self.messages:
            assert isinstance(message, str), message
            found.append(json.loads(message))
        return found

    def say(self, **message: object) -> None:
        """Send a JSON message."""
        self.send(json.dumps(message))

    def send(self, message: str | bytes) -> None:
        """Send a message, as text or as bytes."""
        if isinstance(message, str):
            self.protocol.send_text(message.encode("utf-8", "surrogatepass"))
        else:
            self.protocol.send_binary(message)
        self.flush()

    def flush(self) -> None:
        """Send what the protocol has to send."""
        self.connection.send(b"".join(self.protocol.data_to_send()))

    def shook_hands(self, response: HandshakeResponse) -> None:
        """Learn what the daemon has answered to a handshake over HTTP/1.1."""
        raise NotImplementedError


class WebSocketClient(WebSocketTalk):
    """A WebSocket over HTTP/1.1."""

    connection: Connection
    protocol: ClientProtocol

    def __init__(
        self,
        rig: Rig,
        target: str,
        *,
        then: bytes = b"",
        origin: str | None = None,
        fields: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Connect to `target`, with more header `fields`; `then` is sent in the same segment as the handshake."""
        uri = parse_uri(f"ws://localhost{target}")
        super().__init__(ClientProtocol(uri, max_size=None, origin=origin))  # type: ignore[arg-type]
        self.handshake: HandshakeResponse | None = None
        self.connection = rig.connect()
        self.connection.on_data = self._process
        request = self.protocol.connect()
        for name, value in fields:
            request.headers[name] = value
        self.protocol.send_request(request)
        self.connection.send(b"".join(self.protocol.data_to_send()) + then)

    def shook_hands(self, response: HandshakeResponse) -> None:
        """Override: keep it."""
        self.handshake = response


# ---- tests


class DaemonTests(SynchronousTestCase):
    """Tests of a daemon, whose ini file is `config`."""

    config = ""

    http: ClassVar[type[Client]] = HttpClient
    """What its clients speak."""

    world: Integrations = ALONE
    """What reaches beyond the daemon."""

    def setUp(self) -> None:
        """Start it."""
        super().setUp()
        self.start(self.config)

    def start(self, config: str = "") -> None:
        """Start a daemon, instead of the one that is there."""
        self.rig = Rig(config, self.http, self.world)

    def assert_problem(self, response: Response, status: int, *, field: str | None = None, says: str = "") -> None:
        """The response is a complete problem document (RFC 9457) about `field`, which says so in its detail."""
        self.assertEqual(response.status, status, response)
        self.assertTrue(response.is_complete, response)
        self.assertEqual(response.header("content-type"), "application/problem+json")
        problem = json.loads(response.body)
        self.assertEqual(problem["status"], status)
        self.assertIsInstance(problem["title"], str)
        self.assertEqual(problem.get("field"), field, problem)
        self.assertIn(says, problem["detail"])
        self.assertGreater(len(problem["detail"]), 10)
        self.assertEqual(response.header("x-request-id"), problem["request_id"])
        self.assertRegex(problem["request_id"], r"\A[A-Za-z0-9._~+/=:@-]+\Z")

    def assert_no_traces(self, before: Traces) -> None:
        """Everything that came after `before` is gone."""
        self.assertEqual(self.rig.traces, before)
