"""Rounds of all peers in a cell, ratios, and geometric means. The first peer is the reference.

A figure is a dict: the peer, the product, the seconds of each round, their median and "spread"
(half the range relative to the median), or the reason why there are none.
"""

import math
import statistics
import time
from dataclasses import dataclass
from functools import partial

from benchmarks.cells import GROUPS
from benchmarks.peers import Late, PeerError, disagreement, is_fastloss

PRODUCTS = ("value", "gradient", "out")


@dataclass(frozen=True)
class Effort:
    """How long to measure a cell."""

    rounds: int = 5
    seconds: float = 0.03  # for each product in a round, but at least one call
    enough: float = 1.5  # seconds in two rounds after which a peer takes part in no more
    max_first_call: float | None = 20  # seconds; a peer whose first call takes longer is left out


def check(cell, peers, max_first_call=None):
    """The figures of the cell, without times but with reasons of disagreement, and its work."""
    figures = []
    reference = work = None

    def add(peer, product, refused=None, left_out=None):
        figure = {"peer": peer, "product": product, "refused": refused, "left_out": left_out}
        figures.append(figure | {"rounds": []})

    for name, peer in peers.items():
        try:
            products, needs = peer.ask("prepare", cell)
            if reference is None:
                reference, work = peer.ask("result", "gradient", max_first_call), needs
        except Late as error:
            add(name, "value", left_out=str(error))
            continue
        except PeerError as error:
            add(name, "value", refused=str(error))
            continue
        for product in products:
            try:
                result = peer.ask("result", product, max_first_call)
                slack = cell.spec.slack
                add(name, product, refused=disagreement(result, reference, cell.dtype, slack))
            except Late as error:
                add(name, product, left_out=str(error))
            except PeerError as error:
                add(name, product, refused=str(error))
        if reference is None:
            break
    return figures, work


def measure(cell, peers, effort):
    """The name, work and figures of the cell."""
    figures, work = check(cell, peers, effort.max_first_call)
    names = list(peers)
    spent = dict.fromkeys(names, 0.0)
    for k in range(effort.rounds):
        first = k % len(names)
        for name in names[first:] + names[:first]:
            active = [f for f in figures if f["peer"] == name and not is_excluded(f)]
            if not active or (k >= 2 and spent[name] > effort.enough):
                continue
            begin = time.perf_counter()
            try:
                products = [f["product"] for f in active]
                medians = peers[name].ask("measure_round", products, effort.seconds)
                for figure, median in zip(active, medians, strict=True):
                    figure["rounds"].append(median)
            except PeerError as error:
                for figure in active:
                    figure["refused"] = str(error)
            spent[name] += time.perf_counter() - begin
    for figure in figures:
        figure |= summary([] if is_excluded(figure) else figure["rounds"])
    add_ratios(figures, names[0])
    return {
        "cell": cell.name,
        "loss": cell.loss,
        "group": cell.group,
        "entries": cell.entries,
        "work": work,
        "figures": figures,
    }


def is_excluded(figure):
    """Whether a figure has no times, because it was refused or left out."""
    return figure["refused"] or figure["left_out"]


def summary(times):
    """The median, and half the range relative to it."""
    if not times:
        return {"median": None, "spread": None}
    median = statistics.median(times)
    return {"median": median, "spread": (max(times) - min(times)) / 2 / median}


def add_ratios(figures, reference="fastloss"):
    """Add the speed-up of the reference over each peer, for each product.

    The "gradient" of a peer without preallocated output is also compared with "out".
    """
    seconds = {f["product"]: f["median"] for f in figures if f["peer"] == reference}
    has_out = {f["peer"] for f in figures if f["product"] == "out"}
    for figure in figures:
        if figure["peer"] != reference and figure["median"]:
            product = figure["product"]
            both = product == "gradient" and figure["peer"] not in has_out
            against = ("gradient", "out") if both else (product,)
            figure["ratio"] = {p: figure["median"] / seconds[p] for p in against if seconds.get(p)}


def figures_with_ratio(results, product, peer=None):
    """The pairs (result, figure) that have a ratio for this product, of one peer or all."""
    return [
        (result, figure)
        for result in results
        for figure in result["figures"]
        if peer in (None, figure["peer"]) and product in figure.get("ratio", {})
    ]


def fastest(results, product):
    """The pair (result, figure) of the fastest other library, for each cell that has one."""
    best = {}
    for result, figure in figures_with_ratio(results, product):
        ratio = figure["ratio"][product]
        if not is_fastloss(figure["peer"]) and ratio < best.get(result["cell"], (math.inf,))[0]:
            best[result["cell"]] = ratio, result, figure
    return [(result, figure) for _, result, figure in best.values()]


def geometric_mean(values):
    return math.exp(statistics.fmean(map(math.log, values)))


def means(results):
    """{peer: {group: {product: geometric mean, smallest, its cell, number of cells}}}

    "all" has the cells of `GROUPS`; half precision is not among them.
    """
    peers = dict.fromkeys(f["peer"] for r in results for f in r["figures"] if "ratio" in f)
    return {peer: _means(partial(figures_with_ratio, results, peer=peer)) for peer in peers}


def fastest_means(results):
    """The means over the fastest other library in each cell, by group and product."""
    return _means(partial(fastest, results))


def _means(pairs_of):
    """By group and product; `pairs_of(product)` are pairs (result, figure)."""
    found = {}
    groups = {group: (group,) for group in GROUPS} | {"all": GROUPS, "half": ("half",)}
    for title, group in groups.items():
        for product in PRODUCTS:
            ratios = [
                (figure["ratio"][product], result["cell"])
                for result, figure in pairs_of(product)
                if result["group"] in group
            ]
            if ratios:
                smallest, cell = min(ratios)
                found.setdefault(title, {})[product] = {
                    "mean": geometric_mean([ratio for ratio, _ in ratios]),
                    "smallest": smallest,
                    "cell": cell,
                    "cells": len(ratios),
                }
    return found
