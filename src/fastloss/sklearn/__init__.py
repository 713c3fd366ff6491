"""fastloss for scikit-learn: metrics, which need only NumPy, and scorers and linear models.

The metrics are listed below. `make_scorer`, `LossClassifier` and `LossRegressor` also need
scikit-learn and SciPy: ``pip install 'fastloss[sklearn]'``.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fastloss.sklearn import metrics
from fastloss.sklearn._inputs import InvalidParameterError as InvalidParameterError
from fastloss.sklearn.metrics import *
from fastloss.sklearn.metrics import UndefinedMetricWarning as UndefinedMetricWarning

if TYPE_CHECKING:
    from fastloss.sklearn.estimators import LossClassifier, LossRegressor
    from fastloss.sklearn.scoring import make_scorer

__all__ = [*metrics.__all__]
if TYPE_CHECKING or (find_spec("sklearn") and find_spec("scipy")):
    __all__ += ["LossClassifier", "LossRegressor", "make_scorer"]

# Imported on first access, so that the metrics do not need scikit-learn. Without it, the names are
# not listed, since help() and inspect.getmembers() access every name that is listed.
_LAZY = {
    "LossClassifier": "fastloss.sklearn.estimators",
    "LossRegressor": "fastloss.sklearn.estimators",
    "make_scorer": "fastloss.sklearn.scoring",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("sklearn", "scipy"):
            raise
        raise ImportError(
            f"fastloss.sklearn.{name} needs scikit-learn and SciPy: pip install 'fastloss[sklearn]'"
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
