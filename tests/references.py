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

- NaN in an operand of an entry makes its value and each of its gradients NaN: the whole row's where
  an entry is a row (but in `nll` and `multilabel_soft_margin`, whose classes know nothing of each
  other), the whole sample's where it is a sequence. So does a value that is NaN.
- A weight of exactly 0 or `ignore_index` removes an entry: it adds 0, whatever it holds.

0 times infinity is 0 where the 0 is a coefficient that the caller chose (`times`): the limit along
the other factor. Elsewhere infinities go through the formulas as IEEE 754 takes them. Out-of-range
operands are an error of the library; what a reference returns for them means nothing.

Where a kink lies within the rounding of what is compared with it, the gradients of both its sides
are right (`unsure`).

Formulas and kinks: torch.nn.functional 2.13, except where a function says so.
"""

from __future__ import annotations

import inspect
import itertools
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

    `term` is the largest magnitude among the terms that the formula adds and their sum; the terms
    of a sum along a row are those of its summands, added up.
    `exponent` is sum |a dr/da| / term over the arguments a of exp that had to be rounded (x_j - m
    in cross entropy, p log x in a power): the part of the term that a relative change of all a
    moves.
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


def added(numbers, scale=1):
    """The sum of numbers, times `scale`: values, terms and what bounds errors are added up."""
    values, terms, exponents, floors = zip(*numbers, strict=True) if numbers else ((),) * 4
    term = mp.fsum(terms)
    shifted = mp.fsum(times(e, t) for e, t in zip(exponents, terms, strict=True))
    floor = max(abs(scale) * sum(floors), mpf(1))
    return Number(scale * mp.fsum(values), abs(scale) * term, part(shifted, term), floor)


def joined(*numbers):
    """The sum of numbers as terms of one formula: the largest of their terms bounds its error."""
    value = sum((n.value for n in numbers), start=mpf(0))
    term = max(abs(value), *(n.term for n in numbers))
    shifted = mp.fsum(times(n.exponent, n.term) for n in numbers)
    return Number(value, term, part(shifted, term), max(n.floor for n in numbers))


def moved(number, exponent):
    """The number with an argument of exp behind all of it."""
    return number._replace(exponent=number.exponent + abs(exponent))


def unsure(number, bits):
    """A gradient beside a kink, so near that rounding decides whether it is this one or another."""
    return moved(number, mpf(2) ** bits)


def rounds_to_zero(z, bits, *terms):
    """Whether z, a sum of these terms, is 0 to within the error that is promised for it."""
    least = mpf(2) ** (-149 if bits == 24 else -1074)
    return mp.isfinite(z) and abs(z) <= 4 * max(mpf(2) ** (1 - bits) * max(map(abs, terms)), least)


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


def along_rows(formula):
    """Evaluate a formula of rows with BITS bits; NaN in or as value is NaN throughout."""

    @wraps(formula)
    def loss(*operands, **options):
        entries = itertools.chain(*(v if isinstance(v, list) else [v] for v in operands))
        with mp.workprec(BITS):
            value, gradients = formula(*operands, **options)
            if any(mp.isnan(v) for v in entries) or mp.isnan(value.value):
                nan = total(NAN)
                return nan, {name: [nan] * len(row) for name, row in gradients.items()}
            return value, gradients

    return loss


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


@at_bits(lambda x, y: steep(x))
def sigmoid_focal(x, y, *, alpha=0.25, gamma=2.0):
    """a q^gamma ce, the cross entropy ce = (1 - y) softplus(x) + y softplus(-x) of a logit.

    q = y sigmoid(-x) + (1 - y) sigmoid(x) is what the prediction lacks, a = alpha y +
    (1 - alpha) (1 - y), or 1 where alpha is -1 (torchvision.ops). Infinite x: the limit.
    """
    if mp.isinf(x):
        (near, slopes), (far, others) = (
            sigmoid_focal.__wrapped__(place * mp.sign(x), y, alpha=alpha, gamma=gamma)
            for place in (FAR, 2 * FAR)
        )
        return _limit(near, far), {name: _limit(slopes[name], others[name]) for name in slopes}
    yes, no, more, less = sigmoid(x), sigmoid(-x), softplus(x), softplus(-x)
    a, a_slope = (1, 0) if alpha == -1 else (alpha * y + (1 - alpha) * (1 - y), 2 * alpha - 1)
    q, ce = y * no + (1 - y) * yes, (1 - y) * more + y * less
    power = q**gamma
    steeper = gamma * q ** (gamma - 1) * ce if gamma else mpf(0)
    reach = 1 + abs(x) + gamma * (ce + (q ** (gamma - 1) if q else mpf(0)))
    argument = abs(0 if gamma in (0, 1, 2) else gamma * log(q))
    argument += 4 * gamma  # q is right to within 2 ULP, which its power makes 2 gamma
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
        floor=reach,
    )
    return moved(value, argument), {
        "input": moved(slope, argument),
        "target": moved(target, argument),
    }


FAR = mpf(2) ** 40


def _limit(near, far):
    """What grows or shrinks from FAR to twice as far, or stays, is infinite, 0, or this at last."""
    if abs(far.value) > abs(near.value) * 1.5:
        return total(INF * mp.sign(far.value))
    return total(mpf(0)) if abs(far.value) < abs(near.value) / 2 else far


@at_bits()
def pinball(x, y, *, quantile=0.5):
    """quantile max(y - x, 0) + (1 - quantile) max(x - y, 0). Gradient 0 where they are equal."""
    d = x - y
    slope = times(1 - quantile if d > 0 else quantile, sign(d))
    return total(slope * d if d else d), {"input": total(slope), "target": total(-slope)}


@at_bits()
def gamma_nll(x, y, *, log_input=True):
    """x + y exp(-x), x being the logarithm of the mean; or log x + y/x. Terms in y are left out."""
    if log_input:
        scaled = times(y, mp.exp(-x))
        value, slope = total(x, scaled, floor=y), total(mpf(1), -scaled, floor=y)
        value = total(INF) if x == -INF else value  # the limit
        return value, {"input": slope, "target": total(mp.exp(-x))}
    value = total(log(x), divide(y, x))
    slope = total(divide(mpf(1), x), -divide(y, x * x))
    return value, {"input": slope, "target": total(divide(mpf(1), x))}


@at_bits()
def tweedie_deviance(x, y, *, power=0.0):
    """2 (y^(2-p)/((1-p)(2-p)) - y x^(1-p)/(1-p) + x^(2-p)/(2-p)), p = power, y^.. = 0 for y < 0.

    p = 0: (x - y)^2; p = 1: 2 (y log(y/x) - y + x); p = 2: 2 (log(x/y) + y/x - 1). Gradient
    2 x^-p (x - y) (sklearn.metrics.mean_tweedie_deviance).
    """
    p, d = power, x - y
    if p == 0:
        return total(d * d), {"input": total(2 * d), "target": total(-2 * d)}
    slope = moved(total(2 * times(d, x**-p), floor=2 * d), 0 if p in (1, 2) else p * log(x))
    if p == 1:
        ratio = log(y / x)
        value = total(2 * times(y, ratio), -2 * y, 2 * x)
        return value, {"input": slope, "target": at_least(2, total(2 * ratio))}
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
    value = total(INF) if y == INF and x == x else joined(*parts)  # the limit
    return value, {"input": slope, "target": joined(*slopes)}


def _power(y, exponent):
    """max(y, 0)^exponent."""
    return y**exponent if y > 0 else mpf(0) if exponent > 0 else INF


def _argument(x, exponent):
    """What exp is taken of where it makes x^exponent."""
    return exponent * log(x) if x > 0 else mpf(0)


# ---- Losses along rows: rows and numbers -> value, {operand: [gradient]} -------------------------
#
# w: the weights of the classes, 1 unless given.


def nll(x, y, w):
    """-w[y] x[y]; x holds log-probabilities. Nothing else of the row is read."""
    nothing, picked = total(mpf(0)), NAN if mp.isnan(x[y]) else -w[y]
    gradient = [total(picked) if c == y else nothing for c in range(len(x))]
    return total(-w[y] * x[y]), {"input": gradient}


def _softmax(x):
    """Of a row of logits: log sum exp(x_j), the softmax, and the exponents m - x_j, m = max(x)."""
    powers = [mp.exp(v) for v in x]
    power_sum, highest = mp.fsum(powers), max(x)
    share = [p / power_sum for p in powers]
    depth = [highest - v if p else mpf(0) for v, p in zip(x, powers, strict=True)]
    return mp.log(power_sum), share, depth


def _row_bits(x):
    """Bits that log sum exp(x_j) - x_c needs."""
    second, highest = sorted([-INF, *x])[-2:]
    largest = max(abs(v) for v in x if mp.isfinite(v))
    return BITS + (max(0, mp.mag(largest)) if largest else 0) + steep(highest - second)


def _normal(x):
    """Whether a softmax can be made of a row."""
    return all(v < INF for v in x) and max(x) > -INF


def cross_entropy(x, y, w, *, label_smoothing=0.0):
    """sum_c q_c (log sum_j exp(x_j) - x_c), q_c = w_c ((1 - e) [c = y] + e/C), e = label_smoothing.

    All terms have one sign. The gradient s_c sum(q) - q_c, s = softmax(x), is taken apart into
    (1 - e) w_y (s_c - [c = y]), with s_y - 1 one term, (e/C) s_c sum(w) and -(e/C) w_c.
    A row that holds NaN or +inf, or nothing but -inf, is NaN throughout.
    """
    if not _normal(x):
        return total(NAN), {"input": [total(NAN)] * len(x)}

    with mp.workprec(_row_bits(x)):
        classes, e = range(len(x)), label_smoothing
        log_sum, share, depth = _softmax(x)
        hard, smooth = (1 - e) * w[y], [e * v / len(x) for v in w]
        smooth_sum = mp.fsum(smooth)
        terms = [times(hard, log_sum - x[y])]
        if e:
            terms += [times(q, log_sum - v) for q, v in zip(smooth, x, strict=True)]
        value = total(*terms, floor=w[y])

        # The exponents |x_j - m|, and what they move in the sum under the fraction bar.
        below = mp.fsum(s * a for s, a in zip(share, depth, strict=True))
        others = [c for c in classes if c != y]
        value = value._replace(exponent=part(abs(hard + smooth_sum) * below, value.term))

        gradient = []
        for c in classes:
            if c == y:
                s = -mp.fsum(share[j] for j in others)
                above = mp.fsum(share[j] * depth[j] for j in others)
            else:
                s, above = share[c], share[c] * depth[c]
            terms, shifted = [hard * s], abs(hard) * (above + abs(s) * below)
            if e:
                terms += [smooth_sum * share[c], -smooth[c]]
                shifted += abs(smooth_sum) * share[c] * (depth[c] + below)
            number = total(*terms, floor=w[y])
            gradient.append(number._replace(exponent=part(shifted, number.term)))
    return value, {"input": gradient}


def cross_entropy_probabilities(x, y, w, *, label_smoothing=0.0):
    """sum_c q_c (log sum_j exp(x_j) - x_c), q_c = w_c ((1 - e) y_c + e/C), e = label_smoothing.

    Gradients s_c sum(q) - q_c, s = softmax(x), and (1 - e) w_c (log sum_j exp(x_j) - x_c). A class
    with q_c = 0 adds nothing, whatever its logit. A row that holds NaN or an infinite logit but
    -inf, or nothing but -inf, is NaN throughout.
    """
    if any(mp.isnan(v) for v in y) or not _normal(x):
        nan = [total(NAN)] * len(x)
        return total(NAN), {"input": nan, "target": nan}

    with mp.workprec(_row_bits(x)):
        e = label_smoothing
        log_sum, share, depth = _softmax(x)
        surprise = [log_sum - v for v in x]
        q = [b * ((1 - e) * a + e / len(x)) for a, b in zip(y, w, strict=True)]
        mass, below = mp.fsum(q), mp.fsum(s * a for s, a in zip(share, depth, strict=True))
        reach = 1 + max(v for v in surprise if mp.isfinite(v))
        value = total(
            mp.fsum(times(b, v) for b, v in zip(q, surprise, strict=True)), floor=mass + reach
        )
        slopes, targets = [], []
        for c in range(len(x)):
            number = total(mass * share[c], -q[c], floor=mass + 1)
            shifted = mass * share[c] * (depth[c] + below)
            slopes.append(number._replace(exponent=part(shifted, number.term)))
            scale = (1 - e) * w[c]
            number = total(times(scale, surprise[c]), floor=w[c])
            targets.append(number._replace(exponent=part(scale * below, number.term)))
        value = value._replace(exponent=part(mass * below, value.term))
    return value, {"input": slopes, "target": targets}


def _hinge(margin, d, p, bits):
    """(max(0, z)^p, its derivative) for z = margin + d, d a difference of two operands.

    Exactly at the kink the derivative is 0.
    """
    z, size = mp.fadd(margin, d, exact=True), max(abs(margin), abs(d))
    near = z != 0 and rounds_to_zero(z, bits, size)
    if mp.isnan(z) or not (z > 0 or near):
        return total(max(z, mpf(0))), total(mpf(0))
    z = max(z, mpf(0))
    slope = total(mpf(1))
    if p == 1:
        return at_least(size, total(z)), unsure(slope, bits) if near else slope
    return at_least(size * (size if near else z), total(z * z)), at_least(2 * size, total(2 * z))


def _gap(a, b):
    """a - b to the last digit, so that only what lies on a kink is found there."""
    return mp.fsub(a, b, exact=True)


@along_rows
def multi_margin(x, y, w, *, p=1, margin=1.0, bits=53):
    """(w_y/C) sum_{j != y} max(0, margin - x_y + x_j)^p, p = 1 or 2. Gradient 0 at the kink."""
    scale, others = w[y] / len(x), [j for j in range(len(x)) if j != y]
    pairs = {j: _hinge(margin, _gap(x[j], x[y]), p, bits) for j in others}
    value = added([v for v, _ in pairs.values()], scale)
    slope = added([s for _, s in pairs.values()], -scale)
    return value, {"input": [slope if j == y else pairs[j][1].scaled(scale) for j in range(len(x))]}


@along_rows
def multilabel_margin(x, y, *, bits=53):
    """(1/C) sum_j sum_k max(0, 1 - x_j + x_k) over the labels j and the classes k that are none.

    The labels are those before the first -1; one that comes twice counts twice. Gradient 0 at the
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
    return added(values, scale), {"input": [added(numbers, scale) for numbers in slopes]}


def multilabel_soft_margin(x, y, w):
    """(1/C) sum_c w_c ((1 - y_c) softplus(x_c) + y_c softplus(-x_c)).

    Gradients w_c ((1 - y_c) sigmoid(x_c) - y_c sigmoid(-x_c))/C and -w_c x_c/C. What weighs 0 is
    not looked at.
    """
    values, slopes, targets = [], [], []
    for logit, share, weight in zip(x, y, w, strict=True):
        spoilt = mp.isnan(logit) or mp.isnan(share)
        if not weight or spoilt:
            number = total(NAN if weight else mpf(0))
            for numbers in (values, slopes, targets):
                numbers.append(number)
            continue
        value, gradients = binary_cross_entropy_with_logits(logit, share, mpf(1))
        scale = weight / len(x)
        values.append(value.scaled(scale))
        slopes.append(gradients["input"].scaled(scale))
        targets.append(total(-logit).scaled(scale))
    return added(values), {"input": slopes, "target": targets}


@along_rows
def cosine_embedding(x1, x2, y, *, margin=0.0, bits=53):
    """1 - c for y = 1, max(0, c - margin) for y = -1; c = x1.x2/sqrt(n1 n2), n = |x|^2 + eps.

    eps is 1e-12, rounded to float32. Gradients -k (x2_i/sqrt(n1 n2) - c x1_i/n1) and the like,
    k = 1 for y = 1 and -1 for y = -1 where c >= margin. The terms of c are the
    |x1_i x2_i|/sqrt(n1 n2).
    """
    eps = mpf(float(np.float32(1e-12)))
    n1, n2 = (mp.fsum(v * v for v in x) + eps for x in (x1, x2))
    length = mp.sqrt(n1) * mp.sqrt(n2)
    products = [a * b / length for a, b in zip(x1, x2, strict=True)]
    c, size = mp.fsum(products), mp.fsum(map(abs, products))

    def slopes(a, b, n):
        numbers = []
        for one, other in zip(a, b, strict=True):
            number = total(other / length, -c * one / n, floor=1 + 1 / mp.sqrt(n))
            numbers.append(at_least(size * abs(one) / n, number))
        return numbers

    gradients = {"input1": slopes(x1, x2, n1), "input2": slopes(x2, x1, n2)}
    if y == 1:
        return at_least(size, total(mpf(1), -c)), _each(gradients, lambda g: g.scaled(mpf(-1)))
    z = c - margin
    near = rounds_to_zero(z, bits, size, margin)
    value = total(max(z, mpf(0)))
    if z > 0 or near:
        value = at_least(max(size, abs(margin)), value)
    if near and size:
        gradients = _each(gradients, lambda g: unsure(g, bits))
    elif z < 0:
        gradients = _each(gradients, lambda g: total(mpf(0)))
    return value, gradients


def _each(gradients, change):
    return {name: [change(number) for number in row] for name, row in gradients.items()}


def _distance(u, v, p, eps, bits):
    """The norm |u - v + eps|_p and its gradient with respect to u: `Number`s.

    Gradient sign(e) (|e|/norm)^(p-1), 0 where e = u - v + eps is 0; the largest share it equally if
    p is infinite. Powers are exp(p log(|e_i|/max|e|)) but for p = 1 and 2.
    """
    d = [a - b for a, b in zip(u, v, strict=True)]
    e = [a + eps for a in d]
    reach = [max(abs(a), abs(eps)) for a in d]  # the terms of e
    largest = max(map(abs, e), default=mpf(0))
    nothing = total(mpf(0))
    if not largest:
        return total(mpf(0)), [nothing] * len(e)
    if p == INF:
        near = [rounds_to_zero(largest - abs(a), bits, b) for a, b in zip(e, reach, strict=True)]
        ties = sum(abs(a) == largest for a in e)
        norm = at_least(max(reach), total(largest))
        if not mp.isfinite(largest):
            return norm, [total(NAN) if abs(a) == largest else nothing for a in e]
        slopes = [total(sign(a) / ties) if abs(a) == largest else nothing for a in e]
        if sum(near) > ties:
            slopes = [
                unsure(at_least(1, s), bits) if n else s for s, n in zip(slopes, near, strict=True)
            ]
        return norm, slopes

    shares = [(abs(a) / largest) ** p if a else mpf(0) for a in e]
    power_sum = mp.fsum(shares)
    norm = largest * power_sum ** (1 / p)
    plain = p in (1, 2)
    depths = [abs(log(abs(a) / largest)) if a and not plain else mpf(0) for a in e]
    depth = mp.fsum(s * b for s, b in zip(shares, depths, strict=True)) / power_sum
    depth += 0 if plain else log(power_sum) / p
    slopes = [sign(a) * (abs(a) / norm) ** (p - 1) if a else mpf(0) for a in e]
    size = max(norm, mp.fsum(abs(s) * b for s, b in zip(slopes, reach, strict=True)))
    gradient = []
    for a, s, b, k in zip(e, slopes, reach, depths, strict=True):
        off = abs(p - 1) * (b / abs(a) + size / norm) if a else mpf(0)
        number = moved(at_least(abs(s) * off, total(s)), abs(p - 1) * (k + depth))
        if b and rounds_to_zero(a, bits, b):  # of either sign, if there is anything at all
            number = unsure(at_least(2 * (b / norm) ** (p - 1), number), bits)
        gradient.append(number)
    return moved(at_least(size, total(norm)), depth), gradient


@along_rows
def triplet_margin(anchor, positive, negative, *, margin=1.0, p=2.0, eps=1e-6, swap=False, bits=53):
    """max(0, margin + d(anchor, positive) - d(anchor, negative)), d(u, v) = |u - v + eps|_p.

    `swap` takes d(positive, negative) where it is less, and half of each gradient where the two are
    equal. Gradient also at the kink.
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
    z = joined(total(margin), near, far.scaled(mpf(-1)))
    kink = rounds_to_zero(z.value, bits, z.term)
    value = z._replace(value=max(z.value, mpf(0)))
    if z.value < 0 and not kink:
        value = total(mpf(0))

    gradients = {"anchor": [], "positive": [], "negative": []}
    for g, h, k in zip(toward, away, aside, strict=True):
        either = h.term + k.term
        h, k = h.scaled(mpf(from_anchor)), k.scaled(mpf(from_positive))
        parts = {
            "anchor": joined(g, h.scaled(mpf(-1))),
            "positive": joined(g.scaled(mpf(-1)), k.scaled(mpf(-1))),
            "negative": joined(h, k),
        }
        for name, number in parts.items():
            if tie:
                number = unsure(at_least(max(g.term, either), number), bits)
            if kink:
                number = unsure(number, bits)
            elif z.value < 0:
                number = total(mpf(0))
            gradients[name].append(number)
    return value, gradients


# ---- Alignments: frames of log-probabilities, labels -> value, {operand: [[gradient]]} -----------


def ctc_sum(probabilities, labels, blank):
    """The probability of all paths that spell the labels, and the posteriors [t][c] of their steps.

    A path has a class at each frame; it spells what is left when repeats are merged and then blanks
    are dropped. Forward and backward sums, without logarithms: mpmath's exponents have no end
    (Graves et al., ICML 2006).
    """
    spelled = [blank, *itertools.chain(*((label, blank) for label in labels))]
    states, frames = range(len(spelled)), range(len(probabilities))

    def before(s):
        """The states from which a path may come to s."""
        skips = s > 1 and spelled[s] not in (blank, spelled[s - 2])
        return [r for r in (s, s - 1, s - 2)[: 3 if skips else 2] if r >= 0]

    after = [[q for q in states if s in before(q)] for s in states]
    forward, backward = [], []
    reached = [mpf(s < 2) for s in states]
    for frame in probabilities:
        forward.append([r * frame[c] for r, c in zip(reached, spelled, strict=True)])
        reached = [mp.fsum(forward[-1][r] for r in before(s)) for s in states]
    left = [mpf(s > len(spelled) - 3) for s in states]
    for frame in reversed(probabilities):
        backward.insert(0, left)
        left = [mp.fsum(frame[spelled[q]] * backward[0][q] for q in after[s]) for s in states]

    whole = mp.fsum(forward[-1][-2:]) if forward else mpf(not labels)
    posteriors = [[divide(mpf(0), whole)] * len(frame) for frame in probabilities]
    for t, s in itertools.product(frames, states):
        posteriors[t][spelled[s]] += divide(forward[t][s] * backward[t][s], whole)
    return whole, posteriors


def ctc_paths(probabilities, labels, blank):
    """`ctc_sum` by its definition: looks at every path."""
    whole, posteriors = mpf(0), [[mpf(0)] * len(frame) for frame in probabilities]
    for path in itertools.product(*(range(len(frame)) for frame in probabilities)):
        merged = [c for c, _ in itertools.groupby(path)]
        if [c for c in merged if c != blank] != list(labels):
            continue
        weight = mp.fprod(frame[c] for frame, c in zip(probabilities, path, strict=True))
        whole += weight
        for t, c in enumerate(path):
            posteriors[t][c] += weight
    return whole, [[divide(v, whole) for v in frame] for frame in posteriors]


def ctc(x, y, *, blank=0, zero_infinity=False):
    """-log of the probability of all paths that spell the labels y; x holds log-probabilities.

    The gradient is torch's, exp(x) - posterior: by the logits of which x is the log-softmax. NaN
    where no path has a probability, or 0 throughout if `zero_infinity`. Each frame's exp rounds the
    sum of paths by half an ULP of it, which moves the loss by as much of 1. A NaN of a class that
    is neither a label nor the blank is that of its own derivative only.
    """
    if any(mp.isnan(frame[c]) for frame in x for c in {blank, *y}):
        return total(NAN), {"log_probs": [[total(NAN)] * len(frame) for frame in x]}
    probabilities = [[mp.exp(v) for v in frame] for frame in x]  # NaN where no path goes
    whole, posteriors = ctc_sum(probabilities, y, blank)
    if not whole:
        value = total(mpf(0) if zero_infinity else INF)
        slope = total(mpf(0) if zero_infinity else NAN)
        return value, {"log_probs": [[slope] * len(frame) for frame in x]}
    best = _best_path(x, y, blank)
    value = at_least(best, total(-mp.log(whole)))
    value = value._replace(exponent=part(mpf(len(x)), value.term))
    gradient = [
        [_widened(max(a, b), total(a - b)) for a, b in zip(*pair, strict=True)]
        for pair in zip(probabilities, posteriors, strict=True)
    ]
    return value, {"log_probs": gradient}


def ctc_with_logits(x, y, *, blank=0, zero_infinity=False):
    """`ctc` of the log-softmax of logits; a frame without one makes the sample NaN."""
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
            s * a for _, share, depth in softmaxes for s, a in zip(share, depth, strict=True)
        )
        if mp.isfinite(value.value):
            value = moved(value, part(below, value.term))
    return value, {"logits": gradients["log_probs"]}


def _best_path(x, y, blank):
    """-log of the probability of the likeliest path that spells the labels."""
    spelled = [blank, *itertools.chain(*((label, blank) for label in y))]
    best = [mpf(0), *[INF] * (len(spelled) - 1)]
    for t, frame in enumerate(x):
        reached = []
        for s, c in enumerate(spelled):
            skips = s > 1 and c not in (blank, spelled[s - 2])
            least = min(best[max(0, s - 1 - skips) : s + 1]) if t else best[0] if s < 2 else INF
            reached.append(least - frame[c])
        best = reached
    return min(best[-2:])


def ctc_posteriors(x, y, *, blank=0):
    """The probability [t][c] that frame t emits class c, of a path that spells the labels."""
    probabilities = [[mp.exp(v) for v in frame] for frame in x]
    _, posteriors = ctc_sum(probabilities, y, blank)
    return [[_widened(v, total(v)) for v in frame] for frame in posteriors]


def _widened(probability, number):
    """The number with a bound of 64 ULP of the probability, and half an ULP per unit of its log."""
    if not probability > 0:
        return number
    return moved(at_least(16 * probability, number), log(probability) / 16)


# ---- The table -----------------------------------------------------------------------------------


class Reference(NamedTuple):
    """What the array functions below know about a loss.

    `kind`: a unit of the loss is one of "elements", "rows" or "sequences"; `rows` names the
    operands that are rows, along `axis`, the others having an entry for each row. `divisor`: what
    mean divides by, a sum of "ones", of the "weight" k, or of the class weights ("classes").
    `terms`: the terms of value and gradients in words, for the documentation.
    """

    formula: Callable
    operands: tuple[str, ...]
    differentiable: tuple[str, ...]
    divisor: str
    terms: dict[str, str]
    extra: tuple[str, ...] = ()  # operands that come by keyword; 1 if they do not come
    kind: str = "elements"
    rows: tuple[str, ...] = ()
    axis: int = -1
    soft: Callable | None = None  # the formula where the target is floating, and so a row


XY = ("input", "target")
X = ("input",)
TRIPLET = ("anchor", "positive", "negative")
ALIGNED = ("targets", "input_lengths", "target_lengths")
WEIGHT = ("weight",)
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
    "sigmoid_focal_loss": Reference(
        sigmoid_focal,
        XY,
        XY,
        "ones",
        {
            "value": ITSELF,
            "input": "a γ q^(γ-1) ce q', a q^γ (1 - y) σ(x), a q^γ y σ(-x)",
            "target": "a' q^γ ce, a γ q^(γ-1) ce σ(±x), a q^γ softplus(±x)",
        },
    ),
    "pinball_loss": Reference(pinball, XY, XY, "ones", {"value": ITSELF, "input, target": ITSELF}),
    "gamma_nll_loss": Reference(
        gamma_nll,
        XY,
        XY,
        "ones",
        {
            "value": "x, y exp(-x) (log_input); log x, y/x (not)",
            "input": "1, y exp(-x); or 1/x, y/x²",
            "target": ITSELF,
        },
    ),
    "tweedie_deviance_loss": Reference(
        tweedie_deviance,
        XY,
        XY,
        "ones",
        {
            "value": "2y^(2-p)/((1-p)(2-p)), 2y x^(1-p)/(1-p), 2x^(2-p)/(2-p); (x - y)² (p = 0); "
            "2y log(y/x), 2y, 2x (p = 1); 2 log(x/y), 2y/x, 2 (p = 2)",
            "input": ITSELF,
            "target": "2y^(1-p)/(1-p), 2x^(1-p)/(1-p); itself (p = 0); 2 log(y/x), 2 (p = 1); "
            "2/x, 2/y (p = 2)",
        },
    ),
    "nll_loss": Reference(
        nll,
        XY,
        X,
        "classes",
        {"value": ITSELF, "input": ITSELF},
        extra=WEIGHT,
        kind="rows",
        rows=X,
        axis=1,
    ),
    "cross_entropy": Reference(
        cross_entropy,
        XY,
        XY,
        "classes",
        {
            "value": ITSELF,
            "input": ITSELF + "; (1 - e) w_y (s_c - [c = y]), (e/C) s_c Σw, (e/C) w_c "
            "(label_smoothing); s_c Σq, q_c (probabilities)",
            "target": ITSELF,
        },
        extra=WEIGHT,
        kind="rows",
        rows=X,
        axis=1,
        soft=cross_entropy_probabilities,
    ),
    "multi_margin_loss": Reference(
        multi_margin,
        XY,
        X,
        "ones",
        {
            "value": "w_y/C times each z^(p-1) margin, z^(p-1) (x_j - x_y)",
            "input": "w_y/C times 1, or each margin, x_j - x_y (p = 2)",
        },
        extra=WEIGHT,
        kind="rows",
        rows=X,
    ),
    "multilabel_margin_loss": Reference(
        multilabel_margin,
        XY,
        X,
        "ones",
        {"value": "1/C times each 1, x_k - x_j", "input": "1/C for each pair"},
        kind="rows",
        rows=XY,
    ),
    "multilabel_soft_margin_loss": Reference(
        multilabel_soft_margin,
        XY,
        XY,
        "ones",
        {"value": ITSELF, "input": "w_c (1 - y_c) σ(x_c)/C, w_c y_c σ(-x_c)/C", "target": ITSELF},
        extra=WEIGHT,
        kind="rows",
        rows=XY,
    ),
    "cosine_embedding_loss": Reference(
        cosine_embedding,
        ("input1", "input2", "target"),
        ("input1", "input2"),
        "ones",
        {
            "value": "1 or margin; Σ|x1_i x2_i|/√(n1 n2)",
            "input1, input2": "the other's entry/√(n1 n2); its own/n times Σ|x1_i x2_i|/√(n1 n2)",
        },
        kind="rows",
        rows=("input1", "input2"),
    ),
    "triplet_margin_loss": Reference(
        triplet_margin,
        TRIPLET,
        TRIPLET,
        "ones",
        {"value": "margin, δ(a, p), δn", "anchor, positive, negative": "those of each δ'"},
        kind="rows",
        rows=TRIPLET,
    ),
    "ctc_loss": Reference(
        ctc,
        ("log_probs", *ALIGNED),
        ("log_probs",),
        "ones",
        {
            "value": "Σ|x| along the likeliest path; T/8 of 1",
            "log_probs": "16 exp(x), 16 times the posterior",
        },
        kind="sequences",
    ),
    "ctc_loss_with_logits": Reference(
        ctc_with_logits,
        ("logits", *ALIGNED),
        ("logits",),
        "ones",
        {
            "value": "Σ|log softmax(x)| along the likeliest path; T/8 of 1",
            "logits": "16 softmax(x), 16 times the posterior",
        },
        kind="sequences",
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
        averaged = reduction != "sum"
        divisor = call.divisor(reduction) if averaged else mpf(1)
        values = call.values.scaled(call.shares) if averaged else call.values
        value = values.gathered(np.zeros(len(call.kept), int), 1).over(divisor).at(0)
        return value, call.gradients(upstream * call.shares if averaged else upstream, divisor)


def sums(loss, arrays, options=None, dtype=None):
    """(sum, weight, count): what mean divides, by what, and the number of entries not removed."""
    call = _Call(loss, arrays, options, dtype)
    with mp.workprec(BITS):
        losses = call.values.value * call.shares
        return sum(losses, start=mpf(0)), call.divisor("mean"), int(call.kept.sum())


def posteriors(log_probs, targets, input_lengths, target_lengths, **options):
    """What `ctc_posteriors` returns, as a `Number` shaped like log_probs."""
    arrays = log_probs, targets, input_lengths, target_lengths
    call = _Call("ctc_loss", arrays, options, None, formula=ctc_posteriors)
    return call.arranged(call.entries["log_probs"])


def compute_dtype(loss, arrays):
    """The promotion of the floating operands, at least float32; integer inputs read as float64.

    Weights of all sorts, and Python numbers, do not take part.
    """
    reference = REFERENCES[_name(loss)]
    kinds = [a.dtype for a in arrays if hasattr(a, "dtype")]
    floating = [kind for kind in kinds if np.issubdtype(kind, np.floating)]
    named = zip(reference.operands, arrays, strict=True)
    inputs = (a for name, a in named if name in ("input", "input1", "input2", *TRIPLET))
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

    def __init__(self, loss, arrays, options, dtype, formula=None):
        self.options = options = dict(options or {})
        self.reference = reference = REFERENCES[_name(loss)]
        dtype = compute_dtype(loss, arrays) if dtype is None else np.dtype(dtype)
        arrays = [np.asarray(a, dtype if isinstance(a, float) else None) for a in arrays]
        self.arrays = dict(zip(reference.operands, arrays, strict=True))
        self.wrt, self.formula = reference.differentiable, formula or reference.formula
        if reference.soft:
            self._choose_formula()
        read = {
            "elements": self._read_elements,
            "rows": self._read_rows,
            "sequences": self._read_sequences,
        }[reference.kind]
        self.shares = mpf(1)  # k of an entry's k l, where mean divides by more than the divisor
        with mp.workprec(BITS):
            read(_in_type(self.formula, options, dtype))
            factor = np.where(self.kept, self.factor, mpf(0))
            self.values = _kept(self.values.scaled(factor), self.kept)

    def _choose_formula(self):
        """Floating targets are rows, with a gradient; the others are indices, without one."""
        if self.arrays["target"].dtype.kind not in "iu":
            self.formula = self.reference.soft
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
        self.kept = (weight != 0) & (samples != 0)
        self.factor = weight * samples
        self.divisors = self.factor if reference.divisor == "weight" else samples

    def _read_rows(self, scalars):
        reference, arrays = self.reference, dict(self.arrays)
        first = arrays[reference.rows[0]]
        axis = min(reference.axis, first.ndim - 1)
        for name in reference.rows:
            arrays[name] = np.moveaxis(arrays[name], axis, -1)
        rows = arrays[reference.rows[0]]
        self.shape, length = rows.shape[:-1], rows.shape[-1]
        self.arranged = lambda entries: Number(
            *(np.moveaxis(field.reshape(rows.shape), -1, axis) for field in entries)
        )
        for name in reference.extra:
            weight = self.options.get(name)
            arrays[name] = np.broadcast_to(1.0 if weight is None else weight, rows.shape)

        samples = self._weight(self.options.get("sample_weight"), leading=True)
        self.kept, self.factor, self.divisors = samples != 0, samples, samples
        if reference.extra and "target" not in reference.rows:
            picked = self._weights_of_targets(arrays["target"], arrays["weight"])
            if not dict(scalars).get("label_smoothing"):
                self.kept &= picked != 0
            if reference.divisor == "classes":
                self.divisors = samples * picked
        parts = tuple(
            (_frozen(a), length if name in (*reference.rows, *reference.extra) else None)
            for name, a in arrays.items()
        )
        self.values, self.entries = _rows(
            self.formula, self.wrt, parts, self.kept.tobytes(), length, scalars
        )

    def _weights_of_targets(self, target, weight):
        """The weight of each row's class; rows with the index to ignore are removed."""
        ignored = target.ravel() == self.options.get("ignore_index", -100)
        self.kept = self.kept & ~ignored
        chosen = np.where(self.kept, target.ravel(), 0).astype(np.int64)
        flat = weight.reshape(len(chosen), weight.shape[-1])
        if not flat.size:
            return _numbers(np.zeros(len(chosen)))
        return _numbers(np.where(self.kept, flat[np.arange(len(chosen)), chosen], 0.0))

    def _read_sequences(self, scalars):
        reference = self.reference
        x, y, *lengths = self.arrays.values()
        self.shape = x.shape[:-2] if self.options.get("batch_first") else x.shape[1:-1]
        axis = 1 if self.shape and not self.options.get("batch_first") else 0
        x = np.moveaxis(x, axis, 0)
        x = x.reshape(-1, *x.shape[-2:])
        frames, labels = (np.ravel(n).tolist() for n in lengths)
        if y.ndim == 1:  # one after the other
            ends = np.cumsum(labels)
            labels_of = [y[b - n : b].tolist() for b, n in zip(ends, labels, strict=True)]
        else:
            labels_of = [row[:n].tolist() for row, n in zip(y, labels, strict=True)]
        self.arranged = lambda entries: Number(
            *(
                np.moveaxis(field.reshape(x.shape), 0, axis)
                if self.shape
                else field.reshape(x.shape[1:])
                for field in entries
            )
        )
        samples = self._weight(self.options.get("sample_weight"), leading=True)
        self.kept, self.factor, self.divisors = samples != 0, samples, samples
        self.shares = _numbers(np.array([max(n, 1) for n in labels])) ** -1
        self.values, self.entries = _sequences(
            self.formula,
            reference.differentiable,
            _frozen(x),
            x.shape,
            tuple(frames),
            tuple(map(tuple, labels_of)),
            self.kept.tobytes(),
            scalars,
        )

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
        for name in self.wrt:
            entries = self.entries[name]
            by_row = entries.value.ndim == 2
            scales, kept = (v[:, None] if by_row else v for v in (scale, self.kept))
            entries = entries.scaled(scales)
            entries = _kept(entries if divisor is None else entries.over(divisor), kept)
            if by_row:
                gradients[name] = self.arranged(entries)
                continue
            array = self.arrays[name]
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
def _rows(formula, differentiable, parts, kept, length, scalars):
    """The formula at every row that is kept, the others being 0: flat values, gradients by row.

    `parts` are the operands with their entries per row, None where that is no row but a number.
    """
    operands = [(_thawed(a, int), size) for a, size in parts]
    kept = np.frombuffer(kept, bool)
    nothing = total(mpf(0)), dict.fromkeys(differentiable, [total(mpf(0))] * length)
    results = []
    for i, keep in enumerate(kept):
        entry = [a[i] if n is None else a[i * n : (i + 1) * n] for a, n in operands]
        results.append(formula(*entry, **dict(scalars)) if keep else nothing)
    gradients = {
        name: _columns([number for _, g in results for number in g[name]]).shaped(
            (len(kept), length)
        )
        for name in differentiable
    }
    return _columns([value for value, _ in results]), gradients


@lru_cache(maxsize=32)
def _sequences(formula, differentiable, frozen, shape, frames, labels, kept, scalars):
    """The formula at every sample that is kept; 0 for the others and after its last frame."""
    (name,), (samples, frames_in_all, classes) = differentiable, shape
    x = np.array([*_thawed(frozen), None], dtype=object)[:-1].reshape(shape)
    values, gradients = [], np.full(shape, None)
    gradients.fill(total(mpf(0)))
    for i, keep in enumerate(np.frombuffer(kept, bool)):
        value = total(mpf(0))
        if keep:
            result = formula(x[i, : frames[i]].tolist(), labels[i], **dict(scalars))
            value, gradient = result if isinstance(result, tuple) else (value, {name: result})
            for t, c in np.ndindex(frames[i], classes):
                gradients[i, t, c] = gradient[name][t][c]
        values.append(value)
    columns = _columns(list(gradients.ravel()))
    return _columns(values), {name: columns.shaped((samples, frames_in_all * classes))}


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
        elif isinstance(parameter.default, float):
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


def _thawed(frozen, integer=mpf):
    """The numbers of an array, integers as `integer`."""
    make = mpf if frozen[0] == "d" else integer
    return [make(v) for v in np.frombuffer(frozen[1], frozen[0]).tolist()]


def _numbers(array):
    return np.array(_thawed(_frozen(array)), dtype=object)
