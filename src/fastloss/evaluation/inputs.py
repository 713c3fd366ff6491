"""The input of an evaluation: arrays of the loss or batches, and which arrays share their rows."""

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fastloss._arrays import as_array, is_dask
from fastloss.criteria import Criterion
from fastloss.evaluation.comparison import BASELINE, baseline_arrays

ELEMENT_WEIGHTS = ("weight", "pos_weight")  # options that may hold a weight for each element


@dataclass
class EvaluationInput:
    """Criteria and the data to evaluate them on: arrays, or one iterable of batches."""

    criteria: list[Criterion]
    data: tuple[Any, ...]
    sample_weight: Any
    by: Literal["class", "group"] | None
    labels: Any  # of the groups; None if the batches hold them
    chunk_rows: int | None
    missing_chunks: Literal["warn", "error", "fill"] | None = None
    class_axis: int | None = None  # of the input and of probabilities; None is the loss's own
    baseline: Any = None  # another prediction; True if the batches hold one

    def __post_init__(self) -> None:
        check_class_axis(self.criteria, self.class_axis)
        if self.baseline is False:
            self.baseline = None

    @property
    def operands(self) -> tuple[str, ...]:
        return self.criteria[0].loss.operands

    @property
    def losses(self) -> list[Any]:
        return [criterion.loss for criterion in self.criteria]

    @property
    def compares(self) -> bool:
        """Whether losses are compared with the losses of a baseline."""
        return self.baseline is not None

    def is_batches(self) -> bool:
        """Whether the data are batches rather than the arrays of the loss."""
        if len(self.data) == 1 and len(self.operands) > 1:
            options = (self.sample_weight, self.labels, self.chunk_rows, self.missing_chunks)
            if any(option is not None for option in options):
                raise TypeError(
                    "sample_weight, labels in by, chunk_rows and missing_chunks require arrays: "
                    "for batches, pass dicts with sample_weight and group"
                )
            if self.compares and self.baseline is not True:
                raise TypeError(
                    "baseline holds arrays, and the data are batches: pass baseline=True, and "
                    "batches that are dicts with a baseline"
                )
            return True
        if self.by == "group" and self.labels is None:
            raise TypeError("by='group' requires batches with a group: for arrays, pass labels")
        if len(self.data) != len(self.operands):
            raise TypeError(
                f"{self.criteria[0].loss.__name__} reads {len(self.operands)} arrays "
                f"({', '.join(self.operands)}) or one iterable of batches, but {len(self.data)} "
                "were passed"
            )
        if self.baseline is True:
            raise TypeError(
                "baseline=True requires batches with a baseline: for arrays, pass the prediction"
            )
        return False

    def arrays(self) -> dict[Any, Any]:
        """The arrays that were passed, by name.

        The keys of weights of elements are (number of the criterion, name).
        """
        arrays: dict[Any, Any] = dict(zip(self.operands, self.data, strict=False))
        if self.compares and self.baseline is not True:
            arrays |= baseline_arrays(self.losses, self.baseline)
        arrays |= {"sample_weight": self.sample_weight, "by": self.labels}
        for k, criterion in enumerate(self.criteria):
            arrays |= {(k, name): criterion.get_params().get(name) for name in ELEMENT_WEIGHTS}
        return {key: value for key, value in arrays.items() if value is not None}

    def on_dask(self) -> bool:
        """Whether any array, or any batch in a list of them, is a Dask collection."""
        data = self.data[0] if len(self.data) == 1 else ()
        batches = data if isinstance(data, (list, tuple)) else ()
        return any(map(is_dask, (*self.arrays().values(), *batches)))


def array_name(key: Any) -> str:
    """The name of an array by its key in `EvaluationInput.arrays`."""
    return key if isinstance(key, str) else key[1]


def element_weights_by_criterion(arrays: dict[Any, Any], criteria: int) -> list[dict[str, Any]]:
    """For each criterion its weights of elements by name, from arrays by key."""
    return [
        {name: arrays[k, name] for name in ELEMENT_WEIGHTS if (k, name) in arrays}
        for k in range(criteria)
    ]


def batch_by_name(
    operands: tuple[str, ...], batch: Any, number: int, compares: bool
) -> dict[str, Any]:
    """The arrays of a batch by name, with `sample_weight` and `group` if it has them.

    It must have a baseline if `compares`.
    """
    names = (*operands, "sample_weight")
    required = {*operands, BASELINE} if compares else {*operands}
    if isinstance(batch, dict):
        unknown = set(batch) - required - {"sample_weight", "group"}
        if not unknown and required <= set(batch):
            return batch
        if unknown == {BASELINE}:
            raise TypeError(
                f"batch {number} has a baseline: pass baseline=True to compare its losses"
            )
    elif (
        isinstance(batch, (tuple, list))
        and len(batch) in (len(names) - 1, len(names))
        and not compares
    ):
        return dict(zip(names, batch, strict=False))
    description = f"a {type(batch).__name__}"
    if isinstance(batch, dict):
        description += f" of {', '.join(map(str, batch)) or 'nothing'}"
    elif isinstance(batch, (tuple, list)):
        description += f" of {len(batch)}"
    if compares:
        raise TypeError(
            f"batch {number} is {description}: with baseline=True, it must be a dict of "
            f"{', '.join(operands)} and baseline (and sample_weight)"
        )
    raise TypeError(
        f"batch {number} is {description}: it must be a tuple of {', '.join(operands)} "
        "(and sample_weight), or a dict of them"
    )


def check_class_axis(criteria: list[Criterion], class_axis: Any) -> None:
    """Raises an error for criteria that cannot read their classes from this axis of the input."""
    if class_axis is None:
        return
    if isinstance(class_axis, bool) or not isinstance(class_axis, numbers.Integral):
        raise TypeError(f"class_axis must be an integer, got {class_axis!r}")
    for criterion in criteria:
        loss: Any = criterion.loss
        if loss.row_axis is None or "input_lengths" in loss.operands:
            raise ValueError(
                f"class_axis is not an option of {loss.__name__}: it is for losses that expect the "
                "classes on axis 1 of the input, such as cross_entropy"
            )
        if loss.row_axis == -1 != class_axis:
            raise ValueError(
                f"class_axis is {class_axis}, and {loss.__name__} reads classes from the last axis"
            )


def with_classes_moved(criterion: Criterion, class_axis: int | None, arrays: Sequence[Any]) -> Any:
    """The arrays of a loss, as views with the axis of the classes where the loss expects it.

    Class indices have no such axis, and probabilities have the shape of the input.
    """
    loss: Any = criterion.loss
    if class_axis is None or loss.row_axis != 1:
        return arrays
    input = as_array(arrays[0], "input")
    target = as_array(arrays[1], "target")
    axis = class_axis_of(class_axis, input.shape, target.shape)
    if target.shape == input.shape and target.dtype.kind in "iub" and input.ndim:
        raise TypeError(
            f"target has the input's shape {input.shape} but holds integers ({target.dtype}): pass "
            f"target.argmax(axis={class_axis}) if each row has one 1"
        )
    if input.ndim < 2:
        return [input, target]
    if target.shape == input.shape:
        target = np.moveaxis(target, axis, 1)
    return [np.moveaxis(input, axis, 1), target]


def class_axis_of(class_axis: int, shape: tuple[int, ...], target: tuple[int, ...]) -> int:
    """The axis of the classes as a number from 0 on; raises an error if the shapes do not fit."""
    ndim = len(shape)
    if not -ndim <= class_axis < ndim:
        raise ValueError(f"class_axis is {class_axis}, but input has shape {shape}")
    axis = class_axis % ndim
    if axis == 0 and ndim > 1:
        raise ValueError(f"class_axis is {class_axis}, the axis of the rows of input {shape}")
    if target not in (shape, shape[:axis] + shape[axis + 1 :]):
        raise ValueError(
            f"target has shape {target}: with class_axis={class_axis}, class indices for input of "
            f"shape {shape} must have shape {shape[:axis] + shape[axis + 1 :]}, and probabilities "
            "the shape of the input"
        )
    return axis


def supports_row_chunks(criterion: Criterion, input_ndim: int, target_ndim: int) -> bool:
    """Whether a call on some leading rows gives the losses of these rows.

    Losses of sequences require that samples lead and that each has its row of targets.
    """
    if "input_lengths" not in criterion.loss.operands:
        return True
    return input_ndim == 3 and target_ndim == 2 and bool(criterion.get_params()["batch_first"])


def is_row_aligned(key: Any, shape: tuple[int, ...], leader: tuple[int, ...]) -> bool:
    """Whether an array has an entry for each row; otherwise it applies to all rows.

    `leader` is the shape of the first array of the loss that is not 0-d.
    """
    if not shape:
        return False
    same_ndim = len(shape) == len(leader)
    broadcast = same_ndim and shape[0] == 1 != leader[0]
    if isinstance(key, tuple):  # weights of elements broadcast to the input, from its last axis on
        return same_ndim and not broadcast
    return not (key in ("var", f"{BASELINE} var") and broadcast)
