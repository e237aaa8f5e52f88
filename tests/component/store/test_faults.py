"""What the store does when it cannot be written, was put back, is damaged, or when clocks jump."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.bus import Published
from pushd.bus.clientinfo import DAEMON
from pushd.bus.grants import EVERYTHING
from pushd.bus.subscription import Subscription
from pushd.errors import NoRoom, Refused, StartFailed, Unavailable
from pushd.store.sqlite import continuity
from pushd.store.sqlite.check import check
from tests.rigs.bare_store import StoreRig
from tests.rigs.builders import STARTED, Client, Kept, patterns
from tests.rigs.stored import damage


class StoreCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name) / "state"
        self.opened: list[StoreRig] = []
        self.addCleanup(self.close_all)

    def close_all(self) -> None:
        """Close what a test left open."""
        for stored in self.opened:
            stored.close()

    def open(self, **options: Any) -> StoreRig:
        """Open the store, until `close` or the end of the test."""
        stored = StoreRig(self.directory, **options)
        self.opened.append(stored)
        return stored

    def close(self, stored: StoreRig) -> None:
        """Close it as at the end of a daemon."""
        self.opened.remove(stored)
        stored.close()

    def crash(self, stored: StoreRig) -> None:
        """Let go of it as kill -9 does."""
        self.opened.remove(stored)
        stored.crash()


class RefusalTests(StoreCase):
    """`tests/e2e/test_store_faults.py` has a disk that is full; here SQLite says so by itself."""

    def assertRefuses(self, stored: StoreRig, kind: type[Refused], status: int, says: str) -> None:
        """Check that publishing is refused, that all else goes on, and that the log says it once."""
        client = Client()
        Subscription(stored.bus, client, DAEMON).add(patterns("a"), "latest")
        with capturedLogs() as events:
            for _ in range(5):
                outcome = stored.publish("a", "new", data=b"refused" * 1000)
                assert isinstance(outcome, kind), outcome
                self.assertEqual((outcome.status, outcome.detail), (status, says))
        self.assertEqual([formatEvent(event) for event in events], [f"publishing is refused: {says}"])
        self.assertEqual((client.datas, stored.datas("a")), ([], [b"before"]))
        self.assertIsNone(stored.log.get("new"))

    def assertWorksAgain(self, stored: StoreRig) -> None:
        """Check that publishing goes on as if nothing had been, and that the log says it once."""
        with capturedLogs() as events:
            for offset in range(2, 5):
                outcome = stored.publish("a", data=b"refused" * 1000)
                assert isinstance(outcome, Published), outcome
                self.assertEqual((outcome.offset, outcome.subscribers), (offset, 1))
                self.assertEqual(outcome.id.rpartition("-")[2], str(offset))
        self.assertEqual([formatEvent(event) for event in events], ["publishing works again"])
        self.crash(stored)
        checked = check(self.directory)
        assert checked is not None
        self.assertEqual((checked.damages, checked.events), ([], 4))

    def test_a_full_disk(self) -> None:
        stored = self.open()
        stored.publish_each("a", b"before")
        writer = stored.store._writer
        (pages,) = writer.execute("PRAGMA page_count").fetchone()
        writer.execute(f"PRAGMA max_page_count = {pages}")
        self.assertRefuses(stored, NoRoom, 507, "the disk of the store is full; try again when there is room")
        writer.execute("PRAGMA max_page_count = 1000000")
        self.assertWorksAgain(stored)

    def test_a_file_that_cannot_be_written(self) -> None:
        stored = self.open()
        stored.publish_each("a", b"before")
        writer = stored.store._writer
        writer.execute("PRAGMA query_only = ON")
        self.assertRefuses(
            stored, Unavailable, 503, "the store does not work: its file cannot be written; try again later"
        )
        writer.execute("PRAGMA query_only = OFF")
        self.assertWorksAgain(stored)


class ContinuityTests(StoreCase):
    """Positions never come to mean something else."""

    def setUp(self) -> None:
        super().setUp()
        self.copy = self.directory.parent / "copy"
        self.boot = self.directory.parent / "boot_id"
        self.boot.write_text("boot 1\n")
        self.patch(continuity, "_BOOT_ID", self.boot)

    def fill(self, *, copies: bool = True) -> str:
        """Publish in one run, copy, publish in another; answer the last position."""
        stored = self.open()
        stored.publish_each("a", b"1", b"2")
        self.close(stored)
        if copies:
            shutil.copytree(self.directory, self.copy)
        stored = self.open()
        stored.publish_each("a", b"3", b"4")
        position = stored.log.position
        self.close(stored)
        return position

    def assertGoesOn(self, position: str, **options: Any) -> None:
        """Check that the position is still known."""
        with capturedLogs() as events:
            stored = self.open(**options)
        self.assertEqual(events, [])
        self.assertEqual(stored.log.position, position)
        self.assertTrue(stored.read("a", since=position).recovered)

    def assertBroken(self, position: str, datas: list[bytes], why: str) -> None:
        """Check that the position is not known any more, and that the log begins anew with what is there."""
        epoch = position.partition("-")[0]
        with capturedLogs() as events:
            stored = self.open()
        if why:
            (warning,) = [event for event in events if event["log_level"] is LogLevel.warn]
            self.assertIn(why, formatEvent(warning))
        self.assertNotEqual(stored.log.position.partition("-")[0], epoch)
        for since in (position, f"{epoch}-1"):
            page = stored.read("a", since=since)
            self.assertEqual((page.recovered, [it.event.data for it in page.entries]), (False, datas))
        outcome = stored.publish("a", data=b"new")
        assert isinstance(outcome, Published)
        self.assertEqual((outcome.offset, outcome.id), (len(datas) + 1, f"{stored.log.position}"))
        self.assertEqual(int(outcome.id.partition("-")[2]), len(datas) + 1)
        self.close(stored)
        self.assertGoesOn(outcome.id)

    def test_a_store_that_was_closed_or_killed_goes_on(self) -> None:
        position = self.fill()
        self.assertGoesOn(position)
        self.crash(self.opened[0])
        self.assertGoesOn(position)

    def test_a_store_that_is_deleted(self) -> None:
        position = self.fill()
        for path in self.directory.glob("pushd.db*"):
            path.unlink()
        self.assertBroken(position, [], "pushd.db is missing or empty")

    def test_a_state_directory_that_is_deleted(self) -> None:
        position = self.fill()
        shutil.rmtree(self.directory)
        self.assertBroken(position, [], "")

    def test_a_seal_that_is_deleted(self) -> None:
        position = self.fill()
        (self.directory / "pushd.seal").unlink()
        self.assertBroken(position, [b"1", b"2", b"3", b"4"], "pushd.seal is missing")

    def test_an_older_copy_as_a_new_file_without_its_seal(self) -> None:
        position = self.fill()
        (self.directory / "pushd.db").unlink()
        shutil.copy2(self.copy / "pushd.db", self.directory)
        self.assertBroken(position, [b"1", b"2"], "it is an older copy")

    def test_an_older_copy_of_the_whole_directory(self) -> None:
        position = self.fill()
        shutil.rmtree(self.directory)
        (self.directory.parent / "keeps the inode taken").touch()
        shutil.copytree(self.copy, self.directory)
        self.assertBroken(position, [b"1", b"2"], "")

    def test_an_older_copy_written_over_the_file_without_its_seal(self) -> None:
        position = self.fill()
        shutil.copy2(self.copy / "pushd.db", self.directory)
        self.assertBroken(position, [b"1", b"2"], "it is an older copy")

    def test_an_older_copy_written_over_the_file_and_its_seal(self) -> None:
        position = self.fill()
        changed_s = continuity._changed_s
        self.patch(continuity, "_changed_s", lambda path: changed_s(path) + 60)  # a minute later
        for name in ("pushd.db", "pushd.seal"):
            shutil.copy2(self.copy / name, self.directory)
        self.assertBroken(position, [b"1", b"2"], "pushd.seal was put there by somebody else")

    def test_a_machine_that_was_started_anew_after_a_crash(self) -> None:
        stored = self.open()
        stored.publish_each("a", b"1", b"2")
        position = stored.log.position
        self.crash(stored)
        self.boot.write_text("boot 2\n")
        self.assertBroken(position, [b"1", b"2"], "the machine was started anew before everything was on the disk")

    def test_a_machine_that_does_not_say_whether_it_was_started_anew(self) -> None:
        stored = self.open()
        stored.publish_each("a", b"1", b"2")
        position = stored.log.position
        self.crash(stored)
        self.boot.unlink()
        self.assertBroken(position, [b"1", b"2"], "the machine was started anew before everything was on the disk")

    def test_a_machine_that_was_started_anew_when_all_was_on_the_disk(self) -> None:
        for is_safe in (False, True):
            stored = self.open(is_safe=is_safe)
            stored.publish_each("a", b"1", b"2")
            position = stored.log.position
            (self.crash if is_safe else self.close)(stored)
            self.boot.write_text(f"boot {is_safe}\n")
            self.assertGoesOn(position)
            self.close(self.opened[0])

    def test_a_seal_that_cannot_be_written_for_a_while_is_no_older_copy(self) -> None:
        position = self.fill()
        write_seal = continuity.write_seal

        def fails(directory: Path, seal: int) -> int:
            raise OSError(28, "No space left on device")

        for _ in range(3):
            self.patch(continuity, "write_seal", fails)
            error = self.assertRaises(StartFailed, self.open)
            self.assertIn("cannot be used: No space left on device", str(error))
        self.patch(continuity, "write_seal", write_seal)
        stored = self.open()
        self.assertEqual(stored.log.position, position)
        self.patch(continuity, "write_seal", fails)
        with capturedLogs() as events:
            for _ in range(3):
                stored.store.turn_over()
        for event in events:
            self.assertIn("the store could not be sealed: [Errno 28] No space", formatEvent(event) or "")
        self.crash(stored)
        self.patch(continuity, "write_seal", write_seal)
        self.assertGoesOn(position)


class DamageTests(StoreCase):
    def test_whatever_bit_is_wrong_nobody_sees_anything_but_a_refusal(self) -> None:
        stored = self.open()
        for number in range(60):
            stored.publish("a", "b", data=b"%d" % number * 30, id=None if number % 3 else f"id {number}")
        self.close(stored)
        path = self.directory / "pushd.db"
        whole = path.read_bytes()
        seal = (self.directory / "pushd.seal").read_bytes()
        random = Random(1)
        found = 0
        for _ in range(150):
            damaged = bytearray(whole)
            for _ in range(random.choice((1, 1, 20))):
                damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
            path.write_bytes(damaged)
            (self.directory / "pushd.seal").write_bytes(seal)
            for beside in ("pushd.db-wal", "pushd.db-shm"):
                (self.directory / beside).unlink(missing_ok=True)
            found += self.use()
        self.assertGreater(found, 10)

    def test_a_block_of_another_kind_is_refused(self) -> None:
        stored = self.open()
        stored.publish("a", data=b"x" * 100)
        self.close(stored)
        damage(self.directory / "pushd.db", "block", "events", "7")
        error = self.assertRaises(Unavailable, self.open().read, "a")
        self.assertIn("not of the kind that was written", error.detail)

    def test_whatever_kind_a_value_is_of_nobody_sees_anything_but_a_refusal(self) -> None:
        stored = self.open()
        for number in range(60):
            stored.publish("a", "b", data=b"%d" % number * 30, id=None if number % 3 else f"id {number}")
        self.close(stored)
        whole = (self.directory / "pushd.db").read_bytes()
        seal = (self.directory / "pushd.seal").read_bytes()
        columns = {
            "block": ("count", "first_sequence", "last_sequence", "bytes", "given", "checksum", "events"),
            "given": ("sequence", "fingerprint"),
            "channel": ("first", "dropped", "bytes", "offset", "sequence"),
            "log": ("epoch", "sequence", "given_up_sequence", "given_up_offset", "began", "seal", "inode", "boot"),
        }
        values = ("NULL", "'text'", "-1", "1.5", "x'00'", "9223372036854775807", "'[1]'", """'{"a":"b"}'""")
        found = 0
        for table, names in columns.items():
            for name, value in product(names, values):
                self.directory = self.directory.parent / f"{table} {name} {values.index(value)}"
                self.directory.mkdir()
                (self.directory / "pushd.db").write_bytes(whole)
                (self.directory / "pushd.seal").write_bytes(seal)
                damage(self.directory / "pushd.db", table, name, value)
                found += self.use()
        self.assertGreater(found, 100)

    def use(self) -> int:
        """Use a store in all ways; return how often it was refused."""
        found = 0
        try:
            checked = check(self.directory)
            assert checked is not None
            found += len(checked.damages) > 0
        except StartFailed:
            found += 1
        try:
            stored = self.open()
        except StartFailed as error:
            self.assertEqual(len(str(error).splitlines()), 1)
            return found + 1
        for act in (
            lambda: stored.read("a", "b"),
            lambda: stored.read("b", since="id 3"),
            lambda: stored.bus.state("a", EVERYTHING),
            lambda: stored.publish("a", "b", data=b"6" * 30, id="id 6"),
            lambda: stored.publish("b", "c"),
            lambda: stored.wait(2),
        ):
            try:
                act()
            except Refused:
                found += 1
        self.flushLoggedErrors()
        self.close(stored)
        return found


class ClockTests(StoreCase):
    """Retention goes by how much time has passed, whatever the system clock says."""

    AGE_S = 3600

    def open(self, **options: Any) -> StoreRig:
        return super().open(default=Kept(history_age_s=self.AGE_S), recent_bytes=1, **options)

    def wait(self, stored: StoreRig, seconds: int) -> None:
        """Let time pass, and all that is kept be read from the file."""
        for second in range(seconds):
            if second % 100 < 2:
                stored.store.archive._past._chunks.clear()
            stored.wait(1)
        stored.store.archive._past._chunks.clear()

    def test_a_jump_back_drops_nothing_early(self) -> None:
        stored = self.open()
        stored.publish_each("a", b"1")
        self.wait(stored, 60)
        stored.wall -= 30 * 86400
        stored.publish_each("a", b"2")
        self.wait(stored, 1000)
        self.assertEqual(stored.datas("a"), [b"1", b"2"])
        self.assertEqual([entry.event.sequence for entry in stored.entries("a")], [1, 2])

    def test_a_jump_back_keeps_nothing_forever(self) -> None:
        stored = self.open()
        stored.publish_each("a", b"1")
        stored.wall -= 30 * 86400
        self.wait(stored, 1)
        for _ in range(5):
            self.wait(stored, self.AGE_S // 4)
        self.assertEqual(stored.datas("a"), [])

    def test_a_jump_forward_drops_nothing_early(self) -> None:
        stored = self.open()
        stored.publish_each("a", b"1")
        self.wait(stored, 60)
        stored.wall += 30 * 86400
        self.wait(stored, 5)
        self.assertEqual(stored.datas("a"), [b"1"])

    def test_after_a_restart_with_the_clock_set_back_events_stay_for_as_long_as_they_should_at_most(self) -> None:
        stored = self.open()
        stored.publish_each("a", b"1")
        self.close(stored)
        stored = self.open(started=STARTED - 30 * 86400)
        stored.publish_each("a", b"2")
        self.assertEqual(stored.datas("a"), [b"1", b"2"])
        for _ in range(5):
            self.wait(stored, self.AGE_S // 4)
        self.assertEqual(stored.datas("a"), [])

    def test_after_a_restart_events_are_as_old_as_they_are(self) -> None:
        stored = self.open()
        stored.publish_each("a", b"1")
        self.close(stored)
        stored = self.open(started=STARTED + self.AGE_S - 10)
        self.assertEqual(stored.datas("a"), [b"1"])
        self.wait(stored, 11)
        self.assertEqual(stored.datas("a"), [])
