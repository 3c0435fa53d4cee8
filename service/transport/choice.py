"""Which transport to use: the lean one where it works with the installed grpcio."""

import importlib
from typing import Any, Literal

import grpc
from google.protobuf.wrappers_pb2 import BytesValue
from grpc import aio

from service.logs import Logger
from service.transport import Call, CallObserver, Method, Stream, StreamMethod, Transport
from service.transport import TransportOptions as Options
from service.transport.public import PublicTransport

TransportName = Literal["auto", "lean", "public"]
_SERVICE = "vae.check.Check"
_SECONDS = 5.0
_PAYLOAD = BytesValue(value=bytes(range(256)))


async def make_transport(
    name: TransportName, options: Options, observer: CallObserver, log: Logger
) -> Transport:
    """The transport of that name; auto takes "lean" if it passes its check, else "public".

    Raises whatever goes wrong when "lean" is asked for and does not work.
    """
    if name != "public":
        try:
            await _check(log)
        except Exception as error:
            # A private module can break in any way; the service then does without it.
            if name == "lean":
                raise
            log.warning("lean_transport_unavailable", grpcio=grpc.__version__, exc_info=error)
        else:
            return _lean(options, observer, log)
    return PublicTransport(options, observer, log)


def _lean(options: Options, observer: CallObserver, log: Logger) -> Transport:
    module = importlib.import_module("service.transport.lean")  # fails where grpcio has changed
    transport: Transport = module.LeanTransport(options, observer, log)
    return transport


class _Nobody:
    def call_done(self, method: str, code: str, seconds: float) -> None:
        """Nothing to count."""


async def _check(log: Logger) -> None:
    """Calls a lean server once in each way. Raises RuntimeError if an answer is not as it must."""

    async def unary(request: BytesValue, call: Call) -> BytesValue:
        if call.deadline is None:
            raise RuntimeError("the deadline did not arrive")
        return request

    async def stream(stream: Stream) -> None:
        while (request := await stream.receive()) is not None:
            await stream.send(request)

    transport = _lean(Options("127.0.0.1:0"), _Nobody(), log)
    transport.add(
        [
            Method(_SERVICE, "Unary", BytesValue, unary),
            StreamMethod(_SERVICE, "Stream", BytesValue, stream),
        ]
    )
    await transport.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{transport.port}") as channel:
            await _call(channel)
    finally:
        await transport.stop(_SECONDS)


async def _call(channel: aio.Channel) -> None:
    data = _PAYLOAD.SerializeToString()
    if await _unary(channel, "Unary")(data, timeout=_SECONDS) != data:
        raise RuntimeError("a unary call was answered wrongly")
    method = channel.stream_stream(f"/{_SERVICE}/Stream", None, None)  # bytes as they are
    call: Any = method(iter([data, data]), timeout=_SECONDS)
    if [answer async for answer in call] != [data, data]:
        raise RuntimeError("a stream was answered wrongly")
    try:
        await _unary(channel, "Missing")(data, timeout=_SECONDS)
    except aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise RuntimeError("an unknown method was answered wrongly") from error
    else:
        raise RuntimeError("an unknown method was answered")


def _unary(channel: aio.Channel, name: str) -> Any:
    return channel.unary_unary(f"/{_SERVICE}/{name}", None, None)  # bytes as they are
