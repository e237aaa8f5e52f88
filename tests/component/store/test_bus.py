"""The bus over the store: one rule each of what the model of `test_store_model` found or cannot reach."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest import TestCase
from unittest.mock import patch

from twisted.logger import formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.bus import Published
from pushd.bus.clientinfo import DAEMON
from pushd.bus.closing import CloseCause
from pushd.bus.sizes import EVENT_BYTES, OBJECT_BYTES, channel_size
from pushd.errors import NoRoom, NotFound, Refused, Unavailable, Unprocessable
from pushd.store import sqlite
from pushd.store.sqlite import archive, block, chunk_cache, journal, reader, store
from pushd.store.sqlite.history import SqliteHistory
from pushd.store.sqlite.transaction import Transaction
from tests.rigs.builders import EPOCH, Kept, draft, patterns
from tests.rigs.stored import StoredBusRig, directory


class StoredBusCase(SynchronousTestCase):
    def made(self, **options: Any) -> StoredBusRig:
        """Make a bus over a new store."""
        path = directory()
        self.addCleanup(path.cleanup)
        rig = StoredBusRig(path.name, **options)
        self.addCleanup(rig.end)
        return rig

    def history(self, rig: StoredBusRig, name: str) -> SqliteHistory:
        """Return the history of a channel."""
        history = rig.log.by_name[name].history
        assert isinstance(history, SqliteHistory)
        return history


class StatementTests(TestCase):
    def test_no_statement_numbers_its_placeholders(self) -> None:
        """From Python 3.14 on, sqlite3 refuses a sequence of values for ``?1``; 3.12 warns."""
        for path in Path(sqlite.__path__[0]).glob("*.py"):
            with self.subTest(path.name):
                self.assertIsNone(re.search(r"\?[0-9]", path.read_text()))


class TurnTests(StoredBusCase):
    def test_what_waits_behind_repeated_events_goes_on(self) -> None:
        rig = self.made()
        rig.publish("a", id="one")
        told: list[object] = []
        rig.journal.publish(draft("a", id="one"), DAEMON, told.append)
        rig.journal.delete("a", DAEMON, told.append)
        finished = rig.journal.finish()
        rig.settle()
        self.assertEqual(told[1:], [None])
        self.assertTrue(finished.called)

    def test_more_repeated_events_than_one_transaction_takes_are_all_answered(self) -> None:
        rig = self.made()
        rig.publish("a", id="one")
        with patch.object(journal, "_EVENTS_PER_BATCH", 2):
            told = rig.publish_together(*[(("a",), b"x", "one")] * 5)
        self.assertEqual([outcome.id for outcome in told if isinstance(outcome, Published)], ["one"] * 5)

    def test_an_id_in_the_store_but_not_in_the_log_yet_is_no_position(self) -> None:
        rig = self.made(writes_in_thread=True)
        rig.publish("a", data=b"1")
        rig.journal.publish(draft("a", id="one"), DAEMON, lambda told: None)
        rig.turns.turn()
        rig.thread.work()
        for texts in (("a",), ("*",)):
            self.assertIsNone(rig.log.place_of(patterns(*texts), "one"))
        rig.settle()
        for texts in (("a",), ("*",)):
            self.assertEqual(rig.log.place_of(patterns(*texts), "one"), 2)

    def test_a_fault_while_writing_is_told_and_takes_nothing_back_that_was_there(self) -> None:
        for writes_in_thread in (False, True):
            rig = self.made(writes_in_thread=writes_in_thread)
            rig.publish("a", data=b"1")
            with patch.object(rig.store, "_make", side_effect=ZeroDivisionError):
                (told,) = rig.publish_together((("a",), b"2", None))
            self.assertIsInstance(told, Unavailable)
            self.assertEqual(rig.publish("a", data=b"3").offset, 2)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            rig.crash()
            self.assertEqual(rig.retained("a"), [b"1", b"3"])

    def test_who_published_into_a_full_disk_is_told_and_so_is_who_repeated_it(self) -> None:
        rig = self.made()
        rig.publish("a", id="before")
        rig.failures = 1
        told = rig.publish_together(
            *((("a",), b"", "one"), (("a",), b"", "one"), (("a",), b"other", "one")),
            *((("a",), b"x", "before"), (("a",), b"other", "before")),
        )
        self.assertEqual(
            [type(outcome) for outcome in told], [NoRoom, NoRoom, Unprocessable, Published, Unprocessable]
        )
        self.assertEqual(rig.publish("a", id="one").offset, 2)


class ChannelTests(StoredBusCase):
    def test_a_channel_with_events_on_their_way_is_not_given_up(self) -> None:
        rig = self.made(default=Kept(history_size=1), max_channels=1)
        rig.publish("a")
        rig.delete("a")
        told = rig.publish_together((("a",), b"1", None), (("b",), b"2", None))
        self.assertEqual([isinstance(outcome, Refused) for outcome in told], [False, True])
        self.assertEqual(rig.retained("a"), [b"1"])

    def test_a_channel_that_was_given_up_can_be_used_before_the_store_has_forgotten_it(self) -> None:
        rig = self.made(max_channels=1)
        rig.publish_together((("a",), b"1", None), (("a",), b"2", None))
        rig.delete("a")
        rig.publish("b")
        rig.delete("b")
        self.assertEqual(rig.publish("a", data=b"3").offset, 4)  # after all that "b" had
        rig.crash()
        self.assertEqual(rig.retained("a"), [b"3"])
        rig.tend()
        self.assertEqual(rig.store._rows("SELECT count(*) FROM block"), [(1,)])

    def test_a_channel_that_was_deleted_stays_deleted(self) -> None:
        rig = self.made()
        rig.publish("a")
        rig.delete("a")
        rig.crash()
        self.assertEqual(rig.retained("a"), [])
        self.assertEqual(rig.publish("a").offset, 2)

    def test_a_channel_that_was_deleted_while_it_was_given_up_and_made_anew_stays(self) -> None:
        rig = self.made(writes_in_thread=True, max_channels=1)
        rig.publish("a")
        told: list[object] = []
        rig.journal.delete("a", DAEMON, told.append)
        rig.turns.turn()
        rig.clock.advance(4000)
        rig.log.expire()
        rig.log.open(["b"])
        rig.log.release(rig.log.open(["b"])[0])
        rig.log.open(["a"])
        client, subscription, _ = rig.subscribe("a")
        rig.settle()
        self.assertEqual((told, client.causes), ([None], [CloseCause.DELETED]))
        client, subscription, _ = rig.subscribe("a")
        rig.publish("a", data=b"2")
        self.assertEqual(client.datas, [b"2"])
        subscription.close()

    def test_the_row_of_a_channel_is_written_once_and_not_with_every_event(self) -> None:
        rig = self.made()
        rig.publish("a")
        with patch.object(rig.store, "write", wraps=rig.store.write) as write:
            rig.publish("a")
        (change,) = write.call_args.args
        self.assertEqual((change.channels, len(change.blocks)), ([], 1))


MANY = tuple(f"m/{number:03}" for number in range(100))


class ManyChannelsTests(StoredBusCase):
    """One event to many channels costs what as many events do, and not the square of it."""

    def written(self, rig: StoredBusRig, *each: tuple[tuple[str, ...], bytes, str | None]) -> tuple[int, int, int]:
        """Publish events in one turn; return how many rows are written, and the bytes of their texts and blobs."""
        with patch.object(rig.store, "write", wraps=rig.store.write) as write:
            rig.publish_together(*each)
        changes = [call.args[0] for call in write.call_args_list]
        rows = [row for change in changes for row in (*change.channels, *change.blocks, *change.given)]
        values = [value for row in rows for value in row if isinstance(value, str | bytes)]
        return len(rows), sum(map(len, values)), rig.log.size_bytes

    def test_it_is_written_as_often_as_it_has_channels_without_their_names(self) -> None:
        for event_id in (None, "given"):
            one = self.written(self.made(), (MANY, b"x" * 100, event_id))
            single = self.written(self.made(), *(((name,), b"x" * 100, event_id) for name in MANY))
            self.assertEqual(one[0], single[0])
            self.assertEqual(one[2], single[2])
            self.assertLessEqual(one[1], single[1])

    def test_it_is_read_back_in_each_of_its_channels(self) -> None:
        read = []
        for singly in (False, True):
            rig = self.made(recent_bytes=0)
            for number in range(3):
                for channels in [(name,) for name in MANY] if singly else [MANY]:
                    rig.publish(*channels, data=b"%d" % number, id=f"given {number}")
            rig.restart()
            with patch.object(chunk_cache, "decode", wraps=block.decode) as decode:
                page = rig.log.read(patterns("m/*"), "earliest", 1000)
            read.append(sum(len(call.args[0]) for call in decode.call_args_list))
            wanted = [b"0", b"1", b"2"]
            self.assertEqual(
                [entry.event.data for entry in page.entries], sorted(wanted * 100) if singly else wanted
            )
            for name in MANY:
                self.assertEqual(rig.log.event(name, "given 1").offset, 2)
        self.assertLessEqual(read[0], read[1])

    def test_the_size_of_a_history_and_of_the_store_bound_it_as_they_bound_single_events(self) -> None:
        size = 100 * (EVENT_BYTES + 1)
        of_channels, of_objects = sum(map(channel_size, MANY)), 100 * OBJECT_BYTES
        rig = self.made(max_bytes=3 * size + of_channels, recent_bytes=2 * (size + of_objects))
        for _ in range(5):
            rig.publish(*MANY)
        self.assertEqual(rig.log.size_bytes, 3 * size + of_channels)
        self.assertEqual(rig.store.archive._recent.size_bytes, 2 * (size + of_objects))
        rig = self.made(default=Kept(history_bytes=2 * (EVENT_BYTES + 1)))
        for _ in range(5):
            rig.publish(*MANY)
        self.assertEqual({len(self.history(rig, name)) for name in MANY}, {2})

    def test_each_channel_counts_for_what_one_transaction_takes(self) -> None:
        rig = self.made()
        batches: list[int] = []
        add = Transaction.add_batch

        def added(change: Transaction, batch: Any) -> None:
            batches.append(sum(map(len, batch.by_channel.values())))
            add(change, batch)

        with patch.object(Transaction, "add_batch", added):
            rig.publish_together(*[(MANY, b"x", None)] * 25)
        self.assertEqual(batches, [300] * 8 + [100])

    def test_what_nobody_wants_any_more_goes_with_its_ids(self) -> None:
        rig = self.made(default=Kept(history_age_s=10))
        rig.publish(*MANY, id="given")
        self.assertEqual(rig.store._rows("SELECT count(*) FROM given"), [(100,)])
        rig.clock.advance(11)
        rig.log.expire()
        rig.tend()
        for table in ("block", "given"):
            self.assertEqual(rig.store._rows(f"SELECT count(*) FROM {table}"), [(0,)])


class DuplicateTests(StoredBusCase):
    def test_what_was_published_is_known_again_after_a_restart_and_a_crash_without_reading_it(self) -> None:
        rig = self.made(recent_bytes=0)
        first = rig.publish("a", "b", data=b"1", id="given")
        for again in (rig.restart, rig.crash):
            again()
            rig.log.existing("a")  # which finds out when its oldest event expires
            with patch.object(chunk_cache, "decode", side_effect=AssertionError("an event was read")):
                told = rig.publish_together(
                    (("a", "b"), b"1", "given"), (("a", "b"), b"2", "given"), (("a",), b"1", "given")
                )
            self.assertEqual(told[0], Published(first.id, "a", 1, 0, is_duplicate=True))
            self.assertEqual([type(outcome) for outcome in told[1:]], [Unprocessable] * 2)
        self.assertEqual(rig.retained("a"), [b"1"])

    def test_it_is_known_while_it_is_being_written(self) -> None:
        rig = self.made(writes_in_thread=True)
        told: list[object] = []
        for data in (b"1", b"1", b"2"):
            rig.journal.publish(draft("a", data=data, id="given"), DAEMON, told.append)
            rig.turns.turn()
            self.assertEqual(told, [])
        rig.settle()
        self.assertEqual(
            told[:2], [Published("given", "a", 1, 0), Published("given", "a", 1, 0, is_duplicate=True)]
        )
        self.assertIsInstance(told[2], Unprocessable)

    def test_ids_of_other_channels_are_free_and_are_kept_apart(self) -> None:
        rig = self.made(recent_bytes=0)
        rig.publish("a", "b", data=b"1", id="given")
        rig.publish("b", data=b"2", id="given")
        rig.publish("c", "a", data=b"3", id="given")
        rig.crash()
        self.assertEqual([rig.log.event(name, "given").event.data for name in "abc"], [b"1", b"2", b"3"])
        rig.delete("a")
        rig.tend()
        self.assertRaises(NotFound, rig.log.event, "a", "given")
        self.assertEqual([rig.log.event(name, "given").event.data for name in "bc"], [b"2", b"3"])
        self.assertFalse(rig.publish("a", "b", data=b"4", id="given").is_duplicate)


class MemoryTests(StoredBusCase):
    def test_what_is_dropped_within_its_transaction_is_never_read(self) -> None:
        rig = self.made(default=Kept(history_size=2), recent_bytes=0)
        told = rig.publish_together(*[(("a",), b"%d" % number, None) for number in range(7)])
        self.assertEqual(rig.logged, [])
        self.assertEqual(self.history(rig, "a").dropped, 5)
        self.assertEqual(rig.store._rows("SELECT sum(count) FROM block"), [(2,)])
        self.assertEqual([outcome.offset for outcome in told if isinstance(outcome, Published)], list(range(1, 8)))
        self.assertEqual(rig.retained("a"), [b"5", b"6"])

    def test_what_was_read_while_more_was_written_is_not_taken_for_it(self) -> None:
        """Of ten that are written together three are dropped at once, and leave a hole before the other seven."""
        rig = self.made(writes_in_thread=True, default=Kept(history_size=7), recent_bytes=0)
        rig.publish_together(*[(("a",), b"%d" % number, None) for number in (1, 2)])
        for number in range(3, 13):
            rig.journal.publish(draft("a", data=b"%d" % number), DAEMON, lambda outcome: None)
        rig.turns.turn()
        rig.thread.work()
        rig.store.archive._past._chunks.clear()
        self.assertEqual(rig.retained("a"), [b"1", b"2"])
        rig.settle()
        self.assertEqual(rig.retained("a"), [b"%d" % number for number in range(6, 13)])

    def test_a_history_that_may_take_less_after_a_restart_is_cut_without_reading_it(self) -> None:
        kept = Kept(history_size=100_000)
        self.patch(reader, "_CHUNK_OFFSETS", 4)
        rig = self.made(default=kept, past_bytes=200_000)
        for _ in range(5):
            rig.publish_together(*[(("a",), b"x" * 72, None)] * 1000)
        rig.close()
        kept.history_bytes = 1000 * 200
        rig.open()
        with patch.object(chunk_cache, "decode", wraps=block.decode) as decode:
            rig.log.existing("a")
        self.assertLess(decode.call_count, 50)  # there are 1250 chunks
        history = self.history(rig, "a")
        self.assertEqual((history.first, len(history), history.size_bytes), (4001, 1000, 200_000))
        self.assertEqual(history.dropped, 4000)

    def test_one_event_in_memory_is_found_by_an_id_of_the_daemon_without_asking_the_store(self) -> None:
        rig = self.made()
        made, given = rig.publish("a"), rig.publish("a", id="given")
        asked: list[str] = []
        rig.store._reader.set_trace_callback(asked.append)
        self.assertEqual(rig.log.event("a", made.id).event.id, made.id)
        for unknown in (f"{EPOCH}-3", "anotherlog-1"):
            self.assertRaises(NotFound, rig.log.event, "a", unknown)
        self.assertEqual(asked, [])
        self.assertEqual(rig.log.event("a", given.id).event.id, given.id)
        self.assertEqual(len(asked), 1)

    def test_only_so_much_of_the_latest_events_is_in_memory(self) -> None:
        rig = self.made(recent_bytes=10 * (EVENT_BYTES + OBJECT_BYTES))
        for _ in range(3):
            rig.publish_together(*[(("a", "b"), b"", None)] * 5)
        tails = [self.history(rig, name)._tail for name in ("a", "b")]
        self.assertEqual([len(tail) for tail in tails], [5, 5])
        self.assertEqual(len(rig.retained("a")), 15)


class GivingBackTests(StoredBusCase):
    def watched(self, rig: StoredBusRig) -> list[str]:
        """Return what its writer is asked from now on."""
        asked: list[str] = []
        rig.store._writer.set_trace_callback(asked.append)
        return asked

    def free(self, rig: StoredBusRig) -> tuple[int, int]:
        """Return how many pages are free, and how many there are."""
        names = ("freelist_count", "page_count")
        free, pages = (rig.store._writer.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
        return free, pages

    def test_free_pages_are_given_back_after_something_was_removed_and_looked_for_after_the_start(self) -> None:
        self.patch(store, "_FREE_PAGES", 0)
        self.patch(store, "_PAGES_GIVEN_BACK", 4)
        looked = ["PRAGMA freelist_count", "PRAGMA page_count"]
        for writes_in_thread in (False, True):
            rig = self.made(writes_in_thread=writes_in_thread)
            asked = self.watched(rig)
            rig.tend()
            self.assertEqual(asked, looked)
            rig.publish("a", data=b"x" * 100_000)
            self.assertAsksNothing(rig)
            rig.delete("a")
            asked = self.watched(rig)
            rig.tend()
            self.assertGreater(asked.count("PRAGMA incremental_vacuum(4)"), 2)
            self.assertEqual(asked[-2:], looked)
            free, pages = self.free(rig)
            self.assertLessEqual(free * 4, pages)
            self.assertAsksNothing(rig)
            rig.restart()
            asked = self.watched(rig)
            rig.tend()
            self.assertEqual(asked, looked)
            self.assertAsksNothing(rig)

    def assertAsksNothing(self, rig: StoredBusRig) -> None:
        """Check that looking after the store costs neither a question nor a turn."""
        asked = self.watched(rig)
        for _ in range(3):
            rig.journal.tend()
            self.assertEqual((asked, len(rig.turns), len(rig.thread)), ([], 0, 0))

    def test_what_cannot_be_given_back_now_is_tried_again_and_logged_once(self) -> None:
        rig = self.made()
        rig.publish("a", data=b"x" * 100_000)
        rig.delete("a")
        rig.tend()
        rig.restart()
        free, _ = self.free(rig)
        self.assertGreater(free, 20)
        self.patch(store, "_FREE_PAGES", 0)
        rig.store._writer.execute("PRAGMA query_only = ON")
        for _ in range(3):
            rig.tend()
        self.assertEqual(
            [formatEvent(event) for event in rig.logged],
            [
                "what is free cannot be given back: the store does not work: its file cannot be written; "
                "try again later"
            ],
        )
        self.assertEqual(self.free(rig)[0], free)
        rig.store._writer.execute("PRAGMA query_only = OFF")
        rig.tend()
        self.assertLess(self.free(rig)[0], 10)


class EndTests(StoredBusCase):
    def test_nothing_is_looked_after_any_more_once_all_is_written(self) -> None:
        for writes_in_thread in (False, True):
            rig = self.made(writes_in_thread=writes_in_thread, default=Kept(history_size=1))
            self.patch(archive, "_BLOCKS_PER_CHANGE", 1)
            for _ in range(10):
                rig.publish_together(*[(("a",), b"x", None)] * 3)
            rig.journal.tend()
            finished = rig.journal.finish()
            while not finished.called:
                rig.turns.turn()
                rig.thread.work()
                rig.thread.answer()
            rig.store.close()
            rig.settle()
            self.assertEqual(rig.logged, [])
            rig.open()
            self.assertEqual(rig.retained("a"), [b"x"])

    def test_a_fault_while_room_is_given_back_does_not_keep_anybody_waiting(self) -> None:
        for writes_in_thread in (False, True):
            rig = self.made(writes_in_thread=writes_in_thread)
            with patch.object(rig.store, "give_back", side_effect=ZeroDivisionError):
                rig.tend()
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.assertEqual(rig.publish("a").offset, 1)
            with patch.object(rig.store, "give_back", return_value=False) as give_back:
                rig.tend()
            give_back.assert_called_once_with()
