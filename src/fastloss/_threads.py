"""The initial number of threads: the user's setting, otherwise what the machine allows."""

import os
import sys
import warnings
from collections.abc import Iterator, Mapping

from fastloss._binding import MAX_THREADS, openmp_processors

_VARIABLES = ("FASTLOSS_NUM_THREADS", "OMP_NUM_THREADS")
_BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
_FIXED = "FASTLOSS_FIXED_THREADS"
_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


def starting_threads(
    root: str | os.PathLike[str] = "/", environ: Mapping[str, str] | None = None
) -> tuple[int, str, int]:
    """Return the initial number of threads, what determined it, and the available processors.

    `root` is the folder that contains proc and sys.
    """
    environ = os.environ if environ is None else environ
    available, granted_by = _granted(root)
    rejected = []
    for variable in _VARIABLES:
        value = environ.get(variable)
        if value is None:
            continue
        # OpenMP allows a list, one number per nesting level; fastloss uses one level.
        first = value.split(",")[0] if variable.startswith("OMP_") else value
        requested = _positive(first)
        if requested is not None and requested <= MAX_THREADS:
            threads, source = requested, variable
            break
        rejected.append((variable, value))
    else:
        threads, source = available, granted_by
    for variable, value in rejected:
        warn(
            f"{variable}={_shown(value)} is not a number of threads (1 to {MAX_THREADS}); "
            f"using {threads} instead ({source})"
        )
    return threads, source, available


def fixed_at_start(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether the environment fixes the number of threads."""
    environ = os.environ if environ is None else environ
    value = environ.get(_FIXED, "0")
    if value not in ("0", "1"):
        warn(f"{_FIXED}={_shown(value)} is neither 0 nor 1; the number of threads is not fixed")
    return value == "1"


def _shown(value: str) -> str:
    return repr(value) if len(value) <= 40 else repr(value[:40]) + "..."


def _granted(root: str | os.PathLike[str]) -> tuple[int, str]:
    """The smallest of the machine's cores, the affinity and the cgroup quota, and which it is."""
    threads = max(1, min(os.cpu_count() or 1, MAX_THREADS))
    source = "cores"
    usable = _affinity()
    if usable is not None and 1 <= usable < threads:
        threads, source = usable, "affinity"
    quota = _cgroup_quota(root)
    if quota is not None and quota[0] // quota[1] < threads:
        # Rounded down: the kernel would throttle one thread too many, and all others wait for it.
        threads = max(1, quota[0] // quota[1])
        source = f"cgroup quota {quota[0] / quota[1]:.2f} CPUs"
    return threads, source


def _affinity() -> int | None:
    """The number of processors that this process may use, or None if that is unknown.

    If threads are bound, OpenMP has restricted the affinity of the thread that imports fastloss.
    """
    if any(variable in os.environ for variable in _BINDING):
        return openmp_processors() or None
    try:
        if sys.version_info >= (3, 13):
            return os.process_cpu_count()
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return None


def _cgroup_quota(root: str | os.PathLike[str]) -> tuple[int, int] | None:
    """The smallest (quota, period) of this process's cgroup and its ancestors, v1 and v2."""
    smallest: tuple[int, int] | None = None
    for folder, version in _cgroup_folders(root):
        if version == 2:
            fields = _read(folder, "cpu.max").split()[:2]
        else:
            fields = [
                _read(folder, "cpu.cfs_quota_us"),
                _read(folder, "cpu.cfs_period_us"),
            ]
        numbers = [number for field in fields if (number := _positive(field)) is not None]
        if len(numbers) != 2:
            continue  # "max", -1, or anything else that sets no limit
        quota, period = numbers
        if smallest is None or quota * smallest[1] < smallest[0] * period:
            smallest = quota, period
    return smallest


def _cgroup_folders(root: str | os.PathLike[str]) -> Iterator[tuple[str, int]]:
    """Yield (folder, cgroup version) for this process's cgroup and its mounted ancestors."""
    cgroups: dict[int, str] = {}  # version -> path of this process's cgroup in its hierarchy
    for line in _read(root, "proc/self/cgroup").splitlines():
        fields = line.split(":", 2)
        if len(fields) != 3:
            continue
        if fields[0] == "0" and fields[1] == "":
            cgroups[2] = fields[2]
        elif "cpu" in fields[1].split(","):
            cgroups[1] = fields[2]
    if not cgroups:
        return
    for line in _read(root, "proc/self/mountinfo").splitlines():
        left, separator, right = line.partition(" - ")
        if not separator or not right.startswith("cgroup"):
            continue
        mount, filesystem = left.split(" "), right.split(" ")
        if len(mount) < 5:
            continue
        if filesystem[0] == "cgroup2":
            version = 2
        elif filesystem[0] == "cgroup" and "cpu" in filesystem[-1].split(","):
            version = 1
        else:
            continue
        if version not in cgroups:
            continue
        top = os.path.join(root, _unescape(mount[4]).lstrip("/"))
        yield top, version
        # The mount may show only part of the hierarchy, and inside a container the path of the
        # cgroup may be relative to the host. In both cases only the mount point can be read.
        below = _below(cgroups[version], _unescape(mount[3]))
        for i in range(len(below)):
            yield os.path.join(top, *below[: i + 1]), version


def _below(path: str, top: str) -> list[str]:
    """The components of `path` below `top`, or [] if `path` is not below it."""
    parts = [part for part in path.split("/") if part]
    top_parts = [part for part in top.split("/") if part]
    if ".." in parts or parts[: len(top_parts)] != top_parts:
        return []
    return parts[len(top_parts) :]


def _unescape(path: str) -> str:
    """Undo the octal escapes of /proc/self/mountinfo."""
    for escape, character in _ESCAPES:
        path = path.replace(escape, character)
    return path


def _read(folder: str | os.PathLike[str], name: str) -> str:
    """The text of a file, or "" if it cannot be read."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (OSError, ValueError):
        return ""


def _positive(text: str) -> int | None:
    """A positive decimal integer, or None."""
    text = text.strip()
    # The limit on the length guards int(), which rejects thousands of digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        return None
    return int(text) or None


def warn(message: str) -> None:
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    except RuntimeWarning:
        # With warnings as errors, a bad environment variable must still not fail the import.
        print(f"RuntimeWarning: {message}", file=sys.stderr)
