"""CTC in fl.evaluate: files of sequences, which are cut by samples or read whole."""

import numpy as np
import pytest

import fastloss as fl
from tests.test_evaluation import check, evaluate_files, save


def sequences(N, T=9, C=4, S=3, dtype=np.float32):
    """Frames (N, T, C), labels (N, S) and lengths."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(N, T, C))
    x -= np.log(np.exp(x).sum(axis=-1, keepdims=True))
    frames, labels = rng.integers(2 * S, T + 1, N), rng.integers(0, S + 1, N)
    return [x.astype(dtype), rng.integers(1, C, (N, S)), frames, labels]


@pytest.mark.parametrize("loss", [fl.ctc_loss, fl.ctc_loss_with_logits], ids=lambda x: x.__name__)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_sequences_are_cut_by_samples(loss, reduction, tmp_path):
    arrays = sequences(50)
    paths = save(tmp_path, arrays)
    for chunk_rows in (1, 7, None):
        options = {"batch_first": True, "reduction": reduction, "chunk_rows": chunk_rows}
        assert check(loss, paths, arrays, **options).rows == 50
    weight = np.linspace(0, 1, 50)
    check(loss, paths, arrays, batch_first=True, chunk_rows=1, sample_weight=weight)


def test_errors_of_sequences_name_the_position_in_the_file(tmp_path):
    arrays = sequences(50)
    arrays[3][:] = 3
    arrays[1][41, 2] = 99
    options = {"batch_first": True, "chunk_rows": 10}
    with pytest.raises(ValueError, match=r"^targets\[41, 2\] = 99 is not a class"):
        evaluate_files(fl.ctc_loss, save(tmp_path, arrays), **options)
    arrays[2][33] = 10
    with pytest.raises(ValueError, match=r"^input_lengths\[33\] = 10 is not allowed"):
        evaluate_files(fl.ctc_loss, save(tmp_path, arrays), **options)


@pytest.mark.parametrize("layout", ["frames first", "concatenated", "single"])
def test_sequences_that_are_read_whole(layout, tmp_path):
    x, y, frames, labels = sequences(5)
    batch_first = layout == "concatenated"
    if layout == "frames first":
        x = x.swapaxes(0, 1)
    elif batch_first:
        y = np.concatenate([row[:n] for row, n in zip(y, labels, strict=True)])
    else:
        x, y, frames, labels = x[0], y[0, : labels[0]], frames[0], labels[0]
    arrays = [np.ascontiguousarray(a) for a in (x, y, frames, labels)]
    target = tmp_path / "losses.npy"
    result = check(
        fl.ctc_loss,
        save(tmp_path, arrays),
        arrays,
        batch_first=batch_first,
        chunk_rows=1,
        per_sample=target,
    )
    assert result.rows == (1 if layout == "single" else 5)
    expected = fl.ctc_loss(*arrays, batch_first=batch_first, reduction="none")
    np.testing.assert_array_equal(np.load(target), expected)
