"""Clients' certificates with other people's clients."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from signal import SIGHUP
from time import sleep
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.e2e.daemon import Daemon, running, tcp, twistd
from tests.e2e.programs import eventually, program
from tests.rigs.certificates import Authority, Issued

pytestmark = pytest.mark.timeout(90)

CA = Authority("Example CA")
OTHER = Authority("Other CA")
CLIENTS = {
    "alice": CA.issue("alice"),
    "other": OTHER.issue("alice"),
    "expired": CA.issue("alice", from_days=-2, to_days=-1),
}
LISTENERS = (
    tcp("http")
    + tcp("required", tls=True)
    + "client_ca = {directory}/ca.pem\n"
    + tcp("optional", tls=True)
    + "client_ca = {directory}/ca.pem\nclient_certificate = optional\n"
    + "[listen:proxied]\nendpoint = tcp:0:interface=127.0.0.1\nproxy_protocol = yes\n"
    + "tls = yes\nclient_ca = {directory}/ca.pem\n"
)
CONFIG = "[auth]\nanonymous = publish, subscribe\n[log]\nrequests = yes\n[proxies]\ntrusted = 127.0.0.1\n"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(CONFIG, listeners=LISTENERS, starts=False) as prepared:
        CA.write(prepared.directory, "ca")
        for name, issued in CLIENTS.items():
            issued.write(prepared.directory, name)
        prepared.start()
        yield prepared


def files(daemon: Daemon, client: str) -> list[str]:
    """Return the options with which curl has a certificate."""
    return ["--cert", str(daemon.directory / f"{client}.crt"), "--key", str(daemon.directory / f"{client}.key")]


def curl(daemon: Daemon, url: str, *options: str, path: str = "/healthz") -> tuple[int, str]:
    """Ask for a path; answer curl's exit status, and the status and version of the answer."""
    command = [program("curl"), "-sS", "--noproxy", "*", "--max-time", "20", "-o", "/dev/null"]
    command += ["--cacert", str(daemon.certificate), "-w", "%{http_code} %{http_version}", *options]
    done = subprocess.run(
        [*command, f"https://localhost:{urlsplit(url).port}{path}"], capture_output=True, text=True, timeout=30
    )
    return done.returncode, done.stdout


class Log:
    """What the daemon logs from now on."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._start = len(daemon.log)

    def wait(self, text: str) -> None:
        """Wait until it has `text`."""
        eventually(lambda: text in self._daemon.log[self._start :], f"the log has {text!r}")


@pytest.mark.parametrize(("option", "version"), [("--http1.1", "1.1"), ("--http2", "2")])
@pytest.mark.parametrize("protocol", ["1.2", "1.3"])
class TestCurl:
    def test_with_the_right_certificate(self, daemon: Daemon, option: str, version: str, protocol: str) -> None:
        for url in daemon.urls[1:3]:
            options = (option, f"--tlsv{protocol}", "--tls-max", protocol, *files(daemon, "alice"))
            assert curl(daemon, url, *options) == (0, f"200 {version}")

    def test_without_one(self, daemon: Daemon, option: str, version: str, protocol: str) -> None:
        options = (option, f"--tlsv{protocol}", "--tls-max", protocol)
        log = Log(daemon)
        status, said = curl(daemon, daemon.urls[1], *options)
        assert (status != 0, said) == (True, "000 0")
        log.wait("refused a TLS handshake with 127.0.0.1:")
        assert curl(daemon, daemon.urls[2], *options) == (0, f"200 {version}")

    @pytest.mark.parametrize(
        ("client", "why"), [("other", "unable to get issuer cert locally"), ("expired", "cert has expired")]
    )
    def test_with_a_wrong_one(
        self, daemon: Daemon, option: str, version: str, protocol: str, client: str, why: str
    ) -> None:
        del version
        for url in daemon.urls[1:3]:
            log = Log(daemon)
            options = (option, f"--tlsv{protocol}", "--tls-max", protocol, *files(daemon, client))
            status, said = curl(daemon, url, *options)
            assert (status != 0, said) == (True, "000 0")
            log.wait(f", CN=alice,O=Example: {why}")


class TestRights:
    """Nobody may publish but who has a certificate."""

    @pytest.mark.parametrize("option", ["--http1.1", "--http2"])
    def test_they_are_those_of_certified(self, option: str) -> None:
        config = CONFIG.replace("anonymous = publish, subscribe", "anonymous = subscribe\ncertified = publish")
        with running(config, listeners=LISTENERS, starts=False) as daemon:
            CA.write(daemon.directory, "ca")
            CLIENTS["alice"].write(daemon.directory, "alice")
            daemon.start()
            for options, status in ((files(daemon, "alice"), "201"), ([], "403")):
                said = curl(daemon, daemon.urls[2], option, "-d", "x", *options, path="/channels/rights")
                assert said == (0, f"{status} {'2' if option == '--http2' else '1.1'}")


class TestOpenssl:
    def talk(self, daemon: Daemon, *options: str) -> str:
        """Shake hands with ``openssl s_client`` and ask for ``/healthz``; return what it says."""
        address = f"127.0.0.1:{urlsplit(daemon.urls[1]).port}"
        command = [program("openssl"), "s_client", "-connect", address, "-ign_eof", *options]
        done = subprocess.run(
            command,
            input="GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout + done.stderr

    def test_it_is_told_which_authorities_are_wanted(self, daemon: Daemon) -> None:
        said = self.talk(daemon, *(option.replace("--", "-") for option in files(daemon, "alice")))
        assert "HTTP/1.1 200 OK" in said
        assert "Acceptable client certificate CA names" in said
        assert "CN = Example CA" in said

    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    def test_a_session_does_not_stand_for_a_certificate(self, daemon: Daemon, version: str) -> None:
        session = str(daemon.directory / f"session{version}")
        certificate = [option.replace("--", "-") for option in files(daemon, "alice")]
        assert "HTTP/1.1 200 OK" in self.talk(daemon, version, *certificate, "-sess_out", session)
        if Path(session).exists():  # there is none if no ticket was sent
            assert "HTTP/1.1 200 OK" not in self.talk(daemon, version, "-sess_in", session)
            said = self.talk(daemon, version, *certificate, "-sess_in", session)
            assert "HTTP/1.1 200 OK" in said
            assert "Reused, " not in said
        else:
            assert "HTTP/1.1 200 OK" not in self.talk(daemon, version)


class TestWebSocket:
    def context(self, daemon: Daemon, client: str | None) -> ssl.SSLContext:
        """Make what a client begins connections with."""
        context = ssl.create_default_context(cafile=str(daemon.certificate))
        if client is not None:
            context.load_cert_chain(daemon.directory / f"{client}.crt", daemon.directory / f"{client}.key")
        return context

    def url(self, daemon: Daemon) -> str:
        """Return where WebSockets are that want a certificate."""
        return f"wss://localhost:{urlsplit(daemon.urls[1]).port}/ws?channel=mutual&format=raw"

    async def receive(self, daemon: Daemon, client: str | None) -> object:
        """Subscribe, have something published, and answer what comes.

        Not by `websockets.sync`, which reads in one thread while it writes in another: OpenSSL is not made for that
        (openssl/openssl#20446), and now and then it waits for ever.
        """
        async with connect(self.url(daemon), ssl=self.context(daemon, client), proxy=None) as websocket:
            await asyncio.to_thread(eventually, lambda: daemon.has_subscribers("mutual", 1), "it is subscribed")
            await asyncio.to_thread(daemon.publish, "mutual", "hello")
            return await asyncio.wait_for(websocket.recv(), 10)

    def test_with_the_right_certificate(self, daemon: Daemon) -> None:
        assert asyncio.run(self.receive(daemon, "alice")) == "hello"

    @pytest.mark.parametrize("client", [None, "other", "expired"])
    def test_without_one(self, daemon: Daemon, client: str | None) -> None:
        with pytest.raises((OSError, WebSocketException)):
            asyncio.run(self.receive(daemon, client))


class TestExpiry:
    """A connection with a certificate that expires while it is open."""

    def test_it_publishes_and_receives_no_longer(self) -> None:
        with running(CONFIG, listeners=LISTENERS, starts=False) as daemon:
            CA.write(daemon.directory, "ca")
            daemon.start()
            certificate, key = CA.issue("brief", to_days=8 / 86400).write(daemon.directory, "brief")
            context = ssl.create_default_context(cafile=str(daemon.certificate))
            context.load_cert_chain(certificate, key)
            netloc = f"localhost:{urlsplit(daemon.urls[1]).port}"
            stream, keep_alive = (HTTPSConnection(netloc, context=context, timeout=30) for _ in range(2))
            statuses: list[int] = []
            with closing(stream), closing(keep_alive):
                stream.request("GET", "/sse?channel=brief")
                with stream.getresponse() as response:
                    with pytest.raises((HTTPException, OSError)):
                        for number in range(200):
                            keep_alive.request("POST", "/channels/brief", body=b"%d" % number)
                            with keep_alive.getresponse() as answer:
                                answer.read()
                                statuses.append(answer.status)  # a new connection fails: the certificate is over
                            sleep(0.1)
                    assert b"the client certificate has expired" in response.read()
            assert statuses[0] == 201
            assert set(statuses) <= {201, 401}
            assert statuses.count(201) < 100


class TestOperation:
    def test_the_authorities_are_read_again_at_sighup(self) -> None:
        with running(CONFIG, listeners=LISTENERS, starts=False) as daemon:
            path = daemon.directory / "ca.pem"
            path.write_bytes(CA.pem)
            for name, issued in CLIENTS.items():
                issued.write(daemon.directory, name)
            daemon.start()
            for authority, is_in in ((CA, "alice"), (OTHER, "other")):
                path.write_bytes(authority.pem)
                log = Log(daemon)
                daemon.signal(SIGHUP)
                log.wait("reloaded the configuration")
                for client in ("alice", "other"):
                    status, said = curl(daemon, daemon.urls[1], *files(daemon, client))
                    assert (status == 0, said[:3]) == (client == is_in, "200" if client == is_in else "000")
            path.write_text("nonsense")
            log = Log(daemon)
            daemon.signal(SIGHUP)
            log.wait(f"[listen:required] {path}: not a PEM certificate")
            assert curl(daemon, daemon.urls[1], *files(daemon, "other"))[0] == 0

    def test_behind_a_proxy_the_log_names_the_client(self, daemon: Daemon) -> None:
        log = Log(daemon)
        assert curl(daemon, daemon.urls[3], "--haproxy-protocol", *files(daemon, "alice"))[0] == 0
        log.wait("200 GET /healthz from 127.0.0.1:")
        assert curl(daemon, daemon.urls[3], "--haproxy-protocol", *files(daemon, "other"))[0] != 0
        log.wait("refused the certificate of 127.0.0.1:")

    @pytest.mark.parametrize(
        ("lines", "why"),
        [
            ("tls = yes\nclient_ca = /nosuch.pem\n", "[listen:a] /nosuch.pem: cannot be read: No such file"),
            ("tls = yes\nclient_ca = {empty}\n", "not a PEM certificate"),
            ("tls = yes\nclient_ca = {leaf}\n", "certificate 1 is not that of an authority"),
            ("tls = no\nclient_ca = {leaf}\n", "wanted tls = yes with it"),
            ("tls = yes\nclient_ca = {leaf}\nclient_certificate = perhaps\n", "wanted one of required, optional"),
        ],
    )
    def test_what_is_wrong_is_found_by_the_check(self, tmp_path: Path, lines: str, why: str) -> None:
        (tmp_path / "empty.pem").write_text("")
        leaf: Issued = CLIENTS["alice"]
        certificate, _ = leaf.write(tmp_path, "leaf")
        lines = lines.format(empty=tmp_path / "empty.pem", leaf=certificate)
        config = tmp_path / "pushd.ini"
        config.write_text(
            f"[pushd]\nstore = memory\nstate_directory = {tmp_path}/state\n"
            f"[listen:a]\nendpoint = tcp:0:interface=127.0.0.1\n{lines}"
        )
        done = twistd("-n", "pushd", "--check", "--config", str(config), directory=tmp_path)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done
        assert why in done.stderr
