"""The status page: figures and actions for operators."""

from __future__ import annotations

from pathlib import Path

from twisted.web.resource import IResource, Resource
from twisted.web.util import Redirect

from pushd.api.demo import page as demo
from pushd.server import StaticFiles

__all__ = ["FILES", "status_page"]

FILES = Path(__file__).parent / "static"
"""The directory of the page."""

_OWN = ("status.css", "status.js", "client.js", "views.js")
_SHARED = ("base.css", "favicon.svg")


def status_page(events: IResource) -> IResource:
    """Make the resource ``/status``: the page, its assets and, at ``events``, the stream of figures.

    The page itself reveals nothing of this daemon and needs no token: it asks for a token if one is required.
    """
    page: Resource = _file(FILES / "index.html")
    for path in (*(FILES / name for name in _OWN), *(demo.PAGES / name for name in _SHARED)):
        page.putChild(path.name.encode("ascii"), _file(path))
    page.putChild(b"", Redirect(b"../status"))
    page.putChild(b"events", events)
    return page


def _file(path: Path) -> StaticFiles:
    file = StaticFiles(str(path))
    file.fields = demo.FIELDS
    return file
