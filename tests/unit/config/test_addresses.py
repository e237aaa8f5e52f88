"""Endpoints, hosts and web origins."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import endpoints
from twisted.trial.unittest import SynchronousTestCase

from pushd.config.addresses import parse_endpoint, parse_host, parse_host_pattern, parse_origin


class Refusing(SynchronousTestCase):
    def assert_refuses(self, parse: Callable[[str], object], *texts: str) -> None:
        for text in texts:
            self.assertRaises(ValueError, parse, text)


class EndpointTests(Refusing):
    def assert_local(self, *texts: str) -> None:
        for text in texts:
            self.assertTrue(parse_endpoint(text).is_local, text)

    def assert_open(self, *texts: str) -> None:
        for text in texts:
            self.assertFalse(parse_endpoint(text).is_local, text)

    def test_tcp_on_a_loopback_address_is_local(self) -> None:
        self.assert_local(
            "tcp:8080:interface=127.0.0.1",
            "tcp:8080:interface=127.255.1.2",
            "tcp:8080:interface=localhost",
            "tcp:8080:127.0.0.1",
            "tcp:port=8080:interface=127.0.0.1",
            "interface=127.0.0.1:tcp:8080",
            r"tcp:8080:interface=\:\:1",
            r"tcp6:8080:interface=\:\:1",
            r"tcp6:8080:50:\:\:1",
        )

    def test_a_unix_socket_is_local(self) -> None:
        self.assert_local("unix:/run/pushd/http", "unix:address=/run/pushd/http:mode=660")

    def test_a_unix_socket_of_systemd_is_local_and_any_other_may_be_anywhere(self) -> None:
        self.assert_local("systemd:domain=UNIX:name=http", "systemd:UNIX:0")
        self.assert_open("systemd:domain=INET:name=http", "systemd:domain=INET6:index=0", "systemd:INET:0")

    def test_a_socket_of_systemd_has_a_domain_and_either_a_name_or_an_index(self) -> None:
        self.assert_refuses(parse_endpoint, "systemd:name=http", "systemd:domain=inet:name=http", "systemd:INET")
        self.assert_refuses(parse_endpoint, "systemd:domain=VSOCK:name=http", "systemd:domain=INET:name=")
        self.assert_refuses(parse_endpoint, "systemd:domain=INET:index=x", "systemd:domain=INET:index=-1")
        self.assert_refuses(parse_endpoint, "systemd:domain=INET:index=0:name=http")

    def test_tcp_on_every_interface_is_not_local(self) -> None:
        self.assert_open("tcp:8080", "tcp:8080:interface=", "tcp:8080:interface=0.0.0.0", "tcp6:8080")
        self.assert_open(r"tcp6:8080:interface=\:\:", "tcp:8080:backlog=127.0.0.1", "tcp:8080:")

    def test_tcp_on_another_interface_is_not_local(self) -> None:
        self.assert_open("tcp:80:interface=192.168.1.1", "tcp:80:interface=127.0.0.1.example.com")
        self.assert_open("tcp:80:interface=127.1", "tcp:80:interface=LOCALHOST", "tcp:80:interface= 127.0.0.1")
        self.assert_open(r"tcp6:80:interface=\:\:ffff\:127.0.0.1", "tcp6:80:127.0.0.1")

    def test_the_last_interface_counts_as_it_does_for_twisted(self) -> None:
        self.assert_open("tcp:80:interface=127.0.0.1:interface=0.0.0.0")

    def test_a_forgotten_backslash_is_not_local(self) -> None:
        self.assert_open("tcp6:8080:interface=::1")

    def test_what_is_not_known_is_not_local(self) -> None:
        self.assert_open("systemd:domain=INET:name=http", "ssl:443:interface=127.0.0.1", "stdio:")
        self.assert_open("haproxy:tcp:80:interface=127.0.0.1", "TCP:80:interface=127.0.0.1", "Unix:/x")

    def test_refuses_what_twisted_could_not_read(self) -> None:
        self.assert_refuses(parse_endpoint, "", ":", "8080", "tcp", ":8080", "a=b", "a=b:c=d", "tcp:80\\")
        self.assert_refuses(parse_endpoint, "=tcp:80", "t cp:80", " tcp:80", "tcp\\:80")

    def test_a_port_is_from_0_to_65535(self) -> None:
        self.assertEqual(parse_endpoint("tcp:0").args, ("tcp", "0"))
        self.assert_refuses(parse_endpoint, "tcp:65536", "tcp:-1", "tcp:http", "tcp:", "tcp6:80 ", "tcp:\u0668")
        self.assert_refuses(parse_endpoint, "tcp:interface=127.0.0.1", "tcp:port=x")

    def test_a_unix_socket_needs_a_path(self) -> None:
        self.assert_refuses(parse_endpoint, "unix:", "unix:mode=660")

    @given(st.text(st.sampled_from("tcp6:=\\1.0a/"), max_size=30))
    def test_is_read_as_twisted_reads_it(self, text: str) -> None:
        try:
            ours = parse_endpoint(text)
        except ValueError:
            return
        # The private name is what serverFromString splits with; its plugins would want a reactor.
        args, named = endpoints._parse(text)
        self.assertEqual((ours.args, ours.named), (tuple(args), named))

    @given(st.text())
    def test_any_text_is_an_endpoint_or_a_value_error(self, text: str) -> None:
        try:
            endpoint = parse_endpoint(text)
        except ValueError:
            return
        self.assertIsInstance(endpoint.is_local, bool)


class HostTests(Refusing):
    def test_is_answered_in_lower_case(self) -> None:
        self.assertEqual(parse_host("Push.Example.COM:08443"), "push.example.com:8443")

    def test_is_a_name_or_an_address_with_or_without_a_port(self) -> None:
        for text in ["localhost", "a.b", "xn--bcher-kva.example", "my_host", "192.0.2.1:80", "[::1]", "[::1]:80"]:
            self.assertEqual(parse_host(text), text)

    def test_an_ipv6_address_is_answered_in_its_short_form(self) -> None:
        self.assertEqual(parse_host("[2001:DB8:0::1]:80"), "[2001:db8::1]:80")

    def test_refuses_what_is_not_a_host(self) -> None:
        self.assert_refuses(parse_host, "", ":80", "a b", "-a", "a-", "a..b", ".a", "a/", "http://a", "u@a", "*")
        self.assert_refuses(parse_host, "::1", "[::1", "[]", "[::1%lo]", "[1.2.3.4]", "a\n", "b\u00fccher.de")
        self.assert_refuses(parse_host, "a" * 64, ".".join(["abc"] * 64), "\u212aelvin")

    def test_a_port_is_from_1_to_65535(self) -> None:
        self.assert_refuses(parse_host, "a:", "a:0", "a:65536", "a:http", "a:1:2")


class HostPatternTests(Refusing):
    def test_is_a_host_or_what_is_below_a_name(self) -> None:
        for text in ("localhost", "[::1]:80", "*.example.com", "*.example.com:8443", "*.a.b.c"):
            self.assertEqual(parse_host_pattern(text), text)
        self.assertEqual(parse_host_pattern("*.Example.COM"), "*.example.com")

    def test_refuses_what_would_be_everybodys_or_stands_elsewhere(self) -> None:
        self.assert_refuses(parse_host_pattern, "*", "*.", "*.com", "*.com:80", "a.*.b", "*a.b", "*.*.a.b", "a.*")
        self.assert_refuses(parse_host_pattern, "*.0.0.1", "*.[::1]", "*..a.b", "*.a.b:*", "**.a.b")


class OriginTests(Refusing):
    def test_is_answered_as_browsers_write_it(self) -> None:
        origins = {
            "https://Example.com": "https://example.com",
            "HTTP://example.com:80": "http://example.com",
            "https://example.com:443": "https://example.com",
            "https://example.com:80": "https://example.com:80",
            "http://localhost:3000": "http://localhost:3000",
            "http://[::1]:80": "http://[::1]",
            "capacitor://localhost": "capacitor://localhost",
        }
        for text, origin in origins.items():
            self.assertEqual(parse_origin(text), origin)

    def test_its_host_and_port_may_be_patterns(self) -> None:
        for text in (
            "https://*.example.com",
            "http://localhost:*",
            "https://*.a.b:*",
            "http://*.a.b:8080",
            "x://[::1]:*",
        ):
            self.assertEqual(parse_origin(text), text)
        self.assertEqual(parse_origin("https://*.Example.com:443"), "https://*.example.com")
        self.assert_refuses(parse_origin, "https://*", "https://*:*", "https://*.com", "https://*.com:*", "*://a.b")
        self.assert_refuses(parse_origin, "https://*a.b", "https://a.*.b", "https://*.*.a.b", "https://a.b:80:*")
        self.assert_refuses(
            parse_origin, "https://*.0.0.1", "https://*.[::1]", "https://*.", "https://a.b:*0", "*.a.b"
        )

    def test_a_star_is_any(self) -> None:
        self.assertEqual(parse_origin("*"), "*")

    def test_refuses_what_is_not_an_origin(self) -> None:
        self.assert_refuses(parse_origin, "", "null", "example.com", "https://", "https:/a", "//a", "https://*.a")
        self.assert_refuses(parse_origin, "https://a/", "https://a/b", "https://u@a", "https://a?", "1a://b")
        self.assert_refuses(parse_origin, "https://a:0", "https://a:443443", " https://a", "https://https://a")
