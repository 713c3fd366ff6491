"""Figures as text, and the tables on the terminal."""

from benchmarks.measure import PRODUCTS, fastest_means
from benchmarks.peers import is_fastloss

WIDTHS = (44, 17, 26)  # of the columns: cell, library, each product
TITLES = {
    "torch": "PyTorch",
    "compile": "torch.compile",
    "jax": "JAX",
    "numpy": "NumPy",
    "sklearn": "scikit-learn metrics",
    "sklearn_loss": "scikit-learn `_loss`",
}


FASTEST = "the fastest of each cell"  # in place of a peer


def title(peer):
    return TITLES.get(peer, peer)


def time_text(seconds):
    for unit, size in (("s ", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            return f"{seconds / size:.4g}"[:5].rstrip(".").rjust(5) + f" {unit}"


def ratio_text(ratio):
    return f"{ratio:.{0 if ratio >= 100 else 1 if ratio >= 10 else 2}f}x"


def entry_text(seconds, entries):
    """Nanoseconds for each entry of the input."""
    return f"{1e9 * seconds / entries:.3g}"


def share_text(share):
    return f"{100 * share:.0f}%"


def rate_text(name, rate):
    unit = "G/s" if name.endswith("calls") else "GB/s"
    return f"{rate / 1e9:.3g} {unit}"


def table(heads, rows):
    """Lines of a Markdown table; the first column is words, the others figures."""
    yield "| " + " | ".join(heads) + " |"
    yield "|---" + "|--:" * (len(heads) - 1) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


RATE_NAMES = {
    "read_one": "reading one array",
    "read_two": "reading two",
    "triad": "reading two and writing one with non-temporal stores",
    "copy": "copying with non-temporal stores",
    "write": "non-temporal stores alone",
    "exp_calls": "exp in L1",
    "log_calls": "log in L1",
}


def limit_texts(rates):
    return [f"{RATE_NAMES[name]} {rate_text(name, rate)}" for name, rate in rates.items()]


def introduction(rounds):
    heads = f"{'cell':<{WIDTHS[0]}}{'library':<{WIDTHS[1]}}"
    return (
        "\nvalue: the mean loss; gradient: value and gradient; out: the same into a preallocated"
        "\narray, against a peer's gradient. x: the speed-up of fastloss; %: the share of the"
        "\nmachine's limit that fastloss reaches. -: the library has no such loss."
        f"\nMedians of {rounds} rounds, ± half their range; NumPy and sklearn on one thread.\n\n"
        + heads
        + "".join(f"{product:<{WIDTHS[2]}}" for product in PRODUCTS)
    )


def figure_text(figure, product):
    if figure is None or figure["median"] is None:
        return "-"
    ratio = figure.get("ratio", {}).get(product)
    text = f"{time_text(figure['median'])} ±{min(100 * figure['spread'], 999):3.0f}%"
    if figure["product"] != product:
        text = " " * len(text)
    if "share" in figure:
        text += f" {share_text(figure['share']):>7}"
    return text + (f" {ratio_text(ratio):>7}" if ratio else "")


def figure_of(result, peer, product):
    """The figure of a peer; its "gradient" in place of "out" if it has no preallocated output."""
    figures = {f["product"]: f for f in result["figures"] if f["peer"] == peer}
    return figures.get(product) or (figures.get("gradient") if product == "out" else None)


def cell_lines(result, peers):
    """One line per library, and one per product without a time that gives the reason."""
    name = result["cell"]
    for peer in peers:
        texts = (figure_text(figure_of(result, peer, p), p) for p in PRODUCTS)
        line = f"{name:<{WIDTHS[0]}}{peer:<{WIDTHS[1]}}"
        yield (line + "".join(f"{text:<{WIDTHS[2]}}" for text in texts)).rstrip()
        name = ""
    for figure in result["figures"]:
        for status in ("refused", "left_out"):
            if figure[status]:
                words = status.replace("_", " ")
                yield f"  {words}: {figure['peer']}, {figure['product']}: {figure[status]}"


def closing_lines(run):
    yield f"\n{'Speed-up, geometric mean (smallest)':<44}" + "".join(
        f"{product:>22}" for product in PRODUCTS
    )
    for peer, groups in headline_means(run).items():
        for group, products in groups.items():
            count = max(m["cells"] for m in products.values())
            line = f"{f'{peer}, {group} ({count} cells)':<44}"
            for product in PRODUCTS:
                line += f"{mean_text(products.get(product)):>22}"
            yield line
    if run.get("limits"):
        yield "\nLimits: " + ", ".join(limit_texts(run["limits"]))
    figures = [f for r in run["cells"] for f in r["figures"] if f["median"]]
    unsteady = sum(f["spread"] > 0.25 for f in figures)
    if unsteady:
        yield f"{unsteady} of {len(figures)} medians have ± over 25%: was the machine busy?"


def headline_means(run):
    """The means over the fastest other library of each cell, if there are several, then by peer."""
    several = sum(not is_fastloss(peer) for peer in run["means"]) > 1
    return ({FASTEST: fastest_means(run["cells"])} if several else {}) | run["means"]


def mean_text(mean):
    return f"{ratio_text(mean['mean'])} ({ratio_text(mean['smallest'])})" if mean else "-"
