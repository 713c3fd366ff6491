"""One array in each kind of storage that evaluations read."""

import numpy as np
import pytest


def stored(kind, x, folder):
    """`x` in a kind of storage, and as it is read from there: Python floats are float64."""
    if kind == "memmap":
        np.save(folder / "x.npy", x)
        return np.load(folder / "x.npy", mmap_mode="r"), x
    if kind == "list":
        return x.tolist(), x.astype(np.float64)
    if kind == "hdf5":
        h5py = pytest.importorskip("h5py")
        return h5py.File(folder / "x.h5", "w").create_dataset("x", data=x, chunks=(777,)), x
    if kind == "zarr":
        return pytest.importorskip("zarr").array(x, chunks=(777,)), x
    if kind == "npz":
        np.savez(folder / "x.npz", x=x, other=x + 1)
        return f"{folder}/x.npz:x", x
    if kind == "bfloat16":
        rounded = x.astype(pytest.importorskip("ml_dtypes").bfloat16)
        return rounded, rounded
    pa = pytest.importorskip("pyarrow")
    data = pa.chunked_array([x[:5], x[5:]])
    if kind == "arrow":
        return data, x
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"x": data}), folder / "x.parquet", row_group_size=999)
    return f"{folder}/x.parquet:x", x
