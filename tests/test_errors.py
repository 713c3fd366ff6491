"""Bad calls: the exception, its message, and the contents of `out` afterwards."""

import gc
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import fastloss as fl

ZERO = np.zeros((2, 3))
HALF = np.full((2, 3), 0.5)
PROBABILITIES = np.full((2, 3), 0.25)
LABELS = np.array([0, 2])
SIGNS = np.array([[1.0, -1, 1], [-1, -1, 1]])
UNWRITTEN = 7.0  # the entries of an `out` before the call


def with_entry(array, index, value):
    """A copy of `array` with one entry replaced."""
    array = array.copy()
    array[index] = value
    return array


class DaskArray:
    """Looks like a Dask array, which fastloss must recognise without importing Dask."""

    shape = (2, 3)
    dtype = np.dtype(np.float64)

    def __array__(self, dtype=None, copy=None):
        return np.zeros(self.shape)


DaskArray.__module__ = "dask.array.core"
DaskArray.__name__ = DaskArray.__qualname__ = "Array"


class Unreadable:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("not today")


CASES = []


def bad(name, loss, *arrays, error, says, method="__call__", early=True, **keywords):
    """Add one bad call. `early`: every method detects it before it writes anything."""
    CASES.append(SimpleNamespace(**locals()))


# --- shapes ---------------------------------------------------------------------------------------

EQUAL = r"they must be equal"

bad(
    "column against row",
    "mse_loss",
    np.zeros((3, 1)),
    np.zeros(3),
    error=ValueError,
    says=r"^target has shape \(3,\) and input has shape \(3, 1\): they must be equal .*"
    r"target\.reshape\(\(3, 1\)\)",
)
bad(
    "row against column",
    "l1_loss",
    np.zeros(3),
    np.zeros((3, 1)),
    error=ValueError,
    says=r"^target has shape \(3, 1\) and input has shape \(3,\).*target\.reshape\(\(3,\)\)",
)
bad("lengths", "huber_loss", np.zeros(3), np.zeros(4), error=ValueError, says=EQUAL)
bad("missing axis", "kl_div", ZERO, np.zeros(3), error=ValueError, says=EQUAL)
bad("axis of length 1", "mse_loss", ZERO, np.zeros((1, 3)), error=ValueError, says=EQUAL)
bad("single element", "mse_loss", np.zeros(1), ZERO, error=ValueError, says=EQUAL)
bad("empty against full", "mse_loss", np.zeros((0, 3)), ZERO, error=ValueError, says=EQUAL)
bad(
    "transposed",
    "binary_cross_entropy",
    HALF,
    HALF.T,
    error=ValueError,
    says=r"target has shape \(3, 2\)",
)
bad(
    "second input",
    "margin_ranking_loss",
    ZERO,
    np.zeros(3),
    SIGNS,
    error=ValueError,
    says=r"^input2 has shape \(3,\) and input1 has shape \(2, 3\)",
)
bad(
    "third array",
    "margin_ranking_loss",
    ZERO,
    ZERO,
    SIGNS[0],
    error=ValueError,
    says=r"^target has shape \(3,\) and input1 has shape \(2, 3\)",
)
for shape in [(3,), (1,), (1, 1), (2, 3, 1), (3, 2), (4, 3), (0,)]:
    bad(
        f"var {shape}",
        "gaussian_nll_loss",
        ZERO,
        ZERO,
        np.ones(shape),
        error=ValueError,
        says=r"^var has shape .* input of shape \(2, 3\).*must be a scalar or have shape",
    )
bad(
    "var with two other axes",
    "gaussian_nll_loss",
    np.zeros((2, 3, 4)),
    np.zeros((2, 3, 4)),
    np.ones((1, 3, 1)),
    error=ValueError,
    says=r"^var has shape \(1, 3, 1\)",
)

# --- shapes of class indices ----------------------------------------------------------------------

bad(
    "no class axis",
    "cross_entropy",
    np.float64(1),
    np.int64(0),
    error=ValueError,
    says=r"^input is 0-d: it must have a class axis",
)
bad(
    "column of labels",
    "cross_entropy",
    ZERO,
    LABELS[:, None],
    error=ValueError,
    says=r"^target has shape \(2, 1\).*input of shape \(2, 3\) must have shape \(2,\)",
)
bad(
    "one label per class",
    "nll_loss",
    ZERO,
    np.array([0, 1, 2]),
    error=ValueError,
    says=r"^target has shape \(3,\).*must have shape \(2,\)",
)
bad(
    "one label for a batch",
    "cross_entropy",
    ZERO,
    0,
    error=ValueError,
    says=r"^target has shape \(\).*must have shape \(2,\)",
)
bad(
    "label of a single row in brackets",
    "cross_entropy",
    np.zeros(3),
    np.array([1]),
    error=ValueError,
    says=r"^target has shape \(1,\).*must have shape \(\)",
)
bad(
    "class axis is the second",
    "cross_entropy",
    np.zeros((2, 3, 4)),
    np.zeros((2, 3), int),
    error=ValueError,
    says=r"^target has shape \(2, 3\).*must have shape \(2, 4\)",
)
bad(
    "one-hot integers",
    "cross_entropy",
    ZERO,
    np.eye(3, dtype=int)[LABELS],
    error=TypeError,
    says=r"^target has the input's shape \(2, 3\) but holds integers \(int64\).*"
    r"target\.argmax\(axis=1\)",
)
bad(
    "one-hot integers of a single row",
    "cross_entropy",
    np.zeros(3),
    np.array([0, 1, 0]),
    error=TypeError,
    says=r"^target has the input's shape \(3,\).*integers.*target\.argmax\(",
)
bad(
    "one-hot integers, images",
    "cross_entropy",
    np.zeros((2, 3, 4, 4)),
    np.moveaxis(np.eye(3, dtype=np.uint8)[np.arange(32).reshape(2, 4, 4) % 3], -1, 1),
    error=TypeError,
    says=r"uint8.*class indices must have shape \(2, 4, 4\).*argmax\(axis=1\)",
)
bad(
    "integers of the input's shape that are not one-hot",
    "cross_entropy",
    np.zeros((2, 3, 4, 4)),
    np.zeros((2, 3, 4, 4), np.uint8),
    error=TypeError,
    says=r"uint8.*class indices must have shape \(2, 4, 4\); pass target\.astype\(input\.dtype\)",
)
bad(
    "one-hot integers, nll",
    "nll_loss",
    ZERO,
    np.eye(3, dtype=int)[LABELS],
    error=ValueError,
    says=r"^target has the input's shape \(2, 3\).*argmax\(axis=1\)",
)

# --- rows of classes and features -----------------------------------------------------------------

FEATURES = np.ones((2, 4))
for loss in ("multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss"):
    bad(
        f"no class axis, {loss}",
        loss,
        np.float64(1),
        np.int64(0),
        error=ValueError,
        says=r"^input is 0-d: it must have a last axis",
    )
bad(
    "no feature axis",
    "triplet_margin_loss",
    *3 * [np.float64(1)],
    error=ValueError,
    says=r"^anchor is 0-d: it must have a last axis",
)
bad(
    "classes are the last axis",
    "multi_margin_loss",
    np.zeros((2, 3, 4)),
    np.zeros((2, 4), int),
    error=ValueError,
    says=r"^target has shape \(2, 4\).*must have shape \(2, 3\)",
)
bad(
    "labels of another width",
    "multilabel_margin_loss",
    ZERO,
    np.full((2, 2), -1),
    error=ValueError,
    says=r"^target has shape \(2, 2\) and input has shape \(2, 3\): they must be equal$",
)
bad(
    "a number for a row of labels",
    "multilabel_soft_margin_loss",
    ZERO,
    0.0,
    error=ValueError,
    says=r"^target has shape \(\) and input has shape \(2, 3\)",
)
for name, arrays in {
    "positive": (FEATURES, FEATURES[0], FEATURES),
    "negative": (FEATURES, FEATURES, FEATURES[:, :1]),
}.items():
    bad(
        f"features of another shape, {name}",
        "triplet_margin_loss",
        *arrays,
        error=ValueError,
        says=rf"^{name} has shape .* and anchor has shape \(2, 4\): they must be equal$",
    )
bad(
    "a label for each feature",
    "cosine_embedding_loss",
    FEATURES,
    FEATURES,
    np.ones((2, 4)),
    error=ValueError,
    says=r"^target has shape \(2, 4\), but labels for input1 .*\(2, 4\) must have shape \(2,\)$",
)
bad(
    "integer scores",
    "multi_margin_loss",
    ZERO.astype(int),
    LABELS,
    error=TypeError,
    says=r"^input holds int64: it must hold floating-point scores",
)
bad(
    "multi-hot labels",
    "multilabel_margin_loss",
    ZERO,
    np.eye(3, dtype=bool)[LABELS],
    error=TypeError,
    says=r"^target holds bool: class indices must be integers; list the classes of each row",
)
bad(
    "0/1 labels of pairs",
    "cosine_embedding_loss",
    FEATURES,
    FEATURES,
    np.array([1, 0]),
    error=ValueError,
    says=r"^target\[1\] = 0 is not allowed: target must be -1 or 1$",
)
bad(
    "bool labels of pairs",
    "cosine_embedding_loss",
    FEATURES,
    FEATURES,
    np.array([True, False]),
    error=TypeError,
    says=r"^target holds bool: labels must be -1 or 1",
)
for label in (-1, 3, 10**9, -100):
    bad(
        f"margin of class {label}",
        "multi_margin_loss",
        ZERO,
        np.array([0, label]),
        error=fl.ClassIndexError,
        says=rf"^target\[1\] = {label} is not a class: input has 3 classes \(0\.\.2\)$",
    )
for label in (-2, 3, 10**9):
    bad(
        f"label {label} after the end of a row",
        "multilabel_margin_loss",
        ZERO,
        np.array([[0, -1, -1], [-1, 0, label]]),
        error=fl.ClassIndexError,
        says=rf"^target\[1, 2\] = {label} is not a class: input has 3 classes.*-1 ends",
    )
bad(
    "multilabel target above 1",
    "multilabel_soft_margin_loss",
    ZERO,
    with_entry(PROBABILITIES, (1, 0), 1.5),
    error=ValueError,
    says=r"^target\[1, 0\] = 1\.5 is not allowed: target must be between 0 and 1$",
    early=False,
)
bad(
    "negative probability",
    "cross_entropy",
    ZERO,
    with_entry(PROBABILITIES, (1, 2), -0.25),
    error=ValueError,
    says=r"^target\[1, 2\] = -0\.25 is not allowed: target must be at least 0$",
    early=False,
)
bad(
    "negative probability, in the order of the target",
    "cross_entropy",
    np.zeros((2, 3, 4)),
    with_entry(with_entry(np.zeros((2, 3, 4)), (1, 2, 0), -1.0), (1, 1, 3), -2.0),
    error=ValueError,
    says=r"^target\[1, 1, 3\] = -2\.0 is not allowed",
    early=False,
)
bad(
    "probabilities of another shape",
    "cross_entropy",
    ZERO,
    np.zeros((2, 4)),
    error=ValueError,
    says=r"^target has shape \(2, 4\) and input has shape \(2, 3\): they must be equal$",
)
bad(
    "an index to ignore among probabilities",
    "cross_entropy",
    ZERO,
    PROBABILITIES,
    ignore_index=0,
    error=ValueError,
    says=r"^ignore_index is 0, but target holds probabilities",
)
for loss, options, says in [
    ("multi_margin_loss", {"p": 3}, r"^p must be 1 or 2, got 3$"),
    ("multi_margin_loss", {"p": 1.5}, r"^p must be 1 or 2, got 1\.5$"),
    ("multi_margin_loss", {"margin": np.nan}, r"^margin must be finite"),
    ("multi_margin_loss", {"weight": np.ones(2)}, r"^weight has shape \(2,\).*\(3,\)"),
]:
    bad(f"{loss} {options}", loss, ZERO, LABELS, **options, error=ValueError, says=says)
for options, says in [
    ({"margin": 0.0}, r"^margin must be positive, got 0\.0$"),
    ({"margin": -1.0}, r"^margin must be positive"),
    ({"margin": np.nan}, r"^margin must be positive, got nan$"),
    ({"p": 0}, r"^p must be positive, got 0$"),
    ({"p": np.nan}, r"^p must be positive"),
    ({"eps": -1e-6}, r"^eps must be finite and at least 0"),
]:
    bad(
        f"triplet {options}",
        "triplet_margin_loss",
        *3 * [FEATURES],
        **options,
        error=ValueError,
        says=says,
    )
for loss, options, says in [
    ("pinball_loss", {"quantile": 1.5}, r"^quantile must be between 0 and 1, got 1\.5$"),
    ("sigmoid_focal_loss", {"alpha": -0.5}, r"^alpha must be between 0 and 1, or -1 for none"),
    ("sigmoid_focal_loss", {"gamma": -1.0}, r"^gamma must be finite and at least 0"),
    ("tweedie_deviance_loss", {"power": 0.5}, r"^power must be .* not between 0 and 1"),
    ("tweedie_deviance_loss", {"power": np.inf}, r"^power must be between -1e6 and 1e6"),
    (
        "tweedie_deviance_loss",
        {"power": 2 + 1e-10},
        r"^power must be .* either 1 or 2 or at least 1e-6",
    ),
    (
        "tweedie_deviance_loss",
        {"power": 1 + 1e-9},
        r"^power must be .* either 1 or 2 or at least 1e-6",
    ),
]:
    bad(f"{loss} {options}", loss, HALF, HALF, **options, error=ValueError, says=says)
for power, argument, value, words in [
    (1.0, 0, 0.0, "above 0"),
    (1.0, 1, -0.5, "at least 0"),
    (2.0, 1, 0.0, "above 0"),
    (3.0, 1, 0.0, "above 0"),
    (-1.0, 0, 0.0, "above 0"),
]:
    arrays = [HALF, HALF]
    arrays[argument] = with_entry(HALF, (1, 2), value)
    name = ("input", "target")[argument]
    bad(
        f"{name} of a Tweedie deviance of power {power}",
        "tweedie_deviance_loss",
        *arrays,
        power=power,
        error=ValueError,
        says=rf"^{name}\[1, 2\] = {value} is not allowed: {name} must be {words}$",
        early=False,
    )
bad(
    "gamma of 0",
    "gamma_nll_loss",
    ZERO,
    ZERO,
    error=ValueError,
    says=r"^target\[0, 0\] = 0\.0 is not allowed: target must be above 0$",
    early=False,
)
bad(
    "a number that float32 rounds to 0",
    "gamma_nll_loss",
    np.zeros(3, np.float16),
    1e-300,
    error=ValueError,
    says="^target = 1e-300 is not allowed: target must be above 0 as a float32, which rounds it to "
    "0; pass arrays of float64$",
    early=False,
)

# --- sequences ------------------------------------------------------------------------------------

FRAMES = np.full((5, 2, 3), np.log(1 / 3))  # (T, N, C)
TARGETS = np.array([[1, 2], [2, 1]])


def bad_sequence(name, error, says, frames=FRAMES, targets=TARGETS, lengths=(5, 2), **keywords):
    for loss in ("ctc_loss", "ctc_loss_with_logits"):
        shown = (
            says.replace("log_probs", "logits") if loss[-1] == "s" and "logits" in loss else says
        )
        bad(f"{name}, {loss}", loss, frames, targets, *lengths, error=error, says=shown, **keywords)


bad_sequence(
    "one axis",
    ValueError,
    r"^log_probs has shape \(3,\): it must have shape \(T, N, C\), or",
    frames=np.zeros(3),
)
bad_sequence(
    "four axes",
    ValueError,
    r"^log_probs has shape \(1, 5, 2, 3\)",
    frames=FRAMES[None],
)
bad_sequence(
    "integer frames",
    TypeError,
    r"^log_probs holds int64: it must hold floating-point scores",
    frames=FRAMES.astype(int),
)
bad_sequence(
    "float labels",
    TypeError,
    r"^targets holds float64: class indices must be integers",
    targets=TARGETS.astype(float),
)
bad_sequence("bool labels", TypeError, r"^targets holds bool: class indices", targets=TARGETS > 1)
bad_sequence(
    "rows of labels",
    ValueError,
    r"^targets has shape \(3, 2\): it must have shape \(2, S\), or",
    targets=np.ones((3, 2), int),
)
bad_sequence(
    "concatenated labels",
    ValueError,
    r"^targets has shape \(3,\).*sum\(target_lengths\) = 4 labels",
    targets=np.ones(3, int),
)
bad_sequence(
    "labels in three axes", ValueError, r"^targets has shape \(1, 2, 2\)", targets=TARGETS[None]
)
for lengths, says in [
    (
        (6, 2),
        r"^input_lengths = 6 is not allowed: .*between 0 and 5, the number of frames$",
    ),
    (([5, -1], 2), r"^input_lengths\[1\] = -1 is not allowed"),
    (([5, 10**18], 2), r"^input_lengths\[1\] = 1000000000000000000 is not allowed"),
    ((5, [3, 1]), r"^target_lengths\[0\] = 3 is not allowed.*labels in targets$"),
    ((5, -1), r"^target_lengths = -1 is not allowed"),
    (([5, 5, 5], 2), r"^input_lengths has shape \(3,\): it must be a scalar, or hold"),
    ((5, [[2, 2]]), r"^target_lengths has shape \(1, 2\)"),
]:
    bad_sequence(f"lengths {lengths}", ValueError, says, lengths=lengths)
for lengths, says in [
    (([5.0, 5.0], 2), r"^input_lengths holds float64: lengths must be integers$"),
    ((5, [True, False]), r"^target_lengths holds bool: lengths must be integers$"),
]:
    bad_sequence(f"lengths {lengths}", TypeError, says, lengths=lengths)
for blank in (-1, 3, 2**40):
    bad_sequence(
        f"blank {blank}",
        ValueError,
        rf"^blank = {blank} is not a class: log_probs has 3 classes",
        blank=blank,
    )
for label in (3, -1, 10**9, -(2**63)):
    bad_sequence(
        f"label {label}",
        fl.ClassIndexError,
        rf"^targets\[1, 0\] = {label} is not a class: log_probs has 3 classes \(0\.\.2\)",
        targets=np.array([[1, 2], [label, 1]]),
    )
bad_sequence(
    "blank among labels",
    ValueError,
    r"^targets\[0, 1\] = 0 is the blank",
    targets=np.array([[1, 0], [1, 2]]),
)
bad_sequence(
    "label of concatenated targets",
    fl.ClassIndexError,
    r"^targets\[2\] = 7 is not a class",
    targets=np.array([1, 2, 7]),
    lengths=(5, [1, 2]),
)
bad(
    "frames that do not sum to 1",
    "ctc_loss",
    with_entry(FRAMES, (3, 1, 0), 0.0),
    TARGETS,
    5,
    2,
    method="grad",
    error=ValueError,
    says=r"^the probabilities of log_probs\[3, 1\] sum to 1\.66667: .*ctc_loss_with_logits",
    early=False,
)
bad(
    "frames that do not sum to 1, samples first",
    "ctc_loss",
    with_entry(FRAMES, (3, 1, 0), 0.0).swapaxes(0, 1),
    TARGETS,
    5,
    2,
    batch_first=True,
    method="value_and_grad",
    error=ValueError,
    says=r"^the probabilities of log_probs\[1, 3\] sum to 1\.66667",
    early=False,
)

# --- a row without entries ------------------------------------------------------------------------

EMPTY, ROW = np.zeros(0), "^{} has shape \\(0,\\), a row without {}: no rows of"
for loss, arrays, entries in [
    ("nll_loss", (EMPTY, 0), "classes"),
    ("nll_loss", (EMPTY, np.zeros(0, int)), "classes"),
    ("cross_entropy", (EMPTY, -100), "classes"),
    ("cross_entropy", (EMPTY, EMPTY), "classes"),
    ("multi_margin_loss", (EMPTY, 0), "classes"),
    ("multilabel_margin_loss", (EMPTY, np.zeros(0, int)), "classes"),
    ("multilabel_soft_margin_loss", (EMPTY, EMPTY), "classes"),
    ("cosine_embedding_loss", (EMPTY, EMPTY, 1), "features"),
    ("triplet_margin_loss", (EMPTY, EMPTY, EMPTY), "features"),
]:
    bad(
        f"{loss} of a row without {entries}, {len(CASES)}",
        loss,
        *arrays,
        error=ValueError,
        says=ROW.format(getattr(fl, loss).operands[0], entries),
    )

# --- dtypes ---------------------------------------------------------------------------------------

bad(
    "complex input",
    "mse_loss",
    ZERO + 1j,
    ZERO,
    error=TypeError,
    says=r"^input has dtype complex128.*\.real",
)
bad("complex target", "mse_loss", ZERO, ZERO + 1j, error=TypeError, says=r"^target .*complex128")
bad("complex number", "mse_loss", ZERO, 1j, error=TypeError, says=r"^target .*complex128")
bad("complex logits", "cross_entropy", ZERO + 1j, LABELS, error=TypeError, says=r"^input .*complex")
for dtype in [object, "S1", "U1", "m8[s]", "f4, f4"]:
    bad(
        f"logits of {np.dtype(dtype)}",
        "cross_entropy",
        ZERO.astype(dtype),
        LABELS,
        error=TypeError,
        says=r"^input (has dtype|is not a numeric)",
    )
bad(
    "complex labels", "cross_entropy", ZERO, LABELS + 1j, error=TypeError, says=r"^target .*complex"
)
bad("object", "mse_loss", ZERO.astype(object), ZERO, error=TypeError, says=r"^input .*object")
bad(
    "object labels",
    "cross_entropy",
    ZERO,
    LABELS.astype(object),
    error=TypeError,
    says=r"^target .*object",
)
bad("None", "mse_loss", ZERO, None, error=TypeError, says=r"^target must be an array.*NoneType")
bad("text", "mse_loss", "abc", ZERO, error=TypeError, says=r"^input must be an array.*got str")
bad("bytes", "mse_loss", b"abc", ZERO, error=TypeError, says=r"^input must be an array.*got bytes")
bad("array of text", "mse_loss", ZERO.astype(str), ZERO, error=TypeError, says=r"^input .*dtype <U")
bad(
    "labels as text", "nll_loss", ZERO, np.array(["0", "1"]), error=TypeError, says=r"^target .*<U1"
)
bad("set", "mse_loss", {1.0, 2.0}, np.zeros(2), error=TypeError, says=r"^input must be.*got set")
bad("dict", "mse_loss", {0: 1.0}, np.zeros(1), error=TypeError, says=r"^input must be.*got dict")
bad("ragged list", "mse_loss", [[1.0], [1.0, 2.0]], ZERO, error=TypeError, says=r"^input cannot be")
bad("huge integer", "mse_loss", ZERO, 10**400, error=TypeError, says=r"^target ")
bad("unreadable", "mse_loss", Unreadable(), ZERO, error=TypeError, says=r"^input .*not today")
bad(
    "structured", "mse_loss", np.zeros((2, 3), "f4, f4"), ZERO, error=TypeError, says=r"^input .*f0"
)
bad("times", "mse_loss", ZERO.astype("m8[s]"), ZERO, error=TypeError, says=r"^input .*timedelta64")
bad(
    "masked input",
    "mse_loss",
    np.ma.masked_array(ZERO, SIGNS > 0),
    ZERO,
    error=TypeError,
    says=r"^input is a masked array.*filled.*sample_weight",
)
bad(
    "masked labels",
    "cross_entropy",
    ZERO,
    np.ma.masked_array(LABELS, [True, False]),
    error=TypeError,
    says=r"^target is a masked array.*filled.*sample_weight",
)
bad(
    "dask input",
    "mse_loss",
    DaskArray(),
    ZERO,
    error=TypeError,
    says=r"^input is a dask.*fastloss\.evaluate\(criterion, input, target\)",
)
bad(
    "dask target",
    "kl_div",
    ZERO,
    DaskArray(),
    error=TypeError,
    says=r"^target is a dask.*fastloss\.evaluate\(criterion, input, target\)",
)
if np.dtype(np.longdouble).itemsize > 8:
    bad(
        "long double",
        "mse_loss",
        ZERO.astype(np.longdouble),
        ZERO,
        error=TypeError,
        says=r"^input has dtype (float96|float128).*input\.astype\(np\.float64\)",
    )
    bad(
        "long double logits",
        "nll_loss",
        ZERO.astype(np.longdouble),
        LABELS,
        error=TypeError,
        says=r"^input has dtype (float96|float128).*input\.astype\(np\.float64\)",
    )
    bad(
        "long double weight",
        "mse_loss",
        ZERO,
        ZERO,
        weight=np.ones((2, 3), np.longdouble),
        error=TypeError,
        says=r"^weight has dtype (float96|float128).*weight\.astype\(np\.float64\)",
    )
bad(
    "bool class indices",
    "cross_entropy",
    ZERO,
    np.array([True, False]),
    error=TypeError,
    says=r"^target holds bool: class indices must be integers.*target\.astype",
)
bad("bool class index", "nll_loss", np.zeros(3), True, error=TypeError, says=r"^target holds bool")
bad(
    "float class indices",
    "nll_loss",
    ZERO,
    LABELS.astype(float),
    error=TypeError,
    says=r"^target holds float64: class indices must be integers.*target\.astype\(np\.int64\)",
)
bad(
    "half class indices",
    "cross_entropy",
    ZERO,
    LABELS.astype(np.float16),
    error=TypeError,
    says=r"^target holds float16.*target\.astype",
)
bad(
    "swapped logits and labels",
    "cross_entropy",
    LABELS,
    ZERO,
    error=TypeError,
    says=r"^input holds int64.*swapped",
)
bad(
    "integer logits",
    "nll_loss",
    ZERO.astype(np.int32),
    LABELS,
    error=TypeError,
    says=r"^input .*int32",
)
bad("bool logits", "cross_entropy", ZERO > 0, LABELS, error=TypeError, says=r"^input holds bool")
for loss in ["hinge_embedding_loss", "soft_margin_loss"]:
    bad(
        f"bool labels of {loss}",
        loss,
        ZERO,
        np.ones((2, 3), bool),
        error=TypeError,
        says=r"^target holds bool.*-1",
    )
bad(
    "bool labels of ranking",
    "margin_ranking_loss",
    ZERO,
    ZERO,
    np.ones((2, 3), bool),
    error=TypeError,
    says=r"^target holds bool.*-1",
)

# --- options --------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")

for loss, option, value, error, rule in [
    ("huber_loss", "delta", 0.0, ValueError, "positive"),
    ("huber_loss", "delta", -1.0, ValueError, "positive"),
    ("huber_loss", "delta", NAN, ValueError, "positive"),
    ("huber_loss", "delta", "1", TypeError, "a number"),
    ("huber_loss", "delta", None, TypeError, "a number"),
    ("huber_loss", "delta", [1.0], TypeError, "a number"),
    ("huber_loss", "delta", np.array([1.0]), TypeError, "a number"),
    ("huber_loss", "delta", 1j, TypeError, "a number"),
    ("huber_loss", "delta", np.complex128(1 + 1j), TypeError, "a number"),
    ("huber_loss", "delta", np.datetime64(1, "D"), TypeError, "a number"),
    ("smooth_l1_loss", "beta", -1e-300, ValueError, "at least 0"),
    ("smooth_l1_loss", "beta", NAN, ValueError, "at least 0"),
    ("poisson_nll_loss", "eps", -1e-8, ValueError, "finite and at least 0"),
    ("poisson_nll_loss", "eps", INF, ValueError, "finite and at least 0"),
    ("poisson_nll_loss", "eps", NAN, ValueError, "finite and at least 0"),
    ("poisson_nll_loss", "eps", 10**400, ValueError, "finite and at least 0"),
    ("poisson_nll_loss", "full", "yes", TypeError, "True or False"),
    ("poisson_nll_loss", "log_input", 2, TypeError, "True or False"),
    ("poisson_nll_loss", "log_input", None, TypeError, "True or False"),
    ("kl_div", "log_target", np.array([True]), TypeError, "True or False"),
    ("hinge_embedding_loss", "margin", INF, ValueError, "finite"),
    ("hinge_embedding_loss", "margin", NAN, ValueError, "finite"),
]:
    bad(
        f"{option}={str(value)[:20]}",
        loss,
        ZERO,
        SIGNS if loss.startswith("hinge") else HALF,
        error=error,
        says=rf"^{option} must be {rule}, got ",
        **{option: value},
    )
for loss, option, value, error, rule in [
    ("cross_entropy", "label_smoothing", -0.1, ValueError, "between 0 and 1"),
    ("cross_entropy", "label_smoothing", 1.1, ValueError, "between 0 and 1"),
    ("cross_entropy", "label_smoothing", NAN, ValueError, "between 0 and 1"),
    ("cross_entropy", "label_smoothing", "0.1", TypeError, "a number"),
    ("cross_entropy", "ignore_index", 1.0, TypeError, "an integer"),
    ("cross_entropy", "ignore_index", True, TypeError, "an integer"),
    ("nll_loss", "ignore_index", None, TypeError, "an integer"),
    ("nll_loss", "ignore_index", "0", TypeError, "an integer"),
    ("nll_loss", "ignore_index", 2**63, ValueError, "64 bits"),
    ("nll_loss", "ignore_index", -(2**63) - 1, ValueError, "64 bits"),
]:
    bad(
        f"{option}={str(value)[:25]}",
        loss,
        ZERO,
        LABELS,
        error=error,
        says=rf"^{option} must (be|fit in) {rule}, got ",
        **{option: value},
    )
bad(
    "margin of ranking",
    "margin_ranking_loss",
    ZERO,
    ZERO,
    SIGNS,
    margin=-INF,
    error=ValueError,
    says=r"^margin must be finite, got -inf",
)
bad(
    "eps of gaussian",
    "gaussian_nll_loss",
    ZERO,
    ZERO,
    1.0,
    eps=-1,
    error=ValueError,
    says=r"^eps must be .*at least 0, got -1",
)
for value in ["abc", "Mean", "elementwise_mean", "", None, 0, True, ["mean"]]:
    bad(
        f"reduction={value!r}",
        "mse_loss",
        ZERO,
        ZERO,
        reduction=value,
        error=ValueError,
        says=r"^reduction must be one of 'mean', 'sum', 'none', got ",
    )
bad(
    "batchmean elsewhere",
    "cross_entropy",
    ZERO,
    LABELS,
    reduction="batchmean",
    error=ValueError,
    says=r"^reduction must be one of 'mean', 'sum', 'none', got 'batchmean'",
)
bad(
    "unknown reduction of kl_div",
    "kl_div",
    ZERO,
    PROBABILITIES,
    reduction="batch",
    error=ValueError,
    says=r"^reduction must be one of .*'batchmean', got 'batch'",
)

# --- arguments ------------------------------------------------------------------------------------

UNEXPECTED = r"unexpected keyword argument "

bad(
    "misspelt option",
    "cross_entropy",
    ZERO,
    LABELS,
    labelsmoothing=0.1,
    error=TypeError,
    says=r"^cross_entropy\(\) .*'labelsmoothing'; did you mean 'label_smoothing'\?",
)
bad(
    "option of another loss",
    "mse_loss",
    ZERO,
    ZERO,
    zero_infinity=True,
    error=TypeError,
    says=UNEXPECTED + r"'zero_infinity'; its options are weight, reduction, sample_weight, out",
)
for option in ["size_average", "reduce"]:
    bad(
        option,
        "mse_loss",
        ZERO,
        ZERO,
        error=TypeError,
        says=UNEXPECTED + rf"'{option}'; use reduction=",
        **{option: True},
    )
for option, value in [("wrt", "input"), ("grad_output", 1.0)]:
    bad(
        f"{option} of a value",
        "mse_loss",
        ZERO,
        ZERO,
        error=TypeError,
        says=UNEXPECTED + rf"'{option}'; only \.grad and \.value_and_grad take it",
        early=False,
        **{option: value},
    )
bad(
    "out of sums",
    "mse_loss",
    ZERO,
    ZERO,
    method="sums",
    out=np.zeros((2, 3)),
    error=TypeError,
    says=UNEXPECTED + "'out'; the sums are returned as scalars$",
)
bad(
    "positional option",
    "mse_loss",
    ZERO,
    ZERO,
    "sum",
    error=TypeError,
    says=r"^mse_loss\(\) takes 2 positional arguments \(input, target\) but 3 were given; "
    r"options are keyword-only$",
)
bad(
    "torch's size_average by position",
    "cross_entropy",
    ZERO,
    LABELS,
    None,
    True,
    error=TypeError,
    says=r"takes 3 positional arguments \(input, target, weight\) but 4 were given",
)
bad(
    "no target",
    "mse_loss",
    ZERO,
    error=TypeError,
    says=r"^mse_loss\(\) is missing the required argument 'target'$",
    early=False,
)
bad(
    "no arrays",
    "gaussian_nll_loss",
    error=TypeError,
    says=r"^gaussian_nll_loss\(\) is missing the required argument 'input'$",
    early=False,
)
bad(
    "array twice",
    "mse_loss",
    ZERO,
    ZERO,
    target=ZERO,
    error=TypeError,
    says=r"multiple values for argument 'target'",
)
bad(
    "weight twice",
    "binary_cross_entropy",
    HALF,
    HALF,
    None,
    weight=None,
    error=TypeError,
    says=r"multiple values for argument 'weight'",
)

# --- weights --------------------------------------------------------------------------------------

bad(
    "too few class weights",
    "cross_entropy",
    ZERO,
    LABELS,
    weight=np.ones(2),
    error=ValueError,
    says=r"^weight has shape \(2,\).*one weight per class, shape \(3,\)",
)
bad(
    "class weights as a column",
    "nll_loss",
    ZERO,
    LABELS,
    weight=np.ones((3, 1)),
    error=ValueError,
    says=r"^weight has shape \(3, 1\).*shape \(3,\)",
)
bad(
    "one class weight",
    "nll_loss",
    ZERO,
    LABELS,
    weight=1.0,
    error=ValueError,
    says=r"^weight has shape \(\).*shape \(3,\)",
)
bad(
    "complex class weights",
    "nll_loss",
    ZERO,
    LABELS,
    weight=np.ones(3) + 1j,
    error=TypeError,
    says=r"^weight has dtype complex128",
)
bad(
    "masked weights",
    "mse_loss",
    ZERO,
    ZERO,
    weight=np.ma.ones((2, 3)),
    error=TypeError,
    says=r"^weight is a masked array",
)
bad(
    "weight that does not broadcast",
    "mse_loss",
    ZERO,
    ZERO,
    weight=np.ones(2),
    error=ValueError,
    says=r"^weight of shape \(2,\) cannot be broadcast to the input's shape \(2, 3\)",
)
bad(
    "weight longer than the last axis",
    "mse_loss",
    ZERO,
    ZERO,
    weight=np.ones(4),
    error=ValueError,
    says=r"^weight of shape \(4,\) cannot be broadcast to the input's shape \(2, 3\)",
)
bad(
    "weight longer than the leading axis",
    "huber_loss",
    ZERO,
    ZERO,
    weight=np.ones((3, 1)),
    error=ValueError,
    says=r"^weight of shape \(3, 1\) cannot be broadcast to the input's shape \(2, 3\)",
)
bad(
    "weight larger than the input",
    "binary_cross_entropy",
    HALF,
    HALF,
    weight=np.ones((4, 2, 3)),
    error=ValueError,
    says=r"^weight of shape \(4, 2, 3\) cannot",
)
bad(
    "pos_weight that does not broadcast",
    "binary_cross_entropy_with_logits",
    ZERO,
    HALF,
    pos_weight=np.ones(2),
    error=ValueError,
    says=r"^pos_weight of shape \(2,\) cannot be broadcast",
)
bad(
    "object pos_weight",
    "binary_cross_entropy_with_logits",
    ZERO,
    HALF,
    pos_weight=np.ones(3, object),
    error=TypeError,
    says=r"^pos_weight .*object",
)
for shape in [(3,), (2, 1), (1, 3), (1,), (), (2, 3, 1)]:
    bad(
        f"sample_weight {shape}",
        "mse_loss",
        ZERO,
        ZERO,
        sample_weight=np.ones(shape),
        error=ValueError,
        says=r"^sample_weight has shape .*must have shape \(2, 3\).*or \(2,\)",
    )
bad(
    "sample_weight per class",
    "cross_entropy",
    ZERO,
    LABELS,
    sample_weight=np.ones((2, 3)),
    error=ValueError,
    says=r"^sample_weight has shape \(2, 3\).*must have shape \(2,\)",
)
bad(
    "negative sample_weight",
    "mse_loss",
    ZERO,
    ZERO,
    sample_weight=[1.0, -2.0],
    error=ValueError,
    says=r"^sample_weight\[1\] = -2\.0 is not allowed: sample_weight must be at least 0",
    early=False,
)
bad(
    "negative sample_weight of rows",
    "cross_entropy",
    ZERO,
    LABELS,
    sample_weight=[-1, 1],
    error=ValueError,
    says=r"^sample_weight\[0\] = -1 .*at least 0",
    early=False,
)

# --- values ---------------------------------------------------------------------------------------

bad(
    "class index too large",
    "cross_entropy",
    ZERO,
    np.array([0, 3]),
    error=fl.ClassIndexError,
    says=r"^target\[1\] = 3 is not a class: input has 3 classes \(0\.\.2\), and ignore_index is "
    r"-100$",
)
bad(
    "class index of torch",
    "nll_loss",
    ZERO,
    np.array([-1, 0]),
    ignore_index=255,
    error=fl.ClassIndexError,
    says=r"^target\[0\] = -1 is not a class: .*ignore_index is 255",
)
bad(
    "class index of a single row",
    "cross_entropy",
    np.zeros(3),
    5,
    error=fl.ClassIndexError,
    says=r"^target = 5 is not a class: input has 3 classes",
)
bad(
    "no classes",
    "cross_entropy",
    np.zeros((2, 0)),
    np.array([-100, 0]),
    error=fl.ClassIndexError,
    says=r"^target\[1\] = 0 is not a class: input has no classes",
)
SIGN = r" is not allowed: target must be -1 or 1"
for loss in ["hinge_embedding_loss", "soft_margin_loss"]:
    for value in [0.0, 2.0, -1.0000001, INF]:
        bad(
            f"label {value} of {loss}",
            loss,
            ZERO,
            with_entry(SIGNS, (1, 0), value),
            error=ValueError,
            says=rf"^target\[1, 0\] = {value}{SIGN}",
        )
    bad(
        f"0/1 labels of {loss}",
        loss,
        ZERO,
        (SIGNS > 0).astype(np.uint8),
        error=ValueError,
        says=rf"^target\[0, 1\] = 0{SIGN}",
    )
bad(
    "wrapped label",
    "margin_ranking_loss",
    ZERO,
    ZERO,
    np.full((2, 3), 255, np.uint8),
    error=ValueError,
    says=rf"^target\[0, 0\] = 255{SIGN}",
)
UNIT = r" is not allowed: {} must be between 0 and 1"
for loss, good, name in [
    ("binary_cross_entropy", HALF, "input"),
    ("binary_cross_entropy", HALF, "target"),
    ("binary_cross_entropy_with_logits", ZERO, "target"),
]:
    for value in [-1e-12, np.nextafter(1, 2), INF, -INF]:
        wrong = with_entry(HALF, (0, 2), value)
        bad(
            f"{name} {value} of {loss}",
            loss,
            *((wrong, HALF) if name == "input" else (good, wrong)),
            error=ValueError,
            says=rf"^{name}\[0, 2\] = {float(value)!r}".replace("+", r"\+") + UNIT.format(name),
            early=False,
        )
NONNEGATIVE = r" is not allowed: {} must be at least 0"
for loss, keywords in [
    ("kl_div", {}),
    ("poisson_nll_loss", {}),
    ("poisson_nll_loss", {"full": True}),
]:
    bad(
        f"negative target of {loss} {keywords}",
        loss,
        ZERO,
        with_entry(HALF, (1, 1), -0.5),
        error=ValueError,
        says=r"^target\[1, 1\] = -0\.5" + NONNEGATIVE.format("target"),
        early=False,
        **keywords,
    )
bad(
    "negative rate",
    "poisson_nll_loss",
    with_entry(HALF, (1, 2), -1),
    HALF,
    log_input=False,
    error=ValueError,
    says=r"^input\[1, 2\] = -1\.0" + NONNEGATIVE.format("input"),
    early=False,
)
bad(
    "negative variance",
    "gaussian_nll_loss",
    ZERO,
    ZERO,
    with_entry(HALF, (1, 2), -1),
    error=ValueError,
    says=r"^var\[1, 2\] = -1\.0" + NONNEGATIVE.format("var"),
    early=False,
)
bad(
    "negative variance of all",
    "gaussian_nll_loss",
    ZERO,
    ZERO,
    -1,
    error=ValueError,
    says=r"^var = -1" + NONNEGATIVE.format("var"),
    early=False,
)

# --- gradients ------------------------------------------------------------------------------------

for wrt, error, says in [
    ("inputs", ValueError, r"^wrt='inputs': mse_loss has gradients for 'input', 'target'"),
    ("weight", ValueError, r"^wrt='weight': mse_loss has gradients for 'input', 'target'"),
    (("input", "input"), ValueError, r"^wrt=\('input', 'input'\) names an argument twice"),
    (("input", 1), ValueError, r"^wrt=1: mse_loss has gradients for"),
    ((ZERO,), ValueError, r"(?s)^wrt=.*: mse_loss has gradients for"),
    ((), TypeError, r"^wrt must be an argument's name or a tuple of names, got \(\)"),
    (0, TypeError, r"^wrt must be an argument's name or a tuple of names, got 0"),
]:
    bad(
        f"wrt={str(wrt)[:20]}",
        "mse_loss",
        ZERO,
        ZERO,
        method="grad",
        wrt=wrt,
        error=error,
        says=says,
    )
bad(
    "gradient of labels",
    "margin_ranking_loss",
    ZERO,
    ZERO,
    SIGNS,
    method="value_and_grad",
    wrt="target",
    error=ValueError,
    says=r"^wrt='target': margin_ranking_loss has gradients for 'input1', 'input2'",
)
bad(
    "gradient of class indices",
    "cross_entropy",
    ZERO,
    LABELS,
    method="grad",
    wrt="target",
    error=TypeError,
    says=r"^target holds int64, which has no gradient",
)
bad(
    "gradient of class indices, nll",
    "nll_loss",
    ZERO,
    LABELS,
    method="grad",
    wrt="target",
    error=ValueError,
    says=r"^wrt='target': nll_loss has gradients for 'input'",
)
for dtype in [np.int64, np.uint8, bool]:
    bad(
        f"gradient of {dtype.__name__}",
        "mse_loss",
        ZERO.astype(dtype),
        ZERO,
        method="grad",
        error=TypeError,
        says=rf"^input holds {np.dtype(dtype)}, which has no gradient.*floating",
    )
bad(
    "gradient of an integer target",
    "mse_loss",
    ZERO,
    ZERO.astype(int),
    method="value_and_grad",
    wrt=("input", "target"),
    error=TypeError,
    says=r"^target holds int64, which has no gradient",
)
GRAD_CALL = {"method": "grad", "error": ValueError}
for reduction in ["mean", "sum"]:
    bad(
        f"grad_output array with {reduction}",
        "mse_loss",
        ZERO,
        ZERO,
        grad_output=np.ones((2, 3)),
        reduction=reduction,
        says=r"^grad_output has shape \(2, 3\): it must be a scalar unless reduction='none'",
        **GRAD_CALL,
    )
for loss, target, shape in [
    ("mse_loss", ZERO, (3,)),
    ("mse_loss", ZERO, (2, 1)),
    ("mse_loss", ZERO, (1,)),
    ("cross_entropy", LABELS, (2, 3)),
    ("nll_loss", LABELS, (1,)),
]:
    bad(
        f"grad_output {shape} of {loss}",
        loss,
        ZERO,
        target,
        grad_output=np.ones(shape),
        reduction="none",
        says=r"^grad_output has shape \(.*\): it must be a scalar or have the loss's shape \(2,",
        **GRAD_CALL,
    )
bad(
    "complex grad_output",
    "mse_loss",
    ZERO,
    ZERO,
    method="grad",
    grad_output=1j,
    error=TypeError,
    says=r"^grad_output .*complex128",
)
bad(
    "text as grad_output",
    "mse_loss",
    ZERO,
    ZERO,
    method="grad",
    grad_output="1",
    error=TypeError,
    says=r"^grad_output must be an array or a scalar, got str",
)
bad(
    "huge grad_output",
    "mse_loss",
    ZERO,
    ZERO,
    method="grad",
    grad_output=10**400,
    error=(TypeError, ValueError),
    says=r"^grad_output ",
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.loss}-{case.name}")
def test_bad_call_raises_with_message(case):
    method = getattr(getattr(fl, case.loss), case.method)
    with pytest.raises(case.error, match=case.says) as caught:
        method(*case.arrays, **case.keywords)
    assert isinstance(caught.value, (TypeError, ValueError))


def test_there_are_many_bad_calls():
    assert len(CASES) >= 80
    assert len({(case.loss, case.name) for case in CASES}) == len(CASES)


def outs_of(case):
    """Outs of the right shapes, as far as the call has valid shapes: (values, gradients)."""
    loss = getattr(fl, case.loss)
    arrays = [np.asarray(array) for array in case.arrays[: len(loss.operands)]]
    shape = arrays[0].shape
    if "ignore_index" in loss.__signature__.parameters:
        shape = arrays[1].shape
    elif "input_lengths" in loss.operands:
        shape = (2,)
    elif loss.row_axis == -1:
        shape = shape[:-1]
    values = np.full(shape, UNWRITTEN)
    wrt = case.keywords.get("wrt", loss.default_wrt)
    if not isinstance(wrt, tuple) or not all(isinstance(name, str) for name in wrt):
        wrt = loss.default_wrt
    like = [arrays[loss.operands.index(name)] for name in wrt] or arrays[:1]
    gradients = tuple(np.full(array.shape, UNWRITTEN) for array in like)
    return values, gradients[0] if len(gradients) == 1 else gradients


def assert_unwritten(*outs):
    for out in outs:
        for array in out if isinstance(out, tuple) else (out,):
            assert np.all(array == UNWRITTEN)


CONVERTIBLE = [
    case
    for case in CASES
    if case.early
    and "out" not in case.keywords
    and case.name not in ("ragged list", "unreadable", "text", "bytes", "None", "set", "dict")
]


@pytest.mark.parametrize("case", CONVERTIBLE, ids=lambda case: f"{case.loss}-{case.name}")
def test_nothing_is_written_before_an_early_error(case):
    loss = getattr(fl, case.loss)
    values, gradients = outs_of(case)
    keywords = {"reduction": "none", **case.keywords}
    if case.method == "__call__":
        with pytest.raises(case.error, match=case.says):
            loss(*case.arrays, **{**keywords, "out": values})
    with pytest.raises(case.error, match=case.says):
        loss.grad(*case.arrays, **{**case.keywords, "out": gradients})
    if keywords["reduction"] == "none":
        with pytest.raises(case.error, match=case.says):
            loss.value_and_grad(*case.arrays, **{**keywords, "out": (values, gradients)})
    assert_unwritten(values, gradients)


# --- out ------------------------------------------------------------------------------------------


def out_cases():
    """(function that returns method, arrays and keywords; exception; message), with an id."""

    def case(name, error, says):
        return lambda make: cases.append(pytest.param(make, error, says, id=name))

    cases = []
    x = np.linspace(-1, 1, 6).reshape(2, 3)

    @case("wrong shape", ValueError, r"^out for the gradient of input has shape \(3, 2\).*\(2, 3\)")
    def _():
        return fl.mse_loss.grad, (x, ZERO), {"out": np.empty((3, 2))}

    @case("broadcastable shape", ValueError, r"^out for the gradient of input has shape \(1, 3\)")
    def _():
        return fl.mse_loss.grad, (x, ZERO), {"out": np.empty((1, 3))}

    @case("shape of values", ValueError, r"^out for the values has shape \(2, 3\).*shape \(2,\)")
    def _():
        return fl.cross_entropy, (x, LABELS), {"reduction": "none", "out": np.empty((2, 3))}

    @case("shape of a shared gradient", ValueError, r"^out for the gradient of target .*\(\)")
    def _():
        return fl.mse_loss.grad, (x, np.float64(1)), {"wrt": "target", "out": np.empty((2, 3))}

    @case(
        "narrower dtype", TypeError, r"^out for the gradient .*float32: it must have dtype float64"
    )
    def _():
        return fl.mse_loss.grad, (x, ZERO), {"out": np.empty((2, 3), np.float32)}

    @case("wider dtype", TypeError, r"float64: it must have dtype float32$")
    def _():
        return fl.mse_loss.grad, (x.astype("f4"), ZERO), {"out": np.empty((2, 3))}

    @case("dtype of halves", TypeError, r"float64: it must have dtype float16 or float32")
    def _():
        return fl.mse_loss.grad, (x.astype("f2"), 0.0), {"out": np.empty((2, 3))}

    @case("dtype of values", TypeError, r"^out for the values has dtype float32.*dtype float64")
    def _():
        out = np.empty((2, 3), np.float32)
        return fl.mse_loss, (x.astype("f4"), ZERO), {"reduction": "none", "out": out}

    @case("integers", TypeError, r"^out for the gradient of input has dtype int64")
    def _():
        return fl.mse_loss.grad, (x, ZERO), {"out": np.empty((2, 3), int)}

    @case("complex out", TypeError, r"^out for the gradient of input has dtype complex128")
    def _():
        return fl.mse_loss.grad, (x, ZERO), {"out": np.empty((2, 3), complex)}

    @case("read-only", ValueError, r"^out for the gradient of input is read-only")
    def _():
        out = np.empty((2, 3))
        out.flags.writeable = False
        return fl.mse_loss.grad, (x, ZERO), {"out": out}

    @case("list", TypeError, r"^out for the gradient of input must be a numpy\.ndarray, got list")
    def _():
        return fl.mse_loss.grad, (x, ZERO), {"out": [[0.0] * 3] * 2}

    @case("masked out", TypeError, r"must be a numpy\.ndarray, got MaskedArray")
    def _():
        return fl.mse_loss.grad, (x, ZERO), {"out": np.ma.empty((2, 3))}

    @case("number", TypeError, r"^out for the values must be a numpy\.ndarray, got float64")
    def _():
        return fl.mse_loss, (1.0, 0.0), {"reduction": "none", "out": np.float64(0)}

    @case("mean value", ValueError, r"^out holds the unreduced losses: it needs reduction='none'")
    def _():
        return fl.mse_loss, (x, ZERO), {"out": np.empty((2, 3))}

    @case("sum value", ValueError, r"needs reduction='none'")
    def _():
        return fl.cross_entropy, (x, LABELS), {"reduction": "sum", "out": np.empty(2)}

    @case("no pair", TypeError, r"^out must be a pair \(values, gradients\)")
    def _():
        return fl.mse_loss.value_and_grad, (x, ZERO), {"reduction": "none", "out": np.empty((2, 3))}

    @case("triple", TypeError, r"^out must be a pair \(values, gradients\)")
    def _():
        out = np.empty((2, 3)), np.empty((2, 3)), np.empty((2, 3))
        return fl.mse_loss.value_and_grad, (x, ZERO), {"reduction": "none", "out": out}

    @case("one of two", TypeError, r"^out must be a tuple of 2 arrays.*input, target")
    def _():
        out = np.empty((2, 3))
        return fl.mse_loss.grad, (x, ZERO), {"wrt": ("input", "target"), "out": out}

    @case("three of two", TypeError, r"^out must be a tuple of 2 arrays.*input1, input2")
    def _():
        return fl.margin_ranking_loss.grad, (x, ZERO, SIGNS), {"out": (np.empty((2, 3)),) * 3}

    @case("tuple for one", TypeError, r"^out for the gradient of input must be .*got tuple")
    def _():
        return fl.mse_loss.grad, (x, ZERO), {"out": (np.empty((2, 3)),)}

    @case("is the other argument", ValueError, r"^out for the gradient of input overlaps target")
    def _():
        y = np.zeros((2, 3))
        return fl.mse_loss.grad, (x, y), {"out": y}

    @case("is the labels", (TypeError, ValueError), r"^out for the gradient of input")
    def _():
        logits, labels = np.zeros((2, 2)), np.zeros((2, 2), int)[0]
        return fl.cross_entropy.grad, (logits, labels), {"out": labels.base.view(float)}

    @case("values are the input", ValueError, r"^out for the values overlaps input")
    def _():
        mine = x.copy()
        return fl.mse_loss, (mine, ZERO), {"reduction": "none", "out": mine}

    @case("shifted by one", ValueError, r"^out for the gradient of input overlaps input")
    def _():
        line = np.zeros(7)
        return fl.mse_loss.grad, (line[:6], np.zeros(6)), {"out": line[1:]}

    @case("reversed", ValueError, r"^out for the gradient of input overlaps input")
    def _():
        line = np.zeros(6)
        return fl.mse_loss.grad, (line, np.zeros(6)), {"out": line[::-1]}

    @case("reversed from beyond its end", ValueError, r"^out for the gradient of input overlaps ")
    def _():
        line = np.zeros(9)
        return fl.mse_loss.grad, (line[:6], np.zeros(6)), {"out": line[3:][::-1]}

    @case("transposed", ValueError, r"^out for the gradient of input overlaps input")
    def _():
        square = np.zeros((3, 3))
        return fl.mse_loss.grad, (square, np.zeros((3, 3))), {"out": square.T}

    @case("in another byte order", ValueError, r"^out for the gradient of input overlaps input")
    def _():
        mine = x.copy()
        return fl.mse_loss.grad, (mine, ZERO), {"out": mine.view(mine.dtype.newbyteorder())}

    @case("an input that is passed twice", ValueError, r"overlaps target")
    def _():
        mine = x.copy()
        return fl.mse_loss.grad, (mine, mine), {"out": mine}

    @case("sample_weight", ValueError, r"^out for the gradient of input overlaps sample_weight")
    def _():
        w = np.ones((2, 3))
        return fl.mse_loss.grad, (x, ZERO), {"sample_weight": w, "out": w}

    @case("part of the weight", ValueError, r"^out for the gradient of input overlaps weight")
    def _():
        w = np.ones((3, 3))
        return fl.mse_loss.grad, (x, ZERO), {"weight": w[0], "out": w[:2]}

    @case("class weights", ValueError, r"^out for the gradient of input overlaps weight")
    def _():
        w = np.ones((2, 3))
        return fl.cross_entropy.grad, (x, LABELS), {"weight": w[1], "out": w}

    @case("pos_weight", ValueError, r"^out for the gradient of input overlaps pos_weight")
    def _():
        w = np.ones((2, 3))
        loss = fl.binary_cross_entropy_with_logits
        return loss.grad, (x, HALF), {"pos_weight": w[:1], "out": w}

    @case("grad_output", ValueError, r"^out for the gradient of input overlaps grad_output")
    def _():
        u = np.ones((2, 3))
        return fl.mse_loss.grad, (x, ZERO), {"reduction": "none", "grad_output": u, "out": u}

    @case("one array twice", ValueError, r"^out for the gradient of target overlaps ")
    def _():
        out = np.empty((2, 3))
        return fl.mse_loss.grad, (x, ZERO), {"wrt": ("input", "target"), "out": (out, out)}

    @case("halves that overlap", ValueError, r"^out for the gradient of input2 overlaps ")
    def _():
        both = np.empty((3, 3))
        return fl.margin_ranking_loss.grad, (x, ZERO, SIGNS), {"out": (both[:2], both[1:])}

    @case("values and gradient in one", ValueError, r"^out for the gradient of input overlaps ")
    def _():
        out = np.empty((2, 3))
        return fl.mse_loss.value_and_grad, (x, ZERO), {"reduction": "none", "out": (out, out)}

    @case(
        "entries in one place",
        ValueError,
        r"^out for the gradient of input has entries that overlap",
    )
    def _():
        return fl.mse_loss.grad, (x, ZERO), {"out": as_strided(np.zeros(3), (2, 3), (0, 8))}

    @case("sliding window", ValueError, r"^out for the values has entries that overlap")
    def _():
        out = as_strided(np.zeros(4), (2, 3), (8, 8))
        return fl.mse_loss, (x, ZERO), {"reduction": "none", "out": out}

    return cases


@pytest.mark.parametrize(("make", "error", "says"), out_cases())
def test_bad_out_raises_and_nothing_is_written(make, error, says):
    method, arrays, keywords = make()
    outs = keywords["out"] if isinstance(keywords["out"], tuple) else (keywords["out"],)
    writeable = [out for out in outs if isinstance(out, np.ndarray) and out.flags.writeable]
    for out in writeable:
        if not any(np.shares_memory(out, array) for array in arrays):
            out.fill(1)
    before = (
        [out.tobytes() for out in writeable],
        [array.tobytes() for array in map(np.array, arrays)],
    )
    with pytest.raises(error, match=says):
        method(*arrays, **keywords)
    assert before == (
        [out.tobytes() for out in writeable],
        [array.tobytes() for array in map(np.array, arrays)],
    )


# --- class indices --------------------------------------------------------------------------------


def non_classes(dtype, classes):
    """Integers of this dtype that are not class indices."""
    limits = np.iinfo(dtype)
    values = {limits.min, -1, classes, limits.max, 2**31, 2**32, 2**32 - 1, 2**63, 2**63 + 1}
    return sorted(v for v in values if limits.min <= v <= limits.max and not 0 <= v < classes)


INTEGERS = [kind + size for size in "1248" for kind in "iu"]


@pytest.mark.parametrize("order", ["=", "S"], ids=["native", "swapped"])
@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("loss", [fl.cross_entropy, fl.nll_loss], ids=lambda loss: loss.__name__)
def test_class_indices_of_every_integer_type_are_checked(loss, dtype, order):
    x = np.zeros((5, 4), np.float32)
    for value in non_classes(dtype, 4):
        y = np.arange(5).astype(np.dtype(dtype).newbyteorder(order)) % 4
        y[3] = value
        for method in (loss, loss.grad, loss.value_and_grad, loss.sums):
            with pytest.raises(fl.ClassIndexError, match=rf"^target\[3\] = {value} is not a class"):
                method(x, y)
            with pytest.raises(IndexError):
                method(x, y)
            with pytest.raises(ValueError, match=r"is not a class"):
                method(x, y)


@pytest.mark.parametrize("ignore_index", [2**63 - 1, -(2**63), -1, 255, 3])
def test_only_the_ignored_index_is_ignored(ignore_index):
    x = np.zeros((1, 3))
    for value in [0, 2, 3, 255, 2**63 - 1, 2**63, 2**64 - 1]:
        y = np.array([value], np.uint64)
        if value == ignore_index or value < 3:
            assert fl.nll_loss(x, y, ignore_index=ignore_index, reduction="sum") == 0
        else:
            with pytest.raises(fl.ClassIndexError, match=rf"target\[0\] = {value} "):
                fl.nll_loss(x, y, ignore_index=ignore_index, reduction="sum")


# --- positions ------------------------------------------------------------------------------------


def layouts(array):
    """The same entries in different memory layouts."""
    yield "C", array.copy()
    yield "Fortran", array.copy(order="F")
    yield "backwards", np.flip(np.flip(array).copy())
    padded = np.zeros([2 * n for n in array.shape], array.dtype)
    strided = padded[tuple(slice(None, None, 2) for _ in array.shape)]
    strided[...] = array
    yield "every other", strided
    yield "transposed", np.ascontiguousarray(array.T).T
    yield "swapped", array.astype(array.dtype.newbyteorder())
    yield (
        "unaligned",
        (
            np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:]
            .view(array.dtype)
            .reshape(array.shape)
        ),
    )


def position(name, index):
    return rf"^{name}\[{', '.join(map(str, index))}\] = "


@pytest.mark.parametrize("index", [(0, 0, 0), (2, 3, 4), (1, 0, 3), (2, 3, 0)])
def test_the_position_is_right_in_every_layout(index):
    shape = (3, 4, 5)
    good = np.full(shape, 0.5)
    wrong = with_entry(good, index, 2)
    for _, array in layouts(wrong):
        with pytest.raises(ValueError, match=position("input", index) + r"2\.0 "):
            fl.binary_cross_entropy(array, good)
        with pytest.raises(ValueError, match=position("target", index) + r"2\.0 "):
            fl.binary_cross_entropy.grad(np.asfortranarray(good), array)
    negative = with_entry(np.ones(shape), index, -3)
    for _, array in layouts(negative):
        with pytest.raises(ValueError, match=position("sample_weight", index) + r"-3\.0 "):
            fl.mse_loss(good, good, sample_weight=array)


@pytest.mark.parametrize("index", [(0, 0, 0), (2, 3, 4), (1, 0, 3), (2, 3, 0)])
@pytest.mark.parametrize("loss", [fl.cross_entropy, fl.nll_loss], ids=lambda loss: loss.__name__)
def test_the_position_of_a_class_index_is_right_in_every_layout(loss, index):
    x = np.zeros((3, 7, 4, 5), np.float32)
    labels = with_entry(np.zeros((3, 4, 5), np.int16), index, 7)
    for _, array in layouts(labels):
        with pytest.raises(fl.ClassIndexError, match=position("target", index) + "7 "):
            loss(x, array)
        with pytest.raises(fl.ClassIndexError, match=position("target", index) + "7 "):
            loss.value_and_grad(np.asfortranarray(x), array)
    weight = with_entry(np.ones((3, 4, 5)), index, -1)
    with pytest.raises(ValueError, match=position("sample_weight", index)):
        loss(x, np.zeros((3, 4, 5), int), sample_weight=weight)


def test_scalars_and_0d_arrays_have_no_position():
    x = np.full((3, 4), 0.5)
    with pytest.raises(ValueError, match=r"^target = 2 is"):
        fl.binary_cross_entropy(x, 2)
    with pytest.raises(ValueError, match=r"^target = 2\.0 is"):
        fl.binary_cross_entropy(x, np.array(2.0))
    with pytest.raises(ValueError, match=r"^input = -1\.0 is"):
        fl.binary_cross_entropy(-1.0, x)
    with pytest.raises(ValueError, match=r"^target = 0\.0 is"):
        fl.soft_margin_loss(1.0, 0.0)
    with pytest.raises(ValueError, match=r"^var = -1\.0 is"):
        fl.gaussian_nll_loss(x, x, np.float32(-1))
    with pytest.raises(ValueError, match=r"^sample_weight = -1\.0 is"):
        fl.mse_loss(1.0, 0.0, sample_weight=-1.0)


@pytest.mark.parametrize(
    ("shape", "var_shape", "index"),
    [
        ((2, 3), (2,), (1,)),
        ((2, 3), (2, 1), (1, 0)),
        ((2, 3), (1, 3), (0, 2)),
        ((4, 3, 5), (4, 3), (2, 1)),
        ((4, 3, 5), (4, 1, 5), (3, 0, 2)),
        ((4, 3, 5), (1, 3, 5), (0, 1, 4)),
        ((4, 3, 5), (4, 3, 1), (3, 2, 0)),
        ((5,), (1,), (0,)),
        ((3, 3), (3,), (2,)),
    ],
)
def test_the_position_in_a_shared_variance_refers_to_var(shape, var_shape, index):
    x = np.zeros(shape)
    for _, var in layouts(with_entry(np.ones(var_shape), index, -0.5)):
        for method in (fl.gaussian_nll_loss, fl.gaussian_nll_loss.grad):
            with pytest.raises(ValueError, match=position("var", index) + r"-0\.5 is not allowed"):
                method(x, x, var)
        with pytest.raises(ValueError, match=position("var", index) + r"-0\.5 is not allowed"):
            fl.gaussian_nll_loss.grad(x, x, var, wrt=("var", "input"))


@pytest.mark.parametrize("var_shape", [(1, 3), (4, 1), (4,), (4, 3), ()])
def test_the_lowest_position_follows_the_order_of_the_input(var_shape):
    x = np.zeros((4, 3))
    weight = np.ones((4, 3))
    weight[1, 0] = weight[0, 2] = weight[3, 1] = -1
    with pytest.raises(ValueError, match=r"^sample_weight\[0, 2\] = "):
        fl.gaussian_nll_loss(x, x, np.ones(var_shape), sample_weight=weight)


THREADS = [1, 2, 3, 5]


@pytest.mark.parametrize("threads", THREADS)
def test_the_lowest_of_many_positions_is_reported(threads):
    n = 300_000
    rng = np.random.default_rng(threads)
    x, y = np.full(n, 0.5), np.full(n, 0.5)
    signs, labels, weight = np.ones(n), np.zeros(n, np.int32), np.ones(n)
    with fl.num_threads(threads):
        for count in (1, 2, 50, 5000):
            at = rng.choice(n, count, replace=False)
            for array, value in [(y, -1), (signs, 0), (labels, 9), (weight, -1)]:
                array[at] = value
            lowest = at.min()
            for method in (fl.binary_cross_entropy, fl.binary_cross_entropy.grad):
                with pytest.raises(ValueError, match=position("target", [lowest])):
                    method(x, y)
            for method in (fl.soft_margin_loss, fl.soft_margin_loss.value_and_grad):
                with pytest.raises(ValueError, match=position("target", [lowest])):
                    method(x, signs)
            logits = np.broadcast_to(np.float32(0), (n, 9))
            for method in (fl.cross_entropy, fl.nll_loss):
                with pytest.raises(fl.ClassIndexError, match=position("target", [lowest])):
                    method(logits, labels)
            for method in (fl.mse_loss, fl.mse_loss.grad):
                with pytest.raises(ValueError, match=position("sample_weight", [lowest])):
                    method(x, x, sample_weight=weight)
            for array, value in [(y, 0.5), (signs, 1), (labels, 0), (weight, 1)]:
                array[at] = value


@pytest.mark.parametrize("threads", THREADS)
def test_the_lowest_position_wins_whichever_argument_it_is_in(threads):
    n = 100_000
    x, y, weight = np.full(n, 0.5), np.full(n, 0.5), np.ones(n)
    x[70_001], y[40_000], weight[90_000] = 2, 2, -1
    with fl.num_threads(threads):
        with pytest.raises(ValueError, match=r"^target\[40000\] = "):
            fl.binary_cross_entropy(x, y, sample_weight=weight)
        x[39_999] = -1
        with pytest.raises(ValueError, match=r"^input\[39999\] = "):
            fl.binary_cross_entropy.grad(x, y, sample_weight=weight)
        weight[2] = -1
        with pytest.raises(ValueError, match=r"^sample_weight\[2\] = "):
            fl.binary_cross_entropy.value_and_grad(x, y, sample_weight=weight)


def test_the_lowest_probability_in_use_is_reported():
    target = np.zeros((2, 3, 4), np.float32)
    target[0, 2, 1] = target[1, 0, 2] = -1
    weight = np.ones((2, 4))
    weight[0, 1] = 0
    target[0, 0, 0] = np.nan
    with np.errstate(all="raise"), pytest.raises(ValueError, match=r"^target\[1, 0, 2\] = -1"):
        fl.cross_entropy(np.zeros((2, 3, 4)), target, sample_weight=weight)
    with pytest.raises(ValueError, match=r"^sample_weight\[0\] = -1"):
        fl.cross_entropy(np.empty((1, 0, 2)), np.empty((1, 0, 2)), sample_weight=[-1.0])


# --- entries that a weight of 0 removes -----------------------------------------------------------


def test_a_removed_entry_is_not_checked():
    weight = np.array([1.0, 0.0, 1.0])
    wrong = np.array([0.5, -3.0, 0.5])
    half = np.full(3, 0.5)
    expected = fl.binary_cross_entropy(half[:2], half[:2])
    assert fl.binary_cross_entropy(wrong, half, sample_weight=weight) == expected
    assert fl.binary_cross_entropy(half, wrong, sample_weight=weight) == expected
    assert fl.binary_cross_entropy(half, wrong, weight, reduction="sum") == 2 * expected
    assert fl.kl_div(half, wrong, sample_weight=weight) == fl.kl_div(half, half)
    assert fl.soft_margin_loss(half, [1, 0, 1], sample_weight=weight) == fl.soft_margin_loss(
        half, 1
    )
    var = fl.gaussian_nll_loss.value_and_grad(half, half, wrong, sample_weight=weight, wrt="var")
    assert np.isfinite(var[0])
    assert var[1][1] == 0
    for loss in (fl.cross_entropy, fl.nll_loss):
        value, gradient = loss.value_and_grad(
            np.zeros((3, 2)), np.array([0, 99, 1]), sample_weight=weight
        )
        assert value == loss(np.zeros(2), 0)
        assert np.all(gradient[1] == 0)


# --- out after an error ---------------------------------------------------------------------------

RANGES = [
    (fl.binary_cross_entropy, "input", (HALF, HALF), 0, 1.5),
    (fl.binary_cross_entropy, "target", (HALF, HALF), 1, -0.5),
    (fl.binary_cross_entropy_with_logits, "target", (ZERO, HALF), 1, 1.5),
    (fl.kl_div, "target", (ZERO, HALF), 1, -1),
    (fl.poisson_nll_loss, "target", (ZERO, HALF), 1, -1),
    (fl.gaussian_nll_loss, "var", (ZERO, HALF, HALF), 2, -1),
    (fl.hinge_embedding_loss, "target", (ZERO, SIGNS), 1, 0),
    (fl.soft_margin_loss, "target", (ZERO, SIGNS), 1, 0),
    (fl.margin_ranking_loss, "target", (ZERO, ZERO, SIGNS), 2, 0),
]


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("rows", [1, 60_000])
@pytest.mark.parametrize(("loss", "name", "arrays", "wrong", "value"), RANGES)
def test_an_out_that_is_an_input_survives_an_error(loss, name, arrays, wrong, value, rows, threads):
    arrays = [np.tile(array, (rows, 1)) for array in arrays]
    arrays[wrong][-1, -1] = value
    before = [array.copy() for array in arrays]
    wrt = tuple(loss.differentiable)
    out = tuple(arrays[loss.operands.index(argument)] for argument in wrt)
    with fl.num_threads(threads):
        for method in (loss.grad, loss.value_and_grad):
            with pytest.raises(ValueError, match=position(name, (2 * rows - 1, 2))):
                method(*arrays, wrt=wrt, out=out)
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_an_out_that_is_an_input_survives_a_negative_sample_weight():
    x = np.zeros(100_000)
    weight = np.ones(100_000)
    weight[-1] = -1
    with pytest.raises(ValueError, match=r"^sample_weight\[99999\]"):
        fl.mse_loss.grad(x, 1.0, sample_weight=weight, out=x)
    assert np.all(x == 0)
    logits = np.zeros((100_000, 3))
    with pytest.raises(ValueError, match=r"^sample_weight\[99999\]"):
        fl.cross_entropy.grad(logits, np.zeros(100_000, int), sample_weight=weight, out=logits)
    assert np.all(logits == 0)


@pytest.mark.parametrize("threads", THREADS)
def test_labels_are_checked_before_anything_is_written(threads):
    n = 200_000
    values, gradient = np.full(n, UNWRITTEN), np.full((n, 3), UNWRITTEN)
    labels = np.zeros(n, np.uint8)
    labels[-1] = 3
    signs = np.ones(n)
    signs[-1] = 0
    with fl.num_threads(threads):
        for loss in (fl.cross_entropy, fl.nll_loss):
            x = np.zeros((n, 3))
            with pytest.raises(fl.ClassIndexError):
                loss(x, labels, reduction="none", out=values)
            with pytest.raises(fl.ClassIndexError):
                loss.grad(x, labels, out=gradient)
            with pytest.raises(fl.ClassIndexError):
                loss.grad(x, labels, out=x)
            assert np.all(x == 0)
        for loss in (fl.hinge_embedding_loss, fl.soft_margin_loss):
            with pytest.raises(ValueError, match="-1 or 1"):
                loss(np.zeros(n), signs, reduction="none", out=values)
            with pytest.raises(ValueError, match="-1 or 1"):
                loss.grad(np.zeros(n), signs, out=gradient[:, 0])
    assert_unwritten(values, gradient)


# --- leaks ----------------------------------------------------------------------------------------


def test_a_failed_call_leaves_no_reference():
    x, y, w, out = np.full((2, 3), 0.5), np.array([0, 9]), np.ones((2, 3)), np.empty((2, 3))
    calls = [
        lambda: fl.cross_entropy.grad(x, y, out=out),
        lambda: fl.cross_entropy(x, w, ignore_index=0),
        lambda: fl.mse_loss.grad(x, w, wrt="weight", weight=w, out=out),
        lambda: fl.mse_loss.grad(x, w, grad_output=w, out=out),
        lambda: fl.mse_loss(x, x, sample_weight=w[:, :1]),
        lambda: fl.mse_loss(x, y),
        lambda: fl.mse_loss.grad(x, w, out=w),
        lambda: fl.binary_cross_entropy(x, 2 * w, w, sample_weight=w),
        lambda: fl.mse_loss(x, w, nothing=w),
        lambda: fl.mse_loss(x, w, reduction=w),
        lambda: fl.gaussian_nll_loss.grad(x, x, -w[:1], wrt=("var", "input"), sample_weight=w),
    ]

    def references():
        gc.collect()
        return [sys.getrefcount(array) for array in (x, y, w, out)]

    before = references()
    for call in calls:
        for _ in range(100):
            with pytest.raises((TypeError, ValueError)):
                call()
    assert references() == before
