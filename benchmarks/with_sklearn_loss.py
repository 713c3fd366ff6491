"""scikit-learn's private `sklearn._loss`: compiled loops of its linear models and boosted trees.

The losses and gradients of the samples are written to preallocated arrays, and the gradients are
divided by their number as in the linear models. The loss of fastloss is `scale` times theirs.
"""

import numpy as np
import sklearn
from sklearn._loss import loss as losses

from benchmarks.cells import HALVES

# loss: (class, its options, scale)
PAIRS = {
    "l1_loss": (losses.AbsoluteError, {}, 1),
    "mse_loss": (losses.HalfSquaredError, {}, 2),
    "huber_loss": (losses.HuberLoss, {"delta": 1}, 1),
    "smooth_l1_loss": (losses.HuberLoss, {"delta": 1}, 1),
    "pinball_loss": (losses.PinballLoss, {"quantile": 0.5}, 1),
    "poisson_nll_loss": (losses.HalfPoissonLoss, {}, 1),
    "gamma_nll_loss": (losses.HalfGammaLoss, {}, 1),
    "tweedie_deviance_loss": (losses.HalfTweedieLossIdentity, {"power": 0}, 2),
    "binary_cross_entropy_with_logits": (losses.HalfBinomialLoss, {}, 1),
    "multilabel_soft_margin_loss": (losses.HalfBinomialLoss, {}, 1),
    "soft_margin_loss": (losses.HalfBinomialLoss, {}, 1),  # of labels 0 and 1
    "cross_entropy": (losses.HalfMultinomialLoss, {}, 1),
}

UNSUPPORTED = ("smoothed", "probabilities")  # variants

_threads = 1


def start(threads):
    global _threads
    _threads = threads
    return sklearn.__version__


def products(cell, arrays, options):
    if cell.loss not in PAIRS or cell.dtype in HALVES or cell.variant in UNSUPPORTED:
        return {}
    loss_class, settings, scale = PAIRS[cell.loss]
    x, y = arrays
    if cell.loss == "cross_entropy":
        if x.ndim > 2:
            return {}
        settings = {"n_classes": x.shape[1]}
    else:
        x, y = x.ravel(), y.ravel()
    weight = options.get("weight")
    labels = y
    y = ((y + 1) / 2 if cell.loss == "soft_margin_loss" else y).astype(x.dtype)
    loss = loss_class(**settings | {k: v for k, v in options.items() if k == "power"})
    loss_out, gradient_out = y.copy(), x.copy()

    def keywords_and_divisor():
        if weight is None:
            return {"n_threads": _threads}, len(y) / scale
        w = weight[labels]
        return {"n_threads": _threads, "sample_weight": w}, w.sum() / scale

    def value():
        keywords, divisor = keywords_and_divisor()
        return loss.loss(y, x, loss_out=loss_out, **keywords).sum() / divisor

    def gradient():
        keywords, divisor = keywords_and_divisor()
        loss.loss_gradient(y, x, loss_out=loss_out, gradient_out=gradient_out, **keywords)
        mean = loss_out.sum() / divisor
        np.divide(gradient_out, divisor, out=gradient_out)
        return mean, gradient_out.reshape(arrays[0].shape)

    return {"value": value, "gradient": gradient}


def numbers(result):
    if not isinstance(result, tuple):
        return float(result), []
    value, gradient = result
    return float(value), [gradient]
