"""Options: the values that a numeric option may have, arguments to differentiate, and out."""

import math
import operator

import numpy as np


class Constraint:
    """The values that a numeric option may have."""

    def __init__(self, description, accepts):
        self.description = description
        self.accepts = accepts

    def __repr__(self):
        return self.description


FINITE = Constraint("finite", math.isfinite)
POSITIVE = Constraint("positive", lambda v: v > 0)
NONNEGATIVE = Constraint("at least 0", lambda v: v >= 0)
FINITE_NONNEGATIVE = Constraint("finite and at least 0", lambda v: 0 <= v < math.inf)
FRACTION = Constraint("between 0 and 1", lambda v: 0 <= v <= 1)
FRACTION_OR_NONE = Constraint("between 0 and 1, or -1 for none", lambda v: 0 <= v <= 1 or v == -1)
ONE_OR_TWO = Constraint("1 or 2", lambda v: v in (1, 2))
# Close to 1 and 2 the general formula divides by nearly 0. The limits are the doubles next to their
# decimals: the difference 1.000001 - 1 of doubles is less than 1e-6.
TWEEDIE_POWER = Constraint(
    "between -1e6 and 1e6, not between 0 and 1, and either 1 or 2 or at least 1e-6 away from both",
    lambda v: -1e6 <= v <= 0 or v in (1, 2) or 1.000001 <= v <= 1.999999 or 2.000001 <= v <= 1e6,
)

# The power of a Tweedie deviance selects its formula: (suffix of the name, test), first match.
TWEEDIE_RANGES = (
    ("normal", lambda p: p == 0),
    ("poisson", lambda p: p == 1),
    ("gamma", lambda p: p == 2),
    ("root", lambda p: p == 1.5),
    ("negative", lambda p: p < 0),
    ("compound", lambda p: p < 2),
    ("positive", lambda p: p > 2),
)

# gamma = 2 has a formula of its own, which squares instead of calling pow.
FOCAL_RANGES = (("squared", lambda gamma: gamma == 2), ("", lambda gamma: True))


def number(name, value, constraint):
    """Return a numeric option as a float."""
    if type(value) is float and constraint.accepts(value):
        return value
    try:
        if isinstance(value, (str, bytes)) or np.ndim(value) > 0 or np.iscomplexobj(value):
            raise TypeError
        result = float(value)
    except TypeError:
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    except OverflowError:
        result = math.inf if value > 0 else -math.inf
    if not constraint.accepts(result):
        raise ValueError(f"{name} must be {constraint.description}, got {value!r}")
    return result


def flag(name, value):
    """Return a boolean option as a bool."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{name} must be True or False, got {value!r}")


def integer(name, value):
    """Return an integer option as an int that fits in 64 bits."""
    try:
        result = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if not -(2**63) <= result < 2**63:
        raise ValueError(f"{name} must fit in 64 bits, got {value!r}")
    return result


def wrt(loss, value):
    """Return the names of the arguments to differentiate with respect to, as a tuple."""
    names = ()
    if isinstance(value, (str, tuple, list)):
        names = (value,) if isinstance(value, str) else tuple(value)
    if not names:
        raise TypeError(f"wrt must be an argument's name or a tuple of names, got {value!r}")
    arguments = []  # the loss's own strings: a subclass of str could equal any
    for name in names:
        if not isinstance(name, str) or name not in loss.differentiable:
            raise ValueError(
                f"wrt={name!r}: {loss.__name__} has gradients for "
                + ", ".join(map(repr, loss.differentiable))
            )
        arguments.append(loss.differentiable[loss.differentiable.index(name)])
    if len(set(arguments)) != len(arguments):
        raise ValueError(f"wrt={value!r} names an argument twice")
    return tuple(arguments)


def split_out(out, values, grads):
    """Split `out` into (out of the values, out of the gradients), by which of them are returned."""
    if values and grads:
        if not isinstance(out, tuple) or len(out) != 2:
            raise TypeError("out must be a pair (values, gradients) with reduction='none'")
        return out
    if not values and not grads:
        raise ValueError("out holds the unreduced losses: it needs reduction='none'")
    return (out, None) if values else (None, out)


def grad_outs(out, wrt):
    """Return one out, or None, for each gradient."""
    if out is None:
        return (None,) * len(wrt)
    outs = tuple(out) if isinstance(out, (tuple, list)) else ()
    if len(outs) != len(wrt):
        raise TypeError(
            f"out must be a tuple of {len(wrt)} arrays, the gradients of {', '.join(wrt)}"
        )
    return outs
