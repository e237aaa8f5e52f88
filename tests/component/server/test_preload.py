"""What goes with a page: pushed, or hinted at."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from h2.settings import SettingCodes
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from pushd.api.demo.page import ASSETS
from pushd.server.request import Request
from pushd.server.web.preload import Assets, link_to
from tests.rigs.daemon import DaemonRig, DaemonTests
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient, Response

NO_PUSH = {SettingCodes.ENABLE_PUSH: 0}


class LinkToTests(SynchronousTestCase):
    def test_what_an_asset_is_is_seen_by_its_ending(self) -> None:
        for path, parameters in {
            "/a.css": "rel=preload; as=style",
            "/a.b.JS?v=1.css": "rel=preload; as=script",
            "/a.mjs": "rel=modulepreload",
            "/css": "rel=preload; as=fetch; crossorigin",
        }.items():
            self.assertEqual(link_to(path), f"<{path}>; {parameters}")


class _Page(Resource):
    """A page with headers of its own."""

    isLeaf = True
    links: tuple[str, ...] = ()
    code = 200

    def render_GET(self, request: Request) -> bytes:
        request.setResponseCode(self.code)
        for link in self.links:
            request.responseHeaders.addRawHeader(b"link", link.encode())
        return b"page"


class AssetTestCase(DaemonTests):
    def setUp(self) -> None:
        self.folder = Path(mkdtemp())
        for name in "index.html", "a.css", "b.js", "c.svg":
            path = self.folder / name
            path.write_bytes(name.encode() * 100)
            self.addCleanup(path.unlink)
        lists = "[push:/]\nresources = /a.css, /b.js\n[push:/index.html]\nresources = /a.css, /c.svg\n"
        lists += "[push:/listed]\nresources = /a.css, /b.js\n"
        self.config = f"[site]\nroot = {self.folder}\n{self.settings}{lists}"
        super().setUp()
        self.page = _Page()
        self.rig.parts.site.resource.putChild(b"page", self.page)
        self.rig.parts.site.resource.putChild(b"listed", _Page())

    settings = ""

    def client(self, settings: dict[Any, int] | None = None) -> Http2Client:
        """Connect over HTTP/2."""
        return Http2Client(self.rig, settings)

    def http1(self, version: str = "1.1") -> Response:
        """Ask for the page over HTTP/1."""
        client = HttpClient(self.rig)
        client.send("GET", "/listed", version=version)
        self.rig.turn()
        return client.response

    def paths(self, client: Http2Client, page: str = "/", *fields: tuple[str, str]) -> list[str]:
        """Ask for a page, and answer what is promised with it."""
        before = len(client.pushes)
        client.send("GET", page, headers=fields)
        self.rig.turn()
        return [push.request[":path"] for push in client.pushes[before:]]


class PushTests(AssetTestCase):
    def test_what_is_listed_is_pushed(self) -> None:
        client = self.client()
        self.assertEqual(self.paths(client), ["/a.css", "/b.js"])
        self.assertEqual([push.body for push in client.pushes], [b"a.css" * 100, b"b.js" * 100])
        self.assertEqual([push.fields[":status"] for push in client.pushes], ["200", "200"])
        self.assertTrue(client.response.is_complete)
        self.assertEqual((client.hints, client.response.all("link")), ([], []))

    def test_promises_come_before_the_page(self) -> None:
        client = self.client()
        self.paths(client)
        received = client.connection.received
        self.assertLess(received.rindex(b"/b.js"), received.index(b"index.html"))

    def test_each_is_pushed_once_for_a_connection(self) -> None:
        client = self.client()
        self.paths(client)
        self.assertEqual(self.paths(client, "/"), [])
        self.assertEqual(self.paths(client, "/index.html"), ["/c.svg"])
        self.assertEqual(self.paths(self.client()), ["/a.css", "/b.js"])

    def test_the_links_of_a_page_count_and_nopush_is_respected(self) -> None:
        self.page.links = (
            '</a.css>; rel=preload; as=style, <b.js?x=1>; rel="next preload"; title="a, b"',
            "<c.svg>; rel=preload; nopush",
            "<https://localhost/m.mjs#x>; rel=modulepreload",
            "<https://other.example/x.css>; rel=preload, <//other.example/y>; rel=preload, </p>; rel=prefetch",
            "nonsense, </z>; rel=preload",
        )
        client = self.client()
        self.assertEqual(self.paths(client, "/page"), ["/a.css", "/b.js?x=1", "/m.mjs"])
        self.assertEqual(len(client.response.all("link")), 5)

    def test_only_with_a_page_that_is_there(self) -> None:
        self.page.links = ("</a.css>; rel=preload",)
        for code in 404, 304, 206:
            self.page.code = code
            self.assertEqual(self.paths(self.client(), "/page"), [])

    def test_not_with_head(self) -> None:
        client = self.client()
        client.send("HEAD", "/")
        self.rig.turn()
        self.assertEqual(client.pushes, [])

    def test_conditional_requests_and_ranges_are_of_the_page_alone(self) -> None:
        client = self.client()
        self.paths(client, "/", ("if-none-match", '"x"'), ("range", "nonsense"))
        self.assertEqual([push.fields[":status"] for push in client.pushes], ["200", "200"])
        modified = client.pushes[0].fields["last-modified"]
        client.send("GET", "/a.css", headers={"if-modified-since": modified})
        client.send("GET", "/a.css", headers={"range": "bytes=0-4"})
        self.rig.turn()
        _, whole, part = client.responses
        self.assertEqual((whole.status, part.status, part.body), (304, 206, b"a.css"))

    def test_cancelled_pushes_harm_nobody(self) -> None:
        client = self.client()
        client.refuses = {0: 8, 1: 7}
        self.paths(client)
        self.assertEqual(self.paths(client, "/index.html"), ["/c.svg"])
        self.assertTrue(client.connection.is_open)


class HintTests(AssetTestCase):
    def test_a_client_without_push_gets_a_hint_and_links(self) -> None:
        client = self.client(NO_PUSH)
        self.assertEqual(self.paths(client), [])
        links = ["</a.css>; rel=preload; as=style", "</b.js>; rel=preload; as=script"]
        self.assertEqual(client.hints, [[(":status", "103"), *(("link", link) for link in links)]])
        self.assertEqual(client.response.all("link"), links)
        self.assertEqual(client.response.status, 200)

    def test_the_links_of_a_page_are_hints(self) -> None:
        self.page.links = ("</a.css>; rel=preload; nopush, <https://other.example/x>; rel=preload, </n>; rel=next",)
        client = self.client(NO_PUSH)
        self.paths(client, "/page")
        wanted = ["</a.css>; rel=preload; nopush", "<https://other.example/x>; rel=preload"]
        self.assertEqual([value for name, value in client.hints[0] if name == "link"], wanted)
        self.assertEqual(client.response.all("link"), list(self.page.links))

    def test_over_http_1_1_there_are_links_only(self) -> None:
        response = self.http1()
        self.assertEqual((len(response.all("link")), response.interim), (2, []))

    def test_other_pages_have_neither(self) -> None:
        client = self.client(NO_PUSH)
        self.paths(client, "/a.css")
        self.assertEqual((client.hints, client.response.all("link")), ([], []))


class Http1HintTests(AssetTestCase):
    settings = "early_hints = yes\n"

    def test_over_http_1_1_too_if_configured(self) -> None:
        response = self.http1()
        self.assertEqual((response.status, response.interim, len(response.all("link"))), (200, [103], 2))

    def test_not_to_http_1_0(self) -> None:
        self.assertEqual(self.http1("1.0").interim, [])


class DemoTests(SynchronousTestCase):
    def test_the_demo_page_pushes_its_style_sheet_and_scripts(self) -> None:
        client = Http2Client(rig := DaemonRig())
        client.send("GET", "/")
        rig.turn()
        paths = [p.request[":path"] for p in client.pushes]
        self.assertEqual(paths, ["/base.css", "/demo.css", "/demo.js", "/feeds.js"])
        self.assertEqual({p.fields[":status"] for p in client.pushes}, {"200"})
        self.assertTrue(all(p.is_complete for p in client.pushes))

    def test_a_list_in_the_file_takes_the_place_of_the_built_in_one(self) -> None:
        client = Http2Client(rig := DaemonRig("[push:/]\nresources = /favicon.svg\n"))
        client.send("GET", "/")
        rig.turn()
        self.assertEqual([p.request[":path"] for p in client.pushes], ["/favicon.svg"])

    def test_what_is_built_in_can_be_said_in_a_header(self) -> None:
        self.assertTrue(all(link.isascii() for links in ASSETS.values() for link in links))
        Assets(ASSETS, hints_over_http1=True)
