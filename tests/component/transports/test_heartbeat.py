"""No connection is silent for longer than the heartbeat, whatever was sent before, over every transport."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import ClassVar

from tests.rigs.connection import Connection
from tests.rigs.daemon import DaemonRig, DaemonTests
from tests.rigs.http2_client import Http2Client
from tests.rigs.subscribers import (
    AskingJsonSubscriber,
    JsonSubscriber,
    JsonTunnelSubscriber,
    PushSubscriber,
    RawSubscriber,
    RawTunnelSubscriber,
    SseSubscriber,
    StreamSubscriber,
    Subscriber,
)

Traffic = Callable[["HeartbeatTests", Subscriber], object]


def _publish(test: HeartbeatTests, subscriber: Subscriber) -> object:
    return test.rig.publish("news", b"an event")


def _publish_much(test: HeartbeatTests, subscriber: Subscriber) -> object:
    return [test.rig.publish("news", b"x" * 9000) for _ in range(12)]


def _pause(test: HeartbeatTests, subscriber: Subscriber) -> object:
    """Take nothing for a moment, while more comes than the connection holds."""
    subscriber.connection.stop_reading()
    _publish_much(test, subscriber)
    test.rig.turn()
    subscriber.connection.start_reading()
    return None


def _elsewhere(test: HeartbeatTests, subscriber: Subscriber) -> object:
    return test.rig.publish("others", b"not for this client")


TRAFFIC: dict[str, Traffic] = {
    "nothing": lambda test, subscriber: None,
    "an event": _publish,
    "many events": _publish_much,
    "a pause": _pause,
    "an event for others": _elsewhere,
}


class HeartbeatTests(DaemonTests):
    """Times of what comes, by a clock in hand."""

    http1: ClassVar[tuple[type[Subscriber], ...]] = (SseSubscriber, StreamSubscriber)
    kinds: ClassVar[tuple[type[Subscriber], ...]] = (
        *http1,
        JsonSubscriber,
        AskingJsonSubscriber,
        RawSubscriber,
        JsonTunnelSubscriber,
        RawTunnelSubscriber,
        PushSubscriber,
    )

    def begin(self, heartbeat: str, kind: type[Subscriber]) -> None:
        """Start a daemon with such a heartbeat, whose clients speak HTTP/2 if `kind` needs that."""
        config = f"[limits]\nheartbeat = {heartbeat}\nping_timeout = 60s\noutbox = 1MiB\n"
        self.rig = DaemonRig(config, Http2Client) if kind is PushSubscriber else DaemonRig(config)

    def longest_silence_s(
        self, subscriber: Subscriber, until_s: float, step_s: float, acts: Callable[[int], object]
    ) -> float:
        """Let time pass and `acts` be called at each step; return for how long nothing came at most."""
        connection: Connection = subscriber.socket_connection
        clock, size, since, longest = self.rig.reactor, len(connection.received), self.rig.reactor.seconds(), 0.0
        number, began = 0, self.rig.reactor.seconds()
        while clock.seconds() - began < until_s:
            clock.advance(step_s)
            self.rig.turn()
            acts(number)
            self.rig.turn()
            number += 1
            if len(connection.received) > size:
                size, since = len(connection.received), clock.seconds()
            longest = max(longest, clock.seconds() - since)
        self.assertTrue(subscriber.is_open, (subscriber, subscriber.closed_reason))
        return longest

    def test_it_is_heard_in_time_after_every_kind_of_traffic(self) -> None:
        for kind in self.kinds:
            for name, traffic in TRAFFIC.items():
                for at in (0, 3, 11, 26):
                    with self.subTest(transport=kind.__name__, after=name, at=at):
                        self.begin("5s", kind)
                        subscriber = kind(self.rig, ["news"], None)

                        def act(
                            step: int, subscriber: Subscriber = subscriber, at: int = at, traffic: Traffic = traffic
                        ) -> None:
                            if step == at:
                                traffic(self, subscriber)

                        # what comes at a step of 0.25 s may be seen a step later
                        self.assertLessEqual(self.longest_silence_s(subscriber, 30, 0.25, act), 5.25)
                        subscriber.disconnect()

    def test_it_is_heard_in_time_whatever_happens_when(self) -> None:
        random = Random(7)
        for kind in self.kinds:
            for heartbeat_s in (1, 2, 7):
                with self.subTest(transport=kind.__name__, heartbeat_s=heartbeat_s):
                    self.begin(f"{heartbeat_s}s", kind)
                    subscriber = kind(self.rig, ["news"], None)
                    act = partial(self._act_at_random, random, subscriber)
                    longest = self.longest_silence_s(subscriber, 40, 0.13, act)
                    self.assertLessEqual(longest, heartbeat_s + 0.13)
                    subscriber.disconnect()

    def _act_at_random(self, random: Random, subscriber: Subscriber, step: int) -> None:
        if random.random() < 0.03:
            random.choice(list(TRAFFIC.values()))(self, subscriber)

    def test_it_is_not_told_more_often_than_needed(self) -> None:
        for kind in (SseSubscriber, StreamSubscriber):
            with self.subTest(transport=kind.__name__):
                self.begin("5s", kind)
                subscriber = kind(self.rig, ["news"], None)
                before = len(subscriber.socket_connection.received)
                self.rig.wait(50)
                beats = bytes(subscriber.socket_connection.received)[before:].count(b"1\r\n\n\r\n")
                beats += bytes(subscriber.socket_connection.received)[before:].count(b"2\r\n:\n\r\n")
                self.assertIn(beats, range(10, 13))
                subscriber.disconnect()

    def test_one_that_hears_enough_has_no_heartbeat(self) -> None:
        for kind in self.http1:
            with self.subTest(transport=kind.__name__):
                self.begin("5s", kind)
                subscriber = kind(self.rig, ["news"], None)
                for _ in range(10):
                    self.rig.publish("news", b"an event")
                    self.rig.wait(3)
                received = bytes(subscriber.socket_connection.received)
                self.assertNotIn(b"\r\n\n\r\n", received)
                self.assertNotIn(b"\r\n:\n\r\n", received)
                subscriber.disconnect()

    def test_a_websocket_client_that_is_gone_is_found_in_time_though_events_are_sent_to_it(self) -> None:
        for kind in (JsonSubscriber, RawSubscriber, JsonTunnelSubscriber, RawTunnelSubscriber):
            for each_s in (1, 3, 100):
                for heartbeat_s, ping_timeout_s in ((5, 2), (2, 5), (3, 3), (1, 1)):
                    with self.subTest(transport=kind.__name__, each_s=each_s, heartbeat_s=heartbeat_s):
                        self.start(f"[limits]\nheartbeat = {heartbeat_s}s\nping_timeout = {ping_timeout_s}s\n")
                        subscriber = kind(self.rig, ["news"], None)
                        self.rig.wait(heartbeat_s)  # the first ping is answered
                        subscriber.socket.answers_pings = False
                        lived_s = 0
                        while subscriber.is_open and lived_s < 60:
                            if not lived_s % each_s:
                                self.rig.publish("news", b"an event")
                            self.rig.wait(1)
                            lived_s += 1
                        self.assertLessEqual(lived_s, heartbeat_s + ping_timeout_s)
                        self.assertGreaterEqual(lived_s, ping_timeout_s)
                        subscriber.disconnect()
