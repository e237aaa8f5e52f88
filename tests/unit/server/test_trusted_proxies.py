"""Where clients are that come through proxies, and who is believed about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from time import perf_counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from pushd.config.access import Proxies
from pushd.errors import BadRequest
from pushd.server.net.addresses import UnknownAddress
from pushd.server.net.trusted_proxies import TrustedProxies

UNIX = UNIXAddress(None)


def ipv4(host: str) -> IPv4Address:
    """Make the address of a connection over IPv4."""
    return IPv4Address("TCP", host, 40000)


def ipv6(host: str) -> IPv6Address:
    """Make the address of a connection over IPv6."""
    return IPv6Address("TCP", host, 40000)


PROXY = ipv4("10.0.0.1")
NETWORKS = ("10.0.0.0/8", "192.0.2.7", "fd00::/8", "unix")


class ProxyCase(SynchronousTestCase):
    header = "x-forwarded-for"

    def setUp(self) -> None:
        self.trust = TrustedProxies(Proxies(NETWORKS, self.header))

    def client(self, *lines: str, peer: IAddress = PROXY, name: str | None = None) -> str:
        """Return where the client is of a request with these lines of the header."""
        headers = Headers({(name or self.header).encode(): [line.encode("latin-1") for line in lines]})
        return self.trust.client_address(peer, headers)

    def assert_refuses(self, *lines: str) -> None:
        for _ in range(2):  # what is wrong is not remembered as anything else
            error = self.assertRaises(BadRequest, self.client, *lines)
            self.assertEqual((error.field or "").lower(), self.header)
            self.assertTrue(error.detail.lower().startswith(f"{self.header} "), error.detail)


class TrustedTests(ProxyCase):
    def test_addresses_and_networks_of_both_versions_are_trusted(self) -> None:
        for address, is_trusted in (
            (ipv4("10.255.0.1"), True),
            (ipv4("11.0.0.1"), False),
            (ipv4("192.0.2.7"), True),
            (ipv4("192.0.2.8"), False),
            (ipv6("fd12::1"), True),
            (ipv6("fe80::1%eth0"), False),
            (ipv6("2001:db8::1"), False),
        ):
            self.assertEqual(self.trust.is_trusted(address), is_trusted, address)

    def test_ipv4_in_the_form_of_ipv6_is_ipv4(self) -> None:
        self.assertTrue(self.trust.is_trusted(ipv6("::ffff:10.0.0.1")))
        self.assertFalse(self.trust.is_trusted(ipv6("::ffff:11.0.0.1")))
        mapped = TrustedProxies(Proxies(("::ffff:10.0.0.0/104", "::ffff:192.0.2.7"), "none"))
        for address in (ipv4("10.9.9.9"), ipv6("::ffff:a09:909"), ipv4("192.0.2.7")):
            self.assertTrue(mapped.is_trusted(address), address)
        self.assertFalse(mapped.is_trusted(ipv4("192.0.2.8")))

    def test_all_of_ipv6_does_not_hold_ipv4(self) -> None:
        self.assertFalse(TrustedProxies(Proxies(("::/0",), "none")).is_trusted(ipv6("::ffff:10.0.0.1")))

    def test_unix_sockets_are_trusted_by_their_word_only(self) -> None:
        self.assertTrue(self.trust.is_trusted(UNIX))
        self.assertFalse(TrustedProxies(Proxies(("0.0.0.0/0", "::/0"), "none")).is_trusted(UNIX))

    def test_whom_the_proxy_does_not_know_is_not_the_proxy(self) -> None:
        for proxy in (PROXY, UNIX):
            self.assertFalse(self.trust.is_trusted(UnknownAddress(proxy)))

    def test_nobody_is_trusted_unless_that_is_said(self) -> None:
        trust = TrustedProxies(Proxies((), "x-forwarded-for"))
        for address in (PROXY, ipv4("127.0.0.1"), ipv6("::1"), UNIX):
            self.assertFalse(trust.is_trusted(address))


class PeerTests(ProxyCase):
    """Whom nobody speaks for."""

    def test_it_is_the_address_of_the_connection(self) -> None:
        for peer, address in (
            (ipv4("198.51.100.1"), "198.51.100.1"),
            (ipv6("2001:DB8:0::1"), "2001:db8::1"),
            (ipv6("::ffff:198.51.100.1"), "198.51.100.1"),
            (ipv6("fe80::1%eth0"), "fe80::1"),
            (PROXY, "10.0.0.1"),
            (UNIX, "unix"),
            (UnknownAddress(PROXY), "10.0.0.1"),
        ):
            self.assertEqual(self.client(peer=peer), address)

    def test_what_others_than_the_proxies_say_is_not_looked_at(self) -> None:
        for peer, address in (
            (ipv4("198.51.100.1"), "198.51.100.1"),
            (ipv6("2001:db8::1"), "2001:db8::1"),
            (UnknownAddress(PROXY), "10.0.0.1"),
        ):
            for line in ("203.0.113.9", "garbage", "127.0.0.1", ""):
                self.assertEqual(self.client(line, peer=peer), address)

    def test_unix_is_not_looked_at_unless_trusted(self) -> None:
        self.trust = TrustedProxies(Proxies(("0.0.0.0/0",), self.header))
        self.assertEqual(self.client("203.0.113.9", peer=UNIX), "unix")

    def test_the_other_header_is_not_looked_at(self) -> None:
        self.assertEqual(self.client("for=203.0.113.9", name="forwarded"), "10.0.0.1")
        self.assertEqual(self.client("garbage", name="forwarded"), "10.0.0.1")

    def test_with_none_no_header_is_looked_at(self) -> None:
        self.trust = TrustedProxies(Proxies(NETWORKS, "none"))
        self.assertEqual(self.client("203.0.113.9"), "10.0.0.1")
        self.assertEqual(self.client("203.0.113.9", peer=UNIX), "unix")


class XForwardedForTests(ProxyCase):
    def test_the_proxy_says_where_the_client_is(self) -> None:
        self.assertEqual(self.client("203.0.113.9"), "203.0.113.9")
        self.assertEqual(self.client("203.0.113.9", peer=UNIX), "203.0.113.9")
        self.assertEqual(self.client("203.0.113.9", peer=ipv6("::ffff:10.0.0.1")), "203.0.113.9")

    def test_addresses_come_in_every_form(self) -> None:
        for text, address in {
            "203.0.113.9:4711": "203.0.113.9",
            "2001:db8::9": "2001:db8::9",
            "2001:DB8:0:0::9": "2001:db8::9",
            "[2001:db8::9]": "2001:db8::9",
            "[2001:db8::9]:4711": "2001:db8::9",
            "::ffff:203.0.113.9": "203.0.113.9",
            "[::ffff:203.0.113.9]:80": "203.0.113.9",
            " \t203.0.113.9\t ": "203.0.113.9",
        }.items():
            self.assertEqual(self.client(text), address)

    def test_the_last_that_is_not_a_proxy_is_the_client(self) -> None:
        self.assertEqual(self.client("1.1.1.1, 203.0.113.9, 192.0.2.7,10.3.3.3"), "203.0.113.9")
        self.assertEqual(self.client("1.1.1.1", "203.0.113.9, 192.0.2.7", "10.3.3.3:80"), "203.0.113.9")
        self.assertEqual(self.client("203.0.113.9, ::ffff:10.0.0.2"), "203.0.113.9")

    def test_if_all_are_proxies_it_is_the_first(self) -> None:
        self.assertEqual(self.client("10.7.7.7, 10.0.0.2"), "10.7.7.7")

    def test_who_is_unknown_is_where_the_last_one_is_that_is_known(self) -> None:
        for text in ("unknown", "Unknown", "_hidden", "1.1.1.1, unknown"):
            self.assertEqual(self.client(text), "10.0.0.1")
            self.assertEqual(self.client(text, peer=UNIX), "unix")
            self.assertEqual(self.client(f"{text}, 10.3.3.3"), "10.3.3.3")

    def test_nothing_between_commas_is_nothing(self) -> None:
        self.assertEqual(self.client("203.0.113.9,, ,"), "203.0.113.9")
        for text in ("", ",", " , "):
            self.assertEqual(self.client(text), "10.0.0.1")

    def test_what_the_client_itself_sent_before_is_not_looked_at(self) -> None:
        for said in ("garbage", "10.0.0.9", "127.0.0.1", "unix", '"', "a" * 5000, "\xff"):
            self.assertEqual(self.client(f"{said}, 203.0.113.9"), "203.0.113.9")
            self.assertEqual(self.client(said, "203.0.113.9"), "203.0.113.9")

    def test_what_a_proxy_should_not_say_is_refused(self) -> None:
        for text in (
            *("garbage", "unix", "203.0.113", "203.0.113.09", "203.0.113.256", "203.0.113.9:", "203.0.113.9:x"),
            *("203.0.113.9:65536", "203.0.113.9:1:2", "[203.0.113.9]", "[2001:db8::9", "2001:db8::9]", "[]", ":80"),
            *("2001:db8::g", "[2001:db8::9]80", "[2001:db8::9]:x", "fe80::1%eth0", "[fe80::1%eth0]", "a.example"),
            *("203.0.113.9 203.0.113.8", '"203.0.113.9"', "for=203.0.113.9", "\xb2.0.0.1", "0x7f.1", "1", "_"),
            *("203.0.113.0/24", "1.1.1.1, garbage, 10.0.0.2", "[[2001:db8::9]]", "203.0.113.9:100000"),
        ):
            self.assert_refuses(text)

    def test_what_is_quoted_in_the_refusal_is_bounded(self) -> None:
        error = self.assertRaises(BadRequest, self.client, "x" * 10_000)
        self.assertLess(len(error.detail), 700)

    def test_a_long_header_is_not_remembered(self) -> None:
        self.client(", ".join(["10.0.0.2"] * 100))
        self.assertEqual(self.trust._cached_client.cache_info().currsize, 0)
        for _ in range(3):
            self.client("203.0.113.9")
        self.assertEqual(self.trust._cached_client.cache_info()[:2], (2, 1))

    def test_what_is_remembered_goes_by_the_peer_too(self) -> None:
        for peer, address in ((PROXY, "10.0.0.1"), (UNIX, "unix"), (ipv4("192.0.2.7"), "192.0.2.7")):
            self.assertEqual(self.client("unknown", peer=peer), address)


class ForwardedTests(ProxyCase):
    header = "forwarded"

    def test_the_proxy_says_where_the_client_is(self) -> None:
        for text, address in {
            "for=203.0.113.9": "203.0.113.9",
            "For=203.0.113.9;proto=https;by=10.0.0.1": "203.0.113.9",
            "proto=https; FOR=203.0.113.9 ; host=a.example": "203.0.113.9",
            'for="203.0.113.9:4711"': "203.0.113.9",
            'for="[2001:DB8::9]"': "2001:db8::9",
            'for="[2001:db8::9]:4711"': "2001:db8::9",
            'for="[2001:db8::9]:_port"': "2001:db8::9",
            'for="[::ffff:203.0.113.9]"': "203.0.113.9",
            r'for="203.0.\113.9";host="a\"b,for=1.1.1.1"': "203.0.113.9",
            'for=203.0.113.9;host="a, for=1.1.1.1; for=1.1.1.2"': "203.0.113.9",
            "for=203.0.113.9;": "203.0.113.9",
            ";;for=203.0.113.9, ,": "203.0.113.9",
        }.items():
            self.assertEqual(self.client(text), address, text)

    def test_the_last_that_is_not_a_proxy_is_the_client(self) -> None:
        self.assertEqual(self.client("for=1.1.1.1, for=203.0.113.9;proto=http, for=10.0.0.2"), "203.0.113.9")
        self.assertEqual(
            self.client("for=1.1.1.1", 'for=203.0.113.9, for="[fd00::1]:80"', "for=10.1.1.1"), "203.0.113.9"
        )
        self.assertEqual(self.client("for=10.7.7.7, for=10.0.0.2"), "10.7.7.7")

    def test_who_is_unknown_is_where_the_last_one_is_that_is_known(self) -> None:
        for text in (
            "for=unknown",
            "for=_hidden",
            'for="_hidden:80"',
            'for="unknown:_p"',
            "by=10.0.0.9",
            "for=1.1.1.1, proto=http",
        ):
            self.assertEqual(self.client(text), "10.0.0.1")
            self.assertEqual(self.client(f"{text}, for=10.3.3.3"), "10.3.3.3")

    def test_nothing_is_nothing(self) -> None:
        for text in ("", ",", " ; , "):
            self.assertEqual(self.client(text), "10.0.0.1")

    def test_what_is_malformed_is_refused(self) -> None:
        for text in (
            *(
                "203.0.113.9",
                "for",
                "for=",
                "for= 203.0.113.9",
                "for =203.0.113.9",
                "=x",
                "for=garbage",
                "for=1.1.1",
            ),
            *(
                'for="',
                'for="203.0.113.9',
                'for=203.0.113.9"',
                'for="203.0.113.9"x',
                'for="a\\',
                "for=203.0.113.9:80",
            ),
            *("for=[2001:db8::9]", 'for="2001:db8::9"', 'for="[203.0.113.9]"', 'for=""', 'for="[fe80::1%eth0]"'),
            *("for=203.0.113.9;for=203.0.113.8", "for=203.0.113.9 for=203.0.113.8", 'for="203.0.113.9:99999"'),
            *(
                "for=203.0.113.9;proto=a b",
                "for=unix",
                'for="\x01"',
                "for=203.0.113.9;(x)=y",
                "garbage, for=203.0.113.9",
            ),
        ):
            self.assert_refuses(text)

    def test_what_the_client_sent_in_lines_of_its_own_is_not_looked_at(self) -> None:
        for said in ("garbage", 'for="', "for=10.0.0.9", 'for="a\\'):
            self.assertEqual(self.client(said, "for=203.0.113.9"), "203.0.113.9")

    @given(st.text(st.sampled_from(list('for=1. "\\,;_[]:unkwhsab')), max_size=40), st.sampled_from([True, False]))
    def test_no_prefix_of_the_client_hides_what_the_proxy_says(self, prefix: str, is_quoted: bool) -> None:
        """Nor if the proxy passes on what else the client says, as a quoted string."""
        proxys = 'for="203.0.113.9:80";host="a,for=6.6.6.6;by=b";proto="http"' if is_quoted else "for=203.0.113.9"
        try:
            self.assertEqual(self.client(f"{prefix}, {proxys}"), "203.0.113.9")
        except BadRequest:
            self.assertTrue(prefix.strip(" ,;"), "nobody is refused for nothing")

    def test_long_nonsense_takes_no_longer_than_it_is_long(self) -> None:
        start = perf_counter()
        for part in (" ", "\t ", ";", "a=b;", 'a="', '\\"', "for=1.1.1.1,", "a" * 10):
            for end in ("", "x", '"', "\x01"):
                with contextlib.suppress(BadRequest):
                    self.client(part * (60_000 // len(part)) + end)
        self.assertLess(perf_counter() - start, 5)


IPS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


def written(addresses: Iterable[object], header: str) -> str:
    """Write addresses as a proxy does."""
    if header == "forwarded":
        return ", ".join(f'for="[{it}]"' if ":" in str(it) else f"for={it}" for it in addresses)
    return ", ".join(map(str, addresses))


class PropertyTests(SynchronousTestCase):
    @given(
        st.sampled_from(["x-forwarded-for", "forwarded"]),
        st.lists(IPS, max_size=4),
        st.ip_addresses(v=4).filter(lambda ip: str(ip).split(".")[0] not in ("10", "192")),
        st.lists(st.sampled_from(["10.0.0.2", "192.0.2.7", "fd00::7"]), max_size=4),
        st.integers(0, 8),
    )
    def test_whatever_the_client_says_it_is_where_the_proxies_saw_it(
        self, header: str, said: list[object], client: object, proxies: list[str], split: int
    ) -> None:
        trust = TrustedProxies(Proxies(NETWORKS, header))
        each = [*said, client, *proxies]
        lines = [written(part, header).encode() for part in (each[:split], each[split:]) if part]
        self.assertEqual(trust.client_address(PROXY, Headers({header.encode(): lines})), str(client))

    @given(st.sampled_from(["x-forwarded-for", "forwarded"]), st.lists(st.binary(max_size=60), max_size=3))
    def test_any_bytes_are_an_address_or_refused(self, header: str, lines: list[bytes]) -> None:
        headers = Headers()
        for line in lines:
            headers.addRawHeader(header.encode(), line)
        try:
            address = TrustedProxies(Proxies(NETWORKS, header)).client_address(PROXY, headers)
        except BadRequest:
            return
        self.assertNotIn("%", address)
        self.assertTrue(address.isascii() and address.isprintable())
