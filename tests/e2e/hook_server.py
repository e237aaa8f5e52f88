"""An application with hooks, in a process of its own, which does as it is told. It knows nothing of pushd's code.

It checks every signature by the package ``standardwebhooks``, records what comes, and decides by rules. A rule is
an object; the first one whose ``when`` fits a request decides it, and what no rule fits gets ``{}``:

``when``
    Members that the body must have; a text may have stars as a file name has them, and fits a list if it fits one
    of its items. ``path`` is the path of the request, and ``{}`` fits everything.
``times``
    How often the rule fits; if it does not say, always.
``status``, ``answer``, ``headers``
    What is sent back: 200, ``{}`` and none unless it says something else. ``body`` is text instead of JSON.
``delay_s``
    How long it takes first.
``fault``
    ``hang``: nothing comes back. ``close``: the connection is closed. ``midway``: so it is in the middle of a body.
    ``flood``: the body never ends. ``drip``: neither does it, slowly. ``rubbish``: it is not HTTP.

At the control port, ``PUT /rules`` takes a list of rules, ``GET /requests`` answers what came, ``DELETE /requests``
forgets it, ``POST /down`` closes the port of the application with all its connections, and ``POST /up`` opens it
again.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from fnmatch import fnmatchcase
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

from tests.e2e.programs import talking_to

__all__ = ["HookServer", "hook_server"]

_REPOSITORY = Path(__file__).resolve().parents[2]
_LONGEST_S = 60


# ---- the process


class _Application:
    """What the application knows."""

    def __init__(self, secret: str, rules: list[dict[str, Any]]) -> None:
        self.webhook = Webhook(secret)
        self.rules = rules
        self.requests: list[dict[str, Any]] = []
        self.lock = Lock()

    def rule_for(self, path: str, body: Any) -> dict[str, Any]:
        """Return the rule that decides a request."""
        members = {**body, "path": path} if isinstance(body, dict) else {"path": path}
        with self.lock:
            for rule in self.rules:
                wanted = rule.get("when", {})
                if rule.get("times") == 0 or not all(_fits(members.get(name), wanted[name]) for name in wanted):
                    continue
                if "times" in rule:
                    rule["times"] -= 1
                return rule
        return {}

    def record(self, request: dict[str, Any]) -> None:
        """Keep a request."""
        with self.lock:
            self.requests.append(request)


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(value, list) and not isinstance(wanted, list):
        return any(_fits(item, wanted) for item in value)
    if isinstance(value, str) and isinstance(wanted, str):
        return fnmatchcase(value, wanted)
    return bool(value == wanted)


class _Server(ThreadingHTTPServer):
    """A port, which can be closed with its connections."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, host: str, port: int, handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None
    ) -> None:
        super().__init__((host, port), handler)
        self.is_closing = Event()
        self._connections: set[socket.socket] = set()
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def get_request(self) -> Any:
        """Override: keep the connection in mind."""
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Override: forget it."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Override: that a client goes away is nothing to speak of."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        """Close the port and its connections."""
        self.is_closing.set()
        self.shutdown()
        self.server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """One connection; in HTTP/1.1 it is kept for more requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: Any) -> None:
        """Override: nothing is logged."""

    def body(self) -> bytes:
        """Return the body of the request."""
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a response."""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)


def _hooks(application: _Application) -> type[_Handler]:
    class Hooks(_Handler):
        """What pushd speaks to."""

        server: _Server

        def do_POST(self) -> None:
            """Take a request, and answer it by the rules."""
            data = self.body()
            request: dict[str, Any] = {
                "path": self.path,
                "id": self.headers.get("webhook-id"),
                "timestamp": self.headers.get("webhook-timestamp"),
                "port": self.client_address[1],
                "fault": None,
                "body": None,
            }
            try:
                request["body"] = application.webhook.verify(data, dict(self.headers.items()))
            except WebhookVerificationError as error:
                request["fault"] = str(error)
            rule = application.rule_for(self.path, request["body"])
            status = 400 if request["fault"] else rule.get("status", 200)
            request["status"] = None if "fault" in rule else status
            application.record(request)
            self.server.is_closing.wait(rule.get("delay_s", 0))
            if "fault" in rule:
                self.misbehave(rule["fault"])
            else:
                body = rule["body"] if "body" in rule else json.dumps(rule.get("answer", {}))
                self.send(status, body.encode(), rule.get("headers"))

        def misbehave(self, fault: str) -> None:
            """Do what no application should."""
            self.close_connection = True
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            if fault == "hang":
                self.server.is_closing.wait(_LONGEST_S)
            elif fault == "midway":
                self.wfile.write(head + b'9\r\n{"allow":')
            elif fault == "rubbish":
                self.wfile.write(b"220 mail.example ESMTP\r\n")
            elif fault in ("flood", "drip"):
                self.wfile.write(head)
                size, pause_s = (2**16, 0.0) if fault == "flood" else (1, 0.1)
                while not self.server.is_closing.wait(pause_s):
                    self.wfile.write(b"%x\r\n%b\r\n" % (size, b" " * size))

    return Hooks


def _control(application: _Application, listener: _Listener) -> type[_Handler]:
    class Control(_Handler):
        """What tests speak to."""

        def do_PUT(self) -> None:
            """Take rules."""
            rules = json.loads(self.body())
            with application.lock:
                application.rules = rules
            self.send(204, b"")

        def do_GET(self) -> None:
            """Return what came."""
            with application.lock:
                body = json.dumps(application.requests)
            self.send(200, body.encode())

        def do_DELETE(self) -> None:
            """Forget it."""
            with application.lock:
                application.requests.clear()
            self.send(204, b"")

        def do_POST(self) -> None:
            """Close or open the port of the application."""
            {"/down": listener.down, "/up": listener.up}[self.path]()
            self.send(204, b"")

    return Control


class _Listener:
    """The port of the application, which stays the same."""

    def __init__(self, application: _Application, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self._handler = _hooks(application)
        self._context = context
        self._host = host
        self.port = port
        self._server: _Server | None = None
        self.up()

    def up(self) -> None:
        """Listen."""
        if self._server is None:
            self._server = _Server(self._host, self.port, self._handler, self._context)
            self.port = self._server.server_address[1]

    def down(self) -> None:
        """Close the port with its connections."""
        if self._server is not None:
            self._server.close()
            self._server = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Say on one line, in JSON, where the application and its control are; end with the standard input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--secret", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--rules", type=json.loads, default=[])
    options = parser.parse_args(arguments)
    context = None
    if options.certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate, options.key)
    application = _Application(options.secret, options.rules)
    listener = _Listener(application, options.host, options.port, context)
    control = _Server("127.0.0.1", 0, _control(application, listener), None)
    scheme = "http" if context is None else "https"
    where = {
        "url": f"{scheme}://{options.host}:{listener.port}",
        "control": f"127.0.0.1:{control.server_address[1]}",
    }
    print(json.dumps(where), flush=True)
    with suppress(KeyboardInterrupt):
        sys.stdin.read()


# ---- what tests have of it


class HookServer:
    """An application that runs."""

    def __init__(self, url: str, control: str) -> None:
        self.url = url
        """Where it is, without a path."""
        self._control = control

    def _ask(self, method: str, path: str, body: object = None) -> bytes:
        with closing(HTTPConnection(self._control, timeout=15)) as connection:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            data = response.read()
            assert response.status in (200, 204), (response.status, data)
            return data

    def rules(self, *rules: dict[str, Any]) -> None:
        """Decide by these rules from now on."""
        self._ask("PUT", "/rules", list(rules))

    def down(self) -> None:
        """Do not listen any more, and end all connections."""
        self._ask("POST", "/down")

    def up(self) -> None:
        """Listen again, where it did."""
        self._ask("POST", "/up")

    def forget(self) -> None:
        """Forget what came."""
        self._ask("DELETE", "/requests")

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What came: ``path``, ``id``, ``timestamp``, ``port``, ``fault``, ``body`` and ``status`` of each.

        The ``fault`` is what is wrong with the signature, or null.
        """
        found: list[dict[str, Any]] = json.loads(self._ask("GET", "/requests"))
        return found

    @property
    def questions(self) -> list[dict[str, Any]]:
        """The bodies of what it was asked."""
        return [request["body"] for request in self.requests if request["body"] and "hook" in request["body"]]

    @property
    def told(self) -> list[dict[str, Any]]:
        """The events that it was told and took, those of a request that was repeated once."""
        taken: dict[str, list[dict[str, Any]]] = {}
        for request in self.requests:
            if request["body"] and "events" in request["body"] and (request["status"] or 500) < 300:
                taken.setdefault(request["id"], request["body"]["events"])
        return [event for events in taken.values() for event in events]


@contextmanager
def hook_server(
    secret: str,
    *rules: dict[str, Any],
    certificate: tuple[str, str] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[HookServer]:
    """Run an application as long as the context lasts; with the paths of a `certificate` and its key, over TLS."""
    command = [sys.executable, "-m", "tests.e2e.hook_server", "--secret", secret, "--rules", json.dumps(rules)]
    command += ["--host", host, "--port", str(port)]
    if certificate is not None:
        command += ["--certificate", certificate[0], "--key", certificate[1]]
    with talking_to(command, directory=_REPOSITORY) as program:
        where = json.loads(program.line())
        yield HookServer(where["url"], where["control"])


if __name__ == "__main__":
    main()
