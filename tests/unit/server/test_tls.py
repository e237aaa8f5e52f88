"""Certificates: the self-signed one is made, kept and renewed; those of the operator are read or refused."""

from __future__ import annotations

import contextlib
import os
import re
import resource
from base64 import encodebytes
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from stat import S_IMODE
from tempfile import TemporaryDirectory
from typing import Any
from unittest import skipUnless

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes as Key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase

from pushd.errors import StartFailed
from pushd.server.net import tls
from pushd.server.net import tls as keyexchange

NOW = datetime(2030, 6, 15, 12, tzinfo=UTC)
openssl: Any = SSL
"""The same, with what it does not show."""
CHOOSES_GROUPS = hasattr(SSL.Connection, "get_group_name") and hasattr(openssl._lib, "SSL_CTX_set1_curves_list")
"""Whether the libraries let pushd choose the groups; the oldest accepted ones do not."""
LIFETIME = timedelta(days=365) - timedelta(hours=1)


def native(context: Any) -> Any:
    """Return what OpenSSL calls the context."""
    return context._context


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a key."""
    return ec.generate_private_key(ec.SECP256R1())


def certificate_of(name: str, key: Key, issuer: str, issuer_key: Key) -> x509.Certificate:
    """Make a certificate that does not expire during the test."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(signer, subject, key.public_key(), 1, now, now + timedelta(days=1))
    return builder.sign(issuer_key, None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def pem_of(*certificates: x509.Certificate) -> bytes:
    """Write certificates as PEM."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def pem_of_key(key: Key, password: bytes | None = None) -> bytes:
    """Write a key as PEM, encrypted if there is a password."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


_FORGIVEN = re.compile(
    "Passing pyOpenSSL (X509|PKey) objects is deprecated|'asyncio.iscoroutinefunction' is deprecated"
).match


def forgive_deprecated_certificates(case: SynchronousTestCase) -> None:
    """Drop what pyOpenSSL says of the certificates and keys that Twisted gives it, and nothing else.

    From Python 3.14 on, Python has something to say of txaio, too.
    """

    def forgive() -> None:
        for warning in case.flushWarnings():
            assert _FORGIVEN(warning["message"]), warning

    case.addCleanup(forgive)


class DirectoryCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.addCleanup(os.umask, os.umask(0o022))
        forgive_deprecated_certificates(self)

    def write(self, name: str, data: bytes) -> str:
        """Write a file and answer its path."""
        path = self.directory / name
        path.write_bytes(data)
        return str(path)

    def assertOneLine(self, error: StartFailed, path: object, *says: str) -> None:
        """Check that the operator is told in one line which file it was, and what was wrong with it."""
        text = str(error)
        self.assertEqual(len(text.splitlines()), 1, text)
        self.assertIn(str(path), text)
        for part in says:
            self.assertIn(part, text)


class SelfSignedTests(DirectoryCase):
    def setUp(self) -> None:
        super().setUp()
        self.state = self.directory / "state" / "pushd"
        self.certificate, self.key = self.state / "self-signed.crt", self.state / "self-signed.key"

    def make(self, now: datetime = NOW) -> x509.Certificate:
        """Have the certificate made or kept, at the time `now`."""
        paths = tls.self_signed(str(self.state), lambda: now)
        self.assertEqual(paths, (str(self.certificate), str(self.key)))
        return x509.load_pem_x509_certificate(self.certificate.read_bytes())

    def test_both_files_are_made_and_can_be_served_with(self) -> None:
        tls.load(*tls.self_signed(str(self.state)))
        self.assertEqual(sorted(os.listdir(self.state)), ["self-signed.crt", "self-signed.key"])

    def test_its_key_is_on_p_256(self) -> None:
        certificate = self.make()
        public = certificate.public_key()
        private = serialization.load_pem_private_key(self.key.read_bytes(), None)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        self.assertEqual((public.curve.name, private.public_key()), ("secp256r1", public))

    def test_it_is_for_localhost_and_the_loopback_addresses(self) -> None:
        names = self.make().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["localhost"])
        addresses = [ip_address("127.0.0.1"), ip_address("::1")]
        self.assertEqual(names.get_values_for_type(x509.IPAddress), addresses)

    def test_it_is_for_a_server_and_cannot_sign_others(self) -> None:
        extensions = self.make().extensions
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        self.assertEqual(list(usage), [ExtendedKeyUsageOID.SERVER_AUTH])
        self.assertIs(extensions.get_extension_for_class(x509.BasicConstraints).value.ca, False)

    def test_it_is_signed_by_itself(self) -> None:
        certificate = self.make()
        certificate.verify_directly_issued_by(certificate)

    def test_it_is_valid_from_an_hour_ago_for_no_more_than_a_year_as_browsers_and_scanners_want_it(self) -> None:
        certificate = self.make()
        self.assertEqual(certificate.not_valid_before_utc, NOW - timedelta(hours=1))
        self.assertEqual(certificate.not_valid_after_utc, NOW + LIFETIME)

    def test_only_the_owner_may_read_the_key_and_enter_the_directory(self) -> None:
        self.make()
        modes = [S_IMODE(path.stat().st_mode) for path in (self.key, self.certificate, self.state)]
        self.assertEqual(modes, [0o600, 0o644, 0o700])

    def test_a_second_call_keeps_what_is_there(self) -> None:
        first = self.make(), self.key.read_bytes()
        for now in (NOW, NOW + timedelta(days=100), NOW + LIFETIME - timedelta(days=30, seconds=1)):
            self.assertEqual((self.make(now), self.key.read_bytes()), first)

    def test_thirty_days_before_its_end_it_is_renewed_with_a_new_key(self) -> None:
        first, first_key = self.make(), self.key.read_bytes()
        later = NOW + LIFETIME - timedelta(days=30)
        second = self.make(later)
        self.assertNotEqual(first, second)
        self.assertNotEqual(first_key, self.key.read_bytes())
        self.assertEqual(second.not_valid_after_utc, later + LIFETIME)
        self.assertEqual(S_IMODE(self.key.stat().st_mode), 0o600)

    def test_one_that_has_expired_is_renewed(self) -> None:
        first = self.make()
        self.assertNotEqual(self.make(NOW + LIFETIME * 2), first)

    def test_if_one_of_the_files_is_missing_both_are_made(self) -> None:
        for missing, other in ((self.certificate, self.key), (self.key, self.certificate)):
            self.make()
            before = other.read_bytes()
            missing.unlink()
            self.make()
            self.assertNotEqual(other.read_bytes(), before)
            tls.load(str(self.certificate), str(self.key))

    def test_what_an_interrupted_start_left_is_no_hindrance(self) -> None:
        self.state.mkdir(parents=True)
        for path in (self.certificate, self.key):
            path.with_name(f"{path.name}.new").write_bytes(b"half")
        self.make()
        self.assertEqual(sorted(os.listdir(self.state)), ["self-signed.crt", "self-signed.key"])
        self.assertEqual(S_IMODE(self.key.stat().st_mode), 0o600)

    def test_a_broken_certificate_fails_the_start(self) -> None:
        self.make()
        for data in (b"", b"garbage", pem_of(self.make())[:200]):
            self.certificate.write_bytes(data)
            error = self.assertRaises(StartFailed, self.make)
            self.assertOneLine(error, self.certificate, "not a PEM certificate")

    def test_a_directory_that_cannot_be_written_fails_the_start(self) -> None:
        file = self.write("file", b"")
        for state, why in (
            (file, "File exists"),
            (f"{file}/below", "Not a directory"),
            ("/proc/pushd", "No such file or directory"),
        ):
            error = self.assertRaises(StartFailed, tls.self_signed, state)
            self.assertOneLine(error, state, f"cannot be written: {why}")

    def test_a_directory_that_cannot_be_looked_into_fails_the_start(self) -> None:
        state = f"{self.directory}/{'x' * 300}"
        self.assertOneLine(self.assertRaises(StartFailed, tls.self_signed, state), state, "File name too long")

    def test_a_disk_that_is_full_fails_the_start_with_the_name_of_the_file(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            error = self.assertRaises(StartFailed, self.make)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self.assertOneLine(error, self.state, "cannot be written: File too large")

    def test_an_interrupted_renewal_does_not_keep_the_daemon_from_starting_again(self) -> None:
        self.make()
        self.certificate.with_name("self-signed.crt.new").mkdir()
        later = NOW + LIFETIME - timedelta(days=10)
        self.assertRaises(StartFailed, self.make, later)
        self.certificate.with_name("self-signed.crt.new").rmdir()
        tls.load(*tls.self_signed(str(self.state), lambda: NOW))


class LoadTests(DirectoryCase):
    def setUp(self) -> None:
        super().setUp()
        self.root_key, self.server_key = new_key(), new_key()
        self.root = certificate_of("root", self.root_key, "root", self.root_key)
        self.server = certificate_of("server", self.server_key, "root", self.root_key)
        self.certificate = self.write("server.crt", pem_of(self.server))
        self.key = self.write("server.key", pem_of_key(self.server_key))

    def assertCannotLoad(self, certificate: str, key: str, names: str, *says: str) -> None:
        self.assertOneLine(self.assertRaises(StartFailed, tls.load, certificate, key), names, *says)

    def handshake(self, options: CertificateOptions, context: SSL.Context | None = None) -> list[str]:
        """Shake hands with a server that has `options`; answer the names of the certificates that it sends.

        The client is one that has `context`, or takes anything.
        """
        server = SSL.Connection(options.getContext(), None)
        client = SSL.Connection(context or SSL.Context(SSL.TLS_METHOD), None)
        server.set_accept_state()
        client.set_connect_state()
        for _ in range(4):
            for one, other in ((client, server), (server, client)):
                with contextlib.suppress(SSL.WantReadError):
                    one.do_handshake()
                with contextlib.suppress(SSL.WantReadError):
                    other.bio_write(one.bio_read(65536))
        self.version = client.get_protocol_version_name()
        self.group = client.get_group_name() if CHOOSES_GROUPS else None
        chain = client.get_peer_cert_chain(as_cryptography=True) or []
        return [str(one.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value) for one in chain]

    def test_a_certificate_and_its_key_are_served_with(self) -> None:
        self.assertEqual(self.handshake(tls.load(self.certificate, self.key)), ["server"])
        self.assertEqual(self.version, "TLSv1.3")

    def test_the_whole_chain_is_sent(self) -> None:
        chain = self.write("chain.crt", pem_of(self.server, self.root))
        self.assertEqual(self.handshake(tls.load(chain, self.key)), ["server", "root"])

    def test_text_around_the_certificates_does_no_harm(self) -> None:
        chain = self.write("chain.crt", b"server:\n" + pem_of(self.server) + b"\nroot:\n" + pem_of(self.root))
        self.assertEqual(self.handshake(tls.load(chain, self.key)), ["server", "root"])

    def test_keys_of_the_usual_kinds_can_be_served_with(self) -> None:
        for key in (ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)):
            certificate = self.write("own.crt", pem_of(certificate_of("own", key, "own", key)))
            self.assertEqual(self.handshake(tls.load(certificate, self.write("own.key", pem_of_key(key)))), ["own"])

    def test_versions_before_tls_1_2_are_not_spoken(self) -> None:
        context = tls.load(self.certificate, self.key).getContext()
        for option in (SSL.OP_NO_SSLv3, SSL.OP_NO_TLSv1, SSL.OP_NO_TLSv1_1):
            self.assertTrue(context.set_options(0) & option)
        self.assertFalse(context.set_options(0) & (SSL.OP_NO_TLSv1_2 | SSL.OP_NO_TLSv1_3))

    def taken(self, options: CertificateOptions) -> set[str]:
        """Return the ciphers that a client of TLS 1.2 can have with a server that has `options`."""
        offered = SSL.Context(SSL.TLS_METHOD)
        offered.set_cipher_list(b"ALL:COMPLEMENTOFALL:@SECLEVEL=0")
        ciphers = set()
        for name in SSL.Connection(offered, None).get_cipher_list():
            context = SSL.Context(SSL.TLS_METHOD)
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
            try:
                context.set_cipher_list(f"{name}:@SECLEVEL=0".encode())
                self.handshake(options, context)
            except SSL.Error:
                continue
            ciphers.add(name)
        return ciphers

    def test_every_cipher_has_forward_secrecy_and_authenticates_what_it_encrypts(self) -> None:
        rsa_key = rsa.generate_private_key(65537, 2048)
        rsa_certificate = self.write("rsa.crt", pem_of(certificate_of("rsa", rsa_key, "rsa", rsa_key)))
        for kind, paths in (
            ("ECDSA", (self.certificate, self.key)),
            ("RSA", (rsa_certificate, self.write("rsa.key", pem_of_key(rsa_key)))),
        ):
            self.assertEqual(
                self.taken(tls.load(*paths)),
                {
                    f"ECDHE-{kind}-AES128-GCM-SHA256",
                    f"ECDHE-{kind}-AES256-GCM-SHA384",
                    f"ECDHE-{kind}-CHACHA20-POLY1305",
                },
            )

    @skipUnless(CHOOSES_GROUPS, "pyOpenSSL or cryptography is too old to choose groups")
    def test_keys_are_exchanged_in_the_groups_of_browsers_and_in_none_that_costs_a_multiple(self) -> None:
        options, taken = tls.load(self.certificate, self.key), set()
        for group in (
            *("X25519MLKEM768", "X25519", "P-256", "P-384", "P-521", "X448", "SecP256r1MLKEM768"),
            *("ffdhe2048", "ffdhe3072", "ffdhe4096", "brainpoolP256r1tls13"),
        ):
            context = SSL.Context(SSL.TLS_METHOD)
            self.assertEqual(openssl._lib.SSL_CTX_set1_curves_list(native(context), group.encode()), 1, group)
            try:
                self.handshake(options, context)
            except SSL.Error:
                continue
            taken.add(group)
        self.assertEqual(taken, {"X25519MLKEM768", "X25519", "P-256", "P-384"})

    @skipUnless(CHOOSES_GROUPS, "pyOpenSSL or cryptography is too old to choose groups")
    def test_of_what_both_have_the_hybrid_is_taken(self) -> None:
        self.handshake(tls.load(self.certificate, self.key))
        self.assertEqual(self.group, "X25519MLKEM768")

    def test_an_openssl_without_the_hybrid_has_the_others(self) -> None:
        tried, cleared = [], []

        class Older:
            def SSL_CTX_set1_curves_list(self, context: object, groups: bytes) -> int:
                tried.append(groups)
                return 0 if b"MLKEM" in groups else 1

            def ERR_clear_error(self) -> None:
                cleared.append(True)

        self.patch(keyexchange, "_lib", Older())
        tls.load(self.certificate, self.key)
        self.assertEqual(tried[-1], b"X25519:P-256:P-384")
        self.assertEqual((len(tried), cleared), (2, [True]))

    def test_a_cryptography_that_cannot_choose_groups_is_served_with(self) -> None:
        self.patch(keyexchange, "_lib", object())
        self.assertEqual(self.handshake(tls.load(self.certificate, self.key)), ["server"])

    def test_no_session_is_resumed_so_that_each_has_keys_of_its_own(self) -> None:
        context = tls.load(self.certificate, self.key).getContext()
        self.assertEqual(context.get_session_cache_mode(), SSL.SESS_CACHE_OFF)
        self.assertTrue(context.set_options(0) & SSL.OP_NO_TICKET)

    def test_the_key_of_another_certificate_is_refused(self) -> None:
        other = self.write("other.key", pem_of_key(new_key()))
        self.assertCannotLoad(self.certificate, other, other, "not the key of the certificate", self.certificate)

    def test_a_chain_in_the_wrong_order_is_refused_as_the_wrong_key(self) -> None:
        chain = self.write("chain.crt", pem_of(self.root, self.server))
        self.assertCannotLoad(chain, self.key, chain, "not the key of the certificate")

    def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_passphrase(self) -> None:
        key = self.write("encrypted.key", pem_of_key(self.server_key, b"secret"))
        self.assertCannotLoad(self.certificate, key, key, "not a PEM private key without a passphrase")

    def test_garbage_is_refused(self) -> None:
        for data in (b"", b"garbage", b"\xff\x00\n" * 100, pem_of(self.server)[:-100]):
            garbage = self.write("garbage", data)
            self.assertCannotLoad(garbage, self.key, garbage, "not a PEM certificate")
        for data in (b"", b"garbage", b"\xff\x00\n" * 100, pem_of_key(self.server_key)[:-50]):
            garbage = self.write("garbage", data)
            self.assertCannotLoad(self.certificate, garbage, garbage, "not a PEM private key")

    def test_the_files_the_wrong_way_round_are_refused(self) -> None:
        self.assertCannotLoad(self.key, self.certificate, self.key, "not a PEM certificate")

    def test_a_missing_file_is_refused(self) -> None:
        missing = str(self.directory / "missing")
        for paths in ((missing, self.key), (self.certificate, missing)):
            self.assertCannotLoad(*paths, missing, "cannot be read: No such file or directory")

    def test_a_directory_is_refused(self) -> None:
        directory = str(self.directory)
        for paths in ((directory, self.key), (self.certificate, directory)):
            self.assertCannotLoad(*paths, f"{directory}: ", "cannot be read: Is a directory")

    def write_changed(self, old: bytes, new: bytes) -> str:
        """Write the certificate with some of its bytes changed, and answer its path."""
        der = self.server.public_bytes(serialization.Encoding.DER)
        self.assertEqual(der.count(old), 1)
        begin, end = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"
        return self.write("changed.crt", begin + encodebytes(der.replace(old, new)) + end)

    def test_a_certificate_of_an_unknown_version_is_refused(self) -> None:
        path = self.write_changed(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09")
        self.assertCannotLoad(path, self.key, path)

    def test_a_certificate_whose_public_key_cannot_be_read_is_refused(self) -> None:
        point = self.server_key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        for old, new in (
            (bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d030109")),  # the curve
            (point, b"\x04" + b"\x01" * 64),  # not on the curve
        ):
            path = self.write_changed(old, new)
            self.assertCannotLoad(path, self.key, path)

    def test_a_key_of_a_kind_that_cannot_sign_is_refused(self) -> None:
        key = x25519.X25519PrivateKey.generate()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        certificate = self.write("x.crt", pem_of(builder.sign(self.root_key, hashes.SHA256())))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self.write("x.key", pem)
        self.assertOneLine(self.assertRaises(StartFailed, tls.load, certificate, path), self.directory)

    def test_a_key_that_is_too_small_is_not_told_as_that_of_another_certificate(self) -> None:
        key = rsa.generate_private_key(65537, 1024)
        certificate = self.write("small.crt", pem_of(certificate_of("small", key, "small", key)))
        path = self.write("small.key", pem_of_key(key))
        error = self.assertRaises(StartFailed, tls.load, certificate, path)
        self.assertNotIn("is not the key of", str(error))


class CredentialsTests(DirectoryCase):
    def pair(self, name: str) -> tuple[str, str]:
        """Write a certificate and its key, always to the same files."""
        key = new_key()
        certificate = certificate_of(name, key, name, key)
        return self.write("live.crt", pem_of(certificate)), self.write("live.key", pem_of_key(key))

    def served(self, credentials: tls.Credentials) -> SSL.Connection:
        connection = credentials.serverConnectionForTLS(TLSMemoryBIOProtocol(self.factory, None, False))
        assert isinstance(connection, SSL.Connection)
        return connection

    def name(self, connection: SSL.Connection) -> str:
        certificate = connection.get_certificate(as_cryptography=True)
        assert certificate is not None
        return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    def setUp(self) -> None:
        super().setUp()
        self.factory = TLSMemoryBIOFactory(CertificateOptions(), False, Factory())

    def test_connections_to_come_get_what_was_read_again_and_those_that_live_keep_theirs(self) -> None:
        paths = self.pair("old")
        credentials = tls.Credentials(lambda: paths)
        before = self.served(credentials)
        self.pair("new")
        self.assertEqual(self.name(self.served(credentials)), "old")
        credentials.renewed(lambda: paths, None)()
        self.assertEqual((self.name(before), self.name(self.served(credentials))), ("old", "new"))

    def test_what_is_no_good_changes_nothing(self) -> None:
        paths = self.pair("old")
        credentials = tls.Credentials(lambda: paths)
        self.write("live.crt", b"garbage")
        self.assertRaises(StartFailed, credentials.renewed, lambda: paths, None)
        self.assertEqual(self.name(self.served(credentials)), "old")
