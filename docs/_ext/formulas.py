"""The directive ``formula``, which is also applied to the formulas of docstrings: see mathml.py."""

import re

import mathml
from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class Formula(SphinxDirective):
    """Formulas. Lines are aligned; an empty line starts a new alignment."""

    has_content = True

    def run(self):
        blocks = re.split(r"\n\s*\n", "\n".join(self.content))
        return [nodes.raw("", mathml.grid(block.split("\n")), format="html") for block in blocks]


def mark_formulas(app, what, name, obj, options, lines):
    """Apply the directive to the indented blocks before the parameters of a docstring."""
    summary, heading, sections = "\n".join(lines).partition("\nParameters\n----------\n")
    summary = re.sub(
        r"::\n\n((?:    .*\n|\n)+)",
        lambda block: f":\n\n.. formula::\n\n{block[1]}\n",
        summary + "\n",
    )
    lines[:] = (summary + heading + sections).split("\n")


def setup(app):
    app.add_directive("formula", Formula)
    app.connect("autodoc-process-docstring", mark_formulas, priority=100)  # before numpydoc
    return {"parallel_read_safe": True}
