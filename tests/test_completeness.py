"""Names every place where a loss is missing."""

import itertools
import re
from pathlib import Path

import pytest

import fastloss as fl
from tests.cases import CASES, LOSSES, SHARES
from tests.references import REFERENCES

ROOT = Path(__file__).parent.parent
ALL = sorted(name for name, value in vars(fl).items() if isinstance(value, fl._binding.Loss))
losses = pytest.mark.parametrize("name", ALL)


def criteria_of(loss):
    kinds = [getattr(fl, name) for name in fl.criteria.__all__]
    return [kind for kind in kinds if kind.loss is loss]


@losses
def test_it_is_public_and_named_as_it_is_called(name):
    assert name in fl.__all__
    assert getattr(fl, name).__name__ == name


@losses
def test_it_has_cases(name):
    assert name in LOSSES


@losses
def test_it_has_a_reference_of_the_same_arguments(name):
    assert name in REFERENCES
    loss, reference = getattr(fl, name), REFERENCES[name]
    assert loss.operands == reference.operands
    assert loss.differentiable == reference.differentiable
    assert set(loss.default_wrt) <= set(loss.differentiable)
    assert set(reference.terms) >= {"value"}


@losses
def test_it_has_a_criterion(name):
    assert len(criteria_of(getattr(fl, name))) == 1


@losses
def test_every_option_is_varied_by_a_case(name):
    loss = getattr(fl, name)
    options = set(loss.__signature__.parameters) - set(loss.operands)
    options -= {"reduction", "sample_weight", "out"}  # of every law
    varied = {option for case in CASES if case.loss == name for option in case.options}
    assert options == varied
    assert any(case.loss == name and set(case.options) <= {"log_input"} for case in CASES)


@losses
def test_its_docstring_has_the_sections(name):
    lines = [line.strip() for line in getattr(fl, name).__doc__.splitlines()]
    underlined = {a for a, b in itertools.pairwise(lines) if a and b == "-" * len(a)}
    assert underlined >= {"Parameters", "Returns", "Raises", "Notes", "Examples"}


@losses
def test_it_has_a_row_in_the_readme(name):
    (criterion,) = criteria_of(getattr(fl, name))
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line[:1] == "|"]
    assert any(f"`{name}`" in row and f"`{criterion.__name__}`" in row for row in rows)


def test_nothing_is_left_over():
    assert set(LOSSES) == set(REFERENCES) == set(ALL)


SHARED = ("zero_infinity", "batch_first")  # options that one formula handles


def tweedie(power):
    """The family of distributions that has this power."""
    named = {0: "normal", 1: "poisson", 1.5: "root", 2: "gamma"}
    ranges = "negative" if power < 0 else "compound" if power < 2 else "positive"
    return named.get(power, ranges)


def formula_of(case):
    """The row of the table of formulas that a case reaches: boolean options choose it, by name."""
    parameters = getattr(fl, case.loss).__signature__.parameters.values()
    chosen = [
        p.name
        for p in parameters
        if (
            type(p.default) is bool and p.name not in SHARED and case.options.get(p.name, p.default)
        )
        or (p.name == "pos_weight" and "pos_weight" in case.options)
    ]
    chosen += ["probabilities"] if SHARES in case.operands else []
    if "tweedie" in case.loss:
        chosen.append(tweedie(case.options.get("power", 0.0)))
    if "focal" in case.loss and case.options.get("gamma", 2.0) == 2:
        chosen.append("squared")
    return "_".join([case.loss.replace("_loss", ""), *chosen])


def test_every_row_of_the_table_of_formulas_is_reached():
    table = (ROOT / "src_c" / "losses.def").read_text()
    rows = re.findall(r"^(?:ELEMENTWISE\(|(?:ROWS|SEQUENCES)\(\w+, +)(\w+)", table, re.MULTILINE)
    assert len(rows) > 30
    assert sorted(rows) == sorted({formula_of(case) for case in CASES} | {"ctc_posteriors"})
