"""The HTTP client that posts webhooks to the application.

It uses one private name of Twisted, ``transport._producer``: no public name gives access to the connection of a
response, to abort it.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import parsedate_to_datetime
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

from pushd.auth.endpoints import QuietEndpoints
from pushd.auth.webhooks.answers import Answer, NoAnswer
from pushd.auth.webhooks.deadlines import Deadlines
from pushd.auth.webhooks.signing import Signer

__all__ = ["MAX_ANSWER_BYTES", "WebhookClient"]

MAX_ANSWER_BYTES = 2**16
"""Maximum size of a response body, in bytes."""

MAX_IDLE_CONNECTIONS = 100
"""Maximum number of idle connections kept for each host."""

MAX_IDLE_S = 4
"""Idle timeout of these connections, in seconds: servers close theirs after 5 seconds (Node) or later."""

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


class WebhookClient:
    """Posts signed requests and reads the responses, within limits of time and size. It is a `Post`."""

    def __init__(
        self,
        reactor: Any,
        signer: Signer,
        *,
        timeout_s: float,
        now: Callable[[], float],
        policy: IPolicyForHTTPS | None = None,
    ) -> None:
        """Sign with `signer`; `now` returns the time in seconds since 1970. A response may take `timeout_s`.

        `policy` verifies certificates; None: the system's trust store.
        """
        self._reactor = reactor
        self._signer = signer
        self._timeout_s = timeout_s
        self._deadlines = Deadlines(reactor, timeout_s)
        self._now = now
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = MAX_IDLE_CONNECTIONS
        self._pool.cachedConnectionTimeout = MAX_IDLE_S
        endpoints = QuietEndpoints(reactor, policy or BrowserLikePolicyForHTTPS(), timeout_s + 1)
        no_cookies = IndexableCookieJar(DefaultCookiePolicy(allowed_domains=()))
        self._kept, self._new = (
            HTTPClient(_Plain(Agent.usingEndpointFactory(reactor, endpoints, pool)), no_cookies, _Body)
            for pool in (self._pool, HTTPConnectionPool(reactor, persistent=False))
        )

    async def __call__(self, url: str, message_id: str, body: bytes) -> Answer:
        """Post `body` to `url`; return the response, or raise `NoAnswer`."""
        exchange = Deferred.fromCoroutine(self._exchange(url, message_id, body))
        self._deadlines.add(exchange)
        try:
            return await exchange
        except _FAULTS as error:
            cause = _cause(error)
            if not isinstance(cause, CancelledError | ConnectingCancelledError):
                raise NoAnswer(_why(cause)) from None
            if self._deadlines.done(exchange):
                raise CancelledError from None
            raise NoAnswer(f"there was no answer within {self._timeout_s:g} s") from None
        finally:
            self._deadlines.done(exchange)

    def sign_by(self, signer: Signer) -> None:
        """Sign further requests with `signer`."""
        self._signer = signer

    async def close(self) -> None:
        """Close the idle connections."""
        await self._pool.closeCachedConnections()

    async def _exchange(self, url: str, message_id: str, body: bytes) -> Answer:
        """Send a request; retry once, on a new connection, if its connection closed before any response.

        The server may close an idle connection just when a request is sent on it.
        """
        try:
            response = await self._send(self._kept, url, message_id, body)
        except (RequestNotSent, RequestTransmissionFailed, ResponseNeverReceived) as error:
            if not _has_only_ended(error):
                raise
            response = await self._send(self._new, url, message_id, body)
        reader = _Reader()
        response.deliverBody(reader)
        return Answer(response.code, await reader.done, self._retry_after_s(response.headers))

    def _send(self, client: HTTPClient, url: str, message_id: str, body: bytes) -> Deferred[Any]:
        fields = {"content-type": "application/json", "user-agent": "pushd"}
        fields |= self._signer.headers(message_id, self._now(), body)
        headers = Headers({name: [value] for name, value in fields.items()})
        return client.request(
            "POST", url, headers=headers, data=body, allow_redirects=False, unbuffered=True, reactor=self._reactor
        )

    def _retry_after_s(self, headers: Headers) -> float | None:
        """Return ``Retry-After`` (RFC 9110, section 10.2.3), seconds or a date, in seconds; None if invalid."""
        text = (headers.getRawHeaders("retry-after") or [""])[0].strip()
        if text.isascii() and text.isdigit() and len(text) < 10:
            return float(text)
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - self._now())
        except (ValueError, OverflowError):
            return None


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
            raise NoAnswer(f"the answer has the content coding {codings[0][:64]!r}; wanted none")
        return response


class _Reader(Protocol):
    """Reads a response body up to a maximum size."""

    def __init__(self, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        self.done: Deferred[bytes] = Deferred(lambda done: self._abort())
        self._left = max_bytes
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
            self.done.errback(NoAnswer(f"the answer has more than {MAX_ANSWER_BYTES} bytes"))
            self._abort()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        """Override: the body or its connection has ended."""
        if self.done.called:
            return
        if reason.check(ResponseDone) or (reason.check(PotentialDataLoss) and self._parts):
            self.done.callback(b"".join(self._parts))
        elif reason.check(PotentialDataLoss):  # an empty body and a lost connection look the same
            self.done.errback(NoAnswer("the answer has neither a body nor a length"))
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
