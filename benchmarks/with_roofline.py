"""The limits of the machine as a peer, whose products are the functions of roofline.c."""

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = "-shared -fPIC -O3 -march=native -fopenmp"
KERNEL_FLAGS = "-ffp-contract=off -fno-math-errno -fno-trapping-math"  # as in setup.py
RATES = ("read_one", "read_two", "copy", "write", "exp_calls", "log_calls")

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
    flags = f"{FLAGS} {KERNEL_FLAGS} -DISA=native -DREAL_IS_DOUBLE={is_double:d}".split()
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    if "clang" not in version.stdout:
        flags.append("-fno-thread-jumps")
    if platform.machine() in ("x86_64", "AMD64"):
        is_avx2 = os.environ.get("FASTLOSS_ISA") == "avx2"
        flags.append("-mno-avx512f" if is_avx2 else "-mprefer-vector-width=512")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "roofline.so"
        command = [compiler, *flags, f"-I{HERE.parent / 'src_c'}", "-o", file]
        subprocess.run([*command, HERE / "roofline.c"], check=True)
        return ctypes.CDLL(file)


def products(cell, arrays, options):
    library = build(cell.dtype == "float64")
    x, y = arrays

    def call(function):
        return function(_threads, x.nbytes // 8, x.ctypes.data, y.ctypes.data)

    calls = {}
    for name in RATES:
        function = getattr(library, name)
        function.restype = ctypes.c_int64
        function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
        calls[name] = partial(call, function)
    return calls


def numbers(result):
    return result
