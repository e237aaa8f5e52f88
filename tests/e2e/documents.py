"""The documents, as somebody follows them who takes them at their word."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import docutils.core
from docutils import nodes

from tests.e2e.daemon import REPOSITORY

__all__ = ["Block", "Step", "alike", "blocks", "named", "shell", "steps"]

_SETTINGS = {"report_level": 5, "syntax_highlight": "none"}
_EPOCH = re.compile(r"\b[0-9a-z]{10}(?=-[0-9]+\b)")
_REQUEST = re.compile(r'"request_id":"[0-9a-f]{16}"')
_TIME = re.compile(r'"time":[0-9.]+')


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code."""

    language: str
    """What it is written in."""

    names: tuple[str, ...]
    """What the document calls it."""

    text: str
    """What it says."""


class Step(NamedTuple):
    """A command, and what it answers."""

    command: str
    """What is typed."""

    output: str
    """What comes then, as far as the document shows it."""


def blocks(page: str) -> Iterator[Block]:
    """Return the blocks of code of ``docs/{page}.rst``, in order."""
    path = REPOSITORY / "docs" / f"{page}.rst"
    tree = docutils.core.publish_doctree(path.read_text(), str(path), settings_overrides=_SETTINGS)
    for node in tree.findall(nodes.literal_block):
        language = next((name for name in node["classes"] if name != "code"), "")
        yield Block(language, tuple(node["names"]), node.astext())


def named(page: str, name: str) -> str:
    """Return the block that is called so, with a line end."""
    (found,) = (block.text for block in blocks(page) if name in block.names)
    return f"{found}\n"


def steps(text: str) -> list[Step]:
    """Return what is to be typed in a block of the language ``console``."""
    found: list[Step] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append(Step(line[2:], ""))
        else:
            found[-1] = Step(found[-1].command, f"{found[-1].output}{line}\n")
    return found


def alike(text: str) -> str:
    """Return a text without what differs from run to run: epochs, times and ids of requests."""
    return _REQUEST.sub('"request_id":""', _TIME.sub('"time":0', _EPOCH.sub("epoch", text))).strip()


def shell(command: str, directory: Path, environment: Mapping[str, str]) -> str:
    """Run a shell script; return its output, or raise if it fails."""
    done = subprocess.run(
        ["bash", "-euc", command],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout
