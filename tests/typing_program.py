"""A program that type checkers must accept; test_typing.py checks it with mypy and runs it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastloss as fl

x = np.array([[1.0, 2.0, 3.0], [4.0, 1.0, 0.0]], dtype=np.float32)
y = np.array([0, 2])
p = np.array([0.25, 0.75])

# "mean" and "sum" are floats, "none" is an array.
mean: float = fl.cross_entropy(x, y)
total: float = fl.cross_entropy(x, y, [1, 2, 3], reduction="sum", label_smoothing=0.1)
each: NDArray[np.float32] = fl.cross_entropy(x, y, reduction="none", ignore_index=2)
fl.cross_entropy(x, y, reduction="none", out=each)
fl.mse_loss([1.0, 2.0], 0.0, weight=[1, 3], sample_weight=[1, 0])
batch: float = fl.kl_div(np.log(x + 1), x, reduction="batchmean")

# Gradients: an array for a name, a tuple for a tuple of names.
gradient: NDArray[np.float32] = fl.cross_entropy.grad(x, y)
fl.cross_entropy.grad(x, y, grad_output=2.0, out=gradient)
by_both = fl.mse_loss.grad(p, p, wrt=("input", "target"))
one: NDArray[Any] = by_both[0]
first, second = fl.margin_ranking_loss.grad(p, p, [1, -1], margin=0.5)
by_var: NDArray[Any] = fl.gaussian_nll_loss.grad(p, p, p, wrt="var", eps=1e-3)

value, slope = fl.huber_loss.value_and_grad(p, 0.0, delta=2.0)
value += 1.0
values, slopes = fl.huber_loss.value_and_grad(p, 0.0, reduction="none", grad_output=p)
values += slopes
value, (first, second) = fl.l1_loss.value_and_grad(p, p + 1, wrt=("input", "target"))

loss_sum, weight, count = fl.binary_cross_entropy_with_logits.sums(p, p, pos_weight=3)
mean = loss_sum / weight

# Criteria: the reduction determines the type of the value.
criterion = fl.CrossEntropyLoss([1, 2, 3], label_smoothing=0.1)
mean = criterion(x, y)
mean, gradient = criterion.value_and_grad(x, y, sample_weight=[1, 2])
unreduced: fl.PoissonNLLLoss = fl.PoissonNLLLoss(False, True, reduction="none")
each = fl.NLLLoss(reduction="none", ignore_index=0)(x, y)
loss_sum, weight, count = fl.MSELoss().sums(p, p)
delta: float = fl.HuberLoss(delta=2).set_params(delta=3).delta
by_both = fl.MarginRankingLoss(0.5).grad(p, p, [1, -1])


def evaluate(criterion: fl.Criterion) -> float:
    return float(criterion(p, p))


evaluate(fl.L1Loss())

try:
    fl.nll_loss(x, [0, 3])
except fl.ClassIndexError as error:
    print(error)
except IndexError:
    raise

threads: int = fl.get_num_threads()
with fl.num_threads(1):
    fl.soft_margin_loss(p, [1, -1])
version: str = fl.__version__
