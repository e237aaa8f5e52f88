"""The log: where it goes, what its lines look like, and what keeps clients from filling it."""

from pushd.log.observers import observer

__all__ = ["observer"]
