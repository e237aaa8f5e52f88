"""Keys of tokens: secrets and public keys in files, read at the start or refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa, x25519
from cryptography.x509.oid import NameOID

from pushd.auth.tokens.keys import read_key
from pushd.config.access import Key
from pushd.errors import StartFailed
from tests.rigs.tokens import SECRET, TokensRig, private_key, public_pem, token
from tests.unit.server.test_tls import DirectoryCase, pem_of, pem_of_key

RSA = "an RSA key of 2048 to 16384 bits with RS256"
P256 = "an EC key on the curve secp256r1 (P-256) with ES256"


class KeyFileCase(DirectoryCase):
    def assertNoGood(self, key: Key, text: str) -> None:
        """Check what the operator is told, in one line."""
        error = self.assertRaises(StartFailed, read_key, key)
        self.assertEqual(str(error), text)
        self.assertEqual(len(text.splitlines()), 1)
        self.assertRaises(StartFailed, TokensRig, key)


class SecretFileTests(KeyFileCase):
    def assertFileNoGood(self, data: bytes, why: str, algorithm: str = "HS256") -> None:
        path = self.write("secret", data)
        key = Key("app", algorithm, secret_file=path)
        self.assertNoGood(key, f"[key:app] secret_file = {path}: {why}")

    def test_white_space_at_the_end_does_not_count(self) -> None:
        for end in b"", b"\n", b"\r\n", b" \t\n\n":
            rig = TokensRig(Key("app", "HS256", secret_file=self.write("secret", SECRET.encode() + end)))
            rig.identify(token())

    def test_white_space_elsewhere_does(self) -> None:
        secret = b" " + SECRET.encode()
        TokensRig(Key("app", "HS256", secret_file=self.write("secret", secret))).identify(token(key=secret))

    def test_any_bytes_are_a_secret(self) -> None:
        secret = bytes(range(255, 200, -1))
        TokensRig(Key("app", "HS256", secret_file=self.write("secret", secret))).identify(token(key=secret))

    def test_a_secret_that_is_too_short_is_refused(self) -> None:
        for algorithm, least in ("HS256", 32), ("HS384", 48), ("HS512", 64):
            why = f"has {least - 1} bytes; wanted at least {least} with {algorithm} (RFC 7518, section 3.2)"
            self.assertFileNoGood(b"x" * (least - 1) + b"\n", why, algorithm)
            read_key(Key("app", algorithm, secret_file=self.write("secret", b"x" * least)))

    def test_a_public_key_or_a_certificate_is_no_secret(self) -> None:
        why = "is a key or a certificate; wanted a secret that nobody else knows"
        key = private_key("RS256")
        der = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        jwk = b'{"kty":"oct","k":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE"}'
        for data in public_pem(key), pem_of_key(key), der, jwk:
            self.assertFileNoGood(data, why)

    def test_a_file_that_cannot_be_read_is_named(self) -> None:
        missing = str(self.directory / "missing")
        for path, why in (missing, "No such file or directory"), (str(self.directory), "Is a directory"):
            key = Key("app", "HS256", secret_file=path)
            self.assertNoGood(key, f"[key:app] secret_file = {path}: cannot be read: {why}")
            key = Key("app", "ES256", public_key_file=path)
            self.assertNoGood(key, f"[key:app] public_key_file = {path}: cannot be read: {why}")

    def test_a_file_without_end_is_not_read_to_its_end(self) -> None:
        key = Key("app", "HS256", secret_file="/dev/zero")
        self.assertNoGood(key, "[key:app] secret_file = /dev/zero: is larger than 65536 bytes; wanted just a key")

    def test_the_secret_is_in_no_error_and_no_repr(self) -> None:
        for secret in SECRET[:40], f'{{"kty":"oct","k":"{SECRET}"}}':
            key = Key("app", "HS512", secret=secret)
            error = self.assertRaises(StartFailed, read_key, key)
            self.assertNotIn(SECRET[:40], f"{error!r}{key!r}")
        self.assertNotIn(SECRET, repr(read_key(Key("app", "HS512", secret=SECRET))))


class PublicKeyFileTests(KeyFileCase):
    def assertFileNoGood(self, data: bytes, why: str, algorithm: str = "RS256") -> None:
        path = self.write("key.pem", data)
        key = Key("app", algorithm, public_key_file=path)
        self.assertNoGood(key, f"[key:app] public_key_file = {path}: {why}")

    def test_a_key_of_another_kind_is_refused(self) -> None:
        rsa_key, p256, ed25519 = (private_key(name) for name in ("RS256", "ES256", "EdDSA"))
        dsa_key = dsa.generate_private_key(1024)
        x_key = x25519.X25519PrivateKey.generate()
        found = {
            "an RSA key of 2048 bits": rsa_key,
            "an EC key on the curve secp256r1": p256,
            "an EdDSA key": ed25519,
            "a key of another kind": dsa_key,
        }
        wanted = {
            "RS256": RSA,
            "PS512": RSA.replace("RS256", "PS512"),
            "ES256": P256,
            "ES384": "an EC key on the curve secp384r1 (P-384) with ES384",
            "ES512": "an EC key on the curve secp521r1 (P-521) with ES512",
            "EdDSA": "an Ed25519 or Ed448 key with EdDSA",
        }
        fitting = {("RS256", rsa_key), ("PS512", rsa_key), ("ES256", p256), ("EdDSA", ed25519)}
        for algorithm, token_request in wanted.items():
            for what, key in found.items():
                if (algorithm, key) not in fitting:
                    self.assertFileNoGood(public_pem(key), f"is {what}; wanted {token_request}", algorithm)
            self.assertFileNoGood(public_pem(x_key), f"is a key of another kind; wanted {token_request}", algorithm)

    def test_a_key_on_another_curve_is_refused(self) -> None:
        for curve, name in (ec.SECP256K1(), "secp256k1"), (ec.SECP521R1(), "secp521r1"):
            pem = public_pem(ec.generate_private_key(curve))
            self.assertFileNoGood(pem, f"is an EC key on the curve {name}; wanted {P256}", "ES256")

    def test_an_rsa_key_that_is_too_small_is_refused(self) -> None:
        pem = public_pem(rsa.generate_private_key(65537, 1024))
        self.assertFileNoGood(pem, f"is an RSA key of 1024 bits; wanted {RSA}")

    def test_a_private_key_is_refused(self) -> None:
        key = private_key("ES256")
        why = (
            "has a private key; wanted only the public one: openssl pkey -in FILE -pubout; "
            "pushd must not be able to make tokens"
        )
        for pem in pem_of_key(key), pem_of_key(key, b"password"), public_pem(key) + pem_of_key(key):
            self.assertFileNoGood(pem, why, "ES256")

    def test_a_certificate_is_refused(self) -> None:
        key = private_key("RS256")
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        pem = pem_of(builder.sign(key, hashes.SHA256()))
        why = "is a certificate; wanted the public key in it: openssl x509 -in FILE -noout -pubkey"
        self.assertFileNoGood(pem, why)

    def test_garbage_is_refused(self) -> None:
        why = "is not a public key in PEM; wanted -----BEGIN PUBLIC KEY-----"
        ssh = (
            private_key("RS256")
            .public_key()
            .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        )
        for data in b"", b"garbage", b"\xff" * 100, public_pem(private_key("RS256"))[:-60], ssh:
            self.assertFileNoGood(data, why)

    def test_a_key_in_the_older_form_of_rsa_is_taken(self) -> None:
        pem = (
            private_key("RS256")
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
        )
        rig = TokensRig(Key("app", "RS256", public_key_file=self.write("key.pem", pem)))
        rig.identify(token(algorithm="RS256"))
