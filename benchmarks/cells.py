"""The cells of the benchmarks: losses, data and sizes.

`losses` derives the table from fastloss, in the process that asks for cells; a `Cell` takes what it
needs of it along to the processes of the peers, whose environments may have NumPy alone.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np

# ---- data: (random generator, shape of the input, dtype) -> array


def _tiled(draw, size, shape):
    """Draws at most 1 Mi numbers and repeats them: drawing all takes long, and no kernel is faster
    on repeated data."""
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


def class_index(rng, shape, dtype, classes=None):
    """Indices of `classes` classes, by default shape[1]."""
    classes = shape[1] if classes is None else classes
    return _tiled(lambda n: rng.integers(0, classes, n), np.prod(shape), shape)


def by_row(draw, rng, shape, dtype):
    """One entry for each row of (N, C, ...)."""
    rows = shape[:1] + shape[2:]
    return draw(rng, rows, dtype, shape[1]) if draw is class_index else draw(rng, rows, dtype)


def label_rows(rng, shape, dtype):
    """Up to five classes for each of N rows, then -1."""
    rows, classes = shape
    listed = np.full(shape, -1)
    listed[:, :5] = rng.permuted(np.tile(np.arange(5), (rows, 1)), axis=1) * (classes // 5)
    listed[np.arange(rows), rng.integers(1, 6, rows)] = -1
    return listed


def probability(rng, shape, dtype):
    """Rows of class probabilities."""
    x = np.exp(normal(rng, shape, dtype))
    x /= x.sum(axis=1, keepdims=True)
    return x


def class_weight(rng, shape, dtype):
    return rng.uniform(0.5, 1.5, shape[1]).astype(dtype)


# For sequences the shape is (T, N, C, S): frames, batch, classes, labels of each sample.


def frames(rng, shape, dtype):
    return normal(rng, shape[:3], dtype)


def log_frames(rng, shape, dtype):
    x = frames(rng, shape, np.float64)
    return (x - np.log(np.exp(x).sum(axis=2, keepdims=True))).astype(dtype)


def target_labels(rng, shape, dtype):
    return rng.integers(1, shape[2], (shape[1], shape[3]))


def all_frames(rng, shape, dtype):
    return np.full(shape[1], shape[0])


def all_labels(rng, shape, dtype):
    return np.full(shape[1], shape[3])


# By the domain of an operand, as in `operand_specs`.
DRAWS = {
    "any": normal,
    "score": normal,
    "nonnegative": positive,
    "positive": positive,
    "unit_interval": binary,
    "sign": sign,
    "index": class_index,
    "labels": label_rows,
}
LENGTHS = (all_frames, all_labels)


def draw_of(unit, extent, domain):
    """The data of an operand of a loss whose unit is an "element", a "row" or a "sequence"."""
    if unit == "sequence":
        return target_labels if domain == "index" else frames
    return partial(by_row, DRAWS[domain]) if (unit, extent) == ("row", "unit") else DRAWS[domain]


# ---- sizes

ELEMENTWISE = (
    ("small", (64, 10)),
    ("cached", (256, 1000)),
    ("large", (16 << 20,)),
)
CLASSES = (
    ("small", (32, 10)),
    ("small", (64, 10)),
    ("cached", (256, 1000)),
    ("cached", (1, 131072)),
    ("large", (4096, 1000)),
    ("large", (16384, 1024)),
    ("large", (1 << 20, 10)),
    ("large", (2048, 50257)),
)
MAPS = (("large", (8, 21, 512, 512)),)
ROWS = (
    ("small", (64, 10)),
    ("cached", (256, 1000)),
    ("large", (4096, 1000)),
    ("large", (16384, 1024)),
)
PAIRS = (
    ("small", (64, 32)),
    ("cached", (512, 512)),
    ("large", (8192, 512)),
    ("large", (65536, 128)),
)
SEQUENCES = (
    ("small", (50, 16, 20, 30)),
    ("cached", (150, 1, 29, 40)),
    ("cached", (150, 32, 29, 40)),
    ("large", (1000, 8, 5000, 200)),
)
CACHE_LINE = 64  # bytes
GROUPS = ("small", "cached", "large")
HALVES = ("float16", "bfloat16")  # a group of their own
SLOW = {(16384, 1024), (2048, 50257), (8, 21, 512, 512), (65536, 128), (1000, 8, 5000, 200)}

# ---- losses

# Options; an array among them is drawn for the shape, and a target replaces the usual one.
VARIANTS = {
    "": {},
    "smoothed": {"label_smoothing": 0.1},
    "weighted": {"weight": class_weight},
    "probabilities": {"target": probability},
    "power 1.5": {"power": 1.5},
}


@dataclass(frozen=True)
class Loss:
    """The benchmarks of a loss.

    `exps` and `logs` are the fewest that an entry of the input needs by itself with the data of
    its cells, whatever a kernel does; what is needed once per row does not count. They bound the
    time from below, and so does the default of 0; None if no bound is known.
    """

    arrays: tuple[Callable, ...]  # draws each operand
    wrt: int  # number of leading operands that are differentiated
    sizes: tuple
    exps: int | None = 0
    logs: int = 0
    variants: tuple = ("",)
    halves: tuple = ()  # shapes in half precision
    sparse: int | None = None  # the operand of which the value needs a few entries per row
    slack: float = 1  # factor on the tolerance of gradients


# Exceptions from the defaults; the name of an operand gives its data.
DECLARED = {
    "log_cosh_loss": {"exps": 1, "logs": 1},
    "poisson_nll_loss": {"exps": 1, "target": count},
    "gaussian_nll_loss": {"logs": 1},
    "gamma_nll_loss": {"exps": 1},
    "tweedie_deviance_loss": {  # powers of 0 and 1.5 are products and square roots
        "variants": ("", "power 1.5"),
        "input": positive,
        "target": positive,
    },
    "kl_div": {"logs": 1, "input": log_probability, "target": fraction},
    "binary_cross_entropy": {"logs": 1, "input": fraction},  # of x or of 1 - x: y is 0 or 1
    "binary_cross_entropy_with_logits": {"exps": 1, "logs": 1},
    "sigmoid_focal_loss": {"exps": 1, "logs": 1},
    "soft_margin_loss": {"exps": 1, "logs": 1},
    "multilabel_margin_loss": {"sparse": 1},
    "multilabel_soft_margin_loss": {"exps": 1, "logs": 1},
    "nll_loss": {"variants": ("", "weighted"), "sparse": 0, "input": log_probability},
    "cross_entropy": {
        "exps": 1,
        "sizes": (*CLASSES, *MAPS),
        "variants": ("", "smoothed", "weighted", "probabilities"),
        "halves": ((2048, 50257),),
    },
    # Peers compute CTC in log space, where gradients are off by percents.
    "ctc_loss": {"exps": None, "slack": 1000, "log_probs": log_frames},
    "ctc_loss_with_logits": {"exps": None, "slack": 1000},
}


@cache
def losses():
    """{name: Loss} of every loss of fastloss."""
    import fastloss

    named = ((name, getattr(fastloss, name)) for name in fastloss.losses.__all__)
    return {
        name: _loss(loss, dict(DECLARED.get(name, {})))
        for name, loss in named
        if isinstance(loss, fastloss._binding.Loss)
    }


def _loss(loss, declared):
    specs = loss.operand_specs[loss.formula_of()]
    if len(specs) < len(loss.operands):  # lengths are not in the table
        unit, sizes = "sequence", SEQUENCES
    elif loss.row_axis is None:
        unit, sizes = "element", ELEMENTWISE
    else:
        pairs = ("row", "any") in (spec[1:] for spec in specs)
        unit, sizes = "row", PAIRS if pairs else CLASSES if loss.row_axis == 1 else ROWS
    arrays = [declared.pop(name, draw_of(unit, *spec)) for name, *spec in specs]
    arrays += LENGTHS if unit == "sequence" else ()
    return replace(Loss(tuple(arrays), len(loss.default_wrt), sizes), **declared)


# ---- cells


@dataclass(frozen=True)
class Cell:
    loss: str
    variant: str
    shape: tuple
    dtype: str
    group: str
    spec: Loss = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "spec", losses()[self.loss])  # pickle takes it along

    @property
    def name(self):
        sides = (f"{n >> 20}Mi" if n % (1 << 20) == 0 else str(n) for n in self.shape)
        words = (self.loss, self.variant, "x".join(sides))
        return " ".join(filter(None, words)) + ("" if self.dtype == "float32" else f" {self.dtype}")

    def data(self):
        """The arrays and the keywords of a call; the same numbers in every process."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        dtype = dtype_of(self.dtype)
        arrays = [draw(rng, self.shape, dtype) for draw in self.spec.arrays]
        options = {
            name: value(rng, self.shape, dtype) if callable(value) else value
            for name, value in VARIANTS[self.variant].items()
        }
        if "target" in options:
            arrays[1] = options.pop("target")
        return arrays, options

    @property
    def entries(self):
        """The number of entries of the input; the last side of a sequence's shape is its labels."""
        return math.prod(self.shape[:-1] if self.spec.sizes == SEQUENCES else self.shape)

    def work(self, arrays):
        """{product: the least bytes read and written, exps and logs}, or None."""
        spec = self.spec
        if spec.exps is None:
            return None
        read = [x.nbytes for x in arrays]
        if spec.sparse is not None:
            rows = arrays[0].size // self.shape[1]
            read[spec.sparse] = rows * min(CACHE_LINE, read[spec.sparse] // rows)
        common = {
            "read": sum(read),
            "exp": arrays[0].size * spec.exps,
            "log": arrays[0].size * spec.logs,
        }
        value = common | {"write": 0}
        gradient = common | {"write": sum(x.nbytes for x in arrays[: spec.wrt])}
        return {"value": value, "gradient": gradient, "out": gradient}


def dtype_of(name):
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def cells(dtype="float32", quick=False):
    """All cells in a dtype; the cells in float32 include some in half precision."""
    listed = [
        Cell(name, variant, shape, dtype, "half" if dtype in HALVES else group)
        for name, loss in losses().items()
        for variant in loss.variants
        for group, shape in loss.sizes
        if not (quick and (variant or group == "cached" or shape in SLOW))
    ]
    if dtype == "float32" and not quick:
        listed += [
            Cell(name, "", shape, half, "half")
            for name, loss in losses().items()
            for half in HALVES
            for shape in loss.halves
        ]
    return listed
