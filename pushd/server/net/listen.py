"""Listeners: open a port for each configured listener."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Sequence
from errno import EADDRINUSE

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from pushd.config import Listener, parse_endpoint
from pushd.errors import StartFailed
from pushd.server.net import tls
from pushd.server.net.polling import accept_few
from pushd.server.net.systemd_sockets import SystemdEndpoint
from pushd.server.net.unix_socket import UnixEndpoint, keep_file
from pushd.server.net.writer import TLSFactory

__all__ = ["Port", "prepare", "wants_certificate"]

_log = Logger()

_BACKLOG = 4096
"""How many connections may wait to be accepted; the kernel's own limit is somaxconn."""

_UNSENT_BYTES = 128 * 1024
"""How many bytes written to a connection may be unsent in the kernel.

By default the kernel accepts megabytes for a client that does not read; no outbox bounds those bytes, and none
can be dropped.
"""


class Port:
    """A configured listener. Everything is checked except whether its address is free."""

    def __init__(
        self,
        listener: Listener,
        endpoint: IStreamServerEndpoint,
        factory: IProtocolFactory,
        silence_s: float,
        self_signed: Callable[[], tuple[str, str]],
        credentials: tls.Credentials | None = None,
    ) -> None:
        """See `prepare`."""
        self._self_signed = self_signed
        self._credentials = credentials
        self._listener = listener
        self._endpoint = endpoint
        self._factory = factory
        self._port: IListeningPort | None = None
        self._made: os.stat_result | None = None
        self._silence_s = silence_s

    def open(self) -> None:
        """Start listening; raise `StartFailed` if the listener cannot be opened."""
        failures: list[Failure] = []
        maybeDeferred(self._endpoint.listen, self._factory).addCallbacks(self._opened, failures.append)
        if failures:
            error = failures[0].value
            if isinstance(error, CannotListenError):
                error = error.socketError
            reason = getattr(error, "strerror", None) or str(error)
            where = f"[listen:{self._listener.name}] {self._listener.endpoint}"
            cause = error if isinstance(error, Exception) else None
            is_socket = parse_endpoint(self._listener.endpoint).type == "unix"
            if getattr(error, "errno", None) == EADDRINUSE and not is_socket:
                section = f"[listen:{self._listener.name}]"
                reason += f"; choose another port, with endpoint in {section} of the file of --config"
            raise StartFailed(f"{where}: cannot listen: {reason}") from cause

    def _opened(self, port: IListeningPort) -> None:
        self._port = port
        accept_few(port)
        self._set_options(port)
        if isinstance(address := port.getHost(), UNIXAddress) and address.name and os.path.exists(address.name):
            self._made = os.lstat(address.name)

    def _set_options(self, port: IListeningPort) -> None:
        if isinstance(port, tcp.Port) and port.addressFamily in (socket.AF_INET, socket.AF_INET6):
            # accepted connections inherit both on Linux (tcp(7))
            port.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._silence_s * 1000))
            port.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)

    @property
    def listener(self) -> Listener:
        """The configuration of this listener."""
        return self._listener

    def renewed(self, listener: Listener) -> Callable[[], None]:
        """Read the certificates of `listener`; return a function that applies it to this port.

        Raises `StartFailed`, with nothing applied, if a certificate is invalid.
        """
        renew: Callable[[], None] = _nothing
        if self._credentials is not None:
            try:
                renew = self._credentials.renewed(_configured(listener) or self._self_signed, _clients(listener))
            except StartFailed as error:
                raise StartFailed(f"[listen:{listener.name}] {error}") from None

        def commit() -> None:
            self._listener = listener
            renew()

        return commit

    def set_silence(self, silence_s: float) -> None:
        """Set the TCP user timeout to `silence_s` seconds, for new connections."""
        self._silence_s = silence_s
        if self._port is not None:
            self._set_options(self._port)

    async def close(self) -> None:
        """Stop listening; open connections stay open."""
        if self._port is not None:
            port, self._port = self._port, None
            if keep_file(port, self._made):
                _log.warn(
                    "[listen:{name}] {endpoint}: another program has removed or replaced the socket's file",
                    name=self._listener.name,
                    endpoint=self._listener.endpoint,
                )
            stopping = port.stopListening()
            try:
                if isinstance(stopping, Deferred):
                    await stopping
            except OSError as error:  # the file of a Unix socket was removed
                _log.warn(
                    "[listen:{name}] {endpoint}: cannot be closed in order: {reason}",
                    name=self._listener.name,
                    endpoint=self._listener.endpoint,
                    reason=error.strerror,
                )

    @property
    def url(self) -> str:
        """The URL of the port once it is open; before, the configured endpoint."""
        if self._port is None:
            return self._listener.endpoint
        return _url(self._port.getHost(), "https" if self._listener.tls else "http")

    def curl(self, options: str, path: str) -> str:
        """Return an example curl command for the open port."""
        start, url = "curl", self.url
        if self._listener.tls:
            start += " -k"
        if wants_certificate(self._listener):
            start += " --cert CERTIFICATE --key KEY"
        if "+unix://" in url:
            scheme, socket = url.split("+unix://")
            start, url = f"{start} --unix-socket {socket}", f"{scheme}://localhost"
        return f"{start} {options} '{url}{path}'"


def prepare(
    listener: Listener,
    factory: IProtocolFactory,
    reactor: object,
    self_signed: Callable[[], tuple[str, str]],
    *,
    silence_s: float,
    behind_proxy: Callable[[IProtocolFactory], IProtocolFactory],
    sockets: Sequence[str] = (),
) -> Port:
    """Return the port of `listener`, which serves `factory`; raise `StartFailed` if its configuration is invalid.

    `self_signed` returns the paths of the certificate and key to use if none are configured. `silence_s` is the TCP
    user timeout: a connection is closed if the client acknowledges no data for that time. `behind_proxy` wraps the
    factory of a listener with the PROXY protocol. `sockets` are the names of the sockets passed by systemd; whether
    the listener's is among them is checked when the port is opened.
    """
    try:
        endpoint = _endpoint(listener.endpoint, reactor, sockets)
    except (ValueError, TypeError, LookupError, OSError) as error:
        where = f"[listen:{listener.name}] endpoint = {listener.endpoint}"
        raise StartFailed(f"{where}: not a Twisted server endpoint: {error}") from None
    credentials = None
    if listener.tls:
        try:
            credentials = tls.Credentials(_configured(listener) or self_signed, _clients(listener))
        except StartFailed as error:
            raise StartFailed(f"[listen:{listener.name}] {error}") from None
        factory = TLSFactory(credentials, False, factory)
    if listener.proxy_protocol:
        factory = behind_proxy(factory)  # the PROXY header precedes the TLS handshake
    return Port(listener, endpoint, factory, silence_s, self_signed, credentials)


def _configured(listener: Listener) -> Callable[[], tuple[str, str]] | None:
    """Return a function for the paths of the listener's certificate and key; None if they are not configured."""
    certificate, key = listener.certificate, listener.key
    return None if certificate is None or key is None else lambda: (certificate, key)


def wants_certificate(listener: Listener) -> bool:
    """Return whether `listener` rejects clients without a certificate."""
    return listener.client_ca is not None and listener.client_certificate == "required"


def _clients(listener: Listener) -> tls.Authorities | None:
    """Return the authorities for client certificates; None if the listener requests none."""
    return None if listener.client_ca is None else tls.Authorities(listener.client_ca, wants_certificate(listener))


def _endpoint(description: str, reactor: object, sockets: Sequence[str]) -> IStreamServerEndpoint:
    parsed = parse_endpoint(description)
    if parsed.type == "systemd":
        return SystemdEndpoint(reactor, description, sockets)
    endpoint: IStreamServerEndpoint = serverFromString(
        reactor, _without_lock_file(_with_mode(_with_backlog(description)))
    )
    return UnixEndpoint(endpoint, parsed.argument("address", 1)) if parsed.type == "unix" else endpoint


def _without_lock_file(description: str) -> str:
    """Disable Twisted's lock file for a Unix socket, because the process id in a stale one may have been reused."""
    endpoint = parse_endpoint(description)
    if endpoint.type != "unix" or endpoint.argument("lockfile", 4) not in ("", "0", "1"):
        return description
    by_place = [_escaped(text) for text in endpoint.args[:4]]
    named = [f"{name}={_escaped(value)}" for name, value in endpoint.named.items() if name != "lockfile"]
    return ":".join([*by_place, *named, "lockfile=0"])


def _escaped(text: str) -> str:
    return re.sub(r"([\\:=])", r"\\\1", text)


def _with_backlog(description: str) -> str:
    """Set a larger backlog than Twisted's default, unless `description` sets one.

    The default is 50: when a thousand clients reconnect at once, the others would retry after a second.
    """
    endpoint = parse_endpoint(description)
    place = {"tcp": 3, "tcp6": 2, "unix": 3}.get(endpoint.type)
    if place is None or endpoint.argument("backlog", place):
        return description
    return f"{description}:backlog={_BACKLOG}"


def _with_mode(description: str) -> str:
    """Restrict a Unix socket to the daemon's user and group, unless `description` sets a mode.

    Twisted's default allows every local user, and a client of a Unix socket may count as a trusted proxy.
    """
    endpoint = parse_endpoint(description)
    if endpoint.type != "unix" or endpoint.argument("mode", 2):
        return description
    return f"{description}:mode=660"


def _url(address: IAddress, scheme: str) -> str:
    if isinstance(address, UNIXAddress):
        return f"{scheme}+unix://{(address.name or b'').decode(errors='replace')}"
    if isinstance(address, IPv6Address):
        host = "localhost" if address.host == "::" else address.host
        return f"{scheme}://[{host}]:{address.port}" if ":" in host else f"{scheme}://{host}:{address.port}"
    if isinstance(address, IPv4Address):
        host = "localhost" if address.host == "0.0.0.0" else address.host
        return f"{scheme}://{host}:{address.port}"
    return str(address)


def _nothing() -> None:
    """Do nothing: the listener has no certificates."""
