"""The table of tools/seeded_faults.py fits the sources and the tests."""

from pathlib import Path

import pytest

from tools.seeded_faults import FAULTS

ROOT = Path(__file__).parent.parent
each_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.effect)


def test_there_are_90_distinct_faults():
    distinct = {(fault.path, fault.text, fault.replacement) for fault in FAULTS}
    assert len(distinct) == len({fault.effect for fault in FAULTS}) == len(FAULTS) >= 90


@each_fault
def test_text_occurs_once(fault):
    source = (ROOT / fault.path).read_text(encoding="utf-8")
    assert source.count(fault.text) == 1
    assert fault.replacement != fault.text


@each_fault
def test_the_named_tests_exist(fault):
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    sanitized = ci.partition('step "address and undefined-behaviour')[2].partition("\nstep ")[0]
    sanitized += (ROOT / "src_c/families.def").read_text(encoding="utf-8")
    for test in fault.tests:
        path, _, name = test.partition("::")
        source = (ROOT / path).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in source
        if fault.needs == "sanitizers":
            assert path.removeprefix("tests/test_").removesuffix(".py") in sanitized
    assert fault.tests or fault.needs != "sanitizers"
