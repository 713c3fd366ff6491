"""The body of a request: its limits, and the arrays that JSON or an .npz file contains.

A mistake raises an HTTPException, or a ValueError that names the field. Each limit is checked
before the memory or the time that it limits is spent.
"""

import asyncio
import io
import json
import struct
import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain
from typing import Any

import numpy as np
from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

JSON, NPZ = "application/json", "application/x-npz"
# Parsing JSON holds the GIL, and its lists take up to 40 times the memory of the text.
MAX_BYTES = {JSON: 4 << 20, NPZ: 64 << 20}
SMALL_BYTES = 256 << 10  # a larger body needs one of a few slots
RECEIVE_SECONDS = 60.0  # for the slot and the whole body
MAX_DIRECTORY_BYTES = 4096  # of an .npz file; the directory lists its arrays
MAX_DIMENSIONS = 8
MAX_DETAIL = 500  # characters of a message
SAMPLE_WEIGHT = "sample_weight"
KINDS = {
    int: "a number",
    float: "a number",
    list: "a list",
    tuple: "an object",
    str: "a string",
    bool: "a boolean",
    type(None): "null",
}


def refusal(status: int, reason: object) -> HTTPException:
    """The response to a request that is refused. The reason may quote any part of the request."""
    text = str(reason)
    if len(text) > MAX_DETAIL:
        text = text[:MAX_DETAIL] + " ..."
    return HTTPException(status, text.encode("utf-8", "backslashreplace").decode())


# ---- receiving -----------------------------------------------------------------------------------


def media_type(content_type: str, content_encoding: str) -> str:
    """The type of a body, `JSON` or `NPZ`."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in MAX_BYTES:
        raise refusal(415, f"Content-Type is {content_type!r}: it must be {JSON} or {NPZ}")
    if content_encoding.strip().lower() not in ("", "identity"):
        raise refusal(415, f"Content-Encoding is {content_encoding!r}: send the body without one")
    return kind


@asynccontextmanager
async def receive(request: Request, kind: str, slots: asyncio.Semaphore) -> AsyncIterator[bytes]:
    """The body. A large one occupies a slot until the context ends."""
    async with AsyncExitStack() as stack:
        body = _Body(request, MAX_BYTES[kind], slots, stack)
        try:
            await asyncio.wait_for(body.read(), RECEIVE_SECONDS)
        except asyncio.TimeoutError:
            if body.awaits_slot:
                raise refusal(503, "busy with other large requests: send it again") from None
            raise refusal(408, f"the body took more than {RECEIVE_SECONDS:g} s") from None
        except ClientDisconnect:
            raise refusal(400, "the connection ended before the body") from None
        yield bytes(body.received)


class _Body:
    """A body that arrives."""

    def __init__(
        self, request: Request, limit: int, slots: asyncio.Semaphore, stack: AsyncExitStack
    ):
        self._request, self._limit, self._slots, self._stack = request, limit, slots, stack
        self.received = bytearray()
        self.awaits_slot = False

    async def read(self) -> None:
        declared = self._request.headers.get("content-length", "")
        if declared.isdecimal() and len(declared) < 20:
            self._check_size(int(declared))
        has_slot = False
        async for chunk in self._request.stream():
            self._check_size(len(self.received) + len(chunk))
            self.received += chunk
            if len(self.received) > SMALL_BYTES and not has_slot:
                self.awaits_slot = True  # the server stops reading from the connection
                await self._stack.enter_async_context(self._slots)
                self.awaits_slot, has_slot = False, True

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise refusal(413, f"a body of this type has at most {self._limit} bytes: split it")


# ---- reading -------------------------------------------------------------------------------------


def read_arrays(body: bytes, kind: str, operands: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of a body: those of `operands`, and perhaps `sample_weight`."""
    arrays = (_from_npz if kind == NPZ else _from_json)(body, operands)
    for name in operands:
        if name not in arrays:
            raise ValueError(f"{name} is missing: {_needs(operands)}")
    return arrays


def _needs(operands: Sequence[str]) -> str:
    return f"this model needs {', '.join(map(repr, operands))}, and may have {SAMPLE_WEIGHT!r}"


def _check_names(names: Sequence[str], operands: Sequence[str]) -> None:
    for name in names:
        if name not in (*operands, SAMPLE_WEIGHT):
            raise ValueError(f"there is an array {name!r}: {_needs(operands)}")
        if names.count(name) > 1:
            raise ValueError(f"{name} appears twice")


# ---- JSON


def _from_json(body: bytes, operands: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        text = body.decode("utf-8-sig")
        # A tuple of pairs in place of a dict preserves names that appear twice.
        pairs = json.loads(text, object_pairs_hook=tuple, parse_int=_parse_integer)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from error
    if not isinstance(pairs, tuple):
        raise ValueError('the body must be an object of arrays, {"input": ..., "target": ...}')
    _check_names([name for name, _ in pairs], operands)
    return {name: _array_of_lists(name, value) for name, value in pairs}


def _parse_integer(text: str) -> int | float:
    """An integer that fits into an int64, or a float, which may be infinite."""
    return int(text) if len(text) <= 18 else float(text)


def _array_of_lists(name: str, value: Any) -> np.ndarray:
    """An array of nested lists of numbers; NumPy would also accept strings, booleans and null."""
    shape: list[int] = []
    entries = [value]
    while entries and set(map(type, entries)) == {list}:
        lengths = list(map(len, entries))
        shape.append(lengths[0])
        if len(shape) > MAX_DIMENSIONS:
            raise ValueError(f"{name} has more than {MAX_DIMENSIONS} dimensions")
        for k, length in enumerate(lengths):
            if length != lengths[0]:
                first, other = _entry(name, shape[:-1], 0), _entry(name, shape[:-1], k)
                raise ValueError(f"{other} has {length} entries, but {first} has {lengths[0]}")
        entries = list(chain.from_iterable(entries))
    types = set(map(type, entries))
    if not types <= {int, float}:
        allowed = (list,) if type(entries[0]) is list else (int, float)
        k = next(k for k, entry in enumerate(entries) if type(entry) not in allowed)
        kind = KINDS[type(entries[k])]
        raise ValueError(
            f"{_entry(name, shape, k)} is {kind}: send numbers, in lists of equal length"
        )
    return np.array(entries, np.int64 if types == {int} else np.float64).reshape(shape)


def _entry(name: str, shape: Sequence[int], k: int) -> str:
    """The name of the k-th entry of an array, such as input[2, 5]."""
    if not shape:
        return name
    return f"{name}[{', '.join(str(int(i)) for i in np.unravel_index(k, shape))}]"


# ---- .npz


def _from_npz(body: bytes, operands: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        _check_directory(body)
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > MAX_BYTES[NPZ]:
                raise ValueError(f"it unpacks to {unpacked} bytes, more than {MAX_BYTES[NPZ]}")
            for member in members:
                if not member.filename.endswith(".npy"):
                    raise ValueError(f"it contains {member.filename!r}, which is not an .npy file")
                # The decoders of other methods return all that they can, and not what is asked for.
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"the compression of {member.filename!r} is not supported")
            contents = [
                (member.filename.removesuffix(".npy"), archive.read(member)) for member in members
            ]
    except Exception as error:  # of many kinds, from zipfile and zlib
        raise ValueError(f"the body is not an .npz file: {error}") from error
    _check_names([name for name, _ in contents], operands)
    return {name: _array_of_npy(name, content) for name, content in contents}


def _check_directory(body: bytes) -> None:
    """Limits the number of members, from the record at the end of a ZIP file.

    zipfile would read a directory of a million members, whatever the record says of their number.
    """
    end = body[-22:]
    if not (end.startswith(b"PK\5\6") and end.endswith(b"\0\0")):
        raise ValueError("it does not end with the record of a ZIP file without a comment")
    (size,) = struct.unpack("<I", end[12:16])
    if size > MAX_DIRECTORY_BYTES or body[-42:-38] == b"PK\6\7":  # the record of larger files
        raise ValueError("it contains too many files")


def _array_of_npy(name: str, content: bytes) -> np.ndarray:
    stream = io.BytesIO(content)
    try:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:  # of many kinds, also MemoryError for a shape that is a lie
        raise ValueError(f"{name} is not an .npy file: {error}") from error
    if stream.read(1):
        raise ValueError(f"{name} has more bytes than its shape {array.shape} needs")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {array.dtype}: send numbers")
    return array
