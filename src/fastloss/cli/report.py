"""The results of `fastloss evaluate`, as text and as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastloss.cli.parsing import escape_controls
from fastloss.evaluation.accumulators import Totals, json_float
from fastloss.evaluation.results import Evaluation, align_columns


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
            lines |= {**self._figures(evaluation), **_pass_figures(evaluation)}
            if self.per_sample:
                lines["per sample"] = escape_controls(self.per_sample[first])
        else:
            lines = {"reduction": self.reduction, **_pass_figures(evaluation)}
            tables.append(self._loss_table())
        if evaluation.groups is not None:
            tables.append(self._group_table())
        return "\n\n".join(map(align_columns, [[[*line] for line in lines.items()], *tables]))

    def json(self) -> str:
        """One object, or an array of one object for each of several losses."""
        objects = [self._object(name) for name in self.evaluations]
        return json.dumps(objects if len(objects) > 1 else objects[0], allow_nan=False)

    def _figures(self, totals: Evaluation | Totals) -> dict[str, str]:
        figures = {"value": repr(totals.value), "stderr": f"{totals.stderr:.3g}"}
        if self.perplexity:
            figures["perplexity"] = repr(_perplexity(totals))
        return {**figures, "losses": f"{totals.count:,}"}

    def _loss_table(self) -> list[list[str]]:
        rows = []
        for name, evaluation in self.evaluations.items():
            row = {"loss": name, **self._figures(evaluation)}
            if self.per_sample:
                row["per sample"] = escape_controls(self.per_sample[name])
            rows.append(row)
        return _table(rows)

    def _group_table(self) -> list[list[str]]:
        rows = []
        for name, evaluation in self.evaluations.items():
            loss = {"loss": name} if len(self.evaluations) > 1 else {}
            for label, totals in (evaluation.groups or {}).items():
                rows.append({**loss, self.group_noun: str(label), **self._figures(totals)})
        return _table(rows)

    def _object(self, name: str) -> dict[str, Any]:
        evaluation = self.evaluations[name]
        result = {"loss": name, "reduction": self.reduction, **evaluation.to_dict()}
        if self.perplexity:
            result["perplexity"] = json_float(_perplexity(evaluation))
            groups = (evaluation.groups or {}).values()
            for group, totals in zip(result.get("groups", []), groups, strict=True):
                group["perplexity"] = json_float(_perplexity(totals))
        if self.per_sample:
            result["per_sample"] = self.per_sample[name]
        return result


def _perplexity(totals: Evaluation | Totals) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(totals.value))


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
