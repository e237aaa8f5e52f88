"""A new configuration for a daemon that runs: what holds at once, what stays, and that nobody is dropped for it."""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent

from pushd.bus.grants import EVERYTHING
from pushd.config.changes import fixed_differences
from pushd.config.loader import parse
from pushd.daemon.integrations import Integrations
from tests.rigs.builders import datas, patterns
from tests.rigs.daemon import DaemonTests, query
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import Client, HttpClient, Response
from tests.rigs.sse_client import EventStream
from tests.rigs.vouching import FakeTokens, identity
from tests.rigs.websocket_client import WebSocketClient

OPEN = "[site]\ndemo = no\n[auth]\nanonymous = publish, subscribe, operator\n"


class ReloadCase(DaemonTests):
    """Tests of a daemon that is given another configuration."""

    config = OPEN

    def reload(self, config: str, integrations: Integrations | None = None) -> list[str]:
        """Reload it with another file; return what was logged."""
        with capturedLogs() as logged:
            self.rig.reload(config, integrations)
            self.rig.turn()
        return [formatEvent(event) for event in logged]

    def assert_reloads(self, config: str, integrations: Integrations | None = None) -> None:
        """Reload it, and nothing else is to be said than that."""
        (line,) = self.reload(config, integrations)
        self.assertTrue(line.startswith("reloaded the configuration"), line)
        self.assertNotIn("restart", line)

    def subscribed(self, *channels: str) -> Client:
        """Open an event stream."""
        client = self.rig.client()
        client.send("GET", f"/sse?{query(channel=channels)}")
        self.rig.turn()
        self.assertEqual(client.response.status, 200)
        return client

    def datas(self, client: Client) -> list[str]:
        """What an event stream has got."""
        self.rig.turn()
        return [event.data for event in EventStream(client.response.body).events]


class AllOrNothingTests(ReloadCase):
    """What is wrong changes nothing."""

    def test_a_file_that_is_wrong_leaves_everything_as_it_was_and_says_where_it_is_wrong(self) -> None:
        client = self.subscribed("a")
        (line,) = self.reload("[auth]\nanonymous =\n[limits]\nevent_size = 1X\n")
        self.assertIn("not reloaded, everything stays as it was: the test: [limits] event_size = 1X: wanted", line)
        self.rig.publish("a", b"still")
        self.assertEqual(self.datas(client), ["still"])

    def test_so_does_a_site_that_is_not_there(self) -> None:
        (line,) = self.reload(f"{OPEN}[site]\nroot = /nowhere\n".replace("[site]\ndemo = no\n", "", 1))
        self.assertIn("not reloaded, everything stays as it was: [site] root = /nowhere: not a directory", line)
        self.assertEqual(self.rig.get("/channels").status, 200)

    def test_a_file_that_is_right_again_is_taken(self) -> None:
        self.reload("[nonsense]\n")
        self.assert_reloads(OPEN.replace("publish, ", ""))
        self.assertEqual(self.rig.request("POST", "/channels/a", body=b"x").status, 403)


class RightsTests(ReloadCase):
    """Who may do what."""

    def test_rights_of_everybody_that_are_gone_end_the_subscriptions_of_those_who_show_nothing(self) -> None:
        loses, stays = self.subscribed("secret/1"), self.subscribed("public/1", "public/2")
        pattern = self.subscribed("public/*")
        closing, _ = self.reload(
            "[site]\ndemo = no\n[auth]\nanonymous = publish\nanonymous_subscribe = public/**\n"
        )
        self.assertIn("sse of 127.0.0.1", closing)
        self.assertIn("the rights of everybody have changed", self.datas(loses)[-1])
        self.assertTrue(loses.response.is_complete)
        for channel in ("public/1", "secret/1"):
            self.rig.publish(channel, b"news")
        self.assertEqual((self.datas(stays), self.datas(pattern)), (["news"], ["news"]))
        self.assertEqual(self.rig.get("/sse?channel=secret/1").status, 403)

    def test_new_rights_hold_on_connections_that_live(self) -> None:
        client = self.rig.client()
        client.send("GET", "/connections")
        self.assert_reloads("[site]\ndemo = no\n[auth]\nanonymous =\n")
        client.send("GET", "/connections")
        self.rig.turn()
        self.assertEqual([response.status for response in client.responses], [200, 403])

    def test_keys_come_and_go_while_connections_live(self) -> None:
        client = HttpClient(self.rig)
        tokens = FakeTokens(good=identity(publish=("a",)))
        headers = {"Authorization": "Bearer good"}
        self.assert_reloads("[auth]\nanonymous =\n", Integrations(tokens))
        client.send("POST", "/channels/a", headers=headers, body=b"x")
        self.assert_reloads("[auth]\nanonymous =\n", Integrations(FakeTokens()))
        client.send("POST", "/channels/a", headers=headers, body=b"x")
        self.rig.turn()
        self.assertEqual([response.status for response in client.responses], [201, 401])

    def test_a_websocket_renews_with_the_new_keys(self) -> None:
        self.start("[auth]\nanonymous = subscribe\n")
        talk = WebSocketClient(self.rig, "/ws")
        tokens = FakeTokens(new=identity(publish=("a",), user=None))
        self.assert_reloads("[auth]\nanonymous = subscribe\n", Integrations(tokens))
        talk.say(type="renew", token="new", ref=1)
        self.rig.turn()
        self.assertEqual(talk.json[-1]["type"], "renewed", talk.json)

    def test_hosts_and_origins(self) -> None:
        page = {"Origin": "https://app.example"}
        self.assertEqual(self.rig.request("GET", "/channels", headers=page).status, 403)
        self.assertEqual(self.rig.request("GET", "/channels", host="push.example").status, 403)
        self.assert_reloads(f"{OPEN}origins = https://app.example\nhosts = push.example\n")
        self.assertEqual(self.rig.request("GET", "/channels", headers=page).status, 200)
        self.assertEqual(self.rig.request("GET", "/channels", host="push.example").status, 200)

    def test_proxies(self) -> None:
        forwarded = {"X-Forwarded-For": "203.0.113.9"}

        def lines(*, expects: str) -> None:
            with capturedLogs() as logged:
                self.rig.request("GET", "/nowhere", headers=forwarded)
                self.rig.request("DELETE", "/channels/none", headers=forwarded)
            self.assertIn(expects, " ".join(filter(None, map(formatEvent, logged))))

        lines(expects="from 127.0.0.1:")
        self.assert_reloads(f"{OPEN}[proxies]\ntrusted = 127.0.0.1\n")
        lines(expects="from 203.0.113.9 by way of 127.0.0.1:")


class ChannelTests(ReloadCase):
    """What is kept of channels."""

    def test_less_that_is_kept_is_dropped_at_once_and_more_from_then_on(self) -> None:
        for number in range(10):
            self.rig.publish("a", b"%d" % number)
        self.assert_reloads(f"{OPEN}[channels:a]\nhistory_size = 3\n")
        self.assertEqual(self.kept("a"), [b"7", b"8", b"9"])
        self.assert_reloads(OPEN)
        self.rig.publish("a", b"10")
        self.assertEqual(self.kept("a"), [b"7", b"8", b"9", b"10"])

    def kept(self, channel: str) -> list[bytes]:
        """The data of what a channel keeps."""
        return datas(self.rig.parts.bus.read(patterns(channel), "earliest", 100, EVERYTHING).entries)

    def test_how_long_holds_for_what_is_published_from_then_on(self) -> None:
        self.rig.publish("a", b"long")
        self.assert_reloads(f"{OPEN}[channels]\nhistory_age = 10s\n")
        self.rig.publish("b", b"short")
        self.rig.wait(12)
        self.assertEqual((self.kept("a"), self.kept("b")), ([b"long"], []))

    def test_presence(self) -> None:
        self.assert_reloads(f"{OPEN}[channels]\npresence = events\n")
        first = self.subscribed("a")
        self.subscribed("a")
        self.rig.turn()
        self.assertEqual([event.type for event in EventStream(first.response.body).events], ["pushd.join"] * 2)

    def test_a_subscriber_is_neither_dropped_nor_does_it_miss_anything(self) -> None:
        client, talk = self.subscribed("a"), WebSocketClient(self.rig, "/ws?channel=a")
        for number in range(5):
            self.rig.publish("a", b"%d" % number)
            self.assert_reloads(f"{OPEN}[channels]\nhistory_size = {number}\n")
        self.assertEqual(self.datas(client), ["0", "1", "2", "3", "4"])
        self.assertEqual([one["data"] for one in talk.json if one["type"] == "event"], ["0", "1", "2", "3", "4"])


class LimitTests(ReloadCase):
    """How much."""

    def test_sizes_hold_for_the_next_request(self) -> None:
        self.assert_reloads(f"{OPEN}[limits]\nevent_size = 10\n")
        self.assertEqual(self.rig.request("POST", "/channels/a", body=b"x" * 11).status, 413)
        self.assertEqual(self.rig.request("POST", "/channels/a", body=b"x" * 10).status, 201)

    def test_rates(self) -> None:
        self.assert_reloads(f"{OPEN}[limits]\npublish_rate = 1\npublish_burst = 1\n".replace(", operator", ""))
        client = HttpClient(self.rig)
        address = "192.0.2.7"
        self.rig.reload(
            f"{OPEN}[proxies]\ntrusted = 127.0.0.1\n[limits]\npublish_rate = 1\npublish_burst = 1\n".replace(
                ", operator", ""
            )
        )
        for _ in range(2):
            client.send("POST", "/channels/a", headers={"X-Forwarded-For": address}, body=b"x")
        self.rig.turn()
        self.assertEqual([response.status for response in client.responses], [201, 429])
        self.rig.reload(f"{OPEN}[proxies]\ntrusted = 127.0.0.1\n")
        client.send("POST", "/channels/a", headers={"X-Forwarded-For": address}, body=b"x")
        self.rig.turn()
        self.assertEqual(client.responses[-1].status, 201)

    def test_subscriptions_of_a_connection_that_lives(self) -> None:
        talk = WebSocketClient(self.rig, "/ws?channel=a")
        self.assert_reloads(f"{OPEN}[limits]\nsubscriptions = 1\n")
        talk.say(type="subscribe", channel="b")
        self.rig.turn()
        self.assertEqual(talk.json[-1]["type"], "error")

    def test_channels_in_all(self) -> None:
        self.assert_reloads(f"{OPEN}[limits]\nchannels = 1\n")
        self.subscribed("a")
        self.assertEqual(self.rig.get("/sse?channel=b").status, 503)


class SiteTests(ReloadCase):
    """What is served, and what is said of it."""

    def page(self) -> Response:
        """Return the head of what is at the root."""
        client = self.rig.client()
        client.send("HEAD", "/")
        self.rig.turn()
        return client.response

    def test_the_demo_and_its_clock_come_and_go(self) -> None:
        self.assertEqual(self.page().status, 404)
        self.assert_reloads(OPEN.replace("demo = no", "demo = yes"))
        self.assertEqual(self.page().status, 200)
        client = self.subscribed("clock")
        self.rig.wait(2)
        self.assertEqual(len(self.datas(client)), 2)
        self.assert_reloads(OPEN)
        self.rig.wait(2)
        self.assertEqual(len(self.datas(client)), 2)
        self.assertEqual(self.page().status, 404)

    def test_push_lists(self) -> None:
        demo = OPEN.replace("demo = no", "demo = yes")
        self.assert_reloads(demo)
        before = Http2Client(self.rig)
        self.assert_reloads(f"{demo}[push:/]\nresources = /favicon.svg\n")
        for client in (before, Http2Client(self.rig)):
            client.send("GET", "/")
            self.rig.turn()
            self.assertEqual([push.request[":path"] for push in client.pushes], ["/favicon.svg"])

    def test_the_access_log(self) -> None:
        self.assert_reloads(f"{OPEN}[log]\nrequests = yes\n")
        with capturedLogs() as logged:
            self.rig.get("/channels")
        self.assertIn("GET /channels", " ".join(filter(None, map(formatEvent, logged))))


class FixedTests(ReloadCase):
    """What needs a restart is named."""

    def test_it_is_named_and_the_rest_holds(self) -> None:
        changed = (
            f"{OPEN}[pushd]\nstore = memory\nstate_directory = /elsewhere\n"
            "[listen:more]\nendpoint = unix:/tmp/more.sock\n[limits]\nevent_size = 10\n"
        )
        waiting = "restart pushd to apply [pushd] state_directory, [pushd] store, [listen:more]"
        lines = self.reload(changed)
        self.assertEqual(lines, [f"reloaded the configuration: applied [limits] event_size; {waiting}"])
        self.assertEqual(self.reload(changed), [f"reloaded the configuration; {waiting}"], "until it is restarted")
        self.assertEqual(self.rig.request("POST", "/channels/a", body=b"x" * 11).status, 413)

    def test_each_of_them(self) -> None:
        listener = "[listen:a]\nendpoint = tcp:80\n[auth]\nanonymous =\n[proxies]\ntrusted = unix\n"
        before = parse(listener, "x")
        for change, what in [
            ("[pushd]\ndurability = power\n", "[pushd] durability"),
            ("[pushd]\nstore_memory = 2MiB\n", "[pushd] store_memory"),
            ("[log]\nformat = json\n", "[log] format"),
        ]:
            self.assertEqual(list(fixed_differences(before, parse(listener + change, "x"))), [what])
        for line, what in [
            ("endpoint = tcp:81\n", "endpoint"),
            ("endpoint = tcp:80\ntls = yes\n", "tls"),
            ("endpoint = tcp:80\nproxy_protocol = yes\n", "proxy_protocol"),
            ("endpoint = tcp:80\nserves = operations\n", "serves"),
        ]:
            after = parse(listener.replace("endpoint = tcp:80\n", line), "x")
            self.assertEqual(list(fixed_differences(before, after)), [f"[listen:a] {what}"])
        other = parse(listener.replace("listen:a", "listen:b"), "x")
        self.assertEqual(list(fixed_differences(before, other)), ["[listen:a]", "[listen:b]"])
        self.assertEqual(list(fixed_differences(before, before)), [])
