"""Encoding of header blocks (RFC 7541) without a dynamic table.

Every field is then encoded as the same bytes in every block of every connection, so blocks are joined from cached
bytes. They are longer than with a table, and take a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hpack.table import HeaderTable

from pushd.server.http2.head import Field

__all__ = ["NO_TABLE", "FieldEncoder"]

NO_TABLE = b"\x20"
"""The start of the first block: sets the size of the dynamic table to 0 (RFC 7541, section 6.3)."""

_CONNECTION_SPECIFIC = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
_NEVER_INDEXED = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"set-cookie"})
_HARDLY_TWICE = frozenset({b":path", b"event-id", b"event-position", b"location", b"sec-websocket-accept"})
_MAX_KEPT = 4096
_MAX_KEPT_BYTES = 256

_whole: dict[Field, int] = {}
_names: dict[bytes, int] = {}
for _index, (_name, _value) in enumerate(HeaderTable.STATIC_TABLE, 1):
    _whole[_name, _value] = _index
    _names.setdefault(_name, _index)


def _integer(value: int, bits: int, first: int) -> bytes:
    """Encode an integer in the low `bits` of an octet that is otherwise `first` (RFC 7541, section 5.1)."""
    top = (1 << bits) - 1
    if value < top:
        return bytes((first | value,))
    out = bytearray((first | top,))
    value -= top
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _string(value: bytes) -> bytes:
    """Encode a string without Huffman coding, whose time outweighs the bytes saved (RFC 7541, section 5.2)."""
    return _integer(len(value), 7, 0) + value


def _encode_field(name: bytes, value: bytes) -> bytes:
    """Encode one field; return no bytes for a connection-specific field (RFC 9113, section 8.2.2)."""
    name, value = name.lower(), value.strip(b" \t")
    if name in _CONNECTION_SPECIFIC:
        return b""
    never = name in _NEVER_INDEXED
    index = None if never else _whole.get((name, value))
    if index is not None:
        return _integer(index, 7, 0x80)  # RFC 7541, section 6.1
    first = 0x10 if never else 0  # RFC 7541, sections 6.2.3 and 6.2.2
    index = _names.get(name)
    head = _integer(index, 4, first) if index else bytes((first,)) + _string(name)
    return head + _string(value)


class FieldEncoder(dict[Field, bytes]):
    """Encodes header fields and caches the bytes, for all connections of a site."""

    def __missing__(self, field: Field) -> bytes:
        """Override: encode a field that is not cached."""
        encoded = _encode_field(*field)
        if len(encoded) <= _MAX_KEPT_BYTES and field[0].lower() not in _HARDLY_TWICE:
            if len(self) >= _MAX_KEPT:
                self.clear()
            self[field] = encoded
        return encoded

    def fields(self, fields: Iterable[Field]) -> bytes:
        """Encode fields in order."""
        return b"".join([self[field] for field in fields])

    def promise(self, authority: bytes, path: bytes, fields: Iterable[Field], *, is_secure: bool) -> bytes:
        """Encode the head of a promised request, a ``GET`` of `path`."""
        scheme = b"https" if is_secure else b"http"
        pseudo = (b":method", b"GET"), (b":scheme", scheme), (b":authority", authority), (b":path", path)
        return self.fields(pseudo) + self.fields(fields)

    def response(self, status: bytes, headers: Iterable[tuple[bytes, Sequence[bytes]]]) -> bytes:
        """Encode the head of a response from its status and the raw headers of twisted.web."""
        block = [self[b":status", status]]
        for name, values in headers:
            for value in values:
                block.append(self[name, value])
        return b"".join(block)
