"""Every loss a second time, in as many digits as it takes.

The top half of this file is one small function per loss: the formula, written plainly on mpmath
numbers. Nothing is rearranged against cancellation; the working precision is raised instead. The
bottom half, the same for all losses, applies those functions to arrays: weights, removed entries,
divisors, reductions, gradients summed over broadcasting.

A result is a `Number`: its value, the largest term of its formula and the exponents in it, from
which `tolerance` makes the promised error bound

    |got - value| <= 4 ULP(term) + exponent/2 ULP(term),    ULP(t) = eps |t| in the compute type,

and, where results underflow, at least 4 `floor` times the smallest subnormal number.

Two laws hold for all losses and appear in no formula:

- NaN in an operand of an entry makes its value and each of its gradients NaN.
- A weight of exactly 0 or `ignore_index` removes an entry: it adds 0, whatever it holds.

0 times infinity is 0 where the 0 is a coefficient that the caller chose (`times`): the limit along
the other factor. Elsewhere infinities go through the formulas as IEEE 754 takes them. Out-of-range
operands are an error of the library; what a reference returns for them means nothing.

Formulas and kinks: torch.nn.functional 2.13, except where a function says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import NamedTuple

import numpy as np
from mpmath import mp, mpf

BITS = 200  # of working precision, before what the spread of an operand adds
DEEPEST = 1600  # exp(-1600) is 0 in float64, and so is its product with any weight
INF, NAN = mpf("inf"), mpf("nan")


class Number(NamedTuple):
    """A value with what its error bound needs; the fields may be arrays (`dtype=object`).

    `term` is the largest magnitude among the terms that the formula adds and their sum.
    `exponent` is sum |a dr/da| / term over the arguments a of exp that had to be rounded (only
    x_j - m in cross entropy): the part of the term that a relative change of all a moves.
    `floor` is what multiplies a factor of the formula that may have underflowed, at least 1.
    """

    value: object
    term: object
    exponent: object = mpf(0)
    floor: object = mpf(1)

    def at(self, index):
        return Number(*(field[index] for field in self))

    def shaped(self, shape):
        return Number(*(field.reshape(shape) for field in self))

    def scaled(self, factor):
        size = abs(factor)
        floor = np.maximum(self.floor * size, mpf(1))
        return Number(self.value * factor, self.term * size, self.exponent, floor)

    def over(self, divisor):
        size = abs(divisor)
        value, term, floor = _divide(self.value, divisor), _divide(self.term, size), self.floor
        return Number(value, term, self.exponent, _divide(floor, size))

    def gathered(self, owner, size):
        """Add up the entries of each owner 0 .. size - 1, their terms, and their error bounds."""
        value, term, moved, floor = (np.full(size, mpf(0), dtype=object) for _ in self)
        np.add.at(value, owner, self.value)
        np.add.at(term, owner, self.term)
        np.add.at(moved, owner, self.term * self.exponent)
        np.add.at(floor, owner, self.floor)
        return Number(value, term, _part(moved, term), floor)


def total(*terms, floor=1):
    """Add the terms of a formula; what stands between the commas is what its bound scales with."""
    value = sum(terms, start=mpf(0))
    return Number(value, max(abs(v) for v in (value, *terms)), mpf(0), max(abs(floor), mpf(1)))


def at_least(term, number):
    """The number with one more term, which is 0 but for rounding."""
    return number._replace(term=max(abs(term), number.term))


def times(coefficient, factor):
    return mpf(0) if coefficient == 0 else coefficient * factor


def divide(a, b):
    if b != 0:
        return a / b
    return NAN if a == 0 or mp.isnan(a) else INF * mp.sign(a)


def part(moved, term):
    return moved / term if term else mpf(0)


_divide, _part = np.frompyfunc(divide, 2, 1), np.frompyfunc(part, 2, 1)


def log(x):
    return mp.log(x) if x >= 0 else NAN


def softplus(x):
    return mp.log(1 + mp.exp(x))


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def sign(x):
    return x if mp.isnan(x) else mp.sign(x)


def tiny(x):
    """Bits that 1 + x needs beyond those of x."""
    return max(0, -mp.mag(x)) if x != 0 and mp.isfinite(x) else 0


def steep(x):
    """Bits that 1 + exp(x) needs beyond those of exp(x)."""
    return int(1.45 * min(abs(x), DEEPEST))


def at_bits(extra=lambda *operands: 0):
    """Evaluate an elementwise formula with BITS + extra(*operands) bits; NaN in is NaN out."""

    def decorate(formula):
        @wraps(formula)
        def loss(*operands, **options):
            nan = any(mp.isnan(v) for v in operands)
            with mp.workprec(BITS + (0 if nan else extra(*operands))):
                value, gradients = formula(*operands, **options)
            if nan:
                value, gradients = total(NAN), dict.fromkeys(gradients, total(NAN))
            return value, gradients

        return loss

    return decorate


# ---- Elementwise losses: operands -> value, {operand: gradient} ----------------------------------
#
# A difference of two operands, or of an operand and an option, is one term: it is rounded once.


@at_bits()
def l1(x, y):
    """|x - y|. Gradient sign(x - y), 0 where they are equal."""
    d = x - y
    return total(abs(d)), {"input": total(sign(d)), "target": total(-sign(d))}


@at_bits()
def mse(x, y):
    """(x - y)^2."""
    d = x - y
    return total(d * d), {"input": total(2 * d), "target": total(-2 * d)}


@at_bits()
def smooth_l1(x, y, *, beta=1.0):
    """d^2/(2 beta) for |d| < beta, else |d| - beta/2; d = x - y."""
    d = x - y
    if abs(d) < beta:
        return total(d * d / (2 * beta)), {"input": total(d / beta), "target": total(-d / beta)}
    return total(abs(d), -beta / 2), {"input": total(sign(d)), "target": total(-sign(d))}


@at_bits()
def huber(x, y, *, delta=1.0):
    """d^2/2 for |d| < delta, else delta (|d| - delta/2); d = x - y.

    Where delta and |d| are infinite: inf, and a gradient of -inf or inf (torch: NaN).
    """
    d = x - y
    if abs(d) < delta or delta == INF:
        return total(d * d / 2), {"input": total(d), "target": total(-d)}
    slope = delta * sign(d)
    value = total(delta * abs(d), -delta * delta / 2)
    return value, {"input": total(slope), "target": total(-slope)}


@at_bits(lambda x, y: 2 * tiny(x - y))
def log_cosh(x, y):
    """log cosh(x - y). Gradient tanh(x - y)."""
    d = x - y
    slope = mp.tanh(d)
    return total(mp.log(mp.cosh(d))), {"input": total(slope), "target": total(-slope)}


@at_bits()
def poisson_nll(x, y, *, log_input=True, full=False, eps=1e-8):
    """exp(x) - y x, or x - y log(x + eps); `full` adds y log y - y + log(2 pi y)/2 where y > 1.

    The logarithm's argument x + eps is itself rounded, which moves the logarithm by up to an ULP
    of 1: hence the terms y and 1 (the zeros below carry them).
    """
    stirling = (y * log(y), -y, log(2 * mp.pi * y) / 2) if full and y > 1 else ()
    stirling_slope = (log(y), 1 / (2 * y)) if full and y > 1 else ()
    if log_input:
        value = total(mp.exp(x), -times(y, x), *stirling)
        return value, {"input": total(mp.exp(x), -y), "target": total(-x, *stirling_slope)}
    rate = x + eps
    value = at_least(y, total(x, -times(y, log(rate)), *stirling))
    slope = total(mpf(1), -times(y, divide(mpf(1), rate)))
    return value, {"input": slope, "target": at_least(1, total(-log(rate), *stirling_slope))}


@at_bits()
def gaussian_nll(x, y, var, *, full=False, eps=1e-6):
    """(log v + (x - y)^2/v)/2, v = max(var, eps); `full` adds log(2 pi)/2.

    The gradient with respect to var ignores the clamp, as in torch.
    """
    d, v = x - y, max(var, mpf(eps))
    constant = (log(2 * mp.pi) / 2,) if full else ()
    value = total(log(v) / 2, divide(d * d, 2 * v), *constant)
    slope = divide(d, v)
    return value, {
        "input": total(slope),
        "target": total(-slope),
        "var": total(divide(mpf(1), 2 * v), -divide(d * d, 2 * v * v)),
    }


@at_bits()
def kl_div(x, y, *, log_target=False):
    """y log y - y x, or exp(y) (y - x) if `log_target`; x holds log-probabilities.

    Both are 0, for any x, where the target's probability is 0.
    """
    if log_target:
        p = mp.exp(y)
        reach = abs(y - x) if p else mpf(0)
        value = total(times(p, y - x), floor=reach)
        slope = total(times(p, y - x), p, floor=reach + 1)
        return value, {"input": total(-p), "target": slope}
    value = total(times(y, log(y)), -times(y, x))
    return value, {"input": total(-y), "target": total(log(y), mpf(1), -x)}


@at_bits(lambda x, y: tiny(x))
def binary_cross_entropy(x, y):
    """-y max(log x, -100) - (1 - y) max(log(1 - x), -100).

    The input's gradient (x - y)/max(x (1 - x), eps) has eps = 1e-12 rounded to float32, in float64
    too; the target's gradient is not clamped.
    """
    yes, no = log(x), log(1 - x)
    value = total(-y * max(yes, mpf(-100)), -(1 - y) * max(no, mpf(-100)))
    slope = (x - y) / max(x * (1 - x), mpf(float(np.float32(1e-12))))
    return value, {"input": total(slope), "target": total(no, -yes)}


@at_bits(lambda x, y, p: steep(x))
def binary_cross_entropy_with_logits(x, y, p):
    """(1 - y) softplus(x) + p y softplus(-x), p = pos_weight."""
    value = total(times(1 - y, softplus(x)), times(p * y, softplus(-x)), floor=p)
    return value, {
        "input": total((1 - y) * sigmoid(x), -p * y * sigmoid(-x), floor=p),
        "target": total(-softplus(x), times(p, softplus(-x)), floor=p),
    }


@at_bits()
def hinge_embedding(x, y, *, margin=1.0):
    """x for y = 1, max(0, margin - x) for y = -1. Gradient -1 at the kink."""
    if y == 1:
        return total(x), {"input": total(mpf(1))}
    z = margin - x
    return total(max(z, mpf(0))), {"input": total(-mpf(z >= 0))}


@at_bits(lambda x, y: steep(x))
def soft_margin(x, y):
    """log(1 + exp(-y x)), y = -1 or 1."""
    return total(softplus(-y * x)), {"input": total(-y * sigmoid(-y * x))}


@at_bits()
def margin_ranking(x1, x2, y, *, margin=0.0, bits=53):
    """max(0, z), z = margin - y (x1 - x2), y = -1 or 1. Gradient -y and y where z >= 0.

    On which side of the kink an entry lies is decided with x1 - x2 rounded to the compute type.
    """
    d = x1 - x2
    with mp.workprec(bits):
        rounded = +d
    z, side = margin - y * d, margin - y * rounded
    active = NAN if mp.isnan(z) else mpf(side >= 0)
    value = total(max(z, mpf(0)))
    if z > 0 or side >= 0:
        value = at_least(max(abs(d), abs(margin)), value)
    return value, {"input1": total(-y * active), "input2": total(y * active)}


# ---- Losses along a row of classes: row, class, class weights -> value, [gradient] ---------------


def nll(x, y, w):
    """-w[y] x[y]; x holds log-probabilities. Nothing else of the row is read."""
    nothing, picked = total(mpf(0)), NAN if mp.isnan(x[y]) else -w[y]
    gradient = [total(picked) if c == y else nothing for c in range(len(x))]
    return total(-w[y] * x[y]), gradient


def cross_entropy(x, y, w, *, label_smoothing=0.0):
    """sum_c q_c (log sum_j exp(x_j) - x_c), q_c = w_c ((1 - e) [c = y] + e/C), e = label_smoothing.

    All terms have one sign. The gradient s_c sum(q) - q_c, s = softmax(x), is taken apart into
    (1 - e) w_y (s_c - [c = y]), with s_y - 1 one term, (e/C) s_c sum(w) and -(e/C) w_c.
    A row that holds NaN or +inf, or nothing but -inf, is NaN throughout.
    """
    if not all(v < INF for v in x) or max(x) == -INF:
        return total(NAN), [total(NAN)] * len(x)

    second, highest = sorted([-INF, *x])[-2:]
    largest = max(abs(v) for v in x if mp.isfinite(v))
    magnitude = max(0, mp.mag(largest)) if largest else 0
    with mp.workprec(BITS + magnitude + steep(highest - second)):
        classes, e = range(len(x)), label_smoothing
        powers = [mp.exp(v) for v in x]
        power_sum = mp.fsum(powers)
        log_sum = mp.log(power_sum)
        hard, smooth = (1 - e) * w[y], [e * v / len(x) for v in w]
        smooth_sum = mp.fsum(smooth)
        terms = [times(hard, log_sum - x[y])]
        if e:
            terms += [times(q, log_sum - v) for q, v in zip(smooth, x, strict=True)]
        value = total(*terms, floor=w[y])

        # The exponents |x_j - m|, and what they move in the sum under the fraction bar.
        share = [p / power_sum for p in powers]
        depth = [highest - v if p else mpf(0) for v, p in zip(x, powers, strict=True)]
        below = mp.fsum(s * a for s, a in zip(share, depth, strict=True))
        others = [c for c in classes if c != y]
        moved = abs(hard + smooth_sum) * below
        value = value._replace(exponent=part(moved, value.term))

        gradient = []
        for c in classes:
            if c == y:
                s = -mp.fsum(share[j] for j in others)
                above = mp.fsum(share[j] * depth[j] for j in others)
            else:
                s, above = share[c], share[c] * depth[c]
            terms, moved = [hard * s], abs(hard) * (above + abs(s) * below)
            if e:
                terms += [smooth_sum * share[c], -smooth[c]]
                moved += abs(smooth_sum) * share[c] * (depth[c] + below)
            number = total(*terms, floor=w[y])
            gradient.append(number._replace(exponent=part(moved, number.term)))
    return value, gradient


# ---- The table -----------------------------------------------------------------------------------


class Reference(NamedTuple):
    """What the array functions below know about a loss.

    `divisor`: what mean divides by, a sum of "ones", of the "weight" k, or of the class weights
    ("classes"). `terms`: the terms of value and gradients in words, for the documentation.
    """

    formula: Callable
    operands: tuple[str, ...]
    differentiable: tuple[str, ...]
    divisor: str
    terms: dict[str, str]
    extra: tuple[str, ...] = ()  # operands that come by keyword; 1 if they do not come


XY = ("input", "target")
X = ("input",)
ITSELF = "itself"
REFERENCES = {
    "l1_loss": Reference(l1, XY, XY, "weight", {"value": ITSELF, "input, target": ITSELF}),
    "mse_loss": Reference(mse, XY, XY, "weight", {"value": ITSELF, "input, target": ITSELF}),
    "smooth_l1_loss": Reference(
        smooth_l1, XY, XY, "ones", {"value": "d²/(2β), or |d| and β/2", "input, target": ITSELF}
    ),
    "huber_loss": Reference(
        huber, XY, XY, "ones", {"value": "d²/2, or δ|d| and δ²/2", "input, target": ITSELF}
    ),
    "log_cosh_loss": Reference(
        log_cosh, XY, XY, "ones", {"value": ITSELF, "input, target": ITSELF}
    ),
    "poisson_nll_loss": Reference(
        poisson_nll,
        XY,
        XY,
        "ones",
        {
            "value": "exp(x), y x (log_input); x, y log(x + eps), y (not); "
            "y log y, y, log(2πy)/2 (full)",
            "input": "exp(x), y; or 1, y/(x + eps)",
            "target": "x; or log(x + eps), 1; log y, 1/(2y) (full)",
        },
    ),
    "gaussian_nll_loss": Reference(
        gaussian_nll,
        ("input", "target", "var"),
        ("input", "target", "var"),
        "ones",
        {
            "value": "log(v)/2, d²/(2v), log(2π)/2 (full)",
            "input, target": ITSELF,
            "var": "1/(2v), d²/(2v²)",
        },
    ),
    "kl_div": Reference(
        kl_div,
        XY,
        XY,
        "ones",
        {
            "value": "y log y, y x; or itself (log_target)",
            "input": ITSELF,
            "target": "log y, 1, x; or exp(y)(y - x), exp(y) (log_target)",
        },
    ),
    "binary_cross_entropy": Reference(
        binary_cross_entropy,
        XY,
        XY,
        "ones",
        {"value": ITSELF, "input": ITSELF, "target": "log x, log(1 - x)"},
    ),
    "binary_cross_entropy_with_logits": Reference(
        binary_cross_entropy_with_logits,
        XY,
        XY,
        "ones",
        {
            "value": ITSELF + ": (1 - y) softplus(x), p y softplus(-x)",
            "input": "(1 - y) σ(x), p y σ(-x)",
            "target": "softplus(x), p softplus(-x)",
        },
        extra=("pos_weight",),
    ),
    "hinge_embedding_loss": Reference(
        hinge_embedding, XY, X, "ones", {"value": ITSELF, "input": ITSELF}
    ),
    "soft_margin_loss": Reference(soft_margin, XY, X, "ones", {"value": ITSELF, "input": ITSELF}),
    "margin_ranking_loss": Reference(
        margin_ranking,
        ("input1", "input2", "target"),
        ("input1", "input2"),
        "ones",
        {"value": "margin, x1 - x2", "input1, input2": ITSELF},
    ),
    "nll_loss": Reference(nll, XY, X, "classes", {"value": ITSELF, "input": ITSELF}),
    "cross_entropy": Reference(
        cross_entropy,
        XY,
        X,
        "classes",
        {
            "value": ITSELF,
            "input": ITSELF + "; (1 - e) w_y (s_c - [c = y]), (e/C) s_c Σw, (e/C) w_c "
            "(label_smoothing)",
        },
    ),
}

# ---- Arrays --------------------------------------------------------------------------------------
#
# `options` below are the keywords of a call: those of the loss, `weight`, `pos_weight`,
# `sample_weight`, `reduction` ("mean") and `grad_output` (1). Scalar options and kinks are taken in
# the compute type `dtype`, which is `compute_dtype(...)` unless given.


def unreduced(loss, arrays, options=None, dtype=None):
    """The losses that reduction="none" gives, as a `Number` of object arrays."""
    call = _Call(loss, arrays, options, dtype)
    return call.values.shaped(call.shape)


def reduced(loss, arrays, options=None, dtype=None):
    """Value and {argument: gradient} under `reduction`, as `Number`s.

    The terms of entries that were added up are added up too, and so is what bounds their errors.
    """
    call = _Call(loss, arrays, options, dtype)
    reduction = call.options.get("reduction", "mean")
    upstream = np.asarray(call.options.get("grad_output", 1.0), dtype=float)
    upstream = _numbers(np.broadcast_to(upstream, call.shape))
    with mp.workprec(BITS):
        if reduction == "none":
            return call.values.shaped(call.shape), call.gradients(upstream)
        divisor = mpf(1) if reduction == "sum" else call.divisor(reduction)
        value = call.values.gathered(np.zeros(len(call.kept), int), 1).over(divisor).at(0)
        return value, call.gradients(upstream, divisor)


def sums(loss, arrays, options=None, dtype=None):
    """(sum, weight, count): what mean divides, by what, and the number of entries not removed."""
    call = _Call(loss, arrays, options, dtype)
    with mp.workprec(BITS):
        return sum(call.values.value, start=mpf(0)), call.divisor("mean"), int(call.kept.sum())


def compute_dtype(loss, arrays):
    """The promotion of the floating operands, at least float32; integer `input` reads as float64.

    Weights of all sorts, and Python numbers, do not take part.
    """
    reference = REFERENCES[_name(loss)]
    kinds = [a.dtype for a in arrays if hasattr(a, "dtype")]
    floating = [kind for kind in kinds if np.issubdtype(kind, np.floating)]
    inputs = (a for name, a in zip(reference.operands, arrays, strict=True) if name[:5] == "input")
    if any(np.asarray(a).dtype.kind in "iub" for a in inputs) or not floating:
        floating.append(np.dtype(np.float64))
    return np.result_type(np.float32, *floating)


def tolerance(numbers, dtype):
    """The promised error: 4 ULP of the largest term, and half an ULP per unit of exponents."""
    info = np.finfo(dtype)
    ulp = np.asarray(numbers.term, dtype=object) * mpf(float(info.eps))
    floor = np.maximum(np.asarray(numbers.floor, dtype=object), mpf(1))
    floor = floor * mpf(float(info.smallest_subnormal))
    return 4 * np.maximum(ulp, floor) + np.asarray(numbers.exponent, dtype=object) * ulp / 2


def excess(got, numbers, dtype):
    """The error of `got` in units of the promised one, entry by entry: at most 1 keeps the promise.

    NaN and infinities must match. What overflows counts as the first power of two out of range.
    """
    end = mpf(2) ** int(np.finfo(dtype).maxexp)

    def ratio(got, value, bound):
        if mp.isnan(got) or mp.isnan(value):
            return 0.0 if mp.isnan(got) and mp.isnan(value) else np.inf
        if mp.isinf(value):
            return 0.0 if got == value else np.inf
        got, value = (max(-end, min(end, v)) for v in (got, value))
        return float(abs(got - value) / bound)

    with mp.workprec(BITS):
        bound = np.asarray(tolerance(numbers, dtype), dtype=object)
        value = np.asarray(numbers.value, dtype=object)
        got = _numbers(got).reshape(np.shape(got))
        assert got.shape == value.shape == bound.shape
        entries = zip(got.ravel(), value.ravel(), bound.ravel(), strict=True)
        return np.array([ratio(*entry) for entry in entries], dtype=float).reshape(value.shape)


class _Call:
    """A call taken apart: its entries in flat order, weights applied, removed entries zeroed."""

    def __init__(self, loss, arrays, options, dtype):
        self.options = options = dict(options or {})
        self.reference = REFERENCES[_name(loss)]
        dtype = compute_dtype(loss, arrays) if dtype is None else np.dtype(dtype)
        self.arrays = [np.asarray(a, dtype if isinstance(a, float) else None) for a in arrays]
        read = self._read_rows if self.reference.divisor == "classes" else self._read_elements
        with mp.workprec(BITS):
            read(_in_type(self.reference.formula, options, dtype))
            factor = np.where(self.kept, self.factor, mpf(0))
            self.values = _kept(self.values.scaled(factor), self.kept)

    def _read_elements(self, scalars):
        reference, names = self.reference, self.reference.operands
        shapes = {n: a.shape for n, a in zip(names, self.arrays, strict=True)}
        self.shape = np.broadcast_shapes(*(shape for n, shape in shapes.items() if n != "var"))
        self.aligned = {n: _aligned(n, shape, self.shape) for n, shape in shapes.items()}
        operands = [a.reshape(self.aligned[n]) for n, a in zip(names, self.arrays, strict=True)]
        operands += [np.asarray(self.options.get(name, 1.0)) for name in reference.extra]
        frozen = tuple(_frozen(np.broadcast_to(a, self.shape)) for a in operands)
        self.values, self.entries = _elements(
            reference.formula, reference.differentiable, frozen, scalars
        )

        weight = self._weight(self.options.get("weight"))
        samples = self._weight(self.options.get("sample_weight"), leading=True)
        self.kept = (weight != 0) & (samples != 0)
        self.factor = weight * samples
        self.divisors = self.factor if reference.divisor == "weight" else samples

    def _read_rows(self, scalars):
        x, y = self.arrays
        self.axis, self.shape = min(1, x.ndim - 1), y.shape
        classes = x.shape[self.axis]
        weight = self.options.get("weight")
        weight = np.ones(classes) if weight is None else np.asarray(weight)
        samples = self._weight(self.options.get("sample_weight"), leading=True)
        rows = np.moveaxis(x, self.axis, -1)
        self.rows_shape = rows.shape

        y = np.array([int(c) for c in y.ravel()], dtype=object)
        self.kept = (y != self.options.get("ignore_index", -100)) & (samples != 0)
        picked = np.array(
            [weight[c] if k else 0.0 for c, k in zip(y, self.kept, strict=True)], dtype=float
        )
        if not dict(scalars).get("label_smoothing"):
            self.kept &= picked != 0
        y = np.array([c if k else -1 for c, k in zip(y, self.kept, strict=True)], dtype=np.int64)
        frozen = (_frozen(rows), _frozen(y), _frozen(weight))
        self.values, entries = _rows(self.reference.formula, frozen, classes, scalars)
        self.entries = {"input": entries}
        self.factor = samples
        self.divisors = samples * _numbers(picked)

    def _weight(self, weight, leading=False):
        """Weights of the entries, flat; per entry or, `leading`, per index of the first axis."""
        weight = np.asarray(1.0 if weight is None else weight)
        if leading and weight.ndim == 1 and len(self.shape) > 1:
            weight = weight.reshape(-1, *[1] * (len(self.shape) - 1))
        return _numbers(np.broadcast_to(weight, self.shape))

    def divisor(self, reduction):
        total_weight = sum(self.divisors, start=mpf(0))
        if reduction != "batchmean":
            return total_weight
        batch, size = self.shape[0] if self.shape else 1, len(self.kept)
        return total_weight * batch / size if size else mpf(batch)

    def gradients(self, upstream, divisor=None):
        scale = np.where(self.kept, self.factor * upstream, mpf(0))
        gradients = {}
        for name in self.reference.differentiable:
            entries = self.entries[name]
            by_row = entries.value.ndim == 2
            scales, kept = (v[:, None] if by_row else v for v in (scale, self.kept))
            entries = entries.scaled(scales)
            entries = _kept(entries if divisor is None else entries.over(divisor), kept)
            if by_row:
                fields = entries.shaped(self.rows_shape)
                gradients[name] = Number(*(np.moveaxis(f, -1, self.axis) for f in fields))
                continue
            array = self.arrays[self.reference.operands.index(name)]
            if array.size != len(self.kept):
                owner = np.arange(array.size).reshape(self.aligned[name])
                owner = np.broadcast_to(owner, self.shape).ravel()
                entries = entries.gathered(owner, array.size)
            gradients[name] = entries.shaped(array.shape)
        return gradients


@lru_cache(maxsize=32)
def _elements(formula, differentiable, frozen, scalars):
    """The formula at every element: `Number` of flat arrays, and one per differentiable operand."""
    operands = [_thawed(a) for a in frozen]
    results = [formula(*entry, **dict(scalars)) for entry in zip(*operands, strict=True)]
    gradients = {name: _columns([g[name] for _, g in results]) for name in differentiable}
    return _columns([value for value, _ in results]), gradients


@lru_cache(maxsize=32)
def _rows(formula, frozen, classes, scalars):
    """The formula at every row whose class is not -1, the others being 0."""
    x, y, weight = (_thawed(a) for a in frozen)
    nothing = total(mpf(0)), [total(mpf(0))] * classes
    results = []
    for i, c in enumerate(map(int, y)):
        row = x[i * classes : (i + 1) * classes]
        results.append(nothing if c == -1 else formula(row, c, weight, **dict(scalars)))
    gradient = _columns([number for _, row in results for number in row])
    return _columns([v for v, _ in results]), gradient.shaped((len(y), classes))


def _name(loss):
    return getattr(loss, "__name__", loss)


def _in_type(formula, options, dtype):
    """The formula's scalar options, given or by default, as the compute type holds them."""
    scalars = []
    for name, parameter in inspect.signature(formula).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        value = options.get(name, parameter.default)
        if name == "bits":
            value = np.finfo(dtype).nmant + 1
        elif not isinstance(value, (bool, np.bool_)):
            with np.errstate(over="ignore"):
                value = mpf(float(dtype.type(value)))
        scalars.append((name, value))
    return tuple(scalars)


def _aligned(name, shape, full):
    """The shape with which an operand broadcasts; a var without the last axis gets it."""
    return (*shape, 1) if name == "var" and shape != full and shape == full[:-1] else shape


def _kept(numbers, kept):
    return Number(*(np.where(kept, field, mpf(0)) for field in numbers))


def _columns(numbers):
    fields = zip(*numbers, strict=True) if numbers else ((),) * 4
    return Number(*(np.array(field, dtype=object) for field in fields))


def _frozen(array):
    array = np.asarray(array)
    kind = np.int64 if array.dtype.kind in "ib" else np.uint64 if array.dtype.kind == "u" else float
    return np.dtype(kind).char, array.astype(kind).tobytes()


def _thawed(frozen):
    return [mpf(v) for v in np.frombuffer(frozen[1], frozen[0]).tolist()]


def _numbers(array):
    return np.array(_thawed(_frozen(array)), dtype=object)
