"""Every line that is logged: who can cause it, and that nobody fills the log with it.

`ROWS` has a row for each place in pushd that logs. Those that a client can cause are provoked from outside, 1,000
times within a second by one address; of the others, it is said why no client can, or that what they tell of has a
bound of its own, which the last tests check with the very text. A new place without a row fails the first test.
"""

from __future__ import annotations

import ast
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import random
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import pushd
from pushd.auth.webhooks.authorizer import WebhookAuthorizer, new_questions
from pushd.auth.webhooks.notifier import WebhookNotifier
from pushd.config.access import Proxies
from pushd.daemon.integrations import Integrations
from pushd.log.flood_limit import FloodLimit
from pushd.log.lines import json_text, plain
from pushd.log.observers import Observer
from pushd.server.net.connections import Connections
from pushd.server.net.proxy_protocol import ProxyProtocolFactory, ProxyProtocolSettings
from pushd.server.net.trusted_proxies import TrustedProxies
from pushd.server.net.writer import TLSFactory
from tests.component.server.test_client_certificates import CertifiedCase, PythonClient
from tests.component.server.test_client_certificates import Talk as TlsTalk
from tests.component.server.test_proxy_protocol import BAD, PROXY, Speakers, Wire
from tests.rigs.application import Application, answer, hooks
from tests.rigs.certificates import Authority
from tests.rigs.daemon import DaemonTests
from tests.rigs.http2_peer import HTTP2TestCase
from tests.rigs.http_client import HttpClient
from tests.rigs.outsiders import Registry
from tests.rigs.websocket_client import WebSocketClient

TIMES = 1000
STRANGER = "198.51.100.7"
URL = "https://app.example/hook"

MOST_LINES = 30
"""How many lines there may be of so many causes within one second: mostly 1, 20 of ends, some of other reasons."""

MOST_BYTES = 1500
"""How long a line may be on average; as JSON, which has the values twice, twice that."""

FAULT = "a fault of pushd, with a traceback"
STATE = "the state of the disk, the memory or the keys"
OPERATOR = "only at the start, a reload, a signal or the stop"
ASKED_FOR = "[log] requests"
PASSED_ON = "what another line says"

# Each is "file: beginning of the text"; the value is the name of a test below, or one of the reasons above.
ROWS = {
    "api/publish.py: refused {count} of {total} lines of a": "test_lines_of_batches",
    "auth/approval.py: a fault in pushd while it asked the ap": FAULT,
    "auth/approval.py: a fault in pushd while it published": FAULT,
    "auth/tokens/keyset.py: fetching the keys of [key:{key}] faile": FAULT,
    "auth/tokens/keyset.py: of the key set of [key:{key}], only th": STATE,
    "auth/tokens/keyset.py: the key set of [key:{key}] has no key": STATE,
    "auth/tokens/keyset.py: the keys of [key:{key}] cannot be fetc": STATE,
    "auth/tokens/keyset.py: the keys of [key:{key}] could be fetch": STATE,
    "auth/webhooks/authorizer.py: no answer from the hook {url}: {why}": "test_an_application_that_fails",
    "auth/webhooks/authorizer.py: the hook {url} answers again": "test_an_application_that_fails_now_and_then",
    "auth/webhooks/authorizer.py: the hook {url} failed {count} times in": "test_an_application_that_fails",
    "auth/webhooks/authorizer.py: {count} questions wait for the applica": (
        "test_an_application_that_does_not_answer"
    ),
    "auth/webhooks/notifier.py: a fault in pushd while the hook {url}": FAULT,
    "auth/webhooks/notifier.py: dropped {count} events for the hook {u": (
        "test_an_application_that_refuses_what_it_is_told"
    ),
    "auth/webhooks/notifier.py: the hook {url} could not be told: {why": "test_an_application_that_cannot_be_told",
    "auth/webhooks/notifier.py: the hook {url} is not told everything:": (
        "test_an_application_that_is_not_told_everything"
    ),
    "auth/webhooks/notifier.py: the hook {url} is told again": "test_an_application_that_cannot_be_told",
    "auth/webhooks/notifier.py: the hook {url} was not told {count} ev": OPERATOR,
    "daemon/assembly.py: a fault in pushd while {what}": FAULT,
    "daemon/assembly.py: dropped {subscriber}, which failed": FAULT,
    "daemon/memory_watch.py: memory is not short any more": STATE,
    "daemon/memory_watch.py: memory is short: less than {size} MiB": STATE,
    "daemon/reload.py: a fault in pushd after it reloaded its": FAULT,
    "daemon/reload.py: not reloaded, everything stays as it w": OPERATOR,
    "daemon/reload.py: {line}": OPERATOR,
    "daemon/reload.py: {line} #2": OPERATOR,
    "daemon/reload.py: {line} #3": OPERATOR,
    "daemon/service.py: a fault in pushd while it stopped": FAULT,
    "daemon/service.py: a fault in pushd, in what is done ever": FAULT,
    "daemon/service.py: nobody listens at the socket {name} of": OPERATOR,
    "daemon/service.py: {line}": OPERATOR,
    "daemon/service.py: {line} #2": OPERATOR,
    "daemon/service.py: {line} #3": OPERATOR,
    "daemon/shutdown.py: aborting {count} connections: {why}": OPERATOR,
    "daemon/shutdown.py: could not stop listening at {url}": OPERATOR,
    "daemon/shutdown.py: stopping; {count} connections are open": OPERATOR,
    "daemon/shutdown.py: the store did not answer for {timeout_": OPERATOR,
    "daemon/shutdown.py: the store is closed": OPERATOR,
    "daemon/systemd.py: a fault in pushd, in what is told syst": FAULT,
    "daemon/systemd.py: could not tell systemd {state}: {reaso": STATE,
    "log/observers.py: {path}: cannot be opened: {reason}": OPERATOR,
    "log/observers.py: {path}: cannot be renamed: {reason}": OPERATOR,
    "server/access_log.py: line if detail is None else line + ':": ASKED_FOR,
    "server/access_log.py: text": "test_requests_that_are_none",
    "server/access_log.py: {status} {method} {path} from {peer}:": "test_requests_that_are_refused",
    "server/http1/responses.py: closed {peer}: it read {taken} bytes o": "test_answers_that_are_not_read",
    "server/http2/connection.py: a fault in pushd, in a response to {pe": FAULT,
    "server/http2/connection.py: a fault in pushd, in an HTTP/2 connect": FAULT,
    "server/http2/connection.py: more was refused over HTTP/2 from {pee": "test_http2_streams",
    "server/http2/connection.py: refused over HTTP/2 from {peer}: {deta": "test_http2_connections",
    "server/http2/tunnel.py: a fault in pushd, in a stream of {peer": FAULT,
    "server/net/client_certificates.py: refused the certificate of {peer}{subj": "test_certificates",
    "server/net/connection_limits.py: handshake": "test_handshakes_that_take_too_long",
    "server/net/connection_limits.py: text + ', and {count} more like this'": PASSED_ON,
    "server/net/connection_limits.py: text": PASSED_ON,
    "server/net/connection_limits.py: turned away {peer}: {detail}": "test_connections_that_are_turned_away",
    "server/net/listen.py: [listen:{name}] {endpoint}: another pr": OPERATOR,
    "server/net/listen.py: [listen:{name}] {endpoint}: cannot be": OPERATOR,
    "server/net/proxy_protocol.py: refused a connection from {peer}: only": (
        "test_connections_that_do_not_come_from_a_proxy"
    ),
    "server/net/proxy_protocol.py: refused a connection from {peer}: {why": (
        "test_wrong_headers_of_the_proxy_protocol"
    ),
    "server/net/turns.py: a fault in pushd, in a later turn of a": FAULT,
    "server/request.py: a fault in pushd while it served {path": FAULT,
    "server/web/negotiation.py: a fault in pushd, in a connection with": FAULT,
    "server/web/negotiation.py: refused a TLS handshake with {peer}: i": "test_handshakes_without_a_certificate",
    "sessions/close_log.py: _END if caller.user is None else _END_": "test_ends_of_subscribers",
    "sessions/presence.py: joins and leaves are not published: {d": "test_joins_that_come_and_go",
    "sessions/presence.py: joins and leaves are published again": "test_joins_that_come_and_go",
    "sessions/registry.py: a fault in pushd while it closed {peer": FAULT,
    "sessions/session.py: a fault in pushd while it wrote to {pe": FAULT,
    "sessions/session.py: {peer} is slow and misses events: on_o": "test_slow_subscribers",
    "store/sqlite/archive.py: a block of channel {name} is damaged:": STATE,
    "store/sqlite/health.py: publishing is refused: {detail}": STATE,
    "store/sqlite/health.py: publishing works again": STATE,
    "store/sqlite/history.py: {error} #2": STATE,
    "store/sqlite/history.py: {error} #3": STATE,
    "store/sqlite/history.py: {error}": STATE,
    "store/sqlite/fetcher.py: a fault in pushd while it fetched even": FAULT,
    "store/sqlite/fetcher.py: a fault in pushd while it read the sto": FAULT,
    "store/sqlite/journal.py: a fault in pushd after it wrote to the": FAULT,
    "store/sqlite/maintenance.py: a fault in pushd while it looked after": FAULT,
    "store/sqlite/journal.py: a fault in pushd while it wrote to the": FAULT,
    "store/sqlite/maintenance.py: cannot remove what has expired: {detai": STATE,
    "store/sqlite/maintenance.py: self.text": STATE,
    "store/sqlite/store.py: made the store {path}": OPERATOR,
    "store/sqlite/store.py: the store could not be closed in order": OPERATOR,
    "store/sqlite/store.py: the store could not be sealed: {error}": STATE,
    "store/sqlite/store.py: the store could not move what was writ": STATE,
    "store/sqlite/store.py: the store could not take back a change": STATE,
    "store/sqlite/store.py: the store is not the one that was left": OPERATOR,
    "store/sqlite/submission.py: a fault in pushd while it answered a p": FAULT,
    "store/sqlite/unused.py: the store {path} is not used, and will": OPERATOR,
    "store/sqlite/unused.py: the store {path} is not used; it will": OPERATOR,
    "tap.py: {error} #2": OPERATOR,
    "tap.py: {error}": OPERATOR,
    "transports/websocket/connection.py: a fault in pushd while it served a Web": FAULT,
    "transports/websocket/fault_log.py: text": STATE,
    "transports/websocket/protocol.py: refused a message of {peer}: {detail}": "test_messages",
}

_METHODS = frozenset({"debug", "info", "warn", "error", "critical", "failure", "emit"})
_LOGGERS = frozenset({"Logger", "FaultLog", "RateLimitedLog"})
_SHOWN = 38
"""How much of a text is in `ROWS`."""


# What logs


def _name(node: ast.AST) -> str:
    """Return the last name of an expression, such as ``_log`` of ``self._log``."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_of_logger(name: str) -> bool:
    return name.lower().endswith(("log", "sparing"))


def _texts(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Return the method and the text of each call that logs, also of one that is only prepared."""
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Attribute) and node.attr in _METHODS and _is_of_logger(_name(node.value))):
            continue
        call = parents[node]
        while not isinstance(call, ast.Call):
            call = parents[call]
        arguments = [one for one in call.args if one is not node]
        text = next((one for one in arguments if isinstance(one, ast.Constant)), arguments[0])
        yield node.attr, str(text.value) if isinstance(text, ast.Constant) else ast.unparse(text)


@cache
def _trees() -> dict[str, ast.AST]:
    """Return what each file of pushd consists of."""
    root = Path(pushd.__file__).parent
    return {str(path.relative_to(root)): ast.parse(path.read_text("utf-8")) for path in sorted(root.rglob("*.py"))}


@cache
def _places() -> tuple[tuple[str, str, str], ...]:
    """Return the row, the method and the text of each place in pushd that logs."""
    seen, places = Counter[str](), []
    for path, tree in _trees().items():
        for method, text in _texts(tree):
            row = f"{path}: {text[:_SHOWN].rstrip()}"
            seen[row] += 1
            places.append((row if seen[row] == 1 else f"{row} #{seen[row]}", method, text))
    return tuple(places)


class PlacesTests(SynchronousTestCase):
    """The rows are the places."""

    def test_each_place_that_logs_has_a_row(self) -> None:
        self.assertEqual({row for row, _, _ in _places()}, set(ROWS))

    def test_each_row_of_a_client_has_a_test(self) -> None:
        tests = {name for case in (FloodTests, ApplicationTests, ConnectionTests, TlsTests) for name in vars(case)}
        reasons = {FAULT, STATE, OPERATOR, ASKED_FOR, PASSED_ON}
        self.assertEqual({value for value in ROWS.values() if value not in reasons} - tests, set())

    def test_loggers_are_called_so_and_nothing_else_logs(self) -> None:
        for path, tree in _trees().items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
                    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                    is_logger = _name(node.value.func) in _LOGGERS
                    self.assertTrue(not is_logger or _is_of_logger(_name(target)), f"{path}:{node.lineno}")
                if isinstance(node, ast.ImportFrom):
                    names = {alias.name for alias in node.names}
                    self.assertFalse(node.module == "twisted.python" and "log" in names, path)
                    self.assertNotIn(node.module, ("logging", "warnings", "twisted.python.log"), path)
                if isinstance(node, ast.Import):
                    self.assertTrue({alias.name for alias in node.names}.isdisjoint({"logging", "warnings"}), path)

    def test_what_is_called_a_fault_has_a_traceback(self) -> None:
        for row, method, _ in _places():
            self.assertEqual(ROWS[row] == FAULT, method == "failure", row)


# What is written


class Written:
    """What the daemon writes to its log, as text and as JSON, from now on."""

    def __init__(self, case: SynchronousTestCase, seconds: Callable[[], float], call_later: Any) -> None:
        self.texts = [io.StringIO(), io.StringIO()]
        self.formats = set[str]()
        """The texts of the lines before values were put into them."""
        self._case = case
        for output, form in zip(self.texts, (plain, json_text), strict=True):
            observer = Observer(output, form, "debug")
            observer.floodgate._seconds = seconds
            observer.floodgate.call_later = lambda call: call_later(1, call)
            self._observe(observer)
        self._observe(cast(ILogObserver, self._note))

    def _observe(self, observer: ILogObserver) -> None:
        globalLogPublisher.addObserver(observer)
        self._case.addCleanup(globalLogPublisher.removeObserver, observer)

    def _note(self, event: LogEvent) -> None:
        self.formats.add(str(event.get("log_format")))

    def assert_bounded(self, *texts: str, lines: int = MOST_LINES) -> None:
        """There are lines about each of `texts`, but not many, and they are not long."""
        for text in texts:
            self._case.assertTrue(any(one.startswith(text) for one in self.formats), (text, self.formats))
        for output, most in zip(self.texts, (MOST_BYTES, 2 * MOST_BYTES), strict=True):
            written = output.getvalue()
            self._case.assertLessEqual(written.count("\n"), lines, written[:5000])
            self._case.assertGreater(written.count("\n"), 0)
            self._case.assertLessEqual(max(map(len, written.splitlines())), 4 * most, written[:5000])
            self._case.assertLessEqual(len(written.encode()), lines * most)


class FloodTests(DaemonTests):
    """A client does the same 1,000 times."""

    config = (
        "[site]\ndemo = no\n[auth]\nanonymous = publish, subscribe\n"
        "[limits]\ncommand_rate = 0\nconnect_rate = 0\nread_rate = 0\nconnections_per_address = 0\n"
        "connections = 0\npublish_rate = 0\noutbox = 1KiB\nanswer_rate = 1KiB\n"
        "[channels:prices]\non_overflow = latest\n[channels:joins/**]\npresence = events\n"
    )

    def setUp(self) -> None:
        """Come from somewhere else."""
        super().setUp()
        self.rig.comes_from = STRANGER
        self.listen()

    def listen(self) -> None:
        """Record all lines from now on."""
        reactor = self.rig.reactor
        self.written = Written(self, reactor.seconds, reactor.callLater)

    def send_each(self, data: Callable[[int], bytes]) -> None:
        """Send over connections of their own."""
        for number in range(TIMES):
            client = HttpClient(self.rig)
            client.connection.send(data(number))
            self.rig.turn()
            client.connection.disconnect()

    def test_requests_that_are_refused(self) -> None:
        self.send_each(lambda number: b"GET /%d%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (number, b"%ff" * 2000))
        self.send_each(lambda number: b"%s%d / HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"M" * 2000, number))
        self.written.assert_bounded("{status} {method} {path} from {peer}: {", lines=40)

    def test_requests_that_are_not_read_to_their_end(self) -> None:
        length = b"Content-Length: 99999999999\r\n"
        self.send_each(lambda number: b"POST /%d%s HTTP/1.1\r\n%s\r\n" % (number, b"x" * 5000, length))
        self.written.assert_bounded("{status} {method} {path} from {peer}: {")

    def test_requests_that_are_none(self) -> None:
        self.send_each(lambda number: b"%d%s\r\n\r\n" % (number, bytes([number & 255]) * 3000))
        self.written.assert_bounded("refused a request from {peer}")

    def test_lines_of_batches(self) -> None:
        body = b'{"channel":"%s"}\n' % (b"a" * 3000)
        head = b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.send_each(lambda number: head + body)
        self.written.assert_bounded("refused {count} of {total} lines of")

    def test_messages(self) -> None:
        for _ in range(10):
            socket = WebSocketClient(self.rig, "/ws")
            self.rig.turn()
            for number in range(TIMES // 10):
                if not socket.is_open:
                    break
                socket.send(f'{{"type":"{number}{"x" * 3000}"}}' if number % 2 else "{" * 3000)
            self.rig.turn()
            socket.connection.disconnect()
        self.written.assert_bounded("refused a message of {peer}")

    def test_ends_of_subscribers(self) -> None:
        for number in range(TIMES):
            if number % 4:
                client = HttpClient(self.rig)
                client.send("GET", f"/{('', 'sse', 'stream', 'poll')[number % 4]}?channel=c")
                connection = client.connection
            else:
                connection = WebSocketClient(self.rig, "/ws?channel=c").connection
            self.rig.turn()
            connection.disconnect()
        self.rig.wait(1)
        self.written.assert_bounded("{transport} of {peer} ended after", lines=2 * MOST_LINES)

    def test_slow_subscribers(self) -> None:
        for _ in range(TIMES):
            client = HttpClient(self.rig)
            client.send("GET", "/sse?channel=prices")
            client.connection.stop_reading()
        for _ in range(3):
            self.rig.publish("prices", b"x" * 900)
        self.rig.turn()
        self.written.assert_bounded("{peer} is slow and misses events")

    def test_answers_that_are_not_read(self) -> None:
        self.rig.publish("c", b"x" * 100_000)
        for _ in range(TIMES // 5):
            client = HttpClient(self.rig)
            client.connection.stop_reading()
            client.send("GET", "/channels/c/events")
        self.listen()
        before = sum(len(output.getvalue()) for output in self.written.texts)
        self.assertEqual(before, 0)
        for _ in range(300):
            if self.written.formats:
                break
            self.rig.wait(1)
        self.written.assert_bounded("closed {peer}: it read")

    def test_connections_that_do_not_close_in_order(self) -> None:
        for _ in range(TIMES):
            client = HttpClient(self.rig)
            client.send("GET", "/healthz", headers=[("Connection", "close")])
            client.send("GET", "/healthz")
            client.connection.stop_reading()
            client.connection.protocol._protocol.timeoutConnection()
        self.rig.wait(20)
        self.assertEqual(self.written.texts[0].getvalue().count("Forcibly"), 0)

    def test_connections_that_are_turned_away(self) -> None:
        self.start(self.config.replace("connections_per_address = 0", "connections_per_address = 3"))
        self.rig.comes_from = STRANGER
        self.listen()
        for _ in range(TIMES):
            HttpClient(self.rig)
        self.rig.turn()
        self.written.assert_bounded("turned away {peer}: {detail}")

    def test_handshakes_that_take_too_long(self) -> None:
        limiter = self.rig.parts.site._limiter
        for number in range(TIMES):
            limiter.handshake_failed(IPv4Address("TCP", STRANGER, number), 10)
        self.written.assert_bounded("closed a connection of {peer}: its TLS handshake")

    def test_joins_that_come_and_go(self) -> None:
        self.start(self.config.replace("[limits]", "[limits]\nchannels = 1"))
        self.rig.comes_from = STRANGER
        self.listen()
        for number in range(TIMES):
            socket = WebSocketClient(self.rig, f"/ws?channel=joins/{number % 2}")
            self.rig.turn()
            socket.connection.disconnect()
            self.rig.turn()
        self.written.assert_bounded("joins and leaves are not published", "joins and leaves are published again")

    def test_what_is_asked_for_is_bounded_for_each_request(self) -> None:
        self.start(self.config + "[log]\nrequests = yes\n")
        self.rig.comes_from = STRANGER
        self.listen()
        self.send_each(lambda number: b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * 8000))
        self.written.assert_bounded("{status} {method} {path} from {peer}, {bytes}", lines=TIMES)


class ApplicationTests(DaemonTests):
    """A client has the application asked and told, and that does not do what it should."""

    config = FloodTests.config

    def begin(self, reaction: str | None, **urls: str) -> None:
        """Start a daemon with hooks, whose application reacts so."""
        self.application = Application()
        self.application.always(reaction)
        settings: Any = {"breaker_failures": 2, "breaker_pause_s": 0, "queue": 200, "retry_for_s": 5, **urls}
        rig = self.rig
        authorizer = WebhookAuthorizer(
            hooks(**settings),
            self.application,
            max_event_bytes=1000,
            seconds=lambda: rig.reactor.seconds(),
            now=lambda: rig.now(),
            new_id=lambda: "q",
            questions=new_questions(40, 25),
        )
        notifier = WebhookNotifier(
            hooks(**settings),
            self.application,
            call_later=rig.reactor.callLater,
            seconds=rig.reactor.seconds,
            now=rig.now,
            random=random,
            token="t",
            share_percent=100,
            outcomes=Counter(),
        )
        rig.reload(self.config, Integrations(Registry(), authorizer, notifier if "after" in urls else None))
        rig.comes_from = STRANGER
        self.written = Written(self, rig.reactor.seconds, rig.reactor.callLater)

    def flood(self, times: int = TIMES, after_each: Callable[[int], object] = lambda number: None) -> None:
        """Connect and go."""
        for number in range(times):
            after_each(number)
            client = HttpClient(self.rig)
            client.send("GET", f"/sse?channel=c{number}")
            self.rig.turn()
            if number % 2:
                client.connection.disconnect()

    def test_an_application_that_fails(self) -> None:
        self.begin("x" * 5000, before_connect=URL)
        self.flood()
        self.written.assert_bounded("no answer from the hook {url}", "the hook {url} failed {count} times")

    def test_an_application_that_fails_now_and_then(self) -> None:
        self.begin(None, before_connect=URL)
        self.flood(after_each=lambda number: self.application.always("no" if number % 3 else answer()))
        self.written.assert_bounded("the hook {url} answers again")

    def test_an_application_that_does_not_answer(self) -> None:
        self.begin(None, before_connect=URL)
        for number in range(TIMES):
            self.rig.comes_from = f"198.51.100.{number % 200}"
            self.flood(1)
            if number % 50 == 49:
                for posted in self.application.posted:
                    if not posted.answered.called:
                        posted.answered.callback(answer())
        self.written.assert_bounded("{count} questions wait for the application", lines=20 * MOST_LINES)
        self.assertLess(self.written.texts[0].getvalue().count("questions wait for the application; no more"), 10)

    def test_an_application_that_is_not_told_everything(self) -> None:
        self.begin(None, after=URL)
        self.flood()
        self.written.assert_bounded("the hook {url} is not told everything")

    def test_an_application_that_cannot_be_told(self) -> None:
        self.begin("x" * 5000, after=URL)
        self.flood(20)
        for number in range(200):
            self.application.always("x" * 5000 if number % 2 else answer())
            self.rig.reactor.advance(0.005)
            self.flood(5)
        for _ in range(20):
            self.application.always(answer())
            self.rig.wait(1)
        self.written.assert_bounded("the hook {url} could not be told", "the hook {url} is told again", lines=90)

    def test_an_application_that_refuses_what_it_is_told(self) -> None:
        self.begin(None, after=URL)
        self.application.always(answer(status=400))
        self.flood()
        self.written.assert_bounded("dropped {count} events for the hook {url}")


class ConnectionTests(HTTP2TestCase):
    """Connections that are not of HTTP/1.1."""

    def setUp(self) -> None:
        """Record a written line."""
        super().setUp()
        self.written = Written(self, self.clock.seconds, self.clock.callLater)

    def test_http2_connections(self) -> None:
        for number in range(TIMES):
            peer = self.new_peer()
            peer.begin()
            peer.send(bytes([0, 0, 9, 6, 0, 0, 0, number & 255, 1]) + bytes(9))  # a PING of 9 bytes on a stream
            peer.lose()
        self.written.assert_bounded("refused over HTTP/2 from {peer}")

    def test_http2_streams(self) -> None:
        peer = self.new_peer()
        peer.begin()
        for stream_id in range(1, 200, 2):
            peer.send(peer.block(stream_id, [(":method", "GET"), (":path", "")]))
        self.written.assert_bounded("more was refused over HTTP/2 from {peer}")

    def test_connections_that_do_not_come_from_a_proxy(self) -> None:
        for number in range(TIMES):
            self.assertIsNone(self.proxied("10.0.0.1").buildProtocol(IPv4Address("TCP", STRANGER, number)))
        self.written.assert_bounded("refused a connection from {peer}: only those in")

    def test_wrong_headers_of_the_proxy_protocol(self) -> None:
        for data, _ in BAD * (TIMES // len(BAD) + 1):
            wire = Wire()
            protocol = self.proxied("10.0.0.0/8").buildProtocol(PROXY)
            assert protocol is not None
            protocol.makeConnection(wire)
            protocol.dataReceived(data)
        self.written.assert_bounded("refused a connection from {peer}: {why}")

    def proxied(self, trusted: str) -> ProxyProtocolFactory:
        """Make what listens for proxies."""
        settings = ProxyProtocolSettings(
            TrustedProxies(Proxies((trusted,), "x-forwarded-for")), Connections(), self.wheel, 10
        )
        return settings(Speakers())


class TlsTests(CertifiedCase):
    """Handshakes that fail."""

    def flood(self, client: Any) -> None:
        """Shake hands, at the end with a peer that has other ports."""
        self.written = Written(self, self.clock.seconds, self.clock.callLater)
        for _ in range(TIMES // 20):
            factory = TLSFactory(self.credentials, False, self.site, clock=self.clock)
            TlsTalk(factory, PythonClient(client)).end()

    def test_handshakes_without_a_certificate(self) -> None:
        self.flood(self.client(None))
        self.written.assert_bounded("refused a TLS handshake with {peer}")

    def test_certificates(self) -> None:
        self.flood(self.client(Authority("Another").issue("m" * 60)))
        self.written.assert_bounded("refused the certificate of {peer}")


class OtherLinesTests(SynchronousTestCase):
    """What no client is known to cause has a bound all the same."""

    def test_of_faults_and_of_states_there_are_few_lines_in_a_second(self) -> None:
        failure = Failure(ValueError("x" * 5000))
        for row, method, text in _places():
            if ROWS[row] not in (FAULT, STATE):
                continue
            clock = Clock()
            for form in (plain, json_text):
                output = io.StringIO()
                observer = Observer(output, form, "debug")
                observer.floodgate = FloodLimit(observer._write, clock.seconds)
                log = Logger("pushd." + row.partition(".py")[0].replace("/", "."), observer=observer)
                for number in range(TIMES):
                    names = re.findall(r"{(\w+)}", text)
                    fields: dict[str, Any] = dict.fromkeys(names, f"{number} {'x' * 2000}")
                    fields.update(dict.fromkeys({"peer", "url"} & fields.keys(), "x" * 2000))
                    if method == "failure":
                        fields["log_failure"] = failure
                    log.emit(LogLevel.warn, text, **fields)
                self.assertLess(output.getvalue().count("\n"), 12, row)
                self.assertLess(len(output.getvalue()), 12 * 2 * MOST_BYTES, row)

    def test_a_traceback_is_cut(self) -> None:
        def deep(depth: int) -> None:
            if not depth:
                raise ValueError("x" * 100_000)
            deep(depth - 1)

        output = io.StringIO()
        for depth in (3, 900):
            try:
                deep(depth)
            except ValueError:
                Logger("pushd.here", observer=Observer(output, plain, "info")).failure("a fault")
        self.assertLess(len(output.getvalue()), 60_000)
        self.assertIn("ValueError", output.getvalue())
