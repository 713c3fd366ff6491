"""The example of a service: it counts each request once, if repeated and if workers are killed."""

import asyncio
import contextlib
import http.client
import io
import itertools
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
import urllib.error
import urllib.request
import uuid
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl

pytest.importorskip("fcntl", reason="needs the file locks of POSIX")
fastapi = pytest.importorskip("fastapi")
SERVICE = str(Path(__file__).parent.parent / "examples" / "scoring_service")
sys.path.append(SERVICE)

import app  # noqa: E402
import load_test  # noqa: E402
import store  # noqa: E402
from client import Client  # noqa: E402

LOGITS = np.random.default_rng(0).normal(size=(6, 10)) * 3
LABELS = np.array([0, 3, 3, 9, 3, 0])


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with load_test.Service(tmp_path_factory.mktemp("service") / "scoring.db", workers=2) as running:
        yield running


@pytest.fixture
def client(service):
    made = Client(service.url)
    yield made
    made.close()


def post(client, model, body, kind="application/json", key=None):
    """One attempt: the status, the answer, and whether it repeats an earlier answer."""
    request = urllib.request.Request(f"http://{client._host}/models/{model}/losses", body)
    request.add_header("Content-Type", kind)
    request.add_header("Idempotency-Key", key or str(uuid.uuid4()))
    try:
        with urllib.request.urlopen(request) as response:
            return 200, json.load(response), response.headers["Idempotency-Replayed"] == "true"
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), None


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def cross_entropy(logits, labels):
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]


# --- Answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
def test_losses_and_value_of_a_batch(client, raw):
    answer = client.losses("digits", input=LOGITS, target=LABELS, npz=raw)
    expected = cross_entropy(LOGITS, LABELS)
    np.testing.assert_allclose(answer["losses"], expected, rtol=1e-13)
    assert answer["value"] == pytest.approx(expected.mean(), rel=1e-13)
    assert answer["count"] == 6


def test_npz_in_float32_is_bitwise_identical_to_a_call(client):
    logits = LOGITS.astype(np.float32)
    answer = client.losses("digits", input=logits, target=LABELS, npz=True)
    assert answer["losses"] == fl.cross_entropy(logits, LABELS, reduction="none").tolist()
    assert answer["value"] == fl.cross_entropy(logits, LABELS)


def test_sample_weights_and_integer_logits(client):
    answer = client.losses(
        "breast_cancer", input=[0, 2, -1], target=[0, 1, 1], sample_weight=[1, 0, 3]
    )
    expected = np.array([np.log(2), 0, 3 * np.log1p(np.e)])
    np.testing.assert_allclose(answer["losses"], expected, rtol=1e-13)
    assert answer["value"] == pytest.approx(expected.sum() / 4, rel=1e-13)
    assert answer["count"] == 2


def test_batch_of_weight_zero_has_no_value(client):
    answer = client.losses("diabetes", input=[1.0], target=[2.0], sample_weight=[0.0])
    assert answer == {"losses": [0.0], "value": None, "count": 0}


# --- Mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "body", "message"),
    [
        ("digits", {"input": LOGITS.tolist(), "target": [0, 3, 10, 9, 3, 0]},
         "target[2] = 10 is not a class: input has 10 classes (0..9), and ignore_index is -100"),
        ("digits", {"input": LOGITS.tolist(), "target": [0, 3]}, "target has shape (2,)"),
        (
            "digits",
            {"input": [[1.0, 2.0], [3.0]], "target": [0, 1]},
            "input[1] has 1 entries, but input[0] has 2",
        ),
        ("digits", {"input": [["1.0"] * 10], "target": [0]}, "input[0, 0] is a string"),
        (
            "diabetes",
            {"input": [1.0, float("nan")], "target": [1, 2]},
            "the loss at [1] is nan because of input[1]: ",
        ),
        (
            "diabetes",
            {"input": [1.0, 2.0], "target": [1, 2], "sample_weight": [1e308, 1e308]},
            "sample_weight[0] is 1e+308: weights are 0, or from ",
        ),
        (
            "diabetes",
            {"input": [1.0, 1e400], "target": [1, 2]},
            "the loss at [1] is inf because of input[1]: ",
        ),
        (
            "diabetes",
            {"input": [1, 2], "target": [1, -1e400]},
            "the loss at [1] is inf because of target[1]: ",
        ),
        ("diabetes", {"input": [1e200], "target": [0]}, "the loss at [0] is 5e+201: "),
        ("diabetes", {"input": [[1.0, 2.0]], "target": [[1, 2]]}, "(1, 2): this model's is (N)"),
        ("diabetes", {"input": 1.0, "target": 2.0}, "input has shape (): this model's is (N)"),
        ("digits", {"input": LOGITS[:, :3].tolist(), "target": [0] * 6}, "model's is (N, 10)"),
        ("diabetes", {"input": [1.0], "label": [1.0]}, "needs 'input', 'target', and may have"),
        ("diabetes", {"input": [1.0], "target": [1.0], "sample_weight": [-1]}, "sample_weight[0]"),
        ("breast_cancer", {"input": [1.0, 2.0], "target": [0, 0.5]}, "target[1] = 0.5 is not a "),
        ("diabetes", [1.0, 2.0], "the body must be an object of arrays"),
    ],
)  # fmt: skip
def test_invalid_request_is_not_counted(client, model, body, message):
    before = client.state()
    status, answer, _ = post(client, model, json.dumps(body).encode())
    assert status == 422
    assert message in answer["detail"]
    assert client.state() == before


def members(**contents):
    """An .npz file of these bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(array, shape=None):
    """An .npy file, perhaps with a shape that is not the array's."""
    buffer = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(buffer, {**header, "shape": shape or array.shape})
    return buffer.getvalue() + array.tobytes()


def bomb(method):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("input.npy", bytes(1 << 20))
    return buffer.getvalue()


JSON, NPZ = "application/json", "application/x-npz"
GOOD = npz(input=LOGITS, target=LABELS)
UNREADABLE_JSON = [
    (b"", "the body is not JSON: "),
    (b"{", "the body is not JSON: "),
    (b"[" * 100_000, "the body is not JSON: "),
    (b'{"input": [1], "target": [1]', "the body is not JSON: "),
    (b'{"input": [1], "target": [1]}}', "the body is not JSON: "),
    (b'{"input": [01], "target": [1]}', "the body is not JSON: "),
    (b'{"input": [inf], "target": [1]}', "the body is not JSON: "),
    (b'{"input": [1], "target": ["\xff"]}', "the body is not JSON: 'utf-8' codec"),
    (b'{"input": [1], "target": ["\xed\xa0\x80"]}', "the body is not JSON: 'utf-8' codec"),
    ('{"input": [1], "target": [1]}'.encode("utf-16"), "the body is not JSON: 'utf-8' codec"),
    (b"null", "the body must be an object of arrays"),
    (b"NaN", "the body must be an object of arrays"),
    (b"9" * 5000, "the body must be an object of arrays"),
    (b"{}", "input is missing: this model needs 'input', 'target', and may have"),
    (b'{"input": [1]}', "target is missing: "),
    (b'{"\\ud800": [1], "input": [1]}', r"there is an array '\ud800': this model needs"),
    (b'{"input": ["\\ud800"], "target": [1]}', "input[0] is a string: send numbers"),
    (b'{"input": [1], "\\u0000": [1]}', "there is an array"),
    (b'{"input": [1], "%b": [1]}' % (b"x" * 10**6), "there is an array 'xxx"),
    (b'{"input": [1], "target": [1], "input": [2]}', "input appears twice"),
    (b'{"input": [null], "target": [1]}', "input[0] is null: send numbers"),
    (b'{"input": [1, true], "target": [1, 2]}', "input[1] is a boolean"),
    (b'{"input": [1, 2], "target": [1, {"a": 2}]}', "target[1] is an object"),
    (b'{"input": {}, "target": []}', "input is an object"),
    (b'{"input": [1, [2]], "target": [1, 2]}', "input[1] is a list"),
    (b'{"input": [[1], 2], "target": [1, 2]}', "input[1] is a number"),
    (b'{"input": [[], [1]], "target": [1]}', "input[1] has 1 entries, but input[0] has 0"),
    (b'{"input": %b1%b, "target": [1]}' % (b"[" * 500, b"]" * 500), "input has more than 8"),
    (b'{"input": [%b], "target": [1]}' % (b"9" * 5000), "the loss at [0] is inf because of input"),
    (b'{"input": [1], "target": [%b]}' % (b"9" * 400), "the loss at [0] is inf because of target"),
    (b'{"input": [1], "target": [1], "sample_weight": [NaN]}', "sample_weight[0] is nan"),
    (b'{"input": [1], "target": [1], "sample_weight": [Infinity]}', "sample_weight[0] is inf"),
    (b'{"input": [1], "target": [1], "sample_weight": [1e-26]}', "sample_weight[0] is 1e-26"),
    (b'{"input": [1], "target": [1], "sample_weight": [[[1]]]}', "sample_weight"),
    (b'{"input": [%b""], "target": [1]}' % (b'"", ' * 1000), "input[0] is a string"),
    (b'{"input": [%b1], "target": 1}' % (b"1," * (1 << 18)), "input has 262145 rows: split it"),
]
UNREADABLE_NPZ = [
    (b"", "the body is not an .npz file: "),
    (b"PK", "the body is not an .npz file: "),
    (GOOD[:-30], "the body is not an .npz file: "),
    (GOOD[:200] + b"?" + GOOD[201:], "the body is not an .npz file: "),
    (b"x" * 100 + GOOD[50:], "the body is not an .npz file: "),
    (b'{"input": [1], "target": [1]}', "the body is not an .npz file: "),
    (pickle.dumps([1]), "the body is not an .npz file: "),
    (npz(input=np.array([{}])), "Object arrays cannot be loaded"),
    (npz(input=np.zeros(9 << 20)), "it unpacks to 754"),
    (members(input=b"hello", target=b""), "it contains 'input', which is not an .npy file"),
    (members(**{"input.npy": b"hello", "target.npy": b""}), "input is not an .npy file: "),
    (members(**{"input.npy": b"", "target.npy": b""}), "input is not an .npy file: "),
    (members(**{"input.npy": GOOD, "target.npy": b""}), "input is not an .npy file: "),
    (members(**{"input.npy": npy(LOGITS)[:-1]}), "input is not an .npy file: "),
    (members(**{"input.npy": npy(LOGITS) + b"x"}), "input has more bytes than its shape (6, 10)"),
    (members(**{"input.npy": npy(LOGITS, (2**40, 10))}), "input is not an .npy file: "),
    (members(**{"input.npy": npy(LOGITS, (2**80, 10))}), "input is not an .npy file: "),
    (members(**{"input.npy": npy(LOGITS, (-1, 10))}), "input "),
    (members(**{"input.npy": npy(LOGITS), "../x.npy": b""}), "there is an array '../x'"),
    (members(**{f"{k}.npy": b"" for k in range(100)}), "it contains too many files"),
    (members(**{"\ud7ff.npy": npy(LABELS)}), "there is an array"),
    (bomb(zipfile.ZIP_BZIP2), "the compression of 'input.npy' is not supported"),
    (bomb(zipfile.ZIP_LZMA), "the compression of 'input.npy' is not supported"),
    (npz(input=LOGITS, target=LABELS.astype("U")), "target has dtype <U21: send numbers"),
    (npz(input=LOGITS + 0j, target=LABELS), "input has dtype complex128: send numbers"),
    (npz(input=LOGITS, target=LABELS.astype("M8[s]")), "target has dtype datetime64[s]"),
    (npz(input=LOGITS, target=LABELS.astype([("a", "i8")])), "target has dtype [('a'"),
    (npz(input=LOGITS, target=np.zeros(6, "V0")), "target has dtype |V0"),
    (npz(input=LOGITS), "target is missing: "),
    (npz(input=LOGITS, target=LABELS, label=LABELS), "there is an array 'label'"),
    (npz(input=LOGITS, target=np.uint64(2**64 - 1) - LABELS.astype("u8")), "target[0] = 18446744"),
    (npz(input=LOGITS.astype("f2") * np.float16(np.inf), target=LABELS), "the loss at [0] is nan"),
    (npz(input=LOGITS[:0, :3], target=LABELS[:0]), "input has shape (0, 3)"),
]


@pytest.mark.parametrize(("body", "message"), UNREADABLE_JSON, ids=itertools.count())
def test_unreadable_json(client, body, message):
    before = client.state()
    status, answer, _ = post(client, "diabetes", body)
    assert status == 422
    assert message in answer["detail"]
    assert len(answer["detail"]) < 600
    assert client.state() == before


@pytest.mark.parametrize(("body", "message"), UNREADABLE_NPZ, ids=itertools.count())
def test_unreadable_npz(client, body, message):
    before = client.state()
    status, answer, _ = post(client, "digits", body, NPZ)
    assert status == 422
    assert message in answer["detail"]
    assert client.state() == before


def test_repeated_member(client):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("input.npy", npy(LOGITS))
        archive.writestr("input.npy", npy(LOGITS[:1]))
    status, answer, _ = post(client, "digits", buffer.getvalue(), NPZ)
    assert (status, answer["detail"]) == (422, "input appears twice")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("Application/JSON; charset=utf-8", 200),
        ("application/x-www-form-urlencoded", 415),
        ("text/\xff", 415),
        ("", 415),
    ],
)
def test_types_of_bodies(client, kind, status):
    found, answer, _ = post(client, "diabetes", b'{"input": [1], "target": [1]}', kind)
    assert found == status
    assert status == 200 or "it must be application/json or application/x-npz" in answer["detail"]


def exchange(client, *parts, pause=0.0):
    """Everything that the service sends for these bytes, after which the client sends no more."""
    host, port = client._host.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        with contextlib.suppress(OSError):  # the service has closed the connection
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def head(*lines):
    lines = ("POST /models/diabetes/losses HTTP/1.1", "Host: x", "Idempotency-Key: k", *lines)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


@pytest.mark.parametrize(
    "parts",
    [
        (head("Content-Length: 1000"), b'{"input": [1], "target": [1]}'),
        (head("Content-Length: 3"), b'{"input": [1], "target": [1]}'),
        (head("Content-Length: -1"), b"{}"),
        (head("Content-Length: x"), b"{}"),
        (head("Content-Length: " + "9" * 5000), b"{}"),
        (head("Content-Length: 2", "Content-Length: 3"), b"{}"),
        (head("Content-Length: 2", "Transfer-Encoding: chunked"), b"{}"),
        (head("Transfer-Encoding: chunked"), b"ffffffffffffffffff\r\n{}"),
        (head("Transfer-Encoding: chunked"), b"2\r\n{}\r\n"),
        (head("Transfer-Encoding: chunked"), b"-2\r\n{}\r\n0\r\n\r\n"),
        (head("Content-Length: 2", "Content-Encoding: gzip"), b"\x1f\x8b"),
        (head("Content-Length: 2", "Idempotency-Key: " + "x" * 1000), b"{}"),
        (head("Content-Length: 2", "Content-Type: application/x-npz"), b"{}"),
        (head("Content-Length: 99999999999"), b"{}"),
        (head(), b'{"input": [1], "target": [1]}'),
    ],
    ids=itertools.count(),
)
def test_lengths_that_are_lies(client, service, parts):
    before, lines = client.state(), len(service.log)
    answer = exchange(client, *parts, pause=0.05)
    assert not answer or 400 <= int(answer.split()[1]) < 500
    assert client.state() == before
    assert "Traceback" not in "".join(service.log[lines:])


def test_body_too_long(client):
    client.state()  # returns as soon as there is a worker
    for kind, size in app.bodies.MAX_BYTES.items():
        before = client.retries
        headers = {"Content-Type": kind, "Idempotency-Key": "k"}
        message = rf"HTTP 413.*a body of this type has at most {size} bytes: split it"
        for body in (b"[]," * (size // 3 + 1), iter([bytes(1 << 20)] * ((size >> 20) + 1))):
            with pytest.raises(ValueError, match=message):
                client._send("POST", "/models/diabetes/losses", body, headers)
        assert client.retries == before


@pytest.mark.parametrize("text", [b"[],", b"{},", b"1,", b'"",', b"[[]],", b"[1],"])
def test_json_takes_little_memory(text):
    limit = app.bodies.MAX_BYTES[JSON]
    size = 1 << 17
    body = b'{"input": [%b0], "target": []}' % (text * (size // len(text)))
    tracemalloc.start()
    try:
        with contextlib.suppress(ValueError):
            app.bodies.read_arrays(body, JSON, ["input", "target"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak * limit / size < 200e6


class Arriving:
    """A request whose body arrives in pieces, each after an event."""

    def __init__(self, *pieces, headers=None):
        self.headers, self._pieces = headers or {}, pieces

    async def stream(self):
        for piece in self._pieces:
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            else:
                yield piece


def test_large_bodies_wait_for_slots(monkeypatch):
    large = bytes(app.bodies.SMALL_BYTES + 1)

    async def receive(slots, *pieces, until=None):
        async with app.bodies.receive(Arriving(*pieces), JSON, slots) as body:
            if until:
                await until.wait()
            return len(body)

    async def run():
        slots, release = asyncio.Semaphore(2), asyncio.Event()
        holders = [asyncio.create_task(receive(slots, large, until=release)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting = asyncio.create_task(receive(slots, large, b"x"))
        assert await receive(slots, large[:-1]) == len(large) - 1  # needs no slot
        assert slots.locked()
        assert not waiting.done()
        release.set()
        assert await waiting == len(large) + 1
        await asyncio.gather(*holders)
        # Bodies that never end, or wait too long, give back what they have taken.
        monkeypatch.setattr(app.bodies, "RECEIVE_SECONDS", 0.05)
        never = asyncio.Event()
        holders = [asyncio.create_task(receive(slots, large, never)) for _ in range(2)]
        await asyncio.sleep(0.01)
        monkeypatch.setattr(app.bodies, "RECEIVE_SECONDS", 0.01)
        with pytest.raises(fastapi.HTTPException, match="503: busy with other large requests"):
            await receive(slots, large)
        for holder in holders:
            with pytest.raises(fastapi.HTTPException, match=r"408: the body took more than"):
                await holder
        assert await asyncio.gather(*[receive(slots, large) for _ in range(2)]) == [len(large)] * 2
        assert not slots.locked()

    asyncio.run(run())


def mutated(rng, body):
    """The body with random bytes changed, removed, repeated, or replaced by tokens."""
    tokens = [b"NaN", b"-Infinity", b"1e999", b"null", b"[", b"]", b"{", b'"', b",", b"\\ud800"]
    tokens += [b"\xff", b"-", b"1e200", b"1e-320", b"9" * 30, b"true", b'"input":', b"[]", b"\0"]
    for _ in range(rng.integers(1, 4)):
        start = int(rng.integers(len(body) + 1))
        stop = start + int(rng.choice([0, 1, 2, 30]))
        new = [
            b"",
            bytes(rng.integers(0, 256, 2, np.uint8)),
            body[start:stop] * 2,
            tokens[rng.integers(len(tokens))],
        ]
        body = body[:start] + new[rng.integers(4)] + body[stop:]
    return body[: rng.integers(len(body) + 1)] if rng.random() < 0.1 else body


def numbers(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for entry in value for number in numbers(entry)]
    return [value]


def test_mutated_bodies(client, service, complete):
    rng, lines = np.random.default_rng(0), len(service.log)
    json_body = b'{"input": [1.5, 80, -3], "target": [141, 2e2, 0], "sample_weight": [1, 0, 2.5]}'
    npz_body = npz(input=np.arange(3.0), target=np.ones(3, np.float32))
    statuses = []
    for k in range(5000 if complete else 300):
        kind, body = ((JSON, json_body), (NPZ, npz_body))[k % 2]
        status, answer, _ = post(client, "diabetes", mutated(rng, body), kind)
        assert status in (200, 422), answer
        statuses.append(status)
    assert min(statuses.count(200), statuses.count(422)) > 10
    assert "Traceback" not in "".join(service.log[lines:])
    state = client.state()
    assert not {"NaN", "Infinity", "-Infinity"} & set(map(str, numbers(state)))


# --- Running values stay finite -------------------------------------------------------------------


@pytest.mark.parametrize(
    "batches",
    [
        [{"input": [1e200], "target": [0]}],
        [{"input": [3.4e306], "target": [0]}] * 2,
        [{"input": [1e154, 1.0], "target": [0, 0]}],
        [{"input": [1e-300], "target": [0], "sample_weight": [1e300]}],
        [{"input": [1e23], "target": [0], "sample_weight": [1e-24]}] * 3,
        [{"input": [1e20, 1], "target": [0, 0], "sample_weight": [1e-20, 1e25]}] * 3,
        [{"input": [1], "target": [0], "sample_weight": [1e25]}] * 3,
    ],
    ids=itertools.count(),
)
def test_running_values_stay_finite(batches, tmp_path):
    """Whatever is accepted, ordinary batches are accepted after it, and the figures are finite."""
    model = app.MODELS["diabetes"]
    opened = store.Store(str(tmp_path / "scoring.db"), {"diabetes": model.accumulator()})
    ordinary = {"input": [1.0, 3.0], "target": [0.0, 5.0]}
    for k, fields in enumerate([*batches, *[ordinary] * 5]):
        body = json.dumps(fields).encode()
        try:
            status = app.respond(opened, "diabetes", str(k), JSON, body).status_code
        except fastapi.HTTPException as error:
            status = error.status_code
        assert status == 200 or (status == 422 and fields is not ordinary)
    requests, total = opened.totals()["diabetes"]
    assert requests >= 5
    figures = [total.value, total.stderr, total.sum, total.weight]
    assert np.isfinite(figures).all()
    assert all(type(number) is not str for number in total.to_dict()["sums"])
    opened.close()


@pytest.mark.parametrize("by", [None, "group"])
def test_store_refuses_batches_that_overflow(by, tmp_path):
    def batch(*losses):
        made = fl.L1Loss().accumulator(by=by)
        made.update(losses, [0.0] * len(losses), group=by and ["a"] * len(losses))
        return made

    opened = store.Store(str(tmp_path / "scoring.db"), {"m": batch()})
    assert opened.record("m", "0", b"", batch(1.0, 2.0))
    before = opened.totals()["m"][1].to_dict()
    with pytest.raises(OverflowError, match="out of the range of float64"):
        batch(1.7e308, 1.7e308)
    for k, losses in enumerate([(1.7e308,), (5e201,), (1e154, 1.0)]):
        with pytest.raises(store.NotFinite, match="above 1e"):
            opened.record("m", f"large {k}", b"", batch(*losses))
    assert opened.totals()["m"][0] == 1
    assert opened.totals()["m"][1].to_dict() == before
    assert opened.record("m", "large 0", b"", batch(3.0))  # its key is free
    assert opened.totals()["m"][1].value == 2.0
    opened.close()


def test_missing_model_and_missing_key(client):
    status, answer, _ = post(client, "cats", b"{}")
    assert (status, answer["detail"][:30]) == (404, "there is no model 'cats': ther")
    request = urllib.request.Request(f"http://{client._host}/models/digits/losses", b"{}")
    with pytest.raises(urllib.error.HTTPError, match="422"):
        urllib.request.urlopen(request)


# --- Once -----------------------------------------------------------------------------------------


def test_repeated_key_is_counted_once(client):
    before, body = client.state()["diabetes"], b'{"input": [1.0, 2.0], "target": [3.0, 200.0]}'
    key = str(uuid.uuid4())
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(post, client, "diabetes", body, key=key) for _ in range(40)]
        answers = [future.result() for future in futures]
    assert all(answer[:2] == answers[0][:2] for answer in answers)
    assert sorted(repeated for _, _, repeated in answers) == [False] + [True] * 39
    after = client.state()["diabetes"]
    assert after["requests"] == before["requests"] + 1
    counts = [fl.Accumulator.from_dict(kept["accumulator"]).count for kept in (before, after)]
    assert counts[1] == counts[0] + 2


def test_key_of_another_request_is_refused(client):
    key, body = str(uuid.uuid4()), b'{"input": [1.0], "target": [3.0]}'
    assert post(client, "diabetes", body, key=key)[0] == 200
    before = client.state()
    for model, other in (("diabetes", body + b" "), ("breast_cancer", body.replace(b"3", b"1"))):
        status, answer, _ = post(client, model, other, key=key)
        assert status == 422
        assert "came with another request: use a new one" in answer["detail"]
    assert client.state() == before


@pytest.fixture
def changed_app(tmp_path, monkeypatch):
    """Writes a program as the module `changed`, which uvicorn can import."""

    def make(program):
        (tmp_path / "changed.py").write_text(textwrap.dedent(program))
        path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
        monkeypatch.setenv("PYTHONPATH", path)

    return make


CRASHING = """
    import os, signal
    from pathlib import Path

    from app import app
    from store import Store

    AT, crashed = os.environ["CRASH_AT"], Path(__file__).with_name("crashed")
    record = Store.record

    def crash(place):
        if AT == place and not crashed.exists():
            crashed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def crashing(self, *request):
        crash("received")
        counted = record(self, *request)
        crash("committed")
        return counted

    Store.record = crashing
"""


@pytest.mark.complete_only
@pytest.mark.parametrize("place", ["received", "committed"])
def test_worker_killed_around_its_commit(place, tmp_path, changed_app, monkeypatch):
    changed_app(CRASHING)
    monkeypatch.setenv("CRASH_AT", place)
    with load_test.Service(tmp_path / "scoring.db", workers=2, app="changed:app") as running:
        client = Client(running.url)
        client.state()
        client.retries = 0
        client.losses("digits", input=LOGITS, target=LABELS)
        assert (tmp_path / "crashed").exists()
        assert client.retries >= 1
        client.losses("digits", input=LOGITS[:1], target=LABELS[:1])
        kept = client.state()["digits"]
        client.close()
    assert kept["requests"] == 2
    assert fl.Accumulator.from_dict(kept["accumulator"]).count == 7


UNWRITABLE = """
    from pathlib import Path

    from app import app
    from store import Store

    record, unwritable = Store.record, Path(__file__).with_name("unwritable")

    def maybe(self, *request):
        self._database.execute(f"PRAGMA query_only = {unwritable.exists()}")
        return record(self, *request)

    Store.record = maybe
"""


@pytest.mark.complete_only
def test_unwritable_file(tmp_path, changed_app):
    changed_app(UNWRITABLE)
    (tmp_path / "unwritable").touch()
    body = b'{"input": [1.0], "target": [3.0]}'
    with load_test.Service(tmp_path / "scoring.db", workers=2, app="changed:app") as running:
        client = Client(running.url)
        client.state()
        status, answer, _ = post(client, "diabetes", body, key="a")
        assert status == 503
        assert "not counted (attempt to write a readonly database)" in answer["detail"]
        assert client.state()["diabetes"]["requests"] == 0
        (tmp_path / "unwritable").unlink()
        assert post(client, "diabetes", body, key="a")[0::2] == (200, False)
        assert client.state()["diabetes"]["requests"] == 1
        client.close()


@pytest.mark.complete_only
def test_load_with_killed_workers(capsys):
    load_test.main(["--requests", "300", "--clients", "6", "--workers", "2", "--kills", "2"])
    printed = capsys.readouterr().out
    assert "2 kills" in printed
    assert printed.endswith("every request was counted exactly once\n")


def test_load_test_shows_the_log_of_a_service_that_does_not_come_up(tmp_path, capfd):
    with (
        pytest.raises((OSError, http.client.HTTPException)),
        load_test.Service(tmp_path / "scoring.db", workers=2, app="missing:app") as broken,
    ):
        Client(broken.url, patience=1.0).state()
    assert "missing" in capfd.readouterr().err


def test_load_test_detects_lost_and_repeated_requests():
    work = load_test.batches(20)
    sums = {name: model.criterion for name, model in load_test.MODELS.items()}
    for counted in (work, work[1:], [*work, work[0]]):
        state = {}
        for name, criterion in sums.items():
            total = criterion.accumulator(by="class" if name == "digits" else None)
            sent = [batch for batch in counted if batch.model == name]
            for batch in sent:
                total.update(batch.input, batch.target)
            # The number of requests is right although one is lost or counted twice.
            requests = sum(batch.model == name for batch in work)
            state[name] = {"requests": requests, "accumulator": total.to_dict()}
        if counted is work:
            load_test.check(state, work)
        else:
            with pytest.raises(AssertionError, match="losses of digits"):
                load_test.check(state, work)


# --- The metrics ----------------------------------------------------------------------------------

SAMPLE = re.compile(r'(\w+)\{model="(\w+)"(?:,class="(\d+)")?\} (\S+)')


def test_metrics_equal_the_state(client):
    client.losses("digits", input=LOGITS, target=LABELS)
    state, text = client.state(), client.metrics()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found = {}
    for line in lines:
        metric, model, label, number = SAMPLE.fullmatch(line).groups()
        found[metric, model, label] = float(number)
    assert len(found) == len(lines)
    expected = {}
    for model, kept in state.items():
        total = fl.Accumulator.from_dict(kept["accumulator"])
        expected["scoring_requests_total", model, None] = kept["requests"]
        groups = total.groups if kept["accumulator"]["by"] else {}
        for field in ("value", "stderr", "sum", "weight", "count"):
            expected[f"scoring_loss_{field}", model, None] = getattr(total, field)
            for label, group in groups.items():
                expected[f"scoring_class_loss_{field}", model, str(label)] = getattr(group, field)
    np.testing.assert_equal(found, expected)
    assert {name for name, _, _ in found} == set(
        re.findall(r"# TYPE (\w+) (?:gauge|counter)", text)
    )


# --- The store ------------------------------------------------------------------------------------


def batch_of(criterion, *arrays):
    made = criterion.accumulator()
    made.update(*arrays)
    return made


def test_stores_of_one_file_share_totals_and_keys(tmp_path):
    models = {"m": fl.MSELoss().accumulator()}
    stores = [store.Store(str(tmp_path / "scoring.db"), models) for _ in range(2)]
    batch = batch_of(fl.MSELoss(), [1.0], [3.0])
    barrier = threading.Barrier(4)

    def run(k):
        barrier.wait()
        return [stores[k % 2].record("m", str(key), b"", batch) for key in range(50)]

    with ThreadPoolExecutor(4) as pool:
        counted = np.array(list(pool.map(run, range(4))))
    assert (counted.sum(0) == 1).all()
    for opened in stores:
        requests, total = opened.totals()["m"]
        assert (requests, total.count, total.sum) == (50, 50, 200.0)
        opened.close()
    again = store.Store(str(tmp_path / "scoring.db"), models)
    assert again.totals()["m"][0] == 50
    again.close()


KILLED = """
    import itertools, os, signal, sys

    sys.path.append({folder!r})
    import fastloss as fl
    from store import Store

    opened = Store({path!r}, {{"m": fl.MSELoss().accumulator()}})
    batch = fl.MSELoss().accumulator()
    batch.update([1.0], [3.0])
    statements = itertools.count()
    kill = lambda sql: next(statements) == {at} and os.kill(os.getpid(), signal.SIGKILL)
    opened._database.set_trace_callback(kill)
    opened.record("m", "key {at}", b"", batch)
"""


def test_kill_at_each_statement(tmp_path):
    path, killed = str(tmp_path / "scoring.db"), -signal.SIGKILL
    opened = store.Store(path, {"m": fl.MSELoss().accumulator()})
    batch = batch_of(fl.MSELoss(), [1.0], [3.0])
    for at in itertools.count():
        program = textwrap.dedent(KILLED.format(folder=SERVICE, path=path, at=at))
        status = subprocess.run([sys.executable, "-c", program], check=False).returncode
        assert opened.record("m", f"key {at}", b"", batch) == (status == killed)
        requests, total = opened.totals()["m"]
        assert (requests, total.count) == (at + 1, at + 1)
        if status != killed:
            break
    assert status == 0
    assert at > 5
    opened.close()


def test_keys_expire(tmp_path, monkeypatch):
    opened = store.Store(str(tmp_path / "scoring.db"), {"m": fl.MSELoss().accumulator()})
    batch, start = batch_of(fl.MSELoss(), [1.0], [3.0]), time.time()
    after = [0, store.KEY_SECONDS - 1, store.KEY_SECONDS + 1]
    counted = []
    for seconds in after:
        monkeypatch.setattr(store.time, "time", lambda now=start + seconds: now)
        counted.append(opened.record("m", "key", b"", batch))
    assert counted == [True, False, True]
    assert opened.totals()["m"][0] == 2
    opened.close()


def test_changed_criterion_is_refused(tmp_path):
    path = str(tmp_path / "scoring.db")
    store.Store(path, {"m": fl.MSELoss().accumulator()}).close()
    with pytest.raises(ValueError, match=r"the criterion of 'm' changed, rename it: .*L1Loss"):
        store.Store(path, {"m": fl.L1Loss().accumulator()})
    other = store.Store(path, {"n": fl.L1Loss().accumulator()})
    assert list(other.totals()) == ["n"]
    other.close()
