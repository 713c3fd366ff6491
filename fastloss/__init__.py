"""Loss functions for NumPy arrays on CPUs: value and gradient, as PyTorch defines them."""

from fastloss import criteria, losses
from fastloss._errors import ClassIndexError
from fastloss._runtime import get_num_threads, num_threads, set_num_threads, show_config
from fastloss._version import __version__
from fastloss.criteria import *
from fastloss.losses import *

__all__ = [
    "ClassIndexError",
    "__version__",
    "get_num_threads",
    "num_threads",
    "set_num_threads",
    "show_config",
    *criteria.__all__,
    *losses.__all__,
]
