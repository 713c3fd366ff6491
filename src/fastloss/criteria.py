"""The criteria: a loss with its options bound, named and parametrised as in ``torch.nn``.

They store what they get, untouched, and leave its check to the call, so that scikit-learn can clone
and search them.
"""

import inspect
import re

import numpy as np

from fastloss import losses
from fastloss._binding import BoundLoss


class Criterion(BoundLoss):
    """A loss with its options bound.

    Call it like the loss, or use its methods ``grad``, ``value_and_grad`` and ``sums``; arrays,
    ``sample_weight``, ``wrt``, ``grad_output`` and ``out`` go to the call.

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
        """`positional`: the options that torch.nn takes by position before its deprecated ones."""
        super().__init_subclass__()
        if loss is None:  # a user's class below one of these
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
        if loss.__doc__:  # python -OO has none
            cls.__doc__ = _documented(cls.__doc__, loss, [p.name for p in options])

    def __init__(self, *args, **options):
        if self.loss is None:
            raise TypeError("Criterion is the base of the criteria and has no loss of its own")
        bound = self.__signature__.bind(*args, **options)
        bound.apply_defaults()
        self.__dict__.update(bound.arguments)

    def __getstate__(self):
        return self.__dict__

    def get_params(self, deep=True):
        """The options by name."""
        return {name: getattr(self, name) for name in self.__signature__.parameters}

    def set_params(self, **options):
        """Changes options; returns the criterion."""
        for name, value in options.items():
            if name not in self.__signature__.parameters:
                raise ValueError(
                    f"{type(self).__name__} has no option {name!r}: "
                    f"it has {', '.join(self.__signature__.parameters)}"
                )
            setattr(self, name, value)
        return self

    def accumulator(self, *, by=None):
        """A running loss over batches; see `fastloss.Accumulator`."""
        from fastloss.evaluation.accumulators import Accumulator  # loads json and threading

        return Accumulator(self, by=by)

    def __repr__(self):
        given = ", ".join(
            f"{name}={getattr(self, name)!r}"
            for name, p in self.__signature__.parameters.items()
            if not _equal(getattr(self, name), p.default)
        )
        return f"{type(self).__name__}({given})"

    def __eq__(self, other):
        if type(other) is not type(self):
            return NotImplemented
        theirs = other.get_params()
        return all(_equal(value, theirs[name]) for name, value in self.get_params().items())

    __hash__ = None


def _equal(a, b):
    """Arrays by value, everything else by ==; 1 and 1.0 are equal, True and 1 are too."""
    if a is b:
        return True
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return a is not None and b is not None and np.array_equal(a, b)
    numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
    return bool((numbers or type(a) is type(b)) and a == b)


def _documented(summary, loss, options):
    """Formula and options, in this order, from the docstring of the loss."""
    head, _, rest = loss.__doc__.partition("\n\nParameters\n----------\n")
    entries = re.split(r"\n(?=\S)", rest.partition("\n\n")[0])
    entries = {entry.partition(" :")[0]: entry for entry in entries}
    return "\n".join(
        [
            summary,
            *head.splitlines()[1:],
            "",
            "Parameters",
            "----------",
            *(entries[name] for name in options),
            "",
            "See Also",
            "--------",
            f"fastloss.{loss.__name__} : The arrays of the call, its results, errors and accuracy.",
        ]
    )


class L1Loss(Criterion, loss=losses.l1_loss):
    """`l1_loss` with its options bound."""


class MSELoss(Criterion, loss=losses.mse_loss):
    """`mse_loss` with its options bound."""


class SmoothL1Loss(Criterion, loss=losses.smooth_l1_loss):
    """`smooth_l1_loss` with its options bound."""


class HuberLoss(Criterion, loss=losses.huber_loss):
    """`huber_loss` with its options bound."""


class LogCoshLoss(Criterion, loss=losses.log_cosh_loss):
    """`log_cosh_loss` with its options bound."""


class PinballLoss(Criterion, loss=losses.pinball_loss):
    """`pinball_loss` with its options bound."""


class PoissonNLLLoss(Criterion, loss=losses.poisson_nll_loss, positional=("log_input", "full")):
    """`poisson_nll_loss` with its options bound."""


class GaussianNLLLoss(Criterion, loss=losses.gaussian_nll_loss):
    """`gaussian_nll_loss` with its options bound."""


class GammaNLLLoss(Criterion, loss=losses.gamma_nll_loss):
    """`gamma_nll_loss` with its options bound."""


class TweedieDevianceLoss(Criterion, loss=losses.tweedie_deviance_loss):
    """`tweedie_deviance_loss` with its options bound."""


class KLDivLoss(Criterion, loss=losses.kl_div):
    """`kl_div` with its options bound."""


class BCELoss(Criterion, loss=losses.binary_cross_entropy, positional=("weight",)):
    """`binary_cross_entropy` with its options bound."""


class BCEWithLogitsLoss(
    Criterion, loss=losses.binary_cross_entropy_with_logits, positional=("weight",)
):
    """`binary_cross_entropy_with_logits` with its options bound."""


class SigmoidFocalLoss(Criterion, loss=losses.sigmoid_focal_loss):
    """`sigmoid_focal_loss` with its options bound."""


class HingeEmbeddingLoss(Criterion, loss=losses.hinge_embedding_loss, positional=("margin",)):
    """`hinge_embedding_loss` with its options bound."""


class SoftMarginLoss(Criterion, loss=losses.soft_margin_loss):
    """`soft_margin_loss` with its options bound."""


class MarginRankingLoss(Criterion, loss=losses.margin_ranking_loss, positional=("margin",)):
    """`margin_ranking_loss` with its options bound."""


class CosineEmbeddingLoss(Criterion, loss=losses.cosine_embedding_loss, positional=("margin",)):
    """`cosine_embedding_loss` with its options bound."""


class MultiMarginLoss(
    Criterion, loss=losses.multi_margin_loss, positional=("p", "margin", "weight")
):
    """`multi_margin_loss` with its options bound."""


class MultiLabelMarginLoss(Criterion, loss=losses.multilabel_margin_loss):
    """`multilabel_margin_loss` with its options bound."""


class MultiLabelSoftMarginLoss(
    Criterion, loss=losses.multilabel_soft_margin_loss, positional=("weight",)
):
    """`multilabel_soft_margin_loss` with its options bound."""


class TripletMarginLoss(
    Criterion, loss=losses.triplet_margin_loss, positional=("margin", "p", "eps", "swap")
):
    """`triplet_margin_loss` with its options bound."""


class NLLLoss(Criterion, loss=losses.nll_loss, positional=("weight",)):
    """`nll_loss` with its options bound."""


class CrossEntropyLoss(Criterion, loss=losses.cross_entropy, positional=("weight",)):
    """`cross_entropy` with its options bound."""


class CTCLoss(Criterion, loss=losses.ctc_loss, positional=("blank",)):
    """`ctc_loss` with its options bound."""


class CTCLossWithLogits(Criterion, loss=losses.ctc_loss_with_logits, positional=("blank",)):
    """`ctc_loss_with_logits` with its options bound."""


__all__ = [
    name
    for name, value in globals().items()
    if isinstance(value, type) and issubclass(value, Criterion)
]
