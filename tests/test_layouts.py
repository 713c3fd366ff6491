"""Strides, byte order and alignment of arrays, number of axes, empty arrays."""

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


def every_other_row(a):
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


def byte_swapped(a):
    return a.astype(a.dtype.newbyteorder())


def byte_swapped_and_strided(a):
    return byte_swapped(strided(a))


def misaligned_and_transposed(a):
    return misaligned(a.T).T


LAYOUTS = [
    strided,
    reversed_axes,
    every_other_row,
    transposed,
    np.asfortranarray,
    read_only,
    misaligned,
    byte_swapped,
    byte_swapped_and_strided,
    misaligned_and_transposed,
]
NO_OUT = (read_only, byte_swapped, byte_swapped_and_strided)


def sevens(a):
    return np.full_like(a, 7)


def gaps(view):
    """The gaps in the buffer of a view, all 7 unless they were written to."""
    inside = np.zeros(view.base.shape, bool)
    if view.base.shape[-1] == 3 * view.shape[-1]:
        inside[..., 1::3] = True
    else:
        inside[::2] = True
    return view.base[~inside]


@cases
@floats
def test_layouts(case, dtype, isa):
    """Bitwise the results of contiguous arrays: for operands, weights and `out` of any layout."""
    around_tile = [(3, TILE[dtype] - 1), (2, TILE[dtype] + 1)]
    shapes = {
        "element": ((700,), (23, 41), (5, 7, 11), *around_tile),
        "row": ((700,), (23, 41), (5, 7, 11)),
        "sequence": ((60,),),
    }
    for shape in shapes[case.unit]:
        draw = DrawnCase(case, shape, dtype)
        sample_weight = draw.rng.uniform(0.5, 2, shape).astype(dtype)
        grad_output = draw.rng.normal(size=shape).astype(dtype)
        expected = draw.both("none", sample_weight=sample_weight, grad_output=grad_output)
        expected_sums = draw.sums(sample_weight=sample_weight)
        for layout in LAYOUTS:
            where = (layout.__name__, shape)
            keywords = {k: layout(v) for k, v in draw.keywords.items() if isinstance(v, np.ndarray)}
            laid_out = draw.with_arrays(map(layout, draw.arrays), **keywords)
            for contiguous, array in zip(draw.arrays, laid_out.arrays, strict=True):
                np.testing.assert_array_equal(contiguous, array)
            weights = {"sample_weight": layout(sample_weight)}
            results = laid_out.both("none", **weights, grad_output=layout(grad_output))
            assert_bitwise(results, expected, where)
            assert laid_out.sums(**weights) == expected_sums, where
            if layout not in NO_OUT:
                out = layout(sevens(expected[0])), tuple(layout(sevens(g)) for g in expected[1])
                draw.both("none", sample_weight=sample_weight, grad_output=grad_output, out=out)
                assert_bitwise(out, expected, where)
            if layout in (strided, every_other_row):
                assert all((gaps(view) == 7).all() for view in (out[0], *out[1]))


@cases
@floats
def test_zero_strides(case, dtype):
    """One row, broadcast without a copy, gives the results of copies of it."""
    draw = DrawnCase(case, (6,), dtype)
    row = draw.at(slice(1)).arrays
    broadcast = [np.broadcast_to(a, b.shape) for a, b in zip(row, draw.arrays, strict=True)]
    copied = draw.with_arrays(map(np.ascontiguousarray, broadcast))
    assert_bitwise(draw.with_arrays(broadcast).both("none"), copied.both("none"))


@cases
@floats
def test_empty_arrays(case, dtype):
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
def test_zero_dimensional_loss(case, dtype):
    """A loss without axes is a NumPy scalar, bitwise the entry of a loss of shape (1,)."""
    one = DrawnCase(case, (1,), dtype)
    scalar = one.at(0)
    losses, gradients = one.both("none")
    value, slopes = scalar.both("none")
    assert type(value) is dtype
    assert_bitwise(value, losses[0])
    assert_bitwise(slopes, one.gradients_at(gradients, 0))
    assert all(isinstance(s, dtype if case.unit == "element" else np.ndarray) for s in slopes)
    for reduction in REDUCTIONS:
        expected = one.gradients_at(one.both(reduction)[1], 0)
        assert_bitwise(scalar.both(reduction)[1], expected, reduction)
    assert_bitwise(scalar.value("mean"), one.value("mean"))
    out = np.zeros((), dtype)
    scalar.value(out=out)
    assert_bitwise(out, losses[0])


def test_large_gradients_in_views():
    """32 MiB and more are written with non-temporal stores where entries are contiguous."""
    x = np.random.default_rng(0).normal(size=(1 << 23) + 5).astype(np.float32)
    expected = fl.mse_loss.grad(x, np.float32(0), reduction="sum")
    buffer = np.full(2 * x.size + 1, 7, np.float32)
    for out in (buffer[1::2], buffer[: x.size][::-1], buffer[::-2][: x.size]):
        buffer[:] = 7
        fl.mse_loss.grad(x, np.float32(0), reduction="sum", out=out)
        assert_bitwise(out, expected)
        out[...] = 7
        assert (buffer == 7).all()


def test_large_half_gradients_at_every_offset():
    x = np.tile(np.random.default_rng(0).normal(size=1001).astype(np.float16), 16800)
    expected = fl.mse_loss.grad(x, np.float16(0), reduction="sum")
    buffer = np.empty(x.size + 66, np.float16)
    for offset in (0, 1, 2, 3, 31, 33):
        buffer[:] = 7
        out = buffer[offset : offset + x.size]
        fl.mse_loss.grad(x, np.float16(0), reduction="sum", out=out)
        assert_bitwise(out, expected)
        assert (buffer[:offset] == 7).all()
        assert (buffer[offset + x.size :] == 7).all()


def test_memory_map_as_out(tmp_path):
    out = np.memmap(tmp_path / "out", np.float64, "w+", shape=(3,))
    assert fl.mse_loss.grad(np.ones(3), np.zeros(3), reduction="sum", out=out) is out
    np.testing.assert_array_equal(out, [2, 2, 2])
