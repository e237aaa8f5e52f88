"""The HTTP client of webhooks and key sets: requests within limits of time and size, over verified TLS.

It uses one private name of Twisted, ``transport._producer``: no public name gives access to the connection of a
response, to abort it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any

from OpenSSL import SSL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    ConnectionDone,
    DNSLookupError,
)
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import (  # type: ignore[attr-defined]  # of which one is not in its __all__
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    RequestGenerationFailed,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS, IResponse
from zope.interface import implementer

from pushd.auth.deadlines import Deadlines
from pushd.auth.endpoints import QuietEndpoints
from pushd.errors import PushdError

__all__ = ["HttpClient", "RequestFailed", "Response"]

_MAX_IDLE_S = 4
"""Idle timeout of connections, in seconds: servers close theirs after 5 seconds (Node) or later."""

_FAULTS = (
    CancelledError,
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    DNSLookupError,
    RequestGenerationFailed,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseFailed,
    SSL.Error,
)
"""Exceptions of a failed request; they have no common base class."""


class RequestFailed(PushdError):
    """A request got no response, or none within the limits. The text is the reason, on one line."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response, whatever its status."""

    status: int
    """HTTP status."""

    headers: Headers
    """Header fields."""

    body: bytes
    """Body, within the limit of the client."""


class HttpClient:
    """Sends requests and reads the responses, within limits of time and size.

    Redirects are not followed, cookies not kept, and compressed responses rejected.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        timeout_s: float,
        max_bytes: int,
        max_idle: int = 0,
        policy: IPolicyForHTTPS | None = None,
    ) -> None:
        """Allow `timeout_s` for a request, and `max_bytes` for the body of its response.

        `max_idle` is the maximum number of idle connections kept for each host. `policy` verifies certificates, by
        default with the system's trust store.
        """
        self._reactor = reactor
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._deadlines = Deadlines(reactor, timeout_s)
        self._pool = HTTPConnectionPool(reactor, persistent=max_idle > 0)
        self._pool.maxPersistentPerHost = max_idle
        self._pool.cachedConnectionTimeout = _MAX_IDLE_S
        endpoints = QuietEndpoints(reactor, policy or BrowserLikePolicyForHTTPS(), timeout_s + 1)
        no_cookies = IndexableCookieJar(DefaultCookiePolicy(allowed_domains=()))
        self._kept, self._new = (
            HTTPClient(_Plain(Agent.usingEndpointFactory(reactor, endpoints, pool)), no_cookies, _Body)
            for pool in (self._pool, HTTPConnectionPool(reactor, persistent=False))
        )

    async def request(
        self, method: str, url: str, fields: Mapping[str, str], body: bytes | None = None
    ) -> Response:
        """Send a request with the header `fields`; return the response, or raise `RequestFailed`."""
        exchange = Deferred.fromCoroutine(self._exchange(method, url, fields, body))
        self._deadlines.add(exchange)
        try:
            return await exchange
        except _FAULTS as error:
            cause = _cause(error)
            if not isinstance(cause, CancelledError | ConnectingCancelledError):
                raise RequestFailed(_why(cause)) from None
            if self._deadlines.done(exchange):
                raise CancelledError from None
            raise RequestFailed(f"there was no answer within {self._timeout_s:g} s") from None
        finally:
            self._deadlines.done(exchange)

    async def close(self) -> None:
        """Close the idle connections."""
        await self._pool.closeCachedConnections()

    async def _exchange(self, method: str, url: str, fields: Mapping[str, str], body: bytes | None) -> Response:
        """Send a request; retry once, on a new connection, if its connection closed before any response.

        The server may close an idle connection just when a request is sent on it.
        """
        try:
            response = await self._send(self._kept, method, url, fields, body)
        except (RequestNotSent, RequestTransmissionFailed, ResponseNeverReceived) as error:
            if not _has_only_ended(error):
                raise
            response = await self._send(self._new, method, url, fields, body)
        reader = _Reader(self._max_bytes)
        response.deliverBody(reader)
        return Response(response.code, response.headers, await reader.done)

    def _send(
        self, client: HTTPClient, method: str, url: str, fields: Mapping[str, str], body: bytes | None
    ) -> Deferred[Any]:
        headers = Headers({name: [value] for name, value in {"user-agent": "pushd", **fields}.items()})
        return client.request(
            method, url, headers=headers, data=body, allow_redirects=False, unbuffered=True, reactor=self._reactor
        )


@implementer(IBodyProducer)
class _Body:
    """A request body written at once; treq's own body producer would use the global reactor."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """See `IBodyProducer`."""
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """See `IPushProducer`."""

    def resumeProducing(self) -> None:
        """See `IPushProducer`."""

    def stopProducing(self) -> None:
        """See `IProducer`."""


@implementer(IAgent)
class _Plain:
    """Rejects compressed responses: a small one may decompress to a very large one."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """See `IAgent`."""
        headers = Headers() if headers is None else headers.copy()
        headers.setRawHeaders("accept-encoding", ["identity"])
        return self._agent.request(method, uri, headers, bodyProducer).addCallback(self._check)

    def _check(self, response: IResponse) -> IResponse:
        codings = response.headers.getRawHeaders("content-encoding") or ["identity"]
        if [coding.strip().lower() for coding in codings] != ["identity"]:
            reader = _Reader(0)
            reader.done.addErrback(lambda failure: None)
            response.deliverBody(reader)
            raise RequestFailed(f"the answer has the content coding {codings[0][:64]!r}; wanted none")
        return response


class _Reader(Protocol):
    """Reads a response body up to a maximum size."""

    def __init__(self, max_bytes: int) -> None:
        self.done: Deferred[bytes] = Deferred(lambda done: self._abort())
        self._max_bytes = self._left = max_bytes
        self._parts: list[bytes] = []

    def connectionMade(self) -> None:
        """Override: the body starts; abort it if none is accepted."""
        if not self._left:
            self._abort()

    def dataReceived(self, data: bytes) -> None:
        """Override: collect `data`, or fail if the body is too large."""
        self._left -= len(data)
        if self._left >= 0:
            self._parts.append(data)
        elif not self.done.called:
            self.done.errback(RequestFailed(f"the answer has more than {self._max_bytes} bytes"))
            self._abort()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        """Override: the body or its connection has ended."""
        if self.done.called:
            return
        if reason.check(ResponseDone) or (reason.check(PotentialDataLoss) and self._parts):
            self.done.callback(b"".join(self._parts))
        elif reason.check(PotentialDataLoss):  # an empty body and a lost connection look the same
            self.done.errback(RequestFailed("the answer has neither a body nor a length"))
        else:
            self.done.errback(reason)

    def _abort(self) -> None:
        """Abort the connection: over TLS, `loseConnection` waits for a peer that may never finish."""
        connection = self.transport._producer  # type: ignore[union-attr]
        if connection is not None:
            connection.abortConnection()


def _has_only_ended(error: Exception) -> bool:
    reasons = getattr(error, "reasons", [])
    return all(reason.check(ConnectionClosed) for reason in reasons)


def _cause(error: BaseException) -> BaseException:
    """Return the root cause of an error."""
    while reasons := getattr(error, "reasons", None):
        error = reasons[0].value
    return error


def _why(error: BaseException) -> str:
    """Return the reason of `error` on one line."""
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return f"TLS failed: {error.args[0][-1][-1]}"
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
