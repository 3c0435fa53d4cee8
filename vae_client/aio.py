"""The client for asyncio."""

from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar

import grpc
from numpy.typing import ArrayLike
from vae.v1 import model_service_pb2 as models_pb
from vae.v1 import model_service_pb2_grpc as models_grpc
from vae.v1 import vae_service_pb2_grpc as vae_grpc

from vae_client import messages
from vae_client.channel import DEFAULT_TIMEOUT, OPTIONS, address
from vae_client.errors import error_of
from vae_client.messages import Decoded, Posterior, Samples

_Response = TypeVar("_Response")
_Request = TypeVar("_Request")


class AsyncVaeClient:
    """`VaeClient` for asyncio: the same arguments, methods to await. One for each event loop."""

    def __init__(
        self,
        target: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address(target), OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(address(target), credentials, OPTIONS)
        self._timeout = timeout
        self._vae = vae_grpc.VaeServiceStub(self._channel)
        self._models = models_grpc.ModelServiceStub(self._channel)

    async def sample(
        self,
        model: str,
        count: int,
        *,
        seed: int | None = None,
        start_index: int | None = None,
        temperature: float | None = None,
        labels: Sequence[int] = (),
        include_latents: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - the deadline travels with the request
    ) -> Samples:
        """See `VaeClient.sample`."""
        request = messages.sample_request(
            model,
            count,
            seed=seed,
            start_index=start_index,
            temperature=temperature,
            labels=labels,
            include_latents=include_latents,
        )
        return messages.samples(await self._call(self._vae.Sample, request, timeout))

    async def encode(
        self,
        model: str,
        observations: ArrayLike,
        *,
        include_latents: bool = False,
        seed: int | None = None,
        start_index: int | None = None,
        labels: Sequence[int] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> Posterior:
        """See `VaeClient.encode`."""
        request = messages.encode_request(
            model,
            observations,
            include_latents=include_latents,
            seed=seed,
            start_index=start_index,
            labels=labels,
        )
        return messages.posterior(await self._call(self._vae.Encode, request, timeout))

    async def decode(
        self,
        model: str,
        latents: ArrayLike,
        *,
        latent_space: str | None = None,
        labels: Sequence[int] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> Decoded:
        """See `VaeClient.decode`."""
        request = messages.decode_request(model, latents, latent_space=latent_space, labels=labels)
        return messages.decoded(await self._call(self._vae.Decode, request, timeout))

    async def sample_stream(
        self,
        model: str,
        count: int,
        *,
        chunk_items: int = 0,
        seed: int | None = None,
        start_index: int | None = None,
        temperature: float | None = None,
        labels: Sequence[int] = (),
        include_latents: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> AsyncIterator[Samples]:
        """See `VaeClient.sample_stream`."""
        request = messages.sample_request(
            model,
            count,
            seed=seed,
            start_index=start_index,
            temperature=temperature,
            labels=labels,
            include_latents=include_latents,
        )
        state = messages.SampleStream(request, chunk_items)
        while not state.done:
            try:
                async for message in self._vae.SampleStream(state.request(), timeout=timeout):
                    yield state.take(message)
            except grpc.aio.AioRpcError as error:
                failure = error_of(error)
                if not state.goes_on(failure):
                    raise failure from error

    async def encode_stream(
        self,
        model: str,
        batches: Iterable[ArrayLike],
        *,
        labels: Sequence[int] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> AsyncIterator[Posterior]:
        """See `VaeClient.encode_stream`."""
        requests = (messages.encode_stream_request(model, batch, labels) for batch in batches)
        try:
            async for message in self._vae.EncodeStream(requests, timeout=timeout):
                yield messages.posterior(message.response)
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from error

    async def decode_stream(
        self,
        model: str,
        batches: Iterable[ArrayLike],
        *,
        latent_space: str | None = None,
        labels: Sequence[int] = (),
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> AsyncIterator[Decoded]:
        """See `VaeClient.decode_stream`."""
        requests = (
            messages.decode_stream_request(model, batch, latent_space, labels) for batch in batches
        )
        try:
            async for message in self._vae.DecodeStream(requests, timeout=timeout):
                yield messages.decoded(message.response)
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from error

    async def model(
        self,
        model: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> models_pb.Model:
        """See `VaeClient.model`."""
        request = models_pb.GetModelRequest(name=messages.resource(model))
        return (await self._call(self._models.GetModel, request, timeout)).model

    async def models(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> list[models_pb.Model]:
        """See `VaeClient.models`."""
        found: list[models_pb.Model] = []
        request = models_pb.ListModelsRequest()
        while True:
            page = await self._call(self._models.ListModels, request, timeout)
            found += page.models
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

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

    async def _call(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]",
        request: _Request,
        timeout: float | None,  # noqa: ASYNC109 - as above
    ) -> _Response:
        call: Awaitable[_Response] = method(
            request, timeout=self._timeout if timeout is None else timeout
        )
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from error
