"""The running losses on the disk: one SQLite transaction for each request that is counted."""

import copy
import fcntl
import json
import math
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fastloss as fl

MAX_SUM = 1e60  # of a batch; merging two such sums squares one of them
KEY_SECONDS = 7 * 24 * 3600.0  # a request that is repeated after this time is counted again

SCHEMA = """
CREATE TABLE IF NOT EXISTS models (
    name TEXT PRIMARY KEY, requests INTEGER NOT NULL, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS requests (
    key TEXT PRIMARY KEY, digest BLOB NOT NULL, time REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS requests_by_time ON requests (time);
"""


class KeyReused(Exception):
    """The same key was sent with two different requests."""


class NotFinite(Exception):
    """The running losses would no longer be finite, or later batches could make them so."""


class Store:
    """The database that all workers share. Each opens a store on the same file of a local disk.

    `synchronous` is SQLite's option: with FULL, recorded requests survive a loss of power. With
    NORMAL they survive the end of any process, but a loss of power may undo the last ones.
    """

    def __init__(self, path: str, models: dict[str, fl.Accumulator], synchronous: str = "FULL"):
        self._thread_lock = threading.Lock()
        self._lock_file = open(f"{path}.lock", "w")  # noqa: SIM115 (open until close())
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        with self._writer():
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute(f"PRAGMA synchronous = {synchronous}")
            self._database.executescript(SCHEMA)
        self._names = tuple(models)
        for name, empty in models.items():
            self._register(name, empty)

    def _register(self, name: str, empty: fl.Accumulator) -> None:
        with self._transaction() as database:
            row = (name, 0, empty.to_json())
            database.execute("INSERT OR IGNORE INTO models VALUES (?, ?, ?)", row)
            try:
                copy.copy(empty).merge(_stored_total(database, name))
            except ValueError as error:
                raise ValueError(f"the criterion of {name!r} changed, rename it: {error}") from None

    def record(self, name: str, key: str, digest: bytes, batch: fl.Accumulator) -> bool:
        """Count a batch once for each key, on the disk. Return False if the key was known.

        Raises KeyReused if the key was sent with another digest, and NotFinite if the batch would
        spoil the running losses, which remain as they are.
        """
        if _largest(batch.to_dict()) > MAX_SUM:
            raise NotFinite(f"a sum of these losses, weights or squares is above {MAX_SUM}")
        with self._transaction() as database:
            now = time.time()
            database.execute("DELETE FROM requests WHERE time < ?", (now - KEY_SECONDS,))
            row = database.execute("SELECT digest FROM requests WHERE key = ?", (key,)).fetchone()
            if row is not None:
                if row[0] != digest:
                    raise KeyReused(f"key {key!r} came with another request: use a new one")
                return False
            total = _stored_total(database, name)
            total.merge(batch)  # the stored one changes below
            state = total.to_dict()
            if math.isinf(_largest(state)):
                raise NotFinite("a sum of the running losses would not be finite")
            database.execute("INSERT INTO requests VALUES (?, ?, ?)", (key, digest, now))
            database.execute(
                "UPDATE models SET requests = requests + 1, state = ? WHERE name = ?",
                (json.dumps(state, allow_nan=False), name),
            )
            return True

    def totals(self) -> dict[str, tuple[int, fl.Accumulator]]:
        """The number of requests and their accumulator, for each model, at one moment."""
        with self._thread_lock:
            rows = self._database.execute("SELECT name, requests, state FROM models").fetchall()
        return {
            name: (requests, fl.Accumulator.from_json(state))
            for name, requests, state in rows
            if name in self._names
        }

    def close(self) -> None:
        self._database.close()
        self._lock_file.close()

    @contextmanager
    def _writer(self) -> Iterator[None]:
        """Admit one writer at a time; they queue, whereas SQLite polls. A kill frees the lock."""
        with self._thread_lock:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writer(), self._database as database:  # commits, or rolls back after an error
            database.execute("BEGIN IMMEDIATE")
            yield database


def _stored_total(database: sqlite3.Connection, name: str) -> fl.Accumulator:
    query = "SELECT state FROM models WHERE name = ?"
    return fl.Accumulator.from_json(database.execute(query, (name,)).fetchone()[0])


def _largest(state: dict[str, Any]) -> float:
    """The largest magnitude of the sums in the state of an accumulator; infinite if one is NaN."""
    sums = [state["sums"], *(sums for _, sums in state["groups"])]
    numbers = [abs(float(number)) for numbers in sums for number in numbers]
    return max(numbers) if all(map(math.isfinite, numbers)) else math.inf
