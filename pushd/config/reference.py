"""Generator of the sample file and the reference page from the option table.

::

    python -m pushd.config.reference ini > etc/pushd.ini
    python -m pushd.config.reference rst > docs/configuration.rst
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from textwrap import fill

from pushd.config.option import Option, Section
from pushd.config.options import SECTIONS

__all__ = ["COMMANDS", "reference_page", "sample_file"]

COMMANDS = {
    "etc/pushd.ini": "python -m pushd.config.reference ini > etc/pushd.ini",
    "docs/configuration.rst": "python -m pushd.config.reference rst > docs/configuration.rst",
}
"""The commands that generate the checked-in files."""

_WIDTH = 100

_SAMPLE_INTRO = """\
The configuration of pushd. Every option stands here as a comment, with the value that it has if nothing else
is said: take the # away and change the value. Comments have lines of their own. docs/configuration.rst says
more about the notation."""

_PAGE_INTRO = """\
Configuration
=============

pushd is configured by one file, and everything in it is optional: an empty file gives two listeners that only
this machine can reach. ``etc/pushd.ini`` shows every option with its default.

A file consists of sections, ``[name]``, that hold options, ``name = value``. It is UTF-8. Comments begin with
``#`` or ``;`` and have lines of their own. Quotes, ``$`` and ``%`` mean nothing. Upper and lower case differ.
A list may go on in indented lines. Nothing may be said twice, and what pushd does not know is an error.

``twistd pushd --print-config`` shows all that applies.

Sizes
    A whole number with a unit: ``kB``, ``MB`` or ``GB`` (powers of 1000), ``KiB``, ``MiB`` or ``GiB`` (powers
    of 1024). Without one it is bytes.

Durations
    A whole number with a unit: ``ms``, ``s``, ``m``, ``h`` or ``d``. Only ``0`` needs none.

Paths
    A relative path starts at the directory in which the daemon runs.
"""


def sample_file() -> str:
    """Return the text of ``etc/pushd.ini``."""
    blocks = [f"{_comment(_SAMPLE_INTRO)}\n#\n{_comment('Made by: ' + COMMANDS['etc/pushd.ini'])}"]
    for section in SECTIONS:
        if section.parameter is None:
            blocks += [f"\n{_comment(section.doc)}\n[{section.name}]", *_sample_options(section, {})]
            continue
        doc = f"\n{_comment(section.doc)}\n"
        for parameter, values in section.examples.items():
            header = f"{doc}#[{section.name}:{parameter}]"
            if doc:
                blocks += [header, *_sample_options(section, values)]
            else:
                blocks.append("\n".join([header, *_sample_lines(section, values)]))
            doc = ""
    return "\n\n".join(blocks) + "\n"


def _sample_options(section: Section, values: Mapping[str, str]) -> Iterator[str]:
    for option in section.options:
        yield f"{_comment(option.doc)}\n{_sample_line(option, values)}"


def _sample_lines(section: Section, values: Mapping[str, str]) -> Iterator[str]:
    return (_sample_line(option, values) for option in section.options if option.name in values)


def _sample_line(option: Option, values: Mapping[str, str]) -> str:
    return f"#{option.name} = {values.get(option.name, option.default)}".rstrip()


def _comment(text: str) -> str:
    return _wrap(text, "# ")


def reference_page() -> str:
    """Return the text of ``docs/configuration.rst``."""
    blocks = [f".. Made by: {COMMANDS['docs/configuration.rst']}", _PAGE_INTRO.rstrip()]
    for section in SECTIONS:
        title = f"``[{section.header}]``"
        blocks.append(f"{title}\n{'-' * len(title)}\n\n{_wrap(_escape(section.doc))}")
        blocks += [_definition(option) for option in section.options]
    return "\n\n".join(blocks) + "\n"


def _definition(option: Option) -> str:
    facts = f"Wanted: {_escape(option.kind.form)}."
    if option.default:
        facts += f" Default: ``{option.default}``."
    elif option.default == "":
        facts += " Default: empty."
    return f"``{option.name}``\n{_wrap(_escape(option.doc), '    ')}\n\n{_wrap(facts, '    ')}"


def _escape(text: str) -> str:
    """Return plain text with the markup characters of reStructuredText escaped."""
    return re.sub(r"([\\*`|_])", r"\\\1", text)


def _wrap(text: str, indent: str = "") -> str:
    return fill(
        " ".join(text.split()),
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    sys.stdout.write({"ini": sample_file, "rst": reference_page}[sys.argv[1]]())
