"""A stress of threads, in a child process whose OpenMP runtime is tests/preload/openmp.c.

    python -m tests.race_stress [--seconds 5] [--seed 0]

Threads that come and go make random calls with teams of changing sizes, and compare each result
with the result on one thread. Exits with status 1 if one differs. In a build with ThreadSanitizer
(FASTLOSS_SANITIZE=thread) it reports races, if libtsan is in LD_PRELOAD.
"""

import argparse
import sys
import threading
import time

import numpy as np

import fastloss as fl
from tests.preloaded import run_module

THREADS = 4


def bytes_of(result):
    if isinstance(result, (tuple, list)):
        return b"".join(map(bytes_of, result))
    return np.asarray(result).tobytes()


def invalid(call):
    """The message of a call that fails."""

    def message():
        try:
            call()
        except ValueError as error:
            return np.frombuffer(str(error).encode(), np.uint8)
        raise AssertionError("no error")

    return message


def workload():
    """Calls of all families, methods and paths that use several threads or scratch."""
    rng = np.random.default_rng(0)
    n = 70_000
    x, y = rng.normal(size=(2, n)).astype(np.float32)
    p, q = rng.uniform(0.01, 0.99, size=(2, n))
    logits = rng.normal(size=(n // 10, 10)).astype(np.float32)
    labels = rng.integers(0, 10, n // 10)
    weight = rng.uniform(size=n // 10)
    row = rng.normal(size=(1, n)).astype(np.float32)  # split over threads
    lists = np.where(np.arange(3000) < 5, np.arange(3000), -1)[None].repeat(4, 0)
    long_rows = rng.normal(size=(4, 3000)).astype(np.float32)  # with scratch
    many = np.where(np.arange(3000) < 1500, np.arange(3000), -1)[None].repeat(4, 0)
    bad = q.copy()
    bad[[n // 3, n - 1]] = 7, 8
    bad_labels = labels.copy()
    bad_labels[-3:] = 10
    frames = rng.normal(size=(60, 9, 12)).astype(np.float32)
    targets = rng.integers(1, 12, (9, 20))
    ctc = (frames, targets, np.full(9, 60), np.full(9, 20))
    one = (frames[:, 0], targets[0], 60, 20)  # two passes, on two threads
    half = x.astype(np.float16)
    return [
        lambda: fl.mse_loss(x, y),
        lambda: fl.huber_loss.value_and_grad(x, y, wrt=("input", "target")),
        lambda: fl.mse_loss.grad(x, np.float32(0.5), wrt="target"),
        lambda: fl.binary_cross_entropy.value_and_grad(p, q, reduction="none"),
        lambda: fl.gaussian_nll_loss.grad(x[:, None], y[:, None], np.ones((1, 1)), wrt="var"),
        lambda: fl.cross_entropy(logits, labels, sample_weight=weight),
        lambda: fl.cross_entropy.value_and_grad(logits, labels, label_smoothing=0.1),
        lambda: fl.cross_entropy.value_and_grad(row, [n // 2]),
        lambda: fl.cross_entropy.grad(row, np.full_like(row, 1 / n)),
        lambda: fl.nll_loss.grad(logits, labels),
        lambda: fl.multi_margin_loss.value_and_grad(logits, labels),
        lambda: fl.multilabel_margin_loss.value_and_grad(long_rows, lists),
        lambda: fl.multilabel_margin_loss.value_and_grad(long_rows, many),
        lambda: fl.triplet_margin_loss.grad(logits, logits[::-1], logits * 2),
        lambda: fl.kl_div.sums(p, q),
        lambda: fl.mse_loss.grad(half, half[::-1], reduction="sum"),
        lambda: fl.mse_loss.grad(x[::2], y[::2]),
        lambda: fl.ctc_loss_with_logits.value_and_grad(*ctc),
        lambda: fl.ctc_loss_with_logits.value_and_grad(*one),
        lambda: fl.ctc_loss_with_logits(*one),
        invalid(lambda: fl.binary_cross_entropy.grad(p, bad)),
        invalid(lambda: fl.cross_entropy.grad(logits, bad_labels)),
    ]


class Stress:
    def __init__(self, seconds, seed):
        self.calls = workload()
        with fl.num_threads(1):
            self.expected = [bytes_of(call()) for call in self.calls]
        self.seed, self.end = seed, time.monotonic() + seconds
        self.errors, self.counts = [], []
        self.rows = np.ones(20_000)
        self.accumulator = fl.L1Loss(reduction="sum").accumulator()

    def work(self, seed, calls):
        try:
            self._work(np.random.default_rng(seed), calls)
        except BaseException as error:
            self.errors.append(repr(error))

    def _work(self, rng, calls):
        done = updates = 0
        while time.monotonic() < self.end and not self.errors and done < calls:
            k, chance = int(rng.integers(len(self.calls))), rng.random()
            with fl.num_threads(int(rng.integers(1, 6)), fixed=bool(rng.integers(2))):
                result = bytes_of(self.calls[k]())
                if result != self.expected[k]:
                    self.errors.append(f"call {k} has another result")
                if chance < 0.1:
                    self.accumulator.update(self.rows, 0.0)
                    updates += 1
                elif chance < 0.2:
                    fl.show_config("dicts")
                elif chance < 0.3:
                    fl.set_num_threads(int(rng.integers(1, 6)))
            done += 1
        self.counts.append((done, updates))

    def run(self):
        """Waves of threads: each ends, and with it its team, after a few calls."""
        wave = 0
        while time.monotonic() < self.end and not self.errors:
            threads = [
                threading.Thread(target=self.work, args=((self.seed, wave, k), 12 + 9 * k))
                for k in range(THREADS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            wave += 1
        updates = sum(updates for _, updates in self.counts)
        if not self.errors and self.accumulator.sum != updates * len(self.rows):
            self.errors.append(f"{self.accumulator.sum} after {updates} updates")
        print(*self.errors, sep="\n")
        print(f"{sum(done for done, _ in self.counts)} calls in {wave} waves of threads")
        return 1 if self.errors else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not fl.show_config("dicts")["openmp"].startswith("unknown"):
        print(run_module("tests.race_stress", *sys.argv[1:], preload="openmp"), end="")
        return 0
    return Stress(args.seconds, args.seed).run()


if __name__ == "__main__":
    sys.exit(main())
