"""fastloss in scikit-learn: metrics, which need NumPy alone, and scorers and linear models.

The latter need scikit-learn and SciPy: ``pip install 'fastloss[sklearn]'``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from fastloss.sklearn import metrics
from fastloss.sklearn.metrics import *

if TYPE_CHECKING:
    from fastloss.sklearn.estimators import LossClassifier, LossRegressor
    from fastloss.sklearn.scoring import make_scorer

__all__ = ["LossClassifier", "LossRegressor", "make_scorer", *metrics.__all__]

# Imported when they are asked for, so that the rest needs no scikit-learn.
_OF_EXTRA = {
    "LossClassifier": "fastloss.sklearn.estimators",
    "LossRegressor": "fastloss.sklearn.estimators",
    "make_scorer": "fastloss.sklearn.scoring",
}


def __getattr__(name):
    if name not in _OF_EXTRA:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_OF_EXTRA[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("sklearn", "scipy"):
            raise
        raise ImportError(
            f"fastloss.sklearn.{name} needs scikit-learn and SciPy: pip install 'fastloss[sklearn]'"
        ) from error


def __dir__():
    return sorted({*globals(), *__all__})
