"""How Sphinx makes pages of these documents. ``make docs`` does, and every warning is an error."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from docutils import nodes
from sphinx.addnodes import download_reference, pending_xref
from sphinx.application import Sphinx

import pushd

project = "pushd"
project_copyright = "the authors of pushd"
release = version = pushd.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
exclude_patterns = ["examples"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # the types of others, and those that are private, have no page
highlight_language = "none"
smartquotes = False  # what is quoted here is to be typed

autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"pushd {release}"
html_copy_source = False
html_show_sphinx = False
html_favicon = "../pushd/api/demo/static/favicon.svg"

# The measured report is made by ``make bench``.
myst_heading_anchors = 3


def link_documents(app: Sphinx, document: nodes.document) -> None:
    """Have links to files, as they are written for readers of the repository, lead to pages and downloads.

    Sphinx warns of those that lead nowhere.
    """
    for reference in list(document.findall(nodes.reference)):
        target = reference.get("refuri", "")
        if not target or re.match("[a-z]+:|#", target):
            continue
        path, _, _ = target.partition("#")
        text = nodes.inline("", "", *reference.children)
        if path.endswith((".rst", ".md")):
            options = {"refdomain": "std", "reftype": "doc", "reftarget": str(PurePosixPath(path).with_suffix(""))}
            link = pending_xref("", text, refdoc=app.env.docname, refexplicit=True, **options)
        else:
            link = download_reference("", "", text, reftarget=path, refdoc=app.env.docname)
        link.source, link.line = reference.source, reference.line
        reference.replace_self(link)


def setup(app: Sphinx) -> None:
    """Add what this needs."""
    app.connect("doctree-read", link_documents, priority=100)  # before downloads are collected
