"""Slices: what is done for thousands of clients takes several turns, and nobody can tell from what it gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.bus import Bus, Published
from pushd.bus.closing import CloseCause, CloseReason
from pushd.bus.eventlog import EventLog
from pushd.bus.grants import EVERYTHING, NOTHING, Grants, Identity
from pushd.bus.publisher import DirectPublisher, Outcome
from pushd.bus.replay import Replay
from pushd.bus.slices import MOST, Burst, Slice, Slices
from pushd.bus.subscription import Subscription
from pushd.bus.turn import Turn
from pushd.errors import Refused
from pushd.server.net.timers import TimerWheel
from pushd.sessions.registry import SessionRegistry
from pushd.sessions.session import Session
from tests.rigs.builders import a_caller, draft, patterns
from tests.rigs.effort import model
from tests.unit.sessions.test_session import Connection, House, Peer, framed

CLOSED = CloseReason(CloseCause.REFUSED, "closed by an operator")


class SliceTests(SynchronousTestCase):
    def test_it_ends_after_so_many_sends(self) -> None:
        part = Slice(Turn(lambda: 0.0))
        self.assertEqual(sum(1 for _ in iter(part.spend, False)) + 1, MOST)

    def test_it_ends_when_its_time_is_over(self) -> None:
        now = iter([0.0, 0.001, 0.0021]).__next__
        part = Slice(Turn(now))
        self.assertEqual(sum(1 for _ in iter(part.spend, False)) + 1, 50)

    def test_jobs_are_done_in_order_and_a_fault_does_not_stop_them(self) -> None:
        clock, done = Clock(), []

        def call(number: int) -> Callable[[], int]:
            def do() -> int:
                done.append(number)
                if number == 30:
                    raise ZeroDivisionError
                return 10

            return do

        slices = Slices(clock.callLater, Turn(clock.seconds))
        slices.do([call(number) for number in range(60)])
        self.assertEqual(done, list(range(25)))
        slices.do([call(number) for number in range(60, 70)])
        self.assertEqual(done, list(range(25)))
        self.assertRaises(ZeroDivisionError, clock.advance, 0)
        for _ in range(3):
            clock.advance(0)
        self.assertEqual(done, list(range(70)))
        self.assertEqual(clock.getDelayedCalls(), [])


class BurstTests(SynchronousTestCase):
    def test_a_few_are_done_at_once_and_as_many_again_after_a_while(self) -> None:
        clock = Clock()
        clock.advance(1)
        burst = Burst(clock.seconds)
        for _ in range(2):
            self.assertEqual([burst.take() for _ in range(10)], [True] * 8 + [False] * 2)
            clock.advance(0.019)
            self.assertFalse(burst.take())
            clock.advance(0.002)


class Hall(House):
    """A house for thousands, whose bus makes slices."""

    def __init__(self, *, max_outbox_bytes: int = 1000) -> None:
        super().__init__(max_outbox_bytes=max_outbox_bytes)
        bus = self.rig.bus = Bus(
            self.rig.log,
            max_subscribed=100,
            max_held_bytes=1 << 20,
            failed=lambda subscriber, error: self.rig.failed.append((subscriber, error)),
            call_later=self.clock.callLater,
        )
        self.send_s = 50e-6
        """How long it takes to send to one client."""
        self.byte_s = 0.0
        """How much longer for each byte."""
        self.sent_bytes = 0
        """How much was sent to all of them."""
        self._sending_s = 0.0
        self.wheel = TimerWheel(self.seconds, self.clock.callLater)
        self.sessions = SessionRegistry(
            bus,
            self.wheel,
            self.clock.callLater,
            max_outbox_bytes=max_outbox_bytes,
            now=self.clock.seconds,
            prefix="test",
        )

    def seconds(self) -> float:
        """Return the time, which goes by only while something is sent, or when a test wants it to."""
        return self.clock.seconds() + self._sending_s

    def join(self, *, grants: Grants = EVERYTHING) -> Peer:
        """Override: what is sent to each takes some time."""
        peer = super().join(grants=grants)
        peer.connection.acts = self._sent
        return peer

    def _sent(self, data: bytes) -> None:
        self._sending_s += self.send_s + len(data) * self.byte_s
        self.sent_bytes += len(data)

    def turn(self) -> None:
        """Override: what a call has called later waits for the next turn, as in a reactor."""
        for call in [call for call in self.clock.calls if call.getTime() <= self.clock.seconds()]:
            self.clock.calls.remove(call)
            call.called = True
            call.func(*call.args, **call.kw)

    def settle(self) -> None:
        """Let turns go by until nothing is left to be done."""
        while self.clock.calls:
            self.turn()


class HallCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.hall = Hall()

    def many(self, count: int, *texts: str) -> list[tuple[Session, Connection]]:
        """Let in so many, each of which has caught up."""
        peers = []
        for _ in range(count):
            peer = self.hall.join()
            peer.session.subscribe(patterns(*(texts or ("a",))), "latest")
            peers.append((peer.session, peer.connection))
        self.hall.settle()
        return peers

    def most_in_one_turn(self, measure: Callable[[], int]) -> int:
        """Return by how much `measure` grows at most in one turn, until nothing is left to be done."""
        most, before = 0, measure()
        while self.hall.clock.calls:
            self.hall.turn()
            most, before = max(most, measure() - before), measure()
        return most


class BoundTests(HallCase):
    """No turn has more than a slice of anything that happens to thousands at once."""

    def test_events_for_a_crowd(self) -> None:
        peers = self.many(1000)
        self.hall.publish(b"1")
        self.assertLessEqual(self.most_in_one_turn(lambda: sum(len(c.written) for _, c in peers)), MOST)
        self.assertEqual({c.bytes for _, c in peers}, {b"<1>"})

    def many_channels(self, count: int) -> EventLog[Subscription]:
        """Publish an event to each of so many channels."""
        log = self.hall.rig.log
        log._max_channels = count
        for number in range(count):
            self.hall.publish(b"1", channel=f"c/{number}")
        return log

    def test_replays_of_many_channels_whose_readers_go(self) -> None:
        self.many_channels(10_000)
        session = self.hall.join().session
        session.subscribe(patterns("**"), "earliest")
        replay = session.subscription._replay
        assert replay is not None
        self.assertGreater(replay.width, 9_000)
        self.assertTrue(session.subscription.close())
        self.assertGreater(replay.width, 7_000)
        self.assertLessEqual(self.most_in_one_turn(lambda: -replay.width), 10 * MOST)
        self.assertLess(replay.width, 100)
        self.assertLess(len(replay._heap) + len(replay._cursors), 200)

    def test_replays_that_are_being_prepared_for_clients_that_go(self) -> None:
        log = self.many_channels(2_000)
        found: list[Replay] = []
        self.patch(log, "discard", found.append)
        work = log.preparing(patterns("**"), "earliest", None)
        for _ in range(1_500):
            next(work)
        work.close()
        self.assertEqual([replay.width > 1_000 for replay in found], [True])

    def test_a_crowd_that_is_sent_to_quickly_has_its_events_in_one_turn(self) -> None:
        peers = self.many(1000)
        self.hall.send_s = 5e-6
        self.hall.publish(b"1")
        most = self.most_in_one_turn(lambda: sum(len(c.written) for _, c in peers))
        self.assertLessEqual(most, 225)  # it is not known yet that this is quick
        self.hall.publish(b"2")
        self.hall.turn()
        self.assertEqual({c.bytes for _, c in peers}, {b"<1><2>"})

    def test_a_crowd_that_takes_a_little_longer_has_them_in_two_turns(self) -> None:
        peers = self.many(1000)
        self.hall.send_s = 15e-6
        for _ in range(2):
            self.hall.publish(b"1")
            self.hall.turn()
            first = sum(len(c.written) for _, c in peers)
            self.hall.settle()
        self.assertEqual(first, 1000 + 500)
        self.assertEqual({c.bytes for _, c in peers}, {b"<1><1>"})

    def test_a_crowd_of_many_thousands_is_sent_to_in_short_slices(self) -> None:
        peers = self.many(4000)
        self.hall.send_s = 10e-6
        for number in range(2):
            self.hall.publish(b"1")
            most = self.most_in_one_turn(lambda: sum(len(c.written) for _, c in peers))
            self.assertLessEqual(most, 225)
            self.assertEqual({len(c.written) for _, c in peers}, {number + 1})

    def test_a_crowd_that_has_become_slow_is_left_in_time(self) -> None:
        peers = self.many(1000)
        self.hall.send_s = 5e-6
        self.hall.publish(b"1")
        self.hall.settle()
        self.hall.send_s = 200e-6
        for most in 100, 25:  # 20 ms, and 5 ms: the clock is read after so many
            self.hall.publish(b"2")
            count = self.most_in_one_turn(lambda: sum(len(c.written) for _, c in peers))
            self.assertEqual(count, most)
        self.assertEqual({c.bytes for _, c in peers}, {b"<1><2><2>"})

    def test_one_who_was_interrupted_is_not_taken_for_slow(self) -> None:
        peers = self.many(1000)
        self.hall.send_s = 5e-6
        peers[500][1].acts = lambda data: self.hall.clock.advance(0.1)
        self.hall.publish(b"1")
        self.hall.settle()
        peers[500][1].acts = lambda data: None
        self.hall.publish(b"2")
        self.hall.turn()
        self.assertEqual({c.bytes for _, c in peers}, {b"<1><2>"})

    def test_a_large_event_goes_to_few_in_one_turn(self) -> None:
        """As it counts as many sends, whatever the size of those that were measured before."""
        self.hall = Hall(max_outbox_bytes=1 << 20)
        peers = self.many(200)
        self.hall.send_s, self.hall.byte_s = 5e-6, 0.2e-9
        for data in (b"1" * 900_000, b"2", b"3", b"4" * 900_000):
            before = self.hall.sent_bytes
            self.hall.publish(data)
            self.hall.publish(b".")
            self.assertLessEqual(self.hall.sent_bytes - before, 5 * 900_005)
            self.assertLessEqual(self.most_in_one_turn(lambda: self.hall.sent_bytes), 5 * 900_005)
        expected = b"<" + b"1" * 900_000 + b"><.><2><.><3><.><" + b"4" * 900_000 + b"><.>"
        self.assertTrue(all(c.bytes == expected for _, c in peers))

    def test_a_large_event_that_is_sent_quickly_goes_to_as_many_as_are_quick(self) -> None:
        self.hall = Hall(max_outbox_bytes=1 << 20)
        peers = self.many(60)
        self.hall.send_s, self.hall.byte_s = 5e-6, 0.1e-9
        self.hall.publish(b"1" * 900_000)  # 95 us each
        self.hall.settle()
        self.hall.publish(b"2" * 900_000)
        self.hall.turn()
        self.assertEqual({len(c.written) for _, c in peers}, {2})

    def test_a_large_event_for_those_who_follow_a_pattern(self) -> None:
        self.hall = Hall(max_outbox_bytes=1 << 20)
        peers = self.many(200, "a/*")
        self.hall.publish(b"1" * 900_000, channel="a/b")
        self.assertLessEqual(self.most_in_one_turn(lambda: sum(len(c.written) for _, c in peers)), 5)
        self.assertEqual({len(c.bytes) for _, c in peers}, {900_002})

    def test_a_large_event_for_many_small_crowds(self) -> None:
        self.hall = Hall(max_outbox_bytes=1 << 20)
        names = [f"c/{number}" for number in range(50)]
        peers = [peer for name in names for peer in self.many(4, name)]
        self.hall.rig.bus.publish(draft(*names, data=b"1" * 900_000), EVERYTHING)
        self.assertLessEqual(self.most_in_one_turn(lambda: sum(len(c.written) for _, c in peers)), 8)
        self.assertEqual({len(c.bytes) for _, c in peers}, {900_002})

    def test_those_who_fall_behind_at_the_same_event(self) -> None:
        peers = self.many(2000)
        self.hall.send_s = 5e-6
        self.hall.publish(b"1")
        self.hall.settle()
        for _, connection in peers:
            connection.takes = 1
        self.hall.publish(b"2")
        self.assertLessEqual(self.most_in_one_turn(lambda: sum(s._group is None for s, _ in peers)), 125)
        self.assertEqual({c.bytes for _, c in peers}, {b"<1><2>"})

    def test_events_for_those_who_follow_a_pattern(self) -> None:
        peers = self.many(1000, "a/*")
        self.hall.publish(b"1", channel="a/b")
        self.assertLessEqual(sum(s.outbox_bytes for s, _ in peers), MOST * 3)
        self.assertLessEqual(self.most_in_one_turn(lambda: sum(len(c.written) for _, c in peers)), MOST + 25)
        self.assertEqual({c.bytes for _, c in peers}, {b"<1>"})

    def test_a_channel_that_is_deleted(self) -> None:
        peers = self.many(1000)
        self.hall.rig.bus.delete("a", EVERYTHING)
        self.assert_ended_in_slices(peers, CloseCause.DELETED)

    def test_who_is_closed_by_an_operator(self) -> None:
        peers = self.many(1000)
        self.hall.sessions.end_each(list(self.hall.sessions), CLOSED)
        self.assert_ended_in_slices(peers, CloseCause.REFUSED)

    def test_who_has_lost_its_rights(self) -> None:
        peers = self.many(1000)

        self.hall.sessions.regrant(EVERYTHING, NOTHING)
        self.assert_ended_in_slices(peers, CloseCause.REFUSED)

    def test_whose_token_has_expired(self) -> None:
        peers = self.many(1000)
        for session, _ in peers:
            session.caller.identity = Identity(EVERYTHING, expires_at=5.0)
            self.hall.sessions.expire_later(session)
        self.hall.clock.advance(10)
        self.hall.wheel.turn()
        self.assert_ended_in_slices(peers, CloseCause.REFUSED)

    def assert_ended_in_slices(self, peers: list[tuple[Session, Connection]], cause: CloseCause) -> None:
        def ended() -> int:
            return sum(len(connection.reasons) for _, connection in peers)

        self.assertLessEqual(ended(), MOST // 5)
        most = 0
        for _ in range(1000):
            before = ended()
            self.hall.turn()
            most = max(most, ended() - before)
        self.assertLessEqual(most, MOST // 5)
        self.assertEqual({tuple(reason.cause for reason in c.reasons) for _, c in peers}, {(cause,)})

    def test_publishing_faster_than_can_be_handed_out_is_bounded(self) -> None:
        self.many(MOST + 1, "a/*")
        for number in range(100):
            self.hall.publish(b"%d" % number, channel="a/b")
            self.assertLessEqual(len(self.hall.rig.bus.delivery.pending), 8)

    def test_bytes_that_wait_for_a_crowd_are_bounded(self) -> None:
        peers = self.many(MOST + 1)
        for number in range(1000):
            self.hall.publish(b"%d" % number)
            self.assertTrue(all(group._size <= 1005 for group in self.hall.sessions._groups.values()))
        self.hall.settle()
        expected = b"".join(b"<%d>" % number for number in range(1000))
        self.assertEqual({c.bytes for _, c in peers}, {expected})

    def test_publishers_wait_while_too_much_waits_for_a_crowd(self) -> None:
        """Nobody is sent to more in one turn than a slice, and what is published waits with its publisher."""
        self.hall = Hall(max_outbox_bytes=1 << 20)
        peers = self.many(300)
        self.hall.send_s, self.hall.byte_s = 5e-6, 0.2e-9
        publisher = DirectPublisher(self.hall.rig.bus)
        caller = a_caller(EVERYTHING)
        outcomes: list[Outcome] = []
        data = [bytes([number]) * 600_000 for number in b"123456"]
        for one in data[:3]:
            publisher.publish(draft("a", data=one), caller, outcomes.append)
        publisher.publish_all([draft("a", data=one) for one in data[3:]], caller, outcomes.extend)
        publisher.delete("a", caller, lambda deleted: outcomes.append(Refused("deleted")))
        self.assertLess(len(outcomes), 3)
        group = next(iter(self.hall.sessions._groups.values()))
        while self.hall.clock.calls:
            before = self.hall.sent_bytes
            self.hall.turn()
            self.assertLessEqual(self.hall.sent_bytes - before, 40 * 600_002)
            self.assertLessEqual(group._size, 600_002)
        self.assertEqual([type(one) for one in outcomes], [Published] * 6 + [Refused])
        expected = b"".join(b"<" + one + b">" for one in data)
        self.assertTrue(all(c.bytes == expected for _, c in peers))
        self.assertEqual(self.hall.rig.bus.delivery.crowded, set())

    def test_publishers_do_not_wait_for_a_crowd_that_has_gone(self) -> None:
        self.hall = Hall(max_outbox_bytes=1 << 20)
        peers = self.many(300)
        for _ in range(2):
            self.hall.publish(b"1" * 600_000)
        self.assertTrue(self.hall.rig.bus.delivery.is_full)
        for session, _ in peers:
            session.ended()
        self.hall.settle()
        self.assertFalse(self.hall.rig.bus.delivery.is_full)

    def test_publishers_wait_while_too_many_events_are_being_handed_out(self) -> None:
        peers = self.many(MOST + 1, "a/*")
        publisher = DirectPublisher(self.hall.rig.bus)
        caller = a_caller(EVERYTHING)
        outcomes: list[Outcome] = []
        for number in range(20):
            publisher.publish(draft("a/b", data=b"%d" % number), caller, outcomes.append)
        publisher.publish_all([draft("a/b", data=b"x")] * 20, caller, outcomes.extend)
        self.assertEqual(len(outcomes), 8)
        self.hall.settle()
        self.assertEqual(len(outcomes), 40)
        expected = b"".join(b"<%d>" % number for number in range(20)) + b"<x>" * 20
        self.assertEqual({c.bytes for _, c in peers}, {expected})


@dataclass(eq=False)
class Listener:
    """One of the model: a session, and what its client has to get."""

    session: Session
    connection: Connection
    texts: set[str]
    owed: bytes = b""
    is_ended: bool = False


class SlicesMachine(RuleBasedStateMachine):
    """Sessions, of which many follow one channel or pattern, against what each has to get."""

    def __init__(self) -> None:
        super().__init__()
        self.hall = Hall(max_outbox_bytes=1 << 20)
        self.listeners: list[Listener] = []
        self.number = 0
        for _ in range(MOST - 3):
            self.new("a")
            self.new("a/*")
        self.hall.settle()

    def new(self, *texts: str) -> Listener:
        peer = self.hall.join()
        peer.session.subscribe(patterns(*texts), "latest")
        listener = Listener(peer.session, peer.connection, set(texts))
        self.listeners.append(listener)
        return listener

    def pick(self, number: int) -> Listener:
        return self.listeners[number % len(self.listeners)]

    WHICH = st.integers(0, 10_000)

    @rule(count=st.integers(1, 8), texts=st.sampled_from((("a",), ("a/*",), ("a", "a/b"))))
    def join(self, count: int, texts: tuple[str, ...]) -> None:
        for _ in range(count):
            self.new(*texts)

    @rule(which=WHICH)
    def join_from_the_beginning(self, which: int) -> None:
        """Come back: the replay has every event of the past, and then come the live ones."""
        listener = self.new("a")
        listener.session.subscribe(patterns("a"), "earliest")
        kept = self.hall.rig.log.existing("a").history if self.hall.rig.log.get("a") else None
        run = [] if kept is None or not len(kept) else kept.run(kept.oldest.offset, len(kept))  # type: ignore[union-attr]
        listener.owed = b"".join(framed(entry) for entry in run)

    @rule(channel=st.sampled_from(("a", "a/b")), times=st.integers(1, 3), size=st.sampled_from((1, 30_000)))
    def publish(self, channel: str, times: int, size: int) -> None:
        for _ in range(times):
            self.number += 1
            data = b"%d" % self.number + b"." * (size - 1)
            expected, wanted = 0, {"a"} if channel == "a" else {"a/b", "a/*"}
            for listener in self.listeners:
                if not listener.is_ended and listener.texts & wanted:
                    listener.owed += b"<" + data + b">"
                    expected += 1
            outcome = self.hall.rig.bus.publish(draft(channel, data=data), EVERYTHING)
            assert outcome.subscribers == expected

    @rule(channel=st.sampled_from(("a", "a/b")))
    def publish_to_both(self, channel: str) -> None:
        self.number += 1
        data = b"%d" % self.number
        for listener in self.listeners:
            if not listener.is_ended and listener.texts:
                listener.owed += b"<" + data + b">"
        self.hall.rig.bus.publish(draft(channel, "a" if channel == "a/b" else "a/b", data=data), EVERYTHING)

    @rule(which=WHICH)
    def send_its_own(self, which: int) -> None:
        listener = self.pick(which)
        if not listener.is_ended:
            self.number += 1
            frame = b"[own %d]" % self.number
            listener.owed += frame
            listener.session.send(frame)

    @rule(which=WHICH)
    def subscribe_to_more(self, which: int) -> None:
        listener = self.pick(which)
        if not listener.is_ended:
            listener.session.subscribe(patterns("a/b"), "latest")
            listener.texts.add("a/b")

    @rule(which=WHICH)
    def unsubscribe(self, which: int) -> None:
        listener = self.pick(which)
        if not listener.is_ended:
            text = min(listener.texts, default="a")
            assert listener.session.unsubscribe(text) == (text in listener.texts)
            listener.texts.discard(text)

    @rule(send_s=st.sampled_from((0.0, 5e-6, 50e-6, 1e-3)))
    def sending_takes(self, send_s: float) -> None:
        """Change from whole pieces to slices of any size, and back."""
        self.hall.send_s = send_s

    @rule(which=WHICH, takes=st.sampled_from((0, 1, 5, 1 << 30)))
    def kernel_takes(self, which: int, takes: int) -> None:
        self.pick(which).connection.takes = takes

    @rule(which=WHICH)
    def pause(self, which: int) -> None:
        listener = self.pick(which)
        if not listener.is_ended:
            listener.session.pauseProducing()

    @rule(which=WHICH)
    def resume(self, which: int) -> None:
        self.resume_one(self.pick(which))

    def resume_one(self, listener: Listener) -> None:
        if not listener.is_ended and listener.session.is_paused:
            listener.session.resumeProducing()

    @rule(which=WHICH)
    def close(self, which: int) -> None:
        listener = self.pick(which)
        if not listener.is_ended:
            self.resume_one(listener)
            listener.is_ended = True
            if listener.session.subscription.is_replaying:
                listener.owed = listener.connection.bytes  # the past may be had again
            listener.session.close(CLOSED)
            assert listener.connection.bytes == listener.owed
            assert listener.connection.reasons == [CLOSED]

    @rule(which=WHICH)
    def leave(self, which: int) -> None:
        listener = self.pick(which)
        if not listener.is_ended:
            listener.is_ended = True
            listener.session.ended()
            listener.owed = listener.connection.bytes

    @rule(turns=st.integers(1, 3))
    def turn(self, turns: int) -> None:
        for _ in range(turns):
            self.hall.turn()

    @rule()
    def come_to_rest(self) -> None:
        for listener in self.listeners:
            self.resume_one(listener)
        self.hall.settle()
        for listener in self.listeners:
            assert listener.connection.bytes == listener.owed
            if listener.session.caller.number and not listener.is_ended:
                assert listener.session.sent_bytes == len(listener.owed)
        living = [listener for listener in self.listeners if not listener.is_ended]
        assert self.hall.rig.bus.delivery.unwritten == 0
        assert self.hall.rig.bus.subscribers == len(living)

    @invariant()
    def nobody_is_ahead(self) -> None:
        for listener in self.listeners[::7]:
            assert listener.owed.startswith(listener.connection.bytes), (listener.owed, listener.connection.bytes)

    def teardown(self) -> None:
        """Override: whatever has happened, all is well in the end."""
        self.come_to_rest()
        assert self.hall.rig.failed == []


SlicesMachine.TestCase.settings = model(40, 25, long=(500, 60))
SlicesModelTests = SlicesMachine.TestCase
