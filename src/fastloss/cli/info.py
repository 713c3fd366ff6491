"""`fastloss info`: what a report of a bug should hold."""

import json
import platform
from importlib import metadata
from typing import Any

import numpy as np

from fastloss import show_config
from fastloss.cli.parsing import Parser

# Optional packages that fastloss reads data with, or works in.
PACKAGES = (
    "h5py",
    "zarr",
    "pyarrow",
    "dask",
    "scikit-learn",
    "scipy",
    "matplotlib",
    "tqdm",
    "ml_dtypes",
)


def run_info(argv: list[str]) -> None:
    """Prints the configuration and the versions of what is installed."""
    parser = Parser(
        "fastloss info",
        description="What this build is, what its calls run on, and the versions of Python, NumPy "
        "and the optional packages that are installed: for reports of bugs.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args(argv).json
    found: dict[str, Any] = {
        **show_config("dicts"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    packages = _versions()
    if as_json:
        print(json.dumps({**found, "packages": packages}))
        return
    for key, value in {**found, **packages}.items():
        print(f"{key:<27} {', '.join(value) if isinstance(value, list) else value}")


def _versions() -> dict[str, str]:
    """Without importing them: a package that fails to import still has a version."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
