"""The instrument itself: a long turn is seen, and idling is not one."""

from __future__ import annotations

import socket
from contextlib import closing, suppress
from urllib.parse import urlsplit

from tests.e2e.daemon import request, running
from tests.e2e.programs import eventually


def test_a_turn_that_works_is_measured_and_an_idle_one_is_short() -> None:
    with running(measures_turns=True) as daemon:
        turns = daemon.turns
        assert turns is not None
        request(f"{daemon.http}/healthz")
        turns.reset()
        before = turns.count
        request(f"{daemon.http}/healthz")
        assert turns.count > before
        quick = turns.longest_ms
        assert quick > 0
        daemon.publish("many", "x" * 1_000_000)
        assert turns.longest_ms >= quick
        assert turns.longest_wall_ms >= turns.longest_ms / 2
        assert quick < 20


def test_a_flood_of_commands_over_a_websocket_takes_many_turns() -> None:
    frames = {
        "commands": b'{"type":"unsubscribe","channel":"a"}',
        "broken": b"{",
    }
    with running("[auth]\nanonymous = subscribe\n", measures_turns=True) as daemon:
        turns = daemon.turns
        assert turns is not None
        for name, message in frames.items():
            with closing(socket.create_connection(("127.0.0.1", urlsplit(daemon.urls[0]).port))) as flooding:
                flooding.settimeout(1)
                flooding.sendall(
                    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
                )
                assert b" 101 " in flooding.recv(4096)
                turns.reset()
                frame = bytes([0x81, 0x80 | len(message)]) + bytes(4) + message
                with suppress(OSError):
                    for _ in range(4):
                        flooding.sendall(frame * 2000)
                        flooding.recv(2**20)
                eventually(lambda: request(f"{daemon.http}/healthz").status == 200, "it answers")
                assert turns.longest_ms < 20, name
