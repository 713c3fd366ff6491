"""The command line: a module for each command, and `fastloss.cli.parsing` for what they share.

Nothing here computes a loss: options come from its signature, texts from its docstring, figures
from `fastloss.evaluate`. A command is imported, and its parser built, when it runs.
"""

import argparse
import os
import sys
from collections.abc import Callable
from importlib import import_module

from fastloss import __version__
from fastloss.cli.parsing import Parser, lookup

# The module of each command, and what it does.
COMMANDS = {
    "evaluate": ("evaluate", "one loss or several over files"),
    "list": ("catalogue", "name every loss"),
    "show": ("catalogue", "the formula, shapes and options of a loss"),
    "plot": ("plot", "draw a loss and its derivative into a file"),
    "info": ("info", "versions, instruction set and threads, for reports of bugs"),
}

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
        if sys.stdout is not None:  # as it is where the caller has closed it
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has left, as `head` does; what is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt as interrupt:
        print(": ".join(["fastloss: interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        return INTERRUPTED
    except (OSError, ValueError, TypeError, MemoryError, ImportError) as error:
        print(f"fastloss: error: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"out of memory: {error}"
    return " ".join(str(error).split())


def _parse_command(argv: list[str]) -> tuple[Callable[[list[str]], None], list[str]]:
    lines = (f"  {name:10}{what}" for name, (_, what) in COMMANDS.items())
    parser = Parser(
        "fastloss",
        description="Loss functions on the CPU.",
        epilog="commands:\n" + "\n".join(lines) + "\n\nfastloss COMMAND --help says more about it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", help="one of those below")
    parser.add_argument("--version", action="version", version=__version__)
    name = parser.parse_args(argv[:1]).command
    module, _ = lookup("command", name, COMMANDS, ", ".join(COMMANDS))
    return getattr(import_module(f"fastloss.cli.{module}"), f"run_{name}"), argv[1:]
