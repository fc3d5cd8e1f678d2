"""The server: both protocols at their ports, until it is stopped; then what is in flight is answered."""

import asyncio
import errno
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from typing import NamedTuple

import grpc
import grpc.aio
from aiohttp import web
from tritonclient.grpc import service_pb2_grpc

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.model_server.champion import Current
from components.shared.model_server.metrics import Metrics
from components.shared.model_server.model import Model
from components.shared.model_server.options import Options
from components.shared.model_server.rest import SECONDS_IDLE, Rest
from components.shared.model_server.rpc import Rpc

CALLS = 256  # of gRPC at once; each holds a request of the largest size at most
CONNECTIONS = 1024  # that wait to be accepted
SECONDS_TO_CLOSE = 1.0  # that REST connections have at the end, once all is answered
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Address(NamedTuple):
    """Where the server is: the host as addresses have it, and the ports."""

    host: str
    port: int
    grpc_port: int


def serve(current: Current, options: Options, started: Callable[[Address], None]) -> None:
    """Serve until SIGTERM or SIGINT; tell `started` where, once requests are answered.

    Raises UserError if an address cannot be had.
    """
    asyncio.run(_serve(current, options, started))


async def _serve(current: Current, options: Options, started: Callable[[Address], None]) -> None:
    model, stop = Model(current, options, Metrics()), asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        for number in SIGNALS:
            loop.remove_signal_handler(number)  # a second one ends the process at once
        stop.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, end)
    async with running(model) as address:
        started(address)
        await stop.wait()
        log.info("stops; requests in flight are answered")


@asynccontextmanager
async def running(model: Model) -> AsyncIterator[Address]:
    """Serve a model while the block runs, then answer what is in flight. Raises UserError if a port cannot be had."""
    options, servers = model.options, []  # type: Options, list[_Server]
    follower = asyncio.create_task(model.follow())
    try:
        servers.append(await _start_rest(model))
        servers.append(await _start_rpc(model))
        yield Address(_host(options.host), *(server.port for server in servers))
    finally:
        model.is_stopping = True
        await asyncio.gather(*(server.stop() for server in servers))
        follower.cancel()
        with suppress(asyncio.CancelledError):
            await follower
        model.close()


class _Server(NamedTuple):
    port: int
    stop: Callable[[], Awaitable[None]]


async def _start_rest(model: Model) -> _Server:
    options, rest = model.options, Rest(model)
    runner = web.AppRunner(
        rest.application(), access_log=None, shutdown_timeout=SECONDS_TO_CLOSE, keepalive_timeout=SECONDS_IDLE
    )
    await runner.setup()
    accept = runner.server
    assert accept

    def connect() -> web.RequestHandler:
        connection = accept()
        rest.close_if_silent(connection)
        return connection

    async def stop() -> None:
        server.close()
        await rest.answer_all(options.grace)  # first: aiohttp's own end drops what comes of half-sent bodies
        await runner.cleanup()

    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(connect, options.host, options.port, backlog=CONNECTIONS)
    except OSError as error:
        await runner.cleanup()
        if error.errno == errno.EADDRNOTAVAIL:
            raise UserError(f"--host {options.host} is no address of this machine", "give one that it has") from None
        raise _unusable(options.host, options.port, "--port") from error
    return _Server(server.sockets[0].getsockname()[1], stop)


async def _start_rpc(model: Model) -> _Server:
    options = model.options
    server = grpc.aio.server(
        maximum_concurrent_rpcs=CALLS,
        options=[
            ("grpc.max_receive_message_length", options.max_bytes),
            ("grpc.so_reuseport", 0),  # else two servers share a port, without a word
        ],
    )
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Rpc(model), server)
    try:
        port = server.add_insecure_port(f"{_host(options.host)}:{options.grpc_port}")
    except RuntimeError as error:
        raise _unusable(options.host, options.grpc_port, "--grpc-port") from error
    await server.start()

    async def stop() -> None:
        await server.stop(options.grace)

    return _Server(port, stop)


def _host(host: str) -> str:
    """Return a host as addresses have it."""
    try:
        return f"[{host}]" if ip_address(host).version == 6 else host
    except ValueError:
        raise UserError(f"--host {host} is not an IP address", "give an address such as 127.0.0.1") from None


def _unusable(host: str, port: int, option: str) -> UserError:
    return UserError(f"port {port} of {host} cannot be used", f"give another {option}, or end what uses it")
