"""The instrument itself: a long turn is seen, and idling is not one."""

from __future__ import annotations

import json
import socket
from contextlib import closing, suppress
from typing import Any
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


def test_whatever_is_published_takes_many_turns() -> None:
    names = "&".join(f"channel=m/{number}" for number in range(100))
    batches: dict[str, list[dict[str, Any]]] = {
        "new channels": [{"channel": f"n/{number}", "data": "x"} for number in range(5_000)],
        "given ids": [{"channel": "ids", "data": "x", "id": f"id-{number}"} for number in range(3_000)],
        "many channels": [{"channels": [f"m/{one}" for one in range(100)], "data": "x"}] * 30,
        "large escapes": [{"channel": "large", "data": "\x01" * 160_000}] * 2,
    }
    with running("[limits]\nchannels = 1000000\n", measures_turns=True) as daemon:
        turns = daemon.turns
        assert turns is not None
        request(f"{daemon.http}/publish", "POST", b'{"channel":"warm","data":"x"}')
        for name, lines in batches.items():
            turns.reset()
            body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
            answers = request(f"{daemon.http}/publish", "POST", body).body.splitlines()
            assert len([one for one in answers if not one.startswith(b'{"summary"')]) == len(lines)
            assert turns.longest_ms < 20, name
        turns.reset()
        assert request(f"{daemon.http}/publish?{names}", "POST", b"x" * 1_000_000).status == 201
        assert turns.longest_ms < 20
