"""Builds the kernels once per (instruction set, real) and links them into one extension module.

Every object is compiled by itself, as many at once as there are processors, and only if a file that
it includes, its flags or the compiler have changed since.
"""

import hashlib
import logging
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# Flags of every C file.
FLAGS = [
    "-std=gnu11",
    "-O3",
    "-g0",  # Python's own flags ask for debugging symbols, most of the wheel
    "-fno-lto",  # wide code must not be merged into what runs before detection
    "-fvisibility=hidden",  # only the module's init function is a symbol of the wheel
    "-ffp-contract=off",  # a product and a sum are fused where FMA() says so and nowhere else
    "-fno-math-errno",  # sqrt and the like need not set errno: loops may vectorise
    "-fno-trapping-math",  # both sides of a selection may be computed: loops may vectorise
]

# Further flags of the kernels.
KERNEL_FLAGS = [
    "-fopenmp-simd",  # `omp simd` marks loops without dependences; starts no threads
    "-Wno-unused-parameter",  # all formulas share one signature
    "-fno-tree-pre",  # PRE converts both sides of a selection instead of its result
    "-fno-thread-jumps",  # threading consecutive selections makes masks of masks
]

# Further flags of one source.
SOURCE_FLAGS = {
    "margin_tmpl": ["-ftree-pre"],  # takes a tenth off multilabel_margin_loss of few classes
}

# Left out if the compiler does not know them: gcc does. By default it clears arrays by 16 bytes or
# by `rep stos`, neither of which is forwarded to the wider loads of a loop: hence -mstore-max.
OPTIONAL_FLAGS = [
    *("-fno-tree-pre", "-ftree-pre", "-fno-thread-jumps"),
    *("-mstore-max=256", "-mstore-max=512"),
]

# The instruction sets, weakest first, and their flags. dispatch.c chooses at run time.
X86 = [
    ("baseline", []),
    ("avx2", ["-mavx2", "-mfma", "-mf16c", "-mstore-max=256"]),
    (
        "avx512",
        [
            *("-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
            *("-mprefer-vector-width=512", "-mstore-max=512"),  # compilers keep to less unless told
        ],
    ),
]
ISAS = {"x86_64": X86, "AMD64": X86}.get(platform.machine(), [("baseline", [])])

# For builds that are not kept, FASTLOSS_BUILD_ISAS=baseline takes a third of the time.
if os.environ.get("FASTLOSS_BUILD_ISAS"):
    wanted = [isa.strip() for isa in os.environ["FASTLOSS_BUILD_ISAS"].split(",")]
    if unknown := set(wanted) - {isa for isa, _ in ISAS}:
        sys.exit(f"FASTLOSS_BUILD_ISAS: no instruction set {', '.join(sorted(unknown))}")
    ISAS = [(isa, flags) for isa, flags in ISAS if isa in wanted]

# For tools/branch_coverage.py: branches as in the source, counted by gcov.
COVERAGE = bool(os.environ.get("FASTLOSS_COVERAGE"))

REALS = [("f32", "0"), ("f64", "1")]

SRC = Path("src_c")

# Compiled once per (instruction set, real), and once.
TEMPLATES = sorted(SRC.glob("*/*_tmpl.c"))
COMMON = sorted(set(SRC.glob("*/*.c")) - set(TEMPLATES))

# (source, folder of the object, macros, flags) of each
KERNELS = [
    (
        source,
        f"{isa}_{real}",
        [("ISA", isa), ("REAL_IS_DOUBLE", is_double)],
        FLAGS + KERNEL_FLAGS + isa_flags + SOURCE_FLAGS.get(source.stem, []),
    )
    for isa, isa_flags in ISAS
    for real, is_double in REALS
    for source in TEMPLATES
]


BINDING = Path("src/fastloss/_binding.pyx")

NO_COMPILER = """
fastloss is compiled from C, and there is no C compiler: {reason}
Install one, then try again: `apt install gcc` (Debian, Ubuntu), `dnf install gcc` (Fedora),
`apk add gcc musl-dev` (Alpine), `xcode-select --install` (macOS), `conda install gcc_linux-64`.
"""


class Job(NamedTuple):
    """A C file to compile."""

    source: Path
    folder: str  # of the object
    macros: list
    flags: list


class Build(build_ext):
    """Compiles the matrix above and the binding, probes OpenMP and links."""

    def finalize_options(self):
        # An editable install would build in a temporary folder, and compile everything each time.
        tag = f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
        self.build_temp = self.build_temp or str(Path("build") / f"temp.{tag}")
        super().finalize_options()

    def run(self):
        if self.verbose < 2:
            logging.disable(logging.INFO)  # the command lines
        try:
            super().run()
        finally:
            logging.disable(logging.NOTSET)

    def build_extension(self, ext):
        self.check_compiler()
        openmp = self.find_openmp()
        sanitize = os.environ.get("FASTLOSS_SANITIZE")  # "address,undefined": for the tests
        # -O1: vectorised loops with instrumentation take minutes to compile
        extra = (
            [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g", "-O1"] if sanitize else []
        )
        link = [f"-fsanitize={sanitize}"] if sanitize else []
        if COVERAGE:
            extra = ["--coverage", "-fprofile-update=atomic", "-O0", "-DFASTLOSS_COVERAGE"]
            link = ["--coverage"]
        each_isa = " ".join(f"F({isa}, argument)" for isa, _ in ISAS)
        isa_list = ("FL_FOR_EACH_ISA(F, argument)", each_isa)
        unknown = [flag for flag in OPTIONAL_FLAGS if not self.builds("int x;", [flag])]
        numpy_flags = [
            "-isystem",
            numpy.get_include(),
            *(f"-D{n}={v}" for n, v in ext.define_macros),
        ]

        jobs = [
            Job(BINDING.with_suffix(".c"), "common", [], FLAGS + numpy_flags),
            *(Job(*kernel) for kernel in KERNELS),
            *(Job(source, "common", [isa_list], FLAGS + openmp) for source in COMMON),
        ]
        jobs = [
            job._replace(flags=[f for f in job.flags if f not in unknown] + extra) for job in jobs
        ]
        objects = self.compile(jobs)
        self.compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(ext.name),
            libraries=self.get_libraries(ext),
            extra_postargs=openmp + link,
            export_symbols=self.get_export_symbols(ext),
            build_temp=self.build_temp,
            target_lang="c",
        )

    def compile(self, jobs):
        """The objects, which are compiled unless they are up to date.

        The first job is the slowest: Cython translates the binding. The templates follow by size.
        """
        order = [jobs[0], *sorted(jobs[1:], key=lambda job: -job.source.stat().st_size)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            futures = [pool.submit(self.compile_job, job) for job in order]
            try:
                for count, future in enumerate(as_completed(futures), 1):
                    print(f"fastloss: {count} of {len(jobs)}, {future.result()}", flush=True)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return [self.object_of(job) for job in jobs]

    def object_of(self, job):
        folder = str(Path(self.build_temp) / job.folder)
        return self.compiler.object_filenames([str(job.source)], output_dir=folder)[0]

    def compile_job(self, job):
        """Returns what was done."""
        if job.source.stem == BINDING.stem:
            translate(BINDING, force=self.force)
        label = f"{job.folder}/{job.source.stem}"
        command = f"{self.compiler_text} {numpy.__version__} {job}"
        # pip builds with a NumPy in a folder of its own each time.
        record = Record(self.object_of(job), command.replace(numpy.get_include(), "numpy"))
        if not self.force and record.is_up_to_date():
            return f"{label} is up to date"
        record.remove()
        self.compiler.compile(
            [str(job.source)],
            output_dir=str(Path(self.build_temp) / job.folder),
            macros=job.macros,
            include_dirs=[str(SRC)],
            extra_postargs=[*job.flags, "-MMD", "-MF", str(record.dependencies)],
        )
        record.write()
        return label

    def check_compiler(self):
        """Ends the build at once, with a remedy, where C programs cannot be compiled."""
        command = self.compiler.compiler_so
        try:
            version = subprocess.run(
                [command[0], "--version"], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(NO_COMPILER.format(reason=error)) from None
        if not self.builds("#include <math.h>\nint main(void) { return 0; }", [], link=True):
            reason = f"{command[0]} does not build a program that includes math.h"
            raise SystemExit(NO_COMPILER.format(reason=reason))
        self.compiler_text = f"{version.stdout.partition(chr(10))[0]} {shlex.join(command)}"

    def find_openmp(self):
        """The flag that compiles and links a parallel region, or nothing."""
        if os.environ.get("FASTLOSS_NO_OPENMP"):
            print("fastloss: building without OpenMP (FASTLOSS_NO_OPENMP): one thread per call")
            return []
        program = """
#include <omp.h>
int main(void)
{
#pragma omp parallel
    omp_get_num_threads();
    return 0;
}
"""
        if self.builds(program, ["-fopenmp"], link=True):
            return ["-fopenmp"]
        print("fastloss: the compiler has no OpenMP: one thread per call", file=sys.stderr)
        return []

    def builds(self, program, flags, link=False):
        """Whether the compiler takes a program with these flags."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.c"
            source.write_text(program)
            try:
                objects = self.compiler.compile(
                    [str(source)], output_dir=folder, extra_postargs=flags
                )
                if link:
                    self.compiler.link_executable(
                        objects, str(Path(folder) / "probe"), extra_postargs=flags
                    )
            except Exception:
                return False
        return True


class Record:
    """How an object was made, in files beside it."""

    def __init__(self, object_file, command):
        self._object = Path(object_file)
        self.dependencies = self._object.with_suffix(".d")  # written by the compiler
        self._file = self._object.with_suffix(".hash")
        self._command = command

    def is_up_to_date(self):
        try:
            return self._file.read_text() == self._hash()
        except OSError:
            return False

    def remove(self):
        self._file.unlink(missing_ok=True)
        self._object.parent.mkdir(parents=True, exist_ok=True)

    def write(self):
        self._file.write_text(self._hash())

    def _hash(self):
        """Hash of the command, of all files that the object was made from, and of the object."""
        value = hashlib.sha256(self._command.encode())
        rule = self.dependencies.read_text().replace("\\\n", " ")
        for path in (self._object, *shlex.split(rule.partition(": ")[2])):
            value.update(Path(path).read_bytes())
        return value.hexdigest()


def translate(source, force):
    """Translates Cython to C if need be."""
    from Cython.Build import cythonize

    extension = Extension("fastloss._binding", [str(source)])
    cythonize([extension], force=force, quiet=True, emit_linenums=COVERAGE)


if __name__ == "__main__":  # tools/check_vectorised.py reads the matrix
    extension = Extension(
        "fastloss._binding",
        [str(BINDING)],
        libraries=["m"],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
    )
    setup(ext_modules=[extension], cmdclass={"build_ext": Build})
