"""Child processes with a library of tests/preload in front of the C library or OpenMP."""

import functools
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("preload")
ROOT = FOLDER.parents[1]
TIMEOUT = 3600  # seconds; ends a test that hangs
FLAGS = ["-O1", "-fno-builtin", "-fno-optimize-sibling-calls", "-shared", "-fPIC", "-pthread"]

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


@functools.cache
def library(name):
    """The path of the library that is compiled from tests/preload/<name>.c."""
    folder = tempfile.TemporaryDirectory(prefix="fastloss-preload-")
    path = Path(folder.name) / f"lib{name}.so"
    environ = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    subprocess.run(["gcc", *FLAGS, FOLDER / f"{name}.c", "-o", path], check=True, env=environ)
    _folders.append(folder)  # removed when the interpreter exits
    return path


_folders = []


def run_module(module, *args, preload, env=None):
    """The standard output of `python -m module`, which must exit with status 0."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("FASTLOSS_", "OMP_"))}
    # A sanitizer's library must come first.
    before = os.environ.get("LD_PRELOAD")
    environ |= {
        "LD_PRELOAD": f"{before} {library(preload)}" if before else str(library(preload)),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *(p for p in sys.path if p)]),
        "PYTHONMALLOC": "malloc",
        **(env or {}),
    }
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", module, *args],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout[-4000:]}\n{result.stderr[-8000:]}"
    return result.stdout
