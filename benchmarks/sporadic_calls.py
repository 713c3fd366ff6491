"""``python -m benchmarks.sporadic_calls``: calls with pauses between them, as in a service.

They are compared with consecutive calls. The threads of a team that waits for long go to sleep, and
waking them up may take longer than the call.
"""

import statistics
import sys
from contextlib import ExitStack

from benchmarks import cli
from benchmarks.cells import Cell
from benchmarks.format import time_text
from benchmarks.peers import PeerError, open_peers

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
    """The figure of each product: median and 90th percentile of a call, without and with pauses."""
    figures = []
    products, _ = peer.ask("prepare", cell)
    for product in products:
        consecutive = summary(peer.ask("time_calls", product, calls, 0))
        sporadic = summary(peer.ask("time_calls", product, calls, period))
        figures.append(
            {
                "cell": cell.name,
                "threads": threads,
                "peer": name,
                "product": product,
                "back to back": consecutive,
                "apart": sporadic,
                "factor": sporadic["median"] / consecutive["median"],
            }
        )
    return figures


def line(figure):
    times = (
        time_text(figure[way][q]) for way in ("back to back", "apart") for q in ("median", "p90")
    )
    head = (
        f"{figure['cell']:<27}{figure['product']:<10}{figure['threads']:>7}  {figure['peer']:<13}"
    )
    return head + "".join(f"{text:>11}" for text in times) + f"{figure['factor']:8.1f}x"


def main(argv=None):
    parser = cli.parser("benchmarks.sporadic_calls", __doc__)
    add = parser.add_argument
    add("--period", type=float, default=20, help="milliseconds between calls; default: %(default)s")
    add("--calls", type=int, default=100, help="calls of each kind; default: %(default)s")
    two = min(2, cli.allowed_processors())
    add("--threads", type=int, nargs="+", default=sorted({1, two}))
    add("--peers", default="torch", help="default: %(default)s")
    options = parser.parse_args(argv)
    if options.calls < 2:
        parser.error("--calls must be at least 2")
    run = cli.run_info(
        "sporadic_calls", "benchmarks.sporadic_calls", argv, isa=options.isa, figures=[]
    )
    print(run["processor"])
    names = [name for name in options.peers.split(",") if name]
    with ExitStack() as stack:
        peers = [
            (threads, name, peer)
            for threads in options.threads
            for name, peer in open_peers(stack, names, threads, isa=options.isa).items()
        ]
        print(f"\n{'':<59}{'back to back':>22}{f'every {options.period:g} ms':>22}")
        columns = f"{'median':>11}{'p90':>11}" * 2
        print(f"{'cell':<37}threads  {'':<13}{columns}{'factor':>9}")
        for cell in cli.select(CELLS, options):
            for threads, name, peer in peers:
                try:
                    figures = measure(
                        cell, name, peer, threads, options.calls, options.period / 1e3
                    )
                except PeerError as error:
                    print(f"{cell.name}: {name}: {error}")
                    continue
                run["figures"] += figures
                print("\n".join(map(line, figures)), flush=True)
    if options.json:
        cli.write_json(options.json, run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
