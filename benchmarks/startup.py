"""``python -m benchmarks.startup``: how long an import takes, in fresh processes."""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import command
from benchmarks.text import time_text


def seconds(modules):
    """Of a whole process that imports them."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
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
    from fastloss import _binding

    made["bytes"] = Path(_binding.__file__).stat().st_size
    print(f"extension module: {made['bytes'] / 2**20:.2f} MiB")
    if options.json:
        command.write_json(options.json, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
