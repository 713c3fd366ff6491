"""What the commands share: arguments, and what signatures and docstrings tell of a loss."""

import argparse
import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fastloss import losses
from fastloss._binding import Loss


class Parser(argparse.ArgumentParser):
    """Leaves wrong arguments to `main`, which prints one line."""

    def __init__(self, prog: str, **kwargs: Any):
        super().__init__(prog=prog, allow_abbrev=False, **kwargs)

    def error(self, message: str):
        raise ValueError(f"{message} (see {self.prog} --help)")


def parse(parser: Parser, argv: list[str]) -> dict[str, Any]:
    """The arguments by name; negative numbers are values, and unknown options an error."""
    joined: list[str] = []
    for word in argv:
        # argparse would take the values -1e-3 and -inf for options.
        if joined and re.fullmatch(r"--[a-z-]+", joined[-1]) and re.match(r"-(\d|\.\d|inf)", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    arguments, unknown = parser.parse_known_args(joined)
    if unknown:
        options = re.findall(r"--[a-z-]+", parser.format_usage())
        given = unknown[0].partition("=")[0]
        hint = _did_you_mean(given, options) or f"see {parser.prog} --help"
        raise ValueError(f"unknown argument {unknown[0]!r}: {hint}")
    return vars(arguments)


def number(kind: type):
    """The type of an option that holds an int or a float."""

    def convert(text: str):
        try:
            return kind(text)
        except ValueError:
            word = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {word}") from None

    return convert


def lookup(kind: str, name: str, table: Mapping[str, Any], remedy: str) -> Any:
    """An entry of the table, or an error that names the closest one."""
    if name in table:
        return table[name]
    raise ValueError(f"unknown {kind} {name!r}: {_did_you_mean(name, table) or remedy}")


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}?" if close else ""


# ---------------------------------------------------------------------------------------- losses


def all_losses() -> dict[str, Any]:
    """The losses by name."""
    found = {name: getattr(losses, name) for name in losses.__all__}
    return {name: loss for name, loss in found.items() if isinstance(loss, Loss)}


def find_loss(name: str) -> Any:
    """The loss of that name."""
    table = all_losses()
    return lookup("loss", name, table, f"fastloss list names all {len(table)}")


def split_loss(argv: list[str], parser: Parser) -> tuple[str, list[str]]:
    """The word that names losses, which may stand behind options, and the other arguments.

    Without one, the parser prints its help or says what is missing.
    """
    table, place = set(all_losses()), 0
    if argv and argv[0].startswith("-"):
        place = next((i for i, word in enumerate(argv) if table.issuperset(word.split(","))), 0)
    if argv and not argv[place].startswith("-"):
        return argv[place], argv[:place] + argv[place + 1 :]
    parser.add_argument("loss", metavar="LOSS", help="its name; fastloss list has them all")
    return parser.parse_args(argv[:1]).loss, argv[1:]  # -1 is a word to argparse


def docstring(loss: Any) -> str:
    """Without indentation."""
    return inspect.cleandoc(loss.__doc__ or "")


def summary(loss: Any) -> str:
    """The first line of the docstring."""
    return docstring(loss).partition("\n")[0]


def parameter_texts(loss: Any) -> dict[str, str]:
    """The text of each entry under "Parameters" of a numpydoc docstring, for argparse."""
    section = re.search(
        r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}$|\Z)", docstring(loss), re.M | re.S
    )
    texts = {}
    for entry in re.finditer(
        r"^(\S[^\n]*)\n((?:[ \t][^\n]*\n?|\n)*)", section[1] if section else "", re.M
    ):
        text = " ".join(entry[2].split()).replace("``", "").replace("%", "%%")
        for name in entry[1].partition(":")[0].split(","):
            texts[name.strip()] = text
    return texts


def options_of(loss: Any) -> dict[str, Any]:
    """The defaults of the options that a command may give to a loss, by name."""
    return {
        name: parameter.default
        for name, parameter in loss.__signature__.parameters.items()
        if name not in (*loss.operands, "reduction", "out")
    }


def add_options(parser: Parser, chosen: Mapping[str, Any], *left_out: str) -> None:
    """An option for each that one of the losses has; what is not given is left to its default."""
    group = parser.add_argument_group(f"options of {' and '.join(chosen)}")
    added = set(left_out)
    for loss in chosen.values():
        texts = parameter_texts(loss)
        for name, default in options_of(loss).items():
            if name not in added:
                group.add_argument(
                    "--" + name.replace("_", "-"),
                    help=texts.get(name),
                    default=argparse.SUPPRESS,
                    **_kind_of_option(default),
                )
            added.add(name)


def _kind_of_option(default: Any) -> dict[str, Any]:
    """How an option is given, by its default: None stands for an array."""
    if default is None:
        return {"metavar": "FILE"}
    if isinstance(default, bool):
        return {"action": argparse.BooleanOptionalAction}
    return {"type": number(type(default)), "metavar": f"{default}"}
