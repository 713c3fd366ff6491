"""One table of cases: every loss with valid operands and the options that change what it does.

All laws of the tests run over `CASES`. A loss that is added gets a line
in `TABLE`; what its operands may hold is said by a `Kind` each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

CLASSES = 7  # entries of a row
FRAMES, LABELLED = 8, 3  # of a sequence, at most
FLOATS = (np.float32, np.float64)


class Kind(NamedTuple):
    """What an argument may hold: draws of usual values, of hard ones, and the corners between.

    `usual(rng, shape)` and `hard(rng, shape, info)` give float64 or integers, info being the
    `np.finfo` of what floats are rounded to; `corners(info)` lists extremes, infinities and NaN, as
    numbers, or as rows where the argument holds rows. No finite value is above half of the largest
    number, so that differences are finite.

    `place` says where the entries are: "unit", one for each unreduced loss; "row", a row for each;
    "classes", a weight for each class of all rows; "frames", "labels" and "length", those of a
    sequence.
    `ignorable`: indices, one of which `ignore_index` may say to leave out.
    """

    usual: Callable
    hard: Callable
    corners: Callable
    low: float = -np.inf
    high: float = np.inf
    place: str = "unit"
    ignorable: bool = False


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


def score_corners(info):
    """Two values fill a row, the others being like one of them or -1; a row's sum is finite."""
    large = float(info.max) / 2
    values = [v / 8 if abs(v) == large else v for v in real_corners(info)]
    values = [v for v in values if abs(v) not in (info.eps, 1)]
    pairs = np.stack(np.meshgrid(values, values, indexing="ij"), axis=-1).reshape(-1, 2)
    rest = CLASSES - 2
    return [row for a, b in pairs for row in ([a, b] + [b] * rest, [a, b] + [-1.0] * rest)]


def share_hard(rng, shape, info):
    """Rows of probabilities: one-hot, uniform, unnormalised, with zeros, of all sizes."""
    rows, classes = shape
    y = rng.dirichlet(np.ones(classes), rows)
    kind = rng.integers(0, 7, rows)[:, None]
    hot = np.eye(classes)[rng.integers(0, classes, rows)]
    for k, other in enumerate(
        (
            hot,
            np.full(shape, 1 / classes),
            3 * rng.random(shape),
            np.where(rng.random(shape) < 0.5, 0, y),
            magnitudes(rng, shape, info, high=0),
        )
    ):
        y = np.where(kind == k, other, y)
    return y


def share_corners(info):
    hot, tiny = np.eye(CLASSES), float(info.tiny)
    rows = [hot[1], np.full(CLASSES, 0.5), np.zeros(CLASSES), tiny * hot[0] + hot[2]]
    return [*rows, np.where(hot[0], np.nan, 0.2)]


def units_corners(info):
    return [row for row in share_corners(info) if row.any()]


def label_set(rng, shape):
    """Rows of labels, some twice, and -1 after the last."""
    y = rng.integers(0, shape[-1], shape)
    return np.where(rng.random(shape) < 0.25, -1, y)


def label_set_corners(info):
    ends = [-1] * (CLASSES - 3)
    return [[0, -1, 1, *ends], [1, 0, -1, *ends], [0, 0, 1, *ends], [-1] * CLASSES, range(CLASSES)]


def vector_hard(rng, shape, info):
    """Rows of features: of all lengths, their entries alike, of all sizes, small integers, or 0."""
    rows, _ = shape
    x = rng.normal(size=shape)
    kind = rng.integers(0, 6, rows)[:, None]
    length = magnitudes(rng, (rows, 1), info, high=info.maxexp - 3)
    spread = signs(rng, shape) * magnitudes(rng, shape, info, -30, 30)
    for k, other in enumerate((length * x / 8, spread, np.round(x), 0 * x)):
        x = np.where(kind == k, other, x)
    return x


def vector_corners(info):
    small, tiny, large = (float(v) for v in (info.smallest_subnormal, info.tiny, info.max / 1024))
    slope = np.arange(CLASSES) - 2.0
    rows = [0 * slope, slope, slope[::-1], small * slope, tiny * slope, large * slope]
    hot = np.eye(CLASSES)[1]
    return [*rows, large * hot, 1e-6 * hot, np.where(hot, np.nan, slope)]


def log_softmax(x, axis=-1):
    x = x - x.max(axis=axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


def frame_hard(rng, shape, info):
    """Frames of logits like rows of them, one kind for a sample."""
    samples = shape[0]
    x = score_hard(rng, (samples * shape[1], shape[2]), info).reshape(shape)
    x[np.abs(np.where(np.isinf(x), 0, x)) > 1e4] = 0  # so that a path can have some probability
    plain = rng.random(samples) < 0.5
    x[plain] = 3 * rng.normal(size=(plain.sum(), *shape[1:]))
    return x


def frame_corners(info):
    """Even frames, certain ones, ones where a class is impossible, and NaN."""
    even = np.zeros((FRAMES, CLASSES))
    certain, masked, nan = even - 60.0, even.copy(), even.copy()
    certain[np.arange(FRAMES), [1, 1, 0, 1, 2, 2, 0, 0]] = 0
    masked[:, 1] = -np.inf
    nan[3, 4] = np.nan
    return [even, certain, masked, nan]


def length_of(least, most):
    return Kind(
        lambda rng, shape: rng.integers(least, most + 1, shape),
        lambda rng, shape, info: rng.integers(0, most + 1, shape),
        lambda info: [0, most],
        place="length",
    )


REAL = Kind(lambda rng, shape: 2 * rng.normal(size=shape), real_hard, real_corners)
POSITIVE = Kind(
    lambda rng, shape: rng.uniform(0.05, 4, shape), positive_hard, positive_corners, low=0
)
ABOVE_ZERO = Kind(
    POSITIVE.usual,
    lambda rng, shape, info: np.maximum(
        positive_hard(rng, shape, info), float(info.smallest_subnormal)
    ),
    lambda info: [v for v in positive_corners(info) if v != 0],
    low=2.0**-149,  # positive in float32 too
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

# Rows of classes or features, the index of a class, sets of labels, weights of classes.
SCORES = Kind(REAL.usual, score_hard, score_corners, place="row")
LOG_SCORES = SCORES._replace(
    usual=lambda rng, shape: log_softmax(rng.normal(size=shape), axis=min(1, len(shape) - 1))
)
SHARES = Kind(
    lambda rng, shape: rng.uniform(0, 0.5, shape), share_hard, share_corners, low=0, place="row"
)
UNITS = Kind(
    UNIT.usual,
    lambda rng, shape, info: unit_hard(rng, int(np.prod(shape)), info).reshape(shape),
    units_corners,
    low=0,
    high=1,
    place="row",
)
VECTORS = Kind(REAL.usual, vector_hard, vector_corners, place="row")
LABELS = Kind(
    lambda rng, shape: rng.integers(0, CLASSES, shape),
    lambda rng, size, info: rng.integers(0, CLASSES, size),
    lambda info: [0, 1],
    ignorable=True,
)
CLASS = LABELS._replace(ignorable=False)
LABEL_SETS = Kind(
    label_set, lambda rng, shape, info: label_set(rng, shape), label_set_corners, place="row"
)
ROW_WEIGHT = WEIGHT._replace(place="row")
CLASS_WEIGHT = WEIGHT._replace(place="classes")

# Sequences: frames of logits or log-probabilities, the labels to be found in them, lengths of both.
LOGITS = Kind(REAL.usual, frame_hard, frame_corners, place="frames")
LOG_FRAMES = Kind(
    lambda rng, shape: log_softmax(rng.normal(size=shape)),
    lambda rng, shape, info: log_softmax(frame_hard(rng, shape, info)),
    lambda info: [log_softmax(frames) for frames in frame_corners(info)],
    high=0,
    place="frames",
)
SPELLED = Kind(
    lambda rng, shape: rng.integers(1, CLASSES, shape),
    lambda rng, shape, info: rng.integers(1, 4, shape),
    lambda info: [[1, 2, 1], [2, 2, 2]],
    place="labels",
)
LENGTHS = length_of(FRAMES - 2, FRAMES), length_of(0, LABELLED)
SEQUENCES = (SPELLED, *LENGTHS)
INTEGER = (LABELS, CLASS, LABEL_SETS, *SEQUENCES)


# ---- The table -----------------------------------------------------------------------------------


class Case(NamedTuple):
    """A loss under one choice of options; a `Kind` among them stands for an array.

    `axis`: that of the rows.
    """

    loss: str
    operands: tuple[Kind, ...]
    options: dict
    axis: int = -1

    @property
    def id(self):
        given = (k if isinstance(v, Kind) else f"{k}={v}" for k, v in self.options.items())
        soft = ["probabilities"] if SHARES in self.operands else []
        return "-".join([self.loss, *soft, *given])

    @property
    def kind(self):
        """What a unit of the loss is: one of "elements", "rows" and "sequences"."""
        places = {kind.place for kind in self.operands}
        return "rows" if "row" in places else "sequences" if "frames" in places else "elements"

    @property
    def by_class(self):
        """Whether the target is an index, that is no gradient and no number."""
        return self.operands[1] in (LABELS, CLASS)

    @property
    def weighs_classes(self):
        """Whether a weight belongs to a class, and not to an entry of the operands."""
        return CLASS_WEIGHT in self.options.values()

    @property
    def ignored(self):
        """The index that leaves a row out, None where there is no such option."""
        ignorable = any(kind.ignorable for kind in self.operands)
        return self.options.get("ignore_index", -100) if ignorable else None

    @property
    def time_first(self):
        """Whether frames come before samples."""
        return self.kind == "sequences" and not self.options.get("batch_first")

    @property
    def normalised(self):
        """Whether probabilities of a frame add up to 1, so that none of them moves alone."""
        return LOG_FRAMES in self.operands

    def differentiable(self, loss):
        """The arguments of `loss` that have a gradient in this case: floating ones."""
        floating = (
            name
            for name, kind in zip(loss.operands, self.operands, strict=True)
            if kind not in INTEGER
        )
        return tuple(name for name in floating if name in loss.differentiable)

    def units(self, shape):
        """The shape of the unreduced loss nearest to `shape`: sequences have one axis or none."""
        return shape if self.kind != "sequences" else (int(np.prod(shape)),) if shape else ()

    def shapes(self, shape, classes=CLASSES):
        """The operands' shapes for an unreduced loss of `shape`."""
        return [self._shape(kind, self.units(shape), classes) for kind in self.operands]

    def _shape(self, kind, shape, classes):
        at = len(shape) if self.axis == -1 else min(self.axis, len(shape))
        frames = (FRAMES, *shape) if self.time_first else (*shape, FRAMES)
        return {
            "unit": shape,
            "length": shape,
            "row": (*shape[:at], classes, *shape[at:]),
            "classes": (classes,),
            "frames": (*frames, classes),
            "labels": (*shape, LABELLED),
        }[kind.place]

    def row_axes(self, ndim):
        """The axes that gradients have beside the `ndim` ones of the unreduced loss."""
        if self.kind == "elements":
            return ()
        if self.kind == "sequences":
            return (0, 2) if self.time_first else (1, 2)
        return (ndim if self.axis == -1 else min(self.axis, ndim),)

    def arrays(self, rng, shape, dtype, classes=CLASSES):
        """Usual operands."""
        shapes = zip(self.operands, self.shapes(shape, classes), strict=True)
        return self._fitting([_typed(kind.usual(rng, s), dtype) for kind, s in shapes], classes)

    def hard(self, rng, size, dtype):
        """Operands, for `size` losses, easily computed wrong: all magnitudes and kinks."""
        info = np.finfo(dtype)
        batched = self._replace(options={**self.options, "batch_first": True}, axis=-1)
        shapes = zip(self.operands, batched.shapes((size,)), strict=True)
        with np.errstate(over="ignore"):
            arrays = [_typed(k.hard(rng, s, info), dtype) for k, s in shapes]
        if self.by_class:
            self._confident(rng, arrays)
        elif self.operands[0] is self.operands[1]:
            if self.kind == "rows":
                self._near_rows(rng, arrays)
            else:
                self._near(rng, arrays, info)
        return self._fitting(self._placed(arrays))

    def corners(self, dtype):
        """All combinations of the operands' corners."""
        lists = [k.corners(np.finfo(dtype)) for k in self.operands]
        index = np.meshgrid(*(range(len(values)) for values in lists), indexing="ij")
        pairs = zip(lists, index, strict=True)
        arrays = [np.array(values)[i.ravel()] for values, i in pairs]
        return self._fitting(self._placed([_typed(a, dtype) for a in arrays]))

    def keywords(self, rng, shape, dtype, classes=CLASSES, hard=False):
        """The options, with arrays that fit an unreduced loss of `shape`."""
        keywords = {}
        for name, value in self.options.items():
            if isinstance(value, Kind):
                full = self._shape(value, shape, classes)
                if hard:
                    value = value.hard(rng, int(np.prod(full)), np.finfo(dtype)).reshape(full)
                else:
                    value = value.usual(rng, full)
                value = _typed(value, dtype)
            keywords[name] = value
        return keywords

    def at(self, arrays, index):
        """The operands, or gradients, of some units of the leading axis."""
        return [a[:, index] if self.time_first and a.ndim == 3 else a[index] for a in arrays]

    def leading(self, array):
        """An operand or a gradient with the axis of the samples first."""
        return array.swapaxes(0, 1) if self.time_first and array.ndim == 3 else array

    def _placed(self, arrays):
        """Operands of one axis of units, their rows last: with rows and frames where they go."""
        if self.time_first:
            arrays[0] = np.ascontiguousarray(arrays[0].swapaxes(0, 1))
        return arrays

    def _fitting(self, arrays, classes=CLASSES):
        """Makes indices fit the classes, and labels differ from the blank."""
        for k, kind in enumerate(self.operands):
            if kind in (LABELS, CLASS):
                inside = arrays[k] != self.ignored
                arrays[k] = np.where(inside, arrays[k] % classes, arrays[k])
            elif kind is SPELLED and classes > 1:
                blank = self.options.get("blank", 0)
                arrays[k] = (blank + 1 + (arrays[k] - 1) % (classes - 1)) % classes
        return arrays

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

    def _near_rows(self, rng, arrays):
        """Makes the second of most pairs equal, opposite, nearly parallel, or across."""
        first = arrays[0]
        kind = rng.integers(0, 8, len(first))[:, None]
        tilted = first * (1 + 2.0 ** rng.integers(-40, -1, (len(first), 1)) * rng.normal(size=1))
        across = np.zeros_like(first)
        across[:, 0], across[:, 1] = -first[:, 1], first[:, 0]
        for k, other in enumerate((first, -first, 2 * first, tilted, first + 1e-3, across)):
            arrays[1] = np.where(kind == k, other, arrays[1]).astype(first.dtype)

    def _confident(self, rng, arrays):
        """Makes most labels the row's best class, and has some ignored."""
        kind = rng.integers(0, 8, len(arrays[1]))
        arrays[1] = np.where(kind < 5, arrays[0].argmax(axis=1), arrays[1])
        if self.ignored is not None:
            arrays[1][kind == 7] = self.ignored


def _typed(array, dtype):
    array = np.asarray(array)
    return array if array.dtype.kind in "iu" else array.astype(dtype)


def _line(loss, operands, *variants, axis=-1):
    return [Case(loss, operands, options, axis) for options in variants]


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
    _line("sigmoid_focal_loss", (EXPONENT, UNIT), {}, {"alpha": -1.0}, {"gamma": 0.5}),
    _line("pinball_loss", (REAL, REAL), {}, {"quantile": 0.3}),
    _line("gamma_nll_loss", (EXPONENT, ABOVE_ZERO), {}),
    _line("gamma_nll_loss", (ABOVE_ZERO, ABOVE_ZERO), {"log_input": False}),
    _line("tweedie_deviance_loss", (REAL, REAL), {}),
    _line("tweedie_deviance_loss", (ABOVE_ZERO, REAL), {"power": -1.5}),
    _line(
        "tweedie_deviance_loss",
        (ABOVE_ZERO, POSITIVE),
        {"power": 1.0},
        {"power": 1.5},
        {"power": 1.25},
    ),
    _line("tweedie_deviance_loss", (ABOVE_ZERO, ABOVE_ZERO), {"power": 2.0}, {"power": 3.0}),
    _line(
        "nll_loss",
        (LOG_SCORES, LABELS),
        {},
        {"weight": CLASS_WEIGHT},
        {"ignore_index": 2},
        axis=1,
    ),
    _line(
        "cross_entropy",
        (SCORES, LABELS),
        {},
        {"weight": CLASS_WEIGHT},
        {"ignore_index": 2},
        {"label_smoothing": 0.1},
        {"label_smoothing": 1.0},
        {"weight": CLASS_WEIGHT, "label_smoothing": 0.1},
        axis=1,
    ),
    _line(
        "cross_entropy",
        (SCORES, SHARES),
        {},
        {"weight": CLASS_WEIGHT},
        {"label_smoothing": 0.1},
        {"weight": CLASS_WEIGHT, "label_smoothing": 0.1},
        axis=1,
    ),
    _line(
        "multi_margin_loss",
        (SCORES, CLASS),
        {},
        {"margin": 0.3},
        {"weight": CLASS_WEIGHT},
        {"p": 2},
        {"p": 2, "margin": 0.3, "weight": CLASS_WEIGHT},
    ),
    _line("multilabel_margin_loss", (SCORES, LABEL_SETS), {}),
    _line(
        "multilabel_soft_margin_loss",
        (SCORES, UNITS),
        {},
        {"weight": ROW_WEIGHT},
    ),
    _line("cosine_embedding_loss", (VECTORS, VECTORS, SIGN), {}, {"margin": 0.3}),
    _line(
        "triplet_margin_loss",
        (VECTORS, VECTORS, VECTORS),
        {},
        {"swap": True},
        {"p": 1.0, "margin": 0.3},
        {"p": INF, "swap": True},
        {"p": 0.5},
        {"p": 1.5, "swap": True},
        {"p": 3.0, "eps": 0.0},
    ),
    _line(
        "ctc_loss",
        (LOG_FRAMES, *SEQUENCES),
        {},
        {"batch_first": True},
        {"blank": 2, "zero_infinity": True},
    ),
    _line(
        "ctc_loss_with_logits",
        (LOGITS, *SEQUENCES),
        {},
        {"batch_first": True, "blank": 2},
        {"zero_infinity": True},
    ),
]
CASES = [case for line in TABLE for case in line]
LOSSES = list(dict.fromkeys(case.loss for case in CASES))
