"""NaN in any floating argument of every loss."""

import math

import numpy as np

from tests.bitwise import assert_bitwise
from tests.domains import LOG_PROBABILITY_ROWS, UNIT_INTERVAL_ROWS
from tests.drawn_case import DrawnCase, cases, floats


@cases
@floats
def test_nan_affects_only_its_own_loss(case, dtype, isa):
    """One NaN makes its loss and its gradients NaN; all other results are bitwise the same."""
    draw = DrawnCase(case, (2100 if case.unit != "sequence" else 210,), dtype)
    losses, gradients = draw.both("none")
    active = active_units(draw)
    for k, array in enumerate(draw.arrays):
        if array.dtype.kind != "f":
            continue
        for unit in (active[0], active[len(active) // 2], active[-1]):
            entry = entry_read(draw, k, unit)
            with_nan = draw.with_arrays(a.copy() for a in draw.arrays)
            case.leading(with_nan.arrays[k])[entry] = np.nan
            losses_nan, gradients_nan = with_nan.both("none")
            assert math.isnan(losses_nan[unit]), (k, unit)
            others = np.arange(len(losses)) != unit
            assert_bitwise(losses_nan[others], losses[others])
            assert_bitwise(
                draw.gradients_at(gradients_nan, others), draw.gradients_at(gradients, others)
            )
            for gradient_nan, gradient in zip(gradients_nan, gradients, strict=True):
                row_nan, row = (np.array(case.leading(g)[unit]) for g in (gradient_nan, gradient))
                if {LOG_PROBABILITY_ROWS, UNIT_INTERVAL_ROWS} & set(case.operands):
                    # The gradient of a class depends on no other class.
                    assert np.isnan(row_nan[entry[1:]])
                    row_nan[entry[1:]] = row[entry[1:]]
                    assert_bitwise(row_nan, row)
                else:
                    assert np.isnan(row_nan[entries_with_gradient(draw, unit)]).all(), (k, unit)
            assert math.isnan(with_nan.value("mean"))


def active_units(draw):
    """The units that neither a weight of 0 nor `ignore_index` removes."""
    case, active = draw.case, np.ones(draw.shape, bool)
    for name in ("weight", "pos_weight"):
        weight = draw.keywords.get(name)
        if weight is not None and case.weighs_classes:
            if case.by_class:
                active &= weight[draw.arrays[1]] != 0
        elif weight is not None:
            active &= weight.reshape(len(active), -1)[:, 0] != 0
    if case.ignored is not None:
        active &= draw.arrays[1] != case.ignored
    return np.flatnonzero(active)


def entry_read(draw, k, unit):
    """The index of an entry of operand k that the loss of the unit depends on."""
    row = draw.case.leading(draw.arrays[k])[unit]
    if draw.case.by_class:
        return (unit, draw.arrays[1][unit])
    if draw.case.unit == "sequence":
        return (unit, 0, draw.keywords.get("blank", 0))
    return (unit, *[0] * row.ndim)


def entries_with_gradient(draw, unit):
    """The entries of the unit without padding frames and entries of weight 0."""
    if draw.case.unit == "sequence":
        return slice(draw.arrays[2][unit])
    if "weight" in draw.keywords and not draw.case.weighs_classes:
        return draw.keywords["weight"][unit] != 0
    return ...
