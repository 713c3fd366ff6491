"""`fastloss list` and `fastloss show`: the losses and their documentation."""

from fastloss.cli.parsing import Parser, all_losses, docstring, find_loss, summary


def run_list(argv: list[str]) -> None:
    """Prints a line for each loss."""
    Parser("fastloss list", description="Names every loss.").parse_args(argv)
    table = all_losses()
    width = max(map(len, table))
    for name, loss in table.items():
        print(f"{name:{width}}  {summary(loss)}")


def run_show(argv: list[str]) -> None:
    """Prints signature and docstring of a loss."""
    parser = Parser("fastloss show", description="The formula, shapes and options of a loss.")
    parser.add_argument("loss", metavar="LOSS", help="its name; fastloss list has them all")
    name = parser.parse_args(argv).loss
    loss = find_loss(name)
    print(f"{name}{loss.__signature__}\n")
    print(docstring(loss).partition("\n\nReturns\n")[0])  # the rest is for callers from Python
    files = " ".join(operand.upper() for operand in loss.operands)
    print(f"\nOver files: fastloss evaluate {name} {files} (--help lists the options)")
