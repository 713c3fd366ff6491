"""Sources: the leading rows of one array, in order, in memory or in a file.

source.py    what a source is; errors that name the file
memory.py    arrays and labels in memory
npy.py       .npy and .npz
chunked.py   storage in chunks, memory maps, anything that is sliced
hdf5.py, zarr.py
hdf5_storage.py
             the files of an HDF5 dataset, and which parts are missing
arrow.py     columns of Arrow in memory
table_formats.py, tables.py, table_sources.py
             columns of files: Parquet, Arrow, CSV, JSON Lines; folders of them
parts.py     arrays in several files
paths.py     names of arrays in files
"""

import os
import stat
from collections.abc import Callable
from typing import Any

import numpy as np

from fastloss._arrays import as_array
from fastloss._labels import as_labels
from fastloss.evaluation.sources.arrow import ArrowSource
from fastloss.evaluation.sources.chunked import SlicedSource
from fastloss.evaluation.sources.hdf5 import Hdf5Source, open_hdf5
from fastloss.evaluation.sources.memory import ArraySource, LabelSource, StoredLabels
from fastloss.evaluation.sources.npy import open_npy, open_npz, read_magic
from fastloss.evaluation.sources.parts import PartsSource
from fastloss.evaluation.sources.paths import expand, is_path, split_member
from fastloss.evaluation.sources.source import Source
from fastloss.evaluation.sources.table_formats import format_of
from fastloss.evaluation.sources.table_sources import open_folder, open_table
from fastloss.evaluation.sources.zarr import ZarrSource, open_zarr, zarr_metadata

__all__ = ["Source", "is_path", "open_labels", "open_source", "read_array"]

_FORMATS: dict[bytes, Callable[..., Any]] = {  # by the first bytes of a file
    b"PK": open_npz,
    b"\x89HDF\r\n\x1a\n": open_hdf5,
}

MISSING_CHUNKS = ("warn", "error", "fill")


def open_source(data: Any, name: str = "array", missing_chunks: str = "warn") -> Source:
    """The source of an array: a path, an open dataset, or an array in memory.

    Parameters
    ----------
    data
        A path, followed by a colon and the name of the array if a file holds several:
        ``x.npy``, ``x.npz:member``, ``x.h5:group/dataset``, ``x.zarr:array``,
        ``x.parquet:column``, ``x.arrow:column``, ``x.csv:column``, ``x.jsonl:column``,
        ``folder:column``. Or a pattern of paths or a list of paths, whose rows follow each other,
        an ndarray or memmap, a dataset of h5py, an array of zarr, an Array or ChunkedArray of
        pyarrow, anything that NumPy reads as an array (read whole), or anything with a shape, a
        dtype and slices.
    name
        The name in messages of an array that is not a path.
    missing_chunks
        What to do about chunks of Zarr or HDF5 that are absent, as in `fastloss.evaluate`.

    Raises
    ------
    ValueError, TypeError
        If the data are not an array of numbers, or a file is damaged; the message names the remedy.
    ImportError
        If the package that reads the format is not installed; the message names the extra.
    OSError
        If a file cannot be opened or read.
    """
    if is_path(data):
        return _open_paths(data, missing_chunks)
    if isinstance(data, np.memmap):  # copied on the thread that reads
        return SlicedSource(name, data.view(np.ndarray), getattr(data, "filename", None))
    types = {(t.__module__.partition(".")[0], t.__name__) for t in type(data).__mro__}
    if ("h5py", "Dataset") in types:
        return Hdf5Source(name, data, missing_chunks=missing_chunks)
    if ("zarr", "Array") in types:
        return ZarrSource(name, data, missing_chunks)
    if types & {("pyarrow", "Array"), ("pyarrow", "ChunkedArray")}:
        return ArrowSource(name, data)
    if ("pyarrow", "_Tabular") in types:
        raise TypeError(f"{name} is a table: pass a column, {name}[...] of {data.column_names}")
    reads_whole = any(hasattr(data, method) for method in ("__array__", "__dlpack__"))
    if not reads_whole and all(hasattr(data, a) for a in ("shape", "dtype", "__getitem__")):
        return SlicedSource(name, data)
    return ArraySource(name, as_array(data, name))


def read_array(data: Any, name: str) -> Any:
    """The whole array of a source."""
    return open_source(data, name).read_all()


def open_labels(labels: Any, name: str, missing_chunks: str = "warn") -> Any:
    """The source of labels of groups: as `open_source`, but also of strings, dates and times."""
    is_list = isinstance(labels, (list, tuple))  # of strings, which are labels, or of paths
    if is_path(labels) and not (is_list and isinstance(labels[0], str)):
        return _open_paths(labels, missing_chunks, labels=True)
    if not isinstance(getattr(labels, "dtype", None), np.dtype):
        labels = as_labels(labels, name)
    if labels.dtype.kind in "UTOSM":  # strings or dates, perhaps as Python objects
        return LabelSource(name, as_array(labels, name))
    return open_source(labels, name, missing_chunks)


def _open_paths(data: Any, missing_chunks: str, labels: bool = False) -> Any:
    """The source of a path, or of the rows of several, which are a list or match a pattern."""
    is_list = isinstance(data, (list, tuple))
    names: list[str] = []
    for entry in map(os.fspath, data if is_list else [data]):
        matches = expand(entry)
        names += [entry] if matches is None else matches
        is_list |= matches is not None
    if not is_list:
        return _open_path(names[0], missing_chunks, labels)
    name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    openers = [_opener(entry, missing_chunks, labels) for entry in names]
    return PartsSource(name, openers, labels)


def _opener(name: str, missing_chunks: str, labels: bool) -> Callable[[], Any]:
    """A function that opens a path; it warns of missing chunks once."""
    options = [missing_chunks]

    def open_part():
        source = _open_path(name, options[0], labels)
        if options[0] == "warn":
            options[0] = "fill"
        return source

    return open_part


def _open_path(name: str, missing_chunks: str, labels: bool = False) -> Any:
    path, member = split_member(name)
    if os.path.isdir(path):
        if zarr_metadata(path):
            return _as_labels(open_zarr(path, member, missing_chunks, labels), labels)
        return open_folder(path, member, labels)
    stream = open(path, "rb", buffering=0)  # noqa: SIM115 (the source closes it)
    try:
        magic, status = read_magic(stream, name), os.fstat(stream.fileno())
        regular = stat.S_ISREG(status.st_mode)
        opener = next((o for first, o in _FORMATS.items() if magic.startswith(first)), None)
        table_format = format_of(path, magic) if opener is None else None
        if opener is None and table_format is None and not member:
            size = status.st_size if regular else None
            source = open_npy(name, stream, magic, size, status if regular else None, labels)
            return _as_labels(source, labels)
    except BaseException:
        stream.close()
        raise
    stream.close()
    if opener is None and table_format is None:
        raise ValueError(
            f"{path} is not a .npz, HDF5, Parquet or Arrow file, nor a .csv or .jsonl, or is "
            "damaged"
        )
    if not regular:
        raise ValueError(f"{path} is not a regular file: only a .npy can be read from a pipe")
    if table_format is not None:
        return open_table(path, member, table_format, labels)
    if opener is open_hdf5:
        return _as_labels(open_hdf5(path, member, missing_chunks, labels), labels)
    return _as_labels(open_npz(path, member, labels), labels)


def _as_labels(source: Any, labels: bool) -> Any:
    return StoredLabels(source) if labels else source
