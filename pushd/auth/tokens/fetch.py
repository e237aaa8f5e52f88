"""Fetching of key sets: one GET over verified TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.iweb import IPolicyForHTTPS

from pushd.auth.http_client import HttpClient, RequestFailed
from pushd.errors import Unavailable

__all__ = ["MAX_ANSWER_BYTES", "TIMEOUT_S", "Fetch", "HttpsFetch"]

MAX_ANSWER_BYTES = 2**20
"""Maximum size of a response, in bytes."""

TIMEOUT_S = 10.0
"""Timeout of the whole request, in seconds."""


Fetch = Callable[[str], Deferred[bytes]]
"""Returns the document at a URL; the Deferred fails with `Unavailable`, with the reason, on an error."""


class HttpsFetch:
    """Fetches documents over verified TLS, or without TLS from an ``http`` URL. It is a `Fetch`."""

    def __init__(
        self, reactor: Any, policy: IPolicyForHTTPS | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Fetch with `reactor`; `policy` verifies certificates, by default with the system's trust store."""
        self._client = HttpClient(reactor, timeout_s=timeout_s, max_bytes=MAX_ANSWER_BYTES, policy=policy)

    def __call__(self, url: str) -> Deferred[bytes]:
        """See `Fetch`."""
        return Deferred.fromCoroutine(self._get(url))

    async def _get(self, url: str) -> bytes:
        try:
            response = await self._client.request(
                "GET", url, {"accept": "application/jwk-set+json, application/json"}
            )
        except RequestFailed as error:
            raise Unavailable(str(error)) from None
        if response.status != 200:
            redirect = " (redirects are not followed)" if 300 <= response.status < 400 else ""
            raise Unavailable(f"it was answered with status {response.status}{redirect}; wanted 200")
        return response.body
