"""Sphinx configuration of these pages. ``make docs`` builds them; a warning is an error."""

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
nitpick_ignore_regex = [("py:.*", ".*")]  # external and private types have no page
highlight_language = "none"
smartquotes = False  # quoted text is to be typed as it is

autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"pushd {release}"
html_copy_source = False
html_show_sphinx = False
html_favicon = "../pushd/api/demo/static/favicon.svg"

# ``make bench`` writes the report of measurements.
myst_heading_anchors = 3


def link_documents(app: Sphinx, document: nodes.document) -> None:
    """Resolve links to files of the repository as pages and downloads.

    Sphinx warns about links without a target.
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
    """Register `link_documents`."""
    app.connect("doctree-read", link_documents, priority=100)  # before downloads are collected
