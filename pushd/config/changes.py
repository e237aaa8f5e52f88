"""The differences between two configurations."""

from __future__ import annotations

from collections.abc import Iterator

from pushd.config.option import Option
from pushd.config.options import sections_of
from pushd.config.settings import Config

__all__ = ["changed_options", "fixed_differences"]


def changed_options(before: Config, after: Config) -> list[str]:
    """Return the changed options as ``[section] option``, or ``[section]`` if it was added or removed.

    Only the options are compared, not the files that they name.
    """
    return [_named(header, option) for header, option in _differences(before, after)]


def fixed_differences(before: Config, after: Config) -> list[str]:
    """Return those of the changed options, in the same form, that need a restart of the daemon."""
    return [_named(header, option) for header, option in _differences(before, after) if _is_fixed(header, option)]


def _differences(before: Config, after: Config) -> Iterator[tuple[str, Option | None]]:
    """Return each changed option with the header of its section; None: the whole section was added or removed."""
    old = {header: values for header, _, values in sections_of(before)}
    new = {header: (section, values) for header, section, values in sections_of(after)}
    yield from ((header, None) for header in old if header not in new)
    for header, (section, values) in new.items():
        if header not in old:
            yield header, None
            continue
        for option in section.options:
            if old[header].get(option.field) != values.get(option.field):
                yield header, option


def _is_fixed(header: str, option: Option | None) -> bool:
    """Return whether the change needs a restart; listeners are neither opened nor closed by a reload."""
    return header.startswith("listen:") if option is None else option.needs_restart


def _named(header: str, option: Option | None) -> str:
    return f"[{header}]" if option is None else f"[{header}] {option.name}"
