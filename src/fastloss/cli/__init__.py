"""The command line: a module for each command, and `fastloss.cli.parsing` for all of them.

No loss is computed here: options come from the signature of a loss, help texts from its docstring,
and figures from `fastloss.evaluate`. A command is imported and its parser built only when it runs.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TextIO

from fastloss import __version__
from fastloss.cli.parsing import Parser, escape_controls, lookup

# For each command, its module and its description.
COMMANDS = {
    "evaluate": ("evaluate", "evaluate one or several losses over files"),
    "list": ("catalogue", "list all losses"),
    "show": ("catalogue", "show the formula, shapes and options of a loss"),
    "plot": ("plot", "plot a loss and its derivative"),
    "info": ("info", "versions, instruction set and threads, for bug reports"),
}

# 128 + the number of the signal, as a shell reports it.
INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    _occupy_standard_descriptors()
    if hasattr(sys.stdout, "reconfigure"):  # not every terminal has the characters of the formulas
        sys.stdout.reconfigure(errors="replace")
    try:
        command, arguments = _parse_command(argv)
        command(arguments)
        if sys.stdout is not None:  # None if the caller has closed it
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe, as `head` does. Flushing the buffer at exit must not fail.
        _discard(sys.stdout)
        return BROKEN_PIPE
    except KeyboardInterrupt as interrupt:
        _complain(": ".join(["interrupted", *map(str, interrupt.args)]))
        return INTERRUPTED
    except (OSError, ValueError, TypeError, MemoryError, ImportError) as error:
        _complain(f"error: {_one_line(error)}")
        return 2
    return 0


def _occupy_standard_descriptors() -> None:
    """Opens the null device in place of standard streams that the caller has closed.

    Otherwise the next file that is opened, perhaps the file of the losses, would have the number
    to which libraries write their messages.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def _complain(message: str) -> None:
    """Prints a message on stderr, if there is one that can be written to."""
    if sys.stderr is not None:  # else print() would write to stdout
        with contextlib.suppress(ValueError):  # a closed file
            try:
                print(f"fastloss: {escape_controls(message)}", file=sys.stderr, flush=True)
            except OSError:
                _discard(sys.stderr)
    if sys.stdout is not None:
        with contextlib.suppress(ValueError):
            try:
                sys.stdout.flush()
            except OSError:
                _discard(sys.stdout)


def _discard(stream: TextIO) -> None:
    """Directs a stream to the null device: Python flushes it at exit, which must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"out of memory: {error}"
    return " ".join(str(error).split())


def _parse_command(argv: list[str]) -> tuple[Callable[[list[str]], None], list[str]]:
    """Return the function of the command, and the arguments for it."""
    lines = (f"  {name:10}{description}" for name, (_, description) in COMMANDS.items())
    parser = Parser(
        "fastloss",
        description="Loss functions on CPUs.",
        epilog="commands:\n" + "\n".join(lines) + "\n\nfastloss COMMAND --help has its options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", help="one of the commands below")
    parser.add_argument("--version", action="version", version=__version__)
    name = parser.parse_args(argv[:1]).command
    module, _ = lookup("command", name, COMMANDS, ", ".join(COMMANDS))
    return getattr(import_module(f"fastloss.cli.{module}"), f"run_{name}"), argv[1:]
