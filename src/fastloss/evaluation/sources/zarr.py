"""Arrays of Zarr stores, by zarr."""

import json
import os
from collections.abc import Iterator
from typing import Any

from fastloss.evaluation.sources.chunked import SlicedSource
from fastloss.evaluation.sources.source import (
    Source,
    read_errors,
    require_package,
    resolve_member,
)


class ZarrSource(SlicedSource):
    """An array of zarr; if it is stored in a folder, its metadata are read again at each slice."""

    def __init__(self, name: str, array: Any):
        super().__init__(name, array)
        root = getattr(array.store, "root", None) or getattr(array.store, "path", None)
        folder = os.path.join(str(root), array.path)
        self._folder = folder if zarr_metadata(folder) else None

    def _slice(self, row, count):
        rows = super()._slice(row, count)
        if self._folder is not None:  # chunks that were removed would read as the fill value
            shape = tuple(zarr_metadata(self._folder)["shape"])
            if shape != self.shape:
                raise self._changed(f"shape {shape} in place of {self.shape}")
        return rows

    def fingerprint(self):
        identity = super().fingerprint()
        if self._folder is not None:
            files = [
                os.stat(os.path.join(folder, file))
                for folder, _, files in os.walk(self._folder)
                for file in files
            ]
            identity["name"] = self.name
            identity["size"] = sum(status.st_size for status in files)
            identity["mtime_ns"] = max(status.st_mtime_ns for status in files)
        return identity


def open_zarr(folder: str, member: str) -> Source:
    zarr, member = require_package("zarr", "zarr", folder), member.strip("/")
    with read_errors(folder):
        names = list(_array_paths(folder))
    if member or names != ["."]:
        member = resolve_member(folder, member, names)
    name = f"{folder}:{member}" if member else folder
    with read_errors(name):
        array = zarr.open_array(os.path.join(folder, member), mode="r")
    return ZarrSource(name, array)


def _array_paths(root: str) -> Iterator[str]:
    """The arrays below a folder, as paths relative to it."""
    for folder, subfolders, _ in os.walk(root):
        if "shape" in zarr_metadata(folder):
            subfolders.clear()
            yield os.path.relpath(folder, root)


def zarr_metadata(folder: str) -> dict[str, Any]:
    """The metadata of a group or an array in Zarr format 3 or 2; {} if the folder is neither."""
    for name in ("zarr.json", ".zarray", ".zgroup"):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with read_errors(path), open(path, "rb") as file:
                return json.load(file)
    return {}
