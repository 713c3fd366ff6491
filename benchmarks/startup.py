"""``python -m benchmarks.startup``: the time of an import in a new process."""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import cli
from benchmarks.format import time_text


def run(program):
    """Run a program in a new process and return its output.

    It runs in another folder, so that it imports what is installed and not the sources.
    """
    process = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tempfile.gettempdir(),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process.stdout.strip()


def seconds(modules):
    """Seconds of a whole process that imports the modules."""
    begin = time.perf_counter()
    run(f"import {modules}")
    return time.perf_counter() - begin


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    add = parser.add_argument
    add("--runs", type=int, default=21, help="processes per import; default: %(default)s")
    add("--modules", nargs="+", default=["sys", "numpy", "numpy, fastloss"])
    add("--json", metavar="FILE", help="write all figures to this file")
    options = parser.parse_args(argv)
    times = {modules: [] for modules in options.modules}
    for _ in range(options.runs):
        for modules, samples in times.items():
            samples.append(seconds(modules))
    report = cli.run_info("startup", "benchmarks.startup", argv)
    report["figures"] = [
        {"modules": modules, "median": statistics.median(samples)}
        for modules, samples in times.items()
    ]
    for figure in report["figures"]:
        print(f"import {figure['modules']:<20}{time_text(figure['median'])}")
    module = run("from fastloss import _binding; print(_binding.__file__)")
    report["bytes"] = Path(module).stat().st_size
    print(f"extension module: {report['bytes'] / 2**20:.2f} MiB")
    if options.json:
        cli.write_json(options.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
