"""The application is asked about each event, and each client's come in its order."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pushd.auth.approval import ApprovedPublisher, Waiting
from pushd.auth.webhooks.answers import changed_draft
from pushd.bus.bus import Published
from pushd.bus.clientinfo import ClientInfo
from pushd.bus.event import Draft
from pushd.bus.grants import EVERYTHING, Grants
from pushd.bus.publisher import DirectPublisher, Outcome
from pushd.daemon.integrations import Integrations
from pushd.errors import Forbidden, Refused, TooMany, Unauthorized, Unavailable
from tests.rigs.builders import BusRig, a_caller, draft
from tests.rigs.daemon import DaemonTests, StoredDaemonRig, query
from tests.rigs.effort import examples
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient, batch_replies
from tests.rigs.outsiders import Answers, Ask, Later, Registry, deny
from tests.rigs.websocket_client import WebSocketClient

MAY = Grants.of(["publish"])


def changed(ask: Ask) -> Draft:
    """Return what was asked about, in capitals and of another type."""
    return Draft(ask.what.channels, ask.what.data.upper(), ask.what.is_text, "changed", ask.what.id)


class House:
    """A bus whose publisher asks first."""

    def __init__(
        self,
        decide: Callable[[Ask], object] = lambda ask: Later,
        refresh: Callable[[ClientInfo], None] = lambda caller: None,
    ) -> None:
        self.bus = BusRig()
        self.answers = Answers(decide)
        self.waiting = Waiting(10, 1000)
        self.asked = ApprovedPublisher(DirectPublisher(self.bus.bus), self.answers, self.waiting, refresh)

    def publish(self, caller: ClientInfo, *datas: bytes, channel: str = "a") -> list[list[Outcome]]:
        """Publish events; return where their outcomes come to."""
        told: list[list[Outcome]] = []
        self.asked.publish_all([draft(channel, data=data) for data in datas], caller, told.append)
        return told

    def answer(self, data: bytes, decided: object = None) -> None:
        """Return the question about the event with `data`."""
        (ask,) = (ask for ask in self.answers.asked if ask.what.data == data and not ask.answered.called)
        ask.answered.callback(decided)

    @property
    def questions(self) -> list[bytes]:
        """What was asked about."""
        return [ask.what.data for ask in self.answers.asked]

    @property
    def published(self) -> list[bytes]:
        """What was published."""
        return self.bus.retained("a")


def kinds(told: list[list[Outcome]]) -> list[type]:
    """Return what came of each event."""
    (outcomes,) = told
    return [type(outcome) for outcome in outcomes]


class ShareTests(SynchronousTestCase):
    """What waits for the application, of one owner and of all."""

    def test_an_owner_is_asked_about_half_of_its_share_at_once_and_the_others_wait(self) -> None:
        house = House()
        house.waiting.limit(10, 60)
        callers = [a_caller(MAY) for _ in range(5)]  # five requests from one address
        told = [house.publish(caller, b"x") for caller in callers]
        other = house.publish(a_caller(MAY, "198.51.100.7"), b"other")
        self.assertEqual(house.questions, [b"x"] * 3 + [b"other"])
        house.answers.asked[0].answered.callback(None)
        self.assertEqual(house.questions, [b"x"] * 3 + [b"other", b"x"])
        while any(not ask.answered.called for ask in house.answers.asked):
            next(ask for ask in house.answers.asked if not ask.answered.called).answered.callback(None)
        self.assertEqual([kinds(one) for one in [*told, other]], [[Published]] * 6)
        self.assertEqual((len(house.waiting), house.waiting.units.used, house.asked._queues), (0, 0, {}))

    def test_what_waits_of_an_owner_is_bounded_over_all_its_requests(self) -> None:
        house = House()
        data = b"x" * (1024 * 1024)
        told = [house.publish(a_caller(MAY), data) for _ in range(8)]
        refused = [kinds(one) for one in told if one]
        self.assertEqual(refused, [[TooMany]] * 2)  # 6.4 MiB of 64
        self.assertEqual(house.publish(a_caller(MAY, "198.51.100.7"), data), [])
        self.assertLessEqual(house.waiting.units.used_by("192.0.2.1"), house.waiting.units.most_per_owner)

    def test_one_that_is_larger_than_the_share_is_published_alone(self) -> None:
        house = House()
        self.assertEqual(house.publish(a_caller(MAY), b"x" * (16 * 1024 * 1024)), [])
        self.assertEqual(kinds(house.publish(a_caller(MAY), b"x")), [TooMany])

    def test_nobody_is_asked_about_what_may_not_be_published_any_more_when_its_turn_comes(self) -> None:
        house = House()
        house.waiting.limit(10, 20)
        house.publish(a_caller(MAY), b"1")
        caller = a_caller(MAY)
        told = house.publish(caller, b"2")
        caller.identity = a_caller(Grants.of([])).identity
        house.answer(b"1")
        self.assertEqual((kinds(told), house.questions), ([Forbidden], [b"1"]))


class AskedTests(SynchronousTestCase):
    def test_it_is_published_when_the_application_has_answered(self) -> None:
        house = House()
        told = house.publish(a_caller(MAY), b"1")
        self.assertEqual((told, house.published), ([], []))
        house.answer(b"1")
        self.assertEqual((kinds(told), house.published), ([Published], [b"1"]))

    def test_what_is_answered_at_once_is_published_at_once(self) -> None:
        house = House(lambda ask: None)
        self.assertEqual(kinds(house.publish(a_caller(MAY), b"1", b"2")), [Published] * 2)
        self.assertEqual(house.asked._queues, {})

    def test_what_the_application_makes_of_it_is_published(self) -> None:
        house = House(changed)
        house.publish(a_caller(MAY), b"one")
        (entry,) = house.bus.read("a").entries
        self.assertEqual((entry.event.data, entry.event.type), (b"ONE", "changed"))

    def test_nobody_is_asked_about_what_may_not_be_published_anyway(self) -> None:
        house = House()
        self.assertEqual(kinds(house.publish(a_caller(Grants.of([])), b"1")), [Forbidden])
        self.assertEqual(house.questions, [])

    def test_the_rights_at_the_time_of_the_answer_count_too(self) -> None:
        house, caller = House(), a_caller(MAY)
        told = house.publish(caller, b"1")
        caller.identity = a_caller(Grants.of([])).identity
        house.answer(b"1")
        self.assertEqual((kinds(told), house.published), ([Forbidden], []))

    def test_a_token_that_expires_before_the_answer_publishes_nothing(self) -> None:
        expired: list[ClientInfo] = []

        def refresh(caller: ClientInfo) -> None:
            if caller in expired:
                raise Unauthorized("the token has expired")

        house, caller = House(refresh=refresh), a_caller(MAY)
        told = house.publish(caller, b"1", b"2")
        house.answer(b"1", Forbidden("not this one"))
        expired.append(caller)
        house.answer(b"2")
        self.assertEqual(kinds(told), [Forbidden, Unauthorized])
        self.assertEqual(house.published, [])

    def test_the_lines_of_a_batch_keep_their_answers_in_their_places(self) -> None:
        def decide(ask: Ask) -> object:
            by_data = {
                b"1": Forbidden("not this one"),
                b"3": Unavailable("not now"),
                b"4": ZeroDivisionError("a fault"),
            }
            return by_data.get(ask.what.data)

        house = House(decide)
        told = house.publish(a_caller(MAY), b"0", b"1", b"2", b"3", b"4", b"5")
        self.assertEqual(kinds(told), [Published, Forbidden, Published, Unavailable, Unavailable, Published])
        self.assertEqual(house.published, [b"0", b"2", b"5"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_nobody_is_asked_about_a_deletion(self) -> None:
        house, caller, told = House(lambda ask: None), a_caller(EVERYTHING), list[object]()
        house.publish(caller, b"1")
        house.asked.delete("a", caller, told.append)
        self.assertEqual((told, house.published, house.questions), ([None], [], [b"1"]))

    def test_a_batch_of_nothing_is_answered(self) -> None:
        house = House()
        self.assertEqual(house.publish(a_caller(MAY)), [[]])
        self.assertEqual(house.asked._queues, {})

    def test_events_of_one_client_come_in_its_order_whatever_is_answered_first(self) -> None:
        house, caller = House(), a_caller(MAY)
        first, second, third = (house.publish(caller, data) for data in (b"1", b"2", b"3"))
        self.assertEqual(house.questions, [b"1", b"2", b"3"], "they are asked about together")
        house.answer(b"3")
        house.answer(b"2", Forbidden("no"))
        self.assertEqual((first, second, third, house.published), ([], [], [], []))
        house.answer(b"1")
        self.assertEqual([kinds(told) for told in (first, second, third)], [[Published], [Forbidden], [Published]])
        self.assertEqual(house.published, [b"1", b"3"])
        self.assertEqual(house.asked._queues, {})

    def test_clients_do_not_wait_for_each_other(self) -> None:
        house = House()
        house.publish(a_caller(MAY), b"1")
        told = house.publish(a_caller(MAY), b"2")
        house.answer(b"2")
        self.assertEqual((kinds(told), house.published), ([Published], [b"2"]))

    def test_few_are_asked_about_at_once(self) -> None:
        house = House()
        datas = [b"%d" % number for number in range(35)]
        told = house.publish(a_caller(MAY), *datas)
        self.assertEqual(house.questions, datas[:10])
        for number, data in enumerate(datas):
            self.assertEqual(house.answers.in_flight, min(10, 35 - number))
            house.answer(data)
        self.assertEqual((kinds(told), house.published), ([Published] * 35, datas))

    def test_what_waits_is_bounded_in_number(self) -> None:
        house, caller = House(), a_caller(MAY)
        told = [house.publish(caller, b"%d" % number) for number in range(1003)]
        self.assertEqual([bool(one) for one in told], [False] * 1000 + [True] * 3)
        self.assertEqual(kinds(told[-1]), [TooMany])
        self.assertEqual(house.publish(a_caller(MAY), b"another client"), [])
        house.answer(b"0")
        self.assertEqual(house.publish(caller, b"again"), [])
        self.assertEqual(kinds(house.publish(caller, b"and again")), [TooMany])

    def test_an_event_to_several_channels_counts_for_each_of_them(self) -> None:
        house, caller = House(), a_caller(MAY)
        each = [f"m/{number}" for number in range(100)]
        told: list[Outcome] = []
        for _ in range(12):
            house.asked.publish(draft(*each), caller, told.append)
        self.assertEqual([type(outcome) for outcome in told], [TooMany] * 2)

    def test_what_waits_is_bounded_in_bytes(self) -> None:
        house, caller = House(), a_caller(MAY)
        for number in range(4):
            self.assertEqual(house.publish(caller, b"%d" % number + b"x" * (1024 * 1024 - 1)), [])
        self.assertEqual(kinds(house.publish(caller, b"4", b"5")), [TooMany, TooMany])
        house.answer(b"0" + b"x" * (1024 * 1024 - 1))
        self.assertEqual(house.publish(caller, b"4", b"5"), [])

    def test_a_batch_that_is_more_than_that_is_taken_by_itself(self) -> None:
        house, caller = House(), a_caller(MAY)
        self.assertEqual(house.publish(caller, *[b"x"] * 1500), [])
        self.assertEqual(kinds(house.publish(caller, b"y")), [TooMany])

    def test_one_who_is_told_and_fails_does_not_hold_up_what_follows(self) -> None:
        house, caller = House(), a_caller(MAY)

        def fail(outcomes: list[Outcome]) -> None:
            raise ZeroDivisionError("a fault")

        house.asked.publish_all([draft("a", data=b"1")], caller, fail)
        told = house.publish(caller, b"2")
        house.answer(b"1")
        house.answer(b"2")
        self.assertEqual(kinds(told), [Published])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(house.asked._queues, {})

    @examples(100)
    @given(st.data(), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=12))
    def test_in_whatever_order_answers_come(self, data: st.DataObject, requests: list[tuple[int, int]]) -> None:
        house, callers = House(), [a_caller(MAY) for _ in range(3)]
        wanted: list[list[bytes]] = [[], [], []]
        told: list[tuple[list[bytes], list[list[Outcome]]]] = []
        for place, (who, count) in enumerate(requests):
            datas = [b"%d/%d/%d" % (who, place, number) for number in range(count)]
            told.append((datas, house.publish(callers[who], *datas)))
            wanted[who] += datas
        denied = set()
        while open_questions := [ask for ask in house.answers.asked if not ask.answered.called]:
            ask = data.draw(st.sampled_from(open_questions))
            if data.draw(st.booleans()):
                denied.add(ask.what.data)
                ask.answered.callback(Forbidden("no"))
            else:
                ask.answered.callback(None)
        for who in range(3):
            came = [event for event in house.published if event.startswith(b"%d/" % who)]
            self.assertEqual(came, [event for event in wanted[who] if event not in denied])
        for datas, outcomes in told:
            self.assertEqual(kinds(outcomes), [Forbidden if it in denied else Published for it in datas])
        self.assertEqual(house.asked._queues, {})


class AskedOverTransportsTests(DaemonTests):
    """What publishers see of it."""

    def begin(self, decide: Callable[[Ask], object], config: str = "") -> Answers:
        """Start a daemon that asks."""
        answers = Answers(decide, asks_publish=True)
        self.world = Integrations(Registry(), answers)
        self.start("[site]\ndemo = no\n" + config)
        return answers

    def post(self) -> HttpClient:
        """Publish one event."""
        client = HttpClient(self.rig)
        client.send("POST", "/channels/a", body=b"hello")
        self.rig.turn()
        return client

    def socket(self, **parameters: str) -> WebSocketClient:
        """Open a WebSocket."""
        client = WebSocketClient(self.rig, f"/ws?{query(**parameters)}")
        self.rig.turn()
        client.messages.clear()
        return client

    def history(self) -> list[Any]:
        """Return what was published."""
        return [event["data"] for event in self.rig.get("/channels/a/events").json["events"]]

    def test_a_post_waits_for_the_answer(self) -> None:
        answers = self.begin(lambda ask: Later)
        client = self.post()
        self.assertEqual((client.written, self.history()), ([], []))
        (ask,) = answers.asked
        self.assertEqual((ask.caller.transport.name, ask.caller.id), ("http", None))
        ask.answered.callback(changed(ask))
        self.rig.turn()
        self.assertEqual((client.response.status, client.response.json["offset"]), (201, 1))
        self.assertEqual(self.history(), ["HELLO"])

    def test_an_event_is_a_duplicate_by_what_was_sent_whatever_the_application_made_of_it(self) -> None:
        numbers = itertools.count(1)
        self.begin(lambda ask: changed_draft(ask.what, {"data": f"number {next(numbers)}"}, 1000))
        statuses = [
            self.rig.request("POST", "/channels/a?id=order", body=body).status
            for body in (b"hello", b"hello", b"number 1", b"bye", b"hello")
        ]
        self.assertEqual((statuses, self.history()), ([201, 200, 422, 422, 200], ["number 1"]))
        client = self.socket()
        for data in ("hello", "number 1"):
            client.say(type="publish", channel="a", data=data, id="order")
        self.rig.turn()
        said = [(one["type"], one.get("duplicate"), one.get("status")) for one in client.json]
        self.assertEqual(said, [("published", True, None), ("error", None, 422)])

    def test_a_post_that_is_refused_says_why(self) -> None:
        self.begin(deny(Forbidden("this order is closed")))
        self.assert_problem(self.post().response, 403, says="this order is closed")
        self.assertEqual(self.history(), [])

    def test_a_post_is_told_that_the_application_is_down(self) -> None:
        self.begin(deny(Unavailable("it does not answer", retry_s=3)))
        response = self.post().response
        self.assert_problem(response, 503, says="it does not answer")
        self.assertEqual(response.header("retry-after"), "3")

    def test_the_lines_of_a_batch_are_answered_in_their_places(self) -> None:
        def decide(ask: Ask) -> object:
            return Forbidden("not on b") if "b" in ask.what.channels else changed(ask)

        self.begin(decide)
        lines = [{"channel": name, "data": name} for name in ("a", "b", "a", "b", "a")]
        client = HttpClient(self.rig)
        client.send(
            "POST", "/publish", body=b"wrong\n" + b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        )
        self.rig.turn()
        answers = batch_replies(client.response)
        statuses = [answer["error"]["status"] if "error" in answer else answer["offset"] for answer in answers]
        self.assertEqual(statuses, [400, 1, 403, 2, 403, 3])
        self.assertEqual(self.history(), ["A", "A", "A"])

    def test_a_long_batch_is_asked_about_a_few_at_a_time_and_comes_in_order(self) -> None:
        answers = self.begin(lambda ask: Later)
        lines = [{"channel": "a", "data": str(number)} for number in range(700)]
        client = HttpClient(self.rig)
        client.send("POST", "/publish", body=b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        while asks := [ask for ask in answers.asked if not ask.answered.called]:
            self.assertLessEqual(len(asks), 10)
            asks[-1].answered.callback(None)
            self.rig.turn()
        self.assertEqual([answer["offset"] for answer in batch_replies(client.response)], list(range(1, 701)))

    def test_over_a_websocket_answers_come_with_their_refs_in_order(self) -> None:
        answers = self.begin(lambda ask: Later)
        client = self.socket()
        for ref in range(4):
            client.say(type="publish", channel="a", data=str(ref), ref=ref)
        self.rig.turn()
        self.assertEqual([ask.caller.transport.name for ask in answers.asked], ["websocket"] * 4)
        for ask in reversed(answers.asked):
            ask.answered.callback(Forbidden("not two") if ask.what.data == b"2" else None)
        self.rig.turn()
        self.assertEqual(
            [(it["ref"], it["type"]) for it in client.json],
            [(0, "published"), (1, "published"), (2, "error"), (3, "published")],
        )
        self.assertEqual(client.json[2]["status"], 403)
        self.assertEqual(self.history(), ["0", "1", "3"])

    def test_in_raw_format_a_refusal_ends_the_connection(self) -> None:
        self.begin(deny(Forbidden("this order is closed")))
        client = self.socket(format="raw", channel="a")
        client.send("x")
        self.rig.turn()
        self.assertEqual(client.close, (1008, "this order is closed"))

    def test_other_commands_go_on_while_it_is_asked(self) -> None:
        answers = self.begin(lambda ask: Later)
        client = self.socket()
        client.say(type="publish", channel="a", data="x", ref=1)
        client.say(type="subscribe", channel="a", ref=2)
        self.rig.turn()
        self.assertEqual([it["ref"] for it in client.json], [2])
        answers.asked[0].answered.callback(None)
        self.rig.turn()
        self.assertEqual([it["type"] for it in client.json], ["subscribed", "event", "published"])

    def test_what_a_client_sent_before_it_went_is_published(self) -> None:
        answers = self.begin(lambda ask: Later)
        self.post().connection.disconnect()
        client = self.socket()
        client.say(type="publish", channel="a", data="from the socket")
        client.connection.disconnect()
        self.rig.turn()
        for ask in answers.asked:
            ask.answered.callback(None)
        self.rig.turn()
        self.assertEqual(self.history(), ["hello", "from the socket"])

    def test_a_stop_waits_for_the_answer_to_a_post(self) -> None:
        answers = self.begin(lambda ask: Later)
        client = self.post()
        stopping = self.rig.stop()
        self.rig.wait(2)
        self.assertNoResult(stopping)
        answers.asked[0].answered.callback(None)
        self.rig.wait(1)
        self.assertEqual(client.response.status, 201)
        self.assertIsNone(self.successResultOf(stopping))

    def test_a_stop_does_not_wait_for_ever(self) -> None:
        answers = self.begin(lambda ask: Later, "[pushd]\nstop_timeout = 3s\n")
        client = self.post()
        stopping = self.rig.stop()
        self.rig.wait(5)
        self.assertIsNone(self.successResultOf(stopping))
        self.assertFalse(client.connection.is_open)
        answers.asked[0].answered.callback(None)
        self.rig.turn()

    def test_what_is_answered_after_the_stop_is_not_published(self) -> None:
        answers = Answers(lambda ask: Later, asks_publish=True)
        with TemporaryDirectory() as directory, capturedLogs() as logs:
            rig = StoredDaemonRig(
                Path(directory), "[site]\ndemo = no\n", integrations=Integrations(Registry(), answers)
            )
            client = WebSocketClient(rig, "/ws")
            rig.turn()
            client.say(type="publish", channel="a", data="x")
            rig.turn()
            stopping = rig.stop()
            rig.wait(3)
            self.assertIsNone(self.successResultOf(stopping))
            answers.asked[0].answered.callback(None)
            rig.turn()
        texts = [formatEvent(event) for event in logs]
        self.assertIn("the server is going away", texts[-1])
        self.assertEqual([text for text in texts if "closed database" in text], [])

    def test_streams_of_http2_do_not_wait_for_each_other(self) -> None:
        answers = self.begin(lambda ask: Later)
        client = Http2Client(self.rig)
        for data in (b"1", b"2"):
            client.send("POST", "/channels/a", body=data)
        answers.asked[1].answered.callback(None)
        self.rig.turn()
        self.assertEqual([response.is_complete for response in client.responses], [True])
        answers.asked[0].answered.callback(Refused("no"))
        self.rig.turn()
        self.assertEqual([response.status for response in client.responses], [400, 201])
