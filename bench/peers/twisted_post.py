"""A plain twisted.web resource that reads and answers POST requests, for comparison with publishing.

Usage: twisted_post.py PORT
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.web.resource import Resource
from twisted.web.server import Request, Site


class Post(Resource):
    """A resource that accepts a body."""

    isLeaf = True

    def render_POST(self, request: Request) -> bytes:
        """Read the body, and answer as pushd answers a publisher."""
        assert request.content is not None
        request.content.read()
        request.setResponseCode(201)
        request.setHeader(b"content-type", b"application/json")
        return b"{}"


def main(reactor: Any, port: str) -> Deferred[None]:
    """Serve until the process ends."""
    reactor.listenTCP(int(port), Site(Post()), interface="127.0.0.1", backlog=4096)
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:2])
