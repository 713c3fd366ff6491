"""Docstrings and documents: examples run, formulas parse, every parameter is documented."""

import dataclasses
import doctest
import inspect
import math
import re
import shlex
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import mathml
import pytest

import fastloss as fl
import fastloss.sklearn
from fastloss import cli, plotting
from fastloss._binding import Loss
from fastloss.criteria import Criterion

ROOT = Path(__file__).resolve().parent.parent
CRITERIA = {
    name: value
    for name, value in vars(fl).items()
    if isinstance(value, type) and issubclass(value, Criterion) and value is not Criterion
}
PUBLIC = {name: getattr(fl, name) for name in fl.__all__ if not name.startswith("__")}
LOSSES = {name: thing for name, thing in PUBLIC.items() if isinstance(thing, Loss)}
PUBLIC.update({name: getattr(fastloss.sklearn, name) for name in fastloss.sklearn.__all__})
PUBLIC["plot"] = plotting.plot

PAGES = ["README.md"]
PAGES += sorted(
    str(page.relative_to(ROOT))
    for page in (ROOT / "docs").rglob("*.md")
    if "generated" not in page.parts
)

# Files for readers of the repository, with links to check.
FILES = [
    *PAGES,
    *("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
    *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "examples").rglob("*.md"))),
]

NUMBER = re.compile(r"(?<![\w.])-?(?:\d+\.\d*|\.\d+|\d+(?=e))(?:e[-+]?\d+)?(?!\w)")


class Checker(doctest.OutputChecker):
    """Compares floats to six digits, since results differ between instruction sets."""

    def check_output(self, want, got, flags):
        if super().check_output(want, got, flags):
            return True
        expected, actual = NUMBER.findall(want), NUMBER.findall(got)
        words = [re.sub(r"\s+", "", NUMBER.sub("#", text)) for text in (want, got)]
        return words[0] == words[1] and all(
            math.isclose(float(a), float(b), rel_tol=1e-6)
            for a, b in zip(actual, expected, strict=True)
        )


def run_examples(text, name):
    """Runs all examples, and returns their number."""
    report = []
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    results = doctest.DocTestRunner(Checker()).run(test, out=report.append)
    assert results.failed == 0, "".join(report)
    return results.attempted


def section(docstring, title):
    match = re.search(rf"^{title}\n-+\n(.*?)(?=^\S[^\n]*\n-{{3,}}$|\Z)", docstring, re.M | re.S)
    return match[1] if match else ""


def entries(docstring, title):
    """{name: type} of a numpydoc section."""
    types = {}
    for line in re.findall(r"^(\S.*)$", section(docstring, title), re.M):
        names, _, text = line.partition(" : ")
        types.update(dict.fromkeys(names.split(", "), text))
    return types


@pytest.fixture(autouse=True)
def restore_threads():
    threads = fl.get_num_threads()
    yield
    fl.set_num_threads(threads)


@pytest.mark.parametrize("name", PUBLIC)
def test_examples_of_docstring(name):
    run_examples(inspect.getdoc(PUBLIC[name]) or "", name)


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_page(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    run_examples((ROOT / page).read_text(encoding="utf-8"), page)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_docstring_is_complete(name):
    loss, doc = LOSSES[name], LOSSES[name].__doc__
    assert run_examples(doc, name) > 2
    for title in ("Parameters", "Returns", "Other Parameters", "Raises", "Notes", "Examples"):
        assert section(doc, title), title
    assert "::\n\n    " in doc.partition("Parameters\n---")[0]  # the formula
    assert "Terms: " in section(doc, "Notes")
    assert not re.search(r"%\(|[ \t]+$", doc, re.M)
    assert max(map(len, doc.splitlines())) <= 100
    assert list(entries(doc, "Other Parameters")) == ["wrt", "grad_output"]
    for operand in loss.differentiable:
        assert f'"{operand}"' in section(doc, "Other Parameters")


@pytest.mark.parametrize("name", LOSSES)
def test_summary_fits_the_list_of_losses(name):
    summary, blank = LOSSES[name].__doc__.splitlines()[:2]
    assert summary.endswith(".")
    assert not blank
    assert max(map(len, LOSSES)) + 2 + len(summary) <= 100


@pytest.mark.parametrize("name", [*LOSSES, *CRITERIA])
def test_every_parameter_is_documented(name):
    thing = PUBLIC[name]
    documented = entries(thing.__doc__, "Parameters")
    parameters = thing.__signature__.parameters
    assert list(documented) == list(parameters)
    for parameter in parameters.values():
        text = documented[parameter.name]
        if parameter.default is None:
            assert text.endswith(", optional")
        elif parameter.default is not parameter.empty:
            default = repr(parameter.default).replace("'", '"')
            assert text.endswith(f", default {default}")


@pytest.mark.parametrize("name", [n for n in PUBLIC if n not in {*LOSSES, *CRITERIA}])
def test_other_parameters_are_documented(name):
    thing = PUBLIC[name]
    if isinstance(thing, type) and issubclass(thing, (Exception, Criterion)):
        return
    title = "Attributes" if dataclasses.is_dataclass(thing) else "Parameters"
    documented = [
        name.strip("*")
        for line in entries(inspect.getdoc(thing), title)
        for name in line.split(", ")
    ]
    assert documented == list(inspect.signature(thing).parameters)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_docstrings(name):
    assert PUBLIC[name].__doc__


def markup(formula):
    return ElementTree.fromstring(mathml.grid([formula]).replace("&nbsp;", " "))


@pytest.mark.parametrize("name", LOSSES)
def test_formulas_of_docstring_parse(name):
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", LOSSES[name].__doc__.partition("\nParam")[0])
    for group in "\n\n".join(map(textwrap.dedent, blocks)).split("\n\n"):
        if lines := group.strip("\n").splitlines():
            ElementTree.fromstring(mathml.grid(lines).replace("&nbsp;", " "))


@pytest.mark.parametrize(
    ("formula", "tag", "texts"),
    [
        ("w (x - y) / (x (1 - x))", "mfrac", ["w(x−y)", "x(1−x)"]),
        ("w[y]/C sum_{c != y} z[c]", "mfrac", ["wy", "C"]),
        ("(s + t) / 2 + y / |a|", "mfrac", ["s+t", "2", "y", "|a|"]),
        ("dl/dx[t, c]", "mfrac", ["∂l", "∂xt,c"]),
        ("x[t, a[t]]", "msub", ["x", "t,at", "a", "t"]),
        ("(|e[k]| / d)^(p - 1)", "msup", ["(|ek|d)", "p−1"]),
        ("(s t/C)^(1/p) / 2", "mfrac", ["(st/C)1/p", "2"]),
        ("sum_{j in y} log s[j]", "munder", ["∑", "j∈y"]),
        ("h' + 1e-12", "msup", ["h", "′", "10", "−12"]),
        ("g if g >= 0, else 0", "mtext", []),
    ],
)
def test_parts_of_formula(formula, tag, texts):
    elements = markup(formula).iter(tag)
    assert ["".join(part.itertext()) for element in elements for part in element] == texts


def test_text_of_formula():
    (span,) = markup("l = 2 if |d| <= beta")
    assert "".join(span.itertext()) == "l=2 if |d|≤β"


@pytest.mark.parametrize("formula", ["(x", "x)", "x +", "x / / y", "x ? y", "sum_{c", "[c", "|x"])
def test_invalid_formula(formula):
    with pytest.raises(ValueError, match="formula"):
        mathml.grid([formula])


@pytest.mark.parametrize("method", ["grad", "value_and_grad", "sums", "__call__"])
def test_methods_have_docstrings(method):
    assert getattr(Criterion, method).__doc__
    assert getattr(fl.mse_loss, method).__doc__


# ---- links and commands of the documents


def prose(text):
    """A document without its blocks of code and code in lines."""
    text = re.sub(r"(?ms)^ *```.*?^ *```$", "", text)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(path):
    """The anchors of the headings of a document, as GitHub and MyST make them."""
    headings = re.findall(
        r"(?m)^#+ +(.+?) *$", re.sub(r"(?ms)^ *```.*?^ *```$", "", path.read_text("utf-8"))
    )
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("file", FILES)
def test_links_are_not_dead(file):
    text, path = prose((ROOT / file).read_text("utf-8")), ROOT / file
    links = re.findall(r"\]\(\s*([^)\s]+)\s*\)", text)
    links += re.findall(r"(?:src|srcset|href)=\"([^\"]+)\"", text)
    for link in links:
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert "generated" not in target.parts, f"{link} is not in the repository"
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("file", FILES)
def test_images_have_a_description(file):
    text = prose((ROOT / file).read_text("utf-8"))
    descriptions = re.findall(r"!\[([^\]]*)\]", text)
    descriptions += [
        (re.findall(r"alt=\"([^\"]*)\"", tag) or [""])[0] for tag in re.findall(r"<img[^>]*>", text)
    ]
    assert all(len(description) > 10 for description in descriptions), descriptions


def test_every_page_is_in_the_contents():
    contents = re.findall(r"(?ms)^```{toctree}\n(.*?)^```", (ROOT / "docs/index.md").read_text())
    entries = {line for block in contents for line in block.splitlines() if line[:1] != ":"}
    pages = {page.removeprefix("docs/").removesuffix(".md") for page in PAGES[1:]}
    assert {entry for entry in entries if "generated" not in entry} == pages - {"index"}


def commands(file):
    """The command lines of a document that begin with fastloss, or have it after &&."""
    text = (ROOT / file).read_text("utf-8")
    blocks = re.findall(r"(?ms)^```(?:sh|console)\n(.*?)^```$", text)
    blocks += re.findall(r"(?m)^    (?=\S)(.*)$", text)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        line = line.strip().removeprefix("$ ").rpartition("&& ")[2]
        is_usage = re.search(r"\b(LOSS|COMMAND|SHELL)\b", line)
        if line.startswith("fastloss ") and not is_usage:
            yield line


COMMANDS = [command for file in FILES for command in dict.fromkeys(commands(file))]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command, tmp_path, monkeypatch, capsys):
    """As written, from a clone. They write into a folder of their own."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)[1:]
    if words[0] == "completion":
        pytest.importorskip("shtab")
    if ">" in words:
        words = words[: words.index(">")]
    assert cli.main(words) == 0
    assert capsys.readouterr().out


def test_documents_have_commands():
    assert len(COMMANDS) > 15
