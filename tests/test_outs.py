"""Outs: no byte outside them is written, and none may share memory with what a call reads, or with
another out, unless it is exactly the argument that it differentiates."""

import itertools

import numpy as np
import pytest

import fastloss as fl
from tests.bitwise import assert_bitwise
from tests.drawn_case import TILE, DrawnCase, cases, floats

CANARY = 0xA5

# ---- writes --------------------------------------------------------------------------------------


def every_third(shape):
    return (*shape[:-1], 3 * shape[-1] + 2), (..., slice(1, 3 * shape[-1] + 1, 3))


def reversed_with_gaps(shape):
    return (*shape[:-1], 2 * shape[-1] + 3), (..., slice(2 * shape[-1], 0, -2))


def every_other_row(shape):
    return (2 * shape[0] + 1, *shape[1:]), (slice(1, None, 2),)


def part_of_each_axis(shape):
    return tuple(n + 5 for n in shape), tuple(slice(2, n + 2) for n in shape)


def in_the_middle(shape):
    size = int(np.prod(shape))
    return (size + 18,), (slice(9, 9 + size),)


PLACES = [every_third, reversed_with_gaps, every_other_row, part_of_each_axis, in_the_middle]


class Guarded:
    """An out in a larger buffer of which no other byte may change."""

    def __init__(self, place, shape, dtype, offset=0):
        around, index = place(shape)
        size = int(np.prod(around)) * dtype.itemsize
        self.memory = np.full(size + offset, CANARY, np.uint8)
        self.inside = np.zeros(size + offset, bool)
        taken = self.inside[offset:].view(np.dtype((np.void, dtype.itemsize))).reshape(around)
        taken[index] = np.full(dtype.itemsize, 1, np.uint8).view(taken.dtype)[0]
        self.out = self.memory[offset:].view(dtype).reshape(around)[index].reshape(shape)
        assert np.shares_memory(self.out, self.memory)

    def assert_intact(self, where):
        assert (self.memory[~self.inside] == CANARY).all(), where


@cases
@floats
def test_no_byte_outside_an_out_is_written(case, dtype, isa, complete):
    shapes = {
        "element": [(TILE[dtype] + 1,), (3, 17), (9000,)],
        "row": [(5,), (3, 17), (600,)],
        "sequence": [(6,)],
    }
    places = itertools.product(shapes[case.unit], PLACES)
    for number, (shape, place) in enumerate(places):
        for classes in (7, 700, 1100) if case.unit == "row" and shape == (5,) else (7,):
            drawn = DrawnCase(case, shape, dtype, classes=classes)
            values, gradients = drawn.both("none")
            for offset in (0, 1) if complete else (number % 2,):
                where = (place.__name__, shape, classes, offset)
                outs = [Guarded(place, a.shape, a.dtype, offset) for a in (values, *gradients)]
                arrays = [guarded.out for guarded in outs]
                drawn.both("none", out=(arrays[0], tuple(arrays[1:])))
                for guarded, expected in zip(outs, (values, *gradients), strict=True):
                    guarded.assert_intact(where)
                    assert_bitwise(guarded.out, expected, where)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("offset", [0, 2, 4, 8, 13, 60])
@pytest.mark.rotate("offset")
def test_no_byte_outside_a_streamed_gradient_is_written(dtype, offset):
    """Gradients of 32 MB and more are written with non-temporal stores."""
    n = (1 << 25) // np.dtype(dtype).itemsize + 37
    x = np.resize(np.linspace(-3, 3, 4099), n).astype(dtype)
    guarded = Guarded(in_the_middle, (n,), np.dtype(dtype), offset)
    fl.huber_loss.grad(x, dtype(0.25), reduction="sum", out=guarded.out)
    guarded.assert_intact(offset)
    expected = fl.huber_loss.grad(x[:4099], dtype(0.25), reduction="sum")
    assert_bitwise(guarded.out, np.resize(expected, n))


# ---- overlaps ------------------------------------------------------------------------------------


def views(memory):
    """Views of 6 entries: contiguous, with steps, backwards, of two axes, transposed."""
    lines = [memory[a:][::step][:6] for a in range(8) for step in (1, 2, 3)]
    lines += [line[::-1] for line in lines]
    for line in lines:
        yield line
        for shape in ((2, 3), (3, 2)):
            yield line.reshape(shape).T
    for a in range(4):
        block = memory[a : a + 16].reshape(4, 4)
        for rows, columns in (
            ((0, 2), (0, 3)),
            ((1, 4, 2), (1, 4)),
            ((3, None, -2), (2, None, -1)),
        ):
            yield block[slice(*rows), slice(*columns)]


def is_same(a, b):
    return a.ctypes.data == b.ctypes.data and a.strides == b.strides and a.shape == b.shape


ROLES = {
    "input": lambda x, y, read: fl.mse_loss.grad(read, y, out=x),
    "target": lambda x, y, read: fl.mse_loss.grad(y, read, out=x),
    "sample_weight": lambda x, y, read: fl.mse_loss.grad(y, y, sample_weight=read, out=x),
    "grad_output": lambda x, y, read: fl.mse_loss.grad(
        y, 0 * y, grad_output=read, reduction="none", out=x
    ),
    "weight": lambda x, y, read: fl.binary_cross_entropy.grad(y, y, read, out=x),
    "pos_weight": lambda x, y, read: fl.binary_cross_entropy_with_logits.grad(
        y, y, pos_weight=read, out=x
    ),
    "values": lambda x, y, read: fl.mse_loss(read, y, reduction="none", out=x),
    "another out": lambda x, y, read: fl.mse_loss.grad(
        y, 0 * y, wrt=("input", "target"), out=(x, read)
    ),
}


@pytest.mark.parametrize("role", ROLES)
def test_an_out_is_refused_if_and_only_if_it_overlaps(role):
    """For each pair of views of one memory."""
    values = np.linspace(0.1, 0.9, 32)
    memory = values.copy()
    by_shape = {}
    for view in views(memory):
        by_shape.setdefault(view.shape, []).append(view)
    counts = {True: 0, False: 0}
    for pairs in by_shape.values():
        for out, read in itertools.product(pairs, pairs):
            memory[...] = values
            y = np.full(out.shape, 0.25)
            overlaps = np.shares_memory(out, read)
            counts[overlaps] += 1
            if overlaps and not (role == "input" and is_same(out, read)):
                with pytest.raises(ValueError, match="overlap"):
                    ROLES[role](out, y, read)
                assert (memory == values).all()
                continue
            read_before = read.copy()
            expected = ROLES[role](np.empty_like(y), y, np.ascontiguousarray(read))
            result = ROLES[role](out, y, read)
            assert_bitwise(np.array(result), np.array(expected))
            if not overlaps and role != "another out":
                assert (read == read_before).all()
    assert min(counts.values()) > 1000
