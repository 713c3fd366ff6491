"""Loss functions for NumPy arrays on CPUs: value and gradient, as PyTorch defines them."""

try:
    import fastloss._binding  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "fastloss._binding":
        raise
    raise ImportError(
        "these are the sources of fastloss, not built: leave their folder to import the installed "
        "package, or install them in place with pip install -e ."
    ) from error

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
