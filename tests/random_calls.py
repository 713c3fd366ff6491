"""Random valid calls of the losses: one generator, driven by a seed or by hypothesis.

`RandomCall` draws a case of `tests.cases`, further options, operands from the case's domains, their
memory layout and weights. All its decisions come from `Choices`: `tests.fuzz` takes them from a
seed, `calls`, the strategy of the property tests, from hypothesis, which shrinks failures.
"""

import random

import numpy as np
from hypothesis import strategies as st

import fastloss as fl
from tests import cases
from tests.domains import (
    CLASS_INDEX,
    LABEL_ROWS,
    LOG_PROBABILITY_FRAMES,
    POSITIVE,
    SIGN,
    log_softmax,
    operands_of,
)

try:
    import ml_dtypes
except ImportError:
    HALVES = [np.dtype(np.float16)]
else:
    HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]

FLOATS = [np.dtype(np.float32), np.dtype(np.float64)]
INTEGERS = [np.dtype(f"{sign}{size}") for sign in "iu" for size in (1, 2, 4, 8)]
INT64 = np.iinfo(np.int64)
GUARD = 0xA5  # fills the memory around arrays
INF = float("inf")


# ---- Cases and options ---------------------------------------------------------------------------


def is_loss(value):
    """Whether it is a `Loss`, perhaps wrapped to record calls."""
    return hasattr(value, "operand_specs") and not isinstance(value, type)


def cases_by_loss():
    """{name: cases} of all losses, also of the private ones that public functions call."""
    found = {}
    for case in cases.CASES:
        found.setdefault(case.loss, []).append(case)
    for name, loss in vars(fl.losses).items():
        if name[0] == "_" and is_loss(loss):
            narrower = {"log_probs": LOG_PROBABILITY_FRAMES} if "log_probs" in loss.operands else {}
            operands = operands_of(loss, loss.formula_of(), **narrower)
            found[name] = [cases.Case(name, operands, {})]
    return found


CASES = cases_by_loss()

# Valid values of numeric options, in addition to the default and to those in `tests.cases`.
MORE_VALUES = {
    "smooth_l1_loss": {"beta": [0.0, 1, 1e30, INF]},
    "huber_loss": {"delta": [1, np.float32(2), INF]},
    "pinball_loss": {"quantile": [0, 0.1, 1.0]},
    "poisson_nll_loss": {"eps": [0.0, 0.1]},
    "gaussian_nll_loss": {"eps": [0.0, 1e-8, 0.1]},
    "tweedie_deviance_loss": {"power": [0, 1, 2, 3]},
    "sigmoid_focal_loss": {"alpha": [-1, 0.0, 1], "gamma": [0, 1, 2.0]},
    "hinge_embedding_loss": {"margin": [-0.5, 0.0, np.float64(2)]},
    "margin_ranking_loss": {"margin": [-0.5, 1, np.float64(2)]},
    "nll_loss": {"ignore_index": [0, -1, INT64.min, INT64.max]},
    "cross_entropy": {
        "ignore_index": [0, -1, INT64.min, INT64.max],
        "label_smoothing": [0.0, 1.0],
    },
    "multi_margin_loss": {"margin": [-0.5, 0.0, np.float64(2)], "p": [2.0]},
    "cosine_embedding_loss": {"margin": [-0.5, 1, np.float64(2)]},
    "triplet_margin_loss": {"margin": [0.1, 5.0], "p": [1, 2, 2.0, 3, 7.5], "eps": [1e-8, 0.1]},
}


def values_of(loss, parameter):
    """Valid values of an option, or None for an operand, an array or the blank."""
    name, default = parameter.name, parameter.default
    if type(default) is bool:
        return [False, True, np.True_, 0, 1]
    if type(default) not in (int, float) or name == "blank":
        return None
    more = MORE_VALUES.get(loss, {}).get(name, [])
    return [default, *more, *(c.options[name] for c in CASES[loss] if name in c.options)]


EDGES = [0.0, -0.0, 1e-45, 1e-38, 1e-8, 0.5, 1.0, -1.0, -1e-5, 30.0, -90.0, 800.0, -3e4, 1e19]
EDGES += [3e38, -1e308, INF, -INF, float("nan"), float("nan")]


# ---- Decisions -----------------------------------------------------------------------------------


class Choices:
    """The decisions of one call, which a subclass makes: `pick`, `chance`, `shuffled`, `rng`."""

    def subset(self, sequence):
        return [entry for entry in sequence if self.chance(0.5)]

    def length(self, room):
        """The length of an axis; often one near the length of a vector or a tile."""
        if self.chance(0.02):
            return 0
        if room >= 63 and self.chance(0.2):
            near = self.pick([16, 32, 64, 128, 512, 1024, 2048, 8192])
            return min(max(near + self.pick([0, -1, 1]), 1), room)
        return min(self.pick([1, 1, 2, 2, 3, 3, 4, 5, 7, 8, 9, 17]), room)

    def shape(self, most=5, least=0):
        room = 20_000 if self.chance(0.02) else 1100
        axes = []
        for _ in range(self.pick(range(least, most + 1))):
            axes.append(self.length(room))
            room = max(room // max(axes[-1], 1), 1)
        return tuple(self.shuffled(axes))


class SeededChoices(Choices):
    """Choices of call `number` of a run."""

    def __init__(self, seed, number):
        self._random = random.Random((seed << 40) + number)
        self.rng = np.random.Generator(np.random.PCG64((seed << 40) + number))

    def pick(self, sequence):
        return sequence[int(self._random.random() * len(sequence))]

    def chance(self, probability):
        return self._random.random() < probability

    def shuffled(self, sequence):
        return self._random.sample(sequence, len(sequence))


class HypothesisChoices(Choices):
    """Choices that hypothesis makes, by the `draw` of a composite strategy."""

    def __init__(self, draw):
        self._draw = draw
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def pick(self, sequence):
        return sequence[self._draw(st.integers(0, len(sequence) - 1))]

    def chance(self, probability):
        return self._draw(st.integers(0, 999)) >= 1000 * (1 - probability)  # shrinks to False

    def shuffled(self, sequence):
        return self._draw(st.permutations(sequence))


# ---- A call --------------------------------------------------------------------------------------


class RandomCall:
    """Valid operands, options and weights of a loss.

    `arrays` holds the operands and `options` the keywords, by name. `memory` lists, for each array,
    the buffer that it is in, the array, and a copy of the bytes of the buffer.

    `batched` calls can be split along the first axis of the losses: there is one, each operand and
    weight has it, and all floating operands have the same dtype.
    """

    def __init__(self, choices, case, batched=False):
        self.choices, self.case, self.batched = choices, case, batched
        self.name, self.loss = case.loss, getattr(fl.losses, case.loss)
        self.domains = dict(zip(self.loss.operands, self.case.operands, strict=True))
        self.content = choices.pick(["typical"] * 3 + ["ties", "edges", "adversarial"])
        self.dtype = choices.pick(FLOATS)
        self.plain = choices.chance(0.3)  # native byte order, one dtype, mostly contiguous
        self.memory, self.arrays = [], {}
        self.options = {k: v for k, v in self.case.options.items() if self._is_number(v)}
        self._draw_options()
        self._draw_sequences() if self.case.unit == "sequence" else self._draw_operands()
        self._draw_weights()

    def __repr__(self):
        arguments = {**self.arrays, **self.options}.items()
        return f"{self.name}({', '.join(f'{k}={described(v)}' for k, v in arguments)})"

    @staticmethod
    def _is_number(value):
        return isinstance(value, (bool, int, float))

    def _parameters(self):
        return self.loss.__signature__.parameters

    def _draw_options(self):
        """Sets more options, unless they would choose another row of the table of losses."""
        for name, parameter in self._parameters().items():
            values = values_of(self.name, parameter)
            if values and self.choices.chance(0.4):
                options = self.options | {name: self.choices.pick(values)}
                if self.loss.formula_of(**options) == self.loss.formula_of(**self.options):
                    self.options = options
        if self.case.has_probabilities and self.options.get("ignore_index", -1) >= 0:
            del self.options["ignore_index"]

    # -- values

    def values(self, domain, shape, axis=-1):
        """Values of a domain, float64, the rows along `axis`."""
        rng, info = self.choices.rng, np.finfo(self.dtype)
        if domain is SIGN and self.content == "edges":
            return rng.choice(domain.edge_cases(info), shape)
        shape = (*shape[:axis], *shape[axis + 1 :], shape[axis]) if axis != -1 else shape
        content = self.content if 0 not in shape and domain is not SIGN else "typical"
        if domain is LOG_PROBABILITY_FRAMES and content in ("ties", "edges"):
            return self._masked_frames(shape)  # probabilities must sum to 1
        if content == "edges":
            edges = [v for v in EDGES if not (v < domain.low or v > domain.high)]
            values = rng.choice(np.array(edges), shape)
        elif content == "adversarial":
            values = self._adversarial(domain, shape, info)
        else:
            values = domain.typical(rng, shape)
            if content == "ties":
                values = np.clip(np.round(values), domain.low, domain.high)
        return np.moveaxis(values, -1, axis) if axis != -1 else values

    def _masked_frames(self, shape):
        """Log-probabilities of frames, with some classes but the first impossible."""
        rng = self.choices.rng
        x = rng.normal(size=shape)
        x[..., 1:][rng.random(x[..., 1:].shape) < 0.2] = -INF
        return log_softmax(x)

    def _adversarial(self, domain, shape, info):
        entries = {"unit": 0, "row": 1, "frames": 2}[domain.extent]  # axes of a unit
        first = int(np.prod(shape[: len(shape) - entries]))
        size = (first, *shape[len(shape) - entries :]) if entries else first
        with np.errstate(all="ignore"):
            return domain.adversarial(self.choices.rng, size, info).reshape(shape)

    def cast(self, values, integers=False):
        """The values in a floating dtype or, with `integers`, perhaps in an integer one."""
        dtype = self.dtype
        if not (self.plain or self.batched):
            narrow = [self.choices.pick(INTEGERS)] if integers else []
            dtype = self.choices.pick([*FLOATS, *FLOATS, *HALVES, *narrow])
        if dtype.kind in "iu":
            values = np.nan_to_num(values, nan=1, posinf=1, neginf=1)
            low = max(np.iinfo(dtype).min, -100)
            values = np.where(values < low, np.abs(values), values)
            values = np.minimum(values, 100)
        with np.errstate(all="ignore"):
            return np.asarray(values).astype(dtype)

    def indices(self, shape, classes, dtype=None):
        """Class indices in an integer dtype that holds the number of classes."""
        fitting = [d for d in INTEGERS if np.iinfo(d).max >= classes]
        dtype = dtype or (np.dtype(np.int64) if self.plain else self.choices.pick(fitting))
        return self.choices.rng.integers(0, max(classes, 1), shape).astype(dtype)

    # -- memory

    def lay_out(self, values, zero_strides=True):
        """Copies the values between guards, with any strides, alignment and byte order."""
        choices = self.choices
        if self.plain and choices.chance(0.5):
            array = np.array(values)
            self.memory.append((array.reshape(-1).view(np.uint8), array, array.tobytes()))
            return array
        dtype, shape = values.dtype, values.shape
        if dtype.itemsize > 1 and dtype.name != "bfloat16" and choices.chance(0.1):
            dtype = dtype.newbyteorder()
        array, buffer = self.allocate(shape, dtype, zero_strides)
        array[...] = values
        if choices.chance(0.3):
            array.flags.writeable = False
        self.memory.append((buffer, array, buffer.tobytes()))
        return array

    def allocate(self, shape, dtype, zero_strides):
        """An array in a larger buffer of bytes; with `zero_strides`, axes may repeat one entry."""
        choices, size = self.choices, dtype.itemsize
        order = list(range(len(shape)))
        if choices.chance(0.3):
            order = choices.shuffled(order)
        strides, extent, start = [0] * len(shape), size, 0
        for axis in reversed(order):
            if zero_strides and shape[axis] > 1 and choices.chance(0.04):
                continue
            strides[axis] = extent * choices.pick([1, 1, 1, 1, 2, 3])
            if choices.chance(0.1):
                start += strides[axis] * max(shape[axis] - 1, 0)
                strides[axis] = -strides[axis]
            extent = abs(strides[axis]) * max(shape[axis], 1)
        before = choices.pick([0, 0, 1, 3, size, 64])
        after = choices.pick([0, 0, 1, size, 64])
        buffer = np.full(before + extent + after, GUARD, np.uint8)
        return np.ndarray(shape, dtype, buffer, before + start, tuple(strides)), buffer

    # -- operands

    def _draw_operands(self):
        choices, case = self.choices, self.case
        is_element = case.unit == "element"
        self.shape = choices.shape(5 if is_element else 3, least=self.batched)
        self.classes = None if is_element else choices.length(300)
        if case.by_class and case.ignored is None:
            self.classes = max(self.classes, 1)
        self.axis = min(case.axis, len(self.shape)) if case.axis != -1 else len(self.shape)
        self.row = (*self.shape[: self.axis], self.classes, *self.shape[self.axis :])
        for operand, domain in self.domains.items():
            shape = self.row if domain.extent == "row" else self.shape
            self.arrays[operand] = self._operand(operand, domain, shape)
        if is_element and all(np.ndim(array) == 0 for array in self.arrays.values()):
            self.shape = ()
        if "var" in self.domains and self.shape and not self.batched and choices.chance(0.4):
            self._broadcast_variance()

    def _operand(self, operand, domain, shape):
        choices = self.choices
        if domain is CLASS_INDEX:
            return self.lay_out(self._labels(shape))
        if domain is LABEL_ROWS:
            values = self.indices(shape, self.classes)
            if values.dtype.kind == "i":
                values[choices.rng.random(shape) < 0.3] = -1
            return self.lay_out(values)
        # Scalars broadcast to any shape, but var must not have more entries than the others.
        fixed = "var" in self.domains and operand == "input"
        if self.case.unit == "element" and not (fixed or self.batched) and choices.chance(0.04):
            shape = ()
        axis = self.axis if domain.extent == "row" else -1
        # Integer probabilities would be class indices.
        floating = operand in self.case.scores or self.case.has_probabilities
        values = self.cast(self.values(domain, shape, axis), integers=not floating)
        if domain is POSITIVE:
            values = np.where(values == 0, 1, values).astype(values.dtype)  # the cast underflowed
        if values.ndim == 0 and values.dtype in FLOATS and choices.chance(0.3):
            return values.item()
        return self.lay_out(values)

    def _labels(self, shape):
        """Class indices, some of them ignored; all of them if there are no classes."""
        choices, ignored = self.choices, self.options.get("ignore_index", self.case.ignored)
        if ignored is None or (self.classes > 0 and choices.chance(0.5)):
            return self.indices(shape, self.classes)
        limits = [(d, np.iinfo(d)) for d in INTEGERS]
        fitting = [d for d, i in limits if i.max >= self.classes and i.min <= ignored <= i.max]
        values = self.indices(shape, self.classes, choices.pick(fitting))
        values[choices.rng.random(shape) < (0.3 if self.classes else 1)] = ignored
        return values

    def _broadcast_variance(self):
        """Replaces var by one without the last axis, or with an axis of length 1."""
        choices, axis = self.choices, self.choices.pick(range(len(self.shape)))
        shape = tuple(1 if k == axis else n for k, n in enumerate(self.shape))
        shape = self.shape[:-1] if choices.chance(0.3) else shape
        self.memory = [entry for entry in self.memory if entry[1] is not self.arrays["var"]]
        self.arrays["var"] = self._operand("var", self.domains["var"], shape)

    def _draw_sequences(self):
        choices, rng = self.choices, self.choices.rng
        has_batch = self.batched or choices.chance(0.8)
        n = choices.pick([1, 2, 3, 5, 0]) if has_batch and choices.chance(0.9) else 1
        t = choices.pick([1, 0, 2, 3, 4, 6, 9, 33]) if choices.chance(0.95) else 260
        self.classes = c = choices.pick([1, 2, 3, 4, 5, 17, 65])
        blank = choices.pick(range(c))
        self.options.pop("blank", None)
        if blank or choices.chance(0.2):
            self.options["blank"] = blank
        self.shape = (n,) if has_batch else ()
        x = self.cast(self.values(self.case.operands[0], (n, t, c)))
        if not has_batch:
            x = x[0]
        elif not self.options.get("batch_first"):
            x = np.moveaxis(x, 0, 1)
        frames = rng.integers(0, t + 1, n) if choices.chance(0.7) else np.full(n, t)
        most = choices.pick([0, 1, 2, 3, 8]) if c > 1 else 0
        labels = rng.integers(0, most + 1, n)
        padded = self.batched or choices.chance(0.5)
        width = most + choices.pick([0, 0, 1])
        target = self.indices((n, width) if padded else (int(labels.sum()),), max(c - 1, 1))
        if c > 1:
            target += target >= blank
        if padded:
            target[np.arange(width) >= labels[:, np.newaxis]] = choices.pick([0, 99, blank])
        integers = [np.dtype(np.int64)] if self.plain or t > 100 else INTEGERS
        values = (x, target, *(v.astype(choices.pick(integers)) for v in (frames, labels)))
        for operand, value in zip(self.loss.operands, values, strict=True):
            if value.shape == (1,) and "length" in operand and not self.batched:
                value = value[0] if choices.chance(0.3) else value
                if choices.chance(0.2):
                    self.arrays[operand] = int(value.item() if value.ndim == 0 else value[0])
                    continue
            self.arrays[operand] = self.lay_out(np.asarray(value), zero_strides=False)

    # -- weights

    def _draw_weights(self):
        choices = self.choices
        for name in ("weight", "pos_weight"):
            if name in self._parameters() and choices.chance(0.4):
                full = self.shape if self.case.unit == "element" else self.row
                shape = (self.classes,) if self.weighs_classes else self._broadcast_shape(full)
                negative = [] if self.batched else [-1]  # so that divisors do not cancel
                self.options[name] = self._weight(shape, [0, 0.5, 1, 2.3, 1e30, *negative])
        if choices.chance(0.3):
            shape = self.shape[:1] if choices.chance(0.4) else self.shape
            self.options["sample_weight"] = self._weight(shape, [0, 0, 0.5, 1, 2.3, 1e30])

    @property
    def weighs_classes(self):
        """Whether `weight` has an entry for each class."""
        return self.case.by_class or self.case.has_probabilities

    def _weight(self, shape, values):
        weight = self.choices.rng.choice(np.array(values), shape)
        if self.plain:
            return self.lay_out(weight.astype(self.dtype))
        integer = self.choices.pick(INTEGERS)
        dtype = self.choices.pick([*FLOATS, *FLOATS, *HALVES, integer, np.dtype(bool)])
        if dtype.kind in "iub":
            weight = np.minimum(np.abs(np.ceil(weight)), 9)
        with np.errstate(over="ignore"):
            return self.lay_out(weight.astype(dtype))

    def _broadcast_shape(self, shape):
        """A shape that broadcasts to this one."""
        choices = self.choices
        if self.batched or choices.chance(0.5):
            return shape
        shape = tuple(1 if choices.chance(0.4) else n for n in shape)
        return shape[choices.pick(range(len(shape) + 1)) :] if choices.chance(0.4) else shape

    # -- parts of a batched call

    def at(self, index):
        """(arrays, options) of the losses at this index of the first axis, if `batched`."""
        time_first = self.case.unit == "sequence" and not self.options.get("batch_first")

        def entries(name, value):
            if not isinstance(value, np.ndarray) or (name == "weight" and self.weighs_classes):
                return value
            return value[:, index] if time_first and value.ndim == 3 else value[index]

        return tuple(
            {name: entries(name, value) for name, value in arguments.items()}
            for arguments in (self.arrays, self.options)
        )

    @property
    def wrt(self):
        """The operands that have a gradient: differentiable floating ones."""
        floating = (n for n in self.loss.differentiable if is_floating(self.arrays[n]))
        return tuple(floating)


def is_floating(value):
    return not isinstance(value, np.ndarray) or value.dtype.kind not in "iub"


def described(value):
    """An argument in one line."""
    if isinstance(value, np.ndarray) and value.size > 4:
        return f"<{value.dtype.str} {value.shape} strides {value.strides}>"
    return repr(value).replace("\n", "")


@st.composite
def calls(draw, chosen):
    """Strategy of `batched` calls of one of these cases."""
    return RandomCall(HypothesisChoices(draw), draw(st.sampled_from(chosen)), batched=True)
