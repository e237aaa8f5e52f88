"""The bus over the store against the model of `test_bus_model`, with threads, restarts, crashes and full disks.

The memory for entries is so small, and blocks and transactions are so short, that all their edges are met.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from pushd.bus.batch import Batch
from pushd.bus.bus import Published
from pushd.bus.clientinfo import DAEMON
from pushd.bus.event import Entry
from pushd.bus.publisher import Deleted, Outcome
from pushd.bus.sizes import EVENT_BYTES, OBJECT_BYTES, size_in
from pushd.bus.storage import PublishedId
from pushd.errors import NoRoom, NotFound, Unavailable, Unprocessable
from pushd.store.sqlite import archive, journal, reader
from pushd.store.sqlite import history as stored
from pushd.store.sqlite import transaction as change
from pushd.store.sqlite.block import decode
from pushd.store.sqlite.history import SqliteHistory
from pushd.store.sqlite.schema import OFFSETS
from pushd.store.sqlite.submission import Submission
from tests.rigs.builders import draft
from tests.rigs.effort import model
from tests.rigs.stored import StoredBusRig, directory
from tests.unit.bus.test_bus_model import (
    CHANNELS,
    GIVEN_IDS,
    SOME_CHANNELS,
    BusMachine,
    Fact,
    FetchingMachine,
    data_of,
)

SMALL = (
    (reader, "_CHUNK_OFFSETS", 4),
    (change, "_BLOCK_BYTES", 3 * EVENT_BYTES),
    (archive, "_BLOCKS_PER_CHANGE", 3),
    (journal, "_EVENTS_PER_BATCH", 3),
    (stored, "_GONE_AT_LEAST", 0),
)
WAITING = st.one_of(
    st.sampled_from(sorted(CHANNELS)),
    st.tuples(SOME_CHANNELS, st.one_of(st.none(), st.sampled_from(GIVEN_IDS))),
    st.tuples(SOME_CHANNELS, st.one_of(st.none(), st.sampled_from(GIVEN_IDS))),
)
"""A channel that is to be deleted; or the channels of an event that is to be published, and its id."""


@dataclass(eq=False)
class Waiting:
    """An event that is to be published, or a channel that is to be deleted."""

    channels: Sequence[str]
    given_id: str | None = None
    data: bytes = b""
    is_delete: bool = False


@dataclass
class Staging:
    """What was true when the journal began its latest transaction."""

    seconds: float = 0.0
    """When that was."""
    facts: int = 0
    """How many events were published before."""
    known: dict[tuple[str, str], Fact | None] = field(default_factory=dict)
    """The events with given ids, by their first channel."""
    given: dict[tuple[str, str], PublishedId] = field(default_factory=dict)
    """Those with given ids in the transaction."""
    entries: dict[int, dict[str, Entry]] = field(default_factory=dict)
    """The entries of the transaction, by sequence and channel."""
    names: list[str] | None = None
    """The channels that there were when it was written, if it was."""
    deletes: str | None = None
    """The channel that it deletes."""


class StoreMachine(BusMachine):
    writes_in_thread = False
    fetches = False

    def make_rig(self, *, max_held_bytes: int) -> StoredBusRig:
        self.patches = ExitStack()
        for module, name, value in SMALL:
            self.patches.enter_context(patch.object(module, name, value))
        self.patches.enter_context(patch.object(Submission, "note", self.noting()))
        self.parts: dict[Submission, list[Waiting]] = {}
        self.stored = StoredBusRig(
            self.patches.enter_context(directory()),
            writes_in_thread=self.writes_in_thread,
            fetches=self.fetches,
            recent_bytes=3 * (EVENT_BYTES + OBJECT_BYTES),
            past_bytes=5000,
            kept=CHANNELS,
            max_channels=self.max_channels,
            max_held_bytes=max_held_bytes,
        )
        self.patches.callback(self.stored.end)
        self.waiting: list[Waiting] = []
        self.wrong: list[Exception] = []
        self.count = 0
        self.watch()
        return self.stored

    def watch(self) -> None:
        """Look on, in the bus that was just made, when a transaction begins and when a channel is given up."""
        self.staging = Staging()
        bus, archive = self.stored.journal, self.stored.store.archive
        begin, write, give_up = bus._publish, bus._write, archive.give_up

        def publish() -> None:
            known = {(name, each): self.known(name, each) for name in CHANNELS for each in GIVEN_IDS}
            self.staging = Staging(self.rig.clock.seconds(), len(self.facts), known)
            begin()

        def written(change: Any, then: Any) -> None:
            batch = getattr(then, "args", [None])[0]
            self.staging.deletes = None if isinstance(batch, Batch) or batch is None else batch.name
            if isinstance(batch, Batch):
                self.staging.names = list(self.rig.log.names())
                self.staging.given = dict(batch.given)
                for channel, entries in batch.by_channel.items():
                    for entry in entries:
                        self.staging.entries.setdefault(entry.event.sequence, {})[channel.name] = entry
            write(change, then)

        def gave_up(history: Any) -> None:
            self.checked(self.was_given_up, history.name)
            give_up(history)

        bus._publish = publish  # type: ignore[method-assign]
        bus._write = written  # type: ignore[method-assign]
        archive.give_up = gave_up  # type: ignore[method-assign]

    def noting(self) -> Callable[[Submission, list[Outcome]], None]:
        """Account for each transaction of events that were published together: they may come into several."""
        note = Submission.note

        def noted(submission: Submission, outcomes: list[Outcome]) -> None:
            waiting = self.parts.get(submission)
            if waiting is not None:
                for outcome in outcomes:
                    self.told(waiting.pop(0), outcome)
            note(submission, outcomes)

        return noted

    def checked(self, check: Callable[..., None], *args: object) -> None:
        """Call what checks something where pushd would catch it."""
        try:
            check(*args)
        except Exception as error:  # noqa: BLE001  it is raised again
            self.wrong.append(error)

    def was_given_up(self, channel: str) -> None:
        if self.last_offset(channel) and channel not in self.given_up:
            assert not self.kept(channel), "given up though it had events"
            self.given_up.add(channel)
            last = [fact.sequence for fact in self.facts if channel in fact.channels][-1]
            self.given_up_sequence = max(self.given_up_sequence, last)

    def note_given_up(self) -> None:
        pass

    # Publishing

    def publish_one(self, channels: list[str], given_id: str | None) -> None:
        self.enqueue((channels, given_id))
        if not self.writes_in_thread:
            self.settle()

    def enqueue(self, what: str | tuple[list[str], str | None]) -> None:
        if isinstance(what, str):
            waiting = Waiting([what], is_delete=True)
            self.waiting.append(waiting)
            self.stored.journal.delete(what, DAEMON, partial(self.told, waiting))
            return
        channels, given_id = what
        self.count += 1
        waiting = Waiting(channels, given_id, data_of(self.count, given_id))
        self.waiting.append(waiting)
        asked = draft(*channels, data=waiting.data, id=given_id)
        self.stored.journal.publish(asked, DAEMON, partial(self.told, waiting))

    def told(self, waiting: Waiting, outcome: Any) -> None:
        self.checked(self.account, waiting, outcome)

    def account(self, waiting: Waiting, outcome: Any) -> None:
        assert self.waiting.pop(0) is waiting, "told out of order"
        if waiting.is_delete:
            self.account_delete(waiting.channels[0], outcome)
        else:
            self.account_publish(waiting, outcome)

    def account_delete(self, channel: str, outcome: Deleted) -> None:
        if isinstance(outcome, NoRoom):
            return
        subscribed = [reader for reader in self.readers if channel in reader.texts]
        if isinstance(outcome, NotFound):
            assert not subscribed
            assert not self.last_offset(channel) or channel in self.given_up
            return
        assert outcome is None
        self.was_deleted(channel, subscribed)

    def account_publish(self, waiting: Waiting, outcome: Outcome) -> None:
        channels, given_id = waiting.channels, waiting.given_id
        before = None if given_id is None else self.staging.known[channels[0], given_id]
        staged = None if given_id is None else self.staging.given.get((channels[0], given_id))
        sequence = len(self.facts) + 1
        if isinstance(outcome, Published) and (staged.sequence == sequence if staged else given_id is None):
            assert before is None, "published again"
            assert self.rig.log.sequence >= sequence
            entries = self.staging.entries.pop(sequence)
            offsets = {channel: entries[channel].offset for channel in channels}
            self.published(channels, given_id, waiting.data, outcome, offsets, self.staging.seconds)
        elif isinstance(outcome, Published):
            fact = before or self.facts[staged.sequence - 1] if staged else before
            assert fact is not None
            assert fact.is_same(channels, waiting.data)
            assert outcome == Published(given_id or "", channels[0], fact.offsets[channels[0]], 0, True)
        elif isinstance(outcome, Unprocessable):
            asked = draft(*channels, data=waiting.data, id=given_id)
            if before is not None:
                assert not before.is_same(channels, waiting.data)
            else:
                assert staged is not None and staged.fingerprint != asked.fingerprint()
        elif isinstance(outcome, Unavailable):
            assert before is None
            self.assert_full(channels, self.staging.names)
        else:
            assert isinstance(outcome, NoRoom)
            assert before is None
            assert given_id is None or staged is not None

    def settle(self) -> None:
        self.stored.settle()
        self.raise_what_is_wrong()
        assert not self.waiting, "not told"

    def raise_what_is_wrong(self) -> None:
        if self.wrong:
            raise self.wrong[0]

    @rule(each=st.lists(WAITING, min_size=1, max_size=6))
    def in_one_turn(self, each: list[Any]) -> None:
        for one in each:
            self.enqueue(one)
        if not self.writes_in_thread:
            self.settle()

    @rule(each=st.lists(st.tuples(SOME_CHANNELS, st.none() | st.sampled_from(GIVEN_IDS)), min_size=1, max_size=5))
    def publish_all(self, each: list[tuple[list[str], str | None]]) -> None:
        waiting = []
        for channels, given_id in each:
            self.count += 1
            waiting.append(Waiting(channels, given_id, data_of(self.count, given_id)))
        self.waiting += waiting
        drafts = [draft(*one.channels, data=one.data, id=one.given_id) for one in waiting]
        self.stored.journal.publish_all(drafts, DAEMON, partial(self.all_told, waiting))
        (waits,) = self.stored.journal._waiting._by_owner.values()
        assert isinstance(waits[-1], Submission)
        self.parts[waits[-1]] = list(waiting)
        if not self.writes_in_thread:
            self.settle()

    def all_told(self, waiting: list[Waiting], outcomes: list[Outcome]) -> None:
        if len(outcomes) != len(waiting):
            self.wrong.append(AssertionError("not told of all"))

    @rule(channel=st.sampled_from(sorted(CHANNELS)))
    def delete(self, channel: str) -> None:
        self.enqueue(channel)
        if not self.writes_in_thread:
            self.settle()

    @rule(count=st.integers(1, 2))
    def the_disk_is_full(self, count: int) -> None:
        self.stored.failures = count

    # The store

    @rule()
    def tend(self) -> None:
        self.stored.failures = 0
        self.settle()
        self.stored.tend()
        self.nothing_remains_in_vain()

    def nothing_remains_in_vain(self) -> None:
        """Hold against the files that they have what is needed and no more."""
        log, store = self.rig.log, self.stored.store
        assert not store.archive._to_remove
        assert not store.archive._given_up
        all_histories: list[Any] = [log.by_name[name].history for name in log.names()]
        histories = {history.key: history for history in all_histories}
        ids = []
        in_vain: dict[int, list[int]] = {}
        rows = store._rows("SELECT place, count, given, events FROM block ORDER BY place")
        for place, count, given, block in rows:
            history = histories[place // OFFSETS]
            if place % OFFSETS + count <= history.first:
                in_vain.setdefault(history.key, []).append(count)
            events = list(decode(block, history.name))
            assert len(events) == count
            numbered = enumerate(events, place % OFFSETS)
            found = [(event.id, history.name, offset) for offset, event in numbered if event.id in GIVEN_IDS]
            assert len(found) == given
            ids += found
        for key, counts in in_vain.items():
            # An eighth of as many as are kept, at the end of the oldest block and in all that follow it
            assert 1 + sum(counts[1:]) <= len(histories[key]) // 8, "blocks that nobody wants"
        names = {name for (name,) in store._rows("SELECT name FROM channel")}
        assert {channel.name for channel in log._by_sequence} <= names <= set(log.names())
        assert store._rows('SELECT id, channel, "offset" FROM given ORDER BY 1, 2, 3') == sorted(ids)

    @rule()
    def restart(self) -> None:
        self.stored.failures = 0
        self.stored.close()
        self.settle()
        self.stored.open()
        self.begin_again({})

    @rule()
    def crash(self) -> None:
        unknown = self.stored.thread.has_succeeded
        staging = self.staging
        self.stored.crash()
        self.begin_again(staging.entries if unknown else {})
        if unknown and staging.deletes is not None:
            self.deleted[staging.deletes] = len(self.facts)

    def begin_again(self, unknown: dict[int, dict[str, Entry]]) -> None:
        """Take note that all is as it was, but for events that were stored and not acknowledged."""
        for _, entries in sorted(unknown.items()):
            event = next(iter(entries.values())).event
            offsets = {channel: entry.offset for channel, entry in entries.items()}
            first = next((one.channel for one in self.staging.given.values() if one.sequence == event.sequence), "")
            channels = tuple(sorted(entries, key=lambda channel: channel != first))
            given_id = event.id if event.id in GIVEN_IDS else None
            seconds = event.time - self.stored.now() + self.rig.clock.seconds()
            self.facts.append(Fact(event.sequence, channels, offsets, seconds, given_id, event.data))
            self.given_up -= set(channels)
        self.waiting.clear()
        self.parts.clear()
        self.readers.clear()
        self.ended.clear()
        self.faults = 0
        self.renewed |= self.given_up & set(self.rig.log.names())
        self.given_up = {name for name in CHANNELS if self.last_offset(name)} - set(self.rig.log.names())
        assert not any(map(self.kept, self.given_up)), "a channel is lost"
        # Those that were given up, and that the store has not been told of, are there again
        self.most_channels = max(self.max_channels, len(self.rig.log))
        self.watch()

    def size_in_store(self, history: SqliteHistory) -> int:
        """Add up the events in the store, from the oldest that `history` has not counted as dropped."""
        rows = self.stored.store._reader.execute(
            "SELECT place, events FROM block WHERE place / ? = ?", (OFFSETS, history.key)
        )
        return sum(
            size_in(event, history.name)
            for place, block in rows
            for offset, event in enumerate(decode(block, history.name), place % OFFSETS)
            if history._counted <= offset <= history.last
        )

    @invariant()
    def the_sizes_agree(self) -> None:
        log, kept = self.rig.log, self.stored.store.archive
        histories: list[Any] = [log.by_name[name].history for name in log.names()]
        assert log.size_bytes == sum(log.by_name[name].size_bytes for name in log.names())
        assert log.size_bytes >= sum(history.size_bytes for history in histories)
        for history in histories:
            assert history.size_bytes == self.size_in_store(history)
        assert kept._past.size_bytes == sum(chunk.cost for chunk in kept._past._chunks.values())
        assert kept._recent.size_bytes <= 3 * (EVENT_BYTES + OBJECT_BYTES)

    @invariant()
    def nothing_is_wrong(self) -> None:
        self.raise_what_is_wrong()
        assert not self.stored.logged

    def nothing_is_left(self) -> None:
        assert self.rig.log.size_bytes == 0
        self.stored.tend()
        self.nothing_remains_in_vain()
        assert self.stored.store._rows("SELECT * FROM block") == []
        assert self.stored.store._rows("SELECT * FROM given") == []

    def teardown(self) -> None:
        try:
            self.stored.failures = 0
            self.settle()
            super().teardown()
            self.nothing_is_wrong()
        finally:
            self.patches.close()


class CrowdedStoreMachine(StoreMachine):
    """The same with room for fewer channels than there are."""

    max_channels = 3


class ThreadedStoreMachine(StoreMachine):
    """The same with transactions in a thread: much happens while they are under way."""

    writes_in_thread = True

    @precondition(lambda self: self.stored.turns or self.stored.thread)
    @rule(steps=st.lists(st.sampled_from(("turn", "work", "answer")), min_size=1, max_size=6))
    def go_on(self, steps: list[str]) -> None:
        for step in steps:
            if step == "turn":
                self.stored.turns.turn()
            elif step == "work":
                self.stored.thread.work()
            else:
                self.stored.thread.answer()

    @rule()
    def tend_meanwhile(self) -> None:
        self.stored.journal.tend()

    @rule()
    def go_on_to_the_end(self) -> None:
        self.settle()


class CrowdedThreadedStoreMachine(ThreadedStoreMachine):
    """Both."""

    max_channels = 3


class FetchingStoreMachine(FetchingMachine, ThreadedStoreMachine):
    """The same with a thread that reads the past: what it reads may have been dropped, or written, meanwhile."""

    fetches = True

    def begin_again(self, unknown: dict[int, dict[str, Entry]]) -> None:
        super().begin_again(unknown)
        self.begin_fetching()

    @precondition(lambda self: self.stored.fetching)
    @rule(steps=st.lists(st.booleans(), min_size=1, max_size=4))
    def fetch(self, steps: list[bool]) -> None:
        for is_work in steps:
            if is_work:
                self.stored.fetching.work()
            else:
                self.stored.fetching.answer()

    def arrive_some(self) -> bool:
        if not self.stored.fetching:
            return False
        self.stored.fetching.work()
        self.stored.fetching.answer()
        return True

    @rule()
    def forget(self) -> None:
        past = self.stored.store.archive._past
        past._chunks.clear()
        past._places.clear()
        past.size_bytes = 0


FEWER = model(80, 40, long=(1000, 100))

StoreModelTests = StoreMachine.TestCase
StoreModelTests.settings = FEWER
CrowdedStoreModelTests = CrowdedStoreMachine.TestCase
CrowdedStoreModelTests.settings = FEWER
ThreadedStoreModelTests = ThreadedStoreMachine.TestCase
ThreadedStoreModelTests.settings = FEWER
CrowdedThreadedStoreModelTests = CrowdedThreadedStoreMachine.TestCase
CrowdedThreadedStoreModelTests.settings = FEWER
FetchingStoreModelTests = FetchingStoreMachine.TestCase
FetchingStoreModelTests.settings = FEWER

del BusMachine, FetchingMachine  # whose tests are elsewhere
