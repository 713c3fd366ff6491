"""The table of cases: every loss under each choice of options that changes what it computes.

Most tests run over `CASES`. A new loss needs a line in `TABLE`, which holds options only: the
domain of each operand follows from the row of src_c/losses.def that the options choose, unless the
line narrows it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import fastloss as fl
from tests.domains import (
    CLASS_INDEX,
    CLASS_WEIGHT,
    CLASSES,
    EXPONENT,
    INTEGERS,
    LOG_PROBABILITY,
    LOG_PROBABILITY_FRAMES,
    LOG_PROBABILITY_ROWS,
    MAX_FRAMES,
    MAX_LABELS,
    PROBABILITY_ROWS,
    TARGET_LABELS,
    VARIANCE,
    WEIGHT,
    Domain,
    corners,
    operands_of,
    signs,
    weight_of,
)

FLOATS = (np.float32, np.float64)


class Case(NamedTuple):
    """A loss under one choice of options; a `Domain` among them stands for an array.

    `axis` is the axis of the rows.
    """

    loss: str
    operands: tuple[Domain, ...]
    options: dict
    axis: int = -1

    @property
    def id(self):
        options = (k if isinstance(v, Domain) else f"{k}={v}" for k, v in self.options.items())
        return "-".join([self.loss, *["probabilities"] * self.has_probabilities, *options])

    @property
    def formula(self):
        """The row of src_c/losses.def that computes it."""
        loss = getattr(fl.losses, self.loss)
        return loss.formula_of(probabilities=self.has_probabilities, **self.options)

    @property
    def scores(self):
        """The operands that must be floating: integers would be indices in the wrong argument."""
        specs = getattr(fl.losses, self.loss).operand_specs[self.formula]
        return [name for name, _, domain in specs if domain == "score"]

    @property
    def unit(self):
        """The part of the operands that has one loss: an "element", a "row" or a "sequence"."""
        extents = {domain.extent for domain in self.operands}
        return "row" if "row" in extents else "sequence" if "frames" in extents else "element"

    @property
    def by_class(self):
        """Whether the target is a class index, which is an integer and has no gradient."""
        return self.operands[1] is CLASS_INDEX

    @property
    def has_probabilities(self):
        """Whether the target holds class probabilities instead of an index."""
        formulas = getattr(fl.losses, self.loss).operand_specs
        return PROBABILITY_ROWS in self.operands and any(
            formula.endswith("_probabilities") for formula in formulas
        )

    @property
    def weighs_classes(self):
        """Whether `weight` has an entry for each class rather than for each loss or element."""
        return CLASS_WEIGHT in self.options.values()

    @property
    def ignored(self):
        """The value of `ignore_index`, None if the loss has no such option."""
        parameters = getattr(fl, self.loss).__signature__.parameters
        if not self.by_class or "ignore_index" not in parameters:
            return None
        return self.options.get("ignore_index", parameters["ignore_index"].default)

    @property
    def time_first(self):
        """Whether the frames come before the samples."""
        return self.unit == "sequence" and not self.options.get("batch_first")

    @property
    def normalised(self):
        """Whether the probabilities of a frame sum to 1, so that none can change alone."""
        return LOG_PROBABILITY_FRAMES in self.operands

    def differentiable(self, loss):
        """The arguments of `loss` that have a gradient in this case: those that are floating."""
        floating = (
            name
            for name, domain in zip(loss.operands, self.operands, strict=True)
            if domain not in INTEGERS
        )
        return tuple(name for name in floating if name in loss.differentiable)

    # -- shapes

    def units(self, shape):
        """The shape of the unreduced loss nearest to `shape`; sequences have at most one axis."""
        return shape if self.unit != "sequence" else (int(np.prod(shape)),) if shape else ()

    def shapes(self, shape, classes=CLASSES):
        """The shapes of the operands for an unreduced loss of `shape`."""
        return [self._shape(domain, self.units(shape), classes) for domain in self.operands]

    def _shape(self, domain, shape, classes):
        at = len(shape) if self.axis == -1 else min(self.axis, len(shape))
        frames = (MAX_FRAMES, *shape) if self.time_first else (*shape, MAX_FRAMES)
        return {
            "unit": shape,
            "length": shape,
            "row": (*shape[:at], classes, *shape[at:]),
            "classes": (classes,),
            "frames": (*frames, classes),
            "labels": (*shape, MAX_LABELS),
        }[domain.extent]

    def row_axes(self, ndim):
        """The axes of a gradient that an unreduced loss with `ndim` axes does not have."""
        if self.unit == "element":
            return ()
        if self.unit == "sequence":
            return (0, 2) if self.time_first else (1, 2)
        return (ndim if self.axis == -1 else min(self.axis, ndim),)

    # -- operands and options

    def typical(self, rng, shape, dtype, classes=CLASSES):
        """Typical operands for an unreduced loss of `shape`."""
        shapes = zip(self.operands, self.shapes(shape, classes), strict=True)
        arrays = [_typed(domain.typical(rng, s), dtype) for domain, s in shapes]
        return self._with_valid_labels(arrays, classes)

    def adversarial(self, rng, size, dtype):
        """Operands for `size` losses that are easily computed wrong: of all magnitudes, and at and
        next to kinks."""
        info = np.finfo(dtype)
        batched = self._replace(options={**self.options, "batch_first": True}, axis=-1)
        shapes = zip(self.operands, batched.shapes((size,)), strict=True)
        with np.errstate(over="ignore"):
            arrays = [_typed(domain.adversarial(rng, s, info), dtype) for domain, s in shapes]
        if self.by_class:
            self._make_confident(rng, arrays)
        elif self.operands[0] is self.operands[1]:
            if self.unit == "row":
                self._relate_rows(rng, arrays)
            else:
                self._move_to_kinks(rng, arrays, info)
        return self._with_valid_labels(self._time_first(arrays))

    def edge_cases(self, dtype):
        """All combinations of the edge cases of the operands."""
        lists = [domain.edge_cases(np.finfo(dtype)) for domain in self.operands]
        index = np.meshgrid(*(range(len(values)) for values in lists), indexing="ij")
        pairs = zip(lists, index, strict=True)
        arrays = [np.array(values)[i.ravel()] for values, i in pairs]
        return self._with_valid_labels(self._time_first([_typed(a, dtype) for a in arrays]))

    def corners(self, dtype):
        """All combinations of the corners of elementwise operands."""
        with np.errstate(over="ignore"):
            lists = [
                _typed(corners(domain, np.finfo(dtype)), dtype).astype(float)
                for domain in self.operands
            ]
        return [_typed(a.ravel(), dtype) for a in np.meshgrid(*lists, indexing="ij")]

    def keywords(self, rng, shape, dtype, classes=CLASSES, adversarial=False):
        """The options, with arrays for an unreduced loss of `shape`."""
        keywords = {}
        for name, value in self.options.items():
            if isinstance(value, Domain):
                full = self._shape(value, shape, classes)
                if adversarial:
                    flat = value.adversarial(rng, int(np.prod(full)), np.finfo(dtype))
                    value = flat.reshape(full)
                else:
                    value = value.typical(rng, full)
                value = _typed(value, dtype)
            keywords[name] = value
        return keywords

    def at(self, arrays, index):
        """The operands, or gradients, of the units at this index of the leading axis."""
        return [a[:, index] if self.time_first and a.ndim == 3 else a[index] for a in arrays]

    def leading(self, array):
        """An operand or a gradient with the axis of the samples first."""
        return array.swapaxes(0, 1) if self.time_first and array.ndim == 3 else array

    def _time_first(self, arrays):
        """Moves the frames of a batch to the front, if the case has them there."""
        if self.time_first:
            arrays[0] = np.ascontiguousarray(arrays[0].swapaxes(0, 1))
        return arrays

    def _with_valid_labels(self, arrays, classes=CLASSES):
        """Maps class indices into the classes, and target labels to classes but the blank."""
        for k, domain in enumerate(self.operands):
            if domain is CLASS_INDEX:
                is_class = arrays[k] != self.ignored
                arrays[k] = np.where(is_class, arrays[k] % classes, arrays[k])
            elif domain is TARGET_LABELS and classes > 1:
                blank = self.options.get("blank", 0)
                arrays[k] = (blank + 1 + (arrays[k] - 1) % (classes - 1)) % classes
        return arrays

    def _move_to_kinks(self, rng, arrays, info):
        """Makes a third of the pairs equal, or a few ULP away from a kink of the difference."""
        size = len(arrays[0])
        kinks = [0, 0, 1, *(v for v in self.options.values() if type(v) is float)]
        kink = rng.choice(kinks, size) * signs(rng, size)
        moved = rng.random(size) < 1 / 3
        with np.errstate(invalid="ignore", over="ignore"):
            other = arrays[0] + kink * (1 + rng.integers(-3, 4, size) * float(info.eps))
            other = np.where(np.isfinite(other), other, arrays[0])
        arrays[1][moved] = np.clip(other, self.operands[1].low, self.operands[1].high)[moved]

    def _relate_rows(self, rng, arrays):
        """Makes the second row of most pairs equal, opposite, nearly parallel or orthogonal to the
        first one."""
        first = arrays[0]
        relation = rng.integers(0, 8, len(first))[:, None]
        tilted = first * (1 + 2.0 ** rng.integers(-40, -1, (len(first), 1)) * rng.normal(size=1))
        orthogonal = np.zeros_like(first)
        orthogonal[:, 0], orthogonal[:, 1] = -first[:, 1], first[:, 0]
        for k, row in enumerate((first, -first, 2 * first, tilted, first + 1e-3, orthogonal)):
            arrays[1] = np.where(relation == k, row, arrays[1]).astype(first.dtype)

    def _make_confident(self, rng, arrays):
        """Makes most labels the class of the highest score, and some of them ignored."""
        choice = rng.integers(0, 8, len(arrays[1]))
        arrays[1] = np.where(choice < 5, arrays[0].argmax(axis=1), arrays[1])
        if self.ignored is not None:
            arrays[1][choice == 7] = self.ignored


def _typed(array, dtype):
    array = np.asarray(array)
    return array if array.dtype.kind in "iu" else array.astype(dtype)


# ---- The table -----------------------------------------------------------------------------------


def _cases(loss, *variants, probabilities=False, **narrower):
    """The cases of a loss: one for each set of options.

    `narrower` gives the domain of an operand, where typical and adversarial draws must be narrower
    or denser than its domain in losses.def. In `options` a `WEIGHT` stands for weights of the
    extent that the loss takes.
    """
    called = getattr(fl, loss)
    cases = []
    for options in variants:
        options = {k: weight_of(called) if v is WEIGHT else v for k, v in options.items()}
        formula = called.formula_of(probabilities=probabilities, **options)
        operands = operands_of(called, formula, **narrower)
        cases.append(Case(loss, operands, options, called.row_axis or -1))
    return cases


INF = float("inf")
TABLE = [
    _cases("l1_loss", {}, {"weight": WEIGHT}),
    _cases("mse_loss", {}, {"weight": WEIGHT}),
    _cases("smooth_l1_loss", {}, {"beta": 0.3}, {"beta": 0.0}, {"beta": INF}),
    _cases("huber_loss", {}, {"delta": 0.3}, {"delta": INF}, {"weight": WEIGHT}),
    _cases("log_cosh_loss", {}),
    _cases("poisson_nll_loss", {}, {"full": True}, input=EXPONENT),
    _cases(
        "poisson_nll_loss",
        {"log_input": False},
        {"log_input": False, "full": True, "eps": 0.1},
        {"log_input": False, "eps": 0.0},
    ),
    # 1/var overflows for subnormal variances; with eps=0 nothing bounds it.
    _cases("gaussian_nll_loss", {}, {"full": True, "eps": 0.01}, {"eps": 0.0}, var=VARIANCE),
    _cases("kl_div", {}, input=EXPONENT),
    _cases("kl_div", {"log_target": True}, input=LOG_PROBABILITY, target=LOG_PROBABILITY),
    _cases("binary_cross_entropy", {}, {"weight": WEIGHT}),
    _cases(
        "binary_cross_entropy_with_logits",
        {},
        {"weight": WEIGHT},
        {"pos_weight": WEIGHT},
        {"weight": WEIGHT, "pos_weight": WEIGHT},
        input=EXPONENT,
    ),
    _cases("hinge_embedding_loss", {}, {"margin": 0.3}),
    _cases("soft_margin_loss", {}, input=EXPONENT),
    _cases("margin_ranking_loss", {}, {"margin": 0.3}),
    _cases("sigmoid_focal_loss", {}, {"alpha": -1.0}, {"gamma": 0.5}, input=EXPONENT),
    _cases("pinball_loss", {}, {"quantile": 0.3}),
    _cases("gamma_nll_loss", {}, input=EXPONENT),
    _cases("gamma_nll_loss", {"log_input": False}),
    _cases(
        "tweedie_deviance_loss",
        {},
        *({"power": power} for power in (-1.5, 1.0, 1.5, 1.25, 2.0, 3.0)),
    ),
    _cases("nll_loss", {}, {"weight": WEIGHT}, {"ignore_index": 2}, input=LOG_PROBABILITY_ROWS),
    _cases(
        "cross_entropy",
        {},
        {"weight": WEIGHT},
        {"ignore_index": 2},
        {"label_smoothing": 0.1},
        {"label_smoothing": 1.0},
        {"weight": WEIGHT, "label_smoothing": 0.1},
    ),
    _cases(
        "cross_entropy",
        {},
        {"weight": WEIGHT},
        {"label_smoothing": 0.1},
        {"weight": WEIGHT, "label_smoothing": 0.1},
        probabilities=True,
    ),
    _cases(
        "multi_margin_loss",
        {},
        {"margin": 0.3},
        {"weight": WEIGHT},
        {"p": 2},
        {"p": 2, "margin": 0.3, "weight": WEIGHT},
    ),
    _cases("multilabel_margin_loss", {}),
    _cases("multilabel_soft_margin_loss", {}, {"weight": WEIGHT}),
    _cases("cosine_embedding_loss", {}, {"margin": 0.3}),
    _cases(
        "triplet_margin_loss",
        {},
        {"swap": True},
        {"p": 1.0, "margin": 0.3},
        {"p": INF, "swap": True},
        {"p": 0.5},
        {"p": 1.5, "swap": True},
        {"p": 3.0, "eps": 0.0},
    ),
    _cases(
        "ctc_loss",
        {},
        {"batch_first": True},
        {"blank": 2, "zero_infinity": True},
        log_probs=LOG_PROBABILITY_FRAMES,
    ),
    _cases("ctc_loss_with_logits", {}, {"batch_first": True, "blank": 2}, {"zero_infinity": True}),
]
CASES = [case for cases in TABLE for case in cases]
LOSSES = list(dict.fromkeys(case.loss for case in CASES))

# Each numeric option at the ends of its range and where its formula changes, for every loss that
# has it: {loss: {option: values}}. Values between which nothing changes are one of them.
MARGINS = (-1.7e308, -1e30, 0.0, 1e-300, 1e-30, 0.3, 1e30, 1.7e308)
OPTION_CORNERS = {
    "smooth_l1_loss": {"beta": (0.0, 1e-310, 1e-40, 1e-30, 0.3, 1e30, 3e38, 1.7e308, INF)},
    "huber_loss": {"delta": (1e-310, 1e-40, 1e-30, 0.3, 1e30, 3e38, 1.7e308, INF)},
    "poisson_nll_loss": {"eps": (0.0, 1e-300, 1e-40, 1e-8, 1.0, 1e30, 3e38, 1.7e308)},
    "gaussian_nll_loss": {"eps": (0.0, 1e-300, 1e-40, 1e-6, 1.0, 1e30, 1.7e308)},
    "hinge_embedding_loss": {"margin": MARGINS},
    "margin_ranking_loss": {"margin": MARGINS},
    "sigmoid_focal_loss": {
        "alpha": (-1.0, 0.0, 1e-300, 1e-9, 0.3, 1 - 1e-9, 1.0),
        "gamma": (0.0, 1e-300, 1e-9, 0.7, 1.0, 2.0, 2.1, 30.0, 1e3, 1e30, 1.7e308),
    },
    "pinball_loss": {"quantile": (0.0, 1e-300, 1e-9, 0.99, 1 - 1e-9, 1.0)},
    "tweedie_deviance_loss": {
        "power": (
            *(-1e6, -100.0, -3.1, -1.0, -0.3, -0.1, -0.001, 0.0),
            *(1.000001, 1.1, 1.2, 1.5, 1.7, 1.9, 1.999999),
            *(2.000001, 2.3, 2.9, 3.7, 100.1, 1e6),
        )
    },
    "cross_entropy": {"label_smoothing": (1e-300, 1e-9, 0.3, 1 - 1e-9, 1.0)},
    "multi_margin_loss": {"margin": MARGINS},
    "cosine_embedding_loss": {"margin": (-1.0, -0.3, 0.0, 0.3, 1.0)},
    "triplet_margin_loss": {
        "margin": (1e-300, 1e-30, 0.3, 1e30, 1.7e308),
        "p": (1e-300, 1e-12, 1e-6, 0.02, 0.9, 1.1, 2.0, 7.3, 600.0, 1e6, 1e300, INF),
        "eps": (0.0, 1e-300, 1e-30, 1e-6, 1.0, 1.7e308),
    },
}


def option_cases():
    """The cases of the table with each numeric option at each of its corners."""
    for case in CASES:
        for option, values in OPTION_CORNERS.get(case.loss, {}).items():
            for value in values:
                if case.options.get(option) != value:
                    yield case._replace(options={**case.options, option: value})


OPTION_CASES = list({case.id: case for case in option_cases()}.values())
