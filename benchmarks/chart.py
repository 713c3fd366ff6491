"""The chart: the speed-up over each library for each loss."""

from benchmarks.cells import GROUPS
from benchmarks.format import title
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


def chart(run, file):
    """Plot one row per loss, one marker per library, and one panel per product."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    losses = list(dict.fromkeys(result["loss"] for result in run["cells"]))
    size = (11, 2 + 0.25 * len(losses))
    figure, panels = plt.subplots(1, 2, sharex=True, sharey=True, figsize=size)
    for panel, product in zip(panels, SHOWN, strict=True):
        panel.hlines(range(len(losses)), 0, 1, "#E4E4E4", transform=panel.get_yaxis_transform())
        panel.axvline(1, color="#444444", linewidth=1.2, zorder=1)
        for peer in run["means"]:
            means = loss_means(run["cells"], product, peer)
            colour, marker = STYLES.get(peer, ("#777777", "."))
            rows = [losses.index(loss) for loss in means]
            label = title(peer).replace("`", "")
            panel.plot(means.values(), rows, marker, color=colour, label=label, markersize=6.5)
        panel.set_xscale("log")
        panel.set_title(TITLES[product], fontsize=11)
        panel.set_xlabel("speed-up of fastloss (right of 1x: fastloss is faster)")
        panel.spines[["left", "right", "top"]].set_visible(False)
        panel.tick_params(left=False)
    low, high = panels[0].get_xlim()
    ticks = [tick for tick in TICKS if low <= tick <= high]
    panels[0].set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    panels[0].minorticks_off()
    panels[1].minorticks_off()
    panels[0].set_yticks(range(len(losses)), losses)
    panels[0].set_ylim(len(losses) - 0.5, -0.5)
    isa = f" limited to {run['isa']}" if run.get("isa") else ""
    figure.suptitle(
        f"Geometric means over the sizes of each loss, {run['processor']}{isa}, "
        f"{run['threads']} threads",
        fontsize=12,
    )
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.set_layout_engine("constrained")
    figure.savefig(file, dpi=120)
    plt.close(figure)
