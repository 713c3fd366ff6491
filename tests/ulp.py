"""`python -m tests.ulp`: the largest error of each loss, in ULP of the largest term of its formula.

Prints a line for each choice of options (from the cases, and each numeric option over its whole
range), dtype and result: the errors of fastloss and, if it is installed, of torch on the
adversarial operands of the tests. `bound` is the largest error of fastloss as a fraction of the
promised bound. Terms that overflow are left out of the ULP, but not of the bound, and `inf` marks
an infinity or NaN where the result is finite, or the reverse.

`--json FILE` also writes the largest figures of each loss, from which `tools.generate_docs` makes
the table of docs/numerics.md; losses that were not measured keep their figures in the file.
"""

import argparse
import json
import math
import re
from pathlib import Path

import numpy as np
from mpmath import mp, mpf

import fastloss as fl
from tests import references
from tests.cases import CASES, FLOATS, LOSSES, OPTION_CASES

CONFIDENT = ("cross_entropy", "binary_cross_entropy_with_logits", "soft_margin_loss")


def main(arguments=None):
    """Measures, prints the table, and writes the file."""
    parser = argparse.ArgumentParser(prog="python -m tests.ulp", description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=1000, help="losses per case (1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loss", action="append", choices=LOSSES, help="only this loss")
    parser.add_argument("--isa", choices=[*fl._binding.isas(), "all"], help="instruction set")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the largest figures there")
    chosen = parser.parse_args(arguments)
    isas = [chosen.isa or fl._binding.isa()] if chosen.isa != "all" else fl._binding.isas()
    torch = None if chosen.no_torch else _torch()

    head = f"{'loss':<55} {'dtype':<8} {'isa':<9} {'result':<9}"
    print(f"{head} {'fastloss':>9} {'torch':>9} {'bound':>6}")
    largest = {}
    before = fl._binding.isa()
    try:
        for title, case, dtype, arrays, keywords in _calls(chosen):
            exact = references.reduced(case.loss, arrays, keywords | {"reduction": "none"})
            theirs = _run_torch(torch, case, arrays, keywords) if torch else {}
            for isa in isas:
                fl._binding.select_isa(isa)
                for name, got in _run(case, arrays, keywords).items():
                    number = exact[0] if name == "value" else exact[1][name]
                    figures = {
                        "bound": references.excess(got, number, dtype).max(initial=0),
                        dtype.__name__: _ulps(got, number, dtype),
                    }
                    if name in theirs:
                        figures[f"torch {dtype.__name__}"] = _ulps(theirs[name], number, dtype)
                    _print_line(f"{title:<55} {dtype.__name__:<8} {isa:<9} {name:<9}", figures)
                    row = largest.setdefault(case.loss, {})
                    for key, figure in figures.items():
                        row[key] = max(row.get(key, 0.0), float(figure))
    finally:
        fl._binding.select_isa(before)
    bounds = [row["bound"] for row in largest.values()]
    print(f"largest error as a fraction of the promised bound: {max(bounds, default=0):.2f}")
    if chosen.json:
        write_json(chosen.json, chosen.size, isas, largest)


def _print_line(head, figures):
    ours, theirs = (
        next((f for key, f in figures.items() if key.startswith(start)), None)
        for start in ("float", "torch")
    )
    theirs = "-" if theirs is None else f"{theirs:.3g}"
    print(f"{head} {ours:>9.3g} {theirs:>9} {figures['bound']:>6.2f}", flush=True)


def write_json(path, size, isas, largest):
    """Merges the figures into a file; infinities are written as null."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"losses": {}}
    losses = content["losses"] | {
        loss: {key: None if math.isinf(v) else float(f"{v:.4g}") for key, v in row.items()}
        for loss, row in largest.items()
    }
    content = {
        "command": f"python -m tests.ulp --size {size} --json docs/{path.name}",
        "machine": f"{_processor()} with {', '.join(isas)}",
        "losses": {loss: losses[loss] for loss in LOSSES if loss in losses},
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _processor():
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "unknown processor"
    names = re.findall(r"^model name\s*: (.*)", text, re.M)
    return names[0] if names else "unknown processor"


def _calls(chosen):
    """(title, case, dtype, arrays, keywords) of every case, and of confident predictions."""
    for case in [*CASES, *OPTION_CASES]:
        if chosen.loss and case.loss not in chosen.loss:
            continue
        for dtype in FLOATS:
            rng = np.random.default_rng([chosen.seed, *case.id.encode()])
            arrays = case.adversarial(rng, chosen.size, dtype)
            keywords = case.keywords(rng, (chosen.size,), dtype)
            yield case.id, case, dtype, arrays, keywords
            if case.id in CONFIDENT:
                yield f"{case.id}, confident", case, dtype, _confident(case, rng, chosen, dtype), {}


def _confident(case, rng, chosen, dtype):
    """Correct predictions with losses from 1 down to the smallest normal number."""
    lead = rng.uniform(0, -np.log(float(np.finfo(dtype).tiny)), chosen.size)
    if case.by_class:
        x = rng.normal(size=(chosen.size, 10))
        x[:, 3] = x.max(axis=1) + lead
        return [x.astype(dtype), np.full(chosen.size, 3)]
    return [lead.astype(dtype), np.ones(chosen.size, dtype)]


def _run(case, arrays, keywords):
    loss = getattr(fl, case.loss)
    wrt = case.differentiable(loss)
    value, gradients = loss.value_and_grad(*arrays, **keywords, reduction="none", wrt=wrt)
    return {"value": value, **dict(zip(wrt, gradients, strict=True))}


def _torch():
    try:
        import torch
    except ImportError:
        return None
    return torch


def _run_torch(torch, case, arrays, keywords):
    """Value and gradients of torch; empty where it lacks the loss or raises an error."""
    function = getattr(torch.nn.functional, case.loss, None)
    if function is None:
        return {}
    loss = getattr(fl, case.loss)
    tensors = [torch.tensor(a) for a in arrays]
    for name, tensor in zip(loss.operands, tensors, strict=True):
        if name in case.differentiable(loss):
            tensor.requires_grad_()
    options = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in keywords.items()}
    try:
        value = function(*tensors, **options, reduction="none")
        value.sum().backward()
    except (RuntimeError, TypeError):
        return {}
    results = {"value": value.detach().numpy()}
    for name, tensor in zip(loss.operands, tensors, strict=True):
        if tensor.grad is not None:
            results[name] = tensor.grad.numpy()
    return results


def _ulps(got, numbers, dtype):
    """The largest error in ULP of the terms, or of a factor that may have underflowed.

    Next to a kink, where rounding decides which derivative is returned, no error counts.
    """
    info = np.finfo(dtype)
    smallest = mpf(float(info.smallest_subnormal))
    worst = 0.0
    for g, value, term, exponent, floor in zip(got.flat, *(n.flat for n in numbers), strict=True):
        if mp.isfinite(term) and (term >= float(info.max) or exponent >= 2**info.nmant):
            continue
        if not (mp.isfinite(value) and np.isfinite(g)):
            same = float(value) == g or (mp.isnan(value) and np.isnan(g))
            worst = worst if same else np.inf
            continue
        with mp.workprec(references.BITS):
            ulp = max(term * mpf(float(info.eps)), max(floor, 1) * smallest)
            worst = max(worst, float(abs(mpf(float(g)) - value) / ulp))
    return round(worst, 6)  # beyond the digits of the reference


if __name__ == "__main__":
    main()
