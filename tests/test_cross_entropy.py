"""Cross entropy: long rows, alone and in parts on several threads, and limits."""

import numpy as np
import pytest
from mpmath import mp

import fastloss as fl
from tests.bitwise import assert_bitwise
from tests.drawn_case import floats


def test_smoothing_of_far_logits(isa):
    """Their distance is beyond float32, the loss is not: 0.01 of five distances of 6e38."""
    x = np.array([[3e38, -3e38] * 5], np.float32)
    exact = 0.01 * 5 * 2 * float(x[0, 0])
    assert fl.cross_entropy(x, [0], label_smoothing=0.1) == pytest.approx(exact, rel=1e-6)


def test_probabilities_of_no_classes(isa):
    assert fl.cross_entropy(np.zeros((3, 0)), np.zeros((3, 0))) == 0


@floats
@pytest.mark.parametrize("classes", [512, 50_257, 1 << 20])
def test_long_rows(classes, dtype):
    """Equal logits but one: sum and gradient are known, whatever rounding exp has."""
    lead = dtype(0.75)
    x = np.zeros((1, classes), dtype)
    x[0, 5] = lead
    value, gradient = fl.cross_entropy.value_and_grad(x, np.array([0]))
    ratio = mp.mpf(float(fl._binding.math("exp", np.array([-lead]))[0]))  # each of the others
    others = 1 + (classes - 1) * ratio
    assert abs(gradient[0, 1] / float(ratio / others) - 1) <= 2 * np.finfo(dtype).eps
    exact = float(mp.log(others)) + float(lead)
    assert abs(value / exact - 1) <= 4 * np.finfo(dtype).eps


def softmax_loss(x, q, dq):
    """-Σ q log softmax(x) of one row in extended precision, its gradients along x and, for
    dq = ∂q_c/∂y_c, along y, and the terms of which that along x is the difference. A class
    without q adds nothing."""
    x, q = x.astype(np.longdouble), q.astype(np.longdouble)
    below = x.max() - x
    e = np.exp(-below)
    rest = np.delete(e, e.argmax()).sum()
    surprise = below + np.log1p(rest)
    value = np.where(q == 0, 0, q * np.where(q == 0, 0, surprise)).sum()
    others = q.sum() - q
    top = rest + 1 - e
    slopes_y = dq * np.where(np.equal(dq, 0), 0, surprise)
    pull, push = e * others / (1 + rest), q * top / (1 + rest)
    return value, pull - push, slopes_y, pull + push


def rising(rng, classes):
    """Maxima that come later and later, by steps that float32 holds."""
    return np.arange(classes) * 2.0**-10


def falling(rng, classes):
    return rising(rng, classes)[::-1]


def late(rng, classes):
    """Nothing for long, then a little, the largest at the very end."""
    x = rng.integers(-600, 600, classes) / 64
    x[:9000] = -np.inf
    x[-1] = 17.5
    return x


@floats
@pytest.mark.parametrize("smoothing", [0.0, 0.25])
@pytest.mark.parametrize("classes", [4097, 40_003, 140_001])
@pytest.mark.parametrize("logits", [rising, falling, late])
def test_sums_move_to_a_higher_maximum(logits, classes, smoothing, dtype, each_isa):
    """Long rows go in pieces, each under the largest logit so far."""
    rng = np.random.default_rng(classes)
    x = logits(rng, classes).astype(dtype)[np.newaxis]
    y, label = rng.random((1, classes)).astype(dtype), np.array([classes // 2])
    y[0, :9000] = 0
    w = rng.integers(0, 5, classes).astype(dtype)
    w[:9000] = 0  # of an infinite loss, with smoothing
    one = np.arange(classes) == label
    keywords = {"weight": w, "label_smoothing": smoothing, "reduction": "sum"}
    eps = float(np.finfo(dtype).eps)
    lost = float(np.finfo(dtype).smallest_subnormal)  # of an exponential that underflows
    for _ in each_isa():
        q = w * ((1 - smoothing) * one + smoothing / classes)
        value, slopes, _, terms = softmax_loss(x[0], q, 0)
        number, dx = fl.cross_entropy.value_and_grad(x, label, **keywords)
        assert abs(number - value) <= 8 * eps * value
        assert (abs(dx[0] - slopes) <= 8 * eps * terms + lost * q.sum()).all()

        q = w * ((1 - smoothing) * y[0].astype(float) + smoothing / classes)
        value, slopes, targets, terms = softmax_loss(x[0], q, (1 - smoothing) * w)
        number, (dx, dy) = fl.cross_entropy.value_and_grad(
            x, y, wrt=("input", "target"), **keywords
        )
        finite = np.isfinite(x[0])
        assert abs(number - value) <= 8 * eps * value
        assert (abs(dx[0] - slopes) <= 8 * eps * terms + lost * q.sum()).all()
        assert (abs(dy[0] - targets)[finite] <= 8 * eps * targets[finite]).all()


@pytest.mark.parametrize(("rows", "classes"), [(1, 140_003), (3, 50_003)])
@pytest.mark.parametrize("kind", ["labels", "smoothed", "probabilities"])
@floats
def test_long_rows_in_parts_have_the_bits_of_whole_ones(kind, rows, classes, dtype):
    """Fewer than the threads, their parts are computed side by side."""
    rng = np.random.default_rng(rows)
    x = (rng.standard_normal((rows, classes)) * 3).astype(dtype)
    y = rng.integers(0, classes, rows)
    y[-1] = classes - 1
    keywords = {"weight": rng.random(classes).astype(dtype)}
    if kind == "smoothed":
        keywords["label_smoothing"] = 0.1
    if kind == "probabilities":
        y = rng.random((rows, classes)).astype(dtype)
    upstream, sample_weight = rng.normal(size=(2, rows)) ** 2
    loss = fl.cross_entropy

    def results():
        inside = x.copy()
        loss.grad(inside, y, **keywords, out=inside)
        both = {"wrt": ("input", "target")} if kind == "probabilities" else {}
        return (
            inside,
            loss(x, y, **keywords, reduction="none"),
            loss(x, y, **keywords, sample_weight=sample_weight),
            loss.grad(x, y, **keywords, **both),
            loss.value_and_grad(x, y, **keywords, reduction="none", grad_output=upstream),
            loss.value_and_grad(x.astype(np.float16), y, **keywords),
            loss.sums(x, y, **keywords, sample_weight=sample_weight),
        )

    with fl.num_threads(1):
        expected = results()
    for threads in (2, 5):
        with fl.num_threads(threads):
            assert_bitwise(results(), expected, f"{threads} threads")


@pytest.mark.parametrize("rows", [1, 3])
@floats
def test_long_rows_in_parts_have_the_errors_of_whole_ones(rows, dtype):
    classes, last = 50_003, rows - 1
    x = np.zeros((rows, classes), dtype)
    y = np.full((rows, classes), 0.5, dtype)
    y[last, [17_000, 40_000]] = -1
    label = np.full(rows, 5)
    label[last] = classes
    loss = fl.cross_entropy
    for call in (loss, loss.grad, loss.value_and_grad):
        for target, place in ((y, rf"target\[{last}, 17000\]"), (label, rf"target\[{last}\]")):
            messages = set()
            for threads in (1, 2, 5):
                with fl.num_threads(threads), pytest.raises(ValueError, match=place) as error:
                    call(x, target)
                messages.add(str(error.value))
            assert len(messages) == 1


def test_long_rows_in_place_side_by_side():
    """The label's logit is read before another thread writes the gradient there."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((3, 1_000_000), dtype=np.float32)
    for trial in range(8):
        labels = np.array([5, 65541, 70_000 + 16384 * trial])
        out = x.copy()
        with fl.num_threads(4):
            value, _ = fl.cross_entropy.value_and_grad(out, labels, out=out)
        assert value == fl.cross_entropy(x, labels)
