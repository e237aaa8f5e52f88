"""Which channels have had the most events lately."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from pushd.api.status.activity import WINDOW, ChannelActivity
from pushd.bus.channel import Channel
from pushd.bus.subscription import Subscription
from tests.rigs.builders import BusRig, Kept


class ActivityTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.start(BusRig())

    def start(self, rig: BusRig) -> None:
        """Begin anew, without having looked."""
        self.rig = rig
        self.activity = ChannelActivity(rig.bus)

    def publish(self, *channels: str, times: int = 1) -> None:
        """Publish events to all of the channels at once."""
        for _ in range(times):
            self.rig.publish(*channels)

    def look(self, seconds: float = 1) -> None:
        """Let time pass, and look."""
        self.rig.clock.advance(seconds)
        self.activity.look()

    def rates(self, limit: int = 50) -> dict[str, float]:
        """The rates of the channels, in their order."""
        return {busy.channel: busy.rate for busy in self.activity.busiest(limit)}

    def test_the_busiest_come_first_then_those_that_had_an_event_last_then_any(self) -> None:
        for name in ("old", "older than nothing", "recent"):
            self.publish(name)
        self.rig.subscribe("quiet")
        self.look()
        self.publish("less", times=2)
        self.publish("more", times=3)
        self.publish("as much", times=2)
        self.look()
        rates = self.rates()
        self.assertEqual(list(rates), ["more", "as much", "less", "recent", "older than nothing", "old", "quiet"])
        self.assertEqual(list(rates.values()), [3, 2, 2, 0, 0, 0, 0])
        self.assertEqual(list(self.rates(2)), ["more", "as much"])

    def test_what_was_before_the_first_look_is_not_counted(self) -> None:
        self.publish("news", times=7)
        self.assertEqual(self.rates(), {"news": 0})
        self.look()
        self.assertEqual(self.rates(), {"news": 0})
        self.publish("news", times=2)
        self.look()
        self.assertEqual(self.rates(), {"news": 2})

    def test_a_rate_is_that_of_the_window_by_the_clock(self) -> None:
        self.look()
        self.publish("news", times=8)
        self.look(2)
        self.assertEqual(self.rates(), {"news": 4})
        self.look(2)
        self.assertEqual(self.rates(), {"news": 2})

    def test_what_is_older_than_the_window_counts_no_more(self) -> None:
        self.look()
        self.publish("burst", times=10)
        self.look()
        for _ in range(WINDOW - 1):
            self.publish("steady")
            self.look()
        self.assertEqual(self.rates(), {"burst": 10 / WINDOW, "steady": (WINDOW - 1) / WINDOW})
        self.publish("steady")
        self.look()
        self.assertEqual(self.rates(), {"steady": 1, "burst": 0})

    def test_an_event_of_several_channels_counts_in_each(self) -> None:
        self.look()
        self.publish("a", "b")
        self.look()
        self.assertEqual(self.rates(), {"a": 1, "b": 1})

    def test_everything_of_a_channel_is_said(self) -> None:
        self.start(BusRig(kept={"news": Kept(2)}))
        self.rig.subscribe("news")
        self.rig.subscribe("*")
        self.rig.subscribe("other")
        self.publish("news", times=3)
        (busy, _) = self.activity.busiest(50)
        history = self.rig.log.existing("news").history
        self.assertEqual((busy.channel, busy.subscribers, busy.retained), ("news", 2, 2))
        self.assertEqual(busy.size_bytes, history.size_bytes + history.base_bytes)
        self.assertGreater(busy.size_bytes, 0)

    def test_a_channel_that_is_made_again_does_not_have_the_events_of_others(self) -> None:
        self.start(BusRig(default=Kept(0), max_channels=2))
        self.publish("few", times=3)
        self.publish("many", times=1000)
        self.look()
        for name in ("third", "fourth", "few"):  # each takes the place of one that keeps nothing
            self.publish(name)
        self.assertGreater(self.rig.log.existing("few").offset, 1000)
        self.look()
        self.assertLessEqual(max(self.rates().values()), 3)

    def test_what_was_given_up_is_not_shown_nor_kept_in_mind(self) -> None:
        self.start(BusRig(default=Kept(0), max_channels=2))
        self.look()
        for number in range(1000):
            self.publish(f"passing/{number}")
            if number % 100 == 0:
                self.look()
        self.look()
        self.assertEqual(set(self.rates()), {"passing/998", "passing/999"})
        self.assertLess(len(self.activity._offsets), 200)

    def test_after_it_has_forgotten_it_begins_anew(self) -> None:
        self.look()
        self.publish("news", times=5)
        self.look()
        self.activity.forget()
        self.assertEqual(self.rates(), {"news": 0})
        self.publish("news", times=5)
        self.look()
        self.assertEqual(self.rates(), {"news": 0})

    def test_a_look_does_nothing_for_channels_without_new_events(self) -> None:
        for number in range(100):
            self.publish(f"quiet/{number}")
        self.look()
        self.publish("news")
        seen: list[str] = []
        recent = self.rig.log.recent

        def counted(sequence: int = -1) -> Iterator[Channel[Subscription]]:
            for channel in recent(sequence):
                seen.append(channel.name)
                yield channel

        self.patch(self.rig.log, "recent", counted)
        self.look()
        self.assertEqual(seen, ["news"])
