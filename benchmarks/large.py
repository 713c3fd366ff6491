"""``python -m benchmarks.large``: sets larger than memory, against reading them alone.

Files are holes, which read as zeros and take no room on the disk, unless they are --written; of
batches, what stands for reading is making them. Both take turns. The system's cache of the files is
emptied now and then, as sets larger than memory empty it; the clock stands still meanwhile.
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
from benchmarks import command
from fastloss.evaluation.chunks import CHUNK_BYTES
from fastloss.evaluation.sources.source import READ_BYTES

GB = 10**9
BATCH = (1 << 20,)


class Files:
    """A loss over .npy files: `arrays` are the trailing shape and dtype of each."""

    def __init__(self, loss, arrays, folder, written):
        self.name, self._loss, self._arrays, self._written = loss.__name__, loss, arrays, written
        self._row_bytes = [prod(shape) * np.dtype(dtype).itemsize for shape, dtype in arrays]
        self._paths = [Path(folder, f"{self.name}{k}.npy") for k in range(len(arrays))]

    def make(self, size):
        """Files of that many bytes together, the size in truth."""
        rows = size // sum(self._row_bytes)
        for path, (shape, dtype), row_bytes in zip(
            self._paths, self._arrays, self._row_bytes, strict=True
        ):
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (rows, *shape)}
            with open(path, "wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                end = file.tell() + rows * row_bytes
                while self._written and file.tell() < end:
                    file.write(bytes(min(end - file.tell(), CHUNK_BYTES)))
                file.truncate(end)
                os.fsync(file.fileno())  # what is not on the disk stays in the cache
        return rows * sum(self._row_bytes)

    def read(self):
        """All bytes, in pieces as `evaluate` reads them."""
        share = CHUNK_BYTES // sum(self._row_bytes)
        with ExitStack() as stack:
            files = [stack.enter_context(open(path, "rb", buffering=0)) for path in self._paths]
            for file in files:
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
            chunks = [_pieces(share * row_bytes) for row_bytes in self._row_bytes]
            done = 0
            while size := sum(map(_fill, files, chunks)):
                done += size
                self.forget_now_and_then(done)

    def evaluate(self):
        fl.evaluate(self._loss, *self._paths, progress=self.forget_now_and_then)

    def forget_now_and_then(self, done, total=None):
        if done - self._forgotten < GB:
            return
        self._forgotten, begin = done, time.perf_counter()
        self.forget()
        self.paused += time.perf_counter() - begin

    def start(self):
        """Before each turn."""
        self.paused, self._forgotten = 0.0, 0
        self.forget()

    def forget(self):
        """The system drops what it keeps of the files."""
        for path in self._paths:
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _pieces(size):
    """A buffer as the pieces that one read fills."""
    view = memoryview(np.empty(size, np.uint8))
    return [view[k : k + READ_BYTES] for k in range(0, size, READ_BYTES)]


def _fill(file, pieces):
    """The number of bytes that were left to read."""
    return sum([file.readinto(piece) for piece in pieces])


class Batches:
    """A loss over batches that are made one after the other, in the same memory."""

    name = "mse_loss of batches"
    paused = 0.0

    def make(self, size):
        """Nothing yet; the bytes of all batches."""
        self._number = size // (2 * 4 * prod(BATCH))
        return self._number * 2 * 4 * prod(BATCH)

    def _batches(self):
        start = np.linspace(-1, 1, prod(BATCH), dtype=np.float32).reshape(BATCH)
        batch = np.empty_like(start), np.empty_like(start)
        for k in range(self._number):
            for array, shift in zip(batch, (k, k + 1), strict=True):
                np.add(start, np.float32(shift), out=array)
            yield batch

    def start(self):
        pass

    def read(self):
        for _ in self._batches():
            pass

    def evaluate(self):
        fl.evaluate(fl.mse_loss, self._batches())


def peak():
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def seconds(data, way):
    data.start()
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin - data.paused


def measure(data, gb, small_gb, turns):
    """Speeds in turns; and what the peak of memory grew by, from a small set to the large one."""
    data.make(int(small_gb * GB))
    seconds(data, data.read)
    seconds(data, data.evaluate)
    small = peak()
    size = data.make(int(gb * GB))
    times = [(seconds(data, data.read), seconds(data, data.evaluate)) for _ in range(turns)]
    read, evaluated = (size / statistics.median(ways) / GB for ways in zip(*times, strict=True))
    return {
        "data": data.name,
        "bytes": size,
        "reading": read,
        "evaluating": evaluated,
        "ratio": evaluated / read,
        "peak of small": small,
        "growth": peak() - small,
    }


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    add = parser.add_argument
    add("--gb", type=float, default=20, help="of each large set; default: %(default)s")
    add("--small-gb", type=float, default=1, help="of the small sets; default: %(default)s")
    add("--turns", type=int, default=3, help="of reading and evaluating; default: %(default)s")
    add("--written", action="store_true", help="files that take room, and are read from the disk")
    add("--folder", help="where the files are made; default: that of temporary files")
    add("--json", metavar="FILE", help="write every figure there")
    options = parser.parse_args(argv)
    made = command.content("large", "benchmarks.large", argv, threads=fl.get_num_threads())
    print(f"{made['processor']}, {made['threads']} threads, sets of {options.gb:g} GB\n")
    print(f"{'':30}{'reading':>12}{'evaluating':>12}{'ratio':>8}{'peak memory':>16}{'growth':>10}")
    made["figures"] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        sets = [
            Files(fl.mse_loss, [((), "f4"), ((), "f4")], folder, options.written),
            Files(fl.cross_entropy, [((100,), "f4"), ((), "i8")], folder, options.written),
            Batches(),
        ]
        for data in sets:
            figure = measure(data, options.gb, options.small_gb, options.turns)
            made["figures"].append(figure)
            speeds = "".join(f"{figure[way]:7.2f} GB/s" for way in ("reading", "evaluating"))
            memory = f"{figure['peak of small']:13.0f} MB{figure['growth']:7.1f} MB"
            print(f"{data.name:30}{speeds}{figure['ratio']:8.2f}{memory}", flush=True)
    if options.json:
        command.write_json(options.json, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
