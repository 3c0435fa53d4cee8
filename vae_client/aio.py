"""The client for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc

from vae_client import calls, latent_calls
from vae_client.calls import Call, Exchange
from vae_client.channel import (
    DEFAULT_STREAM_TIMEOUT,
    DEFAULT_TIMEOUT,
    OPTIONS,
    Token,
    address,
    credentials_of,
)
from vae_client.errors import error_of
from vae_client.repeats import Repeats
from vae_client.streams import Stream
from vae_client.stubs import Stubs

T = TypeVar("T")
P = ParamSpec("P")


def _unary(
    function: Callable[P, Exchange[T]],
) -> Callable[Concatenate["AsyncVaeClient", P], Coroutine[Any, Any, T]]:
    async def method(self: "AsyncVaeClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        exchange = function(*args, **kwargs)
        call = next(exchange)
        while True:
            response = await self._answer(call)
            try:
                call = exchange.send(response)
            except StopIteration as end:
                result: T = end.value
                return result

    return calls.named_after(method, function)


def _stream(
    function: Callable[P, Stream[T]],
) -> Callable[Concatenate["AsyncVaeClient", P], AsyncIterator[T]]:
    def method(self: "AsyncVaeClient", /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self._parts(function(*args, **kwargs))

    return calls.named_after(method, function)


class AsyncVaeClient:
    """`VaeClient` for asyncio: the same arguments, methods to await. One for each event loop."""

    sample = _unary(calls.sample)
    encode = _unary(calls.encode)
    decode = _unary(calls.decode)
    reconstruct = _unary(latent_calls.reconstruct)
    interpolate = _unary(latent_calls.interpolate)
    traverse = _unary(latent_calls.traverse)
    score = _unary(latent_calls.score)
    sample_stream = _stream(calls.sample_stream)
    encode_stream = _stream(calls.encode_stream)
    decode_stream = _stream(calls.decode_stream)
    model = _unary(calls.model)
    models = _unary(calls.models)

    def __init__(
        self,
        target: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: grpc.ChannelCredentials | None = None,
        token: Token | None = None,
    ) -> None:
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address(target), OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(address(target), credentials, OPTIONS)
        self._timeout = timeout
        self._token = token
        self._stubs = Stubs(self._channel)

    async def close(self) -> None:
        """Ends the connections."""
        await self._channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _answer(self, call: Call) -> object:
        method = call.method(self._stubs)
        repeats = Repeats(self._timeout if call.timeout is None else call.timeout)
        while True:
            try:
                response: object = await method(
                    call.request,
                    timeout=repeats.remaining,
                    metadata=credentials_of(self._token),
                )
                return response
            except grpc.aio.AioRpcError as error:
                failure = error_of(error)
                wait = repeats.wait(failure)
                if wait is None:
                    raise failure from error
            await asyncio.sleep(wait)

    async def _parts(self, stream: Stream[T]) -> AsyncIterator[T]:
        method = stream.method(self._stubs)
        repeats = Repeats(DEFAULT_STREAM_TIMEOUT if stream.timeout is None else stream.timeout)
        while True:
            try:
                async for message in method(
                    stream.request(),
                    timeout=repeats.remaining,
                    metadata=credentials_of(self._token),
                ):
                    repeats.progress()
                    yield stream.take(message)
                return
            except grpc.aio.AioRpcError as error:
                if stream.done:
                    return
                failure = error_of(error)
                wait = stream.wait(failure, repeats)
                if wait is None:
                    raise failure from error
            await asyncio.sleep(wait)
