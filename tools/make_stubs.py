"""Writes losses.pyi and criteria.pyi in src/fastloss from the signatures of the losses.

    python -m tools.make_stubs

A loss is an object with methods, so a type checker needs a class for each. What a criterion returns
depends on the reduction that it is made with, so that type is a parameter of its class.
"""

import re
from pathlib import Path

from fastloss import criteria, losses
from fastloss._binding import Loss

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "fastloss"

HEADER = '''\
"""{summary}"""
# Written by tools/make_stubs.py: change that, not this.
# fmt: off

from typing import Any, {typing}TypeAlias, overload

from numpy.typing import ArrayLike, NDArray
{imports}
from fastloss._binding import Loss
{own}
__all__ = [
{names}
]

_Array: TypeAlias = NDArray[Any]
_Outs: TypeAlias = tuple[_Array | None, ...]
'''

# What is no loss.
FUNCTIONS = """\
def ctc_posteriors(
    log_probs: ArrayLike, targets: ArrayLike, input_lengths: ArrayLike, target_lengths: ArrayLike,
    *, blank: int = 0, batch_first: bool = False, out: _Array | None = None,
) -> _Array: ...
"""

SUMS = "tuple[float, float, int]"


def literal(names):
    return "Literal[" + ", ".join(f'"{name}"' for name in names) + "]"


def type_of(option):
    """The type of an option, by its default: None stands for an array."""
    return "ArrayLike | None" if option.default is None else type(option.default).__name__


def summary(loss):
    return f'    """{loss.__doc__.partition(chr(10))[0]}"""'


def reductions(loss):
    """Those that give a float, by the docstring."""
    names = re.search(r"^reduction : \{(.*)\}", loss.__doc__, re.MULTILINE)[1]
    return [name.strip(' "') for name in names.split(",") if "none" not in name]


def wrt(loss):
    """(parameter, result, its out) for a name and, where there are several, a tuple of names."""
    names = literal(loss.differentiable)
    single = len(loss.default_wrt) == 1
    yield f"wrt: {names}" + (f' = "{loss.default_wrt[0]}"' if single else ""), "_Array", "_Array"
    if len(loss.differentiable) > 1:
        default = "" if single else " = ..."
        yield f"wrt: tuple[{names}, ...]{default}", "tuple[_Array, ...]", "_Outs"


def parameters(options, names):
    """Options as parameters, the keyword-only ones after a star, with these values of reduction."""
    given, star = [], False
    for option in options:
        if option.kind is option.KEYWORD_ONLY and not star:
            given.append("*")
            star = True
        if option.name == "reduction":
            default = ' = "mean"' if "mean" in names else ""
            given.append(f"reduction: {literal(names)}{default}")
        elif option.default is option.empty:
            given.append(f"{option.name}: ArrayLike")
        else:
            given.append(f"{option.name}: {type_of(option)} = {option.default!r}")
    return given


def loss_methods(loss):
    """(name, parameters, result) of each overload."""
    options = [p for name, p in loss.__signature__.parameters.items() if name != "out"]
    single = parameters(options, reductions(loss))
    none = parameters(options, ["none"])
    every = parameters(options, [*reductions(loss), "none"])
    upstream = "grad_output: ArrayLike | None = None"
    yield "__call__", [*single, "out: None = None"], "float"
    yield "__call__", [*none, "out: _Array | None = None"], "_Array"
    for by, gradient, out in wrt(loss):
        yield "grad", [*every, by, upstream, f"out: {out} | None = None"], gradient
    for by, gradient, out in wrt(loss):
        out = f"out: {out} | None = None"
        yield "value_and_grad", [*single, by, upstream, out], f"tuple[float, {gradient}]"
    for by, gradient, out in wrt(loss):
        out = f"out: tuple[_Array | None, {out} | None] | None = None"
        yield "value_and_grad", [*none, by, upstream, out], f"tuple[_Array, {gradient}]"
    yield "sums", every, SUMS


def criterion_methods(loss):
    """The same where the options are bound."""
    call = [f"{name}: ArrayLike" for name in loss.operands]
    call += ["*", "sample_weight: ArrayLike | None = None"]
    upstream = "grad_output: ArrayLike | None = None"
    yield "__call__", [*call, "out: _Array | None = None"], "_V"
    for by, gradient, out in wrt(loss):
        yield "grad", [*call, by, upstream, f"out: {out} | None = None"], gradient
    for by, gradient, out in wrt(loss):
        out = f"out: {out} | tuple[_Array | None, {out} | None] | None = None"
        yield "value_and_grad", [*call, by, upstream, out], f"tuple[_V, {gradient}]"
    yield "sums", call, SUMS


def constructors(criterion):
    """An overload of __init__ for each type of value."""
    options = criterion.__signature__.parameters.values()
    for names, value in ((reductions(criterion.loss), "float"), (["none"], "_Array")):
        yield "__init__", parameters(options, names), "None", f"{criterion.__name__}[{value}]"


def definitions(methods):
    """Stub methods, as many parameters to a line as fit; a name that comes twice is overloaded."""
    methods = list(methods)
    names = [method[0] for method in methods]
    for name, given, result, *own_type in methods:
        if names.count(name) > 1:
            yield "    @overload"
        line = f"    def {name}(self" + "".join(f": {kind}" for kind in own_type)
        for parameter in given:
            if len(line) + len(parameter) > 97:
                yield line + ","
                line = " " * 8 + parameter
            else:
                line += f", {parameter}"
        end = f") -> {result}: ..."
        if len(line) + len(end) > 100:
            yield line
            line = " " * 4
        yield line + end


def losses_stub():
    lines = [
        HEADER.format(
            summary="The losses.",
            typing="Literal, ",
            imports="",
            own="",
            names="\n".join(f'    "{name}",' for name in sorted(losses.__all__)),
        )
    ]
    for name in losses.__all__:
        loss = getattr(losses, name)
        if not isinstance(loss, Loss):
            continue
        lines += [f"class _{name}(Loss):", summary(loss), *definitions(loss_methods(loss)), ""]
        lines += [f"{name}: _{name}", ""]
    return "\n".join([*lines, FUNCTIONS])


def criteria_stub():
    lines = [
        HEADER.format(
            summary="The criteria.",
            typing="ClassVar, Generic, Literal, ",
            imports="from typing_extensions import Self, TypeVar\n",
            own="from fastloss.evaluation.accumulators import Accumulator\n",
            names="\n".join(f'    "{name}",' for name in sorted(criteria.__all__)),
        ),
        '_V = TypeVar("_V", default=Any)  # a float, or an array with reduction="none"',
        "",
        "class Criterion(Generic[_V]):",
        '    """A loss with its options bound."""',
        "    loss: ClassVar[Loss]",
        "    def __call__(self, *arrays: Any, **kwargs: Any) -> _V: ...",
        "    def grad(self, *arrays: Any, **kwargs: Any) -> Any: ...",
        "    def value_and_grad(self, *arrays: Any, **kwargs: Any) -> tuple[_V, Any]: ...",
        f"    def sums(self, *arrays: Any, **kwargs: Any) -> {SUMS}: ...",
        "    def get_params(self, deep: bool = True) -> dict[str, Any]: ...",
        "    def set_params(self, **options: Any) -> Self: ...",
        "    def accumulator(",
        '        self, *, by: Literal["class", "group"] | None = None',
        "    ) -> Accumulator: ...",
        "",
    ]
    bases = {}  # criteria of losses with the same arrays share their methods
    for name in criteria.__all__:
        criterion = getattr(criteria, name)
        if criterion is criteria.Criterion:
            continue
        loss = criterion.loss
        arrays = (loss.operands, loss.differentiable, loss.default_wrt)
        if arrays not in bases:
            bases[arrays] = f"_Criterion{len(bases) + 1}"
            lines += [f"class {bases[arrays]}(Criterion[_V]):"]
            lines += [*definitions(criterion_methods(loss)), ""]
        lines += [f"class {name}({bases[arrays]}[_V]):", summary(loss)]
        for option in criterion.__signature__.parameters.values():
            every = literal([*reductions(loss), "none"])
            kind = every if option.name == "reduction" else type_of(option)
            lines.append(f"    {option.name}: {kind}")
        lines += [*definitions(constructors(criterion)), ""]
    return "\n".join(lines)


STUBS = {"losses.pyi": losses_stub, "criteria.pyi": criteria_stub}

if __name__ == "__main__":
    for name, stub in STUBS.items():
        (PACKAGE / name).write_text(stub(), encoding="utf-8")
