"""Workers: their affinity, what other users of the OpenMP runtime leave in them, their creation."""

import os
import platform
import subprocess
import sys

import pytest

import fastloss as fl
from tests.test_processes import linux, python

# --- affinity -------------------------------------------------------------------------------------

TEAM = """
    import os, queue, threading, time
    import fastloss as fl

    class Worker(threading.Thread):
        def __init__(self):
            super().__init__(daemon=True)
            self.numbers, self.done = queue.SimpleQueue(), queue.SimpleQueue()
            self.start()

        def run(self):
            while (number := self.numbers.get()) is not None:
                team.join(number)
                self.done.put(None)

        def join_as(self, number):
            self.numbers.put(number)
            self.done.get()

        def end(self):
            self.numbers.put(None)
            self.join()

        def processors(self):
            return os.sched_getaffinity(self.native_id)

    def until(condition):
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)

    def move(*processors):
        os.sched_setaffinity(0, processors)
        assert team.place()
        assert os.sched_getaffinity(0) == set(processors)

    team = fl._binding.Team()
    first, second = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {first, second})
    a, b, c = Worker(), Worker(), Worker()
    assert team.place()
"""

teams = pytest.mark.skipif(
    sys.platform != "linux"
    or len(os.sched_getaffinity(0)) < 2
    or fl._binding.openmp_runtime() == "none",
    reason="needs OpenMP, Linux and two processors",
)


@teams
def test_workers_are_kept_off_the_processor_of_the_caller():
    python(
        TEAM
        + """
    a.join_as(1)
    until(lambda: team.place() and len(a.processors()) == 1)
    move(first)
    for processor in (second, first, second):  # from now on it changes with every move
        move(processor)
        assert a.processors() == {processor}
    assert b.processors() == {first, second}
    b.join_as(2)
    assert b.processors() == {second}
    os.sched_setaffinity(0, {first, second})
    until(lambda: team.place() and len(a.processors() | b.processors()) == 1)
    assert c.processors() == os.sched_getaffinity(0) == {first, second}
    """
    )


@teams
def test_workers_that_end_or_change_leave_their_team():
    python(
        TEAM
        + """
    a.join_as(1)
    assert team.worker(1) == a.native_id
    a.join_as(2)
    assert (team.worker(1), team.worker(2)) == (0, a.native_id)
    b.join_as(1)
    b.end()
    until(lambda: team.worker(1) == 0)
    c.join_as(2)
    a.end()
    time.sleep(0.1)
    assert team.worker(2) == c.native_id
    c.end()
    until(lambda: team.worker(2) == 0)
    """
    )


# --- other libraries that use OpenMP --------------------------------------------------------------

OTHER = """
#include <omp.h>

/* Calls f on the first thread of a team of two. */
void in_team(void (*f)(void))
{
#pragma omp parallel num_threads(2)
    if (omp_get_thread_num() == 0)
        f();
}

#ifdef __x86_64__
#include <xmmintrin.h>

void set_modes(unsigned mode)
{
#pragma omp parallel num_threads(2)
    _mm_setcsr(mode);
}

/* The floating-point modes of the threads, without the sticky flags: 0 if they differ. */
unsigned modes(void)
{
    unsigned all = ~0u, any = 0;
#pragma omp parallel num_threads(2) reduction(& : all) reduction(| : any)
    all &= _mm_getcsr() & ~0x3fu, any |= _mm_getcsr() & ~0x3fu;
    return all == any ? all : 0;
}
#endif
"""


def other_library(folder):
    """The path of a library that starts teams of the OpenMP runtime of fastloss."""
    if "libgomp" not in fl._binding.openmp_runtime():
        pytest.skip("built without libgomp")
    source, library = folder / "other.c", folder / "other.so"
    source.write_text(OTHER)
    command = ["gcc", "-shared", "-fPIC", "-fopenmp", source, "-o", library]
    subprocess.run(command, check=True)
    return str(library)


@linux
def test_calls_within_a_team_of_another_library(tmp_path):
    program = f"""
        import ctypes
        import numpy as np
        import fastloss as fl

        x, results = np.ones(1 << 20, np.float32), []

        def call():
            results.append((fl.get_num_threads(), fl.mse_loss(x, 0.0)))

        fl.set_num_threads(2)
        ctypes.CDLL({other_library(tmp_path)!r}).in_team(ctypes.CFUNCTYPE(None)(call))
        call()
        assert results == [(1, 1.0), (2, 1.0)]
    """
    python(program)


@linux
@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs x86-64")
@pytest.mark.parametrize("mode", [0x1F80 | 0x8040, 0x1F80 | 0x4000])
def test_floating_point_mode_of_workers(mode, tmp_path):
    """Another library may leave its mode in threads: it changes no result, and is restored."""
    program = f"""
        import ctypes
        import numpy as np
        import fastloss as fl

        other = ctypes.CDLL({other_library(tmp_path)!r})
        x = np.random.default_rng(0).normal(size=1 << 22).astype(np.float32) * np.float32(2e-20)
        fl.set_num_threads(2, fixed=True)

        def results():
            return fl.mse_loss.sums(x, np.float32(0)), fl.mse_loss.grad(x, np.float32(0)).tobytes()

        expected = results()
        other.set_modes({mode})
        for _ in range(20):  # a worker may be late
            assert results() == expected
        assert other.modes() == {mode}
    """
    python(program)


# --- creation -------------------------------------------------------------------------------------


@pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0 or fl._binding.openmp_runtime() == "none",
    reason="only root can become a user without tasks",
)
def test_workers_that_can_be_created_again():
    """After a second, a call tries to create the threads that the one before could not."""
    program = """
        import os, resource, time
        import numpy as np
        import fastloss as fl

        fl.set_num_threads(2, fixed=True)
        x = np.ones(1 << 20, np.float32)
        fl.mse_loss(x[:1], np.float32(0))  # imports modules that the other user may not read
        before = len(os.listdir("/proc/self/task"))
        os.setresuid(*3 * [50_000 + os.getpid() % 10_000])
        soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        resource.setrlimit(resource.RLIMIT_NPROC, (before, hard))
        fl.mse_loss(x, np.float32(0))
        assert len(os.listdir("/proc/self/task")) == before
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
        end = time.monotonic() + 60
        while len(os.listdir("/proc/self/task")) == before:
            assert time.monotonic() < end
            assert fl.mse_loss(x, np.float32(0)) == 1
            time.sleep(0.1)
    """
    python(program)
