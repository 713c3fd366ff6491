"""Pictures of the losses: each curve holds the numbers of the loss and of its derivative."""

import subprocess
import sys

import numpy as np
import pytest

import fastloss as fl
from fastloss.plotting import VIEWS, plot

LOSSES = [name for name in fl.losses.__all__ if name != "ctc_posteriors"]


def row(x):
    return [x, 0.0, -1.0]


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def frames(x):
    return np.array([[0.0, x, 0.0]] * 4)


# The first curve of each picture, called for one number as a user would.
FIRST = {
    "l1_loss": lambda x: fl.l1_loss(x, 0.0),
    "mse_loss": lambda x: fl.mse_loss(x, 0.0),
    "smooth_l1_loss": lambda x: fl.smooth_l1_loss(x, 0.0, beta=0.5),
    "huber_loss": lambda x: fl.huber_loss(x, 0.0, delta=0.5),
    "log_cosh_loss": lambda x: fl.log_cosh_loss(x, 0.0),
    "pinball_loss": lambda x: fl.pinball_loss(x, 0.0, quantile=0.1),
    "poisson_nll_loss": lambda x: fl.poisson_nll_loss(x, 1.0),
    "gaussian_nll_loss": lambda x: fl.gaussian_nll_loss(x, 0.0, 0.25),
    "gamma_nll_loss": lambda x: fl.gamma_nll_loss(x, 1.0),
    "tweedie_deviance_loss": lambda x: fl.tweedie_deviance_loss(x, 1.0, power=0),
    "kl_div": lambda x: fl.kl_div(x, 0.1),
    "binary_cross_entropy": lambda x: fl.binary_cross_entropy(x, 0.0),
    "binary_cross_entropy_with_logits": lambda x: fl.binary_cross_entropy_with_logits(x, 0.0),
    "sigmoid_focal_loss": lambda x: fl.sigmoid_focal_loss(x, 1.0, alpha=-1, gamma=0),
    "hinge_embedding_loss": lambda x: fl.hinge_embedding_loss(x, 1),
    "soft_margin_loss": lambda x: fl.soft_margin_loss(x, 1),
    "margin_ranking_loss": lambda x: fl.margin_ranking_loss(x, 0.0, 1),
    "cosine_embedding_loss": lambda x: fl.cosine_embedding_loss(
        [np.cos(x), np.sin(x)], [1.0, 0.0], 1
    ),
    "multi_margin_loss": lambda x: fl.multi_margin_loss(row(x), 0),
    "multilabel_margin_loss": lambda x: fl.multilabel_margin_loss(row(x), [0, -1, -1]),
    "multilabel_soft_margin_loss": lambda x: fl.multilabel_soft_margin_loss(row(x), [1, 0, 0]),
    "triplet_margin_loss": lambda x: fl.triplet_margin_loss([0.0, 0], [1.0, 0], [x, 0], margin=0.5),
    "nll_loss": lambda x: fl.nll_loss(row(x), 0),
    "cross_entropy": lambda x: fl.cross_entropy(row(x), 0),
    "ctc_loss": lambda x: fl.ctc_loss(log_softmax(frames(x)), [1], 4, 1, reduction="sum"),
    "ctc_loss_with_logits": lambda x: fl.ctc_loss_with_logits(
        frames(x), [1], 4, 1, reduction="sum"
    ),
}


def test_every_loss_has_a_picture():
    assert list(VIEWS) == list(FIRST)
    assert set(VIEWS) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_values_are_those_of_the_loss(name):
    x, values = plot(name).axes[0].lines[0].get_data()
    for i in (0, 100, len(x) // 2, len(x) - 1):
        assert values[i] == pytest.approx(FIRST[name](x[i]), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", LOSSES)
def test_slopes_are_those_of_the_values(name):
    """A difference over two steps is the slope somewhere within them, also at a kink."""
    left, right = plot(name).axes
    assert len(left.lines) == len(right.lines) > 1
    for value, slope in zip(left.lines, right.lines, strict=True):
        x, values = value.get_data()
        assert np.array_equal(slope.get_xdata(), x)
        slopes = slope.get_ydata()
        measured = (values[2:] - values[:-2]) / (x[2:] - x[:-2])
        near = np.stack([slopes[:-2], slopes[1:-1], slopes[2:]])
        slack = 1e-4 * np.abs(near).max() + 1e-9
        assert np.all(measured >= near.min(axis=0) - slack)
        assert np.all(measured <= near.max(axis=0) + slack)


@pytest.mark.parametrize("name", LOSSES)
def test_it_says_what_is_drawn(name):
    figure = plot(name)
    left, right = figure.axes
    assert figure.get_suptitle().startswith(name)
    assert left.get_xlabel() == right.get_xlabel() != ""
    assert left.get_ylabel() == "loss"
    assert right.get_ylabel() == "derivative of the loss"
    labels = [line.get_label() for line in left.lines]
    assert len(set(labels)) == len(labels)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == labels
    looks = [(line.get_color(), line.get_linestyle()) for line in left.lines]
    assert looks == [(line.get_color(), line.get_linestyle()) for line in right.lines]
    assert len({colour for colour, _ in looks}) == len({style for _, style in looks}) == len(looks)


def test_options_hold_for_all_curves():
    figure = plot("huber_loss", delta=2.0)
    (line,) = figure.axes[0].lines
    x, values = line.get_data()
    assert figure.get_suptitle() == "huber_loss: target = 0, delta = 2"
    assert not figure.legends
    np.testing.assert_allclose(values, np.where(abs(x) <= 2, x**2 / 2, 2 * (abs(x) - 1)))


def test_other_arguments_are_options_too():
    lines = plot("gaussian_nll_loss", target=1.0, full=True).axes[0].lines
    assert len(lines) == 3
    for line, var in zip(lines, (0.25, 1.0, 4.0), strict=True):
        x, values = line.get_data()
        expected = (np.log(2 * np.pi * var) + (x - 1) ** 2 / var) / 2
        np.testing.assert_allclose(values, expected, atol=1e-14)


def test_a_criterion_brings_its_options():
    criterion = fl.HuberLoss(delta=2.0, reduction="sum")
    (line,) = plot(criterion).axes[0].lines
    (same,) = plot(fl.huber_loss, delta=2.0).axes[0].lines
    assert np.array_equal(line.get_data(), same.get_data())


def test_options_may_be_arrays():
    figure = plot("cross_entropy", weight=np.array([2.0, 1.0, 1.0]))
    assert figure.get_suptitle() == "cross_entropy: weight = [2, 1, 1]"
    x, values = figure.axes[0].lines[0].get_data()
    assert values[0] == pytest.approx(2 * FIRST["cross_entropy"](x[0]))


def test_span():
    x = plot(fl.gamma_nll_loss, span=(1.0, 2.0), log_input=False).axes[0].lines[0].get_xdata()
    assert (x[0], x[-1]) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("huber_loss", {"beta": 1.0}), TypeError, "beta"),
        (("huber_loss", {"delta": -1.0}), ValueError, "delta"),
        (("huber_loss", {"input": 0.0}), TypeError, "input"),
        (("huber_loss", {"reduction": "sum"}), TypeError, "reduction"),
        (("cross_entropy", {"target": 3}), IndexError, "not a class"),
        (("hubert_loss", {}), ValueError, "huber_loss"),
    ],
)
def test_errors(arguments, error, message):
    name, options = arguments
    with pytest.raises(error, match=message):
        plot(name, **options)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'fastloss\[plot\]'"):
        plot("l1_loss")


def test_it_leaves_windows_alone(tmp_path):
    program = (
        "import sys, fastloss.plotting\n"
        "assert 'matplotlib' not in sys.modules\n"
        "fastloss.plotting.plot('l1_loss').savefig(sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    for name in ("picture.png", "picture.svg", "picture.pdf"):
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], check=True)
        assert (tmp_path / name).stat().st_size > 1000
