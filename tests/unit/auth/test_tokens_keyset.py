"""Key sets: fetched when a token needs them, and not more often."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pushd.bus.grants import Identity
from pushd.config.access import Key
from pushd.errors import Unauthorized, Unavailable
from tests.rigs.tokens import TokensRig, base64url, hs_key, jwk_of, private_key, token

URL = "https://id.example/jwks"
SET = Key("set", "ES256", jwks_url=URL)


def signed(number: int = 0, kid: str | None = None, **claims: Any) -> str:
    """Make a token with one of the private keys."""
    return token(claims, algorithm="ES256", key=private_key("ES256", number), header={"kid": kid})


def jwk(number: int = 0, kid: str | None = None, **members: Any) -> dict[str, Any]:
    """Write one of the public keys."""
    return jwk_of("ES256", number, kid=kid, **members)


class KeySetCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.rig = TokensRig(SET)
        self.issuer = self.rig.issuer

    def taken(self, waiting: Deferred[Identity]) -> Identity:
        identity = self.successResultOf(waiting)
        self.assertIsInstance(identity, Identity)
        return identity

    def have(self, *keys: dict[str, Any]) -> None:
        """Answer a fetch of the key set with `keys`."""
        waiting = self.rig.wait_for(signed())
        self.issuer.answer(*keys)
        waiting.addErrback(lambda failure: failure.trap(Unauthorized))

    def detail_of(self, text: str) -> str:
        """Return why a token is refused at once."""
        error: Unauthorized = self.assertRaises(Unauthorized, self.rig.tokens.identify, text)
        return error.detail

    def lines(self, events: Sequence[dict[str, Any]], level: LogLevel = LogLevel.warn) -> list[str]:
        return [formatEvent(event) or "" for event in events if event["log_level"] == level]


class FirstFetchTests(KeySetCase):
    def test_nothing_is_fetched_before_a_token_comes(self) -> None:
        self.assertEqual(self.issuer.urls, [])

    def test_the_first_token_waits_for_the_set_and_the_next_does_not(self) -> None:
        waiting = self.rig.wait_for(signed(sub="ann"))
        self.assertNoResult(waiting)
        self.issuer.answer(jwk())
        self.assertEqual(self.taken(waiting).user, "ann")
        self.assertEqual(self.rig.identify(signed(sub="bob")).user, "bob")
        self.assertEqual(self.issuer.urls, [URL])

    def test_tokens_that_come_meanwhile_share_the_fetch(self) -> None:
        waiting = [self.rig.wait_for(signed(sub=str(number))) for number in range(10)]
        self.issuer.answer(jwk())
        self.assertEqual([self.taken(one).user for one in waiting], list("0123456789"))
        self.assertEqual(len(self.issuer.urls), 1)

    def test_a_client_that_does_not_wait_any_longer_takes_nothing_from_the_others(self) -> None:
        first, second = self.rig.wait_for(signed(sub="ann")), self.rig.wait_for(signed(sub="bob"))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.issuer.answer(jwk())
        self.assertEqual(self.taken(second).user, "bob")

    def test_a_token_that_is_no_good_is_refused_after_the_fetch(self) -> None:
        waiting = self.rig.wait_for(signed(1))
        self.issuer.answer(jwk())
        error = self.failureResultOf(waiting, Unauthorized).value
        self.assertEqual(error.detail, "the signature is wrong; wanted one with key set (ES256)")
        self.assertTrue(error.is_token_wrong)

    def test_a_token_that_no_key_of_the_set_can_take_is_refused_without_a_fetch(self) -> None:
        self.rig = TokensRig(Key("set", "ES256", jwks_url=URL, issuer="https://id.example"))
        for text in "garbage", token(), signed(iss="https://evil.example"):
            self.detail_of(text)
        self.assertEqual(self.rig.issuer.urls, [])

    def test_a_token_of_a_key_in_the_file_does_not_wait(self) -> None:
        self.rig = TokensRig(SET, hs_key())
        self.rig.identify(token())
        self.assertEqual(self.rig.issuer.urls, [])


class OutageTests(KeySetCase):
    def test_without_any_set_the_server_is_unavailable_and_says_when_to_come_back(self) -> None:
        waiting = self.rig.wait_for(signed())
        self.rig.clock.advance(2)
        self.issuer.fail(Unavailable("ConnectionRefusedError: refused"))
        error = self.failureResultOf(waiting, Unavailable).value
        detail = "the keys of key set cannot be had: ConnectionRefusedError: refused"
        self.assertEqual((error.status, error.detail, error.retry_s), (503, detail, 3))
        again = self.assertRaises(Unavailable, self.rig.tokens.identify, signed())
        self.assertEqual((again.detail, again.retry_s), (detail, 3))
        self.assertEqual(len(self.issuer.urls), 1)

    def test_it_is_tried_again_after_5_s(self) -> None:
        self.failureResultOf(self.failing(), Unavailable)
        self.rig.clock.advance(5)
        waiting = self.rig.wait_for(signed())
        self.issuer.answer(jwk())
        self.taken(waiting)

    def failing(self) -> Deferred[Identity]:
        """Let a token wait for a fetch that fails."""
        waiting = self.rig.wait_for(signed())
        self.issuer.fail(Unavailable("it was answered with status 500; wanted 200"))
        return waiting

    def test_an_outage_is_logged_once_and_so_is_its_end(self) -> None:
        with capturedLogs() as events:
            for _ in range(3):
                self.failureResultOf(self.failing(), Unavailable)
                self.rig.clock.advance(5)
            self.have(jwk())
        self.assertEqual(
            self.lines(events),
            [
                f"the keys of [key:set] cannot be fetched: {URL}: it was answered with status 500; wanted 200; "
                "no token of it is taken"
            ],
        )
        self.assertEqual(
            self.lines(events, LogLevel.info), [f"the keys of [key:set] could be fetched again: {URL}"]
        )

    def test_another_outage_is_logged_again(self) -> None:
        with capturedLogs() as events:
            self.failureResultOf(self.failing(), Unavailable)
            self.rig.clock.advance(5)
            self.have(jwk())
            self.rig.clock.advance(3600)
            self.rig.identify(signed())
            self.issuer.fail(Unavailable("TLS: no"))
        self.assertEqual(
            self.lines(events)[1:],
            [f"the keys of [key:set] cannot be fetched: {URL}: TLS: no; those that are there go on serving"],
        )

    def test_a_fetch_that_fails_keeps_the_old_keys(self) -> None:
        self.have(jwk())
        for _ in range(3):
            self.rig.clock.advance(3600)
            self.rig.identify(signed())
            self.issuer.fail(Unavailable("no"))
            self.rig.identify(signed(sub="ann"))

    def test_an_answer_that_is_no_key_set_is_a_failure(self) -> None:
        json_why = "the answer is not JSON; wanted a JSON Web Key Set"
        keys_why = "the answer has no list of keys; wanted a JSON Web Key Set"
        for text, why in (
            (b"", json_why),
            (b"<html>", json_why),
            (b"\xff", json_why),
            (b"[" * 100_000, json_why),
            (b"[]", keys_why),
            (b"{}", keys_why),
            (b'{"keys":{}}', keys_why),
            (b"null", keys_why),
        ):
            waiting = self.rig.wait_for(signed())
            self.issuer.answer_text(text)
            error = self.failureResultOf(waiting, Unavailable).value
            self.assertEqual(error.detail, f"the keys of key set cannot be had: {why}")
            self.rig.clock.advance(5)

    def test_a_bug_is_logged_and_holds_nobody_up(self) -> None:
        waiting = self.rig.wait_for(signed())
        self.issuer.fail(ZeroDivisionError("bug"))
        error = self.failureResultOf(waiting, Unavailable).value
        self.assertEqual(error.detail, "the keys of key set cannot be had: an error of pushd itself")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.rig.clock.advance(5)
        waiting = self.rig.wait_for(signed())
        self.issuer.answer(jwk())
        self.taken(waiting)

    def test_a_key_in_the_file_goes_on_serving(self) -> None:
        path_key = hs_key()
        self.rig = TokensRig(SET, path_key)
        waiting = self.rig.wait_for(signed())
        self.rig.issuer.fail(Unavailable("no"))
        self.failureResultOf(waiting, Unavailable)
        self.rig.identify(token())


class RefreshTests(KeySetCase):
    def test_a_set_is_fetched_again_in_the_background_when_it_is_an_hour_old(self) -> None:
        self.have(jwk(0, "one"))
        self.rig.clock.advance(3599)
        self.rig.identify(signed(0, "one"))
        self.assertEqual(len(self.issuer.urls), 1)
        self.rig.clock.advance(1)
        for _ in range(3):
            self.rig.identify(signed(0, "one"))
        self.assertEqual(len(self.issuer.urls), 2)
        self.issuer.answer(jwk(1, "two"))
        self.rig.identify(signed(1, "two"))

    def test_a_token_that_is_remembered_has_it_fetched_too(self) -> None:
        self.have(jwk())
        text = signed()
        self.rig.identify(text)
        self.rig.clock.advance(3600)
        self.rig.identify(text)
        self.assertEqual(self.issuer.pending, 1)

    def test_a_token_whose_key_has_gone_is_not_remembered(self) -> None:
        self.have(jwk(0, "one"))
        text = signed(0, "one")
        self.rig.identify(text)
        self.rig.clock.advance(3600)
        self.rig.identify(text)
        self.issuer.answer(jwk(1, "two"))
        self.assertEqual(self.detail_of(text), "kid is 'one'; wanted that of a key of key set")

    def test_a_set_that_has_not_changed_lets_tokens_be_remembered(self) -> None:
        self.have(jwk(0, "one"))
        text = signed(0, "one")
        before = self.rig.identify(text)
        self.rig.clock.advance(3600)
        self.rig.identify(text)
        self.issuer.answer(jwk(0, "one"))
        self.assertIs(self.rig.identify(text), before)

    def test_a_fetch_in_the_background_that_fails_is_tried_again_after_30_s(self) -> None:
        self.have(jwk())
        self.rig.clock.advance(3600)
        self.rig.identify(signed())
        self.issuer.fail(Unavailable("no"))
        self.rig.clock.advance(29.9)
        self.rig.identify(signed())
        self.assertEqual(len(self.issuer.urls), 2)
        self.rig.clock.advance(0.1)
        self.rig.identify(signed())
        self.assertEqual(len(self.issuer.urls), 3)


class UnknownKidTests(KeySetCase):
    def setUp(self) -> None:
        super().setUp()
        self.have(jwk(0, "one"))

    def test_a_kid_that_is_not_known_has_the_set_fetched_again(self) -> None:
        self.rig.clock.advance(30)
        waiting = self.rig.wait_for(signed(1, "two"))
        self.issuer.answer(jwk(0, "one"), jwk(1, "two"))
        self.taken(waiting)

    def test_but_at_most_once_in_30_s(self) -> None:
        detail = "kid is 'two'; wanted that of a key of key set"
        for _ in range(3):
            for _ in range(100):
                self.assertEqual(self.detail_of(signed(1, "two")), detail)
            self.rig.clock.advance(30)
            waiting = self.rig.wait_for(signed(1, "two"))
            self.issuer.answer(jwk(0, "one"))
            self.assertEqual(self.failureResultOf(waiting, Unauthorized).value.detail, detail)
        self.assertEqual(len(self.issuer.urls), 4)

    def test_those_who_come_while_it_is_fetched_wait_for_the_same_fetch(self) -> None:
        self.rig.clock.advance(30)
        waiting = [self.rig.wait_for(signed(1, "two", sub=str(number))) for number in range(5)]
        self.rig.clock.advance(8)
        waiting.append(self.rig.wait_for(signed(1, "two")))
        self.assertEqual(self.issuer.pending, 1)
        self.issuer.answer(jwk(1, "two"))
        for one in waiting:
            self.taken(one)

    def test_those_with_a_kid_that_is_known_do_not_wait(self) -> None:
        self.rig.clock.advance(30)
        self.rig.wait_for(signed(1, "two"))
        self.rig.identify(signed(0, "one"))

    def test_a_fetch_that_fails_leaves_it_unknown(self) -> None:
        self.rig.clock.advance(30)
        waiting = self.rig.wait_for(signed(1, "two"))
        self.issuer.fail(Unavailable("no"))
        self.failureResultOf(waiting, Unauthorized)
        self.rig.identify(signed(0, "one"))

    def test_a_wrong_signature_has_nothing_fetched(self) -> None:
        self.rig.clock.advance(30)
        for kid in "one", None:
            self.detail_of(signed(1, kid))
        self.assertEqual(self.issuer.pending, 0)

    def test_a_kid_picks_the_set_that_has_it(self) -> None:
        self.rig = TokensRig(Key("a", "ES256", jwks_url="https://a"), Key("b", "ES256", jwks_url="https://b"))
        waiting = self.rig.wait_for(signed(1, "two"))
        self.rig.issuer.answer(jwk(0, "one"))
        self.rig.issuer.answer(jwk(1, "two"))
        self.assertEqual(self.taken(waiting).grants.origin, "the token of key b")
        detail = "the signature is wrong; wanted one with key a (ES256)"
        self.assertEqual(self.detail_of(signed(1, "one")), detail)
        self.assertEqual(self.rig.issuer.urls, ["https://a", "https://b"])


class ContentTests(KeySetCase):
    def assertIgnored(self, *members: Any) -> None:
        """Check that `members` of a set are of no use, and do no harm to the one that is."""
        self.rig = TokensRig(SET)
        waiting = self.rig.wait_for(signed(1, "ignored"))
        text = json.dumps({"keys": [*members, jwk(0, "good")]}).encode()
        self.rig.issuer.answer_text(text)
        error = self.failureResultOf(waiting, Unauthorized).value
        self.assertEqual(error.detail, "kid is 'ignored'; wanted that of a key of key set")
        self.rig.identify(signed(0, "good"))

    def test_keys_for_something_else_are_ignored(self) -> None:
        kid = "ignored"
        self.assertIgnored(jwk(1, kid, use="enc"))
        self.assertIgnored(jwk(1, kid, alg="ES384"))
        self.assertIgnored(jwk(1, kid, alg="HS256"))
        self.assertIgnored(jwk(1, kid, key_ops=["encrypt"]))
        self.assertIgnored(jwk(1, kid, key_ops="verify"))
        self.assertIgnored(jwk_of("ES384", 1, kid=kid))
        self.assertIgnored(jwk_of("RS256", kid=kid))
        self.assertIgnored(jwk_of("EdDSA", kid=kid))

    def test_secrets_are_ignored(self) -> None:
        secret = {"kty": "oct", "k": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE", "kid": "ignored"}
        self.assertIgnored(secret, {**secret, "alg": "ES256"}, {**secret, "alg": "HS256"})

    def test_private_keys_are_ignored(self) -> None:
        """A private key in public is not one that proves anything."""
        number: int = private_key("ES256", 1).private_numbers().private_value
        self.assertIgnored(jwk(1, "ignored", d=base64url(number.to_bytes(32, "big"))))

    def test_what_is_no_key_is_ignored(self) -> None:
        kid = "ignored"
        members: list[Any] = [
            None,
            [],
            "x",
            {},
            {"kid": kid},
            {"kty": "EC", "kid": kid},
            jwk(1, kid, x="!!"),
            jwk(1, kid, x="aaaaa"),
            jwk(1, kid, x=""),
            jwk(1, kid, x=17),
            jwk(1, kid, crv="P-384"),
            jwk(1, kid, crv="secp256k1"),
            jwk(1, kid, y=jwk(0)["y"]),
            jwk(1, kid, kty=["EC"]),
            jwk(1, kid, kty=None),
        ]
        for member in members:
            self.assertIgnored(member)

    def test_rsa_keys_that_are_too_small_or_odd_are_ignored(self) -> None:
        self.rig = TokensRig(Key("set", "RS256", jwks_url=URL))
        small = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key(), as_dict=True)
        good = jwk_of("RS256", kid="good")
        odd = [{**good, "kid": "odd", "e": e} for e in ("AQ", "AAAA", "", "!")] + [
            {**good, "kid": "odd", "n": "AQ"}
        ]
        waiting = self.rig.wait_for(token(algorithm="RS256", header={"kid": "odd"}))
        self.rig.issuer.answer({**small, "kid": "odd"}, *odd, good)
        self.failureResultOf(waiting, Unauthorized)
        self.rig.identify(token(algorithm="RS256", header={"kid": "good"}))

    def test_keys_without_a_name_are_tried_for_any(self) -> None:
        self.have(jwk(0), jwk(1, "one"))
        for kid in None, "x", "one":
            self.rig.identify(signed(0, kid))

    def test_a_kid_that_is_no_text_is_none(self) -> None:
        self.have(jwk(0, kid=17))  # type: ignore[arg-type]
        self.rig.identify(signed(0, "17"))

    def test_an_empty_set_takes_the_keys_away(self) -> None:
        self.have(jwk(0, "one"))
        self.rig.clock.advance(3600)
        with capturedLogs() as events:
            self.rig.identify(signed(0, "one"))
            self.issuer.answer()
        self.assertEqual(self.lines(events), [f"the key set of [key:set] has no key for ES256: {URL}"])
        self.assertEqual(self.detail_of(signed()), "the key set of key set has no key for ES256")
        self.assertEqual(self.detail_of(signed(0, "one")), "kid is 'one'; wanted that of a key of key set")

    def test_only_the_first_100_keys_are_used(self) -> None:
        with capturedLogs() as events:
            self.have(*(jwk(0, f"k{number}") for number in range(150)))
        self.assertEqual(
            self.lines(events), [f"of the key set of [key:set], only the first 100 keys are used: {URL}"]
        )
        self.rig.identify(signed(0, "k99"))
        self.assertEqual(self.detail_of(signed(0, "k100")), "kid is 'k100'; wanted that of a key of key set")

    def test_a_token_without_a_kid_is_tried_with_ten_keys_at_most(self) -> None:
        self.have(*(jwk(9 - number, str(number)) for number in range(10)))
        self.rig.identify(signed())
        self.rig = TokensRig(SET)
        self.issuer = self.rig.issuer
        self.have(*(jwk(10 - number, str(number)) for number in range(11)))
        self.assertEqual(self.detail_of(signed()), "kid is missing; wanted that of one of the 11 keys of key set")
        self.rig.identify(signed(0, "10"))

    def test_a_kid_that_is_the_name_of_the_section_is_as_none(self) -> None:
        self.have(jwk(0, "one"))
        self.rig.identify(signed(0, "set"))
