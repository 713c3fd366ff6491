"""CTC: posteriors, targets and frames, long sequences, and sequences that two threads split."""

import itertools

import numpy as np
import pytest
from mpmath import mp, mpf

import fastloss as fl
from benchmarks.cells import cells
from tests import references
from tests.bitwise import assert_bitwise
from tests.domains import log_softmax
from tests.drawn_case import DrawnCase, cases_where, floats
from tests.test_accumulators import standard_error
from tests.test_processes import linux, python

ctc_cases = cases_where(lambda case: case.unit == "sequence")


@cases_where(lambda case: case.normalised)
@floats
def test_posteriors(case, dtype, each_isa):
    options = {k: v for k, v in case.options.items() if k in ("blank", "batch_first")}
    rng = np.random.default_rng([6, *case.id.encode()])
    for arrays in (case.typical(rng, (30,), dtype), case.adversarial(rng, 60, dtype)):
        exact = references.posteriors(*arrays, **options)
        for isa in each_isa():
            posteriors = fl.ctc_posteriors(*arrays, **options)
            assert posteriors.dtype == dtype
            assert references.excess(posteriors, exact, dtype).max() <= 1, isa
            out = np.full_like(arrays[0], 7)
            assert fl.ctc_posteriors(*arrays, **options, out=out) is out
            np.testing.assert_array_equal(out, posteriors)


@cases_where(lambda case: case.normalised)
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_posteriors_of_half_types(case, half, each_isa):
    """Posteriors of half arrays are the float32 results, rounded once."""
    if half == "bfloat16":
        half = pytest.importorskip("ml_dtypes").bfloat16
    options = {k: v for k, v in case.options.items() if k in ("blank", "batch_first")}
    log_probs, *others = case.typical(np.random.default_rng(6), (30,), np.float32)
    rounded = log_probs.astype(half)
    for isa in each_isa():
        posteriors = fl.ctc_posteriors(rounded, *others, **options)
        expected = fl.ctc_posteriors(rounded.astype(np.float32), *others, **options)
        assert_bitwise(posteriors, expected.astype(half), isa)


@ctc_cases
@floats
def test_concatenated_targets(case, dtype):
    """Concatenated and padded targets are equivalent, whatever the padding holds."""
    draw = DrawnCase(case, (40,), dtype)
    expected = draw.both("none"), draw.both("mean"), draw.sums()
    _, targets, _, lengths = draw.arrays
    draw.arrays[1] = np.concatenate([row[:n] for row, n in zip(targets, lengths, strict=True)])
    assert_bitwise((draw.both("none"), draw.both("mean"), draw.sums()), expected)
    for padding in (-1, 999, case.options.get("blank", 0)):
        inside = np.arange(targets.shape[1]) < lengths[:, None]
        draw.arrays[1] = np.where(inside, targets, padding)
        assert_bitwise((draw.both("none"), draw.both("mean"), draw.sums()), expected)


@ctc_cases
@floats
def test_padding_frames_are_ignored(case, dtype):
    draw = DrawnCase(case, (40,), dtype)
    value, (gradient,) = draw.both("none")
    padding = np.arange(8) >= draw.arrays[2][:, None]
    for entry in (np.nan, np.inf, 0.0, 1e30):
        case.leading(draw.arrays[0])[padding] = entry
        assert_bitwise(draw.both("none"), (value, (gradient,)), entry)
    assert not case.leading(gradient)[padding].any()


@ctc_cases
@floats
def test_infeasible_targets(case, dtype):
    """Too few frames give an infinite loss and NaN gradients, or zeros with `zero_infinity`."""
    draw = DrawnCase(case, (3,), dtype)
    blank = case.options.get("blank", 0)
    draw.arrays[1][:] = (blank + 1) % 7  # three equal labels need five frames
    draw.arrays[2][:] = 4, 5, 0
    draw.arrays[3][:] = 3
    value, (gradient,) = draw.both("none")
    gradient = case.leading(gradient)
    assert np.isfinite(value[1])
    assert np.isfinite(gradient[1]).all()
    if case.options.get("zero_infinity"):
        assert value[[0, 2]].tolist() == [0, 0]
        assert not gradient[[0, 2]].any()
    else:
        assert value[[0, 2]].tolist() == [np.inf, np.inf]
        assert np.isnan(gradient[0, :4]).all()
        assert not gradient[0, 4:].any()
        assert not gradient[2].any()
    assert draw.sums()[1:] == (3, 3)


def test_nan_of_a_class_outside_all_alignments():
    """It makes only its own gradient NaN for log-probabilities, and the loss NaN for logits."""
    x = np.log(np.full((6, 1, 4), 0.25))
    with_nan = x.copy()
    with_nan[2, 0, 3] = np.nan
    expected = fl.ctc_loss.value_and_grad(x, [[1, 2]], 6, 2)
    value, gradient = fl.ctc_loss.value_and_grad(with_nan, [[1, 2]], 6, 2)
    assert np.isnan(gradient[2, 0, 3])
    gradient[2, 0, 3] = expected[1][2, 0, 3]
    assert_bitwise((value, gradient), expected)
    assert np.isnan(fl.ctc_loss_with_logits(with_nan, [[1, 2]], 6, 2))


def random_batch(rng, samples, frames, labels, classes, dtype):
    """Log-probabilities, targets with a repeated label, lengths; the second sample is shorter."""
    x = rng.standard_normal((frames, samples, classes), np.float32).astype(dtype) * 2
    y = rng.integers(1, classes, (samples, labels))
    y[:, 3] = y[:, 2]
    lengths = np.full(samples, frames), np.full(samples, labels)
    if samples > 1:
        lengths[0][-1], lengths[1][-1] = frames - 7, labels - 1
    return log_softmax(x), y, *lengths


@pytest.mark.parametrize(
    ("samples", "frames", "labels", "classes", "dtype"),
    [
        (1, 4001, 100, 1100, np.float32),
        (2, 1500, 100, 1100, np.float64),
        (1, 60, 20, 1100, np.float64),
        (2, 60, 20, 1100, np.float32),
        (1, 401, 60, 30, np.float32),
        (2, 1500, 100, 40, np.float64),
    ],
)
def test_split_sequences_are_bitwise_identical(samples, frames, labels, classes, dtype):
    """With fewer sequences than threads, two threads compute one from its two ends."""
    rng = np.random.default_rng(frames)
    arrays = random_batch(rng, samples, frames, labels, classes, dtype)
    grad_output = rng.normal(size=samples)

    def results():
        in_place = arrays[0].copy()
        fl.ctc_loss_with_logits.grad(in_place, *arrays[1:], out=in_place)
        return (
            in_place,
            fl.ctc_loss(*arrays, reduction="none"),
            fl.ctc_loss(*arrays, reduction="sum"),
            fl.ctc_loss.grad(*arrays),
            fl.ctc_loss.value_and_grad(*arrays, reduction="none", grad_output=grad_output),
            fl.ctc_loss_with_logits(*arrays),
            fl.ctc_loss_with_logits.value_and_grad(*arrays),
            fl.ctc_posteriors(*arrays),
        )

    with fl.num_threads(1):
        expected = results()
    for threads in (2, 5):
        with fl.num_threads(threads):
            assert_bitwise(results(), expected, f"{threads} threads")


@pytest.mark.parametrize("loss", [fl.ctc_loss, fl.ctc_loss_with_logits, fl.ctc_posteriors])
def test_non_temporal_gradients(loss):
    """Gradients of more than 32 MiB whose frames begin at any offset in a cache line."""
    x, y, *lengths = random_batch(np.random.default_rng(7), 2, 900, 20, 5003, np.float32)
    grad = getattr(loss, "grad", loss)
    options = {} if loss is fl.ctc_posteriors else {"reduction": "sum"}
    gradient = grad(x, y, *lengths, **options)
    for n in range(2):
        of_one = grad(x[:, n], y[n : n + 1], lengths[0][n], lengths[1][n], **options)
        assert_bitwise(gradient[:, n], of_one)


@pytest.mark.parametrize("samples", [1, 2])
@floats
def test_split_sequences_raise_the_same_error(samples, dtype):
    """The error names the first of two invalid frames or labels, one near each end."""
    x, y, *lengths = random_batch(np.random.default_rng(9), samples, 60, 20, 1100, dtype)
    last = samples - 1
    wrong_x, wrong_y = x.copy(), y.copy()
    wrong_x[[5, 50], last] += 1
    wrong_y[last, [4, -3]] = 1100, 0
    ctc, logits, posteriors = fl.ctc_loss, fl.ctc_loss_with_logits, fl.ctc_posteriors
    in_place = wrong_x.copy()

    def grad_in_place(_, *arrays):
        ctc.grad(in_place, *arrays, out=in_place)

    first_label, first_frame = rf"targets\[{last}, 4\]", rf"log_probs\[5, {last}\]"
    calls = [
        (call, x, wrong_y, first_label)
        for loss in (ctc, logits)
        for call in (loss, loss.grad, loss.value_and_grad)
    ]
    calls += [(posteriors, x, wrong_y, first_label)]
    calls += [
        (call, wrong_x, y, first_frame) for call in (ctc.grad, ctc.value_and_grad, grad_in_place)
    ]
    for call, scores, targets, first in calls:
        messages = set()
        for threads in (1, 2, 5):
            with fl.num_threads(threads), pytest.raises(ValueError, match=first) as error:
                call(scores, targets, *lengths)
            messages.add((error.type, str(error.value)))
        assert len(messages) == 1
    np.testing.assert_array_equal(in_place, wrong_x)


def log_alpha(log_probs, states):
    """The forward variables log α of the extended target `states`, blanks being 0 (Graves 2006)."""
    skips = np.zeros(len(states), bool)  # whether the blank before a label may be skipped
    skips[2:] = (states[2:] != 0) & (states[2:] != states[:-2])
    alpha = np.full((len(log_probs), len(states)), -np.inf)
    alpha[0, :2] = log_probs[0, states[:2]]
    for t in range(1, len(log_probs)):
        before = alpha[t - 1]
        paths = before.copy()
        paths[1:] = np.logaddexp(paths[1:], before[:-1])
        paths[2:] = np.where(skips[2:], np.logaddexp(paths[2:], before[:-2]), paths[2:])
        alpha[t] = paths + log_probs[t, states]
    return alpha


@pytest.mark.parametrize("threads", [1, 5])
def test_long_sequences(threads):
    """Sequences of which only some rows of forward variables are stored, the others recomputed."""
    x, y, *lengths = random_batch(np.random.default_rng(8), 1, 1501, 120, 150, np.float64)
    states = np.zeros(241, int)
    states[1::2] = y[0]
    log_probs = x[:, 0]
    alpha = log_alpha(log_probs, states)
    beta = log_alpha(log_probs[::-1], states[::-1])[::-1, ::-1]
    log_likelihood = np.logaddexp(*alpha[-1, -2:])
    gamma = np.exp(alpha + beta - log_probs[:, states] - log_likelihood)
    expected = np.zeros_like(log_probs)
    np.add.at(expected.T, states, gamma.T)
    with fl.num_threads(threads):
        value, gradient = fl.ctc_loss_with_logits.value_and_grad(x, y, *lengths, reduction="sum")
        posteriors = fl.ctc_posteriors(x, y, *lengths)
        grad_log_probs = fl.ctc_loss.grad(x, y, *lengths, reduction="sum")
    assert value == pytest.approx(-log_likelihood, rel=1e-12)
    assert np.abs(posteriors[:, 0] - expected).max() < 1e-9
    assert np.abs(posteriors.sum(-1) - 1).max() < 1e-13
    for grad in (gradient, grad_log_probs):
        assert np.abs(grad.sum(-1)).max() < 1e-13
        assert np.abs(grad - (np.exp(x) - posteriors)).max() < 1e-14


def test_a_log_softmax_rounded_to_bfloat16_is_accepted():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    frames = np.full((4, 1, 10_000), -np.log(1e4)).astype(ml_dtypes.bfloat16)
    assert np.isfinite(fl.ctc_loss.grad(frames, [[1, 2]], 4, 2).astype(float)).all()
    with pytest.raises(ValueError, match=r"log_probs\[0, 0\] sum to"):
        fl.ctc_loss.grad((frames + np.log(1.2)).astype(frames.dtype), [[1, 2]], 4, 2)


def test_infinite_log_probability_of_a_class_without_a_label():
    log_probs = np.log(np.full((3, 1, 4), 0.25))
    log_probs[1, 0, 3] = np.inf
    with pytest.raises(ValueError, match=r"log_probs\[1, 0\] sum to inf"):
        fl.ctc_loss.grad(log_probs, np.array([[1, 2]]), 3, 2)


def test_lengths_of_an_empty_batch():
    with pytest.raises(ValueError, match=r"^input_lengths = 99 is not allowed"):
        fl.ctc_loss(np.zeros((4, 0, 3)), np.zeros((0, 2), int), 99, 1)


def test_standard_error_of_ctc_loss_is_that_of_losses_per_label():
    rng = np.random.default_rng(7)
    x, labels = rng.normal(size=(20, 40, 6)), rng.integers(1, 6, (40, 8))
    lengths = rng.integers(0, 9, 40)
    accumulator = fl.CTCLossWithLogits().accumulator()
    accumulator.update(x, labels, 20, lengths)
    losses = fl.ctc_loss_with_logits(x, labels, 20, lengths, reduction="none")
    expected = standard_error(losses / np.maximum(lengths, 1), np.ones(40), 40)
    assert accumulator.stderr == pytest.approx(expected, rel=1e-12)


@linux
def test_uninitialised_memory_is_not_read():
    """The targets need nearly all frames, so that few states have a path from both ends."""
    program = """
        import numpy as np, fastloss as fl

        frames, classes = 170, 30
        x = np.full((frames, 1, classes), -14.0)
        x[:, :, 0] = 0
        for labels in (60, 100, 110, 130, 160):
            y = 1 + np.arange(labels)[np.newaxis] % (classes - 1)
            loss, arguments = fl.ctc_loss_with_logits, (x, y, frames, labels)
            value, gradient = loss.value_and_grad(*arguments, reduction="sum")
            assert value == loss(*arguments, reduction="sum") < np.inf
            assert np.isfinite(gradient).all()
    """
    for byte in ("0", "192", "128"):  # the byte that glibc fills allocations with
        python(program, env={"MALLOC_PERTURB_": byte})


def test_no_bound_of_the_time_is_known():
    cell = next(c for c in cells() if c.name == "ctc_loss 50x16x20x30")
    assert cell.work(cell.data()[0]) is None


@pytest.mark.parametrize("size", [1e12, 1e16, 1e18, 1e30])
@floats
def test_gradient_of_huge_logits(size, dtype, each_isa):
    """One alignment is certain: the gradient is one-hot softmax - one-hot posterior."""
    rng, bound = np.random.default_rng(7), 64 * np.finfo(dtype).eps
    for _ in range(20):
        frames, classes, label = 5, 3, 1
        x = rng.permuted(np.arange(frames * classes)).reshape(frames, classes) - 7.0
        x += rng.permutation(2.0 ** -np.arange(1, 16)).reshape(frames, classes)  # no ties
        paths = [
            [label if i <= t <= j else 0 for t in range(frames)]
            for i in range(frames)
            for j in range(i, frames)
        ]
        best = max(paths, key=lambda path: x[np.arange(frames), path].sum())
        expected = np.zeros((frames, classes))
        expected[np.arange(frames), x.argmax(axis=1)] += 1
        expected[np.arange(frames), best] -= 1
        logits = (x * size).astype(dtype)
        for _ in each_isa():
            value, gradient = fl.ctc_loss_with_logits.value_and_grad(
                logits, [label], frames, 1, reduction="none"
            )
            assert np.isfinite(value)
            np.testing.assert_allclose(gradient, expected, rtol=0, atol=bound)
            log_probs = logits - logits.max(axis=1, keepdims=True)
            posteriors = fl.ctc_posteriors(log_probs, [label], frames, 1)
            np.testing.assert_array_equal(posteriors.argmax(axis=1), best)
            np.testing.assert_allclose(posteriors.max(axis=1), 1, rtol=0, atol=bound)


@pytest.mark.complete_only
@floats
def test_gradient_of_20_000_frames(dtype, isa):
    """64 ULP of the larger of probability and posterior, for frames that are not all equal."""
    rng, frames, labels = np.random.default_rng(3), 20_000, [1, 2, 2]
    x = log_softmax(rng.normal(size=(frames, 3))).astype(dtype)
    gradient = fl.ctc_loss.grad(x, labels, frames, len(labels), reduction="sum")
    with mp.workprec(100):
        probabilities = [[mp.exp(mpf(float(v))) for v in frame] for frame in x]
        _, posteriors = references.ctc_sum(probabilities, labels, 0)
        probability, posterior = np.array(probabilities, object), np.array(posteriors, object)
        errors = abs(gradient.astype(object) - (probability - posterior)).astype(float)
    size = np.maximum(probability, posterior).astype(float)
    assert (errors <= (64 + abs(np.log(size)) / 2) * np.finfo(dtype).eps * size).all()


# ---- frames whose probabilities do not sum to 1 --------------------------------------------------


def methods_of_ctc(arguments, **options):
    """Every way to ask for a loss of log-probabilities."""
    criterion = fl.CTCLoss(**options)
    accumulator = criterion.accumulator()
    return [
        lambda: fl.ctc_loss(*arguments, **options),
        lambda: fl.ctc_loss(*arguments, **options, reduction="sum"),
        lambda: fl.ctc_loss(*arguments, **options, reduction="none"),
        lambda: fl.ctc_loss.sums(*arguments, **options),
        lambda: fl.ctc_loss.grad(*arguments, **options),
        lambda: fl.ctc_loss.value_and_grad(*arguments, **options),
        lambda: accumulator.update(*arguments),
        lambda: criterion(*arguments),
    ]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("frames", "samples", "classes", "labels"),
    [(9, 3, 5, 3), (40, 2, 30, 20), (31, 2, 3000, 4), (600, 1, 40, 8), (5, 2, 6, 9)],
)
def test_a_frame_that_does_not_sum_to_one_is_refused(
    frames, samples, classes, labels, dtype, threads
):
    """Wherever it is, and in the value as in the gradient: also if only some classes are in use, if
    two threads share a sample, and if the target is infeasible."""
    rng = np.random.default_rng(8)
    x = log_softmax(rng.normal(size=(frames, samples, classes))).astype(dtype)
    y = rng.integers(1, classes, (samples, labels))
    lengths = frames, labels
    with fl.num_threads(threads):
        for options in ({}, {"zero_infinity": True}):
            for method in methods_of_ctc((x, y, *lengths), **options):
                method()
            for t, change in itertools.product({0, 1, frames // 2, frames - 1}, (0.02, -0.02, 3)):
                bad, n = x.copy(), samples - 1
                bad[t, n] += change
                bad[t + 1 :, n] += change  # the lowest frame is reported
                for method in methods_of_ctc((bad, y, *lengths), **options):
                    with pytest.raises(ValueError, match=rf"of log_probs\[{t}, {n}\] sum to"):
                        method()
                weights = np.arange(samples) != n
                assert fl.ctc_loss(bad, y, *lengths, sample_weight=weights) is not None
                shorter = np.where(weights, frames, t)
                fl.ctc_loss(bad, y, shorter, labels)


@pytest.mark.parametrize("classes", [1, 2, 31, 32, 33, 1000, 1025, 3000])
@floats
def test_sums_near_the_tolerance(classes, dtype, each_isa):
    """Refused exactly if they differ from 1 by more than 1e-3, in the value as in the gradient."""
    rng = np.random.default_rng(10)
    for excess, extreme in itertools.product(
        (0.5e-3, 0.95e-3, 0.999e-3, 1.001e-3, 1.05e-3, 0.1, 5), (None, -np.inf, -800, -87.5, -1e30)
    ):
        for sign in (1, -1) if excess < 1 else (1,):
            x = 4 * rng.normal(size=(3, 1, classes))
            if extreme is not None:
                x[..., 1::2] = extreme
            x = log_softmax(x)
            x[1] += np.log1p(sign * excess)
            x = x.astype(dtype)
            is_refused = abs(np.exp(x[1].astype(np.float64)).sum() - 1) > 1e-3
            assert is_refused == (excess > 1e-3)
            for _ in each_isa():
                for method in (fl.ctc_loss, fl.ctc_loss.grad):
                    if is_refused:
                        with pytest.raises(ValueError, match=r"of log_probs\[1, 0\] sum to"):
                            method(x, np.zeros((1, 0), int), 3, 0)
                    else:
                        method(x, np.zeros((1, 0), int), 3, 0)
    x[1, 0, 0] = np.nan
    assert np.isnan(fl.ctc_loss(x, np.zeros((1, 0), int), 3, 0))


@pytest.mark.parametrize("score", [0.5, 1, 50, 88, 89, 128, 200, 709, 710, 1e4, 1e30, np.inf])
@floats
def test_a_high_score_is_refused(score, dtype, each_isa):
    for classes, place in itertools.product((2, 40, 3000), (0, 1, -1)):
        x = np.full((1, 1, classes), -np.inf, dtype)
        x[0, 0, place] = score
        for _ in each_isa():
            with pytest.raises(ValueError, match=r"of log_probs\[0, 0\] sum to"):
                fl.ctc_loss(x, np.zeros((1, 0), int), 1, 0)


def test_logits_have_no_negative_loss():
    logits = 3 + np.random.default_rng(9).normal(size=(20, 4, 6))
    arguments = logits, np.array([[1, 2], [3, 4], [5, 1], [2, 2]]), 20, 2
    for method in methods_of_ctc(arguments):
        with pytest.raises(ValueError, match=r"for logits use fastloss\.ctc_loss_with_logits"):
            method()
    assert fl.ctc_loss_with_logits(*arguments) > 0
