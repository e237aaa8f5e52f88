"""The sizes of events and channels: what they take on the disk or in memory, not only their data."""

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
"""About how much an event takes in the store besides its data: its row, and the empty part of its page."""

_GIVEN_BYTES = 40
"""About how much the row of a given id takes besides the id and the name of the channel."""

OBJECT_BYTES = 400
"""About how much more an event takes as objects in memory."""

GIVEN_OBJECT_BYTES = 500
"""About how much the objects take that find an event in memory by a given id."""

CHANNEL_OBJECT_BYTES = 800
"""About how much more a channel takes as objects in memory."""

_CHANNEL_BYTES = 128
"""About how much the row of a channel takes in the store, besides its name, which is there twice."""

_ROW_BYTES = 66
"""About how much the row of a single event takes, besides data, type and id."""

_ALONE_BYTES = range(2030, 2900)
"""Rows of these sizes have a page of 4 KiB to themselves; each counts as the largest, to pay for the page."""

_SMALL_BYTES = _ALONE_BYTES[0] - _ROW_BYTES + EVENT_BYTES
"""Less than an event without type and id that has a page to itself."""


def event_size(data: bytes, event_type: str | None, event_id: str | None) -> int:
    """Return how much an event takes in the store, in each of its channels, without their names.

    `event_id` is None if the daemon made it, for such ids are not stored.
    """
    size = len(data) + EVENT_BYTES
    if size < _SMALL_BYTES and event_type is None and event_id is None:  # as most
        return size
    if event_type is not None:
        size += _bytes_of(event_type)
    if event_id is not None:
        size += 2 * _bytes_of(event_id) + _GIVEN_BYTES  # in the block, and where it is looked up
    row = size - EVENT_BYTES + _ROW_BYTES
    return size + _ALONE_BYTES[-1] - row if row in _ALONE_BYTES else size


def size_in(event: Event, channel: str) -> int:
    """Return about how much an event takes in the store in one of its channels, in bytes."""
    return event.size + _bytes_of(channel) if event.counts_name else event.size


def size_of(entry: Entry) -> int:
    """Return about how much an entry takes in the store, in bytes."""
    event = entry.event
    return event.size + _bytes_of(entry.channel) if event.counts_name else event.size


def memory_of(entry: Entry) -> int:
    """Return about how much an entry takes in memory, in bytes."""
    return size_of(entry) + OBJECT_BYTES


def channel_size(name: str) -> int:
    """Return about how much a channel takes in the store besides its events."""
    return 2 * _bytes_of(name) + _CHANNEL_BYTES


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
