"""Key sets, fetched from a real server over verified TLS."""

from __future__ import annotations

import gzip
import json
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.e2e.daemon import environment, free_port, installed
from tests.e2e.programs import CLIENTS
from tests.rigs.tokens import jwk_of, token

SET = json.dumps({"keys": [jwk_of("ES256", kid="one")]}).encode()


class Authority:
    """Signs certificates of servers on this machine, in files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the authority of the test")])
        self.path = directory / "ca.crt"
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, lasts: timedelta = timedelta(days=2)
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return x509.CertificateBuilder(
            self._name,
            subject,
            key.public_key(),
            x509.random_serial_number(),
            now - timedelta(days=2),
            now + lasts,
        )

    def context(self, *names: x509.GeneralName, is_expired: bool = False) -> ssl.SSLContext:
        """Return what a server with a certificate for `names` serves with."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of the test")])
        lasts = timedelta(days=-1 if is_expired else 2)
        builder = self._builder(subject, key, lasts)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        path = self._directory / "server.pem"
        pem = serialization.Encoding.PEM
        path.write_bytes(
            certificate.public_bytes(pem)
            + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


LOCALHOST = (x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1")))


class Server(ThreadingHTTPServer):
    """An issuer, which answers each path in its own way."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.paths: list[str] = []
        self.ended = Event()
        self.scheme = "http"
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
            self.scheme = "https"

    def url(self, path: str, host: str = "localhost") -> str:
        return f"{self.scheme}://{host}:{self.server_address[1]}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Override: clients that refuse a certificate are what is tested."""


class _Request(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        answers: dict[str, Callable[[], None]] = {
            "/jwks": lambda: self._answer(SET),
            "/redirect": lambda: self._answer(b"", 302, ("Location", "/jwks")),
            "/error": lambda: self._answer(b"oh", 500),
            "/large": lambda: self._answer(b" " * (2**20 + 1)),
            "/largest": lambda: self._answer(b" " * 2**20),
            "/bomb": lambda: self._answer(gzip.compress(b" " * 2**26), 200, ("Content-Encoding", "gzip")),
            "/endless": self._drip,
            "/silent": self._say_nothing,
            "/garbage": lambda: self._write(b"\x00garbage\r\n\r\n"),
            "/cut": lambda: self._write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
        }
        answers[self.path]()
        self.close_connection = True

    def _answer(self, body: bytes, status: int = 200, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._write(body)

    def _write(self, data: bytes) -> None:
        with suppress(OSError):
            self.wfile.write(data)

    def _drip(self) -> None:
        """Send the body so slowly that it never ends, and see the client go."""
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(b" ")
                time.sleep(0.05)
        self.server.ended.set()

    def _say_nothing(self) -> None:
        with suppress(OSError):
            self.rfile.read(1)
        self.server.ended.set()

    def log_message(self, format: str, *arguments: object) -> None:
        """Override: say nothing."""


@contextmanager
def serving(context: ssl.SSLContext | None) -> Iterator[Server]:
    """Run an issuer as long as the context lasts."""
    with Server(context) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def run(directory: Path, trusted: Path | None, *arguments: str) -> list[dict[str, Any]]:
    """Run the program that fetches, which trusts who is in the file `trusted`; return what it says."""
    variables = {"SSL_CERT_FILE": str(trusted)} if trusted is not None else {}
    done = subprocess.run(
        [installed("python"), str(CLIENTS / "fetch_keys.py"), *arguments],
        cwd=directory,
        env=environment(directory, **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *said, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert last == {"logged": "Main loop terminated."}
    return said


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def fetched(authority: Authority, url: str, *, is_trusted: bool = True) -> dict[str, Any]:
    """Fetch one document."""
    (said,) = run(authority.path.parent, authority.path if is_trusted else None, "fetch", url)
    return said


class TestTls:
    def test_a_set_comes_from_a_server_that_is_trusted(self, authority: Authority) -> None:
        with serving(authority.context(*LOCALHOST)) as server:
            for host in "localhost", "127.0.0.1":
                assert fetched(authority, server.url("/jwks", host)) == {"length": len(SET)}

    def test_a_server_that_is_not_trusted_is_refused(self, authority: Authority) -> None:
        with serving(authority.context(*LOCALHOST)) as server:
            said = fetched(authority, server.url("/jwks"), is_trusted=False)
            assert said == {"why": "TLS failed: certificate verify failed", "status": 503}
            assert server.paths == []

    def test_a_certificate_for_another_name_is_refused(self, authority: Authority) -> None:
        with serving(authority.context(x509.DNSName("other.example"))) as server:
            said = fetched(authority, server.url("/jwks"))
            assert said["why"].startswith("VerificationError: "), said
            assert server.paths == []

    def test_a_certificate_that_has_expired_is_refused(self, authority: Authority) -> None:
        with serving(authority.context(*LOCALHOST, is_expired=True)) as server:
            assert fetched(authority, server.url("/jwks"))["why"] == "TLS failed: certificate verify failed"
            assert server.paths == []

    def test_a_server_without_tls_is_refused(self, authority: Authority) -> None:
        with serving(None) as server:
            said = fetched(authority, server.url("/jwks").replace("http:", "https:"))
            assert said["why"].startswith("TLS failed: "), said
            assert server.paths == []


class TestAnswers:
    def test_http_to_this_machine_needs_no_tls(self, authority: Authority) -> None:
        with serving(None) as server:
            assert fetched(authority, server.url("/jwks")) == {"length": len(SET)}

    def test_what_is_no_good_is_told(self, authority: Authority) -> None:
        reasons = {
            "/redirect": "it was answered with status 302 (redirects are not followed); wanted 200",
            "/error": "it was answered with status 500; wanted 200",
            "/large": "the answer has more than 1048576 bytes",
            "/bomb": "the answer has the content coding 'gzip'; wanted none",
            "/garbage": "ParseError: ",
            "/cut": "ConnectionLost: ",
        }
        with serving(authority.context(*LOCALHOST)) as server:
            urls = [server.url(path) for path in reasons]
            said = run(authority.path.parent, authority.path, "fetch", *urls, server.url("/largest"))
            assert said.pop() == {"length": 2**20}
            for (path, why), one in zip(reasons.items(), said, strict=True):
                assert one["status"] == 503
                assert one["why"].startswith(why), path
            assert server.paths == [*reasons, "/largest"]

    @pytest.mark.parametrize("path", ["/endless", "/silent"])
    def test_a_server_that_never_ends_is_left_within_the_time_out(self, authority: Authority, path: str) -> None:
        with serving(authority.context(*LOCALHOST)) as server:
            assert fetched(authority, server.url(path))["why"] == "there was no answer within 2 s"
            assert server.ended.wait(10)

    def test_a_server_that_is_not_there_is_told(self, authority: Authority) -> None:
        said = fetched(authority, f"https://localhost:{free_port()}/jwks")
        assert said["why"].startswith("ConnectionRefusedError: "), said

    def test_a_name_that_is_not_known_is_told(self, authority: Authority) -> None:
        said = fetched(authority, "https://nosuch.invalid/jwks")
        assert said["why"].startswith("DNSLookupError: "), said


class TestIdentify:
    def test_a_token_is_checked_with_a_key_that_was_fetched(self, authority: Authority) -> None:
        with serving(authority.context(*LOCALHOST)) as server:
            ini = f"[key:id]\nalgorithm = ES256\njwks_url = {server.url('/jwks')}\n"
            text = token({"sub": "ann"}, algorithm="ES256", header={"kid": "one"})
            directory = authority.path.parent
            assert run(directory, authority.path, "identify", ini, text) == [{"user": "ann"}]
            warning, refusal = run(directory, None, "identify", ini, text)
            why = "TLS failed: certificate verify failed"
            assert refusal == {"why": f"the keys of key id cannot be had: {why}", "status": 503}
            url = server.url("/jwks")
            assert warning == {
                "logged": f"the keys of [key:id] cannot be fetched: {url}: {why}; no token of it is taken"
            }
