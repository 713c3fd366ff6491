"""Checksums of data and losses, by which a resumed evaluation shows that they are the same.

A checksum of rows does not depend on how the rows are cut into chunks.
"""

import zlib
from typing import Any

import numpy as np

from fastloss._arrays import as_array

_COPY_BYTES = 1 << 20  # copied at once from an array that is not contiguous


def update_crc(crc: int, array: np.ndarray) -> int:
    """The CRC-32 of some rows, continued from the checksum of the rows before them."""
    if array.dtype.kind in "OT":  # strings
        text = "".join(f"{len(label)}:{label}" for label in map(str, array.ravel().tolist()))
        return zlib.crc32(text.encode("utf-8", "surrogatepass"), crc)
    if not array.size:
        return crc
    if not array.flags.c_contiguous:
        row_bytes = array.dtype.itemsize * max(array.size // len(array), 1)
        step = max(_COPY_BYTES // row_bytes, 1)
        for start in range(0, len(array), step):
            crc = update_crc(crc, np.ascontiguousarray(array[start : start + step]))
        return crc
    return zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)


def describe(value: Any, name: str) -> tuple[str, np.ndarray]:
    """The dtype and shape of an array-like as text, and the array.

    Python scalars have no dtype of their own, and differ from 0-d arrays.
    """
    array = as_array(value, name)
    dtype = type(value).__name__ if isinstance(value, (bool, int, float)) else array.dtype.str
    if array.dtype.kind == "V":  # bfloat16
        dtype = array.dtype.name
    return f"{dtype}{list(array.shape)}", array
