"""The example of a service: it counts each request once, if repeated and if workers are killed."""

import asyncio
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
import uuid
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
        ("digits", {"input": [[1.0, 2.0], [3.0]], "target": [0, 1]}, "input: setting an array"),
        ("digits", {"input": [["1.0"] * 10], "target": [0]}, "input has dtype <U3"),
        ("diabetes", {"input": [1.0, float("nan")], "target": [1, 2]}, "the loss at [1] is nan"),
        (
            "diabetes",
            {"input": [1.0, 2.0], "target": [1, 2], "sample_weight": [1e308, 1e308]},
            "weights is out of the range of float64",
        ),
        ("diabetes", {"input": [1.0, 1e400], "target": [1, 2]}, "the loss at [1] is inf"),
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


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"{", "application/json", "the body is not JSON: "),
        (b"[" * 100_000, "application/json", "the body is not JSON: "),
        (b"PK", "application/x-npz", "the body is not an .npz file: "),
        (npz(input=np.array([{}])), "application/x-npz", "Object arrays cannot be loaded"),
        (npz(input=np.zeros(9 << 20)), "application/x-npz", "it unpacks to 754"),
    ],
)
def test_unreadable_body(client, body, kind, message):
    status, answer, _ = post(client, "digits", body, kind)
    assert status == 422
    assert message in answer["detail"]


def test_body_too_long():
    class Request:
        async def stream(self):
            for _ in range(65):
                yield bytes(1 << 20)

    with pytest.raises(fastapi.HTTPException, match="413: a request holds at most 67108864 bytes"):
        asyncio.run(app.read_body(Request()))


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


def test_load_with_killed_workers(capsys):
    load_test.main(["--requests", "300", "--clients", "6", "--workers", "2", "--kills", "2"])
    printed = capsys.readouterr().out
    assert "2 kills" in printed
    assert printed.endswith("every request was counted exactly once\n")


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
