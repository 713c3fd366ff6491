"""The number of threads and the instruction set that calls use."""

import operator
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, SupportsIndex, overload

from fastloss import _binding, _threads
from fastloss._version import __version__

_process_source = ""  # what determined the number of threads of the process


def _start() -> None:
    """Take the number of threads and the instruction set from the environment and the machine."""
    global _process_source
    runnable, built = _binding.isas(), _binding.isas(built=True)
    if not runnable:
        raise ImportError(
            f"fastloss was built for {', '.join(built)} (FASTLOSS_BUILD_ISAS), and this "
            "processor runs none of them; build it again without FASTLOSS_BUILD_ISAS"
        )
    threads, _process_source, available = _threads.starting_threads()
    _binding.set_available_processors(available)
    _binding.set_process_threads(threads, _threads.fixed_at_start())
    requested = os.environ.get("FASTLOSS_ISA")
    # FASTLOSS_ISA is an upper limit: an instruction set beyond this processor changes nothing.
    _binding.select_isa(requested if requested in runnable else runnable[-1])
    if requested is not None and requested not in built:
        _threads.warn(
            f"FASTLOSS_ISA={requested!r} is not an instruction set of this build "
            f"({', '.join(built)}); using {runnable[-1]} instead"
        )


def _checked(n: SupportsIndex) -> int:
    try:
        threads = operator.index(n)
    except TypeError:
        raise TypeError(f"the number of threads must be an integer, got {n!r}") from None
    if not 1 <= threads <= _binding.MAX_THREADS:
        raise ValueError(
            f"the number of threads must be between 1 and {_binding.MAX_THREADS}, got {threads}"
        )
    return threads


def _checked_mode(fixed: bool | None) -> bool | None:
    if fixed is not None and not isinstance(fixed, bool):
        raise TypeError(f"fixed must be True, False or None, got {fixed!r}")
    return fixed


def set_num_threads(n: SupportsIndex, *, fixed: bool | None = None) -> None:
    """Set the maximum number of threads that each call in this process may use.

    Parameters
    ----------
    n : int
        Number of threads, from 1 to 1024. It may exceed the number of processors, which makes
        calls slower.
    fixed : bool, optional
        Whether every call that is large enough uses `n` threads. If False, calls use fewer
        threads when larger teams have lost time, for example because other programs occupy the
        processors. The results are bitwise identical. None, the default, leaves the mode as it is;
        a process starts with False unless ``FASTLOSS_FIXED_THREADS=1`` is set.

    See Also
    --------
    num_threads : Set the number for a block of code in one Python thread.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.set_num_threads(2)
    """
    global _process_source
    threads = _checked(n)
    _, was_fixed = _binding.process_threads()
    mode = _checked_mode(fixed)
    _binding.set_process_threads(threads, was_fixed if mode is None else mode)
    _process_source = "set_num_threads"


def get_num_threads() -> int:
    """Return the number of threads that a large call from this Python thread may use now.

    It is smaller than the number given to `set_num_threads` where `num_threads` or threadpoolctl
    lowers it, in a forked child whose parent had used threads, and inside another parallel region.

    Returns
    -------
    int
        Number of threads, at least 1.
    """
    return _binding.effective_threads()[0]


def num_threads(n: SupportsIndex, *, fixed: bool | None = None) -> AbstractContextManager[None]:
    """Set the maximum number of threads for calls in a ``with`` block.

    It applies to the current context (`contextvars`): to the calling Python thread or, in asyncio,
    to the calling task.

    Parameters
    ----------
    n : int
        Number of threads, from 1 to 1024. It takes precedence over `set_num_threads`.
    fixed : bool, optional
        As in `set_num_threads`.

    Returns
    -------
    context manager
        Restores the previous number on exit.

    Examples
    --------
    >>> import fastloss as fl
    >>> with fl.num_threads(1):
    ...     fl.get_num_threads()
    1
    """
    return _override(_checked(n), _checked_mode(fixed))


@contextmanager
def _override(n: int, fixed: bool | None) -> Iterator[None]:
    _, was_fixed = _binding.effective_threads()
    block = _binding.enter_threads(n, was_fixed if fixed is None else fixed)
    try:
        yield
    finally:
        _binding.leave_threads(block)


def _thread_count_source() -> str:
    """Describe what determines the number of threads, in a few words."""
    requested, _ = _binding.thread_override()
    source = "num_threads"
    if not requested:
        (requested, _), source = _binding.process_threads(), _process_source
    if get_num_threads() < requested:
        source += (
            ", lowered by the OpenMP runtime, small stacks of its threads, a fork or an enclosing "
            "parallel region"
        )
    return source


def _threads_in_use() -> str:
    """Describe how many threads parallel regions use, by their elements of work, in a few words."""
    allowed, fixed = _binding.effective_threads()
    if allowed == 1:
        return "1"
    if fixed:
        return f"{allowed}, fixed"
    classes = _binding.team_classes()
    ends = [f"to {first - 1:,}" for first, *_ in classes[1:]] + ["or more"]
    reduced = [
        f"{size} for {first:,} {end} elements (larger teams lost time: reduced {reductions} times, "
        f"tried again {probes} times)"
        for (first, size, reductions, probes), end in zip(classes, ends, strict=True)
        if 0 < size < allowed
    ]
    return "; ".join([f"up to {allowed}", *reduced])


@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: Literal["stdout", "dicts"] = "stdout") -> dict[str, Any] | None:
    """Show the version, the instruction set, the threads and the OpenMP runtime in use.

    Parameters
    ----------
    mode : {"stdout", "dicts"}, default "stdout"
        "stdout" prints the configuration, "dicts" returns it as a dict.

    Returns
    -------
    dict or None
        The configuration with ``mode="dicts"``, otherwise None.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.show_config("dicts")["version"] == fl.__version__
    True
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts', got {mode!r}")
    openmp = _binding.openmp_runtime()
    config = {
        "version": __version__,
        "instruction set": _binding.isa(),
        "instruction sets available": _binding.isas(),
        "threads": get_num_threads(),
        "threads set by": _thread_count_source(),
        "threads in use": _threads_in_use(),
        "openmp": "none: calls run on one thread" if openmp == "none" else openmp,
    }
    if mode == "dicts":
        return config
    for key, value in config.items():
        print(f"{key:<27} {', '.join(value) if isinstance(value, list) else value}")
    return None


_start()
