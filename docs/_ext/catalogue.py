"""Writes a page with a plot for each loss, and the gallery of all losses, into docs/generated.

The gallery follows the sections of src/fastloss/losses.py.
"""

import inspect
import re
from pathlib import Path

from matplotlib.figure import Figure

import fastloss as fl
from fastloss import plotting
from fastloss._binding import Loss
from fastloss.evaluation.criterion_set import criterion_of

# Headings of the gallery, by section; a section that is not listed has its own name.
HEADINGS = {
    "cross_entropy": "Classes and labels",
    "nll": "Classes and labels",
    "margin": "Classes and labels",
    "pairs": "Pairs and triplets",
    "embedding": "Pairs and triplets",
    "ctc": "Sequences",
}


def sections():
    """{heading: names of losses} by the comments in losses.py that begin a section."""
    source = inspect.getsource(fl.losses)
    found, names = {}, []
    for section, name in re.findall(
        r"^# --- (?:elementwise: )?(.+?) -+$|^def (\w+)\(", source, re.M
    ):
        if section:
            heading = HEADINGS.get(section, section.capitalize())
            names = found.setdefault(heading, [])
        elif name in fl.losses.__all__ and isinstance(getattr(fl, name), Loss):
            names.append(name)
    return {heading: names for heading, names in found.items() if names}


def functions():
    """The names of the public functions that are not losses."""
    return [name for name in fl.losses.__all__ if not isinstance(getattr(fl, name), Loss)]


def summary(name):
    return getattr(fl, name).__doc__.split("\n")[0]


PAGE = """\
{title}

.. currentmodule:: fastloss

.. autofunction:: {name}

.. py:class:: {criterion}{signature}

   `{name}` with its options bound: one of the :ref:`criteria <criteria>`.
"""

CARD = """\
* .. image:: {name}-small.svg
     :target: {name}.html
     :alt: plot of {name}

  `{name}`

  {summary}
"""

GALLERY = """\
==============================
Plots, formulas and parameters
==============================

.. currentmodule:: fastloss

Each plot shows a loss as a function of its input, for a few targets or options. The page of a loss
has its formula, options and errors, and a plot with its derivative.

{sections}
{functions}
.. toctree::
   :hidden:

{entries}
"""

FUNCTION_PAGE = """\
{title}

.. currentmodule:: fastloss

.. autofunction:: {name}
"""


def page(name):
    loss = getattr(fl, name)
    criterion = criterion_of(loss)
    return PAGE.format(
        title=heading(name, "="),
        name=name,
        criterion=criterion.__name__,
        signature=criterion.__signature__,
    )


def heading(text, line):
    return f"{line * len(text)}\n{text}\n{line * len(text)}"


def gallery(groups):
    blocks = []
    for title, names in groups.items():
        cards = [CARD.format(name=name, summary=summary(name)) for name in names]
        blocks += [f"{title}\n{'-' * len(title)}\n\n.. rst-class:: gallery\n", *cards]
    entries = [name for names in groups.values() for name in names] + functions()
    return GALLERY.format(
        sections="\n".join(blocks),
        functions="".join(f"`{name}`: {summary(name)}\n\n" for name in functions()),
        entries="\n".join(f"   {name}" for name in entries),
    )


def small(figure):
    """The curves of the loss, small and without axes."""
    drawn = Figure(figsize=(2.2, 1.3), layout="constrained")
    axes = drawn.subplots()
    for line in figure.axes[0].lines:
        axes.plot(*line.get_data(), color=line.get_color(), linestyle=line.get_linestyle())
    axes.set_axis_off()
    return drawn


def write(path, text):
    """Writes a file if it changes, so that Sphinx does not read it again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def generate(app):
    groups = sections()
    folder = Path(app.srcdir) / "generated"
    folder.mkdir(exist_ok=True)
    write(folder / "index.rst", gallery(groups))
    for name in functions():
        write(folder / f"{name}.rst", FUNCTION_PAGE.format(title=heading(name, "="), name=name))
    for name in sorted(name for names in groups.values() for name in names):
        write(folder / f"{name}.rst", page(name))
        figure = plotting.plot(name)
        for ending, drawn in ("", figure), ("-small", small(figure)):
            drawn.savefig(folder / f"{name}{ending}.svg", transparent=True)


def illustrate(app, what, name, obj, options, lines):
    """Moves the examples of a loss before its parameters, after a plot."""
    short = name.rpartition(".")[2]
    if not isinstance(obj, Loss) or "Examples" not in lines:
        return
    start = lines.index("Examples")
    lines[start:], examples = [], lines[start + 2 :]
    image = [f".. image:: /generated/{short}.svg", f"   :alt: {short} and its derivative", ""]
    i = lines.index("Parameters")
    lines[i:i] = [*image, *examples, ""]


def setup(app):
    app.connect("builder-inited", generate)
    app.connect("autodoc-process-docstring", illustrate, priority=200)  # before numpydoc
    return {"parallel_read_safe": True}
