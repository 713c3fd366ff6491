"""What the machine allows, measured beside the cells, and the share that a cell reaches."""

import statistics
from pathlib import Path

from benchmarks.cells import Cell


class Limits:
    """Turns of `with_limits.py` in its process, on arrays as large as the large cells'."""

    def __init__(self, peer, dtype):
        self._peer = peer
        names, _ = peer.ask("prepare", Cell("mse_loss", "", (16 << 20,), dtype, "large"))
        self._amounts = {name: peer.ask("result", name) for name in names}
        self._rounds = {name: [] for name in names}

    def turn(self, seconds):
        took = self._peer.ask("turn", list(self._rounds), seconds)
        for times, median in zip(self._rounds.values(), took, strict=True):
            times.append(median)

    def rates(self):
        """Bytes or calls per second, the medians so far."""
        return {n: self._amounts[n] / statistics.median(t) for n, t in self._rounds.items()}


def cache_size():
    """Bytes of the largest cache, 32 MiB where the system does not tell."""
    sizes = [0]
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text().strip()  # 1024K
        sizes.append(int(text[:-1]) << {"K": 10, "M": 20, "G": 30}[text[-1]])
    return max(sizes) or 32 << 20


def least_seconds(work, rates, cache):
    """The larger of memory's and the exps' and logs' time; 0 where neither is known.

    Bytes that are read and as many that are written go at the rate of a copy, the rest at that of
    reading or writing. What the cache holds need not move.
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
    """Adds to the peer's figures the part of the limit that they reach; not to small cells'."""
    if not result["work"] or result["group"] == "small":
        return
    for figure in result["figures"]:
        if figure["peer"] == peer and figure["median"]:
            least = least_seconds(result["work"][figure["product"]], rates, cache)
            if least:
                figure["share"] = least / figure["median"]
