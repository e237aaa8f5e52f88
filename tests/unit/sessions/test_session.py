"""The session: from the bus to the connection, with a connection that writes down what happens to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from unittest import TestCase
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IPushProducer
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from pushd.bus.clientinfo import DAEMON
from pushd.bus.closing import CloseCause, CloseReason
from pushd.bus.event import Entry
from pushd.bus.grants import EVERYTHING, Grants, Identity
from pushd.bus.position import StartPosition
from pushd.bus.replay import ENTRY_BYTES, Replay
from pushd.bus.replaying import Done
from pushd.bus.subscription import Subscription
from pushd.bus.work import Work, drain
from pushd.errors import BadRequest, Forbidden, Refused, Unavailable
from pushd.server.net.timers import TimerWheel
from pushd.sessions.outbox import Outbox
from pushd.sessions.registry import SessionRegistry
from pushd.sessions.session import Session
from tests.rigs.builders import EPOCH, BusRig, Client, Kept, a_caller, catch_up, patterns

CHUNK = 64 * 1024
"""How much of a replay is written at once."""

STOPPING = CloseReason(CloseCause.STOPPING, "the server is going away")


def framed(entry: Entry) -> bytes:
    """Make a frame that shows where it begins and ends."""
    return b"<" + entry.event.data + b">"


def frames_of(*datas: bytes) -> bytes:
    """Return the bytes that the frames of several events are."""
    return b"".join(b"<" + data + b">" for data in datas)


@dataclass(eq=False)
class Connection:
    """A connection that writes down what it is told; `acts` is called with what is written and may raise."""

    written: list[bytes] = field(default_factory=list)
    """Each write."""

    reasons: list[CloseReason] = field(default_factory=list)
    """Why it was closed, each time."""

    client_name = "the client"

    said: list[str] = field(default_factory=list)
    """The names of all calls, in order."""

    acts: Callable[[bytes], None] = lambda data: None
    """What happens within `write`."""

    is_idle = True

    @property
    def writer(self) -> Connection:
        """What writes to it."""
        return self

    takes: int = 1 << 30
    """How much its kernel takes of what it is sent as one of many."""

    error: Exception | None = None
    """What is raised then."""

    def send(self, data: bytes) -> int:
        """Write as one of many."""
        if self.error is not None:
            raise self.error
        taken = data[: self.takes]
        self.write(taken)
        return len(taken)

    def write(self, data: bytes) -> None:
        self.said.append("write")
        self.written.append(data)
        self.acts(data)

    def write_later(self, data: bytes, sent: int) -> None:
        """See `Writer`."""
        self.write(data[sent:])

    def close(self, reason: CloseReason) -> None:
        self.said.append("close")
        self.reasons.append(reason)

    def abort(self) -> None:
        self.said.append("abort")

    @property
    def bytes(self) -> bytes:
        """Everything that was written."""
        return b"".join(self.written)


@dataclass
class Peer:
    """One client: its session and the connection it is on."""

    session: Session
    connection: Connection


class House:
    """A bus with sessions, whose time the test turns."""

    def __init__(
        self,
        *,
        max_outbox_bytes: int = 1000,
        max_held_bytes: int = 1000,
        keeps: int = 1000,
        **kept: Kept,
    ) -> None:
        self.rig = BusRig(default=Kept(keeps), max_held_bytes=max_held_bytes, kept=kept)
        self.clock = self.rig.clock
        self.wheel = TimerWheel(self.clock.seconds)
        self.sessions = SessionRegistry(
            self.rig.bus,
            self.wheel,
            self.clock.callLater,
            max_outbox_bytes=max_outbox_bytes,
            now=self.clock.seconds,
            prefix="test",
        )

    def turn(self) -> None:
        """Let one turn of the reactor end."""
        self.clock.advance(0)

    def wait(self, seconds: int) -> None:
        """Let time go by, the wheel turning each second."""
        for _ in range(seconds):
            self.clock.advance(1)
            self.wheel.turn()

    def publish(self, *datas: bytes, channel: str = "a") -> None:
        """Publish events within one turn."""
        self.rig.publish_each(channel, *datas)

    def join(self, *, grants: Grants = EVERYTHING) -> Peer:
        """Begin a session that is not subscribed to anything."""
        connection = Connection()
        session = Session(self.sessions, connection, framed, a_caller(grants))
        try:
            session.enter([], "latest")
        except Refused:
            session.ended()
            raise
        return Peer(session, connection)

    def subscribed(self, *texts: str, since: str = "latest") -> Peer:
        """Begin a session that is subscribed to channels, and let it catch up."""
        peer = self.join()
        peer.session.subscribe(patterns(*(texts or ("a",))), since)
        self.turn()
        return peer

    def paused(self) -> Peer:
        """Return a subscriber of ``a`` whose transport is paused."""
        peer = self.subscribed()
        peer.session.pauseProducing()
        return peer


class SessionCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()

    def assertWrote(self, peer: Peer, *writes: bytes) -> None:
        self.assertEqual(peer.connection.written, list(writes))

    def assertOpen(self, peer: Peer) -> None:
        self.assertIs(peer.session.is_closed, False)
        self.assertEqual(peer.connection.reasons, [])

    def assertClosed(self, peer: Peer, cause: CloseCause) -> None:
        self.assertIs(peer.session.is_closed, True)
        if cause is CloseCause.TOO_SLOW:
            self.house.turn()  # in which the client is told
        self.assertEqual([reason.cause for reason in peer.connection.reasons], [cause])

    def assertNothingLeft(self) -> None:
        bus = self.house.rig.bus
        self.assertEqual((len(self.house.sessions), bus.subscribers, len(self.house.wheel)), (0, 0, 0))
        self.assertEqual((bus.has_audience("a"), len(bus._audiences._by_pattern)), (False, 0))
        self.assertEqual(self.house.clock.getDelayedCalls(), [])


class WriteTests(SessionCase):
    def test_it_is_a_push_producer(self) -> None:
        verifyObject(IPushProducer, self.house.join().session)

    def test_what_is_published_is_written_as_it_is_encoded(self) -> None:
        peer = self.house.subscribed()
        self.house.publish(b"1")
        self.house.turn()
        self.assertWrote(peer, b"<1>")

    def test_nothing_is_written_before_the_end_of_the_turn(self) -> None:
        peer = self.house.subscribed()
        self.house.publish(b"1")
        self.assertWrote(peer)

    def test_what_is_published_in_one_turn_is_one_write_in_the_order_of_publishing(self) -> None:
        peer = self.house.subscribed("**")
        for number in range(10):
            self.house.publish(b"%d" % number, channel="abc"[number % 3])
        self.house.turn()
        self.house.publish(b"10")
        self.house.turn()
        self.assertWrote(peer, frames_of(*(b"%d" % number for number in range(10))), b"<10>")

    def test_a_turn_in_which_nothing_came_writes_nothing(self) -> None:
        peer = self.house.subscribed()
        for _ in range(3):
            self.house.turn()
        self.assertWrote(peer)

    def test_however_many_sessions_got_something_the_reactor_is_asked_once_a_turn(self) -> None:
        peers = [self.house.subscribed() for _ in range(5)]
        self.house.publish(b"1", b"2")
        self.assertEqual(len(self.house.clock.getDelayedCalls()), 1)
        self.house.turn()
        self.assertEqual(self.house.clock.getDelayedCalls(), [])
        for peer in peers:
            self.assertWrote(peer, b"<1><2>")

    def test_what_is_sent_stands_between_the_events_before_and_after_it(self) -> None:
        peer = self.house.subscribed()
        self.house.publish(b"1")
        peer.session.send(b"[answer]")
        self.house.publish(b"2")
        self.house.turn()
        self.assertWrote(peer, b"<1>[answer]<2>")

    def test_nothing_comes_from_channels_that_were_not_subscribed_to(self) -> None:
        peer = self.house.subscribed("a")
        self.house.publish(b"1", channel="b")
        self.house.turn()
        self.assertWrote(peer)

    def test_what_the_client_may_not_have_is_refused_and_the_session_stays(self) -> None:
        peer = self.house.join(grants=Grants.of(["publish"]))
        self.assertRaises(Forbidden, peer.session.subscribe, patterns("a"), "latest")
        too_many = patterns(*map(str, range(101)))
        self.assertRaises(BadRequest, self.house.join().session.subscribe, too_many, "latest")
        self.assertOpen(peer)

    def test_it_knows_when_it_wrote_last_alone_and_in_the_crowd(self) -> None:
        house, peer = self.house, self.house.subscribed()
        house.turn()
        began = peer.session.wrote_s

        def after_s(act: Callable[[], object]) -> float:
            house.clock.advance(3)
            house.wheel.turn()
            act()
            house.turn()
            return peer.session.wrote_s - began

        self.assertEqual(after_s(lambda: None), 0)
        self.assertEqual(after_s(lambda: house.publish(b"1")), 6, "the crowd wrote")
        self.assertEqual(after_s(lambda: peer.session.send(b"[heartbeat]")), 9, "it wrote by itself")
        self.assertEqual(after_s(lambda: house.publish(b"2", channel="b")), 9)
        self.assertEqual(after_s(peer.session.pauseProducing), 15, "it has enough to take")
        self.assertEqual(after_s(lambda: house.publish(b"3")), 18)
        self.assertEqual(after_s(peer.session.resumeProducing), 21)
        self.assertEqual(after_s(lambda: None), 21)

    def test_an_event_published_within_a_write_comes_after_it(self) -> None:
        peer = self.house.subscribed()
        peer.connection.acts = lambda data: self.house.publish(b"2") if data == b"<1>" else None
        self.house.publish(b"1")
        self.house.turn()
        self.house.turn()
        self.assertWrote(peer, b"<1>", b"<2>")


class PauseTests(SessionCase):
    def test_while_it_is_paused_nothing_is_written(self) -> None:
        peer = self.house.paused()
        self.house.publish(b"1")
        peer.session.send(b"[answer]")
        self.house.wait(5)
        self.assertWrote(peer)
        self.assertEqual(self.house.clock.getDelayedCalls(), [])

    def test_resuming_writes_at_once_what_waits_as_one_piece(self) -> None:
        peer = self.house.paused()
        for data in (b"1", b"2"):
            self.house.publish(data)
            self.house.turn()
        peer.session.resumeProducing()
        self.assertWrote(peer, b"<1><2>")

    def test_a_pause_later_in_the_turn_holds_back_what_came_before_it(self) -> None:
        peer = self.house.subscribed()
        self.house.publish(b"1")
        peer.session.pauseProducing()
        self.house.turn()
        self.assertWrote(peer)
        peer.session.resumeProducing()
        self.assertWrote(peer, b"<1>")

    def test_a_pause_and_resume_within_a_turn_lose_and_repeat_nothing(self) -> None:
        peer = self.house.subscribed()
        self.house.publish(b"1")
        peer.session.pauseProducing()
        self.house.publish(b"2")
        peer.session.resumeProducing()
        self.house.publish(b"3")
        self.house.turn()
        self.assertEqual(peer.connection.bytes, b"<1><2><3>")

    def test_after_it_resumed_events_come_as_before(self) -> None:
        peer = self.house.paused()
        peer.session.resumeProducing()
        self.house.publish(b"1")
        self.house.turn()
        self.assertWrote(peer, b"<1>")

    def test_a_transport_that_is_gone_gets_nothing(self) -> None:
        peer = self.house.subscribed()
        self.house.publish(b"1")
        peer.session.stopProducing()
        self.house.turn()
        self.assertWrote(peer)

    def test_resuming_once_it_is_closed_writes_nothing(self) -> None:
        peer = self.house.paused()
        peer.session.close(STOPPING)
        peer.session.resumeProducing()
        self.assertEqual(peer.connection.said, ["close"])


class SlowTests(SessionCase):
    def setUp(self) -> None:
        self.house = House(max_outbox_bytes=10)

    def test_what_fits_exactly_may_wait(self) -> None:
        peer = self.house.paused()
        self.house.publish(b"123", b"456")
        self.assertOpen(peer)
        peer.session.resumeProducing()
        self.assertWrote(peer, b"<123><456>")

    def test_more_than_that_closes_it_as_too_slow_and_what_waits_is_not_written(self) -> None:
        peer = self.house.paused()
        self.house.publish(b"123", b"456", b"")
        self.assertClosed(peer, CloseCause.TOO_SLOW)
        self.assertEqual(peer.connection.said, ["close"])
        self.assertIn("resume from the last id", peer.connection.reasons[0].text)
        peer.session.resumeProducing()
        self.house.turn()
        self.assertWrote(peer)

    def test_a_turn_may_bring_more_than_fits_if_the_connection_takes_it(self) -> None:
        peer = self.house.subscribed()
        self.house.publish(b"123", b"456", b"7")
        self.house.turn()
        self.assertOpen(peer)
        self.assertWrote(peer, b"<123><456>", b"<7>")

    def test_a_turn_may_not_bring_more_than_fits_if_the_connection_does_not_take_it(self) -> None:
        peer = self.house.subscribed()
        peer.connection.acts = lambda data: peer.session.pauseProducing()
        self.house.publish(b"123", b"456", b"7", b"1234")
        self.assertOpen(peer)
        self.house.publish(b"1")
        self.assertClosed(peer, CloseCause.TOO_SLOW)
        self.house.turn()
        self.assertWrote(peer, b"<123><456>")

    def test_with_several_channels_a_turn_may_bring_more_than_fits_as_well(self) -> None:
        peer = self.house.subscribed("a", "b")
        self.house.publish(b"123", b"456", b"7")
        self.house.turn()
        self.assertOpen(peer)
        self.assertWrote(peer, b"<123><456>", b"<7>")

    def test_on_a_channel_where_only_the_latest_counts_it_stays_and_that_is_said_once(self) -> None:
        self.house = House(max_outbox_bytes=10, prices=Kept(on_overflow="latest"))
        peer = self.house.subscribed("prices")
        peer.session.pauseProducing()
        with capturedLogs() as logs:
            self.house.publish(*(b"%d" % number for number in range(9)), channel="prices")
        self.assertEqual([log["peer"] for log in logs], ["the client"])
        self.assertOpen(peer)
        peer.session.resumeProducing()
        self.assertWrote(peer, b"<6><7><8>")
        self.assertEqual(self.house.rig.bus.counters.missed, 6)

    def test_what_may_be_missed_makes_room_for_what_may_not_and_never_the_other_way_round(self) -> None:
        self.house = House(max_outbox_bytes=10, prices=Kept(on_overflow="latest"))
        peer = self.house.subscribed("prices", "a")
        peer.session.pauseProducing()
        self.house.publish(b"1", b"2", channel="prices")
        self.house.publish(b"123456")
        self.house.publish(b"34", channel="prices")
        self.assertOpen(peer)
        self.house.publish(b"")
        self.assertOpen(peer)
        self.house.publish(b"5")
        self.assertClosed(peer, CloseCause.TOO_SLOW)

    def test_however_many_are_too_slow_for_one_event_the_others_have_it_before_all_those_are_told(self) -> None:
        reader, slow = self.house.subscribed(), [self.house.subscribed() for _ in range(100)]
        for peer in slow:
            peer.session.pauseProducing()
        self.house.publish(b"123", b"456")
        self.house.turn()
        told_before: list[int] = []
        reader.connection.acts = lambda data: told_before.append(sum(bool(peer.connection.said) for peer in slow))
        self.house.publish(b"7")
        slow[-1].session.ended()
        self.house.turn()
        self.assertEqual(self.house.rig.bus.subscribers, 1)
        self.assertEqual(reader.connection.bytes, b"<123><456><7>")
        self.assertLessEqual(told_before[0], 20)
        self.assertTrue(all(peer.connection.said == ["close"] for peer in slow[:-1]))
        self.assertEqual(slow[-1].connection.said, [], "it has gone meanwhile")
        self.assertEqual(self.house.clock.getDelayedCalls(), [])

    def test_a_fault_of_one_does_not_keep_the_others_open(self) -> None:
        slow = [self.house.subscribed() for _ in range(3)]
        for peer in slow:
            peer.session.pauseProducing()
        self.house.publish(b"123", b"456", b"7")
        with patch.object(Session, "farewell", side_effect=ZeroDivisionError):
            self.assertRaises(ZeroDivisionError, self.house.turn)
        self.house.turn()
        self.assertEqual(sum(peer.connection.said == ["close"] for peer in slow), 2)

    def test_neighbours_do_not_notice(self) -> None:
        before, slow, after = (self.house.subscribed() for _ in range(3))
        slow.session.pauseProducing()
        for number in range(9):
            self.house.publish(b"%d" % number)
            self.house.turn()
        self.assertClosed(slow, CloseCause.TOO_SLOW)
        for peer in (before, after):
            self.assertOpen(peer)
            self.assertEqual(peer.connection.bytes, frames_of(*(b"%d" % number for number in range(9))))

    def test_it_gets_nothing_any_more_and_is_no_subscriber(self) -> None:
        peer = self.house.paused()
        self.house.publish(b"123456789", b"")
        self.house.publish(b"1")
        peer.session.send(b"2")
        self.house.turn()
        self.assertWrote(peer)
        self.assertEqual(self.house.rig.bus.subscribers, 0)

    def test_a_single_frame_larger_than_the_outbox_passes(self) -> None:
        peer = self.house.subscribed()
        for data in (b"x" * 100, b"y" * 200):
            self.house.publish(data)
            self.house.turn()
        self.assertOpen(peer)
        self.assertWrote(peer, frames_of(b"x" * 100), frames_of(b"y" * 200))

    def test_a_single_large_frame_may_wait_but_nothing_besides(self) -> None:
        peer = self.house.paused()
        self.house.publish(b"x" * 100)
        self.assertOpen(peer)
        self.house.publish(b"")
        self.assertClosed(peer, CloseCause.TOO_SLOW)


class ReplayTests(SessionCase):
    def setUp(self) -> None:
        self.house = House(max_outbox_bytes=CHUNK * 2, max_held_bytes=100 + ENTRY_BYTES)

    def test_what_was_published_since_comes_first_and_then_what_comes(self) -> None:
        self.house.publish(b"1", b"2")
        peer = self.house.join()
        start = peer.session.subscribe(patterns("a"), "earliest")
        self.house.publish(b"3")
        self.house.turn()
        self.house.publish(b"4")
        self.house.turn()
        self.assertEqual(start, StartPosition(f"{EPOCH}-0", True, 0))
        self.assertWrote(peer, b"<1><2><3>", b"<4>")

    def test_what_is_sent_when_it_subscribes_comes_before_the_replay(self) -> None:
        self.house.publish(b"1")
        peer = self.house.join()
        peer.session.subscribe(patterns("a"), "earliest")
        peer.session.send(b"[subscribed]")
        self.house.turn()
        self.assertEqual(peer.connection.bytes, b"[subscribed]<1>")

    def test_a_replay_may_be_larger_than_the_outbox_and_is_written_in_chunks(self) -> None:
        datas = [b"%4d" % number * 250 for number in range(300)]
        self.house.publish(*datas)
        peer = self.house.subscribed("a", since="earliest")
        self.assertOpen(peer)
        self.assertEqual(peer.connection.bytes, frames_of(*datas))
        for write in peer.connection.written[:-1]:
            self.assertTrue(CHUNK <= len(write) < CHUNK + 1002, len(write))
        self.assertEqual(len(peer.connection.written), 5)

    def test_a_replay_is_pumped_as_the_connection_takes_it(self) -> None:
        datas = [b"%4d" % number * 250 for number in range(300)]
        self.house.publish(*datas)
        peer = self.house.join()
        peer.connection.acts = lambda data: peer.session.pauseProducing()
        peer.session.subscribe(patterns("a"), "earliest")
        self.house.turn()
        for count in range(1, 6):
            self.assertEqual(len(peer.connection.written), count)
            self.house.turn()
            self.assertEqual(len(peer.connection.written), count)
            peer.session.resumeProducing()
        self.assertEqual(peer.connection.bytes, frames_of(*datas))
        self.assertFalse(peer.session.subscription.is_replaying)

    def test_while_it_is_paused_no_replay_is_written(self) -> None:
        self.house.publish(b"1")
        peer = self.house.join()
        peer.session.pauseProducing()
        peer.session.subscribe(patterns("a"), "earliest")
        self.house.turn()
        self.assertWrote(peer)
        peer.session.resumeProducing()
        self.assertWrote(peer, b"<1>")

    def test_what_is_published_between_two_chunks_comes_at_the_end(self) -> None:
        datas = [b"%4d" % number * 250 for number in range(100)]
        self.house.publish(*datas)
        peer = self.house.join()
        peer.connection.acts = lambda data: peer.session.pauseProducing()
        peer.session.subscribe(patterns("a"), "earliest")
        self.house.turn()
        self.house.publish(b"live")
        for _ in range(3):
            peer.session.resumeProducing()
        self.assertEqual(peer.connection.bytes, frames_of(*datas, b"live"))

    def test_too_much_that_no_history_retains_while_it_does_not_take_the_replay_closes_it_as_too_slow(self) -> None:
        self.house = House(max_outbox_bytes=CHUNK * 2, max_held_bytes=100 + ENTRY_BYTES, a=Kept(0))
        self.house.publish(b"1", channel="b")
        peer = self.house.join()
        peer.session.pauseProducing()
        peer.session.subscribe(patterns("a", "b"), "earliest")
        self.house.publish(b"x" * 100)
        self.house.publish(*[b"x" * 100] * 100, channel="b")
        self.assertOpen(peer)
        self.house.publish(b"x")
        self.assertClosed(peer, CloseCause.TOO_SLOW)

    def test_a_history_that_overtakes_the_replay_closes_it_as_too_slow(self) -> None:
        self.house = House(keeps=2)
        self.house.publish(b"1", b"2", channel="b")
        self.house.publish(b"1", b"2", channel="a")
        peer = self.house.join()
        peer.session.pauseProducing()
        peer.session.subscribe(patterns("a", "b"), "earliest")
        self.house.publish(b"3", b"4", channel="b")
        peer.session.resumeProducing()
        self.assertClosed(peer, CloseCause.TOO_SLOW)

    def test_closing_in_the_midst_of_a_replay_ends_it(self) -> None:
        datas = [b"%4d" % number * 250 for number in range(100)]
        self.house.publish(*datas)
        peer = self.house.join()
        peer.connection.acts = lambda data: peer.session.close(STOPPING)
        peer.session.subscribe(patterns("a"), "earliest")
        self.house.turn()
        self.assertClosed(peer, CloseCause.STOPPING)
        self.assertEqual(len(peer.connection.written), 1)


class CloseTests(SessionCase):
    def test_what_waits_is_written_first_and_then_the_reason(self) -> None:
        peer = self.house.subscribed()
        self.house.publish(b"1", b"2")
        peer.session.close(STOPPING)
        self.house.turn()
        self.assertEqual((peer.connection.said, peer.connection.reasons), (["write", "close"], [STOPPING]))
        self.assertWrote(peer, b"<1><2>")

    def test_what_waits_is_written_even_if_it_is_paused(self) -> None:
        peer = self.house.paused()
        self.house.publish(b"1")
        peer.session.close(STOPPING)
        self.assertEqual(peer.connection.said, ["write", "close"])

    def test_if_nothing_waits_nothing_is_written(self) -> None:
        peer = self.house.subscribed()
        peer.session.close(STOPPING)
        self.assertEqual(peer.connection.said, ["close"])

    def test_it_is_closed_once(self) -> None:
        peer = self.house.subscribed()
        for _ in range(3):
            peer.session.close(STOPPING)
        self.assertClosed(peer, CloseCause.STOPPING)

    def test_a_deleted_channel_closes_it_with_that_reason(self) -> None:
        peer, other = self.house.subscribed("a"), self.house.subscribed("b")
        self.house.publish(b"1")
        self.house.rig.bus.delete("a", EVERYTHING)
        self.assertClosed(peer, CloseCause.DELETED)
        self.assertWrote(peer, b"<1>")
        self.assertOpen(other)

    def test_closing_all_tells_every_session(self) -> None:
        peers = [self.house.subscribed() for _ in range(3)]
        self.assertEqual(len(self.house.sessions), 3)
        self.house.sessions.close(lambda: STOPPING)
        for peer in peers:
            self.assertClosed(peer, CloseCause.STOPPING)

    def test_after_that_nobody_is_taken(self) -> None:
        self.house.sessions.close(lambda: CloseReason(CloseCause.STOPPING, "going away", 2.5))
        refused = self.assertRaises(Unavailable, self.house.subscribed)
        self.assertEqual((refused.detail, refused.retry_s), ("going away", 2.5))
        self.assertEqual((len(self.house.sessions), self.house.rig.bus.subscribers), (0, 0))

    def test_a_connection_that_does_not_end_in_ten_seconds_is_aborted(self) -> None:
        for end in (lambda peer: peer.session.close(STOPPING), lambda peer: peer.session.finish()):
            peer = self.house.subscribed()
            end(peer)
            self.house.wait(9)
            self.assertNotIn("abort", peer.connection.said)
            self.house.wait(2)
            self.assertEqual(peer.connection.said.count("abort"), 1)
            self.house.wait(20)
            self.assertEqual(peer.connection.said.count("abort"), 1)

    def test_one_for_whose_last_bytes_there_is_no_memory_is_closed_all_the_same(self) -> None:
        peer = self.house.subscribed()
        self.house.publish(b"1")
        with patch.object(Outbox, "take", side_effect=MemoryError):
            peer.session.close(STOPPING)
        self.assertClosed(peer, CloseCause.STOPPING)
        self.assertWrote(peer)
        self.assertEqual(peer.session.outbox_bytes, 0)

    def test_a_session_that_is_finished_sends_what_waits_and_then_nothing_and_is_not_closed_again(self) -> None:
        peer = self.house.subscribed()
        self.house.publish(b"1")
        peer.session.finish()
        peer.session.finish()
        peer.session.send(b"2")
        self.house.turn()
        peer.session.close(STOPPING)
        self.assertEqual((peer.connection.said, len(self.house.wheel)), (["write"], 1))
        self.assertWrote(peer, b"<1>")


class EndedTests(SessionCase):
    def test_nothing_is_left_of_a_session_whose_connection_ended(self) -> None:
        peer = self.house.subscribed("a", "b/*")
        peer.session.ended()
        self.assertNothingLeft()

    def test_nothing_is_left_if_something_waited(self) -> None:
        peer = self.house.paused()
        self.house.publish(b"1")
        peer.session.ended()
        peer.session.resumeProducing()
        self.assertWrote(peer)
        self.assertNothingLeft()

    def test_nothing_is_left_after_the_turn_in_which_it_was_to_write(self) -> None:
        peer = self.house.subscribed()
        self.house.publish(b"1")
        peer.session.ended()
        self.house.turn()
        self.assertWrote(peer)
        self.assertNothingLeft()

    def test_nothing_is_left_of_one_that_was_replaying(self) -> None:
        self.house.publish(b"1")
        peer = self.house.join()
        peer.session.subscribe(patterns("a", "**"), "earliest")
        peer.session.ended()
        self.house.turn()
        self.assertWrote(peer)
        self.assertNothingLeft()

    def test_nothing_is_left_of_one_that_was_closed_or_finished_before(self) -> None:
        for cause in CloseCause:
            peer = self.house.subscribed()
            peer.session.close(CloseReason(cause, "x"))
            peer.session.ended()
            self.house.turn()
            self.assertNothingLeft()
        peer = self.house.subscribed()
        peer.session.finish()
        peer.session.ended()
        self.assertNothingLeft()

    def test_nothing_is_left_of_one_that_never_subscribed_or_could_not(self) -> None:
        self.house.join().session.ended()
        peer = self.house.join(grants=Grants.of(["publish"]))
        self.assertRaises(Forbidden, peer.session.subscribe, patterns("a"), "latest")
        peer.session.ended()
        self.assertNothingLeft()

    def test_it_may_end_again_and_is_not_closed_then(self) -> None:
        peer = self.house.subscribed()
        peer.session.ended()
        peer.session.ended()
        peer.session.close(STOPPING)
        peer.session.finish()
        self.assertEqual(peer.connection.said, [])
        self.assertNothingLeft()

    def test_it_may_end_while_it_is_written_to(self) -> None:
        peer = self.house.subscribed()
        peer.connection.acts = lambda data: peer.session.ended()
        self.house.publish(b"1")
        self.house.turn()
        self.assertWrote(peer, b"<1>")
        self.assertNothingLeft()

    def test_it_may_end_while_it_is_closed(self) -> None:
        peer = self.house.subscribed()
        peer.connection.close = lambda reason: peer.session.ended()  # type: ignore[method-assign]
        peer.session.close(STOPPING)
        self.assertNothingLeft()


class FaultTests(SessionCase):
    def break_down(self, data: bytes) -> None:
        """What a faulty connection does."""
        raise ZeroDivisionError("a fault")

    def test_a_write_that_raises_lets_the_others_have_their_turn(self) -> None:
        peers = [self.house.subscribed("a", "b") for _ in range(5)]
        for faulty in (peers[1], peers[3]):
            faulty.connection.acts = self.break_down
        self.house.publish(b"1")
        for _ in range(2):
            self.assertRaises(ZeroDivisionError, self.house.turn)
        self.house.turn()
        for peer in peers:
            self.assertWrote(peer, b"<1>")
        self.assertEqual(self.house.clock.getDelayedCalls(), [])

    def test_what_is_published_between_a_fault_and_the_next_turn_is_written_in_order(self) -> None:
        faulty, peer = self.house.subscribed("a", "b"), self.house.subscribed("a", "b")
        faulty.connection.acts = self.break_down
        self.house.publish(b"1")
        self.assertRaises(ZeroDivisionError, self.house.turn)
        self.house.publish(b"2")
        faulty.session.ended()
        self.house.turn()
        self.assertEqual(peer.connection.bytes, b"<1><2>")

    def test_an_event_that_cannot_be_encoded_closes_the_session_and_no_other(self) -> None:
        def encode(entry: Entry) -> bytes:
            raise ZeroDivisionError("a fault")

        connection = Connection()
        faulty = Peer(Session(self.house.sessions, connection, encode, a_caller()), connection)
        faulty.session.enter([patterns("a")], "latest")
        peer = self.house.subscribed()
        self.house.publish(b"1")
        self.house.turn()
        self.assertClosed(faulty, CloseCause.FAILED)
        self.assertEqual([type(error) for _, error in self.house.rig.failed], [ZeroDivisionError])
        self.assertWrote(peer, b"<1>")


SMALL = st.binary(max_size=30)
STEPS = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from("abc"), SMALL),
    st.tuples(st.just("publish"), st.just("a"), SMALL),
    st.sampled_from([("pause",), ("resume",), ("turn",), ("turn",)]),
    st.tuples(
        st.just("subscribe"),
        st.sampled_from([["a"], ["b"], ["a", "b"], ["*"], ["**", "a"]]),
        st.sampled_from(["latest", "earliest", f"{EPOCH}-1", f"{EPOCH}-3", "unknown"]),
    ),
)


class AnyInterleavingTests(TestCase):
    """Whatever happens in whatever order, the client gets what it would if each frame were written at once."""

    @given(
        st.lists(STEPS, max_size=40),
        st.integers(1, 200),
        st.integers(1, 200),
        st.integers(1, 10),
        st.booleans(),
    )
    def test_the_bytes_are_those_of_writing_each_frame_at_once_unless_it_was_closed_as_too_slow(
        self,
        steps: list[tuple[str, str, bytes] | tuple[str] | tuple[str, list[str], str]],
        outbox: int,
        held: int,
        keeps: int,
        pauses_at_each_write: bool,
    ) -> None:
        house = House(max_outbox_bytes=outbox, max_held_bytes=held, keeps=keeps)
        peer, expected = house.join(), Client()
        at_once = Subscription(house.rig.bus, expected, DAEMON)
        if pauses_at_each_write:
            peer.connection.acts = lambda data: peer.session.pauseProducing()
        for step in steps:
            match step:
                case ("publish", str(channel), bytes(data)):
                    house.publish(data, channel=channel)
                case ("pause",):
                    peer.session.pauseProducing()
                case ("resume",):
                    peer.session.resumeProducing()
                case ("turn",):
                    house.turn()
                case ("subscribe", list(texts), str(since)) if not len(at_once) and not peer.session.is_closed:
                    found = peer.session.subscribe(patterns(*texts), since)
                    self.assertEqual(found, at_once.add(patterns(*texts), since))
                    catch_up(at_once)
        peer.connection.acts = lambda data: None
        for _ in range(3):
            peer.session.resumeProducing()
            house.turn()
        wanted = frames_of(*expected.datas)
        if peer.session.is_closed:
            self.assertEqual([reason.cause for reason in peer.connection.reasons], [CloseCause.TOO_SLOW])
            self.assertTrue(wanted.startswith(peer.connection.bytes))
        else:
            self.assertEqual(peer.connection.bytes, wanted)
            self.assertEqual(peer.connection.reasons, [])
            self.assertLessEqual(set(peer.connection.said), {"write"})
        peer.session.ended()
        at_once.close()
        house.turn()
        counts = len(house.sessions), house.rig.bus.subscribers, len(house.wheel)
        self.assertEqual((counts, house.clock.getDelayedCalls()), ((0, 0, 0), []))

    @given(st.lists(STEPS, max_size=40))
    def test_with_room_enough_no_client_is_ever_closed(
        self, steps: list[tuple[str, str, bytes] | tuple[str] | tuple[str, list[str], str]]
    ) -> None:
        house = House(max_outbox_bytes=10_000, max_held_bytes=10_000)
        peer = house.subscribed("**")
        published = []
        for step in steps:
            match step:
                case ("publish", str(channel), bytes(data)):
                    house.publish(data, channel=channel)
                    published.append(data)
                case ("pause",):
                    peer.session.pauseProducing()
                case ("resume",):
                    peer.session.resumeProducing()
                case ("turn",):
                    house.turn()
        peer.session.resumeProducing()
        house.turn()
        self.assertEqual(peer.connection.bytes, frames_of(*published))


class LongReplayTests(SynchronousTestCase):
    """A replay over many channels takes many turns, however much the connection takes."""

    def test_it_goes_on_in_the_next_turns_and_others_have_theirs(self) -> None:
        house = House()
        for number in range(1000):
            house.publish(b"x", channel=f"c/{number}")
        counters, session = house.rig.bus.counters, house.join().session
        session.subscribe(patterns("**"), "earliest")
        flushes = 0
        while session.subscription.is_replaying:
            before = counters.replayed
            cost = session.flush()
            self.assertLessEqual(counters.replayed - before, 100)
            self.assertGreater(cost, (counters.replayed - before) // 4)
            flushes += 1
        self.assertEqual((flushes, counters.replayed), (11, 1000))


class TidyingTests(SynchronousTestCase):
    """While its replay is made tidy, a session sends nothing of it, and then goes on."""

    def setUp(self) -> None:
        self.house = House()
        for name in ("a/1", "b/1", "a/2", "b/2"):
            self.house.publish(name.encode(), channel=name)
        self.works: list[tuple[Work[None], Done]] = []
        self.house.rig.bus.do_later = lambda work, is_gone, caller, done: self.works.append((work, done))
        self.peer = self.house.join()
        self.session = self.peer.session

    def finish(self) -> None:
        """Do the work that waits."""
        ((work, done),) = self.works
        self.works.clear()
        drain(work)
        done(None)
        self.house.turn()

    def test_after_unsubscribing(self) -> None:
        self.session.subscribe(patterns("a/*"), "earliest")
        self.session.subscribe(patterns("b/*"), "latest")
        self.assertTrue(self.session.unsubscribe("a/*"))
        self.session.send(b"<answer>")
        self.house.publish(b"live", channel="b/1")
        self.house.turn()
        self.assertEqual(self.peer.connection.bytes, b"<answer>")
        self.assertIsNotNone(self.session.tidied())
        self.finish()
        self.assertIsNone(self.session.tidied())
        self.assertEqual(self.peer.connection.bytes, b"<answer>" + frames_of(b"live"))
        self.house.publish(b"later", channel="b/1")
        self.house.turn()
        self.assertEqual(self.peer.connection.bytes, b"<answer>" + frames_of(b"live", b"later"))

    def test_after_subscribing_to_more(self) -> None:
        self.session.subscribe(patterns("a/*"), "earliest")
        self.assertEqual(self.works, [])
        self.session.subscribe(patterns("b/*"), "earliest")
        self.house.turn()
        self.assertEqual(self.peer.connection.bytes, b"")
        self.finish()
        self.assertEqual(self.peer.connection.bytes, frames_of(b"a/1", b"b/1", b"a/2", b"b/2"))

    def test_who_wants_nothing_any_more_has_no_work_done(self) -> None:
        self.session.subscribe(patterns("a/*"), "earliest")
        discarded: list[Replay] = []
        self.patch(self.house.rig.bus, "discard", discarded.append)
        self.assertTrue(self.session.unsubscribe("a/*"))
        self.assertEqual((len(discarded), self.works), (1, []))
        self.session.subscribe(patterns("a/*"), "latest")
        self.house.publish(b"live", channel="a/1")
        self.house.turn()
        self.assertEqual(self.peer.connection.bytes, frames_of(b"live"))

    def test_who_is_revoked_has_one_work_done(self) -> None:
        for text in ("a/*", "a/1", "b/*"):
            self.session.subscribe(patterns(text), "earliest")
        self.session.pauseProducing()
        self.finish()
        self.session.caller.identity = Identity(Grants.of((), subscribe=patterns("b/*")))
        self.assertEqual(self.session.revoke(), ["a/*", "a/1"])
        self.session.resumeProducing()
        self.finish()
        self.assertEqual(self.peer.connection.bytes, frames_of(b"b/1", b"b/2"))

    def test_who_goes_or_fails_meanwhile_gets_nothing(self) -> None:
        for error in (Unavailable("gone"), ZeroDivisionError()):
            with self.subTest(str(error)):
                peer = self.house.join()
                for text in ("a/*", "b/*"):
                    peer.session.subscribe(patterns(text), "earliest")
                if isinstance(error, Unavailable):
                    peer.session.ended()
                ((_, done),) = self.works
                self.works.clear()
                done(error)
                self.house.turn()
                self.assertNotIn(b"a/1", peer.connection.bytes)
                self.assertTrue(peer.session.is_closed)
