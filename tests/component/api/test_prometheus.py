"""The metrics: what Prometheus reads, who may, and that everything moves when its cause happens."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from unittest.mock import patch

from docutils import nodes
from docutils.core import publish_doctree
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.process_collector import ProcessCollector
from twisted.trial.unittest import SynchronousTestCase

from pushd import __version__, errors
from pushd.api.metrics.prometheus import TRANSPORTS, _Process
from pushd.bus.closing import CloseCause
from pushd.bus.sizes import CHANNEL_OBJECT_BYTES, EVENT_BYTES, OBJECT_BYTES, channel_size
from pushd.daemon.integrations import Integrations
from pushd.transports.longpoll import LongPoll
from pushd.transports.ndjson import JsonStream
from pushd.transports.server_push.endpoint import EventPush
from pushd.transports.sse import ServerSentEvents
from pushd.transports.websocket.endpoint import WebSocket
from tests.rigs.daemon import DaemonRig, DaemonTests, StoredDaemonRig
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient, Response
from tests.rigs.vouching import FakeTokens, identity
from tests.rigs.websocket_client import WebSocketClient

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.rst"


def parsed(text: bytes) -> Samples:
    """Read an exposition; no sample may be there twice."""
    samples: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples, key
            samples[key] = sample.value
    return samples


class MetricTests(DaemonTests):
    """What a daemon shows."""

    config = "[site]\ndemo = no\n"

    def setUp(self) -> None:
        """Remember what there is at the start."""
        super().setUp()
        self.before = self.scrape()

    def scrape(self) -> Samples:
        """Return all samples, without leaving a trace in them."""
        return parsed(self.rig.parts.operators.exposition())

    def value(self, name: str, **labels: str) -> float:
        """Return a sample."""
        return self.scrape()[name, frozenset(labels.items())]

    def moved(self) -> dict[str, float]:
        """Return by how much each figure of pushd has changed, but those that changed every time."""
        after = self.scrape()
        self.assertEqual(self.before.keys() - after.keys(), set())
        changes = {}
        for (name, labels), value in after.items():
            change = value - self.before.get((name, labels), 0)
            if change and name.startswith("pushd_") and not name.endswith(("_bucket", "_sum")):
                shown = ",".join(f"{key}={it}" for key, it in sorted(labels))
                changes[f"{name.removeprefix('pushd_')}{{{shown}}}" if shown else name.removeprefix("pushd_")] = (
                    change
                )
        return changes

    def subscribe(self, target: str) -> HttpClient:
        """Connect a subscriber over HTTP/1.1."""
        client = HttpClient(self.rig)
        client.send("GET", target)
        self.rig.turn()
        return client


class CauseTests(MetricTests):
    """Each metric moves when its cause happens, and no other does."""

    def test_connections(self) -> None:
        self.rig.connect()
        self.assertEqual(self.moved(), {"connections": 1, "connections_accepted_total": 1})

    def test_an_answer(self) -> None:
        self.rig.get("/healthz")
        self.assertEqual(self.moved(), {"connections_accepted_total": 1, "http_responses_total{code=200}": 1})

    def test_a_refusal(self) -> None:
        self.rig.get("/nowhere")
        moved = self.moved()
        self.assertEqual(moved["refused_total{reason=not_found}"], 1)
        self.assertEqual(moved["http_responses_total{code=404}"], 1)

    def test_connections_that_are_turned_away(self) -> None:
        self.start("[limits]\nconnections = 1\n")
        self.before = self.scrape()
        self.rig.connect()
        self.rig.connect()
        moved = self.moved()
        self.assertEqual(moved["connections_turned_away_total{limit=connections}"], 1)
        self.assertEqual(moved["connections_accepted_total"], 1)

    def test_subscribers_of_every_transport(self) -> None:
        self.subscribe("/sse?channel=a&channel=b")
        self.subscribe("/stream?channel=a")
        self.subscribe("/poll?channel=a")
        WebSocketClient(self.rig, "/ws?channel=**")
        Http2Client(self.rig).send("GET", "/push?channel=a")
        self.rig.turn()
        moved = self.moved()
        for transport in TRANSPORTS:
            self.assertEqual(moved[f"subscribers{{transport={transport}}}"], 1, moved)
            self.assertEqual(moved[f"subscribers_connected_total{{transport={transport}}}"], 1, moved)
        self.assertEqual(moved["subscriptions"], 6)
        self.assertNotIn("channels", moved, "names without events do not count")
        self.assertEqual(set(TRANSPORTS), {it.transport.name for it in _ENDPOINTS})

    def test_a_subscriber_that_goes(self) -> None:
        self.subscribe("/sse?channel=a").connection.disconnect()
        self.rig.turn()
        moved = self.moved()
        self.assertEqual(moved["subscribers_ended_total{reason=gone,transport=sse}"], 1)
        self.assertNotIn("subscriptions", moved)

    def test_an_event(self) -> None:
        client = self.subscribe("/stream?channel=a")
        self.before = self.scrape()
        size = len(client.connection.received)
        self.rig.publish("a", b"hello")
        self.rig.turn()
        self.assertEqual(
            self.moved(),
            {
                "channels": 1,
                "connections_accepted_total": 1,
                "http_responses_total{code=201}": 1,
                "events_published_total": 1,
                "events_delivered_total{when=live}": 1,
                "events_retained_bytes": 5 + EVENT_BYTES + OBJECT_BYTES + channel_size("a") + CHANNEL_OBJECT_BYTES,
                "publish_latency_seconds_count": 1,
                "written_bytes_total": len(client.connection.received) - size,
            },
        )

    def test_a_replay(self) -> None:
        self.rig.publish_each("a", b"1", b"2")
        self.subscribe("/sse?channel=a&since=earliest")
        self.assertEqual(self.moved()["events_delivered_total{when=replay}"], 2)

    def test_what_waits_and_what_is_missed(self) -> None:
        self.start(
            "[channels]\non_overflow = latest\n[limits]\noutbox = 16KiB\nevent_size = 8KiB\n[site]\ndemo = no\n"
        )
        client = WebSocketClient(self.rig, "/ws?channel=a")
        self.rig.turn()
        client.connection.is_reading = False
        for _ in range(40):
            self.rig.publish("a", b"x" * 8000)
            self.rig.turn()
        self.assertGreater(self.value("pushd_outbox_bytes"), 8000)
        self.assertLess(self.value("pushd_outbox_bytes"), 17000)
        self.assertGreater(self.value("pushd_events_dropped_total", reason="latest"), 20)
        self.assertEqual(self.value("pushd_events_dropped_total", reason="too_slow"), 0)

    def test_lag(self) -> None:
        self.rig.wait(3)
        self.assertEqual(self.moved(), {"reactor_lag_seconds_count": 3})
        self.rig.reactor.advance(1.7)
        self.assertAlmostEqual(self.value("pushd_reactor_lag_seconds_sum"), 0.7)

    def test_readiness(self) -> None:
        self.assertEqual(self.value("pushd_ready"), 1)
        self.rig.stop()
        self.assertEqual(self.value("pushd_ready"), 0)


_ENDPOINTS = (WebSocket, ServerSentEvents, JsonStream, LongPoll, EventPush)


class StoreMetricTests(SynchronousTestCase):
    def test_sizes_and_transactions(self) -> None:
        with TemporaryDirectory() as directory:
            rig = StoredDaemonRig(Path(directory))
            before = parsed(rig.parts.operators.exposition())
            rig.publish("a", b"x" * 10000)
            after = parsed(rig.parts.operators.exposition())
            none = frozenset[tuple[str, str]]()
            count = "pushd_store_commit_seconds_count", none
            self.assertEqual(after[count] - before[count], 1)
            for file, name in (("database", "pushd.db"), ("journal", "pushd.db-wal")):
                size = after["pushd_store_size_bytes", frozenset({("file", file)})]
                self.assertEqual(size, (Path(directory) / name).stat().st_size)
                self.assertGreater(size, 0)
            rig.storage.store._writer.execute("PRAGMA query_only = yes")
            client = HttpClient(rig)
            client.send("POST", "/channels/a", body=b"x")
            rig.turn()
            failed = "pushd_store_failed_commits_total", none
            self.assertEqual(parsed(rig.parts.operators.exposition())[failed], 1)
            rig.abandon()


class ExpositionTests(MetricTests):
    def test_it_is_what_the_document_says(self) -> None:
        self.rig.get("/healthz")
        shown = {}
        for family in text_string_to_metric_families(self.rig.parts.operators.exposition().decode()):
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            shown[name] = (family.type, labels)
            self.assertTrue(family.documentation.endswith("."), name)
        self.assertEqual(shown, dict(documented()))

    def test_values_of_labels_are_in_the_document(self) -> None:
        text = DOCUMENT.read_text()
        for name, labels in self.scrape():
            for label, value in labels:
                if name.startswith("pushd_") and label not in ("le", "version", "python", "twisted", "code"):
                    self.assertTrue(f"``{value}``" in text, f"{name}: {value}")

    def test_the_build(self) -> None:
        ((_, labels),) = [key for key in self.scrape() if key[0] == "pushd_build_info"]
        self.assertEqual(dict(labels)["version"], __version__)

    def test_classes_of_histograms_have_those_below_in_them(self) -> None:
        counters = self.rig.parts.bus.counters
        for value in (0.0001, 0.3, 0.3, 99):
            counters.latency.add(value)
        name = "pushd_publish_latency_seconds"
        counts = {le: self.value(f"{name}_bucket", le=le) for le in ("0.0005", "0.2", "0.5", "10.0", "+Inf")}
        self.assertEqual(counts, {"0.0005": 1, "0.2": 1, "0.5": 3, "10.0": 3, "+Inf": 4})
        self.assertEqual(self.value(f"{name}_count"), 4)
        self.assertAlmostEqual(self.value(f"{name}_sum"), 99.6001)

    def test_whatever_clients_send_there_are_no_more_of_them(self) -> None:
        hostile = 'x"} 1 # pushd_fake 1'
        self.rig.publish(hostile)
        before = set(self.scrape())
        for number in range(20):
            name = f"{hostile}{number}"
            self.rig.publish(name, event=f"e{number}", id=f"i{number}")
            self.rig.comes_from = f"192.0.2.{number}"
            client = WebSocketClient(self.rig, "/ws")
            self.rig.turn()
            client.say(type=name, channel=name, ref=number)
            client.say(type="subscribe", channel=name)
            self.rig.request(f"X{number}", f"/{number}?a{number}=1", headers={"Accept": name})
            self.rig.request("GET", "/healthz", headers={"User-Agent": f"agent {number}", "X-Request-ID": name})
        self.rig.turn()
        text = self.rig.parts.operators.exposition()
        new = {key for key in parsed(text) if key not in before}
        self.assertEqual({name for name, _ in new}, {"pushd_http_responses_total"})
        self.assertLess(len(new), 5)
        for secret in (b"fake", b"192.0.2", b"agent"):
            self.assertNotIn(secret, text)

    def test_every_kind_of_error_and_end_has_its_place_from_the_start(self) -> None:
        reasons = {dict(labels)["reason"] for name, labels in self.before if name == "pushd_refused_total"}
        kinds = {
            kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.Refused)
        }
        self.assertEqual(len(reasons), len(kinds - {errors.Refused}))
        ends = {dict(labels)["reason"] for name, labels in self.before if name == "pushd_subscribers_ended_total"}
        self.assertEqual(ends, {"gone", *(cause.name.lower() for cause in CloseCause)})


def documented() -> Iterator[tuple[str, tuple[str, set[str]]]]:
    """Return each metric of the document, with its type and labels."""
    for row in publish_doctree(DOCUMENT.read_text()).findall(nodes.row):
        cells = [entry.astext() for entry in row.findall(nodes.entry)]
        if re.match("[a-z]+_", cells[0]):
            yield cells[0], (cells[1], set(re.findall(r"\w+", cells[2])))


class ProcessTests(SynchronousTestCase):
    """The figures of the process."""

    def test_they_are_there_without_what_is_of_no_process(self) -> None:
        """As with ``ProcSubset=pid`` of systemd: pins `ProcessCollector._boot_time`."""
        opened: list[str] = []

        def open_noting(path: str, *arguments: object) -> object:
            opened.append(path)
            if path == "/proc/stat":
                raise FileNotFoundError(path)
            return open(path, *arguments)  # type: ignore[call-overload]

        with patch("prometheus_client.process_collector.open", open_noting, create=True):
            self.assertEqual(list(ProcessCollector(registry=None).collect()), [])
            self.assertIn("/proc/stat", opened)
            values = {metric.name: metric.samples[0].value for metric in _Process(registry=None).collect()}
        self.assertEqual(len(values), 6)
        self.assertLess(abs(values["process_start_time_seconds"] - time()), 86400)
        self.assertGreater(values["process_resident_memory_bytes"], 1 << 20)
        self.assertLess(abs(values["process_open_fds"] - len(os.listdir("/proc/self/fd"))), 3)


class RightTests(DaemonTests):
    """Who may see them, at a listener that serves everything."""

    config = "[auth]\nanonymous = publish, subscribe\n"

    def test_without_the_right_there_is_nothing_to_see(self) -> None:
        response = self.rig.get("/metrics")
        self.assert_problem(response, 403, says="no right to see the metrics")
        self.assertNotIn(b"pushd_", response.body)
        self.assertNotIn(__version__.encode(), response.body)

    def test_with_it_they_are_text_that_nobody_keeps(self) -> None:
        self.start("[auth]\nanonymous = operator\n")
        response = self.rig.get("/metrics")
        self.assertEqual(response.status, 200)
        self.assertEqual(response.header("content-type"), "text/plain; version=0.0.4; charset=utf-8")
        self.assertEqual(response.header("cache-control"), "no-store")
        self.assertIn("pushd_build_info", response.body.decode())
        self.assertEqual(self.rig.request("HEAD", "/metrics").body, b"")

    def test_they_are_behind_the_gate(self) -> None:
        self.start("[auth]\nanonymous = operator\n")
        self.assert_problem(
            self.rig.request("GET", "/metrics", host="evil.example"), 403, field="Host", says="Host"
        )

    def test_what_is_no_question_for_them_is_refused(self) -> None:
        self.start("[auth]\nanonymous = operator\n")
        self.assert_problem(self.rig.get("/metrics?name=x"), 400, field="name")
        self.assert_problem(self.rig.request("POST", "/metrics"), 405)
        self.assert_problem(self.rig.get("/metrics/x"), 404)


class _OperationsRig(DaemonRig):
    """A daemon whose clients come to a listener that serves operations."""

    def connect(self, *arguments: object, **named: object) -> object:  # type: ignore[override]
        site, self.parts.site._choice = self.parts.site._choice, self.parts.operations._choice
        try:
            return super().connect(*arguments, **named)  # type: ignore[arg-type]
        finally:
            self.parts.site._choice = site


class OperationsTests(SynchronousTestCase):
    """What a listener serves that serves operations."""

    def get(self, target: str, *, host: str = "localhost", config: str = "", method: str = "GET") -> Response:
        """Ask such a listener."""
        rig = _OperationsRig(f"[auth]\nanonymous =\n{config}")
        return rig.request(method, target, host=host)

    def test_what_it_has_is_there_without_rights_and_by_any_name(self) -> None:
        for target in ("/metrics", "/healthz", "/readyz"):
            self.assertEqual(self.get(target, host="prometheus.example").status, 200, target)
            self.assertEqual(self.get(target, method="HEAD").status, 200, target)
            self.assertEqual(self.get(target, method="POST").status, 405, target)

    def test_there_is_nothing_else(self) -> None:
        for target in (
            *("/", "/channels", "/channels/a", "/publish", "/sse?channel=a", "/ws?channel=a"),
            *("/stream?channel=a", "/poll?channel=a", "/push?channel=a", "/demo.js", "/metrics/x"),
        ):
            for method in ("GET", "POST"):
                self.assertEqual(self.get(target, method=method).status, 404, target)

    def test_the_status_is_for_operators_who_show_a_token(self) -> None:
        tokens = FakeTokens(operator=identity(operator=True), other=identity(publish=("**",), subscribe=("**",)))
        for anonymous in ("", "operator, publish, subscribe"):
            rig = _OperationsRig(f"[auth]\nanonymous = {anonymous}\n", integrations=Integrations(tokens))
            for target in ("/connections", "/status/events"):
                for token, status in (("operator", 200), ("other", 403), ("unknown", 401)):
                    self.assertEqual(rig.get(target, Authorization=f"Bearer {token}").status, status, target)
                self.assertEqual(rig.get(target).status, 401, target)
                self.assertEqual(rig.request("GET", target, host="evil.example").status, 403, target)
            self.assertEqual(rig.request("DELETE", "/connections?user=ann").status, 401)

    def test_without_a_key_nobody_sees_it(self) -> None:
        rig = _OperationsRig("[auth]\nanonymous = operator, publish, subscribe\n")
        for config in ("[auth]\nanonymous = operator\n", "[auth]\nanonymous = operator, subscribe\n"):
            for target in ("/connections", "/status/events"):
                self.assertEqual(rig.get(target).status, 403, target)
            rig.reload(config)

    def test_a_new_key_holds_there_too(self) -> None:
        rig = _OperationsRig("[auth]\nanonymous =\n")
        self.assertEqual(rig.get("/connections", Authorization="Bearer operator").status, 403)
        rig.reload("[auth]\nanonymous =\n", Integrations(FakeTokens(operator=identity(operator=True))))
        self.assertEqual(rig.get("/connections", Authorization="Bearer operator").status, 200)

    def test_nobody_publishes_there_and_the_page_is_told_so(self) -> None:
        rig = _OperationsRig(integrations=Integrations(FakeTokens(operator=identity(operator=True))))
        response = rig.get("/status/events", Authorization="Bearer operator")
        self.assertIn(b'"publishes":false', response.body)

    def test_it_has_the_same_figures_and_is_not_in_them(self) -> None:
        rig = _OperationsRig()
        rig.parts.bus.counters.published = 7
        for _ in range(3):
            samples = parsed(rig.get("/metrics").body)
        none = frozenset[tuple[str, str]]()
        self.assertEqual(samples["pushd_events_published_total", none], 7)
        self.assertEqual(samples["pushd_connections", none], 0)
        self.assertEqual(samples["pushd_connections_accepted_total", none], 0)

    def test_it_answers_when_no_more_clients_are_let_in(self) -> None:
        rig = _OperationsRig("[limits]\nconnections = 1\n")
        DaemonRig.connect(rig)
        self.assertEqual(DaemonRig.connect(rig).rig.get("/readyz").status, 200)

    def test_a_body_is_refused(self) -> None:
        rig = _OperationsRig()
        self.assertEqual(rig.request("GET", "/metrics", body=b"x").status, 413)
        self.assertEqual(rig.request("POST", "/metrics", body=b"x").status, 405)

    def test_a_reload_changes_nothing_of_it(self) -> None:
        rig = _OperationsRig()
        rig.reload("[auth]\nanonymous =\n[limits]\nhead_timeout = 3s\n")
        self.assertEqual(rig.get("/metrics").status, 200)
        self.assertEqual(rig.get("/channels").status, 404)
