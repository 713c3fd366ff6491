"""Benchmarks: the table of cells, agreement of the peers, refused results, limits, documents."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from benchmarks import chart, report, sporadic_calls, worker
from benchmarks.cells import HALVES, Cell, cells
from benchmarks.format import TITLES, cell_lines
from benchmarks.measure import Effort, add_ratios, check, means, measure
from benchmarks.peers import NAMES, Late, Missing, Peer, PeerError, disagreement, open_peers
from benchmarks.roofline import Roofline, add_shares, least_seconds

SMALL = {c.name: c for c in cells() if c.group == "small"}
CELL = SMALL["mse_loss 64x10"]
COMPILING = ("compile", "jax")  # take seconds to compile a loss, so that few are tested


def peers(stack, *names):
    return open_peers(stack, names, threads=1, report=lambda line: None)


def test_cell_names_are_unique():
    names = [c.name for c in cells()]
    assert len(set(names)) == len(names)


def test_half_precision_cells():
    halves = {c.dtype for c in cells() if c.group == "half"}
    assert halves == {"float16", "bfloat16"}
    assert all(c.group == "half" for c in cells("float16"))


def test_data_are_reproducible():
    for cell in SMALL.values():
        for a, b in zip(cell.data()[0], cell.data()[0], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_cell_end_to_end(name):
    with ExitStack() as stack:
        both = peers(stack, name)
        if name not in both:
            pytest.skip(f"the peer {name} is not installed: pip install '.[bench]'")
        result = measure(CELL, both, Effort(2, 1e-4, max_first_call=None))
    figures = result["figures"]
    products = 1 if name == "sklearn" else 2
    assert [f["refused"] for f in figures] == [None] * (3 + products)
    assert all(f["median"] > 0 and len(f["rounds"]) == 2 for f in figures)
    ratios = {p for f in figures for p in f.get("ratio", {})}
    assert ratios == ({"value"} if name == "sklearn" else {"value", "gradient", "out"})
    assert len(list(cell_lines(result, both))) == 2
    assert means([result])[name]["small"]["value"]["cells"] == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_peers_agree_on_every_loss(dtype):
    with ExitStack() as stack:
        everyone = peers(stack, *(name for name in NAMES if name not in COMPILING))
        for cell in cells(dtype):
            if cell.group == "small":
                assert_agreement(cell, everyone)


def test_jax_agrees():
    with ExitStack() as stack:
        both = peers(stack, "jax")
        if "jax" not in both:
            pytest.skip("needs jax: pip install '.[bench]'")
        for cell in list(SMALL.values())[::5]:
            assert_agreement(cell, both)


def test_peers_agree_in_half_precision():
    pytest.importorskip("ml_dtypes")
    with ExitStack() as stack:
        everyone = peers(stack, "torch", "numpy", "sklearn_loss")
        for dtype in HALVES:
            assert_agreement(Cell("cross_entropy", "", (64, 10), dtype, "half"), everyone)


def assert_agreement(cell, everyone):
    for figure in check(cell, everyone)[0]:
        assert figure["refused"] is None, (cell.name, figure)


class Changed(Peer):
    """A peer whose results, (value, gradients), pass through `change`."""

    def ask(self, method, *arguments):
        made = super().ask(method, *arguments)
        return self.change(*made) if method == "result" else made


def scaled(value, gradients):
    if gradients:
        gradients[0][3, 4] *= 1.01
    return value, gradients


CHANGES = {
    "value": lambda value, gradients: (value * 1.001, gradients),
    "gradient": scaled,
    "shape": lambda value, gradients: (value, [g.ravel() for g in gradients]),
    "nan": lambda value, gradients: (float("nan"), gradients),
}


@pytest.mark.parametrize("part", CHANGES)
def test_wrong_result_is_refused(part):
    with ExitStack() as stack:
        both = peers(stack)
        both["numpy"] = stack.enter_context(Changed("numpy", 1))
        both["numpy"].change = CHANGES[part]
        result = measure(CELL, both, Effort(1, 1e-4))
    figures = {f["product"]: f for f in result["figures"] if f["peer"] == "numpy"}
    figure = figures["gradient"]
    assert figure["refused"]
    assert figure["median"] is None
    assert "ratio" not in figure
    if part == "gradient":
        assert "[3, 4]" in figure["refused"]
    lines = "\n".join(cell_lines(result, both))
    assert f"refused: numpy, gradient: {figure['refused']}" in lines


def test_small_differences_agree():
    x = np.array([0.0, 1e-9, -2.0])
    assert disagreement((1.0, [x]), (1.0 + 1e-12, [x + 1e-12]), "float64") is None
    assert disagreement((1.0, []), (1.0, [x]), "float64") is None


def test_missing_peer():
    with pytest.raises(Missing):
        Peer("nothing", 1)


def test_crashed_peer_is_restarted():
    with Peer("numpy", 1) as peer:
        peer._process.kill()
        peer._process.wait()
        assert peer.ask("prepare", CELL)[0] == ["value", "gradient"]


def test_time_limit():
    def forever():
        while True:
            pass

    with pytest.raises(TimeoutError, match="first call"), worker.time_limit(0.01):
        forever()


def test_late_peer_is_left_out():
    def late(value, gradients):
        raise Late("its first call takes more than 20 s")

    with ExitStack() as stack:
        both = peers(stack)
        both["numpy"] = stack.enter_context(Changed("numpy", 1))
        both["numpy"].change = late
        result = measure(CELL, both, Effort(1, 1e-4))
    late = [f for f in result["figures"] if f["peer"] == "numpy"]
    assert all(f["left_out"] and not f["refused"] and f["median"] is None for f in late)
    assert any("left out: numpy, value: its first" in s for s in cell_lines(result, both))


# ---- limits


def test_work_of_cells():
    def work(name):
        cell = next(c for c in cells() if c.name == name)
        return cell.work(cell.data()[0])

    n = 256 * 1000
    entries = {"read": 8 * n, "streams": 2, "exp": n, "log": n}
    made = work("binary_cross_entropy_with_logits 256x1000")
    assert made["value"] == entries | {"write": 0}
    assert made["gradient"] == made["out"] == entries | {"write": 4 * n}
    assert work("cross_entropy 256x1000")["value"]["read"] == 4 * n + 8 * 256
    assert work("nll_loss 256x1000")["value"]["read"] == (64 + 8) * 256
    assert work("nll_loss 256x1000")["value"]["exp"] == 0
    assert work("tweedie_deviance_loss power 1.5 64x10")["value"]["exp"] == 2 * 640
    assert work("margin_ranking_loss 64x10")["out"]["write"] == 2 * 4 * 640


RATES = {
    "read_one": 10.0,
    "read_two": 20.0,
    "copy": 40.0,
    "write": 5.0,
    "exp_calls": 2.0,
    "log_calls": 4.0,
}


def test_limit_is_the_larger_of_memory_and_arithmetic():
    work = {"read": 100, "streams": 1, "write": 0, "exp": 0, "log": 0}
    assert least_seconds(work, RATES, cache=99) == 10
    assert least_seconds(work, RATES, cache=100) == 0
    assert least_seconds(work | {"streams": 2}, RATES, cache=0) == 5
    assert least_seconds(work | {"write": 20}, RATES, cache=0) == 40 / 40 + 80 / 10
    assert least_seconds(work | {"write": 120}, RATES, cache=0) == 200 / 40 + 20 / 5
    assert least_seconds(work | {"exp": 4, "log": 8}, RATES, cache=100) == 2 + 2
    assert least_seconds(work | {"exp": 4, "log": 8}, RATES, cache=0) == 10


def test_shares_of_the_limit():
    result = made_up()["cells"][1]
    add_shares(result, RATES, cache=0)
    ours = [f for f in result["figures"] if f["peer"] == "fastloss"]
    assert [f["share"] for f in ours] == [10 / 20, 10 / 40, 10 / 40]
    small = made_up()["cells"][0]
    add_shares(small, RATES, cache=0)
    assert not any("share" in f for f in small["figures"])


def test_measured_limits():
    with ExitStack() as stack:
        try:
            roofline = Roofline(stack.enter_context(Peer("roofline", 1)), "float32")
        except PeerError as error:
            pytest.skip(str(error))
        roofline.measure_round(1e-4)
        assert roofline.rates().keys() == RATES.keys()
        assert all(rate > 0 for rate in roofline.rates().values())
        assert roofline._amounts["read_two"] == roofline._amounts["copy"] == 2 * 4 * (16 << 20)


# ---- documents


def figure(peer, product, median):
    about = {"peer": peer, "product": product, "refused": None, "left_out": None}
    return about | {"rounds": [median], "median": median, "spread": 0.01}


def made_up():
    """A run of two cells; NumPy has values only, one of which was refused."""
    results = []
    for cell, group, scale in (("mse_loss 64x10", "small", 1), ("mse_loss 16Mi", "large", 10)):
        ours = [
            figure("fastloss", p, s * scale)
            for p, s in zip(report.PRODUCTS, (2, 4, 4), strict=True)
        ]
        theirs = [figure("torch", "value", 4 * scale), figure("torch", "gradient", 32 * scale)]
        wrong = figure("numpy", "value", None) | {"refused": "value 1 where fastloss has 2"}
        work = {"read": 100, "streams": 1, "write": 0, "exp": 0, "log": 0}
        made = {
            "cell": cell,
            "loss": "mse_loss",
            "group": group,
            "work": dict.fromkeys(report.PRODUCTS, work),
            "figures": [*ours, *theirs, wrong],
        }
        add_ratios(made["figures"])
        results.append(made)
    return {
        "kind": "cells",
        "command": "python -m benchmarks --json run.json",
        "processor": "Some CPU",
        "python": "3.13",
        "threads": 2,
        "versions": {"fastloss": "1", "torch": "2", "numpy": "3"},
        "limits": RATES,
        "means": means(results),
        "cells": results,
    }


def test_geometric_means():
    made = made_up()
    made["cells"][0]["figures"][3]["ratio"]["value"] = 8
    found = means(made["cells"])["torch"]["all"]["value"]
    assert found == {"mean": pytest.approx(4), "smallest": 2, "cell": "mse_loss 16Mi", "cells": 2}


def test_report_writes_the_documents(tmp_path):
    pytest.importorskip("matplotlib")
    run = tmp_path / "run.json"
    run.write_text(json.dumps(made_up()))
    (tmp_path / "docs").mkdir()
    readme = tmp_path / "README.md"
    begin, end = report.MARKERS
    readme.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    assert report.main([str(run), "--root", str(tmp_path)]) == 0

    shown = readme.read_text()
    assert shown.startswith(f"before\n{begin}\n")
    assert shown.endswith(f"{end}\nafter\n")
    assert "old" not in shown
    assert "| PyTorch | 2.00x (2.00x) | 2.00x (2.00x) | 8.00x (8.00x) | 8.00x (8.00x) |" in shown
    assert "Some CPU, 2 threads, Python 3.13" in shown
    page = (tmp_path / "docs" / "performance.md").read_text()
    assert "| `mse_loss 16Mi` | 20 s ±1% | - | 40 s ±1%, 2.00x | - |" in page
    assert "- refused: `mse_loss 16Mi`, NumPy, value: value 1 where fastloss has 2" in page
    assert (tmp_path / "docs" / "performance.png").read_bytes().startswith(b"\x89PNG")


def test_readme_has_the_markers():
    shown = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert [shown.count(marker) for marker in report.MARKERS] == [1, 1]


def test_every_peer_has_a_title_and_a_style():
    assert set(TITLES) == set(chart.STYLES) == set(NAMES)


# ---- command lines


def run(*arguments):
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_command_lines(tmp_path):
    file = tmp_path / "figures.json"
    options = ["--filter", CELL.name, "--threads", "1", "--json", str(file)]
    shown = run("benchmarks", "--quick", "--peers", "numpy", "--rounds", "1", *options)
    assert "geometric mean" in shown
    assert len(json.loads(file.read_text())["cells"][0]["figures"]) == 5

    listed = run("benchmarks", "--list", "--quick").splitlines()
    assert CELL.name in listed
    assert not any("50257" in name for name in listed)

    options = ["--filter", sporadic_calls.CELLS[0].name, "--threads", "1", "--json", str(file)]
    run("benchmarks.sporadic_calls", "--peers", "numpy", "--calls", "3", "--period", "1", *options)
    assert len(json.loads(file.read_text())["figures"]) == 5

    options = ["--filter", CELL.name, "--rounds", "1", "--json", str(file)]
    run("benchmarks.scaling", "--threads", "2", *options)
    assert len(json.loads(file.read_text())["cells"][0]["figures"]) == 6

    options = ["--filter", "brier_score_loss", "--rounds", "1", "--seconds", "1e-3"]
    shown = run("benchmarks.sklearn_metrics", *options, "--json", str(file))
    assert shown.count("| brier_score_loss") == 3
    assert len(json.loads(file.read_text())["figures"]) == 6

    assert "200 blocks" in run("benchmarks.dask_blocks", "--rows", "1000", "--rounds", "1")

    run("benchmarks.startup", "--runs", "1", "--json", str(file))
    assert len(json.loads(file.read_text())["figures"]) == 3
