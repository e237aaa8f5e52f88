"""Publishing to memory: events wait while recipients are too slow, in order and fairly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.bus import Bus, Published
from pushd.bus.clientinfo import ClientInfo
from pushd.bus.closing import CloseCause
from pushd.bus.event import Entry
from pushd.bus.memory_headroom import memory
from pushd.bus.publisher import DirectPublisher, Outcome
from pushd.bus.recipients import Recipient
from pushd.bus.slices import MOST
from pushd.bus.subscription import Subscription
from pushd.errors import OutOfMemory
from tests.rigs.builders import BusRig, Client, a_caller, draft, patterns

NOISY, HONEST = a_caller(address="198.51.100.1"), a_caller(address="203.0.113.1")
GROUP = cast(Recipient, object())


class PublisherTestCase(SynchronousTestCase):
    """A bus whose reading of the clock takes time, and which may be full."""

    def setUp(self) -> None:
        """Create the bus."""
        self.now_s = self.look_s = 0.0
        self.calls: list[Callable[[], None]] = []
        self.rig = BusRig(seconds=self.seconds)
        self.bus = Bus(
            self.rig.log,
            max_subscribed=100,
            max_held_bytes=1 << 20,
            failed=lambda subscriber, error: None,
            call_later=lambda delay_s, call: self.calls.append(call),
        )
        self.publisher = DirectPublisher(self.bus)
        self.done: list[str] = []

    def seconds(self) -> float:
        """Return the time, of which each look takes some."""
        self.now_s += self.look_s
        return self.now_s

    def fill(self, *, full: bool = True) -> None:
        """Let publishers wait, or go on."""
        (self.bus.delivery.crowded.add if full else self.bus.delivery.crowded.discard)(GROUP)

    def turn(self) -> None:
        """Let the reactor turn once."""
        calls, self.calls = self.calls, []
        for call in calls:
            call()

    def settle(self) -> None:
        """Let turns go by until nothing is left to be done."""
        while self.calls:
            self.turn()

    def publish(self, text: str, caller: ClientInfo = HONEST) -> None:
        """Publish one event."""
        self.publisher.publish(draft("a", data=text.encode()), caller, lambda outcome: self.done.append(text))

    def publish_all(self, text: str, count: int, caller: ClientInfo = HONEST) -> None:
        """Publish `count` events together."""
        drafts = [draft("a", data=f"{text}{number}".encode()) for number in range(count)]
        self.publisher.publish_all(drafts, caller, lambda outcomes: self.done.append(f"{text}*{len(outcomes)}"))

    def published(self) -> list[str]:
        """Return the events of the channel, in order."""
        return [data.decode() for data in self.rig.retained("a")]


class OrderTests(PublisherTestCase):
    """One client."""

    def test_an_event_comes_after_all_events_published_together_before_it(self) -> None:
        self.look_s = 0.001
        self.publish_all("many", 50)
        self.assertEqual(self.done, [])
        self.publish("one")
        self.settle()
        self.assertEqual(self.published(), [f"many{number}" for number in range(50)] + ["one"])
        self.assertEqual(self.done, ["many*50", "one"])

    def test_a_deletion_comes_after_all_events_published_together_before_it(self) -> None:
        self.look_s = 0.001
        self.publish_all("many", 50)
        self.publisher.delete("a", HONEST, lambda deleted: self.done.append("deleted"))
        self.settle()
        self.assertEqual(self.published(), [])
        self.assertEqual(self.done, ["many*50", "deleted"])

    def test_events_that_were_published_together_wait_for_room(self) -> None:
        self.look_s = 0.001
        self.publish_all("many", 50)
        self.fill()
        before = self.published()
        self.turn()
        self.assertEqual(self.published(), before)
        self.fill(full=False)
        self.settle()
        self.assertEqual(len(self.published()), 50)


class FairnessTests(PublisherTestCase):
    """Several owners."""

    def test_an_event_does_not_wait_for_thousands_of_another_owner(self) -> None:
        for count in (1, 1000):
            self.done.clear()
            self.fill()
            for _ in range(1000 // count):
                self.publish_all("noise", count, NOISY)
            self.publish("honest")
            self.fill(full=False)
            self.settle()
            self.assertLessEqual(self.done.index("honest"), 1)
            self.assertEqual(len(self.done), 1000 // count + 1)

    def test_a_deletion_waits_for_the_events_of_its_owner_only(self) -> None:
        self.bus.publish(draft("a"), HONEST.grants)
        self.fill()
        self.publish_all("noise", 100, NOISY)
        self.publish("honest")
        self.publisher.delete("a", HONEST, lambda deleted: self.done.append("deleted"))
        self.fill(full=False)
        self.settle()
        self.assertEqual(self.done, ["honest", "deleted", "noise*100"])


class WhenPublishedTests(PublisherTestCase):
    """Waiting for everything that was published so far."""

    def when_published(self) -> None:
        """Record the time when all events so far are published."""
        self.publisher.when_published(lambda: self.done.append("all"))

    def test_it_is_at_once_if_nothing_waits(self) -> None:
        self.publish("one")
        self.when_published()
        self.assertEqual(self.done, ["one", "all"])

    def test_it_is_after_all_events_before_and_before_all_events_later(self) -> None:
        self.fill()
        self.publish_all("noise", 10, NOISY)
        self.publish("honest")
        self.when_published()
        self.publish("later")
        self.fill(full=False)
        self.settle()
        self.assertEqual(self.done, ["honest", "noise*10", "all", "later"])


class SliceTests(PublisherTestCase):
    """An event with so many recipients that it is delivered in slices."""

    def setUp(self) -> None:
        super().setUp()
        self.first = self.subscribe("big", "small")
        self.others = [self.subscribe("big") for _ in range(MOST + 50)]

    def subscribe(self, *texts: str) -> Client:
        client = Client()
        Subscription(self.bus, client, a_caller()).add(patterns(*texts), "latest")
        return client

    def test_an_event_for_a_few_comes_after_what_is_pending_for_them(self) -> None:
        self.bus.publish(draft("big", data=b"1"), HONEST.grants)
        self.assertEqual(self.others[-1].datas + self.first.datas, [])
        self.bus.publish(draft("small", data=b"2"), HONEST.grants)
        self.assertEqual(self.first.datas, [b"1", b"2"])
        self.settle()
        self.assertEqual(self.first.datas, [b"1", b"2"])
        self.assertEqual([other.datas for other in self.others], [[b"1"]] * len(self.others))

    def test_one_that_fails_with_a_pending_event_is_closed_and_gets_no_more(self) -> None:
        def fail(entry: Entry) -> None:
            raise ZeroDivisionError

        self.first.acts = fail
        self.bus.publish(draft("big", data=b"1"), HONEST.grants)
        self.bus.publish(draft("small", data=b"2"), HONEST.grants)
        self.settle()
        self.assertEqual((self.first.datas, self.first.causes), ([b"1"], [CloseCause.FAILED]))
        self.assertEqual([other.datas for other in self.others], [[b"1"]] * len(self.others))


class FaultTests(PublisherTestCase):
    def test_a_fault_does_not_stop_the_events_behind_it(self) -> None:
        def fail(outcome: object) -> None:
            raise ZeroDivisionError

        self.fill()
        self.publisher.publish(draft("a"), HONEST, fail)
        self.publish("next")
        self.fill(full=False)
        self.assertRaises(ZeroDivisionError, self.turn)
        self.settle()
        self.assertEqual(self.done, ["next"])

    def test_an_event_that_fails_for_lack_of_memory_is_answered_although_it_waited(self) -> None:
        outcomes: list[Outcome] = []
        self.fill()
        self.publisher.publish_all([draft("a", data=b"1"), draft("a", data=b"2")], HONEST, outcomes.extend)
        self.publisher.publish(draft("a", data=b"3"), HONEST, outcomes.append)
        self.fill(full=False)
        publish, left = self.bus.publish, [MemoryError]

        def publish_or_fail(*arguments: Any) -> Published:
            if left:
                raise left.pop()
            return publish(*arguments)

        self.patch(self.bus, "publish", publish_or_fail)
        self.settle()
        self.assertEqual([type(one) for one in outcomes], [OutOfMemory, Published, Published])
        self.assertTrue(memory.is_short)
