"""``python -m benchmarks.report``: the documents, from the JSON of runs.

    python -m benchmarks --json run.json
    python -m benchmarks.report run.json [other.json ...]

writes

- docs/performance-avx2.md: all times of the first run, here on AVX2, and of the others,
- docs/performance-avx2.json: what the comparison takes from the first run,
- docs/performance.md: the instruction sets that have such a file side by side, and the chart,
- the summary in README.md, between two comments.

An instruction set that the machine at hand lacks keeps its page and its columns.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from benchmarks.cells import GROUPS
from benchmarks.chart import SHOWN, chart, description
from benchmarks.cli import write_json
from benchmarks.format import (
    RATE_NAMES,
    entry_text,
    figure_of,
    headline_means,
    mean_text,
    rate_text,
    ratio_text,
    share_text,
    table,
    time_text,
    title,
)
from benchmarks.measure import PRODUCTS, fastest

ROOT = Path(__file__).parents[1]
MARKERS = ("<!-- benchmarks: python -m benchmarks.report -->", "<!-- /benchmarks -->")

SMALLEST = 5  # ratios that are named for each product
HEADS = {"value": "value", "gradient": "value and gradient", "out": "value and gradient, `out=`"}
SETS = {"avx512": "AVX-512", "avx2": "AVX2", "neon": "NEON", "baseline": "Baseline"}


def instruction_set(made):
    """The instruction set of the kernels, which the version ends with."""
    return re.search(r"\((\w+)\)", made["versions"]["fastloss"])[1]


def versions(made):
    return {title(p): v.partition(" from ")[0] for p, v in made["versions"].items()}


def machine(made):
    isa = f" limited to {made['isa']}" if made.get("isa") else ""
    threads = f", {made['threads']} threads" if "threads" in made else ""
    return f"{made['processor']}{isa}{threads}, Python {made['python']}, {made['date']}"


def mean_rows(made):
    for peer, groups in headline_means(made).items():
        for group, products in groups.items():
            count = max(m["cells"] for m in products.values())
            texts = (mean_text(products.get(p)) for p in PRODUCTS)
            yield [title(peer), group, str(count), *texts]


def smallest_text(made, product):
    """The smallest ratios to the fastest other library of a cell, in words."""
    pairs = sorted(fastest(made["cells"], product), key=lambda pair: pair[1]["ratio"][product])
    return ", ".join(
        f"{ratio_text(figure['ratio'][product])} `{result['cell']}` ({title(figure['peer'])})"
        for result, figure in pairs[:SMALLEST]
    )


def means_section(made):
    yield from table(
        ["library", "cells", "number", *HEADS.values()],
        mean_rows(made),
    )
    for product in PRODUCTS:
        text = smallest_text(made, product)
        if text:
            yield f"- Smallest ratios, {HEADS[product]}: {text}"
    yield ""


def cell_rows(made, product, peers):
    for result in made["cells"]:
        row = [f"`{result['cell']}`"]
        for peer in peers:
            figure = figure_of(result, peer, product)
            if figure is None or figure["median"] is None:
                row += ["-"] * (3 if peer == "fastloss" else 1)
                continue
            text = f"{time_text(figure['median']).strip()} ±{100 * figure['spread']:.0f}%"
            if peer == "fastloss":
                row += [text, entry_text(figure["median"], result["entries"])]
                row.append(share_text(figure["share"]) if "share" in figure else "-")
            else:
                ratio = figure.get("ratio", {}).get(product)
                row.append(f"{text}, {ratio_text(ratio)}" if ratio else text)
        yield row


def without_times(made):
    for result in made["cells"]:
        for figure in result["figures"]:
            for why in ("refused", "left_out"):
                if figure[why]:
                    yield (
                        f"- {why.replace('_', ' ')}: `{result['cell']}`, {title(figure['peer'])}, "
                        f"{figure['product']}: {figure[why]}"
                    )


def command_lines(made):
    yield from (f"    {made['command']}", "", f"on {machine(made)}.", "")


def cells_section(made):
    peers = list(made["versions"])
    yield "Versions: " + "; ".join(" ".join(pair) for pair in versions(made).items()) + "."
    yield ""
    if made["limits"]:
        yield from table(
            ["limit of the machine, best of this run", "rate"],
            [[RATE_NAMES[name], rate_text(name, rate)] for name, rate in made["limits"].items()],
        )
    for product in PRODUCTS:
        yield from (f"### Cells: {HEADS[product]}", "")
        heads = ["cell", "fastloss", "ns per entry", "of the limit", *map(title, peers[1:])]
        yield from table(heads, cell_rows(made, product, peers))
    yield from without_times(made)
    yield ""


def sporadic_calls_section(made):
    keys = [(way, q) for way in ("back to back", "apart") for q in ("median", "p90")]
    heads = ["cell", "product", "threads", "library", *(f"{way}, {q}" for way, q in keys), "factor"]
    yield from table(
        heads,
        (
            [
                f"`{f['cell']}`",
                HEADS[f["product"]],
                str(f["threads"]),
                title(f["peer"]),
                *(time_text(f[way][q]).strip() for way, q in keys),
                ratio_text(f["factor"]),
            ]
            for f in made["figures"]
        ),
    )


def startup_section(made):
    rows = ([f["modules"], time_text(f["median"]).strip()] for f in made["figures"])
    yield from table(["`import`", "median"], rows)
    yield f"The extension module has {made['bytes'] / 2**20:.2f} MiB."
    yield ""


def scaling_section(made):
    yield from means_section(made)
    peers = [p for p in dict.fromkeys(f["peer"] for r in made["cells"] for f in r["figures"])]
    for product in SHOWN:
        heads = [HEADS[product], *peers]
        yield from table(heads, cell_rows(made, product, peers))


SECTIONS = {
    "scaling": ("Threads", scaling_section),
    "sporadic_calls": ("Sporadic calls", sporadic_calls_section),
    "startup": ("Import", startup_section),
    "cells": ("Another run", means_section),
}


def document(made, others):
    """The page of an instruction set, in Markdown."""
    yield from (f"# Performance on {SETS[instruction_set(made)]}", "")
    yield "All times of one run, and others on the same machine. [Performance](performance.md) has"
    yield "the definitions, and other instruction sets. Written by `python -m benchmarks.report`."
    yield ""
    yield from command_lines(made)
    yield from means_section(made)
    yield from cells_section(made)
    for other in others:
        name, section = SECTIONS[other["kind"]]
        yield from (f"## {name}", "")
        yield from command_lines(other)
        yield from section(other)


# ---- instruction sets side by side ---------------------------------------------------------------


def summarised(made):
    """The part of a run that the comparison of instruction sets uses."""
    best = {
        (result["cell"], product): (figure["peer"], figure["ratio"][product])
        for product in PRODUCTS
        for result, figure in fastest(made["cells"], product)
    }
    cells = [
        {"cell": result["cell"]}
        | {
            figure["product"]: {
                "nanoseconds": 1e9 * figure["median"] / result["entries"],
                "share": figure.get("share"),
                "fastest": best.get((result["cell"], figure["product"])),
            }
            for figure in result["figures"]
            if figure["peer"] == "fastloss" and figure["median"]
        }
        for result in made["cells"]
    ]
    kept = ("date", "processor", "threads", "python", "command", "limits")
    return {name: made[name] for name in kept} | {
        "versions": versions(made),
        "means": headline_means(made),
        "smallest": {product: smallest_text(made, product) for product in PRODUCTS},
        "cells": cells,
    }


def comparison(sets, runs):
    """The tables in which each instruction set has columns, in Markdown."""
    titles = [f"[{SETS[name]}](performance-{name}.md)" for name in sets]
    yield from ("## Runs", "")
    yield from table(["", *titles], machine_rows(runs))
    yield from ("## Means", "")
    heads = [f"{HEADS[product]}, {SETS[name]}" for product in PRODUCTS for name in sets]
    yield from table(["library", "cells", *heads], compared_means(runs))
    for name, run in zip(sets, runs, strict=True):
        for product, text in run["smallest"].items():
            if text:
                yield f"- {SETS[name]}, smallest ratios, {HEADS[product]}: {text}"
    yield ""
    for product in PRODUCTS:
        yield from (f"## Cells: {HEADS[product]}", "")
        columns = ("ns per entry", "of the limit", "fastest other library")
        heads = [f"{column}, {SETS[name]}" for column in columns for name in sets]
        yield from table(["cell", *heads], compared_cells(runs, product))


def machine_rows(runs):
    for key in ("date", "processor", "threads", "python"):
        yield [key.capitalize(), *(str(run[key]) for run in runs)]
    yield ["Command", *(f"`{run['command']}`" for run in runs)]
    for library in dict.fromkeys(name for run in runs for name in run["versions"]):
        yield [library, *(run["versions"].get(library, "-") for run in runs)]
    limits = [run["limits"] or {} for run in runs]
    for rate, name in RATE_NAMES.items():
        texts = (rate_text(rate, rates[rate]) if rate in rates else "-" for rates in limits)
        yield [f"Limit: {name}", *texts]


def compared_means(runs):
    keys = [(peer, group) for run in runs for peer in run["means"] for group in run["means"][peer]]
    for peer, group in dict.fromkeys(keys):
        found = [run["means"].get(peer, {}).get(group, {}) for run in runs]
        texts = [mean_text(means.get(product)) for product in PRODUCTS for means in found]
        yield [title(peer), group, *texts]


def compared_cells(runs, product):
    by_name = [{cell["cell"]: cell for cell in run["cells"]} for run in runs]
    for cell in dict.fromkeys(name for cells in by_name for name in cells):
        figures = [cells.get(cell, {}).get(product) for cells in by_name]
        row = [f"`{cell}`", *(f"{f['nanoseconds']:.3g}" if f else "-" for f in figures)]
        row += [share_text(f["share"]) if f and f["share"] else "-" for f in figures]
        for figure in figures:
            peer, ratio = (figure and figure["fastest"]) or (None, None)
            row.append(f"{ratio_text(ratio)} ({title(peer)})" if peer else "-")
        yield row


def front_page(made, runs):
    """The comparison of instruction sets, in Markdown."""
    yield from ("# Performance", "")
    yield "The speed-up of fastloss over other libraries on the same inputs, and the fraction of"
    yield "the machine's limits that it reaches. Written by `python -m benchmarks.report`."
    yield ""
    yield from picture(made, "")
    yield ""
    yield "Times are medians over alternating rounds, ± half their range; ratios are within one"
    yield "run. A result that disagrees with fastloss has no time. Means are geometric, over the"
    yield "cells of a size class, with the smallest ratio in parentheses: small cells are a few KB,"
    yield "cached ones fit in the caches; half precision is not in the overall mean. The fastest"
    yield "library is that of each cell and product. Nanoseconds per entry of the input are"
    yield "fastloss's. The limit of a cell is the larger of two times, at the rates below: memory"
    yield "traffic, if the arrays have twice the size of the caches or more, and the exps and logs,"
    yield "as few as the mathematics allows, by a frozen copy of the library's arithmetic in L1."
    yield ""
    yield from comparison(list(runs), list(runs.values()))


def picture(made, folder):
    """The chart in HTML, which selects the narrow one for narrow windows."""
    yield "<picture>"
    yield f'<source media="(max-width: 600px)" srcset="{folder}performance-narrow.png">'
    yield f'<img src="{folder}performance.png" alt="{description(made)}">'
    yield "</picture>"


def summary(made):
    """The summary in README.md."""
    groups = [g for g in GROUPS if any(g in found for found in made["means"].values())]
    yield "Speed-up over other libraries on the same inputs: geometric mean over all losses,"
    yield "smallest ratio in parentheses. Small inputs are a few KB, cached ones fit in the caches,"
    yield 'large ones do not. "With gradient" is value and gradient; fastloss writes into a'
    yield "preallocated array. Float32, medians of alternating rounds in one run:"
    yield ""
    yield from command_lines(made)
    heads = [f"{what}, {group}" for what in ("value", "with gradient") for group in groups]
    rows = (
        [title(peer)] + [mean_text(found.get(group, {}).get(p)) for p in SHOWN for group in groups]
        for peer, found in headline_means(made).items()
    )
    yield from table(["", *heads], rows)
    yield from picture(made, "docs/")
    yield ""
    yield "[docs/performance.md](docs/performance.md) has every cell, the fraction of the machine's"
    yield "limits that it reaches, and other instruction sets."


def between_markers(text, lines):
    """`text` with these lines between its two markers."""
    begin, end = (text.index(marker) for marker in MARKERS)
    return text[: begin + len(MARKERS[0])] + "\n\n" + "\n".join(lines) + "\n\n" + text[end:]


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description="Writes docs/performance*.md with its charts and the summary in README.md.",
    )
    parser.add_argument("json", nargs="+", help="of python -m benchmarks; then of other runs")
    parser.add_argument("--root", type=Path, default=ROOT, help="default: %(default)s")
    options = parser.parse_args(argv)
    made, *others = (json.loads(Path(file).read_text()) for file in options.json)
    readme, docs = options.root / "README.md", options.root / "docs"
    new = between_markers(readme.read_text(encoding="utf-8"), summary(made))
    name = instruction_set(made)
    write_json(docs / f"performance-{name}.json", summarised(made))
    files = {name: docs / f"performance-{name}.json" for name in SETS}
    runs = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    pages = {f"performance-{name}": document(made, others), "performance": front_page(made, runs)}
    for page, lines in pages.items():
        (docs / f"{page}.md").write_text("\n".join(lines), encoding="utf-8")
    chart(made, docs / "performance.png")
    chart(made, docs / "performance-narrow.png", narrow=True)
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
