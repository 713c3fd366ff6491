"""The checkpoint of an evaluation (`state=`): a JSON file from which it resumes.

    version        version of the format
    identity       criteria, data and per_sample of the evaluation that saved it
    position       number of rows or batches that are done
    bytes          number of bytes that were read
    seconds        time that was spent
    rows_written   number of rows in the file of unreduced losses of each criterion
    accumulators   state of the accumulator of each criterion

It is replaced atomically, so that it always holds one complete checkpoint.
"""

import contextlib
import json
import os
from typing import Any

from fastloss.evaluation.sources.source import with_filename

_VERSION = 2


class CheckpointFile:
    """The checkpoint file of one evaluation, which sets the parts of its `identity`."""

    def __init__(self, path: str | os.PathLike[str]):
        self._name = os.fspath(path)
        self.identity: dict[str, Any] = {}

    def load(self) -> dict[str, Any] | None:
        """The checkpoint, None if there is no file."""
        if os.path.exists(self._name) and not os.path.isfile(self._name):
            raise ValueError(f"{self._name} is not a regular file and cannot hold a state")
        try:
            with open(self._name, encoding="utf-8") as file:
                checkpoint = json.load(file)
            version = checkpoint["version"]
            if version == _VERSION:
                _check_entries(checkpoint)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{self._name} is not the state of an evaluation: {reason}") from error
        if version != _VERSION:
            raise ValueError(
                f"{self._name} holds a state of version {version!r}, and this fastloss reads "
                f"version {_VERSION}: finish with the fastloss that saved it, or delete the file "
                "to start over"
            )
        return checkpoint

    def check_identity(self, checkpoint: dict[str, Any]) -> None:
        """Raises an error if a part of the identity shows that another evaluation saved it."""
        for part, current in self.identity.items():
            saved = checkpoint["identity"].get(part)
            if saved != current:
                raise ValueError(
                    f"{self._name} is the state of another evaluation: {part} was "
                    f"{json.dumps(saved)} and is {json.dumps(current)}; delete the file to start "
                    "over"
                )

    def save(self, **entries: Any) -> None:
        folder, base = os.path.split(self._name)
        temporary = os.path.join(folder, f".{base}.tmp")
        checkpoint = {"version": _VERSION, "identity": self.identity, **entries}
        text = json.dumps(checkpoint, allow_nan=False)
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._name)
        except OSError as error:
            raise with_filename(error, self._name) from error

    def remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name)


def _check_entries(checkpoint: dict[str, Any]) -> None:
    """Raises an error for entries of wrong types, or for unequal numbers of criteria."""
    counts = [checkpoint["position"], checkpoint["bytes"], *checkpoint["rows_written"]]
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError(f"{counts} are not all counts")
    lengths = {len(checkpoint[name]) for name in ("rows_written", "accumulators")}
    if lengths != {len(checkpoint["identity"]["criteria"])} or not checkpoint["seconds"] >= 0:
        raise ValueError("its entries are inconsistent")
