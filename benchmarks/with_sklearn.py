"""The metrics of scikit-learn, which have values only and use one thread.

If a metric takes probabilities or means, the call computes them from the logits. The loss is an
affine function of the metric, whose constants depend only on the targets and are computed before.
"""

import numpy as np
import sklearn
from scipy.special import expit, softmax, xlogy
from sklearn import metrics

from benchmarks.cells import HALVES

# log_loss sorts the labels and makes an indicator matrix; more entries would take too long.
MAX_SIZE = dict.fromkeys(("binary_cross_entropy", "binary_cross_entropy_with_logits"), 1 << 20)
MAX_SIZE["cross_entropy"] = 1 << 25


def mean64(x):
    return x.mean(dtype=np.float64)


def mse_loss(x, y):
    return lambda: metrics.mean_squared_error(y, x)


def l1_loss(x, y):
    return lambda: metrics.mean_absolute_error(y, x)


def pinball_loss(x, y):
    return lambda: metrics.mean_pinball_loss(y, x, alpha=0.5)


def poisson_nll_loss(x, y):
    """The mean of exp x - y x is half the deviance minus the mean of y log y - y."""
    constant = mean64(xlogy(y, y) - y)
    return lambda: metrics.mean_poisson_deviance(y, np.exp(x)) / 2 - constant


def gamma_nll_loss(x, y):
    """The mean of x + y exp(-x) is half the deviance plus the mean of 1 + log y."""
    constant = mean64(1 + np.log(y))
    return lambda: metrics.mean_gamma_deviance(y, np.exp(x)) / 2 + constant


def tweedie_deviance_loss(x, y, power=0.0):
    return lambda: metrics.mean_tweedie_deviance(y, x, power=power)


def binary_cross_entropy(x, y):
    y = y.astype(int)
    return lambda: metrics.log_loss(y, x)


def binary_cross_entropy_with_logits(x, y):
    y = y.astype(int)
    return lambda: metrics.log_loss(y, expit(x))


def cross_entropy(x, y, weight=None):
    classes = np.arange(x.shape[1])
    if weight is None:
        return lambda: metrics.log_loss(y, softmax(x, axis=1), labels=classes)
    return lambda: metrics.log_loss(y, softmax(x, axis=1), labels=classes, sample_weight=weight[y])


def start(threads):
    return sklearn.__version__


def products(cell, arrays, options):
    loss = globals().get(cell.loss)
    is_multiclass = cell.loss == "cross_entropy"
    if cell.loss in MAX_SIZE and arrays[0].size > MAX_SIZE[cell.loss]:
        raise TimeoutError("log_loss takes half a minute, or too much memory")
    if loss is None or cell.dtype in HALVES or cell.variant in ("smoothed", "probabilities"):
        return {}
    # log_loss takes neither a class axis before others nor a single sample.
    if is_multiclass and (len(cell.shape) > 2 or cell.shape[0] == 1):
        return {}
    return {"value": loss(*(arrays if is_multiclass else map(np.ravel, arrays)), **options)}


def numbers(result):
    return float(result), []
