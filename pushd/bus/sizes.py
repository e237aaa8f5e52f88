"""The sizes of events and channels on disk and in memory, including overhead."""

from __future__ import annotations

from pushd.bus.event import Entry, Event

__all__ = [
    "CHANNEL_OBJECT_BYTES",
    "EVENT_BYTES",
    "GIVEN_OBJECT_BYTES",
    "OBJECT_BYTES",
    "channel_size",
    "event_size",
    "memory_of",
    "size_in",
    "size_of",
]

EVENT_BYTES = 128
"""The approximate overhead of an event in the store, in bytes: its row, and the unused part of its page."""

_GIVEN_BYTES = 40
"""The approximate overhead of the row of a publisher's id, in bytes, besides the id and the channel name."""

OBJECT_BYTES = 400
"""The approximate extra size of an event as objects in memory, in bytes."""

GIVEN_OBJECT_BYTES = 570
"""The approximate size of the objects that find an event in memory by a publisher's id, in bytes.

It includes the position of the event, which is an object of its own beside such an id.
"""

CHANNEL_OBJECT_BYTES = 800
"""The approximate extra size of a channel as objects in memory, in bytes."""

_CHANNEL_BYTES = 128
"""The approximate overhead of the row of a channel in the store, in bytes, besides its name, stored twice."""

_ROW_BYTES = 66
"""The approximate overhead of the row of a single event, in bytes, besides data, type and id."""

_ALONE_BYTES = range(2030, 2900)
"""Rows of these sizes occupy a page of 4 KiB alone, so each counts as the largest of them."""

_SMALL_BYTES = _ALONE_BYTES[0] - _ROW_BYTES + EVENT_BYTES
"""The size of an event without type and id from which it may occupy a page alone."""


def event_size(data: bytes, event_type: str | None, event_id: str | None) -> int:
    """Return the size of an event in the store, in bytes, per channel and without the channel name.

    `event_id` is None if the daemon made it, because such ids are not stored.
    """
    size = len(data) + EVENT_BYTES
    if size < _SMALL_BYTES and event_type is None and event_id is None:  # fast path for most events
        return size
    if event_type is not None:
        size += _bytes_of(event_type)
    if event_id is not None:
        size += 2 * _bytes_of(event_id) + _GIVEN_BYTES  # once in the block, once in the index
    row = size - EVENT_BYTES + _ROW_BYTES
    return size + _ALONE_BYTES[-1] - row if row in _ALONE_BYTES else size


def size_in(event: Event, channel: str) -> int:
    """Return the approximate size of an event in the store in one of its channels, in bytes."""
    return event.size + _bytes_of(channel) if event.counts_name else event.size


def size_of(entry: Entry) -> int:
    """Return the approximate size of an entry in the store, in bytes."""
    event = entry.event
    return event.size + _bytes_of(entry.channel) if event.counts_name else event.size


def memory_of(entry: Entry) -> int:
    """Return the approximate size of an entry in memory, in bytes."""
    return size_of(entry) + OBJECT_BYTES


def channel_size(name: str) -> int:
    """Return the approximate size of a channel in the store without its events, in bytes."""
    return 2 * _bytes_of(name) + _CHANNEL_BYTES


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
