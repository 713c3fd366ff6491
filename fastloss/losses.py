"""The losses: one function each gives name, signature and docstring; ``loss`` makes it a `Loss` object."""

import inspect

from fastloss._binding import Loss
from fastloss._errors import FINITE, FINITE_NONNEGATIVE, FRACTION, NONNEGATIVE, POSITIVE

_SPECIAL = ("weight", "pos_weight", "ignore_index")


def loss(formula, *, differentiable=("input", "target"), default_wrt=None, weight_divides=False, **rules):
    """Makes a `Loss` of a function whose parameters are arrays, then options, and whose body is a docstring.

    Parameters without default are the arrays. Of the options, numbers go to the formula in order and have a rule
    each; booleans choose the formula, by its name.
    """

    def make(function):
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        options = [p for p in parameters if p.default is not p.empty]
        operands = tuple(p.name for p in parameters if p.default is p.empty)
        made = Loss(
            name=function.__name__,
            formula=formula,
            operands=operands,
            positional=tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD),
            differentiable=differentiable,
            default_wrt=differentiable[:1] if default_wrt is None else default_wrt,
            numbers=[(p.name, p.default, rules[p.name]) for p in options if type(p.default) is float],
            flags=[(p.name, p.default) for p in options if type(p.default) is bool],
            special=[p.name for p in options if p.name in _SPECIAL],
            weight_divides=weight_divides,
            has_batchmean=function.__name__ == "kl_div",
        )
        common = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in ("sample_weight", "out")]
        made.__name__ = made.__qualname__ = function.__name__
        made.__module__ = "fastloss"
        made.__signature__ = signature.replace(parameters=[*parameters, *common])
        made.__doc__ = function.__doc__
        return made

    return make


@loss("l1", weight_divides=True)
def l1_loss(input, target, *, weight=None, reduction="mean"):
    """|x - y|"""


@loss("mse", weight_divides=True)
def mse_loss(input, target, *, weight=None, reduction="mean"):
    """(x - y)**2"""


@loss("smooth_l1", beta=NONNEGATIVE)
def smooth_l1_loss(input, target, *, reduction="mean", beta=1.0):
    """doc"""


@loss("huber", delta=POSITIVE)
def huber_loss(input, target, *, weight=None, reduction="mean", delta=1.0):
    """doc"""


@loss("log_cosh")
def log_cosh_loss(input, target, *, reduction="mean"):
    """doc"""


@loss("poisson_nll", eps=FINITE_NONNEGATIVE)
def poisson_nll_loss(input, target, *, log_input=True, full=False, eps=1e-8, reduction="mean"):
    """doc"""


@loss("gaussian_nll", differentiable=("input", "target", "var"), eps=FINITE_NONNEGATIVE)
def gaussian_nll_loss(input, target, var, *, full=False, eps=1e-6, reduction="mean"):
    """doc"""


@loss("kl_div")
def kl_div(input, target, *, reduction="mean", log_target=False):
    """doc"""


@loss("binary_cross_entropy")
def binary_cross_entropy(input, target, weight=None, *, reduction="mean"):
    """doc"""


@loss("binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(input, target, weight=None, *, reduction="mean", pos_weight=None):
    """doc"""


@loss("hinge_embedding", differentiable=("input",), margin=FINITE)
def hinge_embedding_loss(input, target, *, margin=1.0, reduction="mean"):
    """doc"""


@loss("soft_margin", differentiable=("input",))
def soft_margin_loss(input, target, *, reduction="mean"):
    """doc"""


@loss("margin_ranking", differentiable=("input1", "input2"), default_wrt=("input1", "input2"), margin=FINITE)
def margin_ranking_loss(input1, input2, target, *, margin=0.0, reduction="mean"):
    """doc"""


@loss("nll", differentiable=("input",))
def nll_loss(input, target, weight=None, *, ignore_index=-100, reduction="mean"):
    """doc"""


@loss("cross_entropy", differentiable=("input",), label_smoothing=FRACTION)
def cross_entropy(input, target, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """doc"""


__all__ = [name for name, value in globals().items() if isinstance(value, Loss)]
