"""Events that wait in memory for slow subscribers while the daemon reloads or stops."""

from __future__ import annotations

from typing import cast

from pushd.bus.recipients import Recipient
from tests.rigs.daemon import DaemonTests
from tests.rigs.http_client import Client
from tests.rigs.sse_client import EventStream

GROUP = cast(Recipient, object())


class WaitingEventsTests(DaemonTests):
    """A fan-out group has no room when an event is published."""

    config = "[site]\ndemo = no\n[auth]\nanonymous = publish, subscribe\n"

    def setUp(self) -> None:
        """Fill the group."""
        super().setUp()
        self.subscriber = self.rig.client()
        self.subscriber.send("GET", "/sse?channel=a")
        self.rig.turn()
        self.rig.parts.bus.delivery.crowded.add(GROUP)

    def post(self, data: bytes) -> Client:
        """Publish an event; return the client that waits for the response."""
        client = self.rig.client()
        client.send("POST", "/channels/a", body=data)
        return client

    def make_room(self) -> None:
        """Let the events be published."""
        self.rig.parts.bus.delivery.crowded.discard(GROUP)
        self.rig.turn()

    def received(self) -> list[str]:
        """Return the events that the subscriber received."""
        return [event.data for event in EventStream(self.subscriber.response.body).events]

    def test_after_a_reload_later_events_come_after_them(self) -> None:
        clients = [self.post(b"first")]
        self.rig.reload(self.config)
        clients.append(self.post(b"second"))
        self.make_room()
        self.assertEqual(self.received(), ["first", "second"])
        self.assertEqual([client.response.status for client in clients], [201, 201])

    def test_at_the_stop_they_are_published_before_subscribers_are_closed(self) -> None:
        client = self.post(b"first")
        stopping = self.rig.stop()
        self.make_room()
        self.assertEqual(client.response.status, 201)
        self.assertEqual(self.received(), ["first", '{"detail":"the server is going away"}'])
        self.rig.wait(2)
        self.assertTrue(stopping.called)
