"""Recipes of the guides that doctest cannot run: the code is taken from the text of the guide."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "guides" / "distributed.md"


def recipe(title):
    """The names that the code of a section defines."""
    section = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", GUIDE.read_text("utf-8"), re.M | re.S)
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
