"""The losses."""
# Written by tools/make_stubs.py: change that, not this.
# fmt: off

from typing import Any, Literal, TypeAlias, overload

from numpy.typing import ArrayLike, NDArray

from fastloss._binding import Loss

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "log_cosh_loss",
    "margin_ranking_loss",
    "mse_loss",
    "nll_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
]

_Array: TypeAlias = NDArray[Any]
_Outs: TypeAlias = tuple[_Array | None, ...]

class _l1_loss(Loss):
    """Absolute error."""
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
    """Squared error."""
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
    """Absolute error, made quadratic within beta of 0."""
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
    """Squared error, made linear beyond delta."""
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

class _poisson_nll_loss(Loss):
    """Negative log-likelihood of counts, from (logarithms of) rates."""
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
    """Negative log-likelihood of normal values, by mean and variance."""
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
    """Cross entropy of two classes, from probabilities."""
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
    """Cross entropy of two classes, from logits."""
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

class _hinge_embedding_loss(Loss):
    """Distances of similar and, up to a margin, of dissimilar pairs."""
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

class _soft_margin_loss(Loss):
    """Logistic loss of labels -1 and 1."""
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

class _margin_ranking_loss(Loss):
    """Ranking of pairs: by how much the better score misses its lead."""
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

class _nll_loss(Loss):
    """Negative log-likelihood of classes, from log-probabilities."""
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

class _cross_entropy(Loss):
    """Cross entropy of classes, from logits."""
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        ignore_index: int = -100, reduction: Literal["mean", "sum"] = "mean",
        label_smoothing: float = 0.0, sample_weight: ArrayLike | None = None, out: None = None
    ) -> float: ...
    @overload
    def __call__(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        ignore_index: int = -100, reduction: Literal["none"], label_smoothing: float = 0.0,
        sample_weight: ArrayLike | None = None, out: _Array | None = None) -> _Array: ...
    def grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        ignore_index: int = -100, reduction: Literal["mean", "sum", "none"] = "mean",
        label_smoothing: float = 0.0, sample_weight: ArrayLike | None = None,
        wrt: Literal["input"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> _Array: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None,
        *, ignore_index: int = -100, reduction: Literal["mean", "sum"] = "mean",
        label_smoothing: float = 0.0, sample_weight: ArrayLike | None = None,
        wrt: Literal["input"] = "input", grad_output: ArrayLike | None = None,
        out: _Array | None = None) -> tuple[float, _Array]: ...
    @overload
    def value_and_grad(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None,
        *, ignore_index: int = -100, reduction: Literal["none"], label_smoothing: float = 0.0,
        sample_weight: ArrayLike | None = None, wrt: Literal["input"] = "input",
        grad_output: ArrayLike | None = None,
        out: tuple[_Array | None, _Array | None] | None = None) -> tuple[_Array, _Array]: ...
    def sums(self, input: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *,
        ignore_index: int = -100, reduction: Literal["mean", "sum", "none"] = "mean",
        label_smoothing: float = 0.0, sample_weight: ArrayLike | None = None
    ) -> tuple[float, float, int]: ...

cross_entropy: _cross_entropy
