"""Remarks of an evaluation on data that seem to be meant for another loss."""

import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl
from fastloss import cli
from fastloss.evaluation.remarks import remarks

EXAMPLES = Path(__file__).parent.parent / "examples"
ROWS, CLASSES = 300, 7
rng = np.random.default_rng(15)

SCORES = rng.normal(size=(ROWS, CLASSES)) * 3
LOG_PROBABILITIES = SCORES - np.log(np.exp(SCORES).sum(1, keepdims=True))
PROBABILITIES = np.exp(LOG_PROBABILITIES)
CLASS = rng.integers(0, CLASSES, ROWS)
LOGIT = rng.normal(size=ROWS) * 2
PROBABILITY = 1 / (1 + np.exp(-LOGIT))
LABEL = (rng.random(ROWS) < PROBABILITY).astype(float)
RATE = np.exp(rng.normal(size=ROWS) * 0.3 + 1.5)
COUNT = rng.poisson(RATE).astype(float) + 0.5
FRAMES = (SCORES.reshape(ROWS // 10, 10, CLASSES), np.ones((10, 2), int), 30, 2)
LOG_FRAMES = (LOG_PROBABILITIES.reshape(ROWS // 10, 10, CLASSES), *FRAMES[1:])
PROBABILITY_FRAMES = (PROBABILITIES.reshape(ROWS // 10, 10, CLASSES), *FRAMES[1:])


@pytest.mark.parametrize(
    ("criterion", "data", "words"),
    [
        (fl.CrossEntropyLoss(), (SCORES, CLASS), None),
        (fl.CrossEntropyLoss(), (PROBABILITIES, CLASS), "input looks like probabilities"),
        (fl.CrossEntropyLoss(), (LOG_PROBABILITIES, CLASS), "the value is right"),
        (fl.CrossEntropyLoss(), (SCORES, PROBABILITIES), None),
        (fl.CrossEntropyLoss(), (SCORES, 2 * PROBABILITIES), "a row sums to 2 instead of 1"),
        (fl.NLLLoss(), (LOG_PROBABILITIES, CLASS), None),
        (fl.NLLLoss(), (LOG_PROBABILITIES - 1.0, CLASS), None),  # a part of the classes
        (fl.NLLLoss(), (PROBABILITIES, CLASS), "take their logarithms"),
        (fl.NLLLoss(), (SCORES, CLASS), "for logits, use cross_entropy"),
        (fl.MultiMarginLoss(), (SCORES, CLASS), None),
        (fl.MultiMarginLoss(), (PROBABILITIES, CLASS), "reads scores"),
        (fl.KLDivLoss(), (LOG_PROBABILITIES, PROBABILITIES), None),
        (fl.KLDivLoss(), (np.log(PROBABILITY), PROBABILITY), None),
        (fl.KLDivLoss(), (PROBABILITIES, PROBABILITIES), "take their logarithms"),
        (fl.KLDivLoss(), (SCORES, PROBABILITIES), "does not look like log-probabilities"),
        (fl.KLDivLoss(log_target=True), (LOG_PROBABILITIES, LOG_PROBABILITIES), None),
        (fl.KLDivLoss(log_target=True), (LOG_PROBABILITIES, PROBABILITIES), "with log_target"),
        (fl.CTCLoss(), LOG_FRAMES, None),
        (fl.CTCLossWithLogits(), FRAMES, None),
        (fl.CTCLossWithLogits(), LOG_FRAMES, "logits looks like log-probabilities"),
        (fl.CTCLossWithLogits(), PROBABILITY_FRAMES, "logits looks like probabilities"),
        (fl.BCELoss(), (PROBABILITY, LABEL), None),
        (fl.BCELoss(), (LABEL, PROBABILITY), "swapped"),
        (fl.BCELoss(), ((PROBABILITY > 0.5) * 1.0, LABEL), "predicted labels"),
        (fl.BCEWithLogitsLoss(), (LOGIT, LABEL), None),
        (fl.BCEWithLogitsLoss(), (PROBABILITY, LABEL), "use binary_cross_entropy"),
        (fl.BCEWithLogitsLoss(), (LABEL, PROBABILITY), "swapped"),
        (fl.SigmoidFocalLoss(), (LOGIT, LABEL), None),
        (fl.SigmoidFocalLoss(), (PROBABILITY, LABEL), "log(p / (1 - p))"),
        (fl.SoftMarginLoss(), (LOGIT, 2 * LABEL - 1), None),
        (fl.SoftMarginLoss(), (PROBABILITY, 2 * LABEL - 1), "use binary_cross_entropy"),
        (fl.MultiLabelSoftMarginLoss(), (SCORES, PROBABILITIES), None),
        (fl.MultiLabelSoftMarginLoss(), (PROBABILITIES, PROBABILITIES), "binary_cross_entropy"),
        (fl.PoissonNLLLoss(), (np.log(RATE), COUNT), None),
        (fl.PoissonNLLLoss(), (RATE, COUNT), "use log_input=False"),
        (fl.PoissonNLLLoss(log_input=False), (RATE, COUNT), None),
        (fl.PoissonNLLLoss(log_input=False), (np.log(RATE) + 0.1, COUNT), "log_input=True"),
        (fl.GammaNLLLoss(), (np.log(RATE), COUNT), None),
        (fl.GammaNLLLoss(), (RATE, COUNT), "use log_input=False"),
        (fl.MSELoss(), (PROBABILITY, LABEL), None),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_remarks(criterion, data, words, dtype):
    data = tuple(
        value.astype(dtype) if getattr(value, "dtype", None) == np.float64 else value
        for value in data
    )
    found = fl.evaluate(criterion, *data).remarks
    if words is None:
        assert found == ()
    else:
        (remark,) = found
        assert words in remark


@pytest.mark.parametrize("shape", [(20, 5), (20, 5, 4), (2, 5, 40, 50)])
def test_classes_are_on_the_second_axis(shape):
    p = np.random.default_rng(0).dirichlet(np.ones(5), size=(shape[0], *shape[2:]))
    p = np.moveaxis(p, -1, 1)
    y = np.zeros((shape[0], *shape[2:]), int)
    assert "probabilities" in fl.evaluate(fl.CrossEntropyLoss(), p, y).remarks[0]
    assert "probabilities" in fl.evaluate(fl.NLLLoss(), p, y).remarks[0]
    assert fl.evaluate(fl.NLLLoss(), np.log(p), y).remarks == ()


def test_padding_is_passed_over():
    """Rows of NaN or zeros, which are ignored or have weight 0, do not hide the others."""
    p, y = PROBABILITIES.copy(), CLASS.copy()
    p[10:20], p[20:30], y[10:30] = math.nan, 0.0, -100
    assert "probabilities" in fl.evaluate(fl.CrossEntropyLoss(), p, y).remarks[0]


def test_few_values_say_nothing():
    assert fl.evaluate(fl.BCEWithLogitsLoss(), [0.5, 0.25], [0, 1]).remarks == ()


@pytest.mark.parametrize(
    ("criterion", "data"),
    [
        (fl.CrossEntropyLoss(), (np.zeros((0, 3)), np.zeros(0, int))),
        (fl.CrossEntropyLoss(), (np.full((4, 3), math.nan), np.zeros(4, int))),
        (fl.CrossEntropyLoss(), (np.array([0.5, 0.5]), np.int64(0))),
        (fl.NLLLoss(), (np.full((4, 3), -math.inf), np.zeros(4, int))),
        (fl.BCEWithLogitsLoss(), (np.full(20, math.nan), np.zeros(20))),
        (fl.KLDivLoss(), (np.float64(0.0), np.float64(0.5))),
        (fl.PoissonNLLLoss(), (np.full(20, 1e4), np.zeros(20))),
    ],
)
def test_corners_have_no_remark_that_fails(criterion, data):
    fl.evaluate(criterion, *data)


def test_batches_and_several_criteria():
    criteria = {"ce": fl.CrossEntropyLoss(), "nll": fl.NLLLoss()}
    batches = ((PROBABILITIES[i : i + 50], CLASS[i : i + 50].tolist()) for i in range(0, 300, 50))
    results = fl.evaluate(criteria, batches)
    assert "applies softmax" in results["ce"].remarks[0]
    assert "take their logarithms" in results["nll"].remarks[0]
    assert "remark  " in repr(results["ce"])
    assert results["ce"].to_dict()["remarks"] == list(results["ce"].remarks)


@pytest.mark.parametrize("shape", [(400_000, 10), (40, 100_000), (2, 5, 1000, 400)])
def test_a_sample_is_examined(shape):
    """Memory, and with it time, do not grow with the chunk."""
    x = np.full(shape, 0.5, np.float32)
    y = np.zeros((shape[0], *shape[2:]), np.int64)
    for criterion in (fl.CrossEntropyLoss(), fl.NLLLoss(), fl.BCEWithLogitsLoss()):
        tracemalloc.start()
        remarks(criterion, (x, y))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4e6


def test_examples_have_no_remarks():
    for loss, *files in [
        (fl.cross_entropy, "digits/logits.npy", "digits/labels.npy"),
        (fl.mse_loss, "diabetes/prediction.npy", "diabetes/target.npy"),
        (fl.binary_cross_entropy, "breast_cancer/probabilities.npy", "breast_cancer/labels.npy"),
        (
            fl.binary_cross_entropy_with_logits,
            "breast_cancer/logits.npy",
            "breast_cancer/labels.npy",
        ),
    ]:
        assert fl.evaluate(loss, *(EXAMPLES / file for file in files)).remarks == ()


def test_reports_of_the_command_line(capsys):
    files = [str(EXAMPLES / "breast_cancer" / f) for f in ("probabilities.npy", "labels.npy")]
    words = ["evaluate", "binary_cross_entropy_with_logits,binary_cross_entropy", *files]
    assert cli.main(words) == 0
    question, remark = capsys.readouterr().out.rpartition("\n\n")[2].splitlines()
    assert question == "Is this the right loss for these data?"
    assert remark.startswith("binary_cross_entropy_with_logits: input looks like probabilities")
    assert cli.main([*words, "--json"]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert [len(report["remarks"]) for report in reports] == [1, 0]


def test_losses_do_not_warn(recwarn):
    fl.cross_entropy(PROBABILITIES, CLASS)
    fl.evaluate(fl.CrossEntropyLoss(), PROBABILITIES, CLASS)
    assert not recwarn.list


def test_logits_for_probabilities_are_an_error_with_a_remedy():
    message = "must be between 0 and 1; for logits, use binary_cross_entropy_with_logits"
    with pytest.raises(ValueError, match=message):
        fl.binary_cross_entropy(LOGIT, LABEL)
