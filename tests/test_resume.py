"""Evaluations that were killed go on from their state, and give the bits of one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fastloss as fl
from fastloss.evaluation import chunks, evaluator

ROWS, CLASSES = 60_000, 10

CHILD = """
import json, sys
import fastloss as fl
from fastloss.evaluation import chunks, evaluator
evaluator.SAVE_SECONDS, evaluator.SAVE_SHARE = 0.0, 1.0
folder, by_class = sys.argv[1], sys.argv[2] == "class"
found = fl.evaluate(
    [fl.CrossEntropyLoss(label_smoothing=0.1), fl.CrossEntropyLoss()],
    f"{folder}/x.npy", f"{folder}/y.npy", sample_weight=f"{folder}/w.npy",
    by="class" if by_class else f"{folder}/group.npy",
    per_sample=[f"{folder}/losses.npy", None], state=f"{folder}/state.json", chunk_rows=1,
    progress=lambda done, total: (print(done, flush=True), sys.stdin.readline()),
)
print(json.dumps([a.accumulator.to_dict() for a in found]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(1)
    np.save(folder / "x.npy", rng.normal(size=(ROWS, CLASSES)).astype(np.float32))
    np.save(folder / "y.npy", rng.integers(0, CLASSES, ROWS))
    np.save(folder / "w.npy", rng.uniform(0, 2, ROWS))
    np.save(folder / "group.npy", rng.integers(0, 3, ROWS))
    return folder


def start(folder, by):
    """A process that tells of every chunk, and waits to be told to go on."""
    command = [sys.executable, "-c", CHILD, str(folder), by]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(folder, by):
    """The totals, and the bytes of the losses."""
    child = start(folder, by)
    *chunks, totals = child.communicate("\n" * ROWS)[0].splitlines()
    assert child.returncode == 0
    assert not (folder / "state.json").exists()
    losses = (folder / "losses.npy").read_bytes()
    (folder / "losses.npy").unlink()
    return len(chunks), totals, losses


@pytest.mark.parametrize("by", ["class", "group"])
def test_killed_at_any_moment_it_gives_the_same_bits(data, by):
    chunks, totals, losses = finish(data, by)
    dice = random.Random(by)
    went_on = 0
    for _ in range(10):
        for _ in range(dice.randint(1, 3)):
            child = start(data, by)
            for _ in range(dice.randint(2, chunks // 3 - 1)):  # told before it is saved
                child.stdout.readline()
                child.stdin.write("\n")
                child.stdin.flush()
            time.sleep(dice.uniform(0, 0.002))  # somewhere within a chunk, or within saving
            child.kill()
            child.communicate()
            assert child.returncode == -signal.SIGKILL
        left, *same = finish(data, by)
        assert same == [totals, losses]
        went_on += left < chunks
    assert went_on == 10
    assert sorted(p.name for p in data.iterdir()) == ["group.npy", "w.npy", "x.npy", "y.npy"]


# ---- Within one process --------------------------------------------------------------------------


class Stop(Exception):
    pass


def stop_after(count):
    seen = []

    def progress(done, total):
        seen.append(done)
        if len(seen) > count:
            raise Stop

    return progress


@pytest.fixture
def begun(data, tmp_path, monkeypatch):
    """The arguments of an evaluation that was stopped."""
    monkeypatch.setattr(evaluator, "SAVE_SECONDS", 0.0)
    state = tmp_path / "state.json"
    arguments = {"state": state, "per_sample": tmp_path / "losses.npy", "chunk_rows": 1}
    paths = [data / "x.npy", data / "y.npy"]
    with pytest.raises(Stop):
        fl.evaluate(fl.CrossEntropyLoss(), *paths, **arguments, progress=stop_after(3))
    return paths, arguments


def test_what_stops_keeps_its_state(begun, data):
    paths, arguments = begun
    assert json.loads(arguments["state"].read_text())["place"] > 0
    assert not arguments["per_sample"].exists()
    seen = []
    found = fl.evaluate(
        fl.CrossEntropyLoss(), *paths, **arguments, progress=lambda done, total: seen.append(done)
    )
    x, y = map(np.load, paths)
    assert found.value == fl.cross_entropy(x, y)
    assert found.bytes == seen[-1] == x.nbytes + y.nbytes
    assert len(seen) < -(-ROWS // fl.cross_entropy._rows_per_block(x.shape))
    np.testing.assert_array_equal(
        np.load(arguments["per_sample"]), fl.cross_entropy(x, y, reduction="none")
    )
    assert not arguments["state"].exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"criterion": fl.CrossEntropyLoss(label_smoothing=0.1)}, "criteria was"),
        ({"by": "class"}, "criteria was"),
        ({"per_sample": None}, "per_sample was"),
        ({"swap": True}, "data was"),
        ({"touch": True}, "data was"),
    ],
)
def test_another_evaluation_is_told(begun, change, message):
    paths, arguments = begun
    change = dict(change)
    if change.pop("touch", False):
        os.utime(paths[1], ns=(5, 5))
    if change.pop("swap", False):
        np.save(paths[0].parent.parent / "other.npy", np.load(paths[0]))
        paths = [paths[0].parent.parent / "other.npy", paths[1]]
    arguments = {"criterion": fl.CrossEntropyLoss(), **arguments, **change}
    before = arguments["state"].read_text()
    with pytest.raises(ValueError, match=rf"state\.json is of another evaluation: {message}"):
        fl.evaluate(arguments.pop("criterion"), *paths, **arguments)
    assert arguments["state"].read_text() == before


def test_a_chunk_that_one_criterion_has_and_another_has_not_is_not_done(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluator, "SAVE_SECONDS", 0.0)
    x, y = np.random.default_rng(3).uniform(size=(2, 50_000))
    y[40_000] = 2.0
    arguments = {"state": tmp_path / "state.json", "chunk_rows": 1}
    both = [fl.L1Loss(), fl.BCELoss()]
    with pytest.raises(ValueError, match=r"target\[40000\] = 2.0"):
        fl.evaluate(both, x, y, **arguments)
    y[40_000] = 0.5
    found = fl.evaluate(both, x, y, **arguments)
    assert [f.value for f in found] == [fl.l1_loss(x, y), fl.binary_cross_entropy(x, y)]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"version": 99}', "\0\0"])
def test_a_file_that_is_no_state_is_told_and_kept(data, tmp_path, text):
    state = tmp_path / "state.json"
    state.write_text(text)
    with pytest.raises(ValueError, match=r"state\.json is no state of an evaluation"):
        fl.evaluate(fl.CrossEntropyLoss(), data / "x.npy", data / "y.npy", state=state)
    assert state.read_text() == text


def test_a_state_is_a_regular_file(data):
    with pytest.raises(ValueError, match="/dev/null is not a regular file"):
        fl.evaluate(fl.CrossEntropyLoss(), data / "x.npy", data / "y.npy", state="/dev/null")


def test_losses_that_were_lost_are_told(begun):
    paths, arguments = begun
    (part,) = arguments["per_sample"].parent.glob(".losses.npy.part")
    os.truncate(part, 200)
    with pytest.raises(ValueError, match=r"lost what was written to it.*delete the state file"):
        fl.evaluate(fl.CrossEntropyLoss(), *paths, **arguments)
    part.unlink()
    with pytest.raises(FileNotFoundError, match=r"losses\.npy"):
        fl.evaluate(fl.CrossEntropyLoss(), *paths, **arguments)


@pytest.mark.skipif(os.name != "posix", reason="no locks")
def test_two_at_once_do_not_share_their_losses(begun):
    paths, arguments = begun
    x, y = map(np.load, paths)

    def start_another(done, total):
        with pytest.raises(ValueError, match=r"another evaluation writes .*losses\.npy"):
            fl.evaluate(fl.CrossEntropyLoss(), *paths, **arguments)

    fl.evaluate(fl.CrossEntropyLoss(), *paths, **arguments, progress=start_another)
    expected = fl.cross_entropy(x, y, reduction="none")
    np.testing.assert_array_equal(np.load(arguments["per_sample"]), expected)


def test_batches_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluator, "SAVE_SECONDS", 0.0)
    rng = np.random.default_rng(2)
    batches = [(rng.normal(size=n), rng.normal(size=n)) for n in (3, 1000, 0, 7, 20_000, 5)]
    out = np.zeros(21_015)
    arguments = {"state": tmp_path / "state.json", "per_sample": out}
    with pytest.raises(Stop):
        fl.evaluate(fl.MSELoss(), iter(batches), **arguments, progress=stop_after(2))
    whole = fl.evaluate(fl.MSELoss(), batches)
    assert fl.evaluate(fl.MSELoss(), iter(batches), **arguments).value == whole.value
    np.testing.assert_array_equal(out, np.concatenate([(x - y) ** 2 for x, y in batches]))


def stopped(state, *data):
    """A state of the first chunk or batch."""

    def stop(done, total):
        raise Stop

    with pytest.raises(Stop):
        fl.evaluate(fl.mse_loss, *data, state=state, progress=stop)


def test_other_arrays_in_memory_are_told(tmp_path):
    state, (x, y) = tmp_path / "state.json", np.random.default_rng(5).uniform(size=(2, 3000))
    labels = np.where(y > 0.5, "a", "b")
    stopped(state, x, y)
    for data in ((x + 1, y), (x, y[::-1])):
        with pytest.raises(ValueError, match="of another evaluation: data was"):
            fl.evaluate(fl.mse_loss, *data, state=state)
    assert fl.evaluate(fl.mse_loss, x, y, state=state).value == fl.mse_loss(x, y)
    fingerprints = [chunks._open_labels(by, "by").fingerprint() for by in (labels, labels[::-1])]
    assert fingerprints[0] != fingerprints[1]


def test_batches_that_are_no_longer_there(tmp_path):
    state = tmp_path / "state.json"
    stopped(state, [([1.0], [2.0])] * 2)
    with pytest.raises(ValueError, match="there are 0 batches, and 1 are done"):
        fl.evaluate(fl.mse_loss, [], state=state)


@pytest.mark.parametrize(
    "wrong",
    [
        {"place": -1},
        {"place": 1.5},
        {"bytes": None},
        {"seconds": "x"},
        {"written": []},
        {"accumulators": []},
        {"plan": None},
    ],
    ids=str,
)
def test_a_damaged_state(wrong, tmp_path):
    state, x = tmp_path / "state.json", np.ones(9)
    stopped(state, x, x)
    state.write_text(json.dumps(json.loads(state.read_text()) | wrong))
    with pytest.raises(ValueError, match="is no state of an evaluation"):
        fl.evaluate(fl.mse_loss, x, x, state=state)


def test_it_saves_now_and_then_only(data, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(evaluator._StateFile, "save", lambda self, **kept: saved.append(kept))
    fl.evaluate(
        fl.MSELoss(), data / "w.npy", data / "w.npy", state=tmp_path / "state", chunk_rows=1
    )
    assert len(saved) <= 2
