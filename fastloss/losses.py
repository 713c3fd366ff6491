"""The losses: a function each gives name, signature and docstring; `loss` makes it an object."""

import inspect
import re
import textwrap

from fastloss._binding import Loss
from fastloss._options import FINITE, FINITE_NONNEGATIVE, FRACTION, NONNEGATIVE, POSITIVE

_SPECIAL = ("weight", "pos_weight", "ignore_index")

# What the docstrings share, by the name of its placeholder, such as %(out)s on a line of its own.
# Indented lines below a placeholder continue its paragraph.
_SHARED = {
    "reduction": """\
reduction : {%(reductions)s}, default "mean"
    "none" returns the losses l themselves, "sum" adds them up, and "mean" divides that by their
    number; with `sample_weight` s, by the sum of s over them.""",
    "class_reduction": """\
reduction : {%(reductions)s}, default "mean"
    "none" returns the losses l themselves, "sum" adds them up, and "mean" divides that by the sum
    of w[y]; with `sample_weight` s, of s w[y]. Without weights this is the number of targets that
    are not ignored.""",
    "weight": """\
weight : array_like, optional
    Factor w of each loss, broadcast to the input's shape; it has no gradient. A 0 removes what it
    weighs, NaN included.""",
    "class_weight": """\
weight : array_like, shape (C,), optional
    Factor w of each class; it has no gradient. A 0 removes the entries of its class, NaN
    included.""",
    "ignore_index": """\
ignore_index : int, default -100
    Class index, of any value, that marks what is left out: it counts neither in value and gradient
    nor in what "mean" divides by, whatever its scores are.""",
    "sample_weight": """\
sample_weight : array_like, optional
    Factor s >= 0 of each loss, in the numerator and the divisor of "mean": of the shape of the
    unreduced losses, or (N,), one for each entry of their leading axis. Ones change nothing. A 0
    removes what it weighs, NaN included; if all are 0, "mean" is NaN and its gradient 0.""",
    "out": """\
out : ndarray or tuple of ndarray, optional
    Where to write the result, of its shape and dtype (float32 will do for float16 and bfloat16).
    Called: the losses, with reduction="none". In ``grad``: the gradient, or a tuple of them. In
    ``value_and_grad``: the gradient or gradients, with "none" the pair (losses, gradients). May be
    exactly the argument that it is the gradient of, and may not overlap an argument in any other
    way.""",
    "returns": """\
Returns
-------
float or ndarray
    A float for "mean" and "sum", never rounded to the dtype of the arrays. For "none" an array of
    the shape of the losses, a NumPy scalar if they are 0-d. ``.grad(...)`` returns the gradient of
    this value, ``.value_and_grad(...)`` the pair of both in one pass, and ``.sums(...)`` what
    "mean" divides, which adds up over batches: ``(sum, weight, count)``, a float, a float and the
    number of losses that are not removed.

Other Parameters
----------------
wrt : str or tuple of str, optional
    Of ``grad`` and ``value_and_grad``: the argument to differentiate by.
    There are gradients for %(names)s. A tuple gives a tuple of them.
    Default: %(default)s.
grad_output : float or array_like, optional
    Of ``grad`` and ``value_and_grad``: the upstream gradient, a number; with reduction="none" also
    an array of the shape of the losses. Default: 1.""",
    "errors": """\
TypeError
    For complex, object and masked arrays, for a gradient by integers, and for unknown options.
ValueError
    For shapes that do not fit, options out of range, and negative sample weights.""",
    "class_errors": """\
ClassIndexError
    For a target that is neither a class nor `ignore_index`. It is a ValueError and an IndexError.
TypeError
    For an `input` that is not floating, a `target` that is not integer, complex, object and masked
    arrays, and unknown options.
ValueError
    For shapes that do not fit, options out of range, and negative sample weights.""",
    "numerics": """\
The arrays have one shape; a number or 0-d array goes with any. They are computed with in their
common floating type: float16 and bfloat16 in float32, integers and bools of an input in float64. A
gradient has the dtype and shape of its argument. NaN gives NaN, in value and gradient; no elements
give the sum 0 and the mean NaN. Each loss is right to within 4 units in the last place of the
largest of its terms, named below; a derivative, of those that its formula adds.""",
    "class_numerics": """\
The class axis is the second, or the only one. float16 and bfloat16 are computed with in float32,
and the gradient has the dtype of `input`. If nothing is left to divide by (no rows, all ignored, no
weight), "mean" is NaN and its gradient 0. Each loss is right to within 4 units in the last place of
the largest of its terms, named below; a derivative, of those that its formula adds.""",
}


def _documented(docstring, **words):
    """The docstring with its placeholders replaced."""

    def paragraph(match):
        return textwrap.indent(_SHARED[match["name"]] % words, match["indent"])

    text = inspect.cleandoc(docstring or "")
    return re.sub(r"^(?P<indent> *)%\((?P<name>\w+)\)s$", paragraph, text, flags=re.MULTILINE)


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
    **rules,
):
    """Makes a `Loss` of a function that has arrays, then options, and a docstring for a body.

    Parameters without default are the arrays. Of the options, numbers go to the formula in order
    and have a rule each; booleans choose the formula, by its name.
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
            numbers=[
                (p.name, p.default, rules[p.name]) for p in options if type(p.default) is float
            ],
            flags=[(p.name, p.default) for p in options if type(p.default) is bool],
            special=[p.name for p in options if p.name in _SPECIAL],
            weight_divides=weight_divides,
            batchmean=batchmean,
            shared_variance=shared_variance,
        )
        common = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
            for name in ("sample_weight", "out")
        ]
        made.__name__ = made.__qualname__ = function.__name__
        made.__module__ = "fastloss"
        made.__signature__ = signature.replace(parameters=[*parameters, *common])
        made.__doc__ = _documented(
            function.__doc__,
            reductions=_quoted(["mean", "sum", "none"] + ["batchmean"] * batchmean),
            names=_quoted(differentiable),
            default=_quoted(made.default_wrt),
        )
        return made

    return make


@loss("l1", weight_divides=True)
def l1_loss(input, target, *, weight=None, reduction="mean"):
    """Absolute error.

    For x of `input` and y of `target`::

        l = w |x - y|        dl/dx = w sign(x - y)        dl/dy = -dl/dx

    Parameters
    ----------
    input : array_like, any shape
        Predictions x.
    target : array_like, shape of `input`
        True values y.
    %(weight)s
    %(reduction)s
        With `weight`, "mean" divides by the sum of w.
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s

    Notes
    -----
    %(numerics)s

    Terms: ``x - y``. Kink: the gradient is 0 where x = y.

    PyTorch gives a NaN the gradient 0, and takes only weights of the input's shape.

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
    """Squared error.

    For x of `input` and y of `target`::

        l = w (x - y)^2        dl/dx = 2 w (x - y)        dl/dy = -dl/dx

    Parameters
    ----------
    input : array_like, any shape
        Predictions x.
    target : array_like, shape of `input`
        True values y.
    %(weight)s
    %(reduction)s
        With `weight`, "mean" divides by the sum of w.
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s

    Notes
    -----
    %(numerics)s

    Terms: ``(x - y)^2``.

    PyTorch broadcasts (N, 1) against (N,) to (N, N) with a warning, and takes only weights of the
    input's shape.

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
    """Absolute error, made quadratic within beta of 0.

    For x of `input`, y of `target` and d = x - y::

        l = d^2 / (2 beta)     dl/dx = d / beta     where |d| < beta
        l = |d| - beta/2       dl/dx = sign(d)      elsewhere;         dl/dy = -dl/dx

    Parameters
    ----------
    input : array_like, any shape
        Predictions x.
    target : array_like, shape of `input`
        True values y.
    %(reduction)s
    beta : float, default 1.0
        Error at which the parabola meets the lines, at least 0. At 0 this is `l1_loss`.
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s

    Notes
    -----
    %(numerics)s

    Terms: ``d^2 / (2 beta)``, or ``d`` and ``beta/2``. Neither d^2 nor a ratio overflows or
    vanishes on the way where the loss does not, as happens in PyTorch. This is
    ``huber_loss(..., delta=beta) / beta``.

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
    """Squared error, made linear beyond delta.

    For x of `input`, y of `target` and d = x - y::

        l = w d^2 / 2                   dl/dx = w d                where |d| <= delta
        l = w delta (|d| - delta/2)     dl/dx = w delta sign(d)    elsewhere;    dl/dy = -dl/dx

    Parameters
    ----------
    input : array_like, any shape
        Predictions x.
    target : array_like, shape of `input`
        True values y.
    %(weight)s
    %(reduction)s
        `weight` does not change what "mean" divides by.
    delta : float, default 1.0
        Error at which the parabola goes over into lines, above 0. Infinity gives half the squared
        error.
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s

    Notes
    -----
    %(numerics)s

    Terms: ``d^2 / 2``, or ``delta d`` and ``delta^2 / 2``. This is
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

    For x of `input` and y of `target`::

        l = log cosh(x - y)        dl/dx = tanh(x - y)        dl/dy = -dl/dx

    It is close to (x - y)^2 / 2 for small errors and to |x - y| - log 2 for large ones.

    Parameters
    ----------
    input : array_like, any shape
        Predictions x.
    target : array_like, shape of `input`
        True values y.
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

    Terms: the loss itself. Large errors do not overflow. PyTorch has no such loss.

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


@loss("poisson_nll", eps=FINITE_NONNEGATIVE)
def poisson_nll_loss(input, target, *, log_input=True, full=False, eps=1e-8, reduction="mean"):
    """Negative log-likelihood of counts, from (logarithms of) rates.

    For x of `input` and y of `target`::

        l = exp(x) - y x          dl/dx = exp(x) - y           dl/dy = -x    with log_input
        l = x - y log(x + eps)    dl/dx = 1 - y / (x + eps)    dl/dy = -log(x + eps)    without

    which leaves out the likelihood's log(y!). Where y > 1, `full` adds Stirling's approximation::

        y log y - y + log(2 pi y) / 2        and to dl/dy        log y + 1 / (2 y)

    Parameters
    ----------
    input : array_like, any shape
        Logarithms x of the expected counts; without `log_input` those counts, at least 0.
    target : array_like, shape of `input`
        Observed counts y, at least 0; they need not be whole numbers.
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

    Terms: ``exp(x)`` and ``y x``; or ``x``, ``y log(x + eps)`` and ``y``; with `full` also
    ``y log y``, ``y`` and ``log(2 pi y) / 2``.

    A count of 0 at the rate 0 has the loss 0, also where x = -inf, which is NaN in PyTorch. There
    negative counts and rates raise nothing, and `full` has the gradient NaN by a target of 0.

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
    """Negative log-likelihood of normal values, by mean and variance.

    For x of `input`, y of `target`, z of `var` and v = max(z, eps)::

        l = (log v + (x - y)^2 / v) / 2        dl/dx = (x - y) / v        dl/dy = -dl/dx
                                               dl/dz = (1 / v - (x - y)^2 / v^2) / 2

    `full` adds log(2 pi) / 2.

    Parameters
    ----------
    input : array_like, any shape
        Expected values x.
    target : array_like, shape of `input`
        Observed values y.
    var : array_like
        Variances z, at least 0: a number; or of the shape of `input`, of that shape without its
        last axis (one for each row), or of that shape with a 1 in place of one axis.
    full : bool, default False
        Whether to add the constant.
    eps : float, default 1e-06
        Least variance, at least 0.
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

    Terms: ``log(v) / 2``, ``(x - y)^2 / (2 v)`` and, with `full`, ``log(2 pi) / 2``.

    As in PyTorch the gradient by `var` passes through the maximum: it is that at v also where
    z < eps. The gradient of a shared variance is the sum over what shares it. PyTorch takes no
    integer for `var`.

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


@loss("kl_div", batchmean=True)
def kl_div(input, target, *, reduction="mean", log_target=False):
    """Kullback-Leibler divergence, from log-probabilities.

    For x of `input` and y of `target`::

        l = y (log y - x)         dl/dx = -y         dl/dy = log y + 1 - x
        l = exp(y) (y - x)        dl/dx = -exp(y)    dl/dy = exp(y) (y - x + 1)    with log_target

    Parameters
    ----------
    input : array_like, any shape
        Logarithms x of the probabilities of the model.
    target : array_like, shape of `input`
        True probabilities y, at least 0; with `log_target` their logarithms.
    %(reduction)s
        "batchmean" divides by the length of the leading axis instead: where each row is a
        distribution, it is their mean divergence.
    log_target : bool, default False
        Whether `target` holds logarithms.
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(errors)s
        Also for a negative target, unless with `log_target`.

    Notes
    -----
    %(numerics)s

    Terms: ``y log y`` and ``y x``, or ``exp(y) (y - x)``. That probabilities sum to 1 is not
    checked.

    Where the true probability is 0, so is the loss, whatever x is but NaN; PyTorch gives NaN where
    x is infinite. Its gradient by such a target is NaN; here it is the limit, -inf (NaN where x is
    -inf too; with `log_target`, 0). As in PyTorch "mean" is not the mean divergence, which is
    "batchmean"; it does not warn.

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


@loss("binary_cross_entropy")
def binary_cross_entropy(input, target, weight=None, *, reduction="mean"):
    """Cross entropy of two classes, from probabilities.

    For x of `input` and y of `target`::

        l = -w (y log x + (1 - y) log(1 - x))        logarithms below -100 count as -100
        dl/dx = w (x - y) / (x (1 - x))              a denominator below 1e-12 counts as 1e-12
        dl/dy = w (log(1 - x) - log x)

    Parameters
    ----------
    input : array_like, any shape
        Probabilities x of the positive class, between 0 and 1.
    target : array_like, shape of `input`
        Its true probabilities y, between 0 and 1; mostly labels 0 and 1.
    %(weight)s
    %(reduction)s
        `weight` does not change what "mean" divides by.
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

    Terms: ``y log x`` and ``(1 - y) log(1 - x)``.

    The bounds are PyTorch's: a certain and wrong prediction costs 100 and has the gradient 1e12
    (1e-12 being rounded to float32). The gradient by `target` is not bounded.
    `binary_cross_entropy_with_logits` needs no bounds, and is exact where x rounds to 0 or 1.

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
    """Cross entropy of two classes, from logits.

    For x of `input`, y of `target`, sigma(x) = 1 / (1 + exp(-x)) and softplus(x) =
    log(1 + exp(x))::

        l = w ((1 - y) softplus(x) + p y softplus(-x))
        dl/dx = w ((1 - y) sigma(x) - p y sigma(-x))
        dl/dy = w (p softplus(-x) - softplus(x))

    Parameters
    ----------
    input : array_like, any shape
        Logits x: the positive class has the probability sigma(x).
    target : array_like, shape of `input`
        Its true probabilities y, between 0 and 1; mostly labels 0 and 1.
    %(weight)s
    %(reduction)s
        Neither weight changes what "mean" divides by.
    pos_weight : array_like, optional
        Factor p of the positive class, broadcast to the input's shape: one for each label where
        labels are the last axis. More than 1 raises recall, less raises precision.
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

    Terms: ``(1 - y) softplus(x)`` and ``p y softplus(-x)``. They have one sign: a small loss has
    all its digits.

    PyTorch gives NaN for an infinite logit on the right side, here 0; and takes targets outside
    [0, 1].

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


@loss("hinge_embedding", differentiable=("input",), margin=FINITE)
def hinge_embedding_loss(input, target, *, margin=1.0, reduction="mean"):
    """Distances of similar and, up to a margin, of dissimilar pairs.

    For x of `input` and y of `target`::

        l = x                     dl/dx = 1                          where y = 1
        l = max(0, margin - x)    dl/dx = -1 if x <= margin else 0   where y = -1

    Parameters
    ----------
    input : array_like, any shape
        Distances x of pairs.
    target : array_like, shape of `input`
        Labels y: 1 for similar, -1 for dissimilar pairs.
    margin : float, default 1.0
        Distance from which on a dissimilar pair costs nothing, finite.
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

    Terms: ``x``, or ``margin - x``. Kink: at x = margin the gradient is -1, as in PyTorch.

    PyTorch reads a label that is neither 1 nor -1 as max(x, margin), and gives a NaN the
    gradient 0.

    References
    ----------
    Hadsell, Chopra and LeCun, "Dimensionality reduction by learning an invariant mapping", CVPR
    2006, has it squared.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.hinge_embedding_loss([0.5, 0.25, 2.0], [1, -1, -1], reduction="none")
    array([0.5 , 0.75, 0.  ])
    >>> fl.hinge_embedding_loss.grad([0.5, 0.25, 2.0], [1, -1, -1], reduction="sum")
    array([ 1., -1.,  0.])
    """


@loss("soft_margin", differentiable=("input",))
def soft_margin_loss(input, target, *, reduction="mean"):
    """Logistic loss of labels -1 and 1.

    For x of `input` and y of `target`::

        l = log(1 + exp(-y x))        dl/dx = -y / (1 + exp(y x))

    Parameters
    ----------
    input : array_like, any shape
        Scores x, positive for the class 1.
    target : array_like, shape of `input`
        Labels y: -1 or 1.
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

    Terms: the loss itself. A score far on the wrong side costs its distance from 0; from 89
    (float32) or 710 (float64) on PyTorch gives infinity with the gradient NaN. It takes any label.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.soft_margin_loss([0.0, 2.0, -1000.0], [1, 1, 1], reduction="none")
    array([6.93147181e-01, 1.26928011e-01, 1.00000000e+03])
    >>> fl.soft_margin_loss.grad([0.0, 0.0, -1000.0], [1, -1, 1], reduction="sum")
    array([-0.5,  0.5, -1. ])
    """


@loss(
    "margin_ranking",
    differentiable=("input1", "input2"),
    default_wrt=("input1", "input2"),
    margin=FINITE,
)
def margin_ranking_loss(input1, input2, target, *, margin=0.0, reduction="mean"):
    """Ranking of pairs: by how much the better score misses its lead.

    For a of `input1`, b of `input2` and y of `target`::

        l = max(0, g),  g = margin - y (a - b)    dl/da = -y if g >= 0 else 0    dl/db = -dl/da

    Parameters
    ----------
    input1, input2 : array_like, any shape, the same
        Scores a and b.
    target : array_like, shape of `input1`
        Labels y: 1 where a should be the larger one, -1 where b should.
    margin : float, default 0.0
        Lead from which on a pair costs nothing, finite.
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

    Terms: ``a - b`` and ``margin``. Kink: the gradient is not 0 where g = 0, as in PyTorch: with
    the margin 0, tied scores are pushed apart.

    PyTorch takes any label, gives the wrong sign to unsigned ones, and gives a NaN the gradient 0.
    Its gradient by `target` does not exist here.

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


@loss("nll", differentiable=("input",))
def nll_loss(input, target, weight=None, *, ignore_index=-100, reduction="mean"):
    """Negative log-likelihood of classes, from log-probabilities.

    For a row x of `input` and its class y of `target`::

        l = -w[y] x[y]        dl/dx[y] = -w[y], else 0

    Parameters
    ----------
    input : array_like, shape (C,), (N, C) or (N, C, d1, ..., dK)
        Log-probabilities x of C classes, floating.
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
    %(class_errors)s

    Notes
    -----
    %(class_numerics)s

    Terms: ``w[y] x[y]``, the loss itself. That x are log-probabilities is not checked;
    `cross_entropy` takes logits.

    PyTorch takes only int64 and, in part, uint8 targets, gives NaN for a weight of 0 at a
    log-probability of -inf, and has the gradient NaN where all weights are 0.

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


@loss("cross_entropy", differentiable=("input",), label_smoothing=FRACTION)
def cross_entropy(
    input, target, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    """Cross entropy of classes, from logits.

    For a row x of `input`, its class y of `target` and softmax s[c] = exp(x[c]) / sum_j exp(x[j])::

        l = -w[y] log s[y]        dl/dx[c] = w[y] (s[c] - [c = y])

    and with smoothing e = label_smoothing::

        l = -sum_c q[c] log s[c],    q[c] = w[c] ((1 - e) [c = y] + e/C)
        dl/dx[c] = s[c] sum_j q[j] - q[c]

    Parameters
    ----------
    input : array_like, shape (C,), (N, C) or (N, C, d1, ..., dK)
        Logits x of C classes, floating.
    target : array_like of integers, shape (), (N,) or (N, d1, ..., dK)
        Class indices y, from 0 to C - 1, of any integer dtype.
    %(class_weight)s
        With smoothing such entries keep the terms of the other classes.
    %(ignore_index)s
    %(class_reduction)s
        Smoothing does not change that.
    label_smoothing : float, default 0.0
        Part e of each target that goes to all classes alike, from 0 to 1.
    %(sample_weight)s
    %(out)s

    %(returns)s

    Raises
    ------
    %(class_errors)s

    Notes
    -----
    %(class_numerics)s

    Terms: ``log s[y]`` or ``q[c] log s[c]``. They have one sign, and log s[y] is found without
    taking the row's largest logit from a sum that holds it: the loss of a certain prediction has
    all its digits (PyTorch rounds it to 0). To the bound add half a unit for each unit of
    ``max x - x[c]``, a difference that is rounded before exp.

    PyTorch takes only int64 and, in part, uint8 targets, reads a negative `label_smoothing` as 0,
    and gives the gradient NaN to an ignored row that holds NaN and where all weights are 0.

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
    """


__all__ = [name for name, value in globals().items() if isinstance(value, Loss)]
