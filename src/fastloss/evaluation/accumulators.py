"""Running losses: what a criterion comes to over batches that come one after the other, or apart.

The state is a few numbers, sums in double-double: it adds up to the value over all the data in one
call, however they were split.
"""

import copy
import json
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss import _binding, _errors, criteria
from fastloss._arrays import as_array
from fastloss._binding import LossSums, UnitOutputs

__all__ = ["Accumulator", "Totals"]

_VERSION = 1  # of what to_dict returns
_TABLE = 1 << 20  # labels that are integers below this are found in a table, not by sorting


@dataclass(frozen=True)
class Totals:
    """What the losses of a group come to; `value` and its standard error as reduced."""

    value: float
    stderr: float
    sum: float
    weight: float
    count: int


class Accumulator:
    """The running loss of a criterion over batches, as ``criterion.accumulator()`` makes it.

    Its value is that of the criterion over all the data in one call: to within 1e-13 of the sum of
    the losses' sizes however they were split and merged, and bit for bit where the batches come in
    order and all but the last hold whole blocks of rows (multiples of 8192 elements are). It is
    small, can be pickled and sent as JSON, and threads may share it.

    Parameters
    ----------
    criterion : Criterion
        With `reduction` "mean", "sum", or "batchmean" where it has that.
    by : {None, "class", "group"}, default None
        What to keep totals of besides: the classes that the targets name, or groups that every
        `update` names. An update then takes 25 bytes for each loss while it runs.

    Raises
    ------
    TypeError
        For what is no criterion.
    ValueError
        For ``reduction="none"``, and for `by` where the targets are not classes.

    Examples
    --------
    >>> import fastloss as fl
    >>> accumulator = fl.MSELoss().accumulator(by="group")
    >>> accumulator.update([1.0, 2.0], [1.0, 4.0], group=["a", "b"])
    >>> accumulator.update([3.0, 5.0], [4.0, 5.0], group=["b", "b"])
    >>> accumulator
    <Accumulator of MSELoss() by group: 1.25 over 4 losses>
    >>> accumulator.value, round(accumulator.stderr, 6)
    (1.25, 0.946485)
    >>> accumulator.groups["a"].value, accumulator.groups["b"].count
    (0.0, 3)
    >>> other = fl.Accumulator.from_json(accumulator.to_json())
    >>> (accumulator + other).count
    8
    """

    def __init__(self, criterion: criteria.Criterion, *, by: str | None = None):
        if not isinstance(criterion, criteria.Criterion):
            raise TypeError(
                f"criterion must be a criterion, such as fastloss.MSELoss(), got {criterion!r}"
            )
        if by not in (None, "class", "group"):
            raise ValueError(f"by must be None, 'class' or 'group', got {by!r}")
        self._criterion = copy.copy(criterion)
        self._options = self._criterion.get_params()
        loss: Any = criterion.loss
        if self.reduction == "none":
            raise ValueError("reduction='none' has no single value: use 'mean' or 'sum'")
        if by == "class" and loss._target_domain is None:
            raise ValueError(f"by='class': the targets of {loss.__name__} are not classes")
        self._by = by
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._state = LossSums()
        self._groups: dict[Any, LossSums] = {}

    # --- adding ---

    def update(
        self,
        *arrays: ArrayLike,
        sample_weight: ArrayLike | None = None,
        group: ArrayLike | None = None,
    ) -> None:
        """Adds a batch.

        Parameters
        ----------
        *arrays : array_like
            Those of the loss, in order.
        sample_weight : array_like, optional
            As in a call.
        group : array_like of labels
            With ``by="group"``: integers, floats or strings, one for each loss, or one for each
            entry of their leading axis.

        Raises
        ------
        ValueError, TypeError, IndexError
            As the loss raises them; positions count from the first batch on. Nothing was added.
        """
        self._add(arrays, sample_weight, group)

    def _add(
        self,
        arrays: Sequence[Any],
        sample_weight: Any,
        group: Any,
        weights: dict[str, Any] | None = None,
        values: bool = False,
    ) -> Any:
        """A batch; `weights` are those of its elements. Returns unreduced losses if asked for."""
        loss: Any = self._criterion.loss
        options = {**self._options, **weights} if weights else self._options
        if sample_weight is not None:
            options = {**options, "sample_weight": sample_weight}
        if (group is None) == (self._by == "group"):
            raise TypeError(
                "group= holds the label of each loss: accumulators made by='group' need it, "
                "others do not take it"
            )
        units = UnitOutputs(values=values, terms=self._by is not None)
        with self._lock:
            if self._by is None:
                loss._update(self._state, units, *arrays, **options)
                return units.values
            # Groups come last to be checked: until then nothing has changed.
            state = copy.copy(self._state)
            loss._update(state, units, *arrays, **options)
            if self._by == "class":
                group = _classes(loss, arrays, units, self._state.rows)
            self._add_to_groups(_broadcast(group, units), units, state)
            self._state = state
        return units.values

    def _add_to_groups(self, labels: NDArray[Any], units: UnitOutputs, state: LossSums) -> None:
        labels, used = labels.reshape(-1), _used(units).reshape(-1)
        everywhere = bool(used.all())
        known, codes = _encode(labels if everywhere else labels[used])
        if not known:
            return
        groups = [self._groups.get(label) or state.empty_like() for label in known]
        if not everywhere:
            some, codes = codes, np.zeros(labels.shape, np.int64)
            codes[used] = some
        _binding.add_unit_terms(groups, codes, units)
        self._groups.update(zip(known, groups, strict=True))

    def merge(self, other: "Accumulator") -> None:
        """Adds what another accumulator of an equal criterion added up.

        Raises
        ------
        ValueError
            If criterion or `by` differ.
        """
        other = copy.copy(other)  # it may be this one, or change meanwhile
        if self._by != other._by or not self._criterion == other._criterion:
            raise ValueError(f"{other._described()} does not add up with {self._described()}")
        self._merge_totals(other)

    def _merge_totals(self, other: "Accumulator") -> None:
        with self._lock:
            self._state.merge(other._state)
            for label, group in other._groups.items():
                self._groups.setdefault(label, group.empty_like()).merge(group)

    def __add__(self, other: Any) -> "Accumulator":
        if not isinstance(other, Accumulator):
            return NotImplemented
        total = copy.copy(self)
        total.merge(other)
        return total

    def __radd__(self, other: Any) -> "Accumulator":
        return copy.copy(self) if other == 0 else NotImplemented  # sum() begins with 0

    def __iadd__(self, other: Any) -> "Accumulator":
        if not isinstance(other, Accumulator):
            return NotImplemented
        self.merge(other)
        return self

    def reset(self) -> None:
        """Forgets all batches."""
        with self._lock:
            self._clear()

    # --- results ---

    @property
    def criterion(self) -> criteria.Criterion:
        """The criterion, a copy of that whose accumulator this is."""
        return self._criterion

    @property
    def by(self) -> str | None:
        """What there are totals of besides."""
        return self._by

    @property
    def reduction(self) -> str:
        """That of the criterion."""
        return self._options["reduction"]

    @property
    def value(self) -> float:
        """The reduced loss so far; NaN for a mean of none."""
        return self._state.value(self.reduction)

    @property
    def sum(self) -> float:
        """The sum of the losses."""
        return self._state.sum

    @property
    def weight(self) -> float:
        """What "mean" divides the sum by."""
        return self._state.weight

    @property
    def count(self) -> int:
        """The number of losses that no weight of 0 and no ``ignore_index`` removes."""
        return self._state.count

    @property
    def rows(self) -> int:
        """The number of entries along the leading axis."""
        return self._state.rows

    @property
    def stderr(self) -> float:
        """The standard error of `value`, if the losses are independent; NaN for fewer than two.

        With l the losses and d what each adds to `weight`, m = Σ l / Σ d and n = `count`, that of
        the mean is √(n/(n − 1) Σ (l − m d)²) / Σ d.
        """
        return self._state.stderr(self.reduction)

    @property
    def groups(self) -> dict[Any, Totals]:
        """The totals of each class or group that had a loss, by its label."""
        if self._by is None:
            raise ValueError("no groups were kept: ask for accumulator(by='class') or by='group'")
        with self._lock:
            found = {label: self._totals(state) for label, state in self._groups.items()}
        ordered = sorted(found, key=lambda label: (isinstance(label, str), label))
        return {label: found[label] for label in ordered}

    def _totals(self, state: LossSums) -> Totals:
        return Totals(
            value=state.value(self.reduction),
            stderr=state.stderr(self.reduction),
            sum=state.sum,
            weight=state.weight,
            count=state.count,
        )

    def __repr__(self):
        return f"<{self._described()}: {self.value!r} over {self.count} losses>"

    def _described(self) -> str:
        return f"Accumulator of {self._criterion}" + (f" by {self._by}" if self._by else "")

    # --- sending ---

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            kept = {name: value for name, value in vars(self).items() if name != "_lock"}
            kept["_state"] = copy.copy(self._state)
            kept["_groups"] = {label: copy.copy(state) for label, state in self._groups.items()}
        return kept

    def __setstate__(self, kept: dict[str, Any]) -> None:
        vars(self).update(kept, _lock=threading.Lock())

    def to_dict(self) -> dict[str, Any]:
        """All of it as what JSON can hold; numbers that JSON lacks become strings."""
        kept = self.__getstate__()
        name = type(self._criterion).__name__
        if getattr(criteria, name, None) is not type(self._criterion):
            raise ValueError(f"{name} is no criterion of fastloss: JSON cannot tell what it is")
        return {
            "version": _VERSION,
            "criterion": name,
            "options": {name: _plain_option(name, value) for name, value in self._options.items()},
            "by": self._by,
            "state": _plain_state(kept["_state"]),
            "groups": [[label, _plain_state(state)] for label, state in kept["_groups"].items()],
        }

    @classmethod
    def from_dict(cls, kept: dict[str, Any]) -> "Accumulator":
        """That which `to_dict` returned.

        Raises
        ------
        ValueError
            If it did not.
        """
        try:
            if kept["version"] != _VERSION:
                raise ValueError(f"version {kept['version']}, not {_VERSION}")
            if kept["criterion"] not in criteria.__all__:
                raise ValueError(f"{kept['criterion']} is no criterion of fastloss")
            options = {name: _option(value) for name, value in kept["options"].items()}
            criterion = getattr(criteria, kept["criterion"])(**options)
            made = cls(criterion, by=kept["by"])
            made._state = _state(kept["state"])
            for label, numbers in kept["groups"]:
                if not isinstance(label, (int, float, str)):
                    raise ValueError(f"{label!r} is no label")
                made._groups[label] = _state(numbers)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"not the state of an accumulator: {error!r}") from error
        return made

    def to_json(self) -> str:
        """`to_dict` as a line of JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Accumulator":
        """That which `to_json` returned."""
        return cls.from_dict(json.loads(text))


# --------------------------------------------------------------------------------------- labels


def _classes(
    loss: Any, arrays: Sequence[Any], units: UnitOutputs, rows_before: int
) -> NDArray[Any]:
    """The class of each unit, from the targets."""
    name = "target"
    target = as_array(arrays[loss.operands.index(name)], name)
    if loss._target_domain == "index" and target.dtype.kind not in "iu":
        raise TypeError(
            f"by='class': {name} holds {target.dtype}, not class indices; "
            "by='group' takes labels of any kind"
        )
    if loss._target_domain == "index":
        return target
    target = np.broadcast_to(target, units.weighted_loss.shape)
    used = _used(units)
    classes = (0, 1) if loss._target_domain == "fraction" else (-1, 1)
    wrong = used & ~np.isin(target, classes)
    if wrong.any():
        index = [int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape)]
        raise _errors.not_a_class(name, target, index, classes, rows_before)
    return np.where(used, target, 0).astype(np.int64)


def _used(units: UnitOutputs) -> NDArray[np.bool_]:
    """Which units are not removed: they count, or have a part in the divisor."""
    return units.unit_counted | (units.unit_divisor != 0)


def as_labels(given: Any, name: str) -> NDArray[Any]:
    """Labels as an array; a list of which NumPy would make other labels is refused."""
    labels: NDArray[Any] = as_array(given, name)
    if isinstance(given, (list, tuple)) and labels.dtype.kind in "fU":
        objects = np.array(given, object)
        changed = (labels != objects) & (labels == labels)  # but for NaN
        if changed.any():
            at = np.unravel_index(int(changed.argmax()), changed.shape)
            raise TypeError(
                f"{name}[{', '.join(str(int(i)) for i in at)}] = {objects[at]!r} would become "
                f"{labels[at].item()!r} among the others: give labels of one kind"
            )
    return labels


def _broadcast(labels: Any, units: UnitOutputs) -> NDArray[Any]:
    """A label for each unit: of the shape of the losses, or of their leading axis."""
    labels, shape = as_labels(labels, "group"), units.weighted_loss.shape
    if labels.shape != shape:
        if not (shape and labels.shape == shape[:1]):
            rows = f", or ({shape[0]},), that of its leading axis" if len(shape) > 1 else ""
            raise ValueError(
                f"group has shape {labels.shape}: it must have shape {shape}, that of the "
                f"unreduced loss{rows}"
            )
        labels = np.broadcast_to(labels.reshape(-1, *[1] * (len(shape) - 1)), shape)
    return labels


def _encode(labels: NDArray[Any]) -> tuple[list[Any], NDArray[np.int64]]:
    """The labels that occur, as Python has them, and the number of each entry's among them."""
    if labels.dtype.kind in "iu" and labels.size and 0 <= labels.min() <= labels.max() < _TABLE:
        present = np.flatnonzero(np.bincount(labels))
        codes = np.zeros(present[-1] + 1, np.int64)
        codes[present] = np.arange(len(present))
        return present.tolist(), codes[labels]
    if labels.dtype.kind == "O":
        wrong = [label for label in labels.flat if not isinstance(label, str)]
        if wrong:
            raise TypeError(
                f"group holds {wrong[0]!r} in an array of objects, where labels must be strings: "
                "integers and floats need an array of their dtype, as group.astype(int) is"
            )
    elif labels.dtype.kind not in "biufUT" or labels.dtype == np.longdouble != np.float64:
        raise TypeError(f"group holds {labels.dtype}: labels must be integers, floats or strings")
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError(
            f"group holds {'NaN' if np.isnan(labels).any() else 'inf'}, which is no label"
        )
    known, codes = np.unique(labels, return_inverse=True)
    return known.tolist(), codes


# ----------------------------------------------------------------------------------------- JSON


def plain(number: float) -> float | str:
    """A number that JSON holds; float() reads the others."""
    if isinstance(number, float) and not math.isfinite(number):
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    return number


def _plain_state(state: LossSums) -> list[float | str]:
    return [plain(number) for number in state.to_tuple()]


def _state(numbers: list[Any]) -> LossSums:
    count, rows, *sums = numbers
    if min(count, rows) < 0 or not all(isinstance(n, int) for n in (count, rows)):
        raise ValueError(f"{count} losses in {rows} rows")
    return _binding.sums_from_tuple(count, rows, *map(float, sums))


def _plain_option(name: str, value: Any) -> Any:
    if isinstance(value, np.ndarray):
        numbers = [plain(number) for number in value.astype(np.float64).ravel().tolist()]
        return {"dtype": value.dtype.name, "shape": list(value.shape), "values": numbers}
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        value = value.item()
    if isinstance(value, float):
        return plain(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain_option(name, item) for item in value]
    raise ValueError(f"{name} is a {type(value).__name__}, which JSON cannot hold: pass an array")


def _option(value: Any) -> Any:
    if isinstance(value, dict):
        numbers = np.array([float(number) for number in value["values"]])
        return numbers.astype(value["dtype"]).reshape(value["shape"])
    if isinstance(value, list):
        return [_option(item) for item in value]
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value
