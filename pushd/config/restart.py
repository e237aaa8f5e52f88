"""Options that need a restart of the daemon to change."""

from __future__ import annotations

from collections.abc import Iterator

from pushd.config.settings import Config, Listener

__all__ = ["fixed_differences"]

_FIXED = ("state_directory", "store", "durability", "store_memory_bytes")
_FIXED_OF_LISTENERS = ("endpoint", "tls", "proxy_protocol", "serves")


def fixed_differences(before: Config, after: Config) -> Iterator[str]:
    """Return the changed options that need a restart, as in the file, such as ``[pushd] store``."""
    for name in _FIXED:
        if getattr(before, name) != getattr(after, name):
            yield f"[pushd] {name.removesuffix('_bytes')}"
    if before.log.format != after.log.format:
        yield "[log] format"
    old, new = _by_name(before), _by_name(after)
    for name in old | new:
        if name not in old or name not in new:
            yield f"[listen:{name}]"
            continue
        for option in _FIXED_OF_LISTENERS:
            if getattr(old[name], option) != getattr(new[name], option):
                yield f"[listen:{name}] {option}"


def _by_name(config: Config) -> dict[str, Listener]:
    return {listener.name: listener for listener in config.listeners}
