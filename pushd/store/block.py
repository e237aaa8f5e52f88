"""The block: events of one channel that follow each other, as they stand in the store.

Each event is, in this order and with the least significant byte first::

    8  sequence         unsigned
    8  time             double, seconds since 1970
    4  length of data   unsigned
    1  flags            1: text, 2: has a type, 4: its publisher gave the id, 8: has several channels
    4 + n  type         length and UTF-8, if flag 2 is set
    4 + n  id           length and UTF-8, if flag 4 is set
    4 + n  channels     length and UTF-8, if flag 8 is set; the names are separated by U+0000
    n  data

Before the first of them stands the epoch, 10 characters of ASCII: the ids that the daemon made begin with it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from struct import Struct, error

from pushd.event import Entry, Event, own_id

__all__ = ["Damaged", "decode", "encode"]

_EVENT = Struct("<QdIB")
_LENGTH = Struct("<I")
_TEXT, _TYPE, _ID, _CHANNELS = 1, 2, 4, 8
_EPOCH_BYTES = 10


class Damaged(ValueError):
    """The bytes are not a block."""


def encode(epoch: str, entries: Sequence[Entry], given: Container[str]) -> bytes:
    """Write entries of one channel; the ids that are `given` are not made by the daemon."""
    parts = [epoch.encode("ascii")]
    for entry in entries:
        event = entry.event
        is_given = event.id in given
        if event.type is None and not is_given and len(event.channels) == 1:  # as most are
            parts += (_EVENT.pack(event.sequence, event.time, len(event.data), event.is_text), event.data)
            continue
        flags = event.is_text * _TEXT
        texts = []
        if event.type is not None:
            flags |= _TYPE
            texts.append(event.type)
        if is_given:
            flags |= _ID
            texts.append(event.id)
        if len(event.channels) > 1:
            flags |= _CHANNELS
            texts.append("\0".join(event.channels))
        parts.append(_EVENT.pack(event.sequence, event.time, len(event.data), flags))
        for text in texts:
            encoded = text.encode()
            parts += (_LENGTH.pack(len(encoded)), encoded)
        parts.append(event.data)
    return b"".join(parts)


def decode(block: bytes, channel: str) -> Iterator[Event]:
    """Read the events of a block of `channel`; raise `Damaged` if it is none."""
    try:
        epoch, place = block[:_EPOCH_BYTES].decode("ascii"), _EPOCH_BYTES
        while place < len(block):
            sequence, time, size, flags = _EVENT.unpack_from(block, place)
            place += _EVENT.size
            event_type, event_id = None, None
            channels: tuple[str, ...] = (channel,)
            if flags & _TYPE:
                event_type, place = _text(block, place)
            if flags & _ID:
                event_id, place = _text(block, place)
            if flags & _CHANNELS:
                names, place = _text(block, place)
                channels = tuple(names.split("\0"))
            data = block[place : place + size]
            place += size
            if place > len(block):
                raise Damaged("it ends within an event")
            if event_id is None:
                event_id = own_id(epoch, sequence)
            yield Event(event_id, channels, data, bool(flags & _TEXT), event_type, time, sequence)
    except (error, UnicodeDecodeError) as fault:
        raise Damaged(str(fault)) from None


def _text(block: bytes, place: int) -> tuple[str, int]:
    (size,) = _LENGTH.unpack_from(block, place)
    place += _LENGTH.size
    return block[place : place + size].decode(), place + size
