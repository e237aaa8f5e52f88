"""The parser for the head of an HTTP/1.1 request (RFC 9112, sections 2 to 6)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from twisted.web.http_headers import Headers, InvalidHeaderName

from pushd.bus import record
from pushd.errors import BadRequest

__all__ = ["MAX_FIELDS", "MAX_HEAD_BYTES", "Head", "check_trailers", "is_start", "malformed", "parse_head"]

MAX_HEAD_BYTES = 16 * 1024
"""The longest head, in bytes."""

MAX_FIELDS = 500
"""The maximum number of header fields."""

_MAX_LENGTH_DIGITS = 18
_NO_TRAILERS = ("content-length", "transfer-encoding", "host", "connection", "authorization", "cookie", "origin")

_start = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) (HTTP/1\.[01])").fullmatch
_authority = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE).fullmatch
_stray = re.compile(rb"[\r\n\0]").search


@record()
class Head:
    """The head of a request, with the framing of its body."""

    method: bytes
    """Such as ``GET``."""

    target: bytes
    """The path and the query, as received."""

    version: bytes
    """``HTTP/1.0`` or ``HTTP/1.1``."""

    fields: Headers
    """The header fields."""

    length: int | None
    """The length of the body in bytes; None if it is chunked."""

    closes: bool
    """True if the connection closes after the response."""

    expects_continue: bool
    """True if the client may wait for ``100`` before it sends the body (RFC 9110, section 10.1.1)."""

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a header field."""
        return list(self.fields.getRawHeaders(name, []))


def malformed() -> BadRequest:
    """Return the error for a malformed or too long head."""
    return BadRequest("not a valid HTTP/1.1 request, or its head is larger than 16 KiB")


def is_start(line: bytes) -> bool:
    """Return whether `line` is a valid request line."""
    return _start(line) is not None


def parse_head(block: bytes) -> Head:
    """Parse a head without its final empty line; raise `BadRequest` if it is malformed or ambiguous."""
    line, _, rest = block.partition(b"\r\n")
    start = _start(line)
    if start is None:
        raise malformed()
    method, target, version = start.groups()
    is_old = version == b"HTTP/1.0"
    fields = _fields(rest)
    if target[:1] != b"/":
        target = _origin_form(method, target, fields)
    connection = fields.getRawHeaders(b"connection", ())
    closes = is_old or b"close" in b" ".join(connection).lower().replace(b",", b" ").split()
    expected = fields.getRawHeaders(b"expect", ())
    expects_continue = not is_old and b"100-continue" in [value.lower() for value in expected]
    return Head(method, target, version, fields, _length(fields, is_old), closes, expects_continue)


def _origin_form(method: bytes, target: bytes, fields: Headers) -> bytes:
    """Return the path and the query of a target in absolute or asterisk form (section 3.2)."""
    if target == b"*" and method == b"OPTIONS":
        return target
    absolute = _authority(target)
    if absolute is None:
        raise BadRequest("the target is neither a path nor an http URL (RFC 9112, section 3.2)")
    authority, rest = absolute.groups()
    if fields.getRawHeaders(b"host", [authority]) != [authority]:
        raise BadRequest("Host is not that of the target (RFC 9112, section 3.2.2)")
    return rest if rest[:1] == b"/" else b"/" + rest


def _fields(text: bytes) -> Headers:
    """Parse header fields (section 5). Folded lines are rejected, as section 5.2 allows."""
    lines = text.split(b"\r\n") if text else []
    if len(lines) > MAX_FIELDS or _stray(b"".join(lines)):
        raise malformed()
    fields = Headers()
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise malformed()
        try:
            fields.addRawHeader(name, value.strip(b" \t"))
        except InvalidHeaderName:
            raise malformed() from None
    return fields


def _length(fields: Headers, is_old: bool) -> int | None:
    """Return the length of the body; raise `BadRequest` if it is ambiguous (sections 6.1 to 6.3, and 11.2)."""
    lengths = fields.getRawHeaders(b"content-length", ())
    codings = fields.getRawHeaders(b"transfer-encoding", ())
    if not lengths and not codings:
        return 0
    if len(lengths) + len(codings) > 1:
        raise malformed()
    if codings:
        if is_old or codings[0].lower() != b"chunked":
            raise malformed()
        return None
    if not lengths[0].isdigit() or len(lengths[0]) > _MAX_LENGTH_DIGITS:
        raise malformed()
    return int(lengths[0])


def check_trailers(lines: Iterable[bytes | bytearray]) -> None:
    """Raise `BadRequest` if the trailers after the last chunk are malformed, or not allowed as trailers.

    At most `MAX_FIELDS` are accepted; allowed trailers are ignored (RFC 9110, section 6.5.1).
    """
    fields = _fields(b"\r\n".join(lines))
    if any(fields.hasHeader(name) for name in _NO_TRAILERS):
        raise BadRequest("a trailer that has to be a header (RFC 9110, section 6.5.1)")
