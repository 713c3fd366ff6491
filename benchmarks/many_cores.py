"""``python -m benchmarks.many_cores``: what a call would take on more processors than there are.

A model of runtime/parallel.c and runtime/run.c with three measured numbers: b, the time of a block
of 8192 elements on one thread; m, the time to add its partial to the total; w, the time by which
a worker's wake-up and arrival delay a call. A call of B blocks on p threads takes

    (p - 1) w + t + B m,

where t is the time of the last thread, with ceil(G/p) of the G grains of the blocks. The sums of m
are made by the caller, in the order of the blocks. It is a lower bound of the speed-up for cached
arrays, since workers are woken one after another; large arrays are limited by the memory as well.
"""

import argparse
import ctypes
import math
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

import fastloss as fl
from benchmarks import cli
from benchmarks.format import ratio_text, time_text
from benchmarks.with_roofline import find_compiler

HERE = Path(__file__).parent
SOURCES = HERE.parent / "src_c"
BLOCK, BATCH_BLOCKS, ELEMENTS_PER_THREAD = 8192, 2048, 16384  # of plan.h and run.c
GRAINS_PER_THREAD, MAX_GRAIN = 8, 16  # of parallel.c
THREADS = (16, 64, 192)
BLOCKS = (64, 512, 2048)
LOSSES = ("mse_loss", "binary_cross_entropy_with_logits")
MEASURED_BLOCKS = 64


def seconds(function, *arguments):
    """The median time of a call."""
    times, end = [], time.perf_counter() + 0.3
    while len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def merge_seconds():
    """The time to add the partial of a block."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "many_cores.so"
        flags = ["-shared", "-fPIC", "-O3", "-ffp-contract=off", f"-I{SOURCES}"]
        files = [HERE / "many_cores.c"]
        files += [SOURCES / "runtime" / name for name in ("totals.c", "moments.c", "scaled.c")]
        subprocess.run([find_compiler(), *flags, "-o", file, *files, "-lm"], check=True)
        library = ctypes.CDLL(file)
    library.add_partials.restype = ctypes.c_double
    times = [seconds(library.add_partials, ctypes.c_int64(n)) for n in (1, 11)]
    return (times[1] - times[0]) / (10 * BATCH_BLOCKS)


def call_seconds(loss, blocks, threads):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(2, blocks * BLOCK)).astype(np.float32)
    with fl.num_threads(threads, fixed=True):
        return seconds(getattr(fl, loss), x, y)


def predicted(blocks, threads, block, merge, wake):
    """The seconds of a call whose blocks all fit into one batch."""
    threads = max(1, min(threads, blocks * BLOCK // ELEMENTS_PER_THREAD))
    if threads == 1:
        return blocks * (block + merge)
    grain = min(MAX_GRAIN, math.ceil(blocks / (GRAINS_PER_THREAD * threads)))
    last = math.ceil(math.ceil(blocks / grain) / threads) * grain
    return (threads - 1) * wake + min(last, blocks) * block + blocks * merge


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.many_cores", description=__doc__.partition("\n")[0]
    )
    parser.parse_args(argv)
    merge = merge_seconds()
    print(f"{cli.processor()}: adding a partial takes {1e9 * merge:.1f} ns\n")
    heads = "".join(f"{f'{p} threads':>13}" for p in (2, *THREADS))
    print(f"{'':<34}{'blocks':>7}{'one thread':>14}{'2, measured':>13}{heads}")
    for loss in LOSSES:
        one, two = (call_seconds(loss, MEASURED_BLOCKS, threads) for threads in (1, 2))
        block = one / MEASURED_BLOCKS - merge
        wake = max(0, two - predicted(MEASURED_BLOCKS, 2, block, merge, 0))
        print(f"{loss}: a block takes {time_text(block)}, a worker {time_text(wake)}")
        for blocks in BLOCKS:
            one, two = (call_seconds(loss, blocks, threads) for threads in (1, 2))
            times = (predicted(blocks, p, block, merge, wake) for p in (2, *THREADS))
            alone = predicted(blocks, 1, block, merge, wake)
            texts = "".join(f"{ratio_text(alone / t):>13}" for t in times)
            print(f"{'':<34}{blocks:>7}{time_text(one):>14}{ratio_text(one / two):>13}{texts}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
