"""The ledger: what publishers were told, held against what subscribers got and what the history shows in the end.

Each event has data of its own, so that it is known again wherever it turns up. For each channel there must be one
order that explains everything: a linearizable log.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["Ledger", "Seen", "Sent", "View"]

_SHOWN = 20
"""How many faults of a kind are shown."""

_LONGEST = 40
"""How much is shown of the data of an event, in characters."""


@dataclass
class Sent:
    """An event that somebody published, as far as the publisher knows."""

    data: str
    """What no other event has."""

    channels: tuple[str, ...]
    """Where it was published to; the first one is the canonical one."""

    sent_s: float
    """When it was sent for the first time, in seconds of any clock."""

    given: str | None = None
    """The id that the publisher gave, if it did."""

    answers: list[tuple[str, int, float]] = field(default_factory=list)
    """Each acknowledgement: the id, the offset, and when it came."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An event as somebody got it."""

    channel: str
    """Its channel; the only one of the event's if the client cannot tell."""

    id: str
    """Its id, or its position if the client cannot tell."""

    data: str
    """Its data."""

    offset: int | None = None
    """Its offset, if the client was told."""

    has_id: bool = True
    """False if `id` is the position, whatever id its publisher gave."""


@dataclass
class View:
    """What one subscriber got, through all its connections."""

    name: str
    """Who it is."""

    channels: tuple[str, ...]
    """What it was subscribed to, from the beginning of the log."""

    seen: list[Seen | None] = field(default_factory=list)
    """What came, in this order; None where it was told that something is missing."""


class Ledger:
    """Everything that was published in one run, and what was seen of it."""

    def __init__(self, forgets: Iterable[str] = ()) -> None:
        """Begin; channels that `forgets` names may drop events, the others must have all to the end."""
        self._forgets = frozenset(forgets)
        self.sent: dict[str, Sent] = {}
        """What was published, by its data."""
        self.views: list[View] = []
        """What subscribers got."""
        self.histories: dict[str, list[Seen]] = {}
        """What each channel had in the end, oldest first."""
        self._faults: dict[str, list[str]] = {}
        self._ids: dict[str, str] = {}  # data by id
        self._offsets: dict[tuple[str, str], int] = {}  # by channel and data
        self._datas: dict[tuple[str, int], str] = {}  # by channel and offset

    def send(self, data: str, channels: tuple[str, ...], at_s: float, given: str | None = None) -> Sent:
        """Record an event before its first publish."""
        assert data not in self.sent, data
        sent = self.sent[data] = Sent(data, channels, at_s, given)
        return sent

    @property
    def acknowledged(self) -> int:
        """How many events were acknowledged."""
        return sum(bool(sent.answers) for sent in self.sent.values())

    def faults(self) -> list[str]:
        """Return everything that contradicts the promises, one line each."""
        self._faults, self._ids, self._offsets, self._datas = {}, {}, {}, {}
        for sent in list(self.sent.values()):
            self._check_answers(sent)
        for view in self.views:
            for seen in view.seen:
                if seen is not None:
                    self._check_seen(seen, f"subscriber {view.name}")
        for channel, history in self.histories.items():
            for seen in history:
                self._check_seen(seen, f"the history of {channel}")
        for channel in self.histories:
            self._check_history(channel)
            self._check_order_in_time(channel)
        for view in self.views:
            self._check_view(view)
        return [
            line
            for kind, lines in self._faults.items()
            for line in (
                *(f"{kind}: {line}" for line in lines[:_SHOWN]),
                *([f"{kind}: {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []),
            )
        ]

    def _fault(self, kind: str, line: str) -> None:
        self._faults.setdefault(kind, []).append(line)

    # Names: every id and every offset stands for one event

    def _check_answers(self, sent: Sent) -> None:
        for event_id, offset, _ in sent.answers:
            if sent.given is not None and event_id != sent.given:
                self._fault(
                    "another id", f"{_short(sent.data)} was published as {sent.given} and answered as {event_id}"
                )
            self._name(sent.channels[0], event_id, offset, sent.data, "its publisher")

    def _check_seen(self, seen: Seen, where: str) -> None:
        sent = self.sent.get(seen.data)
        if sent is None or seen.channel not in sent.channels:
            self._fault("changed", f"{where} has {_short(seen.data)!r} as {seen.id}, which nobody published there")
            return
        if seen.has_id and sent.given is not None and seen.id != sent.given:
            self._fault(
                "another id", f"{_short(seen.data)} was published as {sent.given}, {where} has it as {seen.id}"
            )
        self._name(seen.channel, seen.id, seen.offset, seen.data, where)

    def _name(self, channel: str, event_id: str, offset: int | None, data: str, where: str) -> None:
        """Record the id and offset of an event; complain if another event has one of them."""
        other = self._ids.setdefault(event_id, data)
        if other != data:
            self._fault("id twice", f"{event_id} is {_short(other)} and, for {where}, {_short(data)}")
        if offset is None:
            return
        other = self._datas.setdefault((channel, offset), data)
        if other != data:
            self._fault(
                "offset twice", f"{offset} of {channel} is {_short(other)} and, for {where}, {_short(data)}"
            )
        known = self._offsets.setdefault((channel, data), offset)
        if known != offset:
            self._fault(
                "delivered twice", f"{_short(data)} is at {known} of {channel} and, for {where}, at {offset}"
            )

    # The history in the end

    def _check_history(self, channel: str) -> None:
        history = self.histories[channel]
        offsets = [seen.offset for seen in history if seen.offset is not None]
        latest = max((offset for name, offset in self._datas if name == channel), default=0)
        for before, after in pairwise(offsets):
            if after != before + 1:
                self._fault("order", f"in the history of {channel}, {after} follows {before}")
        if channel in self._forgets:
            if offsets and offsets[-1] != latest:
                self._fault("missing", f"the history of {channel} ends at {offsets[-1]}, not at {latest}")
            return
        if offsets and offsets[0] != 1:
            self._fault("missing", f"the history of {channel} begins at {offsets[0]}")
        kept = {seen.data for seen in history}
        for sent in self.sent.values():
            if sent.answers and channel in sent.channels and sent.data not in kept:
                self._fault(
                    "missing", f"{_short(sent.data)} was acknowledged, and is not in the history of {channel}"
                )
        for (name, data), offset in self._offsets.items():
            if name == channel and data not in kept:
                self._fault(
                    "missing", f"{_short(data)} was seen at {offset}, and is not in the history of {channel}"
                )

    def _check_order_in_time(self, channel: str) -> None:
        """What was acknowledged before something else was sent comes before it."""
        latest_sent_s, latest = float("-inf"), ""
        known = sorted((offset, data) for (name, data), offset in self._offsets.items() if name == channel)
        for offset, data in known:
            sent = self.sent.get(data)
            if sent is None:
                continue
            answered_s = min((at_s for _, _, at_s in sent.answers), default=float("inf"))
            if answered_s < latest_sent_s:
                what = f"{_short(latest)}, ahead of it in {channel}, was sent"
                self._fault("order", f"{_short(data)} at {offset} was acknowledged before {what}")
            if sent.sent_s > latest_sent_s:
                latest_sent_s, latest = sent.sent_s, data

    # What subscribers got

    def _check_view(self, view: View) -> None:
        last: dict[str, int | None] = dict.fromkeys(view.channels, 0)  # what everything came up to; None: not known
        came: dict[str, set[str]] = defaultdict(set)
        for seen in view.seen:
            if seen is None:
                if not self._forgets & set(view.channels):
                    self._fault("gap", f"{view.name} was told that something is missing, and nothing can be")
                last = dict.fromkeys(view.channels)
                continue
            channel, before = seen.channel, last.get(seen.channel)
            if seen.data in came[channel]:
                self._fault("delivered twice", f"{view.name} got {_short(seen.data)} of {channel} once more")
                continue
            came[channel].add(seen.data)
            offset = self._offsets.get((channel, seen.data))
            if offset is None:  # nobody else saw it: it must be the next, which the one after it shows
                offset = None if before is None else before + 1
            elif before is not None and offset <= before:
                self._fault("order", f"{view.name} got {offset} of {channel} after {before}")
                continue
            elif before is not None:
                self._check_skipped(view.name, channel, range(before + 1, offset), came[channel])
            last[channel] = offset
        for channel in view.channels:
            latest = max((offset for name, offset in self._datas if name == channel), default=0)
            before = last[channel]
            if before is not None:
                self._check_skipped(view.name, channel, range(before + 1, latest + 1), came[channel])

    def _check_skipped(self, name: str, channel: str, offsets: range, came: set[str]) -> None:
        """Complain of everything at `offsets` that a subscriber did not get, and was not told that it misses."""
        for offset in offsets:
            data = self._datas.get((channel, offset))
            if data not in came:
                what = "which nobody knows" if data is None else _short(data)
                self._fault("recovered", f"{name} did not get {offset} of {channel}, {what}, and was not told so")


def _short(data: str) -> str:
    return data if len(data) <= _LONGEST else f"{data[:_LONGEST]}..."
