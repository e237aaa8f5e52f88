"""Trimming: the oldest of all go when all are too much, and what has expired goes, some of it each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from pushd.bus import storage as archive
from pushd.bus.sizes import EVENT_BYTES
from pushd.bus.slices import in_turns
from pushd.store.sqlite import block, chunk_cache
from pushd.store.sqlite import history as stored
from tests.component.store.test_bus import StoredBusCase
from tests.rigs.builders import BusRig, Kept
from tests.rigs.stored import StoredBusRig

EVENT = EVENT_BYTES + 1
"""How much an event with one byte of data takes."""


class TrimmingCase(StoredBusCase):
    def setUp(self) -> None:
        """Count nothing but events, as the store does: see `tests.component.bus.test_sizes` for the rest."""
        super().setUp()
        for module in archive, stored:
            self.patch(module, "channel_size", lambda name: 0)
        self.patch(archive, "CHANNEL_OBJECT_BYTES", 0)
        self.patch(archive, "OBJECT_BYTES", 0)

    def both(self, **options: Any) -> list[BusRig]:
        """Make a log in memory and one in a store."""
        return [BusRig(**options), self.made(recent_bytes=0, past_bytes=0, **options)]

    def count(self, rig: BusRig) -> int:
        """Count the events that are there, without having them trimmed."""
        return sum(len(rig.log.by_name[name].history) for name in rig.log.names())


class RoomTests(TrimmingCase):
    def test_the_oldest_of_all_channels_go_when_all_are_too_much(self) -> None:
        for rig in self.both(max_bytes=10 * EVENT):
            for number in range(100):
                rig.publish("abc"[number % 7 % 3], data=b"%d" % (number % 10))
                self.assertLessEqual(rig.log.size_bytes, 10 * EVENT)
                wanted = [b"%d" % (each % 10) for each in range(max(0, number - 9), number + 1)]
                self.assertEqual(rig.retained("**"), wanted)

    def test_a_large_event_makes_room_for_itself_and_no_more(self) -> None:
        for rig in self.both(max_bytes=10 * EVENT):
            for number in range(10):
                rig.publish("ab"[number % 2], data=b"%d" % number)
            rig.publish("c", data=b"x" * (3 * EVENT - EVENT_BYTES))
            self.assertEqual(rig.retained("a", "b"), [b"%d" % number for number in range(3, 10)])
            self.assertEqual(rig.log.size_bytes, 10 * EVENT)

    def test_an_event_that_is_too_large_for_all_is_not_kept_and_neither_is_anything_else(self) -> None:
        for rig in self.both(max_bytes=10 * EVENT):
            rig.publish("a")
            rig.publish("b", data=b"x" * 10 * EVENT)
            self.assertEqual((self.count(rig), rig.log.size_bytes), (0, 0))
            self.assertFalse(rig.read("b", since="0123456789-1").recovered)
            self.assertEqual(rig.publish("b").offset, 2)

    def test_what_had_to_go_is_said_to_be_missing(self) -> None:
        for rig in self.both(max_bytes=2 * EVENT):
            for channel in "aabc":
                rig.publish(channel)
            self.assertFalse(rig.read("a", since="0123456789-1").recovered)
            self.assertTrue(rig.read("a", since="0123456789-2").recovered)
            self.assertTrue(rig.read("b", since="0123456789-1").recovered)

    def test_with_less_room_after_a_restart_what_is_too_much_goes_in_steps(self) -> None:
        rig = self.made(default=Kept(history_size=10_000), past_bytes=1 << 20)
        for _ in range(3):
            rig.publish_together(*[((name,), b"x", None) for name in "ab" for _ in range(500)])
        rig._max_bytes = 100 * EVENT
        rig.restart()
        counts = [3000]
        while counts[-1] > 100:
            with patch.object(chunk_cache, "decode", wraps=block.decode) as decode:
                rig.log.expire()
            self.assertLess(decode.call_count, 20)
            counts.append(self.count(rig))
            self.assertTrue(400 <= counts[-2] - counts[-1] <= 1000 or counts[-1] == 100, counts)
        self.assertEqual(counts[-1], 100)
        self.assertEqual(rig.log.size_bytes, 100 * EVENT)
        self.assertEqual(rig.read("**", since="earliest").entries[0].event.sequence, 2901)

    def test_however_much_is_published_at_once_there_is_room_for_it(self) -> None:
        rig = self.made(default=Kept(history_size=100_000), max_bytes=1500 * EVENT)
        for _ in range(6):
            rig.publish_together(*[(("a", "b"), b"x", None)] * 1000)
            self.assertLessEqual(rig.log.size_bytes, 1500 * EVENT)

    def test_to_make_room_the_store_is_not_read_for_each_event(self) -> None:
        rig = self.made(default=Kept(history_size=10_000), recent_bytes=0, max_bytes=1000 * EVENT)
        rig.publish_together(*[(("a",), b"x", None)] * 1000)
        with patch.object(chunk_cache, "decode", wraps=block.decode) as decode:
            for _ in range(5):
                rig.publish_together(*[(("a",), b"x", None)] * 100)
        self.assertLess(decode.call_count, 60)
        self.assertEqual(self.count(rig), 1000)

    def test_the_size_of_all_is_right_whatever_is_read(self) -> None:
        rig = self.made(default=Kept(history_size=3))
        for _ in range(50):
            rig.publish("a")
            rig.publish("b")
            rig.read("a", since="0123456789-1")
            rig.tend()
        self.assertLessEqual(rig.log.size_bytes, (3 + 3 + 50) * EVENT)
        for name in "ab":
            rig.log.clear(rig.log.by_name[name])
        self.assertEqual(rig.log.size_bytes, 0)


class ExpiryTests(TrimmingCase):
    def test_500_channels_are_looked_at_each_time(self) -> None:
        for rig in self.both(default=Kept(history_age_s=10), max_channels=2000):
            for number in range(1200):
                rig.publish(f"channel {number}")
            rig.clock.advance(10)
            counts = []
            for _ in range(4):
                rig.log.expire()
                counts.append(self.count(rig))
            self.assertEqual(counts, [700, 200, 0, 0])
            self.assertEqual(rig.log.size_bytes, 0)

    def test_they_are_looked_at_until_the_time_is_over_and_the_others_in_the_next_turns(self) -> None:
        for rig in self.both(default=Kept(history_age_s=10), max_channels=2000):
            for number in range(100):
                rig.publish(f"channel {number}")
            rig.clock.advance(10)
            self.now, self.due = 0.0, list[Callable[[], None]]()
            expire = in_turns(rig.log.expire, self.call_later, rig.bus.turn)
            self.patch(rig.bus.turn, "seconds", self.seconds)
            left, before = [], 100
            expire()
            while self.due:
                expire()  # also if the next second has come
                left.append(before - self.count(rig))
                before = self.count(rig)
                self.due.pop()()
                self.assertLessEqual(len(self.due), 1)
            self.assertLessEqual(max(left), 5)
            self.assertEqual(self.count(rig), 0)
            expire()
            self.assertEqual(self.due, [])

    def seconds(self) -> float:
        """Return a time that goes by as it is asked for: half a millisecond each time."""
        self.now += 0.0005
        return self.now

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Make a call in the next turn."""
        self.due.append(call)

    def test_making_room_ends_with_the_time_too(self) -> None:
        for rig in self.both():
            for _ in range(100):
                rig.publish("a")
            rig.log._retention_queue.max_bytes = 0
            self.assertTrue(rig.log.expire(lambda: True))
            self.assertGreaterEqual(self.count(rig), 99)
            self.assertFalse(rig.log.expire())
            self.assertEqual(self.count(rig), 0)

    def test_what_has_not_expired_is_not_looked_at(self) -> None:
        for rig in self.both(kept={"short": Kept(history_age_s=10)}):
            for name in ("long", "short"):
                rig.publish(name)
            rig.clock.advance(10)
            with patch.object(rig.log, "trim", wraps=rig.log.trim) as trim:
                rig.log._retention_queue._trim = trim
                rig.log.expire()
                rig.log.expire()
            self.assertEqual([call.args[0].name for call in trim.call_args_list], ["short"])

    def test_after_a_restart_channels_expire_though_nobody_reads_them(self) -> None:
        rig = self.made(default=Kept(history_age_s=10))
        rig.publish("a")
        rig.clock.advance(5)
        rig.publish("b")
        rig.restart()
        rig.log.expire()
        self.assertEqual(self.count(rig), 2)
        for age, left in ((9, 1), (14, 1), (15, 0)):
            rig.clock.advance(age - rig.clock.seconds())
            rig.clock.advance(1 if age == 9 else 0)
            rig.log.expire()
            self.assertEqual(self.count(rig), left)

    def test_channels_that_were_given_up_do_not_pile_up(self) -> None:
        for rig in self.both(default=Kept(history_age_s=5), max_channels=10):
            for number in range(1000):
                rig.publish(f"channel {number}")
                rig.clock.advance(1)
                if not number % 3:
                    rig.log.expire()
                retention_queue = rig.log._retention_queue
                self.assertLessEqual(max(len(retention_queue._expiries), len(retention_queue._oldest)), 21)
            if isinstance(rig, StoredBusRig):
                rig.clock.advance(5)
                rig.log.expire()
                rig.tend()  # at first it moves what was written to its place
                rig.tend()
                self.assertEqual(rig.store._rows("SELECT count(*) FROM block"), [(0,)])
                self.assertLessEqual(rig.store._rows("SELECT count(*) FROM channel")[0][0], 10)
