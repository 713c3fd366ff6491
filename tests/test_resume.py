"""Interrupted evaluations resume from their checkpoint, with bitwise identical results."""

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
from fastloss.evaluation import evaluator
from fastloss.evaluation.checkpoint import CheckpointFile
from fastloss.evaluation.sources import open_labels

ROWS, CLASSES = 60_000, 10

CHILD = """
import json, sys
import fastloss as fl
from fastloss.evaluation import evaluator
evaluator.CHECKPOINT_SECONDS, evaluator.CHECKPOINT_FRACTION = 0.0, 1.0
folder, by_class = sys.argv[1], sys.argv[2] == "class"
results = fl.evaluate(
    [fl.CrossEntropyLoss(label_smoothing=0.1), fl.CrossEntropyLoss()],
    f"{folder}/x.npy", f"{folder}/y.npy", sample_weight=f"{folder}/w.npy",
    by="class" if by_class else f"{folder}/group.npy",
    per_sample=[f"{folder}/losses.npy", None], state=f"{folder}/state.json", chunk_rows=1,
    progress=lambda done, total: (print(done, flush=True), sys.stdin.readline()),
)
print(json.dumps([result.accumulator.to_dict() for result in results]))
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
    """A process that prints a line after every chunk, and waits for one before the next."""
    command = [sys.executable, "-c", CHILD, str(folder), by]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(folder, by):
    """Runs an evaluation to its end: (number of chunks, totals, bytes of the losses)."""
    child = start(folder, by)
    *chunks, totals = child.communicate("\n" * ROWS)[0].splitlines()
    assert child.returncode == 0
    assert not (folder / "state.json").exists()
    losses = (folder / "losses.npy").read_bytes()
    (folder / "losses.npy").unlink()
    return len(chunks), totals, losses


@pytest.mark.parametrize("by", ["class", "group"])
@pytest.mark.rotate("by")
def test_a_killed_evaluation_resumes_bitwise(data, by):
    chunks, totals, losses = finish(data, by)
    rng = random.Random(by)
    resumed = 0
    for _ in range(10):
        for _ in range(rng.randint(1, 3)):
            child = start(data, by)
            for _ in range(rng.randint(2, chunks // 3 - 1)):  # a chunk is reported, then saved
                child.stdout.readline()
                child.stdin.write("\n")
                child.stdin.flush()
            time.sleep(rng.uniform(0, 0.002))  # within a chunk, or while saving
            child.kill()
            child.communicate()
            assert child.returncode == -signal.SIGKILL
        remaining, *results = finish(data, by)
        assert results == [totals, losses]
        resumed += remaining < chunks
    assert resumed == 10
    assert sorted(p.name for p in data.iterdir()) == ["group.npy", "w.npy", "x.npy", "y.npy"]


# ---- within one process --------------------------------------------------------------------------


class Stop(Exception):
    pass


def stop_after(count):
    """A progress callback that raises after `count` chunks."""
    seen = []

    def progress(done, total):
        seen.append(done)
        if len(seen) > count:
            raise Stop

    return progress


@pytest.fixture
def interrupted(data, tmp_path, monkeypatch):
    """The paths and options of an evaluation that was stopped."""
    monkeypatch.setattr(evaluator, "CHECKPOINT_SECONDS", 0.0)
    state = tmp_path / "state.json"
    options = {"state": state, "per_sample": tmp_path / "losses.npy", "chunk_rows": 1}
    paths = [data / "x.npy", data / "y.npy"]
    with pytest.raises(Stop):
        fl.evaluate(fl.CrossEntropyLoss(), *paths, **options, progress=stop_after(3))
    return paths, options


def test_an_exception_leaves_a_checkpoint(interrupted, data):
    paths, options = interrupted
    assert json.loads(options["state"].read_text())["position"] > 0
    assert not options["per_sample"].exists()
    seen = []
    result = fl.evaluate(
        fl.CrossEntropyLoss(), *paths, **options, progress=lambda done, total: seen.append(done)
    )
    x, y = map(np.load, paths)
    assert result.value == fl.cross_entropy(x, y)
    assert result.bytes == seen[-1] == x.nbytes + y.nbytes
    assert len(seen) < -(-ROWS // fl.cross_entropy._rows_per_block(x.shape))
    np.testing.assert_array_equal(
        np.load(options["per_sample"]), fl.cross_entropy(x, y, reduction="none")
    )
    assert not options["state"].exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"criterion": fl.CrossEntropyLoss(label_smoothing=0.1)}, "criteria was"),
        ({"criterion": [fl.CrossEntropyLoss()] * 2, "per_sample": ["a.npy", "b.npy"]}, "criteria "),
        ({"by": "class"}, "criteria was"),
        ({"per_sample": None}, "per_sample was"),
        ({"swap": True}, "data was"),
        ({"touch": True}, "data was"),
    ],
)
def test_the_state_of_another_evaluation_is_refused(interrupted, change, message):
    paths, options = interrupted
    change = dict(change)
    if change.pop("touch", False):
        os.utime(paths[1], ns=(5, 5))
    if change.pop("swap", False):
        np.save(paths[0].parent.parent / "other.npy", np.load(paths[0]))
        paths = [paths[0].parent.parent / "other.npy", paths[1]]
    options = {"criterion": fl.CrossEntropyLoss(), **options, **change}
    before = options["state"].read_text()
    with pytest.raises(ValueError, match=rf"state\.json is the state of another .*: {message}"):
        fl.evaluate(options.pop("criterion"), *paths, **options)
    assert options["state"].read_text() == before


def test_a_chunk_that_only_some_criteria_accepted_is_evaluated_again(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluator, "CHECKPOINT_SECONDS", 0.0)
    x, y = np.random.default_rng(3).uniform(size=(2, 50_000))
    y[40_000] = 2.0
    options = {"state": tmp_path / "state.json", "chunk_rows": 1}
    criteria = [fl.L1Loss(), fl.BCELoss()]
    with pytest.raises(ValueError, match=r"target\[40000\] = 2.0"):
        fl.evaluate(criteria, x, y, **options)
    y[40_000] = 0.5
    results = fl.evaluate(criteria, x, y, **options)
    assert [r.value for r in results] == [fl.l1_loss(x, y), fl.binary_cross_entropy(x, y)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not the state of an evaluation"),
        ("{}", "is not the state of an evaluation"),
        ("[1]", "is not the state of an evaluation"),
        ("\0\0", "is not the state of an evaluation"),
        ('{"version": 1}', r"of version 1, and this fastloss reads version 2: .*delete the file"),
        ('{"version": 99}', r"of version 99, and this fastloss reads version 2: .*delete the file"),
    ],
)
def test_other_files_and_versions_are_refused_and_kept(data, tmp_path, text, message):
    state = tmp_path / "state.json"
    state.write_text(text)
    with pytest.raises(ValueError, match=rf"state\.json .*{message}"):
        fl.evaluate(fl.CrossEntropyLoss(), data / "x.npy", data / "y.npy", state=state)
    assert state.read_text() == text


def test_a_state_must_be_a_regular_file(data):
    with pytest.raises(ValueError, match="/dev/null is not a regular file"):
        fl.evaluate(fl.CrossEntropyLoss(), data / "x.npy", data / "y.npy", state="/dev/null")


def test_lost_losses_are_an_error(interrupted):
    paths, options = interrupted
    (part,) = options["per_sample"].parent.glob(".losses.npy.part")
    os.truncate(part, 200)
    with pytest.raises(ValueError, match=r"lost losses that were written.*delete the state file"):
        fl.evaluate(fl.CrossEntropyLoss(), *paths, **options)
    part.unlink()
    with pytest.raises(FileNotFoundError, match=r"losses\.npy"):
        fl.evaluate(fl.CrossEntropyLoss(), *paths, **options)


@pytest.mark.skipif(os.name != "posix", reason="no locks")
def test_concurrent_evaluations_cannot_share_a_file_of_losses(interrupted):
    paths, options = interrupted
    x, y = map(np.load, paths)

    def start_another(done, total):
        with pytest.raises(ValueError, match=r"another evaluation is writing .*losses\.npy"):
            fl.evaluate(fl.CrossEntropyLoss(), *paths, **options)

    fl.evaluate(fl.CrossEntropyLoss(), *paths, **options, progress=start_another)
    expected = fl.cross_entropy(x, y, reduction="none")
    np.testing.assert_array_equal(np.load(options["per_sample"]), expected)


def test_batches_resume(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluator, "CHECKPOINT_SECONDS", 0.0)
    rng = np.random.default_rng(2)
    batches = [(rng.normal(size=n), rng.normal(size=n)) for n in (3, 1000, 0, 7, 20_000, 5)]
    out = np.zeros(21_015)
    options = {"state": tmp_path / "state.json", "per_sample": out}
    with pytest.raises(Stop):
        fl.evaluate(fl.MSELoss(), iter(batches), **options, progress=stop_after(2))
    expected = fl.evaluate(fl.MSELoss(), batches)
    assert fl.evaluate(fl.MSELoss(), iter(batches), **options).value == expected.value
    np.testing.assert_array_equal(out, np.concatenate([(x - y) ** 2 for x, y in batches]))


def stop_after_first(state, *data):
    """Writes a checkpoint after the first chunk or batch."""

    def stop(done, total):
        raise Stop

    with pytest.raises(Stop):
        fl.evaluate(fl.mse_loss, *data, state=state, progress=stop)


def test_other_arrays_in_memory_are_refused(tmp_path):
    state, (x, y) = tmp_path / "state.json", np.random.default_rng(5).uniform(size=(2, 3000))
    labels = np.where(y > 0.5, "a", "b")
    stop_after_first(state, x, y)
    for data in ((x + 1, y), (x, y[::-1])):
        with pytest.raises(ValueError, match="state of another evaluation: data was"):
            fl.evaluate(fl.mse_loss, *data, state=state)
    assert fl.evaluate(fl.mse_loss, x, y, state=state).value == fl.mse_loss(x, y)
    fingerprints = [open_labels(by, "by").fingerprint() for by in (labels, labels[::-1])]
    assert fingerprints[0] != fingerprints[1]


def test_fewer_batches_than_before_are_an_error(tmp_path):
    state = tmp_path / "state.json"
    stop_after_first(state, [([1.0], [2.0])] * 2)
    with pytest.raises(ValueError, match="there are 0 batches, but the state has done 1"):
        fl.evaluate(fl.mse_loss, [], state=state)


@pytest.mark.parametrize(
    "damage",
    [
        {"position": -1},
        {"position": 1.5},
        {"bytes": None},
        {"seconds": "x"},
        {"rows_written": []},
        {"accumulators": []},
        {"identity": None},
    ],
    ids=str,
)
def test_a_damaged_state_is_refused(damage, tmp_path):
    state, x = tmp_path / "state.json", np.ones(9)
    stop_after_first(state, x, x)
    state.write_text(json.dumps(json.loads(state.read_text()) | damage))
    with pytest.raises(ValueError, match="is not the state of an evaluation"):
        fl.evaluate(fl.mse_loss, x, x, state=state)


def test_checkpoints_are_rare(data, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(CheckpointFile, "save", lambda self, **entries: saved.append(entries))
    fl.evaluate(
        fl.MSELoss(), data / "w.npy", data / "w.npy", state=tmp_path / "state", chunk_rows=1
    )
    assert len(saved) <= 2
