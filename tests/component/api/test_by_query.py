"""Channels whose name is in the query: what the path can do, for every name and behind every proxy."""

from __future__ import annotations

from urllib.parse import quote

from tests.component.api.test_channels import NAMES
from tests.rigs.daemon import DaemonTests, query

TOKENLESS = "[site]\ndemo = no\n[auth]\nanonymous =\nanonymous_publish = mine/**\nanonymous_subscribe = mine/**\n"


class SameAnswerTests(DaemonTests):
    """Both ways have the same answer."""

    def test_for_every_name(self) -> None:
        for number, name in enumerate(NAMES):
            with self.subTest(name):
                path = f"/channels/{quote(name, safe='')}"
                posted = self.rig.request(
                    "POST", f"/publish?{query(channel=name, id=f'i{number}', event='e')}", body=b"x"
                )
                self.assertEqual(posted.status, 201, posted)
                self.assertEqual(posted.json["channel"], name)
                again = self.rig.request("POST", f"{path}?id=i{number}&event=e", body=b"x")
                self.assertEqual((again.status, again.header("location")), (200, posted.header("location")))
                for by_path, by_query in (
                    (path, f"/channels?{query(channel=name)}"),
                    (f"{path}/events", f"/history?{query(channel=name)}"),
                    (f"{path}/events?since=latest", f"/history?{query(channel=name, since='latest')}"),
                    (f"{path}/events/i{number}", f"/event?{query(channel=name, id=f'i{number}')}"),
                    (f"{path}/events/none", f"/event?{query(channel=name, id='none')}"),
                    (f"{path}/presence", f"/presence?{query(channel=name)}"),
                ):
                    one, other = self.rig.get(by_path), self.rig.get(by_query)
                    if one.status >= 400:
                        self.assertEqual((other.status, other.json["detail"]), (one.status, one.json["detail"]))
                    else:
                        self.assertEqual((other.status, other.body), (one.status, one.body), by_query)
                        self.assertEqual(other.header("cache-control"), one.header("cache-control"))
                self.assertEqual(self.rig.request("DELETE", f"/channels?{query(channel=name)}").status, 204)
                self.assertEqual(self.rig.get(f"/channels?{query(channel=name)}").json["retained"], 0)

    def test_one_event_goes_to_several_channels(self) -> None:
        answer = self.rig.request("POST", "/publish?channel=a/b&channel=c&event=e", body=b"x")
        self.assertEqual((answer.status, answer.json["channel"]), (201, "a/b"))
        for name in ("a/b", "c"):
            (event,) = self.rig.get(f"/history?channel={name}").json["events"]
            self.assertEqual((event["id"], event["event"]), (answer.json["id"], "e"))

    def test_headers_name_the_id_and_the_type_as_by_path(self) -> None:
        headers = {"Event-ID": "one", "Event-Type": "e"}
        answer = self.rig.request("POST", "/publish?channel=a/b", headers=headers, body=b"x")
        self.assertEqual((answer.status, answer.json["id"]), (201, "one"))


class RefusedTests(DaemonTests):
    """What is wrong is said, and nothing is published."""

    def test_what_does_not_fit_together(self) -> None:
        for method, target, field in (
            ("GET", "/history", "channel"),
            ("GET", "/presence", "channel"),
            ("GET", "/event?channel=a", "id"),
            ("GET", "/event?id=a", "channel"),
            ("GET", "/history?channel=a&channel=b", "channel"),
            ("GET", "/history?channel=", "channel"),
            ("GET", "/history?channel=**", "channel"),
            ("GET", "/channels?channel=a&prefix=a", "channel"),
            ("DELETE", "/channels", "channel"),
            ("POST", "/publish?id=a", "id"),
            ("POST", "/publish?event=a", "event"),
            ("POST", "/publish?channel=*", "channel"),
            ("POST", "/publish?channel=a&since=b", "since"),
        ):
            with self.subTest(f"{method} {target}"):
                self.assert_problem(
                    self.rig.request(method, target, body=b"x" if method == "POST" else b""), 400, field=field
                )
        self.assertEqual(self.rig.get("/channels").json["channels"], [])

    def test_lines_and_a_channel_beside_them(self) -> None:
        headers = {"Content-Type": "application/x-ndjson"}
        answer = self.rig.request("POST", "/publish?channel=a", headers=headers, body=b'{"channel":"b","data":"x"}')
        self.assert_problem(answer, 400, field="channel")

    def test_more_channels_than_an_event_may_have(self) -> None:
        self.start("[limits]\nchannels_per_event = 2\n")
        names = "&".join(f"channel={number}" for number in range(3))
        self.assert_problem(self.rig.request("POST", f"/publish?{names}", body=b"x"), 400, field="channel")

    def test_more_data_than_an_event_may_have(self) -> None:
        self.start("[limits]\nevent_size = 10\n")
        self.assertEqual(self.rig.request("POST", "/publish?channel=a", body=b"x" * 11).status, 413)

    def test_the_rights_are_those_for_the_channel(self) -> None:
        self.start(TOKENLESS)
        self.assertEqual(self.rig.request("POST", "/publish?channel=mine/a", body=b"x").status, 201)
        for method, target in (
            ("POST", "/publish?channel=theirs"),
            ("POST", "/publish?channel=mine/a&channel=theirs"),
            ("GET", "/history?channel=theirs"),
            ("GET", "/event?channel=theirs&id=x"),
            ("GET", "/presence?channel=theirs"),
            ("GET", "/channels?channel=theirs"),
            ("DELETE", "/channels?channel=mine/a"),
        ):
            with self.subTest(f"{method} {target}"):
                answer = self.rig.request(method, target, body=b"x" if method == "POST" else b"")
                self.assertEqual(answer.status, 403, answer)
        self.assertEqual(self.rig.get("/channels?channel=mine/a").json["retained"], 1)
