"""The ini file as text."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pushd.config.ini import decode_ini, read_ini
from pushd.errors import ConfigError


class ReadIniTests(SynchronousTestCase):
    def assert_refuses(self, text: str, *words: str) -> None:
        error = self.assertRaises(ConfigError, read_ini, text)
        for word in words:
            self.assertIn(word, str(error))

    def test_keeps_the_order_of_sections_and_the_case_of_names(self) -> None:
        sections = read_ini("[B]\nX = 1\nx = 2\n[a]\n[A]\n")
        self.assertEqual(list(sections.items()), [("B", {"X": "1", "x": "2"}), ("a", {}), ("A", {})])

    def test_nothing_is_interpolated_unquoted_or_cut_off(self) -> None:
        values = read_ini('[a]\nx = %(y)s ${z} "q" = # ; :\n')
        self.assertEqual(values, {"a": {"x": '%(y)s ${z} "q" = # ; :'}})

    def test_comments_have_lines_of_their_own(self) -> None:
        self.assertEqual(read_ini("# a\n[a]\n; b\n  # c\nx = 1\n# d\n"), {"a": {"x": "1"}})

    def test_only_an_equals_sign_ends_a_name(self) -> None:
        self.assertEqual(read_ini("[a]\nx:y = 1"), {"a": {"x:y": "1"}})

    def test_default_is_a_section_like_others(self) -> None:
        self.assertEqual(read_ini("[DEFAULT]\nx = 1\n[a]\n"), {"DEFAULT": {"x": "1"}, "a": {}})

    def test_an_indented_line_continues_a_value(self) -> None:
        self.assertEqual(read_ini("[a]\nx = 1,\n  2\ny =\n  3"), {"a": {"x": "1,\n2", "y": "\n3"}})

    def test_an_empty_line_ends_a_value(self) -> None:
        self.assert_refuses("[a]\nx = 1\n\n  2\n", "line 4: 2: wanted option = value")

    def test_lines_may_end_as_on_windows(self) -> None:
        self.assertEqual(read_ini("[a]\r\nx = 1\r\n"), {"a": {"x": "1"}})

    def test_a_section_may_hold_brackets_but_nothing_after_them(self) -> None:
        self.assertEqual(read_ini("[a[1]]"), {"a[1]": {}})
        self.assert_refuses("[a]\n[b] c\n", "line 2: [b] c")

    def test_refuses_what_is_said_twice(self) -> None:
        self.assert_refuses("[a]\n[b]\n[a]\n", "line 3", "[a]")
        self.assert_refuses("[a]\nx = 1\nx = 1\n", "line 3", "[a] x")

    def test_refuses_text_before_the_first_section(self) -> None:
        self.assert_refuses("\nx = 1\n[a]\n", "line 2: x = 1", "wanted a section")

    def test_refuses_a_line_without_an_equals_sign_or_a_name(self) -> None:
        self.assert_refuses("[a]\nx\n", "line 2: x: wanted option = value")
        self.assert_refuses("[a]\n= 1\n", "line 2: = 1: wanted option = value")
        self.assert_refuses("[]\n", "line 1")

    def test_refuses_control_characters_with_their_line(self) -> None:
        for character in "\0\x1b\x7f\x85\r\ud800\f":
            self.assert_refuses(f"[a]\nx = a{character}b\n", "line 2: a control character")

    def test_cuts_a_long_line_short_in_the_message(self) -> None:
        self.assert_refuses("x" * 5000, "line 1: " + "x" * 80 + "...: wanted")


class DecodeIniTests(SynchronousTestCase):
    def test_text_is_utf_8_with_or_without_a_mark(self) -> None:
        self.assertEqual(decode_ini("[ä]".encode()), "[ä]")
        self.assertEqual(decode_ini("[ä]".encode("utf-8-sig")), "[ä]")

    def test_other_bytes_are_refused_with_their_line(self) -> None:
        error = self.assertRaises(ConfigError, decode_ini, b"[a]\nx = \xff\n")
        self.assertEqual(str(error), "line 2: the byte 0xff is out of place: wanted UTF-8")
