"""Pictures of the losses: the value and its derivative as one argument moves.

`VIEWS` says for each loss what moves and which curves are drawn; all else follows from the loss.
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
# Okabe and Ito's colours, which the colour-blind tell apart; the lines do for print in black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
LINES = ("-", "--", "-.", ":")

Array = NDArray[np.float64]
Path = Callable[[Array], tuple[Array, Array]]


@dataclass(frozen=True)
class View:
    """What is drawn of a loss.

    `moves` is the argument that changes along the path: its entries at each number of the span,
    and the derivative of these by the number. A curve has the values of the other arguments, which
    stay, and options.
    """

    axis: str
    span: tuple[float, float]
    curves: Sequence[Mapping[str, Any]]
    moves: str = "input"
    path: Path = lambda x: (x, np.ones_like(x))
    fixed: Mapping[str, Any] = field(default_factory=dict)


def _straight(start: Any, direction: Any) -> Path:
    """From the array `start` into a direction."""
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
    """Log-probabilities of logits. The derivative stays that of the logits: see `ctc_loss`."""

    def log_softmax(x: Array) -> tuple[Array, Array]:
        logits, direction = path(x)
        return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True)), direction

    return log_softmax


def _each(name: str, *values: Any, **same: Any) -> list[dict[str, Any]]:
    """A curve for each value of an argument or option."""
    return [{**same, name: value} for value in values]


_ERROR = ("input x", (-3.0, 3.0))
_PROBABILITY = ("input x, a probability", (0.02, 0.98))
_LOGIT = ("input x, a logit", (-6.0, 6.0))
_CLASS = ("logit of class 0 (others: 0, -1)", (-6.0, 6.0))
_ROW = _straight([0, 0, -1], [1, 0, 0])
_SCORE = ("score of class 0 (others: 0, -1)", (-3.0, 3.0))
_FRAMES = _straight(np.zeros((4, 3)), np.tile([0, 1, 0], (4, 1)))
_LABEL = ("logit of label 1 in 4 frames (others: 0)", (-4.0, 6.0))
_LABELLINGS = [
    {"targets": [1], "target_lengths": 1},
    {"targets": [1, 1], "target_lengths": 2},
    {"targets": [1, 2], "target_lengths": 2},
]
_BATCH = {"input_lengths": 4, "batch_first": True}

VIEWS = {
    "l1_loss": View(*_ERROR, _each("target", 0.0, 1.0)),
    "mse_loss": View(*_ERROR, _each("target", 0.0, 1.0)),
    "smooth_l1_loss": View(*_ERROR, _each("beta", 0.5, 1.0, 2.0, target=0.0)),
    "huber_loss": View(*_ERROR, _each("delta", 0.5, 1.0, 2.0, target=0.0)),
    "log_cosh_loss": View(*_ERROR, _each("target", 0.0, 1.0)),
    "pinball_loss": View(*_ERROR, _each("quantile", 0.1, 0.5, 0.9, target=0.0)),
    "poisson_nll_loss": View("input x", (0.01, 3.0), _each("target", 1.0, 3.0, 8.0)),
    "gaussian_nll_loss": View(*_ERROR, _each("var", 0.25, 1.0, 4.0, target=0.0)),
    "gamma_nll_loss": View("input x", (0.25, 4.0), _each("target", 1.0, 3.0, 8.0)),
    "tweedie_deviance_loss": View(
        "input x", (0.4, 4.0), _each("power", 0.0, 1.0, 2.0, 3.0, target=1.0)
    ),
    "kl_div": View("input x, a log-probability", (-5.0, 0.0), _each("target", 0.1, 0.5, 1.0)),
    "binary_cross_entropy": View(*_PROBABILITY, _each("target", 0.0, 0.5, 1.0)),
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
        moves="input1",
    ),
    "cosine_embedding_loss": View(
        "angle of the rows, in radians",
        (0.0, np.pi),
        [{"target": 1}, *_each("margin", 0.0, 0.5, target=-1)],
        moves="input1",
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
        moves="negative",
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
        *_LABEL, _LABELLINGS, moves="log_probs", path=_normalised(_FRAMES), fixed=_BATCH
    ),
    "ctc_loss_with_logits": View(*_LABEL, _LABELLINGS, moves="logits", path=_FRAMES, fixed=_BATCH),
}


def plot(
    loss: Loss | Criterion | str, *, span: tuple[float, float] | None = None, **options: Any
) -> "Figure":
    """Draw a loss and its derivative as its input moves.

    On the left the unreduced loss, on the right its derivative by what the axis names, for a few
    telling targets and options. Of a row or a sequence of scores, one moves; of pairs of rows, the
    angle or the distance.

    Parameters
    ----------
    loss : loss, criterion or str
        Such as ``fl.huber_loss``, ``"huber_loss"`` or ``fl.HuberLoss(delta=2.0)``.
    span : tuple of float, optional
        Least and largest number of the axis. Default: one that shows the shape of the loss.
    **options
        Options of the loss, or arguments that do not move such as ``target``, for all curves. A
        curve that is then drawn already is left out.

    Returns
    -------
    matplotlib.figure.Figure
        It has a ``savefig`` and belongs to no window.

    Raises
    ------
    ImportError
        Without matplotlib, which ``pip install 'fastloss[plot]'`` brings.
    TypeError, ValueError, IndexError
        As the loss raises them; ValueError for a name that no loss has.

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

    chosen, options = _chosen(loss, options)
    view = VIEWS[chosen.__name__]
    curves: list[dict[str, Any]] = []
    for curve in view.curves:
        if (drawn := {**curve, **options}) not in curves:
            curves.append(drawn)
    common = {k: v for k, v in curves[0].items() if all(k in c and c[k] == v for c in curves)}

    x = np.linspace(*(view.span if span is None else span), POINTS)
    figure = Figure(figsize=(7.4, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for curve, colour, line in zip(curves, COLOURS, LINES, strict=False):
        values, slopes = _curve(chosen, view, x, curve)
        label = _listed({k: v for k, v in curve.items() if k not in common})
        left.plot(x, values, line, color=colour, label=label)
        right.plot(x, slopes, line, color=colour)
    for axes, name in (left, "loss"), (right, "derivative of the loss"):
        axes.set(xlabel=view.axis, ylabel=name, axisbelow=True)
        axes.grid(color="0.88", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(": ".join(filter(None, [chosen.__name__, _listed(common)])), fontsize="medium")
    if len(curves) > 1:
        figure.legend(
            loc="outside lower center", ncols=len(curves), frameon=False, fontsize="small"
        )
    return figure


def _chosen(loss: Loss | Criterion | str, options: dict[str, Any]) -> tuple[Loss, dict[str, Any]]:
    """The loss itself, and its options in a form that can be compared."""
    if isinstance(loss, Criterion):
        bound = {k: v for k, v in loss.get_params().items() if k != "reduction"}
        return _chosen(loss.loss, {**bound, **options})
    if isinstance(loss, str):
        if loss not in VIEWS:
            raise ValueError(f"there is no loss {loss!r}: it must be one of {', '.join(VIEWS)}")
        return _chosen(getattr(losses, loss), options)
    arrays = {k: v.tolist() for k, v in options.items() if isinstance(v, np.ndarray)}
    return loss, {**options, **arrays}


def _curve(loss: Loss, view: View, x: Array, curve: Mapping[str, Any]) -> tuple[Array, Array]:
    """The losses and their derivatives along the path."""
    points, tangents = view.path(x)
    given = {**view.fixed, **curve}
    still = [name for name in loss.operands if name in given and name != view.moves]
    arrays = {name: np.asarray(given.pop(name)) for name in still}
    arrays = {name: np.broadcast_to(a, (x.size, *a.shape)) for name, a in arrays.items()}
    arrays[view.moves] = points
    values, gradient = loss.value_and_grad(
        *(arrays[name] for name in loss.operands), wrt=view.moves, reduction="none", **given
    )
    return values, (gradient * tangents).reshape(x.size, -1).sum(axis=1)


def _listed(settings: Mapping[str, Any]) -> str:
    """In words; the lengths of targets can be seen from these."""
    return ", ".join(
        f"{name} = {_shown(value)}" for name, value in settings.items() if name != "target_lengths"
    )


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
