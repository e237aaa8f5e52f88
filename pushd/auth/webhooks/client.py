"""The client that posts signed webhooks to the application."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

from twisted.web.http_headers import Headers
from twisted.web.iweb import IPolicyForHTTPS

from pushd.auth.http_client import HttpClient, RequestFailed
from pushd.auth.webhooks.answers import Answer, NoAnswer
from pushd.auth.webhooks.signing import Signer

__all__ = ["MAX_ANSWER_BYTES", "MAX_IDLE_CONNECTIONS", "WebhookClient"]

MAX_ANSWER_BYTES = 2**16
"""Maximum size of a response body, in bytes."""

MAX_IDLE_CONNECTIONS = 100
"""Maximum number of idle connections kept for each host."""


class WebhookClient:
    """Posts signed requests and reads the responses. It is a `Post`."""

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
        self._signer = signer
        self._now = now
        self._client = HttpClient(
            reactor,
            timeout_s=timeout_s,
            max_bytes=MAX_ANSWER_BYTES,
            max_idle=MAX_IDLE_CONNECTIONS,
            policy=policy,
        )

    async def __call__(self, url: str, message_id: str, body: bytes) -> Answer:
        """Post `body` to `url`; return the response, or raise `NoAnswer`."""
        fields = {"content-type": "application/json", **self._signer.headers(message_id, self._now(), body)}
        try:
            response = await self._client.request("POST", url, fields, body)
        except RequestFailed as error:
            raise NoAnswer(str(error)) from None
        return Answer(response.status, response.body, self._retry_after_s(response.headers))

    def sign_by(self, signer: Signer) -> None:
        """Sign further requests with `signer`."""
        self._signer = signer

    async def close(self) -> None:
        """Close the idle connections."""
        await self._client.close()

    def _retry_after_s(self, headers: Headers) -> float | None:
        """Return ``Retry-After`` (RFC 9110, section 10.2.3), seconds or a date, in seconds; None if invalid."""
        text = (headers.getRawHeaders("retry-after") or [""])[0].strip()
        if text.isascii() and text.isdigit() and len(text) < 10:
            return float(text)
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - self._now())
        except (ValueError, OverflowError):
            return None
