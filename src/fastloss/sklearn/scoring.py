"""Criteria as scorers of `cross_val_score` and `GridSearchCV`: `make_scorer`."""

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.metadata_routing import UNUSED

from fastloss import criteria
from fastloss.sklearn.estimators import IDENTITY_LINK, LOG_LINK

# What criteria take of a classifier.
LOGITS = (
    criteria.CrossEntropyLoss,
    criteria.BCEWithLogitsLoss,
    criteria.SigmoidFocalLoss,
    criteria.SoftMarginLoss,
)
PROBABILITIES = (criteria.NLLLoss, criteria.BCELoss)
MARGINS = (criteria.MultiMarginLoss, criteria.MarginRankingLoss)
CLASSIFICATION = LOGITS + PROBABILITIES + MARGINS
OF_ALL_CLASSES = (criteria.CrossEntropyLoss, criteria.NLLLoss, criteria.MultiMarginLoss)
OF_SIGNS = (criteria.SoftMarginLoss, criteria.MarginRankingLoss)

# What criteria take of a regression: predictions, for the last one with their standard deviations.
REGRESSION = (*IDENTITY_LINK, *LOG_LINK, criteria.GaussianNLLLoss)


def make_scorer(criterion, *, response_method=None):
    """Makes a scorer of a criterion: the negative of its loss, so that greater is better.

    It goes wherever scikit-learn takes `scoring`. What the criterion needs is asked of the
    estimator:

    - `CrossEntropyLoss`, `BCEWithLogitsLoss`, `SigmoidFocalLoss`, `SoftMarginLoss`: logits, from
      the logarithms of its probabilities
    - `NLLLoss`, `BCELoss`: logarithms of its probabilities, or the probability of the second class
    - `MultiMarginLoss`, `MarginRankingLoss` (against 0, the hinge loss): its decision function; of
      two classes, the scores are (0, z)
    - `MSELoss`, `L1Loss`, `SmoothL1Loss`, `HuberLoss`, `LogCoshLoss`, `PinballLoss`,
      `TweedieDevianceLoss`: its predictions
    - `PoissonNLLLoss`, `GammaNLLLoss`: its predictions as expected values, whatever `log_input` is
    - `GaussianNLLLoss`: its predictions with ``return_std=True``

    Labels of any type become class indices by the estimator's `classes_`, or those that the
    criterion has for two classes.

    Parameters
    ----------
    criterion : Criterion
        With reduction "mean" or "sum".
    response_method : {"predict_proba", "decision_function"}, optional
        Where logits come from. "decision_function" takes its scores for logits, as those of
        `LogisticRegression` are and those of support vector machines are not. Default:
        "predict_proba".

    Returns
    -------
    LossScorer
        Callable as ``scorer(estimator, X, y, sample_weight=None)``. With metadata routing, it has
        ``set_score_request(sample_weight=True)``.

    Raises
    ------
    TypeError
        For a criterion that is none of these.
    ValueError
        For another reduction or response method.

    See Also
    --------
    LossClassifier, LossRegressor : Models that minimise a criterion.

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
    """What `make_scorer` makes; a BaseEstimator, so that it can be cloned and routed."""

    __metadata_request__score = {"estimator": UNUSED}  # noqa: RUF012

    def __init__(self, criterion, response_method=None):
        self.criterion = criterion
        self.response_method = response_method

    def __call__(self, estimator, X, y, sample_weight=None):
        """The negative loss."""
        return self.score(estimator, X, y, sample_weight=sample_weight)

    def score(self, estimator, X, y, sample_weight=None):
        """The negative loss."""
        self._check()
        of = self._of_values if isinstance(self.criterion, REGRESSION) else self._of_classes
        criterion, arrays = of(estimator, X, y)
        return -criterion(*arrays, sample_weight=sample_weight)

    def _accept_sample_weight(self):
        return True  # asked by scikit-learn without metadata routing

    def _check(self):
        suitable = CLASSIFICATION + REGRESSION
        if not isinstance(self.criterion, suitable):
            names = ", ".join(kind.__name__ for kind in suitable)
            raise TypeError(f"criterion is {self.criterion!r}: a scorer takes one of {names}")
        if self.criterion.reduction not in ("mean", "sum"):
            raise ValueError(
                f"criterion has reduction={self.criterion.reduction!r}: a score is a number, "
                "reduction='mean' or 'sum'"
            )
        methods = [None]
        if isinstance(self.criterion, LOGITS):
            methods += ["predict_proba", "decision_function"]
        if self.response_method not in methods:
            raise ValueError(
                f"response_method is {self.response_method!r}: for {self.criterion!r} it can be "
                f"{' or '.join(map(repr, methods))}"
            )

    def _of_values(self, estimator, X, y):
        """The criterion and its arrays, of a regression."""
        criterion, y = self.criterion, np.asarray(y)
        if isinstance(criterion, criteria.GaussianNLLLoss):
            mean, deviation = estimator.predict(X, return_std=True)
            return criterion, (mean, y, np.square(deviation))
        if getattr(criterion, "log_input", False):
            criterion = clone(criterion).set_params(log_input=False)
            if isinstance(criterion, criteria.PoissonNLLLoss):
                criterion.set_params(eps=0.0)  # which log_input does not use
        prediction = np.asarray(estimator.predict(X))
        if prediction.size == y.size:  # one column is like none
            prediction = prediction.reshape(y.shape)
        return criterion, (prediction, y)

    def _of_classes(self, estimator, X, y):
        """The criterion and its arrays, of a classifier."""
        if not hasattr(estimator, "classes_"):
            raise TypeError(
                f"{type(estimator).__name__} has no classes_: {self.criterion!r} takes a classifier"
            )
        criterion, classes = self.criterion, len(estimator.classes_)
        labels = LabelEncoder()
        labels.classes_ = estimator.classes_
        target = labels.transform(y)
        if isinstance(criterion, OF_ALL_CLASSES):
            return criterion, (self._scores(estimator, X), target)
        if classes != 2:
            raise ValueError(
                f"{criterion!r} takes two classes and the estimator has {classes}: "
                "CrossEntropyLoss, NLLLoss and MultiMarginLoss take any number"
            )
        if isinstance(criterion, criteria.BCELoss):
            return criterion, (_method(estimator, "predict_proba")(X)[:, 1], target)
        scores = self._scores(estimator, X)
        logits = scores[:, 1] - scores[:, 0]
        if isinstance(criterion, OF_SIGNS):
            target = 2 * target - 1
        if isinstance(criterion, criteria.MarginRankingLoss):
            return criterion, (logits, 0.0, target)
        return criterion, (logits, target)

    def _scores(self, estimator, X):
        """Scores (n, C), of which the criterion sees differences only, or log-probabilities."""
        if isinstance(self.criterion, MARGINS) or self.response_method == "decision_function":
            return _columns(_method(estimator, "decision_function")(X))
        probabilities = _method(estimator, "predict_proba")
        with np.errstate(divide="ignore"):  # the logarithm of 0
            if hasattr(estimator, "predict_log_proba"):
                return estimator.predict_log_proba(X)
            return np.log(probabilities(X))


def _columns(scores):
    """Scores of each class."""
    scores = np.asarray(scores)
    return np.stack([np.zeros_like(scores), scores], axis=1) if scores.ndim == 1 else scores


def _method(estimator, name):
    if hasattr(estimator, name):
        return getattr(estimator, name)
    remedy = "response_method='decision_function' takes its scores for logits"
    raise TypeError(
        f"{type(estimator).__name__} has no {name}, which this criterion needs"
        + (f"; {remedy}" if hasattr(estimator, "decision_function") else "")
    )
