"""Branches that the tests do not reach, in C, Cython and Python.

    pip install '.[coverage]'
    python -m tools.branch_coverage                       the quick tests
    python -m tools.branch_coverage --complete            all tests, or these arguments of pytest
    python -m tools.branch_coverage --report coverage     again the report of an earlier --folder

A clone of HEAD is built for one instruction set, without optimisation, and counts by gcov; Python
is counted by coverage.py, in subprocesses as well. A branch of C is an outcome of a condition, in
any of the variants of a kernel. Of Cython, whose C has many branches of its own, lines count. A
process that ends by a signal or os._exit leaves no counts.
"""

import argparse
import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
import tokenize
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

CONFIGURATION = """
[run]
branch = true
parallel = true
patch = subprocess
source = {root}/src/fastloss
omit = *.pyx
data_file = {root}/.coverage
[report]
exclude_also =
    if TYPE_CHECKING:
    @overload
"""


def run(command, root, **environment):
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), **environment}
    return subprocess.run([sys.executable, *command], cwd=root, env=environment, check=False)


def build(root):
    subprocess.run(["git", "clone", "-q", str(ROOT), str(root)], check=True)
    command = ["setup.py", "-q", "build_ext", "--inplace"]
    if run(command, root, FASTLOSS_COVERAGE="1", FASTLOSS_BUILD_ISAS="baseline").returncode != 0:
        raise SystemExit("the build failed")
    (root / "coverage.ini").write_text(CONFIGURATION.format(root=root), encoding="utf-8")


def run_tests(root, arguments):
    command = ["-m", "coverage", "run", "--rcfile=coverage.ini", "-m", "pytest", "-q", "-rfE"]
    run([*command, "-p", "no:cacheprovider", *arguments], root)


# ---- C and Cython --------------------------------------------------------------------------------


def counts_of_c(root):
    """{file: {line: counts of its branches}} of C, and {line: count} of Cython."""
    branches = defaultdict(lambda: defaultdict(dict))
    lines = defaultdict(lambda: defaultdict(int))
    for data in sorted(root.glob("build/**/*.gcda")):
        # gcov writes its result to the working directory.
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                ["gcov", "--json-format", "--branch-probabilities", str(data)],
                cwd=folder,
                capture_output=True,
                check=True,
            )
            for result in Path(folder).glob("*.json.gz"):
                with gzip.open(result) as stream:
                    add_file_counts(json.load(stream), branches, lines)
    return branches, lines


def add_file_counts(result, branches, lines):
    for file in result["files"]:
        name = file["file"]
        if name.endswith(".pyx"):
            for line in file["lines"]:
                lines["src/" + name.removeprefix("src/")][line["line_number"]] += line["count"]
        elif name.startswith("src_c/"):
            for line in file["lines"]:
                counts = [branch["count"] for branch in line["branches"]]
                if counts:
                    # Variants and inlined copies of a line, as far as they have the same branches.
                    known = branches[name][line["line_number"]].setdefault(
                        len(counts), [0] * len(counts)
                    )
                    known[:] = [a + b for a, b in zip(known, counts, strict=True)]


def report_c(root, branches):
    total = [0, 0]
    missed = []
    for name, of_lines in sorted(branches.items()):
        source = (root / name).read_text(encoding="utf-8").splitlines()
        taken = count = 0
        for number, by_size in sorted(of_lines.items()):
            for counts in by_size.values():
                taken += sum(c > 0 for c in counts)
                count += len(counts)
                zeros = [k for k, c in enumerate(counts) if c == 0]
                if zeros:
                    text = source[number - 1].strip()
                    which = ", ".join(map(str, zeros))
                    missed.append(f"{name}:{number}: {which} of {len(counts)}: {text}")
        print(f"{name:50} {taken:5} of {count:5} branches")
        total = [total[0] + taken, total[1] + count]
    print(f"{'C':50} {total[0]:5} of {total[1]:5} branches\n")
    return missed


def code_lines(text):
    """The numbers of the lines that hold code, and not only a docstring or a comment."""
    numbers = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER):
            numbers.update(range(token.start[0], token.end[0] + 1))
    return numbers


def report_cython(root, lines):
    missed = []
    for name, counts in sorted(lines.items()):
        text = (root / name).read_text(encoding="utf-8")
        source, code = text.splitlines(), code_lines(text)
        of_code = {n: count for n, count in sorted(counts.items()) if n in code}
        zeros = [n for n, count in of_code.items() if count == 0]
        print(f"{name:50} {len(of_code) - len(zeros):5} of {len(of_code):5} lines\n")
        missed += [f"{name}:{n}: {source[n - 1].strip()}" for n in zeros]
    return missed


# ---- Python --------------------------------------------------------------------------------------


def report_python(root):
    rcfile = "--rcfile=coverage.ini"
    if list(root.glob(".coverage.*")):
        run(["-m", "coverage", "combine", "-q", "--append", rcfile], root)
    run(["-m", "coverage", "json", "-q", rcfile, "-o", "coverage.json"], root)
    result = json.loads((root / "coverage.json").read_text(encoding="utf-8"))
    missed, total = [], [0, 0]
    for path, file in sorted(result["files"].items()):
        name = os.path.relpath(root / path, root)
        source = (root / name).read_text(encoding="utf-8").splitlines()
        taken, count = (file["summary"][k] for k in ("covered_branches", "num_branches"))
        print(f"{name:50} {taken:5} of {count:5} branches")
        total = [total[0] + taken, total[1] + count]
        for start, end in file["missing_branches"]:
            text = source[start - 1].strip()
            missed.append(f"{name}:{start}: to {'the exit' if end < 0 else end}: {text}")
    print(f"{'Python':50} {total[0]:5} of {total[1]:5} branches\n")
    return missed


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="keep the clone and the counts in a new folder")
    parser.add_argument("--report", type=Path, help="run nothing; report on a folder")
    options, arguments = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.report or options.folder or Path(temporary) / "clone").resolve()
        if not options.report:
            build(root)
            run_tests(root, arguments)
        branches, lines = counts_of_c(root)
        missed = [
            *report_c(root, branches),
            *report_cython(root, lines),
            *report_python(root),
        ]
        print("Not reached:", *missed, sep="\n")


if __name__ == "__main__":
    main()
