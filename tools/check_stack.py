"""Checks that no call needs more stack than FL_STACK_BYTES, which the binding requires.

    python -m tools.check_stack

Each kernel is compiled with gcc's -fcallgraph-info=su, and the deepest path through the calls is
summed; a call by pointer counts as the deepest function of another file. Exit status 1 means that a
path is too deep, or unbounded.
"""

import re
import runpy
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src_c"
NODE = r'node: \{ title: "([^"]+)" label: "[^"]*\\n(\d+) bytes'
UNBOUNDED = r'title: "([^"]+)" label: "[^"]*bytes \(dynamic\)"'
RESERVE = 16 << 10  # for the binding, the runtime of OpenMP and the C library


def limit():
    text = (SRC / "runtime/stack.h").read_text(encoding="utf-8")
    kib = re.search(r"FL_STACK_BYTES = (\d+) << 10", text).group(1)
    return (int(kib) << 10) - RESERVE


def jobs():
    """(source, variant, flags) of every object, as setup.py compiles them."""
    setup = runpy.run_path(str(ROOT / "setup.py"))
    for source, variant, macros, flags in setup["KERNELS"]:
        yield source, variant, [*(f"-D{name}={value}" for name, value in macros), *flags]
    each_isa = " ".join(f"F({isa}, argument)" for isa, _ in setup["ISAS"])
    common = [f"-DFL_FOR_EACH_ISA(F, argument)={each_isa}", *setup["FLAGS"], "-fopenmp"]
    for source in setup["COMMON"]:
        yield source, "common", common


def call_graph(job, folder):
    """({function: frame in bytes}, {(caller, callee)}) of an object."""
    source, variant, flags = job
    target = folder / f"{variant}_{Path(source).stem}.o"
    command = [
        "gcc",
        "-fPIC",
        *flags,
        "-fcallgraph-info=su",
        f"-I{SRC}",
        "-c",
        source,
        "-o",
        target,
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    text = target.with_suffix(".ci").read_text(encoding="utf-8")
    frames = {title: int(size) for title, size in re.findall(NODE, text)}
    unbounded = re.findall(UNBOUNDED, text)
    if unbounded:
        raise SystemExit(f"{source}: frames of unbounded size: {', '.join(unbounded)}")
    edges = set(re.findall(r'sourcename: "([^"]+)" targetname: "([^"]+)"', text))
    return frames, edges


def deepest(frames, edges):
    """The deepest path from each function: (bytes, functions)."""
    callees = {}
    for caller, callee in edges:
        callees.setdefault(caller, set()).add(callee)
    depth = {}

    def visit(function, path):
        if function in path:
            raise SystemExit(f"recursion: {' -> '.join([*path, function])}")
        if function not in depth:
            below = [visit(callee, (*path, function)) for callee in callees.get(function, ())]
            size, functions = max(below, default=(0, ()))
            depth[function] = size + frames.get(function, 0), (function, *functions)
        return depth[function]

    for function in frames:
        visit(function, ())
    return depth


def main():
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        graphs = list(pool.map(lambda job: call_graph(job, Path(folder)), jobs()))
    # Kernels call the loader of their instruction set by pointer, and the driver calls kernels so.
    paths = [max(deepest(frames, edges).values()) for frames, edges in graphs]
    names = [f"{variant} {Path(source).stem}" for source, variant, _ in jobs()]
    by_name = dict(zip(names, paths, strict=True))
    loader = max(size for name, (size, _) in by_name.items() if "loader" in name)
    driver = max(size for name, (size, _) in by_name.items() if name.startswith("common"))
    worst = 0
    for name, (size, functions) in sorted(by_name.items(), key=lambda item: -item[1][0]):
        if "_tmpl" not in name or "loader" in name:
            continue
        total = size + loader + driver
        worst = max(worst, total)
        print(f"{total:>8,} bytes  {name}: {' -> '.join(f.rpartition(':')[2] for f in functions)}")
    print(f"at most {worst:,} bytes, with {loader:,} of the loader and {driver:,} of the driver;")
    print(f"{limit():,} are allowed")
    return worst > limit()


if __name__ == "__main__":
    sys.exit(main())
