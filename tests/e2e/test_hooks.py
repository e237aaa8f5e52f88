"""Hooks, with a real application: another process, over real connections, with and without TLS."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from random import random
from tempfile import TemporaryDirectory
from time import monotonic, time
from typing import Any

import docutils.core
from cryptography import x509
from docutils import nodes
from OpenSSL.crypto import X509
from twisted.internet import reactor as _reactor  # noqa: TID251  these are tests of connections
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase
from twisted.web.client import BrowserLikePolicyForHTTPS

from pushd.auth.webhooks.answers import NoAnswer
from pushd.auth.webhooks.authorizer import WebhookAuthorizer, new_questions
from pushd.auth.webhooks.client import WebhookClient
from pushd.auth.webhooks.notifier import WebhookNotifier
from pushd.auth.webhooks.signing import Signer
from pushd.bus.event import Draft
from pushd.config.hooks import Hooks
from pushd.errors import Forbidden, Unavailable
from pushd.server.net.tls import self_signed
from tests.e2e.daemon import REPOSITORY
from tests.e2e.hook_server import HookServer, hook_server
from tests.e2e.programs import program, talking_to
from tests.rigs.application import SECRET, caller, hooks

reactor: Any = _reactor


class HooksTests(TestCase):
    """Tests with an application at `self.server`, asked and told over one `WebhookClient`."""

    timeout = 60
    options: dict[str, Any] = {}

    def setUp(self) -> None:
        self.server = self.enter(hook_server(SECRET))
        self.poster = self.a_poster()
        self.authorizer, self.notifier = self.hooked()

    def enter(self, context: Any) -> Any:
        """Enter a context for as long as the test lasts."""
        self.addCleanup(context.__exit__, None, None, None)
        return context.__enter__()

    def a_poster(self, secret: str = SECRET, **more: Any) -> WebhookClient:
        poster = WebhookClient(reactor, Signer(secret), timeout_s=1, now=time, **more)
        self.addCleanup(lambda: Deferred.fromCoroutine(poster.close()))
        return poster

    def hooked(self, **settings: Any) -> tuple[WebhookAuthorizer, WebhookNotifier]:
        url, numbers = self.server.url, count(1)
        self.outcomes = Counter[tuple[str, str]]()
        names = ("before_connect", "before_subscribe", "before_publish", "after")
        configured: Hooks = hooks(
            **{name: f"{url}/{name}" for name in names}, breaker_pause_s=0.5, retry_for_s=20, **settings
        )
        authorizer = WebhookAuthorizer(
            configured,
            self.poster,
            max_event_bytes=100_000,
            seconds=monotonic,
            now=time,
            new_id=lambda: f"q-{next(numbers)}",
            questions=new_questions(1000, 100),
            outcomes=self.outcomes,
        )
        notifier = WebhookNotifier(
            configured,
            self.poster,
            call_later=reactor.callLater,
            seconds=monotonic,
            now=time,
            random=random,
            token="t",
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(notifier.close(0.1)))
        return authorizer, notifier

    async def until(self, condition: Callable[[], object], timeout_s: float = 15) -> None:
        """Wait for something."""
        deadline = monotonic() + timeout_s
        while not condition():
            self.assertLess(monotonic(), deadline, "waited in vain")
            await deferLater(reactor, 0.05)

    async def fails(self, kind: type[Exception], asked: Awaitable[Any]) -> Exception:
        """Return how it fails."""
        try:
            await asked
        except kind as error:
            return error
        return self.fail("it did not fail")

    def subscribe(self) -> Any:
        return self.authorizer.before_subscribe(caller(), "a/b", "latest")


class AskingTests(HooksTests):
    async def test_an_application_allows_denies_and_changes_and_verifies_every_signature(self) -> None:
        self.server.rules(
            {"when": {"hook": "before_connect"}, "answer": {"user": "Ådä", "publish": ["x/*"]}},
            {"when": {"channel": "a/*"}, "answer": {"allow": False, "reason": "closed\r\non Sundays"}},
            {"when": {"channels": "a"}, "answer": {"data": "changed ☃"}},
        )
        identity = await self.authorizer.before_connect(caller(payload={"ä": "\ud800"}))
        self.assertEqual((identity.user, identity.grants.publish.texts), ("Ådä", ("x/*",)))
        self.assertEqual(str(await self.fails(Forbidden, self.subscribe())), "closed on Sundays")
        draft = await self.authorizer.before_publish(caller(), Draft(("a", "b"), "☃".encode() * 30_000, True))
        self.assertEqual(draft.data.decode(), "changed ☃")
        requests = self.server.requests
        self.assertEqual([request["fault"] for request in requests], [None] * 3)
        self.assertEqual(
            [request["path"] for request in requests], ["/before_connect", "/before_subscribe", "/before_publish"]
        )
        self.assertEqual(len({request["port"] for request in requests}), 1)

    async def test_another_secret_is_seen_through(self) -> None:
        self.poster = self.a_poster("whsec_" + "A" * 32)
        self.authorizer, _ = self.hooked()
        await self.fails(Unavailable, self.subscribe())
        self.assertEqual(self.server.requests[0]["fault"], "No matching signature found")

    async def test_whatever_the_application_does_the_client_is_refused_in_time(self) -> None:
        for rule in (
            *({"fault": fault} for fault in ("hang", "close", "midway", "flood", "drip", "rubbish")),
            {"body": "allow"},
            {"body": "[" * 30_000},
            {"body": " " * 70_000},
            {"status": 500},
            {"headers": {"Content-Encoding": "gzip"}},
            {"status": 302, "headers": {"Location": f"{self.server.url}/elsewhere"}},
        ):
            self.authorizer, _ = self.hooked()
            self.server.rules(rule)
            began = monotonic()
            await self.fails(Unavailable, self.subscribe())
            self.assertLess(monotonic() - began, 3, rule)
        self.assertNotIn("/elsewhere", {request["path"] for request in self.server.requests})
        self.flushLoggedErrors()  # Twisted logs what is not HTTP

    async def test_an_application_that_goes_and_comes_back_is_noticed(self) -> None:
        await self.subscribe()
        self.server.down()
        for _ in range(4):
            await self.fails(Unavailable, self.subscribe())
        outcomes = {
            ("before_subscribe", "allowed"): 1,
            ("before_subscribe", "failed"): 3,
            ("before_subscribe", "unasked"): 1,
        }
        self.assertEqual(self.outcomes, outcomes)
        self.server.up()
        await deferLater(reactor, 0.6)
        await self.subscribe()
        await self.subscribe()
        self.assertEqual(self.outcomes, {**outcomes, ("before_subscribe", "allowed"): 3})

    async def test_many_questions_at_once(self) -> None:
        self.authorizer, _ = self.hooked(timeout_s=60)  # how long a hundred answers take is up to the machine
        self.server.rules({"when": {"channel": "c/*7"}, "answer": {"allow": False}, "delay_s": 0.05})
        asked = [
            Deferred.fromCoroutine(self.authorizer.before_subscribe(caller(), f"c/{number}", "latest")).addErrback(
                lambda failure: failure.trap(Forbidden)
            )
            for number in range(100)
        ]
        answers = await gatherResults(asked)
        refused = [number for number, answer in enumerate(answers) if answer is Forbidden]
        self.assertEqual(refused, list(range(7, 100, 10)))
        self.assertEqual(self.outcomes, {("before_subscribe", "allowed"): 90, ("before_subscribe", "denied"): 10})

    async def test_twisted_does_not_log_each_connection(self) -> None:
        with capturedLogs() as events:
            await self.subscribe()
        self.assertEqual([formatEvent(event) for event in events], [])


class TellingTests(HooksTests):
    async def test_what_happens_while_the_application_fails_and_is_down_comes_in_order_and_once(self) -> None:
        self.server.rules(
            {"status": 500, "times": 2},
            {"fault": "close", "times": 3},
            {"status": 429, "headers": {"Retry-After": "1"}, "times": 1},
            {"fault": "hang", "times": 1},
        )
        for number in range(150):
            self.notifier.occupied(str(number))
        await self.until(lambda: self.notifier.told >= 100)
        self.server.down()
        for number in range(150, 450):
            self.notifier.occupied(str(number))
        await deferLater(reactor, 0.5)
        self.server.up()
        await self.until(lambda: self.notifier.told == 450, 40)
        self.assertEqual([event["channel"] for event in self.server.told], [str(number) for number in range(450)])
        self.assertEqual({request["fault"] for request in self.server.requests}, {None})
        self.assertEqual(self.notifier.dropped, 0)

    async def test_closing_tells_the_rest_or_says_what_is_left(self) -> None:
        self.notifier.occupied("a")
        await self.notifier.close(5)
        self.assertEqual([event["channel"] for event in self.server.told], ["a"])
        _, notifier = self.hooked()
        self.server.rules({"fault": "hang"})
        notifier.occupied("b")
        with capturedLogs() as events:
            await notifier.close(0.3)
        self.assertIn("was not told 1 events", formatEvent(events[-1]))


class TlsTests(HooksTests):
    def setUp(self) -> None:
        directory = TemporaryDirectory(prefix="pushd-")
        self.addCleanup(directory.cleanup)
        self.certificate = self_signed(directory.name)
        self.server: HookServer = self.enter(hook_server(SECRET, certificate=self.certificate))

    def trusting(self) -> WebhookClient:
        pem = Path(self.certificate[0]).read_bytes()
        certificate = Certificate(X509.from_cryptography(x509.load_pem_x509_certificate(pem)))
        return self.a_poster(policy=BrowserLikePolicyForHTTPS(trustRootFromCertificates([certificate])))

    async def test_a_certificate_that_is_trusted(self) -> None:
        answer = await self.trusting()(f"{self.server.url}/x", "m", b"{}")
        self.assertEqual((answer.status, answer.body), (200, b"{}"))

    async def test_one_that_is_not(self) -> None:
        error = await self.fails(NoAnswer, self.a_poster()(f"{self.server.url}/x", "m", b"{}"))
        self.assertIn("certificate verify failed", str(error))
        self.assertEqual(self.server.requests, [])

    async def test_one_for_another_name(self) -> None:
        server = self.enter(hook_server(SECRET, certificate=self.certificate, host="127.0.0.2"))
        error = await self.fails(NoAnswer, self.trusting()(f"{server.url}/x", "m", b"{}"))
        self.assertIn("VerificationError", str(error))
        self.assertEqual(server.requests, [])

    async def test_an_answer_that_never_ends_does_not_keep_the_connection(self) -> None:
        poster = self.trusting()
        for fault in ("flood", "drip"):
            self.server.rules({"fault": fault})
            await self.fails(NoAnswer, poster(f"{self.server.url}/x", "m", b"{}"))
        await self.until(lambda: not _connections_to(self.server.url))


class ExampleTests(TestCase):
    """The examples of ``docs/hooks.rst``."""

    timeout = 60

    def example(self, language: str) -> str:
        settings = {"syntax_highlight": "none", "report_level": 5}
        text = (REPOSITORY / "docs" / "hooks.rst").read_text()
        document = docutils.core.publish_doctree(text, settings_overrides=settings)
        blocks = document.findall(nodes.literal_block)
        return next(node.astext() for node in blocks if language in node["classes"])

    def test_python(self) -> None:
        with TemporaryDirectory(prefix="pushd-") as path:
            file = Path(path) / "secret"
            file.write_text(f"{SECRET}\n")
            names: dict[str, Any] = {}
            exec(self.example("python").replace("/etc/pushd/hooks.secret", str(file)), names)
        body = b'{"hook":"before_subscribe","user":null}'
        headers = Signer(SECRET).headers("m", time(), body)
        self.assertEqual(names["asked"](body, headers)[1]["allow"], False)
        self.assertEqual(names["asked"](body + b" ", headers)[0], 400)

    def test_node(self) -> None:
        body = '{"user":"Ådä"}'
        headers = Signer(SECRET).headers("m", time(), body.encode())
        late = Signer(SECRET).headers("m", time() - 400, body.encode())
        checks = [
            f"isFromPushd({given}, {body!r} + {more!r})"
            for given, more in ((headers, ""), (headers, " "), (late, ""), ({}, ""))
        ]
        with TemporaryDirectory(prefix="pushd-") as path:
            script = Path(path) / "check.mjs"
            script.write_text(f"{self.example('javascript')}\nconsole.log({', '.join(checks)});\n")
            with talking_to(
                [program("node"), str(script)], environment={**os.environ, "HOOKS_SECRET": SECRET}
            ) as node:
                self.assertEqual(node.line(), "true false false false")


def _connections_to(url: str) -> list[str]:
    """Return the connections that are established to a port of this machine, as Linux lists them."""
    port = f":{int(url.rsplit(':', 1)[1]):04X}"
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return [" ".join(fields[:4]) for fields in lines if fields[2].endswith(port) and fields[3] == "01"]
