"""Criteria: losses with their options bound, and nothing else."""

import copy
import pickle

import numpy as np
import pytest

import fastloss as fl
from tests.bitwise import assert_bitwise
from tests.cases import CASES

CRITERIA = {
    criterion.loss.__name__: criterion
    for criterion in map(vars(fl).get, fl.criteria.__all__)
    if criterion.loss is not None
}
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def build(case):
    """Return (criterion, arrays, options) of a case."""
    rng = np.random.default_rng([6, *case.id.encode()])
    arrays = case.typical(rng, (12, 4), np.float32)
    options = case.keywords(rng, (12, 4), np.float32)
    return CRITERIA[case.loss](**options), arrays, options


@cases
def test_criterion_equals_the_function(case):
    criterion, arrays, options = build(case)
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
    criterion, _, options = build(case)
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
        assert criterion == other
    assert criterion != CRITERIA[case.loss](**options, reduction="sum")
    for name, value in options.items():
        without = CRITERIA[case.loss](**{k: v for k, v in options.items() if k != name})
        assert without != criterion
        if isinstance(value, np.ndarray):
            assert CRITERIA[case.loss](**{**options, name: value + 1}) != criterion
            assert CRITERIA[case.loss](**{**options, name: value.copy()}) == criterion


@cases
def test_parameters(case):
    criterion, _, options = build(case)
    parameters = criterion.get_params()
    assert parameters == criterion.get_params(deep=False)
    for name, value in options.items():
        assert parameters[name] is value  # stored untouched
    fresh = CRITERIA[case.loss]()
    assert fresh.get_params().keys() == parameters.keys()
    fresh.set_params(**parameters)
    assert fresh == criterion
    with pytest.raises(ValueError, match="size_average"):
        fresh.set_params(size_average=True)
    with pytest.raises(TypeError):
        CRITERIA[case.loss](size_average=True)


@cases
def test_scikit_learn_clones(case):
    base = pytest.importorskip("sklearn.base")
    criterion, arrays, _ = build(case)
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
    criteria = [criterion() for criterion in CRITERIA.values()]
    for i, a in enumerate(criteria):
        assert [a == b for b in criteria] == [i == j for j in range(len(criteria))]
    assert fl.MSELoss() != "MSELoss()"
    with pytest.raises(TypeError):
        hash(criteria[0])


def test_attributes_of_a_user_are_not_options():
    criterion = fl.HuberLoss(delta=2.0)
    criterion.note = "mine"
    assert criterion([3.0], [0.0]) == 4.0
    with pytest.raises(TypeError, match="base class"):
        fl.criteria.Criterion()
