"""Criteria as functions of a linear model's scores: their value and gradient, and their kinks."""

import numpy as np


class Elementwise:
    """A criterion of scores and targets of one shape, (n, outputs).

    `others` are arguments between the two. A `kink` is the distance of the kinks from the targets,
    in units of the targets.
    """

    def __init__(self, criterion, target, sample_weight, *, others=(), kink=None):
        self.criterion, self.rest = criterion, (*others, target)
        self.options = {
            "sample_weight": sample_weight,
            "wrt": criterion.loss.operands[0],
            "out": np.empty_like(target),
        }
        self.kinks = None if kink is None else Kinks(self, kink * target)

    def __call__(self, scores):
        return self.criterion.value_and_grad(scores, *self.rest, **self.options)


class LogLink:
    """An elementwise criterion of exp(scores)."""

    kinks = None

    def __init__(self, criterion, target, sample_weight):
        self.of_rates = Elementwise(criterion, target, sample_weight)
        self.limit = np.log(np.finfo(target.dtype).max) / 3  # no power of a rate overflows

    def __call__(self, scores):
        rates = np.exp(np.clip(scores, -self.limit, self.limit))
        value, gradient = self.of_rates(rates)
        gradient *= rates
        return value, gradient


class Classes:
    """A criterion of scores of classes, (n, C), and class indices; scores (n, 1) mean (0, z)."""

    def __init__(self, criterion, target, sample_weight, *, classes, dtype, margin=None):
        self.criterion, self.target, self.sample_weight = criterion, target, sample_weight
        self.scores = np.zeros((len(target), classes), dtype)
        self.gradient = np.empty_like(self.scores)
        self.kinks = None
        if margin is not None and classes == 2:
            signs = np.where(target == 1, 1, -1)[:, None].astype(dtype)
            self.kinks = Kinks(self, margin * signs)
        elif margin is not None:
            self.kinks = MarginKinks(self, target, margin)

    def __call__(self, scores):
        first = self.scores.shape[1] - scores.shape[1]
        self.scores[:, first:] = scores
        value, gradient = self.criterion.value_and_grad(
            self.scores, self.target, sample_weight=self.sample_weight, out=self.gradient
        )
        return value, gradient[:, first:]


class Kinks:
    """Of losses that are max(a u, b u): slopes a and b, and residuals u = scores - kinks."""

    def __init__(self, loss, kinks):
        away = 1 + np.abs(kinks)
        self.kinks = kinks
        self.lower = loss(kinks - away)[1].copy()
        self.upper = loss(kinks + away)[1].copy()

    def residual(self, scores):
        return scores - self.kinks

    def by_scores(self, by_residual):
        return by_residual


class MarginKinks:
    """Of the hinge loss of classes: residuals u[c] = margin - x[y] + x[c], slopes 0 and b."""

    def __init__(self, loss, target, margin):
        self.at_target, self.margin = (np.arange(len(target)), target), margin
        self.upper = loss(np.zeros_like(loss.scores))[1].copy()
        self.upper[self.at_target] = 0
        self.lower = np.zeros_like(self.upper)

    def residual(self, scores):
        return scores - scores[self.at_target][:, None] + self.margin

    def by_scores(self, by_residual):
        gradient = by_residual.copy()
        gradient[self.at_target] = -by_residual.sum(axis=1)
        return gradient
