"""Sources: the stored values, bitwise, for requests of any size, or one clear error."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from math import prod

import h5py
import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest

from fastloss.evaluation.sources import open_source

zarr = pytest.importorskip("zarr", minversion="3.0.8")

DTYPES = ["<f4", "<f8", "<f2", "<i8", "<i4", "u1", "?"]
SHAPES = [(103,), (103, 7), (103, 3, 5), (1, 2), (0, 3)]
STEPS = [1, 10, 33, 200]


def make(shape, dtype, seed=0):
    values = np.random.default_rng(seed).normal(0, 30, shape)
    return (abs(values) if np.dtype(dtype).kind == "u" else values).astype(dtype)


def assert_same(got, expected):
    """Asserts equal shapes, dtypes up to byte order, and bitwise identical values."""
    native = np.dtype(expected.dtype).newbyteorder("=")
    assert got.dtype.newbyteorder("=") == native
    assert got.shape == expected.shape
    assert got.astype(native).tobytes() == expected.astype(native).tobytes()


def buffer_of(source, rows):
    """A buffer of exactly the size that a source needs, or None."""
    return np.full(rows * source.row_bytes, 0xA5, np.uint8) if source.buffered else None


def read(source, start, stop):
    return source.read(start, stop, buffer_of(source, stop - start))


def check(opener, array, steps=STEPS):
    """Reads a source in all ways that the protocol allows."""
    with contextlib.closing(opener()) as source:
        assert source.shape == array.shape
        assert source.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
        assert source.rows == (len(array) if array.ndim else 1)
        assert source.row_bytes * source.rows == source.nbytes == array.nbytes
        assert json.loads(json.dumps(source.fingerprint())) == source.fingerprint()
        assert 1 <= source.chunk_rows <= max(source.rows, 1)
    assert_same(opener().read_all(), array)
    if not array.ndim:
        return
    for step in steps:
        with contextlib.closing(opener()) as source:
            buffers = [buffer_of(source, min(step, len(array))) for _ in range(2)]
            for count, start in enumerate(range(0, len(array), step)):
                stop = min(start + step, len(array))
                rows = source.read(start, stop, buffers[count % 2])
                assert_same(rows, array[start:stop])
                if source.buffered and rows.size:
                    assert np.shares_memory(rows, buffers[count % 2])
    if len(array) > 100:
        with contextlib.closing(opener()) as source:  # with gaps, as an evaluation that resumes
            for start, stop in [(3, 5), (5, 6), (41, 43), (44, 102), (103, 103)]:
                assert_same(read(source, start, stop), array[start:stop])
            with pytest.raises(ValueError, match="row 102 after row 103"):
                read(source, 102, 103)


# ---- formats -------------------------------------------------------------------------------------


def write_npy(folder, array):
    np.save(folder / "x.npy", array)
    return folder / "x.npy"


def write_npz(folder, array):
    np.savez_compressed(folder / "x.npz", x=array, y=[1])
    return f"{folder}/x.npz:x"


def write_hdf5(folder, array, **options):
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("group/x", data=array, **options)
        file["y"] = [1]
    return f"{folder}/x.h5:group/x"


def write_hdf5_chunks(folder, array):
    chunks = tuple(max(min(n, 10 if i == 0 else 2), 1) for i, n in enumerate(array.shape))
    maxshape = (None, *array.shape[1:])
    return write_hdf5(
        folder, array, chunks=chunks, maxshape=maxshape, compression="gzip", shuffle=True
    )


def write_zarr(folder, array, **options):
    chunks = tuple(max(min(n, 10 if i == 0 else 2), 1) for i, n in enumerate(array.shape))
    options |= {"name": "group/x", "shape": array.shape, "chunks": chunks}
    try:
        stored = zarr.create_array(folder / "x.zarr", dtype=array.dtype, **options)
    except KeyError:  # releases up to 3.0.8 accept a byte order of format 3 in the codec only
        native, codec = array.dtype.newbyteorder("="), zarr.codecs.BytesCodec(endian="big")
        stored = zarr.create_array(folder / "x.zarr", dtype=native, serializer=codec, **options)
    stored[...] = array
    return f"{folder}/x.zarr:group/x"


def write_zarr_2(folder, array):
    return write_zarr(folder, array, zarr_format=2)


def write_zarr_shards(folder, array):
    shards = tuple(
        c * 2 for c in (max(min(n, 10 if i == 0 else 2), 1) for i, n in enumerate(array.shape))
    )
    return write_zarr(folder, array, shards=shards)


FILES = [
    write_npy,
    write_npz,
    write_hdf5,
    write_hdf5_chunks,
    write_zarr,
    write_zarr_2,
    write_zarr_shards,
]


def arrow_column(array, fixed=True, large=False):
    column = pa.array(np.ascontiguousarray(array).reshape(-1))
    for axis in range(array.ndim - 1, 0, -1):
        n = array.shape[axis]
        if fixed:
            column = pa.FixedSizeListArray.from_arrays(column, n)
        else:
            kind = pa.LargeListArray if large else pa.ListArray
            rows = array.shape[:axis]
            offsets = np.arange(prod(rows) + 1, dtype=np.int64 if large else np.int32) * n
            column = kind.from_arrays(offsets, column)
    return column


def write_parquet(folder, array, fixed=True, **options):
    table = pa.table({"x.y": arrow_column(array, fixed), "z": np.arange(len(array))})
    pa.parquet.write_table(table, folder / "x.parquet", row_group_size=13, **options)
    return f"{folder}/x.parquet:x.y"


def write_parquet_lists(folder, array):
    return write_parquet(
        folder, array, fixed=False, compression="zstd", use_dictionary=False, data_page_size=64
    )


def write_arrow(folder, array):
    table = pa.table({"z": np.arange(len(array)), "x": arrow_column(array)})
    with pa.ipc.new_file(folder / "x.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=13)
    return f"{folder}/x.arrow:x"


def write_feather(folder, array):
    pa.feather.write_feather(
        pa.table({"x": arrow_column(array, False, True)}), folder / "x.feather"
    )
    return folder / "x.feather"


COLUMNS = [write_parquet, write_parquet_lists, write_arrow, write_feather]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("write", FILES, ids=lambda write: write.__name__)
def test_files_of_every_shape(write, shape, tmp_path):
    array = make(shape, "f4")
    path = write(tmp_path, array)
    check(lambda: open_source(path), array)


@pytest.mark.parametrize("dtype", [*DTYPES, ">f4", ">i8"])
@pytest.mark.parametrize("write", FILES, ids=lambda write: write.__name__)
def test_files_of_every_dtype(write, dtype, tmp_path):
    array = make((103, 3), dtype)
    path = write(tmp_path, array)
    check(lambda: open_source(path), array, [7])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("write", COLUMNS, ids=lambda write: write.__name__)
def test_columns_of_every_shape(write, shape, tmp_path):
    array = make(shape, "f4")
    if not len(array) and write in (write_parquet_lists, write_feather):
        array = array[:, :0]  # the length of lists is unknown without rows
    path = write(tmp_path, array)
    check(lambda: open_source(path), array)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("write", COLUMNS, ids=lambda write: write.__name__)
def test_columns_of_every_dtype(write, dtype, tmp_path):
    array = make((103, 3), dtype)
    path = write(tmp_path, array)
    check(lambda: open_source(path), array, [7])


@pytest.mark.parametrize("write", [write_npy, write_npz, write_hdf5, write_zarr])
def test_files_of_0d_arrays(write, tmp_path):
    array = np.array(2.5)
    path = write(tmp_path, array)
    check(lambda: open_source(path), array)


def test_fortran_order_with_gaps(tmp_path):
    array = np.asfortranarray(make((103, 3, 5), "f8"))
    path = write_npy(tmp_path, array)
    check(lambda: open_source(path), array)


def test_datasets_that_were_passed_stay_open(tmp_path):
    array = make((103, 7), "f4")
    with h5py.File(write_hdf5_chunks(tmp_path, array).partition(":")[0], "r") as file:
        dataset = file["group/x"]
        check(lambda: open_source(dataset, "input"), array)
        assert open_source(dataset).chunk_rows == 10
        assert dataset[0, 0] == array[0, 0]
    stored = zarr.open_array(write_zarr(tmp_path, array).replace(":", "/"), mode="r")
    check(lambda: open_source(stored, "input"), array)
    assert open_source(stored).chunk_rows == 10
    in_memory = zarr.create_array({}, shape=array.shape, dtype=array.dtype, chunks=(9, 9))
    in_memory[...] = array
    check(lambda: open_source(in_memory), array)


class Lazy:
    """Has a shape, a dtype and slices only."""

    def __init__(self, array):
        self.shape, self.dtype, self._array = array.shape, array.dtype, array

    def __getitem__(self, key):
        return self._array[key]


def in_memory(array):
    import pandas as pd

    flat = array.reshape(-1)
    yield array, array
    yield array.tolist(), np.asarray(array.tolist())
    with contextlib.suppress(ImportError):
        import torch

        yield torch.from_numpy(array), array
    yield pd.Series(flat), flat
    yield pd.DataFrame(array), array
    yield Lazy(array), array
    yield pa.array(flat), flat
    yield pa.chunked_array([flat[:5], flat[5:5], flat[5:]]), flat
    yield arrow_column(array), array
    yield arrow_column(array, fixed=False), array
    yield arrow_column(array, fixed=False, large=True).slice(4), array[4:]
    yield pa.chunked_array([arrow_column(array[:60]), arrow_column(array[60:])]), array
    yield pa.table({"x": arrow_column(array)})["x"], array
    yield pa.FixedShapeTensorArray.from_numpy_ndarray(array), array


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "f2"])
def test_arrays_in_memory(dtype):
    for data, array in in_memory(make((120, 4), dtype)):
        check(lambda data=data: open_source(data, "input"), array, [7])


def test_arrow_tensors(tmp_path):
    array = make((103, 3, 5), "f4")
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(array)
    check(lambda: open_source(column), array)
    pa.parquet.write_table(pa.table({"x": column}), tmp_path / "x.parquet", row_group_size=20)
    check(lambda: open_source(tmp_path / "x.parquet"), array)
    kind = pa.fixed_shape_tensor(pa.float32(), (3, 5), permutation=[1, 0])
    with pytest.raises(TypeError, match="axes are permuted"):
        open_source(pa.ExtensionArray.from_storage(kind, column.storage))


def test_bfloat16_and_big_endian_arrays():
    for dtype in (ml_dtypes.bfloat16, ">f4"):
        array = make((103, 7), dtype)
        check(lambda array=array: open_source(array), array)


def test_arrays_in_memory_are_not_copied():
    array = make((103, 7), "f4")
    for data in (array, pa.array(array[:, 0].copy())):
        source = open_source(data)
        assert not source.buffered
        rows = source.read(3, 5, None)
        base = array if data is array else np.asarray(data)
        assert np.shares_memory(rows, base)


def test_memory_maps_are_copied_when_they_are_read(tmp_path):
    array = make((103, 7), "f4")
    mapped = np.load(write_npy(tmp_path, array), mmap_mode="r")
    check(lambda: open_source(mapped, "input"), array)
    check(lambda: open_source(mapped[:, ::2], "input"), array[:, ::2])
    assert open_source(mapped).buffered


def test_each_chunk_is_decoded_once():
    calls = []

    class Chunks(Lazy):
        chunks = (10, 3)

        def __getitem__(self, key):
            calls.append((key.start, key.stop))
            return super().__getitem__(key)

    array = make((103, 7), "f4")
    source = open_source(Chunks(array))
    for start in range(0, 103, 4):
        read(source, start, min(start + 4, 103))
    assert calls == [(n, min(n + 10, 103)) for n in range(0, 103, 10)]
    calls.clear()
    source = open_source(Chunks(array))
    read(source, 0, 57)
    read(source, 57, 103)
    assert calls == [(0, 50), (50, 60), (60, 103)]


def test_skipped_row_groups_are_not_read(tmp_path):
    """Damage in a row group is found only if the row group is read."""
    array = make((4000, 8), "f8")
    table = pa.table({"x": arrow_column(array)})
    path, options = tmp_path / "x.parquet", {"write_page_checksum": True, "use_dictionary": False}
    pa.parquet.write_table(table, path, row_group_size=1000, **options)
    column = pa.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(data)
    source = open_source(path)
    assert_same(read(source, 0, 500), array[:500])
    assert_same(read(source, 2100, 4000), array[2100:])
    with pytest.raises(ValueError, match=r"x\.parquet:x cannot be read"):
        open_source(path).read_all()


@pytest.mark.parametrize("write", [*FILES, *COLUMNS], ids=lambda write: write.__name__)
def test_another_thread_may_read(write, tmp_path):
    array = make((103, 7), "f4")
    source = open_source(write(tmp_path, array))
    read(source, 0, 5)
    with ThreadPoolExecutor(1) as pool:
        assert_same(pool.submit(read, source, 5, 103).result(timeout=60), array[5:])
        pool.submit(source.close).result(timeout=60)


# ---- names ---------------------------------------------------------------------------------------


def test_the_only_array_of_a_file_needs_no_name(tmp_path):
    array = make((20, 3), "f4")
    with h5py.File(tmp_path / "one.hdf5", "w") as file:
        file["deep/x"] = array
    zarr.create_array(tmp_path / "one.zarr", data=array)
    zarr.create_array(tmp_path / "group.zarr", name="deep/x", data=array)
    pa.parquet.write_table(pa.table({"x": arrow_column(array)}), tmp_path / "one.parquet")
    for name in ("one.hdf5", "one.zarr", "group.zarr", "one.parquet"):
        check(lambda name=name: open_source(tmp_path / name), array, [7])
    assert str(open_source(tmp_path / "one.hdf5")).endswith("one.hdf5:deep/x float32[20, 3]")


def test_the_format_is_read_from_the_file(tmp_path):
    array = make((20,), "f4")
    with h5py.File(tmp_path / "checkpoint", "w") as file:
        file["x"] = array
    check(lambda: open_source(tmp_path / "checkpoint"), array)


def test_an_existing_path_may_look_like_a_member(tmp_path):
    np.save(tmp_path / "x.h5:y.npy", np.arange(3))
    assert_same(open_source(tmp_path / "x.h5:y.npy").read_all(), np.arange(3))


MEMBERS = ["weights", "target", "input_0", "input_1"]


@pytest.mark.parametrize("suffix", ["npz", "h5", "zarr", "parquet", "arrow"])
def test_missing_members(suffix, tmp_path):
    path, arrays = tmp_path / f"x.{suffix}", {name: np.arange(3.0) for name in MEMBERS}
    if suffix == "npz":
        np.savez(path, **arrays)
    elif suffix == "h5":
        with h5py.File(path, "w") as file:
            file.update(arrays)
    elif suffix == "zarr":
        for name, array in arrays.items():
            zarr.create_array(path, name=name, data=array)
    elif suffix == "parquet":
        pa.parquet.write_table(pa.table(arrays), path)
    else:
        with pa.ipc.new_file(path, pa.table(arrays).schema) as file:
            file.write_table(pa.table(arrays))
    with pytest.raises(ValueError, match=r"has no array 'targets', it has target, \w+, \w+, \w+$"):
        open_source(f"{path}:targets")
    with pytest.raises(ValueError, match=r"holds 4 arrays: name one as .*:NAME \(") as error:
        open_source(path)
    assert all(name in str(error.value) for name in MEMBERS)
    assert_same(open_source(f"{path}:input_1").read_all(), np.arange(3.0))


def test_long_lists_of_members_are_abbreviated(tmp_path):
    pa.parquet.write_table(pa.table({f"c{i}": [1] for i in range(50)}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"has no array 'x', it has c0, .* and 30 more$"):
        open_source(f"{tmp_path}/x.parquet:x")


@pytest.mark.parametrize(
    ("write", "package", "extra"),
    [
        (write_hdf5, "h5py", "hdf5"),
        (write_zarr, "zarr", "zarr"),
        (write_parquet, "pyarrow.parquet", "parquet"),
        (write_arrow, "pyarrow.ipc", "parquet"),
    ],
)
def test_missing_packages(write, package, extra, tmp_path, monkeypatch):
    path = write(tmp_path, make((10, 2), "f4"))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'fastloss\[{extra}\]'"):
        open_source(path)


def test_fingerprints(tmp_path):
    array = make((103, 7), "f4")
    for write in [*FILES, *COLUMNS]:
        (tmp_path / write.__name__).mkdir()
        path = write(tmp_path / write.__name__, array)
        before = open_source(path).fingerprint()
        assert open_source(path).fingerprint() == before
        assert before["shape"] == [103, 7]
        assert before["dtype"] == "float32"
        file = str(path).partition(":")[0]
        for folder, _, names in os.walk(file):
            file = os.path.join(folder, names[-1]) if names else file
        os.utime(file, ns=(2**62, 2**62))
        assert open_source(path).fingerprint() != before, write
    found = open_source(array).fingerprint()
    assert (found["shape"], found["dtype"]) == ([103, 7], "float32")
    assert open_source(array.copy()).fingerprint() == found != open_source(-array).fingerprint()


# ---- errors --------------------------------------------------------------------------------------


NOT_NUMBERS = {
    "strings": np.array(["a", "b"]),
    "objects": np.array([None, 1]),
    "dates": np.zeros(3, "M8[s]"),
    "records": np.zeros(3, [("a", "f4")]),
    "masked": np.ma.masked_array([1.0, 2.0], [True, False]),
    "bytes": b"abc",
    "nothing": None,
    "arrow strings": pa.array(["a", "b"]),
    "arrow dictionary": pa.array(["a", "b"]).dictionary_encode(),
    "arrow decimal": pa.array([1, 2]).cast(pa.decimal128(30, 2)),
    "arrow dates": pa.array(np.zeros(3, "M8[s]")),
    "arrow lists of strings": pa.array([["a"], ["b"]]),
    "arrow structs": pa.array([{"a": 1}]),
    "arrow nothing": pa.nulls(3),
    "table": pa.table({"x": [1]}),
}


@pytest.mark.parametrize("data", NOT_NUMBERS.values(), ids=NOT_NUMBERS)
def test_data_without_numbers(data):
    with pytest.raises(TypeError, match="input"):
        open_source(data, "input")


def test_a_ragged_list():
    with pytest.raises(TypeError, match="input cannot be read as an array"):
        open_source([[1, 2], [3]], "input")


@pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")
def test_files_without_numbers(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["s"] = ["a", "b"]
        file["v"] = np.zeros(3, "S4")
        file["r"] = np.zeros(3, [("a", "f4")])
        file["e"] = h5py.Empty("f4")
        file.create_dataset("lists", shape=(3,), dtype=h5py.vlen_dtype("f4"))
    for name, what in {"s": "strings", "v": "strings", "r": "'<f4'", "lists": "objects"}.items():
        with pytest.raises(TypeError, match=rf"x\.h5:{name} holds .*{what}.*, which are not num"):
            open_source(f"{tmp_path}/x.h5:{name}")
    with pytest.raises(ValueError, match=r"x\.h5:e has no array"):
        open_source(f"{tmp_path}/x.h5:e")
    zarr.create_array(tmp_path / "x.zarr", shape=(3,), dtype="<U3")
    pa.parquet.write_table(pa.table({"x": ["a", "b"]}), tmp_path / "x.parquet")
    for name in ("x.zarr", "x.parquet"):
        with pytest.raises(TypeError, match=rf"{name}.* holds .*, which are not numbers"):
            open_source(tmp_path / name)


def columns(values, column_type, folder):
    """A column in memory, in a table, in a Parquet file and in an Arrow file."""
    column = pa.array(values, column_type)
    table = pa.table({"x": column})
    pa.parquet.write_table(table, folder / "x.parquet", row_group_size=7)
    with pa.ipc.new_file(folder / "x.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=7)
    return [column, table["x"], folder / "x.parquet", folder / "x.arrow"]


def test_nulls_name_their_row(tmp_path):
    numbers = [1.0] * 20 + [None] + [2.0] * 5
    lists = [[1.0, 2.0]] * 20 + [[3.0, None], [4.0, 5.0], None]
    pairs = pa.list_(pa.float64(), 2)
    missing = [*lists[:20], None, None]
    for values, column_type in [
        (numbers, pa.float64()),
        (lists, pairs),
        (lists, pa.list_(pa.float64())),
        (missing, pairs),
        (missing, pa.large_list(pa.float64())),
    ]:
        for data in columns(values, column_type, tmp_path):
            source = open_source(data, "input")
            read(source, 0, 13)
            # Releases of pyarrow up to 21, and perhaps later ones, do not tell the row.
            message = "row 20 is null or holds one|a list in row group 2 is null"
            with pytest.raises(ValueError, match=message):
                read(source, 13, source.rows)


def test_ragged_lists_name_the_row(tmp_path):
    ragged = [[1.0, 2.0]] * 20 + [[3.0], [4.0, 5.0]]
    for data in columns(ragged, pa.list_(pa.float64()), tmp_path):
        with pytest.raises(ValueError, match="row 20 is a list of length 1 where others have 2"):
            open_source(data, "input").read_all()
    nested = [[[1.0], [2.0]]] * 9 + [[[1.0], [2.0, 3.0]]]
    for data in columns(nested, None, tmp_path):
        with pytest.raises(ValueError, match="row 9 is a list of length 2 where others have 1"):
            open_source(data, "input").read_all()


@pytest.mark.parametrize("write", [*FILES, *COLUMNS], ids=lambda write: write.__name__)
def test_truncated_files_are_named(write, tmp_path):
    """Truncated anywhere, a file raises one error that names it."""
    path = write(tmp_path, make((103, 7), "f4"))
    file = str(path).partition(":")[0]
    for folder, _, names in os.walk(file):  # a chunk, or the metadata
        file = os.path.join(folder, names[0]) if names else file
    with open(file, "rb") as stream:
        data = stream.read()
    for length in np.linspace(1, len(data) - 1, 12).astype(int):
        with open(file, "wb") as stream:
            stream.write(data[:length])
        with pytest.raises((ValueError, OSError), match=r"x\.\w+"):
            open_source(path).read_all()


@pytest.mark.parametrize(
    "write",
    [write for write in [*FILES, *COLUMNS] if write not in (write_hdf5, write_hdf5_chunks)],
    ids=lambda write: write.__name__,
)
def test_corrupted_bytes(write, tmp_path):
    """Corrupted bytes are read as data, or raise an error that names the file.

    HDF5 is left out, which may loop forever on corrupted metadata.
    """
    path = write(tmp_path, make((103, 7), "f4"))
    file = str(path).partition(":")[0]
    for folder, _, names in os.walk(file):
        file = os.path.join(folder, names[0]) if names else file
    with open(file, "rb") as stream:
        data = stream.read()
    rng = np.random.default_rng(0)
    for _ in range(30):
        wrong = bytearray(data)
        for index in rng.integers(0, len(data), 3):
            wrong[index] = rng.integers(256)
        with open(file, "wb") as stream:
            stream.write(wrong)
        try:
            open_source(path).read_all()
        except (ValueError, OSError, TypeError, MemoryError) as error:
            message = str(error)
        else:
            continue
        assert os.path.basename(str(path).partition(":")[0]) in message


def test_hdf5_files_truncated_while_they_are_read(tmp_path):
    path = write_hdf5(tmp_path, make((300_000,), "f8"))
    source = open_source(path)
    read(source, 0, 10)
    os.truncate(tmp_path / "x.h5", 10_000)
    with pytest.raises((ValueError, OSError), match=r"x\.h5:group/x"):
        read(source, 10, 300_000)


def test_datasets_shrunk_while_they_are_read(tmp_path):
    array = make((103, 7), "f4")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        dataset = file.create_dataset("x", data=array, maxshape=(None, 7), chunks=(10, 7))
        source = open_source(dataset, "input")
        read(source, 0, 20)
        dataset.resize(50, axis=0)
        with pytest.raises(ValueError, match=r"input .*changed.*\(50, 7\)"):
            read(source, 20, 103)
    path = write_zarr(tmp_path, array)
    for source in (open_source(path), open_source(zarr.open(path.replace(":", "/")), "x.zarr")):
        read(source, 0, 20)
        zarr.open_array(path.replace(":", "/"), mode="a").resize((50, 7))
        with pytest.raises(ValueError, match=r"x\.zarr.*changed.*\(50, 7\)"):
            read(source, 20, 103)
        zarr.open_array(path.replace(":", "/"), mode="a").resize((103, 7))
    lazy = Lazy(array)
    source = open_source(lazy, "input")
    lazy._array = array[:1]
    with pytest.raises(ValueError, match=r"input .*changed.*\(1, 7\) in place of \(103, 7\)"):
        source.read_all()


def test_list_offsets_out_of_range_are_refused():
    """pyarrow would crash the process."""
    values, offsets = pa.array(np.arange(6.0)), np.array([0, -(2**31), 6], np.int32)
    lists = pa.Array.from_buffers(
        pa.list_(pa.float64()), 2, [None, pa.py_buffer(offsets)], children=[values]
    )
    with pytest.raises(ValueError, match="input cannot be read"):
        open_source(lists, "input")


def test_arrays_too_large_for_memory_are_named():
    array = np.zeros(1)
    for rows in (2**60, 2**63):
        lazy = Lazy(array)
        lazy.shape = (rows,)
        with pytest.raises(MemoryError, match=rf"input float64\[{rows}\] does not fit into memory"):
            open_source(lazy, "input").read_all()


def test_masked_slices_are_refused():
    with pytest.raises(ValueError, match=r"input .*masked array"):
        open_source(Lazy(np.ma.masked_array([1.0, 2.0], [True, False])), "input").read_all()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_pipes_of_npy_may_be_read_with_gaps(tmp_path):
    array = make((50_000, 7), "f4")
    contents = write_npy(tmp_path, array).read_bytes()
    write_hdf5(tmp_path, array)
    os.mkfifo(tmp_path / "pipe")

    def opened(data):
        def write():
            with contextlib.suppress(BrokenPipeError):
                (tmp_path / "pipe").write_bytes(data)

        writer = threading.Thread(target=write)
        writer.start()
        yield
        writer.join()

    with contextlib.contextmanager(opened)(contents):
        source = open_source(tmp_path / "pipe")
        assert_same(read(source, 10, 20), array[10:20])
        assert_same(read(source, 49_000, 49_999), array[49_000:49_999])
        source.close()
    with (
        contextlib.contextmanager(opened)((tmp_path / "x.h5").read_bytes()),
        pytest.raises(ValueError, match="pipe is not a regular file"),
    ):
        open_source(tmp_path / "pipe")


# ---- resources -----------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [*FILES, *COLUMNS], ids=lambda write: write.__name__)
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_files_are_closed(write, tmp_path):
    path = write(tmp_path, make((103, 7), "f4"))
    open_source(path).read_all()
    before = len(os.listdir("/proc/self/fd"))
    open_source(path).read_all()
    source = open_source(path)
    read(source, 0, 5)
    source.close()
    source.close()
    for wrong in (f"{path}?", f"{str(path).partition(':')[0]}:none"):
        with contextlib.suppress(ValueError, OSError):
            open_source(wrong)
    assert len(os.listdir("/proc/self/fd")) == before


MEASURE = """
import re, sys
import numpy as np
from fastloss.evaluation.sources import open_source
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
def read_all(path):
    source = open_source(path)
    buffer = np.empty(1000 * source.row_bytes, np.uint8)
    total = 0.0
    for start in range(0, source.rows - 999, 1000):
        total += float(source.read(start, start + 1000, buffer).sum())
    return total
read_all(sys.argv[1])
before = peak()
read_all(sys.argv[2])
print(peak() - before)
"""


def write_large(path, rows, columns=8):
    """Writes zeros, in chunks of 320 KB, in one row group, or in batches of 3.2 MB."""
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("x", (rows, columns), "f8", chunks=(5000, columns), fillvalue=0)
    elif path.suffix == ".zarr":
        zarr.create_array(path, shape=(rows, columns), dtype="f8", chunks=(5000, columns))
    elif path.suffix == ".parquet":
        column = arrow_column(np.zeros((rows, columns)))
        options = {"compression": "none", "use_dictionary": False, "row_group_size": rows}
        pa.parquet.write_table(pa.table({"x": column}), path, **options)
    else:
        batch = pa.record_batch({"x": arrow_column(np.zeros((50_000, columns)))})
        with pa.ipc.new_file(path, batch.schema) as file:
            for _ in range(rows // 50_000):
                file.write_batch(batch)


@pytest.mark.complete_only
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak from /proc")
@pytest.mark.parametrize("suffix", ["h5", "zarr", "parquet", "arrow"])
def test_memory_does_not_grow_with_the_file(suffix, tmp_path):
    small, large = tmp_path / f"small.{suffix}", tmp_path / f"large.{suffix}"
    write_large(small, 50_000)
    write_large(large, 1_500_000)  # 96 MB
    growth = subprocess.check_output([sys.executable, "-c", MEASURE, small, large], text=True)
    assert int(growth) < 32  # MB
