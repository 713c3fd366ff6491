"""The controller of team sizes on simulated machines: no test waits, and none measures time."""

import itertools
import math
import random

import pytest

from fastloss import _binding

LATE = 4e-3  # seconds until the scheduler lets a worker run beside another program
GRAINS = 8


class Machine:
    """Runs regions: how long each takes follows from the team, the work and the neighbours.

    `busy` is the number of processors on which other programs run. A team that needs one of them
    waits, in the fraction `delayed` of its regions, until the worker there gets its turn.
    """

    def __init__(self, processors, busy=0, delayed=1.0, creation=0.0, seed=0):
        self.processors, self.busy, self.delayed = processors, busy, delayed
        self.creation, self.created = creation, 1  # seconds per new thread; the last team
        self.random = random.Random(seed)
        self.control = _binding.TeamControl()
        self.time = 0.0
        self.idle_since = 0.0

    def neighbours(self, busy):
        self.busy = busy
        self.idle_since = self.time

    def duration(self, threads, work):
        late = threads > self.processors - self.busy and threads > 1
        wait = LATE if late and self.random.random() < self.delayed else 0
        return work / threads, wait

    def run(self, work, allowed=None, hints=False):
        """One region of `work` seconds on one thread; returns the number of its threads."""
        allowed = allowed or self.processors
        idle = self.time - self.idle_since if hints and not self.busy else 0
        threads = self.control.size(allowed, idle)
        assert 1 <= threads <= allowed
        share, wait = self.duration(threads, work * self.random.uniform(1, 1.05))
        if threads > 1:
            wait += 2e-6 + self.creation * max(0, threads - self.created)
            self.created = threads
        total = share + wait
        self.time += total
        blocks = threads * GRAINS
        self.control.observe(threads, allowed, blocks, GRAINS, 1, share / GRAINS, share, total)
        return threads

    def run_for(self, seconds, work, **options):
        """The threads of each region, and the seconds that they took."""
        begin, threads = self.time, []
        while self.time - begin < seconds:
            threads.append(self.run(work, **options))
        return threads, self.time - begin


@pytest.mark.parametrize("work", [1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("processors", [2, 3, 8, 64])
def test_quiet_machine_uses_all_threads(processors, work):
    threads, _ = Machine(processors).run_for(1, work * processors)
    assert set(threads) == {processors}


@pytest.mark.parametrize("work", [2e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("delayed", [1, 0.1])
def test_late_workers_cost_little(work, delayed):
    threads, seconds = Machine(2, busy=1, delayed=delayed).run_for(10, work)
    assert seconds < 1.1 * 1.025 * work * len(threads)
    if delayed * LATE > work:
        assert threads.count(1) > 0.95 * len(threads)


def test_rare_late_workers_are_worth_their_gain():
    # A region gains 5 ms on two threads, and one in ten waits for 4.
    threads, _ = Machine(2, busy=1, delayed=0.1).run_for(10, 1e-2)
    assert threads.count(2) > 0.95 * len(threads)


def test_long_regions_outweigh_the_wait():
    threads, _ = Machine(2, busy=1).run_for(10, 0.1)
    assert threads.count(2) > 0.95 * len(threads)


def test_probes_become_rare():
    machine = Machine(2, busy=1)
    first, _ = machine.run_for(1, 1e-4)
    machine.run_for(3, 1e-4)
    later, seconds = machine.run_for(20, 1e-4)
    assert first.count(2) <= 5
    assert 0.5 * seconds <= later.count(2) <= 1.1 * seconds  # one in each second of computing


def test_threads_return_at_once_when_processors_are_idle():
    machine = Machine(2)
    for _ in range(5):
        machine.neighbours(1)
        machine.run_for(1, 1e-4, hints=True)
        machine.neighbours(0)
        begin = machine.time
        while machine.run(1e-4, hints=True) == 1:
            assert machine.time - begin < 0.05
        threads, _ = machine.run_for(0.5, 1e-4, hints=True)
        assert set(threads) == {2}


def test_threads_return_without_knowledge_of_idle_processors():
    machine = Machine(2, busy=1)
    machine.run_for(20, 1e-4)
    machine.neighbours(0)
    threads, _ = machine.run_for(1.1, 1e-4)
    assert threads[-1] == 2
    threads, _ = machine.run_for(5, 1e-4)
    assert set(threads) == {2}


def test_wrong_hints_are_soon_ignored():
    machine = Machine(2, busy=1)
    begin, probes = 0, []
    while machine.time < 20:
        threads = machine.control.size(2, machine.time - begin)
        if threads == 2:
            begin = machine.time
            probes.append(begin)
        share, wait = machine.duration(threads, 1e-4)
        machine.time += share + wait
        machine.control.observe(threads, 2, 16, 8, 1, share / 8, share, share + wait)
    assert sum(time > 10 for time in probes) <= 22  # by hint and by patience, each once a second


def test_caller_without_its_processor_is_no_fault_of_the_team():
    # The caller loses its processor for 4 ms in one region of 40, on one thread and on two.
    control, choice = _binding.TeamControl(), []
    for i in range(20_000):
        threads = control.size(2)
        work, pause = 1e-4, LATE if i % 40 == 0 else 0
        share = work / threads
        first = share / 8 + (pause if i % 80 == 0 else 0)
        caller = share + pause
        control.observe(threads, 2, 8 * threads, 8, 1, first, caller, caller + 1e-6)
        choice.append(threads)
    assert choice[-10_000:].count(2) > 8_000


def test_caller_that_the_team_costs_its_processor():
    # On two threads the caller loses its processor for 4 ms in one region of 10, on one never.
    control, choice = _binding.TeamControl(), []
    for i in range(20_000):
        threads = control.size(2)
        share = 1e-4 / threads
        caller = share + (LATE if threads == 2 and i % 10 == 0 else 0)
        control.observe(threads, 2, 8 * threads, 8, 1, share / 8, caller, caller + 1e-6)
        choice.append(threads)
    assert choice[-10_000:].count(1) > 9_500


def test_gain_must_be_clear():
    # The estimate on one thread is too long if two threads slow each other down.
    control, choice = _binding.TeamControl(), []
    for _ in range(20_000):
        threads = control.size(2)
        share = 1e-4 / threads
        total = 0.9e-4 if threads == 2 else share
        control.observe(threads, 2, 8 * threads, 8, 1, share / 8, share, total)
        choice.append(threads)
    assert choice[-10_000:].count(1) > 9_500


def test_success_makes_patience_shorter():
    machine = Machine(2, busy=1)
    machine.run_for(20, 1e-4)
    assert machine.control.state()["patience"] == 1
    machine.neighbours(0)
    machine.run_for(2, 1e-4)
    machine.neighbours(1)
    machine.run_for(0.1, 1e-4)
    assert machine.control.state()["patience"] == 0.25


def test_success_restores_the_trust_in_hints():
    machine = Machine(2, busy=1)
    while machine.control.state()["idle_wait"] < 1:
        threads = machine.control.size(2, 10)
        share, wait = machine.duration(threads, 1e-4)
        machine.control.observe(threads, 2, 16, 8, 1, share / 8, share, share + wait)
    machine.neighbours(0)
    machine.run_for(2, 1e-4)
    machine.neighbours(1)
    machine.run_for(0.2, 1e-4)
    assert machine.control.state()["idle_wait"] == 0.02


def test_larger_calls_rise_from_the_size_of_smaller_ones():
    machine = Machine(8, busy=7)
    machine.run_for(1, 1e-4, allowed=2)
    machine.neighbours(0)
    threads, _ = machine.run_for(1.1, 1e-4, allowed=2)
    assert threads[0] == 1
    assert threads[-1] == 2
    threads, _ = machine.run_for(0.1, 1e-3)
    assert [n for n, _ in itertools.groupby(threads)] == [4, 8]


def test_larger_teams_shrink_only_as_far_as_needed():
    machine = Machine(16, busy=4)
    threads, _ = machine.run_for(20, 1e-3)
    assert threads[len(threads) // 2 :].count(8) > 0.9 * (len(threads) // 2)
    machine.neighbours(0)
    threads, _ = machine.run_for(2, 1e-3)
    assert set(threads[-100:]) == {16}


def test_a_few_threads_return_to_many_step_by_step():
    machine = Machine(64, busy=63)
    machine.run_for(5, 1e-3)
    assert machine.run(1e-3) == 1
    machine.neighbours(0)
    threads, _ = machine.run_for(1.5, 1e-3)
    assert threads[-1] == 64
    assert [n for n, _ in itertools.groupby(threads)] == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize("work", [0.05, 0.12, 0.2, 0.5, 2])
def test_long_regions_return_to_all_threads(work):
    # A region counts at most 50 ms, in time and in work alike.
    machine = Machine(2, busy=1)
    late = 2 * work
    for _ in range(200):
        threads = machine.control.size(2)
        share, wait = work / threads, late * (threads == 2)
        machine.control.observe(threads, 2, 16, 16 // threads, 1, work / 16, share, share + wait)
    assert threads == 1
    machine.neighbours(0)
    threads, _ = machine.run_for(120 * work, work)
    assert threads[-20:] == [2] * 20


def test_measured_slowdown_fades():
    # One thread was slow beside a neighbour of its own processor. Long after, workers are late.
    control = _binding.TeamControl()
    control.observe(2, 2, *USUAL)
    for i in range(20_000):
        if control.size(2) == 2:
            control.observe(2, 2, *USUAL)
        else:
            pause = LATE if i % 40 == 0 else 0
            control.observe(1, 2, 16, 16, 2, 1.25e-5, 1e-4 + pause, 1e-4 + pause)
    assert control.state()["measured_total"] > 1.8 * control.state()["measured_work"]
    for _ in range(200_000):
        control.observe(control.size(2, 1), 2, 16, 8, 1, 6.25e-6, 5e-5, 5e-5)
    assert control.size(2) == 2
    choice = []
    for _ in range(20_000):
        threads = control.size(2)
        share = 1e-4 / threads
        total = share + (1e-4 if threads == 2 else 0)
        control.observe(threads, 2, 16, 16 // threads, 1, 6.25e-6, share, total)
        choice.append(threads)
    assert choice[-10_000:].count(1) > 9_000


@pytest.mark.parametrize("processors", [2, 4, 8, 64])
def test_creation_of_threads_is_forgiven(processors):
    machine = Machine(processors, busy=processors - 1, creation=2e-5)
    machine.run_for(5, 1e-3)
    assert machine.run(1e-3) == 1
    machine.neighbours(0)
    threads, _ = machine.run_for(3, 1e-3)
    assert threads[-100:] == [processors] * 100


def test_uneven_blocks_and_few_of_them():
    # The caller's first block takes from half to twice the time of the others.
    draw = random.Random(0)
    control, choice = _binding.TeamControl(), []
    for _ in range(20_000):
        threads = control.size(4)
        blocks = [1e-5 * draw.uniform(0.5, 2) for _ in range(8)]
        mine = blocks[: 8 // threads]
        total = max(sum(blocks) / threads, sum(mine)) + 2e-6
        control.observe(threads, 4, 8, len(mine), 1, mine[0], sum(mine), total)
        choice.append(threads)
    assert choice.count(4) > 0.9 * len(choice)


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        (b"13673.96 3273.07\n", 3273.07),
        (b"0.01 0.00", 0),
        (b"5.00 1234567890.99 7", 1234567890.99),
        (b"", -1),
        (b"13673.96", -1),
        (b"13673.96 ", -1),
        (b"13673,96 3273,07", -1),
        (b"13673 3273", -1),
        (b"-1.00 2.00", -1),
        (b"nan nan", -1),
        (b" 1.00 2.00", -1),
    ],
)
def test_idle_time_of_the_kernel(text, idle):
    assert _binding.parse_idle(text) == pytest.approx(idle, rel=1e-15)


def test_new_team_may_need_time():
    control = _binding.TeamControl()
    assert control.size(2) == 2
    control.observe(2, 2, 16, 16, 1, 1e-5, 1.6e-4, 1.2e-3)  # the threads were created
    assert control.size(2) == 2


def test_suspended_machine_is_forgotten():
    machine = Machine(2)
    machine.run_for(0.1, 1e-4)
    machine.control.observe(2, 2, 16, 8, 1, 1e-5, 8e-5, 3600.0)
    threads, _ = machine.run_for(1, 1e-4)
    assert threads[-1] == 2
    assert threads.count(1) * 1e-4 < 0.9


def test_suspended_machine_is_no_reason_for_a_probe():
    machine = Machine(2, busy=1)
    machine.run_for(20, 1e-4)
    while machine.control.state()["computed"] > 0.5:
        machine.run(1e-4)
    assert machine.control.size(2) == 1
    machine.control.observe(1, 2, 16, 16, 1, 1e-5, 1.6e-4, 3600.0)
    assert machine.control.size(2) == 1


USUAL = (16, 8, 1, 1e-5, 8e-5, 1e-2)  # blocks, of the caller, in its first grain; seconds


@pytest.mark.parametrize(
    "region",
    [
        (16, 0, 0, 1e-9, 1e-9, 1e-2),  # the workers left no block to the caller
        (16, 8, 9, 1e-5, 8e-5, 1e-2),
        (16, 17, 1, 1e-5, 8e-5, 1e-2),
        (16, 8, 1, 0.0, 8e-5, 1e-2),
        (16, 8, 1, 9e-5, 8e-5, 1e-2),
        (16, 8, 1, 1e-5, 8e-5, 7e-5),
        (16, 8, 1, 1e-5, 8e-5, math.inf),
        (16, 8, 1, 1e-5, 8e-5, math.nan),
        (16, 8, 1, math.nan, 8e-5, 1e-2),
        (16, 8, 1, 1e-5, math.inf, math.inf),
    ],
)
def test_impossible_regions_are_ignored(region):
    control = _binding.TeamControl()
    before = control.state()
    control.observe(2, 2, *region)
    assert control.state() == before
    control.observe(2, 2, *USUAL)
    assert control.state() != before


def test_work_is_bounded_by_the_time_of_all_threads():
    control = _binding.TeamControl()
    control.observe(2, 2, *USUAL)
    control.observe(1, 2, 2**62, 1, 1, 1e300, 1e300, 1e300)
    assert all(math.isfinite(value) for value in control.state().values())


def test_region_of_another_size_is_ignored():
    # It began before another thread's region changed the size.
    control = _binding.TeamControl()
    control.observe(2, 2, *USUAL)
    assert control.size(2) == 1
    before = control.state()
    control.observe(2, 2, *USUAL)
    assert control.state() == before
    control.observe(1, 2, *USUAL)
    assert control.state() != before


STRANGE = [0.0, -0.0, 1e-9, 1e-4, 1.0, -1.0, 1e300, -1e300, math.inf, -math.inf, math.nan, 5e-324]
COUNTS = [0, 1, -1, 2, 8, 2**62, -(2**62)]


def test_impossible_histories():
    draw = random.Random(0)
    control = _binding.TeamControl()
    for _ in range(200_000):
        allowed = draw.choice([1, 2, 3, 64, 1024])
        threads = control.size(allowed, draw.choice(STRANGE))
        assert 1 <= threads <= allowed
        if draw.random() < 0.2:
            threads = draw.choice([1, 2, 3, 64, 1024])
        counts = [draw.choice(COUNTS) for _ in range(3)]
        control.observe(threads, allowed, *counts, *(draw.choice(STRANGE) for _ in range(3)))
        state = control.state()
        assert all(math.isfinite(value) for value in state.values()), state
        assert 0 <= state["size"] <= 1024
        assert state["measured_work"] >= 0
        assert 0 < state["patience"] <= 1
        assert 0 < state["idle_wait"] <= 1
    # It still learns: that a quiet machine is quiet, within a second of computing.
    machine = Machine(2)
    machine.control = control
    threads, _ = machine.run_for(1.5, 1e-4)
    assert threads[-1] == 2


def test_clock_that_jumps():
    draw = random.Random(0)
    machine = Machine(2)
    for _ in range(20_000):
        machine.run(1e-4)
        if draw.random() < 0.01:
            total = draw.choice([-1.0, 0.0, 1e6, math.nan])
            machine.control.observe(2, 2, 16, 8, 1, total / 8, total, total)
    threads, _ = machine.run_for(0.5, 1e-4)
    assert set(threads) == {2}


def test_history_is_a_pure_function():
    def history():
        machine = Machine(2, busy=1, delayed=0.5, seed=7)
        return machine.run_for(2, 1e-4), machine.control.state()

    assert history() == history()
