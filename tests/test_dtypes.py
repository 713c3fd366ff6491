"""Promotion of dtypes, half types, integers and Python scalars."""

import math

import numpy as np
import pytest

import fastloss as fl
from tests.bitwise import assert_bitwise
from tests.cases import FLOATS
from tests.domains import (
    ANY,
    CLASS_INDEX,
    FEATURE_ROWS,
    INTEGERS,
    LABEL_ROWS,
    PROBABILITY_ROWS,
    SIGN,
    TARGET_LABELS,
    UNIT_INTERVAL,
    UNIT_INTERVAL_ROWS,
)
from tests.drawn_case import REDUCTIONS, DrawnCase, cases, cases_where, elementwise, floats


def floating_operands(case):
    return [k for k, domain in enumerate(case.operands) if domain not in INTEGERS]


@cases_where(lambda case: len(floating_operands(case)) > 1)
def test_promotion(case):
    """One float64 operand makes the computation float64; a gradient has its argument's dtype."""
    draw = DrawnCase(case, (37,), np.float32)
    floating = floating_operands(case)
    all_float64 = draw.with_arrays(
        a.astype(np.float64) if k in floating else a for k, a in enumerate(draw.arrays)
    )
    value, gradients = all_float64.both("none")
    for k in floating:
        arrays = list(all_float64.arrays)
        arrays[k] = draw.arrays[k]
        mixed = draw.with_arrays(arrays)
        mixed_value, mixed_gradients = mixed.both("none")
        assert_bitwise(mixed_value, value)
        for name, mixed_gradient, gradient in zip(
            draw.wrt, mixed_gradients, gradients, strict=True
        ):
            dtype = mixed.arrays[draw.loss.operands.index(name)].dtype
            with np.errstate(over="ignore"):
                assert_bitwise(mixed_gradient, gradient.astype(dtype))


@cases
@floats
def test_weights_do_not_promote(case, dtype):
    draw = DrawnCase(case, (37,), dtype)
    weights = {k: v for k, v in draw.keywords.items() if isinstance(v, np.ndarray)}
    weights["sample_weight"] = np.ones(37)
    for other in FLOATS:
        cast = {k: v.astype(other) for k, v in weights.items()}
        assert draw.with_arrays(draw.arrays, **cast).value().dtype == dtype


@cases
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_types_are_rounded_once(case, half, isa):
    """Results of half arrays are the float32 results, rounded; so are those in a float32 `out`."""
    if half == "bfloat16":
        half = pytest.importorskip("ml_dtypes").bfloat16
    adversarial = DrawnCase(case, (2500,), np.float32, adversarial=True)
    for draw in (DrawnCase(case, (25, 100), np.float32), adversarial):
        with np.errstate(over="ignore"):
            arrays = [a.astype(half) if a.dtype.kind == "f" else a for a in draw.arrays]
        if case.unit == "element":
            arrays = [
                # A scalar of the same type: of an int, NumPy 2.0 and 2.1 crash for bfloat16.
                np.where(np.isfinite(b) & (b >= domain.low), a, a.dtype.type(1))
                for a, b, domain in zip(arrays, map(np.float64, arrays), case.operands, strict=True)
            ]
        halves = draw.with_arrays(arrays)
        float32 = draw.with_arrays(a.astype(np.float32) if a.dtype == half else a for a in arrays)
        if case.normalised:  # rounded probabilities do not sum to 1, as gradients require
            with np.errstate(over="ignore", under="ignore"):
                assert_bitwise(halves.value(), float32.value().astype(half))
            continue
        for reduction in REDUCTIONS:
            value, gradients = float32.both(reduction)
            with np.errstate(over="ignore", under="ignore"):
                rounded = tuple(g.astype(half) for g in gradients)
                expected = value.astype(half) if reduction == "none" else value
            assert_bitwise(halves.both(reduction), (expected, rounded), reduction)
            outs = tuple(np.empty(g.shape, np.float32) for g in gradients)
            halves.grad(reduction, out=outs)
            assert_bitwise(outs, gradients)


INTEGER_DTYPES = [np.dtype(c) for c in "bBhHiIlLqQ"]


def target_position(case):
    """The position of the target, or of the second operand."""
    names = getattr(fl, case.loss).operands
    return next((k for k, name in enumerate(names) if name.startswith("target")), 1)


def has_integer_targets(case):
    """Whether integers may be targets: not if they are vectors, or would be class indices."""
    return case.operands[target_position(case)] not in (FEATURE_ROWS, PROBABILITY_ROWS)


@cases_where(has_integer_targets)
@floats
def test_integer_targets(case, dtype):
    """Targets of any integer dtype are read exactly and do not take part in the promotion."""
    draw = DrawnCase(case, (40, 3), dtype)
    k = target_position(case)
    domain, shape = case.operands[k], draw.arrays[k].shape
    for integer in (*INTEGER_DTYPES, np.dtype(bool)):
        signed, boolean = integer.kind == "i", integer.kind == "b"
        if domain in (CLASS_INDEX, LABEL_ROWS, TARGET_LABELS):
            if boolean:
                continue
            target = draw.arrays[k] if signed else np.maximum(draw.arrays[k], 0)
        elif domain is SIGN and boolean:
            with pytest.raises(TypeError, match="-1 or 1"):
                draw.loss(*draw.arrays[:k], np.ones(shape, bool), **draw.keywords)
            continue
        elif domain is SIGN:
            target = draw.arrays[k] if signed else np.ones(shape)
        else:
            lowest = -1 if signed and domain is ANY else math.ceil(max(domain.low, 0))
            highest = 2 if boolean or domain in (UNIT_INTERVAL, UNIT_INTERVAL_ROWS) else 5
            if domain.high == 0:
                lowest, highest = (-5 if signed else 0), 1
            target = draw.rng.integers(lowest, highest, shape)
        arrays = list(draw.arrays)
        arrays[k] = target.astype(arrays[k].dtype)
        first = draw.loss.operands[0]
        expected = draw.with_arrays(arrays).both("none", wrt=first)
        for target_dtype in (integer, integer.newbyteorder()):
            arrays[k] = target.astype(target_dtype)
            assert_bitwise(draw.with_arrays(arrays).both("none", wrt=first), expected, target_dtype)
        if "target" in draw.wrt:
            with pytest.raises(TypeError):
                draw.loss.grad(*arrays, **draw.keywords, wrt="target")


@cases_where(lambda case: not case.scores)
def test_integer_inputs_are_float64(case):
    """Integer arrays and lists of integers are computed in float64."""
    draw = DrawnCase(case, (40,), np.float64)
    integers = []
    for array, domain in zip(draw.arrays, case.operands, strict=True):
        lowest, highest = math.ceil(max(domain.low, -3)), math.floor(min(domain.high, 3))
        drawn = draw.rng.integers(lowest, highest + 1, array.shape)
        integers.append(array.astype(int) if domain is SIGN else drawn)
    expected = draw.with_arrays(a.astype(float) for a in integers).value()
    assert_bitwise(draw.with_arrays(integers).value(), expected)
    assert_bitwise(draw.with_arrays(a.tolist() for a in integers).value(), expected)
    one_integer = [integers[0], *(a.astype(np.float32) for a in integers[1:])]
    assert_bitwise(draw.with_arrays(one_integer).value(), expected)


@elementwise
@floats
def test_python_scalars_are_weak(case, dtype):
    """A Python scalar has the dtype of the arrays; scalars alone are float64."""
    draw = DrawnCase(case, (40,), dtype)
    scalars = [1.0 if domain is SIGN else min(0.5, domain.high) for domain in case.operands]
    for k, domain in enumerate(case.operands):
        arrays = list(draw.arrays)
        arrays[k] = np.array(scalars[k], dtype)
        expected = draw.with_arrays(arrays).value()
        arrays[k] = 1 if domain is SIGN else scalars[k]
        assert_bitwise(draw.with_arrays(arrays).value(), expected)
    one = draw.at(0)
    expected = one.with_arrays(map(np.float64, scalars)).value()
    assert_bitwise(one.with_arrays(scalars).value(), expected)
