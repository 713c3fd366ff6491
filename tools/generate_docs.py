"""Writes the generated parts of README.md and docs/, between comments that name this command.

    python -m tools.generate_docs

The table of losses comes from the docstrings and the criteria, the losses that PyTorch does not
have from the references of the tests, and the tables of errors from docs/measured_errors.json,
which `python -m tests.ulp --size 300 --json docs/measured_errors.json` writes.
"""

import itertools
import json
import re
import textwrap
from pathlib import Path

import fastloss as fl
from fastloss import cli
from fastloss._binding import Loss
from fastloss.cli import catalogue, completion, evaluate, info, parsing, plot
from fastloss.evaluation.criterion_set import criterion_of
from tests.references import REFERENCES

ROOT = Path(__file__).resolve().parent.parent
ERRORS = ROOT / "docs" / "measured_errors.json"
WIDTH = 100
LOSSES = {
    name: getattr(fl, name) for name in fl.losses.__all__ if isinstance(getattr(fl, name), Loss)
}

TORCH = "torch.nn.functional"


def table(heads, rows):
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


# ---- the table of losses


def split_top_level(text):
    """Splits at commas and "and", but not inside parentheses."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(r"[(\[{]|[)\]}]|, (?:and )?|\s+and ", text):
        token = match[0]
        depth += (token in "([{") - (token in ")]}")
        if depth == 0 and token.strip(" ,") in ("", "and"):
            parts.append(text[start : match.start()])
            start = match.end()
    return [*parts, text[start:]]


def formula(docstring):
    """The formulas of a docstring for the loss itself: the lines "l = ..." and the definitions.

    Definitions are in the sentence before the formulas, as in "and d = x - y", or next to them.
    Derivatives, and functions such as "sigma(x) = ...", are left out.
    """
    before, _, after = docstring.partition("::\n\n")
    lines = list(itertools.takewhile(lambda line: not line or line[0] == " ", after.splitlines()))
    sentence = " ".join(before.rpartition("\n\n")[2].split())
    formulas, definitions = [], []
    for part in split_top_level(sentence):
        if match := re.search(r"(?:^|\s)(\w+(?:\[[^]]*\])? = .+)$", part):
            definitions.append(match[1])
    for line in lines:
        pieces = [piece.strip(" ,;") for piece in re.split(r"\s{2,}", line.strip())]
        condition = next(
            (p for p in pieces if re.match(r"(where|with|without|elsewhere)\b", p)), ""
        )
        for piece in pieces:
            left = piece.partition(" = ")[0]
            if piece.startswith("l = "):
                text = f"`{piece.removeprefix('l = ')}`"
                formulas.append(f"{text} {condition_text(condition)}".strip())
            elif " = " in piece and piece != condition and not re.search(r"[/':]", left):
                definitions.append(piece)
    if not formulas:
        raise ValueError('the docstring needs a formula "l = ..." after a "::"')
    return "; ".join([*formulas, *(f"`{text}`" for text in definitions)])


def condition_text(condition):
    word, _, rest = condition.partition(" ")
    return f"{word} `{rest}`" if word in ("where", "with") and rest else condition


def losses_table():
    yield from table(
        ["loss", "criterion", "formula, with x the input and y the target"],
        (
            [f"`{name}`", f"`{criterion_of(loss).__name__}`", formula(loss.__doc__)]
            for name, loss in LOSSES.items()
        ),
    )


def summaries_table():
    yield from table(
        ["loss", "criterion", ""],
        (
            [f"`{name}`", f"`{criterion_of(loss).__name__}`", parsing.summary(loss)]
            for name, loss in LOSSES.items()
        ),
    )


# ---- the command line


def command_sections():
    """A section for each command: usage, description, and tables of arguments and options."""
    one = {"huber_loss": fl.huber_loss}  # whose own options are left out below
    parsers = {
        "evaluate": (evaluate.evaluate_overview(), evaluate.evaluate_parser(one)),
        "list": (catalogue.list_parser(),) * 2,
        "show": (catalogue.show_parser(),) * 2,
        "plot": (plot.plot_overview(), plot.plot_parser("huber_loss", fl.huber_loss)),
        "info": (info.info_parser(),) * 2,
        "completion": (completion.completion_parser(),) * 2,
    }
    if list(parsers) != list(cli.COMMANDS):
        raise ValueError(f"the commands are {', '.join(cli.COMMANDS)}")
    for name, (overview, parser) in parsers.items():
        own = [action.dest for action in parser._actions if action.dest in _own_names(name)]
        rows = [row for action in parser._actions if (row := _row(action, own))]
        usage = overview.usage or " ".join(
            [f"fastloss {name}", *(f"{a.metavar}" for a in parser._actions if not a.option_strings)]
        )
        yield from (f"## fastloss {name}", "", f"    {usage}", "")
        text = f"{overview.description} {overview.epilog or ''}".replace("~", "\\~")
        text = re.sub(r"fastloss [\w ]+ --help", r"`\g<0>`", text)  # as text, -- is a dash
        yield from (*textwrap.wrap(text, WIDTH, break_on_hyphens=False), "")
        if rows:
            yield from (*table(["argument or option", ""], rows), "")
        if name in ("evaluate", "plot"):
            yield "Options of the losses:"
            yield ""
            yield from (*table(["loss", "options, with their defaults"], _option_rows(name)), "")


def _own_names(command):
    return parsing.options_of(fl.huber_loss) if command in ("evaluate", "plot") else ()


def _row(action, own):
    if action.dest == "help" or action.dest in (*own, *fl.huber_loss.operands):
        return None
    names = ", ".join(action.option_strings) or action.metavar
    metavar = f" {action.metavar}" if action.option_strings and action.metavar else ""
    if action.option_strings and action.choices:
        metavar = f" {{{','.join(action.choices)}}}"
    return [f"`{names}{metavar}`", action.help.replace("%%", "%")]


def _option_rows(command):
    for name, loss in LOSSES.items():
        options = parsing.options_of(loss)
        if command == "plot":
            options.pop("sample_weight")
        texts = []
        for option, default in options.items():
            flag = option.replace("_", "-")
            if isinstance(default, bool):
                texts.append(f"`--{'no-' if default else ''}{flag}`")
            else:
                texts.append(f"`--{flag} {'FILE' if default is None else default}`")
        yield [f"`{name}`", ", ".join(texts) or "none"]


# ---- lists of losses


def beyond_torch():
    """The losses that are not in torch.nn.functional, and where else they are."""
    libraries = {"torchvision": "torchvision", "sklearn": "scikit-learn"}
    names = []
    for name in LOSSES:
        source = REFERENCES[name].source
        if source != TORCH:
            library = libraries.get((source or "").partition(".")[0])
            names.append(f"`{name}`" + (f" ({library})" if library else ""))
    names += [f"`{name}`" for name in fl.losses.__all__ if name not in LOSSES]
    text = f"{', '.join(names[:-1])} and {names[-1]}."
    yield from textwrap.wrap(text, WIDTH - 2, break_on_hyphens=False)


# ---- tables of errors


def errors_command():
    measured = json.loads(ERRORS.read_text(encoding="utf-8"))
    yield f"Measured on {measured['machine']}:"
    yield ""
    yield f"    {measured['command']}"
    yield ""
    yield from errors_table(measured["losses"])


def errors_table(losses):
    keys = ("float32", "float64", "bound", "torch float32", "torch float64")

    def figure(row, key):
        if key not in row:
            return "-"
        if row[key] is None:
            return "inf"
        return f"{row[key]:.2f}" if key == "bound" else f"{row[key]:.2g}"

    yield from table(
        ["loss", "fastloss float32", "float64", "of the bound", "torch float32", "float64"],
        ([f"`{name}`", *(figure(row, key) for key in keys)] for name, row in losses.items()),
    )


def terms_table():
    yield from table(
        ["loss", "of", "terms"],
        (
            [f"`{name}`", of, terms]
            for name in LOSSES
            for of, terms in REFERENCES[name].terms.items()
        ),
    )


# ---- files

BLOCKS = {
    "README.md": {"losses": losses_table, "beyond PyTorch": beyond_torch},
    "docs/torch.md": {"beyond PyTorch": beyond_torch},
    "docs/losses.md": {"summaries": summaries_table},
    "docs/command-line.md": {"commands": command_sections},
    "docs/numerics.md": {"errors": errors_command, "terms": terms_table},
}


def replaced(text, name, lines):
    """The text with these lines between the comments of a block, indented like the second one."""
    begin = f"<!-- {name}: python -m tools.generate_docs -->"
    end = f"<!-- /{name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"needs {begin} and {end} once")
    head, _, tail = text.partition(begin)
    before, _, tail = tail.partition(end)
    indent = re.search(r" *$", before)[0]
    block = "\n".join((indent + line).rstrip() for line in lines)
    gap = "\n\n" if "|" in block else "\n"  # around a table
    return f"{head}{begin}{gap}{block}{gap}{indent}{end}{tail}"


def generated(file):
    """The current text of a file, and the text with its blocks generated anew."""
    old = new = (ROOT / file).read_text(encoding="utf-8")
    for name, lines in BLOCKS[file].items():
        try:
            new = replaced(new, name, lines())
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    return old, new


def main():
    for file in BLOCKS:
        old, new = generated(file)
        if new != old:
            (ROOT / file).write_text(new, encoding="utf-8")
            print(f"wrote {file}")


if __name__ == "__main__":
    main()
