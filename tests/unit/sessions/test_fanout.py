"""The crowd: who keeps up is sent to as one of many, and nobody can tell the difference."""

from __future__ import annotations

import gc

from twisted.logger import capturedLogs

from pushd.bus.closing import CloseCause, CloseReason
from tests.rigs.builders import patterns
from tests.unit.sessions.test_session import House, Peer, SessionCase

REASON = CloseReason(CloseCause.DELETED, "the channel was deleted")


class CrowdCase(SessionCase):
    def setUp(self) -> None:
        """Let collections examine only what the test makes: all else takes 100 ms each time."""
        super().setUp()
        gc.freeze()
        self.addCleanup(gc.unfreeze)

    def assertCrowds(self, *sizes: int) -> None:
        """There are crowds of so many members."""
        gc.collect()
        crowds = self.house.sessions._groups.values()
        self.assertEqual(sorted(len(group._members) for group in crowds), sorted(sizes))

    def assertGot(self, peer: Peer, data: bytes) -> None:
        self.assertEqual(peer.connection.bytes, data)


class MembershipTests(CrowdCase):
    """Who is one of the crowd."""

    def test_who_follows_one_channel_and_has_caught_up(self) -> None:
        self.house.subscribed()
        self.house.subscribed()
        self.house.subscribed("b")
        self.assertCrowds(2, 1)

    def test_not_who_follows_several_or_a_pattern(self) -> None:
        self.house.subscribed("a", "b")
        self.house.subscribed("a/*")
        self.assertCrowds()

    def test_not_who_is_still_being_replayed_to(self) -> None:
        self.house.publish(b"1", b"2")
        peer = self.house.join()
        peer.session.pauseProducing()
        peer.session.subscribe(patterns("a"), "earliest")
        self.house.turn()
        self.assertCrowds()
        peer.session.resumeProducing()
        self.assertCrowds(1)
        self.assertGot(peer, b"<1><2>")

    def test_not_who_has_something_waiting_in_its_connection(self) -> None:
        peer = self.house.join()
        peer.connection.is_idle = False
        peer.session.subscribe(patterns("a"), "latest")
        self.house.turn()
        self.assertCrowds()
        peer.connection.is_idle = True
        self.house.publish(b"1")
        self.house.turn()
        self.assertCrowds(1)

    def test_who_pauses_leaves_and_comes_back(self) -> None:
        peer, other = self.house.subscribed(), self.house.subscribed()
        self.house.publish(b"1")
        peer.session.pauseProducing()
        self.assertCrowds(1)
        self.house.publish(b"2")
        self.house.turn()
        self.assertGot(peer, b"")
        peer.session.resumeProducing()
        self.assertCrowds(2)
        self.house.publish(b"3")
        self.house.turn()
        self.assertGot(peer, b"<1><2><3>")
        self.assertGot(other, b"<1><2><3>")

    def test_who_subscribes_to_more_leaves_and_who_goes_back_to_one_returns(self) -> None:
        peer = self.house.subscribed()
        self.house.publish(b"1")
        peer.session.subscribe(patterns("b"), "latest")
        self.house.publish(b"2")
        self.house.publish(b"3", channel="b")
        self.house.turn()
        self.assertCrowds()
        self.assertTrue(peer.session.unsubscribe("a"))
        self.house.publish(b"4")
        self.house.publish(b"5", channel="b")
        self.house.turn()
        self.assertCrowds(1)
        self.house.publish(b"6")
        self.house.publish(b"7", channel="b")
        self.house.turn()
        self.assertGot(peer, b"<1><2><3><5><7>")

    def test_who_unsubscribes_gets_what_was_published_before_and_nothing_after(self) -> None:
        peer = self.house.subscribed()
        self.house.publish(b"1")
        self.assertTrue(peer.session.unsubscribe("a"))
        self.house.publish(b"2")
        self.house.turn()
        self.assertGot(peer, b"<1>")
        self.assertFalse(self.house.rig.bus.has_audience("a"))

    def test_nothing_is_left_of_a_crowd_that_everybody_has_left(self) -> None:
        peers = [self.house.subscribed() for _ in range(3)]
        self.house.publish(b"1")
        peers[0].session.ended()
        self.house.turn()
        for peer in peers[1:]:
            peer.session.ended()
        self.assertCrowds()
        self.assertNothingLeft()

    def test_every_member_counts_as_a_subscriber(self) -> None:
        for texts in (("a",), ("a",), ("a", "b"), ("*",)):
            self.house.subscribed(*texts)
        self.assertEqual(self.house.rig.publish("a").subscribers, 4)
        self.assertEqual(self.house.rig.publish("a", "b").subscribers, 4)
        self.assertEqual(self.house.rig.publish("b", "a").subscribers, 4)


class OrderTests(CrowdCase):
    """What a member sends of its own stands where it belongs."""

    def test_it_stands_between_the_events_before_and_after_it(self) -> None:
        peer, other = self.house.subscribed(), self.house.subscribed()
        for turn in range(3):
            self.house.publish(b"%d" % turn)
            peer.session.send(b"[own]")
            self.house.publish(b"x")
            peer.session.send(b"[own]")
            self.house.turn()
        self.assertGot(peer, b"".join(b"<%d>[own]<x>[own]" % turn for turn in range(3)))
        self.assertGot(other, b"<0><x><1><x><2><x>")
        self.assertCrowds(2)

    def test_before_or_after_all_events_of_the_turn(self) -> None:
        peer = self.house.subscribed()
        peer.session.send(b"[first]")
        self.house.publish(b"1")
        self.house.turn()
        self.house.publish(b"2")
        peer.session.send(b"[last]")
        self.house.turn()
        peer.session.send(b"[alone]")
        self.house.turn()
        self.house.publish(b"3")
        self.house.turn()
        self.assertGot(peer, b"[first]<1><2>[last][alone]<3>")

    def test_who_comes_in_the_midst_of_a_turn_gets_what_follows(self) -> None:
        early = self.house.subscribed()
        self.house.publish(b"1")
        late = self.house.join()
        late.session.subscribe(patterns("a"), "latest")
        late.session.flush()
        self.assertCrowds(2)
        self.house.publish(b"2")
        self.house.turn()
        self.assertGot(early, b"<1><2>")
        self.assertGot(late, b"<2>")

    def test_closing_sends_what_waits_first(self) -> None:
        peer, other = self.house.subscribed(), self.house.subscribed()
        self.house.publish(b"1")
        peer.session.subscription.end(REASON)
        self.assertGot(peer, b"<1>")
        self.assertClosed(peer, CloseCause.DELETED)
        self.house.turn()
        self.assertGot(other, b"<1>")

    def test_more_than_the_limit_does_not_wait_for_the_end_of_the_turn(self) -> None:
        self.house = House(max_outbox_bytes=10)
        peer = self.house.subscribed()
        self.house.publish(b"1234", b"5678", b"9")
        self.assertGot(peer, b"<1234><5678>")
        self.house.turn()
        self.assertGot(peer, b"<1234><5678><9>")


class FallBehindTests(CrowdCase):
    """A member whose kernel does not take all goes on by itself."""

    def test_the_rest_goes_by_its_connection_and_it_leaves(self) -> None:
        slow, other = self.house.subscribed(), self.house.subscribed()
        slow.connection.takes = 2
        self.house.publish(b"123")
        self.house.turn()
        self.assertWrote(slow, b"<1", b"23>")
        self.assertWrote(other, b"<123>")
        self.assertCrowds(1)

    def test_a_socket_that_raises_leaves_all_of_it_to_its_connection(self) -> None:
        slow, other = self.house.subscribed(), self.house.subscribed()
        slow.connection.error = BlockingIOError()
        self.house.publish(b"123")
        self.house.turn()
        self.assertWrote(slow, b"<123>")
        self.assertWrote(other, b"<123>")
        self.assertCrowds(1)

    def test_one_that_pauses_while_it_is_sent_to_leaves(self) -> None:
        slow, other = self.house.subscribed(), self.house.subscribed()
        slow.connection.acts = lambda data: slow.session.pauseProducing()
        for number in b"12":
            self.house.publish(b"%c" % number)
            self.house.turn()
        self.assertWrote(slow, b"<1>")
        self.assertWrote(other, b"<1>", b"<2>")
        self.assertCrowds(1)

    def test_a_fault_in_what_sends_ends_that_member_only(self) -> None:
        first, faulty, last = (self.house.subscribed() for _ in range(3))
        faulty.connection.error = ZeroDivisionError("a fault")
        self.house.publish(b"1")
        with capturedLogs() as logs:
            self.house.turn()
        self.assertEqual([log["log_failure"].type for log in logs], [ZeroDivisionError])
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertClosed(faulty, CloseCause.FAILED)
        for peer in (first, last):
            self.assertWrote(peer, b"<1>")
            self.assertOpen(peer)
        self.assertCrowds(2)

    def test_one_that_ends_while_another_is_sent_to_is_passed_over(self) -> None:
        first, second, third = (self.house.subscribed() for _ in range(3))
        first.connection.acts = lambda data: third.session.ended()
        self.house.publish(b"1")
        self.house.turn()
        self.assertWrote(second, b"<1>")
        self.assertCrowds(2)
