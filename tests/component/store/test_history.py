"""The history in the store, held against the one in memory, and what only it has to do."""

from __future__ import annotations

from contextlib import ExitStack
from unittest.mock import patch
from zlib import crc32

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pushd.bus.event import Entry, Event, own_id
from pushd.bus.history import MemoryHistory
from pushd.bus.sizes import EVENT_BYTES, OBJECT_BYTES, memory_of
from pushd.errors import Unavailable
from pushd.store.sqlite import archive, block, chunk_cache, reader
from pushd.store.sqlite import history as stored
from pushd.store.sqlite import transaction as change
from pushd.store.sqlite.history import SqliteHistory
from pushd.store.sqlite.schema import OFFSETS
from tests.component.store.test_bus import StoredBusCase
from tests.rigs.builders import EPOCH, STARTED, Kept
from tests.rigs.effort import model
from tests.rigs.stored import StoredBusRig, directory

RECENT_BYTES = 4 * (EVENT_BYTES + OBJECT_BYTES)
LIMITS = st.tuples(
    st.sampled_from((0, 1, 3, 10, 1000)), st.sampled_from((0, 5, 1000)), st.sampled_from((0, 200, 1000, 1 << 30))
)
"""Count, age and bytes."""


class HistoryMachine(RuleBasedStateMachine):
    @initialize(limits=LIMITS, gone_at_least=st.integers(0, 8))
    def begin(self, limits: tuple[int, float, int], gone_at_least: int) -> None:
        self.patches = ExitStack()
        for module, name, value in (
            (reader, "_CHUNK_OFFSETS", 4),
            (change, "_BLOCK_BYTES", 3 * EVENT_BYTES),
            (archive, "_BLOCKS_PER_CHANGE", 2),
            (stored, "_GONE_AT_LEAST", gone_at_least),
        ):
            self.patches.enter_context(patch.object(module, name, value))
        self.kept = Kept(*limits)
        self.rig = StoredBusRig(
            self.patches.enter_context(directory()),
            recent_bytes=RECENT_BYTES,
            past_bytes=4000,
            kept={"a": self.kept, "other": Kept(0)},
        )
        self.patches.callback(self.rig.end)
        self.sequence = 0
        self.all: list[Entry] = []
        self.deleted = 0
        self.twin = MemoryHistory(self.kept, 0)

    @property
    def history(self) -> SqliteHistory:
        history = self.rig.log.open(["a"])[0].history
        assert isinstance(history, SqliteHistory)
        return history

    def entry(self, event: Event, offset: int) -> Entry:
        return Entry(event, "a", offset, event.time - STARTED + self.kept.history_age_s)

    @rule(each=st.lists(st.sampled_from((0, 1, 50, 300, None)), min_size=1, max_size=12))
    def publish(self, each: list[int | None]) -> None:
        """Publish events of these sizes in one turn; those without one go elsewhere."""
        drafts, entries = [], list[Entry]()
        for size in each:
            self.sequence += 1
            data = b"%d" % self.sequence if size is None else bytes([self.sequence % 100]) * size
            drafts.append((("other" if size is None else "a",), data, None))
            if size is not None:
                event_id, offset = own_id(EPOCH, self.sequence), len(self.all) + len(entries) + 1
                event = Event(
                    event_id, event_id, data, True, None, self.rig.now(), self.sequence, size + EVENT_BYTES
                )
                entries.append(self.entry(event, offset))
        self.rig.publish_together(*drafts)
        self.all += entries
        if entries:
            self.twin.extend(entries)
            self.twin.trim(self.rig.seconds())

    @rule(seconds=st.integers(1, 4))
    def trim(self, seconds: int) -> None:
        self.rig.clock.advance(seconds)
        self.rig.log.trim(self.rig.log.open(["a"])[0])
        self.twin.trim(self.rig.seconds())

    @rule(seconds=st.integers(1, 4))
    def time_passes(self, seconds: int) -> None:
        self.rig.clock.advance(seconds)

    @precondition(lambda self: len(self.twin) > 0)
    @rule(count=st.integers(1, 6))
    def drop(self, count: int) -> None:
        for _ in range(min(count, len(self.twin))):
            self.rig.log._drop(self.rig.log.open(["a"])[0])
            self.twin.drop()

    @precondition(lambda self: self.all)
    @rule()
    def delete(self) -> None:
        self.rig.delete("a")
        self.twin.clear()
        self.deleted = len(self.all)

    @rule()
    def tend(self) -> None:
        self.rig.tend()
        assert not self.rig.store.archive.has_to_remove

    @rule(crashes=st.booleans(), limits=st.none() | LIMITS)
    def open_again(self, crashes: bool, limits: tuple[int, float, int] | None) -> None:
        """What was dropped may be there again if it is in the store still, but for what was deleted."""
        before = self.twin.oldest
        if crashes:
            self.rig.crash()
        else:
            self.rig.restart()
        if limits is not None:
            self.rig.close()
            self.kept.history_size, self.kept.history_age_s, self.kept.history_bytes = limits
            self.rig.open()
        first = self.history.first
        assert self.deleted < first <= (before.offset if before is not None else len(self.all) + 1)
        self.twin = MemoryHistory(self.kept, self.all[first - 2].event.sequence if first > 1 else 0)
        self.all = [self.entry(one.event, one.offset) for one in self.all]
        self.twin.extend(self.all[first - 1 :])

    @invariant()
    def both_are_the_same(self) -> None:
        history, twin = self.history, self.twin
        assert history.size_bytes >= twin.size_bytes
        assert (len(history), bool(history), history.sequence) == (len(twin), bool(twin), twin.sequence)
        assert (history.dropped, history.size_bytes) == (twin.dropped, twin.size_bytes)
        if twin:
            assert (history.expires_s, history.oldest_sequence) == (twin.expires_s, twin.oldest_sequence)
        for one, other in ((history.oldest, twin.oldest), (history.latest, twin.latest)):
            self.assert_same(one, other)
        for offset in range(len(self.all) + 3):
            assert history.holds(offset) is twin.holds(offset)
            self.assert_same(history.at(offset), twin.at(offset))
        for sequence in range(self.sequence + 2):
            self.assert_same(history.after(sequence), twin.after(sequence))

    def assert_same(self, one: Entry | None, other: Entry | None) -> None:
        assert (one is None) is (other is None)
        if one is not None and other is not None:
            assert (one.event, one.channel, one.offset) == (other.event, other.channel, other.offset)
            assert (one.expires_s, one.may_be_missed) == (other.expires_s, other.may_be_missed)

    @invariant()
    def only_so_much_is_in_memory(self) -> None:
        assert self.rig.store.archive._recent.size_bytes <= RECENT_BYTES
        tail = self.history._tail
        assert sum(map(memory_of, tail._entries)) <= RECENT_BYTES
        assert not self.rig.logged

    def teardown(self) -> None:
        if hasattr(self, "patches"):
            self.patches.close()


HistoryModelTests = HistoryMachine.TestCase
HistoryModelTests.settings = model(150, 25, long=(1500, 25))


class WritingTests(StoredBusCase):
    def blocks(self, rig: StoredBusRig) -> list[tuple[int, int]]:
        """Return first offset and count of the blocks, which are of one channel."""
        rows = rig.store._rows("SELECT place, count FROM block ORDER BY place")
        return [(place % OFFSETS, count) for place, count in rows]

    def test_a_channel_that_keeps_nothing_has_nothing_in_the_store_but_its_place(self) -> None:
        for kept in (Kept(history_size=0), Kept(history_age_s=0)):
            rig = self.made(default=kept, recent_bytes=0)
            rig.publish("a", data=b"1", id="one")
            rig.publish_together((("a",), b"2", None), (("a",), b"3", None))
            self.assertEqual((self.blocks(rig), rig.store._rows("SELECT * FROM given")), ([], []))
            for again in (lambda: None, rig.restart, rig.crash):
                again()
                history = self.history(rig, "a")
                self.assertEqual((len(history), history.last, history.dropped, history.size_bytes), (0, 3, 3, 0))
                self.assertFalse(rig.read("a", since=f"{EPOCH}-2").recovered)
                self.assertTrue(rig.read("a", since=f"{EPOCH}-3").recovered)
            self.assertEqual(rig.publish("a").offset, 4)
            self.assertEqual(rig.logged, [])

    def test_of_a_transaction_only_what_is_kept_is_written(self) -> None:
        rig = self.made(default=Kept(history_size=3))
        rig.publish("a", id="one")
        rig.publish_together(*[(("a", "b"), b"%d" % number, f"id {number}") for number in range(10)])
        self.assertEqual(sorted(self.blocks(rig)), [(1, 1), (8, 3), (9, 3)])
        rig.crash()
        self.assertEqual(rig.retained("a"), [b"7", b"8", b"9"])
        self.assertEqual(rig.store._rows("SELECT count(*) FROM given"), [(7,)])
        rig.tend()
        self.assertEqual(sorted(self.blocks(rig)), [(8, 3), (9, 3)])
        self.assertEqual(rig.store._rows("SELECT DISTINCT id FROM given"), [("id 7",), ("id 8",), ("id 9",)])

    def test_a_block_stays_until_all_of_it_was_dropped(self) -> None:
        self.patch(stored, "_GONE_AT_LEAST", 0)
        rig = self.made(default=Kept(history_size=5))
        rig.publish_together(*[(("a",), b"%d" % number, None) for number in range(1, 6)])
        for number in range(6, 10):
            rig.publish("a", data=b"%d" % number)
            rig.tend()
            self.assertEqual(self.blocks(rig)[0], (1, 5))
            rig.crash()
            self.assertEqual(rig.retained("a"), [b"%d" % each for each in range(number - 4, number + 1)])
        rig.publish("a", data=b"10")
        rig.tend()
        self.assertEqual(self.blocks(rig), [(number, 1) for number in range(6, 11)])

    def test_what_was_dropped_may_stay_up_to_an_eighth_of_what_is_kept(self) -> None:
        self.patch(stored, "_GONE_AT_LEAST", 0)
        rig = self.made(default=Kept(history_size=100, history_age_s=5))
        for count in (1, 1, 6, 1, 8):
            for _ in range(count):
                rig.publish("a")
            rig.clock.advance(1)
        for kept, first_there in ((16, 1), (15, 3), (9, 9), (8, 9), (0, 18)):
            rig.log.expire()
            for _ in range(3):  # more often changes nothing
                rig.tend()
                self.assertFalse(rig.store.archive.has_to_remove)
                self.assertEqual(self.blocks(rig), [(offset, 1) for offset in range(first_there, 18)])
            self.assertEqual(len(rig.retained("a")), kept)
            rig.clock.advance(1)

    def test_what_was_dropped_may_stay_if_it_is_16_at_most_and_something_is_kept(self) -> None:
        rig = self.made(default=Kept(history_size=1))
        for offset in range(1, 18):
            rig.publish("a")
            rig.tend()
            self.assertEqual(len(self.blocks(rig)), offset)
        rig.publish("a")
        rig.tend()
        self.assertEqual(self.blocks(rig), [(18, 1)])
        rig.publish("a")
        rig.delete("a")
        rig.tend()
        self.assertEqual(self.blocks(rig), [])

    def test_a_long_transaction_is_cut_into_blocks(self) -> None:
        self.patch(change, "_BLOCK_BYTES", 1000)
        rig = self.made()
        rig.publish_together(*[(("a",), b"x" * size, None) for size in (0, 900, 2000, 10, 10)])
        self.assertEqual(self.blocks(rig), [(1, 1), (2, 1), (3, 1), (4, 2)])
        rig.crash()
        self.assertEqual(list(map(len, rig.retained("a"))), [0, 900, 2000, 10, 10])

    def test_after_a_restart_it_keeps_what_the_new_settings_say(self) -> None:
        kept = Kept(history_size=10)
        rig = self.made(default=kept)
        rig.publish_together(*[(("a",), b"%d" % number, None) for number in range(10)])
        kept.history_size = 4
        rig.restart()
        self.assertEqual(rig.retained("a"), [b"6", b"7", b"8", b"9"])
        self.assertFalse(rig.read("a", since=f"{EPOCH}-5").recovered)
        self.assertTrue(rig.read("a", since=f"{EPOCH}-6").recovered)
        rig.publish("a", data=b"10")
        rig.tend()
        kept.history_size = 100
        rig.restart()
        rig.publish_together(*[(("a",), b"%d" % number, None) for number in range(11, 20)])
        self.assertEqual(rig.retained("a")[-13:], [b"%d" % number for number in range(7, 20)])

    def test_after_a_restart_the_age_counts_from_when_it_was_published(self) -> None:
        kept = Kept(history_age_s=10)
        rig = self.made(default=kept)
        rig.publish("a", data=b"1")
        rig.clock.advance(4)
        rig.publish("a", data=b"2")
        rig.close()
        rig.clock.advance(6)
        rig.open()
        self.assertEqual(rig.retained("a"), [b"2"])
        rig.clock.advance(4)
        self.assertEqual(rig.retained("a"), [])
        kept.history_age_s = 1000
        rig.restart()
        self.assertEqual(rig.publish("a").offset, 3)


class ReadingTests(StoredBusCase):
    def test_what_expired_is_jumped_over_without_reading_it(self) -> None:
        self.patch(reader, "_CHUNK_OFFSETS", 4)
        kept = Kept(history_size=1_000_000, history_age_s=10)
        rig = self.made(default=kept, recent_bytes=0, past_bytes=0)
        rig.publish_together(*[(("a",), b"", None)] * 5000)
        rig.clock.advance(9)
        rig.publish_together(*[(("a",), b"", None)] * 500)
        rig.clock.advance(1)
        with patch.object(chunk_cache, "decode", wraps=block.decode) as decode:
            rig.log.expire()
        history = self.history(rig, "a")
        self.assertEqual((history.first, len(history), history.dropped), (5001, 500, 5000))
        self.assertEqual(history.size_bytes, 500 * EVENT_BYTES)
        self.assertLess(decode.call_count, 60)  # there are 1,375 chunks

    def test_the_first_alive_of_a_million_is_found_in_few_steps(self) -> None:
        rig = self.made()
        rig.publish("a")
        history = self.history(rig, "a")
        for alive in (2, 3, 17, 65_536, 999_999, 1_000_001):
            history.first, history.last = 1, 1_000_000
            looked: list[int] = []

            def has_expired(offset: int, alive: int = alive, looked: list[int] = looked) -> bool:
                looked.append(offset)
                return offset < alive

            found = history._first_not(has_expired)
            with self.subTest(alive=alive):
                self.assertEqual(found, alive)
                self.assertLess(len(looked), 45)
                self.assertTrue(all(1 < offset <= 1_000_000 for offset in looked))

    def test_the_place_after_a_sequence_is_found_at_all_edges_of_blocks_and_chunks(self) -> None:
        self.patch(reader, "_CHUNK_OFFSETS", 4)
        rig = self.made(default=Kept(), recent_bytes=0, past_bytes=0)
        for count in (1, 3, 4, 5, 1, 1, 8, 2):
            each = [(("a",), b"", None)] * count
            rig.publish_together(*each, (("b",), b"", None), *each[:1])
        history = self.history(rig, "a")
        all_entries = [history.at(offset) for offset in range(1, history.last + 1)]
        sequences = [one.event.sequence for one in all_entries if one is not None]
        self.assertEqual(len(sequences), history.last)
        for first in range(1, history.last + 1):
            if first > 1:
                history.drop()
            rig.store.archive._past._chunks.clear()
            for sequence in range(history.dropped, history.sequence):
                wanted = next(place for place, one in enumerate(sequences, 1) if one > sequence and place >= first)
                self.assertEqual(history._past.after(history, sequence), wanted)
                found = history.after(sequence)
                self.assertEqual(found and found.offset, wanted)

    def test_the_number_of_small_chunks_is_bounded_too(self) -> None:
        self.patch(chunk_cache, "_CHUNKS", 3)
        rig = self.made(recent_bytes=0)
        rig.publish_together(*[((name,), b"", None) for name in "abcdef"])
        kept = rig.store.archive._past
        for name in "abcdef":
            self.assertIsNotNone(self.history(rig, name).at(1))
            self.assertLessEqual(len(kept._chunks), 3)
        self.assertEqual(kept.size_bytes, sum(one.cost for one in kept._chunks.values()))

    def test_chunks_are_read_once_and_as_many_kept_as_there_is_room_for(self) -> None:
        self.patch(reader, "_CHUNK_OFFSETS", 10)
        rig = self.made(recent_bytes=0, past_bytes=25 * (EVENT_BYTES + OBJECT_BYTES + 1))
        rig.publish_together(*[(("a",), b"", None)] * 40)
        history, kept = self.history(rig, "a"), rig.store.archive._past
        kept._chunks.clear()
        kept.size_bytes = 0
        with patch.object(kept._reader, "around", wraps=kept._reader.around) as reads:
            for offset in range(1, 41):
                history.at(offset)
            self.assertEqual(reads.call_count, 5)  # 1 to 9, 10 to 19, 20 to 29, 30 to 39, 40
            self.assertLessEqual(kept.size_bytes, 25 * (EVENT_BYTES + OBJECT_BYTES + 1))
            for offset in range(30, 41):
                history.at(offset)
            self.assertEqual(reads.call_count, 5)
            history.at(1)
            self.assertEqual(reads.call_count, 6)

    def test_of_large_events_only_so_many_are_read_together(self) -> None:
        self.patch(reader, "_CHUNK_BYTES", 1000)
        rig = self.made(default=Kept(), recent_bytes=0, past_bytes=0)
        datas = [b"%d" % number * size for number, size in enumerate((300, 10, 400, 5000, 10, 10, 900, 900, 10))]
        for data in datas:
            rig.publish("a", data=data)
        history = self.history(rig, "a")
        for offset in (1, 3, 4, 9, 2, 6):
            with patch.object(reader, "crc32", wraps=crc32) as read:
                history._past._chunks.clear()
                entry = history.at(offset)
            self.assertEqual(entry and entry.event.data, datas[offset - 1])
            sizes = [len(call.args[0]) for call in read.call_args_list]
            self.assertLessEqual(sum(sizes[1:]), 1000, (offset, sizes))
        self.assertEqual(rig.retained("a"), datas)

    def test_what_was_published_since_a_chunk_was_read_is_there(self) -> None:
        rig = self.made(recent_bytes=0)
        for number in range(1, 10):
            rig.publish("a", data=b"%d" % number)
            self.assertEqual(rig.retained("a"), [b"%d" % each for each in range(1, number + 1)])
        self.assertEqual(len(rig.store.archive._past._chunks), 1)

    def test_what_cannot_be_read_is_said_and_everything_else_goes_on(self) -> None:
        rig = self.made(default=Kept(history_size=4), recent_bytes=0)
        for number in range(1, 5):
            rig.publish("a", data=b"%d" % number)
        rig.store._writer.execute("UPDATE block SET events = x'00' WHERE place % ? = 2", (OFFSETS,))
        with self.assertRaises(Unavailable) as caught:
            rig.read("a")
        self.assertIn("event 2 of channel 'a' cannot be read", caught.exception.detail)
        self.assertEqual(rig.publish("a", data=b"5").offset, 5)
        self.assertEqual(rig.publish("a", data=b"6").offset, 6)
        self.assertEqual(rig.retained("a"), [b"3", b"4", b"5", b"6"])
        self.assertFalse(rig.read("a", since=f"{EPOCH}-1").recovered)
        self.assertTrue(rig.read("a", since=f"{EPOCH}-2").recovered)
        rig.tend()
        self.assertEqual(rig.publish("a", data=b"7").offset, 7)

    def test_a_damaged_block_does_not_keep_others_from_being_removed(self) -> None:
        self.patch(stored, "_GONE_AT_LEAST", 0)
        rig = self.made(default=Kept(history_size=2), recent_bytes=1 << 20)
        for number in range(1, 5):
            rig.publish("a", id=f"id {number}")
        rig.store._writer.execute("UPDATE block SET events = x'00' WHERE place % ? = 1", (OFFSETS,))
        damaged = block.encode(EPOCH, [], set()) + b"cut"
        rig.store._writer.execute("UPDATE block SET events = ? WHERE place % ? = 2", (damaged, OFFSETS))
        rig.tend()
        self.assertIn("pushd.store.sqlite.archive", [one["log_namespace"] for one in rig.logged])
        self.assertFalse(rig.store.archive.has_to_remove)
        rig.publish("a", id="id 5")
        rig.tend()
        self.assertEqual(rig.store._rows("SELECT count(*) FROM block"), [(2,)])

    def test_a_block_that_is_missing_is_not_replaced_by_that_of_another_channel(self) -> None:
        rig = self.made(recent_bytes=0)
        for name in "ab":
            rig.publish_together(*[((name,), b"x", None)] * 5)
        rig.publish("b")
        history = self.history(rig, "b")
        rig.store._writer.execute("DELETE FROM block WHERE place = ?", (history.key * OFFSETS + 1,))
        rig.store.archive._past._chunks.clear()
        rig.store.archive._past._fronts.clear()
        for read in (history._past.one, history._past.at):
            with self.assertRaises(Unavailable):
                read(history, 3)
        self.assertEqual(history._past.at(history, 6).offset, 6)
