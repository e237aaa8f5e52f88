"""The description of the HTTP interface, as programs read it: ``docs/openapi.yaml``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

__all__ = ["PATH", "Operation", "description", "operations", "resolved"]

PATH = Path(__file__).resolve().parents[2] / "docs" / "openapi.yaml"
"""Where it is."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A method at a path."""

    path: str
    """The path, with names in braces."""

    method: str
    """The method, in capitals."""

    name: str
    """What it is called (``operationId``)."""

    parameters: tuple[dict[str, Any], ...]
    """What it takes beside a body, at the path and at itself."""

    content: dict[str, Any]
    """The bodies that it takes, by their content types."""

    statuses: frozenset[int]
    """With which it may be answered."""


@cache
def description() -> dict[str, Any]:
    """Read all of it. Who changes it works on a copy."""
    said: dict[str, Any] = yaml.safe_load(PATH.read_text("utf-8"))
    return said


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """Return what a part refers to, or itself."""
    while "$ref" in part:
        place: Any = description()
        for name in part["$ref"].removeprefix("#/").split("/"):
            place = place[name]
        part = place
    return part


def operations() -> Iterator[Operation]:
    """Return every operation."""
    for path, item in description()["paths"].items():
        shared = item.get("parameters", [])
        for method, said in item.items():
            if method == "parameters":
                continue
            yield Operation(
                path,
                method.upper(),
                said["operationId"],
                tuple(map(resolved, [*shared, *said.get("parameters", [])])),
                said.get("requestBody", {}).get("content", {}),
                frozenset(map(int, said["responses"])),
            )
