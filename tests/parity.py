"""`python -m tests.parity`: value and gradients of every loss against torch's, case by case.

A case is a loss with its options, arrays and reduction. The reference is torch in float64 on the
same numbers, within the accuracy that the documents promise plus what float64 loses. Where torch is
meant to differ, the difference is declared: a `Limit` corrects torch's losses and gradients, and
the corrected ones must be met; a `Refusal` names the error that must be raised where torch computes
something; an `Acceptance` says what torch refuses that fastloss takes. Any other difference is
printed and fails, and so does a declared difference that no case of its loss shows.
"""

import argparse
import itertools
import math
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

import fastloss as fl

try:
    import ml_dtypes
except ImportError:
    HALVES = [np.dtype(np.float16)]
else:
    HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]

F32, F64 = FLOATS = [np.dtype(np.float32), np.dtype(np.float64)]
INTEGERS = [np.dtype(f"{sign}{size}") for sign in "iu" for size in (1, 2, 4, 8)]
INF, NAN = math.inf, math.nan
EPS = 2.0**-52
CLASSES = 5


# ---- Cases ---------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A call, and what is known of torch's answer to it."""

    loss: str
    what: str  # in words: dtypes, shape, content
    arrays: tuple
    options: dict
    refusal: str | None = None  # the Refusal that it must meet
    acceptance: str | None = None  # the Acceptance that makes torch take it

    @property
    def by_row(self):
        """Whether a unit is a row."""
        return self.loss not in ELEMENTWISE

    def __str__(self):
        options = ", ".join(f"{k}={_short(v)}" for k, v in self.options.items())
        return f"{self.loss}: {self.what}: ({', '.join(map(_short, self.arrays))}; {options})"


def _short(value):
    if isinstance(value, np.ndarray):
        return (
            f"array({value.tolist()}, {value.dtype})"
            if value.size <= 60
            else (f"<{value.dtype} {value.shape}>")
        )
    return repr(value)


def usual(rng, shape, low=-INF, high=INF):
    if (low, high) == (0, 1):
        return rng.uniform(0.02, 0.98, shape)
    x = rng.normal(size=shape) * 2
    return np.abs(x) + 0.01 if low == 0 else x


def ties(rng, shape, low=-INF, high=INF):
    """Few values, so that differences, margins and maxima meet."""
    if (low, high) == (0, 1):
        return rng.choice([0.0, 0.5, 1.0], shape)
    x = rng.integers(-3, 4, shape) * 0.5
    return np.abs(x) if low == 0 else x


EXTREMES = [0.0, -0.0, INF, -INF, NAN, 1.0, 0.5, -1.0, 30.0, -30.0, 100.0, -100.0, 1e-30]
EXTREMES += [800.0, -800.0, 1e4, -1e4]


def extremes(rng, shape, low=-INF, high=INF):
    inside = [v for v in EXTREMES if not (v < low or v > high)]
    if (low, high) == (0, 1):
        inside.remove(NAN)  # torch refuses it
    return rng.choice(np.array(inside), shape)


CONTENTS = {"usual": usual, "ties": ties, "extremes": extremes}
REAL, POSITIVE, FRACTION, SIGN = (-INF, INF), (0, INF), (0, 1), "sign"


class Elementwise(NamedTuple):
    """The operands of an elementwise loss, and the options that it is run with."""

    operands: tuple
    options: tuple


ARRAY = "array"  # stands for one that is drawn
WEIGHTED = ({}, {"weight": ARRAY})
ELEMENTWISE = {
    "l1_loss": Elementwise((REAL, REAL), WEIGHTED),
    "mse_loss": Elementwise((REAL, REAL), WEIGHTED),
    "smooth_l1_loss": Elementwise(
        (REAL, REAL), ({}, {"beta": 0.5}, {"beta": 0.0}, {"beta": 1000.0})
    ),
    "huber_loss": Elementwise((REAL, REAL), (*WEIGHTED, {"delta": 0.5}, {"delta": INF})),
    "poisson_nll_loss": Elementwise(
        (REAL, POSITIVE),
        ({}, {"full": True}, {"log_input": False}, {"log_input": False, "full": True, "eps": 0.1}),
    ),
    "gaussian_nll_loss": Elementwise(
        (REAL, REAL, POSITIVE), ({}, {"full": True}, {"eps": 0.1}, {"eps": 0.0})
    ),
    "kl_div": Elementwise((REAL, POSITIVE), ({}, {"log_target": True})),
    "binary_cross_entropy": Elementwise((FRACTION, FRACTION), WEIGHTED),
    "binary_cross_entropy_with_logits": Elementwise(
        (REAL, FRACTION),
        (*WEIGHTED, {"pos_weight": ARRAY}, {"weight": ARRAY, "pos_weight": ARRAY}),
    ),
    "hinge_embedding_loss": Elementwise((REAL, SIGN), ({}, {"margin": 0.5}, {"margin": -0.5})),
    "soft_margin_loss": Elementwise((REAL, SIGN), ({},)),
    "margin_ranking_loss": Elementwise((REAL, REAL, SIGN), ({}, {"margin": 0.5})),
}
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
    """Arrays of these dtypes in turn; integers stay as they are."""
    with np.errstate(all="ignore"):
        return tuple(
            a if a.dtype.kind in "iu" else a.astype(dtypes[k % len(dtypes)])
            for k, a in enumerate(arrays)
        )


def spread(arrays):
    """The same numbers, not contiguous: every second one, backwards, columns first."""
    layouts = itertools.cycle(
        [
            lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
            lambda a: np.ascontiguousarray(a[::-1])[::-1],
            np.asfortranarray,
        ]
    )
    return tuple(next(layouts)(a) if a.ndim else a for a in arrays)


def elementwise_cases(loss, rng):
    operands, variants = ELEMENTWISE[loss]
    kinds = [
        (content, dtypes, shape)
        for content in CONTENTS
        for dtypes in DTYPES
        for shape in SHAPES
        if content == "usual" or (len(dtypes) == 1 and shape in ("1-D", "(N, C)"))
    ]
    kinds += [("non-contiguous", dtypes, "(N, C, d)") for dtypes in DTYPES]
    for options in variants:
        for content, dtypes, shape in kinds:
            drawn = CONTENTS.get(content, usual)
            dims = SHAPES[shape] if content == "usual" or shape != "1-D" else (40,)
            arrays = [
                rng.choice([-1.0, 1.0], dims)
                if domain is SIGN
                else drawn(rng, dims, *limits(loss, k, domain, options))
                for k, domain in enumerate(operands)
            ]
            arrays = typed(arrays, dtypes)
            if content == "non-contiguous":
                arrays = spread(arrays)
            given = with_weights(options, rng, dims, dtypes[0])
            yield Case(
                loss,
                f"{name_of(dtypes)} {shape} {content}",
                arrays,
                given,
            )


def limits(loss, k, domain, options):
    """What an operand may hold under these options."""
    if loss == "poisson_nll_loss" and (k == 1 or options.get("log_input") is False):
        return 0, 1e5
    if loss == "kl_div" and k == 1:
        return (-INF, 30) if options.get("log_target") else (0, 1e5)
    return domain


def with_weights(options, rng, shape, dtype):
    """The options, weights drawn."""
    return {
        k: rng.choice([0.5, 1.0, 2.25], shape).astype(dtype) if v is ARRAY else v
        for k, v in options.items()
    }


def shared_cases(rng):
    """Numbers, variances and weights that several elements share."""
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
    """Weights of 0, at entries that hold anything."""
    for loss in ("l1_loss", "mse_loss", "huber_loss", "binary_cross_entropy_with_logits"):
        x, y = extremes(rng, 40), usual(rng, 40, *ELEMENTWISE[loss].operands[1])
        weight = np.where(np.isfinite(x), rng.choice([0.0, 1.0], 40), 0.0)
        yield Case(loss, "float64 1-D weights of 0", (x, y), {"weight": weight})


def infinite_cases(rng):
    """inf - inf, which the extremes seldom meet."""
    x = np.array([INF, -INF, 1.0])
    for loss in ("l1_loss", "smooth_l1_loss"):
        beta = {"beta": 0.0} if loss == "smooth_l1_loss" else {}
        yield Case(loss, "float64 1-D inf - inf", (x, x), beta)


# -- losses of classes

CLASS_SHAPES = {
    "unbatched": ((CLASSES,), ()),
    "(N, C)": ((6, CLASSES), (6,)),
    "(N, C, d)": ((3, CLASSES, 4), (3, 4)),
    "(N, C, d1, d2)": ((2, CLASSES, 3, 2), (2, 3, 2)),
    "empty batch": ((0, CLASSES), (0,)),
    "one class": ((4, 1), (4,)),
    "many classes": ((3, 1200), (3,)),
}
CLASS_OPTIONS = {
    "nll_loss": ({}, {"weight": ARRAY}, {"ignore_index": 2}, {"weight": ARRAY, "ignore_index": 1}),
    "cross_entropy": (
        {},
        {"weight": ARRAY},
        {"ignore_index": 2},
        {"label_smoothing": 0.1},
        {"label_smoothing": 1.0},
        {"weight": ARRAY, "label_smoothing": 0.1, "ignore_index": 1},
    ),
    "multi_margin_loss": ({}, {"p": 2}, {"margin": 0.5}, {"weight": ARRAY, "p": 2}),
}


def log_softmax(x, axis):
    x = x - x.max(axis=axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


def class_cases(loss, rng):
    options = CLASS_OPTIONS[loss]
    second = loss != "multi_margin_loss"
    for given, (shape, (rows, units)), dtype in itertools.product(
        options, CLASS_SHAPES.items(), FLOATS + HALVES
    ):
        if not second and len(rows) > 2:
            continue
        axis = min(1, len(rows) - 1)
        for content in ("usual", "ties", "extremes", "ignored", "all ignored", "non-contiguous"):
            if content != "usual" and shape not in ("(N, C)", "(N, C, d)", "unbatched"):
                continue
            if "ignored" in content and not second:
                continue
            x = CONTENTS.get(content, usual)(rng, rows)
            if loss == "nll_loss" and content != "extremes":
                x = log_softmax(x, axis)
            y = rng.integers(0, rows[axis], units)
            if "ignored" in content:
                ignored = given.get("ignore_index", -100)
                y = (
                    np.where(rng.random(units) < 0.4, ignored, y)
                    if content == "ignored"
                    else (np.full(units, ignored))
                )
                gone = np.expand_dims(y == ignored, axis)
                x = np.where(gone & (rng.random(rows) < 0.5), NAN, x)
            arrays = typed((x, y), [dtype])
            arrays = spread(arrays) if content == "non-contiguous" else arrays
            option = with_weights(given, rng, rows[axis], dtype)
            yield Case(loss, f"{dtype} {shape} {content}", arrays, option)


def integer_cases(loss, rng):
    """Class indices of all widths."""
    x = log_softmax(usual(rng, (6, CLASSES)), 1)
    for dtype in INTEGERS:
        y = rng.integers(0, CLASSES, 6).astype(dtype)
        torchs = ("int64",) if loss == "multi_margin_loss" else ("int64", "uint8")
        yield Case(
            loss,
            f"targets of {dtype}",
            (x, y),
            {},
            acceptance=None if dtype.name in torchs else "integer widths",
        )


def zero_weight_cases(loss, rng):
    """Classes of weight 0, also for all targets."""
    for what, weight in (("some", [0, 1, 0, 2, 0.5]), ("all", [0.0] * CLASSES)):
        for content in ("usual", "-inf"):
            x = log_softmax(usual(rng, (8, CLASSES)), 1)
            if content == "-inf":
                x[:, 0] = -INF
            y = np.arange(8) % CLASSES
            yield Case(
                loss,
                f"{what} weights 0, {content}",
                (x, y),
                {"weight": np.array(weight)},
            )


def probability_cases(rng):
    """Cross entropy of probabilities."""
    loss = "cross_entropy"
    variants = (
        {},
        {"weight": ARRAY},
        {"label_smoothing": 0.1},
        {"label_smoothing": 1.0},
        {"weight": ARRAY, "label_smoothing": 0.1},
    )
    for given, (shape, (rows, _)), dtypes in itertools.product(
        variants, CLASS_SHAPES.items(), DTYPES
    ):
        axis = min(1, len(rows) - 1)
        for content in ("usual", "ties", "extremes", "non-contiguous"):
            if content != "usual" and (shape != "(N, C)" or len(dtypes) > 1):
                continue
            x = CONTENTS.get(content, usual)(rng, rows)
            y = rng.dirichlet(np.ones(rows[axis]), rows)[..., 0]
            if content == "extremes":
                y = np.where(rng.random(rows) < 0.5, 0, y)
            arrays = typed((x, y), dtypes)
            arrays = spread(arrays) if content == "non-contiguous" else arrays
            option = with_weights(given, rng, rows[axis], dtypes[0])
            yield Case(
                loss,
                f"{name_of(dtypes)} {shape} probabilities {content}",
                arrays,
                option,
            )


# -- losses over rows of classes or features


def label_rows(rng, rows):
    """Rows of classes that end with a -1."""
    y = np.argsort(rng.random(rows), axis=-1)
    ends = rng.integers(0, rows[-1] + 1, rows[:-1])[..., np.newaxis]
    return np.where(np.arange(rows[-1]) == ends, -1, y)


ROW_SHAPES = {
    "unbatched": (6,),
    "(N, C)": (5, 6),
    "(N, d, C)": (2, 3, 4),
    "empty batch": (0, 4),
    "one feature": (4, 1),
    "long rows": (2, 1200),
}
ROW_OPTIONS = {
    "multilabel_margin_loss": ({},),
    "multilabel_soft_margin_loss": WEIGHTED,
    "cosine_embedding_loss": ({}, {"margin": 0.5}, {"margin": -0.5}),
    "triplet_margin_loss": (
        {},
        {"margin": 2.0},
        {"swap": True},
        {"p": 1},
        {"p": 3.0, "swap": True},
        {"p": INF},
        {"eps": 0.1},
    ),
}


def row_operands(loss, rng, drawn, rows):
    if loss == "multilabel_margin_loss":
        return [drawn(rng, rows), label_rows(rng, rows)]
    if loss == "multilabel_soft_margin_loss":
        return [drawn(rng, rows), usual(rng, rows, *FRACTION)]
    if loss == "cosine_embedding_loss":
        return [drawn(rng, rows), drawn(rng, rows), rng.choice([-1.0, 1.0], rows[:-1])]
    return [drawn(rng, rows) for _ in range(3)]


def row_cases(loss, rng):
    for given, (shape, rows), dtypes in itertools.product(
        ROW_OPTIONS[loss], ROW_SHAPES.items(), DTYPES
    ):
        if loss in ("multilabel_margin_loss", "cosine_embedding_loss") and len(rows) > 2:
            continue
        if loss == "multilabel_margin_loss" and len(dtypes) > 1:
            continue
        for content in (*CONTENTS, "non-contiguous"):
            if content != "usual" and (shape != "(N, C)" or len(dtypes) > 1):
                continue
            dims = (30, 6) if content in ("ties", "extremes") else rows
            drawn = CONTENTS.get(content, usual)
            arrays = typed(row_operands(loss, rng, drawn, dims), dtypes)
            arrays = spread(arrays) if content == "non-contiguous" else arrays
            option = with_weights(given, rng, dims, dtypes[0])
            if content == "ties" and "eps" in getattr(fl, loss).__signature__.parameters:
                option["eps"] = 0.5  # sums of 1e-6 round, and would not tie
            yield Case(
                loss,
                f"{name_of(dtypes)} {shape} {content}",
                arrays,
                option,
            )


# -- sequences


def sequence_cases(rng):
    loss = "ctc_loss"
    for dtype, (samples, frames, labels), given in itertools.product(
        FLOATS + HALVES,
        ((0, 6, 2), (1, 6, 2), (4, 9, 3), (3, 40, 12)),
        ({}, {"blank": 2}, {"zero_infinity": True}),
    ):
        n = max(samples, 1)
        for content in ("usual", "-inf", "impossible", "concatenated", "empty"):
            x = usual(rng, (frames, n, CLASSES))
            if content == "-inf":
                x[..., 4] = -INF
            with np.errstate(all="ignore"):
                x = log_softmax(x, -1)
            blank = given.get("blank", 0)
            y = rng.integers(0, CLASSES - 1 - (content == "-inf"), (n, labels))
            y += y >= blank
            lengths = rng.integers(1, labels + 1, n)
            times = rng.integers(min(2 * labels, frames), frames + 1, n)
            if content == "impossible":
                y[0], lengths[0], times[0] = y[0, 0], labels, labels  # repeats without a blank
            elif content == "empty":
                lengths[0] = 0
            if content == "concatenated":
                y = np.concatenate([y[i, : lengths[i]] for i in range(n)])
            arrays = (x.astype(dtype), y, times, lengths)
            if samples == 0:
                arrays = (x[:, 0].astype(dtype), y.reshape(-1)[: lengths[0]], times[0], lengths[0])
            yield Case(
                loss,
                f"{dtype} {content} {samples or 'unbatched'}",
                arrays,
                given,
            )


# ---- Declared differences ------------------------------------------------------------------------


class Refusal(NamedTuple):
    """Calls that torch computes and fastloss refuses."""

    sentence: str
    where: str
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
        "labels outside {-1, 1}, which torch computes with",
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
        "bools where labels are -1 and 1",
        "README, Errors",
        TypeError,
        (("hinge_embedding_loss", (X, X > 0), {}),),
    ),
    "targets": Refusal(
        "targets outside [0, 1] of logits",
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
        "class weights that torch reads by their number only",
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
        "class indices (1,) of one row (C,), which torch cannot differentiate",
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
        "labels of sequences that are no classes, by which torch reads foreign memory",
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
        "labels of sequences that are not integers, which torch truncates",
        "help(fl.ctc_loss), Parameters",
        TypeError,
        (("ctc_loss", (CTC, np.array([[1.7, 2.0], [2.0, 1.0]]), *LENGTHS), {}),),
    ),
}


class Acceptance(NamedTuple):
    """Calls that torch refuses."""

    sentence: str
    where: str
    losses: tuple


ACCEPTANCES = {
    "integer widths": Acceptance(
        "class indices of every integer type",
        "README, Arguments",
        ("nll_loss", "cross_entropy", "multi_margin_loss"),
    ),
}


class Torchs(NamedTuple):
    """torch's answer without a reduction, which limits change: `value`, and `grads` by name.

    Rows are last: `by` has the operands in float64, and what is a number for each row with a 1 as
    its last axis; so have the value and the gradients.
    """

    by: dict
    options: dict
    shape: tuple  # of the losses
    value: np.ndarray
    grads: dict

    @property
    def by_row(self):
        return self.value.shape != self.shape

    @property
    def shared(self):
        """Whether elements share an entry of an operand."""
        return not self.by_row and len({a.shape for a in self.by.values()}) > 1

    @property
    def probabilities(self):
        """Whether the targets are rows."""
        return self.by["target"].shape == self.by["input"].shape

    def put(self, where, value=None, **grads):
        """Replaces what is given at these units, or entries of rows."""
        if value is not None:
            units = where if where.shape == self.value.shape else where.any(-1, keepdims=True)
            np.copyto(self.value, value, where=units)
        for name, grad in grads.items():
            if name in self.grads:
                np.copyto(self.grads[name], grad, where=where)


class Limit(NamedTuple):
    """Where fastloss's value or gradient is another than torch's, and what it is."""

    sentence: str
    where: str
    losses: tuple
    correct: Callable  # (Torchs): puts the documented numbers in


LIMITS = []


def limit(sentence, where, *losses):
    """Declares a difference."""

    def declare(correct):
        LIMITS.append(Limit(sentence, where, losses, correct))

    return declare


LOGITS = ("binary_cross_entropy_with_logits", "multilabel_soft_margin_loss")


@limit("soft margins do not overflow", "README, Limits", "soft_margin_loss")
def _soft_margin(t):
    x, y = t.by["input"], t.by["target"]
    far = -y * x > 700
    t.put(far, -y * x, input=-y)


@limit("0 times infinity is its limit", "README, Limits", "poisson_nll_loss")
def _no_counts(t):
    x, y = t.by["input"], t.by["target"]
    none = (y == 0) & ~np.isnan(x)
    if t.options.get("log_input", True):
        t.put(none, np.exp(x), input=np.exp(x))
    else:
        t.put(none, x, input=1)


@limit("0 times infinity is its limit", "README, Limits", "huber_loss")
def _half_squares(t):
    x, y = t.by["input"], t.by["target"]
    if t.options.get("delta") == INF:
        t.put(np.isinf(x - y), INF)


@limit(
    "the gradient by a count of 0 has no part of Stirling's", "README, Limits", "poisson_nll_loss"
)
def _no_stirling(t):
    x, y = t.by["input"], t.by["target"]
    if t.options.get("full"):
        log_input = t.options.get("log_input", True)
        t.put(y == 0, target=-x if log_input else -np.log(x + t.options.get("eps", 1e-8)))


@limit("0 times infinity is its limit", "README, Limits", "kl_div")
def _no_probability(t):
    x, y = t.by["input"], t.by["target"]
    if t.options.get("log_target"):
        none = (y == -INF) & ~np.isnan(x)
        t.put(none, 0, target=0)
        apart = np.isinf(y - x) & ~none
        t.put(apart, (y - x), target=(y - x))
    else:
        t.put((y == 0) & ~np.isnan(x), 0)


@limit("gradients by targets of 0 are limits", "README, Limits", "kl_div")
def _target_gradient(t):
    if not t.options.get("log_target"):
        x, y = t.by["input"], t.by["target"]
        t.put(y == 0, target=np.log(y) + 1 - x)


@limit("0 times infinity is its limit", "README, Limits", LOGITS[0])
def _certain_logits(t):
    x, y = t.by["input"], t.by["target"]
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
    nan = np.isnan(np.broadcast_arrays(*t.by.values(), t.value)[:-1]).any(axis=0)
    t.put(nan, NAN, **dict.fromkeys(t.grads, NAN))


@limit(
    "inf - inf is NaN, in value and gradients",
    "README, NaN",
    "l1_loss",
    "smooth_l1_loss",
    "margin_ranking_loss",
)
def _no_difference(t):
    x, y = list(t.by.values())[:2]
    nan = np.isnan(x - y)
    t.put(nan, NAN, **dict.fromkeys(t.grads, NAN))


@limit(
    "a weight of 0 removes an entry, infinite or NaN",
    "README, NaN",
    "l1_loss",
    "mse_loss",
    "huber_loss",
    LOGITS[0],
)
def _removed(t):
    if "weight" in t.options:
        gone = np.broadcast_to(t.options["weight"] == 0, t.value.shape)
        t.put(gone, 0, **dict.fromkeys(t.grads, 0))


@limit("an ignored row has the gradient 0, NaN in it or not", "README, NaN", "cross_entropy")
def _ignored(t):
    if not t.probabilities:
        gone = t.by["target"] == t.options.get("ignore_index", -100)
        t.put(gone, 0, input=0)


@limit(
    "a class of weight 0 removes its entries, infinite or NaN",
    "README, Limits",
    "nll_loss",
    "cross_entropy",
    "multi_margin_loss",
)
def _removed_class(t):
    if "weight" in t.options and not t.probabilities and not t.options.get("label_smoothing"):
        labels = t.by["target"] % len(t.options["weight"])
        t.put((t.options["weight"] == 0)[labels], 0, input=0)


@limit("NaN propagates to value and gradients", "README, NaN", "nll_loss")
def _nan_class(t):
    if t.by["input"].shape[-1] and t.value.size:
        kept = t.by["target"] != t.options.get("ignore_index", -100)
        chosen = np.arange(t.by["input"].shape[-1]) == t.by["target"]
        t.put(kept & chosen & np.isnan(t.by["input"]), NAN, input=NAN)


@limit("0 times infinity is its limit", "README, Limits", "multilabel_soft_margin_loss")
def _certain_labels(t):
    x, y = t.by["input"], t.by["target"]
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
    nan = np.isnan(np.concatenate([t.value, *t.by.values()], axis=-1)).any(-1, keepdims=True)
    t.put(nan, NAN, **dict.fromkeys(t.grads, NAN))


@limit("a margin of inf - inf is NaN", "README, NaN", "multi_margin_loss", "multilabel_margin_loss")
def _no_margin(t):
    x, y = t.by["input"], t.by["target"]
    if y.shape == x.shape:
        meant = np.cumsum(y == -1, axis=-1) == 0
        meant = ((y[..., np.newaxis] == np.arange(x.shape[-1])) & meant[..., np.newaxis]).any(-2)
    else:
        meant = y == np.arange(x.shape[-1])
    nan = [
        (meant & (x == end)).any(-1, keepdims=True) & (~meant & (x == end)).any(-1, keepdims=True)
        for end in (INF, -INF)
    ]
    t.put(nan[0] | nan[1], NAN, input=NAN)


@limit("a log-probability of -inf has the gradient 0", "README, Limits", "ctc_loss")
def _masked(t):
    t.put(t.by["log_probs"] == -INF, log_probs=0)


@limit(
    "a distance that swap leaves out has no part in the gradient, infinite or not",
    "README, Limits",
    "triplet_margin_loss",
)
def _left_out(t):
    a, b, c = t.by.values()
    p, eps = t.options.get("p", 2.0), t.options.get("eps", 1e-6)
    if not t.options.get("swap"):
        return

    def distance(u, v):
        e = u - v + eps
        size = np.linalg.norm(e, p, -1, keepdims=True)
        return size, np.sign(e) * (np.abs(e) / size) ** (p - 1)

    (_, ab), (ac, to_a), (bc, to_b) = distance(a, b), distance(a, c), distance(b, c)
    t.put(np.isfinite(ac) & (bc == INF), anchor=ab - to_a, positive=-ab, negative=to_a)
    t.put(np.isfinite(bc) & (ac == INF), anchor=ab, positive=-ab - to_b, negative=to_b)


@limit(
    "beyond the hinge the gradient is 0, at infinite distances too",
    "README, Limits",
    "triplet_margin_loss",
)
def _far(t):
    infinite = np.isinf(np.concatenate(list(t.by.values()), axis=-1)).any(-1, keepdims=True)
    t.put((t.value == 0) & infinite, **dict.fromkeys(t.grads, 0))


@limit(
    "a label_smoothing of 1 leaves nothing of the target, whatever its logit",
    "README, Limits",
    "cross_entropy",
)
def _all_smoothed(t):
    if t.options.get("label_smoothing") == 1:
        x = t.by["input"]
        masked = (x == -INF).any(-1, keepdims=True) & np.isfinite(x.max(-1, keepdims=True))
        kept = t.probabilities | (t.by["target"] != t.options.get("ignore_index", -100))
        t.put(masked & kept, INF)
        t.put(masked, target=0)


@limit("0 times infinity is its limit", "README, Limits", "cross_entropy")
def _no_class_probability(t):
    """Classes of probability 0 are left out, and the gradient by them is that of the others."""
    if t.probabilities and not t.options.get("label_smoothing"):
        x, y = t.by["input"], t.by["target"]
        m = x.max(-1, keepdims=True)
        fits = np.isfinite(m) & ~np.isnan(x).any(-1, keepdims=True)
        logs = x - m - np.log(np.exp(x - m).sum(-1, keepdims=True))
        terms = np.where(y == 0, 0, -t.options.get("weight", 1.0) * y * logs)
        t.put(fits, terms.sum(-1, keepdims=True))


# ---- torch ---------------------------------------------------------------------------------------


def tensors(case, arrays, dtype=None):
    """Operands and options as tensors, floating ones of the dtype."""

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


def run_torch(case, reduction, upstream=None, dtype=F64, backward=True):
    """(value, gradients by name), in float64; dtype None: in those of the arrays."""
    loss = getattr(fl, case.loss)
    operands, options = tensors(case, case.arrays, dtype)
    named = dict(zip(loss.operands, operands, strict=True))
    for name in loss.differentiable:
        if named[name].is_floating_point():
            named[name].requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on broadcasting, and on kl_div's mean
        value = getattr(torch.nn.functional, case.loss)(
            *operands, **options | {"reduction": reduction}
        )
        if value.requires_grad and backward:
            each = None if upstream is None else torch.tensor(upstream.astype(np.float64))
            value.backward(torch.ones_like(value) if each is None else each)
    grads = {name: tensor.grad.numpy() for name, tensor in named.items() if tensor.grad is not None}
    return value.detach().numpy(), grads


# ---- Comparison ----------------------------------------------------------------------------------


def terms_of(loss, t):
    """The largest terms of value and gradients, by name, where their sum may be smaller."""
    x, y = list(t.by.values())[:2]
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
        v = np.maximum(t.by["var"], o.get("eps", 1e-6))
        v = v[..., np.newaxis] if v.ndim < x.ndim else v
        share = (x - y) ** 2 / v
        return {"value": np.abs(np.log(v)) + share + bool(o.get("full")), "var": (1 + share) / v}
    if loss == "kl_div" and not o.get("log_target"):
        logs = np.abs(np.log(np.where(y == 0, 1, y)))
        return {"value": y * (logs + np.abs(x)), "target": logs + 1 + np.abs(x)}
    if loss == "kl_div":
        return {"target": np.exp(y) * (np.abs(y - x) + 1)}
    if loss in ("hinge_embedding_loss", "margin_ranking_loss"):
        return {"value": np.abs(x - y * (len(t.by) == 3)) + abs(o.get("margin", 1.0))}
    if loss in LOGITS:
        p, w = o.get("pos_weight", 1.0), np.abs(o.get("weight", 1.0))
        w = w / x.shape[-1] if t.by_row else w
        sigma = 1 / (1 + np.exp(-x))
        return {
            "input": w * ((1 - y) * sigma + p * y * (1 - sigma)),
            "target": w * (np.logaddexp(0, x) + p * np.logaddexp(0, -x)),
        }
    if loss == "binary_cross_entropy":
        return {"target": np.abs(np.log(x)) + np.abs(np.log1p(-x))}
    if loss == "cross_entropy":
        spread = x.max(-1, keepdims=True) - x  # rounded before exp
        return {
            "value": np.abs(t.value) + spread.max(-1, keepdims=True) / 8,
            "input": (1 + spread / 8) * np.abs(o.get("weight", 1.0)).max(initial=1),
        }
    if loss == "multi_margin_loss" or loss == "multilabel_margin_loss":
        return {"value": x.max(-1, keepdims=True) - x.min(-1, keepdims=True), "input": 1}
    if loss == "cosine_embedding_loss":
        return {
            "value": 1 + abs(o.get("margin", 0.0)),
            "input1": 1 / np.linalg.norm(x, axis=-1, keepdims=True),
            "input2": 1 / np.linalg.norm(y, axis=-1, keepdims=True),
        }
    if loss == "ctc_loss":  # documented as within 64 units in the worst case
        return {"value": 16 * np.abs(t.value), "log_probs": 16 * (np.exp(x) + 1)}
    if loss == "triplet_margin_loss":
        x, y, z = t.by.values()
        size = [
            np.linalg.norm(d, o.get("p", 2.0), -1, keepdims=True) for d in (x - y, x - z, y - z)
        ]
        return {"value": sum(size), "anchor": 1, "positive": 1, "negative": 1}
    return {}


class Verdict(NamedTuple):
    """What a case came to: its reasons to differ from torch, and what is wrong with it."""

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
        return Verdict(reason, f"gives {got}, raises no {refusal.error.__name__}")
    if not refusal.unsafe:
        try:
            run_torch(case, "mean", dtype=None, backward=False)
        except Exception as error:
            return Verdict(reason, f"torch refuses it, too: {error!r}")
    return Verdict(reason)


def torch_takes(case, reduction):
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
    upstream = None
    if reduction == "none":
        rng = np.random.default_rng([*case.what.encode()])
        upstream = rng.normal(size=t.shape).astype(floating[0])
    got, slopes = loss.value_and_grad(*case.arrays, **case.options, wrt=wrt, grad_output=upstream)
    if case.acceptance:
        reasons.append(ACCEPTANCES[case.acceptance][:2])
        if torch_takes(case, reduction):
            return Verdict(reasons, "torch takes it")
    value, grads, scale = expected(case, t, upstream, reasons)
    slack = allowed(case.loss, t, float(np.finfo(compute).eps))
    if reduction == "none":
        out = floating[0] if len(set(floating)) == 1 else compute
        wrong = differ("value", rows(case, got), value, slack["value"], out)
    elif type(got) is not float:
        wrong = f"the value is a {type(got).__name__}"
    else:
        wrong = differ("value", got, value, np.sum(slack["value"] * np.abs(scale)), F64)
    for name, slope in zip(wrt, slopes, strict=True):
        bound = slack[name]
        if t.shared:
            bound = bound.sum() * np.abs(scale).max(initial=0) * t.value.size
        else:
            bound = bound * np.abs(scale)
        wrong = wrong or differ(name, rows(case, slope), grads[name], bound, operands[name].dtype)
    if wrong and not case.by_row and "[" in wrong:
        at = tuple(map(int, wrong[wrong.index("[") + 1 : wrong.index("]")].split(",")))
        wrong += f" for {[float(a[at]) for a in t.by.values() if a.shape == t.shape]}"
    return Verdict(reasons, wrong)


def rows(case, array):
    """Rows last; what is one number for each row with a 1 as its last axis."""
    array, x = np.asarray(array), case.arrays[0]
    if not case.by_row:
        return array
    if array.ndim < x.ndim:
        return array[..., np.newaxis]
    if case.loss == "ctc_loss":
        return np.moveaxis(array, -2, 0).reshape(*x.shape[1:-1], -1)
    second = case.loss in ("nll_loss", "cross_entropy") and x.ndim > 1
    return np.moveaxis(array, 1, -1) if second else array


def unreduced(case):
    """torch's losses and gradients without reduction, with their limits, and the reasons."""
    loss, reasons = getattr(fl, case.loss), []
    arrays = [rows(case, a) for a in case.arrays]
    by = {
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
    t = Torchs(
        by,
        options,
        value.shape,
        np.array(rows(case, value)),
        {name: np.array(rows(case, grad)) for name, grad in grads.items()},
    )
    if t.shared:
        return t, reasons  # such cases hold nothing special
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
    """What a mean divides by."""
    weight = t.options.get("weight")
    if case.options["reduction"] == "batchmean":
        return t.shape[0] if t.shape else 1
    if weight is not None and case.loss in ("l1_loss", "mse_loss"):
        return np.broadcast_to(weight, t.shape).sum()
    if case.loss in ("nll_loss", "cross_entropy") and not t.probabilities:
        labels = t.by["target"]
        kept = labels != t.options.get("ignore_index", -100)
        return kept.sum() if weight is None else weight[labels[kept]].sum()
    return t.value.size


def expected(case, t, upstream, reasons):
    """(value, gradients, what multiplies those of a unit), rows last."""
    reduction = case.options["reduction"]
    if reduction == "none":
        scale = np.array(rows(case, upstream.astype(np.float64)))
    else:
        scale = np.ones_like(t.value)
    if reduction in ("mean", "batchmean"):
        scale = scale / divisor(case, t)
        if case.loss == "ctc_loss":
            scale = scale / np.maximum(t.by["target_lengths"], 1)
    if not reasons or case.acceptance:
        value, grads = run_torch(case, reduction, upstream)
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
    "an empty batch has the mean NaN and the sum 0, not uninitialised memory",
    "help(fl.multi_margin_loss), Notes",
)
NO_DIVISOR = ("the gradient is 0 where all weights are", "help(fl.nll_loss), Notes")
AVERAGED = ("nll_loss", "cross_entropy")  # by their weights


def allowed(loss, t, eps):
    """Bounds of the errors of losses and gradients, by name.

    4 ULP of the largest term; and for torch's own error 16 units of float64, of the largest number
    around, from which it may subtract, times the root of the length of rows, which it adds up one
    entry after the other.
    """
    around, length = 1.0, max(a.shape[-1] for a in t.by.values()) if t.by_row else 1
    for array in t.by.values():
        if array.dtype.kind in "iu":
            continue
        size = np.abs(np.where(np.isfinite(array), array, 0)).astype(np.float64)
        size = size.max(-1, keepdims=True, initial=0) if t.by_row else size
        around = np.maximum(around, size.max() if t.shared else size)
    terms = terms_of(loss, t)
    if t.shared:
        terms = {name: np.max(term) for name, term in terms.items()}
    bounds = {}
    for name, result in {"value": t.value, **t.grads}.items():
        term = np.nan_to_num(terms.get(name, 0), nan=0, posinf=0)
        term = np.maximum(np.abs(result), term)
        torchs = 16 * EPS * np.sqrt(length) * np.maximum(term, around)
        bounds[name] = 4 * eps * term + torchs + 1e-45
    return bounds


def differ(name, got, value, bound, dtype):
    """What is wrong with a result, if anything."""
    got, value = np.asarray(got), np.asarray(value, np.float64)
    if got.shape != value.shape or (got.ndim and got.dtype != dtype):
        return f"{name}: {got.dtype}{got.shape} instead of {dtype}{value.shape}"
    rounded = value.astype(dtype).astype(np.float64)
    exact, got = got.dtype, got.astype(np.float64)
    info = np.finfo(exact) if exact.name != "bfloat16" else ml_dtypes.finfo(exact)
    half = np.abs(value) * float(info.eps) / 2 + float(info.smallest_subnormal)
    bound = bound + (half if exact.itemsize == 2 else 0)
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
        for this, arrays, options in refusal.calls:
            if this == loss:
                yield Case(loss, refusal.sentence, arrays, options, refusal=name)


def cases(loss, seed=0):
    """All cases of a loss."""
    rng = np.random.default_rng([seed, *loss.encode()])
    with np.errstate(all="ignore"):
        for case in itertools.chain(*(maker(rng) for maker in MAKERS[loss])):
            for reduction in reductions(loss):
                yield case._replace(options=case.options | {"reduction": reduction})
        yield from refusal_cases(loss)


def declared(loss):
    """The reasons for which a loss may differ from torch."""
    found = [r for r in (*LIMITS, *ACCEPTANCES.values()) if loss in r.losses]
    found += [r for r in REFUSALS.values() if any(call[0] == loss for call in r.calls)]
    reasons = [(r.sentence, r.where) for r in found]
    reasons += [EMPTY_REASON] * (loss in EMPTY) + [NO_DIVISOR] * (loss in AVERAGED)
    assert len(set(reasons)) == len(reasons), loss
    return set(reasons)


def only(maker, loss):
    return lambda rng: (case for case in maker(rng) if case.loss == loss)


MAKERS = {
    loss: [
        lambda rng, loss=loss: elementwise_cases(loss, rng),
        only(shared_cases, loss),
        only(removed_cases, loss),
        only(infinite_cases, loss),
    ]
    for loss in ELEMENTWISE
}
MAKERS |= {
    loss: [
        lambda rng, loss=loss: class_cases(loss, rng),
        lambda rng, loss=loss: integer_cases(loss, rng),
        lambda rng, loss=loss: zero_weight_cases(loss, rng),
    ]
    for loss in CLASS_OPTIONS
}
MAKERS["cross_entropy"].append(probability_cases)
MAKERS |= {loss: [lambda rng, loss=loss: row_cases(loss, rng)] for loss in ROW_OPTIONS}
MAKERS["ctc_loss"] = [sequence_cases]


def main(arguments=None):
    """The number of cases that differ without a reason, and of reasons that no case shows."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.parity", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--loss", action="append", choices=MAKERS, help="only this loss")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    reasons, total, idle = Counter(), Counter(), 0
    print(f"{'loss':<34} {'cases':>6} {'equal':>6} {'on purpose':>11} {'different':>10}")
    for loss in chosen.loss or MAKERS:
        row, shown = Counter(), set()
        for case in cases(loss, chosen.seed):
            verdict = judge(case)
            kind = "different" if verdict.wrong else "on purpose" if verdict.reasons else "equal"
            row.update(("cases", kind))
            if verdict.wrong:
                print(f"DIFFERENT {verdict.wrong}\n    {case}")
            else:
                reasons.update(set(verdict.reasons))
            shown |= set(verdict.reasons)
        total += row
        _print_row(loss, row)
        for sentence, where in sorted(declared(loss) ^ shown):
            idle += 1
            fault = "UNDECLARED" if (sentence, where) in shown else "UNUSED"
            print(f"{fault} {sentence} ({where})")
    _print_row("all", total)
    print("\non purpose:")
    for (sentence, where), count in sorted(reasons.items(), key=lambda item: -item[1]):
        print(f"{count:>6}  {sentence} ({where})")
    return total["different"] + idle


def _print_row(name, row):
    print(
        f"{name:<34} {row['cases']:>6} {row['equal']:>6} {row['on purpose']:>11} "
        f"{row['different']:>10}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main() > 0)
