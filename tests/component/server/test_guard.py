"""Who is let in by ``Host`` and ``Origin``, and what a browser is told about it."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from tests.rigs.daemon import DaemonTests
from tests.rigs.http_client import HttpClient, Response

LOOPBACK = IPv4Address("TCP", "127.0.0.1", 8080)
LOOPBACK_6 = IPv6Address("TCP", "::1", 8080)
MAPPED = IPv6Address("TCP", "::ffff:127.0.0.1", 8080)
LAN = IPv4Address("TCP", "192.168.1.5", 8080)
LAN_MAPPED = IPv6Address("TCP", "::ffff:192.168.1.5", 8080)
LAN_6 = IPv6Address("TCP", "2001:db8::5", 8080)
LINK_6 = IPv6Address("TCP", "fe80::1%eth0", 8080)
UNIX = UNIXAddress("/run/pushd.sock")


class GateTests(DaemonTests):
    """Tests of what stands before every endpoint but ``/healthz``."""

    def ask(
        self,
        *headers: tuple[str, str],
        to: IAddress = LOOPBACK,
        method: str = "GET",
        version: str = "1.1",
        target: str = "/channels",
    ) -> Response:
        """Return the response to a request with only these headers, made to the address `to`."""
        client = HttpClient(self.rig, to)
        client.send(method, target, headers=headers, host=None, version=version)
        self.rig.turn()
        return client.response

    def assert_host(self, status: int, host: str, to: IAddress = LOOPBACK) -> None:
        """A request by the name `host` to the address `to` is let in, or not."""
        with self.subTest(f"{host} at {to}"):
            response = self.ask(("Host", host), to=to)
            if status == 200:
                self.assertEqual(response.status, 200, response)
            else:
                self.assert_problem(response, status, field="Host")


class HostTests(GateTests):
    """``Host``: a page of another name that was made to resolve to this machine is not let in."""

    def test_on_the_loopback_its_names_are_let_in_at_any_port(self) -> None:
        for to in (LOOPBACK, LOOPBACK_6, MAPPED):
            for host in (
                "localhost",
                "LocalHost",
                "localhost:8080",
                "127.0.0.1",
                "127.0.0.1:1",
                "[::1]",
                "[::1]:8080",
            ):
                self.assert_host(200, host, to)

    def test_another_loopback_address_is_let_in_by_itself(self) -> None:
        self.assert_host(200, "127.1.2.3", IPv4Address("TCP", "127.1.2.3", 8080))
        self.assert_host(403, "127.1.2.3", LOOPBACK)

    def test_on_another_address_only_that_address_is_let_in(self) -> None:
        for to in (LAN, LAN_MAPPED):
            self.assert_host(200, "192.168.1.5", to)
            self.assert_host(200, "192.168.1.5:80", to)
            for host in (
                "localhost",
                "127.0.0.1",
                "[::1]",
                "192.168.1.6",
                "192.168.1.50",
                "192.168.1.5.example.com",
            ):
                self.assert_host(403, host, to)
        self.assert_host(200, "[2001:db8::5]:8080", LAN_6)
        self.assert_host(403, "[2001:db8::6]", LAN_6)
        self.assert_host(200, "[fe80::1]", LINK_6)

    def test_a_name_that_is_not_its_own_is_refused(self) -> None:
        for host in (
            "evil.example",
            "localhost.evil.example",
            "evil.localhost",
            "localhost:8080.evil.example",
            "localhost:",
            "localhost:x",
            "user@localhost",
            "localhost, evil.example",
            "",
            ":8080",
            "::1",
            "[::1",
            "127.1",
            "0.0.0.0",
            "0",
        ):
            self.assert_host(403, host)

    def test_the_refusal_says_what_to_configure(self) -> None:
        response = self.ask(("Host", "push.example.com:8080"))
        self.assert_problem(response, 403, field="Host", says="[auth] hosts = push.example.com")

    def test_a_name_in_any_bytes_is_refused(self) -> None:
        client = HttpClient(self.rig)
        client.send_raw("GET", b"GET /channels HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n")
        self.rig.turn()
        self.assert_problem(client.response, 403, field="Host")

    def test_configured_names_are_let_in(self) -> None:
        self.start("[auth]\nhosts = push.example.com, other.example.com:8443, [2001:db8::1]\n")
        for host in (
            "push.example.com",
            "Push.Example.Com:99",
            "other.example.com:8443",
            "[2001:db8::1]:80",
            "localhost",
        ):
            self.assert_host(200, host)
        for host in ("other.example.com", "other.example.com:443", "example.com", "x.push.example.com"):
            self.assert_host(403, host)

    def test_on_a_unix_socket_it_is_localhost(self) -> None:
        self.assert_host(200, "localhost", UNIX)
        self.assert_host(200, "localhost:80", UNIX)
        self.assert_host(403, "evil.example", UNIX)
        self.assert_host(403, "127.0.0.1", UNIX)

    def test_without_a_name_only_http_1_0_is_let_in(self) -> None:
        self.assertEqual(self.ask(version="1.0").status, 200)
        self.assert_problem(self.ask(), 400, field="Host", says="missing")

    def test_http_1_0_with_a_wrong_name_is_refused(self) -> None:
        self.assert_problem(self.ask(("Host", "evil.example"), version="1.0"), 403, field="Host")

    def test_two_names_are_refused(self) -> None:
        for second in ("localhost", "evil.example"):
            response = self.ask(("Host", "localhost"), ("Host", second))
            self.assert_problem(response, 400, field="Host", says="2 times")

    def test_a_name_in_the_request_line_does_not_count(self) -> None:
        response = self.ask(("Host", "evil.example"), target="http://localhost/channels")
        self.assertIn(response.status, (400, 403, 404), "it is refused, for whatever is wrong with it first")

    def test_every_endpoint_is_gated(self) -> None:
        for target in (
            "/channels",
            "/channels/a",
            "/channels/a/events",
            "/channels/a/events/x",
            "/channels/chat/room-1",
            "/publish",
            "/sse?channel=a",
            "/stream?channel=a",
            "/poll?channel=a",
            "/ws",
            "/metrics",
            "/healthz",
            "/readyz",
        ):
            for method in ("GET", "POST", "DELETE", "OPTIONS", "HEAD", "PUT"):
                with self.subTest(f"{method} {target}"):
                    response = self.ask(("Host", "evil.example"), target=target, method=method)
                    self.assertEqual(response.status, 403, response)


class Http1OriginTests(GateTests):
    """``Origin``, as only a client of HTTP/1 can send it."""

    def test_without_a_name_no_page_is_its_own(self) -> None:
        for origin in ("http://None", "http://none", "http://localhost", "http://"):
            with self.subTest(origin):
                response = self.ask(("Origin", origin), version="1.0")
                self.assert_problem(response, 403, field="Origin")

    def test_an_origin_cannot_add_headers_to_the_answer(self) -> None:
        self.start("[auth]\norigins = *\n")
        client = HttpClient(self.rig)
        client.send_raw("GET", b"GET /channels HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a\xff\x01b\r\n\r\n")
        self.rig.turn()
        self.assertRegex(client.response.header("access-control-allow-origin") or "", r"\A[\x20-\x7e]*\Z")


class OriginTests(DaemonTests):
    """``Origin``: a page of another site is not let in."""

    def ask(
        self, *headers: tuple[str, str], host: str = "localhost", method: str = "GET", target: str = "/channels"
    ) -> Response:
        """Return the response to a request with these headers."""
        return self.rig.request(method, target, headers=headers, host=host)

    def assert_origin(self, status: int, origin: str, host: str = "localhost:8080") -> None:
        """A request from a page of `origin` is let in, or not."""
        with self.subTest(f"{origin} at {host}"):
            response = self.ask(("Origin", origin), host=host)
            if status == 200:
                self.assertEqual(response.status, 200, response)
            else:
                self.assert_problem(response, status, field="Origin")

    def test_its_own_pages_are_let_in(self) -> None:
        for host in ("localhost:8080", "127.0.0.1:8080", "[::1]:8080", "localhost"):
            self.assert_origin(200, f"http://{host}", host)
            self.assert_origin(200, f"https://{host}", host)
        self.assert_origin(200, "HTTP://LOCALHOST:8080")

    def test_other_pages_are_refused(self) -> None:
        for origin in (
            "http://evil.example",
            "http://localhost",
            "http://localhost:9090",
            "http://127.0.0.1:8080",
            "http://localhost:8080.evil.example",
            "http://localhost:8080/",
            "ftp://localhost:8080",
            "localhost:8080",
            "file://",
            "null",
            "",
            "http://localhost:8080, http://evil.example",
            "http://localhost:8080 http://evil.example",
            "*",
        ):
            self.assert_origin(403, origin)

    def test_the_refusal_says_what_to_configure(self) -> None:
        response = self.ask(("Origin", "http://www.example.com"))
        self.assert_problem(response, 403, field="Origin", says="[auth] origins = http://www.example.com")
        self.assertIsNone(response.header("access-control-allow-origin"))

    def test_two_origins_are_refused(self) -> None:
        response = self.ask(("Origin", "http://localhost"), ("Origin", "http://localhost"))
        self.assert_problem(response, 400, field="Origin", says="2 times")

    def test_a_configured_origin_is_let_in_and_may_read_the_answer(self) -> None:
        self.start("[auth]\norigins = https://www.example.com, http://localhost:3000\n")
        for origin in ("https://www.example.com", "http://localhost:3000"):
            response = self.ask(("Origin", origin))
            self.assertEqual(response.status, 200)
            self.assertEqual(response.header("access-control-allow-origin"), origin)
            self.assertIn("origin", [value.lower() for value in response.all("vary")])
            exposed = response.header("access-control-expose-headers") or ""
            wanted = {"location", "event-id", "event-type", "event-position", "retry-after", "www-authenticate"}
            self.assertEqual(
                set(exposed.split(", ")), wanted | {"idempotent-replayed", "publish-refused", "x-request-id"}
            )
            self.assertIsNone(response.header("access-control-allow-credentials"))
        for origin in ("http://www.example.com", "https://example.com", "https://www.example.com:8443", "null"):
            self.assert_origin(403, origin, "localhost")
        self.assert_origin(200, "http://localhost", "localhost")

    def test_a_wildcard_stands_for_whole_labels_of_a_name(self) -> None:
        self.start("[auth]\norigins = https://*.example.com, http://localhost:*\nhosts = *.example.com\n")
        for origin in ("https://www.example.com", "https://a.b.example.com", "http://localhost:3000"):
            for host in ("localhost", "push.example.com", "a.b.example.com:8443"):
                response = self.ask(("Origin", origin), host=host)
                self.assertEqual(response.status, 200, (origin, host))
                self.assertEqual(response.header("access-control-allow-origin"), origin)
                self.assertIn("origin", [value.lower() for value in response.all("vary")])
                self.assertIsNone(response.header("access-control-allow-credentials"))
        for origin in (
            "https://example.com", "https://evil-example.com", "https://www.example.com.evil", "http://www.example.com",
            "https://evil.example", "http://localhost.evil:80",
        ):  # fmt: skip
            self.assert_origin(403, origin, "localhost")
        for host in ("example.com", "evil-example.com", "a.example.com.evil", "*.example.com", ".example.com"):
            self.assert_problem(self.ask(host=host), 403, field="Host")

    def test_with_a_star_any_origin_is_let_in_but_not_under_any_name(self) -> None:
        self.start("[auth]\norigins = *\n")
        for origin in ("http://any.example", "null", "https://localhost"):
            response = self.ask(("Origin", origin))
            self.assertEqual(response.status, 200)
            self.assertIn(response.header("access-control-allow-origin"), (origin, "*"))
        response = self.ask(("Origin", "http://a.example"), host="evil.example")
        self.assert_problem(response, 403, field="Host")

    def test_a_page_may_read_the_errors_too(self) -> None:
        self.start("[auth]\norigins = https://www.example.com\n")
        response = self.ask(("Origin", "https://www.example.com"), target="/sse")
        self.assert_problem(response, 400, field="channel")
        self.assertEqual(response.header("access-control-allow-origin"), "https://www.example.com")

    def test_a_page_may_read_a_stream(self) -> None:
        self.start("[auth]\norigins = https://www.example.com\n")
        for target in ("/sse?channel=a", "/stream?channel=a"):
            response = self.ask(("Origin", "https://www.example.com"), target=target)
            self.assertEqual(response.header("access-control-allow-origin"), "https://www.example.com")

    def test_without_an_origin_there_are_no_headers_for_browsers(self) -> None:
        self.start("[auth]\norigins = *\n")
        response = self.ask()
        self.assertEqual([name for name, _ in response.headers if name.startswith("access-control")], [])

    def test_a_preflight_of_an_allowed_origin_is_told_what_it_may(self) -> None:
        self.start("[auth]\norigins = https://www.example.com\n")
        for target in (
            "/channels/news",
            "/publish",
            "/sse",
            "/stream",
            "/poll",
            "/channels",
            "/channels/a/events/x",
            "/channels/chat/room-1",
        ):
            with self.subTest(target):
                response = self.ask(
                    ("Origin", "https://www.example.com"),
                    ("Access-Control-Request-Method", "POST"),
                    ("Access-Control-Request-Headers", "content-type,event-id"),
                    method="OPTIONS",
                    target=target,
                )
                self.assertEqual((response.status, response.body), (204, b""))
                self.assertEqual(response.header("access-control-allow-origin"), "https://www.example.com")
                methods = response.header("access-control-allow-methods") or ""
                self.assertEqual(set(methods.split(", ")), {"GET", "POST", "DELETE"})
                headers = set((response.header("access-control-allow-headers") or "").split(", "))
                self.assertLessEqual({"content-type", "event-id", "event-type", "last-event-id"}, headers)
                self.assertEqual(response.header("access-control-max-age"), "600")

    def test_a_page_may_send_the_headers_that_its_tools_add(self) -> None:
        self.start("[auth]\norigins = https://www.example.com\n")
        tools = ["x-requested-with", "traceparent", "tracestate", "baggage", "sentry-trace", "cache-control", "x-a"]

        def taken(*asked: str) -> list[str]:
            response = self.ask(
                ("Origin", "https://www.example.com"),
                ("Access-Control-Request-Method", "GET"),
                *(("Access-Control-Request-Headers", it) for it in asked),
                method="OPTIONS",
                target="/sse?channel=a",
            )
            return (response.header("access-control-allow-headers") or "").split(", ")

        own = taken()
        self.assertEqual(taken(",".join(tools)), [*own, *tools])
        self.assertEqual(taken("X-A, x-a,event-id", "Traceparent"), [*own, "x-a", "traceparent"])
        self.assertEqual(taken("a b,,c(d),e\tf,*"), [*own, "*"], "only names")
        self.assertLess(len(", ".join(taken("a" * 500 + "," + "b" * 4000))), 1500)

    def test_a_preflight_of_another_origin_is_refused(self) -> None:
        response = self.ask(
            ("Origin", "http://evil.example"),
            ("Access-Control-Request-Method", "POST"),
            method="OPTIONS",
            target="/channels/news",
        )
        self.assert_problem(response, 403, field="Origin")
        self.assertEqual([name for name, _ in response.headers if name.startswith("access-control")], [])
