"""Static files of the site."""

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
"""The largest file that is read at once. Larger ones are read in parts of this size, each counted as a response."""


class StaticFiles(Answering, File):  # type: ignore[misc]
    """The files of a directory, without listings and without hidden files (names that start with a dot).

    Symbolic links are followed within the directory. Only regular files are served: opening a named pipe would
    block until a writer opens it.
    """

    childNotFound = Missing()  # type: ignore[assignment]

    fields: Sequence[tuple[bytes, bytes]] = ()
    """Additional headers of the responses."""

    root: str | None = None
    """The path of the root directory; None for the root itself."""

    _files: Shares | None = None
    _owner: str | None = None

    def createSimilarFile(self, path: str) -> StaticFiles:
        """Override: return the resource of a file in the directory."""
        file: StaticFiles = super().createSimilarFile(path)
        file.fields, file.root = self.fields, self.root or self.path
        return file

    @property
    def _is_served(self) -> bool:
        root = realpath(self.root or self.path)
        return commonpath((root, realpath(self.path))) == root and (self.isdir() or self.isfile())

    def admit(self, request: Request) -> Deferred[None] | None:
        """Override: admit every request, and set the additional headers."""
        for name, value in self.fields:
            request.setHeader(name, value)
        return None

    def directoryListing(self) -> IResource:
        """Override: return 404, as directories are not listed."""
        return Missing()

    def openForReading(self) -> IO[bytes]:
        """Override: read a small file at once, so that a slow client holds no open file.

        Larger files stay open while they are sent, and are counted.
        """
        if self.getsize() > _WHOLE_BYTES and self._files is not None:
            return OpenFile(self.path, self._files, self._owner)
        file: IO[bytes] = File.openForReading(self)
        with file:
            return BytesIO(file.read(_WHOLE_BYTES))

    def render_GET(self, request: AnyRequest) -> bytes | int:
        """Override: send the file; ignore a Range that is not ASCII (RFC 9110, section 14.2)."""
        if isinstance(request, Request):
            self._files = cast(PushdSite, request.site).answers.files
            self._owner = limit_key(request.connection.info.place.address)
        ranges = request.requestHeaders.getRawHeaders(b"range", [])
        if not all(value.isascii() for value in ranges):
            request.requestHeaders.removeHeader(b"range")
        answer: bytes | int = File.render_GET(self, request)
        return answer

    def redirect(self, request: AnyRequest) -> bytes:
        """Override: redirect a directory to its path with a slash, and drop a token from the query."""
        parts = [part for part in request.uri.partition(b"?")[2].split(b"&") if part and not _is_token(part)]
        location = request.path + b"/" + (b"?" + b"&".join(parts) if parts else b"")
        body: bytes = redirectTo(location, request)  # type: ignore[arg-type]
        return body

    def getChild(self, path: bytes, request: AnyRequest) -> IResource:
        """Override: return 404 for hidden files, except ``.well-known`` (RFC 8615)."""
        if not _is_file_name(path):
            return Missing()
        child: IResource = File.getChild(self, path, request)
        return Missing() if isinstance(child, StaticFiles) and not child._is_served else child


def _is_token(part: bytes) -> bool:
    return unquote_to_bytes(part.partition(b"=")[0]) == b"access_token"


def _is_file_name(segment: bytes) -> bool:
    """Return whether a decoded path segment is a valid name of a served file."""
    if segment.startswith(b".") and segment != b".well-known":
        return False
    try:
        return not set(segment.decode()) & {"/", "\0"}
    except UnicodeDecodeError:
        return False


class _Root(Resource):
    """The root of a site without pages."""

    def getChild(self, path: bytes, request: AnyRequest) -> IResource:
        """Override: return 404 for all other paths."""
        return Missing()


def tree(
    children: dict[bytes, IResource], files: Path | None, fields: Sequence[tuple[bytes, bytes]] = ()
) -> IResource:
    """Return the root of the site: the endpoints by their first path segment, and `files` for all other paths.

    `fields` are additional headers of the responses with files.
    """
    root: Resource = _Root()
    if files is not None:
        root = StaticFiles(str(files))
        root.fields = fields
    for segment, resource in children.items():
        root.putChild(segment, resource)
    return root
