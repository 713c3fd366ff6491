"""Recipes of the guides that doctest cannot run: the code is taken from the text of the guide."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl

ROOT = Path(__file__).resolve().parent.parent
GUIDES = ROOT / "docs" / "guides"


def recipe(title, guide="distributed.md"):
    """The names that the code of a section defines."""
    text = (GUIDES / guide).read_text("utf-8")
    section = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", text, re.M | re.S)
    names = {}
    exec(re.search(r"^```python\n(.*?)^```$", section[1], re.M | re.S)[1], names)
    return names


@pytest.fixture(scope="module")
def spark():
    sql = pytest.importorskip("pyspark.sql", reason="needs Spark: pip install pyspark==4.3.0")
    if shutil.which("java") is None:
        pytest.skip("needs Java 17 or later, which Spark runs on")
    session = (
        sql.SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    yield session
    session.stop()


def test_spark(spark):
    rng = np.random.default_rng(11)
    x = rng.normal(size=(5000, 4)).astype(np.float32)
    y = rng.integers(0, 4, len(x))
    rows = [(row.tolist(), int(label)) for row, label in zip(x, y, strict=True)]
    frame = spark.createDataFrame(rows, "logits array<float>, label int").repartition(5)
    criterion = fl.CrossEntropyLoss(label_smoothing=0.1)
    result = recipe("Spark")["evaluate"](criterion, frame, "logits", "label")
    assert result.criterion == criterion
    assert result.count == len(x)
    assert result.value == pytest.approx(criterion(x, y), rel=1e-13)


@pytest.mark.parametrize("rows", [[None, [1.0] * 4, [1.0] * 4, [1.0] * 4], [[1.0], [1.0] * 3]])
def test_spark_refuses_nulls_and_ragged_rows(spark, rows):
    frame = spark.createDataFrame([(row, 0) for row in rows], "logits array<float>, label int")
    with pytest.raises(Exception, match="ValueError"):
        recipe("Spark")["evaluate"](fl.CrossEntropyLoss(), frame.coalesce(1), "logits", "label")


@pytest.fixture
def shards(tmp_path):
    """Shards of unequal sizes, the second of them empty; returns all rows."""
    rng = np.random.default_rng(2)
    sizes = (100, 0, 3, 5000)
    x = rng.normal(size=(sum(sizes), 6)).astype(np.float32)
    y = rng.integers(0, 6, len(x))
    bounds = np.cumsum(sizes)[:-1]
    for shard, arrays in enumerate(zip(np.split(x, bounds), np.split(y, bounds), strict=True)):
        for name, array in zip("xy", arrays, strict=True):
            np.save(tmp_path / f"{name}-{shard}.npy", array)
    return x, y


def test_shards(shards, tmp_path):
    names, criterion = recipe("Shards, evaluated apart"), fl.CrossEntropyLoss(label_smoothing=0.1)
    for shard in (2, 0, 3, 1, 0):  # in any order; one is repeated
        names["evaluate_shard"](criterion, shard, tmp_path)
    total = names["merge_shards"](tmp_path, range(4))
    expected = fl.evaluate(criterion, *shards, by="class")
    assert total.criterion == criterion
    assert (total.count, total.rows) == (expected.count, expected.rows)
    assert total.value == pytest.approx(expected.value, rel=1e-13)
    assert total.stderr == pytest.approx(expected.stderr, rel=1e-10)
    for label, group in expected.groups.items():
        assert total.groups[label].value == pytest.approx(group.value, rel=1e-13)
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(FileNotFoundError, match="sums-4"):
        names["merge_shards"](tmp_path, range(5))
    names["evaluate_shard"](fl.CrossEntropyLoss(), 1, tmp_path)
    with pytest.raises(ValueError, match="CrossEntropyLoss"):
        names["merge_shards"](tmp_path, range(4))


def test_onnx_runtime(monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install onnxruntime==1.23.2")
    monkeypatch.chdir(ROOT)
    result = recipe("A model in ONNX Runtime", "recipes.md")["result"]
    files = (f"examples/digits/{name}.npy" for name in ("logits", "labels"))
    assert result.value == pytest.approx(fl.cross_entropy(*map(np.load, files)), rel=1e-5)
    assert result.count == 1797
    assert result.remarks == ()
    assert "0.0795" in capsys.readouterr().out
