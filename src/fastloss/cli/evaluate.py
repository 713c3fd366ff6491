"""`fastloss evaluate`: losses over files of any size."""

import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Any

from fastloss.cli.parsing import (
    Parser,
    add_options,
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

PERPLEXITY_OF = ("cross_entropy", "nll_loss")

_FILES = (
    "A file is a .npy, or a .npz, HDF5 file, Zarr folder, Parquet or Arrow file with the name of "
    "the array or column behind a colon: x.npz:name, x.h5:group/name, x.zarr:name, "
    "x.parquet:column, x.arrow:column. The name may be left out where there is one only. Rows "
    "(the leading dimension) must agree; weights may broadcast."
)


def run_evaluate(argv: list[str]) -> None:
    """Evaluates, and prints the figures."""
    overview = Parser(
        "fastloss evaluate",
        usage="fastloss evaluate LOSS[,LOSS...] INPUT TARGET [more files] [options]",
        description="Evaluates a loss over files, which may be larger than memory; or several "
        "losses that read the same arrays, in one pass.",
        epilog=f"{_FILES} fastloss evaluate LOSS --help names the files and options of a loss.",
    )
    names, rest = split_loss(argv, overview)
    chosen = _chosen(names)
    arguments = parse(_parser(chosen), rest)
    if arguments["perplexity"]:
        _check_perplexity(chosen, arguments["reduction"])
    per_sample = _files_per_sample(arguments["per_sample"], list(chosen))
    report = Report(
        evaluations=_evaluate(chosen, arguments, per_sample),
        reduction=arguments["reduction"],
        kind="class" if arguments["by"] == "class" else "group",
        per_sample=per_sample,
        perplexity=arguments["perplexity"],
    )
    print(report.json() if arguments["json"] else report.text())


def _chosen(names: str) -> dict[str, Any]:
    """The losses of a list with commas."""
    chosen: dict[str, Any] = {}
    for name in names.split(","):
        if name in chosen:
            raise ValueError(f"{name} is named twice")
        chosen[name] = find_loss(name)
    first, *others = chosen
    for name in others:
        reads = [", ".join(chosen[loss].operands) for loss in (first, name)]
        if reads[0] != reads[1]:
            raise ValueError(
                f"{first} reads {reads[0]} and {name} reads {reads[1]}: evaluate them one by one"
            )
    return chosen


def _parser(chosen: Mapping[str, Any]) -> Parser:
    first = next(iter(chosen.values()))
    description = summary(first) if len(chosen) == 1 else "Several losses in one pass."
    parser = Parser(
        f"fastloss evaluate {','.join(chosen)}",
        description=description.replace("%", "%%"),
        epilog=_FILES,
    )
    texts = parameter_texts(first)
    for name in first.operands:
        parser.add_argument(name, metavar=name.upper(), help=texts.get(name))
    add_options(parser, chosen)

    add = parser.add_argument_group("evaluation").add_argument
    add(
        "--reduction",
        metavar="NAME",
        default="mean",
        help="mean (the default), sum, or batchmean where the loss has it",
    )
    add(
        "--by",
        metavar="class|FILE",
        help="totals of each class that the targets name, or of each group of a file of labels, "
        "one for each row or for each loss",
    )
    add(
        "--perplexity",
        action="store_true",
        help=f"exp of the mean, of {' and '.join(PERPLEXITY_OF)}",
    )
    add(
        "--per-sample",
        metavar="FILE",
        help=".npy file for the unreduced losses; of several, the name of each stands before the "
        "ending",
    )
    add(
        "--state",
        metavar="FILE",
        help="keeps what is done so far: after an interrupt or a crash the same command goes on "
        "from there; removed at the end",
    )
    add("--chunk-rows", type=number(int), metavar="N", help="rows to read at once")
    add("--threads", type=number(int), metavar="N", help="threads that compute")
    add(
        "--json",
        action="store_true",
        help="print one JSON object, or an array of one for each of several losses; numbers that "
        'JSON lacks are "NaN", "Infinity", "-Infinity"',
    )
    return parser


def _check_perplexity(chosen: Mapping[str, Any], reduction: str) -> None:
    for name in chosen:
        if name not in PERPLEXITY_OF:
            raise ValueError(f"--perplexity is of {' and '.join(PERPLEXITY_OF)}, not of {name}")
    if reduction != "mean":
        raise ValueError(f"--perplexity is the exponential of a mean: --reduction is {reduction}")


def _files_per_sample(path: str | None, names: list[str]) -> dict[str, str]:
    if path is None:
        return {}
    if len(names) == 1:
        return {names[0]: path}
    start, ending = os.path.splitext(path)
    return {name: f"{start}.{name}{ending}" for name in names}


def _evaluate(
    chosen: Mapping[str, Any], arguments: Mapping[str, Any], per_sample: dict[str, str]
) -> dict[str, Evaluation]:
    criteria = {}
    for name, loss in chosen.items():
        given = arguments.keys() & options_of(loss).keys() - {"sample_weight"}
        own = {option: arguments[option] for option in given}
        kind: Any = criterion_of(loss)
        criteria[name] = kind(reduction=arguments["reduction"], **own)
    operands = next(iter(chosen.values())).operands
    state = arguments["state"]
    try:
        with _progress_bar() as progress:
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
            )
    except KeyboardInterrupt:
        if state is None or not os.path.exists(state):
            raise
        raise KeyboardInterrupt(f"the same command goes on from {state}") from None


def _progress_bar() -> contextlib.AbstractContextManager[Any]:
    """A bar on stderr that appears after a second; False unless that is a terminal with tqdm."""
    if sys.stderr.isatty():
        with contextlib.suppress(ImportError):
            return ProgressBar(delay=1, leave=False, file=sys.stderr)
    return contextlib.nullcontext(False)
