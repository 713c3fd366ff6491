"""Valid calls give the value and gradient of torch, except for declared differences."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl
from tests.cases import CASES

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[bench]'")

from tests import parity  # noqa: E402  (imports torch)

functional = torch.nn.functional

OF_TORCH = [case for case in CASES if hasattr(functional, case.loss)]


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of torch would interfere with tests that fork."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.complete_only
@pytest.mark.parametrize("loss", parity.TEMPLATES)
def test_values_and_gradients(loss):
    shown = set()
    for case in parity.cases(loss):
        verdict = parity.judge(case)
        assert verdict.wrong is None, str(case)
        shown |= set(verdict.reasons)
    assert shown == parity.declared(loss)


def test_declared_differences_are_documented():
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    section = re.search(r"^## Differences from PyTorch\n(.*?)^## ", readme, re.M | re.S)[1]
    bold = {name.rstrip(".") for name in re.findall(r"^- \*\*(.+?)\*\*", section, re.M)}
    for where in {where for loss in parity.TEMPLATES for _, where in parity.declared(loss)}:
        place, _, part = where.partition(", ")
        if place == "README":
            assert part in bold, where
        else:
            documented = getattr(fl, re.fullmatch(r"help\(fl\.(\w+)\)", place)[1])
            assert f"\n{part}\n---" in inspect.getdoc(documented), where


def test_declared_differences_that_no_case_shows_fail(monkeypatch, capsys):
    monkeypatch.setattr(parity, "LIMITS", list(parity.LIMITS))
    assert parity.main(["--loss", "soft_margin_loss"]) == 0
    parity.limit("unused", "nowhere", "soft_margin_loss")(lambda t: None)
    assert parity.main(["--loss", "soft_margin_loss"]) == 1
    assert "NOT SHOWN unused (nowhere)" in capsys.readouterr().out


@pytest.mark.parametrize("reduced", [False, True])
def test_infinite_results_must_be_equal(reduced):
    """An infinite bound, such as the bound of an infinite number, allows no error."""
    inf, nan = np.inf, np.nan

    def wrong(got, value, bound):
        value = value if reduced else [value]
        got = got if reduced else np.array([got])
        with np.errstate(invalid="ignore"):
            return parity.differ("value", got, value, bound, np.dtype(float)) is not None

    for value in (inf, -inf, nan):
        for got in (inf, -inf, nan, 0.0, 1e300):
            same = got == value or (np.isnan(got) and np.isnan(value))
            for bound in (inf, nan, 1.0):
                assert wrong(got, value, bound) is not same, (got, value)
    assert wrong(2.0, 1.0, inf)
    assert wrong(inf, 1.0, inf)
    assert not wrong(2.0, 1.0, 1.0)


@pytest.mark.parametrize("case", OF_TORCH, ids=lambda case: case.id)
def test_options_and_defaults_match_torch(case):
    loss = getattr(fl, case.loss)
    theirs = inspect.signature(getattr(functional, case.loss)).parameters
    ours = loss.__signature__.parameters
    for name, parameter in ours.items():
        if name in ("sample_weight", "out", "batch_first"):
            continue
        assert name in theirs, name
        if parameter.default is not parameter.empty:
            assert parameter.default == theirs[name].default, name
    missing = set(theirs) - set(ours) - {"size_average", "reduce"}
    assert not missing


def test_criteria_match_torch():
    for name in fl.criteria.__all__:
        theirs = getattr(torch.nn, name, None)
        if theirs is None:
            loss = getattr(getattr(fl, name), "loss", None)
            assert loss is None or not hasattr(functional, loss.__name__), name
            continue
        torchs = inspect.signature(theirs).parameters
        for option, parameter in getattr(fl, name).__signature__.parameters.items():
            # torch has the weight of l1, mse and huber in its functions only.
            if option in ("weight", "batch_first") and option not in torchs:
                continue
            assert parameter.default == torchs[option].default, (name, option)
