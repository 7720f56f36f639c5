"""How other commands reach ClickHouse in a running worker's process: a file in the chdb directory."""

import contextlib
import json
import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from pipeline.errors import StoreError
from pipeline.settings import ClickHouseSettings
from sinks.clickhouse.client import Client, Column, Parameters, Rows, connect, parse_url

_FILE = "worker.json"


class Endpoint(Struct, frozen=True):
    """Address and token of the worker that has the directory open; ``pid`` is its process."""

    url: str
    token: str
    pid: int


class Question(Struct, frozen=True):
    """The body of a request to /api/sql."""

    sql: str
    parameters: dict[str, str | int | float] = {}


def write_endpoint(directory: str, url: str) -> Endpoint:
    """Tell where this process serves the directory."""
    endpoint = Endpoint(url, secrets.token_urlsafe(32), os.getpid())
    path = Path(directory) / _FILE
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"url": endpoint.url, "token": endpoint.token, "pid": endpoint.pid}, file)
    return endpoint


def remove_endpoint(directory: str) -> None:
    """The directory is no longer served."""
    (Path(directory) / _FILE).unlink(missing_ok=True)


def find_endpoint(directory: str) -> Endpoint | None:
    """The worker that serves the directory, if one is alive."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        content = json.loads((Path(directory) / _FILE).read_text())
        endpoint = Endpoint(content["url"], content["token"], content["pid"])
        os.kill(endpoint.pid, 0)
        return endpoint
    return None


class WorkerClient:
    """A :class:`sinks.clickhouse.client.Client` for reading, through a running worker."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def query(self, sql: str, parameters: Parameters | None = None) -> Rows:
        """See :class:`sinks.clickhouse.client.Client`."""
        answer = _ask(self._endpoint, "/api/sql", Question(sql, dict(parameters or {})))
        return Rows(tuple(answer["names"]), tuple(answer["types"]), [tuple(row) for row in answer["rows"]])

    def execute(self, sql: str) -> None:
        """See :class:`sinks.clickhouse.client.Client`; only reading statements."""
        self.query(sql)

    def insert(self, table: str, columns: Sequence[Column]) -> None:
        """Refused: the worker is the one that writes."""
        raise StoreError(f"the worker at {self._endpoint.url} has the database open; stop it to write to {table}")

    def close(self) -> None:
        """Nothing is kept open."""


def open_client(settings: ClickHouseSettings) -> Client:
    """A client for reading: of the server, of the chdb directory, or of the worker that has that directory open.

    Raises:
        StoreError: there is no such directory; a question must not make one.
    """
    directory = parse_url(settings.url).directory
    endpoint = find_endpoint(directory) if directory else None
    if endpoint is not None:
        return WorkerClient(endpoint)
    if directory and not Path(directory).exists():
        raise StoreError(f"there is no database at {Path(directory).absolute()}; run xidmet migrate or start a worker")
    return connect(settings)


def _ask(endpoint: Endpoint, path: str, question: Question, timeout: float = 60.0) -> Any:
    request = urllib.request.Request(  # noqa: S310 - the URL was written by a worker of this user
        endpoint.url + path,
        data=msgspec.json.encode(question),
        headers={"Authorization": f"Bearer {endpoint.token}", "Content-Type": "application/json"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with contextlib.closing(error):
            text = error.read().decode("utf-8", "replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            text = json.loads(text)["error"]
        raise StoreError(f"the worker at {endpoint.url} refuses: {text}") from error
    except OSError as error:
        raise StoreError(f"the worker at {endpoint.url} does not answer: {error}") from error
