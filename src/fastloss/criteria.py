"""The criteria: losses with their options bound, named and parametrised as in ``torch.nn``.

They store their options unchanged and leave validation to the call, so that scikit-learn can clone
them and search over their options.
"""

import inspect
import re

import numpy as np

from fastloss import losses
from fastloss._binding import BoundLoss


class Criterion(BoundLoss):
    """A loss with its options bound.

    Call it like the loss, or use its methods ``grad``, ``value_and_grad`` and ``sums``. Arrays,
    ``sample_weight``, ``wrt``, ``grad_output`` and ``out`` are arguments of the call.

    Examples
    --------
    >>> import fastloss as fl
    >>> criterion = fl.HuberLoss(delta=2.0)
    >>> criterion([0.5, 1.0, 4.0], 0.0, sample_weight=[0, 1, 1])
    3.25
    >>> criterion.grad([0.5, 1.0, 4.0], 0.0, sample_weight=[0, 1, 1])
    array([0. , 0.5, 1. ])
    >>> criterion.set_params(reduction="sum")
    HuberLoss(reduction='sum', delta=2.0)
    """

    loss = None

    def __init_subclass__(cls, *, loss=None, positional=()):
        """Bind a loss.

        `positional` has the options that torch.nn takes by position before its deprecated ones.
        """
        super().__init_subclass__()
        if loss is None:  # a class that a user derives from a criterion
            return
        options = [p for p in loss.__signature__.parameters.values() if p.default is not p.empty]
        options = [p for p in options if p.name not in ("sample_weight", "out")]
        options.sort(key=lambda p: p.name not in positional)
        cls.loss = loss
        cls.__signature__ = inspect.Signature(
            [
                p.replace(kind=p.POSITIONAL_OR_KEYWORD if p.name in positional else p.KEYWORD_ONLY)
                for p in options
            ]
        )
        if loss.__doc__:  # python -OO removes docstrings
            cls.__doc__ = _documented(loss, [p.name for p in options])

    def __init__(self, *args, **options):
        if self.loss is None:
            raise TypeError("Criterion is the base class of the criteria and has no loss")
        bound = self.__signature__.bind(*args, **options)
        bound.apply_defaults()
        self.__dict__.update(bound.arguments)

    def __getstate__(self):
        return self.__dict__

    def get_params(self, deep=True):
        """Return the options by name.

        Parameters
        ----------
        deep : bool, default True
            Has no effect; scikit-learn passes it.

        Returns
        -------
        dict
        """
        return {name: getattr(self, name) for name in self.__signature__.parameters}

    def set_params(self, **options):
        """Change options.

        Parameters
        ----------
        **options
            New values by name.

        Returns
        -------
        Criterion
            The criterion itself.
        """
        for name, value in options.items():
            if name not in self.__signature__.parameters:
                raise ValueError(
                    f"{type(self).__name__} has no option {name!r}: "
                    f"it has {', '.join(self.__signature__.parameters)}"
                )
            setattr(self, name, value)
        return self

    def accumulator(self, *, by=None, baseline=False):
        """Return a running loss over batches; see `fastloss.Accumulator`."""
        from fastloss.evaluation.accumulators import Accumulator  # loads json and threading

        return Accumulator(self, by=by, baseline=baseline)

    def __repr__(self):
        options = ", ".join(
            f"{name}={getattr(self, name)!r}"
            for name, p in self.__signature__.parameters.items()
            if not _equal(getattr(self, name), p.default)
        )
        return f"{type(self).__name__}({options})"

    def __eq__(self, other):
        if type(other) is not type(self):
            return NotImplemented
        others = other.get_params()
        return all(_equal(value, others[name]) for name, value in self.get_params().items())

    __hash__ = None


def _equal(a, b):
    """Compare arrays by value and everything else by ==, numbers across their types."""
    if a is b:
        return True
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return a is not None and b is not None and np.array_equal(a, b)
    numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
    return bool((numbers or type(a) is type(b)) and a == b)


def _documented(loss, options):
    """Make a docstring from the one of the loss: summary, formula, and these options in order."""
    head, _, tail = loss.__doc__.partition("\n\nParameters\n----------\n")
    summary, _, description = head.partition("\n")
    entries = re.split(r"\n(?=\S)", tail.partition("\n\n")[0])
    entries = {entry.partition(" :")[0]: entry for entry in entries}
    return "\n".join(
        [
            summary,
            "",
            f"The loss `{loss.__name__}` with its options bound.",
            description,
            "",
            "Parameters",
            "----------",
            *(entries[name] for name in options),
            "",
            "See Also",
            "--------",
            f"fastloss.{loss.__name__} : Arrays of the call, return values, errors and accuracy.",
        ]
    )


# --- elementwise ----------------------------------------------------------------------------------


class L1Loss(Criterion, loss=losses.l1_loss):
    pass


class MSELoss(Criterion, loss=losses.mse_loss):
    pass


class SmoothL1Loss(Criterion, loss=losses.smooth_l1_loss):
    pass


class HuberLoss(Criterion, loss=losses.huber_loss):
    pass


class LogCoshLoss(Criterion, loss=losses.log_cosh_loss):
    pass


class PinballLoss(Criterion, loss=losses.pinball_loss):
    pass


class PoissonNLLLoss(Criterion, loss=losses.poisson_nll_loss, positional=("log_input", "full")):
    pass


class GaussianNLLLoss(Criterion, loss=losses.gaussian_nll_loss):
    pass


class GammaNLLLoss(Criterion, loss=losses.gamma_nll_loss):
    pass


class TweedieDevianceLoss(Criterion, loss=losses.tweedie_deviance_loss):
    pass


class KLDivLoss(Criterion, loss=losses.kl_div):
    pass


class BCELoss(Criterion, loss=losses.binary_cross_entropy, positional=("weight",)):
    pass


class BCEWithLogitsLoss(
    Criterion, loss=losses.binary_cross_entropy_with_logits, positional=("weight",)
):
    pass


class SigmoidFocalLoss(Criterion, loss=losses.sigmoid_focal_loss):
    pass


class SoftMarginLoss(Criterion, loss=losses.soft_margin_loss):
    pass


class HingeEmbeddingLoss(Criterion, loss=losses.hinge_embedding_loss, positional=("margin",)):
    pass


class MarginRankingLoss(Criterion, loss=losses.margin_ranking_loss, positional=("margin",)):
    pass


# --- cross_entropy, nll ---------------------------------------------------------------------------


class CrossEntropyLoss(Criterion, loss=losses.cross_entropy, positional=("weight",)):
    pass


class NLLLoss(Criterion, loss=losses.nll_loss, positional=("weight",)):
    pass


# --- margin ---------------------------------------------------------------------------------------


class MultiMarginLoss(
    Criterion, loss=losses.multi_margin_loss, positional=("p", "margin", "weight")
):
    pass


class MultiLabelMarginLoss(Criterion, loss=losses.multilabel_margin_loss):
    pass


class MultiLabelSoftMarginLoss(
    Criterion, loss=losses.multilabel_soft_margin_loss, positional=("weight",)
):
    pass


# --- embedding ------------------------------------------------------------------------------------


class CosineEmbeddingLoss(Criterion, loss=losses.cosine_embedding_loss, positional=("margin",)):
    pass


class TripletMarginLoss(
    Criterion, loss=losses.triplet_margin_loss, positional=("margin", "p", "eps", "swap")
):
    pass


# --- ctc ------------------------------------------------------------------------------------------


class CTCLoss(Criterion, loss=losses.ctc_loss, positional=("blank",)):
    pass


class CTCLossWithLogits(Criterion, loss=losses.ctc_loss_with_logits, positional=("blank",)):
    pass


__all__ = [
    name
    for name, value in globals().items()
    if isinstance(value, type) and issubclass(value, Criterion)
]
