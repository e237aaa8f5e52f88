"""Static files."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from os.path import commonpath, realpath
from pathlib import Path
from typing import IO, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.web.http import Request as AnyRequest
from twisted.web.resource import IResource, Resource
from twisted.web.static import File
from twisted.web.util import redirectTo

from pushd.bus import Shares, limit_key
from pushd.server.request import Request
from pushd.server.web.open_file import OpenFile
from pushd.server.web.resource import Answering, Missing
from pushd.server.web.site import PushdSite

__all__ = ["StaticFiles", "tree"]

_WHOLE_BYTES = 64 * 1024
"""The largest file that is read at once. Of larger ones, as much is held at a time, and counts as an answer."""


class StaticFiles(Answering, File):  # type: ignore[misc]
    """The files of a directory, without listings and without those whose names begin with a dot.

    Links are followed as long as they lead to files of the directory. Nothing else than files is served: who opens
    a named pipe waits for who writes to it.
    """

    childNotFound = Missing()  # type: ignore[assignment]

    fields: Sequence[tuple[bytes, bytes]] = ()
    """The header fields that the answers have beside those of every answer."""

    root: str | None = None
    """The path of the directory; None for itself."""

    _files: Shares | None = None
    _owner: str | None = None

    def createSimilarFile(self, path: str) -> StaticFiles:
        """Override: make what serves a file in the directory."""
        file: StaticFiles = super().createSimilarFile(path)
        file.fields, file.root = self.fields, self.root or self.path
        return file

    @property
    def _is_served(self) -> bool:
        root = realpath(self.root or self.path)
        return commonpath((root, realpath(self.path))) == root and (self.isdir() or self.isfile())

    def admit(self, request: Request) -> Deferred[None] | None:
        """Override: everybody is let in."""
        for name, value in self.fields:
            request.setHeader(name, value)
        return None

    def directoryListing(self) -> IResource:
        """Override: there are no listings."""
        return Missing()

    def openForReading(self) -> IO[bytes]:
        """Override: read a small file as a whole, so that a client that does not read holds no open file.

        Larger ones are open as long as they are sent, and count.
        """
        if self.getsize() > _WHOLE_BYTES and self._files is not None:
            return OpenFile(self.path, self._files, self._owner)
        file: IO[bytes] = File.openForReading(self)
        with file:
            return BytesIO(file.read(_WHOLE_BYTES))

    def render_GET(self, request: AnyRequest) -> bytes | int:
        """Override: a Range that cannot be read counts as none (RFC 9110, section 14.2)."""
        if isinstance(request, Request):
            self._files = cast(PushdSite, request.site).answers.files
            self._owner = limit_key(request.connection.place.address)
        ranges = request.requestHeaders.getRawHeaders(b"range", [])
        if not all(value.isascii() for value in ranges):
            request.requestHeaders.removeHeader(b"range")
        answer: bytes | int = File.render_GET(self, request)
        return answer

    def redirect(self, request: AnyRequest) -> bytes:
        """Override: the path of a directory ends in a slash. A token in the query is not said again."""
        parts = [part for part in request.uri.partition(b"?")[2].split(b"&") if part and not _is_token(part)]
        location = request.path + b"/" + (b"?" + b"&".join(parts) if parts else b"")
        body: bytes = redirectTo(location, request)  # type: ignore[arg-type]
        return body

    def getChild(self, path: bytes, request: AnyRequest) -> IResource:
        """Override: hide what is hidden, but ``.well-known`` (RFC 8615)."""
        if not _is_file_name(path):
            return Missing()
        child: IResource = File.getChild(self, path, request)
        return Missing() if isinstance(child, StaticFiles) and not child._is_served else child


def _is_token(part: bytes) -> bool:
    return unquote_to_bytes(part.partition(b"=")[0]) == b"access_token"


def _is_file_name(segment: bytes) -> bool:
    """Return whether a segment of a path, decoded, may be the name of a file that is served."""
    if segment.startswith(b".") and segment != b".well-known":
        return False
    try:
        return not set(segment.decode()) & {"/", "\0"}
    except UnicodeDecodeError:
        return False


class _Root(Resource):
    """The root of a site without pages."""

    def getChild(self, path: bytes, request: AnyRequest) -> IResource:
        """Override: there is nothing else."""
        return Missing()


def tree(
    children: dict[bytes, IResource], files: Path | None, fields: Sequence[tuple[bytes, bytes]] = ()
) -> IResource:
    """Make the root of the site: the endpoints by their first segment, and `files` for everything else.

    Answers with files have `fields`.
    """
    root: Resource = _Root()
    if files is not None:
        root = StaticFiles(str(files))
        root.fields = fields
    for segment, resource in children.items():
        root.putChild(segment, resource)
    return root
