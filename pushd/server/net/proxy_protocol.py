"""The PROXY protocol: a header, sent first by a proxy, with the addresses of the proxied connection.

This module implements versions 1 and 2 of haproxy's ``proxy-protocol.txt``. After the header, the connection is
handed to TLS, if any, and HTTP, with the addresses from the header.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address as IPv4
from ipaddress import IPv6Address as IPv6
from struct import Struct

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pushd.server.net.addresses import UnknownAddress, peer_name
from pushd.server.net.connections import LAST_WORD_S, Connections
from pushd.server.net.timers import Timer, TimerWheel
from pushd.server.net.trusted_proxies import TrustedProxies
from pushd.server.net.writer import ProxiedTransport, end_now

__all__ = ["Header", "ProxyProtocolFactory", "ProxyProtocolSettings", "parse_header"]

_MAX_V1_BYTES = 107
_MAX_V2_BYTES = 16 * 1024
"""The longest header of version 2, which may include details of a client certificate."""

_START_V1 = b"PROXY "
_START_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED_V2_BYTES = 16
_PORT = re.compile("0|[1-9][0-9]{0,4}")

_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_FIXED_V2 = Struct("!12xBBH")
_ADDRESSES = {_TCP4: Struct("!4s4sHH"), _TCP6: Struct("!16s16sHH"), _UNIX: Struct("!108s108s")}


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header of the PROXY protocol."""

    size: int
    """The size of the header in bytes."""

    addresses: tuple[IAddress, IAddress] | None
    """The client's address and the address it connected to; None if the header has none."""

    is_local: bool = False
    """Whether the proxy itself is the client, as in a health check."""


def parse_header(data: bytes) -> Header | None:
    """Parse the header at the start of `data`; return None if it is incomplete.

    Raises `ValueError` with the reason as soon as `data` cannot become a valid header.
    """
    if data.startswith(_START_V2):
        return _parse_v2(data)
    if data.startswith(_START_V1):
        return _parse_v1(data)
    if _START_V2.startswith(data) or _START_V1.startswith(data):
        return None
    raise ValueError("the PROXY protocol header is missing")


def _parse_v1(data: bytes) -> Header | None:
    """Parse the text form (section 2.1)."""
    line, end, _ = data[:_MAX_V1_BYTES].partition(b"\r\n")
    if not end:
        if len(data) >= _MAX_V1_BYTES:
            raise ValueError(f"the line of version 1 is longer than {_MAX_V1_BYTES} bytes")
        return None
    size = len(line) + 2
    words = line.decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return Header(size, None)
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ValueError("the line of version 1 is malformed")
    client, host, client_port, host_port = words[2:]
    address = _ipv4 if words[1] == "TCP4" else _ipv6
    return Header(size, (address(client, _port(client_port)), address(host, _port(host_port))))


def _ipv4(text: str, port: int) -> IAddress:
    try:
        return IPv4Address("TCP", str(IPv4(text)), port)
    except ValueError:
        raise ValueError("an address of version 1 is malformed") from None


def _ipv6(text: str, port: int) -> IAddress:
    try:
        address = IPv6(text)
    except ValueError:
        address = None
    if address is None or address.scope_id is not None:
        raise ValueError("an address of version 1 is malformed")
    return IPv6Address("TCP", str(address), port)


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise ValueError("a port of version 1 is malformed")
    return int(text)


def _parse_v2(data: bytes) -> Header | None:
    """Parse the binary form (section 2.2). The TLVs after the addresses are ignored."""
    if len(data) < _FIXED_V2_BYTES:
        return None
    command, family, length = _FIXED_V2.unpack_from(data)
    size = _FIXED_V2_BYTES + length
    if command not in (_LOCAL, _PROXY):
        raise ValueError(f"version and command of version 2 are 0x{command:02x}; expected 0x20 or 0x21")
    if size > _MAX_V2_BYTES:
        raise ValueError(f"the header of version 2 is longer than {_MAX_V2_BYTES} bytes")
    addresses = _ADDRESSES.get(family)
    if command == _PROXY and family != _UNSPECIFIED:
        if addresses is None:
            raise ValueError(f"the family of version 2 is 0x{family:02x}; expected 0x11, 0x21, 0x31 or 0x00")
        if length < addresses.size:
            raise ValueError(f"the header of version 2 is too short for its family, 0x{family:02x}")
    if len(data) < size:
        return None
    if command == _LOCAL or addresses is None:
        return Header(size, None, command == _LOCAL)
    return Header(size, _unpack(family, addresses.unpack_from(data, _FIXED_V2_BYTES)))


def _unpack(family: int, fields: tuple[bytes, bytes, int, int]) -> tuple[IAddress, IAddress]:
    client, host, *ports = fields
    if family == _UNIX:
        return _unix(client), _unix(host)
    if family == _TCP4:
        return IPv4Address("TCP", str(IPv4(client)), ports[0]), IPv4Address("TCP", str(IPv4(host)), ports[1])
    return IPv6Address("TCP", str(IPv6(client)), ports[0]), IPv6Address("TCP", str(IPv6(host)), ports[1])


def _unix(path: bytes) -> UNIXAddress:
    return UNIXAddress(path.rstrip(b"\0") or None)


@dataclass(frozen=True, slots=True)
class ProxyProtocolSettings:
    """The settings shared by all connections with a PROXY header."""

    trust: TrustedProxies
    """The proxies that may connect."""

    connections: Connections
    """The set that contains a connection until its header is complete."""

    wheel: TimerWheel
    """The timer wheel for the timeout."""

    timeout_s: float
    """The time limit for the header, in seconds."""

    def __call__(self, factory: IProtocolFactory) -> ProxyProtocolFactory:
        """Return a factory that parses the header and serves the connection with `factory`."""
        return ProxyProtocolFactory(self, factory)


class ProxyProtocolFactory(Factory[Protocol]):
    """Accepts connections from trusted proxies only."""

    noisy = False
    log = Logger()

    def __init__(self, settings: ProxyProtocolSettings, inner: IProtocolFactory) -> None:
        """Build the protocol after the header with `inner`."""
        self._settings = settings
        self._inner = inner

    def doStart(self) -> None:
        """Override: called when a port is opened."""
        super().doStart()
        self._inner.doStart()

    def doStop(self) -> None:
        """Override: called when a port is closed."""
        self._inner.doStop()
        super().doStop()

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Override: return the protocol of a new connection; None, which closes it, if `addr` is not trusted."""
        if addr is None or not self._settings.trust.is_trusted(addr):
            self.log.info(
                "refused a connection from {peer}: only those in [proxies] trusted may speak the PROXY protocol",
                peer="nowhere" if addr is None else peer_name(addr),
            )
            return None
        return _Introduced(self._settings, self._inner.buildProtocol)


@implementer(IHalfCloseableProtocol)
class _Introduced(Protocol):
    """Parses the header and forwards all later input."""

    log = Logger()

    def __init__(self, settings: ProxyProtocolSettings, build: Callable[[IAddress], IProtocol | None]) -> None:
        self._settings = settings
        self._build = build
        self._received = b""
        self._protocol: IProtocol | None = None
        self._alarm: Timer | None = None
        self._is_refused = False

    def connectionMade(self) -> None:
        """Override: called when the connection is established."""
        settings = self._settings
        settings.connections.add(self)
        self._alarm = settings.wheel.call_in(settings.timeout_s, self._late)

    def dataReceived(self, data: bytes) -> None:
        """Override: called when bytes of the header, or after it, are received."""
        if self._protocol is not None:
            self._protocol.dataReceived(data)
            return
        if self._is_refused:
            return
        self._received += data
        try:
            header = parse_header(self._received)
        except ValueError as error:
            self._refuse(str(error))
            return
        if header is not None:
            rest, self._received = self._received[header.size :], b""
            self._begin(header, rest)

    def _begin(self, header: Header, rest: bytes) -> None:
        """Start the inner protocol with the addresses of `header`, and pass it `rest`."""
        assert self.transport is not None
        peer, host = self.transport.getPeer(), self.transport.getHost()
        if header.addresses is not None:
            peer, host = header.addresses
        elif not header.is_local:
            peer = UnknownAddress(peer)
        self._stop_waiting()
        protocol = self._build(peer)
        if protocol is None:
            self._is_refused = True
            self.abort()
            return
        self._protocol = protocol
        protocol.makeConnection(ProxiedTransport(self.transport, peer, host))  # type: ignore[arg-type]
        self._settings.connections.discard(self)
        if rest:
            protocol.dataReceived(rest)

    def _late(self) -> None:
        self._refuse(f"no PROXY protocol header within {self._settings.timeout_s:g} s")

    def _refuse(self, why: str) -> None:
        assert self.transport is not None
        self.log.info("refused a connection from {peer}: {why}", peer=peer_name(self.transport.getPeer()), why=why)
        self._is_refused = True
        self._received = b""
        self._stop_waiting()
        self.abort()

    def _stop_waiting(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def readConnectionLost(self) -> None:
        """Override: called when the client or its proxy closes its half of the connection."""
        protocol = IHalfCloseableProtocol(self._protocol, None)
        if protocol is None:
            end_now(self.transport)
        else:
            protocol.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """Override: required by the interface; never called, as both directions are closed at once."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Override: called when the connection is lost."""
        self._stop_waiting()
        self._settings.connections.discard(self)
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connectionLost(reason)

    def finish(self) -> None:
        """Close the connection unless its header is complete within `LAST_WORD_S`."""
        self._stop_waiting()
        self._alarm = self._settings.wheel.call_in(LAST_WORD_S, self.abort)

    def abort(self) -> None:
        """Abort the connection; unsent output is lost."""
        transport = ITCPTransport(self.transport, None)
        if transport is not None:
            transport.abortConnection()
