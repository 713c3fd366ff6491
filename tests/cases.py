"""One table of cases: every loss with valid operands and the options that change what it does.

All laws of the tests run over `CASES`. A loss that is added gets a line
in `TABLE`; what its operands may hold is said by a `Kind` each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

CLASSES = 7
FLOATS = (np.float32, np.float64)


class Kind(NamedTuple):
    """What an argument may hold: draws of usual values, of hard ones, and the corners between.

    `usual(rng, shape)` and `hard(rng, size, info)` give float64, info being the `np.finfo` of what
    it is rounded to; `corners(info)` lists extremes, infinities and NaN. No finite value is above
    half of the largest number, so that differences are finite.
    """

    usual: Callable
    hard: Callable
    corners: Callable
    low: float = -np.inf
    high: float = np.inf


# ---- Draws ---------------------------------------------------------------------------------------


def magnitudes(rng, size, info, low=None, high=None):
    """Positive numbers of all sizes, evenly spread over their exponents, subnormal ones too."""
    low = np.log2(float(info.smallest_subnormal)) if low is None else low
    high = info.maxexp - 1 if high is None else high
    return np.exp2(rng.uniform(low, high, size))


def signs(rng, size):
    return rng.choice([-1.0, 1.0], size)


def mixed(rng, *draws):
    """Entry by entry one of the draws."""
    return np.choose(rng.integers(0, len(draws), len(draws[0])), draws)


def picked(rng, size, values):
    return rng.choice(np.array(values, dtype=np.float64), size)


def real_hard(rng, size, info):
    return mixed(
        rng,
        signs(rng, size) * magnitudes(rng, size, info),
        signs(rng, size) * magnitudes(rng, size, info, -20, 20),
        picked(rng, size, finite(real_corners(info))),
    )


def real_corners(info):
    sizes = [float(v) for v in (info.smallest_subnormal, info.tiny, info.eps, 1, info.max / 2)]
    return [0.0, -0.0, *sizes, *(-v for v in sizes), np.inf, -np.inf, np.nan]


def finite(values):
    return [v for v in values if np.isfinite(v)]


def positive_hard(rng, size, info):
    return np.abs(real_hard(rng, size, info))


def positive_corners(info):
    return [v for v in real_corners(info) if not v < 0 and v != np.inf]


def variance_hard(rng, size, info):
    return np.maximum(positive_hard(rng, size, info), float(info.tiny))


def variance_corners(info):
    return [0.0, float(info.tiny), 1.0, float(info.max) / 2, np.inf, np.nan]


def exponent_hard(rng, size, info):
    """Arguments of exp, dense where it is neither 0 nor infinite nor 1."""
    reach = np.log(float(info.max))
    return mixed(rng, rng.uniform(-1.6, 1.1, size) * reach, real_hard(rng, size, info))


def log_probability_corners(info):
    return [v for v in real_corners(info) if not v > 0]


def unit_hard(rng, size, info):
    """Numbers in [0, 1], dense at both ends."""
    small = magnitudes(rng, size, info, high=-1)
    ulps = rng.integers(0, 9, size) * float(info.epsneg)
    return mixed(
        rng,
        small,
        1 - magnitudes(rng, size, info, -info.nmant - 1, -1),
        1 - ulps,
        rng.uniform(size=size),
        picked(rng, size, finite(unit_corners(info))),
    )


def unit_corners(info):
    small = [info.smallest_subnormal, info.tiny, info.eps]
    return [0.0, *map(float, small), 0.5, 1 - float(info.epsneg), 1.0, np.nan]


def weight_hard(rng, size, info):
    return mixed(rng, picked(rng, size, [0, 0.5, 1, 3]), magnitudes(rng, size, info, -30, 30))


def score_hard(rng, shape, info):
    """Rows of logits: all scales, confident ones, ties, one class alone, -inf."""
    rows, classes = shape
    x = rng.normal(size=shape) * magnitudes(rng, (rows, 1), info, -30, 9)
    kind = rng.integers(0, 8, rows)
    best = rng.integers(0, classes, rows)
    confident = kind <= 2
    lead = rng.uniform(0, 1.3 * np.log(float(info.max)), rows)
    x[confident] = rng.normal(size=(confident.sum(), classes))
    x[confident, best[confident]] += lead[confident]
    x[kind == 3] = np.round(x[kind == 3])
    x[kind == 4] = x[kind == 4][:, :1]
    extreme = kind == 5
    x[extreme] = signs(rng, (extreme.sum(), classes)) * magnitudes(rng, x[extreme].shape, info)
    masked = (kind == 6)[:, None] & (rng.random(shape) < 0.4)
    masked[np.arange(rows), best] = False
    return np.where(masked, -np.inf, x)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


REAL = Kind(lambda rng, shape: 2 * rng.normal(size=shape), real_hard, real_corners)
POSITIVE = Kind(
    lambda rng, shape: rng.uniform(0.05, 4, shape), positive_hard, positive_corners, low=0
)
VARIANCE = Kind(POSITIVE.usual, variance_hard, variance_corners, low=0)
EXPONENT = Kind(REAL.usual, exponent_hard, real_corners)
LOG_PROBABILITY = Kind(
    lambda rng, shape: -POSITIVE.usual(rng, shape),
    lambda rng, size, info: -np.abs(exponent_hard(rng, size, info)),
    log_probability_corners,
    high=0,
)
UNIT = Kind(
    lambda rng, shape: rng.uniform(0.05, 0.95, shape), unit_hard, unit_corners, low=0, high=1
)
SIGN = Kind(signs, lambda rng, size, info: signs(rng, size), lambda info: [-1.0, 1.0, np.nan])
WEIGHT = Kind(
    lambda rng, shape: rng.choice([0, 0.5, 1, 2.3], shape), weight_hard, lambda info: [0.0, 1.0]
)

# Rows of classes and the index of one.
SCORES = Kind(REAL.usual, score_hard, real_corners)
LOG_SCORES = Kind(lambda rng, shape: log_softmax(rng.normal(size=shape)), score_hard, real_corners)
LABELS = Kind(
    lambda rng, shape: rng.integers(0, CLASSES, shape),
    lambda rng, size, info: rng.integers(0, CLASSES, size),
    lambda info: [0, 1],
)


# ---- The table -----------------------------------------------------------------------------------


class Case(NamedTuple):
    """A loss under one choice of options; a `Kind` among them stands for an array."""

    loss: str
    operands: tuple[Kind, ...]
    options: dict

    @property
    def id(self):
        given = (k if isinstance(v, Kind) else f"{k}={v}" for k, v in self.options.items())
        return "-".join([self.loss, *given])

    @property
    def by_class(self):
        return LABELS in self.operands

    def shapes(self, shape, classes=CLASSES):
        """The operands' shapes for an unreduced loss of `shape`; the class axis is the second."""
        rows = (*shape[:1], classes, *shape[1:])
        return [rows if k in (SCORES, LOG_SCORES) else shape for k in self.operands]

    def arrays(self, rng, shape, dtype, classes=CLASSES):
        """Usual operands."""
        shapes = zip(self.operands, self.shapes(shape, classes), strict=True)
        arrays = [_typed(kind.usual(rng, s), dtype) for kind, s in shapes]
        return [
            a % classes if k is LABELS else a for k, a in zip(self.operands, arrays, strict=True)
        ]

    def hard(self, rng, size, dtype):
        """Operands, for `size` losses, easily computed wrong: all magnitudes and kinks."""
        info = np.finfo(dtype)
        shapes = zip(self.operands, self.shapes((size,)), strict=True)
        with np.errstate(over="ignore"):
            arrays = [
                _typed(k.hard(rng, s if len(s) > 1 else size, info), dtype) for k, s in shapes
            ]
        if self.by_class:
            self._confident(rng, arrays)
        elif self.operands[0] is self.operands[1]:
            self._near(rng, arrays, info)
        return arrays

    def corners(self, dtype):
        """All combinations of the operands' corners."""
        info = np.finfo(dtype)
        if not self.by_class:
            grid = np.meshgrid(*(k.corners(info) for k in self.operands), indexing="ij")
            return [a.ravel().astype(dtype) for a in grid]
        values = np.array(
            [v for v in self.operands[0].corners(info) if abs(v) not in (info.eps, 1)]
        )
        pairs = np.stack(np.meshgrid(values, values, indexing="ij"), axis=-1).reshape(-1, 2)
        # two values fill a row of classes, the others being like one of them
        rows = [p for a, b in pairs for p in ([a, b] + [b] * (CLASSES - 2), [a, b] + [-1.0] * 5)]
        return [np.repeat(np.array(rows), 2, axis=0).astype(dtype), np.arange(2 * len(rows)) % 2]

    def keywords(self, rng, shape, dtype, classes=CLASSES, hard=False):
        """The options, with arrays that fit an unreduced loss of `shape`."""
        keywords = {}
        for name, value in self.options.items():
            if isinstance(value, Kind):
                full = (classes,) if self.by_class else shape
                if hard:
                    value = value.hard(rng, int(np.prod(full)), np.finfo(dtype)).reshape(full)
                else:
                    value = value.usual(rng, full)
                value = _typed(value, dtype)
            keywords[name] = value
        return keywords

    def _near(self, rng, arrays, info):
        """Makes a third of the pairs equal, or a few ULP beside a kink."""
        size = len(arrays[0])
        gaps = [0, 0, 1, *(v for v in self.options.values() if type(v) is float)]
        gap = rng.choice(gaps, size) * signs(rng, size)
        near = rng.random(size) < 1 / 3
        with np.errstate(invalid="ignore", over="ignore"):
            beside = arrays[0] + gap * (1 + rng.integers(-3, 4, size) * float(info.eps))
            beside = np.where(np.isfinite(beside), beside, arrays[0])
        arrays[1][near] = np.clip(beside, self.operands[1].low, self.operands[1].high)[near]

    def _confident(self, rng, arrays):
        """Makes most labels the row's best class, and has some ignored."""
        kind = rng.integers(0, 8, len(arrays[1]))
        arrays[1] = np.where(kind < 5, arrays[0].argmax(axis=1), arrays[1])
        arrays[1][kind == 7] = self.options.get("ignore_index", -100)


def _typed(array, dtype):
    array = np.asarray(array)
    return array if array.dtype.kind in "iu" else array.astype(dtype)


def _line(loss, operands, *variants):
    return [Case(loss, operands, options) for options in variants]


INF = float("inf")
TABLE = [
    _line("l1_loss", (REAL, REAL), {}, {"weight": WEIGHT}),
    _line("mse_loss", (REAL, REAL), {}, {"weight": WEIGHT}),
    _line("smooth_l1_loss", (REAL, REAL), {}, {"beta": 0.3}, {"beta": 0.0}, {"beta": INF}),
    _line("huber_loss", (REAL, REAL), {}, {"delta": 0.3}, {"delta": INF}, {"weight": WEIGHT}),
    _line("log_cosh_loss", (REAL, REAL), {}),
    _line("poisson_nll_loss", (EXPONENT, POSITIVE), {}, {"full": True}),
    _line(
        "poisson_nll_loss",
        (POSITIVE, POSITIVE),
        {"log_input": False},
        {"log_input": False, "full": True, "eps": 0.1},
        {"log_input": False, "eps": 0.0},
    ),
    _line(
        "gaussian_nll_loss",
        (REAL, REAL, VARIANCE),
        {},
        {"full": True, "eps": 0.01},
        {"eps": 0.0},
    ),
    _line("kl_div", (EXPONENT, POSITIVE), {}),
    _line("kl_div", (LOG_PROBABILITY, LOG_PROBABILITY), {"log_target": True}),
    _line("binary_cross_entropy", (UNIT, UNIT), {}, {"weight": WEIGHT}),
    _line(
        "binary_cross_entropy_with_logits",
        (EXPONENT, UNIT),
        {},
        {"weight": WEIGHT},
        {"pos_weight": WEIGHT},
        {"weight": WEIGHT, "pos_weight": WEIGHT},
    ),
    _line("hinge_embedding_loss", (REAL, SIGN), {}, {"margin": 0.3}),
    _line("soft_margin_loss", (EXPONENT, SIGN), {}),
    _line("margin_ranking_loss", (REAL, REAL, SIGN), {}, {"margin": 0.3}),
    _line("nll_loss", (LOG_SCORES, LABELS), {}, {"weight": WEIGHT}, {"ignore_index": 2}),
    _line(
        "cross_entropy",
        (SCORES, LABELS),
        {},
        {"weight": WEIGHT},
        {"ignore_index": 2},
        {"label_smoothing": 0.1},
        {"label_smoothing": 1.0},
        {"weight": WEIGHT, "label_smoothing": 0.1},
    ),
]
CASES = [case for line in TABLE for case in line]
LOSSES = list(dict.fromkeys(case.loss for case in CASES))
