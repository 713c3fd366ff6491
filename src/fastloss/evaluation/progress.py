"""Progress: a tqdm bar of the bytes that are done."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


class ProgressBar:
    """A tqdm bar, called with the bytes done and the total (None if unknown).

    Options are passed to tqdm. Raises an ImportError if tqdm is not installed.
    """

    def __init__(self, **options: Any):
        from tqdm import tqdm

        self._bar = tqdm(unit="B", unit_scale=True, desc="fastloss", **options)

    def __call__(self, done: int, total: int | None) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


@contextlib.contextmanager
def progress_callback(
    progress: bool | Callable[[int, int | None], None],
) -> Iterator[Callable[[int, int | None], None]]:
    """The function to call after every chunk, by the option `progress` of `evaluate`."""
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda done, total: None
    else:
        try:
            bar = ProgressBar()
        except ImportError as error:
            raise ImportError("progress=True needs tqdm: pip install 'fastloss[cli]'") from error
        with bar:
            yield bar
