"""The command line: `fastloss evaluate`, `fastloss list`, `fastloss show`.

Nothing here knows a loss: the options come from its signature, the texts from its docstring.
A parser is built when its command runs, for the one loss that it names.
"""

import argparse
import difflib
import inspect
import json
import math
import os
import re
import sys
from typing import Any

from fastloss import __version__, losses
from fastloss._binding import Loss
from fastloss.evaluation import Evaluation, criterion_of, evaluate

_OF_EVALUATE = ("sample_weight", "per_sample", "chunk_rows", "threads")

# 128 + the signal, as a shell reports it
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if hasattr(sys.stdout, "reconfigure"):  # formulas hold letters that not every terminal has
        sys.stdout.reconfigure(errors="replace")
    try:
        command, rest = _parse_command(argv)
        command(rest)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has left, as `head` does; what is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print("fastloss: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (OSError, ValueError, TypeError, MemoryError) as error:
        print(f"fastloss: error: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"out of memory: {error}"
    return " ".join(str(error).split())


class _Parser(argparse.ArgumentParser):
    """Leaves wrong arguments to `main`, which prints one line."""

    def __init__(self, prog: str, **kwargs: Any):
        super().__init__(prog=prog, allow_abbrev=False, **kwargs)

    def error(self, message: str):
        raise ValueError(f"{message} (see {self.prog} --help)")


def _parse_command(argv):
    commands = {"evaluate": _evaluate, "list": _list, "show": _show}
    parser = _Parser(
        "fastloss",
        description="Loss functions on the CPU.",
        epilog="fastloss COMMAND --help says more about a command.",
    )
    parser.add_argument(
        "command",
        metavar="COMMAND",
        help="evaluate (a loss over files), list (the losses) or show (one loss)",
    )
    parser.add_argument("--version", action="version", version=__version__)
    return _lookup("command", parser.parse_args(argv[:1]).command, commands), argv[1:]


# ---------------------------------------------------------------------------------------- losses


def _losses() -> dict[str, Any]:
    found = {name: getattr(losses, name) for name in losses.__all__}
    return {name: loss for name, loss in found.items() if isinstance(loss, Loss)}


def _lookup(kind: str, name: str, table: dict[str, Any]) -> Any:
    if name in table:
        return table[name]
    known = ", ".join(table) if len(table) < 5 else f"fastloss list names all {len(table)}"
    raise ValueError(f"unknown {kind} {name!r}: {_did_you_mean(name, table) or known}")


def _did_you_mean(name: str, known) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else ""


def _docstring(loss: Any) -> str:
    return inspect.cleandoc(loss.__doc__ or "")


def _parameter_texts(loss: Any) -> dict[str, str]:
    """The text of each entry under "Parameters" of a numpydoc docstring."""
    section = re.search(
        r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}$|\Z)", _docstring(loss), re.M | re.S
    )
    texts = {}
    for entry in re.finditer(
        r"^(\S[^\n]*)\n((?:[ \t][^\n]*\n?|\n)*)", section[1] if section else "", re.M
    ):
        text = " ".join(entry[2].split()).replace("``", "").replace("%", "%%")
        for name in entry[1].partition(":")[0].split(","):
            texts[name.strip()] = text
    return texts


def _list(argv: list[str]) -> None:
    _Parser("fastloss list", description="Names every loss.").parse_args(argv)
    table = _losses()
    width = max(map(len, table))
    for name, loss in table.items():
        print(f"{name:{width}}  {_docstring(loss).partition(chr(10))[0]}")


def _show(argv: list[str]) -> None:
    parser = _Parser("fastloss show", description="The formula, shapes and options of a loss.")
    parser.add_argument("loss", metavar="LOSS", help="its name; fastloss list has them all")
    name = parser.parse_args(argv).loss
    loss = _lookup("loss", name, _losses())
    print(f"{name}{loss.__signature__}\n")
    print(_docstring(loss).partition("\n\nReturns\n")[0])  # the rest is for callers from Python
    files = " ".join(operand.upper() for operand in loss.operands)
    print(f"\nOver files: fastloss evaluate {name} {files} (--help lists the options)")


# -------------------------------------------------------------------------------------- evaluate


def _evaluate(argv: list[str]) -> None:
    table = _losses()
    name, rest = _split_loss(argv, table)
    loss = _lookup("loss", name, table)
    arguments = vars(_parse_evaluate(_loss_parser(loss), rest))
    paths = [arguments.pop(operand) for operand in loss.operands]
    as_json = arguments.pop("json")
    with _Progress() as progress:
        given = {name: arguments.pop(name) for name in _OF_EVALUATE if name in arguments}
        evaluation = evaluate(criterion_of(loss)(**arguments), *paths, progress=progress, **given)
    report = _json if as_json else _table
    print(report(name, arguments["reduction"], given["per_sample"], evaluation))


def _split_loss(argv: list[str], table: dict[str, Any]) -> tuple[str, list[str]]:
    """The loss, which may stand behind options, and the other arguments."""
    place = 0
    if argv and argv[0].startswith("-"):
        place = next((i for i, word in enumerate(argv) if word in table), 0)
    if argv and not argv[place].startswith("-"):
        return argv[place], argv[:place] + argv[place + 1 :]
    parser = _Parser(
        "fastloss evaluate",
        usage="fastloss evaluate LOSS INPUT TARGET [more files] [options]",
        description="Evaluates a loss over .npy and .npz files, which may be larger than memory.",
        epilog="fastloss evaluate LOSS --help names the files and options of a loss.",
    )
    parser.add_argument("loss", metavar="LOSS", help="its name; fastloss list has them all")
    parser.parse_args(argv[:1])  # prints the help, or says that the loss is missing
    raise AssertionError("unreachable")


def _loss_parser(loss: Any) -> _Parser:
    parser = _Parser(
        f"fastloss evaluate {loss.__name__}",
        description=_docstring(loss).partition("\n")[0].replace("%", "%%"),
        epilog="A file is a .npy, a .npz with one array, or file.npz:NAME. Rows (the leading "
        "dimension) must agree; weights may broadcast.",
    )
    texts = _parameter_texts(loss)
    for name in loss.operands:
        parser.add_argument(name, metavar=name.upper(), help=texts.get(name))

    own = parser.add_argument_group(f"options of {loss.__name__}")
    for name, parameter in loss.__signature__.parameters.items():
        if name not in (*loss.operands, "reduction", "out"):
            own.add_argument(
                "--" + name.replace("_", "-"),
                help=texts.get(name),
                default=argparse.SUPPRESS,
                **_kind_of_option(parameter.default),
            )

    common = parser.add_argument_group("evaluation")
    common.add_argument(
        "--reduction",
        metavar="NAME",
        default="mean",
        help="mean (the default), sum, or batchmean where the loss has it",
    )
    common.add_argument("--per-sample", metavar="FILE", help=".npy file for the unreduced losses")
    common.add_argument("--chunk-rows", type=_number(int), metavar="N", help="rows to read at once")
    common.add_argument("--threads", type=_number(int), metavar="N", help="threads that compute")
    common.add_argument(
        "--json",
        action="store_true",
        help='print one JSON object; numbers that JSON lacks are "NaN", "Infinity", "-Infinity"',
    )
    return parser


def _kind_of_option(default: Any) -> dict[str, Any]:
    """How an option is given, by its default: None stands for an array."""
    if default is None:
        return {"metavar": "FILE"}
    if isinstance(default, bool):
        return {"action": argparse.BooleanOptionalAction}
    return {"type": _number(type(default)), "metavar": f"{default}"}


def _number(kind: type):
    def convert(text: str):
        try:
            return kind(text)
        except ValueError:
            word = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {word}") from None

    return convert


def _parse_evaluate(parser: _Parser, argv: list[str]) -> argparse.Namespace:
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
        hint = _did_you_mean(unknown[0], options) or f"see {parser.prog} --help"
        raise ValueError(f"unknown argument {unknown[0]!r}: {hint}")
    return arguments


class _Progress:
    """A bar on stderr, if that is a terminal, tqdm is installed and a second has passed."""

    def __init__(self):
        self._bar = None

    def __enter__(self):
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm  # type: ignore[import-untyped]
            except ImportError:
                return False
            self._bar = tqdm(
                unit="B", unit_scale=True, delay=1, leave=False, desc="fastloss", file=sys.stderr
            )
            return self._show
        return False

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()

    def _show(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)


def _table(name: str, reduction: str, per_sample: str | None, evaluation: Evaluation) -> str:
    seconds = max(evaluation.seconds, 1e-9)
    lines = {
        "loss": name,
        "reduction": reduction,
        "value": repr(evaluation.value),
        "rows": f"{evaluation.rows:,}",
        "time": f"{evaluation.seconds:.3g} s",
        "throughput": f"{evaluation.bytes / seconds / 1e6:,.0f} MB/s, "
        f"{evaluation.rows / seconds:,.0f} rows/s",
        "threads": str(evaluation.threads),
        "instructions": evaluation.isa,
    }
    if per_sample is not None:
        lines["per sample"] = per_sample
    return "\n".join(f"{key:12}  {value}" for key, value in lines.items())


def _json(name: str, reduction: str, per_sample: str | None, evaluation: Evaluation) -> str:
    report = {"loss": name, "reduction": reduction, **evaluation.to_dict()}
    if per_sample is not None:
        report["per_sample"] = per_sample
    return json.dumps({key: _json_number(value) for key, value in report.items()}, allow_nan=False)


def _json_number(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
