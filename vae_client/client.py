"""The blocking client."""

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

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


def _unary(function: Callable[P, Exchange[T]]) -> Callable[Concatenate["VaeClient", P], T]:
    def method(self: "VaeClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        exchange = function(*args, **kwargs)
        call = next(exchange)
        while True:
            response = self._answer(call)
            try:
                call = exchange.send(response)
            except StopIteration as end:
                result: T = end.value
                return result

    return calls.named_after(method, function)


def _stream(
    function: Callable[P, Stream[T]],
) -> Callable[Concatenate["VaeClient", P], Iterator[T]]:
    def method(self: "VaeClient", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._parts(function(*args, **kwargs))

    return calls.named_after(method, function)


class VaeClient:
    """Calls a service from threads. Safe to share between them; make one and keep it.

    target: "HOST:PORT", a name with several addresses is balanced over all of them; or any gRPC
    target such as "unix:/run/vae.sock". timeout: seconds for a call that gives none of its own, in
    which it is repeated where that helps; streams have an hour. credentials: for TLS; None talks in
    the clear. token: a bearer token to show with every call, or a function that gives it, called
    for each; without TLS everybody on the way can read it. model: "digits" (its default version) or
    "models/digits/versions/2". uint8: observations come as levels, whose 0 to 255 span the model's
    value range, in a quarter of the bytes. priority: 1 is the most urgent level, 0 the model's
    default. Every method raises VaeError.
    """

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
            self._channel = grpc.insecure_channel(address(target), OPTIONS)
        else:
            self._channel = grpc.secure_channel(address(target), credentials, OPTIONS)
        self._timeout = timeout
        self._token = token
        self._stubs = Stubs(self._channel)

    def close(self) -> None:
        """Ends the connections."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _answer(self, call: Call) -> object:
        method = call.method(self._stubs)
        repeats = Repeats(self._timeout if call.timeout is None else call.timeout)
        while True:
            try:
                response: object = method(
                    call.request,
                    timeout=repeats.remaining,
                    metadata=credentials_of(self._token),
                )
                return response
            except grpc.RpcError as error:
                failure = error_of(error)
                wait = repeats.wait(failure)
                if wait is None:
                    raise failure from error
            time.sleep(wait)

    def _parts(self, stream: Stream[T]) -> Iterator[T]:
        method = stream.method(self._stubs)
        repeats = Repeats(DEFAULT_STREAM_TIMEOUT if stream.timeout is None else stream.timeout)
        while True:
            try:
                for message in method(
                    stream.request(),
                    timeout=repeats.remaining,
                    metadata=credentials_of(self._token),
                ):
                    repeats.progress()
                    yield stream.take(message)
                return
            except grpc.RpcError as error:
                if stream.done:
                    return
                failure = error_of(error)
                wait = stream.wait(failure, repeats)
                if wait is None:
                    raise failure from error
            time.sleep(wait)
