"""Accumulators: any split and order of batches gives the value of one call on all the data."""

import copy
import itertools
import json
import math
import os
import pickle
import signal
import threading
import traceback

import mpmath
import numpy as np
import pytest

import fastloss as fl
from fastloss.evaluation.accumulators import Accumulator
from tests.cases import CASES, FLOATS
from tests.domains import Domain
from tests.drawn_case import DrawnCase


def over(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.id)


# A criterion has no option that changes with the rows, such as a weight for each element.
STEADY = [
    case
    for case in CASES
    if case.weighs_classes or not any(isinstance(v, Domain) for v in case.options.values())
]
cases = over(STEADY)
floats = pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.__name__)
CRITERIA = {getattr(fl, name).loss: getattr(fl, name) for name in fl.criteria.__all__}
SUM_TOLERANCE = 1e-13  # relative to the sum of absolute losses


def drawn(case, rows, dtype=np.float32, reduction="mean"):
    """A draw with a weight for each loss, and an empty accumulator of its criterion."""
    draw = DrawnCase(case, (rows,) if case.unit == "sequence" else (rows, 3), dtype)
    draw.keywords["sample_weight"] = draw.rng.integers(0, 4, draw.value().shape).astype(dtype)
    return draw, accumulator_of(draw, reduction)


def accumulator_of(draw, reduction="mean", by=None):
    options = dict(draw.keywords, reduction=reduction)
    options.pop("sample_weight", None)
    return CRITERIA[getattr(fl, draw.case.loss)](**options).accumulator(by=by)


def update(accumulator, draw, index, **group):
    weights = draw.keywords["sample_weight"][index]
    accumulator.update(*draw.at(index).arrays, sample_weight=weights, **group)
    return accumulator


# ---- the value of one call -----------------------------------------------------------------------


@cases
@floats
def test_value_does_not_depend_on_split_and_order(case, dtype):
    draw, accumulator = drawn(case, 211, dtype)
    loss_sum, weight, count = draw.sums()
    size = np.abs(draw.value().astype(np.float64)).sum()
    cuts = [0, 1, 20, 21, 100, 211]
    parts = [
        update(accumulator_of(draw), draw, slice(first, last))
        for first, last in itertools.pairwise(cuts)
    ]
    for order in ([4, 0, 3, 1, 2], [0, 1, 2, 3, 4]):
        total = accumulator_of(draw)
        for k in order:
            total.merge(parts[k])
        assert abs(total.sum - loss_sum) <= SUM_TOLERANCE * size
        assert abs(total.weight - weight) <= SUM_TOLERANCE * weight
        assert total.count == count
        assert total.rows == 211
        assert total.value == pytest.approx(loss_sum / weight, rel=1e-12)
    update(accumulator, draw, slice(None))
    assert (accumulator.sum, accumulator.weight, accumulator.count) == (loss_sum, weight, count)
    assert accumulator.value == draw.value("mean")


@floats
def test_whole_blocks_in_order_are_bitwise_identical_to_one_call(dtype):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 9 * 8192 + 17)).astype(dtype) * 1e3
    accumulator = fl.MSELoss().accumulator()
    for first in range(0, len(x), 2 * 8192):
        accumulator.update(x[first : first + 2 * 8192], y[first : first + 2 * 8192])
    assert accumulator.value == fl.mse_loss(x, y)
    assert accumulator.sum == fl.mse_loss.sums(x, y)[0]


def test_sums_that_cancel_do_not_depend_on_the_split():
    rng = np.random.default_rng(4)
    x = rng.normal(size=5000) * np.exp2(rng.uniform(-40, 40, 5000))
    y = np.where(rng.random(5000) < 0.5, -1.0, 1.0)
    both = np.concatenate([x, -x])  # the hinge embedding loss of y = 1 is x
    exact = math.fsum(np.where(np.concatenate([y, y]) == 1, both, np.maximum(0, 1 - both)))
    order = rng.permutation(10_000)
    parts = [fl.HingeEmbeddingLoss(reduction="sum").accumulator() for _ in range(7)]
    for k, part in enumerate(parts):
        at = order[k::7]
        part.update(both[at], np.concatenate([y, y])[at])
    size = np.abs(both).sum() + 10_000
    assert abs(sum(parts).value - exact) <= SUM_TOLERANCE * size


def test_merging_keeps_both_parts_of_double_double_sums():
    parts = [fl.HingeEmbeddingLoss(reduction="sum").accumulator() for _ in range(3)]
    for part, value in zip(parts, (1e16, 1.0, -1e16), strict=True):
        part.update([value], [1.0])
    assert sum(parts).value == 1.0
    parts = [fl.HingeEmbeddingLoss(reduction="sum").accumulator(by="group") for _ in range(3)]
    for part, value in zip(parts, (1e16, 1.0, -1e16), strict=True):
        part.update([value], [1.0], group=["a"])
    assert sum(parts).groups["a"].value == 1.0


def test_means_are_not_averaged():
    accumulator = fl.L1Loss().accumulator()
    accumulator.update([1.0], [0.0])
    accumulator.update([2.0, 2.0, 2.0], [0.0, 0.0, 0.0])
    assert accumulator.value == 1.75


def test_batchmean_divides_by_rows_of_one_length():
    rng = np.random.default_rng(5)
    x, y = np.log(rng.dirichlet(np.ones(4), 30)), rng.dirichlet(np.ones(4), 30)
    accumulator = fl.KLDivLoss(reduction="batchmean").accumulator()
    accumulator.update(x[:11], y[:11])
    accumulator.update(x[11:], y[11:])
    assert accumulator.value == pytest.approx(fl.kl_div(x, y, reduction="batchmean"), rel=1e-14)
    assert accumulator.weight == 30
    before = accumulator.to_dict()
    with pytest.raises(ValueError, match="rows of 4 and of 3 losses"):
        accumulator.update(x[:, :3], y[:, :3])
    assert accumulator.to_dict() == before


def test_an_empty_accumulator():
    for reduction, value in (("mean", math.nan), ("sum", 0.0)):
        accumulator = fl.MSELoss(reduction=reduction).accumulator()
        np.testing.assert_equal(accumulator.value, value)
        assert math.isnan(accumulator.stderr)
        assert (accumulator.count, accumulator.weight, accumulator.rows) == (0, 0, 0)
    accumulator.update([1.0], [3.0])
    accumulator.reset()
    assert (accumulator.value, accumulator.count) == (0.0, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_losses_propagate(bad):
    accumulator = fl.L1Loss().accumulator()
    accumulator.update([1.0, bad], [0.0, 0.0])
    accumulator.update([1.0], [0.0])
    total = Accumulator.from_json(accumulator.to_json()) + accumulator
    np.testing.assert_equal(total.value, fl.l1_loss([1.0, bad], 0.0))
    assert math.isnan(total.stderr)


# ---- standard errors -----------------------------------------------------------------------------


def standard_error(losses, weights, divisor):
    """√(n/(n-1) Σ (l - m w)²) / divisor with m = Σ l / Σ w, over n weights that are not 0."""
    losses, weights = [[float(v) for v in np.ravel(a)] for a in (losses, weights)]
    n = sum(weight != 0 for weight in weights)
    mean = math.fsum(losses) / math.fsum(weights)
    squares = math.fsum((x - mean * w) ** 2 for x, w in zip(losses, weights, strict=True))
    return math.sqrt(squares * n / (n - 1)) / float(divisor)


# The following tests cover weights of classes and numbers of labels.
@over([c for c in STEADY if not c.weighs_classes and c.unit != "sequence"])
@floats
def test_standard_error_of_weighted_losses(case, dtype):
    draw, accumulator = drawn(case, 211, dtype)
    weights = draw.keywords["sample_weight"]
    if case.ignored is not None:
        weights = np.where(draw.arrays[1] == case.ignored, 0, weights)
    for first, last in itertools.pairwise([0, 1, 50, 51, 211]):
        update(accumulator, draw, slice(first, last))
    expected = standard_error(draw.weighted_losses(), weights, weights.sum())
    assert accumulator.stderr == pytest.approx(expected, rel=1e-9)


def test_standard_error_with_class_weights():
    rng = np.random.default_rng(6)
    x, y, w = rng.normal(size=(300, 5)), rng.integers(0, 5, 300), rng.uniform(0.5, 2, 5)
    y[::7] = -100
    active = y >= 0
    for criterion in (fl.CrossEntropyLoss(weight=w), fl.NLLLoss(weight=w)):
        accumulator = criterion.accumulator()
        accumulator.update(x[:77], y[:77])
        accumulator.update(x[77:], y[77:])
        losses = criterion.loss(x[active], y[active], weight=w, reduction="none")
        expected = standard_error(losses, w[y[active]], w[y[active]].sum())
        assert accumulator.stderr == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("parts", [[range(4)], [[0, 1], [2, 3]], [[2], [0], [1], [3]]], ids=len)
def test_standard_error_with_label_smoothing_and_a_class_weight_of_0(parts):
    x, y, w = np.eye(4, 3), np.array([0, 0, 1, 2]), np.array([0.0, 1.0, 2.0])
    accumulator = fl.CrossEntropyLoss(weight=w, label_smoothing=0.1).accumulator()
    for part in parts:
        accumulator.update(x[part], y[part])
    losses = fl.cross_entropy(x, y, weight=w, label_smoothing=0.1, reduction="none")
    assert accumulator.count == 4  # each contributes to the sum
    squares = ((losses - losses.sum() / w[y].sum() * w[y]) ** 2).sum()
    expected = math.sqrt(4 / 3 * squares) / w[y].sum()
    assert accumulator.stderr == pytest.approx(expected, rel=1e-12)


def test_standard_error_of_a_sum():
    x = np.random.default_rng(8).normal(size=100)
    accumulator = fl.MSELoss(reduction="sum").accumulator()
    accumulator.update(x, 0.0)
    assert accumulator.stderr == pytest.approx(math.sqrt(100) * np.std(x**2, ddof=1), rel=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e12])
def test_standard_error_does_not_cancel(offset):
    rng = np.random.default_rng(9)
    x = offset + rng.integers(-4, 5, 10_000)  # exact
    accumulator = fl.HingeEmbeddingLoss().accumulator()
    for part in np.array_split(x, 13):
        accumulator.update(part, np.ones(len(part)))
    merged = accumulator + accumulator
    deviation = np.std(x - offset, ddof=0)
    assert accumulator.stderr == pytest.approx(deviation / math.sqrt(9999), rel=1e-9)
    assert merged.stderr == pytest.approx(deviation / math.sqrt(19_999), rel=1e-9)


EXPONENTS = (-1000, -600, -300, 0, 300, 600, 900)
EXPONENTS_OF_FACTORS = [
    (a, b) for a, b in itertools.product(EXPONENTS, EXPONENTS) if abs(a + b) <= 1000
]


def exact_standard_error(terms):
    """standard_error() of a mean over (weight, loss) of any scale."""
    terms = [(mpmath.mpf(float(w)), mpmath.mpf(float(x))) for w, x in terms if w != 0]
    with mpmath.workprec(2500):  # the exponents of squares, side by side
        n, divisor = len(terms), mpmath.fsum(w for w, _ in terms)
        mean = mpmath.fsum(w * x for w, x in terms) / divisor
        squares = mpmath.fsum((w * (x - mean)) ** 2 for w, x in terms)
        return float(mpmath.sqrt(squares * n / (n - 1)) / divisor)


@pytest.mark.parametrize(("of_losses", "of_weights"), EXPONENTS_OF_FACTORS)
@pytest.mark.parametrize("by", [None, "group"])
def test_standard_error_of_losses_and_weights_of_all_scales(of_losses, of_weights, by):
    rng = np.random.default_rng(11)
    x = np.ldexp(rng.integers(0, 9, 300) / 4, of_losses)
    w = np.ldexp(rng.integers(0, 4, 300) / 2, of_weights)
    accumulator = fl.L1Loss().accumulator(by=by)
    for part in (slice(0, 1), slice(1, 140), slice(140, 300)):
        group = {} if by is None else {"group": np.arange(300)[part] % 2}
        accumulator.update(x[part], 0.0, sample_weight=w[part], **group)
    expected = exact_standard_error(zip(w, x, strict=True))
    assert accumulator.stderr == pytest.approx(expected, rel=1e-9, abs=0)
    assert (accumulator + accumulator).stderr == pytest.approx(
        exact_standard_error([*zip(w, x, strict=True)] * 2), rel=1e-9, abs=0
    )
    for label, totals in accumulator.groups.items() if by else ():
        expected = exact_standard_error(zip(w[label::2], x[label::2], strict=True))
        assert totals.stderr == pytest.approx(expected, rel=1e-9, abs=0)
    restored = Accumulator.from_json(accumulator.to_json())
    assert restored.stderr == accumulator.stderr


@pytest.mark.parametrize(
    "batches",
    [
        [[1e-250] * 40, [2e-250] * 40],  # equal in each
        [[0.0] * 40, [0.0] * 30 + [1e-300] * 10],
        [[0.0, 1e-300], [1.0, 2.0], [3.0] * 40],
        [[1e300, 2e300] * 20, [1.0] * 40, [1e-300]],
        [[1e-300] + [2.0] * 60 + [1e200]],
        [[1e-200] * 3, [1e200, 3e200] * 20],
    ],
)
def test_standard_error_of_losses_of_several_scales(batches):
    losses = [loss for batch in batches for loss in batch]
    for order in (batches, batches[::-1]):
        accumulator = fl.L1Loss().accumulator()
        for batch in order:
            accumulator.update(batch, np.zeros(len(batch)))
        expected = exact_standard_error((1, loss) for loss in losses)
        assert accumulator.stderr == pytest.approx(expected, rel=1e-9, abs=0)


CYCLE = [float(i % 3) for i in range(1000)]


@pytest.mark.parametrize("by", [None, "group"])
@pytest.mark.parametrize(
    "batches",
    [  # of (loss, weight)
        [[(1e-300, 1), (2e-300, 1), (1e9, 1)]],  # fewer than a vector, the last one large
        [[(0.0, 1)] * 8 + [(1e-300, 1)] * 5000 + [(1e9, 1), (2e9, 1)] * 2000],
        [[(1e80, 1e80)] * 4, [(2e80, 1e80)] * 4],  # equal in each
        [[(1e-85, 1e-85)] * 4, [(2e-85, 1e-85)] * 4],
        [[(0.0, 1e300), (0.0, 1e300), (1.0, 1e-300)], [(1.0, 1)] * 2],
        [[(1e308, 1)] + [(1.0, 1)] * 1000],
        [[(1e10, 1e-6)] + [(x, 1) for x in CYCLE]],  # a light outlier
        [[(1e10, 1e-200)], [(x, 1) for x in CYCLE[:10]]],
        [[(1e6, 1e-3)], [(x, 1) for x in CYCLE]],
    ],
)
def test_standard_error_of_mixed_losses_and_weights(batches, by):
    group = {} if by is None else {"group": [0]}
    for order in (batches, batches[::-1], [batch[::-1] for batch in batches]):
        accumulator, parts = fl.L1Loss().accumulator(by=by), []
        for batch in order:
            x, w = np.array(batch).T
            labels = {name: label * len(batch) for name, label in group.items()}
            accumulator.update(x, np.zeros(len(x)), sample_weight=w, **labels)
            parts.append(fl.L1Loss().accumulator(by=by))
            parts[-1].update(x, np.zeros(len(x)), sample_weight=w, **labels)
        expected = exact_standard_error((w, x) for batch in batches for x, w in batch)
        for total in accumulator, sum(parts[1:], parts[0]):
            assert total.stderr == pytest.approx(expected, rel=1e-9, abs=0)
            if by:
                assert total.groups[0].stderr == pytest.approx(expected, rel=1e-9, abs=0)


def test_standard_error_of_losses_of_opposite_signs():
    accumulator = fl.NLLLoss().accumulator()
    accumulator.update(np.array([[1.2e308], [-1.2e308]]), np.array([0, 0]))
    assert accumulator.stderr == pytest.approx(1.2e308, rel=1e-12)


@floats
@pytest.mark.parametrize("by", [None, "class"])
def test_standard_error_with_class_weights_of_all_scales(by, dtype):
    rng = np.random.default_rng(12)
    x, y = -rng.integers(0, 9, (60, 3)) / 4, rng.integers(0, 3, 60)
    s, class_weight = rng.integers(0, 4, 60) / 2, np.array([0.75, 1.5, 0.5])
    for of_classes, of_samples in EXPONENTS_OF_FACTORS:
        w, more = np.ldexp(class_weight, of_classes), np.ldexp(s, of_samples)
        accumulator = fl.NLLLoss(weight=w).accumulator(by=by)
        for part in (slice(0, 7), slice(7, 60)):
            accumulator.update(x[part].astype(dtype), y[part], sample_weight=more[part])
        terms = np.stack([s * class_weight[y], -x[np.arange(60), y]], axis=1)
        assert accumulator.stderr == pytest.approx(exact_standard_error(terms), rel=1e-9, abs=0)
        for label, totals in accumulator.groups.items() if by else ():
            expected = exact_standard_error(terms[y == label])
            assert totals.stderr == pytest.approx(expected, rel=1e-9, abs=0)


def test_standard_error_of_equal_losses_is_zero():
    accumulator = fl.L1Loss().accumulator()
    accumulator.update(np.full(1000, 0.1), 0.0)
    assert accumulator.stderr == 0


# ---- groups and classes --------------------------------------------------------------------------


def sums_by_group(draw, labels):
    """The sums of each group, with all others removed by weights of 0."""
    weights = draw.keywords["sample_weight"]
    for label in np.unique(labels):
        keywords = {**draw.keywords, "sample_weight": np.where(labels == label, weights, 0)}
        yield label.item(), draw.loss.sums(*draw.arrays, **keywords)


@cases
def test_totals_of_groups_equal_the_loss_of_each_group_alone(case):
    draw, _ = drawn(case, 90)
    accumulator = accumulator_of(draw, by="group")
    shape = draw.value().shape
    labels = draw.rng.choice(["ab", "c", "def"], shape)
    for index in (slice(0, 31), slice(31, None)):
        update(accumulator, draw, index, group=labels[index])
    assert list(accumulator.groups) == ["ab", "c", "def"]
    size = np.abs(draw.value().astype(np.float64)).sum()
    for label, (loss_sum, weight, count) in sums_by_group(draw, labels):
        totals = accumulator.groups[label]
        assert abs(totals.sum - loss_sum) <= SUM_TOLERANCE * size
        assert totals.weight == pytest.approx(weight, rel=1e-13)
        assert totals.count == count
        assert totals.value == pytest.approx(loss_sum / weight, rel=1e-12)
    assert accumulator.value == pytest.approx(draw.value("mean"), rel=1e-12)


@over([c for c in STEADY if c.by_class])
def test_classes_are_groups_by_target(case):
    draw, _ = drawn(case, 90)
    by_class, by_group = accumulator_of(draw, by="class"), accumulator_of(draw, by="group")
    for index in (slice(0, 31), slice(31, None)):
        update(by_class, draw, index)
        update(by_group, draw, index, group=draw.arrays[1][index])
    assert repr(by_class.groups) == repr(by_group.groups)
    assert sum(totals.count for totals in by_class.groups.values()) == by_class.count
    assert -100 not in by_class.groups


def test_binary_targets_are_classes():
    x, y = np.array([0.5, 2.0, -1.0, 3.0]), np.array([-1.0, 1.0, 1.0, -1.0])
    accumulator = fl.SoftMarginLoss().accumulator(by="class")
    accumulator.update(x, y)
    assert accumulator.groups[1].value == fl.soft_margin_loss(x[1:3], y[1:3])
    accumulator = fl.BCEWithLogitsLoss().accumulator(by="class")
    accumulator.update(x, y > 0)
    accumulator.update(x, (y > 0).astype(np.float32))
    assert accumulator.groups[0].count == 4
    before = accumulator.to_dict()
    with pytest.raises(ValueError, match=r"target\[10\] = 0.25 is not a class: .* 0 or 1"):
        accumulator.update(x, np.array([0, 1, 0.25, 0.5]))
    assert accumulator.to_dict() == before


def test_standard_error_of_groups():
    rng = np.random.default_rng(10)
    x, labels = rng.normal(size=500), rng.integers(-3, 4, 500)
    accumulator = fl.MSELoss().accumulator(by="group")
    for index in (slice(0, 100), slice(100, 500)):
        accumulator.update(x[index], 0.0, group=labels[index])
    for label, totals in accumulator.groups.items():
        losses = x[labels == label] ** 2
        assert totals.stderr == pytest.approx(np.std(losses, ddof=1) / len(losses) ** 0.5, rel=1e-9)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([2, 0, 2**40, -5]),
        np.array([True, False, True, True]),
        np.array([0.5, -1.5, 0.5, 0.0]),
        np.array(["b", "a", "b", "ü"]),
        np.array(["b", "a", "b", "c"], dtype=object),
        np.array([3, 2, 1, 0], dtype=np.uint64),
        ["b", "a", "b", "c"],
    ],
    ids=lambda labels: str(getattr(labels, "dtype", "list")),
)
def test_types_of_labels(labels):
    accumulator = fl.L1Loss().accumulator(by="group")
    accumulator.update(np.arange(4.0), 0.0, group=labels)
    assert list(accumulator.groups) == sorted({*np.asarray(labels).tolist()})
    for label, totals in accumulator.groups.items():
        at = np.asarray(labels) == label
        assert (totals.sum, totals.count) == (np.arange(4.0)[at].sum(), at.sum())
    restored = Accumulator.from_json(accumulator.to_json())
    assert repr(restored.groups) == repr(accumulator.groups)


def test_one_label_for_each_row():
    x = np.arange(12.0).reshape(3, 4)
    accumulator = fl.L1Loss().accumulator(by="group")
    accumulator.update(x, 0.0, group=[7, 8, 7])
    assert {k: v.sum for k, v in accumulator.groups.items()} == {7: 44.0, 8: 22.0}


def test_later_batches_add_groups():
    accumulator, other = fl.L1Loss().accumulator(by="group"), fl.L1Loss().accumulator(by="group")
    for k in range(5):
        accumulator.update(np.ones(100), 0.0, group=np.arange(100) + 50 * k)
        other.update(np.ones(100), 0.0, group=np.arange(100) * 1000)
    assert len(accumulator.groups) == 300
    assert accumulator.groups[99].count == 2
    total = accumulator + other
    assert len(total.groups) == 300 + 100 - 1
    assert (total.groups[0].count, total.groups[99_000].count) == (6, 5)


# ---- merging, pickle and JSON --------------------------------------------------------------------


@cases
@pytest.mark.parametrize("by", [None, "group"])
def test_copy_pickle_and_json_preserve_the_accumulator(case, by):
    draw, _ = drawn(case, 50)
    accumulator = accumulator_of(draw, by=by)
    group = None if by is None else np.arange(draw.value().size).reshape(draw.value().shape) % 3
    accumulator.update(*draw.arrays, group=group)
    for duplicate in (
        copy.copy,
        lambda a: pickle.loads(pickle.dumps(a)),
        lambda a: Accumulator.from_dict(json.loads(json.dumps(a.to_dict(), allow_nan=False))),
    ):
        other, before = duplicate(accumulator), accumulator.to_dict()
        other.update(*draw.arrays, group=group)
        assert accumulator.to_dict() == before
        accumulator.update(*draw.arrays, group=group)
        assert other.to_dict() == accumulator.to_dict()
        assert (other.value, other.stderr) == (accumulator.value, accumulator.stderr)
        assert (other + accumulator).count == 2 * accumulator.count
    assert len(pickle.dumps(accumulator)) < 4000


def test_invalid_states_are_refused():
    good = fl.MSELoss().accumulator().to_dict()
    for bad in (
        {},
        [],
        {**good, "criterion": "os.system"},
        {**good, "sums": [1, 2]},
        {**good, "sums": [1.5, *good["sums"][1:]]},
        {**good, "sums": [-1, *good["sums"][1:]]},
        {**good, "sums": [2**80, *good["sums"][1:]]},
        {**good, "sums": [*good["sums"][:-1], 0.5]},
        {**good, "sums": [*good["sums"][:-1], 50_000]},
        {**good, "options": {"nonsense": 1}},
        {**good, "options": None},
        {**good, "groups": [[None, [0.0] * 9]], "by": "group"},
        {**good, "groups": [["a", [1.0]]], "by": "group"},
    ):
        with pytest.raises(ValueError, match="not the state of an accumulator"):
            Accumulator.from_dict(bad)


@pytest.mark.parametrize("version", [1, 99])
def test_states_and_pickles_of_other_versions_are_refused(version):
    accumulator = fl.MSELoss().accumulator()
    message = rf"in version {version} of the format, .* reads version 4: accumulate .* again"
    with pytest.raises(ValueError, match=message):
        Accumulator.from_dict({**accumulator.to_dict(), "version": version})
    pickled = accumulator.__getstate__()
    assert pickled.pop("version") == 4
    if version > 1:  # pickles had no version before 2
        pickled["version"] = version
    with pytest.raises(ValueError, match=message):
        Accumulator.__new__(Accumulator).__setstate__(pickled)


def test_addition_and_merge():
    a, b = fl.L1Loss().accumulator(), fl.L1Loss().accumulator()
    a.update([1.0], [0.0])
    b.update([3.0], [0.0])
    assert ((a + b).sum, sum([a, b, a]).sum, a.sum, b.sum) == (4.0, 5.0, 1.0, 3.0)
    a += b
    a.merge(a)
    assert a.sum == 8.0
    for other in (fl.L1Loss(reduction="sum").accumulator(), fl.MSELoss().accumulator()):
        with pytest.raises(ValueError, match=r"cannot be merged into .*: .* must be equal"):
            a.merge(other)
    with pytest.raises(ValueError, match=r"cannot be merged into .*: .* must be equal"):
        a.merge(fl.L1Loss().accumulator(by="group"))
    with pytest.raises(TypeError):
        a + 1


def test_threads_may_share_an_accumulator():
    shared = fl.L1Loss(reduction="sum").accumulator(by="group")
    rows = np.ones(300)

    def work(k):
        private = fl.L1Loss(reduction="sum").accumulator(by="group")
        for _ in range(50):
            shared.update(rows, 0.0, group=np.full(300, k))
            private.update(rows, 0.0, group=np.full(300, k + 100))
        shared.merge(private)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shared.value == 8 * 2 * 50 * 300
    assert {label: totals.count for label, totals in shared.groups.items()} == {
        label: 15_000 for k in range(8) for label in (k, k + 100)
    }


# ---- invalid calls -------------------------------------------------------------------------------


def test_an_invalid_batch_changes_nothing_and_names_its_row():
    accumulator = fl.CrossEntropyLoss().accumulator()
    accumulator.update(np.zeros((4, 3)), [0, 1, 2, 0])
    before = accumulator.to_dict()
    with pytest.raises(fl.ClassIndexError, match=r"target\[5\] = 3 is not a class"):
        accumulator.update(np.zeros((2, 3)), [0, 3])
    assert accumulator.to_dict() == before


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fl.MSELoss(reduction="none").accumulator(), ValueError, "no single value"),
        (lambda: fl.MSELoss().accumulator(by="rows"), ValueError, "by must be None, 'class'"),
        (lambda: fl.MSELoss().accumulator(by="class"), ValueError, "mse_loss are not classes"),
        (lambda: fl.CTCLoss().accumulator(by="class"), ValueError, "ctc_loss are not classes"),
        (lambda: fl.MSELoss().accumulator().groups, ValueError, "there are no groups: pass by="),
        (lambda: Accumulator(fl.mse_loss), TypeError, "must be a criterion"),
    ],
)
def test_invalid_accumulators(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("group", "error", "message"),
    [
        (None, TypeError, "it is required with by='group'"),
        ([1], ValueError, r"group has shape \(1,\): it must have shape \(2,\)"),
        ([1.0, np.nan], ValueError, "NaN, which is not a label"),
        (np.array([None, "a"]), TypeError, "group holds None"),
        (np.array([1, 2], object), TypeError, r"group holds 1 in an array of objects.*astype"),
        ([1.0, -np.inf], ValueError, "inf, which is not a label"),
        (np.array([1, 2], np.longdouble), TypeError, "group holds"),
        (np.ma.array([1, 2], mask=[0, 1]), TypeError, "group is a masked array"),
        (["a", 1], TypeError, r"group\[1\] = 1 would become '1'"),
        (["a", np.nan], TypeError, r"group\[1\] = nan would become 'nan'"),
        (["a", "b\0"], TypeError, r"group\[1\] = 'b\\x00' would become 'b'"),
        ([-1, 2**63 + 1], TypeError, r"group\[1\] = 9223372036854775809 would become 9.2"),
        (np.array([1j, 2]), TypeError, "group holds complex128"),
        (np.array([1, 2], "m8[D]"), TypeError, "timedelta64"),
    ],
)
def test_invalid_labels_change_nothing(group, error, message):
    accumulator = fl.MSELoss().accumulator(by="group")
    accumulator.update([1.0], [0.0], group=[1])
    before = accumulator.to_dict()
    with pytest.raises(error, match=message):
        accumulator.update([1.0, 2.0], [0.0, 0.0], group=group)
    assert accumulator.to_dict() == before
    with pytest.raises(TypeError, match="not accepted otherwise"):
        fl.MSELoss().accumulator().update([1.0], [0.0], group=[1])


def test_probabilities_have_no_class():
    accumulator = fl.CrossEntropyLoss().accumulator(by="class")
    with pytest.raises(TypeError, match="holds float64, not class indices"):
        accumulator.update(np.zeros((2, 3)), np.full((2, 3), 1 / 3))
    assert accumulator.count == 0


def test_later_changes_of_the_criterion_have_no_effect():
    criterion = fl.HuberLoss(delta=1.0)
    accumulator = criterion.accumulator()
    criterion.set_params(delta=5.0)
    accumulator.update([9.0], [0.0])
    assert accumulator.criterion == fl.HuberLoss()
    assert accumulator.value == 8.5


# ---- use during an update ------------------------------------------------------------------------


class Weights:
    """Sample weights of ones; the first time they are read, which is in the middle of an update,
    runs code."""

    def __init__(self, rows, code):
        self.rows, self.code = rows, code

    def __array__(self, dtype=None, copy=None):
        code, self.code = self.code, lambda: None  # a batch whose turn is lost is computed again
        code()
        return np.ones(self.rows)


@pytest.fixture
def no_deadlock():
    """Fails instead of waiting for a lock for ever."""

    def fail(*_):
        raise TimeoutError("deadlock")

    previous = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, 60)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


needs_signals = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no POSIX signals")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
by_all = pytest.mark.parametrize("by", [None, "class", "group"])


def batch_of(by, rows, seed):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, rows)
    return (rng.normal(size=(rows, 3)), target), {"group": target % 2} if by == "group" else {}


def running_of(by, *batches):
    accumulator = fl.CrossEntropyLoss().accumulator(by=by)
    for arrays, group in batches:
        accumulator.update(*arrays, **group)
    return accumulator


def assert_close(a, b):
    assert (a.count, a.rows) == (b.count, b.rows)
    assert math.isclose(a.value, b.value, rel_tol=1e-13)
    assert math.isclose(a.stderr, b.stderr, rel_tol=1e-9)
    if a.by:
        assert a.groups.keys() == b.groups.keys()
        for label, totals in a.groups.items():
            assert totals.count == b.groups[label].count
            assert math.isclose(totals.value, b.groups[label].value, rel_tol=1e-13)


def in_a_thread(code):
    thread = threading.Thread(target=code)
    thread.start()
    thread.join()


USES = {
    "update": lambda a, batch: a.update(*batch[0], **batch[1]),
    "merge": lambda a, batch: a.merge(running_of(a.by, batch)),
    "add": lambda a, batch: a.__iadd__(running_of(a.by, batch)),
    "reset": lambda a, batch: a.reset(),
    "read": lambda a, batch: (a.value, a.stderr, a.count, repr(a), a.by and a.groups),
    "to_json": lambda a, batch: a.to_json(),
    "pickle": lambda a, batch: pickle.dumps(a),
    "copy": lambda a, batch: copy.copy(a),
}


@needs_signals
@by_all
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("run", [lambda code: code(), in_a_thread], ids=["same", "other"])
def test_use_during_an_update_takes_effect_at_once(by, use, run, no_deadlock):
    before, during, batch = (batch_of(by, rows, seed) for seed, rows in enumerate((5, 6, 7)))
    kept = {"update": [before, during], "merge": [before, during], "add": [before, during]}
    kept["reset"] = []
    running = running_of(by, before)
    state = running.to_json()

    def code():
        assert running.to_json() == state  # a batch counts when its update returns
        run(lambda: USES[use](running, during))
        if use != "reset":
            assert_close(running, running_of(by, *kept.get(use, [before])))
        else:
            assert running.count == running.rows == 0

    (arrays, group) = batch
    running.update(*arrays, sample_weight=Weights(7, code), **group)
    assert_close(running, running_of(by, *kept.get(use, [before]), batch))
    running.update(*arrays, **group)  # the turn has ended
    assert_close(running, running_of(by, *kept.get(use, [before]), batch, batch))


@needs_signals
@by_all
def test_updates_may_nest(by, no_deadlock):
    batches = [batch_of(by, 4, seed) for seed in range(4)]
    running = fl.CrossEntropyLoss().accumulator(by=by)

    def add(k):
        (arrays, group) = batches[k]
        weights = Weights(4, (lambda: add(k + 1)) if k < 3 else (lambda: None))
        running.update(*arrays, sample_weight=weights, **group)

    add(0)
    assert_close(running, running_of(by, *batches))


@needs_signals
@by_all
@pytest.mark.parametrize("reuse", [False, True])
def test_an_update_that_fails_ends_its_turn(by, reuse, no_deadlock):
    """Later batches continue in order, with the bits of one call, even while the error is kept."""
    (arrays, group) = batch_of(by, 30_000, 1)
    running, failing = fl.CrossEntropyLoss().accumulator(by=by), batch_of(by, 3, 2)

    def stop():
        if reuse:
            running.update(*failing[0], **failing[1])
            running.reset()
        raise KeyError

    with pytest.raises((KeyError, TypeError)) as error:
        running.update(*failing[0], sample_weight=Weights(3, stop), **failing[1])
    assert running.count == 0
    block = 4 * fl.cross_entropy._rows_per_block((30_000, 3))
    for part in (slice(0, block), slice(block, None)):
        running.update(*(a[part] for a in arrays), **{k: v[part] for k, v in group.items()})
    assert running.to_dict()["sums"] == running_of(by, (arrays, group)).to_dict()["sums"]
    assert error


@needs_signals
@by_all
def test_rows_in_messages_are_counted_during_another_update(by, no_deadlock):
    before, batch = batch_of(by, 5, 0), batch_of(by, 4, 1)
    running = running_of(by, before)

    def code():
        (x, _), group = batch
        with pytest.raises(fl.ClassIndexError, match=r"target\[7\] = 9 is not a class"):
            running.update(x, np.array([0, 1, 9, 2]), **group)

    running.update(*batch[0], sample_weight=Weights(4, code), **batch[1])
    assert_close(running, running_of(by, before, batch))


@needs_signals
def test_a_signal_handler_may_use_the_accumulator_of_a_running_kernel():
    class Stop(Exception):
        pass

    running = fl.MSELoss().accumulator()
    running.update([1.0], [0.0])
    states = []

    def handler(*_):
        states.append(running.to_json())
        running.update([3.0], [0.0])
        raise Stop

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Stop):
            running.update(np.broadcast_to(np.float32(1), 1 << 50), np.float32(0))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert fl.Accumulator.from_json(states[0]).count == 1
    assert (running.count, running.value) == (2, 5.0)


@needs_fork
@needs_signals
@by_all
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("forks_in", ["update", "thread", "main"])
def test_a_child_forked_during_an_update_may_use_the_accumulator(by, forks_in, no_deadlock):
    before, during, batch = (batch_of(by, rows, seed) for seed, rows in enumerate((5, 6, 7)))
    running = running_of(by, before)
    codes = []

    def child(*others):
        """Runs in the child; exits with 0 if all is as expected."""
        try:
            running.update(*during[0], **during[1])
            running.update(*during[0], **during[1])
            assert_close(running, running_of(by, before, *others, during, during))
            assert fl.Accumulator.from_json(running.to_json()).count == running.count
            if not others:  # in order
                expected = running_of(by, before, during, during)
                assert running.to_dict()["sums"] == expected.to_dict()["sums"]
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def fork(*others):
        pid = os.fork()
        if pid == 0:
            child(*others)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    parent = os.getpid()
    pids = []

    def fork_and_return():
        pids.append(os.fork())
        if pids[-1]:
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pids[-1], 0)[1]))

    code = {
        "update": fork_and_return,  # the child completes the update, too
        "thread": fork,
        "main": lambda: None,
    }[forks_in]
    if forks_in == "main":  # the thread that updates does not exist in the child
        started, forked = threading.Event(), threading.Event()

        def code():
            started.set()
            forked.wait()

    def update():
        running.update(*batch[0], sample_weight=Weights(7, code), **batch[1])

    if forks_in == "update":
        update()
        if os.getpid() != parent:
            child(batch)
    else:
        thread = threading.Thread(target=update)
        thread.start()
        if forks_in == "main":
            started.wait()
            fork()
            forked.set()
        thread.join()
    assert codes == [0]
    assert_close(running, running_of(by, before, batch))


@pytest.mark.parametrize("by", ["class", "group"])
def test_a_weight_that_is_a_number(by):
    """It is converted, and read after arrays of its size have been made and filled."""
    accumulator = fl.BCELoss(weight=0.25).accumulator(by=by)
    for k in range(3):
        accumulator.update([0.5], [1.0], **({"group": ["a"]} if by == "group" else {}))
        assert accumulator.value == pytest.approx(0.25 * math.log(2), rel=1e-15), k


@pytest.mark.parametrize("index", [[0, 1, 2], [0, 1, -1], [0, 1], [0, 1, 1, 1]])
def test_units_without_a_group(index):
    units = fl._binding.UnitOutputs(terms=True)
    sums = fl._binding.LossSums()
    fl.mse_loss._update(sums, units, np.ones(3), 0.0)
    groups = [sums.empty_like(), sums.empty_like()]
    with pytest.raises(ValueError, match="a unit has no group"):
        fl._binding.add_unit_terms(groups, np.array(index), units)
    assert [group.count for group in groups] == [0, 0]
    fl._binding.add_unit_terms(groups, np.array([0, 1, 1]), units)
    assert [group.count for group in groups] == [1, 2]
