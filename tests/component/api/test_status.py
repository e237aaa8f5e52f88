"""How the daemon is, for operators: ``/status`` and ``/status/events``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from pushd import __version__
from pushd.auth.webhooks.authorizer import WebhookAuthorizer
from pushd.bus.clientinfo import ClientInfo
from pushd.bus.event import Draft
from pushd.bus.grants import Identity
from pushd.daemon.integrations import Integrations
from pushd.errors import Forbidden
from tests.rigs.daemon import STARTED, DaemonTests, StoredDaemonRig
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import Client, HttpClient, Response
from tests.rigs.sse_client import EventStream
from tests.rigs.vouching import FakeTokens, identity
from tests.rigs.websocket_client import WebSocketClient

OPERATOR = {"Authorization": "Bearer operator"}


class StatusTestCase(DaemonTests):
    """Tests of a daemon that knows some tokens."""

    config = "[auth]\nanonymous =\ncookie = session\n[limits]\nretry = 2500ms\nheartbeat = 20s\n"

    def start(self, config: str = "") -> None:
        """Override: with tokens."""
        self.tokens = FakeTokens(
            operator=identity(operator=True, user="olga"),
            everything_else=identity(publish=("**",), subscribe=("**",)),
            brief=identity(operator=True, expires_at=STARTED + 5),
        )
        self.world = Integrations(self.tokens)
        super().start(config)

    def watch(self, headers: dict[str, str] = OPERATOR, target: str = "/status/events") -> Client:
        """Open the stream."""
        client = self.rig.client()
        client.send("GET", target, headers=headers)
        self.rig.turn()
        return client

    def refused(self, **headers: str) -> Response:
        """Return the response to a request that is refused."""
        client = self.watch(headers)
        client.connection.disconnect()
        return client.response

    def told(self, client: Client, kind: str = "pushd.figures") -> list[dict[str, Any]]:
        """What a watcher was told in events of a kind."""
        events = EventStream(client.response.body).events
        return [json.loads(event.data) for event in events if event.type == kind]


class RightsTests(StatusTestCase):
    """Who may see it."""

    def test_who_shows_nothing_is_asked_for_a_token(self) -> None:
        before = self.rig.traces
        response = self.refused()
        self.assert_problem(response, 401, says="operator")
        self.assertEqual(response.header("www-authenticate"), 'Bearer realm="pushd"')
        self.assert_no_traces(before)

    def test_a_token_without_the_right_is_not_enough(self) -> None:
        before = self.rig.traces
        response = self.refused(Authorization="Bearer everything_else")
        self.assert_problem(response, 403, says="no right to see the status: the token of the test")
        self.assert_no_traces(before)

    def test_nor_one_that_nobody_knows(self) -> None:
        self.assert_problem(self.refused(Authorization="Bearer unknown"), 401)

    def test_an_operator_sees_it(self) -> None:
        self.assertEqual(self.watch().response.status, 200)

    def test_a_cookie_does_as_well_but_not_for_pages_of_others(self) -> None:
        self.assertEqual(self.watch({"Cookie": "session=operator"}).response.status, 200)
        for more in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            (response,) = self.watch({"Cookie": "session=operator", **more}).responses
            self.assert_problem(response, 403, field="Origin")

    def test_anybody_sees_it_where_anybody_is_an_operator(self) -> None:
        self.start("[auth]\nanonymous = operator\n")
        client = self.watch({})
        self.assertEqual((client.response.status, self.told(client, "pushd.about")[0]["user"]), (200, None))

    def test_nobody_does_without_a_key_who_is_not(self) -> None:
        self.world = Integrations()
        DaemonTests.start(self, "[auth]\nanonymous = publish, subscribe\n")
        self.assert_problem(self.refused(), 403, says="[auth] anonymous does not give operator")

    def test_the_application_may_refuse(self) -> None:
        self.world = Integrations(self.tokens, authorizer=_Asking(Forbidden("not by night")))
        DaemonTests.start(self, self.config)
        self.assert_problem(self.refused(**OPERATOR), 403, says="not by night")

    def test_who_is_somebody_else_for_the_application_may_not_see_it(self) -> None:
        before = self.rig.traces
        self.world = Integrations(self.tokens, authorizer=_Asking(identity(user="nobody")))
        DaemonTests.start(self, self.config)
        self.assert_problem(self.refused(**OPERATOR), 403, says="no right to see the status")
        self.assert_no_traces(before)

    def test_the_limits_of_subscribers_hold(self) -> None:
        self.start(f"{self.config}connections_per_user = 1\n")
        self.watch()
        self.assert_problem(self.refused(**OPERATOR), 429)


class _Asking(WebhookAuthorizer):
    """Is asked who connects, and always answers the same."""

    asks_connect, asks_subscribe, asks_publish = True, False, False

    def __init__(self, answer: Identity | Forbidden) -> None:
        self._decided = answer

    async def before_connect(self, caller: ClientInfo) -> Identity:
        """See `WebhookAuthorizer`."""
        if isinstance(self._decided, Forbidden):
            raise self._decided
        return self._decided

    async def before_subscribe(self, caller: ClientInfo, channel: str, since: str) -> None:
        """See `WebhookAuthorizer`."""

    async def before_publish(self, caller: ClientInfo, draft: Draft) -> Draft:
        """See `WebhookAuthorizer`."""
        return draft


class EventsTests(StatusTestCase):
    """What watchers are told."""

    def test_the_head_is_that_of_an_event_stream(self) -> None:
        response = self.watch().response
        for name, value in (
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store, no-transform"),
            ("x-accel-buffering", "no"),
            ("x-content-type-options", "nosniff"),
        ):
            self.assertEqual(response.header(name), value)
        self.assertFalse(response.is_complete)

    def test_head_is_answered_with_the_head_only(self) -> None:
        before = self.rig.traces
        client = self.rig.client()
        client.send("HEAD", "/status/events", headers=OPERATOR)
        self.rig.turn()
        self.assertEqual(client.response.status, 200)
        self.assertEqual(client.response.header("content-type"), "text/event-stream")
        client.connection.disconnect()
        self.assert_no_traces(before)

    def test_it_takes_no_parameters_and_no_other_methods(self) -> None:
        (response,) = self.watch(target="/status/events?channel=news").responses
        self.assert_problem(response, 400, field="channel")
        self.assert_problem(self.rig.request("POST", "/status/events", headers=OPERATOR), 405)
        self.assert_problem(self.rig.get("/status/events/more"), 404)

    def test_first_it_says_what_stays(self) -> None:
        self.rig.wait(3)
        client = self.watch()
        self.assertTrue(client.response.body.startswith(b"retry: 2500\nevent: pushd.about\n"))
        (about,) = self.told(client, "pushd.about")
        (subscriber,) = self.rig.parts.sessions
        self.assertEqual(
            about,
            {
                "version": __version__,
                "began": STARTED,
                "connection": subscriber.caller.id,
                "user": "olga",
                "expires": None,
                "publishes": True,
            },
        )

    def test_figures_come_at_once_and_each_second(self) -> None:
        client = self.watch()
        self.assertEqual(len(self.told(client)), 1)
        self.rig.wait(3)
        counters = self.told(client)
        self.assertEqual([one["time"] for one in counters], [STARTED + second for second in range(4)])
        self.assertEqual([one["seconds"] for one in counters], [0, 1, 2, 3])

    def test_they_say_how_it_is(self) -> None:
        self.start("[auth]\nanonymous = operator, publish, subscribe\n[site]\ndemo = no\n")
        for target in ("/stream?channel=news", "/sse?channel=**"):
            self.rig.client().send("GET", target)
        WebSocketClient(self.rig, "/ws?channel=news")
        idle = self.rig.client()
        client = self.watch({})
        for data in (b"one", b"two"):
            self.rig.publish("news", data)
        self.rig.wait(1)
        counters = self.told(client)[-1]
        self.assertEqual(counters["connections"], 5)
        self.assertEqual((counters["subscribers"], counters["channels"]), (4, 1))
        self.assertEqual(counters["transports"], {"sse": 2, "stream": 1, "websocket": 1})
        self.assertEqual((counters["published"], counters["delivered"], counters["missed"]), (2, 6, 0))
        self.assertGreater(counters["written_bytes"], 0)
        self.assertEqual((counters["latency"]["count"], counters["lag"]["count"]), (2, 1))
        self.assertEqual((counters["outbox_bytes"], counters["store_bytes"]), (0, 0))
        (news,) = counters["busiest"]
        self.assertEqual(counters["history_bytes"], news["bytes"])
        self.assertEqual((news["channel"], news["rate"], news["subscribers"], news["retained"]), ("news", 2, 3, 2))
        idle.connection.disconnect()

    def test_what_waits_in_outboxes_is_summed_up(self) -> None:
        self.start("[auth]\nanonymous = operator, publish, subscribe\n")
        slow = self.rig.client()
        slow.send("GET", "/sse?channel=news")
        self.rig.turn()
        slow.connection.stop_reading()
        client = self.watch({})
        for _ in range(10):
            self.rig.publish("news", b"x" * 1000)
        self.rig.wait(1)
        (first, last) = self.told(client)
        self.assertEqual(first["outbox_bytes"], 0)
        self.assertGreater(last["outbox_bytes"], 10_000)

    def test_the_size_of_the_store_is_that_of_its_files(self) -> None:
        with TemporaryDirectory() as directory:
            rig = StoredDaemonRig(Path(directory), "[auth]\nanonymous = operator, publish\n")
            rig.publish("news", b"x" * 100_000)
            client = rig.client()
            client.send("GET", "/status/events")
            rig.turn()
            files = [Path(directory, name) for name in ("pushd.db", "pushd.db-wal")]
            self.assertEqual(self.told(client)[0]["store_bytes"], sum(file.stat().st_size for file in files))
            rig.abandon()

    def test_no_more_than_fifty_channels_are_shown(self) -> None:
        self.start("[auth]\nanonymous = operator, publish\n")
        for number in range(60):
            self.rig.publish(f"channel/{number}")
        counters = self.told(self.watch({}))[0]
        self.assertEqual((len(counters["busiest"]), counters["channels"]), (50, 60))

    def test_they_are_the_same_over_http2(self) -> None:
        client = Http2Client(self.rig)
        client.send("GET", "/status/events", headers=OPERATOR)
        self.rig.wait(2)
        self.assertEqual(len(self.told(client)), 3)

    def test_nothing_is_published_for_it(self) -> None:
        self.watch()
        self.rig.wait(5)
        self.assertEqual((self.rig.parts.bus.log.sequence, len(self.rig.parts.bus.log)), (0, 0))

    def test_while_nobody_watches_nothing_is_looked_at(self) -> None:
        overview = self.rig.parts.operators.watchers._overview
        looks: list[None] = []
        self.patch(overview, "look", lambda: looks.append(None))
        self.rig.wait(3)
        self.assertEqual(len(looks), 0)
        client = self.watch()
        self.rig.wait(1)
        self.assertEqual(len(looks), 2)
        client.connection.disconnect()
        self.rig.wait(3)
        self.assertEqual((len(looks), len(self.rig.parts.operators.watchers)), (2, 0))


class WatcherTests(StatusTestCase):
    """A watcher is a subscriber without a channel."""

    def state(self) -> dict[str, Any]:
        """The only connection, as it is listed."""
        (state,) = self.rig.get("/connections", **OPERATOR).json["connections"]
        assert isinstance(state, dict)
        return state

    def test_it_is_listed_and_can_be_closed(self) -> None:
        client = self.watch()
        state = self.state()
        self.assertEqual((state["transport"], state["user"], state["channels"]), ("sse", "olga", []))
        self.rig.request("DELETE", f"/connections/{state['connection']}", headers=OPERATOR)
        self.rig.turn()
        self.assertEqual(self.told(client, "pushd.closed"), [{"detail": "closed by an operator"}])
        self.assertFalse(client.connection.is_open)

    def test_it_leaves_nothing_behind(self) -> None:
        before = self.rig.traces
        client = self.watch()
        client.connection.disconnect()
        self.rig.wait(1)
        self.assert_no_traces(before)

    def test_it_ends_when_its_token_expires(self) -> None:
        client = self.watch({"Authorization": "Bearer brief"})
        self.assertEqual(self.told(client, "pushd.about")[0]["expires"], STARTED + 5)
        self.rig.wait(8)
        self.assertIn("expired", self.told(client, "pushd.closed")[0]["detail"])
        self.assertFalse(client.connection.is_open)

    def test_it_ends_when_its_rights_are_taken_away(self) -> None:
        self.start("[auth]\nanonymous = operator\n")
        client = self.watch({})
        self.rig.reload("[auth]\nanonymous = subscribe\n", self.world)
        self.rig.wait(2)
        self.assertIn("no right", self.told(client, "pushd.closed")[0]["detail"])

    def test_it_goes_on_after_a_reload(self) -> None:
        client = self.watch()
        self.rig.reload(f"{self.config}outbox = 64KiB\n", self.world)
        other = self.watch()
        self.rig.wait(1)
        self.assertEqual((len(self.told(client)), len(self.told(other))), (2, 2))

    def test_it_is_told_that_the_daemon_stops(self) -> None:
        client = self.watch()
        stopped: Deferred[None] = self.rig.stop()
        self.rig.wait(1)
        self.assertIn("going away", self.told(client, "pushd.closed")[0]["detail"])
        self.assertTrue(stopped.called)

    def test_one_that_does_not_keep_up_is_told_less_and_not_closed(self) -> None:
        client = self.watch()
        client.connection.stop_reading()
        self.rig.wait(300)
        (subscriber,) = self.rig.parts.sessions
        self.assertLess(subscriber.outbox_bytes, 1000)
        client.connection.start_reading()
        self.rig.wait(2)
        self.assertLess(len(self.told(client)), 250)
        self.assertEqual(self.told(client)[-1]["seconds"], 302)


class PageTests(StatusTestCase):
    """What the browser gets."""

    def start(self, config: str = "") -> None:
        """Override: see `tests.component.server.test_site` about files."""
        super().start(config)
        cooperator = task.Cooperator(scheduler=lambda call: self.rig.reactor.callLater(0, call))
        self.patch(task, "_theCooperator", cooperator)

    def answer(self, path: str, **headers: str) -> Response:
        """Return the response for a file, which takes some turns."""
        client = HttpClient(self.rig)
        client.send("GET", path, headers=headers)
        self.rig.turn()
        return client.response

    def test_the_page_is_there_for_everybody_and_knows_nothing(self) -> None:
        response = self.answer("/status")
        self.assertEqual((response.status, response.header("content-type")), (200, "text/html"))
        self.assertIn(b"<title>pushd status</title>", response.body)
        self.assertNotIn(__version__.encode(), response.body)
        self.assertEqual(self.tokens.shown, [])

    def test_what_is_not_its_own_does_not_run_in_it(self) -> None:
        for path in ("/status", "/status/status.js", "/status/base.css"):
            response = self.answer(path)
            policy = response.header("content-security-policy") or ""
            self.assertIn("default-src 'none'", policy)
            self.assertNotIn("unsafe", policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertEqual(response.header("x-content-type-options"), "nosniff")
            self.assertEqual(response.header("x-frame-options"), "DENY")
            self.assertEqual(response.header("referrer-policy"), "no-referrer")

    def test_all_that_it_needs_is_there_and_comes_from_here(self) -> None:
        page = self.answer("/status").body.decode()
        self.assertIsNone(
            re.search(r"<style|style=|\son\w+=|<script>|//", page), "nothing inline, nor from elsewhere"
        )
        needed = re.findall(r'(?:src|href)="([^"]*)"', page)
        scripts = [f"/status/{name}" for name in needed if name.endswith("status.js")]
        self.assertEqual(scripts, ["/status/status/status.js"])
        for name in needed:
            self.assertEqual(self.answer(f"/{name}").status, 200, name)
        for name in re.findall(r'from "\./([^"]*)"', self.answer("/status/status.js").body.decode()):
            self.assertEqual(self.answer(f"/status/{name}").header("content-type"), "text/javascript", name)

    def test_with_a_slash_it_is_where_it_is(self) -> None:
        response = self.answer("/status/")
        self.assertEqual((response.status, response.header("location")), (302, "../status"))

    def test_there_is_nothing_else(self) -> None:
        for path in ("/status/index.html", "/status/..%2fwww%2findex.html", "/status/demo.js", "/status/x"):
            self.assert_problem(self.answer(path), 404)
        self.assert_problem(self.rig.request("POST", "/status"), 405)

    def test_it_is_there_without_the_demo(self) -> None:
        self.start(f"{self.config}[site]\ndemo = no\n")
        for path in ("/status", "/status/base.css", "/status/favicon.svg"):
            self.assertEqual(self.answer(path).status, 200)
