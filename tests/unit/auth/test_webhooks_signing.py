"""Signatures, checked by a library that is not made of pushd's code."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time

from standardwebhooks import Webhook, WebhookVerificationError
from twisted.trial.unittest import SynchronousTestCase

from pushd.auth.webhooks.signing import Signer
from pushd.errors import StartFailed
from tests.rigs.application import SECRET, hooks

WANTED = "wanted whsec_ and 24 to 64 bytes in base64"


def secret_of(size: int) -> str:
    return f"whsec_{b64encode(bytes(range(size))).decode()}"


class SignatureTests(SynchronousTestCase):
    def test_standard_webhooks_verifies_them(self) -> None:
        body = '{"user":"Å\\ud800","payload":{}}'.encode()
        for secret in (SECRET, secret_of(24), secret_of(64)):
            headers = Signer(secret).headers("msg-1", time(), body)
            self.assertEqual(Webhook(secret).verify(body, headers)["payload"], {})

    def test_another_body_id_time_or_secret_has_another_signature(self) -> None:
        headers = Signer(SECRET).headers("msg-1", time(), b"{}")
        later = str(int(headers["webhook-timestamp"]) + 1)
        for changed, body, secret in (
            ({}, b"[]", SECRET),
            ({"webhook-id": "msg-2"}, b"{}", SECRET),
            ({"webhook-timestamp": later}, b"{}", SECRET),
            ({}, b"{}", secret_of(24)),
        ):
            with self.assertRaises(WebhookVerificationError):
                Webhook(secret).verify(body, {**headers, **changed})

    def test_the_example_of_the_specification(self) -> None:
        body = b'{"test": 2432232314}'
        headers = Signer(SECRET).headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330.9, body)
        self.assertEqual(headers["webhook-timestamp"], "1614265330")
        self.assertEqual(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")


class SecretTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = TemporaryDirectory(prefix="pushd-")
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "secret"

    def test_one_of_another_form_is_refused_and_not_shown(self) -> None:
        key = SECRET.removeprefix("whsec_")
        for secret in (
            *("", "whsec_", key, f"WHSEC_{key}", f" {SECRET}", f"whsec_{key}!", f"whsec_{key[:-1]}"),
            *(secret_of(23), secret_of(65), "whsec_ﬀﬀ", f"whsec_whsec_{key}"),
        ):
            error = self.assertRaises(StartFailed, Signer, secret)
            self.assertEqual(str(error), f"[hooks] secret: {WANTED}")

    def test_nothing_shows_it(self) -> None:
        signer = Signer.of(hooks())
        self.assertNotIn(SECRET[6:16], repr(signer) + str(hooks()))
        self.assertFalse(hasattr(signer, "__dict__"))

    def test_it_may_be_in_a_file_with_white_space_at_its_end(self) -> None:
        self.path.write_text(f"{SECRET}\n\n")
        signer = Signer.of(hooks(secret=None, secret_file=str(self.path)))
        self.assertEqual(signer.headers("m", 1, b"x"), Signer(SECRET).headers("m", 1, b"x"))

    def test_a_file_that_has_none_or_is_not_there_is_refused(self) -> None:
        settings = hooks(secret=None, secret_file=str(self.path))
        error = self.assertRaises(StartFailed, Signer.of, settings)
        self.assertEqual(
            str(error), f"[hooks] secret_file = {self.path}: cannot be read: No such file or directory"
        )
        for content in (b"", b"\xff\xfe" + SECRET.encode(), SECRET.encode() + b"\n" + b"x" * 5000):
            self.path.write_bytes(content)
            error = self.assertRaises(StartFailed, Signer.of, settings)
            self.assertEqual(str(error), f"[hooks] secret_file = {self.path}: {WANTED}")
