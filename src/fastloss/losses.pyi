"""The losses."""
# Written by tools/make_stubs.py: change that, not this.
# fmt: off

from typing import Any, Literal, TypeAlias, overload

from numpy.typing import ArrayLike, NDArray

from fastloss._binding import Loss

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cosine_embedding_loss",
    "cross_entropy",
    "ctc_loss",
    "ctc_loss_with_logits",
    "ctc_posteriors",
    "gamma_nll_loss",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "log_cosh_loss",
    "margin_ranking_loss",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "pinball_loss",
    "poisson_nll_loss",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "tweedie_deviance_loss",
]

_Array: TypeAlias = NDArray[Any]
_Outs: TypeAlias = tuple[_Array | None, ...]

class _l1_loss(Loss):
    """Absolute error (L1 loss)."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        weight: ArrayLike | None = None, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None
    ) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        weight: ArrayLike | None = None, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: _Outs | None = None
    ) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        weight: ArrayLike | None = None, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        weight: ArrayLike | None = None, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

l1_loss: _l1_loss

class _mse_loss(Loss):
    """Squared error (L2 loss)."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        weight: ArrayLike | None = None, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None
    ) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        weight: ArrayLike | None = None, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: _Outs | None = None
    ) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        weight: ArrayLike | None = None, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        weight: ArrayLike | None = None, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

mse_loss: _mse_loss

class _smooth_l1_loss(Loss):
    """Absolute error, quadratic for errors smaller than beta."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum"] = "mean", beta: float = 1.0,
        sample_weight: ArrayLike | None = None, out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, reduction: Literal["none"],
        beta: float = 1.0, sample_weight: ArrayLike | None = None, out: _Array | None = None
    ) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum", "none"] = "mean", beta: float = 1.0,
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum", "none"] = "mean", beta: float = 1.0,
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum"] = "mean", beta: float = 1.0,
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None
    ) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum"] = "mean", beta: float = 1.0,
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: _Outs | None = None
    ) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, reduction: Literal["none"],
        beta: float = 1.0, sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, reduction: Literal["none"],
        beta: float = 1.0, sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum", "none"] = "mean", beta: float = 1.0,
        sample_weight: ArrayLike | None = None) -> tuple[float, float, int]: ...

smooth_l1_loss: _smooth_l1_loss

class _huber_loss(Loss):
    """Squared error, linear for errors larger than delta."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum"] = "mean", delta: float = 1.0,
        sample_weight: ArrayLike | None = None, out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["none"], delta: float = 1.0, sample_weight: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean", delta: float = 1.0,
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean", delta: float = 1.0,
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        weight: ArrayLike | None = None, reduction: Literal["mean", "sum"] = "mean",
        delta: float = 1.0, sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        weight: ArrayLike | None = None, reduction: Literal["mean", "sum"] = "mean",
        delta: float = 1.0, sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        weight: ArrayLike | None = None, reduction: Literal["none"], delta: float = 1.0,
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        weight: ArrayLike | None = None, reduction: Literal["none"], delta: float = 1.0,
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean", delta: float = 1.0,
        sample_weight: ArrayLike | None = None) -> tuple[float, float, int]: ...

huber_loss: _huber_loss

class _log_cosh_loss(Loss):
    """Logarithm of the hyperbolic cosine of the error."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

log_cosh_loss: _log_cosh_loss

class _pinball_loss(Loss):
    """Quantile loss: the absolute error, weighted by its sign."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, quantile: float = 0.5,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, quantile: float = 0.5,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, quantile: float = 0.5,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, quantile: float = 0.5,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, quantile: float = 0.5,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, quantile: float = 0.5,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, quantile: float = 0.5,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, quantile: float = 0.5,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *, quantile: float = 0.5,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

pinball_loss: _pinball_loss

class _poisson_nll_loss(Loss):
    """Poisson negative log-likelihood, given (log) rates."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        full: bool = False, eps: float = 1e-08, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        full: bool = False, eps: float = 1e-08, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        full: bool = False, eps: float = 1e-08, reduction: Literal["mean", "sum", "none"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        full: bool = False, eps: float = 1e-08, reduction: Literal["mean", "sum", "none"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        full: bool = False, eps: float = 1e-08, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None
    ) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        full: bool = False, eps: float = 1e-08, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: _Outs | None = None
    ) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        full: bool = False, eps: float = 1e-08, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        full: bool = False, eps: float = 1e-08, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        full: bool = False, eps: float = 1e-08, reduction: Literal["mean", "sum", "none"] = "mean",
        sample_weight: ArrayLike | None = None) -> tuple[float, float, int]: ...

poisson_nll_loss: _poisson_nll_loss

class _gaussian_nll_loss(Loss):
    """Gaussian negative log-likelihood, given means and variances."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, var: ArrayLike, *, full: bool = False,
        eps: float = 1e-06, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, var: ArrayLike, *, full: bool = False,
        eps: float = 1e-06, reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, var: ArrayLike, *, full: bool = False,
        eps: float = 1e-06, reduction: Literal["mean", "sum", "none"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target", "var"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, var: ArrayLike, *, full: bool = False,
        eps: float = 1e-06, reduction: Literal["mean", "sum", "none"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target", "var"], ...],
        grad_output: ArrayLike | None = None, out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, var: ArrayLike, *,
        full: bool = False, eps: float = 1e-06, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target", "var"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None
    ) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, var: ArrayLike, *,
        full: bool = False, eps: float = 1e-06, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target", "var"], ...],
        grad_output: ArrayLike | None = None, out: _Outs | None = None
    ) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, var: ArrayLike, *,
        full: bool = False, eps: float = 1e-06, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target", "var"] = "input",
        grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, var: ArrayLike, *,
        full: bool = False, eps: float = 1e-06, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target", "var"], ...],
        grad_output: ArrayLike | None = None, out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, var: ArrayLike, *, full: bool = False,
        eps: float = 1e-06, reduction: Literal["mean", "sum", "none"] = "mean",
        sample_weight: ArrayLike | None = None) -> tuple[float, float, int]: ...

gaussian_nll_loss: _gaussian_nll_loss

class _gamma_nll_loss(Loss):
    """Gamma negative log-likelihood, given (log) means."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *, log_input: bool = True,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

gamma_nll_loss: _gamma_nll_loss

class _tweedie_deviance_loss(Loss):
    """Unit deviance of Tweedie distributions (normal, Poisson, gamma)."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, power: float = 0.0,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, power: float = 0.0,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, power: float = 0.0,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, power: float = 0.0,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, power: float = 0.0,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, power: float = 0.0,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, power: float = 0.0,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, power: float = 0.0,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *, power: float = 0.0,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

tweedie_deviance_loss: _tweedie_deviance_loss

class _kl_div(Loss):
    """Kullback-Leibler divergence, from log-probabilities."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum", "batchmean"] = "mean", log_target: bool = False,
        sample_weight: ArrayLike | None = None, out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, reduction: Literal["none"],
        log_target: bool = False, sample_weight: ArrayLike | None = None, out: _Array | None = None
    ) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum", "batchmean", "none"] = "mean", log_target: bool = False,
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum", "batchmean", "none"] = "mean", log_target: bool = False,
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum", "batchmean"] = "mean", log_target: bool = False,
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None
    ) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum", "batchmean"] = "mean", log_target: bool = False,
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: _Outs | None = None
    ) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, reduction: Literal["none"],
        log_target: bool = False, sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, reduction: Literal["none"],
        log_target: bool = False, sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum", "batchmean", "none"] = "mean", log_target: bool = False,
        sample_weight: ArrayLike | None = None) -> tuple[float, float, int]: ...

kl_div: _kl_div

class _binary_cross_entropy(Loss):
    """Binary cross entropy, from probabilities."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None,
        *, reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None,
        *, reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None,
        *, reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None,
        *, reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

binary_cross_entropy: _binary_cross_entropy

class _binary_cross_entropy_with_logits(Loss):
    """Binary cross entropy, from logits."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        reduction: Literal["mean", "sum"] = "mean", pos_weight: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None, out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        reduction: Literal["none"], pos_weight: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        reduction: Literal["mean", "sum", "none"] = "mean", pos_weight: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        reduction: Literal["mean", "sum", "none"] = "mean", pos_weight: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None,
        *, reduction: Literal["mean", "sum"] = "mean", pos_weight: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None
    ) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None,
        *, reduction: Literal["mean", "sum"] = "mean", pos_weight: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: _Outs | None = None
    ) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None,
        *, reduction: Literal["none"], pos_weight: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None,
        *, reduction: Literal["none"], pos_weight: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        reduction: Literal["mean", "sum", "none"] = "mean", pos_weight: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None) -> tuple[float, float, int]: ...

binary_cross_entropy_with_logits: _binary_cross_entropy_with_logits

class _sigmoid_focal_loss(Loss):
    """Binary cross entropy that gives easy elements less weight."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, alpha: float = 0.25,
        gamma: float = 2.0, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, alpha: float = 0.25,
        gamma: float = 2.0, reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, alpha: float = 0.25, gamma: float = 2.0,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, alpha: float = 0.25, gamma: float = 2.0,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, alpha: float = 0.25,
        gamma: float = 2.0, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None
    ) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, alpha: float = 0.25,
        gamma: float = 2.0, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: _Outs | None = None
    ) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, alpha: float = 0.25,
        gamma: float = 2.0, reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, alpha: float = 0.25,
        gamma: float = 2.0, reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *, alpha: float = 0.25, gamma: float = 2.0,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

sigmoid_focal_loss: _sigmoid_focal_loss

class _soft_margin_loss(Loss):
    """Logistic loss for labels -1 and 1."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    def grad(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, wrt: Literal["input"] = "input",
        grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

soft_margin_loss: _soft_margin_loss

class _hinge_embedding_loss(Loss):
    """Distance of similar pairs, hinge loss of dissimilar pairs."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, margin: float = 1.0,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, margin: float = 1.0,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    def grad(self, input: ArrayLike, target: ArrayLike, *, margin: float = 1.0,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, margin: float = 1.0,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, margin: float = 1.0,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: Literal["input"] = "input", grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *, margin: float = 1.0,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

hinge_embedding_loss: _hinge_embedding_loss

class _margin_ranking_loss(Loss):
    """Hinge loss on the score difference of ranked pairs."""
    @overload
    def __call__(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        margin: float = 0.0, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, out: None = None) -> float: ...
    @overload
    def __call__(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        margin: float = 0.0, reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *, margin: float = 0.0,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input1", "input2"], grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *, margin: float = 0.0,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input1", "input2"], ...] = ..., grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        margin: float = 0.0, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: Literal["input1", "input2"],
        grad_output: ArrayLike | None = None, out: _Array | None = None
    ) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        margin: float = 0.0, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input1", "input2"], ...] = ...,
        grad_output: ArrayLike | None = None, out: _Outs | None = None
    ) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        margin: float = 0.0, reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: Literal["input1", "input2"], grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        margin: float = 0.0, reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input1", "input2"], ...] = ..., grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *, margin: float = 0.0,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

margin_ranking_loss: _margin_ranking_loss

class _cross_entropy(Loss):
    """Cross entropy of class indices or probabilities, from logits."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        ignore_index: int = -100, reduction: Literal["mean", "sum"] = "mean",
        label_smoothing: float = 0.0, sample_weight: ArrayLike | None = None, out: None = None
    ) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        ignore_index: int = -100, reduction: Literal["none"], label_smoothing: float = 0.0,
        sample_weight: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        ignore_index: int = -100, reduction: Literal["mean", "sum", "none"] = "mean",
        label_smoothing: float = 0.0, sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        ignore_index: int = -100, reduction: Literal["mean", "sum", "none"] = "mean",
        label_smoothing: float = 0.0, sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None,
        *, ignore_index: int = -100, reduction: Literal["mean", "sum"] = "mean",
        label_smoothing: float = 0.0, sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None,
        *, ignore_index: int = -100, reduction: Literal["mean", "sum"] = "mean",
        label_smoothing: float = 0.0, sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None,
        *, ignore_index: int = -100, reduction: Literal["none"], label_smoothing: float = 0.0,
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None,
        *, ignore_index: int = -100, reduction: Literal["none"], label_smoothing: float = 0.0,
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        ignore_index: int = -100, reduction: Literal["mean", "sum", "none"] = "mean",
        label_smoothing: float = 0.0, sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

cross_entropy: _cross_entropy

class _nll_loss(Loss):
    """Negative log-likelihood of class indices, from log-probabilities."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        ignore_index: int = -100, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        ignore_index: int = -100, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    def grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        ignore_index: int = -100, reduction: Literal["mean", "sum", "none"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: Literal["input"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None,
        *, ignore_index: int = -100, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: Literal["input"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None
    ) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None,
        *, ignore_index: int = -100, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, wrt: Literal["input"] = "input",
        grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        ignore_index: int = -100, reduction: Literal["mean", "sum", "none"] = "mean",
        sample_weight: ArrayLike | None = None) -> tuple[float, float, int]: ...

nll_loss: _nll_loss

class _multi_margin_loss(Loss):
    """Multiclass hinge loss, linear or squared."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, p: int = 1, margin: float = 1.0,
        weight: ArrayLike | None = None, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, p: int = 1, margin: float = 1.0,
        weight: ArrayLike | None = None, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    def grad(self, input: ArrayLike, target: ArrayLike, *, p: int = 1, margin: float = 1.0,
        weight: ArrayLike | None = None, reduction: Literal["mean", "sum", "none"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: Literal["input"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, p: int = 1,
        margin: float = 1.0, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, p: int = 1,
        margin: float = 1.0, weight: ArrayLike | None = None, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, wrt: Literal["input"] = "input",
        grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *, p: int = 1, margin: float = 1.0,
        weight: ArrayLike | None = None, reduction: Literal["mean", "sum", "none"] = "mean",
        sample_weight: ArrayLike | None = None) -> tuple[float, float, int]: ...

multi_margin_loss: _multi_margin_loss

class _multilabel_margin_loss(Loss):
    """Multilabel hinge loss: labels should lead other classes by 1."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    def grad(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, wrt: Literal["input"] = "input",
        grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

multilabel_margin_loss: _multilabel_margin_loss

class _multilabel_soft_margin_loss(Loss):
    """Binary cross entropy of several labels per row, from logits."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        out: None = None) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input", "target"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input", "target"], ...], grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        weight: ArrayLike | None = None, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None, out: _Array | None = None
    ) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        weight: ArrayLike | None = None, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: _Outs | None = None
    ) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        weight: ArrayLike | None = None, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, wrt: Literal["input", "target"] = "input",
        grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, *,
        weight: ArrayLike | None = None, reduction: Literal["none"],
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input", "target"], ...],
        grad_output: ArrayLike | None = None, out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

multilabel_soft_margin_loss: _multilabel_soft_margin_loss

class _cosine_embedding_loss(Loss):
    """Cosine distance of similar rows, hinge loss of dissimilar rows."""
    @overload
    def __call__(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        margin: float = 0.0, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, out: None = None) -> float: ...
    @overload
    def __call__(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        margin: float = 0.0, reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *, margin: float = 0.0,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["input1", "input2"], grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *, margin: float = 0.0,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input1", "input2"], ...] = ..., grad_output: ArrayLike | None = None,
        out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        margin: float = 0.0, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: Literal["input1", "input2"],
        grad_output: ArrayLike | None = None, out: _Array | None = None
    ) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        margin: float = 0.0, reduction: Literal["mean", "sum"] = "mean",
        sample_weight: ArrayLike | None = None, wrt: tuple[Literal["input1", "input2"], ...] = ...,
        grad_output: ArrayLike | None = None, out: _Outs | None = None
    ) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        margin: float = 0.0, reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: Literal["input1", "input2"], grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *,
        margin: float = 0.0, reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["input1", "input2"], ...] = ..., grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, input1: ArrayLike, input2: ArrayLike, target: ArrayLike, *, margin: float = 0.0,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

cosine_embedding_loss: _cosine_embedding_loss

class _triplet_margin_loss(Loss):
    """Triplet loss: hinge of distances to a positive and a negative row."""
    @overload
    def __call__(self, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *,
        margin: float = 1.0, p: float = 2.0, eps: float = 1e-06, swap: bool = False,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        out: None = None) -> float: ...
    @overload
    def __call__(self, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *,
        margin: float = 1.0, p: float = 2.0, eps: float = 1e-06, swap: bool = False,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *,
        margin: float = 1.0, p: float = 2.0, eps: float = 1e-06, swap: bool = False,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["anchor", "positive", "negative"], grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def grad(self, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *,
        margin: float = 1.0, p: float = 2.0, eps: float = 1e-06, swap: bool = False,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["anchor", "positive", "negative"], ...] = ...,
        grad_output: ArrayLike | None = None, out: _Outs | None = None) -> tuple[_Array, ...]: ...
    @overload
    def value_and_grad(self, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *,
        margin: float = 1.0, p: float = 2.0, eps: float = 1e-06, swap: bool = False,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: Literal["anchor", "positive", "negative"], grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *,
        margin: float = 1.0, p: float = 2.0, eps: float = 1e-06, swap: bool = False,
        reduction: Literal["mean", "sum"] = "mean", sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["anchor", "positive", "negative"], ...] = ...,
        grad_output: ArrayLike | None = None, out: _Outs | None = None
    ) -> tuple[float, tuple[_Array, ...]]: ...
    @overload
    def value_and_grad(self, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *,
        margin: float = 1.0, p: float = 2.0, eps: float = 1e-06, swap: bool = False,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: Literal["anchor", "positive", "negative"], grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    @overload
    def value_and_grad(self, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *,
        margin: float = 1.0, p: float = 2.0, eps: float = 1e-06, swap: bool = False,
        reduction: Literal["none"], sample_weight: ArrayLike | None = None,
        wrt: tuple[Literal["anchor", "positive", "negative"], ...] = ...,
        grad_output: ArrayLike | None = None, out: tuple[_Array | None, _Outs | None] | None = None
    ) -> tuple[_Array, tuple[_Array, ...]]: ...
    def sums(self, anchor: ArrayLike, positive: ArrayLike, negative: ArrayLike, *,
        margin: float = 1.0, p: float = 2.0, eps: float = 1e-06, swap: bool = False,
        reduction: Literal["mean", "sum", "none"] = "mean", sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

triplet_margin_loss: _triplet_margin_loss

class _ctc_loss(Loss):
    """Connectionist temporal classification, from log-probabilities."""
    @overload
    def __call__(self, log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, blank: int = 0, reduction: Literal["mean", "sum"] = "mean",
        zero_infinity: bool = False, batch_first: bool = False,
        sample_weight: ArrayLike | None = None, out: None = None) -> float: ...
    @overload
    def __call__(self, log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, blank: int = 0, reduction: Literal["none"],
        zero_infinity: bool = False, batch_first: bool = False,
        sample_weight: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    def grad(self, log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, blank: int = 0,
        reduction: Literal["mean", "sum", "none"] = "mean", zero_infinity: bool = False,
        batch_first: bool = False, sample_weight: ArrayLike | None = None,
        wrt: Literal["log_probs"] = "log_probs", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def value_and_grad(self, log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, blank: int = 0, reduction: Literal["mean", "sum"] = "mean",
        zero_infinity: bool = False, batch_first: bool = False,
        sample_weight: ArrayLike | None = None, wrt: Literal["log_probs"] = "log_probs",
        grad_output: ArrayLike | None = None, out: _Array | None = None
    ) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, blank: int = 0, reduction: Literal["none"],
        zero_infinity: bool = False, batch_first: bool = False,
        sample_weight: ArrayLike | None = None, wrt: Literal["log_probs"] = "log_probs",
        grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    def sums(self, log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, blank: int = 0,
        reduction: Literal["mean", "sum", "none"] = "mean", zero_infinity: bool = False,
        batch_first: bool = False, sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

ctc_loss: _ctc_loss

class _ctc_loss_with_logits(Loss):
    """Connectionist temporal classification, from logits."""
    @overload
    def __call__(self, logits: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, blank: int = 0, reduction: Literal["mean", "sum"] = "mean",
        zero_infinity: bool = False, batch_first: bool = False,
        sample_weight: ArrayLike | None = None, out: None = None) -> float: ...
    @overload
    def __call__(self, logits: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, blank: int = 0, reduction: Literal["none"],
        zero_infinity: bool = False, batch_first: bool = False,
        sample_weight: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    def grad(self, logits: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, blank: int = 0,
        reduction: Literal["mean", "sum", "none"] = "mean", zero_infinity: bool = False,
        batch_first: bool = False, sample_weight: ArrayLike | None = None,
        wrt: Literal["logits"] = "logits", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def value_and_grad(self, logits: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, blank: int = 0, reduction: Literal["mean", "sum"] = "mean",
        zero_infinity: bool = False, batch_first: bool = False,
        sample_weight: ArrayLike | None = None, wrt: Literal["logits"] = "logits",
        grad_output: ArrayLike | None = None, out: _Array | None = None
    ) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, logits: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, blank: int = 0, reduction: Literal["none"],
        zero_infinity: bool = False, batch_first: bool = False,
        sample_weight: ArrayLike | None = None, wrt: Literal["logits"] = "logits",
        grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    def sums(self, logits: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike,
        target_lengths: ArrayLike, *, blank: int = 0,
        reduction: Literal["mean", "sum", "none"] = "mean", zero_infinity: bool = False,
        batch_first: bool = False, sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

ctc_loss_with_logits: _ctc_loss_with_logits

def ctc_posteriors(
    log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike, target_lengths: ArrayLike,
    *, blank: int = 0, batch_first: bool = False, out: _Array | None = None,
) -> _Array: ...
