"""The floors of pushd: imports point down, and across packages only through their faces.

``python -m tests.test_layers`` prints the floors for ``docs/floors.txt``.
"""

from __future__ import annotations

import ast
import importlib
import sys
from functools import cache
from pathlib import Path
from unittest import TestCase

from tests.rigs.about import about

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pushd"

FLOORS = [
    ["tap"],
    ["daemon"],
    ["api"],
    ["transports"],
    ["sessions"],
    ["server", "store", "auth"],
    ["log"],
    ["config"],
    ["wire"],
    ["bus"],
    ["errors"],
]
"""From the top down. A package imports from lower floors only; those of one floor do not know each other."""

PURE = ("bus", "config", "errors", "wire")
"""Plain Python: no Twisted, Autobahn, socket, clock or file."""

PURE_IMPORTS = {
    "__future__", "abc", "ast", "base64", "binascii", "bisect", "collections", "configparser", "contextlib",
    "dataclasses", "difflib", "enum", "functools", "hashlib", "heapq", "ipaddress", "itertools", "json",
    "math", "operator", "orjson", "re", "struct", "sys", "textwrap", "typing", "urllib",
}  # fmt: skip

ALONE = {
    "twisted.internet.reactor": "pushd.tap",
    "autobahn": "pushd.transports.websocket.connection",
    "h2": "pushd.server.http2.codec",
    "hyperframe": "pushd.server.http2.codec",
    "json": "pushd.wire.json",
    "json.decoder": "pushd.wire.json_shape",
    "orjson": "pushd.wire.json",
    "prometheus_client": "pushd.api.metrics.prometheus",
}
"""What only one module may import."""

ASSEMBLED = {
    "bare_store", "connection", "daemon", "http2_client", "http2_peer", "http_client", "stored",
    "subscribers", "tunnel_client", "vouching", "websocket_client",
}  # fmt: skip
"""The modules of ``tests.rigs`` that build a daemon, a site or a store, or talk to one."""

RANK = {name: depth for depth, floor in enumerate(FLOORS) for name in floor}


@cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text())


@cache
def modules() -> dict[str, Path]:
    """Return every module of the package by its name; a package goes by its ``__init__``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Return each module that a file imports, anywhere in it, with the names that it takes from it."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found += ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", tuple(alias.name for alias in node.names)))
    return found


def floor_of(module: str) -> str:
    """Return the package below ``pushd`` that a module belongs to."""
    return [*module.split("."), ""][1]


def picture() -> str:
    """Return the floors, a line each, with what the docstrings of their packages say."""
    lines = []
    for floor in FLOORS:
        for name in floor:
            summary = (importlib.import_module(f"pushd.{name}").__doc__ or "").partition("\n")[0].rstrip(".")
            lines.append(f"{name:<12}{summary}\n")
        lines.append("\n")
    return "".join(lines[:-1])


class LayerTests(TestCase):
    def test_the_picture_in_the_documents_shows_these_floors(self) -> None:
        self.assertEqual((ROOT / "docs" / "floors.txt").read_text(), picture(), "run `make reference`")

    def test_every_package_has_a_floor(self) -> None:
        packages = {floor_of(name) for name in modules()} - {""}
        self.assertEqual(packages, set(RANK))

    def test_imports_point_down_and_go_through_the_face(self) -> None:
        for name, path in modules().items():
            for other, taken in imports(path):
                here, there = floor_of(name), floor_of(other)
                if other.split(".")[0] != "pushd" or not there or here == there or not here:
                    continue
                with about(f"{name} imports {other}"):
                    self.assertGreater(RANK[there], RANK[here], "down only")
                    self.assertEqual(other, f"pushd.{there}", "only what the package's face names")
                    self.assertTrue(taken)

    def test_a_face_names_what_is_there(self) -> None:
        for name in RANK:
            module = importlib.import_module(f"pushd.{name}")
            for exported in module.__all__:
                with about(f"{name}.{exported}"):
                    self.assertTrue(hasattr(module, exported))

    def test_a_face_names_nothing_that_nobody_wants(self) -> None:
        wanted = {(other, name) for path in modules().values() for other, names in imports(path) for name in names}
        for package in set(RANK) - {"tap", "log", "errors"}:
            module = importlib.import_module(f"pushd.{package}")
            for exported in module.__all__:
                with about(f"{package}.{exported}"):
                    self.assertIn((f"pushd.{package}", exported), wanted)

    def test_the_core_imports_only_pure_modules(self) -> None:
        for name, path in modules().items():
            if floor_of(name) in PURE:
                foreign = {other.split(".")[0] for other, _ in imports(path)} - PURE_IMPORTS - {"pushd"}
                with about(name):
                    self.assertEqual(foreign, set())

    def test_what_only_one_module_may_import(self) -> None:
        for name, path in modules().items():
            for other, names in imports(path):
                for full in (other, *(f"{other}.{one}" for one in names)):
                    owners = [
                        (library, ALONE[library]) for library in ALONE if f"{full}.".startswith(f"{library}.")
                    ]
                    if owners:
                        library, owner = max(owners)
                        with about(f"{name} imports {library}"):
                            self.assertEqual(name, owner)

    def test_private_names_of_others_are_used_in_the_codec_only(self) -> None:
        """Whatever has a private name and is not ``self`` nor a class of the module belongs to somebody else."""
        for name, path in modules().items():
            if not name.startswith("pushd.server.http2.") or name == "pushd.server.http2.codec":
                continue
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                    with about(f"{name}:{node.lineno} {node.attr}"):
                        self.assertIsInstance(node.value, ast.Name)
                        self.assertEqual(getattr(node.value, "id", None), "self")


class SizeTests(TestCase):
    def test_no_module_is_longer_than_400_lines_and_no_function_than_60(self) -> None:
        for name, path in modules().items():
            text = path.read_text()
            with about(name):
                self.assertLessEqual(text.count("\n"), 400)
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    with about(f"{name}.{node.name}"):
                        self.assertLessEqual((node.end_lineno or 0) - node.lineno, 60)

    def test_every_module_says_what_it_is_and_what_it_offers(self) -> None:
        for name, path in modules().items():
            tree = parsed(path)
            with about(name):
                self.assertIsNotNone(ast.get_docstring(tree))
                assigned = [target.id for node in tree.body if isinstance(node, ast.Assign)
                            for target in node.targets if isinstance(target, ast.Name)]  # fmt: skip
                if path.name != "__init__.py":
                    self.assertIn("__all__", assigned)

    def test_the_house_has_few_rooms_at_the_top(self) -> None:
        entries = {path.name for path in PACKAGE.iterdir()} - {"__init__.py", "py.typed", "__pycache__"}
        self.assertLessEqual(len(entries), 14)


class TestFolderTests(TestCase):
    def test_unit_tests_build_no_daemon(self) -> None:
        """Tests of a whole daemon, site or store are in ``tests/component``."""
        banned = {f"tests.rigs.{name}" for name in ASSEMBLED}
        for path in sorted((ROOT / "tests" / "unit").rglob("*.py")):
            for module, _ in imports(path):
                with about(f"{path.name} imports {module}"):
                    self.assertNotIn(module, banned)
                    self.assertFalse(module.startswith("tests.component"))


if __name__ == "__main__":
    sys.stdout.write(picture())
