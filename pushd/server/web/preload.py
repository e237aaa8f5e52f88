"""Preload: push a page's assets to clients that accept pushes; send early hints to the others (RFC 8297)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from twisted.web.http_headers import Headers

from pushd.server.http2.promises import Outcome
from pushd.server.http2.stream import Stream
from pushd.server.request import Request

__all__ = ["Assets", "link_to"]

_KINDS = {
    "css": "rel=preload; as=style",
    "js": "rel=preload; as=script",
    "mjs": "rel=modulepreload",
    "woff2": "rel=preload; as=font; crossorigin",
    "gif": "rel=preload; as=image",
    "jpg": "rel=preload; as=image",
    "png": "rel=preload; as=image",
    "svg": "rel=preload; as=image",
    "webp": "rel=preload; as=image",
}
_OTHER = "rel=preload; as=fetch; crossorigin"

_LINK = re.compile(r'\s*<([^<>]*)>((?:[^,"]|"(?:[^"\\]|\\.)*")*)(?:,|$)')
_PARAMETER = re.compile(r';\s*([A-Za-z-]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s;"]+))?')
_PATH = re.compile(r"/[\x21-\x7e]*", re.ASCII)


def link_to(path: str, relation: str | None = None) -> str:
    """Return a ``Link`` header value for an asset; without `relation`, its type is taken from the file name."""
    name, _, ending = urlsplit(path).path.rpartition(".")
    return f"<{path}>; {relation or (_KINDS.get(ending.lower(), _OTHER) if name else _OTHER)}"


@dataclass(frozen=True, slots=True)
class _Preload:
    """One link to an asset of a page."""

    text: str
    """The link as in the header."""

    target: str
    """The target of the link."""

    may_push: bool
    """False if the link has ``nopush``."""


def _preloads(values: Sequence[str]) -> Iterator[_Preload]:
    """Yield the preload links of ``Link`` headers (RFC 8288); a malformed link ends its header."""
    for value in values:
        position = 0
        while position < len(value) and (match := _LINK.match(value, position)):
            position = match.end()
            found = {name.lower(): (text or "").strip('"') for name, text in _PARAMETER.findall(match[2])}
            if {"preload", "modulepreload"} & set(found.get("rel", "").lower().split()):
                yield _Preload(f"<{match[1]}>{match[2].rstrip()}", match[1].strip(), "nopush" not in found)


class Assets:
    """Announces the assets of a page before the head of its response is written.

    The assets are those listed for the path of the page, and those in its own ``Link`` headers.
    """

    def __init__(self, links: Mapping[str, Sequence[str]], *, hints_over_http1: bool) -> None:
        """Use `links`, ``Link`` header values by page path.

        ``103 Early Hints`` is sent over HTTP/2, and with `hints_over_http1` also over HTTP/1.1, where some clients
        do not understand it.
        """
        self._links = {path.encode("ascii"): tuple(values) for path, values in links.items()}
        self._hints_over_http1 = hints_over_http1

    def begin(self, request: Request) -> None:
        """Called before the head of a response is written: push its assets or send early hints."""
        listed = self._links.get(request.path, ())
        own: Sequence[bytes] = request.responseHeaders.getRawHeaders(b"link", [])
        if not (listed or own) or request.method != b"GET" or request.code != 200:
            return
        stream: object = request.channel
        preloads = list(_preloads([*listed, *(value.decode("ascii", "replace") for value in own)]))
        if isinstance(stream, Stream):
            if stream.is_pushed:
                return
            if stream.takes_promises:
                self._push(request, stream, preloads)
                return
        for value in listed:
            request.responseHeaders.addRawHeader(b"link", value.encode("ascii"))
        self._hint(request, stream, [preload.text.encode("ascii", "replace") for preload in preloads])

    def _push(self, request: Request, stream: Stream, preloads: Sequence[_Preload]) -> None:
        for preload in preloads:
            path = _own_path(request, preload.target) if preload.may_push else None
            if path is not None and stream.promise_room > 0 and stream.promises.is_new(path):
                stream.promise(path, _ignore)

    def _hint(self, request: Request, stream: object, links: list[bytes]) -> None:
        if not links:
            return
        if isinstance(stream, Stream):
            stream.inform(b"103", [(b"link", links)])
        elif self._hints_over_http1 and request.clientproto == b"HTTP/1.1":
            headers = Headers({b"link": links})
            request.channel.writeHeaders(b"HTTP/1.1", b"103", b"Early Hints", headers)


def _own_path(request: Request, target: str) -> bytes | None:
    """Return the path and query of a link target; None if the target has another authority."""
    host = (request.getHeader(b"host") or b"").decode("ascii", "replace")
    try:
        parts = urlsplit(urljoin(f"https://{host}{request.uri.decode('ascii', 'replace')}", target))
    except ValueError:
        return None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if (parts.scheme, parts.netloc.lower()) != ("https", host.lower()) or not _PATH.fullmatch(path):
        return None
    return path.encode("ascii")


def _ignore(outcome: Outcome) -> None:
    """Ignore the outcome of a push: a client may reject an asset that it has cached."""
