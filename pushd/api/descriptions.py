"""The description of the HTTP interface for programs: ``GET /openapi.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pushd.server import Endpoint, Request, RequestGuard, answer

__all__ = ["OPENAPI", "Description"]

OPENAPI = Path(__file__).with_name("openapi.yaml")
"""The OpenAPI document. In the source tree it is a symbolic link to the one in ``docs``; the wheel has a copy."""


class Description(Endpoint):
    """A document that belongs to this version of pushd; no grant is needed."""

    parameters: ClassVar[Mapping[str, frozenset[str]]] = {}

    def __init__(self, guard: RequestGuard, document: Path) -> None:
        """Read `document` once; it is UTF-8."""
        super().__init__(guard)
        self._text = document.read_bytes()

    def render_GET(self, request: Request) -> bytes:
        """Return the document (RFC 9512)."""
        return answer(request, self._text, "application/yaml")
