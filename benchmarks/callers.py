"""Ways in which several callers in one process, or a forked child, call a loss."""

import os
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.load import die_with_parent

CALLS_OF_A_TASK = 10  # hides the time that joblib and Dask need to start a task
FILES = ("input.npy", "target.npy")


@dataclass(frozen=True)
class Job:
    new_call: Callable  # returns a call with arrays of its own
    callers: int
    warm_up: float  # seconds
    seconds: float
    folder: str | None  # has the files that `evaluate` reads
    start: Callable  # sets the number of threads
    threads: int


def rate(run, job, calls_of_a_run=1):
    """Calls per second of consecutive runs, after some to warm up."""
    begin = time.perf_counter() + job.warm_up
    while time.perf_counter() < begin:
        run()
    calls, begin = 0, time.perf_counter()
    while not calls or time.perf_counter() < begin + job.seconds:
        run()
        calls += calls_of_a_run
    return calls / (time.perf_counter() - begin)


def threads(job):
    """Python threads, each in a loop of its own."""
    rates, errors = [], []
    barrier = threading.Barrier(job.callers)

    def loop(call):
        barrier.wait()
        try:
            rates.append(rate(call, job))
        except Exception as error:
            errors.append(error)

    loops = [threading.Thread(target=loop, args=[job.new_call()]) for _ in range(job.callers)]
    for thread in loops:
        thread.start()
    for thread in loops:
        thread.join()
    if errors:
        raise errors[0]
    return sum(rates)


def task_of(job):
    """A function that makes some calls; concurrent threads share no arrays."""
    local = threading.local()

    def task():
        if not hasattr(local, "call"):
            local.call = job.new_call()
        for _ in range(CALLS_OF_A_TASK):
            local.call()

    return task


def joblib(job):
    """Tasks on joblib's threading backend."""
    from joblib import Parallel, delayed

    task = task_of(job)
    with Parallel(job.callers, backend="threading") as parallel:

        def run():
            parallel(delayed(task)() for _ in range(job.callers))

        return rate(run, job, job.callers * CALLS_OF_A_TASK)


def dask(job):
    """Tasks on Dask's scheduler of threads."""
    import dask
    import dask.threaded  # the import of the scheduler would count otherwise

    task = task_of(job)

    def run():
        tasks = [dask.delayed(task, pure=False)() for _ in range(job.callers)]
        dask.compute(*tasks, scheduler="threads", num_workers=job.callers)

    return rate(run, job, job.callers * CALLS_OF_A_TASK)


def evaluate(job):
    """Evaluations of .npy files, which a thread reads ahead."""
    import fastloss

    files = [Path(job.folder, name) for name in FILES]

    def run():
        fastloss.evaluate(fastloss.cross_entropy, *files)

    return rate(run, job)


def write_files(folder, shape):
    """Write the files that `evaluate` reads: scores of this shape, and classes."""
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal(shape, dtype=np.float32), rng.integers(0, shape[1], shape[0])
    for name, array in zip(FILES, arrays, strict=True):
        np.save(Path(folder, name), array)


def fork(job):
    """A forked child; its parent has made one call, and must have used one thread only."""
    call = job.new_call()
    call()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _child(job, call, writing)
    os.close(writing)
    with open(reading, "rb") as file:
        content = file.read()
    _, status = os.waitpid(child, 0)
    if not content:
        raise RuntimeError(f"the forked child ended with status {status}")
    result = pickle.loads(content)
    if isinstance(result, Exception):
        raise result
    return result


def _child(job, call, writing):
    """Never returns: the rest of the program belongs to the parent."""
    try:
        die_with_parent()
        job.start(job.threads)
        try:
            result = rate(call, job)
        except Exception as error:
            result = RuntimeError(str(error))
        os.write(writing, pickle.dumps(result))
    finally:
        os._exit(0)


WAYS = {"threads": threads, "joblib": joblib, "dask": dask, "evaluate": evaluate, "fork": fork}
TITLES = {
    "threads": "{} Python threads",
    "joblib": "joblib, {} threads",
    "dask": "Dask, {} threads",
    "evaluate": "evaluate over .npy files",
    "fork": "a forked child",
}
