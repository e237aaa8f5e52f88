"""A daemon with all that guards it, the application that it asks and tells, and the issuer of some of its keys."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPException
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.e2e.daemon import Answer, Daemon, request, running, tcp
from tests.e2e.hook_server import HookServer, hook_server
from tests.e2e.test_jwks import LOCALHOST
from tests.e2e.test_jwks import Authority as ServerAuthority
from tests.rigs.certificates import Authority
from tests.rigs.tokens import base64url, jwk_of, private_key, public_pem

__all__ = ["HOOKS_SECRET", "PROXY", "Intruder", "World", "serving_files", "world"]

PROXY = "127.0.0.9"
"""The address that is believed about where clients are."""

APP_SECRET = "the-secret-of-app-0123456789-abcdefghij"
HOOKS_SECRET = "whsec_dGhlIHNlY3JldCBvZiBhbGwgaG9va3MsIDMyIGJ5dGU="
AUDIENCE = "https://push.example.com"
KEYS = {
    "app": ("HS256", APP_SECRET.encode(), {}),
    "login": ("ES256", private_key("ES256", 0), {"iss": "https://login.example.com", "aud": AUDIENCE}),
    "id": ("RS256", private_key("RS256", 1), {"iss": "https://id.example.com"}),
}
"""What each key signs with: the algorithm, the key, and the claims that it must have."""

_ALMIGHTY = b'{"pushd":{"publish":["**"],"subscribe":["**"],"operator":true}}'
_HS256 = b'{"alg":"HS256"}'
_NONE = b'{"alg":"none"}'

LISTENERS = (
    tcp("plain")
    + tcp("tls", tls=True)
    + tcp("machines", tls=True)
    + "client_ca = {directory}/machines.pem\n"
    + tcp("proxied")
    + "proxy_protocol = yes\n"
)
CONFIG = """
[auth]
anonymous =
anonymous_subscribe = public/**
certified =
certified_publish = machines/**
certified_subscribe = machines/**
cookie = session
origins = https://www.example.com
leeway = 0s
[key:app]
algorithm = HS256
secret_file = {directory}/app.secret
[key:login]
algorithm = ES256
public_key_file = {directory}/login.pub
issuer = https://login.example.com
audience = https://push.example.com
[key:id]
algorithm = RS256
jwks_url = %(issuer)s/keys.json
issuer = https://id.example.com
[proxies]
trusted = 127.0.0.9
[channels:room/**]
presence = events
[limits]
event_size = 64KiB
outbox = 256KiB
connections = 120
connections_per_address = 5
connections_per_user = 4
connect_rate = 5
connect_burst = 10
publish_rate = 10
publish_burst = 20
[log]
level = debug
requests = yes
"""
HOOKS = """
[hooks]
before_connect = %(application)s/ask
before_subscribe = %(application)s/ask-subscribe
before_publish = %(application)s/ask-publish
after = %(application)s/told
secret_file = {directory}/hooks.secret
timeout = 1s
breaker_failures = 3
breaker_pause = 1s
"""


class World:
    """Everything, and what has been used of it that nobody else may learn."""

    def __init__(self, daemon: Daemon, application: HookServer, machines: Authority) -> None:
        self.daemon = daemon
        self.application = application
        self.machines = machines
        self.secrets: list[str] = [APP_SECRET, HOOKS_SECRET, HOOKS_SECRET.removeprefix("whsec_")]
        """What must not be in the log."""
        self.details: list[str] = []
        """Why somebody was refused something, as they were told."""
        self.reasons: set[str] = set()
        """Why WebSockets were closed, as they were told."""
        self.intruder = Intruder(self)
        """Who tries to get in all the time."""

    def token(self, user: str | None = None, key: str = "app", lasts_s: float = 300, **rights: Any) -> str:
        """Make a token, signed with the key `key`."""
        algorithm, private, claims = KEYS[key]
        members = {**claims, "exp": time.time() + lasts_s, "pushd": rights}
        if user is not None:
            members["sub"] = user
        headers = {"kid": "first"} if key == "id" else None
        return self.used(jwt.encode(members, private, algorithm, headers))

    def used(self, secret: str) -> str:
        """Remember a token."""
        self.secrets.append(secret)
        return secret

    def backend(self) -> str:
        """Make a token with which everything may be done."""
        return self.token("backend", publish=["**"], subscribe=["**"], operator=True)

    def ask(
        self, path: str, token: str | None = None, method: str = "GET", body: bytes | None = None, **fields: str
    ) -> Answer:
        """Make a request; a refusal is remembered."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        answer = request(self.daemon.http + path, method, body, headers)
        if answer.status >= 400 and answer.headers["content-type"] == "application/x-ndjson":
            self.details += [json.loads(line)["error"]["detail"] for line in answer.body.splitlines()]
        elif answer.status >= 400:
            assert answer.headers["content-type"] == "application/problem+json", answer
            self.details.append(answer.json()["detail"])
        return answer

    def publish(self, channel: str, data: str, token: str) -> Answer:
        """Publish an event."""
        return self.ask(f"/channels/{channel.replace('/', '%2F')}", token, "POST", data.encode())

    def websocket(self, query: str, token: str | None, **more: Any) -> ClientConnection:
        """Open a WebSocket, with the token in the query."""
        shown = "" if token is None else f"&access_token={token}"
        opened: ClientConnection = connect(f"{self.daemon.ws}?{query}{shown}", proxy=None, **more)
        return opened

    def refused(self, query: str, token: str | None, **more: Any) -> tuple[int, str]:
        """Try to open one; answer the status and the reason of its refusal."""
        try:
            with self.websocket(query, token, **more):
                raise AssertionError("it was not refused")
        except InvalidStatus as error:
            detail: str = json.loads(error.response.body)["detail"]
            self.details.append(detail)
            return error.response.status_code, detail

    def http2(self, token: str) -> httpx.Client:
        """Make a client that speaks HTTP/2."""
        client = httpx.Client(
            http1=False,
            http2=True,
            verify=False,
            trust_env=False,
            timeout=15,
            base_url=self.daemon.https,
            headers={"Authorization": f"Bearer {token}"},
        )
        client.headers["user-agent"] = "a test"
        return client

    def connections(self, **filters: str) -> list[dict[str, Any]]:
        """Return who is connected."""
        answer = self.ask(f"/connections?{httpx.QueryParams(filters)}", self.backend())
        found: list[dict[str, Any]] = answer.json()["connections"]
        return found

    def told(self, connection: str) -> list[str]:
        """Return what the application was told of one connection."""
        return [event["event"] for event in self.application.told if event.get("connection") == connection]


class Intruder:
    """Tries to read and write all the time, without the right to, in each way that there is."""

    MARK = "INTRUDER"
    """What everything that it writes has in it."""

    def __init__(self, world: World) -> None:
        valid = world.backend()
        forged = world.used(jwt.encode({"sub": "backend", "pushd": {"operator": True}}, "x" * 40, "HS256"))
        unsigned = f"{base64url(_NONE)}.{base64url(_ALMIGHTY)}."
        by_public_key = self._by_public_key()
        powerless = world.token("powerless", publish=["public/**"], subscribe=["public/**"])
        stolen = {"Cookie": f"session={valid}"}
        self._shown: list[Mapping[str, str]] = [
            {},
            *({"Authorization": f"Bearer {one}"} for one in (forged, unsigned, by_public_key, powerless)),
            {**stolen, "Origin": "https://evil.example"},
            {**stolen, "Origin": "null"},
            {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=unix"},
        ]
        self._world = world
        self.rounds = 0
        """How often it has tried everything."""
        self.successes: list[str] = []
        """What it was not refused."""
        self._stop = Event()
        self._thread = Thread(target=self._try_all, daemon=True)
        self._thread.start()

    @staticmethod
    def _by_public_key() -> str:
        """Make a token whose secret is a public key."""
        body = f"{base64url(_HS256)}.{base64url(_ALMIGHTY)}"
        signature = jwt.PyJWS().get_algorithm_by_name("HS256").sign(body.encode(), public_pem(KEYS["login"][1]))
        return f"{body}.{base64url(signature)}"

    def _try_all(self) -> None:
        upgrade = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }
        line = b'{"channel":"room/1","data":"INTRUDER"}\n'
        tries: list[tuple[str, str, bytes | None, Mapping[str, str]]] = [
            ("GET", "/sse?channel=room%2F1", None, {}),
            ("GET", "/stream?channel=**", None, {}),
            ("GET", "/poll?channel=room%2F1&since=earliest", None, {}),
            ("GET", "/ws?channel=room%2F1", None, upgrade),
            ("GET", "/ws?channel=public%2Fa&channel=*%2F*&format=json", None, upgrade),
            ("GET", "/channels/room%2F1", None, {}),
            ("GET", "/channels/room%2F1/events?since=earliest", None, {}),
            ("GET", "/channels/room%2F1/presence", None, {}),
            ("GET", "/connections", None, {}),
            ("DELETE", "/connections?user=ann", None, {}),
            ("DELETE", "/channels/room%2F1", None, {}),
            ("POST", "/channels/room%2F1", self.MARK.encode(), {}),
            ("POST", "/publish", line, {}),
        ]
        while not self._stop.is_set():
            for method, path, body, fields in tries:
                for shown in self._shown:
                    if self._stop.wait(0.02):
                        return
                    with suppress(OSError, HTTPException):  # when there are too many, or the daemon stops
                        self._try(method, path, body, {**fields, **shown})
            self.rounds += 1

    def _try(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> None:
        netloc = urlsplit(self._world.daemon.http).netloc
        with closing(HTTPConnection(netloc, timeout=15)) as connection:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            if path == "/publish" and response.status in (200, 207):  # which answers each line
                if b'"status":40' not in (said := response.read()):
                    self.successes.append(f"{method} {path} {headers}: {said!r}")
            elif response.status not in (401, 403, 429, 503):
                self.successes.append(f"{method} {path} {headers}: {response.status}")

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join(20)


@contextmanager
def serving_files(directory: Path, tls: ServerAuthority | None = None) -> Iterator[str]:
    """Serve a directory, over TLS if an authority is given; answer the URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            """Override: nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory)))
    server.daemon_threads = True
    if tls is not None:
        context = tls.context(*LOCALHOST)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"{'http' if tls is None else 'https'}://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def world(directory: Path, hooks: str = "") -> Iterator[World]:
    """Have all of it as long as the context lasts; `hooks` is more of that section."""
    tls, machines = ServerAuthority(directory), Authority("Machines")
    (directory / "www").mkdir()
    keys = [jwk_of("RS256", 1, kid="first"), jwk_of("RS256", 2, kid="second")]
    (directory / "www" / "keys.json").write_text(json.dumps({"keys": keys}))
    with ExitStack() as stack:
        issuer = stack.enter_context(serving_files(directory / "www", tls))
        pem = str(directory / "server.pem")
        application = stack.enter_context(hook_server(HOOKS_SECRET, certificate=(pem, pem), host="127.0.0.1"))
        config = (CONFIG + HOOKS + hooks) % {"issuer": issuer, "application": application.url}
        variables = {"SSL_CERT_FILE": str(tls.path)}
        daemon = stack.enter_context(running(config, listeners=LISTENERS, variables=variables, starts=False))
        machines.write(daemon.directory, "machines")
        (daemon.directory / "app.secret").write_text(f"{APP_SECRET}\n")
        (daemon.directory / "hooks.secret").write_text(f"{HOOKS_SECRET}\n")
        (daemon.directory / "login.pub").write_bytes(public_pem(KEYS["login"][1]))
        daemon.start()
        made = World(daemon, application, machines)
        stack.callback(made.intruder.stop)
        yield made
