"""The command line: output, errors and exit status."""

import contextlib
import importlib.metadata
import io
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl
from fastloss import cli
from fastloss.cli import evaluate as command
from fastloss.cli import info, parsing

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
        """Run a command that must succeed, and return its output."""
        status = cli.main([str(word) for word in argv])
        captured = capsys.readouterr()
        assert (status, captured.err) == (0, "")
        return captured.out

    return call


@pytest.fixture
def fail(capsys):
    def call(*argv):
        """Run a command that must fail with one line on stderr and status 2; return the line."""
        status = cli.main([str(word) for word in argv])
        captured = capsys.readouterr()
        assert (status, captured.out) == (2, "")
        assert re.fullmatch(r"fastloss: error: [^\n]+\n", captured.err)
        return captured.err

    return call


def start(*argv, **options):
    """Start `python -m fastloss`, with SIGINT enabled even if the tests ignore it."""
    return subprocess.Popen(
        [sys.executable, "-m", "fastloss", *map(str, argv)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


# ------------------------------------------------------------------------------------- evaluate


def test_text_report(run):
    lines = dict(
        line.split(maxsplit=1) for line in run("evaluate", "cross_entropy", *DIGITS).splitlines()
    )
    expected = fl.cross_entropy(*map(np.load, DIGITS))
    assert list(lines) == [
        "loss", "reduction", "value", "stderr", "losses", "rows", "time", "throughput", "threads",
        "instructions",
    ]  # fmt: skip
    assert lines["loss"] == "cross_entropy"
    assert lines["reduction"] == "mean"
    assert float(lines["value"]) == expected == pytest.approx(0.07952, abs=1e-5)
    stderr = fl.evaluate(fl.cross_entropy, *map(np.load, DIGITS)).stderr
    assert float(lines["stderr"]) == pytest.approx(stderr, rel=1e-2)
    assert lines["rows"] == lines["losses"] == "1,797"
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
    assert set(report) >= {"loss", "reduction", "value", "stderr", "seconds", "isa"}


@pytest.mark.parametrize(("number", "word"), [(np.nan, "NaN"), (np.inf, "Infinity")])
def test_json_has_strings_for_nan_and_infinity(number, word, run, tmp_path):
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


def test_options_are_accepted_in_any_order(run):
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


def test_flags_can_be_negated(run):
    words = ["evaluate", "gaussian_nll_loss", *DIABETES, "--json"]
    assert json.loads(run(*words, "--full"))["value"] > json.loads(run(*words))["value"]
    assert json.loads(run(*words, "--no-full"))["value"] == json.loads(run(*words))["value"]


# ---------------------------------------------------------------------------------- file formats


@pytest.fixture
def digits_by_format(tmp_path):
    """The digits in a file of each format: the arguments for logits and labels."""
    h5py = pytest.importorskip("h5py")
    zarr = pytest.importorskip("zarr", minversion="3.0.8")
    pa = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    arrays = dict(zip(("logits", "labels"), map(np.load, DIGITS), strict=True))
    np.savez(tmp_path / "d.npz", **arrays)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, chunks=(100, *array.shape[1:]))
    group = zarr.open_group(str(tmp_path / "d.zarr"), mode="w")
    for name, array in arrays.items():
        chunks = (100, *array.shape[1:])  # releases up to 3.0.8 do not accept data= here
        group.create_array(name, shape=array.shape, dtype=array.dtype, chunks=chunks)[...] = array
    logits = pa.FixedSizeListArray.from_arrays(pa.array(arrays["logits"].ravel()), 10)
    table = pa.table({"logits": logits, "labels": pa.array(arrays["labels"])})
    parquet.write_table(table, tmp_path / "d.parquet")
    feather.write_feather(table, tmp_path / "d.arrow", compression="uncompressed")
    return {
        extension: [f"{tmp_path}/d.{extension}:{name}" for name in arrays]
        for extension in ("npz", "h5", "zarr", "parquet", "arrow")
    }


def test_file_formats(digits_by_format, run, fail):
    expected = fl.cross_entropy(*map(np.load, DIGITS))
    for files in digits_by_format.values():
        report = json.loads(run("evaluate", "cross_entropy", *files, "--json"))
        assert report["value"] == expected
    file = digits_by_format["parquet"][0].rpartition(":")[0]
    message = fail("evaluate", "cross_entropy", f"{file}:logit", DIGITS[1])
    assert "no array 'logit', it has logits, labels" in message


# ------------------------------------------------------------------------------- several losses


def test_several_losses_in_one_pass(run):
    x, y = map(np.load, DIABETES[:2])
    words = ["evaluate", "mse_loss,huber_loss,l1_loss", *DIABETES[:2], "--delta", "50"]
    reports = json.loads(run(*words, "--json"))
    assert [report["loss"] for report in reports] == ["mse_loss", "huber_loss", "l1_loss"]
    expected = [fl.mse_loss(x, y), fl.huber_loss(x, y, delta=50.0), fl.l1_loss(x, y)]
    assert [report["value"] for report in reports] == expected
    assert all(report["reduction"] == "mean" for report in reports)

    figures, losses = run(*words).split("\n\n")
    assert [line.split()[0] for line in figures.splitlines()] == [
        "reduction", "rows", "time", "throughput", "threads", "instructions",
    ]  # fmt: skip
    head, *rows = [line.split() for line in losses.splitlines()]
    assert head == ["loss", "value", "stderr", "losses"]
    assert [(row[0], float(row[1])) for row in rows] == list(
        zip(["mse_loss", "huber_loss", "l1_loss"], expected, strict=True)
    )


def test_columns_of_tables_are_aligned(run):
    lines = run("evaluate", "l1_loss,binary_cross_entropy_with_logits", *CANCER).splitlines()[-3:]
    start = lines[0].index("value")
    assert all(line[start - 2 : start] == "  " and line[start] != " " for line in lines)


def test_an_option_applies_to_every_loss_that_has_it(run):
    x, y = map(np.load, DIGITS)
    words = ["evaluate", "cross_entropy,multi_margin_loss,nll_loss", *DIGITS, "--json"]
    reports = json.loads(run(*words, "--ignore-index", "3", "--p", "2", "--reduction", "sum"))
    assert [report["value"] for report in reports] == [
        fl.cross_entropy(x, y, ignore_index=3, reduction="sum"),
        fl.multi_margin_loss(x, y, p=2, reduction="sum"),
        fl.nll_loss(x, y, ignore_index=3, reduction="sum"),
    ]


def test_per_sample_files_are_named_after_their_losses(run, tmp_path):
    words = ["evaluate", "mse_loss,l1_loss", *DIABETES[:2], "--per-sample", tmp_path / "o.npy"]
    reports = json.loads(run(*words, "--json"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.l1_loss.npy", "o.mse_loss.npy"]
    for report in reports:
        assert report["per_sample"] == str(tmp_path / f"o.{report['loss']}.npy")
        losses = getattr(fl, report["loss"])(*map(np.load, DIABETES[:2]), reduction="none")
        assert np.array_equal(np.load(report["per_sample"]), losses)
    last = run(*words).splitlines()[-1].split()
    assert (last[0], last[-1]) == ("l1_loss", str(tmp_path / "o.l1_loss.npy"))


# ------------------------------------------------------------------- by class, group; perplexity


def test_by_class(run):
    x, y = map(np.load, DIGITS)
    words = ["evaluate", "cross_entropy", *DIGITS, "--by", "class"]
    groups = json.loads(run(*words, "--json"))["groups"]
    expected = fl.evaluate(fl.cross_entropy, x, y, by="class").groups
    assert [group.pop("label") for group in groups] == list(range(10)) == list(expected)
    assert groups == [vars(totals) for totals in expected.values()]
    figures, table = run(*words).split("\n\n")
    assert figures.startswith("loss ")
    head, *rows = [line.split() for line in table.splitlines()]
    assert head == ["class", "value", "stderr", "losses"]
    for label, row in enumerate(rows):
        rows_of_class = y == label
        assert [int(row[0]), int(row[3])] == [label, rows_of_class.sum()]
        value = fl.cross_entropy(x[rows_of_class], y[rows_of_class])
        assert float(row[1]) == pytest.approx(value, rel=1e-12)


def test_by_a_file_of_labels(run, tmp_path):
    x, y = map(np.load, DIABETES[:2])
    labels = np.arange(len(x)) % 3 - 1
    np.save(tmp_path / "labels.npy", labels)
    words = ["evaluate", "mse_loss,l1_loss", *DIABETES[:2], "--by", tmp_path / "labels.npy"]
    for report in json.loads(run(*words, "--json")):
        assert [group["label"] for group in report["groups"]] == [-1, 0, 1]
        for group in report["groups"]:
            rows_of_group = labels == group["label"]
            value = getattr(fl, report["loss"])(x[rows_of_group], y[rows_of_group])
            assert group["value"] == pytest.approx(value, rel=1e-12)
    head, *rows = [line.split() for line in run(*words).split("\n\n")[-1].splitlines()]
    assert head == ["loss", "group", "value", "stderr", "losses"]
    assert [row[:2] for row in rows] == [
        [loss, label] for loss in ("mse_loss", "l1_loss") for label in ("-1", "0", "1")
    ]


@pytest.mark.parametrize("loss", command.PERPLEXITY_LOSSES)
def test_perplexity(loss, run):
    words = ["evaluate", loss, *DIGITS, "--perplexity", "--by", "class"]
    report = json.loads(run(*words, "--json"))
    x, y = map(np.load, DIGITS)
    assert report["perplexity"] == pytest.approx(np.exp(getattr(fl, loss)(x, y)), rel=1e-14)
    for group in report["groups"]:
        assert group["perplexity"] == pytest.approx(np.exp(group["value"]), rel=1e-14)
    figures, table = run(*words).split("\n\n")
    assert f"perplexity    {report['perplexity']!r}\n" in figures
    assert table.split()[:5] == ["class", "value", "stderr", "perplexity", "losses"]
    assert "perplexity" not in run("evaluate", loss, *DIGITS)


def test_perplexity_overflows_to_infinity(run, tmp_path):
    np.save(tmp_path / "x.npy", np.array([[0.0, 1000.0]]))
    np.save(tmp_path / "y.npy", np.array([0]))
    words = ["evaluate", "cross_entropy", tmp_path / "x.npy", tmp_path / "y.npy", "--perplexity"]
    assert json.loads(run(*words, "--json"))["perplexity"] == "Infinity"


# ------------------------------------------------------------------------------------ checkpoint


def test_state_resumes_after_an_interrupt(run, capsys, monkeypatch, tmp_path):
    state, out = tmp_path / "state.json", tmp_path / "out.npy"
    words = ["evaluate", "cross_entropy", *DIGITS, "--chunk-rows", "1", "--json"]
    words += ["--state", state, "--per-sample", out]
    bytes_done = []

    def interrupt(count, total):
        bytes_done.append(count)
        if len(bytes_done) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "_progress_bar", lambda: contextlib.nullcontext(interrupt))
    assert cli.main([str(word) for word in words]) == cli.INTERRUPTED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"fastloss: interrupted: the same command resumes from {state}\n"
    assert 0 < bytes_done[0] < 1797 * (40 + 8)
    assert json.loads(state.read_text())["bytes"] == bytes_done[0]
    assert not out.exists()

    report = json.loads(run(*words))
    assert report["value"] == fl.cross_entropy(*map(np.load, DIGITS))
    assert bytes_done[1] > bytes_done[0]
    assert report["rows"] == 1797
    assert [path.name for path in tmp_path.iterdir()] == ["out.npy"]
    losses = fl.cross_entropy(*map(np.load, DIGITS), reduction="none")
    assert np.array_equal(np.load(out), losses)


def test_state_of_another_evaluation_is_an_error(fail, tmp_path):
    state = tmp_path / "state.json"

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fl.evaluate(fl.l1_loss, *DIABETES[:2], state=state, progress=interrupt)
    before = state.read_text()
    message = fail("evaluate", "mse_loss", *DIABETES[:2], "--state", state)
    assert "is the state of another evaluation: criteria was " in message
    assert state.read_text() == before


# ------------------------------------------------------------------------------------------- plot


@pytest.fixture
def plots(monkeypatch):
    """Replace fastloss.plotting, and record the losses and options of its calls."""
    calls = []

    class Figure:
        canvas = types.SimpleNamespace(get_supported_filetypes=lambda: {"png": "", "svg": ""})

        def savefig(self, path, format):
            Path(path).write_text(format)

    def plot(loss, **options):
        calls.append((loss, options))
        return Figure()

    monkeypatch.setitem(sys.modules, "fastloss.plotting", types.SimpleNamespace(plot=plot))
    return calls


def test_plot(plots, run, tmp_path):
    weight = np.array([1.0, 2.0, 3.0])
    np.save(tmp_path / "w.npy", weight)
    assert run("plot", "huber_loss", "-o", tmp_path / "a.png", "--delta", "2") == ""
    assert run("plot", "--output", tmp_path / "b.SVG", "gaussian_nll_loss", "--full") == ""
    run("plot", "cross_entropy", "--weight", tmp_path / "w.npy", "-o", tmp_path / "c.svg")
    assert plots[:2] == [(fl.huber_loss, {"delta": 2.0}), (fl.gaussian_nll_loss, {"full": True})]
    assert plots[2][0] is fl.cross_entropy
    assert np.array_equal(plots[2][1]["weight"], weight)
    written = [(tmp_path / name).read_text() for name in ("a.png", "b.SVG", "c.svg")]
    assert written == ["png", "svg", "svg"]


@pytest.mark.parametrize("name", ["x.xyz", "x", ".png", "x."])
def test_plot_with_an_unknown_extension_is_an_error(name, plots, fail, tmp_path):
    message = fail("plot", "mse_loss", "-o", tmp_path / name)
    assert f"{name} must have an extension that matplotlib supports: .png, .svg" in message
    assert list(tmp_path.iterdir()) == []


def test_plot_without_matplotlib(plots, fail, monkeypatch, tmp_path):
    def plot(loss, **options):
        raise ImportError("plots need matplotlib: pip install 'fastloss[plot]'")

    monkeypatch.setattr(sys.modules["fastloss.plotting"], "plot", plot)
    message = fail("plot", "mse_loss", "-o", tmp_path / "x.png")
    assert message.endswith("pip install 'fastloss[plot]'\n")


def test_help_of_plot_lists_the_options(capsys):
    with pytest.raises(SystemExit):
        cli.main(["plot", "cross_entropy", "--help"])
    text = capsys.readouterr().out
    for option in ("--output", "--weight", "--ignore-index", "--label-smoothing"):
        assert option in text
    assert "--sample-weight" not in text


# ------------------------------------------------------------------------------------------- info


def test_info(run):
    report = json.loads(run("info", "--json"))
    packages = report.pop("packages")
    assert fl.show_config("dicts").items() <= report.items()
    assert report["python"] == platform.python_version()
    assert report["numpy"] == np.__version__
    assert packages
    for name, version in packages.items():
        assert version == importlib.metadata.version(name)
    lines = run("info").splitlines()
    assert len(lines) == len(report) + len(packages)
    assert f"{'numpy':<27} {np.__version__}" in lines


def test_info_skips_missing_packages_and_imports_none(run, monkeypatch):
    monkeypatch.setattr(info, "PACKAGES", ("no-such-package", "numpy"))
    assert json.loads(run("info", "--json"))["packages"] == {"numpy": np.__version__}
    program = (
        "import sys; from fastloss.cli import main; main(['info']); "
        "print(sorted({'h5py', 'zarr', 'pyarrow', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    out = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert out.splitlines()[-1] == "[]"


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


@pytest.mark.parametrize("argv", [[], *([name] for name in cli.COMMANDS)], ids=" ".join)
def test_help(argv, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main([*argv, "--help"])
    assert exit.value.code == 0
    assert "usage: fastloss" in capsys.readouterr().out


def test_every_array_and_option_has_a_help_text():
    for name in LOSSES:
        loss = getattr(fl, name)
        texts = parsing.parameter_texts(loss)
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
        (["evaluate", "cross_entropy", *DIGITS, "--by", "no.npy"], "no.npy: No such file"),
        (["evaluate", "mse_loss", *DIABETES[:2], "--by", "class"], "are not classes"),
        (["evaluate", "mse_loss", *DIABETES[:2], "--state", "/no/such/s"], "/no/such/"),
        (["evaluate", "mse_loss", *DIABETES[:2], "--perplexity"], "nll_loss, not mse_loss"),
        (["evaluate", "cross_entropy,mse_loss", *DIGITS, "--perplexity"], "not mse_loss"),
        (["evaluate", "nll_loss", *DIGITS, "--perplexity", "--reduction", "sum"], "is sum"),
        (["evaluate", "mse_loss,l2_loss", *DIABETES[:2]], "'l2_loss': did you mean l1_loss?"),
        (["evaluate", "-1"], "unknown loss '-1'"),
        (["evaluate", "mse_loss,l1_loss,mse_loss", *DIABETES[:2]], "mse_loss is named twice"),
        (["evaluate", "mse_loss,gaussian_nll_loss", *DIABETES], "reads input, target, var"),
        (["evaluate", "margin_ranking_loss,gaussian_nll_loss", *DIABETES], "one by one"),
        (["evaluate", "mse_loss,huber_loss", *DIABETES[:2], "--detla", "1"], "mean --delta?"),
        (["evaluate", "mse_loss,huber_loss", *DIABETES[:2], "--detla=1"], "mean --delta?"),
        (["evaluate", "mse_loss,kl_div", *DIABETES[:2], "--reduction", "batchmean"], "batchmean"),
        (["show", "mse_los"], "did you mean mse_loss?"),
        (["plot"], "LOSS"),
        (["plot", "mse_loss"], "-o/--output"),
        (["plot", "mse_los", "-o", "x.png"], "did you mean mse_loss?"),
        (["plot", "huber_loss", "-o", "x.png", "--detla", "1"], "did you mean --delta?"),
        (["plot", "cross_entropy", "-o", "x.png", "--weight", "no.npy"], "no.npy: No such file"),
        (["info", "all"], "unrecognized arguments: all"),
        (["list", "all"], "unrecognized arguments: all"),
    ],
)  # fmt: skip
def test_errors_have_one_line_and_status_2(argv, message, fail):
    assert message in fail(*argv)


def test_error_names_the_row_of_the_file(fail, tmp_path):
    labels = np.load(DIGITS[1])
    labels[1234] = 12
    np.save(tmp_path / "labels.npy", labels)
    words = ["evaluate", "cross_entropy", DIGITS[0], tmp_path / "labels.npy", "--chunk-rows", "1"]
    assert "target[1234] = 12 is not a class" in fail(*words)


# -------------------------------------------------------------------------------------- processes


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


def test_broken_pipe():
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
    """The pipe stays open, so that only the interrupt can end the run."""
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


@pytest.mark.skipif(os.name != "posix", reason="names of files cannot contain these characters")
def test_names_with_control_characters(tmp_path, run, fail):
    """A name cannot write to the terminal, or break a line of the report."""
    out = tmp_path / "a\x1b[31m\nvalue 7\x9b.npy"
    shown = run("evaluate", "cross_entropy", *DIGITS, "--per-sample", out)
    assert out.exists()
    assert r"a\x1b[31m\nvalue 7\x9b.npy" in shown
    assert shown.replace("\n", "").isprintable()
    message = fail("evaluate", "cross_entropy", tmp_path / "no\x1b[31m.npy", DIGITS[1])
    assert r"no\x1b[31m.npy: No such file" in message


def test_without_stdout(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as in Python if the caller has closed it
    assert cli.main(["list"]) == 0


def run_with_closed(descriptors, *argv):
    """Runs a command in a shell that closes some of the standard streams."""
    closed = " ".join(f"{descriptor}>&-" for descriptor in descriptors)
    words = [sys.executable, "-m", "fastloss", *map(str, argv)]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *words], capture_output=True, text=True
    )


@pytest.mark.skipif(os.name != "posix", reason="no shell")
@pytest.mark.parametrize("closed", [[2], [0, 2], [0, 1, 2]], ids=str)
@pytest.mark.rotate("closed")
def test_closed_streams(closed, tmp_path):
    """The report and the status are those with open streams, and no file gets their numbers."""
    out = tmp_path / "out.npy"
    words = ["cross_entropy", *DIGITS, "--per-sample", out, "--state", tmp_path / "state.json"]
    process = run_with_closed(closed, "evaluate", *words, "--json")
    assert (process.returncode, process.stderr) == (0, "")
    expected = fl.cross_entropy(*map(np.load, DIGITS), reduction="none")
    np.testing.assert_array_equal(np.load(out), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["out.npy"]
    if 1 not in closed:
        assert json.loads(process.stdout)["value"] == fl.cross_entropy(*map(np.load, DIGITS))
    process = run_with_closed(closed, "evaluate", "cross_entropy", "missing.npy", DIGITS[1])
    assert (process.returncode, process.stdout, process.stderr) == (2, "", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
def test_streams_that_cannot_be_written_to():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "fastloss"]
        failed = subprocess.run([*command, "list", "x"], stdout=subprocess.PIPE, stderr=full)
        assert (failed.returncode, failed.stdout) == (2, b"")
        failed = subprocess.run([*command, "list"], stdout=full, stderr=subprocess.PIPE)
        assert failed.returncode == 2
        assert failed.stderr.startswith(b"fastloss: error: ")
        assert failed.stderr.count(b"\n") == 1


@pytest.mark.parametrize("stream", [None, "closed"])
def test_without_stderr(stream, monkeypatch, capsys):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", None if stream is None else closed)
    assert cli.main(["evaluate", "cross_entropy", *DIGITS]) == 0
    assert "0.0795" in capsys.readouterr().out
    assert cli.main(["evaluate", "cross_entropy", "missing.npy", DIGITS[1]]) == 2
    assert capsys.readouterr().out == ""


def test_no_progress_bar_without_a_terminal(monkeypatch):
    with command._progress_bar() as progress:
        assert progress is False


def test_progress_bar_on_a_terminal(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with command._progress_bar() as progress:
        progress(50, 200)
        progress(200, 200)
        assert progress._bar.n == 200
