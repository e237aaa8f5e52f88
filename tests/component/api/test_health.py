"""Whether the daemon lives."""

from __future__ import annotations

from tests.rigs.daemon import DaemonTests


class HealthTests(DaemonTests):
    """``GET /healthz``."""

    def test_strangers_learn_that_it_lives_and_nothing_else(self) -> None:
        self.start("[auth]\nanonymous = publish, subscribe\n")
        response = self.rig.get("/healthz")
        self.assertEqual((response.status, response.json), (200, {"status": "ok"}))
        self.assertEqual(response.header("cache-control"), "no-store")

    def test_operators_see_counts(self) -> None:
        self.start("[auth]\nanonymous = publish, subscribe, operator\n")
        client = self.rig.client()
        client.send("GET", "/sse?channel=news")
        self.rig.publish("other")
        wanted = {"status": "ok", "connections": 2, "subscribers": 1, "channels": 1}
        self.assertEqual(self.rig.get("/healthz").json, wanted)

    def test_it_is_asked_by_a_name_of_this_server(self) -> None:
        for path in ("/healthz", "/readyz"):
            for host, origin, status in (
                ("evil.example", None, 403),
                ("10.1.2.3", None, 403),
                ("localhost", "http://evil.example", 403),
                ("127.0.0.1", None, 200),
            ):
                headers = {} if origin is None else {"Origin": origin}
                response = self.rig.request("GET", path, host=host, headers=headers)
                self.assertEqual(response.status, status, (path, host, origin))

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
