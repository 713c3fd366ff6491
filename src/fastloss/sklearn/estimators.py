"""Linear models that minimise a criterion: `LossClassifier` and `LossRegressor`."""

import warnings
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_scalar
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from fastloss import criteria
from fastloss.sklearn._inputs import check_entries
from fastloss.sklearn._linear import LinearModel
from fastloss.sklearn._objectives import Classes, Elementwise, LogLink


class ClassKind(NamedTuple):
    """How a criterion takes the classes of a classifier."""

    labels: tuple[int, int] | None  # of the two classes; None: indices of any number of classes
    probabilities: bool = False  # whether scores are logits
    others: tuple[float, ...] = ()  # arguments between scores and labels


CLASSIFIERS = {
    criteria.CrossEntropyLoss: ClassKind(None, probabilities=True),
    criteria.MultiMarginLoss: ClassKind(None),
    criteria.BCEWithLogitsLoss: ClassKind((0, 1), probabilities=True),
    criteria.SigmoidFocalLoss: ClassKind((0, 1), probabilities=True),
    criteria.SoftMarginLoss: ClassKind((-1, 1), probabilities=True),
    criteria.MarginRankingLoss: ClassKind((-1, 1), others=(0.0,)),  # against 0: the hinge loss
}
IDENTITY_LINK = (
    criteria.MSELoss,
    criteria.L1Loss,
    criteria.SmoothL1Loss,
    criteria.HuberLoss,
    criteria.LogCoshLoss,
    criteria.PinballLoss,
)
LOG_LINK = (criteria.PoissonNLLLoss, criteria.GammaNLLLoss, criteria.TweedieDevianceLoss)


class _LossModel(BaseEstimator):
    """Parameters and the fit that both models share."""

    def __init__(
        self,
        criterion=None,
        *,
        alpha=1e-4,
        fit_intercept=True,
        max_iter=1000,
        tol=1e-4,
        warm_start=False,
    ):
        self.criterion = criterion
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _checked_criterion(self):
        """The criterion, which must be one that this model can minimise."""
        check_scalar(self.alpha, "alpha", Real, min_val=0)
        check_scalar(self.max_iter, "max_iter", Integral, min_val=1)
        check_scalar(self.tol, "tol", Real, min_val=0, include_boundaries="neither")
        for name in ("alpha", "tol"):
            if not np.isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}: it must be finite")
        criterion = self._criterion()
        suitable = self._suitable()
        if not isinstance(criterion, suitable):
            names = ", ".join(kind.__name__ for kind in suitable)
            raise TypeError(
                f"criterion is {criterion!r}: {type(self).__name__} minimises one of {names}"
            )
        if criterion.reduction not in ("mean", "sum"):
            raise ValueError(
                f"criterion has reduction={criterion.reduction!r}: a model minimises a number, "
                "reduction='mean' or 'sum'"
            )
        return criterion

    def _solve(self, loss, X, sample_weight, total, intercept, other):
        """Fits and returns coefficients (outputs, features) and intercepts (outputs,).

        `intercept` is that of the model without features, `other` one that is not as good.
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
        start = null = model.variables(zeros, intercept)
        if self.warm_start and hasattr(self, "coef_"):
            start = self._start(model)
        variables, self.n_iter_, trouble = model.minimise(
            start, null, model.variables(zeros, other), self.tol, self.max_iter
        )
        if trouble:
            warnings.warn(
                f"{type(self).__name__} stopped after {self.n_iter_} iterations at {trouble}, "
                f"above tol={self.tol}: raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=3,
            )
        return tuple(array.astype(X.dtype) for array in model.parameters(variables))

    def _start(self, model):
        """The variables of the last fit."""
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


def _of_weight(X, y, sample_weight):
    """The rows whose weight is not 0."""
    if sample_weight is None:
        return X, y, None
    sample_weight = _check_sample_weight(sample_weight, X, dtype=X.dtype)
    check_entries(sample_weight >= 0, sample_weight, "sample_weight", "at least 0")
    kept = sample_weight != 0
    if not kept.any():
        raise ValueError("sample_weight is 0 everywhere: there is nothing to fit")
    if kept.all():
        return X, y, sample_weight
    return X[kept], y[kept], sample_weight[kept]


def _total(criterion, rows, sample_weight):
    """What a mean would divide the loss by."""
    if criterion.reduction == "mean":
        return 1.0
    return rows if sample_weight is None else sample_weight.sum()


def _has_probabilities(model):
    kind = model._kind()
    return kind is not None and kind.probabilities


class LossClassifier(ClassifierMixin, _LossModel):
    """Linear classifier that minimises a criterion.

    For scores z = X w + b, one of each class or, of two classes, one for the second::

        criterion(z, y, sample_weight) + alpha/2 |w|^2

    is minimised by L-BFGS. Columns of X need no scaling: it works on standardised ones, of the same
    objective.

    Parameters
    ----------
    criterion : Criterion, optional
        With reduction "mean" or "sum". Default: ``CrossEntropyLoss()``.

        - `CrossEntropyLoss`, with label smoothing and class weights (in the order of `classes_`):
          logistic regression, of any number of classes
        - `MultiMarginLoss`: the hinge loss of Weston and Watkins, of any number of classes; squared
          with p = 2
        - `BCEWithLogitsLoss`, `SoftMarginLoss`: logistic regression of two classes, the second
          being the positive one
        - `SigmoidFocalLoss`, likewise. It is not convex: what is found is a local minimum
        - `MarginRankingLoss` with a margin above 0, of z against 0: with 1, the hinge loss of a
          linear support vector machine
    alpha : float, default 1e-4
        Factor of the penalty, at least 0; intercepts are free.
    fit_intercept : bool, default True
        Whether there is b.
    max_iter : int, default 1000
        Iterations of L-BFGS at most.
    tol : float, default 1e-4
        Where to stop: at a gradient, by standardised coefficients, of this part of the one where
        all coefficients are 0. With a hinge loss: where the objective is known to exceed its
        minimum by at most this part of what it is there.
    warm_start : bool, default False
        Whether a fit starts from the last one.

    Attributes
    ----------
    classes_ : ndarray, shape (C,)
        The labels, sorted, of the rows that have a weight.
    coef_ : ndarray, shape (1, features) or (C, features)
        The coefficients w; one row for two classes. float32 if X was, else float64.
    intercept_ : ndarray, shape (1,) or (C,)
        The intercepts b.
    n_iter_ : int
        Iterations of L-BFGS.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray, shape (features,)
        Their names, if X had names.

    See Also
    --------
    LossRegressor : The same for numbers.
    make_scorer : A criterion as a scorer.

    Notes
    -----
    Of n rows without weights, ``LogisticRegression(C=C)`` is the criterion's mean with
    ``alpha = 1/(C n)``, or its sum with ``alpha = 1/C``. ``SGDClassifier`` has this objective.

    Where the gradient jumps, as with the hinge losses, the method of multipliers goes round
    L-BFGS: kinks are rounded off, and the rounding is shifted until it does nothing.

    A weight of 0 removes a row, its class included if there is no other of it. X may be sparse.

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

    def _criterion(self):
        return criteria.CrossEntropyLoss() if self.criterion is None else self.criterion

    def _suitable(self):
        return tuple(CLASSIFIERS)

    def _kind(self):
        criterion = self._criterion()
        return next((k for kind, k in CLASSIFIERS.items() if isinstance(criterion, kind)), None)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        kind = self._kind()
        tags.classifier_tags.multi_class = kind is None or kind.labels is None
        return tags

    def fit(self, X, y, sample_weight=None):
        """Finds coefficients and intercepts.

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
            This model.
        """
        criterion = self._checked_criterion()
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32])
        check_classification_targets(y)
        X, y, sample_weight = _of_weight(X, y, sample_weight)
        self.classes_, target = np.unique(y, return_inverse=True)
        classes = len(self.classes_)
        if classes < 2:
            (label,) = self.classes_.tolist()
            raise ValueError(f"y holds one class only, {label!r}: there must be two")
        loss = self._loss(criterion, target, sample_weight, X.dtype)
        intercept = np.zeros(1 if classes == 2 else classes)
        total = _total(criterion, X.shape[0], sample_weight)
        self.coef_, self.intercept_ = self._solve(
            loss, X, sample_weight, total, intercept, intercept
        )
        return self

    def _loss(self, criterion, target, sample_weight, dtype):
        kind, classes = self._kind(), len(self.classes_)
        hinge = getattr(criterion, "margin", None) is not None and getattr(criterion, "p", 1) == 1
        if hinge and not criterion.margin > 0:
            raise ValueError(f"criterion has margin={criterion.margin!r}: it must be above 0")
        margin = criterion.margin if hinge else None
        if kind.labels is None:
            return Classes(
                criterion, target, sample_weight, classes=classes, dtype=dtype, margin=margin
            )
        if classes > 2:
            raise ValueError(
                "Only binary classification is supported. The type of the target is multiclass: "
                f"{criterion!r} takes two classes and y has {classes}; CrossEntropyLoss takes any "
                "number, and sklearn.multiclass.OneVsRestClassifier fits one model for each"
            )
        labels = np.array(kind.labels, dtype)[target][:, None]
        return Elementwise(criterion, labels, sample_weight, others=kind.others, kink=margin)

    def decision_function(self, X):
        """Scores of rows: logits, for the criteria that have probabilities.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n, features)
            Features.

        Returns
        -------
        ndarray, shape (n,) or (n, C)
            Of two classes, one number a row: above 0 for the second.
        """
        scores = self._scores(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X):
        """The class of the largest score.

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
        best = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[best]

    @available_if(_has_probabilities)
    def predict_proba(self, X):
        """Probabilities of the classes: the softmax of the scores, or their sigmoid.

        Only with criteria that make scores logits; not with `MultiMarginLoss` and
        `MarginRankingLoss`.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n, features)
            Features.

        Returns
        -------
        ndarray, shape (n, C)
            In the order of `classes_`.
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.stack([expit(-scores), expit(scores)], axis=1)
        return softmax(scores, axis=1)

    @available_if(_has_probabilities)
    def predict_log_proba(self, X):
        """Logarithms of `predict_proba`, which do not underflow.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n, features)
            Features.

        Returns
        -------
        ndarray, shape (n, C)
            In the order of `classes_`.
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.stack([log_expit(-scores), log_expit(scores)], axis=1)
        return log_softmax(scores, axis=1)


class LossRegressor(RegressorMixin, _LossModel):
    """Linear regression that minimises a criterion.

    For scores z = X w + b::

        criterion(z, y, sample_weight) + alpha/2 |w|^2

    is minimised by L-BFGS. Columns of X need no scaling: it works on standardised ones, of the same
    objective. Predictions are z, or exp(z) with the losses of a log link.

    Parameters
    ----------
    criterion : Criterion, optional
        With reduction "mean" or "sum". Default: ``MSELoss()``.

        - `MSELoss`, `HuberLoss`, `SmoothL1Loss`, `LogCoshLoss`
        - `L1Loss`, `PinballLoss`: the median and other quantiles
        - `PoissonNLLLoss`, `GammaNLLLoss`, both with `log_input`, and `TweedieDevianceLoss`: means
          that are above 0, z being their logarithms
    alpha : float, default 1e-4
        Factor of the penalty, at least 0; intercepts are free.
    fit_intercept : bool, default True
        Whether there is b.
    max_iter : int, default 1000
        Iterations of L-BFGS at most.
    tol : float, default 1e-4
        Where to stop: at a gradient, by standardised coefficients, of this part of the one where
        all coefficients are 0. With `L1Loss` and `PinballLoss`: where the objective is known to
        exceed its minimum by at most this part of what it is there.
    warm_start : bool, default False
        Whether a fit starts from the last one.

    Attributes
    ----------
    coef_ : ndarray, shape (features,) or (outputs, features)
        The coefficients w. float32 if X was, else float64.
    intercept_ : float or ndarray, shape (outputs,)
        The intercepts b.
    n_iter_ : int
        Iterations of L-BFGS.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray, shape (features,)
        Their names, if X had names.

    See Also
    --------
    LossClassifier : The same for classes.
    make_scorer : A criterion as a scorer.

    Notes
    -----
    Of n rows without weights, the same minimum have:

    - ``Ridge(a)``: the sum of `MSELoss` with ``alpha = 2 a``, or its mean with ``alpha = 2 a/n``
    - ``PoissonRegressor(a)``, ``GammaRegressor(a)``: the mean of `PoissonNLLLoss` and
      `GammaNLLLoss` with ``alpha = a``
    - ``TweedieRegressor(power=p, alpha=a, link="log")``: the mean of
      ``TweedieDevianceLoss(power=p)``, which is twice its loss, with ``alpha = 2 a``
    - ``QuantileRegressor(quantile=q, alpha=0)``: ``PinballLoss(quantile=q)`` with ``alpha = 0``.
      Its penalty is another one, of absolute values

    Several columns of y are fitted as one: "mean" divides by all their entries.

    Where the gradient jumps, as with `L1Loss`, the method of multipliers goes round L-BFGS: kinks
    are rounded off, and the rounding is shifted until it does nothing.

    A weight of 0 removes a row. X may be sparse.

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

    def _criterion(self):
        return criteria.MSELoss() if self.criterion is None else self.criterion

    def _suitable(self):
        return IDENTITY_LINK + LOG_LINK

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.positive_only = isinstance(self._criterion(), LOG_LINK)
        return tags

    def fit(self, X, y, sample_weight=None):
        """Finds coefficients and intercepts.

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
            This model.
        """
        criterion = self._checked_criterion()
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=[np.float64, np.float32],
            multi_output=True,
            y_numeric=True,
        )
        X, y, sample_weight = _of_weight(X, y.astype(X.dtype, copy=False), sample_weight)
        target = y.reshape(len(y), -1)
        intercept = np.average(target, axis=0, weights=sample_weight).astype(np.float64)
        other = np.zeros_like(intercept)
        if isinstance(criterion, LOG_LINK):
            intercept = np.log(np.where(intercept > 0, intercept, 1))
            other = intercept - np.clip(intercept, -1, 1)  # at 0, exp(-intercept) may be anything
        loss = self._loss(criterion, target, sample_weight)
        total = _total(criterion, X.shape[0], sample_weight)
        coef, intercept = self._solve(loss, X, sample_weight, total, intercept, other)
        self.coef_, self.intercept_ = (coef[0], intercept[0]) if y.ndim == 1 else (coef, intercept)
        return self

    def _loss(self, criterion, target, sample_weight):
        if isinstance(criterion, criteria.TweedieDevianceLoss):
            return LogLink(criterion, target, sample_weight)
        if not getattr(criterion, "log_input", True):
            raise ValueError(
                f"criterion is {criterion!r}: scores are logarithms, pass log_input=True"
            )
        kinked = isinstance(criterion, (criteria.L1Loss, criteria.PinballLoss))
        kinked = kinked or (isinstance(criterion, criteria.SmoothL1Loss) and criterion.beta == 0)
        return Elementwise(criterion, target, sample_weight, kink=1 if kinked else None)

    def predict(self, X):
        """Predictions.

        Parameters
        ----------
        X : array_like or sparse matrix, shape (n, features)
            Features.

        Returns
        -------
        ndarray, shape (n,) or (n, outputs)
            Of the columns that y had.
        """
        scores = self._scores(X)
        return np.exp(scores) if isinstance(self._criterion(), LOG_LINK) else scores
