"""`fastloss info`: what to include in a bug report."""

import json
import platform
from importlib import metadata
from typing import Any

import numpy as np

from fastloss import show_config
from fastloss.cli.parsing import Parser, parse
from fastloss.cli.report import SCHEMA_VERSION

# Optional dependencies, and packages whose data fastloss accepts.
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


def info_parser() -> Parser:
    parser = Parser(
        "fastloss info",
        description="Prints the configuration of this build and the versions of Python, NumPy and "
        "the optional packages that are installed, for bug reports.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run_info(argv: list[str]) -> None:
    """Print the configuration and the versions of installed packages."""
    as_json = parse(info_parser(), argv)["json"]
    config: dict[str, Any] = {
        **show_config("dicts"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    packages = _versions()
    if as_json:
        print(json.dumps({"schema_version": SCHEMA_VERSION, **config, "packages": packages}))
        return
    for key, value in {**config, **packages}.items():
        print(f"{key:<27} {', '.join(value) if isinstance(value, list) else value}")


def _versions() -> dict[str, str]:
    """Versions of the installed packages, from metadata: even of one that fails to import."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
