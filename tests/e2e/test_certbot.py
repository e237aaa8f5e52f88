"""The hook that ``docs/howto/certbot.rst`` has certbot run, with a stand-in for systemctl."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.x509 import DNSName

from tests.e2e.daemon import Daemon, running, tcp
from tests.e2e.documents import named
from tests.e2e.programs import eventually
from tests.rigs.certificates import Authority

pytestmark = pytest.mark.timeout(60)

NAME = "push.example.com"


class Machine:
    """What certbot keeps, what pushd may read, and a systemctl that knows the pid of pushd."""

    def __init__(self, directory: Path) -> None:
        self.private, self.lineage = directory / "private", directory / "live" / NAME
        programs = directory / "bin"
        for path in (self.private, self.lineage, programs):
            path.mkdir(parents=True)
        self.calls, self.pid = directory / "calls", directory / "pid"
        systemctl = programs / "systemctl"
        systemctl.write_text(
            f'#!/bin/sh\necho "$@" >> {self.calls}\n'
            f'case "$1" in is-active) [ -e {self.pid} ] ;; reload) kill -HUP "$(cat {self.pid})" ;; esac\n'
        )
        systemctl.chmod(0o755)
        text = named("howto/certbot", "hook")
        places = {
            "/etc/letsencrypt/live/push.example.com": str(self.lineage),
            "/etc/pushd/private": str(self.private),
            "-g pushd": f"-g {os.getgid()}",
        }
        for written, here in places.items():
            assert written in text
            text = text.replace(written, here)
        self.hook = directory / "hook"
        self.hook.write_text(text)
        self.hook.chmod(0o755)
        self._path = f"{programs}:{os.environ['PATH']}"

    def renew(self, organization: str) -> None:
        """Do what certbot does: put a new certificate there."""
        certificate, key = (
            Authority(organization).issue(NAME, purposes=(), names=[DNSName(NAME)]).write(self.lineage, "new")
        )
        Path(certificate).rename(self.lineage / "fullchain.pem")
        Path(key).rename(self.lineage / "privkey.pem")

    def run(self, lineage: Path | None = None) -> None:
        """Run the hook."""
        variables = {"PATH": self._path, "RENEWED_LINEAGE": str(lineage or self.lineage)}
        done = subprocess.run([self.hook], env=variables, capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    @contextmanager
    def pushd(self) -> Iterator[Daemon]:
        """Run pushd with the copy."""
        files = f"certificate = {self.private}/push.crt\nkey = {self.private}/push.key\n"
        with running(listeners=tcp("https", tls=True) + files) as daemon:
            self.pid.write_text(str(daemon.pid))
            yield daemon


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def issuer(daemon: Daemon) -> str:
    """Return who has issued the certificate that a handshake has now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = urlsplit(daemon.https)
    with context.wrap_socket(socket.create_connection((address.hostname, address.port), 10)) as wrapped:
        data = wrapped.getpeercert(binary_form=True)
    assert data is not None
    return x509.load_der_x509_certificate(data).issuer.rfc4514_string()


def test_the_first_certificate_is_copied_while_pushd_does_not_run(machine: Machine) -> None:
    machine.renew("first")
    machine.run()
    assert machine.calls.read_text() == "is-active --quiet pushd\n"
    assert {path.name: path.stat().st_mode & 0o777 for path in machine.private.iterdir()} == {
        "push.crt": 0o640,
        "push.key": 0o640,
    }


def test_a_renewed_one_is_what_the_next_handshake_has(machine: Machine) -> None:
    machine.renew("first")
    machine.run()
    with machine.pushd() as daemon:
        assert "CN=first" in issuer(daemon)
        machine.renew("second")
        machine.run()
        assert machine.calls.read_text().endswith("reload pushd\n")
        eventually(lambda: "CN=second" in issuer(daemon), "it has the second one")


def test_that_of_another_name_is_none_of_its_business(machine: Machine) -> None:
    machine.run(machine.lineage.parent / "www.example.com")
    assert list(machine.private.iterdir()) == []
    assert not machine.calls.exists()
