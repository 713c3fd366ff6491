"""Cross entropy: limits, long rows, and rows that several threads split."""

import math
import time

import numpy as np
import pytest
from mpmath import mp

import fastloss as fl
from tests import references
from tests.bitwise import assert_bitwise
from tests.drawn_case import floats


def test_label_smoothing_of_distant_logits(isa):
    """The loss is finite although the logits differ by 6e38, which overflows in float32.

    Five of ten classes are that far below the label, each with a smoothed probability of 0.01.
    """
    x = np.array([[3e38, -3e38] * 5], np.float32)
    exact = 0.01 * 5 * 2 * float(x[0, 0])
    assert fl.cross_entropy(x, [0], label_smoothing=0.1) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("repeats", [5, 200, 40_000])
def test_gaps_between_floats_that_overflow(repeats, threads, isa):
    """Gaps of 6e38, which no float holds, of which the loss has a tenth."""
    x = np.array([[3e38, -3e38] * repeats], np.float32)
    exact = 0.05 * 2 * float(x[0, 0])  # half of the classes are below, of smoothed weight 0.1
    probabilities = (np.where(x > 0, 0.95, 0.05) / repeats).astype(np.float32)
    with fl.num_threads(threads):
        assert fl.cross_entropy(x, [0], label_smoothing=0.1) == pytest.approx(exact, rel=1e-6)
        assert fl.cross_entropy(x, probabilities) == pytest.approx(exact, rel=1e-6)
        x[0, 1] = -np.inf
        assert fl.cross_entropy(x, probabilities) == np.inf
        probabilities[0, 1] = 0
        exact = (repeats - 1) * float(probabilities[0, 3]) * 2 * float(x[0, 0])
        assert fl.cross_entropy(x, probabilities) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("scale", [1, 1e-42, 3e37])
@pytest.mark.parametrize("grad_output", [1, 1e-42, 1e30])
@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize("kind", ["label", "one", "close", "drawn"])
def test_gradients_of_rows_keep_their_bound(kind, smoothing, grad_output, scale, each_isa):
    """Rows whose gradients are formed in float, at the ends of the range of their factors too."""
    if kind == "label" and scale != 1:
        return  # a class index has no scale
    rng = np.random.default_rng(0)
    classes, rows = 270, 3
    x = (rng.standard_normal((rows, classes)) * [[0.3], [3], [20]]).astype(np.float32)
    x[1, 7] = 40  # and 100 below it is a probability near the smallest float
    x[1, 8] = -60
    drawn = {
        "one": np.eye(classes)[[3, 7, 100]],
        "close": np.exp(x - x.max(1, keepdims=True).astype(float)),
        "drawn": rng.random((rows, classes)) ** 4,
    }
    target = np.array([0, 7, 100])
    if kind != "label":
        target = drawn[kind] / drawn[kind].sum(1, keepdims=True)
        target = (target * scale).astype(np.float32)
    options = {"label_smoothing": smoothing, "reduction": "none"}
    upstream = np.full(rows, grad_output)
    exact = references.reduced("cross_entropy", (x, target), options | {"grad_output": upstream})
    grad = fl.cross_entropy.grad(x, target, grad_output=upstream, **options)
    assert references.excess(grad, exact[1]["input"], np.float32).max() <= 1


@pytest.mark.parametrize("classes", [10, 300])
def test_gradients_of_confident_probabilities(classes, each_isa):
    """dl/dx_j = (e_j Σ q_c - q_j Σ e_c)/S, sums over the other classes, however small they are."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, classes)).astype(np.float32)
    x[:, 3] += 15
    target = rng.random((20, classes)) * 1e-5
    target[:, 3] = 1 - target[:, 4:].sum(1)
    target = target.astype(np.float32)
    grad = fl.cross_entropy.grad(x, target, reduction="none")
    for row in range(len(x)):
        e, q = np.exp(x[row].astype(float) - x[row, 3]), target[row].astype(float)
        for j in range(classes):
            terms = e[j] * math.fsum(np.delete(q, j)), q[j] * math.fsum(np.delete(e, j))
            terms = np.array(terms) / math.fsum(e)
            bound = 16 * np.spacing(np.float32(terms.max()))  # exponents of 20 included
            assert abs(float(grad[row, j]) - (terms[0] - terms[1])) <= bound


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("repeats", [5, 40_000])
def test_gaps_between_doubles_that_overflow(repeats, threads, isa):
    """Gaps of 3.4e308, of which the loss has a fraction."""
    x = np.array([[1.7e308, -1.7e308] * repeats])
    half = 2 * (1.7e308 * 0.05)  # half of the classes are a gap below, of smoothed weight 0.1
    probabilities = np.where(x > 0, 1.0, 0.1) / repeats
    with fl.num_threads(threads):
        assert fl.cross_entropy(x, [0], label_smoothing=0.1) == pytest.approx(half)
        assert fl.cross_entropy(x, probabilities) == pytest.approx(2 * half)
        weight = np.full(2 * repeats, 0.1)
        value = fl.cross_entropy(x, [1], weight, reduction="none")
        assert value[0] == pytest.approx(0.2 * 1.7e308)
        weight = np.full(2, 8e307)
        value = fl.cross_entropy([[0, 1.2]], [1], weight, label_smoothing=1e-4, reduction="none")
        exact = 8e307 * np.log1p(np.exp(-1.2)) + 8e307 * 0.5e-4 * 1.2
        assert value[0] == pytest.approx(exact)


def test_no_classes(isa):
    assert fl.cross_entropy(np.zeros((3, 0)), np.zeros((3, 0))) == 0


@floats
@pytest.mark.parametrize("classes", [512, 50_257, 1 << 20])
def test_long_rows(classes, dtype):
    """All logits but one are equal: value and gradient follow from one rounded exponential."""
    lead = dtype(0.75)
    x = np.zeros((1, classes), dtype)
    x[0, 5] = lead
    value, gradient = fl.cross_entropy.value_and_grad(x, np.array([0]))
    exp = mp.mpf(float(fl._binding.math("exp", np.array([-lead]))[0]))
    exp_sum = 1 + (classes - 1) * exp
    assert abs(gradient[0, 1] / float(exp / exp_sum) - 1) <= 2 * np.finfo(dtype).eps
    exact = float(mp.log(exp_sum)) + float(lead)
    assert abs(value / exact - 1) <= 4 * np.finfo(dtype).eps


def row_loss(x, q, dq):
    """-Σ q_c log softmax(x)_c of one row in extended precision, 0 log 0 being 0.

    Returns the loss, its gradients by x and, with dq = ∂q_c/∂y_c, by y, and the sum of the two
    terms whose difference is the gradient by x.
    """
    x, q = x.astype(np.longdouble), q.astype(np.longdouble)
    gap = x.max() - x
    exp = np.exp(-gap)
    exp_rest = np.delete(exp, exp.argmax()).sum()
    minus_log_softmax = gap + np.log1p(exp_rest)
    value = np.where(q == 0, 0, q * np.where(q == 0, 0, minus_log_softmax)).sum()
    grad_y = dq * np.where(np.equal(dq, 0), 0, minus_log_softmax)
    positive = exp * (q.sum() - q) / (1 + exp_rest)
    negative = q * (exp_rest + 1 - exp) / (1 + exp_rest)
    return value, positive - negative, grad_y, positive + negative


def rising(rng, classes):
    """Every logit is a new maximum, by steps that are exact in float32."""
    return np.arange(classes) * 2.0**-10


def falling(rng, classes):
    return rising(rng, classes)[::-1]


def late(rng, classes):
    """9000 logits of -inf first, and the maximum last."""
    x = rng.integers(-600, 600, classes) / 64
    x[:9000] = -np.inf
    x[-1] = 17.5
    return x


@floats
@pytest.mark.parametrize("smoothing", [0.0, 0.25])
@pytest.mark.parametrize("classes", [4097, 40_003, 140_001])
@pytest.mark.parametrize("logits", [rising, falling, late])
def test_rescaling_to_a_larger_maximum(logits, classes, smoothing, dtype, each_isa):
    """Rows of several tiles, whose running maximum grows, against extended precision."""
    rng = np.random.default_rng(classes)
    x = logits(rng, classes).astype(dtype)[np.newaxis]
    y, label = rng.random((1, classes)).astype(dtype), np.array([classes // 2])
    y[0, :9000] = 0
    weight = rng.integers(0, 5, classes).astype(dtype)
    weight[:9000] = 0  # with smoothing, the loss would be infinite
    one_hot = np.arange(classes) == label
    keywords = {"weight": weight, "label_smoothing": smoothing, "reduction": "sum"}
    eps = float(np.finfo(dtype).eps)
    subnormal = float(np.finfo(dtype).smallest_subnormal)  # the error of exp where it underflows
    for _ in each_isa():
        q = weight * ((1 - smoothing) * one_hot + smoothing / classes)
        exact, exact_dx, _, terms = row_loss(x[0], q, 0)
        value, dx = fl.cross_entropy.value_and_grad(x, label, **keywords)
        assert abs(value - exact) <= 8 * eps * exact
        assert (abs(dx[0] - exact_dx) <= 8 * eps * terms + subnormal * q.sum()).all()

        q = weight * ((1 - smoothing) * y[0].astype(float) + smoothing / classes)
        exact, exact_dx, exact_dy, terms = row_loss(x[0], q, (1 - smoothing) * weight)
        value, (dx, dy) = fl.cross_entropy.value_and_grad(x, y, wrt=("input", "target"), **keywords)
        finite = np.isfinite(x[0])
        assert abs(value - exact) <= 8 * eps * exact
        assert (abs(dx[0] - exact_dx) <= 8 * eps * terms + subnormal * q.sum()).all()
        assert (abs(dy[0] - exact_dy)[finite] <= 8 * eps * exact_dy[finite]).all()


@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize("threads", [1, 2])
def test_more_equal_logits_than_a_float_counts(threads, smoothing):
    """Entries that equal the maximum are counted, which a float does up to 2^24."""
    classes = 5 << 22
    rows = np.broadcast_to(np.float32(0), (1, classes, 16))  # a row in each lane
    row = np.broadcast_to(np.float16(0), (1, classes + 5))  # in one row, and in parts of it
    with fl.num_threads(threads):
        value = fl.cross_entropy(rows, np.zeros((1, 16), int), label_smoothing=smoothing)
        assert value == pytest.approx(np.log(classes), rel=1e-6)
        value = fl.cross_entropy(row, [classes], label_smoothing=smoothing)
        assert value == pytest.approx(np.log(classes + 5), rel=1e-6)


def test_split_row_takes_time_in_proportion_to_its_classes():
    """The parts of a row are combined once, not once for each part."""
    x = np.broadcast_to(np.float16(0), (1, 1 << 26))

    def cpu_seconds(threads):
        times = []
        with fl.num_threads(threads):
            for _ in range(3):
                before = time.process_time()
                fl.cross_entropy(x, [5])
                times.append(time.process_time() - before)
        return min(times)

    assert cpu_seconds(2) < 4 * cpu_seconds(1)


@pytest.mark.parametrize("label_smoothing", [0, 0.1])
@pytest.mark.parametrize("weight", [[0, 0, 0], [0, 0, 1]])
@floats
def test_labels_without_weight(weight, label_smoothing, dtype):
    """With nothing to divide by, the mean is NaN and its gradient 0."""
    x = np.array([[1, 2, 3], [0, 1, 0]], dtype)
    keywords = {"weight": weight, "label_smoothing": label_smoothing}
    value, gradient = fl.cross_entropy.value_and_grad(x, [0, 1], **keywords)
    assert np.isnan(value)
    assert not gradient.any()
    assert np.isnan(fl.cross_entropy(x, [0, 1], **keywords))


@pytest.mark.parametrize(("rows", "classes"), [(1, 140_003), (3, 50_003)])
@pytest.mark.parametrize("target", ["labels", "smoothed", "probabilities"])
@floats
def test_split_rows_are_bitwise_identical(target, rows, classes, dtype):
    """With fewer rows than threads, the threads compute parts of rows."""
    rng = np.random.default_rng(rows)
    x = (rng.standard_normal((rows, classes)) * 3).astype(dtype)
    y = rng.integers(0, classes, rows)
    y[-1] = classes - 1
    keywords = {"weight": rng.random(classes).astype(dtype)}
    if target == "smoothed":
        keywords["label_smoothing"] = 0.1
    if target == "probabilities":
        y = rng.random((rows, classes)).astype(dtype)
    grad_output, sample_weight = rng.normal(size=(2, rows)) ** 2
    loss = fl.cross_entropy

    def results():
        in_place = x.copy()
        loss.grad(in_place, y, **keywords, out=in_place)
        wrt = {"wrt": ("input", "target")} if target == "probabilities" else {}
        return (
            in_place,
            loss(x, y, **keywords, reduction="none"),
            loss(x, y, **keywords, sample_weight=sample_weight),
            loss.grad(x, y, **keywords, **wrt),
            loss.value_and_grad(x, y, **keywords, reduction="none", grad_output=grad_output),
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
def test_split_rows_raise_the_same_error(rows, dtype):
    """The error names the first of several invalid entries on any number of threads."""
    classes, last = 50_003, rows - 1
    x = np.zeros((rows, classes), dtype)
    probabilities = np.full((rows, classes), 0.5, dtype)
    probabilities[last, [17_000, 40_000]] = -1
    labels = np.full(rows, 5)
    labels[last] = classes
    loss = fl.cross_entropy
    for call in (loss, loss.grad, loss.value_and_grad):
        for target, first in (
            (probabilities, rf"target\[{last}, 17000\]"),
            (labels, rf"target\[{last}\]"),
        ):
            messages = set()
            for threads in (1, 2, 5):
                with fl.num_threads(threads), pytest.raises(ValueError, match=first) as error:
                    call(x, target)
                messages.add(str(error.value))
            assert len(messages) == 1


def test_split_rows_in_place():
    """The label's logit is read before another thread overwrites it with the gradient."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((3, 1_000_000), dtype=np.float32)
    for trial in range(8):
        labels = np.array([5, 65541, 70_000 + 16384 * trial])
        out = x.copy()
        with fl.num_threads(4):
            value, _ = fl.cross_entropy.value_and_grad(out, labels, out=out)
        assert value == fl.cross_entropy(x, labels)
