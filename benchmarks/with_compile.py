"""torch.compile: the calls of PyTorch, compiled for each cell."""

import os
import shutil

import torch
import torch._inductor.config

from benchmarks import with_torch
from benchmarks.with_torch import numbers

__all__ = ["numbers", "products", "start"]


def start(threads):
    if not shutil.which("g++"):
        raise ImportError("torch.compile needs g++")
    if os.environ.get("ATEN_CPU_CAPABILITY") == "avx2":
        torch._inductor.config.cpp.simdlen = 256  # bits
    return with_torch.start(threads)


def products(cell, arrays, options):
    torch._dynamo.reset()
    return with_torch.products(cell, arrays, options, lambda f: torch.compile(f, dynamic=False))
