"""CTC: posteriors, labels and frames, sequences in halves on several threads."""

import numpy as np
import pytest

import fastloss as fl
from tests import references
from tests.bitwise import assert_bitwise
from tests.cases import CASES, log_softmax
from tests.drawn_case import DrawnCase, floats

aligned = pytest.mark.parametrize(
    "case", [c for c in CASES if c.kind == "sequences"], ids=lambda case: case.id
)


@floats
def test_posteriors(dtype, each_isa):
    for case in CASES:
        if not case.normalised:
            continue
        options = {k: v for k, v in case.options.items() if k in ("blank", "batch_first")}
        rng = np.random.default_rng([6, *case.id.encode()])
        for arrays in (case.arrays(rng, (30,), dtype), case.hard(rng, 60, dtype)):
            exact = references.posteriors(*arrays, **options)
            for isa in each_isa():
                got = fl.ctc_posteriors(*arrays, **options)
                assert got.dtype == dtype
                assert references.excess(got, exact, dtype).max() <= 1, isa
                out = np.full_like(arrays[0], 7)
                assert fl.ctc_posteriors(*arrays, **options, out=out) is out
                np.testing.assert_array_equal(out, got)


@aligned
@floats
def test_labels_one_after_the_other(case, dtype):
    """Have the bits of padded ones, whose padding is not looked at."""
    draw = DrawnCase(case, (40,), dtype)
    expected = draw.both("none"), draw.both("mean"), draw.sums()
    _, spelled, _, labels = draw.arrays
    draw.arrays[1] = np.concatenate([row[:n] for row, n in zip(spelled, labels, strict=True)])
    assert_bitwise((draw.both("none"), draw.both("mean"), draw.sums()), expected)
    for junk in (-1, 999, case.options.get("blank", 0)):
        draw.arrays[1] = np.where(np.arange(spelled.shape[1]) < labels[:, None], spelled, junk)
        assert_bitwise((draw.both("none"), draw.both("mean"), draw.sums()), expected)


@aligned
@floats
def test_frames_after_the_last_are_not_looked_at(case, dtype):
    draw = DrawnCase(case, (40,), dtype)
    value, (gradient,) = draw.both("none")
    after = np.arange(8) >= draw.arrays[2][:, None]
    for junk in (np.nan, np.inf, 0.0, 1e30):
        case.leading(draw.arrays[0])[after] = junk
        assert_bitwise(draw.both("none"), (value, (gradient,)), junk)
    assert not case.leading(gradient)[after].any()


@aligned
@floats
def test_what_cannot_be_spelled(case, dtype):
    """Is infinitely bad, or nothing at all."""
    draw = DrawnCase(case, (3,), dtype)
    blank = case.options.get("blank", 0)
    draw.arrays[1][:] = (blank + 1) % 7  # three times the same: five frames
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


def test_nan_of_a_class_in_no_path_is_that_of_its_gradient():
    x = np.log(np.full((6, 1, 4), 0.25))
    spoilt = x.copy()
    spoilt[2, 0, 3] = np.nan
    value, gradient = fl.ctc_loss.value_and_grad(x, [[1, 2]], 6, 2)
    got, slope = fl.ctc_loss.value_and_grad(spoilt, [[1, 2]], 6, 2)
    assert np.isnan(slope[2, 0, 3])
    slope[2, 0, 3] = gradient[2, 0, 3]
    assert_bitwise((got, slope), (value, gradient))
    assert np.isnan(fl.ctc_loss_with_logits(spoilt, [[1, 2]], 6, 2))


def alignments(rng, samples, frames, labels, classes, dtype):
    """Log-probabilities, labels with a repeat, and lengths; the second sample is shorter."""
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
def test_sequences_in_halves_have_the_bits_of_whole_ones(samples, frames, labels, classes, dtype):
    """Fewer than the threads, their two ends are computed side by side."""
    rng = np.random.default_rng(frames)
    arrays = alignments(rng, samples, frames, labels, classes, dtype)
    upstream = rng.normal(size=samples)

    def results():
        inside = arrays[0].copy()
        fl.ctc_loss_with_logits.grad(inside, *arrays[1:], out=inside)
        return (
            inside,
            fl.ctc_loss(*arrays, reduction="none"),
            fl.ctc_loss(*arrays, reduction="sum"),
            fl.ctc_loss.grad(*arrays),
            fl.ctc_loss.value_and_grad(*arrays, reduction="none", grad_output=upstream),
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
def test_frames_that_go_past_the_caches_have_the_bits_of_others(loss):
    """Gradients of more than 32 MiB, of which the frames begin anywhere in a cache line."""
    x, y, *lengths = alignments(np.random.default_rng(7), 2, 900, 20, 5003, np.float32)
    gradient = getattr(loss, "grad", loss)
    options = {} if loss is fl.ctc_posteriors else {"reduction": "sum"}
    whole = gradient(x, y, *lengths, **options)
    for n in range(2):
        alone = gradient(x[:, n], y[n : n + 1], lengths[0][n], lengths[1][n], **options)
        assert_bitwise(whole[:, n], alone)


@pytest.mark.parametrize("samples", [1, 2])
@floats
def test_sequences_in_halves_have_the_errors_of_whole_ones(samples, dtype):
    """The first of two that are wrong, towards both ends."""
    x, y, *lengths = alignments(np.random.default_rng(9), samples, 60, 20, 1100, dtype)
    last = samples - 1
    wrong_x, wrong_y = x.copy(), y.copy()
    wrong_x[[5, 50], last] += 1
    wrong_y[last, [4, -3]] = 1100, 0
    ctc, logits, posteriors = fl.ctc_loss, fl.ctc_loss_with_logits, fl.ctc_posteriors
    calls = [
        (call, x, wrong_y, rf"targets\[{last}, 4\]")
        for loss in (ctc, logits)
        for call in (loss, loss.grad, loss.value_and_grad)
    ]
    calls += [(posteriors, x, wrong_y, rf"targets\[{last}, 4\]")]
    calls += [
        (call, wrong_x, y, rf"log_probs\[5, {last}\]") for call in (ctc.grad, ctc.value_and_grad)
    ]
    inside = wrong_x.copy()
    calls += [(lambda *arrays: ctc.grad(inside, *arrays[1:], out=inside), *calls[-1][1:])]
    for call, scores, targets, place in calls:
        messages = set()
        for threads in (1, 2, 5):
            with fl.num_threads(threads), pytest.raises(ValueError, match=place) as error:
                call(scores, targets, *lengths)
            messages.add((error.type, str(error.value)))
        assert len(messages) == 1
    np.testing.assert_array_equal(inside, wrong_x)


def forward(x, spelled):
    """Logarithms of the sums over paths to each frame and state, that frame's included."""
    skips = np.zeros(len(spelled), bool)
    skips[2:] = (spelled[2:] != 0) & (spelled[2:] != spelled[:-2])
    reached = np.full((len(x), len(spelled)), -np.inf)
    reached[0, :2] = x[0, spelled[:2]]
    for t in range(1, len(x)):
        before = reached[t - 1]
        paths = before.copy()
        paths[1:] = np.logaddexp(paths[1:], before[:-1])
        paths[2:] = np.where(skips[2:], np.logaddexp(paths[2:], before[:-2]), paths[2:])
        reached[t] = paths + x[t, spelled]
    return reached


@pytest.mark.parametrize("threads", [1, 5])
def test_long_sequences(threads):
    """Of which a side keeps a few rows only, and computes the others twice."""
    (x, y, *lengths) = alignments(np.random.default_rng(8), 1, 1501, 120, 150, np.float64)
    spelled = np.zeros(241, int)
    spelled[1::2] = y[0]
    logs = x[:, 0]
    there = forward(logs, spelled)
    back = forward(logs[::-1], spelled[::-1])[::-1, ::-1]
    total = np.logaddexp(*there[-1, -2:])
    states = np.exp(there + back - logs[:, spelled] - total)
    expected = np.zeros_like(logs)
    np.add.at(expected.T, spelled, states.T)
    with fl.num_threads(threads):
        value, gradient = fl.ctc_loss_with_logits.value_and_grad(x, y, *lengths, reduction="sum")
        posteriors = fl.ctc_posteriors(x, y, *lengths)
        by_log_probs = fl.ctc_loss.grad(x, y, *lengths, reduction="sum")
    assert value == pytest.approx(-total, rel=1e-12)
    assert np.abs(posteriors[:, 0] - expected).max() < 1e-9
    assert np.abs(posteriors.sum(-1) - 1).max() < 1e-13
    for slope in (gradient, by_log_probs):
        assert np.abs(slope.sum(-1)).max() < 1e-13
        assert np.abs(slope - (np.exp(x) - posteriors)).max() < 1e-14
