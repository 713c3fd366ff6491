"""`Evaluation`: the result of evaluating a criterion, and how it is displayed."""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastloss import _binding
from fastloss._runtime import get_num_threads
from fastloss.criteria import Criterion
from fastloss.evaluation.accumulators import (
    Accumulator,
    BaselineTotals,
    Difference,
    Totals,
    json_float,
)

_MAX_DISPLAYED_GROUPS = 20
_NOT_FIGURES = ("criterion", "groups", "remarks", "accumulator", "baseline", "difference")


@dataclass(frozen=True)
class Evaluation:
    """The value of a criterion over data, and how long it took.

    Attributes
    ----------
    criterion : Criterion
        The criterion that was evaluated.
    value : float
        The reduced loss.
    stderr : float
        Standard error of `value`, assuming independent losses.
    sum, weight : float
        The sum of the losses, and the divisor of "mean".
    count : int
        Number of losses, without those removed by a weight of 0 or by ``ignore_index``.
    groups : dict of Totals, or None
        Totals of each class or group, by its label.
    rows : int
        Length of the leading axis of the data.
    seconds : float
        Duration, including the time before an interruption.
    bytes : int
        Size of the arrays.
    threads : int
        Number of threads that a large call may use; with Dask, in this process.
    isa : str
        Instruction set in use.
    missing_chunks : int
        Number of absent parts of the data, which were read as the fill value.
    remarks : tuple of str
        Contradictions between the first chunk and the criterion: data that are valid but seem to be
        meant for another loss, such as probabilities for a loss of logits. Empty with Dask.
    accumulator : Accumulator
        The sums, which can be merged with another evaluation.
    baseline : BaselineTotals, or None
        With a baseline: ``value``, ``stderr``, ``sum``, ``weight``, ``count`` and ``groups`` of its
        losses, bitwise identical to an evaluation of the baseline alone.
    difference : Difference, or None
        With a baseline: the same figures of the losses of the input minus the losses of the
        baseline, where ``stderr`` is the paired standard error and ``z`` is ``value / stderr``. If
        negative, the input is better.
    """

    criterion: Criterion
    value: float
    stderr: float
    sum: float
    weight: float
    count: int
    groups: dict[Any, Totals] | None
    rows: int
    seconds: float
    bytes: int
    threads: int
    isa: str
    missing_chunks: int
    remarks: tuple[str, ...]
    accumulator: Accumulator = field(repr=False, compare=False)
    baseline: BaselineTotals | None = None
    difference: Difference | None = None

    @classmethod
    def _of(
        cls,
        accumulator: Accumulator,
        seconds: float,
        nbytes: int,
        missing_chunks: int = 0,
        remarks: tuple[str, ...] = (),
    ) -> "Evaluation":
        """The result of an accumulator that has seen all the data."""
        return cls(
            criterion=accumulator.criterion,
            value=accumulator.value,
            stderr=accumulator.stderr,
            sum=accumulator.sum,
            weight=accumulator.weight,
            count=accumulator.count,
            groups=accumulator.groups if accumulator.by else None,
            rows=accumulator.rows,
            seconds=seconds,
            bytes=nbytes,
            threads=get_num_threads(),
            isa=_binding.isa(),
            missing_chunks=missing_chunks,
            remarks=remarks,
            accumulator=accumulator,
            baseline=accumulator.baseline if accumulator.compares else None,
            difference=accumulator.difference if accumulator.compares else None,
        )

    @property
    def throughput(self) -> str:
        """Bytes and rows per second, as text."""
        seconds = max(self.seconds, 1e-9)
        return f"{self.bytes / seconds / 1e6:,.0f} MB/s, {self.rows / seconds:,.0f} rows/s"

    def _figures(self) -> Iterator[tuple[str, str]]:
        yield "criterion", repr(self.criterion)
        yield "value", f"{self.value!r} ± {self.stderr:.2g}"
        if self.baseline is not None and self.difference is not None:
            yield "baseline", _with_stderr(self.baseline)
            yield "difference", f"{_with_stderr(self.difference)}, z = {self.difference.z:.3g}"
        yield "losses", f"{self.count:,}, weight {self.weight:,.16g}"
        yield "rows", f"{self.rows:,}"
        if self.missing_chunks:
            yield "missing chunks", f"{self.missing_chunks:,}"
        yield "time", f"{self.seconds:.3g} s"
        yield "throughput", self.throughput
        yield "threads", f"{self.threads}, {self.isa}"
        for remark in self.remarks:
            yield "remark", remark

    def _group_head(self) -> tuple[str, ...]:
        compared = () if self.baseline is None else ("baseline", "difference", "stderr", "z")
        return ("", "value", "stderr", *compared, "losses")

    def _group_rows(self) -> Iterator[tuple[str, ...]]:
        groups = list((self.groups or {}).items())
        for label, totals in groups[:_MAX_DISPLAYED_GROUPS]:
            yield (
                str(label),
                f"{totals.value!r}",
                f"{totals.stderr:.2g}",
                *self._compared_cells(label),
                f"{totals.count:,}",
            )
        if len(groups) > _MAX_DISPLAYED_GROUPS:
            more = f"({len(groups) - _MAX_DISPLAYED_GROUPS:,} more)"
            yield (more, *[""] * (len(self._group_head()) - 1))

    def _compared_cells(self, label: Any) -> Iterator[str]:
        """The baseline and the difference of a group."""
        if self.baseline is not None and self.difference is not None:
            difference = (self.difference.groups or {})[label]
            yield f"{(self.baseline.groups or {})[label].value!r}"
            yield f"{difference.value!r}"
            yield f"{difference.stderr:.2g}"
            yield f"{difference.z:.3g}"

    def __repr__(self) -> str:
        tables = [align_columns(list(self._figures()))]
        if self.groups:
            tables.append(align_columns([self._group_head(), *self._group_rows()]))
        return "\n".join(tables)

    def _repr_html_(self) -> str:
        def table(rows, head=""):
            cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
            return f"<table>{head}{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"

        text = table(self._figures())
        if self.groups:
            names = "".join(f"<th>{name}</th>" for name in self._group_head())
            text += table(self._group_rows(), f"<tr>{names}</tr>")
        return text

    def to_dict(self) -> dict[str, Any]:
        """The figures as a JSON-serializable dict; NaN and infinities are strings."""
        figures = {
            name: json_float(value)
            for name, value in vars(self).items()
            if name not in _NOT_FIGURES
        }
        result: dict[str, Any] = {"criterion": repr(self.criterion), **figures}
        result["remarks"] = list(self.remarks)
        if self.groups is not None:
            result["groups"] = _groups_to_json(self.groups)
        if self.baseline is not None and self.difference is not None:
            result["baseline"] = _part_to_json(self.baseline)
            result["difference"] = _part_to_json(self.difference)
        return result


def _with_stderr(totals: Totals) -> str:
    return f"{totals.value!r} ± {totals.stderr:.2g}"


def _totals_to_json(totals: Totals) -> dict[str, Any]:
    figures = {name: json_float(v) for name, v in vars(totals).items() if name != "groups"}
    return figures | ({"z": json_float(totals.z)} if isinstance(totals, Difference) else {})


def _part_to_json(totals: BaselineTotals | Difference) -> dict[str, Any]:
    groups = {} if totals.groups is None else {"groups": _groups_to_json(totals.groups)}
    return _totals_to_json(totals) | groups


def _groups_to_json(groups: Mapping[Any, Totals]) -> list[dict[str, Any]]:
    return [{"label": label} | _totals_to_json(totals) for label, totals in groups.items()]


def align_columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines of text with aligned columns, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
