"""Command-line options, a description of the run, and JSON output of the benchmarks."""

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import sys
from pathlib import Path

from benchmarks.peers import ISAS


def processor():
    try:
        text = Path("/proc/cpuinfo").read_text()
        return re.search(r"model name\s*: (.*)", text).group(1)
    except (OSError, AttributeError):
        return platform.processor() or platform.machine()


def allowed_processors():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def parser(name, description, filtered="cells"):
    result = argparse.ArgumentParser(prog=f"python -m {name}", description=description)
    result.add_argument("--json", metavar="FILE", help="write all figures to this file")
    result.add_argument(
        "--filter",
        metavar="REGEX",
        default="",
        help=f"only {filtered} whose name contains a match",
    )
    result.add_argument(
        "--isa", choices=sorted(ISAS), help="limit fastloss, torch and JAX to this instruction set"
    )
    return result


def select(cells, options):
    """The cells whose names match --filter."""
    return [cell for cell in cells if re.search(options.filter, cell.name)]


def run_info(kind, name, argv, **more):
    """The first entries of a run's JSON, which report.py reads."""
    arguments = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "-m", name, *arguments])
    machine = {"processor": processor(), "python": platform.python_version()}
    date = datetime.date.today().isoformat()
    return {"kind": kind, "command": command, "date": date, **machine, **more}


def rounded(value):
    """Floats rounded to four digits, also within dicts, lists and tuples."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


def write_json(file, run):
    """Write the run with one line for each entry of a list."""
    parts = []
    for key, value in rounded(run).items():
        text = json.dumps(value)
        if isinstance(value, list):
            text = "[\n" + ",\n".join(json.dumps(entry) for entry in value) + "\n]"
        parts.append(f"{json.dumps(key)}: {text}")
    Path(file).write_text("{\n" + ",\n".join(parts) + "\n}\n")
