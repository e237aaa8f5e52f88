"""The life of the daemon: its start, what it says if it cannot, its log, its end."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from ipaddress import ip_address
from pathlib import Path
from signal import SIGHUP, SIGKILL, SIGTERM
from stat import S_IMODE
from time import monotonic
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.e2e.daemon import REPOSITORY, environment, free_port, installed, request, running, tcp, twistd
from tests.e2e.programs import eventually, program

pytestmark = pytest.mark.timeout(90)

SECRET = "s3cr3t-of-a-query"

STOPPED = (0, -SIGTERM)
"""The exit status of a daemon that was told to stop: twistd ends by the signal, once everything is done."""


@contextmanager
def taken_port() -> Iterator[int]:
    """Listen at some port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@contextmanager
def streaming(url: str) -> Iterator[HTTPResponse]:
    """Begin a request whose answer does not end."""
    parts = urlsplit(url)
    with closing(HTTPConnection(parts.netloc, timeout=15)) as connection:
        connection.request("GET", f"{parts.path}?{parts.query}")
        yield connection.getresponse()


def key_pair(directory: Path, name: str) -> tuple[Path, Path]:
    """Write a certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now + timedelta(days=2))
    certificate = builder.sign(key, hashes.SHA256())
    paths = directory / f"{name}.crt", directory / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that says why there was no start."""
    assert done.returncode == 1, done
    assert "Traceback" not in done.stdout + done.stderr, done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done
    assert lines[0].startswith("pushd: "), done
    return lines[0]


class TestStart:
    """What an operator sees first."""

    def test_the_first_lines_say_where_it_listens_and_what_to_try(self) -> None:
        with running() as daemon:
            lines = [line.partition("] ")[2] for line in daemon.log.splitlines()]
            first = lines.index(f"pushd listens at {' and '.join(daemon.urls)}")
            url = daemon.urls[0]
            assert daemon.urls[2] == f"http+unix://{daemon.socket}"
            assert lines[first + 1 :] == [
                f"open {url}/ in a browser, or try:",
                f"    curl -N '{url}/sse?channel=clock'",
                f"    curl -d 'hello' '{url}/channels/news'",
            ]
            assert daemon.stderr == ""

    def test_the_command_that_it_suggests_works(self) -> None:
        curl = program("curl")
        with running() as daemon:
            command = shlex.split(daemon.log.splitlines()[-1].partition("] ")[2])
            done = subprocess.run([curl, "-sS", *command[1:]], capture_output=True, text=True, timeout=30)
            assert json.loads(done.stdout)["channel"] == "news", done

    def test_the_commands_with_a_token_work_as_they_are(self) -> None:
        key = f"[key:app]\nalgorithm = HS256\nsecret = {'s' * 32}\n"
        with running(f"{key}[auth]\nanonymous =\n") as daemon:
            lines = [line.partition("] ")[2].strip() for line in daemon.log.splitlines()]
            making, subscribing, publishing = lines[-3:]
            path = f"{Path(installed('twistd')).parent}{os.pathsep}{Path(program('curl')).parent}"
            variables = environment(daemon.directory, PATH=f"{path}{os.pathsep}{os.environ['PATH']}")

            def run(*commands: str) -> str:
                command = ["sh", "-c", "; ".join(commands)]
                done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
                return done.stdout

            assert json.loads(run(making, publishing))["channel"] == "news"
            assert json.loads(run(publishing))["status"] == 401  # $TOKEN is empty then
            assert "\ndata: 20" in run(making, subscribing.replace("curl", "curl -m 3"))

    def test_without_a_configuration_it_listens_at_8080_and_8443_of_this_machine_only(self, tmp_path: Path) -> None:
        printed = twistd("-n", "pushd", "--print-config", directory=tmp_path).stdout
        listeners = re.findall(r"\[listen:\w+\]\nendpoint = (\S+)\ntls = (\w+)", printed)
        assert listeners == [("tcp:8080:interface=127.0.0.1", "no"), ("tcp:8443:interface=127.0.0.1", "yes")]

    def test_without_a_configuration_it_starts_or_says_which_port_is_taken(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [installed("twistd"), "-n", "--pidfile=", "pushd"],
                cwd=tmp_path,
                env=environment(tmp_path, XDG_STATE_HOME=str(tmp_path / "xdg")),
                stdout=file,
                stderr=file,
            )
        try:
            eventually(lambda: "pushd listens at" in log.read_text() or process.poll() is not None, "it started")
            text = log.read_text()
            if "cannot listen" not in text:  # else somebody on this machine has the port
                assert "pushd listens at http://127.0.0.1:8080 and https://127.0.0.1:8443\n" in text
            else:
                assert re.search(r"pushd: \[listen:https?\] tcp:8(080|443):.*: cannot listen: .*in use", text)
            assert (tmp_path / "xdg" / "pushd" / "self-signed.key").exists()
        finally:
            process.kill()
            process.wait(10)

    def test_the_self_signed_certificate_is_for_this_machine_and_stays_over_a_restart(self, tmp_path: Path) -> None:
        with running(state="", variables={"XDG_STATE_HOME": str(tmp_path)}) as daemon:
            certificate, key = tmp_path / "pushd" / "self-signed.crt", tmp_path / "pushd" / "self-signed.key"
            assert S_IMODE(key.stat().st_mode) == 0o600
            pem, secret = certificate.read_bytes(), key.read_bytes()
            parsed = x509.load_pem_x509_certificate(pem)
            public = parsed.public_key()
            assert isinstance(public, ec.EllipticCurvePublicKey)
            assert isinstance(public.curve, ec.SECP256R1)
            names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.DNSName) == ["localhost"]
            assert names.get_values_for_type(x509.IPAddress) == [ip_address("127.0.0.1"), ip_address("::1")]

            assert daemon.stop() in STOPPED
            daemon.start()
            assert (certificate.read_bytes(), key.read_bytes()) == (pem, secret)

    def test_a_restart_on_the_same_ports_and_socket_works(self) -> None:
        port = free_port()
        with running(listeners=tcp("http", port) + "[listen:unix]\nendpoint = unix:{directory}/s\n") as daemon:
            for _ in range(2):
                assert daemon.get("/healthz")["status"] == "ok"
                assert daemon.stop() in STOPPED
                daemon.start()

    def test_a_restart_after_a_kill_works(self) -> None:
        with running(listeners=tcp("http") + "[listen:unix]\nendpoint = unix:{directory}/s\n") as daemon:
            daemon.signal(SIGKILL)
            daemon.wait()
            daemon.start()
            assert daemon.get("/healthz")["status"] == "ok"


BAD_CONFIGURATIONS: dict[str, tuple[str, str]] = {
    "wrong value": ("[pushd]\nstop_timeout = soon\n", r"\[pushd\] stop_timeout = soon: wanted"),
    "unknown option": ("[limits]\noutbux = 1MiB\n", r"outbux.*did you mean outbox\?"),
    "unknown section": ("[sight]\n", r"\[sight\]: .*did you mean \[site\]\?"),
    "no ini file": ("hello\n", r"pushd\.ini: "),
    "endpoint without a port": ("[listen:x]\nendpoint = tcp:notaport\n", r"\[listen:x\] endpoint = tcp:notaport"),
    "endpoint of no kind": ("[listen:x]\nendpoint = pigeon:1\n", r"\[listen:x\] endpoint = pigeon:1"),
    "root missing": (tcp("x") + "[site]\nroot = {directory}/nowhere\n", r"\[site\] root = .*/nowhere"),
    "certificate missing": (
        tcp("x", tls=True) + "certificate = {directory}/none.crt\nkey = {directory}/a.key\n",
        r"/none\.crt: cannot be read: No such file",
    ),
    "key missing": (
        tcp("x", tls=True) + "certificate = {directory}/a.crt\nkey = {directory}/none.key\n",
        r"/none\.key: cannot be read: No such file",
    ),
    "key of another": (
        tcp("x", tls=True) + "certificate = {directory}/a.crt\nkey = {directory}/b.key\n",
        r"/b\.key is not the key of the certificate in .*/a\.crt",
    ),
    "certificate that is none": (
        tcp("x", tls=True) + "certificate = {directory}/pushd.ini\nkey = {directory}/a.key\n",
        r"/pushd\.ini: not a PEM certificate",
    ),
    "key that is none": (
        tcp("x", tls=True) + "certificate = {directory}/a.crt\nkey = {directory}/pushd.ini\n",
        r"/pushd\.ini: not a PEM private key",
    ),
    "state directory that cannot be": (
        "[pushd]\nstate_directory = /dev/null/pushd\n" + tcp("x", tls=True),
        r"/dev/null/pushd.*: cannot be written",
    ),
    "open to others without a word": ("[listen:x]\nendpoint = tcp:0\n", r"open to other machines.*anonymous"),
    "directory of the socket missing": (
        "[listen:x]\nendpoint = unix:{directory}/nowhere/s\n",
        r"\[listen:x\] unix:.*/nowhere/s: cannot listen: No such file",
    ),
}


class TestFailedStart:
    """When it cannot start it says why in one line, and its exit status is 1."""

    @pytest.mark.parametrize("what", BAD_CONFIGURATIONS)
    def test_what_is_wrong_is_said_in_one_line(self, what: str, tmp_path: Path) -> None:
        text, expected = BAD_CONFIGURATIONS[what]
        key_pair(tmp_path, "a")
        key_pair(tmp_path, "b")
        config = tmp_path / "pushd.ini"
        config.write_text(text.replace("{directory}", str(tmp_path)))
        line = one_line(twistd("-n", "--pidfile=", "pushd", "--config", str(config), directory=tmp_path))
        assert re.search(expected, line), line

    @pytest.mark.parametrize("what", sorted(set(BAD_CONFIGURATIONS) - {"directory of the socket missing"}))
    def test_check_finds_it_too(self, what: str, tmp_path: Path) -> None:
        text, expected = BAD_CONFIGURATIONS[what]
        key_pair(tmp_path, "a")
        key_pair(tmp_path, "b")
        config = tmp_path / "pushd.ini"
        config.write_text(text.replace("{directory}", str(tmp_path)))
        line = one_line(twistd("-n", "pushd", "--check", "--config", str(config), directory=tmp_path))
        assert re.search(expected, line), line

    def test_a_missing_configuration(self, tmp_path: Path) -> None:
        line = one_line(twistd("-n", "--pidfile=", "pushd", "--config", "none.ini", directory=tmp_path))
        assert line == "pushd: none.ini: cannot be read: No such file or directory"

    def test_an_unreadable_configuration(self, tmp_path: Path) -> None:
        """A directory: root can read everything else."""
        line = one_line(twistd("-n", "--pidfile=", "pushd", "--config", str(tmp_path), directory=tmp_path))
        assert line == f"pushd: {tmp_path}: cannot be read: Is a directory"

    def test_a_configuration_in_another_encoding(self, tmp_path: Path) -> None:
        config = tmp_path / "pushd.ini"
        config.write_bytes("[site]\nroot = /srv/größe\n".encode("latin-1"))
        line = one_line(twistd("-n", "--pidfile=", "pushd", "--config", str(config), directory=tmp_path))
        assert "UTF-8" in line

    def test_a_taken_port_and_no_pidfile_stays(self, tmp_path: Path) -> None:
        config = tmp_path / "pushd.ini"
        with taken_port() as port:
            config.write_text(tcp("x") + tcp("y", port))
            done = twistd("-n", "--pidfile=my.pid", "pushd", "--config", str(config), directory=tmp_path)
            line = one_line(done)
            expected = f"pushd: [listen:y] tcp:{port}:interface=127.0.0.1: cannot listen: Address already in use"
            assert line == f"{expected}; choose another port, with endpoint in [listen:y] of the file of --config"
            assert not (tmp_path / "my.pid").exists()
            assert "pushd listens at" not in done.stdout

    def test_a_taken_socket(self, tmp_path: Path) -> None:
        with running() as daemon:
            config = tmp_path / "pushd.ini"
            config.write_text(f"[listen:x]\nendpoint = unix:{daemon.socket}\n")
            line = one_line(twistd("-n", "--pidfile=", "pushd", "--config", str(config), directory=tmp_path))
            assert f"[listen:x] unix:{daemon.socket}: cannot listen: " in line
            curl = program("curl")
            command = [curl, "-sS", "--unix-socket", str(daemon.socket), "http://localhost/healthz"]
            assert b'"ok"' in subprocess.run(command, capture_output=True, timeout=30).stdout

    def test_an_unknown_option_on_the_command_line(self, tmp_path: Path) -> None:
        line = one_line(twistd("-n", "--pidfile=", "pushd", "--konfig", "x", directory=tmp_path))
        assert (
            line
            == "pushd: option --konfig not recognized; did you mean --config? twistd pushd --help shows all options"
        )


class TestChecking:
    """What can be asked without a start."""

    def test_check_says_that_a_configuration_is_fine(self, tmp_path: Path) -> None:
        config = tmp_path / "pushd.ini"
        with taken_port() as port:
            config.write_text(tcp("x", port))
            done = twistd("-n", "pushd", "--check", "--config", str(config), directory=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{config} is fine\n", "")
        assert not (tmp_path / "twistd.pid").exists()

    def test_the_printed_configuration_is_accepted_and_prints_the_same(self, tmp_path: Path) -> None:
        first = twistd("-n", "pushd", "--print-config", directory=tmp_path)
        assert (first.returncode, first.stderr) == (0, "")
        config = tmp_path / "printed.ini"
        config.write_text(first.stdout)
        checked = twistd("-n", "pushd", "--check", "--config", str(config), directory=tmp_path)
        assert checked.returncode == 0, checked
        second = twistd("-n", "pushd", "--print-config", "--config", str(config), directory=tmp_path)
        assert second.stdout == first.stdout

    def test_the_configuration_in_etc_passes(self, tmp_path: Path) -> None:
        config = REPOSITORY / "etc" / "pushd.ini"
        done = twistd("-n", "pushd", "--check", "--config", str(config), directory=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_check_of_what_it_finds_in_etc_is_a_check_of_the_defaults(self, tmp_path: Path) -> None:
        config = REPOSITORY / "etc" / "pushd.ini"
        ours = twistd("-n", "pushd", "--print-config", "--config", str(config), directory=tmp_path)
        assert ours.stdout == twistd("-n", "pushd", "--print-config", directory=tmp_path).stdout


class TestReload:
    """SIGHUP reads the certificates again."""

    @staticmethod
    def name(url: str) -> str:
        """Return whom the certificate is for that the daemon sends."""
        address = urlsplit(url)
        assert address.hostname is not None and address.port is not None
        pem = ssl.get_server_certificate((address.hostname, address.port))
        subject = x509.load_pem_x509_certificate(pem.encode()).subject
        return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    def test_new_connections_get_the_new_certificate_and_old_ones_live_on(self, tmp_path: Path) -> None:
        for path in key_pair(tmp_path, "old"):
            path.rename(tmp_path / f"live{path.suffix}")
        listener = tcp("https", tls=True) + f"certificate = {tmp_path}/live.crt\nkey = {tmp_path}/live.key\n"
        trusting = ssl._create_unverified_context()
        with running(listeners=listener) as daemon:
            connection = HTTPSConnection(urlsplit(daemon.https).netloc, timeout=15, context=trusting)
            with closing(connection):
                connection.request("GET", "/healthz")
                connection.getresponse().read()
                assert self.name(daemon.https) == "old"
                for path in key_pair(tmp_path, "new"):
                    path.rename(tmp_path / f"live{path.suffix}")
                daemon.signal(SIGHUP)
                eventually(lambda: self.name(daemon.https) == "new", "the new certificate is served")
                connection.request("GET", "/healthz")
                assert connection.getresponse().status == 200
            (tmp_path / "live.crt").write_text("garbage")
            daemon.signal(SIGHUP)
            eventually(lambda: "not reloaded, everything stays as it was" in daemon.log, "the log says so")
            assert self.name(daemon.https) == "new"


class TestStop:
    """SIGTERM lets everybody go in order."""

    def test_everybody_is_told_and_every_answer_ends(self) -> None:
        with running(state="state_directory = {directory}/state\nstop_timeout = 30s\n") as daemon:
            with (
                connect(f"{daemon.ws}?channel=c", proxy=None) as websocket,
                streaming(f"{daemon.http}/sse?channel=c") as sse,
                streaming(f"{daemon.http}/stream?channel=c") as stream,
                closing(HTTPConnection(urlsplit(daemon.http).netloc, timeout=15)) as poll,
                closing(HTTPConnection(urlsplit(daemon.http).netloc, timeout=15)) as idle,
            ):
                idle.request("GET", "/healthz")
                idle.getresponse().read()
                poll.request("GET", "/poll?channel=c")
                eventually(lambda: daemon.has_subscribers("c", 4), "all are subscribed")
                daemon.publish("c", "last words")
                assert len(json.loads(poll.getresponse().read())["events"]) == 1
                poll.request("GET", "/poll?channel=c")
                eventually(lambda: daemon.has_subscribers("c", 4), "it polls again")

                began = monotonic()
                daemon.signal(SIGTERM)
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        websocket.recv(15)
                assert closed.value.rcvd is not None
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "the server is going away")
                events = sse.read().decode()  # raises IncompleteRead if the body does not end as it should
                assert "data: last words\n" in events
                last_event = 'event: pushd.closed\ndata: {"detail":"the server is going away"}\n\n'
                assert events.endswith(last_event)
                lines = [json.loads(line) for line in stream.read().splitlines() if line]
                assert [line["type"] for line in lines] == ["open", "event", "closed"]
                answer = poll.getresponse()
                assert answer.status == 503
                assert json.loads(answer.read())["detail"] == "the server is going away"
                assert daemon.wait() in STOPPED
                assert monotonic() - began < 10
            assert "Traceback" not in daemon.log
            assert "stopping; 5 connections are open" in daemon.log

    def test_a_request_at_hand_is_answered(self) -> None:
        with running(state="stop_timeout = 30s\n", listeners=tcp("http")) as daemon:
            parts = urlsplit(daemon.http)
            with closing(socket.create_connection((parts.hostname, parts.port), 15)) as client:
                client.sendall(b"POST /channels/c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhel")
                eventually(lambda: daemon.get("/healthz")["connections"] == 2, "the request has begun")
                daemon.signal(SIGTERM)
                eventually(lambda: "stopping; " in daemon.log, "it stops")
                client.sendall(b"lo")
                answer = b"".join(iter(lambda: client.recv(4096), b""))
            assert answer.startswith(b"HTTP/1.1 201 "), answer
            assert daemon.wait() in STOPPED

    def test_those_who_do_not_go_are_aborted_after_stop_timeout(self) -> None:
        sections = "[limits]\noutbox = 64MiB\n"
        with running(sections, state="stop_timeout = 1s\n", listeners=tcp("http")) as daemon:
            parts = urlsplit(daemon.http)

            def ask(head: str) -> socket.socket:
                client = socket.socket()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.settimeout(15)
                client.connect((parts.hostname, parts.port))
                client.sendall(f"{head}\r\nHost: localhost\r\n".encode())
                return client

            handshake = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            with (
                closing(ask("GET /ws?channel=c HTTP/1.1")) as mute,
                closing(ask("GET /sse?channel=c HTTP/1.1")) as slow,
            ):
                mute.sendall(handshake + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
                slow.sendall(b"\r\n")
                eventually(lambda: daemon.has_subscribers("c", 2), "they are subscribed")
                for _ in range(16):  # more than the kernel keeps for a connection
                    daemon.publish("c", "x" * 1_000_000)
                began = monotonic()
                daemon.signal(SIGTERM)
                assert daemon.wait() in STOPPED
                assert monotonic() - began < 6
            assert "aborting 2 connections: they did not drain in time" in daemon.log

    def test_it_ends_at_once_when_nobody_is_there(self) -> None:
        with running(state="stop_timeout = 60s\n", listeners=tcp("http")) as daemon:
            began = monotonic()
            assert daemon.stop() in STOPPED
            assert monotonic() - began < 5
            assert daemon.stderr == ""


def runs(pid: int) -> bool:
    """Return whether a process runs, which one that has ended and that nobody has asked after does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class TestDaemonized:
    """Without -n, twistd goes into the background."""

    def launch(self, directory: Path, config: str) -> subprocess.CompletedProcess[str]:
        """Start it."""
        (directory / "pushd.ini").write_text(config)
        return twistd("--pidfile=d.pid", "--logfile=d.log", "pushd", "--config", "pushd.ini", directory=directory)

    def test_it_serves_in_the_background_until_sigterm(self, tmp_path: Path) -> None:
        log, pidfile = tmp_path / "d.log", tmp_path / "d.pid"
        port = free_port()
        done = self.launch(tmp_path, tcp("http", port))
        pid = int(pidfile.read_text())
        try:
            assert (done.returncode, done.stderr) == (0, "")
            assert request(f"http://127.0.0.1:{port}/healthz").status == 200
            os.kill(pid, SIGTERM)
            eventually(lambda: not runs(pid), "it has ended")
        finally:
            if runs(pid):
                os.kill(pid, SIGKILL)
        assert not pidfile.exists()
        assert "pushd listens at" in log.read_text()
        assert "Traceback" not in log.read_text()

    def test_a_taken_port_is_in_the_log_and_no_pidfile_stays(self, tmp_path: Path) -> None:
        with taken_port() as port:
            done = self.launch(tmp_path, tcp("http", port))
        assert done.returncode == 1
        assert "cannot listen: " in done.stderr  # of which twistd shows the first 100 bytes
        log = tmp_path / "d.log"
        eventually(lambda: "cannot listen: Address already in use" in log.read_text(), "the log says why")
        eventually(lambda: not (tmp_path / "d.pid").exists(), "the pidfile is gone")

    def test_a_wrong_configuration_is_said_at_once(self, tmp_path: Path) -> None:
        assert "there is no such section" in one_line(self.launch(tmp_path, "[sight]\n"))


def everything_once(url: str, query: str) -> None:
    """Make requests of every kind, those that are refused too, each with `query`."""
    for path in ("/", "/healthz", "/nothing", "/channels", "/channels/c", "/channels/c/events", "/ws", "/push"):
        request(f"{url}{path}?{query}")
    request(f"{url}/channels/c?{query}", "POST", b"x")
    request(f"{url}/channels/c/events/none?{query}")
    request(f"{url}/publish?{query}", "POST", b'{"channel":"c","data":"x"}\n{')
    request(f"{url}/sse?{query}")
    request(f"{url}/stream?limit=x&{query}")
    request(f"{url}/poll?channel=c&since=earliest&{query}")
    request(f"{url}/channels/c?{query}", "PATCH", b"x")
    request(f"{url}/channels/c?{query}", "POST", b"x", {"Host": "evil.example"})
    request(f"{url}/channels/c?{query}", "POST", b"x", {"Origin": "http://evil.example"})
    for _ in range(2):
        with streaming(f"{url}/sse?channel=c&{query}") as sse:
            sse.readline()
    with connect(f"{url.replace('http', 'ws')}/ws?channel=c&{query}", proxy=None) as websocket:
        websocket.send("no JSON")
        websocket.recv(15)


class TestLog:
    """What is logged."""

    @pytest.mark.parametrize(
        ("level", "logged", "not_logged"),
        [("info", "/channels/c from", None), ("warn", None, "/channels/c from"), ("critical", None, "#info]")],
    )
    def test_lines_below_the_level_are_left_out(
        self, level: str, logged: str | None, not_logged: str | None
    ) -> None:
        port = free_port()
        with running(f"[log]\nlevel = {level}\n", listeners=tcp("http", port), starts=False) as daemon:
            daemon.launch()

            def answers() -> bool:
                try:
                    return request(f"http://127.0.0.1:{port}/healthz").status == 200
                except OSError:
                    return False

            eventually(answers, "it serves")
            request(f"http://127.0.0.1:{port}/channels/c", "POST", b"x", {"Origin": "http://evil.example"})
            assert daemon.stop() in STOPPED
            own = [line for line in daemon.log.splitlines() if "[pushd." in line]
            if logged is not None:
                assert any(logged in line for line in own), own
            if not_logged is not None:
                assert not any(not_logged in line for line in own), own

    @pytest.mark.parametrize("level", ["error", "critical"])
    def test_why_there_is_no_start_is_above_every_level(self, level: str, tmp_path: Path) -> None:
        config = tmp_path / "pushd.ini"
        with taken_port() as port:
            config.write_text(f"{tcp('x', port)}[log]\nlevel = {level}\n")
            done = twistd("-n", "--pidfile=", "pushd", "--config", str(config), directory=tmp_path)
        assert "cannot listen: Address already in use" in one_line(done)

    def test_requests_are_logged_when_that_is_wanted(self) -> None:
        with running("[log]\nrequests = yes\n", listeners=tcp("http")) as daemon:
            daemon.publish("c", "hello", "?event=greeting")
            request(f"{daemon.http}/nothing")
            eventually(lambda: "404 GET /nothing from" in daemon.log, "the requests are logged")
            assert re.search(r"201 POST /channels/c from .*127\.0\.0\.1.*, \d+ bytes", daemon.log)

    def test_requests_are_not_logged_otherwise(self) -> None:
        with running(listeners=tcp("http")) as daemon:
            daemon.publish("c", "hello")
            request(f"{daemon.http}/nothing")
            eventually(lambda: "404 GET /nothing" in daemon.log, "the error is logged")
            assert "201 POST" not in daemon.log

    def test_queries_are_never_logged(self) -> None:
        with running("[log]\nrequests = yes\nlevel = debug\n", listeners=tcp("http")) as daemon:
            everything_once(daemon.http, f"since={SECRET}")
            assert daemon.stop() in STOPPED
            assert "GET /sse from" in daemon.log
            assert SECRET not in daemon.log + daemon.stderr
