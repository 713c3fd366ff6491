"""The directive ``formula``, and formulas of docstrings set by it: see mathml.py."""

import re

import mathml
from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class Formula(SphinxDirective):
    """Formulas; an empty line parts what is aligned."""

    has_content = True

    def run(self):
        groups = re.split(r"\n\s*\n", "\n".join(self.content))
        return [nodes.raw("", mathml.grid(group.split("\n")), format="html") for group in groups]


def mark_formulas(app, what, name, obj, options, lines):
    """The indented blocks before the parameters of a docstring are formulas."""
    head, parameters, rest = "\n".join(lines).partition("\nParameters\n----------\n")
    head = re.sub(
        r"::\n\n((?:    .*\n|\n)+)",
        lambda block: f":\n\n.. formula::\n\n{block[1]}\n",
        head + "\n",
    )
    lines[:] = (head + parameters + rest).split("\n")


def setup(app):
    app.add_directive("formula", Formula)
    app.connect("autodoc-process-docstring", mark_formulas, priority=100)  # before numpydoc
    return {"parallel_read_safe": True}
