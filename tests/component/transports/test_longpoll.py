"""What is particular to long polling."""

from __future__ import annotations

from tests.rigs.daemon import DaemonTests, query
from tests.rigs.http_client import Client


class PollTests(DaemonTests):
    """``GET /poll``."""

    config = "[limits]\npoll_timeout = 30s\n"

    def poll(self, *channels: str, since: str | None = None, limit: int | str | None = None) -> Client:
        """Ask once."""
        client = self.rig.client()
        client.send("GET", f"/poll?{query(channel=channels, since=since)}" + (f"&limit={limit}" if limit else ""))
        self.rig.turn()
        return client

    def datas(self, client: Client) -> list[str]:
        """The data of the events in the answer."""
        self.assertEqual(client.response.status, 200, client.response)
        return [event["data"] for event in client.response.json["events"]]

    def assert_waits(self, client: Client) -> None:
        """There is no answer yet."""
        self.rig.turn()
        self.assertEqual(client.responses, [])
        self.assertTrue(client.connection.is_open)

    def test_what_is_there_is_answered_at_once(self) -> None:
        ids = self.rig.publish_each("news", b"one", b"two")
        client = self.poll("news", since="earliest")
        response = client.response
        self.assertTrue(response.is_complete)
        self.assertEqual(self.datas(client), ["one", "two"])
        self.assertEqual(response.json["position"], ids[1])
        self.assertEqual(response.header("event-position"), ids[1])
        self.assertIs(response.json["recovered"], True)
        self.assertEqual(response.header("cache-control"), "no-store")
        self.assertEqual(response.header("content-type"), "application/json")

    def test_if_nothing_is_there_the_answer_waits_for_the_next_event(self) -> None:
        client = self.poll("news")
        self.assert_waits(client)
        event_id = self.rig.publish("news", b"one", event="note")
        self.rig.turn()
        self.assertEqual(self.datas(client), ["one"])
        (event,) = client.response.json["events"]
        self.assertEqual(
            (event["id"], event["event"], event["channel"], event["offset"]), (event_id, "note", "news", 1)
        )
        self.assertEqual(client.response.header("event-position"), event_id)

    def test_several_events_of_one_turn_come_in_one_answer(self) -> None:
        client = self.poll("news")
        ids = self.rig.publish_each("news", b"one", b"two", b"three")
        self.rig.turn()
        self.assertEqual(self.datas(client), ["one", "two", "three"])
        self.assertEqual(client.response.json["position"], ids[-1])

    def test_an_answer_has_a_mebibyte_of_data_at_most_whether_it_waited_or_not(self) -> None:
        waits = self.poll("**")
        ids = [self.rig.publish(channel, b"x" * 400_000) for channel in "abc"]
        self.rig.turn()
        for client in waits, self.poll("**", since="earliest"):
            self.assertEqual([event["channel"] for event in client.response.json["events"]], ["a", "b"])
            self.assertEqual(client.response.json["position"], ids[1])
        rest = self.poll("**", since=ids[1]).response.json
        self.assertEqual([event["channel"] for event in rest["events"]], ["c"])

    def test_what_comes_between_two_polls_is_not_lost(self) -> None:
        client = self.poll("news")
        self.rig.publish("news", b"one")
        self.rig.turn()
        self.rig.publish("news", b"two")
        self.assertEqual(self.datas(self.poll("news", since=client.response.json["position"])), ["two"])

    def test_after_the_time_out_the_answer_is_204_with_the_position(self) -> None:
        client = self.poll("news")
        self.rig.wait(28)
        self.assert_waits(client)
        elsewhere = self.rig.publish("elsewhere")
        self.rig.wait(2)
        response = client.response
        self.assertEqual((response.status, response.body), (204, b""))
        self.assertEqual(response.header("event-position"), elsewhere)
        self.assertEqual(response.header("cache-control"), "no-store")
        client.connection.disconnect()
        self.assertEqual((self.rig.traces.subscribers, self.rig.traces.alarms), (0, 0))

    def test_the_connection_goes_on_after_the_time_out(self) -> None:
        client = self.poll("news")
        self.rig.wait(31)
        client.send("GET", "/poll?channel=news")
        self.rig.publish("news", b"one")
        self.rig.turn()
        self.assertEqual([response.status for response in client.responses], [204, 200])

    def test_an_event_of_the_turn_of_the_time_out_is_answered(self) -> None:
        client = self.poll("news")
        self.rig.wait(28)
        self.rig.publish("news", b"just in time")
        self.rig.reactor.advance(1)
        self.rig.turn()
        self.assertEqual(self.datas(client), ["just in time"])

    def test_the_limit_counts_what_is_there(self) -> None:
        ids = self.rig.publish_each("news", b"one", b"two", b"three")
        client = self.poll("news", since="earliest", limit=2)
        self.assertEqual(self.datas(client), ["one", "two"])
        self.assertEqual(client.response.json["position"], ids[1])
        self.assertEqual(self.datas(self.poll("news", since=ids[1], limit=2)), ["three"])

    def test_the_limit_counts_what_comes_while_it_waits(self) -> None:
        client = self.poll("news", limit=2)
        ids = self.rig.publish_each("news", b"one", b"two", b"three", b"four")
        self.rig.turn()
        self.assertEqual(self.datas(client), ["one", "two"])
        self.assertEqual(client.response.json["position"], ids[1])
        self.assertEqual(self.datas(self.poll("news", since=ids[1])), ["three", "four"])

    def test_a_wrong_limit_is_refused(self) -> None:
        for limit in ("0", "-1", "1001", "x", "1.5", "%D9%A3", "9" * 5000, "+1", "1_0"):
            with self.subTest(limit):
                client = self.poll("news", limit=limit.replace("+", "%2B"))
                self.assert_problem(client.response, 400, field="limit", says="1 to 1000")

    def test_parameters_that_are_there_twice_are_refused(self) -> None:
        self.assert_problem(self.rig.get("/poll?channel=a&since=latest&since=latest"), 400, field="since")
        self.assert_problem(self.rig.get("/poll?channel=a&limit=1&limit=1"), 400, field="limit")

    def test_a_lost_position_is_answered_at_once(self) -> None:
        client = self.poll("news", since="lost")
        self.assertEqual(client.response.json["events"], [])
        self.assertIs(client.response.json["recovered"], False)
        again = self.poll("news", since=client.response.json["position"])
        self.assert_waits(again)

    def test_a_client_that_goes_while_it_waits_leaves_nothing(self) -> None:
        before = self.rig.traces
        client = self.poll("news")
        self.assertEqual(self.rig.traces.subscribers, before.subscribers + 1)
        client.connection.disconnect()
        self.assert_no_traces(before)
        self.rig.publish("news")
        self.rig.wait(31)

    def test_a_client_that_goes_between_an_event_and_its_answer_harms_nobody(self) -> None:
        client, other = self.poll("news"), self.poll("news")
        self.rig.publish("news", b"one")
        client.connection.disconnect()
        self.rig.turn()
        self.assertEqual(self.datas(other), ["one"])
        other.connection.disconnect()
        self.assertEqual((self.rig.traces.subscribers, self.rig.traces.alarms), (0, 0))

    def test_a_waiting_request_is_not_cut_by_the_request_time_out(self) -> None:
        self.start("[limits]\npoll_timeout = 200s\nrequest_timeout = 60s\n")
        client = self.poll("news")
        self.rig.wait(150)
        self.assert_waits(client)

    def test_head_is_answered_at_once(self) -> None:
        before = self.rig.traces
        response = self.rig.request("HEAD", "/poll?channel=news")
        self.assertEqual((response.status, response.body), (200, b""))
        self.assertIsNotNone(response.header("event-position"))
        self.assert_no_traces(before)

    def test_when_the_channel_is_deleted_the_answer_is_404(self) -> None:
        client = self.poll("news")
        self.rig.publish("other")
        self.rig.request("DELETE", "/channels/news")
        self.rig.turn()
        self.assert_problem(client.response, 404, says="deleted")

    def test_when_the_daemon_stops_the_answer_is_503(self) -> None:
        client = self.poll("news")
        self.rig.stop()
        self.rig.turn()
        self.assert_problem(client.response, 503, says="going away")

    def test_the_503_says_after_how_many_seconds_to_come_back(self) -> None:
        self.start("[limits]\nretry = 2s\nreconnect_spread = 10s\n")
        clients = self.poll("news"), self.poll("news")
        chances = iter((0.0, 0.51))
        self.rig.chance = lambda: next(chances)
        self.rig.stop()
        self.rig.turn()
        found = {client.response.header("retry-after") for client in clients}
        self.assertEqual(found, {"2", "8"})

    def test_a_problem_that_waiting_does_not_solve_says_nothing_of_it(self) -> None:
        self.assertIsNone(self.rig.get("/poll").header("retry-after"))
