"""A WebSocket whose client publishes faster than events are written is read no further meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from tests.rigs import StoredRig
from tests.torture.talk import frame, upgrade

MOST = 2000
"""How many events of one client wait for the store."""


class UnansweredTests(SynchronousTestCase):
    """Publish 5,000 events at once while the disk takes its time."""

    def setUp(self) -> None:
        directory = TemporaryDirectory(prefix="pushd-")
        self.addCleanup(directory.cleanup)
        self.rig = StoredRig(Path(directory.name), "[pushd]\ndurability = power\n[site]\ndemo = no\n")
        self.addCleanup(self.rig.abandon)

    def check(self, target: str, one: bytes) -> None:
        """Have the client send `one` again and again to a WebSocket at `target`."""
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
