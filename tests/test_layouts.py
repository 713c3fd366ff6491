"""Arrays of any strides, byte order and alignment, of any number of axes, and empty ones."""

import math

import numpy as np

import fastloss as fl
from tests.bitwise import assert_bitwise
from tests.drawn_case import REDUCTIONS, TILE, DrawnCase, cases, floats


def strided(a):
    buffer = np.full((*a.shape[:-1], 3 * a.shape[-1]), 7, a.dtype)
    buffer[..., 1::3] = a
    return buffer[..., 1::3]


def reversed_axes(a):
    flip = (slice(None, None, -1),) * a.ndim
    return np.ascontiguousarray(a[flip])[flip]


def rows_apart(a):
    buffer = np.full((2 * a.shape[0], *a.shape[1:]), 7, a.dtype)
    buffer[::2] = a
    return buffer[::2]


def transposed(a):
    return np.ascontiguousarray(a.swapaxes(0, -1)).swapaxes(0, -1)


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def misaligned(a):
    buffer = np.empty(a.nbytes + 1, np.uint8)[1:]
    view = buffer.view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def swapped(a):
    return a.astype(a.dtype.newbyteorder())


LAYOUTS = [strided, reversed_axes, rows_apart, transposed, np.asfortranarray, read_only]
LAYOUTS += [misaligned, swapped, lambda a: swapped(strided(a)), lambda a: misaligned(a).T.copy().T]


@cases
@floats
def test_layouts_change_nothing(case, dtype, isa):
    beside_tile = [(3, TILE[dtype] - 1), (2, TILE[dtype] + 1)]
    shapes = {
        "elements": ((700,), (23, 41), (5, 7, 11), *beside_tile),
        "rows": ((700,), (23, 41), (5, 7, 11)),
        "sequences": ((60,),),
    }
    for shape in shapes[case.kind]:
        draw = DrawnCase(case, shape, dtype)
        samples = draw.rng.uniform(0.5, 2, shape).astype(dtype)
        upstream = draw.rng.normal(size=shape).astype(dtype)
        expected = draw.both("none", sample_weight=samples, grad_output=upstream)
        added = draw.sums(sample_weight=samples)
        for layout in LAYOUTS:
            other = draw.at(...)
            other.arrays = [layout(a) for a in draw.arrays]
            for before, after in zip(draw.arrays, other.arrays, strict=True):
                np.testing.assert_array_equal(before, after)
            other.keywords = {
                k: layout(v) if isinstance(v, np.ndarray) else v for k, v in draw.keywords.items()
            }
            more = {"sample_weight": layout(samples)}
            got = other.both("none", **more, grad_output=layout(upstream))
            assert_bitwise(got, expected, (layout.__name__, shape))
            assert other.sums(**more) == added, layout.__name__
            # and into such arrays
            if layout in (read_only, swapped):
                continue
            out, outs = layout(expected[0] * 0), tuple(layout(g * 0) for g in expected[1])
            if out.dtype != dtype:
                continue
            draw.both("none", sample_weight=samples, grad_output=upstream, out=(out, outs))
            assert_bitwise((out, outs), expected, (layout.__name__, shape))


@cases
@floats
def test_repeated_rows_need_no_memory(case, dtype):
    """Operands broadcast by strides of 0."""
    draw = DrawnCase(case, (6,), dtype)
    first = draw.at(slice(1)).arrays
    wide = [np.broadcast_to(a, b.shape) for a, b in zip(first, draw.arrays, strict=True)]
    full = [np.ascontiguousarray(a) for a in wide]
    got, expected = (
        draw.loss.value_and_grad(*a, **draw.keywords, reduction="none", wrt=draw.wrt)
        for a in (wide, full)
    )
    assert_bitwise(got, expected)


@cases
@floats
def test_empty(case, dtype):
    for shape in ((0,), (0, 3), (3, 0), (0, 3, 2)):
        draw = DrawnCase(case, shape, dtype)
        value, gradients = draw.both("none")
        assert value.shape == draw.shape
        assert value.dtype == dtype
        for name, gradient in zip(draw.wrt, gradients, strict=True):
            assert gradient.shape == draw.arrays[draw.loss.operands.index(name)].shape
            assert gradient.dtype == dtype
        assert math.isnan(draw.value("mean"))
        assert draw.value("sum") == 0
        assert draw.sums() == (0, 0, 0)


@cases
@floats
def test_no_dimensions(case, dtype):
    """A loss without axes is a NumPy scalar, with the bits of an array of one."""
    one = DrawnCase(case, (1,), dtype)
    none = one.at(0)
    value, gradients = one.both("none")
    got, slopes = none.both("none")
    assert type(got) is dtype
    assert_bitwise(got, value[0])
    assert_bitwise(slopes, one.gradients_at(gradients, 0))
    assert all(isinstance(s, dtype if case.kind == "elements" else np.ndarray) for s in slopes)
    for reduction in REDUCTIONS:
        assert_bitwise(none.both(reduction)[1], one.gradients_at(one.both(reduction)[1], 0))
    assert_bitwise(none.value("mean"), one.value("mean"))
    out = np.zeros((), dtype)
    none.value(out=out)
    assert_bitwise(out, value[0])


def test_a_memory_map_is_an_out(tmp_path):
    out = np.memmap(tmp_path / "out", np.float64, "w+", shape=(3,))
    got = fl.mse_loss.grad(np.ones(3), np.zeros(3), reduction="sum", out=out)
    assert got is out
    np.testing.assert_array_equal(out, [2, 2, 2])
