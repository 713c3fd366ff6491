"""Plots of the losses: each curve shows the values of the loss and of its derivative."""

import subprocess
import sys

import numpy as np
import pytest

import fastloss as fl
from fastloss import plotting
from fastloss._binding import Loss
from fastloss.plotting import plot

LOSSES = [name for name in fl.losses.__all__ if isinstance(getattr(fl, name), Loss)]


def at(name, curve, x):
    """The loss at one number of the x-axis, called as a user would, without a batch."""
    loss = getattr(fl, name)
    view = plotting._view(loss)
    keywords = {**view.fixed, **curve, "reduction": "sum"}
    keywords[view.varied] = view.path(np.array([x]))[0][0]
    arrays = [keywords.pop(operand) for operand in loss.operands]
    return loss(*arrays, **keywords)


@pytest.mark.parametrize("name", LOSSES)
def test_values_are_those_of_the_loss(name):
    view = plotting._view(getattr(fl, name))
    lines = plot(name).axes[0].lines
    assert len(lines) == len(view.curves)
    for curve, line in zip(view.curves, lines, strict=True):
        x, values = line.get_data()
        assert (x[0], x[-1]) == view.span
        for i in (0, 100, len(x) // 2, len(x) - 1):
            assert values[i] == pytest.approx(at(name, curve, x[i]), rel=1e-12, abs=1e-15)


def test_elementwise_losses_need_no_view():
    for name in LOSSES:
        loss = getattr(fl, name)
        if loss.row_axis is None:
            view = plotting._elementwise_view(loss)
            assert view.varied == loss.default_wrt[0]
            assert len(view.curves) > 1
            plotting._curve(loss, view, np.linspace(*view.span, 5), view.curves[0])
    with pytest.raises(LookupError, match=r"cross_entropy needs a view in fastloss\.plotting"):
        plotting._elementwise_view(fl.cross_entropy)


def test_views_are_of_losses():
    assert set(plotting.VIEWS) <= set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_derivatives_are_those_of_the_values(name):
    """A difference over two steps is the derivative somewhere within them, also at a kink."""
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
def test_labels_and_styles(name):
    figure = plot(name)
    left, right = figure.axes
    assert figure.get_suptitle().startswith(name)
    assert left.get_xlabel() == right.get_xlabel() != ""
    assert left.get_ylabel() == "loss"
    assert right.get_ylabel() == "derivative of the loss"
    labels = [line.get_label() for line in left.lines]
    assert len(set(labels)) == len(labels)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == labels
    styles = [(line.get_color(), line.get_linestyle()) for line in left.lines]
    assert styles == [(line.get_color(), line.get_linestyle()) for line in right.lines]
    assert (
        len({colour for colour, _ in styles}) == len({style for _, style in styles}) == len(styles)
    )


def test_options_apply_to_all_curves():
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


def test_options_of_a_criterion():
    criterion = fl.HuberLoss(delta=2.0, reduction="sum")
    (line,) = plot(criterion).axes[0].lines
    (same,) = plot(fl.huber_loss, delta=2.0).axes[0].lines
    assert np.array_equal(line.get_data(), same.get_data())


def test_options_may_be_arrays():
    figure = plot("cross_entropy", weight=np.array([2.0, 1.0, 1.0]))
    assert figure.get_suptitle() == "cross_entropy: weight = [2, 1, 1]"
    x, values = figure.axes[0].lines[0].get_data()
    assert values[0] == pytest.approx(2 * fl.cross_entropy([x[0], 0.0, -1.0], 0))


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


def test_no_window_is_opened(tmp_path):
    program = (
        "import sys, fastloss.plotting\n"
        "assert 'matplotlib' not in sys.modules\n"
        "fastloss.plotting.plot('l1_loss').savefig(sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    for name in ("plot.png", "plot.svg", "plot.pdf"):
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], check=True)
        assert (tmp_path / name).stat().st_size > 1000
