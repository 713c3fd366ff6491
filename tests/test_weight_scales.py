"""Weights of any scale: means do not depend on it, and sums are right or an OverflowError."""

import math
from fractions import Fraction

import numpy as np
import pytest

import fastloss as fl
from tests import references
from tests.bitwise import assert_bitwise
from tests.drawn_case import DrawnCase, by_row, cases, cases_where, floats

ROWS = 300
EXPONENTS = (-1074, -1030, -960, -500, -149, -130, 129, 300, 700, 1015)
NORMAL = Fraction(2) ** -1022, Fraction(float(np.finfo(np.float64).max))


def drawn(case, dtype):
    """A draw and sample weights that are powers of two, so that a scale rounds none of them."""
    draw = DrawnCase(case, (ROWS,), dtype)
    weights = np.exp2(draw.rng.integers(0, 8, ROWS))
    weights[draw.rng.random(ROWS) < 0.1] = 0
    return draw, weights


def scaled(weight, exponent):
    return np.ldexp(weight, exponent).astype(np.float64)


def exact_sums(terms, divisors):
    """Σ l, Σ |l| and Σ d, exact."""
    terms = [term if isinstance(term, Fraction) else Fraction(float(term)) for term in terms]
    return sum(terms), sum(map(abs, terms)), sum(Fraction(float(d)) for d in divisors)


def assert_close(got, expected, size):
    assert abs(Fraction(float(got)) - expected) <= Fraction(1e-13) * size


@cases
@floats
def test_mean_and_gradient_do_not_depend_on_the_scale_of_sample_weights(case, dtype):
    draw, weights = drawn(case, dtype)
    value, gradients = draw.both("mean", sample_weight=weights)
    _, size, divisor = exact_sums(
        draw.weighted_losses(weights), [draw.sums(sample_weight=weights)[1]]
    )
    tiny = np.finfo(dtype).smallest_subnormal
    for exponent in EXPONENTS:
        more = {"sample_weight": scaled(weights, exponent)}
        assert_close(draw.value("mean", **more), Fraction(value), size / divisor)
        mean, slopes = draw.both("mean", **more)
        assert_close(mean, Fraction(value), size / divisor)
        assert_bitwise(draw.grad("mean", **more), slopes)
        for slope, gradient in zip(slopes, gradients, strict=True):
            rtol = 4 * np.finfo(dtype).eps
            np.testing.assert_allclose(slope, gradient, rtol=rtol, atol=2 * tiny)


@cases_where(lambda case: "weight" in case.options)
@floats
def test_mean_and_gradient_with_scaled_weights_of_the_loss(case, dtype):
    """A mean that the weights divide does not depend on their scale; another has their scale."""
    draw, weights = drawn(case, dtype)
    weight = draw.keywords["weight"].astype(np.float64)
    weight[draw.rng.random(weight.shape) < 0.1] = 0
    draw = draw.with_arrays(draw.arrays, weight=weight)
    value, gradients = draw.both("mean", sample_weight=weights)
    terms = draw.value(sample_weight=weights).astype(np.float64)
    size = Fraction(float(np.abs(terms).sum() / draw.sums(sample_weight=weights)[1]))
    divides = draw.with_arrays(draw.arrays, weight=2 * weight).value("mean") == draw.value("mean")
    for own in (-1000, -900, -140, 140, 900, 1000):
        for sample in (0, -600, 600, -own):
            expected = Fraction(value) * (1 if divides else Fraction(2) ** own)
            other = draw.with_arrays(draw.arrays, weight=scaled(weight, own))
            more = {"sample_weight": scaled(weights, sample)}
            mean, slopes = other.both("mean", **more)
            assert_close(mean, expected, size * (1 if divides else Fraction(2) ** own))
            if not divides:
                with np.errstate(all="ignore"):
                    gradients_of_scale = [
                        np.ldexp(g.astype(np.float64), own).astype(dtype) for g in gradients
                    ]
            else:
                gradients_of_scale = gradients
            for slope, gradient in zip(slopes, gradients_of_scale, strict=True):
                rtol, tiny = 4 * np.finfo(dtype).eps, np.finfo(dtype).smallest_subnormal
                np.testing.assert_allclose(slope, gradient, rtol=rtol, atol=2 * tiny)


@cases
@floats
def test_sums_are_right_or_an_overflow_error(case, dtype):
    """Right while Σ s |l| and Σ s are normal doubles: sums, reduction="sum", accumulators."""
    draw, weights = drawn(case, dtype)
    losses = draw.weighted_losses(1.0)
    terms = [Fraction(float(v)) * Fraction(w) for v, w in zip(losses, weights, strict=True)]
    total, size = sum(terms), sum(map(abs, terms))
    divisor = Fraction(draw.sums(sample_weight=weights, reduction="sum")[1])
    for exponent in EXPONENTS:
        scale, more = Fraction(2) ** exponent, {"sample_weight": scaled(weights, exponent)}
        sum_fits = size == 0 or NORMAL[0] <= scale * size <= NORMAL[1]
        divisor_fits = NORMAL[0] <= scale * divisor <= NORMAL[1]
        if sum_fits:
            assert_close(draw.value("sum", **more), scale * total, scale * size)
        else:
            with pytest.raises(OverflowError, match=f"^{case.loss}: the sum of the losses times"):
                draw.value("sum", **more)
        if sum_fits and divisor_fits:
            got = draw.sums(**more, reduction="sum")
            assert_close(got[0], scale * total, scale * size)
            assert_close(got[1], scale * divisor, scale * divisor)
        else:
            with pytest.raises(OverflowError, match=f"^{case.loss}: the sum of the "):
                draw.sums(**more, reduction="sum")


@pytest.mark.parametrize("by", [None, "group"])
def test_accumulators_are_right_or_refuse_a_batch(by):
    x, labels = np.arange(1.0, 5), np.array([0, 0, 1, 1])
    group = {} if by is None else {"group": labels}
    for dtype in (np.float32, np.float64):
        for scale in (1e-300, 1e-50, 1e50, 1e290):
            accumulator = fl.MSELoss().accumulator(by=by)
            for _ in range(3):
                weights = np.full(4, scale)
                accumulator.update(x.astype(dtype), 0.0, sample_weight=weights, **group)
            assert accumulator.value == pytest.approx(7.5, rel=1e-13)
            assert accumulator.sum == pytest.approx(90 * scale, rel=1e-13)
            if by:
                assert accumulator.groups[0].value == pytest.approx(2.5, rel=1e-13)
        for scale in (1e-320, 5e-324, 1e308, 1.7e308):
            accumulator = fl.MSELoss().accumulator(by=by)
            if scale > 1:  # tiny weights are refused only if no sum is large
                accumulator.update(x.astype(dtype), 0.0, **group)
            before = accumulator.to_dict()
            for _ in range(2):
                with pytest.raises(OverflowError, match="mse_loss: the sum of the losses"):
                    accumulator.update(
                        x.astype(dtype), 0.0, sample_weight=np.full(4, scale), **group
                    )
                assert accumulator.to_dict() == before


def test_a_group_with_weights_out_of_range_is_refused():
    """The sum over all groups may be in range."""
    accumulator = fl.MSELoss().accumulator(by="group")
    weights = [1.0, 1e-310]
    before = accumulator.to_dict()
    with pytest.raises(OverflowError, match="the sum of the losses"):
        accumulator.update([1.0, 0.1], 0.0, sample_weight=weights, group=[0, 1])
    assert accumulator.to_dict() == before


def test_merging_accumulators_whose_sum_overflows():
    one = fl.L1Loss().accumulator()
    one.update([1.5e308], 0.0)
    before = one.to_dict()
    with pytest.raises(OverflowError, match="the sum of the losses"):
        one.merge(one)
    with pytest.raises(OverflowError, match="the sum of the losses"):
        one.update([1.5e308], 0.0)
    assert one.to_dict() == before


@pytest.mark.parametrize("rows", [2, 700, 20_000])
def test_losses_whose_sum_overflows(rows):
    """The mean is right; an infinite or NaN loss is no overflow."""
    x = np.full(rows, 1.7e308)
    for more in ({}, {"sample_weight": np.full(rows, 1e-20)}, {"weight": np.full(rows, 1e20)}):
        mean, gradient = fl.l1_loss.value_and_grad(x, 0.0, **more)
        assert mean == pytest.approx(1.7e308, rel=1e-13)
        np.testing.assert_allclose(gradient, 1 / rows, rtol=1e-13)
    for method in (fl.l1_loss, fl.l1_loss.sums):
        with pytest.raises(OverflowError, match=r"^l1_loss: the sum of the losses"):
            method(x, 0.0, reduction="sum")
    for special in (np.inf, np.nan):
        x[rows // 2] = special
        for reduction in ("mean", "sum"):
            np.testing.assert_equal(fl.l1_loss(x, 0.0, reduction=reduction), special)
        np.testing.assert_equal(fl.l1_loss.sums(x, 0.0)[0], special)


def test_in_place_gradient_and_mean():
    """Formed in one pass: the input is overwritten before the sum is known to be extreme."""
    for exponent in EXPONENTS:
        x = np.arange(1.0, 3000).astype(np.float32)
        weights = scaled(np.ones(x.shape), exponent)
        expected = fl.mse_loss.value_and_grad(x, 0.0)
        mean, gradient = fl.mse_loss.value_and_grad(x, 0.0, sample_weight=weights, out=x)
        assert mean == pytest.approx(expected[0], rel=1e-13)
        np.testing.assert_allclose(gradient, expected[1], rtol=4e-7)


def test_products_of_two_weights():
    """Losses and gradients are right where the product of both weights is no normal double."""
    x = np.array([1e150, 1e149, np.nan])
    for size in (1e-200, 1e200):
        weights = {"weight": np.full(3, size), "sample_weight": np.array([size, size, 0])}
        y = np.zeros(3)
        scale = Fraction(size) ** 2
        if size < 1:
            losses, gradient = fl.mse_loss.value_and_grad(x, y, **weights, reduction="none")
        else:
            losses, gradient = fl.mse_loss.value_and_grad(
                x * 1e-298, y, **weights, reduction="none"
            )
        for i in range(2):
            at = Fraction(float(x[i] if size < 1 else x[i] * 1e-298))
            assert losses[i] == pytest.approx(float(at * at * scale), rel=1e-14)
            assert gradient[i] == pytest.approx(float(2 * at * scale), rel=1e-14)
        assert (losses[2], gradient[2]) == (0, 0)
    # A product that underflows removes nothing.
    assert np.isnan(fl.mse_loss(x, y, weight=np.full(3, 1e-200), sample_weight=np.full(3, 1e-200)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-50, 1e-42, 1e38, 1e100, 1e300])
def test_against_the_formula(dtype, scale):
    """The mean of mpmath, which knows no range."""
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(2, 50)).astype(dtype)
    logits, labels = rng.normal(size=(50, 4)).astype(dtype), rng.integers(0, 4, 50)
    s = scale * np.ones(50)
    classes = scale * np.ones(4)
    for loss, arrays, options in (
        ("mse_loss", (x, y), {"sample_weight": s}),
        ("mse_loss", (x, y), {"weight": s}),
        ("l1_loss", (x, y), {"weight": s, "sample_weight": s}),
        ("nll_loss", (-np.abs(logits), labels), {"weight": classes}),
        ("nll_loss", (-np.abs(logits), labels), {"weight": classes, "sample_weight": s}),
        ("cross_entropy", (logits, labels), {"weight": classes}),
        ("cross_entropy", (logits, labels), {"weight": classes, "label_smoothing": 0.25}),
        ("cross_entropy", (logits, labels), {"weight": classes, "sample_weight": s}),
        ("multi_margin_loss", (logits, labels), {"sample_weight": s}),
        ("cosine_embedding_loss", (logits, logits[::-1], np.sign(y)), {"sample_weight": s}),
    ):
        compute = np.promote_types(dtype, np.float32)
        wide = [a.astype(compute) if a.dtype.kind == "f" else a for a in arrays]
        value, gradients = references.reduced(loss, wide, options)
        mean, gradient = getattr(fl, loss).value_and_grad(
            *arrays, **options, wrt="input1" if "cosine" in loss else "input"
        )
        assert mean == pytest.approx(float(value.value), rel=float(10 * np.finfo(compute).eps))
        first = next(iter(gradients.values()))
        np.testing.assert_allclose(
            gradient,
            first.value.astype(np.float64),
            rtol=10 * np.finfo(dtype).eps,
            atol=10 * np.finfo(dtype).eps * float(abs(first.term).max()),
        )
    assert math.isfinite(mean)


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        ("mse_loss", {}),
        ("nll_loss", {}),
        ("cross_entropy", {}),
        ("cross_entropy", {"label_smoothing": 0.25}),
        ("multi_margin_loss", {}),
        ("multilabel_soft_margin_loss", {}),
    ],
)
@pytest.mark.parametrize(
    ("own", "sample"), [(1000, -1070), (-1070, 1000), (1000, -1000), (510, -1074)]
)
@floats
def test_one_scale_undoes_the_other(loss, options, own, sample, dtype):
    """Neither the subnormal scale nor the product with a single factor costs precision."""
    rng = np.random.default_rng(11)
    rows, classes = 40, 5
    x = rng.normal(size=(rows, classes)).astype(dtype)
    y = rng.integers(0, classes, rows)
    weight = np.exp2(rng.integers(0, 4, classes))
    if loss == "mse_loss":
        x, y, weight = x[:, 0], x[:, 1], np.exp2(rng.integers(0, 4, rows))
    elif loss == "multilabel_soft_margin_loss":
        y = rng.integers(0, 2, x.shape).astype(dtype)
    samples = np.exp2(rng.integers(0, 4, rows))
    divides = loss in ("mse_loss", "nll_loss", "cross_entropy")
    call = getattr(fl, loss)
    both = {"weight": scaled(weight, own), "sample_weight": scaled(samples, sample), **options}
    one = {"weight": weight, "sample_weight": samples, **options}
    for reduction in ("mean", "sum", "none"):
        exponent = own + sample if reduction != "mean" else 0 if divides else own
        if exponent < -1000:
            continue  # no normal double
        value, gradient = call.value_and_grad(x, y, **one, reduction=reduction)
        with np.errstate(all="ignore"):
            value = np.ldexp(np.float64(value), exponent).astype(
                dtype if reduction == "none" else np.float64
            )
            gradient = np.ldexp(gradient.astype(np.float64), exponent).astype(dtype)
        tiny, rtol = np.finfo(dtype).smallest_subnormal, 4 * np.finfo(dtype).eps
        if reduction == "none":
            losses = call(x, y, **both, reduction=reduction)
            np.testing.assert_allclose(losses, value, rtol=rtol, atol=2 * tiny)
        else:
            total = call(x, y, **both, reduction=reduction)
            assert total == pytest.approx(float(value), rel=1e-13 if dtype == np.float64 else 1e-7)
        if reduction == "mean":
            slopes = call.grad(x, y, **both)
            np.testing.assert_allclose(slopes, gradient, rtol=rtol, atol=2 * tiny)


@pytest.mark.parametrize("exponent", [-950, 950])
def test_an_upstream_gradient_that_undoes_the_scale(exponent):
    x = np.arange(1.0, 5)
    logits, labels = np.arange(8.0).reshape(4, 2), [0, 1, 0, 1]
    for loss, arrays in (("mse_loss", (x, 0.0)), ("cross_entropy", (logits, labels))):
        call = getattr(fl, loss)
        expected = np.ldexp(call.grad(*arrays), exponent)
        gradient = call.grad(
            *arrays, sample_weight=scaled(np.ones(4), exponent), grad_output=2.0**exponent
        )
        np.testing.assert_allclose(gradient, expected, rtol=1e-15)


@pytest.mark.parametrize("low", [-1074, -300])
@floats
def test_weights_of_all_scales_on_any_number_of_threads(low, dtype):
    """The same bits, and right, though weights of one call differ by hundreds of powers of two."""
    rng = np.random.default_rng(12)
    rows = 20_000
    weights = np.ldexp(rng.uniform(1, 2, rows), rng.integers(low, low + 1000, rows))
    x, y = rng.normal(size=(2, rows)).astype(dtype)
    logits = rng.normal(size=(rows, 3)).astype(dtype)
    labels = rng.integers(0, 3, rows)
    for loss, arrays in (
        ("mse_loss", (x, y)),
        ("nll_loss", (logits, labels)),
        ("cross_entropy", (logits, labels)),
        ("multi_margin_loss", (logits, labels)),
    ):
        call = getattr(fl, loss)
        losses = call(*arrays, reduction="none").astype(np.float64)
        total, size, divisor = exact_sums(
            [Fraction(float(v)) * Fraction(float(w)) for v, w in zip(losses, weights, strict=True)],
            weights,
        )
        results = []
        for threads in (1, 2):
            with fl.num_threads(threads):
                results.append(call.value_and_grad(*arrays, sample_weight=weights))
        assert_bitwise(results[0], results[1])
        assert_close(results[0][0], total / divisor, size / divisor)


@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize("loss", [fl.nll_loss, fl.cross_entropy, fl.multi_margin_loss])
def test_gradients_of_the_largest_class_weights(loss, reduction):
    """A weight near 1.8e308 multiplies gradients that are finite; so do large factors with it."""
    x = np.log(np.array([[0.2, 0.7, 0.1], [0.5, 0.2, 0.3], [0.8, 0.1, 0.1]]))
    y, weight = np.arange(3), np.array([1.7e308, 1.1e308, 3e307])
    for factors in ({}, {"grad_output": 3.0, "sample_weight": np.full(3, 0.125)}):
        options = {"reduction": reduction, **factors}
        if reduction == "none" and factors:
            options["grad_output"] = np.full(3, 3.0)
        expected = loss.grad(x, y, weight=weight * 2.0**-64, **options) * 2.0**64
        assert np.isfinite(expected).all()
        assert_bitwise(loss.grad(x, y, weight=weight, **options), expected)
    assert_bitwise(
        loss(x, y, weight=weight, reduction="mean"),
        loss(x, y, weight=weight * 2.0**-64, reduction="mean")
        * (2.0**64 if loss is fl.multi_margin_loss else 1),
    )


@floats
@pytest.mark.parametrize("broadcast", [False, True])
@pytest.mark.parametrize(
    ("weight", "grad_output"),
    [(1e300, 1e20), (1.7e308, 10.0), (1e-300, 1e-20), (1e-310, 1e300), (1e300, 1e-300), (2.0, 3.0)],
)
def test_weight_times_grad_output_out_of_range(weight, grad_output, broadcast, dtype):
    """The product of the two need not be in the range of float64 where the gradient is."""
    x = np.array([1e-30, 0, 3], dtype)
    weights, upstream = np.full(3, weight), grad_output if broadcast else np.full(3, grad_output)
    gradient = fl.mse_loss.grad(
        x,
        np.zeros(3),
        weight=weights,
        reduction="sum" if broadcast else "none",
        grad_output=upstream,
    )
    for got, v in zip(gradient, x, strict=True):
        exact = 2 * Fraction(float(v)) * Fraction(weight) * Fraction(grad_output)
        if exact > Fraction(float(np.finfo(dtype).max)):
            assert got == np.inf
        else:
            info = np.finfo(dtype)
            bound = max(
                4 * exact * Fraction(float(info.eps)), Fraction(float(info.smallest_subnormal))
            )
            assert abs(Fraction(float(got)) - exact) <= bound


def without_weights(draw):
    draw.keywords = {k: v for k, v in draw.keywords.items() if k not in ("sample_weight", "weight")}
    return draw


@cases
@floats
def test_sample_weight_times_grad_output_out_of_range(case, dtype):
    """Exact, or an error that names the first row whose gradient has an infinite factor."""
    draw = without_weights(DrawnCase(case, (5,), dtype))
    gradients = draw.grad("none", grad_output=np.ones(5))
    weights, upstream = np.full(5, 2.0**1000), np.full(5, 2.0**-1000)
    in_range = {"sample_weight": weights, "grad_output": upstream}
    assert_bitwise(draw.grad("none", **in_range), gradients)
    upstream[3] = 2.0**100
    if case.unit != "element":
        with pytest.raises(OverflowError, match=rf"^{case.loss}: grad_output times .* index \[3\]"):
            draw.grad("none", **in_range)
        return
    with np.errstate(over="ignore"):
        gradients = [np.where(np.arange(5) == 3, np.ldexp(g, 1100), g) for g in gradients]
    assert_bitwise(draw.grad("none", **in_range), tuple(gradients))


@by_row
def test_input_is_kept_when_the_factor_of_a_gradient_is_infinite(case):
    draw = without_weights(DrawnCase(case, (5,), np.float64))
    before = draw.arrays[0].copy()
    with pytest.raises(OverflowError, match=f"^{case.loss}: grad_output times "):
        draw.loss.grad(
            *draw.arrays,
            **draw.keywords,
            wrt=draw.wrt[0],
            out=draw.arrays[0],
            reduction="none",
            sample_weight=np.full(5, 1e300),
            grad_output=np.full(5, 1e20),
        )
    assert_bitwise(draw.arrays[0], before)


def test_class_weights_bring_infinite_factors_back():
    """sample_weight times grad_output may overflow where their product with w_c does not."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(4, 3)), rng.integers(0, 3, 4)
    large = {"sample_weight": np.full(4, 2.0**1000), "grad_output": np.full(4, 2.0**100)}
    weight = np.full(3, 2.0**-1000)
    for loss in (fl.multi_margin_loss, fl.cross_entropy, fl.nll_loss):
        expected = loss.grad(x, y, reduction="none", grad_output=np.full(4, 2.0**100))
        assert_bitwise(loss.grad(x, y, weight=weight, reduction="none", **large), expected)
    many = rng.uniform(size=(4, 3))
    loss = fl.multilabel_soft_margin_loss
    with np.errstate(over="ignore"):
        expected = np.ldexp(loss.grad(x, many, reduction="none", grad_output=np.ones(4)), 1030)
    got = loss.grad(
        np.vstack([x[:3], [[900.0, 900, 900]]]),
        np.vstack([many[:3], np.ones((1, 3))]),
        weight=np.full((4, 3), 2.0**40),
        reduction="none",
        grad_output=np.full(4, 2.0**990),
    )
    assert_bitwise(got[:3], expected[:3])
    assert_bitwise(got[3], np.zeros(3))  # not inf times 0
