"""The shape of the table of options: one line of the file, and one section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pushd.config.types import OptionType

__all__ = ["Option", "Section"]


@dataclass(frozen=True, slots=True)
class Option:
    """One line of the file."""

    name: str
    """What stands before the ``=``."""

    kind: OptionType
    """What may stand after it."""

    default: str | None
    """The value that applies if the file does not say one, as it is written there; None: there is none."""

    doc: str
    """What it means, in plain sentences."""

    @property
    def field(self) -> str:
        """The name of the field in the dataclasses of `pushd.config.settings`."""
        return self.name + self.kind.suffix


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the file, or a family of sections that are called ``[name:PARAMETER]``."""

    name: str
    """What stands in the brackets, up to the colon."""

    doc: str
    """What it is for, in plain sentences."""

    options: tuple[Option, ...]
    """What may stand in it, in the order of the reference."""

    parameter: str | None = None
    """What comes after the colon, for the reader; None: there is no colon."""

    examples: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Of a family: what the sample file shows, by parameter, and the values of options."""

    @property
    def header(self) -> str:
        """What stands in the brackets, for the reader."""
        return self.name if self.parameter is None else f"{self.name}:{self.parameter}"
