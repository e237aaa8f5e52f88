"""The check of a store: it finds each kind of damage, finds none where there is none, and changes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

from twisted.trial.unittest import SynchronousTestCase

from pushd.errors import StartFailed
from pushd.store.sqlite.check import Checked, check
from pushd.store.sqlite.schema import OFFSETS
from tests.rigs.bare_store import StoreRig
from tests.rigs.builders import Kept
from tests.rigs.stored import damage


class CheckCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def stored(self, **options: object) -> StoreRig:
        """Open the store."""
        return StoreRig(self.directory, **options)  # type: ignore[arg-type]

    def fill(self) -> None:
        """Make a store with something of everything, and close it."""
        stored = self.stored(kept={"few": Kept(history_size=3), "none": Kept(history_size=0)})
        stored.publish_each("a", *(b"%d" % number for number in range(10)))
        stored.publish_together(*((("a", "b"), b"both", None) for _ in range(20)))
        stored.publish("a", data=b"given", id="mine")
        stored.publish("b", "few", data=b"given too", id="ours")
        stored.publish_each("few", b"1", b"2")
        stored.publish_each("none", b"1", b"2")
        stored.close()

    def check(self) -> Checked:
        checked = check(self.directory)
        assert checked is not None
        return checked

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Fill a store, and change it behind its back."""
        self.fill()
        with closing(sqlite3.connect(self.directory / "pushd.db")) as connection, connection:
            yield connection


class FineTests(CheckCase):
    def test_without_a_store_there_is_nothing_to_say(self) -> None:
        self.assertIsNone(check(self.directory))

    def test_an_empty_file_and_a_store_without_events_are_fine(self) -> None:
        (self.directory / "pushd.db").touch()
        self.assertEqual(self.check().damages, [])
        self.stored().close()
        self.assertEqual(self.check().damages, [])

    def test_a_store_that_was_closed_is_fine(self) -> None:
        self.fill()
        checked = self.check()
        self.assertEqual(checked.damages, [])
        self.assertEqual((checked.channels, checked.events), (4, 31 + 21 + 3))
        self.assertEqual(checked.size_bytes, 10 + 20 * 4 * 2 + len(b"given") + 2 * len(b"given too") + 2)
        path = self.directory / "pushd.db"
        self.assertEqual(
            checked.summary, f"the store {path} is fine: channels: 4, events: 55, bytes: {checked.size_bytes}"
        )

    def test_nothing_is_changed_and_no_file_is_made(self) -> None:
        self.fill()
        before = {path.name: path.read_bytes() for path in self.directory.iterdir()}
        self.check()
        self.assertEqual({path.name: path.read_bytes() for path in self.directory.iterdir()}, before)

    def test_a_store_that_is_open_or_was_killed_is_fine_and_what_was_written_last_is_seen(self) -> None:
        self.fill()
        stored = self.stored()
        stored.publish_each("a", b"later")
        self.assertEqual((self.check().damages, self.check().events), ([], 56))
        stored.publish_each("a", b"still later")
        self.assertEqual((self.check().damages, self.check().events), ([], 57))
        wal = self.directory / "pushd.db-wal"
        size = wal.stat().st_size
        stored.crash()
        if not wal.exists() or wal.stat().st_size != size:
            self.fail("the crash of the rig was none")
        self.assertEqual((self.check().damages, self.check().events), ([], 57))
        self.assertEqual(wal.stat().st_size, size)

    def test_what_is_dropped_and_not_yet_removed_is_no_damage(self) -> None:
        stored = self.stored(default=Kept(history_size=5, history_age_s=10))
        for number in range(40):
            stored.publish("a", "b", id=f"id {number}")
            stored.publish("a", id=f"id {number % 7} of a")
            if number % 3 == 0:
                stored.wait(1)
            self.assertEqual(self.check().damages, [])
        stored.wait(11)
        stored.publish("b", id="id 0")
        self.assertEqual(self.check().damages, [])
        stored.close()
        self.assertEqual(self.check().damages, [])

    def test_a_batch_that_is_longer_than_the_history_leaves_no_hole(self) -> None:
        stored = self.stored(default=Kept(history_size=5))
        for count in (3, 9, 2):
            stored.publish_together(*((("a",), b"x", None) for _ in range(count)))
            self.assertEqual(self.check().damages, [])
        stored.close()


class DamageTests(CheckCase):
    def assertDamage(self, *parts: str) -> None:
        """Check that a line says each of `parts`."""
        damages = self.check().damages
        for part in parts:
            self.assertTrue(any(part in line for line in damages), (part, damages))
        for line in damages:
            self.assertEqual(len(line.splitlines()), 1, line)

    def test_a_bit_of_an_event(self) -> None:
        with self.changing() as connection:
            connection.execute("UPDATE block SET events = CAST(replace(events, ?, ?) AS BLOB)", (b"both", b"moth"))
        self.assertDamage("events 11 to 30 of channel 'a' are damaged: their checksum is another", "of channel 'b'")

    def test_a_block_that_is_a_number(self) -> None:
        self.fill()
        damage(self.directory / "pushd.db", "block", "events", "7")
        self.assertDamage("events 11 to 30 of channel 'a' are damaged: they are not of the kind that was written")

    def test_a_block_that_is_none_though_its_checksum_is_right(self) -> None:
        with self.changing() as connection:
            bad = b"0123456789" + b"\xff" * 30
            connection.execute(
                "UPDATE block SET events = ?, checksum = ? WHERE place = ?", (bad, crc32(bad), OFFSETS + 11)
            )
        self.assertDamage("events 11 to 30 of channel 'a' are damaged")

    def test_a_block_whose_row_says_something_else(self) -> None:
        for column in ("count", "first_sequence", "last_sequence", "given"):
            with self.subTest(column), self.changing() as connection:
                connection.execute(
                    f"UPDATE block SET {column} = {column} + 1 WHERE place = ?", (OFFSETS + 31,)
                )  # the one with a given id
            self.assertDamage("events 31 to 3")
            self.setUp()

    def test_bytes_that_do_not_add_up(self) -> None:
        with self.changing() as connection:
            connection.execute("UPDATE block SET bytes = bytes + 1 WHERE place = ?", (OFFSETS + 5,))
        self.assertDamage("events 5 to 5 of channel 'a' take 129 bytes, not 130")

    def test_a_hole(self) -> None:
        with self.changing() as connection:
            connection.execute("DELETE FROM block WHERE place = ?", (OFFSETS + 5,))
        self.assertDamage("events 5 to 5 of channel 'a' are missing")

    def test_a_missing_beginning_and_a_missing_end(self) -> None:
        with self.changing() as connection:
            connection.execute("DELETE FROM block WHERE place = ?", (OFFSETS + 1,))
            connection.execute("UPDATE channel SET \"offset\" = 50 WHERE name = 'b'")
        self.assertDamage("events 1 to 1 of channel 'a' are missing", "events 22 to 50 of channel 'b' are missing")

    def test_blocks_out_of_order(self) -> None:
        with self.changing() as connection:
            connection.execute(
                "UPDATE block SET first_sequence = 1, last_sequence = 1 WHERE place = ?", (OFFSETS + 5,)
            )
        self.assertDamage("events 5 to 5 of channel 'a' are at 1 to 1 of the log, after 4")

    def test_a_log_before_its_latest_event(self) -> None:
        with self.changing() as connection:
            connection.execute("UPDATE log SET sequence = 20")
        self.assertDamage("events 11 to 30 of channel 'a' are at 11 to 30 of the log, after 10, up to 20")

    def test_a_log_that_is_missing_or_has_no_epoch(self) -> None:
        with self.changing() as connection:
            connection.execute("UPDATE log SET epoch = 'x'")
        self.assertDamage("the epoch of the log is 'x'")
        with closing(sqlite3.connect(self.directory / "pushd.db")) as connection, connection:
            connection.execute("DELETE FROM log")
        self.assertDamage("the log is missing")

    def test_events_of_a_channel_that_is_not_there(self) -> None:
        with self.changing() as connection:
            connection.execute("DELETE FROM channel WHERE name = 'a'")
        self.assertDamage("there are events of a channel that is not there, with the key 1")

    def test_events_of_another_channel(self) -> None:
        with self.changing() as connection:
            connection.execute("UPDATE channel SET name = 'z' WHERE name = 'b'")
        self.assertDamage(
            "the id 'ours' of the event at 32 of the log is not among the given",
            "there is no event with the id 'ours' at 32 of the log, 21 of channel 'b'",
        )

    def test_an_id_that_points_nowhere(self) -> None:
        with self.changing() as connection:
            connection.execute("UPDATE given SET sequence = 7 WHERE id = 'ours'")
            connection.execute("INSERT INTO given VALUES ('theirs', 'a', 0, 3, 3, NULL)")
        self.assertDamage(
            "there is no event with the id 'ours' at 7 of the log", "there is no event with the id 'theirs'"
        )

    def test_an_id_that_is_not_known(self) -> None:
        with self.changing() as connection:
            connection.execute("DELETE FROM given WHERE id = 'mine'")
        self.assertDamage("the id 'mine' of the event at 31 of the log is not among the given")

    def test_what_was_published_with_an_id_that_cannot_be_read(self) -> None:
        with self.changing() as connection:
            connection.execute("UPDATE given SET fingerprint = x'00' WHERE id = 'mine'")
        self.assertDamage("what was published with the id 'mine' cannot be read")

    def test_damages_are_told_up_to_some_number(self) -> None:
        self.fill()
        with closing(sqlite3.connect(self.directory / "pushd.db")) as connection, connection:
            for number in range(200):
                connection.execute("INSERT INTO given VALUES (?, 'a', 0, 1, 1, NULL)", (f"{number}",))
        damages = self.check().damages
        self.assertEqual((len(damages), damages[-1]), (101, "and there is more"))

    def test_a_page_that_is_damaged(self) -> None:
        self.fill()
        path = self.directory / "pushd.db"
        whole = path.read_bytes()
        for page in range(1, len(whole) // 4096):
            damaged = bytearray(whole)
            damaged[page * 4096 : page * 4096 + 64] = b"\xaa" * 64
            path.write_bytes(damaged)
            try:
                found = self.check().damages
            except StartFailed as error:
                found = [str(error)]
            self.assertTrue(found, page)
            for line in found:
                self.assertEqual(len(line.splitlines()), 1, line)


class UnreadableTests(CheckCase):
    def assertFails(self, *parts: str) -> None:
        text = str(self.assertRaises(StartFailed, check, self.directory))
        self.assertEqual(len(text.splitlines()), 1, text)
        for part in parts:
            self.assertIn(part, text)

    def test_a_file_that_is_no_database(self) -> None:
        (self.directory / "pushd.db").write_bytes(b"hello" * 1000)
        self.assertFails("pushd.db is damaged: file is not a database. Put a copy of it back")

    def test_a_database_of_something_else(self) -> None:
        with closing(sqlite3.connect(self.directory / "pushd.db")) as connection:
            connection.execute("CREATE TABLE t (x)")
        self.assertFails("is a database, but not pushd's")

    def test_a_later_version(self) -> None:
        with self.changing() as connection:
            connection.execute("PRAGMA user_version = 99")
        self.assertFails("was written by a later pushd (its version is 99)")

    def test_a_file_that_is_cut_off(self) -> None:
        self.fill()
        path = self.directory / "pushd.db"
        path.write_bytes(path.read_bytes()[:-8192])
        self.assertFails("is damaged: database disk image is malformed")
