"""Values for each operand domain: what the table of losses allows, as draws.

`fl.<loss>.operand_specs` gives the extent ("unit" or "row") and the domain ("any", "sign", ...) of
each operand, as declared in src_c/losses.def; `operands_of` maps these to a `Domain`. Cases, random
calls, the comparison with torch and the tests of the references all draw from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

CLASSES = 7  # entries of a row
MAX_FRAMES, MAX_LABELS = 8, 3  # of a sequence


class Domain(NamedTuple):
    """The values that an operand or a weight may hold.

    `typical(rng, shape)` and `adversarial(rng, shape, info)` draw float64 or integers, `info` being
    the `np.finfo` of the dtype that the floats will be rounded to. `edge_cases(info)` lists
    extremes, infinities and NaN, as scalars or, for an extent of several entries, as rows. Finite
    values are at most half the largest number, so that a difference of two of them is finite. All
    values lie in [low, high].

    `extent` says which entries there are: "unit", one for each unreduced loss; "row", a row for
    each; "classes", one for each class, shared by all rows; "frames", "labels" and "length", those
    of a sequence.
    """

    typical: Callable
    adversarial: Callable
    edge_cases: Callable
    low: float = -np.inf
    high: float = np.inf
    extent: str = "unit"


# ---- Elements ------------------------------------------------------------------------------------


def magnitudes(rng, size, info, low=None, high=None):
    """Positive numbers 2^e with e uniform in [low, high], by default over the whole range of the
    dtype, subnormal numbers included."""
    low = np.log2(float(info.smallest_subnormal)) if low is None else low
    high = info.maxexp - 1 if high is None else high
    return np.exp2(rng.uniform(low, high, size))


def signs(rng, size):
    return rng.choice([-1.0, 1.0], size)


def mixture(rng, *draws):
    """Takes each entry from one of the draws, chosen at random."""
    return np.choose(rng.integers(0, len(draws), len(draws[0])), draws)


def sampled(rng, size, values):
    return rng.choice(np.array(values, dtype=np.float64), size)


def finite(values):
    return [v for v in values if np.isfinite(v)]


def adversarial_any(rng, size, info):
    return mixture(
        rng,
        signs(rng, size) * magnitudes(rng, size, info),
        signs(rng, size) * magnitudes(rng, size, info, -20, 20),
        sampled(rng, size, finite(edges_of_any(info))),
    )


def edges_of_any(info):
    sizes = [float(v) for v in (info.smallest_subnormal, info.tiny, info.eps, 1, info.max / 2)]
    return [0.0, -0.0, *sizes, *(-v for v in sizes), np.inf, -np.inf, np.nan]


def corners(domain, info):
    """The ends of all ranges within an elementwise domain: zeros, the smallest and the largest
    numbers, infinities, where exp and squares begin to over- and underflow, and 1 +- eps."""
    largest, smallest = float(info.max), float(info.smallest_subnormal)
    exp_end = np.log(largest)
    sizes = [smallest, float(info.tiny), float(info.eps), 1 - float(info.epsneg), 1.0, 3.0]
    sizes += [exp_end * factor for factor in (0.999, 1.001, 1.02, 1.3)]
    sizes += [largest ** (1 / 2), largest / 3, largest * 0.9, largest, np.inf]
    values = np.array([0.0, *sizes, *(-v for v in sizes)])
    if domain.low == -1 and domain.high == 1:
        return np.array([-1.0, 1.0])
    inside = (values >= domain.low) & (values <= domain.high)
    return values[inside & (np.isfinite(values) | (domain.low == -np.inf))]


def adversarial_nonnegative(rng, size, info):
    return np.abs(adversarial_any(rng, size, info))


def edges_of_nonnegative(info):
    return [v for v in edges_of_any(info) if not v < 0 and v != np.inf]


def adversarial_positive(rng, size, info):
    return np.maximum(adversarial_nonnegative(rng, size, info), float(info.smallest_subnormal))


def edges_of_positive(info):
    return [v for v in edges_of_nonnegative(info) if v != 0]


def adversarial_variance(rng, size, info):
    return np.maximum(adversarial_nonnegative(rng, size, info), float(info.tiny))


def edges_of_variance(info):
    return [0.0, float(info.tiny), 1.0, float(info.max) / 2, np.inf, np.nan]


def adversarial_exponent(rng, size, info):
    """Arguments of exp: half of them in the range where the result is neither 0 nor infinite."""
    reach = np.log(float(info.max))
    return mixture(rng, rng.uniform(-1.6, 1.1, size) * reach, adversarial_any(rng, size, info))


def adversarial_log_probability(rng, size, info):
    return -np.abs(adversarial_exponent(rng, size, info))


def edges_of_log_probability(info):
    return [v for v in edges_of_any(info) if not v > 0]


def adversarial_unit_interval(rng, size, info):
    """Numbers in [0, 1], dense at both ends."""
    small = magnitudes(rng, size, info, high=-1)
    ulps = rng.integers(0, 9, size) * float(info.epsneg)
    return mixture(
        rng,
        small,
        1 - magnitudes(rng, size, info, -info.nmant - 1, -1),
        1 - ulps,
        rng.uniform(size=size),
        sampled(rng, size, finite(edges_of_unit_interval(info))),
    )


def edges_of_unit_interval(info):
    small = [info.smallest_subnormal, info.tiny, info.eps]
    return [0.0, *map(float, small), 0.5, 1 - float(info.epsneg), 1.0, np.nan]


def adversarial_weight(rng, size, info):
    return mixture(rng, sampled(rng, size, [0, 0.5, 1, 3]), magnitudes(rng, size, info, -30, 30))


ANY = Domain(lambda rng, shape: 2 * rng.normal(size=shape), adversarial_any, edges_of_any)
NONNEGATIVE = Domain(
    lambda rng, shape: rng.uniform(0.05, 4, shape),
    adversarial_nonnegative,
    edges_of_nonnegative,
    low=0,
)
POSITIVE = Domain(
    NONNEGATIVE.typical,
    adversarial_positive,
    edges_of_positive,
    low=2.0**-149,  # positive in float32 too
)
UNIT_INTERVAL = Domain(
    lambda rng, shape: rng.uniform(0.05, 0.95, shape),
    adversarial_unit_interval,
    edges_of_unit_interval,
    low=0,
    high=1,
)
SIGN = Domain(
    signs,
    lambda rng, size, info: signs(rng, size),
    lambda info: [-1.0, 1.0, np.nan],
    low=-1,
    high=1,
)
WEIGHT = Domain(
    lambda rng, shape: rng.choice([0, 0.5, 1, 2.3], shape),
    adversarial_weight,
    lambda info: [0.0, 1.0],
    low=0,
)

# Narrower draws than the domain of the table, for operands whose formula needs them.
VARIANCE = Domain(NONNEGATIVE.typical, adversarial_variance, edges_of_variance, low=0)
EXPONENT = Domain(ANY.typical, adversarial_exponent, edges_of_any)
LOG_PROBABILITY = Domain(
    lambda rng, shape: -NONNEGATIVE.typical(rng, shape),
    adversarial_log_probability,
    edges_of_log_probability,
    high=0,
)


# ---- Rows ----------------------------------------------------------------------------------------


def log_softmax(x, axis=-1):
    if 0 in x.shape:
        return x
    x = x - x.max(axis=axis, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


def adversarial_scores(rng, shape, info):
    """Rows of logits: of all scales, confident, rounded so that some tie, all equal, huge, and with
    classes masked by -inf."""
    rows, classes = shape
    x = rng.normal(size=shape) * magnitudes(rng, (rows, 1), info, -30, 9)
    variety = rng.integers(0, 8, rows)
    best = rng.integers(0, classes, rows)
    confident = variety <= 2
    lead = rng.uniform(0, 1.3 * np.log(float(info.max)), rows)
    x[confident] = rng.normal(size=(confident.sum(), classes))
    x[confident, best[confident]] += lead[confident]
    x[variety == 3] = np.round(x[variety == 3])
    x[variety == 4] = x[variety == 4][:, :1]
    huge = variety == 5
    x[huge] = signs(rng, (huge.sum(), classes)) * magnitudes(rng, x[huge].shape, info)
    masked = (variety == 6)[:, None] & (rng.random(shape) < 0.4)
    masked[np.arange(rows), best] = False
    return np.where(masked, -np.inf, x)


def edges_of_scores(info):
    """Rows of two values, the second one repeated or followed by -1; the sum of a row is finite."""
    large = float(info.max) / 2
    values = [v / 8 if abs(v) == large else v for v in edges_of_any(info)]
    values = [v for v in values if abs(v) not in (info.eps, 1)]
    pairs = np.stack(np.meshgrid(values, values, indexing="ij"), axis=-1).reshape(-1, 2)
    fill = CLASSES - 2
    return [row for a, b in pairs for row in ([a, b] + [b] * fill, [a, b] + [-1.0] * fill)]


def adversarial_probabilities(rng, shape, info):
    """Rows of probabilities: Dirichlet, one-hot, uniform, unnormalised, with zeros, and of all
    magnitudes."""
    rows, classes = shape
    y = rng.dirichlet(np.ones(classes), rows)
    variety = rng.integers(0, 7, rows)[:, None]
    one_hot = np.eye(classes)[rng.integers(0, classes, rows)]
    for k, other in enumerate(
        (
            one_hot,
            np.full(shape, 1 / classes),
            3 * rng.random(shape),
            np.where(rng.random(shape) < 0.5, 0, y),
            magnitudes(rng, shape, info, high=0),
        )
    ):
        y = np.where(variety == k, other, y)
    return y


def edges_of_probabilities(info):
    one_hot, tiny = np.eye(CLASSES), float(info.tiny)
    rows = [one_hot[1], np.full(CLASSES, 0.5), np.zeros(CLASSES), tiny * one_hot[0] + one_hot[2]]
    return [*rows, np.where(one_hot[0], np.nan, 0.2)]


def label_rows(rng, shape):
    """Rows of labels, some of them repeated, each row ended by the first -1."""
    y = rng.integers(0, shape[-1], shape)
    return np.where(rng.random(shape) < 0.25, -1, y)


def edges_of_label_rows(info):
    ends = [-1] * (CLASSES - 3)
    return [[0, -1, 1, *ends], [1, 0, -1, *ends], [0, 0, 1, *ends], [-1] * CLASSES, range(CLASSES)]


def adversarial_features(rng, shape, info):
    """Rows of features: of all norms, with entries of very different magnitudes, of small integers,
    and all 0."""
    rows, _ = shape
    x = rng.normal(size=shape)
    variety = rng.integers(0, 6, rows)[:, None]
    norm = magnitudes(rng, (rows, 1), info, high=info.maxexp - 3)
    uneven = signs(rng, shape) * magnitudes(rng, shape, info, -30, 30)
    for k, other in enumerate((norm * x / 8, uneven, np.round(x), 0 * x)):
        x = np.where(variety == k, other, x)
    return x


def edges_of_features(info):
    small, tiny, large = (float(v) for v in (info.smallest_subnormal, info.tiny, info.max / 1024))
    ramp = np.arange(CLASSES) - 2.0
    rows = [0 * ramp, ramp, ramp[::-1], small * ramp, tiny * ramp, large * ramp]
    one_hot = np.eye(CLASSES)[1]
    return [*rows, large * one_hot, 1e-6 * one_hot, np.where(one_hot, np.nan, ramp)]


def rows_of(domain):
    """Rows of independent entries; as edge cases, rows of equal entries."""
    return domain._replace(
        adversarial=lambda rng, shape, info: domain.adversarial(
            rng, int(np.prod(shape)), info
        ).reshape(shape),
        edge_cases=lambda info: [[value] * CLASSES for value in domain.edge_cases(info)],
        extent="row",
    )


SCORE_ROWS = Domain(ANY.typical, adversarial_scores, edges_of_scores, extent="row")
PROBABILITY_ROWS = Domain(
    lambda rng, shape: rng.uniform(0, 0.5, shape),
    adversarial_probabilities,
    edges_of_probabilities,
    low=0,
    extent="row",
)
UNIT_INTERVAL_ROWS = rows_of(UNIT_INTERVAL)._replace(
    edge_cases=lambda info: [row for row in edges_of_probabilities(info) if row.any()]
)
FEATURE_ROWS = Domain(ANY.typical, adversarial_features, edges_of_features, extent="row")
LABEL_ROWS = Domain(
    label_rows, lambda rng, shape, info: label_rows(rng, shape), edges_of_label_rows, extent="row"
)
CLASS_INDEX = Domain(
    lambda rng, shape: rng.integers(0, CLASSES, shape),
    lambda rng, size, info: rng.integers(0, CLASSES, size),
    lambda info: [0, 1],
)
INDEX_ROWS = rows_of(CLASS_INDEX)
ROW_WEIGHT = WEIGHT._replace(extent="row")
CLASS_WEIGHT = WEIGHT._replace(extent="classes")

# Narrower than the domain of the table: nll_loss is meant for log-probabilities.
LOG_PROBABILITY_ROWS = SCORE_ROWS._replace(
    typical=lambda rng, shape: log_softmax(rng.normal(size=shape), axis=min(1, len(shape) - 1))
)


# ---- Sequences -----------------------------------------------------------------------------------


def adversarial_frames(rng, shape, info):
    """Frames of logits, all frames of a sample being of one variety of `adversarial_scores`."""
    samples = shape[0]
    x = adversarial_scores(rng, (samples * shape[1], shape[2]), info).reshape(shape)
    x[np.abs(np.where(np.isinf(x), 0, x)) > 1e4] = 0  # so that an alignment can be possible
    mild = rng.random(samples) < 0.5
    x[mild] = 3 * rng.normal(size=(mild.sum(), *shape[1:]))
    return x


def edges_of_frames(info):
    """Equal logits, certain classes, a class that is impossible, and a NaN."""
    equal = np.zeros((MAX_FRAMES, CLASSES))
    certain, masked, nan = equal - 60.0, equal.copy(), equal.copy()
    certain[np.arange(MAX_FRAMES), [1, 1, 0, 1, 2, 2, 0, 0]] = 0
    masked[:, 1] = -np.inf
    nan[3, 4] = np.nan
    return [equal, certain, masked, nan]


def lengths(least, most):
    """Lengths of sequences: typically from `least` on, adversarially from 0 on."""
    return Domain(
        lambda rng, shape: rng.integers(least, most + 1, shape),
        lambda rng, shape, info: rng.integers(0, most + 1, shape),
        lambda info: [0, most],
        extent="length",
    )


LOGIT_FRAMES = Domain(ANY.typical, adversarial_frames, edges_of_frames, extent="frames")
LOG_PROBABILITY_FRAMES = Domain(
    lambda rng, shape: log_softmax(rng.normal(size=shape)),
    lambda rng, shape, info: log_softmax(adversarial_frames(rng, shape, info)),
    lambda info: [log_softmax(frames) for frames in edges_of_frames(info)],
    high=0,
    extent="frames",
)
TARGET_LABELS = Domain(
    lambda rng, shape: rng.integers(1, CLASSES, shape),
    lambda rng, shape, info: rng.integers(1, 4, shape),
    lambda info: [[1, 2, 1], [2, 2, 2]],
    extent="labels",
)
INPUT_LENGTHS, TARGET_LENGTHS = lengths(MAX_FRAMES - 2, MAX_FRAMES), lengths(0, MAX_LABELS)


# ---- The domains of a loss -----------------------------------------------------------------------

BY_SPEC = {
    ("unit", "any"): ANY,
    ("unit", "score"): ANY,
    ("unit", "nonnegative"): NONNEGATIVE,
    ("unit", "positive"): POSITIVE,
    ("unit", "unit_interval"): UNIT_INTERVAL,
    ("unit", "sign"): SIGN,
    ("unit", "index"): CLASS_INDEX,
    ("row", "any"): FEATURE_ROWS,
    ("row", "score"): SCORE_ROWS,
    ("row", "nonnegative"): PROBABILITY_ROWS,
    ("row", "positive"): rows_of(POSITIVE),
    ("row", "unit_interval"): UNIT_INTERVAL_ROWS,
    ("row", "sign"): rows_of(SIGN),
    ("row", "index"): INDEX_ROWS,
    ("row", "labels"): LABEL_ROWS,
}
OF_SEQUENCES = {("row", "score"): LOGIT_FRAMES, ("row", "index"): TARGET_LABELS}
INTEGERS = (CLASS_INDEX, INDEX_ROWS, LABEL_ROWS, TARGET_LABELS, INPUT_LENGTHS, TARGET_LENGTHS)


def operands_of(loss, formula, **narrower):
    """The domain of each operand of a loss, by its row of the table, `formula`.

    `narrower` replaces the domain of some operands.
    """
    specs = loss.operand_specs[formula]
    lengths_follow = len(specs) < len(loss.operands)  # they are no arrays to the kernel
    domains = {
        name: (OF_SEQUENCES if lengths_follow else BY_SPEC)[extent, domain]
        for name, extent, domain in specs
    }
    if lengths_follow:
        domains |= zip(loss.operands[len(specs) :], (INPUT_LENGTHS, TARGET_LENGTHS), strict=True)
    assert narrower.keys() <= domains.keys(), narrower
    return tuple((domains | narrower).values())


def weight_of(loss):
    """The domain of `weight` or `pos_weight`: one entry for each class, element or loss."""
    specs = next(iter(loss.operand_specs.values()))
    if ("unit", "index") in (spec[1:] for spec in specs):
        return CLASS_WEIGHT
    return ROW_WEIGHT if specs[0][1] == "row" else WEIGHT
