"""The fixtures of instruction sets."""

import signal

import pytest

import fastloss as fl

pytest.register_assert_rewrite("tests.bitwise")

# A shell's background job ignores Ctrl-C, and so would the processes that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=fl._binding.isas())
def isa(request):
    """Runs the test on each instruction set."""
    before = fl._binding.isa()
    fl._binding.select_isa(request.param)
    yield request.param
    fl._binding.select_isa(before)


@pytest.fixture
def each_isa():
    """Goes through the instruction sets within a test, so that they share a reference."""
    before = fl._binding.isa()

    def each():
        for name in fl._binding.isas():
            fl._binding.select_isa(name)
            yield name

    yield each
    fl._binding.select_isa(before)
