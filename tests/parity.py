"""`python -m tests.parity`: value and gradients of every loss that torch has, against torch.

A case is a loss with options, arrays and a reduction. The reference is torch in float64 on the same
numbers, to within the documented accuracy plus the rounding errors of float64. Intended differences
are declared: a `Limit` corrects the losses and gradients of torch, and fastloss must return the
corrected ones; a `Refusal` names the error that fastloss must raise for a call that torch accepts;
an `Acceptance` describes calls that only fastloss accepts. Any other difference is printed and
fails, and so does a declared difference that no case of its loss shows.
"""

import argparse
import itertools
import math
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

import fastloss as fl
from tests import cases as table
from tests.domains import (
    ANY,
    LABEL_ROWS,
    NONNEGATIVE,
    SIGN,
    Domain,
    log_softmax,
    operands_of,
)
from tests.random_calls import FLOATS, HALVES, INTEGERS

try:
    import ml_dtypes
except ImportError:
    ml_dtypes = None

F32, F64 = FLOATS
INF, NAN = math.inf, math.nan
EPS = 2.0**-52
CLASSES = 5


# ---- Cases ---------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A call, and the declared difference that it must show, if any."""

    loss: str
    description: str  # dtypes, shape, content
    arrays: tuple
    options: dict
    refusal: str | None = None
    acceptance: str | None = None

    @property
    def unit(self):
        """The part of the operands that has one loss: an "element", a "row" or a "sequence"."""
        return TEMPLATES[self.loss].unit

    def __str__(self):
        options = ", ".join(f"{k}={_short(v)}" for k, v in self.options.items())
        arrays = ", ".join(map(_short, self.arrays))
        return f"{self.loss}: {self.description}: ({arrays}; {options})"


def _short(value):
    if isinstance(value, np.ndarray) and value.size <= 60:
        return f"array({value.tolist()}, {value.dtype})"
    if isinstance(value, np.ndarray):
        return f"<{value.dtype} {value.shape}>"
    return repr(value)


# A case of `tests.cases` for each loss of torch.
TEMPLATES = {}
for case in table.CASES:
    if hasattr(torch.nn.functional, case.loss):
        TEMPLATES.setdefault(case.loss, case)

# Values of operands: (random generator, shape, domain).


def typical(rng, shape, domain=ANY):
    return domain.typical(rng, shape)


def ties(rng, shape, domain=ANY):
    """Few values, so that differences, margins and maxima tie."""
    values = SIGNS if domain is SIGN else np.arange(-3, 4) / 2
    return rng.choice(values[(values >= domain.low) & (values <= domain.high)], shape)


def extremes(rng, shape, domain=ANY):
    values = SIGNS if domain is SIGN else EXTREMES
    values = values[~((values < domain.low) | (values > domain.high))]
    if domain.high == 1:
        values = values[~np.isnan(values)]  # torch raises an error
    return rng.choice(values, shape)


SIGNS = np.array([-1.0, 1.0])
EXTREMES = [0.0, -0.0, INF, -INF, NAN, 1.0, 0.5, -1.0, 30.0, -30.0, 100.0, -100.0, 1e-30]
EXTREMES = np.array([*EXTREMES, 800.0, -800.0, 1e4, -1e4])
CONTENTS = {"typical": typical, "ties": ties, "extremes": extremes}

# Options that `tests.cases` does not have.
OPTIONS = {
    "smooth_l1_loss": ({"beta": 0.5}, {"beta": 1000.0}),
    "huber_loss": ({"delta": 0.5},),
    "gaussian_nll_loss": ({"full": True}, {"eps": 0.1}),
    "hinge_embedding_loss": ({"margin": -0.5},),
    "nll_loss": ({"weight": ANY, "ignore_index": 1},),
    "cross_entropy": ({"weight": ANY, "label_smoothing": 0.1, "ignore_index": 1},),
    "cosine_embedding_loss": ({"margin": -0.5},),
    "triplet_margin_loss": ({"margin": 2.0}, {"p": 1}, {"p": 3.0, "swap": True}, {"eps": 0.1}),
}


def variants(loss, probabilities=False):
    """The options that a loss is run with; a `Domain` stands for an array of weights.

    Norms of fractional p are left to the references: the powers are rounded, and with them ties of
    distances.
    """
    chosen = [
        case.options
        for case in table.CASES
        if case.loss == loss
        and case.has_probabilities == probabilities
        and case.options.get("p", 2) in (1, 2, 3, INF)
    ]
    more = () if probabilities else OPTIONS.get(loss, ())
    return [*chosen, *(options for options in more if options not in chosen)]


SHAPES = {
    "0-d": (),
    "1-D": (9,),
    "(N, C)": (4, 5),
    "(N, C, d)": (3, 4, 2),
    "4-D": (2, 3, 2, 2),
    "empty": (0,),
    "empty batch": (0, 3),
    "one row": (1, 6),
}
DTYPES = [(F32,), (F64,), *((half,) for half in HALVES), (F32, F64), (F64, F32)]


def reductions(loss):
    return ["none", "mean", "sum"] + ["batchmean"] * (loss == "kl_div")


def name_of(dtypes):
    return "/".join(dtype.name for dtype in dtypes)


def typed(arrays, dtypes):
    """The arrays in these dtypes, cyclically; integer arrays are left as they are."""
    with np.errstate(all="ignore"):
        return tuple(
            a if a.dtype.kind in "iu" else a.astype(dtypes[k % len(dtypes)])
            for k, a in enumerate(arrays)
        )


def not_contiguous(arrays):
    """The same numbers in every second entry, in reverse, and in Fortran order, in turn."""
    layouts = itertools.cycle(
        [
            lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
            lambda a: np.ascontiguousarray(a[::-1])[::-1],
            np.asfortranarray,
        ]
    )
    return tuple(next(layouts)(a) if a.ndim else a for a in arrays)


def domains_of(loss, options):
    """The domain of each operand; narrower where torch in float64 is no reference."""
    called = getattr(fl, loss)
    domains = operands_of(called, called.formula_of(**options))
    if loss == "poisson_nll_loss":  # no infinite rates and counts
        return [d._replace(high=1e5) if d is NONNEGATIVE else d for d in domains]
    if loss == "kl_div":  # no infinite probabilities
        return [domains[0], domains[1]._replace(high=30 if options.get("log_target") else 1e5)]
    return domains


def elementwise_cases(loss, rng):
    kinds = [
        (content, dtypes, shape)
        for content in CONTENTS
        for dtypes in DTYPES
        for shape in SHAPES
        if content == "typical" or (len(dtypes) == 1 and shape in ("1-D", "(N, C)"))
    ]
    kinds += [("non-contiguous", dtypes, "(N, C, d)") for dtypes in DTYPES]
    for options in variants(loss):
        domains = domains_of(loss, options)
        for content, dtypes, name in kinds:
            shape = SHAPES[name] if content == "typical" or name != "1-D" else (40,)
            draw = CONTENTS.get(content, typical)
            arrays = typed([draw(rng, shape, domain) for domain in domains], dtypes)
            if content == "non-contiguous":
                arrays = not_contiguous(arrays)
            keywords = with_weights(options, rng, shape, dtypes[0])
            yield Case(loss, f"{name_of(dtypes)} {name} {content}", arrays, keywords)


def with_weights(options, rng, shape, dtype):
    """The options with arrays of weights."""
    return {
        k: rng.choice([0.5, 1.0, 2.25], shape).astype(dtype) if isinstance(v, Domain) else v
        for k, v in options.items()
    }


def shared_cases(rng):
    """Variances and weights that several elements share."""
    for shape in ((4, 3), (4,), (4, 1), (1, 3)):
        arrays = (*rng.normal(size=(2, 4, 3)), rng.uniform(0.5, 2, shape))
        for dtype, options in itertools.product(FLOATS, ({}, {"full": True})):
            yield Case(
                "gaussian_nll_loss",
                f"{dtype} shared variance {shape}",
                typed(arrays, [dtype]),
                options,
            )
    loss = "binary_cross_entropy_with_logits"
    for shape in ((3,), (1, 3), (2, 1), (1, 1), ()):
        for name, dtype in itertools.product(("weight", "pos_weight"), FLOATS):
            arrays = typed((rng.normal(size=(2, 3)), rng.uniform(size=(2, 3))), [dtype])
            options = {name: rng.uniform(0.5, 2, shape).astype(dtype)}
            yield Case(loss, f"{dtype} {name} {shape}", arrays, options)


def removed_cases(rng):
    """Weights of 0, at entries of any value."""
    for loss in ("l1_loss", "mse_loss", "huber_loss", "binary_cross_entropy_with_logits"):
        x, y = extremes(rng, 40), typical(rng, 40, domains_of(loss, {})[1])
        weight = np.where(np.isfinite(x), rng.choice([0.0, 1.0], 40), 0.0)
        yield Case(loss, "float64 1-D weights of 0", (x, y), {"weight": weight})


def infinite_cases(rng):
    """inf - inf, which the extremes seldom contain."""
    x = np.array([INF, -INF, 1.0])
    for loss in ("l1_loss", "smooth_l1_loss"):
        beta = {"beta": 0.0} if loss == "smooth_l1_loss" else {}
        yield Case(loss, "float64 1-D inf - inf", (x, x), beta)


# -- losses with a class index

CLASS_SHAPES = {
    "unbatched": ((CLASSES,), ()),
    "(N, C)": ((6, CLASSES), (6,)),
    "(N, C, d)": ((3, CLASSES, 4), (3, 4)),
    "(N, C, d1, d2)": ((2, CLASSES, 3, 2), (2, 3, 2)),
    "empty batch": ((0, CLASSES), (0,)),
    "one class": ((4, 1), (4,)),
    "many classes": ((3, 1200), (3,)),
}


def class_cases(loss, rng):
    second_axis = getattr(fl, loss).row_axis == 1
    for options, (name, (rows, units)), dtype in itertools.product(
        variants(loss), CLASS_SHAPES.items(), FLOATS + HALVES
    ):
        if not second_axis and len(rows) > 2:
            continue
        axis = min(1, len(rows) - 1)
        for content in ("typical", "ties", "extremes", "ignored", "all ignored", "non-contiguous"):
            if content != "typical" and name not in ("(N, C)", "(N, C, d)", "unbatched"):
                continue
            if "ignored" in content and not second_axis:
                continue
            x = CONTENTS.get(content, typical)(rng, rows)
            if loss == "nll_loss" and content != "extremes":
                x = log_softmax(x, axis)
            y = rng.integers(0, rows[axis], units)
            if "ignored" in content:
                ignored = options.get("ignore_index", -100)
                is_ignored = rng.random(units) < (0.4 if content == "ignored" else 2)
                y = np.where(is_ignored, ignored, y)
                is_ignored = np.expand_dims(y == ignored, axis)
                x = np.where(is_ignored & (rng.random(rows) < 0.5), NAN, x)
            arrays = typed((x, y), [dtype])
            arrays = not_contiguous(arrays) if content == "non-contiguous" else arrays
            keywords = with_weights(options, rng, rows[axis], dtype)
            yield Case(loss, f"{dtype} {name} {content}", arrays, keywords)


def integer_cases(loss, rng):
    """Class indices of all integer dtypes."""
    x = log_softmax(typical(rng, (6, CLASSES)), 1)
    accepted = ("int64",) if loss == "multi_margin_loss" else ("int64", "uint8")
    for dtype in INTEGERS:
        y = rng.integers(0, CLASSES, 6).astype(dtype)
        acceptance = None if dtype.name in accepted else "integer widths"
        yield Case(loss, f"targets of {dtype}", (x, y), {}, acceptance=acceptance)


def zero_weight_cases(loss, rng):
    """Weights of 0 for some classes, and for all."""
    for which, weight in (("some", [0, 1, 0, 2, 0.5]), ("all", [0.0] * CLASSES)):
        for content in ("typical", "-inf"):
            x = log_softmax(typical(rng, (8, CLASSES)), 1)
            if content == "-inf":
                x[:, 0] = -INF
            y = np.arange(8) % CLASSES
            yield Case(loss, f"{which} weights 0, {content}", (x, y), {"weight": np.array(weight)})


def probability_cases(rng):
    """Cross entropy with class probabilities."""
    loss = "cross_entropy"
    more = [{"label_smoothing": 1.0}]
    for options, (name, (rows, _)), dtypes in itertools.product(
        variants(loss, probabilities=True) + more, CLASS_SHAPES.items(), DTYPES
    ):
        axis = min(1, len(rows) - 1)
        for content in ("typical", "ties", "extremes", "non-contiguous"):
            if content != "typical" and (name != "(N, C)" or len(dtypes) > 1):
                continue
            x = CONTENTS.get(content, typical)(rng, rows)
            y = rng.dirichlet(np.ones(rows[axis]), rows)[..., 0]
            if content == "extremes":
                y = np.where(rng.random(rows) < 0.5, 0, y)
            arrays = typed((x, y), dtypes)
            arrays = not_contiguous(arrays) if content == "non-contiguous" else arrays
            keywords = with_weights(options, rng, rows[axis], dtypes[0])
            description = f"{name_of(dtypes)} {name} probabilities {content}"
            yield Case(loss, description, arrays, keywords)


# -- other losses of rows


def label_rows(rng, shape):
    """Rows of distinct classes, ended by a -1."""
    y = np.argsort(rng.random(shape), axis=-1)
    ends = rng.integers(0, shape[-1] + 1, shape[:-1])[..., np.newaxis]
    return np.where(np.arange(shape[-1]) == ends, -1, y)


ROW_SHAPES = {
    "unbatched": (6,),
    "(N, C)": (5, 6),
    "(N, d, C)": (2, 3, 4),
    "empty batch": (0, 4),
    "one feature": (4, 1),
    "long rows": (2, 1200),
}


def row_operand(rng, shape, domain, draw):
    """An operand of a loss of rows; targets are typical."""
    if domain is LABEL_ROWS:
        return label_rows(rng, shape)
    if domain.extent == "unit":
        return typical(rng, shape[:-1], domain)
    return (typical if domain.high == 1 else draw)(rng, shape, domain)


def row_cases(loss, rng):
    domains = TEMPLATES[loss].operands
    two_axes = LABEL_ROWS in domains or SIGN in domains  # at most, in torch
    for options, (name, rows), dtypes in itertools.product(
        variants(loss), ROW_SHAPES.items(), DTYPES
    ):
        if (two_axes and len(rows) > 2) or (LABEL_ROWS in domains and len(dtypes) > 1):
            continue
        for content in (*CONTENTS, "non-contiguous"):
            if content != "typical" and (name != "(N, C)" or len(dtypes) > 1):
                continue
            shape = (30, 6) if content in ("ties", "extremes") else rows
            draw = CONTENTS.get(content, typical)
            arrays = typed([row_operand(rng, shape, domain, draw) for domain in domains], dtypes)
            arrays = not_contiguous(arrays) if content == "non-contiguous" else arrays
            keywords = with_weights(options, rng, shape, dtypes[0])
            if content == "ties" and "eps" in getattr(fl, loss).__signature__.parameters:
                keywords["eps"] = 0.5  # adding 1e-6 would round, and break the ties
            yield Case(loss, f"{name_of(dtypes)} {name} {content}", arrays, keywords)


# -- sequences


def sequence_cases(rng):
    loss = "ctc_loss"
    for dtype, (samples, frames, labels), options in itertools.product(
        FLOATS + HALVES,
        ((0, 6, 2), (1, 6, 2), (4, 9, 3), (3, 40, 12)),
        ({}, {"blank": 2}, {"zero_infinity": True}),
    ):
        n = max(samples, 1)
        for content in ("typical", "-inf", "infeasible", "concatenated", "empty"):
            x = typical(rng, (frames, n, CLASSES))
            if content == "-inf":
                x[..., 4] = -INF
            with np.errstate(all="ignore"):
                x = log_softmax(x, -1)
            blank = options.get("blank", 0)
            y = rng.integers(0, CLASSES - 1 - (content == "-inf"), (n, labels))
            y += y >= blank
            lengths = rng.integers(1, labels + 1, n)
            times = rng.integers(min(2 * labels, frames), frames + 1, n)
            if content == "infeasible":  # repeats need a blank in between
                y[0], lengths[0], times[0] = y[0, 0], labels, labels
            elif content == "empty":
                lengths[0] = 0
            if content == "concatenated":
                y = np.concatenate([y[i, : lengths[i]] for i in range(n)])
            arrays = (x.astype(dtype), y, times, lengths)
            if samples == 0:
                arrays = (x[:, 0].astype(dtype), y.reshape(-1)[: lengths[0]], times[0], lengths[0])
            yield Case(loss, f"{dtype} {content} {samples or 'unbatched'}", arrays, options)


# ---- Declared differences ------------------------------------------------------------------------


class Refusal(NamedTuple):
    """Calls that torch accepts and for which fastloss raises an error."""

    sentence: str
    where: str  # the section of README.md, or of a docstring, that documents it
    error: type
    calls: tuple  # (loss, arrays, options)
    unsafe: bool = False  # torch reads or writes out of bounds


X, Y = np.array([0.5, 2.0, -1.0]), np.array([1.0, 0.25, 0.5])
COLUMN = X[:, np.newaxis]
ONES = np.ones(3)
LOGP = log_softmax(np.array([[1.0, 2.0, 3.0], [4.0, 1.0, 0.0]]), 1)
CTC = log_softmax(np.arange(24.0).reshape(4, 2, 3) % 5, 2)
LENGTHS = (np.array([4, 4]), np.array([2, 1]))
ROWS = np.arange(6.0).reshape(2, 3)

REFUSALS = {
    "shapes": Refusal(
        "(N, 1) against (N,), which torch broadcasts to (N, N)",
        "README, Shapes",
        ValueError,
        (
            *(
                (loss, (COLUMN, X), {})
                for loss in (
                    "l1_loss",
                    "mse_loss",
                    "smooth_l1_loss",
                    "huber_loss",
                    "poisson_nll_loss",
                    "kl_div",
                    "hinge_embedding_loss",
                    "multilabel_soft_margin_loss",
                )
            ),
            ("gaussian_nll_loss", (COLUMN, X, np.ones((3, 1))), {}),
            ("margin_ranking_loss", (COLUMN, X[np.newaxis], np.ones((1, 1))), {}),
            ("cosine_embedding_loss", (ROWS[:1], ROWS, np.ones(2)), {}),
            ("triplet_margin_loss", (ROWS, ROWS[:1], ROWS), {}),
        ),
    ),
    "labels": Refusal(
        "labels other than -1 and 1, which torch accepts",
        "README, Errors",
        ValueError,
        (
            ("hinge_embedding_loss", (X, np.array([1.0, 0.0, -1.0])), {}),
            ("hinge_embedding_loss", (X, np.array([1, 0, 1])), {}),
            ("soft_margin_loss", (X, np.array([1.0, 2.0, -1.0])), {}),
            ("margin_ranking_loss", (X, Y, np.array([1.0, 0.0, -1.0])), {}),
            ("cosine_embedding_loss", (ROWS, ROWS + 1, np.array([0.0, 1.0])), {}),
        ),
    ),
    "bool labels": Refusal(
        "bools as labels -1 and 1",
        "README, Errors",
        TypeError,
        (("hinge_embedding_loss", (X, X > 0), {}),),
    ),
    "targets": Refusal(
        "targets outside [0, 1] with logits",
        "README, Errors",
        ValueError,
        (
            ("binary_cross_entropy_with_logits", (X, np.array([0.0, 2.0, 1.0])), {}),
            ("binary_cross_entropy_with_logits", (X, np.array([0.0, -0.5, 1.0])), {}),
            ("multilabel_soft_margin_loss", (ROWS, ROWS), {}),
        ),
    ),
    "negative": Refusal(
        "negative targets and rates",
        "README, Errors",
        ValueError,
        (
            ("kl_div", (X, np.array([0.5, -0.5, 1.0])), {}),
            ("poisson_nll_loss", (X, np.array([0.5, -0.5, 1.0])), {}),
            ("poisson_nll_loss", (np.array([0.5, -0.5, 1.0]), Y), {"log_input": False}),
            ("cross_entropy", (ROWS, np.array([[0.5, 0.7, -0.2], [0, 0, 1]])), {}),
        ),
    ),
    "options": Refusal(
        "options that are NaN or out of range",
        "README, Errors",
        ValueError,
        (
            ("cross_entropy", (LOGP, np.array([0, 2])), {"label_smoothing": -0.1}),
            ("cross_entropy", (LOGP, np.array([0, 2])), {"label_smoothing": NAN}),
            ("triplet_margin_loss", (ROWS, ROWS + 1, ROWS + 3), {"margin": NAN}),
            ("triplet_margin_loss", (ROWS, ROWS + 1, ROWS + 3), {"p": -1.0}),
            ("triplet_margin_loss", (ROWS, ROWS + 1, ROWS + 3), {"p": NAN}),
            ("hinge_embedding_loss", (X, ONES), {"margin": NAN}),
            ("margin_ranking_loss", (X, Y, ONES), {"margin": INF}),
            ("poisson_nll_loss", (X, Y), {"eps": -1.0}),
            ("multi_margin_loss", (ROWS, np.array([0, 2])), {"margin": NAN}),
        ),
    ),
    "weights": Refusal(
        "class weights of other shapes with C entries",
        "help(fl.nll_loss), Parameters",
        ValueError,
        (
            (
                "nll_loss",
                (np.stack([LOGP, LOGP], 2), np.array([[0, 1], [2, 0]])),
                {"weight": np.ones((1, 3))},
            ),
        ),
    ),
    "one index": Refusal(
        "class indices (1,) for one row (C,), for which torch has no gradient",
        "help(fl.nll_loss), Parameters",
        ValueError,
        (
            ("nll_loss", (LOGP[0], np.array([1])), {}),
            ("multi_margin_loss", (LOGP[0], np.array([1])), {}),
        ),
    ),
    "blank": Refusal(
        "a blank inside a target",
        "README, Errors",
        ValueError,
        (("ctc_loss", (CTC, np.array([[1, 0], [2, 1]]), *LENGTHS), {}),),
    ),
    "classes": Refusal(
        "labels of sequences that are not classes, for which torch reads out of bounds",
        "README, Errors",
        fl.ClassIndexError,
        (
            ("ctc_loss", (CTC, np.array([[1, 3], [2, 1]]), *LENGTHS), {}),
            ("ctc_loss", (CTC, np.array([[1, 2], [-1, 1]]), *LENGTHS), {}),
            ("ctc_loss", (CTC, np.array([[1, 10**9], [2, 1]]), *LENGTHS), {}),
        ),
        unsafe=True,
    ),
    "floating labels": Refusal(
        "floating labels of sequences, which torch truncates",
        "help(fl.ctc_loss), Parameters",
        TypeError,
        (("ctc_loss", (CTC, np.array([[1.7, 2.0], [2.0, 1.0]]), *LENGTHS), {}),),
    ),
}


class Acceptance(NamedTuple):
    """Calls that only fastloss accepts."""

    sentence: str
    where: str
    losses: tuple


ACCEPTANCES = {
    "integer widths": Acceptance(
        "class indices of every integer dtype",
        "README, Arguments",
        ("nll_loss", "cross_entropy", "multi_margin_loss"),
    ),
}


class TorchResult(NamedTuple):
    """Unreduced value and gradients of torch, which limits correct in place.

    The rows of all arrays are along the last axis, which has length 1 if there is one entry for
    each row; `operands` are in float64.
    """

    operands: dict
    options: dict
    shape: tuple  # of the losses
    value: np.ndarray
    grads: dict

    @property
    def has_rows(self):
        return self.value.shape != self.shape

    @property
    def broadcast(self):
        """Whether elements share an entry of an operand."""
        return not self.has_rows and len({a.shape for a in self.operands.values()}) > 1

    @property
    def has_probabilities(self):
        """Whether the targets are rows of probabilities."""
        return self.operands["target"].shape == self.operands["input"].shape

    def put(self, where, value=None, **grads):
        """Replaces value and gradients at these units, or at these entries of rows."""
        if value is not None:
            units = where if where.shape == self.value.shape else where.any(-1, keepdims=True)
            np.copyto(self.value, value, where=units)
        for name, grad in grads.items():
            if name in self.grads:
                np.copyto(self.grads[name], grad, where=where)


class Limit(NamedTuple):
    """A difference in value or gradient."""

    sentence: str
    where: str
    losses: tuple
    correct: Callable  # (TorchResult): puts the documented numbers in


LIMITS = []


def limit(sentence, where, *losses):
    """Declares a difference."""

    def declare(correct):
        LIMITS.append(Limit(sentence, where, losses, correct))

    return declare


LOGITS = ("binary_cross_entropy_with_logits", "multilabel_soft_margin_loss")


@limit("soft margins do not overflow", "README, Limits", "soft_margin_loss")
def _soft_margin(t):
    x, y = t.operands["input"], t.operands["target"]
    far = -y * x > 700
    t.put(far, -y * x, input=-y)


@limit("0 times infinity is the limit", "README, Limits", "poisson_nll_loss")
def _no_counts(t):
    x, y = t.operands["input"], t.operands["target"]
    no_count = (y == 0) & ~np.isnan(x)
    if t.options.get("log_input", True):
        t.put(no_count, np.exp(x), input=np.exp(x))
    else:
        t.put(no_count, x, input=1)


@limit("inf - inf is the limit of the larger term", "README, Limits", "poisson_nll_loss")
def _infinite_rates(t):
    x, y = t.operands["input"], t.operands["target"]
    rate = np.exp(x) if t.options.get("log_input", True) else x
    t.put(np.isinf(rate) & np.isnan(t.value) & np.isfinite(y), INF)


@limit("inf - inf is the limit of the larger term", "README, Limits", "gaussian_nll_loss")
def _no_variance(t):
    if t.options.get("eps") == 0:
        d = t.operands["input"] - t.operands["target"]
        none = (t.operands["var"] == 0) & ~np.isnan(d)
        with np.errstate(invalid="ignore"):
            slope = np.where(d == 0, 0, d * INF)
        t.put(none, np.where(d == 0, -INF, INF), input=slope, target=-slope)
        t.put(none, var=np.where(d == 0, INF, -INF))


@limit("0 times infinity is the limit", "README, Limits", "huber_loss")
def _half_squares(t):
    x, y = t.operands["input"], t.operands["target"]
    if t.options.get("delta") == INF:
        t.put(np.isinf(x - y), INF)


@limit(
    "the gradient for a count of 0 has no terms of Stirling's approximation",
    "README, Limits",
    "poisson_nll_loss",
)
def _no_stirling(t):
    x, y = t.operands["input"], t.operands["target"]
    if t.options.get("full"):
        log_input = t.options.get("log_input", True)
        t.put(y == 0, target=-x if log_input else -np.log(x + t.options.get("eps", 1e-8)))


@limit("0 times infinity is the limit", "README, Limits", "kl_div")
def _no_probability(t):
    x, y = t.operands["input"], t.operands["target"]
    if t.options.get("log_target"):
        impossible = (y == -INF) & ~np.isnan(x)
        t.put(impossible, 0, target=0)
        infinite = np.isinf(y - x) & ~impossible
        t.put(infinite, y - x, target=y - x)
    else:
        t.put((y == 0) & ~np.isnan(x), 0)


@limit("gradients for targets of 0 are limits", "README, Limits", "kl_div")
def _target_gradient(t):
    if not t.options.get("log_target"):
        x, y = t.operands["input"], t.operands["target"]
        t.put(y == 0, target=np.log(y) + 1 - x)


@limit("0 times infinity is the limit", "README, Limits", LOGITS[0])
def _certain_logits(t):
    x, y = t.operands["input"], t.operands["target"]
    p, w = t.options.get("pos_weight", 1.0), t.options.get("weight", 1.0)
    certain = np.isinf(x) & ~np.isnan(y)
    with np.errstate(all="ignore"):
        value = np.where(x > 0, np.where(y == 1, 0, 1 - y) * INF, np.where(y == 0, 0, p * y) * INF)
        t.put(certain, np.where(np.isnan(value), 0, value) * w)


@limit(
    "NaN propagates to value and gradients",
    "README, NaN",
    "l1_loss",
    "smooth_l1_loss",
    "poisson_nll_loss",
    "kl_div",
    "hinge_embedding_loss",
    "margin_ranking_loss",
)
def _nan(t):
    nan = np.isnan(np.broadcast_arrays(*t.operands.values(), t.value)[:-1]).any(axis=0)
    t.put(nan, NAN, **dict.fromkeys(t.grads, NAN))


@limit(
    "inf - inf is NaN, in value and gradients",
    "README, NaN",
    "l1_loss",
    "smooth_l1_loss",
    "margin_ranking_loss",
)
def _no_difference(t):
    x, y = list(t.operands.values())[:2]
    nan = np.isnan(x - y)
    t.put(nan, NAN, **dict.fromkeys(t.grads, NAN))


@limit(
    "a weight of 0 removes an entry, even if infinite or NaN",
    "README, NaN",
    "l1_loss",
    "mse_loss",
    "huber_loss",
    LOGITS[0],
)
def _removed(t):
    if "weight" in t.options:
        removed = np.broadcast_to(t.options["weight"] == 0, t.value.shape)
        t.put(removed, 0, **dict.fromkeys(t.grads, 0))


@limit("the gradient of an ignored row is 0 even if it holds NaN", "README, NaN", "cross_entropy")
def _ignored(t):
    if not t.has_probabilities:
        ignored = t.operands["target"] == t.options.get("ignore_index", -100)
        t.put(ignored, 0, input=0)


@limit(
    "a class of weight 0 removes its entries, even if infinite or NaN",
    "README, Limits",
    "nll_loss",
    "cross_entropy",
    "multi_margin_loss",
)
def _removed_class(t):
    if "weight" in t.options and not t.has_probabilities and not t.options.get("label_smoothing"):
        labels = t.operands["target"] % len(t.options["weight"])
        t.put((t.options["weight"] == 0)[labels], 0, input=0)


@limit("NaN propagates to value and gradients", "README, NaN", "nll_loss")
def _nan_class(t):
    if t.operands["input"].shape[-1] and t.value.size:
        active = t.operands["target"] != t.options.get("ignore_index", -100)
        is_label = np.arange(t.operands["input"].shape[-1]) == t.operands["target"]
        t.put(active & is_label & np.isnan(t.operands["input"]), NAN, input=NAN)


@limit("0 times infinity is the limit", "README, Limits", "multilabel_soft_margin_loss")
def _certain_labels(t):
    x, y = t.operands["input"], t.operands["target"]
    positive = np.where(y == 0, 0, y * np.logaddexp(0, -x))
    negative = np.where(y == 1, 0, (1 - y) * np.logaddexp(0, x))
    weight = t.options.get("weight", 1.0)
    losses = weight * (positive + negative)
    slopes = weight * ((x > 0) - y) / x.shape[-1]
    t.put(np.isinf(x), losses.mean(-1, keepdims=True), input=slopes)


@limit(
    "NaN propagates to value and gradients",
    "README, NaN",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "triplet_margin_loss",
)
def _nan_row(t):
    nan = np.isnan(np.concatenate([t.value, *t.operands.values()], axis=-1)).any(-1, keepdims=True)
    t.put(nan, NAN, **dict.fromkeys(t.grads, NAN))


@limit("a margin of inf - inf is NaN", "README, NaN", "multi_margin_loss", "multilabel_margin_loss")
def _no_margin(t):
    x, y = t.operands["input"], t.operands["target"]
    if y.shape == x.shape:
        listed = np.cumsum(y == -1, axis=-1) == 0
        is_label = (y[..., np.newaxis] == np.arange(x.shape[-1])) & listed[..., np.newaxis]
        is_label = is_label.any(-2)
    else:
        is_label = y == np.arange(x.shape[-1])

    def any_in_row(entries):
        return entries.any(-1, keepdims=True)

    nan = [
        any_in_row(is_label & (x == end)) & any_in_row(~is_label & (x == end))
        for end in (INF, -INF)
    ]
    t.put(nan[0] | nan[1], NAN, input=NAN)


@limit("a log-probability of -inf has the gradient 0", "README, Limits", "ctc_loss")
def _masked(t):
    t.put(t.operands["log_probs"] == -INF, log_probs=0)


@limit(
    "a distance replaced by swap does not affect the gradient, even if infinite",
    "README, Limits",
    "triplet_margin_loss",
)
def _left_out(t):
    a, b, c = t.operands.values()
    p, eps = t.options.get("p", 2.0), t.options.get("eps", 1e-6)
    if not t.options.get("swap"):
        return

    def distance(u, v):
        e = u - v + eps
        size = np.linalg.norm(e, p, -1, keepdims=True)
        if p == INF:
            largest = np.abs(e) == size
            return size, np.sign(e) * largest / largest.sum(-1, keepdims=True)
        return size, np.sign(e) * (np.abs(e) / size) ** (p - 1)

    (_, ab), (ac, to_a), (bc, to_b) = distance(a, b), distance(a, c), distance(b, c)
    t.put(np.isfinite(ac) & (bc == INF), anchor=ab - to_a, positive=-ab, negative=to_a)
    t.put(np.isfinite(bc) & (ac == INF), anchor=ab, positive=-ab - to_b, negative=to_b)


@limit(
    "the gradient is 0 outside the margin, also for infinite distances",
    "README, Limits",
    "triplet_margin_loss",
)
def _far(t):
    infinite = np.isinf(np.concatenate(list(t.operands.values()), axis=-1)).any(-1, keepdims=True)
    t.put((t.value == 0) & infinite, **dict.fromkeys(t.grads, 0))


@limit(
    "with label_smoothing=1 the target has no effect, whatever its logit",
    "README, Limits",
    "cross_entropy",
)
def _all_smoothed(t):
    if t.options.get("label_smoothing") == 1:
        x = t.operands["input"]
        masked = (x == -INF).any(-1, keepdims=True) & np.isfinite(x.max(-1, keepdims=True))
        active = t.has_probabilities | (t.operands["target"] != t.options.get("ignore_index", -100))
        t.put(masked & active, INF)
        t.put(masked, target=0)


@limit("0 times infinity is the limit", "README, Limits", "cross_entropy")
def _no_class_probability(t):
    """Classes of probability 0 contribute nothing to the loss."""
    if t.has_probabilities and not t.options.get("label_smoothing"):
        x, y = t.operands["input"], t.operands["target"]
        m = x.max(-1, keepdims=True)
        fits = np.isfinite(m) & ~np.isnan(x).any(-1, keepdims=True)
        logs = x - m - np.log(np.exp(x - m).sum(-1, keepdims=True))
        terms = np.where(y == 0, 0, -t.options.get("weight", 1.0) * y * logs)
        t.put(fits, terms.sum(-1, keepdims=True))


# ---- torch ---------------------------------------------------------------------------------------


def tensors(case, arrays, dtype=None):
    """Operands and options as tensors, in this dtype if they are floating."""

    def tensor(array):
        if not isinstance(array, np.ndarray | np.generic):
            return array
        array = np.array(array, array.dtype.newbyteorder("="))
        if array.dtype.kind not in "iub":
            array = array.astype(dtype or array.dtype)
        elif dtype is not None and array.dtype.kind != "b":
            array = array.astype(np.int64)
        return torch.tensor(array)

    return [tensor(a) for a in arrays], {k: tensor(v) for k, v in case.options.items()}


def run_torch(case, reduction, grad_output=None, dtype=F64, backward=True):
    """(value, gradients by name), in float64 or, for `dtype=None`, in the dtypes of the arrays."""
    loss = getattr(fl, case.loss)
    operands, options = tensors(case, case.arrays, dtype)
    named = dict(zip(loss.operands, operands, strict=True))
    for name in loss.differentiable:
        if named[name].is_floating_point():
            named[name].requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on broadcasting, and on the mean of kl_div
        value = getattr(torch.nn.functional, case.loss)(
            *operands, **options | {"reduction": reduction}
        )
        if value.requires_grad and backward:
            if grad_output is None:
                grad_output = np.ones(value.shape)
            value.backward(torch.tensor(grad_output.astype(np.float64)))
    grads = {name: tensor.grad.numpy() for name, tensor in named.items() if tensor.grad is not None}
    return value.detach().numpy(), grads


# ---- Comparison ----------------------------------------------------------------------------------


def terms_of(loss, t):
    """Bounds of the largest terms of value and gradients, by name, where their sum may be less."""
    x, y = list(t.operands.values())[:2]
    o = t.options
    if loss == "poisson_nll_loss":
        stirling = y * np.log(np.maximum(y, 1)) + y + 1 if o.get("full") else 0
        slope = np.log(np.maximum(y, 1)) + 1 if o.get("full") else 0
        if o.get("log_input", True):
            rate = np.exp(x)
            return {
                "value": rate + np.abs(y * x) + stirling,
                "input": rate + y,
                "target": np.abs(x) + slope,
            }
        rate = x + o.get("eps", 1e-8)
        logs = np.abs(np.log(rate))
        return {
            "value": x + y * (logs + 1) + stirling,
            "input": 1 + y / rate,
            "target": logs + 1 + slope,
        }
    if loss == "gaussian_nll_loss":
        v = np.maximum(t.operands["var"], o.get("eps", 1e-6))
        v = v[..., np.newaxis] if v.ndim < x.ndim else v
        square = (x - y) ** 2 / v
        return {"value": np.abs(np.log(v)) + square + bool(o.get("full")), "var": (1 + square) / v}
    if loss == "kl_div" and not o.get("log_target"):
        logs = np.abs(np.log(np.where(y == 0, 1, y)))
        return {"value": y * (logs + np.abs(x)), "target": logs + 1 + np.abs(x)}
    if loss == "kl_div":
        return {"target": np.exp(y) * (np.abs(y - x) + 1)}
    if loss in ("hinge_embedding_loss", "margin_ranking_loss"):
        return {"value": np.abs(x - y * (len(t.operands) == 3)) + abs(o.get("margin", 1.0))}
    if loss in LOGITS:
        p, w = o.get("pos_weight", 1.0), np.abs(o.get("weight", 1.0))
        w = w / x.shape[-1] if t.has_rows else w
        sigma = 1 / (1 + np.exp(-x))
        return {
            "input": w * ((1 - y) * sigma + p * y * (1 - sigma)),
            "target": w * (np.logaddexp(0, x) + p * np.logaddexp(0, -x)),
        }
    if loss == "binary_cross_entropy":
        return {"target": np.abs(np.log(x)) + np.abs(np.log1p(-x))}
    if loss == "cross_entropy":
        exponents = x.max(-1, keepdims=True) - x  # rounded before exp
        return {
            "value": np.abs(t.value) + exponents.max(-1, keepdims=True) / 8,
            "input": (1 + exponents / 8) * np.abs(o.get("weight", 1.0)).max(initial=1),
        }
    if loss == "multi_margin_loss" or loss == "multilabel_margin_loss":
        return {"value": x.max(-1, keepdims=True) - x.min(-1, keepdims=True), "input": 1}
    if loss == "cosine_embedding_loss":
        return {
            "value": 1 + abs(o.get("margin", 0.0)),
            "input1": 1 / np.linalg.norm(x, axis=-1, keepdims=True),
            "input2": 1 / np.linalg.norm(y, axis=-1, keepdims=True),
        }
    if loss == "ctc_loss":  # within 64 ULP by the contract
        return {"value": 16 * np.abs(t.value), "log_probs": 16 * (np.exp(x) + 1)}
    if loss == "triplet_margin_loss":
        x, y, z = t.operands.values()
        size = [
            np.linalg.norm(d, o.get("p", 2.0), -1, keepdims=True) for d in (x - y, x - z, y - z)
        ]
        return {"value": sum(size), "anchor": 1, "positive": 1, "negative": 1}
    return {}


class Verdict(NamedTuple):
    """The declared differences that a case shows, and the other difference, if any."""

    reasons: list
    wrong: str | None = None


def judge(case):
    """Runs a case with fastloss and torch."""
    with np.errstate(all="ignore"):
        return _refused(case) if case.refusal else _compared(case)


def _refused(case):
    refusal = REFUSALS[case.refusal]
    reason = [(refusal.sentence, refusal.where)]
    loss = getattr(fl, case.loss)
    for method in (loss, loss.grad):
        try:
            got = method(*case.arrays, **case.options)
        except refusal.error:
            continue
        except Exception as error:
            return Verdict(reason, f"raises {error!r}, not {refusal.error.__name__}")
        return Verdict(reason, f"returns {got} instead of raising {refusal.error.__name__}")
    if not refusal.unsafe:
        try:
            run_torch(case, "mean", dtype=None, backward=False)
        except Exception as error:
            return Verdict(reason, f"torch raises an error too: {error!r}")
    return Verdict(reason)


def torch_accepts(case, reduction):
    try:
        run_torch(case, reduction, dtype=None)
    except Exception:
        return False
    return True


def _compared(case):
    loss, reduction = getattr(fl, case.loss), case.options["reduction"]
    operands = dict(zip(loss.operands, case.arrays, strict=True))
    floating = [a.dtype for a in case.arrays if a.dtype.kind not in "iub"]
    compute = F64 if F64 in floating else F32
    wrt = tuple(n for n in loss.differentiable if operands[n].dtype.kind not in "iub")
    t, reasons = unreduced(case)
    grad_output = None
    if reduction == "none":
        rng = np.random.default_rng([*case.description.encode()])
        grad_output = rng.normal(size=t.shape).astype(floating[0])
    options = case.options | {"wrt": wrt, "grad_output": grad_output}
    got, gradients = loss.value_and_grad(*case.arrays, **options)
    if case.acceptance:
        reasons.append(ACCEPTANCES[case.acceptance][:2])
        if torch_accepts(case, reduction):
            return Verdict(reasons, "torch accepts it")
    value, grads, scale = expected(case, t, grad_output, reasons)
    bounds = error_bounds(case.loss, t, float(np.finfo(compute).eps))
    if reduction == "none":
        out = floating[0] if len(set(floating)) == 1 else compute
        wrong = differ("value", rows(case, got), value, bounds["value"], out)
    elif type(got) is not float:
        wrong = f"the value is a {type(got).__name__}"
    else:
        wrong = differ("value", got, value, np.sum(bounds["value"] * np.abs(scale)), F64)
    for name, gradient in zip(wrt, gradients, strict=True):
        bound = bounds[name]
        if t.broadcast:
            bound = bound.sum() * np.abs(scale).max(initial=0) * t.value.size
        else:
            bound = bound * np.abs(scale)
        wrong = wrong or differ(
            name, rows(case, gradient), grads[name], bound, operands[name].dtype
        )
    if wrong and case.unit == "element" and "[" in wrong:
        at = tuple(map(int, wrong[wrong.index("[") + 1 : wrong.index("]")].split(",")))
        wrong += f" for {[float(a[at]) for a in t.operands.values() if a.shape == t.shape]}"
    return Verdict(reasons, wrong)


def rows(case, array):
    """The array with its rows along the last axis, of length 1 if it has one entry per row."""
    array, x = np.asarray(array), case.arrays[0]
    if case.unit == "element":
        return array
    if array.ndim < x.ndim:
        return array[..., np.newaxis]
    if case.unit == "sequence":
        return np.moveaxis(array, -2, 0).reshape(*x.shape[1:-1], -1)
    second_axis = getattr(fl, case.loss).row_axis == 1 and x.ndim > 1
    return np.moveaxis(array, 1, -1) if second_axis else array


def unreduced(case):
    """The unreduced results of torch, corrected by the limits, and which limits applied."""
    loss, reasons = getattr(fl, case.loss), []
    arrays = [rows(case, a) for a in case.arrays]
    operands = {
        name: a.astype(np.float64) if a.dtype.kind not in "iub" else a
        for name, a in zip(loss.operands, arrays, strict=True)
    }
    options = {
        k: v.astype(np.float64) if isinstance(v, np.ndarray) else v for k, v in case.options.items()
    }
    if case.loss in EMPTY and 0 in case.arrays[0].shape:
        value, grads = np.zeros(case.arrays[0].shape[:-1]), {"input": case.arrays[0] * 1.0}
        reasons.append(EMPTY_REASON)
    else:
        value, grads = run_torch(case, "none")
    t = TorchResult(
        operands,
        options,
        value.shape,
        np.array(rows(case, value)),
        {name: np.array(rows(case, grad)) for name, grad in grads.items()},
    )
    if t.broadcast:
        return t, reasons  # of typical values
    for declared in LIMITS:
        if case.loss in declared.losses:
            before = [t.value.copy(), *(g.copy() for g in t.grads.values())]
            declared.correct(t)
            after = [t.value, *t.grads.values()]
            if not all(
                np.array_equal(a, b, equal_nan=True) for a, b in zip(before, after, strict=True)
            ):
                reasons.append((declared.sentence, declared.where))
    return t, reasons


def divisor(case, t):
    """The divisor of a mean."""
    weight = t.options.get("weight")
    if case.options["reduction"] == "batchmean":
        return t.shape[0] if t.shape else 1
    if weight is not None and case.loss in ("l1_loss", "mse_loss"):
        return np.broadcast_to(weight, t.shape).sum()
    if case.loss in ("nll_loss", "cross_entropy") and not t.has_probabilities:
        labels = t.operands["target"]
        active = labels != t.options.get("ignore_index", -100)
        return active.sum() if weight is None else weight[labels[active]].sum()
    return t.value.size


def expected(case, t, grad_output, reasons):
    """(value, gradients, factor of the gradients of each unit), with rows along the last axis."""
    reduction = case.options["reduction"]
    if reduction == "none":
        scale = np.array(rows(case, grad_output.astype(np.float64)))
    else:
        scale = np.ones_like(t.value)
    if reduction in ("mean", "batchmean"):
        scale = scale / divisor(case, t)
        if case.loss == "ctc_loss":
            scale = scale / np.maximum(t.operands["target_lengths"], 1)
    if not reasons or case.acceptance:
        value, grads = run_torch(case, reduction, grad_output)
        value = rows(case, value) if reduction == "none" else value
        grads = {k: rows(case, g) for k, g in grads.items()}
        if np.isinf(scale).any() and any(np.isnan(g).any() for g in grads.values()):
            reasons.append(NO_DIVISOR)
    else:
        value, grads = t.value, {k: g * scale for k, g in t.grads.items()}
        if reduction != "none":
            value = (value * scale).sum() if value.size or reduction == "sum" else NAN
    if np.isinf(scale).any():
        value, grads = NAN, {k: np.zeros_like(g) for k, g in grads.items()}
        scale = np.zeros_like(scale)
    return value, grads, scale


EMPTY = ("multi_margin_loss", "multilabel_margin_loss")
EMPTY_REASON = (
    "an empty batch gives the mean NaN and the sum 0, not uninitialised memory",
    "help(fl.multi_margin_loss), Notes",
)
NO_DIVISOR = ("the gradient is 0 if all weights are 0", "help(fl.nll_loss), Notes")
AVERAGED = ("nll_loss", "cross_entropy")  # divided by the sum of the class weights


def error_bounds(loss, t, eps):
    """Error bounds of losses and gradients, by name.

    4 ULP of the largest term, plus the error of torch: 16 ULP, in float64, of the largest number
    involved, which may cancel, times the square root of the length of the rows that torch sums.
    """
    largest, length = 1.0, max(a.shape[-1] for a in t.operands.values()) if t.has_rows else 1
    for array in t.operands.values():
        if array.dtype.kind in "iu":
            continue
        size = np.abs(np.where(np.isfinite(array), array, 0)).astype(np.float64)
        size = size.max(-1, keepdims=True, initial=0) if t.has_rows else size
        largest = np.maximum(largest, size.max() if t.broadcast else size)
    terms = terms_of(loss, t)
    if t.broadcast:
        terms = {name: np.max(term) for name, term in terms.items()}
    bounds = {}
    for name, result in {"value": t.value, **t.grads}.items():
        term = np.nan_to_num(terms.get(name, 0), nan=0, posinf=0)
        term = np.maximum(np.abs(result), term)
        error_of_torch = 16 * EPS * np.sqrt(length) * np.maximum(term, largest)
        bounds[name] = 4 * eps * term + error_of_torch + 1e-45
    return bounds


def differ(name, got, value, bound, dtype):
    """Describes how a result differs from the expected value, None if it does not."""
    got, value = np.asarray(got), np.asarray(value, np.float64)
    if got.shape != value.shape or (got.ndim and got.dtype != dtype):
        return f"{name}: {got.dtype}{got.shape} instead of {dtype}{value.shape}"
    rounded = value.astype(dtype).astype(np.float64)
    stored, got = got.dtype, got.astype(np.float64)
    info = np.finfo(stored) if stored.name != "bfloat16" else ml_dtypes.finfo(stored)
    rounding = np.abs(value) * float(info.eps) / 2 + float(info.smallest_subnormal)
    bound = bound + (rounding if stored.itemsize == 2 else 0)
    near = np.isfinite(value) & np.isfinite(bound) & (np.abs(got - value) <= bound)
    same = (got == rounded) | (np.isnan(got) & np.isnan(value)) | near
    if same.all():
        return None
    at = tuple(int(i) for i in np.argwhere(~same)[0])
    error = (
        f" (error {abs(got - value)[at]:.3g}, allowed {np.broadcast_to(bound, got.shape)[at]:.3g})"
    )
    return f"{name}{list(at) or ''} = {got[at]!r}, torch {value[at]!r}{error}"


# ---- The report ----------------------------------------------------------------------------------


def refusal_cases(loss):
    for name, refusal in REFUSALS.items():
        for refused, arrays, options in refusal.calls:
            if refused == loss:
                yield Case(loss, refusal.sentence, arrays, options, refusal=name)


def makers(loss):
    """The generators of the cases of a loss: functions of a random generator."""
    template = TEMPLATES[loss]
    if template.unit == "sequence":
        return [sequence_cases]
    if template.unit == "element":
        return [partial(elementwise_cases, loss), shared_cases, removed_cases, infinite_cases]
    if not template.by_class:
        return [partial(row_cases, loss)]
    found = [partial(make, loss) for make in (class_cases, integer_cases, zero_weight_cases)]
    return [*found, probability_cases] if loss == "cross_entropy" else found


def cases(loss, seed=0):
    """All cases of a loss."""
    rng = np.random.default_rng([seed, *loss.encode()])
    with np.errstate(all="ignore"):
        for case in itertools.chain(*(make(rng) for make in makers(loss))):
            for reduction in reductions(loss) if case.loss == loss else ():
                yield case._replace(options=case.options | {"reduction": reduction})
        yield from refusal_cases(loss)


def declared(loss):
    """The declared differences of a loss from torch."""
    found = [r for r in (*LIMITS, *ACCEPTANCES.values()) if loss in r.losses]
    found += [r for r in REFUSALS.values() if any(call[0] == loss for call in r.calls)]
    reasons = [(r.sentence, r.where) for r in found]
    reasons += [EMPTY_REASON] * (loss in EMPTY) + [NO_DIVISOR] * (loss in AVERAGED)
    assert len(set(reasons)) == len(reasons), loss
    return set(reasons)


def main(arguments=None):
    """Prints the report; returns the number of other differences and of declared ones not shown."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.parity", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--loss", action="append", choices=TEMPLATES, help="only this loss")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    reasons, total, not_shown = Counter(), Counter(), 0
    print(f"{'loss':<34} {'cases':>6} {'equal':>6} {'declared':>9} {'different':>10}")
    for loss in chosen.loss or TEMPLATES:
        row, shown = Counter(), set()
        for case in cases(loss, chosen.seed):
            verdict = judge(case)
            kind = "different" if verdict.wrong else "declared" if verdict.reasons else "equal"
            row.update(("cases", kind))
            if verdict.wrong:
                print(f"DIFFERENT {verdict.wrong}\n    {case}")
            else:
                reasons.update(set(verdict.reasons))
            shown |= set(verdict.reasons)
        total += row
        _print_row(loss, row)
        for sentence, where in sorted(declared(loss) ^ shown):
            not_shown += 1
            fault = "UNDECLARED" if (sentence, where) in shown else "NOT SHOWN"
            print(f"{fault} {sentence} ({where})")
    _print_row("all", total)
    print("\ndeclared differences:")
    for (sentence, where), count in sorted(reasons.items(), key=lambda item: -item[1]):
        print(f"{count:>6}  {sentence} ({where})")
    return total["different"] + not_shown


def _print_row(name, row):
    print(
        f"{name:<34} {row['cases']:>6} {row['equal']:>6} {row['declared']:>9} "
        f"{row['different']:>10}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main() > 0)
