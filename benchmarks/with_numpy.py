"""NumPy as its users write these losses: vectorised formulas, gradients by hand, one thread.

A function returns the values and a function for the derivatives: of the unreduced losses if the
loss is elementwise, of the mean otherwise. An elementwise loss takes the array namespace as `xp`:
`with_jax` and `with_torch` use its values for losses that they have no function of their own for.
"""

import math

import numpy as np

from benchmarks.cells import HALVES


def l1_loss(x, t, xp=np):
    d = x - t
    return xp.abs(d), lambda: xp.sign(d)


def mse_loss(x, t, xp=np):
    d = x - t
    return d**2, lambda: 2 * d


def smooth_l1_loss(x, t, xp=np):
    return huber_loss(x, t, xp)  # the same at beta = delta = 1


def huber_loss(x, t, xp=np):
    d = x - t
    a = xp.abs(d)
    return xp.where(a < 1, 0.5 * d**2, a - 0.5), lambda: xp.clip(d, -1, 1)


def log_cosh_loss(x, t, xp=np):
    d = x - t
    return xp.logaddexp(d, -d) - math.log(2), lambda: xp.tanh(d)


def poisson_nll_loss(x, t, xp=np):
    e = xp.exp(x)
    return e - t * x, lambda: e - t


def gaussian_nll_loss(x, t, var, xp=np):
    v = xp.maximum(var, 1e-6)
    d = x - t
    return 0.5 * (xp.log(v) + d**2 / v), lambda: d / v


def kl_div(x, t, xp=np):
    return t * (xp.log(t) - x), lambda: -t


def binary_cross_entropy(x, y, xp=np):
    elements = -(y * xp.log(x) + (1 - y) * xp.log1p(-x))
    return elements, lambda: (x - y) / (x * (1 - x))


def binary_cross_entropy_with_logits(x, y, xp=np):
    return xp.logaddexp(0, x) - y * x, lambda: 1 / (1 + xp.exp(-x)) - y


def hinge_embedding_loss(x, y, xp=np):
    elements = xp.where(y == 1, x, xp.maximum(0, 1 - x))
    return elements, lambda: xp.where(y == 1, 1, xp.where(x <= 1, -1, 0)).astype(x.dtype)


def soft_margin_loss(x, y, xp=np):
    return xp.logaddexp(0, -y * x), lambda: -y / (1 + xp.exp(y * x))


def margin_ranking_loss(x1, x2, y, xp=np):
    z = -y * (x1 - x2)

    def derivatives():
        d = xp.where(z >= 0, -y, 0)
        return d, -d

    return xp.maximum(0, z), derivatives


def sigmoid_focal_loss(x, y, xp=np):
    p = 1 / (1 + xp.exp(-x))
    entropy = xp.logaddexp(0, x) - y * x
    wrong = p + y - 2 * p * y  # probability of the wrong class
    a = 0.25 * y + 0.75 * (1 - y)

    def derivative():
        return a * (wrong**2 * (p - y) + 2 * wrong * p * (1 - p) * (1 - 2 * y) * entropy)

    return a * entropy * wrong**2, derivative


def pinball_loss(x, y, xp=np):
    d = y - x
    return xp.maximum(0.5 * d, -0.5 * d), lambda: -0.5 * xp.sign(d)


def gamma_nll_loss(x, y, xp=np):
    e = y * xp.exp(-x)
    return x + e, lambda: 1 - e


def tweedie_deviance_loss(x, y, power=0.0, xp=np):
    if power == 0:
        return mse_loss(x, y, xp)
    a, b = 2 - power, 1 - power
    half = y**a / (a * b) - y * x**b / b + x**a / a
    return 2 * half, lambda: 2 * (x - y) * x**-power


def multilabel_soft_margin_loss(x, y):
    elements = np.logaddexp(0, x) - y * x
    return elements, lambda: 1 / (1 + np.exp(-x)) - y


def multi_margin_loss(x, y):
    rows = np.arange(len(y))
    z = np.maximum(0, 1 - x[rows, y][:, None] + x)
    z[rows, y] = 0

    def gradient():
        g = (z > 0).astype(x.dtype)
        g[rows, y] = -g.sum(axis=1)
        return g / x.size

    return z.sum(axis=1).mean() / x.shape[1], gradient


def cosine_embedding_loss(a, b, y):
    na, nb = (np.sqrt((v * v).sum(axis=1) + 1e-12) for v in (a, b))
    c = (a * b).sum(axis=1) / (na * nb)

    def gradient():
        k = np.where(y == 1, -1, np.where(c >= 0, 1, 0))[:, None] / len(y)
        p = 1 / (na * nb)[:, None]
        c_ = c[:, None]
        return k * (b * p - c_ * a / (na**2)[:, None]), k * (a * p - c_ * b / (nb**2)[:, None])

    return np.where(y == 1, 1 - c, np.maximum(0, c)).mean(), gradient


def triplet_margin_loss(a, p, n):
    u, v = a - p + 1e-6, a - n + 1e-6
    du, dv = (np.sqrt((d * d).sum(axis=1)) for d in (u, v))
    hinge = 1 + du - dv

    def gradient():
        k = (hinge >= 0)[:, None] / len(hinge)
        gu, gv = k * u / du[:, None], k * v / dv[:, None]
        return gu - gv, -gu, gv

    return np.maximum(0, hinge).mean(), gradient


def nll_loss(x, y, weight=None):
    rows = np.arange(len(y))
    w = np.ones(len(y), x.dtype) if weight is None else weight[y]

    def gradient():
        g = np.zeros_like(x)
        g[rows, y] = -w / w.sum()
        return g

    return -(w * x[rows, y]).sum() / w.sum(), gradient


def cross_entropy(x, y, weight=None, label_smoothing=0.0):
    """With class weights, smoothing or probabilities as the target; no cell has two of these."""
    if y.dtype.kind == "f":
        return _soft_cross_entropy(x, y)
    if x.ndim > 2:  # the class axis goes last
        mean, gradient = cross_entropy(
            np.moveaxis(x, 1, -1).reshape(-1, x.shape[1]), y.ravel(), weight, label_smoothing
        )
        last = (x.shape[0], *x.shape[2:], x.shape[1])
        return mean, lambda: np.moveaxis(gradient().reshape(last), -1, 1)
    rows = np.arange(len(y))
    w = np.ones(len(y), x.dtype) if weight is None else weight[y]
    z = x - x.max(axis=1, keepdims=True)
    e = np.exp(z)
    s = e.sum(axis=1, keepdims=True)
    log_s = np.log(s)[:, 0]
    entropy = log_s - z[rows, y]
    if label_smoothing:
        entropy = (1 - label_smoothing) * entropy + label_smoothing * (log_s - z.mean(axis=1))

    def gradient():
        g = e / s
        if label_smoothing:
            g -= label_smoothing / x.shape[1]
        g[rows, y] -= 1 - label_smoothing
        g *= (w / w.sum())[:, None]
        return g

    return (w * entropy).sum() / w.sum(), gradient


def _soft_cross_entropy(x, y):
    z = x - x.max(axis=1, keepdims=True)
    e = np.exp(z)
    s = e.sum(axis=1, keepdims=True)
    count = x.size // x.shape[1]

    def gradient():
        return (e / s * y.sum(axis=1, keepdims=True) - y) / count

    return (y * (np.log(s) - z)).sum() / count, gradient


def start(threads):
    return np.__version__


def products(cell, arrays, options):
    loss = globals().get(cell.loss)
    if loss is None or cell.dtype in HALVES:  # nobody writes these in NumPy
        return {}

    def value():
        return loss(*arrays, **options)[0].mean()  # the mean of a mean is itself

    def gradient():
        elements, derivatives = loss(*arrays, **options)
        gradients = derivatives()
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        if elements.ndim:
            gradients = [g / elements.size for g in gradients]
        return elements.mean(), gradients

    return {"value": value, "gradient": gradient}


def numbers(result):
    if not isinstance(result, tuple):
        return float(result), []
    value, gradients = result
    return float(value), list(gradients)
