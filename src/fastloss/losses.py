"""The losses: each function declares the name, signature and docstring of one `Loss` object."""

import inspect

from fastloss._binding import Loss
from fastloss._options import (
    FINITE,
    FINITE_NONNEGATIVE,
    FOCAL_RANGES,
    FRACTION,
    FRACTION_OR_NONE,
    NONNEGATIVE,
    ONE_OR_TWO,
    POSITIVE,
    TWEEDIE_POWER,
    TWEEDIE_RANGES,
)

__all__ = []  # the losses are added at the end

_SPECIAL = ("weight", "pos_weight", "ignore_index", "blank")

# Paragraphs that docstrings share. A line that consists of a placeholder, such as %(out)s, is
# replaced by the paragraph of that name; indented lines below it continue the paragraph.
_SHARED = {
    "predictions": """\
input : array_like, any shape
    Predictions x.
target : array_like, same shape as `input`
    Target values y.""",
    "reduction": """\
reduction : {%(reductions)s}, default "mean"
    "none" returns the unreduced losses l, "sum" their sum, and "mean" the sum divided by the number
    of losses. With `sample_weight` s, each l is multiplied by its s, and "mean" divides by the sum
    of s.""",
    "class_reduction": """\
reduction : {%(reductions)s}, default "mean"
    "none" returns the unreduced losses l, "sum" their sum, and "mean" the sum divided by the number
    of targets that are not ignored or, with `weight`, by the sum of their w[y]. With
    `sample_weight` s, each l is multiplied by its s, and "mean" divides by the sum of s w[y].""",
    "ctc_reduction": """\
reduction : {%(reductions)s}, default "mean"
    "none" returns the unreduced losses l, of shape (N,) or (), and "sum" their sum. "mean" divides
    each l by its target length, or by 1 if that is 0, and the sum of the quotients by N. With
    `sample_weight` s, each l is multiplied by its s, and "mean" divides by the sum of s instead of
    N.
zero_infinity : bool, default False
    Replace infinite losses and their NaN gradients by 0. A loss is infinite, for example, if the
    target is too long for the input. It still counts in the divisor of "mean".
batch_first : bool, default False
    Whether the batch is the first axis, as in (N, T, C), and the frames are the second.""",
    "weight": """\
weight : array_like, optional
    Factor w of each element, broadcast to the shape of `input`; not differentiable. A weight of 0
    excludes its element, even if that is NaN.""",
    "ctc_targets": """\
targets : array_like of integers, shape (N, S) or (sum of `target_lengths`,)
    Labels, of any integer dtype: classes from 0 to C - 1 other than `blank`. Either padded rows,
    whose entries beyond the target length are never read, or the concatenated labels of all
    samples.
input_lengths : array_like of integers, shape (N,) or ()
    Number of frames of each sample, from 0 to T; a scalar applies to every sample. Frames beyond it
    are never read and have gradient 0.
target_lengths : array_like of integers, shape (N,) or ()
    Number of labels of each sample, from 0 to S; a scalar applies to every sample.
blank : int, default 0
    Class index of the blank, which stands for no label.""",
    "class_weight": """\
weight : array_like, shape (C,), optional
    Factor w of each class; not differentiable. A weight of 0 excludes the rows whose target is that
    class, even if their scores are NaN.""",
    "ignore_index": """\
ignore_index : int, default -100
    Target value to ignore; it need not be a class. Ignored rows contribute nothing to the value,
    the gradient and the divisor of "mean", whatever their scores are.""",
    "sample_weight": """\
sample_weight : array_like, optional
    Factor s >= 0 of each loss, in the numerator and the divisor of "mean". It has the shape of the
    unreduced losses, or shape (N,): one weight per entry of their leading axis. Weights of 1 change
    nothing. A weight of 0 excludes its loss, even if that is NaN. If all weights are 0, "mean" is
    NaN and its gradient 0. "mean" does not depend on the scale of the weights; a sum that float64
    does not hold is an OverflowError.""",
    "out": """\
out : ndarray or tuple of ndarray, optional
    Array for the result, of its shape and dtype (float32 is accepted for float16 and bfloat16). In
    a plain call, it receives the losses and requires reduction="none". In ``grad``, it receives the
    gradient, and is a tuple if there are several. In ``value_and_grad``, it receives the gradient
    or gradients and, with reduction="none", is the pair (losses, gradients). It may be exactly the
    argument that it is the gradient of; any other overlap with an argument is an error. If the
    value is an OverflowError, ``out`` holds the gradient.""",
    "returns": """\
Returns
-------
float or ndarray
    For "mean" and "sum", a float in double precision, whatever the dtype of the arrays. For "none",
    an array of the shape of the losses, or a NumPy scalar if they are 0-d. ``.grad(...)`` returns
    the gradient of this value, and ``.value_and_grad(...)`` the pair of both, in one pass.
    ``.sums(...)`` returns ``(sum, weight, count)``: the numerator and the divisor of "mean", as
    floats, and the number of losses that are not excluded. All three can be added across batches.

Other Parameters
----------------
wrt : str or tuple of str, optional
    In ``grad`` and ``value_and_grad``: the name of the argument to differentiate with respect to,
    or a tuple of names, which returns a tuple of gradients. Gradients are available for
    %(names)s. Default: %(default)s.
grad_output : float or array_like, optional
    In ``grad`` and ``value_and_grad``: the upstream gradient, a scalar or, with reduction="none",
    an array of the shape of the losses. Default: 1.""",
    "errors": """\
TypeError
    For complex, object and masked arrays, gradients with respect to integer arrays, and
    unknown options.
ValueError
    For shapes that do not match, options out of range, and negative sample weights.""",
    "class_errors": """\
TypeError
    For an `input` that is not floating-point, a `target` that is not integer, complex, object and
    masked arrays, and unknown options.
ValueError
    For shapes that do not match, options out of range, and negative sample weights.""",
    "ctc_errors": """\
ClassIndexError
    For a label that is not a class. It is both a ValueError and an IndexError.
TypeError
    For scores that are not floating-point, labels and lengths that are not integers, complex,
    object and masked arrays, and unknown options.
ValueError
    For shapes and lengths that do not match, a label equal to `blank`, options out of range, and
    negative sample weights.""",
    "numerics": """\
Inputs and targets must have the same shape; only scalars and 0-d arrays broadcast. Losses are
computed in the common floating-point dtype of the arrays: float16 and bfloat16 in float32, an
integer or boolean input in float64. A gradient has the dtype and shape of its argument. NaN
propagates to the value and the gradient. Without elements, the sum is 0 and the mean NaN.""",
    "class_numerics": """\
The class axis is the second axis, or the only one. float16 and bfloat16 are computed in float32,
and the gradient has the dtype of `input`. If no row is left (there are none, or all are ignored or
have weight 0), "mean" is NaN and its gradient 0.""",
    "row_numerics": """\
A row is a slice along the last axis; the leading axes index the rows. float16 and bfloat16 are
computed in float32, and a gradient has the dtype and shape of its argument. NaN propagates to the
value and the gradient of its row. Without rows, the sum is 0 and the mean NaN.""",
    "accuracy": """\
Each loss is accurate to within 4 units in the last place (ULP) of the largest of the terms below,
and each derivative to within 4 ULP of the largest term of its own formula.""",
    "ctc_numerics": """\
A target of n labels with r consecutive repeats needs at least n + r frames. Sums over alignments
are computed in double precision, and neither overflow nor underflow. The gradient has the dtype and
shape of the scores. A NaN that a loss depends on propagates to that loss and to the gradient of its
sample. Without samples, the sum is 0 and the mean NaN.""",
}


def _documented(docstring, **substitutions):
    """Return the docstring without its indentation and with its placeholders replaced."""
    docstring = docstring or ""
    margin = docstring[docstring.rfind("\n") :]  # the indentation of the closing quotes
    lines = docstring.replace(margin, "\n").strip().split("\n")
    for i, line in enumerate(lines):
        if line.startswith("%(") and line.endswith(")s"):
            lines[i] = _SHARED[line[2:-2]] % substitutions
    return "\n".join(lines)


def _quoted(names):
    return ", ".join(f'"{name}"' for name in names)


def loss(
    formula,
    *,
    differentiable=("input", "target"),
    default_wrt=None,
    weight_divides=False,
    batchmean=False,
    shared_variance=False,
    probabilities=False,
    ranges=None,
    **constraints,
):
    """Make a `Loss` of a function that consists of a signature and a docstring.

    Parameters without a default are the arrays, the others the options. The numeric options, which
    have a constraint each, are passed to the formula in order. Each boolean option that is set
    appends its name to the name of the formula. With `ranges`, (suffix, test) each, the last
    numeric option selects the formula instead: the first test that holds gives the suffix.
    """

    def declare(function):
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        options = [p for p in parameters if p.default is not p.empty]
        operands = tuple(p.name for p in parameters if p.default is p.empty)
        result = Loss(
            name=function.__name__,
            formula=formula,
            operands=operands,
            positional=tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD),
            differentiable=differentiable,
            default_wrt=differentiable[:1] if default_wrt is None else default_wrt,
            numbers=[
                (p.name, p.default, constraints[p.name]) for p in options if p.name in constraints
            ],
            flags=[(p.name, p.default) for p in options if type(p.default) is bool],
            special=[p.name for p in options if p.name in _SPECIAL],
            weight_divides=weight_divides,
            batchmean=batchmean,
            shared_variance=shared_variance,
            probabilities=probabilities,
            ranges=ranges,
        )
        common = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
            for name in ("sample_weight", "out")
        ]
        result.__name__ = result.__qualname__ = function.__name__
        result.__module__ = "fastloss"
        result.__signature__ = signature.replace(parameters=[*parameters, *common])
        result.__doc__ = _documented(
            function.__doc__,
            reductions=_quoted(["mean", "sum", "none"] + ["batchmean"] * batchmean),
            names=_quoted(differentiable),
            default=_quoted(result.default_wrt),
        )
        return result

    return declare


# --- elementwise: regression ----------------------------------------------------------------------


@loss("l1", weight_divides=True)
def l1_loss(input, target, *, weight=None, reduction="mean"):
    """Absolute error (L1 loss).

    It is less sensitive to outliers than `mse_loss`: the best constant prediction is the median of
    the targets, not their mean.

    For x in `input` and y in `target`::

        l = w |x - y|        dl/dx = w sign(x - y)        dl/dy = -dl/dx

    Parameters
    ----------
    %(predictions)s
    %(weight)s
    %(reduction)s
        With `weight` w, "mean" divides by the sum of w, and with both by the sum of s w.
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: ``x - y``. At the kink, x = y, the gradient is 0.

    PyTorch returns gradient 0 for NaN, and accepts only weights of the shape of `input`.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.l1_loss([1.0, 2.0, 5.0], [1.0, 4.0, 1.0])
    2.0
    >>> fl.l1_loss.grad([1.0, 2.0, 5.0], [1.0, 4.0, 1.0], reduction="sum")
    array([ 0., -1.,  1.])
    >>> fl.l1_loss([1.0, 2.0, 5.0], [1.0, 4.0, 1.0], weight=[1, 2, 1])
    2.0
    """


@loss("mse", weight_divides=True)
def mse_loss(input, target, *, weight=None, reduction="mean"):
    """Squared error (L2 loss).

    It is the standard loss of regression: the best constant prediction is the mean of the targets.

    For x in `input` and y in `target`::

        l = w (x - y)^2        dl/dx = 2 w (x - y)        dl/dy = -dl/dx

    Parameters
    ----------
    %(predictions)s
    %(weight)s
    %(reduction)s
        With `weight` w, "mean" divides by the sum of w, and with both by the sum of s w.
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: ``(x - y)^2``.

    PyTorch broadcasts (N, 1) against (N,) to (N, N) with a warning, and accepts only weights of the
    shape of `input`.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.mse_loss([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], reduction="none")
    array([1., 4., 9.])
    >>> fl.mse_loss([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], weight=[1, 0, 3])
    7.0
    >>> fl.mse_loss.value_and_grad([1.0, 2.0, 3.0], 0.0, weight=[1, 0, 3])
    (7.0, array([0.5, 0. , 4.5]))
    >>> fl.mse_loss.sums([1.0, 2.0, 3.0], 0.0, weight=[1, 0, 3])
    (28.0, 4.0, 2)
    """


@loss("smooth_l1", beta=NONNEGATIVE)
def smooth_l1_loss(input, target, *, reduction="mean", beta=1.0):
    """Absolute error, quadratic for errors smaller than beta.

    It grows like `l1_loss` for large errors but is smooth at 0, and is common in the regression of
    bounding boxes.

    For x in `input`, y in `target` and d = x - y::

        l = d^2 / (2 beta)     dl/dx = d / beta     where |d| < beta
        l = |d| - beta/2       dl/dx = sign(d)      elsewhere;         dl/dy = -dl/dx

    Parameters
    ----------
    %(predictions)s
    %(reduction)s
    beta : float, default 1.0
        Error at which the loss changes from quadratic to linear, at least 0. With 0, this is
        `l1_loss`.
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: ``d^2 / (2 beta)``, or ``d`` and ``beta/2``. The loss equals
    ``huber_loss(..., delta=beta) / beta``.

    Unlike in PyTorch, intermediate results overflow or underflow only if the loss itself does.

    References
    ----------
    Girshick, "Fast R-CNN", ICCV 2015.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.smooth_l1_loss([0.0, 0.5, 3.0], 0.0, reduction="none")
    array([0.   , 0.125, 2.5  ])
    >>> fl.smooth_l1_loss.grad([0.0, 0.5, 3.0], 0.0, reduction="sum")
    array([0. , 0.5, 1. ])
    """


@loss("huber", delta=POSITIVE)
def huber_loss(input, target, *, weight=None, reduction="mean", delta=1.0):
    """Squared error, linear for errors larger than delta.

    Use it for regression with outliers: it is quadratic close to the target, like `mse_loss`, and
    linear far from it, like `l1_loss`.

    For x in `input`, y in `target` and d = x - y::

        l = w d^2 / 2                   dl/dx = w d                where |d| <= delta
        l = w delta (|d| - delta/2)     dl/dx = w delta sign(d)    elsewhere;    dl/dy = -dl/dx

    Parameters
    ----------
    %(predictions)s
    %(weight)s
    %(reduction)s
        `weight` does not affect the divisor of "mean".
    delta : float, default 1.0
        Error at which the loss changes from quadratic to linear, above 0. Infinity gives half the
        squared error.
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: ``d^2 / 2``, or ``delta d`` and ``delta^2 / 2``. The loss equals
    ``delta * smooth_l1_loss(..., beta=delta)``.

    References
    ----------
    Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35, 1964.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.huber_loss([0.5, 1.0, 4.0], 0.0, delta=2.0, reduction="none")
    array([0.125, 0.5  , 6.   ])
    >>> fl.huber_loss.grad([0.5, 1.0, 4.0], 0.0, delta=2.0, reduction="sum")
    array([0.5, 1. , 2. ])
    """


@loss("log_cosh")
def log_cosh_loss(input, target, *, reduction="mean"):
    """Logarithm of the hyperbolic cosine of the error.

    It is a smooth alternative to `huber_loss`, close to ``(x - y)^2 / 2`` for small errors and to
    ``|x - y| - log 2`` for large ones.

    For x in `input` and y in `target`::

        l = log cosh(x - y)        dl/dx = tanh(x - y)        dl/dy = -dl/dx

    Parameters
    ----------
    %(predictions)s
    %(reduction)s
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: the loss itself. Large errors do not overflow.

    PyTorch has no such loss.

    References
    ----------
    Green, "Bayesian reconstructions from emission tomography data using a modified EM algorithm",
    IEEE Transactions on Medical Imaging 9, 1990.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.log_cosh_loss([0.0, 1.0, 1000.0], 0.0, reduction="none")
    array([0.00000000e+00, 4.33780830e-01, 9.99306853e+02])
    >>> fl.log_cosh_loss.grad([0.0, 1.0, 1000.0], 0.0, reduction="sum")
    array([0.        , 0.76159416, 1.        ])
    """


@loss("pinball", quantile=FRACTION)
def pinball_loss(input, target, *, quantile=0.5, reduction="mean"):
    """Quantile loss: the absolute error, weighted by its sign.

    It is the loss of quantile regression: its mean is smallest where a fraction q of the targets is
    below the prediction.

    For x in `input`, y in `target` and q = quantile::

        l = q (y - x)          dl/dx = -q       where x < y
        l = (1 - q) (x - y)    dl/dx = 1 - q    where x > y;    dl/dy = -dl/dx

    Parameters
    ----------
    input : array_like, any shape
        Predicted quantiles x.
    target : array_like, same shape as `input`
        Target values y.
    quantile : float, default 0.5
        Quantile q to predict, from 0 to 1. With 0.5, the median, the loss is half of `l1_loss`.
    %(reduction)s
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: the loss itself. At the kink, x = y, the gradient is 0.

    PyTorch has no such loss. scikit-learn's ``mean_pinball_loss`` calls the quantile alpha.

    References
    ----------
    Koenker and Bassett, "Regression quantiles", Econometrica 46, 1978.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.pinball_loss([1.0, 2.0, 5.0], [2.0, 2.0, 1.0], quantile=0.75, reduction="none")
    array([0.75, 0.  , 1.  ])
    >>> fl.pinball_loss.grad([1.0, 2.0, 5.0], [2.0, 2.0, 1.0], quantile=0.75, reduction="sum")
    array([-0.75,  0.  ,  0.25])
    """


# --- elementwise: likelihoods and divergences -----------------------------------------------------


@loss("poisson_nll", eps=FINITE_NONNEGATIVE)
def poisson_nll_loss(input, target, *, log_input=True, full=False, eps=1e-8, reduction="mean"):
    """Poisson negative log-likelihood, given (log) rates.

    Use it for regression on counts.

    For x in `input` and y in `target`::

        l = exp(x) - y x          dl/dx = exp(x) - y           dl/dy = -x    with log_input
        l = x - y log(x + eps)    dl/dx = 1 - y / (x + eps)    dl/dy = -log(x + eps)    without

    This leaves out the term log(y!) of the likelihood, which does not depend on x. `full` adds
    Stirling's approximation of it where y > 1::

        y log y - y + log(2 pi y) / 2        and to dl/dy        log y + 1 / (2 y)

    Parameters
    ----------
    input : array_like, any shape
        Logarithms x of the expected counts. Without `log_input`, the expected counts themselves, at
        least 0.
    target : array_like, same shape as `input`
        Observed counts y, at least 0; they need not be integers.
    log_input : bool, default True
        Whether `input` holds logarithms.
    full : bool, default False
        Whether to add the approximation of log(y!).
    eps : float, default 1e-08
        Added to a rate before its logarithm is taken, at least 0. Has no effect with `log_input`.
    %(reduction)s
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s
        Also for a negative count or rate.

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: ``exp(x)`` and ``y x``; or ``x``, ``y log(x + eps)`` and ``y``; with `full` also
    ``y log y``, ``y`` and ``log(2 pi y) / 2``.

    A count of 0 at rate 0 has loss 0, also if x is -inf, where PyTorch returns NaN. PyTorch accepts
    negative counts and rates and, with `full`, returns a NaN gradient with respect to a target of
    0.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.poisson_nll_loss([0.0, 1.0, 2.0], [0.0, 1.0, 2.0], reduction="none")
    array([1.        , 1.71828183, 3.3890561 ])
    >>> fl.poisson_nll_loss.grad([0.0, 1.0, 2.0], [1.0, 1.0, 2.0], reduction="sum")
    array([0.        , 1.71828183, 5.3890561 ])
    >>> fl.poisson_nll_loss([1.0, 2.0], [0.0, 2.0], log_input=False, reduction="none")
    array([1.        , 0.61370563])
    """


@loss(
    "gaussian_nll",
    differentiable=("input", "target", "var"),
    shared_variance=True,
    eps=FINITE_NONNEGATIVE,
)
def gaussian_nll_loss(input, target, var, *, full=False, eps=1e-6, reduction="mean"):
    """Gaussian negative log-likelihood, given means and variances.

    Use it for models that predict a variance along with each mean.

    For x in `input`, y in `target`, z in `var` and v = max(z, eps)::

        l = (log v + (x - y)^2 / v) / 2        dl/dx = (x - y) / v        dl/dy = -dl/dx
                                               dl/dz = (1 / v - (x - y)^2 / v^2) / 2

    `full` adds log(2 pi) / 2 to l.

    Parameters
    ----------
    input : array_like, any shape
        Predicted means x.
    target : array_like, same shape as `input`
        Observed values y.
    var : array_like
        Variances z, at least 0. A scalar, or an array of the shape of `input`, of that shape
        without its last axis (one variance per row), or of that shape with a 1 in place of one
        axis.
    full : bool, default False
        Whether to add the constant term.
    eps : float, default 1e-06
        Lower bound of the variance, at least 0.
    %(reduction)s
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s
        Also for a negative variance.

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: ``log(v) / 2``, ``(x - y)^2 / (2 v)`` and, with `full`, ``log(2 pi) / 2``.

    As in PyTorch, the gradient with respect to `var` ignores the lower bound: where z < eps, it is
    the derivative at v. The gradient of a shared variance is the sum over the elements that share
    it. PyTorch does not accept an integer `var`.

    References
    ----------
    Nix and Weigend, "Estimating the mean and variance of the target probability distribution",
    ICNN 1994.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.gaussian_nll_loss([1.0, 2.0], [0.0, 2.0], [1.0, 1.0], reduction="none")
    array([0.5, 0. ])
    >>> x, y = [[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 3.0]]
    >>> fl.gaussian_nll_loss.grad(x, y, [1.0, 2.0], wrt=("input", "var"), reduction="sum")
    (array([[0. , 0. ],
           [0. , 0.5]]), array([1.   , 0.375]))
    """


@loss("gamma_nll")
def gamma_nll_loss(input, target, *, log_input=True, reduction="mean"):
    """Gamma negative log-likelihood, given (log) means.

    Use it for regression on positive, skewed targets such as durations or costs.

    For x in `input` and y in `target`::

        l = x + y exp(-x)    dl/dx = 1 - y exp(-x)      dl/dy = exp(-x)    with log_input
        l = log x + y / x    dl/dx = (x - y) / x^2      dl/dy = 1 / x      without

    This is the part of the negative log-likelihood that depends on the mean, divided by the shape
    parameter.

    Parameters
    ----------
    input : array_like, any shape
        Logarithms x of the predicted means. Without `log_input`, the means themselves, above 0.
    target : array_like, same shape as `input`
        Observed values y, above 0.
    log_input : bool, default True
        Whether `input` holds logarithms.
    %(reduction)s
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s
        Also for a target or mean that is not above 0.

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: ``x`` and ``y exp(-x)``, or ``log x`` and ``y / x``. Without `log_input`, twice
    ``l - log y - 1`` is ``tweedie_deviance_loss(..., power=2)``.

    PyTorch has no such loss.

    References
    ----------
    McCullagh and Nelder, "Generalized Linear Models", 2nd edition, 1989, chapter 8.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.gamma_nll_loss([0.0, 0.0, 2.0], [1.0, 3.0, 1.0], reduction="none")
    array([1.        , 3.        , 2.13533528])
    >>> fl.gamma_nll_loss.grad([0.0, 0.0], [1.0, 3.0], reduction="sum")
    array([ 0., -2.])
    >>> fl.gamma_nll_loss([1.0, 2.0], [3.0, 4.0], log_input=False, reduction="none")
    array([3.        , 2.69314718])
    """


@loss("tweedie_deviance", power=TWEEDIE_POWER, ranges=TWEEDIE_RANGES)
def tweedie_deviance_loss(input, target, *, power=0.0, reduction="mean"):
    """Unit deviance of Tweedie distributions (normal, Poisson, gamma).

    Use it for generalised linear models in which the variance is proportional to a power of the
    mean.

    For x in `input`, y in `target` and p = power::

        l = (x - y)^2                                                            where p = 0
        l = 2 (y log(y/x) - y + x)                                               where p = 1
        l = 2 (log(x/y) + y/x - 1)                                               where p = 2
        l = 2 (max(y, 0)^(2 - p) / ((1 - p) (2 - p)) - y x^(1 - p) / (1 - p) + x^(2 - p) / (2 - p))

        dl/dx = 2 (x - y) / x^p        dl/dy = 2 (max(y, 0)^(1 - p) - x^(1 - p)) / (1 - p)

    where dl/dy is 2 (y - x) for p = 0 and 2 log(y/x) for p = 1.

    Parameters
    ----------
    input : array_like, any shape
        Predicted means x, above 0; any value if `power` is 0.
    target : array_like, same shape as `input`
        Observed values y: above 0 if `power` is at least 2, at least 0 if it is at least 1, and any
        value otherwise.
    power : float, default 0.0
        Exponent p of the variance, which is proportional to x^p: at most 0 or at least 1, at most
        1e6 in absolute value, and either 1 or 2 or at least 1e-6 away from both. 0 gives the
        normal, 1 the Poisson, 2 the gamma and 3 the inverse Gaussian distribution; values between 1
        and 2 give compound Poisson-gamma distributions.
    %(reduction)s
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s
        Also for an input or target outside the range that `power` allows.

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: the summands of the formula. With powers from 1, the gradient with respect to a target of
    0 is -inf.

    PyTorch has no such loss. The mean equals scikit-learn's ``mean_tweedie_deviance``, which takes
    the targets first.

    References
    ----------
    Jørgensen, "The Theory of Dispersion Models", 1997.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.tweedie_deviance_loss([2.0, 2.0, 2.0], [0.0, 2.0, 4.0], power=1, reduction="none")
    array([4.        , 0.        , 1.54517744])
    >>> fl.tweedie_deviance_loss.grad([2.0, 2.0, 2.0], [0.0, 2.0, 4.0], power=1, reduction="sum")
    array([ 2.,  0., -2.])
    >>> fl.tweedie_deviance_loss([2.0, 1.0], [1.0, 2.0], power=3, reduction="none")
    array([0.25, 0.5 ])
    """


@loss("kl_div", batchmean=True)
def kl_div(input, target, *, reduction="mean", log_target=False):
    """Kullback-Leibler divergence, from log-probabilities.

    It compares predicted with target distributions: log-probabilities in `input` with
    probabilities in `target` (log-probabilities with `log_target`). Use reduction="batchmean" to
    average over distributions.

    For x in `input` and y in `target`::

        l = y (log y - x)         dl/dx = -y         dl/dy = log y + 1 - x
        l = exp(y) (y - x)        dl/dx = -exp(y)    dl/dy = exp(y) (y - x + 1)    with log_target

    Parameters
    ----------
    input : array_like, any shape
        Predicted log-probabilities x.
    target : array_like, same shape as `input`
        Target probabilities y, at least 0. With `log_target`, their logarithms.
    %(reduction)s
        "batchmean" divides by the length of the leading axis instead: if each row is a
        distribution, it is the mean divergence.
    log_target : bool, default False
        Whether `target` holds logarithms.
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s
        Also for a negative target without `log_target`.

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: ``y log y`` and ``y x``, or ``exp(y) (y - x)``. Probabilities are not checked to sum to
    1.

    Where the target probability is 0, the loss is 0 for any x but NaN; PyTorch returns NaN if x is
    infinite. The gradient with respect to such a target is its limit, -inf (NaN if x is -inf as
    well; 0 with `log_target`); PyTorch returns NaN. As in PyTorch, "mean" divides by the number of
    elements, so it is not the mean divergence: that is "batchmean". Unlike PyTorch, it does not
    warn.

    References
    ----------
    Kullback and Leibler, "On information and sufficiency", Annals of Mathematical Statistics
    22, 1951.

    Examples
    --------
    >>> import fastloss as fl
    >>> x, y = [[-1.0, -2.0], [-1.0, -1.0]], [[0.5, 0.5], [0.0, 1.0]]
    >>> fl.kl_div(x, y, reduction="none")
    array([[0.15342641, 0.65342641],
           [0.        , 1.        ]])
    >>> round(fl.kl_div(x, y, reduction="batchmean"), 6)
    0.903426
    >>> fl.kl_div.grad(x, y, reduction="batchmean")
    array([[-0.25, -0.25],
           [-0.  , -0.5 ]])
    """


# --- elementwise: two classes ---------------------------------------------------------------------


@loss("binary_cross_entropy")
def binary_cross_entropy(input, target, weight=None, *, reduction="mean"):
    """Binary cross entropy, from probabilities.

    If logits are available, use `binary_cross_entropy_with_logits`, which is more accurate and
    needs no bounds. Logits outside [0, 1] are an error here; others would be read as probabilities.

    For x in `input` and y in `target`::

        l = -w (y log x + (1 - y) log(1 - x))        logarithms below -100 count as -100
        dl/dx = w (x - y) / (x (1 - x))              denominators below 1e-12 count as 1e-12
        dl/dy = w (log(1 - x) - log x)

    Parameters
    ----------
    input : array_like, any shape
        Predicted probabilities x of the positive class, between 0 and 1.
    target : array_like, same shape as `input`
        Target probabilities y, between 0 and 1; usually labels 0 and 1.
    %(weight)s
    %(reduction)s
        `weight` does not affect the divisor of "mean".
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s
        Also for an input or target outside [0, 1].

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: ``y log x`` and ``(1 - y) log(1 - x)``.

    The bounds match PyTorch: a certain but wrong prediction has loss 100 and a gradient of
    magnitude 1e12 (1e-12 is rounded to float32). The gradient with respect to `target` is not
    bounded. `binary_cross_entropy_with_logits` needs no bounds, and is accurate where x would round
    to 0 or 1.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.binary_cross_entropy([0.5, 0.75, 0.0], [1, 1, 1], reduction="none")
    array([  0.69314718,   0.28768207, 100.        ])
    >>> fl.binary_cross_entropy.grad([0.5, 0.75], [1, 0], reduction="sum")
    array([-2.,  4.])
    """


@loss("binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(
    input, target, weight=None, *, reduction="mean", pos_weight=None
):
    """Binary cross entropy, from logits.

    It is the standard loss for two classes and for labels that are not mutually exclusive, and
    equals `binary_cross_entropy` of sigma(x), without rounding that probability and without bounds.
    For probabilities, use `binary_cross_entropy`: here sigma would be applied to them, and the loss
    of a certain prediction would be log 2 for y = 0 and log(1 + 1/e) for y = 1 instead of 0.

    For x in `input`, y in `target`, sigma(x) = 1 / (1 + exp(-x)) and softplus(x) =
    log(1 + exp(x))::

        l = w ((1 - y) softplus(x) + p y softplus(-x))
        dl/dx = w ((1 - y) sigma(x) - p y sigma(-x))
        dl/dy = w (p softplus(-x) - softplus(x))

    Parameters
    ----------
    input : array_like, any shape
        Logits x: the predicted probability of the positive class is sigma(x).
    target : array_like, same shape as `input`
        Target probabilities y, between 0 and 1; usually labels 0 and 1.
    %(weight)s
    %(reduction)s
        Neither `weight` nor `pos_weight` affects the divisor of "mean".
    pos_weight : array_like, optional
        Factor p of the positive class, broadcast to the shape of `input`: one per label if the last
        axis holds labels. Values above 1 increase recall, values below 1 increase precision; 0
        removes the elements whose target is 1.
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s
        Also for a target outside [0, 1].

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: ``(1 - y) softplus(x)`` and ``p y softplus(-x)``. Both have the same sign, so a small
    loss keeps full relative accuracy.

    PyTorch returns NaN for an infinite logit of the correct sign, where the loss is 0, and accepts
    targets outside [0, 1].

    References
    ----------
    Cox, "The regression analysis of binary sequences", Journal of the Royal Statistical Society B
    20, 1958.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.binary_cross_entropy_with_logits([0.0, 2.0, -1000.0], [1, 1, 1], reduction="none")
    array([6.93147181e-01, 1.26928011e-01, 1.00000000e+03])
    >>> fl.binary_cross_entropy_with_logits.grad([0.0, 0.0], [1, 0], pos_weight=3, reduction="sum")
    array([-1.5,  0.5])
    """


@loss(
    "sigmoid_focal",
    alpha=FRACTION_OR_NONE,
    gamma=FINITE_NONNEGATIVE,
    ranges=FOCAL_RANGES,
)
def sigmoid_focal_loss(input, target, *, alpha=0.25, gamma=2.0, reduction="mean"):
    """Binary cross entropy that gives easy elements less weight.

    Use it for strongly imbalanced classes, such as objects and background in object detection. It
    takes logits; for probabilities p, pass log(p / (1 - p)).

    For x in `input`, y in `target`, sigma(x) = 1 / (1 + exp(-x)) and softplus(x) =
    log(1 + exp(x)), with the predicted probability m of the wrong class and the cross entropy h::

        l = a m^gamma h
        m = (1 - y) sigma(x) + y sigma(-x)          h = (1 - y) softplus(x) + y softplus(-x)
        a = (1 - y) (1 - alpha) + y alpha           1 if alpha is -1

        dl/dx = a m^(gamma - 1) (m h' + gamma m' h)
        m' = (1 - 2 y) sigma(x) sigma(-x)           h' = (1 - y) sigma(x) - y sigma(-x)

        dl/dy = da/dy m^gamma h + a gamma m^(gamma - 1) (sigma(-x) - sigma(x)) h - a m^gamma x

    where da/dy = 2 alpha - 1, or 0 if alpha is -1.

    Parameters
    ----------
    input : array_like, any shape
        Logits x: the predicted probability of the positive class is sigma(x).
    target : array_like, same shape as `input`
        Target probabilities y, between 0 and 1; usually labels 0 and 1.
    alpha : float, default 0.25
        Weight of the positive class, from 0 to 1; the negative class has weight 1 - alpha. With -1,
        both classes have weight 1.
    gamma : float, default 2.0
        Focusing parameter, finite and at least 0: the larger it is, the less weight easy elements
        have. With 0, this is `binary_cross_entropy_with_logits`, weighted by alpha.
    %(reduction)s
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s
        Also for a target outside [0, 1].

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: the loss itself if the target is 0 or 1, otherwise the summands of its formulas.

    In PyTorch the loss is ``torchvision.ops.sigmoid_focal_loss``, whose default of `reduction` is
    "none". There any negative alpha means no weights, and targets outside [0, 1] are accepted.

    References
    ----------
    Lin, Goyal, Girshick, He and Dollár, "Focal loss for dense object detection", ICCV 2017.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.sigmoid_focal_loss([0.0, 0.0, 4.0], [1, 0, 1], reduction="none")
    array([4.33216988e-02, 1.29965096e-01, 1.46789243e-06])
    >>> fl.sigmoid_focal_loss([0.0, 2.0], [1, 1], alpha=-1, gamma=0, reduction="none")
    array([0.69314718, 0.12692801])
    >>> fl.sigmoid_focal_loss.grad([0.0, 0.0], [1, 0], gamma=0, reduction="sum")
    array([-0.125,  0.375])
    """


@loss("soft_margin", differentiable=("input",))
def soft_margin_loss(input, target, *, reduction="mean"):
    """Logistic loss for labels -1 and 1.

    It equals `binary_cross_entropy_with_logits` with the label -1 in place of 0, and takes logits.

    For x in `input` and y in `target`::

        l = log(1 + exp(-y x))        dl/dx = -y / (1 + exp(y x))

    Parameters
    ----------
    input : array_like, any shape
        Scores x, positive for class 1.
    target : array_like, same shape as `input`
        Labels y, -1 or 1.
    %(reduction)s
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s
        Also for a label that is not -1 or 1.

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: the loss itself. A score far on the wrong side has a loss equal to its magnitude; from 89
    (float32) or 710 (float64), PyTorch returns infinity and a NaN gradient. PyTorch accepts any
    label.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.soft_margin_loss([0.0, 2.0, -1000.0], [1, 1, 1], reduction="none")
    array([6.93147181e-01, 1.26928011e-01, 1.00000000e+03])
    >>> fl.soft_margin_loss.grad([0.0, 0.0, -1000.0], [1, -1, 1], reduction="sum")
    array([-0.5,  0.5, -1. ])
    """


# --- elementwise: pairs ---------------------------------------------------------------------------


@loss("hinge_embedding", differentiable=("input",), margin=FINITE)
def hinge_embedding_loss(input, target, *, margin=1.0, reduction="mean"):
    """Distance of similar pairs, hinge loss of dissimilar pairs.

    Use it for metric learning: it pulls similar pairs together and pushes dissimilar pairs apart,
    up to a margin.

    For x in `input` and y in `target`::

        l = x                     dl/dx = 1                          where y = 1
        l = max(0, margin - x)    dl/dx = -1 if x <= margin else 0   where y = -1

    Parameters
    ----------
    input : array_like, any shape
        Distances x of pairs.
    target : array_like, same shape as `input`
        Labels y: 1 for similar pairs, -1 for dissimilar pairs.
    margin : float, default 1.0
        Distance beyond which a dissimilar pair has loss 0, finite.
    %(reduction)s
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s
        Also for a label that is not -1 or 1.

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: ``x``, or ``margin - x``. At the kink, x = margin, the gradient is -1, as in PyTorch.

    PyTorch computes max(x, margin) for a label that is neither 1 nor -1, and returns gradient 0 for
    NaN.

    References
    ----------
    Hadsell, Chopra and LeCun, "Dimensionality reduction by learning an invariant mapping", CVPR
    2006, squares both cases.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.hinge_embedding_loss([0.5, 0.25, 2.0], [1, -1, -1], reduction="none")
    array([0.5 , 0.75, 0.  ])
    >>> fl.hinge_embedding_loss.grad([0.5, 0.25, 2.0], [1, -1, -1], reduction="sum")
    array([ 1., -1.,  0.])
    """


@loss(
    "margin_ranking",
    differentiable=("input1", "input2"),
    default_wrt=("input1", "input2"),
    margin=FINITE,
)
def margin_ranking_loss(input1, input2, target, *, margin=0.0, reduction="mean"):
    """Hinge loss on the score difference of ranked pairs.

    Use it to learn rankings: the better item of a pair must score higher by at least the margin.

    For a in `input1`, b in `input2` and y in `target`::

        l = max(0, g),  g = margin - y (a - b)    dl/da = -y if g >= 0 else 0    dl/db = -dl/da

    Parameters
    ----------
    input1, input2 : array_like, any shape, the same
        Scores a and b.
    target : array_like, same shape as `input1`
        Labels y: 1 if a should be larger, -1 if b should.
    margin : float, default 0.0
        Score difference beyond which a correctly ranked pair has loss 0, finite.
    %(reduction)s
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s
        Also for a label that is not -1 or 1.

    Notes
    -----
    %(numerics)s

    %(accuracy)s
    Terms: ``a - b`` and ``margin``. At the kink, g = 0, the gradient is not 0, as in PyTorch: with
    margin 0, tied scores are pushed apart.

    PyTorch accepts any label, returns the wrong sign for unsigned labels, and returns gradient 0
    for NaN. Unlike PyTorch, there is no gradient with respect to `target`.

    References
    ----------
    Herbrich, Graepel and Obermayer, "Large margin rank boundaries for ordinal regression", Advances
    in Large Margin Classifiers, 2000.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.margin_ranking_loss([3.0, 1.0], [1.0, 2.0], [1, 1], margin=0.5, reduction="none")
    array([0. , 1.5])
    >>> fl.margin_ranking_loss.grad([1.0, 1.0], [2.0, 2.0], [1, 1], reduction="sum")
    (array([-1., -1.]), array([1., 1.]))
    """


# --- cross_entropy --------------------------------------------------------------------------------


@loss(
    "cross_entropy",
    differentiable=("input", "target"),
    default_wrt=("input",),
    weight_divides=True,
    probabilities=True,
    label_smoothing=FRACTION,
)
def cross_entropy(
    input, target, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    """Cross entropy of class indices or probabilities, from logits.

    It is the standard loss for mutually exclusive classes, and equals `nll_loss` of the log-softmax
    of the logits. For a model that returns probabilities, use `nll_loss` of their logarithms:
    `cross_entropy` would apply softmax to the probabilities, and the loss of a certain prediction
    would be log(1 + (C - 1)/e) instead of 0.

    For a row x of `input`, its class y in `target` and softmax s[c] = exp(x[c]) / sum_j exp(x[j]),
    where [c = y] is 1 if c is y and 0 otherwise::

        l = -w[y] log s[y]        dl/dx[c] = w[y] (s[c] - [c = y])

    and with smoothing e = label_smoothing::

        l = -sum_c q[c] log s[c],    q[c] = w[c] ((1 - e) [c = y] + e/C)
        dl/dx[c] = s[c] sum_j q[j] - q[c]

    If `target` holds class probabilities y[c] instead, l and dl/dx are the same with::

        q[c] = w[c] ((1 - e) y[c] + e/C)        dl/dy[c] = -(1 - e) w[c] log s[c]

    Parameters
    ----------
    input : array_like, shape (C,), (N, C) or (N, C, d1, ..., dK)
        Logits x of C classes, floating-point.
    target : array_like, shape (), (N,) or (N, d1, ..., dK), or the shape of `input`
        Class indices y, from 0 to C - 1, of any integer dtype. Or, of floating-point dtype and the
        shape of `input`, class probabilities y[c], at least 0, which need not sum to 1.
    %(class_weight)s
        With label smoothing or probabilities, it only removes the terms of that class, and NaN
        propagates.
    %(ignore_index)s
        It does not apply to probabilities, with which a value of 0 or more is an error.
    %(class_reduction)s
        Label smoothing does not affect the divisor. With probabilities, it is the number of rows,
        or the sum of s.
    label_smoothing : float, default 0.0
        Fraction e of each target that is distributed evenly over all classes, from 0 to 1.
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    ClassIndexError
        For a target that is neither a class nor `ignore_index`. It is both a ValueError and an
        IndexError.
    TypeError
        For an `input` that is not floating-point, a `target` of the wrong dtype for its shape, a
        gradient with respect to class indices, complex, object and masked arrays, and unknown
        options.
    ValueError
        For shapes that do not match, negative probabilities, options out of range, and negative
        sample weights.

    Notes
    -----
    %(class_numerics)s

    %(accuracy)s
    Terms: ``log s[y]`` or ``q[c] log s[c]``. All have the same sign, and log s[y] is computed
    without subtracting the largest logit from a sum that contains it, so the loss of a confident
    prediction keeps full relative accuracy (PyTorch rounds it to 0). The bound grows by half a ULP
    per unit of ``max x - x[c]``, a difference that is rounded before exp.

    PyTorch accepts only int64 and, in some cases, uint8 targets, treats a negative
    `label_smoothing` as 0, and returns a NaN gradient for an ignored row that contains NaN and if
    all weights are 0. It accepts negative probabilities, and returns a NaN loss for probability 0
    of a class whose logit is -inf, which contributes 0 here.

    References
    ----------
    Label smoothing: Szegedy and others, "Rethinking the Inception architecture for computer
    vision", CVPR 2016.

    Examples
    --------
    >>> import fastloss as fl
    >>> x = [[1.0, 2.0, 3.0], [4.0, 1.0, 0.0]]
    >>> fl.cross_entropy(x, [0, 2], reduction="none")
    array([2.40760596, 4.0658839 ])
    >>> round(fl.cross_entropy(x, [0, 2]), 6)
    3.236745
    >>> round(fl.cross_entropy(x, [0, 2], [1, 2, 3], label_smoothing=0.1), 6)
    3.493191
    >>> fl.cross_entropy.grad(x, [0, -100])
    array([[-0.90996943,  0.24472847,  0.66524096],
           [ 0.        ,  0.        ,  0.        ]])
    >>> fl.cross_entropy(x, [[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]], reduction="none")
    array([1.10760596, 3.5658839 ])
    """


# --- nll ------------------------------------------------------------------------------------------


@loss("nll", differentiable=("input",), weight_divides=True)
def nll_loss(input, target, weight=None, *, ignore_index=-100, reduction="mean"):
    """Negative log-likelihood of class indices, from log-probabilities.

    Use it for models that return log-probabilities, or for the logarithms of probabilities. For
    logits, use `cross_entropy`: `nll_loss` applies no softmax, and its value for logits or
    probabilities, which is not an error, has no meaning.

    For a row x of `input` and its class y in `target`::

        l = -w[y] x[y]        dl/dx[y] = -w[y], else 0

    Parameters
    ----------
    input : array_like, shape (C,), (N, C) or (N, C, d1, ..., dK)
        Log-probabilities x of C classes, floating-point.
    target : array_like of integers, shape (), (N,) or (N, d1, ..., dK)
        Class indices y, from 0 to C - 1, of any integer dtype.
    %(class_weight)s
    %(ignore_index)s
    %(class_reduction)s
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    ClassIndexError
        For a target that is neither a class nor `ignore_index`. It is both a ValueError and an
        IndexError.
    %(class_errors)s

    Notes
    -----
    %(class_numerics)s

    %(accuracy)s
    Terms: ``w[y] x[y]``, the loss itself. The values x are not checked to be log-probabilities: the
    loss and its gradient hold for any scores, such as log densities, which may be positive. For
    logits use `cross_entropy`.

    PyTorch accepts only int64 and, in some cases, uint8 targets, returns NaN for a weight of 0 at a
    log-probability of -inf, and returns a NaN gradient if all weights are 0.

    Examples
    --------
    >>> import fastloss as fl
    >>> x = [[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]]
    >>> fl.nll_loss(x, [0, 2])
    3.5
    >>> fl.nll_loss(x, [0, 2], [1, 2, 3])
    4.75
    >>> fl.nll_loss.sums(x, [0, 2], ignore_index=2)
    (1.0, 1.0, 1)
    >>> fl.nll_loss.grad(x, [0, 2], [1, 2, 3])
    array([[-0.25,  0.  ,  0.  ],
           [ 0.  ,  0.  , -0.75]])
    """


# --- margin ---------------------------------------------------------------------------------------


@loss("multi_margin", differentiable=("input",), p=ONE_OR_TWO, margin=FINITE)
def multi_margin_loss(input, target, *, p=1, margin=1.0, weight=None, reduction="mean"):
    """Multiclass hinge loss, linear or squared.

    It is the loss of multiclass support vector machines: the score of the class must exceed every
    other score by at least the margin. Probabilities, whose differences are at most 1, are not such
    scores.

    For a row x of `input`, which has C classes, and its class y in `target`::

        l = w[y]/C sum_{c != y} max(0, z[c])^p,        z[c] = margin - x[y] + x[c]
        dl/dx[c] = w[y]/C p z[c]^(p - 1) if z[c] > 0 else 0        dl/dx[y] = -sum_{c != y} dl/dx[c]

    Parameters
    ----------
    input : array_like, shape (C,), (N, C) or (..., C)
        Scores x of C classes, floating-point.
    target : array_like of integers, shape of `input` without its last axis
        Class indices y, from 0 to C - 1, of any integer dtype.
    p : int, default 1
        Exponent, 1 or 2.
    margin : float, default 1.0
        Difference between the score of the class and another score beyond which that other score
        adds nothing, finite.
    %(class_weight)s
    %(reduction)s
        `weight` does not affect the divisor of "mean".
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    ClassIndexError
        For a target that is not a class. It is both a ValueError and an IndexError.
    %(class_errors)s

    Notes
    -----
    %(row_numerics)s

    %(accuracy)s
    Terms: the summands, in which z[c] has the terms ``margin`` and ``x[c] - x[y]``. At the kink,
    z[c] = 0, the gradient is 0, as in PyTorch.

    PyTorch accepts only the shapes (C,) and (N, C) and only int64 targets, drops NaN, and returns
    uninitialised memory if there are no rows.

    References
    ----------
    Weston and Watkins, "Support vector machines for multi-class pattern recognition", ESANN 1999.

    Examples
    --------
    >>> import fastloss as fl
    >>> x = [[0.1, 0.2, 0.4, 0.8], [1.0, 0.0, 0.5, 1.0]]
    >>> fl.multi_margin_loss(x, [3, 0], reduction="none")
    array([0.325, 0.375])
    >>> fl.multi_margin_loss(x, [3, 0], p=2, reduction="none")
    array([0.1525, 0.3125])
    >>> fl.multi_margin_loss.grad(x, [3, 0], reduction="sum")
    array([[ 0.25,  0.25,  0.25, -0.75],
           [-0.5 ,  0.  ,  0.25,  0.25]])
    """


@loss("multilabel_margin", differentiable=("input",))
def multilabel_margin_loss(input, target, *, reduction="mean"):
    """Multilabel hinge loss: labels should lead other classes by 1.

    Use it for rows with several labels each, given as lists of class indices.

    For a row x of `input`, which has C classes, and its labels y, the entries of `target` before
    the first -1::

        l = 1/C sum_{j in y} sum_{k not in y} max(0, z[j, k]),        z[j, k] = 1 - x[j] + x[k]
        dl/dx[j] = -1/C (how many z[j, k] > 0)    dl/dx[k] = 1/C (how many z[j, k] > 0)

    Parameters
    ----------
    input : array_like, shape (C,), (N, C) or (..., C)
        Scores x of C classes, floating-point.
    target : array_like of integers, same shape as `input`
        Labels y: class indices from 0 to C - 1, of any integer dtype, up to the first -1. Entries
        after it are checked but have no effect. A label that occurs twice counts twice.
    %(reduction)s
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    ClassIndexError
        For a target that is neither a class nor -1. It is both a ValueError and an IndexError.
    %(class_errors)s

    Notes
    -----
    %(row_numerics)s

    %(accuracy)s
    Terms: the summands, in which z[j, k] has the terms ``1`` and ``x[k] - x[j]``. At the kink,
    z[j, k] = 0, the gradient is 0, as in PyTorch. A target with a 0 or 1 for each class is meant
    for `multilabel_soft_margin_loss`; this loss would read it as the labels 0 and 1.

    PyTorch accepts only the shapes (C,) and (N, C) and only int64 targets, drops NaN, and returns
    uninitialised memory if there are no rows.

    References
    ----------
    Elisseeff and Weston, "A kernel method for multi-labelled classification", NIPS 2001.

    Examples
    --------
    >>> import fastloss as fl
    >>> x = [[0.1, 0.2, 0.4, 0.8], [0.1, 0.2, 0.4, 0.8]]
    >>> fl.multilabel_margin_loss(x, [[3, 0, -1, 1], [3, 3, -1, -1]], reduction="none")
    array([0.85, 0.65])
    >>> fl.multilabel_margin_loss.grad(x[0], [3, 0, -1, 1])
    array([-0.5,  0.5,  0.5, -0.5])
    """


@loss("multilabel_soft_margin")
def multilabel_soft_margin_loss(input, target, *, weight=None, reduction="mean"):
    """Binary cross entropy of several labels per row, from logits.

    Use it for rows with several labels each, given as a 0 or 1 for each class. It is the mean over
    classes of `binary_cross_entropy_with_logits`; for probabilities, use `binary_cross_entropy`.

    For rows x of `input` and y of `target`, which have C classes, sigma(x) = 1 / (1 + exp(-x)) and
    softplus(x) = log(1 + exp(x))::

        l = 1/C sum_c w[c] ((1 - y[c]) softplus(x[c]) + y[c] softplus(-x[c]))
        dl/dx[c] = w[c]/C ((1 - y[c]) sigma(x[c]) - y[c] sigma(-x[c]))
        dl/dy[c] = -w[c]/C x[c]

    Parameters
    ----------
    input : array_like, shape (C,), (N, C) or (..., C)
        Logits x, floating-point: the predicted probability of class c is sigma(x[c]).
    target : array_like, same shape as `input`
        Target probabilities y, between 0 and 1; usually labels 0 and 1.
    %(weight)s
    %(reduction)s
        `weight` affects neither this divisor nor the divisor C of a loss.
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s
        Also for a target outside [0, 1].

    Notes
    -----
    %(row_numerics)s

    %(accuracy)s
    Terms: the summands. All have the same sign, so a small loss keeps full relative accuracy.

    PyTorch returns NaN for an infinite logit of the correct sign, where the term is 0, accepts
    targets outside [0, 1], and sums along the wrong axis if a weight or target is larger than the
    input.

    Examples
    --------
    >>> import fastloss as fl
    >>> x, y = [[0.0, 2.0], [0.0, -1000.0]], [[1, 0], [0, 1]]
    >>> fl.multilabel_soft_margin_loss(x, y, reduction="none")
    array([  1.41003759, 500.34657359])
    >>> fl.multilabel_soft_margin_loss.grad([0.0, 0.0], [1, 0])
    array([-0.25,  0.25])
    """


# --- embedding ------------------------------------------------------------------------------------


@loss(
    "cosine_embedding",
    differentiable=("input1", "input2"),
    default_wrt=("input1", "input2"),
    margin=FINITE,
)
def cosine_embedding_loss(input1, input2, target, *, margin=0.0, reduction="mean"):
    """Cosine distance of similar rows, hinge loss of dissimilar rows.

    Use it to learn embeddings that are compared by their angle: it aligns similar rows, and reduces
    the cosine of dissimilar rows to the margin.

    For rows a of `input1` and b of `input2` with label y and cosine c::

        l = 1 - c                 dl/dc = -1                         where y = 1
        l = max(0, c - margin)    dl/dc = 1 if c >= margin else 0    where y = -1

        c = sum_k a[k] b[k] / (|a| |b|),        |a|^2 = sum_k a[k]^2 + 1e-12
        dl/da = dl/dc (b / |b| - c a / |a|) / |a|        dl/db = dl/dc (a / |a| - c b / |b|) / |b|

    Parameters
    ----------
    input1, input2 : array_like, shape (D,), (N, D) or (..., D), the same
        Rows a and b of D features.
    target : array_like, shape of `input1` without its last axis
        Labels y: 1 for similar pairs, -1 for dissimilar pairs. A scalar applies to every pair.
    margin : float, default 0.0
        Cosine below which a dissimilar pair has loss 0, finite; usually between 0 and 0.5.
    %(reduction)s
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s
        Also for a label that is not -1 or 1.

    Notes
    -----
    %(row_numerics)s

    %(accuracy)s
    Terms: ``1`` or ``margin``, and ``a[k] b[k] / (|a| |b|)``. At the kink, c = margin, the gradient
    is the gradient of c, as in PyTorch. The 1e-12 is PyTorch's too: it shrinks the cosine of rows
    shorter than about 1e-5.

    Intermediate squares and products of lengths neither overflow nor underflow. In PyTorch they do:
    in float32, two equal rows of length 1e10 have loss 1 there. PyTorch accepts only the shapes
    (D,) and (N, D), and returns 0 for a label that is neither 1 nor -1.

    References
    ----------
    Bromley, Guyon, LeCun, Säckinger and Shah, "Signature verification using a 'Siamese' time delay
    neural network", NIPS 1993, compares pairs by their cosine.

    Examples
    --------
    >>> import fastloss as fl
    >>> a, b = [[1.0, 0.0], [3.0, 4.0]], [[0.0, 2.0], [3.0, 4.0]]
    >>> fl.cosine_embedding_loss(a, b, [1, -1], margin=0.5, reduction="none")
    array([1. , 0.5])
    >>> fl.cosine_embedding_loss.grad([1.0, 0.0], [0.0, 2.0], 1)
    (array([-0., -1.]), array([-0.5, -0. ]))
    """


@loss(
    "triplet_margin",
    differentiable=("anchor", "positive", "negative"),
    default_wrt=("anchor", "positive", "negative"),
    margin=POSITIVE,
    p=POSITIVE,
    eps=FINITE_NONNEGATIVE,
)
def triplet_margin_loss(
    anchor, positive, negative, *, margin=1.0, p=2.0, eps=1e-6, swap=False, reduction="mean"
):
    """Triplet loss: hinge of distances to a positive and a negative row.

    Use it for metric learning: the anchor must be closer to the positive row than to the negative
    row, by at least the margin.

    For rows a of `anchor`, b of `positive` and c of `negative`, where d is the distance of two rows
    and d' its derivative with respect to the first one::

        l = max(0, g),                     g = margin + d(a, b) - d(a, c)
        d(u, v) = (sum_k |e[k]|^p)^(1/p),  e = u - v + eps
        d'(u, v)[k] = sign(e[k]) (|e[k]| / d(u, v))^(p - 1)

        dl/da = d'(a, b) - d'(a, c)    dl/db = -d'(a, b)    dl/dc = d'(a, c)    if g >= 0, else 0

    With `swap`, d(b, c) replaces d(a, c) where it is smaller.

    Parameters
    ----------
    anchor, positive, negative : array_like, shape (D,), (N, D) or (..., D), the same
        Rows a, b and c of D features.
    margin : float, default 1.0
        Difference of the two distances beyond which a triplet has loss 0, above 0.
    p : float, default 2.0
        Exponent of the distance, above 0. Infinity gives the largest absolute difference.
    eps : float, default 1e-06
        Added to each difference, finite and at least 0.
    swap : bool, default False
        Whether to compare the negative row with the closer one of the anchor and the positive row.
    %(reduction)s
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s

    Notes
    -----
    %(row_numerics)s

    %(accuracy)s
    Terms: ``margin``, ``d(a, b)`` and ``d(a, c)`` or ``d(b, c)``. The kinks are handled as in
    PyTorch: at g = 0 the gradient is not 0; a distance of 0 has derivative 0; with infinite p, tied
    largest differences share the derivative equally, and so do tied distances with `swap`.

    Unlike in PyTorch, intermediate results of a distance neither overflow nor underflow. PyTorch
    broadcasts the rows against each other, and accepts a NaN `margin` and any `p`.

    References
    ----------
    Balntas, Riba, Ponsa and Mikolajczyk, "Learning local feature descriptors with triplets and
    shallow convolutional neural networks", BMVC 2016, which also introduces `swap`.

    Examples
    --------
    >>> import fastloss as fl
    >>> a, b, c = [[0.0, 0.0], [0.0, 0.0]], [[3.0, 4.0], [0.0, 1.0]], [[0.0, 2.0], [0.0, 5.0]]
    >>> fl.triplet_margin_loss(a, b, c, eps=0, reduction="none")
    array([4., 0.])
    >>> fl.triplet_margin_loss.grad(a[0], b[0], c[0], eps=0)
    (array([-0.6,  0.2]), array([0.6, 0.8]), array([ 0., -1.]))
    """


# --- ctc ------------------------------------------------------------------------------------------


@loss("ctc", differentiable=("log_probs",))
def ctc_loss(
    log_probs,
    targets,
    input_lengths,
    target_lengths,
    *,
    blank=0,
    reduction="mean",
    zero_infinity=False,
    batch_first=False,
):
    """Connectionist temporal classification, from log-probabilities.

    Use it for sequence labelling without a known alignment, such as speech and handwriting
    recognition. For logits, use `ctc_loss_with_logits`: `ctc_loss` applies no softmax, and its
    value for logits has no meaning.

    For the log-probabilities x[t, c] of class c in frame t of a sample, over its alignments a,
    which give each frame a class a[t] such that merging repeats and then removing blanks yields the
    target::

        l = -log sum_a exp(sum_t x[t, a[t]])        gradient: exp(x[t, c]) - gamma[t, c]

    where gamma[t, c] is the posterior probability of class c in frame t, which `ctc_posteriors`
    returns: the fraction of that sum due to alignments with a[t] = c.

    Parameters
    ----------
    log_probs : array_like, shape (T, N, C) or (T, C); with `batch_first` (N, T, C)
        Log-probabilities x of C classes in T frames of N samples, floating-point; a single sample
        has no batch axis.
    %(ctc_targets)s
    %(ctc_reduction)s
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(ctc_errors)s
        Also for frames whose probabilities do not sum to 1 within 1e-3 (float16: 2e-2; bfloat16:
        the larger of 2e-2 and log(C)/128, because of the rounding of the logarithms).

    Notes
    -----
    %(ctc_numerics)s

    Terms: the loss itself; for the gradient, the larger of ``exp(x)`` and ``gamma``: it is within
    64 units in the last place of this for up to 20,000 frames, and within 0.0032 per frame for
    more.

    As in PyTorch, the gradient is taken with respect to logits whose log-softmax is x, as training
    needs it. It holds for probabilities that sum to 1; the derivative with respect to x itself is
    -gamma. `ctc_loss_with_logits` takes the logits and computes both in one pass.

    PyTorch does not check labels: for a class that does not exist, it reads and writes outside its
    arrays, and if a label is the blank, it counts alignments twice. It returns a NaN gradient for a
    log-probability of -inf, where the gradient here is 0. It has no `batch_first`, and accepts
    neither scalar lengths nor half precision.

    References
    ----------
    Graves, Fernández, Gomez and Schmidhuber, "Connectionist temporal classification: labelling
    unsegmented sequence data with recurrent neural networks", ICML 2006.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> x = np.log(np.full((4, 2, 3), 1 / 3))
    >>> fl.ctc_loss(x, [[1, 2], [1, -1]], 4, [2, 1], reduction="none")
    array([1.68639895, 2.09186406])
    >>> round(fl.ctc_loss(x, [1, 2, 1], 4, [2, 1]), 6)
    1.467532
    >>> fl.ctc_loss.grad(np.log([[0.5, 0.5], [0.5, 0.5]]), [1], 2, 1)
    array([[ 0.16666667, -0.16666667],
           [ 0.16666667, -0.16666667]])
    >>> fl.ctc_loss(x, [1, 1, 1], 2, [2, 1], reduction="none")
    array([       inf, 1.09861229])
    """


@loss("ctc_with_logits", differentiable=("logits",))
def ctc_loss_with_logits(
    logits,
    targets,
    input_lengths,
    target_lengths,
    *,
    blank=0,
    reduction="mean",
    zero_infinity=False,
    batch_first=False,
):
    """Connectionist temporal classification, from logits.

    Use it for sequence labelling without a known alignment, such as speech and handwriting
    recognition. It equals `ctc_loss` of the log-softmax of the logits, in one pass and without an
    array for it.

    For the logits x[t, c] of class c in frame t of a sample and their softmax s[t, c] =
    exp(x[t, c]) / sum_j exp(x[t, j]), over its alignments a, which give each frame a class a[t]
    such that merging repeats and then removing blanks yields the target::

        l = -log sum_a prod_t s[t, a[t]]        dl/dx[t, c] = s[t, c] - gamma[t, c]

    where gamma[t, c] is the posterior probability of class c in frame t, which `ctc_posteriors`
    returns: the fraction of that sum due to alignments with a[t] = c.

    Parameters
    ----------
    logits : array_like, shape (T, N, C) or (T, C); with `batch_first` (N, T, C)
        Logits x of C classes in T frames of N samples, floating-point; a single sample has no batch
        axis.
    %(ctc_targets)s
    %(ctc_reduction)s
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(ctc_errors)s

    Notes
    -----
    %(ctc_numerics)s

    Terms: the loss itself; for the gradient, the larger of ``s`` and ``gamma``: its error is at
    most 64 units in the last place of this for up to 20,000 frames, and 0.0032 per frame for more.

    PyTorch has no such function.

    References
    ----------
    Graves, Fernández, Gomez and Schmidhuber, "Connectionist temporal classification: labelling
    unsegmented sequence data with recurrent neural networks", ICML 2006.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> x = np.zeros((4, 2, 3))
    >>> fl.ctc_loss_with_logits(x, [[1, 2], [1, -1]], 4, [2, 1], reduction="none")
    array([1.68639895, 2.09186406])
    >>> fl.ctc_loss_with_logits.grad(np.zeros((2, 2)), [1], 2, 1)
    array([[ 0.16666667, -0.16666667],
           [ 0.16666667, -0.16666667]])
    """


@loss("ctc_posteriors", differentiable=("log_probs",))
def _posteriors(
    log_probs,
    targets,
    input_lengths,
    target_lengths,
    *,
    blank=0,
    reduction="sum",
    batch_first=False,
):
    """A loss whose gradient is defined as the posterior probabilities."""


def ctc_posteriors(
    log_probs, targets, input_lengths, target_lengths, *, blank=0, batch_first=False, out=None
):
    """Posterior probability of each class in each frame, given the target of CTC.

    It shows where a model places each label, for example to align a transcript with its recording.

    For the log-probabilities x[t, c] of class c in frame t of a sample, over its alignments a,
    which give each frame a class a[t] such that merging repeats and then removing blanks yields the
    target::

        gamma[t, c] = sum_{a: a[t] = c} exp(sum_t x[t, a[t]]) / sum_a exp(sum_t x[t, a[t]])

    It sums to 1 over the classes, and -gamma is the derivative of `ctc_loss` with respect to x.

    Parameters
    ----------
    log_probs : array_like, shape (T, N, C) or (T, C); with `batch_first` (N, T, C)
        Log-probabilities x of C classes in T frames of N samples, floating-point; a single sample
        has no batch axis. The probabilities need not sum to 1.
    targets : array_like of integers, shape (N, S) or (sum of `target_lengths`,)
        Labels: classes other than `blank`. Either padded rows, whose entries beyond the target
        length are never read, or the concatenated labels of all samples.
    input_lengths : array_like of integers, shape (N,) or ()
        Number of frames of each sample; a scalar applies to every sample.
    target_lengths : array_like of integers, shape (N,) or ()
        Number of labels of each sample; a scalar applies to every sample.
    blank : int, default 0
        Class index of the blank, which stands for no label.
    batch_first : bool, default False
        Whether the batch is the first axis, as in (N, T, C), and the frames are the second.
    out : ndarray, optional
        Array for the result, of its shape and dtype; it may be exactly `log_probs`.

    Returns
    -------
    ndarray
        gamma, of the shape and dtype of `log_probs`. It is 0 in the frames beyond the length of a
        sample, and NaN in a sample whose target is too long for its frames.

    Raises
    ------
    ClassIndexError, TypeError, ValueError
        As in `ctc_loss`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> fl.ctc_posteriors(np.log([[0.5, 0.5], [0.5, 0.5]]), [1], 2, 1)
    array([[0.33333333, 0.66666667],
           [0.33333333, 0.66666667]])
    """
    return _posteriors.grad(
        log_probs,
        targets,
        input_lengths,
        target_lengths,
        blank=blank,
        batch_first=batch_first,
        out=out,
    )


__all__ += ["ctc_posteriors"]

# --- the public names -----------------------------------------------------------------------------

__all__ += [name for name, value in globals().items() if isinstance(value, Loss) and name[0] != "_"]
