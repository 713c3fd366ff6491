"""The number of threads to start with: what the user asked for, else what the machine grants."""

import os
import sys
import warnings

MAX_THREADS = 1024  # FL_MAX_THREADS in src_c/parallel.h

_VARIABLES = ("FASTLOSS_NUM_THREADS", "OMP_NUM_THREADS")
_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


def starting_threads(root="/", environ=None):
    """Return the number of threads to start with and the reason in a few words.

    `root` is the folder that holds proc and sys.
    """
    environ = os.environ if environ is None else environ
    bad = []
    for variable in _VARIABLES:
        value = environ.get(variable)
        if value is None:
            continue
        # OpenMP allows a list, one number per level of nesting; this library uses one level.
        number = value.split(",")[0] if variable.startswith("OMP_") else value
        threads = _positive(number)
        if threads is not None and threads <= MAX_THREADS:
            reason = variable
            break
        bad.append((variable, value))
    else:
        threads, reason = _granted(root)
    for variable, value in bad:
        shown = repr(value) if len(value) <= 40 else repr(value[:40]) + "..."
        warn(
            f"{variable}={shown} is not a number of threads (1 to {MAX_THREADS}); "
            f"using {threads} instead ({reason})"
        )
    return threads, reason


def _granted(root):
    threads = max(1, min(os.cpu_count() or 1, MAX_THREADS))
    reason = "cores"
    usable = _affinity()
    if usable is not None and 1 <= usable < threads:
        threads, reason = usable, "affinity"
    quota = _cgroup_quota(root)
    if quota is not None and quota[0] // quota[1] < threads:
        # Rounded down: one thread too many is throttled, and holds up all the others.
        threads = max(1, quota[0] // quota[1])
        reason = f"cgroup quota {quota[0] / quota[1]:.2f} CPUs"
    return threads, reason


def _affinity():
    """Number of processors that this process may use, or None."""
    try:
        if hasattr(os, "process_cpu_count"):
            return os.process_cpu_count()
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return None


def _cgroup_quota(root):
    """The smallest (quota, period) of the own cgroup and its ancestors, v1 and v2, or None."""
    smallest = None
    for folder, version in _cgroup_folders(root):
        if version == 2:
            fields = _read(folder, "cpu.max").split()[:2]
        else:
            fields = [
                _read(folder, "cpu.cfs_quota_us"),
                _read(folder, "cpu.cfs_period_us"),
            ]
        numbers = [_positive(field) for field in fields]
        if len(numbers) != 2 or None in numbers:
            continue  # "max", -1, or something else that is no limit
        quota, period = numbers
        if smallest is None or quota * smallest[1] < smallest[0] * period:
            smallest = quota, period
    return smallest


def _cgroup_folders(root):
    """Yield (folder, cgroup version) of the own cgroup and its ancestors, as far as mounted."""
    own = {}  # version -> path of the own cgroup in its hierarchy
    for line in _read(root, "proc/self/cgroup").splitlines():
        fields = line.split(":", 2)
        if len(fields) != 3:
            continue
        if fields[0] == "0" and fields[1] == "":
            own[2] = fields[2]
        elif "cpu" in fields[1].split(","):
            own[1] = fields[2]
    if not own:
        return
    for line in _read(root, "proc/self/mountinfo").splitlines():
        mount, separator, filesystem = line.partition(" - ")
        if not separator or not filesystem.startswith("cgroup"):
            continue
        mount, filesystem = mount.split(" "), filesystem.split(" ")
        if len(mount) < 5:
            continue
        if filesystem[0] == "cgroup2":
            version = 2
        elif filesystem[0] == "cgroup" and "cpu" in filesystem[-1].split(","):
            version = 1
        else:
            continue
        if version not in own:
            continue
        top = os.path.join(root, _unescape(mount[4]).lstrip("/"))
        yield top, version
        # Only a part of the hierarchy may be mounted, and in a container the own path may be
        # that of the host: then what is mounted is all that can be known.
        below = _below(own[version], _unescape(mount[3]))
        for i in range(len(below)):
            yield os.path.join(top, *below[: i + 1]), version


def _below(path, top):
    """Components of `path` below `top`; none if it is not below."""
    path = [part for part in path.split("/") if part]
    top = [part for part in top.split("/") if part]
    if ".." in path or path[: len(top)] != top:
        return []
    return path[len(top) :]


def _unescape(path):
    for escape, character in _ESCAPES:
        path = path.replace(escape, character)
    return path


def _read(folder, name):
    """Text of a file; empty if it cannot be read."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (OSError, ValueError):
        return ""


def _positive(text):
    """A positive decimal number, or None."""
    text = text.strip()
    # The length guards int(), which refuses thousands of digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        return None
    return int(text) or None


def warn(message):
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    except RuntimeWarning:
        # Warnings are errors here, but a variable of the environment must not fail the import.
        print(f"RuntimeWarning: {message}", file=sys.stderr)
