"""`fastloss completion`: a script that completes commands, losses, options and files in a shell."""

from argparse import ArgumentParser
from typing import Any

from fastloss import __version__
from fastloss.cli.parsing import Parser, all_losses, parse

SHELLS = ("bash", "zsh", "fish", "tcsh")

_EPILOG = (
    'For one session of bash: eval "$(fastloss completion bash)". Permanently: write the script to '
    "~/.local/share/bash-completion/completions/fastloss for bash, to _fastloss in a folder of "
    "$fpath for zsh, and to ~/.config/fish/completions/fastloss.fish for fish. Scripts do not run "
    "Python; write them again after an update of fastloss."
)


def completion_parser() -> Parser:
    parser = Parser(
        "fastloss completion",
        description="Prints a script that completes commands, names of losses, options and files "
        "in a shell. It needs shtab, which is in the extra fastloss[cli].",
        epilog=_EPILOG,
    )
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=" or ".join(SHELLS))
    return parser


def run_completion(argv: list[str]) -> None:
    """Print the script for a shell."""
    shell = parse(completion_parser(), argv)["shell"]
    try:
        import shtab
    except ImportError as error:
        raise ImportError("completion needs shtab: pip install 'fastloss[cli]'") from error
    print(shtab.complete(_parser(shtab.FILE), shell))


def _parser(file: Any) -> ArgumentParser:
    """One parser of all commands, in which arguments of files have the completion `file`."""
    from fastloss.cli import COMMANDS
    from fastloss.cli.catalogue import list_parser, show_parser
    from fastloss.cli.evaluate import evaluate_parser
    from fastloss.cli.info import info_parser
    from fastloss.cli.plot import plot_parser

    losses = all_losses()
    root = ArgumentParser("fastloss")
    root.add_argument("-V", "--version", action="version", version=__version__)
    commands = root.add_subparsers()

    def add(subparsers: Any, name: str, parser: ArgumentParser, text: str) -> None:
        for action in parser._actions:
            if action.metavar == "FILE" or action.dest in operands:
                action.complete = file  # type: ignore[attr-defined]
        subparsers.add_parser(name, parents=[parser], add_help=False, help=text)

    operands = {operand for loss in losses.values() for operand in loss.operands}
    for name, parser_of in (
        ("evaluate", lambda name, loss: evaluate_parser({name: loss})),
        ("plot", plot_parser),
    ):
        subparsers = commands.add_parser(name, help=COMMANDS[name][1]).add_subparsers()
        for loss_name, loss in losses.items():
            add(subparsers, loss_name, parser_of(loss_name, loss), loss_name)
    show = show_parser()
    for action in show._actions:
        if action.dest == "loss":
            action.choices = list(losses)
    parsers = {"list": list_parser(), "show": show, "info": info_parser()}
    for name, parser in {**parsers, "completion": completion_parser()}.items():
        add(commands, name, parser, COMMANDS[name][1])
    return root
