"""``python -m benchmarks.sklearn_metrics``: fastloss.sklearn.metrics and scikit-learn, in turns.

Both compute in this process, from the same float64 arrays, and must agree. The ratio says how many
times longer scikit-learn takes.
"""

import math
import statistics
import sys
import time
from dataclasses import dataclass, field

import numpy as np
import sklearn
from sklearn import metrics as theirs

import fastloss as fl
from benchmarks import command
from benchmarks.measure import geometric, summary
from benchmarks.text import ratio_text, time_text
from benchmarks.worker import samples
from fastloss.sklearn import metrics as ours

TARGETS = {1_000: 20, 1_000_000: 3}  # rows, and the ratio that is aimed at
AGREEMENT = 1e-11
PEERS = ("fastloss", "scikit-learn")


@dataclass(frozen=True)
class Cell:
    """A metric and the names of the arrays that it gets."""

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
    """All arrays, by name."""
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
    """One dict for a cell and a number of rows."""
    options = cell.options | ({"sample_weight": arrays["weight"]} if cell.weighted else {})

    def call_of(module):
        metric = getattr(module, cell.metric)
        y_true, y_pred = (arrays[name] for name in cell.arrays)
        return lambda: metric(y_true, y_pred, **options)

    calls = dict(zip(PEERS, map(call_of, (ours, theirs)), strict=True))
    value, expected = (call() for call in calls.values())
    if not math.isclose(value, expected, rel_tol=AGREEMENT):
        raise SystemExit(f"{cell.name}: {value!r}, but scikit-learn has {expected!r}")
    times = {name: [] for name in calls}
    for turn in range(rounds):
        for name in list(calls)[:: 1 - 2 * (turn % 2)]:
            time.sleep(0.005)  # threads stop spinning
            times[name].append(statistics.median(samples(calls[name], seconds)))
    found = {name: summary(took) for name, took in times.items()}
    ratio = found["scikit-learn"]["median"] / found["fastloss"]["median"]
    return {"cell": cell.name, "rows": rows, "ratio": ratio} | found


def table(figures):
    """Markdown: a metric in a row, for each number of rows both times and the ratio."""
    heads = [f"{rows:,} rows: {what}" for rows in TARGETS for what in (*PEERS, "ratio")]
    yield "| metric | " + " | ".join(heads) + " |"
    yield "|---|" + "--:|" * len(heads)
    by = {(f["cell"], f["rows"]): f for f in figures}
    for name in dict.fromkeys(f["cell"] for f in figures):
        cells = [t for rows, least in TARGETS.items() for t in texts(by[name, rows], least)]
        yield f"| {name} | " + " | ".join(cells) + " |"


def texts(figure, least):
    """The times and the ratio, in bold where it is less than is aimed at."""
    ratio = ratio_text(figure["ratio"])
    times = [time_text(figure[peer]["median"]).strip() for peer in PEERS]
    return [*times, ratio if figure["ratio"] >= least else f"**{ratio}**"]


def main(argv=None):
    parser = command.parser("benchmarks.sklearn_metrics", __doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="turns of each in each cell; default: %(default)s")
    add("--seconds", type=float, default=0.02, help="of a turn, or a call; default: %(default)s")
    options = parser.parse_args(argv)
    if options.isa:
        fl._binding.select_isa(options.isa)
    made = command.content("sklearn_metrics", "benchmarks.sklearn_metrics", argv, figures=[])
    made |= {
        "versions": {
            "fastloss": fl.__version__,
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
        },
        "isa": fl._binding.isa(),
        "threads": fl.get_num_threads(),
    }
    for rows in TARGETS:
        arrays = data(rows)
        for cell in command.chosen(CELLS, options):
            found = measure(cell, rows, arrays, options.rounds, options.seconds)
            made["figures"].append(found)
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    print(f"{made['processor']}, {made['threads']} threads, {made['isa']}; {versions}\n")
    print("\n".join(table(made["figures"])))
    for rows, least in TARGETS.items():
        ratios = [f["ratio"] for f in made["figures"] if f["rows"] == rows]
        reached = sum(ratio >= least for ratio in ratios)
        print(
            f"\n{rows:,} rows: {ratio_text(geometric(ratios))} in the geometric mean, at least "
            f"{least}x in {reached} of {len(ratios)}"
        )
    if options.json:
        command.write_json(options.json, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
