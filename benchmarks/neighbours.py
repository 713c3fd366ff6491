"""``python -m benchmarks.neighbours``: calls on a machine whose cores others use too.

The neighbours are further workers, programs that burn a core, the threads of other libraries in the
same process, and other callers. Each scenario is a table: fastloss on one thread, on several, and
by default, where it adapts the number to the machine, and then the other libraries. The variants
take turns within a round, each in a process of its own, and start at another one in each round.
Figures are medians over the rounds. "to better" is the default relative to the better of the two
fixed numbers of threads, and "to one" relative to one thread: the median of the ratios of each
round.
"""

import bisect
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from benchmarks import callers, cli, pools
from benchmarks.cells import Cell
from benchmarks.format import ratio_text, table, time_text
from benchmarks.load import Burners, Quota
from benchmarks.peers import Peer, PeerError, open_peers

ENTROPY = Cell("cross_entropy", "", (256, 1000), "float32", "cached")
SQUARES = Cell("mse_loss", "", (4096, 100), "float32", "cached")
LONG = Cell("mse_loss", "", (4096, 4096), "float32", "large")
FILE_SHAPE = (16384, 1000)  # of the scores that `evaluate` reads
PATIENCE = 60  # seconds beyond the duration of a request after which a worker is killed
CALLS, EVALUATIONS = RATES = ("calls a second", "evaluations a second")
RECOVERY = "time to recover"
WINDOW = 5  # calls whose median tells whether calls are fast again


@dataclass(frozen=True)
class Variant:
    """A library on a number of threads; the number is an upper bound if it adapts."""

    peer: str
    threads: int
    adapts: bool = False

    @property
    def name(self):
        if self.adapts:
            return "default"
        return "one thread" if self.threads == 1 else f"{self.threads} threads"

    @property
    def title(self):
        return self.name if self.peer == "fastloss" else f"{self.peer}, {self.name}"

    @property
    def environment(self):
        """The variables of its process; None removes a variable."""
        if self.peer != "fastloss":
            return {}
        fixed = None if self.adapts else "1"
        return {"FASTLOSS_NUM_THREADS": str(self.threads), "FASTLOSS_FIXED_THREADS": fixed}

    @property
    def product(self):
        """The value and the gradient, into preallocated arrays where the library has that."""
        return "out" if self.peer == "fastloss" else "gradient"


def variants_of(names, threads):
    """All variants, fastloss first."""
    return [
        *(Variant("fastloss", n) for n in (1, threads)),
        Variant("fastloss", threads, adapts=True),
        *(Variant(name, n) for name in names for n in (1, threads)),
    ]


# ---- rounds and figures


class Bench:
    """The options, the variants and the figures of all scenarios."""

    def __init__(self, options, variants):
        self.options, self.variants = options, variants
        self.figures, self.notes = [], []

    def duration(self, seconds):
        """When to begin to measure, after a time to warm up, and when to end."""
        begin = time.perf_counter() + self.warm_up
        return begin, begin + seconds

    @property
    def warm_up(self):
        return min(0.5, self.options.seconds / 4)

    def is_selected(self, scenario, row):
        return re.search(self.options.filter, f"{scenario}: {row}") is not None

    def note(self, text):
        self.notes.append(text)
        print(text, flush=True)

    def measure(self, scenario, row, turn, prepare=lambda variant: None):
        """Add the figures of a row: `turn` measures a variant once and returns {measure: figure}.

        A variant that fails is left out, with a note.
        """
        if not self.is_selected(scenario, row):
            return
        print(f"{scenario}: {row}", file=sys.stderr, flush=True)
        rounds = {variant: [] for variant in self.variants}
        failures = {}

        def attempt(function, variant):
            if variant in failures:
                return None
            try:
                return function(variant)
            except PeerError as error:
                failures[variant] = str(error)
                return None

        for variant in self.variants:
            attempt(prepare, variant)
        for k in range(self.options.rounds):
            first = k % len(self.variants)
            for variant in self.variants[first:] + self.variants[:first]:
                rounds[variant].append(attempt(turn, variant))
        for text in failure_texts(failures, self.variants):
            self.note(f"left out: {scenario}, {row}{text}")
        rounds = {v: made for v, made in rounds.items() if v not in failures}
        self.figures += figures_of(scenario, row, rounds)


def failure_texts(failures, variants):
    """For each reason, which variants failed, unless all did, and the reason."""
    for reason in dict.fromkeys(failures.values()):
        failed = [variant for variant in variants if failures.get(variant) == reason]
        if len(failed) < len(variants):
            yield f", {' and '.join(f'{v.peer} ({v.name})' for v in failed)}: {reason}"
        else:
            yield f": {reason}"


def figures_of(scenario, row, rounds):
    """The figures of a row, from {variant: [{measure: figure} of each round]}."""
    fixed = [v for v in rounds if v.peer == "fastloss" and not v.adapts]
    result = []
    for variant, made in rounds.items():
        for measure in dict.fromkeys(measure for figures in made for measure in figures):
            series = [figures[measure] for figures in made]
            figure = {
                "scenario": scenario,
                "row": row,
                "measure": measure,
                "peer": variant.peer,
                "variant": variant.name,
                "threads": variant.threads,
                "rounds": series,
                "median": median(series),
            }
            if variant.adapts and len(fixed) == 2:
                others = [[figures[measure] for figures in rounds[v]] for v in fixed]
                figure["to better"] = ratio(series, *others, is_rate=measure in RATES)
                figure["to one"] = ratio(series, others[0], is_rate=measure in RATES)
            result.append(figure)
    return result


def median(series):
    """The median, or None if a round has no figure."""
    return None if None in series else statistics.median(series)


def ratio(series, *others, is_rate):
    """The median over the rounds of the ratio to the better one of the others, or None."""
    better = max if is_rate else min
    rounds = list(zip(series, *others, strict=True))
    if any(None in made for made in rounds):
        return None
    return statistics.median(first / better(rest) for first, *rest in rounds)


def summary(times):
    return {"mean": statistics.fmean(times), "p99": float(np.percentile(times, 99))}


def calls_per_second(starts, seconds):
    """The rate of consecutive calls."""
    return len(starts) / (starts[-1] + seconds[-1] - starts[0])


def figure_text(figure, key="median"):
    if figure is None or figure.get(key) is None:
        return "-"
    if key != "median":
        return ratio_text(figure[key])
    value = figure["median"]
    if figure["measure"] in RATES:
        return f"{value:,.{0 if value >= 100 else 1}f}"
    return time_text(value).strip()


def table_lines(figures, variants):
    """The table of a scenario; a row has the figures of a measure."""
    measures = dict.fromkeys(f["measure"] for f in figures)
    heads = [next(iter(measures)) if len(measures) == 1 else ""]
    for variant in variants:
        heads += [variant.title, *(["to better", "to one"] if variant.adapts else [])]
    found = {(f["row"], f["measure"], f["peer"], f["variant"]): f for f in figures}
    rows = []
    for row, measure in dict.fromkeys((f["row"], f["measure"]) for f in figures):
        texts = [row if len(measures) == 1 else f"{row}: {measure}"]
        for variant in variants:
            figure = found.get((row, measure, variant.peer, variant.name))
            keys = ("median", "to better", "to one") if variant.adapts else ("median",)
            texts += [figure_text(figure, key) for key in keys]
        rows.append(texts)
    return table(heads, rows)


# ---- workers


class Workers:
    """The processes of the variants, which start when they are needed; a stack closes them."""

    def __init__(self, bench, stack, environment=None):
        self._bench, self._stack, self._environment = bench, stack, environment or {}
        self._peers = {}

    def peers(self, variant, count=1):
        peers = self._peers.setdefault(variant, [])
        while len(peers) < count:
            environment = variant.environment | self._environment
            isa = self._bench.options.isa
            peer = Peer(variant.peer, variant.threads, isa=isa, environment=environment)
            peers.append(self._stack.enter_context(peer))
        return peers[:count]

    def pid(self, variant):
        return self.peers(variant)[0].pid

    def ask(self, variant, seconds, method, *arguments):
        """The answer to a request that takes `seconds`."""
        return self.ask_all(variant, 1, seconds, method, *arguments)[0]

    def ask_all(self, variant, count, seconds, method, *arguments):
        """The answers of some workers of a variant that run at once."""
        self.send(variant, count, method, *arguments)
        return self.answers(variant, count, seconds)

    def send(self, variant, count, method, *arguments):
        for peer in self.peers(variant, count):
            peer.send(method, *arguments)

    def answers(self, variant, count, seconds):
        """A worker that does not answer in time is killed."""
        answers, errors = [], []
        for peer in self.peers(variant, count):  # every answer is read, also after an error
            try:
                answers.append(peer.answer(seconds + PATIENCE))
            except PeerError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return answers

    def prepare(self, variant, cell, count=1):
        self.ask_all(variant, count, 0, "prepare", cell)


# ---- scenarios


def count_text(count, one, more):
    return f"{count} {one if count == 1 else more}"


def processes(bench):
    with ExitStack() as stack:
        workers = Workers(bench, stack)
        for count in bench.options.processes:
            processes_row(bench, workers, count)


def processes_row(bench, workers, count):
    def prepare(variant):
        workers.prepare(variant, ENTROPY, count)

    def turn(variant):
        seconds = bench.options.seconds
        request = ("timed_calls", variant.product, *bench.duration(seconds))
        made = workers.ask_all(variant, count, seconds, *request)
        return {CALLS: sum(calls_per_second(*calls) for calls in made)}

    bench.measure("processes", count_text(count, "process", "processes"), turn, prepare)


def burners(bench, scenario="burners", cell=SQUARES):
    with ExitStack() as stack:
        workers = Workers(bench, stack)

        def prepare(variant):
            workers.prepare(variant, cell)

        def turn(variant):
            seconds = bench.options.seconds
            request = ("timed_calls", "value", *bench.duration(seconds))
            return summary(workers.ask(variant, seconds, *request)[1])

        for count in bench.options.burners:
            row = count_text(count, "burner", "burners")
            if bench.is_selected(scenario, row):
                with Burners(count):
                    bench.measure(scenario, row, turn, prepare)


def long_calls(bench):
    burners(bench, "long", LONG)


def after_pools(bench):
    for pool in pools.POOLS:
        with ExitStack() as stack:
            # The other libraries have their default numbers of threads.
            pools_row(bench, Workers(bench, stack, {"OMP_NUM_THREADS": None}), pool)


def pools_row(bench, workers, pool):
    def prepare(variant):
        if variant.peer == pool:
            raise PeerError("the loss and the operation are on the same threads")
        workers.ask(variant, 0, "start_pool", pool)
        workers.prepare(variant, ENTROPY)

    def turn(variant):
        seconds = bench.options.seconds
        request = ("timed_calls_after_pool", variant.product, *bench.duration(seconds))
        return {"mean": statistics.fmean(workers.ask(variant, seconds, *request)[1])}

    bench.measure("pools", pools.TITLES[pool], turn, prepare)


def bursts(bench):
    with ExitStack() as stack:
        workers = Workers(bench, stack)
        burner = stack.enter_context(Burners(1))
        burner.suspend()
        alone = {}  # by variant, the median of a call without the burner

        def prepare(variant):
            workers.prepare(variant, SQUARES)
            if not variant.adapts:
                seconds = bench.options.seconds
                request = ("timed_calls", "value", *bench.duration(seconds))
                alone[variant] = statistics.median(workers.ask(variant, seconds, *request)[1])

        def turn(variant):
            period, count = bench.options.burst, bench.options.bursts
            begin, end = bench.duration(2 * period * count)
            workers.send(variant, 1, "timed_calls", "value", begin, end)
            phases = []
            for k in range(count):
                sleep_until(begin + 2 * k * period)
                burner.resume()
                resumed = time.perf_counter()
                sleep_until(begin + (2 * k + 1) * period)
                burner.suspend()
                phases.append((resumed, time.perf_counter()))
            calls = workers.answers(variant, 1, 2 * period * count)[0]
            limit = recovery_limit(alone, variant)
            return burst_figures(*calls, phases, end, limit)

        row = f"every {bench.options.burst:g} s"
        bench.measure("bursts", row, turn, prepare)


def sleep_until(moment):
    time.sleep(max(0.0, moment - time.perf_counter()))


def recovery_limit(alone, variant):
    """The midpoint of the times on one and on several threads alone, or None."""
    times = {v.threads: s for v, s in alone.items() if v.peer == variant.peer}
    if variant.threads == 1 or times.keys() != {1, variant.threads}:
        return None
    one, several = times[1], times[variant.threads]
    return (one + several) / 2 if several < one else None


def burst_figures(starts, seconds, phases, end, limit):
    """The mean of a call during the bursts and between them, and the time to recover.

    `phases` has the moments at which the burner resumed and stopped. It takes calls the time to
    recover until the median of some consecutive ones is below the limit; if it never is before the
    next burst, all the time in between.
    """
    burst, between, recoveries = [], [], []
    nexts = [resumed for resumed, _ in phases[1:]] + [end]
    for (resumed, stopped), following in zip(phases, nexts, strict=True):
        first, middle, last = (bisect.bisect_left(starts, t) for t in (resumed, stopped, following))
        burst += seconds[first:middle]
        between += seconds[middle:last]
        fast = (
            starts[k] - stopped
            for k in range(middle, last - WINDOW + 1)
            if limit is not None and statistics.median(seconds[k : k + WINDOW]) < limit
        )
        recoveries.append(next(fast, following - stopped))
    return {
        "mean during bursts": statistics.fmean(burst) if burst else None,
        "mean between bursts": statistics.fmean(between) if between else None,
        RECOVERY: statistics.median(recoveries) if limit is not None else None,
    }


def quota(bench):
    row = f"{bench.options.quota:g} CPUs"
    if not bench.is_selected("quota", row):
        return
    with ExitStack() as stack:
        try:
            group = stack.enter_context(Quota(bench.options.quota))
        except OSError as error:
            bench.note(f"left out: quota, {row}: {error}")
            return
        workers = Workers(bench, stack)

        def prepare(variant):
            group.add(workers.pid(variant))
            workers.prepare(variant, ENTROPY)

        def turn(variant):
            seconds = bench.options.seconds
            request = ("timed_calls", variant.product, *bench.duration(seconds))
            return summary(workers.ask(variant, seconds, *request)[1])

        bench.measure("quota", row, turn, prepare)


def sporadic(bench):
    with ExitStack() as stack:
        workers = Workers(bench, stack)

        def prepare(variant):
            workers.prepare(variant, ENTROPY)

        def turn(variant):
            seconds, period = bench.options.seconds, bench.options.period / 1e3
            request = ("timed_calls", variant.product, *bench.duration(seconds), period)
            times = workers.ask(variant, seconds, *request)[1]
            return {"median": statistics.median(times)} | summary(times)

        for count, row in enumerate(("alone", "1 burner")):
            if bench.is_selected("sporadic", row):
                with Burners(count):
                    bench.measure("sporadic", row, turn, prepare)


def several_callers(bench):
    with tempfile.TemporaryDirectory() as folder:
        callers.write_files(folder, FILE_SHAPE)
        for way in callers.WAYS:
            with ExitStack() as stack:
                callers_row(bench, Workers(bench, stack), way, folder)


def callers_row(bench, workers, way, folder):
    count = bench.options.callers

    def prepare(variant):
        if way == "evaluate" and variant.peer != "fastloss":
            raise PeerError("it has no such function")
        if way == "fork":  # a team of the parent does not exist in the child
            workers.ask(variant, 0, "use_one_thread")
        workers.prepare(variant, ENTROPY)

    def turn(variant):
        seconds = bench.options.seconds
        request = ("time_callers", way, count, variant.product, bench.warm_up, seconds, folder)
        measure = EVALUATIONS if way == "evaluate" else CALLS
        return {measure: workers.ask(variant, seconds, *request)}

    bench.measure("callers", callers.TITLES[way].format(count), turn, prepare)


BOTH = "value and gradient"
SCENARIOS = {
    "processes": (processes, f"Workers that run at once, {ENTROPY.name}, {BOTH}; together"),
    "burners": (burners, f"Beside programs that burn a core, {SQUARES.name}, value"),
    "long": (long_calls, f"Beside programs that burn a core, {LONG.name}, value"),
    "pools": (after_pools, f"Right after another library, {ENTROPY.name}, {BOTH}"),
    "bursts": (bursts, f"Beside a program that comes and goes, {SQUARES.name}, value"),
    "quota": (quota, f"In a cgroup with a CPU quota, {ENTROPY.name}, {BOTH}"),
    "sporadic": (sporadic, f"Calls with pauses between them, {ENTROPY.name}, {BOTH}"),
    "callers": (several_callers, f"Callers in one process, {ENTROPY.name}, {BOTH}; together"),
}


def scenarios_of(text):
    names = text.split(",")
    for name in names:
        if name not in SCENARIOS:
            raise ValueError(name)
    return names


def options_of(argv):
    parser = cli.parser("benchmarks.neighbours", __doc__.partition("\n")[0], "rows of tables")
    add = parser.add_argument
    shown = "default: %(default)s"
    names = ",".join(SCENARIOS)
    add("--scenarios", type=scenarios_of, default=list(SCENARIOS), help=f"default: {names}")
    add("--peers", default="torch", help=shown)
    several = max(2, cli.allowed_processors())
    add("--threads", type=int, default=several, help=f"more than one; {shown}")
    add("--rounds", type=int, default=5, help=shown)
    add("--seconds", type=float, default=2.0, help=f"of a variant in a round; {shown}")
    add("--processes", type=int, nargs="+", default=[1, 2, 4], help="default: 1 2 4")
    add("--burners", type=int, nargs="+", default=[0, 1, 2, 4], help="default: 0 1 2 4")
    add("--burst", type=float, default=1.0, help=f"seconds of a burst and of a pause; {shown}")
    add("--bursts", type=int, default=3, help=f"in a round; {shown}")
    add("--quota", type=float, default=1.5, help=f"CPUs; {shown}")
    add("--period", type=float, default=20, help=f"milliseconds between sporadic calls; {shown}")
    add("--callers", type=int, default=8, help=shown)
    options = parser.parse_args(argv)
    if options.threads < 2:
        parser.error("--threads must be at least 2")
    if min(options.rounds, options.callers, options.bursts, *options.processes) < 1:
        parser.error("--rounds, --callers, --bursts and --processes must be at least 1")
    return options


def main(argv=None):
    options = options_of(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # ends the children too
    run = cli.run_info("neighbours", "benchmarks.neighbours", argv, isa=options.isa)
    run |= {"processors": os.cpu_count(), "allowed processors": cli.allowed_processors()}
    print(f"{run['processor']}, {run['processors']} CPUs, {run['allowed processors']} allowed")
    names = [name for name in options.peers.split(",") if name]
    with ExitStack() as stack:  # asks for the versions, and which of them are installed
        found = open_peers(stack, names, 1, isa=options.isa)
        run |= {"threads": options.threads, "versions": {n: p.version for n, p in found.items()}}
    bench = Bench(options, variants_of(list(found)[1:], options.threads))
    for name in options.scenarios:
        scenario, title = SCENARIOS[name]
        scenario(bench)
        figures = [figure for figure in bench.figures if figure["scenario"] == name]
        if figures:
            print(f"\n{title}:\n\n" + "\n".join(table_lines(figures, bench.variants)), flush=True)
    if options.json:
        cli.write_json(options.json, run | {"notes": bench.notes, "figures": bench.figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
