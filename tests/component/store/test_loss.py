"""Whatever becomes of the files of a store, no acknowledged event is lost without a new epoch and a warning.

``PUSHD_TEST_DAMAGES=10000`` tries more damages, and ``PUSHD_TEST_SEED`` others.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.bus import Published
from pushd.errors import Refused, StartFailed
from pushd.store.sqlite import continuity
from pushd.store.sqlite.unused import leave
from pushd.store.sqlite.watermark import MarkFile
from tests.rigs.bare_store import StoreRig
from tests.rigs.builders import Kept
from tests.rigs.stored import directory

RUNS = int(os.environ.get("PUSHD_TEST_DAMAGES", "120"))
SEED = int(os.environ.get("PUSHD_TEST_SEED", "1"))

FILES = ("pushd.db", "pushd.db-wal", "pushd.seal", "pushd.mark")

Image = dict[str, bytes]
"""What the files of a store have at one moment."""

KEPT = {"few": Kept(3), "none": Kept(0)}


class LossCase(SynchronousTestCase):
    def setUp(self) -> None:
        made = directory()
        self.addCleanup(made.cleanup)
        self.directory = Path(made.name) / "state"
        self.keeper = Path(made.name) / "the same file"
        self.patch(continuity, "_changed_s", lambda path: 1)  # the files are put back by the test itself
        self.acknowledged: dict[str, list[tuple[str, bytes]]] = {}

    def image(self) -> Image:
        """Return what the files have now, as kill -9 would leave them."""
        return {name: path.read_bytes() for name in FILES if (path := self.directory / name).exists()}

    def put_back(self, image: Image) -> None:
        """Make the files what they were; `pushd.db` stays the same file, unless it is to be gone."""
        if not self.keeper.exists():
            self.keeper.hardlink_to(self.directory / "pushd.db")
        for path in self.directory.iterdir():
            path.unlink()
        if "pushd.db" in image:
            (self.directory / "pushd.db").hardlink_to(self.keeper)
        for name, content in image.items():
            (self.directory / name).write_bytes(content)

    def open(self, **options: Any) -> StoreRig:
        return StoreRig(self.directory, kept=KEPT, recent_bytes=1, **options)

    def publish(self, stored: StoreRig, *channels: str, data: bytes = b"x", id: str | None = None) -> None:
        """Publish an event, which is acknowledged."""
        outcome = stored.publish(*channels, data=data, id=id)
        assert isinstance(outcome, Published), outcome
        for channel in channels:
            self.acknowledged.setdefault(channel, []).append((outcome.id, data))

    def fill(self, stored: StoreRig, count: int, since: int = 0) -> None:
        """Publish `count` events in several channels, some of them together and with ids of their publishers."""
        for number in range(since, since + count):
            data = b"%d " % number + b"x" * (number * 37 % 400)
            channels = [("a",), ("b",), ("a", "b"), ("few",), ("none",), (f"c{number}",)][number % 6]
            self.publish(stored, *channels, data=data, id=None if number % 4 else f"id-{number}")

    def store(self) -> tuple[Image, Image]:
        """Make a store in two runs, of which not all is in its place yet; return an older image as well."""
        stored = self.open()
        self.fill(stored, 60)
        stored.close()
        stored = self.open()
        self.fill(stored, 30, 60)
        older = self.image()
        stored.store.turn_over()
        self.fill(stored, 30, 90)
        stored.store.checkpoint()
        self.fill(stored, 20, 120)
        now = self.image()
        self.position = stored.log.position
        stored.crash()
        return older, now

    def outcome(self) -> str:
        """Open what is there and use it; return what came of it, after checking that it may be that."""
        epoch = self.position.partition("-")[0]
        with capturedLogs() as events:
            try:
                stored = self.open()
            except StartFailed as error:
                self.assertEqual(len(str(error).splitlines()), 1)
                return "refused"
        try:
            warnings = [formatEvent(event) for event in events if event["log_level"] is LogLevel.warn]
            if stored.log.position.partition("-")[0] != epoch:
                self.assertEqual(len([one for one in warnings if "not recovered" in (one or "")]), 1, warnings)
                self.use(stored, is_new=True)
                return "new"
            self.assertEqual(stored.log.position, self.position)
            return "same" if self.use(stored, is_new=False) else "unreadable"
        finally:
            stored.crash()
            self.flushLoggedErrors()

    def use(self, stored: StoreRig, *, is_new: bool) -> bool:
        """Read from all positions and publish; return False if something was refused."""
        refusals = 0
        known = {event_id for events in self.acknowledged.values() for event_id, _ in events}
        for channel in ("a", "b", "few", "c5", "c119", "c137", "none"):
            wanted = self.acknowledged.get(channel, [])
            for since in ("earliest", *(one[0] for one in wanted[:: max(1, len(wanted) // 6)])):
                try:
                    page = stored.read(channel, since=since)
                except Refused:
                    refusals += 1
                    continue
                found = [(entry.event.id, entry.event.data) for entry in page.entries]
                if since == "earliest":
                    kept = {"few": 3, "none": 0}.get(channel, len(wanted))
                    if not is_new:
                        self.assertEqual(found, wanted[len(wanted) - kept :], channel)
                elif page.recovered:
                    self.assertFalse(is_new, since)
                    place = [event_id for event_id, _ in wanted].index(since)
                    self.assertEqual(found, wanted[place + 1 :], (channel, since))
        outcome = stored.publish("a", "new", data=b"new")
        if isinstance(outcome, Published):
            self.assertNotIn(outcome.id, known, "an id twice")
        else:
            refusals += 1
        return not refusals


def damages(older: Image, now: Image, random: Random) -> Iterator[tuple[str, Image]]:
    """Return damaged images, for ever."""
    while True:
        image, name = dict(now), random.choice(sorted(now))
        content = bytearray(now[name])
        match random.choice(("flip", "flip", "flip", "cut", "zero", "delete", "mixed")):
            case "flip":
                place = random.randrange(len(content))
                content[place] ^= 1 << random.randrange(8)
                what = f"a bit at {place} of {name}"
                image[name] = bytes(content)
            case "cut":
                place = random.choice((0, random.randrange(len(content))))
                what = f"{name} cut at {place}"
                image[name] = bytes(content[:place])
            case "zero":
                place = random.randrange(len(content))
                end = min(len(content), place + random.choice((1, 512, 4096, 100_000)))
                what = f"{name} zero from {place} to {end}"
                image[name] = bytes(content[:place]) + bytes(end - place) + bytes(content[end:])
            case "delete":
                what = f"{name} deleted"
                del image[name]
            case _:
                names = [one for one in sorted(now) if random.random() < 0.5]
                what = f"older: {names}"
                image |= {one: older[one] for one in names}
        is_older = all(image.get(name) == older[name] for name in ("pushd.seal", "pushd.mark"))
        if image != now and not is_older:  # else it is found out by when the seal was changed, which the test sets
            yield what, image


class LossTests(LossCase):
    def test_without_damage_all_is_there(self) -> None:
        _, now = self.store()
        self.put_back(now)
        self.assertEqual(self.outcome(), "same")

    def test_whatever_happens_to_the_files_nothing_is_lost_in_silence(self) -> None:
        older, now = self.store()
        random = Random(SEED)
        found = dict.fromkeys(("same", "new", "unreadable", "refused"), 0)
        for (what, image), _ in zip(damages(older, now, random), range(RUNS), strict=False):
            self.put_back(image)
            try:
                found[self.outcome()] += 1
            except Exception as error:
                raise AssertionError(what) from error
        self.assertTrue(all(found.values()), found)

    def assertNew(self, change: Callable[[], None], why: str) -> None:
        """Check that `change` leads to a new epoch, whose warning says why."""
        _, now = self.store()
        self.put_back(now)
        change()
        with capturedLogs() as events:
            self.assertEqual(self.outcome(), "new")
        (warning,) = [formatEvent(event) or "" for event in events if event["log_level"] is LogLevel.warn]
        self.assertIn(why, warning)
        self.assertEqual(len(warning.splitlines()), 1)

    def test_one_wrong_bit_in_the_write_ahead_log(self) -> None:
        def flip() -> None:
            path = self.directory / "pushd.db-wal"
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)

        self.assertNew(flip, "and 140 were acknowledged")

    def test_a_write_ahead_log_that_is_deleted(self) -> None:
        self.assertNew((self.directory / "pushd.db-wal").unlink, "140 were acknowledged")

    def test_a_file_that_is_deleted(self) -> None:
        self.assertNew((self.directory / "pushd.db").unlink, "pushd.db is missing or empty")

    def test_a_file_that_is_deleted_with_its_seal(self) -> None:
        def delete() -> None:
            (self.directory / "pushd.db").unlink()
            (self.directory / "pushd.seal").unlink()

        self.assertNew(delete, "pushd.db is missing or empty")

    def test_a_daemon_that_keeps_events_in_memory_meanwhile(self) -> None:
        def use_memory() -> None:
            with capturedLogs() as events:
                leave(self.directory)
                leave(self.directory)  # and once more, as at each start
            (line,) = [formatEvent(event) or "" for event in events]
            self.assertIn("it will begin a new epoch", line)

        self.assertNew(use_memory, "pushd.seal is missing")

    def test_a_store_that_another_daemon_uses_is_not_left(self) -> None:
        stored = self.open()
        self.fill(stored, 30)
        self.position = stored.log.position
        leave(self.directory)
        self.assertIsNotNone(continuity.read_seal(self.directory))
        stored.close()
        self.assertEqual(self.outcome(), "same")

    def test_without_a_store_there_is_nothing_to_leave(self) -> None:
        leave(self.directory)
        self.assertFalse(self.directory.exists())

    def test_a_seal_that_cannot_be_removed_is_said(self) -> None:
        self.open().close()
        self.patch(continuity, "remove_seal", self._refuse)
        with capturedLogs() as events:
            leave(self.directory)
        (line,) = [formatEvent(event) or "" for event in events]
        self.assertIn("remove the seal", line)

    @staticmethod
    def _refuse(directory: Path) -> None:
        raise OSError("not now")

    def test_a_file_that_is_emptied(self) -> None:
        def empty() -> None:
            (self.directory / "pushd.db").write_bytes(b"")

        self.assertNew(empty, "pushd.db is missing or empty")

    def test_a_mark_that_is_deleted(self) -> None:
        self.assertNew((self.directory / "pushd.mark").unlink, "pushd.mark is missing or damaged")

    def test_the_last_transaction_alone(self) -> None:
        stored = self.open()
        self.fill(stored, 10)
        before = self.image()
        self.fill(stored, 1, 10)
        self.position = stored.log.position
        image = self.image()
        stored.crash()
        self.put_back({**image, "pushd.db-wal": before["pushd.db-wal"]})
        self.assertEqual(self.outcome(), "new")

    def test_a_row_that_leads_to_a_wrong_place(self) -> None:
        _, now = self.store()
        found = dict.fromkeys(("same", "unreadable"), 0)
        for column, by, row in product(
            ("first_sequence", "last_sequence", "count"), (-40, -6, 1, 6, 40), range(0, 60, 19)
        ):
            self.put_back(now)
            with closing(sqlite3.connect(self.directory / "pushd.db")) as database, database:
                places = database.execute("SELECT place FROM block ORDER BY place").fetchall()
                database.execute(f"UPDATE block SET {column} = {column} + ? WHERE place = ?", (by, *places[row]))
            found[self.outcome()] += 1
        self.assertTrue(all(found.values()), found)

    def test_an_id_that_leads_to_a_wrong_place(self) -> None:
        _, now = self.store()
        found = dict.fromkeys(("same", "unreadable"), 0)
        for by in (-30, -1, 1, 30):
            self.put_back(now)
            with closing(sqlite3.connect(self.directory / "pushd.db")) as database, database:
                database.execute("UPDATE given SET sequence = max(1, sequence + ?)", (by,))
            found[self.outcome()] += 1
        self.assertEqual(found, {"same": 0, "unreadable": 4})


class MarkTests(LossCase):
    """What the mark says if the process is killed at any moment of a transaction."""

    def end_within(self, writes: int, *, commits: bool) -> None:
        """Publish an event in a transaction that ends after so many writes of the mark."""
        stored = self.open()
        self.fill(stored, 12)
        self.position = stored.log.position
        write, left = MarkFile.write, writes

        def some(mark: MarkFile, *arguments: Any, **named: Any) -> None:
            nonlocal left
            if left > 0:
                left -= 1
                write(mark, *arguments, **named)

        with patch.object(MarkFile, "write", some):
            if commits:
                self.publish(stored, "a", data=b"not acknowledged")
                self.position = stored.log.position
            else:
                stored.store._writer.execute("PRAGMA query_only = ON")
                self.assertNotIsInstance(stored.publish("a"), Published)
        stored.crash()

    def test_a_kill_at_any_moment_is_no_loss(self) -> None:
        for writes, commits in ((1, False), (1, True), (2, True)):
            self.end_within(writes, commits=commits)
            with capturedLogs() as events:
                stored = self.open()
            self.assertEqual([formatEvent(event) for event in events], [])
            self.assertEqual(stored.log.position, self.position)
            stored.close()

    def test_a_kill_while_the_mark_is_written_leaves_what_was_true_before(self) -> None:
        stored = self.open()
        self.fill(stored, 12)
        before = (self.directory / "pushd.mark").read_bytes()
        stored.store._mark.write(stored.store._summary, stored.store._summary)
        after = (self.directory / "pushd.mark").read_bytes()
        stored.crash()
        image = self.image()
        for end in range(len(after) + 1):
            self.put_back(image | {"pushd.mark": after[:end] + before[end:]})
            with capturedLogs() as events:
                stored = self.open()
            self.assertEqual([formatEvent(event) for event in events], [], end)
            stored.crash()

    def test_a_store_of_a_pushd_without_marks_goes_on(self) -> None:
        stored = self.open()
        self.fill(stored, 12)
        self.position = stored.log.position
        stored.close()
        (self.directory / "pushd.mark").unlink()
        seal = self.directory / "pushd.seal"
        seal.write_text(f"{continuity.read_seal(self.directory)}\n")
        for _ in range(2):
            with capturedLogs() as events:
                stored = self.open()
            self.assertEqual([formatEvent(event) for event in events], [])
            self.assertEqual(stored.log.position, self.position)
            stored.close()

    def test_after_another_boot_the_mark_is_a_lower_bound(self) -> None:
        for is_behind in (False, True):
            boot = self.directory.parent / "boot"
            boot.write_text("boot 1")
            self.patch(continuity, "_BOOT_ID", boot)
            stored = self.open(is_safe=True)
            older = self.image()
            self.fill(stored, 12)
            now = self.image()
            position = stored.log.position
            stored.crash()
            self.put_back(
                now
                | ({"pushd.db-wal": older["pushd.db-wal"]} if is_behind else {"pushd.mark": older["pushd.mark"]})
            )
            boot.write_text("boot 2")
            stored = self.open(is_safe=True)
            self.assertEqual(stored.log.position == position, not is_behind)
            stored.close()

    def test_a_channel_that_comes_back_while_the_store_forgets_it(self) -> None:
        stored = self.open(max_channels=2)
        for number in range(30):
            stored.publish("none", f"n{number % 3}")
            stored.log.clear(stored.log.existing(f"n{number % 3}"))
            if number % 4 == 0:
                stored.wait(1)
            if number % 7 == 0:
                position = stored.log.position
                stored.crash()
                with capturedLogs() as events:
                    stored = self.open(max_channels=2)
                self.assertEqual([formatEvent(event) for event in events], [], number)
                self.assertEqual(stored.log.position, position)
        stored.close()
