"""``python -m benchmarks.dask_blocks``: blocks of a Dask array against one array.

Both are evaluated on this machine, the blocks on the threads of Dask.
"""

import argparse
import statistics
import sys
import time

import dask
import dask.array as da
import numpy as np

import fastloss as fl
from benchmarks.format import time_text


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dask_blocks", description=__doc__)
    parser.add_argument(
        "--rows", type=int, default=4_000_000, help="rows of 10 classes; default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    options = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    x = rng.random((options.rows, 10), dtype=np.float32)
    y = rng.integers(0, 10, options.rows)
    variants = {"one array": (x, y, None)}
    for blocks in (20, 200):
        rows = -(-options.rows // blocks)
        arrays = [da.from_array(array, chunks=(rows, -1)[: array.ndim]) for array in (x, y)]
        for threads in (1, fl.get_num_threads()):
            variants[f"{blocks} blocks, threads={threads}"] = (*arrays, threads)
    times = {name: [] for name in variants}
    with dask.config.set(scheduler="threads"):
        for _ in range(options.rounds):
            for name, (input, target, threads) in variants.items():
                begin = time.perf_counter()
                fl.evaluate(fl.CrossEntropyLoss(), input, target, threads=threads)
                times[name].append(time.perf_counter() - begin)
    for name, seconds in times.items():
        print(f"{name:<28}{time_text(statistics.median(seconds))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
