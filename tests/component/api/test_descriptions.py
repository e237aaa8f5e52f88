"""The description of the HTTP interface, as clients get it: ``GET /openapi.yaml``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tests.rigs.daemon import DaemonRig, DaemonTests
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient
from tests.rigs.openapi import PATH


class OpenApiTests(DaemonTests):
    """``GET /openapi.yaml``."""

    def test_it_is_the_document_over_every_protocol(self) -> None:
        for http in (HttpClient, Http2Client):
            self.rig = DaemonRig("", http)
            response = self.rig.get("/openapi.yaml")
            self.assertEqual((response.status, response.body), (200, PATH.read_bytes()))
            self.assertEqual(response.header("content-type"), "application/yaml")
            self.assertEqual(response.header("cache-control"), "no-store")
            self.assertEqual(response.header("x-content-type-options"), "nosniff")

    def test_it_needs_no_right(self) -> None:
        self.start("[auth]\nanonymous =\n")
        self.assertEqual(self.rig.get("/openapi.yaml").status, 200)

    def test_pages_of_other_origins_do_not_get_it(self) -> None:
        response = self.rig.request("GET", "/openapi.yaml", headers={"Origin": "http://evil.example"})
        self.assert_problem(response, 403, field="Origin")

    def test_it_is_only_read_and_has_nothing_below_it(self) -> None:
        for method, path, status in (
            ("HEAD", "/openapi.yaml", 200),
            ("POST", "/openapi.yaml", 405),
            ("GET", "/openapi.yaml?version=2", 400),
            ("GET", "/openapi.yaml/more", 404),
            ("GET", "/openapi.yaml/", 404),
        ):
            with self.subTest(f"{method} {path}"):
                self.assertEqual(self.rig.request(method, path).status, status)

    def test_it_is_served_instead_of_a_file_of_the_site(self) -> None:
        with TemporaryDirectory() as root:
            Path(root, "openapi.yaml").write_text("mine")
            self.start(f"[site]\nroot = {root}\n")
            self.assertEqual(self.rig.get("/openapi.yaml").body, PATH.read_bytes())
