"""Requirements on what a run of the whole suite executes, and the plugin that checks them.

For each loss, all combinations of a row of losses.def, a product (the value, the gradient by each
argument, both at once, the sums), a dtype, a reduction and an instruction set are required, and
each option; for the package, each function of `fastloss._errors` that makes an exception. All this
follows from `operand_specs` and `__signature__`: a new row or option is required from the start.

A `Recorded` loss records the calls that succeed; the methods of `DrawnCase` call one. As a plugin
of pytest, loaded by conftest.py, the module fails a run of the whole suite, quick or complete, that
passed without executing all of this, and lists the gaps. Runs of a part are not checked.
"""

import functools
import inspect
import os
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl
from fastloss import _errors, losses
from fastloss._binding import Loss

DTYPES = ("float32", "float64", "float16", "bfloat16")
# The instruction sets that tests run on: all of this processor, or the one of the environment.
ISAS = [fl._binding.isa()] if "FASTLOSS_ISA" in os.environ else fl._binding.isas()

executed = set()  # tuples of str and None


# ---- Recording -----------------------------------------------------------------------------------


class Recorded:
    """A loss that records its calls, with arrays by position and all else by keyword."""

    def __init__(self, loss):
        self._loss = loss

    def __getattr__(self, name):
        return getattr(self._loss, name)

    def __call__(self, *arrays, **keywords):
        value = self._loss(*arrays, **keywords)
        self._record("value", arrays, keywords)
        return value

    def grad(self, *arrays, **keywords):
        gradients = self._loss.grad(*arrays, **keywords)
        wrt = keywords.get("wrt", self._loss.default_wrt)
        for name in (wrt,) if isinstance(wrt, str) else wrt:
            self._record(f"gradient by {name}", arrays, keywords)
        return gradients

    def value_and_grad(self, *arrays, **keywords):
        results = self._loss.value_and_grad(*arrays, **keywords)
        self._record("value and gradient", arrays, keywords)
        return results

    def sums(self, *arrays, **keywords):
        sums = self._loss.sums(*arrays, **keywords)
        self._record("sums", arrays, keywords)
        return sums

    def _record(self, product, arrays, keywords):
        dtypes = [a.dtype for a in map(np.asarray, arrays)]
        floating = {dtype.name for dtype in dtypes if dtype.kind not in "iub"}
        if len(floating) > 1:
            return
        loss = self._loss
        probabilities = takes_probabilities(loss) and dtypes[1].kind not in "iu"
        formula = loss.formula_of(probabilities=probabilities, **keywords)
        reduction = None
        if product != "sums":
            reduction = keywords.get("reduction", "sum" if is_private(loss) else "mean")
        executed.add((formula, product, *floating, reduction, fl._binding.isa()))
        for name, default in options(loss).items():
            value = keywords.get(name, default)
            if isinstance(default, bool):
                executed.add((loss.__name__, f"{name}={value}"))
            elif value is not default and not (np.isscalar(value) and value == default):
                executed.add((loss.__name__, name))


def start_recording():
    """Records the calls of the functions in `fastloss._errors`, and of private losses."""
    for name in error_functions():
        setattr(_errors, name, _recorded_function(getattr(_errors, name)))
    for loss in all_losses():
        if is_private(loss):
            setattr(losses, loss.__name__, Recorded(loss))


def _recorded_function(function):
    @functools.wraps(function)
    def recorded(*args, **kwargs):
        executed.add(("error", function.__name__))
        return function(*args, **kwargs)

    return recorded


# ---- Requirements --------------------------------------------------------------------------------


def required():
    """All that a run of the whole suite must execute."""
    return {
        *(execution for loss in all_losses() for execution in executions(loss)),
        *(option for loss in all_losses() for option in required_options(loss)),
        *(("error", name) for name in error_functions()),
    }


def all_losses():
    return [value for value in vars(losses).values() if isinstance(value, (Loss, Recorded))]


def is_private(loss):
    """Whether the loss serves a public function as the gradient of its sum."""
    return loss.__name__.startswith("_")


@functools.cache
def takes_probabilities(loss):
    return any(formula.endswith("_probabilities") for formula in loss.operand_specs)


@functools.cache
def options(loss):
    """The options of all methods, except `reduction`, with their defaults."""
    parameters = inspect.signature(loss).parameters.values()
    names = {p.name: p.default for p in parameters if p.name not in (*loss.operands, "reduction")}
    return {**names, "wrt": None, "grad_output": None}


def required_options(loss):
    """Each value of a boolean option, and one value other than the default of each other one."""
    if is_private(loss):
        return
    for name, default in options(loss).items():
        values = [f"{name}={value}" for value in (False, True)]
        yield from ((loss.__name__, v) for v in (values if isinstance(default, bool) else [name]))


def executions(loss):
    """(row of losses.def, product, dtype, reduction, instruction set) of each kernel."""
    reductions = ["sum"] if is_private(loss) else ["mean", "sum", "none"]
    if loss.__name__ == "kl_div":
        reductions.append("batchmean")
    for formula, specs in loss.operand_specs.items():
        products = [
            f"gradient by {name}"
            for name, _, domain in specs
            if name in loss.differentiable and domain not in ("index", "labels")
        ]
        if not is_private(loss):
            products += ["value", "value and gradient", "sums"]
        for product in products:
            for reduction in [None] if product == "sums" else reductions:
                for isa in ISAS:
                    yield from ((formula, product, dtype, reduction, isa) for dtype in DTYPES)


def describe(requirement):
    return " ".join(word for word in requirement if word is not None)


def error_functions():
    """The names of the functions of `fastloss._errors` that make an exception of some loss."""
    functions = inspect.getmembers(_errors, inspect.isfunction)
    names = [name for name, _ in functions if not name.startswith("_")]
    if any("input_lengths" in loss.operands for loss in all_losses()):
        return names
    return [name for name in names if not name.startswith("bad_sequence_")]


# ---- The plugin ----------------------------------------------------------------------------------

GAPS = pytest.StashKey()


def pytest_configure(config):
    start_recording()


def is_whole_suite(config):
    """Whether all tests run, or of each the part that conftest.py selects by default."""
    tests = {config.rootpath / path for path in config.getini("testpaths")}
    selected = {config.invocation_params.dir / Path(arg) for arg in config.args}
    option = config.option
    return selected == tests and not (
        option.collectonly
        or option.keyword
        or option.markexpr
        or option.deselect
        or option.ignore
        or option.ignore_glob
        or getattr(option, "lf", False)
        or getattr(option, "stepwise", False)
    )


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Adds what a worker of pytest-xdist executed."""
    executed.update(map(tuple, getattr(node, "workeroutput", {}).get("executed", ())))


def pytest_sessionfinish(session, exitstatus):
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["executed"] = list(executed)
    elif exitstatus == pytest.ExitCode.OK and is_whole_suite(config):
        config.stash[GAPS] = sorted(required() - executed, key=repr)
        if config.stash[GAPS]:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    gaps = config.stash.get(GAPS, [])
    if gaps:
        terminalreporter.section(f"{len(gaps)} gaps: no test executed", red=True)
        for gap in gaps:
            terminalreporter.line(describe(gap))
