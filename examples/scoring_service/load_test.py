"""Sends many requests, kills workers meanwhile, and checks that each request is counted once.

python examples/scoring_service/load_test.py --requests 5000 --clients 8 --workers 2 --kills 5
"""

import argparse
import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from client import Client

import fastloss as fl

EXAMPLES = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-13  # relative to the sum of absolute losses


class Example(NamedTuple):
    criterion: fl.criteria.Criterion
    input: str
    target: str


MODELS = {
    "digits": Example(fl.CrossEntropyLoss(), "digits/logits.npy", "digits/labels.npy"),
    "diabetes": Example(fl.HuberLoss(delta=50.0), "diabetes/prediction.npy", "diabetes/target.npy"),
}


class Batch(NamedTuple):
    model: str
    input: np.ndarray
    target: np.ndarray
    key: str
    npz: bool
    is_repeated: bool  # sent twice, as if the response had been lost


def batches(requests: int) -> list[Batch]:
    """Random rows of the examples, in float64, which JSON and .npz represent exactly."""
    rng = np.random.default_rng(0)
    data = {
        name: (np.load(EXAMPLES / model.input).astype(np.float64), np.load(EXAMPLES / model.target))
        for name, model in MODELS.items()
    }
    result = []
    for k in range(requests):
        model = list(data)[k % len(data)]
        inputs, targets = data[model]
        rows = rng.integers(0, len(inputs), rng.integers(1, 65))
        key, npz, is_repeated = str(uuid.uuid4()), k % 3 == 0, k % 10 == 0
        result.append(Batch(model, inputs[rows], targets[rows], key, npz, is_repeated))
    return result


class Service:
    """uvicorn with workers on a free port. `pids` is a queue of the workers that have started."""

    def __init__(self, database: Path, workers: int, app: str = "app:app"):
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(__file__).parent), app]
        command += ["--port", "0", "--workers", str(workers), "--no-access-log", "--no-use-colors"]
        env = {**os.environ, "SCORING_DATABASE": str(database)}
        self._process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        self._urls: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.pids: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stderr or ():
            self.log.append(line.rstrip())
            if "Uvicorn running on" in line:
                self._urls.put(line.split()[4])
            elif "Started server process" in line:
                self.pids.put(int(line.split("[")[1].split("]")[0]))
        self._urls.put(None)

    def __enter__(self) -> "Service":
        url = self._urls.get()
        if url is None:
            raise RuntimeError("\n".join(self.log))
        self.url = url
        return self

    def kill_worker(self) -> None:
        """Kill the oldest worker."""
        os.kill(self.pids.get(), signal.SIGKILL)

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        if error is not None:  # perhaps no worker has come up, and only the log says why
            print("log of the service:", *self.log[-100:], sep="\n    ", file=sys.stderr)


def load(service: Service, work: list[Batch], clients: int, kills: int) -> tuple[list[float], int]:
    """Send the batches; return the seconds of each response and the number of failed attempts."""
    local = threading.local()
    all_clients: list[Client] = []

    def send(batch: Batch) -> float:
        if not hasattr(local, "client"):
            local.client = Client(service.url)
            all_clients.append(local.client)
        arrays = {"input": batch.input, "target": batch.target}
        start = time.perf_counter()
        answer = local.client.losses(batch.model, key=batch.key, npz=batch.npz, **arrays)
        seconds = time.perf_counter() - start
        if batch.is_repeated:
            repeated = local.client.losses(batch.model, key=batch.key, npz=batch.npz, **arrays)
            require("the response to a repeated request", repeated, answer)
        return seconds

    kill_at = {len(work) * (k + 1) // (kills + 1) for k in range(kills)}
    seconds = []
    with ThreadPoolExecutor(clients) as pool:
        for future in as_completed([pool.submit(send, batch) for batch in work]):
            seconds.append(future.result())
            if len(seconds) in kill_at:
                service.kill_worker()
    for client in all_clients:
        client.close()
    return seconds, sum(client.retries for client in all_clients)


def check(state: dict[str, Any], work: list[Batch]) -> None:
    """Check the number of requests, and compare the running losses with one call on all batches."""
    for name, model in MODELS.items():
        sent = [batch for batch in work if batch.model == name]
        require(f"requests of {name}", state[name]["requests"], len(sent))
        total = fl.Accumulator.from_dict(state[name]["accumulator"])
        input = np.concatenate([batch.input for batch in sent])
        target = np.concatenate([batch.target for batch in sent])
        compare(name, total, model.criterion, input, target)
        if target.dtype.kind == "i":
            require(f"classes of {name}", list(total.groups), np.unique(target).tolist())
            for label, group in total.groups.items():
                rows = target == label
                compare(f"{name}, class {label}", group, model.criterion, input[rows], target[rows])


def compare(
    name: str,
    total: fl.Accumulator | fl.evaluation.accumulators.Totals,
    criterion: fl.criteria.Criterion,
    input: np.ndarray,
    target: np.ndarray,
) -> None:
    options = criterion.get_params() | {"reduction": "none"}
    scale = np.abs(criterion.loss(input, target, **options)).sum()
    expected = criterion(input, target)
    error = abs(total.value - expected) * total.weight / scale
    print(
        f"{name}: {total.count} losses, {total.value!r} ± {total.stderr:.2g}, one call {expected!r}"
    )
    require(f"losses of {name}", total.count, len(target))
    if not error <= TOLERANCE:
        raise AssertionError(f"{name} differs by {error:.1e} of the sum of absolute losses")


def require(name: str, value: object, expected: object) -> None:
    if value != expected:
        raise AssertionError(f"{name}: {value}, not {expected}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=3)
    options = parser.parse_args(arguments)
    work = batches(options.requests)
    with (
        tempfile.TemporaryDirectory(dir=".") as folder,  # on a disk, unlike some /tmp
        Service(Path(folder) / "scoring.db", options.workers) as service,
        contextlib.closing(Client(service.url)) as client,
    ):
        client.state()  # returns as soon as there is a worker
        start = time.perf_counter()
        seconds, failed = load(service, work, options.clients, options.kills)
        elapsed = time.perf_counter() - start
        state = client.state()
    check(state, work)
    sent = len(work) + sum(batch.is_repeated for batch in work)
    print(
        f"{sent} responses to {options.clients} clients by {options.workers} workers in "
        f"{elapsed:.2f} s, {sent / elapsed:.0f} per second; {options.kills} kills, {failed} failed "
        "attempts"
    )
    quantiles = np.percentile(seconds, [50, 90, 99, 100]) * 1e3
    print("latency: p50 {:.1f} ms, p90 {:.1f} ms, p99 {:.1f} ms, max {:.1f} ms".format(*quantiles))
    print("every request was counted exactly once")


if __name__ == "__main__":
    main()
