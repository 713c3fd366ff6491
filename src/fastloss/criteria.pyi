"""The criteria."""
# Written by tools/make_stubs.py: change that, not this.
# fmt: off

from typing import Any, ClassVar, Generic, Literal, TypeAlias, overload

from numpy.typing import ArrayLike, NDArray
from typing_extensions import Self, TypeVar

from fastloss._binding import Loss
from fastloss.evaluation.accumulators import Accumulator

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CTCLoss",
    "CTCLossWithLogits",
    "CosineEmbeddingLoss",
    "Criterion",
    "CrossEntropyLoss",
    "GammaNLLLoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "LogCoshLoss",
    "MSELoss",
    "MarginRankingLoss",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PinballLoss",
    "PoissonNLLLoss",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TripletMarginLoss",
    "TweedieDevianceLoss",
]

_Array: TypeAlias = NDArray[Any]
_Outs: TypeAlias = tuple[_Array | None, ...]

_V = TypeVar("_V", default=Any)  # a float, or an array with reduction="none"

class Criterion(Generic[_V]):
    """A loss with its options bound."""
    loss: ClassVar[Loss]
    def __call__(self, *arrays: Any, **kwargs: Any) -> _V: ...
    def grad(self, *arrays: Any, **kwargs: Any) -> Any: ...
    def value_and_grad(self, *arrays: Any, **kwargs: Any) -> tuple[_V, Any]: ...
    def sums(self, *arrays: Any, **kwargs: Any) -> tuple[float, float, int]: ...
    def get_params(self, deep: bool = True) -> dict[str, Any]: ...
    def set_params(self, **options: Any) -> Self: ...
    def accumulator(
        self, *, by: Literal["class", "group"] | None = None
    ) -> Accumulator: ...

class _Criterion1(Criterion[_V]):
    def __call__(self, input: ArrayLike, target: ArrayLike, *,
        sample_weight: ArrayLike | None = None, out: _Array | None = None) -> _V: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None,
        out: _Array | tuple[_Array | None, _Array | None] | None = None) -> tuple[_V, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None,
        out: _Outs | tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_V, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *, sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

class L1Loss(_Criterion1[_V]):
    """Absolute error (L1 loss)."""
    weight: ArrayLike | None
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: L1Loss[float], *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum"] = "mean") -> None: ...
    @overload
    def __init__(self: L1Loss[_Array], *, weight: ArrayLike | None = None,
        reduction: Literal["none"]) -> None: ...

class MSELoss(_Criterion1[_V]):
    """Squared error (L2 loss)."""
    weight: ArrayLike | None
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: MSELoss[float], *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum"] = "mean") -> None: ...
    @overload
    def __init__(self: MSELoss[_Array], *, weight: ArrayLike | None = None,
        reduction: Literal["none"]) -> None: ...

class SmoothL1Loss(_Criterion1[_V]):
    """Absolute error, quadratic for errors smaller than beta."""
    reduction: Literal["mean", "sum", "none"]
    beta: float
    @overload
    def __init__(self: SmoothL1Loss[float], *, reduction: Literal["mean", "sum"] = "mean",
        beta: float = 1.0) -> None: ...
    @overload
    def __init__(self: SmoothL1Loss[_Array], *, reduction: Literal["none"], beta: float = 1.0
    ) -> None: ...

class HuberLoss(_Criterion1[_V]):
    """Squared error, linear for errors larger than delta."""
    weight: ArrayLike | None
    reduction: Literal["mean", "sum", "none"]
    delta: float
    @overload
    def __init__(self: HuberLoss[float], *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum"] = "mean", delta: float = 1.0) -> None: ...
    @overload
    def __init__(self: HuberLoss[_Array], *, weight: ArrayLike | None = None,
        reduction: Literal["none"], delta: float = 1.0) -> None: ...

class LogCoshLoss(_Criterion1[_V]):
    """Logarithm of the hyperbolic cosine of the error."""
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: LogCoshLoss[float], *, reduction: Literal["mean", "sum"] = "mean"
    ) -> None: ...
    @overload
    def __init__(self: LogCoshLoss[_Array], *, reduction: Literal["none"]) -> None: ...

class PinballLoss(_Criterion1[_V]):
    """Quantile loss: the absolute error, weighted by its sign."""
    quantile: float
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: PinballLoss[float], *, quantile: float = 0.5,
        reduction: Literal["mean", "sum"] = "mean") -> None: ...
    @overload
    def __init__(self: PinballLoss[_Array], *, quantile: float = 0.5, reduction: Literal["none"]
    ) -> None: ...

class PoissonNLLLoss(_Criterion1[_V]):
    """Poisson negative log-likelihood, given (log) rates."""
    log_input: bool
    full: bool
    eps: float
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: PoissonNLLLoss[float], log_input: bool = True, full: bool = False, *,
        eps: float = 1e-08, reduction: Literal["mean", "sum"] = "mean") -> None: ...
    @overload
    def __init__(self: PoissonNLLLoss[_Array], log_input: bool = True, full: bool = False, *,
        eps: float = 1e-08, reduction: Literal["none"]) -> None: ...

class _Criterion2(Criterion[_V]):
    def __call__(self, input: ArrayLike, target: ArrayLike, var: ArrayLike, *,
        sample_weight: ArrayLike | None = None, out: _Array | None = None) -> _V: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, var: ArrayLike, *,
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target", "var"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, var: ArrayLike, *,
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target", "var"], ...],
        grad_output: ArrayLike | None = None, out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, var: ArrayLike, *,
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target", "var"] = "input",
        grad_output: ArrayLike | None = None,
        out: _Array | tuple[_Array | None, _Array | None] | None = None) -> tuple[_V, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, var: ArrayLike, *,
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target", "var"], ...],
        grad_output: ArrayLike | None = None,
        out: _Outs | tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_V, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, var: ArrayLike, *,
        sample_weight: ArrayLike | None = None) -> tuple[float, float, int]: ...

class GaussianNLLLoss(_Criterion2[_V]):
    """Gaussian negative log-likelihood, given means and variances."""
    full: bool
    eps: float
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: GaussianNLLLoss[float], *, full: bool = False, eps: float = 1e-06,
        reduction: Literal["mean", "sum"] = "mean") -> None: ...
    @overload
    def __init__(self: GaussianNLLLoss[_Array], *, full: bool = False, eps: float = 1e-06,
        reduction: Literal["none"]) -> None: ...

class GammaNLLLoss(_Criterion1[_V]):
    """Gamma negative log-likelihood, given (log) means."""
    log_input: bool
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: GammaNLLLoss[float], *, log_input: bool = True,
        reduction: Literal["mean", "sum"] = "mean") -> None: ...
    @overload
    def __init__(self: GammaNLLLoss[_Array], *, log_input: bool = True, reduction: Literal["none"]
    ) -> None: ...

class TweedieDevianceLoss(_Criterion1[_V]):
    """Unit deviance of Tweedie distributions (normal, Poisson, gamma)."""
    power: float
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: TweedieDevianceLoss[float], *, power: float = 0.0,
        reduction: Literal["mean", "sum"] = "mean") -> None: ...
    @overload
    def __init__(self: TweedieDevianceLoss[_Array], *, power: float = 0.0,
        reduction: Literal["none"]) -> None: ...

class KLDivLoss(_Criterion1[_V]):
    """Kullback-Leibler divergence, from log-probabilities."""
    reduction: Literal["mean", "sum", "batchmean", "none"]
    log_target: bool
    @overload
    def __init__(self: KLDivLoss[float], *, reduction: Literal["mean", "sum", "batchmean"] = "mean",
        log_target: bool = False) -> None: ...
    @overload
    def __init__(self: KLDivLoss[_Array], *, reduction: Literal["none"], log_target: bool = False
    ) -> None: ...

class BCELoss(_Criterion1[_V]):
    """Binary cross entropy, from probabilities."""
    weight: ArrayLike | None
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: BCELoss[float], weight: ArrayLike | None = None, *,
        reduction: Literal["mean", "sum"] = "mean") -> None: ...
    @overload
    def __init__(self: BCELoss[_Array], weight: ArrayLike | None = None, *,
        reduction: Literal["none"]) -> None: ...

class BCEWithLogitsLoss(_Criterion1[_V]):
    """Binary cross entropy, from logits."""
    weight: ArrayLike | None
    reduction: Literal["mean", "sum", "none"]
    pos_weight: ArrayLike | None
    @overload
    def __init__(self: BCEWithLogitsLoss[float], weight: ArrayLike | None = None, *,
        reduction: Literal["mean", "sum"] = "mean", pos_weight: ArrayLike | None = None
    ) -> None: ...
    @overload
    def __init__(self: BCEWithLogitsLoss[_Array], weight: ArrayLike | None = None, *,
        reduction: Literal["none"], pos_weight: ArrayLike | None = None) -> None: ...

class SigmoidFocalLoss(_Criterion1[_V]):
    """Binary cross entropy that gives easy elements less weight."""
    alpha: float
    gamma: float
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: SigmoidFocalLoss[float], *, alpha: float = 0.25, gamma: float = 2.0,
        reduction: Literal["mean", "sum"] = "mean") -> None: ...
    @overload
    def __init__(self: SigmoidFocalLoss[_Array], *, alpha: float = 0.25, gamma: float = 2.0,
        reduction: Literal["none"]) -> None: ...

class _Criterion3(Criterion[_V]):
    def __call__(self, input: ArrayLike, target: ArrayLike, *,
        sample_weight: ArrayLike | None = None, out: _Array | None = None) -> _V: ...
    def grad(self, input: ArrayLike, target: ArrayLike, *, sample_weight: ArrayLike | None = None,
        wrt: Literal["input"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        sample_weight: ArrayLike | None = None, wrt: Literal["input"] = "input",
        grad_output: ArrayLike | None = None,
        out: _Array | tuple[_Array | None, _Array | None] | None = None) -> tuple[_V, _Array]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *, sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

class HingeEmbeddingLoss(_Criterion3[_V]):
    """Distance of similar pairs, hinge loss of dissimilar pairs."""
    margin: float
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: HingeEmbeddingLoss[float], margin: float = 1.0, *,
        reduction: Literal["mean", "sum"] = "mean") -> None: ...
    @overload
    def __init__(self: HingeEmbeddingLoss[_Array], margin: float = 1.0, *,
        reduction: Literal["none"]) -> None: ...

class SoftMarginLoss(_Criterion3[_V]):
    """Logistic loss for labels -1 and 1."""
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: SoftMarginLoss[float], *, reduction: Literal["mean", "sum"] = "mean"
    ) -> None: ...
    @overload
    def __init__(self: SoftMarginLoss[_Array], *, reduction: Literal["none"]) -> None: ...

class _Criterion4(Criterion[_V]):
    def __call__(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        sample_weight: ArrayLike | None = None, out: _Array | None = None) -> _V: ...
    @overload
    def grad(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        sample_weight: ArrayLike | None = None, wrt: Literal["input1", "input2"],
        grad_output: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input1", "input2"], ...] = ...,
        grad_output: ArrayLike | None = None, out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        sample_weight: ArrayLike | None = None, wrt: Literal["input1", "input2"],
        grad_output: ArrayLike | None = None,
        out: _Array | tuple[_Array | None, _Array | None] | None = None) -> tuple[_V, _Array]: ...
    @overload
    def value_and_grad(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input1", "input2"], ...] = ...,
        grad_output: ArrayLike | None = None,
        out: _Outs | tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_V, tuple[_Array, ...]]: ...
    def sums(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        sample_weight: ArrayLike | None = None) -> tuple[float, float, int]: ...

class MarginRankingLoss(_Criterion4[_V]):
    """Hinge loss on the score difference of ranked pairs."""
    margin: float
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: MarginRankingLoss[float], margin: float = 0.0, *,
        reduction: Literal["mean", "sum"] = "mean") -> None: ...
    @overload
    def __init__(self: MarginRankingLoss[_Array], margin: float = 0.0, *,
        reduction: Literal["none"]) -> None: ...

class CosineEmbeddingLoss(_Criterion4[_V]):
    """Cosine distance of similar rows, hinge loss of dissimilar rows."""
    margin: float
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: CosineEmbeddingLoss[float], margin: float = 0.0, *,
        reduction: Literal["mean", "sum"] = "mean") -> None: ...
    @overload
    def __init__(self: CosineEmbeddingLoss[_Array], margin: float = 0.0, *,
        reduction: Literal["none"]) -> None: ...

class MultiMarginLoss(_Criterion3[_V]):
    """Multiclass hinge loss, linear or squared."""
    p: int
    margin: float
    weight: ArrayLike | None
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: MultiMarginLoss[float], p: int = 1, margin: float = 1.0,
        weight: ArrayLike | None = None, *, reduction: Literal["mean", "sum"] = "mean") -> None: ...
    @overload
    def __init__(self: MultiMarginLoss[_Array], p: int = 1, margin: float = 1.0,
        weight: ArrayLike | None = None, *, reduction: Literal["none"]) -> None: ...

class MultiLabelMarginLoss(_Criterion3[_V]):
    """Multilabel hinge loss: labels should lead other classes by 1."""
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: MultiLabelMarginLoss[float], *, reduction: Literal["mean", "sum"] = "mean"
    ) -> None: ...
    @overload
    def __init__(self: MultiLabelMarginLoss[_Array], *, reduction: Literal["none"]) -> None: ...

class MultiLabelSoftMarginLoss(_Criterion1[_V]):
    """Binary cross entropy of several labels per row, from logits."""
    weight: ArrayLike | None
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: MultiLabelSoftMarginLoss[float], weight: ArrayLike | None = None, *,
        reduction: Literal["mean", "sum"] = "mean") -> None: ...
    @overload
    def __init__(self: MultiLabelSoftMarginLoss[_Array], weight: ArrayLike | None = None, *,
        reduction: Literal["none"]) -> None: ...

class _Criterion5(Criterion[_V]):
    def __call__(self, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *,
        sample_weight: ArrayLike | None = None, out: _Array | None = None) -> _V: ...
    @overload
    def grad(self, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *,
        sample_weight: ArrayLike | None = None, wrt: Literal["anchor", "positive", "negative"],
        grad_output: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *,
        sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["anchor", "positive", "negative"], ...] = ...,
        grad_output: ArrayLike | None = None, out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *,
        sample_weight: ArrayLike | None = None, wrt: Literal["anchor", "positive", "negative"],
        grad_output: ArrayLike | None = None,
        out: _Array | tuple[_Array | None, _Array | None] | None = None) -> tuple[_V, _Array]: ...
    @overload
    def value_and_grad(self, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *,
        sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["anchor", "positive", "negative"], ...] = ...,
        grad_output: ArrayLike | None = None,
        out: _Outs | tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_V, tuple[_Array, ...]]: ...
    def sums(self, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *,
        sample_weight: ArrayLike | None = None) -> tuple[float, float, int]: ...

class TripletMarginLoss(_Criterion5[_V]):
    """Triplet loss: hinge of distances to a positive and a negative row."""
    margin: float
    p: float
    eps: float
    swap: bool
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: TripletMarginLoss[float], margin: float = 1.0, p: float = 2.0,
        eps: float = 1e-06, swap: bool = False, *, reduction: Literal["mean", "sum"] = "mean"
    ) -> None: ...
    @overload
    def __init__(self: TripletMarginLoss[_Array], margin: float = 1.0, p: float = 2.0,
        eps: float = 1e-06, swap: bool = False, *, reduction: Literal["none"]) -> None: ...

class NLLLoss(_Criterion3[_V]):
    """Negative log-likelihood of class indices, from log-probabilities."""
    weight: ArrayLike | None
    ignore_index: int
    reduction: Literal["mean", "sum", "none"]
    @overload
    def __init__(self: NLLLoss[float], weight: ArrayLike | None = None, *, ignore_index: int = -100,
        reduction: Literal["mean", "sum"] = "mean") -> None: ...
    @overload
    def __init__(self: NLLLoss[_Array], weight: ArrayLike | None = None, *,
        ignore_index: int = -100, reduction: Literal["none"]) -> None: ...

class CrossEntropyLoss(_Criterion1[_V]):
    """Cross entropy of class indices or probabilities, from logits."""
    weight: ArrayLike | None
    ignore_index: int
    reduction: Literal["mean", "sum", "none"]
    label_smoothing: float
    @overload
    def __init__(self: CrossEntropyLoss[float], weight: ArrayLike | None = None, *,
        ignore_index: int = -100, reduction: Literal["mean", "sum"] = "mean",
        label_smoothing: float = 0.0) -> None: ...
    @overload
    def __init__(self: CrossEntropyLoss[_Array], weight: ArrayLike | None = None, *,
        ignore_index: int = -100, reduction: Literal["none"], label_smoothing: float = 0.0
    ) -> None: ...

class _Criterion6(Criterion[_V]):
    def __call__(self, log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, sample_weight: ArrayLike | None = None,
        out: _Array | None = None) -> _V: ...
    def grad(self, log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, sample_weight: ArrayLike | None = None,
        wrt: Literal["log_probs"] = "log_probs", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    def value_and_grad(self, log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, sample_weight: ArrayLike | None = None,
        wrt: Literal["log_probs"] = "log_probs", grad_output: ArrayLike | None = None,
        out: _Array | tuple[_Array | None, _Array | None] | None = None) -> tuple[_V, _Array]: ...
    def sums(self, log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

class CTCLoss(_Criterion6[_V]):
    """Connectionist temporal classification, from log-probabilities."""
    blank: int
    reduction: Literal["mean", "sum", "none"]
    zero_infinity: bool
    batch_first: bool
    @overload
    def __init__(self: CTCLoss[float], blank: int = 0, *,
        reduction: Literal["mean", "sum"] = "mean", zero_infinity: bool = False,
        batch_first: bool = False) -> None: ...
    @overload
    def __init__(self: CTCLoss[_Array], blank: int = 0, *, reduction: Literal["none"],
        zero_infinity: bool = False, batch_first: bool = False) -> None: ...

class _Criterion7(Criterion[_V]):
    def __call__(self, logits: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, sample_weight: ArrayLike | None = None,
        out: _Array | None = None) -> _V: ...
    def grad(self, logits: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, sample_weight: ArrayLike | None = None,
        wrt: Literal["logits"] = "logits", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    def value_and_grad(self, logits: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, sample_weight: ArrayLike | None = None,
        wrt: Literal["logits"] = "logits", grad_output: ArrayLike | None = None,
        out: _Array | tuple[_Array | None, _Array | None] | None = None) -> tuple[_V, _Array]: ...
    def sums(self, logits: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

class CTCLossWithLogits(_Criterion7[_V]):
    """Connectionist temporal classification, from logits."""
    blank: int
    reduction: Literal["mean", "sum", "none"]
    zero_infinity: bool
    batch_first: bool
    @overload
    def __init__(self: CTCLossWithLogits[float], blank: int = 0, *,
        reduction: Literal["mean", "sum"] = "mean", zero_infinity: bool = False,
        batch_first: bool = False) -> None: ...
    @overload
    def __init__(self: CTCLossWithLogits[_Array], blank: int = 0, *, reduction: Literal["none"],
        zero_infinity: bool = False, batch_first: bool = False) -> None: ...
