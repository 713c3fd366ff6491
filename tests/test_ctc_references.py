"""The references of CTC: the recursion and its definition, posteriors, and layouts of sequences."""

import itertools

import numpy as np
import pytest
from mpmath import mp, mpf

from tests import references
from tests.domains import log_softmax
from tests.references import reduced
from tests.test_references import INF, A, equal, floats, numbers


def five_samples():
    """Log-probabilities of 4 frames and 3 classes, labels, and the lengths of both."""
    x = log_softmax(np.random.default_rng(0).normal(size=(5, 4, 3)))
    labels = A([[1, 2], [2, 0], [0, 0], [1, 1], [2, 1]])
    return x, labels, A([4, 3, 4, 4, 2]), A([2, 1, 0, 2, 2])


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_all_alignments_are_summed(classes, blank):
    """The recursion and the definition agree, for all labels that fit the frames."""
    rng = np.random.default_rng([6, classes])
    if blank >= classes:
        return
    symbols = [c for c in range(classes) if c != blank]
    for frames in range(6 if classes > 3 else 7):
        x = numbers(rng.uniform(size=(frames, classes)))
        for frame in x[1::3]:
            frame[rng.integers(classes)] = mpf(0)
        for size in range(min(frames, 3) + 2):
            for labels in [*itertools.product(symbols, repeat=size)][:12]:
                with mp.workprec(references.BITS):
                    p, gammas = references.ctc_sum(x, labels, blank)
                    expected, others = references.ctc_sum_over_alignments(x, labels, blank)
                    assert abs(p - expected) <= mpf(2) ** -150
                    for a, b in zip(
                        itertools.chain(*gammas), itertools.chain(*others), strict=True
                    ):
                        assert mp.isnan(a) == mp.isnan(b)
                        assert mp.isnan(a) or abs(a - b) <= mpf(2) ** -150


def test_probabilities_of_all_labels_sum_to_1():
    """Over all labels that three frames can have."""
    x = numbers(np.exp(log_softmax(np.random.default_rng(7).normal(size=(3, 3)))))
    all_labels = itertools.chain(*(itertools.product((1, 2), repeat=n) for n in range(4)))
    with mp.workprec(references.BITS):
        probability = mp.fsum(references.ctc_sum(x, labels, 0)[0] for labels in all_labels)
        assert abs(probability - 1) < 1e-15


def test_best_alignment_is_the_likeliest():
    rng = np.random.default_rng(8)
    for labels in ((), (1,), (1, 1), (1, 2), (2, 1, 2)):
        x = numbers(log_softmax(rng.normal(size=(5, 3))))
        likeliest = INF
        for alignment in itertools.product(range(3), repeat=5):
            merged = tuple(c for c, _ in itertools.groupby(alignment) if c)
            if merged == labels:
                cost = -sum(frame[c] for frame, c in zip(x, alignment, strict=True))
                likeliest = min(likeliest, cost)
        assert abs(references.best_alignment_cost(x, labels, 0) - likeliest) < 1e-12


def test_posteriors():
    x, targets, frames, labels = five_samples()
    number = references.posteriors(x, targets, frames, labels, batch_first=True)
    _, gradients = reduced(
        "ctc_loss", (x, targets, frames, labels), {"reduction": "sum", "batch_first": True}
    )
    is_frame = np.arange(4) < frames[:, None]
    equal(
        np.exp(x) * is_frame[..., None] - floats(number.value),
        floats(gradients["log_probs"].value),
        rtol=1e-9,
    )
    np.testing.assert_allclose(floats(number.value).sum(axis=-1), is_frame, atol=1e-14)


def test_layouts_of_sequences():
    """Time or samples first, targets padded or concatenated, and no batch."""
    x, targets, frames, labels = five_samples()
    concatenated = np.concatenate([row[:n] for row, n in zip(targets, labels, strict=True)])
    number, gradients = reduced("ctc_loss", (x, targets, frames, labels), {"batch_first": True})
    for arrays, options, axis in (
        ((x, concatenated, frames, labels), {"batch_first": True}, 0),
        ((x.swapaxes(0, 1), targets, frames, labels), {}, 1),
        ((x.swapaxes(0, 1), concatenated, frames, labels), {}, 1),
    ):
        other, slopes = reduced("ctc_loss", arrays, options)
        equal(number.value, other.value)
        equal(gradients["log_probs"].value, slopes["log_probs"].value.swapaxes(0, axis))
    unreduced = reduced(
        "ctc_loss", (x, targets, frames, labels), {"batch_first": True, "reduction": "none"}
    )
    for i in range(5):
        for options in ({}, {"batch_first": True}):
            sample = (x[i], targets[i, : labels[i]], frames[i], labels[i])
            value, gradients = reduced("ctc_loss", sample, {**options, "reduction": "none"})
            assert value.value.shape == ()
            equal(value.value, unreduced[0].value[i])
            equal(gradients["log_probs"].value, unreduced[1]["log_probs"].value[i])
    equal(number.value, (floats(unreduced[0].value) / np.maximum(labels, 1)).mean())
