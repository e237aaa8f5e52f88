"""The log: where it goes, what its lines look like, and what keeps clients from filling it."""

from pushd.log.observers import Observer, observer, observer_for

__all__ = ["Observer", "observer", "observer_for"]
