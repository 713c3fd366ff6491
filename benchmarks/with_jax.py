"""JAX: the formulas as its users write them, compiled by jax.jit; CTC is optax's.

XLA takes a thread for each processor that the process may use.
"""

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import log_sigmoid, log_softmax, sigmoid, softplus

from benchmarks.cells import LOSSES

try:
    import optax
except ImportError:
    optax = None  # no CTC


def l1_loss(x, t):
    return jnp.abs(x - t)


def mse_loss(x, t):
    return (x - t) ** 2


def huber_loss(x, t):
    a = jnp.abs(x - t)
    return jnp.where(a < 1, 0.5 * a**2, a - 0.5)


smooth_l1_loss = huber_loss  # the same at beta = delta = 1


def log_cosh_loss(x, t):
    return jnp.logaddexp(x - t, t - x) - jnp.log(2.0).astype(x.dtype)


def pinball_loss(x, t):
    return jnp.maximum(0.5 * (t - x), -0.5 * (t - x))


def poisson_nll_loss(x, t):
    return jnp.exp(x) - t * x


def gaussian_nll_loss(x, t, var):
    v = jnp.maximum(var, 1e-6)
    return 0.5 * (jnp.log(v) + (x - t) ** 2 / v)


def gamma_nll_loss(x, t):
    return x + t * jnp.exp(-x)


def tweedie_deviance_loss(x, t, power=0.0):
    if power == 0:
        return mse_loss(x, t)
    a, b = 2 - power, 1 - power
    return 2 * (t**a / (a * b) - t * x**b / b + x**a / a)


def kl_div(x, t):
    return t * (jnp.log(t) - x)


def binary_cross_entropy(x, t):
    return -(t * jnp.log(x) + (1 - t) * jnp.log1p(-x))


def binary_cross_entropy_with_logits(x, t):
    return -(t * log_sigmoid(x) + (1 - t) * log_sigmoid(-x))


multilabel_soft_margin_loss = binary_cross_entropy_with_logits


def sigmoid_focal_loss(x, t):
    p = sigmoid(x)
    missed = p + t - 2 * p * t
    return (0.75 - 0.5 * t) * missed**2 * binary_cross_entropy_with_logits(x, t)


def hinge_embedding_loss(x, t):
    return jnp.where(t == 1, x, jnp.maximum(0, 1 - x))


def soft_margin_loss(x, t):
    return softplus(-t * x)


def margin_ranking_loss(x1, x2, t):
    return jnp.maximum(0, -t * (x1 - x2))


def norm(x):
    return jnp.sqrt((x * x).sum(axis=1))


def cosine_embedding_loss(a, b, t):
    c = (a * b).sum(axis=1) / (norm(a) * norm(b))
    return jnp.where(t == 1, 1 - c, jnp.maximum(0, c))


def triplet_margin_loss(a, p, n):
    return jnp.maximum(0, 1 + norm(a - p + 1e-6) - norm(a - n + 1e-6))


def of_labels(x, t):
    return jnp.take_along_axis(x, jnp.expand_dims(t, 1), axis=1).squeeze(1)


def multi_margin_loss(x, t):
    z = jnp.maximum(0, 1 - of_labels(x, t)[:, None] + x)
    return z.mean(axis=1) - 1 / x.shape[1]  # the label's own margin is 1


def nll_loss(x, t, weight=None):
    if weight is None:
        return -of_labels(x, t)
    w = weight[t]
    return -(w * of_labels(x, t)).sum() / w.sum()


def cross_entropy(x, t, weight=None, label_smoothing=0.0):
    """With class weights, smoothing or probabilities for a target; no cell has two of them."""
    log_p = log_softmax(x, axis=1)
    if t.ndim == x.ndim:
        return -(t * log_p).sum(axis=1)
    hard = nll_loss(log_p, t, weight)
    if label_smoothing:
        return (1 - label_smoothing) * hard - label_smoothing * log_p.mean(axis=1)
    return hard


def ctc_loss_with_logits(x, labels, frames, lengths):
    padding = (
        jnp.arange(n) >= m[:, None] for n, m in ((x.shape[0], frames), (labels.shape[1], lengths))
    )
    frame_padding, label_padding = (p.astype(x.dtype) for p in padding)
    each = optax.ctc_loss(x.transpose(1, 0, 2), frame_padding, labels, label_padding)
    return each / lengths


ctc_loss = ctc_loss_with_logits  # it normalises again


def start(threads):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    return jax.__version__ + (f", optax {optax.__version__}" if optax else "")


def products(cell, arrays, options):
    loss = globals().get(cell.loss)
    if loss is None or (cell.loss.startswith("ctc") and optax is None):
        return {}
    jax.config.update("jax_enable_x64", cell.dtype == "float64")
    arrays = [jnp.asarray(x) for x in arrays]
    traced = {k: jnp.asarray(v) for k, v in options.items() if isinstance(v, np.ndarray)}
    static = {k: v for k, v in options.items() if k not in traced}

    def mean(*arguments):
        return loss(*arguments[: len(arrays)], **static, **arguments[-1]).mean()

    wrt = tuple(range(LOSSES[cell.loss].wrt))
    calls = {"value": jax.jit(mean), "gradient": jax.jit(jax.value_and_grad(mean, wrt))}

    def finished(call):
        return jax.block_until_ready(call(*arrays, traced))

    return {name: partial(finished, call) for name, call in calls.items()}


def numbers(result):
    if not isinstance(result, tuple):
        return float(result), []
    value, gradients = result
    return float(value), [np.asarray(g) for g in gradients]
