"""The checkpoint of an evaluation (`state=`): a JSON file from which it resumes.

    version        version of the format
    checksum       of all other entries
    identity       baseline, criteria, data, per_sample and arithmetic of the evaluation that saved
                   it
    position       number of rows or batches that are done
    bytes          number of bytes that were read
    seconds        time that was spent
    digests        checksums of the data that are done, as far as files do not identify them
    written        for each criterion, how many losses were written and their checksum, or null
    accumulators   state of the accumulator of each criterion

It is replaced atomically, so that it always holds one complete checkpoint. While an evaluation
runs, it holds a lock, since another evaluation would replace the checkpoint by its own.
"""

import contextlib
import json
import os
import zlib
from typing import Any

from fastloss.evaluation import files
from fastloss.evaluation.sources.source import with_filename

_VERSION = 5


class CheckpointFile(contextlib.AbstractContextManager["CheckpointFile"]):
    """The checkpoint file of one evaluation, which sets the parts of its `identity`.

    As a context, it holds the lock.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.name: str = os.fspath(path)
        self.path: str = os.path.realpath(self.name)
        self.identity: dict[str, Any] = {}
        if files.is_special(self.path):
            raise ValueError(f"{self.name} is not a regular file and cannot hold a state")
        folder, base = os.path.split(self.path)
        self._temporary = os.path.join(folder, f".{base}.tmp")
        self._lock = files.lock(
            os.path.join(folder, f".{base}.lock"),
            f"another evaluation is using {self.name}: each needs a state file of its own",
        )

    def __enter__(self) -> "CheckpointFile":
        try:
            self._lock.__enter__()
        except OSError as error:
            raise with_filename(error, self.name) from error
        return self

    def __exit__(self, *exception: Any) -> None:
        self._lock.__exit__(*exception)

    def load(self) -> dict[str, Any] | None:
        """The checkpoint, None if there is no file."""
        try:
            with open(self.path, "rb") as file:
                checkpoint = json.loads(file.read().decode())
            version = checkpoint["version"]
            if version == _VERSION:
                _check_entries(checkpoint)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise with_filename(error, self.name) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{self.name} is not the state of an evaluation: {reason}") from error
        if version != _VERSION:
            raise ValueError(
                f"{self.name} holds a state of version {version!r}, and this fastloss reads "
                f"version {_VERSION}: finish with the fastloss that saved it, or delete the file "
                "to start over"
            )
        return checkpoint

    def check_identity(self, checkpoint: dict[str, Any]) -> None:
        """Raises an error if a part of the identity shows that another evaluation saved it."""
        for part in {**self.identity, **checkpoint["identity"]}:
            saved, current = checkpoint["identity"].get(part), self.identity.get(part)
            if saved != current:
                raise ValueError(
                    f"{self.name} is the state of another evaluation: {part} was "
                    f"{json.dumps(saved)} and is {json.dumps(current)}; delete the file to start "
                    "over"
                )

    def save(self, **entries: Any) -> None:
        checkpoint = {"identity": self.identity, **entries}
        checkpoint = {"version": _VERSION, "checksum": _checksum(checkpoint), **checkpoint}
        text = json.dumps(checkpoint, allow_nan=False)
        try:
            with files.create(self._temporary) as stream:
                files.write_all(stream, text.encode())
                files.sync(stream)
            files.replace(self._temporary, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)  # of a full disk
            raise with_filename(error, self.name) from error

    def remove(self) -> None:
        try:
            files.remove(self.path)
        except OSError as error:
            raise with_filename(error, self.name) from error


def _checksum(entries: dict[str, Any]) -> int:
    """The checksum of all entries but version and checksum; damage and edits change it."""
    entries = {name: entries[name] for name in entries.keys() - {"version", "checksum"}}
    return zlib.crc32(json.dumps(entries, sort_keys=True, allow_nan=False).encode())


def _check_entries(checkpoint: dict[str, Any]) -> None:
    """Raises an error for a checkpoint that was not saved as it is, or contradicts itself."""
    counts = [checkpoint["position"], checkpoint["bytes"]]
    written = checkpoint["written"]
    counts += [losses["rows"] for losses in written if losses is not None]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"{counts} are not all counts")
    criteria = checkpoint["identity"]["criteria"]
    accumulators = checkpoint["accumulators"]
    lengths = {len(part) for part in (written, accumulators, criteria)}
    if len(lengths) != 1 or not checkpoint["seconds"] >= 0:
        raise ValueError("its entries are inconsistent")
    for criterion, accumulator in zip(criteria, accumulators, strict=True):
        if any(accumulator[name] != value for name, value in criterion.items()):
            raise ValueError("its sums are those of another criterion")
    if checkpoint["checksum"] != _checksum(checkpoint):
        raise ValueError("its checksum shows that it was changed or damaged")
