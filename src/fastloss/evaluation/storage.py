"""Where arrays and files hold their bytes: whether writing to one changes another that is read.

Two names of a file, a link to it, a memory map of it and a dataset in it are the same storage.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from fastloss._arrays import as_array, overlap

_FileId = tuple[int, int]  # device and inode


@dataclass
class Storage:
    """The bytes of one array or file.

    Attributes
    ----------
    name
        For messages.
    arrays
        Memory.
    files
        Files that hold this array alone, or that are replaced.
    containers
        Files that hold other datasets as well.
    path
        The path of a file, which need not exist.
    folder
        A folder whose files hold the array.
    dataset
        An open dataset, which equals others of the same storage.
    """

    name: str
    arrays: list[np.ndarray] = field(default_factory=list)
    files: set[_FileId] = field(default_factory=set)
    containers: set[_FileId] = field(default_factory=set)
    path: str | None = None
    folder: str | None = None
    dataset: Any = None

    @cached_property
    def regions(self) -> list[tuple[_FileId, int, int]]:
        """Parts of files that are mapped into the memory: a file, first byte, last byte + 1."""
        return [region for array in self.arrays for region in _mapped_regions(array)]

    def overlaps(self, other: "Storage") -> bool:
        return (
            self.shares_memory(other)
            or self._has_files_of(other)
            or other._has_files_of(self)
            or (self.path is not None and self.path == other.path)
            or (self.folder is not None and self.folder == other.folder)
            or (self.dataset is not None and _same_dataset(self.dataset, other.dataset))
            or any(
                file == other_file and start < other_stop and other_start < stop
                for file, start, stop in self.regions
                for other_file, other_start, other_stop in other.regions
            )
        )

    def shares_memory(self, other: "Storage") -> bool:
        return any(overlap(a, b) for a in self.arrays for b in other.arrays)

    def _has_files_of(self, other: "Storage") -> bool:
        if self.files and self.files & (
            other.files | other.containers | {file for file, _, _ in other.regions}
        ):
            return True
        if self.path is None or other.folder is None:
            return False
        return self.path.startswith(os.path.join(other.folder, ""))


def _same_dataset(a: Any, b: Any) -> bool:
    if a is b:
        return True
    try:
        return type(a) is type(b) and bool(a == b)
    except Exception:  # whatever a comparison of objects that are unknown raises
        return False


# ---- the storage of what is written, and of what is read -----------------------------------------


def storage_of_path(path: str | os.PathLike[str], name: str = "") -> Storage:
    """The storage of a file that is written or replaced, which need not exist."""
    storage = Storage(name or os.fspath(path), path=os.path.realpath(path))
    with contextlib.suppress(OSError):
        storage.files.add(_file_id(os.stat(path)))
    return storage


def storage_of(value: Any, name: str) -> Storage:
    """The storage of an array, a dataset, or a file by its path."""
    if isinstance(value, (str, os.PathLike)):
        return storage_of_path(value, name)
    storage = Storage(name, arrays=list(_memory(value)))
    if not storage.arrays and hasattr(value, "shape"):
        storage.dataset = value
        _add_dataset_files(storage, value)
    return storage


def storage_of_source(source: Any) -> Storage:
    """The storage of what a source reads."""
    if source.backing is not None:
        return storage_of(source.backing, str(source))
    storage = Storage(str(source))
    storage.files.update(map(_file_id, source.statuses))
    return storage


def _add_dataset_files(storage: Storage, dataset: Any) -> None:
    """The file or the folder of a dataset of h5py or an array of zarr."""
    filename = getattr(getattr(dataset, "file", None), "filename", None)
    if isinstance(filename, (str, bytes)):
        with contextlib.suppress(OSError):
            storage.containers.add(_file_id(os.stat(filename)))
    store, path = getattr(dataset, "store", None), getattr(dataset, "path", "")
    root = getattr(store, "root", None) or getattr(store, "path", None)
    if isinstance(root, (str, os.PathLike)) and isinstance(path, str):
        storage.folder = os.path.realpath(os.path.join(root, path))


def _file_id(status: os.stat_result) -> _FileId:
    return status.st_dev, status.st_ino


def _memory(data: Any) -> Iterator[np.ndarray]:
    """The memory of an array or of anything that shows its memory to NumPy, as arrays."""
    if isinstance(data, np.ndarray):
        yield data
    elif hasattr(data, "buffers"):  # an Array of Arrow
        for buffer in filter(None, data.buffers()):
            yield np.frombuffer(buffer, np.uint8)
    elif hasattr(data, "chunks") and hasattr(data, "combine_chunks"):  # a ChunkedArray
        for chunk in data.chunks:
            yield from _memory(chunk)
    elif _shows_memory(data):
        with contextlib.suppress(Exception):  # the loss reports what cannot be read
            yield as_array(data, "it")


def _shows_memory(data: Any) -> bool:
    """Whether NumPy can view the data without reading a file."""
    if any(hasattr(data, name) for name in ("read_direct", "store")):  # of h5py, of zarr
        return False
    names = ("__array__", "__array_interface__", "__dlpack__")
    return any(hasattr(data, name) for name in names) or isinstance(data, (memoryview, bytearray))


# ---- memory maps ---------------------------------------------------------------------------------

_MAPS = "/proc/self/maps"
_MAPPING = re.compile(r"(\w+)-(\w+) \S+ (\w+) \S+ \d+ +(/.*)")


def _mapped_regions(array: np.ndarray) -> list[tuple[_FileId, int, int]]:
    """The parts of files that are mapped where the array is; [] for memory of its own."""
    base: Any = array
    while isinstance(base, np.ndarray) and base.base is not None:
        if isinstance(base, np.memmap) and not os.path.exists(_MAPS):
            return _memmap_region(base)
        base = base.base
    if isinstance(base, np.ndarray) or not array.size:
        return []
    low, high = np.lib.array_utils.byte_bounds(array)
    regions = []
    with contextlib.suppress(OSError), open(_MAPS, errors="surrogateescape") as lines:
        for match in filter(None, map(_MAPPING.match, lines)):
            start, stop, offset = (int(text, 16) for text in match.groups()[:3])
            first, last = max(start, low), min(stop, high)
            if first < last:
                path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), match[4])
                with contextlib.suppress(OSError):  # the file was deleted
                    file = _file_id(os.stat(path))
                    regions.append((file, first - start + offset, last - start + offset))
    return regions


def _memmap_region(array: np.memmap) -> list[tuple[_FileId, int, int]]:
    """All of the file of a memory map, where the system does not list what is mapped."""
    try:
        return [(_file_id(os.stat(array.filename)), 0, 1 << 63)] if array.filename else []
    except OSError:
        return []


# ---- checks --------------------------------------------------------------------------------------


def storages_of_targets(targets: Iterable[Any]) -> list[Storage]:
    """The storage of each target of unreduced losses, after a check that these are distinct."""
    storages = []
    for target in targets:
        if isinstance(target, (str, os.PathLike)):
            storages.append(storage_of_path(target))
        elif target is not None:
            storages.append(storage_of(target, f"an array of shape {_shape(target)}"))
    for a, b in combinations(storages, 2):
        if a.overlaps(b):
            raise ValueError(f"per_sample names {a.name} twice: each criterion needs its own")
    return storages


def _shape(target: Any) -> Any:
    return getattr(target, "shape", "unknown")


def check_not_read(targets: Sequence[Storage], inputs: Iterable[Storage]) -> None:
    """Raises an error if a target shares its storage with an array that is read.

    Later chunks, or other criteria, would read the losses, and the input would be lost.
    """
    for read in inputs if targets else ():
        for target in targets:
            if target.shares_memory(read):
                raise ValueError(
                    f"per_sample, {target.name}, shares memory with an array that is read, "
                    f"{read.name}: write to another array and copy it afterwards"
                )
            if target.overlaps(read):
                raise ValueError(
                    f"per_sample names {target.name}, which is in the same file as an array that "
                    f"is read, {read.name}: write to another file"
                )


def check_state_file(path: str, targets: Iterable[Storage], inputs: Iterable[Storage]) -> None:
    """Raises an error if the file of the state is also read or written as an array."""
    state = storage_of_path(path)
    for other in (*targets, *inputs):
        if state.overlaps(other):
            raise ValueError(f"state names {path}, which also holds {other.name}: name another")
