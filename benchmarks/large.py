"""``python -m benchmarks.large``: evaluation of data larger than memory against reading alone.

The two alternate. Without --written, the files are sparse: they read as zeros and take no space on
the disk. For batches, generating them takes the place of reading. The page cache of the files is
dropped regularly, as it would be if the data exceeded memory; this time is not counted.
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from math import prod
from pathlib import Path

import numpy as np

import fastloss as fl
from benchmarks import cli
from fastloss.evaluation.chunks import CHUNK_BYTES
from fastloss.evaluation.sources.source import READ_BYTES

GB = 10**9
BATCH_SHAPE = (1 << 20,)


class Files:
    """A loss over .npy files; `arrays` has the trailing shape and the dtype of each."""

    def __init__(self, loss, arrays, folder, is_written):
        self.name, self._loss, self._arrays = loss.__name__, loss, arrays
        self._is_written = is_written
        self._row_bytes = [prod(shape) * np.dtype(dtype).itemsize for shape, dtype in arrays]
        self._paths = [Path(folder, f"{self.name}{k}.npy") for k in range(len(arrays))]

    def create(self, size):
        """Create files of about `size` bytes in total, and return the exact size."""
        rows = size // sum(self._row_bytes)
        for path, (shape, dtype), row_bytes in zip(
            self._paths, self._arrays, self._row_bytes, strict=True
        ):
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (rows, *shape)}
            with open(path, "wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                end = file.tell() + rows * row_bytes
                while self._is_written and file.tell() < end:
                    file.write(bytes(min(end - file.tell(), CHUNK_BYTES)))
                file.truncate(end)
                os.fsync(file.fileno())  # the cache cannot drop pages that are not on the disk
        return rows * sum(self._row_bytes)

    def read(self):
        """Read all bytes with the calls that `evaluate` makes."""
        chunk_rows = CHUNK_BYTES // sum(self._row_bytes)
        with ExitStack() as stack:
            files = [stack.enter_context(open(path, "rb", buffering=0)) for path in self._paths]
            for file in files:
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
            buffers = [_buffers(chunk_rows * row_bytes) for row_bytes in self._row_bytes]
            done = 0
            while size := sum(map(_fill, files, buffers)):
                done += size
                self.maybe_drop_cache(done)

    def evaluate(self):
        fl.evaluate(self._loss, *self._paths, progress=self.maybe_drop_cache)

    def maybe_drop_cache(self, done, total=None):
        """Drop the page cache after every gigabyte."""
        if done - self._done_at_drop < GB:
            return
        self._done_at_drop, begin = done, time.perf_counter()
        self.drop_cache()
        self.paused += time.perf_counter() - begin

    def start(self):
        """Prepare a round."""
        self.paused, self._done_at_drop = 0.0, 0
        self.drop_cache()

    def drop_cache(self):
        """Drop the files from the page cache of the system."""
        for path in self._paths:
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _buffers(size):
    """A buffer of `size` bytes, split into slices for single reads."""
    view = memoryview(np.empty(size, np.uint8))
    return [view[k : k + READ_BYTES] for k in range(0, size, READ_BYTES)]


def _fill(file, buffers):
    """Read into the buffers, and return the number of bytes."""
    return sum([file.readinto(buffer) for buffer in buffers])


class Batches:
    """A loss over batches that are generated one at a time in the same memory."""

    name = "mse_loss of batches"
    paused = 0.0

    def create(self, size):
        """Choose the number of batches, and return their size in bytes."""
        self._count = size // (2 * 4 * prod(BATCH_SHAPE))
        return self._count * 2 * 4 * prod(BATCH_SHAPE)

    def _batches(self):
        base = np.linspace(-1, 1, prod(BATCH_SHAPE), dtype=np.float32).reshape(BATCH_SHAPE)
        batch = np.empty_like(base), np.empty_like(base)
        for k in range(self._count):
            for array, shift in zip(batch, (k, k + 1), strict=True):
                np.add(base, np.float32(shift), out=array)
            yield batch

    def start(self):
        pass

    def read(self):
        for _ in self._batches():
            pass

    def evaluate(self):
        fl.evaluate(fl.mse_loss, self._batches())


def peak_memory():
    """The peak resident memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def seconds(data, run):
    data.start()
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin - data.paused


def measure(data, gb, small_gb, rounds):
    """Speeds, and the growth of the peak memory from a small to a large data set."""
    data.create(int(small_gb * GB))
    seconds(data, data.read)
    seconds(data, data.evaluate)
    small_peak = peak_memory()
    size = data.create(int(gb * GB))
    times = [(seconds(data, data.read), seconds(data, data.evaluate)) for _ in range(rounds)]
    read, evaluated = (size / statistics.median(t) / GB for t in zip(*times, strict=True))
    return {
        "data": data.name,
        "bytes": size,
        "reading": read,
        "evaluating": evaluated,
        "ratio": evaluated / read,
        "peak of small": small_peak,
        "growth": peak_memory() - small_peak,
    }


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    add = parser.add_argument
    add("--gb", type=float, default=20, help="size of the large data; default: %(default)s")
    add("--small-gb", type=float, default=1, help="size of the small data; default: %(default)s")
    add("--rounds", type=int, default=3, help="default: %(default)s")
    add("--written", action="store_true", help="write the files to the disk and read them from it")
    add("--folder", help="folder of the files; default: the folder of temporary files")
    add("--json", metavar="FILE", help="write all figures to this file")
    options = parser.parse_args(argv)
    run = cli.run_info("large", "benchmarks.large", argv, threads=fl.get_num_threads())
    print(f"{run['processor']}, {run['threads']} threads, {options.gb:g} GB each\n")
    print(f"{'':30}{'reading':>12}{'evaluating':>12}{'ratio':>8}{'peak memory':>16}{'growth':>10}")
    run["figures"] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        data_sets = [
            Files(fl.mse_loss, [((), "f4"), ((), "f4")], folder, options.written),
            Files(fl.cross_entropy, [((100,), "f4"), ((), "i8")], folder, options.written),
            Batches(),
        ]
        for data in data_sets:
            figure = measure(data, options.gb, options.small_gb, options.rounds)
            run["figures"].append(figure)
            speeds = "".join(f"{figure[name]:7.2f} GB/s" for name in ("reading", "evaluating"))
            memory = f"{figure['peak of small']:13.0f} MB{figure['growth']:7.1f} MB"
            print(f"{data.name:30}{speeds}{figure['ratio']:8.2f}{memory}", flush=True)
    if options.json:
        cli.write_json(options.json, run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
