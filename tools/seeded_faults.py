"""Seeds small faults and checks that the tests find each of them.

    python -m tools.seeded_faults                  all faults, one after another
    python -m tools.seeded_faults 3 17             these rows of the table
    python -m tools.seeded_faults --aimed          only the tests that rows name
    python -m tools.seeded_faults --folder clones  keeps the clones there for the next run

Each fault replaces a text that occurs once in a file. It is applied to a clone of HEAD, where the
extension is built in place, with ccache if it is installed. First the tests run that the row of the
fault names; if they pass, the quick or the complete selection until the first failure, without
tests/test_seeded_faults.py, which fails with any fault. Exit status 1 means that tests passed with
a fault: its number is printed last.
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
from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path(__file__).resolve().parents[1]


# Seconds, of the tests that a row names and of all: a fault may also make a test wait for ever.
AIMED_TIMEOUT, TIMEOUT = 600, 7200

SANITIZERS = "address,undefined"


class Fault(NamedTuple):
    """A fault, the tests that are aimed at it, and what it takes to notice it.

    `tests` are arguments of pytest, which run before all others. `needs` is "complete" if only
    ``pytest --complete`` finds the fault, and "sanitizers" if only the tests of .ci/run with
    sanitizers do: `tests` are then among these and no others run.
    """

    path: str
    text: str  # occurs once in the file
    replacement: str
    effect: str
    tests: tuple[str, ...] = ()
    needs: Literal["", "complete", "sanitizers"] = ""


# Left out, since no test can notice them: no store fence in run_blocks(), and weaker orders of
# atomics, since x86-64 orders stores by itself; no wait for the workers of a region, since the
# barrier at its end waits as well; the mode of the caller in run_here() and run_caller(), since
# fl_run() has replaced it; classes of regions that a forked child inherits, since it runs on one
# thread; other sizes of batches and grains, which change no result.

FAULTS = [
    # ---- losses
    Fault(
        "src_c/losses/elementwise_formulas.h",
        "real g = near ? d : delta * sign(d);",
        "real g = near ? d : sign(d);",
        "the gradient of huber_loss lacks delta in the linear part",
        ("tests/test_elementwise.py",),
    ),
    Fault(
        "src_c/losses/elementwise_formulas.h",
        ".dx = 1 - ratio, .dy = or_nan(-log_rate, y)}",
        ".dx = 1 - ratio, .dy = -log_rate}",
        "a NaN target has a finite gradient in poisson_nll_loss",
        ("tests/test_nan.py",),
    ),
    Fault(
        "src_c/losses/softmax_online.h",
        "        state->exp_sum_rest.hi[k] *= factor[k];\n",
        "",
        "cross entropy does not rescale its sum to a larger maximum",
        ("tests/test_cross_entropy.py",),
    ),
    Fault(
        "src_c/losses/softmax_online.h",
        "a = b.y[j] == 0 ? 0 : a;",
        "a = a + 0;",
        "a probability of 0 for a logit of -inf gives NaN",
        ("tests/test_cross_entropy.py",),
    ),
    Fault(
        "src_c/losses/softmax_gradient.h",
        "q = (s->one_minus_eps + s->eps_over_C) * w;",
        "q = s->one_minus_eps * w;",
        "label smoothing is missing in the gradient of the label",
        ("tests/test_values.py",),
    ),
    Fault(
        "src_c/losses/class_rows.h",
        "(r->active[p] != 0) & (r->label_weight[p] == 0)",
        "0",
        "a label of weight 0 does not remove its row, and the row counts",
        ("tests/test_weights.py",),
    ),
    Fault(
        "src_c/losses/nll_tmpl.c",
        "slope_or_nan = x[p] == x[p] ? slope : x[p];",
        "slope_or_nan = slope;",
        "a NaN has a finite gradient in nll_loss",
        ("tests/test_nan.py",),
    ),
    Fault(
        "src_c/losses/multi_margin.h",
        "return squared ? 2 * z : z > 0 ? 1 : 0;",
        "return squared ? z : z > 0 ? 1 : 0;",
        "the gradient of multi_margin_loss with p=2 is half of what it should be",
        ("tests/test_values.py",),
    ),
    Fault(
        "src_c/losses/multi_margin.h",
        "keep[k] = (k < n) & (k != y);",
        "keep[k] = k < n;",
        "multi_margin_loss of many classes adds the margin of the label itself",
        ("tests/test_values.py", "tests/test_margin.py"),
    ),
    Fault(
        "src_c/vector/unit_outputs.h",
        "(tile.rr.m != 0 || reduce_sum(size, LANES) == 0) &&",
        "",
        "the standard error of tiny losses is 0",
        ("tests/test_accumulators.py",),
    ),
    Fault(
        "src_c/runtime/moments.c",
        "if (is_less(to->dd, from.dd)) {",
        "if (is_less(to->dd, from.dd) && to->dd.m == 0) {",
        "a light outlier that comes first spoils the standard error",
        ("tests/test_accumulators.py",),
    ),
    Fault(
        "src_c/losses/multilabel_margin.h",
        "int is_positive = !(z <= 0) & (listed[i + k] == 0);",
        "int is_positive = !(z < 0) & (listed[i + k] == 0);",
        "multilabel_margin_loss has a gradient exactly at the margin",
        ("tests/test_margin.py",),
    ),
    Fault(
        "src_c/losses/multilabel_margin.h",
        "return lo > 0 ? real_from_bits(",
        "return lo > 1 ? real_from_bits(",
        "multilabel_margin_loss rounds the margin of a class before it is ranked",
        ("tests/test_margin.py::test_multilabel_margin_of_many_labels",),
    ),
    Fault(
        "src_c/losses/multilabel_margin.h",
        "sum = (fl_dd){next.hi, sum.lo + next.lo};",
        "sum = (fl_dd){next.hi, 0};",
        "multilabel_margin_loss adds the gaps of sorted labels without their errors",
        ("tests/test_margin.py::test_multilabel_margin_of_many_labels",),
    ),
    Fault(
        "src_c/losses/multilabel_soft_margin.h",
        "tile[i] = w[i] == 0 ? 0 : v[i];",
        "tile[i] = v[i];",
        "multilabel_soft_margin_loss checks targets that a weight of 0 removes",
        ("tests/test_errors.py",),
    ),
    Fault(
        "src_c/losses/cosine_embedding.h",
        "row->hinge_slope = y == 1 ? -1 : z < 0 ? 0 : 1;",
        "row->hinge_slope = y == 1 ? -1 : z <= 0 ? 0 : 1;",
        "cosine_embedding_loss has no gradient exactly at the margin",
        ("tests/test_embedding.py",),
    ),
    Fault(
        "src_c/losses/triplet_margin.h",
        "pn < an ? 1 : 0.5;",
        "pn <= an ? 1 : 0.5;",
        "equal distances do not share the gradient in triplet_margin_loss",
        ("tests/test_embedding.py",),
    ),
    Fault(
        "src_c/losses/ctc_targets.h",
        "pass->lattice.skip_allowed[i] = i == 0 || label[i] != label[i - 1];",
        "pass->lattice.skip_allowed[i] = 1;",
        "CTC skips the blank between equal labels",
        ("tests/test_ctc.py",),
    ),
    # ---- vector and runtime
    Fault(
        "src_c/vector/vector_math.h",
        "q = FMA(q, r, REAL_C(0x1.5554aap-3));",
        "q = FMA(q, r, REAL_C(0x1.5556aap-3));",
        "exp of a float is off by some ULP",
        ("tests/test_math.py",),
    ),
    Fault(
        "src_c/vector/half.h",
        "uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;",
        "uint32_t rounded = (bits + 0x8000u) >> 16;",
        "ties are rounded away from zero in bfloat16",
        ("tests/test_dtypes.py",),
    ),
    Fault(
        "src_c/vector/loader_tmpl.c",
        "        out[i] = read_real(native.bytes, array->dtype);\n",
        "        out[i] = read_real(at + i * stride, array->dtype);\n",
        "arrays in swapped byte order are read without swapping",
        ("tests/test_layouts.py",),
    ),
    Fault(
        "src_c/vector/domain_check.h",
        "return bits | (one - bits);",
        "return bits;",
        "probabilities above 1 are accepted",
        ("tests/test_errors.py",),
    ),
    Fault(
        "src_c/vector/domain_check.h",
        "if (partial->error_unit == FL_NOWHERE || error[k] < recorded[k]) {",
        "if (partial->error_unit == FL_NOWHERE || error[k] > recorded[k]) {",
        "the last invalid value is reported instead of the first",
        ("tests/test_errors.py",),
    ),
    Fault(
        "src_c/vector/unit_outputs.h",
        "partial->count -= active[i] == 0;",
        "partial->count -= active[i] < 0;",
        "losses of weight 0 are counted",
        ("tests/test_weights.py",),
    ),
    Fault(
        "src_c/runtime/double_double.h",
        "return fast_two_sum(sum.hi, sum.lo + a.lo);",
        "return fast_two_sum(sum.hi, sum.lo);",
        "sums over blocks lose their low parts",
        ("tests/test_sums.py",),
    ),
    Fault(
        "src_c/runtime/plan.c",
        "g.segment_units = period > 0 && period <= most ? most / period * period : most;",
        "g.segment_units = most;",
        "blocks split the losses that share a gradient entry",
        ("tests/test_elementwise.py", "tests/test_bitwise.py"),
    ),
    Fault(
        "src_c/runtime/fp_env.h",
        "        _mm_setcsr(saved);\n",
        "        _mm_setcsr(MXCSR_DEFAULT);\n",
        "a call changes the floating-point mode of its caller",
        ("tests/test_processes.py",),
    ),
    # ---- binding
    Fault(
        "src/fastloss/_binding.pyx",
        "if dim != 1 and dim != shape[front + k]:",
        "if dim != 1 and dim < shape[front + k]:",
        "a weight may be longer than an axis of the operands",
        ("tests/test_errors.py",),
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "    return _arrays.overlap(a, b)\n",
        "    return False\n",
        "an `out` may overlap another argument that is not contiguous",
        ("tests/test_errors.py",),
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "call.divisor_scale = <double>call.row_units if self.a.reduction == BATCHMEAN else 1",
        "call.divisor_scale = 1",
        '"batchmean" is the mean',
        ("tests/test_sums.py",),
    ),
    # ---- Python
    Fault(
        "src/fastloss/_options.py",
        '("root", lambda p: p == 1.5),',
        '("root", lambda p: p == 1.25),',
        "tweedie_deviance_loss uses the formula of power 1.5 for 1.25",
        ("tests/test_elementwise.py", "tests/test_values.py"),
    ),
    Fault(
        "src/fastloss/_errors.py",
        "        inside = (inside[0] + rows, *inside[1:])\n",
        "        inside = (inside[0], *inside[1:])\n",
        "errors in later chunks name a row of the first chunk",
        ("tests/test_evaluation.py",),
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "turn.sums, turn.running = self.ordered.__copy__(), self",
        "turn.sums, turn.running = self.ordered, self",
        "a batch with an invalid group label changes the sums",
        ("tests/test_accumulators.py",),
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "return self.turn != NULL and self.turn_forks == forks",
        "return self.turn != NULL",
        "batches that a child adds after a fork within an update are not summed in order",
        ("tests/test_accumulators.py",),
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "if guarded and self._storage_hash() != storage_hash:",
        "if guarded and self._storage_hash() == 0:",
        "an array that changes while arguments are read is accessed with its former shape",
        ("tests/test_memory_safety.py",),
    ),
    Fault(
        "src_c/runtime/checked_size.h",
        "return __builtin_mul_overflow(a, b, &product) ? SIZE_MAX : product;",
        "return __builtin_mul_overflow(a, b, &product) ? product : product;",
        "scratch whose size exceeds 2^64 is allocated with a few bytes",
        ("tests/test_memory_safety.py",),
    ),
    Fault(
        "src_c/runtime/plan.c",
        "return a / b + (a % b > 0);",
        "return (a + b - 1) / b;",
        "the sum of nearly 2^63 broadcast elements is 0",
        ("tests/test_memory_safety.py",),
    ),
    Fault(
        "src/fastloss/evaluation/checkpoint.py",
        "            if saved != current:\n",
        "            if saved is None:\n",
        "an evaluation resumes from the checkpoint of another one",
        ("tests/test_resume.py",),
    ),
    Fault(
        "src/fastloss/evaluation/chunks.py",
        "if whole else math.lcm(*(max(n, 1) for n in blocks))\n",
        "if whole else max(max(n, 1) for n in blocks)\n",
        "chunks are not whole blocks of each of several losses",
        ("tests/test_evaluation.py",),
    ),
    Fault(
        "src/fastloss/criteria.py",
        "        if type(other) is not type(self):\n",
        "        if not isinstance(other, Criterion):\n",
        "criteria of different losses with equal options are equal",
        ("tests/test_criteria.py",),
    ),
    # ---- threads
    Fault(
        "src_c/runtime/worker_affinity.c",
        "    atomic_compare_exchange_strong(&self.joined->tids[self.number], &mine, 0);\n",
        "    (void)mine;\n",
        "a worker that has ended remains in the table of its team",
        ("tests/test_workers.py::test_workers_that_end_or_change_leave_their_team",),
    ),
    Fault(
        "src_c/runtime/worker_affinity.c",
        "if (self.joined == team && self.number == number)",
        "if (self.joined == team)",
        "a worker with another number in its team remains under the former one",
        ("tests/test_workers.py::test_workers_that_end_or_change_leave_their_team",),
    ),
    Fault(
        "src_c/runtime/worker_affinity.c",
        "            sched_setaffinity(tid, sizeof team->workers, &team->workers);\n",
        "            sched_setaffinity(0, sizeof team->workers, &team->workers);\n",
        "a caller that moves restricts its own affinity instead of that of its workers",
        ("tests/test_workers.py::test_workers_are_kept_off_the_processor_of_the_caller",),
    ),
    Fault(
        "src_c/runtime/worker_affinity.c",
        "    if (pthread_setspecific(exit_key, &self) != 0)\n        return;\n    self.tid",
        "    self.tid",
        "a worker does not leave its team when it ends",
        ("tests/test_workers.py::test_workers_that_end_or_change_leave_their_team",),
    ),
    Fault(
        "src_c/runtime/worker_affinity.c",
        "    if (team->placed)\n        sched_setaffinity(0,",
        "    if (0)\n        sched_setaffinity(0,",
        "a new worker may run on the processor of its caller",
        ("tests/test_workers.py::test_workers_are_kept_off_the_processor_of_the_caller",),
    ),
    Fault(
        "src_c/runtime/worker_affinity.c",
        "        CPU_CLR((size_t)cpu, &team->workers);\n",
        "        ;\n",
        "workers may run on the processor of their caller",
        ("tests/test_workers.py::test_workers_are_kept_off_the_processor_of_the_caller",),
    ),
    Fault(
        "src_c/runtime/worker_affinity.c",
        "    release(self.own);\n",
        "",
        "the team of a caller that ends is not freed",
    ),
    Fault(
        "src_c/runtime/parallel.c",
        "    fp_mode saved = fp_enter();\n    run_stretches(job, number);\n",
        "    fp_mode saved = _mm_getcsr();\n    run_stretches(job, number);\n",
        "a worker computes in the floating-point mode that other code has left in its thread",
        ("tests/test_workers.py::test_floating_point_mode_of_workers",),
    ),
    Fault(
        "src_c/runtime/parallel.c",
        "        atomic_store(&orphaned, true);\n",
        "        ;\n",
        "a forked child starts threads although its parent has used them",
        ("tests/test_processes.py::test_fork_after_threads",),
    ),
    Fault(
        "src_c/runtime/parallel.c",
        "    if (omp_in_parallel())\n        return 1;\n",
        "",
        "a call within a parallel region of another library reports the threads of a nested team",
        ("tests/test_workers.py::test_calls_within_a_team_of_another_library",),
    ),
    Fault(
        "src_c/runtime/parallel.c",
        "if (worker_stack_bytes < FL_STACK_BYTES) /* a block would overrun it */",
        "if (0)",
        "workers whose stacks are too small run blocks",
        ("tests/test_processes.py::test_small_stacks_of_workers",),
    ),
    Fault(
        "src_c/runtime/parallel.c",
        "        syscall(SYS_futex, &job->finished, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);\n",
        "        ;\n",
        "a caller that sleeps is not woken by the last worker",
        ("tests/test_ctc.py::test_split_sequences_are_bitwise_identical",),
    ),
    Fault(
        "src_c/runtime/parallel.c",
        "i == 0 ? first + job->grain : first",
        "first",
        "the first blocks are computed twice",
        ("tests/test_bitwise.py::test_out_is_the_argument_on_several_threads",),
    ),
    Fault(
        "src_c/runtime/parallel.c",
        "job->first + evenly(job->blocks, i + 1, job->stretches)",
        "first + job->blocks / job->stretches",
        "blocks that the stretches do not share evenly are left out",
        ("tests/test_bitwise.py::test_out_is_the_argument_on_several_threads",),
    ),
    Fault(
        "src_c/runtime/parallel.c",
        "possible < wanted ? now() + RETRY_SECONDS : 0;",
        "possible < wanted ? now() + 1e9 * RETRY_SECONDS : 0;",
        "a thread that could not be created once is never tried again",
        ("tests/test_workers.py::test_workers_that_can_be_created_again",),
    ),
    Fault(
        "src_c/runtime/thread_supply.c",
        "        pthread_join(threads[i].thread, NULL);\n",
        "        ;\n",
        "threads that were created as a test are not joined",
    ),
    Fault(
        "src_c/runtime/totals.c",
        "    fp_mode saved = fp_enter();\n    const int is_sum_finite",
        "    fp_mode saved = _mm_getcsr();\n    const int is_sum_finite",
        "sums are merged in the floating-point mode of the caller",
        ("tests/test_processes.py::test_floating_point_mode_of_the_caller",),
    ),
    # ---- memory
    Fault(
        "src_c/runtime/scratch_pool.c",
        "            return;\n    }\n    free(h);\n",
        "            return;\n    }\n    (void)h;\n",
        "scratch memory that the pool does not keep is not freed",
    ),
    Fault(
        "src_c/runtime/scratch_pool.c",
        "if (h && h->bytes >= bytes)",
        "if (h)",
        "scratch memory from the pool may be too small",
        ("tests/test_ctc.py::test_split_sequences_are_bitwise_identical",),
    ),
    Fault(
        "src_c/runtime/run.c",
        "        partial = on_stack;\n        batch = STACK_PARTIALS;\n",
        "        partial = on_stack;\n",
        "without memory for partials, those on the stack are overrun",
    ),
    Fault(
        "src_c/runtime/run.c",
        "    if (partial != on_stack)\n        free(partial);\n",
        "",
        "the partials of a call with many blocks are not freed",
    ),
    Fault(
        "src_c/runtime/run.c",
        "    free_split_state(call);\n    fp_leave(saved);\n",
        "    if (status == FL_OK)\n        free_split_state(call);\n    fp_leave(saved);\n",
        "the state of split units is not freed after an error or interrupt",
    ),
    Fault(
        "src_c/losses/ctc_alpha_beta.h",
        "    if (is_feasible && !ctc_load_labels(call, n, pass->label_slot, partial)) {\n"
        "        fl_scratch_free(pass);\n",
        "    if (is_feasible && !ctc_load_labels(call, n, pass->label_slot, partial)) {\n",
        "a sample with an invalid label leaks a pass of CTC",
    ),
    Fault(
        "src_c/losses/multilabel_margin.h",
        "    if (scratch_bytes > sizeof stack)\n",
        "    if (scratch_bytes > 2 * sizeof stack)\n",
        "multilabel_margin_loss overruns the stack with rows of more than one tile",
        ("tests/test_margin.py::test_multilabel_margin_of_long_rows",),
        "sanitizers",
    ),
    # ---- driver and plan
    Fault(
        "src_c/runtime/run.c",
        "    if (status == FL_OK && ask_for_interrupt(interrupt))\n"
        "        status = FL_INTERRUPTED;\n",
        "",
        "an interrupt in the first half of a split unit is noticed after the second",
        ("tests/test_processes.py::test_ctrl_c_in_the_first_half_of_a_sequence",),
    ),
    Fault(
        "src_c/runtime/run.c",
        "                status = FL_BAD_VALUE;\n                break;\n",
        "                status = FL_BAD_VALUE;\n",
        "the invalid value of the last block of a batch is reported",
        (
            "tests/test_errors.py::test_the_lowest_of_many_positions_is_reported",
            "tests/test_errors.py::test_the_lowest_position_wins_whichever_argument_it_is_in",
        ),
    ),
    Fault(
        "src_c/runtime/run.c",
        "            spanning->sum[k] = (fl_dd){0, 0};\n",
        "",
        "a gradient entry that several blocks share includes the entry before it",
        ("tests/test_elementwise.py",),
    ),
    Fault(
        "src_c/runtime/run.c",
        "    else if (status == FL_OK)\n        status = run_phase(call, FL_MAIN,",
        "    else if (status == FL_OK || status == FL_BAD_VALUE)\n"
        "        status = run_phase(call, FL_MAIN,",
        "results are written although the operands were found to be invalid",
        ("tests/test_errors.py::test_labels_are_checked_before_anything_is_written",),
    ),
    # ---- lattice
    Fault(
        "src_c/losses/ctc_alpha_beta.h",
        "        recompute->lattice.exponent_headroom = 0;\n",
        "",
        "rows that CTC recomputes continue with the exponents of others",
        ("tests/test_ctc.py::test_long_sequences",),
    ),
    Fault(
        "src_c/losses/ctc_alpha_beta.h",
        "opposite->resident_rows > 0 && !pass->has_scaled_frame &&\n"
        "           !opposite->has_scaled_frame;\n",
        "opposite->resident_rows > 0;\n",
        "CTC reuses probabilities of frames that have exponents without these",
        ("tests/test_ctc.py::test_probabilities_beyond_the_range_of_a_double",),
    ),
    # ---- rows of classes
    Fault(
        "src_c/losses/multilabel_margin.h",
        "                record_error(partial, first + i, 1, j);\n"
        "                rows[i].active = 0;\n",
        "                record_error(partial, first + i, 1, j);\n",
        "multilabel_margin_loss computes a row with an invalid label",
        ("tests/test_margin.py::test_multilabel_margin_reads_nothing_at_an_invalid_label",),
    ),
    # ---- loader
    Fault(
        "src_c/vector/loader_tmpl.c",
        "    stream_words(to, from, at);\n",
        "    memcpy(to, from, (size_t)(at & ~3));\n",
        "the last half before the first whole cache line of a large gradient is not written",
        ("tests/test_layouts.py::test_large_half_gradients_at_every_offset",),
    ),
    Fault(
        "src_c/vector/loader_tmpl.c",
        "READ(uint64_t, from) > INT64_MAX ? INT64_MIN :",
        "READ(uint64_t, from) > INT64_MAX ? -1 :",
        "labels from 2^63 on are read as -1",
        (
            "tests/test_errors.py::test_class_indices_of_every_integer_type_are_checked",
            "tests/test_errors.py::test_only_the_ignored_index_is_ignored",
        ),
    ),
    Fault(
        "src_c/vector/loader_tmpl.c",
        "count = rows - k < TILE ? rows - k : TILE;",
        "count = TILE;",
        "zeros are written after the last row of a strided gradient",
        ("tests/test_nll.py::test_gradients_in_part_of_an_array",),
    ),
    Fault(
        "src_c/vector/loader_tmpl.c",
        "if (s.entry_stride == item && (s.row_stride == size * item || rows == 1)) {",
        "if (s.entry_stride == item) {",
        "zeros are written between the rows of a strided gradient",
        ("tests/test_nll.py::test_gradients_in_part_of_an_array",),
    ),
    Fault(
        "src_c/vector/loader_tmpl.c",
        "if (array->non_temporal && stride == item_size[array->dtype]) {",
        "if (array->non_temporal) {",
        "a large gradient that is strided or reversed is written as if it were contiguous",
        ("tests/test_layouts.py::test_large_gradients_in_views",),
    ),
    # ---- binding
    Fault(
        "src/fastloss/_binding.pyx",
        "    f.is_direct = dtype == compute and not f.swapped and cnp.PyArray_ISALIGNED(a)\n",
        "    f.is_direct = dtype == compute and not f.swapped\n",
        "unaligned arrays are used in place",
        ("tests/test_layouts.py::test_layouts",),
        "sanitizers",
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "            e.low += reach\n",
        "            pass\n",
        "an `out` may overlap another argument that is a reversed view",
        ("tests/test_errors.py::test_bad_out_raises_and_nothing_is_written",),
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "            and cnp.PyArray_CompareLists(cnp.PyArray_STRIDES(a), cnp.PyArray_STRIDES(b),\n"
        "                                         cnp.PyArray_NDIM(a))\n",
        "",
        "an `out` may be the differentiated argument with other strides",
        ("tests/test_errors.py::test_bad_out_raises_and_nothing_is_written",),
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "    forks += 1\n    main_thread = threading.main_thread().ident\n",
        "    forks += 1\n",
        "a child that a thread has forked does not notice interrupts",
        ("tests/test_processes.py::test_ctrl_c_in_a_child_of_a_thread",),
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "        self._hold_ref(name, array)\n        fill_broadcast_array(",
        "        if array is value:\n            self._hold_ref(name, array)\n"
        "        fill_broadcast_array(",
        "a weight that was converted is freed before it is read",
        ("tests/test_accumulators.py::test_a_weight_that_is_a_number",),
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "        self._hold_ref(None, array)\n        argument[0] =",
        "        argument[0] =",
        "an array-like that was converted is freed before it is read",
        ("tests/test_weights.py",),
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "n > 0 and not 0 <= index.min() <= index.max() < len(groups)",
        "n > 0 and not 0 <= index.min() <= index.max() <= len(groups)",
        "the index of a group may be the number of groups",
        ("tests/test_accumulators.py::test_units_without_a_group",),
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "        valid &= cnp.PyArray_ISBEHAVED_RO(lengths)\n",
        "",
        "lengths of sequences in swapped byte order are read without swapping",
        ("tests/test_ctc.py::test_lengths_of_every_byte_order",),
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "        sums = self._merged(turn.sums)\n",
        "        sums = turn.sums\n",
        "what others add to an accumulator during an update is lost",
        ("tests/test_accumulators.py",),
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "        h = add_storage_hash(h, self.a.sample_weight)\n",
        "",
        "sample weights that change while arguments are read are accessed with their former shape",
        (
            "tests/test_memory_safety.py::test_an_array_that_changes_after_the_conversions_is_refused",
        ),
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "        if self.dtype[1] == FL_U64 and call.ignore_index < 0:\n",
        "        if False:\n",
        "labels from 2^63 on are ignored with ignore_index=-2**63",
        ("tests/test_errors.py::test_only_the_ignored_index_is_ignored",),
    ),
    Fault(
        "src/fastloss/_binding.pyx",
        "or (self.in_place and checked)\n",
        "\n",
        "an argument is overwritten before its values are checked",
        ("tests/test_errors.py::test_an_out_that_is_an_input_survives_an_error",),
    ),
    # ---- evaluation
    Fault(
        "src/fastloss/evaluation/files.py",
        "            stream.truncate(0)\n",
        "",
        "a temporary file that a killed process has left keeps its end",
        ("tests/test_resume.py::test_what_a_killed_process_left_is_used_again",),
    ),
    Fault(
        "src/fastloss/evaluation/files.py",
        "    while len(view):\n        view = view[stream.write(view) :]\n",
        "    stream.write(view)\n",
        "the remainder of a short write is lost",
        ("tests/test_resume.py::test_power_cuts",),
    ),
    Fault(
        "src/fastloss/evaluation/files.py",
        "    os.replace(temporary, path)\n    sync_folder(os.path.dirname(path))\n",
        "    os.replace(temporary, path)\n",
        "the name of a file is not on the disk when the next step begins",
        ("tests/test_resume.py::test_power_cuts",),
    ),
    Fault(
        "src/fastloss/evaluation/files.py",
        "if not locked or os.path.samestat(os.fstat(stream.fileno()), os.stat(path)):",
        "if True:",
        "the lock of a file that its holder has deleted counts as the lock of the name",
        ("tests/test_resume.py::test_the_lock_of_a_deleted_file_is_not_the_lock_of_its_name",),
    ),
    Fault(
        "src/fastloss/evaluation/checkpoint.py",
        "                files.sync(stream)\n",
        "",
        "a checkpoint gets its name before its contents are on the disk",
        ("tests/test_resume.py::test_power_cuts",),
    ),
    Fault(
        "src/fastloss/evaluation/writers.py",
        "            if not self._durable_name:\n",
        "            if False:\n",
        "the losses that a checkpoint records are in a file whose name is not on the disk",
        ("tests/test_resume.py::test_power_cuts_with_the_state_in_another_folder",),
    ),
    Fault(
        "src/fastloss/evaluation/writers.py",
        "self._header())\n            files.sync(self._stream)\n",
        "self._header())\n",
        "a file of losses gets its name before its contents are on the disk",
        ("tests/test_resume.py::test_power_cuts",),
    ),
    Fault(
        "src/fastloss/evaluation/evaluator.py",
        "        for writer in writers:\n"
        "            writer.publish()\n"
        "        if self._checkpoint_file is not None:\n"
        "            self._checkpoint_file.remove()\n",
        "        if self._checkpoint_file is not None:\n"
        "            self._checkpoint_file.remove()\n"
        "        for writer in writers:\n"
        "            writer.publish()\n",
        "the state is removed before the files of losses are published",
        ("tests/test_resume.py::test_power_cuts",),
    ),
    Fault(
        "src/fastloss/evaluation/evaluator.py",
        "            self._save_checkpoint()  # a kill may leave some of the files complete\n",
        "            pass\n",
        "the last losses are not in the state when files are published",
        ("tests/test_resume.py::test_power_cuts_after_the_last_chunk",),
    ),
    Fault(
        "src/fastloss/evaluation/evaluator.py",
        "if self._has_progress and not self._chunk_is_partial:",
        "if self._has_progress:",
        "a state is saved after some of several criteria have added a chunk",
        ("tests/test_resume.py::test_a_chunk_that_only_some_criteria_accepted_is_evaluated_again",),
    ),
    Fault(
        "src/fastloss/evaluation/evaluator.py",
        "            if writer is not None:\n                writer.flush()\n",
        "            pass\n",
        "a checkpoint records losses that are not on the disk",
        ("tests/test_resume.py::test_power_cuts",),
    ),
    Fault(
        "src/fastloss/evaluation/evaluator.py",
        "            check_not_read(self._target_storages, self._reader.chunk_storages(chunk))\n",
        "            pass\n",
        "losses may be written into the memory of a batch from a generator",
        ("tests/test_evaluation.py::test_per_sample_must_not_be_memory_of_a_later_row_or_batch",),
    ),
    Fault(
        "src/fastloss/evaluation/chunks.py",
        "            yield start, arrays\n            free.put(buffers)\n",
        "            free.put(buffers)\n            yield start, arrays\n",
        "the next chunk is read into the memory of the current one",
        ("tests/test_evaluation.py::test_chunks_are_read_ahead",),
    ),
    Fault(
        "src/fastloss/evaluation/chunks.py",
        "        if any(count != position for count in rows):\n",
        "        if False:\n",
        "a state whose sums have other rows than its position is accepted",
        ("tests/test_resume.py::test_contradictions_are_refused_despite_the_right_checksum",),
    ),
    Fault(
        "src/fastloss/evaluation/accumulators.py",
        "        if count != (0 if self._by is None else sums.count):\n",
        "        if False:\n",
        "sums of groups that contradict the sums of all losses are accepted",
        ("tests/test_evaluation.py::test_counts_that_would_overflow_are_refused",),
    ),
    Fault(
        "src/fastloss/evaluation/comparison.py",
        "        differences = terms - others\n",
        "        differences = terms\n",
        "the losses of a baseline are not subtracted",
        ("tests/test_comparison.py::test_the_difference_is_the_one_of_paired_losses",),
    ),
    Fault(
        "src/fastloss/evaluation/comparison.py",
        "        if all(a == b or a != a or b != b for a, b in zip(shape, other, strict=True)):\n",
        "        if True:\n",
        "the shapes of input and baseline may differ",
        ("tests/test_comparison.py::test_invalid_calls",),
    ),
    Fault(
        "src/fastloss/evaluation/comparison.py",
        "    if infinite.any() and (np.isfinite(terms) & np.isfinite(others))[infinite].any():\n",
        "    if False:\n",
        "a difference that overflows is infinite",
        ("tests/test_comparison.py::test_a_difference_that_overflows_is_an_error",),
    ),
    Fault(
        "src/fastloss/evaluation/comparison.py",
        "    if not (\n        np.array_equal(units.unit_counted",
        "    if False and not (\n        np.array_equal(units.unit_counted",
        "targets that change between input and baseline are accepted",
        ("tests/test_comparison.py::test_targets_that_change_between_input_and_baseline",),
    ),
    Fault(
        "src/fastloss/evaluation/accumulators.py",
        "running.commit(turn, pair.added_to(groups, turn.sums), version)",
        "running.commit(turn, pair.added_to(groups, turn.sums), running.version)",
        "what others add to a comparison during an update is lost",
        ("tests/test_comparison.py::test_updates_within_an_update",),
    ),
    Fault(
        "src/fastloss/evaluation/accumulators.py",
        '                others = _binding.group_copies(groups, [("baseline",)], turn.sums)\n',
        '                others = {("baseline",): turn.sums.next_rows()}\n',
        "a batch replaces the sums of the baseline",
        ("tests/test_comparison.py::test_input_and_baseline_are_bitwise_those_alone",),
    ),
    Fault(
        "src/fastloss/evaluation/accumulators.py",
        '        added["difference",] = _with_rows_of(self._others["baseline",], total)\n',
        '        added["difference",] = total\n',
        "the difference does not count its rows",
        ("tests/test_comparison.py::test_updates_within_an_update",),
    ),
    Fault(
        "src/fastloss/evaluation/accumulators.py",
        'grouped.of_part("difference", units)',
        'grouped.of_part("difference", self._other_units)',
        "the differences of groups are losses of the baseline",
        ("tests/test_comparison.py::test_groups_are_the_difference_of_each_group_alone",),
    ),
    Fault(
        "src/fastloss/evaluation/accumulators.py",
        "    if (part_sums.count, part_sums.rows) != (sums.count, sums.rows) or (\n",
        "    if False and (\n",
        "sums of a comparison that contradict each other are accepted",
        ("tests/test_comparison.py::test_contradictory_states_are_refused",),
    ),
    Fault(
        "src/fastloss/evaluation/chunks.py",
        "        by_name = {**dict(zip(self._names, values, strict=True)), **baseline}\n",
        "        by_name = dict(zip(self._names, values, strict=True))\n",
        "a comparison resumes with other batches of the baseline",
        ("tests/test_comparison.py::test_the_state_of_another_comparison_is_refused",),
    ),
    Fault(
        "src/fastloss/evaluation/chunks.py",
        '            by_name |= {"sample_weight": chunk.sample_weight, **chunk.baseline}\n',
        '            by_name |= {"sample_weight": chunk.sample_weight}\n',
        "losses are written into the baseline of a batch",
        ("tests/test_comparison.py::test_the_file_of_the_baseline_is_not_written",),
    ),
    Fault(
        "src/fastloss/evaluation/evaluator.py",
        "baseline=baseline and with_classes_moved(criterion, axis, baseline)",
        "baseline=baseline",
        "class_axis does not apply to the baseline",
        ("tests/test_comparison.py::test_classes_on_the_last_axis",),
    ),
    Fault(
        "src/fastloss/evaluation/evaluator.py",
        '                "baseline": self._compares,\n',
        "",
        "the state of a comparison does not say so",
        ("tests/test_comparison.py::test_the_state_of_another_comparison_is_refused",),
    ),
    Fault(
        "src/fastloss/evaluation/dask.py",
        "        {key: arrays[key] for key in baseline},\n",
        "        {key: arrays[criteria[0].loss.operands[0]] for key in baseline},\n",
        "Dask compares the input with itself",
        ("tests/test_comparison.py::test_dask",),
    ),
]


def apply(fault, root):
    path = root / fault.path
    source = path.read_text(encoding="utf-8")
    if source.count(fault.text) != 1:
        raise ValueError(f"{fault.path} does not contain this text once: {fault.text!r}")
    path.write_text(source.replace(fault.text, fault.replacement), encoding="utf-8")


class Clone:
    """A clone of HEAD in a folder, with the extension built in place."""

    def __init__(self, folder, sanitize=""):
        self.root, self._sanitize = folder, sanitize
        self._built = False  # without a fault
        if not (folder / ".git").exists():
            subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
        else:
            self._git("fetch", "-q", str(ROOT), "HEAD")
            self._git("reset", "-q", "--hard", "FETCH_HEAD")
        (folder / "tests/test_seeded_faults.py").unlink()

    def _git(self, *arguments):
        subprocess.run(["git", *arguments], cwd=self.root, check=True)

    def seed(self, fault):
        """Applies a fault to the sources and builds."""
        self._git("checkout", "-q", "src", "src_c")
        compiled = not fault.path.endswith(".py")
        if compiled or not self._built:
            self._built = False
            apply(fault, self.root)
            self._build()
            self._built = not compiled
        else:
            apply(fault, self.root)

    def _build(self):
        result = self._run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"])
        if result.returncode != 0:
            raise RuntimeError(f"the fault does not compile:\n{result.stderr}")

    def _run(self, command, preload=False, timeout=None):
        environment = {**os.environ, "PYTHONPATH": str(self.root / "src")}
        if shutil.which("ccache"):
            environment.setdefault("CC", "ccache gcc")
            environment.setdefault("CCACHE_NOHASHDIR", "1")  # debugging symbols name the folder
        if self._sanitize:
            environment["FASTLOSS_SANITIZE"] = self._sanitize
        if self._sanitize and preload:
            environment |= sanitizer_environment()
        return subprocess.run(
            command,
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
        )

    def first_failure(self, tests, complete=False):
        """The first of the tests that fails, None if all pass."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider"]
        if self._sanitize or any(tests):
            command += ["-p", "no:xdist"]
        if self._sanitize:
            command.append("--capture=sys")  # else reports of sanitizers are lost
        if complete:
            command.append("--complete")
        timeout = AIMED_TIMEOUT if tests else TIMEOUT
        try:
            result = self._run([*command, *tests], preload=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return f"the tests do not end within {timeout} s"
        if result.returncode == 0:
            return None
        failures = re.findall(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", result.stdout, re.M)
        if failures:
            return failures[0]
        report = re.search(r"ERROR: AddressSanitizer: \S+|runtime error: .*", result.stderr)
        if report:
            return report[0]
        if result.returncode < 0:
            name = signal.Signals(-result.returncode).name
            test = re.findall(r'File "\S*/(tests/test_\w+\.py)", line \d+ in (\w+)', result.stderr)
            return f"{name} in {'::'.join(test[-1]) if test else 'an unknown test'}"
        output = (result.stdout + result.stderr)[-2000:]
        raise RuntimeError(f"pytest ended with {result.returncode}:\n{output}")


def sanitizer_environment():
    """The environment in which .ci/run executes tests with sanitizers."""
    libraries = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    return {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "halt_on_error=1",
        "PYTHONMALLOC": "malloc",
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", type=int, help="numbers of faults; default: all")
    parser.add_argument("--aimed", action="store_true", help="run only the tests that rows name")
    parser.add_argument("--folder", type=Path, help="keep the clones here for the next run")
    options = parser.parse_args(arguments)
    rows = options.rows or range(1, len(FAULTS) + 1)
    survivors, clones = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(exist_ok=True)
        for number in rows:
            fault, begin = FAULTS[number - 1], time.monotonic()
            sanitize = SANITIZERS if fault.needs == "sanitizers" else ""
            if sanitize not in clones:
                clones[sanitize] = Clone(folder / ("sanitized" if sanitize else "clone"), sanitize)
            clone, complete = clones[sanitize], fault.needs == "complete"
            clone.seed(fault)
            failure = clone.first_failure(fault.tests, complete) if fault.tests else None
            if not (failure or sanitize or options.aimed):
                failure = clone.first_failure((), complete)
            if failure is None:
                survivors.append(number)
            seconds = time.monotonic() - begin
            print(f"{number:>2}  {fault.path}: {fault.effect}", flush=True)
            print(f"    {failure or 'NOT FOUND'} ({seconds:.0f} s)", flush=True)
    print(f"{len(rows) - len(survivors)} of {len(rows)} faults found")
    if survivors:
        print("survivors:", *survivors)
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
