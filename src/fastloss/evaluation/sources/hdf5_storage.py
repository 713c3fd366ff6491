"""Where an HDF5 dataset is stored, and which parts of it are missing.

HDF5 reads parts that are missing as the fill value and reports no error: sources of a virtual
dataset that are not found or are too small, external files that are cut short, and chunks that were
never written. `inspect` finds them before the data are read. It follows HDF5's rules for the names
of files.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

from fastloss.evaluation.sources.source import read_errors

_ABSENT_BLOCKS = 100  # of a series of files, after which no further file of it is searched


@dataclass
class Storage:
    """The other files that hold a dataset's data, and what is missing."""

    files: dict[str, os.stat_result] = field(default_factory=dict)
    missing: int = 0  # chunks that are absent, and sources and files that are gone or too small
    problems: list[str] = field(default_factory=list)  # of sources and files
    no_fill: str | None = None  # why what is missing has no value

    def check_unchanged(self) -> None:
        """Raises an error if a file is gone, was replaced or has become shorter."""
        for path, before in self.files.items():
            try:
                now = os.stat(path)
            except FileNotFoundError:
                raise ValueError(f"{path} has been removed while it was read") from None
            if (now.st_dev, now.st_ino) != (before.st_dev, before.st_ino):
                raise ValueError(f"{path} has been replaced while it was read")
            if now.st_size < before.st_size:
                raise ValueError(
                    f"{path} has changed while it was read: {now.st_size} bytes in place of "
                    f"{before.st_size}"
                )

    def fingerprint(self) -> list[Any]:
        return [[path, s.st_size, s.st_mtime_ns] for path, s in sorted(self.files.items())]


def inspect(name: str, dataset: Any) -> Storage:
    """The storage of a dataset of h5py, and that of the datasets of which it consists."""
    storage = Storage()
    with read_errors(name):
        _Inspector(storage).visit(dataset)
    return storage


class _Inspector:
    def __init__(self, storage: Storage):
        self._storage = storage
        self._visited: set[tuple[str, str]] = set()

    def visit(self, dataset: Any) -> None:
        import h5py

        key = (os.path.realpath(dataset.file.filename), h5py.h5o.get_info(dataset.id).addr)
        if key in self._visited:
            return
        self._visited.add(key)
        properties = dataset.id.get_create_plist()
        problems, missing = len(self._storage.problems), 0
        if properties.get_layout() == h5py.h5d.VIRTUAL:
            sources, missing = self._list_sources(dataset)
        elif properties.get_external_count():
            sources = []
            self._check_external_files(dataset, properties)
        else:
            sources = []
            missing = _absent_chunks(dataset, properties) if dataset.size else 0
        missing += len(self._storage.problems) - problems
        if missing:
            self._storage.missing += missing
            self._check_fill_value(dataset, properties)
        for source in sources:
            self.visit(source)

    def _check_fill_value(self, dataset: Any, properties: Any) -> None:
        import h5py

        never = properties.get_fill_time() == h5py.h5d.FILL_TIME_NEVER
        if never or properties.fill_value_defined() == h5py.h5d.FILL_VALUE_UNDEFINED:
            self._storage.no_fill = "which have no fill value"
        elif dataset.fillvalue != dataset.fillvalue:
            self._storage.no_fill = "whose fill value is NaN"

    # ---- external files --------------------------------------------------------------------------

    def _check_external_files(self, dataset: Any, properties: Any) -> None:
        remaining = dataset.size * dataset.dtype.itemsize
        for index in range(properties.get_external_count()):
            file_name, offset, size = properties.get_external(index)
            path = _external_path(dataset, os.fsdecode(file_name))
            size = min(size, remaining)
            remaining -= size
            if not size:
                continue
            if not os.path.exists(path):
                self._storage.problems.append(f"{path} does not exist")
                continue
            self._storage.files[path] = status = os.stat(path)
            if status.st_size < offset + size:
                self._storage.problems.append(
                    f"{path} is cut short: {status.st_size} bytes in place of {offset + size}"
                )

    # ---- virtual datasets ------------------------------------------------------------------------

    def _list_sources(self, dataset) -> tuple[list[Any], int]:
        """The sources that are found, and 1 if a part of the dataset has no source, otherwise 0."""
        import h5py

        sources, mapped = [], 0
        for mapping in dataset.virtual_sources():
            target, selection = mapping.vspace, mapping.src_space
            unlimited = _unlimited_axis(target)
            mapped += dataset.size if unlimited is not None else target.get_select_npoints()
            entries = bounds = None
            selected = selection.get_select_type()
            if selected == h5py.h5s.SEL_ALL and unlimited is None:
                entries = target.get_select_npoints()
            elif selected == h5py.h5s.SEL_HYPERSLABS and _unlimited_axis(selection) is None:
                bounds = selection.get_select_bounds()[1]
            patterns = (mapping.file_name, mapping.dset_name)
            if unlimited is not None and any(map(_has_block_number, patterns)):
                blocks = self._blocks(dataset, target, unlimited, patterns)
                names = [[_block_name(text, block) for text in patterns] for block in blocks]
            else:
                names = [[text.replace("%%", "%") for text in patterns]]
            for file_name, source_name in names:
                source = self._find_source(dataset, file_name, source_name)
                if source is not None:
                    self._check_extent(source, entries, bounds)
                    sources.append(source)
        return sources, int(mapped < dataset.size)

    def _find_source(self, dataset, file_name: str, source_name: str) -> Any:
        import h5py

        if file_name == ".":
            file = dataset.file
        else:
            path, file = _open_source_file(dataset, file_name)
            if file is None:
                state = "cannot be opened" if os.path.exists(path) else "does not exist"
                self._storage.problems.append(f"{path} {state}")
                return None
            self._storage.files[path] = os.stat(path)
        source = file.get(source_name)
        if not isinstance(source, h5py.Dataset) or source.shape is None:
            self._storage.problems.append(f"{file.filename} has no dataset {source_name}")
            return None
        return source

    def _check_extent(self, source, entries: int | None, bounds: tuple[int, ...] | None) -> None:
        """A source must have this number of entries, or the entry at the bounds of a selection."""
        text = f"{source.name} of {source.file.filename}"
        if entries is not None and source.size != entries:
            self._storage.problems.append(f"{text} has {source.size} entries in place of {entries}")
        if bounds is not None and (
            len(bounds) != source.ndim
            or any(last >= n for last, n in zip(bounds, source.shape, strict=True))
        ):
            self._storage.problems.append(
                f"{text} has shape {source.shape}, which ends before the entry {tuple(bounds)}"
            )

    def _blocks(self, dataset, target, axis: int, patterns) -> range:
        """The blocks of a series of sources that a dataset has; there must be no later ones.

        HDF5 ends the dataset at the first block that is missing.
        """
        start, stride, _, _ = (values[axis] for values in target.get_regular_hyperslab())
        count = -(-max(dataset.shape[axis] - start, 0) // stride)
        for block in range(count + 1, count + _ABSENT_BLOCKS):
            later = [_block_name(text, block) for text in patterns]
            if _exists(dataset, *later):
                absent = [_block_name(text, count) for text in patterns]
                self._storage.problems.append(
                    f"{absent[1]} of {absent[0]} does not exist, but {later[1]} of {later[0]} does"
                )
                break
        return range(count)


def _absent_chunks(dataset: Any, properties: Any) -> int:
    import h5py

    if properties.get_layout() == h5py.h5d.CHUNKED:
        grid = (-(-n // chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        return max(prod(grid) - dataset.id.get_num_chunks(), 0)
    if properties.get_layout() == h5py.h5d.CONTIGUOUS:
        return int(dataset.id.get_space_status() == h5py.h5d.SPACE_STATUS_NOT_ALLOCATED)
    return 0


def _unlimited_axis(space: Any) -> int | None:
    """The axis along which a selection is unlimited."""
    import h5py

    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        return None
    _, _, count, block = space.get_regular_hyperslab()
    for axis, sizes in enumerate(zip(count, block, strict=True)):
        if h5py.h5s.UNLIMITED in sizes:
            return axis
    return None


# ---- names of files ------------------------------------------------------------------------------


def _has_block_number(text: str) -> bool:
    return "%b" in text.replace("%%", "")


def _block_name(text: str, block: int) -> str:
    return "%".join(part.replace("%b", str(block)) for part in text.split("%%"))


def _exists(dataset: Any, file_name: str, source_name: str) -> bool:
    file = dataset.file if file_name == "." else _open_source_file(dataset, file_name)[1]
    return file is not None and source_name in file


def _open_source_file(dataset: Any, name: str) -> tuple[str, Any]:
    """The path and the file of a source, opened as HDF5 does; None if it cannot be opened."""
    import h5py

    access = dataset.file.id.get_access_plist()
    access.set_fclose_degree(h5py.h5f.CLOSE_WEAK)
    paths = list(_source_paths(dataset, name))
    for path in paths:
        if os.path.isfile(path):
            try:
                file_id = h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY, access)
            except OSError:
                continue
            return path, h5py.File(file_id)
    beside = os.path.join(os.path.dirname(dataset.file.filename), name)
    return next(filter(os.path.exists, paths), beside), None


def _source_paths(dataset: Any, name: str) -> Iterator[str]:
    """The paths at which HDF5 searches for the file of a source, in its order."""
    file = os.path.abspath(dataset.file.filename)
    relative = name
    if os.path.isabs(name):
        yield name
        relative = os.path.basename(name)
    prefixes = os.environ.get("HDF5_VDS_PREFIX", "").split(":")
    prefixes.append(os.fsdecode(dataset.id.get_access_plist().get_virtual_prefix()))
    for prefix in filter(None, prefixes):
        yield os.path.join(_expand_origin(prefix, file), relative)
    yield os.path.join(os.path.dirname(file), relative)
    yield relative
    yield os.path.join(os.path.dirname(os.path.realpath(file)), relative)


def _external_path(dataset: Any, name: str) -> str:
    """The path of an external file, which is relative to the working directory."""
    prefix = os.environ.get("HDF5_EXTFILE_PREFIX") or os.fsdecode(
        dataset.id.get_access_plist().get_efile_prefix()
    )
    return os.path.join(_expand_origin(prefix, os.path.abspath(dataset.file.filename)), name)


def _expand_origin(prefix: str, file: str) -> str:
    origin = "${ORIGIN}"
    if prefix.startswith(origin):
        return os.path.dirname(file) + prefix[len(origin) :]
    return prefix
