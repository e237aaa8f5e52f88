"""The schema: stores of every earlier version are opened and read, and a migration that fails changes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from struct import pack
from tempfile import TemporaryDirectory
from zlib import crc32

from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.bus import Published
from pushd.bus.grants import EVERYTHING
from pushd.errors import StartFailed
from pushd.store.sqlite import schema
from pushd.store.sqlite import store as store_module
from pushd.store.sqlite.check import check
from tests.rigs.bare_store import StoreRig
from tests.rigs.builders import STARTED

STORES = Path(__file__).parent.parent.parent / "stores"
"""What pushd wrote in each version, as SQL: never changed. The newest one may be, until it is released:

``python -m tests.component.store.test_schema`` writes it.
"""


def fill(directory: Path) -> None:
    """Write what `SchemaTests` reads."""
    stored = StoreRig(directory)
    stored.publish_each("a", b"one", b"two", b"\xff\x00")
    stored.publish_together(*((("b", "c/d"), f"{number}".encode(), None) for number in range(5)))
    stored.publish("a", data=b"given", id="mine")
    stored.close()


class SchemaTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.path = self.directory / "pushd.db"

    def load(self, version: int) -> None:
        """Make the store of a version."""
        script = (STORES / f"v{version}.sql").read_text()
        with closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(script)
            connection.execute("UPDATE log SET inode = ?, sealed = 0", (self.path.stat().st_ino,))
            connection.commit()
            (seal,) = connection.execute("SELECT seal FROM log").fetchone()
        (self.directory / "pushd.seal").write_text(f"{seal}\n")

    def test_there_is_one_of_each_version(self) -> None:
        self.assertEqual({path.name for path in STORES.iterdir()}, {f"v{n + 1}.sql" for n in range(schema.VERSION)})
        self.assertEqual(set(schema.MIGRATIONS), set(range(1, schema.VERSION)))

    def test_a_store_of_each_version_is_opened_read_and_written(self) -> None:
        for version in range(1, schema.VERSION + 1):
            with self.subTest(version):
                self.load(version)
                stored = StoreRig(self.directory, started=STARTED + 60)
                self.assertEqual(stored.datas("a"), [b"one", b"two", b"\xff\x00", b"given"])
                self.assertEqual(stored.datas("b"), [b"0", b"1", b"2", b"3", b"4"])
                self.assertEqual([entry.offset for entry in stored.entries("c/d")], [1, 2, 3, 4, 5])
                self.assertEqual(stored.entries("a")[-1].event.time, STARTED)
                self.assertEqual((stored.log.position[10:], stored.log.event("a", "mine").offset), ("-9", 4))
                again, new = stored.publish("a", data=b"given", id="mine"), stored.publish("a")
                assert isinstance(again, Published)
                assert isinstance(new, Published)
                self.assertEqual((again.offset, new.offset, new.id[10:]), (4, 5, "-10"))
                self.assertEqual(stored.bus.state("a", EVERYTHING).retained, 5)
                stored.close()
                checked = check(self.directory)
                assert checked is not None
                self.assertEqual((checked.damages, checked.events), ([], 15))
                again_open = StoreRig(self.directory, started=STARTED + 120)
                self.assertEqual(
                    (again_open.log.position, again_open.log.size_bytes),
                    (stored.log.position, stored.log.size_bytes),
                )
                again_open.close()
                self.path.unlink()

    def test_an_id_of_version_1_is_known_by_each_of_its_channels_and_any_content_is_the_same(self) -> None:
        self.load(1)
        with closing(sqlite3.connect(self.path)) as connection, connection:
            rows = connection.execute("SELECT place, last_sequence, checksum, events FROM block").fetchall()
            named = pack("<QdIB", 10, STARTED, 1, 1 | 4 | 8) + b"\x04\0\0\0ours" + b"\x05\0\0\0b\0c/d" + b"5"
            for place, events in ((place, events) for place, _, _, events in rows if place % schema.OFFSETS == 1):
                key, block = place // schema.OFFSETS, events[:10] + named
                if key > 1:
                    connection.execute(
                        "INSERT INTO block VALUES (?, 1, 10, 10, 774, 1, ?, ?)",
                        (key * schema.OFFSETS + 6, crc32(block), block),
                    )
            connection.execute("INSERT INTO given VALUES ('ours', 10, '{\"b\": 6, \"c/d\": 6}')")
            connection.execute("UPDATE log SET sequence = 10")
        stored = StoreRig(self.directory, started=STARTED + 60)
        self.addCleanup(stored.close)
        checked = check(self.directory)
        assert checked is not None
        self.assertEqual((checked.damages, checked.events), ([], 16))
        for name in ("b", "c/d"):
            self.assertEqual(stored.log.event(name, "ours").event.data, b"5")
            self.assertTrue(stored.read(name, since="ours").recovered)
        self.assertFalse(stored.read("a", since="ours").recovered)
        for data in (b"5", b"anything"):
            again = stored.publish("b", "c/d", data=data, id="ours")
            assert isinstance(again, Published)
            self.assertEqual((again.is_duplicate, again.channel, again.offset), (True, "b", 6))
        new = stored.publish("c/d", data=b"new", id="ours")
        assert isinstance(new, Published)
        self.assertEqual((new.is_duplicate, new.offset), (False, 7))

    def test_the_tables_of_the_newest_version_are_those_that_are_made(self) -> None:
        self.load(schema.VERSION)
        with closing(sqlite3.connect(self.path)) as old, closing(sqlite3.connect(":memory:")) as new:
            schema.create(new)
            columns = "SELECT m.name, c.* FROM sqlite_schema m, pragma_table_info(m.name) c ORDER BY m.name, c.cid"
            self.assertEqual(old.execute(columns).fetchall(), new.execute(columns).fetchall())

    def contents(self) -> list[str]:
        with closing(sqlite3.connect(self.path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            return [str(version), *connection.iterdump()]

    def test_each_step_of_a_migration_is_one_transaction(self) -> None:
        self.load(1)

        def first(connection: sqlite3.Connection) -> None:
            connection.execute("ALTER TABLE channel ADD COLUMN colour TEXT")

        def second(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE channel SET colour = 'blue'")
            connection.execute("DELETE FROM block")
            connection.execute("SELECT nonsense")

        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            steps = {1: first, 2: second}
            self.assertRaises(sqlite3.OperationalError, schema.migrate, connection, 1, steps, 3)
            self.assertFalse(connection.in_transaction)
            self.assertEqual(connection.execute("PRAGMA user_version").fetchone(), (2,))
            rows = connection.execute("SELECT colour, (SELECT count(*) > 0 FROM block) FROM channel").fetchall()
            self.assertEqual(rows, [(None, 1)] * 3)
            schema.migrate(connection, 2, {2: lambda one: None}, 3)
            self.assertEqual(connection.execute("PRAGMA user_version").fetchone(), (3,))

    def test_a_migration_that_fails_leaves_the_file_as_it_was_and_says_so(self) -> None:
        self.load(1)
        before = self.contents()

        def step(connection: sqlite3.Connection) -> None:
            connection.execute("DROP TABLE given")
            connection.execute("SELECT nonsense")

        self.patch(store_module, "migrate", lambda one, version: schema.migrate(one, version, {1: step}, 2))
        error = self.assertRaises(StartFailed, StoreRig, self.directory)
        self.assertEqual(str(error), f"the store {self.path} cannot be used: no such column: nonsense")
        self.assertEqual(self.contents(), before)

    def test_a_migration_for_which_there_is_no_room_leaves_the_file_as_it_was(self) -> None:
        self.load(1)
        before = self.contents()

        def step(connection: sqlite3.Connection) -> None:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
            connection.execute("CREATE TABLE copy AS SELECT zeroblob(1000000)")

        self.patch(store_module, "migrate", lambda one, version: schema.migrate(one, version, {1: step}, 2))
        error = self.assertRaises(StartFailed, StoreRig, self.directory)
        self.assertEqual(str(error), f"the store {self.path} cannot be used: database or disk is full")
        self.assertEqual(self.contents(), before)


def _write() -> None:
    with TemporaryDirectory() as directory:
        fill(Path(directory))
        with closing(sqlite3.connect(Path(directory) / "pushd.db")) as connection:
            pragmas = "".join(
                f"PRAGMA {name} = {connection.execute(f'PRAGMA {name}').fetchone()[0]};\n"
                for name in ("auto_vacuum", "application_id", "user_version")
            )
            text = pragmas + "\n".join(connection.iterdump()) + "\n"
    STORES.mkdir(exist_ok=True)
    (STORES / f"v{schema.VERSION}.sql").write_text(text)


if __name__ == "__main__":
    _write()
