"""The table of tools/seeded_faults.py fits the sources."""

from pathlib import Path

import pytest

from tools.seeded_faults import FAULTS

ROOT = Path(__file__).parent.parent


def test_there_are_30_distinct_faults():
    assert len({(fault.path, fault.text) for fault in FAULTS}) == len(FAULTS) >= 30


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.effect)
def test_text_occurs_once(fault):
    source = (ROOT / fault.path).read_text(encoding="utf-8")
    assert source.count(fault.text) == 1
    assert fault.replacement != fault.text
