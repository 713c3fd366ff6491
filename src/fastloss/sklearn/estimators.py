"""Linear models that minimise a criterion: `LossClassifier` and `LossRegressor`."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_scalar
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from fastloss import criteria
from fastloss.sklearn._inputs import check_entries
from fastloss.sklearn._linear import LinearModel
from fastloss.sklearn._objectives import ClassScores, Elementwise, LogLink

if TYPE_CHECKING:
    from typing_extensions import Self

_Array = NDArray[Any]
_Features = Any  # an array_like or a sparse matrix


class ClassTargets(NamedTuple):
    """How a criterion represents classes: the labels it takes, and what its scores are."""

    labels: tuple[int, int] | None  # of the two classes; None: indices of any number of classes
    scores_are_logits: bool = False
    extra_args: tuple[float, ...] = ()  # arguments between the scores and the labels


CLASSIFIERS: dict[type[criteria.Criterion], ClassTargets] = {
    criteria.CrossEntropyLoss: ClassTargets(None, scores_are_logits=True),
    criteria.MultiMarginLoss: ClassTargets(None),
    criteria.BCEWithLogitsLoss: ClassTargets((0, 1), scores_are_logits=True),
    criteria.SigmoidFocalLoss: ClassTargets((0, 1), scores_are_logits=True),
    criteria.SoftMarginLoss: ClassTargets((-1, 1), scores_are_logits=True),
    criteria.MarginRankingLoss: ClassTargets((-1, 1), extra_args=(0.0,)),  # against 0: hinge loss
}
IDENTITY_LINK: tuple[type[criteria.Criterion], ...] = (
    criteria.MSELoss,
    criteria.L1Loss,
    criteria.SmoothL1Loss,
    criteria.HuberLoss,
    criteria.LogCoshLoss,
    criteria.PinballLoss,
)
LOG_LINK: tuple[type[criteria.Criterion], ...] = (
    criteria.PoissonNLLLoss,
    criteria.GammaNLLLoss,
    criteria.TweedieDevianceLoss,
)


class _LossModel(BaseEstimator):
    """The parameters, validation and solver of both models."""

    coef_: _Array
    intercept_: Any  # an array, or the float of a regressor with one output
    n_iter_: int
    n_features_in_: int
    feature_names_in_: _Array

    def __init__(
        self,
        criterion: criteria.Criterion | None = None,
        *,
        alpha: float = 1e-4,
        fit_intercept: bool = True,
        max_iter: int = 1000,
        tol: float = 1e-4,
        warm_start: bool = False,
    ) -> None:
        self.criterion = criterion
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _validated_criterion(self):
        """Return the criterion after validating all parameters."""
        check_scalar(self.alpha, "alpha", Real, min_val=0)
        check_scalar(self.max_iter, "max_iter", Integral, min_val=1)
        check_scalar(self.tol, "tol", Real, min_val=0, include_boundaries="neither")
        for name in ("alpha", "tol"):
            if not np.isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}: it must be finite")
        criterion = self._criterion()
        supported = self._supported_criteria()
        if not isinstance(criterion, supported):
            names = ", ".join(cls.__name__ for cls in supported)
            raise TypeError(
                f"criterion is {criterion!r}: {type(self).__name__} minimises one of {names}"
            )
        if criterion.reduction not in ("mean", "sum"):
            raise ValueError(
                f"criterion has reduction={criterion.reduction!r}: a model minimises a scalar, "
                "reduction='mean' or 'sum'"
            )
        return criterion

    def _solve(self, loss, X, sample_weight, total, intercept, reference):
        """Fit, and return coefficients (outputs, features) and intercepts (outputs,).

        `intercept` is the intercept of the model without features, and `reference` a worse one.
        """
        model = LinearModel(
            loss,
            X,
            len(intercept),
            alpha=self.alpha,
            total=total,
            sample_weight=sample_weight,
            fit_intercept=self.fit_intercept,
        )
        zeros = np.zeros(model.shape)
        start = intercept_only = model.variables(zeros, intercept)
        if self.warm_start and hasattr(self, "coef_"):
            start = self._previous_fit(model)
        variables, self.n_iter_, unconverged = model.minimise(
            start, intercept_only, model.variables(zeros, reference), self.tol, self.max_iter
        )
        if unconverged:
            warnings.warn(
                f"{type(self).__name__} stopped after {self.n_iter_} iterations at {unconverged}, "
                f"above tol={self.tol}: raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=3,
            )
        return tuple(array.astype(X.dtype) for array in model.parameters(variables))

    def _previous_fit(self, model):
        """The variables of the previous fit."""
        coef = np.atleast_2d(self.coef_)
        if coef.shape != model.shape:
            raise ValueError(
                f"coef_ has shape {coef.shape} and this fit has shape {model.shape}: pass "
                "warm_start=False"
            )
        return model.variables(coef, np.ravel(self.intercept_))

    def _scores(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        return X @ self.coef_.T + self.intercept_


def _remove_unweighted(X, y, sample_weight):
    """Remove the rows with weight 0."""
    if sample_weight is None:
        return X, y, None
    sample_weight = _check_sample_weight(sample_weight, X, dtype=X.dtype)
    check_entries(sample_weight >= 0, sample_weight, "sample_weight", "at least 0")
    is_weighted = sample_weight != 0
    if not is_weighted.any():
        raise ValueError("sample_weight is 0 everywhere: there is nothing to fit")
    if is_weighted.all():
        return X, y, sample_weight
    return X[is_weighted], y[is_weighted], sample_weight[is_weighted]


def _class_weighted(class_weight, y, sample_weight, X):
    """The weights of the rows, multiplied by the weights of their classes."""
    if sample_weight is not None:
        sample_weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
    classes, indices = np.unique(y, return_inverse=True)
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(
                f"class_weight is {class_weight!r}: it must be a dict, 'balanced' or None"
            )
        totals = np.bincount(indices, sample_weight)
        balanced = totals.sum() / np.count_nonzero(totals)
        weights = np.divide(balanced, totals, out=np.zeros(len(totals)), where=totals != 0)
    else:
        weights = compute_class_weight(class_weight, classes=classes, y=y)
    if not (weights >= 0).all():
        k = int((weights >= 0).argmin())
        raise ValueError(
            f"class_weight of {classes[k].item()!r} is {weights[k]}: it must be at least 0"
        )
    return weights[indices] if sample_weight is None else weights[indices] * sample_weight


def _total(criterion, rows, sample_weight):
    """The divisor that turns the loss into a mean."""
    if criterion.reduction == "mean":
        return 1.0
    return rows if sample_weight is None else sample_weight.sum()


def _has_probabilities(model):
    targets = model._class_targets()
    return targets is not None and targets.scores_are_logits


class LossClassifier(ClassifierMixin, _LossModel):
    """Linear classifier that minimises a criterion.

    The scores are z = X w + b, with one column for each class or, for two classes, one column for
    the second. L-BFGS minimises::

        criterion(z, y, sample_weight) + alpha/2 |w|^2

    The solver standardises the columns of X internally without changing the objective, so they need
    no scaling for convergence.

    Parameters
    ----------
    criterion : Criterion, optional
        The criterion, with reduction "mean" or "sum". Default: ``CrossEntropyLoss()``.

        - `CrossEntropyLoss`, with label smoothing and class weights in the order of `classes_`:
          logistic regression with any number of classes
        - `MultiMarginLoss`: Weston and Watkins' hinge loss with any number of classes, squared for
          p = 2
        - `BCEWithLogitsLoss`, `SoftMarginLoss`: logistic regression with two classes, the second
          being positive
        - `SigmoidFocalLoss`: the same with focal loss. It is not convex, and the fit finds a local
          minimum
        - `MarginRankingLoss` of z against 0, with a margin above 0: for margin 1, the hinge loss of
          a linear support vector machine
    alpha : float, default 1e-4
        Factor of the penalty, at least 0. Intercepts are not penalised.
    fit_intercept : bool, default True
        Whether to fit the intercepts b.
    max_iter : int, default 1000
        Maximum number of iterations of L-BFGS.
    tol : float, default 1e-4
        Stop when the largest component of the gradient, with respect to standardised coefficients,
        is at most `tol` times its size at zero coefficients. With a hinge loss, stop when the
        objective is known to exceed its minimum by at most `tol` times its value at zero
        coefficients.
    warm_start : bool, default False
        Whether to start from the previous fit.
    class_weight : dict or "balanced", optional
        Weights of the classes by label, which multiply the weights of their rows. A class that is
        not in the dict has the weight 1. "balanced" gives each class the same total weight, and
        preserves the total of all rows.

    Attributes
    ----------
    classes_ : ndarray, shape (C,)
        Sorted labels of the rows whose weight is not 0.
    coef_ : ndarray, shape (1, features) or (C, features)
        Coefficients w, with one row for two classes. The dtype is float32 for X of float32,
        otherwise float64.
    intercept_ : ndarray, shape (1,) or (C,)
        Intercepts b.
    n_iter_ : int
        Number of iterations of L-BFGS.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray, shape (features,)
        Names of the columns, if X has names.

    See Also
    --------
    LossRegressor : Linear regression that minimises a criterion.
    make_scorer : Make a scorer from a criterion.

    Notes
    -----
    For n rows without weights, ``LogisticRegression(C=C)`` minimises the mean of `CrossEntropyLoss`
    with ``alpha = 1/(C n)``, or its sum with ``alpha = 1/C``. ``SGDClassifier`` has the same
    objective as this class.

    L-BFGS needs a continuous gradient. For a hinge loss, it minimises the augmented Lagrangians of
    the method of multipliers, whose minima converge to the minimum of the objective.

    A row with weight 0 is removed, and so is a class that has no other rows. X may be sparse. The
    option `weight` of a criterion also weights classes, in the order of `classes_`.

    Examples
    --------
    >>> import fastloss as fl
    >>> from fastloss.sklearn import LossClassifier
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = LossClassifier(fl.CrossEntropyLoss(label_smoothing=0.1), alpha=0.01).fit(X, y)
    >>> model.predict(X[::50])
    array([0, 1, 2])
    >>> model.predict_proba(X[::50]).round(2)
    array([[0.92, 0.08, 0.  ],
           [0.06, 0.62, 0.32],
           [0.  , 0.05, 0.95]])
    """

    classes_: _Array

    def __init__(
        self,
        criterion: criteria.Criterion | None = None,
        *,
        alpha: float = 1e-4,
        fit_intercept: bool = True,
        max_iter: int = 1000,
        tol: float = 1e-4,
        warm_start: bool = False,
        class_weight: dict[Any, float] | Literal["balanced"] | None = None,
    ) -> None:
        super().__init__(
            criterion,
            alpha=alpha,
            fit_intercept=fit_intercept,
            max_iter=max_iter,
            tol=tol,
            warm_start=warm_start,
        )
        self.class_weight = class_weight

    def _criterion(self) -> criteria.Criterion:
        return criteria.CrossEntropyLoss() if self.criterion is None else self.criterion

    def _supported_criteria(self) -> tuple[type[criteria.Criterion], ...]:
        return tuple(CLASSIFIERS)

    def _class_targets(self):
        criterion = self._criterion()
        return next((t for cls, t in CLASSIFIERS.items() if isinstance(criterion, cls)), None)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        targets = self._class_targets()
        tags.classifier_tags.multi_class = targets is None or targets.labels is None
        return tags

    def fit(self, X: _Features, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit coefficients and intercepts.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n, features)
            Features.
        y : array_like, shape (n,)
            Labels of any type.
        sample_weight : array_like, shape (n,), optional
            Weights of the rows, at least 0.

        Returns
        -------
        LossClassifier
            The fitted estimator.
        """
        criterion = self._validated_criterion()
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32])
        check_classification_targets(y)
        if self.class_weight is not None:
            sample_weight = _class_weighted(self.class_weight, y, sample_weight, X)
        X, y, sample_weight = _remove_unweighted(X, y, sample_weight)
        self.classes_, target = np.unique(y, return_inverse=True)
        classes = len(self.classes_)
        if classes < 2:
            (label,) = self.classes_.tolist()
            raise ValueError(f"y has only one class, {label!r}: there must be at least two")
        loss = self._loss(criterion, target, sample_weight, X.dtype)
        intercept = np.zeros(1 if classes == 2 else classes)
        total = _total(criterion, X.shape[0], sample_weight)
        self.coef_, self.intercept_ = self._solve(
            loss, X, sample_weight, total, intercept, intercept
        )
        return self

    def _loss(self, criterion, target, sample_weight, dtype):
        targets, classes = self._class_targets(), len(self.classes_)
        hinge = getattr(criterion, "margin", None) is not None and getattr(criterion, "p", 1) == 1
        if hinge and not criterion.margin > 0:
            raise ValueError(f"criterion has margin={criterion.margin!r}: it must be above 0")
        margin = criterion.margin if hinge else None
        if targets.labels is None:
            return ClassScores(
                criterion, target, sample_weight, classes=classes, dtype=dtype, margin=margin
            )
        if classes > 2:
            raise ValueError(
                "Only binary classification is supported. The type of the target is multiclass: "
                f"{criterion!r} takes two classes and y has {classes}; CrossEntropyLoss takes any "
                "number, and sklearn.multiclass.OneVsRestClassifier fits one model per class"
            )
        labels = np.array(targets.labels, dtype)[target][:, None]
        return Elementwise(
            criterion, labels, sample_weight, extra_args=targets.extra_args, kink=margin
        )

    def decision_function(self, X: _Features) -> _Array:
        """Scores of the classes: logits, if the criterion defines probabilities.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n, features)
            Features.

        Returns
        -------
        ndarray, shape (n,) or (n, C)
            For two classes, one score per row, positive for the second class.
        """
        scores = self._scores(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: _Features) -> _Array:
        """Predict the class with the largest score.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n, features)
            Features.

        Returns
        -------
        ndarray, shape (n,)
            Labels.
        """
        scores = self.decision_function(X)
        indices = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[indices]

    @available_if(_has_probabilities)
    def predict_proba(self, X: _Features) -> _Array:
        """Probabilities of the classes: the softmax or, for one score per row, the sigmoid.

        Only available for criteria of logits, not for `MultiMarginLoss` and `MarginRankingLoss`.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n, features)
            Features.

        Returns
        -------
        ndarray, shape (n, C)
            One column per class, in the order of `classes_`.
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.stack([expit(-scores), expit(scores)], axis=1)
        return softmax(scores, axis=1)

    @available_if(_has_probabilities)
    def predict_log_proba(self, X: _Features) -> _Array:
        """Logarithms of the probabilities, computed without underflow.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n, features)
            Features.

        Returns
        -------
        ndarray, shape (n, C)
            One column per class, in the order of `classes_`.
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.stack([log_expit(-scores), log_expit(scores)], axis=1)
        return log_softmax(scores, axis=1)


class LossRegressor(RegressorMixin, _LossModel):
    """Linear regression that minimises a criterion.

    The scores are z = X w + b. L-BFGS minimises::

        criterion(z, y, sample_weight) + alpha/2 |w|^2

    The solver standardises the columns of X internally without changing the objective, so they need
    no scaling for convergence. Predictions are z or, for a criterion with a log link, exp(z).

    Parameters
    ----------
    criterion : Criterion, optional
        The criterion, with reduction "mean" or "sum". Default: ``MSELoss()``.

        - `MSELoss`, `HuberLoss`, `SmoothL1Loss`, `LogCoshLoss`: least squares and robust regression
        - `L1Loss`, `PinballLoss`: regression of the median and of other quantiles
        - `PoissonNLLLoss` and `GammaNLLLoss` with `log_input`, and `TweedieDevianceLoss`:
          generalised linear models with a log link, which predict positive means
    alpha : float, default 1e-4
        Factor of the penalty, at least 0. Intercepts are not penalised.
    fit_intercept : bool, default True
        Whether to fit the intercepts b.
    max_iter : int, default 1000
        Maximum number of iterations of L-BFGS.
    tol : float, default 1e-4
        Stop when the largest component of the gradient, with respect to standardised coefficients,
        is at most `tol` times its size at zero coefficients. With `L1Loss` and `PinballLoss`, stop
        when the objective is known to exceed its minimum by at most `tol` times its value at zero
        coefficients.
    warm_start : bool, default False
        Whether to start from the previous fit.

    Attributes
    ----------
    coef_ : ndarray, shape (features,) or (outputs, features)
        Coefficients w. The dtype is float32 for X of float32, otherwise float64.
    intercept_ : float or ndarray, shape (outputs,)
        Intercepts b.
    n_iter_ : int
        Number of iterations of L-BFGS.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray, shape (features,)
        Names of the columns, if X has names.

    See Also
    --------
    LossClassifier : Linear classifier that minimises a criterion.
    make_scorer : Make a scorer from a criterion.

    Notes
    -----
    For n rows without weights, these models have the same minimum:

    - ``Ridge(a)``: the sum of `MSELoss` with ``alpha = 2 a``, or its mean with ``alpha = 2 a/n``
    - ``PoissonRegressor(a)``, ``GammaRegressor(a)``: the mean of `PoissonNLLLoss` and
      `GammaNLLLoss` with ``alpha = a``
    - ``TweedieRegressor(power=p, alpha=a, link="log")``: the mean of
      ``TweedieDevianceLoss(power=p)``, which is twice its loss, with ``alpha = 2 a``
    - ``QuantileRegressor(quantile=q, alpha=0)``: ``PinballLoss(quantile=q)`` with ``alpha = 0``.
      Otherwise they differ, since its penalty is the sum of absolute values

    Several columns of y are fitted together: "mean" divides by the number of all their entries.

    L-BFGS needs a continuous gradient. For `L1Loss`, `PinballLoss` and ``SmoothL1Loss(beta=0)``, it
    minimises the augmented Lagrangians of the method of multipliers, whose minima converge to the
    minimum of the objective.

    A row with weight 0 is removed. X may be sparse.

    Examples
    --------
    >>> import fastloss as fl
    >>> from fastloss.sklearn import LossRegressor
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = LossRegressor(fl.PinballLoss(quantile=0.9), alpha=0.0).fit(X, y)
    >>> (y <= model.predict(X)).mean().round(2)
    np.float64(0.9)
    """

    def _criterion(self) -> criteria.Criterion:
        return criteria.MSELoss() if self.criterion is None else self.criterion

    def _supported_criteria(self) -> tuple[type[criteria.Criterion], ...]:
        return IDENTITY_LINK + LOG_LINK

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.positive_only = isinstance(self._criterion(), LOG_LINK)
        return tags

    def fit(self, X: _Features, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit coefficients and intercepts.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n, features)
            Features.
        y : array_like, shape (n,) or (n, outputs)
            True values.
        sample_weight : array_like, shape (n,), optional
            Weights of the rows, at least 0.

        Returns
        -------
        LossRegressor
            The fitted estimator.
        """
        criterion = self._validated_criterion()
        X, values = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=[np.float64, np.float32],
            multi_output=True,
            y_numeric=True,
        )
        values = values.astype(X.dtype, copy=False)
        X, values, weight = _remove_unweighted(X, values, sample_weight)
        target = values.reshape(len(values), -1)
        intercept = np.average(target, axis=0, weights=weight).astype(np.float64)
        reference = np.zeros_like(intercept)
        if isinstance(criterion, LOG_LINK):
            intercept = np.log(np.where(intercept > 0, intercept, 1))
            # Not 0, where the gradient has a factor exp(-intercept), which may be huge or tiny.
            reference = intercept - np.clip(intercept, -1, 1)
        loss = self._loss(criterion, target, weight)
        total = _total(criterion, X.shape[0], weight)
        coef, intercept = self._solve(loss, X, weight, total, intercept, reference)
        is_single = values.ndim == 1
        self.coef_, self.intercept_ = (coef[0], intercept[0]) if is_single else (coef, intercept)
        return self

    def _loss(self, criterion, target, sample_weight):
        if isinstance(criterion, criteria.TweedieDevianceLoss):
            return LogLink(criterion, target, sample_weight)
        if not getattr(criterion, "log_input", True):
            raise ValueError(
                f"criterion is {criterion!r}: the scores are logarithms; pass log_input=True"
            )
        has_kink = isinstance(criterion, (criteria.L1Loss, criteria.PinballLoss)) or (
            isinstance(criterion, criteria.SmoothL1Loss) and criterion.beta == 0
        )
        return Elementwise(criterion, target, sample_weight, kink=1 if has_kink else None)

    def predict(self, X: _Features) -> _Array:
        """Predict from features.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n, features)
            Features.

        Returns
        -------
        ndarray, shape (n,) or (n, outputs)
            Predictions, with the columns of `y` in `fit`.
        """
        scores = self._scores(X)
        return np.exp(scores) if isinstance(self._criterion(), LOG_LINK) else scores
