"""What is computed: every loss, its data, its sizes. Needs NumPy alone, as any peer has it."""

import zlib
from dataclasses import dataclass

import numpy as np

# ---- data: (generator of random numbers, shape of the input, dtype) -> array


def _tiled(draw, size, shape):
    """Repeats after 1 Mi numbers: drawing more takes long, and no kernel can tell."""
    return np.resize(draw(min(size, 1 << 20)), shape)


def normal(rng, shape, dtype):
    return _tiled(lambda n: rng.standard_normal(n).astype(dtype), np.prod(shape), shape)


def fraction(rng, shape, dtype):
    return _tiled(lambda n: rng.uniform(0.01, 0.99, n).astype(dtype), np.prod(shape), shape)


def log_probability(rng, shape, dtype):
    return _tiled(lambda n: np.log(rng.uniform(0.01, 0.99, n)).astype(dtype), np.prod(shape), shape)


def count(rng, shape, dtype):
    return _tiled(lambda n: rng.poisson(2, n).astype(dtype), np.prod(shape), shape)


def positive(rng, shape, dtype):
    return _tiled(lambda n: rng.uniform(0.5, 2, n).astype(dtype), np.prod(shape), shape)


def binary(rng, shape, dtype):
    return _tiled(lambda n: rng.integers(0, 2, n).astype(dtype), np.prod(shape), shape)


def sign(rng, shape, dtype):
    return 2 * binary(rng, shape, dtype) - 1


def label(rng, shape, dtype):
    return _tiled(lambda n: rng.integers(0, shape[1], n), shape[0], shape[0])


def class_weight(rng, shape, dtype):
    return rng.uniform(0.5, 1.5, shape[1]).astype(dtype)


# ---- the table

ELEMENTWISE = [
    ("small", (64, 10)),
    ("cached", (256, 1000)),
    ("large", (16 << 20,)),
]
CLASSES = [
    ("small", (32, 10)),
    ("small", (64, 10)),
    ("cached", (256, 1000)),
    ("large", (4096, 1000)),
    ("large", (16384, 1024)),
    ("large", (1 << 20, 10)),
    ("large", (2048, 50257)),
]
GROUPS = ("small", "cached", "large")
SLOW = {(16384, 1024), (2048, 50257)}  # not in a quick run

VARIANTS = {"": {}, "smoothed": {"label_smoothing": 0.1}, "weighted": {"weight": class_weight}}


@dataclass(frozen=True)
class Loss:
    arrays: tuple  # one generator for each positional argument
    wrt: int = 1  # how many of the leading arrays are differentiated
    sizes: tuple = tuple(ELEMENTWISE)
    variants: tuple = ("",)


LOSSES = {
    "l1_loss": Loss((normal, normal)),
    "mse_loss": Loss((normal, normal)),
    "smooth_l1_loss": Loss((normal, normal)),
    "huber_loss": Loss((normal, normal)),
    "log_cosh_loss": Loss((normal, normal)),
    "poisson_nll_loss": Loss((normal, count)),
    "gaussian_nll_loss": Loss((normal, normal, positive)),
    "kl_div": Loss((log_probability, fraction)),
    "binary_cross_entropy": Loss((fraction, binary)),
    "binary_cross_entropy_with_logits": Loss((normal, binary)),
    "hinge_embedding_loss": Loss((normal, sign)),
    "soft_margin_loss": Loss((normal, sign)),
    "margin_ranking_loss": Loss((normal, normal, sign), wrt=2),
    "nll_loss": Loss((log_probability, label), 1, tuple(CLASSES), ("", "weighted")),
    "cross_entropy": Loss((normal, label), 1, tuple(CLASSES), ("", "smoothed", "weighted")),
}


@dataclass(frozen=True)
class Cell:
    loss: str
    variant: str
    shape: tuple
    dtype: str
    group: str

    @property
    def name(self):
        sides = (f"{n >> 20}Mi" if n % (1 << 20) == 0 else str(n) for n in self.shape)
        words = (self.loss, self.variant, "x".join(sides))
        return " ".join(filter(None, words)) + ("" if self.dtype == "float32" else f" {self.dtype}")

    def data(self):
        """The arrays and the keywords of a call; the same numbers in every process."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        dtype = np.dtype(self.dtype)
        arrays = [draw(rng, self.shape, dtype) for draw in LOSSES[self.loss].arrays]
        options = {
            name: value(rng, self.shape, dtype) if callable(value) else value
            for name, value in VARIANTS[self.variant].items()
        }
        return arrays, options


def cells(dtype="float32", quick=False):
    return [
        Cell(name, variant, shape, dtype, group)
        for name, loss in LOSSES.items()
        for variant in loss.variants
        for group, shape in loss.sizes
        if not (quick and shape in SLOW)
    ]
