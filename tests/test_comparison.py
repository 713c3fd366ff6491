"""Comparison with a baseline: the paired difference of two predictions' losses, however it is
computed: in one call, in chunks, batches or blocks, merged, resumed, or from the command line.

The references form differences, sums and standard errors with mpmath, from unreduced losses or from
the formula of the loss.
"""

import itertools
import json
import math
import pickle
import random
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from mpmath import mp, mpf

import fastloss as fl
from fastloss import cli
from fastloss.evaluation import evaluator
from fastloss.evaluation.accumulators import Accumulator
from tests.drawn_case import DrawnCase
from tests.stored_arrays import stored
from tests.test_accumulators import CRITERIA, FLOATS, STEADY, SUM_TOLERANCE, over

floats = pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.__name__)
UNIT = 2.0**-53  # the rounding error of one difference in float64
WEIGHED = [c for c in STEADY if not c.weighs_classes and c.unit != "sequence"]


def drawn_pair(case, rows, dtype=np.float32, other_dtype=None):
    """A draw with weights, and the draw of its baseline."""
    shape = (rows,) if case.unit == "sequence" else (rows, 3)
    draw = DrawnCase(case, shape, dtype)
    draw.keywords["sample_weight"] = draw.rng.integers(0, 4, draw.value().shape).astype(dtype)
    other = DrawnCase(case, shape, other_dtype or dtype, seed=1)
    names = draw.loss.default_wrt
    replaced = {name: other.arrays[draw.loss.operands.index(name)] for name in names}
    arrays = [replaced.get(n, a) for n, a in zip(draw.loss.operands, draw.arrays, strict=True)]
    return draw, draw.with_arrays(arrays)


def criterion_of(draw, reduction="mean"):
    options = dict(draw.keywords, reduction=reduction)
    options.pop("sample_weight")
    return CRITERIA[draw.loss](**options)


def baseline_of(other, index):
    """The baseline of some rows as `update` takes it, from the draw of the baseline."""
    names, arrays = other.loss.default_wrt, other.at(index).arrays
    by_name = {name: arrays[other.loss.operands.index(name)] for name in names}
    return by_name if len(names) > 1 else by_name[names[0]]


def updated(draw, other, slices, by=None, labels=None, reduction="mean"):
    accumulator = criterion_of(draw, reduction).accumulator(by=by, baseline=True)
    for index in slices:
        keywords = {"sample_weight": draw.keywords["sample_weight"][index]}
        if labels is not None:
            keywords["group"] = labels[index]
        arrays = draw.at(index).arrays
        accumulator.update(*arrays, baseline=baseline_of(other, index), **keywords)
    return accumulator


def updated_alone(draw, slices, by=None, labels=None, reduction="mean"):
    accumulator = criterion_of(draw, reduction).accumulator(by=by)
    for index in slices:
        keywords = {"sample_weight": draw.keywords["sample_weight"][index]}
        if labels is not None:
            keywords["group"] = labels[index]
        accumulator.update(*draw.at(index).arrays, **keywords)
    return accumulator


def totals(result):
    """All figures as text: equal for results that are bitwise equal."""
    figures = [result.value, result.stderr, result.sum, result.weight, result.count]
    return repr((figures, result.groups))


def alone(result):
    """The figures of an evaluation or accumulator, as `totals` writes them for a baseline."""
    groups = result.groups if getattr(result, "by", True) else None
    return repr(([result.value, result.stderr, result.sum, result.weight, result.count], groups))


def paired(terms, others, divisors, reduction="mean"):
    """The sum, value and standard error of the difference, with mpmath."""
    terms, others, divisors = (
        [mpf(float(v)) for v in np.ravel(a)] for a in (terms, others, divisors)
    )
    return paired_numbers([a - b for a, b in zip(terms, others, strict=True)], divisors, reduction)


def paired_numbers(differences, divisors, reduction="mean"):
    with mp.workprec(200):
        total, weight = mp.fsum(differences), mp.fsum(divisors)
        n = sum(d != 0 for d in divisors)
        mean = total / weight
        squares = mp.fsum((e - mean * d) ** 2 for e, d in zip(differences, divisors, strict=True))
        error = mp.sqrt(squares * n / (n - 1))
        divisor = weight if reduction == "mean" else 1
        return total, total / divisor, error / divisor


CUTS = [slice(a, b) for a, b in itertools.pairwise([0, 1, 20, 21, 100, 211])]


# ---- the law -------------------------------------------------------------------------------------


@over(WEIGHED)
@floats
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.rotate("reduction")
@pytest.mark.filterwarnings("ignore:invalid value")  # 0 / 0 of equal losses
def test_the_difference_is_the_one_of_paired_losses(case, dtype, reduction):
    draw, other = drawn_pair(case, 211, dtype)
    weights = draw.keywords["sample_weight"].astype(np.float64)
    if case.ignored is not None:
        weights = np.where(draw.arrays[1] == case.ignored, 0, weights)
    divisors = np.broadcast_to(weights, draw.value().shape)
    terms, others = draw.weighted_losses(), other.weighted_losses()
    difference = updated(draw, other, CUTS, reduction=reduction).difference
    total, value, error = paired(terms, others, divisors, reduction)
    size = np.abs(terms - others).sum()
    assert abs(difference.sum - total) <= 1.01 * UNIT * size + UNIT * abs(total)
    assert abs(difference.value - value) <= 1e-14 * size / (
        divisors.sum() if reduction == "mean" else 1
    )
    assert difference.stderr == pytest.approx(float(error), rel=1e-9)
    assert difference.weight == pytest.approx(divisors.sum(), rel=1e-13)
    assert difference.count == np.count_nonzero(divisors)
    np.testing.assert_equal(difference.z, np.float64(difference.value) / difference.stderr)


@over(STEADY)
@floats
def test_input_and_baseline_are_bitwise_those_alone(case, dtype):
    draw, other = drawn_pair(case, 90, dtype)
    labels = draw.rng.choice(["ab", "c", "def"], draw.value().shape)
    slices = [slice(0, 31), slice(31, None)]
    for by, group in ((None, None), ("group", labels)):
        pair = updated(draw, other, slices, by, group)
        assert alone(pair) == alone(updated_alone(draw, slices, by, group))
        assert totals(pair.baseline) == alone(updated_alone(other, slices, by, group))
        size = np.abs(draw.value().astype(float)).sum() + np.abs(other.value().astype(float)).sum()
        assert abs(pair.difference.sum - (pair.sum - pair.baseline.sum)) <= SUM_TOLERANCE * size
        assert (pair.difference.weight, pair.difference.count) == pytest.approx(
            (pair.weight, pair.count), rel=1e-13
        )


@over(STEADY)
def test_groups_are_the_difference_of_each_group_alone(case):
    draw, other = drawn_pair(case, 90)
    labels = draw.rng.choice(["ab", "c", "def"], draw.value().shape)
    pair = updated(draw, other, [slice(0, 31), slice(31, None)], "group", labels)
    weights = draw.keywords["sample_weight"]
    size = np.abs(draw.value().astype(float)).sum() + np.abs(other.value().astype(float)).sum()
    for label in ("ab", "c", "def"):
        removed = draw.with_arrays(draw.arrays, sample_weight=np.where(labels == label, weights, 0))
        expected = updated(removed, other, [slice(None)]).difference
        got = pair.difference.groups[label]
        assert abs(got.sum - expected.sum) <= SUM_TOLERANCE * size
        assert got.stderr == pytest.approx(expected.stderr, rel=1e-9)
        assert got.weight == pytest.approx(expected.weight, rel=1e-13)
        assert (got.count, got.groups) == (expected.count, None)


def cross_entropies(x, y, weight=None):
    """w[y] (log Σ exp x − x_y) of each row as mpmath numbers."""
    with mp.workprec(200):
        losses = []
        for row, label in zip(x, y, strict=True):
            row = [mpf(float(v)) for v in row]
            loss = mp.log(mp.fsum(map(mp.exp, row))) - row[label]
            losses.append(loss if weight is None else mpf(float(weight[label])) * loss)
        return losses


def class_case(rows=300, classes=5, seed=6):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, classes))
    y = rng.integers(0, classes, rows)
    return x, y, x + 1e-3 * rng.normal(size=x.shape), rng.uniform(0.5, 2, classes)


def test_class_weights_and_ignored_rows_against_the_formula():
    x, y, old, weight = class_case()
    y[::7] = -100
    x[0], old[7] = np.nan, np.inf  # removed rows may hold anything
    active = y >= 0
    result = fl.evaluate(fl.CrossEntropyLoss(weight=weight), x, y, baseline=old, by="class")
    new_losses, old_losses = (
        cross_entropies(logits[active], y[active], weight) for logits in (x, old)
    )
    differences = [a - b for a, b in zip(new_losses, old_losses, strict=True)]
    total, value, error = paired_numbers(differences, [mpf(w) for w in weight[y[active]]])
    assert result.difference.sum == pytest.approx(float(total), abs=1e-13 * active.sum())
    assert result.difference.value == pytest.approx(float(value), abs=1e-14)
    assert result.difference.stderr == pytest.approx(float(error), rel=1e-11)
    for label, got in result.difference.groups.items():
        of_label = [d for d, c in zip(differences, y[active], strict=True) if c == label]
        weights = [mpf(weight[label])] * len(of_label)
        _, value, error = paired_numbers(of_label, weights)
        assert got.value == pytest.approx(float(value), abs=1e-14)
        assert got.stderr == pytest.approx(float(error), rel=1e-11)
        assert got.count == len(of_label)
    assert list(result.difference.groups) == list(result.baseline.groups) == list(range(5))


def test_differences_that_cancel():
    """Two sums of 1e20 differ by less than an ULP of either."""
    rng = np.random.default_rng(3)
    x = rng.uniform(1, 2, 20_000) * np.exp2(rng.integers(-30, 60, 20_000))
    old = np.nextafter(x, rng.choice([-np.inf, np.inf], x.shape))
    difference = fl.evaluate(fl.L1Loss(), x, np.zeros_like(x), baseline=old).difference
    with mp.workprec(200):
        exact = mp.fsum(mpf(a) - mpf(b) for a, b in zip(x.tolist(), old.tolist(), strict=True))
    assert difference.sum == float(exact)  # each difference is exact
    assert abs(float(exact)) < np.spacing(x.sum()) * 100


def test_standard_error_of_correlated_losses_is_that_of_their_differences():
    rng = np.random.default_rng(1)
    shared = rng.normal(size=50_000) * 10
    x, old = shared + 0.1 * rng.normal(size=(2, 50_000))
    result = fl.evaluate(fl.L1Loss(), x, np.zeros_like(x), baseline=old)
    losses = np.abs(x) - np.abs(old)
    assert result.difference.stderr == pytest.approx(losses.std(ddof=1) / 50_000**0.5, rel=1e-12)
    independent = math.hypot(result.stderr, result.baseline.stderr)
    assert result.difference.stderr < independent / 20


def test_equal_models_differ_by_about_one_standard_error():
    rng = np.random.default_rng(0)
    z = []
    for _ in range(500):
        y, shared = rng.normal(size=(2, 200))
        x, old = y + shared + 0.3 * rng.normal(size=(2, 200))
        weights = rng.integers(1, 4, 200)
        result = fl.evaluate(fl.MSELoss(), x, y, baseline=old, sample_weight=weights)
        z.append(result.difference.z)
    assert 0.9 < np.std(z) < 1.1
    assert abs(np.mean(z)) < 0.15
    assert 0.02 < np.mean(np.abs(z) > 1.96) < 0.08


def test_the_sign_says_which_is_better():
    y = np.arange(10.0)
    good, bad = y + 0.1, y + np.linspace(1, 2, 10)
    assert fl.evaluate(fl.MSELoss(), good, y, baseline=bad).difference.value < 0
    result = fl.evaluate(fl.MSELoss(), bad, y, baseline=good)
    assert result.difference.value > 0 < result.difference.z
    swapped = fl.evaluate(fl.MSELoss(), good, y, baseline=bad).difference
    assert (swapped.sum, swapped.stderr) == (-result.difference.sum, result.difference.stderr)


def test_equal_predictions():
    x, y, *_ = class_case()
    difference = fl.evaluate(fl.cross_entropy, x, y, baseline=x.copy()).difference
    assert (difference.value, difference.stderr, difference.count) == (0, 0, 300)
    assert math.isnan(difference.z)
    constant = fl.evaluate(fl.l1_loss, np.ones(4), np.zeros(4), baseline=np.full(4, 3.0))
    assert (constant.difference.value, constant.difference.stderr) == (-2, 0)
    assert constant.difference.z == -math.inf


def test_a_constant_prediction_as_baseline():
    rng = np.random.default_rng(0)
    y = rng.normal(size=100)
    x = y + 0.1
    mean = float(y.mean())
    for constant in (mean, np.float64(mean), np.array(mean)):
        result = fl.evaluate(fl.MSELoss(), x, y, baseline=constant)
        assert result.baseline.value == fl.mse_loss(mean, y)
    running = fl.MSELoss().accumulator(baseline=True)
    running.update(x, y, baseline=mean)
    assert running.baseline == result.baseline
    running.update(mean, y, baseline=x)
    assert running.difference.value == pytest.approx(0, abs=1e-15)


def test_dtypes_may_differ():
    x, y, old, weight = class_case()
    criterion = fl.CrossEntropyLoss(weight=weight)
    for dtype, other in itertools.product((np.float16, np.float32, np.float64), repeat=2):
        new, baseline = x.astype(dtype), old.astype(other)
        result = fl.evaluate(criterion, new, y, baseline=baseline)
        assert result.value == criterion(new, y)
        assert result.baseline.value == criterion(baseline, y)
        assert result.difference.weight == pytest.approx(weight[y].sum(), rel=1e-15)
        losses = [
            fl.cross_entropy(a, y, reduction="none").astype(np.float64)
            for a in (a.astype(np.float32) if a.dtype == np.float16 else a for a in (new, baseline))
        ]
        expected = paired(*(losses * weight[y]), weight[y])
        assert result.difference.sum == pytest.approx(float(expected[0]), abs=1e-15 * 300)
        assert result.difference.stderr == pytest.approx(float(expected[2]), rel=1e-9)


def test_input_and_baseline_of_other_shapes_for_scalars():
    running = fl.MSELoss().accumulator(baseline=True)
    with pytest.raises(ValueError, match=r"input has losses of shape \(\), and the baseline of"):
        running.update(1.0, 2.0, baseline=[1.0, 2.0])


@pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean"])
def test_reductions(reduction):
    rng = np.random.default_rng(5)
    x, old = np.log(rng.dirichlet(np.ones(4), (2, 30)))
    y = rng.dirichlet(np.ones(4), 30)
    criterion = fl.KLDivLoss(reduction=reduction)
    result = fl.evaluate(criterion, x, y, baseline=old)
    assert result.difference.value == pytest.approx(criterion(x, y) - criterion(old, y), rel=1e-12)
    assert result.difference.weight == result.weight == result.baseline.weight
    losses, others = (fl.kl_div(a, y, reduction="none") for a in (x, old))
    divisor = {"mean": 120, "sum": 1, "batchmean": 30}[reduction]
    expected = math.sqrt(120) * (losses - others).std(ddof=1) / divisor
    assert result.difference.stderr == pytest.approx(expected, rel=1e-12)


def test_sequences():
    rng = np.random.default_rng(2)
    x, old = (np.log(rng.dirichlet(np.ones(5), (9, 20))) for _ in range(2))
    y, frames, labels = rng.integers(1, 5, (9, 4)), np.full(9, 20), rng.integers(1, 5, 9)
    for criterion in (
        fl.CTCLoss(batch_first=True),
        fl.CTCLoss(batch_first=True, zero_infinity=True),
    ):
        result = fl.evaluate(criterion, x, y, frames, labels, baseline=old)
        alone_ = criterion(old, y, frames, labels)
        assert result.baseline.value == alone_
        losses, others = (
            fl.ctc_loss(a, y, frames, labels, batch_first=True, reduction="none") / labels
            for a in (x, old)
        )
        assert result.difference.value == pytest.approx((losses - others).mean(), rel=1e-12)
        expected = (losses - others).std(ddof=1) / 3
        assert result.difference.stderr == pytest.approx(expected, rel=1e-10)
    frames[2] = 1  # too short for its labels: an infinite loss, or 0
    infinite = fl.evaluate(fl.CTCLoss(batch_first=True), x, y, frames, labels, baseline=old)
    assert (infinite.value, infinite.baseline.value) == (math.inf, math.inf)
    assert math.isnan(infinite.difference.value)
    zero = fl.evaluate(criterion, x, y, frames, labels, baseline=old)
    assert zero.difference.value == pytest.approx(zero.value - zero.baseline.value, rel=1e-12)


# ---- numbers at the limits -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        (np.inf, 1.0, np.inf),
        (1.0, np.inf, -np.inf),
        (np.inf, np.inf, np.nan),
        (np.nan, 1.0, np.nan),
        (1.0, np.nan, np.nan),
    ],
)
def test_losses_that_are_not_finite(new, old, expected):
    y = np.zeros(3)
    for k in range(3):
        x, baseline = np.ones(3), np.ones(3)
        x[k], baseline[k] = new, old
        result = fl.evaluate(fl.L1Loss(), x, y, baseline=baseline, by=np.array([0, 0, 1]))
        np.testing.assert_equal(result.difference.value, expected)
        np.testing.assert_equal(result.difference.groups[k // 2].value, expected)
        assert math.isnan(result.difference.stderr)
        assert math.isnan(result.difference.z)
        weights = np.arange(3) != k
        removed = fl.evaluate(fl.L1Loss(), x, y, baseline=baseline, sample_weight=weights)
        assert (removed.difference.value, removed.difference.count) == (0, 2)


def test_a_difference_that_overflows_is_an_error():
    criterion, y = fl.HingeEmbeddingLoss(reduction="sum"), np.ones(2)  # the loss is x
    running = criterion.accumulator(baseline=True)
    running.update([1.0, 1.0], y, baseline=[2.0, 2.0])
    before = running.to_dict()
    with pytest.raises(OverflowError, match="difference: a loss minus the loss of the baseline"):
        running.update([1.5e308, 0], y, baseline=[-1.5e308, 0])
    with pytest.raises(OverflowError, match="out of the range of float64"):
        running.update([1e308, 1e308], y, baseline=[0, -1e308])
    with pytest.raises(OverflowError, match=r"baseline: .*out of the range of float64"):
        running.update([0, 0], y, baseline=[1e308, 1e308])
    assert running.to_dict() == before


# ---- the same bits however the data are cut ------------------------------------------------------


def evaluated(criterion, *data, **options):
    result = fl.evaluate(criterion, *data, **options)
    results = result if isinstance(result, list) else [result]
    return [
        (alone_ or repr(r.value), totals(r.baseline), totals(r.difference))
        for r in results
        for alone_ in [repr((r.value, r.stderr, r.sum, r.weight, r.count, r.groups))]
    ]


@pytest.mark.parametrize("by", [None, "class", "labels"])
def test_threads_chunks_and_files(by, tmp_path):
    x, y, old, weight = class_case(rows=60_000, classes=3)
    x = x.astype(np.float32)
    data = {"x": x, "y": y, "old": old, "w": np.random.default_rng(0).random(60_000)}
    options = {"by": y % 2 if by == "labels" else by, "sample_weight": data["w"]}
    criteria = [fl.CrossEntropyLoss(weight=weight), fl.MultiMarginLoss()]
    expected = evaluated(criteria, x, y, baseline=old, **options)
    for name, array in data.items():
        np.save(tmp_path / f"{name}.npy", array)
    paths = {name: tmp_path / f"{name}.npy" for name in data}
    for threads, chunk_rows in itertools.product((1, 2, 5), (1, 20_000, 10**6)):
        got = evaluated(
            criteria, x, y, baseline=old, threads=threads, chunk_rows=chunk_rows, **options
        )
        assert got == expected
    options["sample_weight"] = paths["w"]
    for baseline in (paths["old"], str(paths["old"]), np.load(paths["old"], mmap_mode="r")):
        got = evaluated(
            criteria, paths["x"], paths["y"], baseline=baseline, chunk_rows=1, **options
        )
        assert got == expected
    # The difference does not depend on the sizes of batches either.
    cuts = [0, 1, 77, 8192, 30_001, 60_000]
    if by == "labels":
        options["by"] = "group"
    batches = [
        {"input": x[a:b], "target": y[a:b], "baseline": old[a:b], "sample_weight": data["w"][a:b]}
        | ({"group": y[a:b] % 2} if by == "labels" else {})
        for a, b in itertools.pairwise(cuts)
    ]
    options.pop("sample_weight")
    got = evaluated(criteria, iter(batches), baseline=True, **options)
    assert [g[2] for g in got] == [e[2] for e in expected]
    assert got != expected or by is None


@pytest.mark.parametrize("kind", ["list", "hdf5", "zarr", "npz", "arrow", "parquet", "bfloat16"])
def test_kinds_of_baselines(kind, tmp_path):
    rng = np.random.default_rng(0)
    x, y, old = rng.normal(size=(3, 30_000)).astype(np.float32)
    data, old = stored(kind, old, tmp_path)
    expected = fl.evaluate(fl.MSELoss(), x, y, baseline=old)
    assert expected.baseline.value == fl.mse_loss(old, y)
    for chunk_rows in (1, None):
        result = fl.evaluate(fl.MSELoss(), x, y, baseline=data, chunk_rows=chunk_rows)
        assert totals(result.baseline) == totals(expected.baseline)
        assert totals(result.difference) == totals(expected.difference)


MEASURE = r"""
import re, sys
import fastloss as fl
def peak():  # ru_maxrss would include the peak of the parent process
    return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) // 1024
peaks = []
for path in sys.argv[1:]:
    fl.evaluate(fl.mse_loss, path, path, baseline=path)
    peaks.append(peak())
print(peaks[-1] - peaks[0])
"""


@pytest.mark.complete_only
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    paths = [tmp_path / f"{megabytes}.npy" for megabytes in (20, 400)]
    for path, megabytes in zip(paths, (20, 400), strict=True):
        rows = megabytes * 2**20 // 32
        header = {"descr": "<f8", "fortran_order": False, "shape": (rows, 4)}
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + rows * 32)  # sparse: zeros without disk space
    growth = subprocess.check_output([sys.executable, "-c", MEASURE, *paths], text=True)
    assert int(growth) < 20  # MB


def test_classes_on_the_last_axis():
    rng = np.random.default_rng(0)
    x, old = rng.normal(size=(2, 12, 7, 4)).astype(np.float32)
    y = rng.integers(0, 4, (12, 7))
    result = fl.evaluate(fl.CrossEntropyLoss(), x, y, baseline=old, class_axis=-1, by="class")
    moved = [np.moveaxis(a, -1, 1) for a in (x, old)]
    expected = fl.evaluate(fl.CrossEntropyLoss(), moved[0], y, baseline=moved[1], by="class")
    assert totals(result.difference) == totals(expected.difference)
    assert result.baseline.value == fl.cross_entropy(moved[1], y)
    batch = {"input": x, "target": y, "baseline": old}
    got = fl.evaluate(fl.CrossEntropyLoss(), [batch], baseline=True, class_axis=-1, by="class")
    assert totals(got.difference) == totals(expected.difference)


def test_several_criteria_and_per_sample(tmp_path):
    x, y, old, _ = class_case()
    criteria = {"ce": fl.cross_entropy, "margin": fl.MultiMarginLoss()}
    path = tmp_path / "losses.npy"
    results = fl.evaluate(criteria, x, y, baseline=old, per_sample={"ce": path})
    for name, criterion in criteria.items():
        single = fl.evaluate(criterion, x, y, baseline=old)
        assert totals(results[name].difference) == totals(single.difference)
    np.testing.assert_array_equal(np.load(path), fl.cross_entropy(x, y, reduction="none"))


def test_empty_data():
    result = fl.evaluate(
        fl.MSELoss(), np.zeros((0, 3)), np.zeros((0, 3)), baseline=np.zeros((0, 3))
    )
    assert result.difference.count == 0
    assert math.isnan(result.difference.value)
    result = fl.evaluate(fl.MSELoss(), iter([]), baseline=True, by="group")
    assert (result.difference.count, result.difference.groups, result.baseline.groups) == (
        0,
        {},
        {},
    )


# ---- losses of several predictions ---------------------------------------------------------------


def test_losses_of_several_predictions_require_a_dict():
    rng = np.random.default_rng(0)
    a, p, n, b, q = rng.normal(size=(5, 20, 6))
    with pytest.raises(TypeError, match=r"triplet_margin_loss reads 3 predictions: pass a dict .*"):
        fl.evaluate(fl.triplet_margin_loss, a, p, n, baseline=b)
    result = fl.evaluate(fl.triplet_margin_loss, a, p, n, baseline={"positive": q, "anchor": b})
    assert result.baseline.value == fl.triplet_margin_loss(b, q, n)
    running = fl.TripletMarginLoss().accumulator(baseline=True)
    running.update(a, p, n, baseline={"anchor": b, "positive": q})
    assert totals(running.difference) == totals(result.difference)


def test_predictions_with_their_variance(tmp_path):
    rng = np.random.default_rng(0)
    x, y, old = rng.normal(size=(3, 40))
    var, old_var = rng.uniform(0.5, 2, (2, 40))
    np.save(tmp_path / "old.npy", old)
    for new_mean in (old, tmp_path / "old.npy"):
        result = fl.evaluate(
            fl.gaussian_nll_loss, x, y, var, baseline={"input": new_mean, "var": old_var}
        )
        assert result.baseline.value == fl.gaussian_nll_loss(old, y, old_var)
    shared = fl.evaluate(fl.gaussian_nll_loss, x, y, var, baseline=old)
    assert shared.baseline.value == fl.gaussian_nll_loss(old, y, var)
    batch = {"input": x, "target": y, "var": var, "baseline": {"input": old, "var": old_var}}
    got = fl.evaluate(fl.gaussian_nll_loss, [batch], baseline=True)
    assert totals(got.difference) == totals(result.difference)


def test_a_variance_that_all_rows_share(da):
    rng = np.random.default_rng(0)
    x, y, old = rng.normal(size=(3, 10_000, 3))
    var, shared = rng.uniform(0.5, 2, (10_000, 3)), rng.uniform(0.5, 2, (1, 3))
    for new_var, old_var in ((var, shared), (shared, var), (shared, shared + 1)):
        baseline = {"var": old_var, "input": old}
        result = fl.evaluate(fl.gaussian_nll_loss, x, y, new_var, baseline=baseline, chunk_rows=1)
        assert result.value == pytest.approx(fl.gaussian_nll_loss(x, y, new_var), rel=1e-13)
        expected = fl.gaussian_nll_loss(old, y, old_var)
        assert result.baseline.value == pytest.approx(expected, rel=1e-13)
        blocks = [da.from_array(a, chunks=(3000, -1)) for a in (x, y)]
        got = fl.evaluate(fl.gaussian_nll_loss, *blocks, new_var, baseline=baseline)
        assert got.baseline.value == pytest.approx(expected, rel=1e-13)
        assert got.difference.value == pytest.approx(result.difference.value, rel=1e-12)
    with pytest.raises(ValueError, match=r"baseline: .*var"):
        fl.evaluate(fl.gaussian_nll_loss, x, y, var, baseline={"var": var[:, :2]})
    with pytest.raises(ValueError, match=r"leading dimensions differ: .* and baseline var"):
        fl.evaluate(fl.gaussian_nll_loss, x, y, var, baseline={"var": var[:-1]})


# ---- accumulators --------------------------------------------------------------------------------


def test_merging_does_not_depend_on_the_split():
    x, y, old, _ = class_case()
    whole = fl.evaluate(fl.CrossEntropyLoss(), x, y, baseline=old, by="class").accumulator
    parts = []
    for k in range(7):
        part = fl.CrossEntropyLoss().accumulator(by="class", baseline=True)
        part.update(x[k::7], y[k::7], baseline=old[k::7])
        parts.append(part)
    for order in (parts, parts[::-1]):
        total = sum(Accumulator.from_json(pickle.loads(pickle.dumps(p)).to_json()) for p in order)
        size = whole.sum + whole.baseline.sum
        for got, expected in (
            (total.baseline, whole.baseline),
            (total.difference, whole.difference),
            *((total.difference.groups[k], whole.difference.groups[k]) for k in range(5)),
        ):
            assert abs(got.sum - expected.sum) <= SUM_TOLERANCE * size
            assert got.stderr == pytest.approx(expected.stderr, rel=1e-9)
            assert got.count == expected.count
        assert total.rows == 300
    again = whole + whole
    assert again.difference.count == 600
    assert again.difference.value == pytest.approx(whole.difference.value, rel=1e-12)
    whole.reset()
    assert (whole.difference.count, whole.baseline.groups) == (0, {})


def test_states_continue_bitwise():
    x, y, old, _ = class_case()
    accumulators = [fl.CrossEntropyLoss().accumulator(by="class", baseline=True) for _ in range(3)]
    for k in range(0, 300, 50):
        rows = slice(k, k + 50)
        for accumulator in accumulators:
            accumulator.update(x[rows], y[rows], baseline=old[rows])
        accumulators[1] = pickle.loads(pickle.dumps(accumulators[1]))
        accumulators[2] = Accumulator.from_json(accumulators[2].to_json())
    assert accumulators[0].to_json() == accumulators[1].to_json() == accumulators[2].to_json()
    state = json.loads(accumulators[0].to_json())
    assert state["compares"]
    assert state["difference"]["sums"][0] == 300


def test_contradictory_states_are_refused():
    x, y, old, _ = class_case()
    running = fl.CrossEntropyLoss().accumulator(by="class", baseline=True)
    running.update(x, y, baseline=old)
    good = running.to_dict()
    plain = fl.CrossEntropyLoss().accumulator(by="class").to_dict()
    assert "difference" not in plain
    assert plain["compares"] is False
    count, *numbers = good["difference"]["sums"]
    groups = good["difference"]["groups"]
    fewer = [[label, [sums[0] - 1, *sums[1:]]] for label, sums in groups]
    contradictions = [
        ({"compares": False}, "baseline is contradictory"),
        (
            {"difference": {**good["difference"], "sums": [count - 1, *numbers]}},
            "of its difference",
        ),
        ({"baseline": {**good["baseline"], "groups": groups[1:]}}, "of its baseline"),
        ({"difference": {**good["difference"], "groups": fewer}}, "of its difference"),
        ({"difference": None}, ""),
    ]
    for change, message in contradictions:
        with pytest.raises(ValueError, match=f"not the state of an accumulator.*{message}"):
            Accumulator.from_dict({**good, **change})
    for name in ("difference", "baseline", "compares"):
        with pytest.raises(ValueError, match="not the state of an accumulator"):
            Accumulator.from_dict({key: value for key, value in good.items() if key != name})
    assert Accumulator.from_dict(good).to_dict() == good


def test_accumulators_with_and_without_baseline_do_not_mix():
    pair, single = fl.L1Loss().accumulator(baseline=True), fl.L1Loss().accumulator()
    for a, b in ((pair, single), (single, pair)):
        with pytest.raises(
            ValueError, match=r"against a baseline.* criterion, by and baseline must"
        ):
            a.merge(b)
    with pytest.raises(TypeError, match="baseline= holds another prediction: it is required"):
        pair.update([1.0], [2.0])
    with pytest.raises(TypeError, match="baseline= holds another prediction: it is required"):
        single.update([1.0], [2.0], baseline=[1.0])
    for name in ("baseline", "difference"):
        with pytest.raises(ValueError, match="there is no baseline: pass baseline=True"):
            getattr(single, name)
    with pytest.raises(TypeError, match=r"must be True or False, got .*passed to update"):
        fl.L1Loss().accumulator(baseline=[1.0])
    assert (pair.compares, single.compares) == (True, False)
    assert "against a baseline: nan over 0 losses, difference nan ± nan" in repr(pair)


def test_an_invalid_batch_changes_nothing():
    running = fl.BCELoss().accumulator(by="group", baseline=True)
    good = {"group": ["a", "b"], "baseline": [0.5, 0.5]}
    running.update([0.5, 0.5], [0, 1], **good)
    before = running.to_dict()
    for change, message in (
        ({"baseline": [0.5, 1.5]}, r"baseline: input\[3\] = 1.5"),
        ({"baseline": [0.5]}, r"baseline has shape \(1,\), and input has shape \(2,\)"),
        ({"baseline": [[0.5], [0.5]]}, r"baseline has shape \(2, 1\), and input has shape \(2,\)"),
        ({"baseline": {"target": [1, 1]}}, "baseline is a dict of target: it may have input"),
        ({"baseline": {}}, "baseline is a dict of nothing"),
        ({"baseline": "old.npy"}, "baseline must be an array"),
        ({"group": ["a"]}, "group has shape"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            running.update([0.5, 0.5], [0, 1], **{**good, **change})
    with pytest.raises(TypeError):
        running.update([0.5, 0.5], **good)
    assert running.to_dict() == before


class Reentrant:
    """Class weights that another update uses while an update reads them."""

    def __init__(self, weights):
        self.weights, self.inner = weights, None

    def __array__(self, dtype=None, copy=None):
        inner, self.inner = self.inner, None
        if inner is not None:
            inner()
        return self.weights


@pytest.mark.parametrize("by", [None, "class"])
@pytest.mark.parametrize("action", ["update", "reset"])
def test_updates_within_an_update(by, action):
    x, y, old, weight = class_case()
    weights = Reentrant(weight)
    running = fl.CrossEntropyLoss(weight=weights).accumulator(by=by, baseline=True)
    running.update(x[:100], y[:100], baseline=old[:100])

    def inner():
        if action == "update":
            running.update(x[100:200], y[100:200], baseline=old[100:200])
        else:
            running.reset()

    weights.inner = inner
    running.update(x[200:], y[200:], baseline=old[200:])
    first = 0 if action == "update" else 200
    expected = fl.evaluate(
        fl.CrossEntropyLoss(weight=weight), x[first:], y[first:], baseline=old[first:], by=by
    )
    for got, alike in (
        (running, expected),
        (running.baseline, expected.baseline),
        (running.difference, expected.difference),
    ):
        assert got.count == alike.count == 300 - first
        assert got.value == pytest.approx(alike.value, abs=1e-13)
        assert got.stderr == pytest.approx(alike.stderr, rel=1e-9)
    if by:
        for label, got in running.difference.groups.items():
            assert got.sum == pytest.approx(expected.difference.groups[label].sum, abs=1e-13)
    assert running.rows == 300 - first
    assert pickle.loads(pickle.dumps(running))._running.groups["difference",].rows == 300 - first


def test_targets_that_change_between_input_and_baseline():
    x, y, old, weight = class_case()
    weights = Reentrant(weight)
    running = fl.CrossEntropyLoss(weight=weights).accumulator(baseline=True)

    def first():
        weights.inner = second  # by which the losses of the baseline begin

    def second():
        y[5] = -100

    weights.inner = first
    with pytest.raises(RuntimeError, match="targets or weights changed while they were read"):
        running.update(x, y, baseline=old)
    assert (running.count, running.difference.count) == (0, 0)


def test_threads_may_share_an_accumulator():
    shared = fl.L1Loss(reduction="sum").accumulator(by="group", baseline=True)
    rows = np.ones(300)

    def work(k):
        for _ in range(30):
            shared.update(3 * rows, 0.0, group=np.full(300, k % 3), baseline=rows)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (shared.value, shared.baseline.value) == (8 * 30 * 900, 8 * 30 * 300)
    assert shared.difference.value == 8 * 30 * 600
    assert shared.difference.stderr == 0
    counts = [t.count for t in shared.difference.groups.values()]
    assert counts == [3 * 9000, 3 * 9000, 2 * 9000]


# ---- invalid calls -------------------------------------------------------------------------------


X, Y = np.zeros((4, 3)), np.zeros(4, int)
BATCH = {"input": X, "target": Y}


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (
            (X, Y),
            {"baseline": X[:3]},
            ValueError,
            r"baseline has shape \(3, 3\), and input has shape \(4, 3\).*\[input: .*, baseline: ",
        ),
        ((X, Y), {"baseline": X[:, :2]}, ValueError, r"\(4, 2\), and input has shape \(4, 3\)"),
        ((X, Y), {"baseline": True}, TypeError, "baseline=True requires batches with a baseline"),
        ((X, Y), {"baseline": {"target": Y}}, TypeError, "a dict of target: it may have input"),
        ((X, Y), {"baseline": {}}, TypeError, "a dict of nothing: it may have input"),
        ((X, Y), {"baseline": "no.npy"}, FileNotFoundError, "no.npy"),
        (([BATCH],), {"baseline": X}, TypeError, "baseline holds arrays, and the data are batches"),
        (([BATCH],), {"baseline": True}, TypeError, "batch 0 is a dict of input, target: with .*"),
        (
            ([(X, Y)],),
            {"baseline": True},
            TypeError,
            "batch 0 is a tuple of 2: with baseline=True, it must be a dict of input, target and",
        ),
        (
            ([{**BATCH, "baseline": X}],),
            {},
            TypeError,
            "batch 0 has a baseline: pass baseline=True to compare its losses",
        ),
        (
            ([{**BATCH, "baseline": X[:2]}],),
            {"baseline": True},
            ValueError,
            r"baseline has shape \(2, 3\), and input has shape \(4, 3\).* \[in batch 0\]",
        ),
    ],
)
def test_invalid_calls(data, options, error, message):
    with pytest.raises(error, match=message):
        fl.evaluate(fl.cross_entropy, *data, **options)


def test_false_is_no_baseline():
    result = fl.evaluate(fl.cross_entropy, X, Y, baseline=False)
    assert (result.baseline, result.difference) == (None, None)
    assert "difference" not in result.to_dict()
    assert "difference" not in repr(result)


def test_errors_of_the_baseline_name_it_and_its_row(tmp_path):
    x, old = np.full((2, 20_000), 0.5)
    old[12_345] = 2.0
    np.save(tmp_path / "old.npy", old)
    message = r"baseline: input\[12345\] = 2.0 .*\[input: .*baseline: .*old.npy"
    with pytest.raises(ValueError, match=message):
        fl.evaluate(fl.BCELoss(), x, x, baseline=tmp_path / "old.npy", chunk_rows=1)


def test_the_file_of_the_baseline_is_not_written(tmp_path):
    x, y, old, _ = class_case()
    path = tmp_path / "old.npy"
    np.save(path, old)
    with pytest.raises(
        ValueError, match=r"per_sample names .*old.npy, which is in the same file as an array"
    ):
        fl.evaluate(fl.cross_entropy, x, y, baseline=path, per_sample=path)
    with pytest.raises(ValueError, match="state names"):
        fl.evaluate(fl.cross_entropy, x, y, baseline=path, state=path)
    target = np.zeros(300)
    criterion, ones = fl.MSELoss(), np.ones(300)
    with pytest.raises(ValueError, match=r"shares memory with an array that is read, .*baseline"):
        fl.evaluate(criterion, ones, ones, baseline=target, per_sample=target)
    batches = [{"input": ones, "target": ones, "baseline": target}]
    for data in (batches, iter(batches)):
        with pytest.raises(ValueError, match="shares memory with an array that is read, baseline"):
            fl.evaluate(criterion, data, baseline=True, per_sample=target)


def test_remarks_on_the_baseline():
    x, y, *_ = class_case()
    probabilities = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    result = fl.evaluate(fl.cross_entropy, x, y, baseline=probabilities)
    (remark,) = result.remarks
    assert remark.startswith("baseline: input looks like probabilities")


# ---- resuming ------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stopping(count):
    seen = itertools.count(1)

    def progress(done, total):
        if next(seen) > count:
            raise Stop

    return progress


@pytest.fixture
def frequent_checkpoints(monkeypatch):
    monkeypatch.setattr(evaluator, "CHECKPOINT_SECONDS", 0.0)


@pytest.mark.parametrize("by", [None, "class"])
@pytest.mark.parametrize("form", ["arrays", "files", "batches"])
def test_an_interrupted_comparison_resumes_bitwise_at_any_chunk(
    form, by, tmp_path, frequent_checkpoints
):
    x, y, old, _ = class_case(rows=9 * 1024 + 7, classes=8)
    criteria, options = [fl.CrossEntropyLoss(), fl.MultiMarginLoss()], {"by": by}
    data, options["baseline"] = (x, y), old
    if form == "files":
        for name, array in (("x", x), ("y", y), ("old", old)):
            np.save(tmp_path / f"{name}.npy", array)
        data, options["baseline"] = (tmp_path / "x.npy", tmp_path / "y.npy"), tmp_path / "old.npy"
    elif form == "batches":
        data = ([{"input": x[k::8], "target": y[k::8], "baseline": old[k::8]} for k in range(8)],)
        options["baseline"] = True
    if form != "batches":
        options["chunk_rows"] = 1
    expected = evaluated(criteria, *data, **options)
    state = tmp_path / "state.json"
    chunks = []
    fl.evaluate(criteria, *data, **options, progress=lambda done, total: chunks.append(done))
    assert len(chunks) >= 8
    for stop in range(len(chunks) - 1):
        with pytest.raises(Stop):
            fl.evaluate(criteria, *data, **options, state=state, progress=stopping(stop))
        assert json.loads(state.read_text())["position"] > 0
        got = evaluated(
            criteria, *data, **options, state=state, progress=stopping(len(chunks) - stop - 1)
        )
        assert got == expected
        assert not state.exists()


@pytest.mark.parametrize("form", ["arrays", "files", "batches"])
def test_the_state_of_another_comparison_is_refused(form, tmp_path, frequent_checkpoints):
    x, y, old, _ = class_case(rows=60_000)
    state, path = tmp_path / "state.json", tmp_path / "old.npy"

    def call(baseline, stop=None, state=state):
        if form == "batches":
            data, options = [], {"baseline": None if baseline is None else True}
            for k in range(8):
                batch = {"input": x[k::8], "target": y[k::8]}
                data.append(batch if baseline is None else {**batch, "baseline": baseline[k::8]})
            data = (data,)
        else:
            data, options = (x, y), {"baseline": baseline, "chunk_rows": 1}
            if form == "files" and baseline is not None:
                np.save(path, baseline)
                options["baseline"] = path
        progress = False if stop is None else stopping(stop)
        return fl.evaluate(fl.CrossEntropyLoss(), *data, state=state, progress=progress, **options)

    other = old.copy()
    other[0] += 1
    for first, second, message in (
        (None, old, "baseline was false and is true"),
        (old, None, "baseline was true and is false"),
        (
            old,
            other,
            "batch 0 is not the one"
            if form == "batches"
            else r"data was .*\"baseline\": .* and is",
        ),
    ):
        with pytest.raises(Stop):
            call(first, stop=2)
        saved = state.read_bytes()
        with pytest.raises(ValueError, match=message):
            call(second)
        assert state.read_bytes() == saved
        state.unlink()


CHILD = """
import sys
import fastloss as fl
from fastloss.evaluation import evaluator
evaluator.CHECKPOINT_SECONDS, evaluator.CHECKPOINT_FRACTION = 0.0, 1.0
folder = sys.argv[1]
result = fl.evaluate(
    fl.CrossEntropyLoss(), f"{folder}/x.npy", f"{folder}/y.npy", baseline=f"{folder}/old.npy",
    by="class", state=f"{folder}/state.json", chunk_rows=1,
    progress=lambda done, total: (print(done, flush=True), sys.stdin.readline()),
)
print(result.accumulator.to_json())
"""


@pytest.mark.complete_only
def test_a_killed_comparison_resumes_bitwise(tmp_path):
    x, y, old, _ = class_case(rows=24 * 1024, classes=8)
    for name, array in (("x", x), ("y", y), ("old", old)):
        np.save(tmp_path / f"{name}.npy", array)

    def start():
        command = [sys.executable, "-c", CHILD, str(tmp_path)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def finish():
        child = start()
        *chunks, state = child.communicate("\n" * 10_000)[0].splitlines()
        assert child.returncode == 0
        return len(chunks), state

    chunks, expected = finish()
    whole = fl.evaluate(fl.CrossEntropyLoss(), x, y, baseline=old, by="class")
    assert whole.accumulator.to_json() == expected
    rng = random.Random(0)
    for _ in range(3):
        child = start()
        for _ in range(rng.randint(2, chunks - 1)):  # a chunk is reported, then saved
            child.stdout.readline()
            child.stdin.write("\n")
            child.stdin.flush()
        child.kill()
        child.communicate()
        assert child.returncode == -signal.SIGKILL
        remaining, got = finish()
        assert got == expected
        assert remaining < chunks


# ---- Dask ----------------------------------------------------------------------------------------


@pytest.fixture
def da():
    dask = pytest.importorskip("dask")
    array = pytest.importorskip("dask.array")
    with dask.config.set(scheduler="threads", num_workers=2):
        yield array


@pytest.mark.parametrize("by", [None, "class", "labels"])
def test_dask(by, da):
    x, y, old, weight = class_case(rows=211)
    labels = y % 2 if by == "labels" else by
    criterion = fl.CrossEntropyLoss(weight=weight)
    expected = fl.evaluate(criterion, x, y, baseline=old, by=labels)
    chunks = (50, 1, 0, 90, 70)
    data = [da.from_array(a, chunks=(chunks, *[-1] * (a.ndim - 1))) for a in (x, y)]
    for baseline in (
        old,
        da.from_array(old, chunks=(chunks, -1)),
        da.from_array(old, chunks=(64, 2)),  # in other blocks
    ):
        got = fl.evaluate(criterion, *data, baseline=baseline, by=labels)
        size = expected.sum + expected.baseline.sum
        for mine, alike in (
            (got, expected),
            (got.baseline, expected.baseline),
            (got.difference, expected.difference),
        ):
            assert abs(mine.sum - alike.sum) <= SUM_TOLERANCE * size
            assert mine.stderr == pytest.approx(alike.stderr, rel=1e-9)
            assert (mine.count, mine.groups is None) == (alike.count, by is None)
        if by:
            for label, mine in got.difference.groups.items():
                alike = expected.difference.groups[label]
                assert abs(mine.sum - alike.sum) <= SUM_TOLERANCE * size
        assert got.bytes >= expected.bytes
    only = fl.evaluate(criterion, x, y, baseline=da.from_array(old, chunks=(100, -1)))
    assert abs(only.difference.sum - expected.difference.sum) <= SUM_TOLERANCE * size
    for wrong in (old[:210], old[:, :4]):
        with pytest.raises(
            ValueError, match=r"baseline has shape .* and input has shape \(211, 5\)"
        ):
            fl.evaluate(criterion, *data, baseline=da.from_array(wrong, chunks=(chunks[0], -1)))


def test_delayed_batches(da):
    import dask

    x, y, old, _ = class_case(rows=100)
    expected = fl.evaluate(fl.CrossEntropyLoss(), x, y, baseline=old)

    @dask.delayed
    def batch(k):
        return {"input": x[k::4], "target": y[k::4], "baseline": old[k::4]}

    got = fl.evaluate(fl.CrossEntropyLoss(), [batch(k) for k in range(4)], baseline=True)
    assert got.difference.value == pytest.approx(expected.difference.value, abs=1e-14)
    assert got.difference.stderr == pytest.approx(expected.difference.stderr, rel=1e-9)
    with pytest.raises(TypeError, match="batch 0 has a baseline: pass baseline=True"):
        fl.evaluate(fl.CrossEntropyLoss(), [batch(0)])


# ---- display and command line --------------------------------------------------------------------


def test_display_and_json():
    x, y, old, _ = class_case()
    result = fl.evaluate(fl.CrossEntropyLoss(), x, y, baseline=old, by="class")
    difference = result.difference
    lines = dict(line.split(None, 1) for line in repr(result).splitlines()[:4])
    assert lines["baseline"] == f"{result.baseline.value!r} ± {result.baseline.stderr:.2g}"
    assert lines["difference"] == (
        f"{difference.value!r} ± {difference.stderr:.2g}, z = {difference.z:.3g}"
    )
    head = ["value", "stderr", "baseline", "difference", "stderr", "z", "losses"]
    assert head in [line.split() for line in repr(result).splitlines()]
    assert f"<td>{difference.groups[3].value!r}</td>" in result._repr_html_()
    assert f"<td>difference</td><td>{difference.value!r} ±" in result._repr_html_()
    figures = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert figures["difference"]["z"] == difference.z
    assert figures["difference"]["groups"][3] == {
        "label": 3,
        **{
            name: getattr(difference.groups[3], name)
            for name in ("value", "stderr", "sum", "weight", "count", "z")
        },
    }
    assert figures["baseline"]["groups"][0]["value"] == result.baseline.groups[0].value
    equal = fl.evaluate(fl.CrossEntropyLoss(), x, y, baseline=x)
    assert equal.to_dict()["difference"]["z"] == "NaN"


@pytest.fixture
def files(tmp_path):
    x, y, old, _ = class_case()
    for name, array in (("new", x), ("labels", y), ("old", old)):
        np.save(tmp_path / f"{name}.npy", array)
    return [str(tmp_path / f"{name}.npy") for name in ("new", "labels", "old")]


def run(capsys, *argv):
    status = cli.main(["evaluate", *argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_command_line(files, capsys):
    new, labels, old = files
    expected = fl.evaluate(fl.cross_entropy, new, labels, baseline=old, by="class")
    status, out, err = run(
        capsys, "cross_entropy", new, labels, "--baseline", old, "--by", "class", "--perplexity"
    )
    assert (status, err) == (0, "")
    lines = dict(line.split("  ", 1) for line in out.split("\n\n")[0].splitlines())
    lines = {name: text.strip() for name, text in lines.items()}
    assert lines["baseline"] == repr(expected.baseline.value)
    assert lines["baseline stderr"] == f"{expected.baseline.stderr:.3g}"
    assert lines["difference"] == repr(expected.difference.value)
    assert lines["difference stderr"] == f"{expected.difference.stderr:.3g}"
    assert lines["z"] == f"{expected.difference.z:.3g}"
    assert float(lines["baseline perplexity"]) == np.exp(expected.baseline.value)
    table = [line.split() for line in out.split("\n\n")[1].splitlines()]
    assert table[0][-4:] == ["difference", "difference", "stderr", "z"]
    assert table[1][-3] == repr(expected.difference.groups[0].value)


def test_command_line_json(files, capsys):
    new, labels, old = files
    names = "cross_entropy,multi_margin_loss"
    status, out, _ = run(capsys, names, new, labels, "--baseline", old, "--json", "--by", "class")
    assert status == 0
    for loss, figures in zip(names.split(","), json.loads(out), strict=True):
        expected = fl.evaluate(getattr(fl, loss), new, labels, baseline=old, by="class").to_dict()
        for part in ("value", "groups", "baseline", "difference"):
            assert figures[part] == expected[part]
    status, out, _ = run(
        capsys, "cross_entropy", new, labels, "--baseline", old, "--json", "--perplexity"
    )
    baseline = json.loads(out)["baseline"]
    assert baseline["perplexity"] == math.exp(baseline["value"])
    status, out, _ = run(capsys, names, new, labels, "--baseline", old)
    assert out.count(repr(figures["difference"]["value"])) == 1
    status, out, _ = run(capsys, "cross_entropy", new, labels, "--json")
    assert "baseline" not in json.loads(out)


def test_command_line_with_several_predictions(tmp_path, capsys):
    rng = np.random.default_rng(0)
    arrays = {name: rng.uniform(0.5, 2, (20, 4)) for name in "abcdef"}
    arrays["sign"] = rng.choice([-1.0, 1.0], 20)
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    a, b, c, d, e, sign = (str(tmp_path / f"{name}.npy") for name in [*"abcde", "sign"])
    for argv, operands in (
        (
            ["gaussian_nll_loss", a, b, c, "--baseline", d, "--baseline-var", e],
            "dbe",
        ),
        (["gaussian_nll_loss", a, b, c, "--baseline-var", e], "abe"),
        (["gaussian_nll_loss", a, b, c, "--baseline", d], "dbc"),
        (["triplet_margin_loss", a, b, c, "--baseline", d, "--baseline-negative", e], "dbe"),
        (["cosine_embedding_loss", a, b, sign, "--baseline-input2", e], ["a", "e", "sign"]),
    ):
        status, out, err = run(capsys, *argv, "--json")
        assert (status, err) == (0, "")
        expected = getattr(fl, argv[0])(*(arrays[name] for name in operands))
        assert json.loads(out)["baseline"]["value"] == expected


def test_command_line_errors(files, capsys, tmp_path):
    new, labels, old = files
    status, _, err = run(capsys, "cross_entropy", new, labels, "--baseline", labels)
    assert status == 2
    assert "baseline has shape (300,), and input has shape (300, 5)" in err
    status, _, err = run(capsys, "cross_entropy", new, labels, "--baseline", "absent.npy")
    assert (status, err) == (2, "fastloss: error: absent.npy: No such file or directory\n")
    status, _, err = run(capsys, "triplet_margin_loss", new, new, new, "--baseline", old)
    assert status == 2
    assert "triplet_margin_loss reads 3 predictions" in err
