"""Missing data are errors or are reported: nulls, masks, absent files, absent chunks."""

import contextlib
import itertools
import json
import os
import re
import shutil
import sys
import warnings

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pytest

import fastloss as fl
from fastloss.cli import main
from fastloss.evaluation.sources import open_source

zarr = pytest.importorskip("zarr", minversion="3.0.8")


# --- nulls ----------------------------------------------------------------------------------------


class Exported:
    """A column that exports its memory as Arrow, as those of Polars do, and reads nulls as NaN."""

    dtype = "its own"

    def __init__(self, values):
        self.values = pa.array(values)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)

    def is_null(self):
        return np.asarray(self.values.is_null())


class ExportedArray(Exported):
    def __arrow_c_array__(self, requested_schema=None):
        return self.values.__arrow_c_array__(requested_schema)


class ExportedStream(Exported):
    def __arrow_c_stream__(self, requested_schema=None):
        return pa.chunked_array([self.values]).__arrow_c_stream__(requested_schema)


class Fixed(ExportedStream):
    """A column of rows of two entries; the outer rows are not null."""

    class dtype:
        shape = (2,)

    def __init__(self, rows):
        self.flat = Exported([entry for row in rows for entry in row])
        self.values = pa.array(rows, pa.list_(pa.float64(), 2))

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.flat, dtype).reshape(-1, 2)

    def explode(self):
        return self.flat


class Frame:
    """A table of such columns."""

    def __init__(self, *columns):
        self.columns = columns

    def __array__(self, dtype=None, copy=None):
        return np.stack([np.asarray(column) for column in self.columns], axis=1)

    def __arrow_c_stream__(self, requested_schema=None):
        names = [str(k) for k in range(len(self.columns))]
        columns = [column.values for column in self.columns]
        return pa.table(columns, names).__arrow_c_stream__(requested_schema)

    def iter_columns(self):
        return iter(self.columns)


CRITERIA = {fl.l1_loss: fl.L1Loss(), fl.cross_entropy: fl.CrossEntropyLoss()}
REFUSED = r"null|mask|object|not numbers|is a table"
REFUSED_LABELS = r"null|mask|labels must be|strings"
NULLS = [1.0, 0.0, None, 1.0]
WHOLE = [1.0, 0.0, 5.0, 1.0]
ROWS = [[1.0, 2.0], [3.0, 4.0], [5.0, None]]
WHOLE_ROWS = [[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]]
TENSOR = pa.fixed_shape_tensor(pa.float64(), (2,))


def dictionary(values):
    """The values in a dictionary, which holds the null, if there is one."""
    return pa.DictionaryArray.from_arrays(pa.array(range(len(values))), pa.array(values))


def tensor(rows):
    return pa.ExtensionArray.from_storage(TENSOR, pa.array(rows, pa.list_(pa.float64(), 2)))


COLUMNS = {
    "arrow": pa.array,
    "arrow, integers": lambda values: pa.array(values, pa.int64()),
    "arrow, chunks": lambda values: pa.chunked_array([values[:1], values[1:]]),
    "arrow, slice": lambda values: pa.array([None, *values, None])[1:-1],
    "arrow, dictionary": dictionary,
    "arrow, dictionary indices": lambda values: pa.array(values).dictionary_encode(),
    "arrow, runs": lambda values: pa.compute.run_end_encode(pa.array(values)),
    "pandas Float64": lambda values: pd.Series(values, dtype="Float64"),
    "pandas Int64": lambda values: pd.Series(values, dtype="Int64"),
    "pandas arrow": lambda values: pd.Series(values, dtype=pd.ArrowDtype(pa.float64())),
    "pandas index": lambda values: pd.Index(values, dtype="Int64"),
    "pandas array": lambda values: pd.array(values, dtype="Float64"),
    "pandas category": lambda values: pd.Series(values).astype("category"),
    "exported array": ExportedArray,
    "exported stream": ExportedStream,
    "masked by __array__": lambda values: Masked(values),
}
TABLES = {
    "arrow lists": pa.array,
    "arrow lists of two": lambda rows: pa.array(rows, pa.list_(pa.float64(), 2)),
    "arrow tensor": tensor,
    "arrow table": lambda rows: pa.table(list(zip(*rows, strict=True)), ["a", "b"]),
    "arrow batch": lambda rows: pa.record_batch(list(map(pa.array, zip(*rows, strict=True))), "ab"),
    "list of arrow": lambda rows: [pa.array(row) for row in rows],
    "tuple of pandas": lambda rows: tuple(pd.Series(row, dtype="Float64") for row in rows),
    "pandas frame": lambda rows: pd.DataFrame(rows, columns=["a", "b"]).astype("Float64"),
    "exported rows": Fixed,
    "exported table": lambda rows: Frame(*map(ExportedStream, zip(*rows, strict=True))),
    "list of masked": lambda rows: [Masked(row).__array__() for row in rows],
    "list of masked entries": lambda rows: [list(Masked(row).__array__()) for row in rows],
    "list of lists": lambda rows: rows,
}


class Masked:
    """An array-like whose __array__ returns a masked array."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        data = [7.0 if value is None else value for value in self.values]
        return np.ma.masked_array(data, [value is None for value in self.values])


def ways(loss, input, target):
    """A loss of arrays in each way that the library computes it."""
    accumulator = CRITERIA[loss].accumulator()
    yield "call", lambda: loss(input, target)
    yield "grad", lambda: loss.grad(input, target)
    yield "sums", lambda: loss.sums(input, target)
    yield "accumulator", lambda: accumulator.update(input, target)
    yield "evaluate", lambda: fl.evaluate(loss, input, target)
    yield "batch", lambda: fl.evaluate(loss, [(input, target)])


@pytest.mark.parametrize("name", [*COLUMNS, *TABLES])
@pytest.mark.parametrize("has_pyarrow", [True, False])
@pytest.mark.filterwarnings("ignore:.*converting a masked element to nan")
def test_nulls_are_never_numbers(name, has_pyarrow, monkeypatch):
    make, values, whole = (
        (COLUMNS[name], NULLS, WHOLE) if name in COLUMNS else (TABLES[name], ROWS, WHOLE_ROWS)
    )
    with_null, without, other = make(values), make(whole), np.zeros(np.shape(whole))
    if not has_pyarrow:
        if "exported" not in name:
            return
        monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused = pytest.raises((TypeError, ValueError), match=REFUSED)
    for loss, input, target in [
        (fl.l1_loss, with_null, other),
        (fl.l1_loss, other, with_null),
    ]:
        for way, call in ways(loss, input, target):
            with refused as error:
                call()
            if name in COLUMNS and "masked" not in name and "dictionary" not in name:
                assert "row 2 is null" in str(error.value) or "runs" in name, way
    with refused:
        fl.l1_loss(other, other, sample_weight=with_null)
    if "masked" not in name:
        for way, call in ways(fl.l1_loss, without, other):
            no_column = re.search("^arrow.*(table|batch|dictionary|runs)", name)
            if name == "pandas frame" or (way == "evaluate" and no_column):
                with refused:
                    call()
            elif way != "grad" or not re.search("integers|Int64|index", name):
                call()
        if name != "pandas frame":  # which NumPy reads as objects
            assert fl.l1_loss(without, other) == np.mean(whole)


@pytest.mark.parametrize("name", COLUMNS)
def test_labels_with_nulls_are_refused(name):
    x, labels = np.zeros((4, 3)), COLUMNS[name]([1, 0, None, 1])
    refused = pytest.raises((TypeError, ValueError), match=REFUSED)
    for _, call in ways(fl.cross_entropy, x, labels):
        with refused as error:
            call()
        assert "astype" not in str(error.value)
    for by in (labels, pa.array(["a", "b", None, "a"]), pd.Series(["a", "b", None, "a"])):
        with pytest.raises((TypeError, ValueError), match=REFUSED_LABELS):
            fl.evaluate(fl.l1_loss, np.zeros(4), 0.0, by=by)


def test_labels_without_nulls_are_read():
    x, zero = np.arange(4.0), np.zeros(4)
    for by in (pa.array(["a", "b", "b", "a"]), pd.Series(["a", "b", "b", "a"], dtype="string")):
        groups = fl.evaluate(fl.l1_loss, x, zero, by=by).groups
        assert {label: totals.value for label, totals in groups.items()} == {"a": 1.5, "b": 1.5}
    labels = pa.array([1, 0, 2, 1])
    expected = fl.cross_entropy(np.eye(4, 3), np.array([1, 0, 2, 1]))
    assert fl.cross_entropy(np.eye(4, 3), labels) == expected


def test_nan_is_no_null():
    for make in (pa.array, lambda v: pd.array(v, dtype=pd.ArrowDtype(pa.float64())), pd.Series):
        column = make(pa.array([1.0, np.nan]) if make is not pa.array else [1.0, np.nan])
        assert np.isnan(fl.l1_loss(column, np.zeros(2)))
    assert np.isnan(fl.l1_loss(pd.arrays.SparseArray([1.0, np.nan]), np.zeros(2)))


def test_lists_of_arrow_are_rows_in_every_way():
    rows = [[1.0, 2.0], [3.0, 4.0]]
    for column in (pa.array(rows), pa.chunked_array([rows[:1], rows[1:]]), tensor(rows)):
        for way, call in ways(fl.l1_loss, column, np.zeros((2, 2))):
            result = call()
            if way in ("evaluate", "batch"):
                assert result.value == 2.5
        assert fl.l1_loss(column, np.zeros((2, 2))) == 2.5


# --- HDF5 -----------------------------------------------------------------------------------------

DATA = np.arange(1, 13.0).reshape(6, 2)
LABELS = np.array([1, 1, 0, 1, 1, 0])


def write_parts(folder):
    for k in range(2):
        with h5py.File(folder / f"part{k}.h5", "w") as file:
            file["d"] = DATA[3 * k : 3 * k + 3]


def write_virtual(folder, absolute=False, name="all.h5", selected=False, fillvalue=0):
    write_parts(folder)
    layout = h5py.VirtualLayout((6, 2), "f8")
    for k in range(2):
        path = str(folder / f"part{k}.h5") if absolute else f"part{k}.h5"
        source = h5py.VirtualSource(path, "d", shape=(3, 2))
        layout[3 * k : 3 * k + 3] = source[0:3, 0:2] if selected else source
    with h5py.File(folder / name, "w") as file:
        file.create_virtual_dataset("d", layout, fillvalue=fillvalue)
    return f"{folder / name}:d"


def write_series(folder):
    """A virtual dataset of part0.h5, part1.h5, ..., as many as there are."""
    write_parts(folder)
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    unlimited = h5py.h5s.UNLIMITED
    target = h5py.h5s.create_simple((6, 2), (unlimited, 2))
    target.select_hyperslab((0, 0), (unlimited, 1), (3, 1), (3, 2))
    creation.set_virtual(target, b"part%b.h5", b"d", h5py.h5s.create_simple((3, 2)))
    with h5py.File(folder / "series.h5", "w") as file:
        space = h5py.h5s.create_simple((6, 2), (unlimited, 2))
        h5py.h5d.create(file.id, b"d", h5py.h5t.NATIVE_DOUBLE, space, creation)
    return f"{folder / 'series.h5'}:d"


def write_external(folder, unlimited=False):
    size = h5py.h5f.UNLIMITED if unlimited else 48
    files = [(str(folder / "raw0"), 8, 48), (str(folder / "raw1"), 0, size)]
    with h5py.File(folder / "ext.h5", "w") as file:
        file.create_dataset("d", (6, 2), "f8", external=files)[:] = DATA
    return f"{folder / 'ext.h5'}:d"


def value_of(data):
    return fl.evaluate(fl.l1_loss, data, 0.0).value


def replace(path, **datasets):
    os.remove(path)
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name] = data


DAMAGES = {  # of part1.h5, and a part of the message
    "removed": (os.remove, r"part1\.h5 does not exist"),
    "not HDF5": (lambda path: path.write_bytes(b"x" * 3000), r"part1\.h5 cannot be opened"),
    "truncated": (lambda path: os.truncate(path, 1000), r"part1\.h5 cannot be opened"),
    "no dataset": (lambda path: replace(path, other=DATA[3:]), r"part1\.h5 has no dataset d"),
    "short": (lambda path: replace(path, d=DATA[4:]), r"part1\.h5 (has shape \(2, 2\)|has 4)"),
    "narrow": (lambda path: replace(path, d=DATA[3:, :1]), r"part1\.h5 has (shape|3)"),
    "empty": (lambda path: replace(path, d=h5py.Empty("f8")), r"part1\.h5 has no dataset d"),
    "no rows": (lambda path: replace(path, d=DATA[:0]), r"part1\.h5 has (shape|0)"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("selected", [False, True])
@pytest.mark.parametrize("absolute", [False, True])
def test_missing_sources_of_virtual_datasets(tmp_path, damage, absolute, selected):
    path = write_virtual(tmp_path, absolute, selected=selected)
    assert value_of(path) == DATA.mean()
    harm, message = DAMAGES[damage]
    harm(tmp_path / "part1.h5")
    with pytest.raises(ValueError, match=rf"all\.h5:d consists of other files.*{message}"):
        value_of(path)
    with h5py.File(tmp_path / "all.h5") as file:
        for _, call in ways(fl.l1_loss, file["d"], np.zeros((6, 2))):
            with pytest.raises(ValueError, match=message):
                call()
    if damage in ("removed", "no dataset"):  # the others are errors of HDF5
        with pytest.warns(UserWarning, match=r"all\.h5:d lacks 1 chunk"):
            result = fl.evaluate(fl.l1_loss, path, 0.0, missing_chunks="fill")
        assert (result.value, result.missing_chunks) == (DATA[:3].sum() / 12, 1)


def test_sources_of_sources_are_found(tmp_path):
    folder = tmp_path / "below"
    folder.mkdir()
    write_virtual(folder)
    layout = h5py.VirtualLayout((6, 2), "f8")
    layout[:] = h5py.VirtualSource("below/all.h5", "d", shape=(6, 2))
    with h5py.File(tmp_path / "top.h5", "w") as file:
        file.create_virtual_dataset("d", layout)
    assert value_of(f"{tmp_path / 'top.h5'}:d") == DATA.mean()
    os.remove(folder / "part0.h5")
    with pytest.raises(ValueError, match=r"top\.h5:d.*below/part0\.h5 does not exist"):
        value_of(f"{tmp_path / 'top.h5'}:d")


def test_sources_in_the_same_file(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["parts/0"] = DATA
        layout = h5py.VirtualLayout((6, 2), "f8")
        layout[:] = h5py.VirtualSource(file["parts/0"])
        file.create_virtual_dataset("d", layout)
    assert value_of(f"{tmp_path / 'x.h5'}:d") == DATA.mean()
    with h5py.File(tmp_path / "x.h5", "a") as file:
        del file["parts/0"]
    with pytest.raises(ValueError, match=r"has no dataset .*parts/0"):
        value_of(f"{tmp_path / 'x.h5'}:d")


def test_where_sources_are_searched(tmp_path, monkeypatch):
    """In the folder of the file, also by a link, in the working directory, and in a prefix."""
    path = write_virtual(tmp_path)
    there = tmp_path / "there"
    there.mkdir()
    for k in range(2):
        shutil.move(tmp_path / f"part{k}.h5", there)
    with pytest.raises(ValueError, match="does not exist"):
        value_of(path)
    with monkeypatch.context() as patch:
        patch.chdir(there)
        assert value_of(path) == DATA.mean()
    for prefix in (str(there), f"/nowhere:{there}"):
        monkeypatch.setenv("HDF5_VDS_PREFIX", prefix)
        with contextlib.suppress(ValueError):  # by the version of HDF5, a prefix is one folder
            assert value_of(path) == DATA.mean()
    monkeypatch.delenv("HDF5_VDS_PREFIX")
    shutil.move(tmp_path / "all.h5", there)
    os.symlink(there / "all.h5", tmp_path / "link.h5")
    assert value_of(f"{tmp_path / 'link.h5'}:d") == DATA.mean()
    write_virtual(tmp_path, absolute=True)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("all.h5", "part0.h5", "part1.h5"):
        shutil.move(tmp_path / name, moved)
    assert value_of(f"{moved / 'all.h5'}:d") == DATA.mean()


def test_parts_of_virtual_datasets_without_a_source(tmp_path):
    write_parts(tmp_path)
    for fillvalue in (0.0, np.nan):
        layout = h5py.VirtualLayout((6, 2), "f8")
        layout[:3] = h5py.VirtualSource("part0.h5", "d", shape=(3, 2))
        with h5py.File(tmp_path / "half.h5", "w") as file:
            file.create_virtual_dataset("d", layout, fillvalue=fillvalue)
        path = f"{tmp_path / 'half.h5'}:d"
        if fillvalue == 0:
            with pytest.warns(UserWarning, match="lacks 1 chunk"):
                assert value_of(path) == DATA[:3].sum() / 12
            with pytest.raises(ValueError, match="'error'"):
                fl.evaluate(fl.l1_loss, path, 0.0, missing_chunks="error")
        else:
            with pytest.raises(ValueError, match="lacks 1 chunk, whose fill value is NaN"):
                value_of(path)


def test_a_gap_in_a_series_of_sources(tmp_path):
    path = write_series(tmp_path)
    assert value_of(path) == DATA.mean()
    os.remove(tmp_path / "part0.h5")
    with pytest.raises(ValueError, match=r"part0\.h5 does not exist, but d of part1\.h5 does"):
        value_of(path)


@pytest.mark.parametrize("unlimited", [False, True])
def test_missing_external_files(tmp_path, unlimited):
    path = write_external(tmp_path, unlimited)
    assert value_of(path) == DATA.mean()
    os.truncate(tmp_path / "raw1", 20)
    with pytest.raises(ValueError, match=r"raw1 is cut short: 20 bytes in place of 48"):
        value_of(path)
    with pytest.warns(UserWarning, match="lacks 1 chunk"):
        result = fl.evaluate(fl.l1_loss, path, 0.0, missing_chunks="fill")
    assert result.value == DATA.ravel()[:8].sum() / 12
    os.truncate(tmp_path / "raw0", 55)
    with pytest.raises(ValueError, match=r"raw0 is cut short: 55 bytes in place of 56"):
        value_of(path)
    os.remove(tmp_path / "raw0")
    with pytest.raises(ValueError, match="raw0 does not exist"):
        value_of(path)


@pytest.mark.parametrize("write", [write_virtual, write_external])
def test_files_that_change_while_they_are_read(tmp_path, write):
    name = "part1.h5" if write is write_virtual else "raw1"
    for change, message in [
        (os.remove, "has been removed|cannot be read"),
        (lambda path: os.truncate(path, 16), "in place of|cannot be read"),
        (lambda path: (shutil.copy(path, f"{path}~"), os.replace(f"{path}~", path)), "replaced"),
    ]:
        source = open_source(write(tmp_path))
        np.testing.assert_array_equal(read(source, 0, 1), DATA[:1])
        change(tmp_path / name)
        with pytest.raises((ValueError, OSError), match=message):
            read(source, 1, 6)
        source.close()
        for path in tmp_path.iterdir():
            path.unlink()


def test_changed_sources_have_another_fingerprint(tmp_path):
    def fingerprint():
        with contextlib.closing(open_source(f"{tmp_path / 'all.h5'}:d")) as source:
            return source.fingerprint()

    write_virtual(tmp_path)
    before = fingerprint()
    assert json.loads(json.dumps(before)) == before == fingerprint()
    with h5py.File(tmp_path / "part1.h5", "a") as file:
        file["d"][:] = 7
    os.utime(tmp_path / "part1.h5", ns=(1, 1))
    assert fingerprint() != before


def read(source, start, stop):
    rows = source.read(start, stop, np.empty((stop - start) * source.row_bytes, np.uint8))
    return rows.copy()


@pytest.mark.parametrize("chunks", [(2, 2), (4, 1), None])
def test_chunks_of_hdf5_that_were_never_written(tmp_path, chunks):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("d", (7, 3), "f8", chunks=chunks, fillvalue=5)
        if chunks:
            dataset[:2] = 1
    grid = [-(-n // c) for n, c in zip((7, 3), chunks or (7, 3), strict=True)]
    absent = np.prod(grid) - (grid[1] if chunks else 0)
    path = f"{tmp_path / 'x.h5'}:d"
    with pytest.warns(UserWarning, match=rf"x\.h5:d lacks {absent} chunk"):
        assert fl.evaluate(fl.l1_loss, path, 0.0).missing_chunks == absent
    with pytest.raises(ValueError, match=f"lacks {absent} chunk"):
        fl.evaluate(fl.l1_loss, path, 0.0, missing_chunks="error")


def test_chunks_of_hdf5_without_a_fill_value(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("nan", (6,), "f8", chunks=(3,), fillvalue=np.nan)[:3] = 1
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((3,))
        creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((6,))
        h5py.h5d.create(file.id, b"never", h5py.h5t.NATIVE_DOUBLE, space, creation)
        file["never"][:3] = 1
    for name, message in [("nan", "fill value is NaN"), ("never", "no fill value")]:
        for missing_chunks in (None, "warn", "error", "fill"):
            with pytest.raises(ValueError, match=f"x.h5:{name} lacks 1 chunk, wh.*{message}"):
                fl.evaluate(
                    fl.l1_loss, f"{tmp_path / 'x.h5'}:{name}", 0.0, missing_chunks=missing_chunks
                )


def test_a_filter_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("d", (6,), "f8", chunks=(6,), compression="gzip")
        dataset[:] = 1
    data = path.read_bytes()
    known = b"\x01\x00\x07\x00\x01\x00\x01\x00deflate\x00"  # the identifier of the filter, its name
    at = data.find(b"deflate")
    if at < 0:  # version 2 of the message leaves out the names of standard filters
        at = data.find(b"\x02\x01\x01\x00\x01\x00\x01\x00")
        assert at > 0
        data = data[: at + 2] + (999).to_bytes(2, "little") + data[at + 4 :]
    else:
        at -= 8
        assert data[at : at + len(known) - 8]
        data = data[:at] + (999).to_bytes(2, "little") + data[at + 2 :]
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.h5:d .*filter 999.*hdf5plugin"):
        value_of(f"{path}:d")


# --- Zarr -----------------------------------------------------------------------------------------


def create(store, **options):
    options = {"shape": (7, 5), "chunks": (3, 2), "dtype": "f8"} | options
    array = zarr.create_array(store=store, config={"write_empty_chunks": True}, **options)
    array[...] = 1
    return array


def files_of(folder):
    """The files of an array that are no metadata."""
    paths = (os.path.join(f, name) for f, _, names in os.walk(folder) for name in names)
    return sorted(
        path for path in paths if not re.fullmatch(r"\.z.*|zarr\.json", path.split("/")[-1])
    )


KINDS = {
    "format 3": {},
    "format 3, dots": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "format 3, keys of format 2": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    "format 2": {"zarr_format": 2},
    "format 2, folders": {
        "zarr_format": 2,
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
    },
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("as_path", [True, False])
def test_absent_chunks_of_zarr_are_counted(tmp_path, kind, as_path):
    folder = str(tmp_path / "x.zarr")
    create(folder, fill_value=0, **KINDS[kind])
    files = files_of(folder)
    assert len(files) == 9
    for absent, path in enumerate(files, start=1):
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            data = folder if as_path else zarr.open_array(folder, mode="r")
            result = fl.evaluate(fl.l1_loss, data, 0.0)
        assert result.missing_chunks == absent - 1 == result.to_dict()["missing_chunks"]
        assert ("missing chunks" in repr(result)) == (absent > 1)
        assert len(shown) == (absent > 1)
        if shown:
            assert f"lacks {absent - 1} chunk" in str(shown[0].message)
            assert shown[0].filename == __file__
        fl.evaluate(fl.l1_loss, data, 0.0, missing_chunks="error") if absent == 1 else None
        os.remove(path)
        data = folder if as_path else zarr.open_array(folder, mode="r")
        with pytest.raises(ValueError, match=rf"lacks {absent} chunk.*'error'"):
            fl.evaluate(fl.l1_loss, data, 0.0, missing_chunks="error")
        with pytest.warns(UserWarning, match=f"lacks {absent} chunk"):
            fl.l1_loss(zarr.open_array(folder, mode="r"), np.zeros((7, 5)))


def test_files_beside_the_chunks_are_not_counted(tmp_path):
    folder = tmp_path / "x.zarr"
    create(str(folder))
    os.remove(folder / "c/0/0")
    for name in ("c/0/0~", "c/3/0", "c/00/0", "c/0/0.tmp", "d/0/0", "c/-1/0"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    with pytest.warns(UserWarning, match="lacks 1 chunk,"):
        assert fl.evaluate(fl.l1_loss, str(folder), 0.0).missing_chunks == 1


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("written", [0, 1, 2, 5, 7])
def test_absent_chunks_in_shards(tmp_path, location, written):
    folder = str(tmp_path / "x.zarr")
    shards = {"shape": (4, 4), "index_location": location}
    array = zarr.create_array(folder, shape=(7, 5), chunks=(2, 2), shards=shards, dtype="f8")
    array[:written] = 1
    absent = 12 - 3 * -(-written // 2)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        result = fl.evaluate(fl.l1_loss, folder, 0.0)
    assert result.missing_chunks == absent
    assert len(shown) == (absent > 0)
    assert result.value == written / 7


@pytest.mark.parametrize("missing_chunks", [None, "warn", "error", "fill"])
def test_absent_chunks_without_a_fill_value(tmp_path, missing_chunks):
    nan = create(str(tmp_path / "nan.zarr"), fill_value=np.nan)
    null = create(str(tmp_path / "null.zarr"), fill_value=None, zarr_format=2)
    for array, name, what in [(nan, "c/1/1", "NaN"), (null, "1.1", "null")]:
        path = str(tmp_path / f"{what.lower()}.zarr")
        fl.evaluate(fl.l1_loss, path, 0.0, missing_chunks=missing_chunks)
        os.remove(os.path.join(path, name))
        for data in (path, array):
            with pytest.raises(ValueError, match=f"lacks 1 chunk, whose fill value is {what}"):
                fl.evaluate(fl.l1_loss, data, 0.0, missing_chunks=missing_chunks)


def test_absent_chunks_of_other_stores(tmp_path):
    memory = {}
    array = create(zarr.storage.MemoryStore(memory), fill_value=0)
    fl.evaluate(fl.l1_loss, array, 0.0, missing_chunks="error")
    del memory["c/0/1"]
    with pytest.warns(UserWarning, match="input lacks 1 chunk"):
        assert fl.evaluate(fl.l1_loss, array, 0.0).missing_chunks == 1
    folder = tmp_path / "group.zarr"
    group = zarr.open_group(str(folder), mode="w")
    group.create_array("a/b", shape=DATA.shape, dtype="f8", chunks=(2, 2))[...] = DATA
    os.remove(folder / "a/b/c/1/0")
    with pytest.warns(UserWarning, match="a/b lacks 1 chunk"):
        fl.evaluate(fl.l1_loss, f"{folder}:a/b", 0.0)


def test_chunks_that_vanish_while_they_are_read(tmp_path):
    folder = str(tmp_path / "x.zarr")
    create(folder, shape=(12, 2), fill_value=0)
    source = open_source(folder)
    read(source, 0, 3)
    os.remove(tmp_path / "x.zarr/c/2/0")
    read(source, 3, 6)
    with pytest.raises(ValueError, match=r"x\.zarr .*changed.*c/2/0 is gone"):
        read(source, 6, 9)


def test_0d_and_empty_arrays_of_zarr(tmp_path):
    for version, shape in itertools.product((2, 3), ((), (0, 3))):
        folder = str(tmp_path / f"{version}{len(shape)}.zarr")
        array = zarr.create_array(
            folder, shape=shape, dtype="f8", zarr_format=version, fill_value=0
        )
        if not shape:
            with pytest.warns(UserWarning, match="lacks 1 chunk"):
                assert value_of(folder) == 0
            array[...] = 3
            assert fl.evaluate(fl.l1_loss, folder, 0.0, missing_chunks="error").value == 3
        else:
            assert fl.evaluate(fl.l1_loss, folder, 0.0, missing_chunks="error").count == 0


# --- the option -----------------------------------------------------------------------------------


def test_each_array_is_reported(tmp_path):
    for name in ("x", "y", "w"):
        create(str(tmp_path / f"{name}.zarr"), fill_value=1)
        os.remove(tmp_path / f"{name}.zarr/c/0/0")
    names = [str(tmp_path / f"{name}.zarr") for name in "xyw"]
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        results = fl.evaluate([fl.l1_loss, fl.mse_loss], *names[:2], sample_weight=names[2])
    assert [result.missing_chunks for result in results] == [3, 3]
    assert [name in str(w.message) for name, w in zip(names, shown, strict=True)] == [True] * 3


def test_errors_of_the_option(tmp_path):
    with pytest.raises(ValueError, match=r"missing_chunks must be one of 'warn', .*got 'no'"):
        fl.evaluate(fl.l1_loss, DATA, 0.0, missing_chunks="no")
    with pytest.raises(TypeError, match="missing_chunks require arrays"):
        fl.evaluate(fl.l1_loss, [(DATA, DATA)], missing_chunks="error")
    da = pytest.importorskip("dask.array")
    with pytest.raises(TypeError, match="missing_chunks is not supported with Dask"):
        fl.evaluate(fl.l1_loss, da.from_array(DATA), 0.0, missing_chunks="error")


def test_command_line(tmp_path, capsys):
    folder = str(tmp_path / "y.zarr")
    array = create(folder, shape=(6,), chunks=(3,), dtype="i8", fill_value=0)
    np.save(tmp_path / "x.npy", np.tile([0.0, 5.0], (6, 1)))
    command = ["evaluate", "cross_entropy", str(tmp_path / "x.npy"), folder]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "missing" not in shown.out
    assert shown.err == ""
    os.remove(tmp_path / "y.zarr/c/1")
    assert main(command) == 0
    shown = capsys.readouterr()
    assert re.search(r"^missing chunks +1$", shown.out, re.M)
    assert re.fullmatch(r"fastloss: warning: \S*y\.zarr lacks 1 chunk, .*\n", shown.err)
    assert main([*command, "--json", "--missing-chunks", "warn"]) == 0
    assert json.loads(capsys.readouterr().out)["missing_chunks"] == 1
    assert main([*command, "--missing-chunks", "error"]) == 2
    assert "y.zarr lacks 1 chunk" in capsys.readouterr().err
    assert array.shape == (6,)
