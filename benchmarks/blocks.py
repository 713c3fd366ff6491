"""``python -m benchmarks.blocks``: blocks of a Dask array beside one array, on Dask's threads."""

import argparse
import statistics
import sys
import time

import dask
import dask.array as da
import numpy as np

import fastloss as fl
from benchmarks.text import time_text


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blocks", description=__doc__)
    parser.add_argument("--rows", type=int, default=4_000_000, help="of 10; default: %(default)s")
    parser.add_argument("--turns", type=int, default=5, help="of each; default: %(default)s")
    options = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    x = rng.random((options.rows, 10), dtype=np.float32)
    y = rng.integers(0, 10, options.rows)
    runs = {"one array": (x, y, None)}
    for count in (20, 200):
        chunk = -(-options.rows // count)
        blocks = [da.from_array(array, chunks=(chunk, -1)[: array.ndim]) for array in (x, y)]
        for threads in (1, fl.get_num_threads()):
            runs[f"{count} blocks, threads={threads}"] = (*blocks, threads)
    times = {name: [] for name in runs}
    with dask.config.set(scheduler="threads"):
        for _ in range(options.turns):
            for name, (input, target, threads) in runs.items():
                begin = time.perf_counter()
                fl.evaluate(fl.CrossEntropyLoss(), input, target, threads=threads)
                times[name].append(time.perf_counter() - begin)
    for name, took in times.items():
        print(f"{name:<28}{time_text(statistics.median(took))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
