"""What clients publish too often is refused, and the rest is not."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.auth.rate_limits import RateLimitedPublisher
from pushd.bus.bus import Published
from pushd.bus.clientinfo import ClientInfo
from pushd.bus.grants import EVERYTHING, Grants
from pushd.bus.publisher import DirectPublisher, Outcome
from pushd.bus.token_buckets import TokenBuckets
from pushd.daemon.integrations import Integrations
from pushd.errors import TooMany
from tests.rigs.builders import BusRig, a_caller, draft
from tests.rigs.daemon import DaemonTests, query
from tests.rigs.effort import examples
from tests.rigs.http_client import Response, batch_replies
from tests.rigs.outsiders import Registry
from tests.rigs.websocket_client import WebSocketClient

STRANGER = "198.51.100.7"
LIMITS = (
    "[limits]\npublish_rate = 2\npublish_burst = 3\n[auth]\nanonymous = publish, subscribe\n[site]\ndemo = no\n"
)
MAY = Grants.of(["publish"])


class RateTests(DaemonTests):
    """``publish_rate`` and ``publish_burst``, over everything that publishes."""

    config = LIMITS
    world = Integrations(Registry())

    def setUp(self) -> None:
        """Come from somewhere else."""
        super().setUp()
        self.rig.comes_from = STRANGER

    def post(self, token: str | None = None) -> Response:
        """Publish one event."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.rig.request("POST", "/channels/news", body=b"x", headers=headers)

    def posts(self, count: int, token: str | None = None) -> list[int]:
        """Publish one event after the other; answer the statuses."""
        return [self.post(token).status for _ in range(count)]

    def batch(self, lines: list[bytes], token: str | None = None) -> list[dict[str, Any]]:
        """Publish lines; return what was said of each."""
        client = self.rig.client()
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        client.send("POST", "/publish", body=b"\n".join(lines), headers=headers)
        while not client.written[0].is_complete:
            self.rig.turn()
        return batch_replies(client.written[0])

    def test_joins_and_leaves_count(self) -> None:
        self.start(f"{LIMITS}[channels:room/*]\npresence = events\n")
        self.rig.comes_from = STRANGER
        talk = self.connect()
        for _ in range(20):
            talk.say(type="subscribe", channel="room/1")
            talk.say(type="unsubscribe", channel="room/1")
            self.rig.turn()
        self.assertEqual(sum(one["type"] == "subscribed" for one in talk.json), 3)
        refused = [one for one in talk.json if one["type"] == "error" and one["status"] == 429]
        self.assertEqual(len(refused), 17)
        self.assertIn("publish_rate", refused[0]["detail"])
        talk.say(type="subscribe", channel="news")
        talk.say(type="subscribe", channel="room/*")
        self.rig.turn()
        self.assertEqual([one["type"] for one in talk.json[-2:]], ["subscribed", "subscribed"])
        self.assertEqual(self.posts(4), [201, 201, 201, 429])  # these are counted by themselves
        self.rig.wait(1)
        before = len(talk.json)
        talk.say(type="subscribe", channel="room/1")
        self.rig.turn()
        self.assertEqual([one["type"] for one in talk.json[before:]], ["subscribed", "event"])

    def connect(self, **parameters: str) -> WebSocketClient:
        """Open a WebSocket."""
        client = WebSocketClient(self.rig, f"/ws?{query(**parameters)}")
        self.rig.turn()
        client.messages.clear()
        return client

    @property
    def retained(self) -> int:
        """Count what was published."""
        return int(self.rig.get("/channels/news").json["retained"])

    def test_a_burst_goes_through_and_then_as_much_as_comes_in(self) -> None:
        self.assertEqual(self.posts(5), [201, 201, 201, 429, 429])
        self.rig.reactor.advance(0.49)
        self.assertEqual(self.posts(1), [429])
        self.rig.reactor.advance(0.01)
        self.assertEqual(self.posts(2), [201, 429])
        self.rig.reactor.advance(1)
        self.assertEqual(self.posts(3), [201, 201, 429])
        self.rig.reactor.advance(1000)
        self.assertEqual(self.posts(4), [201, 201, 201, 429])
        self.assertEqual(self.retained, 9)

    def test_who_is_refused_is_told_when_to_come_back(self) -> None:
        self.posts(3)
        refused = self.post()
        self.assert_problem(refused, 429, says=f"{STRANGER} publishes too often: see [limits] publish_rate")
        self.assertEqual((refused.header("retry-after"), refused.json["retry_after"]), ("1", 1))

    def test_each_address_has_its_own_and_a_network_of_ipv6_one(self) -> None:
        self.posts(3)
        self.rig.comes_from = "198.51.100.8"
        self.assertEqual(self.posts(4), [201, 201, 201, 429])
        for address, statuses in (
            ("2001:db8::1", [201, 201]),
            ("2001:db8::2", [201, 429]),
            ("2001:db8:0:1::1", [201, 201]),
        ):
            self.rig.comes_from = address
            self.assertEqual(self.posts(2), statuses, address)

    def test_this_machine_and_unix_sockets_have_none(self) -> None:
        for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", None):
            self.rig.comes_from = address
            self.assertEqual(set(self.posts(20)), {201}, address)

    def test_a_user_has_one_wherever_it_is(self) -> None:
        self.assertEqual(self.posts(2, "user-a"), [201, 201])
        self.rig.comes_from = "127.0.0.1"
        self.assertEqual(self.posts(2, "user-a"), [201, 429])
        self.rig.comes_from = STRANGER
        self.assertEqual(self.posts(3), [201, 201, 201], "without a user")
        self.assertEqual(self.posts(1, "user-b"), [201])
        self.assertIn("user user-a", self.post("user-a").json["detail"])

    def test_operators_have_none(self) -> None:
        self.assertEqual(set(self.posts(20, "boss")), {201})

    def test_behind_a_trusted_proxy_it_is_the_client_that_counts(self) -> None:
        self.start(LIMITS + f"[proxies]\ntrusted = {STRANGER}\n")
        self.rig.comes_from = STRANGER

        def post(client: str) -> int:
            return self.rig.request("POST", "/channels/a", body=b"x", headers={"X-Forwarded-For": client}).status

        self.assertEqual([post("203.0.113.1") for _ in range(4)], [201, 201, 201, 429])
        self.assertEqual([post("203.0.113.2") for _ in range(4)], [201, 201, 201, 429])
        self.assertEqual([post("127.0.0.1") for _ in range(9)], [201] * 9, "the proxy says so")

    def test_of_a_batch_the_first_lines_go_through(self) -> None:
        line = b'{"channel":"news","data":"x"}'
        answers = self.batch([line, b"wrong", line, line, line, b"wrong", line])
        statuses = [answer["error"]["status"] if "error" in answer else 201 for answer in answers]
        self.assertEqual(statuses, [201, 400, 201, 201, 429, 400, 429])
        self.assertEqual([answer["offset"] for answer in answers if "offset" in answer], [1, 2, 3])
        self.assertEqual(answers[4]["error"]["retry_after"], 1)
        self.assertEqual(self.retained, 3)

    def test_an_event_counts_once_for_each_of_its_channels(self) -> None:
        self.start(LIMITS.replace("publish_burst = 3", "publish_burst = 250").replace("rate = 2", "rate = 100"))
        self.rig.comes_from = STRANGER
        line = json.dumps({"channels": [f"m/{number}" for number in range(100)], "data": "x"}).encode()
        answers = self.batch([line] * 3)
        self.assertEqual([answer.get("error", {}).get("status") for answer in answers], [None, None, 429])
        client = self.connect()
        client.say(type="publish", channels=[f"m/{number}" for number in range(51)], data="x")
        client.say(type="publish", channels=[f"m/{number}" for number in range(50)], data="x")
        client.say(type="publish", channel="m/0", data="x")
        self.rig.turn()
        self.assertCountEqual([one.get("status") for one in client.json], [429, None, 429])
        self.rig.reactor.advance(1)
        self.assertEqual(self.posts(101), [201] * 100 + [429])

    def test_a_long_batch_gets_through_what_its_burst_allows(self) -> None:
        self.start(LIMITS.replace("publish_burst = 3", "publish_burst = 700"))
        self.rig.comes_from = STRANGER
        answers = self.batch([b'{"channel":"news","data":"x"}'] * 1200)
        self.assertEqual(["error" in answer for answer in answers], [False] * 700 + [True] * 500)

    def test_over_a_websocket_it_is_an_error_and_the_socket_stays_open(self) -> None:
        client = self.connect()
        for ref in range(5):
            client.say(type="publish", channel="news", data="x", ref=ref)
        self.rig.turn()
        said = {message["ref"]: message for message in client.json}
        self.assertEqual([said[ref]["type"] for ref in range(5)], ["published"] * 3 + ["error"] * 2)
        self.assertEqual((said[3]["status"], said[3]["retry_after"]), (429, 1))
        self.assertTrue(client.is_open)
        self.rig.reactor.advance(0.5)
        client.say(type="publish", channel="news", data="x", ref="later")
        self.rig.turn()
        self.assertEqual((client.json[-1]["type"], client.json[-1]["ref"]), ("published", "later"))

    def test_in_raw_format_it_ends_the_connection(self) -> None:
        client = self.connect(format="raw", channel="news")
        for _ in range(4):
            client.send("x")
        self.rig.turn()
        self.assertEqual(client.messages, ["x"] * 3)
        assert client.close is not None
        self.assertEqual(client.close[0], 1013)
        self.assertIn("publishes too often", client.close[1])

    def test_the_long_name_of_a_user_fits_into_the_end_of_a_connection(self) -> None:
        self.world = Integrations(Registry())
        self.start(LIMITS)
        client = self.connect(format="raw", channel="news", access_token="user-" + "ü" * 120)
        for _ in range(4):
            client.send("x")
        self.rig.turn()
        assert client.close is not None
        self.assertEqual(client.close[0], 1013)

    def test_what_is_refused_by_rights_or_form_takes_nothing_of_a_burst_over_http(self) -> None:
        self.assertEqual(self.rig.request("POST", "/channels/%00", body=b"x").status, 400)
        self.assertEqual(self.rig.request("POST", "/channels/a?id=%20", body=b"x").status, 400)
        self.assertEqual(self.posts(4), [201, 201, 201, 429])

    def test_without_a_rate_nothing_is_refused(self) -> None:
        self.start(LIMITS.replace("publish_rate = 2", "publish_rate = 0"))
        self.rig.comes_from = STRANGER
        self.assertEqual(set(self.posts(50)), {201})


CALLERS = [a_caller(MAY, "192.0.2.1"), a_caller(MAY, "192.0.2.2"), a_caller(MAY, user="ada"), a_caller(EVERYTHING)]


class Model:
    """What a caller may still publish, in quarters of an event."""

    def __init__(self) -> None:
        self.left, self.at = 5 * 4, 0

    def take(self, now: int) -> bool:
        """Take an event, at a time in quarters of a second, in each of which half an event comes in."""
        self.left = min(5 * 4, self.left + (now - self.at) * 2)
        self.at = now
        if self.left < 4:
            return False
        self.left -= 4
        return True


class ThrottledTests(SynchronousTestCase):
    """`RateLimitedPublisher` by itself."""

    @examples(100)
    @given(
        st.lists(
            st.tuples(st.sampled_from(range(4)), st.integers(0, 12), st.integers(0, 8)),
            max_size=30,
        )
    )
    def test_what_goes_through_is_what_has_come_in(self, steps: list[tuple[int, int, int]]) -> None:
        bus, now = BusRig(), 0
        throttled = RateLimitedPublisher(DirectPublisher(bus.bus), TokenBuckets(2, 5, lambda: now / 4))
        models = [Model() for _ in CALLERS]
        for who, count, passes in steps:
            now += passes
            got: list[list[Outcome]] = []
            throttled.publish_all(
                [draft("a", data=b"%d" % number) for number in range(count)], CALLERS[who], got.append
            )
            wanted = [who == 3 or models[who].take(now) for _ in range(count)]
            (outcomes,) = got
            self.assertEqual([isinstance(outcome, Published) for outcome in outcomes], wanted)
            self.assertEqual(
                bus.retained("a")[-wanted.count(True) :] if any(wanted) else [],
                [b"%d" % number for number in range(wanted.count(True))],
            )

    def test_one_event_is_as_a_batch_of_one(self) -> None:
        bus = BusRig()
        throttled = RateLimitedPublisher(DirectPublisher(bus.bus), TokenBuckets(1, 1, bus.clock.seconds))
        got: list[Outcome] = []
        caller = a_caller(MAY)
        for _ in range(2):
            throttled.publish(draft("a"), caller, got.append)
        self.assertEqual([type(outcome) for outcome in got], [Published, TooMany])
        throttled.delete("a", ClientInfo(a_caller().identity, caller.place), got.append)  # type: ignore[arg-type]
        self.assertEqual(got[-1], None)
