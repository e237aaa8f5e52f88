"""The other end of a connection: its name, its address and what it is counted by."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.clientaddress import limit_key, parse_ip
from pushd.server.net.addresses import UnknownAddress, address_of, peer_name


class PeerNameTests(SynchronousTestCase):
    def test_over_ipv4_it_is_the_host_and_the_port(self) -> None:
        self.assertEqual(peer_name(IPv4Address("TCP", "127.0.0.1", 40312)), "127.0.0.1:40312")

    def test_over_ipv6_the_host_stands_in_brackets(self) -> None:
        self.assertEqual(peer_name(IPv6Address("TCP", "::1", 40312)), "[::1]:40312")

    def test_over_a_unix_socket_it_is_said_that_it_is_one(self) -> None:
        for name in (None, "", "/run/pushd.sock"):
            self.assertEqual(peer_name(UNIXAddress(name)), "a Unix socket")

    def test_of_whom_the_proxy_does_not_know_it_is_said_which_proxy(self) -> None:
        unknown = UnknownAddress(IPv4Address("TCP", "10.0.0.1", 40312))
        self.assertEqual(peer_name(unknown), "somebody behind 10.0.0.1:40312")


class AddressTests(SynchronousTestCase):
    def test_it_is_that_of_ip_in_its_usual_form(self) -> None:
        for host, address in {
            "2001:DB8:0:0::1": "2001:db8::1",
            "::ffff:192.0.2.1": "192.0.2.1",
            "fe80::1%eth0": "fe80::1",
            "::1": "::1",
        }.items():
            self.assertEqual(address_of(IPv6Address("TCP", host, 1)), address)
        self.assertEqual(address_of(IPv4Address("TCP", "192.0.2.1", 1)), "192.0.2.1")

    def test_otherwise_it_is_unix(self) -> None:
        self.assertEqual(address_of(UNIXAddress("/run/x")), "unix")

    def test_who_is_unknown_is_where_its_proxy_is(self) -> None:
        self.assertEqual(address_of(UnknownAddress(IPv4Address("TCP", "10.0.0.1", 1))), "10.0.0.1")
        self.assertEqual(address_of(UnknownAddress(UNIXAddress(None))), "unix")

    def test_what_is_no_ip_address_is_refused(self) -> None:
        for text in ("", "localhost", "1", "1.2.3", "01.2.3.4", "fe80::1%eth0", "[::1]", " ::1"):
            self.assertRaises(ValueError, parse_ip, text)


class LimitKeyTests(SynchronousTestCase):
    def test_ipv4_is_counted_by_the_address(self) -> None:
        self.assertEqual(limit_key("192.0.2.1"), "192.0.2.1")

    def test_ipv6_is_counted_by_64_bits(self) -> None:
        for address in ("2001:db8:1:2::", "2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"):
            self.assertEqual(limit_key(address), "2001:db8:1:2::/64")
        self.assertEqual(limit_key("2001:db8:1:3::1"), "2001:db8:1:3::/64")

    def test_ipv4_in_the_form_of_ipv6_is_counted_as_ipv4(self) -> None:
        self.assertEqual(limit_key("::ffff:192.0.2.1"), "192.0.2.1")
        self.assertIsNone(limit_key("::ffff:127.0.0.1"))

    def test_this_machine_is_not_counted(self) -> None:
        for address in ("127.0.0.1", "127.9.9.9", "::1", "unix"):
            self.assertIsNone(limit_key(address))

    @given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
    def test_one_network_is_one_client(self, address: object, other: int) -> None:
        high = int(address) >> 64 << 64  # type: ignore[call-overload]
        keys = {limit_key(str(type(address)(high | low))) for low in (5, other)}  # type: ignore[call-arg]
        if high:
            self.assertEqual(len(keys), 1)
