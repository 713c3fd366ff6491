"""The criteria of one evaluation: one, a list or a dict, and options and results like them."""

from collections.abc import Mapping
from typing import Any

from fastloss import criteria
from fastloss._binding import Loss
from fastloss.criteria import Criterion


class CriterionSet:
    """One criterion or several; options and results take the same structure."""

    def __init__(self, criterion: Any):
        self._argument = criterion
        if isinstance(criterion, Mapping):
            values = list(criterion.values())
        else:
            values = list(criterion) if isinstance(criterion, (list, tuple)) else [criterion]
        if not values:
            raise ValueError("there is no criterion to evaluate")
        self.criteria: list[Criterion] = [_as_criterion(value) for value in values]
        first = self.criteria[0]
        for other in self.criteria:
            if len(other.loss.operands) != len(first.loss.operands):
                raise ValueError(
                    f"{other} reads {len(other.loss.operands)} arrays and {first} reads "
                    f"{len(first.loss.operands)}: evaluate them one by one"
                )

    def broadcast_option(self, option: Any, name: str) -> list[Any]:
        """The values of an option, one for each criterion."""
        if option is None:
            return [None] * len(self.criteria)
        if isinstance(self._argument, Mapping):
            if isinstance(option, Mapping) and set(option) <= set(self._argument):
                return [option.get(key) for key in self._argument]
            keys = ", ".join(map(str, self._argument))
            raise ValueError(f"{name} must be a dict, with keys among {keys}")
        if isinstance(self._argument, (list, tuple)):
            if isinstance(option, (list, tuple)) and len(option) == len(self._argument):
                return list(option)
            raise ValueError(
                f"{name} must be a list of {len(self._argument)}, one for each criterion"
            )
        return [option]

    def restructure(self, results: list[Any]) -> Any:
        """Results, one for each criterion, as a dict, a list or a single one."""
        if isinstance(self._argument, Mapping):
            return dict(zip(self._argument, results, strict=True))
        return results if isinstance(self._argument, (list, tuple)) else results[0]


def criterion_of(loss: Loss) -> type[Criterion]:
    """The criterion class of a loss."""
    classes = (getattr(criteria, name) for name in criteria.__all__)
    return next(cls for cls in classes if cls.loss is loss)


def _as_criterion(value: Any) -> Criterion:
    """A criterion; a loss becomes its criterion with default options."""
    if isinstance(value, Loss):
        return criterion_of(value)()
    if isinstance(value, Criterion):
        return value
    raise TypeError(
        f"criterion must be a criterion or a loss, such as fastloss.MSELoss(), got {value!r}"
    )
