"""The pieces of a loss; a failing test names the loss and the missing piece.

To add an elementwise loss, edit by hand:

1. its formula, src_c/losses/elementwise_formulas.h;
2. its row, src_c/losses.def;
3. its function with signature and docstring, src/fastloss/losses.py;
4. its criterion, src/fastloss/criteria.py;
5. its reference, tests/references.py;
6. its cases, tests/cases.py;
7. its NumPy formula, benchmarks/with_numpy.py;
8. its line in CHANGELOG.md.

Everything else is derived from these: at run time, or by `python -m tools.make_stubs`, then
`python -m tests.ulp --size 300 --loss NAME --json docs/measured_errors.json`, then
`python -m tools.generate_docs`.
"""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl
from benchmarks import with_numpy
from benchmarks.cells import draw_of
from benchmarks.cells import losses as benchmarked
from tests.cases import CASES, LOSSES
from tests.domains import BY_SPEC, CLASSES, INTEGERS
from tests.random_calls import is_loss
from tests.references import REFERENCES

ROOT = Path(__file__).parent.parent
ALL = sorted(name for name, value in vars(fl).items() if isinstance(value, fl._binding.Loss))
losses = pytest.mark.parametrize("name", ALL)

MEASURE = "python -m tests.ulp --size 300 --loss {} --json docs/measured_errors.json"


def text_of(path):
    return (ROOT / path).read_text(encoding="utf-8")


def criteria_of(loss):
    criteria = [getattr(fl, name) for name in fl.criteria.__all__]
    return [criterion for criterion in criteria if criterion.loss is loss]


# ---- 1 and 2: C ----------------------------------------------------------------------------------

TABLE = "src_c/losses.def"
FORMULAS = "src_c/losses/elementwise_formulas.h"


def elementwise_rows():
    return re.findall(r"^ELEMENTWISE\((\w+)", text_of(TABLE), re.M)


def formulas():
    pattern = r"^static INLINE result (\w+)\(real x, real y, real \w+,\s+const real \*p\)"
    return re.findall(pattern, text_of(FORMULAS), re.M)


@pytest.mark.parametrize("row", elementwise_rows())
def test_row_has_a_formula(row):
    assert row in formulas(), f"{FORMULAS} needs a formula {row}"


@pytest.mark.parametrize("formula", formulas())
def test_formula_has_a_row(formula):
    assert formula in elementwise_rows(), f"{TABLE} needs a row {formula}"


def test_rows_are_used():
    rows = re.findall(r"^(?:ELEMENTWISE\(|[A-Z]+\(\w+, +)(\w+)", text_of(TABLE), re.M)
    assert len(rows) > 30
    every = [value for value in vars(fl.losses).values() if is_loss(value)]
    used = {row for loss in every for row in loss.operand_specs}
    assert sorted(rows) == sorted(used), "rows that no loss uses"


# ---- 3 and 4: Python -----------------------------------------------------------------------------


@losses
def test_loss_is_public(name):
    assert name in fl.__all__
    assert getattr(fl, name).__name__ == name


@losses
def test_docstring_has_the_sections(name):
    lines = [line.strip() for line in getattr(fl, name).__doc__.splitlines()]
    underlined = {a for a, b in itertools.pairwise(lines) if a and b == "-" * len(a)}
    assert underlined >= {"Parameters", "Returns", "Raises", "Notes", "Examples"}


@losses
def test_loss_has_a_criterion(name):
    assert len(criteria_of(getattr(fl, name))) == 1, f"criteria.py needs a criterion of {name}"


# ---- 5: the reference ----------------------------------------------------------------------------


@losses
def test_loss_has_a_reference(name):
    assert name in REFERENCES, f"tests/references.py needs a function @reference({name!r})"
    loss, reference = getattr(fl, name), REFERENCES[name]
    assert loss.operands == reference.operands
    assert loss.differentiable == reference.differentiable
    assert set(loss.default_wrt) <= set(loss.differentiable)
    assert set(reference.terms) >= {"value"}


# ---- 6: the cases --------------------------------------------------------------------------------


@losses
def test_loss_has_cases(name):
    assert name in LOSSES, f"tests/cases.py needs a line for {name}"


@losses
def test_every_option_is_varied_by_a_case(name):
    loss = getattr(fl, name)
    options = set(loss.__signature__.parameters) - set(loss.operands)
    options -= {"reduction", "sample_weight", "out"}  # varied by the tests of all losses
    varied = {option for case in CASES if case.loss == name for option in case.options}
    assert options == varied
    assert any(case.loss == name and set(case.options) <= {"log_input"} for case in CASES)


@losses
def test_every_row_is_reached_by_a_case(name):
    rows = set(getattr(fl, name).operand_specs)
    assert rows == {case.formula for case in CASES if case.loss == name}


# ---- 7: the benchmark ----------------------------------------------------------------------------


@losses
def test_loss_has_a_benchmark(name):
    assert benchmarked()[name].sizes
    if getattr(fl, name).row_axis is None:
        needed = f"benchmarks/with_numpy.py needs a function {name}"
        assert callable(getattr(with_numpy, name, None)), needed


# All that losses.def can declare; labels end a row of labels, and so are not one for each unit.
SPECS = {*itertools.product(("unit", "row"), fl._binding.DOMAINS)} - {("unit", "labels")}


@pytest.mark.parametrize(("extent", "domain"), sorted(SPECS))
def test_domain_has_draws_and_data_of_benchmarks(extent, domain):
    rng, rows = np.random.default_rng(0), (20, CLASSES)
    shape = rows if extent == "row" else rows[:1]
    values = BY_SPEC[extent, domain]
    assert values.extent == extent
    for array in (
        values.typical(rng, shape),
        values.adversarial(rng, shape, np.finfo(np.float32)),
        draw_of("row", extent, domain)(rng, rows, np.float32),
    ):
        assert array.shape == shape
        assert (array >= values.low).all()
        assert (array <= values.high).all()
        assert (array.dtype.kind == "i") == (values in INTEGERS)


# ---- 8: the changelog ----------------------------------------------------------------------------


@losses
def test_loss_is_in_the_changelog(name):
    assert f"`{name}`" in text_of("CHANGELOG.md"), f"CHANGELOG.md needs a line on {name}"


# ---- what the commands write ---------------------------------------------------------------------


@losses
def test_errors_are_measured(name):
    measured = json.loads(text_of("docs/measured_errors.json"))["losses"]
    assert name in measured, f"run {MEASURE.format(name)}"


GENERATED = (
    "README.md",
    "docs/command-line.md",
    "docs/losses.md",
    "docs/numerics.md",
    "docs/torch.md",
)


@pytest.mark.parametrize("file", GENERATED)
def test_generated_documents_are_up_to_date(file):
    from tools import generate_docs

    assert set(generate_docs.BLOCKS) == set(GENERATED)
    old, new = generate_docs.generated(file)
    assert old == new, "run python -m tools.generate_docs"


def test_nothing_is_left_over():
    assert set(LOSSES) == set(REFERENCES) == set(ALL) == set(benchmarked())
