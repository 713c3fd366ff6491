"""``python -m benchmarks``: every cell in every library that is installed, and the ratios.

The exit status says whether all results agreed, never how fast anything was.
"""

import argparse
import sys
from contextlib import ExitStack
from dataclasses import replace

from benchmarks import chart, command, text
from benchmarks.cells import cells
from benchmarks.limits import Limits, add_shares, cache_size
from benchmarks.measure import Effort, means, measure
from benchmarks.peers import NAMES, TOLERANCE, Peer, PeerError, open_peers


def python_of(text):
    name, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not PEER=INTERPRETER")
    return name, path


def arguments(argv):
    parser = command.parser("benchmarks", __doc__)
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="fewer rounds and cells, no torch.compile, nothing slow; under two minutes",
    )
    add("--list", action="store_true", help="print the names of the cells and stop")
    add("--threads", type=int, default=command.allowed_processors(), help="default: %(default)s")
    add("--dtype", choices=sorted(TOLERANCE), default="float32")
    add("--peers", help=f"default: {','.join(NAMES)}")
    add("--python", metavar="PEER=INTERPRETER", type=python_of, action="append", default=[])
    add("--rounds", type=int, help="turns of each peer in each cell; default: 5, quick: 3")
    add("--chart", metavar="FILE", help="draw the geometric means there (matplotlib)")
    return parser.parse_args(argv)


def open_limits(stack, options):
    try:
        peer = stack.enter_context(Peer("limits", options.threads, isa=options.isa))
        limits = Limits(peer, options.dtype)
        limits.turn(0.05)
    except PeerError as error:
        print(f"limits       left out: {error}")
        return None
    print(f"limits       {peer.version}")
    return limits


def main(argv=None):
    options = arguments(argv)
    listed = command.chosen(cells(options.dtype, options.quick), options)
    if options.list:
        print("\n".join(cell.name for cell in listed))
        return 0
    effort = Effort(3, 0.005, 0.1, patience=1) if options.quick else Effort()
    if options.rounds:
        effort = replace(effort, rounds=options.rounds)
    names = [name for name in NAMES if not (options.quick and name == "compile")]
    if options.peers is not None:
        names = [name for name in options.peers.split(",") if name]
    made = command.content(
        "cells",
        "benchmarks",
        argv,
        threads=options.threads,
        isa=options.isa,
        rounds=effort.rounds,
    )
    results = []
    with ExitStack() as stack:
        print(f"{made['processor']}, {options.threads} threads, Python {made['python']}")
        peers = open_peers(stack, names, options.threads, dict(options.python), options.isa)
        limits = open_limits(stack, options)
        cache = cache_size()
        print(text.introduction(effort.rounds))
        try:
            for cell in listed:
                result = measure(cell, peers, effort)
                if limits:
                    limits.turn(effort.seconds)
                    add_shares(result, limits.rates(), cache)
                results.append(result)
                print("\n".join(text.cell_lines(result, peers)), flush=True)
        except KeyboardInterrupt:
            print("interrupted; the cells so far:", file=sys.stderr)
    made["versions"] = {name: peer.version for name, peer in peers.items()}
    made["limits"] = limits.rates() if limits else None
    if limits:
        for result in results:
            add_shares(result, made["limits"], cache)
    made["means"] = means(results)
    made["cells"] = results
    print("\n".join(text.closing_lines(made)))
    if options.json:
        command.write_json(options.json, made)
    if options.chart:
        chart.chart(made, options.chart)
    return 1 if any(f["refused"] for r in results for f in r["figures"]) else 0


if __name__ == "__main__":
    sys.exit(main())
