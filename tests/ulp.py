"""`python -m tests.ulp`: the worst error of each loss, in ULP of the largest term of its formula.

Columns: the value and each gradient, by fastloss and, if it is installed, by torch, on the hard
operands of the tests; a line for each choice of options and type. `bound` is the largest share of
the promised error that fastloss used: 1 would be all of it. Entries that overflow are left out.
`inf` means an infinity or NaN where there is a finite result, or the other way round.
"""

import argparse

import numpy as np
from mpmath import mp, mpf

import fastloss as fl
from tests import references
from tests.cases import CASES, FLOATS, LOSSES


def main(arguments=None):
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.ulp", description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=1000, help="losses per case (1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loss", action="append", choices=LOSSES, help="only this loss")
    parser.add_argument("--isa", choices=[*fl._binding.isas(), "all"], help="instruction set")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--markdown", action="store_true", help="a line per loss, for the docs")
    chosen = parser.parse_args(arguments)
    isas = [chosen.isa or fl._binding.isa()] if chosen.isa != "all" else fl._binding.isas()
    torch = None if chosen.no_torch else _torch()

    head = f"{'loss':<55} {'type':<8} {'isa':<9} {'of':<7}"
    if not chosen.markdown:
        print(f"{head} {'fastloss':>9} {'torch':>9} {'bound':>6}")
    lines = {}
    before = fl._binding.isa()
    worst = 0.0
    try:
        for title, case, dtype, arrays, keywords in _calls(chosen):
            exact = references.reduced(case.loss, arrays, keywords | {"reduction": "none"})
            theirs = _run_torch(torch, case, arrays, keywords) if torch else {}
            for isa in isas:
                fl._binding.select_isa(isa)
                for name, got in _run(case, arrays, keywords).items():
                    number = exact[0] if name == "value" else exact[1][name]
                    share = _excess(got, number, dtype).max(initial=0)
                    worst = max(worst, share)
                    other = theirs.get(name)
                    ours = _ulps(got, number, dtype)
                    other = None if other is None else _ulps(other, number, dtype)
                    if chosen.markdown:
                        line = lines.setdefault(case.loss, {})
                        for key, error in (("share", share), (dtype, ours), (("t", dtype), other)):
                            line[key] = max(line.get(key, 0.0), -1.0 if error is None else error)
                        continue
                    print(
                        f"{title:<55} {dtype.__name__:<8} {isa:<9} {name:<7} {ours:>9.3g} "
                        f"{'-' if other is None else f'{other:.3g}':>9} {share:>6.2f}",
                        flush=True,
                    )
    finally:
        fl._binding.select_isa(before)
    if chosen.markdown:
        _print_markdown(lines)
    print(f"the largest share of the promised error: {worst:.2f}")


def _print_markdown(lines):
    print("| loss | fastloss float32 | float64 | of the promise | torch float32 | float64 |")
    print("|---|---|---|---|---|---|")
    for loss, line in lines.items():
        figures = [line[np.float32], line[np.float64]]
        others = [line[("t", dtype)] for dtype in FLOATS]
        ours = " | ".join(f"{figure:.2g}" for figure in figures)
        theirs = " | ".join(f"{figure:.2g}" if figure else "-" for figure in others)
        print(f"| `{loss}` | {ours} | {line['share']:.2f} | {theirs} |")
    print()
    print("| loss | of | terms |")
    print("|---|---|---|")
    for loss in lines:
        for of, terms in references.REFERENCES[loss].terms.items():
            print(f"| `{loss}` | {of} | {terms.replace('|', chr(92) + '|')} |")
    print()


def _calls(chosen):
    """(title, case, dtype, arrays, keywords) for every case, and confident predictions."""
    for case in CASES:
        if chosen.loss and case.loss not in chosen.loss:
            continue
        for dtype in FLOATS:
            rng = np.random.default_rng([chosen.seed, *case.id.encode()])
            arrays = case.adversarial(rng, chosen.size, dtype)
            keywords = case.keywords(rng, (chosen.size,), dtype)
            yield case.id, case, dtype, arrays, keywords
            if case.id in (
                "cross_entropy",
                "binary_cross_entropy_with_logits",
                "soft_margin_loss",
            ):
                yield f"{case.id}, confident", case, dtype, _confident(case, rng, chosen, dtype), {}


def _confident(case, rng, chosen, dtype):
    """Right predictions, their losses from 1 down to the smallest normal number."""
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
    """torch's value and the gradients it has; nothing where it lacks the loss or refuses."""
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
    """The largest error in ULP of the terms, or of what may have underflowed if that is more.

    Beside a kink, where rounding decides which gradient it is, there is no error.
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
    return round(worst, 6)  # the last digits of the reference are none


def _excess(got, numbers, dtype):
    excess = references.excess(got, numbers, dtype)
    end = float(np.finfo(dtype).max)
    overflows = [bool(mp.isfinite(t) and t >= end) for t in numbers.term.flat]
    return np.where(np.reshape(overflows, excess.shape), 0, excess)


if __name__ == "__main__":
    main()
