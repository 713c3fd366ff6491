"""The roofline of the machine, measured along with the cells, and the share that a cell reaches.

The roofline of a cell is the least time that its memory traffic and arithmetic need at the measured
rates. The share is this time over the time that was measured.
"""

import statistics
from pathlib import Path

from benchmarks.cells import Cell


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
        """Bytes or calls per second, as medians of the rounds so far."""
        return {n: self._amounts[n] / statistics.median(t) for n, t in self._times.items()}


def cache_size():
    """Bytes of the largest cache, or 32 MiB if the system does not report it."""
    sizes = [0]
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()  # 1024K
        sizes.append(int(text[:-1]) << {"K": 10, "M": 20, "G": 30}[text[-1]])
    return max(sizes) or 32 << 20


def least_seconds(work, rates, cache):
    """The larger of the times for memory traffic and for exps and logs; 0 if neither is known.

    The smaller of the bytes read and written are moved at the rate of a copy in both directions,
    the remaining ones at the rate of reading or writing. Arrays that fit into the cache cause no
    traffic.
    """
    memory = 0
    read, write = work["read"], work["write"]
    if read + write > cache:
        both = min(read, write)
        reading = rates["read_one" if work["streams"] == 1 else "read_two"]
        memory = (
            2 * both / rates["copy"] + (read - both) / reading + (write - both) / rates["write"]
        )
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
