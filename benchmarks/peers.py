"""The handle of a peer's process, and the comparison of its results with fastloss."""

import os
import pickle
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("torch", "compile", "jax", "numpy", "sklearn", "sklearn_loss")
# Peers accumulate, and some compute, in the precision of the arrays.
TOLERANCE = {"float32": 1e-4, "float64": 1e-9, "float16": 1e-2, "bfloat16": 5e-2}
FLOOR = {"float16": 2.0**-22}  # absolute tolerance: small gradients may be subnormal

# Variables that limit the libraries to an instruction set. with_compile.py reads PyTorch's too.
ISAS = {
    "avx2": {
        "FASTLOSS_ISA": "avx2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    }
}


class PeerError(Exception):
    """The reason why a peer has no result."""


class Missing(PeerError):
    """The peer is not installed."""


class Late(PeerError):
    """The peer's first call takes too long."""


class Peer:
    """A library in a process of its own: `ask` calls a method of the `Worker` there.

    `send` and `answer` are the two halves of `ask`, with which several workers run at once.
    `environment` has further variables of the process; None removes a variable.
    """

    def __init__(self, name, threads, python=sys.executable, isa=None, environment=None):
        self._command = [python, "-m", "benchmarks.worker", name, str(threads)]
        variables = os.environ | {"OMP_NUM_THREADS": str(threads)} | ISAS.get(isa, {})
        variables |= environment or {}
        self._environment = {k: value for k, value in variables.items() if value is not None}
        self._process = None
        self.version = self._start()

    @property
    def pid(self):
        return self._process.pid

    def _start(self):
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, env=self._environment, cwd=ROOT
        )
        return self.answer()

    def answer(self, timeout=None):
        """The answer to the last request; a process that exceeds the timeout is killed."""
        if timeout is not None and not select.select([self._process.stdout], [], [], timeout)[0]:
            self._process.kill()
            self.close()
            raise PeerError(f"its process was killed: no answer in {timeout:.0f} s")
        try:
            kind, content = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            self.close()
            raise PeerError(f"its process ended with status {self._process.returncode}") from None
        if kind == "missing":
            self.close()
            raise Missing(content)
        if kind == "late":
            raise Late(content)
        if kind == "error":
            raise PeerError(content)
        return content

    def ask(self, method, *arguments):
        self.send(method, *arguments)
        return self.answer()

    def send(self, method, *arguments):
        if self._process.poll() is not None:  # it crashed; start a new one for the next cell
            self.close()
            self._start()
        with suppress(BrokenPipeError):  # reading the answer reports the failure
            pickle.dump((method, arguments), self._process.stdin, protocol=5)
            self._process.stdin.flush()

    def close(self):
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                stream.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # in a long or endless call
            self._process.kill()
            self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, exception, *details):
        if exception is not None:  # the process may be in the middle of a long request
            self._process.kill()
        self.close()


def open_peers(stack, names, threads, pythons=None, isa=None, builds=None, report=print):
    """Open fastloss, `builds` of it and the peers that are installed; an `ExitStack` closes them.

    `builds` has the folder to import from for each name, as `commits.build` returns them.
    """
    peers = {}
    builds = builds or {}
    for name in ("fastloss", *builds, *names):
        python = (pythons or {}).get(name, sys.executable)
        path, environment = builds.get(name), None
        if path is not None:
            others = os.environ.get("PYTHONPATH")
            environment = {"PYTHONPATH": os.pathsep.join(filter(None, (str(path), others)))}
        try:
            peer = Peer(name.partition(" ")[0], threads, python, isa, environment)
        except PeerError as error:
            if is_fastloss(name):
                raise SystemExit(f"{name} cannot be used: {error}") from None
            report(f"{name:<17}left out: {error}")
            continue
        peers[name] = stack.enter_context(peer)
        report(f"{name:<17}{peer.version}")
        if path is not None and str(path) not in peer.version:
            raise SystemExit(f"{name} is not imported from {path}")
    return peers


def is_fastloss(name):
    """Whether a peer is fastloss or a build of it, not another library."""
    return name.partition(" ")[0] == "fastloss"


def disagreement(result, reference, dtype, slack=1):
    """How a result (value, gradients) disagrees with the reference, or None.

    The list of gradients may be empty. `slack` multiplies their tolerance.
    """
    tolerance = TOLERANCE[dtype]
    (value, gradients), (expected_value, expected_gradients) = result, reference
    if not abs(value - expected_value) <= tolerance * abs(expected_value):  # refuses NaN
        return f"value {value!r} where fastloss has {expected_value!r}"
    if not gradients:
        return None
    if [g.shape for g in gradients] != [g.shape for g in expected_gradients]:
        return "gradients of other shapes"
    for k, (gradient, expected) in enumerate(zip(gradients, expected_gradients, strict=True)):
        scale = np.abs(expected).mean(dtype=np.float64)
        rtol = tolerance * slack
        atol = rtol * scale + FLOOR.get(dtype, 0)
        index = _first_outside(gradient.ravel(), expected.ravel(), rtol, atol)
        if index is not None:
            position = [int(i) for i in np.unravel_index(index, expected.shape)]
            a, b = gradient.flat[index], expected.flat[index]
            return f"gradient {k} at {position} is {a!s} where fastloss has {b!s}"
    return None


def _first_outside(gradient, expected, rtol, atol, block=1 << 20):
    """The first index at which the gradient is out of tolerance, or None."""
    for begin in range(0, expected.size, block):
        b = expected[begin : begin + block].astype(np.float64)
        is_close = np.abs(gradient[begin : begin + block] - b) <= rtol * np.abs(b) + atol
        if not is_close.all():
            return begin + int(np.argmin(is_close))
    return None
