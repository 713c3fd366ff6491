"""The chart: the speed-up over each library for each loss."""

from benchmarks.cells import GROUPS
from benchmarks.format import ratio_text, title
from benchmarks.measure import figures_with_ratio, geometric_mean

SHOWN = ("value", "out")
# Colours by Okabe and Ito, which colour-blind people can distinguish, and markers.
STYLES = {
    "torch": ("#D55E00", "o"),
    "compile": ("#E69F00", "s"),
    "jax": ("#0072B2", "^"),
    "numpy": ("#009E73", "D"),
    "sklearn": ("#CC79A7", "v"),
    "sklearn_loss": ("#000000", "x"),
}


TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000, 10000)  # 200 would overlap 100
TITLES = {"value": "value", "out": "value and gradient, fastloss with out="}


def loss_means(results, product, peer):
    """The geometric mean for each loss, without the cells of half precision."""
    ratios = {}
    for result, figure in figures_with_ratio(results, product, peer):
        if result["group"] in GROUPS:
            ratios.setdefault(result["loss"], []).append(figure["ratio"][product])
    return {loss: geometric_mean(values) for loss, values in ratios.items()}


def chart(run, file, narrow=False):
    """Plot one row per loss, one marker per library, and one panel per product.

    A narrow chart has its panels one below the other and each name above its row, so that it can
    be read on a telephone.
    """
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    losses = list(dict.fromkeys(result["loss"] for result in run["cells"]))
    if narrow:
        shape, size = (2, 1), (4.2, 2.2 + 0.66 * len(losses))
    else:
        shape, size = (1, 2), (11, 2 + 0.25 * len(losses))
    figure, panels = plt.subplots(*shape, sharex=True, sharey=True, figsize=size)
    for panel, product in zip(panels, SHOWN, strict=True):
        panel.hlines(range(len(losses)), 0, 1, "#E4E4E4", transform=panel.get_yaxis_transform())
        panel.axvline(1, color="#444444", linewidth=1.2, zorder=1)
        for peer in run["means"]:
            means = loss_means(run["cells"], product, peer)
            colour, marker = STYLES.get(peer, ("#777777", "."))
            rows = [losses.index(loss) for loss in means]
            label = title(peer).replace("`", "")
            panel.plot(
                means.values(),
                rows,
                marker,
                color=colour,
                label=label,
                markersize=5.5 if narrow else 6.5,
            )
        panel.set_xscale("log")
        panel.set_title(TITLES[product], fontsize=11)
        panel.set_xlabel("speed-up of fastloss (right of 1x: fastloss is faster)")
        panel.spines[["left", "right", "top"]].set_visible(False)
        panel.tick_params(left=False, labelbottom=True)
    low, high = panels[0].get_xlim()
    ticks = [tick for tick in TICKS if low <= tick <= high]
    panels[0].set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    for panel in panels:
        panel.minorticks_off()
    if narrow:
        for panel in panels:
            panel.tick_params(labelleft=False)
            for row, loss in enumerate(losses):
                panel.text(
                    0,
                    row - 0.22,
                    loss,
                    transform=panel.get_yaxis_transform(),
                    va="bottom",
                    fontsize=9,
                )
    else:
        panels[0].set_yticks(range(len(losses)), losses)
    panels[0].set_ylim(len(losses) - 0.5, -0.9 if narrow else -0.5)
    isa = f" limited to {run['isa']}" if run.get("isa") else ""
    gap = "\n" if narrow else " "
    figure.suptitle(
        f"Geometric means over the sizes of each loss,{gap}{run['processor']}{isa}, "
        f"{run['threads']} threads",
        fontsize=12,
    )
    handles, labels = panels[0].get_legend_handles_labels()
    columns = 2 if narrow else len(labels)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    figure.set_layout_engine("constrained")
    figure.savefig(file, dpi=160 if narrow else 120)
    plt.close(figure)


def description(run):
    """The chart in words, for readers who do not see it."""
    *peers, last = [title(peer).replace("`", "") for peer in run["means"]]
    libraries = f"{', '.join(peers)} and {last}" if peers else last
    ratios = [
        ratio
        for product in SHOWN
        for peer in run["means"]
        for ratio in loss_means(run["cells"], product, peer).values()
    ]
    return (
        f"Chart: the speed-up of fastloss over {libraries} for each loss, of the value and of "
        f"value and gradient. The geometric means are from {ratio_text(min(ratios))} to "
        f"{ratio_text(max(ratios))}."
    )
