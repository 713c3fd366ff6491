"""The handle of a peer's process, and whether its results agree with fastloss."""

import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("torch", "compile", "jax", "numpy", "sklearn", "sklearn_loss")
# Peers add up, and some compute, in their own precision.
TOLERANCE = {"float32": 1e-4, "float64": 1e-9, "float16": 1e-2, "bfloat16": 5e-2}
FLOOR = {"float16": 2.0**-22}  # a few steps of its subnormals, where such gradients may be

# What holds a library to an instruction set; with_compile.py knows PyTorch's variable too.
ISAS = {
    "avx2": {
        "FASTLOSS_ISA": "avx2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    }
}


class PeerError(Exception):
    """A peer has no result, and why."""


class Missing(PeerError):
    """The peer is not installed."""


class Late(PeerError):
    """The peer's first call takes too long."""


class Peer:
    """A library in a process of its own: `ask` calls a method of the `Worker` there."""

    def __init__(self, name, threads, python=sys.executable, isa=None):
        self._command = [python, "-m", "benchmarks.worker", name, str(threads)]
        self._environment = os.environ | {"OMP_NUM_THREADS": str(threads)} | ISAS.get(isa, {})
        self._process = None
        self.version = self._start()

    def _start(self):
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, env=self._environment, cwd=ROOT
        )
        return self._answer()

    def _answer(self):
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
        if self._process.poll() is not None:  # it crashed; a new one takes the next cell
            self.close()
            self._start()
        with suppress(BrokenPipeError):  # what is left of its answer tells
            pickle.dump((method, arguments), self._process.stdin, protocol=5)
            self._process.stdin.flush()
        return self._answer()

    def close(self):
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                stream.close()
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def open_peers(stack, names, threads, pythons=None, isa=None, report=print):
    """fastloss and those of `names` that are installed, by name; an `ExitStack` ends them."""
    peers = {}
    for name in ("fastloss", *names):
        try:
            peer = Peer(name, threads, (pythons or {}).get(name, sys.executable), isa)
        except PeerError as error:
            if name == "fastloss":
                raise SystemExit(f"fastloss cannot be used: {error}") from None
            report(f"{name:<12} left out: {error}")
        else:
            peers[name] = stack.enter_context(peer)
            report(f"{name:<12} {peer.version}")
    return peers


def disagreement(result, reference, dtype, leniency=1):
    """What is wrong with (value, gradients), in words, or None; a value alone has no gradients.

    Leniency is with gradients.
    """
    tolerance = TOLERANCE[dtype]
    (value, gradients), (true_value, true_gradients) = result, reference
    if not abs(value - true_value) <= tolerance * abs(true_value):  # so written, NaN is refused
        return f"value {value!r} where fastloss has {true_value!r}"
    if not gradients:
        return None
    if [g.shape for g in gradients] != [g.shape for g in true_gradients]:
        return "gradients of other shapes"
    for which, (gradient, true) in enumerate(zip(gradients, true_gradients, strict=True)):
        scale = np.abs(true).mean(dtype=np.float64)
        relative = tolerance * leniency
        slack = relative * scale + FLOOR.get(dtype, 0)
        at = _first_outside(gradient.ravel(), true.ravel(), relative, slack)
        if at is not None:
            position = [int(i) for i in np.unravel_index(at, true.shape)]
            g, t = gradient.flat[at], true.flat[at]
            return f"gradient {which} at {position} is {g!s} where fastloss has {t!s}"
    return None


def _first_outside(gradient, true, tolerance, slack, block=1 << 20):
    """The first position off by more than tolerance times its size and the slack, or None."""
    for begin in range(0, true.size, block):
        t = true[begin : begin + block].astype(np.float64)
        close = np.abs(gradient[begin : begin + block] - t) <= tolerance * np.abs(t) + slack
        if not close.all():
            return begin + int(np.argmin(close))
    return None
