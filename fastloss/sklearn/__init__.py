"""Criteria in scikit-learn: metrics, scorers and linear models."""

from importlib import import_module

_OF_EXTRA = {
    "LossClassifier": "fastloss.sklearn.estimators",
    "LossRegressor": "fastloss.sklearn.estimators",
    "make_scorer": "fastloss.sklearn.scoring",
}

__all__ = ["LossClassifier", "LossRegressor", "make_scorer"]


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
