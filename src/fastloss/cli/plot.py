"""`fastloss plot`: a plot of a loss and its derivative."""

import os
from contextlib import closing
from typing import Any

from fastloss.cli.parsing import (
    Parser,
    add_options,
    find_loss,
    options_of,
    parse,
    split_loss,
    summary,
)
from fastloss.evaluation.sources import open_source


def plot_overview() -> Parser:
    """The parser of the command without a loss."""
    return Parser(
        "fastloss plot",
        usage="fastloss plot LOSS -o FILE [options of the loss]",
        description="Plots a loss and its derivative.",
        epilog="fastloss plot LOSS --help lists the options of a loss.",
    )


def run_plot(argv: list[str]) -> None:
    """Write the plot to a file."""
    name, words = split_loss(argv, plot_overview())
    loss = find_loss(name)
    arguments = parse(plot_parser(name, loss), words)
    path = arguments.pop("output")
    for option, value in arguments.items():
        if options_of(loss)[option] is None:
            arguments[option] = _read_array(value)
    from fastloss.plotting import plot

    _save(plot(loss, **arguments), path)


def plot_parser(name: str, loss: Any) -> Parser:
    parser = Parser(f"fastloss plot {name}", description=summary(loss).replace("%", "%%"))
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        help="file of the plot, whose extension selects the format: .png, .svg, .pdf, or another "
        "that matplotlib supports",
    )
    add_options(parser, {name: loss}, "sample_weight")
    return parser


def _read_array(path: str) -> Any:
    with closing(open_source(path)) as source:
        return source.read_all()


def _save(figure: Any, path: str) -> None:
    """Save in the format of the extension; matplotlib would append one if it is missing."""
    supported = figure.canvas.get_supported_filetypes()
    extension = os.path.splitext(path)[1][1:].lower()
    if extension not in supported:
        extensions = ", ".join(f".{name}" for name in sorted(supported))
        raise ValueError(f"{path} must have an extension that matplotlib supports: {extensions}")
    figure.savefig(path, format=extension)
