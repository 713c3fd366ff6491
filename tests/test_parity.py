"""Valid input gives torch's value and gradient; where it does not, that is declared."""

import inspect

import pytest
from cases import CASES

import fastloss as fl

torch = pytest.importorskip("torch")

import parity  # noqa: E402  (its cases are those that `python -m tests.parity` counts)

functional = torch.nn.functional

SHARED = [case for case in CASES if hasattr(functional, case.loss)]


@pytest.fixture(autouse=True)
def one_thread():
    """A team of torch's threads would trouble the tests that fork."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("loss", parity.MAKERS)
def test_values_and_gradients(loss):
    for case in parity.cases(loss):
        verdict = parity.judge(case)
        assert verdict.wrong is None, str(case)


def test_every_loss_of_torch_is_compared():
    shared = {name for name in fl.losses.__all__ if hasattr(functional, name)}
    assert shared == set(parity.MAKERS)


@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.id)
def test_options_and_defaults_are_torchs(case):
    """Each option has torch's name and default, and criteria those of torch.nn."""
    loss = getattr(fl, case.loss)
    torchs = inspect.signature(getattr(functional, case.loss)).parameters
    ours = loss.__signature__.parameters
    for name, parameter in ours.items():
        if name in ("sample_weight", "out", "batch_first"):
            continue
        assert name in torchs, name
        if parameter.default is not parameter.empty:
            assert parameter.default == torchs[name].default, name
    missing = set(torchs) - set(ours) - {"size_average", "reduce"}
    assert not missing


def test_criteria_are_torchs():
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
