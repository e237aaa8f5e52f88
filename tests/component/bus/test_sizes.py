"""The sizes: what is counted is about what the disk and the memory have, whatever it is that publishers send."""

from __future__ import annotations

import random
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pushd.bus.clientinfo import DAEMON
from pushd.bus.event import Draft
from pushd.bus.grants import EVERYTHING
from pushd.bus.sizes import size_of
from pushd.store.sqlite import history as stored
from pushd.store.sqlite import store
from pushd.store.sqlite.check import check
from pushd.store.sqlite.store import Store
from tests.component.store.test_bus import StoredBusCase
from tests.rigs.builders import BusRig, Kept
from tests.rigs.effort import examples
from tests.rigs.stored import StoredBusRig

MEBIBYTE = 1 << 20
KEPT = Kept(history_size=1_000_000)
CONSTANT_BYTES = 128 * 1024
"""What a store takes that has hardly anything, and pages that are begun."""


def mixed(choose: random.Random, channels: int, **options: Any) -> Iterator[Draft]:
    """Make drafts without end, each different: their sizes in bytes are `id`, `type`, `name`, `data`, `names`."""
    sizes = {"id": 0, "type": 0, "name": 10, "data": 1, "names": 1, **options}

    def text(number: int, size: int) -> str | None:
        long = f"{number:x}.".ljust(size, "ä" if size > 200 else "x")
        return long[:size].encode()[:size].decode("utf-8", "ignore")

    number = 0
    while True:
        number += 1
        names = tuple(text(each, sizes["name"]) or "" for each in choose.sample(range(channels), sizes["names"]))
        yield Draft.checked(
            names,
            choose.randbytes(sizes["data"] if isinstance(sizes["data"], int) else choose.randint(*sizes["data"])),
            is_text=False,
            type=text(number, sizes["type"]) or None,
            id=text(choose.getrandbits(40), sizes["id"]) or None,
        )


MIXES: dict[str, dict[str, Any]] = {
    "tiny data": {"channels": 50},
    "tiny data, long names": {"channels": 50, "name": 250},
    "channels of one event with long names": {"channels": 3000, "name": 250},
    "channels of one event": {"channels": 3000},
    "short ids": {"channels": 50, "id": 12},
    "long ids and names": {"channels": 50, "id": 200, "name": 255},
    "long ids, types and names, in many channels": {
        "channels": 300,
        "id": 255,
        "type": 255,
        "name": 255,
        "names": 20,
    },
    "short ids in many channels": {"channels": 300, "id": 12, "names": 20},
    "types": {"channels": 50, "type": 255},
    "data of 300 bytes": {"channels": 300, "data": 300},
    "data that is alone in its page": {"channels": 300, "data": 1980},
    "the same, with types": {"channels": 300, "data": 1850, "type": 200},
    "more data than a page": {"channels": 50, "data": 4100},
    "data of all sizes": {"channels": 50, "data": (0, 9000)},
}


class DiskTests(StoredBusCase):
    def publish(self, rig: StoredBusRig, drafts: Iterator[Draft], is_enough: Callable[[], bool]) -> None:
        """Publish one by one, as most publishers do, until it is enough."""
        while not is_enough():
            told: list[object] = []
            rig.journal.publish(next(drafts), DAEMON, told.append)
            rig.settle()
            self.assertEqual(len(told), 1)

    def disk(self, rig: StoredBusRig) -> int:
        """Return how much the file takes, once everything is in it."""
        rig.store.turn_over()
        return (rig.path / "pushd.db").stat().st_size

    def test_the_file_is_half_as_large_again_as_what_is_counted_at_most(self) -> None:
        for about, options in MIXES.items():
            with self.subTest(about):
                rig = self.made(default=KEPT, max_channels=5000)
                drafts = mixed(random.Random(7), **options)
                self.publish(rig, drafts, lambda rig=rig: rig.log.size_bytes > MEBIBYTE // 2)  # type: ignore[misc]
                self.assertLessEqual(self.disk(rig), 1.5 * rig.log.size_bytes + CONSTANT_BYTES)

    def test_it_stays_so_when_more_is_published_than_there_is_room_for(self) -> None:
        self.patch(stored, "_LEFT_BYTES", MEBIBYTE // 32)
        for about, options in MIXES.items():
            with self.subTest(about):
                rig = self.made(default=KEPT, max_channels=5000, max_bytes=MEBIBYTE // 2)
                drafts = mixed(random.Random(7), **options)
                for _ in range(50):
                    end = rig.log.sequence + max(1, 20 // options.get("names", 1))
                    self.publish(rig, drafts, lambda rig=rig, end=end: rig.log.sequence >= end)  # type: ignore[misc]
                    rig.tend()
                    self.assertLessEqual(rig.log.size_bytes, MEBIBYTE // 2)
                self.assertLessEqual(self.disk(rig), 1.5 * MEBIBYTE // 2 + CONSTANT_BYTES, about)

    def test_the_file_beside_it_takes_what_it_may_whatever_is_published(self) -> None:
        self.patch(store, "_LOG_BYTES", MEBIBYTE)
        self.patch(store, "_LEAST_LOG_BYTES", MEBIBYTE)
        for about, options in MIXES.items():
            with self.subTest(about):
                rig = self.made(default=KEPT, max_channels=5000)
                drafts, beside = mixed(random.Random(7), **options), rig.path / "pushd.db-wal"
                largest = 0
                for _ in range(40):
                    end = rig.log.size_bytes + MEBIBYTE // 20
                    self.publish(rig, drafts, lambda rig=rig, end=end: rig.log.size_bytes > end)  # type: ignore[misc]
                    largest = max(largest, beside.stat().st_size)  # nobody tends the store meanwhile
                self.assertLessEqual(largest, MEBIBYTE + CONSTANT_BYTES)

    def test_it_goes_by_the_size_of_the_store(self) -> None:
        for size_bytes, log_bytes in (MEBIBYTE, 4), (MEBIBYTE * 256, 16), (MEBIBYTE << 10, 64), (1 << 44, 64):
            made = Store(Path("."), is_safe=False, recent_bytes=1, now=time, seconds=time, size_bytes=size_bytes)
            self.assertEqual(made.log_bytes, log_bytes * MEBIBYTE)

    def test_of_what_was_dropped_a_channel_keeps_one_block_beside_others(self) -> None:
        rig = self.made(default=Kept(history_size=400))
        rig.publish_together(*((("a",), b"x" * 1000, None) for _ in range(400)))
        for _ in range(399):
            rig.publish("a", data=b"x")
        rig.tend()
        database = sqlite3.connect(rig.path / "pushd.db")
        ((size, count),) = database.execute("SELECT sum(length(events)), sum(count) FROM block WHERE count > 1")
        database.close()
        self.assertLessEqual(size, 256 * 1024)
        self.assertGreater(count, 1, "else there is nothing to be documented")

    NAMES = st.sampled_from(("a", "b", "b" * 255, "ä" * 127, "😀" * 63))
    TEXTS = st.none() | st.sampled_from(("t", "u", "t" * 255, "ü" * 127, "😀" * 63))
    DRAFTS = st.builds(
        lambda names, data, kind, event_id: Draft.checked(tuple(names), bytes(data), type=kind, id=event_id),
        st.lists(NAMES, min_size=1, max_size=5, unique=True),
        st.integers(0, 300) | st.integers(0, 6000),
        TEXTS,
        TEXTS,
    )

    @examples(60)
    @given(st.lists(st.lists(DRAFTS, min_size=1, max_size=8), min_size=1, max_size=8))
    def test_whatever_is_published_counts_the_same_after_a_restart(self, turns: list[list[Draft]]) -> None:
        rig = self.made(default=KEPT)
        told: list[object] = []
        for drafts in turns:
            for one in drafts:
                rig.journal.publish(one, DAEMON, told.append)
            rig.settle()
        sizes = {name: channel.size_bytes for name, channel in rig.log.by_name.items()}
        counted = rig.log.size_bytes
        each = {name: sum(map(size_of, channel.history.run(1, 1000))) for name, channel in rig.log.by_name.items()}
        rig.restart()
        self.assertEqual(rig.log.size_bytes, counted)
        self.assertEqual({name: channel.size_bytes for name, channel in rig.log.by_name.items()}, sizes)
        for name, channel in rig.log.by_name.items():
            read = [entry for offset in range(1, len(channel.history) + 1) if (entry := channel.history.at(offset))]
            self.assertEqual(sum(map(size_of, read)), each[name])
            self.assertEqual(channel.history.size_bytes, each[name])
        self.assertLessEqual(self.disk(rig), 1.5 * counted + CONSTANT_BYTES)
        checked = check(rig.path)
        assert checked is not None
        self.assertEqual(checked.damages, [])

    def test_what_is_kept_in_memory_is_bounded(self) -> None:
        for about, options in MIXES.items():
            with self.subTest(about):
                tracemalloc.start()  # which also counts the tables that are as large without a channel
                caches = {"recent_bytes": MEBIBYTE // 16, "past_bytes": MEBIBYTE // 16}
                rig = self.made(default=KEPT, max_channels=5000, **caches)
                drafts = mixed(random.Random(7), **options)
                self.publish(rig, drafts, lambda rig=rig: rig.log.size_bytes > MEBIBYTE // 6)  # type: ignore[misc]
                rig.read("**", since="earliest", limit=200)
                held = tracemalloc.get_traced_memory()[0]
                tracemalloc.stop()
                of_channels = 2500 * len(rig.log.by_name)
                self.assertLessEqual(held, 1.5 * MEBIBYTE // 8 + of_channels + 2 * CONSTANT_BYTES, about)


class MemoryTests(StoredBusCase):
    def test_what_is_counted_is_about_what_the_memory_has(self) -> None:
        for about, options in MIXES.items():
            with self.subTest(about):
                rig = BusRig(default=KEPT, max_channels=5000)
                drafts = mixed(random.Random(7), **options)
                tracemalloc.start()
                while rig.log.size_bytes < MEBIBYTE:
                    rig.bus.publish(next(drafts), EVERYTHING)
                held = tracemalloc.get_traced_memory()[0]
                tracemalloc.stop()
                self.assertLessEqual(held, 1.5 * rig.log.size_bytes + CONSTANT_BYTES)

    def test_however_much_is_published_the_memory_is_bounded(self) -> None:
        rig = BusRig(default=KEPT, max_bytes=MEBIBYTE, max_channels=5000)
        for options in MIXES.values():
            drafts = mixed(random.Random(7), **options)
            for _ in range(600 // options.get("names", 1)):
                rig.bus.publish(next(drafts), EVERYTHING)
                self.assertLessEqual(rig.log.size_bytes, MEBIBYTE)
        for name in list(rig.log.names()):
            rig.log.clear(rig.log.by_name[name])
        self.assertEqual(rig.log.size_bytes, 0)
