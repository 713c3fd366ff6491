"""What holds for every loss: one law each, over the table of cases."""

import itertools
import math
import pickle

import numpy as np
import pytest

import fastloss as fl
from tests import references
from tests.cases import (
    CASES,
    CLASS,
    FLOATS,
    LABEL_SETS,
    LABELS,
    LOG_SCORES,
    REAL,
    SHARES,
    SIGN,
    SPELLED,
    UNIT,
    UNITS,
    VECTORS,
    log_softmax,
)

cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
elementwise = pytest.mark.parametrize(
    "case", [c for c in CASES if c.kind == "elements"], ids=lambda case: case.id
)
by_row = pytest.mark.parametrize(
    "case", [c for c in CASES if c.kind == "rows"], ids=lambda case: case.id
)
floats = pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.__name__)

REDUCTIONS = ("none", "mean", "sum")
TILE = {np.float32: 1024, np.float64: 512}
BLOCK = 8192


class Draw:
    """A case with arrays: the loss, its operands and its keywords."""

    def __init__(self, case, shape, dtype, hard=False, classes=7, seed=0):
        rng = self.rng = np.random.default_rng([seed, *case.id.encode()])
        self.case, self.loss = case, getattr(fl, case.loss)
        shape = self.shape = case.units(shape)
        if hard:
            self.arrays = case.hard(rng, *shape, dtype)
        else:
            self.arrays = case.arrays(rng, shape, dtype, classes)
        self.keywords = case.keywords(rng, shape, dtype, classes, hard)
        self.wrt = case.differentiable(self.loss)

    def value(self, reduction="none", **more):
        return self.loss(*self.arrays, **self.keywords, reduction=reduction, **more)

    def grad(self, reduction="sum", **more):
        more = {"wrt": self.wrt, **more}
        return self.loss.grad(*self.arrays, **self.keywords, reduction=reduction, **more)

    def both(self, reduction="none", **more):
        more = {"wrt": self.wrt, **more}
        return self.loss.value_and_grad(*self.arrays, **self.keywords, reduction=reduction, **more)

    def sums(self, **more):
        return self.loss.sums(*self.arrays, **self.keywords, **more)

    def at(self, index, **keywords):
        """The same case at some of its rows."""
        other = object.__new__(Draw)
        other.__dict__.update(self.__dict__)
        other.arrays = self.case.at(self.arrays, index)
        if self.case.kind == "sequences" and np.isscalar(index):  # without a batch nothing pads
            other.arrays[1] = other.arrays[1][: other.arrays[3]]
        other.keywords = {k: self._at(v, index) for k, v in (self.keywords | keywords).items()}
        return other

    def _at(self, value, index):
        whole = not isinstance(value, np.ndarray) or self.case.weighs_classes
        return value if whole else value[index]

    def gradients_at(self, gradients, index):
        """Gradients of some of the rows."""
        return tuple(self.case.at(gradients, index))

    def by_unit(self, factors):
        """Factors of the unreduced losses, to multiply a gradient with."""
        return np.expand_dims(factors, self.case.row_axes(len(self.shape)))


def reductions(case):
    return (*REDUCTIONS, "batchmean") if case.loss == "kl_div" else REDUCTIONS


# ---- References and calculus ---------------------------------------------------------------------


@cases
@floats
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_values_and_gradients_are_those_of_the_reference(case, dtype, weighted, isa):
    draw = Draw(case, (7, 3), dtype)
    for reduction in reductions(case):
        more = {"reduction": reduction}
        if weighted:
            samples = draw.rng.choice([0, 0.5, 1.7], draw.shape[: 1 if reduction == "sum" else 2])
            upstream = draw.rng.normal(size=draw.shape) if reduction == "none" else -1.3
            more["sample_weight"] = samples.astype(dtype)
            more["grad_output"] = np.asarray(upstream, dtype)
        value, gradients = draw.both(**more)
        number, numbers = references.reduced(case.loss, draw.arrays, draw.keywords | more)
        assert references.excess(value, number, dtype).max() <= 1, reduction
        for name, gradient in zip(draw.wrt, gradients, strict=True):
            assert references.excess(gradient, numbers[name], dtype).max() <= 1, (reduction, name)
        more.pop("grad_output", None)
        assert references.excess(draw.value(**more), number, dtype).max() <= 1, reduction
        if reduction != "none":
            assert type(value) is float


@cases
def test_gradients_are_differences_of_values(case):
    """Four values around a point, where none of them lies beyond a kink.

    Log-probabilities of a frame are moved together, as their logits are: alone none can be.
    """
    draw = Draw(case, (40,), np.float64)
    h = 1e-4
    _, gradients = draw.both("none")
    for name, gradient in zip(draw.wrt, gradients, strict=True):
        k = draw.loss.operands.index(name)
        entries = np.ndindex(case.leading(gradient).shape[1:])
        for entry in entries:
            index = (slice(None), *entry)
            values, slopes = [], []
            for step in (-2, -1, 1, 2):
                arrays = [a.copy() for a in draw.arrays]
                case.leading(arrays[k])[index] += step * h
                if case.normalised and k == 0:
                    arrays[k] = log_softmax(arrays[k])
                moved, slope = draw.loss.value_and_grad(
                    *arrays, **draw.keywords, reduction="none", wrt=name
                )
                values.append(moved)
                slopes.append(case.leading(slope)[index])
            low2, low, high, high2 = values
            found = (low2 - 8 * low + 8 * high - high2) / (12 * h)
            middle = case.leading(gradient)[index]
            bound = 1e-4 * (1 + np.abs(middle))
            smooth = np.abs(slopes[0] + slopes[3] - 2 * middle) <= bound
            smooth &= np.abs(slopes[1] + slopes[2] - 2 * middle) <= bound
            assert smooth.mean() > 0.8
            assert (np.abs(found - middle) <= bound)[smooth].all(), (name, entry)


@cases
@floats
def test_means_are_sums_divided(case, dtype):
    draw = Draw(case, (9, 4), dtype)
    samples = draw.rng.choice([0, 0.5, 1.7], draw.shape).astype(dtype)
    for more in ({}, {"sample_weight": samples}):
        added, weight, count = draw.sums(**more)
        expected = references.sums(case.loss, draw.arrays, draw.keywords | more)
        assert weight == pytest.approx(float(expected[1]), rel=1e-14)
        assert (type(added), type(weight), count) == (float, float, expected[2])
        assert draw.value("mean", **more) == added / weight
        entries = draw.value("none", **more)
        assert entries.dtype == dtype
        assert entries.shape == draw.shape
        if case.kind == "sequences":  # whose mean divides each by the number of its labels
            added = draw.value("sum", **more)
        assert draw.value("sum", **more) == added
        assert abs(added - math.fsum(entries.flat)) <= 1e-13 * math.fsum(np.abs(entries.flat))


# ---- One result, asked for in several ways -------------------------------------------------------


@cases
@floats
def test_value_and_grad_has_the_bits_of_the_two(case, dtype, isa, bits):
    for shape, hard in (((6, 5), False), ((300,), True)):
        draw = Draw(case, shape, dtype, hard=hard)
        for reduction in reductions(case):
            expected = draw.value(reduction), draw.grad(reduction)
            bits(draw.both(reduction), expected, reduction)


@cases
@floats
def test_gradients_of_several_arguments_have_the_bits_of_each(case, dtype, isa, bits):
    draw = Draw(case, (250,), dtype, hard=True)
    alone = {name: draw.grad(wrt=name) for name in draw.wrt}
    for size in range(1, len(draw.wrt) + 1):
        for wrt in itertools.permutations(draw.wrt, size):
            bits(draw.grad(wrt=wrt), tuple(alone[name] for name in wrt), wrt)
            bits(draw.both("sum", wrt=wrt)[1], tuple(alone[name] for name in wrt), wrt)
    default = draw.loss.default_wrt
    expected = tuple(alone[name] for name in default)
    got = draw.loss.grad(*draw.arrays, **draw.keywords, reduction="sum")
    bits(got, expected if len(default) > 1 else expected[0])


@cases
@floats
def test_out_has_the_bits_of_a_fresh_result(case, dtype, bits):
    for shape in ((6, 5), (2500,)):
        draw = Draw(case, shape, dtype)
        values, gradients = draw.both("none")

        def empties(draw=draw):
            operands = dict(zip(draw.loss.operands, draw.arrays, strict=True))
            return tuple(np.full_like(operands[name], 7) for name in draw.wrt)

        out = np.full(draw.shape, 7, dtype)
        assert draw.value(out=out) is out
        bits(out, values)
        outs = empties()
        got = draw.grad("none", out=outs)
        assert all(a is b for a, b in zip(got, outs, strict=True))
        bits(outs, gradients)
        out, outs = np.full(draw.shape, 7, dtype), empties()
        draw.both("none", out=(out, outs))
        bits((out, outs), (values, gradients))
        outs = empties()
        value, got = draw.both("mean", out=outs)
        bits((value, outs), draw.both("mean"))
        assert got[0] is outs[0]


@cases
@floats
def test_out_may_be_the_argument(case, dtype, bits):
    for shape, reduction in itertools.product(((6, 5), (2500,)), REDUCTIONS):
        draw = Draw(case, shape, dtype)
        expected = draw.grad(reduction)
        for name, gradient in zip(draw.wrt, expected, strict=True):
            k = draw.loss.operands.index(name)
            arrays = [a.copy() for a in draw.arrays]
            draw.loss.grad(*arrays, **draw.keywords, reduction=reduction, wrt=name, out=arrays[k])
            bits(arrays[k], gradient, (reduction, name))
        arrays = [a.copy() for a in draw.arrays]
        outs = tuple(arrays[draw.loss.operands.index(name)] for name in draw.wrt)
        draw.loss.grad(*arrays, **draw.keywords, reduction=reduction, wrt=draw.wrt, out=outs)
        bits(outs, expected, reduction)


# ---- Weights and upstream gradients --------------------------------------------------------------


@cases
@floats
def test_sample_weights_of_one_change_nothing(case, dtype, bits):
    draw = Draw(case, (30, 20), dtype)
    for shape, reduction in itertools.product((draw.shape, draw.shape[:1]), reductions(case)):
        ones = np.ones(shape, dtype)
        bits(draw.both(reduction, sample_weight=ones), draw.both(reduction), reduction)
        assert draw.sums(sample_weight=ones) == draw.sums()


@cases
@floats
def test_sample_weights_multiply(case, dtype, bits):
    """Powers of two, which round nothing."""
    draw = Draw(case, (30, 20), dtype)
    for shape in (draw.shape, draw.shape[:1]):
        samples = 2.0 ** draw.rng.integers(-3, 4, shape).astype(dtype)
        full = np.broadcast_to(
            samples.reshape(*shape, *[1] * (len(draw.shape) - len(shape))), draw.shape
        )
        value, gradients = draw.both("none")
        expected = full * value, tuple(draw.by_unit(full) * g for g in gradients)
        bits(draw.both("none", sample_weight=samples), expected)
        bits(draw.grad("sum", sample_weight=samples), expected[1])
        for other in (np.float64, np.float32, np.float16, int):
            if (samples == samples.astype(other)).all():
                bits(draw.both("none", sample_weight=samples.astype(other)), expected)


@cases
@floats
def test_all_weights_zero(case, dtype):
    draw = Draw(case, (6, 5), dtype)
    for shape in (draw.shape, draw.shape[:1]):
        zeros = np.zeros(shape, dtype)
        assert draw.sums(sample_weight=zeros) == (0, 0, 0)
        for reduction in reductions(case):
            value, gradients = draw.both(reduction, sample_weight=zeros)
            averaged = reduction in ("mean", "batchmean")
            assert math.isnan(value) if averaged else not np.any(value)
            assert not any(g.any() for g in gradients)


@cases
@floats
@pytest.mark.parametrize("by", ["sample_weight", "weight"])
def test_a_zero_weight_removes_an_entry_whatever_it_holds(case, dtype, by, bits):
    draw = Draw(case, (2400 if case.kind != "sequences" else 240,), dtype)
    removed = np.arange(*draw.shape) % 5 == 2
    factor = np.where(removed, 0, 1.5).astype(dtype)
    keywords = dict(draw.keywords)
    if by == "sample_weight":
        keywords[by] = factor
    elif "weight" not in draw.keywords:
        return
    elif case.weighs_classes:
        if not case.by_class or case.options.get("label_smoothing"):
            return  # then the other classes weigh
        draw.arrays[1][removed] = 3
        keywords[by] = np.arange(7.0).astype(dtype)
        keywords[by][3] = 0
    else:
        keywords[by] = np.broadcast_to(
            factor.reshape(-1, *[1] * (draw.keywords[by].ndim - 1)), draw.keywords[by].shape
        )
    junk = (np.nan, np.inf, -5.0, 1e30)
    expected = draw.loss.value_and_grad(*draw.arrays, **keywords, reduction="none", wrt=draw.wrt)
    means = draw.loss.value_and_grad(*draw.arrays, **keywords, wrt=draw.wrt)
    for value in junk:
        arrays = [a.copy() for a in draw.arrays]
        for array, kind in zip(arrays, case.operands, strict=True):
            if array.dtype.kind == "f":
                case.leading(array)[removed] = value
            elif by == "sample_weight" and kind.place != "length":
                array[removed] = 999
        if by == "sample_weight" and not case.weighs_classes:
            for name in draw.keywords.keys() & {"weight", "pos_weight"}:
                weight = keywords[name] = draw.keywords[name].copy()
                weight[removed] = value
        got = draw.loss.value_and_grad(*arrays, **keywords, reduction="none", wrt=draw.wrt)
        bits(got, expected, value)
        assert not got[0][removed].any()
        assert not any(g.any() for g in draw.gradients_at(got[1], removed))
        bits(draw.loss.value_and_grad(*arrays, **keywords, wrt=draw.wrt), means, value)


@cases
def test_ignored_rows_are_not_looked_at(case, bits):
    if case.ignored is None:
        return
    draw = Draw(case, (300,), np.float32)
    ignored = np.arange(300) % 4 == 1
    draw.arrays[1][ignored] = case.ignored
    expected = draw.both("none"), draw.both("mean")
    draw.arrays[0][ignored] = np.nan
    bits((draw.both("none"), draw.both("mean")), expected)
    assert not expected[0][0][ignored].any()
    assert not expected[0][1][0][ignored].any()
    draw.arrays[1][:] = case.ignored
    value, (gradient,) = draw.both("mean")
    assert math.isnan(value)
    assert not gradient.any()
    assert draw.sums() == (0, 0, 0)


@cases
@floats
def test_weights_broadcast(case, dtype, bits):
    """To the operands."""
    draw = Draw(case, (6,) if case.kind == "rows" else (6, 5), dtype, classes=5)
    for name in ("weight", "pos_weight"):
        if name not in draw.keywords or case.weighs_classes:
            continue
        for shape in ((), (5,), (1, 5), (6, 1), (1, 1), (1,)):
            weight = draw.rng.choice([0, 0.5, 2], shape).astype(dtype)
            got = draw.loss.value_and_grad(
                *draw.arrays, **draw.keywords | {name: weight}, reduction="none", wrt=draw.wrt
            )
            full = np.ascontiguousarray(np.broadcast_to(weight, draw.arrays[0].shape))
            expected = draw.loss.value_and_grad(
                *draw.arrays, **draw.keywords | {name: full}, reduction="none", wrt=draw.wrt
            )
            bits(got, expected, (name, shape))


@cases
@floats
def test_grad_output_multiplies(case, dtype, bits):
    draw = Draw(case, (30, 20), dtype)
    for reduction in reductions(case):
        plain = draw.grad(reduction)
        bits(draw.grad(reduction, grad_output=1), plain)
        for upstream in (0.25, np.float64(0.25), np.array(0.25, np.float32)):
            expected = tuple(0.25 * g for g in plain)
            bits(draw.grad(reduction, grad_output=upstream), tuple(expected), reduction)
    upstream = 2.0 ** draw.rng.integers(-3, 4, draw.shape) * draw.rng.choice([-1, 1], draw.shape)
    plain = draw.grad("none")
    expected = tuple((draw.by_unit(upstream) * g).astype(dtype) for g in plain)
    for other in (np.float64, np.float32, np.float16):
        got = draw.grad("none", grad_output=upstream.astype(other))
        for one, two in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, two)  # -0 and 0 are equal here


# ---- Bits ----------------------------------------------------------------------------------------


def many(case, dtype):
    """A case large enough for five threads."""
    sizes = {"elements": (200, 600), "rows": (100, 200), "sequences": (1500,)}
    return Draw(case, sizes[case.kind], dtype)


@cases
@floats
def test_threads_do_not_change_a_bit(case, dtype, bits):
    draw = many(case, dtype)
    samples = draw.rng.uniform(0.5, 1.5, draw.shape).astype(dtype)

    def results():
        none = draw.both("none")
        weighted = draw.both("mean", sample_weight=samples)
        return none, draw.value("sum"), draw.grad("mean"), weighted

    with fl.num_threads(1):
        expected = results()
    for threads in (2, 3, 5):
        with fl.num_threads(threads):
            assert fl.get_num_threads() == threads
            bits(results(), expected, f"{threads} threads")


@elementwise
@floats
def test_threads_do_not_change_sums_that_cancel(case, dtype, bits):
    """Blocks of very different sizes, each with both signs: another order of adding shows."""
    half = Draw(case, (7 * BLOCK,), dtype)
    scale = np.repeat(np.exp2(half.rng.uniform(-60, 60, 7)), BLOCK).astype(dtype)
    draw = half.at(np.r_[: 7 * BLOCK, : 7 * BLOCK])
    for a, kind in zip(draw.arrays, case.operands, strict=True):
        if kind is REAL:
            a[: 7 * BLOCK] *= scale
            a[7 * BLOCK :] *= -scale
        elif kind is SIGN:
            a[...] = 1
    for k, name in [(None, ""), *enumerate(draw.loss.operands)]:
        arrays = list(draw.arrays)
        if k is not None:
            if case.operands[k] is not REAL:
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
            bits(result, results[0], name)


VARIANCES = [
    ((400, 300), (400,)),
    ((400, 300), (400, 1)),
    ((400, 300), (1, 300)),
    ((400, 300), ()),
    ((3, 40_000), (3,)),
    ((3, 40_000), (1, 40_000)),
    ((40_000, 3), (1, 3)),
    ((50, 8, 300), (50, 1, 300)),
    ((50, 8, 300), (1, 8, 300)),
    ((1, 120_000), (1,)),
    ((120_000,), ()),
]


@floats
@pytest.mark.parametrize(("shape", "var_shape"), VARIANCES)
def test_shared_variances(shape, var_shape, dtype, bits):
    """Same bits on any number of threads; the sum of the gradients of a variance for each."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, *shape)).astype(dtype)
    var = rng.uniform(0.5, 2, var_shape).astype(dtype)
    wrt = ("input", "target", "var")
    results = []
    for threads in (1, 2, 3, 5):
        with fl.num_threads(threads):
            results.append(
                fl.gaussian_nll_loss.value_and_grad(x, y, var, reduction="none", wrt=wrt)
            )
    for result in results[1:]:
        bits(result, results[0])
    appended = var[..., None] if var_shape == shape[:-1] and var_shape else var
    full = np.ascontiguousarray(np.broadcast_to(appended, shape))
    value, (dx, dy, each) = fl.gaussian_nll_loss.value_and_grad(
        x, y, full, reduction="none", wrt=wrt
    )
    bits(results[0][0], value)
    bits(results[0][1][:2], (dx, dy))
    axes = (
        tuple(i for i, n in enumerate(appended.shape) if n != shape[i]) if appended.ndim else None
    )
    expected = each.astype(np.float64).sum(axis=axes).reshape(var_shape)
    bound = np.abs(each.astype(np.float64)).sum(axis=axes).reshape(var_shape)
    error = np.abs(results[0][1][2] - expected)
    assert (error <= 1e-12 * bound + np.finfo(dtype).eps * np.abs(expected)).all()
    for reduction in ("mean", "sum"):
        fl.gaussian_nll_loss.grad(x, y, var, reduction=reduction, wrt="var")


@floats
@pytest.mark.parametrize("length", [3, 7, 300, 600, 1000, 5000, 9001])
@pytest.mark.parametrize("last", [True, False], ids=["last axis", "first axis"])
def test_the_gradient_of_a_shared_variance_depends_on_its_row_alone(dtype, length, last, bits):
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 41, length)).astype(dtype)
    var = rng.uniform(0.5, 2, (41, 1)).astype(dtype)
    arrays = [x, y, var] if last else [np.ascontiguousarray(a.T) for a in (x, y, var)]
    together = fl.gaussian_nll_loss.grad(*arrays, wrt="var", reduction="sum").ravel()
    for i in range(41):
        row = slice(i, i + 1)
        alone = fl.gaussian_nll_loss.grad(x[row], y[row], var[row], wrt="var", reduction="sum")
        bits(together[row], alone.ravel(), i)


@elementwise
@floats
def test_gradients_add_up_over_numbers(case, dtype):
    """A 0-d operand's gradient is the sum of those of an operand that repeats it."""
    draw = Draw(case, (20, 50), dtype)
    for k, name in enumerate(draw.loss.operands):
        arrays = list(draw.arrays)
        number = arrays[k][3, 4].copy()
        arrays[k] = np.full(draw.shape, number)
        value, (each,) = draw.loss.value_and_grad(
            *arrays, **draw.keywords, reduction="none", wrt=draw.wrt[:1]
        )
        arrays[k] = np.array(number)
        np.testing.assert_array_equal(
            draw.loss(*arrays, **draw.keywords, reduction="none"), value, strict=True
        )
        if name not in draw.wrt:
            continue
        arrays[k] = np.full(draw.shape, number)
        each = draw.loss.grad(*arrays, **draw.keywords, reduction="none", wrt=name)
        arrays[k] = np.array(number)
        for reduction in ("none", "sum", "mean"):
            got = draw.loss.grad(*arrays, **draw.keywords, reduction=reduction, wrt=name)
            assert got.dtype == dtype
            assert got.shape == ()
            scale = draw.loss.sums(*arrays, **draw.keywords)[1] if reduction == "mean" else 1
            expected = math.fsum(each.flat) / scale
            bound = math.fsum(np.abs(each.flat)) / scale
            slack = 4 * np.finfo(dtype).eps if reduction == "mean" else 1e-13
            rounding = np.finfo(dtype).eps * abs(expected)
            assert abs(got - expected) <= slack * bound + rounding, (name, reduction)


@cases
@floats
def test_a_row_depends_on_itself_alone(case, dtype, isa, bits):
    """Neither on the batch around it nor on its place, its stride, or what else is asked for."""
    few = 41
    draw = Draw(case, (few,), dtype, hard=True)
    value, gradients = draw.value(), draw.grad("none")
    for i in range(few):
        row = draw.at(slice(i, i + 1))
        bits(row.value(), value[i : i + 1], i)
        bits(row.grad("none"), draw.gradients_at(gradients, slice(i, i + 1)), i)

    # few is prime: over 2333 rows each of them meets every place in a vector, and borders of tiles
    index = np.arange(2333 if case.kind != "sequences" else 233) % few
    batch = draw.at(index)
    expected = value[index], draw.gradients_at(gradients, index)
    bits(batch.both("none"), expected)
    bits(
        batch.at(slice(3, None)).both("none"),
        (value[index[3:]], draw.gradients_at(gradients, index[3:])),
    )
    doubled = draw.at(np.repeat(index, 2)).at(slice(1, None, 2))
    one, two = (case.leading(d.arrays[0]).strides[0] for d in (batch, doubled))
    assert two == 2 * one
    bits(doubled.both("none"), expected)
    bits(batch.at(slice(None, None, -1)).value(), value[index][::-1])


@cases
@floats
@pytest.mark.parametrize("length", [-1, 0, 1])
def test_lengths_around_tiles_and_blocks(case, dtype, length, isa, bits):
    """Values, sums and gradients where the last tile or block is short, and nothing beyond."""
    units = (1, TILE[dtype], 2 * TILE[dtype], BLOCK, 2 * BLOCK)
    if case.kind == "rows":
        units = (1, TILE[dtype] // 7, BLOCK // 7, 2 * (BLOCK // 7), 256)
    elif case.kind == "sequences":
        units = (1, 8, 64, BLOCK // 56, 2 * (BLOCK // 56))
    few = Draw(case, (61,), dtype)
    value, gradients = few.value(), few.grad("none")
    for n in units:
        n += length
        index = np.arange(n) % 61
        draw = few.at(index)
        wide, inner = np.arange(n + 32) % 61, slice(16, -16)
        out, outs = value[wide], few.gradients_at(gradients, wide)
        for guarded in (out, *outs):
            guarded[...] = 7
        draw.both("none", out=(out[inner], few.gradients_at(outs, inner)))
        bits(out[inner], value[index])
        bits(few.gradients_at(outs, inner), few.gradients_at(gradients, index))
        for guarded in (out, *outs):
            for edge in few.case.at([guarded], slice(16)) + few.case.at(
                [guarded], slice(-16, None)
            ):
                assert (edge == 7).all()
        added = draw.value("sum")
        exact = math.fsum(value[index])
        assert abs(added - exact) <= 1e-13 * math.fsum(np.abs(value[index]))


@by_row
@floats
def test_lengths_of_rows(case, dtype, each_isa):
    """Any number of classes or features, in one piece or many."""
    tile = TILE[dtype]
    lengths = [1, 3, 17, tile + 1]
    if not case.options:
        lengths += [2, 15, 16, tile, 2 * tile + 1, BLOCK + 1]
    for classes in sorted(lengths):
        if LABEL_SETS in case.operands and classes > 17:
            break  # whose terms are the pairs of classes
        draw = Draw(case, (3 if classes < tile // 2 else 1,), dtype, classes=classes)
        number, numbers = references.reduced(
            case.loss, draw.arrays, draw.keywords | {"reduction": "none"}
        )
        for isa in each_isa():
            value, gradients = draw.both("none")
            assert references.excess(value, number, dtype).max() <= 1, (classes, isa)
            for name, gradient in zip(draw.wrt, gradients, strict=True):
                excess = references.excess(gradient, numbers[name], dtype).max()
                assert excess <= 1, (classes, isa, name)


@cases
@floats
def test_chunks_of_whole_blocks_have_the_bits_of_one_call(case, dtype, bits):
    for shape in ((20_000,), (6000, 3), (40, 500), (5, 9000)):
        if case.kind == "rows":
            shape = {(20_000,): (4000,), (6000, 3): (900, 3), (5, 9000): (5, 2000)}.get(
                shape, (40, 90)
            )
        elif case.kind == "sequences":
            if len(shape) > 1:
                continue
            shape = (700,)
        draw = Draw(case, shape, dtype)
        draw.keywords["sample_weight"] = draw.rng.uniform(0, 2, shape[0]).astype(dtype)
        input_shape = draw.arrays[0].shape
        block = draw.loss._rows_per_block(input_shape)
        assert block >= 1
        value, (added, weight, count) = draw.value(), draw.sums()
        for chunk in {block, 2 * block, 3 * block}:
            state = fl._binding.LossSums()
            pieces = []
            for first in range(0, shape[0], chunk):
                part = draw.at(slice(first, first + chunk))
                part.keywords["sample_weight"] = draw.keywords["sample_weight"][
                    first : first + chunk
                ]
                units = fl._binding.UnitOutputs(values=True)
                part.loss._update(state, units, *part.arrays, **part.keywords)
                pieces.append(units.values)
            bits((state.sum, state.weight), (added, weight), chunk)
            assert (state.count, state.rows) == (count, shape[0])
            bits(np.concatenate(pieces), value)
            bits((state.value("mean"), state.value("sum")), (draw.value("mean"), added))


# ---- NaN -----------------------------------------------------------------------------------------


@cases
@floats
def test_nan_stays_where_it_is(case, dtype, isa, bits):
    draw = Draw(case, (2100 if case.kind != "sequences" else 210,), dtype)
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
            bits(got[others], value[others])
            bits(draw.gradients_at(slopes, others), draw.gradients_at(gradients, others))
            for slope, gradient in zip(slopes, gradients, strict=True):
                slope, gradient = (np.array(case.leading(g)[i]) for g in (slope, gradient))
                if case.operands[0] is LOG_SCORES or case.operands[1] is UNITS:
                    # whose classes know nothing of each other
                    assert np.isnan(slope[entry[1:]])
                    slope[entry[1:]] = gradient[entry[1:]]
                    bits(slope, gradient)
                else:
                    assert np.isnan(slope[looked_at(draw, i)]).all(), (k, i)
            assert math.isnan(draw.loss(*arrays, **draw.keywords))


def test_nan_of_a_class_in_no_path_is_that_of_its_gradient(bits):
    x = np.log(np.full((6, 1, 4), 0.25))
    spoilt = x.copy()
    spoilt[2, 0, 3] = np.nan
    value, gradient = fl.ctc_loss.value_and_grad(x, [[1, 2]], 6, 2)
    got, slope = fl.ctc_loss.value_and_grad(spoilt, [[1, 2]], 6, 2)
    assert np.isnan(slope[2, 0, 3])
    slope[2, 0, 3] = gradient[2, 0, 3]
    bits((got, slope), (value, gradient))
    assert np.isnan(fl.ctc_loss_with_logits(spoilt, [[1, 2]], 6, 2))


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


# ---- Arrays --------------------------------------------------------------------------------------


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
def test_layouts_change_nothing(case, dtype, isa, bits):
    beside_tile = [(3, TILE[dtype] - 1), (2, TILE[dtype] + 1)]
    shapes = {
        "elements": ((700,), (23, 41), (5, 7, 11), *beside_tile),
        "rows": ((700,), (23, 41), (5, 7, 11)),
        "sequences": ((60,),),
    }
    for shape in shapes[case.kind]:
        draw = Draw(case, shape, dtype)
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
            bits(got, expected, (layout.__name__, shape))
            assert other.sums(**more) == added, layout.__name__
            # and into such arrays
            if layout in (read_only, swapped):
                continue
            out, outs = layout(expected[0] * 0), tuple(layout(g * 0) for g in expected[1])
            if out.dtype != dtype:
                continue
            draw.both("none", sample_weight=samples, grad_output=upstream, out=(out, outs))
            bits((out, outs), expected, (layout.__name__, shape))


@cases
@floats
def test_repeated_rows_need_no_memory(case, dtype, bits):
    """Operands broadcast by strides of 0."""
    draw = Draw(case, (6,), dtype)
    first = draw.at(slice(1)).arrays
    wide = [np.broadcast_to(a, b.shape) for a, b in zip(first, draw.arrays, strict=True)]
    full = [np.ascontiguousarray(a) for a in wide]
    got, expected = (
        draw.loss.value_and_grad(*a, **draw.keywords, reduction="none", wrt=draw.wrt)
        for a in (wide, full)
    )
    bits(got, expected)


@cases
@floats
def test_empty(case, dtype):
    for shape in ((0,), (0, 3), (3, 0), (0, 3, 2)):
        draw = Draw(case, shape, dtype)
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
def test_no_dimensions(case, dtype, bits):
    """A loss without axes is a NumPy scalar, with the bits of an array of one."""
    one = Draw(case, (1,), dtype)
    none = one.at(0)
    value, gradients = one.both("none")
    got, slopes = none.both("none")
    assert type(got) is dtype
    bits(got, value[0])
    bits(slopes, one.gradients_at(gradients, 0))
    assert all(isinstance(s, dtype if case.kind == "elements" else np.ndarray) for s in slopes)
    for reduction in REDUCTIONS:
        bits(none.both(reduction)[1], one.gradients_at(one.both(reduction)[1], 0))
    bits(none.value("mean"), one.value("mean"))
    out = np.zeros((), dtype)
    none.value(out=out)
    bits(out, value[0])


@cases
def test_types_are_promoted(case, bits):
    draw = Draw(case, (37,), np.float32)
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
        bits(got, value)
        for name, slope, gradient in zip(draw.wrt, slopes, gradients, strict=True):
            own = arrays[draw.loss.operands.index(name)].dtype
            with np.errstate(over="ignore"):
                bits(slope, gradient.astype(own))


@cases
@floats
def test_weights_do_not_promote(case, dtype):
    draw = Draw(case, (37,), dtype)
    for other in FLOATS:
        keywords = {
            k: v.astype(other) if isinstance(v, np.ndarray) else v for k, v in draw.keywords.items()
        }
        keywords["sample_weight"] = np.ones(37, other)
        got = draw.loss(*draw.arrays, **keywords, reduction="none")
        assert got.dtype == dtype


INTEGERS = [np.dtype(c) for c in "bBhHiIlLqQ"]


@cases
@floats
def test_integer_targets(case, dtype, bits):
    """Any integer dtype reads as its values; it does not take part in the compute type."""
    draw = Draw(case, (40, 3), dtype)
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
            bits(got, expected, dtype_of)
        if "target" in draw.wrt:
            with pytest.raises(TypeError):
                draw.loss.grad(*arrays, **draw.keywords, wrt="target")


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.kind == "elements" or VECTORS in c.operands],
    ids=lambda case: case.id,
)
def test_integer_inputs_read_as_float64(case, bits):
    draw = Draw(case, (40,), np.float64)
    integers = [
        draw.rng.integers(math.ceil(max(kind.low, -3)), math.floor(min(kind.high, 3)) + 1, a.shape)
        if kind is not SIGN
        else a.astype(int)
        for a, kind in zip(draw.arrays, case.operands, strict=True)
    ]
    expected = draw.loss(*(a.astype(float) for a in integers), **draw.keywords, reduction="none")
    bits(draw.loss(*integers, **draw.keywords, reduction="none"), expected)
    bits(draw.loss(*(a.tolist() for a in integers), **draw.keywords, reduction="none"), expected)
    narrow = [a.astype(np.float32) for a in integers]
    narrow[0] = integers[0]
    bits(draw.loss(*narrow, **draw.keywords, reduction="none"), expected)


@elementwise
@floats
def test_python_numbers_are_weak(case, dtype, bits):
    draw = Draw(case, (40,), dtype)
    for k in range(len(draw.arrays)):
        arrays = list(draw.arrays)
        value = 1 if case.operands[k] is SIGN else 0.0 if case.operands[k].high == 0 else 0.5
        arrays[k] = np.array(value, dtype)
        expected = draw.loss(*arrays, **draw.keywords, reduction="none")
        arrays[k] = value
        got = draw.loss(*arrays, **draw.keywords, reduction="none")
        assert got.dtype == dtype
        bits(got, expected)
    numbers = [1.0 if kind is SIGN else min(0.5, kind.high) for kind in case.operands]
    scalar = draw.at(0)
    got = draw.loss(*numbers, **scalar.keywords, reduction="none")
    bits(got, draw.loss(*map(np.float64, numbers), **scalar.keywords, reduction="none"))


# ---- Half types ----------------------------------------------------------------------------------


@cases
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_types_are_rounded_once(case, half, isa, bits):
    """Values and gradients of half arrays are the float32 results, rounded."""
    if half == "bfloat16":
        half = pytest.importorskip("ml_dtypes").bfloat16
    draw = Draw(case, (2500,), np.float32, hard=True)
    for name in ("usual", "hard"):
        if name == "usual":
            draw = Draw(case, (25, 100), np.float32)
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
                bits(draw.loss(*arrays, **draw.keywords, reduction="none"), value.astype(half))
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
                    bits(got, value)
                else:
                    bits(got, value)
                bits(slopes, tuple(g.astype(half) for g in gradients), (name, reduction))
            outs = tuple(np.empty(g.shape, np.float32) for g in gradients)
            draw.loss.grad(*arrays, **draw.keywords, reduction=reduction, wrt=draw.wrt, out=outs)
            bits(outs, gradients)


# ---- Rows at their kinks, and alignments ---------------------------------------------------------


@floats
def test_kinks_of_rows(dtype, isa):
    """The gradient exactly at a kink, in numbers that round nothing."""

    def gradients(loss, *arrays, **options):
        arrays = [np.array(a, dtype if np.ndim(a) or type(a) is float else None) for a in arrays]
        return [
            g.tolist() for g in loss.grad(*arrays, reduction="sum", wrt=loss.default_wrt, **options)
        ]

    unit, across, zero = [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]
    one, two = gradients(fl.cosine_embedding_loss, unit, across, -1.0)
    assert (one, two) == (pytest.approx([0, 1]), pytest.approx([1, 0]))
    assert gradients(fl.cosine_embedding_loss, zero, zero, 1.0) == [zero, zero]
    plain = {"eps": 0.0, "margin": 2.0}
    triplet = fl.triplet_margin_loss
    for p in (1.0, 2.0, 3.0, np.inf):
        at_margin = gradients(triplet, [0.0], [1.0], [3.0], p=p, **plain)
        assert at_margin == [[0], [1], [-1]], p
        tie = gradients(triplet, [0.0], [0.0], [2.0], p=p, swap=True, **plain)
        assert tie == [[0.5], [0.5], [-1]], p
    shared = gradients(triplet, [3.0, -3.0, 0.0], [0.0] * 3, [4.0, 0.0, 0.0], p=np.inf, **plain)
    assert shared == [[0.5, 0.5, 0], [-0.5, 0.5, 0], [0, -1, 0]]
    assert fl.multi_margin_loss.grad(np.array([1, 0, 2], dtype), 0).tolist() == pytest.approx(
        [-1 / 3, 0, 1 / 3], rel=1e-6
    )
    labels = np.array([0, -1, -1])
    assert fl.multilabel_margin_loss.grad(np.array([1, 0, 2], dtype), labels).tolist() == (
        pytest.approx([-1 / 3, 0, 1 / 3], rel=1e-6)
    )


aligned = pytest.mark.parametrize(
    "case", [c for c in CASES if c.kind == "sequences"], ids=lambda case: case.id
)


@floats
def test_posteriors(dtype, each_isa):
    for case in CASES:
        if not case.normalised:
            continue
        options = {k: v for k, v in case.options.items() if k in ("blank", "batch_first")}
        rng = np.random.default_rng([6, *case.id.encode()])
        for arrays in (case.arrays(rng, (30,), dtype), case.hard(rng, 60, dtype)):
            exact = references.posteriors(*arrays, **options)
            for isa in each_isa():
                got = fl.ctc_posteriors(*arrays, **options)
                assert got.dtype == dtype
                assert references.excess(got, exact, dtype).max() <= 1, isa
                out = np.full_like(arrays[0], 7)
                assert fl.ctc_posteriors(*arrays, **options, out=out) is out
                np.testing.assert_array_equal(out, got)


@aligned
@floats
def test_labels_one_after_the_other(case, dtype, bits):
    """Have the bits of padded ones, whose padding is not looked at."""
    draw = Draw(case, (40,), dtype)
    expected = draw.both("none"), draw.both("mean"), draw.sums()
    _, spelled, _, labels = draw.arrays
    draw.arrays[1] = np.concatenate([row[:n] for row, n in zip(spelled, labels, strict=True)])
    bits((draw.both("none"), draw.both("mean"), draw.sums()), expected)
    for junk in (-1, 999, case.options.get("blank", 0)):
        draw.arrays[1] = np.where(np.arange(spelled.shape[1]) < labels[:, None], spelled, junk)
        bits((draw.both("none"), draw.both("mean"), draw.sums()), expected)


@aligned
@floats
def test_frames_after_the_last_are_not_looked_at(case, dtype, bits):
    draw = Draw(case, (40,), dtype)
    value, (gradient,) = draw.both("none")
    after = np.arange(8) >= draw.arrays[2][:, None]
    for junk in (np.nan, np.inf, 0.0, 1e30):
        case.leading(draw.arrays[0])[after] = junk
        bits(draw.both("none"), (value, (gradient,)), junk)
    assert not case.leading(gradient)[after].any()


@aligned
@floats
def test_what_cannot_be_spelled(case, dtype):
    """Is infinitely bad, or nothing at all."""
    draw = Draw(case, (3,), dtype)
    blank = case.options.get("blank", 0)
    draw.arrays[1][:] = (blank + 1) % 7  # three times the same: five frames
    draw.arrays[2][:] = 4, 5, 0
    draw.arrays[3][:] = 3
    value, (gradient,) = draw.both("none")
    gradient = case.leading(gradient)
    assert np.isfinite(value[1])
    assert np.isfinite(gradient[1]).all()
    if case.options.get("zero_infinity"):
        assert value[[0, 2]].tolist() == [0, 0]
        assert not gradient[[0, 2]].any()
    else:
        assert value[[0, 2]].tolist() == [np.inf, np.inf]
        assert np.isnan(gradient[0, :4]).all()
        assert not gradient[0, 4:].any()
        assert not gradient[2].any()
    assert draw.sums()[1:] == (3, 3)


def alignments(rng, samples, frames, labels, classes, dtype):
    """Log-probabilities, labels with a repeat, and lengths; the second sample is shorter."""
    x = rng.standard_normal((frames, samples, classes), np.float32).astype(dtype) * 2
    y = rng.integers(1, classes, (samples, labels))
    y[:, 3] = y[:, 2]
    lengths = np.full(samples, frames), np.full(samples, labels)
    if samples > 1:
        lengths[0][-1], lengths[1][-1] = frames - 7, labels - 1
    return log_softmax(x), y, *lengths


@pytest.mark.parametrize(
    ("samples", "frames", "labels", "classes", "dtype"),
    [
        (1, 4001, 100, 1100, np.float32),
        (2, 1500, 100, 1100, np.float64),
        (1, 60, 20, 1100, np.float64),
        (2, 60, 20, 1100, np.float32),
        (1, 401, 60, 30, np.float32),
        (2, 1500, 100, 40, np.float64),
    ],
)
def test_sequences_in_halves_have_the_bits_of_whole_ones(
    samples, frames, labels, classes, dtype, bits
):
    """Fewer than the threads, their two ends are computed side by side."""
    rng = np.random.default_rng(frames)
    arrays = alignments(rng, samples, frames, labels, classes, dtype)
    upstream = rng.normal(size=samples)

    def results():
        inside = arrays[0].copy()
        fl.ctc_loss_with_logits.grad(inside, *arrays[1:], out=inside)
        return (
            inside,
            fl.ctc_loss(*arrays, reduction="none"),
            fl.ctc_loss(*arrays, reduction="sum"),
            fl.ctc_loss.grad(*arrays),
            fl.ctc_loss.value_and_grad(*arrays, reduction="none", grad_output=upstream),
            fl.ctc_loss_with_logits(*arrays),
            fl.ctc_loss_with_logits.value_and_grad(*arrays),
            fl.ctc_posteriors(*arrays),
        )

    with fl.num_threads(1):
        expected = results()
    for threads in (2, 5):
        with fl.num_threads(threads):
            bits(results(), expected, f"{threads} threads")


@pytest.mark.parametrize("loss", [fl.ctc_loss, fl.ctc_loss_with_logits, fl.ctc_posteriors])
def test_frames_that_go_past_the_caches_have_the_bits_of_others(loss, bits):
    """Gradients of more than 32 MiB, of which the frames begin anywhere in a cache line."""
    x, y, *lengths = alignments(np.random.default_rng(7), 2, 900, 20, 5003, np.float32)
    gradient = getattr(loss, "grad", loss)
    options = {} if loss is fl.ctc_posteriors else {"reduction": "sum"}
    whole = gradient(x, y, *lengths, **options)
    for n in range(2):
        alone = gradient(x[:, n], y[n : n + 1], lengths[0][n], lengths[1][n], **options)
        bits(whole[:, n], alone)


@pytest.mark.parametrize("samples", [1, 2])
@floats
def test_sequences_in_halves_have_the_errors_of_whole_ones(samples, dtype):
    """The first of two that are wrong, towards both ends."""
    x, y, *lengths = alignments(np.random.default_rng(9), samples, 60, 20, 1100, dtype)
    last = samples - 1
    wrong_x, wrong_y = x.copy(), y.copy()
    wrong_x[[5, 50], last] += 1
    wrong_y[last, [4, -3]] = 1100, 0
    ctc, logits, posteriors = fl.ctc_loss, fl.ctc_loss_with_logits, fl.ctc_posteriors
    calls = [
        (call, x, wrong_y, rf"targets\[{last}, 4\]")
        for loss in (ctc, logits)
        for call in (loss, loss.grad, loss.value_and_grad)
    ]
    calls += [(posteriors, x, wrong_y, rf"targets\[{last}, 4\]")]
    calls += [
        (call, wrong_x, y, rf"log_probs\[5, {last}\]") for call in (ctc.grad, ctc.value_and_grad)
    ]
    inside = wrong_x.copy()
    calls += [(lambda *arrays: ctc.grad(inside, *arrays[1:], out=inside), *calls[-1][1:])]
    for call, scores, targets, place in calls:
        messages = set()
        for threads in (1, 2, 5):
            with fl.num_threads(threads), pytest.raises(ValueError, match=place) as error:
                call(scores, targets, *lengths)
            messages.add((error.type, str(error.value)))
        assert len(messages) == 1
    np.testing.assert_array_equal(inside, wrong_x)


@pytest.mark.parametrize(("rows", "classes"), [(1, 140_003), (3, 50_003)])
@pytest.mark.parametrize("kind", ["labels", "smoothed", "probabilities"])
@floats
def test_long_rows_in_parts_have_the_bits_of_whole_ones(kind, rows, classes, dtype, bits):
    """Fewer than the threads, their parts are computed side by side."""
    rng = np.random.default_rng(rows)
    x = (rng.standard_normal((rows, classes)) * 3).astype(dtype)
    y = rng.integers(0, classes, rows)
    y[-1] = classes - 1
    keywords = {"weight": rng.random(classes).astype(dtype)}
    if kind == "smoothed":
        keywords["label_smoothing"] = 0.1
    if kind == "probabilities":
        y = rng.random((rows, classes)).astype(dtype)
    upstream, sample_weight = rng.normal(size=(2, rows)) ** 2
    loss = fl.cross_entropy

    def results():
        inside = x.copy()
        loss.grad(inside, y, **keywords, out=inside)
        both = {"wrt": ("input", "target")} if kind == "probabilities" else {}
        return (
            inside,
            loss(x, y, **keywords, reduction="none"),
            loss(x, y, **keywords, sample_weight=sample_weight),
            loss.grad(x, y, **keywords, **both),
            loss.value_and_grad(x, y, **keywords, reduction="none", grad_output=upstream),
            loss.value_and_grad(x.astype(np.float16), y, **keywords),
            loss.sums(x, y, **keywords, sample_weight=sample_weight),
        )

    with fl.num_threads(1):
        expected = results()
    for threads in (2, 5):
        with fl.num_threads(threads):
            bits(results(), expected, f"{threads} threads")


@pytest.mark.parametrize("rows", [1, 3])
@floats
def test_long_rows_in_parts_have_the_errors_of_whole_ones(rows, dtype):
    classes, last = 50_003, rows - 1
    x = np.zeros((rows, classes), dtype)
    y = np.full((rows, classes), 0.5, dtype)
    y[last, [17_000, 40_000]] = -1
    label = np.full(rows, 5)
    label[last] = classes
    loss = fl.cross_entropy
    for call in (loss, loss.grad, loss.value_and_grad):
        for target, place in ((y, rf"target\[{last}, 17000\]"), (label, rf"target\[{last}\]")):
            messages = set()
            for threads in (1, 2, 5):
                with fl.num_threads(threads), pytest.raises(ValueError, match=place) as error:
                    call(x, target)
                messages.add(str(error.value))
            assert len(messages) == 1


def forward(x, spelled):
    """Logarithms of the sums over paths to each frame and state, that frame's included."""
    skips = np.zeros(len(spelled), bool)
    skips[2:] = (spelled[2:] != 0) & (spelled[2:] != spelled[:-2])
    reached = np.full((len(x), len(spelled)), -np.inf)
    reached[0, :2] = x[0, spelled[:2]]
    for t in range(1, len(x)):
        before = reached[t - 1]
        paths = before.copy()
        paths[1:] = np.logaddexp(paths[1:], before[:-1])
        paths[2:] = np.where(skips[2:], np.logaddexp(paths[2:], before[:-2]), paths[2:])
        reached[t] = paths + x[t, spelled]
    return reached


@pytest.mark.parametrize("threads", [1, 5])
def test_long_sequences(threads):
    """Of which a side keeps a few rows only, and computes the others twice."""
    (x, y, *lengths) = alignments(np.random.default_rng(8), 1, 1501, 120, 150, np.float64)
    spelled = np.zeros(241, int)
    spelled[1::2] = y[0]
    logs = x[:, 0]
    there = forward(logs, spelled)
    back = forward(logs[::-1], spelled[::-1])[::-1, ::-1]
    total = np.logaddexp(*there[-1, -2:])
    states = np.exp(there + back - logs[:, spelled] - total)
    expected = np.zeros_like(logs)
    np.add.at(expected.T, spelled, states.T)
    with fl.num_threads(threads):
        value, gradient = fl.ctc_loss_with_logits.value_and_grad(x, y, *lengths, reduction="sum")
        posteriors = fl.ctc_posteriors(x, y, *lengths)
        by_log_probs = fl.ctc_loss.grad(x, y, *lengths, reduction="sum")
    assert value == pytest.approx(-total, rel=1e-12)
    assert np.abs(posteriors[:, 0] - expected).max() < 1e-9
    assert np.abs(posteriors.sum(-1) - 1).max() < 1e-13
    for slope in (gradient, by_log_probs):
        assert np.abs(slope.sum(-1)).max() < 1e-13
        assert np.abs(slope - (np.exp(x) - posteriors)).max() < 1e-14


# ---- Objects -------------------------------------------------------------------------------------


def test_losses_pickle_to_themselves():
    for name in dict.fromkeys(case.loss for case in CASES):
        loss = getattr(fl, name)
        assert pickle.loads(pickle.dumps(loss)) is loss
        assert loss.__name__ == name
        assert loss.__doc__


def test_weights_keep_the_range_and_digits_of_float64():
    """Weights beside float32 operands are not rounded to float32."""
    x, y = np.array([1, 3], np.float32), np.zeros(2, np.float32)
    for size in (1e-300, 1e300):
        assert fl.mse_loss.sums(x, y, sample_weight=[size, size])[1] == 2 * size
    for size in (1e-35, 1e35):  # weighted losses are float32 again
        weight = np.array([size, size])
        assert fl.mse_loss(x, y, sample_weight=weight / 2) == pytest.approx(5, rel=1e-6)
        gradient = fl.mse_loss.grad(x, y, sample_weight=weight / 2)
        np.testing.assert_allclose(gradient, [1, 3], rtol=1e-6)
        logits = np.array([[2, 0], [0, 1]], np.float32)
        weighted = fl.cross_entropy(logits, [0, 0], np.array([size, size]) / 2)
        assert weighted == pytest.approx(fl.cross_entropy(logits, [0, 0]), rel=1e-6)
    assert fl.mse_loss.sums(x, y, sample_weight=[0.1, 0.2])[1] == 0.1 + 0.2
    with pytest.raises(ValueError, match=r"sample_weight\[0\] = -1e-50"):
        fl.mse_loss(x, y, sample_weight=[-1e-50, 1])
    # A product that underflows is no zero.
    nan = np.array([np.nan, 1], np.float32)
    assert np.isnan(fl.mse_loss(nan, y, weight=[1e-200, 1], sample_weight=[1e-200, 1]))


def test_an_upstream_gradient_keeps_the_range_of_float64():
    x, y = np.array([1e20, 1], np.float32), np.zeros(2, np.float32)
    gradient = fl.mse_loss.grad(x, y, grad_output=1e-50, reduction="sum")
    np.testing.assert_allclose(gradient, [2e-30, 0], rtol=1e-6, atol=1e-44)
    upstream = np.array([1e39, 1e-39])
    gradient = fl.mse_loss.grad(x / np.float32(1e30), y, grad_output=upstream, reduction="none")
    np.testing.assert_allclose(gradient, [2e29, 0], rtol=1e-6, atol=1e-44)


def test_a_memory_map_is_an_out(tmp_path):
    out = np.memmap(tmp_path / "out", np.float64, "w+", shape=(3,))
    got = fl.mse_loss.grad(np.ones(3), np.zeros(3), reduction="sum", out=out)
    assert got is out
    np.testing.assert_array_equal(out, [2, 2, 2])


# Gradients beyond this go past the caches (src_c/runtime/run.c).
STREAMED = 1 << 25


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
def test_large_gradients_have_the_bits_of_small_ones(name, dtype, row):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(7)
    rows = STREAMED // (dtype.itemsize * math.prod(row)) + 3
    x = rng.standard_normal((rows, *row), dtype=np.float32).astype(dtype)
    others = {
        "mse_loss": (x[::-1],),
        "cross_entropy": (rng.integers(0, row[0], (rows, *row[1:])),),
        "triplet_margin_loss": (x[::-1], np.roll(x, 1, axis=0)),
    }[name]
    loss = getattr(fl, name)
    out = np.full(x.size + 1, 7, dtype)[1:].reshape(x.shape)  # begins within a line
    loss.grad(x, *others, wrt=loss.operands[0], reduction="sum", out=out)
    for part in (slice(0, rows // 2), slice(rows // 2, rows)):
        arrays = (x[part], *(o[part] for o in others))
        small = loss.grad(*arrays, wrt=loss.operands[0], reduction="sum")
        assert np.array_equal(out[part], small)


def test_long_rows_in_place_side_by_side():
    """The label's logit is read before another thread writes the gradient there."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((3, 1_000_000), dtype=np.float32)
    for trial in range(8):
        labels = np.array([5, 65541, 70_000 + 16384 * trial])
        out = x.copy()
        with fl.num_threads(4):
            value, _ = fl.cross_entropy.value_and_grad(out, labels, out=out)
        assert value == fl.cross_entropy(x, labels)
