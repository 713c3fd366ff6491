"""Classes on another axis than the second, and messages about shapes that name the remedy."""

import dask.array as da
import numpy as np
import pytest

import fastloss as fl
from fastloss.cli import main
from fastloss.evaluation.criterion_set import criterion_of

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(1000, 7, 5)).astype("f4")
LABELS = RNG.integers(0, 5, (1000, 7))
PROBABILITIES = RNG.random((1000, 7, 5))
WEIGHTS = RNG.random((1000, 7))
SECOND = np.moveaxis(LOGITS, -1, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    arrays = {"x": LOGITS, "y": LABELS, "p": PROBABILITIES, "w": WEIGHTS}
    arrays |= {"flat": LOGITS.reshape(-1, 5), "column": LABELS.reshape(-1, 1)}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


@pytest.mark.parametrize("axis", [-1, 2, np.int64(-1)])
@pytest.mark.parametrize("chunk_rows", [1, None])
def test_files_and_arrays(folder, axis, chunk_rows):
    expected = fl.cross_entropy(SECOND, LABELS)
    losses = fl.cross_entropy(SECOND, LABELS, reduction="none")
    for data in ((folder / "x.npy", folder / "y.npy"), (LOGITS, LABELS)):
        result = fl.evaluate(
            fl.cross_entropy,
            *data,
            class_axis=axis,
            chunk_rows=chunk_rows,
            per_sample=folder / "losses.npy",
            by="class",
        )
        assert result.value == expected
        np.testing.assert_array_equal(np.load(folder / "losses.npy"), losses)
        assert result.groups[3].count == (LABELS == 3).sum()
        assert result.rows == 1000


def test_probabilities_weights_and_other_losses(folder):
    paths = [folder / f"{name}.npy" for name in "xpyw"]
    result = fl.evaluate(fl.cross_entropy, *paths[:2], class_axis=-1, sample_weight=paths[3])
    second = np.moveaxis(PROBABILITIES, -1, 1)
    assert result.value == fl.cross_entropy(SECOND, second, sample_weight=WEIGHTS)
    both = fl.evaluate(
        [fl.CrossEntropyLoss(weight=np.arange(5.0)), fl.multi_margin_loss],
        paths[0],
        paths[2],
        class_axis=-1,
    )
    assert both[0].value == fl.cross_entropy(SECOND, LABELS, weight=np.arange(5.0))
    assert both[1].value == fl.multi_margin_loss(LOGITS, LABELS)
    one = fl.evaluate(fl.cross_entropy, LOGITS[0, 0], LABELS[0, 0], class_axis=-1)
    assert one.value == fl.cross_entropy(LOGITS[0, 0], LABELS[0, 0])


def test_batches_and_dask():
    expected = fl.cross_entropy(SECOND, LABELS)
    batches = [(LOGITS[part], LABELS[part]) for part in (slice(0, 300), slice(300, None))]
    result = fl.evaluate(fl.cross_entropy, batches, class_axis=-1)
    assert abs(result.value - expected) <= 1e-13 * expected
    blocks = [da.from_array(LOGITS, chunks=(300, 3, 2)), da.from_array(LABELS, chunks=(100, 7))]
    result = fl.evaluate(fl.cross_entropy, *blocks, class_axis=-1, by="class")
    assert abs(result.value - expected) <= 1e-13 * expected
    assert result.groups[3].count == (LABELS == 3).sum()


def test_resuming(folder):
    def stop(done, total):
        raise KeyboardInterrupt

    def run(axis=-1, progress=False):
        return fl.evaluate(
            fl.cross_entropy,
            folder / "x.npy",
            folder / "y.npy",
            class_axis=axis,
            state=folder / "state.json",
            chunk_rows=1,
            progress=progress,
        )

    expected = run().accumulator.to_dict()
    with pytest.raises(KeyboardInterrupt):
        run(progress=stop)
    with pytest.raises(ValueError, match="another evaluation: class_axis was -1 and is 2"):
        run(2)
    assert run().accumulator.to_dict() == expected


@pytest.mark.parametrize(
    ("loss", "target", "axis", "error", "message"),
    [
        (fl.cross_entropy, LABELS, 0, ValueError, "class_axis is 0, the axis of the rows"),
        (fl.cross_entropy, LABELS, 3, ValueError, "class_axis is 3, but input has shape"),
        (fl.cross_entropy, LABELS, 1, ValueError, r"must have shape \(1000, 5\)"),
        (fl.cross_entropy, LABELS, 1.0, TypeError, "must be an integer, got 1.0"),
        (fl.cross_entropy, LABELS, True, TypeError, "must be an integer, got True"),
        (fl.mse_loss, LOGITS, -1, ValueError, "class_axis is not an option of mse_loss"),
        (fl.multi_margin_loss, LABELS, 1, ValueError, "reads classes from the last axis"),
        (
            fl.cross_entropy,
            (PROBABILITIES > 0.5).astype(int),
            -1,
            TypeError,
            r"target\.argmax\(axis=-1\)",
        ),
    ],
)
def test_errors(loss, target, axis, error, message):
    for data in ((LOGITS, target), ([(LOGITS, target)],)):
        with pytest.raises(error, match=message):
            fl.evaluate(loss, *data, class_axis=axis)


def test_positions_are_those_of_the_arrays():
    labels = LABELS.copy()
    labels[777, 3] = 5
    with pytest.raises(ValueError, match=r"target\[777, 3\] = 5 is not a class"):
        fl.evaluate(fl.cross_entropy, LOGITS, labels, class_axis=-1, chunk_rows=1)


def test_command_line(folder, capsys):
    command = ["evaluate", "cross_entropy", f"{folder}/x.npy", f"{folder}/y.npy"]
    assert main([*command, "--class-axis", "-1"]) == 0
    assert repr(fl.cross_entropy(SECOND, LABELS)) in capsys.readouterr().out
    assert main(command) == 2
    assert "--class-axis -1" in capsys.readouterr().err
    command[2:] = [f"{folder}/flat.npy", f"{folder}/column.npy"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "target has shape (7000, 1)" in error
    assert "store target.reshape(-1)" in error


FLAT, COLUMN = LOGITS.reshape(-1, 5), LABELS.reshape(-1, 1)
MOVE = r"pass np\.moveaxis\(input, -1, 1\), or class_axis=-1 .*--class-axis -1"


@pytest.mark.parametrize(
    ("loss", "input", "target", "message"),
    [
        (fl.cross_entropy, LOGITS, LABELS, MOVE),
        (fl.cross_entropy, LOGITS, LABELS.astype("f4"), rf"astype\(np\.int64\); if .*{MOVE}"),
        (fl.nll_loss, LOGITS, LABELS, MOVE),
        (fl.cross_entropy, FLAT, COLUMN, r"pass target\.reshape\(-1\)$"),
        (fl.cross_entropy, FLAT, COLUMN.astype("f4"), r"int64\); pass target\.reshape\(-1\)$"),
        (fl.multi_margin_loss, FLAT, COLUMN, r"pass target\.reshape\(-1\)$"),
        (fl.cross_entropy, FLAT, LABELS, r"pass target\.reshape\(-1\)$"),
        (fl.cross_entropy, LOGITS, COLUMN[:, 0], r"pass input\.reshape\(-1, 5\)$"),
        (fl.mse_loss, FLAT[:, 0], COLUMN.astype("f4"), r"pass target\.reshape\(\(7000,\)\)$"),
    ],
)
def test_remedies_for_shapes(loss, input, target, message):
    """Calls, criteria, batches and evaluations in chunks name the shapes of the whole arrays."""
    bound = criterion_of(loss)()
    calls = [
        lambda: loss(input, target),
        lambda: bound(input, target),
        lambda: fl.evaluate(loss, [(input, target)]),
        lambda: fl.evaluate(loss, input, target, chunk_rows=1),
    ]
    for number, call in enumerate(calls):
        with pytest.raises((ValueError, TypeError), match=message.rstrip("$")) as error:
            call()
        text = str(error.value).partition(" [")[0]
        if number < 3:
            assert f"target has shape {target.shape}" in text or "target holds float" in text
        remedy = message.endswith("$") and text.rpartition("; ")[2].partition("pass ")[2]
        if remedy and "float" not in text:  # the remedy works
            arrays = {"input": input, "target": target}
            name = remedy.partition(".")[0]
            arrays[name] = eval(remedy, {**arrays})
            loss(arrays["input"], arrays["target"])


def test_remedies_for_weights_and_groups():
    x = np.ones(4)
    with pytest.raises(ValueError, match=r"pass sample_weight\.reshape\(-1\)"):
        fl.mse_loss(x, x, sample_weight=np.ones((4, 1)))
    with pytest.raises(ValueError, match=r"pass group\.reshape\(-1\)"):
        fl.evaluate(fl.mse_loss, x, x, by=np.ones((4, 1)))
    with pytest.raises(ValueError, match=r"must have shape \(4,\).*loss$"):
        fl.mse_loss(x, x, sample_weight=np.ones(3))
