"""JAX: formulas as its users write them, compiled by jax.jit; CTC is from optax.

XLA uses one thread for each processor that the process may run on.
"""

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import log_sigmoid, log_softmax, sigmoid, softplus

from benchmarks import with_numpy

try:
    import optax
except ImportError:
    optax = None  # no CTC


def binary_cross_entropy_with_logits(x, t):
    return -(t * log_sigmoid(x) + (1 - t) * log_sigmoid(-x))


multilabel_soft_margin_loss = binary_cross_entropy_with_logits


def sigmoid_focal_loss(x, t):
    p = sigmoid(x)
    wrong = p + t - 2 * p * t
    return (0.75 - 0.5 * t) * wrong**2 * binary_cross_entropy_with_logits(x, t)


def soft_margin_loss(x, t):
    return softplus(-t * x)


def norm(x):
    return jnp.sqrt((x * x).sum(axis=1))


def cosine_embedding_loss(a, b, t):
    c = (a * b).sum(axis=1) / (norm(a) * norm(b))
    return jnp.where(t == 1, 1 - c, jnp.maximum(0, c))


def triplet_margin_loss(a, p, n):
    return jnp.maximum(0, 1 + norm(a - p + 1e-6) - norm(a - n + 1e-6))


def at_labels(x, t):
    return jnp.take_along_axis(x, jnp.expand_dims(t, 1), axis=1).squeeze(1)


def multi_margin_loss(x, t):
    z = jnp.maximum(0, 1 - at_labels(x, t)[:, None] + x)
    return z.mean(axis=1) - 1 / x.shape[1]  # z is 1 at the label


def nll_loss(x, t, weight=None):
    if weight is None:
        return -at_labels(x, t)
    w = weight[t]
    return -(w * at_labels(x, t)).sum() / w.sum()


def cross_entropy(x, t, weight=None, label_smoothing=0.0):
    """With class weights, smoothing or probabilities as the target; no cell has two of these."""
    log_p = log_softmax(x, axis=1)
    if t.ndim == x.ndim:
        return -(t * log_p).sum(axis=1)
    nll = nll_loss(log_p, t, weight)
    if label_smoothing:
        return (1 - label_smoothing) * nll - label_smoothing * log_p.mean(axis=1)
    return nll


if optax:

    def ctc_loss_with_logits(x, labels, frames, lengths):
        padding = (
            jnp.arange(n) >= m[:, None]
            for n, m in ((x.shape[0], frames), (labels.shape[1], lengths))
        )
        frame_padding, label_padding = (p.astype(x.dtype) for p in padding)
        losses = optax.ctc_loss(x.transpose(1, 0, 2), frame_padding, labels, label_padding)
        return losses / lengths

    ctc_loss = ctc_loss_with_logits  # optax normalises again


def start(threads):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    return jax.__version__ + (f", optax {optax.__version__}" if optax else "")


def values_of(name):
    """The function of this module or, for other elementwise losses, the values of `with_numpy`."""
    formula = getattr(with_numpy, name, None)
    if name in globals() or formula is None:
        return globals().get(name)
    return lambda *arrays, **options: formula(*arrays, **options, xp=jnp)[0]


def products(cell, arrays, options):
    loss = values_of(cell.loss)
    if loss is None:
        return {}
    jax.config.update("jax_enable_x64", cell.dtype == "float64")
    arrays = [jnp.asarray(x) for x in arrays]
    traced = {k: jnp.asarray(v) for k, v in options.items() if isinstance(v, np.ndarray)}
    static = {k: v for k, v in options.items() if k not in traced}

    def mean(*arguments):
        return loss(*arguments[: len(arrays)], **static, **arguments[-1]).mean()

    wrt = tuple(range(cell.spec.wrt))
    calls = {"value": jax.jit(mean), "gradient": jax.jit(jax.value_and_grad(mean, wrt))}

    def wait_for(call):
        return jax.block_until_ready(call(*arrays, traced))

    return {name: partial(wait_for, call) for name, call in calls.items()}


def numbers(result):
    if not isinstance(result, tuple):
        return float(result), []
    value, gradients = result
    return float(value), [np.asarray(g) for g in gradients]
