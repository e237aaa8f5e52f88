"""The event: what is published, and its place in a channel."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import field
from hashlib import blake2b

from pushd.bus.patterns import check_name
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
"""How long the fingerprint of what was published is: enough for those that have one id in one channel."""

_CACHED_BYTES = 4096
"""Frames of events with more data than this are kept only while they are handed out."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_OWN_ID = re.compile(r"([0-9a-z]{10})-(0|[1-9][0-9]{0,18})", re.ASCII)
_RESERVED = frozenset({"latest", "earliest"})
_OWN_TYPE = "pushd."


def own_id(epoch: str, sequence: int) -> str:
    """Make the id that the daemon gives to the event at `sequence` of the log."""
    return f"{epoch}-{sequence}"


def own_sequence(epoch: str, event_id: str) -> int | None:
    """Return where in the log an id of this daemon stands; None if it is not one of this `epoch`."""
    match = _OWN_ID.fullmatch(event_id)
    return int(match[2]) if match is not None and match[1] == epoch else None


def sequence_in(event_id: str) -> int | None:
    """Return the sequence that an id of a daemon has in it, of whatever epoch; None if it is not such an id."""
    match = _OWN_ID.fullmatch(event_id)
    return None if match is None else int(match[2])


def check_id(event_id: str) -> str:
    """Return `event_id` if a publisher may give it; raise `BadRequest` if not."""
    _check_line(event_id, "id")
    if event_id != event_id.strip():
        # Last-Event-ID would come back without it
        raise BadRequest(f"the id {event_id!r} begins or ends with white space", "id")
    if event_id in _RESERVED or _OWN_ID.fullmatch(event_id):
        raise BadRequest(f"the id {event_id!r} is of a form that the daemon keeps for itself", "id")
    return event_id


def check_type(event_type: str) -> str:
    """Return `event_type` if a publisher may give it; raise `BadRequest` if not.

    Subscribers believe types that begin with ``pushd.``, in whatever case: only the daemon makes drafts of those.
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
    """What a publisher asks for, checked."""

    channels: tuple[str, ...]
    """One or more channel names, each once; the first is the canonical one."""

    data: bytes
    """What is to be delivered."""

    is_text: bool
    """True if `data` is UTF-8 and meant as text."""

    type: str | None = None
    """The type of the event, or None."""

    id: str | None = None
    """The id that the publisher wants, or None for one of the daemon's."""

    sent: bytes | None = None
    """The `fingerprint` of what the publisher sent, if somebody else has changed that."""

    def fingerprint(self) -> bytes:
        """Return some bytes that tell what the publisher sent from anything else that could have the same id.

        They stand for the data, whether it is text, the type, and the channels: the first one, and the set of the
        others.
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
        """Check what came from outside and make a draft of it; raise `BadRequest` if something is wrong.

        `is_text` None means that nobody said: data that is valid UTF-8 is text then; True, that the caller knows.
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
    """Something that was published.

    It does not know its channels: each has an `Entry` of its own, so that an event in many channels costs no more
    than as many events.
    """

    id: str
    """Made by the daemon, and then unique in the log; or given by the publisher, for the first of its channels."""

    data: bytes
    """What is delivered."""

    is_text: bool
    """True if `data` is UTF-8 and meant as text."""

    type: str | None
    """The type of the event (``event`` of Server-Sent Events), or None."""

    time: float
    """When it was published, in seconds since 1970."""

    sequence: int
    """Its place in the log of this daemon: 1, 2, 3, ..."""

    size: int
    """About how many bytes it takes in the store, in each of its channels: see `pushd.bus.sizes`."""

    counts_name: bool = False
    """True if the name of the channel is to be added to that: where an id that a publisher gave is looked up."""


Encoder = Callable[["Entry"], bytes]
"""Turns an entry into the bytes of one wire format."""


@record(eq=False)
class Entry:
    """An event at its place in one channel."""

    event: Event
    """The event."""

    channel: str
    """The channel, one of the event's."""

    offset: int
    """Its place in the channel: 1, 2, 3, ... without holes."""

    expires_s: float
    """When the channel forgets it, in seconds of the bus's monotonic clock."""

    may_be_missed: bool = False
    """True if a subscriber that is too slow is to miss it rather than be closed."""

    frames: dict[Encoder, bytes] = field(default_factory=dict)
    """The entry in each wire format that somebody wanted so far, so that each is encoded once."""

    def frame(self, encode: Encoder) -> bytes:
        """Return the entry in the wire format of `encode`, made once: see `forget_frames`."""
        frame = self.frames.get(encode)
        if frame is None:
            frame = self.frames[encode] = encode(self)
        return frame

    def forget_frames(self) -> None:
        """Let go of the frames, if they are large; those of small events are kept for who comes back later."""
        if len(self.event.data) > _CACHED_BYTES:
            self.frames.clear()
