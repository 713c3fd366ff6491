"""Turns of all peers in a cell, ratios, and geometric means. The first peer is the reference.

A figure is a dict: peer, product, seconds of each round, their median and spread, or why there are
none.
"""

import math
import statistics
import time
from dataclasses import dataclass

from benchmarks.cells import GROUPS
from benchmarks.peers import Late, PeerError, disagreement

PRODUCTS = ("value", "gradient", "out")


@dataclass(frozen=True)
class Effort:
    """How long to measure a cell; fewer rounds for a peer that took `enough` seconds in two."""

    rounds: int = 5
    seconds: float = 0.03  # of each product in a round, or one call
    enough: float = 1.5
    patience: float | None = 20  # seconds of a peer's first call, beyond which it is left out


def check(cell, peers, patience=None):
    """The figures, without times yet, and the cell's work; those that disagree say why."""
    figures = []
    reference = work = None

    def add(peer, product, refused=None, left_out=None):
        figure = {"peer": peer, "product": product, "refused": refused, "left_out": left_out}
        figures.append(figure | {"rounds": []})

    for name, peer in peers.items():
        try:
            products, needs = peer.ask("prepare", cell)
            if reference is None:
                reference, work = peer.ask("result", "gradient", patience), needs
        except Late as error:
            add(name, "value", left_out=str(error))
            continue
        except PeerError as error:
            add(name, "value", refused=str(error))
            continue
        for product in products:
            try:
                result = peer.ask("result", product, patience)
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
    """The cell's name, work and figures."""
    figures, work = check(cell, peers, effort.patience)
    names = list(peers)
    spent = dict.fromkeys(names, 0.0)
    for turn in range(effort.rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            mine = [f for f in figures if f["peer"] == name and not without_time(f)]
            if not mine or (turn >= 2 and spent[name] > effort.enough):
                continue
            begin = time.perf_counter()
            try:
                took = peers[name].ask("turn", [f["product"] for f in mine], effort.seconds)
                for figure, median in zip(mine, took, strict=True):
                    figure["rounds"].append(median)
            except PeerError as error:
                for figure in mine:
                    figure["refused"] = str(error)
            spent[name] += time.perf_counter() - begin
    for figure in figures:
        figure |= summary([] if without_time(figure) else figure["rounds"])
    add_ratios(figures, names[0])
    return {
        "cell": cell.name,
        "loss": cell.loss,
        "group": cell.group,
        "work": work,
        "figures": figures,
    }


def without_time(figure):
    return figure["refused"] or figure["left_out"]


def summary(times):
    """The median, and half the range as a part of it."""
    if not times:
        return {"median": None, "spread": None}
    median = statistics.median(times)
    return {"median": median, "spread": (max(times) - min(times)) / 2 / median}


def add_ratios(figures, reference="fastloss"):
    """How many times longer a peer takes than each product of the reference.

    Where a peer does not compute into arrays kept between calls, its value and gradient stands.
    """
    ours = {f["product"]: f["median"] for f in figures if f["peer"] == reference}
    keeping = {f["peer"] for f in figures if f["product"] == "out"}
    for figure in figures:
        if figure["peer"] != reference and figure["median"]:
            own = figure["product"]
            both = own == "gradient" and figure["peer"] not in keeping
            against = ("gradient", "out") if both else (own,)
            figure["ratio"] = {p: figure["median"] / ours[p] for p in against if ours.get(p)}


def found(results, product, peer=None):
    """(result, figure) of those that have a ratio to this product."""
    return [
        (result, figure)
        for result in results
        for figure in result["figures"]
        if peer in (None, figure["peer"]) and product in figure.get("ratio", {})
    ]


def geometric(numbers):
    return math.exp(statistics.fmean(map(math.log, numbers)))


def means(results):
    """{peer: {group: {product: geometric mean, smallest, its cell, number of cells}}}

    All the cells are those of the groups before; half precision stands for itself.
    """
    made = {}
    groups = {group: (group,) for group in GROUPS} | {"all": GROUPS, "half": ("half",)}
    for peer in dict.fromkeys(f["peer"] for r in results for f in r["figures"] if "ratio" in f):
        for title, group in groups.items():
            for product in PRODUCTS:
                chosen = [
                    (f["ratio"][product], r["cell"])
                    for r, f in found(results, product, peer)
                    if r["group"] in group
                ]
                if chosen:
                    smallest, cell = min(chosen)
                    made.setdefault(peer, {}).setdefault(title, {})[product] = {
                        "mean": geometric([ratio for ratio, _ in chosen]),
                        "smallest": smallest,
                        "cell": cell,
                        "cells": len(chosen),
                    }
    return made
