"""The surroundings of a worker on a busy machine: programs that burn a core, and a CPU quota.

Only the standard library is imported, so that ``python -m benchmarks.load``, the program that burns
a core, starts quickly.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PR_SET_PDEATHSIG = 1  # of Linux's prctl()


def die_with_parent():
    """Let the kernel kill this process when its parent ends, however that happens."""
    with suppress(AttributeError, OSError):  # not on Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def burn():
    """Keep a core busy until this process is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent kills this process
    parent = os.getppid()
    die_with_parent()
    print("ready", flush=True)
    while os.getppid() == parent:
        for _ in range(1_000_000):
            pass


class Burners:
    """A number of processes that burn a core each; leaving the context kills them."""

    def __init__(self, count):
        self._processes = []
        try:
            for _ in range(count):
                self._processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "benchmarks.load"],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        cwd=ROOT,
                    )
                )
            for process in self._processes:
                process.stdout.readline()  # until it burns
        except BaseException:
            self.close()
            raise

    @property
    def pids(self):
        return [process.pid for process in self._processes]

    def suspend(self):
        self._send(signal.SIGSTOP)

    def resume(self):
        self._send(signal.SIGCONT)

    def _send(self, number):
        for process in self._processes:
            process.send_signal(number)

    def close(self):
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class Quota:
    """A cgroup with a CPU quota, below the root of the hierarchy; leaving the context removes it.

    Its processes must have ended by then. An OSError says that the machine does not permit it.
    """

    PERIOD = 100_000  # microseconds, the kernel's default

    def __init__(self, cpus, root="/sys/fs/cgroup"):
        quota = round(cpus * self.PERIOD)
        top = Path(root, "cpu")
        if top.is_dir():
            settings = {"cpu.cfs_period_us": self.PERIOD, "cpu.cfs_quota_us": quota}
        else:
            top = Path(root)
            settings = {"cpu.max": f"{quota} {self.PERIOD}"}
        self.folder = top / f"fastloss-benchmark-{os.getpid()}"
        self.folder.mkdir()
        try:
            for name, value in settings.items():
                (self.folder / name).write_text(str(value))
        except BaseException:
            self.close()
            raise

    def add(self, pid):
        """Move a process with all its threads into the cgroup."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def close(self):
        for _ in range(100):
            try:
                self.folder.rmdir()
            except FileNotFoundError:
                return
            except OSError:  # the kernel has not yet removed a process that ended
                time.sleep(0.02)
            else:
                return
        print(f"{self.folder} could not be removed", file=sys.stderr)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


if __name__ == "__main__":
    burn()
