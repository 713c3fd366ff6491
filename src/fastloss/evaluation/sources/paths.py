"""Names of arrays in files: a path with a member, a pattern of paths, a list of paths."""

import glob
import os
import re
from collections.abc import Iterator
from typing import Any

_PATH_WITH_MEMBER = re.compile(
    r"(.*?\.(?:npz|h5|hdf5|he5|hdf|zarr|parquet|pq|arrow|feather|ipc|csv|tsv|jsonl|ndjson|json)"
    r"(?:\.(?:gz|bz2|zst|lz4))?):(.*)",
    re.DOTALL | re.I,
)


def is_path(value: Any) -> bool:
    """Whether data are named by a path, or by a list of paths."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(entry, (str, os.PathLike)) for entry in value)
    return isinstance(value, (str, os.PathLike))


def natural_order(name: str) -> list[Any]:
    """The key by which names are sorted: numbers in them count as numbers, as in part-10."""
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in _parts(name)]


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"(\d+)", name) if part]


def split_member(name: str) -> tuple[str, str]:
    """The path and the name of the array in it, which follows a colon; the path may be missing."""
    for path, member in _splits(name):
        if os.path.lexists(path):
            return path, member
    match = _PATH_WITH_MEMBER.fullmatch(name)
    return match.groups() if match else (name, "")  # type: ignore[return-value]


def expand(name: str) -> list[str] | None:
    """The names of the arrays that a pattern matches, in natural order; None for other names."""
    if os.path.lexists(name) or not glob.has_magic(name):
        return None
    for path, member in _splits(name):
        if os.path.lexists(path):
            return None  # the pattern is one of columns
        if glob.has_magic(path) and (paths := glob.glob(path)):
            suffix = f":{member}" if member else ""
            return [path + suffix for path in sorted(paths, key=natural_order)]
    raise FileNotFoundError(2, "no file matches this pattern", name)


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """The whole name, and each part of it before a colon, with the rest."""
    yield name, ""
    for match in re.finditer(":", name):
        if match.start():
            yield name[: match.start()], name[match.end() :]
