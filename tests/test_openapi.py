"""The description of the HTTP interface says what is served, and nothing else."""

from __future__ import annotations

import runpy
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import TestCase
from unittest.mock import patch

from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from twisted.internet.testing import MemoryReactorClock

import pushd
from pushd import errors
from pushd.api.metrics.endpoint import OpenMetrics
from pushd.bus.eventlog import EventLog
from pushd.bus.memory_headroom import memory
from pushd.config.loader import default
from pushd.daemon.assembly import assemble
from pushd.daemon.components import Components
from pushd.errors import NoRoom, Refused, Unavailable
from pushd.server.problems import UnknownHead, refuse
from pushd.server.web.resource import Answering, Branch, Endpoint, Problem
from pushd.server.web.static import StaticFiles
from pushd.transports.endpoint import SubscribeEndpoint
from pushd.transports.ndjson import NdjsonEndpoint
from pushd.transports.stream_endpoint import StreamEndpoint
from tests.rigs.daemon import DaemonRig, DaemonTests
from tests.rigs.http2_client import Http2Client
from tests.rigs.http_client import HttpClient
from tests.rigs.openapi import PATH, Operation, description, operations, resolved
from tests.rigs.websocket_client import WebSocketClient

LINES = "application/x-ndjson"
"""How the lines of a batch are answered, also if all are refused."""

EXAMPLES = {"channel": "news", "id": "order-17"}
"""What stands for the names in paths."""

UNGATED = {"/healthz", "/readyz"}
"""What pages of other origins have nothing to do with."""


def by_path() -> dict[str, list[Operation]]:
    """Return the operations of each path."""
    found = defaultdict(list)
    for operation in operations():
        found[operation.path].append(operation)
    return found


def new_parts() -> Components:
    """Make what is served without a configuration."""
    clock = MemoryReactorClock()
    return assemble(default(), clock, seconds=clock.seconds, now=clock.seconds)


def resource_at(parts: Components, path: str) -> Any:
    """Return what is served at a path of the description."""
    resource: Any = parts.site.resource
    request = SimpleNamespace(postpath=[])
    for segment in path.strip("/").format(**EXAMPLES).split("/"):
        resource = resource.getChildWithDefault(segment.encode(), request)
    return resource


def kinds(base: type[Answering]) -> Iterator[type[Answering]]:
    """Return the classes of pushd that are made of `base`."""
    for kind in base.__subclasses__():
        if kind.__module__.startswith("pushd."):
            yield kind
            yield from kinds(kind)


def schemas(part: object) -> Iterator[dict[str, Any]]:
    """Return every schema below a part of the description that has examples, or is the schema of something."""
    if isinstance(part, dict):
        if "examples" in part or "default" in part:
            yield part
        for inner in part.values():
            yield from schemas(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from schemas(inner)


class DescriptionTests(TestCase):
    """The document by itself."""

    def test_it_is_valid(self) -> None:
        validate(description())

    def test_it_is_of_this_version(self) -> None:
        self.assertEqual(description()["info"]["version"], pushd.__version__)

    def test_the_page_that_is_made_of_it_is_current(self) -> None:
        made = runpy.run_path(str(PATH.with_name("reference.py")))["page"](description())
        self.assertEqual(PATH.with_name("endpoints.rst").read_text("utf-8"), made, "run make reference")

    def test_what_it_gives_as_examples_is_what_it_says_is_right(self) -> None:
        count = 0
        for schema in schemas(description()):
            judge = Draft202012Validator({**schema, "components": description()["components"]})
            for example in [*schema.get("examples", []), *([schema["default"]] if "default" in schema else [])]:
                with self.subTest(example):
                    judge.validate(example)
                    count += 1
        self.assertGreater(count, 10)

    def test_nothing_in_it_is_left_over(self) -> None:
        text = str(description())
        for kind, parts in description()["components"].items():
            for name in parts:
                with self.subTest(f"{kind}/{name}"):
                    if kind == "securitySchemes":
                        self.assertIn({name: []}, description()["security"])
                    else:
                        self.assertIn(f"#/components/{kind}/{name}'", text)

    def test_every_refusal_is_described_as_a_problem_document(self) -> None:
        described = set()
        for path, item in description()["paths"].items():
            for method, operation in item.items():
                if method == "parameters":
                    continue
                for status, response in operation["responses"].items():
                    if int(status) >= 400:
                        with self.subTest(f"{method} {path} {status}"):
                            content = resolved(response)["content"]
                            self.assertEqual(
                                [kind for kind in content if kind != LINES], ["application/problem+json"]
                            )
                        described.add(int(status))
        kinds_of_errors = (getattr(errors, name) for name in errors.__all__)
        statuses = {kind.status for kind in kinds_of_errors if isinstance(kind, type) and issubclass(kind, Refused)}
        self.assertEqual(described, statuses | {500})


class TreeTests(TestCase):
    """The document beside the resources."""

    def test_the_first_segments_are_those_that_are_served(self) -> None:
        served: Any = new_parts().site.resource
        self.assertEqual(
            {path.split("/")[1] for path in by_path()}, {name.decode() for name in served.listStaticNames()}
        )

    def test_every_resource_has_a_path(self) -> None:
        parts = new_parts()
        found = {type(resource_at(parts, path)) for path in by_path()}
        general = {Endpoint, Branch, SubscribeEndpoint, StreamEndpoint, NdjsonEndpoint, Problem, StaticFiles}
        own = set(kinds(Answering)) - general - {OpenMetrics}  # which is /metrics at listeners for operations
        self.assertEqual(
            {kind.__name__ for kind in found}, {kind.__name__ for kind in own if kind.__name__ != "_Probed"}
        )

    def test_queries_are_those_that_are_taken(self) -> None:
        parts = new_parts()
        for operation in operations():
            with self.subTest(operation.name):
                taken = resource_at(parts, operation.path).parameters
                described = {one["name"] for one in operation.parameters if one["in"] == "query"}
                self.assertEqual(described, set() if taken is None else set(taken.get(operation.method, ())))


class MethodTests(DaemonTests):
    """The document beside what is answered."""

    def test_methods_are_those_that_405_allows(self) -> None:
        for path, known in by_path().items():
            with self.subTest(path):
                response = self.rig.request("PUT", path.format(**EXAMPLES))
                self.assert_problem(response, 405)
                wanted = {operation.method for operation in known}
                wanted |= {"HEAD"} if "GET" in wanted else set()
                wanted |= set() if path in UNGATED else {"OPTIONS"}
                self.assertEqual(set((response.header("allow") or "").split(", ")), wanted)

    def test_options_answers_the_same(self) -> None:
        for path in by_path().keys() - UNGATED:
            with self.subTest(path):
                response = self.rig.request("OPTIONS", path.format(**EXAMPLES))
                refused = self.rig.request("PUT", path.format(**EXAMPLES))
                self.assertEqual((response.status, response.header("allow")), (204, refused.header("allow")))


class TemporaryRefusalTests(DaemonTests):
    """Every refusal that is described with ``Retry-After`` has it, wherever and for whatever reason it is made."""

    def test_every_kind_says_when_to_try_again(self) -> None:
        temporary = set()
        for name, response in description()["components"]["responses"].items():
            if response.get("headers", {}).get("Retry-After", {}).get("required"):
                temporary.add(name)
                kind: Any = getattr(errors, name)
                for refused in (kind("no"), kind("no", None, None), kind("no", retry_s=None)):
                    self.assertGreater(refused.retry_s, 0)
                    self.assertEqual(refused.problem()["retry_after"], refused.retry_s)
                self.assertEqual(kind("no", retry_s=7).retry_s, 7)
        self.assertEqual(temporary, {"Unavailable", "NoRoom"})

    def test_every_operation_says_so_over_every_protocol(self) -> None:
        seen = 0
        for http in (HttpClient, Http2Client):
            self.rig = DaemonRig("", http)
            for operation in operations():
                if 503 not in operation.statuses:
                    continue
                resource = resource_at(self.rig.parts, operation.path)
                for kind, status, wanted in TEMPORARY:
                    with self.subTest(operation.name, http=http.__name__):
                        with patch.object(type(resource), "check", partial(fail, kind)):
                            response = self.rig.request(operation.method, operation.path.format(**EXAMPLES))
                        self.assertEqual((response.status, response.header("retry-after")), (status, wanted))
                        memory.look()
                        seen += 1
        self.assertGreater(seen, 70)

    def test_it_is_said_before_and_after_the_daemon_works(self) -> None:
        self.rig.parts.operators.readiness.stopping()
        response = self.rig.get("/readyz")
        self.assertEqual((response.status, response.header("retry-after")), (503, "5"))

    def test_what_cannot_be_stored_is_refused_with_it_wherever_it_comes_from(self) -> None:
        client = WebSocketClient(self.rig, "/ws")
        self.rig.turn()
        self.patch(EventLog, "append", lambda log, draft: fail(Unavailable))
        response = self.rig.request("POST", "/channels/news", body=b"x")
        self.assertEqual((response.status, response.header("retry-after")), (503, "5"))
        (line,) = self.rig.publish_many({"channel": "news", "data": "x"})
        self.assertEqual((line["error"]["status"], line["error"]["retry_after"]), (503, 5))
        client.say(type="publish", channel="news", data="x")
        self.rig.turn()
        message = client.json[-1]
        self.assertEqual((message["type"], message["status"], message["retry_after"]), ("error", 503, 5))

    def test_a_request_that_comes_to_no_resource_is_refused_with_it(self) -> None:
        info = self.rig.client().connection.protocol._protocol.info
        answer, _ = refuse(self.rig.parts.site, Unavailable("no"), UnknownHead(), info)
        self.assertIn((b"retry-after", b"5"), answer.fields)


TEMPORARY = ((Unavailable, 503, "5"), (NoRoom, 507, "30"), (MemoryError, 503, "10"))
"""What a resource may raise, the status that it is answered with, and when to try again."""


def fail(kind: type[Exception], *_: object) -> None:
    raise kind("not now")
