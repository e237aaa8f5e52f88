"""The name of the other end of a connection."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from pushd.peer import peer_name


class PeerNameTests(SynchronousTestCase):
    def test_over_ipv4_it_is_the_host_and_the_port(self) -> None:
        self.assertEqual(peer_name(IPv4Address("TCP", "127.0.0.1", 40312)), "127.0.0.1:40312")

    def test_over_ipv6_the_host_stands_in_brackets(self) -> None:
        self.assertEqual(peer_name(IPv6Address("TCP", "::1", 40312)), "[::1]:40312")

    def test_over_a_unix_socket_it_is_said_that_it_is_one(self) -> None:
        for name in (None, "", "/run/pushd.sock"):
            self.assertEqual(peer_name(UNIXAddress(name)), "a Unix socket")
