"""`make_scorer`: criteria as scorers for `cross_val_score` and `GridSearchCV`."""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, clone
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.metadata_routing import UNUSED

from fastloss import criteria
from fastloss._arrays import as_array
from fastloss._labels import as_labels
from fastloss.sklearn._inputs import check_entries
from fastloss.sklearn.estimators import IDENTITY_LINK, LOG_LINK

_Criteria = tuple[type[criteria.Criterion], ...]

# Criteria for classifiers, by what they take from the estimator.
LOGITS: _Criteria = (
    criteria.CrossEntropyLoss,
    criteria.BCEWithLogitsLoss,
    criteria.SigmoidFocalLoss,
    criteria.SoftMarginLoss,
)
PROBABILITIES: _Criteria = (criteria.NLLLoss, criteria.BCELoss)
MARGINS: _Criteria = (criteria.MultiMarginLoss, criteria.MarginRankingLoss)
CLASSIFICATION: _Criteria = LOGITS + PROBABILITIES + MARGINS
MULTICLASS: _Criteria = (criteria.CrossEntropyLoss, criteria.NLLLoss, criteria.MultiMarginLoss)
TWO_CLASSES: _Criteria = tuple(cls for cls in CLASSIFICATION if cls not in MULTICLASS)
SIGN_LABELS: _Criteria = (criteria.SoftMarginLoss, criteria.MarginRankingLoss)

_MAX_NESTED_ESTIMATORS = 20

# Criteria for regressors. They take predictions, the last one with standard deviations.
REGRESSION: _Criteria = (*IDENTITY_LINK, *LOG_LINK, criteria.GaussianNLLLoss)


def make_scorer(
    criterion: criteria.Criterion,
    *,
    response_method: Literal["predict_proba", "decision_function"] | None = None,
) -> "LossScorer":
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
    the criterion's labels for two classes. The estimator must return one column per class, in the
    order of `classes_`. One column per pair of classes, as of
    ``SVC(decision_function_shape="ovo")``, is an error. Three classes have three pairs, so that
    the shape does not distinguish them; the scorer then finds pairs by ``decision_function_shape``
    or, if the estimator has no such parameter, by its predictions.

    The criteria for two classes also score multilabel classifiers, whose outputs are each 0 or 1.
    "mean" is over all rows and outputs. Other classifiers with several outputs are an error.

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
        For a criterion that is not listed above. The scorer raises one if the estimator lacks what
        the criterion takes, or has several outputs with several classes.
    ValueError
        For another reduction or response method. The scorer raises one if the estimator does not
        return one column per class.

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

    def __init__(
        self,
        criterion: criteria.Criterion,
        response_method: Literal["predict_proba", "decision_function"] | None = None,
    ) -> None:
        self.criterion = criterion
        self.response_method = response_method

    def __call__(
        self, estimator: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the negative loss."""
        return self.score(estimator, X, y, sample_weight=sample_weight)

    def score(
        self, estimator: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
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
        criterion, y = self.criterion, as_array(y, "y")
        if isinstance(criterion, criteria.GaussianNLLLoss):
            mean, deviation = estimator.predict(X, return_std=True)
            return criterion, (mean, y, np.square(deviation))
        if getattr(criterion, "log_input", False):
            criterion = clone(criterion).set_params(log_input=False)
            if isinstance(criterion, criteria.PoissonNLLLoss):
                criterion.set_params(eps=0.0)  # log_input=True ignores eps
        prediction = as_array(estimator.predict(X), "the prediction")
        rows = y.shape[:1]
        if {prediction.shape, y.shape} == {rows, (*rows, 1)}:  # (n, 1) matches (n,)
            prediction = prediction.reshape(y.shape)
        return criterion, (prediction, y)

    def _prepare_classification(self, estimator, X, y):
        """Return the criterion and its arrays for a classifier."""
        if not hasattr(estimator, "classes_"):
            raise TypeError(
                f"{type(estimator).__name__} has no classes_: {self.criterion!r} takes a classifier"
            )
        criterion, y = self.criterion, as_labels(y.toarray() if issparse(y) else y, "y")
        if _has_several_outputs(estimator, X, y):
            return self._prepare_labels(estimator, X, y)
        classes = np.asarray(estimator.classes_)
        target = _class_indices(y, classes)
        if isinstance(criterion, MULTICLASS):
            return criterion, (self._scores(estimator, X, classes), target)
        if classes.size != 2:
            raise ValueError(
                f"{criterion!r} takes two classes and the estimator has {classes.size}: "
                "CrossEntropyLoss, NLLLoss and MultiMarginLoss take any number"
            )
        if isinstance(criterion, criteria.BCELoss):
            proba = _response_method(estimator, "predict_proba")(X)
            return criterion, (_class_columns(proba, estimator, "predict_proba", 2)[:, 1], target)
        scores = self._scores(estimator, X, classes)
        return criterion, self._arrays_of_two_classes(scores[:, 1] - scores[:, 0], target)

    def _prepare_labels(self, estimator, X, y):
        """Return the criterion and its arrays for a classifier with several outputs."""
        criterion, name = self.criterion, type(estimator).__name__
        if not isinstance(criterion, TWO_CLASSES):
            raise TypeError(
                f"{name} has several outputs, each with classes of its own: {criterion!r} takes "
                "one. Score each output separately or, if each is 0 or 1, with a criterion for two "
                "classes, such as BCEWithLogitsLoss"
            )
        check_entries(np.isin(y, [0, 1]), y, "y", f"0 or 1 for {criterion!r} of several outputs")
        target = y.astype(np.int8)
        if self._takes_decision_values():
            method = "decision_function"
            scores = as_array(_response_method(estimator, method)(X), method)
            _check_label_columns(scores, y, estimator, method)
            return criterion, self._arrays_of_two_classes(scores, target)
        absent, present = _label_probabilities(estimator, X, y)
        if isinstance(criterion, criteria.BCELoss):
            return criterion, (present, target)
        with np.errstate(divide="ignore"):  # log(0)
            logits = np.log(present) - np.log(absent)
        return criterion, self._arrays_of_two_classes(logits, target)

    def _arrays_of_two_classes(self, logits, target):
        """Return the arrays of the criterion, from the targets 0 and 1."""
        if isinstance(self.criterion, SIGN_LABELS):
            target = 2 * target - 1
        if isinstance(self.criterion, criteria.MarginRankingLoss):
            return logits, 0.0, target
        return logits, target

    def _takes_decision_values(self):
        return isinstance(self.criterion, MARGINS) or self.response_method == "decision_function"

    def _scores(self, estimator, X, classes):
        """Scores (n, C) that are log-probabilities, or logits of which only differences matter."""
        if self._takes_decision_values():
            return _decision_values(estimator, X, classes)
        predict_proba = _response_method(estimator, "predict_proba")
        with np.errstate(divide="ignore"):  # log(0)
            if hasattr(estimator, "predict_log_proba"):
                scores, method = estimator.predict_log_proba(X), "predict_log_proba"
            else:
                scores, method = np.log(predict_proba(X)), "predict_proba"
        return _class_columns(scores, estimator, method, classes.size)


def _class_indices(y, classes):
    """The index of each label among the classes, which need not be in order."""
    order = np.argsort(classes, kind="stable")
    encoder = LabelEncoder()
    encoder.classes_ = classes[order]
    return order[encoder.transform(as_labels(y, "y")).astype(np.intp, copy=False)]


# --- several outputs ------------------------------------------------------------------------------


def _has_several_outputs(estimator, X, y):
    """Whether the classifier has several outputs, which the targets must have then."""
    classes, name = estimator.classes_, type(estimator).__name__
    outputs = y.shape[1] if y.ndim == 2 else 1
    if isinstance(classes, (list, tuple)) and any(np.ndim(entry) for entry in classes):
        if y.ndim != 2 or outputs != len(classes):
            raise ValueError(f"{name} has {len(classes)} outputs, and y has shape {y.shape}")
        return True
    if outputs == 1:
        return False
    if np.ndim(estimator.predict(X)) != 2:  # its classes_ look the same with several labels
        raise ValueError(f"{name} has one output, and y has shape {y.shape}")
    return True


def _label_probabilities(estimator, X, y):
    """The probabilities (n, labels) that each label is 0, and that it is 1."""
    method = "predict_proba"
    proba, classes = _response_method(estimator, method)(X), estimator.classes_
    if isinstance(classes, (list, tuple)):
        for k, of_output in enumerate(classes):
            if not np.isin(of_output, [0, 1]).all():
                raise TypeError(
                    f"output {k} of {type(estimator).__name__} has the classes "
                    f"{np.asarray(of_output).tolist()}: scorers of several outputs take 0 and 1"
                )
    if isinstance(proba, (list, tuple)):  # one array per output, with one column per class
        columns = [
            dict(zip(of_output.tolist(), p.T, strict=True))
            for of_output, p in zip(classes, proba, strict=True)
        ]
        unseen = np.zeros(len(y))  # for a class that is not in the training data
        absent, present = (
            np.stack([column.get(label, unseen) for column in columns], axis=1) for label in (0, 1)
        )
        return absent, present
    present = as_array(proba, method)
    _check_label_columns(present, y, estimator, method)
    return 1 - present, present


def _check_label_columns(scores, y, estimator, method):
    if scores.shape != y.shape:
        raise ValueError(
            f"{method} of {type(estimator).__name__} has shape {scores.shape}: it must have one "
            f"column for each of the {y.shape[1]} outputs"
        )


def _response_method(estimator, name):
    if hasattr(estimator, name):
        return getattr(estimator, name)
    remedy = (
        "response_method='decision_function' takes its decision values, which must be logits "
        "(those of a support vector machine are not)"
    )
    raise TypeError(
        f"{type(estimator).__name__} has no {name}, which this criterion needs"
        + (f"; {remedy}" if hasattr(estimator, "decision_function") else "")
    )


def _class_columns(scores, estimator, method, classes):
    """The scores as an array with one column per class."""
    scores = as_array(scores, method)
    if scores.ndim != 2 or scores.shape[1] != classes:
        pairs = classes * (classes - 1) // 2
        is_decision = method == "decision_function" and classes > 2
        if is_decision and scores.ndim == 2 and scores.shape[1] == pairs:
            raise _pairs_error(estimator)
        raise ValueError(
            f"{method} of {type(estimator).__name__} has shape {scores.shape}: it must have one "
            f"column for each of the {classes} classes"
        )
    return scores


# --- decision values ------------------------------------------------------------------------------


def _decision_values(estimator, X, classes):
    """One column of decision values per class: (0, z) for two classes with a single score z."""
    scores = as_array(_response_method(estimator, "decision_function")(X), "decision_function")
    if scores.ndim == 1 and classes.size == 2:
        return np.stack([np.zeros_like(scores), scores], axis=1)
    scores = _class_columns(scores, estimator, "decision_function", classes.size)
    if classes.size == 3:  # of which there are three pairs
        shape = _decision_function_shape(estimator)
        if shape == "ovo" or (shape is None and _are_pairs(scores, estimator.predict(X), classes)):
            raise _pairs_error(estimator)
    return scores


def _decision_function_shape(estimator):
    """The parameter of the model that computes the decision values; None if it has none."""
    from sklearn.ensemble import BaggingClassifier  # slow to import

    for _ in range(_MAX_NESTED_ESTIMATORS):
        shape = getattr(estimator, "decision_function_shape", None)
        if isinstance(shape, str):
            return shape
        if isinstance(estimator, BaggingClassifier):  # the mean over its models
            estimator = estimator.estimators_[0]
            continue
        # A search, a pipeline or a selection of features delegates to the model in an attribute.
        # Others that have several models combine them into columns of their own.
        names = ["best_estimator_", "final_estimator_", "_final_estimator"]
        if not hasattr(estimator, "estimators_"):
            names += ["estimator_", "estimator"]
        estimator = next((d for n in names if (d := getattr(estimator, n, None)) is not None), None)
    return None


def _are_pairs(scores, prediction, classes):
    """Whether three columns explain the predictions better as pairs of classes than as classes."""
    predicted = _class_indices(prediction, classes)
    first_wins = scores > 0  # in the pairs (0, 1), (0, 2), (1, 2)

    def agreement(first_wins):
        winners = np.where(first_wins, [0, 0, 1], [1, 2, 2])
        votes = (winners[:, :, np.newaxis] == np.arange(3)).sum(axis=1)
        return np.mean(votes[np.arange(len(votes)), predicted] == votes.max(axis=1))

    as_classes = np.mean(scores.argmax(axis=1) == predicted)
    return max(agreement(first_wins), agreement(~first_wins)) > as_classes


def _pairs_error(estimator):
    remedy = ""
    if _decision_function_shape(estimator) == "ovo":
        remedy = "; decision_function_shape='ovr' gives one per class"
    return ValueError(
        f"decision_function of {type(estimator).__name__} has one column per pair of classes, and "
        f"a scorer takes one per class{remedy}"
    )
