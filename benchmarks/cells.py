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
    """Class indices of (N, C, ...)."""
    places = shape[:1] + shape[2:]
    return _tiled(lambda n: rng.integers(0, shape[1], n), np.prod(places), places)


def labels(rng, shape, dtype):
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


def likeness(rng, shape, dtype):
    """-1 or 1 for each pair of rows."""
    return sign(rng, shape[:-1], dtype)


# Of sequences, shape (T, N, C, S): frames, batch, classes, labels of each sample.


def frames(rng, shape, dtype):
    return normal(rng, shape[:3], dtype)


def log_frames(rng, shape, dtype):
    x = frames(rng, shape, np.float64)
    return (x - np.log(np.exp(x).sum(axis=2, keepdims=True))).astype(dtype)


def targets(rng, shape, dtype):
    return rng.integers(1, shape[2], (shape[1], shape[3]))


def all_frames(rng, shape, dtype):
    return np.full(shape[1], shape[0])


def all_labels(rng, shape, dtype):
    return np.full(shape[1], shape[3])


def class_weight(rng, shape, dtype):
    return rng.uniform(0.5, 1.5, shape[1]).astype(dtype)


# ---- the table

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

# Options; arrays among them are made from the shape, and a target takes the place of the usual one.
VARIANTS = {
    "": {},
    "smoothed": {"label_smoothing": 0.1},
    "weighted": {"weight": class_weight},
    "probabilities": {"target": probability},
    "power 1.5": {"power": 1.5},
}


@dataclass(frozen=True)
class Loss:
    """exps and logs: so many per entry of the input as the mathematics needs, not as a kernel does
    it (a power is one of each; whatever is needed once per row does not count). None: no limit is
    known.
    """

    arrays: tuple  # one generator for each positional argument
    exps: int | None = 0
    logs: int = 0
    wrt: int = 1  # how many of the leading arrays are differentiated
    sizes: tuple = ELEMENTWISE
    variants: tuple = ("",)
    halves: tuple = ()  # shapes in half precision
    sparse: int | None = None  # the array of which the value needs a few entries per row
    slack: float = 1  # of gradients: peers' CTC in log space is off by percents


FRAMES = (log_frames, targets, all_frames, all_labels)
LOGIT_FRAMES = (frames, targets, all_frames, all_labels)

LOSSES = {
    "l1_loss": Loss((normal, normal)),
    "mse_loss": Loss((normal, normal)),
    "smooth_l1_loss": Loss((normal, normal)),
    "huber_loss": Loss((normal, normal)),
    "log_cosh_loss": Loss((normal, normal), exps=1, logs=1),
    "pinball_loss": Loss((normal, normal)),
    "poisson_nll_loss": Loss((normal, count), exps=1),
    "gaussian_nll_loss": Loss((normal, normal, positive), logs=1),
    "gamma_nll_loss": Loss((normal, positive), exps=1),
    "tweedie_deviance_loss": Loss((positive, positive), variants=("", "power 1.5")),
    "kl_div": Loss((log_probability, fraction), logs=1),
    "binary_cross_entropy": Loss((fraction, binary), logs=2),
    "binary_cross_entropy_with_logits": Loss((normal, binary), exps=1, logs=1),
    "sigmoid_focal_loss": Loss((normal, binary), exps=1, logs=1),
    "hinge_embedding_loss": Loss((normal, sign)),
    "soft_margin_loss": Loss((normal, sign), exps=1, logs=1),
    "margin_ranking_loss": Loss((normal, normal, sign), wrt=2),
    "cosine_embedding_loss": Loss((normal, normal, likeness), wrt=2, sizes=PAIRS),
    "triplet_margin_loss": Loss((normal, normal, normal), wrt=3, sizes=PAIRS),
    "multi_margin_loss": Loss((normal, label), sizes=ROWS),
    "multilabel_margin_loss": Loss((normal, labels), sizes=ROWS, sparse=1),
    "multilabel_soft_margin_loss": Loss((normal, binary), exps=1, logs=1, sizes=ROWS),
    "nll_loss": Loss((log_probability, label), sizes=CLASSES, variants=("", "weighted"), sparse=0),
    "cross_entropy": Loss(
        (normal, label),
        exps=1,
        sizes=(*CLASSES, *MAPS),
        variants=("", "smoothed", "weighted", "probabilities"),
        halves=((2048, 50257),),
    ),
    "ctc_loss": Loss(FRAMES, None, sizes=SEQUENCES, slack=1000),
    "ctc_loss_with_logits": Loss(LOGIT_FRAMES, None, sizes=SEQUENCES, slack=1000),
}

VARIANT_POWERS = {"power 1.5": 2}  # of x and of y; another power of the same number is a product


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
        dtype = dtype_of(self.dtype)
        arrays = [draw(rng, self.shape, dtype) for draw in LOSSES[self.loss].arrays]
        options = {
            name: value(rng, self.shape, dtype) if callable(value) else value
            for name, value in VARIANTS[self.variant].items()
        }
        if "target" in options:
            arrays[1] = options.pop("target")
        return arrays, options

    def work(self, arrays):
        """{product: bytes read and written, arrays read, exps and logs, at the least}, or None."""
        loss = LOSSES[self.loss]
        if loss.exps is None:
            return None
        powers = VARIANT_POWERS.get(self.variant, 0)
        read = [x.nbytes for x in arrays]
        if loss.sparse is not None:
            rows = arrays[0].size // self.shape[1]
            read[loss.sparse] = rows * min(CACHE_LINE, read[loss.sparse] // rows)
        made = {
            "read": sum(read),
            "streams": sum(n > sum(read) / 10 for n in read),
            "exp": arrays[0].size * (loss.exps + powers),
            "log": arrays[0].size * (loss.logs + powers),
        }
        value = made | {"write": 0}
        gradient = made | {"write": sum(x.nbytes for x in arrays[: loss.wrt])}
        return {"value": value, "gradient": gradient, "out": gradient}


def dtype_of(name):
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def cells(dtype="float32", quick=False):
    """Half precision has cells of its own beside float32, where float32 is asked for."""
    made = [
        Cell(name, variant, shape, dtype, "half" if dtype in HALVES else group)
        for name, loss in LOSSES.items()
        for variant in loss.variants
        for group, shape in loss.sizes
        if not (quick and (variant or group == "cached" or shape in SLOW))
    ]
    if dtype == "float32" and not quick:
        made += [
            Cell(name, "", shape, half, "half")
            for name, loss in LOSSES.items()
            for half in HALVES
            for shape in loss.halves
        ]
    return made
