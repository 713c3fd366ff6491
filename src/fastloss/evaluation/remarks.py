"""Remarks on data that a loss accepts although they seem to be meant for another loss.

A loss cannot know whether its input is a logit, a logarithm or a probability. `evaluate` compares
the first chunk with the properties of each, and its report names contradictions. The losses
themselves never warn.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastloss._arrays import as_array
from fastloss.criteria import Criterion

SAMPLE = 1 << 16  # entries of an array that are examined
MINIMUM = 16  # single values whose range says something; rows of classes say it at once
TOLERANCE = 0.01  # of sums of probabilities, which may be rounded to a few digits or to half types

# The input of a loss of rows, and the axis of the classes.
_ROWS = {
    "cross_entropy": ("logits", 1),
    "nll_loss": ("log-probabilities", 1),
    "kl_div": ("log-probabilities", -1),
    "ctc_loss_with_logits": ("logits", -1),
    "multi_margin_loss": ("scores", -1),
    "multilabel_margin_loss": ("scores", -1),
}
_LOGITS = (
    "binary_cross_entropy_with_logits",
    "multilabel_soft_margin_loss",
    "sigmoid_focal_loss",
    "soft_margin_loss",
)
_RATES = ("poisson_nll_loss", "gamma_nll_loss")


def remarks(criterion: Criterion, arrays: Sequence[Any]) -> tuple[str, ...]:
    """Sentences on contradictions between the arrays of a chunk and their loss, usually none.

    The losses of the chunk have been computed, so the arrays are valid.
    """
    name = criterion.loss.__name__
    errors = (
        TypeError,
        ValueError,
        IndexError,
        ZeroDivisionError,
    )  # of scalars, of odd array-likes
    with contextlib.suppress(*errors), np.errstate(all="ignore"):
        if name in _ROWS:
            return tuple(_of_rows(criterion, *arrays[:2]))
        if name in _LOGITS or name == "binary_cross_entropy":
            return tuple(_of_two_classes(name, *map(_values, arrays[:2])))
        if name in _RATES:
            return tuple(_of_rates(criterion.get_params(), *map(_values, arrays[:2])))
    return ()


# ---- rows of classes -----------------------------------------------------------------------------


def _of_rows(criterion, input, target):
    name, argument = criterion.loss.__name__, criterion.loss.operands[0]
    expected, axis = _ROWS[name]
    rows = _rows(input, axis)
    found = _nature(rows)
    if found == "probabilities":
        yield (
            f"{argument} looks like probabilities, since each row sums to 1, but {name} reads "
            f"{expected}{_REMEDIES[name]}"
        )
    elif found == "log-probabilities" and expected == "logits":
        other = "nll_loss" if name == "cross_entropy" else "ctc_loss"
        yield (
            f"{argument} looks like log-probabilities, since the exponentials of each row sum to "
            f"1; the value is right, and {other} computes it without a second softmax"
        )
    elif found is None and expected == "log-probabilities" and len(rows):
        sums = np.exp(rows).sum(1)
        if np.mean(sums > 1 + TOLERANCE) <= 0.5 or (name == "kl_div" and rows.max() <= 0):
            return  # some rows may be padding, and kl_div may have one value per distribution
        yield (
            f"{argument} does not look like log-probabilities: the exponentials of a row sum to "
            f"{sums.max():.3g} instead of 1{_LOGIT_REMEDIES[name]}"
        )
    if name == "cross_entropy" or (name == "kl_div" and criterion.get_params()["log_target"]):
        yield from _of_target_rows(name, target, axis)


_REMEDIES = {
    "cross_entropy": " and applies softmax: take nll_loss of their logarithms",
    "ctc_loss_with_logits": " and applies softmax: take ctc_loss of their logarithms",
    "nll_loss": ": take their logarithms",
    "kl_div": ": take their logarithms",
    "multi_margin_loss": ", whose differences a margin of 1 is made for",
    "multilabel_margin_loss": ", whose differences a margin of 1 is made for",
}
_LOGIT_REMEDIES = {
    "nll_loss": "; for logits, use cross_entropy",
    "kl_div": "; subtract the logarithm of the sum of exponentials from logits",
}


def _of_target_rows(name, target, axis):
    """Remarks on targets that are distributions."""
    if as_array(_head(target, 1), "target").dtype.kind in "iub":  # class indices
        return
    rows = _rows(target, axis)
    if name == "kl_div":
        if _nature(rows) == "probabilities":
            yield (
                "target looks like probabilities, since each row sums to 1, but with log_target "
                "kl_div reads their logarithms"
            )
    elif len(rows):
        sums = rows.sum(1)
        worst = sums[np.abs(sums - 1).argmax()]
        if abs(worst - 1) > TOLERANCE:
            yield (
                f"target does not look like probabilities: a row sums to {worst:.3g} instead of 1"
            )


def _nature(rows):
    """ "probabilities", "log-probabilities", or None for other rows."""
    if rows.size == 0 or rows.shape[1] < 2:
        return None
    if rows.min() >= 0:
        sums, nature = rows.sum(1), "probabilities"
    elif rows.max() <= TOLERANCE:
        sums, nature = np.exp(rows).sum(1), "log-probabilities"
    else:
        return None
    return nature if np.abs(sums - 1).max() <= TOLERANCE else None


# ---- one value for each loss ---------------------------------------------------------------------


def _of_two_classes(name, input, target):
    if len(input) < MINIMUM or input.min() < 0 or input.max() > 1:
        return
    if np.isin(input, (0, 1)).all() and not np.isin(target, (-1, 0, 1)).all():
        yield "input holds only 0 and 1, and target other values: are they swapped?"
    elif name == "binary_cross_entropy":
        if np.isin(input, (0, 1)).all():
            yield (
                "input holds only 0 and 1, which look like predicted labels; "
                "binary_cross_entropy reads probabilities"
            )
    else:
        yield (
            "input looks like probabilities, since all values are between 0 and 1, but "
            f"{name} reads logits: {_SIGMOID_REMEDIES[name]}"
        )


_SIGMOID_REMEDIES = {
    "binary_cross_entropy_with_logits": "use binary_cross_entropy",
    "multilabel_soft_margin_loss": "use binary_cross_entropy",
    "sigmoid_focal_loss": "take log(p / (1 - p)) of them",
    "soft_margin_loss": "use binary_cross_entropy with labels 0 and 1",
}


def _of_rates(options, input, target):
    """Rates agree with the targets on average, and so do the exponentials of log rates."""
    if len(input) < MINIMUM or not target.mean() > 0 or input.min() < 0:
        return
    rate, exponential = input.mean() / target.mean(), np.exp(input).mean() / target.mean()
    if options["log_input"] and 0.75 < rate < 1.33 and exponential > 3:
        yield (
            f"input looks like rates: its mean is {rate:.2g} times that of target, and the mean of "
            f"its exponentials {exponential:.2g} times; use log_input=False for rates"
        )
    elif not options["log_input"] and 0.75 < exponential < 1.33 and rate < 0.33:
        yield (
            "input looks like logarithms of rates: the mean of its exponentials is "
            f"{exponential:.2g} times that of target, and its mean {rate:.2g} times; use "
            "log_input=True for logarithms"
        )


# ---- samples of arrays ---------------------------------------------------------------------------


def _head(value: Any, rows: int) -> Any:
    """The first rows of an array-like; a scalar as it is."""
    try:
        return value[:rows]
    except (TypeError, IndexError, KeyError):
        return value


def _values(value: Any) -> np.ndarray:
    """Some values of an array, without NaN."""
    values = _sample(value, None).ravel()
    return values[~np.isnan(values)]


def _rows(value: Any, axis: int) -> np.ndarray:
    """Some rows of an array along an axis, without rows of NaN or zeros, which are padding."""
    array = _sample(value, axis)
    rows = np.moveaxis(array, min(axis, array.ndim - 1), -1)
    rows = rows.reshape(-1, rows.shape[-1])
    return rows[~np.isnan(rows).any(1) & rows.any(1)]


def _sample(value: Any, axis: int | None) -> np.ndarray:
    """The first entries of an array along each axis, all of one axis, as float64."""
    array = as_array(_head(value, SAMPLE), "array")
    if axis is not None:
        axis = min(axis, array.ndim - 1) % array.ndim
    budget = SAMPLE if axis is None else max(SAMPLE // max(array.shape[axis], 1), 1)
    index = []
    for k, length in enumerate(array.shape):
        if k == axis:
            index.append(slice(None))
        else:
            index.append(slice(budget))
            budget = max(budget // max(min(length, budget), 1), 1)
    return array[tuple(index)].astype(np.float64)
