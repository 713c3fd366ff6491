"""``python -m benchmarks.cadence``: calls that come now and then, as in a service.

They are compared with calls back to back. A team of threads that waits long goes to sleep, and
waking it can cost more than the call.
"""

import argparse
import json
import re
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path

from benchmarks.__main__ import allowed_processors, processor, time_text
from benchmarks.cells import Cell
from benchmarks.peers import PeerError, open_peers

CELLS = [
    Cell("cross_entropy", "", (64, 10), "float32", "small"),
    Cell("cross_entropy", "", (256, 1000), "float32", "cached"),
    Cell("cross_entropy", "", (4096, 1000), "float32", "large"),
    Cell("mse_loss", "", (256, 1000), "float32", "cached"),
    Cell("mse_loss", "", (4096, 1000), "float32", "large"),
]
PRODUCTS = ("value", "gradient", "out")


def summary(times):
    return {"median": statistics.median(times), "p90": statistics.quantiles(times, n=10)[-1]}


def measure(cell, name, peer, threads, calls, period):
    """One dict per product: median and 90th percentile of one call's seconds, either way."""
    made = []
    for product in peer.ask("prepare", cell):
        together = summary(peer.ask("cadence", product, calls, 0))
        apart = summary(peer.ask("cadence", product, calls, period))
        made.append(
            {
                "cell": cell.name,
                "threads": threads,
                "peer": name,
                "product": product,
                "back to back": together,
                "apart": apart,
                "factor": apart["median"] / together["median"],
            }
        )
    return made


def line(figure):
    texts = (
        time_text(figure[way][q]) for way in ("back to back", "apart") for q in ("median", "p90")
    )
    place = (
        f"{figure['cell']:<27}{figure['product']:<10}{figure['threads']:>7}  {figure['peer']:<9}"
    )
    return place + "".join(f"{text:>11}" for text in texts) + f"{figure['factor']:8.1f}x"


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cadence", description=__doc__)
    add = parser.add_argument
    add("--period", type=float, default=20, help="milliseconds between calls; default: %(default)s")
    add("--calls", type=int, default=100, help="timed calls each way; default: %(default)s")
    add("--threads", type=int, nargs="+", default=sorted({1, min(2, allowed_processors())}))
    add("--filter", metavar="REGEX", default="", help="only cells whose name it is found in")
    add("--peers", default="torch", help="default: %(default)s")
    add("--json", metavar="FILE", help="write every figure there")
    options = parser.parse_args(argv)
    if options.calls < 2:
        parser.error("--calls must be at least 2")
    figures = []
    print(processor())
    for threads in options.threads:
        with ExitStack() as stack:
            names = [name for name in options.peers.split(",") if name]
            peers = open_peers(stack, names, threads)
            print(f"\n{'':<55}{'back to back':>22}{f'every {options.period:g} ms':>22}")
            print(
                f"{'cell':<37}threads  {'':<9}"
                + f"{'median':>11}{'p90':>11}" * 2
                + f"{'factor':>9}"
            )
            for cell in CELLS:
                if not re.search(options.filter, cell.name):
                    continue
                for name, peer in peers.items():
                    try:
                        made = measure(
                            cell, name, peer, threads, options.calls, options.period / 1e3
                        )
                    except PeerError as error:
                        print(f"{cell.name}: {name}: {error}")
                        continue
                    figures += made
                    print("\n".join(map(line, made)), flush=True)
            print()
    if options.json:
        Path(options.json).write_text(
            json.dumps({"processor": processor(), "figures": figures}, indent=1)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
