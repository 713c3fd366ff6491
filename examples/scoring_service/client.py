"""A client of the scoring service that repeats requests, each of which is counted once."""

import http.client
import io
import json
import random
import time
import urllib.parse
import uuid
from typing import Any

import numpy as np


class Client:
    """A client with a connection, for use by one thread. It gives up after `patience` seconds."""

    def __init__(self, url: str, patience: float = 60.0):
        self._host = urllib.parse.urlsplit(url).netloc
        self._patience = patience
        self._connection: http.client.HTTPConnection | None = None
        self.retries = 0

    def losses(
        self, model: str, *, key: str | None = None, npz: bool = False, **arrays: Any
    ) -> dict[str, Any]:
        """Score a batch. Until there is an answer, repeat the same bytes with the same key."""
        if npz:
            buffer = io.BytesIO()
            np.savez(buffer, **arrays)
            body, kind = buffer.getvalue(), "application/x-npz"
        else:
            lists = {name: np.asarray(array).tolist() for name, array in arrays.items()}
            body, kind = json.dumps(lists).encode(), "application/json"
        headers = {"Content-Type": kind, "Idempotency-Key": key or str(uuid.uuid4())}
        return json.loads(self._send("POST", f"/models/{model}/losses", body, headers))

    def state(self) -> dict[str, Any]:
        return json.loads(self._send("GET", "/state"))

    def metrics(self) -> str:
        return self._send("GET", "/metrics").decode()

    def _send(self, *request: Any) -> bytes:
        deadline, pause = time.monotonic() + self._patience, 0.01
        while True:
            try:
                status, body = self._attempt(*request)
            except (
                OSError,
                http.client.HTTPException,
            ):  # the request may or may not have been counted
                if time.monotonic() > deadline:
                    raise
                self.close()
            else:
                if status == 200:
                    return body
                if status < 500 or time.monotonic() > deadline:
                    raise ValueError(f"HTTP {status}: {body.decode()}")
            self.retries += 1
            time.sleep(pause * random.uniform(0.5, 1.0))  # so that clients do not retry in step
            pause = min(2 * pause, 1.0)

    def _attempt(self, *request: Any) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, timeout=self._patience)
        self._connection.request(*request)
        response = self._connection.getresponse()
        return response.status, response.read()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
