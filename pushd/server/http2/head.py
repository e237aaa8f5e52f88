"""The head of a request: validation of header sections (RFC 9113, sections 8.2 and 8.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pushd.server.http2 import priority
from pushd.server.http2.errors import Malformed
from pushd.server.http2.priority import Priority

__all__ = ["Field", "Head", "check_trailers", "field_section_size", "parse_request"]

Field = tuple[bytes, bytes]
"""A name and a value."""

_is_name = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+", re.ASCII).fullmatch
_is_value = re.compile(rb"(?:[^\x00\r\n \t](?:[^\x00\r\n]*[^\x00\r\n \t])?)?", re.DOTALL).fullmatch
_is_method = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII).fullmatch
_is_path = re.compile(rb"/[\x21-\x7e]*", re.ASCII).fullmatch
_is_authority = re.compile(rb"[\x21-\x3f\x41-\x7e]+", re.ASCII).fullmatch

_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})
_CONNECTION_SPECIFIC = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)


@dataclass(frozen=True, slots=True)
class Head:
    """The validated head of a request."""

    method: bytes
    path: bytes
    """The path with the query, or ``*``."""

    authority: bytes | None
    """The value of ``:authority``, else of ``host``; None if both are missing."""

    fields: tuple[Field, ...]
    """The regular fields; ``host`` is always taken from the authority."""

    content_length: int | None
    """The required length of the body, in bytes; None if unspecified."""

    priority: Priority
    """The priority of the response."""

    expects_continue: bool
    """True if the client waits for 100 before it sends the body (RFC 9110, section 10.1.1)."""

    is_connect: bool
    """True if the client requests a tunnel to another server, which pushd does not support."""

    protocol: bytes | None = None
    """The protocol that the stream is to carry (RFC 8441)."""

    @property
    def target(self) -> bytes:
        """The path with its query: the request target of HTTP/1.1."""
        return self.path

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of a header field."""
        return [value for field, value in self.fields if field == name]


def field_section_size(fields: Iterable[Field]) -> int:
    """Return the size that SETTINGS_MAX_HEADER_LIST_SIZE limits (RFC 9113, section 6.5.2), in bytes."""
    return sum(len(name) + len(value) + 32 for name, value in fields)


def parse_request(fields: Sequence[Field], *, takes_protocols: bool = False) -> Head:
    """Parse the head of a request; raise `Malformed`. ``:protocol`` is only allowed with `takes_protocols`."""
    pseudo, regular = _split(fields)
    method, protocol = pseudo.get(b":method"), pseudo.get(b":protocol")
    if method is None or not _is_method(method):
        raise Malformed(":method is missing or not a method")
    authority = pseudo.get(b":authority")
    if authority is not None and not _is_authority(authority):
        raise Malformed(f":authority is {authority!r}")
    if protocol is not None:
        if not takes_protocols or method != b"CONNECT":
            raise Malformed(":protocol was not offered, or without CONNECT (RFC 8441, section 4)")
        path = _path(pseudo, method)
    elif method == b"CONNECT":
        if authority is None or b":path" in pseudo or b":scheme" in pseudo:
            raise Malformed("CONNECT wants :authority, and neither :scheme nor :path (section 8.5)")
        path = b""
    else:
        path = _path(pseudo, method)
    head = _head(method, path, authority, regular)
    if protocol is None:
        return head
    if head.content_length:
        raise Malformed("content-length with CONNECT (RFC 9110, section 9.3.6)")
    return replace(head, is_connect=False, protocol=protocol)


def _split(fields: Sequence[Field]) -> tuple[dict[bytes, bytes], list[Field]]:
    """Check each field and separate the pseudo-header fields, which must come first."""
    pseudo: dict[bytes, bytes] = {}
    regular: list[Field] = []
    for field in fields:
        name, value = field
        if not _is_value(value):
            raise Malformed(f"the value of {name!r} has characters that no field has (section 8.2.1)")
        if name[:1] == b":":
            if name not in _PSEUDO or name in pseudo or regular:
                raise Malformed(f"{name!r} is unknown, there twice, or after other fields (section 8.3)")
            pseudo[name] = value
        else:
            _check_regular(name, value)
            regular.append((name, value))
    return pseudo, regular


def _check_regular(name: bytes, value: bytes) -> None:
    if not _is_name(name):
        raise Malformed(f"{name!r} is not the name of a field (section 8.2.1)")
    if name in _CONNECTION_SPECIFIC or (name == b"te" and value.lower() != b"trailers"):
        raise Malformed(f"{name!r} is about a connection (section 8.2.2)")


def _path(pseudo: dict[bytes, bytes], method: bytes) -> bytes:
    scheme, path = pseudo.get(b":scheme"), pseudo.get(b":path")
    if scheme is None or path is None:
        raise Malformed(":scheme or :path is missing (section 8.3.1)")
    if scheme.lower() not in (b"https", b"http"):
        raise Malformed(f":scheme is {scheme!r}; expected http or https")
    if not _is_path(path) and not (path == b"*" and method == b"OPTIONS"):
        before_query = path.partition(b"?")[0]  # the query may contain a token
        raise Malformed(f":path is {before_query!r} (section 8.3.1)")
    return path


def _head(method: bytes, path: bytes, authority: bytes | None, regular: list[Field]) -> Head:
    """Parse the fields that HTTP/2 or the server interprets."""
    length: int | None = None
    fields: list[Field] = [] if authority is None else [(b"host", authority)]
    cookies: list[bytes] = []
    urgency = priority.DEFAULT
    expects_continue = False
    for field in regular:
        name, value = field
        if name == b"content-length":
            length = _length(value, length)
        elif name == b"cookie":
            cookies.append(value)
            continue
        elif name == b"priority":
            urgency = priority.parse(value)
        elif name == b"expect":
            expects_continue = value.lower() == b"100-continue"
        elif name == b"host":
            if authority is None:
                authority = value
            elif value.lower() != authority.lower():
                raise Malformed(f"host {value!r} is not :authority {authority!r} (section 8.3.1)")
            elif fields and fields[0][0] == b"host":
                continue
        fields.append(field)
    if cookies:
        fields.append((b"cookie", b"; ".join(cookies)))  # RFC 9113, section 8.2.3
    return Head(method, path, authority, tuple(fields), length, urgency, expects_continue, method == b"CONNECT")


def _length(value: bytes, before: int | None) -> int:
    if not value.isdigit() or len(value) > 18:
        raise Malformed(f"content-length is {value!r}")
    length = int(value)
    if before is not None and length != before:
        raise Malformed("content-length appears twice")
    return length


def check_trailers(fields: Sequence[Field]) -> None:
    """Raise `Malformed` if `fields` are invalid as trailers (RFC 9113, section 8.1): no pseudo-header fields."""
    for name, value in fields:
        if not _is_value(value):
            raise Malformed(f"the value of the trailer {name!r} has characters that no field has")
        _check_regular(name, value)
