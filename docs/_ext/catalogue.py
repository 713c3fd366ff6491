"""Writes a page for each loss, with its picture, and the gallery of all, into docs/generated."""

from pathlib import Path

from matplotlib.figure import Figure
from sphinx.errors import ExtensionError

import fastloss as fl
from fastloss import plotting
from fastloss.evaluation.criterion_set import criterion_of

KINDS = {
    "Predictions and true values": [
        "l1_loss",
        "mse_loss",
        "smooth_l1_loss",
        "huber_loss",
        "log_cosh_loss",
        "pinball_loss",
        "poisson_nll_loss",
        "gaussian_nll_loss",
        "gamma_nll_loss",
        "tweedie_deviance_loss",
        "kl_div",
    ],
    "Two classes": [
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
        "sigmoid_focal_loss",
        "soft_margin_loss",
    ],
    "Classes and labels": [
        "cross_entropy",
        "nll_loss",
        "multi_margin_loss",
        "multilabel_margin_loss",
        "multilabel_soft_margin_loss",
    ],
    "Pairs and triplets": [
        "hinge_embedding_loss",
        "margin_ranking_loss",
        "cosine_embedding_loss",
        "triplet_margin_loss",
    ],
    "Sequences": ["ctc_loss", "ctc_loss_with_logits"],
}

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
     :alt:

  `{name}`

  {summary}
"""

GALLERY = """\
======
Losses
======

.. currentmodule:: fastloss

Each loss as its input moves, for a few targets or options. A page has its formula, options and
errors, and the picture with its derivative.

{sections}
Besides, `ctc_posteriors` gives the probability of each class in each frame of a sequence.

.. toctree::
   :hidden:

{entries}
"""

POSTERIORS = """\
==============
ctc_posteriors
==============

.. currentmodule:: fastloss

.. autofunction:: ctc_posteriors
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


def gallery():
    sections = []
    for kind, names in KINDS.items():
        cards = [CARD.format(name=n, summary=getattr(fl, n).__doc__.split("\n")[0]) for n in names]
        sections += [f"{kind}\n{'-' * len(kind)}\n\n.. rst-class:: gallery\n", *cards]
    entries = [name for names in KINDS.values() for name in names] + ["ctc_posteriors"]
    return GALLERY.format(
        sections="\n".join(sections), entries="\n".join(f"   {name}" for name in entries)
    )


def small(figure):
    """The curves of the loss without axes."""
    drawn = Figure(figsize=(2.2, 1.3), layout="constrained")
    axes = drawn.subplots()
    for line in figure.axes[0].lines:
        axes.plot(*line.get_data(), color=line.get_color(), linestyle=line.get_linestyle())
    axes.set_axis_off()
    return drawn


def write(path, text):
    """Only what has changed, so that Sphinx reads nothing twice."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def generate(app):
    names = {name for names in KINDS.values() for name in names}
    if names != set(plotting.VIEWS):
        wrong = ", ".join(sorted(names ^ set(plotting.VIEWS)))
        raise ExtensionError(f"docs/_ext/catalogue.py: KINDS and the losses differ in {wrong}")
    folder = Path(app.srcdir) / "generated"
    folder.mkdir(exist_ok=True)
    write(folder / "index.rst", gallery())
    write(folder / "ctc_posteriors.rst", POSTERIORS)
    for name in sorted(names):
        write(folder / f"{name}.rst", page(name))
        figure = plotting.plot(name)
        for ending, drawn in ("", figure), ("-small", small(figure)):
            drawn.savefig(folder / f"{name}{ending}.svg", transparent=True)


def illustrate(app, what, name, obj, options, lines):
    """Picture and examples of a loss go before its parameters."""
    short = name.rpartition(".")[2]
    if short not in plotting.VIEWS or "Examples" not in lines:
        return
    start = lines.index("Examples")
    lines[start:], examples = [], lines[start + 2 :]
    picture = [f".. image:: /generated/{short}.svg", f"   :alt: {short} and its derivative", ""]
    i = lines.index("Parameters")
    lines[i:i] = [*picture, *examples, ""]


def setup(app):
    app.connect("builder-inited", generate)
    app.connect("autodoc-process-docstring", illustrate, priority=200)  # before numpydoc
    return {"parallel_read_safe": True}
