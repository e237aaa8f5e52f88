"""``.ci/lowest``: pip constraints with the lowest version that ``setup.cfg`` allows of each dependency."""

from __future__ import annotations

import subprocess
import sys
from configparser import ConfigParser
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

from packaging.requirements import Requirement
from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci" / "lowest"


def script() -> ModuleType:
    """Load the script as a module."""
    loader = SourceFileLoader("lowest", str(SCRIPT))
    spec = spec_from_loader("lowest", loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


class LowestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lowest = script().lowest

    def test_a_requirement_is_pinned_to_its_lower_bound(self) -> None:
        for requirement, constraint in (
            ("h2>=4.3,<5", "h2==4.3"),
            ("h2 >= 4.3", "h2==4.3"),
            ("Twisted[tls,http2]>=24.3.0", "Twisted==24.3.0"),
            ("zope.interface>=6", "zope.interface==6"),
        ):
            self.assertEqual(self.lowest(requirement), constraint)

    def test_a_requirement_without_a_lower_bound_is_an_error_that_names_it(self) -> None:
        for requirement in ("h2", "h2<5", "h2==4.3", "h2!=4.2", "", ">=4.3", "h2>=latest"):
            error = self.assertRaises(ValueError, self.lowest, requirement)
            self.assertIn(repr(requirement), str(error))

    def test_every_dependency_has_one_constraint_that_its_requirement_allows(self) -> None:
        command = [sys.executable, "-B", str(SCRIPT)]
        printed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, cwd="/").stdout
        config = ConfigParser()
        config.read_string((ROOT / "setup.cfg").read_text())
        wanted = config["options"]["install_requires"].split("\n")
        requirements = {it.name: it for it in map(Requirement, filter(None, wanted))}
        constraints = [Requirement(line) for line in printed.splitlines()]
        self.assertEqual([it.name for it in constraints], list(requirements))
        self.assertGreater(len(constraints), 5)
        for constraint in constraints:
            (pinned,) = constraint.specifier
            self.assertEqual(pinned.operator, "==")
            self.assertTrue(requirements[constraint.name].specifier.contains(pinned.version), constraint)
