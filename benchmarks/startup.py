"""``python -m benchmarks.startup``: how long an import takes, in fresh processes."""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import command
from benchmarks.text import time_text


def run(program):
    """What a fresh process prints; not here, where the sources may lie that are not installed."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=tempfile.gettempdir(), check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip()


def seconds(modules):
    """Of a whole process that imports them."""
    begin = time.perf_counter()
    run(f"import {modules}")
    return time.perf_counter() - begin


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    add = parser.add_argument
    add("--runs", type=int, default=21, help="of each; default: %(default)s")
    add("--modules", nargs="+", default=["sys", "numpy", "numpy, fastloss"])
    add("--json", metavar="FILE", help="write every figure there")
    options = parser.parse_args(argv)
    times = {modules: [] for modules in options.modules}
    for _ in range(options.runs):
        for modules, took in times.items():
            took.append(seconds(modules))
    made = command.content("startup", "benchmarks.startup", argv)
    made["figures"] = [
        {"modules": m, "median": statistics.median(took)} for m, took in times.items()
    ]
    for figure in made["figures"]:
        print(f"import {figure['modules']:<20}{time_text(figure['median'])}")
    module = run("from fastloss import _binding; print(_binding.__file__)")
    made["bytes"] = Path(module).stat().st_size
    print(f"extension module: {made['bytes'] / 2**20:.2f} MiB")
    if options.json:
        command.write_json(options.json, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
