"""A service that scores predictions of models against targets and keeps their running losses.

uvicorn --app-dir examples/scoring_service app:app --workers 2
"""

import hashlib
import io
import json
import math
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from store import KeyReused, Store

import fastloss as fl


class Model(NamedTuple):
    criterion: fl.criteria.Criterion
    row: tuple[int, ...] = ()  # the shape of one prediction
    by: Literal["class"] | None = None

    def accumulator(self) -> fl.Accumulator:
        return self.criterion.accumulator(by=self.by)


MODELS = {
    "digits": Model(fl.CrossEntropyLoss(), row=(10,), by="class"),
    "diabetes": Model(fl.HuberLoss(delta=50.0)),
    "breast_cancer": Model(fl.BCEWithLogitsLoss(), by="class"),
}
MAX_BYTES = 64 << 20  # of a request
NPZ = "application/x-npz"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    fl.set_num_threads(1)  # requests already run concurrently
    path = os.environ.get("SCORING_DATABASE", "scoring.db")
    empty = {name: model.accumulator() for name, model in MODELS.items()}
    app.state.store = Store(path, empty, os.environ.get("SCORING_SYNCHRONOUS", "FULL"))
    yield
    app.state.store.close()


app = FastAPI(title="Scoring service", lifespan=lifespan)


async def read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"a request holds at most {MAX_BYTES} bytes: split it")
    return bytes(body)


@app.post("/models/{name}/losses")
def losses(
    name: str,
    request: Request,
    body: Annotated[bytes, Depends(read_body)],
    idempotency_key: Annotated[str, Header(min_length=1, max_length=200)],
    content_type: Annotated[str, Header()] = "application/json",
) -> JSONResponse:
    """The losses of a batch. It is counted once for each key, before the response is sent."""
    if name not in MODELS:
        raise HTTPException(404, f"there is no model {name!r}: there are {', '.join(MODELS)}")
    digest = hashlib.sha256(b"\0".join([name.encode(), content_type.encode(), body])).digest()
    try:
        arrays = from_npz(body) if content_type == NPZ else from_json(body)
        batch, answer = score(MODELS[name], arrays)
    except (ValueError, TypeError, OverflowError) as error:
        raise HTTPException(422, str(error)) from error
    try:
        counted = request.app.state.store.record(name, idempotency_key, digest, batch)
    except (KeyReused, OverflowError) as error:  # the sums with those of earlier batches
        raise HTTPException(422, str(error)) from error
    return JSONResponse(answer, headers={"Idempotency-Replayed": str(not counted).lower()})


def from_json(body: bytes) -> dict[str, np.ndarray]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError('the body must be an object of arrays, {"input": ..., "target": ...}')
    arrays = {}
    for field, value in fields.items():
        try:
            arrays[field] = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{field}: {error}") from error
    if "input" in arrays and arrays["input"].dtype.kind in "iu":
        arrays["input"] = arrays["input"].astype(np.float64)  # some clients write 2.0 as 2
    return arrays


def from_npz(body: bytes) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as archive:
            unpacked = sum(member.file_size for member in archive.zip.infolist())
            if unpacked > MAX_BYTES:
                raise ValueError(f"it unpacks to {unpacked} bytes, more than {MAX_BYTES}")
            return dict(archive)
    except Exception as error:  # from zipfile, zlib or NumPy
        raise ValueError(f"the body is not an .npz file: {error}") from error


def score(model: Model, arrays: dict[str, np.ndarray]) -> tuple[fl.Accumulator, dict[str, Any]]:
    """The accumulator of the batch, and the response."""
    loss = model.criterion.loss
    sample_weight = arrays.pop("sample_weight", None)
    if set(arrays) != set(loss.operands):
        raise ValueError(
            f"the arrays are {', '.join(map(repr, arrays))}: {loss.__name__} needs "
            f"{', '.join(map(repr, loss.operands))}, and may have 'sample_weight'"
        )
    operands = [arrays[operand] for operand in loss.operands]
    shape = operands[0].shape
    if not shape or shape[1:] != model.row:
        expected = ", ".join(["N", *map(str, model.row)])
        raise ValueError(f"{loss.operands[0]} has shape {shape}: this model's is ({expected})")
    options = model.criterion.get_params() | {"reduction": "none", "sample_weight": sample_weight}
    values = np.asarray(loss(*operands, **options))
    nonfinite = np.argwhere(~np.isfinite(values))
    if len(nonfinite):  # the running mean would be NaN or infinite from now on
        index = tuple(nonfinite[0].tolist())
        raise ValueError(f"the loss at {list(index)} is {values[index]}: send finite numbers")
    batch = model.accumulator()
    batch.update(*operands, sample_weight=sample_weight)
    value = None if math.isnan(batch.value) else batch.value
    return batch, {"losses": values.tolist(), "value": value, "count": batch.count}


@app.exception_handler(sqlite3.OperationalError)
def not_recorded(request: Request, error: sqlite3.OperationalError) -> JSONResponse:
    detail = f"not counted ({error}): send it again with the same key"
    return JSONResponse({"detail": detail}, 503)


@app.get("/state")
def state(request: Request) -> dict[str, Any]:
    """The requests and the accumulator of each model, for `fl.Accumulator.from_dict`."""
    return {
        name: {"requests": requests, "accumulator": total.to_dict()}
        for name, (requests, total) in request.app.state.store.totals().items()
    }


FIELDS = {
    "value": "The running loss",
    "stderr": "The standard error of the running loss",
    "sum": "The sum of the losses",
    "weight": "The divisor of the mean",
    "count": "The number of losses",
}
NOT_FINITE = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}


@app.get("/metrics")
def metrics(request: Request) -> PlainTextResponse:
    """The totals in Prometheus' text format."""
    totals = request.app.state.store.totals()
    lines = family(
        "scoring_requests_total",
        "counter",
        "The requests that were counted.",
        [(f'model="{name}"', requests) for name, (requests, _) in totals.items()],
    )
    models = [(f'model="{name}"', total) for name, (_, total) in totals.items()]
    classes = [
        (f'model="{name}",class="{label}"', group)
        for name, (_, total) in totals.items()
        if MODELS[name].by
        for label, group in total.groups.items()
    ]
    for prefix, of, series in (
        ("scoring_loss", "of a model.", models),
        ("scoring_class_loss", "of a class.", classes),
    ):
        for field, text in FIELDS.items():
            samples = [(labels, getattr(total, field)) for labels, total in series]
            lines += family(f"{prefix}_{field}", "gauge", f"{text} {of}", samples)
    return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


def family(name: str, kind: str, text: str, samples: list[tuple[str, float]]) -> list[str]:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, number in samples:
        lines.append(f"{name}{{{labels}}} {NOT_FINITE.get(repr(number), repr(number))}")
    return lines
