"""The cases: what a hostile or merely large client sends, each to a daemon with many channels."""

from __future__ import annotations

import json
import os
import signal
import ssl
import struct
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from random import Random
from time import sleep
from typing import Any

from h2.settings import SettingCodes

from tests.e2e.crowds import Crowd, all_at_once
from tests.e2e.daemon import Daemon, request
from tests.torture.talk import Http2, chunked, connect, exchange, frame, get, post, pump, upgrade, websocket

__all__ = ["CASES", "Case", "Target"]

MIB = 1024 * 1024
SUBSCRIBERS = 3000
"""How many subscribers the cases with an audience have."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a case runs against."""

    daemon: Daemon
    """The daemon that everybody may use."""

    guarded: Daemon
    """One where anybody may subscribe to ``public/**``, if an application agrees that never answers, and publish
    nowhere."""

    def http(self, data: bytes, *, seconds: float = 60) -> bytes:
        """Send `data` to the first daemon over a connection of its own, and return the end of what came back."""
        return exchange(self.daemon.http, data, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to try."""

    name: str
    """What it is called."""

    run: Callable[[Target], object]
    """Do it; the result is shown, shortened."""


CASES: list[Case] = []


def case(name: str) -> Callable[[Callable[[Target], object]], Callable[[Target], object]]:
    """Enter a function into `CASES`."""

    def enter(run: Callable[[Target], object]) -> Callable[[Target], object]:
        CASES.append(Case(name, run))
        return run

    return enter


def line(**fields: object) -> bytes:
    """Return one line of a batch."""
    return json.dumps(fields).encode() + b"\n"


# Publishing


@case("publish: 1 MiB of text, escaped as far as it goes")
def _largest_event(target: Target) -> object:
    return target.http(post("/channels/t%2Flarge", b"\x01" * MIB))[:20]


@case("publish: 1 MiB that is no UTF-8")
def _binary_event(target: Target) -> object:
    return target.http(post("/channels/t%2Flarge", os.urandom(MIB)))[:20]


@case("publish: one byte too much, and 16 MiB")
def _too_large(target: Target) -> object:
    return target.http(post("/channels/t", b"x" * (MIB + 1)))[:20], target.http(
        post("/channels/t", b"x" * 16 * MIB)
    )[:20]


@case("publish: chunks of one byte")
def _small_chunks(target: Target) -> object:
    return target.http(chunked("/channels/t", [b"x"] * 200_000))[:20]


@case("publish: 2,000 pipelined")
def _pipelined_posts(target: Target) -> object:
    one = post("/channels/t", b"hello", close=False)
    return target.http(one * 2000 + get("/healthz"))[-40:]


@case("batch: 16 MiB of small lines to one channel")
def _small_lines(target: Target) -> object:
    one = line(channel="t/batch", data="x")
    return target.http(post("/publish", one * (16 * MIB // len(one))))[-40:]


@case("batch: 100,000 lines to new channels")
def _new_channels(target: Target) -> object:
    return target.http(
        post("/publish", b"".join(line(channel=f"n/{number}", data="x") for number in range(100_000)))
    )[-40:]


@case("batch: the largest lines")
def _large_lines(target: Target) -> object:
    one = line(channel="t/batch", data="\x01" * (MIB - 1))
    return target.http(post("/publish", one * (16 * MIB // len(one))))[-40:]


@case("batch: the largest base64")
def _base64_lines(target: Target) -> object:
    one = b'{"channel":"t/batch","data_base64":"' + b"A" * (MIB // 3 * 4) + b'"}\n'
    return target.http(post("/publish", one * (16 * MIB // len(one))))[-40:]


@case("batch: as many channels in a line as go")
def _many_names(target: Target) -> object:
    return target.http(post("/publish", line(channels=[f"m/{number}" for number in range(1_000_000)], data="x")))[
        -120:
    ]


@case("batch: 100 channels in each line")
def _some_names(target: Target) -> object:
    one = line(channels=[f"m/{number}" for number in range(100)], data="x")
    return target.http(post("/publish", one * 500))[-40:]


@case("batch: 16 MiB of empty lines")
def _empty_lines(target: Target) -> object:
    return target.http(post("/publish", b"\n" * 16 * MIB))[-40:]


@case("batch: 16 MiB of bad lines")
def _bad_lines(target: Target) -> object:
    return target.http(post("/publish", b"[\n" * 8 * MIB))[-40:]


@case("batch: one line of 16 MiB of brackets")
def _deep(target: Target) -> object:
    return target.http(post("/publish", b"[" * 16 * MIB))[-120:]


@case("batch: one line of deep objects")
def _deep_objects(target: Target) -> object:
    return target.http(post("/publish", b'{"a":' * 3 * MIB))[-120:]


@case("batch: one number of 16 MiB")
def _long_number(target: Target) -> object:
    return target.http(post("/publish", b'{"channel":"t","data":' + b"1" * 15 * MIB + b"}"))[-120:]


@case("batch: many numbers, many fields, many escapes")
def _odd_values(target: Target) -> object:
    numbers = b'{"channel":"t","data":[' + b"1e308," * 2_500_000 + b"1]}\n"
    fields = b"{" + b",".join(b'"f%d":1' % number for number in range(1_000_000)) + b"}\n"
    escapes = b'{"channel":"t","data":"' + b"\\ud83d\\ude00" * 1_200_000 + b'"}\n'
    return [target.http(post("/publish", one))[-60:] for one in (numbers, fields, escapes)]


@case("batch: many lines that are no UTF-8, and lone surrogates")
def _bad_text(target: Target) -> object:
    bad = b'{"channel":"t","data":"\xff"}\n' * 400_000
    lone = b'{"channel":"t","data":"\\ud800"}\n' * 400_000
    return [target.http(post("/publish", one))[-60:] for one in (bad, lone)]


@case("batch: an id for every event, twice")
def _ids(target: Target) -> object:
    body = b"".join(line(channel="t/ids", data="x", id=f"id-{number}") for number in range(50_000))
    return [target.http(post("/publish", body))[-40:] for _ in range(2)]


@case("batch: who may publish nowhere")
def _nowhere(target: Target) -> object:
    bodies = (b"[\n" * 8 * MIB, line(channels=[f"m/{number}" for number in range(1_000_000)], data="x"))
    return [exchange(target.guarded.http, post("/publish", body))[:20] for body in bodies]


# Reading


@case("poll: ** from the earliest, limit=1, ten at once")
def _polls(target: Target) -> object:
    with ThreadPoolExecutor(10) as pool:
        answers = pool.map(target.http, [get("/poll?channel=**&since=earliest&limit=1")] * 10)
        return [answer[:15] for answer in answers][-1]


@case("poll: ** from the earliest, limit=1000")
def _long_poll(target: Target) -> object:
    return target.http(get("/poll?channel=**&since=earliest&limit=1000"))[:15]


@case("poll: 100 patterns")
def _patterns(target: Target) -> object:
    query = "&".join(f"channel=c/*/{number}/**" for number in range(100))
    return target.http(get(f"/poll?{query}&since=earliest"), seconds=3)[:15]


@case("poll: a pattern that matches nothing, and one that matches one")
def _narrow(target: Target) -> object:
    queries = ("none/**", "c/99999", "**/99999", "*/99999", "*/*/**/x")
    return [target.http(get(f"/poll?channel={one}&since=earliest"), seconds=2)[:15] for one in queries]


@case("poll: 230 pipelined that match one channel")
def _pipelined_polls(target: Target) -> object:
    one = get("/poll?channel=c/7*&channel=*/77777&since=earliest&limit=1", close=False)
    return target.http(one * 230 + get("/healthz"))[-40:]


@case("poll: 100 streams of HTTP/2 at once")
def _multiplexed_polls(target: Target) -> object:
    with closing(Http2(target.daemon.https)) as client:
        for _ in range(100):
            client.request("/poll?channel=**&since=earliest&limit=1")
        client.read(60, lambda: len(client.ended) >= 100)
        return len(client.ended)


@case("resume: sse, stream and ws of ** from the earliest")
def _resume(target: Target) -> object:
    targets = ("/sse?channel=**&since=earliest", "/stream?channel=**&since=earliest")
    ends = [len(target.http(get(one), seconds=5)) for one in targets]
    return ends, len(websocket(target.daemon.http, "/ws?channel=**&since=earliest", b"", seconds=5))


@case("resume: push of ** from the earliest")
def _push(target: Target) -> object:
    with closing(Http2(target.daemon.https)) as client:
        client.h2.update_settings({SettingCodes.ENABLE_PUSH: 1, SettingCodes.MAX_CONCURRENT_STREAMS: 1000})
        client.request("/push?channel=**&since=earliest")
        client.read(5)
        return len(client.ended)


@case("history: the largest page, and many of them")
def _histories(target: Target) -> object:
    one = get("/channels/t%2Flarge/events?limit=1000", close=False)
    return len(target.http(one * 20 + get("/healthz"), seconds=30))


@case("list: all channels, a page, the last page, a prefix")
def _lists(target: Target) -> object:
    targets = (
        "/channels?limit=1000",
        "/channels?after=z",
        "/channels?prefix=c/9&limit=1000",
        "/channels?prefix=zz",
    )
    return [target.http(get(one))[:15] for one in targets]


@case("list: 100 reads of a pattern without a literal prefix")
def _no_prefix(target: Target) -> object:
    return len(target.http(get("/poll?channel=**/77&since=earliest", close=False) * 100, seconds=20))


@case("publish: second events to many channels, and events to new ones")
def _second_events(target: Target) -> object:
    for first in range(0, 60_000, 1000):
        prefix, numbers = "c" if first < 30_000 else "new", range(first, first + 1000)
        data = b"".join(line(channel=f"{prefix}/{number}", data="x") for number in numbers)
        target.http(post("/publish", data))
    return 60_000


@case("delete: a channel with everything that it keeps")
def _delete(target: Target) -> object:
    return target.http(get("/channels/t%2Fbatch", "DELETE"))[:15]


# Subscribers


def _subscribers(target: Target, stack: ExitStack, url: str, count: int = SUBSCRIBERS) -> list[object]:
    connections = []
    for number in range(count):
        connection = stack.enter_context(closing(connect(target.daemon.http)))
        connection.sendall(
            upgrade(url) if url.startswith("/ws") and number % 2 else get(url.replace("/ws", "/sse"), close=False)
        )
        connections.append(connection)
    for connection in connections:
        connection.recv(4096)
    return list(connections)


@case("subscribers: thousands connect, get an event each, and go at once")
def _audience(target: Target) -> object:
    with ExitStack() as stack:
        _subscribers(target, stack, "/ws?channel=audience")
        for _ in range(5):
            target.http(post("/channels/audience", b"hello" * 20))
            sleep(0.3)
    return SUBSCRIBERS


@case("subscribers: thousands of a pattern, listed, present and closed by an operator")
def _operator(target: Target) -> object:
    with ExitStack() as stack:
        _subscribers(target, stack, "/ws?channel=crowd/*")
        target.http(post("/channels/crowd%2F1", b"hello"))
        targets = (
            "/channels/crowd%2F1/presence",
            "/connections?limit=1000",
            "/connections?channel=crowd/1&limit=1000",
        )
        answers = [target.http(get(one))[:15] for one in targets]
        return answers, target.http(get("/connections?channel=crowd/1", "DELETE"))[-20:]


@case("subscribers: thousands of a channel that is deleted")
def _deleted(target: Target) -> object:
    with ExitStack() as stack:
        _subscribers(target, stack, "/ws?channel=doomed")
        target.http(post("/channels/doomed", b"hello"))
        return target.http(get("/channels/doomed", "DELETE"))[:15]


@case("subscribers: thousands of a channel with joins and leaves as events")
def _joins(target: Target) -> object:
    with ExitStack() as stack:
        _subscribers(target, stack, "/ws?channel=joins/1", 300)
    return 300


@case("subscribers: thousands that do not read")
def _not_reading(target: Target) -> object:
    with ExitStack() as stack:
        _subscribers(target, stack, "/ws?channel=stuck", 1000)
        for _ in range(8):
            target.http(post("/channels/stuck", b"x" * MIB))
    return 1000


# Publishing to many, by many


@case("subscribers: 2,000 patterns that all fit the longest name")
def _many_patterns(target: Target) -> object:
    random = Random(1)
    with ExitStack() as stack:
        for _ in range(20):
            patterns = []
            for _ in range(100):
                tokens = [random.choice("a*") for _ in range(random.choice([10, 25, 40]))]
                for _ in range(4):
                    tokens.insert(random.randrange(len(tokens)), "**")
                patterns.append("/".join(["z", *tokens]))
            connection = stack.enter_context(closing(connect(target.daemon.http)))
            for first in range(0, 100, 20):  # heads have a bound
                query = "&".join(f"channel={pattern}" for pattern in patterns[first : first + 20])
                if first:
                    connection = stack.enter_context(closing(connect(target.daemon.http)))
                connection.sendall(get(f"/sse?{query}", close=False))
                connection.recv(4096)
        names = ("z" + "%2Fa" * 120, "z" + "%2Fa%2Fb" * 60, "z%2Fa")
        return [target.http(post(f"/channels/{name}", b"hello"))[:20] for name in names]


@case("subscribers: 200 slow readers of 900,000 bytes")
def _slow_readers(target: Target) -> object:
    with ExitStack() as stack:
        connections: Any = _subscribers(target, stack, "/sse?channel=t/slow", 200)
        for _ in range(10):
            target.http(post("/channels/t%2Fslow", b"x" * 900_000))
            for connection in connections:
                connection.setblocking(False)
                with suppress(OSError):
                    connection.recv(20_000)
    return 200


@case("batch: 400,000 good and bad lines in turns")
def _good_and_bad(target: Target) -> object:
    pair = b'{"channel":"t/mixed","data":"x"}\n[\n'
    return target.http(post("/publish", pair * 200_000))[-40:]


@case("batch: twenty at once, to new channels")
def _batches(target: Target) -> object:
    bodies = [
        b"".join(line(channel=f"at-once/{client}/{number}", data="x") for number in range(2000))
        for client in range(20)
    ]
    with ThreadPoolExecutor(20) as pool:
        return [one[-20:] for one in pool.map(target.http, [post("/publish", body) for body in bodies])][-1]


@case("batch: 2,000 lines to 200 subscribers of a pattern")
def _to_patterns(target: Target) -> object:
    with ExitStack() as stack:
        _subscribers(target, stack, "/ws?channel=fan/*", 200)
        body = b"".join(line(channel=f"fan/{number % 10}", data="x") for number in range(2000))
        return target.http(post("/publish", body))[-40:]


@case("publish: 1,000,000 bytes to 100 channels")
def _large_to_many(target: Target) -> object:
    query = "&".join(f"channel=large/{number}" for number in range(100))
    return target.http(post(f"/publish?{query}", b"x" * 1_000_000))[-150:]


@case("publish: 300 connections at once, each an event to 100 new channels")
def _many_to_many(target: Target) -> object:
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(connect(target.daemon.http))) for _ in range(300)]
        for number, connection in enumerate(connections):
            query = "&".join(f"channel=many/{number}/{one}" for one in range(100))
            connection.sendall(post(f"/publish?{query}", b"x"))
        return [connection.recv(4096)[:15] for connection in connections][-1]


@case("publish: 100 streams of HTTP/2 at once, each a batch")
def _batches_over_http2(target: Target) -> object:
    body = b"".join(line(channel=f"h2/{number}", data="x") for number in range(500))
    with closing(Http2(target.daemon.https)) as client:
        for _ in range(100):
            client.request("/publish", "POST", body=body)
        client.read(30, lambda: len(client.ended) >= 100)
        return len(client.ended)


@case("expiry: 50,000 channels expire at once, with an id for every event")
def _expiry(target: Target) -> object:
    body = b"".join(line(channel=f"brief/{number}", data="x", id=f"id-{number}") for number in range(50_000))
    target.http(post("/publish", body))
    sleep(12)
    return target.http(get("/channels?prefix=brief/&limit=1"))[:15]


# WebSocket


@case("ws: the largest message, and one too large")
def _large_message(target: Target) -> object:
    legal = line(type="publish", channel="t/ws", data="\x01" * (MIB // 8), ref=1)
    return [
        websocket(target.daemon.http, "/ws", frame(data), answers=1)[-80:]
        for data in (legal, b"x" * 8 * MIB, b"[" * (MIB - 1), b'{"type":' + b"1" * (MIB - 20) + b"}")
    ]


@case("ws: 100,000 small commands")
def _commands(target: Target) -> object:
    command = frame(line(type="subscribe", channel="c/1", ref=1)) + frame(
        line(type="unsubscribe", channel="c/1", ref=1)
    )
    return websocket(target.daemon.http, "/ws", command * 50_000, seconds=15)[-80:]


@case("ws: 100 patterns, each from the earliest")
def _subscribe_patterns(target: Target) -> object:
    commands = b"".join(
        frame(line(type="subscribe", channel=f"**/{number}/**", since="earliest")) for number in range(100)
    )
    return websocket(target.daemon.http, "/ws", commands, answers=100)[-80:]


@case("ws: 20 times two patterns from the earliest, one of them given up and asked for again")
def _unsubscribing(target: Target) -> object:
    commands = b"".join(
        frame(
            line(type=kind, channel=channel, since="earliest")
            if kind == "subscribe"
            else line(type=kind, channel=channel)
        )
        for kind, channel in (
            ("subscribe", "c/*"),
            ("subscribe", "**"),
            *(("unsubscribe", "c/*"), ("subscribe", "c/*"), ("unsubscribe", "**"), ("subscribe", "**")) * 10,
        )
    )
    with closing(connect(target.daemon.http)) as connection:
        connection.sendall(upgrade("/ws") + commands)
        sleep(10)  # it reads nothing: the replays stay as long as they are
        done = b'"subscribed","channel":"**"'
        return pump(connection, b"", seconds=30, until=lambda got: got.count(done) > 10)[-80:]


@case("ws: two patterns from the earliest, and then none, four at once")
def _leaving(target: Target) -> object:
    commands = b"".join(frame(line(type="unsubscribe", channel=channel)) for channel in ("c/1*", "**", "c/**"))
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(connect(target.daemon.http))) for _ in range(4)]
        for connection in connections:
            connection.sendall(upgrade("/ws?channel=c/1*&channel=**&channel=c/**&since=earliest") + commands)
        ends = [pump(one, b"", seconds=20, until=lambda got: b'd","channel":"c/**"' in got) for one in connections]
        return [one[-40:] for one in ends]


@case("ws: who falls behind while it is replayed to and thousands of events are published")
def _behind(target: Target) -> object:
    with closing(connect(target.daemon.http)) as connection:
        connection.sendall(upgrade("/ws?channel=**&since=earliest"))
        for number in range(4):
            data = b"".join(line(channel=f"c/{10 * place + number}", data="x") for place in range(3000))
            target.http(post("/publish", data))
        return pump(connection, b"", seconds=5)[-60:]


@case("ws: 50,000 publishes")
def _publishes(target: Target) -> object:
    return websocket(
        target.daemon.http, "/ws", frame(line(type="publish", channel="t/ws", data="x", ref=1)) * 50_000
    )[-80:]


@case("ws: 200,000 commands that are none, pings, and frames of a byte")
def _noise(target: Target) -> object:
    pieces = frame(b"{", is_final=False) + frame(b"x", 0, is_final=False) * 200_000
    return [
        websocket(target.daemon.http, "/ws", frames, seconds=8)[-60:]
        for frames in (frame(b"{") * 200_000, frame(b"x" * 125, 9) * 100_000, pieces)
    ]


@case("ws raw: 50,000 messages")
def _raw(target: Target) -> object:
    return len(websocket(target.daemon.http, "/ws?channel=t/raw&format=raw", frame(b"x") * 50_000, seconds=8))


# Connections and heads


@case("http/1.1: heads as large as they go, and larger")
def _heads(target: Target) -> object:
    many = "".join(f"X-{number}: y\r\n" for number in range(3000))
    return [
        target.http(get("/healthz", fields=fields))[:15]
        for fields in (many, f"X: {'y' * 15000}\r\n", f"X: {'y' * MIB}\r\n")
    ]


@case("http/1.1: a head of 16 KiB, byte by byte, in 200 connections")
def _slow_heads(target: Target) -> object:
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(connect(target.daemon.http))) for _ in range(200)]
        for byte in get("/healthz", fields=f"X: {'y' * 300}\r\n")[:300]:
            for connection in connections:
                with suppress(OSError):
                    connection.send(bytes([byte]))
    return 200


@case("http/1.1: 20,000 pipelined requests that are refused")
def _refused(target: Target) -> object:
    return target.http(get("/nowhere", close=False) * 20_000 + get("/healthz"), seconds=30)[-40:]


@case("http/1.1: queries with as many parameters as go")
def _queries(target: Target) -> object:
    query = "&".join(f"channel=a{number}" for number in range(1500))
    return target.http(get(f"/sse?{query}"), seconds=3)[:15], target.http(get(f"/poll?{'&' * 15000}"), seconds=3)[
        :15
    ]


@case("http/2: 200 large blocks of fields")
def _blocks(target: Target) -> object:
    with closing(Http2(target.daemon.https)) as client:
        fields = [(f"x-{number}", "y") for number in range(1500)]
        with suppress(Exception):
            for _ in range(200):
                client.request("/healthz", fields=fields)
                client.read(0.01)
        return len(client.statuses)


@case("http/2: thousands of settings, pings, priorities and resets")
def _frames(target: Target) -> object:
    floods = (
        b"\0\0\0\x04\0\0\0\0\0",
        b"\0\0\x08\x06\0\0\0\0\0" + b"x" * 8,
        b"\0\0\x05\x02\0\0\0\0\x01" + struct.pack("!LB", 3, 1),
        b"\0\0\x04\x08\0\0\0\0\0" + struct.pack("!L", 1),
        b"\0\0\x04\x03\0\0\0\0\x01" + struct.pack("!L", 8),
    )
    ends = []
    for flood in floods:
        with closing(Http2(target.daemon.https)) as client:
            ends.append(len(pump(client.socket, flood * 20_000, seconds=5)))
    return ends


@case("http/2: publishes of 1 MiB over 100 streams")
def _h2_publishes(target: Target) -> object:
    with closing(Http2(target.daemon.https)) as client:
        for _ in range(30):
            client.request("/channels/t%2Fh2", "POST", body=b"x" * MIB)
        client.read(20, lambda: len(client.ended) >= 30)
        return len(client.ended)


@case("http/2: answers that are not read")
def _unread(target: Target) -> object:
    with closing(Http2(target.daemon.https, window=1)) as client:
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        for _ in range(100):
            client.request("/channels/t%2Flarge/events?limit=1000")
        client.read(3)
        return len(client.statuses)


@case("http/2: polls and pushes of 20 connections with a window of 0")
def _no_window(target: Target) -> object:
    for _ in range(10):
        target.http(post("/channels/t%2Fnowindow", b"x" * 900_000))
    with ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(closing(Http2(target.daemon.https, window=1)))
            client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0, SettingCodes.ENABLE_PUSH: 1})
            for number in range(30):
                kind = "push" if number % 2 else "poll"
                client.request(f"/{kind}?channel=t/nowindow&since=earliest")
            client.read(0.2)
    return 600


@case("tls: 100 handshakes at once, and noise instead of one")
def _handshakes(target: Target) -> object:
    def one(number: int) -> None:
        with suppress(OSError, ssl.SSLError):
            connect(target.daemon.https).close()

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(one, range(100)))
    noise = target.daemon.https.replace("https", "http")
    return len(exchange(noise, os.urandom(MIB), seconds=3))


@case("connections: 2,000 come and go")
def _churn(target: Target) -> object:
    for _ in range(2000):
        connect(target.daemon.http).close()
    return 2000


@case("hooks: 1,500 subscribers at an application that never answers")
def _no_answer(target: Target) -> object:
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(connect(target.guarded.http))) for _ in range(1500)]
        with all_at_once(target.guarded):
            for connection in connections:
                connection.sendall(get("/sse?channel=public/x", close=False))
        return Counter(connection.recv(4096)[9:12] for connection in connections)


# Many at once: the daemon is stopped while they send, so that all of it is there in one turn


def _at_once(target: Target, *texts: bytes, count: int = 5000, url: str | None = None) -> object:
    """Connect `count` clients at once, then send each of `texts` at once, then disconnect all at once."""
    heard = 0
    with Crowd(url or target.daemon.http) as group:
        with all_at_once(target.daemon):
            group.come(min(count, 4000))
        group.come(count - len(group.clients))
        for text in texts:
            group.until_let_in(target.daemon)
            with all_at_once(target.daemon):
                group.say(text)
            heard = sum(map(len, group.hear(bool)))
        with all_at_once(target.daemon):
            group.leave()
        group.until_let_in(target.daemon, 0)
    return heard


@case("many at once: 5,000 connections send one GET each, and leave")
def _many_gets(target: Target) -> object:
    return _at_once(target, get("/healthz", close=False), get("/channels?limit=10", close=False))


@case("many at once: 5,000 connections publish one event each, and leave")
def _many_posts(target: Target) -> object:
    return _at_once(
        target, post("/channels/t", b"hello", close=False), post("/channels/joins%2F1", b"x", close=False)
    )


@case("many at once: 3,000 connections poll, and get the event that one publishes")
def _many_polls(target: Target) -> object:
    with Crowd(target.daemon.http) as group:
        group.come(3000)
        group.until_let_in(target.daemon)
        with all_at_once(target.daemon):
            group.say(get("/poll?channel=t/polled", close=False))
        sleep(1)
        answer = target.http(post("/channels/t%2Fpolled", b"hello"))
        return answer[-40:], sum(map(len, group.hear(bool)))


@case("many at once: 3,000 event streams and WebSockets, a command of each, and leave")
def _many_streams(target: Target) -> object:
    command = frame(line(type="publish", channel="t/ws", data="x", ref=1))
    return (
        _at_once(target, get("/sse?channel=t/many", close=False), count=3000),
        _at_once(target, upgrade("/ws?channel=t/many"), command, count=3000),
    )


@case("many at once: 3,000 connections send garbage, a large head or half of a request")
def _many_bad(target: Target) -> object:
    with Crowd(target.daemon.http) as group:
        group.come(3000)
        group.until_let_in(target.daemon)
        with all_at_once(target.daemon):
            group.say(b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 3000, b"POST /publish HT")
        sleep(2)
    group.until_let_in(target.daemon, 0)
    return 3000


@case("many at once: 1,000 TLS clients say hello, or what is none, and leave")
def _many_handshakes(target: Target) -> object:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    hellos = [b"\x16\x03\x01\x02\x00" + os.urandom(512)]
    for _ in range(9):
        outgoing = ssl.MemoryBIO()
        with suppress(ssl.SSLWantReadError):
            context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
        hellos.append(outgoing.read())
    with Crowd(target.daemon.https) as group:
        group.come(1000)
        group.until_let_in(target.daemon)
        with all_at_once(target.daemon):
            group.say(*hellos)
        heard = sum(map(len, group.hear(bool)))
        with all_at_once(target.daemon):
            group.leave()
    group.until_let_in(target.daemon, 0)
    return heard


# Operating


@case("operate: the pages, the metrics, the demo, the file that is not there")
def _pages(target: Target) -> object:
    targets = ("/", "/status", "/metrics", "/healthz", "/readyz", "/nowhere", "/demo.js", "/%00")
    return [request(f"{target.daemon.http}{one}").status for one in targets]


@case("operate: a reload with all these channels")
def _reload(target: Target) -> object:
    before = target.daemon.log.count("reloaded")
    target.daemon.signal(signal.SIGHUP)
    for _ in range(100):
        if target.daemon.log.count("reloaded") > before:
            return "reloaded"
        sleep(0.1)
    return "not reloaded"
