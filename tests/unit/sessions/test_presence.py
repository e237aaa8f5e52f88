"""Who comes and goes is told, and published where channels want it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.bus import Published
from pushd.bus.clientinfo import DAEMON, ClientInfo, Transport
from pushd.bus.event import Draft
from pushd.bus.grants import EVERYTHING, Grants, Identity
from pushd.bus.publisher import Deleted, DirectPublisher, Outcome
from pushd.bus.subscription import Subscription
from pushd.errors import Forbidden, NoRoom
from pushd.server.net.addresses import ClientAddress
from pushd.sessions.presence import Presence
from tests.rigs.builders import BusRig, Client, Kept, patterns
from tests.rigs.effort import examples
from tests.rigs.outsiders import Notes

PLACE = ClientAddress("192.0.2.1", 4711)


def numbered(number: int, transport: str = "websocket") -> ClientInfo:
    """Make a subscriber."""
    caller = ClientInfo(Identity(EVERYTHING, f"user-{number}"), PLACE)
    caller.number, caller.prefix = number, "test"
    caller.transport = Transport(transport, is_polling=transport == "poll")
    return caller


_PUBLISHED = Published("x-1", "room", 1, 1)


class Later:
    """A publisher that keeps what it is to publish until the test says what comes of it."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[Draft], Callable[[list[Outcome]], None]]] = []

    def publish(self, draft: Draft, caller: ClientInfo, done: Callable[[Outcome], None]) -> None:
        """Fail: nobody publishes one."""
        raise AssertionError(draft)

    def publish_all(
        self, drafts: Sequence[Draft], caller: ClientInfo, done: Callable[[list[Outcome]], None]
    ) -> None:
        """See `Publisher`."""
        assert caller is DAEMON
        self.batches.append((list(drafts), done))

    def delete(self, name: str, caller: ClientInfo, done: Callable[[Deleted], None]) -> None:
        """Fail: nothing is deleted."""
        raise AssertionError(name)

    def finish(self, outcome: Outcome = _PUBLISHED) -> list[str]:
        """Have the batch at hand come to something; return what was in it."""
        ((drafts, done),) = self.batches
        self.batches.clear()
        done([outcome] * len(drafts))
        return [said(draft.type, draft.data) for draft in drafts]


def said(kind: str | None, data: bytes) -> str:
    """Return what an event says in short, as ``join 3``."""
    assert kind is not None
    return f"{kind.removeprefix('pushd.')} {json.loads(data)['connection'].removeprefix('test-')}"


ROOM, HALL = patterns("room", "hall")


class PublishTests(SynchronousTestCase):
    """When joins and leaves are published."""

    def setUp(self) -> None:
        self.clock, self.publisher = Clock(), Later()
        self.presence = Presence(self.publisher, self.clock.callLater, lambda name: "events")

    def turn(self) -> None:
        """Let one turn of the reactor end."""
        self.clock.advance(0)

    def test_they_are_published_at_the_end_of_the_turn_in_order(self) -> None:
        self.presence.entered(numbered(1), ROOM, 1)
        self.presence.entered(numbered(2), ROOM, 2)
        self.presence.left(numbered(3), HALL, 0)
        self.assertEqual(self.publisher.batches, [])
        self.turn()
        self.assertEqual(self.publisher.finish(), ["join 1", "join 2", "leave 3"])
        self.turn()
        self.assertEqual((self.publisher.batches, self.clock.getDelayedCalls()), ([], []))

    def test_what_comes_meanwhile_waits_until_they_are_published(self) -> None:
        self.presence.entered(numbered(1), ROOM, 1)
        self.turn()
        self.presence.entered(numbered(2), ROOM, 2)
        self.turn()
        self.assertEqual(self.publisher.finish(), ["join 1"])
        self.turn()
        self.assertEqual(self.publisher.finish(), ["join 2"])

    def test_a_join_and_a_leave_before_that_are_not_spoken_of(self) -> None:
        one, other = numbered(1), numbered(2)
        self.presence.entered(one, ROOM, 1)
        self.presence.entered(other, ROOM, 2)
        self.presence.entered(one, HALL, 1)
        self.presence.left(one, ROOM, 1)
        self.turn()
        self.assertEqual(self.publisher.finish(), ["join 2", "join 1"])
        self.presence.left(one, HALL, 0)
        self.presence.entered(one, HALL, 1)
        self.turn()
        self.assertEqual(self.publisher.batches, [])
        self.presence.left(one, HALL, 0)
        self.turn()
        self.assertEqual(self.publisher.finish(), ["leave 1"])

    def test_who_comes_and_goes_a_thousand_times_in_a_turn_takes_no_room(self) -> None:
        one = numbered(1)
        for _ in range(1000):
            self.presence.entered(one, ROOM, 1)
            self.presence.left(one, ROOM, 0)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.turn()
        self.assertEqual((self.publisher.batches, self.clock.getDelayedCalls()), ([], []))

    def test_a_storm_is_published_over_many_turns(self) -> None:
        callers = [numbered(number) for number in range(1, 5001)]
        for caller in callers:
            self.presence.entered(caller, ROOM, 1)
        seen, turns = list[str](), 0
        while self.clock.getDelayedCalls():
            self.turn()
            turns += 1
            batch = self.publisher.finish()
            self.assertLessEqual(len(batch), 200)
            seen += batch
        self.assertEqual(seen, [f"join {number}" for number in range(1, 5001)])
        self.assertEqual(turns, 25)

    def test_patterns_other_channels_and_who_polls_are_not_spoken_of(self) -> None:
        presences = {"room": "subscribers", "hall": "operator"}
        presence = Presence(self.publisher, self.clock.callLater, lambda name: presences.get(name, "events"))
        presence.entered(numbered(1), ROOM, 1)
        presence.entered(numbered(1), HALL, 1)
        presence.entered(numbered(1), patterns("**")[0], 0)
        presence.entered(numbered(1, "poll"), patterns("other")[0], 1)
        self.turn()
        self.assertEqual(self.publisher.batches, [])

    def test_nothing_is_published_once_it_stops(self) -> None:
        self.presence.entered(numbered(1), ROOM, 1)
        self.presence.stop()
        self.presence.left(numbered(2), ROOM, 0)
        self.turn()
        self.assertEqual((self.publisher.batches, self.clock.getDelayedCalls()), ([], []))

    def test_what_is_refused_is_logged_once_until_it_works_again(self) -> None:
        full = NoRoom("the disk of the store is full")
        outcomes: list[Outcome] = [full, full, Published("x-1", "room", 1, 1), full]
        with capturedLogs() as logs:
            for number, outcome in enumerate(outcomes, start=1):
                self.presence.entered(numbered(number), ROOM, 1)
                self.turn()
                self.publisher.finish(outcome)
        refused = "joins and leaves are not published: the disk of the store is full"
        again = "joins and leaves are published again"
        self.assertEqual([formatEvent(event) for event in logs], [refused, again, refused])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("subscribe"), st.integers(1, 6), st.sampled_from(["room", "hall", "room/*"])),
        st.tuples(st.just("unsubscribe"), st.integers(1, 6), st.sampled_from(["room", "hall", "room/*"])),
        st.tuples(st.just("close"), st.integers(1, 6), st.just("")),
        st.tuples(st.just("delete"), st.just(0), st.sampled_from(["room", "hall"])),
        st.tuples(st.just("turn"), st.just(0), st.just("")),
    ),
    max_size=40,
)


class Model:
    """A bus, those who are subscribed to it, and what is said of them."""

    def __init__(self) -> None:
        self.rig = BusRig(default=Kept(presence="events"), max_channels=1000)
        self.notes = Notes()
        publisher = DirectPublisher(self.rig.bus)
        self.rig.bus.watch = Presence(
            publisher, self.rig.clock.callLater, lambda name: self.rig.log.settings(name).presence, self.notes
        )
        self.subscriptions: dict[int, Subscription] = {}
        self._count = 0

    def do(self, what: str, who: int, channel: str) -> None:
        """Make one step."""
        if what == "turn":
            self.rig.clock.advance(0)
        elif what == "subscribe":
            self._of(who).add(patterns(channel), "latest")
        elif what == "unsubscribe":
            self._of(who).remove(channel)
        elif what == "close" and who in self.subscriptions:
            self.subscriptions.pop(who).close()
        elif what == "delete" and self.rig.log.get(channel) is not None:
            self.rig.bus.delete(channel, EVERYTHING)
            gone = [key for key, one in self.subscriptions.items() if not len(one)]
            for key in gone:
                self.subscriptions.pop(key).close()

    def _of(self, who: int) -> Subscription:
        if who not in self.subscriptions:
            self._count += 1
            self.subscriptions[who] = Subscription(self.rig.bus, Client(), numbered(self._count))
        return self.subscriptions[who]


class ModelTests(SynchronousTestCase):
    @examples(300)
    @given(STEPS)
    def test_what_is_said_is_what_is_so(self, steps: list[tuple[str, int, str]]) -> None:
        model = Model()
        for step in steps:
            model.do(*step)
        self.assert_told(model)
        for who in list(model.subscriptions):
            model.do("close", who, "")
        self.assert_told(model)
        while model.rig.clock.getDelayedCalls():
            model.rig.clock.advance(0)
        for channel in ("room", "hall"):
            self.assertEqual(model.notes.events(channel)[-1:], ["vacated"] if model.notes.events(channel) else [])
            self.assert_events(model, channel)

    def assert_told(self, model: Model) -> None:
        """Each channel is occupied and vacated in turns, each subscription begins before it ends, both once."""
        open_now: set[tuple[int, str]] = set()
        occupied: set[str] = set()
        for what, *more in model.notes.said:
            if what == "subscribe":
                self.assertNotIn(tuple(more), open_now)
                open_now.add((more[0], more[1]))
            elif what == "unsubscribe":
                open_now.remove((more[0], more[1]))
            elif what == "occupied":
                self.assertNotIn(more[0], occupied)
                self.assertEqual(sum(channel == more[0] for _, channel in open_now), 1)
                occupied.add(more[0])
            else:
                self.assertEqual(what, "vacated")
                self.assertEqual([channel for _, channel in open_now if channel == more[0]], [])
                occupied.remove(more[0])
        present = {(one.caller.number, text) for one in model.subscriptions.values() for text in one.texts}
        self.assertEqual(open_now, present)
        self.assertEqual(occupied, {text for _, text in present if text != "room/*"})

    def assert_events(self, model: Model, channel: str) -> None:
        """All join and leave in turns, and have left in the end; a deleted channel may begin with a leave."""
        was_deleted = False
        inside: dict[str, str] = {}
        for entry in model.rig.read(channel).entries:
            what, who = said(entry.event.type, entry.event.data).split()
            self.assertNotEqual(inside.get(who), what, "twice")
            was_deleted |= who not in inside and what == "leave"
            inside[who] = what
        self.assertEqual(set(inside.values()) - {"leave"}, set())
        if was_deleted:
            self.assertIn("vacated", model.notes.events(channel))

    def test_who_may_not_subscribe_is_not_spoken_of(self) -> None:
        model = Model()
        caller = ClientInfo(Identity(Grants.of([], subscribe=patterns("hall"))), PLACE)
        subscription = Subscription(model.rig.bus, Client(), caller)
        self.assertRaises(Forbidden, subscription.add, patterns("hall", "room"), "latest")
        self.assertRaises(Forbidden, subscription.check, patterns("hall", "room"), "latest")
        self.assertEqual(model.notes.said, [])
