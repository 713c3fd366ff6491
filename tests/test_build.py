"""Builds: what is compiled again, and machines without a compiler."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("setuptools", minversion="77")

ROOT = Path(__file__).resolve().parents[1]
CHANGES = {
    "nothing": (lambda folder: None, True),
    "time of a file": (lambda folder: os.utime(folder / "a.h", (1, 1)), True),
    "included file": (lambda folder: (folder / "a.h").write_text("#define A 2\n"), False),
    "source": (lambda folder: (folder / "a.c").write_text("int a;\n"), False),
    "object": (lambda folder: (folder / "a.o").write_bytes(b"half"), False),
    "missing object": (lambda folder: (folder / "a.o").unlink(), False),
    "missing dependencies": (lambda folder: (folder / "a.d").unlink(), False),
    "missing included file": (lambda folder: (folder / "a.h").unlink(), False),
}


@pytest.fixture
def record_of(tmp_path):
    """A function that returns the record of an object that was compiled with a command."""
    (tmp_path / "with space").mkdir()
    for name, text in {"a.h": "#define A 1\n", "a.c": '#include "a.h"\nint a = A;\n'}.items():
        (tmp_path / "with space" / name).write_text(text)
    record = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["Record"]
    folder = tmp_path / "with space"
    arguments = ["-MMD", "-MF", str(folder / "a.d"), "-c", str(folder / "a.c")]
    subprocess.run(["cc", *arguments, "-o", str(folder / "a.o")], check=True)
    return folder, lambda command: record(folder / "a.o", command)


@pytest.mark.parametrize("change", CHANGES)
def test_object_is_compiled_again_only_after_a_change(record_of, change):
    folder, record = record_of
    assert not record("cc").is_up_to_date()
    record("cc").write()
    modify, unchanged = CHANGES[change]
    modify(folder)
    assert record("cc").is_up_to_date() == unchanged
    assert not record("cc -O3").is_up_to_date()


def test_interrupted_compilation_is_repeated(record_of):
    _, record = record_of
    record("cc").write()
    record("cc").remove()
    assert not record("cc").is_up_to_date()


def without_headers(folder):
    """A compiler that knows its version and fails at every program."""
    script = folder / "cc"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] && echo cc 1.0\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [(lambda folder: "/nowhere/cc", "No such file"), (without_headers, "includes math.h")],
)
def test_without_a_compiler(tmp_path, compiler, reason):
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path)]
    build = subprocess.run(
        [*command, "--build-temp", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"CC": compiler(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert build.returncode == 1
    for text in "there is no C compiler", reason, "apt install gcc":
        assert text in build.stderr
    assert "Traceback" not in build.stderr


def test_instruction_sets_of_a_build(monkeypatch):
    def kernels():
        return runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["KERNELS"]

    monkeypatch.setenv("FASTLOSS_BUILD_ISAS", "baseline")
    assert {folder for _, folder, *_ in kernels()} == {"baseline_f32", "baseline_f64"}
    monkeypatch.setenv("FASTLOSS_BUILD_ISAS", "baseline,avx1024")
    with pytest.raises(SystemExit, match="FASTLOSS_BUILD_ISAS: no instruction set avx1024"):
        kernels()
