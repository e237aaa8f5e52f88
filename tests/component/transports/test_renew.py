"""A new token over a WebSocket, and who is behind it."""

from __future__ import annotations

import gc
import json
from typing import Any

from pushd.auth.webhooks.authorizer import WebhookAuthorizer
from pushd.bus.clientinfo import ClientInfo
from pushd.bus.event import Draft
from pushd.bus.grants import Identity
from pushd.bus.memory_headroom import memory
from pushd.daemon.integrations import Integrations
from pushd.errors import Forbidden, Unauthorized, Unavailable
from tests.rigs.daemon import STARTED, DaemonRig, DaemonTests
from tests.rigs.tunnel_client import WebSocketOverHttp2
from tests.rigs.vouching import FakeTokens, identity
from tests.rigs.websocket_client import WebSocketClient, WebSocketTalk

CONFIG = (
    "[site]\ndemo = no\n[auth]\nanonymous =\nanonymous_subscribe = public\n[channels:kept]\nhistory_size = 100000\n"
)
EVERYTHING = identity(publish=("**",), subscribe=("**",), operator=True, user="root")


class RenewRules(DaemonTests):
    """Tests of a WebSocket whose token changes."""

    config = CONFIG

    def start(self, config: str = "") -> None:
        """Override: with tokens."""
        self.tokens = FakeTokens(
            root=EVERYTHING,
            first=identity(publish=("a",), subscribe=("a", "b", "kept", "x/*"), expires_at=STARTED + 100),
            same=identity(publish=("a",), subscribe=("a", "b", "kept", "x/*"), expires_at=STARTED + 1000),
            soon=identity(publish=("a",), subscribe=("a", "b", "kept", "x/*"), expires_at=STARTED + 10),
            ever=identity(publish=("a",), subscribe=("a", "b", "kept", "x/*")),
            fewer=identity(subscribe=("b",)),
            more=identity(publish=("**",), subscribe=("**",), operator=True),
            bob=identity(publish=("**",), subscribe=("**",), user="bob"),
            nobody=identity(publish=("**",), subscribe=("**",), user=None),
        )
        self.world = Integrations(self.tokens)
        super().start(config)

    def connect(self, target: str) -> WebSocketTalk:
        """Connect a WebSocket."""
        return WebSocketClient(self.rig, target)

    def open(self, query: str = "channel=a&channel=b", token: str = "first") -> WebSocketTalk:
        """Open one with a token."""
        socket = self.connect(f"/ws?{query}&access_token={token}")
        self.rig.turn()
        self.assertTrue(socket.is_open)
        self.seen = len(socket.messages)
        return socket

    def said(self, socket: WebSocketTalk) -> list[dict[str, Any]]:
        """Return what has come since this was last asked."""
        self.rig.turn()
        new, self.seen = socket.json[self.seen :], len(socket.messages)
        return new

    def publish(self, *channels: str, data: str = "x") -> None:
        """Publish one event with every right."""
        body = json.dumps({"channels": channels, "data": data}).encode()
        headers = [("Authorization", "Bearer root")]
        self.assertEqual(self.rig.request("POST", "/publish", headers=headers, body=body).status, 200)

    def datas(self, socket: WebSocketTalk) -> list[str]:
        """Return the data of the events that have come since this was last asked."""
        return [message["data"] for message in self.said(socket) if message["type"] == "event"]

    def assert_error(self, socket: WebSocketTalk, status: int, says: str, ref: object = None) -> None:
        """It was answered this, and nothing else."""
        (message,) = self.said(socket)
        self.assertEqual((message["type"], message["status"], message.get("ref")), ("error", status, ref), message)
        self.assertIn(says, message["detail"])

    def assert_renewed(self, socket: WebSocketTalk, expires: float | None, ref: object = None) -> None:
        """It was answered that, and nothing else."""
        wanted = {"type": "renewed", "expires": expires, **({} if ref is None else {"ref": ref})}
        self.assertEqual(self.said(socket), [wanted])


class RenewTests(RenewRules):
    """What a new token changes."""

    def test_it_is_answered_with_when_it_expires(self) -> None:
        socket = self.open()
        socket.say(type="renew", token="same", ref=7)
        self.assert_renewed(socket, STARTED + 1000, ref=7)
        socket.say(type="renew", token="ever")
        self.assert_renewed(socket, None)

    def test_another_user_is_refused_and_nothing_changes(self) -> None:
        socket = self.open()
        for token, name in (("bob", "'bob'"), ("nobody", "None")):
            socket.say(type="renew", token=token, ref=1)
            self.assert_error(socket, 403, f"of the user {name}, not of 'alice'", ref=1)
        self.assert_as_before(socket)

    def test_who_had_no_token_gets_no_user(self) -> None:
        socket = self.connect("/ws?channel=public")
        self.rig.turn()
        self.seen = len(socket.messages)
        socket.say(type="renew", token="first")
        self.assert_error(socket, 403, "not of None")
        socket.say(type="renew", token="nobody")
        self.assert_renewed(socket, None)
        socket.say(type="subscribe", channel="anything")
        self.assertEqual(self.said(socket)[0]["type"], "subscribed")

    def assert_as_before(self, socket: WebSocketTalk) -> None:
        """The rights and the expiry are those of ``first``, and the subscriptions live."""
        self.publish("a", data="1")
        self.publish("b", data="2")
        self.assertEqual(self.datas(socket), ["1", "2"])
        socket.say(type="publish", channel="a", data="mine")
        self.assertEqual({message["type"] for message in self.said(socket)}, {"event", "published"})
        socket.say(type="publish", channel="c", data="mine")
        self.assert_error(socket, 403, "no right to publish")
        socket.say(type="subscribe", channel="c")
        self.assert_error(socket, 403, "no right to subscribe")
        self.rig.wait(int(STARTED + 99 - self.rig.now()))
        self.assertTrue(socket.is_open)
        self.rig.wait(3)
        self.assertEqual(socket.close, (1008, "the token has expired; come back with a new one"))

    def test_a_wrong_one_leaves_everything_as_it_was(self) -> None:
        socket = self.open()
        self.tokens.known |= {"unknown": Unavailable("no keys"), "late": Unauthorized("it has expired")}
        for token, status, says in (("forged", 401, "nobody has signed it"), ("late", 401, "expired"),
                                    ("unknown", 503, "no keys"), ("", 401, "nobody")):  # fmt: skip
            socket.say(type="renew", token=token, ref=token)
            self.assert_error(socket, status, says, ref=token)
        for message in ({"token": 1}, {"token": None}, {}, {"token": "same", "more": 1}, {"token": ["same"]}):
            socket.say(type="renew", **message)
            self.assertEqual([answer["status"] for answer in self.said(socket)], [400])
        self.assert_as_before(socket)

    def test_without_keys_it_is_refused(self) -> None:
        self.rig = DaemonRig("")
        socket = self.connect("/ws?channel=a")
        self.rig.turn()
        self.seen = len(socket.messages)
        socket.say(type="renew", token="same")
        self.assert_error(socket, 401, "[key:NAME]")

    def test_more_rights_count_at_once(self) -> None:
        socket = self.open()
        socket.say(type="renew", token="more")
        socket.say(type="subscribe", channel="**")
        socket.say(type="publish", channel="z", data="mine")
        types = [message["type"] for message in self.said(socket)]
        self.assertEqual(sorted(types), ["event", "published", "renewed", "subscribed"])

    def test_fewer_rights_end_subscriptions_each_with_a_reason(self) -> None:
        socket = self.open("channel=a&channel=x/*&channel=b&channel=x/y")
        socket.say(type="renew", token="fewer", ref=3)
        *ended, renewed = self.said(socket)
        self.assertEqual({message["channel"] for message in ended}, {"a", "x/*", "x/y"})
        self.assertEqual({message["type"] for message in ended}, {"unsubscribed"})
        self.assertEqual([message["detail"] for message in ended if not message["detail"]], [])
        self.assertEqual((renewed["type"], renewed["ref"]), ("renewed", 3))
        for channels in (("a",), ("x/y",), ("x/z",), ("a", "x/y")):
            self.publish(*channels)
        self.assertEqual(self.said(socket), [])
        self.publish("b", data="still")
        self.assertEqual(self.datas(socket), ["still"])
        self.assertEqual(self.rig.parts.bus.subscribers, 1)
        socket.say(type="subscribe", channel="a", since="earliest")
        self.assert_error(socket, 403, "no right to subscribe")
        socket.say(type="publish", channel="a", data="x")
        self.assert_error(socket, 403, "no right to publish")
        socket.say(type="unsubscribe", channel="a")
        self.assert_error(socket, 404, "not subscribed")

    def test_what_was_published_in_the_turn_before_comes_before_the_end(self) -> None:
        for query in ("channel=a", "channel=a&channel=b"):
            with self.subTest(query):
                socket = self.open(query)
                self.publish("a", data="before")
                socket.say(type="renew", token="fewer")
                self.publish("a", data="after")
                said = self.said(socket)
                self.assertEqual([message["type"] for message in said], ["event", "unsubscribed", "renewed"])
                self.assertEqual(said[0]["data"], "before")

    def test_an_event_of_several_channels_comes_by_the_one_that_is_left(self) -> None:
        socket = self.open()
        socket.say(type="renew", token="fewer")
        self.said(socket)
        self.publish("a", "b", data="both")
        (event,) = self.said(socket)
        self.assertEqual((event["channel"], event["data"]), ("b", "both"))

    def test_nothing_comes_from_a_replay_that_is_under_way(self) -> None:
        for number in range(400):
            self.publish("kept", data=f"{number:04}" + "x" * 2000)
        socket = self.connect("/ws?channel=b&access_token=first")
        self.rig.turn()
        self.seen = len(socket.messages)
        socket.connection.stop_reading()
        socket.say(type="subscribe", channel="kept", since="earliest")
        self.rig.turn()
        self.publish("kept", data="while it is replayed")
        socket.say(type="renew", token="fewer")
        self.rig.turn()
        self.publish("kept", data="after")
        self.publish("b", data="of another")
        socket.connection.start_reading()
        self.rig.wait(1)
        said = self.said(socket)
        types = [message["type"] for message in said]
        place = types.index("unsubscribed")
        self.assertEqual(types[:1] + types[place:], ["subscribed", "unsubscribed", "renewed", "event"])
        self.assertLess(place, 200)
        self.assertEqual(said[-1]["data"], "of another")

    def test_a_replay_of_several_channels_goes_on_with_those_that_are_left(self) -> None:
        self.tokens.known["some"] = identity(subscribe=("b", "kept"))
        for number in range(300):
            self.publish("a" if number % 2 else "kept", data=f"{number:04}" + "x" * 2000)
        socket = self.connect("/ws?access_token=first")
        self.rig.turn()
        self.seen = len(socket.messages)
        socket.connection.stop_reading()
        socket.say(type="subscribe", channel="kept", since="earliest")
        socket.say(type="subscribe", channel="a", since="earliest")
        self.rig.turn()
        for channels in (("a",), ("kept",), ("a", "kept"), ("kept", "a")):
            self.publish(*channels, data="-".join(channels))
        socket.say(type="renew", token="some")
        self.rig.turn()
        socket.connection.start_reading()
        self.rig.wait(1)
        said = self.said(socket)
        place = [message["type"] for message in said].index("unsubscribed")
        events = [message for message in said[place:] if message["type"] == "event"]
        self.assertEqual({event["channel"] for event in events}, {"kept"})
        self.assertEqual([event["data"] for event in events][-3:], ["kept", "a-kept", "kept-a"])
        offsets = [m["offset"] for m in said if m["type"] == "event" and m["channel"] == "kept"]
        self.assertEqual(offsets, list(range(1, 154)))

    def test_the_expiry_moves(self) -> None:
        for token, left_s in (("same", 1000), ("soon", 10)):
            with self.subTest(token):
                self.start(self.config)
                socket = self.open()
                socket.say(type="renew", token=token)
                self.rig.wait(left_s - 1)
                self.assertTrue(socket.is_open)
                self.rig.wait(3)
                self.assertEqual(socket.close, (1008, "the token has expired; come back with a new one"))

    def test_one_that_does_not_expire_is_for_ever(self) -> None:
        socket = self.open()
        socket.say(type="renew", token="ever")
        self.rig.wait(1)
        self.rig.reactor.advance(100_000)
        self.rig.turn()
        self.assertEqual(self.rig.parts.sessions._expiries, {})
        self.assertNotIn("token", str(socket.close))

    def test_one_that_has_expired_by_now_ends_it(self) -> None:
        self.tokens.known["past"] = identity(subscribe=("a",), expires_at=STARTED - 5)
        socket = self.open()
        socket.say(type="renew", token="past")
        self.rig.wait(2)
        self.assertEqual(socket.close, (1008, "the token has expired; come back with a new one"))

    def test_what_others_are_shown_is_of_the_new_one(self) -> None:
        self.tokens.known["named"] = identity(subscribe=("a", "b"), payload={"name": "A."}, expires_at=STARTED + 50)
        socket = self.open()
        socket.say(type="renew", token="named")
        self.said(socket)
        (shown,) = self.rig.get("/connections", Authorization="Bearer root").json["connections"]
        self.assertEqual(
            (shown["user"], shown["payload"], shown["expires"]), ("alice", {"name": "A."}, STARTED + 50)
        )

    def test_raw_has_no_renew(self) -> None:
        socket = self.open("channel=a&format=raw")
        socket.send('{"type":"renew","token":"same"}')
        self.rig.turn()
        self.assertEqual(socket.messages, ['{"type":"renew","token":"same"}'])
        self.rig.wait(102)
        assert socket.close is not None
        self.assertEqual(socket.close[0], 1008)
        self.assertEqual(self.tokens.shown, ["first"])


class OrderTests(RenewRules):
    """Messages behind one that waits."""

    def test_they_keep_their_order(self) -> None:
        socket = self.open()
        self.tokens.is_slow = True
        socket.say(type="renew", token="more", ref=0)
        socket.say(type="publish", channel="c", data="x", ref=1)
        socket.send(b"binary")
        socket.send("no json")
        socket.say(type="subscribe", channel="c", ref=4)
        socket.say(type="renew", token="forged", ref=5)
        socket.say(type="unsubscribe", channel="a", ref=6)
        self.rig.wait(5)
        self.assertEqual(self.said(socket), [])
        self.tokens.answer(quick=False)
        renewed, *said = [message for message in self.said(socket) if message["type"] != "event"]
        self.assertEqual((renewed["type"], renewed["ref"]), ("renewed", 0))
        answers = [("published", 1), ("error", None), ("error", None), ("subscribed", 4)]
        self.assertEqual([(message["type"], message.get("ref")) for message in said], answers)
        self.tokens.answer()
        self.assertEqual([(m["type"], m["ref"]) for m in self.said(socket)], [("error", 5), ("unsubscribed", 6)])
        socket.say(type="unsubscribe", channel="b", ref=7)
        self.assertEqual([m["ref"] for m in self.said(socket)], [7])

    def test_events_come_meanwhile(self) -> None:
        socket = self.open()
        self.tokens.is_slow = True
        socket.say(type="renew", token="fewer")
        self.publish_slowly("a")
        self.assertEqual(self.datas(socket), ["x"])
        self.tokens.answer()
        self.assertEqual([m["type"] for m in self.said(socket)], ["unsubscribed", "renewed"])

    def publish_slowly(self, channel: str) -> None:
        """Publish while tokens are not answered."""
        self.tokens.is_slow = False
        self.publish(channel)
        self.tokens.is_slow = True

    def test_a_hundred_wait_and_more_are_refused(self) -> None:
        socket = self.open()
        self.tokens.is_slow = True
        socket.say(type="renew", token="same", ref="first")
        for ref in range(103):
            socket.say(type="publish", channel="a", data="x", ref=ref)
        socket.send("no json")
        refused = self.said(socket)
        self.assertEqual([m["status"] for m in refused], [429, 429, 429, 400])
        self.assertEqual([m.get("ref") for m in refused], [100, 101, 102, None])
        self.tokens.answer()
        said = self.said(socket)
        self.assertEqual(said[0]["ref"], "first")
        self.assertEqual([m["ref"] for m in said if m["type"] == "published"], list(range(100)))
        socket.say(type="publish", channel="a", data="x", ref="last")
        self.assertEqual([m["ref"] for m in self.said(socket) if m["type"] == "published"], ["last"])

    def test_a_hundred_tokens_one_after_the_other(self) -> None:
        socket = self.open()
        self.tokens.is_slow = True
        for ref in range(101):
            socket.say(type="renew", token="same", ref=ref)
        self.assertEqual(len(self.tokens), 1)
        self.tokens.answer()
        self.assertEqual([m["ref"] for m in self.said(socket)], list(range(101)))

    def test_their_size_is_bounded_too(self) -> None:
        self.start(f"{CONFIG}[limits]\nevent_size = 10KiB\n")
        socket = self.open()
        self.tokens.is_slow = True
        socket.say(type="renew", token="same", ref="first")
        for ref in range(5):
            socket.say(type="publish", channel="a", data="x" * 8000, ref=ref)
        self.assertEqual([(m["status"], m["ref"]) for m in self.said(socket)], [(429, 2), (429, 3), (429, 4)])
        self.tokens.answer()
        self.assertEqual([m["ref"] for m in self.said(socket) if m["type"] == "published"], [0, 1])

    def test_the_client_may_go_meanwhile(self) -> None:
        before = self.rig.traces
        for token in ("same", "fewer", "forged"):
            socket = self.open()
            self.tokens.is_slow = True
            socket.say(type="renew", token=token)
            socket.say(type="publish", channel="a", data="too late")
            self.rig.turn()
            socket.connection.disconnect()
            self.rig.turn()
            self.tokens.answer()
            self.rig.turn()
            gc.collect()
            self.assert_no_traces(before)
        self.assertIsNone(self.rig.parts.bus.log.get("a"))

    def test_the_token_may_expire_meanwhile(self) -> None:
        socket = self.open()
        self.tokens.is_slow = True
        socket.say(type="renew", token="same")
        socket.say(type="publish", channel="a", data="too late")
        self.rig.wait(103)
        assert socket.close is not None
        self.assertEqual(socket.close[0], 1008)
        self.tokens.answer()
        self.rig.turn()
        self.assertIsNone(self.rig.parts.bus.log.get("a"))
        self.assertEqual(self.rig.traces.sessions, 0)

    def test_a_fault_ends_it_and_is_logged_once(self) -> None:
        self.tokens.known["bad"] = ZeroDivisionError()
        for is_slow in (False, True):
            socket = self.open()
            self.tokens.is_slow = is_slow
            socket.say(type="renew", token="bad")
            self.rig.turn()
            self.tokens.answer()
            self.rig.wait(1)
            gc.collect()
            self.assertFalse(socket.connection.is_open)
            self.assertEqual(len(self.flushLoggedErrors()), 1)
            self.assertEqual(self.rig.traces.sessions, 0)

    def test_without_memory_for_it_the_connection_ends_and_no_fault_is_logged(self) -> None:
        self.addCleanup(memory.look)
        self.tokens.known["large"] = MemoryError()
        socket = self.open()
        socket.say(type="renew", token="large")
        self.rig.wait(1)
        self.assertFalse(socket.connection.is_open)
        self.assertEqual(self.flushLoggedErrors(MemoryError), [])
        self.assertTrue(memory.is_short)
        self.assertEqual(self.rig.traces.sessions, 0)

    def test_while_the_daemon_stops(self) -> None:
        socket = self.open()
        self.tokens.is_slow = True
        socket.say(type="renew", token="same")
        stopped = self.rig.stop()
        self.rig.wait(1)
        self.tokens.answer()
        self.rig.wait(5)
        self.assertTrue(stopped.called)
        self.assertEqual(socket.close, (1001, "the server is going away"))


class _Application(WebhookAuthorizer):
    """An application that is asked, and gives users other names."""

    asks_connect = True
    asks_subscribe = False
    asks_publish = False

    def __init__(self) -> None:
        self.users: dict[str | None, str] = {}
        self.asked: list[str | None] = []

    async def before_connect(self, caller: ClientInfo) -> Identity:
        self.asked.append(caller.user)
        if caller.user not in self.users:
            raise Forbidden("the application does not want it")
        was = caller.identity
        return Identity(was.grants, self.users[caller.user], was.payload, was.expires_at)

    async def before_subscribe(self, caller: ClientInfo, channel: str, since: str) -> None:
        raise NotImplementedError

    async def before_publish(self, caller: ClientInfo, draft: Draft) -> Draft:
        raise NotImplementedError


class ApplicationTests(RenewRules):
    """The application is asked about the new token as about the first."""

    def start(self, config: str = "") -> None:
        """Override: with an application."""
        super().start(config)
        self.application = _Application()
        self.application.users = {"alice": "Alice Adams", "bob": "Bob Brown"}
        self.rig = DaemonRig(config, self.http, Integrations(self.tokens, self.application))

    def test_it_may_call_users_what_it_likes(self) -> None:
        socket = self.open()
        socket.say(type="renew", token="same")
        self.assert_renewed(socket, STARTED + 1000)
        self.assertEqual(self.application.asked, ["alice", "alice"])
        (shown,) = self.rig.get("/connections", Authorization="Bearer root").json["connections"]
        self.assertEqual(shown["user"], "Alice Adams")

    def test_another_of_its_users_is_refused(self) -> None:
        socket = self.open()
        socket.say(type="renew", token="bob")
        self.assert_error(socket, 403, "'Bob Brown', not of 'Alice Adams'")

    def test_what_it_refuses_changes_nothing(self) -> None:
        socket = self.open()
        del self.application.users["alice"]
        socket.say(type="renew", token="fewer")
        self.assert_error(socket, 403, "does not want it")
        self.publish("a")
        self.assertEqual(self.datas(socket), ["x"])


class _OverHttp2(RenewRules):
    def connect(self, target: str) -> WebSocketTalk:
        return WebSocketOverHttp2(self.rig, target)


class RenewOverHttp2Tests(_OverHttp2, RenewTests):
    """The same on a stream."""


class OrderOverHttp2Tests(_OverHttp2, OrderTests):
    """The same on a stream."""
