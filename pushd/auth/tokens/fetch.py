"""Fetching of key sets: one GET over verified TLS, within limits of time and size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import treq
from OpenSSL import SSL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from pushd.auth.endpoints import QuietEndpoints
from pushd.errors import Unavailable

__all__ = ["MAX_ANSWER_BYTES", "TIMEOUT_S", "Fetch", "HttpsFetch"]

MAX_ANSWER_BYTES = 2**20
"""Maximum size of a response, in bytes."""

TIMEOUT_S = 10.0
"""Timeout of the whole request, in seconds."""


class Fetch(Protocol):
    """A function that fetches a document."""

    def __call__(self, url: str) -> Deferred[bytes]:
        """Return the document at `url`; fail with `Unavailable`, with the reason, on an error."""


class HttpsFetch:
    """Fetches documents over verified TLS, or without TLS from an ``http`` URL. Redirects are not followed."""

    def __init__(
        self, reactor: Any, policy: IPolicyForHTTPS | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Fetch with `reactor`; `policy` verifies certificates, by default with the system's trust store."""
        self._reactor = reactor
        self._timeout_s = timeout_s
        self._policy = policy or BrowserLikePolicyForHTTPS()

    def __call__(self, url: str) -> Deferred[bytes]:
        """See `Fetch`."""
        endpoints = _Endpoints(self._reactor, self._policy)
        fetched = Deferred.fromCoroutine(self._get(url, endpoints))

        def end(result: bytes | Failure) -> bytes | Failure:
            endpoints.abort()
            return result if isinstance(result, bytes) else Failure(_unavailable(result))

        clock = cast(IReactorTime, self._reactor)
        return fetched.addTimeout(self._timeout_s, clock, _say_timeout).addBoth(end)

    async def _get(self, url: str, endpoints: _Endpoints) -> bytes:
        agent = Agent.usingEndpointFactory(self._reactor, endpoints)
        response = await HTTPClient(agent).get(
            url,
            headers=Headers({"Accept": ["application/jwk-set+json, application/json"]}),
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        if response.code != 200:
            redirect = " (redirects are not followed)" if 300 <= response.code < 400 else ""
            raise Unavailable(f"it was answered with status {response.code}{redirect}; wanted 200")
        body = bytearray()

        def collect(data: bytes) -> None:
            body.extend(data)
            if len(body) > MAX_ANSWER_BYTES:
                raise Unavailable(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")

        await treq.collect(response, collect)
        return bytes(body)


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Makes the endpoint of one agent, and stores its connection, so that `abort` can end it in any state."""

    def __init__(self, reactor: Any, policy: IPolicyForHTTPS) -> None:
        self._endpoints = QuietEndpoints(reactor, policy, TIMEOUT_S)
        self._transport: Any = None

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See `IAgentEndpointFactory`."""
        return _Noted(self._endpoints.endpointForURI(uri), self._note)

    def _note(self, protocol: Any) -> Any:
        self._transport = protocol.transport
        return protocol

    def abort(self) -> None:
        """Abort the connection, if there is one, without waiting for its peer."""
        if self._transport is not None:
            self._transport.abortConnection()


@implementer(IStreamClientEndpoint)
class _Noted:
    """An endpoint that passes the connected protocol to a callback."""

    def __init__(self, endpoint: IStreamClientEndpoint, note: Callable[[Any], Any]) -> None:
        self._endpoint = endpoint
        self._note = note

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """See `IStreamClientEndpoint`."""
        connected: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return connected.addCallback(self._note)


def _say_timeout(result: object, timeout_s: float) -> Failure:
    return Failure(Unavailable(f"there was no whole answer within {timeout_s:g} s"))


def _unavailable(failure: Failure) -> Unavailable:
    """Return the error for a failed request, with the reason on one line."""
    error = failure.value
    if isinstance(error, Unavailable):
        return error
    reasons = getattr(error, "reasons", None)  # twisted.web.client.ResponseFailed and similar
    if reasons:
        return _unavailable(reasons[0])
    if isinstance(error, SSL.Error) and error.args:
        why = "; ".join(str(one[-1]) for one in error.args[0]) or "the connection was closed"
        return Unavailable(f"TLS: {why}")
    if isinstance(error, CancelledError):
        return Unavailable("it was given up")
    said = " ".join(str(error).split()).rstrip(".")
    return Unavailable(f"{type(error).__name__}: {said}" if said else type(error).__name__)
