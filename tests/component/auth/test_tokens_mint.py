"""Development tokens: made from the command line, and taken."""

from __future__ import annotations

import re
import time
from dataclasses import replace

from pushd.auth.tokens.mint import TokenRequest, choose_key, mint
from pushd.bus.patterns import Pattern
from pushd.config.access import Key
from pushd.config.loader import parse
from pushd.errors import ConfigError, StartFailed
from tests.component.daemon.test_tap import PLAIN, TapCase
from tests.rigs.tokens import NOW, SECRET, TokensRig, hs_key

SECTION = f"[key:app]\nalgorithm = HS256\nsecret = {SECRET}\n"
PUBLIC = "[key:public]\nalgorithm = ES256\npublic_key_file = /nowhere.pem\n"


class MintTests(TapCase):
    def test_a_token_claims_what_was_wished_and_is_taken(self) -> None:
        for algorithm in "HS256", "HS384", "HS512":
            key = hs_key("a", algorithm, issuer="https://i", audience="push")
            token_request = TokenRequest("ann", (Pattern.parse("a/*"),), (Pattern.parse("**"),), True, 60)
            identity = TokensRig(hs_key("b", algorithm), key).identify(mint(key, token_request, NOW))
            self.assertEqual((identity.user, identity.expires_at), ("ann", NOW + 70))
            grants = identity.grants
            self.assertEqual((grants.publish.texts, grants.subscribe.texts), (("a/*",), ("**",)))
            self.assertTrue(grants.is_operator)
            self.assertEqual(grants.origin, "the token of key a")

    def test_a_token_that_nothing_was_wished_of_lasts_an_hour_and_gives_nothing(self) -> None:
        identity = TokensRig(hs_key()).identify(mint(hs_key(), TokenRequest(), NOW))
        self.assertEqual((identity.user, identity.expires_at), (None, NOW + 3610))
        self.assertFalse(identity.grants.publish or identity.grants.subscribe or identity.grants.is_operator)

    def test_the_secret_may_be_in_a_file(self) -> None:
        path = self.directory / "secret"
        path.write_text(f"{SECRET}\n")
        key = Key("app", "HS256", secret_file=str(path))
        TokensRig(key).identify(mint(key, TokenRequest(), NOW))
        self.assertRaises(StartFailed, mint, replace(key, secret_file="/nowhere"), TokenRequest(), NOW)

    def test_what_no_token_may_claim_is_refused(self) -> None:
        many = tuple(Pattern.parse(f"a{number}") for number in range(101))
        long = tuple(Pattern.parse(f"{number:0250}") for number in range(100))
        for token_request, why in (
            (TokenRequest("a\nb"), "sub is 'a\\nb'; wanted text without control characters"),
            (TokenRequest("a" * 256), "sub has 256 bytes; wanted 1 to 255"),
            (TokenRequest("\udcff"), "sub is '\\udcff'; wanted text without control characters"),
            (TokenRequest(publish=many), "publish in pushd has 101 patterns; wanted 100 at most"),
            (TokenRequest(publish=long), "the token has 33927 bytes; wanted 8192 at most"),
        ):
            error = self.assertRaises(ConfigError, mint, hs_key(), token_request, NOW)
            self.assertEqual(str(error), f"no token can claim that: {why}")

    def test_the_only_key_with_a_secret_is_chosen(self) -> None:
        public = Key("public", "ES256", jwks_url="https://a.example")
        self.assertEqual(choose_key([public, hs_key()], None), hs_key())
        self.assertEqual(choose_key([hs_key("a"), hs_key("b")], "b"), hs_key("b"))


class CommandTests(TapCase):
    def made(self, text: str, *arguments: str) -> str:
        """Make a token by the command line."""
        self.stdout.truncate(self.stdout.seek(0))
        error = self.assertRaises(SystemExit, self.options, "--config", self.config(text), "--token", *arguments)
        self.assertEqual(error.code, 0, error)
        return self.stdout.getvalue()

    def ends(self, text: str, *arguments: str) -> str:
        error = self.assertRaises(SystemExit, self.options, "--config", self.config(text), *arguments)
        self.assertEqual(self.stdout.getvalue(), "")
        return str(error)

    def test_a_token_is_printed_on_one_line_and_taken(self) -> None:
        out = self.made(
            SECTION, "--user", "ann", "--publish", "a, b/**", "--subscribe", "c", "--operator", "--expires", "10m"
        )
        self.assertRegex(out, r"\A[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}\n\Z")
        rig = TokensRig(*parse(SECTION, "x").keys)
        rig.clock.advance(time.time() - NOW)
        identity = rig.identify(out.strip())
        self.assertEqual((identity.user, identity.grants.publish.texts), ("ann", ("a", "b/**")))
        self.assertEqual(identity.grants.subscribe.texts, ("c",))
        self.assertTrue(identity.grants.is_operator)
        assert identity.expires_at is not None
        self.assertLess(abs(identity.expires_at - time.time() - 610), 30)

    def test_nothing_else_happens(self) -> None:
        self.made(SECTION)
        self.assertFalse(self.state.exists())

    def test_without_a_key_the_lines_to_add_are_told_and_are_right(self) -> None:
        told = self.ends(PLAIN, "--token")
        first, _, lines = told.partition("\n\n")
        self.assertEqual(
            first, "pushd: there is no [key:NAME] whose secret could sign a token; put these lines into the file:"
        )
        self.made(f"{PLAIN}\n{lines}")
        self.assertNotEqual(self.ends_with_secret(told), self.ends_with_secret(self.ends_again()))

    def ends_again(self) -> str:
        self.stdout.truncate(self.stdout.seek(0))
        return self.ends(PLAIN, "--token")

    def ends_with_secret(self, told: str) -> str:
        match = re.search(r"^secret = (\S{64})$", told, re.MULTILINE)
        assert match is not None, told
        return match[1]

    def test_a_key_must_be_named_if_several_could_sign(self) -> None:
        text = SECTION + SECTION.replace("app", "other") + PUBLIC
        self.assertEqual(
            self.ends(text, "--token"),
            "pushd: several keys could sign a token; wanted --key with one of app, other",
        )
        self.made(text, "--key", "other")

    def test_a_key_that_is_not_there_is_told(self) -> None:
        self.assertEqual(
            self.ends(SECTION + PUBLIC, "--token", "--key", "nosuch"),
            "pushd: --key nosuch: there is no [key:nosuch]; wanted one of app, public",
        )

    def test_with_a_public_key_no_token_can_be_made(self) -> None:
        for text, arguments in (PUBLIC, ()), (SECTION + PUBLIC, ("--key", "public")):
            self.assertEqual(
                self.ends(text, "--token", *arguments),
                "pushd: [key:public] algorithm = ES256: tokens for it are signed with a private key, which pushd "
                "does not have; make them where that is (docs/tokens.rst); wanted a key with a secret",
            )

    def test_options_that_are_wrong_are_told(self) -> None:
        for arguments, told in (
            (
                ("--publish", "a, **/b/**/c/**/d/**/e/**"),
                "--publish a, **/b/**/c/**/d/**/e/**: wanted channels and",
            ),
            (("--subscribe", "a,,b"), "--subscribe a,,b: wanted channels and patterns such as news or public/**"),
            (
                ("--expires", "never"),
                "--expires never: wanted a duration such as 500ms, 10s, 5m, 1h or 7d, from 1s",
            ),
            (("--expires", "0"), "--expires 0: wanted a duration"),
            (("--user", ""), "no token can claim that: sub has 0 bytes; wanted 1 to 255"),
        ):
            self.assertIn(told, self.ends(SECTION, "--token", *arguments))

    def test_options_of_a_token_want_one(self) -> None:
        for name in "key", "user", "publish", "subscribe", "expires":
            self.assertEqual(self.ends(SECTION, f"--{name}", "x"), f"pushd: --{name} goes with --token")
        self.assertEqual(self.ends(SECTION, "--operator"), "pushd: --operator goes with --token")

    def test_a_secret_that_cannot_be_read_is_told(self) -> None:
        text = "[key:app]\nalgorithm = HS256\nsecret_file = /nowhere\n"
        self.assertEqual(
            self.ends(text, "--token"),
            "pushd: [key:app] secret_file = /nowhere: cannot be read: No such file or directory",
        )
