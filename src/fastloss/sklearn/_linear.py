"""Linear models: the coefficients and intercepts that minimise a loss of X W' + b and a penalty."""

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import issparse
from sklearn.preprocessing import StandardScaler
from sklearn.utils.sparsefuncs import min_max_axis

# Rounds of smoothing: the gradient at which each ends, and its width in parts of the first one.
ROUNDS = [(max(1e-3 * 0.3**i, 1e-10), max(0.3**i, 1e-4)) for i in range(30)]


class Smoothed:
    """A sum of max(a u, b u) of residuals u, each kink rounded off over a width, and shifted.

    With k = (b - a)/width and a multiplier m, it is the least over v of
    max(a v, b v) + m (u - v) + k/2 (u - v)^2, and its slope by u, from a to b, is the next round's
    multiplier (Rockafellar, "Augmented Lagrange multiplier functions and duality", 1974).
    """

    def __init__(self, kinks):
        self.kinks = kinks
        self.jump = kinks.upper - kinks.lower
        self.multiplier = self.slope = np.zeros_like(self.jump)

    def start_round(self, width):
        """Takes the slopes of the last call as the shift."""
        self.multiplier = self.slope
        self.stiffness = (self.jump / width).astype(self.jump.dtype)
        self.softness = np.divide(
            width, self.jump, out=np.zeros_like(self.jump), where=self.jump > 0
        )

    def __call__(self, scores):
        shifted = self.kinks.residual(scores) + self.softness * self.multiplier
        self.slope = np.clip(shifted * self.stiffness, self.kinks.lower, self.kinks.upper)
        value = self.slope * (shifted - self.softness * self.slope / 2)
        value -= self.softness * self.multiplier**2 / 2
        return value.sum(dtype=np.float64), self.kinks.by_scores(self.slope)


class LinearModel:
    """The objective by coefficients of standardised columns, whose curvatures are alike.

    With centers m and scales d of the columns, the coefficients v = d w and the constant
    c = b + w m give the scores X w + b = ((X - m)/d) v + c; X itself stays as it is. Where there is
    b, columns that do not vary have the coefficient 0.

    Parameters
    ----------
    loss : callable
        From scores, (n, outputs), to its value and its gradient by them, which holds until the next
        call. Its attribute `kinks` tells where it has no gradient, or is None.
    X : ndarray or CSR array, shape (n, features)
        Features.
    outputs : int
        Number of scores of a row.
    alpha : float
        Factor of the penalty |w|^2/2.
    total : float
        The divisor that the loss lacks to be a mean.
    sample_weight : ndarray, shape (n,), optional
        Weights of the rows.
    fit_intercept : bool
        Whether there is b.
    """

    def __init__(self, loss, X, outputs, *, alpha, total, sample_weight, fit_intercept):
        self.loss, self.X, self.alpha, self.fit_intercept = loss, X, alpha, fit_intercept
        self.shape = (outputs, X.shape[1])
        columns = StandardScaler(with_mean=not issparse(X)).fit(X, sample_weight=sample_weight)
        squares = np.where(columns.scale_ == 1, 0, columns.var_)  # no more than rounding: constant
        self.center = columns.mean_ if fit_intercept else np.zeros(X.shape[1])
        squares = squares + (columns.mean_ - self.center) ** 2 + alpha / total
        self.scale = np.sqrt(np.where(squares == 0, 1, squares))
        low, high = min_max_axis(X, 0) if issparse(X) else (X.min(axis=0), X.max(axis=0))
        self.to_coef = np.where(bool(fit_intercept) & (low == high), 0, 1 / self.scale)

    def variables(self, coef, intercept):
        """What is varied, of coefficients and intercepts."""
        if not self.fit_intercept:
            return (coef * self.scale).ravel()
        return np.append(coef * self.scale, intercept + coef @ self.center)

    def parameters(self, variables):
        """Coefficients and intercepts."""
        outputs, features = self.shape
        coef = variables[: outputs * features].reshape(self.shape) * self.to_coef
        if not self.fit_intercept:
            return coef, np.zeros(outputs)
        return coef, variables[outputs * features :] - coef @ self.center

    def value_and_grad(self, variables, loss=None):
        """The objective, of another loss if given, and its gradient."""
        coef, intercept = self.parameters(variables)
        dtype = self.X.dtype
        scores = self.X @ coef.T.astype(dtype) + intercept.astype(dtype)
        value, by_scores = (loss or self.loss)(scores)
        by_constant = by_scores.sum(axis=0, dtype=np.float64)
        by_coef = (self.X.T @ by_scores).T - np.outer(by_constant, self.center) + self.alpha * coef
        gradient = (by_coef * self.to_coef).ravel()
        if self.fit_intercept:
            gradient = np.append(gradient, by_constant)
        return value + self.alpha / 2 * np.vdot(coef, coef), gradient

    def minimise(self, start, null, other, tol, max_iter):
        """Variables, iterations and, if they do not reach `tol`, how far they are.

        `null` are the variables of a model that knows no features. What it gives is the unit of the
        objective and its gradient, so that `tol` depends on no unit of features and targets. The
        gradient of `other` tells which part of that is rounding.
        """
        value, gradient = self.value_and_grad(null)
        if not np.isfinite(value):
            raise ValueError(
                f"the loss is {value} where all coefficients are 0: look for huge values in X, y "
                "and sample_weight and for weights that remove all rows"
            )
        _, at_other = self.value_and_grad(other)
        rounding = np.sqrt(np.finfo(self.X.dtype).eps) * np.abs(at_other).max()
        unit = max(np.abs(gradient).max(), rounding) or 1.0
        if self.loss.kinks is None:
            result = self._descend(start, self.loss, unit, tol, max_iter)
            reached = np.abs(result.jac).max()
            return result.x, result.nit, None if reached <= tol else f"gradient {reached:.1e}"
        variables, iterations, gap = self._smooth_and_descend(start, value, unit, tol, max_iter)
        return variables, iterations, None if gap <= tol else f"gap {gap:.1e}"

    def _descend(self, start, loss, unit, tol, max_iter):
        def function(variables):
            value, gradient = self.value_and_grad(variables, loss)
            return value / unit, gradient / unit

        options = {
            "gtol": tol,
            "ftol": 0,
            "maxiter": max_iter,
            "maxfun": 20 * max_iter,
            "maxcor": 20,
        }
        return minimize(function, start, jac=True, method="L-BFGS-B", options=options)

    def _smooth_and_descend(self, start, null_value, unit, tol, max_iter):
        """The method of multipliers: smoothed kinks are shifted until the smoothing does nothing.

        The minimum of each round is a lower bound of the objective's, so the gap is known, as far
        as the round came near its minimum: the last one has to come about as near as `tol`.
        """
        variables, iterations, gap = start, 0, 0.0
        value, _ = self.value_and_grad(start)
        smoothed = Smoothed(self.loss.kinks)
        first = value / smoothed.jump.sum(dtype=np.float64)
        for gtol, width in ROUNDS if first > 0 else ():
            smoothed.start_round(first * width)
            result = self._descend(variables, smoothed, unit, gtol, max_iter - iterations)
            variables, iterations = result.x, iterations + result.nit
            value, _ = self.value_and_grad(variables)
            bound, _ = self.value_and_grad(variables, smoothed)
            gap = (value - bound) / null_value
            if (gap <= tol and gtol <= 3 * tol) or iterations >= max_iter:
                break
        return variables, iterations, gap
