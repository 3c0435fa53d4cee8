"""Which transport to use: our own where it works, else grpc's."""

import importlib
from typing import Any, Literal

import grpc
from google.protobuf.wrappers_pb2 import BytesValue
from grpc import aio

from service.logs import Logger
from service.transport import Call, CallObserver, Method, Stream, StreamMethod, Transport
from service.transport import TransportOptions as Options
from service.transport.public import PublicTransport

TransportName = Literal["auto", "http2", "public"]
_SERVICE = "vae.check.Check"
_SECONDS = 5.0
_PAYLOAD = BytesValue(value=bytes(range(256)))


async def make_transport(
    name: TransportName, options: Options, observer: CallObserver, log: Logger
) -> Transport:
    """The transport of that name; auto takes "http2" if it passes its check, else "public".

    Raises whatever goes wrong when "http2" is asked for and does not work.
    """
    if name != "public":
        try:
            await _check(log)
        except Exception as error:
            # It needs Linux's epoll, and looks into the library for HPACK: elsewhere, or with
            # another release of that, the service does without.
            if name == "http2":
                raise
            log.warning("http2_transport_unavailable", exc_info=error)
        else:
            return _http2(options, observer, log)
    return PublicTransport(options, observer, log)


def _http2(options: Options, observer: CallObserver, log: Logger) -> Transport:
    module = importlib.import_module("service.transport.http2.server")
    transport: Transport = module.Http2Transport(options, observer, log)
    return transport


class _Nobody:
    def call_done(self, method: str, code: str, seconds: float) -> None:
        """Nothing to count."""


async def _check(log: Logger) -> None:
    """Calls a server once in each way. Raises RuntimeError if an answer is not as it must be."""

    async def unary(request: BytesValue, call: Call) -> BytesValue:
        if call.deadline is None:
            raise RuntimeError("the deadline did not arrive")
        return request

    async def stream(stream: Stream) -> None:
        while (request := await stream.receive()) is not None:
            await stream.send(request)

    transport = _http2(Options("127.0.0.1:0"), _Nobody(), log)
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
