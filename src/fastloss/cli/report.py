"""The results of `fastloss evaluate`, as text and as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastloss.cli.parsing import escape_controls
from fastloss.evaluation.accumulators import Totals, json_float
from fastloss.evaluation.results import Evaluation, align_columns

# The version of the JSON that commands print. It rises when a key is removed or changes its
# meaning; keys may be added at any time.
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Report:
    """Evaluations of losses in one pass, by name, and the options of the report."""

    evaluations: Mapping[str, Evaluation]
    reduction: str
    group_noun: str  # heading of the labels of the groups: "class" or "group"
    per_sample: Mapping[str, str]
    perplexity: bool

    def text(self) -> str:
        """Lines of a name and a figure, followed by tables of several losses and of groups."""
        first = next(iter(self.evaluations))
        evaluation = self.evaluations[first]
        tables = []
        if len(self.evaluations) == 1:
            lines = {"loss": first, "reduction": self.reduction}
            lines |= {**self._figures(evaluation), **self._compared_figures(evaluation)}
            lines |= _pass_figures(evaluation)
            if self.per_sample:
                lines["per sample"] = escape_controls(self.per_sample[first])
        else:
            lines = {"reduction": self.reduction, **_pass_figures(evaluation)}
            tables.append(self._loss_table())
        if evaluation.groups is not None:
            tables.append(self._group_table())
        texts = [*map(align_columns, [[[*line] for line in lines.items()], *tables])]
        return "\n\n".join([*texts, *self._remarks()])

    def _remarks(self) -> list[str]:
        """A paragraph with what looks wrong in the data, or nothing."""
        lines = [
            f"{name}: {remark}"
            for name, evaluation in self.evaluations.items()
            for remark in evaluation.remarks
        ]
        return ["\n".join(["Is this the right loss for these data?", *lines])] if lines else []

    def json(self) -> str:
        """One object, or an array of one object for each of several losses."""
        objects = [self._object(name) for name in self.evaluations]
        return json.dumps(objects if len(objects) > 1 else objects[0], allow_nan=False)

    def _figures(self, totals: Evaluation | Totals) -> dict[str, str]:
        figures = {"value": repr(totals.value), "stderr": f"{totals.stderr:.3g}"}
        if self.perplexity:
            figures["perplexity"] = repr(_perplexity(totals))
        return {**figures, "losses": f"{totals.count:,}"}

    def _compared_figures(self, evaluation: Evaluation, *label: Any) -> dict[str, str]:
        """The figures of the baseline and of the difference, of all losses or of a group."""
        baseline: Any = evaluation.baseline
        difference: Any = evaluation.difference
        if baseline is None:
            return {}
        for key in label:
            baseline, difference = baseline.groups[key], difference.groups[key]
        figures = {
            "baseline": repr(baseline.value),
            "baseline stderr": f"{baseline.stderr:.3g}",
        }
        if self.perplexity:
            figures["baseline perplexity"] = repr(_perplexity(baseline))
        return {
            **figures,
            "difference": repr(difference.value),
            "difference stderr": f"{difference.stderr:.3g}",
            "z": f"{difference.z:.3g}",
        }

    def _loss_table(self) -> list[list[str]]:
        rows = []
        for name, evaluation in self.evaluations.items():
            row = {"loss": name, **self._figures(evaluation), **self._compared_figures(evaluation)}
            if self.per_sample:
                row["per sample"] = escape_controls(self.per_sample[name])
            rows.append(row)
        return _table(rows)

    def _group_table(self) -> list[list[str]]:
        rows = []
        for name, evaluation in self.evaluations.items():
            loss = {"loss": name} if len(self.evaluations) > 1 else {}
            for label, totals in (evaluation.groups or {}).items():
                compared = self._compared_figures(evaluation, label)
                figures = {**self._figures(totals), **compared}
                rows.append({**loss, self.group_noun: str(label), **figures})
        return _table(rows)

    def _object(self, name: str) -> dict[str, Any]:
        evaluation = self.evaluations[name]
        result: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "loss": name}
        result |= {"reduction": self.reduction, **evaluation.to_dict()}
        if self.perplexity:
            result["perplexity"] = json_float(_perplexity(evaluation))
            _add_perplexity(result.get("groups", []), evaluation.groups)
            if evaluation.baseline is not None:
                baseline = result["baseline"]
                baseline["perplexity"] = json_float(_perplexity(evaluation.baseline))
                _add_perplexity(baseline.get("groups", []), evaluation.baseline.groups)
        if self.per_sample:
            result["per_sample"] = self.per_sample[name]
        return result


def _perplexity(totals: Evaluation | Totals) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(totals.value))


def _add_perplexity(objects: list[dict[str, Any]], groups: Mapping[Any, Totals] | None) -> None:
    """Adds the perplexity of each group to its object."""
    for group, totals in zip(objects, (groups or {}).values(), strict=True):
        group["perplexity"] = json_float(_perplexity(totals))


def _pass_figures(evaluation: Evaluation) -> dict[str, str]:
    """The figures that all losses of one pass have in common."""
    missing = evaluation.missing_chunks
    return {
        "rows": f"{evaluation.rows:,}",
        **({"missing chunks": f"{missing:,}"} if missing else {}),
        "time": f"{evaluation.seconds:.3g} s",
        "throughput": evaluation.throughput,
        "threads": str(evaluation.threads),
        "instructions": evaluation.isa,
    }


def _table(rows: list[dict[str, str]]) -> list[list[str]]:
    """The rows below a row with the names of the columns; an empty table has neither."""
    return [list(rows[0]), *(list(row.values()) for row in rows)] if rows else []
