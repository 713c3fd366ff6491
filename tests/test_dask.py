"""Evaluation on Dask's schedulers: the value of one call, the same bits however it was computed."""

import itertools
import os
import pickle
import signal
import threading
import time
import uuid

import numpy as np
import pytest

import fastloss as fl
from fastloss.evaluation import dask as evaluation_dask
from tests.test_accumulators import CRITERIA, STEADY, SUM_TOLERANCE, drawn

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

CHUNKS = (50, 1, 0, 90, 70)
ROWS = sum(CHUNKS)
PATIENCE = 60  # seconds, after which a test gives up


@pytest.fixture(autouse=True)
def one_at_a_time():
    """The scheduler of tests that do not name one."""
    with dask.config.set(scheduler="synchronous"):
        yield


def local_cluster():
    return distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, processes=True, dashboard_address=":0"
    )


@pytest.fixture(scope="module")
def cluster():
    with local_cluster() as started:
        yield started


@pytest.fixture(params=["synchronous", "threads", "processes", "distributed"])
def scheduler(request):
    """Makes each scheduler that of the test."""
    if request.param != "distributed":
        with dask.config.set(scheduler=request.param, num_workers=2):
            yield request.param
        return
    cluster = request.getfixturevalue("cluster")
    with dask.config.set(scheduler=None), distributed.Client(cluster):
        yield request.param


class Data:
    """Logits, labels, weights and groups, as NumPy and as Dask has them."""

    def __init__(self, rows=ROWS, classes=7):
        rng = np.random.default_rng(8)
        self.x = rng.normal(size=(rows, classes)).astype(np.float32) * 4
        self.y = rng.integers(0, classes, rows)
        self.s = rng.integers(0, 3, rows).astype(np.float64)
        self.g = np.array(["north", "south", "west"])[rng.integers(0, 3, rows)]
        self.w = rng.uniform(0.5, 2, classes)
        self.X = da.from_array(self.x, chunks=(CHUNKS, 3))
        self.Y, self.S, self.G = (
            da.from_array(array, chunks=64) for array in (self.y, self.s, self.g)
        )


@pytest.fixture(scope="module")
def data():
    return Data()


def in_chunks(array, chunks=CHUNKS):
    """A Dask array, of arrays of some dimensions."""
    array = np.asarray(array)
    return da.from_array(array, chunks={0: chunks, **dict.fromkeys(range(1, array.ndim), -1)})


def assert_equal(found, whole, size):
    """Two accumulators of the same data, sums within the tolerance of the losses' sizes."""
    assert abs(found.sum - whole.sum) <= SUM_TOLERANCE * size
    assert abs(found.weight - whole.weight) <= SUM_TOLERANCE * abs(whole.weight)
    assert (found.count, found.rows) == (whole.count, whole.rows)
    assert found.stderr == pytest.approx(whole.stderr, rel=1e-9, nan_ok=True)


# ---- What one call gives -------------------------------------------------------------------------


@pytest.mark.parametrize("case", STEADY, ids=lambda case: case.id)
def test_blocks_give_the_value_of_one_call(case):
    draw, whole = drawn(case, ROWS)
    criterion, weight = whole.criterion, draw.keywords["sample_weight"]
    if case.kind == "sequences" and not criterion.get_params()["batch_first"]:
        arrays = [da.from_array(np.asarray(array)) for array in draw.arrays]
        with pytest.raises(ValueError, match=r"needs samples first: batch_first=True.*\(N, T, C\)"):
            fl.evaluate(criterion, *arrays)
        return
    arrays = [in_chunks(array) if np.ndim(array) else array for array in draw.arrays]
    whole.update(*draw.arrays, sample_weight=weight)
    found = fl.evaluate(criterion, *arrays, sample_weight=in_chunks(weight))
    size = np.abs(draw.value().astype(np.float64)).sum()
    assert_equal(found.accumulator, whole, size)


@pytest.mark.parametrize("by", [None, "class", "group"])
def test_every_scheduler_gives_the_same_bits(by, scheduler, data):
    criterion = fl.CrossEntropyLoss(weight=data.w, label_smoothing=0.1)
    labels = data.G if by == "group" else by
    found = fl.evaluate(criterion, data.X, data.Y, sample_weight=data.S, by=labels)
    labels = data.g if by == "group" else by
    whole = fl.evaluate(criterion, data.x, data.y, sample_weight=data.s, by=labels)
    assert_equal(found, whole, whole.sum)
    assert found.criterion == criterion
    if by:
        assert set(found.groups) == set(whole.groups)
        for label, totals in whole.groups.items():
            assert found.groups[label].value == pytest.approx(totals.value, rel=1e-13)
            assert found.groups[label].count == totals.count
    with dask.config.set(scheduler="synchronous"):
        again = fl.evaluate(
            criterion, data.X, data.Y, sample_weight=data.S, by=data.G if by == "group" else by
        )
    assert found.accumulator.to_json() == again.accumulator.to_json()


def test_arrays_of_every_sort_go_together(data):
    criterion, expected = fl.CrossEntropyLoss(), fl.cross_entropy(
        data.x, data.y, sample_weight=data.s
    )  # fmt: skip
    for arrays in itertools.product((data.x, data.X), (data.y, data.Y), (data.s, data.S)):
        x, y, s = arrays
        assert fl.evaluate(criterion, x, y, sample_weight=s).value == pytest.approx(
            expected, rel=1e-13
        )


def test_arrays_for_all_rows_go_to_every_block(data):
    rng = np.random.default_rng(3)
    x, var = data.x, rng.uniform(1, 2, (1, 7)).astype(np.float32)
    for target in (0.3, np.float32(0.3), da.from_array(np.array(0.3, np.float32))):
        found = fl.evaluate(fl.MSELoss(), data.X, target)
        assert found.value == pytest.approx(fl.mse_loss(x, 0.3), rel=1e-13)
    found = fl.evaluate(fl.GaussianNLLLoss(), data.X, data.X + 1, da.from_array(var))
    assert found.value == pytest.approx(fl.gaussian_nll_loss(x, x + 1, var), rel=1e-13)


def test_weights_of_elements_go_by_rows(data):
    x, y, w = data.x, (data.x > 0).astype(np.float32), np.abs(data.x)
    expected = fl.binary_cross_entropy_with_logits(x, y, w, pos_weight=data.w)
    for weight in (w, in_chunks(w), da.from_array(w, chunks=(40, 2))):
        criterion = fl.BCEWithLogitsLoss(weight, pos_weight=data.w)
        found = fl.evaluate(criterion, data.X, (data.X > 0).astype(np.float32))
        assert found.value == pytest.approx(expected, rel=1e-13)
        assert found.criterion == criterion
    found = fl.evaluate(fl.BCEWithLogitsLoss(in_chunks(w)), x, y)  # the only array of Dask's
    assert found.value == pytest.approx(fl.binary_cross_entropy_with_logits(x, y, w), rel=1e-13)


def test_a_row_is_not_cut():
    x, y = np.random.default_rng(4).normal(size=(2, 100))
    pair = [da.from_array(array, chunks=30) for array in (x, y)]
    found = fl.evaluate(fl.CosineEmbeddingLoss(), *pair, 1)
    assert found.value == fl.cosine_embedding_loss(x, y, 1)
    assert found.count == 1


def test_of_no_rows_and_of_no_axes():
    empty = da.zeros((0, 3), chunks=(2, 3))
    found = fl.evaluate([fl.MSELoss(), fl.MSELoss(reduction="sum")], empty, empty)
    np.testing.assert_equal([one.value for one in found], [np.nan, 0.0])
    one = fl.evaluate(fl.MSELoss(), da.from_array(np.array(3.0)), 1.0)
    assert (one.value, one.count) == (4.0, 1)


def test_several_criteria_read_the_data_once(data, tmp_path):
    def read(block):
        (tmp_path / uuid.uuid4().hex).touch()
        return block

    X = data.X.rechunk({1: -1}).map_blocks(read, meta=data.x[:0])
    criteria = {"ce": fl.cross_entropy, "margin": fl.MultiMarginLoss(margin=0.5)}
    found = fl.evaluate(criteria, X, data.Y)
    assert len(list(tmp_path.iterdir())) == len(CHUNKS)
    assert found["ce"].value == pytest.approx(fl.cross_entropy(data.x, data.y), rel=1e-13)
    margin = fl.multi_margin_loss(data.x, data.y, margin=0.5)
    assert found["margin"].value == pytest.approx(margin, rel=1e-13)


def test_a_target_made_of_the_input_reads_it_once(tmp_path):
    def read(block):
        (tmp_path / uuid.uuid4().hex).touch()
        return block

    X = da.ones((ROWS, 2), chunks=(CHUNKS, 2)).map_blocks(read, meta=np.empty((0, 2)))
    assert fl.evaluate(fl.MSELoss(), X, X * 3).value == 4.0
    assert len(list(tmp_path.iterdir())) == len(CHUNKS)


def test_the_tree_is_merged_in_the_order_of_blocks():
    x = np.random.default_rng(5).normal(size=1000)
    X = da.from_array(x, chunks=3)  # more blocks than a task merges, and the square of that
    parts = [fl.MSELoss().accumulator() for _ in range(0, 1000, 3)]
    for part, first in zip(parts, range(0, 1000, 3), strict=True):
        part.update(x[first : first + 3], 0.0)
    while len(parts) > 1:
        parts = [sum(parts[k : k + 16]) for k in range(0, len(parts), 16)]
    found = fl.evaluate(fl.MSELoss(), X, 0.0)
    assert found.accumulator.to_json() == parts[0].to_json()
    assert found.value == pytest.approx(np.mean(x**2), rel=1e-13)


def test_columns_of_data_frames_have_blocks_of_unknown_length():
    dd, pd = pytest.importorskip("dask.dataframe"), pytest.importorskip("pandas")
    frame = pd.DataFrame({"x": [0.0, 3.0, 1.0, 2.0, 5.0], "y": 1.0, "who": list("abbab")})
    rows = dd.from_pandas(frame, npartitions=2)
    rows = rows[rows.x > 0]
    found = fl.evaluate(fl.L1Loss(), rows.x, rows.y, by=rows.who)
    assert found.value == 1.75
    assert {label: t.sum for label, t in found.groups.items()} == {"a": 1.0, "b": 6.0}


# ---- Batches -------------------------------------------------------------------------------------


def test_delayed_batches(scheduler, data):
    @dask.delayed
    def tuples(first):
        rows = slice(first, first + 20)
        return data.x[rows], data.y[rows], data.s[rows]

    @dask.delayed
    def dicts(first):
        rows = slice(first, first + 20)
        return {"input": data.x[rows], "target": data.y[rows], "group": data.g[rows]}

    starts = range(0, ROWS, 20)
    criterion = fl.CrossEntropyLoss(weight=data.w)
    found = fl.evaluate(criterion, [tuples(first) for first in starts])
    whole = fl.evaluate(criterion, data.x, data.y, sample_weight=data.s)
    assert_equal(found, whole, whole.sum)
    found = fl.evaluate(criterion, [dicts(first) for first in starts], by="group")
    whole = fl.evaluate(criterion, data.x, data.y, by=data.g)
    assert_equal(found, whole, whole.sum)
    assert {k: t.count for k, t in found.groups.items()} == {
        k: t.count for k, t in whole.groups.items()
    }


def test_delayed_batches_stand_beside_others(data):
    batches = [dask.delayed((data.x[:9], data.y[:9])), (data.x[9:], data.y[9:])]
    found = fl.evaluate([fl.CrossEntropyLoss()], batches, by="class")
    assert found[0].value == pytest.approx(fl.cross_entropy(data.x, data.y), rel=1e-13)


# ---- A worker is lost ----------------------------------------------------------------------------


def test_a_worker_is_killed(data, tmp_path):
    rows, blocks = 240, 12

    def visit(block, folder, block_id=None):
        """Notes where a block was worked on; the first process with a second block waits."""
        pid = os.getpid()
        second = any(f"-{pid}-" in name for name in os.listdir(folder / "ran"))
        (folder / "ran" / f"{block_id[0]}-{pid}-{uuid.uuid4().hex}").touch()
        try:
            if second:
                (folder / "claimed").mkdir()
                (folder / "waits.new").write_text(str(pid))
                (folder / "waits.new").rename(folder / "waits")
                wait_for(folder / "never")
        except FileExistsError:
            pass
        return block

    X = da.from_array(data.x[:rows], chunks=(rows // blocks, 7))
    Y = da.from_array(data.y[:rows], chunks=rows // blocks)
    (tmp_path / "ran").mkdir()
    undisturbed = fl.evaluate(fl.CrossEntropyLoss(), X, Y, by="class")
    found = []
    with dask.config.set(scheduler=None), local_cluster() as cluster, distributed.Client(cluster):
        visited = X.map_blocks(visit, tmp_path, meta=data.x[:0])
        thread = threading.Thread(
            target=lambda: found.append(
                fl.evaluate(fl.CrossEntropyLoss(), visited, Y, by="class")
            )
        )  # fmt: skip
        thread.start()
        killed = int(wait_for(tmp_path / "waits").read_text())
        os.kill(killed, signal.SIGKILL)
        thread.join(PATIENCE)
    assert found[0].accumulator.to_json() == undisturbed.accumulator.to_json()
    assert found[0].value == pytest.approx(fl.cross_entropy(data.x[:rows], data.y[:rows]), 1e-13)
    ran = [path.name.split("-")[:2] for path in (tmp_path / "ran").iterdir()]
    lost = {block for block, pid in ran if int(pid) == killed}
    assert len(lost) >= 2  # the one that waited, and what the worker held
    assert lost <= {block for block, pid in ran if int(pid) != killed}


def wait_for(path):
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)
    return path


# ---- What travels, and on how many threads -------------------------------------------------------


def test_only_small_states_travel(monkeypatch):
    rng, classes, sizes = np.random.default_rng(6), 20_000, []
    x, y = rng.normal(size=(60, classes)).astype(np.float32), rng.integers(0, classes, 60)
    partial = evaluation_dask._partial

    def measured(*arguments):
        found = partial(*arguments)
        sizes.append(len(pickle.dumps(found)))
        return found

    monkeypatch.setattr(evaluation_dask, "_partial", measured)
    weighted = fl.CrossEntropyLoss(weight=rng.uniform(size=classes))
    several = [weighted, fl.NLLLoss(weight=np.ones(classes))]
    fl.evaluate(several, da.from_array(x, chunks=(10, -1)), da.from_array(y, chunks=10))
    fl.evaluate(several, [dask.delayed((x, y))])
    assert len(sizes) == 7
    assert max(sizes) < len(several) * 700
    sizes.clear()
    fl.evaluate(several, [dask.delayed((x, y))], by="class")
    assert sizes[0] < len(several) * (700 + 160 * len(np.unique(y)))


def test_workers_send_each_other_no_data(cluster):
    def sent(dask_worker):
        return dask_worker.transfer_outgoing_bytes_total

    def logits(block_id=None):
        return np.random.default_rng(block_id[0]).normal(size=(10_000, 10))

    def labels(block_id=None):
        return np.random.default_rng(block_id[0]).integers(0, 10, 10_000)

    rows = (10_000,) * 20
    x = da.map_blocks(logits, chunks=(rows, 10), meta=np.empty((0, 0)))
    y = da.map_blocks(labels, chunks=(rows,), meta=np.empty(0, np.int64))
    with dask.config.set(scheduler=None), distributed.Client(cluster) as client:
        before = sum(client.run(sent).values())
        found = fl.evaluate(fl.CrossEntropyLoss(), x, y)
        after = sum(client.run(sent).values())
    assert found.bytes == 200_000 * 88
    assert after - before < 100_000  # of 17,600,000


def test_blocks_beside_others_have_one_thread(cluster, monkeypatch):
    counts = []
    add = fl.Accumulator._add

    def counting(self, *arguments):
        counts.append(fl.get_num_threads())
        return add(self, *arguments)

    monkeypatch.setattr(fl.Accumulator, "_add", counting)
    x = da.zeros(30, chunks=10)
    with fl.num_threads(2):
        fl.evaluate(fl.MSELoss(), x, x)
        for scheduler, threads in (("threads", None), ("threads", 2), ("synchronous", 1)):
            with dask.config.set(scheduler=scheduler):
                fl.evaluate(fl.MSELoss(), x, x, threads=threads)
    assert counts == [2] * 3 + [1] * 3 + [2] * 3 + [1] * 3


def test_a_worker_of_one_thread_has_what_it_was_started_with(cluster):
    def threads():
        fl.set_num_threads(2)
        return evaluation_dask._threads_of_a_task()

    with dask.config.set(scheduler=None), distributed.Client(cluster) as client:
        assert client.submit(threads, pure=False).result() == 2
    with distributed.Client(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
    ) as client:
        assert client.submit(evaluation_dask._threads_of_a_task, pure=False).result() == 1


# ---- Errors --------------------------------------------------------------------------------------


def test_positions_come_with_the_row_of_their_block(scheduler, data):
    y = data.y.copy()
    y[150] = 99
    Y = da.from_array(y, chunks=10)
    message = r"target\[9\] = 99 is not a class.*\[in block 4, whose row 0 is row 141\]"
    with pytest.raises(fl.ClassIndexError, match=message):
        fl.evaluate(fl.CrossEntropyLoss(), data.X, Y)
    batches = [dask.delayed((data.x[k : k + 20], y[k : k + 20])) for k in range(0, ROWS, 20)]
    with pytest.raises(fl.ClassIndexError, match=r"target\[10\] = 99.*\[in batch 7\]"):
        fl.evaluate(fl.CrossEntropyLoss(), batches)


def unknown(array):
    """The rows that are not 0, whose number Dask cannot know."""
    return array[array != 0]


def test_blocks_of_unknown_length():
    x = np.random.default_rng(9).integers(0, 3, 100).astype(np.float64)
    X = da.from_array(x, chunks=30)
    U = unknown(X)
    left = x[x != 0]
    found = fl.evaluate(fl.MSELoss(), U, U + 2, sample_weight=unknown(X), by=unknown(X))
    expected = fl.evaluate(fl.MSELoss(), left, left + 2, sample_weight=left, by=left)
    assert_equal(found, expected, expected.sum)
    assert found.groups.keys() == expected.groups.keys()
    other = unknown(da.from_array(x, chunks=50))
    with pytest.raises(ValueError, match=r"target has 2 blocks .* 4.*compute_chunk_sizes\(\)"):
        fl.evaluate(fl.MSELoss(), U, other)
    with pytest.raises(ValueError, match=r"target is no Dask array.*compute_chunk_sizes\(\)"):
        fl.evaluate(fl.MSELoss(), U, left)
    with pytest.raises(
        ValueError, match=r"target has shape \(10,\).*\[in block 3\]"
    ):  # other rows in each
        fl.evaluate(fl.MSELoss(), U, da.from_array(x, chunks=30))
    rows = unknown(da.from_array(x, chunks=30))[:, None] * da.ones((1, 4), chunks=2)
    assert fl.evaluate(fl.MSELoss(), rows, 0.0).value == pytest.approx(np.mean(left**2), rel=1e-13)


def test_lengths_that_differ(data):
    message = r"leading dimensions differ: input has shape \(211, 7\) and target has shape \(210,\)"
    for target in (data.Y[:-1], data.y[:-1]):
        with pytest.raises(ValueError, match=message):
            fl.evaluate(fl.CrossEntropyLoss(), data.X, target)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"per_sample": "x.npy"}, "map_blocks"),
        ({"state": "x.json"}, "computes again"),
        ({"chunk_rows": 10}, "rechunk"),
        ({"progress": True}, "ProgressBar"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_that_do_not_go_with_dask(options, remedy, data):
    with pytest.raises(TypeError, match=rf"{next(iter(options))} does not go with Dask.*{remedy}"):
        fl.evaluate(fl.CrossEntropyLoss(), data.X, data.Y, **options)


def test_what_is_no_array(data):
    with pytest.raises(TypeError, match=r"target is the name of a file.*dask\.array\.from_zarr"):
        fl.evaluate(fl.CrossEntropyLoss(), data.X, "y.npy")
    with pytest.raises(TypeError, match=r"target is a dask\.delayed\.\w+: make a Dask array"):
        fl.evaluate(fl.CrossEntropyLoss(), data.X, dask.delayed(data.y))
    with pytest.raises(TypeError, match=r"batch 0 is a tuple of 1.*\[?"):
        fl.evaluate(fl.CrossEntropyLoss(), [dask.delayed((data.x,))])


def test_a_criterion_is_checked_before_the_data_are_read(data):
    def read(block):
        raise AssertionError("was read")

    X = data.X.map_blocks(read, meta=data.x[:0])
    with pytest.raises(ValueError, match="reduction='none'"):
        fl.evaluate(fl.CrossEntropyLoss(reduction="none"), X, data.Y)
    with pytest.raises(ValueError, match="are not classes"):
        fl.evaluate(CRITERIA[fl.mse_loss](), X, X, by="class")


def test_a_loss_names_evaluate(data):
    with pytest.raises(TypeError, match=r"fastloss\.evaluate\(criterion, input, target\)"):
        fl.cross_entropy(data.X, data.y)
