"""The answer to a request that does not come as far as a resource."""

from __future__ import annotations

import re
from math import ceil

from twisted.web.http_headers import Headers

from pushd.errors import Refused, Unauthorized, WrongMethod
from pushd.frames import json_line
from pushd.requestlog import Unread, new_request_id

__all__ = ["challenge", "refusal"]

_SHARED = (
    b"vary",
    b"access-control-allow-origin",
    b"access-control-expose-headers",
    b"access-control-allow-credentials",
)
"""What lets a page read the answer (CORS)."""


def challenge(refused: Unauthorized) -> bytes:
    """Return what says how to be let in (RFC 6750, section 3)."""
    if not refused.is_token_wrong:
        return b'Bearer realm="pushd"'
    why = re.sub(r"[^ !#-[\]-~]", "'", refused.detail)
    return f'Bearer realm="pushd", error="invalid_token", error_description="{why}"'.encode("ascii")


def refusal(
    refused: Refused, method: bytes, target: bytes, answered: Headers | None = None
) -> tuple[list[tuple[bytes, bytes]], bytes, Unread]:
    """Answer the header fields, with names in lower case, and the body of a problem document (RFC 9457).

    With them goes what the log needs to know of the request. Its `method` and `target` are empty if not known.
    `answered` are the fields that the answer would have, of which those of CORS are taken.
    """
    request_id = new_request_id()
    body = json_line({**refused.problem(), "request_id": request_id})
    fields = [
        (b"server", b"pushd"),
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", request_id.encode("ascii")),
    ]
    if answered is not None:
        fields += [(name, value) for name in _SHARED for value in answered.getRawHeaders(name, [])]
    if isinstance(refused, Unauthorized):
        fields.append((b"www-authenticate", challenge(refused)))
    if isinstance(refused, WrongMethod):
        fields.append((b"allow", ", ".join(refused.allowed).encode("ascii")))
    if refused.retry_s is not None:
        fields.append((b"retry-after", b"%d" % ceil(refused.retry_s)))  # whole seconds: RFC 9110, section 10.2.3
    if method == b"HEAD":
        body = b""
    return fields, body, Unread(method, target, refused, len(body), request_id)
