"""The demo: a clock that ticks only for those who listen, and the page."""

from __future__ import annotations

from datetime import datetime

from twisted.trial.unittest import SynchronousTestCase

from pushd.api.demo.page import CLOCK, PAGES, Clock
from pushd.bus.publisher import DirectPublisher
from pushd.bus.subscription import Subscription
from tests.rigs.builders import EPOCH, STARTED, BusRig, Client, Kept


class ClockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rig = BusRig(kept={CLOCK: Kept(5)})
        self.clock = Clock(self.rig.bus, DirectPublisher(self.rig.bus), lambda: STARTED + self.rig.clock.seconds())

    def subscribe(self, text: str) -> tuple[Client, Subscription]:
        """Subscribe a client to the latest of `text`."""
        client, subscription, _ = self.rig.subscribe(text)
        return client, subscription

    def assertNothingPublished(self) -> None:
        self.assertEqual(self.rig.log.position, f"{EPOCH}-0")
        self.assertNotIn(CLOCK, list(self.rig.log.names()))

    def test_while_nobody_is_subscribed_nothing_is_published(self) -> None:
        self.clock.tick()
        self.assertNothingPublished()

    def test_it_ticks_for_who_is_subscribed_by_name_or_by_a_pattern(self) -> None:
        for text in ("clock", "*", "**", "**/clock", "clock/**"):
            self.setUp()
            client, _ = self.subscribe(text)
            self.clock.tick()
            self.assertEqual(len(client.entries), 1, text)

    def test_it_does_not_tick_for_who_is_subscribed_to_something_else(self) -> None:
        for text in ("clocks", "clock/*", "*/clock", "Clock"):
            self.subscribe(text)
        self.clock.tick()
        self.assertEqual(self.rig.log.position, f"{EPOCH}-0")

    def test_it_stops_when_the_last_subscriber_goes(self) -> None:
        for text in ("clock", "*"):
            client, subscription = self.subscribe(text)
            other, other_subscription = self.subscribe("clock")
            self.clock.tick()
            subscription.close()
            self.clock.tick()
            other_subscription.close()
            self.clock.tick()
            self.assertEqual((len(client.entries), len(other.entries)), (1, 2))

    def test_it_says_the_time_in_iso_8601_as_text_with_its_zone(self) -> None:
        client, _ = self.subscribe("clock")
        self.clock.tick()
        self.rig.clock.advance(61.75)
        self.clock.tick()
        self.assertEqual(client.datas, [b"2023-11-14T22:13:20+00:00", b"2023-11-14T22:14:21+00:00"])
        event = client.entries[0].event
        self.assertEqual((event.is_text, event.type), (True, None))
        self.assertEqual(datetime.fromisoformat(event.data.decode()).timestamp(), STARTED)


class PageTests(SynchronousTestCase):
    def test_the_page_is_there(self) -> None:
        self.assertTrue((PAGES / "index.html").is_file(), PAGES)
