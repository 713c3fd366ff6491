"""Runs the commands of the documents in their order, as a newcomer would.

    python -m tools.play_documents                  # all documents
    python -m tools.play_documents docs/start.md    # some of them

The commands run in a fresh clone of the last commit and a fresh virtual environment, exactly as
they are written: blocks of sh and console, and indented lines. Each is printed with its output and
its seconds. A command that is not run is printed with the reason. The status is 1 if a command
fails.
Examples in Python are run by tests/test_docs.py.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (
    "README.md",
    "docs/start.md",
    "docs/which-loss.md",
    "docs/torch.md",
    "docs/guides/scoring.md",
    "docs/guides/sklearn.md",
    "docs/guides/evaluation.md",
    "docs/guides/distributed.md",
    "docs/guides/perplexity.md",
    "docs/guides/speech.md",
    "docs/guides/recipes.md",
    "docs/command-line.md",
    "docs/threads.md",
    "docs/embedding.md",
    "examples/README.md",
    "examples/scoring_service/README.md",
)
NOT_RUN = {
    r"python -m benchmarks": "a benchmark, which needs other libraries, an idle machine and time",
    r"python -m tests\.": "a long measurement, of which .ci/run has a step of its own",
    r".*&& pytest": "the tests, of which .ci/run has a step of its own",
    r"fastloss .*\b(LOSS|COMMAND|SHELL)\b": "a usage",
}
COMMAND = re.compile(r"(\w+=\S* )*(fastloss|python|pip|curl|uvicorn|sphinx-build|eval|mkdir) ")
SERVICE = "http://127.0.0.1:8000/metrics"
LINES, CHARACTERS = 12, 200  # of the output of a command that succeeded


def commands(text):
    """The command lines of a document, in its order."""
    text = text.replace("\\\n", " ")
    for block in re.finditer(r"(?ms)^```(\w*)[^\n]*\n(.*?)^```$|^(    \S[^\n]*)$", text):
        if block[3] is not None:
            lines = [block[3]]
        else:
            lines = block[2].splitlines() if block[1] in ("sh", "console") else []
        for line in lines:
            line = line.strip().removeprefix("$ ")
            if COMMAND.match(line):
                yield line


def reason_not_to_run(command):
    return next((reason for start, reason in NOT_RUN.items() if re.match(start, command)), None)


def play(document, clone, env):
    """Run the commands of a document; return the number of those that failed."""
    failed, service = 0, None
    try:
        for command in commands((clone / document).read_text(encoding="utf-8")):
            print(f"$ {command}", flush=True)
            if reason := reason_not_to_run(command):
                print(f"--- not run: {reason}\n")
                continue
            start = time.perf_counter()
            if re.match(r"(\w+=\S* )*uvicorn ", command):
                service, status, output = serve(command, clone, env)
            else:
                done = subprocess.run(
                    ["bash", "-c", command],
                    cwd=clone,
                    env=env,
                    text=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
                status, output = done.returncode, done.stdout
            failed += status != 0
            lines = output.splitlines()
            if status == 0:
                lines = [shorten(line) for line in lines]
                if len(lines) > LINES:
                    lines[LINES - 2 : -1] = [f"... ({len(lines) - LINES + 1} lines)"]
            print(*lines, sep="\n")
            print(f"--- status {status}, {time.perf_counter() - start:.1f} s\n", flush=True)
    finally:
        if service is not None:
            os.killpg(service.pid, signal.SIGTERM)
            service.wait()
    return failed


def shorten(line):
    more = len(line) - CHARACTERS
    return f"{line[:CHARACTERS]}... ({more:,} characters)" if more > 0 else line


def serve(command, clone, env):
    """Start a service that runs until it is stopped, and wait until it answers."""
    with tempfile.TemporaryFile("w+", dir=clone.parent) as log:
        service = subprocess.Popen(
            ["bash", "-c", command], cwd=clone, env=env, stdout=log, stderr=log, process_group=0
        )
        deadline = time.monotonic() + 60
        while service.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(SERVICE, timeout=5).close()
                return service, 0, "it answers"
            except (OSError, urllib.error.URLError):
                time.sleep(0.2)
        log.seek(0)
        return service, 1, log.read()


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tools.play_documents", description=__doc__)
    parser.add_argument("documents", nargs="*", default=DOCUMENTS)
    parser.add_argument(
        "--reuse-objects",
        action="store_true",
        help="copy the compiled objects of this checkout, which saves the first build",
    )
    options = parser.parse_args(argv)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        clone, venv = Path(folder, "fastloss"), Path(folder, "venv")
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        if options.reuse_objects:
            shutil.copytree(ROOT / "build", clone / "build")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        env |= {"PATH": f"{venv}/bin:{env['PATH']}", "VIRTUAL_ENV": str(venv), "HOME": folder}
        env.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))  # of pip
        env.setdefault("XDG_CONFIG_HOME", str(Path.home() / ".config"))
        for document in options.documents:
            print(f"=== {document}\n", flush=True)
            failed += play(document, clone, env)
    print(f"{failed} commands failed" if failed else "every command succeeded")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
