"""Clients with a certificate at the gate, and that no page can use what a browser shows by itself."""

from __future__ import annotations

from unittest.mock import patch

from pushd.daemon.integrations import Integrations
from pushd.server.net import connection_info
from pushd.server.net.client_certificates import Certificate
from tests.rigs.daemon import STARTED, DaemonTests
from tests.rigs.http_client import HttpClient, Response
from tests.rigs.vouching import FakeTokens, identity
from tests.rigs.websocket_client import WebSocketClient

LISTED = "https://app.example"
EVIL = "https://evil.example"


class CertificateTests(DaemonTests):
    """A connection whose client has shown a certificate."""

    config = "[site]\ndemo = no\n[auth]\nanonymous =\ncertified = publish\ncertified_subscribe = own/**\n"

    def setUp(self) -> None:
        """Every connection has one."""
        super().setUp()
        patcher = patch.object(
            connection_info,
            "certificate_of",
            lambda transport: Certificate("CN=alice,O=Example", STARTED + 60),
        )
        patcher.start()
        self.addCleanup(patcher.stop)

    def ask(self, method: str, *headers: tuple[str, str], target: str = "/channels/own%2Fa") -> Response:
        """Return the response to a request with these headers."""
        return self.rig.request(method, target, headers=headers, body=b"x" if method == "POST" else b"")

    def assert_refused(self, response: Response, says: str) -> None:
        """It is 403, and nothing came of it."""
        self.assert_problem(response, 403, field="Origin", says=says)
        self.assertEqual(self.rig.parts.bus.log.sequence, 0)

    def test_it_gives_what_is_configured_and_its_subject_is_the_user(self) -> None:
        self.assertEqual(self.ask("POST").status, 201)
        self.assertEqual(self.ask("GET").status, 200)
        for method, target in (
            ("DELETE", "/channels/own%2Fa"),
            ("GET", "/channels/other"),
            ("GET", "/connections"),
        ):
            self.assert_problem(self.ask(method, target=target), 403, says="[auth] certified")

    def test_when_it_has_expired_nothing_is_answered_that_takes_a_right(self) -> None:
        tokens = FakeTokens(boss=identity(publish=("**",), subscribe=("**",), operator=True))
        self.world = Integrations(tokens)
        self.start(self.config)
        bearer = ("Authorization", "Bearer boss")
        requests = (
            ("POST", "/channels/own%2Fa"),
            ("POST", "/publish"),
            ("GET", "/channels/own%2Fa"),
            ("GET", "/channels/own%2Fa/events"),
            ("GET", "/poll?channel=own/a&since=earliest"),
            ("HEAD", "/sse?channel=own/a"),
        )
        client = HttpClient(self.rig)
        client.send("GET", "/channels/own%2Fa")
        self.rig.wait(59)
        client.send("GET", "/channels/own%2Fa")
        self.rig.wait(1)
        client.send("GET", "/channels/own%2Fa")
        self.rig.turn()
        self.assertEqual([response.status for response in client.responses], [200, 200, 401])
        for method, target in requests:
            for headers in ((), (bearer,)):
                with self.subTest(f"{method} {target} {headers}"):
                    response = self.rig.request(
                        method, target, headers=headers, body=b"x" if method == "POST" else b""
                    )
                    self.assertEqual(response.status, 401)
                    if method != "HEAD":
                        self.assert_problem(response, 401, says="the client certificate has expired")
        self.assertEqual(self.rig.parts.bus.log.sequence, 0)

    def test_a_token_that_is_renewed_does_not_outlive_it(self) -> None:
        self.world = Integrations(FakeTokens(later=identity(subscribe=("**",), expires_at=STARTED + 1000)))
        self.start(self.config)
        socket = WebSocketClient(self.rig, "/ws?access_token=later")
        self.rig.turn()
        socket.say(type="renew", token="later")
        self.rig.turn()
        self.assertEqual(socket.json, [{"type": "renewed", "expires": STARTED + 60}])
        self.rig.wait(62)
        self.assertEqual(socket.close, (1008, "the client certificate has expired; connect again with a new one"))

    def test_programs_need_no_origin(self) -> None:
        self.assertEqual(self.ask("POST").status, 201)

    def test_a_page_of_its_own_or_a_listed_one_can_use_it(self) -> None:
        self.start(f"{self.config}origins = {LISTED}\n")
        for origin in ("http://localhost", LISTED):
            self.assertEqual(self.ask("POST", ("Origin", origin)).status, 201)

    def test_a_page_that_is_let_in_by_a_star_cannot(self) -> None:
        self.start(f"{self.config}origins = *\n")
        for method in ("GET", "POST", "DELETE"):
            response = self.ask(method, ("Origin", EVIL))
            self.assert_refused(response, "a client certificate from a page of 'https://evil.example'")
        upgrade = (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"))
        key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        response = self.ask("GET", *upgrade, key, ("Origin", EVIL), target="/ws?channel=own/a")
        self.assert_refused(response, "a client certificate")

    def test_neither_can_one_whose_request_has_no_origin(self) -> None:
        for site in ("cross-site", "same-site"):
            self.assert_refused(self.ask("GET", ("Sec-Fetch-Site", site)), f"a request that is {site}")
        for site in ("same-origin", "none"):
            self.assertEqual(self.ask("GET", ("Sec-Fetch-Site", site)).status, 200)
