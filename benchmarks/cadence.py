"""``python -m benchmarks.cadence``: calls that come now and then, as in a service.

They are compared with calls back to back. A team of threads that waits long goes to sleep, and
waking it can cost more than the call.
"""

import statistics
import sys
from contextlib import ExitStack

from benchmarks import command
from benchmarks.cells import Cell
from benchmarks.peers import PeerError, open_peers
from benchmarks.text import time_text

CELLS = [
    Cell("cross_entropy", "", (64, 10), "float32", "small"),
    Cell("cross_entropy", "", (256, 1000), "float32", "cached"),
    Cell("cross_entropy", "", (4096, 1000), "float32", "large"),
    Cell("mse_loss", "", (256, 1000), "float32", "cached"),
    Cell("mse_loss", "", (4096, 1000), "float32", "large"),
]


def summary(times):
    return {"median": statistics.median(times), "p90": statistics.quantiles(times, n=10)[-1]}


def measure(cell, name, peer, threads, calls, period):
    """One dict per product: median and 90th percentile of one call's seconds, either way."""
    made = []
    products, _ = peer.ask("prepare", cell)
    for product in products:
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
        f"{figure['cell']:<27}{figure['product']:<10}{figure['threads']:>7}  {figure['peer']:<13}"
    )
    return place + "".join(f"{text:>11}" for text in texts) + f"{figure['factor']:8.1f}x"


def main(argv=None):
    parser = command.parser("benchmarks.cadence", __doc__)
    add = parser.add_argument
    add("--period", type=float, default=20, help="milliseconds between calls; default: %(default)s")
    add("--calls", type=int, default=100, help="timed calls each way; default: %(default)s")
    most = min(2, command.allowed_processors())
    add("--threads", type=int, nargs="+", default=sorted({1, most}))
    add("--peers", default="torch", help="default: %(default)s")
    options = parser.parse_args(argv)
    if options.calls < 2:
        parser.error("--calls must be at least 2")
    made = command.content("cadence", "benchmarks.cadence", argv, isa=options.isa, figures=[])
    print(made["processor"])
    names = [name for name in options.peers.split(",") if name]
    with ExitStack() as stack:
        everyone = [
            (threads, name, peer)
            for threads in options.threads
            for name, peer in open_peers(stack, names, threads, isa=options.isa).items()
        ]
        print(f"\n{'':<59}{'back to back':>22}{f'every {options.period:g} ms':>22}")
        columns = f"{'median':>11}{'p90':>11}" * 2
        print(f"{'cell':<37}threads  {'':<13}{columns}{'factor':>9}")
        for cell in command.chosen(CELLS, options):
            for threads, name, peer in everyone:
                try:
                    figures = measure(
                        cell, name, peer, threads, options.calls, options.period / 1e3
                    )
                except PeerError as error:
                    print(f"{cell.name}: {name}: {error}")
                    continue
                made["figures"] += figures
                print("\n".join(map(line, figures)), flush=True)
    if options.json:
        command.write_json(options.json, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
