"""SIGHUP under load: nobody is dropped, nothing is missed, and what was configured anew holds."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from signal import SIGHUP
from threading import Event
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from websockets.sync.client import ClientConnection, connect

from tests.e2e.daemon import Daemon, request, running, tcp
from tests.e2e.programs import eventually
from tests.rigs.certificates import Authority

pytestmark = pytest.mark.timeout(120)

CA = Authority("Example CA")
LISTENERS = (
    tcp("http") + tcp("https", tls=True) + "certificate = {directory}/live.crt\nkey = {directory}/live.key\n"
)
OPEN = "[auth]\nanonymous = publish, subscribe\n"
SECRET = "0123456789abcdef0123456789abcdef"


@contextmanager
def serving(sections: str = OPEN) -> Iterator[Daemon]:
    """Run a daemon with a certificate of an authority."""
    with running(sections, listeners=LISTENERS, starts=False) as daemon:
        renew(daemon, "first")
        daemon.start()
        yield daemon


def renew(daemon: Daemon, name: str) -> None:
    """Write another certificate in the place of the one that is served."""
    CA.issue(name, purposes=[ExtendedKeyUsageOID.SERVER_AUTH]).write(daemon.directory, "live")


def reload(daemon: Daemon, sections: str, *, says: str = "reloaded the configuration") -> None:
    """Write another configuration and have it read."""
    state, _, _ = daemon.config.read_text().partition(LISTENERS.format(directory=daemon.directory))
    count = daemon.log.count(says)
    daemon.config.write_text(f"{state}{LISTENERS.format(directory=daemon.directory)}{sections}")
    daemon.signal(SIGHUP)
    eventually(lambda: daemon.log.count(says) > count, f"the log says {says!r}")


def served_name(daemon: Daemon) -> str:
    """Return the name in the certificate that a new connection gets."""
    address = urlsplit(daemon.https)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection((address.hostname, address.port), 10)
    with context.wrap_socket(plain) as wrapped:
        data = wrapped.getpeercert(binary_form=True)
    assert data is not None
    return x509.load_der_x509_certificate(data).subject.rfc4514_string()


class TestReload:
    """A new configuration for a daemon that many use."""

    def test_nobody_is_dropped_and_nothing_is_missed_while_it_is_reloaded_again_and_again(self) -> None:
        with serving() as daemon, ExitStack() as stack, ThreadPoolExecutor() as threads:
            clients = [
                stack.enter_context(connect(f"{daemon.ws}?channel=load&format=raw", proxy=None)) for _ in range(20)
            ]
            is_over = Event()
            publishing = threads.submit(self.publish_until, daemon, is_over)
            try:
                for number in range(15):
                    renew(daemon, f"renewed {number}")
                    kept = f"[channels]\nhistory_size = {number}\n[limits]\nevent_size = {number + 1}KiB\n"
                    reload(daemon, OPEN + kept)
            finally:
                is_over.set()
            count = publishing.result(30)
            assert count > 15
            for client in clients:
                assert [self.next(client) for _ in range(count)] == [str(number) for number in range(count)]
            assert "renewed 14" in served_name(daemon)
            assert "closing" not in daemon.log and "dropping" not in daemon.log
            assert "fault" not in daemon.log and "Traceback" not in daemon.log

    @staticmethod
    def publish_until(daemon: Daemon, is_over: Event) -> int:
        """Publish one event after the other; return how many were acknowledged, which all must be."""
        count = 0
        while not is_over.is_set():
            daemon.publish("load", str(count))
            count += 1
        return count

    @staticmethod
    def next(client: ClientConnection) -> str:
        message = client.recv(10)
        assert isinstance(message, str)
        return message

    def test_a_certificate_that_was_renewed_is_what_the_next_handshake_has(self) -> None:
        with serving() as daemon:
            assert "first" in served_name(daemon)
            renew(daemon, "second")
            assert "first" in served_name(daemon)
            reload(daemon, OPEN)
            assert "second" in served_name(daemon)

    def test_what_is_wrong_changes_nothing_and_is_in_the_log(self) -> None:
        with serving() as daemon:
            for sections, why in (
                ("[auth]\nanonymous = nobody\n", "[auth] anonymous = nobody: wanted any of"),
                (f"{OPEN}[key:app]\nalgorithm = HS256\nsecret_file = /nowhere\n", "/nowhere: cannot be read"),
                (f"{OPEN}[site]\nroot = /nowhere\n", "[site] root = /nowhere: not a directory"),
            ):
                reload(daemon, sections, says="not reloaded, everything stays as it was: ")
                assert why in daemon.log
            (daemon.directory / "live.crt").write_text("garbage")
            reload(daemon, "[auth]\nanonymous =\n", says="not reloaded, everything stays as it was: ")
            assert "[listen:https]" in daemon.log.splitlines()[-1]
            assert "first" in served_name(daemon)
            daemon.publish("a", "still")

    def test_rights_and_keys(self) -> None:
        with serving() as daemon:
            with connect(f"{daemon.ws}?channel=a&format=raw", proxy=None) as client:
                reload(daemon, f"[auth]\nanonymous =\n[key:app]\nalgorithm = HS256\nsecret = {SECRET}\n")
                eventually(lambda: "the rights of everybody have changed" in daemon.log, "it is closed")
                with pytest.raises(Exception, match="1008"):
                    client.recv(10)
            refused = request(f"{daemon.http}/channels/a", method="POST", body=b"x")
            assert refused.status == 401, refused
            assert "wanted a token" in json.loads(refused.body)["detail"]

    def test_what_needs_a_restart_is_named_and_the_level_of_the_log_does_not(self) -> None:
        with serving() as daemon:
            config = daemon.config.read_text().replace("[pushd]\n", "[pushd]\nstore_memory = 2MiB\n")
            daemon.config.write_text(config + "[log]\nlevel = warn\n")
            daemon.signal(SIGHUP)
            eventually(
                lambda: (
                    "reloaded the configuration: applied [log] level; restart pushd to apply [pushd] store_memory"
                    in daemon.log
                ),
                "it is named",
            )
            daemon.publish("a", "x")
            request(f"{daemon.http}/nowhere")
            assert "404 GET /nowhere" not in daemon.log
