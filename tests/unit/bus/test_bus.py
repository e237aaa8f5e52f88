"""The bus: publish, subscribe, replay-then-live, and what failing or slow subscribers do to others: nothing."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.bus import Bus, Published
from pushd.bus.clientinfo import ClientInfo
from pushd.bus.closing import CloseCause, CloseReason
from pushd.bus.event import Draft, Entry
from pushd.bus.grants import EVERYTHING, Grants
from pushd.bus.memory_headroom import memory
from pushd.bus.replay import ENTRY_BYTES, Overtaken, Replay
from pushd.bus.replaying import Done
from pushd.bus.shares import Shares
from pushd.bus.subscription import Subscription
from pushd.bus.work import Work, drain
from pushd.errors import BadRequest, Forbidden, NotFound, OutOfMemory, TooMany, Unavailable, Unprocessable
from tests.rigs.builders import EPOCH, BusRig, Client, Kept, a_caller, catch_up, datas, draft, offsets, patterns

BEGINNING = f"{EPOCH}-0"
NOTHING = Grants.of([])


def fail(*_: object) -> None:
    """What a faulty subscriber does."""
    raise ZeroDivisionError("a fault")


def done(result: object) -> None:
    """Let a lambda do something and answer nothing."""


class BusCase(SynchronousTestCase):
    """A bus whose channels called ``short`` keep 2 events, and ``none...`` nothing."""

    def setUp(self) -> None:
        self.rig = self.make_rig()

    def make_rig(self, max_channels: int = 1000) -> BusRig:
        kept = {"short": Kept(2), **{name: Kept(0) for name in ("none", "none1", "none2")}}
        return BusRig(kept=kept, max_channels=max_channels)

    def tearDown(self) -> None:
        """Hold against every test: whatever happened, the counts agree with what is there."""
        subscribed = {one for each in self.rig.bus._audiences._by_name.values() for one in each}
        self.assertLessEqual(len(subscribed), self.rig.bus.subscribers)
        self.assertFalse(self.rig.bus.delivery._undelivered)
        self.assertFalse(self.rig.bus.delivery.is_delivering)

    def assertEnded(self, client: Client, *causes: CloseCause) -> None:
        self.assertEqual(client.causes, list(causes))

    def assertLive(self, client: Client) -> None:
        self.assertEqual(client.reasons, [])

    def assertNoSubscriptionLeft(self) -> None:
        bus, log = self.rig.bus, self.rig.log
        self.assertEqual(
            (bus.subscribers, len(bus._audiences._by_pattern), bus._audiences._by_pattern._places),
            (0, 0, {}),
        )
        self.assertEqual((bus._audiences._by_name, bus._owners, bus._names.used), ({}, {}, 0))
        self.assertEqual([name for name in log.by_name if log.by_name[name].is_heard], [])


class PublishTests(BusCase):
    def test_a_publisher_is_told_the_id_the_offset_and_how_many_got_it(self) -> None:
        self.rig.subscribe("a")
        self.rig.subscribe("*")
        self.rig.subscribe("b")
        self.assertEqual(self.rig.publish("a"), Published(f"{EPOCH}-1", "a", 1, 2))
        self.assertEqual(self.rig.publish("b", "a", id="given"), Published("given", "b", 1, 3))

    def test_every_subscriber_gets_every_event_in_the_order_of_the_offsets(self) -> None:
        clients = [self.rig.subscribe(text)[0] for text in ("a", "*", "**", "a")]
        self.rig.publish_each("a", b"1", b"2", b"3")
        for client in clients:
            self.assertEqual((client.datas, offsets(client.entries)), ([b"1", b"2", b"3"], [1, 2, 3]))

    def test_nobody_gets_what_they_did_not_subscribe_to(self) -> None:
        client, _, _ = self.rig.subscribe("a", "b/*")
        for channel in ("b", "c", "b/c/d", "a/b"):
            self.rig.publish(channel)
        self.assertEqual(client.entries, [])

    def test_a_channel_that_keeps_nothing_is_delivered_all_the_same(self) -> None:
        client, _, _ = self.rig.subscribe("none")
        self.rig.publish_each("none", b"1", b"2")
        self.assertEqual((client.datas, offsets(client.entries)), ([b"1", b"2"], [1, 2]))

    def test_who_matches_in_several_ways_gets_an_event_once(self) -> None:
        client, _, _ = self.rig.subscribe("a", "*", "**", "**/a")
        self.assertEqual(self.rig.publish("a").subscribers, 1)
        self.assertEqual(client.datas, [b"x"])

    def test_an_event_of_several_channels_comes_once_to_each_subscriber(self) -> None:
        both, _, _ = self.rig.subscribe("a", "b")
        one, _, _ = self.rig.subscribe("b")
        every, _, _ = self.rig.subscribe("**")
        self.assertEqual(self.rig.publish("a", "b", "c").subscribers, 3)
        self.assertEqual([entry.channel for entry in both.entries + one.entries + every.entries], list("aba"))

    def test_an_event_of_several_channels_is_kept_in_each(self) -> None:
        self.rig.publish("a", "short", "none", data=b"1")
        for channel, wanted in (("a", [b"1"]), ("short", [b"1"]), ("none", [])):
            self.assertEqual(self.rig.retained(channel), wanted)

    def test_without_the_right_nothing_is_published(self) -> None:
        client, _, _ = self.rig.subscribe("a")
        self.assertRaises(Forbidden, self.rig.bus.publish, draft("a"), NOTHING)
        self.assertRaises(Forbidden, self.rig.bus.publish, draft("a"), Grants.of(["subscribe"]))
        self.assertEqual((client.entries, self.rig.log.position), ([], BEGINNING))

    def test_a_retry_with_the_same_id_is_a_success_that_changes_nothing(self) -> None:
        client, _, _ = self.rig.subscribe("a")
        first = self.rig.publish("a", data=b"1", id="given")
        again = self.rig.publish("a", data=b"1", id="given")
        self.assertEqual(again, Published(first.id, first.channel, first.offset, 0, is_duplicate=True))
        self.assertEqual((client.datas, self.rig.retained("a")), ([b"1"], [b"1"]))
        self.assertEqual(self.rig.publish("a").offset, 2)

    def test_a_retry_is_the_same_whatever_the_order_of_the_channels_behind_the_first(self) -> None:
        self.rig.publish("a", "b", "c", id="given")
        self.assertEqual(self.rig.publish("a", "c", "b", id="given"), Published("given", "a", 1, 0, True))

    def test_an_id_with_other_content_is_refused_and_nothing_has_changed(self) -> None:
        client, _, _ = self.rig.subscribe("**")
        self.rig.publish("a", data=b"1", id="given")
        for other in (
            draft("a", data=b"2", id="given"),
            draft("a", data=b"1", type="t", id="given"),
            draft("a", "b", data=b"1", id="given"),
            Draft(("a",), b"1", False, None, "given"),
        ):
            error = self.assertRaises(Unprocessable, self.rig.bus.publish, other, EVERYTHING)
            self.assertEqual((error.status, error.field), (422, "id"))
        self.assertEqual((client.datas, self.rig.log.position), ([b"1"], f"{EPOCH}-1"))
        self.assertNotIn("b", list(self.rig.log.names()))

    def test_an_id_belongs_to_the_first_channel_and_to_no_other(self) -> None:
        self.rig.publish("a", "b", data=b"1", id="given")
        for channels in (("b",), ("c", "a")):
            self.assertFalse(self.rig.publish(*channels, data=b"2", id="given").is_duplicate)
        self.assertTrue(self.rig.publish("a", "b", data=b"1", id="given").is_duplicate)
        self.assertEqual(self.rig.log.event("b", "given").event.data, b"2")
        self.assertEqual(self.rig.log.event("a", "given").event.data, b"1")

    def test_an_id_that_is_no_longer_kept_may_be_used_again_anywhere(self) -> None:
        self.rig.publish("short", data=b"1", id="given")
        self.rig.publish_each("short", b"2", b"3")
        self.assertEqual(self.rig.publish("a", id="given"), Published("given", "a", 1, 0))

    def test_over_the_limit_of_channels_nothing_is_published(self) -> None:
        self.rig = self.make_rig(max_channels=2)
        client, _, _ = self.rig.subscribe("**")
        self.rig.publish("a")
        self.rig.publish("b")
        self.assertRaises(Unavailable, self.rig.publish, "c")
        self.assertRaises(Unavailable, self.rig.publish, "a", "c")
        self.assertEqual((len(client.entries), self.rig.log.position), (2, f"{EPOCH}-2"))
        self.assertEqual(self.rig.publish("a").offset, 2)

    def test_a_subscribed_channel_without_events_is_given_up_last(self) -> None:
        self.rig = self.make_rig(max_channels=2)
        client, _, _ = self.rig.subscribe("none1")
        self.rig.publish("none1")
        self.rig.publish("none2")
        self.rig.publish("a")
        self.rig.publish("none1")
        self.assertEqual(offsets(client.entries), [1, 2])
        self.rig.publish("b")
        self.assertEqual(sorted(self.rig.log.names()), ["a", "b"])
        self.rig.bus.delete("a", EVERYTHING)
        self.rig.publish("none1")
        self.assertGreater(client.entries[2].offset, 2)
        self.assertEqual(self.rig.bus.log.by_name["none1"].is_heard, True)

    def test_names_that_are_only_subscribed_to_leave_room_for_publishers(self) -> None:
        self.rig = self.make_rig(max_channels=2)
        subscriptions = [self.rig.subscribe(*(f"made/up/{n}/{m}" for m in range(100)))[1] for n in range(50)]
        client, _, _ = self.rig.subscribe("made/up/1/1")
        self.assertEqual(len(self.rig.log), 0)
        self.assertEqual(self.rig.publish("a").subscribers, 0)
        self.assertEqual(self.rig.publish("made/up/1/1").subscribers, 2)
        self.assertRaises(Unavailable, self.rig.publish, "c")
        self.assertEqual(len(client.entries), 1)
        for subscription in subscriptions:
            subscription.close()
        self.assertEqual(set(self.rig.bus._audiences._by_name), {"made/up/1/1"})

    def test_whoever_makes_up_names_uses_its_share_of_them_and_nobody_else_s(self) -> None:
        bus = self.rig.bus = Bus(
            self.rig.log,
            max_subscribed=100,
            max_held_bytes=1000,
            failed=lambda subscriber, error: None,
            names=Shares("names of channels", "[limits] channels", 20, 10),
            owner=lambda caller: caller.address,
        )
        self.rig.publish("real")

        def subscribe(address: str, *texts: str) -> Subscription:
            subscription = Subscription(bus, Client(), a_caller(address=address))
            subscription.check(patterns(*texts), "latest")
            subscription.add(patterns(*texts), "latest")
            return subscription

        first = subscribe("192.0.2.1", "one", "two", "real", "*", "**")
        for texts in (("three",), ("one", "four"), ("two", "five", "real")):
            self.assertRaises(TooMany, subscribe, "192.0.2.1", *texts)
        again = subscribe("192.0.2.1", "one", "two", "real")
        other = subscribe("192.0.2.2", "one", "three", "four")
        self.assertEqual(bus._names.used, 4)
        self.assertEqual(set(bus._audiences._by_name), {"one", "two", "real", "three", "four"})
        first.close()
        self.assertEqual(bus._names.used_by("192.0.2.1"), 2)
        again.close()
        self.assertEqual(bus._names.used_by("192.0.2.1"), 1)  # for the one that another is subscribed to as well
        subscribe("192.0.2.1", "five").close()
        other.close()
        for number in range(10):
            subscribe(f"192.0.2.{number}", f"{number}/a", f"{number}/b")
        self.assertRaises(Unavailable, subscribe, "192.0.2.200", "more")
        self.assertEqual(bus.subscriptions, 20)

    def test_who_subscribed_by_pattern_gets_a_channel_that_was_given_up_and_came_back(self) -> None:
        self.rig = self.make_rig(max_channels=1)
        client, _, _ = self.rig.subscribe("**")
        for channel in ("none1", "none2", "none1"):
            self.rig.publish(channel)
        self.assertEqual([entry.channel for entry in client.entries], ["none1", "none2", "none1"])
        self.assertGreater(client.entries[2].offset, client.entries[0].offset)


class SubscribeTests(BusCase):
    def test_from_latest_comes_what_is_published_from_now_on(self) -> None:
        self.rig.publish("a", data=b"1")
        client, subscription, start = self.rig.subscribe("a", since="latest")
        self.assertFalse(subscription.is_replaying)
        self.rig.publish("a", data=b"2")
        self.assertEqual((client.datas, start.position, start.recovered), ([b"2"], f"{EPOCH}-1", True))

    def test_from_earliest_comes_everything_that_is_kept(self) -> None:
        self.rig.publish_each("short", b"1", b"2", b"3")
        client, start = self.rig.caught_up("short", since="earliest")
        self.rig.publish("short", data=b"4")
        self.assertEqual((client.datas, start.recovered), ([b"2", b"3", b"4"], True))

    def test_from_an_id_comes_everything_since(self) -> None:
        ids = [published.id for published in self.rig.publish_each("a", b"1", b"2", b"3")]
        for place, since in enumerate([BEGINNING, *ids]):
            client, start = self.rig.caught_up("a", since=since)
            self.assertEqual((client.datas, start.recovered), ([b"1", b"2", b"3"][place:], True))
            self.assertEqual(start.position, since)

    def test_from_an_expired_id_comes_what_is_left_and_it_is_said(self) -> None:
        self.rig.publish_each("short", b"1", b"2", b"3")
        client, start = self.rig.caught_up("short", since=BEGINNING)
        self.assertEqual((client.datas, start.recovered), ([b"2", b"3"], False))

    def test_from_an_unknown_id_comes_everything_and_it_is_said(self) -> None:
        self.rig.publish_each("a", b"1", b"2")
        for since in ("no such id", "abcdefghij-1", f"{EPOCH}-3"):
            client, start = self.rig.caught_up("a", "**", since=since)
            self.assertEqual((client.datas, start.recovered), ([b"1", b"2"], False))

    def test_the_position_of_the_start_is_one_to_go_on_from(self) -> None:
        self.rig.publish_each("a", b"1", b"2")
        for since in ("latest", "earliest", "no such id", f"{EPOCH}-1"):
            client, start = self.rig.caught_up("a", "*", since=since)
            again, restart = self.rig.caught_up("a", "*", since=start.position)
            self.assertEqual((again.datas, restart.recovered), (client.datas, True), since)

    def test_a_pattern_is_replayed_in_the_order_of_the_log(self) -> None:
        for number, channel in enumerate("abacba"):
            self.rig.publish(channel, data=b"%d" % number)
        client, _ = self.rig.caught_up("*", since="earliest")
        self.assertEqual(client.datas, [b"0", b"1", b"2", b"3", b"4", b"5"])

    def test_what_is_published_during_the_replay_comes_after_it_once(self) -> None:
        self.rig.publish_each("a", b"1", b"2", b"3")
        client, subscription, _ = self.rig.subscribe("a", "*", since="earliest")
        subscription.advance()
        self.rig.publish("a", data=b"4")
        self.rig.publish("b", "a", data=b"5")
        self.assertEqual(client.datas, [b"1"])
        catch_up(subscription)
        self.rig.publish("a", data=b"6")
        self.assertEqual(client.datas, [b"1", b"2", b"3", b"4", b"5", b"6"])

    def test_what_is_published_between_the_last_advances_comes_in_order(self) -> None:
        self.rig.publish("a", data=b"1")
        client, subscription, _ = self.rig.subscribe("a", since="earliest")
        self.assertTrue(subscription.advance())
        self.rig.publish("a", data=b"2")
        self.assertEqual((client.datas, subscription.is_replaying), ([b"1"], True))
        self.assertTrue(subscription.advance())
        self.assertFalse(subscription.advance())
        self.assertEqual((client.datas, subscription.is_replaying), ([b"1", b"2"], False))
        self.assertFalse(subscription.advance())

    def test_several_at_once_are_one_subscription(self) -> None:
        client, subscription, _ = self.rig.subscribe("a", "b/*", "a")
        self.assertEqual((len(subscription), self.rig.bus.subscribers), (2, 1))
        self.rig.publish("a", "b/c")
        self.assertEqual(len(client.entries), 1)

    def test_more_may_be_added_to_a_live_subscription(self) -> None:
        self.rig.publish("b", data=b"1")
        client, subscription, _ = self.rig.subscribe("a")
        start = subscription.add(patterns("b"), "earliest")
        self.rig.publish("a", data=b"2")
        self.rig.publish("b", data=b"3")
        catch_up(subscription)
        self.assertEqual((client.datas, start.recovered), ([b"1", b"2", b"3"], True))

    def test_more_may_be_added_during_a_replay(self) -> None:
        for number, channel in enumerate("abab"):
            self.rig.publish(channel, data=b"%d" % number)
        client, subscription, _ = self.rig.subscribe("a", since="earliest")
        subscription.add(patterns("b"), "earliest")
        catch_up(subscription)
        self.assertEqual(client.datas, [b"0", b"1", b"2", b"3"])

    def test_adding_from_latest_during_a_replay_does_not_end_it(self) -> None:
        self.rig.publish_each("a", b"1", b"2")
        client, subscription, _ = self.rig.subscribe("a", since="earliest")
        subscription.add(patterns("b"), "latest")
        self.rig.publish("b", data=b"3")
        catch_up(subscription)
        self.assertEqual(client.datas, [b"1", b"2", b"3"])

    def test_each_of_several_groups_has_its_start_and_all_come_in_order(self) -> None:
        ids = [self.rig.publish(channel, data=b"%d" % n).id for n, channel in enumerate("aabb")]
        self.rig.bus.delete("b", EVERYTHING)
        self.rig.publish("b", data=b"4")
        client, subscription, _ = self.rig.subscribe()
        starts = subscription.add_each([patterns("a"), patterns("b")], ids[0])
        catch_up(subscription)
        self.assertEqual([(start.position, start.recovered) for start in starts], [(ids[0], True), (ids[0], False)])
        self.assertEqual(client.datas, [b"1", b"4"])

    def test_all_groups_are_checked_before_anything_changes(self) -> None:
        _, subscription, _ = self.rig.subscribe(grants=Grants.of((), (), patterns("a", "c/*")))
        found: list[object] = []

        def checked() -> None:
            found.append((len(subscription), self.rig.bus.has_audience("a")))

        for groups, since in (([["a"], ["b"]], "latest"), ([["c/*"], ["a"], ["b"]], "earliest")):
            wanted = [patterns(*texts) for texts in groups]
            self.assertRaises(Forbidden, subscription.add_each, wanted, since, checked=checked)
            self.assertEqual((found, len(subscription), subscription.is_replaying), ([], 0, False))
        subscription.add_each([patterns("a"), patterns("c/*")], "latest", checked=checked)
        self.assertEqual((found, len(subscription)), ([(0, False)], 2))

    def test_two_channels_from_different_positions_lose_nothing(self) -> None:
        ids = [self.rig.publish(channel, data=b"%d" % n).id for n, channel in enumerate("abab")]
        client, subscription, _ = self.rig.subscribe("a", since=ids[0])
        subscription.add(patterns("b"), BEGINNING)
        catch_up(subscription)
        self.assertEqual(client.datas, [b"1", b"2", b"3"])

    def test_unsubscribed_nothing_of_it_comes_any_more(self) -> None:
        client, subscription, _ = self.rig.subscribe("a", "b/*", "c")
        self.assertTrue(subscription.remove("a"))
        self.assertTrue(subscription.remove("b/*"))
        for channel in ("a", "b/c", "c"):
            self.rig.publish(channel, data=channel.encode())
        self.assertEqual((client.datas, len(subscription)), ([b"c"], 1))
        self.assertFalse(subscription.remove("a"))
        self.assertFalse(subscription.remove("no such channel"))

    def test_unsubscribed_from_one_of_two_ways_it_still_comes(self) -> None:
        for kept, removed in (("a", "*"), ("*", "a"), ("*", "**/*"), ("**/*", "*"), ("**", "**/**")):
            client, subscription, _ = self.rig.subscribe(kept, removed)
            subscription.remove(removed)
            self.rig.publish("a")
            self.assertEqual(len(client.entries), 1, (kept, removed))
            subscription.close()
        self.assertNoSubscriptionLeft()

    def test_subscribed_again_it_comes_again(self) -> None:
        for text in ("a", "*"):
            client, subscription, _ = self.rig.subscribe(text)
            self.rig.publish("a")
            subscription.remove(text)
            self.rig.publish("a")
            subscription.add(patterns(text), "latest")
            self.rig.publish("a")
            self.assertEqual(len(client.entries), 2)

    def test_after_close_nothing_comes_and_close_may_be_called_again(self) -> None:
        self.rig.publish_each("a", b"1", b"2")
        client, subscription, _ = self.rig.subscribe("a", since="earliest")
        subscription.advance()
        subscription.close()
        self.assertFalse(subscription.advance())
        self.rig.publish("a")
        subscription.close()
        self.assertEqual((client.datas, client.reasons, self.rig.bus.subscribers), ([b"1"], [], 0))

    def test_over_max_subscribed_nothing_is_added(self) -> None:
        rig = self.rig = BusRig(max_subscribed=3)
        client, subscription, _ = rig.subscribe("a", "*/b")
        self.assertRaises(BadRequest, subscription.add, patterns("c", "d"), "earliest")
        self.assertEqual((len(subscription), list(rig.bus._audiences.names)), (2, ["a"]))
        self.assertFalse(subscription.is_replaying)
        rig.publish("c")
        self.assertEqual(client.entries, [])
        subscription.add(patterns("a", "*/b", "c"), "latest")
        self.assertEqual(len(subscription), 3)

    def test_without_the_right_nothing_is_added(self) -> None:
        client = Client()
        subscription = Subscription(self.rig.bus, client, a_caller(Grants.of(["publish"])))
        self.assertRaises(Forbidden, subscription.add, patterns("a"), "earliest")
        self.rig.publish("a")
        self.assertEqual((client.entries, len(subscription)), ([], 0))

    def test_patterns_do_not_count_against_the_limit_of_channels(self) -> None:
        self.rig = self.make_rig(max_channels=1)
        client, _, _ = self.rig.subscribe("b/*", "*", "**")
        self.rig.publish("a")
        self.assertEqual(len(client.entries), 1)

    def test_what_is_refused_leaves_a_replay_that_is_under_way_as_it_was(self) -> None:
        self.rig.bus.max_subscribed = 2
        ids = [told.id for told in self.rig.publish_each("a", b"1", b"2", b"3")]
        client, subscription, _ = self.rig.subscribe("a", since=ids[1])
        with self.assertRaises(BadRequest):
            subscription.add(patterns("*", "b"), "earliest")
        catch_up(subscription)
        self.assertEqual(client.datas, [b"3"])

    def test_what_is_added_to_a_replay_is_read_from_the_earlier_place(self) -> None:
        ids = [self.rig.publish(name, data=data).id for name, data in (("a", b"1"), ("b", b"2"), ("a", b"3"))]
        client, subscription, _ = self.rig.subscribe("a", since=ids[1])
        subscription.add(patterns("*"), "earliest")
        catch_up(subscription)
        self.assertEqual(client.datas, [b"1", b"2", b"3"])


class SlowSubscriberTests(BusCase):
    def test_a_replay_that_the_history_overtakes_ends_as_too_slow(self) -> None:
        self.rig.publish_each("short", b"1", b"2")
        client, subscription, _ = self.rig.subscribe("short", since="earliest")
        self.rig.publish_each("short", b"3", b"4")
        self.assertFalse(subscription.advance())
        self.assertEnded(client, CloseCause.TOO_SLOW)
        self.assertEqual((client.entries, self.rig.bus.subscribers), ([], 0))

    def test_the_last_id_of_who_was_too_slow_is_one_to_resume_from(self) -> None:
        self.rig.publish_each("short", b"1", b"2")
        client, subscription, _ = self.rig.subscribe("short", since="earliest")
        subscription.advance()
        self.rig.publish_each("short", b"3")
        catch_up(subscription)
        self.rig.publish_each("short", b"4")
        again, start = self.rig.caught_up("short", since=client.entries[-1].event.id)
        self.assertEqual((client.datas + again.datas)[-1], b"4")
        self.assertTrue(start.recovered)

    def test_a_replay_is_overtaken_by_expiry_as_well(self) -> None:
        self.rig.publish_each("a", b"1", b"2")
        client, subscription, _ = self.rig.subscribe("a", since="earliest")
        self.rig.clock.advance(3600)
        self.rig.log.expire()
        catch_up(subscription)
        self.assertEnded(client, CloseCause.TOO_SLOW)

    def test_up_to_the_limit_bytes_are_held_and_beyond_it_the_subscription_ends(self) -> None:
        self.rig = BusRig(max_held_bytes=10 + 2 * ENTRY_BYTES, default=Kept(0))
        for more, causes in ((b"", []), (b"x", [CloseCause.TOO_SLOW])):
            client, subscription, _ = self.rig.subscribe("a", since="earliest")
            self.rig.publish_each("a", b"12345", b"12345", *([more] if more else []))
            self.assertEqual(client.causes, causes)
            catch_up(subscription)
            self.assertEqual(len(client.entries) > 0, not causes)
            subscription.close()

    def test_beyond_the_limit_what_a_history_retains_is_read_from_there(self) -> None:
        self.rig = BusRig(max_held_bytes=10 + 2 * ENTRY_BYTES)
        client, subscription, _ = self.rig.subscribe("a", since="earliest")
        datas = [b"%d" % number for number in range(50)]
        self.rig.publish_each("a", *datas)
        self.assertLessEqual(held_bytes(subscription), self.rig.bus.max_held_bytes)
        catch_up(subscription)
        self.assertEqual((client.datas, subscription.is_replaying), (datas, False))

    def test_a_client_that_reads_twice_as_fast_as_is_published_becomes_live(self) -> None:
        for texts in (("a",), ("*",), ("a", "b")):
            self.rig = BusRig(max_held_bytes=2000, default=Kept(1000))
            datas = [b"%d" % number + b"x" * 100 for number in range(400)]
            self.rig.publish_each("a", *datas)
            client, subscription, _ = self.rig.subscribe(*texts, since="earliest")
            steps = 0
            while subscription.is_replaying and steps < 1000:
                steps += 1
                datas.append(b"more %d" % steps + b"x" * 100)
                self.rig.publish("a", data=datas[-1])
                self.assertLessEqual(held_bytes(subscription), 2000)
                for _ in range(2):
                    subscription.advance()
            self.assertLive(client)
            self.assertEqual(client.datas, datas)
            self.assertLess(steps, 500)

    def test_room_is_made_for_what_no_history_retains_by_what_one_does(self) -> None:
        self.rig = BusRig(max_held_bytes=5 * (1 + ENTRY_BYTES), kept={"none": Kept(0)})
        client, _, _ = self.rig.subscribe("*", since="earliest")
        self.rig.publish_each("a", *[b"1"] * 5)
        self.rig.publish_each("none", *[b"2"] * 5)
        self.rig.publish_each("a", *[b"3"] * 5)
        self.assertLive(client)
        self.rig.publish("none", data=b"4")
        self.assertEnded(client, CloseCause.TOO_SLOW)

    def test_an_event_of_several_channels_is_left_to_all_of_their_histories(self) -> None:
        for removed in ("a", "b"):
            self.rig = BusRig(max_held_bytes=0)
            client, subscription, _ = self.rig.subscribe("a", "b", since="earliest")
            self.rig.publish_each("a", b"0")
            self.rig.publish("a", "b", data=b"1")
            subscription.remove(removed)
            catch_up(subscription)
            self.assertEqual(client.datas, [b"1"] if removed == "a" else [b"0", b"1"])

    def test_what_is_left_to_a_history_and_dropped_there_is_too_late(self) -> None:
        self.rig = BusRig(max_held_bytes=0, default=Kept(3))
        client, subscription, _ = self.rig.subscribe("a", since="earliest")
        self.rig.publish_each("a", b"1", b"2", b"3")
        self.assertLive(client)
        self.rig.publish("a", data=b"4")
        self.assertEqual(client.causes, [])
        catch_up(subscription)
        self.assertEnded(client, CloseCause.TOO_SLOW)

    def test_one_event_fits_whatever_the_limit_is(self) -> None:
        self.rig = BusRig(max_held_bytes=0, default=Kept(0))
        client, subscription, _ = self.rig.subscribe("a", since="earliest")
        self.rig.publish("a", data=b"x" * 1000)
        catch_up(subscription)
        self.assertEqual((client.datas, client.causes), ([b"x" * 1000], []))

    def test_what_was_replayed_no_longer_counts_as_held(self) -> None:
        self.rig = BusRig(max_held_bytes=10 + ENTRY_BYTES)
        client, subscription, _ = self.rig.subscribe("a", since="earliest")
        for _ in range(5):
            self.rig.publish("a", data=b"1234567890")
            subscription.advance()
        self.assertLive(client)
        self.assertEqual(len(client.entries), 5)

    def test_a_slow_subscriber_does_not_end_or_delay_another(self) -> None:
        self.rig = BusRig(max_held_bytes=0, default=Kept(0))
        before, _, _ = self.rig.subscribe("a")
        slow, _, _ = self.rig.subscribe("a", since="earliest")
        after, _, _ = self.rig.subscribe("a")
        self.rig.publish_each("a", b"1", b"2")
        self.assertEnded(slow, CloseCause.TOO_SLOW)
        self.assertEqual((len(before.entries), len(slow.entries), len(after.entries)), (2, 0, 2))

    def test_what_comes_live_is_never_held(self) -> None:
        self.rig = BusRig(max_held_bytes=0)
        client, _, _ = self.rig.subscribe("a")
        self.rig.publish("a", data=b"x" * 1000)
        self.assertEqual(len(client.entries), 1)


def held_bytes(subscription: Subscription) -> int:
    """Return how much is held for a subscription, in bytes."""
    replay = subscription._replay
    return 0 if replay is None else replay.held_bytes


class UnreadableTests(BusCase):
    """A replay whose next event cannot be had: each way to read it ends the subscription, with the reason."""

    def advance(self, error: Exception, *, by_run: bool) -> Client:
        """Subscribe from the beginning, read once with `error`, and return the client."""
        self.rig.publish("a")
        client, subscription, _ = self.rig.subscribe("a", since="earliest")

        def fail(*_: object) -> None:
            raise error

        with patch.object(Replay, "run", fail), patch.object(Replay, "next", fail):
            self.assertFalse(subscription.advance_run(1000) if by_run else subscription.advance())
        self.assertEqual(client.entries, [])
        self.assertNoSubscriptionLeft()
        return client

    def test_an_event_that_is_gone(self) -> None:
        for by_run in (False, True):
            self.assertEnded(self.advance(Overtaken(), by_run=by_run), CloseCause.TOO_SLOW)

    def test_a_store_that_cannot_be_read(self) -> None:
        for by_run in (False, True):
            client = self.advance(Unavailable("the disk is gone"), by_run=by_run)
            self.assertEqual(client.reasons, [CloseReason(CloseCause.FAILED, "the disk is gone")])

    def test_no_memory_for_it(self) -> None:
        for by_run in (False, True):
            memory.is_short = False
            client = self.advance(MemoryError(), by_run=by_run)
            self.assertEqual(client.reasons, [CloseReason(CloseCause.FAILED, OutOfMemory().detail)])
            self.assertTrue(memory.is_short)

    def test_a_live_subscriber_has_no_run(self) -> None:
        self.rig.publish("a")
        client, subscription, _ = self.rig.subscribe("a")
        self.assertEqual(subscription.advance_run(1000), [])
        self.assertLive(client)


class IsolationTests(BusCase):
    def test_who_raises_is_dropped_and_counted_and_the_others_get_the_event(self) -> None:
        before, _, _ = self.rig.subscribe("a")
        faulty, _, _ = self.rig.subscribe("a", client=Client(acts=fail))
        after, _, _ = self.rig.subscribe("*")
        self.assertEqual(self.rig.publish("a").subscribers, 3)
        self.rig.publish("a")
        self.assertEqual([len(one.entries) for one in (before, faulty, after)], [2, 1, 2])
        self.assertEnded(faulty, CloseCause.FAILED)
        self.assertEqual((self.rig.bus.failures, self.rig.bus.subscribers), (1, 2))
        ((subscriber, error),) = self.rig.failed
        self.assertIs(subscriber, faulty)
        self.assertIsInstance(error, ZeroDivisionError)

    def test_who_raises_in_close_too_does_no_harm(self) -> None:
        self.rig.subscribe("a", client=Client(acts=fail, at_close=fail))
        after, _, _ = self.rig.subscribe("a")
        self.rig.publish("a")
        self.assertEqual((len(after.entries), self.rig.bus.subscribers, len(self.rig.failed)), (1, 1, 2))
        self.assertEqual(self.rig.bus.failures, 1)

    def test_who_raises_during_the_replay_is_dropped(self) -> None:
        self.rig.publish_each("a", b"1", b"2")
        faulty, subscription, _ = self.rig.subscribe("a", since="earliest", client=Client(acts=fail))
        self.assertFalse(subscription.advance())
        self.assertFalse(subscription.advance())
        self.assertEnded(faulty, CloseCause.FAILED)
        self.assertEqual((faulty.datas, self.rig.bus.failures), ([b"1"], 1))
        self.assertNoSubscriptionLeft()

    def test_who_raises_in_close_when_a_channel_is_deleted_does_not_save_the_others(self) -> None:
        faulty, _, _ = self.rig.subscribe("a", client=Client(at_close=fail))
        other, _, _ = self.rig.subscribe("a")
        self.rig.bus.delete("a", EVERYTHING)
        self.assertEnded(faulty, CloseCause.DELETED)
        self.assertEnded(other, CloseCause.DELETED)
        self.assertEqual(len(self.rig.failed), 1)
        self.assertNoSubscriptionLeft()

    def test_whatever_patterns_it_has_a_failing_subscriber_does_not_stop_the_others(self) -> None:
        """Patterns that share a way through the tree: they must not trip over each other as they leave."""
        texts = ("*", "**/*", "**.*", "**", "**/**", "a/**", "a/**/**", "**/a", "a")
        faulty, _, _ = self.rig.subscribe(*texts, client=Client(acts=fail))
        other, _, _ = self.rig.subscribe("**")
        self.rig.publish("a")
        self.rig.publish("a")
        self.assertEnded(faulty, CloseCause.FAILED)
        self.assertEqual((len(faulty.entries), len(other.entries)), (1, 2))
        self.assertEqual(self.rig.bus.subscribers, 1)


class ReentryTests(BusCase):
    """A subscriber that does something with the bus from within `deliver`."""

    def acting_once(self, act: object) -> Client:
        """Make a client that calls `act` with its first event."""
        client = Client()

        def acts(entry: Entry) -> None:
            client.acts = lambda entry: None
            assert callable(act)
            act(entry)

        client.acts = acts
        return client

    def test_what_is_published_within_deliver_comes_to_all_after_the_event_at_hand(self) -> None:
        relay, _, _ = self.rig.subscribe(
            "a", client=self.acting_once(lambda _: self.rig.publish_each("a", b"2", b"3"))
        )
        others = [self.rig.subscribe(text)[0] for text in ("a", "*")]
        self.rig.publish("a", data=b"1")
        for client in (relay, *others):
            self.assertEqual((client.datas, offsets(client.entries)), ([b"1", b"2", b"3"], [1, 2, 3]))

    def test_who_publishes_within_deliver_is_told_how_many_will_get_it(self) -> None:
        told: list[Published] = []
        self.rig.subscribe("a", client=self.acting_once(lambda _: told.append(self.rig.publish("b"))))
        self.rig.subscribe("b")
        self.rig.publish("a")
        self.assertEqual(told, [Published(f"{EPOCH}-2", "b", 1, 1)])

    def test_who_raises_after_publishing_within_deliver_does_not_take_it_back(self) -> None:
        def publish_and_fail(entry: Entry) -> None:
            self.rig.publish("a", data=b"2")
            fail()

        faulty, _, _ = self.rig.subscribe("a", client=self.acting_once(publish_and_fail))
        other, _, _ = self.rig.subscribe("a")
        self.rig.publish("a", data=b"1")
        self.assertEqual((faulty.datas, other.datas), ([b"1"], [b"1", b"2"]))

    def test_who_subscribes_within_deliver_is_dropped_as_a_fault(self) -> None:
        client = Client()
        _, subscription, _ = self.rig.subscribe("a", client=client)
        client.acts = lambda entry: subscription.add(patterns("b"), "latest")
        other, _, _ = self.rig.subscribe("a")
        self.rig.publish("a", data=b"1")
        self.assertEqual(([type(error) for _, error in self.rig.failed], other.datas), ([AssertionError], [b"1"]))
        self.assertEnded(client, CloseCause.FAILED)

    def test_who_closes_within_deliver_gets_nothing_more(self) -> None:
        client = Client()
        _, subscription, _ = self.rig.subscribe("a", client=client)

        def publish_and_close(entry: Entry) -> None:
            self.rig.publish("a", data=b"2")
            subscription.close()

        client.acts = publish_and_close
        self.rig.publish("a", data=b"1")
        self.assertEqual((client.datas, client.reasons), ([b"1"], []))
        self.assertNoSubscriptionLeft()

    def test_who_ends_another_within_deliver_keeps_the_event_at_hand_from_it(self) -> None:
        first = Client()
        self.rig.subscribe("a", client=first)
        second, subscription, _ = self.rig.subscribe("a")
        third, _, _ = self.rig.subscribe("a")
        first.acts = lambda _: subscription.close()
        self.rig.publish("a")
        self.assertEqual([len(one.entries) for one in (first, second, third)], [1, 0, 1])

    def test_who_unsubscribes_within_deliver_gets_what_comes_on_its_other_channels(self) -> None:
        client = Client()
        _, subscription, _ = self.rig.subscribe("a", "b", client=client)
        client.acts = lambda _: done(subscription.remove("a"))
        for channel in "aabb":
            self.rig.publish(channel, data=channel.encode())
        self.assertEqual(client.datas, [b"a", b"b", b"b"])

    def test_who_unsubscribes_within_deliver_gets_nothing_of_it_from_the_queue(self) -> None:
        client = Client()
        _, subscription, _ = self.rig.subscribe("a", "b", client=client)

        def publish_and_unsubscribe(entry: Entry) -> None:
            client.acts = lambda entry: None
            self.rig.publish("a", data=b"2")
            self.rig.publish("b", data=b"3")
            subscription.remove("a")

        client.acts = publish_and_unsubscribe
        self.rig.publish("a", data=b"1")
        self.assertEqual(client.datas, [b"1", b"3"])

    def test_who_deletes_the_channel_within_deliver_ends_all_its_subscribers(self) -> None:
        first, _, _ = self.rig.subscribe(
            "a", client=self.acting_once(lambda _: self.rig.bus.delete("a", EVERYTHING))
        )
        second, _, _ = self.rig.subscribe("a")
        self.rig.publish("a")
        self.assertEnded(first, CloseCause.DELETED)
        self.assertEnded(second, CloseCause.DELETED)
        self.assertEqual((len(first.entries), len(second.entries)), (1, 0))

    def test_who_publishes_during_its_replay_gets_it_at_the_end(self) -> None:
        self.rig.publish_each("a", b"1", b"2")
        client = self.acting_once(lambda _: self.rig.publish("a", data=b"3"))
        _, subscription, _ = self.rig.subscribe("a", since="earliest", client=client)
        catch_up(subscription)
        self.assertEqual(client.datas, [b"1", b"2", b"3"])

    def test_who_publishes_in_close_reaches_the_others(self) -> None:
        self.rig.subscribe(
            "a", client=Client(acts=fail, at_close=lambda _: done(self.rig.publish("a", data=b"bye")))
        )
        other, _, _ = self.rig.subscribe("a")
        self.rig.publish("a", data=b"1")
        self.assertEqual(other.datas, [b"1", b"bye"])

    def test_who_subscribes_anew_in_close_is_subscribed(self) -> None:
        client = Client()
        client.at_close = lambda _: done(self.rig.subscribe("a", client=client))
        self.rig.subscribe("a", client=client)
        self.rig.bus.delete("a", EVERYTHING)
        self.rig.publish("a")
        self.assertEqual((client.causes, len(client.entries)), ([CloseCause.DELETED], 1))

    def test_who_has_ended_is_not_ended_again(self) -> None:
        """Two subscriptions of one connection: the end of one closes the other."""
        second = Client()
        first = Client(at_close=lambda _: subscription.close())
        self.rig.subscribe("a", client=first)
        _, subscription, _ = self.rig.subscribe("a", client=second)
        self.rig.bus.delete("a", EVERYTHING)
        self.assertEnded(first, CloseCause.DELETED)
        self.assertEnded(second)

    def test_a_fault_after_the_end_of_the_subscription_is_counted_but_not_an_end_again(self) -> None:
        client = Client()
        _, subscription, _ = self.rig.subscribe("a", client=client)

        def close_and_fail(entry: Entry) -> None:
            subscription.close()
            fail()

        client.acts = close_and_fail
        self.rig.publish("a")
        self.assertEqual(len(self.rig.failed), 1)
        self.assertEnded(client)


class DeleteTests(BusCase):
    def test_the_history_is_forgotten_and_who_subscribed_by_name_is_told(self) -> None:
        self.rig.publish_each("a", b"1", b"2")
        by_name, _, _ = self.rig.subscribe("a", "b")
        by_pattern, _, _ = self.rig.subscribe("*")
        elsewhere, _, _ = self.rig.subscribe("b")
        self.rig.bus.delete("a", EVERYTHING)
        self.assertEnded(by_name, CloseCause.DELETED)
        self.assertLive(by_pattern)
        self.assertLive(elsewhere)
        self.assertEqual(self.rig.retained("a"), [])
        self.assertEqual(self.rig.bus.subscribers, 2)

    def test_deleted_its_offsets_go_on_and_its_past_is_missed(self) -> None:
        self.rig.publish_each("a", b"1", b"2")
        self.rig.bus.delete("a", EVERYTHING)
        by_pattern, _, _ = self.rig.subscribe("*")
        self.assertEqual(self.rig.publish("a", data=b"3").offset, 3)
        self.assertEqual(by_pattern.datas, [b"3"])
        client, start = self.rig.caught_up("a", since=f"{EPOCH}-1")
        self.assertEqual((client.datas, start.recovered), ([b"3"], False))

    def test_what_was_never_there_cannot_be_deleted(self) -> None:
        self.assertRaises(NotFound, self.rig.bus.delete, "a", EVERYTHING)
        self.assertRaises(BadRequest, self.rig.bus.delete, "a/*", EVERYTHING)

    def test_without_the_right_nothing_is_deleted(self) -> None:
        self.rig.publish("a", data=b"1")
        reader = Grants.of(["subscribe"])
        self.assertRaises(Forbidden, self.rig.bus.delete, "a", reader)
        self.assertEqual(self.rig.retained("a"), [b"1"])


class ReadingTests(BusCase):
    def test_the_state_of_a_channel_says_what_is_there(self) -> None:
        self.rig.publish_each("short", b"1", b"2", b"3")
        self.rig.subscribe("short")
        self.rig.subscribe("**")
        state = self.rig.bus.state("short", EVERYTHING)
        self.assertEqual((state.channel, state.subscribers, state.retained), ("short", 2, 2))
        assert state.oldest is not None
        assert state.latest is not None
        self.assertEqual(offsets([state.oldest, state.latest]), [2, 3])
        self.assertEqual(state.position, f"{EPOCH}-3")

    def test_a_channel_that_nobody_used_is_empty_and_is_not_made_by_looking(self) -> None:
        self.rig.subscribe("*")
        state = self.rig.bus.state("a", EVERYTHING)
        self.assertEqual((state.subscribers, state.retained, state.oldest, state.latest), (1, 0, None, None))
        self.assertEqual(len(self.rig.log), 0)
        self.assertRaises(BadRequest, self.rig.bus.state, "a/*", EVERYTHING)

    def test_the_state_does_not_count_what_is_too_old(self) -> None:
        self.rig.publish("a")
        self.rig.clock.advance(3600)
        self.assertEqual(self.rig.bus.state("a", EVERYTHING).retained, 0)

    def test_channels_are_listed_in_pages_by_name(self) -> None:
        names = ["a", "b", "b/1", "b/2", "b/3", "c", "é"]
        for name in reversed(names):
            self.rig.publish(name)
        found, after = list[str](), ""
        while page := self.rig.bus.states(EVERYTHING, prefix="", after=after, limit=2):
            self.assertLessEqual(len(page), 2)
            found += [state.channel for state in page]
            after = found[-1]
        self.assertEqual(found, names)
        page = self.rig.bus.states(EVERYTHING, prefix="b/", after="b/1", limit=9)
        self.assertEqual([(state.channel, state.retained) for state in page], [("b/2", 1), ("b/3", 1)])

    def test_one_event_is_answered_by_channel_and_id(self) -> None:
        self.rig.publish("a", data=b"1", id="given")
        self.assertEqual(self.rig.bus.event("a", "given", EVERYTHING).event.data, b"1")
        self.assertRaises(NotFound, self.rig.bus.event, "a", "other", EVERYTHING)

    def test_without_the_right_nothing_can_be_read(self) -> None:
        self.rig.publish("a", id="given")
        grants = Grants.of(["publish"])
        bus = self.rig.bus
        self.assertRaises(Forbidden, bus.event, "a", "given", grants)
        self.assertRaises(Forbidden, bus.read, patterns("a"), "earliest", 1, grants)
        self.assertRaises(Forbidden, bus.state, "a", grants)
        self.assertRaises(Forbidden, bus.states, grants, prefix="", after="", limit=1)

    def test_whether_there_is_an_audience_is_known_before_publishing(self) -> None:
        bus = self.rig.bus
        self.assertFalse(bus.has_audience("a"))
        _, subscription, _ = self.rig.subscribe("a")
        self.rig.subscribe("b/*")
        self.assertTrue(bus.has_audience("a"))
        self.assertTrue(bus.has_audience("b/c"))
        subscription.close()
        self.assertFalse(bus.has_audience("a"))

    def test_the_audience_follows_every_change_of_channels_and_patterns(self) -> None:
        subscriptions: list[Subscription] = []
        for text in ("a", "*", "**", "a"):
            self.assertEqual(self.rig.publish("a").subscribers, len(subscriptions))
            subscriptions.append(self.rig.subscribe(text)[1])
        for count, subscription in enumerate(subscriptions):
            self.assertEqual(self.rig.publish("a").subscribers, 4 - count)
            subscription.close()
        self.assertEqual(self.rig.publish("a").subscribers, 0)


class NothingLeftTests(BusCase):
    def test_no_state_is_left_when_all_is_closed_and_too_old(self) -> None:
        self.rig = self.make_rig(max_channels=20)
        subscriptions = []
        for since in ("latest", "earliest", "no such id"):
            for texts in (("a", "b", "c"), ("*", "**"), ("a", "**/a", "a/**"), ("none", "never")):
                subscriptions.append(self.rig.subscribe(*texts, since=since)[1])
        self.rig.publish("a", "b", id="given")
        self.rig.publish("none", "short", id="other")
        for subscription in subscriptions:
            subscription.advance()
            subscription.close()
        self.assertNoSubscriptionLeft()
        self.rig.clock.advance(3600)
        self.rig.log.expire()
        log = self.rig.log
        self.assertEqual((len(self.rig.archive._given), len(log._retention_queue._expiries)), (0, 0))
        self.assertEqual(sorted(log.names()), ["a", "b", "none", "short"])
        self.assertEqual({channel.name for channel in log._idle}, {"a", "b", "none", "short"})
        self.assertEqual({channel.name for channel in log._by_sequence}, {"a", "b", "none", "short"})
        self.rig.publish(*(f"new{number}" for number in range(20)))
        self.assertEqual((len(log), len(log._by_sequence), len(log._idle)), (20, 20, 0))

    def test_a_channel_that_was_only_subscribed_to_is_gone_with_its_last_subscriber(self) -> None:
        _, first, _ = self.rig.subscribe("a")
        _, second, _ = self.rig.subscribe("a")
        first.close()
        self.assertEqual(list(self.rig.bus._audiences.names), ["a"])
        second.close()
        self.assertEqual(list(self.rig.bus._audiences.names), [])
        self.assertEqual(len(self.rig.log), 0)

    def test_a_channel_that_is_only_subscribed_to_can_be_deleted_and_listed(self) -> None:
        client, _, _ = self.rig.subscribe("a")
        bus = self.rig.bus
        self.assertEqual([one.channel for one in bus.states(EVERYTHING, prefix="", after="", limit=9)], ["a"])
        bus.delete("a", EVERYTHING)
        self.assertEnded(client, CloseCause.DELETED)
        self.assertEqual(bus.states(EVERYTHING, prefix="", after="", limit=9), [])
        self.assertRaises(NotFound, bus.delete, "a", EVERYTHING)

    def test_the_bus_does_not_keep_a_subscriber_alive_that_has_ended(self) -> None:
        for text in ("a", "*"):
            client, subscription, _ = self.rig.subscribe(text)
            self.rig.publish("a")
            gone = weakref.ref(client)
            subscription.close()
            del client, subscription
            gc.collect()
            self.assertIsNone(gone(), text)

    def test_every_reason_fits_into_a_close_frame(self) -> None:
        self.rig = BusRig(max_held_bytes=0, default=Kept(0))
        reasons: list[CloseReason] = []
        for client in (Client(acts=fail), Client(), Client()):
            since = "latest" if client.acts is fail else "earliest"
            self.rig.subscribe("a", client=client, since=since)
            self.rig.publish_each("a", b"1", b"2")
            if client.acts is not fail and not client.reasons:
                self.rig.bus.delete("a", EVERYTHING)
            reasons += client.reasons
        client, _, _ = self.rig.subscribe("a")
        self.rig.bus.delete("a", EVERYTHING)
        reasons += client.reasons
        self.assertEqual(
            {reason.cause for reason in reasons}, {CloseCause.FAILED, CloseCause.TOO_SLOW, CloseCause.DELETED}
        )
        for reason in reasons:
            self.assertLessEqual(len(reason.text.encode()), 120)


class UnsubscribeDuringReplayTests(BusCase):
    def test_unsubscribed_during_the_replay_nothing_of_it_comes_any_more(self) -> None:
        self.rig.publish("a", data=b"1")
        self.rig.publish("b", data=b"2")
        client, subscription, _ = self.rig.subscribe("a", "b", since="earliest")
        self.rig.publish("a", data=b"3")
        subscription.remove("a")
        catch_up(subscription)
        self.assertEqual(client.datas, [b"2"])

    def test_unsubscribed_from_one_channel_of_an_event_it_comes_for_the_other(self) -> None:
        for removed in ("a", "b", "*"):
            client, subscription, _ = self.rig.subscribe("a", "b", "*", since=self.rig.log.position)
            self.rig.publish("a", "b", data=b"1")
            subscription.remove(removed)
            catch_up(subscription)
            self.assertEqual(client.datas, [b"1"], removed)
        client, subscription, _ = self.rig.subscribe("a", "b", since=self.rig.log.position)
        self.rig.publish("a", "b", data=b"1")
        subscription.remove("a")
        catch_up(subscription)
        self.assertEqual(client.datas, [b"1"])

    def test_an_event_is_not_held_for_a_channel_that_was_subscribed_to_after_it(self) -> None:
        client, subscription, _ = self.rig.subscribe("a", since="earliest")
        self.rig.publish("a", "b", data=b"1")
        subscription.add(patterns("b"), "latest")
        subscription.remove("a")
        self.rig.publish("b", data=b"2")
        catch_up(subscription)
        self.assertEqual(client.datas, [b"2"])

    def test_what_was_left_out_stays_so_if_its_channel_is_subscribed_to_again(self) -> None:
        client, subscription, _ = self.rig.subscribe("a", "b", since="earliest")
        self.rig.publish("a", "b")
        subscription.remove("b")
        subscription.add(patterns("b"), "latest")
        subscription.remove("a")
        catch_up(subscription)
        self.assertEqual(client.datas, [])

    def test_what_is_left_out_no_longer_counts_as_held(self) -> None:
        self.rig = BusRig(max_held_bytes=10 + ENTRY_BYTES)
        client, subscription, _ = self.rig.subscribe("a", "b", since="earliest")
        self.rig.publish("a", data=b"1234567890")
        subscription.remove("a")
        self.rig.publish("b", data=b"1234567890")
        catch_up(subscription)
        self.assertLive(client)
        self.assertEqual(client.datas, [b"1234567890"])

    def test_a_history_that_is_no_longer_wanted_cannot_overtake_the_replay(self) -> None:
        self.rig.publish_each("short", b"1", b"2")
        self.rig.publish("b", data=b"3")
        client, subscription, _ = self.rig.subscribe("short", "b", since="earliest")
        subscription.remove("short")
        self.rig.publish_each("short", b"4", b"5")
        catch_up(subscription)
        self.assertLive(client)
        self.assertEqual(client.datas, [b"3"])


class PresenceTests(BusCase):
    def setUp(self) -> None:
        self.rig = BusRig(max_subscribed=1000)

    def join(self, number: int, user: str | None) -> None:
        subscription = Subscription(self.rig.bus, Client(), a_caller(user=user))
        subscription.caller.number = number
        subscription.add(patterns("a"), "latest")

    def test_a_page_has_the_first_after_a_number_and_the_counts_have_all(self) -> None:
        for number in reversed(range(1, 451)):
            self.join(number, None if number % 3 else f"user {number % 6}")
        for after, limit, first, last in ((0, 10, 1, 10), (195, 10, 196, 205), (440, 100, 441, 450)):
            work = self.rig.bus.presence("a", EVERYTHING, after, limit)
            count, users, page = drain(work)
            self.assertEqual((count, users), (450, 2))
            self.assertEqual([caller.number for caller in page], list(range(first, last + 1)))

    def test_all_clients_at_once_are_in_the_order_of_their_numbers(self) -> None:
        for number in (3, 1, 2):
            self.join(number, None)
        found = self.rig.bus.present("a", EVERYTHING)
        self.assertEqual([caller.number for caller in found], [1, 2, 3])

    def test_many_are_counted_in_several_steps(self) -> None:
        for number in range(1, 451):
            self.join(number, None)
        self.assertEqual(sum(1 for _ in self.rig.bus.presence("a", EVERYTHING, 0, 1)), 3)


class ReadPageTests(BusCase):
    def test_a_reader_in_pages_gets_what_a_subscriber_gets(self) -> None:
        client, _, _ = self.rig.subscribe("**")
        for number in range(9):
            self.rig.publish(*("ab" if number % 2 else "b"), data=b"%d" % number)
        page = self.rig.read("**", limit=4)
        rest = self.rig.read("**", since=page.position)
        self.assertEqual(datas(page.entries + rest.entries), client.datas)


class BoundTests(BusCase):
    """What is remembered is bounded by what there is."""

    def test_audiences_of_channels_that_were_given_up_are_forgotten(self) -> None:
        self.rig = BusRig(max_channels=10, default=Kept(0))
        for number in range(1000):
            self.rig.publish(f"c{number}")
        self.assertLessEqual(len(self.rig.bus._audiences._kept), 3 * 10)

    def test_audiences_that_a_pattern_made_obsolete_are_freed_a_few_at_a_time(self) -> None:
        self.rig = BusRig(max_channels=10_000)
        audiences = self.rig.bus._audiences
        for number in range(3000):
            self.rig.publish(f"c{number}")
        self.rig.subscribe("**")
        self.assertEqual((len(audiences._kept), sum(map(len, audiences._dropped))), (0, 2000))
        for number in range(1000):
            self.assertEqual(self.rig.publish(f"c{number}").subscribers, 1)
        self.assertEqual((len(audiences._kept), audiences._dropped), (1000, []))

    def test_an_audience_is_kept_and_made_anew_when_a_subscription_changes(self) -> None:
        audiences = self.rig.bus._audiences
        _, subscription, _ = self.rig.subscribe("a")
        self.rig.publish("a", "b")
        before = audiences.of("a")
        self.assertIs(audiences.of("a"), before)
        self.rig.subscribe("b")
        self.assertIs(audiences.of("a"), before)
        _, pattern, _ = self.rig.subscribe("*")
        self.assertEqual(audiences.of("a").count, 2)
        pattern.close()
        self.assertEqual(audiences.of("a").count, 1)
        subscription.close()
        self.assertEqual(audiences.of("a").count, 0)

    def test_expiries_of_channels_that_were_given_up_are_forgotten(self) -> None:
        self.rig = BusRig(max_channels=10)
        for number in range(1000):
            self.rig.publish(f"c{number}")
            self.rig.bus.delete(f"c{number}", EVERYTHING)
        self.assertLessEqual(len(self.rig.log._retention_queue._expiries), 3 * 10)

    def test_who_subscribes_to_the_same_past_again_and_again_has_one_cursor_for_each_channel(self) -> None:
        for number in range(50):
            self.rig.publish(f"c{number}")
        _, subscription, _ = self.rig.subscribe("**", since="earliest")
        for _ in range(100):
            subscription.add(patterns("**"), "earliest")
        assert subscription._replay is not None
        self.assertLessEqual(len(subscription._replay._heap), 1050)
        catch_up(subscription)
        self.assertEqual(len(self.rig.bus.read(patterns("**"), "earliest", 1000, EVERYTHING).entries), 50)

    def test_who_subscribes_again_while_its_replay_is_being_filtered_begins_anew(self) -> None:
        works: list[Work[None]] = []
        dones: list[Done] = []

        def do_later(work: Work[None], is_gone: Callable[[], bool], caller: ClientInfo, done: Done) -> None:
            works.append(work)
            dones.append(done)

        self.rig.bus.do_later = do_later
        for number in range(40):
            self.rig.publish(f"a/{number}", data=b"old")
            self.rig.publish(f"b/{number}", data=b"b")
        for steps in (0, 1, 5, 15):
            with self.subTest(steps):
                client, subscription, _ = self.rig.subscribe("a/*", "b/*", since="earliest")
                subscription.remove("a/*")
                for _ in range(steps):
                    next(works[-1])
                self.assertFalse(subscription.is_readable)
                self.assertFalse(subscription.advance())
                subscription.add(patterns("a/*"), "latest")
                self.rig.publish("a/0", data=b"new")
                self.assertEqual(list(works[-1]), [])
                dones[-1](None)
                catch_up(subscription)
                self.assertEqual(client.datas, [b"b"] * 40 + [b"new"])

    def test_frames_of_large_events_are_kept_only_while_they_are_handed_out(self) -> None:
        for size, kept in ((10, 1), (5000, 0)):
            client, _, _ = self.rig.subscribe("a")
            client.acts = lambda entry: entry.frame(encoder)
            self.rig.publish("a", data=b"x" * size)
            self.assertEqual(len(client.entries[-1].frames), kept)


def encoder(entry: Entry) -> bytes:
    """Encode in some way."""
    return entry.event.data
