"""The log: its destinations, its line formats, and its rate limit."""

from pushd.log.observers import Observer, observer, observer_for

__all__ = ["Observer", "observer", "observer_for"]
