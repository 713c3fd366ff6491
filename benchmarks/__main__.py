"""``python -m benchmarks``: every cell in every library that is installed, and the ratios.

The exit status says whether all results agreed, never how fast anything was.
"""

import argparse
import json
import math
import os
import platform
import re
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks.cells import GROUPS, LOSSES, cells
from benchmarks.peers import NAMES, TOLERANCE, PeerError, disagreement, open_peers

PRODUCTS = ("value", "gradient", "out")
WIDTH = (16, 26)  # of a column of fastloss, of a peer


def check(cell, peers):
    """One figure per peer and product, without times yet; those that disagree say why."""
    figures = []
    reference = None

    def add(name, product, refused):
        about = {"cell": cell.name, **asdict(cell)}
        figures.append(about | {"peer": name, "product": product, "refused": refused, "rounds": []})

    for name, peer in peers.items():  # fastloss comes first
        try:
            products = peer.ask("prepare", cell)
            if name == "fastloss":
                reference = peer.ask("result", "gradient")
        except PeerError as error:
            add(name, "value", str(error))
            continue
        for product in products:
            try:
                result = peer.ask("result", product)
                slack = LOSSES[cell.loss].slack
                wrong = (
                    disagreement(result, reference, cell.dtype, slack)
                    if reference
                    else "no reference"
                )
            except PeerError as error:
                wrong = str(error)
            add(name, product, wrong)
    return figures


def measure(cell, peers, rounds, seconds, limit=math.inf):
    """The figures of a cell. Beyond `limit` seconds, two rounds are enough."""
    figures = check(cell, peers)
    names = list(peers)
    begin = time.perf_counter()
    for turn in range(rounds):
        if turn >= 2 and time.perf_counter() - begin > limit:
            break
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            mine = [f for f in figures if f["peer"] == name and not f["refused"]]
            if not mine:
                continue
            try:
                took = peers[name].ask("turn", [f["product"] for f in mine], seconds)
                for figure, median in zip(mine, took, strict=True):
                    figure["rounds"].append(median)
            except PeerError as error:
                for figure in mine:
                    figure["refused"] = str(error)
    for figure in figures:
        times = figure["rounds"] if not figure["refused"] else []
        figure["median"] = statistics.median(times) if times else None
        figure["spread"] = (max(times) - min(times)) / 2 / figure["median"] if times else None
    return figures


def ratios(figures):
    """Adds to a peer's figures how many times longer it takes than each product of fastloss.

    No peer computes into arrays kept between calls: its value and gradient stand there.
    """
    ours = {f["product"]: f["median"] for f in figures if f["peer"] == "fastloss"}
    for figure in figures:
        against = {"value": ("value",), "gradient": ("gradient", "out")}.get(figure["product"], ())
        if figure["peer"] != "fastloss" and figure["median"]:
            found = {p: figure["median"] / ours[p] for p in against if ours.get(p)}
            figure["ratio"] = found


def means(figures):
    """{peer: {group: {product: (geometric mean, smallest, number of cells)}}}"""
    made = {}
    for peer in dict.fromkeys(f["peer"] for f in figures if "ratio" in f):
        for group in (*GROUPS, "all"):
            for product in PRODUCTS:
                found = [
                    f["ratio"][product]
                    for f in figures
                    if f["peer"] == peer
                    and group in (f["group"], "all")
                    and product in f.get("ratio", {})
                ]
                if found:
                    mean = math.exp(statistics.fmean(map(math.log, found)))
                    made.setdefault(peer, {}).setdefault(group, {})[product] = {
                        "mean": mean,
                        "smallest": min(found),
                        "cells": len(found),
                    }
    return made


# ---- printing


def time_text(seconds):
    for unit, size in (("s ", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            return f"{seconds / size:.4g}"[:5].rstrip(".").rjust(5) + f" {unit}"


def heading(peers):
    line = f"{'cell':<50}{'':<9}"
    return line + "".join(f"{name:>{WIDTH[name != 'fastloss']}}" for name in peers)


def cell_lines(figures, peers):
    """One line per product of fastloss, one per refusal."""
    by = {(f["peer"], f["product"]): f for f in figures}
    for product in PRODUCTS:
        line = f"{figures[0]['cell'] if product == 'value' else '':<50}{product:<9}"
        for name in peers:
            found = (by.get((name, p)) for p in (product, "gradient", "value"))
            figure = next(filter(None, found), None)
            width = WIDTH[name != "fastloss"]
            if figure is None or figure["median"] is None:
                line += f"{'-':>{width}}"
                continue
            spread = min(100 * figure["spread"], 999)
            shown = f"{time_text(figure['median'])} ±{spread:3.0f}%"
            if name != "fastloss":
                ratio = figure.get("ratio", {}).get(product)
                digits = 1 if ratio and ratio >= 10 else 2
                shown += f" {ratio:6.{digits}f}x" if ratio else f" {'':7}"
            line += f"{shown:>{width}}"
        yield line
    for figure in figures:
        if figure["refused"]:
            yield f"  refused: {figure['peer']}, {figure['product']}: {figure['refused']}"


def mean_lines(table):
    yield f"{'Peer / fastloss, geometric mean (smallest)':<44}" + "".join(
        f"{p:>20}" for p in PRODUCTS
    )
    for peer, groups in table.items():
        for group, products in groups.items():
            count = max(m["cells"] for m in products.values())
            line = f"{f'{peer}, {group} ({count} cells)':<44}"
            for product in PRODUCTS:
                m = products.get(product)
                text = f"{m['mean']:.1f}x ({m['smallest']:.2f}x)" if m else "-"
                line += f"{text:>20}"
            yield line


def processor():
    try:
        text = Path("/proc/cpuinfo").read_text()
        return re.search(r"model name\s*: (.*)", text).group(1)
    except (OSError, AttributeError):
        return platform.processor() or platform.machine()


def allowed_processors():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def python_of(text):
    name, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not PEER=INTERPRETER")
    return name, path


def arguments(argv):
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="fewer rounds, not the largest cells; under two minutes",
    )
    add("--filter", metavar="REGEX", default="", help="only cells whose name it is found in")
    add("--list", action="store_true", help="print the names of the cells and stop")
    add("--threads", type=int, default=allowed_processors(), help="default: %(default)s")
    add("--dtype", choices=sorted(TOLERANCE), default="float32")
    add("--peers", default=",".join(NAMES), help="default: %(default)s")
    add("--python", metavar="PEER=INTERPRETER", type=python_of, action="append", default=[])
    add("--rounds", type=int, help="turns of each peer in each cell; default: 7, quick: 3")
    add("--json", metavar="FILE", help="write every figure there")
    return parser.parse_args(argv)


def main(argv=None):
    options = arguments(argv)
    chosen = cells(options.dtype, options.quick)
    chosen = [c for c in chosen if re.search(options.filter, c.name)]
    if options.list:
        print("\n".join(c.name for c in chosen))
        return 0
    rounds = options.rounds or (3 if options.quick else 7)
    seconds, limit = (0.01, 1) if options.quick else (0.05, math.inf)
    names = [name for name in options.peers.split(",") if name]
    figures = []
    with ExitStack() as stack:
        print(f"{processor()}, {options.threads} threads, Python {platform.python_version()}")
        peers = open_peers(stack, names, options.threads, dict(options.python))
        versions = {name: peer.version for name, peer in peers.items()}
        print(
            "\nvalue: the mean loss; gradient: value and gradient; out: the same into an array kept"
            "\nbetween calls, against a peer's gradient. x: how many times longer than fastloss."
            f"\nMedians of {rounds} rounds, ± half their range. NumPy runs on one thread.\n"
        )
        print(heading(peers))
        try:
            for cell in chosen:
                made = measure(cell, peers, rounds, seconds, limit)
                ratios(made)
                print("\n".join(cell_lines(made, peers)), flush=True)
                figures += made
        except KeyboardInterrupt:
            print("interrupted; the cells so far:", file=sys.stderr)
    table = means(figures)
    print("\n" + "\n".join(mean_lines(table)))
    unsteady = sum(f["spread"] is not None and f["spread"] > 0.25 for f in figures)
    if unsteady:
        print(f"{unsteady} of {len(figures)} medians have ± over 25%: was the machine busy?")
    if options.json:
        content = {
            "processor": processor(),
            "threads": options.threads,
            "rounds": rounds,
            "versions": versions,
            "means": table,
            "figures": figures,
        }
        Path(options.json).write_text(json.dumps(content, indent=1))
    return 1 if any(f["refused"] for f in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
