"""Evaluation on Dask: the value of one call, bitwise identical on any scheduler."""

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
TIMEOUT = 60  # seconds


@pytest.fixture(autouse=True)
def synchronous_scheduler():
    """The default of these tests."""
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
    """Runs the test on each scheduler."""
    if request.param != "distributed":
        with dask.config.set(scheduler=request.param, num_workers=2):
            yield request.param
        return
    cluster = request.getfixturevalue("cluster")
    with dask.config.set(scheduler=None), distributed.Client(cluster):
        yield request.param


class Data:
    """Logits, labels, weights and groups, as NumPy (lower case) and Dask arrays (upper case)."""

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
    """A Dask array, chunked along the leading axis."""
    array = np.asarray(array)
    return da.from_array(array, chunks={0: chunks, **dict.fromkeys(range(1, array.ndim), -1)})


def assert_equal(result, whole, size):
    """Asserts that two results agree; `size` is the sum of absolute losses."""
    assert abs(result.sum - whole.sum) <= SUM_TOLERANCE * size
    assert abs(result.weight - whole.weight) <= SUM_TOLERANCE * abs(whole.weight)
    assert (result.count, result.rows) == (whole.count, whole.rows)
    assert result.stderr == pytest.approx(whole.stderr, rel=1e-9, nan_ok=True)


# ---- the value of one call -----------------------------------------------------------------------


@pytest.mark.parametrize("case", STEADY, ids=lambda case: case.id)
def test_blocks_agree_with_one_call(case):
    draw, whole = drawn(case, ROWS)
    criterion, weight = whole.criterion, draw.keywords["sample_weight"]
    if case.unit == "sequence" and not criterion.get_params()["batch_first"]:
        arrays = [da.from_array(np.asarray(array)) for array in draw.arrays]
        with pytest.raises(ValueError, match=r"needs samples first: batch_first=True.*\(N, T, C\)"):
            fl.evaluate(criterion, *arrays)
        return
    arrays = [in_chunks(array) if np.ndim(array) else array for array in draw.arrays]
    whole.update(*draw.arrays, sample_weight=weight)
    result = fl.evaluate(criterion, *arrays, sample_weight=in_chunks(weight))
    size = np.abs(draw.value().astype(np.float64)).sum()
    assert_equal(result.accumulator, whole, size)


@pytest.mark.parametrize("by", [None, "class", "group"])
def test_schedulers_are_bitwise_identical(by, scheduler, data):
    criterion = fl.CrossEntropyLoss(weight=data.w, label_smoothing=0.1)
    labels = data.G if by == "group" else by
    result = fl.evaluate(criterion, data.X, data.Y, sample_weight=data.S, by=labels)
    labels = data.g if by == "group" else by
    whole = fl.evaluate(criterion, data.x, data.y, sample_weight=data.s, by=labels)
    assert_equal(result, whole, whole.sum)
    assert result.criterion == criterion
    if by:
        assert set(result.groups) == set(whole.groups)
        for label, totals in whole.groups.items():
            assert result.groups[label].value == pytest.approx(totals.value, rel=1e-13)
            assert result.groups[label].count == totals.count
    with dask.config.set(scheduler="synchronous"):
        synchronous = fl.evaluate(
            criterion, data.X, data.Y, sample_weight=data.S, by=data.G if by == "group" else by
        )
    assert result.accumulator.to_json() == synchronous.accumulator.to_json()


def test_numpy_and_dask_arrays_mix(data):
    criterion, expected = fl.CrossEntropyLoss(), fl.cross_entropy(
        data.x, data.y, sample_weight=data.s
    )  # fmt: skip
    for arrays in itertools.product((data.x, data.X), (data.y, data.Y), (data.s, data.S)):
        x, y, s = arrays
        assert fl.evaluate(criterion, x, y, sample_weight=s).value == pytest.approx(
            expected, rel=1e-13
        )


def test_arrays_that_apply_to_all_rows(data):
    rng = np.random.default_rng(3)
    x, var = data.x, rng.uniform(1, 2, (1, 7)).astype(np.float32)
    for target in (0.3, np.float32(0.3), da.from_array(np.array(0.3, np.float32))):
        result = fl.evaluate(fl.MSELoss(), data.X, target)
        assert result.value == pytest.approx(fl.mse_loss(x, 0.3), rel=1e-13)
    result = fl.evaluate(fl.GaussianNLLLoss(), data.X, data.X + 1, da.from_array(var))
    assert result.value == pytest.approx(fl.gaussian_nll_loss(x, x + 1, var), rel=1e-13)


def test_weights_of_elements_are_cut_by_rows(data):
    x, y, w = data.x, (data.x > 0).astype(np.float32), np.abs(data.x)
    expected = fl.binary_cross_entropy_with_logits(x, y, w, pos_weight=data.w)
    for weight in (w, in_chunks(w), da.from_array(w, chunks=(40, 2))):
        criterion = fl.BCEWithLogitsLoss(weight, pos_weight=data.w)
        result = fl.evaluate(criterion, data.X, (data.X > 0).astype(np.float32))
        assert result.value == pytest.approx(expected, rel=1e-13)
        assert result.criterion == criterion
    result = fl.evaluate(fl.BCEWithLogitsLoss(in_chunks(w)), x, y)  # the only Dask array
    assert result.value == pytest.approx(fl.binary_cross_entropy_with_logits(x, y, w), rel=1e-13)


def test_a_single_loss_is_not_cut():
    x, y = np.random.default_rng(4).normal(size=(2, 100))
    pair = [da.from_array(array, chunks=30) for array in (x, y)]
    result = fl.evaluate(fl.CosineEmbeddingLoss(), *pair, 1)
    assert result.value == fl.cosine_embedding_loss(x, y, 1)
    assert result.count == 1


def test_empty_and_0d_arrays():
    empty = da.zeros((0, 3), chunks=(2, 3))
    results = fl.evaluate([fl.MSELoss(), fl.MSELoss(reduction="sum")], empty, empty)
    np.testing.assert_equal([result.value for result in results], [np.nan, 0.0])
    result = fl.evaluate(fl.MSELoss(), da.from_array(np.array(3.0)), 1.0)
    assert (result.value, result.count) == (4.0, 1)


def test_several_criteria_read_the_data_once(data, tmp_path):
    def read(block):
        (tmp_path / uuid.uuid4().hex).touch()
        return block

    X = data.X.rechunk({1: -1}).map_blocks(read, meta=data.x[:0])
    criteria = {"ce": fl.cross_entropy, "margin": fl.MultiMarginLoss(margin=0.5)}
    result = fl.evaluate(criteria, X, data.Y)
    assert len(list(tmp_path.iterdir())) == len(CHUNKS)
    assert result["ce"].value == pytest.approx(fl.cross_entropy(data.x, data.y), rel=1e-13)
    margin = fl.multi_margin_loss(data.x, data.y, margin=0.5)
    assert result["margin"].value == pytest.approx(margin, rel=1e-13)


def test_a_target_computed_from_the_input_reads_it_once(tmp_path):
    def read(block):
        (tmp_path / uuid.uuid4().hex).touch()
        return block

    X = da.ones((ROWS, 2), chunks=(CHUNKS, 2)).map_blocks(read, meta=np.empty((0, 2)))
    assert fl.evaluate(fl.MSELoss(), X, X * 3).value == 4.0
    assert len(list(tmp_path.iterdir())) == len(CHUNKS)


def test_partial_results_are_merged_in_the_order_of_blocks():
    x = np.random.default_rng(5).normal(size=1000)
    X = da.from_array(x, chunks=3)  # more blocks than a task merges, squared
    parts = [fl.MSELoss().accumulator() for _ in range(0, 1000, 3)]
    for part, first in zip(parts, range(0, 1000, 3), strict=True):
        part.update(x[first : first + 3], 0.0)
    while len(parts) > 1:
        parts = [sum(parts[k : k + 16]) for k in range(0, len(parts), 16)]
    result = fl.evaluate(fl.MSELoss(), X, 0.0)
    assert result.accumulator.to_json() == parts[0].to_json()
    assert result.value == pytest.approx(np.mean(x**2), rel=1e-13)


def test_columns_of_data_frames():
    dd, pd = pytest.importorskip("dask.dataframe"), pytest.importorskip("pandas")
    frame = pd.DataFrame({"x": [0.0, 3.0, 1.0, 2.0, 5.0], "y": 1.0, "who": list("abbab")})
    rows = dd.from_pandas(frame, npartitions=2)
    rows = rows[rows.x > 0]
    result = fl.evaluate(fl.L1Loss(), rows.x, rows.y, by=rows.who)
    assert result.value == 1.75
    assert {label: t.sum for label, t in result.groups.items()} == {"a": 1.0, "b": 6.0}


# ---- batches -------------------------------------------------------------------------------------


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
    result = fl.evaluate(criterion, [tuples(first) for first in starts])
    whole = fl.evaluate(criterion, data.x, data.y, sample_weight=data.s)
    assert_equal(result, whole, whole.sum)
    result = fl.evaluate(criterion, [dicts(first) for first in starts], by="group")
    whole = fl.evaluate(criterion, data.x, data.y, by=data.g)
    assert_equal(result, whole, whole.sum)
    assert {k: t.count for k, t in result.groups.items()} == {
        k: t.count for k, t in whole.groups.items()
    }


def test_delayed_and_other_batches_mix(data):
    batches = [dask.delayed((data.x[:9], data.y[:9])), (data.x[9:], data.y[9:])]
    result = fl.evaluate([fl.CrossEntropyLoss()], batches, by="class")
    assert result[0].value == pytest.approx(fl.cross_entropy(data.x, data.y), rel=1e-13)


# ---- lost workers --------------------------------------------------------------------------------


def test_a_killed_worker_does_not_change_the_result(data, tmp_path):
    rows, blocks = 240, 12

    def visit(block, folder, block_id=None):
        """Records the process of a block; the first process with a second block waits."""
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
    results = []
    with dask.config.set(scheduler=None), local_cluster() as cluster, distributed.Client(cluster):
        visited = X.map_blocks(visit, tmp_path, meta=data.x[:0])
        thread = threading.Thread(
            target=lambda: results.append(
                fl.evaluate(fl.CrossEntropyLoss(), visited, Y, by="class")
            )
        )  # fmt: skip
        thread.start()
        killed = int(wait_for(tmp_path / "waits").read_text())
        os.kill(killed, signal.SIGKILL)
        thread.join(TIMEOUT)
    assert results[0].accumulator.to_json() == undisturbed.accumulator.to_json()
    assert results[0].value == pytest.approx(fl.cross_entropy(data.x[:rows], data.y[:rows]), 1e-13)
    ran = [path.name.split("-")[:2] for path in (tmp_path / "ran").iterdir()]
    lost = {block for block, pid in ran if int(pid) == killed}
    assert len(lost) >= 2  # the block that waited, and the results that the worker held
    assert lost <= {block for block, pid in ran if int(pid) != killed}


def wait_for(path):
    deadline = time.monotonic() + TIMEOUT
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)
    return path


# ---- communication, and threads ------------------------------------------------------------------


def test_only_small_states_travel(monkeypatch):
    rng, classes, sizes = np.random.default_rng(6), 20_000, []
    x, y = rng.normal(size=(60, classes)).astype(np.float32), rng.integers(0, classes, 60)
    partial = evaluation_dask._partial

    def measured(*arguments):
        result = partial(*arguments)
        sizes.append(len(pickle.dumps(result)))
        return result

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


def test_workers_do_not_exchange_data(cluster):
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
        result = fl.evaluate(fl.CrossEntropyLoss(), x, y)
        after = sum(client.run(sent).values())
    assert result.bytes == 200_000 * 88
    assert after - before < 100_000  # of 17,600,000


def test_concurrent_blocks_have_one_thread(cluster, monkeypatch):
    counts = []
    add_batch = fl.Accumulator._add_batch

    def counting(self, *arguments):
        counts.append(fl.get_num_threads())
        return add_batch(self, *arguments)

    monkeypatch.setattr(fl.Accumulator, "_add_batch", counting)
    x = da.zeros(30, chunks=10)
    with fl.num_threads(2):
        fl.evaluate(fl.MSELoss(), x, x)
        for scheduler, threads in (("threads", None), ("threads", 2), ("synchronous", 1)):
            with dask.config.set(scheduler=scheduler):
                fl.evaluate(fl.MSELoss(), x, x, threads=threads)
    assert counts == [2] * 3 + [1] * 3 + [2] * 3 + [1] * 3


def test_a_worker_with_one_task_at_a_time_keeps_its_threads(cluster):
    def threads():
        fl.set_num_threads(2)
        return evaluation_dask._threads_per_task()

    with dask.config.set(scheduler=None), distributed.Client(cluster) as client:
        assert client.submit(threads, pure=False).result() == 2
    with distributed.Client(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
    ) as client:
        assert client.submit(evaluation_dask._threads_per_task, pure=False).result() == 1


# ---- errors --------------------------------------------------------------------------------------


def test_errors_name_the_block_and_its_first_row(scheduler, data):
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
    """The rows that are not 0, in blocks whose length Dask does not know."""
    return array[array != 0]


def test_blocks_of_unknown_length():
    x = np.random.default_rng(9).integers(0, 3, 100).astype(np.float64)
    X = da.from_array(x, chunks=30)
    U = unknown(X)
    nonzero = x[x != 0]
    result = fl.evaluate(fl.MSELoss(), U, U + 2, sample_weight=unknown(X), by=unknown(X))
    expected = fl.evaluate(fl.MSELoss(), nonzero, nonzero + 2, sample_weight=nonzero, by=nonzero)
    assert_equal(result, expected, expected.sum)
    assert result.groups.keys() == expected.groups.keys()
    other = unknown(da.from_array(x, chunks=50))
    with pytest.raises(ValueError, match=r"target has 2 blocks .* 4.*compute_chunk_sizes\(\)"):
        fl.evaluate(fl.MSELoss(), U, other)
    with pytest.raises(ValueError, match=r"target is not a Dask array.*compute_chunk_sizes\(\)"):
        fl.evaluate(fl.MSELoss(), U, nonzero)
    with pytest.raises(
        ValueError, match=r"target has shape \(10,\).*\[in block 3\]"
    ):  # blocks of other lengths
        fl.evaluate(fl.MSELoss(), U, da.from_array(x, chunks=30))
    rows = unknown(da.from_array(x, chunks=30))[:, None] * da.ones((1, 4), chunks=2)
    assert fl.evaluate(fl.MSELoss(), rows, 0.0).value == pytest.approx(
        np.mean(nonzero**2), rel=1e-13
    )


def test_unequal_leading_dimensions(data):
    message = r"leading dimensions differ: input has shape \(211, 7\) and target has shape \(210,\)"
    for target in (data.Y[:-1], data.y[:-1]):
        with pytest.raises(ValueError, match=message):
            fl.evaluate(fl.CrossEntropyLoss(), data.X, target)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"per_sample": "x.npy"}, "map_blocks"),
        ({"state": "x.json"}, "recomputes"),
        ({"chunk_rows": 10}, "rechunk"),
        ({"progress": True}, "ProgressBar"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unsupported_options(options, remedy, data):
    with pytest.raises(
        TypeError, match=rf"{next(iter(options))} is not supported with Dask.*{remedy}"
    ):
        fl.evaluate(fl.CrossEntropyLoss(), data.X, data.Y, **options)


def test_invalid_data(data):
    with pytest.raises(TypeError, match=r"target is the name of a file.*dask\.array\.from_zarr"):
        fl.evaluate(fl.CrossEntropyLoss(), data.X, "y.npy")
    with pytest.raises(TypeError, match=r"target is a dask\.delayed\.\w+: make it a Dask array"):
        fl.evaluate(fl.CrossEntropyLoss(), data.X, dask.delayed(data.y))
    with pytest.raises(TypeError, match=r"batch 0 is a tuple of 1"):
        fl.evaluate(fl.CrossEntropyLoss(), [dask.delayed((data.x,))])


def test_a_criterion_is_checked_before_the_data_are_read(data):
    def read(block):
        raise AssertionError("was read")

    X = data.X.map_blocks(read, meta=data.x[:0])
    with pytest.raises(ValueError, match="reduction='none'"):
        fl.evaluate(fl.CrossEntropyLoss(reduction="none"), X, data.Y)
    with pytest.raises(ValueError, match="are not classes"):
        fl.evaluate(CRITERIA[fl.mse_loss](), X, X, by="class")


def test_calling_a_loss_on_a_dask_array_names_evaluate(data):
    with pytest.raises(TypeError, match=r"fastloss\.evaluate\(criterion, input, target\)"):
        fl.cross_entropy(data.X, data.y)
