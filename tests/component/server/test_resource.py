"""What every resource has in common: common headers, problems, methods and parameters."""

from __future__ import annotations

from tests.rigs.daemon import DaemonTests

ENDPOINTS = (
    "/channels",
    "/channels/a",
    "/channels/a/events",
    "/publish",
    "/sse",
    "/stream",
    "/poll",
    "/ws",
    "/healthz",
)


class ResourceTests(DaemonTests):
    """What holds for every endpoint."""

    config = "[site]\ndemo = no\n"

    def test_every_answer_has_the_common_headers(self) -> None:
        for target in (*ENDPOINTS, "/", "/nothing", "/channels/a/nothing"):
            with self.subTest(target):
                response = self.rig.get(target)
                self.assertEqual(response.header("server"), "pushd")
                self.assertEqual(response.header("x-content-type-options"), "nosniff")
                self.assertIsNotNone(response.header("date"))

    def test_every_error_is_a_problem_document(self) -> None:
        for method, target, status, field in (
            ("GET", "/nothing", 404, None),
            ("GET", "/", 404, None),
            ("GET", "/channels/%00", 400, "channel"),
            ("GET", "/channels/a/events/none", 404, "channel"),
            ("DELETE", "/channels/none", 404, "channel"),
            ("GET", "/sse", 400, "channel"),
            ("GET", "/ws", 426, None),
            ("GET", "/ws?format=x", 400, "format"),
            ("PUT", "/channels/a", 405, None),
            ("POST", "/publish", 400, None),
            ("TRACE", "/healthz", 405, None),
        ):
            with self.subTest(f"{method} {target}"):
                self.assert_problem(self.rig.request(method, target), status, field=field)

    def test_the_title_of_a_problem_is_the_name_of_its_status(self) -> None:
        for method, target, title in (
            ("GET", "/nothing", "Not Found"),
            ("GET", "/sse", "Bad Request"),
            ("GET", "/ws", "Upgrade Required"),
            ("PUT", "/channels/a", "Method Not Allowed"),
        ):
            with self.subTest(target):
                self.assertEqual(self.rig.request(method, target).json["title"], title)

    def test_a_problem_has_no_body_if_only_the_head_was_wanted(self) -> None:
        client = self.rig.client()
        client.send("HEAD", "/nothing")
        client.send("HEAD", "/sse")
        client.send("GET", "/healthz")
        self.rig.turn()
        self.assertEqual([response.status for response in client.responses], [404, 400, 200])

    def test_a_method_that_is_not_known_is_told_which_are(self) -> None:
        for target in ENDPOINTS:
            for method in ("PUT", "BREW", "get"):
                with self.subTest(f"{method} {target}"):
                    response = self.rig.request(method, target)
                    self.assert_problem(response, 405, says=method)
                    allowed = (response.header("allow") or "").split(", ")
                    self.assertNotIn(method, allowed)
                    for known in allowed:
                        self.assertNotIn(self.rig.request(known, target).status, (405, 500, 501))

    def test_options_tells_the_methods(self) -> None:
        for target in ENDPOINTS[:-1]:
            with self.subTest(target):
                response = self.rig.request("OPTIONS", target)
                self.assertEqual((response.status, response.body), (204, b""))
                self.assertIn("OPTIONS", response.header("allow") or "")

    def test_an_answer_of_204_has_no_length(self) -> None:
        response = self.rig.request("OPTIONS", "/channels")
        self.assertIsNone(response.header("content-length"))
        self.assertIsNone(response.header("transfer-encoding"))

    def test_a_path_that_is_not_there_is_not_found_whatever_its_bytes(self) -> None:
        for target in (
            "/nothing/at/all",
            "/%00",
            "/%FF",
            "/..",
            "/../etc/passwd",
            "//",
            "/%2e%2e/",
            "/channels/a/b/c",
        ):
            with self.subTest(target):
                self.assert_problem(self.rig.get(target), 404)

    def test_parameters_must_be_utf_8(self) -> None:
        for target, field in (
            ("/sse?channel=%FF", "channel"),
            ("/sse?channel=a&since=%FF", "since"),
            ("/ws?format=%FF", "format"),
        ):
            with self.subTest(target):
                self.assert_problem(self.rig.get(target), 400, field=field, says="UTF-8")

    def test_parameters_are_decoded_as_a_form_is(self) -> None:
        self.rig.publish("a b+c&d/ü")
        names = [it["channel"] for it in self.rig.get("/channels?prefix=a+b%2Bc%26d/%C3%BC").json["channels"]]
        self.assertEqual(names, ["a b+c&d/ü"])

    def test_parameters_that_nobody_knows_are_refused_by_name(self) -> None:
        for target, field in (
            ("/channels?utm_source=x", "utm_source"),
            ("/channels?%FF=1", "\\xff"),
            ("/sse?channel=news&sinc=earliest", "sinc"),
            ("/poll?channel=news&channels=b", "channels"),
            ("/channels/news?limit=1", "limit"),
            ("/ws?channel=news&formt=raw", "formt"),
        ):
            with self.subTest(target):
                response = self.rig.get(target)
                self.assert_problem(response, 400, field=field, says="unknown query parameter")
        response = self.rig.request("POST", "/channels/news?evnt=x", body=b"x")
        self.assert_problem(response, 400, field="evnt", says="unknown query parameter 'evnt'; did you mean event?")
        response = self.rig.request("POST", "/channels/news?x=y", body=b"x")
        self.assert_problem(response, 400, field="x", says="expected one of event, id")
        self.assertEqual(self.rig.get("/channels").json["channels"], [])

    def test_a_page_of_an_allowed_origin_can_read_every_refusal(self) -> None:
        self.start("[auth]\norigins = https://a.example\n")
        for target in ("/channels/%2A", "/channels/news/nothing", "/sse", "/channels/news?limit=1"):
            with self.subTest(target):
                response = self.rig.get(target, Origin="https://a.example")
                self.assertGreaterEqual(response.status, 400)
                self.assertEqual(response.header("access-control-allow-origin"), "https://a.example")

    def test_what_is_quoted_from_a_request_is_shortened(self) -> None:
        response = self.rig.request(
            "POST", "/publish", body=b'{"channel":"a","data":"x","id":"%s"}' % (b"x" * 9000)
        )
        self.assertLess(len(response.body), 1000)
