"""Arguments of all commands, and losses by name with their signatures and docstrings."""

import argparse
import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fastloss import losses
from fastloss._binding import Loss


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are exceptions, which `main` prints on one line."""

    def __init__(self, prog: str, **kwargs: Any):
        super().__init__(prog=prog, allow_abbrev=False, **kwargs)

    def error(self, message: str):
        raise ValueError(f"{message} (see {self.prog} --help)")


def parse(parser: Parser, argv: list[str]) -> dict[str, Any]:
    """Return the arguments by name. Negative numbers are values; unknown options are errors."""
    joined: list[str] = []
    for word in argv:
        # argparse would interpret the values -1e-3 and -inf as options.
        if joined and re.fullmatch(r"--[a-z-]+", joined[-1]) and re.match(r"-(\d|\.\d|inf)", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    arguments, unknown = parser.parse_known_args(joined)
    if unknown:
        options = re.findall(r"--[a-z-]+", parser.format_usage())
        option = unknown[0].partition("=")[0]
        hint = _did_you_mean(option, options) or f"see {parser.prog} --help"
        raise ValueError(f"unknown argument {unknown[0]!r}: {hint}")
    return vars(arguments)


def number(number_type: type):
    """The argparse type of an option that is an int or a float."""

    def convert(text: str):
        try:
            return number_type(text)
        except ValueError:
            noun = "an integer" if number_type is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {noun}") from None

    return convert


def lookup(noun: str, name: str, entries: Mapping[str, Any], remedy: str) -> Any:
    """Return the entry of this name, or raise an error that suggests the closest name."""
    if name in entries:
        return entries[name]
    raise ValueError(f"unknown {noun} {name!r}: {_did_you_mean(name, entries) or remedy}")


def escape_controls(text: str) -> str:
    """The text with escapes for control characters, which names of files may contain."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: repr(match[0])[1:-1], text)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {matches[0]}?" if matches else ""


# ---------------------------------------------------------------------------------------- losses


def all_losses() -> dict[str, Any]:
    """The losses by name."""
    public = {name: getattr(losses, name) for name in losses.__all__}
    return {name: value for name, value in public.items() if isinstance(value, Loss)}


def find_loss(name: str) -> Any:
    """The loss of this name."""
    by_name = all_losses()
    return lookup("loss", name, by_name, f"fastloss list names all {len(by_name)}")


def split_loss(argv: list[str], parser: Parser) -> tuple[str, list[str]]:
    """Return the argument that names losses, which may follow options, and the other arguments.

    Without such an argument, the parser prints its help or raises an error.
    """
    names, position = set(all_losses()), 0
    if argv and argv[0].startswith("-"):
        position = next((i for i, word in enumerate(argv) if names.issuperset(word.split(","))), 0)
    if argv and not argv[position].startswith("-"):
        return argv[position], argv[:position] + argv[position + 1 :]
    parser.add_argument("loss", metavar="LOSS", help="name of a loss; fastloss list has them all")
    return parser.parse_args(argv[:1]).loss, argv[
        1:
    ]  # argparse accepts -1 as a positional argument


def docstring(loss: Any) -> str:
    """The docstring without indentation."""
    return inspect.cleandoc(loss.__doc__ or "")


def summary(loss: Any) -> str:
    """The first line of the docstring."""
    return docstring(loss).partition("\n")[0]


def parameter_texts(loss: Any) -> dict[str, str]:
    """The texts of the section "Parameters" of a numpydoc docstring by name, as argparse's help."""
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
    """The options of a loss that commands accept, with their defaults."""
    return {
        name: parameter.default
        for name, parameter in loss.__signature__.parameters.items()
        if name not in (*loss.operands, "reduction", "out")
    }


def add_options(parser: Parser, by_name: Mapping[str, Any], *excluded: str) -> None:
    """Add the options of all these losses; options that are not passed have the loss's default."""
    group = parser.add_argument_group(f"options of {' and '.join(by_name)}")
    added = set(excluded)
    for loss in by_name.values():
        texts = parameter_texts(loss)
        for name, default in options_of(loss).items():
            if name not in added:
                group.add_argument(
                    "--" + name.replace("_", "-"),
                    help=texts.get(name),
                    default=argparse.SUPPRESS,
                    **_argument_settings(default),
                )
            added.add(name)


def _argument_settings(default: Any) -> dict[str, Any]:
    """The settings of an option for argparse. Options with the default None are arrays."""
    if default is None:
        return {"metavar": "FILE"}
    if isinstance(default, bool):
        return {"action": argparse.BooleanOptionalAction}
    return {"type": number(type(default)), "metavar": f"{default}"}
