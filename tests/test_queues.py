"""The oldest entry of a queue is found in constant time.

A dict keeps the slots of deleted entries until it is resized, and ``next(iter(...))`` skips them one by one. Taking
the oldest entries of a large dict one by one costs the square of their number: the cache of blocks once held up the
reactor for 800 ms. An ``OrderedDict`` has no such slots.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from unittest import TestCase

PACKAGE = Path(__file__).parents[1] / "pushd"

EXCEPT = {
    "bus/replay.py": {"_held", "held"},  # the OrderedDict of `HeldBack`
    "bus/token_buckets.py": {"full_at"},  # the OrderedDict `_full_at`
    "bus/subscription.py": {"_patterns"},  # looked at once for each change
    "server/http2/body_windows.py": {"_held"},  # the streams of one connection
    "server/http2/scheduler.py": {"level"},  # the streams of one connection
    "auth/webhooks/notification_queue.py": {"_of_owner", "_by_count"},  # dicts of OrderedDicts
}
"""By module: other names of an OrderedDict, and dicts that are small or not emptied from the front."""


def name_of(node: ast.expr) -> str | None:
    """Return the variable or attribute whose first entry is taken."""
    while isinstance(node, ast.Call | ast.Subscript):
        if isinstance(node, ast.Subscript):
            node = node.value
        elif isinstance(node.func, ast.Attribute) and node.func.attr in {"items", "values", "keys"}:
            node = node.func.value
        else:
            return None
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None


def first_entries(tree: ast.AST) -> Iterator[str]:
    """Return the name of every container of which a module takes ``next(iter(...))``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "next" and node.args:
            inner = node.args[0]
            if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "iter":
                yield name_of(inner.args[0]) or ast.unparse(inner)


def ordered(tree: ast.AST) -> set[str | None]:
    """Return the names that a module annotates as an ``OrderedDict``."""
    return {
        name_of(node.target)
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).startswith("OrderedDict[")
    }


class QueueTests(TestCase):
    """Every ``next(iter(...))`` of pushd."""

    def test_the_first_entry_is_taken_of_ordered_dicts_only(self) -> None:
        found = 0
        for path in PACKAGE.rglob("*.py"):
            module, tree = str(path.relative_to(PACKAGE)), ast.parse(path.read_text())
            for name in first_entries(tree):
                found += 1
                with self.subTest(f"{module} {name}"):
                    self.assertIn(name, ordered(tree) | EXCEPT.get(module, set()))
        self.assertGreater(found, 10)
