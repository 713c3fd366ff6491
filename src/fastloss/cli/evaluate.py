"""`fastloss evaluate`: losses over files of any size."""

import contextlib
import os
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from fastloss.cli.parsing import (
    Parser,
    add_options,
    did_you_mean,
    escape_controls,
    find_loss,
    number,
    options_of,
    parameter_texts,
    parse,
    split_loss,
    summary,
)
from fastloss.cli.report import Report
from fastloss.evaluation.criterion_set import criterion_of
from fastloss.evaluation.evaluator import evaluate
from fastloss.evaluation.progress import ProgressBar
from fastloss.evaluation.results import Evaluation
from fastloss.evaluation.sources import MISSING_CHUNKS

PERPLEXITY_LOSSES = ("cross_entropy", "nll_loss")

_FILES = (
    "A file is a .npy, or a .npz, HDF5, Zarr, Parquet, Arrow, CSV or JSON Lines file followed by a "
    "colon and the name of the array or column: x.npz:name, x.h5:group/name, x.zarr:name, "
    "x.parquet:column, x.arrow:column, x.csv:column, x.jsonl:column. A folder of tables "
    "(folder:column) or a quoted pattern ('x_*.npy') names several files, whose rows follow each "
    "other. The name may be omitted if there is only one. All arrays must have the same "
    "number of rows (the leading dimension); weights may broadcast."
)


def evaluate_overview() -> Parser:
    """The parser of the command without a loss."""
    return Parser(
        "fastloss evaluate",
        usage="fastloss evaluate LOSS[,LOSS...] INPUT TARGET [more files] [options]",
        description="Evaluates a loss over files, which may be larger than memory, or several "
        "losses of the same arrays in one pass.",
        epilog=f"{_FILES} fastloss evaluate LOSS --help lists the files and options of a loss.",
    )


def run_evaluate(argv: list[str]) -> None:
    """Evaluate, and print the figures."""
    names, words = split_loss(argv, evaluate_overview())
    losses = _find_losses(names)
    arguments = parse(evaluate_parser(losses), words)
    _check_by(arguments["by"])
    if arguments["perplexity"]:
        _check_perplexity(losses, arguments["reduction"])
    per_sample = _per_sample_paths(arguments["per_sample"], list(losses))
    report = Report(
        evaluations=_evaluate(losses, arguments, per_sample),
        reduction=arguments["reduction"],
        group_noun="class" if arguments["by"] == "class" else "group",
        per_sample=per_sample,
        perplexity=arguments["perplexity"],
    )
    print(report.json() if arguments["json"] else report.text())


def _find_losses(names: str) -> dict[str, Any]:
    """The losses of a comma-separated list, by name."""
    losses: dict[str, Any] = {}
    for name in names.split(","):
        if name in losses:
            raise ValueError(f"{name} is named twice")
        losses[name] = find_loss(name)
    first, *others = losses
    for name in others:
        operands = [", ".join(losses[loss].operands) for loss in (first, name)]
        if operands[0] != operands[1]:
            raise ValueError(
                f"{first} reads {operands[0]} and {name} reads {operands[1]}: evaluate them one by "
                "one"
            )
    return losses


def evaluate_parser(losses: Mapping[str, Any]) -> Parser:
    first = next(iter(losses.values()))
    description = summary(first) if len(losses) == 1 else "Several losses in one pass."
    parser = Parser(
        f"fastloss evaluate {','.join(losses)}",
        description=description.replace("%", "%%"),
        epilog=_FILES,
    )
    texts = parameter_texts(first)
    for name in first.operands:
        parser.add_argument(name, metavar=name.upper(), help=texts.get(name))
    add_options(parser, losses)

    add = parser.add_argument_group("evaluation").add_argument
    add(
        "--reduction",
        metavar="NAME",
        default="mean",
        help="mean (the default), sum, or batchmean if the loss has it",
    )
    add(
        "--by",
        metavar="class|FILE",
        help="also print totals for each class of the targets, or for each group in a file of "
        "labels, one per row or one per loss",
    )
    add(
        "--baseline",
        metavar="FILE",
        help="another prediction for the same targets, of the shape of the input: also print its "
        "value, and the difference of the losses, input minus baseline, with its paired standard "
        "error; z is their ratio",
    )
    for name in _further_predictions(first):
        add(
            f"--baseline-{name.replace('_', '-')}",
            metavar="FILE",
            help=f"{name} of the baseline; without it, the baseline has the {name} of the input",
        )
    add(
        "--perplexity",
        action="store_true",
        help=f"also print exp of the mean, for {' and '.join(PERPLEXITY_LOSSES)}",
    )
    add(
        "--per-sample",
        metavar="FILE",
        help="write the unreduced losses to a .npy file; for several losses, the name of each is "
        "inserted before the extension",
    )
    add(
        "--state",
        metavar="FILE",
        help="checkpoint: after an interrupt or a crash, the same command resumes from it; deleted "
        "on completion",
    )
    if any(loss.row_axis == 1 for loss in losses.values()):
        add(
            "--class-axis",
            type=number(int),
            metavar="AXIS",
            help="axis of the classes in the input, and in targets that are probabilities, if it "
            "is not axis 1: -1 for logits of shape (batch, time, classes) with labels of shape "
            "(batch, time)",
        )
    add("--chunk-rows", type=number(int), metavar="N", help="number of rows to read at once")
    add("--threads", type=number(int), metavar="N", help="number of threads that compute")
    add(
        "--missing-chunks",
        choices=MISSING_CHUNKS,
        help="absent chunks of Zarr or HDF5, which are read as the fill value: warn (the default) "
        "reports their number, error refuses them, fill also accepts absent files of an HDF5 "
        "dataset that consists of several",
    )
    add(
        "--json",
        action="store_true",
        help="print one JSON object, or an array of one for each of several losses; values that "
        'JSON lacks are "NaN", "Infinity", "-Infinity"',
    )
    return parser


def _further_predictions(loss: Any) -> list[str]:
    """The arrays of a loss, after the first, that another model may predict."""
    return [name for name in loss.operands[1:] if not name.startswith("target")]


def _baseline(loss: Any, arguments: Mapping[str, Any]) -> Any:
    """The baseline as `evaluate` takes it: a file, or a dict of files if there are several."""
    names = {name: f"baseline_{name}" for name in _further_predictions(loss)}
    files = {loss.operands[0]: arguments["baseline"]}
    files |= {name: arguments[option] for name, option in names.items()}
    files = {name: file for name, file in files.items() if file is not None}
    return arguments["baseline"] if files.keys() <= {loss.operands[0]} else files


def _check_by(by: str | None) -> None:
    """Raises an error for a misspelling of "class"; other names are names of files."""
    if by in (None, "class") or os.path.exists(by):
        return
    if hint := did_you_mean(by, ["class"]):
        raise ValueError(f"--by {by}: no such file: {hint}")


def _check_perplexity(losses: Mapping[str, Any], reduction: str) -> None:
    for name in losses:
        if name not in PERPLEXITY_LOSSES:
            raise ValueError(f"--perplexity is for {' and '.join(PERPLEXITY_LOSSES)}, not {name}")
    if reduction != "mean":
        raise ValueError(
            f"--perplexity is the exponential of a mean, but --reduction is {reduction}"
        )


def _per_sample_paths(path: str | None, names: list[str]) -> dict[str, str]:
    if path is None:
        return {}
    if len(names) == 1:
        return {names[0]: path}
    stem, extension = os.path.splitext(path)
    return {name: f"{stem}.{name}{extension}" for name in names}


def _evaluate(
    losses: Mapping[str, Any], arguments: Mapping[str, Any], per_sample: dict[str, str]
) -> dict[str, Evaluation]:
    criteria = {}
    for name, loss in losses.items():
        option_names = arguments.keys() & options_of(loss).keys() - {"sample_weight"}
        options = {option: arguments[option] for option in option_names}
        criterion: Any = criterion_of(loss)
        criteria[name] = criterion(reduction=arguments["reduction"], **options)
    operands = next(iter(losses.values())).operands
    state = arguments["state"]
    try:
        with _plain_warnings(), _progress_bar() as progress:
            return evaluate(
                criteria,
                *(arguments[operand] for operand in operands),
                sample_weight=arguments.get("sample_weight"),
                by=arguments["by"],
                per_sample=per_sample or None,
                state=state,
                chunk_rows=arguments["chunk_rows"],
                threads=arguments["threads"],
                progress=progress,
                missing_chunks=arguments["missing_chunks"],
                class_axis=arguments.get("class_axis"),
                baseline=_baseline(next(iter(losses.values())), arguments),
            )
    except KeyboardInterrupt:
        if state is None or not os.path.exists(state):
            raise
        raise KeyboardInterrupt(f"the same command resumes from {state}") from None


def _progress_bar() -> contextlib.AbstractContextManager[Any]:
    """A bar that appears on stderr after a second. False without a terminal or without tqdm."""
    with contextlib.suppress(ImportError, ValueError):  # ValueError: stderr is a closed file
        if sys.stderr is not None and sys.stderr.isatty():
            return ProgressBar(delay=1, leave=False, file=sys.stderr)
    return contextlib.nullcontext(False)


@contextlib.contextmanager
def _plain_warnings():
    """Prints warnings on one line, without the line of code that caused them."""

    def show(message, category, filename, lineno, file=None, line=None):
        if sys.stderr is not None:
            print(f"fastloss: warning: {escape_controls(str(message))}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
