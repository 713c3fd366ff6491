"""``python -m benchmarks.sklearn_metrics``: the metrics of fastloss against scikit-learn's.

Both run in this process in alternating rounds, on the same float64 arrays, and must agree. The
ratio is the speed-up of fastloss.
"""

import math
import statistics
import sys
import time
from dataclasses import dataclass, field

import numpy as np
import sklearn
from sklearn import metrics as sklearn_metrics

import fastloss as fl
from benchmarks import cli
from benchmarks.format import ratio_text, time_text
from benchmarks.measure import geometric_mean, summary
from benchmarks.worker import samples
from fastloss.sklearn import metrics as fastloss_metrics

GOALS = {1_000: 20, 1_000_000: 3}  # the intended ratio for each number of rows
AGREEMENT = 1e-11
PEERS = ("fastloss", "scikit-learn")


@dataclass(frozen=True)
class Cell:
    """A metric, and the names of its arrays."""

    metric: str
    variant: str
    arrays: tuple[str, str]
    options: dict = field(default_factory=dict)
    weighted: bool = False

    @property
    def name(self):
        return f"{self.metric} {self.variant}".rstrip()


REAL, POSITIVE, COUNTS = ("y", "x"), ("positive", "mean"), ("counts", "mean")
CELLS = [
    Cell("mean_squared_error", "", REAL),
    Cell("mean_squared_error", "weighted", REAL, weighted=True),
    Cell("mean_absolute_error", "", REAL),
    Cell("mean_pinball_loss", "", REAL, {"alpha": 0.9}),
    Cell("mean_poisson_deviance", "", COUNTS),
    Cell("mean_gamma_deviance", "", POSITIVE),
    Cell("mean_tweedie_deviance", "power 0", POSITIVE),
    Cell("mean_tweedie_deviance", "power 1.5", COUNTS, {"power": 1.5}),
    Cell("mean_tweedie_deviance", "power 3", POSITIVE, {"power": 3}),
    Cell("log_loss", "2 classes", ("class of 2", "p of 2")),
    Cell("log_loss", "2 classes, one column", ("class of 2", "p")),
    Cell("log_loss", "10 classes", ("class of 10", "p of 10")),
    Cell("log_loss", "10 classes, weighted", ("class of 10", "p of 10"), weighted=True),
    Cell("d2_log_loss_score", "2 classes", ("class of 2", "p of 2")),
    Cell("d2_log_loss_score", "10 classes", ("class of 10", "p of 10")),
    Cell("brier_score_loss", "2 classes", ("class of 2", "p of 2")),
    Cell("brier_score_loss", "2 classes, one column", ("class of 2", "p")),
    Cell("brier_score_loss", "10 classes", ("class of 10", "p of 10")),
    Cell("hinge_loss", "2 classes", ("class of 2", "x")),
    Cell("hinge_loss", "10 classes", ("class of 10", "scores")),
]


def data(rows):
    """The arrays by name."""
    rng = np.random.default_rng(0)
    p = rng.random(rows)
    return {
        "y": rng.normal(size=rows),
        "x": rng.normal(size=rows),
        "positive": rng.gamma(2.0, size=rows) + 0.01,
        "mean": rng.gamma(2.0, size=rows) + 0.01,
        "counts": rng.poisson(2.0, rows),
        "class of 2": rng.integers(0, 2, rows),
        "class of 10": rng.integers(0, 10, rows),
        "p": p,
        "p of 2": np.stack((1 - p, p), axis=1),
        "p of 10": rng.dirichlet(np.ones(10), rows),
        "scores": rng.normal(size=(rows, 10)),
        "weight": rng.random(rows) + 0.1,
    }


def measure(cell, rows, arrays, rounds, seconds):
    """The figure of a cell for one number of rows."""
    options = cell.options | ({"sample_weight": arrays["weight"]} if cell.weighted else {})

    def call_of(module):
        metric = getattr(module, cell.metric)
        y_true, y_pred = (arrays[name] for name in cell.arrays)
        return lambda: metric(y_true, y_pred, **options)

    calls = dict(zip(PEERS, map(call_of, (fastloss_metrics, sklearn_metrics)), strict=True))
    value, expected = (call() for call in calls.values())
    if not math.isclose(value, expected, rel_tol=AGREEMENT):
        raise SystemExit(f"{cell.name}: {value!r}, but scikit-learn has {expected!r}")
    times = {name: [] for name in calls}
    for k in range(rounds):
        for name in list(calls)[:: 1 - 2 * (k % 2)]:
            time.sleep(0.005)  # until idle threads stop spinning
            times[name].append(statistics.median(samples(calls[name], seconds)))
    summaries = {name: summary(medians) for name, medians in times.items()}
    ratio = summaries["scikit-learn"]["median"] / summaries["fastloss"]["median"]
    return {"cell": cell.name, "rows": rows, "ratio": ratio} | summaries


def table(figures):
    """A Markdown table: for each metric and number of rows, both times and the ratio."""
    heads = [f"{rows:,} rows: {column}" for rows in GOALS for column in (*PEERS, "ratio")]
    yield "| metric | " + " | ".join(heads) + " |"
    yield "|---|" + "--:|" * len(heads)
    by_cell = {(f["cell"], f["rows"]): f for f in figures}
    for name in dict.fromkeys(f["cell"] for f in figures):
        columns = [t for rows, goal in GOALS.items() for t in texts(by_cell[name, rows], goal)]
        yield f"| {name} | " + " | ".join(columns) + " |"


def texts(figure, goal):
    """The times and the ratio, which is bold if it is below the goal."""
    ratio = ratio_text(figure["ratio"])
    times = [time_text(figure[peer]["median"]).strip() for peer in PEERS]
    return [*times, ratio if figure["ratio"] >= goal else f"**{ratio}**"]


def main(argv=None):
    parser = cli.parser("benchmarks.sklearn_metrics", __doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="rounds per cell; default: %(default)s")
    add(
        "--seconds",
        type=float,
        default=0.02,
        help="duration of a round, but at least one call; default: %(default)s",
    )
    options = parser.parse_args(argv)
    if options.isa:
        fl._binding.select_isa(options.isa)
    run = cli.run_info("sklearn_metrics", "benchmarks.sklearn_metrics", argv, figures=[])
    run |= {
        "versions": {
            "fastloss": fl.__version__,
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
        },
        "isa": fl._binding.isa(),
        "threads": fl.get_num_threads(),
    }
    for rows in GOALS:
        arrays = data(rows)
        for cell in cli.select(CELLS, options):
            figure = measure(cell, rows, arrays, options.rounds, options.seconds)
            run["figures"].append(figure)
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    print(f"{run['processor']}, {run['threads']} threads, {run['isa']}; {versions}\n")
    print("\n".join(table(run["figures"])))
    for rows, goal in GOALS.items():
        ratios = [f["ratio"] for f in run["figures"] if f["rows"] == rows]
        reached = sum(ratio >= goal for ratio in ratios)
        print(
            f"\n{rows:,} rows: geometric mean {ratio_text(geometric_mean(ratios))}, at least "
            f"{goal}x in {reached} of {len(ratios)}"
        )
    if options.json:
        cli.write_json(options.json, run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
