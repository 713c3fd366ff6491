"""The command line: what it prints, where, and with which status."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl
from fastloss import cli

EXAMPLES = Path(__file__).parent.parent / "examples"
LOSSES = [n for n in fl.losses.__all__ if isinstance(getattr(fl, n), fl._binding.Loss)]
DIGITS = [str(EXAMPLES / "digits" / name) for name in ("logits.npy", "labels.npy")]
DIABETES = [
    str(EXAMPLES / "diabetes" / name) for name in ("prediction.npy", "target.npy", "variance.npy")
]
CANCER = [str(EXAMPLES / "breast_cancer" / name) for name in ("logits.npy", "labels.npy")]


@pytest.fixture
def run(capsys):
    def call(*argv):
        """Runs a command that must succeed, and gives what it prints."""
        status = cli.main([str(word) for word in argv])
        printed = capsys.readouterr()
        assert (status, printed.err) == (0, "")
        return printed.out

    return call


@pytest.fixture
def fail(capsys):
    def call(*argv):
        """Runs a command that must fail as every wrong one does, and gives the message."""
        status = cli.main([str(word) for word in argv])
        printed = capsys.readouterr()
        assert (status, printed.out) == (2, "")
        assert re.fullmatch(r"fastloss: error: [^\n]+\n", printed.err)
        return printed.err

    return call


def start(*argv, **options):
    """Starts `python -m fastloss`, interruptible even where the tests are not."""
    return subprocess.Popen(
        [sys.executable, "-m", "fastloss", *map(str, argv)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


# ------------------------------------------------------------------------------------- evaluate


def test_digits(run):
    lines = dict(
        line.split(maxsplit=1) for line in run("evaluate", "cross_entropy", *DIGITS).splitlines()
    )
    expected = fl.cross_entropy(*map(np.load, DIGITS))
    assert list(lines) == [
        "loss", "reduction", "value", "rows", "time", "throughput", "threads", "instructions",
    ]  # fmt: skip
    assert lines["loss"] == "cross_entropy"
    assert lines["reduction"] == "mean"
    assert float(lines["value"]) == expected == pytest.approx(0.07952, abs=1e-5)
    assert lines["rows"] == "1,797"
    assert lines["threads"] == str(fl.get_num_threads())
    assert lines["instructions"] == fl._binding.isa()


@pytest.mark.parametrize(
    ("loss", "files", "options", "expected"),
    [
        ("mse_loss", DIABETES[:2], {}, 2897.577122),
        ("huber_loss", DIABETES[:2], {"delta": 50.0}, None),
        ("gaussian_nll_loss", DIABETES, {}, 4.467796),
        ("gaussian_nll_loss", DIABETES, {"full": True}, 4.467796 + 0.918938),
        ("binary_cross_entropy_with_logits", CANCER, {}, 0.063844),
        ("cross_entropy", DIGITS, {"label_smoothing": 0.1}, 0.995507),
        ("cross_entropy", DIGITS, {"ignore_index": 3}, None),
        ("mse_loss", DIABETES[:2], {"reduction": "sum"}, None),
    ],
)
def test_examples_and_options(loss, files, options, expected, run):
    words = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        words += [flag] if value is True else [flag, value]
    value = json.loads(run("evaluate", loss, *files, "--json", *words))["value"]
    assert value == getattr(fl, loss)(*map(np.load, files), **options)
    if expected is not None:
        assert value == pytest.approx(expected, rel=1e-5)


def test_json_is_one_object(run):
    report = json.loads(run("evaluate", "cross_entropy", *DIGITS, "--json", "--threads", "1"))
    sums = fl.cross_entropy.sums(*map(np.load, DIGITS))
    assert (report["sum"], report["weight"], report["count"]) == tuple(sums)
    assert report["rows"] == 1797
    assert report["bytes"] == 1797 * (40 + 8)
    assert report["threads"] == 1
    assert set(report) >= {"loss", "reduction", "value", "seconds", "isa"}


@pytest.mark.parametrize(("number", "word"), [(np.nan, "NaN"), (np.inf, "Infinity")])
def test_json_names_numbers_that_it_lacks(number, word, run, tmp_path):
    np.save(tmp_path / "x.npy", np.array([1.0, number]))
    np.save(tmp_path / "y.npy", np.zeros(2))
    text = run("evaluate", "mse_loss", tmp_path / "x.npy", tmp_path / "y.npy", "--json")
    report = json.loads(text, parse_constant=lambda constant: pytest.fail(constant))
    assert report["value"] == report["sum"] == word


def test_weights_and_per_sample(run, tmp_path):
    x, y = map(np.load, DIGITS)
    weight = np.linspace(0, 1, 10, dtype=np.float32)
    np.save(tmp_path / "w.npy", weight)
    np.savez(tmp_path / "s.npz", rows=np.arange(1797.0), other=np.zeros(3))
    words = ["--weight", tmp_path / "w.npy", "--sample-weight", f"{tmp_path}/s.npz:rows"]
    words += ["--per-sample", tmp_path / "out.npy", "--chunk-rows", "100"]
    report = json.loads(run("evaluate", "cross_entropy", *DIGITS, *words, "--json"))
    options = {"weight": weight, "sample_weight": np.arange(1797.0)}
    assert report["value"] == fl.cross_entropy(x, y, **options)
    assert report["per_sample"] == str(tmp_path / "out.npy")
    assert np.array_equal(
        np.load(tmp_path / "out.npy"), fl.cross_entropy(x, y, **options, reduction="none")
    )
    assert "per sample" in run("evaluate", "cross_entropy", *DIGITS, *words)


def test_options_may_stand_anywhere(run):
    expected = run("evaluate", "huber_loss", *DIABETES[:2], "--delta", "2", "--json")
    value = json.loads(expected)["value"]
    for words in (
        ["--json", "huber_loss", "--delta", "2", *DIABETES[:2]],
        ["huber_loss", "--delta=2", DIABETES[0], "--json", DIABETES[1]],
    ):
        assert json.loads(run("evaluate", *words))["value"] == value


@pytest.mark.parametrize("text", ["-1", "-1e-3", "-.5"])
def test_negative_numbers_are_values(text, run, tmp_path):
    paths = [tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "t.npy"]
    arrays = [np.array([1.0, 2.0]), np.array([2.0, 1.0]), np.array([1.0, -1.0])]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    report = json.loads(run("evaluate", "margin_ranking_loss", *paths, "--margin", text, "--json"))
    assert report["value"] == fl.margin_ranking_loss(*arrays, margin=float(text))


def test_switches_can_be_turned_off(run):
    words = ["evaluate", "gaussian_nll_loss", *DIABETES, "--json"]
    assert json.loads(run(*words, "--full"))["value"] > json.loads(run(*words))["value"]
    assert json.loads(run(*words, "--no-full"))["value"] == json.loads(run(*words))["value"]


# -------------------------------------------------------------------------------- list and show


def test_list_has_a_line_for_every_loss(run):
    lines = run("list").splitlines()
    assert [line.split()[0] for line in lines] == LOSSES
    assert all(len(line.split()) > 2 for line in lines)


@pytest.mark.parametrize("name", LOSSES)
def test_show_and_help_of_every_loss(name, run, capsys):
    loss = getattr(fl, name)
    text = run("show", name)
    assert text.startswith(f"{name}(")
    assert "Parameters" in text
    with pytest.raises(SystemExit) as exit:
        cli.main(["evaluate", name, "--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    for parameter in loss.__signature__.parameters:
        if parameter in loss.operands:
            assert parameter.upper() in text
        elif parameter != "out":
            assert "--" + parameter.replace("_", "-") in text


@pytest.mark.parametrize("argv", [[], ["evaluate"], ["list"], ["show"]], ids=" ".join)
def test_help(argv, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main([*argv, "--help"])
    assert exit.value.code == 0
    assert "usage: fastloss" in capsys.readouterr().out


def test_the_help_of_every_array_and_option_comes_from_the_docstring():
    for name in LOSSES:
        loss = getattr(fl, name)
        texts = cli._parameter_texts(loss)
        missing = [p for p in loss.__signature__.parameters if p != "out" and not texts.get(p)]
        assert not missing, name


# --------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "COMMAND"),
        (["evalate"], "unknown command 'evalate': did you mean evaluate?"),
        (["evaluate"], "LOSS"),
        (["evaluate", "--json"], "LOSS"),
        (["evaluate", "cross_entrpy", *DIGITS], "did you mean cross_entropy?"),
        (["evaluate", "zzz", *DIGITS], "fastloss list"),
        (["evaluate", "cross_entropy"], "INPUT, TARGET"),
        (["evaluate", "cross_entropy", DIGITS[0]], "TARGET"),
        (["evaluate", "cross_entropy", *DIGITS, DIGITS[0]], "unknown argument"),
        (["evaluate", "cross_entropy", *DIGITS, "--label-smothing", "0"], "--label-smoothing?"),
        (["evaluate", "cross_entropy", *DIGITS, "--label-smoothing", "x"], "'x' is not a number"),
        (["evaluate", "cross_entropy", *DIGITS, "--label-smoothing", "2"], "label_smoothing"),
        (["evaluate", "cross_entropy", *DIGITS, "--label-smoothing"], "expected one argument"),
        (["evaluate", "cross_entropy", *DIGITS, "--ignore-index", "1.5"], "not an integer"),
        (["evaluate", "cross_entropy", *DIGITS, "--reduction", "none"], "'none'"),
        (["evaluate", "cross_entropy", *DIGITS, "--reduction", "batchmean"], "'batchmean'"),
        (["evaluate", "cross_entropy", *DIGITS, "--threads", "0"], "threads"),
        (["evaluate", "cross_entropy", *DIGITS, "--chunk-rows", "0"], "chunk_rows"),
        (["evaluate", "cross_entropy", "no/such.npy", DIGITS[1]], "no/such.npy: No such file"),
        (["evaluate", "cross_entropy", str(EXAMPLES), DIGITS[1]], "directory"),
        (["evaluate", "cross_entropy", __file__, DIGITS[1]], "not a .npy or .npz"),
        (["evaluate", "cross_entropy", DIGITS[1], DIGITS[0]], "labels.npy int64[1797]"),
        (["evaluate", "cross_entropy", DIGITS[0], DIABETES[0]], "leading dimensions differ"),
        (["evaluate", "cross_entropy", *DIGITS, "--weight", "no.npy"], "no.npy"),
        (["evaluate", "cross_entropy", *DIGITS, "--weight", DIABETES[0]], "weight"),
        (["evaluate", "mse_loss", *DIABETES[:2], "--per-sample", "/no/such/o.npy"], "/no/such/"),
        (["show", "mse_los"], "did you mean mse_loss?"),
        (["list", "all"], "unrecognized arguments: all"),
    ],
)  # fmt: skip
def test_one_line_and_status_2(argv, message, fail):
    assert message in fail(*argv)


def test_the_position_is_a_row_of_the_file(fail, tmp_path):
    labels = np.load(DIGITS[1])
    labels[1234] = 12
    np.save(tmp_path / "labels.npy", labels)
    words = ["evaluate", "cross_entropy", DIGITS[0], tmp_path / "labels.npy", "--chunk-rows", "1"]
    assert "target[1234] = 12 is not a class" in fail(*words)


# -------------------------------------------------------------------------------- as a process


def test_python_m_fastloss():
    process = start("evaluate", "cross_entropy", *DIGITS, "--json")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["value"] == fl.cross_entropy(*map(np.load, DIGITS))
    process = start("evaluate", "cross_entropy")
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert err.startswith("fastloss: error: ")
    assert err.count("\n") == 1


def test_a_reader_that_leaves():
    """As in `fastloss show ... | head`: no message and no traceback."""
    read, write = os.pipe()
    os.close(read)
    for argv in (["list"], ["show", "cross_entropy"], ["evaluate", "cross_entropy", *DIGITS]):
        process = subprocess.run(
            [sys.executable, "-m", "fastloss", *argv], stdout=write, stderr=subprocess.PIPE
        )
        assert (process.returncode, process.stderr) == (cli.BROKEN_PIPE, b"")
    os.close(write)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_ctrl_c_while_waiting_for_input(tmp_path):
    """The pipe never ends, so that only the interrupt can end the run."""
    pipe, labels, out = tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "out.npy"
    os.mkfifo(pipe)
    np.save(labels, np.zeros(10**6, np.int64))
    process = start(
        "evaluate", "cross_entropy", pipe, labels, "--per-sample", out, "--chunk-rows", "1"
    )
    with open(pipe, "wb", buffering=0) as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10)}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(bytes(10**6 * 4))
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size for path in tmp_path.glob(".out.npy.*")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "fastloss: interrupted\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy", "y.npy"]


def test_no_bar_without_a_terminal(monkeypatch):
    with cli._Progress() as progress:
        assert progress is False


def test_a_bar_on_a_terminal(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with cli._Progress() as progress:
        progress(50, 200)
        progress(200, 200)
        assert progress.__self__._bar.n == 200
