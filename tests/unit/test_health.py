"""Whether the daemon lives."""

from __future__ import annotations

from tests.rigs import DaemonTests


class HealthTests(DaemonTests):
    """``GET /healthz``."""

    def test_it_is_answered_with_counts(self) -> None:
        client = self.rig.client()
        client.send("GET", "/sse?channel=news")
        self.rig.publish("other")
        response = self.rig.get("/healthz")
        self.assertEqual(response.status, 200)
        self.assertEqual(response.header("cache-control"), "no-store")
        self.assertEqual(response.json, {"status": "ok", "connections": 2, "subscribers": 1, "channels": 1})

    def test_it_may_be_asked_by_any_name_and_from_any_page(self) -> None:
        response = self.rig.request("GET", "/healthz", host="10.1.2.3", headers={"Origin": "http://evil.example"})
        self.assertEqual(response.status, 200)
        self.assertIsNone(response.header("access-control-allow-origin"), "a page cannot read it")

    def test_it_is_answered_without_any_rights(self) -> None:
        self.start("[auth]\nanonymous =\n")
        self.assertEqual(self.rig.get("/healthz").status, 200)

    def test_head_is_answered(self) -> None:
        response = self.rig.request("HEAD", "/healthz")
        self.assertEqual((response.status, response.body), (200, b""))

    def test_other_methods_are_refused(self) -> None:
        response = self.rig.request("POST", "/healthz")
        self.assert_problem(response, 405)
        self.assertEqual(response.header("allow"), "GET, HEAD")

    def test_there_is_nothing_below_it_that_looks_healthy_by_accident(self) -> None:
        self.assert_problem(self.rig.get("/healthz2"), 404)
