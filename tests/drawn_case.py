"""A case of the table with arrays drawn for it, and what tests over all cases share."""

import numpy as np
import pytest

import fastloss as fl
from tests.cases import CASES, FLOATS

REDUCTIONS = ("none", "mean", "sum")
TILE = {np.float32: 1024, np.float64: 512}
BLOCK = 8192

cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
elementwise = pytest.mark.parametrize(
    "case", [c for c in CASES if c.kind == "elements"], ids=lambda case: case.id
)
by_row = pytest.mark.parametrize(
    "case", [c for c in CASES if c.kind == "rows"], ids=lambda case: case.id
)
floats = pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.__name__)


class DrawnCase:
    """A case with arrays: the loss, its operands and its keywords."""

    def __init__(self, case, shape, dtype, hard=False, classes=7, seed=0):
        rng = self.rng = np.random.default_rng([seed, *case.id.encode()])
        self.case, self.loss = case, getattr(fl, case.loss)
        shape = self.shape = case.units(shape)
        if hard:
            self.arrays = case.hard(rng, *shape, dtype)
        else:
            self.arrays = case.arrays(rng, shape, dtype, classes)
        self.keywords = case.keywords(rng, shape, dtype, classes, hard)
        self.wrt = case.differentiable(self.loss)

    def value(self, reduction="none", **more):
        return self.loss(*self.arrays, **self.keywords, reduction=reduction, **more)

    def grad(self, reduction="sum", **more):
        more = {"wrt": self.wrt, **more}
        return self.loss.grad(*self.arrays, **self.keywords, reduction=reduction, **more)

    def both(self, reduction="none", **more):
        more = {"wrt": self.wrt, **more}
        return self.loss.value_and_grad(*self.arrays, **self.keywords, reduction=reduction, **more)

    def sums(self, **more):
        return self.loss.sums(*self.arrays, **self.keywords, **more)

    def at(self, index, **keywords):
        """The same case at some of its rows."""
        other = object.__new__(DrawnCase)
        other.__dict__.update(self.__dict__)
        other.arrays = self.case.at(self.arrays, index)
        if self.case.kind == "sequences" and np.isscalar(index):  # without a batch nothing pads
            other.arrays[1] = other.arrays[1][: other.arrays[3]]
        other.keywords = {k: self._at(v, index) for k, v in (self.keywords | keywords).items()}
        return other

    def _at(self, value, index):
        whole = not isinstance(value, np.ndarray) or self.case.weighs_classes
        return value if whole else value[index]

    def gradients_at(self, gradients, index):
        """Gradients of some of the rows."""
        return tuple(self.case.at(gradients, index))

    def by_unit(self, factors):
        """Factors of the unreduced losses, to multiply a gradient with."""
        return np.expand_dims(factors, self.case.row_axes(len(self.shape)))


def reductions(case):
    return (*REDUCTIONS, "batchmean") if case.loss == "kl_div" else REDUCTIONS
