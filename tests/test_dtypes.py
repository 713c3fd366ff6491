"""Promotion of dtypes, half types, integers and Python scalars."""

import math

import numpy as np
import pytest

from tests.bitwise import assert_bitwise
from tests.cases import (
    CASES,
    CLASS,
    FLOATS,
    LABEL_SETS,
    LABELS,
    REAL,
    SHARES,
    SIGN,
    SPELLED,
    UNIT,
    UNITS,
    VECTORS,
)
from tests.drawn_case import REDUCTIONS, DrawnCase, cases, elementwise, floats


@cases
def test_types_are_promoted(case):
    draw = DrawnCase(case, (37,), np.float32)
    floating = [k for k, a in enumerate(draw.arrays) if a.dtype.kind == "f"]
    if len(floating) == 1:
        return
    doubled = [a.astype(np.float64) if k in floating else a for k, a in enumerate(draw.arrays)]
    value, gradients = draw.loss.value_and_grad(
        *doubled, **draw.keywords, reduction="none", wrt=draw.wrt
    )
    for k in floating:
        arrays = [
            a if i == k else d for i, (a, d) in enumerate(zip(draw.arrays, doubled, strict=True))
        ]
        got, slopes = draw.loss.value_and_grad(
            *arrays, **draw.keywords, reduction="none", wrt=draw.wrt
        )
        assert_bitwise(got, value)
        for name, slope, gradient in zip(draw.wrt, slopes, gradients, strict=True):
            own = arrays[draw.loss.operands.index(name)].dtype
            with np.errstate(over="ignore"):
                assert_bitwise(slope, gradient.astype(own))


@cases
@floats
def test_weights_do_not_promote(case, dtype):
    draw = DrawnCase(case, (37,), dtype)
    for other in FLOATS:
        keywords = {
            k: v.astype(other) if isinstance(v, np.ndarray) else v for k, v in draw.keywords.items()
        }
        keywords["sample_weight"] = np.ones(37, other)
        got = draw.loss(*draw.arrays, **keywords, reduction="none")
        assert got.dtype == dtype


@cases
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_types_are_rounded_once(case, half, isa):
    """Values and gradients of half arrays are the float32 results, rounded."""
    if half == "bfloat16":
        half = pytest.importorskip("ml_dtypes").bfloat16
    draw = DrawnCase(case, (2500,), np.float32, hard=True)
    for name in ("usual", "hard"):
        if name == "usual":
            draw = DrawnCase(case, (25, 100), np.float32)
        with np.errstate(over="ignore"):
            low = [a.astype(half) if a.dtype.kind == "f" else a for a in draw.arrays]
        arrays = low
        if case.kind == "elements":
            arrays = [
                np.where(np.isfinite(b) & (b >= kind.low), a, 1).astype(a.dtype)
                for a, b, kind in zip(low, map(np.float64, low), case.operands, strict=True)
            ]
        wide = [a.astype(np.float32) if a.dtype == half else a for a in arrays]
        if case.normalised:  # as far as a half type reaches: too badly for a gradient of float32
            value = draw.loss(*wide, **draw.keywords, reduction="none")
            with np.errstate(over="ignore", under="ignore"):
                assert_bitwise(
                    draw.loss(*arrays, **draw.keywords, reduction="none"), value.astype(half)
                )
            continue
        for reduction in REDUCTIONS:
            value, gradients = draw.loss.value_and_grad(
                *wide, **draw.keywords, reduction=reduction, wrt=draw.wrt
            )
            got, slopes = draw.loss.value_and_grad(
                *arrays, **draw.keywords, reduction=reduction, wrt=draw.wrt
            )
            with np.errstate(over="ignore", under="ignore"):
                if reduction == "none":
                    value = value.astype(half)
                    assert_bitwise(got, value)
                else:
                    assert_bitwise(got, value)
                assert_bitwise(slopes, tuple(g.astype(half) for g in gradients), (name, reduction))
            outs = tuple(np.empty(g.shape, np.float32) for g in gradients)
            draw.loss.grad(*arrays, **draw.keywords, reduction=reduction, wrt=draw.wrt, out=outs)
            assert_bitwise(outs, gradients)


INTEGERS = [np.dtype(c) for c in "bBhHiIlLqQ"]


@cases
@floats
def test_integer_targets(case, dtype):
    """Any integer dtype reads as its values; it does not take part in the compute type."""
    draw = DrawnCase(case, (40, 3), dtype)
    names = draw.loss.operands
    k = next((i for i, name in enumerate(names) if name[:6] == "target"), 1)
    kind, shape = case.operands[k], draw.arrays[k].shape
    if kind in (VECTORS, SHARES):
        return  # no targets, and such that would be indices
    for integer in (*INTEGERS, np.dtype(bool)):
        if kind in (LABELS, CLASS, LABEL_SETS, SPELLED):
            if integer.kind == "b":
                continue
            target = draw.arrays[k] if integer.kind == "i" else np.maximum(draw.arrays[k], 0)
        elif kind is SIGN and integer.kind == "b":
            with pytest.raises(TypeError, match="-1 and 1"):
                draw.loss(*draw.arrays[:k], np.ones(shape, bool), **draw.keywords)
            continue
        elif kind is SIGN:
            target = np.ones(shape) if integer.kind != "i" else draw.arrays[k]
        else:
            lowest = -1 if integer.kind == "i" and kind is REAL else math.ceil(max(kind.low, 0))
            highest = 2 if kind in (UNIT, UNITS) or integer.kind == "b" else 5
            if kind.high == 0:
                lowest, highest = (-5 if integer.kind == "i" else 0), 1
            target = draw.rng.integers(lowest, highest, shape)
        arrays = list(draw.arrays)
        arrays[k] = target.astype(arrays[k].dtype)
        wrt = draw.loss.operands[0]
        expected = draw.loss.value_and_grad(*arrays, **draw.keywords, reduction="none", wrt=wrt)
        for dtype_of in (integer, integer.newbyteorder()):
            arrays[k] = target.astype(dtype_of)
            got = draw.loss.value_and_grad(*arrays, **draw.keywords, reduction="none", wrt=wrt)
            assert_bitwise(got, expected, dtype_of)
        if "target" in draw.wrt:
            with pytest.raises(TypeError):
                draw.loss.grad(*arrays, **draw.keywords, wrt="target")


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.kind == "elements" or VECTORS in c.operands],
    ids=lambda case: case.id,
)
def test_integer_inputs_read_as_float64(case):
    draw = DrawnCase(case, (40,), np.float64)
    integers = [
        draw.rng.integers(math.ceil(max(kind.low, -3)), math.floor(min(kind.high, 3)) + 1, a.shape)
        if kind is not SIGN
        else a.astype(int)
        for a, kind in zip(draw.arrays, case.operands, strict=True)
    ]
    expected = draw.loss(*(a.astype(float) for a in integers), **draw.keywords, reduction="none")
    assert_bitwise(draw.loss(*integers, **draw.keywords, reduction="none"), expected)
    assert_bitwise(
        draw.loss(*(a.tolist() for a in integers), **draw.keywords, reduction="none"), expected
    )
    narrow = [a.astype(np.float32) for a in integers]
    narrow[0] = integers[0]
    assert_bitwise(draw.loss(*narrow, **draw.keywords, reduction="none"), expected)


@elementwise
@floats
def test_python_numbers_are_weak(case, dtype):
    draw = DrawnCase(case, (40,), dtype)
    for k in range(len(draw.arrays)):
        arrays = list(draw.arrays)
        value = 1 if case.operands[k] is SIGN else 0.0 if case.operands[k].high == 0 else 0.5
        arrays[k] = np.array(value, dtype)
        expected = draw.loss(*arrays, **draw.keywords, reduction="none")
        arrays[k] = value
        got = draw.loss(*arrays, **draw.keywords, reduction="none")
        assert got.dtype == dtype
        assert_bitwise(got, expected)
    numbers = [1.0 if kind is SIGN else min(0.5, kind.high) for kind in case.operands]
    scalar = draw.at(0)
    got = draw.loss(*numbers, **scalar.keywords, reduction="none")
    assert_bitwise(got, draw.loss(*map(np.float64, numbers), **scalar.keywords, reduction="none"))
