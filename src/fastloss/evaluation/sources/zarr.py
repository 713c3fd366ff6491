"""Arrays of Zarr stores, by zarr."""

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from fastloss.evaluation.sources.chunked import SlicedSource
from fastloss.evaluation.sources.memory import SlicedLabels
from fastloss.evaluation.sources.source import (
    read_errors,
    require_package,
    resolve_member,
)


class ZarrSource(SlicedSource):
    """An array of zarr; if it is stored in a folder, its metadata are read again at each slice."""

    def __init__(self, name: str, array: Any, missing_chunks: str = "warn"):
        super().__init__(name, array)
        root = getattr(array.store, "root", None) or getattr(array.store, "path", None)
        folder = os.path.join(str(root), array.path)
        metadata = zarr_metadata(folder)
        self._folder = folder if metadata else None
        self._grid = ChunkGrid.of(metadata) if metadata else None
        self._absent_files = 0
        with read_errors(name):
            if self._grid is None:
                missing = max(array.nchunks - array.nchunks_initialized, 0)
            else:
                self._absent_files, missing = self._grid.count_absent(folder)
            fill_value = array.fill_value
        no_fill = None
        if fill_value is None:
            no_fill = "whose fill value is null"
        elif fill_value != fill_value:
            no_fill = "whose fill value is NaN"
        self._set_missing(missing, no_fill, missing_chunks)
        self._absent_files_read, self._next_grid_row = 0, 0

    def _slice(self, row, count):
        rows = super()._slice(row, count)
        if self._folder is not None:  # chunks that were removed would read as the fill value
            shape = tuple(zarr_metadata(self._folder)["shape"])
            if shape != self.shape:
                raise self._changed(f"shape {shape} in place of {self.shape}")
        return rows

    def _read_into(self, row, out):
        super()._read_into(row, out)
        if self._folder is not None and self._grid is not None and out.size:
            with read_errors(self.name):
                stop = row + len(out) if self.shape else 1
                self._check_chunks(self._folder, self._grid, row, stop)

    def _check_chunks(self, folder: str, grid: "ChunkGrid", start: int, stop: int) -> None:
        """Raises an error if more chunks are absent than when the source was opened."""
        first = max(start // grid.file_rows, self._next_grid_row)
        last = -(-stop // grid.file_rows)
        for key in grid.keys(first, last):
            if not os.path.exists(os.path.join(folder, key)):
                self._absent_files_read += 1
                if self._absent_files_read > self._absent_files:
                    raise self._changed(f"{key} is gone")
        self._next_grid_row = max(last, self._next_grid_row)

    def fingerprint(self) -> dict[str, Any]:
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


@dataclass(frozen=True)
class ChunkGrid:
    """The files in which an array in a folder is stored: one for each chunk, or shard of chunks."""

    shape: tuple[int, ...]
    file_shape: tuple[int, ...]  # of the entries in a file
    chunk_shape: tuple[int, ...]
    prefix: str  # of the name of a file
    separator: str
    index_at_end: bool | None  # the index of a shard; None if it cannot be read
    index_checksum: bool

    @classmethod
    def of(cls, metadata: dict[str, Any]) -> "ChunkGrid | None":
        """The grid by the metadata of the array; None if it is of an unknown kind."""
        shape = tuple(metadata["shape"])
        if metadata.get("zarr_format") == 2:
            chunks = tuple(metadata["chunks"])
            separator = metadata.get("dimension_separator", ".")
            return cls(shape, chunks, chunks, "", separator, None, False)
        grid, encoding = metadata["chunk_grid"], metadata["chunk_key_encoding"]
        if grid["name"] != "regular" or encoding["name"] not in ("default", "v2"):
            return None
        is_default = encoding["name"] == "default"
        configuration = encoding.get("configuration") or {}
        separator = configuration.get("separator", "/" if is_default else ".")
        file_shape = tuple(grid["configuration"]["chunk_shape"])
        chunk_shape, index_at_end, index_checksum = file_shape, None, False
        codecs = metadata["codecs"]
        if len(codecs) == 1 and codecs[0]["name"] == "sharding_indexed":
            sharding = codecs[0]["configuration"]
            chunk_shape = tuple(sharding["chunk_shape"])
            names = [codec["name"] for codec in sharding["index_codecs"]]
            endian = (sharding["index_codecs"][0].get("configuration") or {}).get("endian")
            if names in (["bytes"], ["bytes", "crc32c"]) and endian == "little":
                index_at_end = sharding.get("index_location", "end") == "end"
                index_checksum = len(names) == 2
        prefix = "c" if is_default else ""
        return cls(shape, file_shape, chunk_shape, prefix, separator, index_at_end, index_checksum)

    @property
    def file_rows(self) -> int:
        return self.file_shape[0] if self.file_shape else 1

    def _counts(self) -> list[int]:
        """The number of files along each axis."""
        return [-(-n // size) for n, size in zip(self.shape, self.file_shape, strict=True)]

    def keys(self, first: int, last: int) -> Iterator[str]:
        """The names of the files from a row of the grid up to another."""
        rows = [range(first, last), *map(range, self._counts()[1:])] if self.shape else []
        return map(self._key, itertools.product(*rows))

    def _key(self, place: tuple[int, ...]) -> str:
        parts = [self.prefix] * bool(self.prefix) + [str(index) for index in place]
        return self.separator.join(parts) or "0"

    def _place(self, key: str) -> tuple[int, ...] | None:
        """The position of a file in the grid; None if it is no chunk of this array."""
        parts = key.split(self.separator)
        if self.prefix:
            if parts[0] != self.prefix:
                return None
            del parts[0]
        elif not self.shape and parts == ["0"]:
            parts = []
        counts = self._counts()
        if len(parts) != len(counts) or not all(part.isdecimal() for part in parts):
            return None
        place = tuple(map(int, parts))
        inside = all(index < count for index, count in zip(place, counts, strict=True))
        return place if inside and self._key(place) == key else None

    def _chunks_of_file(self, place: tuple[int, ...]) -> tuple[int, ...]:
        """The number of chunks along each axis of a shard, within the shape of the array."""
        sizes = zip(self.shape, self.file_shape, self.chunk_shape, place, strict=True)
        return tuple(-(-min(file, n - index * file) // chunk) for n, file, chunk, index in sizes)

    def count_absent(self, folder: str) -> tuple[int, int]:
        """The number of files that are absent, and of chunks, also in shards that are present."""
        files = chunks = 0
        for parent, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(parent, name)
                key = os.path.relpath(path, folder).replace(os.sep, "/")
                place = self._place(key)
                if place is not None:
                    files += 1
                    chunks += self._count_present(path, self._chunks_of_file(place))
        sizes = zip(self.shape, self.chunk_shape, strict=True)
        return prod(self._counts()) - files, prod(-(-n // size) for n, size in sizes) - chunks

    def _count_present(self, path: str, inside: tuple[int, ...]) -> int:
        """The number of chunks in a file, of which `inside` along each axis are in the array."""
        if self.index_at_end is None:
            return prod(inside)
        sizes = zip(self.file_shape, self.chunk_shape, strict=True)
        grid = tuple(file // chunk for file, chunk in sizes)
        nbytes = 16 * prod(grid) + 4 * self.index_checksum
        with open(path, "rb") as file:
            if self.index_at_end:
                file.seek(-nbytes, os.SEEK_END)
            index = np.frombuffer(file.read(16 * prod(grid)), "<u8").reshape(*grid, 2)
        present = (index != np.iinfo(np.uint64).max).any(axis=-1)
        return int(np.count_nonzero(present[tuple(map(slice, inside))]))


def open_zarr(folder: str, member: str, missing_chunks: str = "warn", labels: bool = False) -> Any:
    zarr, member = require_package("zarr", "zarr", folder), member.strip("/")
    with read_errors(folder):
        names = list(_array_paths(folder))
    if member or names != ["."]:
        member = resolve_member(folder, member, names)
    name = f"{folder}:{member}" if member else folder
    with read_errors(name):
        array = zarr.open_array(os.path.join(folder, member), mode="r")
    if labels and np.dtype(array.dtype).kind in "USTOM":
        return SlicedLabels(name, array)
    return ZarrSource(name, array, missing_chunks)


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
