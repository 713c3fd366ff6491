"""Datasets of HDF5 files, by h5py."""

import contextlib
import importlib
import os
from typing import Any

import numpy as np

from fastloss.evaluation.sources.chunked import SlicedSource
from fastloss.evaluation.sources.hdf5_storage import inspect
from fastloss.evaluation.sources.memory import SlicedLabels
from fastloss.evaluation.sources.source import (
    Source,
    read_errors,
    require_package,
    resolve_member,
)


class Hdf5Source(SlicedSource):
    """A dataset of h5py; closes its file if that is passed."""

    def __init__(self, name: str, dataset: Any, file: Any = None, missing_chunks: str = "warn"):
        import h5py

        self._file, self._descriptor, status = file, None, None
        with read_errors(name):
            dtype, shape, low_level = dataset.dtype, dataset.shape, dataset.file.id
            if low_level.get_access_plist().get_driver() == h5py.h5fd.SEC2:
                self._descriptor = low_level.get_vfd_handle()
                status = os.fstat(self._descriptor)
        if h5py.check_string_dtype(dtype):
            raise TypeError(f"{name} holds strings, which are not numbers")
        if shape is None:
            raise ValueError(f"{name} has no array: its dataspace is empty")
        super().__init__(name, dataset, status)
        self._storage = inspect(name, dataset)
        if self._storage.problems and missing_chunks != "fill":
            raise ValueError(
                f"{name} consists of other files, and {self._storage.problems[0]}: HDF5 would read "
                "fill values, which missing_chunks='fill' accepts"
            )
        self._set_missing(self._storage.missing, self._storage.no_fill, missing_chunks)
        self._absent_filters = _absent_filters(dataset)

    def _read_into(self, row, out):
        with read_errors(self.name):
            if self._data.shape != self.shape:
                raise self._changed(f"shape {self._data.shape} in place of {self.shape}")
            if out.size:
                selection = np.s_[row : row + len(out)] if self.shape else ()
                try:
                    target = out if self._stored is None else out.view(self._stored)
                    self._data.read_direct(target, selection)
                except OSError as error:
                    if self._absent_filters:
                        raise OSError(
                            f"it is compressed by {self._absent_filters}, which is not installed: "
                            "pip install hdf5plugin"
                        ) from error
                    raise
            if self._descriptor is not None:  # HDF5 reads zeros past the end of the file
                size = os.fstat(self._descriptor).st_size
                if size < self._status.st_size:
                    raise self._changed(f"{size} bytes in place of {self._status.st_size}")
            self._storage.check_unchanged()

    def fingerprint(self) -> dict[str, Any]:
        identity = super().fingerprint()
        if self._storage.files:
            identity["files"] = self._storage.fingerprint()
        return identity

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _absent_filters(dataset: Any) -> str:
    """The filters of a dataset that HDF5 does not have, and hdf5plugin does not provide."""
    import h5py

    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(index) for index in range(properties.get_nfilters())]
    absent = [f for f in filters if not h5py.h5z.filter_avail(f[0])]
    if absent:
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")  # registers its filters
    absent = [f for f in absent if not h5py.h5z.filter_avail(f[0])]
    return ", ".join(f"filter {code} ({os.fsdecode(name)})" for code, _, _, name in absent)


def open_hdf5(path: str, member: str, missing_chunks: str = "warn", labels: bool = False) -> Source:
    h5py = require_package("h5py", "hdf5", path)
    with contextlib.ExitStack() as stack:
        with read_errors(path):
            file = stack.enter_context(h5py.File(path, "r"))
            is_dataset = isinstance(file.get(member) if member else None, h5py.Dataset)
            names: list[str] = []
            if not is_dataset:
                file.visititems(
                    lambda name, item: names.append(f"{name}") if _is_dataset(item) else None
                )
        if not is_dataset:
            member = resolve_member(path, member, names)
        name = f"{path}:{member}"
        with read_errors(name):
            dataset = file[member]
        source: Any
        if labels and h5py.check_string_dtype(dataset.dtype) and dataset.shape is not None:
            source = SlicedLabels(name, dataset.asstr(), file, os.stat(path))
        else:
            source = Hdf5Source(name, dataset, file, missing_chunks)
        stack.pop_all()
    return source


def _is_dataset(item) -> bool:
    return hasattr(item, "read_direct")
