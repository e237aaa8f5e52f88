"""The bus against a model: a list of all that was ever published, and what each channel has dropped of it.

``HYPOTHESIS_PROFILE=long`` makes many more and longer runs, and shrinks what fails, which may take minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import Deferred

from pushd.bus import replay
from pushd.bus.bus import Published
from pushd.bus.clientinfo import DAEMON, ClientInfo
from pushd.bus.closing import CloseCause
from pushd.bus.grants import EVERYTHING
from pushd.bus.position import HistoryPage, StartPosition
from pushd.bus.replay import ENTRY_BYTES
from pushd.bus.replaying import Done
from pushd.bus.subscription import Subscription
from pushd.bus.turn import Turn
from pushd.bus.work import Work
from pushd.errors import NotFound, Unavailable, Unprocessable
from pushd.sessions.long_work import LongWork
from tests.rigs.builders import EPOCH, BusRig, Client, Kept, datas, patterns
from tests.rigs.effort import model
from tests.rigs.far_history import FarStorage

CHANNELS = {
    "a": Kept(2, 10),
    "b": Kept(3, 5),
    "c": Kept(100, 8),
    "none": Kept(0, 10),
    "a/x": Kept(4, 20),
}
MEANING = {
    **{name: {name} for name in CHANNELS},
    "*": {"a", "b", "c", "none"},
    "**": set(CHANNELS),
    "a/**": {"a", "a/x"},
    "a/**/**": {"a", "a/x"},
    "**/*": set(CHANNELS),
    "**/x": {"a/x"},
}
GIVEN_IDS = ("one", "two", "three")
MAX_HELD = 6

SOME_CHANNELS = st.lists(st.sampled_from(sorted(CHANNELS)), min_size=1, max_size=3, unique=True)
SOME_PATTERNS = st.lists(
    st.one_of(st.sampled_from(sorted(CHANNELS)), st.sampled_from(sorted(MEANING))),
    min_size=1,
    max_size=3,
    unique=True,
)
WHICH = st.integers(0, 99)
SINCE = st.one_of(
    st.sampled_from(("latest", "earliest", "earliest", "no such id", "abcdefghij-1", *GIVEN_IDS)),
    st.integers(0, 12),
)
"""A position: as a text, or as a number of events before the end."""


def fail(*_: object) -> None:
    raise ZeroDivisionError


def data_of(count: int, given_id: str | None) -> bytes:
    """Return the data of an event, a byte that is often the same where there is an id."""
    return b"%d" % (count % (10 if given_id is None else 2))


def means(texts: Iterable[str]) -> set[str]:
    """Return the channels that some patterns stand for."""
    return set().union(*(MEANING[text] for text in texts))


@dataclass(frozen=True)
class Fact:
    """One event that was published."""

    sequence: int
    channels: tuple[str, ...]
    offsets: dict[str, int]
    time: float
    given_id: str | None
    data: bytes

    def is_same(self, channels: Sequence[str], data: bytes) -> bool:
        """Return whether publishing this again would be publishing the same."""
        return (self.channels[0], set(self.channels), self.data) == (channels[0], set(channels), data)


@dataclass(eq=False)
class Reader:
    """One subscription, and what is owed to it."""

    client: Client
    subscription: Subscription
    texts: set[str] = field(default_factory=set)
    owed: dict[int, set[str]] = field(default_factory=dict)
    """By its sequence, each event that must come before it is live, and the channels that owe it."""
    again: set[int] = field(default_factory=set)
    """Those that it had already when it asked for them: they may come or not."""
    held: dict[int, set[str]] = field(default_factory=dict)
    """Those that were published during its replay and are held for it, a byte each: no more than `MAX_HELD`."""
    got: list[int] = field(default_factory=list)
    replaying: bool = False
    faulty: bool = False


class BusMachine(RuleBasedStateMachine):
    max_channels = 1000
    max_held = MAX_HELD

    def __init__(self) -> None:
        super().__init__()
        self.most_channels = self.max_channels
        self.rig = self.make_rig(max_held_bytes=self.max_held * (1 + ENTRY_BYTES))
        self.facts: list[Fact] = []
        self.deleted = dict.fromkeys(CHANNELS, 0)
        """For each channel, the end of the log when it was last deleted."""
        self.given_up: set[str] = set()
        """The channels that were given up and not used since."""
        self.renewed: set[str] = set()
        """Channels that were given up, used again, and found in a store, where an offset may be left out."""
        self.given_up_sequence = 0
        self.readers: list[Reader] = []
        self.ended: list[tuple[Reader, int, int]] = []
        self.faults = 0

    def make_rig(self, *, max_held_bytes: int) -> BusRig:
        return BusRig(kept=CHANNELS, max_channels=self.max_channels, max_held_bytes=max_held_bytes)

    # The model

    def kept(self, channel: str) -> list[Fact]:
        """Return what `channel` still has."""
        limits, now = CHANNELS[channel], self.rig.clock.seconds()
        kept = [
            fact
            for fact in self.facts
            if channel in fact.channels
            and fact.sequence > self.deleted[channel]
            and fact.time + limits.history_age_s > now
        ]
        return kept[max(0, len(kept) - limits.history_size) :]

    def kept_since(self, channels: set[str], sequence: int) -> dict[int, set[str]]:
        """Return what `channels` still have after a place in the log, and which have it."""
        found: dict[int, set[str]] = {}
        for channel in channels:
            for fact in self.kept(channel):
                if fact.sequence > sequence:
                    found.setdefault(fact.sequence, set()).add(channel)
        return found

    def lost_since(self, channels: set[str], sequence: int) -> bool:
        """Return whether any of `channels` had an event after a place in the log that it has no more."""
        return any(
            fact not in self.kept(channel)
            for fact in self.facts[sequence:]
            for channel in channels.intersection(fact.channels)
        )

    def known(self, channel: str, given_id: str | None) -> Fact | None:
        """Return the event with an id that a publisher gave, if it was for `channel` first, which still has it."""
        for fact in self.kept(channel) if given_id is not None else []:
            if fact.given_id == given_id and fact.channels[0] == channel:
                return fact
        return None

    def resolve(self, since: str | int, channels: set[str]) -> tuple[str, int | None]:
        """Return the text of a position, and its place in the log if those who read `channels` can know it."""
        end = len(self.facts)
        if isinstance(since, int):
            place = end + 1 - since  # also the future, by one
            return (f"{EPOCH}-{max(place, 0)}", max(place, 0) if place <= end else None)
        if since == "latest":
            return since, end
        found = [fact.sequence for name in channels for fact in self.kept(name) if fact.given_id == since]
        return since, min(found, default=None)

    def check_recovered(
        self, channels: set[str], since: str | int, recovered: bool, among: set[str] | None = None
    ) -> int:
        """Hold `recovered` against what was lost; return the place in the log to read from."""
        text, place = self.resolve(since, channels if among is None else among)
        if place is None:
            assert recovered is (text == "earliest"), text
            return 0
        if recovered:
            assert not self.lost_since(channels, place), text
        else:  # the exception: what was given up may count as lost
            assert self.lost_since(channels, place) or self.given_up_sequence > place, text
        return place

    def last_offset(self, channel: str) -> int:
        return max((fact.offsets[channel] for fact in self.facts if channel in fact.channels), default=0)

    # What must be true of what came

    def take(self, reader: Reader, *, live: bool) -> None:
        """Account for everything that was delivered to `reader` since the last time."""
        for entry in reader.client.entries[len(reader.got) :]:
            sequence = entry.event.sequence
            if sequence > len(self.facts):
                break  # it was handed out together with the one at hand
            assert sequence in reader.owed, "not owed, or twice"
            before = {other for other in reader.owed if other < sequence}
            assert before <= reader.again, ("a gap or out of order", before, sequence)
            fact = self.facts[sequence - 1]
            # What was held when its subscriber unsubscribed from one of its channels may come as of any of them.
            # What a cursor stood at already comes as of its channel, though the channel has dropped it meanwhile.
            asked = reader.owed[sequence] | means(reader.texts).intersection(fact.channels)
            assert entry.channel in (fact.channels if sequence in reader.held else asked)
            assert entry.offset == fact.offsets[entry.channel]
            assert entry.event.data == fact.data
            reader.got.append(sequence)
            for done in (*before, sequence):
                del reader.owed[done]
            for done in (*before, sequence):
                reader.held.pop(done, None)
            if reader.faulty:
                self.faults += 1
                self.end(reader, CloseCause.FAILED)
                return
        if live:
            assert set(reader.owed) <= reader.again, ("never came", reader.owed)
            reader.owed.clear()

    def end(self, reader: Reader, *causes: CloseCause) -> None:
        assert reader.client.causes == list(causes)
        self.readers.remove(reader)
        self.ended.append((reader, len(reader.client.entries), len(causes)))

    def note_given_up(self) -> None:
        """Find out which channels the log has given up."""
        for channel in set(CHANNELS) - set(self.rig.log.names()):
            if self.last_offset(channel) and channel not in self.given_up:
                assert not self.kept(channel), "given up though it had events"
                self.given_up.add(channel)
                last = [fact.sequence for fact in self.facts if channel in fact.channels][-1]
                self.given_up_sequence = max(self.given_up_sequence, last)

    def assert_full(self, channels: Iterable[str], names: Iterable[str] | None = None) -> None:
        """Hold against a refusal: with `names`, or those of now, there would have been too many channels."""
        assert len({*(self.rig.log.names() if names is None else names), *channels}) > self.max_channels

    # What may happen

    @rule(channels=SOME_CHANNELS, given_id=st.one_of(st.none(), st.none(), st.sampled_from(GIVEN_IDS)))
    def publish(self, channels: list[str], given_id: str | None) -> None:
        self.publish_one(channels, given_id)

    def publish_one(self, channels: list[str], given_id: str | None) -> None:
        data, known = data_of(len(self.facts), given_id), self.known(channels[0], given_id)
        try:
            told = self.rig.publish(*channels, data=data, id=given_id)
        except Unprocessable:
            assert known is not None and not known.is_same(channels, data)
            return
        except Unavailable:
            assert known is None
            self.assert_full(channels)
            return
        if known is not None:
            assert known.is_same(channels, data)
            assert told == Published(known.given_id or "", channels[0], known.offsets[channels[0]], 0, True)
            return
        self.note_given_up()
        self.published(channels, given_id, data, told)

    def published(
        self,
        channels: Sequence[str],
        given_id: str | None,
        data: bytes,
        told: Published,
        offsets: dict[str, int] | None = None,
        seconds: float | None = None,
    ) -> None:
        """Account for the next event that was published; `seconds` is its time, if that is not now."""
        sequence = len(self.facts) + 1
        offsets = offsets or {channel: self.rig.log.by_name[channel].offset for channel in channels}
        for channel, offset in offsets.items():
            last = self.last_offset(channel)
            if channel in self.given_up | self.renewed or (self.given_up_sequence and not last):
                assert offset > last, "an offset twice"
            else:
                assert offset == last + 1
        seconds = self.rig.clock.seconds() if seconds is None else seconds
        fact = Fact(sequence, tuple(channels), offsets, seconds, given_id, data)
        self.facts.append(fact)
        self.given_up -= set(channels)
        self.renewed -= set(channels)
        assert told.id == (given_id or f"{EPOCH}-{sequence}")
        assert (told.channel, told.offset) == (channels[0], offsets[channels[0]])
        audience = [reader for reader in self.readers if means(reader.texts).intersection(channels)]
        assert told.subscribers == len(audience)
        for reader in audience:
            reader.owed[sequence] = means(reader.texts).intersection(channels)
            if reader.replaying:
                self.hold(reader, sequence, means(reader.texts).intersection(channels))
            else:
                self.take(reader, live=True)

    def hold(self, reader: Reader, sequence: int, channels: set[str]) -> None:
        """Account for an event that was published during a replay: what the histories retain takes no room."""
        if len(reader.held) >= self.max_held and self.is_retained(sequence, channels):
            return
        reader.held[sequence] = channels
        if len(reader.held) > self.max_held:
            reader.held = {key: one for key, one in reader.held.items() if not self.is_retained(key, one)}
        if len(reader.held) > self.max_held:
            self.end(reader, CloseCause.TOO_SLOW)

    def is_retained(self, sequence: int, channels: set[str]) -> bool:
        """Return whether all of `channels` retain an event; the log may have later ones than the model already."""
        fact, now = self.facts[sequence - 1], self.rig.clock.seconds()
        found = ((CHANNELS[name], self.rig.log.get(name), fact.offsets[name]) for name in channels)
        return all(
            channel is not None and channel.history.holds(offset) and fact.time + kept.history_age_s > now
            for kept, channel, offset in found
        )

    @rule(each=st.lists(SOME_CHANNELS, min_size=1, max_size=4))
    def publish_more(self, each: list[list[str]]) -> None:
        for channels in each:
            self.publish_one(channels, None)

    @rule(texts=SOME_PATTERNS, since=SINCE)
    def subscribe(self, texts: list[str], since: str | int) -> None:
        client = Client()
        reader = Reader(client, Subscription(self.rig.bus, client, DAEMON))
        self.readers.append(reader)
        self.add_to(reader, texts, since)

    @precondition(lambda self: self.readers)
    @rule(which=WHICH, texts=SOME_PATTERNS, since=SINCE)
    def add(self, which: int, texts: list[str], since: str | int) -> None:
        self.add_to(self.readers[which % len(self.readers)], texts, since)

    def add_to(self, reader: Reader, texts: list[str], since: str | int) -> None:
        try:
            start: StartPosition = reader.subscription.add(patterns(*texts), self.resolve(since, set())[0])
        except Unavailable:
            self.assert_full(texts)
            return
        place = self.check_recovered(means(texts), since, start.recovered, means(texts) | means(reader.texts))
        reader.texts.update(texts)
        self.note_given_up()
        if since == "latest":
            assert start.recovered
            return
        reader.replaying = True
        for sequence, channels in self.kept_since(means(texts), place).items():
            if sequence not in reader.owed and sequence in reader.got:
                reader.again.add(sequence)
            reader.owed.setdefault(sequence, set()).update(channels)

    @precondition(lambda self: self.readers)
    @rule(which=WHICH, text=st.sampled_from(sorted(MEANING)))
    def remove(self, which: int, text: str) -> None:
        reader = self.readers[which % len(self.readers)]
        if which % 5 and reader.texts:
            text = sorted(reader.texts)[which % len(reader.texts)]
        assert reader.subscription.remove(text) is (text in reader.texts)
        reader.texts.discard(text)
        for sequence, channels in list(reader.held.items()):
            channels &= means(reader.texts)
            if not channels:
                del reader.held[sequence]
        for sequence, channels in list(reader.owed.items()):
            channels &= means(reader.texts)
            if not channels:
                del reader.owed[sequence]
        if not reader.texts:
            self.take(reader, live=True)
            reader.replaying = False

    def was_overtaken(self, reader: Reader) -> bool:
        """Return whether `reader` was closed as too slow, which it must have been."""
        if reader.client.causes != [CloseCause.TOO_SLOW]:
            return False
        assert any(
            self.facts[sequence - 1] not in self.kept(channel)
            for sequence, channels in reader.owed.items()
            for channel in channels
        )
        self.end(reader, CloseCause.TOO_SLOW)
        return True

    @precondition(lambda self: self.readers)
    @rule(which=WHICH, most=st.integers(0, 8))
    def advance_run(self, which: int, most: int) -> None:
        reader = self.readers[which % len(self.readers)]
        if not reader.faulty:
            run = reader.subscription.advance_run(most)
            reader.client.entries += run
            if not self.was_overtaken(reader):
                assert len(run) <= most + 1
                self.take(reader, live=False)

    @precondition(lambda self: self.readers)
    @rule(which=WHICH, steps=st.integers(1, 4))
    def advance(self, which: int, steps: int) -> None:
        reader = self.readers[which % len(self.readers)]
        for _ in range(steps):
            if reader.replaying and not reader.subscription.is_readable:
                assert not reader.subscription.advance()
                assert reader.subscription.is_replaying
                return  # nothing may come before it is tidy: see the invariants
            more, count = reader.subscription.advance(), len(reader.got)
            if self.was_overtaken(reader):
                return
            is_fetching = reader.replaying and reader.subscription.then is not None
            self.take(reader, live=not more and not reader.faulty and not is_fetching)
            if reader not in self.readers or is_fetching:
                return
            assert len(reader.got) - count <= 1
            if not more:
                self.take(reader, live=True)
                reader.replaying = False
            assert reader.subscription.is_replaying is reader.replaying

    @precondition(lambda self: self.readers)
    @rule(which=WHICH, in_close=st.booleans())
    def become_faulty(self, which: int, in_close: bool) -> None:
        reader = self.readers[which % len(self.readers)]
        reader.faulty, reader.client.acts = True, fail
        if in_close:
            reader.client.at_close = fail

    @precondition(lambda self: self.readers)
    @rule(which=WHICH)
    def close(self, which: int) -> None:
        reader = self.readers[which % len(self.readers)]
        reader.subscription.close()
        self.end(reader)

    @rule(seconds=st.integers(1, 6), expire=st.booleans())
    def time_passes(self, seconds: int, expire: bool) -> None:
        self.rig.clock.advance(seconds)
        if expire:
            self.rig.log.expire()

    @rule(channel=st.sampled_from(sorted(CHANNELS)))
    def delete(self, channel: str) -> None:
        subscribed = [reader for reader in self.readers if channel in reader.texts]
        exists = subscribed or (self.last_offset(channel) and channel not in self.given_up)
        try:
            self.rig.bus.delete(channel, EVERYTHING)
        except NotFound:
            assert not exists
            return
        assert exists
        self.was_deleted(channel, subscribed)

    def was_deleted(self, channel: str, subscribed: list[Reader]) -> None:
        """Account for a channel that has just been deleted."""
        self.deleted[channel] = len(self.facts)
        for reader in subscribed:
            self.end(reader, CloseCause.DELETED)

    @rule(texts=SOME_PATTERNS, since=SINCE, limit=st.integers(1, 5))
    def read(self, texts: list[str], since: str | int, limit: int) -> None:
        page = self.rig.read(*texts, since=self.resolve(since, set())[0], limit=limit)
        place = self.check_recovered(means(texts), since, page.recovered)
        found = list(page.entries)
        while page.entries:
            assert len(page.entries) <= limit
            position = page.position
            page = self.rig.read(*texts, since=position, limit=limit)
            assert page.position != position or not page.entries, "it never ends"
            self.check_recovered(means(texts), len(self.facts) + 1 - int(position[11:]), page.recovered)
            found += page.entries
        wanted = sorted(self.kept_since(means(texts), place))
        assert [entry.event.sequence for entry in found] == wanted
        assert datas(found) == [self.facts[sequence - 1].data for sequence in wanted]

    # What is true at any time

    @invariant()
    def who_has_ended_gets_nothing_more(self) -> None:
        for reader, delivered, causes in self.ended:
            assert (len(reader.client.entries), len(reader.client.causes)) == (delivered, causes)

    @invariant()
    def nobody_else_has_ended_or_got_anything(self) -> None:
        for reader in self.readers:
            assert not reader.client.causes
            assert len(reader.client.entries) == len(reader.got)
            assert len(reader.subscription) == len(reader.texts)

    @invariant()
    def no_more_is_held_than_may_be(self) -> None:
        for reader in self.readers:
            past = reader.subscription._replay
            held = 0 if past is None else past.held
            assert held <= self.max_held
            assert past is None or past.held_bytes == held * (1 + ENTRY_BYTES)

    @invariant()
    def the_counts_agree(self) -> None:
        bus = self.rig.bus
        assert (bus.subscribers, bus.failures) == (len(self.readers), self.faults)
        assert self.rig.log.position == f"{EPOCH}-{len(self.facts)}"
        assert len(self.rig.log) <= self.most_channels

    @invariant()
    def no_expiry_is_forgotten(self) -> None:
        log = self.rig.log
        filled = {name for name in log.names() if log.by_name[name].history}
        expiring = {channel.name for heap in log._retention_queue._expiries.heaps() for _, _, channel in heap}
        assert filled <= expiring

    def teardown(self) -> None:
        bus, log = self.rig.bus, self.rig.log
        for channel in CHANNELS:
            state = bus.state(channel, EVERYTHING)
            offsets = [fact.offsets[channel] for fact in self.kept(channel)]
            assert state.retained == len(offsets)
            assert (state.oldest and state.oldest.offset) == (offsets[0] if offsets else None)
            assert (state.latest and state.latest.offset) == (offsets[-1] if offsets else None)
            subscribed = [reader for reader in self.readers if channel in means(reader.texts)]
            assert state.subscribers == len(subscribed)
        for reader in self.readers:
            reader.subscription.close()
        self.rig.clock.advance(1000)
        log.expire()
        assert (bus.subscribers, len(bus._audiences._by_pattern), bus._audiences._by_pattern._places) == (
            0,
            0,
            {},
        )
        assert bus._audiences._by_name == {}
        assert not any(channel.is_heard or channel.history for channel in log.by_name.values())
        assert set(log._idle) == set(log.by_name.values()) == set(log._by_sequence)
        assert len(log._retention_queue._expiries) == 0
        self.nothing_is_left()

    def nothing_is_left(self) -> None:
        """Hold against the archive that nothing is kept any more."""
        assert self.rig.archive._given == {}


class CrowdedBusMachine(BusMachine):
    """The same with room for fewer channels than there are."""

    max_channels = 3


class SteppedBusMachine(BusMachine):
    """The same with replays that are made tidy in steps: in between, everything else may happen."""

    max_held = 1000

    def __init__(self) -> None:
        super().__init__()
        self.works: list[tuple[Work[None], Callable[[], bool], Done]] = []
        self.rig.bus.do_later = self.do_later
        self.sizes = patch.multiple(replay, _JOINED=1, _FILTERED=1)
        self.sizes.start()

    def do_later(self, work: Work[None], is_gone: Callable[[], bool], caller: ClientInfo, done: Done) -> None:
        self.works.append((work, is_gone, done))

    @precondition(lambda self: self.works)
    @rule(which=WHICH, steps=st.integers(1, 8))
    def go_on(self, which: int, steps: int) -> None:
        place = which % len(self.works)
        work, is_gone, done = self.works[place]
        for _ in range(steps):
            if is_gone() or next(work, self) is self:
                del self.works[place]
                done(Unavailable("gone") if is_gone() else None)
                return

    def teardown(self) -> None:
        while self.works:
            self.go_on(0, 8)
        for reader in list(self.readers):
            while reader in self.readers and reader.replaying:
                self.advance(self.readers.index(reader), 1)
        self.sizes.stop()
        super().teardown()


@dataclass
class Page:
    """A page that is being read."""

    texts: list[str]
    since: str | int
    done: Deferred[HistoryPage]
    place: int | None
    """The place in the log to read from, if the log knows it."""
    had: dict[int, set[str]]
    """What the channels had after that place when the reading began."""
    lost: bool
    """Whether they had lost anything since that place."""


class FetchingMachine(BusMachine):
    """The same with entries that are not in memory: they arrive and are forgotten again at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.ticks = count()
        self.pages: list[Page] = []
        self.begin_fetching()

    def begin_fetching(self) -> None:
        """Run the jobs of the bus, which is new, in turns."""
        self.due: list[Callable[[], None]] = []
        self.steps = LongWork(lambda delay_s, call: self.due.append(call), Turn(lambda: next(self.ticks) / 1000))
        self.rig.bus.do_later = self.do_later
        self.pages.clear()

    def do_later(self, work: Work[None], is_gone: Callable[[], bool], caller: ClientInfo, done: Done) -> None:
        self.steps.run(work, is_gone).addCallbacks(done, lambda failure: done(failure.value))

    @precondition(lambda self: self.due)
    @rule()
    def turn(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()

    def arrive_some(self) -> bool:
        """Let some entries arrive; return False if none are awaited."""
        raise NotImplementedError

    @rule(texts=SOME_PATTERNS, since=SINCE, limit=st.integers(1, 5))
    def read_later(self, texts: list[str], since: str | int, limit: int) -> None:
        since = since or 1  # a position of the future is one of the past by the time it is looked up
        position, place = self.resolve(since, means(texts))
        wanted = means(texts)
        had, lost = self.kept_since(wanted, place or 0), self.lost_since(wanted, place or 0)
        done = self.steps.run(self.rig.bus.reading(patterns(*texts), position, limit, EVERYTHING))
        self.pages.append(Page(texts, since, done, place, had, lost))

    @invariant()
    def pages_are_without_gaps(self) -> None:
        for page in [page for page in self.pages if page.done.called]:
            self.pages.remove(page)
            found: list[HistoryPage] = []
            page.done.addCallback(found.append)
            self.check_page(page, found[0])

    def check_page(self, page: Page, found: HistoryPage) -> None:
        wanted, got = means(page.texts), [entry.event.sequence for entry in found.entries]
        assert got == sorted(set(got))
        if max(got, default=0) > len(self.facts):
            return  # it has events whose publishers have not been told yet
        assert datas(found.entries) == [self.facts[sequence - 1].data for sequence in got]
        assert all(wanted.intersection(self.facts[sequence - 1].channels) for sequence in got)
        if page.since in GIVEN_IDS:
            return  # it may stand for another place in the log by now
        assert page.place is None or all(sequence > page.place for sequence in got)
        assert page.place is None or not (found.recovered and page.lost)
        has = self.kept_since(wanted, page.place or 0)
        still = {sequence for sequence, names in page.had.items() if names & has.get(sequence, set())}
        through = got[-1] if got else int(found.position[11:])
        assert {sequence for sequence in still if sequence <= through} <= set(got), "a gap"

    def finish_fetching(self) -> None:
        """Let all jobs end."""
        while self.arrive_some() or self.due:
            self.turn()

    def teardown(self) -> None:
        self.finish_fetching()
        self.pages_are_without_gaps()
        assert not self.pages
        for reader in list(self.readers):
            while reader in self.readers and reader.replaying:
                self.advance(self.readers.index(reader), 1)
                self.finish_fetching()
        assert len(self.steps) == 0
        super().teardown()


class FarBusMachine(FetchingMachine):
    """The same with histories in memory of which the test says that they are not there."""

    max_held = 1000

    def __init__(self) -> None:
        super().__init__()
        self.sizes = patch.multiple(replay, _JOINED=1, _FILTERED=1)
        self.sizes.start()

    def make_rig(self, *, max_held_bytes: int) -> BusRig:
        rig = super().make_rig(max_held_bytes=max_held_bytes)
        rig.archive = self.far = FarStorage()
        rig.begin(self.far)
        return rig

    @precondition(lambda self: self.far.awaited)
    @rule(which=WHICH)
    def arrive(self, which: int) -> None:
        self.far.awaited.pop(which % len(self.far.awaited))(None)

    def arrive_some(self) -> bool:
        if not self.far.awaited:
            return False
        self.arrive(0)
        return True

    @rule()
    def forget(self) -> None:
        self.far.here.clear()

    def teardown(self) -> None:
        super().teardown()
        self.sizes.stop()


RUNS = model(300, 40, long=(3000, 100))

BusModelTests = BusMachine.TestCase
BusModelTests.settings = RUNS
CrowdedBusModelTests = CrowdedBusMachine.TestCase
CrowdedBusModelTests.settings = RUNS
FarBusModelTests = FarBusMachine.TestCase
FarBusModelTests.settings = RUNS
SteppedBusModelTests = SteppedBusMachine.TestCase
SteppedBusModelTests.settings = RUNS
