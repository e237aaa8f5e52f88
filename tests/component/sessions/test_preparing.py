"""Replays prepared for a client before it is admitted."""

from __future__ import annotations

from unittest.mock import patch

from pushd.bus.replay import Replay
from pushd.daemon.integrations import Integrations
from tests.rigs.daemon import DaemonTests
from tests.rigs.outsiders import Registry, a_user
from tests.rigs.websocket_client import WebSocketClient


class PreparingTests(DaemonTests):
    """pushd prepares a replay for each pattern of a WebSocket."""

    COUNT = 200

    def discarded(self, turns: int) -> list[int]:
        """Return the widths of the discarded replays when a client disconnects after some turns."""
        parts = self.rig.parts
        for number in range(self.COUNT):
            self.rig.publish(f"a/{number}", b"x")
            self.rig.publish(f"b/{number}", b"x")
        found: list[Replay] = []
        self.patch(parts.bus.log, "discard", found.append)
        work = parts.sessions.steps
        with patch.object(work, "_budget_s", -1.0):
            work._credit_s = -1.0
            client = WebSocketClient(self.rig, "/ws?channel=a/*&channel=b/*&since=earliest")
            for _ in range(turns):
                work._turn()
            client.connection.disconnect()
            work._turn()
        self.rig.turn()
        self.assertEqual(len(work), 0)
        return [replay.width for replay in found]

    def test_the_one_that_is_being_prepared_and_those_that_are_prepared_are_freed(self) -> None:
        for turns, wanted in ((10, [True]), (2 * self.COUNT + 100, [True, True])):
            with self.subTest(turns):
                self.assertEqual([width > 0 for width in self.discarded(turns)], wanted)


class CountedTests(DaemonTests):
    """A client counts as connected while its replay is prepared."""

    config = "[limits]\nconnections_per_user = 1\n"

    def setUp(self) -> None:
        """Let a user have one connection."""
        self.world = Integrations(Registry({"a": a_user("ada")}))
        super().setUp()

    def test_another_of_the_user_is_refused_meanwhile(self) -> None:
        for number in range(50):
            self.rig.publish(f"a/{number}", b"x")
        parts, client = self.rig.parts, self.rig.client()
        work = parts.sessions.steps
        with patch.object(work, "_budget_s", -1.0):
            work._credit_s = -1.0
            client.send("GET", "/stream?channel=a/*&since=earliest", headers={"Authorization": "Bearer a"})
            self.assertEqual((len(work), len(parts.sessions)), (1, 0))
            refused = self.rig.get("/stream?channel=b", Authorization="Bearer a")
            self.assert_problem(refused, 429, says="connections_per_user is 1")
            while len(work):
                work._turn()
        self.rig.turn()
        self.assertEqual((client.written[0].status, len(parts.sessions)), (200, 1))
