"""Reading header blocks (RFC 7541), and the heads of requests from them.

The same request again is the same block again, as long as the dynamic table stays as it is; so blocks are
remembered with what they said, which is worth some fifty microseconds of each request.
"""

from __future__ import annotations

from hpack import Decoder, HPACKError, OversizedHeaderListError

from pushd.http2.faults import Code, ConnectionFault
from pushd.http2.head import Field, Head, parse_request

__all__ = ["BlockDecoder"]

_REMEMBERED = 32
"""How many blocks."""


class BlockDecoder:
    """Decodes the header blocks of one connection, in their order."""

    __slots__ = ("_decoder", "_fields", "_heads", "_takes_protocols")

    def __init__(self, decoder: Decoder, max_section_bytes: int, *, takes_protocols: bool = False) -> None:
        """Use `decoder`. A section larger than `max_section_bytes`, see section 6.5.2 of RFC 9113, is a fault.

        Without `takes_protocols`, so is ``:protocol`` in a request.
        """
        decoder.max_header_list_size = max_section_bytes
        self._takes_protocols = takes_protocols
        self._decoder = decoder
        self._fields: dict[bytes, tuple[Field, ...]] = {}
        self._heads: dict[bytes, Head] = {}

    def fields(self, block: bytes) -> tuple[Field, ...]:
        """Answer what a block says; raise `ConnectionFault`: after an error no other block can be read."""
        known = self._fields.get(block)
        if known is not None:
            return known
        table = self._decoder.header_table
        entries = table.dynamic_entries
        first, count, size = entries[0] if entries else None, len(entries), table.maxsize
        try:
            fields = tuple((field[0], field[1]) for field in self._decoder.decode(block, raw=True))
        except OversizedHeaderListError:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a header section that is much too large") from None
        except (HPACKError, IndexError, ValueError) as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, f"not a header block: {error}") from None
        entries = table.dynamic_entries  # whatever is added to it comes first
        is_changed = (entries[0] if entries else None) is not first or (len(entries), table.maxsize) != (
            count,
            size,
        )
        if is_changed or len(self._fields) >= _REMEMBERED:
            self._fields.clear()
            self._heads.clear()
        if not is_changed:
            self._fields[block] = fields
        return fields

    def head(self, block: bytes, fields: tuple[Field, ...]) -> Head:
        """Answer the head of the request that `block` says; raise `Malformed`."""
        head = self._heads.get(block)
        if head is None:
            head = parse_request(fields, takes_protocols=self._takes_protocols)
            if block in self._fields:
                self._heads[block] = head
        return head
