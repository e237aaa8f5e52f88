"""The tree of what is served, and static files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from twisted.internet import task

from pushd.server.http1.connection import HTTP1
from tests.rigs.daemon import DaemonTests
from tests.rigs.http_client import Response, stream_lines


class FileTests(DaemonTests):
    """Tests of a daemon that serves files."""

    def setUp(self) -> None:
        """Make Twisted send files by the clock of the rig."""
        super().setUp()
        # twisted.web.static sends a file through the Cooperator of the process, which wants the real reactor.
        cooperator = task.Cooperator(scheduler=lambda call: self.rig.reactor.callLater(0, call))
        self.patch(task, "_theCooperator", cooperator)

    def ask(
        self, path: str, method: str = "GET", *, host: str = "localhost", body: bytes = b"", **headers: str
    ) -> Response:
        """Return the whole response to a request."""
        client = self.rig.client()
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        client.send(method, path, headers=fields, host=host, body=body)
        self.rig.turn()
        self.assertTrue(client.response.is_complete)
        client.connection.disconnect()
        return client.response


class DemoTests(FileTests):
    """A daemon as it comes."""

    def test_the_demo_page_is_served(self) -> None:
        response = self.ask("/")
        self.assertEqual(response.status, 200)
        self.assertEqual(response.header("content-type"), "text/html")
        self.assertTrue(response.body.lower().startswith(b"<!doctype html>"))

    def test_the_clock_ticks_for_who_listens_only(self) -> None:
        self.rig.wait(2)
        self.assertEqual(self.rig.traces.channels, 0)
        client = self.rig.client()
        client.send("GET", "/stream?channel=clock")
        self.rig.wait(3)
        ticks = [line["data"] for line in stream_lines(client.response.body)]
        self.assertEqual(
            ticks, ["2023-11-14T22:13:23+00:00", "2023-11-14T22:13:24+00:00", "2023-11-14T22:13:25+00:00"]
        )

    def test_nothing_runs_in_its_pages_that_is_not_its_own(self) -> None:
        for path in ("/", "/index.html", "/demo.js", "/base.css", "/demo.css", "/favicon.svg"):
            for method in ("GET", "HEAD"):
                with self.subTest(path):
                    response = self.ask(path, method)
                    policy = response.header("content-security-policy") or ""
                    self.assertEqual(response.status, 200)
                    self.assertTrue(policy.startswith("default-src 'none';"), policy)
                    self.assertIn("frame-ancestors 'none'", policy)
                    self.assertNotIn("unsafe", policy)
                    self.assertEqual(response.header("x-frame-options"), "DENY")
                    self.assertEqual(response.header("referrer-policy"), "no-referrer")

    def test_without_a_site_there_is_nothing_at_the_root(self) -> None:
        self.start("[site]\ndemo = no\n")
        for path in ("/", "/index.html", "/demo.js"):
            self.assert_problem(self.ask(path), 404)


class StaticFileTests(FileTests):
    """``[site] root``."""

    def setUp(self) -> None:
        """Make a site."""
        super().setUp()
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.outside = Path(directory.name)
        self.root = self.outside / "root"
        (self.root / "sub").mkdir(parents=True)
        (self.root / "empty").mkdir()
        (self.root / ".hidden").mkdir()
        (self.root / ".well-known").mkdir()
        (self.outside / "root-secret").mkdir()
        for name, text in {
            "root/index.html": "<!doctype html>index",
            "root/page.html": "page",
            "root/a b.txt": "space",
            "root/ü.txt": "umlaut",
            "root/sub/index.html": "sub index",
            "root/sub/data.json": "{}",
            "root/.env": "secret",
            "root/.hidden/page.html": "secret",
            "root/.well-known/security.txt": "contact",
            "root/.well-known/.env": "secret",
            "root/channels": "never served",
            "secret.txt": "secret",
            "root-secret/secret.txt": "secret",
        }.items():
            (self.outside / name).write_text(text)
        self.start(f"[site]\nroot = {self.root.absolute()}\n")

    def assert_served(self, path: str, text: str, kind: str) -> Response:
        """The file is served as what it is."""
        response = self.ask(path)
        self.assertEqual((response.status, response.body.decode()), (200, text), path)
        self.assertEqual((response.header("content-type") or "").partition(";")[0], kind)
        return response

    def test_files_are_served_as_what_they_are(self) -> None:
        self.assert_served("/page.html", "page", "text/html")
        self.assert_served("/sub/data.json", "{}", "application/json")
        self.assert_served("/a%20b.txt", "space", "text/plain")
        self.assert_served("/%C3%BC.txt", "umlaut", "text/plain")
        response = self.assert_served("/page.html?query=1", "page", "text/html")
        self.assertEqual(response.header("x-content-type-options"), "nosniff")

    def test_a_directory_is_its_index(self) -> None:
        self.assert_served("/", "<!doctype html>index", "text/html")
        self.assert_served("/sub/", "sub index", "text/html")

    def test_a_directory_without_its_slash_leads_to_it(self) -> None:
        response = self.ask("/sub")
        self.assertIn(response.status, (301, 302, 307, 308))
        self.assertTrue((response.header("location") or "").endswith("/sub/"))

    def test_a_redirect_cannot_lead_to_another_site(self) -> None:
        for path in ("//evil.example/..%2fsub", "//sub", "/%2Fevil.example", "/\\evil.example/%2e%2e/sub"):
            with self.subTest(path):
                location = self.ask(path).header("location")
                self.assertFalse((location or "").startswith(("//", "\\", "/\\", "http://evil")), location)

    def test_there_are_no_listings(self) -> None:
        self.assert_problem(self.ask("/empty/"), 404)

    def test_endpoints_win_over_files(self) -> None:
        self.assertEqual(self.ask("/channels").json["channels"], [])

    def test_what_is_not_there_is_not_found(self) -> None:
        for path in ("/none", "/sub/none", "/page.html/below", "/none/below/", "/" + "x" * 300):
            with self.subTest(path):
                self.assert_problem(self.ask(path), 404)

    def test_a_name_that_no_file_can_have_is_not_found(self) -> None:
        for path in ("/page.html%00", "/%00", "/sub/%00.html", "/%FF"):
            with self.subTest(path):
                self.assertEqual(self.ask(path).status, 404)

    def test_nothing_outside_is_served(self) -> None:
        for path in (
            "/../secret.txt",
            "/sub/../../secret.txt",
            "/%2e%2e/secret.txt",
            "/..%2fsecret.txt",
            "/%2e%2e%2fsecret.txt",
            "/sub%2f..%2f..%2fsecret.txt",
            "/..%5csecret.txt",
            "/..%c0%afsecret.txt",
            "/%252e%252e/secret.txt",
            "/../root-secret/secret.txt",
            "/..%2froot-secret%2fsecret.txt",
            f"/{(self.outside / 'secret.txt').absolute()}",
            f"/{str((self.outside / 'secret.txt').absolute()).replace('/', '%2f')}",
            "//etc/passwd",
            "/%2fetc%2fpasswd",
        ):
            with self.subTest(path):
                response = self.ask(path)
                self.assertEqual(response.status, 404, response)
                self.assertNotEqual(response.body, b"secret")

    def test_a_link_is_followed_within_the_root(self) -> None:
        os.symlink((self.root / "page.html").absolute(), self.root / "link.html")
        os.symlink("sub", self.root / "links")
        os.symlink("../page.html", self.root / "sub" / "up.html")
        self.assert_served("/link.html", "page", "text/html")
        self.assert_served("/links/data.json", "{}", "application/json")
        self.assert_served("/links/", "sub index", "text/html")
        self.assert_served("/links/up.html", "page", "text/html")

    def test_a_link_that_leads_out_of_the_root_is_not_served(self) -> None:
        os.symlink("../secret.txt", self.root / "out.txt")
        os.symlink((self.outside / "secret.txt").absolute(), self.root / "sub" / "out.txt")
        os.symlink("out.txt", self.root / "twice.txt")
        os.symlink("../root-secret", self.root / "out")
        os.symlink("/", self.root / "all")
        os.symlink("none", self.root / "broken.txt")
        os.symlink("loop", self.root / "loop")
        (self.root / "indexed").mkdir()
        os.symlink("../../secret.txt", self.root / "indexed" / "index.html")
        for path in (
            "/out.txt",
            "/sub/out.txt",
            "/twice.txt",
            "/out/secret.txt",
            "/out/",
            "/out",
            "/all/etc/passwd",
            "/broken.txt",
            "/loop",
            "/indexed/",
            "/indexed/index.html",
        ):
            for method in ("GET", "HEAD"):
                with self.subTest(path):
                    self.assertEqual(self.ask(path, method).status, 404)

    def test_the_root_may_be_a_link_and_lead_elsewhere_later(self) -> None:
        (self.outside / "v2").mkdir()
        (self.outside / "v2" / "page.html").write_text("second")
        current = self.outside / "current"
        current.symlink_to("root")
        self.start(f"[site]\nroot = {current.absolute()}\n")
        self.assert_served("/page.html", "page", "text/html")
        current.unlink()
        current.symlink_to("v2")
        self.assert_served("/page.html", "second", "text/html")

    def test_what_is_no_file_is_not_served(self) -> None:
        os.mkfifo(self.root / "pipe")
        self.assert_problem(self.ask("/pipe"), 404)

    def test_its_pages_have_nothing_forced_on_them(self) -> None:
        response = self.ask("/page.html")
        for name in ("content-security-policy", "referrer-policy", "x-frame-options"):
            self.assertIsNone(response.header(name))

    def test_hidden_files_are_not_served(self) -> None:
        for path in (
            "/.env",
            "/%2eenv",
            "/.hidden/page.html",
            "/.hidden/",
            "/.well-known/.env",
            "/sub/.none",
            "//.env",
        ):
            with self.subTest(path):
                self.assert_problem(self.ask(path), 404)

    def test_hidden_files_are_not_served_by_a_way_round(self) -> None:
        for path in (
            "/x%2f..%2f.env",
            "/.%2f.env",
            "/x%2f..%2f.hidden/page.html",
            "/.well-known%2f..%2f.env",
            "/%2f.env",
        ):
            with self.subTest(path):
                self.assertEqual(self.ask(path).status, 404)

    def test_well_known_is_not_hidden(self) -> None:
        self.assert_served("/.well-known/security.txt", "contact", "text/plain")

    def test_files_cannot_be_changed(self) -> None:
        for method in ("POST", "PUT", "DELETE"):
            with self.subTest(method):
                response = self.ask("/page.html", method, body=b"x")
                self.assert_problem(response, 405)
                self.assertIn("GET", response.header("allow") or "")
        self.assertEqual((self.root / "page.html").read_text(), "page")

    def test_head_has_the_length_only(self) -> None:
        response = self.ask("/page.html", "HEAD")
        self.assertEqual((response.status, response.body, response.header("content-length")), (200, b"", "4"))

    def test_a_file_that_has_not_changed_is_not_sent_again(self) -> None:
        modified = self.ask("/page.html").header("last-modified") or ""
        self.assertTrue(modified)
        response = self.ask("/page.html", If_Modified_Since=modified)
        self.assertEqual((response.status, response.body), (304, b""))
        response = self.ask("/page.html", If_Modified_Since="Mon, 01 Jan 2001 00:00:00 GMT")
        self.assertEqual((response.status, response.body), (200, b"page"))

    def test_a_part_of_a_file_is_served(self) -> None:
        response = self.ask("/page.html", Range="bytes=1-2")
        self.assertEqual(
            (response.status, response.body, response.header("content-range")), (206, b"ag", "bytes 1-2/4")
        )
        response = self.ask("/page.html", Range="bytes=0-0,3-3")
        self.assertEqual(response.status, 206)
        self.assertTrue((response.header("content-type") or "").startswith("multipart/byteranges"))
        response = self.ask("/page.html", Range="bytes=9-")
        self.assertEqual(response.status, 416)

    def test_a_page_that_appears_is_served(self) -> None:
        self.assertEqual(self.ask("/new.html").status, 404)
        (self.root / "new.html").write_text("new")
        self.assert_served("/new.html", "new", "text/html")

    def test_files_are_served_by_any_name_of_the_machine(self) -> None:
        self.assertEqual(self.ask("/page.html", host="push.example.com").status, 200)


class ClosedWhileSendingTests(FileTests):
    """A connection over HTTP/1.1 that is closed while a file is sent."""

    def test_nothing_is_sent_to_who_left_while_the_connection_was_being_closed(self) -> None:
        for ranges in ("bytes=0-0,3-3", "bytes=1-2", "bytes=0-"):
            with self.subTest(ranges):
                client = self.rig.client()
                client.send("GET", "/demo.js", headers={"Range": ranges})
                (connection,) = cast("Iterable[HTTP1]", self.rig.parts.site.connections)
                connection.end()  # the transport knows nothing of the producer any more
                client.connection.disconnect()
                for _ in range(10):
                    self.rig.reactor.advance(0)
                self.assertEqual(self.rig.delayed, [], "the file is asked for more, and fails, for ever")
                self.assertEqual(self.flushLoggedErrors(), [])
