"""Imports point down the layers of the house plan, and what is below the line knows no Twisted."""

from __future__ import annotations

import ast
from pathlib import Path
from unittest import TestCase

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pushd"

# Highest first. A module may import from strictly lower layers only; in a layer of several groups, a later
# group may be imported by an earlier one.
LAYERS: list[list[str]] = [
    ["pushd.tap"],
    ["pushd.daemon.service"],
    ["pushd.daemon.assembly", "pushd.daemon.startup_hints"],
    ["pushd.daemon.ingress"],
    ["pushd.daemon.integrations", "pushd.api.metrics.prometheus", "pushd.api.operations"],
    ["pushd.api.status.page"],
    ["pushd.server.web.static"],
    ["pushd.server.net.listen", "pushd.server.web.site", "pushd.api.demo.page"],
    ["pushd.server.web.preload"],
    [
        "pushd.server.net.tls",
        "pushd.daemon.garbage_collector",
        "pushd.server.web.header_names",
        "pushd.server.net.proxy_protocol",
        "pushd.daemon.systemd",
        "pushd.server.net.systemd_sockets",
        "pushd.daemon.pid_file",
        "pushd.server.net.polling",
        "pushd.server.net.unix_socket",
    ],
    ["pushd.log.observers"],
    ["pushd.log.lines", "pushd.log.flood_limit"],
    ["pushd.api.status.events"],
    [
        "pushd.transports.websocket.endpoint",
        "pushd.transports.sse",
        "pushd.transports.ndjson",
        "pushd.transports.longpoll",
        "pushd.transports.server_push.endpoint",
        "pushd.api.channels",
        "pushd.api.connections",
        "pushd.api.health",
        "pushd.api.metrics.endpoint",
    ],
    ["pushd.api.publish"],
    ["pushd.api.publish_one"],
    ["pushd.api.batch_lines"],
    [
        "pushd.transports.http_stream",
        "pushd.transports.websocket.protocol",
        "pushd.transports.server_push.session",
        "pushd.sessions.presence",
        "pushd.auth.approval",
        "pushd.api.status.snapshot",
    ],
    ["pushd.transports.websocket.pings"],
    ["pushd.transports.endpoint"],
    ["pushd.sessions.admission", "pushd.api.metrics.gauges"],
    ["pushd.auth.command_rates"],
    ["pushd.server.web.resource"],
    ["pushd.server.web.guard", "pushd.transports.websocket.handshake"],
    ["pushd.server.http2.connection", "pushd.server.web.negotiation"],
    [
        "pushd.server.http2.timeouts",
        "pushd.server.http2.pace",
        "pushd.server.http2.tunnel",
        "pushd.server.http2.early_answers",
    ],
    ["pushd.server.http2.stream"],
    ["pushd.server.http2.stream_promises", "pushd.server.http2.held_response"],
    ["pushd.server.http2.interfaces"],
    ["pushd.server.http2.promises", "pushd.server.http2.context"],
    ["pushd.server.http2.body_windows", "pushd.server.http2.receiver"],
    ["pushd.server.http2.codec"],
    ["pushd.server.http2.hpack_decoder", "pushd.server.http2.hpack_encoder", "pushd.server.http2.scheduler"],
    ["pushd.server.http2.head", "pushd.server.http2.frames", "pushd.server.http2.limits"],
    ["pushd.server.http2.priority", "pushd.server.http2.errors"],
    ["pushd.server.http1.responses"],
    ["pushd.server.request", "pushd.server.http1.connection", "pushd.transports.websocket.connection"],
    ["pushd.server.http1.output"],
    ["pushd.server.interfaces", "pushd.transports.websocket.reading"],
    ["pushd.transports.websocket.backlog"],
    ["pushd.transports.websocket.fault_log", "pushd.transports.websocket.whole_message"],
    [
        "pushd.daemon.file_limits",
        "pushd.server.web.open_file",
        "pushd.server.net.connection_limits",
        "pushd.server.net.client_certificates",
    ],
    ["pushd.daemon.memory_watch"],
    [
        "pushd.server.net.connections",
        "pushd.server.http1.head",
        "pushd.server.http1.timeouts",
        "pushd.server.net.trusted_proxies",
        "pushd.server.problems",
    ],
    ["pushd.server.incomplete_bodies"],
    ["pushd.server.access_log", "pushd.server.eventsource_retry"],
    ["pushd.sessions.session", "pushd.auth.rate_limits"],
    ["pushd.sessions.registry"],
    ["pushd.sessions.close_log"],
    ["pushd.sessions.fanout", "pushd.sessions.closed_connection"],
    ["pushd.server.net.writer"],
    ["pushd.auth.webhooks.authorizer", "pushd.auth.webhooks.client", "pushd.auth.webhooks.notifier"],
    ["pushd.auth.webhooks.notification_queue", "pushd.auth.webhooks.deadlines"],
    ["pushd.auth.webhooks.signing"],
    ["pushd.store.sqlite.journal"],
    ["pushd.store.sqlite.unused", "pushd.store.sqlite.waiting"],
    ["pushd.store.sqlite.store", "pushd.store.sqlite.check", "pushd.store.sqlite.submission"],
    ["pushd.store.sqlite.archive"],
    ["pushd.store.sqlite.transaction", "pushd.store.sqlite.health"],
    ["pushd.store.sqlite.history"],
    ["pushd.store.sqlite.reader"],
    [
        "pushd.store.sqlite.database",
        "pushd.store.sqlite.watermark",
        "pushd.store.sqlite.worker",
        "pushd.store.sqlite.clock_jumps",
    ],
    ["pushd.store.sqlite.continuity"],
    ["pushd.store.sqlite.schema"],
    ["pushd.store.sqlite.block", "pushd.store.sqlite.rows"],
    ["pushd.auth.tokens.authenticator"],
    ["pushd.auth.tokens.issuer", "pushd.auth.tokens.mint"],
    ["pushd.auth.tokens.keyset"],
    ["pushd.auth.tokens.jwks", "pushd.auth.tokens.fetch"],
    ["pushd.auth.tokens.keys"],
    ["pushd.auth.tokens.claims"],
    ["pushd.auth.tokens.jws"],
    ["pushd.server.net.addresses", "pushd.sessions.long_work"],
    ["pushd.bus.publisher"],
    ["pushd.bus.bus", "pushd.api.status.activity"],
    ["pushd.bus.delivery"],
    ["pushd.bus.pending_deliveries"],
    ["pushd.bus.subscription", "pushd.bus.recipients", "pushd.auth.webhooks.answers"],
    ["pushd.bus.replaying", "pushd.bus.subscriber"],
    ["pushd.transports.websocket.commands"],
    [
        "pushd.wire.frames",
        "pushd.auth.webhooks.payloads",
        "pushd.wire.messages",
        "pushd.sessions.outbox",
        "pushd.transports.websocket.message_timeout",
    ],
    ["pushd.bus.subscribers", "pushd.server.net.timers", "pushd.server.net.turns"],
    ["pushd.server.unread_responses"],
    ["pushd.bus.shares"],
    ["pushd.bus.batch", "pushd.api.metrics.lag", "pushd.bus.slices"],
    ["pushd.bus.turn"],
    ["pushd.bus.eventlog", "pushd.config.loader", "pushd.config.reference"],
    ["pushd.bus.search"],
    [
        "pushd.bus.replay",
        "pushd.bus.position",
        "pushd.bus.storage",
        "pushd.bus.idle_channels",
        "pushd.bus.retention",
    ],
    ["pushd.bus.channel", "pushd.config.ini", "pushd.config.options"],
    ["pushd.bus.history", "pushd.bus.held_back", "pushd.config.options_access", "pushd.bus.clientinfo"],
    ["pushd.bus.sizes", "pushd.config.option"],
    ["pushd.config.restart"],
    ["pushd.config.settings", "pushd.config.types"],
    ["pushd.config.channel_rules"],
    ["pushd.bus.event", "pushd.wire.json_shape", "pushd.config.addresses", "pushd.config.units"],
    ["pushd.bus.grants", "pushd.bus.counters", "pushd.bus.many_patterns"],
    [
        "pushd.bus.patterns",
        "pushd.bus.name_index",
        "pushd.bus.partitioned_dict",
        "pushd.bus.linked_list",
        "pushd.bus.lazy_heap",
    ],
    [
        "pushd.errors",
        "pushd.auth.webhooks.breaker",
        "pushd.wire.json",
        "pushd.errors",
        "pushd.config.timeouts",
        "pushd.bus.closing",
        "pushd.bus.record",
        "pushd.server.web.wildcards",
    ],
    ["pushd.bus.memory_headroom"],
    ["pushd.bus.clientaddress"],
]
BELOW = "pushd.bus.publisher"
ALLOWED_BELOW = {
    "__future__", "ast", "base64", "binascii", "bisect", "collections", "configparser", "dataclasses", "difflib",
    "enum", "functools", "hashlib", "heapq", "ipaddress", "itertools", "json", "math", "operator", "orjson", "re",
    "struct", "sys", "textwrap", "typing", "urllib",
}  # fmt: skip

RANK = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
CORE = {name for name in RANK if RANK[name] >= RANK[BELOW]}


def modules() -> dict[str, Path]:
    """Answer every module of the package but the ``__init__`` files."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.stem != "__init__":
            found[".".join(path.relative_to(ROOT).with_suffix("").parts)] = path
    return found


def imports(path: Path) -> set[str]:
    """Answer the modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            found.add(base)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


class LayerTests(TestCase):
    def test_every_module_has_a_layer_and_every_layer_its_modules(self) -> None:
        self.assertEqual(set(modules()), set(RANK))

    def test_imports_point_down(self) -> None:
        for name, path in modules().items():
            for other in imports(path) & RANK.keys():
                with self.subTest(f"{name} imports {other}"):
                    self.assertGreater(RANK[other], RANK[name])

    def test_the_core_imports_only_pure_modules(self) -> None:
        for name, path in modules().items():
            if name in CORE:
                foreign = {other.split(".")[0] for other in imports(path)} - ALLOWED_BELOW - {"pushd"}
                with self.subTest(name):
                    self.assertEqual(foreign, set())

    def test_the_init_files_import_nothing(self) -> None:
        for path in set(PACKAGE.rglob("__init__.py")) - {PACKAGE / "log" / "__init__.py"}:
            with self.subTest(str(path)):
                self.assertEqual(imports(path), set())

    def test_only_tap_imports_the_reactor(self) -> None:
        for name, path in modules().items():
            if "twisted.internet.reactor" in imports(path):
                self.assertEqual(name, "pushd.tap")

    def test_only_the_adapter_knows_autobahn(self) -> None:
        for name, path in modules().items():
            if any(other.split(".")[0] == "autobahn" for other in imports(path)):
                self.assertEqual(name, "pushd.transports.websocket.connection")

    def test_only_the_codec_knows_h2(self) -> None:
        for name, path in modules().items():
            if any(other.split(".")[0] in ("h2", "hyperframe") for other in imports(path)):
                self.assertEqual(name, "pushd.server.http2.codec")

    def test_only_one_module_reads_and_writes_json(self) -> None:
        for name, path in modules().items():
            if imports(path) & {"json", "orjson"}:
                self.assertEqual(name, "pushd.wire.json")

    def test_only_the_exposition_knows_the_library_of_prometheus(self) -> None:
        for name, path in modules().items():
            if any(other.split(".")[0] == "prometheus_client" for other in imports(path)):
                self.assertEqual(name, "pushd.api.metrics.prometheus")

    def test_private_names_of_others_are_used_in_the_codec_only(self) -> None:
        """Whatever has a private name and is not ``self`` nor a class of the module belongs to somebody else."""
        for name, path in modules().items():
            if not name.startswith("pushd.http2.") or name == "pushd.server.http2.codec":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                    with self.subTest(f"{name}:{node.lineno} {node.attr}"):
                        self.assertIsInstance(node.value, ast.Name)
                        self.assertEqual(getattr(node.value, "id", None), "self")


class SizeTests(TestCase):
    def test_no_module_is_longer_than_400_lines_and_no_function_than_60(self) -> None:
        for name, path in modules().items():
            text = path.read_text()
            with self.subTest(name):
                self.assertLessEqual(text.count("\n"), 400)
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    with self.subTest(f"{name}.{node.name}"):
                        self.assertLessEqual((node.end_lineno or 0) - node.lineno, 60)

    def test_every_module_says_what_it_is_and_what_it_offers(self) -> None:
        for name, path in modules().items():
            tree = ast.parse(path.read_text())
            with self.subTest(name):
                self.assertIsNotNone(ast.get_docstring(tree))
                assigned = [target.id for node in tree.body if isinstance(node, ast.Assign)
                            for target in node.targets if isinstance(target, ast.Name)]  # fmt: skip
                self.assertIn("__all__", assigned)
