"""Criteria: a loss with its options bound, and nothing else."""

import copy
import pickle

import numpy as np
import pytest

import fastloss as fl
from tests.bitwise import assert_bitwise
from tests.cases import CASES

KINDS = {
    kind.loss.__name__: kind
    for kind in map(vars(fl).get, fl.criteria.__all__)
    if kind.loss is not None
}
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def made(case):
    """(criterion, arrays, options) of a case."""
    rng = np.random.default_rng([6, *case.id.encode()])
    arrays = case.arrays(rng, (12, 4), np.float32)
    options = case.keywords(rng, (12, 4), np.float32)
    return KINDS[case.loss](**options), arrays, options


@cases
def test_it_is_the_function(case):
    criterion, arrays, options = made(case)
    loss = criterion.loss
    shape = case.units((12, 4))
    weights = np.linspace(0, 2, shape[0], dtype=np.float32)
    assert loss is getattr(fl, case.loss)
    for more in ({}, {"sample_weight": weights}):
        assert_bitwise(criterion(*arrays, **more), loss(*arrays, **options, **more))
        assert_bitwise(criterion.grad(*arrays, **more), loss.grad(*arrays, **options, **more))
        both = loss.value_and_grad(*arrays, **options, **more)
        assert_bitwise(criterion.value_and_grad(*arrays, **more), both)
        assert criterion.sums(*arrays, **more) == loss.sums(*arrays, **options, **more)
    wrt = case.differentiable(loss)
    assert_bitwise(
        criterion.grad(*arrays, wrt=wrt, grad_output=2),
        loss.grad(*arrays, **options, wrt=wrt, grad_output=2),
    )
    none = criterion.set_params(reduction="none")
    assert none is criterion
    out = np.empty(shape, np.float32)
    assert none(*arrays, out=out) is out
    assert_bitwise(out, loss(*arrays, **options, reduction="none"))


@cases
def test_repr_equality_pickle_and_copies(case):
    criterion, _, options = made(case)
    names = {**vars(fl), "array": np.array, "float32": np.float32, "inf": np.inf}
    copies = [
        eval(repr(criterion), names),
        pickle.loads(pickle.dumps(criterion)),
        copy.deepcopy(criterion),
        type(criterion)(**criterion.get_params()),
    ]
    for other in copies:
        assert other is not criterion
        assert type(other) is type(criterion)
        assert other == criterion
        assert other == criterion
    assert criterion != KINDS[case.loss](**options, reduction="sum")
    for name, value in options.items():
        without = KINDS[case.loss](**{k: v for k, v in options.items() if k != name})
        assert without != criterion
        if isinstance(value, np.ndarray):
            assert KINDS[case.loss](**{**options, name: value + 1}) != criterion
            assert KINDS[case.loss](**{**options, name: value.copy()}) == criterion


@cases
def test_parameters(case):
    criterion, _, options = made(case)
    parameters = criterion.get_params()
    assert parameters == criterion.get_params(deep=False)
    for name, value in options.items():
        assert parameters[name] is value  # stored untouched
    fresh = KINDS[case.loss]()
    assert fresh.get_params().keys() == parameters.keys()
    fresh.set_params(**parameters)
    assert fresh == criterion
    with pytest.raises(ValueError, match="size_average"):
        fresh.set_params(size_average=True)
    with pytest.raises(TypeError):
        KINDS[case.loss](size_average=True)


@cases
def test_scikit_learn_clones(case):
    base = pytest.importorskip("sklearn.base")
    criterion, arrays, _ = made(case)
    clone = base.clone(criterion)
    assert clone is not criterion
    assert clone == criterion
    assert clone(*arrays) == criterion(*arrays) or np.isnan(clone(*arrays))


def test_options_are_checked_at_the_call_not_before():
    criterion = fl.HuberLoss(delta=-1.0)
    assert criterion.delta == -1.0
    with pytest.raises(ValueError, match="delta"):
        criterion(1.0, 2.0)


def test_different_criteria_differ():
    kinds = [kind() for kind in KINDS.values()]
    for i, one in enumerate(kinds):
        assert [one == other for other in kinds] == [i == j for j in range(len(kinds))]
    assert fl.MSELoss() != "MSELoss()"
    with pytest.raises(TypeError):
        hash(kinds[0])


def test_attributes_of_a_user_are_no_options():
    criterion = fl.HuberLoss(delta=2.0)
    criterion.note = "mine"
    assert criterion([3.0], [0.0]) == 4.0
    with pytest.raises(TypeError, match="base"):
        fl.criteria.Criterion()
