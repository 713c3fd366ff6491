"""Results that must be bitwise identical: across methods, `out`, threads, batches and chunks."""

import itertools
import math

import numpy as np
import pytest

import fastloss as fl
from tests.bitwise import assert_bitwise
from tests.domains import ANY, SIGN
from tests.drawn_case import (
    BLOCK,
    REDUCTIONS,
    TILE,
    DrawnCase,
    cases,
    elementwise,
    floats,
    reductions,
)
from tests.table_coverage import DTYPES

# ---- Methods and `out` ---------------------------------------------------------------------------


def overflow(method, *arguments):
    """The message if a sum is out of the range of float64, else None."""
    try:
        method(*arguments)
    except OverflowError as error:
        return str(error)


@cases
@pytest.mark.parametrize("dtype", DTYPES)
def test_methods_agree(case, dtype, each_isa):
    """`value_and_grad` returns what the loss and `grad` do; the mean is a quotient of `sums`.

    All of them raise the same error if a sum is out of range.
    """
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    draws = [DrawnCase(case, (6, 5), dtype)]
    if dtype in ("float32", "float64"):
        draws.append(DrawnCase(case, (300,), dtype, adversarial=True))
    for isa in each_isa():
        for draw in draws:
            with np.errstate(over="ignore"):
                overflows = np.abs(draw.value().astype(np.float64)).sum() == np.inf
            for reduction in reductions(case):
                message = overflow(draw.value, reduction)
                if message:
                    assert overflows
                    assert reduction != "none"
                    assert overflow(draw.both, reduction) == message
                    continue
                expected = draw.value(reduction), draw.grad(reduction)
                assert_bitwise(draw.both(reduction), expected, (isa, reduction))
            if overflow(draw.sums):
                assert overflows
                continue
            total, divisor, _ = draw.sums()
            with np.errstate(invalid="ignore"):
                assert_bitwise(draw.value("mean"), np.divide(total, divisor), isa)


@cases
@floats
def test_gradients_of_several_arguments(case, dtype, isa):
    """Each of several gradients is the one that is computed by itself, in any order of `wrt`."""
    draw = DrawnCase(case, (250,), dtype, adversarial=True)
    by_name = {name: draw.grad(wrt=name) for name in draw.wrt}
    for size in range(1, len(draw.wrt) + 1):
        for wrt in itertools.permutations(draw.wrt, size):
            expected = tuple(by_name[name] for name in wrt)
            assert_bitwise(draw.grad(wrt=wrt), expected, wrt)
            assert_bitwise(draw.grad("sum", wrt=wrt), expected, wrt)
            assert_bitwise(draw.both("none", wrt=wrt)[1], expected, wrt)
    default = draw.loss.default_wrt
    expected = tuple(by_name[name] for name in default)
    gradients = draw.loss.grad(*draw.arrays, **draw.keywords, reduction="sum")
    assert_bitwise(gradients, expected if len(default) > 1 else expected[0])


@cases
@floats
def test_out(case, dtype):
    """Results in `out` are those that are returned without it."""
    for shape in ((6, 5), (2500,)):
        draw = DrawnCase(case, shape, dtype)
        values, gradients = draw.both("none")

        def new_outs(draw=draw):
            operands = dict(zip(draw.loss.operands, draw.arrays, strict=True))
            return tuple(np.full_like(operands[name], 7) for name in draw.wrt)

        out = np.full(draw.shape, 7, dtype)
        assert draw.value(out=out) is out
        assert_bitwise(out, values)
        outs = new_outs()
        returned = draw.grad("none", out=outs)
        assert all(a is b for a, b in zip(returned, outs, strict=True))
        assert_bitwise(outs, gradients)
        out, outs = np.full(draw.shape, 7, dtype), new_outs()
        draw.both("none", out=(out, outs))
        assert_bitwise((out, outs), (values, gradients))
        outs = new_outs()
        value, returned = draw.both("mean", out=outs)
        assert_bitwise((value, outs), draw.both("mean"))
        assert returned[0] is outs[0]


@cases
@floats
def test_out_is_the_argument(case, dtype):
    """A gradient may overwrite the argument that it belongs to, one gradient or all of them."""
    for shape, reduction in itertools.product(((6, 5), (2500,)), REDUCTIONS):
        draw = DrawnCase(case, shape, dtype)
        expected = draw.grad(reduction)
        for name, gradient in zip(draw.wrt, expected, strict=True):
            k = draw.loss.operands.index(name)
            arrays = [a.copy() for a in draw.arrays]
            draw.loss.grad(*arrays, **draw.keywords, reduction=reduction, wrt=name, out=arrays[k])
            assert_bitwise(arrays[k], gradient, (reduction, name))
        arrays = [a.copy() for a in draw.arrays]
        outs = tuple(arrays[draw.loss.operands.index(name)] for name in draw.wrt)
        draw.loss.grad(*arrays, **draw.keywords, reduction=reduction, wrt=draw.wrt, out=outs)
        assert_bitwise(outs, expected, reduction)


# Threads: fewer than blocks, as many stretches as threads, and threads that share a stretch.
@pytest.mark.parametrize(
    ("threads", "size"), [(2, 300_000), (5, 300_000), (64, 1_100_000), (100, 1_700_000)]
)
def test_out_is_the_argument_on_several_threads(threads, size):
    """Each entry is read and overwritten once."""
    x, y = np.random.default_rng(0).normal(size=(2, size))
    labels = np.arange(size // 10) % 10
    calls = [
        lambda x, **out: fl.mse_loss.grad(x, y, **out),
        lambda x, **out: fl.cross_entropy.grad(x.reshape(-1, 10), labels, **out),
        lambda x, **out: fl.cosine_embedding_loss.grad(
            x.reshape(-1, 100), y.reshape(-1, 100), np.float64(1), wrt="input1", **out
        ),
    ]
    for call in calls:
        with fl.num_threads(1):
            expected = call(x)
        with fl.num_threads(threads, fixed=True):
            for _ in range(5):
                in_place = x.copy()
                call(in_place, out=in_place.reshape(expected.shape))
                assert_bitwise(in_place.reshape(expected.shape), expected)


# Gradients of at least this many bytes are written with non-temporal stores (runtime/plan.c).
NON_TEMPORAL_BYTES = 1 << 25


@pytest.mark.parametrize(
    ("name", "dtype", "row"),
    [
        ("mse_loss", "float32", (1031,)),
        ("mse_loss", "bfloat16", (1031,)),
        ("triplet_margin_loss", "float32", (1031,)),
        ("cross_entropy", "float32", (1031,)),
        ("cross_entropy", "float16", (1031,)),
        ("cross_entropy", "float32", (11,)),
        ("cross_entropy", "float16", (11,)),
        ("cross_entropy", "float32", (11, 1031)),
        ("cross_entropy", "float16", (11, 1031)),
    ],
)
def test_non_temporal_gradients(name, dtype, row):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(7)
    rows = NON_TEMPORAL_BYTES // (dtype.itemsize * math.prod(row)) + 3
    x = rng.standard_normal((rows, *row), dtype=np.float32).astype(dtype)
    others = {
        "mse_loss": (x[::-1],),
        "cross_entropy": (rng.integers(0, row[0], (rows, *row[1:])),),
        "triplet_margin_loss": (x[::-1], np.roll(x, 1, axis=0)),
    }[name]
    loss = getattr(fl, name)
    out = np.full(x.size + 1, 7, dtype)[1:].reshape(x.shape)  # begins within a cache line
    loss.grad(x, *others, wrt=loss.operands[0], reduction="sum", out=out)
    for part in (slice(0, rows // 2), slice(rows // 2, rows)):
        arrays = (x[part], *(o[part] for o in others))
        cached = loss.grad(*arrays, wrt=loss.operands[0], reduction="sum")
        assert np.array_equal(out[part], cached)


# ---- Threads -------------------------------------------------------------------------------------


@cases
@floats
@pytest.mark.rotate("dtype")
def test_threads(case, dtype):
    """Every result is the same on 1, 2, 3 and 5 threads."""
    shapes = {"element": (200, 600), "row": (100, 200), "sequence": (1500,)}
    draw = DrawnCase(case, shapes[case.unit], dtype)
    sample_weight = draw.rng.uniform(0.5, 1.5, draw.shape).astype(dtype)

    def results():
        none = draw.both("none")
        weighted = draw.both("mean", sample_weight=sample_weight)
        return none, draw.value("sum"), draw.grad("mean"), weighted

    with fl.num_threads(1):
        expected = results()
    for threads in (2, 3, 5):
        with fl.num_threads(threads):
            assert fl.get_num_threads() == threads
            assert_bitwise(results(), expected, f"{threads} threads")


@elementwise
@floats
def test_threads_with_cancelling_sums(case, dtype):
    """Blocks of very different magnitudes and both signs show the order of summation."""
    half = DrawnCase(case, (7 * BLOCK,), dtype)
    scale = np.repeat(np.exp2(half.rng.uniform(-60, 60, 7)), BLOCK).astype(dtype)
    draw = half.at(np.r_[: 7 * BLOCK, : 7 * BLOCK])
    for a, domain in zip(draw.arrays, case.operands, strict=True):
        if domain is ANY:
            a[: 7 * BLOCK] *= scale
            a[7 * BLOCK :] *= -scale
        elif domain is SIGN:
            a[...] = 1
    for k, name in [(None, ""), *enumerate(draw.loss.operands)]:
        arrays = list(draw.arrays)
        if k is not None:
            if case.operands[k] is not ANY:
                continue
            arrays[k] = np.zeros((), dtype)
        results = []
        for threads in (1, 2, 3, 5):
            with fl.num_threads(threads):
                results.append(
                    draw.loss.value_and_grad(
                        *arrays, **draw.keywords, reduction="sum", wrt=draw.wrt
                    )
                )
        for result in results[1:]:
            assert_bitwise(result, results[0], name)


# ---- Batches and chunks --------------------------------------------------------------------------


@cases
@floats
def test_row_is_independent_of_its_batch(case, dtype, isa):
    """A loss does not depend on the other rows, its position, its stride, or the other results."""
    few = 41
    draw = DrawnCase(case, (few,), dtype, adversarial=True)
    value, gradients = draw.value(), draw.grad("none")
    for i in range(few):
        row = draw.at(slice(i, i + 1))
        assert_bitwise(row.value(), value[i : i + 1], i)
        assert_bitwise(row.grad("none"), draw.gradients_at(gradients, slice(i, i + 1)), i)

    # 41 is prime: in 2333 rows each is at every position of a vector, and at borders of tiles.
    index = np.arange(2333 if case.unit != "sequence" else 233) % few
    batch = draw.at(index)
    expected = value[index], draw.gradients_at(gradients, index)
    assert_bitwise(batch.both("none"), expected)
    assert_bitwise(
        batch.at(slice(3, None)).both("none"),
        (value[index[3:]], draw.gradients_at(gradients, index[3:])),
    )
    strided = draw.at(np.repeat(index, 2)).at(slice(1, None, 2))
    stride, doubled = (case.leading(d.arrays[0]).strides[0] for d in (batch, strided))
    assert doubled == 2 * stride
    assert_bitwise(strided.both("none"), expected)
    assert_bitwise(batch.at(slice(None, None, -1)).value(), value[index][::-1])


@cases
@floats
@pytest.mark.parametrize("length", [-1, 0, 1])
def test_lengths_around_tiles_and_blocks(case, dtype, length, isa):
    """Results if the last tile or block is partial; nothing is written beyond the end."""
    units = (1, TILE[dtype], 2 * TILE[dtype], BLOCK, 2 * BLOCK)
    if case.unit == "row":
        units = (1, TILE[dtype] // 7, BLOCK // 7, 2 * (BLOCK // 7), 256)
    elif case.unit == "sequence":
        units = (1, 8, 64, BLOCK // 56, 2 * (BLOCK // 56))
    few = DrawnCase(case, (61,), dtype)
    value, gradients = few.value(), few.grad("none")
    weighted_losses = few.weighted_losses()
    for n in units:
        n += length
        index = np.arange(n) % 61
        draw = few.at(index)
        guarded_index, inner = np.arange(n + 32) % 61, slice(16, -16)
        out, outs = value[guarded_index], few.gradients_at(gradients, guarded_index)
        for guarded in (out, *outs):
            guarded[...] = 7
        draw.both("none", out=(out[inner], few.gradients_at(outs, inner)))
        assert_bitwise(out[inner], value[index])
        assert_bitwise(few.gradients_at(outs, inner), few.gradients_at(gradients, index))
        for guarded in (out, *outs):
            before, after = (case.at([guarded], s)[0] for s in (slice(16), slice(-16, None)))
            assert (before == 7).all()
            assert (after == 7).all()
        total = draw.value("sum")
        terms = weighted_losses[index]
        assert abs(total - math.fsum(terms)) <= 1e-13 * math.fsum(np.abs(terms))


@cases
@floats
@pytest.mark.rotate("dtype")
def test_chunks_of_whole_blocks(case, dtype):
    """Chunks of whole blocks of rows give the values and the sums of one call."""
    for shape in ((20_000,), (6000, 3), (40, 500), (5, 9000)):
        if case.unit == "row":
            shape = {(20_000,): (4000,), (6000, 3): (900, 3), (5, 9000): (5, 2000)}.get(
                shape, (40, 90)
            )
        elif case.unit == "sequence":
            if len(shape) > 1:
                continue
            shape = (700,)
        draw = DrawnCase(case, shape, dtype)
        draw.keywords["sample_weight"] = draw.rng.uniform(0, 2, shape[0]).astype(dtype)
        block = draw.loss._rows_per_block(draw.arrays[0].shape)
        assert block >= 1
        value, (total, weight, count) = draw.value(), draw.sums()
        for chunk in {block, 2 * block, 3 * block}:
            state = fl._binding.LossSums()
            values = []
            for first in range(0, shape[0], chunk):
                rows = slice(first, first + chunk)
                part = draw.at(rows)
                part.keywords["sample_weight"] = draw.keywords["sample_weight"][rows]
                units = fl._binding.UnitOutputs(values=True)
                part.loss._update(state, units, *part.arrays, **part.keywords)
                values.append(units.values)
            assert_bitwise((state.sum, state.weight), (total, weight), chunk)
            assert (state.count, state.rows) == (count, shape[0])
            assert_bitwise(np.concatenate(values), value)
            assert_bitwise((state.value("mean"), state.value("sum")), (draw.value("mean"), total))
