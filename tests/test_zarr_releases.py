"""Arrays of zarr by what its releases 2 and 3 have in common; the other tests need release 3."""

import os

import numpy as np
import pytest

import fastloss as fl

zarr = pytest.importorskip("zarr")

VERSION = "zarr_version" if zarr.__version__.startswith("2.") else "zarr_format"
DATA = np.arange(1, 36.0).reshape(7, 5)


def create(folder, array=DATA, fill_value=0):
    options = {"chunks": (3, 2)[: array.ndim], "fill_value": fill_value, VERSION: 2}
    stored = zarr.open(str(folder), mode="w", shape=array.shape, dtype=array.dtype, **options)
    stored[...] = array
    return stored


def test_values(tmp_path):
    for data in (create(tmp_path / "x.zarr"), str(tmp_path / "x.zarr")):
        result = fl.evaluate(fl.l1_loss, data, 0.0, missing_chunks="error")
        assert (result.value, result.missing_chunks) == (DATA.mean(), 0)
    assert fl.l1_loss(zarr.open(str(tmp_path / "x.zarr"), mode="r"), np.zeros((7, 5))) == 18
    labels = np.array([0, 1, 2, 1])
    create(tmp_path / "y.zarr", labels)
    expected = fl.cross_entropy(np.eye(4, 3), labels)
    assert fl.evaluate(fl.cross_entropy, np.eye(4, 3), str(tmp_path / "y.zarr")).value == expected


def test_absent_chunks(tmp_path):
    create(tmp_path / "x.zarr")
    for count, name in enumerate(["0.1", "1.0", "2.2"], start=1):
        os.remove(tmp_path / "x.zarr" / name)
        for data in (zarr.open(str(tmp_path / "x.zarr"), mode="r"), str(tmp_path / "x.zarr")):
            with pytest.warns(UserWarning, match=f"lacks {count} chunk"):
                assert fl.evaluate(fl.l1_loss, data, 0.0).missing_chunks == count
            with pytest.raises(ValueError, match=f"lacks {count} chunk"):
                fl.evaluate(fl.l1_loss, data, 0.0, missing_chunks="error")


@pytest.mark.parametrize(("fill_value", "name"), [(None, "null"), (np.nan, "NaN")])
def test_absent_chunks_without_a_fill_value(tmp_path, fill_value, name):
    create(tmp_path / "x.zarr", fill_value=fill_value)
    os.remove(tmp_path / "x.zarr/1.1")
    with pytest.raises(ValueError, match=f"lacks 1 chunk, whose fill value is {name}"):
        fl.evaluate(fl.l1_loss, str(tmp_path / "x.zarr"), 0.0)


def test_chunks_in_memory(tmp_path):
    store = {}
    stored = zarr.open(store, mode="w", shape=(6,), chunks=(2,), dtype="f8", fill_value=0)
    stored[:2] = 1
    with pytest.warns(UserWarning, match="lacks 2 chunks"):
        assert fl.evaluate(fl.l1_loss, stored, 0.0).missing_chunks == 2
