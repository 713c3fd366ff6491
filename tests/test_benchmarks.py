"""Benchmarks: the table of cells, agreement of the peers, refused results, limits, documents."""

import ctypes
import json
import math
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import (
    callers,
    chart,
    commits,
    neighbours,
    pools,
    report,
    sporadic_calls,
    with_roofline,
    worker,
)
from benchmarks.cells import CACHE_LINE, HALVES, Cell, cells, losses
from benchmarks.format import FASTEST, TITLES, cell_lines, closing_lines
from benchmarks.load import Burners, Quota
from benchmarks.measure import Effort, add_ratios, check, fastest_means, means, measure
from benchmarks.neighbours import RECOVERY, burst_figures, figures_of, variants_of
from benchmarks.peers import NAMES, Late, Missing, Peer, PeerError, disagreement, open_peers
from benchmarks.roofline import Roofline, add_shares, least_seconds, memory_seconds

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


@pytest.mark.complete_only
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


@pytest.mark.complete_only
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_peers_agree_on_every_loss(dtype):
    with ExitStack() as stack:
        everyone = peers(stack, *(name for name in NAMES if name not in COMPILING))
        for cell in cells(dtype):
            if cell.group == "small":
                assert_agreement(cell, everyone)


@pytest.mark.complete_only
def test_jax_agrees():
    with ExitStack() as stack:
        both = peers(stack, "jax")
        if "jax" not in both:
            pytest.skip("needs jax: pip install '.[bench]'")
        for cell in list(SMALL.values())[::5]:
            assert_agreement(cell, both)


@pytest.mark.complete_only
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


@pytest.mark.complete_only
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


# The exps and logs of an entry, counted in the formulas by hand; other losses need none. Powers of
# the Tweedie deviance are square roots, and a target of 0 or 1 selects one of two logarithms.
EXPS_AND_LOGS = {
    "log_cosh_loss": (1, 1),
    "poisson_nll_loss": (1, 0),
    "gaussian_nll_loss": (0, 1),
    "gamma_nll_loss": (1, 0),
    "kl_div": (0, 1),
    "binary_cross_entropy": (0, 1),
    "binary_cross_entropy_with_logits": (1, 1),
    "sigmoid_focal_loss": (1, 1),
    "soft_margin_loss": (1, 1),
    "multilabel_soft_margin_loss": (1, 1),
    "cross_entropy": (1, 0),
}


@pytest.mark.parametrize("cell", SMALL.values(), ids=SMALL)
def test_work_of_cells(cell):
    arrays = cell.data()[0]
    n = arrays[0].size
    assert cell.entries == n
    work = cell.work(arrays)
    if cell.loss.startswith("ctc"):
        assert work is None
        return
    exps, logs = EXPS_AND_LOGS.get(cell.loss, (0, 0))
    written = sum(arrays[k].nbytes for k in range(losses()[cell.loss].wrt))
    for product in report.PRODUCTS:
        made = work[product]
        assert (made["exp"], made["log"]) == (exps * n, logs * n)
        assert made["write"] == (0 if product == "value" else written)
        if cell.spec.sparse is None:
            assert made["read"] == sum(x.nbytes for x in arrays)


def test_targets_that_select_one_logarithm():
    target = SMALL["binary_cross_entropy 64x10"].data()[0][1]
    assert set(np.unique(target)) == {0, 1}


@pytest.mark.parametrize("name", ["nll_loss 256x1000", "nll_loss 1Mix10"])
def test_sparse_reads(name):
    """The work has at most the cache lines that the labels select, and nearly all of them."""
    cell = next(c for c in cells() if c.name == name)
    (x, labels), _ = cell.data()
    rows, classes = x.shape
    entries = np.arange(rows) * classes + labels
    lines = len(np.unique(entries * x.itemsize // CACHE_LINE))
    read = cell.work((x, labels))["value"]["read"] - labels.nbytes
    assert 0.95 * read <= lines * CACHE_LINE
    assert lines * CACHE_LINE <= 1.05 * read


RATES = {
    "read_one": 10.0,
    "read_two": 20.0,
    "triad": 30.0,
    "copy": 40.0,
    "write": 5.0,
    "exp_calls": 2.0,
    "log_calls": 4.0,
}


def test_memory_limit_is_the_best_mix_of_loops():
    slow = RATES | {"triad": 1.0}
    assert memory_seconds(100, 0, RATES) == 100 / 20
    assert memory_seconds(0, 100, RATES) == 100 / 5
    assert memory_seconds(20, 20, RATES) == 40 / 40
    assert memory_seconds(20, 10, RATES) == pytest.approx(30 / 30)
    assert memory_seconds(20, 10, slow) == pytest.approx(20 / 40 + 10 / 20)
    assert memory_seconds(100, 20, slow) == pytest.approx(40 / 40 + 80 / 20)
    assert memory_seconds(20, 120, RATES) == pytest.approx(40 / 40 + 100 / 5)
    # Reading alone may be slower than reading along with writing.
    rates = RATES | {"read_one": 1.0, "read_two": 1.0}
    assert memory_seconds(90, 30, rates) == pytest.approx(90 / 30 + 30 / 1)


def test_limit_is_the_larger_of_memory_and_arithmetic():
    work = {"read": 80, "write": 20, "exp": 0, "log": 0}
    memory = memory_seconds(80, 20, RATES)
    assert least_seconds(work, RATES, cache=50) == memory
    assert least_seconds(work, RATES, cache=51) == 0
    assert least_seconds(work | {"exp": 4, "log": 8}, RATES, cache=100) == 2 + 2
    assert least_seconds(work | {"exp": 4, "log": 8}, RATES, cache=0) == max(memory, 4)


def test_shares_of_the_limit():
    result = made_up()["cells"][1]
    add_shares(result, RATES, cache=0)
    ours = [f for f in result["figures"] if f["peer"] == "fastloss"]
    assert [f["share"] for f in ours] == [5 / 20, 5 / 40, 5 / 40]
    small = made_up()["cells"][0]
    add_shares(small, RATES, cache=0)
    assert not any("share" in f for f in small["figures"])


@pytest.mark.complete_only
def test_measured_limits():
    with ExitStack() as stack:
        try:
            roofline = Roofline(stack.enter_context(Peer("roofline", 1)), "float32")
        except PeerError as error:
            pytest.skip(str(error))
        roofline.measure_round(1e-4)
        assert roofline.rates().keys() == RATES.keys()
        assert all(rate > 0 for rate in roofline.rates().values())
        amounts = [roofline._amounts[name] for name in ("write", "read_two", "copy", "triad")]
        assert amounts == [k * 4 * (16 << 20) for k in (1, 2, 2, 3)]
        roofline._times = {name: [2.0, 1.0, 4.0] for name in RATES}
        assert roofline.rates() == roofline._amounts  # the best round is the limit


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_snapshot_computes_exp_and_log(dtype):
    """And needs nothing of the library: only its own folder is searched for files to include."""
    try:
        library = with_roofline.build(dtype == "float64")
    except ImportError as error:
        pytest.skip(str(error))
    n = 8192 // np.dtype(dtype).itemsize
    x = np.arange(n) / n
    for name, f, low in (("exp_calls", np.exp, -1), ("log_calls", np.log, 0.5)):
        calls = getattr(library, name)(1, 0, None, None, None)
        total = ctypes.c_double.in_dll(library, "sink").value
        assert total == pytest.approx(calls / n * f(low + x).sum(), rel=1e-4)


def test_measured_loops_read_and_write():
    try:
        library = with_roofline.build(False)
    except ImportError as error:
        pytest.skip(str(error))
    x, y, z = (with_roofline.lines(1 << 16).view(np.uint64) for _ in range(3))
    assert not any(a.ctypes.data % CACHE_LINE for a in (x, y, z))
    x[:], y[:] = np.arange(x.size), 1 << 20
    expected = {"triad": x ^ y, "copy": x, "write": 0 * x}
    for name, written in expected.items():
        arguments = (ctypes.c_void_p(a.ctypes.data) for a in (x, y, z))
        getattr(library, name)(2, ctypes.c_int64(x.size), *arguments)
        np.testing.assert_array_equal(z, written)
    for name, total in (("read_one", x.sum()), ("read_two", (x ^ y).sum())):
        arguments = (ctypes.c_void_p(a.ctypes.data) for a in (x, y, z))
        getattr(library, name)(2, ctypes.c_int64(x.size), *arguments)
        assert ctypes.c_double.in_dll(library, "sink").value == total


# ---- neighbours


ONE, TWO, DEFAULT, TORCH, _ = variants_of(["torch"], 2)


def test_variants():
    assert [v.title for v in variants_of(["torch"], 4)] == [
        "one thread",
        "4 threads",
        "default",
        "torch, one thread",
        "torch, 4 threads",
    ]
    fixed = "FASTLOSS_FIXED_THREADS"
    assert [v.environment.get(fixed, "-") for v in (ONE, TWO, DEFAULT, TORCH)] == [*"11", None, "-"]


@pytest.mark.parametrize(("measure", "better"), [("mean", 6 / 3), (neighbours.CALLS, 6 / 4)])
def test_ratio_to_the_better_number_of_threads(measure, better):
    rounds = {
        ONE: [{measure: 4}, {measure: 3}, {measure: 3}],
        TWO: [{measure: 3}, {measure: 4}, {measure: 100}],
        DEFAULT: [{measure: 6}, {measure: 6}, {measure: 6}],
        TORCH: [{measure: 9}, {measure: 8}, {measure: 7}],
    }
    figures = figures_of("processes", "2 processes", rounds)
    assert [f["median"] for f in figures] == [3, 4, 6, 8]
    assert [f.get("to better") for f in figures] == [None, None, pytest.approx(better), None]
    assert figures[2]["to one"] == 2

    *_, row = filter(None, neighbours.table_lines(figures, [ONE, TWO, DEFAULT, TORCH]))
    assert row.split(" | ")[0] == "| 2 processes"
    assert row.split(" | ")[4:6] == [f"{better:.2f}x", "2.00x"]


def test_variant_that_failed_has_no_figures():
    figures = figures_of("burners", "1 burner", {ONE: [{"mean": 1}], DEFAULT: [{"mean": None}]})
    assert [f["variant"] for f in figures] == ["one thread", "default"]
    assert not any("to better" in f for f in figures)
    *_, row = filter(None, neighbours.table_lines(figures, [ONE, TWO, DEFAULT]))
    assert row == "| 1 burner | 1 s | - | - | - | - |"
    failures = {TWO: "broken", TORCH: "broken"}
    texts = list(neighbours.failure_texts(failures, [ONE, TWO, TORCH]))
    assert texts == [", fastloss (2 threads) and torch (one thread): broken"]
    assert list(neighbours.failure_texts(failures, [TWO, TORCH])) == [": broken"]


def test_figures_of_bursts():
    starts = list(range(40))
    seconds = [4] * 20 + [3, 1, 1, 1, 3, 1, 1, 1, 1, 1] + [4] * 8 + [1, 1]
    phases = [(10, 19.5), (30, 35)]
    figures = burst_figures(starts, seconds, phases, 40, limit=2)
    assert figures["mean during bursts"] == 4
    assert figures["mean between bursts"] == pytest.approx((14 + 14) / 15)
    # At once in the first burst, the median of five calls is 1; never in the second.
    assert figures[RECOVERY] == (0.5 + 5) / 2
    assert burst_figures(starts, seconds, phases, 40, limit=None)[RECOVERY] is None
    nothing = burst_figures([], [], phases, 40, limit=2)
    assert nothing["mean during bursts"] is None
    assert nothing[RECOVERY] == (10.5 + 5) / 2


def test_limit_of_recovery():
    assert neighbours.recovery_limit({ONE: 4, TWO: 2, TORCH: 9}, DEFAULT) == 3
    assert neighbours.recovery_limit({ONE: 4, TWO: 2}, ONE) is None
    assert neighbours.recovery_limit({ONE: 2, TWO: 4}, TWO) is None
    assert neighbours.recovery_limit({ONE: 4}, TWO) is None


def test_calls_before_the_beginning_are_not_recorded():
    calls, ahead = [], []
    starts, seconds = worker.timed_calls(
        lambda: calls.append(0), 0, 0, before=lambda: ahead.append(0)
    )
    assert len(starts) == len(seconds) == len(calls) == len(ahead) == 1


def test_worker_that_hangs_is_killed():
    with Peer("numpy", 1) as peer:
        peer.ask("prepare", CELL)
        peer.send("timed_calls", "value", 0, math.inf)
        with pytest.raises(PeerError, match="no answer in 0 s"):
            peer.answer(0.01)
        assert peer.ask("prepare", CELL)[0] == ["value", "gradient"]


def test_variant_whose_worker_ends_is_left_out():
    options = neighbours.options_of(["--rounds", "2", "--seconds", "0"])
    with ExitStack() as stack:
        bench = neighbours.Bench(options, [ONE, TWO])
        workers = neighbours.Workers(bench, stack)

        def turn(variant):
            if variant == TWO:
                workers.send(variant, 1, "timed_calls", "value", 0, math.inf)
                os.kill(workers.pid(variant), 9)
                workers.answers(variant, 1, 0)
            return {"mean": 1}

        bench.measure("some", "row", turn, lambda variant: workers.prepare(variant, CELL))
    assert [f["variant"] for f in bench.figures] == ["one thread"]
    assert bench.notes == [
        "left out: some, row, fastloss (2 threads): its process ended with status -9"
    ]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_burners_end():
    def interrupted():
        with Burners(2) as burners:
            pids.extend(burners.pids)
            burners.suspend()
            assert all(map(is_alive, pids))
            raise KeyboardInterrupt

    pids = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(pids) == 2
    assert not any(map(is_alive, pids))


def test_burners_end_with_their_parent():
    program = "import os; from benchmarks.load import Burners; b = Burners(1); b.suspend()"
    root = Path(__file__).parents[1]
    # The burner has the pipe of standard error, so that this returns when it has ended.
    command = [sys.executable, "-c", program + "; os._exit(0)"]
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=300)


def test_quota_is_removed(tmp_path):
    (tmp_path / "cpu").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        # A folder of the cgroup file system may be removed though it shows files.
        patch.setattr(Path, "rmdir", lambda folder: [f.unlink() for f in folder.iterdir()])
        with Quota(1.5, tmp_path) as quota:
            quota.add(1234)
            shown = {file.name: file.read_text() for file in quota.folder.iterdir()}
        assert not list(quota.folder.iterdir())
    assert shown == {
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
        "cgroup.procs": "1234",
    }


def test_quota_that_is_not_permitted(tmp_path):
    with pytest.raises(OSError, match="none"):
        Quota(1.5, tmp_path / "none")


@pytest.mark.complete_only
@pytest.mark.parametrize("name", pools.POOLS)
def test_pools(name):
    with Peer("numpy", 1) as peer:
        peer.ask("prepare", CELL)
        try:
            peer.ask("start_pool", name)
        except Missing as error:
            pytest.skip(str(error))
        starts, seconds = peer.ask("timed_calls_after_pool", "value", 0, 0)
    assert len(starts) == len(seconds) == 1


def test_every_pool_and_way_has_a_title():
    assert pools.POOLS.keys() == pools.TITLES.keys()
    assert callers.WAYS.keys() == callers.TITLES.keys()


@pytest.mark.parametrize("way", callers.WAYS)
def test_callers(way, tmp_path):
    callers.write_files(tmp_path, (20, 5))
    with Peer("fastloss", 1) as peer:
        peer.ask("prepare", CELL)
        try:
            rate = peer.ask("time_callers", way, 2, "out", 0, 0, str(tmp_path))
        except Missing as error:
            pytest.skip(str(error))
    assert rate > 0


def test_exception_in_a_caller():
    def new_call():
        def call():
            raise ValueError("refused")

        return call

    job = callers.Job(new_call, 2, 0, 0, None, None, 1)
    with pytest.raises(ValueError, match="refused"):
        callers.threads(job)


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
        work = {"read": 100, "write": 0, "exp": 0, "log": 0}
        made = {
            "cell": cell,
            "loss": "mse_loss",
            "group": group,
            "entries": 10**9,
            "work": dict.fromkeys(report.PRODUCTS, work),
            "figures": [*ours, *theirs, wrong],
        }
        add_ratios(made["figures"])
        results.append(made)
    return {
        "kind": "cells",
        "command": "python -m benchmarks --json run.json",
        "date": "2026-01-02",
        "processor": "Some CPU",
        "python": "3.13",
        "threads": 2,
        "versions": {"fastloss": "1 (avx2) from src", "torch": "2", "numpy": "3"},
        "limits": RATES,
        "means": means(results),
        "cells": results,
    }


def test_geometric_means():
    made = made_up()
    made["cells"][0]["figures"][3]["ratio"]["value"] = 8
    found = means(made["cells"])["torch"]["all"]["value"]
    assert found == {"mean": pytest.approx(4), "smallest": 2, "cell": "mse_loss 16Mi", "cells": 2}


def with_jax_and_a_commit():
    """The run above; JAX is faster than PyTorch by value in the small cell, and a commit faster
    than both."""
    made = made_up()
    small, large = made["cells"]
    small["figures"] += [figure("jax", "value", 3), figure("jax", "gradient", 36)]
    large["figures"] += [figure("jax", "value", 80), figure("fastloss a10cbad", "out", 20)]
    small["figures"] += [figure("fastloss a10cbad", "value", 1)]
    for result in made["cells"]:
        add_ratios(result["figures"])
    made["versions"] |= {"jax": "4", "fastloss a10cbad": "1"}
    return made | {"means": means(made["cells"])}


def test_ratio_to_the_fastest_library_of_each_cell():
    made = with_jax_and_a_commit()
    value = {"mean": pytest.approx(math.sqrt(1.5 * 2)), "smallest": 1.5, "cell": "mse_loss 64x10"}
    assert fastest_means(made["cells"])["all"]["value"] == value | {"cells": 2}
    # The fastest by value need not be the fastest with the gradient.
    assert fastest_means(made["cells"])["small"]["out"]["mean"] == pytest.approx(8)
    page = list(report.means_section(made))
    assert f"| {FASTEST} | small | 1 | 1.50x (1.50x) | 8.00x (8.00x) | 8.00x (8.00x) |" in page
    assert "| fastloss a10cbad | large | 1 | - | - | 0.50x (0.50x) |" in page
    small, large = "`mse_loss 64x10`", "`mse_loss 16Mi`"
    assert f"- Smallest ratios, value: 1.50x {small} (JAX), 2.00x {large} (PyTorch)" in page
    assert f"| {FASTEST} | 1.50x (1.50x) | 2.00x (2.00x) |" in "\n".join(report.summary(made))
    assert any(line.startswith(f"{FASTEST}, small (1 cells)") for line in closing_lines(made))
    # A single library has no fastest one.
    assert FASTEST not in "\n".join([*report.means_section(made_up()), *closing_lines(made_up())])


def test_report_writes_the_documents(tmp_path):
    pytest.importorskip("matplotlib")
    run, docs, readme = tmp_path / "run.json", tmp_path / "docs", tmp_path / "README.md"
    docs.mkdir()
    begin, end = report.MARKERS

    def write(made):
        run.write_text(json.dumps(made))
        readme.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
        assert report.main([str(run), "--root", str(tmp_path)]) == 0
        return (docs / "performance.md").read_text()

    front = write(made_up())
    shown = readme.read_text()
    assert shown.startswith(f"before\n{begin}\n")
    assert shown.endswith(f"{end}\nafter\n")
    assert "old" not in shown
    assert "| PyTorch | 2.00x (2.00x) | 2.00x (2.00x) | 8.00x (8.00x) | 8.00x (8.00x) |" in shown
    assert "Some CPU, 2 threads, Python 3.13, 2026-01-02" in shown
    page = (docs / "performance-avx2.md").read_text()
    assert "| cell | fastloss | ns per entry | of the limit | PyTorch | NumPy |" in page
    assert "| `mse_loss 16Mi` | 20 s ±1% | 20 | - | 40 s ±1%, 2.00x | - |" in page
    assert "- refused: `mse_loss 16Mi`, NumPy, value: value 1 where fastloss has 2" in page
    for name, folder in (("performance.png", "docs/"), ("performance-narrow.png", "docs/")):
        assert (tmp_path / folder / name).read_bytes().startswith(b"\x89PNG")
        assert f'"{name}"' in front
        assert f'"{folder}{name}"' in shown
    assert "over PyTorch for each loss" in front
    assert "from 2.00x to 8.00x" in front

    # Another instruction set has columns of its own, and the first one keeps its page.
    other = made_up() | {"date": "2026-02-03", "processor": "Another CPU"}
    other["versions"]["fastloss"] = "1 (avx512)"
    other["limits"] = None
    del other["cells"][1]
    other["cells"][0]["figures"][0]["median"] = 1
    front = write(other)
    assert (docs / "performance-avx2.md").read_text() == page
    assert "|  | [AVX-512](performance-avx512.md) | [AVX2](performance-avx2.md) |" in front
    assert "| Date | 2026-02-03 | 2026-01-02 |" in front
    assert "| Limit: reading one array | - | 1e-08 GB/s |" in front
    assert "| `mse_loss 64x10` | 1 | 2 | - | - | 2.00x (PyTorch) | 2.00x (PyTorch) |" in front
    assert "| `mse_loss 16Mi` | - | 20 | - | - | - | 2.00x (PyTorch) |" in front


def test_rows_have_a_column_for_each_head():
    made = with_jax_and_a_commit()
    made["cells"][0]["figures"][0] |= {"median": None, "refused": "value nan"}
    peers = list(made["versions"])
    rows = list(report.cell_rows(made, "value", peers))
    assert {len(row) for row in rows} == {len(peers) + 3}
    assert rows[0][:4] == ["`mse_loss 64x10`", "-", "-", "-"]


def test_readme_has_the_markers():
    shown = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert [shown.count(marker) for marker in report.MARKERS] == [1, 1]


def test_every_peer_has_a_title_and_a_style():
    assert set(TITLES) == set(chart.STYLES) == set(NAMES)


# ---- commits


OLDER = """
import numpy as np

def set_num_threads(n): pass
def show_config(form): return {"instruction set": "none"}

__version__ = "0.0.1"

def mse_loss(x, y):
    return float(np.mean((x - y) ** 2, dtype=np.float64))

def value_and_grad(x, y, out=None):
    return mse_loss(x, y), np.multiply(x - y, 2 / x.size, out=out)

mse_loss.value_and_grad = value_and_grad
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository, in place of this one, whose last commit has a package in Python."""
    if not shutil.which("git"):
        pytest.skip("needs git")
    root = tmp_path / "repository"
    package = root / "src" / "fastloss"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(OLDER)
    (root / "setup.py").write_text("import sys\nprint('arguments', sys.argv)\nsys.exit(0)\n")
    monkeypatch.setattr(commits, "ROOT", root)
    monkeypatch.setattr(commits, "FOLDER", tmp_path / "commits")
    identity = {
        f"GIT_{who}_{what}": "t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    for name, value in identity.items():
        monkeypatch.setenv(name, value)
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "older"]):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    return root


@pytest.mark.complete_only
def test_commit_runs_as_a_peer(repository, tmp_path, capfd):
    file = tmp_path / "run.json"
    (repository / "src" / "fastloss" / "__init__.py").write_text(
        "raise ValueError('not committed')"
    )
    options = ["--filter", "^(mse|l1)_loss 64x10$", "--threads", "1", "--json", str(file)]
    options += ["--quick", "--peers", "numpy", "--rounds", "2", "--commit", "HEAD"]
    assert command.main(options) == 0
    made = json.loads(file.read_text())
    head = commits.git("HEAD", "rev-parse", "HEAD").decode()
    name = f"fastloss {head[:7]}"
    assert made["means"].keys() == {name, "numpy"}
    assert made["versions"][name].startswith("0.0.1 (none) from ")
    absent, result = made["cells"]  # the commit has no l1_loss
    assert not [f for f in absent["figures"] if f["peer"] == name]
    figures = {f["product"]: f for f in result["figures"] if f["peer"] == name}
    assert list(figures) == list(report.PRODUCTS)
    for product, figure in figures.items():
        assert len(figure["rounds"]) == 2
        assert list(figure["ratio"]) == [product]  # its out= against fastloss's
    assert name in capfd.readouterr().out


def test_commit_is_built_in_place_once_extracted(repository):
    name, path = commits.build("HEAD")
    (path / "object").write_text("kept")
    assert commits.build("HEAD~0") == (name, path)
    assert sorted(p.name for p in path.iterdir()) == ["fastloss", "object"]
    assert [p.name for p in commits.FOLDER.iterdir()] == [path.parent.name]


def test_build_that_fails(repository):
    (repository / "setup.py").write_text("raise SystemExit('no compiler here')")
    subprocess.run(["git", "commit", "-q", "-a", "-m", "broken"], cwd=repository, check=True)
    with pytest.raises(
        SystemExit, match=r"(?s)--commit HEAD: fastloss .* does not build.*no compiler here"
    ):
        commits.build("HEAD")
    commits.build("HEAD~1")


def test_commit_that_is_not_there(repository, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"--commit nothing: git: .*bad revision 'nothing'"):
        commits.build("nothing")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(commits, "ROOT", tmp_path / "elsewhere")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(SystemExit, match=r"--commit HEAD: git: .*not a git repository"):
        commits.build("HEAD")
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    with pytest.raises(SystemExit, match=r"--commit HEAD: git is not installed"):
        commits.build("HEAD")


def test_build_that_is_not_imported(tmp_path):
    with ExitStack() as stack, pytest.raises(SystemExit, match="fastloss 1234567 is not imported"):
        open_peers(stack, [], 1, builds={"fastloss 1234567": tmp_path}, report=lambda line: None)


# ---- command lines


def run(*arguments):
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.complete_only
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

    options = ["--rounds", "1", "--seconds", "1e-3", "--period", "1", "--burst", "1e-3"]
    options += ["--processes", "2", "--callers", "2", "--json", str(file)]
    options += ["--peers", "numpy", "--filter", "2 proc|0 b|no other|every|quota|alone|Python"]
    shown = run("benchmarks.neighbours", *options)
    figures = json.loads(file.read_text())["figures"]
    rows = {(f["scenario"], f["row"]) for f in figures if f["peer"] == "numpy"}
    assert rows - {("quota", "1.5 CPUs")} == {
        ("processes", "2 processes"),
        ("burners", "0 burners"),
        ("long", "0 burners"),
        ("pools", "no other library"),
        ("bursts", "every 0.001 s"),
        ("sporadic", "alone"),
        ("callers", "2 Python threads"),
    }
    assert ("quota", "1.5 CPUs") in rows or "left out: quota, 1.5 CPUs: " in shown
    assert all(math.isfinite(f["median"]) for f in figures if f["median"] is not None)

    options = ["--filter", CELL.name, "--rounds", "1", "--json", str(file)]
    run("benchmarks.scaling", "--threads", "2", *options)
    assert len(json.loads(file.read_text())["cells"][0]["figures"]) == 6

    options = ["--filter", "brier_score_loss", "--rounds", "1", "--seconds", "1e-3"]
    shown = run("benchmarks.sklearn_metrics", *options, "--json", str(file))
    assert shown.count("| brier_score_loss") == 3
    assert len(json.loads(file.read_text())["figures"]) == 6

    assert "200 blocks" in run("benchmarks.dask_blocks", "--rows", "1000", "--rounds", "1")

    assert "192 threads" in run("benchmarks.many_cores")

    run("benchmarks.startup", "--runs", "1", "--json", str(file))
    assert len(json.loads(file.read_text())["figures"]) == 3
