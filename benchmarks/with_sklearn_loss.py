"""scikit-learn's private `sklearn._loss`, compiled loops of its linear models and boosted trees.

Loss and gradient of each sample go into arrays kept between calls, and are divided by their number
as in its linear models. Ours is `scale` times theirs.
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

UNKNOWN = ("smoothed", "probabilities")  # variants

_threads = 1


def start(threads):
    global _threads
    _threads = threads
    return sklearn.__version__


def products(cell, arrays, options):
    if cell.loss not in PAIRS or cell.dtype in HALVES or cell.variant in UNKNOWN:
        return {}
    kind, given, scale = PAIRS[cell.loss]
    x, y = arrays
    if cell.loss == "cross_entropy":
        if x.ndim > 2:
            return {}
        given = {"n_classes": x.shape[1]}
    else:
        x, y = x.ravel(), y.ravel()
    weight = options.get("weight")
    labels = y
    y = ((y + 1) / 2 if cell.loss == "soft_margin_loss" else y).astype(x.dtype)
    theirs = kind(**given | {k: v for k, v in options.items() if k == "power"})
    each, slopes = y.copy(), x.copy()

    def weights():
        if weight is None:
            return {"n_threads": _threads}, len(y) / scale
        w = weight[labels]
        return {"n_threads": _threads, "sample_weight": w}, w.sum() / scale

    def value():
        keywords, total = weights()
        return theirs.loss(y, x, loss_out=each, **keywords).sum() / total

    def gradient():
        keywords, total = weights()
        theirs.loss_gradient(y, x, loss_out=each, gradient_out=slopes, **keywords)
        made = each.sum() / total
        np.divide(slopes, total, out=slopes)
        return made, slopes.reshape(arrays[0].shape)

    return {"value": value, "gradient": gradient}


def numbers(result):
    if not isinstance(result, tuple):
        return float(result), []
    value, slopes = result
    return float(value), [slopes]
