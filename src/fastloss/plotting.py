"""Plots of the losses: the value and its derivative along a path of one argument.

`VIEWS` declares the path and the curves of a loss. An elementwise loss without a declared view gets
one from the domains of its operands.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastloss import losses
from fastloss._binding import Loss
from fastloss.criteria import Criterion

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot"]

POINTS = 601
# The palette of Okabe and Ito is safe for colour-blind readers; line styles suit print in black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
LINES = ("-", "--", "-.", ":")

Array = NDArray[np.float64]
Path = Callable[[Array], tuple[Array, Array]]


@dataclass(frozen=True)
class View:
    """The axis and the curves of a plot.

    Along the axis, the argument `varied` follows a path: a function that maps numbers of the span
    to the entries of the argument and their derivatives with respect to the number. A curve gives
    other arguments and options; those in `fixed` are common to all curves.
    """

    axis: str
    span: tuple[float, float]
    curves: Sequence[Mapping[str, Any]]
    varied: str = "input"
    path: Path = lambda x: (x, np.ones_like(x))
    fixed: Mapping[str, Any] = field(default_factory=dict)


def _straight(start: Any, direction: Any) -> Path:
    """A straight line from the array `start` in a direction."""
    start, direction = np.asarray(start, np.float64), np.asarray(direction, np.float64)

    def path(x: Array) -> tuple[Array, Array]:
        step = x.reshape(-1, *[1] * start.ndim)
        return start + step * direction, np.broadcast_to(direction, (x.size, *start.shape))

    return path


def _circle(x: Array) -> tuple[Array, Array]:
    """The unit vector at an angle."""
    return (
        np.stack([np.cos(x), np.sin(x)], axis=-1),
        np.stack([-np.sin(x), np.cos(x)], axis=-1),
    )


def _normalised(path: Path) -> Path:
    """The log-softmax of a path of logits, with the derivatives of the logits: see `ctc_loss`."""

    def log_softmax(x: Array) -> tuple[Array, Array]:
        logits, direction = path(x)
        return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True)), direction

    return log_softmax


def _each(name: str, *values: Any, **common: Any) -> list[dict[str, Any]]:
    """A curve for each value of an argument or option."""
    return [{**common, name: value} for value in values]


# Views of elementwise losses by the domain of an operand: the axis and its span if the operand is
# varied, and values of the other operands.
_AXES = {
    "any": ("", (-3.0, 3.0)),
    "nonnegative": ("", (0.01, 4.0)),
    "positive": ("", (0.25, 4.0)),
    "unit_interval": (", a probability", (0.02, 0.98)),
}
_VALUES: dict[str, list[Any]] = {
    "any": [0.0, 1.0],
    "nonnegative": [1.0, 3.0, 8.0],
    "positive": [1.0, 3.0, 8.0],
    "unit_interval": [0.0, 0.5, 1.0],
    "sign": [1, -1],
}


def _elementwise_view(loss: Loss) -> View:
    """The first differentiable operand varies, each curve has another value of the last one."""
    specs = loss.operand_specs[loss.formula_of()]
    domains = {name: domain for name, extent, domain in specs if extent == "unit"}
    if domains.keys() != set(loss.operands):
        raise LookupError(f"{loss.__name__} needs a view in fastloss.plotting.VIEWS")
    varied, *others = sorted(domains, key=lambda name: name != loss.default_wrt[0])
    words, span = _AXES[domains[varied]]
    fixed = {name: _VALUES[domains[name]][0] for name in others[:-1]}
    curves = _each(others[-1], *_VALUES[domains[others[-1]]], **fixed)
    axis = ("input x" if varied == "input" else varied) + words
    return View(axis, span, curves, varied=varied)


_ERROR = ("input x", (-3.0, 3.0))
_LOGIT = ("input x, a logit", (-6.0, 6.0))
_CLASS = ("logit of class 0 (others: 0, -1)", (-6.0, 6.0))
_ROW = _straight([0, 0, -1], [1, 0, 0])
_SCORE = ("score of class 0 (others: 0, -1)", (-3.0, 3.0))
_FRAMES = _straight(np.zeros((4, 3)), np.tile([0, 1, 0], (4, 1)))
_LABEL_AXIS = ("logit of label 1 in 4 frames (others: 0)", (-4.0, 6.0))
_LABELS = [
    {"targets": [1], "target_lengths": 1},
    {"targets": [1, 1], "target_lengths": 2},
    {"targets": [1, 2], "target_lengths": 2},
]
_BATCH = {"input_lengths": 4, "batch_first": True}

VIEWS = {
    "smooth_l1_loss": View(*_ERROR, _each("beta", 0.5, 1.0, 2.0, target=0.0)),
    "huber_loss": View(*_ERROR, _each("delta", 0.5, 1.0, 2.0, target=0.0)),
    "pinball_loss": View(*_ERROR, _each("quantile", 0.1, 0.5, 0.9, target=0.0)),
    "poisson_nll_loss": View("input x", (0.01, 3.0), _each("target", 1.0, 3.0, 8.0)),
    "gaussian_nll_loss": View(*_ERROR, _each("var", 0.25, 1.0, 4.0, target=0.0)),
    "gamma_nll_loss": View("input x", (0.25, 4.0), _each("target", 1.0, 3.0, 8.0)),
    "tweedie_deviance_loss": View(
        "input x", (0.4, 4.0), _each("power", 0.0, 1.0, 2.0, 3.0, target=1.0)
    ),
    "kl_div": View("input x, a log-probability", (-5.0, 0.0), _each("target", 0.1, 0.5, 1.0)),
    "binary_cross_entropy_with_logits": View(
        *_LOGIT, [*_each("target", 0.0, 0.5, 1.0), {"target": 1.0, "pos_weight": 2.0}]
    ),
    "sigmoid_focal_loss": View(*_LOGIT, _each("gamma", 0.0, 1.0, 2.0, 5.0, target=1.0, alpha=-1.0)),
    "hinge_embedding_loss": View(
        "input x, a distance",
        (0.0, 3.0),
        [{"target": 1}, *_each("margin", 1.0, 2.0, target=-1)],
    ),
    "soft_margin_loss": View("input x, a score", (-6.0, 6.0), _each("target", 1, -1)),
    "margin_ranking_loss": View(
        "input1",
        (-3.0, 3.0),
        [*_each("margin", 0.0, 1.0, input2=0.0, target=1), {"input2": 0.0, "target": -1}],
        varied="input1",
    ),
    "cosine_embedding_loss": View(
        "angle of the rows, in radians",
        (0.0, np.pi),
        [{"target": 1}, *_each("margin", 0.0, 0.5, target=-1)],
        varied="input1",
        path=_circle,
        fixed={"input2": [1.0, 0.0]},
    ),
    "multi_margin_loss": View(
        *_SCORE,
        [{"target": 0, "p": 1}, {"target": 0, "p": 2}, {"target": 1, "p": 1}],
        path=_ROW,
    ),
    "multilabel_margin_loss": View(
        *_SCORE, _each("target", [0, -1, -1], [1, -1, -1], [0, 1, -1]), path=_ROW
    ),
    "multilabel_soft_margin_loss": View(
        *_CLASS, _each("target", [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.0]), path=_ROW
    ),
    "triplet_margin_loss": View(
        "distance of negative (of positive: 1)",
        (0.1, 4.0),
        [*_each("margin", 0.5, 1.0, 2.0), {"margin": 2.0, "swap": True}],
        varied="negative",
        path=_straight([0, 0], [1, 0]),
        fixed={"anchor": [0.0, 0.0], "positive": [1.0, 0.0]},
    ),
    "nll_loss": View(
        "input x[0], a log-probability",
        (-5.0, 0.0),
        [{"target": 0}, {"target": 0, "weight": [2.0, 1.0, 1.0]}, {"target": 1}],
        path=_ROW,
    ),
    "cross_entropy": View(
        *_CLASS,
        [
            {"target": 0},
            {"target": 0, "label_smoothing": 0.1},
            {"target": 1},
            {"target": [0.5, 0.5, 0.0]},
        ],
        path=_ROW,
    ),
    "ctc_loss": View(
        *_LABEL_AXIS, _LABELS, varied="log_probs", path=_normalised(_FRAMES), fixed=_BATCH
    ),
    "ctc_loss_with_logits": View(
        *_LABEL_AXIS, _LABELS, varied="logits", path=_FRAMES, fixed=_BATCH
    ),
}


def plot(
    loss: Loss | Criterion | str, *, span: tuple[float, float] | None = None, **options: Any
) -> "Figure":
    """Plot a loss and its derivative as functions of its input.

    The left axes show the unreduced loss, the right axes its derivative with respect to the
    quantity on the x-axis, for a few targets and options. For a row or a sequence of scores, one of
    them varies; for pairs of rows, their angle or distance.

    Parameters
    ----------
    loss : loss, criterion or str
        For example ``fl.huber_loss``, ``"huber_loss"`` or ``fl.HuberLoss(delta=2.0)``.
    span : tuple of float, optional
        Range of the x-axis. Default: a range that shows the shape of the loss.
    **options
        Options of the loss, or arguments that do not vary such as ``target``, for all curves.
        Curves that become equal are drawn once.

    Returns
    -------
    matplotlib.figure.Figure
        A figure without a window; save it with its ``savefig`` method.

    Raises
    ------
    ImportError
        If matplotlib is not installed: ``pip install 'fastloss[plot]'``.
    TypeError, ValueError, IndexError
        Errors of the loss, and ValueError for an unknown name.

    Examples
    --------
    >>> import fastloss as fl
    >>> from fastloss.plotting import plot
    >>> figure = plot(fl.huber_loss, delta=2.0)
    >>> figure.get_suptitle()
    'huber_loss: target = 0, delta = 2'
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError("plots need matplotlib: pip install 'fastloss[plot]'") from error

    function, options = _resolve(loss, options)
    view = _view(function)
    curves: list[dict[str, Any]] = []
    for curve in view.curves:
        if (combined := {**curve, **options}) not in curves:
            curves.append(combined)
    common = {k: v for k, v in curves[0].items() if all(k in c and c[k] == v for c in curves)}

    x = np.linspace(*(view.span if span is None else span), POINTS)
    figure = Figure(figsize=(7.4, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for curve, colour, line in zip(curves, COLOURS, LINES, strict=False):
        values, slopes = _curve(function, view, x, curve)
        label = _settings_text({k: v for k, v in curve.items() if k not in common})
        left.plot(x, values, line, color=colour, label=label)
        right.plot(x, slopes, line, color=colour)
    for axes, name in (left, "loss"), (right, "derivative of the loss"):
        axes.set(xlabel=view.axis, ylabel=name, axisbelow=True)
        axes.grid(color="0.88", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        ": ".join(filter(None, [function.__name__, _settings_text(common)])), fontsize="medium"
    )
    if len(curves) > 1:
        figure.legend(
            loc="outside lower center", ncols=len(curves), frameon=False, fontsize="small"
        )
    return figure


def _view(loss: Loss) -> View:
    return VIEWS.get(loss.__name__) or _elementwise_view(loss)


def _resolve(loss: Loss | Criterion | str, options: dict[str, Any]) -> tuple[Loss, dict[str, Any]]:
    """The loss function, and all options with arrays as lists, which can be compared."""
    if isinstance(loss, Criterion):
        bound = {k: v for k, v in loss.get_params().items() if k != "reduction"}
        return _resolve(loss.loss, {**bound, **options})
    if isinstance(loss, str):
        names = [name for name in losses.__all__ if isinstance(getattr(losses, name), Loss)]
        if loss not in names:
            raise ValueError(f"there is no loss {loss!r}: it must be one of {', '.join(names)}")
        return _resolve(getattr(losses, loss), options)
    arrays = {k: v.tolist() for k, v in options.items() if isinstance(v, np.ndarray)}
    return loss, {**options, **arrays}


def _curve(loss: Loss, view: View, x: Array, curve: Mapping[str, Any]) -> tuple[Array, Array]:
    """The losses and their derivatives along the path."""
    points, tangents = view.path(x)
    keywords = {**view.fixed, **curve}
    constant = [name for name in loss.operands if name in keywords and name != view.varied]
    arrays = {name: np.asarray(keywords.pop(name)) for name in constant}
    arrays = {name: np.broadcast_to(a, (x.size, *a.shape)) for name, a in arrays.items()}
    arrays[view.varied] = points
    values, gradient = loss.value_and_grad(
        *(arrays[name] for name in loss.operands), wrt=view.varied, reduction="none", **keywords
    )
    return values, (gradient * tangents).reshape(x.size, -1).sum(axis=1)


def _settings_text(settings: Mapping[str, Any]) -> str:
    """Arguments and options as text, without the lengths of targets, which are redundant."""
    return ", ".join(
        f"{name} = {_value_text(value)}"
        for name, value in settings.items()
        if name != "target_lengths"
    )


def _value_text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
