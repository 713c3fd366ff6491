"""Interrupted evaluations resume from their checkpoint, with bitwise identical results."""

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastloss as fl
from fastloss.evaluation import checkpoint, evaluator, files
from fastloss.evaluation.checkpoint import CheckpointFile
from fastloss.evaluation.sources import open_labels
from tests.faulty_files import FaultyDisk, PowerCut

if os.name == "posix":
    import resource

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


@pytest.mark.complete_only
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
        ('{"version": 1}', r"of version 1, and this fastloss reads version 5: .*delete the file"),
        ('{"version": 99}', r"of version 99, and this fastloss reads version 5: .*delete the file"),
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
    (part,) = options["per_sample"].parent.glob(".losses.npy.*.part")
    losses = part.read_bytes()
    for damaged in (losses[:200], losses[:500] + b"\0" * 8 + losses[508:]):
        part.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"lost losses that were wr.*delete the state file"):
            fl.evaluate(fl.CrossEntropyLoss(), *paths, **options)
        assert part.read_bytes() == damaged
    part.unlink()
    with pytest.raises(FileNotFoundError, match=r"losses\.npy"):
        fl.evaluate(fl.CrossEntropyLoss(), *paths, **options)


@pytest.mark.skipif(os.name != "posix", reason="no locks")
def test_concurrent_evaluations_cannot_share_a_state(interrupted):
    paths, options = interrupted
    x, y = map(np.load, paths)
    link = options["state"].with_name("link.json")
    link.symlink_to(options["state"])

    def start_another(done, total):
        for state in (options["state"], link):
            with pytest.raises(
                ValueError, match=r"another evaluation is using .*\.json: each need"
            ):
                fl.evaluate(fl.CrossEntropyLoss(), *paths, **options | {"state": state})

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
        {"written": []},
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


def other_batches(batches):
    """Batches that are not those given, by what is different."""
    x, y = batches[0]
    changed = x.copy()
    changed[-1, -1] = np.nextafter(changed[-1, -1], np.inf)
    return {
        "another order": batches[::-1],
        "two swapped": [batches[1], batches[0], *batches[2:]],
        "one entry": [(changed, y), *batches[1:]],
        "one entry of the targets": [(x, np.where(np.arange(len(y)) == 7, 1 - y, y)), *batches[1:]],
        "half the size": [(x[k : k + 5], y[k : k + 5]) for x, y in batches for k in (0, 5)],
        "twice the size": [
            tuple(map(np.concatenate, zip(*batches[k : k + 2], strict=True)))
            for k in range(0, len(batches), 2)
        ],
        "another dtype": [(x.astype(np.float64), y) for x, y in batches],
        "another dtype of the targets": [(x, y.astype(np.int32)) for x, y in batches],
        "weights": [(x, y, np.ones(len(y))) for x, y in batches],
        "the rest": batches[3:] + batches[:3],
        "an empty one more": [(x[:0], y[:0]), *batches],
    }


def ten_batches():
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(10, 10, 3)).astype(np.float32), rng.integers(0, 2, (10, 10))
    return list(zip(x, y, strict=True))


@pytest.mark.parametrize("change", other_batches(ten_batches()))
@pytest.mark.parametrize("done", [1, 3, 4])
@pytest.mark.rotate("done")
def test_other_batches_are_refused(change, done, tmp_path):
    batches, state = ten_batches(), tmp_path / "state.json"
    with pytest.raises(Stop):
        fl.evaluate(fl.cross_entropy, batches, state=state, progress=stop_after(done - 1))
    before = state.read_text()
    with pytest.raises(ValueError, match=r"batch.* is not the one whose losses are in the state"):
        fl.evaluate(fl.cross_entropy, iter(other_batches(batches)[change]), state=state)
    assert state.read_text() == before
    expected = fl.evaluate(fl.cross_entropy, batches)
    assert fl.evaluate(fl.cross_entropy, iter(batches), state=state).value == expected.value


@pytest.mark.parametrize("position", range(9))
def test_a_change_in_any_batch_that_is_done_is_found(position, tmp_path):
    batches, state = ten_batches(), tmp_path / "state.json"
    with pytest.raises(Stop):
        fl.evaluate(fl.cross_entropy, batches, state=state, progress=stop_after(8))
    x, y = batches[position]
    batches[position] = -x, y
    first = {0: 0, 1: 1, 2: 2, 3: 2, 8: 8}.get(position, 4)
    where = f"batch {first}" if position in (0, 1, 8) else f"one of batches {first} to"
    with pytest.raises(ValueError, match=f"^{where}"):
        fl.evaluate(fl.cross_entropy, batches, state=state)


def test_the_generator_that_was_interrupted_is_refused(tmp_path):
    batches, state = iter(ten_batches()), tmp_path / "state.json"
    with pytest.raises(Stop):
        fl.evaluate(fl.cross_entropy, batches, state=state, progress=stop_after(2))
    with pytest.raises(ValueError, match=r"batch 0 is not the one.*from the first on, or delete"):
        fl.evaluate(fl.cross_entropy, batches, state=state)


def test_groups_of_batches_are_compared(tmp_path):
    def batches(first):
        for number in range(4):
            labels = [first if number == 0 else "b", "c"]
            yield {"input": [1.0, 2.0], "target": [0.5, number], "group": labels}

    state, criterion = tmp_path / "state.json", fl.MSELoss()
    with pytest.raises(Stop):
        fl.evaluate(criterion, batches("a"), by="group", state=state, progress=stop_after(1))
    with pytest.raises(ValueError, match="batch 0 is not the one"):
        fl.evaluate(criterion, batches("ab"), by="group", state=state)
    result = fl.evaluate(criterion, batches("a"), by="group", state=state)
    assert repr(result.groups) == repr(fl.evaluate(criterion, batches("a"), by="group").groups)


class Sliced:
    """Anything with a shape, a dtype and slices."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, key):
        return self.array[key]


def in_memory(kind, folder, array):
    """An array that is passed as an object, and the same in other storage."""
    if kind == "array":
        return array
    if kind == "strided":
        return np.repeat(array, 2, axis=0)[::2]
    if kind == "sliced":
        return Sliced(array)
    if kind == "memmap":
        np.save(folder / "twice.npy", np.concatenate([array, array[::-1]]))
        return np.load(folder / "twice.npy", mmap_mode="r")[: len(array)]
    if kind == "arrow":
        return pytest.importorskip("pyarrow").array(array)
    h5py = pytest.importorskip("h5py")
    file = h5py.File(folder / "x.h5", "w")
    return file.create_dataset("x", data=array)


@pytest.mark.parametrize("kind", ["array", "strided", "sliced", "memmap", "arrow", "hdf5"])
def test_rows_in_memory_that_are_done_are_compared(kind, tmp_path):
    """The status of a file identifies its rows; of objects, only the rows themselves do."""
    x, y = np.random.default_rng(8).uniform(size=(2, 50_000))
    source, state = in_memory(kind, tmp_path, x), tmp_path / "state.json"
    options = {"state": state, "chunk_rows": 1}
    with pytest.raises(Stop):
        fl.evaluate(fl.mse_loss, source, y, **options, progress=stop_after(2))
    position = json.loads(state.read_text())["position"]
    assert 0 < position < 40_000
    before = state.read_text()
    changes = [(k, value) for k in (1, position - 1) for value in (x[k] + 1, -0.0)]
    for index, value in changes:
        changed = y.copy()
        changed[index] = value
        with pytest.raises(ValueError, match=f"rows 0 to {position - 1} of target .*are not thos"):
            fl.evaluate(fl.mse_loss, source, changed, **options)
    if kind in ("array", "strided", "sliced", "arrow"):
        other = x.copy()
        other[1] += 1
        with pytest.raises(ValueError, match=f"rows 0 to {position - 1} of input .*are not those"):
            fl.evaluate(fl.mse_loss, in_memory(kind, tmp_path, other), y, **options)
    if kind == "memmap":  # another part of the same file
        rows = np.load(tmp_path / "twice.npy", mmap_mode="r")[50_000:]
        with pytest.raises(ValueError, match=f"rows 0 to {position - 1} of input .*are not those"):
            fl.evaluate(fl.mse_loss, rows, y, **options)
    assert state.read_text() == before
    # Rows that are not done may change, and chunks may have another size.
    y[position + 3] = 0.5
    result = fl.evaluate(fl.mse_loss, source, y, state=state, chunk_rows=30_000)
    assert result.value == fl.mse_loss(x, y)


def test_constants_are_compared_with_their_type(tmp_path):
    """A float has no dtype of its own, a 0-d array of float64 has."""
    x, state = np.ones(50_000, np.float32), tmp_path / "state.json"
    stop_after_first(state, x, 0.1)
    for other in (np.float64(0.1), np.array(0.1, np.float32), 0.2):
        with pytest.raises(ValueError, match="data was"):
            fl.evaluate(fl.mse_loss, x, other, state=state)
    weights = np.ones(5000)
    criterion, state = fl.BCELoss(weight=weights), tmp_path / "state2.json"
    x = np.full((30, 5000), 0.5)
    with pytest.raises(Stop):
        fl.evaluate(criterion, x, x, state=state, chunk_rows=1, progress=stop_after(1))
    weights[3] = 2
    with pytest.raises(ValueError, match=r"was .* and is "):
        fl.evaluate(criterion, x, x, state=state, chunk_rows=1)


@pytest.mark.parametrize("kept", ["time", "time and inode"])
def test_a_file_that_was_replaced_is_refused(kept, interrupted):
    """Even by a file of the same size and time of modification."""
    paths, options = interrupted
    x, status = np.load(paths[0]), os.stat(paths[0])
    try:
        other = paths[0] if kept == "time and inode" else paths[0].with_suffix(".new.npy")
        np.save(other, x + 1)
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.replace(other, paths[0])
        with pytest.raises(ValueError, match=r"state of another evaluation: data was"):
            fl.evaluate(fl.CrossEntropyLoss(), *paths, **options)
    finally:
        np.save(paths[0], x)


def test_another_arithmetic_is_refused(interrupted, monkeypatch):
    paths, options = interrupted
    monkeypatch.setattr(evaluator, "_arithmetic", lambda: {"version": "0.0"})
    with pytest.raises(ValueError, match="state of another evaluation: arithmetic was"):
        fl.evaluate(fl.CrossEntropyLoss(), *paths, **options)


# ---- what was written ----------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["ABA", "ABBA", "ABAB"])
def test_evaluations_with_two_states_may_write_one_file(order, data, tmp_path):
    """Each has its own unfinished file. The one that completes last replaces the file."""
    out, x, y = tmp_path / "losses.npy", np.load(data / "x.npy"), np.load(data / "y.npy")
    criteria = {"A": fl.CrossEntropyLoss(), "B": fl.CrossEntropyLoss(label_smoothing=0.5)}
    for number, name in enumerate(order):
        progress = False if name in order[:number] else stop_after(2 + number)
        options = {"state": tmp_path / f"{name}.json", "per_sample": out, "chunk_rows": 1}
        paths = data / "x.npy", data / "y.npy"
        try:
            result = fl.evaluate(criteria[name], *paths, **options, progress=progress)
        except Stop:
            continue
        assert result.value == criteria[name](x, y)
        unreduced = type(criteria[name])(**criteria[name].get_params() | {"reduction": "none"})
        np.testing.assert_array_equal(np.load(out), unreduced(x, y))


@pytest.mark.parametrize("kind", ["array", "memmap", "hdf5", "float32"])
def test_an_array_that_lost_its_losses_is_refused(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluator, "CHECKPOINT_SECONDS", 0.0)
    x, y = np.random.default_rng(9).uniform(size=(2, 50_000))
    if kind == "hdf5":
        file = pytest.importorskip("h5py").File(tmp_path / "out.h5", "w")
        out = file.create_dataset("out", x.shape, np.float32)
    elif kind == "memmap":
        out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float64, x.shape)
    else:
        out = np.zeros(x.shape, np.float32 if kind == "float32" else np.float64)
    options = {"state": tmp_path / "state.json", "per_sample": out, "chunk_rows": 1}
    with pytest.raises(Stop):
        fl.evaluate(fl.mse_loss, x, y, **options, progress=stop_after(2))
    kept = out[:]
    for index in (0, 9000):
        value, out[index] = out[index], -1
        with pytest.raises(ValueError, match=r"no longer holds the \d+ losses .* delete the state"):
            fl.evaluate(fl.mse_loss, x, y, **options)
        out[index] = value
    assert fl.evaluate(fl.mse_loss, x, y, **options).value == fl.mse_loss(x, y)
    expected = fl.mse_loss(x, y, reduction="none").astype(kept.dtype)
    np.testing.assert_array_equal(out[:], expected)


# ---- states that were changed --------------------------------------------------------------------


def leaves(value, path=()):
    """The paths to all values of a JSON document that are not containers."""
    if isinstance(value, (dict, list)) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from leaves(item, (*path, key))
    else:
        yield path, value


def changed(value):
    """Other values, for one value of a JSON document."""
    if isinstance(value, bool) or value is None:
        return [0.5, not value]
    if isinstance(value, str):
        return [value + "x", None]
    if isinstance(value, (int, float)):
        return [value + 1, -value - 1, 2**63 - 1, str(value)]
    return [None, [None]]


def with_leaf(document, path, value):
    document = json.loads(json.dumps(document))
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return document


def test_a_state_that_was_changed_anywhere_is_refused(interrupted):
    paths, options = interrupted
    document = json.loads(options["state"].read_text())
    cases = [(path, new) for path, value in leaves(document) for new in changed(value)]
    assert len(cases) > 100
    for path, new in cases:
        text = json.dumps(with_leaf(document, path, new))
        options["state"].write_text(text)
        with pytest.raises(ValueError, match=r"state\.json (is not|holds a state of)"):
            fl.evaluate(fl.CrossEntropyLoss(), *paths, **options)
        assert options["state"].read_text() == text


def test_a_damaged_byte_of_a_state_is_found(interrupted, complete):
    paths, options = interrupted
    data = options["state"].read_bytes()
    for index in range(0, len(data), 1 if complete else 31):
        for bit in (1, 16) if complete else (1 << index % 7,):
            damaged = bytearray(data)
            damaged[index] ^= bit
            if json_or_none(damaged) == json.loads(data):
                continue  # such as another letter of an escape
            options["state"].write_bytes(damaged)
            with pytest.raises(ValueError, match=r"state\.json (is not|holds a state of)"):
                fl.evaluate(fl.CrossEntropyLoss(), *paths, **options)
    for size in range(0, len(data), 1 if complete else 97):
        options["state"].write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"state\.json is not the state"):
            fl.evaluate(fl.CrossEntropyLoss(), *paths, **options)


def json_or_none(data):
    try:
        return json.loads(data.decode())
    except ValueError:
        return None


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        (("position",), 1, "row 1 is not the start of a block"),
        (("position",), 2**62, "row 4611686018427387904 is not the start|there are fewer"),
        (("accumulators", 0, "sums", 1), 100, "it has done .* rows, and has sums and losses of"),
        (("accumulators", 0, "sums", 1), 2**63 - 1, "losses in 9223372036854775807 rows"),
        (("accumulators", 0, "sums", 0), 2**63 - 1, "9223372036854775807 losses in"),
        (("accumulators", 0, "sums", 0), True, "True losses in"),
        (("accumulators", 0, "criterion"), "NLLLoss", "its sums are those of another criterion"),
        (("accumulators", 0, "options", "label_smoothing"), 0.5, "of another criterion"),
        (("accumulators", 0, "by"), "class", "of another criterion"),
        (("written", 0, "rows"), 8, "it has done .* rows, and has sums and losses of"),
        (("written", 0), None, "it has written no losses of criterion 0"),
        (("digests",), {"x": 1}, "it has checksums of"),
    ],
)
def test_contradictions_are_refused_despite_the_right_checksum(path, new, message, interrupted):
    paths, options = interrupted
    document = with_leaf(json.loads(options["state"].read_text()), path, new)
    document["checksum"] = checkpoint._checksum(document)
    options["state"].write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        fl.evaluate(fl.CrossEntropyLoss(), *paths, **options)


# ---- faults of files -----------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A function that evaluates 5 chunks, one that checks its results, and the folder of these."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # FaultyDisk knows what is durable
    x, y = np.random.default_rng(10).uniform(size=(2, 40_000))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    folder = tmp_path / "out"
    folder.mkdir()
    arguments = [fl.mse_loss, fl.l1_loss], tmp_path / "x.npy", tmp_path / "y.npy"
    options = {"per_sample": [folder / "mse.npy", folder / "l1.npy"], "chunk_rows": 1}
    expected = [fl.mse_loss(x, y, reduction="none"), fl.l1_loss(x, y, reduction="none")]

    def evaluate(state=True, state_folder=folder, **more):
        path = {"state": state_folder / "state.json"} if state else {}
        return fl.evaluate(*arguments, **options, **path, **more)

    def check(results):
        assert [r.value for r in results] == [fl.mse_loss(x, y), fl.l1_loss(x, y)]
        for name, losses in zip(("mse.npy", "l1.npy"), expected, strict=True):
            saved = np.load(folder / name)
            assert saved.dtype == losses.dtype
            assert saved.tobytes() == losses.tobytes()
        assert sorted(path.name for path in folder.iterdir()) == ["l1.npy", "mse.npy"]
        for name in ("mse.npy", "l1.npy"):
            (folder / name).unlink()

    return evaluate, check, folder


def count_operations(small, monkeypatch, **options):
    evaluate, check, folder = small
    with monkeypatch.context() as patch:
        disk = FaultyDisk(folder, patch)
        check(evaluate(**options))
    return disk.operations


def error_of(function):
    """The exception that a function raises, or None."""
    try:
        function()
    except Exception as error:
        return error


CRASHES = [(True, True), (False, False), (True, False)]  # which names and contents are there


@pytest.mark.parametrize("crash", CRASHES, ids=["kill", "nothing unsynced", "names only"])
def test_power_cuts(crash, small, monkeypatch, complete):
    """After every operation: what is resumed is right, and never has to start over for nothing."""
    monkeypatch.setattr(evaluator, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(evaluator, "CHECKPOINT_FRACTION", 1e9)
    evaluate, check, folder = small
    operations = count_operations(small, monkeypatch)
    assert {"create", "write", "fsync", "replace", "unlink"} <= set(operations)
    state, losses = folder / "state.json", [folder / "mse.npy", folder / "l1.npy"]
    saved = operations.index("replace") + 2  # the folder was opened and its names are on the disk
    count = len(operations)
    for cut in sorted({*range(0, count, 1 if complete else 7), *range(count - 12, count)}):
        with monkeypatch.context() as patch:
            disk = FaultyDisk(folder, patch, cut=cut)
            with pytest.raises(PowerCut):
                evaluate()
        disk.crash(*crash)
        if cut > saved:
            assert state.exists() or all(path.exists() for path in losses)
        check(evaluate())


@pytest.mark.parametrize("crash", CRASHES, ids=["kill", "nothing unsynced", "names only"])
def test_power_cuts_after_the_last_chunk(crash, small, monkeypatch):
    """The state of the first chunk is not all that is left when files are published."""
    monkeypatch.setattr(evaluator, "CHECKPOINT_SECONDS", 1e9)
    evaluate, check, folder = small
    operations = count_operations(small, monkeypatch)
    for cut in range(len(operations) - 20, len(operations)):
        with monkeypatch.context() as patch:
            disk = FaultyDisk(folder, patch, cut=cut)
            with pytest.raises(PowerCut):
                evaluate()
        disk.crash(*crash)
        check(evaluate())


def test_power_cuts_with_the_state_in_another_folder(small, tmp_path, monkeypatch, complete):
    """Syncing the folder of the state does not sync the folder of the losses."""
    monkeypatch.setattr(evaluator, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(evaluator, "CHECKPOINT_FRACTION", 1e9)
    evaluate, check, folder = small
    other = tmp_path / "state"
    other.mkdir()
    operations = count_operations(small, monkeypatch, state_folder=other)
    for cut in range(0, len(operations), 1 if complete else 5):
        with monkeypatch.context() as patch:
            disk = FaultyDisk(folder, patch, cut=cut)
            with pytest.raises(PowerCut):
                evaluate(state_folder=other)
        disk.crash(names=False, contents=False)
        check(evaluate(state_folder=other))


def test_a_missing_fsync_would_be_found(small, monkeypatch):
    """The test above fails if contents are not synced before they are named."""
    monkeypatch.setattr(evaluator, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(evaluator, "CHECKPOINT_FRACTION", 1e9)
    evaluate, _, folder = small
    monkeypatch.setattr(files, "sync", lambda stream: None)
    operations = count_operations(small, monkeypatch)
    with monkeypatch.context() as patch:
        disk = FaultyDisk(folder, patch, cut=operations.index("replace") + 2)
        with pytest.raises(PowerCut):
            evaluate()
    disk.crash(names=True, contents=False)
    with pytest.raises(ValueError, match=r"is not the state|has lost losses"):
        evaluate()


@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.rotate("code")
def test_operations_that_fail(code, state, small, monkeypatch, complete):
    """One operation fails: the error names a file, and the evaluation resumes from the rest."""
    monkeypatch.setattr(evaluator, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(evaluator, "CHECKPOINT_FRACTION", 1e9)
    evaluate, check, folder = small
    operations = count_operations(small, monkeypatch, state=state)
    raised = 0
    for fail in range(0, len(operations), 1 if complete else 5):
        with monkeypatch.context() as patch:
            FaultyDisk(folder, patch, fail=fail, errno_=code)
            error = error_of(lambda: evaluate(state))
        if error is not None:
            raised += 1
            assert (type(error), error.errno) == (type(OSError(code, "")), code)
            assert str(error.filename).endswith((".json", ".npy"))
        if not state:
            assert not list(folder.glob(".*"))
        check(evaluate(state))
    assert raised > 0


@pytest.mark.parametrize("state", [True, False])
def test_a_full_disk(state, small, monkeypatch, complete):
    monkeypatch.setattr(evaluator, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(evaluator, "CHECKPOINT_FRACTION", 1e9)
    evaluate, check, folder = small
    writes = count_operations(small, monkeypatch, state=state).count("write")
    for full in range(0, writes, 1 if complete else 9):
        with monkeypatch.context() as patch:
            FaultyDisk(folder, patch, full=full)
            with pytest.raises(OSError, match="No space left") as caught:
                evaluate(state)
        assert str(caught.value.filename).endswith((".json", ".npy"))
        if not state:
            assert not list(folder.iterdir())
        check(evaluate(state))


@pytest.mark.skipif(os.name != "posix", reason="no limits")
def test_a_limit_of_the_file_size(small):
    """As a full disk, but by the kernel: a write is short, the next one fails."""
    evaluate, check, _ = small
    for limit in (50, 5000, 100_000):

        def child(limit=limit):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            with pytest.raises(OSError, match="File too large"):
                evaluate()

        assert in_child(child) == 0
        check(evaluate())


# ---- kills ---------------------------------------------------------------------------------------


def in_child(function, kill_after=None):
    """Runs a function in a forked child; returns its status, 9 if it is killed after a time."""
    process = os.fork()
    if not process:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.complete_only
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("state", [True, False])
def test_kills_at_random(state, small, monkeypatch, complete):
    """200 kills, at any time: each ends right, byte for byte, in the end."""
    monkeypatch.setattr(evaluator, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(evaluator, "CHECKPOINT_FRACTION", 1e9)
    evaluate, check, folder = small
    rng = random.Random(11)
    slowly = {"progress": lambda done, total: time.sleep(0.002)}
    kills = finished = 0
    while kills < (200 if complete else 20):
        status = in_child(lambda: evaluate(state, **slowly), rng.uniform(0, 0.03))
        assert status in (0, -signal.SIGKILL)
        kills += status != 0
        if status == 0 or rng.random() < 0.2:
            if status == 0:
                for path in folder.glob("*.npy"):
                    path.unlink()
            check(evaluate(state))
            finished += 1
    check(evaluate(state))
    assert finished > 0


@contextlib.contextmanager
def children_running(arguments):
    """Runs `in_child(*arguments)` of several children at once; their statuses are in the list when
    the block has ended."""
    statuses = []
    with ThreadPoolExecutor(len(arguments)) as pool:
        children = [pool.submit(in_child, *each) for each in arguments]
        yield statuses
        statuses += [child.result() for child in children]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_two_writers(small, monkeypatch, complete):
    """Evaluations with one state, some of which are killed: one runs, others are refused."""
    monkeypatch.setattr(evaluator, "CHECKPOINT_SECONDS", 0.0)
    evaluate, check, folder = small
    rng = random.Random(12)
    refused = folder.parent / "refused"

    def child():
        error = error_of(lambda: evaluate(progress=lambda done, total: time.sleep(0.002)))
        if error is not None:
            with open(refused, "a") as file:
                print(error, file=file)

    for _ in range(30 if complete else 4):
        delays = [None, rng.uniform(0, 0.04), None]
        with children_running([(child, delay) for delay in delays]) as statuses:
            pass
        assert (statuses[0], statuses[2]) == (0, 0)
        assert statuses[1] in (0, -signal.SIGKILL)
        check(evaluate())
    lines = refused.read_text().splitlines()
    assert [line for line in lines if "another evaluation is using" not in line] == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_two_writers_without_a_state(small, complete):
    """Each writes a file of its own, which replaces the other's."""
    evaluate, check, _ = small
    slowly = {"progress": lambda done, total: time.sleep(0.002)}
    for _ in range(30 if complete else 4):
        children = [(lambda: evaluate(False, **slowly), None)] * 3
        with children_running(children) as statuses:
            results = evaluate(False)
        assert statuses == [0, 0, 0]
        check(results)


def test_a_state_that_is_deleted_while_it_is_looked_at(tmp_path, monkeypatch):
    """By an evaluation that completes; one that starts then finds no file, and no special one."""
    path, stat = tmp_path / "state.json", os.stat
    path.write_text("{}")

    def stat_and_delete(name, *arguments, **keywords):
        result = stat(name, *arguments, **keywords)
        if os.path.basename(name) == path.name:
            os.unlink(name)
        return result

    monkeypatch.setattr(os, "stat", stat_and_delete)
    CheckpointFile(path)
    with pytest.raises(FileNotFoundError):
        stat(path)


@pytest.mark.skipif(files.fcntl is None, reason="no locks")
def test_the_lock_of_a_deleted_file_is_not_the_lock_of_its_name(tmp_path, monkeypatch):
    """The holder of the lock ends after another has opened the file and before it locks it."""
    path, try_lock, calls = str(tmp_path / "lock"), files._try_lock, []

    def holder_ends(stream):
        if not calls:
            os.unlink(path)
        calls.append(stream)
        return try_lock(stream)

    monkeypatch.setattr(files, "_try_lock", holder_ends)
    with files.lock(path, "in use"):
        assert os.path.exists(path)
        with pytest.raises(ValueError, match="in use"), files.lock(path, "in use"):
            pass
    assert len(calls) == 3
    assert not os.path.exists(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_what_a_killed_process_left_is_used_again(small):
    """In containers, process ids repeat: names must not depend on them."""
    evaluate, check, folder = small
    for _ in range(3):

        def kill(done, total):
            os.kill(os.getpid(), signal.SIGKILL)

        assert in_child(lambda: evaluate(False, progress=kill)) == -signal.SIGKILL
        assert len(list(folder.iterdir())) == 2
    check(evaluate(False))
    for name in (
        ".mse.npy.0.tmp",
        ".l1.npy.0.tmp",
        f".l1.npy.{os.getpid()}.tmp",
        ".state.json.tmp",
    ):
        (folder / name).write_text("left" * 200_000)  # more than the losses
    (folder / ".state.json.lock").touch()
    evaluate(), evaluate(False)
    assert {(folder / name).stat().st_size for name in ("mse.npy", "l1.npy")} == {128 + 8 * 40_000}
    assert sorted(path.name for path in folder.iterdir()) == [
        f".l1.npy.{os.getpid()}.tmp",
        "l1.npy",
        "mse.npy",
    ]


# ---- files that change while they are read -------------------------------------------------------


def at_first_chunk(function):
    calls = []

    def progress(done, total):
        calls.append(done)
        if len(calls) == 1:
            function()

    return progress


def test_a_file_that_shrinks(small):
    evaluate, check, folder = small
    path = folder.parent / "x.npy"
    x = path.read_bytes()
    shrink = at_first_chunk(lambda: os.truncate(path, 200_000))
    with pytest.raises(ValueError, match=r"x\.npy is cut short"):
        evaluate(progress=shrink)
    assert not list(folder.glob("*.npy"))
    path.write_bytes(x)
    with pytest.raises(ValueError, match="data was"):
        evaluate()
    (folder / "state.json").unlink()
    check(evaluate())


def test_a_file_that_is_replaced(small):
    """The open file is read to its end."""
    evaluate, check, folder = small
    other = folder.parent / "other.npy"
    np.save(other, np.zeros(40_000))
    check(evaluate(progress=at_first_chunk(lambda: os.replace(other, folder.parent / "x.npy"))))


def test_a_file_that_is_overwritten(small):
    evaluate, _, folder = small
    path = folder.parent / "x.npy"
    os.utime(path, ns=(5, 5))  # clocks of file systems are coarse

    def overwrite():
        with open(path, "r+b") as file:
            file.seek(300_000)
            file.write(bytes(8))

    with pytest.raises(ValueError, match=r"x\.npy was changed while it was read"):
        evaluate(progress=at_first_chunk(overwrite))
    assert not list(folder.glob("*.npy"))


def test_checkpoints_are_rare(data, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(CheckpointFile, "save", lambda self, **entries: saved.append(entries))
    fl.evaluate(
        fl.MSELoss(), data / "w.npy", data / "w.npy", state=tmp_path / "state", chunk_rows=1
    )
    assert len(saved) <= 2
