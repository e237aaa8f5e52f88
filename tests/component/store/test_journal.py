"""The journal: what it looks after, and when."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from pushd.errors import NoRoom
from tests.rigs.daemon import StoredDaemonRig
from tests.rigs.http_client import HttpClient

_CONFIG = "[pushd]\ndurability = power\n[site]\ndemo = no\n[channels]\nhistory_size = 1\n"


class TendingTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory(prefix="pushd-")
        self.addCleanup(directory.cleanup)
        self.rig = StoredDaemonRig(Path(directory.name), _CONFIG)
        self.addCleanup(self.rig.abandon)

    def publish_slowly(self) -> HttpClient:
        """Publish an event while the disk takes its time."""
        self.rig.worker.is_held = True
        publisher = HttpClient(self.rig)
        publisher.send("POST", "/channels/news", body=b"slow")
        self.rig.turn()
        self.assertEqual(publisher.responses, [])
        return publisher

    def test_it_waits_for_a_transaction_that_is_under_way_without_asking_again_and_again(self) -> None:
        self.rig.publish_each("news", *[b"x"] * 100)
        publisher = self.publish_slowly()
        self.rig.wait(3)  # would not end if each turn of the reactor made another one
        self.assertEqual(publisher.responses, [])
        self.rig.worker.release()
        self.rig.turn()
        self.assertEqual(publisher.response.status, 201)

    def test_it_comes_to_its_turn_while_publishers_are_waiting(self) -> None:
        self.rig.publish_each("news", *[b"x"] * 100)
        journal = self.rig.storage.journal
        publishers = [self.publish_slowly() for _ in range(3)]
        journal.tend()
        self.rig.worker.release()
        self.rig.turn()
        self.assertEqual([publisher.response.status for publisher in publishers], [201] * 3)
        with closing(sqlite3.connect(self.rig.directory / "pushd.db")) as store:
            ((count,),) = store.execute("SELECT sum(count) FROM block")
        self.assertLess(count, 10)

    def test_it_removes_what_was_dropped_though_much_is_written_all_the_time(self) -> None:
        store = self.rig.storage.store
        journal = self.rig.storage.journal
        self.rig.publish_each("news", *[b"x"] * 100)
        store.unmoved_bytes = 1 << 30
        journal.tend()
        self.rig.turn()
        self.assertEqual(store.unmoved_bytes // (1 << 20), 0)
        with closing(sqlite3.connect(self.rig.directory / "pushd.db")) as database:
            ((count,),) = database.execute("SELECT sum(count) FROM block")
        self.assertLess(count, 30)

    def test_that_it_cannot_remove_is_logged_once_and_not_taken_for_publishing(self) -> None:
        store, journal = self.rig.storage.store, self.rig.storage.journal
        self.rig.publish_each("news", *[b"x"] * 100)
        with capturedLogs() as logs:
            with patch.object(store, "write", side_effect=NoRoom("the disk is full")):
                for _ in range(3):
                    journal.tend()
                    self.rig.turn()
            journal.tend()
            self.rig.turn()
        self.assertEqual([log["log_format"] for log in logs], ["what was dropped cannot be removed: {detail}"])
        self.assertFalse(store.archive.has_to_remove)
