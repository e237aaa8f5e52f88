"""The real daemon, looked at from outside: metrics, readiness, and listeners for operations."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from signal import SIGHUP, SIGTERM
from time import sleep
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from tests.e2e.daemon import Daemon, free_port, request, running, tcp
from tests.e2e.programs import eventually
from tests.e2e.test_store_faults import fill_up, small_disk

pytestmark = pytest.mark.timeout(90)

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def operations(port: int) -> str:
    """Return the section of a listener for operations."""
    return f"[listen:operations]\nendpoint = tcp:{port}:interface=127.0.0.1\nserves = operations\n"


def scrape(url: str) -> Samples:
    """Return what there is at `url`, as Prometheus would."""
    answer = request(f"{url}/metrics")
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


class Watched:
    """A daemon and its listener for operations."""

    def __init__(self, url: str) -> None:
        self.url = url

    def value(self, name: str, **labels: str) -> float:
        """Return one figure."""
        return scrape(self.url)[name, frozenset(labels.items())]

    def is_ready(self) -> bool:
        """Return whether it says that it is ready."""
        return request(f"{self.url}/readyz").status == 200


class TestMetrics:
    def test_traffic_of_every_kind_is_in_them(self) -> None:
        port = free_port()
        with running(listeners=tcp("http") + tcp("https", tls=True) + operations(port)) as daemon:
            watched = Watched(f"http://127.0.0.1:{port}")
            before = scrape(watched.url)
            with (
                connect(f"{daemon.ws}?channel=a", proxy=None) as socket,
                httpx.Client(http2=True, verify=False) as http2,
                http2.stream("GET", f"{daemon.https}/sse?channel=a"),
            ):
                eventually(lambda: daemon.has_subscribers("a", 2), "both are subscribed")
                for number in range(10):
                    daemon.publish("a", str(number))
                for _ in range(10):
                    socket.recv(10)
                request(f"{daemon.http}/nowhere")
                tls = partial(watched.value, "pushd_tls_handshakes_total", outcome="failed")
                with closing(_connection(daemon.https)) as broken:
                    broken.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    broken.recv(100)
                eventually(lambda: tls() == 1, "the handshake has failed")
                after = scrape(watched.url)
                sleep(2.2)
                assert watched.value("pushd_reactor_lag_seconds_count") >= 2

            def moved(name: str, **labels: str) -> float:
                key = name, frozenset(labels.items())
                return after[key] - before.get(key, 0)

            assert moved("pushd_events_published_total") == 10
            assert moved("pushd_events_delivered_total", when="live") == 20
            assert moved("pushd_publish_latency_seconds_count") == 10
            assert 0 < moved("pushd_publish_latency_seconds_sum") < 5
            assert moved("pushd_store_commit_seconds_count") == 10
            assert moved("pushd_subscribers", transport="websocket") == 1
            assert moved("pushd_subscribers", transport="sse") == 1
            assert moved("pushd_subscriptions") == 2
            assert moved("pushd_written_bytes_total") > 20
            assert moved("pushd_tls_handshakes_total", outcome="completed") == 1
            assert moved("pushd_refused_total", reason="not_found") == 1
            assert moved("pushd_http_responses_total", code="201") == 10
            assert after["pushd_store_size_bytes", frozenset({("file", "journal")})] > 4096
            process = after["process_resident_memory_bytes", frozenset()]
            assert abs(process - daemon.resident_bytes) < 20 << 20
            assert after["process_open_fds", frozenset()] > 5
            eventually(lambda: watched.value("pushd_connections") == 0, "all have gone")
            ended = partial(watched.value, "pushd_subscribers_ended_total", reason="gone")
            assert ended(transport="websocket") == ended(transport="sse") == 1

    def test_of_two_listeners_one_shows_them_to_operators_and_one_to_everybody(self) -> None:
        port = free_port()
        sections = "[auth]\nanonymous = publish, subscribe\n"
        with running(sections, listeners=tcp("http") + operations(port)) as daemon:
            url = f"http://127.0.0.1:{port}"
            assert f"operations listen at {url}: /metrics, /readyz and /healthz" in daemon.log
            refused = request(f"{daemon.http}/metrics")
            assert (refused.status, refused.headers["content-type"]) == (403, "application/problem+json")
            assert b"pushd_" not in refused.body
            for path in ("/metrics", "/readyz", "/healthz"):
                assert request(url + path, headers={"Host": "prometheus.example"}).status == 200
            for path in ("/", "/channels", "/sse?channel=a", "/channels/a"):
                assert request(url + path).status == 404
                assert request(daemon.http + path, "OPTIONS").status != 404
            assert request(f"{url}/status").status == 200
            for path in ("/connections", "/status/events"):
                assert request(url + path).status == 403
            assert request(f"{url}/channels/a", "POST").status == 404
            daemon.signal(SIGHUP)
            eventually(lambda: "reloaded the configuration" in daemon.log, "it has reloaded")
            assert request(f"{url}/metrics").status == 200
            assert request(f"{url}/channels").status == 404

    def test_over_tls(self) -> None:
        port = free_port()
        with running(listeners=tcp("http") + operations(port) + "tls = yes\n") as daemon:
            context = ssl.create_default_context(cafile=str(daemon.certificate))
            answer = httpx.get(f"https://localhost:{port}/metrics", verify=context)
            assert (answer.status_code, "pushd_build_info" in answer.text) == (200, True)


class TestReady:
    def test_not_while_the_disk_is_full_and_again_by_itself(self, tmp_path: Path) -> None:
        disk, port = tmp_path / "disk", free_port()
        state = f"state_directory = {disk}\nstop_timeout = 2s\n"
        with (
            small_disk(disk, "8m"),
            running(listeners=tcp("http") + operations(port), state=state) as daemon,
        ):
            watched = Watched(f"http://127.0.0.1:{port}")
            assert watched.is_ready()
            ballast = fill_up(disk / "ballast")
            answers = [_publish(daemon) for _ in range(60)]
            assert 507 in answers, answers
            answer = request(f"{watched.url}/readyz")
            assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json")
            assert "the disk of the store is full" in answer.json()["detail"]
            assert request(f"{daemon.http}/readyz").status == 503
            assert request(f"{watched.url}/healthz").status == 200
            assert (watched.value("pushd_ready"), watched.value("pushd_refused_total", reason="no_room") > 0) == (
                0,
                True,
            )
            assert watched.value("pushd_store_failed_commits_total") > 0
            sleep(2.5)  # nobody publishes, and the disk stays full
            assert not watched.is_ready()
            ballast.unlink()
            eventually(watched.is_ready, "it has found out that there is room", 5)
            assert _publish(daemon) == 201
            assert daemon.log.count("publishing works again") == 1

    def test_not_while_it_stops_and_operations_see_the_others_go(self) -> None:
        port = free_port()
        state = "state_directory = {directory}/state\nstop_timeout = 4s\n"
        listeners = tcp("http") + operations(port)
        with running("[limits]\nheartbeat = 60s\n", listeners=listeners, state=state) as daemon:
            watched, parts = Watched(f"http://127.0.0.1:{port}"), urlsplit(daemon.http)
            assert watched.is_ready()
            slow = _connection(daemon.http)
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.sendall(b"GET /stream?channel=a HTTP/1.1\r\nHost: localhost\r\n\r\n")
            eventually(lambda: daemon.has_subscribers("a", 1), "it is subscribed")
            for _ in range(10):
                daemon.publish("a", "x" * 500_000)  # which it does not read, so that it is waited for
            daemon.signal(SIGTERM)
            eventually(lambda: not watched.is_ready(), "it is not ready any more", 3)
            answer = request(f"{watched.url}/readyz")
            assert (answer.status, answer.json()["detail"]) == (503, "the server is going away")
            assert watched.value("pushd_ready") == 0
            assert watched.value("pushd_connections") >= 1
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((parts.hostname, parts.port), 5)
            assert daemon.wait() in (0, -SIGTERM)
            slow.close()
            assert "Traceback" not in daemon.log + daemon.stderr


def _connection(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), 10)


def _publish(daemon: Daemon) -> int:
    return request(f"{daemon.http}/channels/a", "POST", json.dumps("x" * 20000).encode()).status
