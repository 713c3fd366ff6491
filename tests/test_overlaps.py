"""An `out` that shares memory with an array that the call reads, or with another `out`."""

import itertools

import numpy as np
import pytest

import fastloss as fl
from tests.bitwise import assert_bitwise
from tests.drawn_case import DrawnCase, cases, floats

ROWS = 300  # several batches of rows: a kernel reads some after it has written others


class Memory:
    """Two arrays in one buffer, the second `shift` of its entries after the first."""

    def __init__(self, first, second, shift):
        step = max(first.itemsize, second.itemsize)
        self.buffer = np.zeros(first.nbytes + second.nbytes + 4 * step, np.uint8)
        at = 2 * step
        self.first = self._array(first, at)
        self.first[...] = first
        self.second = self._array(second, at + shift * second.itemsize)

    def _array(self, like, at):
        entries = self.buffer[at : at + like.nbytes].view(like.dtype)
        return entries.reshape(like.shape)


def interleaved(first, second):
    """Copies of two arrays whose entries alternate in memory."""
    step = max(first.itemsize, second.itemsize)
    buffer = np.zeros(2 * step * max(first.size, second.size) + step, np.uint8)

    def array(like, at):
        raw = buffer[at : at + 2 * step * like.size].reshape(-1, 2 * step)[:, : like.itemsize]
        return raw.view(like.dtype)[:, 0]

    one, two = array(first, 0), array(second, step)
    one[...] = first.reshape(-1)
    return one, two


class Arrays:
    """The arrays that a call reads and writes, by name."""

    def __init__(self, case, dtype):
        self.draw = DrawnCase(case, (ROWS,), dtype)
        rng = self.draw.rng
        self.read = dict(zip(self.draw.loss.operands, self.draw.arrays, strict=True))
        for name, value in self.draw.keywords.items():
            if isinstance(value, np.ndarray):
                self.read[name] = value
        for name in ("sample_weight", "grad_output"):
            self.read[name] = rng.uniform(0.5, 2, ROWS).astype(dtype)
        values, gradients = self.call(self.read, None)
        self.written = {"values": values}
        self.written |= dict(zip(self.draw.wrt, gradients, strict=True))

    def call(self, read, out):
        arrays = [read[name] for name in self.draw.loss.operands]
        more = {name: read[name] for name in read if name not in self.draw.loss.operands}
        return self.draw.with_arrays(arrays).both("none", **more, out=out)

    def call_with(self, memory, read=None, written=()):
        """The results if these arrays are in `memory`, or the error."""
        reads = {name: array.copy() for name, array in self.read.items()}
        writes = {name: np.empty_like(array) for name, array in self.written.items()}
        if read is not None:
            reads[read] = memory.first
        for name, array in zip(written, (memory.second, memory.first), strict=False):
            writes[name] = array
        values, *gradients = writes.values()
        return self.call(reads, (values, tuple(gradients)))

    def assert_right(self, results):
        values, *gradients = self.written.values()
        assert_bitwise(results, (values, tuple(gradients)))


@cases
@floats
def test_an_out_over_an_argument(case, dtype):
    """Refused, whatever the two arrays; only a gradient may be exactly its own argument."""
    arrays = Arrays(case, dtype)
    for (read, argument), (written, result), shift in itertools.product(
        arrays.read.items(), arrays.written.items(), (0, 1, -1)
    ):
        memory = Memory(argument, result, shift)
        if written == read and shift == 0:
            arrays.assert_right(arrays.call_with(memory, read, [written]))
            continue
        name = "values" if written == "values" else f"gradient of {written}"
        with pytest.raises(ValueError, match=f"^out for the {name} overlaps {read}"):
            arrays.call_with(memory, read, [written])
        np.testing.assert_array_equal(memory.first, argument)


@cases
@floats
def test_an_out_over_another_out(case, dtype):
    arrays = Arrays(case, dtype)
    for pair, shift in itertools.product(itertools.permutations(arrays.written, 2), (0, 1, -1)):
        memory = Memory(*(arrays.written[name] for name in pair[::-1]), shift)
        with pytest.raises(ValueError, match=r"^out for the .* overlaps another out"):
            arrays.call_with(memory, written=pair)


@cases
@floats
def test_an_out_between_the_entries_of_an_argument(case, dtype):
    """Accepted: the two share no entry."""
    arrays = Arrays(case, dtype)
    flat = [name for name in arrays.read if arrays.read[name].ndim == 1]
    for read in flat:
        one, two = interleaved(arrays.read[read], arrays.written["values"])
        memory = Memory.__new__(Memory)
        memory.first, memory.second = one, two
        arrays.assert_right(arrays.call_with(memory, read, ["values"]))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_an_out_over_a_scalar(reduction):
    memory = np.arange(1.0, 6)
    for keywords in (
        {"grad_output": memory[2:3].reshape(())},
        {"weight": memory[2:3].reshape(())},
    ):
        name = next(iter(keywords))
        with pytest.raises(ValueError, match=f"^out for the gradient of input overlaps {name}"):
            fl.mse_loss.grad(np.ones(5), 0.0, reduction=reduction, out=memory, **keywords)
