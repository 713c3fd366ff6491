"""A remedy in a message is safe: what it computes has the values that the array had before."""

import re

import ml_dtypes
import numpy as np
import pytest

import fastloss as fl

EXACT = {"float16": 2**11, "bfloat16": 2**8, "float32": 2**24, "float64": 2**53}
FLOATS = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in EXACT}
LOSSES = [fl.cross_entropy, fl.nll_loss, fl.multi_margin_loss]


def message_of(call):
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    return str(error.value)


def remedies(message, names):
    """The values of the expressions that a message offers."""
    pattern = (
        r"(?:pass|or) ((?:np\.\w+\()?(?:input|target|weight|group)\b[.\w]*\([^;]*?\))(?=,|;| |$)"
    )
    return [eval(text, {"np": np, **names}) for text in re.findall(pattern, message)]


def holder(classes, rows):
    """An input with any number of classes, in little memory."""
    return np.broadcast_to(np.float32(0), (rows, classes))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("top", [3, 255, 256, 257, 2047, 2048, 2049, 79998, 2**24 - 1, 2**24 + 1])
def test_labels_of_floats_are_converted_only_if_they_are_exact(dtype, loss, top):
    labels = np.array([0, 1, top])
    with np.errstate(over="ignore"):
        rounded = labels.astype(FLOATS[dtype])
    x = holder(top + 1, 3)
    message = message_of(lambda: loss(x, rounded))
    offered = remedies(message, {"target": rounded, "input": x})
    assert len(offered) == (top + 1 <= EXACT[dtype])
    for values in offered:
        np.testing.assert_array_equal(values, labels)
        assert values.dtype == np.int64
    if not offered:
        assert "astype" not in message
        assert "have been rounded" in message or "= inf is not one" in message
    # The labels of this call are exact, and those of the next need not be.
    small = np.array([0, 1, 2]).astype(FLOATS[dtype])
    message = message_of(lambda: loss(x, small))
    assert bool(remedies(message, {"target": small, "input": x})) == (top + 1 <= EXACT[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.5, 1.5, -0.25])
def test_labels_that_are_no_integers_get_no_remedy(dtype, loss, value):
    labels = np.array([0, 1, value, value]).astype(FLOATS[dtype])
    message = message_of(lambda: loss(np.zeros((4, 3)), labels))
    assert "astype" not in message
    assert f"target[2] = {value} is not one" in message


@pytest.mark.parametrize("loss", LOSSES)
def test_large_labels_may_have_been_rounded(loss):
    for dtype, limit in EXACT.items():
        labels = np.array([0.0, limit, 1.0]).astype(FLOATS[dtype])
        message = message_of(lambda labels=labels: loss(np.zeros((3, 4)), labels))
        assert "astype" not in message
        assert f"only up to {limit}" in message


def test_booleans_are_exact_labels():
    labels = np.array([True, False, True])
    for loss in LOSSES:
        (values,) = remedies(
            message_of(lambda loss=loss: loss(np.eye(3), labels)), {"target": labels}
        )
        np.testing.assert_array_equal(values, [1, 0, 1])
    message = message_of(lambda: fl.soft_margin_loss(np.zeros(3), labels))
    assert message.endswith("pass np.where(target, 1, -1)")


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32, ml_dtypes.bfloat16, bool])
@pytest.mark.parametrize("loss", [fl.cross_entropy, fl.nll_loss])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (3,)])
def test_argmax_is_offered_for_one_hot_targets_only(dtype, loss, shape):
    if loss is fl.cross_entropy and np.dtype(dtype).kind not in "iub":
        return  # these are probabilities
    rng = np.random.default_rng(0)
    axis = 1 if len(shape) > 1 else 0
    index = rng.integers(0, 3, shape[:axis] + shape[axis + 1 :])
    one_hot = np.moveaxis(np.eye(3, dtype=dtype)[index], -1, axis)
    x = rng.normal(size=shape)
    names = {"input": x, "target": one_hot}
    offered = remedies(message_of(lambda: loss(x, one_hot)), names)
    indices = [value for value in offered if value.shape == index.shape]
    assert indices
    for value in offered:
        expected = index if value.shape == index.shape else one_hot
        np.testing.assert_array_equal(value, expected)
        assert np.isfinite(loss(x, value))
    first = (0,) * len(shape)
    for change in (2, 0.5 if np.dtype(dtype).kind not in "iub" else 3):
        other = one_hot.astype(np.int64 if dtype is bool else dtype)
        other[first] = change
        assert "argmax" not in message_of(lambda other=other: loss(x, other))
    many, none = np.ones(shape, dtype), np.zeros(shape, dtype)
    for target in (many, none):
        assert "argmax" not in message_of(lambda target=target: loss(x, target))


def test_integers_become_probabilities_only_if_they_are_exact():
    for dtype, limit in EXACT.items():
        x = np.zeros((2, 3), FLOATS[dtype])
        for value in (0, 1, limit, limit + 1):
            target = np.array([[value, 0, 0], [0, 2, 0]])
            message = message_of(lambda x=x, target=target: fl.cross_entropy(x, target))
            offered = remedies(message, {"input": x, "target": target})
            assert len(offered) == (value <= limit), (dtype, value)
            for values in offered:
                np.testing.assert_array_equal(values.astype(np.float64), target)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long double is double")
def test_long_doubles_are_rounded_but_never_to_infinity_or_0():
    huge = np.longdouble(10) ** 400
    for value, is_offered in [(1.5, 1), (np.inf, 1), (np.nan, 1), (0, 1), (huge, 0), (1 / huge, 0)]:
        x = np.array([0, value], np.longdouble)
        message = message_of(lambda x=x: fl.mse_loss(x, np.zeros(2)))
        offered = remedies(message, {"input": x})
        assert len(offered) == is_offered
        for values in offered:
            np.testing.assert_array_equal(values, x)
            assert "rounds" in message


def test_groups_of_objects():
    for entries, is_offered in [([1, 2], 1), ([1, 2.5], 0), ([1.0, 2.0], 0), ([2**63, 1], 0)]:
        group = np.array(entries, object)
        message = message_of(
            lambda group=group: (
                fl.MSELoss().accumulator(by="group").update([1.0, 2], [0.0, 0], group=group)
            )
        )
        offered = remedies(message, {"group": group})
        assert len(offered) == is_offered
        for values in offered:
            assert values.tolist() == entries


def test_reshaped_targets_keep_their_order():
    for shape, other in [((3, 1), (3,)), ((3,), (1, 3)), ((2, 1, 3), (2, 3)), ((1, 3), (3, 1))]:
        x, y = np.zeros(shape), np.arange(6.0)[: np.prod(other)].reshape(other)
        (value,) = remedies(message_of(lambda x=x, y=y: fl.l1_loss(x, y)), {"target": y})
        assert value.shape == shape
        assert value.ravel().tolist() == y.ravel().tolist()
    assert "reshape" not in message_of(lambda: fl.l1_loss(np.zeros((2, 3)), np.zeros((3, 2))))


def test_messages_of_large_arrays_need_little_memory():
    import tracemalloc

    target = np.ones((1 << 20, 8), np.int8)
    x = np.broadcast_to(np.float32(0), target.shape)
    labels = np.ones(1 << 22, np.float32)
    for call in (
        lambda: fl.cross_entropy(x, target),
        lambda: fl.cross_entropy(np.broadcast_to(np.float32(0), (len(labels), 8)), labels),
    ):
        tracemalloc.start()
        message_of(call)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 12 << 20
