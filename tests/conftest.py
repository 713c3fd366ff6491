"""The quick and the complete selection of tests, and the fixtures of instruction sets.

By default a quick selection runs; `--complete`, or naming a test by ::, runs everything. The quick
selection leaves out the tests marked `complete_only`. A test with the fixture `isa` runs on one
instruction set for each combination of its other parameters, and the parameters named by the marker
`rotate` likewise take one value. A checksum of the combination chooses it, so that the choices vary
but are the same in each run. tests/table_coverage.py checks what a run executed.
"""

import os
import signal
import zlib

import pytest

import fastloss as fl
from tests import table_coverage

pytest.register_assert_rewrite("tests.bitwise")

# A shell starts background jobs with SIGINT ignored, which child processes would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--complete", action="store_true", help="run the complete suite, not a part")


def pytest_configure(config):
    config.addinivalue_line("markers", "complete_only: runs with --complete only")
    config.addinivalue_line(
        "markers", "rotate(*names): by default, one value of these parameters for each of others"
    )
    config.pluginmanager.register(table_coverage)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Runs the whole suite on all processors, if pytest-xdist is there and no -n is given."""
    option = config.option
    if (
        getattr(option, "numprocesses", 0) is None
        and not hasattr(config, "workerinput")  # workers do not start workers
        and not (option.usepdb or option.trace)
        and table_coverage.is_whole_suite(config)
    ):
        available = getattr(os, "sched_getaffinity", None)
        option.numprocesses = len(available(0)) if available else os.cpu_count()
        option.dist = "worksteal"


@pytest.hookimpl(trylast=True)  # after -k and -m
def pytest_collection_modifyitems(config, items):
    """Deselects the tests that the quick selection leaves out, unless tests are named by ::."""
    if config.option.complete or any("::" in arg for arg in config.args):
        return
    selected = quick_selection(items)
    deselected = [item for item in items if item not in selected]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item in selected]


def quick_selection(items):
    """The set of tests that run by default."""
    groups, numbers = {}, {}
    for item in items:
        if not item.get_closest_marker("complete_only"):
            groups.setdefault(_without_rotated(item, numbers), []).append(item)
    return {group[_checksum(key) % len(group)] for key, group in groups.items()}


def _without_rotated(item, numbers):
    """The name of a test and the values of its parameters that are not rotated.

    A value is a number, in the order in which the values of the parameter appear; `numbers` has
    these of each test.
    """
    name = item.nodeid.split("[")[0]
    rotated = {"isa"}.union(*(marker.args for marker in item.iter_markers("rotate")))
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    values = []
    for parameter in parameters.keys() - rotated:
        known = numbers.setdefault((name, parameter), {})
        values.append((parameter, known.setdefault(id(parameters[parameter]), len(known))))
    return (name, *sorted(values))


def _checksum(key):
    return zlib.crc32(repr(key).encode())


@pytest.fixture
def complete(request):
    """Whether the complete suite runs, which takes more draws."""
    return request.config.option.complete


@pytest.fixture(params=table_coverage.ISAS)
def isa(request):
    """Runs the test on each instruction set."""
    before = fl._binding.isa()
    fl._binding.select_isa(request.param)
    yield request.param
    fl._binding.select_isa(before)


@pytest.fixture
def each_isa():
    """A generator that selects each instruction set within a test, which shares its references."""
    before = fl._binding.isa()

    def select_each():
        for name in table_coverage.ISAS:
            fl._binding.select_isa(name)
            yield name

    yield select_each
    fl._binding.select_isa(before)
