"""Margin losses of classes: kinks, long rows, many labels, invalid labels."""

import functools
from fractions import Fraction

import numpy as np
import pytest

import fastloss as fl
from tests.drawn_case import TILE, floats

AT_THE_MARGIN = [1, 0, 2]  # class 1 is exactly the margin of 1 below class 0


@floats
def test_multi_margin_at_the_margin(dtype, isa):
    gradient = fl.multi_margin_loss.grad(np.array(AT_THE_MARGIN, dtype), 0)
    assert gradient.tolist() == pytest.approx([-1 / 3, 0, 1 / 3], rel=1e-6)


@floats
def test_multilabel_margin_at_the_margin(dtype, isa):
    labels = np.array([0, -1, -1])
    gradient = fl.multilabel_margin_loss.grad(np.array(AT_THE_MARGIN, dtype), labels)
    assert gradient.tolist() == pytest.approx([-1 / 3, 0, 1 / 3], rel=1e-6)


def test_mean_of_terms_whose_sum_overflows(each_isa):
    """The loss divides the sum over classes, which overflows, by their number."""
    big = 1.7e308
    x, labels = np.array([[0, big, big, big]]), np.array([[0, -1, -1, -1]])
    for _ in each_isa():
        assert fl.multi_margin_loss(x, [0]) == pytest.approx(big / 4 * 3)
        assert fl.multilabel_margin_loss(x, labels) == pytest.approx(big / 4 * 3)
        long = np.repeat(x, 600, axis=1)
        assert fl.multilabel_soft_margin_loss(x, 0 * x) == pytest.approx(big / 4 * 3)
        assert fl.multilabel_soft_margin_loss(long, 0 * long) == pytest.approx(big / 4 * 3)
        value, gradient = fl.multilabel_soft_margin_loss.value_and_grad(x, 0 * x, out=x.copy())
        assert value == pytest.approx(big / 4 * 3)
        assert gradient.max() == 1 / 4


@pytest.mark.parametrize("classes", [4, 300, 3000])
@pytest.mark.parametrize("layout", ["contiguous", "strided", "out"])
def test_gradient_of_squares_that_overflow(classes, layout, each_isa):
    """z^2 and the sum of 2 z overflow; w/C 2 z, w/C times the sum, and w/C z^2 need not."""
    big, weight = 1.7e308, np.full(classes, 1e-310)
    x = np.where(np.arange(classes) % 2, big, -big)[None]
    x = x if layout != "strided" else np.asfortranarray(x.repeat(2, axis=0))[:1]
    expected = np.where(np.arange(classes) % 2, big / classes * 4, 2 / classes)
    expected[0] = -np.inf
    loss = fl.multi_margin_loss
    for _ in each_isa():
        copy = x.copy()
        gradient = loss.grad(copy, [0], p=2, out=copy if layout == "out" else None)
        np.testing.assert_allclose(gradient[0], expected, rtol=1e-15)
        value, gradient = loss.value_and_grad(x, [0], p=2, weight=weight, reduction="none")
        assert value[0] == pytest.approx(big * 1e-310 * big * 2, rel=1e-10)
        assert gradient[0, 0] == pytest.approx(-2e-310 * big, rel=1e-10)
        np.testing.assert_allclose(gradient[0, 1:], expected[1:] * 1e-310, rtol=1e-10, atol=5e-324)


@floats
@pytest.mark.parametrize("rows", [1, 3])
def test_multilabel_margin_of_long_rows(rows, dtype, isa):
    """Rows of up to a tile are on the stack."""
    tile = TILE[dtype]
    for classes in (tile - 1, tile, tile + 1, 2 * tile - 1, 2 * tile, 3 * tile, 5 * tile):
        x = np.random.default_rng(classes).integers(-3, 4, (rows, classes)).astype(dtype)
        labels = np.full((rows, classes), -1)
        labels[:, :2] = classes - 1, 5
        rest = np.delete(x, (5, classes - 1), axis=1)
        z = 1 - x[:, labels[0, :2], None].astype(float) + rest[:, None, :]
        value, gradient = fl.multilabel_margin_loss.value_and_grad(x, labels, reduction="none")
        np.testing.assert_allclose(value, np.maximum(z, 0).sum((1, 2)) / classes, rtol=1e-6)
        assert gradient[:, 5] * classes == pytest.approx(-(z[:, 1] > 0).sum(1), rel=1e-6)
        np.testing.assert_allclose(
            np.delete(gradient, (5, classes - 1), axis=1) * classes, (z > 0).sum(1), rtol=1e-6
        )


# ---- many labels, which are sorted ---------------------------------------------------------------

INF, NAN = np.inf, np.nan


def scores(kind, rng, classes, dtype):
    largest = float(np.finfo(dtype).max)
    x = {
        "normal": lambda: rng.normal(size=classes) * 3,
        "ties": lambda: rng.integers(-3, 4, classes) / 2,
        "near 1e8": lambda: 1e8 + rng.integers(-20, 20, classes) / 8,
        "up to 1e8": lambda: rng.normal(size=classes) * 1e8,
        "all scales": lambda: rng.normal(size=classes) * 10.0 ** rng.integers(-37, 37, classes),
        "equal": lambda: np.full(classes, largest / 2),
        "huge": lambda: rng.choice([1, -1], classes) * largest * rng.uniform(1e-8, 1e-7, classes),
        "largest": lambda: rng.choice([1, 1, 0, -1], classes) * largest,
        "near the margin": lambda: np.nextafter(
            rng.integers(0, 4, classes).astype(dtype), dtype(rng.choice([-9, 9]))
        ),
    }[kind]()
    return x.astype(dtype)


KINDS = ("normal", "ties", "near 1e8", "up to 1e8", "all scales")
KINDS += ("equal", "huge", "largest", "near the margin")


def exactly(x, labels):
    """C l and C dl/dx by the definition, in integers: multiples of 2^-1074."""
    unit = 2**1074
    n = [int(Fraction(float(v)) * unit) for v in x]
    others = [k for k in range(len(n)) if k not in set(labels)]
    total, slope = 0, [0] * len(n)
    for j in labels:
        z = [unit - n[j] + n[k] for k in others]
        total += sum(v for v in z if v > 0)
        slope[j] -= sum(v > 0 for v in z)
        for k, v in zip(others, z, strict=True):
            slope[k] += v > 0
    return Fraction(total, unit), slope


@functools.cache
def rows_of_many_labels(dtype):
    """(scores, list of labels, C l, C dl/dx)"""
    rng = np.random.default_rng(0)
    rows = []
    for classes in (1, 2, 17, 150, 300, 2000):
        for kind in KINDS:
            x = scores(kind, rng, classes, dtype)
            for part in (1 / 8, 1 / 2, 1) if classes < 2000 else (1 / 16,):
                labels = round(part * classes)
                distinct = rng.random() < 0.7
                y = rng.permutation(classes) if distinct else rng.integers(0, classes, classes)
                y = y[:labels].tolist()
                rows.append((kind, x, y, *exactly(x, y)))
    return rows


def ended(labels, classes):
    """The list, ended by -1; what follows is not read."""
    return np.array([*labels, -1, *[0] * classes][:classes])


@floats
def test_multilabel_margin_of_many_labels(dtype, each_isa):
    """The value to the contract's 4 ULP of itself, whatever cancels; the counts exactly."""
    end = float(np.finfo(dtype).max)
    for _ in each_isa():
        for kind, x, labels, total, slope in rows_of_many_labels(dtype):
            loss, classes = fl.multilabel_margin_loss, len(x)
            y = ended(labels, classes)
            value, gradient = loss.value_and_grad(x, y, reduction="none")
            exact, where = total / classes, (kind, classes, len(labels))
            if exact > Fraction(end):
                assert value == INF or exact - Fraction(end) < exact / 10**6, where
            elif exact:
                error = abs(Fraction(float(value)) - exact)
                assert error <= 4 * Fraction(float(np.spacing(dtype(float(exact))))), where
            else:
                assert value == 0, where
            factor = 1 / classes
            np.testing.assert_array_equal(gradient, [dtype(factor * n) for n in slope], str(where))


@floats
@pytest.mark.parametrize("classes", [300, 700])
def test_multilabel_margin_of_many_labels_has_the_same_bits(dtype, classes, each_isa):
    rng = np.random.default_rng(classes)
    x = rng.normal(size=(60, classes)).astype(dtype) * 3
    y = np.array([ended(rng.permutation(classes)[: 7 * i], classes) for i in range(60)])
    loss = fl.multilabel_margin_loss
    for _ in each_isa():
        value, gradient = loss.value_and_grad(x, y, reduction="none")
        for threads in (1, 2, 3):
            with fl.num_threads(threads):
                assert loss(x, y, reduction="none").tobytes() == value.tobytes()
                again = loss.value_and_grad(x[::-1], y[::-1], reduction="none")
                assert again[0][::-1].tobytes() == value.tobytes()
                assert again[1][::-1].tobytes() == gradient.tobytes()
        for i in range(60):
            assert loss(x[i], y[i]) == value[i]
            assert loss.grad(x[i], y[i]).tobytes() == gradient[i].tobytes()


@floats
@pytest.mark.parametrize(
    ("of_labels", "of_others"),
    [
        ((), (INF,)),
        ((), (-INF, -INF)),
        ((INF, INF), ()),
        ((-INF, -INF), ()),
        ((-INF,), (INF,)),
        ((INF,), (-INF, -INF)),
        ((INF, -INF), (1e30, -1e30)),
        ((INF, INF), (INF,)),
        ((-INF,), (-INF,)),
        ((INF, -INF), (INF, -INF)),
        ((NAN,), ()),
        ((), (NAN,)),
    ],
)
def test_multilabel_margin_of_many_labels_with_infinities(dtype, of_labels, of_others, each_isa):
    """As the definition has it in IEEE 754."""
    classes, labels = 400, 150
    x = np.random.default_rng(0).integers(-9, 9, classes).astype(dtype)
    x[: len(of_labels)] = of_labels
    x[labels : labels + len(of_others)] = of_others
    with np.errstate(invalid="ignore"):
        z = 1 - x[:labels, None].astype(float) + x[None, labels:].astype(float)
    total = z[~(z <= 0)].sum()
    slope = np.concatenate([-(z > 0).sum(1), (z > 0).sum(0)]) / classes
    slope = slope if total == total else slope * NAN
    if np.isnan(x).any():
        total, slope = NAN, slope * NAN
    for _ in each_isa():
        loss, y = fl.multilabel_margin_loss, ended(range(labels), classes)
        value, gradient = loss.value_and_grad(x, y)
        assert value == pytest.approx(total / classes, rel=1e-6, nan_ok=True)
        assert loss(x, y) == value or total != total
        np.testing.assert_allclose(gradient, slope, rtol=1e-6)


@floats
def test_multilabel_margin_reads_nothing_at_an_invalid_label(dtype, isa):
    """No row with an invalid label is computed, which would write far from its memory."""
    for label in (2**62, -(2**62), 10**9, 3):
        labels = np.array([[0, -1, -1], [1, label, -1]])
        for loss in (fl.multilabel_margin_loss, fl.multilabel_margin_loss.sums):
            with pytest.raises(IndexError, match=rf"target\[1, 1\] = {label}"):
                loss(np.ones((2, 3), dtype), labels)
