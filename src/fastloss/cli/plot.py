"""`fastloss plot`: a picture of a loss and its derivative."""

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


def run_plot(argv: list[str]) -> None:
    """Writes the file."""
    overview = Parser(
        "fastloss plot",
        usage="fastloss plot LOSS -o FILE [options of the loss]",
        description="Draws a loss and its derivative into a file.",
        epilog="fastloss plot LOSS --help lists the options of a loss.",
    )
    name, rest = split_loss(argv, overview)
    loss = find_loss(name)
    arguments = parse(_parser(name, loss), rest)
    path = arguments.pop("output")
    for option, value in arguments.items():
        if options_of(loss)[option] is None:
            arguments[option] = _array(value)
    from fastloss.plotting import plot

    _save(plot(loss, **arguments), path)


def _parser(name: str, loss: Any) -> Parser:
    parser = Parser(f"fastloss plot {name}", description=summary(loss).replace("%", "%%"))
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        required=True,
        help="the picture; its ending says what kind: .png, .svg, .pdf, or what else matplotlib "
        "writes",
    )
    add_options(parser, {name: loss}, "sample_weight")
    return parser


def _array(path: str) -> Any:
    with closing(open_source(path)) as source:
        return source.read_all()


def _save(figure: Any, path: str) -> None:
    """In the format that the ending names; matplotlib would add one where there is none."""
    known = figure.canvas.get_supported_filetypes()
    ending = os.path.splitext(path)[1][1:].lower()
    if ending not in known:
        endings = ", ".join(f".{name}" for name in sorted(known))
        raise ValueError(f"{path} must end in a kind of picture that matplotlib writes: {endings}")
    figure.savefig(path, format=ending)
