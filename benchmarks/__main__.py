"""``python -m benchmarks``: every cell in every library that is installed, and the ratios.

The exit status depends on whether all results agree, not on speed.
"""

import argparse
import sys
from contextlib import ExitStack
from dataclasses import replace

from benchmarks import chart, cli, commits
from benchmarks.cells import cells
from benchmarks.format import cell_lines, closing_lines, introduction
from benchmarks.measure import Effort, means, measure
from benchmarks.peers import NAMES, TOLERANCE, Peer, PeerError, open_peers
from benchmarks.roofline import Roofline, add_shares, cache_size


def peer_and_interpreter(text):
    name, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not PEER=INTERPRETER")
    return name, path


def parse_arguments(argv):
    parser = cli.parser("benchmarks", __doc__)
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="fewer rounds and cells, no torch.compile, no slow cells; under two minutes",
    )
    add("--list", action="store_true", help="print the names of the cells and exit")
    add("--threads", type=int, default=cli.allowed_processors(), help="default: %(default)s")
    add("--dtype", choices=sorted(TOLERANCE), default="float32")
    add("--peers", help=f"default: {','.join(NAMES)}")
    add(
        "--python",
        metavar="PEER=INTERPRETER",
        type=peer_and_interpreter,
        action="append",
        default=[],
    )
    add(
        "--commit",
        metavar="REV",
        action="append",
        default=[],
        help="build this commit of the repository and measure it like another library; repeatable",
    )
    add("--rounds", type=int, help="rounds per cell; default: 5, or 3 with --quick")
    add("--chart", metavar="FILE", help="plot the geometric means to this file (matplotlib)")
    return parser.parse_args(argv)


def open_roofline(stack, options):
    try:
        peer = stack.enter_context(Peer("roofline", options.threads, isa=options.isa))
        roofline = Roofline(peer, options.dtype)
        for _ in range(4):  # the shares of the first cells should not depend on one busy moment
            roofline.measure_round(0.05)
    except PeerError as error:
        print(f"{'roofline':<17}left out: {error}")
        return None
    print(f"{'roofline':<17}{peer.version}")
    return roofline


def main(argv=None):
    options = parse_arguments(argv)
    selected = cli.select(cells(options.dtype, options.quick), options)
    if options.list:
        print("\n".join(cell.name for cell in selected))
        return 0
    effort = Effort(3, 0.005, 0.1, max_first_call=1) if options.quick else Effort()
    if options.rounds:
        effort = replace(effort, rounds=options.rounds)
    names = [name for name in NAMES if not (options.quick and name == "compile")]
    if options.peers is not None:
        names = [name for name in options.peers.split(",") if name]
    run = cli.run_info(
        "cells",
        "benchmarks",
        argv,
        threads=options.threads,
        isa=options.isa,
        rounds=effort.rounds,
    )
    results = []
    builds = dict(commits.build(revision) for revision in options.commit)
    with ExitStack() as stack:
        print(f"{run['processor']}, {options.threads} threads, Python {run['python']}")
        pythons = dict(options.python)
        peers = open_peers(stack, names, options.threads, pythons, options.isa, builds)
        roofline = open_roofline(stack, options)
        cache = cache_size()
        print(introduction(effort.rounds))
        try:
            for cell in selected:
                result = measure(cell, peers, effort)
                if roofline:
                    roofline.measure_round(effort.seconds)
                    add_shares(result, roofline.rates(), cache)
                results.append(result)
                print("\n".join(cell_lines(result, peers)), flush=True)
        except KeyboardInterrupt:
            print("interrupted; the cells so far:", file=sys.stderr)
    run["versions"] = {name: peer.version for name, peer in peers.items()}
    run["limits"] = roofline.rates() if roofline else None
    if roofline:
        for result in results:
            add_shares(result, run["limits"], cache)
    run["means"] = means(results)
    run["cells"] = results
    print("\n".join(closing_lines(run)))
    if options.json:
        cli.write_json(options.json, run)
    if options.chart:
        chart.chart(run, options.chart)
    return 1 if any(f["refused"] for r in results for f in r["figures"]) else 0


if __name__ == "__main__":
    sys.exit(main())
