"""Tables in files and folders, lists of files, and labels that are strings or dates."""

import datetime
import gzip
import os
import pathlib
import subprocess
import sys

import h5py
import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from fastloss.evaluation.sources import open_labels, open_source
from fastloss.evaluation.sources.paths import natural_order
from tests.test_sources import MEASURE, arrow_column, check

TABLE = pa.table(
    {
        "p": [1.0, 2.0, 3.0, 4.0],
        "logits": pa.array([[1.0, 2.0]] * 4, pa.list_(pa.float64(), 2)),
        "lang": ["de", "en", "de", "fr"],
        "kind": pa.array(["a", "b", "a", "b"]).dictionary_encode(),
        "price": pa.array([1.5, 2.5, 1.5, 2.5]).dictionary_encode(),
        "day": [datetime.date(2026, 1, d) for d in (1, 2, 1, 2)],
        "time": [datetime.datetime(2026, 1, 1, h) for h in (0, 5, 5, 0)],
    }
)


def write_stream(folder, array):
    table = pa.table({"z": np.arange(len(array)), "x": arrow_column(array)})
    with pa.ipc.new_stream(folder / "x.arrow", table.schema) as stream:
        stream.write_table(table, max_chunksize=13)
    return f"{folder}/x.arrow:x"


def write_folder(folder, array):
    os.makedirs(folder / "x")
    for part in range(0, max(len(array), 1), 9):
        table = pa.table({"x": arrow_column(array[part : part + 9])})
        pq.write_table(table, folder / "x" / f"part.{part}.parquet", row_group_size=4)
    pq.write_table(table.slice(0, 0), folder / "x" / "part.5.parquet")  # an empty part
    for name in ("_SUCCESS", ".part.0.parquet.crc", "_metadata"):
        (folder / "x" / name).write_bytes(b"")
    return folder / "x"


def write_text(folder, name, text):
    data = text.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return f"{folder}/{name}"


def write_csv(folder, array):
    columns = array.reshape(len(array), -1)
    names = ",".join(f"c{k}" for k in range(columns.shape[1]))
    lines = [names, *(",".join(map(repr, row)) for row in columns.tolist())]
    return write_text(folder, "x.csv", "\n".join(lines) + "\n") + ":c*"


def write_json(folder, array):
    lines = [f'{{"z": "a", "x": {row.tolist()!r}}}\n' for row in array]
    return write_text(folder, "x.jsonl.gz", "".join(lines)) + ":x"


def write_parts(folder, array):
    for k, rows in enumerate(np.array_split(array, 11)):
        order = np.asfortranarray if k % 2 else np.ascontiguousarray
        np.save(folder / f"x{k}.npy", order(rows.astype(">f8") if k == 3 else rows))
    return f"{folder}/x*.npy"


@pytest.mark.parametrize("shape", [(103,), (103, 7)], ids=str)
@pytest.mark.parametrize(
    "write",
    [write_stream, write_folder, write_csv, write_json, write_parts],
    ids=lambda write: write.__name__,
)
def test_every_format(write, shape, tmp_path):
    array = np.random.default_rng(0).normal(size=shape)
    path = write(tmp_path, array)
    check(lambda: open_source(path), array, [1, 10, 200])


@pytest.mark.parametrize("name", ["x.arrow", "x.parquet"])
def test_dictionaries_and_run_lengths_of_numbers(name, tmp_path):
    runs = pa.RunEndEncodedArray.from_arrays([2, 4], [1.5, 2.5])
    for column, values in [(TABLE["price"], [1.5, 2.5, 1.5, 2.5]), (runs, [1.5, 1.5, 2.5, 2.5])]:
        check(lambda column=column: open_source(column), np.array(values))
    if name == "x.arrow":
        with pa.ipc.new_file(tmp_path / name, TABLE.schema) as file:
            file.write_table(TABLE)
    else:
        pq.write_table(TABLE, tmp_path / name)
    path = f"{tmp_path}/{name}:price"
    check(lambda: open_source(path), np.array([1.5, 2.5, 1.5, 2.5]))


def groups(by, rows=4):
    """The number of losses of each group, in a chunk per row and in one."""
    results = [
        fl.evaluate(fl.l1_loss, np.ones(rows), 0.0, by=by, chunk_rows=n).groups for n in (1, None)
    ]
    counts = [{label: totals.count for label, totals in result.items()} for result in results]
    assert counts[0] == counts[1]
    return counts[0]


LABELS = {
    "lang": {"de": 2, "en": 1, "fr": 1},
    "kind": {"a": 2, "b": 2},
    "day": {"2026-01-01": 2, "2026-01-02": 2},
    "time": {"2026-01-01": 2, "2026-01-01T05:00": 2},
}


@pytest.mark.parametrize("column", LABELS)
def test_labels_of_tables(column, tmp_path):
    pq.write_table(TABLE, tmp_path / "x.parquet", row_group_size=3)
    with pa.ipc.new_stream(tmp_path / "x.arrow", TABLE.schema) as stream:
        stream.write_table(TABLE)
    assert groups(f"{tmp_path}/x.parquet:{column}") == LABELS[column]
    assert groups(f"{tmp_path}/x.arrow:{column}") == LABELS[column]
    assert groups(TABLE[column]) == LABELS[column]
    assert groups(TABLE[column].to_pandas()) == LABELS[column]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array(["a", "b", "a", "ü"]), {"a": 2, "b": 1, "ü": 1}),
        (np.array(["a", "b", "a", "ü"]).astype(">U1"), {"a": 2, "b": 1, "ü": 1}),
        (np.array(["a", "b", "a", "ü"]).astype("T"), {"a": 2, "b": 1, "ü": 1}),
        (np.array([b"a", b"b", b"a", b"\xc3\xbc"]), {"a": 2, "b": 1, "ü": 1}),
        (np.array(["2026-01"] * 4, "M8[M]"), {"2026-01": 4}),
        (np.array(["2026-01-01"] * 4, "M8[D]"), {"2026-01-01": 4}),
        (np.array(["2026-01-01"] * 4, "M8[ns]"), {"2026-01-01": 4}),
        (
            np.array(
                ["2026-01-01", "2026-01-01T08:30", "2026-01-01T08:30:00.25", "2026-01-01"], "M8[us]"
            ),
            {"2026-01-01": 2, "2026-01-01T08:30": 1, "2026-01-01T08:30:00.250": 1},
        ),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_labels_of_arrays(labels, expected, tmp_path):
    assert groups(labels) == expected
    if labels.dtype.kind != "T":  # which .npy does not hold
        np.save(tmp_path / "x.npy", labels)
        np.savez(tmp_path / "x.npz", x=labels)
        assert groups(f"{tmp_path}/x.npy") == groups(f"{tmp_path}/x.npz:x") == expected
        np.save(tmp_path / "y.npy", labels[:1])
        assert groups([tmp_path / "y.npy", tmp_path / "x.npy"], 5) != expected
    accumulator = fl.L1Loss().accumulator(by="group")
    accumulator.update(np.ones(4), 0.0, group=labels)
    assert {label: totals.count for label, totals in accumulator.groups.items()} == expected


def test_labels_of_hdf5_and_lists(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["s"] = ["a", "b", "a", "ü"]
        file["b"] = np.array([b"a", b"b", b"a", b"c"])
    assert groups(f"{tmp_path}/x.h5:s") == {"a": 2, "b": 1, "ü": 1}
    assert groups(f"{tmp_path}/x.h5:b") == {"a": 2, "b": 1, "c": 1}
    assert groups(["x.npy", "y.npy", "x.npy", "x.npy"]) == {"x.npy": 3, "y.npy": 1}
    days = [datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1, 7)] * 2
    assert groups(days) == {"2026-01-01": 2, "2026-01-01T07:00": 2}


def test_labels_that_are_missing(tmp_path):
    table = pa.table({"s": ["a", None], "d": [datetime.date(2026, 1, 1), None], "n": [1, None]})
    pq.write_table(table, tmp_path / "x.parquet")
    for column in table.column_names:
        with pytest.raises(ValueError, match="row 1 is null"):
            groups(f"{tmp_path}/x.parquet:{column}", 2)
    np.save(tmp_path / "x.npy", np.array(["2026-01-01", "NaT"], "M8[D]"))
    for by in (f"{tmp_path}/x.npy", np.load(tmp_path / "x.npy")):
        with pytest.raises(ValueError, match="row 1 is NaT, which is not a label"):
            groups(by, 2)
    with pytest.raises(ValueError, match="row 1 is null"):
        groups(write_text(tmp_path, "x.csv", "s,n\na,1\n,2\n") + ":s", 2)
    with pytest.raises(TypeError, match=r"timedelta64\[s\]"):
        groups(np.array([1, 2], "m8[s]"), 2)


# ---- folders -------------------------------------------------------------------------------------


def test_partitions_are_columns(tmp_path):
    pq.write_to_dataset(TABLE.select(["p", "lang"]), tmp_path / "x", partition_cols=["lang"])
    assert groups(f"{tmp_path}/x:lang") == LABELS["lang"]
    values = open_source(f"{tmp_path}/x:p").read_all()
    assert sorted(values) == [1, 2, 3, 4]
    years = pa.table({"p": [1.0, 2.0, 3.0], "year": [2025, 2026, 2026], "mo": ["01", "02", "03"]})
    pq.write_to_dataset(years, tmp_path / "y", partition_cols=["year", "mo"])
    check(lambda: open_source(f"{tmp_path}/y:year"), np.array([2025, 2026, 2026]))
    assert groups(f"{tmp_path}/y:year", 3) == {2025: 1, 2026: 2}
    assert groups(f"{tmp_path}/y:mo", 3) == {"01": 1, "02": 1, "03": 1}
    with pytest.raises(TypeError, match=r"x:lang holds string, which are not numbers"):
        open_source(f"{tmp_path}/x:lang")
    with pytest.raises(ValueError, match="has no array 'langs', it has lang, p"):
        open_labels(f"{tmp_path}/x:langs", "by")


def test_files_follow_each_other_in_natural_order(tmp_path):
    for k in range(12):
        pq.write_table(pa.table({"p": [float(k)]}), tmp_path / f"part.{k}.parquet")
        np.save(tmp_path / f"x{k}.npy", np.array([float(k)]))
    expected = np.arange(12.0)
    for name in (tmp_path, f"{tmp_path}/part*.parquet:p", f"{tmp_path}/x*.npy"):
        if name == tmp_path:
            for k in range(12):
                os.rename(tmp_path / f"x{k}.npy", tmp_path / f"_x{k}.npy")
        check(lambda name=name: open_source(name), expected)
        if name == tmp_path:
            for k in range(12):
                os.rename(tmp_path / f"_x{k}.npy", tmp_path / f"x{k}.npy")
    paths = [tmp_path / f"x{k}.npy" for k in (3, 1)]
    check(lambda: open_source(paths), np.array([3.0, 1.0]))
    assert sorted(["b1", "a10", "a9", "a", "a9b"], key=natural_order) == [
        "a",
        "a9",
        "a9b",
        "a10",
        "b1",
    ]


def test_folders_that_are_no_table(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    with pytest.raises(ValueError, match="x holds no Parquet, Arrow, CSV or JSON Lines files"):
        open_source(folder)
    np.save(folder / "a.npy", np.ones(3))
    with pytest.raises(ValueError, match=r"x/\*\.npy names its arrays"):
        open_source(folder)
    pq.write_table(pa.table({"p": [1.0]}), folder / "a.parquet")
    pq.write_table(pa.table({"p": [1]}), folder / "b.parquet")
    with pytest.raises(ValueError, match=r"p is double in .*a\.parquet and int64 in .*b\.parquet"):
        open_source(f"{folder}:p")
    pq.write_table(pa.table({"q": [1.0]}), folder / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet has no column 'p', which others have"):
        open_source(f"{folder}:p")
    (folder / "b.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"b\.parquet is empty"):
        open_source(folder)
    os.unlink(folder / "b.parquet")
    write_text(folder, "b.csv", "p\n1\n")
    with pytest.raises(ValueError, match=r"several formats \(CSV, Parquet\)"):
        open_source(folder)
    os.unlink(folder / "b.csv")
    for name, message in [("test", "holds the folders test"), ("_delta_log", "is a Delta table")]:
        (folder / name).mkdir()
        with pytest.raises(ValueError, match=message):
            open_source(folder)
        (folder / name).rmdir()
    os.makedirs(folder / "k=1")
    os.rename(folder / "a.parquet", folder / "k=1" / "a.parquet")
    pq.write_table(pa.table({"p": [1.0]}), folder / "a.parquet")
    with pytest.raises(ValueError, match="different partitions"):
        open_source(folder)


def test_lists_of_files_that_do_not_fit(tmp_path):
    arrays = {"a": np.ones((2, 3), "f4"), "b": np.ones((2, 4), "f4"), "c": np.ones((2, 3))}
    for name, array in {**arrays, "d": np.float32(1)}.items():
        np.save(tmp_path / f"{name}.npy", array)
    for other in "bc":
        with pytest.raises(ValueError, match=rf"{other}\.npy .* does not continue .*a\.npy"):
            open_source([tmp_path / "a.npy", tmp_path / f"{other}.npy"])
    with pytest.raises(ValueError, match=r"d\.npy .* is 0-d"):
        open_source([tmp_path / "a.npy", tmp_path / "d.npy"])
    with pytest.raises(FileNotFoundError, match="no file matches this pattern"):
        open_source(f"{tmp_path}/z*.npy")
    with pytest.raises(FileNotFoundError, match=r"z\.npy"):
        open_source([f"{tmp_path}/a.npy", f"{tmp_path}/z.npy"])


def test_files_that_change_while_they_are_read(tmp_path):
    for k in range(3):
        np.save(tmp_path / f"x{k}.npy", np.full(4, float(k)))
        pq.write_table(pa.table({"p": np.full(4, float(k))}), tmp_path / f"p{k}.parquet")
    os.makedirs(tmp_path / "d")
    for k in range(3):
        os.rename(tmp_path / f"p{k}.parquet", tmp_path / "d" / f"p{k}.parquet")
    for name, changed in ((f"{tmp_path}/x*.npy", "x2.npy"), (tmp_path / "d", "d/p2.parquet")):
        source = open_source(name)
        source.read(0, 4, np.empty(32, np.uint8))
        path = tmp_path / changed
        os.utime(path, ns=(2**60, 2**60))
        with pytest.raises(ValueError, match=rf"{changed[-8:]}.*was changed while it was read"):
            source.read(4, 12, np.empty(64, np.uint8))


def test_a_resumed_evaluation_recognises_its_files(tmp_path):
    for k in range(4):
        np.save(tmp_path / f"x{k}.npy", np.full(20_000, float(k)))
    pq.write_to_dataset(
        pa.table({"y": np.ones(80_000), "lang": np.repeat(["de", "en"], 40_000)}),
        tmp_path / "d",
        partition_cols=["lang"],
    )

    class Stop(Exception):
        pass

    def stop(done, total):
        raise Stop

    def run(progress=False):
        return fl.evaluate(
            fl.mse_loss,
            f"{tmp_path}/x*.npy",
            f"{tmp_path}/d:y",
            by=f"{tmp_path}/d:lang",
            state=tmp_path / "state.json",
            chunk_rows=1,
            progress=progress,
        )

    expected = run()
    with pytest.raises(Stop):
        run(stop)
    resumed = run()
    assert resumed.accumulator.to_dict() == expected.accumulator.to_dict()
    assert {label: totals.count for label, totals in resumed.groups.items()} == {
        "de": 40_000,
        "en": 40_000,
    }
    with pytest.raises(Stop):
        run(stop)
    os.utime(tmp_path / "x3.npy", ns=(2**60, 2**60))
    with pytest.raises(ValueError, match="state of another evaluation: data was"):
        run()


def test_what_is_read_is_not_written(tmp_path):
    os.makedirs(tmp_path / "d")
    for k in range(2):
        np.save(tmp_path / f"x{k}.npy", np.ones(3))
        pq.write_table(pa.table({"p": np.ones(3)}), tmp_path / "d" / f"{k}.parquet")
    for data in ([tmp_path / "x0.npy", tmp_path / "x1.npy"], tmp_path / "d"):
        target = tmp_path / ("x1.npy" if isinstance(data, list) else "d/1.parquet")
        before = target.read_bytes()
        with pytest.raises(ValueError, match=r"per_sample|npy"):
            fl.evaluate(fl.l1_loss, data, np.zeros(6), per_sample=target)
        assert target.read_bytes() == before


# ---- text ----------------------------------------------------------------------------------------


def test_types_of_text_are_those_of_all_rows(tmp_path):
    """The first block of a file does not decide them."""
    rows = 150_000
    csv = write_text(tmp_path, "x.csv", "p,g\n" + "1,1\n" * rows * 2 + "1.5,x\n")
    assert fl.evaluate(fl.l1_loss, f"{csv}:p", 0.0).sum == rows * 2 + 1.5
    assert fl.evaluate(fl.l1_loss, f"{csv}:p", 0.0, by=f"{csv}:g").groups["x"].sum == 1.5
    lines = '{"p": 1, "l": [1]}\n' * rows + '{"p": 1.5, "l": [1.5], "new": 1}\n'
    path = write_text(tmp_path, "x.jsonl", lines)
    for name in ("p", "l"):
        assert open_source(f"{path}:{name}").read_all()[-1] == 1.5
    large = write_text(tmp_path, "y.csv", "id\n18446744073709551615\n18446744073709551614\n")
    assert len(groups(large, 2)) == 2  # not rounded to one float


@pytest.mark.complete_only
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak from /proc")
@pytest.mark.parametrize(
    ("suffix", "head", "line"), [("csv", "p\n", "0.5\n"), ("jsonl", "", '{"p":0.5}\n')]
)
def test_memory_does_not_grow_with_text(suffix, head, line, tmp_path):
    sizes = (3 * 10**6, 12 * 10**6)
    paths = [write_text(tmp_path, f"x{n}.{suffix}", head + n * line) for n in sizes]
    growth = subprocess.check_output([sys.executable, "-c", MEASURE, *paths], text=True)
    assert int(growth) < 64  # MB; the column of the larger file has 72 more


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "p,q\n1,2\n,3\n", "row 1 is null"),
        ("x.csv", "p,q\n1,2\nNA,3\n", "row 1 is null"),
        ("x.csv", "p\n1\n\n3\n", "row 1 is null"),
        ("x.csv", "1.5\n2.5\n", "first line is 1.5: it must hold the names"),
        ("x.csv", "p,q\n1,2\n3\n", "Expected 2 columns, got 1"),
        ("x.csv", "p,p\n1,2\n", "multiple columns named p"),
        ("x.csv", "", "has no array 'p'"),
        ("x.csv", "pp,q\n1,2\n", "has no array 'p', it has pp, q"),
        ("x.csv", "p\na\n", "x.csv:p holds string, which are not numbers"),
        ("x.jsonl", '{"p": 1}\n{"q": 1}\n', "row 1 is null"),
        ("x.jsonl", '{"p": 1}\n{"p": null}\n', "row 1 is null"),
        ("x.jsonl", '{"p": [1, 2]}\n{"p": [1]}\n', "row 1 is a list of length 1"),
        ("x.json", '[{"p": 1}]', "one object on each line"),
        ("x.jsonl", '{"p": 1}\n{"p"', "one object on each line"),
        ("x.csv.gz.csv.bz2", "p\n1\n", "x.csv"),
    ],
)
def test_text_that_cannot_be_read(name, text, message, tmp_path):
    path = write_text(tmp_path, name, text)
    with pytest.raises((ValueError, TypeError, OSError), match=message):
        open_source(f"{path}:p").read_all()


def test_nan_in_text_is_a_number(tmp_path):
    path = write_text(tmp_path, "x.csv", "p\n1\nnan\nNaN\n-inf\n")
    np.testing.assert_array_equal(open_source(path).read_all(), [1, np.nan, np.nan, -np.inf])


def test_columns_side_by_side(tmp_path):
    path = write_text(tmp_path, "x.tsv", "y\tl1\tl2\n0\t1\t2.5\n1\t3\t4\n")
    logits = np.array([[1, 2.5], [3, 4]])
    for columns in ("l1,l2", "l*", "l[12]"):
        check(lambda columns=columns: open_source(f"{path}:{columns}"), logits)
    assert fl.evaluate(fl.cross_entropy, f"{path}:l*", f"{path}:y").value == fl.cross_entropy(
        logits, [0, 1]
    )
    with pytest.raises(ValueError, match="has no array 'l3', it has l2, l1, y"):
        open_source(f"{path}:l1,l3")
    pq.write_table(TABLE, tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x\.parquet:logits holds lists: name it alone"):
        open_source(f"{tmp_path}/x.parquet:p,logits")


# ---- bfloat16 ------------------------------------------------------------------------------------

HALVES = np.random.default_rng(0).normal(size=(103, 4)).astype(ml_dtypes.bfloat16)


def test_bfloat16_of_files(tmp_path):
    np.save(tmp_path / "x.npy", HALVES)
    np.savez(tmp_path / "x.npz", x=HALVES)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=HALVES, chunks=(10, 2))
    paths = [tmp_path / "x.npy", f"{tmp_path}/x.npz:x", f"{tmp_path}/x.h5:x"]
    for path in [*paths, [tmp_path / "x.npy"]]:
        check(lambda path=path: open_source(path), HALVES)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    check(lambda: open_source(mapped), HALVES)
    with h5py.File(tmp_path / "x.h5") as file:
        assert fl.l1_loss(file["x"], 0.0) == fl.l1_loss(HALVES, 0.0)
    zarr = pytest.importorskip("zarr")
    raw = HALVES.view(np.uint16).tobytes()
    stored = zarr.create_array(
        tmp_path / "x.zarr", shape=(103, 4), dtype="u2", chunks=(10, 4), zarr_format=2
    )
    stored[...] = HALVES.view(np.uint16)
    metadata = tmp_path / "x.zarr" / ".zarray"  # as zarr 2 writes bfloat16
    text = metadata.read_text()
    metadata.write_text(
        text.replace("<u2", "|V2").replace('"fill_value": 0', '"fill_value": "AAA="')
    )
    assert open_source(tmp_path / "x.zarr").read_all().tobytes() == raw


def test_raw_bytes_in_memory_name_the_remedy():
    raw = HALVES.view("V2")
    for call in (
        lambda: fl.l1_loss(raw, 0.0),
        lambda: fl.evaluate(fl.l1_loss, raw, 0.0),
        lambda: fl.evaluate(fl.l1_loss, [(raw, 0.0)]),
    ):
        with pytest.raises(TypeError, match=r"input\.view\(ml_dtypes\.bfloat16\)"):
            call()


def test_bfloat16_without_ml_dtypes(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", HALVES)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=r"pip install 'fastloss\[bfloat16\]'"):
        open_source(tmp_path / "x.npy")


def test_bfloat16_tensors():
    torch = pytest.importorskip("torch")
    labels = [k % 4 for k in range(103)]
    tensor = torch.from_numpy(HALVES.astype(np.float32)).to(torch.bfloat16)
    assert fl.cross_entropy(tensor, labels) == fl.cross_entropy(HALVES, labels)
    assert fl.l1_loss(tensor.T[1], 0.0) == fl.l1_loss(HALVES[:, 1], 0.0)
    assert fl.l1_loss(tensor[0, 0], 0.0) == fl.l1_loss(HALVES[0, 0], 0.0)
    gradient = fl.cross_entropy.grad(tensor, labels)
    assert gradient.dtype == ml_dtypes.bfloat16
    for batches in ((tensor, labels), ([(tensor, labels)],)):
        assert fl.evaluate(fl.cross_entropy, *batches).value == fl.cross_entropy(HALVES, labels)
    with pytest.raises(TypeError, match="requires grad"):
        fl.l1_loss(tensor.clone().requires_grad_(), 0.0)
    with pytest.raises(TypeError, match="pass input in float32"):
        fl.l1_loss([tensor[0], tensor[1]], 0.0)


# ---- names ---------------------------------------------------------------------------------------


def test_members_of_any_name(tmp_path):
    names = ["x.npy", "a:b", "g/x", "ü x", "c.csv:d"]
    np.savez(tmp_path / "a.npz", **{name: np.full(k + 1, k) for k, name in enumerate(names)})
    os.rename(tmp_path / "a.npz", tmp_path / "archive")
    for k, name in enumerate(names):
        for member in (name, f"{name}.npy"):
            check(
                lambda member=member: open_source(f"{tmp_path}/archive:{member}"), np.full(k + 1, k)
            )


@pytest.mark.parametrize("name", ["x.npy.gz", "x.parquet.gz"])
def test_compressed_files_name_the_remedy(name, tmp_path):
    (tmp_path / name).write_bytes(gzip.compress(b"x" * 100))
    with pytest.raises(ValueError, match=r"is compressed: decompress it \(gunzip\)"):
        open_source(pathlib.Path(tmp_path / name))
