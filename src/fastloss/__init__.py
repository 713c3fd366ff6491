"""Loss functions for NumPy arrays on CPUs: value and gradient, as PyTorch defines them."""

from typing import TYPE_CHECKING

try:
    import fastloss._binding  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "fastloss._binding":
        raise
    raise ImportError(
        "these are the sources of fastloss, which have not been built: install them with "
        "pip install -e ., or import the installed package from another folder"
    ) from _error

from fastloss import criteria, losses
from fastloss._errors import ClassIndexError
from fastloss._runtime import get_num_threads, num_threads, set_num_threads, show_config
from fastloss._version import __version__
from fastloss.criteria import *
from fastloss.losses import *

if TYPE_CHECKING:
    from fastloss.evaluation.accumulators import Accumulator
    from fastloss.evaluation.evaluator import evaluate
    from fastloss.evaluation.results import Evaluation

# Imported on first access: files, JSON and locks take longer to import than all the losses.
_LAZY = {
    "Accumulator": "fastloss.evaluation.accumulators",
    "Evaluation": "fastloss.evaluation.results",
    "evaluate": "fastloss.evaluation.evaluator",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'fastloss' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


__all__ = [
    "Accumulator",
    "ClassIndexError",
    "Evaluation",
    "__version__",
    "evaluate",
    "get_num_threads",
    "num_threads",
    "set_num_threads",
    "show_config",
    *criteria.__all__,
    *losses.__all__,
]
