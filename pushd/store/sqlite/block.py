"""The block: the storage format of consecutive events of one channel.

Each event is, in this order and little-endian::

    8  sequence         unsigned
    8  time             double, seconds since 1970
    4  length of data   unsigned
    1  flags            1: text, 2: has a type, 4: its publisher gave the id, 8: has several channels, 16: see below
    4 + n  type         length and UTF-8, if flag 2 is set
    4 + n  id           length and UTF-8, if flag 4 is set
    4 + n  channels     length and UTF-8, if flag 8 is set; the names are separated by U+0000
    n  data

The epoch precedes the first event, 10 ASCII characters: ids made by the daemon begin with it.

Stores of version 1 have the names of all channels of an event in the block of each channel, which for *n* channels
is *n* times *n* names. They are read, but not written. The channel of an event is that of its block.

Flag 16 is set if the size of the event is that of `pushd.bus.sizes`. Sizes before 0.2 exclude type and id; such
an event keeps its size until it is dropped.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from struct import Struct, error

from pushd.bus import EVENT_BYTES, Entry, Event, event_size, own_id

__all__ = ["Damaged", "decode", "encode", "parse"]

_EVENT = Struct("<QdIB")
_LENGTH = Struct("<I")
_TEXT, _TYPE, _ID, _CHANNELS, _SIZED = 1, 2, 4, 8, 16
_EPOCH_BYTES = 10

Parsed = tuple[int, float, bool, str | None, str | None, str | None, bytes, bool]


class Damaged(ValueError):
    """The bytes are not a valid block."""


def encode(epoch: str, entries: Sequence[Entry], given: Container[str]) -> bytes:
    """Return the block of entries of one channel; ids in `given` come from publishers, not from the daemon."""
    parts = [epoch.encode("ascii")]
    for entry in entries:
        event = entry.event
        is_given = event.id in given
        if event.type is None and not is_given:  # fast path
            flags = event.is_text | _SIZED
            parts += (_EVENT.pack(event.sequence, event.time, len(event.data), flags), event.data)
            continue
        flags = event.is_text * _TEXT | _SIZED
        texts = []
        if event.type is not None:
            flags |= _TYPE
            texts.append(event.type)
        if is_given:
            flags |= _ID
            texts.append(event.id)
        parts.append(_EVENT.pack(event.sequence, event.time, len(event.data), flags))
        for text in texts:
            encoded = text.encode()
            parts += (_LENGTH.pack(len(encoded)), encoded)
        parts.append(event.data)
    return b"".join(parts)


def decode(block: bytes, channel: str, epoch: str | None = None) -> Iterator[Event]:
    """Yield the events of a block of `channel`; raise `Damaged` if it is invalid.

    Their positions are of the current `epoch` of the log, by default that of the block: events of former epochs
    keep their ids, but a client resumes after them in the epoch in which it received them.
    """
    published = block[:_EPOCH_BYTES].decode("ascii", "replace")
    epoch = published if epoch is None else epoch
    for sequence, time, is_text, kind, given, names, data, is_sized in parse(block):
        if names is not None and f"\0{channel}\0" not in f"\0{names}\0":
            raise Damaged(f"the event at {sequence} of the log belongs to other channels")
        position = own_id(epoch, sequence)
        event_id = given or (position if epoch == published else own_id(published, sequence))
        size = event_size(data, kind, given) if is_sized else len(data) + EVENT_BYTES
        yield Event(event_id, position, data, is_text, kind, time, sequence, size, is_sized and given is not None)


def parse(block: bytes) -> Iterator[Parsed]:
    """Yield the fields of each event of a block; raise `Damaged` if it is invalid.

    The fields: sequence, time, whether it is text, type, id, channel names, data, whether flag 16 is set.
    """
    try:
        block[:_EPOCH_BYTES].decode("ascii")
        place = _EPOCH_BYTES
        while place < len(block):
            sequence, time, size, flags = _EVENT.unpack_from(block, place)
            place += _EVENT.size
            event_type, event_id, names = None, None, None
            if flags & _TYPE:
                event_type, place = _text(block, place)
            if flags & _ID:
                event_id, place = _text(block, place)
            if flags & _CHANNELS:
                names, place = _text(block, place)
            data = block[place : place + size]
            place += size
            if place > len(block):
                raise Damaged("it ends within an event")
            is_text, is_sized = bool(flags & _TEXT), bool(flags & _SIZED)
            yield sequence, time, is_text, event_type, event_id, names, data, is_sized
    except (error, UnicodeDecodeError) as fault:
        raise Damaged(str(fault)) from None


def _text(block: bytes, place: int) -> tuple[str, int]:
    (size,) = _LENGTH.unpack_from(block, place)
    place += _LENGTH.size
    return block[place : place + size].decode(), place + size
