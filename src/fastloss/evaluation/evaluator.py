"""Evaluating criteria over data of any size, from wherever it is.

Reading, computing and reporting are apart: sources give the leading rows of an array, feeds make
chunks of them, accumulators add up, writers take unreduced losses, and the command line prints.
"""

import contextlib
import html
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fastloss import _binding, criteria
from fastloss._binding import Loss
from fastloss._runtime import get_num_threads, num_threads
from fastloss.criteria import Criterion
from fastloss.evaluation.accumulators import Accumulator, Totals, plain
from fastloss.evaluation.chunks import Chunk, Given, open_feed
from fastloss.evaluation.sources import named
from fastloss.evaluation.writers import check_apart, check_distinct, open_writer

__all__ = ["Evaluation", "evaluate"]

SAVE_SECONDS = 1.0  # between two states, at least
SAVE_SHARE = 0.02  # of the time may go into saving states
_STATE_VERSION = 1
_SHOWN_GROUPS = 20


@dataclass(frozen=True)
class Evaluation:
    """What a criterion came to over data, and how long it took.

    Attributes
    ----------
    criterion : Criterion
        What was evaluated.
    value : float
        The reduced loss.
    stderr : float
        Its standard error, if the losses are independent.
    sum, weight : float
        The sum of the losses, and what "mean" divides it by: `value` is their ratio.
    count : int
        Number of losses that no weight of 0 and no ``ignore_index`` removes.
    groups : dict of Totals, or None
        The same of each class or group, by its label.
    rows : int
        Length of the leading axis of all the data.
    seconds : float
        Time that it took, in all where it was interrupted.
    bytes : int
        Size of the arrays.
    threads : int
        Threads that a large call could use; with Dask, in this process.
    isa : str
        Instruction set in use.
    accumulator : Accumulator
        What adds up with other evaluations.
    """

    criterion: Criterion
    value: float
    stderr: float
    sum: float
    weight: float
    count: int
    groups: dict[Any, Totals] | None
    rows: int
    seconds: float
    bytes: int
    threads: int
    isa: str
    accumulator: Accumulator = field(repr=False, compare=False)

    @property
    def throughput(self) -> str:
        """Bytes and rows a second, to read."""
        seconds = max(self.seconds, 1e-9)
        return f"{self.bytes / seconds / 1e6:,.0f} MB/s, {self.rows / seconds:,.0f} rows/s"

    def _lines(self) -> Iterator[tuple[str, str]]:
        yield "criterion", repr(self.criterion)
        yield "value", f"{self.value!r} ± {self.stderr:.2g}"
        yield "losses", f"{self.count:,}, weight {self.weight:,.16g}"
        yield "rows", f"{self.rows:,}"
        yield "time", f"{self.seconds:.3g} s"
        yield "throughput", self.throughput
        yield "threads", f"{self.threads}, {self.isa}"

    def _group_rows(self) -> Iterator[tuple[str, str, str, str]]:
        groups = list((self.groups or {}).items())
        for label, totals in groups[:_SHOWN_GROUPS]:
            yield str(label), f"{totals.value!r}", f"{totals.stderr:.2g}", f"{totals.count:,}"
        if len(groups) > _SHOWN_GROUPS:
            yield f"({len(groups) - _SHOWN_GROUPS:,} more)", "", "", ""

    def __repr__(self):
        lines = [f"{key:12}{value}" for key, value in self._lines()]
        rows = [("", "value", "stderr", "losses"), *self._group_rows()] if self.groups else []
        widths = [max(len(row[k]) for row in rows) for k in range(4)] if rows else []
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        def table(rows, head=""):
            cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
            return f"<table>{head}{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"

        found = table(self._lines())
        if self.groups:
            names = "".join(f"<th>{name}</th>" for name in ("", "value", "stderr", "losses"))
            found += table(self._group_rows(), f"<tr>{names}</tr>")
        return found

    def to_dict(self) -> dict[str, Any]:
        """The figures as what JSON can hold; numbers that JSON lacks become strings."""
        kept = {
            name: plain(value)
            for name, value in vars(self).items()
            if name not in ("criterion", "groups", "accumulator")
        }
        found: dict[str, Any] = {"criterion": repr(self.criterion), **kept}
        if self.groups is not None:
            found["groups"] = [
                {"label": label, **{name: plain(value) for name, value in vars(totals).items()}}
                for label, totals in self.groups.items()
            ]
        return found


def evaluate(
    criterion: Any,
    *data: Any,
    sample_weight: Any = None,
    by: Any = None,
    per_sample: Any = None,
    state: str | os.PathLike[str] | None = None,
    chunk_rows: int | None = None,
    threads: int | None = None,
    progress: bool | Callable[[int, int | None], None] = False,
) -> Any:
    """The value of criteria over data of any size, in memory that does not grow with it.

    Parameters
    ----------
    criterion : Criterion or Loss, or a list or dict of them
        What to evaluate, such as ``fl.CrossEntropyLoss(label_smoothing=0.1)``; a loss stands for
        its criterion with default options. Several are computed in one pass over the data.
    *data
        The arrays of the loss, in order: each a NumPy array or memory map, an HDF5 or Zarr
        dataset, a column of Arrow, a Dask array, whatever has a shape and can be sliced, or the
        name of a file: ``x.npy``, ``x.npz:name``, ``x.h5:name``, ``x.zarr:name``,
        ``x.parquet:column``, ``x.arrow:column``. Leading dimensions must agree; a number or 0-d
        array stands for every row.
        Or one iterable of batches: tuples of the arrays, with sample weights behind them if there
        are any, or dicts of them by name, which may have ``sample_weight`` and ``group``. Batches
        are taken one by one on this thread, so that they may share their memory. Or a list of
        ``dask.delayed`` tuples.
    sample_weight
        Weights as in a call, given like the data.
    by : "class", "group", or labels given like the data, optional
        Totals of each class that the targets name, or of each group. Labels are integers, floats
        or, in memory, strings, one for each loss, or one for each row; with "group" batches hold
        their own.
    per_sample : path or array, or a list or dict of them as of criteria, optional
        Where to write the unreduced losses as they come: a .npy file, which appears when it is
        complete, or an array, memory map or dataset.
    state : path, optional
        A file for what is done so far. If there is one, the evaluation goes on from there and
        gives the bits that it would have given; it is removed at the end.
    chunk_rows : int, optional
        Rows to read at once, rounded up to a whole block. Default: what fits the cache.
    threads : int, optional
        Number of threads that compute, in place of `fastloss.get_num_threads()`. With Dask, on each
        block; by default one, where its scheduler runs blocks side by side.
    progress : bool or callable, default False
        Whether to show a bar of tqdm; or what to call after every chunk with the bytes that are
        done and the bytes in all, None if that is not known.

    Returns
    -------
    Evaluation
        Or a list or dict of them, as of criteria. Values have the bits of one call over whole
        arrays; where all rows share one variance, which that call adds up by columns, or of
        batches that hold no whole blocks, and of Dask, they agree to 1e-13 of the sum of the
        losses' sizes.

    Raises
    ------
    ValueError, TypeError, IndexError
        As the loss raises them, positions being those in the data; for files that are damaged or
        of an unknown kind; and for a `state` of another evaluation.
    OSError
        For a file that cannot be opened, read or written.
    ImportError
        For data whose package is not installed.

    See Also
    --------
    fastloss.Accumulator : The same for batches that a program has at hand.

    Examples
    --------
    >>> import fastloss as fl
    >>> import numpy as np
    >>> x = np.array([[2.0, 0.5], [0.1, 3.0], [1.0, 1.0]])
    >>> found = fl.evaluate(fl.CrossEntropyLoss(), x, np.array([0, 1, 1]), by="class")
    >>> found.value == fl.cross_entropy(x, [0, 1, 1])
    True
    >>> found.groups[0].count, found.groups[1].count
    (1, 2)
    >>> batches = ((x[k : k + 1], [1]) for k in range(3))
    >>> both = fl.evaluate({"ce": fl.cross_entropy, "margin": fl.multi_margin_loss}, batches)
    >>> round(both["margin"].value, 6)
    0.583333
    """
    began = time.perf_counter()
    chosen = _Chosen(criterion)
    named_kind = by is None or (isinstance(by, str) and by in ("class", "group"))
    kind: Any = by if named_kind else "group"
    labels = None if named_kind else by
    with contextlib.ExitStack() as stack:
        if threads is not None:
            stack.enter_context(num_threads(threads))
        given = Given(chosen.criteria, data, sample_weight, kind, labels, chunk_rows)
        if given.on_dask():
            from fastloss.evaluation.dask import evaluated

            partial = evaluated(
                given, threads, per_sample=per_sample, state=state, progress=progress
            )
            seconds = time.perf_counter() - began
            return chosen.shaped(_evaluations(partial.accumulators, seconds, partial.nbytes))
        feed = open_feed(stack, given)
        run = _Run(chosen.criteria, kind, feed, state, began)
        targets = chosen.like(per_sample, "per_sample")
        check_apart(targets, (*data, sample_weight, labels))
        run.open_writers(stack, targets)
        report = stack.enter_context(_reporting(progress))
        run.go(report)
        return chosen.shaped(run.results())


class _Chosen:
    """One criterion or several, and the shape that results take."""

    def __init__(self, given: Any):
        self._given = given
        several = isinstance(given, (list, tuple, dict))
        values = list(given.values() if isinstance(given, dict) else given) if several else [given]
        if not values:
            raise ValueError("there is no criterion to evaluate")
        self.criteria = [_criterion(value) for value in values]
        first = self.criteria[0].loss.operands
        for criterion in self.criteria:
            if len(criterion.loss.operands) != len(first):
                raise ValueError(
                    f"{criterion} reads {len(criterion.loss.operands)} arrays and "
                    f"{self.criteria[0]} reads {len(first)}: evaluate them one by one"
                )

    def like(self, option: Any, name: str) -> list[Any]:
        """An option for each criterion."""
        if option is None:
            return [None] * len(self.criteria)
        if isinstance(self._given, dict):
            if isinstance(option, dict) and set(option) <= set(self._given):
                return [option.get(key) for key in self._given]
            keys = ", ".join(map(str, self._given))
            raise ValueError(f"{name} must be a dict, with keys among {keys}")
        if isinstance(self._given, (list, tuple)):
            if isinstance(option, (list, tuple)) and len(option) == len(self._given):
                return list(option)
            raise ValueError(f"{name} must be a list of {len(self._given)}, one for each criterion")
        return [option]

    def shaped(self, results: list[Any]) -> Any:
        if isinstance(self._given, dict):
            return dict(zip(self._given, results, strict=True))
        return results if isinstance(self._given, (list, tuple)) else results[0]


def criterion_of(loss: Loss) -> type[Criterion]:
    """The class of the criteria of a loss."""
    kinds = (getattr(criteria, name) for name in criteria.__all__)
    return next(kind for kind in kinds if kind.loss is loss)


def _criterion(given: Any) -> Criterion:
    """Of a loss, its criterion with default options."""
    if isinstance(given, Loss):
        return criterion_of(given)()
    if isinstance(given, Criterion):
        return given
    raise TypeError(
        f"criterion must be a criterion or a loss, such as fastloss.MSELoss(), got {given!r}"
    )


# --------------------------------------------------------------------------------------- running


class _Run:
    """The criteria over a feed, from where a state left it to its end."""

    def __init__(self, chosen, kind, feed, state, began):
        self._feed, self._began = feed, began
        self.accumulators = [criterion.accumulator(by=kind) for criterion in chosen]
        self._file = None if state is None else _StateFile(state)
        self._writers: list[Any] = [None] * len(chosen)
        self._targets: list[Any] = []
        self._place, self._bytes, self._seconds = 0, feed.constant_bytes, 0.0
        self._kept = self._file and self._file.load()
        self._next_save = began
        self._whole = True  # not within a chunk, that some criteria have and others have not

    def open_writers(self, stack, targets) -> None:
        check_distinct(targets)
        self._targets = targets
        kept = self._kept or {"written": [0] * len(targets)}
        for k, target in enumerate(targets):
            if target is not None:
                done = int(kept["written"][k])
                self._writers[k] = stack.enter_context(
                    open_writer(target, self._file is not None, done)
                )
        if self._file is None:
            return
        plan = {
            "criteria": [_identity(accumulator) for accumulator in self.accumulators],
            "data": self._feed.fingerprint(),
            "per_sample": [writer and writer.describe() for writer in self._writers],
        }
        self._file.plan = json.loads(json.dumps(plan))
        if self._kept is not None:
            self._file.check(self._kept)
            self.accumulators = [Accumulator.from_dict(a) for a in self._kept["accumulators"]]
            self._place, self._bytes = self._kept["place"], self._kept["bytes"]
            self._seconds = self._kept["seconds"]

    def go(self, report) -> None:
        with contextlib.closing(self._feed.chunks(self._place)) as chunks:
            try:
                for chunk in chunks:
                    self._add(chunk)
                    report(self._bytes, self._feed.nbytes)
                    self._save_now_and_then()
            except BaseException:
                if self._whole:
                    self._save()
                raise
        if self._file is not None:
            self._file.remove()  # first: what is complete must not be gone on with
        for writer in self._writers:
            if writer is not None:
                writer.complete()

    def _add(self, chunk: Chunk) -> None:
        self._whole = False
        check_apart(self._targets, (*chunk.arrays, chunk.sample_weight))  # those of batches
        for k, accumulator in enumerate(self.accumulators):
            with self._feed.describing():
                losses = accumulator._add(
                    chunk.arrays,
                    chunk.sample_weight,
                    chunk.group,
                    chunk.weights[k],
                    values=self._writers[k] is not None,
                )
                if losses is not None:
                    self._writers[k].write(losses)
        self._place, self._bytes = chunk.place, self._bytes + chunk.nbytes
        self._whole = True

    def _save_now_and_then(self) -> None:
        if self._file is None or time.perf_counter() < self._next_save:
            return
        began = time.perf_counter()
        self._save()
        took = time.perf_counter() - began
        self._next_save = began + took + max(SAVE_SECONDS, took / SAVE_SHARE)

    def _save(self) -> None:
        if self._file is None:
            return
        for writer in self._writers:
            if writer is not None:
                writer.flush()
        self._file.save(
            place=self._place,
            bytes=self._bytes,
            seconds=self._elapsed(),
            written=[writer.done if writer else 0 for writer in self._writers],
            accumulators=[accumulator.to_dict() for accumulator in self.accumulators],
        )

    def _elapsed(self) -> float:
        return self._seconds + time.perf_counter() - self._began

    def results(self) -> list[Evaluation]:
        return _evaluations(self.accumulators, self._elapsed(), self._bytes)


def _evaluations(accumulators: list[Accumulator], seconds: float, nbytes: int) -> list[Evaluation]:
    return [
        Evaluation(
            criterion=accumulator.criterion,
            value=accumulator.value,
            stderr=accumulator.stderr,
            sum=accumulator.sum,
            weight=accumulator.weight,
            count=accumulator.count,
            groups=accumulator.groups if accumulator.by else None,
            rows=accumulator.rows,
            seconds=seconds,
            bytes=nbytes,
            threads=get_num_threads(),
            isa=_binding.isa(),
            accumulator=accumulator,
        )
        for accumulator in accumulators
    ]


def _identity(accumulator: Accumulator) -> dict[str, Any]:
    """The criterion and what it is split by, without totals."""
    kept = accumulator.to_dict()
    return {name: kept[name] for name in ("criterion", "options", "by")}


class _StateFile:
    """What is done so far, in a file that always holds one whole state."""

    def __init__(self, path: str | os.PathLike[str]):
        self._name = os.fspath(path)
        self.plan: Any = None

    def load(self) -> dict[str, Any] | None:
        if os.path.exists(self._name) and not os.path.isfile(self._name):
            raise ValueError(f"{self._name} is not a regular file and cannot hold a state")
        try:
            with open(self._name, encoding="utf-8") as file:
                kept = json.load(file)
            if kept["version"] != _STATE_VERSION:
                raise ValueError(f"version {kept['version']}, not {_STATE_VERSION}")
            numbers = [kept["place"], kept["bytes"], *kept["written"]]
            if not all(isinstance(number, int) and number >= 0 for number in numbers):
                raise ValueError(f"{numbers} are not all counts")
            lengths = {len(kept[name]) for name in ("written", "accumulators")}
            if lengths != {len(kept["plan"]["criteria"])} or not kept["seconds"] >= 0:
                raise ValueError("its parts do not go together")
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"{self._name} is no state of an evaluation: {why}") from error
        return kept

    def check(self, kept: dict[str, Any]) -> None:
        """That it is of the evaluation that goes on."""
        for part, now in self.plan.items():
            was = kept["plan"].get(part)
            if was != now:
                raise ValueError(
                    f"{self._name} is of another evaluation: {part} was {json.dumps(was)} and is "
                    f"{json.dumps(now)}; delete the file to begin anew"
                )

    def save(self, **kept: Any) -> None:
        folder, base = os.path.split(self._name)
        temporary = os.path.join(folder, f".{base}.tmp")
        text = json.dumps({"version": _STATE_VERSION, "plan": self.plan, **kept}, allow_nan=False)
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._name)
        except OSError as error:
            raise named(error, self._name) from error

    def remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name)


@contextlib.contextmanager
def _reporting(progress):
    """What is called after every chunk."""
    if callable(progress):
        yield progress
        return
    if not progress:
        yield lambda done, total: None
        return
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install 'fastloss[cli]'") from error
    with tqdm(unit="B", unit_scale=True, desc="fastloss") as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
