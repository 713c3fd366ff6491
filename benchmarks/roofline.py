"""The roofline of the machine, measured along with the cells, and the share that a cell reaches.

The roofline of a cell is the least time that its memory traffic and arithmetic need at the best
rates that were measured. The share is this time over the time that was measured.
"""

from itertools import product
from pathlib import Path

from benchmarks.cells import Cell

# The fraction of its bytes that a loop reads; it writes the others.
READ_PARTS = {"read_one": 1, "read_two": 1, "triad": 2 / 3, "copy": 1 / 2, "write": 0}


class Roofline:
    """Rounds of `with_roofline.py` in its process, on arrays of the size of the large cells."""

    def __init__(self, peer, dtype):
        self._peer = peer
        names, _ = peer.ask("prepare", Cell("mse_loss", "", (16 << 20,), dtype, "large"))
        self._amounts = {name: peer.ask("result", name) for name in names}
        self._times = {name: [] for name in names}

    def measure_round(self, seconds):
        medians = self._peer.ask("measure_round", list(self._times), seconds)
        for times, median in zip(self._times.values(), medians, strict=True):
            times.append(median)

    def rates(self):
        """Bytes or calls per second, in the best of the rounds so far: no median is a limit."""
        return {name: self._amounts[name] / min(times) for name, times in self._times.items()}


def cache_size():
    """Bytes of the largest cache, or 32 MiB if the system does not report it."""
    sizes = [0]
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()  # 1024K
        sizes.append(int(text[:-1]) << {"K": 10, "M": 20, "G": 30}[text[-1]])
    return max(sizes) or 32 << 20


def memory_seconds(read, write, rates):
    """The least time in which a mix of two of the measured loops reads and writes these bytes."""
    total = read + write
    times = []
    for more, less in product(READ_PARTS, READ_PARTS):
        if READ_PARTS[more] >= read / total >= READ_PARTS[less]:
            gap = READ_PARTS[more] - READ_PARTS[less]
            by_more = total * (read / total - READ_PARTS[less]) / gap if gap else total
            times.append(by_more / rates[more] + (total - by_more) / rates[less])
    return min(times)


def least_seconds(work, rates, cache):
    """The larger of the times for memory traffic and for exps and logs; 0 if neither is known.

    Arrays that together have less than twice the size of the cache cause no traffic, or some that
    is not known: a part of them is in the cache from call to call.
    """
    read, write = work["read"], work["write"]
    memory = memory_seconds(read, write, rates) if read + write >= 2 * cache else 0
    return max(memory, work["exp"] / rates["exp_calls"] + work["log"] / rates["log_calls"])


def add_shares(result, rates, cache, peer="fastloss"):
    """Add to the peer's figures the share of the roofline, except for small cells."""
    if not result["work"] or result["group"] == "small":
        return
    for figure in result["figures"]:
        if figure["peer"] == peer and figure["median"]:
            least = least_seconds(result["work"][figure["product"]], rates, cache)
            if least:
                figure["share"] = least / figure["median"]
