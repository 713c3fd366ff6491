"""Allocations that fail, leaks, and memory that is freed too early: laws of
tests/allocation_laws.py, each in a process with an allocator that counts and fails.

These take one case of each loss; `python -m tests.allocation_laws LAW --complete` takes all, on
more numbers of threads."""

import pytest

from tests.preloaded import glibc, run_module

pytestmark = [glibc, pytest.mark.filterwarnings("ignore")]


def check(law):
    run_module("tests.allocation_laws", law, preload="allocations")


@pytest.mark.complete_only
def test_any_allocation_of_a_kernel_or_a_thread_may_fail():
    """The call is right or raises MemoryError, changes no argument and no accumulator, and leaks
    nothing; the next call is right."""
    check("native")


@pytest.mark.complete_only
def test_any_allocation_of_the_interpreter_may_fail():
    check("interpreter")


@pytest.mark.complete_only
def test_calls_leak_neither_memory_nor_references():
    """Good, bad and interrupted ones."""
    check("leaks")


def test_no_call_reads_memory_that_is_not_its_own():
    """Whatever a call converts lives until its end, and no result depends on what new or freed
    memory holds."""
    check("freed")
