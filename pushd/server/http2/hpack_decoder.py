"""Decoding of header blocks (RFC 7541) into the heads of requests.

A repeated request has the same block as long as the dynamic table is unchanged, so blocks are cached with their
decoded heads: a fast path that saves the decoder, about fifty microseconds per request. Since a short block can
encode thousands of fields, only blocks of small, well-formed requests are cached, within a limit per site.
"""

from __future__ import annotations

from hpack import Decoder, HPACKError, OversizedHeaderListError

from pushd.server.http2.errors import Code, ConnectionFault
from pushd.server.http2.head import Field, Head, field_section_size, parse_request

__all__ = ["BlockDecoder", "Memory"]

_BLOCK_BYTES = 8 * 1024
"""The largest block that is cached, by `_cost`. Browsers send about 1 KiB, with a long token 3 KiB."""

_CONNECTION_BYTES = 32 * 1024
"""The cache limit of one connection."""

_SITE_BYTES = 16 * 1024 * 1024
"""The cache limit of all connections of a site."""

_FIELD_BYTES = 128
"""About the memory of one field of a cached block, without its name and value."""


class Memory:
    """The size of the header block caches of one site, by `_cost`."""

    __slots__ = ("most", "used")

    def __init__(self, most: int = _SITE_BYTES) -> None:
        """Allow `most` bytes."""
        self.most = most
        self.used = 0


def _cost(block: bytes, fields: tuple[Field, ...]) -> int:
    """Return about how many bytes of memory a cached block takes."""
    return len(block) + field_section_size(fields) + _FIELD_BYTES * len(fields)


class BlockDecoder:
    """Decodes the header blocks of one connection, in their order."""

    __slots__ = ("_decoder", "_heads", "_is_table_changed", "_memory", "_takes_protocols", "remembered_bytes")

    def __init__(
        self,
        decoder: Decoder,
        max_section_bytes: int,
        *,
        takes_protocols: bool = False,
        memory: Memory | None = None,
    ) -> None:
        """Use `decoder`; reject sections larger than `max_section_bytes` (RFC 9113, section 6.5.2).

        Without `takes_protocols`, also reject ``:protocol`` in a request. Cached blocks count in `memory`.
        """
        decoder.max_header_list_size = max_section_bytes
        self._takes_protocols = takes_protocols
        self._decoder = decoder
        self._memory = Memory() if memory is None else memory
        self._heads: dict[bytes, tuple[tuple[Field, ...], Head]] = {}
        self._is_table_changed = False
        self.remembered_bytes = 0
        """The size of this connection's cache."""

    def fields(self, block: bytes) -> tuple[Field, ...]:
        """Return the fields of a block; raise `ConnectionFault` on an error, after which no block can be read."""
        known = self._heads.get(block)
        if known is not None:
            return known[0]
        table = self._decoder.header_table
        entries = table.dynamic_entries
        first, count, size = entries[0] if entries else None, len(entries), table.maxsize
        try:
            fields = tuple((field[0], field[1]) for field in self._decoder.decode(block, raw=True))
        except OversizedHeaderListError:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a header section that is much too large") from None
        except (HPACKError, IndexError, ValueError) as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, f"not a header block: {error}") from None
        entries = table.dynamic_entries  # new entries are first
        self._is_table_changed = (entries[0] if entries else None) is not first or (
            len(entries),
            table.maxsize,
        ) != (count, size)
        if self._is_table_changed:
            self.forget()
        return fields

    def head(self, block: bytes, fields: tuple[Field, ...]) -> Head:
        """Return the request head in `block`, which must be the last block read; raise `Malformed`."""
        known = self._heads.get(block)
        if known is not None:
            return known[1]
        head = parse_request(fields, takes_protocols=self._takes_protocols)
        if not self._is_table_changed:  # else the same bytes mean something else next time
            self._remember(block, fields, head)
        return head

    def _remember(self, block: bytes, fields: tuple[Field, ...], head: Head) -> None:
        cost, memory = _cost(block, fields), self._memory
        if cost > _BLOCK_BYTES:
            return
        if self.remembered_bytes + cost > _CONNECTION_BYTES:
            self.forget()
        if memory.used + cost <= memory.most:
            self._heads[block] = fields, head
            self.remembered_bytes += cost
            memory.used += cost

    def forget(self) -> None:
        """Clear the cache: the dynamic table has changed, or the connection has ended."""
        if self._heads:
            self._heads.clear()
            self._memory.used -= self.remembered_bytes
            self.remembered_bytes = 0
