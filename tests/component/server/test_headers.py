"""What every answer has: nothing tells a version, and nobody guesses what a body is."""

from __future__ import annotations

import re

from twisted.internet import task

from tests.rigs.daemon import DaemonTests
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient, Response

REQUESTS: tuple[tuple[str, str, bytes, int], ...] = (
    ("GET", "/", b"", 200),
    ("HEAD", "/demo.js", b"", 200),
    ("GET", "/none", b"", 404),
    ("PUT", "/", b"x", 405),
    ("GET", "/healthz", b"", 200),
    ("GET", "/healthz/none", b"", 404),
    ("OPTIONS", "*", b"", 200),
    ("OPTIONS", "/channels", b"", 204),
    ("POST", "/channels/news", b"x", 201),
    ("POST", "/channels/news?event=a%0Ab", b"x", 400),
    ("POST", "/channels/news", b"x" * 1025, 413),
    ("GET", "/channels/news/events", b"", 200),
    ("GET", "/channels?limit=x", b"", 400),
    ("DELETE", "/channels/none", b"", 404),
    ("BREW", "/channels", b"", 405),
    ("POST", "/publish", b"{}", 400),
    ("GET", "/sse?channel=news", b"", 200),
    ("GET", "/stream?channel=news", b"", 200),
    ("GET", "/poll?channel=news&since=earliest", b"", 200),
    ("GET", "/ws", b"", 426),
)


class HeaderRules(DaemonTests):
    """The rules."""

    config = "[limits]\nevent_size = 1KiB\nbatch_size = 1KiB\n"

    def setUp(self) -> None:
        super().setUp()
        cooperator = task.Cooperator(scheduler=lambda call: self.rig.reactor.callLater(0, call))
        self.patch(task, "_theCooperator", cooperator)

    def assert_plain(self, response: Response) -> None:
        """It says who answers, and no more; and that its body is what it says."""
        self.assertEqual(response.all("server"), ["pushd"])
        self.assertEqual(response.all("x-content-type-options"), ["nosniff"])
        said = [f"{name}: {value}" for name, value in response.headers]
        self.assertEqual([it for it in said if re.search("(?i)twisted|python|autobahn|/[0-9]+[.][0-9]", it)], [])

    def test_whatever_is_asked_for(self) -> None:
        for method, target, body, status in REQUESTS:
            with self.subTest(f"{method} {target} {status}"):
                client = self.rig.client()
                client.send(method, target, body=body)
                self.rig.turn()
                self.assertEqual(client.response.status, status)
                self.assert_plain(client.response)
                is_json = "json" in (client.response.header("content-type") or "")
                if is_json and method != "POST":
                    self.assertTrue((client.response.header("cache-control") or "").startswith("no-store"))
                client.connection.disconnect()

    def test_an_answer_to_a_fault_of_ours(self) -> None:
        def fault(*args: object) -> None:
            raise RuntimeError("secret")

        self.patch(self.rig.parts.bus, "showing", fault)
        response = self.rig.get("/channels/news")
        self.assertEqual(response.status, 500)
        self.assert_plain(response)
        self.assertNotIn(b"secret", response.body)
        self.flushLoggedErrors(RuntimeError)


class Http1HeaderTests(HeaderRules):
    """Over HTTP/1.1."""

    def test_what_is_no_request(self) -> None:
        for data in (b"nonsense\r\n\r\n", b"GET http:// HTTP/1.1\r\n\r\n"):
            client = HttpClient(self.rig)
            client.send_raw("GET", data)
            self.rig.turn()
            self.assertEqual(client.response.status, 400)
            self.assert_plain(client.response)


class Http2HeaderTests(HeaderRules):
    """Over HTTP/2."""

    http = Http2Client

    def test_what_is_too_large_or_no_request_for_here(self) -> None:
        client = Http2Client(self.rig)
        client.send("GET", "/", headers={"x": "y" * 20_000})
        self.rig.turn()
        self.assertEqual(client.response.status, 431)
        self.assert_plain(client.response)


del HeaderRules  # which has no tests of its own
