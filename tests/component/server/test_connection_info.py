"""The facts of a connection are asked for once, when it begins."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from twisted.internet.address import IPv4Address

from pushd.server.net import connection_info
from tests.rigs.daemon import DaemonTests
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient

PROXY = IPv4Address("TCP", "192.0.2.1", 4000)
STRANGER = IPv4Address("TCP", "198.51.100.1", 4000)


class FactTests(DaemonTests):
    """Over HTTP/1.1 and HTTP/2 alike."""

    config = "[site]\ndemo = no\n[auth]\nanonymous = publish, subscribe\n[proxies]\ntrusted = 192.0.2.1\n"

    def info_of(self, client: HttpClient) -> Any:
        """Return the facts of a connection."""
        return client.connection.protocol._protocol.info

    def test_they_are_asked_for_once(self) -> None:
        for kind in HttpClient, Http2Client:
            with patch.object(connection_info, "certificate_of", return_value=None) as asked:
                client = kind(self.rig)
                for _ in range(3):
                    client.send("GET", "/channels")
                    self.rig.turn()
                self.assertEqual(asked.call_count, 1, kind)

    def test_limits_charge_nobody_for_a_trusted_proxy(self) -> None:
        self.assertIsNone(self.info_of(HttpClient(self.rig, peer=PROXY)).owner)
        self.assertEqual(self.info_of(HttpClient(self.rig, peer=STRANGER)).owner, STRANGER.host)
