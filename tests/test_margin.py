"""Margin losses of classes at their kinks."""

import numpy as np
import pytest

import fastloss as fl
from tests.drawn_case import floats

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
