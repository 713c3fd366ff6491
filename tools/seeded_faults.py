"""Seeds small faults and checks that the README's test command finds each of them.

    python -m tools.seeded_faults          all faults, one after another
    python -m tools.seeded_faults 3 17     these rows of the table

Each fault replaces a text that occurs once in a file. It is applied to a clone of HEAD in a
temporary folder, where the extension is built in place, fastest with ccache, and the quick tests
run until the first failure, without tests/test_seeded_faults.py, which fails with any fault. Exit
status 1 means that they passed with a fault.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Fault(NamedTuple):
    path: str
    text: str  # occurs once in the file
    replacement: str
    effect: str


FAULTS = [
    # ---- losses
    Fault(
        "src_c/losses/elementwise_formulas.h",
        "real g = near ? d : delta * sign(d);",
        "real g = near ? d : sign(d);",
        "the gradient of huber_loss lacks delta in the linear part",
    ),
    Fault(
        "src_c/losses/elementwise_formulas.h",
        ".dx = 1 - ratio, .dy = or_nan(-log_rate, y)}",
        ".dx = 1 - ratio, .dy = -log_rate}",
        "a NaN target has a finite gradient in poisson_nll_loss",
    ),
    Fault(
        "src_c/losses/softmax_online.h",
        "        state->exp_sum_rest.hi[k] *= factor[k];\n",
        "",
        "cross entropy does not rescale its sum to a larger maximum",
    ),
    Fault(
        "src_c/losses/softmax_online.h",
        "qa = q == 0 ? 0 : q * a;",
        "qa = q * a;",
        "a probability of 0 for a logit of -inf gives NaN",
    ),
    Fault(
        "src_c/losses/softmax_gradient.h",
        "q = (s->one_minus_eps + s->eps_over_C) * w;",
        "q = s->one_minus_eps * w;",
        "label smoothing is missing in the gradient of the label",
    ),
    Fault(
        "src_c/losses/class_rows.h",
        "r->active[p] = r->label_weight[p] == 0 ? 0 : r->active[p];",
        "r->active[p] = r->active[p];",
        "a label of weight 0 does not remove its row, and the row counts",
    ),
    Fault(
        "src_c/losses/nll_tmpl.c",
        "real slope_or_nan = x[p] == x[p] ? (real)slope : x[p];",
        "real slope_or_nan = (real)slope;",
        "a NaN has a finite gradient in nll_loss",
    ),
    Fault(
        "src_c/losses/multi_margin.h",
        "z[i] = squared ? 2 * z[i] : z[i] > 0;",
        "z[i] = squared ? z[i] : z[i] > 0;",
        "the gradient of multi_margin_loss with p=2 is half of what it should be",
    ),
    Fault(
        "src_c/losses/multilabel_margin.h",
        "int is_positive = !(z <= 0) & (is_label[i + k] == 0);",
        "int is_positive = !(z < 0) & (is_label[i + k] == 0);",
        "multilabel_margin_loss has a gradient exactly at the margin",
    ),
    Fault(
        "src_c/losses/multilabel_soft_margin.h",
        "tile[i] = w[i] == 0 ? 0 : v[i];",
        "tile[i] = v[i];",
        "multilabel_soft_margin_loss checks targets that a weight of 0 removes",
    ),
    Fault(
        "src_c/losses/cosine_embedding.h",
        "row->hinge_slope = y == 1 ? -1 : z < 0 ? 0 : 1;",
        "row->hinge_slope = y == 1 ? -1 : z <= 0 ? 0 : 1;",
        "cosine_embedding_loss has no gradient exactly at the margin",
    ),
    Fault(
        "src_c/losses/triplet_margin.h",
        "pn < an ? 1 : 0.5;",
        "pn <= an ? 1 : 0.5;",
        "equal distances do not share the gradient in triplet_margin_loss",
    ),
    Fault(
        "src_c/losses/ctc_targets.h",
        "pass->lattice.skip_allowed[i] = i == 0 || label[i] != label[i - 1];",
        "pass->lattice.skip_allowed[i] = 1;",
        "CTC skips the blank between equal labels",
    ),
    # ---- vector and runtime
    Fault(
        "src_c/vector/vector_math.h",
        "q = FMA(q, r, REAL_C(0x1.5554aap-3));",
        "q = FMA(q, r, REAL_C(0x1.5556aap-3));",
        "exp of a float is off by some ULP",
    ),
    Fault(
        "src_c/vector/half.h",
        "uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;",
        "uint32_t rounded = (bits + 0x8000u) >> 16;",
        "ties are rounded away from zero in bfloat16",
    ),
    Fault(
        "src_c/vector/loader_tmpl.c",
        "        out[i] = read_real(native.bytes, array->dtype);\n",
        "        out[i] = read_real(at + i * stride, array->dtype);\n",
        "arrays in swapped byte order are read without swapping",
    ),
    Fault(
        "src_c/vector/domain_check.h",
        "return bits | (one - bits);",
        "return bits;",
        "probabilities above 1 are accepted",
    ),
    Fault(
        "src_c/vector/domain_check.h",
        "if (partial->error_unit == FL_NOWHERE || error[k] < recorded[k]) {",
        "if (partial->error_unit == FL_NOWHERE || error[k] > recorded[k]) {",
        "the last invalid value is reported instead of the first",
    ),
    Fault(
        "src_c/vector/unit_outputs.h",
        "partial->count -= active[i] == 0;",
        "partial->count -= active[i] < 0;",
        "losses of weight 0 are counted",
    ),
    Fault(
        "src_c/runtime/double_double.h",
        "return fast_two_sum(sum.hi, sum.lo + a.lo);",
        "return fast_two_sum(sum.hi, sum.lo);",
        "sums over blocks lose their low parts",
    ),
    Fault(
        "src_c/runtime/plan.c",
        "g.segment_units = period > 0 && period <= most ? most / period * period : most;",
        "g.segment_units = most;",
        "blocks split the losses that share a gradient entry",
    ),
    Fault(
        "src_c/runtime/fp_env.h",
        "        _mm_setcsr(saved);\n",
        "        _mm_setcsr(MXCSR_DEFAULT);\n",
        "a call changes the floating-point mode of its caller",
    ),
    # ---- binding
    Fault(
        "src/fastloss/_binding.pyx",
        "if dim != 1 and dim != shape[front + k]:",
        "if dim != 1 and dim < shape[front + k]:",
        "a weight may be longer than an axis of the operands",
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "    return _arrays.overlap(a, b)\n",
        "    return False\n",
        "an `out` may overlap another argument that is not contiguous",
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "call.divisor_scale = <double>call.row_units if self.a.reduction == BATCHMEAN else 1",
        "call.divisor_scale = 1",
        '"batchmean" is the mean',
    ),
    # ---- Python
    Fault(
        "src/fastloss/_options.py",
        '("root", lambda p: p == 1.5),',
        '("root", lambda p: p == 1.25),',
        "tweedie_deviance_loss uses the formula of power 1.5 for 1.25",
    ),
    Fault(
        "src/fastloss/_errors.py",
        "        inside = (inside[0] + rows, *inside[1:])\n",
        "        inside = (inside[0], *inside[1:])\n",
        "errors in later chunks name a row of the first chunk",
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "turn.sums, turn.running = self.ordered.__copy__(), self",
        "turn.sums, turn.running = self.ordered, self",
        "a batch with an invalid group label changes the sums",
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "return self.turn != NULL and self.turn_forks == forks",
        "return self.turn != NULL",
        "batches that a child adds after a fork within an update are not summed in order",
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "if guarded and self._storage_hash() != storage_hash:",
        "if guarded and self._storage_hash() == 0:",
        "an array that changes while arguments are read is accessed with its former shape",
    ),
    Fault(
        "src_c/runtime/checked_size.h",
        "return __builtin_mul_overflow(a, b, &product) ? SIZE_MAX : product;",
        "return __builtin_mul_overflow(a, b, &product) ? product : product;",
        "scratch whose size exceeds 2^64 is allocated with a few bytes",
    ),
    Fault(
        "src_c/runtime/plan.c",
        "return a / b + (a % b > 0);",
        "return (a + b - 1) / b;",
        "the sum of nearly 2^63 broadcast elements is 0",
    ),
    Fault(
        "src/fastloss/evaluation/checkpoint.py",
        "            if saved != current:\n",
        "            if saved is None:\n",
        "an evaluation resumes from the checkpoint of another one",
    ),
    Fault(
        "src/fastloss/evaluation/chunks.py",
        "if whole else math.lcm(*(max(n, 1) for n in blocks))\n",
        "if whole else max(max(n, 1) for n in blocks)\n",
        "chunks are not whole blocks of each of several losses",
    ),
    Fault(
        "src/fastloss/criteria.py",
        "        if type(other) is not type(self):\n",
        "        if not isinstance(other, Criterion):\n",
        "criteria of different losses with equal options are equal",
    ),
]


def apply(fault, root):
    path = root / fault.path
    source = path.read_text(encoding="utf-8")
    if source.count(fault.text) != 1:
        raise ValueError(f"{fault.path} does not contain this text once: {fault.text!r}")
    path.write_text(source.replace(fault.text, fault.replacement), encoding="utf-8")


def run(command, clone):
    environment = {**os.environ, "PYTHONPATH": str(clone / "src")}
    return subprocess.run(
        command, cwd=clone, env=environment, capture_output=True, text=True, check=False
    )


def build(clone):
    result = run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], clone)
    if result.returncode != 0:
        raise RuntimeError(f"the fault does not compile:\n{result.stderr}")


def first_failure(clone):
    """The first test that fails, None if all pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider"]
    result = run(command, clone)
    if result.returncode == 0:
        return None
    failures = re.findall(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", result.stdout, re.M)
    if not failures:
        raise RuntimeError(f"pytest ended with {result.returncode}:\n{result.stdout[-2000:]}")
    return failures[0]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", type=int, help="numbers of faults; default: all")
    rows = parser.parse_args(arguments).rows or range(1, len(FAULTS) + 1)
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        subprocess.run(["git", "rm", "-q", "tests/test_seeded_faults.py"], cwd=clone, check=True)
        for number in rows:
            fault = FAULTS[number - 1]
            apply(fault, clone)
            build(clone)
            failure = first_failure(clone)
            missed += failure is None
            print(f"{number:>2}  {fault.path}: {fault.effect}", flush=True)
            print(f"    {failure or 'NOT FOUND'}", flush=True)
            subprocess.run(["git", "checkout", "-q", "."], cwd=clone, check=True)
    print(f"{len(rows) - missed} of {len(rows)} faults found")
    return missed > 0


if __name__ == "__main__":
    sys.exit(main())
