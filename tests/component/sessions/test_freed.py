"""What a subscriber has occupied is freed when its connection ends, without the garbage collector."""

from __future__ import annotations

import gc

from pushd.bus.subscription import Subscription
from pushd.sessions.session import Session
from pushd.transports.http_stream import ResponseStream
from pushd.transports.websocket.connection import WebSocketConnection
from pushd.transports.websocket.protocol import JsonProtocol
from tests.rigs.daemon import DaemonTests
from tests.rigs.http_client import HttpClient
from tests.rigs.websocket_client import WebSocketClient

KINDS = (Session, Subscription, ResponseStream, JsonProtocol, WebSocketConnection)


class FreedTests(DaemonTests):
    """Thousands that leave together would otherwise cost the collector a pause of 80 ms for each 2,000."""

    def setUp(self) -> None:
        """Turn the collector off, with nothing left to collect."""
        super().setUp()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        self.before = self.there()

    def there(self) -> list[str]:
        """Return the kinds of what there is."""
        return sorted(type(one).__name__ for one in gc.get_objects() if isinstance(one, KINDS))

    def test_event_streams(self) -> None:
        for path in "/sse", "/stream":
            with self.subTest(path):
                client = HttpClient(self.rig)
                client.send("GET", f"{path}?channel=news")
                self.rig.turn()
                self.assertIn("Session", self.there())
                self.rig.publish("news", b"x")
                self.rig.turn()
                client.connection.disconnect()
                del client
                self.rig.turn()
                self.assertEqual(self.there(), self.before)

    def test_websockets(self) -> None:
        for path in "/ws", "/ws?channel=news", "/ws?channel=a&channel=b":
            with self.subTest(path):
                client = WebSocketClient(self.rig, path)
                self.rig.turn()
                self.assertIn("Session", self.there())
                client.connection.disconnect()
                del client
                self.rig.turn()
                self.assertEqual(self.there(), self.before)
