"""A service that scores predictions of models against targets and keeps their running losses.

uvicorn --app-dir examples/scoring_service app:app --workers 2
"""

import asyncio
import hashlib
import math
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, NamedTuple

import bodies
import numpy as np
from bodies import refusal
from fastapi import FastAPI, Header, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse
from store import KeyReused, NotFinite, Store

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
MAX_ROWS = 1 << 18  # of a request; writing the losses as JSON holds the GIL
MAX_LOSS = 1e25  # and weight; sums of squares stay finite
LARGE_REQUESTS = 2  # that are read at once


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    fl.set_num_threads(1)  # requests already run concurrently
    path = os.environ.get("SCORING_DATABASE", "scoring.db")
    empty = {name: model.accumulator() for name, model in MODELS.items()}
    app.state.store = Store(path, empty, os.environ.get("SCORING_SYNCHRONOUS", "FULL"))
    app.state.slots = asyncio.Semaphore(LARGE_REQUESTS)
    yield
    app.state.store.close()


app = FastAPI(title="Scoring service", lifespan=lifespan)


@app.post("/models/{name}/losses")
async def losses(
    name: str,
    request: Request,
    idempotency_key: Annotated[str, Header(min_length=1, max_length=200)],
    content_type: Annotated[str, Header()] = bodies.JSON,
    content_encoding: Annotated[str, Header()] = "",
) -> JSONResponse:
    """The losses of a batch. It is counted once for each key, before the response is sent."""
    if name not in MODELS:
        raise refusal(404, f"there is no model {name!r}: there are {', '.join(MODELS)}")
    kind = bodies.media_type(content_type, content_encoding)
    async with bodies.receive(request, kind, request.app.state.slots) as body:
        store = request.app.state.store
        return await run_in_threadpool(respond, store, name, idempotency_key, kind, body)


def respond(store: Store, name: str, key: str, kind: str, body: bytes) -> JSONResponse:
    digest = hashlib.sha256(b"\0".join([name.encode(), kind.encode(), body])).digest()
    model = MODELS[name]
    try:
        arrays = bodies.read_arrays(body, kind, model.criterion.loss.operands)
        batch, answer = score(model, arrays)
    except (ValueError, TypeError, OverflowError) as error:
        raise refusal(422, error) from error
    try:
        counted = store.record(name, key, digest, batch)
    except (KeyReused, NotFinite) as error:
        raise refusal(422, error) from error
    return JSONResponse(answer, headers={"Idempotency-Replayed": str(not counted).lower()})


def score(model: Model, arrays: dict[str, np.ndarray]) -> tuple[fl.Accumulator, dict[str, Any]]:
    """The accumulator of the batch, and the response."""
    loss = model.criterion.loss
    first, *_ = operands = loss.operands
    inputs = [arrays[operand] for operand in operands]
    sample_weight = arrays.get("sample_weight")
    if inputs[0].dtype.kind in "iu":
        inputs[0] = inputs[0].astype(np.float64)  # some clients write 2.0 as 2
    shape = inputs[0].shape
    if not shape or shape[1:] != model.row:
        expected = ", ".join(["N", *map(str, model.row)])
        raise ValueError(f"{first} has shape {shape}: this model's is ({expected})")
    if len(inputs[0]) > MAX_ROWS:
        raise ValueError(f"{first} has {shape[0]} rows: split it, {MAX_ROWS} are allowed")
    options = model.criterion.get_params() | {"reduction": "none", "sample_weight": sample_weight}
    values = np.asarray(loss(*inputs, **options))
    check_magnitudes(values, sample_weight, dict(zip(operands, inputs, strict=True)))
    batch = model.accumulator()
    batch.update(*inputs, sample_weight=sample_weight)
    value = None if math.isnan(batch.value) else batch.value
    return batch, {"losses": values.tolist(), "value": value, "count": batch.count}


def check_magnitudes(
    values: np.ndarray, sample_weight: np.ndarray | None, operands: dict[str, np.ndarray]
) -> None:
    """Refuse numbers that the running loss and its standard error would never get rid of."""
    if sample_weight is not None:
        weights = np.asarray(sample_weight, np.float64)
        allowed = (weights == 0) | ((weights >= 1 / MAX_LOSS) & (weights <= MAX_LOSS))
        if not allowed.all():
            index = np.argwhere(~allowed)[0].tolist()
            raise ValueError(
                f"sample_weight{index or ''} is {weights[tuple(index)]}: weights are 0, or from "
                f"{1 / MAX_LOSS} to {MAX_LOSS}"
            )
    wrong = np.argwhere(~(np.abs(values.astype(np.float64)) <= MAX_LOSS))
    if len(wrong):
        index = tuple(wrong[0].tolist())
        causes = [
            f"{name}[{index[0]}]"
            for name, array in operands.items()
            if array.ndim and not np.isfinite(array[index[0]]).all()
        ]
        raise ValueError(
            f"the loss at {list(index)} is {values[index]}"
            + (f" because of {' and '.join(causes)}" if causes else "")
            + f": send finite numbers whose losses are at most {MAX_LOSS}"
        )


@app.exception_handler(MemoryError)
def out_of_memory(request: Request, error: MemoryError) -> JSONResponse:
    return JSONResponse({"detail": "not counted (out of memory): send it again later"}, 503)


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
