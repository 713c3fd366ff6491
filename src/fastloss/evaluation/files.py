"""Files that survive kills and power cuts, and locks between processes.

Every write of an evaluation uses these functions. The order that makes a file durable is: write,
`sync` its contents, `replace` the name, which also syncs the folder.
"""

import contextlib
import errno
import importlib
import os
import secrets
import stat
from collections.abc import Iterator
from io import FileIO
from typing import Any

# Windows has no such locks.
fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None

_MAX_NAMES = 100  # of temporary files that are in use


def write_all(stream: FileIO, data: Any) -> None:
    """Writes all bytes; a single write may write fewer."""
    view = memoryview(data)
    while len(view):
        view = view[stream.write(view) :]


def sync(stream: FileIO) -> None:
    """Waits until the contents of a file are on the disk."""
    os.fsync(stream.fileno())


def sync_folder(folder: str) -> None:
    """Waits until the names in a folder are on the disk, where the system can do so."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # A folder may be writable and not readable, and some file systems cannot sync folders.
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP):
            raise


def replace(temporary: str, path: str) -> None:
    """Gives a file its final name, in place of a file of this name, durably."""
    os.replace(temporary, path)
    sync_folder(os.path.dirname(path))


def remove(path: str) -> None:
    """Deletes a file durably, if it exists."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        sync_folder(os.path.dirname(path))


def create(path: str) -> FileIO:
    """An empty file, in place of what a killed process has left under this name."""
    return _open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)


def reopen(path: str) -> FileIO:
    """An existing file, for reading and writing."""
    return _open(path, os.O_RDWR)


def is_special(path: str) -> bool:
    """Whether the name is a device, a pipe or a folder.

    The system is asked once, since another process may delete a file between two questions. Any
    other error is raised where the file is opened.
    """
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _open(path: str, flags: int) -> FileIO:
    # A link in place of the file would lead to a file that is not ours.
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        return FileIO(descriptor, "r+")
    except BaseException:
        os.close(descriptor)
        raise


# ---- locks ---------------------------------------------------------------------------------------


def _try_lock(stream: FileIO) -> bool | None:
    """Locks an open file: False if another holds the lock, None if the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _open_locked(path: str) -> tuple[FileIO, bool | None]:
    """A file, created if missing, and whether it is locked, as `_try_lock` returns it.

    A holder deletes or renames the file before it releases the lock. Whoever opened the file before
    that must not take its lock for the lock of the name.
    """
    while True:
        stream = _open(path, os.O_RDWR | os.O_CREAT)
        try:
            locked = _try_lock(stream)
            with contextlib.suppress(FileNotFoundError):
                if not locked or os.path.samestat(os.fstat(stream.fileno()), os.stat(path)):
                    return stream, locked
        except BaseException:
            stream.close()
            raise
        stream.close()


def discard(stream: FileIO, path: str) -> None:
    """Closes and deletes a temporary file."""
    if fcntl is None:  # Windows deletes closed files only
        stream.close()
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # before the lock is released
    finally:
        stream.close()


@contextlib.contextmanager
def lock(path: str, message: str) -> Iterator[None]:
    """Holds a lock by an empty file, which is deleted at the end.

    A killed process leaves the file, but not the lock. Raises a ValueError with the message if
    another process, or another evaluation of this one, holds the lock.
    """
    stream, locked = _open_locked(path)
    if locked is False:
        stream.close()
        raise ValueError(message)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            discard(stream, path)


def create_temporary(path: str) -> FileIO:
    """An empty file next to `path` that no other process uses; its `name` is its path.

    A file that a killed process has left is used again. Process ids could not tell: in containers
    they repeat.
    """
    folder, base = os.path.split(path)
    failure: OSError | None = None
    for number in range(_MAX_NAMES):
        name = os.path.join(folder, f".{base}.{number}.tmp")
        try:
            stream, locked = _open_locked(name)
        except OSError as error:
            if not os.path.lexists(name):
                raise
            failure = error  # another user's file, or a link
            continue
        if locked:
            stream.truncate(0)
            return _named(stream, name)
        stream.close()
        if locked is None:
            with contextlib.suppress(OSError):
                os.unlink(name)
            name = os.path.join(folder, f".{base}.{secrets.token_hex(8)}.tmp")
            return _named(_open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL), name)
    raise failure or OSError(f"{_MAX_NAMES} evaluations are writing {path}")


def _named(stream: FileIO, name: str) -> FileIO:
    stream.name = name  # FileIO has the descriptor there
    return stream
