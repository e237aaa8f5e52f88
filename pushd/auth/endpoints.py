"""Endpoints of outgoing HTTP requests: TLS by policy, and nothing logged for each connection."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

__all__ = ["QuietEndpoints"]


@implementer(IStreamClientEndpoint)
class _QuietEndpoint:
    """An endpoint whose factory does not log each connection."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        """Connect with `endpoint`."""
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """See `IStreamClientEndpoint`."""
        cast(Factory, protocolFactory).noisy = False
        connected: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return connected


@implementer(IAgentEndpointFactory)
class QuietEndpoints:
    """Makes the endpoint for each URL, with its TLS policy and connect timeout."""

    def __init__(self, reactor: Any, policy: IPolicyForHTTPS, timeout_s: float) -> None:
        """Connect with `reactor` within `timeout_s`; `policy` verifies certificates."""
        self._reactor = reactor
        self._policy = policy
        self._timeout_s = timeout_s

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See `IAgentEndpointFactory`."""
        endpoint: Any = HostnameEndpoint(self._reactor, uri.host, uri.port, timeout=self._timeout_s)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return _QuietEndpoint(endpoint)
