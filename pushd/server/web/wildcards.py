"""Sets of hosts and web origins with wildcards."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["Wildcards"]

_LABELS = r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+"
"""One or more whole labels of a host name, each with its trailing dot."""

_ANY_PORT = r"(?::[0-9]{1,5})?"
_LONGEST = 300
"""The longest text that is matched: a scheme, a name of 253 bytes, a port."""


class Wildcards:
    """A set of hosts, or of web origins, in lower case."""

    __slots__ = ("_fullmatch", "exact")

    def __init__(self, texts: Iterable[str]) -> None:
        """Build the set from `texts`.

        ``*.`` matches one or more labels, and ``:*`` any port or none. A single ``*`` is ignored.
        """
        texts = frozenset(texts) - {"*"}
        self.exact = frozenset(text for text in texts if "*" not in text)
        """The texts without a wildcard."""
        patterns = sorted(texts - self.exact)
        self._fullmatch = (
            re.compile("|".join(_expression(text) for text in patterns)).fullmatch if patterns else None
        )

    def __contains__(self, text: object) -> bool:
        """Return whether `text` equals an entry or matches a wildcard."""
        if text in self.exact:
            return True
        if self._fullmatch is None or not isinstance(text, str) or len(text) > _LONGEST:
            return False
        return self._fullmatch(text) is not None


def _expression(pattern: str) -> str:
    port = _ANY_PORT if pattern.endswith(":*") else ""
    return re.escape(pattern.removesuffix(":*")).replace(r"\*\.", _LABELS) + port
