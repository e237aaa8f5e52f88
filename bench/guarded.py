"""Measure the cost of access control: tokens, limits and authorization webhooks.

Usage: python -m bench.guarded [--rounds N] [--connections N] [--seconds N]

First, in this process, measure how long it takes to verify a token. Then put the load of ``python -m bench`` on
daemons that differ only in access control: none; a token; the token of a user with limits; and an authorization
webhook. The server has one core, the load client and the application the other.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from bench.cases import CASES
from bench.machine import build, certificate
from bench.measure import Bench
from bench.servers import PEERS, Server, free_port, start_pushd
from pushd.auth.tokens.authenticator import Tokens
from pushd.config.access import Key

__all__ = ["application", "judge_tokens", "servers"]

_SECRET = secrets.token_urlsafe(48)

_TOKENS = f"""\
[auth]
anonymous =
[key:bench]
algorithm = HS256
secret = {_SECRET}
"""

_LIMITS = """\
[limits]
publish_rate = 1000000
publish_burst = 1000000
connect_rate = 100000
connect_burst = 100000
connections_per_user = 100000
"""

_HOOKS = f"""\
[hooks]
secret = whsec_{b64encode(secrets.token_bytes(32)).decode()}
"""

_QUESTIONS = {"before_publish": "publishing", "before_connect": "connecting"}


def _guarded(title: str, config: str, **claimed: str) -> Server:
    """Return pushd with a token in the URL of every request."""
    claims = {**claimed, "exp": int(time.time()) + 86400, "pushd": {"publish": ["**"], "subscribe": ["**"]}}
    token = jwt.encode(claims, _SECRET, "HS256")
    plain = PEERS["pushd"]
    return Server(
        title,
        start_pushd("store = memory", config),
        {kind: f"{path}&access_token={token}" for kind, path in plain.paths.items()},
        {name: replace(way, path=f"{way.path}?access_token={token}") for name, way in plain.ways.items()},
    )


def servers(port: int) -> list[Server]:
    """Return the daemons; `port` is that of an application that allows everything."""
    url = f"http://127.0.0.1:{port}/"
    asked = {option: f"{_TOKENS}{_HOOKS}{option} = {url}\n" for option in _QUESTIONS}
    return [
        replace(PEERS["pushd"], title="anybody may do everything"),
        _guarded("a token", _TOKENS),
        _guarded("a token of a user, who is counted", _TOKENS + _LIMITS, sub="bench"),
        *(_guarded(f"a token, and asked before {_QUESTIONS[option]}", config) for option, config in asked.items()),
    ]


_CASES = {case.name: case for case in CASES}

_MEASURED = (
    ("POST, events/s", "publish-post", "publish", "events_per_s"),
    ("batch, events/s", "publish-batch", "publish", "events_per_s"),
    ("WebSocket, events/s", "publish-websocket", "publish", "events_per_s"),
    (
        "WebSocket, CPU us to connect",
        "connect-websocket",
        "connect",
        "cpu_us_per_connection",
    ),
    (
        "WebSocket, bytes idle",
        "connect-websocket",
        "connect",
        "bytes_per_connection",
    ),
    ("SSE, bytes idle", "connect-sse", "connect", "bytes_per_connection"),
)


@contextmanager
def application() -> Iterator[int]:
    """Run an application that allows everything; yield its port."""
    port = free_port()
    node = ["node", str(Path(__file__).parent / "peers" / "yes.mjs"), str(port)]
    with subprocess.Popen(node) as process:
        try:
            time.sleep(1)
            yield port
        finally:
            process.terminate()


def _loads(rounds: int, connections: int, seconds: float) -> None:
    """Put the load on each daemon in turn; print the medians."""
    with tempfile.TemporaryDirectory(prefix="bench-guarded-") as folder:
        built = Path(folder)
        build(built)
        bench = Bench(built, *certificate(built))
        with application() as port:
            measured = servers(port)
            results = [_round(bench, measured, connections, seconds) for _ in range(rounds)]
    for at, (column, *_) in enumerate(_MEASURED):
        print(column)
        for number, server in enumerate(measured):
            print(f"    {server.title:45} {statistics.median(one[number][at] for one in results):12,.1f}")


def _round(bench: Bench, measured: list[Server], connections: int, seconds: float) -> list[list[float]]:
    made: dict[tuple[int, str], Mapping[str, Any]] = {}
    for name in dict.fromkeys(name for _, name, _, _ in _MEASURED):
        case = replace(_CASES[name], seconds=seconds)
        if case.mode == "connect":
            case = replace(case, subscribers=connections, connecting=20)
        for number, server in enumerate(measured):
            result = bench.measure_server(case, server)
            if "error" in result:
                sys.exit(f"{name}, {server.title}: {result['error']}")
            made[number, name] = result
    return [[made[n, name][part][figure] for _, name, part, figure in _MEASURED] for n in range(len(measured))]


def _keys() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return, by algorithm, a signing key and the settings of the key that verifies its signatures."""
    found: dict[str, tuple[Any, dict[str, Any]]] = {"HS256": (_SECRET, {"secret": _SECRET})}
    pairs: dict[str, Any] = {
        "RS256": rsa.generate_private_key(65537, 2048),
        "PS256": rsa.generate_private_key(65537, 2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "ES384": ec.generate_private_key(ec.SECP384R1()),
        "ES512": ec.generate_private_key(ec.SECP521R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    for algorithm, private in pairs.items():
        pem = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        found[algorithm] = (private, {"pem": pem})
    return found


def judge_tokens() -> None:
    """Verify tokens of each algorithm, new ones and a repeated one; print the shortest times."""
    count = 300
    now = time.time()
    print("us to judge a token                     the first time        again")
    with tempfile.TemporaryDirectory(prefix="bench-guarded-") as folder:
        for algorithm, (signing, checked) in _keys().items():
            if pem := checked.pop("pem", None):
                path = Path(folder, f"{algorithm}.pem")
                path.write_bytes(pem)
                checked["public_key_file"] = str(path)
            keys = [Key(algorithm, algorithm, **checked)]
            tokens = Tokens(keys, leeway_s=0, now=time.time, seconds=Clock().seconds, fetch=_never)
            claims = {"exp": int(now) + 86400, "pushd": {"publish": ["a/**"], "subscribe": ["b/*", "c"]}}
            first = [jwt.encode({"sub": f"user-{n}", **claims}, signing, algorithm) for n in range(count)]
            took = [_time_of(tokens, token) for token in first]
            again = [_time_of(tokens, first[-1]) for _ in range(count)]
            print(f"    {algorithm:37} {min(took) * 1e6:12.1f} {min(again) * 1e6:12.1f}")


def _time_of(tokens: Tokens, token: str) -> float:
    before = time.perf_counter()
    tokens.identify(token)
    return time.perf_counter() - before


def _never(url: str) -> Deferred[bytes]:
    raise AssertionError(url)


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description="Measure what it costs to guard.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    judge_tokens()
    _loads(options.rounds, options.connections, options.seconds)


if __name__ == "__main__":
    main()
