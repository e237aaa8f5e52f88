"""A strict parser for ini files: sections with options as text."""

from __future__ import annotations

import re
from configparser import (
    DuplicateOptionError,
    DuplicateSectionError,
    MissingSectionHeaderError,
    ParsingError,
    RawConfigParser,
)

from pushd.errors import ConfigError

__all__ = ["decode_ini", "read_ini"]

_HEADER = re.compile(r"\[(?P<header>.+)\]$")
_CONTROL = re.compile(r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")


def decode_ini(data: bytes) -> str:
    """Return the text of a file; raise `ConfigError` unless it is UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wrong = data[error.start : error.start + 1].hex()
        raise ConfigError(f"line {line}: the byte 0x{wrong} is out of place: wanted UTF-8") from None


def read_ini(text: str) -> dict[str, dict[str, str]]:
    """Return the sections of a file with their options as text, in the order of the file.

    Comments need lines of their own. There is no interpolation and no inheritance, and duplicates are errors.
    Indented continuation lines are joined by newlines. Raise `ConfigError`, without the file name, on an error.
    """
    text = text.replace("\r\n", "\n")
    _check_characters(text)
    parser = RawConfigParser(
        delimiters=("=",),
        comment_prefixes=("#", ";"),
        default_section="",  # No header can be empty, so [DEFAULT] is an ordinary section.
        empty_lines_in_values=False,
        interpolation=None,
    )
    parser.SECTCRE = _HEADER
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        parser.read_string(text)
    except DuplicateSectionError as error:
        raise ConfigError(f"line {error.lineno}: there is another [{error.section}] before this one") from None
    except DuplicateOptionError as error:
        place = f"line {error.lineno}: [{error.section}] {error.option}"
        raise ConfigError(f"{place}: the section says it before: wanted one value") from None
    except MissingSectionHeaderError as error:
        place = f"line {error.lineno}: {_line(text, error.lineno)}"
        raise ConfigError(f"{place}: wanted a section such as [listen:http] before it") from None
    except ParsingError as error:
        lineno = error.errors[0][0]
        raise ConfigError(f"line {lineno}: {_line(text, lineno)}: wanted option = value") from None
    return {name: dict(parser[name]) for name in parser.sections()}


def _check_characters(text: str) -> None:
    match = _CONTROL.search(text)
    if match is not None:
        line = text.count("\n", 0, match.start()) + 1
        raise ConfigError(f"line {line}: a control character, {match[0]!a}: wanted text in UTF-8")


def _line(text: str, lineno: int) -> str:
    line = text.split("\n")[lineno - 1].strip()
    return line if len(line) <= 80 else f"{line[:80]}..."
