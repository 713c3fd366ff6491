"""Running losses: the value of a criterion over batches, in one process or several.

An accumulator holds a few sums in double-double arithmetic. They merge to the value of one call on
all the data, however the data were split.
"""

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastloss import _binding, _errors, criteria
from fastloss._arrays import as_array
from fastloss._binding import LossSums, RunningSums, Turn, UnitOutputs
from fastloss._labels import as_labels, encode_labels
from fastloss.evaluation.comparison import (
    as_pair,
    baseline_arrays,
    subtract_terms,
    with_baseline,
)

__all__ = ["Accumulator", "BaselineTotals", "Difference", "Totals"]

_VERSION = 4  # of pickles and of the result of to_dict()
_MAX_COUNT = 2**62  # of losses or rows, so that sums of two counts fit into an int64

# The dict of the groups also holds the sums of a comparison, so that a batch is added to all sums
# at once. Their keys are (part,) for all losses and (part, label) for a group; no label is a tuple.
_PARTS = ("baseline", "difference")

_AnyTotals = TypeVar("_AnyTotals", bound="Totals")


@dataclass(frozen=True)
class Totals:
    """Sums of the losses of one class or group.

    Attributes
    ----------
    value, stderr : float
        The reduced loss and its standard error.
    sum, weight : float
        The sum of the losses, and the divisor of "mean".
    count : int
        Number of losses, without those removed by a weight of 0 or by ``ignore_index``.
    """

    value: float
    stderr: float
    sum: float
    weight: float
    count: int


@dataclass(frozen=True)
class BaselineTotals(Totals):
    """Sums of the losses of a baseline, and of each class or group.

    Attributes
    ----------
    groups : dict of Totals, or None
        By label; None without classes or groups.
    """

    groups: dict[Any, Totals] | None = None


@dataclass(frozen=True)
class Difference(Totals):
    """Losses of the input minus losses of the baseline; if negative, the input is better.

    Let l and b be the losses of input and baseline, with their weights, d the contribution of each
    to `weight`, e = l − b, m = Σ e / Σ d and n = `count`. `sum` is Σ e, and `value` of the
    reduction "mean" is m. `stderr` is the standard error of paired samples,
    √(n/(n − 1) Σ (e − m d)²) / Σ d, which takes account of the correlation of l and b.

    Attributes
    ----------
    value, stderr : float
        The reduced difference and its paired standard error, assuming independent rows.
    sum, weight : float
        The sum of the differences, and the divisor of "mean".
    count : int
        Number of losses, without those removed by a weight of 0 or by ``ignore_index``.
    groups : dict of Difference, or None
        By label; None without classes or groups, and within a group.
    """

    groups: "dict[Any, Difference] | None" = None

    @property
    def z(self) -> float:
        """``value / stderr``; NaN if both are 0, as for equal predictions."""
        if self.stderr == 0:
            return math.copysign(math.inf, self.value) if self.value else math.nan
        return self.value / self.stderr


class Accumulator:
    """Running loss of a criterion over batches, as returned by ``criterion.accumulator()``.

    The value agrees with one call of the criterion on all the data to 1e-13 of the sum of absolute
    losses, however the data were split and merged. It is bitwise identical if the batches come in
    order and all but the last are whole blocks of rows (multiples of 8192 elements are). An
    accumulator is small, can be pickled or sent as JSON, and may be shared by threads.

    A batch counts when its `update` returns. Until then any other use of the accumulator, from
    another thread, a signal handler, a finaliser, ``__array__`` of an argument or a forked child,
    neither waits for the update nor sees its batch, and what it adds or resets takes effect at
    once. Batches that are added while another update runs come in no particular order.

    Parameters
    ----------
    criterion : Criterion
        The criterion, with `reduction` "mean" or "sum", or "batchmean" if the loss has it.
    by : {None, "class", "group"}, default None
        Also sums the losses of each class of the targets, or of each group, whose labels are passed
        to every `update`. An update then needs 25 bytes of temporary memory per loss.
    baseline : bool, default False
        Also sums the losses of another prediction, which is passed to every `update`, and their
        paired differences. An update then computes both losses and needs 51 bytes of temporary
        memory per loss.

    Raises
    ------
    TypeError
        If `criterion` is not a criterion, or `baseline` is not a bool.
    ValueError
        If the reduction is "none", or if `by` is "class" and the targets are not classes.

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

    Which of two models is better:

    >>> pair = fl.MSELoss().accumulator(baseline=True)
    >>> pair.update([1.0, 2.0, 2.5], [1.0, 2.5, 2.0], baseline=[1.5, 3.5, 2.0])
    >>> pair.update([4.0], [3.5], baseline=[2.0])
    >>> pair.value, pair.baseline.value, pair.difference.value
    (0.1875, 0.875, -0.6875)
    >>> round(pair.difference.stderr, 6)
    0.482776
    """

    def __init__(
        self,
        criterion: criteria.Criterion,
        *,
        by: str | None = None,
        baseline: bool = False,
    ):
        if not isinstance(criterion, criteria.Criterion):
            raise TypeError(
                f"criterion must be a criterion, such as fastloss.MSELoss(), got {criterion!r}"
            )
        if by not in (None, "class", "group"):
            raise ValueError(f"by must be None, 'class' or 'group', got {by!r}")
        if not isinstance(baseline, bool):
            raise TypeError(
                f"baseline of an accumulator must be True or False, got {baseline!r}: its arrays "
                "are passed to update()"
            )
        self._criterion = copy.copy(criterion)
        self._options = self._criterion.get_params()
        loss: Any = criterion.loss
        if self.reduction == "none":
            raise ValueError("reduction='none' has no single value: use 'mean' or 'sum'")
        if by == "class" and loss._target_domain is None:
            raise ValueError(f"by='class': the targets of {loss.__name__} are not classes")
        self._by, self._compares = by, baseline
        self._running = RunningSums()

    @property
    def _sums(self) -> LossSums:
        return self._running.sums

    def _sums_and_groups(self) -> tuple[LossSums, dict[Any, LossSums]]:
        """The sums of all losses and of each group, at one moment."""
        while True:
            version, sums = self._running.version, self._running.sums
            groups = dict(self._running.groups)
            if version == self._running.version:
                return sums, groups

    # ---- adding batches --------------------------------------------------------------------------

    def update(
        self,
        *arrays: ArrayLike,
        sample_weight: ArrayLike | None = None,
        group: ArrayLike | None = None,
        baseline: Any = None,
    ) -> None:
        """Adds a batch.

        Parameters
        ----------
        *arrays : array_like
            The arrays of the loss, in order.
        sample_weight : array_like, optional
            Weights of the losses, as in a call of the loss.
        group : array_like of labels
            Labels of the groups: integers, floats, strings or dates, one per loss or one per entry
            of the leading axis of the losses. Required with ``by="group"``, not accepted otherwise.
        baseline : array_like, or dict of them
            Another prediction, of the shape of the first array or 0-d. It may have another dtype:
            each loss is computed as in a call of its own. A dict has the arrays that differ by
            name, such as ``{"input": ..., "var": ...}``. Losses of several predictions, such as
            ``triplet_margin_loss``, require a dict. Required with ``baseline=True``, not accepted
            otherwise.

        Raises
        ------
        ValueError, TypeError, IndexError
            As in a call of the loss; rows in messages are counted from the first batch on. The
            accumulator is left unchanged.
        OverflowError
            If a sum of losses or weights is out of the range of float64, or below its normal
            numbers and not 0. The accumulator is left unchanged.
        """
        loss: Any = self._criterion.loss
        if baseline is not None and self._compares and len(arrays) == len(loss.operands):
            baseline = with_baseline(loss.operands, arrays, baseline_arrays([loss], baseline))
        self._add_batch(arrays, sample_weight, group, baseline=baseline)

    def _add_batch(
        self,
        arrays: Sequence[Any],
        sample_weight: Any,
        group: Any,
        element_weights: dict[str, Any] | None = None,
        unreduced: bool = False,
        baseline: Any = None,
    ) -> Any:
        """Adds a batch; returns its unreduced losses if `unreduced`.

        `element_weights` are `weight` and `pos_weight` of these rows, `baseline` all arrays of the
        loss for the other prediction.
        """
        loss: Any = self._criterion.loss
        options = {**self._options, **element_weights} if element_weights else self._options
        if sample_weight is not None:
            options = {**options, "sample_weight": sample_weight}
        if (group is None) == (self._by == "group"):
            raise TypeError(
                "group= holds the label of each loss: it is required with by='group' and not "
                "accepted otherwise"
            )
        if (baseline is None) == self._compares:
            raise TypeError(
                "baseline= holds another prediction: it is required by an accumulator with "
                "baseline=True and not accepted otherwise"
            )
        units = UnitOutputs(values=unreduced, terms=self._by is not None)
        # Each array-like is converted once: the kernel and the groups must read the same array.
        if self._by == "class":
            arrays = _with_target_array(loss, arrays)
        elif self._by == "group":
            group = as_labels(group, "group")
        if self._compares:
            return self._add_pair(arrays, baseline, group, options, unreduced)
        running = self._running
        turn = running.begin()
        if turn is not None:
            try:
                rows_before = turn.sums.rows
                loss._update(turn.sums, units, *arrays, **options)
                if self._by is None:
                    if running.commit(turn):
                        return units.values
                elif self._commit(turn, self._grouped(arrays, group, units, rows_before)):
                    return units.values
            finally:
                turn.end()
            # The turn is lost: the sums that this batch continued are no more.
        so_far = self._sums
        sums = so_far.next_rows()
        loss._update(sums, units, *arrays, **options)
        if self._by is None:
            running.add(sums)
        else:
            grouped = self._grouped(arrays, group, units, so_far.rows)
            self._add(sums, grouped.added_to({}, sums))
        return units.values

    def _add_pair(
        self,
        arrays: Sequence[Any],
        baseline: Sequence[Any],
        group: Any,
        options: dict[str, Any],
        unreduced: bool,
    ) -> Any:
        """Adds a batch of two predictions; returns the unreduced losses of the input."""
        loss: Any = self._criterion.loss
        if len(arrays) == len(loss.operands):  # otherwise the loss raises an error
            arrays, baseline = as_pair(loss.operands, arrays, baseline)
        if options.get("sample_weight") is not None:
            weight = options["sample_weight"]
            if not isinstance(weight, (bool, int, float)):
                options["sample_weight"] = as_array(weight, "sample_weight")
        running = self._running
        turn = running.begin()
        if turn is not None:
            try:
                version, groups = running.version, running.groups
                others = _binding.group_copies(groups, [("baseline",)], turn.sums)
                units = UnitOutputs(values=unreduced, terms=True)
                pair = self._pair(turn.sums, others, units, arrays, baseline, group, options)
                if running.commit(turn, pair.added_to(groups, turn.sums), version):
                    return pair.values
            finally:
                turn.end()
        # The turn is lost, or others have changed the sums in the meantime.
        so_far = self._sums
        sums, others = so_far.next_rows(), {("baseline",): so_far.next_rows()}
        units = UnitOutputs(values=unreduced, terms=True)
        pair = self._pair(sums, others, units, arrays, baseline, group, options, so_far.rows)
        self._add(sums, pair.added_to({}, sums))
        return pair.values

    def _pair(
        self,
        sums: LossSums,
        others: dict[Any, LossSums],
        units: UnitOutputs,
        arrays: Sequence[Any],
        baseline: Sequence[Any],
        group: Any,
        options: dict[str, Any],
        rows_before: int | None = None,
    ) -> "_PairedUnits":
        """The units of a batch, which is added to `sums` of the input and `others` of the
        baseline. `rows_before` are the rows of other batches, if `sums` lacks them."""
        loss: Any = self._criterion.loss
        other_units = UnitOutputs(terms=True)
        rows_before = sums.rows if rows_before is None else rows_before
        loss._update(sums, units, *arrays, **options)
        try:
            loss._update(others["baseline",], other_units, *baseline, **options)
        except (ValueError, TypeError, OverflowError) as error:
            raise type(error)(f"baseline: {error}") from error
        grouped = None
        if self._by is not None:
            grouped = self._grouped(arrays, group, units, rows_before)
        return _PairedUnits(units, other_units, others, grouped)

    def _grouped(
        self, arrays: Sequence[Any], group: Any, units: UnitOutputs, rows_before: int
    ) -> "_GroupedUnits":
        """The groups of the units of a batch."""
        if self._by == "class":
            group = _class_labels(self._criterion.loss, arrays, units, rows_before)
        return _GroupedUnits.by_labels(_broadcast_labels(group, units), units)

    def _commit(self, turn: Turn, grouped: "_GroupedUnits") -> bool:
        """Ends the turn of a batch; returns False if the turn is lost."""
        version = self._running.version
        groups = grouped.added_to(self._running.groups, turn.sums)
        if self._running.commit(turn, groups, version):
            return True
        terms = grouped.added_to({}, turn.sums)  # others have changed groups in the meantime
        while True:
            version = self._running.version
            if self._running.commit(turn, _merged(self._running.groups, terms), version):
                return True
            if version == self._running.version:
                return False

    def _add(self, sums: LossSums, groups: dict[Any, LossSums]) -> None:
        """Adds sums, and the sums of their groups."""
        while True:
            version = self._running.version
            if self._running.add(sums, _merged(self._running.groups, groups), version):
                return

    def merge(self, other: "Accumulator") -> None:
        """Adds the sums of another accumulator of an equal criterion.

        Raises
        ------
        ValueError
            If `criterion`, `by` or `baseline` differ.
        """
        other = copy.copy(other)  # it may be `self`, or be updated by another thread
        if (self._by, self._compares) != (other._by, other._compares) or not (
            self._criterion == other._criterion
        ):
            raise ValueError(
                f"{other._description()} cannot be merged into {self._description()}: criterion, "
                "by and baseline must be equal"
            )
        self._merge_sums(other)

    def _merge_sums(self, other: "Accumulator") -> None:
        sums, groups = other._sums_and_groups()
        for name in ("count", "rows"):
            total = getattr(self._running.sums, name) + getattr(sums, name)
            if total > _MAX_COUNT:
                raise OverflowError(f"{name} would be {total}: it must not exceed 2**62")
        self._add(sums, groups)

    def __add__(self, other: Any) -> "Accumulator":
        if not isinstance(other, Accumulator):
            return NotImplemented
        total = copy.copy(self)
        total.merge(other)
        return total

    def __radd__(self, other: Any) -> "Accumulator":
        return copy.copy(self) if other == 0 else NotImplemented  # sum() starts from 0

    def __iadd__(self, other: Any) -> "Accumulator":
        if not isinstance(other, Accumulator):
            return NotImplemented
        self.merge(other)
        return self

    def reset(self) -> None:
        """Sets all sums to zero and removes all groups."""
        self._running.reset({})

    # ---- results ---------------------------------------------------------------------------------

    @property
    def criterion(self) -> criteria.Criterion:
        """A copy of the criterion, made when the accumulator was created."""
        return self._criterion

    @property
    def by(self) -> str | None:
        """Whether losses are also summed by class or by group: None, "class" or "group"."""
        return self._by

    @property
    def reduction(self) -> str:
        """The reduction of the criterion."""
        return self._options["reduction"]

    @property
    def value(self) -> float:
        """The reduced loss; NaN if a mean has no losses."""
        return self._sums.value(self.reduction)

    @property
    def sum(self) -> float:
        """The sum of the losses."""
        return self._sums.sum

    @property
    def weight(self) -> float:
        """The divisor of "mean"."""
        return self._sums.weight

    @property
    def count(self) -> int:
        """Number of losses, without those removed by a weight of 0 or by ``ignore_index``."""
        return self._sums.count

    @property
    def rows(self) -> int:
        """Number of entries of the leading axis."""
        return self._sums.rows

    @property
    def stderr(self) -> float:
        """Standard error of `value`, assuming independent losses; NaN for fewer than two.

        Let l be the losses, d the contribution of each to `weight`, m = Σ l / Σ d and n = `count`.
        The standard error of the mean is √(n/(n − 1) Σ (l − m d)²) / Σ d.
        """
        return self._sums.stderr(self.reduction)

    @property
    def groups(self) -> dict[Any, Totals]:
        """Totals of each class or group that has a loss, by its label."""
        if self._by is None:
            raise ValueError("there are no groups: pass by='class' or by='group' to accumulator()")
        _, groups = self._sums_and_groups()
        return self._group_totals(groups, None, Totals)

    @property
    def baseline(self) -> BaselineTotals:
        """Totals of the losses of the baseline, bitwise identical to its own accumulator's."""
        self._check_compares()
        sums, groups = self._sums_and_groups()
        by_label = None if self._by is None else self._group_totals(groups, "baseline", Totals)
        sums = groups.get(("baseline",), sums)
        return BaselineTotals(**self._totals(sums), groups=by_label)

    @property
    def difference(self) -> Difference:
        """Totals of the losses of the input minus the losses of the baseline, with their paired
        standard error; if negative, the input is better."""
        self._check_compares()
        sums, groups = self._sums_and_groups()
        by_label = (
            None if self._by is None else self._group_totals(groups, "difference", Difference)
        )
        sums = groups.get(("difference",), sums)
        return Difference(**self._totals(sums), groups=by_label)

    @property
    def compares(self) -> bool:
        """Whether losses are compared with the losses of a baseline."""
        return self._compares

    def _check_compares(self) -> None:
        if not self._compares:
            raise ValueError("there is no baseline: pass baseline=True to accumulator()")

    def _group_totals(
        self, groups: dict[Any, LossSums], part: str | None, cls: type[_AnyTotals]
    ) -> dict[Any, _AnyTotals]:
        """Totals of the groups of the input, or of a part of a comparison, sorted by label."""
        totals = {
            label: cls(**self._totals(sums)) for label, sums in _labelled(groups, part).items()
        }
        labels = sorted(totals, key=lambda label: (isinstance(label, str), label))
        return {label: totals[label] for label in labels}

    def _totals(self, sums: LossSums) -> dict[str, Any]:
        return {
            "value": sums.value(self.reduction),
            "stderr": sums.stderr(self.reduction),
            "sum": sums.sum,
            "weight": sums.weight,
            "count": sums.count,
        }

    def __repr__(self) -> str:
        text = f"<{self._description()}: {self.value!r} over {self.count} losses"
        if self._compares:
            difference = self.difference
            text += f", difference {difference.value!r} ± {difference.stderr:.2g}"
        return f"{text}>"

    def _description(self) -> str:
        text = f"Accumulator of {self._criterion}" + (f" by {self._by}" if self._by else "")
        return text + (" against a baseline" if self._compares else "")

    # ---- pickle and JSON -------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name != "_running"}
        state["_sums"], state["_group_sums"] = self._sums_and_groups()  # never changed in place
        return {"version": _VERSION, **state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        _check_version(state.pop("version", 1))
        running = RunningSums(state.pop("_sums"), state.pop("_group_sums"))
        vars(self).update(state, _running=running)

    def to_dict(self) -> dict[str, Any]:
        """The state as a JSON-serializable dict; NaN and infinities are strings."""
        state = self.__getstate__()
        name = type(self._criterion).__name__
        if getattr(criteria, name, None) is not type(self._criterion):
            raise ValueError(
                f"{name} is not a criterion of fastloss and cannot be written as JSON: use pickle"
            )
        sums, groups = state["_sums"], state["_group_sums"]
        result = {
            "version": _VERSION,
            "criterion": name,
            "options": {key: _option_to_json(key, value) for key, value in self._options.items()},
            "by": self._by,
            "compares": self._compares,
            "sums": _sums_to_json(sums),
            "groups": _groups_to_json(_labelled(groups, None)),
        }
        for part in _PARTS if self._compares else ():
            result[part] = {
                "sums": _sums_to_json(groups.get((part,), sums)),
                "groups": _groups_to_json(_labelled(groups, part)),
            }
        return result

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Accumulator":
        """The accumulator whose `to_dict` returned `state`.

        Raises
        ------
        ValueError
            If `state` is not the state of an accumulator, or has another version.
        """
        if not isinstance(state, dict) or "version" not in state:
            raise ValueError("not the state of an accumulator: it has no version")
        _check_version(state["version"])
        try:
            return cls._from_dict(state)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"not the state of an accumulator: {error!r}") from error

    @classmethod
    def _from_dict(cls, state: dict[str, Any]) -> "Accumulator":
        if state["criterion"] not in criteria.__all__:
            raise ValueError(f"{state['criterion']} is not a criterion of fastloss")
        options = {name: _option_from_json(value) for name, value in state["options"].items()}
        criterion = getattr(criteria, state["criterion"])(**options)
        accumulator = cls(criterion, by=state["by"], baseline=state["compares"])
        accumulator._restore_sums(state)
        return accumulator

    def _restore_sums(self, state: dict[str, Any]) -> None:
        """Sets the sums from the `to_dict` of an equal accumulator."""
        sums, groups = _sums_from_json(state["sums"]), _groups_from_json(state["groups"])
        count = sum(group.count for group in groups.values())
        if count != (0 if self._by is None else sums.count):
            raise ValueError(f"groups of {count} losses, but {sums.count} losses in all")
        by_key: dict[Any, LossSums] = dict(groups)
        for part in _PARTS:
            if (part in state) != self._compares:
                raise ValueError(f"compares is {self._compares}, and {part} is contradictory")
            if self._compares:
                by_key |= _part_from_json(state[part], part, sums, groups)
        self._running = RunningSums(sums, by_key)

    def to_json(self) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Accumulator":
        """The accumulator whose `to_json` returned `text`."""
        return cls.from_dict(json.loads(text))


# ---- groups --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _GroupedUnits:
    """The units of a batch, and the group of each: an index into `names`."""

    names: list[Any]
    codes: NDArray[np.int64]
    units: UnitOutputs

    @classmethod
    def by_labels(cls, labels: NDArray[Any], units: UnitOutputs) -> "_GroupedUnits":
        labels, contributes = labels.reshape(-1), _contributes(units).reshape(-1)
        all_contribute = bool(contributes.all())
        if not all_contribute:
            labels = labels[contributes]
        _check_labels(labels)
        distinct, codes = encode_labels(labels)
        if not all_contribute:
            contributing_codes, codes = codes, np.zeros(contributes.shape, np.int64)
            codes[contributes] = contributing_codes
        return cls(distinct.tolist(), codes, units)

    def of_part(self, part: str, units: UnitOutputs) -> "_GroupedUnits":
        """Units of the same losses in the groups of a part of a comparison."""
        return _GroupedUnits([(part, name) for name in self.names], self.codes, units)

    def added_to(self, groups: dict[Any, LossSums], sums: LossSums) -> dict[Any, LossSums]:
        """New sums of the groups of these units, with the units added; `sums` are of all losses."""
        added = _binding.group_copies(groups, self.names, sums)
        if added:
            _binding.add_unit_terms(list(added.values()), self.codes, self.units)
        return added


class _PairedUnits:
    """The units of a batch of two predictions, which can be added once."""

    def __init__(
        self,
        units: UnitOutputs,
        other_units: UnitOutputs,
        others: dict[Any, LossSums],
        grouped: _GroupedUnits | None,
    ):
        self.values = units.values
        self._units, self._other_units = units, other_units
        self._others, self._grouped = others, grouped

    def added_to(self, groups: dict[Any, LossSums], sums: LossSums) -> dict[Any, LossSums]:
        """New sums of the groups and of the comparison, with the units added.

        This replaces the terms of the input's units by the differences.
        """
        units, grouped = self._units, self._grouped
        added = dict(self._others)
        if grouped is not None:
            added |= grouped.added_to(groups, sums)
            added |= grouped.of_part("baseline", self._other_units).added_to(groups, sums)
        subtract_terms(units, self._other_units)
        if grouped is not None:
            added |= grouped.of_part("difference", units).added_to(groups, sums)
        codes = np.zeros(units.weighted_loss.size, np.int64)
        (total,) = _GroupedUnits([("difference",)], codes, units).added_to(groups, sums).values()
        added["difference",] = _with_rows_of(self._others["baseline",], total)
        return added


def _with_rows_of(other: LossSums, sums: LossSums) -> LossSums:
    """Sums with the number of rows, and of losses in a row, of others."""
    count, _, _, *numbers = sums.to_tuple()
    _, rows, divide, *_ = other.to_tuple()
    return _binding.sums_from_tuple(count, rows, divide, *numbers)


def _labelled(groups: dict[Any, LossSums], part: str | None) -> dict[Any, LossSums]:
    """By label, the sums of the groups of the input, or of a part of a comparison."""
    if part is None:
        return {key: sums for key, sums in groups.items() if not isinstance(key, tuple)}
    return {
        key[1]: sums
        for key, sums in groups.items()
        if isinstance(key, tuple) and key[0] == part and len(key) == 2
    }


def _merged(groups: dict[Any, LossSums], others: dict[Any, LossSums]) -> dict[Any, LossSums]:
    """New sums of the groups of `others`, merged with those of `groups`."""
    merged = {}
    for name, sums in others.items():
        merged.update(_binding.group_copies(groups, [name], sums))
        merged[name].merge(sums)
    return merged


# ---- labels of the losses ------------------------------------------------------------------------


def _with_target_array(loss: Any, arrays: Sequence[Any]) -> list[Any]:
    """The arrays of a loss, the target converted to an array unless it is a Python scalar."""
    arrays, k = list(arrays), loss.operands.index("target")
    if k < len(arrays) and not isinstance(arrays[k], (bool, int, float)):
        arrays[k] = as_array(arrays[k], "target")
    return arrays


def _class_labels(
    loss: Any, arrays: Sequence[Any], units: UnitOutputs, rows_before: int
) -> NDArray[Any]:
    """The class of each loss, from the targets."""
    name = "target"
    target = as_array(arrays[loss.operands.index(name)], name)
    if loss._target_domain == "index" and target.dtype.kind not in "iu":
        raise TypeError(
            f"by='class': {name} holds {target.dtype}, not class indices; by='group' accepts "
            "labels of any type"
        )
    if loss._target_domain == "index":
        return target
    target = np.broadcast_to(target, units.weighted_loss.shape)
    contributes = _contributes(units)
    classes = (0, 1) if loss._target_domain == "fraction" else (-1, 1)
    wrong = contributes & ~np.isin(target, classes)
    if wrong.any():
        index = [int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape)]
        raise _errors.not_a_class(name, target, index, classes, rows_before)
    # np.where(contributes, target, 0) crashes in NumPy 2.0 and 2.1 if the target is bfloat16.
    labels = np.zeros(target.shape, np.int64)
    np.copyto(labels, target, where=contributes, casting="unsafe")
    return labels


def _contributes(units: UnitOutputs) -> NDArray[np.bool_]:
    """Which losses belong to a group: those that count, or contribute to the divisor."""
    return units.unit_counted | (units.unit_divisor != 0)


def _broadcast_labels(labels: NDArray[Any], units: UnitOutputs) -> NDArray[Any]:
    """A label for each loss; labels have the shape of the losses or of their leading axis."""
    shape = units.weighted_loss.shape
    if labels.shape != shape:
        if not (shape and labels.shape == shape[:1]):
            rows = f", or ({shape[0]},), that of its leading axis" if len(shape) > 1 else ""
            raise ValueError(
                f"group has shape {labels.shape}: it must have shape {shape}, that of the "
                f"unreduced loss{rows}{_errors.leading_axis_remedy('group', labels.shape, shape)}"
            )
        labels = np.broadcast_to(labels.reshape(-1, *[1] * (len(shape) - 1)), shape)
    return labels


def _check_labels(labels: NDArray[Any]) -> None:
    """Raises an error for labels that are not integers, finite floats or strings."""
    if labels.dtype.kind == "O":
        wrong = [label for label in labels.flat if not isinstance(label, str)]
        if wrong:
            integers = all(
                type(label) is int and -(2**63) <= label < 2**63 for label in labels.flat
            )
            is_plain = any(
                isinstance(label, (str, int, float, np.generic)) for label in labels.flat
            )
            remedy = ": pass group.astype(np.int64)" if integers else ""
            remedy = remedy if is_plain else ": pass group.astype(str)"
            raise TypeError(
                f"group holds {wrong[0]!r} in an array of objects, where labels must be "
                f"strings or dates{remedy}"
            )
    elif labels.dtype.kind not in "biufUT" or labels.dtype == np.longdouble != np.float64:
        raise TypeError(
            f"group holds {labels.dtype}: labels must be integers, floats, strings or dates"
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError(
            f"group holds {'NaN' if np.isnan(labels).any() else 'inf'}, which is not a label"
        )


# ---- JSON ----------------------------------------------------------------------------------------


def _check_version(version: Any) -> None:
    if version != _VERSION:
        raise ValueError(
            f"the accumulator was saved in version {version!r} of the format, and this fastloss "
            f"reads version {_VERSION}: accumulate the batches again, or use the fastloss that "
            "saved it"
        )


def json_float(number: float) -> float | str:
    """The number, or a string for NaN and infinities, which JSON lacks; float() reads both."""
    if isinstance(number, float) and not math.isfinite(number):
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    return number


def _sums_to_json(sums: LossSums) -> list[float | str]:
    return [json_float(number) for number in sums.to_tuple()]


def _sums_from_json(numbers: list[Any]) -> LossSums:
    count, rows, *sums = numbers
    if not all(type(n) is int and 0 <= n <= _MAX_COUNT for n in (count, rows)):
        raise ValueError(f"{count} losses in {rows} rows")
    return _binding.sums_from_tuple(count, rows, *map(float, sums))


def _groups_to_json(groups: dict[Any, LossSums]) -> list[Any]:
    return [[label, _sums_to_json(sums)] for label, sums in groups.items()]


def _groups_from_json(groups: list[Any]) -> dict[Any, LossSums]:
    by_label = {}
    for label, sums in groups:
        if not isinstance(label, (int, float, str)):
            raise ValueError(f"{label!r} is not a label")
        by_label[label] = _sums_from_json(sums)
    if len(by_label) != len(groups):
        raise ValueError("a group appears twice")
    return by_label


def _part_from_json(
    state: dict[str, Any], part: str, sums: LossSums, groups: dict[Any, LossSums]
) -> dict[Any, LossSums]:
    """The sums of a part of a comparison, which has the losses of `sums` and `groups`."""
    part_sums, part_groups = _sums_from_json(state["sums"]), _groups_from_json(state["groups"])
    if (part_sums.count, part_sums.rows) != (sums.count, sums.rows) or (
        {label: group.count for label, group in part_groups.items()}
        != {label: group.count for label, group in groups.items()}
    ):
        raise ValueError(f"the losses of its {part} are not those of its input")
    by_key: dict[Any, LossSums] = {(part, label): group for label, group in part_groups.items()}
    return {(part,): part_sums, **by_key}


def _option_to_json(name: str, value: Any) -> Any:
    if isinstance(value, np.ndarray):
        numbers = [json_float(number) for number in value.astype(np.float64).ravel().tolist()]
        return {"dtype": value.dtype.name, "shape": list(value.shape), "values": numbers}
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        value = value.item()
    if isinstance(value, float):
        return json_float(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_option_to_json(name, item) for item in value]
    raise ValueError(f"{name} is a {type(value).__name__}, which JSON cannot hold: pass an array")


def _option_from_json(value: Any) -> Any:
    if isinstance(value, dict):
        numbers = np.array([float(number) for number in value["values"]])
        return numbers.astype(value["dtype"]).reshape(value["shape"])
    if isinstance(value, list):
        return [_option_from_json(item) for item in value]
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value
