"""What calls run on: the number of threads and the instruction set."""

import operator
import os
from contextlib import contextmanager

from fastloss import _binding, _threads
from fastloss._version import __version__

_reason = ""


def _start():
    """At import: what the environment and the machine say."""
    global _reason
    threads, _reason = _threads.starting_threads()
    _binding.set_process_threads(min(threads, _threads.MAX_THREADS))
    available = _binding.isas()
    wanted = os.environ.get("FASTLOSS_ISA")
    if wanted in available:
        _binding.select_isa(wanted)
    else:
        _binding.select_isa(available[-1])
        if wanted is not None and wanted not in (
            "avx2",
            "avx512",
        ):  # a cap above this processor is none
            _threads.warn(
                f"FASTLOSS_ISA={wanted!r} is not an instruction set: use one of "
                f"{', '.join(available)}; taking {available[-1]}"
            )


def _checked(n):
    try:
        n = operator.index(n)
    except TypeError:
        raise TypeError(f"the number of threads must be an integer, got {n!r}") from None
    if not 1 <= n <= _threads.MAX_THREADS:
        raise ValueError(
            f"the number of threads must be between 1 and {_threads.MAX_THREADS}, got {n}"
        )
    return n


def set_num_threads(n):
    """Let the calls of this process use up to `n` threads each.

    Parameters
    ----------
    n : int
        At least 1. More than the machine has processors is allowed, and slower.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.set_num_threads(2)
    """
    global _reason
    _binding.set_process_threads(_checked(n))
    _reason = "set_num_threads"


def get_num_threads():
    """The number of threads that a large call by this Python thread may use now.

    Smaller than what `set_num_threads` set where `num_threads` or threadpoolctl holds it down, in a
    forked child whose parent had used threads, and inside another parallel region.

    Returns
    -------
    int
    """
    return _binding.effective_threads()


def num_threads(n):
    """Within a ``with`` block, let the calls of this Python thread use up to `n` threads each.

    Parameters
    ----------
    n : int
        At least 1.

    Examples
    --------
    >>> import fastloss as fl
    >>> with fl.num_threads(1):
    ...     fl.get_num_threads()
    1
    """
    return _override(_checked(n))


@contextmanager
def _override(n):
    previous = _binding.set_thread_override(n)
    try:
        yield
    finally:
        _binding.set_thread_override(previous)


def _why():
    """What the number of threads follows from."""
    if _binding.thread_override():
        reason, granted = "num_threads", _binding.thread_override()
    else:
        reason, granted = _reason, _binding.process_threads()
    if get_num_threads() < granted:
        reason += ", held down by the OpenMP runtime, a fork or a region around"
    return reason


def show_config(mode="stdout"):
    """What this build is and what its calls run on.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print it, or return it as a dict.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.show_config("dicts")["version"] == fl.__version__
    True
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts', got {mode!r}")
    runtime = _binding.openmp_runtime()
    config = {
        "version": __version__,
        "instruction set": _binding.isa(),
        "instruction sets available": _binding.isas(),
        "threads": get_num_threads(),
        "threads because of": _why(),
        "openmp": runtime.replace("none", "none: calls run on one thread"),
    }
    if mode == "dicts":
        return config
    for key, value in config.items():
        print(f"{key:<27} {', '.join(value) if isinstance(value, list) else value}")
    return None


_start()
