"""The input of an evaluation: arrays of the loss or batches, and which arrays share their rows."""

from dataclasses import dataclass
from typing import Any, Literal

from fastloss._arrays import is_dask
from fastloss.criteria import Criterion

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

    @property
    def operands(self) -> tuple[str, ...]:
        return self.criteria[0].loss.operands

    def is_batches(self) -> bool:
        """Whether the data are batches rather than the arrays of the loss."""
        if len(self.data) == 1 and len(self.operands) > 1:
            options = (self.sample_weight, self.labels, self.chunk_rows, self.missing_chunks)
            if any(option is not None for option in options):
                raise TypeError(
                    "sample_weight, labels in by, chunk_rows and missing_chunks require arrays: "
                    "for batches, pass dicts with sample_weight and group"
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
        return False

    def arrays(self) -> dict[Any, Any]:
        """The arrays that were passed, by name.

        The keys of weights of elements are (number of the criterion, name).
        """
        arrays: dict[Any, Any] = dict(zip(self.operands, self.data, strict=False))
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


def batch_by_name(operands: tuple[str, ...], batch: Any, number: int) -> dict[str, Any]:
    """The arrays of a batch by name, with `sample_weight` and `group` if it has them."""
    names = (*operands, "sample_weight")
    if isinstance(batch, dict):
        unknown = set(batch) - {*names, "group"}
        if not unknown and set(operands) <= set(batch):
            return batch
    elif isinstance(batch, (tuple, list)) and len(batch) in (len(names) - 1, len(names)):
        return dict(zip(names, batch, strict=False))
    description = f"a {type(batch).__name__}"
    if isinstance(batch, dict):
        description += f" of {', '.join(map(str, batch)) or 'nothing'}"
    elif isinstance(batch, (tuple, list)):
        description += f" of {len(batch)}"
    raise TypeError(
        f"batch {number} is {description}: it must be a tuple of {', '.join(operands)} "
        "(and sample_weight), or a dict of them"
    )


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
    return not (key == "var" and broadcast)
