"""The benchmarks' table is complete, peers agree with fastloss, wrong results get no time."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl

sys.path.append(str(Path(__file__).parents[1]))  # last: an installed fastloss comes first

from benchmarks import __main__ as benchmark
from benchmarks import cadence
from benchmarks.cells import LOSSES, cells
from benchmarks.peers import NAMES, Missing, Peer, disagreement, open_peers

SMALL = {c.name: c for c in cells() if c.group == "small"}
CELL = SMALL["mse_loss 64x10"]


def peers(stack, *names):
    return open_peers(stack, names, threads=1, report=lambda line: None)


def test_the_table_lists_every_loss():
    assert set(LOSSES) == {n for n in fl.__all__ if isinstance(getattr(fl, n), fl._binding.Loss)}


def test_names_of_cells_are_unique():
    names = [c.name for c in cells()]
    assert len(set(names)) == len(names)


def test_data_are_the_same_each_time():
    for cell in SMALL.values():
        for a, b in zip(cell.data()[0], cell.data()[0], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_runs_end_to_end(name):
    with ExitStack() as stack:
        both = peers(stack, name)
        if name not in both:
            pytest.skip(f"{name} is not installed")
        figures = benchmark.measure(CELL, both, rounds=2, seconds=1e-4)
    benchmark.ratios(figures)
    assert [f["refused"] for f in figures] == [None] * 5
    assert all(f["median"] > 0 and len(f["rounds"]) == 2 for f in figures)
    assert {p for f in figures for p in f.get("ratio", {})} == {"value", "gradient", "out"}
    assert len(list(benchmark.cell_lines(figures, both))) == 3
    assert benchmark.means(figures)[name]["small"]["value"]["cells"] == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_peers_agree_on_every_loss(dtype):
    with ExitStack() as stack:
        everyone = peers(stack, *NAMES)
        for cell in cells(dtype):
            if cell.group == "small":
                for figure in benchmark.check(cell, everyone):
                    assert figure["refused"] is None, figure


@pytest.mark.parametrize("part", ["value", "gradient", "shape", "nan"])
def test_a_wrong_result_is_refused(part):
    class Wrong(Peer):
        def ask(self, method, *arguments):
            made = super().ask(method, *arguments)
            if method != "result":
                return made
            value, gradients = made
            if part == "value":
                value *= 1.001
            elif part == "nan":
                value = float("nan")
            elif gradients and part == "gradient":
                gradients[0][3, 4] *= 1.01
            elif gradients:
                gradients = [gradients[0].ravel()]
            return value, gradients

    with ExitStack() as stack:
        both = peers(stack)
        both["numpy"] = stack.enter_context(Wrong("numpy", 1))
        figures = benchmark.measure(CELL, both, rounds=1, seconds=1e-4)
    benchmark.ratios(figures)
    figure = next(f for f in figures if f["peer"] == "numpy" and f["product"] == "gradient")
    assert figure["refused"]
    assert figure["median"] is None
    assert "ratio" not in figure
    if part == "gradient":
        assert "[3, 4]" in figure["refused"]
    text = "\n".join(benchmark.cell_lines(figures, both))
    assert f"refused: numpy, gradient: {figure['refused']}" in text


def test_small_errors_are_agreement():
    x = np.array([0.0, 1e-9, -2.0])
    assert disagreement((1.0, [x]), (1.0 + 1e-12, [x + 1e-12]), "float64") is None
    assert disagreement((1.0, []), (1.0, [x]), "float64") is None


def test_a_peer_that_is_not_there_is_missing():
    with pytest.raises(Missing):
        Peer("nothing", 1)


def test_a_crash_leaves_the_next_cell_to_a_new_process():
    with Peer("numpy", 1) as peer:
        peer._process.kill()
        peer._process.wait()
        assert peer.ask("prepare", CELL) == ["value", "gradient"]


def run(*arguments):
    root = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=root, capture_output=True, text=True, check=False
    )


def test_command_lines(tmp_path):
    file = tmp_path / "figures.json"
    options = ["--filter", CELL.name, "--threads", "1", "--json", str(file)]
    done = run("benchmarks", "--quick", "--peers", "numpy", "--rounds", "1", *options)
    assert done.returncode == 0, done.stderr
    assert "geometric mean" in done.stdout
    assert len(json.loads(file.read_text())["figures"]) == 5

    listed = run("benchmarks", "--list", "--quick").stdout.splitlines()
    assert CELL.name in listed
    assert not any("50257" in name for name in listed)

    options = ["--filter", cadence.CELLS[0].name, "--threads", "1", "--json", str(file)]
    done = run("benchmarks.cadence", "--peers", "numpy", "--calls", "3", "--period", "1", *options)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(file.read_text())["figures"]) == 5
