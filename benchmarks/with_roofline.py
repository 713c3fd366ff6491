"""The limits of the machine as a peer, whose products are the functions of roofline.c."""

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.cells import CACHE_LINE

HERE = Path(__file__).parent
FLAGS = "-shared -fPIC -O3 -march=native -fopenmp"
MATH_FLAGS = "-ffp-contract=off -fno-math-errno -fno-trapping-math"  # frozen with roofline_math.h
RATES = ("read_one", "read_two", "triad", "copy", "write", "exp_calls", "log_calls")

_threads = 1


def find_compiler():
    path = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if path is None:
        raise ImportError("there is no C compiler")
    return path


def start(threads):
    global _threads
    _threads = threads
    return f"compiled by {find_compiler()}"


def build(is_double):
    compiler = find_compiler()
    flags = f"{FLAGS} {MATH_FLAGS} -DREAL_IS_DOUBLE={is_double:d}".split()
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    if "clang" not in version.stdout:
        flags.append("-fno-thread-jumps")
    if platform.machine() in ("x86_64", "AMD64"):
        is_avx2 = os.environ.get("FASTLOSS_ISA") == "avx2"
        flags.append("-mno-avx512f" if is_avx2 else "-mprefer-vector-width=512")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "roofline.so"
        subprocess.run([compiler, *flags, "-o", file, HERE / "roofline.c"], check=True)
        return ctypes.CDLL(file)


def lines(size):
    """Memory of `size` bytes that begins at a cache line."""
    memory = np.ones(size + CACHE_LINE, np.uint8)  # fresh zeros would all be one page
    return memory[-memory.ctypes.data % CACHE_LINE :][:size]


def products(cell, arrays, options):
    library = build(cell.dtype == "float64")
    size = arrays[0].nbytes
    memory = [lines(size) for _ in range(3)]

    def call(function):
        return function(_threads, size // 8, *(x.ctypes.data for x in memory))

    calls = {}
    for name in RATES:
        function = getattr(library, name)
        function.restype = ctypes.c_int64
        function.argtypes = [ctypes.c_int, ctypes.c_int64, *[ctypes.c_void_p] * 3]
        calls[name] = partial(call, function)
    return calls


def numbers(result):
    return result
