"""Webhook signatures (Standard Webhooks, v1), by which the application authenticates pushd."""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode, b64encode
from pathlib import Path

from pushd.config import Hooks
from pushd.errors import StartFailed

__all__ = ["Signer"]

_PREFIX = "whsec_"
_MAX_FILE_BYTES = 4096


class Signer:
    """Signs requests with a secret; the secret is never logged."""

    __slots__ = ("_key",)

    def __init__(self, secret: str, source: str = "[hooks] secret") -> None:
        """Parse ``whsec_...``; raise `StartFailed`, which names the `source`, if the secret is malformed."""
        try:
            key = b64decode(secret.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not secret.startswith(_PREFIX) or not 24 <= len(key) <= 64:
            raise StartFailed(f"{source}: wanted {_PREFIX} and 24 to 64 bytes in base64")
        self._key = key

    @classmethod
    def of(cls, hooks: Hooks) -> Signer:
        """Return a signer with the configured secret, read from ``secret_file`` if that is set."""
        if hooks.secret_file is None:
            return cls(hooks.secret or "")
        source = f"[hooks] secret_file = {hooks.secret_file}"
        try:
            with Path(hooks.secret_file).open("rb") as file:
                text = file.read(_MAX_FILE_BYTES).decode("ascii", "replace")
        except OSError as error:
            raise StartFailed(f"{source}: cannot be read: {error.strerror}") from None
        return cls(text.rstrip(), source)

    def headers(self, message_id: str, now: float, body: bytes) -> dict[str, str]:
        """Return the headers of a request; `now` is in seconds since 1970, and `message_id` has no full stop."""
        time = str(int(now))
        digest = hmac.digest(self._key, b".".join((message_id.encode(), time.encode(), body)), "sha256")
        return {
            "webhook-id": message_id,
            "webhook-timestamp": time,
            "webhook-signature": f"v1,{b64encode(digest).decode()}",
        }
