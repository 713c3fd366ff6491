"""The stubs are up to date, and mypy accepts and rejects the right programs with them."""

import ast
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from fastloss import _binding

ROOT = Path(__file__).resolve().parent.parent

# Calls that PyTorch accepts, or typing errors; mypy must reject each line.
REJECTED = """\
fl.mse_loss(x)
fl.mse_loss(x, y, None)
fl.mse_loss(x, y, reduction="avg")
fl.mse_loss(x, y, reduction="batchmean")
fl.mse_loss(x, y, size_average=True)
fl.mse_loss(x, y, reduce=False)
fl.mse_loss(x, y, sample_weights=[1.0])
fl.mse_loss(x, y, delta=1.0)
fl.mse_loss(x, y, wrt="target")
fl.mse_loss(x, y, out=x)
fl.huber_loss(x, y, delta="1")
fl.cross_entropy(x, y, None, -100)
fl.cross_entropy(x, y, smoothing=0.1)
fl.nll_loss.grad(x, y, wrt="target")
fl.multi_margin_loss(x, y, p="1")
fl.ctc_loss(x, y, 3)
fl.ctc_loss(x, y, 3, 2, 0)
fl.ctc_posteriors(x, y, 3, 2, reduction="sum")
fl.mse_loss.grad(x, y, wrt=("input", "weight"))
fl.mse_loss.sums(x, y, out=x)
fl.MSELoss(size_average=True)
fl.MSELoss("sum")
fl.CrossEntropyLoss(reduction="avg")
fl.CrossEntropyLoss(label_smooth=0.1)
fl.CrossEntropyLoss()(x, y, reduction="sum")
s: str = fl.mse_loss(x, y)
a: float = fl.mse_loss(x, y, reduction="none")
b: float = fl.MSELoss(reduction="none")(x, y)
fl.set_num_threads("2")
fl.mean_squared_error(x, y)
fl.evaluate("mse_loss", x, y)
fl.evaluate(fl.mse_loss, x, y, chunk_row=3)
fl.evaluate({"mse": "mse_loss"}, x, y)
fl.evaluate(["mse_loss"], x, y)
c: fl.Evaluation = fl.evaluate([fl.mse_loss], x, y)
d: list[fl.Evaluation] = fl.evaluate(fl.mse_loss, x, y)
e: dict[int, fl.Evaluation] = fl.evaluate({"mse": fl.mse_loss}, x, y)
fl.evaluate(fl.mse_loss, x, y).mean
fl.MSELoss().accumulator(by="label")
fl.MSELoss().accumulator(baseline="old.npy")
fl.evaluate(fl.mse_loss, x, y, baseline=x).difference.z
skl.mean_squared_error(x, y, multioutput="raw")
skl.mean_squared_error(x, y, [1.0])
f: float = skl.mean_squared_error(x, y, multioutput="raw_values")
g: float = skl.d2_pinball_score(x, y, alpha=0.1, multioutput="raw_values")
skl.mean_tweedie_deviance(x, y, power="1")
skl.log_loss(y, x, pos_label=1)
skl.make_scorer(fl.mse_loss)
skl.make_scorer(fl.MSELoss(), greater_is_better=False)
skl.make_scorer(fl.MSELoss(), response_method="predict")
skl.LossClassifier(alpha="1")
skl.LossClassifier(class_weight="balance")
skl.LossClassifier(fl.cross_entropy)
skl.LossClassifier().fit(x)
skl.LossRegressor(class_weight="balanced")
h: str = skl.LossRegressor().fit(x, y).predict(x)
"""


def test_generated_stubs_are_up_to_date():
    generator = runpy.run_path(str(ROOT / "tools" / "make_stubs.py"))
    for name, stub in generator["STUBS"].items():
        written = (ROOT / "src" / "fastloss" / name).read_text(encoding="utf-8")
        assert written == stub(), f"run tools/make_stubs.py: {name} is out of date"


def test_names_in_the_stub_of_the_binding_exist():
    stub = ROOT / "src" / "fastloss" / "_binding.pyi"
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            members = [n.name for n in node.body if isinstance(n, ast.FunctionDef)]
            missing = [m for m in members if not hasattr(getattr(_binding, node.name), m)]
            assert not missing, node.name
        elif isinstance(node, ast.FunctionDef):
            assert callable(getattr(_binding, node.name))
        elif isinstance(node, ast.AnnAssign):
            assert hasattr(_binding, node.target.id)


def test_overloads_of_evaluate_have_its_options():
    module = ROOT / "src" / "fastloss" / "evaluation" / "evaluator.py"
    tree = ast.parse(module.read_text(encoding="utf-8"))
    found = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "evaluate"]
    *overloads, function = (ast.unparse(f.args).partition("*")[2] for f in found)
    assert len(overloads) > 1
    assert set(overloads) == {function}


def test_typing_program_runs(capsys):
    runpy.run_path(str(ROOT / "tests" / "typing_program.py"))
    assert "is not a class" in capsys.readouterr().out


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    """(lines of REJECTED that mypy --strict rejects, its messages about typing_program.py)."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("mypy")
    head = "import fastloss as fl, fastloss.sklearn as skl\nx, y = [1.0], [2.0]\n"
    (folder / "rejected.py").write_text(head + REJECTED, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"]
    command += ["--no-error-summary", "--hide-error-context", "--no-pretty", "--config-file="]
    run = subprocess.run(
        [*command, "rejected.py", str(ROOT / "tests" / "typing_program.py")],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not run.stderr
    errors = [line for line in run.stdout.splitlines() if ": error: " in line]
    rejected = {int(line.split(":")[1]) for line in errors if line.startswith("rejected.py")}
    return rejected, [line for line in errors if not line.startswith("rejected.py")]


def test_mypy_accepts(mypy):
    assert mypy[1] == []


def test_mypy_rejects(mypy):
    accepted = [c for i, c in enumerate(REJECTED.splitlines(), 3) if i not in mypy[0]]
    assert accepted == []
