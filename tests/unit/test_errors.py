"""The table of problem codes: all that pushd sends, with their statuses, as documented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from pushd import errors
from pushd.errors import CODES, Refused, TooMany, Unauthorized

ROOT = Path(errors.__file__).parent
DOCS = ROOT.parent / "docs"


def classes(of: type[Refused] = Refused) -> Iterator[type[Refused]]:
    """Yield all kinds of refusals."""
    yield of
    for one in of.__subclasses__():
        yield from classes(one)


def calls() -> Iterator[tuple[str, str]]:
    """Yield the name of what is called with a code, and the code, for all of pushd."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", "")
                for keyword in node.keywords:
                    if keyword.arg == "code" and isinstance(keyword.value, ast.Constant) and name in vars(errors):
                        yield name, str(keyword.value.value)


class CodeTests(SynchronousTestCase):
    def test_each_kind_of_refusal_has_a_code_of_its_status(self) -> None:
        for kind in classes():
            self.assertEqual(CODES[kind.code][0], kind.status, kind)

    def test_each_code_that_is_given_has_the_status_of_the_refusal(self) -> None:
        found = set(calls())
        self.assertGreater(len(found), 5)
        for name, code in found:
            self.assertEqual(CODES[code][0], vars(errors)[name].status, (name, code))

    def test_a_problem_document_has_the_code(self) -> None:
        self.assertEqual(TooMany("no").problem()["code"], "too_many")
        self.assertEqual(TooMany("no", code="rate_limited").problem()["code"], "rate_limited")
        self.assertEqual(Unauthorized("no").code, "unauthorized")
        self.assertEqual(Unauthorized("no", is_token_wrong=True).code, "token_invalid")
        self.assertEqual(Unauthorized("no", is_token_wrong=True, code="token_expired").code, "token_expired")

    def test_no_code_is_left_over(self) -> None:
        used = {kind.code for kind in classes()} | {code for _, code in calls()}
        others = {"internal_error", "token_invalid", "token_expired", "rate_limited", "shutting_down"}
        self.assertEqual(set(CODES) - used - others, set())

    def test_the_documents_have_the_same_table(self) -> None:
        text = (DOCS / "http.rst").read_text("utf-8")
        rows = re.findall(r"^   \* - ``(\w+)``\n     - (\d{3})\n     - (.+)$", text, re.M)
        self.assertEqual({code: (int(status), meaning) for code, status, meaning in rows}, CODES)
        document: Any = yaml.safe_load((DOCS / "openapi.yaml").read_text("utf-8"))
        self.assertEqual(document["components"]["schemas"]["Refusal"]["properties"]["code"]["enum"], list(CODES))
