"""NaN in any argument of every loss."""

import math

import numpy as np

from tests.bitwise import assert_bitwise
from tests.cases import LOG_SCORES, UNITS
from tests.drawn_case import DrawnCase, cases, floats


@cases
@floats
def test_nan_stays_where_it_is(case, dtype, isa):
    draw = DrawnCase(case, (2100 if case.kind != "sequences" else 210,), dtype)
    units = len(draw.value())
    value, gradients = draw.both("none")
    places = counted(draw)
    for k, array in enumerate(draw.arrays):
        if array.dtype.kind != "f":
            continue
        for i in (places[0], places[len(places) // 2], places[-1]):
            arrays = [a.copy() for a in draw.arrays]
            entry = spoilt_entry(draw, k, i)
            case.leading(arrays[k])[entry] = np.nan
            got, slopes = draw.loss.value_and_grad(
                *arrays, **draw.keywords, reduction="none", wrt=draw.wrt
            )
            assert math.isnan(got[i]), (k, i)
            others = np.arange(units) != i
            assert_bitwise(got[others], value[others])
            assert_bitwise(draw.gradients_at(slopes, others), draw.gradients_at(gradients, others))
            for slope, gradient in zip(slopes, gradients, strict=True):
                slope, gradient = (np.array(case.leading(g)[i]) for g in (slope, gradient))
                if case.operands[0] is LOG_SCORES or case.operands[1] is UNITS:
                    # whose classes know nothing of each other
                    assert np.isnan(slope[entry[1:]])
                    slope[entry[1:]] = gradient[entry[1:]]
                    assert_bitwise(slope, gradient)
                else:
                    assert np.isnan(slope[looked_at(draw, i)]).all(), (k, i)
            assert math.isnan(draw.loss(*arrays, **draw.keywords))


def counted(draw):
    """The units that no weight and no index removes, nor the want of frames."""
    case, counts = draw.case, np.ones(draw.shape, bool)
    for name in ("weight", "pos_weight"):
        weight = draw.keywords.get(name)
        if weight is not None and case.weighs_classes:
            if case.by_class:
                counts &= weight[draw.arrays[1]] != 0
        elif weight is not None:
            counts &= weight.reshape(len(counts), -1)[:, 0] != 0
    if case.ignored is not None:
        counts &= draw.arrays[1] != case.ignored
    return np.flatnonzero(counts)


def spoilt_entry(draw, k, i):
    """An entry of unit i of operand k that is looked at: of the row, that of its label."""
    row = draw.case.leading(draw.arrays[k])[i]
    if draw.case.by_class:
        return (i, draw.arrays[1][i])
    if draw.case.kind == "sequences":
        return (i, 0, draw.keywords.get("blank", 0))
    return (i, *[0] * row.ndim)


def looked_at(draw, i):
    """The entries of unit i that count: all but those of weight 0, and frames after the last."""
    if draw.case.kind == "sequences":
        return slice(draw.arrays[2][i])
    if "weight" in draw.keywords and not draw.case.weighs_classes:
        return draw.keywords["weight"][i] != 0
    return ...
