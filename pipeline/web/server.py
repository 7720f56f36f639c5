"""The worker's HTTP server, on aiohttp, which Faust brings along."""

import asyncio
import hmac
import logging
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import TypeVar

import msgspec
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from pipeline.catalogue import Catalogue
from pipeline.errors import StoreError, XidmetError
from pipeline.runtime.endpoint import Endpoint, Question, remove_endpoint, write_endpoint
from pipeline.settings import Settings
from pipeline.web.overview import Cached
from pipeline.web.source import OneProcess, Source
from sinks.clickhouse.client import Client, Rows, connect, parse_url

logger = logging.getLogger(__name__)
T = TypeVar("T")

MAX_MINUTES = 7 * 24 * 60
ANSWER_SECONDS = 15.0
"""Longest wait for the figures of the page."""
# Of a statement as ClickHouse formats it.
_LOOPBACK = ("127.", "::1", "localhost")
_READING = ("SELECT", "WITH", "SHOW", "DESCRIBE", "EXISTS", "EXPLAIN")
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_STATIC_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class WebServer:
    """Serves /, /api/overview, /api/status, /metrics, /healthz, /readyz; with chdb also /api/sql.

    chdb lives in the worker's process, where no other process can open it. /api/sql lets ``xidmet query`` and others
    in: for reading only, on a loopback address only, with a token that stands in a file only its owner can read.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue, source: Source) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._source = source
        self._directory = parse_url(settings.clickhouse.url).directory
        self._serves_sql = bool(self._directory) and settings.web.host.startswith(_LOOPBACK)
        self._endpoint: Endpoint | None = None
        self._client: Client | None = None
        self._cached = Cached()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="web")
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen; the port.

        Raises:
            OSError: the address is taken.
        """
        app = web.Application(middlewares=[_errors_as_json])
        app.router.add_get("/", self._static)
        app.router.add_get("/static/{name}", self._static)
        app.router.add_get("/api/overview", self._overview)
        app.router.add_get("/api/status", self._status)
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        if isinstance(self._source, OneProcess):
            app.router.add_get("/api/process", self._process)
        if self._serves_sql:
            app.router.add_post("/api/sql", self._sql)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.web.host, self._settings.web.port)
        await site.start()
        port = int(self._runner.addresses[0][1])
        logger.info("page and metrics are served", extra={"url": f"http://{self._settings.web.host}:{port}/"})
        if self._serves_sql:
            self._endpoint = write_endpoint(self._directory, f"http://{self._settings.web.host}:{port}")
        return port

    async def stop(self) -> None:
        """Stop listening."""
        if self._endpoint is not None:
            remove_endpoint(self._directory)
        if self._runner is not None:
            await self._runner.cleanup()
        await self._in_thread(self._close)
        self._thread.shutdown()

    async def _static(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        suffix = name[name.rfind(".") :]
        resource = resources.files("pipeline.web") / "static" / name
        if suffix not in _STATIC_TYPES or "/" in name or not resource.is_file():
            raise web.HTTPNotFound
        return web.Response(
            body=resource.read_bytes(), content_type=_STATIC_TYPES[suffix], charset="utf-8", headers=_HEADERS
        )

    async def _overview(self, request: web.Request) -> web.Response:
        text = request.query.get("minutes", "60")
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_MINUTES):
            raise web.HTTPBadRequest(text=f"minutes must be a whole number from 1 to {MAX_MINUTES}")
        asked = self._in_thread(lambda: self._cached.overview(self._store(), self._catalogue, int(text)))
        try:
            # Whoever still waits for the one thread then is taken off its queue.
            answer = await asyncio.wait_for(asked, ANSWER_SECONDS)
        except TimeoutError as error:
            raise StoreError(f"ClickHouse has not answered for {ANSWER_SECONDS:g} s; see /readyz") from error
        return _json(answer)

    async def _status(self, request: web.Request) -> web.Response:
        return _json(await self._source.status())

    async def _metrics_page(self, request: web.Request) -> web.Response:
        return web.Response(body=await self._source.exposition(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def _healthz(self, request: web.Request) -> web.Response:
        health = {"alive": True} | await self._source.health()
        return _json(health, status=200 if health["alive"] else 503)

    async def _readyz(self, request: web.Request) -> web.Response:
        health = await self._source.health()
        return _json(health, status=200 if health["ready"] else 503)

    async def _process(self, request: web.Request) -> web.Response:
        assert isinstance(self._source, OneProcess)
        return _json(await self._source.report())

    async def _sql(self, request: web.Request) -> web.Response:
        self._check_token(request)
        try:
            question = msgspec.json.decode(await request.read(), type=Question)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise web.HTTPBadRequest(text=f"not a question: {error}") from error
        rows = await self._in_thread(lambda: _read(self._store(), question))
        return _json({"names": rows.names, "types": rows.types, "rows": rows.rows})

    def _check_token(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        token = self._endpoint.token if self._endpoint else ""
        if not token or not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode()):
            raise web.HTTPUnauthorized(text="the token in worker.json of the chdb directory is needed")

    def _store(self) -> Client:
        if self._client is None:
            self._client = connect(self._settings.clickhouse)
        return self._client

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _read(client: Client, question: Question) -> Rows:
    """Run one reading statement; chdb would run several, and knows no user who may only read.

    Raises:
        HTTPForbidden: it is another one.
        StoreError: it is refused, as it is when there are several.
    """
    ((formatted,),) = client.query("SELECT formatQuerySingleLine({sql:String})", {"sql": question.sql}).rows
    bare = _QUOTED.sub("''", formatted)
    if bare.partition(" ")[0] not in _READING or " INTO OUTFILE " in bare:
        raise web.HTTPForbidden(text="only reading statements: " + ", ".join(_READING))
    return client.query(question.sql, question.parameters)


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _json({"error": error.text or error.reason}, status=error.status)
    except StoreError as error:
        return _json({"error": str(error)}, status=503)
    except XidmetError as error:
        return _json({"error": str(error)}, status=400)


def _json(content: object, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(content), status=status, content_type="application/json", headers=_HEADERS
    )
