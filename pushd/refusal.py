"""The answer to a request that does not come as far as a resource."""

from __future__ import annotations

from math import ceil

from pushd.errors import Refused, WrongMethod
from pushd.frames import json_line
from pushd.requestlog import Unread, new_request_id

__all__ = ["refusal"]


def refusal(refused: Refused, method: bytes, target: bytes) -> tuple[list[tuple[bytes, bytes]], bytes, Unread]:
    """Answer the header fields, with names in lower case, and the body of a problem document (RFC 9457).

    With them goes what the log needs to know of the request. Its `method` and `target` are empty if not known.
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
    if isinstance(refused, WrongMethod):
        fields.append((b"allow", ", ".join(refused.allowed).encode("ascii")))
    if refused.retry_s is not None:
        fields.append((b"retry-after", b"%d" % ceil(refused.retry_s)))  # whole seconds: RFC 9110, section 10.2.3
    if method == b"HEAD":
        body = b""
    return fields, body, Unread(method, target, refused, len(body), request_id)
