"""The quick selection of conftest.py."""

import itertools

import pytest

from tests.conftest import quick_selection


class Item:
    """The parts of a test that the selection reads: its name, parameters and markers."""

    def __init__(self, name, parameters, *markers):
        self.nodeid = f"tests/test_x.py::{name}[{parameters}]"
        self.callspec = type("CallSpec", (), {"params": parameters})
        self._markers = [marker.mark for marker in markers]

    def iter_markers(self, name):
        return (marker for marker in self._markers if marker.name == name)

    def get_closest_marker(self, name):
        return next(self.iter_markers(name), None)


CASES = range(60)
DTYPES = ("float32", "float64")
ISAS = ("baseline", "avx2", "avx512")
MARK = pytest.mark


def items(*markers, name="test_values"):
    return [
        Item(name, {"case": case, "dtype": dtype, "isa": isa}, *markers)
        for case, dtype, isa in itertools.product(CASES, DTYPES, ISAS)
    ]


def parameters(selected, *names):
    return sorted(tuple(item.callspec.params[name] for name in names) for item in selected)


def test_one_instruction_set_for_each_combination():
    selected = quick_selection(items())
    assert parameters(selected, "case", "dtype") == sorted(itertools.product(CASES, DTYPES))
    for isa in ISAS:
        assert 25 <= sum(item.callspec.params["isa"] == isa for item in selected) <= 55


def test_rotated_parameter():
    selected = quick_selection(items(MARK.rotate("dtype")))
    assert parameters(selected, "case") == [(case,) for case in CASES]
    assert set(parameters(selected, "dtype", "isa")) == set(itertools.product(DTYPES, ISAS))


def test_selection_is_reproducible():
    first, second = (quick_selection(items()) for _ in range(2))
    names = ("case", "dtype", "isa")
    assert parameters(first, *names) == parameters(second, *names)


def test_tests_select_independently():
    one, other = (
        parameters(quick_selection(items(name=name)), "case", "dtype", "isa")
        for name in ("test_values", "test_nan")
    )
    assert 20 <= len(set(one) & set(other)) <= 60


def test_complete_only():
    assert not quick_selection(items(MARK.complete_only))


def test_other_parameters_are_all_selected():
    plain = [Item("test_limits", {"power": power}) for power in (1.0, float("nan"), None)]
    assert quick_selection(plain) == set(plain)
