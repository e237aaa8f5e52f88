"""The list of connections, found in steps."""

from __future__ import annotations

from unittest.mock import patch

from pushd.bus.closing import CloseCause, CloseReason
from tests.rigs.daemon import DaemonTests
from tests.rigs.http_client import HttpClient

STREAM = "/stream?channel=news"


class ConnectionsTests(DaemonTests):
    def test_many_are_looked_at_in_several_turns(self) -> None:
        clients = [HttpClient(self.rig) for _ in range(40)]
        for client in clients:
            client.send("GET", STREAM)
        self.rig.turn()
        work = self.rig.parts.sessions.steps
        with (
            patch.object(work, "_budget_s", -1.0),
            patch.object(work, "_go_on", wraps=work._go_on) as go_on,
        ):
            work._credit_s = -1.0
            authorizer = HttpClient(self.rig)
            authorizer.send("GET", "/connections?user=nobody")
            self.rig.turn()
        self.assertGreater(go_on.call_count, 40)
        self.assertEqual(authorizer.responses[0].json, {"connections": [], "next": None})

    def test_who_goes_meanwhile_is_left_out(self) -> None:
        clients = [HttpClient(self.rig) for _ in range(3)]
        for client in clients:
            client.send("GET", STREAM)
        self.rig.turn()
        sessions = self.rig.parts.sessions
        subscribers = sessions.after(None)
        first = next(subscribers)
        gone = list(sessions)[1]
        sessions.end_each([gone], CloseReason(CloseCause.REFUSED, "closed"))
        self.assertNotIn(gone, [first, *subscribers])
