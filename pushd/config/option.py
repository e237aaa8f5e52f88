"""The declaration of an option: a field of a frozen dataclass that knows its syntax, default and description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from pushd.config.types import OptionType

__all__ = ["Option", "Section", "option", "options_of"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a section."""

    field: str
    """The name of the field of the dataclass."""

    kind: OptionType[Any]
    """The type of the value, after the ``=``."""

    default: str | None
    """The default, in the syntax of the file; None: no default."""

    doc: str
    """The description of the option, as text."""

    needs_restart: bool = False
    """Whether a reload cannot apply the option."""

    @property
    def name(self) -> str:
        """The name in the file, before the ``=``: that of the field, without its unit."""
        return self.field.removesuffix(self.kind.suffix)


def option(kind: OptionType[T], default: str | None, doc: str, *, needs_restart: bool = False) -> T:
    """Declare a field of a dataclass as an option, with the parsed `default` as the default of the field.

    The parameters are the fields of `Option`. The return type is that of the values, so that type checkers compare
    it with the annotation of the field. The value of a secret is left out of the ``repr``.
    """
    declared: dict[str, Any] = {} if default is None else {"default": kind.parse(default)}
    metadata = {"kind": kind, "default": default, "doc": doc, "needs_restart": needs_restart}
    made: Any = field(**declared, repr=not kind.is_secret, metadata=metadata)
    return made  # type: ignore[no-any-return]


def options_of(declaring: type) -> tuple[Option, ...]:
    """Return the options declared by a dataclass, in the order of its fields."""
    return tuple(Option(it.name, **it.metadata) for it in fields(declaring) if it.metadata)


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
