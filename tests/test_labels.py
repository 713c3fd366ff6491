"""Labels of groups: integers of any dtype and size, encoded as by a dict."""

import numpy as np
import pytest

import fastloss as fl
from fastloss._labels import encode_labels

INTEGERS = [np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)]


def label_sets():
    """Labels of each dtype: few and many, dense and far apart, at both ends of its range."""
    rng = np.random.default_rng(0)
    for dtype in INTEGERS:
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        starts = {low, -3, 0, 2**31 - 4, 2**63 - 4, 2**63, high - 9}
        for start in sorted(start for start in starts if low <= start <= high - 9):
            for width in (1, 9, 5000, 2**40, 2**64):
                last = min(start + width, high)
                for count in (0, 1, 7, 6000):
                    offsets = rng.integers(0, last - start, count, np.uint64, endpoint=True)
                    labels = [start + int(offset) for offset in offsets]
                    yield pytest.param(labels, dtype, id=f"{dtype}-{start}-{width}-{count}")


@pytest.mark.parametrize(("labels", "dtype"), list(label_sets()))
def test_labels_are_encoded_as_by_a_dict(labels, dtype):
    for order in "<>":
        array = np.array(labels, dtype).astype(dtype.newbyteorder(order))
        distinct, codes = encode_labels(array)
        assert distinct.tolist() == sorted(set(labels))
        assert [distinct.tolist()[code] for code in codes[:100].tolist()] == labels[:100]
        np.testing.assert_array_equal(distinct[codes], array)
        assert codes.dtype == np.int64
    assert array.tolist() == labels


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_groups_by_integers_of_every_dtype(dtype, far, weighted):
    high = int(np.iinfo(dtype).max)
    names = [0, high - 1, high] if far else [high - 2, high - 1, high]
    index = np.array([0, 2, 1, 1, 0, 2, 2])
    labels = np.array([names[k] for k in index], dtype)
    x = np.arange(7.0)
    weight = np.array([1.0, 0, 2, 1, 1, 1, 0]) if weighted else np.ones(7)
    expected = {
        name: np.sum((x * weight)[index == k]) / np.sum(weight[index == k])
        for k, name in enumerate(names)
    }
    by_rows = fl.evaluate(fl.l1_loss, x, 0.0, sample_weight=weight, by=labels)
    batches = [
        {"input": x[p], "target": 0.0, "sample_weight": weight[p], "group": labels[p]}
        for p in (slice(0, 3), slice(3, 7))
    ]
    by_batches = fl.evaluate(fl.l1_loss, batches, by="group")
    read_again = fl.Accumulator.from_json(by_batches.accumulator.to_json())
    for groups in (by_rows.groups, by_batches.groups, read_again.groups):
        assert {name: totals.value for name, totals in groups.items()} == pytest.approx(expected)
        assert set(groups) == set(names)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_classes_of_every_dtype(dtype):
    labels = np.array([0, 2, 1, 1, 0, 2, 2], dtype)
    x = np.random.default_rng(0).normal(size=(7, 3))
    losses = fl.cross_entropy(x, labels, reduction="none")
    groups = fl.evaluate(fl.cross_entropy, x, labels, by="class").groups
    for k in range(3):
        assert groups[k].value == pytest.approx(losses[labels == k].mean(), rel=1e-14)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_classes_of_floating_targets(dtype):
    """With entries that are removed, whatever they hold, among thousands of targets."""
    dtype = getattr(pytest.importorskip("ml_dtypes"), dtype) if dtype == "bfloat16" else dtype
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, 4001).astype(dtype)
    weight = rng.integers(0, 2, 4001).astype(np.float64)
    target[np.flatnonzero(weight == 0)[:9]] = np.nan
    for n in rng.integers(1, 4001, 1000):  # a conversion that reads beyond its memory crashes
        fl.BCELoss().accumulator(by="class").update(
            np.full(n, 0.25), target[:n].copy(), sample_weight=weight[:n]
        )
    total = fl.BCELoss().accumulator(by="class")
    total.update(np.full(4001, 0.25), target, sample_weight=weight)
    for label, group in total.groups.items():
        assert group.count == np.sum((target.astype(float) == label) & (weight == 1))
        assert group.value == pytest.approx(-np.log(0.25 if label else 0.75), rel=1e-14)
