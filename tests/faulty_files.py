"""A disk that fails: it counts the operations on files, and stops, fails or loses power at one.

`FaultyDisk` takes the place of the functions through which `fastloss.evaluation.files` writes. It
knows what is durable: the contents of a file as of its last fsync, and the names in the folder as
of the last fsync of the folder. `crash` leaves what POSIX permits after a power cut.
"""

import errno
import io
import os

from fastloss.evaluation import files


class PowerCut(BaseException):
    """The process and the machine stop here."""


class FaultyDisk:
    """The disk of one folder; operations in others are counted, and durable at once.

    Attributes
    ----------
    operations
        The names of the operations so far.
    """

    def __init__(self, folder, monkeypatch, *, cut=None, fail=None, errno_=errno.EIO, full=None):
        """Power is cut at operation `cut`; operation `fail` fails; from write `full` on, all do."""
        self._folder, self._cut, self._fail, self._errno = os.fspath(folder), cut, fail, errno_
        self._full, self._writes = full, 0
        self.operations = []
        self._names = self._listing()  # durable: name -> inode
        self._contents = {inode: self._read(name) for name, inode in self._names.items()}
        monkeypatch.setattr(files, "os", _Os(self))
        monkeypatch.setattr(files, "FileIO", lambda *args: _File(self, *args))

    def _listing(self):
        return {entry.name: entry.inode() for entry in os.scandir(self._folder)}

    def _read(self, name):
        with open(os.path.join(self._folder, name), "rb") as file:
            return file.read()

    def count(self, operation):
        """Called before every operation."""
        if self._cut is not None and len(self.operations) >= self._cut:
            raise PowerCut
        self.operations.append(operation)
        self._writes += operation == "write"
        if len(self.operations) - 1 == self._fail:
            raise OSError(self._errno, os.strerror(self._errno))
        if operation == "write" and self._full is not None and self._writes > self._full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def created(self, descriptor):
        self._contents[os.fstat(descriptor).st_ino] = b""

    def synced(self, descriptor):
        status = os.fstat(descriptor)
        if os.path.samestat(status, os.stat(self._folder)):
            self._names = self._listing()
        else:
            names = [n for n, inode in self._listing().items() if inode == status.st_ino]
            if names:
                self._contents[status.st_ino] = self._read(names[0])

    def crash(self, names, contents):
        """The folder after a power cut: with the `names`, or the `contents`, that were not synced.

        Files that were not written to are left alone.
        """
        listing = self._listing()
        after = {}
        for name, inode in (listing if names else self._names).items():
            current = {inode: name for name, inode in listing.items()}.get(inode)
            if contents and current is not None:
                after[name] = self._read(current)
            else:
                after[name] = self._contents.get(inode, b"")
        for name in listing:
            if after.get(name) != self._read(name):
                os.unlink(os.path.join(self._folder, name))
        for name, data in after.items():
            path = os.path.join(self._folder, name)
            if not os.path.exists(path):
                with open(path, "wb") as file:
                    file.write(data)


class _Os:
    """The module os, with operations that are counted."""

    def __init__(self, disk):
        self._disk = disk

    def __getattr__(self, name):
        return getattr(os, name)

    def open(self, path, flags, *mode):
        created = bool(flags & os.O_CREAT) and not os.path.exists(path)
        self._disk.count("create" if created else "open")
        descriptor = os.open(path, flags, *mode)
        if created:
            self._disk.created(descriptor)
        return descriptor

    def fsync(self, descriptor):
        self._disk.count("fsync")
        self._disk.synced(descriptor)

    def replace(self, source, target):
        self._disk.count("replace")
        os.replace(source, target)

    def unlink(self, path):
        self._disk.count("unlink")
        os.unlink(path)


class _File(io.FileIO):
    """A file whose writes are short."""

    def __init__(self, disk, *args):
        super().__init__(*args)
        self._disk = disk

    def write(self, data):
        self._disk.count("write")
        return super().write(memoryview(data)[: max(len(data) * 2 // 3, 1)])
