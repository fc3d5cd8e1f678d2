"""REST: health, metadata, metrics and inference."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter
from typing import Any

from aiohttp import web

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.model_server.model import EXTENSIONS, SERVER, Model, configuration, metadata
from components.shared.model_server.requests import LENGTH_OF_HEADER, answer, parse_request
from components.shared.model_server.tensors import Refused

SECONDS_TO_SEND = 30.0  # that a client has for its body
SECONDS_TO_BEGIN = 30.0  # that a new connection has for the head of its first request
SECONDS_IDLE = 65.0  # that a connection is kept without a request: longer than gateways keep theirs
REQUESTS_HELD = 16  # of the largest size: what all bodies may take at once

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Rest:
    """The handlers of a model."""

    def __init__(self, model: Model) -> None:
        self._model, self._held = model, 0
        self._unanswered, self._all_answered = 0, asyncio.Event()
        self._silent: dict[Any, asyncio.TimerHandle] = {}  # connections that have sent no request yet

    def application(self) -> web.Application:
        """Return them as an application."""
        app = web.Application(middlewares=[self._answer_errors])
        app.add_routes(
            [
                web.get("/v2", self._server),
                web.get("/v2/health/live", self._live),
                web.get("/v2/health/ready", self._ready),
                web.get("/metrics", self._metrics),
            ]
        )
        for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            app.add_routes(
                [
                    web.get(path, self._metadata),
                    web.get(f"{path}/ready", self._model_ready),
                    web.get(f"{path}/config", self._configuration),
                    web.post(f"{path}/infer", self._infer),
                ]
            )
        return app

    def close_if_silent(self, connection: web.RequestHandler) -> None:
        """Close a new connection that sends no request."""
        loop = asyncio.get_running_loop()
        self._silent[connection] = loop.call_later(SECONDS_TO_BEGIN, self._close_silent, connection)

    async def answer_all(self, seconds: float) -> None:
        """Wait for the answers to all requests that have begun, for some seconds at most."""
        self._note_answered()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_answered.wait(), seconds)

    def _note_answered(self) -> None:
        if self._model.is_stopping and not self._unanswered:
            self._all_answered.set()

    def _close_silent(self, connection: web.RequestHandler) -> None:
        del self._silent[connection]
        if connection.transport:
            connection.transport.abort()

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn what is refused into a JSON object with the error; end the connection if the server stops."""
        if timer := self._silent.pop(request.protocol, None):
            timer.cancel()
        self._unanswered += 1
        response = await self._answer(request, handler)
        self._unanswered -= 1
        if self._model.is_stopping:
            response.force_close()
            self._note_answered()
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as error:
            return _error(str(error), error.status)
        except web.HTTPException as error:
            return _error(f"{request.method} {request.path[:100]}: {error.reason}", error.status, error.headers)
        except UserError as error:
            log.info(f"a prediction failed: {error}")
            return _error(error.message, 500)

    async def _server(self, _request: web.Request) -> web.Response:
        return web.json_response({"name": SERVER, "version": "2", "extensions": list(EXTENSIONS)})

    async def _live(self, _request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, _request: web.Request) -> web.Response:
        is_ready = not self._model.is_stopping
        return web.json_response({"ready": is_ready}, status=200 if is_ready else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        metrics = self._model.metrics
        return web.Response(body=metrics.text(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _model_ready(self, request: web.Request) -> web.Response:
        program = self._model.program(*_asked(request))
        is_ready = not self._model.is_stopping
        return web.json_response({"name": program.name, "ready": is_ready}, status=200 if is_ready else 503)

    async def _metadata(self, request: web.Request) -> web.Response:
        return web.json_response(metadata(self._model.program(*_asked(request))))

    async def _configuration(self, request: web.Request) -> web.Response:
        return web.json_response(configuration(self._model.program(*_asked(request))))

    async def _infer(self, request: web.Request) -> web.StreamResponse:
        """Answer an inference request, and count it."""
        started, code = perf_counter(), 500
        try:
            response = await self._predicted(request)
            code = response.status
        except Refused as error:
            code = error.status
            raise
        finally:
            self._model.metrics.requests.labels("rest", str(code)).inc()
            self._model.metrics.seconds.labels("rest").observe(perf_counter() - started)
        return response

    async def _predicted(self, request: web.Request) -> web.Response:
        self._model.program(*_asked(request))  # before the body
        body = bytearray()
        try:
            await self._read(request, body)
            program = self._model.program(*_asked(request))
            parsed = parse_request(program, body, request.headers.get(LENGTH_OF_HEADER))
            probabilities = await self._model.predict(program, parsed.images)
        finally:
            self._hold(-len(body))
        content, headers = answer(program, parsed, probabilities)
        return web.Response(body=content, headers=headers)

    async def _read(self, request: web.Request, body: bytearray) -> None:
        """Read a body. Raises Refused if it is too large, too slow, cut off, or one too many."""
        limit = self._model.options.max_bytes
        _check_size(request.content_length or 0, limit)
        try:
            async with asyncio.timeout(SECONDS_TO_SEND):
                async for part in request.content.iter_any():
                    _check_size(len(body) + len(part), limit)
                    body += part
                    self._hold(len(part))
                    if self._held > REQUESTS_HELD * limit:
                        raise Refused("the server has too many requests at once; send it again later", 503)
        except TimeoutError:
            raise Refused(f"the body did not come within {SECONDS_TO_SEND:.0f} s", 408) from None
        except (ConnectionError, web.RequestPayloadError) as error:
            raise Refused(f"the body was cut off ({error})", 400) from None

    def _hold(self, size: int) -> None:
        self._held += size
        self._model.metrics.held_bytes.set(self._held)


def _asked(request: web.Request) -> tuple[str, str]:
    """Return the name and the version of the model in a request's path."""
    return request.match_info["name"], request.match_info.get("version", "")


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise Refused(f"the request has more than {limit:,} bytes, which is the limit (--max-request)", 413)


def _error(message: str, status: int, headers: Any = None) -> web.Response:
    """Return an error; what follows on its connection may be the rest of a body that nobody wants, so that it ends."""
    response = web.json_response({"error": message}, status=status)
    if headers and "Allow" in headers:
        response.headers["Allow"] = headers["Allow"]
    if status in (408, 413, 503):
        response.force_close()
    return response
