"""Other people's scanners find nothing; ``docs/scans.rst`` says what they look for, and what is a false alarm."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.e2e.daemon import Daemon, request, running, tcp
from tests.e2e.openapi import CHANNEL, EVENT
from tests.e2e.programs import eventually
from tests.e2e.scanners import (
    SECONDS_PER_MODULE,
    ending_streams,
    slowhttptest,
    sslyze,
    testssl,
    unexplained,
    wapiti,
)
from tests.rigs.certificates import Authority
from tests.rigs.tokens import SECRET, token

pytestmark = pytest.mark.timeout(240 + 25 * SECONDS_PER_MODULE)

CA = Authority("The authority of the scan")
NAMES = (x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1")))
KEYS = {"ecdsa": None, "rsa": rsa.generate_private_key(65537, 2048)}
LISTENERS = tcp("http") + "".join(
    tcp(kind, tls=True) + f"certificate = {{directory}}/{kind}.crt\nkey = {{directory}}/{kind}.key\n"
    for kind in KEYS
)
LOGGED = "[log]\nrequests = yes\n"
OPEN = LOGGED + "[site]\nstrict_transport = 730d\n[limits]\npoll_timeout = 1s\n"
GUARDED = (
    LOGGED
    + "[site]\nroot = {directory}/site\nstrict_transport = 730d\n[limits]\npoll_timeout = 1s\n"
    + f"[auth]\nanonymous =\ncookie = token\n[key:scan]\nalgorithm = HS256\nsecret = {SECRET}\n"
)
OPERATOR = {"Authorization": f"Bearer {token({'pushd': {'operator': True}})}"}
SCANNER = token({"sub": "scanner", "pushd": {"publish": [CHANNEL], "subscribe": [CHANNEL]}})
PAGE = b'<!doctype html><title>t</title><a href="/more/?a=1">more</a><a href="/sse?channel=scan">events</a>'

EXPLAINED = {
    r"\w+: Internal Server Error: GET /push .*": "505: /push is for HTTP/2, which wapiti does not speak; it takes "
    "every 5xx for a fault",
    r"csrf: Cross Site Request Forgery: POST /channels/scan: Lack of anti CSRF token": "it is the Origin that is "
    "checked",
}
OF_THE_SITE = {
    r"csp: Content Security Policy Configuration: GET /: CSP is not set": "the pages are the operator's",
    r"http_headers: Clickjacking Protection: GET /: X-Frame-Options is not set": "the same",
}
OF_TESTSSL = {
    r"(LOW|MEDIUM|HIGH): (cert_revocation|OCSP_stapling|DNS_CAArecord)\b.*": "they are those of the authority",
    r"WARN: engine_problem: .*": "it is about the openssl that testssl.sh runs",
    r"WARN: sessionresumption_ticket: check failed because of connect problem": "that openssl went before it had a "
    "ticket, which it could not have used: see what sslyze says of resumption",
}


@contextmanager
def scanned(config: str) -> Iterator[Daemon]:
    """Run a daemon with certificates and a site; see afterwards that nothing is wrong with it."""
    with running(config, listeners=LISTENERS, starts=False, counts=True) as daemon:
        CA.write(daemon.directory, "ca")
        for kind, key in KEYS.items():
            issued = CA.issue(
                "localhost", names=NAMES, key=key, to_days=89, purposes=[ExtendedKeyUsageOID.SERVER_AUTH]
            )
            issued.write(daemon.directory, kind)
        (daemon.directory / "site" / "more").mkdir(parents=True)
        for place in ("index.html", "more/index.html", ".hidden"):
            (daemon.directory / "site" / place).write_bytes(PAGE)
        (daemon.directory / "site" / "large").write_bytes(bytes(2**21))
        (daemon.directory / "site" / "out").symlink_to("/etc/passwd")
        daemon.start()
        path = f"{daemon.http}/channels/{CHANNEL}?id={EVENT}"
        request(path, "POST", b"hello", {"Authorization": f"Bearer {SCANNER}"} if "[key" in config else {})
        yield daemon
        assert not daemon.has_ended
        eventually(lambda: daemon.counts["connections"] == 1, "nobody is connected", 30)
        fault = re.search(r"(?m)^.*(Traceback|Unhandled|fault in pushd|dropped )", daemon.log)
        assert fault is None, daemon.log[fault.start() : fault.end() + 3000] if fault else ""
        assert daemon.stderr == ""


def answered(daemon: Daemon) -> list[tuple[str, str, str]]:
    """Return the status, the method and the path of each request that the daemon has answered, but for our own."""
    answers = re.findall(r"(?m)\b([1-5]\d\d) ([A-Z]+) (/\S*) from .*, \d+ bytes in", daemon.log)
    return [one for one in answers if one[1:] != ("DELETE", "/connections")]


def find(daemon: Daemon, directory: Path, explained: Mapping[str, str], rights: str | None) -> list[str]:
    """Let wapiti attack a daemon with the token `rights`; return the unexplained findings."""
    with ending_streams(daemon, OPERATOR):
        findings = wapiti(daemon.https, directory, token=rights)
    count = len(answered(daemon))
    print(f"\n{count} requests of wapiti were answered")
    assert count > 500
    return unexplained(findings, explained)


class TestWapiti:
    """The pages and the interface, attacked by wapiti."""

    def test_with_all_rights_it_finds_nothing(self, tmp_path: Path) -> None:
        with scanned(OPEN) as daemon:
            assert find(daemon, tmp_path, EXPLAINED, None) == []

    def test_without_a_right_it_finds_nothing(self, tmp_path: Path) -> None:
        with scanned(GUARDED) as daemon:
            assert find(daemon, tmp_path, {**EXPLAINED, **OF_THE_SITE}, None) == []
            served = [one for one in answered(daemon) if one[0].startswith("2") and one[1] != "OPTIONS"]
            guarded = re.compile("/(channels|connections|sse|stream|poll|push|ws)\\b")
            assert [one for one in served if guarded.match(one[2])] == [("201", "POST", f"/channels/{CHANNEL}")]
            channels = request(f"{daemon.http}/channels", headers=OPERATOR).json()["channels"]
            assert [(one["channel"], one["retained"]) for one in channels] == [(CHANNEL, 1)]

    def test_with_some_rights_it_finds_nothing(self, tmp_path: Path) -> None:
        with scanned(GUARDED) as daemon:
            assert find(daemon, tmp_path, {**EXPLAINED, **OF_THE_SITE}, SCANNER) == []

    def test_it_does_find_what_is_there(self, tmp_path: Path) -> None:
        class Leaky(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                said = parse_qs(urlsplit(self.path).query).get("channel", [""])[0]
                body = f"<!doctype html><title>t</title><p>no {said}</p>".encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Leaky) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_address[1]}"
            found = wapiti(url, tmp_path, modules=("csp", "http_headers", "xss"))
            server.shutdown()
        assert {one.what.partition(":")[0] for one in found} == {"csp", "http_headers", "xss"}


def place_of(daemon: Daemon, kind: str) -> str:
    """Return the host and port of the listener whose certificate has a key of one kind."""
    return f"localhost:{urlsplit(daemon.urls[1 + list(KEYS).index(kind)]).port}"


class TestTls:
    """The listeners with TLS."""

    @pytest.mark.parametrize("kind", KEYS)
    def test_sslyze_finds_them_as_mozilla_wants_them(self, kind: str, tmp_path: Path) -> None:
        with scanned(OPEN) as daemon:
            place = place_of(daemon, kind)
            verdict, found = sslyze(place, tmp_path, str(daemon.directory / "ca.pem"))
        print(verdict)
        assert f"{place}: OK - Compliant." in verdict
        assert {name for name, one in found.items() if one["status"] == "ERROR"} == set()
        results = {name: one["result"] for name, one in found.items() if one["result"] is not None}
        assert results["session_renegotiation"]["supports_secure_renegotiation"]
        assert not results["session_renegotiation"]["is_vulnerable_to_client_renegotiation_dos"]
        assert not results["tls_1_3_early_data"]["supports_early_data"]
        assert not results["tls_compression"]["supports_compression"]
        resumption = results["session_resumption"]
        assert {resumption[f"{by}_resumption_result"] for by in ("session_id", "tls_ticket")} == {"NOT_SUPPORTED"}

    @pytest.mark.parametrize("kind", KEYS)
    def test_testssl_finds_nothing(self, kind: str, tmp_path: Path) -> None:
        with scanned(OPEN) as daemon:
            findings = testssl(place_of(daemon, kind), tmp_path, str(daemon.directory / "ca.pem"))
        assert unexplained(findings, OF_TESTSSL) == []


class TestSlowClients:
    """slowhttptest, in three of its modes at once."""

    def test_they_do_not_keep_others_out_and_their_connections_end(self, tmp_path: Path) -> None:
        limits = "[limits]\nhead_timeout = 3s\nrequest_timeout = 5s\n"
        with scanned(f"{limits}[site]\nroot = {{directory}}/site\n") as daemon:
            attacks = {
                "H": (f"{daemon.https}/", "-i", "1"),
                "B": (f"{daemon.http}/channels/slow", "-i", "1", "-s", "8192", "-x", "10"),
                "X": (f"{daemon.http}/large", "-w", "1", "-y", "512", "-n", "1", "-z", "5", "-k", "3"),
            }
            with ThreadPoolExecutor(len(attacks)) as threads:
                running_ones = {
                    mode: threads.submit(slowhttptest, mode, *arguments, directory=tmp_path, seconds=25)
                    for mode, arguments in attacks.items()
                }
                ended = {mode: one.result() for mode, one in running_ones.items()}
            memory = daemon.resident_bytes
        for mode, attack in ended.items():
            ended_at = f"{len(attack.available)} s: {attack.end}"
            print(f"slowhttptest -{mode} ended after {ended_at}; available: {all(attack.available)}")
        assert {attack.connected for attack in ended.values()} == {200}
        assert all(all(attack.available) for attack in ended.values())
        # Answers may take as long as they like: those end with the attack.
        assert {mode: attack.end for mode, attack in ended.items()} == {
            "H": "No open connections left",
            "B": "No open connections left",
            "X": "Hit test time limit",
        }
        assert memory < 200 * 2**20
