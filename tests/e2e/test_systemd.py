"""Under systemd, whose part a test plays: what it is told, its watchdog, and its sockets across restarts."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from signal import SIGABRT, SIGCONT, SIGHUP, SIGSTOP, SIGTERM
from threading import Event, Thread
from time import sleep
from urllib.parse import urlsplit

import pytest

from tests.e2e.daemon import Daemon, free_port, tcp, twistd
from tests.e2e.programs import eventually, program, talking_to
from tests.e2e.systemd import Systemd, listening, supervised
from tests.e2e.test_stop import STOPPED, Publisher, kept
from tests.rigs.certificates import Authority

pytestmark = pytest.mark.timeout(120)

TWO = tcp("http") + tcp("https", tls=True)


def assert_silent(systemd: Systemd, for_s: float) -> None:
    """Check that nothing comes for a while, once what is on its way has come."""
    sleep(0.2)
    before = len(systemd.told)
    sleep(for_s)
    assert systemd.told[before:] == []


def stalled(daemon: Daemon) -> socket.socket:
    """Subscribe, and take nothing of what comes: the daemon has more for it than the kernel takes."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((urlsplit(daemon.http).hostname, urlsplit(daemon.http).port))
    client.sendall(b"GET /sse?channel=big HTTP/1.1\r\nHost: localhost\r\n\r\n")
    eventually(lambda: daemon.has_subscribers("big", 1), "it is subscribed")
    for _ in range(10):
        daemon.publish("big", "x" * 60_000)
    return client


class TestTelling:
    """What is told, and in which order."""

    def test_a_life(self) -> None:
        """Ready when every place takes connections, reloading and ready again, stopping; one datagram for each."""
        ports, reached = [free_port(), free_port()], list[int]()

        def connect() -> None:
            for port in ports:
                with socket.create_connection(("127.0.0.1", port), 5):
                    reached.append(port)

        listeners = tcp("http", ports[0]) + tcp("https", ports[1], tls=True)
        with supervised(listeners=listeners, at_ready=connect) as (daemon, systemd):
            systemd.wait_for("READY")
            assert reached == ports
            eventually(lambda: systemd.about("STATUS"), "there are figures")
            daemon.publish("a", "1")
            daemon.signal(SIGHUP)
            systemd.wait_for("READY", "RELOADING", "READY")
            (reloading,) = systemd.about("RELOADING")
            assert reloading.keys == ["RELOADING", "MONOTONIC_USEC"]
            assert abs(int(reloading.text.rpartition("=")[2]) / 1e6 - reloading.time) < 5
            assert daemon.stop() in STOPPED
            assert systemd.states == ["READY", "RELOADING", "READY", "STOPPING"]
            (stopping,) = systemd.about("STOPPING")
            assert stopping.keys == ["STOPPING", "EXTEND_TIMEOUT_USEC"]
            assert not systemd.about("WATCHDOG", "ERRNO", "MAINPID")

    def test_the_figures_are_live(self) -> None:
        with supervised(listeners=TWO) as (daemon, systemd), ExitStack() as clients:
            for _ in range(3):
                clients.enter_context(talking_to([program("curl"), "-sSN", f"{daemon.http}/sse?channel=a"]))
            eventually(lambda: daemon.has_subscribers("a", 3), "they are subscribed")
            daemon.publish("a", "1")
            wanted = "STATUS=connections: 3, subscribers: 3, channels: "
            eventually(lambda: systemd.about("STATUS")[-1].text.startswith(wanted), "the figures are told")

    def test_a_port_that_is_taken(self) -> None:
        with closing(listening(("127.0.0.1", 0))) as other:
            port = other.getsockname()[1]
            with supervised(listeners=tcp("http", port), starts=False) as (daemon, systemd):
                daemon.launch()
                assert daemon.wait() == 1
                eventually(lambda: systemd.told, "it is told")
                assert re.fullmatch(
                    rf"STATUS=\[listen:http\] tcp:{port}:\S+ cannot listen: Address already in use"
                    r"; choose another port, .*\n"
                    rf"ERRNO={errno.EADDRINUSE}",
                    systemd.told[0].text,
                )
                assert len(systemd.told) == 1

    def test_a_configuration_that_is_wrong_and_a_store_that_is_in_use(self) -> None:
        with supervised(listeners=TWO) as (first, _):
            state = f"state_directory = {first.directory}/state\n"
            with supervised(listeners=TWO, state=state, starts=False) as (daemon, systemd):
                daemon.launch()
                assert daemon.wait() == 1
                daemon.write_config("[limits]\noutbox = many\n")
                daemon.launch()
                assert daemon.wait() == 1
                eventually(lambda: len(systemd.told) == 2, "both are told")
                store, configuration = (told.text for told in systemd.told)
                assert store.startswith(f"STATUS=another pushd, process {first.pid}, uses the state directory ")
                assert "[limits] outbox = many: wanted " in configuration

    def test_without_anybody_who_listens_it_runs_all_the_same(self) -> None:
        with supervised(listeners=TWO, starts=False) as (daemon, systemd):
            Path(systemd.address).rename(f"{systemd.address}-elsewhere")
            daemon.start()
            daemon.publish("a", "1")
            assert daemon.stop() in STOPPED
            assert daemon.log.count("could not tell systemd READY") == 1
            Path(f"{systemd.address}-elsewhere").rename(systemd.address)


class TestWatchdog:
    """Signs of life come from the reactor."""

    def test_they_come_twice_as_often_as_they_must(self) -> None:
        with supervised(listeners=TWO, watchdog_s=1) as (_, systemd):
            eventually(lambda: len(systemd.about("WATCHDOG")) > 6, "it shows signs of life")
            times = [told.time for told in systemd.about("WATCHDOG")]
            assert 0.3 < (times[6] - times[0]) / 6 < 0.9

    def test_a_process_that_is_stopped_misses_it(self) -> None:
        with supervised(listeners=TWO, watchdog_s=0.6) as (daemon, systemd):
            eventually(lambda: systemd.about("WATCHDOG"), "it shows a sign of life")
            daemon.signal(SIGSTOP)
            assert_silent(systemd, 1.5)
            count = len(systemd.about("WATCHDOG"))
            daemon.signal(SIGCONT)
            eventually(lambda: len(systemd.about("WATCHDOG")) > count, "it lives again")

    def test_a_reactor_that_is_blocked_misses_it_and_the_next_daemon_has_everything(self) -> None:
        """What blocks it is a certificate to read again that is a FIFO, into which nobody writes."""
        with supervised(listeners=tcp("http"), watchdog_s=0.6) as (daemon, systemd):
            certificate, key = map(Path, Authority().issue("push", purposes=()).write(daemon.directory, "push"))
            files = f"certificate = {certificate}\nkey = {key}\n"
            assert daemon.stop() in STOPPED
            state = f"[pushd]\nstate_directory = {daemon.directory}/state\n"
            daemon.write_config(f"{state}{tcp('http')}{tcp('https', tls=True)}{files}")
            daemon.start()
            acknowledged = [daemon.publish("a", str(number))["id"] for number in range(20)]
            pem = certificate.read_bytes()
            certificate.unlink()
            os.mkfifo(certificate)
            systemd.told.clear()
            daemon.signal(SIGHUP)
            systemd.wait_for("RELOADING")
            assert_silent(systemd, 1.5)
            certificate.write_bytes(pem)  # which lets it go on
            systemd.wait_for("RELOADING", "READY")
            eventually(lambda: len(systemd.about("WATCHDOG")) > 1, "it lives again")

            daemon.signal(SIGHUP)
            systemd.wait_for("RELOADING", "READY", "RELOADING")
            assert_silent(systemd, 1.5)
            daemon.signal(SIGABRT)  # as systemd does then
            assert daemon.wait() == -SIGABRT
            assert "Fatal Python error: Aborted" in daemon.stderr
            assert "in load" in daemon.stderr  # where it hung
            certificate.unlink()
            certificate.write_bytes(pem)
            daemon.start()
            events = daemon.get("/channels/a/events?limit=1000&since=earliest")["events"]
            assert [event["id"] for event in events] == acknowledged


class TestStop:
    """SIGTERM, as ``systemctl stop`` sends it."""

    def test_under_load_everything_is_drained_while_it_says_how_far_it_is(self) -> None:
        sections = "[channels]\nhistory_size = 100000\n"
        state = "state_directory = {directory}/state\nstop_timeout = 60s\n"
        with (
            supervised(sections, listeners=TWO, state=state, watchdog_s=1) as (daemon, systemd),
            ExitStack() as more,
        ):
            publishers = [Publisher(daemon, f"p{number}") for number in range(4)]
            slow = more.enter_context(closing(stalled(daemon)))
            for publisher in publishers:
                publisher.start()
            eventually(lambda: all(len(it.acknowledged) > 50 for it in publishers), "they publish")
            daemon.signal(SIGTERM)
            for publisher in publishers:
                publisher.join(15)
            eventually(lambda: "STOPPING" in systemd.states, "it stops")
            (stopping,) = systemd.about("STOPPING")
            assert int(stopping.text.rpartition("=")[2]) > 60_000_000
            eventually(lambda: systemd.about("STATUS")[-1].text == "STATUS=stopping; connections: 1", "one is left")
            before = len(systemd.about("WATCHDOG"))
            eventually(lambda: len(systemd.about("WATCHDOG")) > before + 1, "it shows that it lives")
            assert not daemon.has_ended
            slow.close()
            assert daemon.wait() in STOPPED
            assert all(set(publisher.others) <= {503} for publisher in publishers)
            daemon.start()
            found = set(kept(daemon, "load"))
            assert not {data for publisher in publishers for data in publisher.acknowledged} - found


class Client(Thread):
    """Publishes, each time over a connection of its own, until it is told to end."""

    def __init__(self, name: str, address: str | tuple[str, int], *, tls: bool) -> None:
        super().__init__(daemon=True)
        self.prefix = f"{name} "
        """What its data begins with."""
        self.acknowledged: list[str] = []
        """What was answered with 201."""
        self.others: list[str] = []
        """What became of the rest."""
        self.stopping = Event()
        """Set when it is to end."""
        self._address = address
        self._tls = ssl._create_unverified_context() if tls else None

    def run(self) -> None:
        """Override: publish."""
        number = 0
        while not self.stopping.is_set():
            number += 1
            data = f"{self.prefix}{number}"
            try:
                status = self._publish(data)
            except (OSError, HTTPException) as error:
                self.others.append(f"{data}: {error!r}")
                continue
            if status == 201:
                self.acknowledged.append(data)
            else:
                self.others.append(f"{data}: {status}")

    def _publish(self, data: str) -> int:
        with closing(HTTPConnection("localhost", timeout=30)) as connection:
            connection.sock = self._connect()
            connection.request("POST", "/channels/load", data, {"Connection": "close"})
            answer = connection.getresponse()
            answer.read()
            return answer.status

    def _connect(self) -> socket.socket:
        if isinstance(self._address, str):
            found = socket.socket(socket.AF_UNIX)
            found.settimeout(30)
            found.connect(self._address)
        else:
            found = socket.create_connection(self._address, 30)
        return found if self._tls is None else self._tls.wrap_socket(found, server_hostname="localhost")


@contextmanager
def socket_units() -> Iterator[dict[str, socket.socket]]:
    """Open what socket units open: TCP for HTTP and HTTPS, one of it for IPv6 too, and a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="units-") as directory, ExitStack() as stack:
        both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
        yield {
            "http": stack.enter_context(listening(("127.0.0.1", 0))),
            "https": stack.enter_context(both),
            "unix": stack.enter_context(listening(f"{directory}/http.sock", socket.AF_UNIX)),
        }


def inherited(name: str, domain: str = "INET", more: str = "") -> str:
    """Return the section of a listener at a socket of systemd."""
    return f"[listen:{name}]\nendpoint = systemd:domain={domain}:name={name}\n{more}"


INHERITED = inherited("http") + inherited("https", "INET6", "tls = yes\n") + inherited("unix", "UNIX")
OPEN = "[auth]\nanonymous = publish, subscribe, operator\nhosts = localhost\n[channels]\nhistory_size = 100000\n"


class TestSockets:
    """Sockets that systemd opens, and that outlive the daemon."""

    def test_they_are_what_the_greeting_says_and_what_serves(self) -> None:
        with socket_units() as sockets, supervised(OPEN, listeners=INHERITED, sockets=sockets) as (daemon, systemd):
            http, https = (sockets[name].getsockname()[1] for name in ("http", "https"))
            unix = sockets["unix"].getsockname()
            assert daemon.urls == [f"http://127.0.0.1:{http}", f"https://localhost:{https}", f"http+unix://{unix}"]
            systemd.wait_for("READY")
            for address in ("127.0.0.1", "::1"):
                curl = [program("curl"), "-sSk", "--http2", f"https://localhost:{https}/healthz", "--resolve"]
                done = subprocess.run([*curl, f"localhost:{https}:{address}"], capture_output=True, timeout=20)
                assert b"connections" in done.stdout, done
            for name in ("http", "https"):
                for option, wanted in ((socket.TCP_USER_TIMEOUT, 40_000), (socket.TCP_NOTSENT_LOWAT, 131_072)):
                    assert sockets[name].getsockopt(socket.IPPROTO_TCP, option) == wanted
            mode = stat.S_IMODE(os.stat(unix).st_mode)
            assert daemon.stop() in STOPPED
            assert stat.S_IMODE(os.stat(unix).st_mode) == mode
            assert "cannot be closed" not in daemon.log

    def test_no_connection_is_refused_or_lost_across_restarts(self) -> None:
        with socket_units() as sockets, supervised(OPEN, listeners=INHERITED, sockets=sockets) as (daemon, systemd):
            addresses = {name: it.getsockname()[:2] for name, it in sockets.items() if name != "unix"}
            addresses["https"] = ("127.0.0.1", addresses["https"][1])
            path = sockets["unix"].getsockname()
            clients = [Client(f"http{number}", addresses["http"], tls=False) for number in range(3)]
            clients += [Client(f"https{number}", addresses["https"], tls=True) for number in range(3)]
            clients += [Client(f"unix{number}", path, tls=False) for number in range(2)]
            for client in clients:
                client.start()
            for _ in range(6):
                counts = [len(client.acknowledged) for client in clients]
                eventually(
                    lambda counts=counts: all(  # type: ignore[misc]
                        len(client.acknowledged) > count + 5 for client, count in zip(clients, counts, strict=True)
                    ),
                    "everybody goes on",
                    30,
                )
                assert daemon.stop() in STOPPED
                daemon.start()
            for client in clients:
                client.stopping.set()
            for client in clients:
                client.join(60)
            assert [other for client in clients for other in client.others] == []
            found = kept(daemon, "load")
            acknowledged = [data for client in clients for data in client.acknowledged]
            assert len(acknowledged) > 200
            assert sorted(found) == sorted(acknowledged)
            assert systemd.states == ["READY", *["STOPPING", "READY"] * 6]

    def test_who_waits_while_there_is_no_daemon_is_served_by_the_next_one(self) -> None:
        """More than Twisted would let wait, had it to say how many, and one whose request has come already."""
        with socket_units() as sockets, supervised(OPEN, listeners=INHERITED, sockets=sockets) as (daemon, _):
            assert daemon.stop() in STOPPED
            with ExitStack() as stack:
                waiting = []
                for number in range(150):
                    is_unix = number % 2
                    client = stack.enter_context(socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET))
                    client.settimeout(30)
                    client.connect(sockets["unix" if is_unix else "http"].getsockname())
                    client.sendall(
                        b"POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
                        b"Connection: close\r\n\r\nx"
                    )
                    waiting.append(client)
                daemon.start()
                assert {client.recv(12) for client in waiting} == {b"HTTP/1.1 201"}
            assert len(kept(daemon, "a")) == 150

    def test_who_shakes_hands_when_the_daemon_stops_is_still_answered(self) -> None:
        with socket_units() as sockets, supervised(OPEN, listeners=INHERITED, sockets=sockets) as (daemon, systemd):
            plain = socket.create_connection(("127.0.0.1", sockets["https"].getsockname()[1]), 20)
            eventually(lambda: daemon.get("/healthz")["connections"] == 2, "it is connected")  # and who asks
            daemon.signal(SIGTERM)
            eventually(lambda: "STOPPING" in systemd.states, "it stops")
            context = ssl._create_unverified_context()
            with context.wrap_socket(plain, server_hostname="localhost") as client:
                client.sendall(b"POST /channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx")
                assert client.recv(12) == b"HTTP/1.1 201"
            assert daemon.wait() in STOPPED

    def test_one_that_is_not_there_fails_the_start_and_one_too_many_is_warned_of(self) -> None:
        with socket_units() as sockets:
            some = {name: sockets[name] for name in ("https", "unix")}
            with supervised(OPEN, listeners=inherited("http"), sockets=some, starts=False) as (daemon, systemd):
                daemon.launch()
                assert daemon.wait() == 1
                why = "cannot listen: systemd has passed no such socket; it has passed https, unix"
                assert daemon.stderr == f"pushd: [listen:http] systemd:domain=INET:name=http: {why}\n"
                eventually(lambda: systemd.told, "it is told")
                assert why in systemd.told[0].text
                state = f"[pushd]\nstate_directory = {daemon.directory}/state\n"
                daemon.write_config(f"{state}{tcp('http')}{inherited('unix', 'UNIX')}{OPEN}")
                daemon.start()
                assert "nobody listens at the socket https of systemd" in daemon.log
                assert "nobody listens at the socket unix" not in daemon.log

    def test_the_configuration_can_be_checked_without_them(self) -> None:
        with supervised(OPEN, listeners=INHERITED, starts=False) as (daemon, _):
            done = twistd("pushd", "--check", "--config", str(daemon.config), directory=daemon.directory)
            assert (done.returncode, done.stderr) == (0, ""), done
