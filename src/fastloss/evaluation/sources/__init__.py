"""Sources: the leading rows of one array, in order, in memory or in a file.

source.py    what a source is; errors that name the file
memory.py    arrays and labels in memory
npy.py       .npy and .npz
chunked.py   storage in chunks, memory maps, anything that is sliced
hdf5.py, zarr.py
hdf5_storage.py
             the files of an HDF5 dataset, and which parts are missing
arrow.py     columns of Arrow, in memory and in files
parquet.py
"""

import os
import re
import stat
from collections.abc import Callable
from typing import Any

import numpy as np

from fastloss._arrays import as_array
from fastloss._labels import as_labels
from fastloss.evaluation.sources.arrow import ArrowSource, open_arrow
from fastloss.evaluation.sources.chunked import SlicedSource
from fastloss.evaluation.sources.hdf5 import Hdf5Source, open_hdf5
from fastloss.evaluation.sources.memory import ArraySource, LabelSource
from fastloss.evaluation.sources.npy import open_npy, open_npz, read_magic
from fastloss.evaluation.sources.parquet import open_parquet
from fastloss.evaluation.sources.source import Source
from fastloss.evaluation.sources.zarr import ZarrSource, open_zarr, zarr_metadata

__all__ = ["Source", "open_labels", "open_source", "read_array"]

_PATH_WITH_MEMBER = re.compile(
    r"(.*?\.(?:npz|h5|hdf5|he5|hdf|zarr|parquet|pq|arrow|feather|ipc)):(.*)", re.DOTALL | re.I
)
_FORMATS: dict[bytes, Callable[[str, str], Source]] = {  # by the first bytes of a file
    b"PK": open_npz,
    b"\x89HDF\r\n\x1a\n": open_hdf5,
    b"PAR1": open_parquet,
    b"ARROW1": open_arrow,
}


MISSING_CHUNKS = ("warn", "error", "fill")


def open_source(data: Any, name: str = "array", missing_chunks: str = "warn") -> Source:
    """The source of an array: a path, an open dataset, or an array in memory.

    Parameters
    ----------
    data
        A path, followed by a colon and the name of the array if a file holds several:
        ``x.npy``, ``x.npz:member``, ``x.h5:group/dataset``, ``x.zarr:array``,
        ``x.parquet:column``, ``x.arrow:column``. Or an ndarray or memmap, a dataset of h5py, an
        array of zarr, an Array or ChunkedArray of pyarrow, anything that NumPy reads as an array
        (read whole), or anything with a shape, a dtype and slices.
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
    if isinstance(data, (str, os.PathLike)):
        return _open_path(os.fspath(data), missing_chunks)
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
    """The source of labels of groups: as `open_source`, or in memory also strings."""
    if isinstance(labels, (str, os.PathLike)):
        return open_source(labels, name, missing_chunks)
    if not isinstance(getattr(labels, "dtype", None), np.dtype):
        labels = as_labels(labels, name)
    if labels.dtype.kind in "UTO":  # strings, perhaps as Python objects
        return LabelSource(name, as_labels(labels, name))
    return open_source(labels, name, missing_chunks)


def _open_path(name: str, missing_chunks: str) -> Source:
    path, member = name, ""
    if not os.path.exists(name) and (match := _PATH_WITH_MEMBER.fullmatch(name)):
        path, member = match.groups()
    if os.path.isdir(path) and zarr_metadata(path):
        return open_zarr(path, member, missing_chunks)
    stream = open(path, "rb", buffering=0)  # noqa: SIM115 (the source closes it)
    try:
        magic, status = read_magic(stream, name), os.fstat(stream.fileno())
        regular = stat.S_ISREG(status.st_mode)
        opener = next((o for first, o in _FORMATS.items() if magic.startswith(first)), None)
        if opener is None and not member:
            size = status.st_size if regular else None
            return open_npy(name, stream, magic, size, status if regular else None)
    except BaseException:
        stream.close()
        raise
    stream.close()
    if opener is None:
        raise ValueError(f"{path} is not a .npz, HDF5, Parquet or Arrow file, or is damaged")
    if not regular:
        raise ValueError(f"{path} is not a regular file: only a .npy can be read from a pipe")
    if opener is open_hdf5:
        return open_hdf5(path, member, missing_chunks)
    return opener(path, member)
