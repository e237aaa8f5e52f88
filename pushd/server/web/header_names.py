"""A size limit for Twisted's cache of header names.

``twisted.web.http_headers`` caches the canonical form of the first 10,000 names of the process, of any length,
forever. A client that sends as many fills 160 MiB, and then every header lookup costs ten more calls. There is no
public setting; this is the only module that uses the private cache.
"""

from __future__ import annotations

from twisted.web import http_headers

__all__ = ["bound_header_names"]

_MOST, _LONGEST = 1000, 64
"""How many names are cached, and the longest. Browsers and proxies send a few dozen."""


class _Names(dict[bytes | str, bytes]):
    """A cache of canonical names. When it is full, all are dropped: names in use are soon cached again."""

    def __setitem__(self, name: bytes | str, spelling: bytes) -> None:
        """Cache a name unless it is too long."""
        if len(name) > _LONGEST:
            return
        if len(self) >= _MOST:
            self.clear()
        super().__setitem__(name, spelling)


def bound_header_names() -> None:
    """Replace Twisted's cache by one with a limit. Idempotent."""
    encoder = http_headers._nameEncoder
    if not isinstance(encoder._canonicalHeaderCache, _Names):
        encoder._canonicalHeaderCache = _Names()
