"""`python -m tests.fuzz --calls 100000 --seed 0`: random calls of every method of every loss.

A call returns, or raises a ValueError, TypeError or MemoryError that names an argument. A call that
nothing is wrong with returns: what the documents say, into `out` where there is one, without a
write beside it or into an input, and the same bits as with contiguous arrays, on one thread, and by
the loss's other methods. Anything else, a crash and a hang too, is a finding; it is printed with
the command that repeats the one call. Under the sanitizers (see .ci/run) reads out of bounds are
findings as well.
"""

import argparse
import faulthandler
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

import fastloss as fl

ROOT = Path(__file__).resolve().parents[1]

try:
    import ml_dtypes
except ImportError:
    HALVES = [np.dtype(np.float16)]
else:
    HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]

FLOATS = [np.dtype(np.float32), np.dtype(np.float64)]
INTEGERS = [np.dtype(f"{sign}{size}") for sign in "iu" for size in (1, 2, 4, 8)]
INT64 = np.iinfo(np.int64)
GUARD = 0xA5
SECONDS = 60  # 256 calls that take longer hang
NOT_STARTED = 2**64 - 1  # in place of a call's number


# ---- What the losses take ------------------------------------------------------------------------


# Which axis of the arrays is a row, and of each array whether it holds rows ("row") or one entry
# for each unreduced loss ("unit"), and what it may hold.
EACH, SECOND, LAST, SEQUENCE = None, "second", "last", "sequence"
TABLE = {
    "l1_loss": (EACH, "unit real", "unit real"),
    "mse_loss": (EACH, "unit real", "unit real"),
    "smooth_l1_loss": (EACH, "unit real", "unit real"),
    "huber_loss": (EACH, "unit real", "unit real"),
    "log_cosh_loss": (EACH, "unit real", "unit real"),
    "pinball_loss": (EACH, "unit real", "unit real"),
    "poisson_nll_loss": (EACH, "unit nonnegative", "unit nonnegative"),
    "gamma_nll_loss": (EACH, "unit positive", "unit positive"),
    "tweedie_deviance_loss": (EACH, "unit positive", "unit positive"),
    "gaussian_nll_loss": (EACH, "unit real", "unit real", "unit nonnegative"),
    "kl_div": (EACH, "unit real", "unit nonnegative"),
    "binary_cross_entropy": (EACH, "unit fraction", "unit fraction"),
    "binary_cross_entropy_with_logits": (EACH, "unit real", "unit fraction"),
    "sigmoid_focal_loss": (EACH, "unit real", "unit fraction"),
    "hinge_embedding_loss": (EACH, "unit real", "unit sign"),
    "soft_margin_loss": (EACH, "unit real", "unit sign"),
    "margin_ranking_loss": (EACH, "unit real", "unit real", "unit sign"),
    "nll_loss": (SECOND, "row score", "unit index"),
    "cross_entropy": (SECOND, "row score", "unit index"),
    "multi_margin_loss": (LAST, "row score", "unit index"),
    "multilabel_margin_loss": (LAST, "row score", "row labels"),
    "multilabel_soft_margin_loss": (LAST, "row score", "row fraction"),
    "cosine_embedding_loss": (LAST, "row real", "row real", "unit sign"),
    "triplet_margin_loss": (LAST, "row real", "row real", "row real"),
    "ctc_loss": (SEQUENCE, "row logp", "row index", "unit length", "unit length"),
    "ctc_loss_with_logits": (SEQUENCE, "row score", "row index", "unit length", "unit length"),
    "_posteriors": (SEQUENCE, "row logp", "row index", "unit length", "unit length"),
}

# Their weight is one for each class.
BY_CLASS = ("nll_loss", "cross_entropy", "multi_margin_loss")

# Valid values of the options that are numbers; those of one loss go first.
INF = float("inf")
NUMBERS = {
    "beta": [0.0, 0.3, 1, 1e30, INF],
    "delta": [0.3, 1, np.float32(2), INF],
    "eps": [0.0, 1e-8, 0.1],
    "margin": [-0.5, 0.0, 0.3, 1, np.float64(2)],
    "label_smoothing": [0.0, 0.1, 1.0],
    "quantile": [0, 0.1, 0.5, 1.0],
    "power": [-1.5, 0, 1, 1.25, 1.5, 2, 2.0, 3],
    "alpha": [-1, 0.0, 0.25, 1],
    "gamma": [0, 0.5, 1, 2.0],
    "ignore_index": [-100, 0, 2, -1, INT64.min, INT64.max],
    "multi_margin_loss p": [1, 2, 2.0],
    "triplet_margin_loss p": [1, 2, 2.0, 0.5, 3, 7.5, INF],
    "triplet_margin_loss margin": [0.1, 1, 5.0],
}
BAD_NUMBERS = [float("nan"), -1.0, -INF, INF, 2**70, "1", None, [1.0], 1j, b"", np.ones(2), -1e-300]

# Lowest and highest of the finite numbers in a domain.
DOMAINS = {
    "real": (-INF, INF),
    "score": (-INF, INF),
    "nonnegative": (0, INF),
    "positive": (1e-7, INF),  # also in float16
    "fraction": (0, 1),
}
CORNERS = [0.0, -0.0, 1e-45, 1e-38, 1e-8, 0.5, 1.0, -1.0, -1e-5, 30.0, -90.0, 800.0, -3e4, 1e19]
CORNERS += [3e38, -1e308, INF, -INF, float("nan"), float("nan")]


class Finding(Exception):
    """What a call should not have done."""


class Dice:
    """The random choices of one call."""

    def __init__(self, seed, number):
        self.random = random.Random((seed << 40) + number)
        self.numpy = np.random.Generator(np.random.PCG64((seed << 40) + number))
        self.content = self.pick(["usual", "usual", "usual", "ties", "corners"])
        self.plain = self.chance(0.3)  # native, contiguous arrays, all of one dtype
        self.dtype = self.pick(FLOATS)

    def chance(self, share):
        return self.random.random() < share

    def pick(self, sequence):
        return sequence[int(self.random.random() * len(sequence))]

    def subset(self, sequence):
        return [entry for entry in sequence if self.chance(0.5)]

    def length(self, room):
        """Of an axis, with lengths at the ends of vectors and tiles among them."""
        if self.chance(0.02):
            return 0
        if room >= 63 and self.chance(0.2):
            near = self.pick([16, 32, 64, 128, 512, 1024, 2048, 8192])
            return min(max(near + self.pick([-1, 0, 1]), 1), room)
        return min(self.pick([1, 1, 2, 2, 3, 3, 4, 5, 7, 8, 9, 17]), room)

    def shape(self, most=5):
        room = 20_000 if self.chance(0.02) else 1100
        axes = []
        for _ in range(self.pick(range(most + 1))):
            axes.append(self.length(room))
            room = max(room // max(axes[-1], 1), 1)
        self.random.shuffle(axes)
        return tuple(axes)

    # -- values

    def numbers(self, domain, shape):
        """float64 in the domain."""
        rng = self.numpy
        if domain == "sign":
            return rng.integers(0, 2, shape) * 2.0 - 1
        if domain == "logp":
            x = rng.normal(size=shape)
            if shape[-1] > 1 and self.content == "corners":
                x[..., 1:][rng.random(x[..., 1:].shape) < 0.2] = -INF
            return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
        low, high = DOMAINS[domain]
        if self.content == "corners":
            inside = [v for v in CORNERS if not (v < low or v > high)]
            return rng.choice(np.array(inside), shape)
        x = rng.random(shape) if domain == "fraction" else 2 * rng.normal(size=shape)
        if self.content == "ties":
            x = np.round(x)
        return np.abs(x) + (low > 0) / 8 if low >= 0 else x

    def floating(self, values, integers=False):
        """The values, in some dtype that this operand may have."""
        dtype = self.dtype
        if not self.plain:
            choices = [*FLOATS, *FLOATS, *HALVES] + ([self.pick(INTEGERS)] if integers else [])
            dtype = self.pick(choices)
        if dtype.kind in "iu":
            values = np.nan_to_num(values, nan=1, posinf=1, neginf=1)
            low = max(np.iinfo(dtype).min, -100)
            values = np.where(values < low, np.abs(values), values)
            values = np.minimum(values, 100)
        with np.errstate(all="ignore"):
            values = np.asarray(values).astype(dtype)
        return values

    def indices(self, shape, classes, dtype=None):
        fitting = [d for d in INTEGERS if np.iinfo(d).max >= classes]
        dtype = dtype or (np.dtype(np.int64) if self.plain else self.pick(fitting))
        return self.numpy.integers(0, max(classes, 1), shape).astype(dtype)

    # -- memory

    def laid_out(self, values, memory, share=True):
        """The values at some place in guarded memory: any strides, alignment and byte order."""
        if self.plain and self.chance(0.5):
            array = np.array(values)
            memory.append((array.reshape(-1).view(np.uint8), array, array.tobytes()))
            return array
        dtype, shape = values.dtype, values.shape
        if dtype.itemsize > 1 and dtype.name != "bfloat16" and self.chance(0.1):
            dtype = dtype.newbyteorder()
        array, base = self.place(shape, dtype, share)
        array[...] = values
        if self.chance(0.3):
            array.flags.writeable = False
        memory.append((base, array, base.tobytes()))
        return array

    def place(self, shape, dtype, share):
        """An array of the shape in a buffer of bytes, which it need not fill."""
        size, order = dtype.itemsize, list(range(len(shape)))
        if self.chance(0.3):
            self.random.shuffle(order)
        strides, extent, start = [0] * len(shape), size, 0
        for axis in reversed(order):
            if share and shape[axis] > 1 and self.chance(0.04):
                continue  # all of this axis is one entry
            strides[axis] = extent * self.pick([1, 1, 1, 1, 2, 3])
            if self.chance(0.1):
                start += strides[axis] * max(shape[axis] - 1, 0)
                strides[axis] = -strides[axis]
            extent = abs(strides[axis]) * max(shape[axis], 1)
        before = self.pick([0, 0, 1, 3, size, 64])
        after = self.pick([0, 0, 1, size, 64])
        base = np.full(before + extent + after, GUARD, np.uint8)
        return np.ndarray(shape, dtype, base, before + start, tuple(strides)), base


# ---- A call --------------------------------------------------------------------------------------


class Call:
    """Arrays and options, nothing wrong with them, and where the arrays lie."""

    def __init__(self, dice, name):
        self.dice, self.name = dice, name
        self.loss = getattr(fl.losses, name)
        self.kind, *roles = TABLE[name]
        self.roles = dict(zip(self.loss.operands, (r.split() for r in roles), strict=True))
        self.method = dice.pick(["__call__", "grad", "value_and_grad", "sums"])
        self.threads = dice.pick([1, 1, 1, 2, 3, 4])
        self.memory = []  # (buffer, array in it, bytes of the buffer) of the inputs
        self.arrays, self.options, self.outs = {}, {}, []
        self.defect = None
        self.must_raise = None
        self._numbers()
        self._sequences() if self.kind is SEQUENCE else self._operands()
        self._weights()
        self._reduction()

    def _parameter(self, name):
        return name in self.loss.__signature__.parameters

    def _numbers(self):
        for name, parameter in self.loss.__signature__.parameters.items():
            values = NUMBERS.get(f"{self.name} {name}", NUMBERS.get(name))
            values = [False, True, np.True_, 0, 1] if type(parameter.default) is bool else values
            if values is not None and name not in self.roles and self.dice.chance(0.4):
                self.options[name] = self.dice.pick(values)

    def _domain(self, operand):
        domain = self.roles[operand][1]
        options = self.options
        if operand == "input" and "log_input" in self.loss.__signature__.parameters:
            return "real" if options.get("log_input", True) else domain
        if (self.name, operand) == ("kl_div", "target") and options.get("log_target"):
            return "real"
        return domain

    # -- operands

    def _operands(self):
        dice = self.dice
        self.shape = dice.shape(5 if self.kind is EACH else 3)
        self.classes = None if self.kind is EACH else dice.length(300)
        if self.name == "multi_margin_loss":
            self.classes = max(self.classes, 1)  # nothing can be ignored
        self.axis = 1 if self.kind is SECOND and self.shape else len(self.shape)
        self.row = (*self.shape[: self.axis], self.classes, *self.shape[self.axis :])
        probabilities = self.name == "cross_entropy" and dice.chance(0.4)
        if probabilities:
            self.roles["target"] = ("row", "nonnegative")
            if self.options.get("ignore_index", -1) >= 0:
                del self.options["ignore_index"]
        for operand, (place, domain) in self.roles.items():
            self._operand(operand, self.row if place == "row" else self.shape, domain)
        if self.kind is EACH and all(np.ndim(array) == 0 for array in self.arrays.values()):
            self.shape = ()
        if self.name == "gaussian_nll_loss" and self.shape and dice.chance(0.4):
            self._variance()

    def _operand(self, operand, shape, domain):
        dice, domain = self.dice, self._domain(operand)
        if domain == "index":
            values = self._labels(shape)
        elif domain == "labels":
            values = dice.indices(shape, self.classes)
            if values.dtype.kind == "i":
                values[dice.numpy.random(shape) < 0.3] = -1
        else:
            # Numbers and 0-d arrays go with any shape; a var must not be larger than all others.
            alone = self.name == "gaussian_nll_loss" and operand == "input"
            if self.kind is EACH and not alone and dice.chance(0.04):
                shape = ()
            values = dice.floating(dice.numbers(domain, shape), self._integers(domain))
            if domain == "positive" and values.dtype.kind in "iu":
                values = np.maximum(values, 1)
        if values.ndim == 0 and values.dtype in FLOATS and dice.chance(0.3):
            self.arrays[operand] = values.item()
            return
        self.arrays[operand] = dice.laid_out(values, self.memory)

    def _integers(self, domain):
        """Whether an operand may hold integers; in cross_entropy they would be class indices."""
        if domain == "score" or self.name == "cross_entropy":
            return False
        return self.kind is EACH or domain in ("real", "fraction", "sign")

    def _labels(self, shape):
        """Class indices, some of them ignored; without classes, all are."""
        dice, ignored = self.dice, self.options.get("ignore_index", -100)
        if not self._parameter("ignore_index"):
            return dice.indices(shape, self.classes)
        if self.classes > 0 and dice.chance(0.5):
            return dice.indices(shape, self.classes)
        limits = [(d, np.iinfo(d)) for d in INTEGERS]
        fitting = [d for d, i in limits if i.max >= self.classes and i.min <= ignored <= i.max]
        values = dice.indices(shape, self.classes, dice.pick(fitting))
        values[dice.numpy.random(shape) < (0.3 if self.classes else 1)] = ignored
        return values

    def _variance(self):
        dice, axis = self.dice, self.dice.pick(range(len(self.shape)))
        shape = (
            self.shape[:-1]
            if dice.chance(0.3)
            else tuple(1 if k == axis else n for k, n in enumerate(self.shape))
        )
        self.memory = [entry for entry in self.memory if entry[1] is not self.arrays["var"]]
        self._operand("var", shape, "nonnegative")

    def _sequences(self):
        dice, rng = self.dice, self.dice.numpy
        batched = dice.chance(0.8)
        n = dice.pick([0, 1, 2, 3, 5]) if batched and dice.chance(0.9) else 1
        t = dice.pick([0, 1, 2, 3, 4, 6, 9, 33]) if dice.chance(0.95) else 260
        self.classes = c = dice.pick([1, 2, 3, 4, 5, 17, 65])
        blank = dice.pick(range(c))
        if blank or dice.chance(0.2):
            self.options["blank"] = blank
        self.shape = (n,) if batched else ()
        x = dice.floating(dice.numbers(self.roles[self.loss.operands[0]][1], (n, t, c)))
        if not batched:
            x = x[0]
        elif not self.options.get("batch_first"):
            x = np.moveaxis(x, 0, 1)
        frames = rng.integers(0, t + 1, n) if dice.chance(0.7) else np.full(n, t)
        most = dice.pick([0, 1, 2, 3, 8]) if c > 1 else 0
        labels = rng.integers(0, most + 1, n)
        padded = dice.chance(0.5)
        width = most + dice.pick([0, 0, 1])
        size = (n, width) if padded else (int(labels.sum()),)
        target = dice.indices(size, max(c - 1, 1))
        if c > 1:
            target += target >= blank
        if padded:
            target[np.arange(width) >= labels[:, np.newaxis]] = dice.pick([0, 99, blank])
        integers = [np.dtype(np.int64)] if dice.plain or t > 100 else INTEGERS
        values = (x, target, *(v.astype(dice.pick(integers)) for v in (frames, labels)))
        for operand, value in zip(self.loss.operands, values, strict=True):
            if value.shape == (1,) and value.dtype.kind in "iu" and "length" in operand:
                value = value[0] if dice.chance(0.3) else value
                if dice.chance(0.2):
                    self.arrays[operand] = int(value.item() if value.ndim == 0 else value[0])
                    continue
            self.arrays[operand] = dice.laid_out(np.asarray(value), self.memory, share=False)

    # -- weights, reduction, outputs

    def _weight(self, shape, values):
        weight = self.dice.numpy.choice(np.array(values), shape)
        if self.dice.plain:
            return self.dice.laid_out(weight.astype(self.dice.dtype), self.memory)
        integer = self.dice.pick(INTEGERS)
        dtype = self.dice.pick([*FLOATS, *FLOATS, *HALVES, integer, np.dtype(bool)])
        if dtype.kind in "iub":
            weight = np.minimum(np.abs(np.ceil(weight)), 9)
        return self.dice.laid_out(weight.astype(dtype), self.memory)

    def _broadcast(self, shape):
        """A shape that broadcasts to this one."""
        dice = self.dice
        if dice.chance(0.5):
            return shape
        shape = tuple(1 if dice.chance(0.4) else n for n in shape)
        return shape[dice.pick(range(len(shape) + 1)) :] if dice.chance(0.4) else shape

    def _weights(self):
        dice = self.dice
        for name in ("weight", "pos_weight"):
            if self._parameter(name) and dice.chance(0.4):
                if self.name in BY_CLASS:
                    shape = (self.classes,)
                else:
                    shape = self._broadcast(self.shape if self.kind is EACH else self.row)
                self.options[name] = self._weight(shape, [0, 0.5, 1, 2.3, 1e30, -1])
        if dice.chance(0.3):
            shape = self.shape[:1] if dice.chance(0.4) else self.shape
            self.options["sample_weight"] = self._weight(shape, [0, 0, 0.5, 1, 2.3, 1e30])

    def _floating(self, name):
        """Whether there is a gradient by this operand."""
        value = self.arrays[name]
        return not isinstance(value, np.ndarray) or value.dtype.kind not in "iub"

    def _reduction(self):
        dice = self.dice
        reductions = ["mean", "mean", "sum", "none", "none"]
        if self.name == "kl_div":
            reductions.append("batchmean")
        if dice.chance(0.8):
            self.options["reduction"] = dice.pick(reductions)
        if self.method in ("grad", "value_and_grad"):
            possible = [name for name in self.loss.differentiable if self._floating(name)]
            if self.loss.default_wrt[0] not in possible or dice.chance(0.5):
                chosen = dice.subset(possible)
                dice.random.shuffle(chosen)
                if not chosen:
                    chosen = possible[:1]
                self.options["wrt"] = (
                    dice.pick([tuple(chosen), list(chosen), chosen[0]]) if chosen else ()
                )
            elif not set(self.loss.default_wrt) <= set(possible):
                self.options["wrt"] = tuple(possible)
            if not possible:
                self.method = "__call__"
                self.options.pop("wrt", None)
        if self.method in ("grad", "value_and_grad") and dice.chance(0.3):
            if self.none and dice.chance(0.6):
                upstream = dice.laid_out(
                    dice.floating(dice.numbers("real", self.shape)), self.memory
                )
            else:
                upstream = dice.pick([0, -1.5, 2, np.float32(3), np.array(0.5), INF])
            self.options["grad_output"] = upstream

    @property
    def none(self):
        return self.options.get("reduction") == "none"

    @property
    def wrt(self):
        """(names, whether they are a tuple)."""
        given = self.options.get("wrt")
        if given is None:
            names = self.loss.default_wrt
            return names, len(names) > 1
        return ((given,), False) if isinstance(given, str) else (tuple(given), True)

    @property
    def dtype(self):
        """Of the unreduced loss."""
        dtypes = []
        for name, (_, domain) in self.roles.items():
            value = self.arrays[name]
            if domain in ("index", "labels", "length") or type(value) in (bool, int, float):
                continue
            dtype = np.asarray(value).dtype.newbyteorder("=")
            if dtype.kind in "iub":
                dtypes += [FLOATS[1]] * (not name.startswith(("target", "var")))
            else:
                dtypes.append(dtype)
        if not dtypes or FLOATS[1] in dtypes:
            return FLOATS[1]
        return dtypes[0] if len(set(dtypes)) == 1 else FLOATS[0]

    def expected(self):
        """((shape, dtype) of the values or None, [(name, shape, dtype)] of the gradients)."""
        values = (self.shape, self.dtype) if self.none else None
        grads = []
        for name in self.wrt[0]:
            value = self.arrays[name]
            weak = type(value) in (bool, int, float)
            dtype = self.dtype if weak else np.asarray(value).dtype.newbyteorder("=")
            grads.append((name, np.shape(value), dtype))
        return values, grads

    def make_out(self):
        """An out for the results, guarded, or an input itself."""
        dice = self.dice
        values, grads = self.expected()
        self.outs = []
        if self.method == "__call__":
            if values is not None:
                self.options["out"] = self._out(*values)
            return
        made = [self._out(shape, dtype, name) for name, shape, dtype in grads]
        made = tuple(made) if self.wrt[1] else made[0]
        if self.method == "value_and_grad" and self.none:
            pair = (self._out(*values), made)
            made = dice.pick([pair, (None, made)])
        self.options["out"] = made

    def _out(self, shape, dtype, name=None):
        dice = self.dice
        given = self.arrays.get(name)
        if (
            isinstance(given, np.ndarray)
            and dice.chance(0.3)
            and given.flags.writeable
            and (given.size < 2 or 0 not in np.array(given.strides)[np.array(given.shape) > 1])
        ):
            return given
        if dtype.itemsize == 2 and self.dtype != FLOATS[1] and dice.chance(0.3):
            dtype = FLOATS[0]  # of a float64 computation it would be rounded twice
        if dtype.name != "bfloat16" and dice.chance(0.1):
            dtype = dtype.newbyteorder()
        array, base = dice.place(shape, dtype, share=False)
        self.outs.append((base, array, base.tobytes()))
        return array

    # -- running

    def run(self, method=None, arrays=None, options=None):
        """The call; in copies of the arrays if given."""
        arrays = self.arrays if arrays is None else arrays
        options = self.options if options is None else options
        with fl.num_threads(self.threads):
            return getattr(self.loss, method or self.method)(
                *self.positional(arrays), **self.keyword(arrays), **options
            )

    def positional(self, arrays):
        return [arrays[name] for name in list(arrays)[: self.split]]

    def keyword(self, arrays):
        return {name: arrays[name] for name in list(arrays)[self.split :]}

    split = 99  # so many operands go by position


# ---- Defects -------------------------------------------------------------------------------------


def an_array(call, *more):
    """(dictionary, name) of some array that the call takes."""
    places = [(call.arrays, name) for name in call.arrays]
    names = ("weight", "pos_weight", "sample_weight", "grad_output")
    places += [(call.options, name) for name in names if name in call.options]
    return call.dice.pick(places)


def wrong_shape(call):
    where, name = an_array(call)
    value, dice = where[name], call.dice
    dtype = value.dtype if isinstance(value, np.ndarray) else np.dtype(float)
    shape = np.shape(value)
    choices = [
        (*shape, 1),
        (1, *shape),
        shape[1:],
        shape[::-1],
        dice.shape(),
        (0,),
        (3, 0),
        (2**40, 0),
    ]
    where[name] = np.ones(dice.pick(choices), dtype)


def wrong_type(call):
    where, name = an_array(call)
    value = np.asarray(where[name])
    with np.errstate(all="ignore"):
        choices = [
            lambda: value.astype(complex),
            lambda: value.astype(object),
            lambda: value.astype(np.longdouble),
            lambda: value.astype(float).astype("U5"),
            lambda: value.astype(bool),
            lambda: value.astype(float),
            lambda: np.nan_to_num(value.astype(float)).astype(call.dice.pick(INTEGERS)),
            lambda: np.zeros(value.shape, "M8[s]"),
            lambda: np.zeros(value.shape, "f4,i8"),
            lambda: np.zeros(value.shape, "V3"),
            lambda: np.ma.masked_array(value, np.zeros(value.shape, bool)),
            lambda: value.tolist(),
            lambda: memoryview(np.ascontiguousarray(value).view(np.uint8)),
            lambda: np.asmatrix(value) if value.ndim == 2 else "array",
            lambda: None,
            lambda: {"a": 1},
            lambda: 2**70,
            lambda: object(),
            lambda: [[1.0], [1.0, 2.0]],
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            where[name] = call.dice.pick(choices)()


def wrong_option(call):
    names = [n for n in call.loss.__signature__.parameters if n not in call.arrays]
    call.options[call.dice.pick(names)] = call.dice.pick(BAD_NUMBERS)


def wrong_value(call):
    """An entry anywhere, often not allowed."""
    where, name = an_array(call)
    value = where[name]
    if isinstance(value, np.ndarray) and value.size and value.dtype.kind in "fiu":
        value = value.copy()
        info = np.iinfo(value.dtype) if value.dtype.kind in "iu" else None
        choices = [info.min, info.max, 1, 0] if info else [-1, 2, INF, -INF, -1e-300, 1e30, 0.5]
        with np.errstate(all="ignore"):
            value.flat[call.dice.pick(range(value.size))] = np.array(
                call.dice.pick(choices)
            ).astype(value.dtype)
        where[name] = value


def wrong_label(call):
    """One label that is no class, of a loss that counts: this must raise."""
    for name, (_, domain) in call.roles.items():
        if domain not in ("index", "labels") or call.kind is SEQUENCE:
            continue
        value = call.arrays[name]
        if not isinstance(value, np.ndarray) or value.size == 0 or call.classes == 0:
            continue
        call.options.pop("sample_weight", None)
        far = [10**9, INT64.max, INT64.min, call.classes, -2] + [-1] * (domain == "index")
        label = call.dice.pick([v for v in far if v != call.options.get("ignore_index", -100)])
        value = value.astype(np.int64)
        value.flat[call.dice.pick(range(value.size))] = label
        call.arrays[name] = value
        call.must_raise = fl.ClassIndexError


def wrong_length(call):
    if call.kind is not SEQUENCE:
        return wrong_label(call)
    name = call.dice.pick(call.loss.operands[1:])
    value = np.array(call.arrays[name])
    if value.size == 0:
        return None
    value = value.astype(call.dice.pick([np.int64, np.int64, float]))
    value.flat[call.dice.pick(range(value.size))] = call.dice.pick(
        [-1, INT64.min, INT64.max if value.dtype != float else 1e300, 10**9, call.classes, 34]
    )
    call.arrays[name] = value
    return None


def wrong_sample_weight(call):
    """A negative weight: this must raise."""
    shape = call.shape
    weight = call.dice.numpy.random(shape).astype(call.dice.pick(FLOATS))
    if weight.size:
        weight.flat[call.dice.pick(range(weight.size))] = -1
        call.must_raise = ValueError
    call.options["sample_weight"] = weight if shape or call.dice.chance(0.5) else float(weight)


def wrong_out(call):
    dice, options = call.dice, call.options
    array, _ = dice.place(
        dice.pick([call.shape, dice.shape()]), dice.pick(FLOATS), dice.chance(0.5)
    )
    whole = [v for v in call.arrays.values() if isinstance(v, np.ndarray)]
    locked = array.view()
    locked.flags.writeable = False
    choices = [array, locked, array.astype(int), (array,), (array, array), (None, None), [], 3.0]
    choices += [(array, (array, array)), *whole, *(v[..., ::-1] for v in whole if v.ndim)]
    choices += [tuple(whole), (whole[0] if whole else 1, tuple(whole)), np.ma.masked_array(array)]
    options["out"] = dice.pick(choices)


def wrong_keywords(call):
    dice = call.dice
    what = dice.pick(["miss", "unknown", "many", "reduction", "wrt", "upstream", "method"])
    if what == "miss":
        del call.arrays[dice.pick(list(call.arrays))]
    elif what == "unknown":
        call.options[
            dice.pick(["reduce", "size_average", "axis", "redution", "wrt", "weights"])
        ] = 1
    elif what == "many":
        call.arrays |= {f"more {k}": 1 for k in range(dice.pick([1, 2, 3]))}
    elif what == "reduction":
        call.options["reduction"] = dice.pick([None, "Mean", "batchmean", 0, "", b"mean", []])
    elif what == "wrt":
        call.options["wrt"] = dice.pick(["target", "weight", (), 1, ("input",) * 2, [None], "x"])
    elif what == "upstream":
        call.options["grad_output"] = dice.pick(
            ["a", np.ones(3), 1j, 10**400, [], np.array("a"), np.array(1j), [[1]]]
        )
    else:
        call.method = dice.pick(["__call__", "grad", "value_and_grad", "sums"])


DEFECTS = [
    wrong_shape,
    wrong_type,
    wrong_option,
    wrong_value,
    wrong_label,
    wrong_length,
    wrong_sample_weight,
    wrong_out,
    wrong_keywords,
]


# ---- Laws ----------------------------------------------------------------------------------------


def make(seed, number, names):
    """Call number so and so."""
    with np.errstate(all="ignore"):
        return _make(seed, number, names)


def _make(seed, number, names):
    dice = Dice(seed, number)
    call = Call(dice, dice.pick(names))
    if dice.chance(0.3):
        call.defect = dice.pick(DEFECTS)
        call.defect(call)
    elif (
        dice.chance(0.3)
        and call.method != "sums"
        and not (call.method == "__call__" and not call.none)
    ):
        call.make_out()
    most = sum(name in call.loss.operands for name in call.arrays)
    call.split = most if dice.chance(0.8) or len(call.arrays) > most else dice.pick(range(most + 1))
    return call


def same(got, expected):
    """Equal bit by bit; one NaN is like another."""
    if isinstance(expected, tuple):
        return len(got) == len(expected) and all(map(same, got, expected))
    got, expected = np.asarray(got), np.asarray(expected)
    with np.errstate(all="ignore"):
        if got.shape != expected.shape:
            return False
        got = got.astype(expected.dtype)  # of another byte order, or float32 as out of a half type
        if got.tobytes() == expected.tobytes():
            return True
        equal = (got == expected) & (np.signbit(got) == np.signbit(expected))
        return bool((equal | ((got != got) & (expected != expected))).all())


def check(call, copies):
    """Runs a call; "returned" or the type of its error. A Finding if it breaks a law."""
    try:
        result = call.run()
    except (ValueError, TypeError, MemoryError) as error:
        outcome, problem = type(error).__name__, error
    else:
        outcome, problem = "returned", None
    check_memory(call, problem)
    if problem is not None:
        check_error(call, problem)
        return outcome
    if call.must_raise:
        raise Finding(f"{call.defect.__name__} raises nothing")
    if call.defect is None:
        check_result(call, result)
        check_twins(call, result, copies)
    return outcome


def check_error(call, error):
    if call.must_raise and not isinstance(error, call.must_raise):
        raise Finding(f"{call.must_raise.__name__} expected, not {error!r}") from error
    if call.defect is None:
        raise Finding(f"a valid call raises {error!r}") from error
    words = [*call.loss.__signature__.parameters, "wrt", "grad_output", call.name]
    if not any(word in str(error) for word in words):
        raise Finding(f"the message names no argument: {error!r}") from error


def check_memory(call, problem):
    """Only an out has changed, and nothing beside it."""
    results = [call.options.get("out")]
    for _ in range(2):
        results = [a for r in results for a in (r if isinstance(r, (tuple, list)) else [r])]
    for base, array, before in call.memory:
        written = problem is None and any(result is array for result in results)
        if not written and base.tobytes() != before:
            raise Finding("an input has changed" + " before an error" * (problem is not None))
        if written:
            check_guard(base, array, before)
    for base, array, before in call.outs:
        check_guard(base, array, before)


def check_guard(base, array, before):
    kept = array.copy()
    old = np.frombuffer(before, np.uint8)
    now = base.copy()
    base[...] = old
    original = array.copy()
    base[...] = now
    array[...] = original
    intact = base.tobytes() == before
    array[...] = kept
    if not intact:
        raise Finding("bytes beside out are written")


def check_result(call, result):
    """Shapes, dtypes and types."""
    values, grads = call.expected()
    if call.method == "sums":
        if [type(r) for r in result] != [float, float, int]:
            raise Finding(f"sums gives {result!r}")
        return
    value, slopes = None, None
    if call.method == "__call__":
        value = result
    elif call.method == "grad":
        slopes = result
    else:
        value, slopes = result
    if call.method != "grad":
        if values is None and type(value) is not float:
            raise Finding(f"the value is a {type(value).__name__}")
        if values is not None:
            fits(call, value, "values", *values)
    if slopes is not None:
        if isinstance(slopes, tuple) != call.wrt[1]:
            raise Finding(f"gradients are a {type(slopes).__name__}")
        slopes = slopes if call.wrt[1] else (slopes,)
        for slope, (name, shape, dtype) in zip(slopes, grads, strict=True):
            fits(call, slope, name, shape, dtype)


def fits(call, array, name, shape, dtype):
    if not isinstance(array, np.ndarray if shape or "out" in call.options else np.generic):
        raise Finding(f"{name}: a {type(array).__name__}")
    wide = "out" in call.options and dtype.itemsize == 2
    given = array.dtype.newbyteorder("=")
    if array.shape != shape or not (given == dtype or (wide and given == FLOATS[0])):
        raise Finding(f"{name}: {array.dtype}{array.shape} instead of {dtype}{shape}")


def check_twins(call, result, copies):
    """The other methods, contiguous arrays and one thread give the same bits."""
    arrays, options = copies
    call.threads = 1
    only = {k: v for k, v in options.items() if k not in ("wrt", "grad_output")}
    value = call.run("__call__", arrays, only)
    if call.method == "__call__":
        if not same(result, value):
            raise Finding(f"contiguous arrays give {value!r}, not {result!r}")
        return
    if call.method == "sums":
        if not same(result, call.run("sums", arrays, only)):
            raise Finding("contiguous arrays give other sums")
        total = call.options.get("reduction") == "sum"
        if not call.none and not same(value, result[0] if total else ratio(*result[:2])):
            raise Finding(f"sums gives {result!r}, the loss {value!r}")
        return
    both = call.run("value_and_grad", arrays, options)
    if not same(both[0], value):
        raise Finding(f"value_and_grad has the value {both[0]!r}, the loss {value!r}")
    grads = result if call.method == "grad" else result[1]
    if not same(grads, both[1]):
        raise Finding(f"{call.method} gives {grads!r}, contiguous value_and_grad {both[1]!r}")
    if call.method == "value_and_grad":
        if not same(result[0], value):
            raise Finding(f"contiguous arrays give {value!r}, not {result[0]!r}")
        if not same(call.run("grad", arrays, options), both[1]):
            raise Finding("grad and value_and_grad differ")


def ratio(total, weight):
    """The mean that sums give."""
    with np.errstate(all="ignore"):
        return float(np.float64(total) / weight)


def contiguous(call):
    """Copies of arrays and options, native and contiguous, without out."""

    def copy(value):
        if not isinstance(value, np.ndarray) or call.defect is not None:
            return value
        return np.array(value, value.dtype.newbyteorder("="), order="C")

    arrays = {name: copy(value) for name, value in call.arrays.items()}
    return arrays, {name: copy(v) for name, v in call.options.items() if name != "out"}


# ---- The runs ------------------------------------------------------------------------------------


def described(call):
    """One line on the arguments."""

    def word(value):
        if isinstance(value, np.ndarray) and value.size > 4:
            return f"<{value.dtype.str} {value.shape} strides {value.strides}>"
        return repr(value).replace("\n", "")

    given = [f"{k}={word(v)}" for k, v in (call.arrays | call.options).items()]
    defect = f" [{call.defect.__name__}]" if call.defect else ""
    return f"{call.name}.{call.method}({', '.join(given)}) on {call.threads} threads{defect}"


def worker(chosen, names):
    """Runs the calls [first, last); writes each number before the call, and what comes of it."""
    warnings.simplefilter("error")
    faulthandler.enable()
    isas = fl._binding.isas()
    counts, findings = Counter(), 0
    with open(chosen.progress, "r+b", buffering=0) as progress:
        for number in range(chosen.first, chosen.last):
            progress.seek(0)
            progress.write(number.to_bytes(8, "little"))
            signal.alarm(SECONDS) if number % 256 == 0 else None
            call = None
            try:
                call = make(chosen.seed, number, names)
                fl._binding.select_isa(call.dice.pick(isas))
                copies = contiguous(call)
                before = described(call) if chosen.only is not None else None
                if before:
                    print(before, flush=True)
                outcome = check(call, copies)
            except Exception as error:
                findings += 1
                if call is None:
                    raise
                what = str(error) if type(error) is Finding else f"raises {error!r}"
                report(chosen, number, f"{what}\n    {described(call)}")
                outcome = "finding"
                if chosen.only is not None and type(error) is not Finding:
                    raise
            counts[call.name, outcome] += 1
            if chosen.only is not None:
                print(outcome)
            elif number % 200 == 0:  # what is printed survives a crash
                print_counts(counts)
    print_counts(counts)
    return findings


def print_counts(counts):
    for (name, outcome), count in counts.items():
        print(f"count {name} {outcome} {count}")
    sys.stdout.flush()
    counts.clear()


def report(chosen, number, what):
    again = f"python -m tests.fuzz --seed {chosen.seed} --only {number}"
    losses = "".join(f" --loss {name}" for name in chosen.loss or [])
    print(f"FINDING {again}{losses}: {what}", flush=True)


def supervise(chosen):
    """Runs the calls in processes of their own; the death of one is a finding."""
    counts, findings, first, last = Counter(), 0, 0, chosen.calls
    begin = time.perf_counter()
    with tempfile.NamedTemporaryFile() as progress:
        while first < last:
            until = min(first + 20_000, last)
            progress.seek(0)
            progress.write(NOT_STARTED.to_bytes(8, "little"))
            progress.flush()
            command = [sys.executable, "-m", "tests.fuzz", "--worker", "--seed", str(chosen.seed)]
            command += ["--first", str(first), "--last", str(until), "--progress", progress.name]
            command += [f"--loss={name}" for name in chosen.loss or []]
            process = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            for line in process.stdout.splitlines():
                if line.startswith("count "):
                    _, name, outcome, count = line.split()
                    counts[name, outcome] += int(count)
                else:
                    findings += line.startswith("FINDING")
                    print(line)
            if process.returncode == 0:
                first = until
                continue
            progress.seek(0)
            died = int.from_bytes(progress.read(8), "little")
            if died == NOT_STARTED:
                raise RuntimeError(f"{' '.join(command)} does not start")
            report(chosen, died, f"the process ended with status {process.returncode}")
            findings += 1
            first = died + 1
    print_table(counts)
    total = sum(counts.values())
    print(
        f"{total} calls, {findings} findings, {total / (time.perf_counter() - begin):.0f} calls/s"
    )
    return findings


def print_table(counts):
    outcomes = ["returned", "ValueError", "TypeError", "ClassIndexError", "MemoryError"]
    print(f"{'loss':<34} {'calls':>8} " + " ".join(f"{o:>15}" for o in outcomes))
    for name in [*dict.fromkeys(name for name, _ in sorted(counts)), "all"]:
        rows = {o: sum(counts[n, o] for n in TABLE if name in (n, "all")) for o in outcomes}
        total = sum(count for (n, _), count in counts.items() if name in (n, "all"))
        print(f"{name:<34} {total:>8} " + " ".join(f"{rows[o]:>15}" for o in outcomes))


def main(arguments=None):
    """The number of findings."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="N", help="repeat call number N alone")
    parser.add_argument("--loss", action="append", choices=TABLE, help="only this loss")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--last", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--progress", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    names = chosen.loss or list(TABLE)
    if chosen.only is not None:
        chosen.first, chosen.last = chosen.only, chosen.only + 1
        with tempfile.NamedTemporaryFile() as progress:
            chosen.progress = progress.name
            return worker(chosen, names)
    if chosen.worker:
        worker(chosen, names)
        return 0
    return supervise(chosen)


if __name__ == "__main__":
    sys.exit(main() > 0)
