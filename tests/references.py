"""Reference implementation of every loss, in as much precision as it takes.

The first half of this file has one small function for each loss: the formula on mpmath numbers,
written as in a textbook and registered by `@reference`. Nothing is rearranged against cancellation;
the working precision is raised instead. The second half, which is the same for all losses, applies
these functions to arrays: weights, removed entries, divisors, reductions, and gradients summed over
broadcasting. Nothing here may use the kernels or the table that they are built from.

A result is a `Number`: its value, the largest term of its formula and the exponents in it, from
which `tolerance` computes the promised error bound

    |got - value| <= 4 ULP(term) + exponent/2 ULP(term),    ULP(t) = eps |t| in the compute type,

and, where results underflow, at least 4 `floor` times the smallest subnormal number.

Two rules hold for all losses and appear in no formula:

- A NaN in an operand of an entry makes its value and all of its gradients NaN, throughout a row
  (except in `nll` and `multilabel_soft_margin`, whose classes are independent) or a sequence. A
  value of NaN does the same.
- A weight of exactly 0 or `ignore_index` removes an entry: it contributes 0, whatever it holds.

0 times infinity is 0 where the 0 is a coefficient chosen by the caller (`times`): the limit along
the other factor. Elsewhere infinities propagate through the formulas by IEEE 754. Operands out of
range are an error of the library; the value of a reference for them is meaningless.

Where the distance to a kink is within the rounding error of the terms compared, the gradients of
both sides are accepted (`either_side_of_kink`).

Formulas and kinks follow torch.nn.functional 2.13, unless a `source` says otherwise.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import NamedTuple

import numpy as np
from mpmath import mp, mpf

BITS = 200  # of working precision, to which the range of an operand can add
DEEPEST = 1600  # exp(-1600) is 0 in float64, and so is its product with any weight
INF, NAN = mpf("inf"), mpf("nan")


class Number(NamedTuple):
    """A value with the terms of its error bound; the fields may be arrays (`dtype=object`).

    `term` is the largest magnitude among the terms that the formula sums and their sum; for a sum
    along a row, it is the sum of the terms of the summands.
    `exponent` is sum |a dr/da| / term over the arguments a of exp that have to be rounded (x_j - m
    in cross entropy, p log x in a power): the change of the result relative to `term`, per relative
    change of all a.
    `floor` is the factor, at least 1, that multiplies a part of the formula that may underflow.
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

    def summed_by(self, owner, size):
        """Sums the entries of each owner 0 .. size - 1, together with terms and error bounds."""
        value, term, shift, floor = (np.full(size, mpf(0), dtype=object) for _ in self)
        np.add.at(value, owner, self.value)
        np.add.at(term, owner, self.term)
        np.add.at(shift, owner, self.term * self.exponent)
        np.add.at(floor, owner, self.floor)
        return Number(value, term, _relative(shift, term), floor)


def total(*terms, floor=1):
    """The sum of the terms of a formula; the error bound is relative to the largest of them."""
    value = sum(terms, start=mpf(0))
    return Number(value, max(abs(v) for v in (value, *terms)), mpf(0), max(abs(floor), mpf(1)))


def with_term(term, number):
    """The number with one more term in its formula, which is 0 up to rounding."""
    return number._replace(term=max(abs(term), number.term))


def accumulated(numbers, scale=1):
    """The sum of numbers, times `scale`: values, terms and error bounds are summed."""
    values, terms, exponents, floors = zip(*numbers, strict=True) if numbers else ((),) * 4
    term = mp.fsum(terms)
    shift = mp.fsum(times(e, t) for e, t in zip(exponents, terms, strict=True))
    floor = max(abs(scale) * sum(floors), mpf(1))
    return Number(scale * mp.fsum(values), abs(scale) * term, relative(shift, term), floor)


def sum_as_terms(*numbers):
    """The sum of numbers as terms of one formula, whose error the largest of them bounds."""
    value = sum((n.value for n in numbers), start=mpf(0))
    term = max(abs(value), *(n.term for n in numbers))
    shift = mp.fsum(times(n.exponent, n.term) for n in numbers)
    return Number(value, term, relative(shift, term), max(n.floor for n in numbers))


def with_exponent_error(number, exponent):
    """The number with the error of a rounded argument of exp, of which it is a multiple."""
    return number._replace(exponent=number.exponent + abs(exponent))


def either_side_of_kink(number, bits):
    """A gradient so near a kink that rounding decides between the one-sided derivatives."""
    return with_exponent_error(number, mpf(2) ** bits)


def rounds_to_zero(z, bits, *terms):
    """Whether z, a sum of these terms, is 0 to within the error promised for it."""
    least = mpf(2) ** (-149 if bits == 24 else -1074)
    return mp.isfinite(z) and abs(z) <= 4 * max(mpf(2) ** (1 - bits) * max(map(abs, terms)), least)


def times(coefficient, factor):
    return mpf(0) if coefficient == 0 else coefficient * factor


def divide(a, b):
    if b != 0:
        return a / b
    return NAN if a == 0 or mp.isnan(a) else INF * mp.sign(a)


def relative(shift, term):
    return shift / term if term else mpf(0)


_divide, _relative = np.frompyfunc(divide, 2, 1), np.frompyfunc(relative, 2, 1)


def log(x):
    return mp.log(x) if x >= 0 else NAN


def softplus(x):
    return mp.log(1 + mp.exp(x))


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def sign(x):
    return x if mp.isnan(x) else mp.sign(x)


def bits_of_1p(x):
    """The number of bits that 1 + x needs in addition to the bits of x."""
    return max(0, -mp.mag(x)) if x != 0 and mp.isfinite(x) else 0


def bits_of_1p_exp(x):
    """The number of bits that 1 + exp(x) needs in addition to the bits of exp(x)."""
    return int(1.45 * min(abs(x), DEEPEST))


def bits_of_power(p):
    """The number of bits that x^p and x^(1/p) need in addition to the bits of x."""
    return abs(mp.mag(p)) if mp.isfinite(p) else 0


# ---- Registration --------------------------------------------------------------------------------

XY = ("input", "target")
X = ("input",)
TRIPLET = ("anchor", "positive", "negative")
ALIGNED = ("targets", "input_lengths", "target_lengths")
WEIGHT = ("weight",)
ITSELF = "itself"
REFERENCES = {}


class Reference(NamedTuple):
    """A formula, and all that the functions on arrays need to know about its loss.

    `rows` names the operands that are rows, along `axis`; the others then have an entry for each
    row. `divisor` is what a mean divides by: the sum of "ones", of the "weight", or of the class
    weights ("classes"). `extra` names operands that are passed by keyword and are 1 by default.
    `probabilities` is the formula for a floating target, which then is a row. `terms` describes the
    terms of the value and of the gradients for docs/numerics.md, and `source` names the library
    that defines the loss, None if no library has it.
    """

    formula: Callable
    operands: tuple[str, ...]
    differentiable: tuple[str, ...]
    divisor: str
    terms: dict[str, str]
    source: str | None
    rows: tuple[str, ...]
    axis: int
    extra: tuple[str, ...]
    probabilities: Callable | None = None

    @property
    def unit(self):
        """The part of the operands that has one loss: an "element", a "row" or a "sequence"."""
        return "row" if self.rows else "sequence" if "input_lengths" in self.operands else "element"


def reference(
    loss,
    *,
    operands=XY,
    differentiable=None,
    divisor="ones",
    terms=None,
    source="torch.nn.functional",
    rows=(),
    axis=-1,
    extra=(),
):
    """Registers a formula as the reference of a loss.

    By default all operands are differentiable, and each result is its own only term.
    """
    differentiable = operands if differentiable is None else differentiable
    terms = {"value": ITSELF, ", ".join(differentiable): ITSELF} if terms is None else terms

    def register(formula):
        REFERENCES[loss] = Reference(
            formula, operands, differentiable, divisor, terms, source, rows, axis, extra
        )
        return formula

    return register


def reference_for_probabilities(loss):
    """Registers a formula as the reference of a loss whose target holds probabilities."""

    def register(formula):
        REFERENCES[loss] = REFERENCES[loss]._replace(probabilities=formula)
        return formula

    return register


def at_bits(extra=lambda *operands: 0):
    """Evaluates an elementwise formula with BITS + extra(*operands) bits; NaN in is NaN out."""

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


def removed_if(condition, differentiable):
    """The value and the gradients by these operands are 0 on a condition, even if one is NaN."""

    def decorate(formula):
        @wraps(formula)
        def loss(*operands, **options):
            value, gradients = formula(*operands, **options)
            if condition(*operands):
                zero = total(mpf(0))
                return zero, gradients | dict.fromkeys(differentiable, zero)
            return value, gradients

        return loss

    return decorate


def along_rows(formula):
    """Evaluates a formula of rows with BITS bits, and more for its power p; a NaN in an operand or
    as the value makes all results NaN."""

    @wraps(formula)
    def loss(*operands, **options):
        entries = itertools.chain(*(v if isinstance(v, list) else [v] for v in operands))
        with mp.workprec(BITS + bits_of_power(options.get("p", mpf(1)))):
            value, gradients = formula(*operands, **options)
            if any(mp.isnan(v) for v in entries) or mp.isnan(value.value):
                nan = total(NAN)
                return nan, {name: [nan] * len(row) for name, row in gradients.items()}
            return value, gradients

    return loss


# ---- Elementwise losses: operands -> value, {operand: gradient} ----------------------------------
#
# A difference of two operands, or of an operand and an option, counts as one term, since it is
# rounded once.


@reference("l1_loss", divisor="weight")
@at_bits()
def l1(x, y):
    """|x - y|. Gradient sign(x - y), 0 where they are equal."""
    d = x - y
    return total(abs(d)), {"input": total(sign(d)), "target": total(-sign(d))}


@reference("mse_loss", divisor="weight")
@at_bits()
def mse(x, y):
    """(x - y)^2."""
    d = x - y
    return total(d * d), {"input": total(2 * d), "target": total(-2 * d)}


@reference("smooth_l1_loss", terms={"value": "d²/(2β), or |d| and β/2", "input, target": ITSELF})
@at_bits()
def smooth_l1(x, y, *, beta=1.0):
    """d^2/(2 beta) for |d| < beta, else |d| - beta/2; d = x - y."""
    d = x - y
    if abs(d) < beta:
        return total(d * d / (2 * beta)), {"input": total(d / beta), "target": total(-d / beta)}
    return total(abs(d), -beta / 2), {"input": total(sign(d)), "target": total(-sign(d))}


@reference("huber_loss", terms={"value": "d²/2, or δ|d| and δ²/2", "input, target": ITSELF})
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


@reference("log_cosh_loss", source=None)
@at_bits(lambda x, y: 2 * bits_of_1p(x - y))
def log_cosh(x, y):
    """log cosh(x - y). Gradient tanh(x - y)."""
    d = x - y
    slope = mp.tanh(d)
    return total(mp.log(mp.cosh(d))), {"input": total(slope), "target": total(-slope)}


@reference(
    "poisson_nll_loss",
    terms={
        "value": "exp(x), y x (log_input); x, y log(x + eps), y (log_input=False); "
        "y log y, y, log(2πy)/2 (full)",
        "input": "exp(x), y; or 1, y/(x + eps)",
        "target": "x; or log(x + eps), 1; log y, 1/(2y) (full)",
    },
)
@at_bits()
def poisson_nll(x, y, *, log_input=True, full=False, eps=1e-8):
    """exp(x) - y x, or x - y log(x + eps); `full` adds y log y - y + log(2 pi y)/2 where y > 1.

    At x = inf, the limit inf.

    The argument x + eps of the logarithm is rounded, which changes the logarithm by up to an ULP of
    1; hence the terms y in the value and 1 in the gradient of the target.
    """
    stirling = (y * log(y), -y, log(2 * mp.pi * y) / 2) if full and y > 1 else ()
    stirling_slope = (log(y), 1 / (2 * y)) if full and y > 1 else ()
    limit = total(INF) if x == INF and y < INF else None
    if log_input:
        value = limit or total(mp.exp(x), -times(y, x), *stirling)
        return value, {"input": total(mp.exp(x), -y), "target": total(-x, *stirling_slope)}
    rate = x + eps
    value = limit or with_term(y, total(x, -times(y, log(rate)), *stirling))
    slope = total(mpf(1), -times(y, divide(mpf(1), rate)))
    return value, {"input": slope, "target": with_term(1, total(-log(rate), *stirling_slope))}


@reference(
    "gaussian_nll_loss",
    operands=("input", "target", "var"),
    terms={
        "value": "log(v)/2, d²/(2v), log(2π)/2 (full)",
        "input, target": ITSELF,
        "var": "1/(2v), d²/(2v²)",
    },
)
@at_bits()
def gaussian_nll(x, y, var, *, full=False, eps=1e-6):
    """(log v + (x - y)^2/v)/2, v = max(var, eps); `full` adds log(2 pi)/2.

    The gradient with respect to var ignores the clamp, as in torch. At v = 0, the limits for
    v -> 0: inf, and a gradient -inf; where x = y, -inf and gradients 0 and inf.
    """
    d, v = x - y, max(var, mpf(eps))
    constant = (log(2 * mp.pi) / 2,) if full else ()
    if v == 0:
        sides = sign(d) * INF if d else mpf(0)
        value, slope = (total(INF), total(-INF)) if d else (total(-INF), total(INF))
        return value, {"input": total(sides), "target": total(-sides), "var": slope}
    value = total(log(v) / 2, divide(d * d, 2 * v), *constant)
    slope = divide(d, v)
    return value, {
        "input": total(slope),
        "target": total(-slope),
        "var": total(divide(mpf(1), 2 * v), -divide(d * d, 2 * v * v)),
    }


@reference(
    "kl_div",
    terms={
        "value": "y log y, y x; or itself (log_target)",
        "input": ITSELF,
        "target": "log y, 1, x; or exp(y)(y - x), exp(y) (log_target)",
    },
)
@at_bits()
def kl_div(x, y, *, log_target=False):
    """y log y - y x, or exp(y) (y - x) if `log_target`; x holds log-probabilities.

    Both are 0, for any x, where the probability of the target is 0.
    """
    if log_target:
        p = mp.exp(y)
        reach = abs(y - x) if p else mpf(0)
        value = total(times(p, y - x), floor=reach)
        slope = total(times(p, y - x), p, floor=reach + 1)
        return value, {"input": total(-p), "target": slope}
    value = total(times(y, log(y)), -times(y, x))
    return value, {"input": total(-y), "target": total(log(y), mpf(1), -x)}


@reference(
    "binary_cross_entropy",
    terms={"value": ITSELF, "input": ITSELF, "target": "log x, log(1 - x)"},
)
@at_bits(lambda x, y: bits_of_1p(x))
def binary_cross_entropy(x, y):
    """-y max(log x, -100) - (1 - y) max(log(1 - x), -100).

    In the gradient of the input, (x - y)/max(x (1 - x), eps), eps is 1e-12 rounded to float32, for
    float64 too; the gradient of the target is not clamped.
    """
    yes, no = log(x), log(1 - x)
    value = total(-y * max(yes, mpf(-100)), -(1 - y) * max(no, mpf(-100)))
    slope = (x - y) / max(x * (1 - x), mpf(float(np.float32(1e-12))))
    return value, {"input": total(slope), "target": total(no, -yes)}


@reference(
    "binary_cross_entropy_with_logits",
    terms={
        "value": ITSELF + ": (1 - y) softplus(x), p y softplus(-x)",
        "input": "(1 - y) σ(x), p y σ(-x)",
        "target": "softplus(x), p softplus(-x)",
    },
    extra=("pos_weight",),
)
@removed_if(lambda x, y, p: p == 0 and y == 1, differentiable=X)
@at_bits(lambda x, y, p: bits_of_1p_exp(x))
def binary_cross_entropy_with_logits(x, y, p):
    """(1 - y) softplus(x) + p y softplus(-x), p = pos_weight."""
    value = total(times(1 - y, softplus(x)), times(p * y, softplus(-x)), floor=p)
    return value, {
        "input": total((1 - y) * sigmoid(x), -p * y * sigmoid(-x), floor=p),
        "target": total(-softplus(x), times(p, softplus(-x)), floor=p),
    }


@reference("hinge_embedding_loss", differentiable=X)
@at_bits()
def hinge_embedding(x, y, *, margin=1.0):
    """x for y = 1, max(0, margin - x) for y = -1. Gradient -1 at the kink."""
    if y == 1:
        return total(x), {"input": total(mpf(1))}
    z = margin - x
    return total(max(z, mpf(0))), {"input": total(-mpf(z >= 0))}


@reference("soft_margin_loss", differentiable=X)
@at_bits(lambda x, y: bits_of_1p_exp(x))
def soft_margin(x, y):
    """log(1 + exp(-y x)), y = -1 or 1."""
    return total(softplus(-y * x)), {"input": total(-y * sigmoid(-y * x))}


@reference(
    "margin_ranking_loss",
    operands=("input1", "input2", "target"),
    differentiable=("input1", "input2"),
    terms={"value": "margin, x1 - x2", "input1, input2": ITSELF},
)
@at_bits()
def margin_ranking(x1, x2, y, *, margin=0.0, bits=53):
    """max(0, z), z = margin - y (x1 - x2), y = -1 or 1. Gradient -y and y where z >= 0.

    The side of the kink is decided after rounding x1 - x2 to the compute type.
    """
    d = x1 - x2
    with mp.workprec(bits):
        rounded = +d
    z, side = margin - y * d, margin - y * rounded
    active = NAN if mp.isnan(z) else mpf(side >= 0)
    value = total(max(z, mpf(0)))
    if z > 0 or side >= 0:
        value = with_term(max(abs(d), abs(margin)), value)
    return value, {"input1": total(-y * active), "input2": total(y * active)}


@reference(
    "sigmoid_focal_loss",
    source="torchvision.ops",
    terms={
        "value": ITSELF,
        "input": "a γ q^(γ-1) ce q', a q^γ (1 - y) σ(x), a q^γ y σ(-x)",
        "target": "a' q^γ ce, a γ q^(γ-1) ce σ(±x), a q^γ softplus(±x)",
    },
)
@at_bits(lambda x, y: bits_of_1p_exp(x))
def sigmoid_focal(x, y, *, alpha=0.25, gamma=2.0):
    """a q^gamma ce, the cross entropy ce = (1 - y) softplus(x) + y softplus(-x) of a logit.

    q = y sigmoid(-x) + (1 - y) sigmoid(x) is the probability of the wrong class, and a = alpha y +
    (1 - alpha) (1 - y), or 1 if alpha is -1. For infinite x, the limit.
    """
    if mp.isinf(x):
        reach = FAR / gamma if 0 < gamma < 1 else FAR  # where exp(-gamma x) is 0
        (near, slopes), (far, others) = (
            sigmoid_focal.__wrapped__(logit * mp.sign(x), y, alpha=alpha, gamma=gamma)
            for logit in (reach, 2 * reach)
        )
        return _limit(near, far), {name: _limit(slopes[name], others[name]) for name in slopes}
    yes, no, more, less = sigmoid(x), sigmoid(-x), softplus(x), softplus(-x)
    a, a_slope = (1, 0) if alpha == -1 else (alpha * y + (1 - alpha) * (1 - y), 2 * alpha - 1)
    q, ce = y * no + (1 - y) * yes, (1 - y) * more + y * less
    power = q**gamma
    steeper = gamma * q ** (gamma - 1) * ce if gamma else mpf(0)
    power_slope = gamma * q ** (gamma - 1) if q else mpf(0)  # times an error of q
    reach = 1 + abs(x) + gamma * ce + power_slope
    argument = abs(0 if gamma in (0, 1, 2) else gamma * log(q))
    argument += 4 * gamma  # q is within 2 ULP, so its power is within 2 gamma ULP
    argument = argument if gamma <= 1024 else mpf(0)  # beyond, in extended precision
    value = total(a * power * ce, floor=reach)
    slope = total(
        a * steeper * (1 - 2 * y) * yes * no,
        a * power * (1 - y) * yes,
        -a * power * y * no,
        floor=reach,
    )
    target = total(
        a_slope * power * ce,
        a * steeper * no,
        -a * steeper * yes,
        a * power * less,
        -a * power * more,
        floor=reach + power_slope * (less + more),
    )
    return with_exponent_error(value, argument), {
        "input": with_exponent_error(slope, argument),
        "target": with_exponent_error(target, argument),
    }


FAR = mpf(2) ** 40


def _limit(near, far):
    """The limit at infinity of what is `near` at FAR and `far` at 2 FAR: infinite if it grows, 0 if
    it shrinks, else `far`."""
    if abs(far.value) > abs(near.value) * 1.5:
        return total(INF * mp.sign(far.value))
    return total(mpf(0)) if abs(far.value) < abs(near.value) / 2 else far


@reference("pinball_loss", source="sklearn.metrics.mean_pinball_loss")
@at_bits()
def pinball(x, y, *, quantile=0.5):
    """quantile max(y - x, 0) + (1 - quantile) max(x - y, 0). Gradient 0 where they are equal."""
    d = x - y
    slope = d if mp.isnan(d) else times(1 - quantile if d > 0 else quantile, sign(d))
    return total(times(slope, d)), {"input": total(slope), "target": total(-slope)}


@reference(
    "gamma_nll_loss",
    source=None,
    terms={
        "value": "x, y exp(-x) (log_input); log x, y/x (log_input=False)",
        "input": "1, y exp(-x); or 1/x, y/x²",
        "target": ITSELF,
    },
)
@at_bits()
def gamma_nll(x, y, *, log_input=True):
    """x + y exp(-x), x being the logarithm of the mean, or log x + y/x; terms in y are omitted."""
    if log_input:
        scaled = times(y, mp.exp(-x))
        value, slope = total(x, scaled, floor=y), total(mpf(1), -scaled, floor=y)
        value = total(INF) if x == -INF else value  # the limit
        return value, {"input": slope, "target": total(mp.exp(-x))}
    value = total(log(x), divide(y, x))
    slope = total(divide(mpf(1), x), -divide(y, x * x))
    return value, {"input": slope, "target": total(divide(mpf(1), x))}


@reference(
    "tweedie_deviance_loss",
    source="sklearn.metrics.mean_tweedie_deviance",
    terms={
        "value": "2y^(2-p)/((1-p)(2-p)), 2y x^(1-p)/(1-p), 2x^(2-p)/(2-p); (x - y)² (p = 0); "
        "2y log(y/x), 2y, 2x (p = 1); 2 log(x/y), 2y/x, 2 (p = 2)",
        "input": ITSELF,
        "target": "2y^(1-p)/(1-p), 2x^(1-p)/(1-p); itself (p = 0); 2 log(y/x), 2 (p = 1); "
        "2/x, 2/y (p = 2)",
    },
)
@at_bits()
def tweedie_deviance(x, y, *, power=0.0):
    """2 (y^(2-p)/((1-p)(2-p)) - y x^(1-p)/(1-p) + x^(2-p)/(2-p)), p = power, y^.. = 0 for y < 0.

    p = 0: (x - y)^2; p = 1: 2 (y log(y/x) - y + x); p = 2: 2 (log(x/y) + y/x - 1). Gradient
    2 x^-p (x - y).
    """
    p, d = power, x - y
    if p == 0:
        return total(d * d), {"input": total(2 * d), "target": total(-2 * d)}
    slope = with_exponent_error(
        total(2 * times(d, x**-p), floor=2 * d), 0 if p in (1, 2) else p * log(x)
    )
    if p == 1:
        ratio = log(y / x)
        value = total(2 * times(y, ratio), -2 * y, 2 * x)
        return value, {"input": slope, "target": with_term(2, total(2 * ratio))}
    if p == 2:
        value = total(2 * log(x / y), 2 * y / x, mpf(-2))
        return value, {"input": slope, "target": total(2 / x, -2 / y)}
    parts = [
        Number(2 * v / c, abs(2 * v / c), abs(e), max(abs(2 * f / c), mpf(1)))
        for v, c, e, f in (
            (_power(y, 2 - p), (1 - p) * (2 - p), _argument(y, 2 - p), mpf(1)),
            (-y * x ** (1 - p), 1 - p, _argument(x, 1 - p), y),
            (x ** (2 - p), 2 - p, _argument(x, 2 - p), mpf(1)),
        )
    ]
    slopes = [
        Number(2 * v / (1 - p), abs(2 * v / (1 - p)), abs(e), mpf(1))
        for v, e in (
            (_power(y, 1 - p), _argument(y, 1 - p)),
            (-(x ** (1 - p)), _argument(x, 1 - p)),
        )
    ]
    value = total(INF) if y == INF and x == x else sum_as_terms(*parts)  # the limit
    return value, {"input": slope, "target": sum_as_terms(*slopes)}


def _power(y, exponent):
    """max(y, 0)^exponent."""
    return y**exponent if y > 0 else mpf(0) if exponent > 0 else INF


def _argument(x, exponent):
    """The argument of exp in x^exponent = exp(exponent log x)."""
    return exponent * log(x) if x > 0 else mpf(0)


# ---- Losses of rows: rows and scalars -> value, {operand: [gradient]} ----------------------------
#
# w holds the weights of the classes, 1 by default.


@reference("nll_loss", differentiable=X, divisor="classes", rows=X, axis=1, extra=WEIGHT)
def nll(x, y, w):
    """-w[y] x[y]; x holds log-probabilities. The other entries of the row are not read."""
    zero, slope = total(mpf(0)), NAN if mp.isnan(x[y]) else -w[y]
    gradient = [total(slope) if c == y else zero for c in range(len(x))]
    return total(-w[y] * x[y]), {"input": gradient}


def _softmax(x):
    """log sum exp(x_j) of a row of logits, the softmax, and max(x) - x_j, the exponents."""
    powers = [mp.exp(v) for v in x]
    power_sum, highest = mp.fsum(powers), max(x)
    softmax = [p / power_sum for p in powers]
    depth = [highest - v if p else mpf(0) for v, p in zip(x, powers, strict=True)]
    return mp.log(power_sum), softmax, depth


def _row_bits(x):
    """The bits that log sum exp(x_j) - x_c needs."""
    second, highest = sorted([-INF, *x])[-2:]
    largest = max(abs(v) for v in x if mp.isfinite(v))
    return BITS + (max(0, mp.mag(largest)) if largest else 0) + bits_of_1p_exp(highest - second)


def _normal(x):
    """Whether a row has a softmax."""
    return all(v < INF for v in x) and max(x) > -INF


@reference(
    "cross_entropy",
    divisor="classes",
    rows=X,
    axis=1,
    extra=WEIGHT,
    terms={
        "value": ITSELF,
        "input": ITSELF + "; (1 - e) w_y (s_c - [c = y]), (e/C) s_c Σw, (e/C) w_c "
        "(label_smoothing); s_c Σq, q_c (probabilities)",
        "target": ITSELF,
    },
)
def cross_entropy(x, y, w, *, label_smoothing=0.0):
    """sum_c q_c (log sum_j exp(x_j) - x_c), q_c = w_c ((1 - e) [c = y] + e/C), e = label_smoothing.

    All terms have the same sign. The gradient s_c sum(q) - q_c, s = softmax(x), is split into the
    terms (1 - e) w_y (s_c - [c = y]), of which s_y - 1 is one term, (e/C) s_c sum(w) and
    -(e/C) w_c. A row that holds NaN or +inf, or only -inf, makes all results NaN.
    """
    if not _normal(x):
        return total(NAN), {"input": [total(NAN)] * len(x)}

    with mp.workprec(_row_bits(x)):
        classes, e = range(len(x)), label_smoothing
        log_sum, softmax, depth = _softmax(x)
        hard, smooth = (1 - e) * w[y], [e * v / len(x) for v in w]
        smooth_sum = mp.fsum(smooth)
        terms = [times(hard, log_sum - x[y])]
        if e:
            terms += [times(q, log_sum - v) for q, v in zip(smooth, x, strict=True)]
        value = total(*terms, floor=w[y])

        # The relative change of the sum of exponentials per relative change of the exponents.
        below = mp.fsum(s * a for s, a in zip(softmax, depth, strict=True))
        others = [c for c in classes if c != y]
        value = value._replace(exponent=relative(abs(hard + smooth_sum) * below, value.term))

        gradient = []
        for c in classes:
            if c == y:
                s = -mp.fsum(softmax[j] for j in others)
                above = mp.fsum(softmax[j] * depth[j] for j in others)
            else:
                s, above = softmax[c], softmax[c] * depth[c]
            terms, shift = [hard * s], abs(hard) * (above + abs(s) * below)
            if e:
                terms += [smooth_sum * softmax[c], -smooth[c]]
                shift += abs(smooth_sum) * softmax[c] * (depth[c] + below)
            number = total(*terms, floor=w[y] + smooth_sum)  # both multiply a softmax
            gradient.append(number._replace(exponent=relative(shift, number.term)))
    return value, {"input": gradient}


@reference_for_probabilities("cross_entropy")
def cross_entropy_probabilities(x, y, w, *, label_smoothing=0.0):
    """sum_c q_c (log sum_j exp(x_j) - x_c), q_c = w_c ((1 - e) y_c + e/C), e = label_smoothing.

    Gradients s_c sum(q) - q_c, s = softmax(x), and (1 - e) w_c (log sum_j exp(x_j) - x_c). A class
    with q_c = 0 contributes nothing, whatever its logit. A row that holds NaN or the logit +inf, or
    only -inf, makes all results NaN.
    """
    if any(mp.isnan(v) for v in y) or not _normal(x):
        nan = [total(NAN)] * len(x)
        return total(NAN), {"input": nan, "target": nan}

    with mp.workprec(_row_bits(x)):
        e = label_smoothing
        log_sum, softmax, depth = _softmax(x)
        surprise = [log_sum - v for v in x]
        q = [b * ((1 - e) * a + e / len(x)) for a, b in zip(y, w, strict=True)]
        mass, below = mp.fsum(q), mp.fsum(s * a for s, a in zip(softmax, depth, strict=True))
        reach = 1 + max(v for v in surprise if mp.isfinite(v))
        value = total(
            mp.fsum(times(b, v) for b, v in zip(q, surprise, strict=True)), floor=mass + reach
        )
        slopes, targets = [], []
        for c in range(len(x)):
            number = total(mass * softmax[c], -q[c], floor=mass + 1)
            shift = mass * softmax[c] * (depth[c] + below)
            slopes.append(number._replace(exponent=relative(shift, number.term)))
            scale = (1 - e) * w[c]
            number = total(times(scale, surprise[c]), floor=w[c])
            targets.append(number._replace(exponent=relative(scale * below, number.term)))
        value = value._replace(exponent=relative(mass * below, value.term))
    return value, {"input": slopes, "target": targets}


def _hinge(margin, d, p, bits):
    """max(0, z)^p and its derivative for z = margin + d, d being a difference of two operands.

    The derivative is 0 exactly at the kink.
    """
    z, size = mp.fadd(margin, d, exact=True), max(abs(margin), abs(d))
    near = z != 0 and rounds_to_zero(z, bits, size)
    if mp.isnan(z) or not (z > 0 or near):
        return total(max(z, mpf(0))), total(mpf(0))
    z = max(z, mpf(0))
    slope = total(mpf(1))
    if p == 1:
        return with_term(size, total(z)), either_side_of_kink(slope, bits) if near else slope
    return with_term(size * (size if near else z), total(z * z)), with_term(2 * size, total(2 * z))


def _gap(a, b):
    """a - b exactly, so that z is 0 only exactly at a kink."""
    return mp.fsub(a, b, exact=True)


@reference(
    "multi_margin_loss",
    differentiable=X,
    rows=X,
    extra=WEIGHT,
    terms={
        "value": "w_y/C z^(p-1) times margin and x_j - x_y, for each j",
        "input": "w_y/C times 1 (p = 1), or times margin and x_j - x_y (p = 2), for each j",
    },
)
@along_rows
def multi_margin(x, y, w, *, p=1, margin=1.0, bits=53):
    """(w_y/C) sum_{j != y} max(0, margin - x_y + x_j)^p, p = 1 or 2. Gradient 0 at the kink."""
    scale, others = w[y] / len(x), [j for j in range(len(x)) if j != y]
    pairs = {j: _hinge(margin, _gap(x[j], x[y]), p, bits) for j in others}
    value = accumulated([v for v, _ in pairs.values()], scale)
    slope = accumulated([s for _, s in pairs.values()], -scale)
    return value, {"input": [slope if j == y else pairs[j][1].scaled(scale) for j in range(len(x))]}


@reference(
    "multilabel_margin_loss",
    differentiable=X,
    rows=XY,
    terms={"value": "1/C times 1 and x_k - x_j, for each pair", "input": "1/C for each pair"},
)
@along_rows
def multilabel_margin(x, y, *, bits=53):
    """(1/C) sum_j sum_k max(0, 1 - x_j + x_k) over the labels j and all other classes k.

    The labels end at the first -1; a repeated label counts as often as it occurs. Gradient 0 at the
    kink.
    """
    labels = list(itertools.takewhile(lambda label: label != -1, y))
    others = [k for k in range(len(x)) if k not in labels]
    scale = mpf(1) / len(x)
    values, slopes = [], [[] for _ in x]
    for j, k in itertools.product(labels, others):
        value, slope = _hinge(mpf(1), _gap(x[k], x[j]), 1, bits)
        values.append(value)
        slopes[k].append(slope)
        slopes[j].append(slope.scaled(mpf(-1)))
    return accumulated(values, scale), {
        "input": [accumulated(numbers, scale) for numbers in slopes]
    }


@reference(
    "multilabel_soft_margin_loss",
    rows=XY,
    extra=WEIGHT,
    terms={
        "value": ITSELF,
        "input": "w_c (1 - y_c) σ(x_c)/C, w_c y_c σ(-x_c)/C",
        "target": ITSELF,
    },
)
def multilabel_soft_margin(x, y, w):
    """(1/C) sum_c w_c ((1 - y_c) softplus(x_c) + y_c softplus(-x_c)).

    Gradients w_c ((1 - y_c) sigmoid(x_c) - y_c sigmoid(-x_c))/C and -w_c x_c/C. Classes of weight 0
    are not read.
    """
    values, slopes, targets = [], [], []
    for logit, label, weight in zip(x, y, w, strict=True):
        if not weight or mp.isnan(logit) or mp.isnan(label):
            number = total(NAN if weight else mpf(0))
            for numbers in (values, slopes, targets):
                numbers.append(number)
            continue
        value, gradients = binary_cross_entropy_with_logits(logit, label, mpf(1))
        scale = weight / len(x)
        values.append(value.scaled(scale))
        slopes.append(gradients["input"].scaled(scale))
        targets.append(total(-logit).scaled(scale))
    return accumulated(values), {"input": slopes, "target": targets}


@reference(
    "cosine_embedding_loss",
    operands=("input1", "input2", "target"),
    differentiable=("input1", "input2"),
    rows=("input1", "input2"),
    terms={
        "value": "1 or margin; Σ|x1_i x2_i|/√(n1 n2)",
        "input1, input2": "x2_i/√(n1 n2), x1_i/n1 times Σ|x1_i x2_i|/√(n1 n2) (input1)",
    },
)
@along_rows
def cosine_embedding(x1, x2, y, *, margin=0.0, bits=53):
    """1 - c for y = 1, max(0, c - margin) for y = -1; c = x1.x2/sqrt(n1 n2), n = |x|^2 + eps.

    eps is 1e-12 rounded to float32. The gradient of x1 is -k (x2_i/sqrt(n1 n2) - c x1_i/n1), that
    of x2 likewise, with k = 1 for y = 1, and k = -1 for y = -1 where c >= margin. The terms of c
    are |x1_i x2_i|/sqrt(n1 n2).
    """
    eps = mpf(float(np.float32(1e-12)))
    n1, n2 = (mp.fsum(v * v for v in x) + eps for x in (x1, x2))
    length = mp.sqrt(n1) * mp.sqrt(n2)
    products = [a * b / length for a, b in zip(x1, x2, strict=True)]
    c, size = mp.fsum(products), mp.fsum(map(abs, products))

    def slopes(a, b, n):
        numbers = []
        for v, w in zip(a, b, strict=True):
            number = total(w / length, -c * v / n, floor=1 + 1 / mp.sqrt(n))
            numbers.append(with_term(size * abs(v) / n, number))
        return numbers

    gradients = {"input1": slopes(x1, x2, n1), "input2": slopes(x2, x1, n2)}
    if y == 1:
        return with_term(size, total(mpf(1), -c)), _map_gradients(
            gradients, lambda g: g.scaled(mpf(-1))
        )
    z = c - margin
    near = rounds_to_zero(z, bits, size, margin)
    value = total(max(z, mpf(0)))
    if z > 0 or near:
        value = with_term(max(size, abs(margin)), value)
    if near and size:
        gradients = _map_gradients(gradients, lambda g: either_side_of_kink(g, bits))
    elif z < 0:
        gradients = _map_gradients(gradients, lambda g: total(mpf(0)))
    return value, gradients


def _map_gradients(gradients, change):
    return {name: [change(number) for number in row] for name, row in gradients.items()}


def _distance(u, v, p, eps, bits):
    """The norm |u - v + eps|_p and its gradient with respect to u, as `Number`s.

    The gradient is sign(e) (|e|/norm)^(p-1), and 0 where e = u - v + eps is 0; if p is infinite,
    the largest entries share it equally. Powers are exp(p log(|e_i|/max|e|)) except for p = 1, 2.
    """
    d = [a - b for a, b in zip(u, v, strict=True)]
    e = [a + eps for a in d]
    reach = [max(abs(a), abs(eps)) for a in d]  # the terms of e
    largest = max(map(abs, e), default=mpf(0))
    zero = total(mpf(0))
    if not largest:
        return zero, [zero] * len(e)
    near = [rounds_to_zero(largest - abs(a), bits, b) for a, b in zip(e, reach, strict=True)]
    if p == INF:
        ties = sum(abs(a) == largest for a in e)
        norm = with_term(max(reach), total(largest))
        if not mp.isfinite(largest):
            return norm, [total(NAN) if abs(a) == largest else zero for a in e]
        slopes = [total(sign(a) / ties) if abs(a) == largest else zero for a in e]
        if sum(near) > ties:
            slopes = [
                either_side_of_kink(with_term(1, s), bits) if n else s
                for s, n in zip(slopes, near, strict=True)
            ]
        return norm, slopes

    powers = [(abs(a) / largest) ** p if a else mpf(0) for a in e]
    power_sum = mp.fsum(powers)
    norm = largest * power_sum ** (1 / p)
    without_exp = p in (1, 2)
    depths = [abs(log(abs(a) / largest)) if a and not without_exp else mpf(0) for a in e]
    depth = mp.fsum(s * b for s, b in zip(powers, depths, strict=True)) / power_sum
    depth += 0 if without_exp else log(power_sum) / p
    slopes = [sign(a) * (abs(a) / norm) ** (p - 1) if a else mpf(0) for a in e]
    size = max(norm, mp.fsum(abs(s) * b for s, b in zip(slopes, reach, strict=True)))
    gradient = []
    for a, s, b, k, n in zip(e, slopes, reach, depths, near, strict=True):
        off = abs(p - 1) * (b / abs(a) + size / norm) if a else mpf(0)
        number = with_exponent_error(with_term(abs(s) * off, total(s)), abs(p - 1) * (k + depth))
        if b and rounds_to_zero(a, bits, b):  # the sign of e is rounding
            number = either_side_of_kink(with_term(2 * (b / norm) ** (p - 1), number), bits)
        if p > mpf(2) ** bits and n:  # as for p = inf: rounding decides which entries are largest
            number = either_side_of_kink(with_term(1, number), bits)
        gradient.append(number)
    return with_exponent_error(with_term(size, total(norm)), depth), gradient


@reference(
    "triplet_margin_loss",
    operands=TRIPLET,
    rows=TRIPLET,
    terms={
        "value": "margin, d(a, p), d(a, n)",
        "anchor, positive, negative": "the terms of the gradients of d(a, p) and d(a, n)",
    },
)
@along_rows
def triplet_margin(anchor, positive, negative, *, margin=1.0, p=2.0, eps=1e-6, swap=False, bits=53):
    """max(0, margin + d(anchor, positive) - d(anchor, negative)), d(u, v) = |u - v + eps|_p.

    With `swap`, d(positive, negative) replaces d(anchor, negative) where it is less, and both get
    half of the gradient where they are equal. The gradient is not 0 at the kink.
    """
    near, toward = _distance(anchor, positive, p, eps, bits)
    far, away = _distance(anchor, negative, p, eps, bits)
    aside = [total(mpf(0))] * len(anchor)
    from_anchor, from_positive, tie = 1, 0, False
    if swap:
        other, aside = _distance(positive, negative, p, eps, bits)
        gap = far.value - other.value
        tie = anchor != positive and rounds_to_zero(gap, bits, far.term, other.term)
        from_positive = mpf(1) / 2 if gap == 0 else mpf(gap > 0)
        from_anchor = 1 - from_positive
        far = other if from_positive == 1 else far
    z = sum_as_terms(total(margin), near, far.scaled(mpf(-1)))
    kink = rounds_to_zero(z.value, bits, z.term)
    value = z._replace(value=max(z.value, mpf(0)))
    if z.value < 0 and not kink:
        value = total(mpf(0))

    gradients = {"anchor": [], "positive": [], "negative": []}
    for g, h, k in zip(toward, away, aside, strict=True):
        either = h.term + k.term
        h, k = h.scaled(mpf(from_anchor)), k.scaled(mpf(from_positive))
        parts = {
            "anchor": sum_as_terms(g, h.scaled(mpf(-1))),
            "positive": sum_as_terms(g.scaled(mpf(-1)), k.scaled(mpf(-1))),
            "negative": sum_as_terms(h, k),
        }
        for name, number in parts.items():
            if tie:
                number = either_side_of_kink(with_term(max(g.term, either), number), bits)
            if kink:
                number = either_side_of_kink(number, bits)
            elif z.value < 0:
                number = total(mpf(0))
            gradients[name].append(number)
    return value, gradients


# ---- CTC: frames of log-probabilities, labels -> value, {operand: [[gradient]]} ------------------


def ctc_sum(probabilities, labels, blank):
    """The probability of the labels, summed over their alignments, and the posteriors [t][c].

    An alignment has a class at each frame; merging repeats and then dropping blanks leaves the
    labels. This is the forward-backward algorithm of Graves et al. (ICML 2006) without logarithms:
    the exponents of mpmath are unlimited. `extended` is l', the labels with blanks around each.
    """
    extended = [blank, *itertools.chain(*((label, blank) for label in labels))]
    states, frames = range(len(extended)), range(len(probabilities))

    def predecessors(s):
        skip_allowed = s > 1 and extended[s] not in (blank, extended[s - 2])
        return [r for r in (s, s - 1, s - 2)[: 3 if skip_allowed else 2] if r >= 0]

    successors = [[q for q in states if s in predecessors(q)] for s in states]
    alpha, beta = [], []  # beta without the emission of its own frame
    incoming = [mpf(s < 2) for s in states]
    for frame in probabilities:
        alpha.append([r * frame[c] for r, c in zip(incoming, extended, strict=True)])
        incoming = [mp.fsum(alpha[-1][r] for r in predecessors(s)) for s in states]
    outgoing = [mpf(s > len(extended) - 3) for s in states]
    for frame in reversed(probabilities):
        beta.insert(0, outgoing)
        outgoing = [mp.fsum(frame[extended[q]] * beta[0][q] for q in successors[s]) for s in states]

    probability = mp.fsum(alpha[-1][-2:]) if alpha else mpf(not labels)
    posteriors = [[divide(mpf(0), probability)] * len(frame) for frame in probabilities]
    for t, s in itertools.product(frames, states):
        posteriors[t][extended[s]] += divide(alpha[t][s] * beta[t][s], probability)
    return probability, posteriors


def ctc_sum_over_alignments(probabilities, labels, blank):
    """`ctc_sum` by its definition, which enumerates all alignments."""
    total_probability, posteriors = mpf(0), [[mpf(0)] * len(frame) for frame in probabilities]
    for alignment in itertools.product(*(range(len(frame)) for frame in probabilities)):
        merged = [c for c, _ in itertools.groupby(alignment)]
        if [c for c in merged if c != blank] != list(labels):
            continue
        weight = mp.fprod(frame[c] for frame, c in zip(probabilities, alignment, strict=True))
        total_probability += weight
        for t, c in enumerate(alignment):
            posteriors[t][c] += weight
    return total_probability, [
        [divide(v, total_probability) for v in frame] for frame in posteriors
    ]


@reference(
    "ctc_loss",
    operands=("log_probs", *ALIGNED),
    differentiable=("log_probs",),
    terms={
        "value": "Σ|x| along the likeliest alignment; T/8",
        "log_probs": "16 exp(x), 16 times the posterior",
    },
)
def ctc(x, y, *, blank=0, zero_infinity=False):
    """-log of the probability of the labels y over all alignments; x holds log-probabilities.

    The gradient is exp(x) - posterior, as in torch: with respect to the logits whose log-softmax is
    x. If no alignment is possible, it is NaN, or 0 with `zero_infinity`. The exp of each frame
    changes the sum over alignments by half an ULP of it, and hence the loss by half an ULP of 1. A
    NaN of a class that is neither a label nor the blank affects only its own derivative.
    """
    if any(mp.isnan(frame[c]) for frame in x for c in {blank, *y}):
        return total(NAN), {"log_probs": [[total(NAN)] * len(frame) for frame in x]}
    probabilities = [[mp.exp(v) for v in frame] for frame in x]  # NaN in classes of no alignment
    probability, posteriors = ctc_sum(probabilities, y, blank)
    if not probability:
        value = total(mpf(0) if zero_infinity else INF)
        slope = total(mpf(0) if zero_infinity else NAN)
        return value, {"log_probs": [[slope] * len(frame) for frame in x]}
    value = with_term(best_alignment_cost(x, y, blank), total(-mp.log(probability)))
    value = value._replace(exponent=relative(mpf(len(x)), value.term))
    gradient = [
        [_within_64_ulp(max(a, b), total(a - b)) for a, b in zip(*pair, strict=True)]
        for pair in zip(probabilities, posteriors, strict=True)
    ]
    return value, {"log_probs": gradient}


@reference(
    "ctc_loss_with_logits",
    operands=("logits", *ALIGNED),
    differentiable=("logits",),
    source=None,
    terms={
        "value": "Σ|log softmax(x)| along the likeliest alignment; T/8",
        "logits": "16 softmax(x), 16 times the posterior",
    },
)
def ctc_with_logits(x, y, *, blank=0, zero_infinity=False):
    """`ctc` of the log-softmax of logits; a frame that has none makes the sample NaN."""
    nan = {"logits": [[total(NAN)] * len(frame) for frame in x]}
    if not all(map(_normal, x)):
        return total(NAN), nan
    with mp.workprec(max(map(_row_bits, x), default=BITS)):
        softmaxes = [_softmax(frame) for frame in x]
        log_probs = [
            [v - log_sum for v in frame]
            for frame, (log_sum, _, _) in zip(x, softmaxes, strict=True)
        ]
        value, gradients = ctc(log_probs, y, blank=blank, zero_infinity=zero_infinity)
        below = mp.fsum(
            s * a for _, softmax, depth in softmaxes for s, a in zip(softmax, depth, strict=True)
        )
        if mp.isfinite(value.value):
            value = with_exponent_error(value, relative(below, value.term))
    return value, {"logits": gradients["log_probs"]}


def best_alignment_cost(x, y, blank):
    """-log of the probability of the likeliest alignment of the labels (Viterbi)."""
    extended = [blank, *itertools.chain(*((label, blank) for label in y))]
    cost = [mpf(0), *[INF] * (len(extended) - 1)]
    for t, frame in enumerate(x):
        after_frame = []
        for s, c in enumerate(extended):
            skip_allowed = s > 1 and c not in (blank, extended[s - 2])
            first = max(0, s - 1 - skip_allowed)
            least = min(cost[first : s + 1]) if t else cost[0] if s < 2 else INF
            after_frame.append(least - frame[c])
        cost = after_frame
    return min(cost[-2:])


def ctc_posteriors(x, y, *, blank=0):
    """The probability [t][c] that frame t has class c in an alignment of the labels."""
    probabilities = [[mp.exp(v) for v in frame] for frame in x]
    _, posteriors = ctc_sum(probabilities, y, blank)
    return [[_within_64_ulp(v, total(v)) for v in frame] for frame in posteriors]


def _within_64_ulp(probability, number):
    """The number with a bound of 64 ULP of the probability, and half an ULP per unit of its log."""
    if not probability > 0:
        return number
    return with_exponent_error(with_term(16 * probability, number), log(probability) / 16)


def posteriors(log_probs, targets, input_lengths, target_lengths, **options):
    """The result of `ctc_posteriors`, as a `Number` shaped like log_probs."""
    arrays = log_probs, targets, input_lengths, target_lengths
    call = _Call("ctc_loss", arrays, options, None, formula=ctc_posteriors)
    return call.in_operand_shape(call.entries["log_probs"])


# ---- Arrays --------------------------------------------------------------------------------------
#
# `options` below holds the keywords of a call: options of the loss, `weight`, `pos_weight`,
# `sample_weight`, `reduction` (default "mean") and `grad_output` (default 1). Kinks and
# options that are lengths are evaluated in the compute type `dtype`, by default
# `compute_dtype(...)`.


def unreduced(loss, arrays, options=None, dtype=None):
    """The losses for reduction="none", as a `Number` of object arrays."""
    call = _Call(loss, arrays, options, dtype)
    return call.values.shaped(call.shape)


def reduced(loss, arrays, options=None, dtype=None):
    """Value and {argument: gradient} for a `reduction`, as `Number`s.

    Where entries are summed, so are their terms and error bounds.
    """
    call = _Call(loss, arrays, options, dtype)
    reduction = call.options.get("reduction", "mean")
    grad_output = np.asarray(call.options.get("grad_output", 1.0), dtype=float)
    grad_output = _numbers(np.broadcast_to(grad_output, call.shape))
    with mp.workprec(BITS):
        if reduction == "none":
            return call.values.shaped(call.shape), call.gradients(grad_output)
        averaged = reduction != "sum"
        divisor = call.divisor(reduction) if averaged else mpf(1)
        values = call.values.scaled(call.per_label) if averaged else call.values
        value = values.summed_by(np.zeros(len(call.active), int), 1).over(divisor).at(0)
        return value, call.gradients(
            grad_output * call.per_label if averaged else grad_output, divisor
        )


def sums(loss, arrays, options=None, dtype=None):
    """(sum, weight, count): a mean is sum / weight, and count entries are not removed."""
    call = _Call(loss, arrays, options, dtype)
    with mp.workprec(BITS):
        losses = call.values.value * call.per_label
        return sum(losses, start=mpf(0)), call.divisor("mean"), int(call.active.sum())


def compute_dtype(loss, arrays):
    """The promoted dtype of the floating operands, at least float32; integer inputs are float64.

    Weights and Python scalars do not take part in the promotion.
    """
    reference = REFERENCES[_name(loss)]
    dtypes = [a.dtype for a in arrays if hasattr(a, "dtype")]
    floating = [dtype for dtype in dtypes if np.issubdtype(dtype, np.floating)]
    named = zip(reference.operands, arrays, strict=True)
    inputs = (a for name, a in named if name in ("input", "input1", "input2", *TRIPLET))
    if any(np.asarray(a).dtype.kind in "iub" for a in inputs) or not floating:
        floating.append(np.dtype(np.float64))
    return np.result_type(np.float32, *floating)


def tolerance(numbers, dtype):
    """The promised bound: 4 ULP of the largest term, and half an ULP per unit of exponents."""
    info = np.finfo(dtype)
    ulp = np.asarray(numbers.term, dtype=object) * mpf(float(info.eps))
    floor = np.maximum(np.asarray(numbers.floor, dtype=object), mpf(1))
    floor = floor * mpf(float(info.smallest_subnormal))
    return 4 * np.maximum(ulp, floor) + np.asarray(numbers.exponent, dtype=object) * ulp / 2


def excess(got, numbers, dtype):
    """The error of each entry of `got` relative to the promised bound: at most 1 if it holds.

    NaN and infinities must match. Results that overflow count as the first power of two out of
    range; where the exact result is out of range by more than its bound, they must overflow.
    """
    end = mpf(2) ** int(np.finfo(dtype).maxexp)

    def ratio(got, value, bound):
        if mp.isnan(got) or mp.isnan(value):
            return 0.0 if mp.isnan(got) and mp.isnan(value) else np.inf
        if mp.isinf(value):
            return 0.0 if got == value else np.inf
        overflows = abs(value) - bound > end
        got, value = (max(-end, min(end, v)) for v in (got, value))
        if overflows and got != value:
            return np.inf
        return float(abs(got - value) / bound)

    with mp.workprec(BITS):
        bound = np.asarray(tolerance(numbers, dtype), dtype=object)
        value = np.asarray(numbers.value, dtype=object)
        got = _numbers(got).reshape(np.shape(got))
        assert got.shape == value.shape == bound.shape
        entries = zip(got.ravel(), value.ravel(), bound.ravel(), strict=True)
        return np.array([ratio(*entry) for entry in entries], dtype=float).reshape(value.shape)


class _Call:
    """A call as flat entries, with weights applied and removed entries set to 0."""

    def __init__(self, loss, arrays, options, dtype, formula=None):
        self.options = options = dict(options or {})
        self.reference = reference = REFERENCES[_name(loss)]
        dtype = compute_dtype(loss, arrays) if dtype is None else np.dtype(dtype)
        arrays = [np.asarray(a, dtype if isinstance(a, float) else None) for a in arrays]
        self.arrays = dict(zip(reference.operands, arrays, strict=True))
        self.wrt, self.formula = reference.differentiable, formula or reference.formula
        if reference.probabilities:
            self._choose_formula()
        read = {
            "element": self._read_elements,
            "row": self._read_rows,
            "sequence": self._read_sequences,
        }[reference.unit]
        self.per_label = mpf(1)  # factor of each entry in the mean; 1/labels for CTC
        with mp.workprec(BITS):
            read(_in_type(self.formula, options, dtype))
            factor = np.where(self.active, self.weights, mpf(0))
            self.values = _zero_removed(self.values.scaled(factor), self.active)

    def _choose_formula(self):
        """Floating targets are rows of probabilities, with a gradient; integers are indices."""
        if self.arrays["target"].dtype.kind not in "iu":
            self.formula = self.reference.probabilities
            self.reference = self.reference._replace(rows=XY, divisor="ones")
        else:
            self.wrt = X

    def _read_elements(self, scalars):
        reference = self.reference
        shapes = {n: a.shape for n, a in self.arrays.items()}
        self.shape = np.broadcast_shapes(*(shape for n, shape in shapes.items() if n != "var"))
        self.aligned = {n: _aligned(n, shape, self.shape) for n, shape in shapes.items()}
        operands = [a.reshape(self.aligned[n]) for n, a in self.arrays.items()]
        operands += [np.asarray(self.options.get(name, 1.0)) for name in reference.extra]
        frozen = tuple(_frozen(np.broadcast_to(a, self.shape)) for a in operands)
        self.values, self.entries = _elements(self.formula, self.wrt, frozen, scalars)

        weight = self._weight(self.options.get("weight"))
        samples = self._weight(self.options.get("sample_weight"), leading=True)
        self.active = (weight != 0) & (samples != 0)
        self.weights = weight * samples
        self.divisors = self.weights if reference.divisor == "weight" else samples

    def _read_rows(self, scalars):
        reference, arrays = self.reference, dict(self.arrays)
        first = arrays[reference.rows[0]]
        axis = min(reference.axis, first.ndim - 1)
        for name in reference.rows:
            arrays[name] = np.moveaxis(arrays[name], axis, -1)
        rows = arrays[reference.rows[0]]
        self.shape, length = rows.shape[:-1], rows.shape[-1]
        self.in_operand_shape = lambda entries: Number(
            *(np.moveaxis(field.reshape(rows.shape), -1, axis) for field in entries)
        )
        for name in reference.extra:
            weight = self.options.get(name)
            arrays[name] = np.broadcast_to(1.0 if weight is None else weight, rows.shape)

        samples = self._weight(self.options.get("sample_weight"), leading=True)
        self.active, self.weights, self.divisors = samples != 0, samples, samples
        if reference.extra and "target" not in reference.rows:
            target_weights = self._weights_of_targets(arrays["target"], arrays["weight"])
            if not dict(scalars).get("label_smoothing"):
                self.active &= target_weights != 0
            if reference.divisor == "classes":
                self.divisors = samples * target_weights
        parts = tuple(
            (_frozen(a), length if name in (*reference.rows, *reference.extra) else None)
            for name, a in arrays.items()
        )
        self.values, self.entries = _rows(
            self.formula, self.wrt, parts, self.active.tobytes(), length, scalars
        )

    def _weights_of_targets(self, target, weight):
        """The weight of the class of each row; removes rows whose index is `ignore_index`."""
        ignored = target.ravel() == self.options.get("ignore_index", -100)
        self.active = self.active & ~ignored
        labels = np.where(self.active, target.ravel(), 0).astype(np.int64)
        rows = weight.reshape(len(labels), weight.shape[-1])
        if not rows.size:
            return _numbers(np.zeros(len(labels)))
        return _numbers(np.where(self.active, rows[np.arange(len(labels)), labels], 0.0))

    def _read_sequences(self, scalars):
        reference = self.reference
        x, y, *lengths = self.arrays.values()
        self.shape = x.shape[:-2] if self.options.get("batch_first") else x.shape[1:-1]
        axis = 1 if self.shape and not self.options.get("batch_first") else 0
        x = np.moveaxis(x, axis, 0)
        x = x.reshape(-1, *x.shape[-2:])
        frames, labels = (np.ravel(n).tolist() for n in lengths)
        if y.ndim == 1:  # concatenated
            ends = np.cumsum(labels)
            labels_of = [y[b - n : b].tolist() for b, n in zip(ends, labels, strict=True)]
        else:
            labels_of = [row[:n].tolist() for row, n in zip(y, labels, strict=True)]
        self.in_operand_shape = lambda entries: Number(
            *(
                np.moveaxis(field.reshape(x.shape), 0, axis)
                if self.shape
                else field.reshape(x.shape[1:])
                for field in entries
            )
        )
        samples = self._weight(self.options.get("sample_weight"), leading=True)
        self.active, self.weights, self.divisors = samples != 0, samples, samples
        self.per_label = _numbers(np.array([max(n, 1) for n in labels])) ** -1
        self.values, self.entries = _sequences(
            self.formula,
            reference.differentiable,
            _frozen(x),
            x.shape,
            tuple(frames),
            tuple(map(tuple, labels_of)),
            self.active.tobytes(),
            scalars,
        )

    def _weight(self, weight, leading=False):
        """The weight of each entry, flat; `leading`: `weight` may have the first axis only."""
        weight = np.asarray(1.0 if weight is None else weight)
        if leading and weight.ndim == 1 and len(self.shape) > 1:
            weight = weight.reshape(-1, *[1] * (len(self.shape) - 1))
        return _numbers(np.broadcast_to(weight, self.shape))

    def divisor(self, reduction):
        total_weight = sum(self.divisors, start=mpf(0))
        if reduction != "batchmean":
            return total_weight
        batch, size = self.shape[0] if self.shape else 1, len(self.active)
        return total_weight * batch / size if size else mpf(batch)

    def gradients(self, grad_output, divisor=None):
        scale = np.where(self.active, self.weights * grad_output, mpf(0))
        gradients = {}
        for name in self.wrt:
            entries = self.entries[name]
            by_row = entries.value.ndim == 2
            scales, active = (v[:, None] if by_row else v for v in (scale, self.active))
            entries = entries.scaled(scales)
            entries = _zero_removed(entries if divisor is None else entries.over(divisor), active)
            if by_row:
                gradients[name] = self.in_operand_shape(entries)
                continue
            array = self.arrays[name]
            if array.size != len(self.active):
                owner = np.arange(array.size).reshape(self.aligned[name])
                owner = np.broadcast_to(owner, self.shape).ravel()
                entries = entries.summed_by(owner, array.size)
            gradients[name] = entries.shaped(array.shape)
        return gradients


@lru_cache(maxsize=32)
def _elements(formula, differentiable, frozen, scalars):
    """The formula at every element: values and {operand: gradient}, `Number`s of flat arrays."""
    operands = [_thawed(a) for a in frozen]
    results = [formula(*entry, **dict(scalars)) for entry in zip(*operands, strict=True)]
    gradients = {name: _stacked([g[name] for _, g in results]) for name in differentiable}
    return _stacked([value for value, _ in results]), gradients


@lru_cache(maxsize=32)
def _rows(formula, differentiable, parts, active, length, scalars):
    """The formula at every active row, and 0 for the others: values, and gradients by row.

    `parts` holds each operand with its entries per row, None for one scalar per row.
    """
    operands = [(_thawed(a, int), size) for a, size in parts]
    active = np.frombuffer(active, bool)
    zero = total(mpf(0)), dict.fromkeys(differentiable, [total(mpf(0))] * length)
    results = []
    for i, is_active in enumerate(active):
        entry = [a[i] if n is None else a[i * n : (i + 1) * n] for a, n in operands]
        results.append(formula(*entry, **dict(scalars)) if is_active else zero)
    gradients = {
        name: _stacked([number for _, g in results for number in g[name]]).shaped(
            (len(active), length)
        )
        for name in differentiable
    }
    return _stacked([value for value, _ in results]), gradients


@lru_cache(maxsize=32)
def _sequences(formula, differentiable, frozen, shape, frames, labels, active, scalars):
    """The formula at every active sample; 0 for the others, and for frames beyond the length."""
    (name,), (samples, frames_in_all, classes) = differentiable, shape
    x = np.array([*_thawed(frozen), None], dtype=object)[:-1].reshape(shape)
    values, gradients = [], np.full(shape, None)
    gradients.fill(total(mpf(0)))
    for i, is_active in enumerate(np.frombuffer(active, bool)):
        value = total(mpf(0))
        if is_active:
            result = formula(x[i, : frames[i]].tolist(), labels[i], **dict(scalars))
            value, gradient = result if isinstance(result, tuple) else (value, {name: result})
            for t, c in np.ndindex(frames[i], classes):
                gradients[i, t, c] = gradient[name][t][c]
        values.append(value)
    stacked = _stacked(list(gradients.ravel()))
    return _stacked(values), {name: stacked.shaped((samples, frames_in_all * classes))}


def _name(loss):
    return getattr(loss, "__name__", loss)


# Exponents, and fractions of which the complement is a factor, are not rounded: with a rounded
# power p, x^-p would be off by p |log x| half ULPs, and 1 - q by all its digits for q close to 1.
UNROUNDED = ("alpha", "gamma", "label_smoothing", "p", "power", "quantile")


def _in_type(formula, options, dtype):
    """The scalar options of a formula, those that are lengths rounded to the compute type, unless
    this would make them infinite or 0."""
    scalars = []
    for name, parameter in inspect.signature(formula).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        value = options.get(name, parameter.default)
        if name == "bits":
            value = np.finfo(dtype).nmant + 1
        elif name in UNROUNDED and isinstance(parameter.default, float):
            value = mpf(float(value))
        elif isinstance(parameter.default, float):
            with np.errstate(over="ignore"):
                rounded = float(dtype.type(value))
            in_range = np.isinf(rounded) <= np.isinf(value) and (rounded != 0) >= (value != 0)
            value = mpf(rounded if in_range else float(value))
        scalars.append((name, value))
    return tuple(scalars)


def _aligned(name, shape, full):
    """The shape with which an operand broadcasts; `var` may lack the last axis."""
    return (*shape, 1) if name == "var" and shape != full and shape == full[:-1] else shape


def _zero_removed(numbers, active):
    return Number(*(np.where(active, field, mpf(0)) for field in numbers))


def _stacked(numbers):
    """One `Number` of arrays from a list of `Number`s."""
    fields = zip(*numbers, strict=True) if numbers else ((),) * 4
    return Number(*(np.array(field, dtype=object) for field in fields))


def _frozen(array):
    """An array as a hashable value; its shape is not part of it."""
    array = np.asarray(array)
    wide = np.int64 if array.dtype.kind in "ib" else np.uint64 if array.dtype.kind == "u" else float
    return np.dtype(wide).char, array.astype(wide).tobytes()


def _thawed(frozen, integer=mpf):
    """The entries of a frozen array, floats as mpf and integers as `integer`."""
    make = mpf if frozen[0] == "d" else integer
    return [make(v) for v in np.frombuffer(frozen[1], frozen[0]).tolist()]


def _numbers(array):
    return np.array(_thawed(_frozen(array)), dtype=object)
