"""Criteria as functions of a linear model's scores: value, gradient, and kinks."""

import numpy as np


class Elementwise:
    """A criterion of scores and targets of shape (n, outputs).

    `extra_args` are arguments between the scores and the targets. If the loss has a kink, it is at
    ``kink * target``.
    """

    def __init__(self, criterion, target, sample_weight, *, extra_args=(), kink=None):
        self.criterion, self.args = criterion, (*extra_args, target)
        self.options = {
            "sample_weight": sample_weight,
            "wrt": criterion.loss.operands[0],
            "out": np.empty_like(target),
        }
        self.hinges = None if kink is None else Hinges(self, kink * target)

    def __call__(self, scores):
        return self.criterion.value_and_grad(scores, *self.args, **self.options)


class LogLink:
    """An elementwise criterion of exp(scores)."""

    hinges = None

    def __init__(self, criterion, target, sample_weight):
        self.of_means = Elementwise(criterion, target, sample_weight)
        self.limit = np.log(np.finfo(target.dtype).max) / 3  # no power of a mean overflows

    def __call__(self, scores):
        means = np.exp(np.clip(scores, -self.limit, self.limit))
        value, gradient = self.of_means(means)
        gradient *= means
        return value, gradient


class ClassScores:
    """A criterion of class scores (n, C) and class indices. Scores (n, 1) stand for (0, z)."""

    def __init__(self, criterion, target, sample_weight, *, classes, dtype, margin=None):
        self.criterion, self.target, self.sample_weight = criterion, target, sample_weight
        self.scores = np.zeros((len(target), classes), dtype)
        self.gradient = np.empty_like(self.scores)
        self.hinges = None
        if margin is not None and classes == 2:
            signs = np.where(target == 1, 1, -1)[:, None].astype(dtype)
            self.hinges = Hinges(self, margin * signs)
        elif margin is not None:
            self.hinges = MarginHinges(self, target, margin)

    def __call__(self, scores):
        first = self.scores.shape[1] - scores.shape[1]
        self.scores[:, first:] = scores
        value, gradient = self.criterion.value_and_grad(
            self.scores, self.target, sample_weight=self.sample_weight, out=self.gradient
        )
        return value, gradient[:, first:]


class Hinges:
    """A loss as a sum of max(a u, b u), with slopes a < b and residuals u = scores - kinks."""

    def __init__(self, loss, kinks):
        distance = 1 + np.abs(kinks)
        self.kinks = kinks
        self.lower = loss(kinks - distance)[1].copy()
        self.upper = loss(kinks + distance)[1].copy()

    def residual(self, scores):
        return scores - self.kinks

    def grad_scores(self, grad_residual):
        return grad_residual


class MarginHinges:
    """The multiclass hinge loss: residuals u[c] = margin - x[y] + x[c], slopes 0 and b."""

    def __init__(self, loss, target, margin):
        self.at_target, self.margin = (np.arange(len(target)), target), margin
        self.upper = loss(np.zeros_like(loss.scores))[1].copy()
        self.upper[self.at_target] = 0
        self.lower = np.zeros_like(self.upper)

    def residual(self, scores):
        return scores - scores[self.at_target][:, None] + self.margin

    def grad_scores(self, grad_residual):
        gradient = grad_residual.copy()
        gradient[self.at_target] = -grad_residual.sum(axis=1)
        return gradient
