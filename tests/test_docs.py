"""What the documents say is so: their markup, links, examples, options and paths."""

from __future__ import annotations

import ast
import json
import re
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from io import StringIO
from pathlib import Path
from unittest import TestCase

import docutils.core
import docutils.utils
from docutils import nodes
from twisted.internet.testing import MemoryReactorClock

from bench.report import number
from bench.results import Results
from pushd.config.loader import default, parse
from pushd.config.options import SECTIONS
from pushd.config.settings import Config
from pushd.daemon.assembly import assemble
from pushd.transports.websocket.commands import parse_command
from pushd.wire.messages import parse_object
from tests.e2e.documents import alike, named
from tests.rigs.about import about
from tests.test_layers import parsed

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ONLY_SPHINX = {DOCS / "index.rst", DOCS / "changelog.rst", DOCS / "python.rst"}
"""What docutils alone does not understand."""
DOCUMENTS = sorted({ROOT / "README.rst", ROOT / "CHANGELOG.rst", *DOCS.rglob("*.rst")} - ONLY_SPHINX)

EXAMPLES = {"app.py", "push.py"}
"""Modules of the applications in ``docs/howto``, which tests/e2e/test_frameworks.py writes."""


@cache
def document(path: Path) -> nodes.document:
    """Read a document; whatever docutils complains of is an error."""
    settings = {"halt_level": docutils.utils.Reporter.INFO_LEVEL, "report_level": 5, "syntax_highlight": "none"}
    return docutils.core.publish_doctree(path.read_text(), str(path), settings_overrides=settings)


def blocks(path: Path, language: str) -> list[str]:
    """Return the code blocks of a document that are in `language`."""
    return [node.astext() for node in document(path).findall(nodes.literal_block) if language in node["classes"]]


class MarkupTests(TestCase):
    def test_every_document_is_valid(self) -> None:
        for path in DOCUMENTS:
            with about(path.name):
                document(path)

    def test_links_lead_to_files(self) -> None:
        for path in DOCUMENTS:
            for node in document(path).findall(nodes.reference):
                target = node.get("refuri", "")
                if target and not re.match("[a-z]+:", target):
                    with about(f"{path.name}: {target}"):
                        self.assertTrue((path.parent / target).is_file())

    def test_every_page_is_in_the_index_once(self) -> None:
        listed = re.findall(r"(?m)^   ([a-z0-9/-]+)$", (DOCS / "index.rst").read_text())
        pages = [path for kind in ("rst", "md") for path in DOCS.rglob(f"*.{kind}") if path.name != "index.rst"]
        self.assertEqual(sorted(listed), sorted(str(path.relative_to(DOCS).with_suffix("")) for path in pages))

    def test_the_readme_leads_to_files(self) -> None:
        named = re.findall(r"(?<![\w/])(?:docs|etc)/[\w/.-]+\w", (ROOT / "README.rst").read_text())
        self.assertIn("docs/index.rst", named)
        for name in named:
            self.assertTrue((ROOT / name).exists(), name)

    def test_modules_that_are_named_exist(self) -> None:
        for path in DOCUMENTS:
            for name in re.findall(r"``((?:[a-z0-9_]+/)*[a-z0-9_]+\.py)``", path.read_text()):
                with about(f"{path.name}: {name}"):
                    if path.stem in ("flask", "django") and (name in EXAMPLES or name.startswith("mysite/")):
                        continue
                    self.assertTrue((ROOT / name).is_file() or any((ROOT / "pushd").rglob(name)))

    def test_classes_and_methods_that_the_tour_names_exist(self) -> None:
        found: dict[str, set[str]] = {}
        for path in (ROOT / "pushd").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    methods = {
                        one.name for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
                    }
                    found.setdefault(node.name, set()).update(methods)
        names = re.findall(
            r"``([A-Z][A-Za-z]+)(?:\.([a-z_]+))?(?:\(\))?``", (DOCS / "architecture.rst").read_text()
        )
        self.assertGreater(len(names), 5)
        for name, method in names:
            with self.subTest(f"{name}.{method}"):
                self.assertIn(name, found)
                self.assertTrue(not method or method in found[name])


class PromiseTests(TestCase):
    """Each promise of the page on security names tests, and these exist."""

    def test_every_promise_names_its_tests(self) -> None:
        (section,) = (
            node
            for node in document(ROOT / "docs/security.rst").findall(nodes.section)
            if "the-promises" in node["ids"]
        )
        promises = list(section.findall(nodes.list_item))
        self.assertGreater(len(promises), 30)
        for promise in promises:
            with about(promise.astext()):
                self.assertTrue(any(node.astext().startswith("tests/") for node in promise.findall(nodes.literal)))

    def test_every_resource_has_a_bound_and_names_its_tests(self) -> None:
        (section,) = (
            node
            for node in document(ROOT / "docs/security.rst").findall(nodes.section)
            if "what-each-client-may-occupy" in node["ids"]
        )
        _, *rows = section.findall(nodes.row)
        self.assertGreater(len(rows), 15)
        for row in rows:
            resource, *bounds, _, test = (cell.astext() for cell in row.findall(nodes.entry))
            with about(resource):
                self.assertTrue(any(bound != "-" for bound in bounds))
                self.assertIn("tests/", test)

    def test_tests_that_are_named_exist(self) -> None:
        for path in DOCUMENTS:
            for name in re.findall(r"``(tests/[\w/]+\.py(?:::\w+)*)``", path.read_text()):
                with about(f"{path.name}: {name}"):
                    file, *names = name.split("::")
                    self.assertTrue((ROOT / file).is_file())
                    inside: ast.AST = parsed(ROOT / file)
                    for part in names:
                        inside = self.definition(inside, part)

    def definition(self, inside: ast.AST, name: str) -> ast.AST:
        """Return what has a name in a module or a class."""
        kinds = (ast.ClassDef, ast.FunctionDef)
        found = [node for node in ast.iter_child_nodes(inside) if isinstance(node, kinds) and node.name == name]
        self.assertEqual(len(found), 1, name)
        return found[0]


class InterfaceTests(TestCase):
    def test_what_the_page_on_python_documents_is_there(self) -> None:
        """Sphinx finds this as well, but only on all pages together."""
        text = (DOCS / "python.rst").read_text()
        found = re.findall(r"(?m)^\.\. autoclass:: ([\w.]+)\.(\w+)(?:\n   :members: ?(.*))?$", text)
        self.assertGreater(len(found), 10)
        for module, name, members in found:
            documented = getattr(import_module(module), name)
            for member in filter(None, members.split(", ")):
                with about(f"{name}.{member}"):
                    self.assertTrue(hasattr(documented, member) or member in documented.__annotations__)


class ExampleTests(TestCase):
    def test_python_examples_compile(self) -> None:
        for path in DOCUMENTS:
            for code in blocks(path, "python"):
                ast.parse(code)

    def test_the_bus_in_python_does_what_is_said_of_it(self) -> None:
        printed = StringIO()
        with redirect_stdout(printed):
            exec(named("python", "bus"), {})
        self.assertEqual(alike(printed.getvalue()), alike(named("python", "printed")))

    def test_ini_examples_are_accepted_as_they_stand(self) -> None:
        examples = [code for path in DOCUMENTS for code in blocks(path, "ini")]
        self.assertTrue(examples)
        for code in examples:
            self.assertIsInstance(parse(code, "README.rst"), Config)

    def test_json_examples_are_json_and_those_of_clients_are_commands(self) -> None:
        found = 0
        for path in DOCUMENTS:
            for node in document(path).findall(nodes.literal_block):
                for line in node.astext().splitlines():
                    if re.match(r'\{"', line) and "[...]" not in line:
                        found += 1
                        message = json.loads(line)
                        if message.get("type") in ("subscribe", "unsubscribe", "publish", "renew"):
                            parse_command(parse_object(line))
        self.assertGreater(found, 8)

    def test_options_that_are_named_exist(self) -> None:
        known = {f"[{section.name}] {option.name}" for section in SECTIONS for option in section.options}
        for path in DOCUMENTS:
            for name in re.findall(r"``(\[[a-z]+\]\s+[a-z_]+)", path.read_text()):
                with about(f"{path.name}: {name}"):
                    self.assertIn(re.sub(r"\s+", " ", name), known)


class FigureTests(TestCase):
    def test_what_a_connection_takes_is_what_was_measured(self) -> None:
        text = (DOCS / "howto" / "limits.rst").read_text()
        results = Results.load(DOCS / "benchmarks" / "fan-out.json")
        for title, kind in (("WebSocket", "websocket"), ("Server-Sent Events", "sse")):
            found = re.search(rf"(?m)^{title} +([0-9.]+) KB +([0-9.]+) KB$", text)
            assert found is not None, title
            for case, shown in zip((f"connect-{kind}", f"connect-{kind}-tls"), found.groups(), strict=True):
                measured = results.median(case, "pushd", "bytes")
                assert measured is not None, case
                self.assertEqual(shown, number(measured / 1024), case)


class PathTests(TestCase):
    def test_the_paths_of_the_interface_are_those_that_are_served(self) -> None:
        clock = MemoryReactorClock()
        parts = assemble(default(), clock, seconds=clock.seconds, now=clock.seconds)
        served = {f"/{segment.decode()}" for segment in parts.site.resource.listStaticNames()}
        text = (ROOT / "docs" / "http.rst").read_text()
        named = set(re.findall(r"``(?:GET|POST|DELETE) (/[a-z]+(?:\.yaml)?)", text))
        self.assertEqual(named, served)

    def test_the_readme_has_the_two_commands_that_the_makefile_has(self) -> None:
        readme, makefile = (ROOT / "README.rst").read_text(), (ROOT / "Makefile").read_text()
        for command in ("run", "test"):
            self.assertIn(f"    make {command}\n", readme)
            self.assertRegex(makefile, rf"(?m)^{command}:")
