"""`fastloss list` and `fastloss show`: the losses and their documentation."""

from fastloss.cli.parsing import Parser, all_losses, docstring, find_loss, parse, summary


def list_parser() -> Parser:
    return Parser("fastloss list", description="Lists all losses.")


def run_list(argv: list[str]) -> None:
    """Print the name and the summary of each loss."""
    parse(list_parser(), argv)
    losses = all_losses()
    width = max(map(len, losses))
    for name, loss in losses.items():
        print(f"{name:{width}}  {summary(loss)}")


def show_parser() -> Parser:
    parser = Parser("fastloss show", description="Shows the formula, shapes and options of a loss.")
    parser.add_argument("loss", metavar="LOSS", help="name of a loss; fastloss list has them all")
    return parser


def run_show(argv: list[str]) -> None:
    """Print the signature and docstring of a loss."""
    name = parse(show_parser(), argv)["loss"]
    loss = find_loss(name)
    print(f"{name}{loss.__signature__}\n")
    # The sections from "Returns" on concern calls from Python.
    print(docstring(loss).partition("\n\nReturns\n")[0])
    files = " ".join(operand.upper() for operand in loss.operands)
    print(f"\nOver files: fastloss evaluate {name} {files} (--help lists the options)")
