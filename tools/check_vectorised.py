"""Checks that the kernels' loops are vectorised, for each loss, instruction set and `real`.

    python -m tools.check_vectorised            # fails if a marked loop is not vectorised
    python -m tools.check_vectorised --update   # accepts the exceptions, in not_vectorised.json

The kernels are compiled with setup.py's flags and line numbers, but without the local Python's own
flags. The line table maps each instruction to its source line and its chain of inlined calls, and
hence to its loss, a row of losses.def; the vectoriser's report does not.

- A loop under `#pragma omp simd` must use full-width registers in each copy that inlining makes.
- A loop without it that the report calls vectorised under one instruction set must be vectorised
  under the stronger ones too.
- No kernel may use registers of a stronger instruction set or call libm.

Needs gcc, binutils, and the packages that setup.py imports.
"""

import argparse
import json
import os
import re
import runpy
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src_c"
KNOWN = ROOT / "tools" / "not_vectorised.json"
WIDTH = {"baseline": 16, "avx2": 32, "avx512": 64}  # bytes of a register
LETTERS = {"x": 16, "y": 32, "z": 64}
FILES = {path.name: path for path in SRC.rglob("*.*")}
COMPILER = [os.environ.get("CC", "gcc"), "-fPIC", "-fwrapv", "-DNDEBUG", f"-I{SRC}"]

FUNCTION = re.compile(r"[a-z].*?\b(?:SUFFIXED\()?(?!SUFFIXED|__attribute__)(\w+)\)?\(")
REPORT = re.compile(r"([\w.]+):(\d+):\d+: (?:optimized: *loop (vectorized)|missed: *couldn't)")
SYMBOL = re.compile(r"[0-9a-f]+ <(.*)>:$")
PLACE = re.compile(r"(inlined by )?/.*/([\w.]+):(\d+)")
ARITHMETIC = re.compile(
    r"\tv?(?:p(?:add|sub|mul|cmp)\w*"
    r"|(?:add|sub|mul|div|sqrt|min|max|u?comi|cmp\w*|fn?m(?:add|sub)\d+)(?:p|(s))[sd])\b"
)


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@cache
def lines_of(name):
    """(function, line of the pragma of a marked loop or 0), for each line of a file."""
    result, function, pragma, indent = [("", 0)], "", 0, 0
    for number, line in enumerate(FILES[name].read_text().splitlines(), 1):
        depth = len(line) - len(line.lstrip())
        if head := FUNCTION.match(line):
            function = head[1]
        if pragma and number == pragma + 1:
            indent = depth
        elif pragma and line and depth <= indent:
            pragma = 0
        if line.startswith("#pragma omp simd"):
            pragma = number
        result.append((function, pragma))
    return result


@cache
def formulas():
    """{line of losses.def: name}"""
    rows = enumerate((SRC / "losses.def").read_text().splitlines(), 1)
    return {
        number: row[1] for number, line in rows if (row := re.match(r"ELEMENTWISE\((\w+)", line))
    }


@cache
def libm():
    library = output("cc", "-print-file-name=libm.so.6").strip()
    return set(re.findall(r" [TWi] (\w+)", output("nm", "-D", "--defined-only", library)))


def instructions(binary):
    """(text, symbol, [(file, line), ...]: its place, where that was inlined, and so on) of each."""
    symbol, chain = "", []
    for line in output("objdump", "-dl", "--inlines", "--no-show-raw-insn", binary).splitlines():
        if place := PLACE.match(line):
            chain = (chain if place[1] else []) + [(place[2], int(place[3]))]
        elif line.startswith(" "):
            yield line, symbol, [at for at in chain if at[0] in FILES]
            chain = chain[:1]  # a place is repeated only where it changes
        elif start := SYMBOL.match(line):
            symbol, chain = start[1], []


def examine(source, isa, command):
    """({(loss, function): bytes that each copy of a marked loop computes on},
    {(file, line): what the report says of the copies of another loop}, other findings)"""
    copies, others, widest = {}, defaultdict(Counter), 0
    with tempfile.TemporaryDirectory() as work:
        binary, report = f"{work}/kernel.o", f"{work}/report"
        # objdump 2.40 misreads DWARF 5 if the first function of an object is from a header
        asked = ["-g1", "-gdwarf-4", f"-fopt-info-vec-optimized-missed={report}"]
        output(*command, *asked, "-c", str(source), "-o", binary)
        for name, line, verdict in REPORT.findall(Path(report).read_text()):
            if name in FILES and not lines_of(name)[int(line)][1]:
                others[name, int(line)][verdict or "missed"] += 1
        for text, symbol, chain in instructions(binary):
            size = max((LETTERS[letter] for letter in re.findall(r"%([xyz])mm", text)), default=0)
            widest = max(widest, size)
            arithmetic = ARITHMETIC.search(text)
            size = size if arithmetic and not arithmetic[1] else 0
            marks = [(*lines_of(name)[line], name) for name, line in chain]
            at = next((k for k, (_, pragma, _) in enumerate(marks) if pragma), None)
            if arithmetic and at is not None:  # a stray move is not a copy of the loop
                copy = (marks[at], symbol, tuple(chain[at + 1 :]))
                copies[copy] = max(size, copies.get(copy, 0))
        called = set(re.findall(r" U (\w+)", output("nm", "-u", binary)))

    kind = source.name.removesuffix("_tmpl.c")
    by_function = defaultdict(list)
    for ((function, _, _), _, chain), size in copies.items():
        loss = next((formulas()[line] for name, line in chain if name == "losses.def"), kind)
        by_function[loss, function].append(size)
    findings = [f"{kind}: calls {name}" for name in sorted(called & libm())]
    if widest > WIDTH[isa]:
        findings.append(f"{kind}: registers of {widest} bytes")
    return by_function, others, findings


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="accept what is not vectorised")
    update = parser.parse_args().update
    setup = runpy.run_path(str(ROOT / "setup.py"))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {}
        for source, variant, macros, flags in setup["KERNELS"]:
            command = [*COMPILER, *(f"-D{k}={v}" for k, v in macros), *flags]
            isa = variant.split("_")[0]
            jobs[source.name, variant] = pool.submit(examine, ROOT / source, isa, command)
        results = {key: job.result() for key, job in jobs.items()}

    found = defaultdict(Counter)  # what: {variant: how often}
    full = defaultdict(Counter)  # loss: {variant: copies of marked loops}
    weak = defaultdict(Counter)
    for (template, variant), (by_function, others, findings) in results.items():
        isa, real = variant.split("_")
        for (loss, function), sizes in by_function.items():
            narrow = sum(size < WIDTH[isa] for size in sizes)
            full[loss][variant] += len(sizes) - narrow
            weak[loss][variant] += narrow
            found[f"{loss}: {function}"][variant] += narrow
        for finding in findings:
            found[finding][variant] += 1
        before = list(WIDTH)[max(list(WIDTH).index(isa) - 1, 0)]
        for place, weaker in results[template, f"{before}_{real}"][1].items():
            lost = weaker["vectorized"] and not others[place]["vectorized"]
            if lost or (weaker["vectorized"] and others[place]["missed"] > weaker["missed"]):
                function = lines_of(place[0])[place[1]][0]
                found[f"{template.removesuffix('_tmpl.c')}: {function}, no mark"][variant] += 1

    variants = list(dict.fromkeys(variant for _, variant in results))
    print(f"{'marked loops, -narrower or scalar':46}" + "".join(f"{v:>14}" for v in variants))
    for loss in sorted(full, key=lambda loss: [*formulas().values(), loss].index(loss)):
        row = (
            f"{full[loss][v]:>10}" + (f" -{weak[loss][v]:<2}" if weak[loss][v] else " " * 4)
            for v in variants
        )
        print(f"{loss:46}" + "".join(row))
    found = {what: +counts for what, counts in sorted(found.items()) if +counts}
    if update:
        rows = (f" {json.dumps(what)}: {json.dumps(counts)}" for what, counts in found.items())
        KNOWN.write_text("{\n" + ",\n".join(rows) + "\n}\n")
        return None
    known = json.loads(KNOWN.read_text())
    worse = [
        f"{what}: {count} under {variant}, {accepted} accepted"
        for what, counts in found.items()
        for variant, count in counts.items()
        if count > (accepted := known.get(what, {}).get(variant, 0))
    ]
    return "\n".join(worse) or None


if __name__ == "__main__":
    sys.exit(main())
