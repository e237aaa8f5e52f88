"""The answer to a request that does not come as far as a resource."""

from __future__ import annotations

from math import ceil

from pushd.errors import Refused, WrongMethod
from pushd.frames import json_line

__all__ = ["refusal"]


def refusal(refused: Refused) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Answer the header fields, with names in lower case, and the body of a problem document (RFC 9457)."""
    body = json_line(refused.problem())
    fields = [
        (b"server", b"pushd"),
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-content-type-options", b"nosniff"),
    ]
    if isinstance(refused, WrongMethod):
        fields.append((b"allow", ", ".join(refused.allowed).encode("ascii")))
    if refused.retry_s is not None:
        fields.append((b"retry-after", b"%d" % ceil(refused.retry_s)))  # whole seconds: RFC 9110, section 10.2.3
    return fields, body
