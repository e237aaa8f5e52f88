"""pushd stops reading from a WebSocket that publishes faster than the store writes."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from tests.rigs.daemon import StoredDaemonRig
from tests.torture.talk import frame, upgrade

MOST = 2000
"""The number of unanswered events at which pushd stops reading."""


class UnansweredTests(SynchronousTestCase):
    """A client publishes 5,000 events at once while the disk is slow."""

    def setUp(self) -> None:
        directory = TemporaryDirectory(prefix="pushd-")
        self.addCleanup(directory.cleanup)
        self.rig = StoredDaemonRig(Path(directory.name), "[pushd]\ndurability = power\n[site]\ndemo = no\n")
        self.addCleanup(self.rig.abandon)

    def check(self, target: str, one: bytes) -> None:
        """Send `one` 5,000 times to a WebSocket at `target`; check the bound and that all are published."""
        self.rig.worker.is_held = True
        connection = self.rig.connect()
        connection.send(upgrade(target))
        for _ in range(5):
            connection.send(one * 1000)
            self.rig.turn()
        journal = self.rig.storage.journal
        waiting = journal._waiting.clear()
        self.assertGreaterEqual(len(waiting), MOST - 500)
        self.assertLess(len(waiting), MOST + 100)
        for submission in waiting:
            journal._waiting.add(None, submission)
        self.rig.worker.release()
        for _ in range(150):
            self.rig.turn()
        self.assertEqual(json.loads(self.rig.get("/channels/a").body)["latest"]["offset"], 5000)

    def test_json(self) -> None:
        self.check("/ws", frame(b'{"type":"publish","channel":"a","data":"x"}'))

    def test_raw(self) -> None:
        self.check("/ws?channel=a&format=raw", frame(b"x"))
