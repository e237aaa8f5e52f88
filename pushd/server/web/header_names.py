"""The names of header fields that Twisted remembers: bounded, so that no client decides for how long.

``twisted.web.http_headers`` keeps how it writes each of the first 10,000 names that the process has met, however
long they are, for good. A client that sends so many fills 160 MiB, and from then on every look into the fields of a
request costs ten calls more. This is the only module that knows that cache.
"""

from __future__ import annotations

from twisted.web import http_headers

__all__ = ["bound_header_names"]

_MOST, _LONGEST = 1000, 64
"""How many names are kept, and how long each may be. Browsers and proxies send a few dozen."""


class _Names(dict[bytes | str, bytes]):
    """Names with their spelling. When there are too many, all are forgotten: those in use are soon back."""

    def __setitem__(self, name: bytes | str, spelling: bytes) -> None:
        """Keep a name, unless it is long."""
        if len(name) > _LONGEST:
            return
        if len(self) >= _MOST:
            self.clear()
        super().__setitem__(name, spelling)


def bound_header_names() -> None:
    """Have Twisted remember few names. May be called again."""
    encoder = http_headers._nameEncoder
    if not isinstance(encoder._canonicalHeaderCache, _Names):
        encoder._canonicalHeaderCache = _Names()
