"""Builds of other commits of this repository, which run as peers: before and after, in one run."""

import io
import subprocess
import sys
import tempfile
import zipfile

from benchmarks.peers import ROOT

FOLDER = ROOT / "build" / "commits"


def git(revision, *arguments):
    """The output of git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    except FileNotFoundError:
        raise SystemExit(f"--commit {revision}: git is not installed") from None
    if done.returncode:
        raise SystemExit(f"--commit {revision}: git: {done.stderr.decode().strip()}")
    return done.stdout


def build(revision):
    """The name of a commit as a peer, and the folder of its package.

    The files and objects stay in FOLDER, so that the next run has nothing to compile.
    """
    commit = git(revision, "rev-list", "--max-count=1", revision, "--").decode().strip()
    name, folder = f"fastloss {commit[:7]}", FOLDER / commit
    if not folder.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as part:  # renamed if complete
            files = zipfile.ZipFile(io.BytesIO(git(revision, "archive", "--format=zip", commit)))
            files.extractall(f"{part}/{commit}")
            FOLDER.joinpath(part, commit).rename(folder)
    print(f"{name:<17}build in {folder}", flush=True)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, cwd=folder, text=True, check=False, **pipes)
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-20:])
        raise SystemExit(f"--commit {revision}: {name} does not build in {folder}:\n{last}")
    return name, folder / "src"
