"""Sizes, durations and counts."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pushd.config.units import parse_count, parse_duration, parse_size, show_duration, show_size

HOSTILE = ["", " ", "-1", "+1", "nan", "inf", "1e3", "0x10", "1_000", "\u0663", "1.5", "9" * 5000, "1\n", "1 "]


class Refusing(SynchronousTestCase):
    def assert_refuses(self, parse: Callable[[str], object], *texts: str) -> None:
        for text in texts:
            self.assertRaises(ValueError, parse, text)


class SizeTests(Refusing):
    def test_units_of_1024_and_of_1000_differ(self) -> None:
        sizes = {"1KiB": 1024, "64KiB": 65536, "1MiB": 1048576, "2GiB": 2147483648}
        sizes |= {"10kB": 10_000, "1MB": 1_000_000, "3GB": 3_000_000_000}
        for text, size_bytes in sizes.items():
            self.assertEqual(parse_size(text), size_bytes)

    def test_a_plain_number_is_bytes(self) -> None:
        self.assertEqual([parse_size("0"), parse_size("1000"), parse_size("007")], [0, 1000, 7])

    def test_units_are_written_exactly(self) -> None:
        self.assert_refuses(parse_size, "1K", "1k", "1KB", "1kib", "1mb", "1 MiB", "MiB", "12 parsecs", "1s")

    def test_refuses_what_is_not_a_whole_number(self) -> None:
        self.assert_refuses(parse_size, *HOSTILE)

    def test_is_shown_in_the_shortest_exact_unit(self) -> None:
        shown = {0: "0", 1: "1", 1000: "1kB", 1001: "1001", 1024: "1KiB", 1048576: "1MiB", 1536: "1536"}
        shown |= {16777216: "16MiB", 10**6: "1MB", 2**31: "2GiB"}
        for size_bytes, text in shown.items():
            self.assertEqual(show_size(size_bytes), text)

    @given(st.integers(0, 10**15 - 1))
    def test_reads_back_what_is_shown(self, size_bytes: int) -> None:
        self.assertEqual(parse_size(show_size(size_bytes)), size_bytes)


class DurationTests(Refusing):
    def test_is_seconds_whatever_the_unit(self) -> None:
        durations = {"500ms": 0.5, "10s": 10.0, "5m": 300.0, "1h": 3600.0, "7d": 604800.0, "0s": 0.0}
        for text, duration_s in durations.items():
            self.assertEqual(parse_duration(text), duration_s)

    def test_needs_a_unit_except_for_0(self) -> None:
        self.assertEqual(parse_duration("0"), 0.0)
        self.assert_refuses(parse_duration, "1", "10", "00")

    def test_units_are_written_exactly(self) -> None:
        self.assert_refuses(parse_duration, "1S", "1sec", "1 s", "1us", "1w", "s", "1h30m", "1KiB")

    def test_refuses_what_is_not_a_whole_number(self) -> None:
        self.assert_refuses(parse_duration, *HOSTILE, "-1s", "nans", "infs", "1.5s")

    def test_is_shown_in_the_shortest_exact_unit(self) -> None:
        shown = {0.0: "0", 0.5: "500ms", 1.5: "1500ms", 2.0: "2s", 60.0: "1m", 90.0: "90s", 86400.0: "1d"}
        for duration_s, text in shown.items():
            self.assertEqual(show_duration(duration_s), text)

    @given(st.integers(0, 10**13))
    def test_reads_back_what_is_shown(self, milliseconds: int) -> None:
        self.assertEqual(parse_duration(show_duration(milliseconds / 1000)), milliseconds / 1000)


class CountTests(Refusing):
    def test_is_a_plain_whole_number(self) -> None:
        self.assertEqual([parse_count("0"), parse_count("100000")], [0, 100000])

    def test_refuses_what_is_not(self) -> None:
        self.assert_refuses(parse_count, *HOSTILE, "1kB", "1s", "one")
