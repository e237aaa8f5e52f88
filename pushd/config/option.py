"""The types of the option table: one option and one section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pushd.config.types import OptionType

__all__ = ["Option", "Section"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a section."""

    name: str
    """The name, before the ``=``."""

    kind: OptionType
    """The type of the value, after the ``=``."""

    default: str | None
    """The default, in the syntax of the file; None: no default."""

    doc: str
    """The description of the option, as text."""

    @property
    def field(self) -> str:
        """The name of the field in the dataclasses of `pushd.config.settings`."""
        return self.name + self.kind.suffix


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the file, or a family of sections ``[name:PARAMETER]``."""

    name: str
    """The name, in the brackets, up to the colon."""

    doc: str
    """The description of the section, as text."""

    options: tuple[Option, ...]
    """The options, in the order of the reference page."""

    parameter: str | None = None
    """The placeholder for the part after the colon; None: no colon."""

    examples: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The examples of a family in the sample file: values of options, by parameter."""

    @property
    def header(self) -> str:
        """The text in the brackets, with the placeholder."""
        return self.name if self.parameter is None else f"{self.name}:{self.parameter}"
