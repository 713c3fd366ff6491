"""The requirements of tests/table_coverage.py, and that a run with gaps fails."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl
from tests import table_coverage
from tests.table_coverage import DTYPES, ISAS, Recorded

ROOT = Path(__file__).parent.parent
ISA = ISAS[0]


@pytest.fixture
def executed(monkeypatch):
    """An empty set of records."""
    monkeypatch.setattr(table_coverage, "executed", set())
    return table_coverage.executed


@pytest.mark.parametrize(
    "execution",
    [
        ("mse", "value", "float64", "mean", ISA),
        ("kl_div_log_target", "value and gradient", "float16", "batchmean", ISA),
        ("binary_cross_entropy_with_logits_pos_weight", "sums", "float32", None, ISA),
        ("cross_entropy_probabilities", "gradient by target", "bfloat16", "none", ISA),
        ("triplet_margin_swap", "gradient by negative", "float16", "sum", ISA),
        ("ctc_posteriors", "gradient by log_probs", "float32", "sum", ISA),
        ("ctc_loss", "zero_infinity=True"),
        ("poisson_nll_loss", "log_input=False"),
        ("huber_loss", "delta"),
        ("mse_loss", "grad_output"),
        ("error", "bad_class"),
    ],
    ids=table_coverage.describe,
)
def test_required(execution):
    assert execution in table_coverage.required()


def test_labels_need_no_gradient():
    by_target = {e[0] for e in table_coverage.required() if e[1] == "gradient by target"}
    assert "cross_entropy_probabilities" in by_target
    assert not by_target & {"cross_entropy", "nll", "multi_margin", "multilabel_margin"}


def test_every_row_and_dtype_is_required():
    required = table_coverage.required()
    rows = {row for loss in table_coverage.all_losses() for row in loss.operand_specs}
    for isa in ISAS:
        for dtype in DTYPES:
            assert rows == {e[0] for e in required if e[2:3] == (dtype,) and e[4:] == (isa,)}


def test_recorded_calls(executed):
    x = np.array([1, 2], np.float32)
    loss = Recorded(fl.huber_loss)
    loss(x, x, delta=2.0, reduction="sum")
    loss.grad(x, x, wrt=("target", "input"))
    loss.sums(x, x, sample_weight=x)
    isa = fl._binding.isa()
    assert executed == {
        ("huber", "value", "float32", "sum", isa),
        ("huber_loss", "delta"),
        ("huber", "gradient by target", "float32", "mean", isa),
        ("huber", "gradient by input", "float32", "mean", isa),
        ("huber_loss", "wrt"),
        ("huber", "sums", "float32", None, isa),
        ("huber_loss", "sample_weight"),
    }


def test_failed_and_mixed_calls_are_not_recorded(executed):
    x = np.array([1, 2], np.float32)
    loss = Recorded(fl.mse_loss)
    with pytest.raises(ValueError, match="shape"):
        loss(x, x[:1])
    loss(x, x.astype(float))
    assert executed == {("error", "shapes_differ")}


@pytest.mark.complete_only
@pytest.mark.parametrize("workers", [[], ["-n1"]], ids=["one process", "a worker"])
def test_gaps_fail_a_whole_run_only(tmp_path, workers):
    if workers:
        pytest.importorskip("xdist", reason="needs pytest-xdist")
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\ntestpaths = ["checks"]\n')
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "test_one.py").write_text(
        "import numpy as np\n"
        "import fastloss as fl\n"
        "from tests.table_coverage import Recorded\n"
        "def test_mse():\n"
        "    x = np.ones(3, np.float32)\n"
        "    Recorded(fl.mse_loss)(x, x)\n"
    )

    def run(*arguments):
        command = [sys.executable, "-m", "pytest", "-p", "tests.table_coverage", *workers]
        path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        return subprocess.run(
            [*command, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    whole = run()
    assert whole.returncode == pytest.ExitCode.TESTS_FAILED, whole.stdout + whole.stderr
    assert "1 passed" in whole.stdout
    gaps = whole.stdout.splitlines()
    assert f"mse value float64 mean {fl._binding.isa()}" in gaps
    assert f"mse value float32 mean {fl._binding.isa()}" not in gaps
    part = run("-k", "mse")
    assert part.returncode == 0, part.stdout + part.stderr
