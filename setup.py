"""Builds the kernels once per (instruction set, real) and links them into one extension module."""

import os
import platform
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from Cython.Build import cythonize
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
]

# Further flags, if the compiler knows them: gcc does.
OPTIONAL_FLAGS = [
    "-fno-thread-jumps",  # threading consecutive selections makes masks of masks
]

# The instruction sets, weakest first, and their flags. dispatch.c chooses at run time.
X86 = [
    ("baseline", []),
    ("avx2", ["-mavx2", "-mfma", "-mf16c"]),
    (
        "avx512",
        [
            *("-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
            "-mprefer-vector-width=512",  # compilers keep to 256 bits unless told
        ],
    ),
]
ISAS = {"x86_64": X86, "AMD64": X86}.get(platform.machine(), [("baseline", [])])

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
        FLAGS + KERNEL_FLAGS + OPTIONAL_FLAGS + isa_flags,
    )
    for isa, isa_flags in ISAS
    for real, is_double in REALS
    for source in TEMPLATES
]


class Build(build_ext):
    """Compiles the matrix above, probes OpenMP and links."""

    def build_extension(self, ext):
        openmp = self.find_openmp()
        sanitize = os.environ.get(
            "FASTLOSS_SANITIZE"
        )  # "address,undefined": for the test-suite of the kernels
        # -O1: vectorised loops with instrumentation take minutes to compile
        extra = (
            [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g", "-O1"] if sanitize else []
        )
        each_isa = " ".join(f"F({isa}, argument)" for isa, _ in ISAS)
        isa_list = ("FL_FOR_EACH_ISA(F, argument)", each_isa)

        jobs = [
            *KERNELS,
            *((source, "common", [isa_list], FLAGS + openmp) for source in COMMON),
        ]

        unknown = [flag for flag in OPTIONAL_FLAGS if not self.builds("int x;", [flag])]

        def compile_job(job):
            source, folder, macros, flags = job
            flags = [flag for flag in flags if flag not in unknown]
            return self.compiler.compile(
                [str(source)],
                output_dir=str(Path(self.build_temp) / folder),
                macros=macros,
                include_dirs=[str(SRC)],
                extra_postargs=flags + extra,
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ext.extra_objects = [
                name for objects in pool.map(compile_job, jobs) for name in objects
            ]
        ext.extra_compile_args = FLAGS + extra
        ext.extra_link_args = openmp + ([f"-fsanitize={sanitize}"] if sanitize else [])
        super().build_extension(ext)

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


if __name__ == "__main__":  # tools/check_vectorised.py reads the matrix
    extension = Extension(
        "fastloss._binding",
        ["src/fastloss/_binding.pyx"],
        depends=[str(path) for path in SRC.rglob("*.[chd]*")],
        include_dirs=[str(SRC), numpy.get_include()],
        libraries=["m"],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
    )
    setup(ext_modules=cythonize([extension]), cmdclass={"build_ext": Build})
