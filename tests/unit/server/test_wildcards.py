"""Wildcards: what they stand for, and what they never do."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from pushd.server.web.wildcards import Wildcards

LABELS = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,8}[a-z0-9_])?", fullmatch=True)


class WildcardTests(TestCase):
    def test_without_any_it_is_a_set(self) -> None:
        known = Wildcards(["a.example", "https://b.example:8443"])
        for text, is_in in (
            ("a.example", True),
            ("https://b.example:8443", True),
            ("b.example", False),
            ("", False),
        ):
            self.assertEqual(text in known, is_in)
        self.assertEqual(known.exact, {"a.example", "https://b.example:8443"})

    def test_a_star_alone_is_none_of_them(self) -> None:
        self.assertNotIn("*", Wildcards(["*"]))
        self.assertNotIn("https://a.example", Wildcards(["*"]))

    def test_it_stands_for_one_or_more_labels(self) -> None:
        known = Wildcards(["https://*.example.com", "https://exact.example"])
        for origin in (
            "https://a.example.com",
            "https://a.b-c.d_e.example.com",
            "https://xn--bcher-kva.example.com",
        ):
            self.assertIn(origin, known)
        self.assertNotIn("https://a.example.com", known.exact)

    def test_it_stands_for_nothing_else(self) -> None:
        known = Wildcards(["https://*.example.com"])
        for origin in (
            "https://example.com", "https://.example.com", "https://evil-example.com", "https://evilexample.com",
            "https://a.example.com.evil", "https://a.example.com:8443", "http://a.example.com", "https://a.exampleXcom",
            "https://evil/.example.com", "https://evil@a.example.com", "https://evil:a.example.com", "https://*.example.com",
            "https://evil#.example.com", "https://evil?.example.com", "https://a..example.com", "https://-.example.com",
            "https://a.example.com\n", "https://evil.com\\.example.com", "https://evil%2f.example.com", "null", "",
            "https://a.example.com/", "xhttps://a.example.com", "https://\u00fc.example.com", "https://[::1].example.com",
            "https://" + "a." * 200 + "example.com", "https://" + "a" * 64 + ".example.com",
        ):  # fmt: skip
            with self.subTest(origin):
                self.assertNotIn(origin, known)

    def test_a_port_may_be_any_or_none(self) -> None:
        known = Wildcards(["http://localhost:*", "https://*.example.com:*"])
        for origin in (
            "http://localhost",
            "http://localhost:3000",
            "https://a.example.com:1",
            "https://a.example.com",
        ):
            self.assertIn(origin, known)
        for origin in (
            "http://localhost:", "http://localhost:x", "http://localhost:123456", "http://localhost.evil",
            "http://localhost:80.evil", "http://localhost:80@evil",
        ):  # fmt: skip
            self.assertNotIn(origin, known)

    @given(st.lists(LABELS, min_size=1, max_size=5), st.text(max_size=10))
    def test_whatever_stands_before_only_whole_labels_count(self, labels: list[str], junk: str) -> None:
        known = Wildcards(["*.example.com"])
        host = f"{'.'.join(labels)}.example.com"
        self.assertIn(host, known)
        self.assertNotIn(f"{'.'.join(labels)}example.com" if not labels[-1].endswith(".") else "", known)
        self.assertNotIn(f"{host}.{labels[0]}", known)
        text = f"{junk}.example.com"
        is_name = all(part and part.isascii() and part.strip("-") for part in junk.split("."))
        if text in known:
            self.assertTrue(is_name, text)
            self.assertTrue(set(junk) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-"), text)
