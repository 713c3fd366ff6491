"""`make_scorer`: criteria as scorers for `cross_val_score` and `GridSearchCV`."""

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.metadata_routing import UNUSED

from fastloss import criteria
from fastloss.sklearn.estimators import IDENTITY_LINK, LOG_LINK

# Criteria for classifiers, by what they take from the estimator.
LOGITS = (
    criteria.CrossEntropyLoss,
    criteria.BCEWithLogitsLoss,
    criteria.SigmoidFocalLoss,
    criteria.SoftMarginLoss,
)
PROBABILITIES = (criteria.NLLLoss, criteria.BCELoss)
MARGINS = (criteria.MultiMarginLoss, criteria.MarginRankingLoss)
CLASSIFICATION = LOGITS + PROBABILITIES + MARGINS
MULTICLASS = (criteria.CrossEntropyLoss, criteria.NLLLoss, criteria.MultiMarginLoss)
SIGN_LABELS = (criteria.SoftMarginLoss, criteria.MarginRankingLoss)

# Criteria for regressors. They take predictions, the last one with standard deviations.
REGRESSION = (*IDENTITY_LINK, *LOG_LINK, criteria.GaussianNLLLoss)


def make_scorer(criterion, *, response_method=None):
    """Make a scorer from a criterion.

    The score is the negative loss, so that greater is better. The scorer can be passed as `scoring`
    throughout scikit-learn. The criterion determines what it takes from the estimator:

    - `CrossEntropyLoss`, `BCEWithLogitsLoss`, `SigmoidFocalLoss`, `SoftMarginLoss`: logits, which
      are the logarithms of the predicted probabilities
    - `NLLLoss`: logarithms of the predicted probabilities
    - `BCELoss`: the predicted probability of the second class
    - `MultiMarginLoss`, `MarginRankingLoss` (against 0, which is the hinge loss): decision values;
      for two classes, the scores are (0, z)
    - `MSELoss`, `L1Loss`, `SmoothL1Loss`, `HuberLoss`, `LogCoshLoss`, `PinballLoss`,
      `TweedieDevianceLoss`: predictions
    - `PoissonNLLLoss`, `GammaNLLLoss`: predictions as expected values, with either `log_input`
    - `GaussianNLLLoss`: predictions with ``return_std=True``

    Labels may have any type. They are encoded by the estimator's `classes_`, as class indices or as
    the criterion's labels for two classes.

    Parameters
    ----------
    criterion : Criterion
        The criterion, with reduction "mean" or "sum".
    response_method : {"predict_proba", "decision_function"}, optional
        Source of the logits. With "decision_function", the decision values are used as logits,
        which is right for `LogisticRegression` and wrong for support vector machines. Default:
        "predict_proba".

    Returns
    -------
    LossScorer
        A callable ``scorer(estimator, X, y, sample_weight=None)``. With metadata routing, call
        ``scorer.set_score_request(sample_weight=True)``.

    Raises
    ------
    TypeError
        For a criterion that is not listed above.
    ValueError
        For another reduction or response method.

    See Also
    --------
    LossClassifier, LossRegressor : Linear models that minimise a criterion.

    Examples
    --------
    >>> import fastloss as fl
    >>> from fastloss.sklearn import make_scorer
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_score
    >>> X, y = load_iris(return_X_y=True)
    >>> scorer = make_scorer(fl.CrossEntropyLoss())
    >>> cross_val_score(LogisticRegression(max_iter=1000), X, y, scoring=scorer).round(3)
    array([-0.147, -0.107, -0.192, -0.148, -0.106])
    """
    scorer = LossScorer(criterion, response_method)
    scorer._check()
    return scorer


class LossScorer(BaseEstimator):
    """The scorer that `make_scorer` returns; a BaseEstimator, for cloning and metadata routing."""

    __metadata_request__score = {"estimator": UNUSED}  # noqa: RUF012

    def __init__(self, criterion, response_method=None):
        self.criterion = criterion
        self.response_method = response_method

    def __call__(self, estimator, X, y, sample_weight=None):
        """Return the negative loss."""
        return self.score(estimator, X, y, sample_weight=sample_weight)

    def score(self, estimator, X, y, sample_weight=None):
        """Return the negative loss."""
        self._check()
        is_regression = isinstance(self.criterion, REGRESSION)
        prepare = self._prepare_regression if is_regression else self._prepare_classification
        criterion, arrays = prepare(estimator, X, y)
        return -criterion(*arrays, sample_weight=sample_weight)

    def _accept_sample_weight(self):
        return True  # for scikit-learn without metadata routing

    def _check(self):
        supported = CLASSIFICATION + REGRESSION
        if not isinstance(self.criterion, supported):
            names = ", ".join(cls.__name__ for cls in supported)
            raise TypeError(f"criterion is {self.criterion!r}: a scorer takes one of {names}")
        if self.criterion.reduction not in ("mean", "sum"):
            raise ValueError(
                f"criterion has reduction={self.criterion.reduction!r}: a score is a scalar, "
                "reduction='mean' or 'sum'"
            )
        methods = [None]
        if isinstance(self.criterion, LOGITS):
            methods += ["predict_proba", "decision_function"]
        if self.response_method not in methods:
            raise ValueError(
                f"response_method is {self.response_method!r}: for {self.criterion!r} it must be "
                f"{' or '.join(map(repr, methods))}"
            )

    def _prepare_regression(self, estimator, X, y):
        """Return the criterion and its arrays for a regressor."""
        criterion, y = self.criterion, np.asarray(y)
        if isinstance(criterion, criteria.GaussianNLLLoss):
            mean, deviation = estimator.predict(X, return_std=True)
            return criterion, (mean, y, np.square(deviation))
        if getattr(criterion, "log_input", False):
            criterion = clone(criterion).set_params(log_input=False)
            if isinstance(criterion, criteria.PoissonNLLLoss):
                criterion.set_params(eps=0.0)  # log_input=True ignores eps
        prediction = np.asarray(estimator.predict(X))
        if prediction.size == y.size:  # (n, 1) matches (n,)
            prediction = prediction.reshape(y.shape)
        return criterion, (prediction, y)

    def _prepare_classification(self, estimator, X, y):
        """Return the criterion and its arrays for a classifier."""
        if not hasattr(estimator, "classes_"):
            raise TypeError(
                f"{type(estimator).__name__} has no classes_: {self.criterion!r} takes a classifier"
            )
        criterion, classes = self.criterion, len(estimator.classes_)
        encoder = LabelEncoder()
        encoder.classes_ = estimator.classes_
        target = encoder.transform(y)
        if isinstance(criterion, MULTICLASS):
            return criterion, (self._scores(estimator, X), target)
        if classes != 2:
            raise ValueError(
                f"{criterion!r} takes two classes and the estimator has {classes}: "
                "CrossEntropyLoss, NLLLoss and MultiMarginLoss take any number"
            )
        if isinstance(criterion, criteria.BCELoss):
            return criterion, (_response_method(estimator, "predict_proba")(X)[:, 1], target)
        scores = self._scores(estimator, X)
        logits = scores[:, 1] - scores[:, 0]
        if isinstance(criterion, SIGN_LABELS):
            target = 2 * target - 1
        if isinstance(criterion, criteria.MarginRankingLoss):
            return criterion, (logits, 0.0, target)
        return criterion, (logits, target)

    def _scores(self, estimator, X):
        """Scores (n, C) that are log-probabilities, or logits of which only differences matter."""
        if isinstance(self.criterion, MARGINS) or self.response_method == "decision_function":
            return _class_columns(_response_method(estimator, "decision_function")(X))
        predict_proba = _response_method(estimator, "predict_proba")
        with np.errstate(divide="ignore"):  # log(0)
            if hasattr(estimator, "predict_log_proba"):
                return estimator.predict_log_proba(X)
            return np.log(predict_proba(X))


def _class_columns(scores):
    """One column of scores per class: (0, z) for two classes with a single score z."""
    scores = np.asarray(scores)
    return np.stack([np.zeros_like(scores), scores], axis=1) if scores.ndim == 1 else scores


def _response_method(estimator, name):
    if hasattr(estimator, name):
        return getattr(estimator, name)
    remedy = "response_method='decision_function' uses its decision values as logits"
    raise TypeError(
        f"{type(estimator).__name__} has no {name}, which this criterion needs"
        + (f"; {remedy}" if hasattr(estimator, "decision_function") else "")
    )
