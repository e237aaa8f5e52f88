"""The whole daemon in memory, on clocks in hand, and the case for tests of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast
from urllib.parse import quote, urlencode

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IAddress
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.counters import Counters
from pushd.config.loader import parse
from pushd.config.settings import Config
from pushd.daemon.assembly import assemble
from pushd.daemon.components import Components, StoreParts
from pushd.daemon.integrations import ALONE, Integrations
from pushd.daemon.service import Daemon
from pushd.store.sqlite.store import Store
from pushd.store.sqlite.worker import Worker
from tests.rigs.connection import LOCALHOST, Connection
from tests.rigs.http_client import Client, HttpClient, Response, batch_replies

__all__ = ["STARTED", "DaemonRig", "DaemonTests", "InTurn", "StoredDaemonRig", "Traces", "query"]

STARTED = 1_700_000_000.0
"""The time of day, in seconds since 1970, when the daemon of a rig starts."""


_LISTEN = "[listen:http]\nendpoint = tcp:8080:interface=127.0.0.1\n"


def query(**parameters: str | Sequence[str] | int | None) -> str:
    """Write a query; a parameter that is a list is there for each of its items, one that is None is not."""
    return urlencode({name: value for name, value in parameters.items() if value is not None}, doseq=True)


@dataclass(frozen=True)
class Traces:
    """What subscribers leave in a daemon."""

    subscribers: int
    sessions: int
    alarms: int
    channels: int


class DaemonRig:
    """A daemon without ports."""

    def __init__(
        self,
        config: str = "",
        http: Callable[[DaemonRig], Client] = lambda rig: HttpClient(rig),
        integrations: Integrations = ALONE,
    ) -> None:
        """Start a daemon with the text of an ini file, whose clients speak `http`.

        It has to do with `integrations`. It takes WebSockets over HTTP/2 unless the file has a section about that.
        """
        self._http = http
        self._integrations = integrations
        self.comes_from: str | None = "127.0.0.1"
        """From which address clients come now; None: by a Unix socket."""
        self.failures: list[object] = []
        self.chance: Callable[[], float] = lambda: 0.5
        """Draws a number from 0 to 1 where something is left to chance."""
        self._started = STARTED
        self._launch(config)

    def _launch(self, config: str) -> None:
        """Start a daemon."""
        self._config = config
        self.reactor = MemoryReactorClock()
        settings = self._read_config(config)
        self.parts = self._assemble(settings)
        self._daemon = Daemon(
            settings,
            self.parts,
            self.reactor,
            state_directory="/nowhere",
            fail=self.failures.append,
            random=lambda: self.chance(),
            reread=lambda: self._read_config(self._config),
            reach=lambda config: (self._integrations, lambda: None),
        )
        self._daemon.privilegedStartService()
        self._daemon.startService()
        self.reactor.advance(0)

    @staticmethod
    def _read_config(config: str) -> Config:
        http2 = "" if "[http2]" in config else "\n[http2]\nwebsocket = yes\n"
        return parse(_LISTEN + config + http2, "the test")

    def reload(self, config: str, integrations: Integrations | None = None) -> None:
        """Reload with another configuration, as SIGHUP does, and other `integrations` unless None."""
        self._config = config
        self._integrations = self._integrations if integrations is None else integrations
        self._daemon.reload()

    def _assemble(self, settings: Config) -> Components:
        return assemble(
            settings, self.reactor, seconds=self.reactor.seconds, now=self.now, integrations=self._integrations
        )

    def now(self) -> float:
        """The time of day, in seconds since 1970."""
        return self._started + self.reactor.seconds()

    def turn(self) -> None:
        """Let the reactor run until there is nothing left to do at this moment."""
        self.reactor.advance(0)

    def wait(self, seconds: int) -> None:
        """Let time pass, second by second."""
        for _ in range(seconds):
            self.reactor.advance(1)
            self.turn()

    def stop(self) -> Deferred[None]:
        """Stop the daemon, which takes a while; answer when it has."""
        return self._daemon.stopService()

    def restart(
        self,
        *,
        config: str | None = None,
        after_s: float = 0,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        """Stop the daemon as SIGTERM does and start it `after_s` later, with another `config` if there is one.

        `meanwhile` is called when it has stopped.
        """
        stopped = self.stop()
        while not stopped.called:
            self.wait(1)
        meanwhile()
        self.start_again(config, after_s)

    def crash(self, *, config: str | None = None, after_s: float = 0) -> None:
        """End the daemon as kill -9 does: clients have what was sent to them, and nothing is said or written."""
        self.start_again(config, after_s)

    def start_again(self, config: str | None = None, after_s: float = 0) -> None:
        """Start a daemon that has ended, `after_s` later."""
        self._started = self.now() + after_s
        self._launch(self._config if config is None else config)

    @property
    def traces(self) -> Traces:
        """What is there now."""
        parts = self.parts
        return Traces(parts.bus.subscribers, len(parts.sessions), len(parts.sessions.wheel), len(parts.bus.log))

    @property
    def delayed(self) -> list[float]:
        """When the calls are due that the reactor is to make later, but those of each second."""
        return [
            call.getTime()
            for call in self.reactor.getDelayedCalls()
            if type(call.func).__name__ != "LoopingCall"  # type: ignore[attr-defined]
        ]

    def _work(self) -> None:
        """Do what is left to do before a request is answered: in memory, nothing."""

    # Requests on connections of their own

    def connect(self, host: IAddress = LOCALHOST, peer: IAddress | None = None) -> Connection:
        """Open a connection to the address `host`, from `peer`, or from this machine."""
        return Connection(self, host, peer=peer)

    def client(self) -> Client:
        """Connect a client."""
        return self._http(self)

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Sequence[tuple[str, str]] | Mapping[str, str] = (),
        body: bytes = b"",
        host: str = "localhost",
    ) -> Response:
        """Make one request without letting time pass; return what has been written of the response."""
        return self._answer(self.client(), method, target, headers=headers, body=body, host=host)

    def _answer(self, client: Client, *arguments: str, **more: Any) -> Response:
        client.send(*arguments, **more)
        self._work()
        (response,) = client.written
        client.connection.disconnect()
        return response

    def get(self, target: str, **headers: str) -> Response:
        """Make a ``GET`` request."""
        return self.request("GET", target, headers={name.replace("_", "-"): it for name, it in headers.items()})

    def publish(self, channel: str, data: bytes = b"x", *, id: str | None = None, event: str | None = None) -> str:
        """Publish over HTTP/1.1, which must succeed, without letting time pass; answer the id."""
        target = f"/channels/{quote(channel, safe='')}?{query(id=id, event=event)}"
        response = self._answer(HttpClient(self), "POST", target, body=data)
        assert response.status == (200 if response.json.get("duplicate") else 201), response
        event_id: str = response.json["id"]
        return event_id

    def publish_each(self, channel: str, *each: bytes) -> list[str]:
        """Publish several events; answer their ids."""
        return [self.publish(channel, data) for data in each]

    def publish_many(self, *drafts: Mapping[str, object]) -> list[dict[str, Any]]:
        """Publish a batch, letting turns pass if it is long; return what was said of each."""
        body = b"".join(json.dumps(draft).encode() + b"\n" for draft in drafts)
        client = HttpClient(self)
        client.send("POST", "/publish", body=body)
        self._work()
        while not client.written[0].is_complete:  # a long batch takes several turns
            self.turn()
        (response,) = client.written
        client.connection.disconnect()
        return batch_replies(response)


class InTurn:
    """A `Worker` without a thread: what it is to do is done at once, or when the test says."""

    def __init__(self) -> None:
        self.is_held = False
        """Whether it waits for `release`."""
        self._waiting: list[Callable[[], object]] = []

    def start(self) -> None:
        """See `Worker`."""

    def stop(self) -> None:
        """See `Worker`."""
        self.release()

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """See `Worker`."""
        called: Deferred[Any] = Deferred()
        self._waiting.append(lambda: execute(function, *arguments).chainDeferred(called))
        if not self.is_held:
            self.release()
        return called

    def release(self) -> None:
        """Do what waits."""
        self.is_held = False
        while self._waiting:
            self._waiting.pop(0)()


class StoredDaemonRig(DaemonRig):
    """A daemon without ports whose store is a file, so that it can go on where it was."""

    worker: InTurn

    def __init__(
        self,
        directory: Path,
        config: str = "",
        http: Callable[[DaemonRig], Client] = lambda rig: HttpClient(rig),
        integrations: Integrations = ALONE,
    ) -> None:
        """Start a daemon as a `DaemonRig` does, whose store is in `directory`."""
        self.directory = directory
        super().__init__(config, http, integrations)

    def _assemble(self, settings: Config) -> Components:
        self.worker, counters = InTurn(), Counters()
        self._store = Store(
            self.directory,
            is_safe=settings.durability == "power",
            recent_bytes=settings.store_memory_bytes,
            size_bytes=settings.store_size_bytes,
            now=self.now,
            seconds=self.reactor.seconds,
            counters=counters,
        )
        return assemble(
            settings,
            self.reactor,
            seconds=self.reactor.seconds,
            now=self.now,
            store=(self._store, cast(Worker, self.worker)),
            integrations=self._integrations,
            counters=counters,
        )

    @property
    def storage(self) -> StoreParts:
        """The store and what works for it."""
        storage = self.parts.storage
        assert storage is not None
        return storage

    def _work(self) -> None:
        """Override: a request that writes is answered at the end of a turn."""
        self.turn()

    def crash(self, *, config: str | None = None, after_s: float = 0) -> None:
        """Override: the files are as they were at this moment."""
        self.abandon()
        self.start_again(config, after_s)

    def abandon(self) -> None:
        """End the daemon as kill -9 does, and do not start it again.

        What closing the connections would write to the files is taken back.
        """
        store = self._store
        paths = [store.path, store.path.with_name(f"{store.path.name}-wal")]
        before = {path: path.read_bytes() for path in paths if path.exists()}
        for connection in (store._reader, store._past_reader, store._mover, store._writer):
            connection.close()
        for path, data in before.items():
            with open(path, "r+b" if path.exists() else "wb") as file:  # a copy would be another file
                file.truncate(0)
                file.write(data)
        store._lock.close()


class DaemonTests(SynchronousTestCase):
    """Tests of a daemon, whose ini file is `config`."""

    config = ""

    http: ClassVar[type[Client]] = HttpClient
    """What its clients speak."""

    world: Integrations = ALONE
    """What reaches beyond the daemon."""

    def setUp(self) -> None:
        """Start it."""
        super().setUp()
        self.start(self.config)

    def start(self, config: str = "") -> None:
        """Start a daemon, instead of the one that is there."""
        self.rig = DaemonRig(config, self.http, self.world)

    def assert_problem(self, response: Response, status: int, *, field: str | None = None, says: str = "") -> None:
        """The response is a complete problem document (RFC 9457) about `field`, which says so in its detail."""
        self.assertEqual(response.status, status, response)
        self.assertTrue(response.is_complete, response)
        self.assertEqual(response.header("content-type"), "application/problem+json")
        problem = json.loads(response.body)
        self.assertEqual(problem["status"], status)
        self.assertIsInstance(problem["title"], str)
        self.assertEqual(problem.get("field"), field, problem)
        self.assertIn(says, problem["detail"])
        self.assertGreater(len(problem["detail"]), 10)
        self.assertEqual(response.header("x-request-id"), problem["request_id"])
        self.assertRegex(problem["request_id"], r"\A[A-Za-z0-9._~+/=:@-]+\Z")

    def assert_no_traces(self, before: Traces) -> None:
        """Everything that came after `before` is gone."""
        self.assertEqual(self.rig.traces, before)
