"""Comparison of two predictions on the same targets: the input of a loss and its baseline.

Let l and b be the losses of input and baseline, w their weights and d the contribution of each loss
to the divisor of the mean, which does not depend on the prediction. The difference has the terms
w l − w b and the divisors d, so that its standard error is the one of paired samples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastloss._arrays import as_array
from fastloss._binding import Loss, UnitOutputs

BASELINE = "baseline"  # the key of a baseline in a batch, and of the array of the first operand


def baseline_arrays(losses: Sequence[Loss], baseline: Any) -> dict[str, Any]:
    """The arrays of a baseline: "baseline" is the first operand, "baseline var" the one named var.

    Operands have their names in the first loss.
    """
    operands = losses[0].operands
    if not isinstance(baseline, Mapping):
        for loss in losses:
            if len(loss.default_wrt) > 1:
                names = ", ".join(f"{name!r}: ..." for name in loss.default_wrt)
                raise TypeError(
                    f"baseline: {loss.__name__} reads {len(loss.default_wrt)} predictions: pass a "
                    f"dict of those that differ, baseline={{{names}}}"
                )
        return {BASELINE: baseline}
    predictions = [name for name in operands if not name.startswith("target")]
    unknown = [name for name in baseline if name not in predictions]
    if unknown or not baseline:
        raise TypeError(
            f"baseline is a dict of {', '.join(map(str, baseline)) or 'nothing'}: it may have "
            f"{', '.join(predictions)}"
        )
    return {_key(operands, name): baseline[name] for name in predictions if name in baseline}


def _key(operands: Sequence[str], name: str) -> str:
    """The key of the array that replaces an operand, which is its name in messages."""
    return BASELINE if name == operands[0] else f"{BASELINE} {name}"


def with_baseline(
    operands: Sequence[str], arrays: Sequence[Any], baseline: Mapping[str, Any]
) -> list[Any]:
    """The operands of the baseline, which shares all others with the input."""
    return [
        baseline.get(_key(operands, name), array)
        for name, array in zip(operands, arrays, strict=True)
    ]


def check_shape(shape: Sequence[Any], operand: str, other: Sequence[Any]) -> None:
    """Raises an error unless the first operand of a baseline has the shape of the input's, or one
    of them is 0-d. The loss itself checks further operands, such as a variance.

    Lengths that Dask does not know are NaN.
    """
    if len(shape) == len(other):
        if all(a == b or a != a or b != b for a, b in zip(shape, other, strict=True)):
            return
    elif not len(shape) or not len(other):
        return
    raise ValueError(
        f"baseline has shape {tuple(shape)}, and {operand} has shape {tuple(other)}: both must "
        "have the same shape"
    )


def as_pair(
    operands: Sequence[str], arrays: Sequence[Any], baseline: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """The operands of the input and of the baseline, each array-like converted once, after a check
    of their shapes.

    Python scalars remain, since they have no dtype of their own.
    """
    first, second = list(arrays), list(baseline)
    for k, name in enumerate(operands[: len(first)]):
        is_replaced = second[k] is not first[k]
        first[k] = _as_operand(first[k], name)
        if is_replaced:
            second[k] = _as_operand(second[k], _key(operands, name))
            if k == 0:
                check_shape(np.shape(second[k]), name, np.shape(first[k]))
        else:
            second[k] = first[k]
    return first, second


def _as_operand(value: Any, name: str) -> Any:
    return value if isinstance(value, (bool, int, float)) else as_array(value, name)


def subtract_terms(units: UnitOutputs, other: UnitOutputs) -> None:
    """Subtracts from the term of each unit in the sum the one of another prediction.

    Raises an error if the losses of the two differ in shape or weights, or if a difference
    overflows. inf − inf is NaN.
    """
    terms, others = units.weighted_loss, other.weighted_loss
    if terms.shape != others.shape:
        raise ValueError(
            f"input has losses of shape {terms.shape}, and the baseline of shape {others.shape}: "
            "both must have the same shape"
        )
    if not (
        np.array_equal(units.unit_counted, other.unit_counted)
        and np.array_equal(units.unit_divisor, other.unit_divisor, equal_nan=True)
    ):
        raise RuntimeError(
            "the losses of the baseline have other weights than those of input: targets or weights "
            "changed while they were read; nothing was added"
        )
    with np.errstate(all="ignore"):
        differences = terms - others
    infinite = np.isinf(differences)
    if infinite.any() and (np.isfinite(terms) & np.isfinite(others))[infinite].any():
        raise OverflowError(
            "difference: a loss minus the loss of the baseline is out of the range of float64: "
            "multiply the weights by a power of two"
        )
    np.copyto(terms, differences)
