"""The event: a published message, and its entry in each channel."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import field
from hashlib import blake2b

from pushd.bus.patterns import CONTROL, check_name
from pushd.bus.record import record
from pushd.errors import BadRequest

__all__ = [
    "FINGERPRINT_BYTES",
    "MAX_ID_BYTES",
    "Draft",
    "Encoder",
    "Entry",
    "Event",
    "check_id",
    "check_type",
    "own_id",
    "own_sequence",
    "sequence_in",
]

MAX_ID_BYTES = 255
"""The longest event id or event type, in bytes of UTF-8."""

FINGERPRINT_BYTES = 8
"""The length of a fingerprint: it only has to tell apart events with the same id in one channel."""

_CACHED_BYTES = 4096
"""The largest event data, in bytes, whose frames stay cached after the delivery."""

_CONTROL = re.compile(f"[{CONTROL}]")
_OWN_ID = re.compile(r"([0-9a-z]{10})-(0|[1-9][0-9]{0,18})", re.ASCII)
_RESERVED = frozenset({"latest", "earliest"})
_OWN_TYPE = "pushd."


def own_id(epoch: str, sequence: int) -> str:
    """Return the id that pushd assigns to the event at `sequence` of the log."""
    return f"{epoch}-{sequence}"


def own_sequence(epoch: str, event_id: str) -> int | None:
    """Return the sequence in an id assigned by pushd; None unless the id is of this `epoch`."""
    match = _OWN_ID.fullmatch(event_id)
    return int(match[2]) if match is not None and match[1] == epoch else None


def sequence_in(event_id: str) -> int | None:
    """Return the sequence in an id assigned by any pushd, of any epoch; None for other ids."""
    match = _OWN_ID.fullmatch(event_id)
    return None if match is None else int(match[2])


def check_id(event_id: str) -> str:
    """Return `event_id` if a publisher may use it; raise `BadRequest` if not."""
    _check_line(event_id, "id")
    if event_id != event_id.strip():
        # HTTP strips the white space from Last-Event-ID, so the id could not be resumed
        raise BadRequest(f"the id {event_id!r} begins or ends with white space", "id")
    if event_id in _RESERVED or _OWN_ID.fullmatch(event_id):
        raise BadRequest(f"the id {event_id!r} is of a form that the daemon keeps for itself", "id")
    return event_id


def check_type(event_type: str) -> str:
    """Return `event_type` if a publisher may use it; raise `BadRequest` if not.

    Types that begin with ``pushd.``, in any case, are reserved: subscribers trust that pushd itself sent them.
    """
    _check_line(event_type, "event")
    if event_type.lower().startswith(_OWN_TYPE):
        raise BadRequest(f"the type {event_type!r} begins with {_OWN_TYPE}: such are the daemon's own", "event")
    return event_type


def _check_line(text: str, name: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadRequest(f"the {name} is not valid Unicode", name) from None
    if not 1 <= size <= MAX_ID_BYTES:
        raise BadRequest(f"the {name} has 1 to {MAX_ID_BYTES} bytes of UTF-8, not {size}", name)
    if _CONTROL.search(text):
        raise BadRequest(f"the {name} {text!r} has a line break or another control character", name)
    return text


@record()
class Draft:
    """A publish request, validated."""

    channels: tuple[str, ...]
    """One or more channel names, each once; the first is the canonical one."""

    data: bytes
    """The bytes to deliver."""

    is_text: bool
    """True if `data` is UTF-8 and meant as text."""

    type: str | None = None
    """The type of the event, or None."""

    id: str | None = None
    """The id from the publisher, or None to have pushd assign one."""

    sent: bytes | None = None
    """The `fingerprint` of the original publish request, if a webhook has changed the draft."""

    def fingerprint(self) -> bytes:
        """Return a hash of the publish request, to tell a duplicate from a different event with the same id.

        The hash covers the data, whether the data is text, the type, the first channel, and the set of the other
        channels.
        """
        if self.sent is not None:
            return self.sent
        first, *others = self.channels
        texts = [b"" if self.type is None else b"=" + self.type.encode(), first.encode()]
        head = b"\0".join(
            [b"t" if self.is_text else b"b", *texts, *(name.encode() for name in sorted(others)), b""]
        )
        return blake2b(len(head).to_bytes(8, "little") + head + self.data, digest_size=FINGERPRINT_BYTES).digest()

    @classmethod
    def checked(
        cls,
        channels: tuple[str, ...],
        data: bytes,
        *,
        is_text: bool | None = None,
        type: str | None = None,
        id: str | None = None,
    ) -> Draft:
        """Validate a publish request and return its draft; raise `BadRequest` if the request is invalid.

        If `is_text` is None, data that is valid UTF-8 is text. True is not checked: the caller guarantees it.
        """
        if not channels:
            raise BadRequest("wanted one channel or more", "channel")
        for name in channels:
            check_name(name)
        if is_text is None:
            is_text = _is_utf8(data)
        return cls(
            channels if len(channels) == 1 else tuple(dict.fromkeys(channels)),
            data,
            is_text,
            None if type is None else check_type(type),
            None if id is None else check_id(id),
        )


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@record()
class Event:
    """A published event.

    An event has no reference to its channels: each channel has its own `Entry`, so that an event in many channels
    costs no more than as many events.
    """

    id: str
    """The event id: assigned by pushd, unique in the log; or by the publisher, for the first channel."""

    position: str
    """The position after the event, from which a client resumes; the same as `id` if pushd assigned that."""

    data: bytes
    """The bytes that subscribers receive."""

    is_text: bool
    """True if `data` is UTF-8 and meant as text."""

    type: str | None
    """The type of the event (``event`` of Server-Sent Events), or None."""

    time: float
    """The time of publishing, in seconds since 1970."""

    sequence: int
    """The place of the event in the log: 1, 2, 3, ..."""

    size: int
    """The approximate size of the event in the store, in bytes per channel: see `pushd.bus.sizes`."""

    counts_name: bool = False
    """True if `size` excludes the channel name, stored with an id from the publisher: add its length."""


Encoder = Callable[["Entry"], bytes]
"""Encodes an entry in one wire format."""


@record(eq=False)
class Entry:
    """The place of an event in one channel."""

    event: Event
    """The event."""

    channel: str
    """The name of the channel."""

    offset: int
    """The offset in the channel: 1, 2, 3, ... without gaps."""

    expires_s: float
    """The time at which the entry expires, in seconds of the monotonic clock of the bus."""

    may_be_missed: bool = False
    """True if a slow subscriber may miss the entry (``on_overflow = latest``) instead of being closed."""

    frames: dict[Encoder, bytes] = field(default_factory=dict)
    """The cached encoding of the entry in each wire format, so that each format is encoded once."""

    def frame(self, encode: Encoder) -> bytes:
        """Return the entry in the wire format of `encode`, cached: see `forget_frames`."""
        frame = self.frames.get(encode)
        if frame is None:
            frame = self.frames[encode] = encode(self)
        return frame

    def forget_frames(self) -> None:
        """Drop the cached frames of a large event; those of small events stay for later replays."""
        if len(self.event.data) > _CACHED_BYTES:
            self.frames.clear()
