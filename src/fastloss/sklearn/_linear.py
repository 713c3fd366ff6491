"""Linear models: the coefficients and intercepts that minimise a loss plus a ridge penalty."""

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import issparse
from sklearn.preprocessing import StandardScaler
from sklearn.utils.sparsefuncs import min_max_axis

# Rounds of smoothing: the gradient at which each stops, and its width relative to the first round.
ROUNDS = [(max(1e-3 * 0.3**i, 1e-10), max(0.3**i, 1e-4)) for i in range(30)]


class AugmentedLagrangian:
    """The smoothed loss of the method of multipliers, for a sum of max(a u, b u) over residuals u.

    With the stiffness k = (b - a)/width and a multiplier m for each residual, it is the minimum
    over v of max(a v, b v) + m (u - v) + k/2 (u - v)^2. Its derivative with respect to u, between a
    and b, is the multiplier of the next round (Rockafellar, "Augmented Lagrange multiplier
    functions and duality in nonconvex programming", 1974).
    """

    def __init__(self, hinges):
        self.hinges = hinges
        self.jump = hinges.upper - hinges.lower
        self.multiplier = self.slope = np.zeros_like(self.jump)

    def start_round(self, width):
        """Use the slopes of the last call as multipliers."""
        self.multiplier = self.slope
        self.stiffness = (self.jump / width).astype(self.jump.dtype)
        self.compliance = np.divide(
            width, self.jump, out=np.zeros_like(self.jump), where=self.jump > 0
        )

    def __call__(self, scores):
        shifted = self.hinges.residual(scores) + self.compliance * self.multiplier
        self.slope = np.clip(shifted * self.stiffness, self.hinges.lower, self.hinges.upper)
        value = self.slope * (shifted - self.compliance * self.slope / 2)
        value -= self.compliance * self.multiplier**2 / 2
        return value.sum(dtype=np.float64), self.hinges.grad_scores(self.slope)


class LinearModel:
    """The objective as a function of the coefficients of standardised features.

    Standardising makes the curvatures similar. With centers m and scales d of the columns, the
    coefficients v = d w and the constant c = b + w m give the scores
    X w + b = ((X - m)/d) v + c; X itself is not copied. With an intercept, constant columns have
    the coefficient 0.

    Parameters
    ----------
    loss : callable
        Returns the value and the gradient for scores of shape (n, outputs). The gradient is valid
        until the next call. If the loss has kinks, its attribute `hinges` is a decomposition into
        terms max(a u, b u), otherwise None.
    X : ndarray or CSR array, shape (n, features)
        Features.
    outputs : int
        Number of scores of each row.
    alpha : float
        Factor of the penalty |w|^2/2.
    total : float
        Divisor that turns the loss into a mean.
    sample_weight : ndarray, shape (n,), optional
        Weights of the rows.
    fit_intercept : bool
        Whether the model has an intercept b.
    """

    def __init__(self, loss, X, outputs, *, alpha, total, sample_weight, fit_intercept):
        self.loss, self.X, self.alpha, self.fit_intercept = loss, X, alpha, fit_intercept
        self.shape = (outputs, X.shape[1])
        scaler = StandardScaler(with_mean=not issparse(X)).fit(X, sample_weight=sample_weight)
        variance = np.where(scaler.scale_ == 1, 0, scaler.var_)  # 0 if it is only rounding error
        self.center = scaler.mean_ if fit_intercept else np.zeros(X.shape[1])
        curvature = variance + (scaler.mean_ - self.center) ** 2 + alpha / total
        self.scale = np.sqrt(np.where(curvature == 0, 1, curvature))
        low, high = min_max_axis(X, 0) if issparse(X) else (X.min(axis=0), X.max(axis=0))
        self.to_coef = np.where(bool(fit_intercept) & (low == high), 0, 1 / self.scale)

    def variables(self, coef, intercept):
        """The variables of the optimisation for coefficients and intercepts."""
        if not self.fit_intercept:
            return (coef * self.scale).ravel()
        return np.append(coef * self.scale, intercept + coef @ self.center)

    def parameters(self, variables):
        """The coefficients and intercepts for variables of the optimisation."""
        outputs, features = self.shape
        coef = variables[: outputs * features].reshape(self.shape) * self.to_coef
        if not self.fit_intercept:
            return coef, np.zeros(outputs)
        return coef, variables[outputs * features :] - coef @ self.center

    def value_and_grad(self, variables, loss=None):
        """The objective and its gradient, with `loss` instead of the model's own if given."""
        coef, intercept = self.parameters(variables)
        dtype = self.X.dtype
        scores = self.X @ coef.T.astype(dtype) + intercept.astype(dtype)
        value, grad_scores = (loss or self.loss)(scores)
        grad_constant = grad_scores.sum(axis=0, dtype=np.float64)
        grad_coef = (self.X.T @ grad_scores).T - np.outer(grad_constant, self.center)
        grad_coef = grad_coef + self.alpha * coef
        gradient = (grad_coef * self.to_coef).ravel()
        if self.fit_intercept:
            gradient = np.append(gradient, grad_constant)
        return value + self.alpha / 2 * np.vdot(coef, coef), gradient

    def minimise(self, start, intercept_only, reference, tol, max_iter):
        """Return the variables, the iterations, and None or what has not converged to `tol`.

        `intercept_only` are the variables of the model without features; its objective and gradient
        set the scale, so that `tol` does not depend on the units of features and targets. The
        gradient at `reference`, a worse model, bounds the rounding errors of that gradient.
        """
        value, gradient = self.value_and_grad(intercept_only)
        if not np.isfinite(value):
            raise ValueError(
                f"the loss is {value} where all coefficients are 0: check for huge values in X, y "
                "and sample_weight, and for weights that remove all rows"
            )
        _, reference_gradient = self.value_and_grad(reference)
        rounding = np.sqrt(np.finfo(self.X.dtype).eps) * np.abs(reference_gradient).max()
        scale = max(np.abs(gradient).max(), rounding) or 1.0
        if self.loss.hinges is None:
            result = self._descend(start, self.loss, scale, tol, max_iter)
            norm = np.abs(result.jac).max()
            return result.x, result.nit, None if norm <= tol else f"gradient {norm:.1e}"
        variables, iterations, gap = self._smooth_and_descend(start, value, scale, tol, max_iter)
        return variables, iterations, None if gap <= tol else f"gap {gap:.1e}"

    def _descend(self, start, loss, scale, tol, max_iter):
        def function(variables):
            value, gradient = self.value_and_grad(variables, loss)
            return value / scale, gradient / scale

        options = {
            "gtol": tol,
            "ftol": 0,
            "maxiter": max_iter,
            "maxfun": 20 * max_iter,
            "maxcor": 20,
        }
        return minimize(function, start, jac=True, method="L-BFGS-B", options=options)

    def _smooth_and_descend(self, start, intercept_only_value, scale, tol, max_iter):
        """The method of multipliers: minimise an augmented Lagrangian in each round.

        The minimum of a round is a lower bound of the objective's minimum, which gives the gap. It
        is only as accurate as the round's own convergence, so the last round must converge to about
        `tol` as well.
        """
        variables, iterations, gap = start, 0, 0.0
        value, _ = self.value_and_grad(start)
        lagrangian = AugmentedLagrangian(self.loss.hinges)
        first_width = value / lagrangian.jump.sum(dtype=np.float64)
        for gtol, width in ROUNDS if first_width > 0 else ():
            lagrangian.start_round(first_width * width)
            result = self._descend(variables, lagrangian, scale, gtol, max_iter - iterations)
            variables, iterations = result.x, iterations + result.nit
            value, _ = self.value_and_grad(variables)
            bound, _ = self.value_and_grad(variables, lagrangian)
            gap = (value - bound) / intercept_only_value
            if (gap <= tol and gtol <= 3 * tol) or iterations >= max_iter:
                break
        return variables, iterations, gap
