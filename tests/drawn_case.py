"""A case of `tests/cases.py` with random arrays, and the parametrisations over all cases."""

import numpy as np
import pytest

import fastloss as fl
from tests.cases import CASES, FLOATS
from tests.table_coverage import Recorded

REDUCTIONS = ("none", "mean", "sum")
TILE = {np.float32: 1024, np.float64: 512}  # elements that a kernel loads at a time
BLOCK = 8192  # elements whose partial sums are combined in a fixed order


def cases_where(condition):
    """Parametrises a test by the cases for which `condition(case)` is true."""
    chosen = [case for case in CASES if condition(case)]
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case.id)


cases = cases_where(lambda case: True)
elementwise = cases_where(lambda case: case.unit == "element")
by_row = cases_where(lambda case: case.unit == "row")
floats = pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.__name__)


class DrawnCase:
    """A case with arrays: the loss, its operands and its keywords.

    `wrt` are the arguments with a gradient: the floating ones of `loss.differentiable`.
    """

    def __init__(self, case, shape, dtype, adversarial=False, classes=7, seed=0):
        rng = self.rng = np.random.default_rng([seed, *case.id.encode()])
        self.case, self.loss = case, getattr(fl, case.loss)
        self._recorded = Recorded(self.loss)
        shape = self.shape = case.units(shape)
        if adversarial:
            self.arrays = case.adversarial(rng, *shape, dtype)
        else:
            self.arrays = case.typical(rng, shape, dtype, classes)
        self.keywords = case.keywords(rng, shape, dtype, classes, adversarial=adversarial)
        self.wrt = case.differentiable(self.loss)

    def value(self, reduction="none", **more):
        return self._recorded(*self.arrays, **self.keywords, reduction=reduction, **more)

    def grad(self, reduction="sum", **more):
        keywords = {**self.keywords, "wrt": self.wrt, "reduction": reduction, **more}
        return self._recorded.grad(*self.arrays, **keywords)

    def both(self, reduction="none", **more):
        keywords = {**self.keywords, "wrt": self.wrt, "reduction": reduction, **more}
        return self._recorded.value_and_grad(*self.arrays, **keywords)

    def sums(self, **more):
        return self._recorded.sums(*self.arrays, **self.keywords, **more)

    def weighted_losses(self, sample_weight=1.0):
        """The terms of the sum: each loss as rounded to the compute type, times its weights in
        float64. `weight` is one of these where it multiplies the whole loss."""
        keywords, weight = dict(self.keywords), np.float64(1)
        sample_weight = keywords.pop("sample_weight", sample_weight)
        by_class = self.case.by_class and not keywords.get("label_smoothing")
        if "weight" in keywords and self.case.weighs_classes and by_class:
            labels = self.arrays[1]
            is_class = labels != self.case.ignored
            weight = keywords.pop("weight").astype(np.float64)
            weight = weight[np.where(is_class, labels, 0)] * is_class
        elif "weight" in keywords and self.case.unit == "element":
            weight = keywords.pop("weight").astype(np.float64)
        losses = self.loss(*self.arrays, **keywords, reduction="none").astype(np.float64)
        weight = np.multiply(sample_weight, weight, dtype=np.float64)
        return np.where(weight == 0, 0, weight * losses)

    def with_arrays(self, arrays, **keywords):
        """The same loss and keywords with other arrays."""
        other = object.__new__(DrawnCase)
        other.__dict__.update(self.__dict__)
        other.arrays, other.keywords = list(arrays), self.keywords | keywords
        return other

    def at(self, index):
        """The rows of this index, with their weights."""
        arrays = self.case.at(self.arrays, index)
        if self.case.unit == "sequence" and np.isscalar(index):  # one sequence has no padding
            arrays[1] = arrays[1][: arrays[3]]
        weights = {k: v for k, v in self.keywords.items() if isinstance(v, np.ndarray)}
        if self.case.weighs_classes:
            weights.pop("weight", None)
        return self.with_arrays(arrays, **{k: v[index] for k, v in weights.items()})

    def gradients_at(self, gradients, index):
        """The rows of this index of each gradient."""
        return tuple(self.case.at(gradients, index))

    def by_unit(self, factors):
        """Factors of the unreduced losses, in a shape that broadcasts to a gradient."""
        return np.expand_dims(factors, self.case.row_axes(len(self.shape)))


def reductions(case):
    return (*REDUCTIONS, "batchmean") if case.loss == "kl_div" else REDUCTIONS
