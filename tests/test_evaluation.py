"""fl.evaluate: the value of one call in bounded memory, or one clear error."""

import contextlib
import io
import itertools
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import types
import zipfile

import numpy as np
import pytest

import fastloss as fl
from fastloss.evaluation import chunks
from tests.stored_arrays import stored

ALL = [getattr(fl, name) for name in fl.losses.__all__]
LOSSES = [loss for loss in ALL if "input_lengths" not in getattr(loss, "operands", "input_lengths")]
ELEMENTWISE = [loss for loss in LOSSES if loss.row_axis is None]


def make(loss, shape, dtype=np.float32, seed=0):
    """Valid arrays for a loss; a row is along the axis that the loss takes."""
    rng = np.random.default_rng(seed)
    axis = None if loss.row_axis is None else min(loss.row_axis, len(shape) - 1)
    arrays = []
    for _, extent, domain in loss.operand_specs[loss.formula_of()]:
        array = rng.uniform(0.05, 0.95, shape).astype(dtype)
        if extent == "unit" and axis is not None:
            array = array.take(0, axis)
        if domain == "index":
            array = (array * shape[axis]).astype(int)
        elif domain == "labels":
            array = (array * (shape[axis] + 1)).astype(int) - 1
        elif domain == "sign":
            array = np.where(array < 0.5, -1, 1).astype(dtype)
        arrays.append(array)
    return arrays


CRITERIA = {getattr(fl, name).loss: getattr(fl, name) for name in fl.criteria.__all__}
EVALUATE_OPTIONS = ("chunk_rows", "threads", "per_sample", "progress", "sample_weight")


def evaluate_files(loss, paths, **options):
    """Evaluates a loss over files, as the criterion with its options."""
    evaluate_options = {name: options.pop(name) for name in EVALUATE_OPTIONS if name in options}
    return fl.evaluate(CRITERIA[loss](**options), *paths, **evaluate_options)


def save(folder, arrays):
    paths = [folder / f"{index}.npy" for index in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    return paths


def save_npz(folder, arrays, savez=np.savez):
    savez(folder / "arrays.npz", **{f"a{index}": array for index, array in enumerate(arrays)})
    return [f"{folder}/arrays.npz:a{index}" for index in range(len(arrays))]


def bits(number):
    return np.float64(number).tobytes()


def check(loss, paths, arrays, **options):
    """Evaluates files and compares every figure bitwise with one call of the loss."""
    evaluate_options = {
        name: options.pop(name)
        for name in ("chunk_rows", "threads", "per_sample")
        if name in options
    }
    weights = {name: options.pop(name) for name in list(options) if name.endswith("weight")}
    folder = os.path.dirname(str(paths[0]))
    weight_files = {name: f"{folder}/{name}.npy" for name in weights}
    for name, path in weight_files.items():
        np.save(path, weights[name])
    result = evaluate_files(loss, paths, **evaluate_options, **weight_files, **options)
    reduction = options.pop("reduction", "mean")
    assert bits(result.value) == bits(loss(*arrays, reduction=reduction, **weights, **options))
    sums = loss.sums(*arrays, reduction=reduction, **weights, **options)
    assert list(map(bits, (result.sum, result.weight))) == list(map(bits, sums[:2]))
    assert result.count == sums[2]
    return result


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_chunks_are_bitwise_identical_to_one_call(loss, dtype, tmp_path):
    block = loss._rows_per_block((10**6, 7))
    rows = 5 * block + 17
    arrays = make(loss, (rows, 7), dtype)
    paths = save(tmp_path, arrays)
    for chunk_rows in (1, block, block + 1, 2 * block, rows, 10 * rows, None):
        result = check(loss, paths, arrays, chunk_rows=chunk_rows)
        assert result.rows == rows
        assert result.bytes == sum(array.nbytes for array in arrays)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("shape", [(3,), (1, 4), (5, 4), (6, 3, 2), (4, 3, 2, 5), (0, 3)], ids=str)
def test_shapes(loss, shape, tmp_path):
    arrays = make(loss, shape)
    check(loss, save(tmp_path, arrays), arrays, chunk_rows=1)


@pytest.mark.parametrize("loss", ELEMENTWISE, ids=lambda loss: loss.__name__)
def test_0d_arrays(loss, tmp_path):
    arrays = make(loss, ())
    check(loss, save(tmp_path, arrays), arrays)


def test_a_leading_class_axis_is_not_cut(tmp_path):
    arrays = make(fl.cross_entropy, (100_000,))
    weight = np.linspace(0.5, 1.5, 100_000, dtype=np.float32)
    check(fl.cross_entropy, save(tmp_path, arrays), arrays, chunk_rows=1, weight=weight)


def test_a_0d_array_applies_to_every_row(tmp_path):
    arrays = [np.arange(10_000.0), np.array(3.0)]
    check(fl.mse_loss, save(tmp_path, arrays), arrays, chunk_rows=1)
    arrays.reverse()
    check(fl.mse_loss, save(tmp_path, arrays), arrays, chunk_rows=1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean"])
def test_reductions(reduction, tmp_path):
    arrays = make(fl.kl_div, (5000, 3))
    check(fl.kl_div, save(tmp_path, arrays), arrays, reduction=reduction, log_target=True)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads(threads, tmp_path):
    arrays = make(fl.mse_loss, (300_000,))
    before = fl.get_num_threads()
    result = check(fl.mse_loss, save(tmp_path, arrays), arrays, threads=threads)
    assert result.threads == threads
    assert fl.get_num_threads() == before


# ---- weights -------------------------------------------------------------------------------------


def class_case(rows=3000, classes=4):
    return make(fl.cross_entropy, (rows, classes))


def test_class_weights_apply_to_every_row(tmp_path):
    arrays = class_case()
    weight = np.array([1.0, 2.0, 0.5, 0.0], np.float32)
    check(fl.cross_entropy, save(tmp_path, arrays), arrays, weight=weight, chunk_rows=1)
    arrays = class_case(4, 4)
    check(fl.cross_entropy, save(tmp_path, arrays), arrays, weight=weight, label_smoothing=0.1)


@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (9000, 1), (9000, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("name", ["weight", "pos_weight"])
def test_elementwise_weights_broadcast(name, shape, tmp_path):
    loss = fl.binary_cross_entropy_with_logits
    arrays = make(loss, (9000, 3))
    weight = np.random.default_rng(1).uniform(0.5, 2, shape).astype(np.float32)
    check(loss, save(tmp_path, arrays), arrays, chunk_rows=1, **{name: weight})


def test_a_1d_weight_of_a_square_input_runs_along_its_last_axis(tmp_path):
    arrays = make(fl.mse_loss, (200, 200))
    check(fl.mse_loss, save(tmp_path, arrays), arrays, weight=np.arange(200.0), chunk_rows=1)


@pytest.mark.parametrize("shape", [(9000,), (9000, 3)], ids=str)
def test_sample_weight_is_cut_by_rows(shape, tmp_path):
    arrays = make(fl.mse_loss, (9000, 3))
    weight = np.random.default_rng(1).uniform(0.5, 2, shape)
    check(fl.mse_loss, save(tmp_path, arrays), arrays, sample_weight=weight, chunk_rows=1)


@pytest.mark.parametrize("shape", [(9000, 3), (9000,), (9000, 1), ()], ids=str)
def test_shapes_of_variances(shape, tmp_path):
    loss = fl.gaussian_nll_loss
    arrays = make(loss, (9000, 3))
    arrays[2] = np.random.default_rng(1).uniform(0.5, 2, shape).astype(np.float32)
    check(loss, save(tmp_path, arrays), arrays, chunk_rows=1, full=True)


def test_a_variance_shared_by_all_rows(tmp_path):
    """One call sums by columns, so that the last bits may differ."""
    arrays = make(fl.gaussian_nll_loss, (9000, 3), np.float64)
    arrays[2] = arrays[2][:1]
    result = evaluate_files(fl.gaussian_nll_loss, save(tmp_path, arrays), chunk_rows=1)
    assert result.value == pytest.approx(fl.gaussian_nll_loss(*arrays), rel=1e-13)


# ---- formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)], ids=str)
def test_npy_versions(version, tmp_path):
    arrays = class_case()
    paths = [tmp_path / "x.npy", tmp_path / "y.npy"]
    for path, array in zip(paths, arrays, strict=True):
        with open(path, "wb") as file:
            np.lib.format.write_array(file, array, version=version)
    check(fl.cross_entropy, paths, arrays)


@pytest.mark.parametrize("savez", [np.savez, np.savez_compressed])
def test_npz_members(savez, tmp_path):
    arrays = make(fl.mse_loss, (300_000, 2))
    paths = save_npz(tmp_path, arrays, savez)
    check(fl.mse_loss, paths, arrays)
    check(fl.mse_loss, [path + ".npy" for path in paths], arrays)


def test_npz_with_one_member_needs_no_name(tmp_path):
    arrays = class_case()
    np.savez(tmp_path / "x.npz", arrays[0])
    np.save(tmp_path / "y.npy", arrays[1])
    check(fl.cross_entropy, [tmp_path / "x.npz", tmp_path / "y.npy"], arrays)


@pytest.mark.parametrize("shape", [(5000, 3), (2000, 3, 4)], ids=str)
def test_fortran_order(shape, tmp_path):
    arrays = make(fl.cross_entropy, shape)
    paths = save(tmp_path, [np.asfortranarray(array) for array in arrays])
    assert b"'fortran_order': True" in paths[0].read_bytes()[:128]
    check(fl.cross_entropy, paths, arrays, chunk_rows=1)


@pytest.mark.parametrize("order", ["<", ">"])
def test_byte_order(order, tmp_path):
    arrays = class_case()
    paths = save(tmp_path, [a.astype(a.dtype.newbyteorder(order)) for a in arrays])
    check(fl.cross_entropy, paths, arrays)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8"])
def test_integer_dtypes_of_labels(dtype, tmp_path):
    arrays = class_case()
    arrays[1] = arrays[1].astype(dtype)
    check(fl.cross_entropy, save(tmp_path, arrays), arrays)


def test_one_file_may_be_read_as_two_arrays(tmp_path):
    array = np.arange(9000.0)
    np.save(tmp_path / "x.npy", array)
    assert evaluate_files(fl.mse_loss, [tmp_path / "x.npy"] * 2).value == 0.0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_read_in_order(tmp_path):
    arrays = make(fl.mse_loss, (300_000,))
    paths = save(tmp_path, arrays)
    pipe = tmp_path / "pipe.npy"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(paths[0].read_bytes()))
    writer.start()
    result = evaluate_files(fl.mse_loss, [pipe, paths[1]])
    writer.join()
    assert bits(result.value) == bits(fl.mse_loss(*arrays))


# ---- unreduced losses ----------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("chunk_rows", [1, None])
def test_per_sample_is_the_unreduced_loss(loss, chunk_rows, tmp_path):
    arrays = make(loss, (9001, 3))
    out = tmp_path / "out.npy"
    check(loss, save(tmp_path, arrays), arrays, per_sample=out, chunk_rows=chunk_rows)
    expected = loss(*arrays, reduction="none")
    written = np.load(out)
    assert (written.dtype, written.shape) == (expected.dtype, expected.shape)
    assert written.tobytes() == expected.tobytes()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("shape", [(), (3,), (0,), (0, 3)], ids=str)
def test_per_sample_of_0d_and_empty_arrays(shape, tmp_path):
    arrays = make(fl.mse_loss, shape)
    out = tmp_path / "out.npy"
    evaluate_files(fl.mse_loss, save(tmp_path, arrays), per_sample=out)
    assert np.array_equal(np.load(out), fl.mse_loss(*arrays, reduction="none"))


def test_per_sample_of_one_row_of_classes(tmp_path):
    arrays = make(fl.cross_entropy, (5,))
    out = tmp_path / "out.npy"
    evaluate_files(fl.cross_entropy, save(tmp_path, arrays), per_sample=out)
    assert np.load(out) == fl.cross_entropy(*arrays, reduction="none")


def test_per_sample_appears_only_when_complete(tmp_path):
    arrays = class_case(9000)
    arrays[1][8000] = 4
    paths = save(tmp_path, arrays)
    (tmp_path / "out.npy").write_text("old")
    with pytest.raises(fl.ClassIndexError):
        evaluate_files(fl.cross_entropy, paths, per_sample=tmp_path / "out.npy", chunk_rows=1)
    assert (tmp_path / "out.npy").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 3


def test_per_sample_may_replace_a_link_to_another_file(tmp_path):
    arrays = make(fl.mse_loss, (9000,))
    paths = save(tmp_path, arrays)
    (tmp_path / "old.npy").write_text("old")
    (tmp_path / "out.npy").symlink_to("old.npy")
    check(fl.mse_loss, paths, arrays, per_sample=tmp_path / "out.npy", chunk_rows=1)
    assert (tmp_path / "out.npy").is_symlink()
    assert np.array_equal(np.load(tmp_path / "old.npy"), fl.mse_loss(*arrays, reduction="none"))


def test_per_sample_replaces_regular_files_only(tmp_path):
    paths = save(tmp_path, make(fl.mse_loss, (3,)))
    with pytest.raises(ValueError, match="not a regular file"):
        evaluate_files(fl.mse_loss, paths, per_sample=tmp_path)
    with pytest.raises(FileNotFoundError, match="missing"):
        evaluate_files(fl.mse_loss, paths, per_sample=tmp_path / "missing" / "out.npy")


# ---- errors --------------------------------------------------------------------------------------


def npy_bytes(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


GOOD = npy_bytes(np.arange(6.0).reshape(2, 3))
BAD_FILES = {
    "empty": (b"", "not a .npy or .npz"),
    "text": (b"1,2,3\n4,5,6\n", "not a .npy or .npz"),
    "pickle": (pickle.dumps(np.arange(3)), "not a .npy or .npz"),
    "magic only": (GOOD[:7], "not a .npy or .npz"),
    "header cut": (GOOD[:40], "no readable header"),
    "header wrong": (GOOD.replace(b"shape", b"shade"), "no readable header"),
    "data cut": (
        GOOD[:-1],
        r"cut short.* 48 bytes of data \(shape \(2, 3\), float64\), it holds 47",
    ),
    "version": (GOOD[:6] + b"\x09\x00" + GOOD[8:], "version 9.0"),
    "objects": (npy_bytes(np.array([None, 1])), "Python objects"),
    "structured": (npy_bytes(np.zeros(3, [("a", "f4"), ("b", "i4")])), "not numbers"),
    "strings": (npy_bytes(np.array(["a", "b"])), "not numbers"),
    "dates": (npy_bytes(np.zeros(3, "M8[s]")), "not numbers"),
    "zip without arrays": (b"PK\x05\x06" + bytes(18), "holds 0 arrays"),
    "zip cut": (b"PK\x03\x04" + bytes(40), "not a readable .npz"),
    "header with an unclosed bracket": (GOOD.replace(b"}", b" "), "no readable header"),
}


@pytest.mark.parametrize(("data", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_invalid_files(data, message, tmp_path):
    (tmp_path / "bad.npy").write_bytes(data)
    np.save(tmp_path / "good.npy", np.zeros((2, 3)))
    for paths in (["bad.npy", "good.npy"], ["good.npy", "bad.npy"]):
        with pytest.raises((ValueError, TypeError), match=rf"bad\.npy.*{message}"):
            evaluate_files(fl.mse_loss, [tmp_path / path for path in paths])


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.npy"):
        evaluate_files(fl.mse_loss, [tmp_path / "nothing.npy"] * 2)
    with pytest.raises(FileNotFoundError, match=r"nothing\.npz"):
        evaluate_files(fl.mse_loss, [f"{tmp_path}/nothing.npz:a"] * 2)
    with pytest.raises(ValueError, match="holds no Parquet, Arrow, CSV or JSON Lines files"):
        evaluate_files(fl.mse_loss, [tmp_path] * 2)


def test_missing_npz_members(tmp_path):
    paths = save_npz(tmp_path, make(fl.mse_loss, (3,)))
    with pytest.raises(ValueError, match=r"no array 'b', it has a0, a1"):
        evaluate_files(fl.mse_loss, [f"{tmp_path}/arrays.npz:b", paths[1]])
    with pytest.raises(
        ValueError, match=r"holds 2 arrays: name one as .*arrays\.npz:NAME \(a0, a1"
    ):
        evaluate_files(fl.mse_loss, [f"{tmp_path}/arrays.npz", paths[1]])


def test_damaged_npz(tmp_path):
    paths = save_npz(tmp_path, make(fl.mse_loss, (30_000,)), np.savez_compressed)
    file = tmp_path / "arrays.npz"
    data = bytearray(file.read_bytes())
    for index in range(20_000, 20_100):
        data[index] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"arrays\.npz:a0 is damaged"):
        evaluate_files(fl.mse_loss, paths)


def test_fortran_order_in_npz_is_refused_with_a_remedy(tmp_path):
    paths = save_npz(tmp_path, [np.asfortranarray(np.ones((3, 2)))] * 2)
    with pytest.raises(ValueError, match=r"Fortran order.*ascontiguousarray"):
        evaluate_files(fl.mse_loss, paths)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_that_ends_early(tmp_path):
    data = npy_bytes(np.zeros(300_000))
    pipe = tmp_path / "pipe.npy"
    os.mkfifo(pipe)
    np.save(tmp_path / "y.npy", np.zeros(300_000))
    writer = threading.Thread(target=lambda: pipe.write_bytes(data[:-8]))
    writer.start()
    with pytest.raises(ValueError, match=r"pipe\.npy is cut short.*holds 2399992"):
        evaluate_files(fl.mse_loss, [pipe, tmp_path / "y.npy"])
    writer.join()


def test_a_file_truncated_while_it_is_read(tmp_path):
    paths = save(tmp_path, make(fl.mse_loss, (600_000,)))

    def cut(done, total):
        os.truncate(paths[1], 1000)

    with pytest.raises(ValueError, match=r"1\.npy is cut short"):
        evaluate_files(fl.mse_loss, paths, progress=cut, chunk_rows=1)


def test_leading_dimensions_must_agree(tmp_path):
    paths = save(tmp_path, [np.zeros((4, 3)), np.zeros((5, 3))])
    with pytest.raises(ValueError, match=r"0\.npy float64\[4, 3\].*1\.npy float64\[5, 3\]"):
        evaluate_files(fl.mse_loss, paths)
    paths = save(tmp_path, [np.zeros((4, 3)), np.zeros((1, 3))])
    with pytest.raises(ValueError, match="leading dimensions differ"):
        evaluate_files(fl.mse_loss, paths)
    paths = save(tmp_path, [np.zeros((4, 3)), np.zeros((4, 3)), np.zeros((2, 3))])
    with pytest.raises(ValueError, match="leading dimensions differ"):
        evaluate_files(fl.mse_loss, paths[:2], weight=paths[2])
    with pytest.raises(ValueError, match="leading dimensions differ"):
        evaluate_files(fl.mse_loss, paths[:2], sample_weight=paths[2])


def test_other_dimensions_are_checked_by_the_loss(tmp_path):
    paths = save(tmp_path, [np.zeros((4, 3)), np.zeros((4, 2))])
    with pytest.raises(ValueError, match=r"\[input: .*0\.npy float64\[4, 3\], target: .*1\.npy"):
        evaluate_files(fl.mse_loss, paths)


def test_positions_are_rows_of_the_file(tmp_path):
    arrays = class_case(90_000)
    arrays[1][77_777] = 12
    paths = save(tmp_path, arrays)
    with pytest.raises(fl.ClassIndexError, match=r"target\[77777\] = 12 is not a class"):
        evaluate_files(fl.cross_entropy, paths, chunk_rows=1)


def test_options_are_checked_before_the_files_are_read(tmp_path):
    paths = save(tmp_path, class_case())
    with pytest.raises(ValueError, match="label_smoothing"):
        evaluate_files(fl.cross_entropy, paths, label_smoothing=2.0)
    with pytest.raises(ValueError, match="reduction"):
        evaluate_files(fl.cross_entropy, paths, reduction="batchmean")
    with pytest.raises(ValueError, match="no single value"):
        evaluate_files(fl.cross_entropy, paths, reduction="none")
    with pytest.raises(ValueError, match="chunk_rows"):
        evaluate_files(fl.cross_entropy, paths, chunk_rows=0)
    with pytest.raises(TypeError, match="cross_entropy reads input, target, or an iterable"):
        evaluate_files(fl.cross_entropy, paths[:1])


# ---- resources -----------------------------------------------------------------------------------


def test_progress_ends_at_the_total(tmp_path):
    arrays = make(fl.mse_loss, (300_000,))
    seen = []
    result = evaluate_files(
        fl.mse_loss,
        save(tmp_path, arrays),
        chunk_rows=1,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] == (result.bytes, result.bytes)


def test_files_and_threads_are_closed(tmp_path):
    arrays = class_case(90_000)
    good = save(tmp_path, arrays)
    arrays[1][5] = -1
    (tmp_path / "bad").mkdir()
    bad = save(tmp_path / "bad", arrays)
    members = save_npz(tmp_path, arrays)
    descriptors = "/proc/self/fd"
    before = len(os.listdir(descriptors)) if os.path.isdir(descriptors) else 0
    for paths in (good, bad, members, [good[0], tmp_path / "no.npy"]):
        with contextlib.suppress(ValueError, OSError):
            evaluate_files(fl.cross_entropy, paths, chunk_rows=1)
    assert not [t for t in threading.enumerate() if t.name == "fastloss-reader"]
    if before:
        assert len(os.listdir(descriptors)) == before


def test_an_evaluation_is_a_frozen_record(tmp_path):
    result = evaluate_files(fl.mse_loss, save(tmp_path, make(fl.mse_loss, (3,))))
    assert isinstance(result, fl.Evaluation)
    assert result.seconds > 0
    with pytest.raises(AttributeError):
        result.value = 1.0


MEASURE = r"""
import re, sys
import fastloss as fl
def peak():  # ru_maxrss would include the peak of the parent process
    return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) // 1024
fl.evaluate(fl.mse_loss, *[sys.argv[1]] * 2)
before = peak()
fl.evaluate(fl.mse_loss, *[sys.argv[2]] * 2, per_sample=sys.argv[3] or None)
print(peak() - before)
"""


@pytest.mark.complete_only
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_does_not_grow_with_the_file(order, tmp_path):
    small, large = tmp_path / "small.npy", tmp_path / "large.npy"
    np.save(small, np.zeros(10))
    rows = 600 * 2**20 // 32
    header = {"descr": "<f8", "fortran_order": order == "F", "shape": (rows, 4)}
    with open(large, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + rows * 32)  # sparse: zeros without disk space
    growth = subprocess.check_output([sys.executable, "-c", MEASURE, small, large, ""], text=True)
    assert int(growth) < 64  # MB


def test_chunks_are_read_ahead():
    """While the caller uses a chunk, the next one is read, but not the one after it."""
    reads = []
    arrived = threading.Semaphore(0)

    class Source:
        row_bytes, buffered = 1, True

        def read(self, start, stop, buffer):
            reads.append(start)
            arrived.release()
            return buffer[: stop - start]

        def close(self):
            reads.append("closed")

    slices = chunks._read_ahead([Source()], rows=10, step=3, first_row=0)
    for count, (start, arrays) in enumerate(slices):
        assert start == 3 * count
        assert len(arrays[0]) == (3 if count < 3 else 1)
        if count == 0:
            for _ in range(2):
                assert arrived.acquire(timeout=30)
            assert not arrived.acquire(timeout=0.1)
            assert reads == [0, 3]
    assert reads == [0, 3, 6, 9, "closed"]


def test_an_npz_member_name_may_hold_a_path(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("train/x.npy", npy_bytes(np.arange(3.0)))
    assert evaluate_files(fl.mse_loss, [f"{tmp_path}/a.npz:train/x"] * 2).value == 0.0


# ---- arrays and batches --------------------------------------------------------------------------


def test_arrays_in_memory_are_bitwise_identical_to_one_call():
    arrays = make(fl.cross_entropy, (30_000, 7))
    for data in (arrays, [np.asfortranarray(arrays[0]), arrays[1].astype(np.uint8)]):
        result = fl.evaluate(fl.CrossEntropyLoss(), *data, chunk_rows=1)
        assert bits(result.value) == bits(fl.cross_entropy(*arrays))
        assert result.rows == 30_000
    assert not [t for t in threading.enumerate() if t.name == "fastloss-reader"]


@pytest.mark.parametrize("number", [0.3, 7, True])
def test_python_scalars_do_not_change_the_dtype(number):
    x = make(fl.mse_loss, (30_000,))[0]
    assert bits(fl.evaluate(fl.MSELoss(), x, number).value) == bits(fl.mse_loss(x, number))
    assert bits(fl.evaluate(fl.MSELoss(), number, x).value) == bits(fl.mse_loss(number, x))


@pytest.mark.parametrize("kind", ["memmap", "list", "hdf5", "zarr", "arrow", "parquet"])
def test_kinds_of_data(kind, tmp_path):
    x, y = make(fl.mse_loss, (30_000,))
    data, x = stored(kind, x, tmp_path)
    for chunk_rows in (1, None):
        result = fl.evaluate(fl.MSELoss(), data, y, chunk_rows=chunk_rows)
        assert bits(result.value) == bits(fl.mse_loss(x, y))


def test_sizes_and_types_of_batches():
    rng = np.random.default_rng(11)
    x, y, w = rng.normal(size=(500, 3)), rng.integers(0, 3, 500), rng.uniform(size=500)
    cuts = [0, 3, 4, 4, 100, 500]
    parts = [slice(a, b) for a, b in itertools.pairwise(cuts)]
    expected = fl.cross_entropy(x, y, sample_weight=w)
    for batches in (
        [(x[p], y[p], w[p]) for p in parts],
        [[x[p], y[p], w[p]] for p in parts],
        ((x[p], y[p].astype(np.uint8), w[p]) for p in parts),
        ({"target": y[p], "input": x[p], "sample_weight": w[p]} for p in parts),
    ):
        result = fl.evaluate(fl.CrossEntropyLoss(), batches)
        assert result.value == pytest.approx(expected, rel=1e-14)
        assert (result.rows, result.count) == (500, 500)
    assert fl.evaluate(fl.MSELoss(reduction="sum"), []).value == 0


def test_batches_may_reuse_memory():
    def batches():
        buffer = np.empty(1000)
        for k in range(50):
            buffer[:] = k
            yield buffer, np.zeros(1000)

    assert fl.evaluate(fl.L1Loss(), batches()).value == 24.5


def test_errors_name_the_row_and_the_batch():
    batches = [(np.zeros((4, 3)), [0, 1, 2, 0]), (np.zeros((2, 3)), [1, 5])]
    with pytest.raises(fl.ClassIndexError, match=r"target\[5\] = 5 is not .* \[in batch 1\]"):
        fl.evaluate(fl.CrossEntropyLoss(), batches)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((np.zeros(3),), "batch 0 is a tuple of 1: it must be a tuple of input, target"),
        (np.zeros((2, 3)), "batch 0 is a ndarray"),
        ({"input": np.zeros(3), "label": np.zeros(3)}, "batch 0 is a dict of input, label"),
        (tuple(np.zeros((4, 3))), "batch 0 is a tuple of 4"),
    ],
)
def test_invalid_batches(batch, message):
    with pytest.raises(TypeError, match=message):
        fl.evaluate(fl.MSELoss(), [batch])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: fl.evaluate(fl.MSELoss(), x), TypeError, "the data is one ndarray"),
        (lambda x: fl.evaluate(fl.MSELoss(), x, x, x), TypeError, "reads 2 arrays"),
        (lambda x: fl.evaluate("mse", x, x), TypeError, "must be a criterion or a loss"),
        (lambda x: fl.evaluate([], x, x), ValueError, "no criterion"),
        (lambda x: fl.evaluate([fl.mse_loss, fl.gaussian_nll_loss], x, x), ValueError, "reads 3"),
        (lambda x: fl.evaluate(fl.mse_loss, [(x, x)], by=x), TypeError, "require arrays"),
        (
            lambda x: fl.evaluate(fl.mse_loss, x, x, by="group"),
            TypeError,
            "by='group' requires",
        ),
        (lambda x: fl.evaluate(fl.mse_loss, x, x, by=x[:2]), ValueError, "leading dimensions"),
        (lambda x: fl.evaluate(fl.mse_loss, x, x, by="class"), ValueError, "are not classes"),
        (lambda x: fl.evaluate(fl.mse_loss, x, x, per_sample=5), TypeError, "per_sample is a int"),
        (lambda x: fl.evaluate([fl.mse_loss], x, x, per_sample="a"), ValueError, "a list of 1"),
        (
            lambda x: fl.evaluate({"a": fl.mse_loss}, x, x, per_sample={"b": "x.npy"}),
            ValueError,
            "a dict, with keys among a",
        ),
        (lambda x: fl.evaluate(fl.mse_loss, x, x, per_sample=np.ones(2)), ValueError, "not hold"),
        (
            lambda x: fl.evaluate(fl.mse_loss, x, x, chunk_rows=1.5),
            TypeError,
            "an integer, got 1.5",
        ),
        (
            lambda x: fl.evaluate(fl.mse_loss, x, x, per_sample=np.ones(3, int)),
            TypeError,
            "per_sample holds int64, and losses are floats",
        ),
        (
            lambda x: fl.evaluate([fl.mse_loss] * 2, x, x, per_sample=["a.npy", "./a.npy"]),
            ValueError,
            "per_sample names a.npy twice",
        ),
    ],
)
def test_invalid_calls(call, error, message):
    with pytest.raises(error, match=message):
        call(np.zeros(3))


# ---- several criteria, and groups ----------------------------------------------------------------


def test_several_criteria_in_one_pass(tmp_path):
    x, y = make(fl.binary_cross_entropy_with_logits, (50_000, 3))
    weight, rows = np.linspace(1, 2, 3), np.linspace(0, 1, 150_000).reshape(50_000, 3)
    criteria = {
        "bce": fl.BCEWithLogitsLoss(pos_weight=weight),
        "weighted": fl.BCEWithLogitsLoss(weight=rows),
        "focal": fl.sigmoid_focal_loss,
    }
    result = fl.evaluate(
        criteria,
        *save(tmp_path, [x, y]),
        chunk_rows=1,
        per_sample={"focal": tmp_path / "focal.npy"},
    )
    assert bits(result["bce"].value) == bits(
        fl.binary_cross_entropy_with_logits(x, y, pos_weight=weight)
    )
    assert bits(result["weighted"].value) == bits(
        fl.binary_cross_entropy_with_logits(x, y, weight=rows)
    )
    assert bits(result["focal"].value) == bits(fl.sigmoid_focal_loss(x, y))
    np.testing.assert_array_equal(
        np.load(tmp_path / "focal.npy"), fl.sigmoid_focal_loss(x, y, reduction="none")
    )
    as_list = fl.evaluate(list(criteria.values()), x, y, chunk_rows=1)
    assert [f.value for f in as_list] == [f.value for f in result.values()]


def test_losses_of_different_block_sizes_in_one_pass():
    x, y = make(fl.cross_entropy, (200_000, 7))
    criteria = [fl.CrossEntropyLoss(), fl.MultiMarginLoss()]
    for result in fl.evaluate(criteria, x, y, chunk_rows=1):
        expected = result.criterion.accumulator()
        expected.update(x, y)  # compared with both parts of its double-double sums
        assert result.accumulator.to_dict() == expected.to_dict()


@pytest.mark.parametrize("kind", ["ints", "strings", "file", "list"])
def test_totals_of_groups(kind, tmp_path):
    x, y = make(fl.mse_loss, (30_000,), np.float64)
    labels = np.random.default_rng(12).integers(0, 3, 30_000)
    by = labels
    if kind == "strings":
        labels = by = np.array(["low", "mid", "high"])[labels]
    elif kind == "file":
        np.save(tmp_path / "by.npy", labels)
        by = tmp_path / "by.npy"
    elif kind == "list":
        by = labels.tolist()
    result = fl.evaluate(fl.MSELoss(), x, y, by=by, chunk_rows=1)
    assert result.value == fl.mse_loss(x, y)
    for label, totals in result.groups.items():
        at = labels == label
        assert totals.value == pytest.approx(fl.mse_loss(x[at], y[at]), rel=1e-13)
        assert totals.count == at.sum()
        assert totals.stderr == pytest.approx(
            np.std((x - y)[at] ** 2, ddof=1) / at.sum() ** 0.5, rel=1e-9
        )
    batches = [{"input": x[:9], "target": y[:9], "group": labels[:9]}]
    assert sum(g.count for g in fl.evaluate(fl.MSELoss(), batches, by="group").groups.values()) == 9


def test_totals_of_classes(tmp_path):
    x, y = make(fl.cross_entropy, (30_000, 4))
    result = fl.evaluate(fl.CrossEntropyLoss(), *save(tmp_path, [x, y]), by="class", chunk_rows=1)
    assert list(result.groups) == [0, 1, 2, 3]
    for label, totals in result.groups.items():
        assert totals.value == pytest.approx(fl.cross_entropy(x[y == label], y[y == label]))


# ---- unreduced losses into arrays ----------------------------------------------------------------


def test_per_sample_arrays_and_datasets(tmp_path):
    x, y = make(fl.mse_loss, (30_000, 2))
    expected = fl.mse_loss(x, y, reduction="none")
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "out.h5", "w") as file:
        dataset = file.create_dataset("losses", (30_000, 2), np.float32)
        memmap = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, (30_000, 2))
        array = np.zeros((40_000, 2))
        for out in (dataset, memmap, array):
            fl.evaluate(fl.MSELoss(), x, y, per_sample=out, chunk_rows=1)
            np.testing.assert_array_equal(out[:30_000], expected)
    assert (array[30_000:] == 0).all()


@pytest.mark.parametrize("batches", [False, True])
def test_per_sample_must_not_alias_an_input(batches):
    x, y = np.full(3, 3.0), np.zeros(3)
    data = [[(x, y)]] if batches else [x, y]
    with pytest.raises(ValueError, match="shares memory with an array that is read"):
        fl.evaluate([fl.mse_loss, fl.l1_loss], *data, per_sample=[x[::-1], None])
    assert (x == 3).all()


def spellings(path):
    """Other names of a file."""
    folder = path.parent
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "symbolic.npy").symlink_to(path)
    (folder / "folder").symlink_to(folder)
    os.link(path, folder / "hard.npy")
    yield path
    yield str(path)
    yield os.path.relpath(path)
    yield folder / "sub" / ".." / path.name
    yield f"{folder}//./{path.name}"
    yield folder / "symbolic.npy"
    yield folder / "hard.npy"
    yield folder / "folder" / path.name


def inputs_of(path, array):
    """Arguments that read a .npy file, by name."""
    torch, pa = pytest.importorskip("torch"), pytest.importorskip("pyarrow")
    mapped = np.load(path, mmap_mode="c")
    view = np.frombuffer(mapped._mmap, array.dtype, array.size, mapped.offset)
    return {
        "path": str(path),
        "memory map": np.load(path, mmap_mode="r"),
        "part of a memory map": np.load(path, mmap_mode="r+")[100:][::-1],
        "view": view,
        "torch": torch.from_numpy(np.load(path, mmap_mode="r+")),
        "arrow": pa.Array.from_buffers(pa.float64(), array.size, [None, pa.py_buffer(view)]),
    }


@pytest.mark.parametrize("use", ["input", "target", "sample_weight", "by", "weight", "batches"])
def test_per_sample_must_not_name_an_input(use, tmp_path):
    """In any spelling, by any link, and read in any way: the input must survive."""
    path, array = tmp_path / "x.npy", np.linspace(0.1, 0.9, 10_000)
    np.save(path, array)
    before, others = path.read_bytes(), np.full(9900, 0.5)
    for kind, data in inputs_of(path, array).items():
        if use == "by" and kind == "torch":
            continue
        rest = others if kind.startswith("part") else np.full(10_000, 0.5)
        criterion, arrays, options = fl.BCELoss(), [rest, rest], {}
        if use in ("input", "target"):
            arrays[use == "target"] = data
        elif use == "batches":
            arrays = [iter([(data, rest)])]
            if kind == "path":
                continue
        elif use == "weight":
            criterion = fl.BCELoss(weight=data)
        else:
            options[use] = data
        for target in [*inputs_of(path, array).values(), *spellings(path)]:
            if hasattr(target, "type") or (kind == "view" and target is data):
                continue  # Arrow's arrays cannot be written to
            with pytest.raises((ValueError, TypeError), match="per_sample") as caught:
                fl.evaluate(criterion, *arrays, **options, per_sample=target)
            assert path.read_bytes() == before
            if caught.type is ValueError:
                assert re.search("shares memory|in the same file", str(caught.value))
            if use == "batches":
                arrays = [iter([(data, rest)])]
        for name in ("symbolic.npy", "folder", "hard.npy"):
            (tmp_path / name).unlink()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["sub", "x.npy"]


def test_other_regions_of_a_file_may_be_written(tmp_path):
    """Two memory maps of one file that do not overlap."""
    raw = tmp_path / "raw"
    np.concatenate([np.arange(10_000.0), np.zeros(10_000)]).tofile(raw)
    x = np.memmap(raw, np.float64, "r", 0, (10_000,))
    out = np.memmap(raw, np.float64, "r+", 80_000, (10_000,))
    fl.evaluate(fl.mse_loss, x, 1.0, per_sample=out)
    np.testing.assert_array_equal(np.fromfile(raw)[10_000:], (np.arange(10_000.0) - 1) ** 2)
    for offset in (0, 79_992):
        out = np.memmap(raw, np.float64, "r+", offset, (10_000,))
        with pytest.raises(ValueError, match="in the same file"):
            fl.evaluate(fl.mse_loss, x, 1.0, per_sample=out)


def test_per_sample_must_not_name_a_container_of_an_input(tmp_path):
    h5py, zarr = pytest.importorskip("h5py"), pytest.importorskip("zarr")
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    x = np.linspace(0, 1, 1000)
    np.savez(tmp_path / "x.npz", x=x)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"], file["other"] = x, x
        file["link"] = file["x"]
    zarr.save_array(str(tmp_path / "x.zarr"), x)
    parquet.write_table(pa.table({"x": x}), tmp_path / "x.parquet")
    chunk = next(
        p for p in (tmp_path / "x.zarr").rglob("*") if p.is_file() and "json" not in p.name
    )
    contents = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for data, target in (
        ("x.npz:x", "x.npz"),
        ("x.h5:x", "x.h5"),
        ("x.parquet:x", "x.parquet"),
        ("x.zarr", chunk),
        ("x.zarr", "x.zarr/new.npy"),
    ):
        with pytest.raises(ValueError, match=r"per_sample names .* in the same file"):
            fl.evaluate(fl.mse_loss, f"{tmp_path}/{data}", x, per_sample=tmp_path / target)
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        for data, target in ((file["x"], file["x"]), (file["x"], file["link"])):
            with pytest.raises(ValueError, match=r"per_sample names .* in the same file"):
                fl.evaluate(fl.mse_loss, data, x, per_sample=target)
        np.testing.assert_array_equal(file["x"][:], x)
        fl.evaluate(fl.mse_loss, file["x"], 0.0, per_sample=file["other"])
        np.testing.assert_array_equal(file["other"][:], x**2)
    opened = [zarr.open_array(str(tmp_path / "x.zarr"), mode="r+") for _ in range(2)]
    for data in (*opened, str(tmp_path / "x.zarr")):
        with pytest.raises(ValueError, match=r"per_sample names .* in the same file"):
            fl.evaluate(fl.mse_loss, data, x, per_sample=opened[1])
    for path, data in contents.items():
        assert path.name == "x.h5" or path.read_bytes() == data


def test_per_sample_must_not_be_memory_of_a_later_row_or_batch():
    """Not even if the first chunk is elsewhere."""
    x = np.linspace(0, 1, 30_000)
    before = x.copy()
    with pytest.raises(ValueError, match="shares memory"):
        fl.evaluate(fl.mse_loss, x[:20_000], 0.0, per_sample=x[10_000:], chunk_rows=1)
    batches = [(x[k : k + 10_000], 0.0) for k in range(0, 30_000, 10_000)]
    with pytest.raises(ValueError, match="shares memory"):
        fl.evaluate(fl.mse_loss, batches, per_sample=[*batches][2][0])
    for batch in batches:  # of which nothing is known before it is taken
        with pytest.raises(ValueError, match="shares memory"):
            fl.evaluate(fl.mse_loss, iter([batch]), per_sample=x)
    np.testing.assert_array_equal(x, before)


def test_state_must_not_name_another_file_of_the_evaluation(tmp_path):
    x, out = tmp_path / "x.npy", tmp_path / "out.npy"
    np.save(x, np.ones(9))
    before = x.read_bytes()
    for state in (out, x, tmp_path / "." / "out.npy"):
        with pytest.raises(ValueError, match=r"state names .*\.npy, which also holds"):
            fl.evaluate(fl.mse_loss, x, 0.0, per_sample=out, state=state)
    assert x.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (np.ones((2, 3)), r"rows of float64 of shape \(3,\) do not fit into a file with rows of f"),
        (np.ones((2, 2), np.float32), r"rows of float32 of shape \(2,\).* \[in batch 1\]"),
        (np.float32(1), "cannot hold a scalar loss and other losses"),
    ],
)
def test_per_sample_batches_must_have_one_dtype_and_shape(later, message, tmp_path):
    first, none = np.ones((2, 3), np.float32), np.ones((0, 3))
    path = tmp_path / "losses.npy"
    for batches in ([first, later], [np.float32(1), later]):
        with pytest.raises(ValueError, match=message if batches[0] is first else "a scalar loss"):
            fl.evaluate(fl.mse_loss, [(x, x) for x in batches], per_sample=path)
    assert not list(tmp_path.iterdir())
    fl.evaluate(fl.mse_loss, [(x, x) for x in (none, first, none, first)], per_sample=path)
    np.testing.assert_array_equal(np.load(path), np.zeros((4, 3), np.float32))


def test_per_sample_without_batches(tmp_path):
    with pytest.raises(ValueError, match="there was no batch"):
        fl.evaluate(fl.mse_loss, [], per_sample=tmp_path / "losses.npy")
    assert not list(tmp_path.iterdir())


def test_per_sample_of_bfloat16_is_a_file_of_float32(tmp_path):
    x = np.array([1.5, 3.0], pytest.importorskip("ml_dtypes").bfloat16)
    fl.evaluate(fl.mse_loss, x, np.zeros_like(x), per_sample=tmp_path / "losses.npy")
    losses = np.load(tmp_path / "losses.npy")
    assert losses.dtype == np.float32
    assert losses.tolist() == [2.25, 9.0]


def test_per_sample_of_batches_is_one_file(tmp_path):
    x, y = make(fl.mse_loss, (1000, 2))
    batches = ((x[k : k + 99], y[k : k + 99]) for k in range(0, 1000, 99))
    fl.evaluate(fl.MSELoss(), batches, per_sample=tmp_path / "losses.npy")
    np.testing.assert_array_equal(
        np.load(tmp_path / "losses.npy"), fl.mse_loss(x, y, reduction="none")
    )


# ---- results -------------------------------------------------------------------------------------


def test_display():
    x, y = make(fl.cross_entropy, (100, 30))
    result = fl.evaluate(fl.CrossEntropyLoss(label_smoothing=0.1), x, y, by="class")
    lines = repr(result).splitlines()
    assert lines[0] == "criterion   CrossEntropyLoss(label_smoothing=0.1)"
    assert lines[1].split()[:2] == ["value", repr(result.value)]
    shown = min(len(result.groups), 20)
    assert len(lines) == 7 + 1 + shown + (len(result.groups) > 20)
    page = result._repr_html_()
    assert page.count("<table>") == 2
    assert repr(result.value) in page
    escaped = fl.evaluate(fl.MSELoss(), [1.0], [2.0], by=["<b>"])._repr_html_()
    assert "<td>&lt;b&gt;</td>" in escaped


def test_to_dict_is_json_serializable():
    result = fl.evaluate(fl.MSELoss(), [1.0, np.inf], [0.0, 0.0], by=["a", "b"])
    figures = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert figures["criterion"] == "MSELoss()"
    assert (figures["value"], figures["count"]) == ("Infinity", 2)
    assert [group["label"] for group in figures["groups"]] == ["a", "b"]
    assert figures["groups"][0]["sum"] == 1.0


def test_accumulators_of_evaluations_merge():
    x, y = make(fl.mse_loss, (1000,))
    parts = [fl.evaluate(fl.MSELoss(), x[k::3], y[k::3]).accumulator for k in range(3)]
    assert sum(parts).value == pytest.approx(fl.mse_loss(x, y), rel=1e-14)


def test_counts_that_would_overflow_are_refused():
    accumulator = fl.MSELoss().accumulator(by="group")
    accumulator.update([1.0, 2.0], [0.0, 0.0], group=["a", "b"])
    state = accumulator.to_dict()
    for index in (0, 1):
        huge = json.loads(json.dumps(state))
        for count in (2**63 - 1, 2**62 + 1, -1, True, 1.0):
            huge["sums"][index] = count
            with pytest.raises(ValueError, match=r"not the state of an accumulator: .* losses in"):
                fl.Accumulator.from_dict(huge)
    contradictory = json.loads(json.dumps(state))
    contradictory["groups"][0][1][0] = 7
    with pytest.raises(ValueError, match="groups of 8 losses, but 2 losses in all"):
        fl.Accumulator.from_dict(contradictory)
    large = fl.MSELoss().accumulator().to_dict()
    large["sums"][:2] = 2**62 - 1, 2**62
    large = fl.Accumulator.from_dict(large)
    with pytest.raises(OverflowError, match=r"count would be \d+: it must not exceed 2\*\*62"):
        large.merge(large)
    assert (large.count, large.rows) == (2**62 - 1, 2**62)


def test_progress_bar(capsys):
    pytest.importorskip("tqdm")
    fl.evaluate(fl.MSELoss(), np.zeros(10), np.zeros(10), progress=True)
    assert "fastloss" in capsys.readouterr().err


def test_progress_without_tqdm_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"fastloss\[cli\]"):
        fl.evaluate(fl.MSELoss(), np.zeros(10), np.zeros(10), progress=True)


def test_criteria_may_be_any_mapping():
    x, y = np.arange(4.0), np.ones(4)
    criteria = types.MappingProxyType({"square": fl.mse_loss, "absolute": fl.L1Loss()})
    written = np.empty(4)
    results = fl.evaluate(criteria, x, y, per_sample=types.MappingProxyType({"square": written}))
    assert {name: result.value for name, result in results.items()} == {
        "square": fl.mse_loss(x, y),
        "absolute": fl.l1_loss(x, y),
    }
    np.testing.assert_array_equal(written, (x - y) ** 2)
