"""A program that type checkers must accept; test_typing.py checks it with mypy and runs it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastloss as fl
import fastloss.sklearn as skl

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

# Evaluation: the result has the structure of the criteria.
evaluation: fl.Evaluation = fl.evaluate(fl.MSELoss(), p, p, progress=False)
evaluations: list[fl.Evaluation] = fl.evaluate([fl.cross_entropy, fl.MultiMarginLoss()], x, y)
by_name = fl.evaluate({"ce": fl.cross_entropy, "margin": fl.MultiMarginLoss()}, x, y, by="class")
by_margin: fl.Evaluation = by_name["margin"]
same_class: dict[str, fl.MSELoss] = {"mse": fl.MSELoss()}
by_name = fl.evaluate(same_class, p, p)
squares: dict[int, fl.Evaluation] = fl.evaluate({2: fl.MSELoss()}, p, p)
stderr: float = evaluation.stderr + evaluations[0].stderr
if by_margin.groups is not None:
    stderr += by_margin.groups[0].stderr

compared: fl.Evaluation = fl.evaluate(fl.MSELoss(), p, p, baseline=p)
if compared.difference is not None:
    z: float = compared.difference.z
    if compared.difference.groups is not None:
        z += compared.difference.groups["a"].z
baselines: list[fl.Evaluation] = fl.evaluate(
    [fl.MSELoss()], [{"input": p, "target": p, "baseline": p}], baseline=True
)
pair: fl.Accumulator = fl.MSELoss().accumulator(baseline=True)
pair.update(p, p, baseline=p)
stderr = pair.difference.stderr - pair.baseline.stderr

running: fl.Accumulator = fl.MSELoss().accumulator(by="group")
running.update(p, p, group=["a", "b"])
total = (running + fl.Accumulator.from_json(running.to_json())).value

# scikit-learn: the metrics, scorers and models.
error_of_all: float = skl.mean_squared_error(x, x + 1)
error_of_each: NDArray[Any] = skl.mean_squared_error(x, x + 1, multioutput="raw_values")
error_of_all = skl.d2_pinball_score(x, x + 1, alpha=0.9, multioutput=[0.2, 0.3, 0.5])
error_of_all += skl.log_loss(["a", "b"], [0.25, 0.5], labels=["a", "b"])
model: skl.LossClassifier = skl.LossClassifier(
    fl.CrossEntropyLoss(label_smoothing=0.1), alpha=0.1, class_weight="balanced"
).fit(x, ["a", "b"])
labels: NDArray[Any] = model.predict(x)
probabilities: NDArray[Any] = model.predict_proba(x)
classes: NDArray[Any] = model.classes_
score: float = skl.make_scorer(fl.CrossEntropyLoss())(model, x, labels, sample_weight=[1, 2])
predictions: NDArray[Any] = skl.LossRegressor(fl.HuberLoss()).fit(x, p).predict(x)
score = skl.make_scorer(fl.NLLLoss(), response_method=None).score(model, x, ["a", "b"])
