"""Text from anywhere as one line: what does not print is escaped."""

from __future__ import annotations

__all__ = ["one_line"]


def one_line(text: str) -> str:
    """Escape what does not print, such as newlines and what commands a terminal."""
    if text.isprintable():
        return text
    return "".join(it if it.isprintable() else it.encode("unicode_escape").decode("ascii") for it in text)
