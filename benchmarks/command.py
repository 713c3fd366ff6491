"""What the commands share: options, what they say about the machine, figures as JSON."""

import argparse
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


def parser(name, description):
    made = argparse.ArgumentParser(prog=f"python -m {name}", description=description)
    made.add_argument("--json", metavar="FILE", help="write every figure there")
    made.add_argument(
        "--filter", metavar="REGEX", default="", help="only cells whose name it is found in"
    )
    made.add_argument(
        "--isa", choices=sorted(ISAS), help="hold fastloss, torch and JAX to this instruction set"
    )
    return made


def chosen(cells, options):
    return [cell for cell in cells if re.search(options.filter, cell.name)]


def content(kind, name, argv, **more):
    """What a run's JSON begins with; report.py reads it."""
    given = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "-m", name, *given])
    about = {"processor": processor(), "python": platform.python_version()}
    return {"kind": kind, "command": command, **about, **more}


def rounded(thing):
    """Floats with four digits, in whatever holds them."""
    if isinstance(thing, float):
        return float(f"{thing:.4g}")
    if isinstance(thing, dict):
        return {key: rounded(value) for key, value in thing.items()}
    return [rounded(value) for value in thing] if isinstance(thing, list) else thing


def write_json(file, made):
    """One line for each of the entries of lists."""
    parts = []
    for key, value in rounded(made).items():
        text = json.dumps(value)
        if isinstance(value, list):
            text = "[\n" + ",\n".join(json.dumps(entry) for entry in value) + "\n]"
        parts.append(f"{json.dumps(key)}: {text}")
    Path(file).write_text("{\n" + ",\n".join(parts) + "\n}\n")
