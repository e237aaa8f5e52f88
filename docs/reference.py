"""Generate the page of all endpoints, docs/endpoints.rst, from docs/openapi.yaml.

Usage: python docs/reference.py > docs/endpoints.rst
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from textwrap import fill, indent
from typing import Any

import yaml

__all__ = ["page"]

_WIDTH = 116
_TITLE = """\
.. This file is made of openapi.yaml by reference.py (make reference): change that one.

Endpoints
=========

Every path with its parameters and answers, as `openapi.yaml <openapi.yaml>`_ has it for programs; tests hold pushd
to it. `http.rst <http.rst>`_ says the same in words, with examples.

Where ``GET`` is, ``HEAD`` is too. ``OPTIONS`` is answered with ``Allow``, and does what CORS wants of it. Any other
method is answered 405. Parameters of the query that are not named here are refused.
"""
_REFUSED = "Every request may be refused with one of these; the body is a problem document (RFC 9457):"


def page(description: dict[str, Any]) -> str:
    """Return the page of an OpenAPI description."""
    operations = [
        (tag, method.upper(), path, item.get("parameters", []), said)
        for path, item in description["paths"].items()
        for method, said in item.items()
        if method != "parameters"
        for tag in said["tags"]
    ]
    seen = Counter(code for *_, said in operations for code in said["responses"])
    common = {code for code, count in seen.items() if int(code) >= 400 and count >= len(operations) - 3}
    parts = [_TITLE, f"{_REFUSED}\n", _responses(description, operations, common)]
    for tag in description["tags"]:
        parts.append(_headed(tag["name"].capitalize(), "-") + _text(tag.get("description", "")))
        for name, method, path, shared, said in operations:
            if name == tag["name"]:
                parts.append(_operation(description, f"{method} {path}", shared, said, common))
    parts.append(_headed("Objects", "-") + "\nWhat the JSON is made of.\n")
    parts += [
        _object(description, name, schema)
        for name, schema in description["components"]["schemas"].items()
        if "properties" in schema
    ]
    return "\n".join(part for part in parts if part)


def _object(description: dict[str, Any], name: str, schema: dict[str, Any]) -> str:
    members = []
    for member, reference in schema["properties"].items():
        about = _resolved(description, reference)
        refers = reference.get("$ref", "").rpartition("/")[2] if "properties" in about else ""
        kind = refers or about.get("type", "any")
        kind = " or ".join(kind) if isinstance(kind, list) else kind
        optional = "" if member in schema.get("required", ()) else ", optional"
        text = "" if refers else _said(about)
        members.append(_item(f"``{member}`` ({kind}{optional})" + (f": {text}" if text else "")))
    examples = [
        f".. code-block:: json\n\n    {json.dumps(example, ensure_ascii=False)}\n"
        for example in schema.get("examples", ())
    ]
    parts = [_headed(name, "~"), _text(schema.get("description", "")), "".join(members), *examples]
    return "\n".join(part for part in parts if part)


def _item(text: str) -> str:
    return "- " + indent(_text(text), "  ").removeprefix("  ")


def _said(about: dict[str, Any]) -> str:
    """Return the description of a value, or else a sentence from its schema."""
    schema = about.get("schema", about)
    items = schema.get("items", {}).get("$ref", "").rpartition("/")[2]
    if "description" in about:
        return str(about["description"])
    if "const" in schema:
        return f"It is ``{schema['const']}``."
    if "enum" in schema:
        return f"One of {', '.join(f'``{value}``' for value in schema['enum'])}."
    if items:
        return f"Each is one of ``{items}``."
    return "Base64." if schema.get("contentEncoding") == "base64" else ""


def _headed(title: str, line: str) -> str:
    return f"{title}\n{line * len(title)}\n"


def _operation(
    description: dict[str, Any], title: str, shared: list[Any], said: dict[str, Any], common: set[str]
) -> str:
    parts = [_headed(title, "~"), _text(said["summary"]), _text(said.get("description", ""))]
    entries = []
    for reference in [*shared, *said.get("parameters", [])]:
        parameter = _resolved(description, reference)
        where = "" if parameter.get("required") else ", optional"
        entries.append(
            _entry(f"``{parameter['name']}`` ({parameter['in']}{where})", parameter.get("description", ""))
        )
    body = said.get("requestBody", {})
    if body:
        kinds = " or ".join(f"``{kind}``" for kind in body["content"] if kind != "*/*") or "of any type"
        entries.append(_entry(f"the body ({kinds})", body.get("description", "")))
    for code, reference in said["responses"].items():
        if code not in common:
            entries.append(_answer(description, code, reference))
    return "\n".join(part for part in [*parts, "".join(entries)] if part)


def _responses(description: dict[str, Any], operations: list[Any], codes: set[str]) -> str:
    found = {
        code: said["responses"][code] for *_, said in operations for code in codes if code in said["responses"]
    }
    return "".join(_answer(description, code, found[code]) for code in sorted(found))


def _answer(description: dict[str, Any], code: str, reference: dict[str, Any]) -> str:
    response = _resolved(description, reference)
    kinds = []
    for kind, about in response.get("content", {}).items():
        of = about.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if kind != "application/problem+json":
            kinds.append(f"``{kind}``" + (f", a ``{of}``" if of else ""))
    term = f"{code} ({' or '.join(kinds)})" if kinds else code
    headers = [f"``{name}``" for name in response.get("headers", {}) if name != "X-Request-ID"]
    return _entry(term, response["description"], f"It has {', '.join(headers)}." if headers else "")


def _entry(term: str, *texts: str) -> str:
    return _item(f"{term}: {' '.join(filter(None, texts))}".removesuffix(": "))


def _text(text: str) -> str:
    """Return prose as filled paragraphs; paths and sections are marked as code."""
    paragraphs = [
        fill(
            re.sub(r"(?<![`\w])(/[a-z]\S*?|\[\w+\]( \w+)?)(?=[,.;:)]?(\s|$))", r"``\1``", " ".join(one.split())),
            _WIDTH - 4,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for one in text.strip().split("\n\n")
        if one.strip()
    ]
    return "".join(f"{one}\n" for one in "\n\n".join(paragraphs).splitlines()) if paragraphs else ""


def _resolved(description: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in part:
        place: Any = description
        for name in part["$ref"].removeprefix("#/").split("/"):
            place = place[name]
        part = place
    return part


if __name__ == "__main__":
    sys.stdout.write(page(yaml.safe_load(Path(__file__).with_name("openapi.yaml").read_text("utf-8"))))
