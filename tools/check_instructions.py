"""Counts the instructions of a call of each loss, under callgrind, against a committed budget.

    python -m tools.check_instructions            # fails where a call takes more than its budget
    python -m tools.check_instructions --update   # writes what was counted as the new budget

Unlike times, counts are the same on any machine, to some 0.1 %. They depend on the compiler of the
kernels and a little on Python, so with other versions of these nothing is judged. One thread; the
arrays and products of the benchmark, in sizes of their own. valgrind runs no AVX-512, of which
check_vectorised.py sees to the loops. Needs valgrind with its headers, and fastloss installed.
"""

import argparse
import ctypes
import gc
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUDGETS = ROOT / "tools" / "instruction_budgets.json"
MARGIN = 1.06  # editing a formula can cost the short loop of another an instruction in twenty
ISAS = ("baseline", "avx2")
PRODUCTS = ("value", "out")

# Small calls show what a call costs beside its elements, large ones what an element costs.
SMALL, REPEATS = (32, 10), 10
LARGE = defaultdict(lambda: [(64, 1024)])
LARGE |= {
    "nll_loss": [(64, 1024), (6400, 10), (2, 21, 40, 40)],
    "cross_entropy": [(64, 1024), (6400, 10), (2, 21, 40, 40), (1, 65536)],
    "cosine_embedding_loss": [(512, 128)],
    "triplet_margin_loss": [(512, 128)],
    "ctc_loss": [(100, 4, 29, 30)],
    "ctc_loss_with_logits": [(100, 4, 29, 30)],
}
SMALL_SEQUENCES = (10, 2, 10, 3)
DTYPES = {"mse_loss": ("float64", "float16"), "cross_entropy": ("float64", "float16")}

REQUESTS = """
#include <valgrind/callgrind.h>
void start(void) { CALLGRIND_ZERO_STATS; }
void stop(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
"""


def cells():
    """(cell of the benchmark, calls to count)"""
    from benchmarks.cells import SEQUENCES, Cell, losses

    for name, loss in losses().items():
        small = SMALL_SEQUENCES if loss.sizes is SEQUENCES else SMALL
        for variant in loss.variants:
            yield Cell(name, variant, small, "float32", "small"), REPEATS
            for shape in LARGE[name]:
                yield Cell(name, variant, shape, "float32", "large"), 1
        for dtype in DTYPES.get(name, ()):
            yield Cell(name, "", LARGE[name][0], dtype, "large"), 1


def measure(library):
    """Runs under valgrind, which writes a file for each cell and product."""
    from benchmarks import with_fastloss

    requests = ctypes.CDLL(library)
    start, stop = requests.start, requests.stop
    with_fastloss.start(threads=1)
    gc.disable()
    for cell, repeats in cells():
        arrays, options = cell.data()
        calls = with_fastloss.products(cell, arrays, options)
        for product in PRODUCTS:
            call, name = calls[product], f"{cell.name}, {product}".encode()
            for _ in "first", "counted":
                start()
                for _ in range(repeats):
                    call()
            stop(name)


def count():
    """{"cell, product": {instruction set: instructions of a call}}"""
    with tempfile.TemporaryDirectory() as work:
        library, running = f"{work}/requests.so", {}
        compiler = ["cc", "-x", "c", "-O2", "-shared", "-fPIC", "-", "-o", library]
        subprocess.run(compiler, input=REQUESTS, text=True, check=True)
        for isa in ISAS:
            command = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={work}/{isa}"]
            command += [sys.executable, "-m", "tools.check_instructions", "--measure", library]
            fixed = {"FASTLOSS_ISA": isa, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
            running[isa] = subprocess.Popen(command, env=os.environ | fixed, cwd=ROOT)
        if failed := [isa for isa, process in running.items() if process.wait()]:
            sys.exit(f"counting failed: {', '.join(failed)}")
        totals = {}
        for dump in Path(work).glob("*.*"):
            text = dump.read_text() if dump.suffix != ".so" else ""
            if name := re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.M):
                totals[name[1], dump.stem] = int(re.search(r"^summary: (\d+)", text, re.M)[1])
    return {
        f"{cell.name}, {product}": {
            isa: round(totals[f"{cell.name}, {product}", isa] / repeats) for isa in ISAS
        }
        for cell, repeats in cells()
        for product in PRODUCTS
    }


def versions():
    """The versions that counts depend on: the kernels' compiler and Python."""
    from fastloss import _binding

    command = ["readelf", "-p", ".comment", _binding.__file__]
    section = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    compiler = re.search(r"(GCC|clang).* (\d+\.\d+\.\d+)", section)
    return {
        "compiler": f"{compiler[1].lower()} {compiler[2]}" if compiler else "unknown",
        "python": platform.python_version(),
    }


def write(budget):
    """Writes the budgets, a line for each call."""
    rows = (f" {json.dumps(name)}: {json.dumps(entry)}" for name, entry in budget.items())
    BUDGETS.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def compare(counts, budget):
    """Prints every call; returns how many are above and below their budget."""
    above = below = 0
    sizes = {cell.name: cell.data()[0][0].size for cell, _ in cells()}
    print(f"{'':56}" + "".join(f"{isa:>12}{'/element':>10}{'/budget':>8}  " for isa in ISAS))
    for name, entry in counts.items():
        row = f"{name:56}"
        for isa, instructions in entry.items():
            ratio = instructions / budget[name][isa] if name in budget else float("inf")
            above += ratio > MARGIN
            below += ratio < 1 / MARGIN
            mark = "!" if ratio > MARGIN else "-" if ratio < 1 / MARGIN else " "
            each = instructions / sizes[name.rsplit(", ")[0]]
            row += f"{instructions:12,}{each:10.2f}{ratio:8.3f}{mark} "
        print(row)
    return above, below


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write the counts as the new budget")
    parser.add_argument("--measure", metavar="LIBRARY", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(arguments.measure)

    counts, found = count(), versions()
    if arguments.update:
        return write(found | counts)
    budget = json.loads(BUDGETS.read_text())
    above, below = compare(counts, budget)
    update = "python -m tools.check_instructions --update"
    if other := [f"{budget[key]}, here {found[key]}" for key in found if budget[key] != found[key]]:
        print(f"nothing judged: the budget is of {'; of '.join(other)}")
        return None
    if below:
        print(f"{below} counts (-) are below their budget: lower it, {update}")
    return f"{above} counts (!) are above their budget; {update} raises it" if above else None


if __name__ == "__main__":
    sys.exit(main())
