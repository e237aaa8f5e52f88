"""The table of options, the parser, --print-config, etc/pushd.ini and docs/configuration.rst say the same."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pushd.config.channel_rules import ChannelSettings
from pushd.config.loader import default, parse, print_config
from pushd.config.options import LISTENERS, SECTIONS
from pushd.config.reference import COMMANDS, reference_page, sample_file

ROOT = Path(__file__).parents[3]
OPTIONS = [(section, option) for section in SECTIONS for option in section.options]


def headers_and_names(text: str) -> list[tuple[str, str]]:
    """Return every option of an ini text with the section it is in."""
    found = []
    header = ""
    for line in text.splitlines():
        if line.startswith("["):
            header = line.strip("[]")
        elif " =" in line:
            found.append((header, line.partition(" =")[0]))
    return found


class CheckedInTests(SynchronousTestCase):
    def assert_current(self, path: str, text: str) -> None:
        self.assertEqual((ROOT / path).read_text(encoding="utf-8"), text, f"{path} is stale: {COMMANDS[path]}")

    def test_the_sample_file_is_current(self) -> None:
        self.assert_current("etc/pushd.ini", sample_file())

    def test_the_reference_page_is_current(self) -> None:
        self.assert_current("docs/configuration.rst", reference_page())


class SampleFileTests(SynchronousTestCase):
    def test_changes_nothing_as_it_is(self) -> None:
        self.assertEqual(parse(sample_file(), "etc/pushd.ini"), default())

    def test_says_the_defaults_when_the_comment_signs_are_gone(self) -> None:
        text = re.sub(r"(?m)^#(?=\S)", "", sample_file())
        config = parse(text, "etc/pushd.ini")
        self.assertEqual(config.channels.settings("logs/a"), ChannelSettings(1000, 2**26, 86400, "close"))
        plain = text.replace("[channels:logs/**]\n", "[channels:none]\n")
        usual = default()
        self.assertEqual(parse(plain, "x").channels.settings("a"), usual.channels.settings("a"))
        for name in ("state_directory", "stop_timeout_s", "listeners", "site", "http2", "limits", "auth", "log"):
            self.assertEqual(getattr(config, name), getattr(usual, name))

    def test_has_every_option_of_the_table(self) -> None:
        text = re.sub(r"(?m)^# .*$|^#(?=\S)", "", sample_file())
        found = {(header.partition(":")[0], name) for header, name in headers_and_names(text)}
        self.assertEqual(found, {(section.name, option.name) for section, option in OPTIONS})


class ReferencePageTests(SynchronousTestCase):
    def test_has_every_section_option_and_default_of_the_table(self) -> None:
        page = " ".join(reference_page().split())
        for section, option in OPTIONS:
            self.assertIn(f"``[{section.header}]`` ---", page)
            self.assertIn(f" ``{option.name}`` ", page)
            if option.default:
                self.assertIn(f"Default: ``{option.default}``.", page)

    def test_no_line_is_too_long_to_read(self) -> None:
        self.assertEqual([line for line in reference_page().splitlines() if len(line) > 120], [])


class PrintConfigTests(SynchronousTestCase):
    def test_says_every_option_of_the_table_in_its_order(self) -> None:
        expected = []
        for section in SECTIONS:
            names = [option.name for option in section.options]
            if section.name == "listen":
                expected += [(f"listen:{name}", option) for name in LISTENERS for option in names]
            elif section.parameter is None:
                expected += [(section.name, option) for option in names]
        self.assertEqual(headers_and_names(print_config(default())), expected)


class TableTests(SynchronousTestCase):
    def test_every_default_is_a_value_of_its_kind(self) -> None:
        for _, option in OPTIONS:
            if option.default is not None:
                value = option.kind.parse(option.default)
                self.assertEqual(option.kind.parse(option.kind.show(value)), value, option.name)

    def test_documentation_is_of_plain_sentences(self) -> None:
        for doc in [*(section.doc for section in SECTIONS), *(option.doc for _, option in OPTIONS)]:
            self.assertTrue(doc.endswith(".") and doc[0] != doc[0].lower() and "  " not in doc, doc)
