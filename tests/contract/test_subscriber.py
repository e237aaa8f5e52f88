"""What every subscriber may rely on, over whatever transport it has come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.rigs.daemon import DaemonTests
from tests.rigs.http2_client import Http2Client
from tests.rigs.subscribers import (
    JsonSubscriber,
    JsonTunnelSubscriber,
    PollSubscriber,
    PushSubscriber,
    RawSubscriber,
    RawTunnelSubscriber,
    SseSubscriber,
    StreamSubscriber,
    Subscriber,
)


def _short(data: bytes) -> str:
    return repr(data) if len(data) < 50 else f"{data[:20]!r}...{data[-20:]!r} ({len(data)} bytes)"


if TYPE_CHECKING:
    _Base = DaemonTests
else:
    _Base = object


class SubscriberRules(_Base):
    """What a subscriber may rely on."""

    kind: type[Subscriber]

    config = "[site]\ndemo = no\n[channels]\nhistory_size = 1000\n[channels:short/**]\nhistory_age = 10s\n"

    def subscribe(self, *channels: str, since: str | None = None, reads: bool = True) -> Subscriber:
        """Connect a subscriber to the daemon."""
        return self.kind(self.rig, channels, since, reads=reads)

    def assert_got(self, subscriber: Subscriber, *datas: bytes) -> None:
        """The subscriber got exactly this, and is still there."""
        self.rig.turn()
        self.assertIsNone(subscriber.closed_reason)
        self.assert_same(subscriber.datas, [subscriber.carried(data) for data in datas])
        self.assertTrue(subscriber.connection.is_open)

    def assert_same(self, got: Sequence[bytes], wanted: Sequence[bytes]) -> None:
        """Both are the same; a difference is shown in short."""
        if got != wanted:
            self.assertEqual([_short(data) for data in got], [_short(data) for data in wanted])
            self.fail("they differ in the middle of long data")

    def assert_ids(self, subscriber: Subscriber, ids: Sequence[str]) -> None:
        """The events that the subscriber got have these ids, if it is told ids."""
        if subscriber.has_ids:
            self.assertEqual(subscriber.ids, list(ids))

    def assert_carries(self, data: bytes) -> None:
        """`data` comes as it was published, live and from the history."""
        live = self.subscribe("news")
        self.rig.publish("news", data)
        self.assert_got(live, data)
        self.assert_got(self.subscribe("news", since="earliest"), data)

    # Live

    def test_a_subscriber_gets_what_is_published_after_it_came(self) -> None:
        self.rig.publish("news", b"before")
        subscriber = self.subscribe("news")
        self.assert_got(subscriber)
        ids = self.rig.publish_each("news", b"one", b"two")
        self.assert_got(subscriber, b"one", b"two")
        self.assert_ids(subscriber, ids)
        self.assertTrue(subscriber.recovered)

    def test_it_gets_nothing_of_other_channels(self) -> None:
        subscriber = self.subscribe("news")
        self.rig.publish("news/sport")
        self.rig.publish("new")
        self.rig.publish("news", b"mine")
        self.assert_got(subscriber, b"mine")

    def test_several_channels_come_in_the_order_of_publishing(self) -> None:
        subscriber = self.subscribe("a", "b/c", "ü %+&?#")
        ids = [
            self.rig.publish("ü %+&?#", b"1"),
            self.rig.publish("a", b"2"),
            self.rig.publish("b/c", b"3"),
            self.rig.publish("ü %+&?#", b"4"),
        ]
        self.assert_got(subscriber, b"1", b"2", b"3", b"4")
        self.assert_ids(subscriber, ids)

    def test_a_pattern_stands_for_the_channels_that_it_matches(self) -> None:
        self.rig.publish("news/first", b"0")
        subscriber = self.subscribe("news/*", since="earliest")
        self.rig.publish("news", b"no")
        self.rig.publish("news/sport", b"1")
        self.rig.publish("news/sport/chess", b"no")
        self.rig.publish("news/chess", b"2")
        self.assert_got(subscriber, b"0", b"1", b"2")

    def test_an_event_on_two_of_its_channels_comes_once(self) -> None:
        subscriber = self.subscribe("a", "b", "*")
        self.rig.publish_many({"channels": ["b", "a"], "data": "both"}, {"channel": "a", "data": "after"})
        self.assert_got(subscriber, b"both", b"after")
        self.assert_got(self.subscribe("a", "b", "*", since="earliest"), b"both", b"after")

    def test_a_channel_asked_for_twice_comes_once(self) -> None:
        subscriber = self.subscribe("a", "a")
        self.rig.publish("a", b"once")
        self.assert_got(subscriber, b"once")

    def test_every_subscriber_gets_everything(self) -> None:
        subscribers = [self.subscribe("news") for _ in range(5)]
        self.rig.publish_each("news", b"one", b"two")
        for subscriber in subscribers:
            self.assert_got(subscriber, b"one", b"two")

    def test_an_event_published_again_under_its_id_comes_once(self) -> None:
        subscriber = self.subscribe("news")
        self.rig.publish("news", b"one", id="mine")
        self.rig.publish("news", b"one", id="mine")
        self.assert_got(subscriber, b"one")
        self.assert_ids(subscriber, ["mine"])

    # Positions

    def test_from_earliest_it_gets_everything_that_is_kept_and_then_what_comes(self) -> None:
        ids = self.rig.publish_each("news", b"one", b"two")
        subscriber = self.subscribe("news", since="earliest")
        ids.append(self.rig.publish("news", b"three"))
        self.assert_got(subscriber, b"one", b"two", b"three")
        self.assert_ids(subscriber, ids)
        self.assertTrue(subscriber.recovered)

    def test_from_latest_it_gets_only_what_comes(self) -> None:
        self.rig.publish_each("news", b"one", b"two")
        subscriber = self.subscribe("news", since="latest")
        self.rig.publish("news", b"three")
        self.assert_got(subscriber, b"three")
        self.assertTrue(subscriber.recovered)

    def test_from_an_id_it_gets_what_came_after_it(self) -> None:
        ids = self.rig.publish_each("news", b"one", b"two", b"three")
        subscriber = self.subscribe("news", since=ids[0])
        self.rig.publish("news", b"four")
        self.assert_got(subscriber, b"two", b"three", b"four")
        self.assertTrue(subscriber.recovered)

    def test_from_an_id_that_a_publisher_gave_it_gets_what_came_after_it(self) -> None:
        self.rig.publish("news", b"one", id="urn:uuid:1")
        self.rig.publish("news", b"two", id="ü/2")
        self.rig.publish("news", b"three")
        self.assert_got(self.subscribe("news", since="urn:uuid:1"), b"two", b"three")
        subscriber = self.subscribe("news", since="ü/2")
        self.assert_got(subscriber, b"three")
        self.assertTrue(subscriber.recovered)

    def test_an_id_is_a_position_in_every_channel(self) -> None:
        self.rig.publish("a", b"before")
        position = self.rig.publish("b", b"here")
        self.rig.publish("a", b"after")
        self.assert_got(self.subscribe("a", since=position), b"after")

    def test_it_resumes_after_a_break_with_nothing_lost_or_twice(self) -> None:
        ids = self.rig.publish_each("news", *(b"%d" % number for number in range(20)))
        got: list[bytes] = []
        for number in range(20, 25):
            subscriber = self.subscribe("news", since=ids[len(got) - 1] if got else "earliest")
            ids.append(self.rig.publish("news", b"%d" % number))
            self.rig.turn()
            got += subscriber.datas
            self.assertTrue(subscriber.recovered)
            subscriber.disconnect()
            ids.append(self.rig.publish("news", b"while away"))
        self.assertEqual(got[:21], [b"%d" % number for number in range(21)])
        self.assertEqual(
            got[21:], [b"while away", b"21", b"while away", b"22", b"while away", b"23", b"while away", b"24"]
        )

    def test_of_an_id_that_nobody_knows_it_is_told(self) -> None:
        self.rig.publish("news", b"one")
        self.assertFalse(self.subscribe("news", since="never-heard-of").recovered)

    def test_of_a_position_of_another_log_it_is_told(self) -> None:
        ids = self.rig.publish_each("news", b"one", b"two")
        other_epoch = "0" * 10 + ids[0][10:]
        self.assertFalse(self.subscribe("news", since=other_epoch).recovered)

    def test_of_a_position_that_is_still_to_come_it_is_told(self) -> None:
        event_id = self.rig.publish("news", b"one")
        self.assertFalse(self.subscribe("news", since=f"{event_id}0").recovered)

    def test_of_events_that_expired_it_is_told(self) -> None:
        first, second = self.rig.publish_each("short/news", b"one", b"two")
        self.rig.publish("short/news", b"three", id="given")
        self.rig.wait(5)
        self.rig.publish("short/news", b"four")
        self.rig.wait(6)
        self.assertFalse(self.subscribe("short/news", since=first).recovered)
        self.assertFalse(self.subscribe("short/news", since=second).recovered)
        self.assertFalse(self.subscribe("short/news", since="given").recovered)

    def test_an_expired_id_after_which_nothing_was_lost_is_a_position_still(self) -> None:
        position = self.rig.publish("short/news", b"one")
        self.rig.wait(5)
        self.rig.publish("short/news", b"two")
        self.rig.wait(6)
        subscriber = self.subscribe("short/news", since=position)
        self.assertTrue(subscriber.recovered)
        self.assert_got(subscriber, b"two")

    def test_of_what_a_deletion_lost_it_is_told(self) -> None:
        first, _ = self.rig.publish_each("news", b"one", b"two")
        self.assertEqual(self.rig.request("DELETE", "/channels/news").status, 204)
        self.assertFalse(self.subscribe("news", since=first).recovered)

    # The end

    def test_when_it_goes_nothing_of_it_is_left(self) -> None:
        self.rig.publish_each("news", b"one", b"two")
        self.rig.turn()
        before, delayed = self.rig.traces, self.rig.delayed
        for channels, since in ((["news", "other"], None), (["news", "a/**"], "earliest"), (["new"], "latest")):
            subscriber = self.subscribe(*channels, since=since)
            self.assertNotEqual(self.rig.traces, before)
            subscriber.disconnect()
            self.rig.turn()
            self.assert_no_traces(before)
            self.assertEqual(self.rig.delayed, delayed)

    def test_when_it_goes_before_it_read_anything_nothing_of_it_is_left(self) -> None:
        self.rig.publish_each("news", *[b"x" * 50_000] * 10)
        before = self.rig.traces
        subscriber = self.subscribe("news", since="earliest")
        subscriber.connection.stop_reading()
        self.rig.publish_each("news", b"one", b"two")
        subscriber.disconnect()
        self.rig.publish("news", b"three")
        self.rig.turn()
        self.assert_no_traces(before)

    def test_events_of_the_turn_in_which_it_goes_harm_nobody(self) -> None:
        leaver, stayer = self.subscribe("news"), self.subscribe("news")
        self.rig.publish("news", b"one")
        leaver.disconnect()
        self.rig.publish("news", b"two")
        self.assert_got(stayer, b"one", b"two")

    def test_when_its_channel_is_deleted_it_is_told(self) -> None:
        subscriber = self.subscribe("news")
        self.rig.publish("news", b"last words")
        self.rig.turn()
        before_anybody = self.rig.traces
        self.assertEqual(self.rig.request("DELETE", "/channels/news").status, 204)
        self.rig.turn()
        self.assertEqual(subscriber.datas, [b"last words"])
        if self.kind.is_told_after_events:
            self.assertEqual(subscriber.closed_reason, "the channel was deleted")
        subscriber.disconnect()
        self.rig.turn()
        self.assertNotEqual(self.rig.traces, before_anybody)
        self.assertEqual(self.rig.traces.subscribers, 0)
        self.assertEqual(self.rig.traces.sessions, 0)
        self.assertEqual(self.rig.traces.alarms, 0)

    def test_what_was_published_in_the_turn_of_the_deletion_comes_before_the_end(self) -> None:
        subscriber = self.subscribe("news")
        self.rig.publish("news", b"last words")
        self.rig.request("DELETE", "/channels/news")
        self.rig.turn()
        self.assertEqual(subscriber.datas, [b"last words"])
        if self.kind.is_told_after_events:
            self.assertEqual(subscriber.closed_reason, "the channel was deleted")

    def test_when_another_channel_is_deleted_it_stays(self) -> None:
        subscriber = self.subscribe("news")
        self.rig.publish("other")
        self.rig.request("DELETE", "/channels/other")
        self.rig.publish("news", b"one")
        self.assert_got(subscriber, b"one")

    def test_when_the_daemon_stops_it_gets_what_is_there_and_is_told(self) -> None:
        subscriber = self.subscribe("news")
        self.rig.publish("news", b"last words")
        stopped = self.rig.stop()
        self.rig.turn()
        self.assertEqual(subscriber.datas, [b"last words"])
        if self.kind.is_told_after_events:
            self.assertEqual(subscriber.closed_reason, "the server is going away")
        self.assertFalse(subscriber.connection.is_open)
        self.successResultOf(stopped)
        self.assertEqual((self.rig.traces.subscribers, self.rig.traces.sessions, self.rig.traces.alarms), (0, 0, 0))
        self.assertEqual(self.rig.reactor.getDelayedCalls(), [])

    def test_when_the_daemon_stops_a_client_that_takes_nothing_does_not_hold_it_up(self) -> None:
        subscriber = self.subscribe("news")
        subscriber.connection.stop_reading()
        self.rig.publish("news", b"last words")
        stopped = self.rig.stop()
        self.rig.turn()
        self.assertNoResult(stopped)
        self.rig.wait(5)
        self.successResultOf(stopped)
        self.assertFalse(subscriber.connection.is_open)

    # Data

    def test_text_with_line_breaks_comes_whole(self) -> None:
        for data in (
            b"a\nb",
            b"a\rb",
            b"a\r\nb",
            b"\n",
            b"\r",
            b"\r\n",
            b"a\n",
            b"\na",
            b"\n\n\r\r\r\n\r\n",
            b": x\ndata: y\n\n",
        ):
            with self.subTest(data):
                self.start(self.config)
                self.assert_carries(data)

    def test_text_in_any_script_comes_whole(self) -> None:
        self.assert_carries("ÄÖÜ 漢字 \U0001f600 \u2028\u2029\u0085\ufeff".encode())
        self.start(self.config)
        self.assert_carries("\ufeffbom".encode())

    def test_text_with_control_characters_comes_whole(self) -> None:
        self.assert_carries(bytes(set(range(128)) - set(b"\r")))

    def test_spaces_at_the_ends_are_kept(self) -> None:
        self.assert_carries(b"  a  ")

    def test_an_event_without_data_comes(self) -> None:
        self.assert_carries(b"")

    def test_a_mebibyte_of_text_comes_whole(self) -> None:
        self.start("[limits]\nevent_size = 1MiB\n")
        self.assert_carries(b"0123456789abcde\n" * 2**16)

    def test_binary_data_comes_whole(self) -> None:
        self.assert_carries(bytes(range(256)))

    def test_a_mebibyte_of_binary_data_comes_whole(self) -> None:
        self.start("[limits]\nevent_size = 1MiB\n")
        self.assert_carries(b"\x00\xff" * 2**19)

    # Refusals

    def assert_refused(self, status: int, field: str | None, *channels: str, since: str | None = None) -> None:
        """The subscription is answered with a problem, and leaves nothing behind."""
        before = self.rig.traces
        subscriber = self.subscribe(*channels, since=since)
        refusal = subscriber.refusal
        assert refusal is not None
        self.assert_problem(refusal, status, field=field)
        ends = subscriber.ends_when_refused
        self.assert_no_traces(replace(before, alarms=before.alarms + (0 if ends else subscriber.alarms)))
        self.assertEqual(subscriber.connection.is_open, not ends, "only a refused handshake ends the connection")
        subscriber.disconnect()
        self.assert_no_traces(before)

    def test_a_channel_that_cannot_be_is_refused(self) -> None:
        for channel in ("", "a\x00b", "a\nb", "x" * 256, "ü" * 128, "a\u2028b"):
            with self.subTest(channel):
                self.assert_refused(400, "channel", channel)
                self.assert_refused(400, "channel", "fine", channel)

    def test_an_empty_position_is_refused(self) -> None:
        self.assert_refused(400, "since", "news", since="")

    def test_too_many_channels_for_one_subscriber_are_refused(self) -> None:
        self.start("[limits]\nsubscriptions = 2")
        self.assert_refused(400, "channel", "a", "b", "c/*")
        self.assertIsNone(self.subscribe("a", "b", "a").refusal)

    def test_names_without_a_channel_count_by_themselves_and_more_than_there_may_be_are_refused(self) -> None:
        self.start("[limits]\nchannels = 2")
        self.rig.publish("a")
        self.assert_refused(503, None, "b", "c", "d")
        self.assertIsNone(self.subscribe("a", "b", "c").refusal)
        self.rig.publish("new")
        self.assertEqual(self.rig.traces.channels, 2)

    def test_without_the_right_to_subscribe_it_is_refused(self) -> None:
        self.start("[auth]\nanonymous = publish")
        self.assert_refused(403, None, "news")
        self.assert_refused(403, None, "news/*", since="earliest")


class MissingChannelRules(_Base):
    """For subscribers that must name a channel when they connect."""

    assert_refused: Callable[..., None]

    def test_without_a_channel_it_is_refused(self) -> None:
        self.assert_refused(400, "channel")


class PositionRules(_Base):
    """For subscribers that are told ids and positions."""

    subscribe: Callable[..., Subscriber]
    assert_got: Callable[..., None]

    def test_it_is_told_where_to_resume_before_the_first_event(self) -> None:
        self.rig.publish("news", b"before")
        subscriber = self.subscribe("news")
        if isinstance(subscriber, PollSubscriber):
            self.rig.wait(32)  # until the time-out
        position = subscriber.position
        subscriber.disconnect()
        self.rig.publish("news", b"while away")
        self.assert_got(self.subscribe("news", since=position), b"while away")

    def test_it_resumes_from_the_position_that_it_was_told(self) -> None:
        self.rig.publish("news", b"before")
        subscriber = self.subscribe("news")
        self.rig.publish("news", b"one", id="given")
        self.assert_got(subscriber, b"one")
        position = subscriber.position
        subscriber.disconnect()
        self.rig.publish("news", b"while away")
        again = self.subscribe("news", since=position)
        self.assert_got(again, b"while away")
        self.assertTrue(again.recovered)

    def test_after_a_loss_it_gets_everything_that_is_there_and_what_comes(self) -> None:
        self.rig.publish_each("news", b"one", b"two")
        subscriber = self.subscribe("news", since="never-heard-of")
        self.rig.publish("news", b"three")
        self.assert_got(subscriber, b"one", b"two", b"three")
        self.assertFalse(subscriber.recovered)

    def test_after_a_loss_of_everything_it_is_told_and_gets_what_comes(self) -> None:
        subscriber = self.subscribe("news", since="never-heard-of")
        self.rig.publish("news", b"one")
        self.assert_got(subscriber, b"one")
        self.assertFalse(subscriber.recovered)
        position = subscriber.position
        subscriber.disconnect()
        again = self.subscribe("news", since=position)
        self.assert_got(again)
        self.assertTrue(again.recovered)

    def test_what_it_gets_of_an_event_on_two_channels_is_of_one_that_it_asked_for(self) -> None:
        subscriber = self.subscribe("b")
        self.rig.publish_many({"channels": ["a", "b"], "data": "both"})
        self.assert_got(subscriber, b"both")
        self.assertIn(subscriber.events()[0].channel, ("b", None))


class StreamingRules(_Base):
    """For subscribers that are written to for as long as they stay."""

    kind: type[Subscriber]

    subscribe: Callable[..., Subscriber]
    assert_got: Callable[..., None]
    assert_same: Callable[..., None]
    assert_ids: Callable[..., None]

    def test_events_of_one_turn_come_in_order_and_in_one_write(self) -> None:
        subscriber = self.subscribe("news", "other")
        writes = len(subscriber.connection.writes)
        ids = []
        for number in range(50):
            ids.append(self.rig.publish("other" if number % 3 else "news", b"%d" % number))
        self.assertEqual(len(subscriber.connection.writes), writes, "nothing is written in the turn itself")
        self.assert_got(subscriber, *(b"%d" % number for number in range(50)))
        self.assert_ids(subscriber, ids)
        self.assertEqual(len(subscriber.connection.writes), writes + 1)

    def test_a_replay_larger_than_the_outbox_comes_whole(self) -> None:
        self.start("[limits]\noutbox = 1KiB")
        datas = [b"%d " % number + b"x" * 500 for number in range(100)]
        ids = self.rig.publish_each("news", *datas)
        subscriber = self.subscribe("news", since="earliest")
        self.assert_got(subscriber, *datas)
        self.assert_ids(subscriber, ids)

    def test_what_is_published_during_a_replay_comes_after_it_in_order(self) -> None:
        self.start("[limits]\noutbox = 100KiB\n[channels]\nhistory_size = 1000")
        datas = [b"%d " % number + b"x" * 10_000 for number in range(150)]
        ids = self.rig.publish_each("news", *datas)
        subscriber = self.subscribe("news", since="earliest", reads=False)
        client_takes = subscriber.connection.on_data
        live: list[bytes] = []

        def publish_meanwhile() -> None:
            client_takes()
            if len(live) < 5:
                self.assertLess(len(subscriber.connection.received), 1_500_000, "the replay is not over")
                live.append(b"live %d" % len(live))
                ids.append(self.rig.publish("news", live[-1]))

        subscriber.connection.on_data = publish_meanwhile
        subscriber.connection.start_reading()
        self.assertEqual(len(live), 5)
        self.assert_got(subscriber, *datas, *live)
        self.assert_ids(subscriber, ids)

    def test_a_slow_reader_is_closed_with_the_reason_and_resumes_without_loss(self) -> None:
        self.start("[limits]\noutbox = 1KiB")
        slow, neighbour = self.subscribe("news"), self.subscribe("news")
        ids = [self.rig.publish("news", b"first")]
        self.rig.turn()
        slow.connection.stop_reading()
        for number in range(20):
            ids.append(self.rig.publish("news", b"%d " % number + b"x" * 10_000))
            self.rig.turn()
        self.assertEqual(len(neighbour.datas), 21)
        self.assertIsNone(neighbour.closed_reason)
        self.assertEqual(self.rig.traces.subscribers, 1)
        slow.connection.start_reading()
        reason = slow.closed_reason
        assert reason is not None
        self.assertIn("too slow", reason)
        self.assertFalse(slow.is_open)
        got = slow.datas
        again = self.subscribe("news", since=ids[len(got) - 1])
        self.assertTrue(again.recovered)
        self.assert_same(got + again.datas, neighbour.datas)
        self.assertEqual(self.rig.traces.sessions, 2)

    def test_a_slow_reader_that_takes_nothing_any_more_is_aborted(self) -> None:
        self.start("[limits]\noutbox = 1KiB")
        before = self.rig.traces
        slow = self.subscribe("news")
        slow.connection.stop_reading()
        for _ in range(20):
            self.rig.publish("news", b"x" * 10_000)
            self.rig.turn()
        self.assertEqual(self.rig.traces.subscribers, 0)
        self.rig.wait(slow.close_timeout_s + 2)
        self.assertFalse(slow.connection.is_open)
        self.assertEqual((self.rig.traces.sessions, self.rig.traces.alarms), (before.sessions, before.alarms))
        self.assertEqual(self.rig.delayed, [])

    def test_a_reader_that_is_slow_in_its_replay_gets_what_is_retained_and_then_what_comes(self) -> None:
        self.start("[limits]\noutbox = 10KiB\n[channels]\nhistory_size = 1000")
        datas = [b"%d " % number + b"x" * 10_000 for number in range(50)]
        ids = self.rig.publish_each("news", *datas)
        slow = self.subscribe("news", since="earliest", reads=False)
        for number in range(100):
            datas.append(b"live %d " % number + b"x" * 1000)
            ids.append(self.rig.publish("news", datas[-1]))
            self.rig.turn()
        slow.connection.start_reading()
        self.assertIsNone(slow.closed_reason)
        self.assert_got(slow, *datas)
        self.assert_ids(slow, ids)
        self.rig.publish("news", b"live")
        self.rig.turn()
        self.assert_got(slow, *datas, b"live")

    def test_a_reader_of_a_pattern_that_is_slow_in_its_replay_gets_what_is_retained(self) -> None:
        self.start(
            "[limits]\noutbox = 10KiB\n[channels]\nhistory_size = 1000\n[channels:news/none]\nhistory_size = 0"
        )
        datas = [b"%d " % number + b"x" * 10_000 for number in range(50)]
        self.rig.publish_each("news/0", *datas)
        slow = self.subscribe("news/*", since="earliest", reads=False)
        for number in range(60):  # most of these channels come into being meanwhile
            channel = "news/none" if number % 30 == 7 else f"news/{number % 20}"
            datas.append(b"live %d " % number + b"x" * 1000)
            self.rig.publish(channel, datas[-1])
            self.rig.turn()
        slow.connection.start_reading()
        self.assertIsNone(slow.closed_reason)
        self.assert_got(slow, *datas)

    def test_a_reader_whose_replay_is_overtaken_is_closed_and_resumes_without_loss(self) -> None:
        self.start("[limits]\noutbox = 10KiB\n[channels]\nhistory_size = 100")
        datas = [b"%d " % number + b"x" * 10_000 for number in range(80)]
        ids = self.rig.publish_each("news", *datas)
        slow = self.subscribe("news", since="earliest", reads=False)
        for number in range(90):
            datas.append(b"live %d " % number + b"x" * 1000)
            ids.append(self.rig.publish("news", datas[-1]))
        slow.connection.start_reading()
        self.assertIn("too slow", slow.closed_reason or "")
        got = slow.datas
        self.assert_same(got, datas[: len(got)])
        again = self.subscribe("news", since=ids[len(got) - 1] if got else "earliest")
        self.assert_same(again.datas[-100:], datas[-100:])

    def test_where_only_the_latest_counts_a_slow_reader_stays_and_misses_older_events(self) -> None:
        self.start("[limits]\noutbox = 1KiB\n[channels:prices]\non_overflow = latest")
        slow, neighbour = self.subscribe("prices"), self.subscribe("prices")
        slow.connection.stop_reading()
        for number in range(1000):
            self.rig.publish("prices", b"%d " % number + b"x" * 100)
            self.rig.turn()
        slow.connection.start_reading()
        self.assertIsNone(slow.closed_reason)
        self.assertTrue(slow.is_open)
        numbers = [int(data.split()[0]) for data in slow.datas]
        self.assertEqual(numbers, sorted(set(numbers)))
        self.assertEqual(numbers[-1], 999)
        self.assertLess(len(numbers), 1000)
        self.assertEqual(self.rig.parts.bus.counters.missed, 1000 - len(numbers))
        self.assertEqual(len(neighbour.datas), 1000)
        self.rig.publish("prices", b"1000")
        self.rig.turn()
        self.assertEqual(slow.datas[-1], b"1000")

    def test_where_only_the_latest_counts_a_slow_replay_goes_on_with_what_there_is(self) -> None:
        limits = "[limits]\noutbox = 10KiB\n[channels:prices]\non_overflow = latest\nhistory_size = 100"
        self.start(limits)
        self.rig.publish_each("prices", *[b"%d " % number + b"x" * 10_000 for number in range(100)])
        slow = self.subscribe("prices", since="earliest", reads=False)
        for number in range(100, 300):
            self.rig.publish("prices", b"%d " % number + b"x" * 1000)
        slow.connection.start_reading()
        self.assertIsNone(slow.closed_reason)
        numbers = [int(data.split()[0]) for data in slow.datas]
        self.assertEqual(numbers, sorted(set(numbers)))
        self.assertEqual(numbers[-1], 299)
        self.assertLess(len(numbers), 300)

    def test_what_may_not_be_missed_closes_a_slow_reader_beside_what_may(self) -> None:
        self.start("[limits]\noutbox = 1KiB\n[channels:prices]\non_overflow = latest")
        slow = self.subscribe("prices", "news")
        slow.connection.stop_reading()
        self.rig.publish_each("prices", *[b"x" * 100] * 1000)
        self.rig.publish("news", b"must arrive")
        self.rig.turn()
        self.assertEqual(self.rig.traces.subscribers, 1)
        for number in range(20):
            self.rig.publish("news", b"%d " % number + b"x" * 100)
            self.rig.turn()
        self.assertEqual(self.rig.traces.subscribers, 0)
        slow.connection.start_reading()
        self.assertIn("too slow", slow.closed_reason or "")

    def test_a_reader_that_pauses_within_its_outbox_gets_everything(self) -> None:
        subscriber = self.subscribe("news")
        subscriber.connection.stop_reading()
        datas = [b"%d" % number for number in range(100)]
        self.rig.publish_each("news", *datas)
        self.rig.turn()
        self.assertEqual(subscriber.datas, [])
        subscriber.connection.start_reading()
        self.assert_got(subscriber, *datas)

    def test_an_event_larger_than_the_outbox_comes_to_who_keeps_up(self) -> None:
        self.start("[limits]\noutbox = 1KiB")
        subscriber = self.subscribe("news")
        self.rig.publish("news", b"x" * 100_000)
        self.assert_got(subscriber, b"x" * 100_000)

    def test_the_replay_of_a_slow_reader_that_goes_leaves_nothing(self) -> None:
        self.rig.publish_each("news", *[b"x" * 50_000] * 10)
        before = self.rig.traces
        subscriber = self.subscribe("news", since="earliest", reads=False)
        self.assertNotEqual(self.rig.traces, before)
        subscriber.disconnect()
        self.rig.turn()
        self.assert_no_traces(before)


class SseSubscriberTests(SubscriberRules, MissingChannelRules, PositionRules, StreamingRules, DaemonTests):
    """The rules over Server-Sent Events."""

    kind = SseSubscriber


class StreamSubscriberTests(SubscriberRules, MissingChannelRules, PositionRules, StreamingRules, DaemonTests):
    """The rules over the NDJSON stream."""

    kind = StreamSubscriber


class JsonWebSocketSubscriberTests(SubscriberRules, PositionRules, StreamingRules, DaemonTests):
    """The rules over WebSocket with JSON messages."""

    kind = JsonSubscriber


class RawWebSocketSubscriberTests(SubscriberRules, MissingChannelRules, StreamingRules, DaemonTests):
    """The rules over WebSocket with the bare data."""

    kind = RawSubscriber


class JsonWebSocketOverHttp2SubscriberTests(SubscriberRules, PositionRules, StreamingRules, DaemonTests):
    """The rules over WebSocket over HTTP/2 with JSON messages."""

    kind = JsonTunnelSubscriber


class RawWebSocketOverHttp2SubscriberTests(SubscriberRules, MissingChannelRules, StreamingRules, DaemonTests):
    """The rules over WebSocket over HTTP/2 with the bare data."""

    kind = RawTunnelSubscriber


class PollSubscriberTests(SubscriberRules, MissingChannelRules, PositionRules, DaemonTests):
    """The rules over long polling."""

    kind = PollSubscriber


class PushSubscriberTests(SubscriberRules, MissingChannelRules, PositionRules, StreamingRules, DaemonTests):
    """The rules over server push. It is the stream that ends, not the connection."""

    http = Http2Client
    kind = PushSubscriber


class SseOverHttp2SubscriberTests(SseSubscriberTests):
    """The rules over Server-Sent Events over HTTP/2."""

    http = Http2Client


class StreamOverHttp2SubscriberTests(StreamSubscriberTests):
    """The rules over the NDJSON stream over HTTP/2."""

    http = Http2Client


class PollOverHttp2SubscriberTests(PollSubscriberTests):
    """The rules over long polling over HTTP/2."""

    http = Http2Client
