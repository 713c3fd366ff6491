"""The figures of evaluations, as text and as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastloss.evaluation.accumulators import Totals, json_float
from fastloss.evaluation.results import Evaluation, align_columns


@dataclass(frozen=True)
class Report:
    """Evaluations of losses in one pass, by name, and what was asked for besides."""

    evaluations: Mapping[str, Evaluation]
    reduction: str
    kind: str  # of the groups, if there are any: "class" or "group"
    per_sample: Mapping[str, str]
    perplexity: bool

    def text(self) -> str:
        """Lines of a name and a figure; tables of several losses, and of groups."""
        first = next(iter(self.evaluations))
        evaluation = self.evaluations[first]
        tables = []
        if len(self.evaluations) == 1:
            lines = {"loss": first, "reduction": self.reduction}
            lines |= {**self._figures(evaluation), **_run(evaluation)}
            if self.per_sample:
                lines["per sample"] = self.per_sample[first]
        else:
            lines = {"reduction": self.reduction, **_run(evaluation)}
            tables.append(self._losses())
        if evaluation.groups is not None:
            tables.append(self._groups())
        return "\n\n".join(map(align_columns, [[[*line] for line in lines.items()], *tables]))

    def json(self) -> str:
        """An object of one loss, or an array of them."""
        objects = [self._object(name) for name in self.evaluations]
        return json.dumps(objects if len(objects) > 1 else objects[0], allow_nan=False)

    def _figures(self, totals: Evaluation | Totals) -> dict[str, str]:
        figures = {"value": repr(totals.value), "stderr": f"{totals.stderr:.3g}"}
        if self.perplexity:
            figures["perplexity"] = repr(_perplexity(totals))
        return {**figures, "losses": f"{totals.count:,}"}

    def _losses(self) -> list[list[str]]:
        rows = []
        for name, evaluation in self.evaluations.items():
            row = {"loss": name, **self._figures(evaluation)}
            if self.per_sample:
                row["per sample"] = self.per_sample[name]
            rows.append(row)
        return _table(rows)

    def _groups(self) -> list[list[str]]:
        rows = []
        for name, evaluation in self.evaluations.items():
            head = {"loss": name} if len(self.evaluations) > 1 else {}
            for label, totals in (evaluation.groups or {}).items():
                rows.append({**head, self.kind: str(label), **self._figures(totals)})
        return _table(rows)

    def _object(self, name: str) -> dict[str, Any]:
        evaluation = self.evaluations[name]
        found = {"loss": name, "reduction": self.reduction, **evaluation.to_dict()}
        if self.perplexity:
            found["perplexity"] = json_float(_perplexity(evaluation))
            groups = (evaluation.groups or {}).values()
            for group, totals in zip(found.get("groups", []), groups, strict=True):
                group["perplexity"] = json_float(_perplexity(totals))
        if self.per_sample:
            found["per_sample"] = self.per_sample[name]
        return found


def _perplexity(totals: Evaluation | Totals) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(totals.value))


def _run(evaluation: Evaluation) -> dict[str, str]:
    """What all losses of one pass have in common."""
    return {
        "rows": f"{evaluation.rows:,}",
        "time": f"{evaluation.seconds:.3g} s",
        "throughput": evaluation.throughput,
        "threads": str(evaluation.threads),
        "instructions": evaluation.isa,
    }


def _table(rows: list[dict[str, str]]) -> list[list[str]]:
    """With the names of the columns above; no rows have none."""
    return [list(rows[0]), *(list(row.values()) for row in rows)] if rows else []
