"""What a client sends before its close frame is answered before that is (RFC 6455, section 5.5.1)."""

from __future__ import annotations

from typing import ClassVar

from pushd.daemon.integrations import Integrations
from pushd.errors import Forbidden
from tests.component.transports import test_websocket as websockets
from tests.rigs.outsiders import Answers, Later, Notes, Registry
from tests.rigs.tunnel_client import WebSocketOverHttp2
from tests.rigs.websocket_client import WebSocketTalk
from tests.rigs.websocket_frames import frame, frames

PUBLISH = b'{"type":"publish","channel":"news","data":"x","ref":7}'
CLOSE = frame(b"\x03\xe8", 8)
CLOSED = (8, b"\x03\xe8")


class CloseTests(websockets.WebSocketTests):
    """Over HTTP/1.1."""

    targets: ClassVar = ("/ws", "/ws?channel=news", "/ws?channel=news&format=raw")

    def came(self, client: WebSocketTalk) -> list[tuple[int, bytes]]:
        """What has come, except the answers to subscriptions."""
        self.rig.turn()
        return [(opcode, it) for opcode, it in frames(client.connection.received) if b'"subscribed"' not in it]

    def test_pings_and_commands_of_the_same_segment_are_answered(self) -> None:
        for target in self.targets:
            for number in (1, 3):
                with self.subTest(target=target, number=number):
                    client, is_json = self.open(target), "raw" not in target
                    said = frame(b"p", 9) + (frame(PUBLISH) if is_json else b"")
                    client.connection.send(said * number + CLOSE)
                    came = self.came(client)
                    self.assertEqual([payload for opcode, payload in came if opcode == 10], [b"p"] * number)
                    self.assertEqual(len([it for _, it in came if b'"published"' in it]), number * is_json)
                    self.assertEqual(came[-1], CLOSED)
                    self.assertFalse(client.connection.is_open)

    def test_they_are_answered_before_a_frame_that_is_wrong_ends_the_connection(self) -> None:
        client = self.open()
        client.connection.send(frame(b"p", 9) + frame(PUBLISH) + frame(b"", 3))
        self.assertEqual([opcode for opcode, _ in self.came(client)], [10, 1, 8])

    def test_a_client_that_takes_nothing_for_a_moment_gets_its_answers(self) -> None:
        client = self.open()
        client.connection.stop_reading()
        client.connection.send(frame(PUBLISH) + CLOSE)
        client.connection.start_reading()
        self.assertEqual([message["type"] for message in client.json], ["published"])
        self.assertEqual(self.came(client)[-1], CLOSED)

    # Commands that take longer

    def begin(self, *, publish: bool = False, subscribe: bool = False) -> Answers:
        """Start a daemon with an application that answers when a test says so."""
        answers = Answers(lambda ask: Later, asks_publish=publish, asks_subscribe=subscribe)
        self.world = Integrations(Registry(), answers, Notes())
        self.start("[limits]\nevent_size = 64KiB\n[site]\ndemo = no\n")
        return answers

    def test_commands_that_the_application_is_asked_about_are_answered(self) -> None:
        subscribe = b'{"type":"subscribe","channel":"news","ref":8}'
        for is_publish, command, kind in ((True, PUBLISH, "published"), (False, subscribe, "subscribed")):
            for decided in (None, Forbidden("no")):
                with self.subTest(kind=kind, decided=decided):
                    answers = self.begin(publish=is_publish, subscribe=not is_publish)
                    client = self.open()
                    client.connection.send(frame(command) + frame(command))
                    client.connection.send(CLOSE + frame(PUBLISH) + frame(b"p", 9))
                    client.connection.send(frame(PUBLISH) + CLOSE)
                    self.rig.wait(1)
                    self.assertEqual(self.came(client), [], "nothing is answered yet")
                    while waiting := [ask for ask in answers.asked if not ask.answered.called]:
                        waiting[0].answered.callback(decided)
                        self.rig.turn()
                    kinds = [message["type"] for message in client.json]
                    self.assertEqual(kinds, ["error" if decided else kind] * 2)
                    self.assertEqual(list(frames(client.connection.received))[-1], CLOSED)
                    self.assertEqual(self.rig.traces.sessions, 0)
                    self.assertEqual(self.rig.traces.alarms, 0)

    def test_an_answer_that_does_not_come_is_not_waited_for_long(self) -> None:
        for target in self.targets:
            with self.subTest(target):
                answers = self.begin(publish=True)
                client = self.open(target)
                client.connection.send(frame(b"x" if "raw" in target else PUBLISH) + CLOSE)
                self.rig.wait(4)
                self.assertEqual(self.came(client), [])
                self.rig.wait(3)
                self.assertEqual(self.came(client), [CLOSED])
                self.assertFalse(client.connection.is_open)
                answers.asked[0].answered.callback(None)
                self.rig.turn()
                self.assertEqual((self.rig.traces.sessions, self.rig.traces.alarms), (0, 0))

    def test_a_refusal_in_raw_format_is_the_close_frame(self) -> None:
        answers = self.begin(publish=True)
        client = self.open("/ws?channel=news&format=raw")
        client.connection.send(frame(b"x") + CLOSE)
        self.rig.wait(1)
        answers.asked[0].answered.callback(Forbidden("not this one"))
        self.assertEqual(self.came(client), [(8, b"\x03\xf0not this one")])
        self.assertFalse(client.connection.is_open)

    def test_a_client_that_is_gone_meanwhile_leaves_nothing(self) -> None:
        answers = self.begin(publish=True)
        client = self.open()
        client.connection.send(frame(PUBLISH) + CLOSE)
        self.rig.turn()
        client.connection.disconnect()
        self.assertEqual((self.rig.traces.sessions, self.rig.traces.alarms), (0, 0))
        answers.asked[0].answered.callback(None)
        self.rig.wait(10)
        self.assertEqual((self.rig.traces.sessions, self.rig.traces.alarms), (0, 0))

    def test_a_daemon_that_stops_meanwhile_says_so(self) -> None:
        self.begin(publish=True)
        client = self.open()
        client.connection.send(frame(PUBLISH) + CLOSE)
        self.rig.turn()
        self.rig.stop()
        self.rig.wait(1)
        opcode, payload = self.came(client)[-1]
        self.assertEqual((opcode, payload[:2]), (8, b"\x03\xe9"))
        self.assertFalse(client.connection.is_open)


class CloseOverHttp2Tests(CloseTests):
    """On a stream of HTTP/2."""

    def connect(self, target: str, *, then: bytes = b"", origin: str | None = None) -> WebSocketTalk:
        """Override: on a stream."""
        return WebSocketOverHttp2(self.rig, target, then=then, origin=origin)
